"""The engines behind matrix products: one a dtype, compiled and loaded once a process, and shared by all functions."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable, Mapping

from tcc.codegen import jit
from tcc.codegen.emit import VecType, merge
from tcc.codegen.keys import cache_key
from tcc.codegen.target import Target
from tcc.runtime import cache, native
from tcc.runtime.symbols import symbols

_ELEMENTS = {"f32": "float", "f64": "double"}
_loaded: dict[tuple[str, Target], jit.Image] = {}
_loading = threading.Lock()
_workers: list[threading.Thread] = []


def vector(dtype: str, target: Target) -> VecType:
    """What an engine computes with."""
    return target.vector(_ELEMENTS[dtype])


def addresses(engines: Mapping[str, str], target: Target) -> dict[str, int]:
    """The entries of engines, given by name and dtype."""
    return {name: _image(dtype, target).address(name) for name, dtype in engines.items()}


def prepare(dtypes: Iterable[str], target: Target) -> None:
    """Begins to load engines beside what the caller does next: LLVM runs without the GIL."""
    for dtype in sorted(_ELEMENTS.keys() & set(dtypes)):
        if (dtype, target) not in _loaded:
            worker = threading.Thread(target=_try, args=(dtype, target), name=f"tcc engine {dtype}")
            _workers.append(worker)
            worker.start()


def text(dtype: str, target: Target) -> str:
    """All functions of an engine."""
    from tcc.codegen.gemm import engine  # not needed for what the cache has

    return merge(engine(vector(dtype, target), target).values())


def _try(dtype: str, target: Target) -> None:
    with contextlib.suppress(Exception):  # whoever needs the engine tries again and is told
        _image(dtype, target)


def _image(dtype: str, target: Target) -> jit.Image:
    with _loading:
        if (dtype, target) not in _loaded:
            key = cache_key("engine", dtype, target)
            code = cache.get(key)
            if code is None:
                code = jit.compile_object(text(dtype, target), target)
                cache.put(key, code)
            known = {**symbols(), "tcc_parallel": native.provided("tcc_parallel")}
            _loaded[dtype, target] = jit.Image.load([code], known)
        return _loaded[dtype, target]


def _finish() -> None:
    """A forked child has no workers, and would wait for their locks for ever."""
    while _workers:
        _workers.pop().join()


os.register_at_fork(before=_finish)
