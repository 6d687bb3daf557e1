"""Products with matrices in compressed rows, and, through SciPy on the host, their patterns.

A matrix of m rows is data[nnz], indices[nnz] (the column of each) and indptr[m+1] (where each row starts and ends).  Compressed
columns are the same of the transpose.  csr_dot, csr_tdot and csr_sample are closed under differentiation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tcc.ir import dims
from tcc.ir.core import Attrs, Block, Op
from tcc.ir.dims import Size
from tcc.ir.ops.rules import NUMBERS, host_row, want_dtype, want_rank, want_same_dtype, want_size
from tcc.ir.optable import REQUIRED, GradRule, OpDef, Sample, define
from tcc.ir.types import INTEGERS, Type

INDEX = frozenset({"i32"})
PRODUCTS = frozenset({"csr_dot", "csr_tdot", "csr_sample"})


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
    # elements at a time, so that what is gathered stays in cache
    step = max(1, (1 << 18) // max(1, x.shape[1]))
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


def _product(
    name: str,
    operands: str,
    infer: Callable[[Sequence[Type], Attrs], list[Type]],
    ref: Callable[..., Any],
    grad: GradRule,
    doc: str,
    attrs: Attrs | None = None,
) -> None:
    """A row with a kernel, for which the pass `expand` puts a check of the matrix's arrays before it."""
    dense = operands.split(", ").index("x")
    define(
        OpDef(
            name,
            operands,
            lambda types, attrs, blocks: infer([t.value for t in types], attrs),
            lambda *arrays, checked, **attrs: ref(*arrays, **attrs),
            {"checked": False, **(attrs or {})},
            doc=f"{doc}  What is no matrix raises, unless it is `checked`.",
            grad=grad,
            kernel=True,
            raises=True,
            flops=lambda op: dims.mul(
                dims.mul(2, op.operands[dense - 2].type.size), op.operands[dense].type.shape[1]
            ),
        )
    )


_product(
    "csr_dot",
    "data, indices, indptr, x",
    dot_type,
    dot_ref,
    dot_grad,
    "a @ x of a matrix a in compressed rows.",
)
_product(
    "csr_tdot",
    "data, indices, indptr, x",
    tdot_type,
    tdot_ref,
    tdot_grad,
    "a' @ x of a matrix a in compressed rows, which has `columns` columns.",
    {"columns": REQUIRED},
)
_product(
    "csr_sample",
    "indices, indptr, x, y",
    sample_type,
    sample_ref,
    sample_grad,
    "The elements of x @ y' at the places of a matrix in compressed rows.",
)

# -- the check ---------------------------------------------------------------------------------------------------------

NOT_ASCENDING = "indptr must ascend from 0 to the number of elements"
OUTSIDE = "an index is not one of a column"


def check_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    want_dtype("check_sparse", "failed", types[0], INTEGERS)
    return []


def check_ref(failed: Any, message: str) -> tuple[()]:
    if np.any(np.asarray(failed)):
        raise ValueError(f"sparse: {message}")
    return ()


define(
    OpDef(
        "check_sparse",
        "failed",
        check_type,
        check_ref,
        {"message": OUTSIDE},
        doc="ValueError with the message if an element is not 0.",
        kernel=True,
        pure=False,
        fails=True,
        samples=(Sample(("i64[]",), high=0.0, low=0.0),),
    )
)


def columns_of(op: Op) -> Size:
    """Of the matrix that a product reads."""
    if op.name == "csr_tdot":
        columns: Size = op.attrs["columns"]
        return columns
    return op.operands[3].type.shape[0]


def check_matrix(b: Any, op: Op) -> None:
    """Writes the check of a product's matrix."""
    indices, indptr = op.operands[:2] if op.name == "csr_sample" else op.operands[1:3]
    either = getattr(b, "or")
    # as unsigned numbers, of which negative ones are large
    most = b.cast(b.size_value(dims.minimum(columns_of(op), 1 << 31)), dtype="u32")
    outside = b.ge(b.cast(indices, dtype="u32"), b.broadcast(most, shape=indices.type.shape))
    (count,), (starts,) = indices.type.shape, indptr.type.shape
    rows = dims.add(starts, -1)
    low, high = (b.slice(indptr, start=[s], size=[rows], step=[1]) for s in (0, 1))
    first, last = (b.slice(indptr, start=[s], size=[1], step=[1]) for s in (0, rows))
    end = b.broadcast(b.cast(b.size_value(count), dtype="i32"), shape=[1])
    ends = either(b.ne(first, b.full(0, first)), b.ne(last, end))
    falls = either(b.any(b.lt(high, low), axes=(0,)), b.any(ends, axes=(0,)))
    for failed, message in ((falls, NOT_ASCENDING), (b.any(outside, axes=(0,)), OUTSIDE)):
        b.check_sparse(b.cast(failed, dtype="i64"), message=message)


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
