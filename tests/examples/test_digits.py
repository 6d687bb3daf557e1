"""The demo as a user runs it, on a few made-up digits of 16 pixels."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from example_runs import EXAMPLES, run_example, write_digits


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("digits") / "mnist.pkl.gz", 16, (1200, 250, 250))


def trained(data: Path, out: Path, *more: object, threads: int = 1) -> list[str]:
    """The lines of a short training run, which leaves its results in `out`."""
    sizes = ("--hidden", 8, "--batch", 100, "--epochs", 20, "--linear-epochs", 20)
    done = run_example("digits.py", "--data", data, "--out", out, *sizes, *more, threads=threads)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()


def parameters(out: Path) -> dict[str, bytes]:
    with np.load(out / "mlp.npz") as saved:
        return {name: saved[name].tobytes() for name in saved.files}


def test_both_classifiers_learn(data: Path, tmp_path: Path) -> None:
    lines = trained(data, tmp_path)
    errors = [re.fullmatch(r"(linear|mlp): test error (\d+\.\d\d) %", line) for line in lines[-2:]]
    assert [error and error[1] for error in errors] == ["linear", "mlp"]
    assert all(error and float(error[2]) < 20 for error in errors)
    assert (tmp_path / "losses.png").read_bytes().startswith(b"\x89PNG")
    with np.load(tmp_path / "mlp.npz") as saved:
        shapes = {name: saved[name].shape for name in saved.files}
    assert shapes == {"W1": (16, 8), "b1": (8,), "W2": (8, 10), "b2": (10,)}


def test_a_seed_fixes_every_bit(data: Path, tmp_path: Path) -> None:
    """Again, on two threads where it was one."""
    for name, threads in (("a", 1), ("b", 2)):
        trained(data, tmp_path / name, "--seed", 5, threads=threads)
    trained(data, tmp_path / "other", "--seed", 6)
    first = parameters(tmp_path / "a")
    assert parameters(tmp_path / "b") == first
    assert parameters(tmp_path / "other") != first


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_another_optimizer_with_clipping_learns(data: Path, tmp_path: Path, optimizer: str) -> None:
    lines = trained(data, tmp_path, "--optimizer", optimizer, "--rate", 0.05, "--clip", 1.0)
    assert float(lines[-1].split()[-2]) < 60


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("--data", "nowhere"), "no such file or folder"),
        (("--optimizer", "magic"), "invalid choice: 'magic'"),
    ],
)
def test_wrong_arguments_get_a_message(arguments: tuple[str, ...], words: str) -> None:
    done = run_example("digits.py", *arguments)
    assert done.returncode != 0 and words in done.stderr and "Traceback" not in done.stderr


def test_the_training_step_builds_without_data(tmp_path: Path) -> None:
    program = "import digits; step = digits.train_step(); print(round(float(step(0)), 4), step.name)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(EXAMPLES), "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "2.3026 mlp_step", done.stderr
    assert not (tmp_path / "tcc-examples").exists()
