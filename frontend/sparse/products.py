"""Matrix products in which a matrix is sparse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tcc.tensor as T
from tcc import build
from tcc.build import size_variable
from tcc.ir.ops.sparse import matrix_of
from tcc.packing import PackedOp
from tcc.sparse.arithmetic import arrays_of
from tcc.sparse.basic import (
    CSM,
    SparseFromDense,
    as_format,
    as_sparse_or_tensor_variable,
    as_sparse_variable,
    cast,
    csm_data,
    csm_properties,
    dense_from_sparse,
    is_sparse,
    like,
    shape_of,
    sizes_of,
    transpose,
)
from tcc.sparse.types import INDEX
from tcc.types import promote, tensor_type
from tcc.user_op import call
from tcc.variable import as_variable


def _common(x: Any, y: Any) -> list[Any]:
    x, y = as_sparse_or_tensor_variable(x), as_sparse_or_tensor_variable(y)
    dtype = promote(x.type.dtype, y.type.dtype)
    return [cast(v, dtype) if is_sparse(v) else T.cast(v, dtype) for v in (x, y)]


def _times_dense(x: Any, y: Any) -> Any:
    """x y of a sparse x and a dense matrix or vector."""
    if y.type.ndim not in (1, 2):
        raise TypeError(f"a dense factor must be a matrix or vector, got {y.type}")
    columns = y if y.type.ndim == 2 else y.dimshuffle(0, "x")
    columns = T.unbroadcast(columns, 0) if columns.type.broadcastable[0] else columns
    columns = T.specify_shape(columns, [shape_of(x)[1], None], "the shape of the sparse factor")
    data, indices, indptr, _ = csm_properties(x)
    if x.type.format == "csr":
        made: Any = build.node("csr_dot", data, indices, indptr, columns).result
    else:
        made = build.node("csr_tdot", data, indices, indptr, columns, columns=sizes_of(x).minor).result
    return made if y.type.ndim == 2 else made.dimshuffle(0)


def dot(x: Any, y: Any) -> Any:
    """x y, dense, of which at least one is sparse; a dense factor may be a vector.  Gradients by sparse factors have their
    patterns."""
    x, y = _common(x, y)
    if not is_sparse(x) and not is_sparse(y):
        raise TypeError("sparse.dot: one of the arguments must be sparse")
    if is_sparse(x) and is_sparse(y):
        return dense_from_sparse(true_dot(x, y))
    if is_sparse(x):
        return _times_dense(x, y)
    made = _times_dense(transpose(y), x.T if x.type.ndim == 2 else x)
    return made.T if x.type.ndim == 2 else made


def structured_dot(x: Any, y: Any) -> Any:
    """x y: dense if one of them is, sparse of two sparse matrices.  Gradients by sparse factors have their patterns."""
    x, y = as_sparse_or_tensor_variable(x), as_sparse_or_tensor_variable(y)
    if is_sparse(x) and is_sparse(y):
        return true_dot(x, y)
    return dot(x, y)


class TrueDot(PackedOp):
    """The product of two sparse matrices, with the gradients of dense ones."""

    def types(self, *operands: Any) -> list[Any]:
        return [operands[0].type]

    def expand(self, *operands: Any) -> Sequence[Any]:
        x, y = operands
        a, b = csm_properties(x), csm_properties(y)
        if x.type.format == "csc":  # of the transposes, in the other order
            a, b = b, a
        width = sizes_of(y).minor if x.type.format == "csr" else sizes_of(x).minor
        vector = [tensor_type(t, (None,)) for t in (x.type.dtype, INDEX)]
        starts = build.size_of(a[2], 0)
        types = [*vector, tensor_type(INDEX, (None,))]
        inner = build.same_size(
            shape_of(x)[1], shape_of(y)[0], "sparse: Input dimension mis-match, of a product"
        )
        inputs = [*a[:3], *b[:3], size_variable(inner), size_variable(width)]
        data, indices, indptr = call("TrueDot", multiplied, inputs, types, [], sizes=[None, None, starts])
        rows, columns = shape_of(x)[0], shape_of(y)[1]
        return [
            CSM(x.type.format).of(
                data, indices, indptr, T.stack([size_variable(rows), size_variable(columns)])
            )
        ]

    def grad(self, operands: Sequence[Any], results: Sequence[Any], grads: Sequence[Any]) -> Sequence[Any]:
        x, y = operands
        return [true_dot(grads[0], transpose(y)), true_dot(transpose(x), grads[0])]


class TrueDotDense(PackedOp):
    """The sparse product of a sparse and a dense matrix."""

    def __init__(self, dense_grad: bool) -> None:
        self.dense_grad = dense_grad

    def types(self, *operands: Any) -> list[Any]:
        if operands[1].type.ndim != 2:
            raise TypeError(f"true_dot: a dense factor must be a matrix, got {operands[1].type}")
        return [operands[0].type]

    def expand(self, *operands: Any) -> Sequence[Any]:
        return [SparseFromDense(operands[0].type.format)(dot(*operands))]

    def grad(self, operands: Sequence[Any], results: Sequence[Any], grads: Sequence[Any]) -> Sequence[Any]:
        x, y = operands
        by_y = true_dot(transpose(x), grads[0])
        return [true_dot(grads[0], y.T), dense_from_sparse(by_y) if self.dense_grad else by_y]


def multiplied(*arrays: Any) -> list[Any]:
    """The arrays of the product of two matrices in compressed rows; ValueError where their sizes do not fit."""
    data, indices, indptr, *b, inner, width = arrays
    right: Any = matrix_of(b[0], b[1], b[2], int(width))
    return arrays_of(matrix_of(data, indices, indptr, int(inner)) @ right)


def true_dot(x: Any, y: Any, grad_preserves_dense: bool = True) -> Any:
    """x y, sparse, in the format of x, or of y if x is dense.  Gradients are not limited to patterns; by a dense factor they are
    dense, or sparse without `grad_preserves_dense`."""
    x, y = _common(x, y)
    if not is_sparse(x) and not is_sparse(y):
        raise TypeError("true_dot: one of the arguments must be sparse")
    if is_sparse(x) and is_sparse(y):
        return TrueDot()(x, as_format(y, x.type.format))
    if is_sparse(x):
        return TrueDotDense(grad_preserves_dense)(x, y)
    return transpose(TrueDotDense(grad_preserves_dense)(transpose(y), x.T))


def sampling_dot(x: Any, y: Any, p: Any) -> Any:
    """p * (x y'), by element, which is only computed at the places of the sparse matrix p."""
    x, y, p = as_variable(x), as_variable(y), as_sparse_variable(p)
    for v in (x, y):
        if v.type.ndim != 2:
            raise TypeError(f"sampling_dot takes matrices, got {v.type}")
    dtype = promote(x.type.dtype, y.type.dtype, p.type.dtype)
    x, y, p = T.cast(x, dtype), T.cast(y, dtype), cast(p, dtype)
    _, indices, indptr, _ = csm_properties(p)
    x, y = (
        T.specify_shape(v, [n, None], "the shape of the sparse factor") for v, n in zip((x, y), shape_of(p))
    )
    pair = (x, y) if p.type.format == "csr" else (y, x)
    return like(p, csm_data(p) * build.node("csr_sample", indices, indptr, *pair).result)


def usmm(alpha: Any, x: Any, y: Any, z: Any) -> Any:
    """alpha x y + z, of which x or y is sparse."""
    return alpha * dot(x, y) + z
