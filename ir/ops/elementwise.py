"""Rows that compute each element of the result from the same element of the operands.

All operands have one shape and, unless a row says otherwise, one dtype; nothing broadcasts and nothing is promoted.
Gradients at kinks are Theano's: of tied arguments of a maximum the first gets all of it, clip passes it on both bounds, abs
has 0 at 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tcc.ir.core import Attrs, Block
from tcc.ir.ops import special
from tcc.ir.ops.rules import (
    ANALYTIC,
    ANY,
    BOOL,
    NUMBERS,
    ORDERED,
    REAL,
    back_to,
    elementwise,
    per_element,
    want_dtype,
    want_same_dtype,
    want_shape,
)
from tcc.ir.optable import REQUIRED, GradRule, OpDef, RopRule, Sample, define
from tcc.ir.types import COMPLEX, DTYPES, FLOATS, INTEGERS, Type, numpy_dtype

# (builder, gradient of the result, operand, result) -> gradient of the operand
Slope = Callable[[Any, Any, Any, Any], Any]
# (builder, gradient of the result, a, b, result) -> gradients of a and b
Slopes = Callable[[Any, Any, Any, Any, Any], tuple[Any, Any]]


def along_diagonal(grad: GradRule) -> RopRule:
    """The directional derivative that goes with `grad`: an elementwise Jacobian is diagonal, and so symmetric."""

    def rop(b: Any, op: Any, tangents: Sequence[Any]) -> list[Any]:
        total = None
        for i, t in enumerate(tangents):
            part = None if t is None else grad(b, op, [t])[i]
            total = part if total is None else total if part is None else b.add(total, part)
        return [total]

    return rop


def samples_of(accepts: frozenset[str], count: int, low: float, high: float) -> tuple[Sample, ...]:
    """One instance for each kind of dtype that a row takes."""
    texts = [
        t
        for t in ("f32[3,4]", "f64[]", "i64[5]", "u8[4]", "bool[4]", "c128[3]")
        if t[: t.index("[")] in accepts
    ]
    return tuple(Sample((t,) * count, low=0 if t[0] == "u" else low, high=high) for t in texts)


def unary(
    name: str,
    scalar: str,
    ref: Callable[..., Any],
    doc: str,
    *,
    slope: Slope | None = None,
    flops: int = 1,
    accepts: frozenset[str] = FLOATS,
    result: str = "",
    low: float = -2.0,
    high: float = 2.0,
) -> OpDef:
    """A row of one operand `a`; `low` and `high` bound what the tests draw."""
    grad: GradRule | None = None
    if slope:
        grad = lambda b, op, g: [slope(b, g[0], op.operands[0], op.result)]  # noqa: E731
    return define(
        OpDef(
            name,
            "a",
            elementwise(name, "a", accepts, result),
            ref,
            doc=doc,
            grad=grad,
            rop=along_diagonal(grad) if grad else None,
            scalar=scalar,
            reuse=() if result else (0,),
            flops=per_element(flops),
            samples=samples_of(accepts, 1, low, high),
        )
    )


def binary(
    name: str,
    scalar: str,
    ref: Callable[..., Any],
    doc: str,
    *,
    slopes: Slopes | None = None,
    flops: int = 1,
    accepts: frozenset[str] = NUMBERS,
    result: str = "",
    commutes: bool = False,
    low: float = -2.0,
    high: float = 2.0,
) -> OpDef:
    """A row of two operands `a` and `b`."""
    grad: GradRule | None = None
    if slopes:
        grad = lambda b, op, g: slopes(b, g[0], op.operands[0], op.operands[1], op.result)  # noqa: E731
    return define(
        OpDef(
            name,
            "a, b",
            elementwise(name, "a, b", accepts, result),
            ref,
            doc=doc,
            grad=grad,
            rop=along_diagonal(grad) if grad else None,
            scalar=scalar,
            reuse=() if result else (0, 1),
            flops=per_element(flops),
            commutes=commutes,
            samples=samples_of(accepts, 2, low, high),
        )
    )


def zeros(b: Any, x: Any) -> Any:
    """The gradient by an operand on which the result depends in steps only."""
    return b.full(0, x)


def flat(b: Any, g: Any, x: Any, y: Any) -> Any:
    return zeros(b, x)


def flat_both(b: Any, g: Any, x: Any, y: Any, z: Any) -> tuple[Any, Any]:
    return zeros(b, x), zeros(b, y)


def routed(b: Any, chosen: Any, g: Any) -> Any:
    """`g` where `chosen`, else 0."""
    return b.where(chosen, g, b.full(0, g))


# fmt: off
# -- arithmetic of one operand ---------------------------------------------------------------------------------------

unary("identity", "a", np.copy, "a itself.", accepts=ANY, flops=0, slope=lambda b, g, x, y: g)
unary("neg", "-a", np.negative, "-a.", accepts=NUMBERS, slope=lambda b, g, x, y: b.neg(g))
unary("abs", "abs(a)", np.abs, "|a|; its gradient at 0 is 0.", accepts=REAL,
      slope=lambda b, g, x, y: b.mul(g, b.sign(x)))
unary("sign", "sign(a)", np.sign, "-1, 0 or 1; NaN of NaN.", accepts=REAL, flops=2, slope=flat)
unary("sqr", "a * a", np.square, "a * a.", accepts=NUMBERS, slope=lambda b, g, x, y: b.mul(b.mul(g, x), 2))
unary("sqrt", "sqrt(a)", np.sqrt, "The square root.", accepts=ANALYTIC, flops=6, low=0.1,
      slope=lambda b, g, x, y: b.div(b.mul(g, 0.5), y))
unary("reciprocal", "1 / a", lambda a: np.divide(np.ones_like(a), a), "1 / a.", accepts=ANALYTIC, flops=4,
      low=0.5,
      slope=lambda b, g, x, y: b.neg(b.mul(g, b.sqr(y))))
unary("deg2rad", f"a * {math.pi / 180!r}", np.deg2rad, "Degrees to radians.",
      slope=lambda b, g, x, y: b.mul(g, math.pi / 180))
unary("rad2deg", f"a * {180 / math.pi!r}", np.rad2deg, "Radians to degrees.",
      slope=lambda b, g, x, y: b.mul(g, 180 / math.pi))

# -- exponentials and logarithms -------------------------------------------------------------------------------------

unary("exp", "exp(a)", np.exp, "e ** a.", accepts=ANALYTIC, flops=12, slope=lambda b, g, x, y: b.mul(g, y))
unary("exp2", "exp2(a)", np.exp2, "2 ** a.", accepts=ANALYTIC, flops=12,
      slope=lambda b, g, x, y: b.mul(b.mul(g, y), math.log(2)))
unary("expm1", "expm1(a)", np.expm1, "exp(a) - 1, exact near 0.", accepts=ANALYTIC, flops=16,
      slope=lambda b, g, x, y: b.mul(g, b.add(y, 1.0)))
unary("log", "log(a)", np.log, "The natural logarithm.", accepts=ANALYTIC, flops=14, low=0.1, high=3.0,
      slope=lambda b, g, x, y: b.div(g, x))
unary("log2", "log2(a)", np.log2, "The logarithm to base 2.", accepts=ANALYTIC, flops=14, low=0.1, high=3.0,
      slope=lambda b, g, x, y: b.div(g, b.mul(x, math.log(2))))
unary("log10", "log10(a)", np.log10, "The logarithm to base 10.", accepts=ANALYTIC, flops=15, low=0.1, high=3.0,
      slope=lambda b, g, x, y: b.div(g, b.mul(x, math.log(10))))
unary("log1p", "log1p(a)", np.log1p, "log(1 + a), exact near 0.", accepts=ANALYTIC, flops=18, low=-0.9,
      slope=lambda b, g, x, y: b.div(g, b.add(x, 1.0)))


def sigmoid(a: Any) -> Any:
    small = np.exp(-np.abs(a))
    one = np.ones_like(small)
    return np.where(a >= 0, one / (one + small), small / (one + small))


unary("sigmoid", "sigmoid(a)", sigmoid, "1 / (1 + exp(-a)).", flops=16,
      slope=lambda b, g, x, y: b.mul(g, b.mul(y, b.sub(1.0, y))))
unary("softplus", "softplus(a)", lambda a: np.logaddexp(a, np.zeros_like(a)),
      "log(1 + exp(a)), without overflow.", flops=30,
      slope=lambda b, g, x, y: b.mul(g, b.sigmoid(x)))

# -- circular and hyperbolic functions -------------------------------------------------------------------------------

unary("sin", "sin(a)", np.sin, "The sine.", accepts=ANALYTIC, flops=16, slope=lambda b, g, x, y: b.mul(g, b.cos(x)))
unary("cos", "cos(a)", np.cos, "The cosine.", accepts=ANALYTIC, flops=16, slope=lambda b, g, x, y: b.neg(b.mul(g, b.sin(x))))
unary("tan", "tan(a)", np.tan, "The tangent.", accepts=ANALYTIC, flops=24, low=-1.0, high=1.0,
      slope=lambda b, g, x, y: b.mul(g, b.add(b.sqr(y), 1.0)))
unary("asin", "asin(a)", np.arcsin, "The inverse sine.", accepts=ANALYTIC, flops=20, low=-0.9, high=0.9,
      slope=lambda b, g, x, y: b.div(g, b.sqrt(b.sub(1.0, b.sqr(x)))))
unary("acos", "acos(a)", np.arccos, "The inverse cosine.", accepts=ANALYTIC, flops=20, low=-0.9, high=0.9,
      slope=lambda b, g, x, y: b.neg(b.div(g, b.sqrt(b.sub(1.0, b.sqr(x))))))
unary("atan", "atan(a)", np.arctan, "The inverse tangent.", accepts=ANALYTIC, flops=20,
      slope=lambda b, g, x, y: b.div(g, b.add(b.sqr(x), 1.0)))
unary("sinh", "sinh(a)", np.sinh, "The hyperbolic sine.", accepts=ANALYTIC, flops=24,
      slope=lambda b, g, x, y: b.mul(g, b.cosh(x)))
unary("cosh", "cosh(a)", np.cosh, "The hyperbolic cosine.", accepts=ANALYTIC, flops=20,
      slope=lambda b, g, x, y: b.mul(g, b.sinh(x)))
unary("tanh", "tanh(a)", np.tanh, "The hyperbolic tangent.", accepts=ANALYTIC, flops=18,
      slope=lambda b, g, x, y: b.mul(g, b.sub(1.0, b.sqr(y))))
unary("asinh", "asinh(a)", np.arcsinh, "The inverse hyperbolic sine.", accepts=ANALYTIC, flops=26,
      slope=lambda b, g, x, y: b.div(g, b.sqrt(b.add(b.sqr(x), 1.0))))
unary("acosh", "acosh(a)", np.arccosh, "The inverse hyperbolic cosine.", accepts=ANALYTIC, flops=26, low=1.1, high=3.0,
      slope=lambda b, g, x, y: b.div(g, b.mul(b.sqrt(b.sub(x, 1.0)), b.sqrt(b.add(x, 1.0)))))
unary("atanh", "atanh(a)", np.arctanh, "The inverse hyperbolic tangent.", accepts=ANALYTIC, flops=26, low=-0.9, high=0.9,
      slope=lambda b, g, x, y: b.div(g, b.sub(1.0, b.sqr(x))))

# -- special functions -----------------------------------------------------------------------------------------------

_HALF_ROOT_PI = math.sqrt(math.pi) / 2

unary("erf", "erf(a)", special.erf, "The error function.", flops=24,
      slope=lambda b, g, x, y: b.mul(g, b.mul(b.exp(b.neg(b.sqr(x))), 1 / _HALF_ROOT_PI)))
unary("erfc", "erfc(a)", special.erfc, "1 - erf(a), exact for large a.", flops=30,
      slope=lambda b, g, x, y: b.mul(g, b.mul(b.exp(b.neg(b.sqr(x))), -1 / _HALF_ROOT_PI)))
unary("erfinv", "erfinv(a)", special.erfinv, "The inverse error function.", flops=40, low=-0.9, high=0.9,
      slope=lambda b, g, x, y: b.mul(g, b.mul(b.exp(b.sqr(y)), _HALF_ROOT_PI)))
unary("gamma", "gamma(a)", special.gamma, "The gamma function.", flops=50, low=0.5, high=4.0,
      slope=lambda b, g, x, y: b.mul(g, b.mul(y, b.psi(x))))
unary("gammaln", "gammaln(a)", special.gammaln, "log |gamma(a)|.", flops=50, low=0.5, high=4.0,
      slope=lambda b, g, x, y: b.mul(g, b.psi(x)))
unary("psi", "psi(a)", special.psi, "The digamma function, the derivative of gammaln.", flops=50, low=0.5,
      high=4.0, slope=lambda b, g, x, y: b.mul(g, b.trigamma(x)))
unary("trigamma", "trigamma(a)", special.trigamma, "The trigamma function, the derivative of psi.", flops=50,
      low=0.5, high=4.0)

# -- rounding --------------------------------------------------------------------------------------------------------


def round_half_away(a: Any) -> Any:
    whole = np.trunc(a)
    return np.where(np.abs(a - whole) >= 0.5, whole + np.sign(a), whole)


unary("floor", "floor(a)", np.floor, "The largest whole number not above a.", slope=flat)
unary("ceil", "ceil(a)", np.ceil, "The smallest whole number not below a.", slope=flat)
unary("trunc", "trunc(a)", np.trunc, "Rounds towards zero.", slope=flat)
unary("rint", "rint(a)", np.rint, "Rounds to the nearest whole number, halves to the even one.", slope=flat)
unary("round_half_away", "where(abs(a - trunc(a)) >= 0.5, trunc(a) + sign(a), trunc(a))", round_half_away,
      "Rounds to the nearest whole number, halves away from zero.", flops=8, slope=flat)

# -- predicates and bits ---------------------------------------------------------------------------------------------

unary("isnan", "isnan(a)", np.isnan, "Whether a is NaN.", result="bool", slope=flat)
unary("isinf", "isinf(a)", np.isinf, "Whether a is infinite.", result="bool", slope=flat)
unary("not", "~a", np.invert, "Logical not of bools, bitwise of integers.", accepts=BOOL | INTEGERS,
      slope=flat)
binary("and", "a & b", np.bitwise_and, "Logical and of bools, bitwise of integers.", accepts=BOOL | INTEGERS,
       commutes=True, slopes=flat_both)
binary("or", "a | b", np.bitwise_or, "Logical or of bools, bitwise of integers.", accepts=BOOL | INTEGERS,
       commutes=True, slopes=flat_both)
binary("xor", "a ^ b", np.bitwise_xor, "Exclusive or of bools, bitwise of integers.", accepts=BOOL | INTEGERS,
       commutes=True, slopes=flat_both)
binary("shl", "shl(a, b)", np.left_shift, "a << b; 0 where b is not within the width of a.", accepts=INTEGERS,
       low=0, high=9, slopes=flat_both)
binary("shr", "shr(a, b)", np.right_shift,
       "a >> b, keeping the sign; all sign where b is not within the width of a.", accepts=INTEGERS, low=0,
       high=9, slopes=flat_both)

# -- arithmetic of two operands --------------------------------------------------------------------------------------


def power(a: Any, b: Any) -> Any:
    if np.asarray(a).dtype.kind not in "iu":
        return np.power(a, b)
    # integers: a negative power is 1/a**-b, rounded towards zero
    whole = np.power(a, np.maximum(b, np.zeros_like(b)))
    odd = np.where(b & np.ones_like(b), a, np.ones_like(a))
    return np.where(b >= 0, whole, np.where(np.abs(a) == 1, odd, np.zeros_like(a)))


def power_slopes(b: Any, g: Any, x: Any, y: Any, z: Any) -> tuple[Any, Any]:
    by_base = b.mul(b.mul(g, y), b.pow(x, b.sub(y, 1)))
    by_exponent = b.where(b.eq(x, 0), b.full(0, x), b.mul(b.mul(g, b.log(x)), z))
    return by_base, by_exponent


def quotient_slopes(b: Any, g: Any, x: Any, y: Any, z: Any) -> tuple[Any, Any]:
    return b.div(g, y), b.neg(b.div(b.mul(g, x), b.mul(y, y)))


def atan2_slopes(b: Any, g: Any, x: Any, y: Any, z: Any) -> tuple[Any, Any]:
    scaled = b.div(g, b.add(b.sqr(x), b.sqr(y)))
    return b.mul(scaled, y), b.neg(b.mul(scaled, x))


COMPARED = ORDERED | COMPLEX  # complex numbers by their real parts, then by their imaginary ones


def extreme_slopes(b: Any, g: Any, x: Any, y: Any, z: Any) -> tuple[Any, Any]:
    return routed(b, b.eq(z, x), g), routed(b, b.ne(z, x), g)


binary("add", "a + b", np.add, "a + b; of bools, or.", accepts=ANY, commutes=True,
       slopes=lambda b, g, x, y, z: (g, g))
binary("sub", "a - b", np.subtract, "a - b.", slopes=lambda b, g, x, y, z: (g, b.neg(g)))
binary("mul", "a * b", np.multiply, "a * b; of bools, and.", accepts=ANY, commutes=True,
       slopes=lambda b, g, x, y, z: (b.mul(g, y), b.mul(g, x)))
binary("div", "a / b", np.divide, "a / b, of floats.", accepts=ANALYTIC, flops=4, low=0.5,
       slopes=quotient_slopes)
binary("floordiv", "a // b", np.floor_divide, "floor(a / b); an integer by 0 is 0.", accepts=REAL, flops=8,
       low=-3.0, high=3.0, slopes=flat_both)
binary("mod", "a % b", np.mod, "a - b * floor(a / b), with the sign of b; an integer by 0 is 0.",
       accepts=REAL, flops=10, low=0.5, high=3.0,
       slopes=lambda b, g, x, y, z: (g, b.neg(b.mul(g, b.floordiv(x, y)))))
binary("pow", "pow(a, b)", power, "a ** b; an integer to a negative power is rounded towards 0.", flops=30,
       low=0.2, slopes=power_slopes)
binary("atan2", "atan2(a, b)", np.arctan2, "The angle of the point (b, a), in -pi..pi.", accepts=FLOATS,
       flops=30, low=0.5, slopes=atan2_slopes)
binary("copysign", "copysign(a, b)", np.copysign, "|a| with the sign of b.", accepts=FLOATS,
       slopes=lambda b, g, x, y, z: (b.mul(g, b.mul(b.sign(x), b.copysign(b.full(1.0, y), y))), zeros(b, y)))
binary("minimum", "min(a, b)", np.minimum, "The smaller; NaN if either is.", accepts=COMPARED, commutes=True,
       slopes=extreme_slopes)
binary("maximum", "max(a, b)", np.maximum, "The larger; NaN if either is.", accepts=COMPARED, commutes=True,
       slopes=extreme_slopes)

# -- comparisons -----------------------------------------------------------------------------------------------------

binary("eq", "a == b", np.equal, "a == b.", accepts=ANY, result="bool", commutes=True, slopes=flat_both)
binary("ne", "a != b", np.not_equal, "a != b.", accepts=ANY, result="bool", commutes=True, slopes=flat_both)
binary("lt", "a < b", np.less, "a < b.", accepts=COMPARED, result="bool", slopes=flat_both)
binary("le", "a <= b", np.less_equal, "a <= b.", accepts=COMPARED, result="bool", slopes=flat_both)
binary("gt", "a > b", np.greater, "a > b.", accepts=COMPARED, result="bool", slopes=flat_both)
binary("ge", "a >= b", np.greater_equal, "a >= b.", accepts=COMPARED, result="bool", slopes=flat_both)

# fmt: on
# -- the odd ones ----------------------------------------------------------------------------------------------------


def second_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    want_shape("second", "b", types[1], types[0].shape, "a")
    return [types[1]]


define(
    OpDef(
        "second",
        "a, b",
        second_type,
        lambda a, b: np.copy(b),
        doc="b, of the shape of a; a's elements do not matter, and its dtype may differ.",
        grad=lambda b, op, g: [None, g[0]],
        rop=lambda b, op, t: [t[1]],
        scalar="b",
        reuse=(1,),
        samples=(Sample(("f32[3,4]", "f32[3,4]")), Sample(("i64[]", "f64[]"))),
    )
)


def cast_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    dtype, (t,) = attrs["dtype"], types
    if dtype not in DTYPES:
        raise TypeError(f"cast: no dtype {dtype!r} (there are {', '.join(DTYPES)})")
    want_dtype("cast", "a", t, ANY)
    if dtype not in ANY or (t.dtype in COMPLEX and dtype not in COMPLEX):
        raise TypeError(f"cast: {t} has no value as {dtype}")
    return [t.with_dtype(dtype)]


def cast_grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
    (x,) = op.operands
    if {b.dtype(x), b.dtype(op.result)} <= ANALYTIC:
        return [back_to(b, g[0], b.dtype(x))]
    return [zeros(b, x)]


def cast_rop(b: Any, op: Any, t: Sequence[Any]) -> list[Any]:
    if t[0] is None:
        return [None]
    if {b.dtype(op.operands[0]), b.dtype(op.result)} <= ANALYTIC:
        return [b.cast(t[0], dtype=b.dtype(op.result))]
    return [zeros(b, op.result)]


define(
    OpDef(
        "cast",
        "a",
        cast_type,
        lambda a, dtype: np.asarray(a).astype(numpy_dtype(dtype)),
        {"dtype": REQUIRED},
        doc="a as another dtype; floats become integers towards zero.",
        grad=cast_grad,
        rop=cast_rop,
        scalar="cast(a)",
        reuse=(0,),
        flops=per_element(1),
        samples=(
            Sample(("f32[3,4]",), {"dtype": "f64"}),
            Sample(("f64[5]",), {"dtype": "f32"}),
            Sample(("f32[5]",), {"dtype": "i64"}),
            Sample(("i64[5]",), {"dtype": "f32"}),
            Sample(("bool[5]",), {"dtype": "f64"}),
            Sample(("f64[5]",), {"dtype": "bool"}),
            Sample(("i64[5]",), {"dtype": "i8"}),
            Sample(("u8[5]",), {"dtype": "i32"}, low=0),
        ),
    )
)


def where_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    c, a, b = types
    want_dtype("where", "c", c, BOOL)
    want_same_dtype("where", types[1:])
    want_shape("where", "a", a, c.shape, "c")
    want_shape("where", "b", b, c.shape, "c")
    return [a]


def where_grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
    c, x, _ = op.operands
    nothing = b.full(0, g[0])
    return [zeros(b, c), b.where(c, g[0], nothing), b.where(c, nothing, g[0])]


def where_rop(b: Any, op: Any, t: Sequence[Any]) -> list[Any]:
    if t[1] is None and t[2] is None:
        return [None]
    c, x, y = op.operands
    return [b.where(c, b.full(0, x) if t[1] is None else t[1], b.full(0, y) if t[2] is None else t[2])]


define(
    OpDef(
        "where",
        "c, a, b",
        where_type,
        np.where,
        doc="a where c holds, else b.",
        grad=where_grad,
        rop=where_rop,
        scalar="where(c, a, b)",
        reuse=(1, 2),
        flops=per_element(1),
        samples=(Sample(("bool[3,4]", "f32[3,4]", "f32[3,4]")), Sample(("bool[]", "i64[]", "i64[]"))),
    )
)


def clip_grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
    x, low, high = op.operands
    both = getattr(b, "and")
    reaches = b.ge(x, low)
    inside, below, above = both(reaches, b.le(x, high)), b.lt(x, low), both(reaches, b.gt(x, high))
    return [routed(b, chosen, g[0]) for chosen in (inside, below, above)]


define(
    OpDef(
        "clip",
        "a, low, high",
        elementwise("clip", "a, low, high", ORDERED),
        lambda a, low, high: np.where(np.less(a, low), low, np.minimum(a, high)),
        doc="low where a < low, else min(a, high): where the bounds cross, a decides between them.",
        grad=clip_grad,
        rop=along_diagonal(clip_grad),
        scalar="where(a < low, low, min(a, high))",
        reuse=(0, 1, 2),
        flops=per_element(2),
        samples=(Sample(("f32[3,4]",) * 3), Sample(("f64[]",) * 3), Sample(("i64[5]",) * 3)),
    )
)
