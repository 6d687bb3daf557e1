"""The benchmarks' own honesty: what they compare with, and that a wrong result is not timed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.__main__ import disagreement, measure
from benchmarks.cases import CASES, RATE, Array, inputs_of
from benchmarks.numpy_peer import cost_and_slope, reference
from benchmarks.processes import Peer, start
from benchmarks.report import Row, quantity, table

ADD = next(case for case in CASES if case.kind == "add_one")


def slope_by_differences(z: Array, y: Array, step: float = 1e-6) -> Array:
    slope = np.empty_like(z)
    for at in np.ndindex(z.shape):
        up, down = z.copy(), z.copy()
        up[at] += step
        down[at] -= step
        slope[at] = (cost_and_slope(up, y)[0] - cost_and_slope(down, y)[0]) / (2 * step)
    return slope


def test_the_reference_slope_is_that_of_the_cost() -> None:
    rng = np.random.default_rng(0)
    z, y = rng.standard_normal((4, 5)), rng.integers(0, 5, 4)
    np.testing.assert_allclose(cost_and_slope(z, y)[1], slope_by_differences(z, y), atol=1e-8)


@pytest.mark.parametrize("kind", ["logistic", "mlp"])
def test_the_reference_step_goes_downhill(kind: str) -> None:
    """The cost falls by about the rate times the squared norm of the gradient."""
    inputs = inputs_of(next(case for case in CASES if case.kind == kind))
    names = ("w", "b") if kind == "logistic" else ("w1", "b1", "w2", "b2")
    cost, *after = reference(kind, inputs)
    slopes = [(inputs[name].astype(np.float64) - new) / RATE for name, new in zip(names, after)]
    expected = RATE * sum(float((slope**2).sum()) for slope in slopes)
    tiny = 1e-3  # a step so short that the slope is that of its start
    for name, slope in zip(names, slopes):
        inputs[name] = inputs[name].astype(np.float64) - tiny * RATE * slope
    assert (cost - reference(kind, inputs)[0]) / tiny == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(
    "results, words",
    [
        ((), "0 results, wanted 1"),
        ((np.zeros((8, 1), np.float32),), "shape (8, 1), wanted (8,)"),
        ((np.zeros(8, np.float32),), "off by"),
        ((np.full(8, np.nan, np.float32),), "off by nan"),
    ],
)
def test_a_wrong_result_is_noticed(tmp_path: Path, results: tuple[Array, ...], words: str) -> None:
    np.savez(tmp_path / "r.npz", *results)
    assert words in str(disagreement(ADD, tmp_path / "r.npz"))


def test_a_right_result_is_accepted(tmp_path: Path) -> None:
    np.savez(tmp_path / "r.npz", inputs_of(ADD)["x"] + 1)
    assert disagreement(ADD, tmp_path / "r.npz") is None


@pytest.fixture
def numpy_peer(tmp_path: Path) -> Iterator[dict[str, Peer]]:
    peers = start(["numpy"], None, [min(os.sched_getaffinity(0))], tmp_path)
    yield peers
    for peer in peers.values():
        peer.close()


def test_a_peer_in_its_own_process_is_timed(numpy_peer: dict[str, Peer], tmp_path: Path) -> None:
    row = measure(ADD, numpy_peer, 1, tmp_path, rounds=1, seconds=0.01)
    assert not row.failures and 1e-8 < row.seconds["numpy"] < 1e-3


def test_a_case_that_fails_is_named(numpy_peer: dict[str, Peer], tmp_path: Path) -> None:
    reply = numpy_peer["numpy"].ask("prepare", ADD.name, results=str(tmp_path / "no" / "such.npz"))
    assert reply["error"].startswith("FileNotFoundError")


def test_the_table_sets_tcc_against_the_best_peer() -> None:
    row = Row("product", 2, flops=1e9)
    row.seconds = {"tcc": 0.010, "numpy": 0.025, "jax": 0.020}
    row.failures = {"torch": "off by nan"}
    text = table([row], {2: 200e9}, 1e10)
    assert text.splitlines()[2].split() == "product 2 10 ms 25 ms 20 ms failed 2.00 jax 50 % fma".split()
    assert "product, 2 threads: torch: off by nan" in text


def test_quantities_carry_their_unit() -> None:
    assert [quantity(s) for s in (2.5, 7.71e-3, 42e-6, 84e-9, None)] == [
        "2.5 s",
        "7.71 ms",
        "42 us",
        "84 ns",
        "-",
    ]


def test_every_case_has_a_name_of_its_own() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
