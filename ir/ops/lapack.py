"""Inverses, solutions and decompositions of matrices, through NumPy's LAPACK on the host or compiled (`factors.py`).

All but the last two axes are a batch.  The formulas of the gradients are those of Giles, An extended collection of matrix
derivative results (2008), and of Murray, Differentiation of the Cholesky decomposition (2016).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tcc.ir import dims
from tcc.ir.core import Attrs
from tcc.ir.dims import Size
from tcc.ir.ops.factors import (
    NOT_POSITIVE,
    expand_cholesky,
    expand_det,
    expand_inverse,
    expand_logabsdet,
    expand_sign,
    expand_solve,
    want_matrix,
    want_system,
)
from tcc.ir.ops.rules import host_row
from tcc.ir.optable import Sample
from tcc.ir.types import Type

KINDS = ("general", "lower", "upper")


# -- what gradients are made of --------------------------------------------------------------------------------------


def transposed(b: Any, x: Any) -> Any:
    rank = b.rank(x)
    return b.dimshuffle(x, order=[*range(rank - 2), rank - 1, rank - 2])


def product(b: Any, *factors: Any) -> Any:
    made, *rest = factors
    for f in rest:
        made = b.matmul(made, f)
    return made


def matrix_of(b: Any, number: Any, like: Any) -> Any:
    """A number for each matrix of `like`, filled into it."""
    rank = b.rank(like)
    return b.broadcast(b.dimshuffle(number, order=[*range(rank - 2), -1, -1]), shape=b.shape(like))


def triangle(b: Any, x: Any, keep: str) -> Any:
    """x where row - column is as `keep` (gt, ge, lt, eq) says, else 0."""
    rank, shape = b.rank(x), b.shape(x)
    row, column = b.iota(shape=shape, axis=rank - 2), b.iota(shape=shape, axis=rank - 1)
    return b.where(getattr(b, keep)(row, column), x, b.full(0, x))


def diagonal_matrix(b: Any, v: Any, like: Any) -> Any:
    """The vectors v on the diagonals of matrices of the shape of `like`."""
    rank = b.rank(like)
    wide = b.broadcast(b.dimshuffle(v, order=[*range(rank - 2), -1, rank - 2]), shape=b.shape(like))
    return triangle(b, wide, "eq")


def lower_half(b: Any, s: Any) -> Any:
    """The gradient by a matrix of which only the lower triangle is read, from that by a symmetric one."""
    return b.sub(triangle(b, b.add(s, transposed(b, s)), "ge"), triangle(b, s, "eq"))


def square(name: str) -> Callable[[Sequence[Type], Attrs], list[Type]]:
    def infer(types: Sequence[Type], attrs: Attrs) -> list[Type]:
        want_matrix(name, "x", types[0], square=True)
        return [types[0]]

    return infer


def number(name: str) -> Callable[[Sequence[Type], Attrs], list[Type]]:
    def infer(types: Sequence[Type], attrs: Attrs) -> list[Type]:
        want_matrix(name, "x", types[0], square=True)
        return [types[0].with_shape(*types[0].shape[:-2])]

    return infer


# -- inverses and determinants ---------------------------------------------------------------------------------------


def inv_grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
    y = transposed(b, op.result)
    return [b.neg(product(b, y, g[0], y))]


def inv_rop(b: Any, op: Any, t: Sequence[Any]) -> list[Any]:
    return [None if t[0] is None else b.neg(product(b, op.result, t[0], op.result))]


def det_grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
    (x,) = op.operands
    return [b.mul(matrix_of(b, b.mul(g[0], op.result), x), transposed(b, b.matrix_inverse(x)))]


def logabsdet_grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
    (x,) = op.operands
    return [b.mul(matrix_of(b, g[0], x), transposed(b, b.matrix_inverse(x)))]


def pinv_type(types: Sequence[Type], attrs: Attrs) -> list[Type]:
    want_matrix("pinv", "x", types[0])
    *batch, m, n = types[0].shape
    return [types[0].with_shape(*batch, n, m)]


def pinv_grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
    (x,), z = op.operands, op.result
    gt, zt = transposed(b, g[0]), transposed(b, z)

    def rest(p: Any) -> Any:
        return b.sub(triangle(b, b.full(1, p), "eq"), p)

    total = b.sub(product(b, rest(b.matmul(x, z)), gt, z, zt), product(b, zt, g[0], zt))
    return [b.add(total, product(b, zt, z, gt, rest(b.matmul(z, x))))]


SQUARES = (Sample(("f64[3,3]",)), Sample(("f32[2,2]",)), Sample(("f64[2,1,1]",), low=0.5))

host_row(
    "matrix_inverse",
    "x",
    square("matrix_inverse"),
    np.linalg.inv,
    "The inverse.",
    SQUARES,
    inv_grad,
    inv_rop,
    expand=expand_inverse,
    raises=True,
)
host_row(
    "det",
    "x",
    number("det"),
    lambda x: np.asarray(np.linalg.det(x), x.dtype),
    "The determinant.",
    SQUARES,
    det_grad,
    expand=expand_det,
)
host_row(
    "logabsdet",
    "x",
    number("logabsdet"),
    lambda x: np.asarray(np.linalg.slogdet(x)[1], x.dtype),
    "The logarithm of the magnitude of the determinant.",
    SQUARES,
    logabsdet_grad,
    expand=expand_logabsdet,
)
host_row(
    "sign_of_det",
    "x",
    number("sign_of_det"),
    lambda x: np.asarray(np.linalg.slogdet(x)[0], x.dtype),
    "The sign of the determinant, which itself may overflow or vanish.",
    SQUARES,
    lambda b, op, g: [b.full(0, op.operands[0])],
    expand=expand_sign,
)
host_row(
    "pinv",
    "x",
    pinv_type,
    np.linalg.pinv,
    "The pseudo-inverse of Moore and Penrose.",
    (Sample(("f64[3,2]",)), Sample(("f64[2,3]",)), Sample(("f32[2,2]",))),
    pinv_grad,
    raises=True,
)

# -- solutions -------------------------------------------------------------------------------------------------------


def solve_type(types: Sequence[Type], attrs: Attrs) -> list[Type]:
    want_system("solve", types)
    if attrs["kind"] not in KINDS:
        raise TypeError(f"solve: the kind must be one of {', '.join(KINDS)}, got {attrs['kind']!r}")
    return [types[1]]


def solve_ref(a: Any, b: Any, kind: str) -> Any:
    if kind != "general":
        a = np.tril(a) if kind == "lower" else np.triu(a)
        if (np.diagonal(a, axis1=-2, axis2=-1) == 0).any():
            raise np.linalg.LinAlgError("Singular matrix")
    return np.linalg.solve(a, b)


def solve_grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
    (a, _), kind = op.operands, op.attrs["kind"]
    other = {"general": "general", "lower": "upper", "upper": "lower"}[kind]
    by_b = b.solve(transposed(b, a), g[0], kind=other)
    by_a = b.neg(b.matmul(by_b, transposed(b, op.result)))
    if kind != "general":
        by_a = triangle(b, by_a, "ge" if kind == "lower" else "le")
    return [by_a, by_b]


host_row(
    "solve",
    "a, b",
    solve_type,
    solve_ref,
    "x with a x = b; of a matrix of `kind` lower or upper only that triangle is read.",
    (
        Sample(("f64[3,3]", "f64[3,2]")),
        Sample(("f64[3,3]", "f64[3,1]"), {"kind": "lower"}, low=0.5),
        Sample(("f64[2,2]", "f64[2,3]"), {"kind": "upper"}, low=0.5),
    ),
    solve_grad,
    attrs={"kind": "general"},
    expand=expand_solve,
    raises=True,
)


def cholesky_grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
    y = op.result
    upper = transposed(b, y)
    p = b.matmul(upper, triangle(b, g[0], "ge"))
    p = b.sub(triangle(b, p, "ge"), b.mul(triangle(b, p, "eq"), 0.5))
    s = transposed(b, b.solve(upper, p, kind="upper"))
    made = lower_half(b, b.solve(upper, s, kind="upper"))
    # all of y is NaN where a matrix is not positive, and so is its gradient
    return [b.where(b.isnan(y), y, made) if op.attrs["on_error"] == "nan" else made]


def factored(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """NumPy's, but some libraries take NaN for a pivot that will do."""
    y = np.linalg.cholesky(x)
    if np.isnan(np.diagonal(y, axis1=-2, axis2=-1)).any():
        raise np.linalg.LinAlgError(NOT_POSITIVE)
    return y


