"""The engines behind matrix products: one a dtype, compiled and loaded once a process, and shared by all functions.

A user who waits for a first result waits for a quick engine; the whole one is compiled beside what the program does next.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence

from tcc.codegen import jit
from tcc.codegen.emit import VecType, merge
from tcc.codegen.keys import cache_key
from tcc.codegen.products.record import ALL, Reach
from tcc.codegen.target import Target
from tcc.runtime import cache, native
from tcc.runtime.symbols import symbols

PATIENCE_S = 0.5  # from a function's code to its first result, for which the CPU, the GIL and LLVM's lock are left free
_ELEMENTS = {"f32": "float", "f64": "double"}
_loaded: dict[tuple[str, Target], jit.Image] = {}
# engines that have taken over from quick ones, whose callers stay linked to these
_whole: list[jit.Image] = []
# quick engines whose whole ones nobody has begun to compile
_unfinished: list[tuple[str, Target, jit.Image]] = []
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
            _start(_image, dtype, target)


def finish() -> None:
    """Whole engines will be compiled in place of quick ones, once whoever waits for a first result should have it."""
    while _unfinished:
        _start(_complete, *_unfinished.pop())


def text(dtype: str, target: Target, reach: Reach = ALL) -> str:
    """All functions of an engine."""
    from tcc.codegen.products.gemm import engine  # not needed for what the cache has

    return merge(engine(vector(dtype, target), target, reach).values())


def _start(work: Callable[..., object], *args: object) -> None:
    def run() -> None:
        with contextlib.suppress(Exception):  # whoever needs the engine tries again and is told
            work(*args)

    worker = threading.Thread(target=run, name="tcc engine")
    _workers.append(worker)
    worker.start()


def _image(dtype: str, target: Target) -> jit.Image:
    """An engine in memory: the one that the cache has, else a quick one until the whole one is there."""
    with _loading:
        if (dtype, target) not in _loaded:
            code = cache.get(cache_key("engine", dtype, target))
            if code is not None:
                _loaded[dtype, target] = _load([code])
            else:
                _loaded[dtype, target] = quick = _load(_quick_code(dtype, target))
                _unfinished.append((dtype, target, quick))
        return _loaded[dtype, target]


def _complete(dtype: str, target: Target, quick: jit.Image) -> None:
    """Compiles the whole engine, and has the quick one hand calls on to it."""
    from tcc.codegen.products.record import engine_name

    threading.main_thread().join(PATIENCE_S)  # ends sooner where the program does
    code = jit.compile_object(text(dtype, target), target)
    cache.put(cache_key("engine", dtype, target), code)
    whole = _load([code])
    name = engine_name(vector(dtype, target))
    _whole.append(whole)
    ctypes.c_void_p.from_address(quick.address(name + "_now")).value = whole.address(name)


def _load(code: Sequence[bytes]) -> jit.Image:
    return jit.Image.load(code, {**symbols(), "tcc_parallel": native.provided("tcc_parallel")})


def _quick_code(dtype: str, target: Target) -> list[bytes]:
    from tcc.codegen.products.quick import quick_engine

    hot, rest = (merge(texts.values()) for texts in quick_engine(vector(dtype, target), target))
    return [jit.compile_object(hot, target), jit.compile_object(rest, target, level=0)]


def wait() -> None:
    """Until nothing is compiled beside the program: a forked child has no workers, and would wait for their locks for ever."""
    while _workers:
        _workers.pop().join()


os.register_at_fork(before=wait)
