"""Graphs that are deeper than Python's stack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tcc
import tcc.tensor as T
from tcc.runtime import cache

DEPTH = 4_000


def chain(depth: int) -> tuple[Any, Any]:
    x = T.fvector("x")
    y = x
    for _ in range(depth):
        y = T.tanh(y)
    return x, y


@pytest.fixture(scope="module")
def deep() -> tuple[Any, Any]:
    return chain(DEPTH)


def test_printing(deep: tuple[Any, Any], capsys: pytest.CaptureFixture[str]) -> None:
    x, y = deep
    assert tcc.pp(y).count("tanh") == DEPTH
    tcc.printing.debugprint(y)
    assert capsys.readouterr().out.count("Elemwise{tanh") == DEPTH
    assert "tanh" in repr(y.owner)


def test_clone(deep: tuple[Any, Any]) -> None:
    x, y = deep
    z = T.fvector("z")
    copy = tcc.clone(y, {x: z})
    assert tcc.graph.inputs([copy]) == [z]


def test_gradient_and_value(deep: tuple[Any, Any]) -> None:
    x, y = deep
    at = np.linspace(-1, 1, 5).astype(np.float32)
    np.testing.assert_allclose(y.eval({x: at}), np.sign(at) * np.sqrt(1.5 / DEPTH), rtol=0.01)
    assert np.isfinite(tcc.grad(y.sum(), x).eval({x: at})).all()


def test_compiled() -> None:
    x, y = chain(1200)
    f = tcc.function([x], [y, tcc.grad(y.sum(), x)])
    at = np.linspace(-1, 1, 5).astype(np.float32)
    np.testing.assert_allclose(f(at)[0], np.sign(at) * np.sqrt(1.5 / 1200), rtol=0.01)


def test_arithmetic_on_sizes() -> None:
    x, n = T.fvector("x"), T.lscalar("n")

    def arithmetic(size: Any, number: Any) -> Any:
        for k in range(2000):
            size, number = (size * 3 + k) % 7, number * 3 % 1000 + 1
        return size + number % 10

    f = tcc.function([x, n], T.zeros((arithmetic(x.shape[0], n),)))
    for length in (2, 3):
        assert f(np.ones(length, np.float32), 1).shape == (arithmetic(length, 1),)


def test_a_size_cut_again_and_again_stays_short() -> None:
    x = T.fvector("x")
    y = x
    for _ in range(50):
        y = T.tanh(y[1:])
    f = tcc.function([x], y)
    assert [f(np.ones(n, np.float32)).shape for n in (60, 50, 49, 0, 51)] == [(10,), (0,), (0,), (0,), (1,)]


def test_many_operands_of_unknown_sizes() -> None:
    xs = [T.fmatrix() for _ in range(100)]
    f = tcc.function(xs, T.concatenate(xs, axis=1))
    assert f(*(np.full((2, k % 3), k, np.float32) for k in range(100))).shape == (2, 99)


def test_a_function_of_many_kernels_is_kept_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_default", [cache.Cache(tmp_path)])
    at = np.linspace(-1, 1, 12).astype(np.float32).reshape(3, 4)
    want = at
    for _ in range(400):
        want = np.tanh(want - want.sum(axis=0))
    for cached in (False, True):
        x = T.fmatrix("x")
        y = x
        for _ in range(400):
            y = T.tanh(y - y.sum(axis=0))
        f = tcc.function([x], y, mode="FAST_RUN")
        np.testing.assert_allclose(f(at), want, rtol=1e-4, atol=1e-5)
        assert f.program.history[-1].cached == cached
