"""exp and its relatives.

All start from exp(x) = 2^n (1 + p) with n = round(x / ln 2) and p = expm1(x - n ln 2), |x - n ln 2| <= ln(2)/2.
Keeping p apart from the 1 lets expm1, sigmoid and tanh add their own 1 without cancellation: 2^n p + (2^n - 1).
"""

from __future__ import annotations

from typing import NamedTuple

from tcc.codegen.math.core import Math

LOG2E = 1.4426950408889634
LN2 = 0.6931471805599453
# (high, low), where high has so many trailing zeros that n * high is exact, and so is x - n * high
LN2_SINGLE = (0.693145751953125, 1.428606765330187e-06)
LN2_DOUBLE = (0.693147180559663, 2.8235290563031577e-13)
# minimax of (e^r - 1 - r) / r^2, highest power first; relative error 2^-28.2 and 2^-57.4
EXPM1_SINGLE = (0.0013837037, 0.008369196, 0.04166812, 0.16666517, 0.49999994)
EXPM1_DOUBLE = (
    2.507284731171546e-08, 2.762819212513048e-07, 2.755730250784633e-06, 2.480149870101712e-05, 0.0001984126991060139,
    0.001388888893879377, 0.008333333333248268, 0.04166666666654265, 0.16666666666666946, 0.5000000000000011,
)  # fmt: skip

# minimax of expm1(2 r) / (2 r) for |r| <= ln(2)/4, for tanh's far branch; absolute error 2^-26 and 2^-55
EXPM1_TWICE_SINGLE = (0.044587873, 0.13386941, 0.33333182, 0.6666616, 1.0, 1.0)
EXPM1_TWICE_DOUBLE = (
    2.571183542493648e-05, 0.00014144724356132966, 0.0007054654387878186, 0.0031745925443024594, 0.012698412727443995,
    0.04444444458402893, 0.13333333333314284, 0.3333333333325869, 0.6666666666666671, 1.000000000000001, 1.0,
)  # fmt: skip
# minimax of (tanh(a) - a) / a^3 in a^2 for a <= 0.95; relative error of tanh 2^-28.6 and 2^-58.2
TANH_SINGLE = (-0.00040148894, 0.0024326474, -0.008101865, 0.02157697, -0.05390606, 0.13332692, -0.3333331)
TANH_DOUBLE = (
    -7.958014726451363e-08, 7.706044381212424e-07, -3.778699103548511e-06, 1.3000676487249067e-05,
    -3.688671694890463e-05, 9.54433605752797e-05, -0.00023844999685835534, 0.000589794246478835,
    -0.001455775615067267, 0.003592117412463898, -0.008863234200824249, 0.02186948842728577,
    -0.053968253962914124, 0.13333333333319972, -0.33333333333333215,
)  # fmt: skip
# minimax of (sinh(a) - a) / a^3 in a^2 for a <= 1; relative error 2^-31.6 and 2^-61.8
SINH_SINGLE = (2.7822132e-06, 0.00019842896, 0.0083333105, 0.16666667)
SINH_DOUBLE = (
    7.776742839304756e-13, 1.6056656138827764e-10, 2.505213101919894e-08, 2.7557319106714088e-06,
    0.00019841269841593405, 0.008333333333332912, 0.16666666666666669,
)  # fmt: skip


class Reduced(NamedTuple):
    """x = n ln 2 + r, with p = expm1(r), and n (with z) as `Math.nearest` returns it."""

    p: str
    z: str
    n: str


def reduce(m: Math, x: str) -> Reduced:
    """For |x| < 150 (float) or 2000 (double)."""
    r, z, n = split_ln2(m, x)
    return Reduced(expm1_small(m, r), z, n)


def split_ln2(m: Math, x: str) -> tuple[str, str, str]:
    """(r, z, n): x = n ln 2 + r with |r| <= ln(2)/2, and z and n as `Math.nearest` returns them."""
    z, n = m.nearest(x, LOG2E)
    high, low = LN2_SINGLE if m.single else LN2_DOUBLE
    return m.fma(n, -low, m.fma(n, -high, x)), z, n


def expm1_small(m: Math, r: str) -> str:
    """expm1 for |r| <= ln(2)/2."""
    q = m.horner(r, m.pick(EXPM1_SINGLE, EXPM1_DOUBLE))
    return m.fma(m.mul(r, r), q, r)


def exp_small(m: Math, r: str) -> str:
    """exp for |r| <= ln(2)/2."""
    return m.horner(r, [*m.pick(EXPM1_SINGLE, EXPM1_DOUBLE), 1.0, 1.0])


