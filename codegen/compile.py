"""From a lowered function to object code: one module a function, with its entry; of a long function two.

A kernel of some length is a module of its own, whose object the cache keeps by its text: another function with that kernel,
or the same program after a change elsewhere, compiles it no more.  That costs a millisecond for each, so small ones stay
with their function.  What several kernels call is compiled once for all of them, and what starts their work is control code.

LLVM's register coalescer, which `optnone` does not leave out, takes time quadratic in a function: 0.8 s for 4000 calls of
kernels.  At level 0 it does not run, but a module more costs a millisecond.
"""

from __future__ import annotations

from dataclasses import replace

from tcc.codegen import jit
from tcc.codegen.driver import Lowered, kernels_text
from tcc.codegen.emit import merge
from tcc.codegen.entry import entry_text
from tcc.codegen.image import Compiled
from tcc.codegen.kernel import apart
from tcc.codegen.keys import cache_key
from tcc.codegen.products import engines
from tcc.codegen.target import Target
from tcc.runtime import cache

LONG = 50_000  # characters of the function's own text, without its kernels
SHARED = 15_000  # characters of a kernel that is compiled on its own


def compile_lowered(lowered: Lowered, target: Target) -> Compiled:
    """Object code of a function with its entry."""
    helpers = dict.fromkeys(text for k in lowered.kernels.values() for text in k.helpers.values())
    kernels = [replace(k, helpers={}) for k in lowered.kernels.values()]
    control = [lowered.control_text(), _entry_text(lowered)]
    long = len(lowered.text) > LONG
    if long:  # what starts a kernel's work is control too
        bodies, heads = zip(*(apart(k.text) for k in kernels))
        kernels = [replace(k, text=text) for k, text in zip(kernels, bodies)]
        control += [d for k in kernels for d in sorted(k.declares) if d.startswith("declare ")] + [*heads]
    shared = [k for k in kernels if len(k.text) >= SHARED]
    code = [_object(merge([text]).replace("define internal", "define"), target) for text in helpers]
    code += [_object(merge([kernels_text([k])]), target) for k in shared]
    small = kernels_text([k for k in kernels if k not in shared])
    if long:
        code += [jit.compile_object(merge([small]), target)]
        code += [jit.compile_object(merge(control), target, level=0)]
    else:
        code += [jit.compile_object(merge([small, *control]), target)]
    return Compiled(code, _entry(lowered), lowered.engines)


def _object(text: str, target: Target) -> bytes:
    """The object of a kernel or of a helper, from the cache or made now."""
    key = cache_key("kernel", text, target)
    code = cache.get(key)
    if code is None:
        code = jit.compile_object(text, target)
        cache.put(key, code)
    return code


def full_text(lowered: Lowered, target: Target) -> str:
    """All of a function's LLVM text, for people to read."""
    texts = [kernels_text(lowered.kernels.values()), lowered.control_text(), _entry_text(lowered)]
    return merge([*texts, *(engines.text(dtype, target) for dtype in lowered.engines.values())])


def _entry(lowered: Lowered) -> str:
    return lowered.name.replace("tcc_run_", "tcc_call_")


def _entry_text(lowered: Lowered) -> str:
    return entry_text(_entry(lowered), lowered.signature, lowered.name)
