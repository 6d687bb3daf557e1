"""Rows of complex numbers as native code, against NumPy in a wider precision: vectors of several kinds, any length and stride."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from emulated import DEVICE

import tcc
import tcc.tensor as T
from tcc.ahead import refuse_python
from tcc.exporting import exported

TARGETS = {
    "host": {},
    "v3": {"TCC_TARGET": "x86-64-v3"},
    "v2": {"TCC_TARGET": "x86-64-v2"},
    "plain128": {"TCC_TARGET": "plain", "TCC_VECTOR_BITS": "128"},
}
WIDE = {"complex64": np.complex128, "complex128": np.clongdouble}
LENGTHS = (0, 1, 3, 16, 37, 150)

ONE: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "neg": (lambda z: -z, np.negative),
    "conj": (T.conj, np.conj),
    "real": (T.real, np.real),
    "imag": (T.imag, np.imag),
    "abs": (abs, np.abs),
    "angle": (T.angle, np.angle),
    "sqr": (T.sqr, np.square),
    "inv": (T.inv, np.reciprocal),
    "sqrt": (T.sqrt, np.sqrt),
    "exp": (T.exp, np.exp),
    "exp2": (T.exp2, np.exp2),
    "expm1": (T.expm1, np.expm1),
    "log": (T.log, np.log),
    "log2": (T.log2, np.log2),
    "log10": (T.log10, np.log10),
    "log1p": (T.log1p, lambda z: log1p(z)),
    "sin": (T.sin, np.sin),
    "cos": (T.cos, np.cos),
    "tan": (T.tan, np.tan),
    "sinh": (T.sinh, np.sinh),
    "cosh": (T.cosh, np.cosh),
    "tanh": (T.tanh, np.tanh),
    "arcsin": (T.arcsin, np.arcsin),
    "arccos": (T.arccos, np.arccos),
    "arctan": (T.arctan, np.arctan),
    "arcsinh": (T.arcsinh, np.arcsinh),
    "arccosh": (T.arccosh, np.arccosh),
    "arctanh": (T.arctanh, np.arctanh),
    "cube": (lambda z: z**3, lambda z: z * z * z),
    "inverse square": (lambda z: z**-2, lambda z: 1 / (z * z)),
    "root": (lambda z: z**0.5, np.sqrt),
    "plus a number": (lambda z: 2 * z + (1 - 2j), lambda z: 2 * z + (1 - 2j)),
}
TWO: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "add": (lambda a, b: a + b, np.add),
    "sub": (lambda a, b: a - b, np.subtract),
    "mul": (lambda a, b: a * b, np.multiply),
    "div": (lambda a, b: a / b, np.divide),
    "pow": (lambda a, b: a**b, np.power),
    "eq": (T.eq, np.equal),
    "neq": (T.neq, np.not_equal),
    "lt": (T.lt, np.less),
    "le": (T.le, np.less_equal),
    "gt": (T.gt, np.greater),
    "ge": (T.ge, np.greater_equal),
    "maximum": (T.maximum, np.maximum),
    "minimum": (T.minimum, np.minimum),
    "switch": (lambda a, b: T.switch(T.real(a) > 0, a, b), lambda a, b: np.where(a.real > 0, a, b)),
}


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TARGETS[request.param].items():
        monkeypatch.setenv(name, value)


def draw(n: int, dtype: str, seed: int = 0) -> Any:
    """Parts of all sizes, some of them equal, 0 or of one sign."""
    rng = np.random.default_rng(seed + n)
    z = (rng.standard_normal(n) + 1j * rng.standard_normal(n)) * rng.choice([1e-3, 0.5, 1.0, 4.0], n)
    z[::7] = z[::7].real
    z[3::11] = 1j * z[3::11].imag
    return z.astype(dtype)


def log1p(z: Any) -> Any:
    """NumPy's own loses what 1 + z does."""
    return 0.5 * np.log1p(z.real * (z.real + 2) + z.imag**2) + 1j * np.arctan2(z.imag, 1 + z.real)


def close(got: Any, want: Any, dtype: str, what: str, units: float) -> None:
    """Within so many units in the last place; zeros, infinities and NaN where they are wanted."""
    assert got.dtype.kind == want.dtype.kind and got.shape == want.shape, what
    want = want.astype(got.dtype)
    if want.dtype.kind == "b":
        np.testing.assert_array_equal(got, want, err_msg=what)
        return
    ordinary = np.isfinite(want)
    np.testing.assert_array_equal(got[~ordinary], want[~ordinary], err_msg=what)
    got, want = got[ordinary], want[ordinary]
    size = np.maximum(np.abs(want), np.finfo(dtype).tiny)
    worst = np.max(np.abs(got - want) / size, initial=0.0) / np.finfo(dtype).eps
    assert worst < units, f"{what}: {worst:.1f} units"


