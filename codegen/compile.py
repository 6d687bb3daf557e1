"""From a lowered function to object code: one module a function, with its entry."""

from __future__ import annotations

from tcc.codegen import engines, jit
from tcc.codegen.driver import Lowered
from tcc.codegen.emit import merge
from tcc.codegen.entry import entry_text
from tcc.codegen.image import Compiled
from tcc.codegen.target import Target


def compile_lowered(lowered: Lowered, target: Target) -> Compiled:
    """Object code of a function with its entry."""
    return Compiled(jit.compile_object(_text(lowered), target), _entry(lowered), lowered.engines)


def full_text(lowered: Lowered, target: Target) -> str:
    """All of a function's LLVM text, for people to read."""
    return merge([_text(lowered), *(engines.text(dtype, target) for dtype in lowered.engines.values())])


def _entry(lowered: Lowered) -> str:
    return lowered.name.replace("tcc_run_", "tcc_call_")


def _text(lowered: Lowered) -> str:
    return merge([lowered.module_text(), entry_text(_entry(lowered), lowered.signature, lowered.name)])
