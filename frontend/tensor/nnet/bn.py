"""Batch normalisation (Ioffe and Szegedy 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tcc import build
from tcc.build import size_of, size_product, size_variable
from tcc.elemwise import add, cast, inv, maximum, mul, sqrt, sub, true_div
from tcc.reductions import mean, var
from tcc.shapes import addbroadcast, dimshuffle, patternbroadcast
from tcc.variable import as_variable


def batch_normalization(
    inputs: Any, gamma: Any, beta: Any, mean: Any, std: Any, mode: str = "low_mem"
) -> Any:
    """(inputs - mean) * gamma / std + beta, for each element; `mode` is accepted and means nothing here."""
    return add(mul(sub(inputs, mean), true_div(gamma, std)), beta)


def axes_of(axes: Any, rank: int) -> tuple[int, ...]:
    """The axes that are normalised over."""
    if axes == "per-activation":
        return (0,)
    if axes == "spatial":
        return (0, *range(2, rank))
    if isinstance(axes, int):
        axes = (axes,)
    found = tuple(sorted(int(a) for a in axes))
    if not found or len(set(found)) < len(found) or found[0] < 0 or found[-1] >= rank:
        raise ValueError(f"axes should be less than ndim (<{rank}) and differ, got {axes}")
    return found


def spread(p: Any, name: str, rank: int, axes: Sequence[int]) -> Any:
    """A parameter, of the inputs' rank or of their other axes alone, with flags that make it broadcast along `axes`."""
    p = as_variable(p)
    others = [a for a in range(rank) if a not in axes]
    if p.type.ndim == len(others) and p.type.ndim != rank:
        return dimshuffle(p, *(others.index(a) if a in others else "x" for a in range(rank)))
    if p.type.ndim != rank:
        raise ValueError(
            f"{name} must have {rank} axes, or {len(others)} without those normalised over, got {p.type}"
        )
    return addbroadcast(p, *axes)


def batch_normalization_train(
    inputs: Any,
    gamma: Any,
    beta: Any,
    axes: Any = "per-activation",
    epsilon: float = 1e-4,
    running_average_factor: float = 0.1,
    running_mean: Any = None,
    running_var: Any = None,
) -> tuple[Any, ...]:
    """gamma * (inputs - mean) / sqrt(var + epsilon) + beta, with the mean and variance of the inputs themselves over
    `axes`: 'per-activation' (the first), 'spatial' (all but the second), or a tuple.

    Gives the result, the mean and 1 / sqrt(var + epsilon), and, where they are given, the new running mean and variance
    (of which `running_average_factor` is new, and the variance is unbiased).  Parameters have the inputs' rank, with
    size 1 along `axes`, or the other axes alone; the statistics come back in gamma's form.
    """
    x = as_variable(inputs)
    rank = x.type.ndim
    over = axes_of(axes, rank)
    if (running_mean is None) != (running_var is None):
        raise ValueError("running_mean and running_var must be given together or not at all")
    g, b = (spread(p, name, rank, over) for p, name in ((gamma, "gamma"), (beta, "beta")))
    center, spread_out = mean(x, over, keepdims=True), var(x, over, keepdims=True)
    invstd = inv(sqrt(add(spread_out, build.cast(as_variable(epsilon), x.type.dtype))))
    out = add(mul(sub(x, center), mul(g, invstd)), b)
    results = [out, center, invstd]
    if as_variable(gamma).type.ndim != rank:
        kept = [a for a in range(rank) if a not in over]
        results[1:] = [center.dimshuffle(*kept), invstd.dimshuffle(*kept)]
    if running_mean is not None:
        count = cast(size_variable(size_product([size_of(x, a) for a in over])), x.type.dtype)
        unbiased = mul(spread_out, true_div(count, maximum(sub(count, 1), 1)))
        for old, name, new in (
            (running_mean, "running_mean", center),
            (running_var, "running_var", unbiased),
        ):
            results.append(_moved(old, name, new, rank, over, running_average_factor))
    return tuple(results)


def _moved(old: Any, name: str, new: Any, rank: int, over: Sequence[int], factor: Any) -> Any:
    """The running average with `new` in it, of the old one's type."""
    old = as_variable(old)
    made = add(mul(spread(old, name, rank, over), 1.0 - factor), mul(new, factor))
    if old.type.ndim != rank:
        made = dimshuffle(made, *(a for a in range(rank) if a not in over))
    return patternbroadcast(cast(made, old.type.dtype), old.type.broadcastable)


def batch_normalization_test(
    inputs: Any,
    gamma: Any,
    beta: Any,
    mean: Any,
    var: Any,
    axes: Any = "per-activation",
    epsilon: float = 1e-4,
) -> Any:
    """gamma * (inputs - mean) / sqrt(var + epsilon) + beta with a given mean and variance; otherwise as in training."""
    x = as_variable(inputs)
    rank = x.type.ndim
    over = axes_of(axes, rank)
    given = zip((gamma, beta, mean, var), ("gamma", "beta", "mean", "var"))
    g, b, m, v = (spread(p, name, rank, over) for p, name in given)
    return add(mul(sub(x, m), mul(g, inv(sqrt(add(v, build.cast(as_variable(epsilon), x.type.dtype)))))), b)


__all__ = ["batch_normalization", "batch_normalization_test", "batch_normalization_train"]
