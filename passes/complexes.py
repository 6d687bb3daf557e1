"""The algebra of complex numbers in their real and imaginary parts, as rows of real ones.

Formulas are those whose parts neither overflow nor cancel where the result does not; division and comparisons are NumPy's.
What is known to be real (its imaginary part is the constant 0) multiplies and divides the parts one by one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from tcc.ir.core import Op, Value
from tcc.ir.dims import mul as mul_sizes
from tcc.ir.types import REAL_OF, numpy_dtype
from tcc.passes.expand import sum_of_products
from tcc.passes.fold import splat


class Complex(NamedTuple):
    """The parts of a value."""

    re: Value
    im: Value

    @property
    def is_real(self) -> bool:
        zero = splat(self.im)
        return zero is not None and zero == 0 and not np.signbit(zero)


Made = Complex | Value  # a complex result, or a real one
# (builder, op, its operands, those that are complex in parts) -> the result
Lowering = Callable[..., Made]


def limits(x: Value) -> Any:
    return np.finfo(numpy_dtype(x.type.dtype))


def both(b: Any, first: Value, second: Value) -> Value:
    made: Value = getattr(b, "and")(first, second)
    return made


def either(b: Any, first: Value, second: Value) -> Value:
    made: Value = getattr(b, "or")(first, second)
    return made


def infinite(b: Any, z: Complex) -> Value:
    """Whether a part is, of either sign."""
    return either(b, b.isinf(z.re), b.isinf(z.im))


# -- arithmetic ------------------------------------------------------------------------------------------------------


def add(b: Any, x: Complex, y: Complex) -> Complex:
    im = x.im if y.is_real else y.im if x.is_real else b.add(x.im, y.im)
    return Complex(b.add(x.re, y.re), im)


def sub(b: Any, x: Complex, y: Complex) -> Complex:
    return Complex(b.sub(x.re, y.re), x.im if y.is_real else b.sub(x.im, y.im))


def neg(b: Any, x: Complex) -> Complex:
    return Complex(b.neg(x.re), b.neg(x.im))


def conj(b: Any, x: Complex) -> Complex:
    return x if x.is_real else Complex(x.re, b.neg(x.im))


def mul(b: Any, x: Complex, y: Complex) -> Complex:
    if x.is_real:
        x, y = y, x
    if y.is_real:
        return Complex(b.mul(x.re, y.re), x.im if x.is_real else b.mul(x.im, y.re))
    re = b.sub(b.mul(x.re, y.re), b.mul(x.im, y.im))
    return Complex(re, b.add(b.mul(x.re, y.im), b.mul(x.im, y.re)))


def scaled(b: Any, x: Complex, by: float) -> Complex:
    return Complex(b.mul(x.re, by), b.mul(x.im, by))


def sqr(b: Any, x: Complex) -> Complex:
    return mul(b, x, x)


def div(b: Any, x: Complex, y: Complex) -> Complex:
    """Smith's, 1962: scaled by the larger part of the divisor; by 0 the parts are divided by 0."""
    if y.is_real:
        return Complex(b.div(x.re, y.re), x.im if x.is_real else b.div(x.im, y.re))
    turned = b.lt(b.abs(y.re), b.abs(y.im))
    large, small = b.where(turned, y.im, y.re), b.where(turned, y.re, y.im)
    nothing = b.eq(large, 0.0)
    ratio = b.where(nothing, b.full(0.0, large), b.div(small, large))
    scale = b.reciprocal(b.where(nothing, b.abs(large), b.add(large, b.mul(small, ratio))))
    first, second = b.where(turned, x.im, x.re), b.where(turned, x.re, x.im)
    im = b.sub(second, b.mul(first, ratio))
    return Complex(
        b.mul(b.add(first, b.mul(second, ratio)), scale), b.mul(b.where(turned, b.neg(im), im), scale)
    )


