"""Products with matrices in compressed rows, through SciPy on the host.

A matrix of m rows is data[nnz], indices[nnz] (the column of each) and indptr[m+1] (where each row starts and ends).  Compressed
columns are the same of the transpose.  csr_dot, csr_tdot and csr_sample are closed under differentiation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tcc.ir import dims
from tcc.ir.core import Attrs
from tcc.ir.dims import Size
from tcc.ir.ops.rules import NUMBERS, host_row, want_dtype, want_rank, want_same_dtype, want_size
from tcc.ir.optable import REQUIRED
from tcc.ir.types import Type

INDEX = frozenset({"i32"})


def scipy_sparse() -> Any:
    """scipy.sparse; ImportError says what to install."""
    try:
        from scipy import sparse
    except ImportError as e:
        raise ImportError("sparse matrices need SciPy, which is not installed: pip install scipy") from e
    return sparse


def want_pattern(row: str, indices: Type, indptr: Type) -> Size:
    """The number of rows."""
    for name, t in (("indices", indices), ("indptr", indptr)):
        want_dtype(row, name, t, INDEX)
        want_rank(row, name, t, 1)
    return dims.add(indptr.shape[0], -1)


def matrix_of(data: Any, indices: Any, indptr: Any, columns: int) -> Any:
    """The SciPy matrix; ValueError for indices that are none of its own."""
    count = len(data)
    if len(indptr) == 0 or indptr[0] != 0 or indptr[-1] != count or (np.diff(indptr) < 0).any():
        raise ValueError(f"sparse: indptr must ascend from 0 to the number of elements, {count}")
    if count and not 0 <= indices.min() <= indices.max() < columns:
        raise ValueError(f"sparse: an index is not within 0..{columns - 1}")
    return scipy_sparse().csr_matrix((data, indices, indptr), shape=(len(indptr) - 1, columns))


def rows_of(indptr: Any) -> Any:
    return np.repeat(np.arange(len(indptr) - 1, dtype=np.int32), np.diff(indptr))


# -- products ----------------------------------------------------------------------------------------------------------


def dot_type(types: Sequence[Type], attrs: Attrs) -> list[Type]:
    data, indices, indptr, x = types
    m = want_pattern("csr_dot", indices, indptr)
    want_dense("csr_dot", data, indices, x)
    return [x.with_shape(m, x.shape[1])]


def tdot_type(types: Sequence[Type], attrs: Attrs) -> list[Type]:
    data, indices, indptr, x = types
    m = want_pattern("csr_tdot", indices, indptr)
    want_dense("csr_tdot", data, indices, x)
    want_size("csr_tdot", "the rows of operand x", x.shape[0], m)
    return [x.with_shape(attrs["columns"], x.shape[1])]


def want_dense(name: str, data: Type, indices: Type, x: Type) -> None:
    want_dtype(name, "data", data, NUMBERS)
    want_rank(name, "data", data, 1)
    want_rank(name, "x", x, 2)
    want_same_dtype(name, [data, x])
    want_size(name, "the length of operand indices", indices.shape[0], data.shape[0])


def sample_type(types: Sequence[Type], attrs: Attrs) -> list[Type]:
    indices, indptr, x, y = types
    m = want_pattern("csr_sample", indices, indptr)
    for name, t in (("x", x), ("y", y)):
        want_dtype("csr_sample", name, t, NUMBERS)
        want_rank("csr_sample", name, t, 2)
    want_same_dtype("csr_sample", [x, y])
    want_size("csr_sample", "the rows of operand x", x.shape[0], m)
    want_size("csr_sample", "the columns of operand y", y.shape[1], x.shape[1])
    return [x.with_shape(indices.shape[0])]


def dot_ref(data: Any, indices: Any, indptr: Any, x: Any) -> Any:
    return np.asarray(matrix_of(data, indices, indptr, len(x)) @ x, x.dtype)


def tdot_ref(data: Any, indices: Any, indptr: Any, x: Any, columns: int) -> Any:
    return np.asarray(matrix_of(data, indices, indptr, int(columns)).T @ x, x.dtype)


def sample_ref(indices: Any, indptr: Any, x: Any, y: Any) -> Any:
    matrix_of(np.zeros(len(indices), bool), indices, indptr, len(y))
    made = np.empty(len(indices), x.dtype)
    rows = rows_of(indptr)
    step = max(
        1, (1 << 18) // max(1, x.shape[1])
    )  # elements at a time, so that what is gathered stays in cache
    for at in range(0, len(indices), step):
        part = slice(at, at + step)
        np.einsum("ek,ek->e", x[rows[part]], y[indices[part]], out=made[part])
    return made


def dot_grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
    data, indices, indptr, x = op.operands
    by_x = b.csr_tdot(data, indices, indptr, g[0], columns=b.size(x, 0))
    return [b.csr_sample(indices, indptr, g[0], x), None, None, by_x]


def tdot_grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
    data, indices, indptr, x = op.operands
    return [b.csr_sample(indices, indptr, x, g[0]), None, None, b.csr_dot(data, indices, indptr, g[0])]


def sample_grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
    indices, indptr, x, y = op.operands
    by_y = b.csr_tdot(g[0], indices, indptr, x, columns=b.size(y, 0))
    return [None, None, b.csr_dot(g[0], indices, indptr, y), by_y]


host_row(
    "csr_dot",
    "data, indices, indptr, x",
    dot_type,
    dot_ref,
    "a @ x of a matrix a in compressed rows.",
    grad=dot_grad,
    flops=2,
)
host_row(
    "csr_tdot",
    "data, indices, indptr, x",
    tdot_type,
    tdot_ref,
    "a' @ x of a matrix a in compressed rows, which has `columns` columns.",
    grad=tdot_grad,
    attrs={"columns": REQUIRED},
    flops=2,
)
host_row(
    "csr_sample",
    "indices, indptr, x, y",
    sample_type,
    sample_ref,
    "The elements of x @ y' at the places of a matrix in compressed rows.",
    grad=sample_grad,
    flops=2,
)

# -- patterns ----------------------------------------------------------------------------------------------------------


def rows_type(types: Sequence[Type], attrs: Attrs) -> list[Type]:
    want_pattern("csr_rows", types[0], types[1])
    return [types[0]]


def rows_ref(indices: Any, indptr: Any) -> Any:
    matrix_of(np.zeros(len(indices), bool), indices, indptr, 1 << 31)
    return rows_of(indptr)


def order_type(types: Sequence[Type], attrs: Attrs) -> list[Type]:
    indices, indptr = types
    want_pattern("csr_order", indices, indptr)
    return [indices.with_dtype("i64"), indices, indptr.with_shape(dims.add(attrs["columns"], 1))]


def order_ref(indices: Any, indptr: Any, columns: int) -> tuple[Any, ...]:
    turned = matrix_of(np.arange(len(indices)), indices, indptr, int(columns)).tocsc()
    return (
        turned.data,
        turned.indices.astype(np.int32, copy=False),
        turned.indptr.astype(np.int32, copy=False),
    )


host_row(
    "csr_rows",
    "indices, indptr",
    rows_type,
    rows_ref,
    "The row of each element of a matrix in compressed rows.",
    flops=2,
)
host_row(
    "csr_order",
    "indices, indptr",
    order_type,
    order_ref,
    "Of the transpose of a matrix in compressed rows that has `columns` columns: the order of its elements, indices, indptr.",
    attrs={"columns": REQUIRED},
    flops=2,
)
