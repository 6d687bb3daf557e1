"""PyTorch, eager (`task`) and through torch.compile (`compiled`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from benchmarks.case import DEVICE, RATE, Array, Case, Descent, Function, Inputs, Slopes, Task, Update, listed

torch.backends.cudnn.allow_tf32 = False  # convolutions too add up float32
Tensor = Any
Wrap = Callable[[Function], Function]


def arrays(*values: Tensor) -> list[Array]:
    return [
        (v.float() if v.dtype == torch.bfloat16 else v).numpy().copy()
        for v in (value.detach().cpu() for value in values)
    ]


@contextmanager
def gradients(on: bool) -> Iterator[None]:
    """As inference_mode does, but compiled functions and their own gradients run in it too."""
    with torch.set_grad_enabled(on):
        yield


def task(case: Case, f: Function, inputs: Inputs, wrap: Wrap = lambda f: f) -> Task:
    form = case.form
    kind = {"dtype": torch.bfloat16} if case.bfloat16 else {}
    tensors = {name: torch.from_numpy(value.copy()).to(DEVICE, **kind) for name, value in inputs.items()}
    run, names, state = wrap(f), {f"a{k}": t for k, t in enumerate(tensors.values())}, []
    if isinstance(form, Update):
        state = [tensors[name] for name in form.held]
    elif isinstance(form, Slopes):
        run, names = slopes(form, run, tensors), {}
    elif isinstance(form, Descent):
        state = [tensors[name].requires_grad_() for name in form.held]
        run, names = descent(run, tensors, state), {}

    if case.by_host and DEVICE != "cpu":
        run, names = from_host(run), {name: t.cpu() for name, t in names.items()}
    elif DEVICE != "cpu":
        run = settled(run)

    def around() -> Any:
        return gradients(isinstance(form, (Slopes, Descent)))

    def results() -> list[Array]:
        with around():
            return arrays(*listed(run(*names.values())), *state)

    return Task(f"f({', '.join(names)})", {"f": run, **names}, results, around)


def settled(f: Function) -> Function:
    """f, and all that it gave the GPU to do is done."""

    def run(*given: Tensor) -> Any:
        results = f(*given)
        torch.cuda.synchronize()
        return results

    return run


def from_host(f: Function) -> Function:
    """f of the host's tensors, with its results there."""

    def run(*given: Tensor) -> list[Tensor]:
        return [made.cpu() for made in listed(f(*(t.to(DEVICE) for t in given)))]

    return run


def slopes(form: Slopes, f: Function, tensors: dict[str, Tensor]) -> Function:
    by = [tensors[name].requires_grad_() for name in form.by]
    cotangent = tensors[form.cotangent] if form.cotangent else None
    given = [t for t in tensors.values() if t is not cotangent]

    def run() -> list[Tensor]:
        value = f(*given)
        return [value, *torch.autograd.grad(value, by, cotangent)]

    return run


def descent(f: Function, tensors: dict[str, Tensor], parameters: list[Tensor]) -> Function:
    given = list(tensors.values())

    def step() -> Tensor:
        cost = f(*given)
        found = torch.autograd.grad(cost, parameters)
        with torch.no_grad():
            torch._foreach_add_(parameters, found, alpha=-RATE)
        return cost

    return step


def compiled(case: Case, f: Function, inputs: Inputs) -> Task:
    return task(case, f, inputs, lambda f: torch.compile(f, dynamic=False))


def warm_up() -> None:
    """Imports what the first compilation would import."""
    import torch._dynamo
    import torch._inductor.compile_fx  # noqa: F401
