"""Rounding, remainders, extremes and signs: exact operations on floats, with NumPy's rules."""

from __future__ import annotations

import math

from tcc.codegen.math.core import Math


def floor(m: Math, x: str) -> str:
    return m.intrinsic("floor", x)


def ceil(m: Math, x: str) -> str:
    return m.intrinsic("ceil", x)


def trunc(m: Math, x: str) -> str:
    return m.intrinsic("trunc", x)


def rint(m: Math, x: str) -> str:
    """To the nearest integer, halves to the even one."""
    return m.intrinsic("roundeven", x)


def round_half_away(m: Math, x: str) -> str:
    """trunc(x + c), where c is the number just below 1/2, so that 0.49999997 stays below 1."""
    below_half = 0.5 - 2.0 ** -(m.mantissa + 2)
    return m.copysign(m.intrinsic("trunc", m.add(x, m.copysign(below_half, x))), x)


def sqrt(m: Math, x: str) -> str:
    return m.sqrt(x)


def rsqrt(m: Math, x: str) -> str:
    return m.div(1.0, m.sqrt(x))


def absolute(m: Math, x: str) -> str:
    return m.abs(x)


def sign(m: Math, x: str) -> str:
    """-1, 0 or 1; NaN stays."""
    negative = m.select(m.compare("olt", x, 0.0), -1.0, m.add(x, 0.0))
    return m.select(m.compare("ogt", x, 0.0), 1.0, negative)


def copysign(m: Math, x: str, y: str) -> str:
    return m.copysign(x, y)


def minimum(m: Math, a: str, b: str) -> str:
    """NaN if either is."""
    return m.select(m.compare("uno", a, a), a, m.at_most(a, b))


def maximum(m: Math, a: str, b: str) -> str:
    """NaN if either is."""
    return m.select(m.compare("uno", a, a), a, m.at_least(a, b))


def fma(m: Math, a: str, b: str, c: str) -> str:
    return m.fma(a, b, c)


def fmod(m: Math, a: str, b: str) -> str:
    """The remainder with the sign of `a`, exactly, as C's fmod."""
    divisor = m.select(m.compare("oeq", b, 0.0), math.nan, m.abs(b))
    first = m.abs(a)
    huge = m.compare("oeq", m.div(first, divisor), math.inf)
    (rest,) = m.rarely(m.any(huge), lambda: [_huge_remainder(m, first, divisor, huge)], [first], [m.t])
    rest = _remainder(m, rest, divisor)
    rest = m.select(m.compare("olt", rest, 0.0), m.add(rest, divisor), rest)
    whole = m.both(m.compare("oeq", divisor, math.inf), m.compare("olt", m.abs(a), math.inf))
    return m.copysign(m.select(whole, a, rest), a)


def _huge_remainder(m: Math, a: str, divisor: str, huge: str) -> str:
    """Two multiples of the divisor go first, so that no quotient is infinite."""
    large = m.select(huge, m.mul(divisor, 2.0 ** (m.bias - 1)), divisor)
    larger = m.select(huge, m.mul(large, 2.0**64), divisor)
    larger = m.select(m.compare("oeq", larger, math.inf), large, larger)
    return _remainder(m, _remainder(m, a, larger), large)


def _remainder(m: Math, a: str, divisor: str) -> str:
    """r with |r| < divisor that differs from `a` by a whole multiple of it.

    A round of r -= trunc(r / divisor) divisor is exact; where the quotient has more bits than the mantissa, |r| is not
    yet small enough and another round follows.
    """
    e, rest = m.e, m.e.fresh("r")
    before, loop, after = e.current, e.label(), e.label()
    e.branch(loop)
    e.at(loop)
    slot = len(e.lines)
    e.lines.append("")
    quotient = m.intrinsic("trunc", m.div(rest, divisor))
    left = m.fma(m.neg(quotient), divisor, rest) if m.target.fma else _less(m, rest, quotient, divisor)
    again = m.any(m.compare("oge", m.abs(left), divisor))
    e.lines[slot] = f"  {rest} = phi {m.t} [{a}, %{before}], [{left}, %{e.current}]"
    e.branch_if(again, loop, after)
    e.at(after)
    return left


def _less(m: Math, rest: str, quotient: str, divisor: str) -> str:
    """rest - quotient * divisor by `fma` without an instruction for it, which takes no numbers near the largest."""
    if m.single:
        return m.fma(m.neg(quotient), divisor, rest)
    large = m.compare("ogt", m.abs(rest), 2.0**900)
    rest, quotient = (m.select(large, m.mul(x, 2.0**-120), x) for x in (rest, quotient))
    huge = m.compare("ogt", m.abs(quotient), 2.0**800)
    quotient = m.select(huge, m.mul(quotient, 2.0**-120), quotient)
    left = m.fma(m.neg(quotient), m.select(huge, m.mul(divisor, 2.0**120), divisor), rest)
    return m.select(large, m.mul(left, 2.0**120), left)


def floor_mod(m: Math, a: str, b: str) -> str:
    """The remainder with the sign of `b`, as Python's and NumPy's %."""
    rest = fmod(m, a, b)
    crosses = m.both(m.compare("one", rest, 0.0), m.either(*_signs_differ(m, rest, b)))
    moved = m.select(crosses, m.add(rest, b), rest)
    return m.select(m.compare("oeq", moved, 0.0), m.copysign(0.0, b), moved)


def _signs_differ(m: Math, a: str, b: str) -> tuple[str, str]:
    below, above = m.compare("olt", a, 0.0), m.compare("ogt", a, 0.0)
    return m.both(below, m.compare("ogt", b, 0.0)), m.both(above, m.compare("olt", b, 0.0))


def floor_div(m: Math, a: str, b: str) -> str:
    """The whole number next below a / b, consistent with `floor_mod`, as Python's and NumPy's //; a / 0 for b = 0."""
    rest = fmod(m, a, b)
    ratio = m.div(m.sub(a, rest), b)
    crosses = m.both(m.compare("one", rest, 0.0), m.either(*_signs_differ(m, rest, b)))
    ratio = m.select(crosses, m.sub(ratio, 1.0), ratio)
    whole = floor(m, ratio)  # of a number that is whole but for a rounding error
    whole = m.select(m.compare("ogt", m.sub(ratio, whole), 0.5), m.add(whole, 1.0), whole)
    plain = m.div(a, b)
    whole = m.select(m.compare("oeq", whole, 0.0), m.copysign(0.0, plain), whole)
    return m.select(m.compare("oeq", b, 0.0), plain, whole)