@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.usefixtures("target")
def test_functions_of_numbers(dtype: str) -> None:
    x, y = (T.TensorType(dtype, (False,))(n) for n in "xy")
    f = tcc.function([x, y], [*(of(x) for of, _ in ONE.values()), *(of(x, y) for of, _ in TWO.values())])
    refuse_python(exported({"f": f}, "m"))
    for n in LENGTHS:
        a, b = draw(n, dtype), draw(n, dtype, 1)
        b[::5] = a[::5]
        u, v = a.astype(WIDE[dtype]), b.astype(WIDE[dtype])
        with np.errstate(all="ignore"):
            want = [*(ref(u) for _, ref in ONE.values()), *(ref(u, v) for _, ref in TWO.values())]
        for got, w, what in zip(f(a, b), want, [*ONE, *TWO], strict=True):
            close(got, w, dtype, f"{what} of {n}", 400 if what == "pow" else 8)


@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.usefixtures("target")
def test_strides_and_reductions(dtype: str) -> None:
    """Operands that lie turned, apart and backwards, casts of real ones, sums over any axes, maps around them."""
    x, y = (T.TensorType(dtype, (False, False))(n) for n in "xy")
    r = T.TensorType("float32", (False, False))("r")
    made = {
        "turned": x.T * y.T[::-1],
        "apart": x[:, ::2] + r[:, ::2] * y[:, ::2],
        "rows": x * y[0] - x[:, :1].sum(axis=1, keepdims=True),
        "all": (x * y).sum(),
        "axis 0": (x * T.conj(y)).sum(axis=0),
        "axis 1": T.exp(x).sum(axis=1, keepdims=True) + x,
        "mean": (x + r).mean(axis=1),
        "norms": T.real(x * T.conj(x)).sum(axis=1),
        "scaled": x / abs(x).sum(axis=1, keepdims=True),
        "filled": T.zeros_like(x) + (2 + 1j),
        "parts": T.concatenate([T.real(x), T.imag(x.T).T], axis=1),
    }
    f = tcc.function([x, y, r], list(made.values()))
    refuse_python(exported({"f": f}, "m"))
    for m, n in ((3, 0), (1, 1), (5, 37), (67, 19), (2, 300)):
        a, b = (draw(2 * m * n, dtype, s).reshape(m, 2 * n)[:, ::2] for s in (0, 1))
        c = np.random.default_rng(m).standard_normal((m, n)).astype("float32")
        u, v, w = a.astype(WIDE[dtype]), b.astype(WIDE[dtype]), c.astype(WIDE[dtype])
        with np.errstate(all="ignore"):
            want = {
                "turned": u.T * v.T[::-1],
                "apart": u[:, ::2] + w[:, ::2] * v[:, ::2],
                "rows": u * v[0] - u[:, :1],
                "all": (u * v).sum(),
                "axis 0": (u * v.conj()).sum(0),
                "axis 1": np.exp(u).sum(1, keepdims=True) + u,
                "mean": (u + w).mean(1) if n else np.full(m, np.nan, WIDE[dtype]),
                "norms": (u * u.conj()).real.sum(1),
                "scaled": u / np.abs(u).sum(1, keepdims=True),
                "filled": 0 * u + (2 + 1j),
                "parts": np.concatenate([u.real, u.imag], axis=1),
            }
        for got, (what, ref) in zip(f(a, b, c), want.items(), strict=True):
            if what == "mean" and n == 0:
                assert np.isnan(got).all()
                continue
            loose = np.finfo(dtype).eps * 400
            np.testing.assert_allclose(got, ref, rtol=loose, atol=loose, err_msg=f"{what} of {m} x {n}")


def moved(dtype: str) -> tuple[list[Any], dict[str, Any], list[Any], list[Any]]:
    """Inputs, what moves or adds numbers by index, arguments, and what NumPy makes of them."""
    x, y = (T.TensorType(dtype, (False, False))(n) for n in "xy")
    i = T.lvector("i")
    made = {
        "set": T.set_subtensor(x[1:, ::2], y[1:, ::2] * 2),
        "inc": T.inc_subtensor(x[1:, ::-2], y[1:, ::-2] * 2),
        "taken": x[i] * y[0],
        "taken columns": x[:, i],
        "points": x[i, i],
        "put": T.set_subtensor(x[i], y[i]),
        "added": T.inc_subtensor(x[i], y[i]),
        "points added": T.inc_subtensor(x[i, i], y[i, i]),
        "rolled": T.roll(x, 2, axis=0),
        "joined": T.concatenate([x, y * x]),
        "flat": (x * y).reshape((-1,)),
        "turned": x.T,
        "running": T.cumsum(x, axis=0),
        "diagonal": T.diag(x[:4, :4]),
        "product": T.dot(x, T.conj(y).T),
        "product of a turned one": T.dot(x.T, y[::-1])[1:] * 2,
        "low product": T.dot(x[:3], y.T),
        "products": T.batched_dot(T.stack([x, y]), T.stack([y, x]).dimshuffle(0, 2, 1)),
        "vectors": T.dot(x[0], y[1]),
        "matrix by vector": T.dot(x, y[1]),
    }
    a, b = (draw(40 * 37, dtype, s).reshape(40, 37) for s in (0, 1))
    j = np.array([0, 3, 3, -1, 2])
    changed = [a.copy() for _ in range(5)]
    changed[0][1:, ::2] = b[1:, ::2] * 2
    changed[1][1:, ::-2] += b[1:, ::-2] * 2
    changed[2][j] = b[j]
    np.add.at(changed[3], j, b[j])
    np.add.at(changed[4], (j, j), b[j, j])
    want = [*changed[:2], a[j] * b[0], a[:, j], a[j, j], *changed[2:], np.roll(a, 2, 0)]
    want += [np.concatenate([a, b * a]), (a * b).ravel(), a.T, np.cumsum(a, 0), np.diag(a[:4, :4])]
    want += [
        a @ b.conj().T,
        (a.T @ b[::-1])[1:] * 2,
        a[:3] @ b.T,
        np.stack([a @ b.T, b @ a.T]),
        a[0] @ b[1],
        a @ b[1],
    ]
    return [x, y, i], made, [a, b, j], want


