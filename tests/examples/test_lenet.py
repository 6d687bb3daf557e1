"""LeNet on a few made-up digits of 16 x 16 pixels."""

from __future__ import annotations

import gzip
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PROGRAM = Path(__file__).parent.parent.parent / "examples" / "lenet.py"


def digits(path: Path, pixels: int) -> Path:
    rng = np.random.default_rng(3)
    prototypes = rng.random((10, pixels))

    def part(rows: int) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
        labels = rng.integers(0, 10, rows)
        return (prototypes[labels] + 0.1 * rng.standard_normal((rows, pixels))).astype(np.float32), labels

    with gzip.open(path, "wb", 1) as file:
        pickle.dump((part(400), part(130), part(130)), file, protocol=4)
    return path


def demo(*arguments: object, threads: int = 1) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(PROGRAM), *map(str, arguments)],
        env={**os.environ, "TCC_THREADS": str(threads)},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_it_learns_and_the_number_of_threads_does_not_matter(tmp_path: Path) -> None:
    data = digits(tmp_path / "mnist.pkl.gz", 256)
    small = ("--data", data, "--filters", 3, 4, "--hidden", 16, "--batch", 50, "--epochs", 12, "--rate", 0.1)
    costs = []
    for threads in (1, 2):
        done = demo(*small, threads=threads)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.strip().splitlines()
        error = re.fullmatch(r"lenet: test error (\d+\.\d\d) %", lines[-1])
        assert error is not None and float(error[1]) < 2
        assert re.match(r"lenet: \d+\.\d\d ms a step", lines[-2])
        costs.append([line.split("   ")[1] for line in lines if "epoch " in line])
    assert costs[0] == costs[1]


def test_digits_that_are_no_squares_are_refused(tmp_path: Path) -> None:
    done = demo("--data", digits(tmp_path / "mnist.pkl.gz", 200))
    assert done.returncode == 1
    assert done.stderr.startswith("lenet.py: error: LeNet needs square digits")
