"""LeNet on a few made-up digits of 16 x 16 pixels."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from example_runs import run_example, write_digits

import lenet
import tcc
import tcc.tensor as T


@pytest.mark.slow
@pytest.mark.parametrize("dropout", [0, 0.1])
def test_it_learns_and_the_number_of_threads_does_not_matter(tmp_path: Path, dropout: float) -> None:
    data = write_digits(tmp_path / "mnist.pkl.gz", 256, (400, 130, 130))
    small = ("--data", data, "--filters", 3, 4, "--hidden", 16, "--batch", 50, "--epochs", 12, "--rate", 0.1)
    small = (*small, "--dropout", dropout)
    costs: list[list[str]] = []
    for threads in (1, 2):
        done = run_example("lenet.py", *small, threads=threads)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.strip().splitlines()
        error = re.fullmatch(r"lenet: test error (\d+\.\d\d) %", lines[-1])
        assert error is not None and float(error[1]) < 2
        assert re.match(r"lenet: \d+\.\d\d ms a step", lines[-2])
        costs.append([line.split("   ")[1] for line in lines if "epoch " in line])
    assert costs[0] == costs[1]


def test_digits_that_are_no_squares_are_refused(tmp_path: Path) -> None:
    done = run_example("lenet.py", "--data", write_digits(tmp_path / "mnist.pkl.gz", 200, (400, 130, 130)))
    assert done.returncode == 1
    assert done.stderr.startswith("lenet.py: error: LeNet needs square digits")


def test_a_share_that_is_none_is_refused() -> None:
    done = run_example("lenet.py", "--dropout", 1)
    assert done.returncode == 2 and "wanted a share of at least 0 and less than 1, got 1" in done.stderr


@pytest.mark.usefixtures("float32")
def test_units_are_dropped_while_it_learns_and_not_when_it_is_used() -> None:
    """With dropout, the cost of the same step differs from call to call, and the error does not."""
    model = lenet.lenet(256, 2, 3, 32, seed=0, dropout=0.5)
    x, y = np.random.default_rng(0).random((8, 256), np.float32), np.arange(8, dtype=np.int32)
    cost = tcc.function([model.x, model.y], model.cost)
    assert len({float(cost(x, y)) for _ in range(4)}) == 4
    used = tcc.function([model.x], model.probabilities)
    assert np.array_equal(used(x), used(x))


@pytest.mark.usefixtures("float32")
def test_what_is_dropped() -> None:
    x = T.matrix("x")
    made = tcc.function([x], lenet.dropped(x, 0.25, tcc.random.Stream(3)))(np.full((200, 300), 3, np.float32))
    assert set(np.unique(made)) == {np.float32(0), np.float32(4)}
    assert abs((made == 0).mean() - 0.25) < 0.01
