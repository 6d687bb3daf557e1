"""What linear algebra is made of where it is compiled: factors of matrices and solutions by them, and the check that they are.

The rows of `lapack.py` expand into these.  They never fail: a number for each matrix says at which pivot (counted from 1) it failed,
0 where it did not, and `check_pivots` makes an error of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tcc.ir.core import Attrs, Block, Op
from tcc.ir.dims import Size, add, mul
from tcc.ir.ops.rules import want_dtype, want_same_dtype, want_size
from tcc.ir.optable import Expansion, OpDef, Sample, define
from tcc.ir.types import INTEGERS, Type, numpy_dtype

FLOATS = frozenset({"f32", "f64"})
NOT_POSITIVE, SINGULAR = "Matrix is not positive definite", "Singular matrix"


def want_matrix(row: str, operand: str, t: Type, square: bool = False) -> None:
    want_dtype(row, operand, t, FLOATS)
    if t.rank < 2:
        raise TypeError(f"{row}: operand {operand} must be a matrix or a batch of them, got {t}")
    if square:
        want_size(row, f"the columns of operand {operand}", t.shape[-1], t.shape[-2])


def want_system(row: str, types: Sequence[Type]) -> None:
    """A batch of square matrices, and as many matrices of as many rows."""
    a, b = types
    want_matrix(row, "a", a, square=True)
    want_matrix(row, "b", b)
    want_same_dtype(row, types)
    if a.rank != b.rank:
        raise TypeError(f"{row}: needs [...,n,n] and [...,n,k], got {a} and {b}")
    for axis in range(a.rank - 1):
        want_size(row, f"axis {axis} of operand b", b.shape[axis], a.shape[axis])


def batch_of(t: Type) -> tuple[Size, ...]:
    return t.shape[:-2]


def _solved(row: str) -> Callable[[Sequence[Type], Attrs, Sequence[Block]], list[Type]]:
    def infer(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
        a, b = (t.value for t in types)
        want_system(row, [a, b])
        return [b, Type("i64", batch_of(a))]

    return infer


def _factored(row: str, last: int) -> Callable[[Sequence[Type], Attrs, Sequence[Block]], list[Type]]:
    def infer(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
        x = types[0].value
        want_matrix(row, "x", x, square=True)
        return [x.with_shape(*x.shape[: x.rank - 2 + last]), Type("i64", batch_of(x))]

    return infer


def _each(function: Callable[..., tuple[Any, int]], *arrays: Any) -> tuple[Any, Any]:
    """`function` of each matrix of a batch."""
    batch = arrays[0].shape[:-2]
    made = [function(*(a[at] for a in arrays)) for at in np.ndindex(batch)]
    failed = np.array([f for _, f in made], np.int64).reshape(batch)
    if not made:
        return np.zeros_like(arrays[-1]), failed
    return np.stack([m for m, _ in made]).reshape(*batch, *made[0][0].shape), failed


def _factor(x: Any) -> tuple[Any, int]:
    n = len(x)
    y = np.zeros_like(x)
    for j in range(n):
        pivot = x[j, j] - y[j, :j] @ y[j, :j]
        if not pivot > 0:
            return np.full_like(x, np.nan), j + 1
        y[j, j] = np.sqrt(pivot)
        y[j + 1 :, j] = (x[j + 1 :, j] - y[j + 1 :, :j] @ y[j, :j]) / y[j, j]
    return y, 0


def cholesky_factor(x: Any) -> tuple[Any, Any]:
    return _each(_factor, x)


def _pivoted(x: Any) -> tuple[Any, Any, Any, int]:
    """l and u in one matrix, the order of the rows, its sign, and the number of the first pivot that is 0."""
    a, order, sign, failed = x.copy(), np.arange(len(x)), 1, 0
    for j in range(len(x)):
        p = j + int(np.argmax(np.where(np.isnan(a[j:, j]), -1, np.abs(a[j:, j]))))
        if p != j:
            a[[j, p]], order[[j, p]], sign = a[[p, j]], order[[p, j]], -sign
        if a[j, j] == 0:
            failed = failed or j + 1
            continue
        a[j + 1 :, j] /= a[j, j]
        a[j + 1 :, j + 1 :] -= np.outer(a[j + 1 :, j], a[j, j + 1 :])
    return a, order, sign, failed


def _substituted(a: Any, b: Any, upper: bool, unit: bool = False) -> tuple[Any, int]:
    x, n, failed = b.copy(), len(a), 0
    for k in reversed(range(n)) if upper else range(n):
        if not unit:
            failed = failed or (k + 1 if a[k, k] == 0 else 0)
            x[k] /= a[k, k]
        rest = slice(0, k) if upper else slice(k + 1, n)
        x[rest] -= np.outer(a[rest, k], x[k])
    return x, failed


def triangular_solve(a: Any, b: Any, upper: bool) -> tuple[Any, Any]:
    with np.errstate(all="ignore"):
        return _each(lambda a, b: _substituted(a, b, upper), a, b)


def lu_solve(a: Any, b: Any) -> tuple[Any, Any]:
    def one(a: Any, b: Any) -> tuple[Any, int]:
        lu, order, _, failed = _pivoted(a)
        return _substituted(lu, _substituted(lu, b[order], False, True)[0], True)[0], failed

    with np.errstate(all="ignore"):
        return _each(one, a, b)


def lu_pivots(x: Any) -> tuple[Any, Any]:
    def one(x: Any) -> tuple[Any, int]:
        lu, _, sign, failed = _pivoted(x)
        pivots = np.diagonal(lu).copy()
        pivots[:1] *= sign
        return pivots, failed

    with np.errstate(all="ignore"):
        return (
            _each(one, x) if x.size else (np.zeros(x.shape[:-1], x.dtype), np.zeros(x.shape[:-2], np.int64))
        )


def _cube(op: Op, times: int) -> Size:
    n = op.operands[0].type.shape[-1]
    return mul(op.operands[0].type.size, n, times)


def _product(op: Op) -> Size:
    return mul(op.operands[1].type.size, op.operands[0].type.shape[-1])


define(
    OpDef(
        "cholesky_factor",
        "x",
        _factored("cholesky_factor", 2),
        cholesky_factor,
        doc="The lower triangle y with y y' = x, of which only the lower triangle is read, NaN where x is not positive; and the "
        "first pivot that was not.",
        kernel=True,
        flops=lambda op: _cube(op, 1) // 3,
        samples=(
            Sample(("f64[1,1]",), low=1.0),
            Sample(("f32[3,1,1]",), low=-1.0),
            Sample(("f64[3,3]",), low=-2.0, high=-1.0),
        ),
    )
)
define(
    OpDef(
        "triangular_solve",
        "a, b",
        _solved("triangular_solve"),
        triangular_solve,
        {"upper": False},
        doc="x with a x = b for a triangle a, the other half of which is not read; and the first 0 on its diagonal.",
        kernel=True,
        reuse=(1,),
        flops=_product,
        samples=(
            Sample(("f64[3,3]", "f64[3,1]"), low=0.5),
            Sample(("f64[2,3,3]", "f64[2,3,2]"), {"upper": True}, low=0.5),
            Sample(("f32[2,2]", "f32[2,3]"), low=0.5),
        ),
    )
)
define(
    OpDef(
        "lu_solve",
        "a, b",
        _solved("lu_solve"),
        lu_solve,
        doc="x with a x = b, by elimination with partial pivoting; and the first pivot that was 0.",
        kernel=True,
        flops=lambda op: add(mul(2, _product(op)), _cube(op, 2) // 3),
        samples=(
            Sample(("f64[3,3]", "f64[3,2]")),
            Sample(("f32[2,1,1]", "f32[2,1,3]"), low=0.5),
        ),
    )
)
define(
    OpDef(
        "lu_pivots",
        "x",
        _factored("lu_pivots", 1),
        lu_pivots,
        doc="The pivots of elimination with partial pivoting, the first with the sign of the rows' order, so that their product is "
        "the determinant; and the first that is 0.",
        kernel=True,
        flops=lambda op: _cube(op, 2) // 3,
        samples=(Sample(("f64[3,3]",)), Sample(("f32[2,2]",)), Sample(("f64[2,1,1]",))),
    )
)

# -- the check -------------------------------------------------------------------------------------------------------


def check_pivots_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    want_dtype("check_pivots", "failed", types[0], INTEGERS)
    return []


def check_pivots_ref(failed: Any, message: str, of: str) -> tuple[()]:
    if np.any(np.asarray(failed)):
        raise np.linalg.LinAlgError(message)
    return ()


define(
    OpDef(
        "check_pivots",
        "failed",
        check_pivots_type,
        check_pivots_ref,
        {"message": SINGULAR, "of": "solve"},
        doc="LinAlgError if a matrix failed at a pivot; `of`, the row that this belongs to, is for the message.",
        kernel=True,
        pure=False,
        fails=True,
        samples=(Sample(("i64[3]",), high=0.0, low=0.0),),
    )
)


# -- expansions --------------------------------------------------------------------------------------------------------


def expand_cholesky(b: Any, op: Any) -> list[Any]:
    y, failed = b.cholesky_factor(*op.operands)
    if op.attrs["on_error"] == "raise":
        b.check_pivots(failed, message=NOT_POSITIVE, of=op.name)
    return [y]


def expand_solve(b: Any, op: Any) -> list[Any]:
    kind = op.attrs["kind"]
    if kind == "general":
        return [_regular(b, op, *op.operands)]
    x, failed = b.triangular_solve(*op.operands, upper=kind == "upper")
    b.check_pivots(failed, message=SINGULAR, of=op.name)
    return [x]


def _regular(b: Any, op: Any, a: Any, right: Any) -> Any:
    x, failed = b.lu_solve(a, right)
    b.check_pivots(failed, message=SINGULAR, of=op.name)
    return x


def expand_inverse(b: Any, op: Any) -> list[Any]:
    (x,) = op.operands
    rank, shape = b.rank(x), b.shape(x)
    one = b.eq(b.iota(shape=shape, axis=rank - 2), b.iota(shape=shape, axis=rank - 1))
    return [_regular(b, op, x, b.cast(one, dtype=b.dtype(x)))]


def _of_pivots(reduce: str, of: Sequence[str]) -> Expansion:
    def expand(b: Any, op: Any) -> list[Any]:
        pivots, _ = b.lu_pivots(*op.operands)
        for name in of:
            pivots = getattr(b, name)(pivots)
        return [getattr(b, reduce)(pivots, axes=(b.rank(pivots) - 1,))]

    return expand


def expand_det(b: Any, op: Any) -> list[Any]:
    """The product of the pivots; through logarithms where some of them alone might overflow or vanish, though all do not."""
    pivots, _ = b.lu_pivots(*op.operands)
    axes = (b.rank(pivots) - 1,)
    limits: Any = np.finfo(numpy_dtype(op.result.type.dtype))
    size = b.log(b.abs(pivots))
    rise, fall = (b.sum(part(size, 0.0), axes=axes) for part in (b.maximum, b.minimum))
    near = getattr(b, "and")(
        b.lt(rise, math.log(float(limits.max)) - 1), b.gt(fall, math.log(float(limits.tiny)) + 1)
    )
    far = b.mul(b.prod(b.sign(pivots), axes=axes), b.exp(b.add(rise, fall)))
    return [b.where(near, b.prod(pivots, axes=axes), far)]


expand_logabsdet = _of_pivots("sum", ("abs", "log"))
expand_sign = _of_pivots("prod", ("sign",))
