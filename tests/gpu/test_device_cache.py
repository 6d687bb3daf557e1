"""What a function is compiled to for a device comes from the cache the second time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tcc
import tcc.tensor as T
from tcc.devicecode import DeviceCode
from tcc.devices import DeviceSource
from tcc.runtime import cache


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> cache.Cache:
    own = cache.Cache(tmp_path)
    monkeypatch.setattr(cache, "_default", [own])
    return own


def made() -> tuple[Any, Any]:
    """A function with a loop, a branch, sizes that depend on data, checks and an update."""
    x, i = T.fmatrix("x"), T.lvector("i")
    w = tcc.shared(np.ones((3, 4), np.float32), "w")
    h, _ = tcc.scan(lambda a, h: T.tanh(h + a), sequences=x, outputs_info=T.zeros((3,), "float32"))
    outputs = [h, T.dot(x, w)[i], x[(x[:, 0] > 0).nonzero()], tcc.ifelse(x.sum() > 0, x + 1, x - 1)]
    return tcc.function([x, i], outputs, updates=[(w, w * 2)], device="emulator"), w


def test_a_program_from_the_cache_is_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    given, index = np.float32([[1, 2, 3], [-4, 5, 6]]), np.array([1, 0, -1])
    (first, w), (second, v) = made(), made()
    want = first(given, index)
    monkeypatch.setattr(DeviceSource, "device_program", lambda *_: pytest.fail("made again"))
    for a, b in zip(want, second(given, index), strict=True):
        assert a.tobytes() == b.tobytes()
    assert [c.cached for f in (first, second) for c in f.program.history] == [False, True]
    assert (w.get_value() == v.get_value()).all()
    with pytest.raises(IndexError, match=r"index 2 is out of bounds(.|\n)*test_device_cache.py:"):
        second(given, [0, 2, 1])
    program, copy = (f.variant.program for f in (first, second))
    assert (copy.buffers, copy.steps, copy.kernels) == (program.buffers, program.steps, program.kernels)
    assert copy.signature == program.signature


def test_what_python_runs_is_not_kept(kept: cache.Cache) -> None:
    x = T.dmatrix("x")
    f = tcc.function([x], T.nlinalg.matrix_inverse(x), device="emulator")
    f(np.eye(2))
    assert not DeviceCode.of(f.variant.program).can_be_kept
    assert not f.program.history[-1].cached and not kept.hits
