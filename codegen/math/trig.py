"""Trigonometric functions and their inverses.

sin, cos and tan subtract n pi/2 in three parts (Cody and Waite) with fma, which is exact enough for |x| < 2^17 (float)
or 2^28 (double); larger arguments branch to an exact reduction (see math_pi).
"""

from __future__ import annotations

import math

from tcc.codegen.math.core import Math
from tcc.codegen.math.pi import reduce_huge

# Rounded down, so that all parts are positive and -0 stays -0.
HALF_PI_SINGLE = (1.570796251296997, 7.549789415861596e-08, 5.390302529957765e-15)
HALF_PI_DOUBLE = (1.5707963267948966, 6.123233995736765e-17, 1.0828566739219139e-32)
# minimax of (sin(r) - r) / r^3 and (cos(r) - 1 + r^2/2) / r^4 in r^2 for |r| <= pi/4
SIN_SINGLE = (-0.0001951807, 0.008332188, -0.16666655)
SIN_DOUBLE = (
    1.5895431648385293e-10, -2.5050734369704012e-08, 2.755731353844094e-06, -0.0001984126982935844,
    0.00833333333332184, -0.1666666666666663,
)  # fmt: skip
COS_SINGLE = (2.443234e-05, -0.001388731, 0.041666646)
COS_DOUBLE = (
    -1.135861674224648e-11, 2.0875703135589967e-09, -2.755731420306001e-07, 2.48015872889652e-05,
    -0.0013888888888873307, 0.041666666666666595,
)  # fmt: skip
# minimax of (asin(a) - a) / a^3 in a^2 for a <= 1/2; relative error 2^-27.6 and 2^-55.9
ASIN_SINGLE = (0.04215826, 0.02418479, 0.04546915, 0.074953094, 0.16666752)
ASIN_DOUBLE = (
    0.03191152474782018, -0.016223422566600417, 0.01952791459737014, 0.006528032401357764,
    0.012169216225963994, 0.013885231851122783, 0.01735970544285641, 0.022371757983814747,
    0.030381959140626823, 0.044642856828221944, 0.07500000000337151, 0.16666666666665408,
)  # fmt: skip
# minimax of (atan(t) - t) / t^3 in t^2, for t <= 1 (float, 2^-28.4) and t <= tan(pi/8) (double, 2^-59.3)
ATAN_SINGLE = (
    -0.0017847696, 0.010874474, -0.03110327, 0.057884347, -0.083993584, 0.10950881, -0.14264016, 0.1999853, -0.333333,
)  # fmt: skip
ATAN_DOUBLE = (
    -0.017868293983340763, 0.038029126853154877, -0.05037914492263946, 0.058475818367904116, -0.0666306194588894,
    0.07692056524482617, -0.09090897551028693, 0.11111110776300663, -0.142857142800541, 0.19999999999952184,
    -0.3333333333333319,
)  # fmt: skip


def reduce(m: Math, x: str) -> tuple[str, str]:
    """(r, q): x = r + q pi/2 with |r| <= pi/4; of the integer q the two low bits count.  NaN for infinite x."""
    z, n = m.nearest(x, 2.0 / math.pi)
    r = x
    for part in half_pi(m):
        r = m.fma(n, -part, r)
    q, huge = m.to_bits(z), is_huge(m, x)

    def with_huge() -> list[str]:
        exact_r, _, exact_q = reduce_huge(m, x)
        return [m.select(huge, exact_r, r), m.int_select(huge, exact_q, q)]

    r, q = m.rarely(m.any(huge), with_huge, (r, q), (m.t, m.integer))
    return r, q


