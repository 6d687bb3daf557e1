"""Lays the arena out: every alloc gets an offset, and what is not alive at once may share bytes.

With sizes known the offsets are found by first fit, larger blocks first.  With run-time sizes, blocks that never live
together share a slot whose size is the maximum of theirs; which ones share is chosen with a guess at the sizes, so the
plan is right for all of them and tight for those near the guess.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from tcc.ir import dims
from tcc.ir.core import Func, Op, Value
from tcc.ir.dims import Size
from tcc.ir.printer import Printer
from tcc.ir.types import Type
from tcc.passes.manager import Context

ALIGN = 64
GUESS = 256  # stands for a size that is not known


@dataclass
class Interval:
    """One alloc with the first and the last op (in walking order) that touch it, both included."""

    op: Op
    bytes: Size
    first: int
    last: int


def plan(func: Func, ctx: Context) -> None:
    """Writes `offset` (bytes) on every alloc, and the arena's size to `func.attrs["arena"]`.

    Places whose sizes are bound while the function runs lie in arenas of their own, one for each point from which their
    sizes are known; `func.attrs["late"]` holds the bytes of each, and the allocs' `arena` says which one is theirs.
    """
    hints = func.attrs.get("hints", {})
    by_arena: dict[int, list[Interval]] = {-1: []}
    late = _late_arenas(func)
    for i in live_intervals(func):
        by_arena.setdefault(late.get(i.op, -1), []).append(i)
    totals = {k: _layout(intervals, hints) for k, intervals in by_arena.items()}
    func.attrs["arena"] = totals.pop(-1)
    numbers = {k: n for n, k in enumerate(sorted(totals))}
    for op, k in late.items():
        op.attrs["arena"] = numbers[k]
    if totals:
        func.attrs["late"] = [totals[k] for k in sorted(totals)]


def _layout(intervals: list[Interval], hints: Mapping[str, int]) -> Size:
    if all(isinstance(i.bytes, int) for i in intervals):
        return _first_fit(intervals)
    return _slots(intervals, hints)


def _late_arenas(func: Func) -> dict[Op, int]:
    """For each late alloc of the function's own block, the position of the last `bind` that its sizes need."""
    bound: dict[str, int] = {}
    found: dict[Op, int] = {}
    for position, op in enumerate(func.body.walk()):
        if op.name == "bind":
            bound.update(dict.fromkeys(dims.names_of(op.attrs["size"]), position))
        place = op.results[0].type.place if op.name == "alloc" else None
        if place is not None and place.space == "late" and op.parent is func.body:
            found[op] = max(bound.get(n, 0) for s in op.result.type.shape for n in dims.names_of(s))
    return found


def live_intervals(func: Func) -> list[Interval]:
    """For each arena alloc, where it is alive; memory that a loop uses and did not make lives through all of it."""
    root: dict[Value, Op] = {}
    found: dict[Op, Interval] = {}
    order: dict[Op, int] = {}
    end: dict[Op, int] = {}
    for i, op in enumerate(func.body.walk()):
        order[op] = i
        parent = op.parent.parent if op.parent is not None else None
        while isinstance(parent, Op):
            end[parent] = i
            parent = parent.parent.parent if parent.parent is not None else None
    for op, i in order.items():
        if op.name == "alloc":
            place = op.result.type.place
            assert place is not None
            if place.space == "arena" or (place.space == "late" and op.parent is func.body):
                found[op] = Interval(op, room(op.result.type), i, i)
                root[op.result] = op
            continue
        if op.name == "view" and op.operands[0] in root:
            root[op.result] = root[op.operands[0]]
        for v in op.operands:
            if v not in root:
                continue
            made = root[v]
            user = op
            while user.parent is not made.parent:
                outer = user.parent.parent if user.parent is not None else None
                assert isinstance(outer, Op)
                user = outer
            found[made].last = max(found[made].last, end.get(user, i))
    return list(found.values())


def room(type: Type) -> Size:
    """The bytes that are kept for a value; none if a size is below 0, which a check tells before anything lies there."""
    bytes = aligned(type.bytes)
    return bytes if all(map(dims.nonnegative, type.shape)) else dims.maximum(bytes, 0)


def aligned(bytes: Size) -> Size:
    """Rounded up to whole cache lines."""
    return (bytes + (ALIGN - 1)) // ALIGN * ALIGN


