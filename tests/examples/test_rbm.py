"""The Boltzmann machine on a few made-up digits of 8 x 8 pixels, and what it computes on machines small enough to enumerate."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from example_runs import Array, run_example, write_parts

import rbm
import tcc
import tcc.tensor as T


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Ten prototypes of zeros and ones; one pixel in thirty is wrong."""
    rng = np.random.default_rng(3)
    prototypes = rng.random((10, 64)) < 0.5

    def images(labels: Array) -> Array:
        return prototypes[labels] ^ (rng.random((len(labels), 64)) < 1 / 30)

    return write_parts(tmp_path / "mnist.pkl.gz", rng, images, (1000, 100, 100))


def test_it_learns_and_leaves_pictures(data: Path, tmp_path: Path) -> None:
    outputs = []
    for threads in (1, 2):
        out = tmp_path / str(threads)
        sizes = ("--hidden", 24, "--epochs", 6, "--samples", 2, "--between", 10, "--steps", 2)
        done = run_example("rbm.py", "--data", data, "--out", out, *sizes, threads=threads)
        assert done.returncode == 0, done.stderr
        guesses = [float(g) for g in re.findall(r"pseudo-likelihood (-[\d.]+)", done.stdout)]
        assert len(guesses) == 6 and guesses[-1] > 0.6 * guesses[0]
        assert re.search(r"ms a step, [\d,.]+ steps a second", done.stdout)
        outputs.append((guesses, (out / "samples.pgm").read_bytes()))
        assert (out / "filters.pgm").read_bytes().startswith(b"P5\n89 26\n255\n")
    assert outputs[0] == outputs[1]


@pytest.mark.usefixtures("float32")
def test_free_energy_and_pseudo_likelihood_by_enumeration() -> None:
    machine, rng = rbm.Machine(4, 3, seed=1), np.random.default_rng(0)
    machine.visible_bias.set_value(rng.normal(size=4).astype(np.float32))
    w, b, c = (p.get_value() for p in machine.parameters)
    every_v, every_h = (np.array(list(itertools.product((0, 1), repeat=n)), np.float32) for n in (4, 3))
    sums = np.exp((every_v @ b)[:, None] + every_h @ c + every_v @ w @ every_h.T).sum(1)
    v = T.matrix("v")
    np.testing.assert_allclose(tcc.function([v], machine.free_energy(v))(every_v), -np.log(sums), rtol=1e-5)

    guess, updates = machine.pseudo_likelihood(v)
    f = tcc.function([v], guess, updates=updates)
    log_p = dict(zip(map(tuple, every_v), np.log(sums)))
    for pixel in (0, 1, 2, 3, 0):
        x = every_v[5:6]
        other = x.copy()
        other[0, pixel] = 1 - other[0, pixel]
        here, there = log_p[tuple(x[0])], log_p[tuple(other[0])]
        np.testing.assert_allclose(f(x), 4 * (here - np.logaddexp(here, there)), rtol=1e-5)


@pytest.mark.usefixtures("float32")
def test_gibbs_sampling_draws_by_the_machines_own_probabilities() -> None:
    machine = rbm.Machine(2, 2, seed=1)
    w = machine.weights.get_value()
    every = np.array(list(itertools.product((0, 1), repeat=2)), np.float32)
    p = np.exp(every @ w @ every.T).sum(1)
    v = T.matrix("v")
    _, drawn, updates = machine.gibbs(v, 20)
    chains = tcc.function([v], drawn, updates=updates)(np.zeros((20_000, 2), np.float32))
    found = np.array([(chains == row).all(1).mean() for row in every])
    np.testing.assert_allclose(found, p / p.sum(), atol=0.02)


def test_pictures() -> None:
    picture = rbm.tiled(np.array([[0, 1, 2, 4], [5, 5, 5, 5], [-1, 0, 0, 1]], np.float32), 2)
    assert picture.tolist() == [
        [0, 63, 0, 0, 0],
        [127, 255, 0, 0, 0],
        [0, 0, 0, 0, 0],
        [0, 127, 0, 0, 0],
        [127, 255, 0, 0, 0],
    ]
    assert rbm.as_text(np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1]], np.float32).ravel()) == "@="
