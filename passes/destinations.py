"""Where the values of a block should be made, so that little is copied into outputs, rows of loops and concatenations.

A value is wanted in a place.  A view of all that another value holds passes the wish on to that one, and a `concat` to
what it puts together, where what makes it can write between its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from tcc.ir import dims
from tcc.ir.builder import Builder
from tcc.ir.core import Block, Op, Value
from tcc.ir.dims import Size
from tcc.ir.types import Type, dense_strides
from tcc.passes.memory import Memory
from tcc.passes.writes import VIEWS, source_of, source_window, writes_apart


class Part(NamedTuple):
    """A value as an operand of a concat, and where it begins in the result."""

    concat: Op
    number: int
    start: Sequence[Size]


class Destinations:
    """The wishes for the values of one block."""

    def __init__(self, memory: Memory, builder: Builder, block: Block, batch_axes: int) -> None:
        self.memory, self.builder, self.block = memory, builder, block
        self.batch_axes = batch_axes  # that products walk
        self.places: dict[Value, Value] = {}
        self.parts: dict[Value, Part] = {}
        # of those that are made behind what another value holds, this one
        self.behind: dict[Value, Value] = {}
        self.strides: dict[Value, tuple[Size, ...]] = {}  # of those that are parts
        self.through: set[Value] = set()  # views whose places are those of their operands, seen otherwise
        self.wholes: dict[Op, Value] = {}  # the places of concats of which a part is made

    def want(self, value: Value, place: Value) -> None:
        """Asks that `value`, if an op of the block makes it, be made in `place`; who asks first gets it."""
        self._settle(self._chain(value, place.type), place)

    def want_behind(self, value: Value, old: Value, place: Value) -> None:
        """Asks for `place`, a window of memory beside the one that `old` has of it."""
        self.behind[source_of(value)] = old
        self.want(value, place)

    def want_parts(self, concat: Op) -> list[Value]:
        """Asks that what is put together be made where it will stand; returns those whose makers can write there."""
        whole, found = concat.result, []
        # a whole may itself be a part, of rows that lie apart
        strides = self.strides.get(whole, dense_strides(whole.type.shape))
        if whole in self.places:
            strides = self.places[whole].type.strides
        for k, (operand, start) in enumerate(zip(concat.operands, starts(concat), strict=True)):
            chain = self._chain(operand, operand.type.at("arena", strides))
            if not chain or any(v in self.places or v in self.parts for v, _ in chain):
                continue
            made, have = chain[-1]
            if 0 not in have.shape and writes_apart(
                made, have, self.batch_axes
            ):  # parts without elements are not apart
                self.parts[made], self.strides[made] = Part(concat, k, start), have.strides
                found.append(made)
        return found

    def of(self, value: Value, alloc: Callable[[Op], Value]) -> Value | None:
        """The place that `value` is wanted in.  `alloc` gives a concat one, of which a part is the first to be made."""
        if value not in self.places and value in self.parts:
            concat, k, start = self.parts[value]
            if concat not in self.wholes:
                self.wholes[concat] = self.of(concat.result, alloc) or alloc(concat)
            operand, steps = concat.operands[k], [1] * len(start)
            place = self.memory.part(self.builder, self.wholes[concat], operand.type, start, steps)
            self._settle(self._chain(operand, place.type), place)
        return self.places.get(value)

    def apart(self, a: Value, b: Value) -> bool:
        """Whether the values are wanted in different parts of one whole, or `a` beside `b`."""
        a, b = source_of(a), source_of(b)
        one, other = self.parts.get(a), self.parts.get(b)
        if one is None or other is None:
            return self.behind.get(a) is b
        return one.concat is other.concat and one.number != other.number

    def _settle(self, chain: Sequence[tuple[Value, Type]], place: Value) -> None:
        if any(v in self.places for v, _ in chain):
            return
        self.through.update(v for v, _ in chain[:-1])
        for v, t in chain:
            place = self.memory.window(self.builder, place, t.value, 0, t.strides)
            self.places[v] = place

    def _chain(self, value: Value, have: Type) -> list[tuple[Value, Type]]:
        """`value`, which lies as `have` says, and what it is a view of all of, down to what an op of the block makes, or
        must copy for a reshape; nothing where there is no such op."""
        chain = [(value, have)]
        while (op := value.op) is not None and op.name in VIEWS:
            source = source_window(op, have, self.batch_axes)
            if source is None or not self.memory.known_at_entry(source):
                break
            value, have = op.operands[0], source
            chain.append((value, have))
        while chain and not self._made_here(chain[-1][0]):
            chain.pop()
        return chain

    def _made_here(self, value: Value) -> bool:
        op = value.op
        if op is None or op.parent is not self.block:
            return False
        return op.name == "reshape" or op.name not in (*VIEWS, "const")


def starts(concat: Op) -> list[list[Size]]:
    """Where each operand begins in the result."""
    axis, rank = int(concat.attrs["axis"]), concat.result.type.rank
    found: list[list[Size]] = []
    at: Size = 0
    for v in concat.operands:
        found.append([at if i == axis else 0 for i in range(rank)])
        at = dims.add(at, v.type.shape[axis])
    return found