def exp(m: Math, x: str) -> str:
    return exp_times(m, x, 0)


def exp_times(m: Math, x: str, shift: int) -> str:
    """exp(x) * 2^shift for |shift| <= 2, without an overflow before the product's own."""
    r, z, n = split_ln2(m, m.clamp(-106.0, x, 91.0) if m.single else m.clamp(-748.0, x, 712.0))
    return m.scale(exp_small(m, r), z, n, shift)


def exp2(m: Math, x: str) -> str:
    x = m.clamp(-153.0, x, 129.0) if m.single else m.clamp(-1078.0, x, 1025.0)
    z, n = m.nearest(x, 1.0)
    return m.scale(exp_small(m, m.mul(m.sub(x, n), LN2)), z, n)


def expm1(m: Math, x: str) -> str:
    return m.copysign(expm1_times(m, x, 0), x)


def expm1_times(m: Math, x: str, shift: int) -> str:
    """(exp(x) - 1) * 2^shift; for -0 the sign is lost."""
    r = reduce(m, m.clamp(-18.0, x, 91.0) if m.single else m.clamp(-38.0, x, 712.0))
    one_less = m.sub(1.0, m.inverse_pow2(r.z, r.n))
    return m.scale(m.add(r.p, one_less), r.z, r.n, shift, lost=False)


def tanh(m: Math, x: str) -> str:
    """An odd polynomial for a = |x| < 0.95; beyond, 1 - 1 / (1/2 + exp(2a)/2), whose quotient is so small that its errors are."""
    a = m.abs(x)
    square = m.mul(a, a)
    near = m.fma(m.mul(square, a), m.horner(square, m.pick(TANH_SINGLE, TANH_DOUBLE)), a)
    z, n = m.nearest(m.at_most(9.2 if m.single else 19.2, a), -2.0 * LOG2E)
    high, low = LN2_SINGLE if m.single else LN2_DOUBLE
    r = m.fma(n, low / 2.0, m.fma(n, high / 2.0, a))
    inverse_power = m.pow2(z, n)
    half_p = m.mul(r, m.horner(r, m.pick(EXPM1_TWICE_SINGLE, EXPM1_TWICE_DOUBLE)))
    denominator = m.add(m.fma(inverse_power, 0.5, 0.5), half_p)
    far = m.sub(1.0, m.div(inverse_power, denominator))
    return m.copysign(m.select(m.compare("olt", a, 0.95), near, far), x)


def sigmoid(m: Math, x: str) -> str:
    """1 / (1 + exp(a)) with a = |x| for negative x, or 1 minus that.

    The denominator is a sum of two and the quotient is corrected by its remainder, so that only the last operation rounds.
    c = 2^-24 or 2^-54, a factor on both sides, keeps the denominator finite while the quotient is still a denormal number.
    Where the result is 0, or 1 long since, a = 40 is computed instead, which makes no denormal numbers on the way.
    """
    shift = -24 if m.single else -54
    c = 2.0**shift
    zero = m.compare("olt", x, -104.0 if m.single else -746.0)
    a = m.select(zero, 40.0, m.abs(m.at_most(40.0, x)))
    r = reduce(m, a)
    power = m.pow2(r.z, r.n, shift)
    power_and_c = m.add(power, c)
    denominator = m.fma(power, r.p, power_and_c)
    lost = m.sub(c, m.sub(power_and_c, power))
    low = m.add(m.fma(power, r.p, m.sub(power_and_c, denominator)), lost)
    quotient = m.div(c, denominator)
    rest = m.fma(m.neg(quotient), low, m.fma(m.neg(quotient), denominator, c))
    y = m.fma(rest, m.mul(quotient, 1.0 / c), quotient)
    return m.select(m.compare("olt", x, 0.0), m.select(zero, 0.0, y), m.sub(1.0, y))


def cosh(m: Math, x: str) -> str:
    half = exp_times(m, m.abs(x), -1)
    return m.add(half, m.div(0.25, half))


def sinh(m: Math, x: str) -> str:
    """exp(a)/2 - exp(-a)/2 with a = |x|; an odd polynomial for a < 1."""
    a = m.abs(x)
    half = exp_times(m, a, -1)
    far = m.sub(half, m.div(0.25, half))
    square = m.mul(a, a)
    near = m.fma(m.mul(square, a), m.horner(square, m.pick(SINH_SINGLE, SINH_DOUBLE)), a)
    return m.copysign(m.select(m.compare("olt", a, 1.0), near, far), x)
