"""Draws from the state of a NumPy RandomState: functions (state, size, ...) -> (state after, numbers).

They are for `tcc.tensor.shared_randomstreams`.  `size` is None (that of the parameters), a number, a tuple or a vector, whose
length is `ndim` where it is not known.  -1 in a tuple is the size of the parameters along that axis.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tcc import build
from tcc.build import Size, node, size_of, size_variable
from tcc.ir.ops import legacy
from tcc.ir.types import FROM_NUMPY
from tcc.joining import stack
from tcc.random import common_sizes, sizes_of
from tcc.settings import config
from tcc.types import TensorType, dtype_name, promote, tensor_type
from tcc.variable import TensorConstant, as_variable


class RandomStateType(TensorType):
    """The state of a `numpy.random.RandomState`, as its words; a RandomState is a value of it, too."""

    def __init__(self) -> None:
        super().__init__("uint32", shape=(legacy.WORDS,))

    def filter(self, data: Any, strict: bool = False, allow_downcast: bool | None = None) -> Any:
        if isinstance(data, np.random.RandomState):
            return legacy.pack(data)
        return super().filter(data, strict, allow_downcast)

    @staticmethod
    def values_eq(a: Any, b: Any) -> bool:
        """Whether two states, as words or as generators, are the same."""
        return bool(np.array_equal(random_state_type.filter(a), random_state_type.filter(b)))


random_state_type = RandomStateType()


def _sizes(size: Any, ndim: int | None, *args: Any) -> list[Size]:
    if size is None:
        sizes = common_sizes(args)
        return [*[1] * ((ndim or 0) - len(sizes)), *sizes]
    if ndim is not None and isinstance(size, tuple | list) and len(size) != ndim:
        raise ValueError(f"ndim should be the length of shape, got {ndim} for {size}")
    if isinstance(size, tuple | list) and any(isinstance(s, int) and s == -1 for s in size):
        size = _filled(size, common_sizes(args))
    return sizes_of(size, ndim)


def _filled(size: tuple[Any, ...] | list[Any], of_parameters: list[Size]) -> list[Any]:
    """`size` with the parameters' sizes, whose last axis is the last one, in the place of -1."""
    first = len(size) - len(of_parameters)
    made = []
    for axis, s in enumerate(size):
        if isinstance(s, int) and s == -1:
            if axis < first:
                raise ValueError(
                    f"size {tuple(size)} asks for the parameters' axis {axis - first}: they have none"
                )
            s = size_variable(of_parameters[axis - first])
        made.append(s)
    return made


def draw(method: str, state: Any, sizes: list[Size], args: list[Any], dtype: Any, shape: Any = None) -> Any:
    """The state after a row of `tcc.ir.ops.legacy.METHODS`, and what it drew.

    `sizes` are what NumPy is asked for, `shape` those of the result where they are others.
    """
    name = dtype_name(dtype)
    if sizes:
        vector = build.cast(stack([size_variable(s) for s in sizes]), "int64")
    else:
        vector = TensorConstant(tensor_type("int64", (0,)), np.zeros(0, np.int64))
    attrs: dict[str, Any] = {
        "method": method,
        "shape": list(sizes if shape is None else shape),
        "dtype": FROM_NUMPY[name],
    }
    new_state, out = node("legacy_draw", state, vector, *args, **attrs).results
    return new_state, out


def _floats(dtype: Any, *args: Any) -> Any:
    return promote(str(config.floatX), *(a.type.dtype for a in args)) if dtype is None else dtype


def uniform(
    random_state: Any, size: Any = None, low: Any = 0.0, high: Any = 1.0, ndim: Any = None, dtype: Any = None
) -> Any:
    """Numbers in [low, high)."""
    args = [as_variable(low), as_variable(high)]
    return draw("uniform", random_state, _sizes(size, ndim, *args), args, _floats(dtype, *args))


def normal(
    random_state: Any, size: Any = None, avg: Any = 0.0, std: Any = 1.0, ndim: Any = None, dtype: Any = None
) -> Any:
    """Normal numbers."""
    args = [as_variable(avg), as_variable(std)]
    return draw("normal", random_state, _sizes(size, ndim, *args), args, _floats(dtype, *args))


def binomial(
    random_state: Any,
    size: Any = None,
    n: Any = 1,
    p: Any = 0.5,
    ndim: Any = None,
    dtype: Any = "int64",
    prob: Any = None,
) -> Any:
    """How many of n trials succeed, each with probability p."""
    args = [as_variable(n), as_variable(p if prob is None else prob)]
    return draw("binomial", random_state, _sizes(size, ndim, *args), args, dtype)


def poisson(
    random_state: Any, size: Any = None, lam: Any = 1.0, ndim: Any = None, dtype: Any = "int64"
) -> Any:
    """How often something happens whose mean number is `lam`."""
    args = [as_variable(lam)]
    return draw("poisson", random_state, _sizes(size, ndim, *args), args, dtype)


def random_integers(
    random_state: Any, size: Any = None, low: Any = 0, high: Any = 1, ndim: Any = None, dtype: Any = "int64"
) -> Any:
    """Whole numbers in low..high."""
    args = [as_variable(low), as_variable(high)]
    return draw("random_integers", random_state, _sizes(size, ndim, *args), args, dtype)


def choice(
    random_state: Any,
    size: Any = None,
    a: Any = 2,
    replace: Any = True,
    p: Any = None,
    ndim: Any = None,
    dtype: Any = "int64",
) -> Any:
    """Elements of the vector `a`, or of 0..a-1, with probabilities p."""
    replace = as_variable(np.array(replace)) if isinstance(replace, bool) else as_variable(replace)
    weights = as_variable(np.zeros(0) if p is None else p)
    if weights.type.ndim == 0:  # Theano's word for none
        weights = as_variable(np.zeros(0))
    args = [as_variable(a), replace, weights]
    sizes = [] if size is None else _sizes(size, ndim)
    return draw("choice", random_state, sizes, args, dtype)


def permutation(
    random_state: Any, size: Any = None, n: Any = 1, ndim: Any = None, dtype: Any = "int64"
) -> Any:
    """The numbers 0..n-1 in random order along a last axis, for each index of `size`."""
    sizes = [] if size is None or size == () else _sizes(size, ndim)
    if size is None and ndim not in (None, 1):
        raise TypeError(f"permutation of no size makes a vector, got ndim={ndim}")
    many = build.as_size(n, "n")
    return draw("permutation", random_state, sizes, [size_variable(many)], dtype, [*sizes, many])


def multinomial(
    random_state: Any,
    size: Any = None,
    n: Any = 1,
    pvals: Any = (0.5, 0.5),
    ndim: Any = None,
    dtype: Any = "int64",
) -> Any:
    """How often each position of the last axis of `pvals` is drawn in n draws, for each index of `size`.

    An entry -1 of a tuple `size` is the size that n and pvals have there.
    """
    n, pvals = as_variable(n), as_variable(np.asarray(pvals) if isinstance(pvals, list | tuple) else pvals)
    many = size_of(pvals, pvals.type.ndim - 1)
    outer = pvals[..., 0] if pvals.type.ndim > 1 else as_variable(0)
    sizes = _sizes(size, ndim, n, outer)
    return draw("multinomial", random_state, sizes, [n, pvals], dtype, [*sizes, many])
