"""The text form of functions: `print_func`, `parse`, and files of it with their large constants beside them."""

from __future__ import annotations

from pathlib import Path

from tcc.ir.arrays import write_safetensors
from tcc.ir.core import Func, Module
from tcc.ir.files import replacing
from tcc.ir.parser import parse, parse_func
from tcc.ir.printer import LARGEST_INLINE, Printer, large_constants, print_func, print_module, window
from tcc.ir.tokens import ParseError

__all__ = [
    "LARGEST_INLINE",
    "ParseError",
    "Printer",
    "large_constants",
    "load",
    "parse",
    "parse_func",
    "print_func",
    "print_module",
    "save",
    "window",
]


def load(path: Path) -> Module:
    """The functions of a `.tcir` file; ParseError, or OSError when it cannot be read."""
    return parse(path.read_bytes(), str(path))


def save(path: Path, what: Func | Module) -> None:
    """Writes a `.tcir` file, and a safetensors file beside it for each large constant that is not there yet."""
    module = {what.name: what} if isinstance(what, Func) else what
    for name, array in large_constants(module).items():
        beside = path.with_name(f"{name}.safetensors")
        if not beside.exists():
            write_safetensors(beside, {"value": array})
    with replacing(path) as file:
        file.write(print_module(module).encode())
