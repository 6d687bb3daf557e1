"""The op that the example defines, and the reader that is trained through it."""

from __future__ import annotations

import re

import numpy as np
import pytest
from example_runs import run_example

import tcc
import tcc.tensor as T
import user_op


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (1, 1), (5, 7), (64, 2)])
def test_sparsemax_is_the_nearest_point_of_the_simplex(shape: tuple[int, int]) -> None:
    z = T.dmatrix("z")
    rows = 2 * np.random.default_rng(0).normal(size=shape)
    p = tcc.function([z], user_op.sparsemax(z))(rows)
    assert p.shape == shape and (p >= 0).all()
    if not p.size:
        return
    np.testing.assert_allclose(p.sum(1), 1)
    # nearest: z - p is the same where p > 0, and no larger elsewhere
    threshold = np.where(p > 0, rows - p, -np.inf).max(1, keepdims=True)
    np.testing.assert_allclose(np.maximum(rows - threshold, 0), p, atol=1e-12)


def test_its_sizes_are_known_without_running_it() -> None:
    z = T.dmatrix("z")
    assert tcc.function([z], user_op.sparsemax(z).shape)(np.full((2, 3), np.nan)).tolist() == [2, 3]


def test_what_it_does_not_take() -> None:
    for wrong in (T.imatrix(), T.dvector()):
        with pytest.raises(TypeError, match="Sparsemax wants a matrix of floats"):
            user_op.sparsemax(wrong)


def test_rank_correlation() -> None:
    a, b = T.fvectors("a", "b")
    f = tcc.function([a, b], user_op.rank_correlation(a, b))
    rising = np.arange(5, dtype=np.float32)
    assert np.isclose(f(rising, rising**3), 1) and np.isclose(f(rising, -rising), -1)


def test_the_reader_learns_and_the_number_of_threads_does_not_matter() -> None:
    outputs = []
    for threads in (1, 2):
        sizes = ("--items", 3, "--width", 2, "--steps", 1200, "--rate", 0.01)
        done = run_example("user_op.py", *sizes, threads=threads)
        assert done.returncode == 0, done.stderr
        lines = [line for line in done.stdout.splitlines() if line.startswith("step ")]
        errors = [float(e) for e in re.findall(r"square error ([\d.]+)", done.stdout)]
        assert len(lines) == 10 and errors[-1] < 0.6 * errors[0]
        assert re.search(r"ms a step, [\d,]+ steps a second", done.stdout)
        outputs.append(lines)
    assert outputs[0] == outputs[1]
