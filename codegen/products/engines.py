"""The engines behind matrix products: one a dtype, compiled and loaded once a process, and shared by all functions.

A user who waits for a first result waits for a quick engine; the whole one is compiled beside what the program does next.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

from tcc.codegen import jit
from tcc.codegen.emit import VecType, merge, reachable
from tcc.codegen.keys import cache_key
from tcc.codegen.products.record import ALL, FORMS, Reach, engine_name
from tcc.codegen.target import Target
from tcc.runtime import cache, native
from tcc.runtime.symbols import symbols

PATIENCE_S = 0.5  # from a function's code to its first result, for which the CPU, the GIL and LLVM's lock are left free
_ELEMENTS = {"f32": "float", "f64": "double"}
# the engine that callers are linked to from now on, and the forms of products that it is for
_loaded: dict[tuple[str, Target], tuple[jit.Image, frozenset[int]]] = {}
# all that were ever loaded: functions linked to one call it as long as they live
_images: list[jit.Image] = []
# quick engines that wait for the whole one
_quick: dict[tuple[str, Target], list[jit.Image]] = {}
# whole engines that nobody has begun to compile
_unfinished: list[tuple[str, Target]] = []
_loading = threading.Lock()
_workers: list[threading.Thread] = []


def vector(dtype: str, target: Target) -> VecType:
    """What an engine computes with."""
    return target.vector(_ELEMENTS[dtype])


def addresses(
    engines: Mapping[str, str], target: Target, forms: Mapping[str, Iterable[int]] = MappingProxyType({})
) -> dict[str, int]:
    """The entries of engines, given by name and dtype; `forms` of a dtype's products, where these are known."""
    return {
        name: _image(dtype, target, frozenset(forms.get(dtype, FORMS))).address(name)
        for name, dtype in engines.items()
    }


def prepare(forms: Mapping[str, Iterable[int]], target: Target) -> None:
    """Begins to load engines, for the forms of each dtype, beside what the caller does next: LLVM runs without the GIL."""
    for dtype, needed in sorted(forms.items()):
        if not _does(dtype, target, frozenset(needed)):
            _start(_image, dtype, target, frozenset(needed))


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


def _does(dtype: str, target: Target, forms: frozenset[int]) -> bool:
    """Whether the engine that is loaded is for these forms."""
    return (dtype, target) in _loaded and forms <= _loaded[dtype, target][1]


def _image(dtype: str, target: Target, forms: frozenset[int]) -> jit.Image:
    """An engine in memory: the one that the cache has, else a quick one until the whole one is there.

    The first quick one is for the forms that a first function needs, a second one for all.
    """
    with _loading:
        if not _does(dtype, target, forms):
            code = cache.get(cache_key("engine", dtype, target))
            if code is not None:
                _loaded[dtype, target] = _load([code]), ALL.forms
            else:
                first = (dtype, target) not in _quick
                forms = forms if first else ALL.forms
                quick = _load(_quick_code(dtype, target, forms))
                _loaded[dtype, target] = quick, forms
                _quick.setdefault((dtype, target), []).append(quick)
                if first:
                    _unfinished.append((dtype, target))
        return _loaded[dtype, target][0]


def _complete(dtype: str, target: Target) -> None:
    """Compiles the whole engine, and has quick ones hand calls on to it."""
    threading.main_thread().join(PATIENCE_S)  # ends sooner where the program does
    code = jit.compile_object(text(dtype, target), target)
    cache.put(cache_key("engine", dtype, target), code)
    whole = _load([code])
    name = engine_name(vector(dtype, target))
    with _loading:
        _loaded[dtype, target] = whole, ALL.forms
        for quick in _quick.pop((dtype, target)):
            ctypes.c_void_p.from_address(quick.address(name + "_now")).value = whole.address(name)


def _load(code: Sequence[bytes]) -> jit.Image:
    image = jit.Image.load(code, {**symbols(), "tcc_parallel": native.provided("tcc_parallel")})
    _images.append(image)
    return image


def _quick_code(dtype: str, target: Target, forms: frozenset[int]) -> list[bytes]:
    from tcc.codegen.products.quick import quick_engine

    t = vector(dtype, target)
    hot, rest = (merge(texts.values()) for texts in quick_engine(t, target, forms))
    rest = reachable(rest, [engine_name(t)])
    return [jit.compile_object(hot, target), jit.compile_object(rest, target, level=0)]


def wait() -> None:
    """Until nothing is compiled beside the program: a forked child has no workers, and would wait for their locks for ever."""
    while _workers:
        _workers.pop().join()


os.register_at_fork(before=wait)
