"""A kernel: LLVM text with the list of what its argument slots hold.

Every kernel is `i32 @name(ptr %ctx, ptr %args)`.  `%args` points to eight-byte slots: addresses of the operands and
results, then the run-time sizes that the text needs; sizes known at compile time stand in the text.  The name is a
hash of the text, so equal kernels of different functions are one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tcc.codegen.emit import Emit, declaration, is_number, lines_from, reachable, scalar_const
from tcc.codegen.index import at_least, at_most, plus, times
from tcc.codegen.products.record import Reach
from tcc.ir import dims
from tcc.ir.dims import Size
from tcc.runtime.layout import MOST_BYTES

SHORT = 40  # lines of a body without a loop that is compiled the quick way
PLACEHOLDER = "KERNEL_NAME"  # stands for the name while the text is being written
BODY = f"{PLACEHOLDER}.body"  # what does a kernel's parallel work


@dataclass(frozen=True, slots=True)
class Operand:
    """Slot: the address of the op's operand number `index` (reads first, then the places of the results)."""

    index: int


@dataclass(frozen=True, slots=True)
class Runtime:
    """Slot: a size, evaluated by the caller."""

    size: Size


@dataclass(frozen=True, slots=True)
class Scratch:
    """Slot: the address of `bytes` bytes that only this call uses.  Kernels of one op that name the same bytes and number mean the same ones."""

    bytes: Size
    number: int = 0


@dataclass(frozen=True, slots=True)
class OpId:
    """Slot: the number by which the function knows the op, for `tcc_fail`."""


Slot = Operand | Runtime | Scratch | OpId


@dataclass(frozen=True)
class Kernel:
    """Text and calling sequence of one kernel.  `engines` are those that it calls, by name, and their dtypes; `helpers`
    the functions that other kernels call too, by name."""

    name: str
    text: str
    slots: tuple[Slot, ...]
    thread_scratch: Size = 0  # bytes that each thread may use at its own scratch address
    declares: frozenset[str] = frozenset()
    engines: Mapping[str, str] = field(default_factory=dict)
    reach: Callable[[], Reach] | None = None  # what the engines have to do
    helpers: Mapping[str, str] = field(default_factory=dict)


def finish(
    e: Emit,
    slots: tuple[Slot, ...],
    kind: str,
    thread_scratch: Size = 0,
    helpers: Mapping[str, str] | None = None,
) -> Kernel:
    """The kernel whose text, with PLACEHOLDER for its name, is in `e`; functions that it does not call are left out."""
    body = reachable(e.text(), [PLACEHOLDER])
    declares = frozenset(e.declared)
    name = f"tcc_{kind}_{hashlib.sha256(body.encode()).hexdigest()[:20]}"
    return Kernel(
        name,
        quick_heads(body).replace(PLACEHOLDER, name),
        slots,
        thread_scratch,
        declares,
        helpers=helpers or {},
    )


def quick_heads(text: str) -> str:
    """`text` with those functions marked for LLVM's quick way to code that have no loop and so run once a call: all of what
    starts kernels, and short bodies, which are as fast (long ones lose more than their time to compile is worth)."""
    made, done = [], 0
    for begin in sorted(
        [*lines_from(text, "define i32 @"), *lines_from(text, f"define internal void @{BODY}(")]
    ):
        end = text.index("\n}", begin)
        lines = text.count("\n", begin, end) if text.startswith("define internal", begin) else 0
        if lines <= SHORT and " phi " not in text[begin:end]:
            made += [text[done:begin], text[begin:end].replace("#0", "#0 noinline optnone", 1)]
            done = end
    return "".join([*made, text[done:]])


def all_quick(text: str) -> bool:
    """Whether every function is marked for LLVM's quick way: level 0 of the code generator, in which there is
    nothing to leave out, takes half the time then."""
    return all(" optnone " in text[at : text.index("\n", at)] for at in lines_from(text, "define "))


def apart(text: str) -> tuple[str, str]:
    """A kernel's text without its own function, and that function, if it is marked for LLVM's quick way."""
    begin = next(lines_from(text, "define i32 @"), -1)
    if begin < 0 or " optnone " not in text[begin : text.index("\n", begin)]:
        return text, ""
    end = text.index("\n}", begin) + 2
    head, rest = text[begin:end], text[:begin] + text[end:]
    called = set(re.findall(r"@([\w.]+)", head))
    lines = [rest[at : rest.index("\n", at)] for at in lines_from(rest, "define internal ")]
    starts = [line for line in lines if line[line.index("@") + 1 : line.index("(")] in called]
    for line in starts:
        rest = rest.replace(line, line.replace("internal ", ""), 1)
    return rest, "\n".join([*map(declaration, starts), head])


class Slots:
    """Collects the slots of a kernel being written, and loads them where they are needed."""

    def __init__(self) -> None:
        self.slots: list[Slot] = []
        self._index: dict[Slot, int] = {}

    def index(self, slot: Slot) -> int:
        if slot not in self._index:
            self._index[slot] = len(self.slots)
            self.slots.append(slot)
        return self._index[slot]

    def pointer(self, e: Emit, slot: Operand | Scratch) -> str:
        return e.value(f"load ptr, ptr {e.gep('%args', self.index(slot), 'i64')}")

    def size(self, e: Emit, size: Size) -> str:
        """A number, or a load from the slot of a run-time size."""
        return str(size) if isinstance(size, int) else self.load(e, Runtime(size))

    def load(self, e: Emit, slot: Runtime) -> str:
        return e.value(f"load i64, ptr {e.gep('%args', self.index(slot), 'i64')}")


