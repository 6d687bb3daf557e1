"""Append-only writer of LLVM text: fresh names, blocks and counted loops with carried values.

Text is an order of magnitude cheaper to make than llvmlite's builder objects.  Kernels use explicit vectors, so no
LLVM IR pass has to run over what is written here.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

_PARAMETER = re.compile(r"\s*(<.*?>|\S+)")
_DECLARE, _SYMBOL = re.compile(r"@([\w.]+)\("), re.compile(r"@([\w.]+)")
_HEADS = ("declare ", "@tcc_", "!", "define internal ")  # of lines that a module has once
LoopBody = Callable[[str, list[str]], "Sequence[str] | None"]


@dataclass(frozen=True, slots=True)
class VecType:
    """An LLVM scalar (`lanes == 1`, written `float`) or vector (`<16 x float>`) type."""

    elem: str  # i1 i8 i16 i32 i64 i128 half bfloat float double
    lanes: int = 1

    def __str__(self) -> str:
        return self.elem if self.lanes == 1 else f"<{self.lanes} x {self.elem}>"

    @property
    def suffix(self) -> str:
        """As intrinsic names spell it: `f32`, `v16f32`, `v8i64`."""
        scalar = {"half": "f16", "bfloat": "bf16", "float": "f32", "double": "f64"}.get(self.elem, self.elem)
        return scalar if self.lanes == 1 else f"v{self.lanes}{scalar}"

    @property
    def is_float(self) -> bool:
        return self.elem in ("half", "bfloat", "float", "double")

    @property
    def bytes(self) -> int:
        """Of one element in memory."""
        sizes = {
            "i1": 1,
            "i8": 1,
            "i16": 2,
            "i32": 4,
            "i64": 8,
            "i128": 16,
            "half": 2,
            "bfloat": 2,
            "float": 4,
            "double": 8,
        }
        return sizes[self.elem]

    def of(self, elem: str) -> VecType:
        """The same number of lanes with other elements."""
        return VecType(elem, self.lanes)

    def const(self, value: float | int | bool) -> str:
        """`value` in every lane."""
        one = scalar_const(self.elem, value)
        return one if self.lanes == 1 else f"splat ({self.elem} {one})"


def scalar_const(elem: str, value: float | int | bool) -> str:
    """An LLVM literal; floats as the hex of a double, exact for float and double alike."""
    if elem == "i1":
        return "true" if value else "false"
    if elem in ("float", "double"):
        wide = float(np.float32(value)) if elem == "float" else float(value)
        return f"0x{struct.unpack('<Q', struct.pack('<d', wide))[0]:016X}"
    if elem == "half":
        return f"0xH{np.float16(value).view(np.uint16):04X}"
    if elem == "bfloat":
        return f"0xR{int(np.float32(value).view(np.uint32)) >> 16:04X}"
    return str(int(value))


def constant_mask(live: Sequence[bool]) -> str:
    """An i1, or a vector of them, for lanes that are known to be live or not."""
    lanes = ", ".join(f"i1 {str(v).lower()}" for v in live)
    return f"<{lanes}>" if len(live) > 1 else lanes.removeprefix("i1 ")


def constant_prefix(mask: str) -> int | None:
    """How many lanes a mask that `constant_mask` wrote has, all of them in front; None for other masks."""
    if not mask.startswith("<"):
        return None
    live = mask.count("true")
    return live if mask == constant_mask([i < live for i in range(mask.count("i1"))]) else None


class Emit:
    """One function (or several, one after another) being written.  `value` names a result, `line` adds text without one."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.declared: dict[str, None] = {}  # `declare` lines that the text needs, an ordered set
        self.current = "entry"  # label of the block being written
        self._next = 0
        self._block: dict[str, str] = {}  # what `once` has named in it

    def fresh(self, prefix: str = "t") -> str:
        self._next += 1
        return f"%{prefix}{self._next}"

    def value(self, text: str) -> str:
        name = self.fresh()
        self.lines.append(f"  {name} = {text}")
        return name

    def once(self, text: str) -> str:
        """As `value`, of an instruction without effects; the name that the same text has in this block already."""
        name = self._block.get(text)
        if name is None:
            name = self._block[text] = self.value(text)
        return name

    def line(self, text: str) -> None:
        self.lines.append("  " + text)

    def label(self) -> str:
        self._next += 1
        return f"L{self._next}"

    def at(self, label: str) -> None:
        """Starts the block `label`."""
        self.lines.append(label + ":")
        self.current = label
        self._block.clear()

    def branch(self, label: str) -> None:
        self.line(f"br label %{label}")

    def branch_if(self, cond: str, then: str, otherwise: str) -> None:
        self.line(f"br i1 {cond}, label %{then}, label %{otherwise}")

    def call(self, result: VecType | str, name: str, *args: tuple[VecType | str, str]) -> str:
        """A call of `@name`, declared on the way: `e.call(v, f"llvm.fma.{v.suffix}", (v, a), (v, b), (v, c))`."""
        self.declare(f"declare {result} @{name}({', '.join(str(t) for t, _ in args)})")
        text = f"call {result} @{name}({', '.join(f'{t} {a}' for t, a in args)})"
        if str(result) == "void":
            self.line(text)
            return ""
        return self.value(text)

    def declare(self, text: str) -> None:
        self.declared[text] = None

    def gep(self, pointer: str, offset: int | str, elem: str = "i8") -> str:
        """`pointer` moved by `offset` elements of type `elem`."""
        if offset in (0, "0"):
            return pointer
        return self.value(f"getelementptr inbounds {elem}, ptr {pointer}, i64 {offset}")

    def loop(
        self,
        start: int | str,
        end: int | str,
        step: int | str,
        body: LoopBody,
        carried: Sequence[tuple[VecType | str, str]] = (),
    ) -> list[str]:
        """`for i in range(start, end, step)`: `body(i, values)` returns the carried values' next ones.

        `carried` holds (type, initial value); the values after the last round come back.  The end is tested first.
        What is known to have one round, or none, is no loop.
        """
        rounds = _rounds(start, end, step)
        if rounds in (0, 1):
            initials = [initial for _, initial in carried]
            return _carried(body(str(start), initials), carried) if rounds else initials
        before, head, inside, after = self.current, self.label(), self.label(), self.label()
        self.branch(head)
        self.at(head)
        index = self.fresh("i")
        slot = len(self.lines)
        self.lines.append("")
        phis = [self.fresh("p") for _ in carried]
        more = self.value(f"icmp slt i64 {index}, {end}")
        self.branch_if(more, inside, after)
        self.at(inside)
        new = _carried(body(index, phis), carried)
        following = self.value(f"add nsw i64 {index}, {step}")
        latch = self.current
        self.branch(head)
        phi_lines = [f"  {index} = phi i64 [{start}, %{before}], [{following}, %{latch}]"]
        for phi, (t, initial), value in zip(phis, carried, new, strict=True):
            phi_lines.append(f"  {phi} = phi {t} [{initial}, %{before}], [{value}, %{latch}]")
        self.lines[slot] = "\n".join(phi_lines)
        self.at(after)
        return phis

    def when(
        self,
        cond: str,
        then: Callable[[], Sequence[str] | None],
        carried: Sequence[tuple[VecType | str, str]] = (),
    ) -> list[str]:
        """Runs `then`'s text only if `cond` (an i1) holds.

        `carried` holds (type, value otherwise); `then` returns the values where it runs, and those that hold come back.
        """
        before, inside, after = self.current, self.label(), self.label()
        self.branch_if(cond, inside, after)
        self.at(inside)
        new = _carried(then(), carried)
        end = self.current
        self.branch(after)
        self.at(after)
        return [
            self.value(f"phi {t} [{other}, %{before}], [{value}, %{end}]")
            for (t, other), value in zip(carried, new, strict=True)
        ]

    def function(self, signature: str) -> None:
        """Starts `define <signature> #0 {`; the attribute group is the target's."""
        self.lines.append(f"define {signature} #0 {{")
        self.at("entry")

    def quick(self) -> None:
        """Marks the function just started for LLVM's quick way to code: its time to compile counts, that to run does not."""
        at = next(i for i in range(len(self.lines) - 1, -1, -1) if self.lines[i].startswith("define "))
        self.lines[at] = self.lines[at].replace(" #0 {", " #0 noinline optnone {")

    def end(self, result: str = "void") -> None:
        self.line(f"ret {result}")
        self.lines.append("}\n")

    def text(self) -> str:
        return "\n".join(self.lines) + "\n"


