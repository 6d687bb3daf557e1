"""What the vector functions are compared with, and how far off they may be: one table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from vectors import Array

Long = np.longdouble
SQRT_PI = np.sqrt(np.arccos(Long(-1)))

# -- references --------------------------------------------------------------------------------------------------------


def erf(x: Array) -> Array:
    """2/sqrt(pi) exp(-x^2) sum of 2^n x^(2n+1) / (2n+1)!!, in which nothing cancels."""
    term: Array = x
    total: Array = x
    for n in range(1, 160):
        term = term * 2 * x * x / (2 * n + 1)
        total = total + term
    result: Array = 2 / SQRT_PI * np.exp(-x * x) * total
    return result


def erfc(x: Array) -> Array:
    """1 - erf(x) for x < 1, beyond that a continued fraction."""
    a = np.maximum(x, Long(1))
    tail = np.zeros_like(a)
    for k in range(300, 0, -1):
        tail = k / Long(2) / (a + tail)
    high = a.astype(np.float32).astype(Long)  # its square is exact
    power = np.exp(-high * high) * np.exp((high - a) * (high + a))
    return np.where(x < 1, 1 - erf(np.clip(x, -6, 1)), power / SQRT_PI / (a + tail))


def stirling(x: Array) -> tuple[Array, Array]:
    """(log(gamma(x + 30)), x (x + 1) ... (x + 29))."""
    product = np.ones_like(x)
    for k in range(30):
        product = product * (x + k)
    y = x + 30
    series = 1 / (12 * y) - 1 / (360 * y**3) + 1 / (1260 * y**5) - 1 / (1680 * y**7) + 1 / (1188 * y**9)
    return (y - 0.5) * np.log(y) - y + np.log(2 * np.arccos(Long(-1))) / 2 + series, product


def gamma(x: Array) -> Array:
    shifted, product = stirling(x)
    return np.exp(shifted) / product


def gammaln(x: Array) -> Array:
    shifted, product = stirling(x)
    return shifted - np.log(product)


def psi(x: Array) -> Array:
    y = x + 30
    total: Array = (
        np.log(y) - 1 / (2 * y) - 1 / (12 * y**2) + 1 / (120 * y**4) - 1 / (252 * y**6) + 1 / (240 * y**8)
    )
    for k in range(30):
        total = total - 1 / (x + k)
    return total


def trigamma(x: Array) -> Array:
    y = x + 30
    total: Array = (
        1 / y + 1 / (2 * y**2) + 1 / (6 * y**3) - 1 / (30 * y**5) + 1 / (42 * y**7) - 1 / (30 * y**9)
    )
    for k in range(30):
        total = total + 1 / (x + k) / (x + k)
    return total


def softplus(x: Array) -> Array:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def round_half_away(x: Array) -> Array:
    return np.copysign(np.trunc(np.abs(x) + 0.5), x)


# name: (reference in any float, domain, largest error in ULP in float, in double).  The project's own bounds: 1 for exp,
# log, tanh and sigmoid, 2 for the others, 8 for the gamma functions in double away from zeros; most are better than that.
ACCURACY: dict[str, tuple[Callable[..., Any], str, float, float]] = {
    "exp": (np.exp, "any", 1.0, 1.0),
    "exp2": (np.exp2, "any", 1.1, 1.1),
    "expm1": (np.expm1, "any", 1.6, 2.0),
    "sigmoid": (lambda x: 1 / (1 + np.exp(-x)), "any", 1.0, 1.0),
    "softplus": (softplus, "any", 1.8, 1.8),
    "log_sigmoid": (lambda x: -softplus(-x), "any", 1.8, 1.8),
    "sinh": (np.sinh, "any", 1.8, 1.8),
    "cosh": (np.cosh, "any", 1.6, 1.6),
    "tanh": (np.tanh, "any", 1.0, 1.0),
    "log": (np.log, "positive", 1.0, 1.0),
    "log2": (np.log2, "positive", 2.0, 2.0),
    "log10": (np.log10, "positive", 1.8, 1.6),
    "log1p": (np.log1p, "above -1", 1.0, 1.1),
    "asinh": (np.arcsinh, "any", 1.9, 2.0),
    "acosh": (np.arccosh, "above 1", 2.0, 2.0),
    "atanh": (np.arctanh, "unit", 1.6, 1.6),
    "sin": (np.sin, "angle", 1.6, 1.6),
    "cos": (np.cos, "angle", 1.6, 1.6),
    "tan": (np.tan, "angle", 1.1, 1.1),
    "asin": (np.arcsin, "unit", 1.2, 1.3),
    "acos": (np.arccos, "unit", 1.2, 1.3),
    "atan": (np.arctan, "any", 1.4, 1.8),
    "erf": (erf, "within 6", 1.6, 1.2),
    "erfc": (erfc, "within 27", 0.51, 2.0),
    "gamma": (gamma, "within 30, positive", 0.51, 6.0),
    "gammaln": (gammaln, "within 30, positive", 0.51, 7.0),
    "psi": (psi, "within 30, positive", 0.51, 4.0),
    "trigamma": (trigamma, "within 30, positive", 0.51, 6.0),
    "sqrt": (np.sqrt, "positive", 0.5, 0.5),
    "rsqrt": (lambda x: 1 / np.sqrt(x), "positive", 1.5, 1.5),
    "floor": (np.floor, "any", 0.0, 0.0),
    "ceil": (np.ceil, "any", 0.0, 0.0),
    "trunc": (np.trunc, "any", 0.0, 0.0),
    "rint": (np.rint, "any", 0.0, 0.0),
    "round": (round_half_away, "any", 0.0, 0.0),
    "abs": (np.abs, "any", 0.0, 0.0),
    "sign": (np.sign, "any", 0.0, 0.0),
}
