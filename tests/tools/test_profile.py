"""The times of a function's kernels."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import tcc
import tcc.tensor as T
from tcc.tools.cli import run
from tcc.tools.peak import copy_bandwidth, fma_peak, read_bandwidth
from tcc.tools.profile import profile, table

MODEL = """
import numpy as np, tcc, tcc.tensor as T
x = T.fmatrix("x")
w = tcc.shared(np.ones((64, 64), np.float32), "w")
layer = tcc.function([x], T.dot(T.exp(x), w))
"""


def test_the_kernels_of_a_call_take_part_of_its_time() -> None:
    x = T.fmatrix("x")
    w = tcc.shared(np.ones((200, 300), np.float32), "w")
    f = tcc.function([x], T.dot(T.exp(x), w).sum(axis=0), updates=[(w, w + 1)])
    found, whole = profile(f.program, [np.ones((100, 200), np.float32)], seconds=0.05)
    product = next(k for k in found if k.op.name == "matmul")
    assert product.flops == 2 * 100 * 200 * 300 and product.calls == 1
    assert all(k.seconds > 0 for k in found) and sum(k.seconds for k in found) < 1.1 * whole
    assert "matmul f32[100,200] f32[200,300]" in table(found, whole)
    assert w.get_value()[0, 0] > 3  # it ran


def test_a_kernel_in_a_loop_is_called_for_each_turn() -> None:
    x = T.fvector("x")
    steps, _ = tcc.scan(lambda h: T.tanh(h) * 2, outputs_info=x, n_steps=7)
    found, _ = profile(tcc.function([x], steps[-1]).program, [np.ones(5, np.float32)], seconds=0.02)
    assert max(k.calls for k in found) == 7


def test_sizes_that_only_a_call_tells_are_counted_as_they_were() -> None:
    x, w, n = T.fmatrix("x"), T.fmatrix("w"), T.lscalar("n")
    f = tcc.function([x, w, n], T.dot(x[:n], w))
    args = [np.ones((40, 30), np.float32), np.ones((30, 20), np.float32), np.array(17)]
    found, _ = profile(f.program, args, seconds=0.02)
    assert [k.flops for k in found if k.op.name == "matmul"] == [2 * 17 * 30 * 20]


def test_profile_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "model.py").write_text(MODEL)
    target = f"{tmp_path / 'model.py'}:layer"
    assert run(["profile", target, "--size", "x_0=16", "--seconds", "0.02"]) == 0, capsys.readouterr().err
    assert "matmul f32[16,64] f32[64,64]" in capsys.readouterr().out
    assert run(["profile", target]) == 2
    assert "--size" in capsys.readouterr().err


def test_the_limits_are_of_this_world() -> None:
    assert 1e8 < fma_peak() < 1e13
    for bandwidth in (read_bandwidth, copy_bandwidth):
        assert 1e8 < bandwidth(1 << 20) < 1e13
