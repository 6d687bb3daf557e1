"""pow: exp2(y log2(x)), with the logarithm to more than the precision of the result.

float computes in double; double computes the logarithm as an unevaluated sum of two (Dekker), to some 2^-64.
"""

from __future__ import annotations

import math

from tcc.codegen.math.core import Math
from tcc.codegen.math.exp import LN2, exp_small

# minimax of log2((1 + s) / (1 - s)) / s in s^2 for |s| <= 0.2, relative error 2^-35.5; of 2^f for |f| <= 1/2, 2^-29.0
LOG2_SHORT = (
    0.348400702483882,
    0.41120594136732447,
    0.5770923480503133,
    0.9617966217761535,
    2.8853900818358835,
)
EXP2_SHORT = (
    0.00015345790054086455, 0.0013399933853358139, 0.009618489181959069, 0.05550328772561686, 0.2402264688807274,
    0.6931472057404734, 1.0000000005542222,
)  # fmt: skip
# minimax of (atanh(s) - s - s^3/3) / s^5 in s^2 for |s| <= 0.2; relative to atanh(s) the error is 2^-69
ATANH_BEYOND = (
    0.06286063104320283, 0.057961277301131, 0.06670575337346717, 0.0769220322754572, 0.09090910764710267,
    0.11111111095608345, 0.14285714285788717, 0.19999999999999862,
)  # fmt: skip
THIRD = (0.3333333333333333, 1.850371707708594e-17)
TWO_OVER_LN2 = (2.8853900817779268, 4.0710547481862066e-17)


def pow(m: Math, x: str, y: str) -> str:
    largest = 2.0 ** (m.bias - 23)  # any more gives the same as inf, but 0 times it is 0: 1 to any power
    bounded = m.clamp(-largest, y, largest)
    magnitude = _pow_single(m, m.abs(x), bounded) if m.single else _pow_double(m, m.abs(x), bounded)
    whole = m.compare("oeq", m.intrinsic("roundeven", y), y)
    half = m.mul(y, 0.5)
    odd = m.both(whole, m.compare("une", m.intrinsic("roundeven", half), half))
    signed = m.select(odd, m.copysign(magnitude, x), magnitude)
    finite_negative = m.both(m.compare("olt", x, 0.0), m.compare("ogt", x, -math.inf))
    undefined = m.both(finite_negative, m.compare("one", m.intrinsic("roundeven", y), y))
    undefined = m.either(undefined, m.compare("uno", x, y))
    one = m.either(m.compare("oeq", x, 1.0), m.compare("oeq", y, 0.0))
    return m.select(one, 1.0, m.select(undefined, math.nan, signed))


def _pow_single(m: Math, x: str, y: str) -> str:
    """x^y for x >= 0 and finite y != 0."""
    d = Math(m.e, m.t.of("double"), m.target)
    wide, exponent = (m.e.value(f"fpext {m.t} {v} to {d.t}") for v in (x, y))
    mantissa, k = d.split_exponent(wide)
    f = d.sub(mantissa, 1.0)
    s = d.div(f, d.add(f, 2.0))
    log = d.fma(s, d.horner(d.mul(s, s), LOG2_SHORT), k)
    log = d.log_edges(wide, log)
    power = d.clamp(-160.0, d.mul(exponent, log), 130.0)
    z, n = d.nearest(power, 1.0)
    result = d.mul(d.horner(d.sub(power, n), EXP2_SHORT), d.pow2(z, n))
    return m.e.value(f"fptrunc {d.t} {result} to {m.t}")


def _pow_double(m: Math, x: str, y: str) -> str:
    """x^y for x >= 0 and finite y != 0."""
    high, low = log2_twice(m, x)
    high = m.select(m.compare("oeq", x, 0.0), -math.inf, m.select(m.compare("oeq", x, math.inf), x, high))
    power = m.mul(y, high)
    lost = m.fma(y, high, m.neg(power))
    lost = m.fma(y, low, lost)
    inside = m.compare("olt", m.abs(power), 1100.0)
    lost = m.select(inside, lost, 0.0)
    power = m.clamp(-1100.0, power, 1100.0)
    z, n = m.nearest(power, 1.0)
    fraction = m.add(m.sub(power, n), lost)
    return m.scale(exp_small(m, m.mul(fraction, LN2)), z, n)


def log2_twice(m: Math, x: str) -> tuple[str, str]:
    """log2(x) for positive finite x as a sum of two doubles: k + 2/ln 2 (s + s z (1/3 + z Q(z))), z = s^2."""
    mantissa, k = m.split_exponent(x)
    large = m.compare("ogt", mantissa, math.sqrt(2.0))
    mantissa = m.select(large, m.mul(mantissa, 0.5), mantissa)
    k = m.select(large, m.add(k, 1.0), k)
    f = m.sub(mantissa, 1.0)
    d, d_low = m.quick_two_sum(m.operand(1.0), mantissa)
    inverse = m.div(1.0, d)
    s = m.mul(f, inverse)
    s_low = m.mul(m.fma(m.neg(s), d_low, m.fma(m.neg(s), d, f)), inverse)

    z, z_low = m.two_product(s, s)
    z_low = m.fma(m.add(s, s), s_low, z_low)
    third, third_low = m.two_product(z, THIRD[0])
    third_low = m.fma(z_low, THIRD[0], m.fma(z, THIRD[1], third_low))
    u, u_low = m.quick_two_sum(third, m.mul(m.mul(z, z), m.horner(z, ATANH_BEYOND)))
    u_low = m.add(u_low, third_low)

    v, v_low = m.two_product(s, u)
    v_low = m.fma(s, u_low, m.fma(s_low, u, v_low))
    a, a_low = m.quick_two_sum(s, v)
    a_low = m.add(a_low, m.add(v_low, s_low))
    p, p_low = m.two_product(a, TWO_OVER_LN2[0])
    p_low = m.fma(a_low, TWO_OVER_LN2[0], m.fma(a, TWO_OVER_LN2[1], p_low))
    high, low = m.quick_two_sum(k, p)
    return m.quick_two_sum(high, m.add(low, p_low))
