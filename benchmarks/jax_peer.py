"""The cases in JAX, all under jit; parameters are donated, so that updates may happen in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cases import RATE, Array, Build, Inputs, Task

Value = Any


def arrays(*values: Value) -> list[Array]:
    return [np.array(value) for value in values]


def waiting(f: Callable[..., Value], *args: Value) -> Task:
    names = {f"a{k}": jnp.asarray(arg) for k, arg in enumerate(args)}
    call = f"f({', '.join(names)})"
    return Task(
        f"block({call})",
        {"f": f, "block": jax.block_until_ready, **names},
        lambda: arrays(*jax.tree.leaves(f(*names.values()))),
    )


def add_one(i: Inputs) -> Task:
    return waiting(jax.jit(lambda x: x + 1), i["x"])


def chain(i: Inputs) -> Task:
    return waiting(
        jax.jit(lambda x: 0.5 * (jnp.tanh(x) * jax.nn.sigmoid(x) + jnp.log1p(jnp.exp(-(x * x)))) - x), i["x"]
    )


def cost_of(z: Value, y: Value) -> Value:
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(z), y[:, None], axis=1))


def xent(i: Inputs) -> Task:
    return waiting(jax.jit(jax.value_and_grad(cost_of)), i["x"], i["y"].astype(np.int32))


def trained(i: Inputs, names: tuple[str, ...], forward: Callable[..., Value]) -> Task:
    """A step of gradient descent: `forward(x, *parameters)` gives logits."""

    def updated(parameters: list[Value], x: Value, y: Value) -> tuple[Value, list[Value]]:
        cost, slopes = jax.value_and_grad(lambda p: cost_of(forward(x, *p), y))(parameters)
        return cost, [p - RATE * slope for p, slope in zip(parameters, slopes)]

    jitted = jax.jit(updated, donate_argnums=0)
    x, y = jnp.asarray(i["x"]), jnp.asarray(i["y"].astype(np.int32))
    state = [jnp.array(i[name]) for name in names]

    def step() -> Value:
        cost, state[:] = jitted(list(state), x, y)
        return jax.block_until_ready((cost, state))[0]

    return Task("step()", {"step": step}, lambda: arrays(step(), *state))


def logistic(i: Inputs) -> Task:
    return trained(i, ("w", "b"), lambda x, w, b: x @ w + b)


def mlp(i: Inputs) -> Task:
    return trained(i, ("w1", "b1", "w2", "b2"), lambda x, w1, b1, w2, b2: jnp.tanh(x @ w1 + b1) @ w2 + b2)


def warm_up() -> None:
    """Starts the CPU client."""
    jax.devices()


BUILD: dict[str, Build] = {"add_one": add_one, "chain": chain, "xent": xent, "logistic": logistic, "mlp": mlp}
