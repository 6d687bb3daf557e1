"""Training loops as the book writes them stay finite and right with logits in the hundreds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from programs import LIKELIHOODS, SIZES, arguments, logistic_regression, softmax_regression

from tcc.ir.core import Func
from tcc.ir.interpret import run as interpret
from tcc.passes.manager import Context, run
from tcc.passes.pipeline import default_pipeline, parse_pipeline

Array = np.ndarray[Any, Any]


def optimised(func: Func) -> Func:
    run(func, default_pipeline(), Context())
    return func


def wide(arrays: list[Array]) -> list[Array]:
    return [a.astype(np.float64) if a.dtype.kind == "f" else a for a in arrays]


@pytest.mark.parametrize("likelihood", LIKELIHOODS.values(), ids=LIKELIHOODS)
def test_softmax_regression_with_large_logits(likelihood: Any) -> None:
    func = optimised(softmax_regression(likelihood))
    args = arguments(func)
    args[2] *= 1000
    x, y, w, bias = wide(args)
    rows = np.arange(SIZES["n"])
    z = x @ w + bias
    assert np.abs(z).max() > 800
    z -= z.max(1, keepdims=True)
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    cost = -np.mean(z[rows, y] - np.log(np.exp(z).sum(1)))
    p[rows, y] -= 1
    p /= SIZES["n"]
    want = [cost, w - 0.1 * (x.T @ p), bias - 0.1 * p.sum(0)]
    for got, expected in zip(interpret(func, *args), want, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize("likelihood", LIKELIHOODS.values(), ids=LIKELIHOODS)
def test_softmax_regression_is_one_row_kernel(likelihood: Any) -> None:
    func = optimised(softmax_regression(likelihood))
    rows = [op for op in func.body.ops if op.name == "fuse" and op.attrs["row"]]
    assert len(rows) == 1
    assert sum(o.name == "exp" for o in rows[0].block.ops) == 1


def test_logistic_regression_with_large_logits() -> None:
    func = optimised(logistic_regression())
    args = arguments(func)
    args[1] = (args[1] > 0).astype(np.float32)
    args[2] *= 1000
    x, y, w = wide(args)
    z = x @ w
    assert np.abs(z).max() > 400
    cost = np.mean(np.logaddexp(0, z) - y * z)
    with np.errstate(over="ignore"):
        step = x.T @ (1 / (1 + np.exp(-z)) - y) / SIZES["n"]
    got_cost, got_w = interpret(func, *args)
    np.testing.assert_allclose(got_cost, cost, rtol=1e-5)
    np.testing.assert_allclose(got_w, w - 0.1 * step, rtol=1e-5)


def test_without_the_stable_rules_they_overflow() -> None:
    func = softmax_regression()
    run(func, parse_pipeline("canonicalize,dce"), Context(strength="exact"))
    args = arguments(func)
    args[2] *= 1000
    with np.errstate(all="ignore"):
        assert not all(np.isfinite(r).all() for r in interpret(func, *args))