def cholesky(x: np.ndarray[Any, Any], on_error: str = "raise") -> np.ndarray[Any, Any]:
    if on_error == "raise" or x.size == 0:
        return factored(x)
    out = np.full_like(x, np.nan)
    for at in np.ndindex(x.shape[:-2]):
        with contextlib.suppress(np.linalg.LinAlgError):
            out[at] = factored(x[at])
    return out


host_row(
    "cholesky",
    "x",
    square("cholesky"),
    cholesky,
    "The lower triangle y with y y' = x, of which only the lower triangle is read.  Where x is not positive, NaN for "
    'on_error="nan", else LinAlgError.',
    (
        Sample(("f64[1,1]",), low=1.0),
        Sample(("f32[2,1,1]",), low=1.0),
        Sample(("f64[1,1]",), {"on_error": "nan"}, low=1.0),
    ),
    cholesky_grad,
    attrs={"on_error": "raise"},
    expand=expand_cholesky,
    raises=True,
)

# -- decompositions --------------------------------------------------------------------------------------------------


def eigh_type(types: Sequence[Type], attrs: Attrs) -> list[Type]:
    (x,) = types
    want_matrix("eigh", "x", x, square=True)
    return [x.with_shape(*x.shape[:-1]), x]


def eigh_grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
    (x,), (w, v) = op.operands, op.results
    rank, shape = b.rank(x), b.shape(x)
    columns = b.broadcast(b.dimshuffle(w, order=[*range(rank - 2), -1, rank - 2]), shape=shape)
    rows = b.broadcast(b.dimshuffle(w, order=[*range(rank - 1), -1]), shape=shape)
    gap = b.sub(columns, rows)
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


