"""Keys of the cache: what compiled code depends on besides the text that it is made from."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator

import llvmlite
import numpy as np

import tcc.codegen
import tcc.ir
import tcc.passes
import tcc.runtime
from tcc.codegen.target import Target
from tcc.ir import knobs
from tcc.runtime import cache
from tcc.runtime.threads import thread_count

LLVMLITE = "0.50"  # what LLVM accepts changes from one release to the next: pyproject.toml asks for this one


def check_llvmlite(version: str) -> None:
    """ImportError for another release than the one whose LLVM tcc writes for."""
    if not version.startswith(LLVMLITE + "."):
        raise ImportError(
            f"tcc needs llvmlite {LLVMLITE}, found {version} in {os.path.dirname(llvmlite.__file__)}: "
            f"python -m pip install 'llvmlite=={LLVMLITE}.*', or an environment of its own for tcc"
        )


check_llvmlite(str(llvmlite.__version__))


def cache_key(kind: str, text: str, target: Target) -> str:
    """The cache's key of what `text` becomes on this machine."""
    return cache.key(kind, environment(target), text)


def environment(target: Target) -> str:
    """What changes code besides the text compiled: versions, the machine, and the settings as they are now."""
    measured = f"\n{thread_count()} threads" if knobs.TUNE.get() else ""  # plans are measured for them
    return f"{_machine(target)}\n{knobs.code_key()}{measured}"


@functools.cache
def _machine(target: Target) -> str:
    return "\n".join(
        (
            sources(),
            str(llvmlite.__version__),
            np.__version__.split(".")[0],
            target.triple,
            target.cpu,
            target.features,
        )
        + (
            str(target.vector_bits),
            str(target.avx512),
            str(target.l1_bytes),
            str(target.l2_bytes),
            str(target.f16c),
            str(target.fma),
        )
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
