"""Normalisation of each example by itself."""

from __future__ import annotations

from typing import Any

from tcc import build
from tcc.elemwise import add, inv, mul, pow, sqr, sqrt, sub, true_div
from tcc.reductions import mean, var
from tcc.tensor.signal.pool import pooled
from tcc.variable import as_variable


def _shrink(x: Any, spread: Any, epsilon: float) -> Any:
    return inv(sqrt(add(spread, build.cast(as_variable(epsilon), x.type.dtype))))


def layer_norm(x: Any, gamma: Any = None, beta: Any = None, axis: Any = -1, epsilon: float = 1e-5) -> Any:
    """gamma * (x - mean) / sqrt(var + epsilon) + beta with the mean and variance over `axis` (Ba, Kiros, Hinton 2016).
    `gamma` and `beta`, which may be left out, broadcast against x."""
    x = as_variable(x)
    made = mul(sub(x, mean(x, axis, keepdims=True)), _shrink(x, var(x, axis, keepdims=True), epsilon))
    made = made if gamma is None else mul(made, gamma)
    return made if beta is None else add(made, beta)


def rms_norm(x: Any, gamma: Any = None, axis: Any = -1, epsilon: float = 1e-5) -> Any:
    """gamma * x / sqrt(mean(x ** 2) + epsilon) with the mean over `axis` (Zhang and Sennrich 2019)."""
    x = as_variable(x)
    made = mul(x, _shrink(x, mean(sqr(x), axis, keepdims=True), epsilon))
    return made if gamma is None else mul(made, gamma)


def local_response_norm(x: Any, alpha: float = 1e-4, k: float = 2, beta: float = 0.75, n: int = 5) -> Any:
    """x / (k + alpha * sum of squares over the n channels around each one) ** beta, of images [batch, channels, ...]
    (Krizhevsky, Sutskever, Hinton 2012).  `n` must be odd."""
    if n % 2 == 0:
        raise NotImplementedError(f"local_response_norm: works with odd n alone, got {n}")
    x = as_variable(x)
    if x.type.ndim not in (3, 4):
        raise TypeError(f"local_response_norm: x must have 3 or 4 axes, got {x.type}")
    ones = (1,) * (x.type.ndim - 2)
    near = pooled(sqr(x), "sum", (n, *ones), (1, *ones), (n // 2, *(0 for _ in ones)), partial=False)
    scale = add(
        build.cast(as_variable(k), x.type.dtype), mul(build.cast(as_variable(alpha), x.type.dtype), near)
    )
    return true_div(x, pow(scale, build.cast(as_variable(beta), x.type.dtype)))


__all__ = ["layer_norm", "local_response_norm", "rms_norm"]