def row_matrix(b: Any, v: Any, like: Any) -> Any:
    """The vectors v as each row of matrices of the shape of `like`, one element a column."""
    rank = b.rank(like)
    return b.broadcast(b.dimshuffle(v, order=[*range(rank - 2), -1, rank - 2]), shape=b.shape(like))


def column_matrix(b: Any, v: Any, like: Any) -> Any:
    """The same with v as each column."""
    rank = b.rank(like)
    return b.broadcast(b.dimshuffle(v, order=[*range(rank - 1), -1]), shape=b.shape(like))


def corner(b: Any, x: Any, rows: Size, columns: Size) -> Any:
    """The first rows and columns of matrices."""
    rank = b.rank(x)
    size = [*b.shape(x)[: rank - 2], rows, columns]
    return b.slice(x, start=[0] * rank, size=size, step=[1] * rank)


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
    rank = b.rank(x)
    scaled = b.mul(
        u, b.broadcast(b.dimshuffle(g[0], order=[*range(rank - 2), -1, rank - 2]), shape=b.shape(u))
    )
    return [b.matmul(scaled, vt)]


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

# -- the exponential -------------------------------------------------------------------------------------------------

PADE = (64764752532480000, 32382376266240000, 7771770303897600, 1187353796428800, 129060195264000, 10559470521600,
        670442572800, 33522128640, 1323241920, 40840800, 960960, 16380, 182, 1)  # fmt: skip


def expm_ref(x: Any) -> Any:
    """Scaling, a Pade approximant of order 13, and squaring (Higham 2005)."""
    if x.size == 0:
        return x.copy()
    a = x.astype(np.float64)
    size = float(np.abs(a).sum(-2).max())
    if not np.isfinite(size):
        return np.full_like(x, np.nan)
    times = max(0, int(np.ceil(np.log2(size / 5.371920351148152)))) if size else 0
    a = a / 2.0**times
    eye = np.broadcast_to(np.eye(a.shape[-1]), a.shape)
    a2 = a @ a
    a4, a6 = a2 @ a2, a2 @ a2 @ a2
    c = PADE
    odd = a6 @ (c[13] * a6 + c[11] * a4 + c[9] * a2) + c[7] * a6 + c[5] * a4 + c[3] * a2 + c[1] * eye
    even = a6 @ (c[12] * a6 + c[10] * a4 + c[8] * a2) + c[6] * a6 + c[4] * a4 + c[2] * a2 + c[0] * eye
    u = a @ odd
    made = np.linalg.solve(even - u, even + u)
    for _ in range(times):
        made = made @ made
    return made.astype(x.dtype)


def expm_grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
    """The corner of the exponential of [[x', g], [0, x']]."""
    (x,) = op.operands
    rank, t = b.rank(x), transposed(b, x)
    upper = b.concat(t, g[0], axis=rank - 1)
    lower = b.concat(b.full(0, x), t, axis=rank - 1)
    whole = b.expm(b.concat(upper, lower, axis=rank - 2))
    n = b.size(x, rank - 1)
    start = [*[0] * (rank - 1), n]
    return [b.slice(whole, start=start, size=list(b.shape(x)), step=[1] * rank)]


host_row(
    "expm", "x", square("expm"), expm_ref, "The exponential of a matrix.", SQUARES, expm_grad, raises=True
)
