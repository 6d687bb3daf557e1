"""NumPy meaning of functions that NumPy does not have, in float64 whatever the operand's dtype."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np


def _vectorised(f: Callable[[float], float]) -> Callable[[Any], Any]:
    wide = np.vectorize(f, otypes=[np.float64])
    return lambda x: wide(x).astype(np.asarray(x).dtype)


def _gamma(x: float) -> float:
    if x == 0:
        return math.copysign(math.inf, x)
    try:
        return math.gamma(x)
    except ValueError:  # a negative integer, or -inf
        return math.nan
    except OverflowError:
        return math.inf


def _gammaln(x: float) -> float:
    try:
        return math.lgamma(x)
    except (ValueError, OverflowError):  # a pole, or too large
        return math.inf


def _psi(x: float) -> float:
    """The digamma function: recurrence up to 10, then the asymptotic series (Abramowitz and Stegun 6.3.18)."""
    if x == 0:
        return -math.copysign(math.inf, x)
    if x < 0:
        whole = math.isinf(x) or x == math.floor(x)
        return math.nan if whole else _psi(1 - x) - math.pi / math.tan(math.pi * x)
    total = 0.0
    while x < 10:
        total -= 1 / x
        x += 1
    square = 1 / (x * x)
    terms = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12)
    series = 0.0
    for c in reversed(terms):
        series = (series + c) * square
    return total + math.log(x) - 0.5 / x - series


def _trigamma(x: float) -> float:
    """The derivative of `_psi`: recurrence up to 10, then the asymptotic series (Abramowitz and Stegun 6.4.12)."""
    if x <= 0 and (math.isinf(x) or x == math.floor(x)):
        return math.inf
    if x < 0:
        return (math.pi / math.sin(math.pi * (x - round(x)))) ** 2 - _trigamma(1 - x)
    total = 0.0
    while x < 10:
        total += 1 / x / x if x > 1e-150 else math.inf
        x += 1
    square = 1 / (x * x)
    series = 0.0
    for c in (7 / 6, -691 / 2730, 5 / 66, -1 / 30, 1 / 42, -1 / 30, 1 / 6):
        series = (series + c) * square
    return total + 1 / x + square / 2 + series / x


def _erfinv(x: float) -> float:
    """Winitzki's approximation, then Halley's method, on erfc where erf is close to 1."""
    if not -1 < x < 1:
        return math.copysign(math.inf, x) if abs(x) == 1 else math.nan
    p = abs(x)
    log = math.log1p(-p * p)
    t = 2 / (math.pi * 0.147) + log / 2
    y = math.sqrt(max(math.sqrt(t * t - log / 0.147) - t, 0.0))
    for _ in range(3):
        gap = math.erf(y) - p if p < 0.5 else (1 - p) - math.erfc(y)
        u = gap * math.sqrt(math.pi) / 2 * math.exp(y * y)
        y -= u / (1 + u * y)
    return math.copysign(y, x)


erf = _vectorised(math.erf)
erfc = _vectorised(math.erfc)
erfinv = _vectorised(_erfinv)
gamma = _vectorised(_gamma)
gammaln = _vectorised(_gammaln)
psi = _vectorised(_psi)
trigamma = _vectorised(_trigamma)
