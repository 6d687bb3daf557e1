"""LLVM's quick way to code for what a test compiles a second time: it changes no bit, and takes a third of the time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from tcc.codegen import jit
from tcc.codegen.target import Target
from tcc.ir.arrays import Array
from tcc.ir.core import Func
from tcc.runtime import cache
from tcc.tools.compare import run_native


@contextmanager
def quick_code(wanted: bool = True) -> Iterator[None]:
    """Functions that are compiled meanwhile, at their first call, are compiled so if it is `wanted`; the engines of products
    are not, which serve later tests too."""
    compile_object = jit.compile_object

    def quick(text: str, target: Target, level: int = 2) -> bytes:
        of_engine = "@tcc_mk_" in text
        return compile_object(text, target, 0 if wanted and not of_engine else level)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "_default", [cache.Cache(None)])
        patch.setattr(jit, "compile_object", quick)
        yield


def native(func: Func, arrays: Sequence[Array], *, exact: bool = True) -> list[Array]:
    """`run_native` with known sizes as programs have it, and run-time ones quickly."""
    with quick_code(not exact):
        return run_native(func, arrays, exact=exact)


def natively_quick(func: Func, arrays: Sequence[Array], *, exact: bool = True) -> list[Array]:
    with quick_code():
        return run_native(func, arrays, exact=exact)
