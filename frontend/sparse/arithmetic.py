"""Sums, products and comparisons of sparse matrices by element."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import tcc.tensor as T
from tcc import build
from tcc.build import size_of, size_variable
from tcc.ir.ops.sparse import matrix_of
from tcc.packing import PackedOp
from tcc.sparse.basic import (
    CSM,
    SparseFromDense,
    as_format,
    as_sparse_or_tensor_variable,
    as_sparse_variable,
    cast,
    csm_data,
    csm_indices,
    csm_indptr,
    csm_properties,
    csm_shape,
    dense_from_sparse,
    is_sparse,
    like,
    places,
    shape_of,
    sizes_of,
    sp_zeros_like,
)
from tcc.sparse.types import INDEX
from tcc.types import promote, tensor_type
from tcc.user_op import call
from tcc.variable import as_variable


def neg(x: Any) -> Any:
    """-x."""
    return like(as_sparse_variable(x), T.neg(csm_data(x)))


def _pair(x: Any, y: Any) -> tuple[Any, Any]:
    """Two matrices of one format and dtype."""
    x, y = as_sparse_variable(x), as_sparse_variable(y)
    dtype = promote(x.type.dtype, y.type.dtype)
    return cast(x, dtype), cast(as_format(y, x.type.format), dtype)


def _fitted(y: Any, x: Any) -> Any:
    """y, whose shape must be that of x, which is in the same format."""
    if csm_shape(y) is csm_shape(x) and csm_indptr(y) is csm_indptr(x):
        return y
    data, indices, indptr, _ = csm_properties(y)
    indptr = T.specify_shape(indptr, [size_of(csm_indptr(x), 0)], "the shape of the other sparse matrix")
    pair = zip(sizes_of(y), sizes_of(x))
    major, minor = (
        size_variable(build.same_size(a, b, "sparse: Input dimension mis-match, of two matrices"))
        for a, b in pair
    )
    shape = (major, minor) if x.type.format == "csr" else (minor, major)
    return CSM(x.type.format).of(data, indices, indptr, T.stack(shape))


def _dense_like(dense: Any, x: Any) -> Any:
    """A dense matrix, row, column or vector that must have the sizes of x, but for axes that broadcast."""
    rank = dense.type.ndim
    sizes = [None if b else n for b, n in zip(dense.type.broadcastable, shape_of(x)[2 - rank :])]
    return T.specify_shape(dense, sizes, "the shape of the sparse matrix")


def combined(name: str, function: Callable[..., Any], x: Any, y: Any) -> Any:
    """A matrix that SciPy makes of two of one format and shape, of which only it knows how many elements it has."""
    y = _fitted(y, x)
    starts = size_of(csm_indptr(x), 0)
    kinds = [tensor_type(t, (None,)) for t in (x.type.dtype, INDEX, INDEX)]
    inputs = [*csm_properties(x)[:3], *csm_properties(y)[:3], size_variable(sizes_of(y).minor)]
    data, indices, indptr = call(name, function, inputs, kinds, [], sizes=[None, None, starts])
    return CSM(x.type.format).of(data, indices, indptr, csm_shape(y))


def _matrices(arrays: Sequence[Any]) -> list[Any]:
    a, b, c, d, e, f, width = arrays
    return [matrix_of(a, b, c, int(width)), matrix_of(d, e, f, int(width))]


def arrays_of(matrix: Any) -> list[Any]:
    """A matrix as the arrays of its compressed rows."""
    rows = matrix.tocsr()
    return [rows.data, np.asarray(rows.indices, INDEX), np.asarray(rows.indptr, INDEX)]


def added(*arrays: Any) -> list[Any]:
    a, b = _matrices(arrays)
    return arrays_of(a + b)


def product(*arrays: Any) -> list[Any]:
    a, b = _matrices(arrays)
    return arrays_of(a.multiply(b))


class AddSS(PackedOp):
    """The sum of two sparse matrices."""

    def types(self, *operands: Any) -> list[Any]:
        return [operands[0].type]

    def expand(self, *operands: Any) -> Sequence[Any]:
        return [combined("AddSS", added, *operands)]

    def grad(self, operands: Sequence[Any], results: Sequence[Any], grads: Sequence[Any]) -> Sequence[Any]:
        return [grads[0], grads[0]]


class MulSS(PackedOp):
    """The product by element of two sparse matrices: where both have elements."""

    def types(self, *operands: Any) -> list[Any]:
        return [operands[0].type]

    def expand(self, *operands: Any) -> Sequence[Any]:
        return [combined("MulSS", product, *operands)]

    def grad(self, operands: Sequence[Any], results: Sequence[Any], grads: Sequence[Any]) -> Sequence[Any]:
        x, y = operands
        return [mul(y, grads[0]), mul(x, grads[0])]


def add(x: Any, y: Any) -> Any:
    """x + y: sparse of two sparse matrices, dense if one is dense."""
    x, y = as_sparse_or_tensor_variable(x), as_sparse_or_tensor_variable(y)
    if is_sparse(x) and is_sparse(y):
        x, y = _pair(x, y)
        if csm_indices(x) is csm_indices(y) and csm_indptr(x) is csm_indptr(y):
            return like(x, csm_data(x) + csm_data(y))
        return AddSS()(x, y)
    if not is_sparse(x) and not is_sparse(y):
        raise TypeError("sparse.add: one of the arguments must be sparse")
    matrix, dense = (x, y) if is_sparse(x) else (y, x)
    if dense.type.ndim != 2:
        raise TypeError(f"sparse.add: a dense argument must be a matrix, got {dense.type}")
    dense = (
        T.fill(dense_from_sparse(sp_zeros_like(matrix)), dense) if any(dense.type.broadcastable) else dense
    )
    dtype = promote(matrix.type.dtype, dense.type.dtype)
    dense = _dense_like(dense, matrix)
    return T.inc_subtensor(T.cast(dense, dtype)[places(matrix)], T.cast(csm_data(matrix), dtype))


def sub(x: Any, y: Any) -> Any:
    """x - y, as `add`."""
    x, y = as_sparse_or_tensor_variable(x), as_sparse_or_tensor_variable(y)
    return add(x, neg(y) if is_sparse(y) else T.neg(y))


def mul(x: Any, y: Any) -> Any:
    """The product by element, which is sparse: with a sparse matrix, a dense one, a vector for all rows, or a number."""
    x, y = as_sparse_or_tensor_variable(x), as_sparse_or_tensor_variable(y)
    if is_sparse(x) and is_sparse(y):
        x, y = _pair(x, y)
        if csm_indices(x) is csm_indices(y) and csm_indptr(x) is csm_indptr(y):
            return like(x, csm_data(x) * csm_data(y))
        return MulSS()(x, y)
    if not is_sparse(x) and not is_sparse(y):
        raise TypeError("sparse.mul: one of the arguments must be sparse")
    matrix, dense = (x, y) if is_sparse(x) else (y, x)
    if dense.type.ndim > 2:
        raise TypeError(f"sparse.mul: a dense argument has at most 2 axes, got {dense.type}")
    if dense.type.ndim == 0:
        return like(matrix, csm_data(matrix) * dense)
    rows, columns = places(matrix)
    dense = _dense_like(dense, matrix)
    if dense.type.ndim == 1:
        return like(matrix, csm_data(matrix) * dense[columns])
    flags = dense.type.broadcastable
    index = tuple(T.zeros_like(p) if flag else p for p, flag in zip((rows, columns), flags))
    return like(matrix, csm_data(matrix) * dense[index])


def col_scale(x: Any, s: Any) -> Any:
    """Each column of x by its element of the vector s."""
    return _scaled(x, s, 1)


def row_scale(x: Any, s: Any) -> Any:
    """Each row of x by its element of the vector s."""
    return _scaled(x, s, 0)


def _scaled(x: Any, s: Any, axis: int) -> Any:
    x, s = as_sparse_variable(x), as_variable(s)
    if s.type.ndim != 1:
        raise TypeError(f"s must be a vector, got {s.type}")
    s = T.specify_shape(s, [shape_of(x)[axis]], "the shape of the sparse matrix")
    return like(x, csm_data(x) * s[places(x)[axis]])


def compared(name: str) -> Any:
    """A comparison: sparse, of bools, of two sparse matrices; dense if one is dense."""
    function = getattr(T, name)

    def compare(x: Any, y: Any) -> Any:
        x, y = as_sparse_or_tensor_variable(x), as_sparse_or_tensor_variable(y)
        if not is_sparse(x) and not is_sparse(y):
            raise TypeError(f"sparse.{name}: one of the arguments must be sparse")
        made = function(*(dense_from_sparse(v) if is_sparse(v) else v for v in (x, y)))
        return SparseFromDense(x.type.format)(made) if is_sparse(x) and is_sparse(y) else made

    compare.__name__ = compare.__qualname__ = name
    compare.__doc__ = f"{name} by element: sparse, of bools, of two sparse matrices; dense if one is dense."
    return compare


eq, neq, lt, le, gt, ge = map(compared, ("eq", "neq", "lt", "le", "gt", "ge"))
