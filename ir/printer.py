"""Functions and modules as text.  The grammar stands in `tcc.ir.parser`, which reads back exactly what this writes."""

from __future__ import annotations

import cmath
import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from tcc.ir.arrays import Array, digest
from tcc.ir.core import Block, Func, Module, Op, Value
from tcc.ir.dims import Expr
from tcc.ir.types import FROM_NUMPY, Type

LARGEST_INLINE = 64  # elements; larger arrays are named by their content
WORDS = frozenset(
    {"true", "false", "none", "inf", "nan", "complex"}
)  # not sizes, where an attribute's value begins

_NAME = re.compile(r"[A-Za-z_][\w.]*")


def print_module(module: Module) -> str:
    return "\n".join(print_func(f) + "\n" for f in module.values())


def print_func(func: Func) -> str:
    return "\n".join(Printer().func(func))


def large_constants(module: Module) -> dict[str, Array]:
    """The arrays that the text of `module` only names, by content name."""
    values = (op.attrs.get("value") for f in module.values() for op in f.body.walk())
    return {digest(v): v for v in values if isinstance(v, np.ndarray) and v.size > LARGEST_INLINE}


class Printer:
    """Names values uniquely within what is visible, and remembers on which line each operation stands."""

    def __init__(self) -> None:
        self.names: dict[Value, str] = {}
        self.taken: set[str] = set()
        self.copies: dict[str, int] = {}
        self.next = 0
        self.lines: list[str] = []
        self.line_of: dict[Op, int] = {}

    def func(self, func: Func) -> list[str]:
        """The lines of the whole function."""
        last = func.body.last
        results = last.operands if last is not None and last.name == "yield" else []
        attrs = f" {attrs_text(func.attrs)}" if func.attrs else ""
        types = ", ".join(str(v.type) for v in results)
        self.lines.append(f"func @{bare_or_quoted(func.name)}{self.params(func.body)} -> ({types}){attrs} {{")
        self.ops(func.body, "  ")
        self.lines.append("}")
        return self.lines

    def ops(self, block: Block, indent: str) -> None:
        for op in block.ops:
            self.op(op, indent)

    def op(self, op: Op, indent: str) -> None:
        self.line_of[op] = len(self.lines)
        right = [op.name]
        if op.operands:
            right.append(", ".join(map(self.name, op.operands)))
        attrs = {k: v for k, v in op.attrs.items() if not _is_default(op, k, v)}
        if attrs:
            right.append(attrs_text(attrs, element_dtype(attrs)))
        text = " ".join(right)
        if op.blocks:
            # Results are named after the blocks, in which they are not visible
            at = len(self.lines)
            self.lines.append(text)
            for i, block in enumerate(op.blocks):
                self.block(block, indent, first=i == 0)
            self.lines[at] = indent + self.left(op) + self.lines[at]
            self.lines.append(f"{indent}}}{self.right(op)}")
        else:
            self.lines.append(f"{indent}{self.left(op)}{text}{self.right(op)}")

    def left(self, op: Op) -> str:
        return ", ".join(map(self.name, op.results)) + " = " if op.results else ""

    def right(self, op: Op) -> str:
        types = " : " + ", ".join(str(r.type) for r in op.results) if op.results else ""
        return types + (f" loc {json.dumps(op.loc)}" if op.loc else "")

    def block(self, block: Block, indent: str, first: bool) -> None:
        outside = set(self.taken)
        head = f"{self.params(block)} {{"
        if first:
            self.lines[-1] += " " + head
        else:
            self.lines.append(f"{indent}}} {head}")
        self.ops(block, indent + "  ")
        self.taken = outside

    def params(self, block: Block) -> str:
        return "(" + ", ".join(f"{self.name(p)}: {p.type}" for p in block.params) + ")"

    def name(self, v: Value) -> str:
        known = self.names.get(v)
        if known is not None:
            return known
        if v.name:
            name = bare_or_quoted(v.name)
            while name in self.taken:
                i = self.copies[v.name] = self.copies.get(v.name, 0) + 1
                name = bare_or_quoted(f"{v.name}_{i}")
        else:
            name = str(self.next)
            self.next += 1
        self.taken.add(name)
        self.names[v] = "%" + name
        return self.names[v]


def _is_default(op: Op, key: str, value: Any) -> bool:
    if key == "into":
        return bool(value == 0)
    if callable(value):  # Python-only: text has the name that stands beside it
        return True
    default = op.defn.attrs.get(key)
    return type(value) is type(default) and not isinstance(value, np.ndarray) and repr(value) == repr(default)


def element_dtype(attrs: Mapping[str, Any]) -> str:
    """The dtype in which the numbers of a constant are meant, or ""."""
    type = attrs.get("type")
    return type.dtype if isinstance(type, Type) and "value" in attrs else ""


def bare_or_quoted(name: str) -> str:
    return name if _NAME.fullmatch(name) else json.dumps(name)


def attrs_text(attrs: Mapping[str, Any], dtype: str = "") -> str:
    """`{key = value, ...}`; floats are written in the fewest digits that `dtype` needs."""
    items = (f"{_key(k)} = {attr_text(v, dtype)}" for k, v in attrs.items())
    return "{" + ", ".join(items) + "}"


def _key(key: Any) -> str:
    return bare_or_quoted(key) if isinstance(key, str) else str(int(key))


def attr_text(value: Any, dtype: str = "") -> str:
    """One attribute's value; TypeError for what the text form cannot hold."""
    if isinstance(value, np.ndarray):
        return _array_text(value)
    if isinstance(value, np.generic):
        return attr_text(value.item(), dtype)
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | Type):
        return str(value)
    if isinstance(value, Expr):
        return f"({value})" if value.names & WORDS else str(value)
    if isinstance(value, float):
        return float_text(value, dtype)
    if isinstance(value, complex):
        part = {"c64": "f32"}.get(dtype, "f64")
        return f"complex({float_text(value.real, part)}, {float_text(value.imag, part)})"
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, Mapping):
        return attrs_text(value)
    if isinstance(value, list):
        return "[" + ", ".join(attr_text(v, dtype) for v in value) + "]"
    if isinstance(value, tuple):
        return "(" + ", ".join(attr_text(v, dtype) for v in value) + (",)" if len(value) == 1 else ")")
    raise TypeError(f"the text form has no {type(value).__name__} ({value!r})")


def float_text(value: float, dtype: str = "f64") -> str:
    """The fewest digits that give `value` back in `dtype`."""
    if not cmath.isfinite(value):
        return "nan" if value != value else "inf" if value > 0 else "-inf"
    narrow = np.dtype({"f32": "f4", "bf16": "f4", "f16": "f2"}.get(dtype, "f8")).type
    with np.errstate(over="ignore"):
        rounded = narrow(value)
    if not np.isfinite(rounded):
        return float_text(float(rounded))
    few = float(str(rounded))  # repr of a float writes few digits where few will do
    return repr(few if narrow(few) == rounded else float(rounded))


def _array_text(array: Array) -> str:
    if array.size > LARGEST_INLINE:
        return f"@sha256:{digest(array)}"
    return attr_text(array.tolist(), FROM_NUMPY[array.dtype.name])


def window(func: Func, op: Op, around: int = 2) -> str:
    """The line of `op` marked with `>`, with `around` lines either side."""
    printer = Printer()
    lines, at = printer.func(func), printer.line_of.get(op, 0)
    return "\n".join(
        f"{'>' if i == at else ' '} {lines[i]}"
        for i in range(max(0, at - around), min(len(lines), at + around + 1))
    )
