"""Every vector function against 80-bit references, on special values, and for equal bits on all kinds of target."""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from accuracy import ACCURACY, SQRT_PI, Long, erf, erfc
from vectors import Array, Library, ulps

from tcc.codegen.emit import Emit, VecType
from tcc.codegen.jit import assembly
from tcc.codegen.math import functions as vector_math
from tcc.codegen.target import LEVELS, Target, host, level, plain
from tcc.ir.knobs import KnobError

pytestmark = pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="needs an 80-bit longdouble")

N = 12_000  # points of each kind
TARGETS: dict[str, tuple[Callable[[], Target], int]] = {
    "host": (host, 0),
    **{name: (functools.partial(level, name), 0) for name in LEVELS},
    "plain256": (lambda: plain(256), 0),
    "plain128": (lambda: plain(128), 0),
    "scalar": (host, 1),
}
DTYPES: dict[str, tuple[Any, str]] = {"f32": (np.float32, "float"), "f64": (np.float64, "double")}


@functools.cache
def library(kind: str, dtype: str) -> Library:
    make, lanes = TARGETS[kind]
    try:
        target = make()
    except KnobError as e:
        pytest.skip(str(e))
    elem = DTYPES[dtype][1]
    t = VecType(elem, lanes or target.vector(elem).lanes)

    def writer(name: str) -> Callable[..., str]:
        return lambda e, *operands: vector_math.emit(name, e, t, *operands, target=target)

    functions = {n: ((dtype,) * arity, dtype, writer(n)) for n, (arity, _) in vector_math.FUNCTIONS.items()}
    return Library(functions, target, t.lanes)


