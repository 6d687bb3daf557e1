"""The engines of a process: quick ones first, whole ones when they are compiled or in the cache."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from tcc.codegen import support
from tcc.codegen.products import engines
from tcc.codegen.products.record import engine_name
from tcc.codegen.target import host
from tcc.runtime import cache


def test_the_whole_engine_takes_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engines.wait()  # an engine that is still being compiled would land in this test's cache
    monkeypatch.setattr(cache, "_default", [cache.Cache(tmp_path)])
    monkeypatch.setattr(engines, "_loaded", {})
    monkeypatch.setattr(engines, "_unfinished", [])
    support.load()
    name = engine_name(engines.vector("f32", host()))
    quick = engines._image("f32", host())
    now = ctypes.c_void_p.from_address(quick.address(name + "_now"))
    assert now.value == quick.address(name + "_quick")
    assert engines._image("f32", host()) is quick
    engines.finish()
    engines.wait()
    assert now.value == engines._whole[-1].address(name)

    monkeypatch.setattr(engines, "_loaded", {})
    kept = engines._image("f32", host())
    assert kept.address(name)
    with pytest.raises(RuntimeError):
        kept.address(name + "_now")
