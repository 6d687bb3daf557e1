"""The engines of a process: quick ones first, whole ones when they are compiled or in the cache."""

from __future__ import annotations

import ctypes
import gc
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tcc.codegen import support
from tcc.codegen.products import engines
from tcc.codegen.products.record import ALL, DOT, TILES, engine_name
from tcc.codegen.target import host
from tcc.runtime import cache


@pytest.fixture(autouse=True)
def none_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engines.wait()  # an engine that is still being compiled would land in this test's cache
    monkeypatch.setattr(cache, "_default", [cache.Cache(tmp_path)])
    monkeypatch.setattr(engines, "_loaded", {})
    monkeypatch.setattr(engines, "_quick", {})
    monkeypatch.setattr(engines, "_unfinished", [])
    support.load()


def test_the_whole_engine_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    name = engine_name(engines.vector("f32", host()))
    tiles, more = frozenset({TILES}), frozenset({DOT})
    first = engines._image("f32", host(), tiles)
    assert engines._image("f32", host(), tiles) is first
    second = engines._image("f32", host(), more)
    assert second is not first
    assert all(engines._image("f32", host(), forms) is second for forms in (tiles, ALL.forms))
    pointers = [ctypes.c_void_p.from_address(quick.address(name + "_now")) for quick in (first, second)]
    assert [p.value for p in pointers] == [quick.address(name + "_quick") for quick in (first, second)]
    engines.finish()
    engines.wait()
    whole = engines._image("f32", host(), ALL.forms)
    assert whole not in (first, second)
    assert {p.value for p in pointers} == {whole.address(name)}

    monkeypatch.setattr(engines, "_loaded", {})
    kept = engines._image("f32", host(), ALL.forms)
    assert kept.address(name)
    with pytest.raises(RuntimeError):
        kept.address(name + "_now")


def test_an_engine_that_a_function_found_in_the_cache_meanwhile_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engines._image("f32", host(), frozenset({TILES}))
    load, found = engines._load, list[Any]()

    def meanwhile(code: Sequence[bytes]) -> Any:
        if not found:  # kept already, and not yet what all have
            found.append(None)
            found[0] = weakref.ref(engines._image("f32", host(), ALL.forms))
        return load(code)

    monkeypatch.setattr(engines, "_load", meanwhile)
    engines.finish()
    engines.wait()
    gc.collect()
    assert found[0]() is not None and engines._image("f32", host(), ALL.forms) is not found[0]()