def points(domain: str, dtype: type[np.floating[Any]]) -> Array:
    """All magnitudes with denormal ones, and clusters where functions change their form."""
    r = np.random.default_rng(zlib.crc32(domain.encode()))
    info = np.finfo(dtype)
    lowest = info.minexp - info.nmant
    parts = [
        np.ldexp(r.uniform(1, 2, N), r.integers(lowest, info.maxexp, N)) * r.choice([-1, 1], N),
        *(r.uniform(-w, w, N) for w in (1, 10, 110, 760)),
        r.normal(size=N) * 1e-3,
        1 + r.normal(size=N) * 1e-3,
        1 + r.uniform(-0.5, 0.5, N),
    ]
    if domain == "angle":
        turns = np.arange(1, N) * np.pi / 2
        parts += [turns, np.nextafter(turns.astype(dtype), 0), r.uniform(-1e9, 1e9, N)]
    x = np.concatenate(parts).astype(dtype)
    if domain.startswith("within"):
        x = x[np.abs(x) < float(domain.split(",")[0].split()[1])]
    if domain.endswith("positive"):
        return np.abs(x)[np.abs(x) > (info.tiny if "within" in domain else 0)]
    if domain == "unit":
        return x[np.abs(x) <= 1]
    if domain.startswith("above"):
        return x[x > float(domain.split()[1])]
    return x


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACCURACY)
def test_accuracy(name: str, dtype: str) -> None:
    reference, domain, *bounds = ACCURACY[name]
    x = points(domain, DTYPES[dtype][0])
    with np.errstate(all="ignore"):
        exact = reference(x.astype(Long))
    got = library("host", dtype)(name, x)
    errors = ulps(got, exact)
    if name in ("gammaln", "psi"):  # the references lose what cancels near a zero
        errors = np.where(np.abs(exact) < 0.1, 0, errors)
    worst = int(np.argmax(errors))
    assert errors[worst] <= bounds[dtype == "f64"], (
        f"{name}({x[worst]!r}) = {got[worst]!r}, wanted {exact[worst]!r}, {errors[worst]:.2f} ULP"
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_erfinv_inverts_erf(dtype: str) -> None:
    x = points("unit", DTYPES[dtype][0])
    x = np.abs(x[np.abs(x) < 1])
    got = library("host", dtype)("erfinv", x)
    y = got.astype(Long)
    slope = 2 / SQRT_PI * np.exp(-y * y)
    exact = y - np.where(x < 0.9, erf(y) - x, (1 - x.astype(Long)) - erfc(y)) / slope  # one step of Newton's
    assert ulps(got, exact).max() <= (0.51 if dtype == "f32" else 6.0)
    assert np.array_equal(library("host", dtype)("erfinv", -x), -got)


def test_gammaln_and_psi_keep_their_digits_near_their_zeros() -> None:
    t = np.array([1e-9, -1e-9, 1e-5, -1e-5, 1e-3, -1e-3])
    t = (2 + t) - 2  # so that 1 + t and 2 + t are exact
    zeta = (1.6449340668482264, -1.2020569031595942, 1.0823232337111382, -1.03692775514337)
    one = -0.5772156649015329 * t + sum(z / k * t**k for k, z in enumerate(zeta, 2))
    run = library("host", "f64")
    np.testing.assert_allclose(run("gammaln", 1 + t), one, rtol=4e-15)
    np.testing.assert_allclose(run("gammaln", 2 + t), one + np.log1p(t), rtol=4e-15)
    root = 1.4616321449683622  # psi(root) = -9.549995429965697e-17 psi'(root)
    np.testing.assert_allclose(run("psi", np.array([root])), -9.2412655217294e-17, rtol=1e-12)


@pytest.mark.parametrize("name", ("gamma", "gammaln"))
def test_reflection(name: str) -> None:
    x = -np.linspace(0.03, 19.98, 500)
    wanted = [getattr(math, {"gammaln": "lgamma"}.get(name, name))(v) for v in x]
    np.testing.assert_allclose(library("host", "f64")(name, x), wanted, rtol=1e-13, atol=1e-13)


def special_values(dtype: type[np.floating[Any]]) -> Array:
    info = np.finfo(dtype)
    some: list[Any] = [
        0,
        1,
        0.5,
        2,
        3,
        2.5,
        np.inf,
        info.max,
        info.tiny,
        info.smallest_subnormal,
        2**24 + 1,
        1e30,
    ]
    return np.array([v for s in some for v in (s, -s)] + [np.nan], dtype)


# what NumPy and the C library say of special values, in double
REFERENCES: dict[str, Callable[..., Any]] = {
    name: reference
    for name, (reference, *_) in ACCURACY.items()
    if name
    not in (
        "erf",
        "erfc",
        "gamma",
        "gammaln",
        "psi",
        "trigamma",
        "sigmoid",
        "softplus",
        "log_sigmoid",
        "sign",
    )
} | {
    "erf": np.vectorize(math.erf),
    "erfc": np.vectorize(math.erfc),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "softplus": lambda x: np.logaddexp(x, 0),
    "log_sigmoid": lambda x: -np.logaddexp(-x, 0),
    "sign": np.sign,
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", REFERENCES)
def test_special_values(name: str, dtype: str) -> None:
    x = special_values(DTYPES[dtype][0])
    with np.errstate(all="ignore"):
        wanted = REFERENCES[name](
            x.astype(Long if name in ACCURACY and name not in ("erf", "erfc") else float)
        )
        wanted = wanted.astype(x.dtype)
    got = library("host", dtype)(name, x)
    for v, a, b in zip(x, got, wanted):
        same_kind = (np.isnan(a), np.isinf(a), a == 0) == (np.isnan(b), np.isinf(b), b == 0)
        assert same_kind and (np.isnan(b) or np.signbit(a) == np.signbit(b)), f"{name}({v}) = {a}, wanted {b}"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", [kind for kind in TARGETS if kind not in ("host", "x86-64-v2")])
def test_all_targets_with_fma_give_the_same_bits(kind: str, dtype: str) -> None:
    for name, ours, theirs in both(kind, dtype):
        np.testing.assert_array_equal(ours, theirs, err_msg=name)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_target_without_fma_is_within_four_ulps(dtype: str) -> None:
    """With the same NaN; near their zeros gamma's kin differ by as much as at 1, and erfinv's quotient by up to 8."""
    for name, ours, theirs in both("x86-64-v2", dtype):
        with np.errstate(all="ignore"):
            scale = np.maximum(np.abs(ours), 1) if name in ("gammaln", "psi") else np.abs(ours)
            far = np.abs(ours.astype(Long) - theirs) > (8 if name == "erfinv" else 4) * np.spacing(scale)
        far[(ours == theirs) | np.isnan(ours) & np.isnan(theirs)] = False
        odd = np.isnan(ours) != np.isnan(theirs)
        assert not np.any(far | odd), f"{name}: {ours[far | odd][:3]}, {theirs[far | odd][:3]}"


def both(kind: str, dtype: str) -> Iterator[tuple[str, Any, Any]]:
    """What each function gives here and on another target."""
    t = DTYPES[dtype][0]
    x = np.concatenate([special_values(t), points("angle", t)[::9], np.linspace(-4, 4, 5000, dtype=t)])
    operands = (x, x[::-1].copy(), np.roll(x, 7))
    for name, (arity, _) in vector_math.FUNCTIONS.items():
        ours, theirs = (library(k, dtype)(name, *operands[:arity]) for k in ("host", kind))
        yield name, ours, theirs


# -- two operands ------------------------------------------------------------------------------------------------------


def pairs(dtype: type[np.floating[Any]]) -> tuple[Array, Array]:
    """All pairs of special values, then random ones of all sizes."""
    s = special_values(dtype)
    a, b = np.meshgrid(s, s)
    x = points("any", dtype)
    y = np.random.default_rng(0).permutation(x)
    return np.concatenate([a.ravel(), x]), np.concatenate([b.ravel(), y])


EXACT: dict[str, Callable[..., Any]] = {
    "fmod": np.fmod,
    "mod": np.mod,
    "floordiv": np.floor_divide,
    "min": np.minimum,
    "max": np.maximum,
    "copysign": np.copysign,
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", EXACT)
def test_exact_functions_of_two_operands(name: str, dtype: str) -> None:
    a, b = pairs(DTYPES[dtype][0])
    with np.errstate(all="ignore"):
        wanted = EXACT[name](a, b)
    got = library("host", dtype)(name, a, b)
    np.testing.assert_array_equal(got, wanted)
    got, wanted = got[~np.isnan(wanted)], wanted[~np.isnan(wanted)]
    if name in ("fmod", "mod", "copysign"):
        assert np.array_equal(np.signbit(got), np.signbit(wanted))


@pytest.mark.parametrize("dtype", DTYPES)
def test_atan2(dtype: str) -> None:
    a, b = pairs(DTYPES[dtype][0])
    with np.errstate(all="ignore"):
        exact = np.arctan2(a.astype(Long), b.astype(Long))
    got = library("host", dtype)("atan2", a, b)
    assert ulps(got, exact).max() <= 2.0
    assert np.array_equal(np.signbit(got) & ~np.isnan(got), np.signbit(exact) & ~np.isnan(exact))


@pytest.mark.parametrize("dtype", DTYPES)
def test_pow(dtype: str) -> None:
    a, b = pairs(DTYPES[dtype][0])
    r = np.random.default_rng(1)
    x = points("positive", a.dtype.type)
    with np.errstate(all="ignore"):  # exponents for results of all sizes
        y = r.uniform(-1.05, 1.05, x.size) * np.finfo(a.dtype).maxexp / np.log2(x.astype(float))
    whole = r.uniform(-50, 50, N), r.integers(-20, 20, N)
    a = np.concatenate([a, x, whole[0]]).astype(a.dtype)
    b = np.concatenate([b, np.nan_to_num(y), whole[1]]).astype(a.dtype)
    with np.errstate(all="ignore"):
        exact = np.power(a.astype(Long), b.astype(Long))
    got = library("host", dtype)("pow", a, b)
    assert ulps(got, exact).max() <= (0.6 if dtype == "f32" else 1.3)
    assert np.array_equal(np.signbit(got) & ~np.isnan(got), np.signbit(exact) & ~np.isnan(exact))


def test_fma_rounds_once() -> None:
    a, b = np.array([1 + 2**-12], np.float32), np.array([-1], np.float32)
    assert library("host", "f32")("fma", a, a, b)[0] == np.float32(2**-11 + 2**-24)


def test_integers_have_no_vector_math() -> None:
    with pytest.raises(TypeError, match="float or double, got <4 x i32>"):
        vector_math.emit("exp", Emit(), VecType("i32", 4), "%x", target=host())


@pytest.mark.parametrize(
    "name, without", [("x86-64-v3", ("zmm", "%k1")), ("x86-64-v2", ("ymm", "vfmadd", "%xmm16"))]
)
def test_a_level_has_no_later_instructions(name: str, without: tuple[str, ...]) -> None:
    try:
        target = level(name)
    except KnobError as e:
        pytest.skip(str(e))
    e, t = Emit(), target.vector("float")
    e.function(f"void @f({t} %x, {t} %y, ptr %out)")
    e.line(f"store {t} {vector_math.emit('tanh', e, t, '%x', target=target)}, ptr %out")
    e.line(f"store {t} {vector_math.emit('pow', e, t, '%x', '%y', target=target)}, ptr %out")
    e.end()
    text = assembly("\n".join([*e.declared, e.text()]), target)
    assert "xmm" in text and not any(word in text for word in without)


def test_a_level_that_the_cpu_has_not_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LEVELS, "x86-64-v4", (512, "no-such-thing"))
    with pytest.raises(KnobError, match="TCC_TARGET=x86-64-v4 needs a CPU with no-such-thing"):
        level("x86-64-v4")
