"""Vector math functions by name: float and double, any number of lanes.

Written from polynomials because LLVM would call libm once an element.  Errors stay below 1 ULP for exp, log, tanh and
sigmoid, below 2 for the others (below 8 for the gamma functions in double); tests/helpers/accuracy.py has the table.  Inf,
NaN, -0.0 and denormal numbers come out as in NumPy.  With AVX-512 the x86 forms are used; other forms give the same bits.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from tcc.codegen import math_exp, math_gamma, math_log, math_pow, math_round, math_special, math_trig
from tcc.codegen.emit import Emit, VecType
from tcc.codegen.math_core import Math
from tcc.codegen.target import Target

# name -> (number of operands, what writes it)
FUNCTIONS: dict[str, tuple[int, Callable[..., str]]] = {
    "exp": (1, math_exp.exp),
    "exp2": (1, math_exp.exp2),
    "expm1": (1, math_exp.expm1),
    "sigmoid": (1, math_exp.sigmoid),
    "sinh": (1, math_exp.sinh),
    "cosh": (1, math_exp.cosh),
    "tanh": (1, math_exp.tanh),
    "log": (1, math_log.log),
    "log2": (1, math_log.log2),
    "log10": (1, math_log.log10),
    "log1p": (1, math_log.log1p),
    "softplus": (1, math_log.softplus),
    "log_sigmoid": (1, math_log.log_sigmoid),
    "asinh": (1, math_log.asinh),
    "acosh": (1, math_log.acosh),
    "atanh": (1, math_log.atanh),
    "pow": (2, math_pow.pow),
    "sin": (1, math_trig.sin),
    "cos": (1, math_trig.cos),
    "tan": (1, math_trig.tan),
    "asin": (1, math_trig.asin),
    "acos": (1, math_trig.acos),
    "atan": (1, math_trig.atan),
    "atan2": (2, math_trig.atan2),
    "erf": (1, math_special.erf),
    "erfc": (1, math_special.erfc),
    "erfinv": (1, math_special.erfinv),
    "gamma": (1, math_gamma.gamma),
    "gammaln": (1, math_gamma.gammaln),
    "psi": (1, math_gamma.psi),
    "trigamma": (1, math_gamma.trigamma),
    "abs": (1, math_round.absolute),
    "sign": (1, math_round.sign),
    "sqrt": (1, math_round.sqrt),
    "rsqrt": (1, math_round.rsqrt),
    "floor": (1, math_round.floor),
    "ceil": (1, math_round.ceil),
    "trunc": (1, math_round.trunc),
    "rint": (1, math_round.rint),
    "round": (1, math_round.round_half_away),
    "min": (2, math_round.minimum),
    "max": (2, math_round.maximum),
    "copysign": (2, math_round.copysign),
    "fmod": (2, math_round.fmod),
    "mod": (2, math_round.floor_mod),
    "floordiv": (2, math_round.floor_div),
    "fma": (3, math_round.fma),
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
