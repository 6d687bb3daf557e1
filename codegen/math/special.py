"""The error function and its relatives."""

from __future__ import annotations

import math
from collections.abc import Callable

from tcc.codegen.math.core import Math
from tcc.codegen.math.exp import expm1_small, split_ln2
from tcc.codegen.math.log import log

# minimax of (erf(a) - a) / a in a^2 for a <= 0.875; relative error 2^-26.0 and 2^-56.3
ERF_SINGLE = (-0.00060203264, 0.0049989116, -0.026770482, 0.11281922, -0.37612504, 0.12837915)
ERF_DOUBLE = (
    -1.289255984639894e-09, 1.5918449550197062e-08, -1.6618932483627287e-07, 1.6490842649033588e-06,
    -1.4927596733815962e-05, 0.00012055416272662633, -0.0008548329293745537, 0.005223977663867641,
    -0.026866170648919708, 0.11283791670974289, -0.3761263890318413, 0.1283791670955126,
)  # fmt: skip
# minimax of log2(erfc(a)) on [0.875, 3.95]; the error of erf is 2^-28.4
LOG2_ERFC_SINGLE = (
    0.0002901346, -0.004462745, 0.032351397, -0.15052462, -0.9186045, -1.6272755, -0.00019091442,
)  # fmt: skip
# 2^f on [0, 1], with an error of 2^-25.4 spread so that erf's is small
EXP2_SINGLE = (0.0018758724, 0.00899567, 0.055818796, 0.24015704, 0.69315255, 0.99999994)
# minimax of exp(a^2) erfc(a) (1 + 2a) in (a - 4) / (a + 4) on [0.75, 27.3] (Shepherd and Laframboise 1981); 2^-54.3
ERFCX_DOUBLE = (
    -8.051152415549213e-09, -1.3657354839155099e-08, 9.939724267512335e-08, 7.051015693518974e-08,
    -8.155387190093608e-07, 2.95951476271475e-07, 5.7042214849245745e-06, -1.122266460729206e-05,
    -2.4397264380756196e-05, 0.00015062177833841863, -0.00019925713880878559, -0.0007577732948451925,
    0.00503197004206222, -0.016197734058360874, 0.03716751553190272, -0.06633036581210047, 0.09373283499861677,
    -0.10103906603631103, 0.06809705425468683, 0.01537965210261987, -0.13962111684056247, 1.2329951186255526,
)  # fmt: skip


def in_double(write: Callable[[Math, str], str]) -> Callable[[Math, str], str]:
    """A function written for double; float goes through double, and so rounds correctly but for rare ties."""

    def emit(m: Math, x: str) -> str:
        if not m.single:
            return write(m, x)
        wide = Math(m.e, m.t.of("double"), m.target)
        result = write(wide, m.e.value(f"fpext {m.t} {x} to {wide.t}"))
        return m.e.value(f"fptrunc {wide.t} {result} to {m.t}")

    return emit


def erf(m: Math, x: str) -> str:
    """An odd polynomial for small x, 1 - erfc beyond."""
    a = m.abs(x)
    near = _erf_small(m, a)
    if m.single:
        fraction, by_power = m.split_fraction(m.horner(m.at_most(3.95, a), LOG2_ERFC_SINGLE))
        far = m.sub(1.0, by_power(m.horner(fraction, EXP2_SINGLE)))
    else:
        far = m.sub(1.0, _erfc_large(m, m.at_most(6.0, a)))
    return m.copysign(m.select(m.compare("olt", a, 0.875), near, far), x)


def _erf_small(m: Math, a: str) -> str:
    """erf(a) for |a| < 0.875."""
    return m.fma(a, m.horner(m.mul(a, a), m.pick(ERF_SINGLE, ERF_DOUBLE)), a)


