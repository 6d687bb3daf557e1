"""Theano's `RandomFunction`: a method of NumPy's RandomState as an op."""

from __future__ import annotations

from typing import Any

from tcc.build import size_of
from tcc.ir.ops.legacy import METHODS
from tcc.random import sizes_of
from tcc.tensor.raw_random import draw
from tcc.theano.ops import LegacyOp
from tcc.variable import as_variable


class RandomFunction(LegacyOp):
    """`RandomFunction(fn, outtype)(state, shape, *args)`: the state after the draw, and numbers of `outtype`.

    `fn` is a method of RandomState or its name, `args` are all of its arguments but the size.  TypeError for a method that the
    functions of raw_random do not draw from.
    """

    options = {"fn": None, "outtype": None, "inplace": False, "ndim_added": 0}
    rows = ("legacy_draw",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.method = self.fn if isinstance(self.fn, str) else getattr(self.fn, "__name__", str(self.fn))
        if self.method not in METHODS:
            raise TypeError(f"RandomFunction: {self.fn!r} is none of {', '.join(sorted(METHODS))}")
        added = {"multinomial": 1, "permutation": 1}.get(self.method, 0)
        if self.ndim_added != added:
            raise ValueError(
                f"RandomFunction: {self.method} adds {added} axes, ndim_added says {self.ndim_added}"
            )

    def apply(self, state: Any, shape: Any, *args: Any) -> Any:
        values = [as_variable(a) for a in args]
        sizes = sizes_of(shape, self.outtype.ndim - self.ndim_added)
        added = []
        if self.method == "multinomial":
            added = [size_of(values[1], values[1].type.ndim - 1)]
        elif self.method == "permutation":
            added = sizes_of(values[0])
        return list(draw(self.method, state, sizes, values, self.outtype.dtype, [*sizes, *added]))
