"""Fourier transforms of real arrays, as Theano has them: complex numbers are pairs along a last axis."""

from __future__ import annotations

from typing import Any

from tcc import build
from tcc.build import node, shape_of, size_product, size_variable
from tcc.elemwise import DISCRETE, cast, mul, sqrt, true_div
from tcc.variable import as_variable


def _count(shape: Any, dtype: str) -> Any:
    return build.cast(size_variable(size_product(list(shape))), dtype)


def rfft(inp: Any, norm: str | None = None) -> Any:
    """The transform over all axes but the first, a batch: [b, ..., n] to [b, ..., n // 2 + 1, 2].

    With norm "ortho" it is divided by the square root of the number of elements, otherwise it is not scaled.
    """
    x = as_variable(inp)
    if x.type.ndim < 2:
        raise TypeError(f"rfft takes a batch of arrays, got {x.type}")
    if norm not in (None, "ortho", "no_norm"):
        raise ValueError(f"Invalid value {norm!r} for norm, must be None, 'ortho' or 'no norm'")
    x = cast(x, "float64") if x.type.dtype in DISCRETE else x
    made = node("rfft", x).result
    return made if norm != "ortho" else true_div(made, sqrt(_count(shape_of(x)[1:], x.type.dtype)))


def irfft(inp: Any, norm: str | None = None, is_odd: bool = False) -> Any:
    """The inverse of `rfft`; `is_odd` says that the last axis had an odd size.  With norm "no_norm" it is not scaled."""
    if is_odd not in (True, False):
        raise ValueError(f"Invalid value {is_odd!r} for id_odd, must be True or False")
    x = as_variable(inp)
    if x.type.ndim < 3:
        raise TypeError(f"irfft takes a batch of arrays of pairs, got {x.type}")
    if norm not in (None, "ortho", "no_norm"):
        raise ValueError(f"Invalid value {norm!r} for norm, must be None, 'ortho' or 'no norm'")
    made = node("irfft", x, odd=bool(is_odd)).result
    if norm is None:
        return made
    count = _count(shape_of(made)[1:], x.type.dtype)
    return mul(made, sqrt(count) if norm == "ortho" else count)