def reduce_twice(m: Math, x: str) -> tuple[str, str, str]:
    """(r, low, q): as `reduce`, with low what r lacks."""
    first, second, third = half_pi(m)
    z, n = m.nearest(x, 2.0 / math.pi)
    exact = m.fma(n, -first, x)
    product = m.mul(n, second)
    s, lost = m.two_sum(exact, m.neg(product))
    low = m.fma(n, -third, m.sub(lost, m.fma(n, second, m.neg(product))))
    r = m.add(s, low)
    low = m.sub(low, m.sub(r, s))
    q, huge = m.to_bits(z), is_huge(m, x)

    def with_huge() -> list[str]:
        exact_r, exact_low, exact_q = reduce_huge(m, x)
        return [m.select(huge, exact_r, r), m.select(huge, exact_low, low), m.int_select(huge, exact_q, q)]

    r, low, q = m.rarely(m.any(huge), with_huge, (r, low, q), (m.t, m.t, m.integer))
    return r, low, q


def half_pi(m: Math) -> tuple[float, float, float]:
    return HALF_PI_SINGLE if m.single else HALF_PI_DOUBLE


def is_huge(m: Math, x: str) -> str:
    """Whether three parts of pi/2 are too few."""
    return m.compare("ogt", m.abs(x), 2.0**17 if m.single else 2.0**28)


def sin_cos(m: Math, r: str) -> tuple[str, str]:
    """For |r| <= pi/4."""
    square = m.mul(r, r)
    sine = m.copysign(m.add(r, sin_beyond(m, r, square)), r)
    return sine, m.fma(square, cos_beyond(m, square), m.fma(square, -0.5, 1.0))


def sin_beyond(m: Math, r: str, square: str) -> str:
    """sin(r) - r."""
    return m.mul(m.mul(square, m.horner(square, m.pick(SIN_SINGLE, SIN_DOUBLE))), r)


def cos_beyond(m: Math, square: str) -> str:
    """(cos(r) - 1) / r^2 + 1/2."""
    return m.mul(square, m.horner(square, m.pick(COS_SINGLE, COS_DOUBLE)))


def odd(m: Math, q: str) -> str:
    """Whether the integer q is odd."""
    return m.int_compare("ne", m.int_op("and", q, 1), 0)


def sin(m: Math, x: str) -> str:
    r, q = reduce(m, x)
    return _quadrant(m, r, q)


def cos(m: Math, x: str) -> str:
    r, q = reduce(m, x)
    return _quadrant(m, r, m.int_op("add", q, 1))


def _quadrant(m: Math, r: str, q: str) -> str:
    """sin(r + q pi/2)."""
    sine, cosine = sin_cos(m, r)
    return m.flip_sign(m.select(odd(m, q), cosine, sine), m.int_op("lshr", q, 1))


def tan(m: Math, x: str) -> str:
    """sin / cos or -cos / sin, both with what their last addition loses, since a quotient adds up the errors."""
    r, low, q = reduce_twice(m, x)
    square = m.mul(r, r)
    half = m.fma(square, -0.5, 1.0)
    beyond = m.fma(low, half, sin_beyond(m, r, square))
    sine = m.add(r, beyond)
    sine_low = m.sub(beyond, m.sub(sine, r))
    lost = m.fma(square, -0.5, m.sub(1.0, half))
    beyond = m.fma(m.neg(r), low, m.fma(square, cos_beyond(m, square), lost))
    cosine = m.add(half, beyond)
    cosine_low = m.sub(beyond, m.sub(cosine, half))
    turned = odd(m, q)
    n, n_low = m.select(turned, cosine, sine), m.select(turned, cosine_low, sine_low)
    d, d_low = m.select(turned, sine, cosine), m.select(turned, sine_low, cosine_low)
    inverse = m.div(1.0, d)
    ratio = m.mul(n, inverse)
    rest = m.add(m.fma(m.neg(ratio), d, n), m.fma(m.neg(ratio), d_low, n_low))
    y = m.flip_sign(m.fma(rest, inverse, ratio), q)
    return m.select(m.compare("oeq", x, 0.0), x, y)


def _asin_beyond(m: Math, a: str, square: str) -> str:
    """asin(a) - a for |a| <= 1/2."""
    return m.mul(m.mul(square, m.horner(square, m.pick(ASIN_SINGLE, ASIN_DOUBLE))), a)


