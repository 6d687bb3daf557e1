"""Places for one op after another: what it reads and writes, and where a result goes.

A value's place is, in this order of preference: a window of another place (views), a place that it is wanted in, that of an
operand that dies here (`reuse`), or new memory in the arena.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tcc.ir import dims
from tcc.ir.builder import Builder
from tcc.ir.core import Block, Func, Op, Value
from tcc.ir.dims import Size
from tcc.ir.types import COMPLEX, Type, dense_strides
from tcc.ir.verify import same_place
from tcc.passes import complexes
from tcc.passes.access import PARTS
from tcc.passes.complexes import Complex
from tcc.passes.destinations import Destinations, starts
from tcc.passes.epilogue import WITH_EPILOGUE
from tcc.passes.memory import Memory
from tcc.passes.writes import (
    LINES,
    VIEWS,
    added_operand,
    inner_fuse,
    lies_across,
    lies_around,
    may_take,
    moved_blocks,
    on_host,
    product_reads,
    reads_one_number,
    reshaped_order,
    same_window,
    source_of,
    window_of,
)


@dataclass
class Scope:
    """One block being placed: where ops go, and the position of the last use of each storage in it."""

    builder: Builder
    last_use: dict[Value, int]
    wishes: Destinations
    position: int = 0


class Ops:
    """Places ops that hold no blocks to be placed."""

    def __init__(self, func: Func, pieces: bool, batch_axes: int) -> None:
        self.memory, self.pieces, self.batch_axes = Memory(func), pieces, batch_axes
        self.storage: dict[Value, Value] = {}  # value -> first value of its alias class

    def op(self, op: Op, scope: Scope) -> None:
        b = scope.builder
        if op.name in VIEWS:
            self.view(op, scope)
        elif op.name == "concat":
            self.concat(op, scope)
        elif op.name == "insert":
            self.insert(op, scope)
        elif op.name in PARTS:
            self.part(op, scope)
        elif op.name in ("iota", "size") or (op.name == "const" and np.ndim(op.attrs["value"]) == 0):
            self.created(op, scope)
        elif op.name == "const":
            place = b.op("const", attrs={**op.attrs, "type": op.result.type.at("const")}).result
            place.name = op.result.name
            self.memory.bind(op.result, place)
        else:
            self.plain(op, scope)

    def plain(self, op: Op, scope: Scope) -> None:
        """An op that reads places and fills new ones (or checks, and fills none)."""
        m, b = self.memory, scope.builder
        reads = [m.places[v] for v in op.operands]
        if on_host(op):
            reads = [m.dense(b, p, op.loc) for p in reads]
        if op.name in WITH_EPILOGUE:
            reads = [
                p if product_reads(op, i, p.type, self.batch_axes) else m.dense(b, p, op.loc)
                for i, p in enumerate(reads)
            ]
        taken: set[Value] = set()
        places: list[Value] = []
        for r in op.results:
            target = self.destination(op, r, scope, taken)
            taken.add(m.roots[target])
            places.append(target)
            m.bind(r, target)
        targets = list(places)
        if self.pieces and op.name in LINES:
            axis = int(op.attrs["axis"])
            if lies_across(reads[0].type, axis):
                reads = [m.copy(b, reads[0], m.lines(b, reads[0].type, axis), op.loc)]
            places = [m.lines(b, p.type, axis) if lies_across(p.type, axis) else p for p in places]
        attrs, blocks = dict(op.attrs), moved_blocks(op)
        if places:
            attrs["into"] = len(places)
        added = added_operand(op.defn.name, blocks)
        if added is not None and reads[added] is places[0]:
            del reads[added]
            attrs |= {"accumulate": True, "maps": []}
            blocks = []
        new = Op(op.defn, [*reads, *places], [], attrs=attrs, blocks=blocks, loc=op.loc)
        if op.name == "scatter":
            m.start_from(b, reads[0], places[0], op.loc)
        b.block.append(new)
        for made, target in zip(places, targets):
            m.start_from(b, made, target, op.loc)

    def part(self, op: Op, scope: Scope) -> None:
        """A part of complex numbers that something other than a kernel reads: a map."""
        source = self.memory.places[op.operands[0]]
        body = Block([Type(source.type.dtype)])
        inner = Builder(body, loc=op.loc)
        inner.op("yield", inner.op(op.name, *body.params).result)
        self.map_of([source], op, body, scope)

    def created(self, op: Op, scope: Scope) -> None:
        """A value made of nothing, which no kernel took in: a map without operands; one number that is only to lie around windows,
        or to be scattered, is there once."""
        m = self.memory
        t = op.result.type
        if (
            self.pieces
            and op.name == "const"
            and all(reads_one_number(u, op.result) for u in op.result.users)
        ):
            b = scope.builder
            number = m.alloc(b, Type(t.dtype), "")
            m.fill(b, number, op.attrs["value"], op.loc)
            m.bind(op.result, m.window(b, number, t, 0, (0,) * t.rank))
            return
        body = Block()
        inner = Builder(body, loc=op.loc)
        attrs: dict[str, Any] = {**op.attrs, "shape": []} if op.name == "iota" else dict(op.attrs)
        if op.name == "const":
            attrs["type"] = Type(t.dtype)
        inner.op("yield", inner.op(op.name, attrs=attrs).result)
        self.map_of([], op, body, scope)

    def map_of(self, sources: list[Value], op: Op, body: Block, scope: Scope) -> None:
        """The result of `op` as a map of what lies in `sources`."""
        target = self.destination(op, op.result, scope, set())
        self.memory.bind(op.result, target)
        scope.builder.block.append(inner_fuse([*sources, target], op.result.type, body, op.loc))

    # -- where a result goes

    def destination(self, op: Op, result: Value, scope: Scope, taken: set[Value]) -> Value:
        """Where `result` goes: a place it is wanted in, an operand's that dies here, or new memory."""
        m = self.memory
        wanted = self.wanted(scope, result)
        if (
            wanted is not None
            and wanted.type.value == result.type
            and self._is_free(op, result, wanted, scope)
        ):
            return wanted
        for i, v in enumerate(op.operands):
            if m.roots[m.places[v]] not in taken and self._may_take(op, i, result, scope):
                return m.places[v]
        order = reshaped_order(result, self.batch_axes)
        if order is not None:
            return m.ordered(scope.builder, result.type, order)
        return m.alloc(scope.builder, result.type, result.name)

    def wanted(self, scope: Scope, value: Value) -> Value | None:
        return scope.wishes.of(
            value, lambda op: self.memory.alloc(scope.builder, op.result.type, op.result.name)
        )

    def _is_free(self, op: Op, result: Value, wanted: Value, scope: Scope) -> bool:
        """Whether `op` neither reads otherwise nor writes besides what `result` would overwrite in `wanted`."""
        m = self.memory
        root, apart = m.roots[wanted], scope.wishes.apart
        read_otherwise = any(
            m.roots[m.places[v]] is root
            and not same_window(op, i, result, m.places[v], wanted)
            and not apart(result, v)
            for i, v in enumerate(op.operands)
        )
        return not read_otherwise and not any(
            m.roots[m.places[r]] is root and not apart(result, r) for r in op.results[: result.index]
        )

    def _may_take(self, op: Op, i: int, result: Value, scope: Scope) -> bool:
        """Whether operand i is memory of this function's that dies here, which `result` may overwrite while it is read."""
        m = self.memory
        v, place = op.operands[i], m.places[op.operands[i]]
        if place not in m.owned or place.type.value != result.type or not may_take(op, i, result):
            return False
        if scope.last_use.get(self.storage_of(v)) != scope.position or not self._dies_here(v, scope):
            return False
        return all(
            may_take(op, j, result) and m.places[w] is place
            for j, w in enumerate(op.operands)
            if m.roots[m.places[w]] is place
        )

    def _dies_here(self, value: Value, scope: Scope) -> bool:
        """Only memory of the block being placed may be taken: outer memory lives on in the next round."""
        root = self.memory.roots[self.memory.places[value]]
        return isinstance(root.owner, Op) and root.owner.parent is scope.builder.block

    # -- liveness

    def last_uses(self, block: Block) -> dict[Value, int]:
        """For every storage used in the block (or inside its ops), the position of the last op that touches it."""
        last: dict[Value, int] = {}
        for i, op in enumerate(block.ops):
            for inner in [op, *(o for b in op.blocks for o in b.walk())]:
                for v in inner.operands:
                    last[self.storage_of(v)] = i
            if op.name in VIEWS:
                self.storage[op.result] = self.storage_of(op.operands[0])
        return last

    def storage_of(self, value: Value) -> Value:
        op = value.op
        if value not in self.storage and op is not None and op.name in VIEWS:
            self.storage[value] = self.storage_of(op.operands[0])
        return self.storage.get(value, value)

    # -- views, and what is put together

    def view(self, op: Op, scope: Scope) -> None:
        m = self.memory
        source = m.places[op.operands[0]]
        there = self.wanted(scope, op.result)
        # what is updated in place may have been wanted elsewhere before
        made_there = op.result in scope.wishes.through and source is scope.wishes.places.get(op.operands[0])
        if there is not None and made_there and m.roots[source] is m.roots[there]:
            m.bind(op.result, there)
            return
        window = window_of(op, source.type)
        if window is None:  # a reshape of strided memory
            b, t = scope.builder, source.type.value
            if there is None:
                dense = m.alloc(b, t, "")
            else:
                dense = m.window(b, there, t, 0, dense_strides(t.shape))
                m.bind(op.result, there)
            source = m.copy(b, source, dense, op.loc)
            if there is not None:
                return
            window = window_of(op, source.type)
            assert window is not None
        offset, strides = window
        m.bind(op.result, m.window(scope.builder, source, op.result.type, offset, strides, op.result.name))
        if op.name == "refine":
            for have, want in zip(op.operands[0].type.shape, op.result.type.shape):
                if have != want:
                    scope.builder.op(
                        "check_size",
                        attrs={"left": have, "right": want, "message": "sizes differ"},
                        loc=op.loc,
                    )

    def concat(self, op: Op, scope: Scope) -> None:
        m, b, wishes = self.memory, scope.builder, scope.wishes
        target = wishes.wholes.get(op)
        if target is None:
            target = self.destination(op, op.result, scope, set())
        m.bind(op.result, target)
        for k, (v, start) in enumerate(zip(op.operands, starts(op), strict=True)):
            wish = wishes.parts.get(source_of(v))
            made_there = wish is not None and (wish.concat, wish.number) == (op, k)
            if not made_there or m.places[v] is not wishes.places.get(v):
                part = m.part(b, target, v.type, start, [1] * v.type.rank)
                if not same_place(m.places[v], part):  # a reshape of strided memory copied to it
                    m.copy(b, m.places[v], part, op.loc)

    def insert(self, op: Op, scope: Scope) -> None:
        """x with a window replaced or added to: in x's memory when x dies here, else in a copy."""
        m, b = self.memory, scope.builder
        x, v = op.operands
        target = self.destination(op, op.result, scope, set())
        source = m.places[x]
        value = m.places[v]
        if m.roots[value] is m.roots[target]:
            value = m.copy(b, value, m.alloc(b, v.type, ""), op.loc)
        if lies_around(op, x) and not any(source.type.strides) and self.pieces:
            self.copy_around(b, source, target, op)
        else:
            m.start_from(b, source, target, op.loc)
        m.bind(op.result, target)
        window = m.part(b, target, v.type, op.attrs["start"], op.attrs["step"])
        if op.attrs["mode"] == "set":
            m.copy(b, value, window, op.loc)
            return
        scalar = Type(v.type.dtype)
        block = Block([scalar, scalar], ["x", "v"])
        inner = Builder(block)
        if scalar.dtype in COMPLEX:
            total = complexes.add(inner, *(Complex(inner.real(p), inner.imag(p)) for p in block.params))
            inner.op("yield", inner.complex(*total))
        else:
            inner.op("yield", inner.add(*block.params))
        fuse = inner_fuse([window, value, window], v.type, block, op.loc)
        b.block.append(fuse)

    def copy_around(self, b: Builder, source: Value, target: Value, op: Op) -> None:
        """What lies outside the window that `op` writes: of the first axis before and behind it, then of the next one beside it."""
        sizes = list(source.type.shape)
        start: list[Size] = [0] * len(sizes)
        for axis, (at, count) in enumerate(zip(op.attrs["start"], op.operands[1].type.shape)):
            end = dims.add(at, count)
            for first, left in ((0, at), (end, dims.sub(sizes[axis], end))):
                start[axis], shape = first, [*sizes[:axis], left, *sizes[axis + 1 :]]
                if 0 not in shape:
                    type = Type(source.type.dtype, tuple(shape))
                    outside, there = (
                        self.memory.part(b, p, type, start, [1] * len(start)) for p in (source, target)
                    )
                    self.memory.copy(b, outside, there, op.loc)
            start[axis], sizes[axis] = at, count
