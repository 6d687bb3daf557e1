"""The error function and its relatives."""

from __future__ import annotations

import math
from collections.abc import Callable

from tcc.codegen.math.core import Math
from tcc.codegen.math.exp import expm1_small, split_ln2
from tcc.codegen.math.log import log, natural

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


# for results that are rounded to float, of which the relative errors are 2^-33 or less
# minimax of exp(a^2) erfc(a) (1 + 2a) in (a - 3) / (a + 3) on [0, 10.6], and of exp(r) for |r| <= ln(2)/2
ERFCX_OF_FLOAT = (
    3.254309180550924e-05, 0.00012502750986426983, -0.0001280751051360488, -0.0007894893804021446,
    0.001895333863648618, 0.0025336893728892364, -0.02377130744374011, 0.06830730097288017, -0.11927362883724693,
    0.12964520772280547, -0.0475622947384747, -0.1356211070542067, 1.2530080582714724,
)  # fmt: skip
EXP_OF_FLOAT = (
    0.00019775101512357638, 0.001394822603053552, 0.008333561468561512, 0.04166622479202571, 0.16666665122486934,
    0.5000000104760348, 1.0000000002438487, 0.9999999999615731,
)  # fmt: skip
# minimax of erfinv(x) / x in w - 2.5 for w = -log(1 - x^2) <= 5, and in sqrt(w) - 3 beyond, to 16.7 (the two regions are Giles', 2012)
ERFINV_NEAR_OF_FLOAT = (
    -1.976872655387786e-11, 1.2359470214773823e-10, 8.06221678798968e-10, -1.0863828147235762e-08,
    1.3874206551940994e-08, 4.787015923513899e-07, -3.417694196729354e-06, -4.996029533707243e-06,
    0.0002182514747026866, -0.0012527079280465142, -0.004177318237678546, 0.2466402767403968, 1.501409351146378,
)  # fmt: skip
ERFINV_FAR_OF_FLOAT = (
    1.0350603305044208e-05, -2.6518353666536252e-05, -2.9653666451268174e-05, 0.00020400100735753425,
    -0.00029380262612759353, -0.0001467775942835227, 0.0014871018862376597, -0.003559474786925733,
    0.005684675664403493, -0.007643728630551765, 0.009445551325686532, 1.0016752744838284, 2.832976798442607,
)  # fmt: skip


def in_double(write: Callable[[Math, str], str]) -> Callable[[Math, str], str]:
    """A function written for double; float goes through double, and so rounds correctly but for rare ties."""
    return by_dtype(write, write)


def by_dtype(
    of_float: Callable[[Math, str], str], of_double: Callable[[Math, str], str]
) -> Callable[[Math, str], str]:
    """A function of two forms, both written for double: one for what is rounded to float, and one for double."""

    def emit(m: Math, x: str) -> str:
        if not m.single:
            return of_double(m, x)
        wide = Math(m.e, m.t.of("double"), m.target)
        result = of_float(wide, m.e.value(f"fpext {m.t} {x} to {wide.t}"))
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


def _erfc_of_float(m: Math, x: str) -> str:
    """One polynomial for all, and one quotient."""
    a = m.at_most(10.5, m.abs(x))
    beyond, scale = m.add(a, 3.0), m.fma(a, 2.0, 1.0)
    inverse = m.div(1.0, m.mul(beyond, scale))
    p = m.horner(m.mul(m.mul(m.sub(a, 3.0), scale), inverse), ERFCX_OF_FLOAT)
    r, z, n = split_ln2(m, m.neg(m.mul(a, a)))
    power = m.mul(m.horner(r, EXP_OF_FLOAT), m.pow2(z, n))
    y = m.mul(power, m.mul(p, m.mul(beyond, inverse)))
    return m.select(m.compare("olt", x, 0.0), m.sub(2.0, y), y)


def _erfc(m: Math, x: str) -> str:
    a = m.abs(x)
    near = m.sub(1.0, _erf_small(m, x))
    far = _erfc_large(m, m.at_most(28.0, a))
    far = m.select(m.compare("olt", x, 0.0), m.sub(2.0, far), far)
    return m.select(m.compare("olt", a, 0.75), near, far)


erfc = by_dtype(_erfc_of_float, _erfc)


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


def _erfinv_of_float(m: Math, x: str) -> str:
    """x times a polynomial in w = -log(1 - x^2), or beyond 5 in its root, of one degree."""
    mantissa, k = m.split_exponent(m.mul(m.sub(1.0, x), m.add(x, 1.0)))
    w = m.neg(natural(m, m.sub(mantissa, 1.0), k))
    is_far = m.compare("ogt", w, 5.0)
    t = m.select(is_far, m.sub(m.sqrt(w), 3.0), m.sub(w, 2.5))
    p, *rest = (m.select(is_far, f, n) for f, n in zip(ERFINV_FAR_OF_FLOAT, ERFINV_NEAR_OF_FLOAT))
    for c in rest:
        p = m.mul_add(p, t, c)
    return _within_one(m, m.mul(x, p), x)


def _within_one(m: Math, y: str, x: str) -> str:
    """erfinv(x) for |x| < 1, with what it is at 1, and NaN beyond."""
    a = m.abs(x)
    y = m.select(m.compare("oeq", a, 1.0), math.inf, y)
    return m.copysign(m.select(m.compare("ugt", a, 1.0), math.nan, y), x)


def _erfinv(m: Math, x: str) -> str:
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
    return _within_one(m, m.mul(quantile, math.sqrt(0.5)), x)


erfinv = by_dtype(_erfinv_of_float, _erfinv)
