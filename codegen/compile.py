"""From a lowered function to code in memory: one module a function, the contraction engines shared between all."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import llvmlite
import numpy as np

import tcc.codegen
import tcc.ir
import tcc.passes
import tcc.runtime
from tcc.codegen import jit, support
from tcc.codegen.driver import Lowered
from tcc.codegen.entry import entry_text
from tcc.codegen.target import Target
from tcc.ir import knobs
from tcc.runtime import cache, native
from tcc.runtime.symbols import symbols

_DEFINE = re.compile(r"^define [^@]*@([\w.]+)\(", re.M)
_DECLARE = re.compile(r"@([\w.]+)\(")


@dataclass(frozen=True)
class Compiled:
    """Object code with the names of its entry points, and the engines that it is linked with."""

    code: bytes
    entry: str
    helpers: Mapping[str, str]


def compile_lowered(lowered: Lowered, target: Target) -> Compiled:
    """Object code of a function with its entry."""
    entry = lowered.name.replace("tcc_run_", "tcc_call_")
    heads = "\n".join(declarations(merge(lowered.helpers.values())))
    text = merge([heads, lowered.module_text(), entry_text(entry, lowered.signature, lowered.name)])
    return Compiled(jit.compile_object(text, target), entry, lowered.helpers)


def full_text(lowered: Lowered) -> str:
    """All of a function's LLVM text, for people to read."""
    entry = lowered.name.replace("tcc_run_", "tcc_call_")
    helpers = list(lowered.helpers.values())
    return merge([lowered.module_text(), entry_text(entry, lowered.signature, lowered.name), *helpers])


def load(compiled: Compiled, target: Target) -> tuple[jit.Image, int, int]:
    """The code in memory, and the addresses of the entry and of its inner part."""
    support.load()
    known = dict(symbols())
    known.update({name: native.provided(name) for name in support.DECLARATIONS})
    known.update(helper_addresses(compiled.helpers, target))
    image = jit.Image.load([compiled.code], known)
    return image, image.address(compiled.entry), image.address(compiled.entry + "_try")


_engines: dict[str, tuple[jit.Image, dict[str, int]]] = {}


def helper_addresses(helpers: Mapping[str, str], target: Target) -> dict[str, int]:
    """Addresses of the functions that kernels share, each engine compiled and loaded once a process."""
    if not helpers:
        return {}
    text = merge(helpers.values())
    key = cache_key("helpers", text, target)
    if key not in _engines:
        code = cache.get(key)
        if code is None:
            code = jit.compile_object(text, target)
            cache.put(key, code)
        known = {**symbols(), "tcc_parallel": native.provided("tcc_parallel")}
        image = jit.Image.load([code], known)
        names = _external(text)
        _engines[key] = (image, {n: image.address(n) for n in names})
    return _engines[key][1]


def _external(text: str) -> list[str]:
    return [m[1] for m in _DEFINE.finditer(text) if "internal" not in m[0]]


def declarations(text: str) -> list[str]:
    """A `declare` for each function that `text` defines for others."""
    heads = [line for line in text.splitlines() if line.startswith("define ") and " internal " not in line]
    return ["declare" + line[len("define") : line.rindex(" #0")] for line in heads]


def merge(texts: Iterable[str]) -> str:
    """Texts as one module: each `declare` once, none of what is defined, and each internal one-line helper once."""
    bodies: list[str] = []
    declares: dict[str, str] = {}
    for text in texts:
        kept = []
        for line in text.splitlines():
            if line.startswith("declare "):
                found = _DECLARE.search(line)
                assert found is not None, line
                declares.setdefault(found[1], line)
            elif line.startswith("@tcc_") or (line.startswith("define internal ") and line.endswith("}")):
                declares.setdefault(line, line)
            else:
                kept.append(line)
        bodies.append("\n".join(kept))
    whole = "\n".join(bodies)
    defined = {m[1] for m in _DEFINE.finditer(whole)}
    heads = [line for name, line in declares.items() if name not in defined]
    return "\n".join([*heads, whole])


def environment(target: Target) -> str:
    """What changes code besides the text compiled: versions and the machine."""
    return "\n".join(
        (
            sources(),
            knobs.code_key(),
            str(llvmlite.__version__),
            np.__version__.split(".")[0],
            target.triple,
            target.cpu,
            target.features,
        )
        + (str(target.vector_bits), str(target.avx512), str(target.l2_bytes))
    )


@functools.cache
def sources() -> str:
    """tcc's own version, to the file: another version of a pass makes other code of the same IR."""
    packages = (tcc.ir, tcc.passes, tcc.codegen, tcc.runtime)
    return repr([sorted(_python_files(folder)) for p in packages for folder in p.__path__])


def _python_files(folder: str) -> Iterator[tuple[str, int, int]]:
    """(name, time of the last change, size) of each module below a folder."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=True) and entry.name != "__pycache__":
                yield from _python_files(entry.path)
            elif entry.name.endswith(".py"):
                stat = entry.stat()
                yield entry.name, stat.st_mtime_ns, stat.st_size


def cache_key(kind: str, text: str, target: Target) -> str:
    """The cache's key of what `text` becomes on this machine."""
    return cache.key(kind, environment(target), text)
