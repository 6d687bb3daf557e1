"""The cases in PyTorch, eager and through torch.compile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks.cases import RATE, Array, Build, Inputs, Task

Tensor = Any
Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]


def tensors(i: Inputs, *names: str) -> list[Tensor]:
    return [torch.from_numpy(i[name].copy()) for name in names]


def arrays(*values: Tensor) -> list[Array]:
    return [value.detach().numpy().copy() for value in values]


def add_one(i: Inputs, wrap: Wrap) -> Task:
    f = wrap(lambda x: x + 1)
    (x,) = tensors(i, "x")
    return Task("f(x)", {"f": f, "x": x}, lambda: arrays(f(x)))


def chain(i: Inputs, wrap: Wrap) -> Task:
    f = wrap(lambda x: 0.5 * (torch.tanh(x) * torch.sigmoid(x) + torch.log1p(torch.exp(-(x * x)))) - x)
    (x,) = tensors(i, "x")
    return Task("f(x)", {"f": f, "x": x}, lambda: arrays(f(x)))


def xent(i: Inputs, wrap: Wrap) -> Task:
    cost_of = wrap(F.cross_entropy)
    x, y = tensors(i, "x", "y")
    x.requires_grad_()

    def f() -> tuple[Tensor, Tensor]:
        cost = cost_of(x, y)
        (slope,) = torch.autograd.grad(cost, x)
        return cost, slope

    return Task("f()", {"f": f}, lambda: arrays(*f()))


def trained(i: Inputs, wrap: Wrap, names: tuple[str, ...], forward: Callable[..., Tensor]) -> Task:
    """A step of gradient descent: `forward(x, *parameters)` gives logits."""
    parameters = [p.requires_grad_() for p in tensors(i, *names)]
    cost_of = wrap(lambda x, y, *p: F.cross_entropy(forward(x, *p), y))
    x, y = tensors(i, "x", "y")

    def step() -> Tensor:
        cost = cost_of(x, y, *parameters)
        slopes = torch.autograd.grad(cost, parameters)
        with torch.no_grad():
            torch._foreach_add_(parameters, slopes, alpha=-RATE)
        return cost

    return Task("step()", {"step": step}, lambda: arrays(step(), *parameters))


def logistic(i: Inputs, wrap: Wrap) -> Task:
    return trained(i, wrap, ("w", "b"), lambda x, w, b: torch.addmm(b, x, w))


def mlp(i: Inputs, wrap: Wrap) -> Task:
    def forward(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
        return torch.addmm(b2, torch.tanh(torch.addmm(b1, x, w1)), w2)

    return trained(i, wrap, ("w1", "b1", "w2", "b2"), forward)


KINDS: dict[str, Callable[[Inputs, Wrap], Task]] = {
    "add_one": add_one,
    "chain": chain,
    "xent": xent,
    "logistic": logistic,
    "mlp": mlp,
}


def built(kind: str, wrap: Wrap) -> Build:
    return lambda i: KINDS[kind](i, wrap)


def warm_up() -> None:
    """Imports what the first compilation would import."""
    import torch._dynamo
    import torch._inductor.compile_fx  # noqa: F401


EAGER = {kind: built(kind, lambda f: f) for kind in KINDS}
COMPILED = {kind: built(kind, lambda f: torch.compile(f, dynamic=False)) for kind in KINDS}
