"""Algebra, one line a rule.

Strengths: exact gives the same bits (but for the sign of a zero and the payload of a NaN); stable rounds differently
and is never worse; fast needs the user's word.

The canonical form that all rules together aim at:
- a constant that fills its shape is a splat `const` of that shape, never a broadcast, reshaped or sliced one;
- `neg` and `sub` rather than products with -1 and sums with `neg`; `reciprocal(x)` for 1/x, `div` for x*reciprocal(y);
- `sqr`, `sqrt` and products in place of `pow` by a small constant;
- at most one `dimshuffle`, then at most one `broadcast`, between two other operations; elementwise operations work
  before the broadcast or transposition that all their operands have in common;
- a reduction has one axis list: not of a reduction of the same kind, of a broadcast or a transposition, nor over axes of size 1;
- `where` on conditions without `not`; one `cast` where the first of two loses nothing.
"""

from __future__ import annotations

import math
from typing import Any

from tcc.ir.types import FLOATS, INTEGERS
from tcc.passes import convolutions, indexing, products, reductions, views
from tcc.passes.fold import splat
from tcc.passes.pattern import AnyRule, Found, rule

stable, fast = "stable", "fast"

# which dtypes hold every value of the key
WIDER: dict[str, frozenset[str]] = {
    "bool": INTEGERS | FLOATS,
    "i8": frozenset({"i16", "i32", "i64", "f16", "f32", "f64"}),
    "u8": frozenset({"i16", "i32", "i64", "u16", "u32", "u64", "f16", "f32", "f64"}),
    "i16": frozenset({"i32", "i64", "f32", "f64"}),
    "u16": frozenset({"i32", "i64", "u32", "u64", "f32", "f64"}),
    "i32": frozenset({"i64", "f64"}),
    "u32": frozenset({"i64", "u64", "f64"}),
    "f16": frozenset({"f32", "f64"}),
    "bf16": frozenset({"f32", "f64"}),
    "f32": frozenset({"f64"}),
}


def floats(m: Found) -> bool:
    return m["x"].type.dtype in FLOATS


def numbers(m: Found) -> bool:
    return bool(m["x"].type.dtype != "bool")


def last_axis(m: Found) -> bool:
    """A is the last axis of x alone."""
    return list(m["A"]) == [m["x"].type.rank - 1]


def last_argument(m: Found) -> bool:
    """A is the number of the last axis of x."""
    return bool(m["A"] == m["x"].type.rank - 1)


def lossless(m: Found) -> bool:
    """The inner cast of two keeps every value."""
    return m["D"] in WIDER.get(m["x"].type.dtype, ())


def same_dtype(m: Found) -> bool:
    return bool(m["x"].type.dtype == m["D"])


def constants(m: Found) -> bool:
    """c and d are splats whose product and quotient are ordinary numbers."""
    c, d = splat(m["c"]), splat(m["d"])
    if c is None or d is None or m["x"].type.dtype not in FLOATS:
        return False
    return all(1e-30 < abs(float(v)) < 1e30 for v in (c, d))


def power_of_two(m: Found) -> bool:
    """c is a splat by which division is exactly multiplication."""
    c = splat(m["c"])
    return (
        c is not None
        and math.isfinite(float(c))
        and 1e-30 < abs(float(c)) < 1e30
        and abs(math.frexp(float(c))[0]) == 0.5
    )


# what the test takes for the names in a rule
ROW: dict[str, Any] = {"A": [1]}
SHIFT: dict[str, Any] = {"A": [1], "r": "f32[3]"}
SCALES: dict[str, Any] = {"c": 3.0, "d": 0.7}
CONDITION: dict[str, Any] = {"p": "bool[3,4]"}

STABILISE: list[AnyRule] = [
    *products.RULES,
    *indexing.STABILISE,
    rule("log(softmax(x))", "log_softmax(x)", stable),
    rule("exp(log_softmax(x))", "softmax(x)", stable),
    rule("exp(x) / keep(sum(exp(x), axes=A), axes=A)", "softmax(x)", stable, when=last_axis, samples=ROW),
    rule("softmax(x - keep(r, axes=A))", "softmax(x)", stable, when=last_axis, samples=SHIFT),
    rule("log_softmax(x - keep(r, axes=A))", "log_softmax(x)", stable, when=last_axis, samples=SHIFT),
    rule("log(sum(exp(x), axes=A))", "logsumexp(x, axes=A)", stable, samples=ROW),
    rule("x - keep(logsumexp(x, axes=A), axes=A)", "log_softmax(x)", stable, when=last_axis, samples=ROW),
    rule("log(exp(x) + 1)", "softplus(x)", stable),
    rule("log1p(exp(x))", "softplus(x)", stable),
    rule("log(sigmoid(x))", "neg(softplus(neg(x)))", stable),
    rule("log(1 - sigmoid(x))", "neg(softplus(x))", stable),
    products.one_minus_sigmoid,
    rule("log1p(neg(sigmoid(x)))", "neg(softplus(x))", stable),
    rule("reciprocal(exp(x) + 1)", "sigmoid(neg(x))", stable),
    rule("a / (exp(x) + 1)", "a * sigmoid(neg(x))", stable),
    rule("log(x + 1)", "log1p(x)", stable),
    rule("log(1 - x)", "log1p(neg(x))", stable, low=-2.0, high=0.9),
    rule("exp(x) - 1", "expm1(x)", stable),
    rule("log(exp(x))", "x", stable),
    rule("sqrt(sqr(x))", "abs(x)", stable),
    # how rectifiers are written; NaN of an infinite x, and infinite where the sum overflows
    rule("(x + abs(x)) * 0.5", "maximum(x, 0)", stable),
    rule("argmax(softmax(x), axis=A)", "argmax(x, axis=A)", stable, when=last_argument, samples={"A": 1}),
]

