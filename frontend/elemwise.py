"""Functions of each element.  Mixed dtypes and ranks are brought together before the row is applied."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tcc import build
from tcc.graph import Shown
from tcc.opfunction import OpFunction
from tcc.settings import config
from tcc.types import dtype_name, promote
from tcc.variable import TensorConstant, as_variable

# What a function of floats makes of other dtypes.
TO_FLOAT = {
    "bool": "float32",
    "int8": "float32",
    "int16": "float32",
    "uint8": "float32",
    "uint16": "float32",
    "int32": "float64",
    "int64": "float64",
    "uint32": "float64",
    "uint64": "float64",
}
INTEGERS = frozenset(d for d in TO_FLOAT if d != "bool")
DISCRETE = frozenset(TO_FLOAT)
FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})
Function = Callable[..., Any]


def _float_function(row: str, name: str, doc: str) -> Function:
    def function(x: Any) -> Any:
        x = as_variable(x)
        return build.elementwise(row, x, dtype=TO_FLOAT.get(x.type.dtype, x.type.dtype))

    return _named(function, name, doc + "  Integers become floats: up to 16 bits float32, else float64.")


def _keeping(row: str, name: str, doc: str, refused: frozenset[str] = frozenset({"bool"})) -> Function:
    def function(x: Any) -> Any:
        x = as_variable(x)
        if x.type.dtype in refused:
            raise TypeError(f"{name} is not defined on {x.type.dtype} ({x})")
        return build.elementwise(row, x)

    return _named(function, name, doc)


class ComplexError(NotImplementedError, TypeError):
    """An operation that is not defined for complex numbers."""


COMPLEX = frozenset({"complex64", "complex128"})


def _two(
    row: str, name: str, doc: str, to_float: bool = False, refused: frozenset[str] = frozenset()
) -> Function:
    def function(a: Any, b: Any) -> Any:
        a, b = as_variable(a), as_variable(b)
        dtype = a.type.dtype
        if b.type.dtype != dtype:
            dtype = promote(dtype, b.type.dtype)
        if dtype in refused:
            error = ComplexError if dtype in COMPLEX else TypeError
            raise error(f"{name} is not defined on {a.type.dtype} and {b.type.dtype} ({a}, {b})")
        return build.elementwise(
            row, a, b, label=name, dtype=TO_FLOAT.get(dtype, dtype) if to_float else dtype
        )

    return _named(function, name, doc)


def _several(row: str, name: str, doc: str) -> Function:
    two = _two(row, name, doc)

    def function(a: Any, *others: Any) -> Any:
        result = as_variable(a)
        for b in others:
            result = two(result, b)
        return result

    return _named(function, name, doc)


def _named(function: Function, name: str, doc: str) -> Function:
    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return OpFunction(function)


exp = _float_function("exp", "exp", "e ** x.")
exp2 = _float_function("exp2", "exp2", "2 ** x.")
expm1 = _float_function("expm1", "expm1", "exp(x) - 1, exact near 0.")
log = _float_function("log", "log", "The natural logarithm.")
log2 = _float_function("log2", "log2", "The logarithm to base 2.")
log10 = _float_function("log10", "log10", "The logarithm to base 10.")
log1p = _float_function("log1p", "log1p", "log(1 + x), exact near 0.")
sqrt = _float_function("sqrt", "sqrt", "The square root.")
sin = _float_function("sin", "sin", "The sine.")
cos = _float_function("cos", "cos", "The cosine.")
tan = _float_function("tan", "tan", "The tangent.")
arcsin = _float_function("asin", "arcsin", "The inverse sine.")
arccos = _float_function("acos", "arccos", "The inverse cosine.")
arctan = _float_function("atan", "arctan", "The inverse tangent.")
sinh = _float_function("sinh", "sinh", "The hyperbolic sine.")
cosh = _float_function("cosh", "cosh", "The hyperbolic cosine.")
tanh = _float_function("tanh", "tanh", "The hyperbolic tangent.")
arcsinh = _float_function("asinh", "arcsinh", "The inverse hyperbolic sine.")
arccosh = _float_function("acosh", "arccosh", "The inverse hyperbolic cosine.")
arctanh = _float_function("atanh", "arctanh", "The inverse hyperbolic tangent.")
erf = _float_function("erf", "erf", "The error function.")
erfc = _float_function("erfc", "erfc", "1 - erf(x).")
erfinv = _float_function("erfinv", "erfinv", "The inverse error function.")
erfcx = _float_function("erfcx", "erfcx", "exp(x ** 2) erfc(x), through SciPy.")
erfcinv = _float_function("erfcinv", "erfcinv", "The inverse of erfc, through SciPy.")
j0 = _float_function("j0", "j0", "The Bessel function of order 0, through SciPy.")
j1 = _float_function("j1", "j1", "The Bessel function of order 1, through SciPy.")
i0 = _float_function("i0", "i0", "The modified Bessel function of order 0, through SciPy.")
i1 = _float_function("i1", "i1", "The modified Bessel function of order 1, through SciPy.")
gamma = _float_function("gamma", "gamma", "The gamma function.")
gammaln = _float_function("gammaln", "gammaln", "log |gamma(x)|.")
psi = _float_function("psi", "psi", "The digamma function.")
tri_gamma = _float_function("trigamma", "tri_gamma", "The trigamma function, the derivative of psi.")
floor = _float_function("floor", "floor", "The largest whole number not above x.")
ceil = _float_function("ceil", "ceil", "The smallest whole number not below x.")
trunc = _float_function("trunc", "trunc", "Rounds towards zero.")
deg2rad = _float_function("deg2rad", "deg2rad", "Degrees to radians.")
rad2deg = _float_function("rad2deg", "rad2deg", "Radians to degrees.")

neg = _keeping("neg", "neg", "-x.")
sqr = _keeping("sqr", "sqr", "x * x.")
sgn = _keeping("sign", "sgn", "-1, 0 or 1.")
invert = _keeping(
    "not",
    "invert",
    "Logical not of bools, bitwise of integers.",
    refused=FLOATS,
)

add = _several("add", "add", "The sum of the arguments.")
mul = _several("mul", "mul", "The product of the arguments.")
sub = _two("sub", "sub", "a - b.", refused=frozenset({"bool"}))
pow = _two("pow", "pow", "a ** b.", refused=frozenset({"bool"}))
int_div = _two("floordiv", "int_div", "floor(a / b).", refused=frozenset({"bool"}))
mod = _two("mod", "mod", "a - b * floor(a / b), with the sign of b.", refused=COMPLEX | {"bool"})
minimum = _two("minimum", "minimum", "The smaller; NaN if either is.")
maximum = _two("maximum", "maximum", "The larger; NaN if either is.")
arctan2 = _two("atan2", "arctan2", "The angle of the point (b, a).", to_float=True)
eq = _two("eq", "eq", "a == b, as bools.")
neq = _two("ne", "neq", "a != b, as bools.")
lt = _two("lt", "lt", "a < b, as bools.")
le = _two("le", "le", "a <= b, as bools.")
gt = _two("gt", "gt", "a > b, as bools.")
ge = _two("ge", "ge", "a >= b, as bools.")
and_ = _two("and", "and_", "Logical and of bools, bitwise of integers.", refused=FLOATS)
or_ = _two("or", "or_", "Logical or of bools, bitwise of integers.", refused=FLOATS)
xor = _two("xor", "xor", "Exclusive or of bools, bitwise of integers.", refused=FLOATS)
bitwise_and, bitwise_or, bitwise_xor, bitwise_not = and_, or_, xor, invert
square = sqr
jv = _two("jv", "jv", "The Bessel function of order a at b, through SciPy.", to_float=True)
iv = _two("iv", "iv", "The modified Bessel function of order a at b, through SciPy.", to_float=True)
gammainc = _two(
    "gammainc",
    "gammainc",
    "The lower incomplete gamma function at b over gamma(a), through SciPy.",
    to_float=True,
)
gammaincc = _two(
    "gammaincc",
    "gammaincc",
    "The upper incomplete gamma function at b over gamma(a), through SciPy.",
    to_float=True,
)


@OpFunction
def gammal(k: Any, x: Any) -> Any:
    """The lower incomplete gamma function, through SciPy."""
    return mul(gammainc(k, x), gamma(k))


@OpFunction
def gammau(k: Any, x: Any) -> Any:
    """The upper incomplete gamma function, through SciPy."""
    return mul(gammaincc(k, x), gamma(k))


@OpFunction
def chi2sf(x: Any, k: Any) -> Any:
    """1 - the cumulative chi-squared distribution of k degrees of freedom at x, through SciPy."""
    return gammaincc(true_div(k, 2), true_div(x, 2))


def logaddexp(a: Any, b: Any) -> Any:
    """log(exp(a) + exp(b)), without overflow; of equal infinities, themselves."""
    a, b = as_variable(a), as_variable(b)
    dtype = promote(a.type.dtype, b.type.dtype)
    dtype = TO_FLOAT.get(dtype, dtype)
    a, b = build.cast(a, dtype), build.cast(b, dtype)
    larger, smaller = switch(gt(a, b), a, b), switch(gt(a, b), b, a)
    endless = and_(eq(a, b), isinf(a))  # whose difference is no number
    gap = switch(endless, build.cast(as_variable(0), dtype), sub(smaller, larger))
    return add(larger, build.elementwise("softplus", gap))


@OpFunction
def abs_(x: Any) -> Any:
    """|x|; of bools, themselves."""
    x = as_variable(x)
    if x.type.dtype.startswith("complex"):
        return build.node("modulus", x).result
    return x if x.type.dtype == "bool" else build.elementwise("abs", x)


@OpFunction
def true_div(a: Any, b: Any) -> Any:
    """a / b; of two integers in config.floatX."""
    a, b = as_variable(a), as_variable(b)
    dtype = promote(a.type.dtype, b.type.dtype)
    if dtype in DISCRETE:
        dtype = str(config.floatX)
    return build.elementwise("div", a, b, label="true_div", dtype=dtype)


@OpFunction
def inv(x: Any) -> Any:
    """1 / x."""
    x = as_variable(x)
    return build.elementwise("reciprocal", x, dtype=TO_FLOAT.get(x.type.dtype, x.type.dtype))


def _predicate(row: str, name: str, doc: str) -> Function:
    def function(x: Any) -> Any:
        x = as_variable(x)
        if x.type.dtype in DISCRETE:
            return build.cast(build.Builder().full(0, x), "bool")
        if x.type.dtype.startswith("complex"):  # one of its parts is
            return or_(*(build.elementwise(row, build.node(part, x).result) for part in ("real", "imag")))
        return build.elementwise(row, x)

    return _named(function, name, doc)


isnan = _predicate("isnan", "isnan", "Whether x is NaN, as bools.")
isinf = _predicate("isinf", "isinf", "Whether x is infinite, as bools.")


def isclose(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Any:
    """Whether |a - b| <= atol + rtol * |b|; infinities only equal themselves."""
    a, b = as_variable(a), as_variable(b)
    near = le(abs_(sub(a, b)), add(atol, mul(rtol, abs_(b))))
    if a.type.dtype in DISCRETE and b.type.dtype in DISCRETE:
        return near
    infinite = or_(isinf(a), isinf(b))
    result = or_(and_(near, invert(infinite)), eq(a, b))
    return or_(result, and_(isnan(a), isnan(b))) if equal_nan else result


def round(x: Any, mode: str | None = None) -> Any:
    """Rounds floats: `half_away_from_zero` (the default) or `half_to_even`."""
    x = as_variable(x)
    if x.type.dtype in DISCRETE:
        raise TypeError(f"round is defined on floats only, got {x.type}")
    rows = {"half_to_even": "rint", "half_away_from_zero": "round_half_away", None: "round_half_away"}
    if mode not in rows:
        raise ValueError(f"round: mode must be half_to_even or half_away_from_zero, got {mode!r}")
    return build.elementwise(rows[mode], x)


@OpFunction
def round_half_to_even(x: Any) -> Any:
    """Rounds floats, halves to the even number."""
    return round(x, "half_to_even")


@OpFunction
def round_half_away_from_zero(x: Any) -> Any:
    """Rounds floats, halves away from zero."""
    return round(x, "half_away_from_zero")


def iround(x: Any, mode: str | None = None) -> Any:
    """Rounds to int64."""
    return cast(round(x, mode), "int64")


def cast(x: Any, dtype: str) -> Any:
    """x in another dtype; "floatX" is config.floatX.  Floats become integers towards zero.

    TypeError for complex numbers that would become real ones.
    """
    dtype, x = dtype_name(dtype), as_variable(x)
    if x.type.dtype.startswith("complex") and not dtype.startswith("complex"):
        raise TypeError(f"cast: {x.type} to {dtype} is ambiguous; take real(), imag(), angle() or abs()")
    return build.cast(x, dtype, implicit=False)


@OpFunction
def clip(x: Any, min: Any, max: Any) -> Any:
    """x, but at least `min` and at most `max`: `min` where x < min, else the lesser of x and `max`.

    So bounds that cross give `min` below it, and `max` from there on, as in Theano; NumPy gives `max` everywhere.
    """
    x, low, high = as_variable(x), as_variable(min), as_variable(max)
    return build.elementwise("clip", x, low, high)


@OpFunction
def switch(condition: Any, ift: Any, iff: Any) -> Any:
    """`ift` where the condition is not zero, else `iff`."""
    c, a, b = as_variable(condition), as_variable(ift), as_variable(iff)
    dtype = promote(a.type.dtype, b.type.dtype)
    values = [truth(c), build.cast(a, dtype), build.cast(b, dtype)]
    values = build.broadcast_together("switch", values)
    return build.node("where", *values, shown=Shown("Elemwise{switch,no_inplace}", (c, a, b))).result


def where(condition: Any, ift: Any, iff: Any) -> Any:
    """As `switch`."""
    return switch(condition, ift, iff)


def truth(x: Any) -> Any:
    """Whether x is not zero, as bools."""
    if x.type.dtype == "bool":
        return x
    if isinstance(x, TensorConstant):
        return build.cast(x, "bool")
    return neq(x, 0)


def fill(a: Any, b: Any) -> Any:
    """b, in the shape that a and b have together; its dtype is b's."""
    a, b = as_variable(a), as_variable(b)
    model, value = build.broadcast_together("fill", [a, b])
    return build.node("second", model, value).result


