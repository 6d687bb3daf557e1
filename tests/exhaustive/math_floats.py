"""Every float32 value through every vector function of one operand, against NumPy's and SciPy's float64.

Takes more than an hour of one core, so that only `make test-exhaustive` runs it; `-k` chooses functions, `-rP` shows maxima.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from accuracy import ACCURACY
from scipy import special
from vectors import Array, Library

from tcc.codegen.emit import VecType
from tcc.codegen.math import functions as vector_math
from tcc.codegen.target import host

BLOCK = 1 << 15  # what is made of it stays in the second-level cache


def trigamma(x: Array) -> Array:
    """By Hurwitz' zeta function; SciPy's polygamma is slow at the poles, which most large floats are."""
    positive = special.zeta(2, np.where(x < 0, 1 - x, x))
    sine = np.sin(np.pi * (x - np.rint(x)))
    reflected = np.where(x < 0, (np.pi / sine) ** 2 - positive, positive)
    return np.where((x <= 0) & (x == np.rint(x)), np.inf, reflected)


REFERENCES: dict[str, Callable[..., Any]] = {
    name: reference for name, (reference, *_) in ACCURACY.items()
} | {
    "erf": special.erf,
    "erfc": special.erfc,
    "erfinv": lambda x: special.erfinv(np.where(np.abs(x) <= 1, x, np.nan)),  # slow beyond
    "gamma": special.gamma,
    "gammaln": special.gammaln,
    "psi": special.psi,
    "trigamma": trigamma,
    "softplus": lambda x: np.logaddexp(x, 0),
    "log_sigmoid": lambda x: -np.logaddexp(-x, 0),
}
BOUNDS = {name: single for name, (_, _, single, _) in ACCURACY.items()} | {"erfinv": 0.51}
# the references' own errors near zeros on the negative axis, of 1
NEAR_ZEROS = dict.fromkeys(("gammaln", "psi"), 4e-15)


def errors(got: Array, exact: Array, near: float) -> Array:
    """In units in the last place of the float32 next to `exact`; inf where one is finite, NaN or of a sign that the other is not."""
    rounded = exact.astype(np.float32)
    distance = np.maximum(np.abs(got - exact) - near, 0) / np.spacing(np.abs(rounded))
    same = (got == rounded) & (np.signbit(got) == np.signbit(rounded)) | np.isnan(got) & np.isnan(rounded)
    both_finite = np.isfinite(got) & np.isfinite(rounded)
    return np.where(same & ~both_finite, 0, np.where(both_finite, distance, np.inf))


def suspects(got: Array, exact: Array, worst: float) -> Array:
    """Where `got` may be further than `worst` units from `exact`, and is not NaN as well: of a number, a unit is at least 2^-24."""
    distance = np.subtract(got, exact)
    np.abs(distance, out=distance)
    far: Array = ~(distance <= np.abs(exact) * (worst * 2.0**-24))
    if far.any():
        far &= ~(np.isnan(got) & np.isnan(exact))
    return far


@pytest.mark.parametrize("name", REFERENCES)
def test_every_float(name: str) -> None:
    t = VecType("float", host().vector("float").lanes)
    write = lambda e, x: vector_math.emit(name, e, t, x, target=host())  # noqa: E731
    run = Library({name: (("f32",), "f32", write)}, host(), t.lanes)
    worst, where, near = min(0.25, BOUNDS[name]), np.float32(0), NEAR_ZEROS.get(name, 0.0)
    for start in range(0, 1 << 32, BLOCK):
        x = np.arange(start, start + BLOCK, dtype=np.uint32).view(np.float32)
        with np.errstate(all="ignore"):
            exact = np.asarray(REFERENCES[name](x.astype(np.float64)))
            got = run(name, x)
            odd = np.flatnonzero(suspects(got, exact, worst))
            if not odd.size:
                continue
            found = errors(got[odd], exact[odd], near)
        k = int(np.argmax(found))
        if found[k] > worst:
            worst, where = float(found[k]), x[odd[k]]
    print(f"{name}: at most {worst:.3f} ULP, at {where!r}")
    assert worst <= BOUNDS[name]
