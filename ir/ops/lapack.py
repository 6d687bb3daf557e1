"""Inverses, solutions, Cholesky factors and exponentials of matrices, through NumPy's LAPACK on the host or compiled (`factors.py`).

All but the last two axes are a batch.  The formulas of the gradients are those of Giles, An extended collection of matrix
derivative results (2008), and of Murray, Differentiation of the Cholesky decomposition (2016).
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from tcc.ir.core import Attrs
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
from tcc.ir.ops.matrices import lower_half, matrix_of, number, product, square, transposed, triangle
from tcc.ir.ops.rules import host_row
from tcc.ir.optable import Sample
from tcc.ir.types import Type

KINDS = ("general", "lower", "upper")


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
