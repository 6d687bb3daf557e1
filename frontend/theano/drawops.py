"""Theano's ops of random numbers: `RandomFunction`, a method of NumPy's RandomState, and draws by given uniform numbers."""

from __future__ import annotations

from typing import Any

from tcc import build
from tcc.build import size_of
from tcc.ir.ops.legacy import METHODS
from tcc.random import counts_of, sizes_of
from tcc.sandbox.rng_mrg import without_replacement
from tcc.shapes import reshape
from tcc.tensor.raw_random import draw
from tcc.theano.legacyop import LegacyOp
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


class _FromUniform(LegacyOp):
    """`op(pvals, unis, n)`: n draws for each row of the matrix `pvals`, by the vector `unis`: one number for each row, then the
    next ones."""

    options = {"odtype": "auto"}

    def _given(self, pvals: Any, unis: Any, n: Any) -> tuple[Any, Any]:
        """`pvals`, and the uniform numbers as a matrix, draws by rows."""
        p, u = as_variable(pvals), as_variable(unis)
        for v, name, rank in ((p, "pvals", 2), (u, "unis", 1)):
            if v.type.ndim != rank:
                raise NotImplementedError(f"{name} ndim should be {rank}", v.type.ndim)
        return p, reshape(u, [build.as_size(n, "n"), size_of(p, 0)])


class MultinomialFromUniform(_FromUniform):
    """How often each column is drawn, of the dtype of `pvals` or of `odtype`."""

    def apply(self, pvals: Any, unis: Any, n: Any = 1) -> Any:
        p, u = self._given(pvals, unis, n)
        dtype = p.type.dtype if self.odtype == "auto" else self.odtype
        return build.cast(counts_of(p, u.T, size_of(p, 1)), dtype)


class ChoiceFromUniform(_FromUniform):
    """Which columns are drawn, int64 or of `odtype`: without `replace` different ones."""

    options = {"odtype": "auto", "replace": False}

    def apply(self, pvals: Any, unis: Any, n: Any = 1) -> Any:
        p, u = self._given(pvals, unis, n)
        dtype = "int64" if self.odtype == "auto" else self.odtype
        if not self.replace:
            return without_replacement(p, u, dtype)
        edges = p.cumsum(axis=1).dimshuffle(0, "x", 1)
        return build.cast((edges <= u.T.dimshuffle(0, 1, "x")).sum(axis=2), dtype)
