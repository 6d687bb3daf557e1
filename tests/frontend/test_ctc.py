"""The loss of connectionist temporal classification, against the sum over all paths."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import tcc
import tcc.tensor as T
from tcc.tensor.nnet import ctc
from tcc.theano import module

X = np.random.RandomState(0).normal(size=(5, 4, 3))
CASES: list[tuple[list[int], int]] = [
    ([1, 2], 5),
    ([], 3),
    ([1, 1], 3),
    ([2, 2, 1], 4),
    ([1, 1], 2),
    ([1], 0),
    ([], 0),
    ([2], 1),
]


def collapsed(path: Any) -> list[int]:
    return [c for c, _ in itertools.groupby(path) if c]


def enumerated(x: Any, labels: list[int]) -> float:
    p = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
    paths = itertools.product(range(x.shape[1]), repeat=len(x))
    total = sum(np.prod([p[t, c] for t, c in enumerate(path)]) for path in paths if collapsed(path) == labels)
    with np.errstate(divide="ignore"):
        return float(-np.log(total))


def padded(rows: list[list[int]]) -> Any:
    width = max(map(len, rows))
    return np.array([r + [-1] * (width - len(r)) for r in rows], np.int32).reshape(len(rows), width)


@pytest.mark.parametrize("first", [0, 4])
def test_costs_are_those_of_all_paths(first: int) -> None:
    cases = CASES[first : first + 4]
    x, labels, lengths = T.dtensor3("x"), T.imatrix("labels"), T.ivector("lengths")
    f = tcc.function([x, labels, lengths], ctc(x, labels, lengths))
    given = padded([row for row, _ in cases]), np.array([n for _, n in cases], np.int32)
    wanted = [enumerated(X[:n, i], row) for i, (row, n) in enumerate(cases)]
    np.testing.assert_allclose(f(X, *given), wanted, rtol=1e-12)
    slope = tcc.function([x, labels, lengths], tcc.grad(ctc(x, labels, lengths).sum(), x))(X, *given)
    assert np.isfinite(slope).all()
    for i, (_, n) in enumerate(cases):
        assert not slope[n:, i].any() and (np.isfinite(wanted[i]) or not slope[:, i].any())


def test_gradient() -> None:
    labels, lengths = padded([[1, 2], [], [1, 1], [2, 2, 1]]), np.array([5, 3, 3, 5], np.int32)
    tcc.verify_grad(lambda x: ctc(x, labels, lengths), [X], rng=np.random.RandomState(1))


def test_large_activations_and_many_steps_do_not_overflow() -> None:
    x = 1000 * np.random.RandomState(1).normal(size=(300, 1, 5)).astype(np.float32)
    v = T.ftensor3("v")
    cost = ctc(v, np.array([[1, 2, 3]]), np.array([300]))
    assert cost.dtype == "float32"
    value, slope = tcc.function([v], [cost, tcc.grad(cost.sum(), v)])(x)
    assert np.isfinite(value).all() and value > 0 and np.isfinite(slope).all()
    np.testing.assert_allclose(slope.sum(-1), 0, atol=1e-5)


def test_what_is_out_of_range_is_refused() -> None:
    x = T.dtensor3("x")
    for labels, lengths, message in [
        ([[0]] * 4, [1] * 4, "0 is the blank"),
        ([[3]] * 4, [1] * 4, "within 1..2"),
        ([[1]] * 4, [6] * 4, "within 0..5"),
        ([[1]] * 3, [1] * 4, "mis-match|must be"),
    ]:
        with pytest.raises(ValueError, match=message):
            tcc.function([x], ctc(x, np.array(labels), np.array(lengths)))(X)
    with pytest.raises(ValueError, match="3 axes"):
        ctc(T.dmatrix(), T.imatrix(), T.ivector())
    with pytest.raises(TypeError, match="labels must be integers"):
        ctc(x, T.dmatrix(), T.ivector())


def test_theanos_names() -> None:
    t = module("tensor.nnet.ctc")
    assert t.ctc is ctc and t.ctc_available() and module("gpuarray.ctc").gpu_ctc is ctc
    made = t.ConnectionistTemporalClassification()(X, padded([[1]] * 4), np.full(4, 5, np.int32))
    assert made.eval().shape == (4,)
