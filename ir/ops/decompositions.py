"""Decompositions of matrices, through NumPy's LAPACK on the host.  All but the last two axes are a batch.

Where no other source is named, the formulas of the gradients are those of Giles, An extended collection of matrix derivative results (2008).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tcc.ir import dims
from tcc.ir.core import Attrs
from tcc.ir.dims import Size
from tcc.ir.ops.factors import want_matrix
from tcc.ir.ops.matrices import (
    column_matrix,
    corner,
    diagonal_matrix,
    lower_half,
    product,
    row_matrix,
    transposed,
    triangle,
)
from tcc.ir.ops.rules import host_row
from tcc.ir.optable import Sample
from tcc.ir.types import Type


def eigh_type(types: Sequence[Type], attrs: Attrs) -> list[Type]:
    (x,) = types
    want_matrix("eigh", "x", x, square=True)
    return [x.with_shape(*x.shape[:-1]), x]


def eigh_grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
    (x,), (w, v) = op.operands, op.results
    rank, shape = b.rank(x), b.shape(x)
    gap = b.sub(row_matrix(b, w, x), column_matrix(b, w, x))
    row, column = b.iota(shape=shape, axis=rank - 2), b.iota(shape=shape, axis=rank - 1)
    same = b.eq(row, column)
    inner = b.div(b.matmul(transposed(b, v), g[1]), b.where(same, b.full(1, gap), gap))
    inner = b.add(b.where(same, b.full(0, gap), inner), diagonal_matrix(b, g[0], x))
    full = product(b, v, inner, transposed(b, v))
    return [lower_half(b, b.mul(b.add(full, transposed(b, full)), 0.5))]


host_row(
    "eigh",
    "x",
    eigh_type,
    lambda x: tuple(np.linalg.eigh(x)),
    "The eigenvalues, ascending, and eigenvectors of a symmetric matrix, of which only the lower triangle is read.",
    (Sample(("f64[3,3]",)), Sample(("f32[2,2]",))),
    eigh_grad,
    raises=True,
)


def least(x: Type) -> Size:
    return dims.minimum(x.shape[-2], x.shape[-1])


def turned(b: Any, full: Any, first: Any, g_full: Any, g_first: Any) -> Any:
    """What a gradient by the columns of an orthogonal matrix behind its first ones is to the first: these turn the others."""
    both = b.sub(b.matmul(full, transposed(b, g_full)), b.matmul(first, transposed(b, g_first)))
    return b.matmul(both, first)


def svd_type(types: Sequence[Type], attrs: Attrs) -> list[Type]:
    (x,) = types
    want_matrix("svd", "x", x)
    *batch, m, n = x.shape
    k, full = least(x), attrs["full_matrices"]
    u, v = (m, m) if full else (m, k), (n, n) if full else (k, n)
    return [x.with_shape(*batch, *u), x.with_shape(*batch, k), x.with_shape(*batch, *v)]


def svd_grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
    """Of Townsend, Differentiating the singular value decomposition (2016); infinite where singular values are equal or 0.

    Columns of u and v that belong to no singular value are only defined up to a rotation: the gradient is that of
    functions which it does not change.
    """
    (x,), (u, s, vt) = op.operands, op.results
    v, gv = transposed(b, vt), transposed(b, g[2])
    k = b.size(s, b.rank(s) - 1)
    m, n = (b.size(x, b.rank(x) - 2 + axis) for axis in (0, 1))
    u_first, gu_first, v_first, gv_first = (
        corner(b, y, rows, k) for y, rows in ((u, m), (g[0], m), (v, n), (gv, n))
    )
    inside = corner(b, x, k, k)
    rows, columns = column_matrix(b, s, inside), row_matrix(b, s, inside)
    same = triangle(b, b.full(1, inside), "eq")
    gap = b.mul(b.sub(columns, rows), b.add(columns, rows))
    gap = b.add(gap, same)  # not 0 on the diagonal, where what is divided is 0

    def antisymmetric(y: Any, gy: Any) -> Any:
        j = b.matmul(transposed(b, y), gy)
        return b.div(b.sub(j, transposed(b, j)), gap)

    middle = b.mul(antisymmetric(u_first, gu_first), columns)
    middle = b.add(middle, b.mul(antisymmetric(v_first, gv_first), rows))
    middle = b.add(middle, diagonal_matrix(b, g[1], inside))
    total = product(b, u_first, middle, transposed(b, v_first))
    rest_u, rest_v = (
        b.sub(gy, product(b, y, transposed(b, y), gy)) for y, gy in ((u_first, gu_first), (v_first, gv_first))
    )
    if op.attrs["full_matrices"]:
        rest_u = b.sub(rest_u, turned(b, u, u_first, g[0], gu_first))
        rest_v = b.sub(rest_v, turned(b, v, v_first, gv, gv_first))
    left = b.matmul(b.div(rest_u, row_matrix(b, s, rest_u)), transposed(b, v_first))
    right = b.matmul(u_first, transposed(b, b.div(rest_v, row_matrix(b, s, rest_v))))
    return [b.add(b.add(total, left), right)]


host_row(
    "svd",
    "x",
    svd_type,
    lambda x, full_matrices: tuple(np.linalg.svd(x, bool(full_matrices))),
    "u, the singular values s, descending, and v' with x = u s v'.",
    (
        Sample(("f64[3,2]",)),
        Sample(("f64[2,2,4]",)),
        Sample(("f64[3,3]",)),
        Sample(("f32[2,3]",), {"full_matrices": True}),
    ),
    svd_grad,
    attrs={"full_matrices": False},
    raises=True,
)


def values_type(types: Sequence[Type], attrs: Attrs) -> list[Type]:
    (x,) = types
    want_matrix("singular_values", "x", x)
    return [x.with_shape(*x.shape[:-2], least(x))]


def values_grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
    (x,) = op.operands
    u, _, vt = b.svd(x)
    return [b.matmul(b.mul(u, row_matrix(b, g[0], u)), vt)]


host_row(
    "singular_values",
    "x",
    values_type,
    lambda x: np.linalg.svd(x, compute_uv=False),
    "The singular values, descending.",
    (Sample(("f64[3,2]",)), Sample(("f64[2,3]",))),
    values_grad,
    raises=True,
)


def qr_type(types: Sequence[Type], attrs: Attrs) -> list[Type]:
    (x,) = types
    want_matrix("qr", "x", x)
    *batch, m, n = x.shape
    k: Size = m if attrs["complete"] else least(x)
    return [x.with_shape(*batch, m, k), x.with_shape(*batch, k, n)]


def qr_grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
    """Of Roberts and Roberts, QR and LQ decomposition matrix backpropagation (2020).

    The columns of x behind the first k, as many as it has at most independent ones, are q r of a q which the first make.
    """
    (x,), (q, r) = op.operands, op.results
    rank = b.rank(x)
    m, n = b.size(x, rank - 2), b.size(x, rank - 1)
    k = b.smaller(m, n)
    first, g_first = corner(b, q, m, k), corner(b, g[0], m, k)
    square, g_square, g_top = corner(b, r, k, k), corner(b, g[1], k, k), corner(b, g[1], k, n)
    behind = b.sub(b.matmul(x, transposed(b, g_top)), b.matmul(corner(b, x, m, k), transposed(b, g_square)))
    by_q = b.add(g_first, behind)
    inner = b.sub(b.matmul(square, transposed(b, g_square)), b.matmul(transposed(b, by_q), first))
    half = b.sub(triangle(b, inner, "ge"), triangle(b, inner, "eq"))
    inner = b.add(triangle(b, inner, "ge"), transposed(b, half))
    total = b.add(by_q, b.matmul(first, inner))
    if op.attrs["complete"]:
        total = b.sub(total, turned(b, q, first, g[0], g_first))
    by_first = transposed(b, b.solve(square, transposed(b, total), kind="upper"))
    shape = (*b.shape(x)[: rank - 2], k, n)
    row, column = b.iota(shape=shape, axis=rank - 2), b.iota(shape=shape, axis=rank - 1)
    unit = b.cast(b.eq(row, column), dtype=b.dtype(x))
    by_rest = b.matmul(
        first, b.where(b.lt(column, b.broadcast(b.size_value(k), shape=shape)), b.full(0, g_top), g_top)
    )
    return [b.add(b.matmul(by_first, unit), by_rest)]


host_row(
    "qr",
    "x",
    qr_type,
    lambda x, complete: tuple(np.linalg.qr(x, "complete" if complete else "reduced")),
    "q with orthonormal columns, and an upper triangle r with x = q r.",
    (
        Sample(("f64[3,2]",)),
        Sample(("f64[3,2]",), {"complete": True}),
        Sample(("f32[2,3]",)),
        Sample(("f64[2,2,2]",)),
    ),
    qr_grad,
    attrs={"complete": False},
)


def eig_ref(x: Any) -> tuple[Any, Any]:
    w, v = np.linalg.eig(x)
    if np.iscomplexobj(w):
        raise np.linalg.LinAlgError("eig: an eigenvalue is complex")
    return w, v


def eig_grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
    """For eigenvectors of length 1, whose direction alone changes."""
    (x,), (w, v) = op.operands, op.results
    vt = transposed(b, v)
    gap = b.sub(row_matrix(b, w, x), column_matrix(b, w, x))
    gap = b.add(gap, triangle(b, b.full(1, x), "eq"))
    along = b.matmul(vt, g[1])
    lengths = b.sum(triangle(b, along, "eq"), axes=(b.rank(x) - 2,))
    across = b.sub(along, b.mul(b.matmul(vt, v), row_matrix(b, lengths, x)))
    across = b.sub(across, triangle(b, across, "eq"))
    inner = b.add(b.div(across, gap), diagonal_matrix(b, g[0], x))
    return [b.solve(vt, b.matmul(inner, vt))]


host_row(
    "eig",
    "x",
    eigh_type,
    eig_ref,
    "The eigenvalues, all of which must be real, and eigenvectors of length 1.",
    (Sample(("f64[1,1]",)), Sample(("f64[2,2]",), low=0.1)),
    eig_grad,
    raises=True,
)