def memo_sizes(slots: Slots, e: Emit) -> Callable[[Size], str]:
    """`slots.size` that loads each run-time size once, where it is first asked for (call it at the function's head)."""
    seen: dict[Size, str] = {}

    def get(size: Size) -> str:
        if isinstance(size, int):
            return str(size)
        if size not in seen:
            seen[size] = slots.size(e, size)
        return seen[size]

    return get


def size_text(e: Emit, size: Size, names: Mapping[str, str]) -> str:
    """A size computed in LLVM text from the texts of its names; `//` and `%` are of non-negative sizes."""
    if isinstance(size, int):
        return str(size)
    total = "0"
    for mono, scale in size.terms:
        factor = str(scale)
        for atom in mono:
            factor = times(e, factor, _atom_text(e, atom, names))
        total = plus(e, total, factor)
    return total


def bytes_text(e: Emit, size: Size, names: Mapping[str, str]) -> str:
    """A number of bytes as `size_text` has it, but never wrapped around: more than MOST_BYTES counts as that."""
    if isinstance(size, int):
        return str(min(size, MOST_BYTES))
    exact, estimate = size_text(e, size, names), _estimate(e, size, names)
    few = e.once(f"fcmp olt double {estimate}, {scalar_const('double', MOST_BYTES)}")
    return e.once(f"select i1 {few}, i64 {exact}, i64 {MOST_BYTES}")


def wraps_text(e: Emit, size: Size, names: Mapping[str, str]) -> str | None:
    """Whether `size_text` of these names is wrapped around, or nearly; None where nothing is multiplied."""
    if isinstance(size, int) or not _multiplied(size):
        return None
    magnitude = e.call("double", "llvm.fabs.f64", ("double", _estimate(e, size, names)))
    return e.value(f"fcmp uge double {magnitude}, {scalar_const('double', 2.0**62)}")


def _multiplied(size: Size) -> bool:
    if isinstance(size, int):
        return False
    return any(
        len(mono) > 1 or (mono and abs(scale) > 1) or any(_multiplied(x) for atom in mono for x in atom.args)
        for mono, scale in size.terms
    )


def _estimate(e: Emit, size: Size, names: Mapping[str, str]) -> str:
    """A size as a double, which does not overflow."""
    if isinstance(size, int):
        return scalar_const("double", size)
    total = scalar_const("double", 0)
    for mono, scale in size.terms:
        factor = scalar_const("double", scale)
        for atom in mono:
            factor = e.once(f"fmul double {factor}, {_atom_estimate(e, atom, names)}")
        total = e.once(f"fadd double {total}, {factor}")
    return total


def _atom_estimate(e: Emit, atom: dims.Atom, names: Mapping[str, str]) -> str:
    if atom.kind == "name":
        return e.once(f"sitofp i64 {names[atom.name]} to double")
    a, b = (_estimate(e, x, names) for x in atom.args)
    if atom.kind == "%":
        return b
    if atom.kind == "//":
        one = scalar_const("double", 1)
        small = e.once(f"fcmp olt double {b}, {one}")
        return e.once(f"fdiv double {a}, {e.once(f'select i1 {small}, double {one}, double {b}')}")
    less = e.once(f"fcmp olt double {a}, {b}")
    first, second = (a, b) if atom.kind == "min" else (b, a)
    return e.once(f"select i1 {less}, double {first}, double {second}")


def _atom_text(e: Emit, atom: dims.Atom, names: Mapping[str, str]) -> str:
    if atom.kind == "name":
        return names[atom.name]
    a, b = (size_text(e, x, names) for x in atom.args)
    if atom.kind in ("min", "max"):
        return at_most(e, a, b) if atom.kind == "min" else at_least(e, a, b)
    if is_number(b) and int(b) > 0 and int(b) & (int(b) - 1) == 0:  # rounded down, whatever the sign
        return e.once(
            f"ashr i64 {a}, {int(b).bit_length() - 1}" if atom.kind == "//" else f"and i64 {a}, {int(b) - 1}"
        )
    # the divisor may be 0 at run time (an empty axis); 0 stands for the quotient then, as in tcc.ir.dims
    zero = e.once(f"icmp eq i64 {b}, 0")
    safe = e.once(f"select i1 {zero}, i64 1, i64 {b}")
    quotient = e.once(f"sdiv i64 {a}, {safe}")
    rest = e.once(f"srem i64 {a}, {safe}")
    signs = e.once(f"xor i64 {rest}, {safe}")
    negative = e.once(f"icmp slt i64 {signs}, 0")
    inexact = e.once(f"icmp ne i64 {rest}, 0")
    fix = e.once(f"and i1 {negative}, {inexact}")
    if atom.kind == "//":
        lower = e.once(f"sub i64 {quotient}, 1")
        floor = e.once(f"select i1 {fix}, i64 {lower}, i64 {quotient}")
        return e.once(f"select i1 {zero}, i64 0, i64 {floor}")
    up = e.once(f"add i64 {rest}, {safe}")
    mod = e.once(f"select i1 {fix}, i64 {up}, i64 {rest}")
    return e.once(f"select i1 {zero}, i64 0, i64 {mod}")