def _erfc_large(m: Math, a: str) -> str:
    """erfc(a) for 0.75 <= a <= 28, in double: exp(-a^2) (1 + 2a)^-1 times a polynomial."""
    t = m.div(m.sub(a, 4.0), m.add(a, 4.0))
    p = m.horner(t, ERFCX_DOUBLE)
    d = m.fma(a, 2.0, 1.0)
    d_low = m.fma(a, 2.0, m.sub(1.0, d))
    inverse = m.div(1.0, d)
    scaled = m.mul(p, inverse)
    scaled_low = m.mul(m.fma(m.neg(scaled), d_low, m.fma(m.neg(scaled), d, p)), inverse)
    square, low = m.two_product(a, a)
    r, z, n = split_ln2(m, m.neg(square))
    tail = m.fma(scaled, expm1_small(m, m.sub(r, low)), scaled_low)
    return m.scale(m.add(scaled, tail), z, n)


@in_double
def erfc(m: Math, x: str) -> str:
    a = m.abs(x)
    near = m.sub(1.0, _erf_small(m, x))
    far = _erfc_large(m, m.at_most(28.0, a))
    far = m.select(m.compare("olt", x, 0.0), m.sub(2.0, far), far)
    return m.select(m.compare("olt", a, 0.75), near, far)


# Wichura's PPND16 (algorithm AS 241, 1988): numerators and denominators for |x| <= 0.85, and for the tails in
# sqrt(-log((1 - |x|) / 2)) up to and beyond 5
CENTRE = (
    (2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457, 13731.693765509461125,
     1971.5909503065514427, 133.14166789178437745, 3.387132872796366608),
    (5226.495278852854561, 28729.085735721942674, 39307.89580009271061, 21213.794301586595867, 5394.1960214247511077,
     687.1870074920579083, 42.313330701600911252, 1.0),
)  # fmt: skip
TAIL = (
    (7.7454501427834140764e-4, 0.0227238449892691845833, 0.24178072517745061177, 1.27045825245236838258,
     3.64784832476320460504, 5.7694972214606914055, 4.6303378461565452959, 1.42343711074968357734),
    (1.05075007164441684324e-9, 5.475938084995344946e-4, 0.0151986665636164571966, 0.14810397642748007459,
     0.68976733498510000455, 1.6763848301838038494, 2.05319162663775882187, 1.0),
)  # fmt: skip
FAR_TAIL = (
    (2.01033439929228813265e-7, 2.71155556874348757815e-5, 0.0012426609473880784386, 0.026532189526576123093,
     0.29656057182850489123, 1.7848265399172913358, 5.4637849111641143699, 6.6579046435011037772),
    (2.04426310338993978564e-15, 1.4215117583164458887e-7, 1.8463183175100546818e-5, 7.868691311456132591e-4,
     0.0148753612908506148525, 0.13692988092273580531, 0.59983220655588793769, 1.0),
)  # fmt: skip


@in_double
def erfinv(m: Math, x: str) -> str:
    """The normal quantile of (1 + x) / 2, over sqrt(2)."""
    a = m.abs(x)
    half = m.mul(a, 0.5)
    central = m.fma(m.neg(half), half, 0.180625)
    root = m.sqrt(m.neg(log(m, m.fma(a, -0.5, 0.5))))
    is_tail, is_far = m.compare("ogt", a, 0.85), m.compare("ogt", root, 5.0)
    argument = m.sub(root, m.select(is_far, 5.0, 1.6))
    parts = []
    for centre, tail, far in zip(CENTRE, TAIL, FAR_TAIL):
        outer = m.select(is_far, m.horner(argument, far), m.horner(argument, tail))
        parts.append(m.select(is_tail, outer, m.horner(central, centre)))
    quantile = m.div(m.mul(parts[0], m.select(is_tail, 1.0, half)), parts[1])
    y = m.mul(quantile, math.sqrt(0.5))
    y = m.select(m.compare("oeq", a, 1.0), math.inf, y)
    return m.copysign(m.select(m.compare("ugt", a, 1.0), math.nan, y), x)
