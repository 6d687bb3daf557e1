"""Gradients that keep the states of every N-th step."""

from __future__ import annotations

import numpy as np
import pytest

import tcc
import tcc.tensor as T
from tcc.ir.clone import clone
from tcc.passes.manager import Context, run
from tcc.passes.pipeline import cpu_pipeline


def step(a, h, w):
    return T.tanh(a * w + h)


@pytest.mark.parametrize("steps", [1, 7, 12, 13])
def test_the_last_state_and_its_gradients_are_those_of_scan(steps):
    x, h0, w = T.matrix(), T.vector(), T.vector()
    plain, _ = tcc.scan(step, [x], [h0], [w])
    kept, _ = tcc.scan_checkpoints(step, [x], [h0], [w], save_every_N=4)
    both = [h[-1] for h in (plain, kept)]
    f = tcc.function([x, h0, w], [*both, *(g for h in both for g in tcc.grad((h**2).sum(), [x, h0, w]))])
    rng = np.random.default_rng(0)
    a, b, *grads = f(rng.normal(size=(steps, 3)), rng.normal(size=3), rng.normal(size=3))
    np.testing.assert_allclose(a, b)
    for left, right in zip(grads[:3], grads[3:]):
        np.testing.assert_allclose(left, right)


def test_memory():
    x, h0, w = T.fvector(), T.fvector(), T.fvector()

    def peak(scan, **options):
        hs, _ = scan(step, [x], [h0], [w], **options)
        f = tcc.function([x, h0, w], tcc.grad(hs[-1].sum(), w))
        sizes = {str(p.type.shape[0]): n for p, n in zip(f.func.body.params, (10000, 256, 256))}
        func = clone(f.func, sizes)
        run(func, cpu_pipeline(), Context())
        return func.attrs["arena"]

    plain, kept = peak(tcc.scan), peak(tcc.scan_checkpoints, save_every_N=100)
    assert plain > 20e6 and kept < 0.7e6


def test_memory_where_gradients_read_the_new_states():
    h0 = T.fvector("h")
    hs, _ = tcc.scan_checkpoints(lambda h: T.tanh(h * 0.5), None, [h0], n_steps=10000, save_every_N=100)
    func = clone(tcc.function([h0], tcc.grad(hs[-1].sum(), h0)).func, {"h_0": 256})
    run(func, cpu_pipeline(), Context())
    assert func.attrs["arena"] < 0.7e6


def test_what_is_refused():
    with pytest.raises(RuntimeError, match="cannot have taps"):
        tcc.scan_checkpoints(step, [{"input": T.vector(), "taps": [0, 1]}], [T.scalar()])
    with pytest.raises(ValueError, match="positive"):
        tcc.scan_checkpoints(step, [T.vector()], [T.scalar()], [T.scalar()], save_every_N=0)
