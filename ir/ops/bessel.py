"""Special functions that SciPy computes on the host: incomplete gamma functions, Bessel functions, inverses and scalings of erfc."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tcc.ir.ops.elementwise import along_diagonal
from tcc.ir.ops.rules import elementwise, per_element
from tcc.ir.ops.special import psi
from tcc.ir.optable import GradRule, OpDef, Sample, Undefined, define

REAL_FLOATS = frozenset({"f16", "f32", "f64"})
ROOT_PI = math.sqrt(math.pi)


def scipy_special(name: str) -> Callable[..., Any]:
    """A function of scipy.special, looked up when it is called; its result has the dtype of its operands."""

    def ref(*arrays: Any) -> Any:
        try:
            from scipy import special
        except ImportError as e:
            raise ImportError(f"{name} runs through SciPy, which is not installed: pip install scipy") from e
        return np.asarray(getattr(special, name)(*arrays), np.asarray(arrays[0]).dtype)

    return ref


def defined(
    name: str,
    operands: str,
    doc: str,
    grad: GradRule | None = None,
    ref: Callable[..., Any] | None = None,
    low: float = -2.0,
    high: float = 2.0,
    rop: bool = True,
) -> OpDef:
    count = len(operands.split(", "))
    return define(
        OpDef(
            name,
            operands,
            elementwise(name, operands, REAL_FLOATS),
            ref or scipy_special(name),
            doc=doc,
            grad=grad,
            rop=along_diagonal(grad) if grad and rop else None,
            kernel=True,
            host=True,
            flops=per_element(100),
            samples=tuple(Sample((t,) * count, low=low, high=high) for t in ("f32[3,4]", "f64[]")),
        )
    )


def by_last(slope: Callable[[Any, Any, Any], Any]) -> GradRule:
    """Of a function of an order and an argument that is only differentiated by the argument."""

    def grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
        n, x = op.operands
        return [Undefined("a Bessel function has no gradient by its order"), b.mul(g[0], slope(b, n, x))]

    return grad


def of_one(slope: Callable[[Any, Any, Any], Any]) -> GradRule:
    return lambda b, op, g: [b.mul(g[0], slope(b, op.operands[0], op.result))]


# -- the error function ----------------------------------------------------------------------------------------------

defined(
    "erfcx",
    "x",
    "exp(x * x) * erfc(x), without underflow for large x.",
    of_one(lambda b, x, y: b.sub(b.mul(b.mul(x, y), 2), 2 / ROOT_PI)),
)
defined(
    "erfcinv",
    "x",
    "The inverse of erfc.",
    of_one(lambda b, x, y: b.mul(b.exp(b.sqr(y)), -ROOT_PI / 2)),
    low=0.1,
    high=1.9,
)

# -- incomplete gamma functions --------------------------------------------------------------------------------------


def gammainc_by_k(k: Any, x: Any) -> Any:
    """The derivative of the regularised lower incomplete gamma function by its order.

    Its series (below k + 1) and the continued fraction of the upper one (Numerical Recipes 6.2), each with its derivative.
    """
    return np.asarray(np.vectorize(_gammainc_by_k, otypes=[np.float64])(k, x), np.asarray(x).dtype)


def _gammainc_by_k(k: float, x: float) -> float:
    k, x = float(k), float(x)
    if not k > 0 or not x >= 0 or math.isinf(k):
        return math.nan
    if x == 0 or math.isinf(x):
        return 0.0
    digamma = float(psi(np.float64(k)))
    if x < k + 1:
        term = total = 1 / k
        slope = term_slope = -1 / k / k
        n = 0
        while abs(term_slope) > 1e-18 * abs(slope) or term > 1e-18 * total:
            n += 1
            term_slope = (term_slope - term / (k + n)) * x / (k + n)
            term *= x / (k + n)
            total, slope = total + term, slope + term_slope
        scale = math.exp(-x + k * math.log(x) - math.lgamma(k))
        return scale * (total * (math.log(x) - digamma) + slope)
    b, db = x + 1 - k, -1.0
    c, dc = math.inf, 0.0
    d, dd = 1 / b, -db / b / b
    h, dh = d, dd
    for i in range(1, 10000):
        a, da = -i * (i - k), float(i)
        b += 2
        below, dbelow = a * d + b, da * d + a * dd + db
        d, dd = 1 / below, -dbelow / below / below
        inverse, dinverse = (0.0, 0.0) if math.isinf(c) else (1 / c, -dc / c / c)
        c, dc = b + a * inverse, db + da * inverse + a * dinverse
        step, dstep = c * d, dc * d + c * dd
        h, dh = h * step, dh * step + h * dstep
        if abs(step - 1) < 1e-16 and abs(dstep) < 1e-16:
            break
    scale = math.exp(-x + k * math.log(x) - math.lgamma(k))
    return -scale * (h * (math.log(x) - digamma) + dh)


def gamma_slopes(sign: int) -> GradRule:
    def grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
        k, x = op.operands
        density = b.exp(b.sub(b.sub(b.mul(b.sub(k, 1), b.log(x)), x), b.gammaln(k)))
        made = [b.mul(g[0], b.gammainc_by_k(k, x)), b.mul(g[0], density)]
        return made if sign > 0 else [b.neg(m) for m in made]

    return grad


defined(
    "gammainc_by_k",
    "k, x",
    "The derivative of gammainc by k.",
    ref=gammainc_by_k,
    low=0.2,
    high=4.0,
)
defined(
    "gammainc",
    "k, x",
    "The regularised lower incomplete gamma function: the integral of t ** (k - 1) exp(-t) / gamma(k) from 0 to x.",
    gamma_slopes(1),
    low=0.2,
    high=4.0,
)
defined("gammaincc", "k, x", "1 - gammainc(k, x).", gamma_slopes(-1), low=0.2, high=4.0)

# -- Bessel functions ------------------------------------------------------------------------------------------------


def between(row: str, sign: int) -> Callable[[Any, Any, Any], Any]:
    """Half the difference (or sum) of the functions of the neighbouring orders."""

    def slope(b: Any, n: Any, x: Any) -> Any:
        before, behind = (getattr(b, row)(m, x) for m in (b.sub(n, 1), b.add(n, 1)))
        return b.mul(b.sub(before, behind) if sign < 0 else b.add(before, behind), 0.5)

    return slope


def second(b: Any, row: str, x: Any) -> Any:
    return getattr(b, row)(b.full(2, x), x)


defined(
    "jv",
    "n, x",
    "The Bessel function of the first kind, of order n.",
    by_last(between("jv", -1)),
    low=0.5,
    rop=False,
)
defined(
    "iv",
    "n, x",
    "The modified Bessel function of the first kind, of order n.",
    by_last(between("iv", 1)),
    low=0.5,
    rop=False,
)
defined(
    "j0", "x", "The Bessel function of the first kind, of order 0.", of_one(lambda b, x, y: b.neg(b.j1(x)))
)
defined(
    "j1",
    "x",
    "The Bessel function of the first kind, of order 1.",
    of_one(lambda b, x, y: b.mul(b.sub(b.j0(x), second(b, "jv", x)), 0.5)),
)
defined(
    "i0", "x", "The modified Bessel function of the first kind, of order 0.", of_one(lambda b, x, y: b.i1(x))
)
defined(
    "i1",
    "x",
    "The modified Bessel function of the first kind, of order 1.",
    of_one(lambda b, x, y: b.mul(b.add(b.i0(x), second(b, "iv", x)), 0.5)),
)
