"""Logarithms, and what is made of them.

x = 2^k m with m in [0.75, 1.5); log(m) is f + w with f = m - 1 exact and w of the order of f^2, so that only the last
addition rounds at the size of the result.
"""

from __future__ import annotations

import math

from tcc.codegen.math.core import Math
from tcc.codegen.math.exp import exp

# minimax of (log(1 + f) - f) / f^2 on [-0.25, 0.5], highest power first; relative error 2^-27.4
LOG_SINGLE = (
    -0.044530824, 0.10409005, -0.13153422, 0.14484137, -0.16648537, 0.1999068, -0.25000066, 0.3333345, -0.5,
)  # fmt: skip
# minimax of (2 atanh(s) - 2 s) / s^3 in s^2 for |s| <= 0.2; relative error 2^-55.9
ATANH_DOUBLE = (
    0.15369517281046255, 0.1525002525782603, 0.1818636382162909, 0.22222138324165655, 0.2857142939727605,
    0.3999999999615207, 0.6666666666667272,
)  # fmt: skip

Pair = tuple[float, float]  # (high, low): a constant to twice the precision
# The low part is positive, so that k = -inf and inf make no NaN.
LN2_SINGLE, LN2_DOUBLE = (
    (0.693145751953125, 1.428606765330187e-06),
    (0.693147180559663, 2.8235290563031577e-13),
)
LOG2E_SINGLE, LOG2E_DOUBLE = (
    (1.4426950216293335, 1.925963033500011e-08),
    (1.4426950408889634, 2.0355273740931033e-17),
)
LOG10E_SINGLE, LOG10E_DOUBLE = (
    (0.4342944920063019, -1.0103049952192578e-08),
    (0.4342944819032518, 1.098319650216765e-17),
)
LOG10_2_SINGLE, LOG10_2_DOUBLE = (
    (0.301025390625, 4.605039066518657e-06),
    (0.30102999566383914, 1.42050232272661e-13),
)


def log(m: Math, x: str) -> str:
    mantissa, k = m.split_exponent(x)
    return m.log_edges(x, natural(m, m.sub(mantissa, 1.0), k))


def natural(m: Math, f: str, k: str, small: str | None = None, tiny: str | None = None) -> str:
    """log(1 + f) + k ln 2 for f in [-0.25, 0.5]; plus `small`, of the order of f's last bit.

    Where `tiny` holds, the square of f is nothing beside it, and denormal squares take Intel's CPUs a hundred cycles.
    """
    high, low = LN2_SINGLE if m.single else LN2_DOUBLE
    w = m.fma(k, low, beyond(m, f if tiny is None else m.select(tiny, 0.0, f)))
    if small is not None:
        w = m.add(w, small)
    return m.fma(k, high, m.add(f, w))


def beyond(m: Math, f: str) -> str:
    """log(1 + f) - f for f in [-0.25, 0.5]."""
    if m.single:
        return m.mul(m.mul(f, f), m.horner(f, LOG_SINGLE))
    s = m.div(f, m.add(f, 2.0))
    z = m.mul(s, s)
    r = m.mul(z, m.horner(z, ATANH_DOUBLE))
    return m.mul(s, m.sub(r, f))


def log_based(m: Math, x: str, scale: Pair, unit: Pair) -> str:
    """log(x) * scale; unit is ln 2 * scale."""
    mantissa, k = m.split_exponent(x)
    f = m.sub(mantissa, 1.0)
    w = m.fma(f, scale[1], m.mul(beyond(m, f), scale[0]))
    if unit[1]:
        w = m.fma(k, unit[1], w)
    return m.log_edges(x, m.fma(k, unit[0], m.fma(f, scale[0], w)))


def log2(m: Math, x: str) -> str:
    return log_based(m, x, LOG2E_SINGLE if m.single else LOG2E_DOUBLE, (1.0, 0.0))


def log10(m: Math, x: str) -> str:
    if m.single:
        return log_based(m, x, LOG10E_SINGLE, LOG10_2_SINGLE)
    return log_based(m, x, LOG10E_DOUBLE, LOG10_2_DOUBLE)


def log1p(m: Math, x: str) -> str:
    """1 + x = 2^k (1 + f) gives f = 2^-k x + (2^-k - 1), without the rounding of 1 + x."""
    return log1p_sum(m, x, None)


def log1p_sum(m: Math, x: str, low: str | None) -> str:
    """log(1 + x + low), where `low` is what a sum rounded to x has lost."""
    _, k = m.split_exponent(m.add(x, 1.0))
    # four times f, since 2^-k alone may be a denormal number
    four = m.power(m.sub(2.0, k))
    f = m.mul(m.fma(x, four, m.sub(four, 4.0)), 0.25)
    y = natural(m, f, k, None if low is None else m.mul(m.mul(low, four), 0.25))
    y = m.select(m.compare("olt", x, math.inf), m.copysign(y, x), x)
    y = m.select(m.compare("oeq", x, -1.0), -math.inf, y)
    return y if m.native else m.select(m.compare("olt", x, -1.0), math.nan, y)


def softplus(m: Math, x: str) -> str:
    """max(x, 0) + log1p(exp(-|x|)); beyond 40 the second part is lost, and is not computed to be a denormal number."""
    e = exp(m, m.neg(m.abs(m.at_most(40.0, x))))
    large = m.compare("ogt", e, 0.5)
    f = m.select(large, m.fma(e, 0.5, -0.5), e)
    y = natural(m, f, m.select(large, 1.0, 0.0), tiny=m.compare("olt", e, 2.0**-60))
    return m.add(m.at_least(0.0, x), y)


def log_sigmoid(m: Math, x: str) -> str:
    return m.neg(softplus(m, m.neg(x)))


def asinh(m: Math, x: str) -> str:
    """log1p(a + a^2 / (1 + sqrt(a^2 + 1))) with a = |x|; log(2a) when a^2 could overflow."""
    a = m.abs(x)
    square = m.mul(a, a)
    near = m.add(a, m.div(square, m.add(m.sqrt(m.add(square, 1.0)), 1.0)))
    return m.copysign(log1p_or_double(m, near, None, a), x)


def acosh(m: Math, x: str) -> str:
    """log1p(t + sqrt(t^2 + 2t)) with t = x - 1; log(2x) when t^2 could overflow."""
    t = m.sub(x, 1.0)
    near, low = m.quick_two_sum(m.sqrt(m.fma(t, t, m.add(t, t))), t)
    y = log1p_or_double(m, near, low, x)
    return m.select(m.compare("olt", x, 1.0), math.nan, y)


def log1p_or_double(m: Math, near: str, low: str | None, x: str) -> str:
    """log(2x) where x is so large that 1 + x is x, else log(1 + near + low)."""
    large = m.compare("ogt", x, 2.0**30 if m.single else 2.0**60)
    if low is not None:
        low = m.select(large, 0.0, low)
    y = log1p_sum(m, m.select(large, x, near), low)
    return m.select(large, m.add(y, math.log(2.0)), y)


def atanh(m: Math, x: str) -> str:
    """log1p(2a / (1 - a)) / 2 with a = |x|."""
    a = m.abs(x)
    d = m.sub(1.0, a)
    d_low = m.sub(m.sub(1.0, d), a)
    inverse, twice = m.div(1.0, d), m.add(a, a)
    q = m.mul(twice, inverse)
    low = m.mul(m.fma(m.neg(q), d_low, m.fma(m.neg(q), d, twice)), inverse)
    y = log1p_sum(m, q, low)
    return m.copysign(m.mul(y, 0.5), x)