def reciprocal(b: Any, y: Complex) -> Complex:
    turned = b.lt(b.abs(y.re), b.abs(y.im))
    large, small = b.where(turned, y.im, y.re), b.where(turned, y.re, y.im)
    ratio = b.div(small, large)
    scale = b.add(large, b.mul(small, ratio))
    one = b.full(1.0, large)
    return Complex(
        b.div(b.where(turned, ratio, one), scale), b.neg(b.div(b.where(turned, one, ratio), scale))
    )


# -- polar form ------------------------------------------------------------------------------------------------------


def magnitudes(b: Any, z: Complex) -> tuple[Value, Value]:
    """The larger part's absolute value, and the smaller one's over it (1 of equal ones)."""
    x, y = b.abs(z.re), b.abs(z.im)
    large, small = b.maximum(x, y), b.minimum(x, y)
    return large, b.where(b.eq(small, large), b.full(1.0, large), b.div(small, large))


def modulus(b: Any, z: Complex) -> Value:
    large, ratio = magnitudes(b, z)
    size = b.mul(large, b.sqrt(b.add(b.sqr(ratio), 1.0)))
    made: Value = b.where(infinite(b, z), b.full(math.inf, size), size)
    return made


def angle(b: Any, z: Complex) -> Value:
    made: Value = b.atan2(z.im, z.re)
    return made


def log(b: Any, z: Complex) -> Complex:
    large, ratio = magnitudes(b, z)
    size = b.add(b.log(large), b.mul(b.log1p(b.sqr(ratio)), 0.5))
    return Complex(b.where(infinite(b, z), b.full(math.inf, size), size), angle(b, z))


def log1p(b: Any, z: Complex) -> Complex:
    """Near 0 through |1 + z|^2 - 1, which does not lose what 1 + z does."""
    moved = Complex(b.add(z.re, 1.0), z.im)
    far = log(b, moved)
    near = b.mul(b.log1p(b.add(b.mul(z.re, b.add(z.re, 2.0)), b.sqr(z.im))), 0.5)
    small = both(b, b.lt(b.abs(z.re), 0.5), b.lt(b.abs(z.im), 0.5))
    return Complex(b.where(small, near, far.re), far.im)


