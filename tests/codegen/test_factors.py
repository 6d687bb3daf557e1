"""Factors and solutions in native code: residuals in float64 or wider, what fails and where, and bits that nothing changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tcc.ir.text import parse_func
from tcc.runtime.threads import pool
from tcc.tools.compare import compile_native

Array = np.ndarray[Any, Any]
KINDS = {"f32": np.float32, "f64": np.float64}
SIZES = (0, 1, 2, 3, 4, 7, 8, 9, 16, 31, 33, 67, 100)
SYSTEMS = ((0, 0), (0, 3), (3, 0), (1, 1), (2, 1), (3, 2), (4, 4), (5, 3), (8, 8), (9, 24), (24, 25), (37, 31), (67, 1), (70, 100))  # fmt: skip
KNOWN = ((1, 1), (2, 1), (4, 4), (5, 3), (8, 30), (9, 24), (33, 1), (67, 52))
TARGETS = [(t, d) for t in ("host", "x86-64-v3", "x86-64-v2", "plain") for d in KINDS]
over_targets = pytest.mark.parametrize("target, dtype", TARGETS)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def text(row: str, dtype: str, results: str, attrs: str = "", second: str = "") -> str:
    param, operand = (f", %b: {dtype}[{second}]", ", %b") if second else ("", "")
    return f"""func @f(%a: {dtype}[c,n,n]{param}) -> ({results}) {{
      %x, %s = {row} %a{operand} {{{attrs}}} : {results}
      yield %x, %s
    }}"""


def compiled(row: str, dtype: str, exact: bool, attrs: str = "") -> Any:
    second = "c,n,k" if row.endswith("solve") else ""
    result = {"cholesky_factor": "c,n,n", "lu_pivots": "c,n"}.get(row, "c,n,k")
    func = parse_func(text(row, dtype, f"{dtype}[{result}], i64[c]", attrs, second))
    return compile_native(func, {}, exact=exact)[0]


def positive(rng: np.random.Generator, n: int, dtype: str) -> Array:
    x = rng.standard_normal((2, n, n))
    return (x @ x.transpose(0, 2, 1) + np.eye(n)).astype(KINDS[dtype])


def spoiled(x: Array, upper: bool = False, by: float = np.nan) -> Array:
    """With the half that is not read full of what would be noticed."""
    made, at = x.copy(), np.tril_indices(x.shape[-1], -1) if upper else np.triu_indices(x.shape[-1], 1)
    made[(..., *at)] = by
    return made


def check_residual(a: Array, x: Array, b: Array) -> None:
    """|a x - b| is as small as elimination promises: some n eps (|a| |x| + |b|) for each element."""
    wide = [y.astype(np.longdouble) for y in (a, x, b)]
    bound = np.abs(wide[0]) @ np.abs(wide[1]) + np.abs(wide[2])
    assert np.all(np.abs(wide[0] @ wide[1] - wide[2]) <= (2 * len(a) + 4) * np.finfo(a.dtype).eps * bound)


@over_targets
def test_cholesky(target: str, dtype: str, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    monkeypatch.setenv("TCC_TARGET", target)
    f = compiled("cholesky_factor", dtype, exact=False)
    for n in SIZES:
        x = positive(rng, n, dtype)
        y, failed = f(spoiled(x))
        assert not failed.any()
        np.testing.assert_array_equal(y, np.tril(y))
        for a, b in zip(y, x, strict=True):
            check_residual(a, a.T, b)
        if n in (1, 3, 8, 9, 31, 67):
            known = compiled("cholesky_factor", dtype, exact=True)(spoiled(x))
            np.testing.assert_array_equal(known[0], y)


@over_targets
@pytest.mark.parametrize("upper", [False, True])
def test_triangles(
    target: str, dtype: str, upper: bool, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    monkeypatch.setenv("TCC_TARGET", target)
    attrs = f"upper = {str(upper).lower()}"
    f = compiled("triangular_solve", dtype, False, attrs)
    for n, k in SYSTEMS:
        a = (rng.standard_normal((3, n, n)) + 3 * np.eye(n)).astype(KINDS[dtype])
        b = rng.standard_normal((3, n, k)).astype(KINDS[dtype])
        x, failed = f(spoiled(a, upper), b)
        assert not failed.any()
        for one, y, right in zip(np.triu(a) if upper else np.tril(a), x, b, strict=True):
            check_residual(one, y, right)
        if (n, k) in KNOWN:
            known = compiled("triangular_solve", dtype, True, attrs)(spoiled(a, upper), b)
            np.testing.assert_array_equal(known[0], x)


@over_targets
def test_elimination(
    target: str, dtype: str, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    monkeypatch.setenv("TCC_TARGET", target)
    solve, pivots = (compiled(row, dtype, exact=False) for row in ("lu_solve", "lu_pivots"))
    for n, k in SYSTEMS:
        a = rng.standard_normal((3, n, n)).astype(KINDS[dtype])
        b = rng.standard_normal((3, n, k)).astype(KINDS[dtype])
        x, failed = solve(a, b)
        assert not failed.any()
        for one, y, right in zip(a, x, b, strict=True):
            check_residual(one, y, right)
        p, failed = pivots(a)
        assert not failed.any()
        wanted = np.linalg.det(a.astype(np.float64))
        wide = a.astype(np.float64)
        # a backward error of n eps, which the condition number makes larger
        bound = [8 * n * np.finfo(a.dtype).eps * np.linalg.cond(one) if n else 0 for one in wide]
        assert np.all(np.abs(np.prod(p.astype(np.float64), -1) - wanted) <= bound * np.abs(wanted))
        if (n, k) in KNOWN:
            np.testing.assert_array_equal(compiled("lu_solve", dtype, exact=True)(a, b)[0], x)
            np.testing.assert_array_equal(compiled("lu_pivots", dtype, exact=True)(a)[0], p)


def test_rows_are_taken_by_the_largest_of_their_column(rng: np.random.Generator) -> None:
    """Without pivoting these are lost to rounding."""
    for n in (2, 9, 40):
        a = rng.standard_normal((1, n, n))
        a[0, np.arange(n), np.arange(n)] = 1e-20
        x = rng.standard_normal((1, n, 1))
        got, _ = compiled("lu_solve", "f64", exact=True)(a, a @ x)
        np.testing.assert_allclose(got, x, rtol=1e-8)


@pytest.mark.parametrize("dtype", KINDS)
def test_pivots_whose_reciprocals_are_infinite(dtype: str) -> None:
    tiny = np.finfo(KINDS[dtype]).tiny / 64
    for n in (2, 12):
        a = np.tril(np.full((1, n, n), tiny, KINDS[dtype]))
        a[0, -1, -1] = 1
        p, failed = compiled("lu_pivots", dtype, exact=True)(a)
        assert failed[0] == 0 and np.isfinite(p).all() and p[0, 0] == tiny


@pytest.mark.parametrize("n", [1, 2, 8, 9, 40])
@pytest.mark.parametrize("exact", [False, True])
def test_the_first_pivot_that_fails(n: int, exact: bool, rng: np.random.Generator) -> None:
    x = np.concatenate([positive(rng, n, "f64")] * 2)
    at = n // 2
    x[1, at, at] = -1.0
    x[2, n - 1, n - 1] = np.nan
    y, failed = compiled("cholesky_factor", "f64", exact)(x)
    assert failed.tolist() == [0, at + 1, n, 0]
    assert np.isfinite(y[[0, 3]]).all() and np.isnan(y[1:3]).all()
    a = rng.standard_normal((2, n, n)) + 4 * np.eye(n)
    a[1, at, at] = 0.0
    b = np.ones((2, n, 1))
    for upper in (False, True):
        attrs = f"upper = {str(upper).lower()}"
        assert compiled("triangular_solve", "f64", exact, attrs)(a, b)[1].tolist() == [0, at + 1]
    a = rng.integers(1, 5, (2, n, n)) + 9.0 * n * np.eye(n)
    a[1, :, at] = 0.0
    for row, args in (("lu_solve", (a, b)), ("lu_pivots", (a,))):
        assert compiled(row, "f64", exact)(*args)[1].tolist() == [0, at + 1]


@pytest.mark.parametrize("n", [1, 2, 9, 40])
def test_infinities_and_nan(n: int) -> None:
    x = np.eye(n)[None]
    x[0, 0, 0] = np.inf
    y, failed = compiled("cholesky_factor", "f64", True)(x)
    assert failed[0] == 0 and y[0, 0, 0] == np.inf
    np.testing.assert_array_equal(y[0, 1:, 1:], np.eye(n - 1))
    a, b = 2 * np.eye(n)[None], np.ones((1, n, 2))
    b[0, n - 1, 1] = np.nan
    for row in ("lu_solve", "triangular_solve"):
        got, failed = compiled(row, "f64", True)(a, b)
        assert failed[0] == 0
        np.testing.assert_array_equal(got[0, :, 0], np.full(n, 0.5))
        assert np.isnan(got[0, n - 1, 1])


@pytest.mark.parametrize("n, k", [(3, 2), (20, 1), (20, 30)])
def test_operands_are_read_where_they_lie(n: int, k: int, rng: np.random.Generator) -> None:
    """Transposed, every second element, backwards; and solutions in the place of the right-hand sides."""
    source = f"""func @f(%a: f64[2,{2 * n},{n}], %b: f64[2,{k},{n}]) -> (f64[2,{n},{k}], f64[2,{n},{k}], f64[2,{n},{n}]) {{
      %s = slice %a {{start = [0, {2 * n - 1}, 0], size = [2, {n}, {n}], step = [1, -2, 1]}} : f64[2,{n},{n}]
      %t = dimshuffle %s {{order = [0, 2, 1]}} : f64[2,{n},{n}]
      %r = dimshuffle %b {{order = [0, 2, 1]}} : f64[2,{n},{k}]
      %x, %p = triangular_solve %t, %r : f64[2,{n},{k}], i64[2]
      %y, %q = lu_solve %t, %r : f64[2,{n},{k}], i64[2]
      %c, %o = cholesky_factor %t : f64[2,{n},{n}], i64[2]
      yield %x, %y, %c
    }}"""
    a, b = rng.standard_normal((2, 2 * n, n)), rng.standard_normal((2, k, n))
    seen = a[:, ::-2][:, :n]
    seen += 8 * n * np.eye(n)
    x, y, c = compile_native(parse_func(source), {}, exact=True)[0](a, b)
    for one, low, full, factor, right in zip(
        seen.transpose(0, 2, 1), x, y, c, b.transpose(0, 2, 1), strict=True
    ):
        check_residual(np.tril(one), low, right)
        check_residual(one, full, right)
        check_residual(factor, factor.T, np.tril(one) + np.tril(one, -1).T)


def test_any_number_of_threads_gives_the_same_bits(rng: np.random.Generator) -> None:
    a, b = rng.standard_normal((5, 90, 90)) + 9 * np.eye(90), rng.standard_normal((5, 90, 200))
    threads, found = pool(), []
    try:
        for limit in (1, threads.threads):
            threads.limit = limit
            found.append([compiled(r, "f64", False)(a, b)[0] for r in ("triangular_solve", "lu_solve")])
    finally:
        threads.limit = threads.threads
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
