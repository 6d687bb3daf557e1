"""Random sparse matrices of `theano.sparse.sandbox.sp2`, drawn from NumPy's own generator when a function runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tcc.elemwise import DISCRETE
from tcc.gradient import grad_undefined
from tcc.sparse import basic, structure
from tcc.theano.sparseops import SparseOp
from tcc.types import tensor_type
from tcc.user_op import Apply, Op
from tcc.variable import as_variable


class _Draw(Op):
    """Elements drawn by `draw(*arrays)`, as many as the input `like` has; without one, a matrix of the sizes that the last
    input holds.  Two of equal inputs are one draw."""

    __props__ = ("draw", "dtype", "like")

    def __init__(self, draw: Any, dtype: str, like: int | None) -> None:
        self.draw, self.dtype, self.like = draw, dtype, like

    def make_node(self, *inputs: Any) -> Apply:
        shape = (None, None) if self.like is None else (None,)
        return Apply(self, list(inputs), [tensor_type(self.dtype, shape)()])

    def perform(self, node: Any, inputs: list[Any], output_storage: list[list[Any]]) -> None:
        output_storage[0][0] = np.asarray(self.draw(*inputs), self.dtype)

    def infer_shape(self, node: Any, shapes: Any) -> list[Any]:
        return [(None, None) if self.like is None else shapes[self.like]]

    def grad(self, inputs: Sequence[Any], output_grads: Sequence[Any]) -> list[Any]:
        return [grad_undefined(self, k, v, "a draw has no gradient") for k, v in enumerate(inputs)]


def _poisson(mean: Any) -> Any:
    return np.random.poisson(mean)


def _binomial(n: Any, p: Any, shape: Any) -> Any:
    return np.random.binomial(n, p, size=tuple(shape))


def _multinomial(n: Any, p: Any, starts: Any) -> Any:
    if n.ndim and len(n) != len(starts) - 1:
        raise ValueError(
            f"The number of element of n must be the same as the number of row of p: {len(n)} and {len(starts) - 1}"
        )
    drawn = np.zeros_like(p)
    for row, (k, end) in enumerate(zip(starts, starts[1:])):
        drawn[k:end] = np.random.multinomial(n[row] if n.ndim else n, p[k:end])
    return drawn


class Poisson(SparseOp):
    """`Poisson()(x)`: numbers drawn with the stored elements of x as their means, without the zeros among them."""

    def apply(self, x: Any) -> Any:
        x = basic.as_sparse_variable(x)
        data = basic.csm_data(x)
        return structure.remove0(basic.like(x, _Draw(_poisson, x.type.dtype, 0)(data)))


class Binomial(SparseOp):
    """`Binomial(format, dtype)(n, p, shape)`: numbers of successes among n, each of the probability p."""

    options = {"format": None, "dtype": None}

    def apply(self, n: Any, p: Any, shape: Any) -> Any:
        n, p, shape = as_variable(n), as_variable(p), as_variable(shape)
        for name, v in (("n", n), ("shape", shape)):
            if v.type.dtype not in DISCRETE:
                raise TypeError(f"Binomial: {name} must be integers, got {v.type}")
        return basic.SparseFromDense(self.format)(_Draw(_binomial, self.dtype, None)(n, p, shape))


class Multinomial(SparseOp):
    """`Multinomial()(n, p)`: in each row of the csr matrix p, whose elements are probabilities, how often each was drawn
    among n; n is a number, or a vector with one for each row."""

    def apply(self, n: Any, p: Any) -> Any:
        n, p = as_variable(n), basic.as_sparse_variable(p)
        if p.type.format != "csr":
            raise NotImplementedError(f"Multinomial takes probabilities in csr format, got {p.type}")
        data, _, starts, _ = basic.csm_properties(p)
        return basic.like(p, _Draw(_multinomial, p.type.dtype, 1)(n, data, starts))


poisson, multinomial = Poisson(), Multinomial()
csr_fbinomial, csc_fbinomial = Binomial("csr", "float32"), Binomial("csc", "float32")
csr_dbinomial, csc_dbinomial = Binomial("csr", "float64"), Binomial("csc", "float64")
