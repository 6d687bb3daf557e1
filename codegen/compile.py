"""From a lowered function to object code: one module a function, with its entry; of a long function two.

A kernel of some length is a module of its own, whose object the cache keeps by its text: another function with that kernel,
or the same program after a change elsewhere, compiles it no more.  That costs a millisecond for each, so small ones stay
with their function.  What several kernels call is compiled once for all of them, and what starts the work of a long one is
control code.

LLVM's register coalescer, which `optnone` does not leave out, takes time quadratic in a function: 0.8 s for 4000 calls of
kernels.  At level 0 it does not run, but a module more costs a millisecond.  Where calls take long, their control code, the
entry's checks among it, may as well be quick to compile.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from tcc.codegen import jit
from tcc.codegen.driver import Lowered, kernels_text
from tcc.codegen.emit import declaration, merge, reachable
from tcc.codegen.entry import entry_text
from tcc.codegen.image import Compiled
from tcc.codegen.kernel import Kernel, all_quick, apart
from tcc.codegen.keys import cache_key
from tcc.codegen.products import engines
from tcc.codegen.target import Target
from tcc.runtime import cache

LONG = 50_000  # characters of the function's own text, without its kernels
LASTING_NS = 1_000_000  # of work in a call; nothing is lost if its control code is slow
SHARED = 15_000  # characters of a kernel that is compiled on its own


class Making:
    """The object code of a function with its entry, whose long kernels are begun while the rest of it is still written.

    Where that fails inside of a `with` no other is begun.
    """

    def __init__(self, target: Target) -> None:
        self.target, self.jobs = target, jit.Jobs()
        self.kept: set[str] = set()  # texts of modules that the cache keeps
        # of each kernel that is known, by name: what is left for the control code of one that is compiled on its own
        self.heads: dict[str, list[str] | None] = {}

    def __enter__(self) -> Making:
        return self

    def __exit__(self, *_: object) -> None:
        self.jobs.give_up()

    def begin(self, kernel: Kernel) -> None:
        """What `lower` has just written; it is compiled from here on if that is done on its own."""
        for text in kernel.helpers.values():
            self._keep(_external(text))
        self.heads[kernel.name] = None
        if len(kernel.text) >= SHARED:
            (kernel,), _ = _without_functions([replace(kernel, helpers={})])
            body, head = apart(kernel.text)
            self.heads[kernel.name] = [*_declared(kernel), head]
            self._keep(merge([kernels_text([replace(kernel, text=body)])]))
        self.jobs.begin()

    def finish(self, lowered: Lowered) -> Compiled:
        """All of it."""
        for kernel in lowered.kernels.values():
            if kernel.name not in self.heads:
                self.begin(kernel)
        kernels, functions = _without_functions([replace(k, helpers={}) for k in lowered.kernels.values()])
        control = [lowered.control_text(), _entry_text(lowered)]
        control += [text for k in kernels for text in self.heads[k.name] or ()]
        small = [k for k in kernels if self.heads[k.name] is None]
        work = lowered.signature.work
        aside = len(lowered.text) > LONG or (isinstance(work, int) and work > LASTING_NS)
        if aside:  # what starts a kernel's work is control too
            pairs = [apart(k.text) for k in small]
            small = [replace(k, text=body) for k, (body, _) in zip(small, pairs)]
            control += [text for k, (_, head) in zip(small, pairs) for text in (*_declared(k), head)]
        for text in functions:
            self._keep(_external(text))
        text = kernels_text(small)
        for own in [merge([text]), merge(control)] if aside else [merge([text, *control])]:
            self.jobs.add(len(own), _Part(own, self.target, 0 if all_quick(own) else 2).code)
        return Compiled(self.jobs.results(), _entry(lowered), lowered.engines)

    def _keep(self, text: str) -> None:
        if text not in self.kept:
            self.kept.add(text)
            self.jobs.add(len(text), _Kept(text, self.target).code)


def compile_lowered(lowered: Lowered, target: Target) -> Compiled:
    """Object code of a function that is written already."""
    return Making(target).finish(lowered)


def _declared(kernel: Kernel) -> list[str]:
    """What it calls and does not define."""
    return [d for d in sorted(kernel.declares) if d.startswith("declare ")]


def _external(text: str) -> str:
    """A module of functions for others to call."""
    return merge([text]).replace("define internal", "define")


def _without_functions(kernels: list[Kernel]) -> tuple[list[Kernel], list[str]]:
    """The kernels with the one-line functions among what they declare only declared, and the text of these, if there are any."""
    declares = {d for k in kernels for d in k.declares}
    heads = {d: declaration(d[: d.index(" #0 {")]) for d in declares if d.startswith("define ")}
    if not heads:
        return kernels, []
    names = sorted(head[head.index("@") + 1 : head.index("(")] for head in heads.values())
    kernels = [replace(k, declares=frozenset(heads.get(d, d) for d in k.declares)) for k in kernels]
    return kernels, [reachable("\n".join(sorted(declares)), names)]


class _Part(NamedTuple):
    """A module of a function."""

    text: str
    target: Target
    level: int = 2

    def code(self) -> bytes:
        return jit.compile_object(self.text, self.target, self.level)


class _Kept(_Part):
    """One that the cache keeps: of a kernel or of a helper."""

    def code(self) -> bytes:
        key = cache_key("kernel", self.text, self.target)
        code = cache.get(key)
        if code is None:
            code = super().code()
            cache.put(key, code)
        return code


def full_text(lowered: Lowered, target: Target) -> str:
    """All of a function's LLVM text, for people to read."""
    texts = [kernels_text(lowered.kernels.values()), lowered.control_text(), _entry_text(lowered)]
    return merge([*texts, *(engines.text(dtype, target) for dtype in lowered.engines.values())])


def _entry(lowered: Lowered) -> str:
    return lowered.name.replace("tcc_run_", "tcc_entry_")


def _entry_text(lowered: Lowered) -> str:
    return entry_text(_entry(lowered), lowered.signature, lowered.name)