second = fill


def tensor_copy(x: Any) -> Any:
    """The same values as another variable."""
    return build.elementwise("identity", as_variable(x))


def identity(x: Any) -> Any:
    """The same values as another variable."""
    return tensor_copy(x)


def xlogx(x: Any) -> Any:
    """x * log(x), and 0 at 0."""
    x = as_variable(x)
    return switch(eq(x, 0), build.Builder().full(0, x), mul(x, log(x)))


def xlogy0(x: Any, y: Any) -> Any:
    """x * log(y), and 0 where x is 0."""
    x = as_variable(x)
    product = mul(x, log(y))
    return switch(eq(x, 0), build.Builder().full(0, product), product)


def _part(row: str, name: str, doc: str, of_real: Function) -> Function:
    def function(x: Any) -> Any:
        x = as_variable(x)
        return build.node(row, x).result if x.type.dtype.startswith("complex") else of_real(x)

    return _named(function, name, doc)


real = _part("real", "real", "The real part.", tensor_copy)
imag = _part("imag", "imag", "The imaginary part; 0 of real numbers.", lambda x: build.Builder().full(0, x))
conj = _part("conj", "conj", "The complex conjugate.", tensor_copy)
angle = _part("angle", "angle", "The argument, in -pi..pi.", lambda x: arctan2(build.Builder().full(0, x), x))


def complex(real: Any, imag: Any) -> Any:
    """real + i imag, of the precision of the wider one."""
    parts = [as_variable(real), as_variable(imag)]
    wide = promote(*(p.type.dtype for p in parts), "float32")
    return build.elementwise("complex", *(build.cast(p, wide) for p in parts))


def complex_from_polar(r: Any, theta: Any) -> Any:
    """r exp(i theta)."""
    return complex(mul(r, cos(theta)), mul(r, sin(theta)))
