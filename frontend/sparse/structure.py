"""Sums over axes, diagonals, order and stacks of sparse matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tcc.tensor as T
from tcc import build
from tcc.build import size_of, size_variable
from tcc.elemwise import DISCRETE
from tcc.packing import PackedOp
from tcc.selecting import nonzero
from tcc.sparse.basic import (
    CSC,
    CSM,
    CSR,
    SparseFromDense,
    Whole,
    as_format,
    as_sparse_variable,
    cast,
    csm_data,
    csm_indices,
    csm_indptr,
    csm_properties,
    csm_shape,
    keys_of,
    places,
    shape_of,
    sizes_of,
    starts_of,
    transpose,
)
from tcc.sparse.slices import get_item_2d
from tcc.sparse.types import INDEX
from tcc.types import promote, tensor_type
from tcc.variable import as_variable


class SpSum(PackedOp):
    """The sum of a matrix, with a gradient at every place."""

    def __init__(self, axis: int | None) -> None:
        self.axis = axis

    def types(self, *operands: Any) -> list[Any]:
        return [tensor_type(operands[0].type.dtype, () if self.axis is None else (None,))]

    def expand(self, *operands: Any) -> Sequence[Any]:
        return [sp_sum(operands[0], self.axis, sparse_grad=True)]

    def grad(self, operands: Sequence[Any], results: Sequence[Any], grads: Sequence[Any]) -> Sequence[Any]:
        (x,), (g,) = operands, grads
        ones = T.ones(list(map(size_variable, shape_of(x))), x.type.dtype)
        wide = g if self.axis is None else g.dimshuffle("x", 0) if self.axis == 0 else g.dimshuffle(0, "x")
        return [SparseFromDense(x.type.format)(ones * wide)]


def sp_sum(x: Any, axis: int | None = None, sparse_grad: bool = False) -> Any:
    """The sum over all elements, or over axis 0 or 1, dense.  The gradient is at all places, or with `sparse_grad` at those
    of the elements of x."""
    x = as_sparse_variable(x)
    if axis not in (None, 0, 1, -1, -2):
        raise ValueError(f"Illegal value for self.axis: {axis}")
    axis = None if axis is None else axis % 2
    if not sparse_grad and x.type.dtype not in DISCRETE:
        return SpSum(axis)(x)
    data = csm_data(x)
    if axis is None:
        return data.sum()
    zero = T.zeros([size_variable(shape_of(x)[1 - axis])], x.type.dtype)
    return T.inc_subtensor(zero[places(x)[1 - axis]], data)


class Diag(PackedOp):
    """The diagonal of a matrix."""

    def types(self, *operands: Any) -> list[Any]:
        return [tensor_type(operands[0].type.dtype, (None,))]

    def expand(self, *operands: Any) -> Sequence[Any]:
        (x,) = operands
        rows, columns = places(x)
        at = nonzero(T.eq(rows, columns))[0]
        length = build.size_arithmetic("minimum", *shape_of(x))
        return [T.inc_subtensor(T.zeros([size_variable(length)], x.type.dtype)[rows[at]], csm_data(x)[at])]

    def grad(self, operands: Sequence[Any], results: Sequence[Any], grads: Sequence[Any]) -> Sequence[Any]:
        return [as_format(square_diagonal(grads[0]), operands[0].type.format)]


def diag(x: Any) -> Any:
    """The diagonal of a square matrix, as a dense vector."""
    return Diag()(as_sparse_variable(x))


def square_diagonal(diag: Any) -> Any:
    """The square matrix, in csc format, with this vector on its diagonal."""
    diag = as_variable(diag)
    if diag.type.ndim != 1:
        raise TypeError("data argument must be a vector", diag.type)
    n = size_variable(size_of(diag, 0))
    return CSC.of(diag, T.arange(n), T.arange(n + 1), T.stack([n, n]))


def kept(x: Any, mask: Any) -> Any:
    """A matrix without the elements where `mask` is false."""
    data, indices, indptr, shape = csm_properties(x)
    (at,) = nonzero(mask)
    starts = starts_of(mask)[indptr]
    return CSM(x.type.format).of(data[at], indices[at], starts, shape)


def ensure_sorted_indices(x: Any) -> Any:
    """The same matrix, its elements in ascending order."""
    return Whole(_sorted, _passed)(as_sparse_variable(x))


def _passed(operands: Sequence[Any], result: Any, g: Any) -> Sequence[Any]:
    return [g]


def _sorted(x: Any) -> Any:
    data, indices, indptr, shape = csm_properties(x)
    order = T.argsort(keys_of(x))
    return CSM(x.type.format).of(data[order], indices[order], indptr, shape)


def remove0(x: Any) -> Any:
    """The same matrix without stored zeros."""
    return Whole(_without_zeros, _passed)(as_sparse_variable(x))


def _without_zeros(x: Any) -> Any:
    return kept(x, T.neq(csm_data(x), 0))


def clean(x: Any) -> Any:
    """The same matrix, sorted and without stored zeros."""
    return ensure_sorted_indices(remove0(x))


def vstack(blocks: Sequence[Any], format: str | None = None, dtype: str | None = None) -> Any:
    """Matrices below each other, in the format of the first if none is given."""
    parts = _stacked(blocks, dtype)
    return Whole(_vstacked, _vstack_grad, format or parts[0].type.format)(*parts)


def _vstacked(*args: Any) -> Any:
    *parts, format = args
    rows = [as_format(b, "csr") for b in parts]
    data, indices = (T.concatenate([f(b) for b in rows]) for f in (csm_data, csm_indices))
    starts, total = [T.zeros([1], INDEX)], None
    for b in rows:
        ends = csm_indptr(b)[1:] if total is None else csm_indptr(b)[1:] + total
        starts.append(T.cast(ends, INDEX))
        count = T.cast(csm_indptr(b)[-1], INDEX)
        total = count if total is None else total + count
    height = sum((csm_shape(b)[0] for b in rows[1:]), csm_shape(rows[0])[0])
    width: Any = sizes_of(rows[0]).minor
    for b in rows[1:]:
        width = build.same_size(
            width, sizes_of(b).minor, "sparse: Input dimension mis-match, of matrices that are stacked"
        )
    made = CSR.of(data, indices, T.concatenate(starts), T.stack([height, size_variable(width)]))
    return as_format(made, format)


def _vstack_grad(operands: Sequence[Any], result: Any, g: Any, format: str) -> Sequence[Any]:
    made, at = [], 0
    for block in operands:
        end = at + csm_shape(block)[0]
        made.append(as_format(get_item_2d(g, slice(at, end)), block.type.format))
        at = end
    return made


def hstack(blocks: Sequence[Any], format: str | None = None, dtype: str | None = None) -> Any:
    """Matrices beside each other, in the format of the first if none is given."""
    parts = _stacked(blocks, dtype)
    return Whole(_hstacked, _hstack_grad, format or parts[0].type.format)(*parts)


def _hstacked(*args: Any) -> Any:
    *parts, format = args
    return as_format(transpose(_vstacked(*map(transpose, parts), "csr")), format)


def _hstack_grad(operands: Sequence[Any], result: Any, g: Any, format: str) -> Sequence[Any]:
    made, at = [], 0
    for block in operands:
        end = at + csm_shape(block)[1]
        part = get_item_2d(g, (slice(None), slice(at, end)))
        made.append(as_format(part, block.type.format))
        at = end
    return made


def _stacked(blocks: Sequence[Any], dtype: str | None) -> list[Any]:
    parts = [as_sparse_variable(b) for b in blocks]
    if not parts:
        raise ValueError("nothing to stack")
    wanted = dtype or promote(*(b.type.dtype for b in parts))
    return [cast(b, wanted) for b in parts]
