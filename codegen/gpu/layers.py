"""Launches of one kernel that follow each other, none of which touches what another one writes, as one: a layer along the grid's y axis for
each.  Small ones, such as the copies of a loop's states, cost what a launch costs.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from tcc.codegen.gpu.kernel import GpuKernel
from tcc.codegen.kernel import Operand, Runtime
from tcc.ir import dims
from tcc.ir.core import Op, Value
from tcc.ir.dims import Size
from tcc.ir.types import Type, itemsize
from tcc.runtime.device_program import Address

MOST_WORDS = 256  # of arguments: chips take 4 KB of them


def may_be_layered(kernel: GpuKernel) -> bool:
    """Whether it is one function of its operands and sizes, in blocks along x."""
    plain = all(isinstance(s, Operand | Runtime) for s in kernel.slots)
    told = "@tcc.block.y(" in kernel.text or "@tcc.grid.y(" in kernel.text
    one = kernel.text.count("\ndefine ") + kernel.text.startswith("define ") == 1
    return plain and one and not told and kernel.grid[1:] == (1, 1) and not kernel.unless


def layered(kernel: GpuKernel, count: int) -> GpuKernel:
    """`count` launches of a kernel, whose arguments follow each other."""
    words = len(kernel.slots)
    begin = re.compile(rf"(define void @{kernel.name}\(ptr %args\) #0 {{\nentry:\n)(.*)", re.S)
    head = f"""  %layer.y = call i32 @tcc.block.y()
  %layer.n = zext i32 %layer.y to i64
  %layer.first = mul i64 %layer.n, {words}
  %layer.args = getelementptr i64, ptr %args, i64 %layer.first
"""
    found = begin.search(kernel.text)
    assert found is not None
    before, after = kernel.text[: found.end(1)], found[2]
    text = before + head + re.sub(r"%args\b", "%layer.args", after)
    text = "declare i32 @tcc.block.y()\n" + text
    name = f"tcc_layers_{hashlib.sha256(f'{text}{count}'.encode()).hexdigest()[:20]}"
    grid = kernel.grid[0], count, 1
    return replace(
        kernel, name=name, text=text.replace(kernel.name, name), slots=kernel.slots * count, grid=grid
    )


class Region(NamedTuple):
    """What an op reads or writes of a buffer, from a byte on; `bytes` is None where it is not known.  Of rows, `pitch` bytes apart, so
    many bytes are meant (0 apart: of no rows)."""

    buffer: int
    start: Size
    bytes: int | None
    written: bool
    pitch: int = 0
    row: int = 0


def regions(op: Op, places: Mapping[Value, Address]) -> list[Region]:
    """Of a placed op."""
    both = ((op.reads, False), (op.places, True))
    return [region(places[v], v.type, written) for values, written in both for v in values]


def region(at: Address, t: Type, written: bool) -> Region:
    return Region(at.buffer, at.offset, _extent(t), written, *_rows(t))


def _extent(t: Type) -> int | None:
    last = 0
    for size, stride in zip(t.shape, t.strides):
        if not isinstance(size, int) or not isinstance(stride, int) or stride < 0:
            return None
        if size == 0:
            return 0
        last += (size - 1) * stride
    return (last + 1) * itemsize(t.dtype)


def _rows(t: Type) -> tuple[int, int]:
    if t.rank < 2 or not _extent(t) or t.strides[-1] != 1:
        return 0, 0
    pitch, width = t.strides[-2], t.shape[-1]
    assert isinstance(pitch, int) and isinstance(width, int)
    apart = pitch >= width and not any(s % pitch for s in t.strides[:-2] if isinstance(s, int))
    return (pitch * itemsize(t.dtype), width * itemsize(t.dtype)) if apart else (0, 0)


def independent(a: Sequence[Region], b: Sequence[Region], lengths: Mapping[str, Size]) -> bool:
    """Whether two ops may run in any order; `lengths` are those of the loops around them, by index."""
    return all(_apart(x, y, lengths) for x in a for y in b if x.written or y.written)


def _apart(a: Region, b: Region, lengths: Mapping[str, Size]) -> bool:
    if a.buffer != b.buffer:
        return True
    if a.bytes is None or b.bytes is None:
        return False
    between = dims.sub(b.start, a.start)
    if isinstance(between, int):
        beside = a.pitch == b.pitch != 0 and a.row <= between % a.pitch <= a.pitch - b.row
        return beside or between >= a.bytes or -between >= b.bytes
    first, second = _bounds(a.start, lengths), _bounds(b.start, lengths)
    if first is None or second is None:
        return False
    return first[1] + a.bytes <= second[0] or second[1] + b.bytes <= first[0]


def _bounds(start: Size, lengths: Mapping[str, Size]) -> tuple[int, int] | None:
    """The least and the greatest that a sum of multiples of loops' indices can be."""
    if isinstance(start, int):
        return start, start
    low = high = 0
    for factors, scale in start.terms:
        if not factors:
            low, high = low + scale, high + scale
            continue
        index = factors[0].name if len(factors) == 1 and factors[0].kind == "name" else ""
        length = lengths.get(index)
        if not isinstance(length, int):
            return None
        far = scale * max(length - 1, 0)
        low, high = low + min(far, 0), high + max(far, 0)
    return low, high