def compare(made: dict[str, Any], results: Any, want: list[Any], dtype: str) -> None:
    loose = np.finfo(dtype).eps * 400
    for what, got, w in zip(made, results, want, strict=True):
        assert got.dtype == w.dtype
        np.testing.assert_allclose(got, w, rtol=loose, atol=loose, err_msg=what)


@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.usefixtures("target")
def test_moved_elements_and_products(dtype: str) -> None:
    inputs, made, args, want = moved(dtype)
    f = tcc.function(inputs, list(made.values()))
    refuse_python(exported({"f": f}, "m"))
    compare(made, f(*args), want, dtype)


@pytest.mark.parametrize("dtype", WIDE)
def test_on_a_gpu(dtype: str) -> None:
    """Maps, sums and what moves elements, as kernels alone: the CPU's results."""
    x, y = (T.TensorType(dtype, (False, False))(n) for n in "xy")
    results = [x * y, x / y, T.exp(x), T.sqrt(y), T.tanh(x), abs(x), x.T * y.T, (x * y).sum()]
    results += [(x * y).sum(axis=0), T.exp(x).sum(axis=1, keepdims=True) + x]
    a, b = (draw(40 * 37, dtype, s).reshape(40, 37) for s in (0, 1))
    ours, theirs = (tcc.function([x, y], results, device=d)(a, b + 3) for d in ("cpu", DEVICE))
    for k, (cpu, device) in enumerate(zip(ours, theirs, strict=True)):
        np.testing.assert_allclose(device, cpu, rtol=1e-5 if dtype == "complex64" else 1e-12, err_msg=str(k))
    inputs, made, args, want = moved(dtype)
    f = tcc.function(inputs, list(made.values()), device=DEVICE)
    compare(made, f(*args), want, dtype)


def special(dtype: str) -> Any:
    info = np.finfo(dtype)
    parts = [0.0, -0.0, 1, -1, 0.5, np.inf, -np.inf, np.nan, 1e4, float(info.max) * 0.9, float(info.tiny)]
    re, im = np.meshgrid(np.array(parts, info.dtype), np.array(parts, info.dtype))
    z = np.empty(re.size, dtype)
    z.real, z.imag = re.ravel(), im.ravel()
    return z


# of functions whose special values are those of C's library, those that differ: a part of infinity that is NaN here
INVERSE = [name for name in ONE if name.startswith("arc")]  # of finite numbers whose squares are finite
DIFFER = {"exp": 3, "exp2": 3, "sin": 12, "cos": 14, "tan": 12, "sinh": 12, "cosh": 14, "tanh": 12}
LIKE_NUMPY = (
    "neg conj real imag abs angle inv sqrt log root add sub eq neq lt le gt ge maximum minimum switch".split()
)


@pytest.mark.parametrize("dtype", WIDE)
def test_special_numbers(dtype: str) -> None:
    """Zeros, infinities and NaN in either part give what they give in NumPy."""
    x, y = (T.TensorType(dtype, (False,))(n) for n in "xy")
    a = special(dtype)
    pairs = [np.repeat(a, a.size), np.tile(a, a.size)]
    for name in [*LIKE_NUMPY, *DIFFER, *INVERSE]:
        of, ref = (ONE | TWO)[name]  # type: ignore[operator]
        count, args = (1, [a]) if name in ONE else (2, pairs)
        with np.errstate(all="ignore"):
            got, want = tcc.function([x, y][:count], of(*[x, y][:count]))(*args), ref(*args)
        if want.dtype.kind == "b":
            assert np.array_equal(got, want), name
            continue
        with np.errstate(all="ignore"):
            tiny = np.finfo(dtype).tiny * 8  # numbers that have lost bits
            equal = [
                np.isclose(p(got), p(want), 1e-5, tiny, equal_nan=True) | (p(got) == p(want))
                for p in (np.real, np.imag)
            ]
        wrong = ~(equal[0] & equal[1])
        if name in INVERSE:
            wrong &= np.abs(a) < 1e18
        finite = np.logical_and.reduce([np.isfinite(v) for v in args])
        assert not (wrong & finite).any(), f"{name} of {[v[wrong & finite][:3] for v in args]}"
        assert wrong.sum() <= DIFFER.get(name, 0), (
            f"{name} of {[v[wrong][:9] for v in args]}: {got[wrong][:9]}"
        )
