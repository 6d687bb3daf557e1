"""JAX: everything under jit; parameters and state are donated, so that updates may happen in place."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.case import RATE, Array, Case, Function, Inputs, Slopes, Task, Update, Values, listed

jax.config.update("jax_default_matmul_precision", "highest")  # products of float32, not of tf32, also on GPUs
Value = Any


def arrays(*values: Value) -> list[Array]:
    return [np.array(value) for value in values]


def task(case: Case, f: Function, inputs: Inputs) -> Task:
    """Cases in float64 need 64-bit types, which JAX has switched off otherwise."""
    wide = any(value.dtype == np.float64 for value in inputs.values())
    around = (lambda: jax.enable_x64(True)) if wide else nullcontext
    with around():
        kind = {"dtype": jnp.bfloat16} if case.bfloat16 else {}
        values = {name: jnp.array(value, **kind) for name, value in inputs.items()}
    form = case.form
    if case.by_host:
        return from_host(f, inputs)
    if isinstance(form, (Values, Slopes)):
        return waiting(f if isinstance(form, Values) else slopes(form, f, list(inputs)), values, around)
    held = form.held
    state = [values.pop(name) for name in held]
    order, given = list(inputs), list(values.values())

    def step(state: list[Value], *given: Value) -> tuple[Value, list[Value]]:
        at = {**dict(zip(held, state)), **dict(zip(values, given))}
        if isinstance(form, Update):
            outputs, new = f(*(at[name] for name in order))
            return outputs, listed(new)
        cost, by = jax.value_and_grad(lambda state: f(*({**at, **dict(zip(held, state))}[n] for n in order)))(
            state
        )
        return cost, [p - RATE * slope for p, slope in zip(state, by)]

    jitted = jax.jit(step, donate_argnums=0)

    def run() -> Value:
        outputs, state[:] = jitted(list(state), *given)
        return jax.block_until_ready((outputs, state))[0]

    def results() -> list[Array]:
        with around():
            return arrays(*jax.tree.leaves(run()), *state)

    return Task("run()", {"run": run}, results, around)


def waiting(f: Function, values: dict[str, Value], around: Any) -> Task:
    jitted = jax.jit(f)
    names = {f"a{k}": value for k, value in enumerate(values.values())}
    statement = f"block(f({', '.join(names)}))"
    bound = {"f": jitted, "block": jax.block_until_ready, **names}

    def results() -> list[Array]:
        with around():
            return arrays(*jax.tree.leaves(jitted(*names.values())))

    return Task(statement, bound, results, around)


def from_host(f: Function, inputs: Inputs) -> Task:
    """NumPy's arrays go in and come out."""
    jitted, names = jax.jit(f), {f"a{k}": value for k, value in enumerate(inputs.values())}

    def run(*given: Array) -> list[Array]:
        return [np.asarray(value) for value in jax.tree.leaves(jitted(*given))]

    return Task(f"f({', '.join(names)})", {"f": run, **names}, lambda: run(*names.values()))


def slopes(form: Slopes, f: Function, order: list[str]) -> Function:
    """The function that gives f's value and its derivatives."""

    def both(*given: Value) -> Value:
        at = dict(zip(order, given))
        cotangent = at.pop(form.cotangent) if form.cotangent else None

        def inner(by: list[Value]) -> Value:
            return f(*{**at, **dict(zip(form.by, by))}.values())

        value, pull = jax.vjp(inner, [at[name] for name in form.by])
        seed = jnp.ones_like(value) if cotangent is None else cotangent
        return value, pull(seed)[0]

    return both


def warm_up() -> None:
    """Starts the CPU client."""
    jax.devices()