class _Occupancy:
    """Which slots are taken when: a tree of halved spans of time, with sets of slots as the bits of integers."""

    def __init__(self, length: int) -> None:
        self.size = 1 << (length - 1).bit_length()
        self.whole = [0] * (2 * self.size)  # taken during all of a node's span
        self.some = [0] * (2 * self.size)  # taken during a part of it

    def take(self, first: int, last: int, slot: int) -> None:
        bit = 1 << slot
        for node in self._spans(first, last):
            self.whole[node] |= bit
            while node and not self.some[node] & bit:
                self.some[node] |= bit
                node >>= 1

    def first_free(self, first: int, last: int) -> int:
        """The lowest slot that nobody has in all that time."""
        taken = 0
        for node in self._spans(first, last):
            taken |= self.some[node]
            while node := node >> 1:
                taken |= self.whole[node]
        return (~taken & (taken + 1)).bit_length() - 1

    def _spans(self, first: int, last: int) -> Iterator[int]:
        """The nodes that make up `first` to `last`, both included."""
        low, high = first + self.size, last + self.size + 1
        while low < high:
            if low & 1:
                yield low
                low += 1
            if high & 1:
                high -= 1
                yield high
            low, high = low >> 1, high >> 1


def _first_fit(intervals: list[Interval]) -> int:
    total = 0
    placed = np.empty(
        (4, len(intervals)), np.int64
    )  # start, stop, first, last: what lives long overlaps with most others
    order = sorted(intervals, key=lambda i: (-dims.evaluate(i.bytes, {}), i.first))
    for number, item in enumerate(order):
        size = dims.evaluate(item.bytes, {})
        starts, stops, firsts, lasts = placed[:, :number]
        alive = np.flatnonzero((firsts <= item.last) & (lasts >= item.first))
        alive = alive[np.argsort(starts[alive], kind="stable")]
        below = np.maximum.accumulate(np.append(0, stops[alive]))  # what the gap before each starts at
        fits = below[:-1] + size <= starts[alive]
        offset = int(below[np.argmax(fits)] if fits.any() else below[-1])
        item.op.attrs["offset"] = offset
        placed[:, number] = offset, offset + size, item.first, item.last
        total = max(total, offset + size)
    return total


def _slots(intervals: list[Interval], hints: Mapping[str, int]) -> Size:
    def guess(size: Size) -> int:
        return dims.evaluate(size, {n: hints.get(n, GUESS) for n in dims.names_of(size)})

    slots: list[tuple[Size, list[Interval]]] = []
    taken = _Occupancy(max((i.last for i in intervals), default=0) + 1)
    for item in sorted(intervals, key=lambda i: (-guess(i.bytes), i.first)):
        k = taken.first_free(item.first, item.last)
        taken.take(item.first, item.last, k)
        if k == len(slots):
            slots.append((item.bytes, [item]))
            continue
        size, tenants = slots[k]
        tenants.append(item)
        slots[k] = (dims.maximum(size, item.bytes), tenants)
    offset: Size = 0
    for size, tenants in slots:
        for t in tenants:
            t.op.attrs["offset"] = offset
        offset = dims.add(offset, size)
    return offset


def report(func: Func) -> str:
    """The plan as a table: bytes, offset and life of each block, and the peak."""
    lines = [f"arena of @{func.name}: {func.attrs.get('arena', 0)} bytes at its peak"]
    hints = func.attrs.get("hints", {})
    for bytes in func.attrs.get("late", []):
        lines.append(f"  and {bytes} bytes once these sizes are known")
    total = func.attrs.get("arena", 0)
    if not isinstance(total, int) and dims.names_of(total) <= hints.keys():
        sizes = ", ".join(f"{n} = {hints[n]}" for n in sorted(dims.names_of(total)))
        lines.append(f"  {dims.evaluate(total, hints)} bytes at {sizes}")
    printer = Printer()
    printer.func(func)
    names = printer.names  # as the text of the placed function has them
    rows = [("place", "type", "bytes", "offset", "alive")]
    for i in live_intervals(func):
        value = i.op.result
        rows.append(
            (
                names[value],
                str(value.type),
                str(i.bytes),
                str(i.op.attrs["offset"]),
                f"{i.first}-{i.last}",
            )
        )
    widths = [max(len(r[k]) for r in rows) for k in range(5)]
    lines += ["  " + "  ".join(c.ljust(w) for c, w in zip(r, widths)).rstrip() for r in rows]
    for kind, text in (("output", "outputs, allocated at each call"), ("shared", "shared variables, kept")):
        of_kind = [
            p.type for p in func.body.params if p.type.place is not None and p.type.place.space == kind
        ]
        if of_kind:
            lines.append(f"  {text}: {dims.add(*(t.bytes for t in of_kind))} bytes")
    calls = [op for op in func.body.walk() if op.name == "call"]
    lines += [f"  not counted: the memory that the Python function {op.attrs['name']} takes" for op in calls]
    return "\n".join(lines) + "\n"