def _rounds(start: int | str, end: int | str, step: int | str) -> int | None:
    """How many rounds a loop has, if that is known."""
    try:
        return max(-(-(int(end) - int(start)) // int(step)), 0)
    except ValueError:  # the name of a value
        return None


def _carried(new: Sequence[str] | None, carried: Sequence[object]) -> list[str]:
    """What the body of a loop or a branch returns."""
    values = list(new or [])
    if len(values) != len(carried):
        raise AssertionError(f"{len(carried)} values are carried, the body returns {len(values)}")
    return values


def declaration(head: str) -> str:
    """What declares the function whose definition begins with the line `head`."""
    kind, _, rest = head.removeprefix("define ").removeprefix("internal ").partition("(")
    types = (_PARAMETER.match(p) for p in rest[: rest.rindex(")")].split(","))
    return f"declare {kind}({', '.join(t[1] for t in types if t)})"


def lines_from(text: str, start: str) -> Iterator[int]:
    """Where lines begin with `start`.  (A regular expression takes ten times as long, and texts are long.)"""
    if text.startswith(start):
        yield 0
    at = text.find("\n" + start) + 1
    while at > 0:
        yield at
        at = text.find("\n" + start, at) + 1


def merge(texts: Iterable[str]) -> str:
    """Texts as one module: each `declare` once, none of what is defined, each internal one-line helper and piece of metadata once."""
    bodies: list[str] = []
    heads: dict[str, str] = {}
    defined: set[str] = set()
    for text in texts:
        kept, done = [], 0
        for begin in sorted(at for start in _HEADS for at in lines_from(text, start)):
            end = text.find("\n", begin)
            line = text[begin:] if end < 0 else text[begin:end]
            if line.startswith("define ") and not line.endswith("}"):
                continue
            found = _DECLARE.search(line) if line.startswith("declare ") else None
            heads.setdefault(found[1] if found else line, line)
            kept.append(text[done:begin])
            done = begin + len(line) + 1
        body = ("".join(kept) + text[done:]).removesuffix("\n")
        bodies.append(body)
        for begin in lines_from(body, "define "):
            name = body.index("@", begin) + 1
            defined.add(body[name : body.index("(", name)])
    return "\n".join([*(line for name, line in heads.items() if name not in defined), *bodies])


def reachable(text: str, roots: Sequence[str]) -> str:
    """The module with what the roots need."""
    units: dict[str, str] = {}
    types: list[str] = []  # and metadata
    for unit in _units(text):
        if unit.startswith(("%", "!")):
            types.append(unit)
            continue
        found = _SYMBOL.search(unit)
        assert found is not None, unit
        units.setdefault(found[1], unit)
    waiting, seen = list(roots), dict.fromkeys(roots)
    while waiting:
        for name in _SYMBOL.findall(_without_strings(units[waiting.pop()])):
            if name in units and name not in seen:
                seen[name] = None
                waiting.append(name)
    return "\n".join([*types, *(u for n, u in units.items() if n in seen)]) + "\n"


def _units(text: str) -> list[str]:
    """Functions, globals, declarations, types and metadata, each in one piece."""
    made: list[str] = []
    inside: list[str] = []
    for line in text.splitlines():
        if inside or line.startswith("define "):
            inside.append(line)
            if line.startswith("}") or (len(inside) == 1 and line.endswith("}")):
                made.append("\n".join(inside))
                inside = []
        elif line.strip() and not line.startswith(";"):
            made.append(line)
    return made


def _without_strings(text: str) -> str:
    return text if 'c"' not in text else re.sub(r'c"[^"]*"', "", text)


def is_number(text: str) -> bool:
    return text.lstrip("-").isdigit()
