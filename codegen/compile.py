"""From a lowered function to object code: one module a function, with its entry; of a long function two.

LLVM's register coalescer, which `optnone` does not leave out, takes time quadratic in a function: 0.8 s for 4000 calls of
kernels.  At level 0 it does not run, but a module more costs a millisecond.
"""

from __future__ import annotations

from tcc.codegen import engines, jit
from tcc.codegen.driver import Lowered
from tcc.codegen.emit import merge
from tcc.codegen.entry import entry_text
from tcc.codegen.image import Compiled
from tcc.codegen.target import Target

LONG = 50_000  # characters of the function's own text, without its kernels


def compile_lowered(lowered: Lowered, target: Target) -> Compiled:
    """Object code of a function with its entry."""
    if len(lowered.text) > LONG:
        control = merge([lowered.control_text(), _entry_text(lowered)])
        code = [
            jit.compile_object(merge([lowered.kernels_text()]), target),
            jit.compile_object(control, target, level=0),
        ]
    else:
        code = [jit.compile_object(_text(lowered), target)]
    return Compiled(code, _entry(lowered), lowered.engines)


def full_text(lowered: Lowered, target: Target) -> str:
    """All of a function's LLVM text, for people to read."""
    return merge([_text(lowered), *(engines.text(dtype, target) for dtype in lowered.engines.values())])


def _entry(lowered: Lowered) -> str:
    return lowered.name.replace("tcc_run_", "tcc_call_")


def _text(lowered: Lowered) -> str:
    return merge([lowered.kernels_text(), lowered.control_text(), _entry_text(lowered)])


def _entry_text(lowered: Lowered) -> str:
    return entry_text(_entry(lowered), lowered.signature, lowered.name)