def sqrt(b: Any, z: Complex) -> Complex:
    """Scaled by a power of 4, so that neither |z| overflows nor small parts lose bits."""
    info = limits(z.re)
    large = b.maximum(b.abs(z.re), b.abs(z.im))
    huge, tiny = b.gt(large, float(info.max) / 4), b.lt(large, float(info.tiny) * 2.0**10)
    up = 2.0 ** (info.nmant // 2 * 2)

    def chosen(above: float, below: float) -> Value:
        made: Value = b.where(
            huge, b.full(above, large), b.where(tiny, b.full(below, large), b.full(1.0, large))
        )
        return made

    before, after = chosen(0.25, up), chosen(2.0, 1 / math.sqrt(up))
    x, y = b.mul(z.re, before), b.mul(z.im, before)
    root = b.sqrt(b.mul(b.add(b.abs(x), modulus(b, Complex(x, y))), 0.5))
    other = b.div(b.abs(y), b.add(root, root))
    other = b.where(either(b, b.eq(large, 0.0), b.isinf(y)), b.abs(y), other)
    root = b.where(b.isinf(y), b.abs(y), root)
    root, other = b.mul(root, after), b.mul(other, after)
    left = b.lt(z.re, 0.0)
    return Complex(b.where(left, other, root), b.copysign(b.where(left, root, other), z.im))


# -- exponentials and circular functions --------------------------------------------------------------------------------


def exp(b: Any, z: Complex) -> Complex:
    """A factor is put aside where e ** re overflows and its products may not."""
    most = math.floor(math.log(float(limits(z.re).max)))
    large = b.gt(z.re, float(most))
    size = b.exp(b.where(large, b.sub(z.re, float(most)), z.re))
    factor = b.where(large, b.full(math.exp(most), size), b.full(1.0, size))
    none = b.eq(z.re, -math.inf)

    def part(of: Value) -> Value:
        made: Value = b.where(none, b.full(0.0, size), b.mul(b.mul(of, size), factor))
        return made

    return Complex(part(b.cos(z.im)), b.where(b.eq(z.im, 0.0), z.im, part(b.sin(z.im))))


def expm1(b: Any, z: Complex) -> Complex:
    half = b.sin(b.mul(z.im, 0.5))
    lost = b.mul(b.sqr(half), 2.0)
    return Complex(
        b.sub(b.mul(b.expm1(z.re), b.cos(z.im)), lost),
        b.where(b.eq(z.im, 0.0), z.im, b.mul(b.exp(z.re), b.sin(z.im))),
    )


def unless_zero(b: Any, x: Value, product: Value, otherwise: Value) -> Value:
    """`product`, of which `x` makes a factor 0 exactly where it is 0, whatever the other one is."""
    made: Value = b.where(b.eq(x, 0.0), otherwise, product)
    return made


def sinh(b: Any, z: Complex) -> Complex:
    return Complex(
        unless_zero(b, z.re, b.mul(b.sinh(z.re), b.cos(z.im)), b.mul(z.re, b.sign(b.cos(z.im)))),
        unless_zero(b, z.im, b.mul(b.cosh(z.re), b.sin(z.im)), z.im),
    )


def cosh(b: Any, z: Complex) -> Complex:
    return Complex(
        b.mul(b.cosh(z.re), b.cos(z.im)),
        unless_zero(b, z.im, b.mul(b.sinh(z.re), b.sin(z.im)), b.mul(z.im, b.sign(z.re))),
    )


def tanh(b: Any, z: Complex) -> Complex:
    """sinh 2x + i sin 2y over cosh 2x + cos 2y, in products; from `far` on the first is the second, to the last bit."""
    far = 0.4 * (limits(z.re).nmant + 1)
    size = b.abs(z.re)
    x = b.copysign(b.minimum(size, far), z.re)
    s, c, sine, cosine = b.sinh(x), b.cosh(x), b.sin(z.im), b.cos(z.im)
    under = b.add(b.sqr(s), b.sqr(cosine))
    fades = b.exp(b.minimum(b.mul(b.sub(size, far), -2.0), 0.0))
    im = b.mul(b.div(b.mul(sine, cosine), under), fades)
    return Complex(b.div(b.mul(s, c), under), unless_zero(b, z.im, im, z.im))


def times_i(b: Any, z: Complex) -> Complex:
    return Complex(b.neg(z.im), z.re)


def over_i(b: Any, z: Complex) -> Complex:
    return Complex(z.im, b.neg(z.re))


def through_i(function: Callable[[Any, Complex], Complex]) -> Callable[[Any, Complex], Complex]:
    """f(iz) / i: the circular function of a hyperbolic one, and the other way round."""
    return lambda b, z: over_i(b, function(b, times_i(b, z)))


# -- inverse functions: Kahan's, "Branch cuts for complex elementary functions", 1987 ------------------------------------


def roots(b: Any, z: Complex) -> tuple[Complex, Complex]:
    """The square roots of 1 - z and 1 + z."""
    return sqrt(b, Complex(b.sub(1.0, z.re), b.neg(z.im))), sqrt(b, Complex(b.add(z.re, 1.0), z.im))


def asin(b: Any, z: Complex) -> Complex:
    below, above = roots(b, z)
    re = b.atan2(z.re, mul(b, below, above).re)
    return Complex(re, b.asinh(mul(b, conj(b, below), above).im))


def acos(b: Any, z: Complex) -> Complex:
    below, above = roots(b, z)
    re = b.mul(b.atan2(below.re, above.re), 2.0)
    return Complex(re, b.asinh(mul(b, conj(b, above), below).im))


def acosh(b: Any, z: Complex) -> Complex:
    below, above = (sqrt(b, Complex(b.add(z.re, by), z.im)) for by in (-1.0, 1.0))
    re = b.asinh(mul(b, conj(b, below), above).re)
    return Complex(re, b.mul(b.atan2(below.im, above.re), 2.0))


def atanh(b: Any, z: Complex) -> Complex:
    """Where squares overflow it is 1 / z, of which the real part counts, and a quarter turn; where they underflow the real part
    has logarithms of what they are made of."""
    x = b.abs(z.re)
    off = b.sub(x, 1.0)
    near = b.add(b.sqr(off), b.sqr(z.im))
    re = b.mul(b.log1p(b.div(b.mul(x, 4.0), near)), 0.25)
    close = b.sub(math.log(2) / 2, b.mul(b.log(modulus(b, Complex(off, z.im))), 0.5))
    re = b.where(b.lt(near, float(limits(x).tiny) * 2.0**30), close, re)
    far = b.isinf(near)
    rest = b.where(infinite(b, z), b.full(0.0, x), b.abs(reciprocal(b, z).re))
    re = b.where(far, rest, re)
    im = b.atan2(b.mul(z.im, 2.0), b.sub(b.mul(b.sub(1.0, z.re), b.add(z.re, 1.0)), b.sqr(z.im)))
    quarter = b.copysign(b.full(math.pi / 2, x), z.im)
    return Complex(b.copysign(re, z.re), b.where(far, quarter, b.mul(im, 0.5)))


# -- powers ------------------------------------------------------------------------------------------------------------


def power(b: Any, x: Complex, y: Complex) -> Complex:
    known = splat(y.re)
    number = float(known) if known is not None and y.is_real else math.nan
    if number.is_integer() and abs(number) <= 100:
        return whole_power(b, x, int(number))
    if number == 0.5:
        return sqrt(b, x)
    made = exp(b, mul(b, log(b, x), y))
    zero = both(b, b.eq(x.re, 0.0), b.eq(x.im, 0.0))
    none = both(b, b.eq(y.re, 0.0), b.eq(y.im, 0.0))
    nan, nothing = b.full(math.nan, x.re), b.full(0.0, x.re)
    at_zero = b.where(b.gt(y.re, 0.0), nothing, nan)
    return Complex(
        b.where(none, b.full(1.0, x.re), b.where(zero, at_zero, made.re)),
        b.where(none, nothing, b.where(zero, at_zero, made.im)),
    )


def whole_power(b: Any, x: Complex, n: int) -> Complex:
    if n < 0:
        return reciprocal(b, whole_power(b, x, -n))
    made = None
    while n:
        if n & 1:
            made = x if made is None else mul(b, made, x)
        n >>= 1
        x = sqr(b, x) if n else x
    return made or Complex(b.full(1.0, x.re), b.full(0.0, x.re))


# -- comparisons: by the real parts, then by the imaginary ones ------------------------------------------------------------


def eq(b: Any, x: Complex, y: Complex) -> Value:
    return both(b, b.eq(x.re, y.re), b.eq(x.im, y.im))


def ne(b: Any, x: Complex, y: Complex) -> Value:
    return either(b, b.ne(x.re, y.re), b.ne(x.im, y.im))


def ordered(strict: str, last: str) -> Callable[[Any, Complex, Complex], Value]:
    """NumPy's: a number with a NaN in it compares as false."""

    def compare(b: Any, x: Complex, y: Complex) -> Value:
        known = both(b, b.eq(x.im, x.im), b.eq(y.im, y.im))
        return either(
            b,
            both(b, getattr(b, strict)(x.re, y.re), known),
            both(b, b.eq(x.re, y.re), getattr(b, last)(x.im, y.im)),
        )

    return compare


def extreme(compare: Callable[[Any, Complex, Complex], Value]) -> Callable[[Any, Complex, Complex], Complex]:
    def chosen(b: Any, x: Complex, y: Complex) -> Complex:
        first = either(b, either(b, b.isnan(x.re), b.isnan(x.im)), compare(b, x, y))
        return Complex(b.where(first, x.re, y.re), b.where(first, x.im, y.im))

    return chosen


# -- rows by name ------------------------------------------------------------------------------------------------------

ELEMENTWISE: Mapping[str, Callable[..., Made]] = {
    "add": add,
    "sub": sub,
    "neg": neg,
    "conj": conj,
    "mul": mul,
    "sqr": sqr,
    "div": div,
    "reciprocal": reciprocal,
    "modulus": modulus,
    "angle": angle,
    "sqrt": sqrt,
    "exp": exp,
    "exp2": lambda b, z: exp(b, scaled(b, z, math.log(2))),
    "expm1": expm1,
    "log": log,
    "log2": lambda b, z: scaled(b, log(b, z), 1 / math.log(2)),
    "log10": lambda b, z: scaled(b, log(b, z), 1 / math.log(10)),
    "log1p": log1p,
    "sinh": sinh,
    "cosh": cosh,
    "tanh": tanh,
    "sin": through_i(sinh),
    "cos": lambda b, z: cosh(b, times_i(b, z)),
    "tan": through_i(tanh),
    "asin": asin,
    "acos": acos,
    "atan": through_i(atanh),
    "asinh": through_i(asin),
    "acosh": acosh,
    "atanh": atanh,
    "pow": power,
    "eq": eq,
    "ne": ne,
    "lt": ordered("lt", "lt"),
    "le": ordered("lt", "le"),
    "gt": ordered("gt", "gt"),
    "ge": ordered("gt", "ge"),
    "maximum": extreme(ordered("gt", "ge")),
    "minimum": extreme(ordered("lt", "le")),
}


def of_parts(row: str) -> Lowering:
    """A row that does the same with each part."""

    def lower(b: Any, op: Op, z: Complex) -> Complex:
        attrs = dict(op.attrs)
        if attrs.get("dtype"):
            attrs["dtype"] = REAL_OF[attrs["dtype"]]
        re = b.op(row, z.re, attrs=attrs).result
        return Complex(re, b.full(0.0, re) if z.is_real else b.op(row, z.im, attrs=attrs).result)

    return lower


def where(b: Any, op: Op, condition: Value, x: Complex, y: Complex) -> Complex:
    return Complex(b.where(condition, x.re, y.re), b.where(condition, x.im, y.im))


def second(b: Any, op: Op, x: Made, y: Made) -> Made:
    return y


def one_product(b: Any, x: Value, y: Value) -> Value:
    """[m,k] x [k,n] as [m,2k] x [2k,2n] of the parts where they lie: rows of y take turns with rows of iy."""
    *batch, m, k = x.type.shape
    n, rank = y.type.shape[-1], x.type.rank
    shape = [*batch, k, 2, n]
    twice = b.broadcast(b.dimshuffle(y, order=[*range(rank - 1), -1, rank - 1]), shape=shape)
    first = b.eq(b.iota(shape=shape, axis=rank - 1, dtype="i64"), 0)
    re, im = b.real(twice), b.imag(twice)
    rows = b.complex(b.where(first, re, b.neg(im)), b.where(first, im, re))
    right = b.reshape(b.pairs(rows), shape=[*batch, mul_sizes(2, k), mul_sizes(2, n)])
    left = b.reshape(b.pairs(x), shape=[*batch, m, mul_sizes(2, k)])
    made: Value = b.of_pairs(b.reshape(b.matmul(left, right), shape=[*batch, m, n, 2]))
    return made


def matmul(b: Any, op: Op, x: Complex, y: Complex) -> Made | None:
    """One real product; four in a loop, where the parts of what stays are made before it, and where the first factor is too low
    for the second one to be worth turning; of a vector the sums that they are, which read the matrix where it lies."""
    if len(op.operands) > 2 or op.blocks:
        return None
    made = sum_of_products(op, b, *op.operands)
    if made is not None:
        return made
    m, k = op.operands[0].type.shape[-2:]
    low = isinstance(m, int) and isinstance(k, int) and m < k
    if op.parent is not None and not isinstance(op.parent.parent, Op) and not low:
        return one_product(b, *op.operands)
    re = b.sub(b.matmul(x.re, y.re), b.matmul(x.im, y.im))
    return Complex(re, b.add(b.matmul(x.re, y.im), b.matmul(x.im, y.re)))


OTHERS: Mapping[str, Callable[..., Made | None]] = {
    "cast": of_parts("cast"),
    "sum": of_parts("sum"),
    "cumsum": of_parts("cumsum"),
    "where": where,
    "second": second,
    "matmul": matmul,
}