def asin(m: Math, x: str) -> str:
    """pi/2 - 2 asin(sqrt((1 - a) / 2)) for a = |x| > 1/2."""
    a = m.abs(x)
    large = m.compare("ogt", a, 0.5)
    half = m.fma(a, -0.5, 0.5)
    square = m.select(large, half, m.mul(a, a))
    root = m.select(large, m.sqrt(half), a)
    beyond = _asin_beyond(m, root, square)
    high, low = pi_over(m, 2)
    near = m.fma(root, -2.0, high)
    lost = m.fma(root, -2.0, m.sub(high, near))
    turned = m.add(near, m.fma(beyond, -2.0, m.add(lost, low)))
    return m.copysign(m.select(large, turned, m.add(root, beyond)), x)


def acos(m: Math, x: str) -> str:
    """2 asin(sqrt((1 - x) / 2)) for large x, pi minus that of -x for large negative x, pi/2 - asin(x) between."""
    a = m.abs(x)
    large, negative = m.compare("ogt", a, 0.5), m.compare("olt", x, 0.0)
    half = m.fma(a, -0.5, 0.5)
    square = m.select(large, half, m.mul(x, x))
    root = m.select(large, m.sqrt(half), x)
    y = m.add(root, _asin_beyond(m, root, square))
    twice = m.add(y, y)
    high, low = pi_over(m, 1)
    far = m.select(negative, m.add(m.sub(low, twice), high), twice)
    high, low = pi_over(m, 2)
    return m.select(large, far, m.add(m.sub(low, y), high))


def pi_over(m: Math, divisor: int) -> tuple[float, float]:
    """pi / 1, 2 or 4 in two parts."""
    high, low = HALF_PI_SINGLE[:2] if m.single else HALF_PI_DOUBLE[:2]
    return 2.0 * high / divisor, 2.0 * low / divisor


def atan_ratio(m: Math, n: str, d: str) -> str:
    """atan(n / d) for 0 <= n <= d."""
    if m.single:
        t = m.div(n, d)
        square = m.mul(t, t)
        return m.fma(m.mul(square, t), m.horner(square, ATAN_SINGLE), t)
    # atan(n/d) = pi/4 + atan((n - d) / (n + d))
    large = m.compare("ogt", n, m.mul(d, math.tan(math.pi / 8)))
    t = m.div(m.select(large, m.sub(n, d), n), m.select(large, m.add(n, d), d))
    square = m.mul(t, t)
    rest = m.mul(m.mul(square, t), m.horner(square, ATAN_DOUBLE))
    high, low = pi_over(m, 4)
    return m.add(m.select(large, high, 0.0), m.add(t, m.add(rest, m.select(large, low, 0.0))))


def atan(m: Math, x: str) -> str:
    a = m.abs(x)
    large = m.compare("ogt", a, 1.0)
    y = atan_ratio(m, m.select(large, 1.0, a), m.select(large, a, 1.0))
    high, low = pi_over(m, 2)
    return m.copysign(m.select(large, m.add(m.sub(low, y), high), y), x)


def atan2(m: Math, y: str, x: str) -> str:
    """The angle of the point (x, y) in [-pi, pi]; signed zeros and infinities as in C."""
    a, b = m.abs(y), m.abs(x)
    n, d = m.at_most(a, b), m.at_least(a, b)
    # 0/0 counts as 0, inf/inf as 1
    equal = m.compare("oeq", n, d)
    one_or_zero = m.select(m.compare("oeq", d, 0.0), 0.0, 1.0)
    angle = atan_ratio(m, m.select(equal, one_or_zero, n), m.select(equal, 1.0, d))
    for turned, divisor in ((m.compare("ogt", a, b), 2), (m.int_compare("slt", m.to_bits(x), 0), 1)):
        high, low = pi_over(m, divisor)
        angle = m.select(turned, m.add(m.sub(low, angle), high), angle)
    return m.select(m.compare("uno", x, y), math.nan, m.copysign(angle, y))
