"""exp and its relatives.

All start from exp(x) = 2^n (1 + p) with n = round(x / ln 2) and p = expm1(x - n ln 2), |x - n ln 2| <= ln(2)/2.
Keeping p apart from the 1 lets expm1, sigmoid and tanh add their own 1 without cancellation: 2^n p + (2^n - 1).
"""

from __future__ import annotations

from typing import NamedTuple

from tcc.codegen.math_core import Math

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

# 2^f on [0, 1] for tanh's far branch: the error of float is spread so that it is 2^-25.4 there, double's is 2^-58.0
EXP2_SINGLE = (0.0018758724, 0.00899567, 0.055818796, 0.24015704, 0.69315255, 0.99999994)
EXP2_DOUBLE = (
    6.27092793677316e-10, 6.555688246066803e-09, 1.0254062011124419e-07, 1.320826172438819e-06,
    1.5253183142366687e-05, 0.0001540351191520562, 0.0013333558641779215, 0.009618129099318803,
    0.055504108665627334, 0.24022650695906198, 0.693147180559946, 1.0,
)  # fmt: skip
# minimax of (tanh(a) - a) / a^3 in a^2 for a < 0.625; 2^-27.7.  The rational one is Cephes' tanh.c
TANH_SINGLE = (-0.0056924173, 0.0206282, -0.053736515, 0.13331406, -0.3333328)
TANH_NUMERATOR = (-0.964399179425052238628, -99.2877231001918586564, -1614.68768441708447952)
TANH_DENOMINATOR = (1.0, 112.811678491632931402, 2235.48839060100448583, 4844.06305325125486048)
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


def exp(m: Math, x: str) -> str:
    return exp_times(m, x, 0)


def exp_times(m: Math, x: str, shift: int) -> str:
    """exp(x) * 2^shift for |shift| <= 2, without an overflow before the product's own."""
    r = reduce(m, m.clamp(-106.0, x, 91.0) if m.single else m.clamp(-748.0, x, 712.0))
    return m.scale(m.add(r.p, 1.0), r.z, r.n, shift)


def exp2(m: Math, x: str) -> str:
    x = m.clamp(-151.0, x, 129.0) if m.single else m.clamp(-1076.0, x, 1025.0)
    z, n = m.nearest(x, 1.0)
    p = expm1_small(m, m.mul(m.sub(x, n), LN2))
    return m.scale(m.add(p, 1.0), z, n)


def expm1(m: Math, x: str) -> str:
    return m.copysign(expm1_times(m, x, 0), x)


def expm1_times(m: Math, x: str, shift: int) -> str:
    """(exp(x) - 1) * 2^shift; for -0 the sign is lost."""
    r = reduce(m, m.clamp(-18.0, x, 91.0) if m.single else m.clamp(-38.0, x, 712.0))
    one_less = m.sub(1.0, m.inverse_pow2(r.z, r.n))
    return m.scale(m.add(r.p, one_less), r.z, r.n, shift)


def tanh(m: Math, x: str) -> str:
    """1 - 2 / (exp(2a) + 1) with a = |x|; near 0 an odd polynomial (float) or rational function (double)."""
    a = m.abs(x)
    small = m.compare("olt", a, 0.625)
    fraction, by_power = m.split_fraction(m.mul(a, 2 * LOG2E))
    denominator = m.add(by_power(m.horner(fraction, m.pick(EXP2_SINGLE, EXP2_DOUBLE))), 1.0)
    square = m.mul(a, a)
    if m.single:
        near = m.fma(m.mul(square, a), m.horner(square, TANH_SINGLE), a)
        far = m.sub(1.0, m.div(2.0, denominator))
        return m.copysign(m.select(small, near, far), x)
    numerator = m.mul(m.mul(square, a), m.horner(square, TANH_NUMERATOR))
    ratio = m.div(
        m.select(small, numerator, -2.0),
        m.select(small, m.horner(square, TANH_DENOMINATOR), denominator),
    )
    return m.copysign(m.add(m.select(small, a, 1.0), ratio), x)


def sigmoid(m: Math, x: str) -> str:
    """c / (c + c exp(-x)), where c keeps the denominator finite while the quotient is still a denormal number."""
    shift = -24 if m.single else -54
    c = 2.0**shift
    x = m.clamp(-104.0, x, 40.0) if m.single else m.clamp(-746.0, x, 80.0)
    r = reduce(m, m.neg(x))
    power = m.pow2(r.z, r.n, shift)
    smaller = m.fma(power, r.p, m.at_most(c, power))
    return m.div(c, m.add(smaller, m.at_least(c, power)))


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