ALGEBRA: list[AnyRule] = [
    rule("real(complex(x, y))", "x"),
    rule("imag(complex(x, y))", "y"),
    rule("complex(real(x), imag(x))", "x", samples={"x": "c64[3,4]"}),
    rule("x + 0", "x"),
    rule("x - 0", "x"),
    rule("0 - x", "neg(x)"),
    rule("x * 1", "x"),
    rule("x / 1", "x"),
    rule("x * -1", "neg(x)"),
    rule("x / -1", "neg(x)"),
    rule("x * 0", "0", fast),  # not for inf or nan
    rule("x - x", "0", fast),
    rule("x / x", "1", fast, low=0.5),
    rule("neg(neg(x))", "x"),
    rule("x + neg(y)", "x - y"),
    rule("x - neg(y)", "x + y"),
    rule("neg(x) - y", "neg(x + y)"),
    rule("neg(x - y)", "y - x"),
    rule("neg(x) * neg(y)", "x * y"),
    rule("neg(x) / neg(y)", "x / y", low=0.5),
    rule("neg(x) * y", "neg(x * y)"),
    rule("neg(x) / y", "neg(x / y)", low=0.5),
    rule("x / neg(y)", "neg(x / y)", low=0.5),
    rule("1 / x", "reciprocal(x)", when=floats, low=0.5),
    rule("reciprocal(reciprocal(x))", "x", stable, low=0.5),
    rule("x * reciprocal(y)", "x / y", stable, low=0.5),
    rule("x / reciprocal(y)", "x * y", stable, low=0.5),
    rule("x * x", "sqr(x)", when=numbers),
    rule("(x * c) * d", "x * (c * d)", stable, when=constants, samples=SCALES),
    rule("(x / c) * d", "x * (d / c)", stable, when=constants, samples=SCALES),
    rule("(x * c) / d", "x * (c / d)", stable, when=constants, samples=SCALES),
    rule("(x / c) / d", "x / (c * d)", stable, when=constants, samples=SCALES),
    rule("neg(x * c)", "x * neg(c)", when=lambda m: splat(m["c"]) is not None, samples={"c": 3.0}),
    rule("x / c", "x * (1 / c)", when=power_of_two, samples={"c": 4.0}),
    rule("abs(neg(x))", "abs(x)"),
    rule("abs(abs(x))", "abs(x)"),
    rule("abs(sqr(x))", "sqr(x)", when=floats),  # an integer's square may wrap to below 0
    rule("sqr(neg(x))", "sqr(x)"),
    rule("sqr(abs(x))", "sqr(x)"),
    rule("sqr(sqrt(x))", "x", fast, low=0.1),
    rule("exp(log(x))", "x", fast, low=0.1),
    rule("exp(x) * exp(y)", "exp(x + y)", fast),
    rule("pow(x, 0)", "1"),
    rule("pow(x, 1)", "x"),
    rule("pow(x, 2)", "sqr(x)", stable, low=0.2),
    rule("pow(x, 3)", "x * sqr(x)", stable, low=0.2),
    rule("pow(x, 4)", "sqr(sqr(x))", stable, low=0.2),
    rule("pow(x, 0.5)", "sqrt(x)", stable, low=0.2),  # as NumPy's `**`: NaN at -inf, where C's pow is inf
    rule("pow(x, -1)", "reciprocal(x)", stable, when=floats, low=0.2),
    rule("pow(x, -2)", "sqr(reciprocal(x))", stable, when=floats, low=0.2),  # a square may be too large
    # the root alone is NaN at -inf, and its reciprocal -inf at -0
    rule("pow(x, -0.5)", "where(eq(x, -1e999), 0, abs(reciprocal(sqrt(x))))", stable, low=0.2),
    # these give NaN at -inf, and what the second takes the reciprocal of may be too large
    rule("pow(x, 1.5)", "x * sqrt(x)", fast, low=0.2),
    rule("pow(x, -1.5)", "reciprocal(x * sqrt(x))", fast, low=0.2),
    rule("maximum(x, x)", "x"),
    rule("minimum(x, x)", "x"),
    rule("identity(x)", "x"),
    rule("second(x, y)", "y"),
    rule("where(p, x, x)", "x", samples=CONDITION),
    rule("where(~p, x, y)", "where(p, y, x)", samples=CONDITION),
    rule("~~p", "p", samples=CONDITION),
    rule("~eq(x, y)", "ne(x, y)"),
    rule("~ne(x, y)", "eq(x, y)"),
    rule("cast(x, dtype=D)", "x", when=same_dtype, samples={"D": "f32"}),
    rule(
        "cast(cast(x, dtype=D), dtype=E)", "cast(x, dtype=E)", when=lossless, samples={"D": "f64", "E": "i32"}
    ),
    *views.RULES,
    *reductions.RULES,
    *indexing.RULES,
    *convolutions.RULES,
]

RULES: list[AnyRule] = [*STABILISE, *ALGEBRA]
