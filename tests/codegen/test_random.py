"""The rows of random numbers: against published numbers, and native code against NumPy, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from tcc.ir.interpret import run
from tcc.ir.ops.random import M1, M2, philox
from tcc.ir.text import parse_func
from tcc.tools.compare import run_native

TARGETS = {"host": {}, "plain128": {"TCC_TARGET": "plain", "TCC_VECTOR_BITS": "128"}}


@pytest.fixture(autouse=True, params=TARGETS)
def target(request, monkeypatch):
    for name, value in TARGETS[request.param].items():
        monkeypatch.setenv(name, value)


# Random123's kat_vectors for philox4x32, 10 rounds: counter, key, the first two words
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB),
    ),
]


def word64(low, high):
    return np.uint64(low | high << 32)


@pytest.mark.parametrize("counter, key, wanted", KNOWN)
def test_philox_gives_the_published_numbers(counter, key, wanted):
    args = word64(*counter[:2]), word64(*counter[2:]), word64(*key)
    assert philox(*args) == word64(*wanted)
    func = parse_func(
        "func @f(%a: u64[n], %b: u64[n], %k: u64[n]) -> (u64[n]) {\n"
        "  %r = philox %a, %b, %k : u64[n]\n  yield %r\n}"
    )
    (made,) = run_native(func, [np.full(11, a) for a in args])
    assert (made == word64(*wanted)).all()


def step(x):
    """One number of MRG31k3p as its authors write it, in Python's integers."""
    y1 = ((x[1] & 511) << 22) + (x[1] >> 9) + ((x[2] & 16777215) << 7) + (x[2] >> 24)
    y1 = (y1 % M1 + x[2]) % M1
    y2 = ((x[3] & 65535) << 15) + 21069 * (x[3] >> 16)
    y3 = ((x[5] & 65535) << 15) + 21069 * (x[5] >> 16)
    y2 = (y2 % M2 + (y3 % M2 + x[5]) % M2) % M2
    x[:] = [y1, x[0], x[1], y2, x[3], x[4]]
    return y1 - y2 + M1 if y1 <= y2 else y1 - y2


@pytest.mark.parametrize(
    "streams, count", [(5, 13), (40, 300), (16, 16), (16, 5), (17, 119), (33, 0), (1, 7)]
)
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_mrg_draws_what_its_definition_says(streams, count, known, dtype):
    s, n = (streams, count) if known else ("s", "n")
    func = parse_func(
        f"func @f(%x: i32[{s},6], %l: f32[{n}]) -> (i32[{s},6], {dtype}[{n}]) {{\n"
        f'  %a, %b = mrg %x {{count = {n}, dtype = "{dtype}"}} : i32[{s},6], {dtype}[{n}]\n'
        "  yield %a, %b\n}"
    )
    states = np.random.RandomState(1).randint(1, M2, (streams, 6)).astype(np.int32)
    args = [states, np.zeros(count, np.float32)]
    exact = [[int(v) for v in row] for row in states]
    whole = [step(exact[i % streams]) for i in range(count)]
    norm = np.float32(4.6566126e-10) if dtype == "f32" else 2.0**-31
    wanted = np.array(whole, np.float32 if dtype == "f32" else np.float64) * norm
    for after, drawn in (run(func, *args), run_native(func, args, exact=known)):
        assert np.array_equal(after, np.array(exact, np.int32).reshape(streams, 6))
        assert drawn.dtype == wanted.dtype and np.array_equal(drawn, wanted)


@pytest.mark.parametrize("n", [0, 1, 3, 8, 17, 64, 1000])
@pytest.mark.parametrize("exact", [True, False])
def test_positions_are_those_that_hold(n, exact):
    c = np.random.default_rng(n).random(n) < 0.4
    func = parse_func(
        "func @f(%c: bool[n], %l: f32[k]) -> (i64[k]) {\n"
        "  %r = positions %c {count = k} : i64[k]\n  yield %r\n}"
    )
    (made,) = run_native(func, [c, np.zeros(c.sum(), np.float32)], exact=exact)
    assert np.array_equal(made, np.flatnonzero(c))


@pytest.mark.parametrize("n", [0, 1, 2, 3, 8, 17, 64, 1000])
@pytest.mark.parametrize("dtype, kind", [("f32", np.float32), ("f64", np.float64), ("i64", np.int64)])
@pytest.mark.parametrize("side", ["left", "right"])
def test_searchsorted_is_numpys(n, dtype, kind, side):
    rng = np.random.default_rng(n)
    x, v = np.sort(rng.integers(-20, 20, n).astype(kind)), rng.integers(-22, 22, 77).astype(kind)
    if kind is not np.int64:
        v[3:6] = np.nan, np.inf, -np.inf
        x[n // 2 + 1 :] = np.nan
    func = parse_func(
        f"func @f(%x: {dtype}[n], %v: {dtype}[m]) -> (i64[m]) {{\n"
        f'  %r = searchsorted %x, %v {{side = "{side}"}} : i64[m]\n  yield %r\n}}'
    )
    for exact in (True, False):
        assert np.array_equal(run_native(func, [x, v], exact=exact)[0], np.searchsorted(x, v, side))
