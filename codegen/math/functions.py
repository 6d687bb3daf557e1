"""Vector math functions by name: float and double, any number of lanes.

Written from polynomials because LLVM would call libm once an element.  Errors stay below 1 ULP for exp, log, tanh and
sigmoid, below 2 for the others (below 8 for the gamma functions in double); tests/helpers/accuracy.py has the table.  Inf,
NaN, -0.0 and denormal numbers come out as in NumPy.  With AVX-512 the x86 forms are used; other forms give the same bits.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from tcc.codegen.emit import Emit, VecType
from tcc.codegen.math import exp, gamma, log, pow, rounding, special, trig
from tcc.codegen.math.core import Math
from tcc.codegen.target import Target

# name -> (number of operands, what writes it)
FUNCTIONS: dict[str, tuple[int, Callable[..., str]]] = {
    "exp": (1, exp.exp),
    "exp2": (1, exp.exp2),
    "expm1": (1, exp.expm1),
    "sigmoid": (1, exp.sigmoid),
    "sinh": (1, exp.sinh),
    "cosh": (1, exp.cosh),
    "tanh": (1, exp.tanh),
    "log": (1, log.log),
    "log2": (1, log.log2),
    "log10": (1, log.log10),
    "log1p": (1, log.log1p),
    "softplus": (1, log.softplus),
    "log_sigmoid": (1, log.log_sigmoid),
    "asinh": (1, log.asinh),
    "acosh": (1, log.acosh),
    "atanh": (1, log.atanh),
    "pow": (2, pow.pow),
    "sin": (1, trig.sin),
    "cos": (1, trig.cos),
    "tan": (1, trig.tan),
    "asin": (1, trig.asin),
    "acos": (1, trig.acos),
    "atan": (1, trig.atan),
    "atan2": (2, trig.atan2),
    "erf": (1, special.erf),
    "erfc": (1, special.erfc),
    "erfinv": (1, special.erfinv),
    "gamma": (1, gamma.gamma),
    "gammaln": (1, gamma.gammaln),
    "psi": (1, gamma.psi),
    "trigamma": (1, gamma.trigamma),
    "abs": (1, rounding.absolute),
    "sign": (1, rounding.sign),
    "sqrt": (1, rounding.sqrt),
    "rsqrt": (1, rounding.rsqrt),
    "floor": (1, rounding.floor),
    "ceil": (1, rounding.ceil),
    "trunc": (1, rounding.trunc),
    "rint": (1, rounding.rint),
    "round": (1, rounding.round_half_away),
    "min": (2, rounding.minimum),
    "max": (2, rounding.maximum),
    "copysign": (2, rounding.copysign),
    "fmod": (2, rounding.fmod),
    "mod": (2, rounding.floor_mod),
    "floordiv": (2, rounding.floor_div),
    "fma": (3, rounding.fma),
}


def emit(name: str, e: Emit, t: VecType, *operands: str, target: Target) -> str:
    """Writes the function `name` of FUNCTIONS on operands of type `t`; TypeError unless t is float or double."""
    _, write = FUNCTIONS[name]
    return write(Math(e, t, target), *operands)


def __getattr__(name: str) -> Callable[..., str]:
    """Each function as `math.exp(e, t, x, target)`, `math.pow(e, t, x, y, target)`."""
    if name not in FUNCTIONS:
        raise AttributeError(f"no vector function {name!r}")
    return functools.partial(_positional, name)


def _positional(name: str, e: Emit, t: VecType, *rest: Any) -> str:
    *operands, target = rest
    return emit(name, e, t, *operands, target=target)
