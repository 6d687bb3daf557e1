"""The gamma function, its logarithm, and the first two derivatives of that: the digamma and trigamma functions.

Arguments below 10 or 13 move by the recurrence to where a polynomial serves, above Stirling's series does; negative
ones are reflected.  float is correctly rounded but for rare ties; double is off by a few ULP, and near the zeros on the
negative axis by a few ULP of 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from tcc.codegen.math.core import Math
from tcc.codegen.math.exp import LN2, exp, exp_times
from tcc.codegen.math.log import log
from tcc.codegen.math.pow import log2_twice
from tcc.codegen.math.special import in_double
from tcc.codegen.math.trig import sin_cos

# minimax of log(gamma(2 + t)) / t on [-0.5, 1]; relative error 2^-55.2
LGAMMA = (
    -5.254417869253249e-09, 3.5005809377564504e-08, -1.0936266083511605e-07, 2.3501737287324316e-07,
    -4.582078315120426e-07, 9.450195211953424e-07, -2.030418996030358e-06, 4.376139063002682e-06,
    -9.44264921902883e-06, 2.0507501506024787e-05, -4.492563259721262e-05, 9.945739630142709e-05,
    -0.0002231548248705272, 0.0005096695403269853, -0.001192753907522524, 0.0028905103297796977,
    -0.007385551028813349, 0.020580808427809585, -0.06735230105319615, 0.32246703342411304, 0.42278433509846713,
)  # fmt: skip
# B_2k / (2k (2k - 1)) and B_2k / 2k for k = 8 ... 1: the series of gammaln and of psi in 1/x^2
STIRLING = (
    -3617 / 122400, 1 / 156, -691 / 360360, 1 / 1188, -1 / 1680, 1 / 1260, -1 / 360, 1 / 12,
)  # fmt: skip
DIGAMMA = (
    -3617 / 8160, 1 / 12, -691 / 32760, 1 / 132, -1 / 240, 1 / 252, -1 / 120, 1 / 12,
)  # fmt: skip
# minimax of psi(y) / (y - root) in y - 1.5 for y in [1, 2]; relative error 2^-53.5
PSI_ROOT = (1.4616321449683622, 9.549995429965697e-17)
PSI = (
    -0.00017656468477384493, 0.0002598515758003225, -0.0001469756573822383, 0.00022702511705693977,
    -0.00048473138460545715, 0.0007234369300863947, -0.0010368418259218285, 0.0015565993761805488,
    -0.0023454208393321988, 0.0035190121414856368, -0.005279946249713364, 0.007926944016627774,
    -0.011908219419969326, 0.017907252481501143, -0.02697579669123212, 0.04076083381080915, -0.06192213327469615,
    0.09498872445497253, -0.14840492305389005, 0.24054248424077398, -0.4236274212814606, 0.951055876031833,
)  # fmt: skip
# B_2k for k = 8 ... 1: the series of trigamma in 1/x^2
BERNOULLI = (-3617 / 510, 7 / 6, -691 / 2730, 5 / 66, -1 / 30, 1 / 42, -1 / 30, 1 / 6)
HALF_LOG_2PI = 0.9189385332046728


def _stirling(m: Math, x: str) -> str:
    """log(gamma(x)) - ((x - 1/2) log(x) - x + log(2 pi) / 2), for x >= 10."""
    inverse = m.div(1.0, x)
    return m.mul(m.horner(m.mul(inverse, inverse), STIRLING), inverse)


def _sin_pi(m: Math, x: str) -> tuple[str, str]:
    """(sin(pi x), cos(pi x)), each but for its sign, from the exact distance to the nearest integer."""
    r = m.sub(x, m.intrinsic("roundeven", x))
    size = m.abs(r)
    swapped = m.compare("ogt", size, 0.25)
    sine, cosine = sin_cos(m, m.mul(m.select(swapped, m.sub(0.5, size), size), math.pi))
    return m.select(swapped, cosine, sine), m.select(swapped, sine, cosine)


def _is_pole(m: Math, x: str) -> str:
    """Whether x is 0 or a negative integer."""
    return m.both(m.compare("ole", x, 0.0), m.compare("oeq", m.intrinsic("roundeven", x), x))


def _where_some(m: Math, cond: str, then: Callable[[], str], otherwise: str) -> str:
    """`then()` in the lanes where `cond` holds; not computed where none does, as is most likely."""
    made = m.rarely(m.any(cond), lambda: [m.select(cond, then(), otherwise)], [otherwise], [m.t])
    return made[0]


@in_double
def gammaln(m: Math, x: str) -> str:
    """log |gamma(x)|."""
    reflected = m.compare("olt", x, 0.0)
    positive = _gammaln_positive(m, m.select(reflected, m.sub(1.0, x), x))

    def mirrored() -> str:
        sine, _ = _sin_pi(m, x)
        y = m.sub(math.log(math.pi), m.add(log(m, sine), positive))
        return m.select(_is_pole(m, x), math.inf, y)

    y = _where_some(m, reflected, mirrored, positive)
    return m.select(m.compare("oeq", m.abs(x), math.inf), math.inf, y)


def _gammaln_positive(m: Math, x: str) -> str:
    # by a polynomial around 2; x < 1.5 from there by one or two steps of the recurrence, x in [3, 10) by up to seven; what these
    # divide or multiply by and, beyond 10, Stirling's series have one logarithm
    steps_two, steps_one = m.compare("olt", x, 0.5), m.compare("olt", x, 1.5)
    is_near = m.compare("olt", x, 10.0)
    y, product = _lower(m, x, 3.0, 7)
    t = m.sub(y, m.select(steps_two, 0.0, m.select(steps_one, 1.0, 2.0)))
    below = m.select(steps_two, m.mul(x, m.add(x, 1.0)), x)
    logarithm = log(m, m.select(steps_one, below, m.select(is_near, product, x)))
    near = m.fma(t, m.horner(t, LGAMMA), m.select(steps_one, m.neg(logarithm), logarithm))
    series = m.add(m.sub(_stirling(m, x), x), HALF_LOG_2PI)
    return m.select(is_near, near, m.fma(m.sub(x, 0.5), logarithm, series))


def _lower(m: Math, x: str, limit: float, steps: int) -> tuple[str, str]:
    """(y, p): y = x - k < `limit` for the smallest k <= steps, and p = (x - 1) (x - 2) ... (x - k)."""
    product = m.operand(1.0)
    for _ in range(steps):
        above = m.compare("oge", x, limit)
        x = m.select(above, m.sub(x, 1.0), x)
        product = m.select(above, m.mul(product, x), product)
    return x, product


@in_double
def gamma(m: Math, x: str) -> str:
    reflected = m.compare("olt", x, 0.5)
    positive = _gamma_positive(m, m.select(reflected, m.sub(1.0, x), x))

    def mirrored() -> str:
        sine, _ = _sin_pi(m, x)
        odd = m.mul(m.intrinsic("floor", x), 0.5)
        negative = m.compare("une", m.intrinsic("floor", odd), odd)
        y = m.div(m.div(math.pi, m.select(negative, m.neg(sine), sine)), positive)
        y = m.select(_is_pole(m, x), math.nan, y)
        y = m.select(m.compare("oeq", x, 0.0), m.copysign(math.inf, x), y)
        return m.select(m.compare("oeq", x, -math.inf), math.nan, y)

    y = _where_some(m, reflected, mirrored, positive)
    return m.select(m.compare("oeq", x, math.inf), x, y)


def _gamma_positive(m: Math, x: str) -> str:
    # x in [0.5, 13): gamma of y in [1.5, 2.5) times a product
    y, product = _lower(m, x, 2.5, 11)
    below = m.compare("olt", y, 1.5)
    t = m.sub(y, m.select(below, 1.0, 2.0))
    near = exp(m, m.mul(t, m.horner(t, LGAMMA)))
    near = m.div(m.mul(near, product), m.select(below, y, 1.0))

    def far() -> str:
        # x^(x - 1/2) e^-x sqrt(2 pi) e^series, the power as (2^(high + low))^2, so that only the result overflows
        large = m.at_most(180.0, m.at_least(13.0, x))
        high, low = log2_twice(m, large)
        half = m.mul(m.sub(large, 0.5), 0.5)
        power = m.mul(half, high)
        lost = m.fma(half, low, m.fma(half, high, m.neg(power)))
        z, n = m.nearest(power, 1.0)
        fraction = m.mul(m.add(m.sub(power, n), lost), LN2)
        root = m.scale(exp(m, fraction), z, n)
        series = exp(m, _stirling(m, large))
        rest = m.mul(exp_times(m, m.neg(large), 0), m.mul(series, math.sqrt(2.0 * math.pi)))
        return m.mul(m.mul(rest, root), root)

    return _where_some(m, m.compare("oge", x, 13.0), far, near)


@in_double
def psi(m: Math, x: str) -> str:
    """The digamma function; NaN at the negative poles, as SciPy."""
    reflected = m.compare("olt", x, 0.0)
    positive = _psi_positive(m, m.select(reflected, m.sub(1.0, x), x))

    def mirrored() -> str:
        sine, cosine = _sin_pi(m, x)
        ratio = m.div(m.mul(cosine, math.pi), sine)
        # pi / tan(pi x) has the sign of the distance to the nearest integer
        ratio = m.copysign(ratio, m.sub(x, m.intrinsic("roundeven", x)))
        return m.select(_is_pole(m, x), math.nan, m.sub(positive, ratio))

    result = _where_some(m, reflected, mirrored, positive)
    return m.select(m.compare("oeq", x, 0.0), m.copysign(math.inf, m.neg(x)), result)


def _psi_positive(m: Math, x: str) -> str:
    # (y - root) times a polynomial for y in [1, 2), to which x < 10 comes by the recurrence
    below = m.compare("olt", x, 1.0)
    y, total = m.select(below, m.add(x, 1.0), x), m.select(below, m.div(-1.0, x), 0.0)
    for _ in range(8):
        above = m.compare("oge", y, 2.0)
        y = m.select(above, m.sub(y, 1.0), y)
        total = m.select(above, m.add(total, m.div(1.0, y)), total)
    distance = m.sub(m.sub(y, PSI_ROOT[0]), PSI_ROOT[1])
    near = m.fma(distance, m.horner(m.sub(y, 1.5), PSI), total)
    inverse = m.div(1.0, x)
    square = m.mul(inverse, inverse)
    series = m.fma(m.horner(square, DIGAMMA), square, m.mul(inverse, 0.5))
    return m.select(m.compare("olt", x, 10.0), near, m.sub(log(m, x), series))


@in_double
def trigamma(m: Math, x: str) -> str:
    """The derivative of psi; inf at its poles."""
    reflected = m.compare("olt", x, 0.0)
    positive = _trigamma_positive(m, m.select(reflected, m.sub(1.0, x), x))

    def mirrored() -> str:
        sine, _ = _sin_pi(m, x)
        ratio = m.div(math.pi, sine)
        return m.fma(ratio, ratio, m.neg(positive))

    result = _where_some(m, reflected, mirrored, positive)
    return m.select(_is_pole(m, x), math.inf, result)


def _trigamma_positive(m: Math, x: str) -> str:
    # 1/x^2 for x < 1, which may be infinite, apart; then by trigamma(y) = 1/y^2 + trigamma(y + 1), as one quotient, to y >= 10
    below = m.compare("olt", x, 1.0)
    y = m.select(below, m.add(x, 1.0), x)
    total, denominator = m.operand(0.0), m.operand(1.0)
    for _ in range(9):
        near = m.compare("olt", y, 10.0)
        square = m.mul(y, y)
        total = m.select(near, m.fma(total, square, denominator), total)
        denominator = m.select(near, m.mul(denominator, square), denominator)
        y = m.select(near, m.add(y, 1.0), y)
    inverse = m.div(1.0, y)
    square = m.mul(inverse, inverse)
    series = m.mul(inverse, m.fma(m.horner(square, BERNOULLI), square, m.mul(inverse, 0.5)))
    far = m.add(inverse, series)
    first = m.div(1.0, m.select(below, x, math.inf))
    return m.fma(first, first, m.add(m.div(total, denominator), far))
