"""From object code to what programs load and link: shared libraries by whatever linker there is, and archives."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tcc.codegen.aot.freestanding import is_freestanding
from tcc.codegen.target import Target, host
from tcc.tools.toolchain import CROSS, zig

# Without the C compiler's start-up files: a library needs what it calls, and nothing that runs when it is loaded.
_SHARED = [
    "-shared",
    "-nostdlib",
    "-Wl,--build-id=none",
    "-Wl,-z,noseparate-code",
    "-Wl,-z,max-page-size=4096",
]
_SHARED += [
    "-Wl,--hash-style=gnu",
    "-Wl,-Bsymbolic",
    "-Wl,--gc-sections",
    "-Wl,-z,noexecstack",
    "-Wl,-z,norelro",
]
_LIBRARIES = ["-Wl,--as-needed", "-l:libm.so.6", "-l:libpthread.so.0", "-l:libc.so.6"]


class NoLinker(RuntimeError):
    """There is no linker for a target; the message says which would do."""


class LinkError(RuntimeError):
    """What a linker said."""


def shared_library(code: bytes, target: Target) -> bytes:
    """A shared library of an object, or for wasm32 a module that imports nothing.  NoLinker; LinkError with its words."""
    if is_freestanding(target):
        return _wasm_module(code, target)
    command = linker(target)
    with tempfile.TemporaryDirectory(prefix="tcc-") as folder:
        source, made = Path(folder) / "model.o", Path(folder) / "libmodel.so"
        source.write_bytes(code)
        libraries = _available(command, folder, target)
        words = [*_SHARED, "-s", "-o", str(made), str(source), *libraries]
        run([*command, *_spoken(command, words)], folder)
        return made.read_bytes()


def _wasm_module(code: bytes, target: Target) -> bytes:
    command = ["wasm-ld"] if shutil.which("wasm-ld") else [sys.executable, "-m", "ziglang", "wasm-ld"]
    if len(command) > 1 and not zig():
        raise NoLinker(
            f"no linker for {target.triple}: a module needs wasm-ld or the pip package ziglang "
            "(pip install ziglang); the object (--emit obj) needs none"
        )
    words = ["--no-entry", "--export-dynamic", "--strip-all"]
    with tempfile.TemporaryDirectory(prefix="tcc-") as folder:
        (Path(folder) / "model.o").write_bytes(code)
        run([*command, *words, "model.o", "-o", "model.wasm"], folder)
        return (Path(folder) / "model.wasm").read_bytes()


def executable(code: bytes, sources: Mapping[str, str], target: Target) -> bytes:
    """A program of the object and C sources, the first of which has `main`; `sources` are all files by name."""
    if is_freestanding(target):
        raise NoLinker(f"there are no programs for {target.triple}; --emit shared makes a module of it")
    command = linker(target)
    if Path(command[0]).name.startswith("ld"):
        raise NoLinker("a program needs a C compiler, cc or the pip package ziglang, and there is none")
    with tempfile.TemporaryDirectory(prefix="tcc-") as folder:
        (Path(folder) / "model.o").write_bytes(code)
        for name, text in sources.items():
            (Path(folder) / name).write_text(text)
        first = next(iter(sources))
        run([*command, "-O1", "-s", "-o", "program", first, "model.o", "-lm", "-lpthread"], folder)
        return (Path(folder) / "program").read_bytes()


def linker(target: Target) -> list[str]:
    """The command of a linker for a target, as cc takes its arguments.  NoLinker says what would do."""
    arch = target.triple.split("-")[0]
    if arch == host().triple.split("-")[0]:
        for name in ("cc", "gcc", "clang"):
            if (path := shutil.which(name)) is not None:
                return [path]
    elif arch in CROSS and (path := shutil.which(CROSS[arch][0])) is not None:
        return [path]
    if zig():
        return [sys.executable, "-m", "ziglang", "cc", "-target", f"{arch}-linux-gnu"]
    if (path := shutil.which("ld.lld")) is not None:
        return [path]
    wanted = "cc" if arch == host().triple.split("-")[0] else CROSS.get(arch, ("a cross compiler",))[0]
    raise NoLinker(
        f"no linker for {target.triple}: a shared library needs {wanted}, ld.lld or the pip package ziglang "
        "(pip install ziglang); the object (--emit obj) needs none"
    )


def _available(command: Sequence[str], folder: str, target: Target) -> list[str]:
    """The libraries that this system has by their file names; the plain names else."""
    if "ziglang" in command:
        return ["-lm", "-lpthread", "-lc"]
    made = []
    for flag in _LIBRARIES:
        if not flag.startswith("-l:"):
            made.append(flag)
        elif _is_lld(command):
            arch = target.triple.split("-")[0]
            places = [f"/lib/{arch}-linux-gnu", f"/usr/{arch}-linux-gnu/lib"]
            made += [str(p) for p in (Path(place) / flag[3:] for place in places) if p.exists()][:1]
        else:
            asked = [*command, f"-print-file-name={flag[3:]}"]
            found = subprocess.run(asked, capture_output=True, text=True, cwd=folder)
            made += [flag] if "/" in found.stdout else []
    return made


def _is_lld(command: Sequence[str]) -> bool:
    return Path(command[0]).name == "ld.lld"


def _spoken(command: Sequence[str], words: Sequence[str]) -> list[str]:
    """A C compiler's words as a command takes them."""
    if "ziglang" in command:
        return [w for w in words if w != "-Wl,-z,noseparate-code"]  # which is not among those that it knows
    if not _is_lld(command):
        return list(words)
    return [part for w in words for part in (w[4:].split(",") if w.startswith("-Wl,") else [w])]


def run(command: Sequence[str], folder: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    if done.returncode:
        raise LinkError(f"{Path(command[0]).name} failed:\n{done.stderr.strip()[-2000:]}")


def archive(name: str, code: bytes, symbols: Sequence[str]) -> bytes:
    """A static library of one object, as ar writes it: with no times and no owners in it."""
    table = len(symbols).to_bytes(4, "big")
    names = b"".join(s.encode() + b"\0" for s in symbols)
    index_size = 4 + 4 * len(symbols) + len(names)
    index_padded = index_size + index_size % 2
    at = 8 + 60 + index_padded
    index = table + at.to_bytes(4, "big") * len(symbols) + names + b"\0" * (index_size % 2)
    short = f"{name[:11]}.o/"
    return b"!<arch>\n" + _member("/", index) + _member(short, code + b"\n" * (len(code) % 2))


def _member(name: str, data: bytes) -> bytes:
    head = f"{name:<16}{0:<12}{0:<6}{0:<6}{'644':<8}{len(data):<10}`\n"
    return head.encode() + data
