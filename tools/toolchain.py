"""The linkers, emulators and assemblers that this machine has."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator

LINKERS = ("cc", "clang", "ld.lld", "wasm-ld")
CROSS = {
    "aarch64": ("aarch64-linux-gnu-gcc", "qemu-aarch64"),
    "riscv64": ("riscv64-linux-gnu-gcc", "qemu-riscv64"),
}


def zig() -> bool:
    """Whether the Python package ziglang is here, which links for every triple."""
    return importlib.util.find_spec("ziglang") is not None


def linkers() -> list[str]:
    """How each that is found is called, with where it is."""
    found = [f"{name} ({path})" for name in LINKERS if (path := shutil.which(name))]
    return [*found, *(["ziglang (a Python package, for every triple)"] if zig() else [])]


def found() -> Iterator[tuple[str, str]]:
    """(what it is for, what there is) for `tcc targets`."""
    yield "linker", ", ".join(linkers()) or "none; objects need none"
    for name, (compiler, emulator) in CROSS.items():
        have = [f"{tool} ({path})" for tool in (compiler, emulator) if (path := shutil.which(tool))]
        yield name, ", ".join(have) or f"no {compiler}, no {emulator}"
    yield "wasm32", f"node ({path})" if (path := shutil.which("node")) else "no node"
    yield (
        "ptx",
        f"ptxas ({path})" if (path := shutil.which("ptxas")) else "no ptxas; the driver assembles PTX",
    )
