"""Gives every value a place in memory: the one pass after which ops write somewhere.

A value's place is, in this order of preference: a window of another place (views), a result's own output, the shared
variable that it updates, the place of an operand that dies here (`reuse`), or new memory in the arena.  Shared
variables are written after the last op that can fail, and old values are read before they are overwritten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tcc.ir import dims
from tcc.ir.builder import Builder
from tcc.ir.core import Block, Func, Op, Value
from tcc.ir.dims import Size
from tcc.ir.optable import TABLE
from tcc.ir.types import COMPLEX, Type, dense_strides
from tcc.ir.verify import same_place
from tcc.passes import complexes
from tcc.passes.access import PARTS
from tcc.passes.complexes import Complex
from tcc.passes.destinations import Destinations, Windows, starts
from tcc.passes.epilogue import WITH_EPILOGUE
from tcc.passes.inplace import carries_in_place, sink_updates
from tcc.passes.manager import Context
from tcc.passes.tracks import Track, stacked_carries
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
    same_window,
    source_of,
    window_of,
)


def place(func: Func, ctx: Context, *, pieces: bool = True) -> None:
    """Rewrites `func` to level 3: ops carry `into`, results are parameters in @output or updates of @shared.

    With `pieces` there are more copies that take less time: lines to be sorted that lie across memory are turned on their way in
    and out, and one number is written around a window alone.
    """
    _Placement(func, ctx, pieces).run()


@dataclass
class _Scope:
    """One block being placed: where ops go, and the position of the last use of each storage in it."""

    builder: Builder
    last_use: dict[Value, int]
    wishes: Destinations
    position: int = 0


class _Placement:
    def __init__(self, func: Func, ctx: Context, pieces: bool) -> None:
        self.func, self.ctx, self.pieces = func, ctx, pieces
        self.places: dict[Value, Value] = {}  # value -> its place in the new body
        self.windows = Windows()
        self.roots = self.windows.roots
        self.owned: set[Value] = set()  # arena roots, which may be taken over when they die
        self.storage: dict[Value, Value] = {}  # value -> first value of its alias class
        self.shared = list(func.attrs.get("shared", ()))
        self.updates: dict[str, int] = dict(func.attrs.get("updates", {}))
        self.loops = 0
        self.entry_names = frozenset().union(
            *(dims.names_of(s) for p in func.body.params for s in p.type.shape)
        )

    # -- the function ---------------------------------------------------------------------------------------------

    def run(self) -> None:
        old = self.func.body
        types = [p.type.at("shared" if p.name in self.shared else "input") for p in old.params]
        body = Block(types, [p.name for p in old.params])
        params = {p.name: p for p in old.params}
        for p, new in zip(old.params, body.params):
            self.bind(p, new, new)
        in_place = sink_updates(old, params, self.updates, self.ctx)
        scope = self.scope(body, old)
        updated = {index: name for name, index in self.updates.items()}
        adopts = [i for i, name in updated.items() if old.yields[i].type != params[name].type]
        made = [i for i in range(len(old.yields)) if i not in updated] + adopts
        outputs = [(old.yields[i], self.output(old.yields[i], f"out{i}", scope)) for i in made]
        commits: list[tuple[Value, Value]] = []
        for i, name in updated.items():
            v, target = old.yields[i], self.places[params[name]]
            if i in adopts:
                continue
            if v in in_place:
                scope.wishes.places[v] = target
            elif v is not params[name]:
                commits.append((v, target))
        self.block(old, scope)
        b = scope.builder
        b.loc = ""
        for number, (v, known) in enumerate(outputs):
            if known is None:
                known = b.op("alloc", attrs={"type": v.type.at("output"), "offset": number}).result
            self.start_from(b, self.places[v], known, "")
        self.commit(b, commits)
        b.op("yield")
        self.func.body = body
        body.parent = self.func
        self.func.attrs["outputs"] = [v.type for v, _ in outputs]
        self.func.attrs["adopts"] = [updated[i] for i in adopts]

    def output(self, value: Value, name: str, scope: _Scope) -> Value | None:
        """The parameter in which an output is made; None if its sizes are only known later."""
        if not self.known_at_entry(value.type):
            return None
        place = scope.builder.block.add_param(value.type.at("output"), name)
        self.roots[place] = place
        scope.wishes.want(value, place)
        return place

    def known_at_entry(self, type: Type) -> bool:
        return all(dims.names_of(s) <= self.entry_names for s in type.shape)

    def bind(self, value: Value, place: Value, root: Value) -> None:
        self.places[value] = place
        self.roots[place] = root

    def scope(self, block: Block, old: Block) -> _Scope:
        """For placing the ops of `old` in `block`."""
        builder = Builder(block)
        return _Scope(
            builder, self.last_uses(old), Destinations(self.windows, builder, old, self.known_at_entry)
        )

    def wanted(self, scope: _Scope, value: Value) -> Value | None:
        return scope.wishes.of(value, lambda op: self.alloc(scope.builder, op.result.type, op.result.name))

    def commit(self, b: Builder, commits: Sequence[tuple[Value, Value]]) -> None:
        """Copies new values of shared variables over the old ones; one that is itself an old value goes first to the side."""
        sources: list[Value] = []
        targets = {target for _, target in commits}
        for v, target in commits:
            source = self.places[v]
            if self.roots[source] in targets and source is not target:
                source = self.copy(b, source, self.alloc(b, v.type, ""), "")
            sources.append(source)
        for source, (_, target) in zip(sources, commits):
            self.start_from(b, source, target, "")

    # -- liveness -------------------------------------------------------------------------------------------------

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

    # -- blocks ---------------------------------------------------------------------------------------------------

    def block(self, block: Block, scope: _Scope) -> None:
        self.parts(block, scope)
        for i, op in enumerate(list(block.ops)):
            scope.position = i
            scope.builder.loc = op.loc
            if op.name == "yield":
                return
            if op.name in VIEWS:
                self.view(op, scope)
            elif op.name == "concat":
                self.concat(op, scope)
            elif op.name == "insert":
                self.insert(op, scope)
            elif op.name == "scan":
                self.scan(op, scope)
            elif op.name == "ifelse":
                self.ifelse(op, scope)
            elif op.name in PARTS:
                self.part(op, scope)
            elif op.name in ("iota", "size") or (op.name == "const" and np.ndim(op.attrs["value"]) == 0):
                self.created(op, scope)
            elif op.name == "const":
                place = scope.builder.op(
                    "const", attrs={**op.attrs, "type": op.result.type.at("const")}
                ).result
                place.name = op.result.name
                self.bind(op.result, place, place)
            else:
                self.plain(op, scope)

    def parts(self, block: Block, scope: _Scope) -> None:
        """Has what is put together made where it will stand.  A whole lives as long as its parts, and theirs; a part, which may be
        all of it, as long as the whole."""
        last = scope.last_use
        found = [
            (self.storage_of(v), self.storage_of(op.result))
            for op in reversed(list(block.ops))
            if op.name == "concat" and all(self.known_at_entry(v.type) for v in (*op.operands, op.result))
            for v in scope.wishes.want_parts(op)
        ]
        for part, whole in reversed(found):
            last[whole] = max(last.get(whole, 0), last.get(part, 0))
        for part, whole in found:
            last[part] = max(last.get(part, 0), last[whole])

    def plain(self, op: Op, scope: _Scope) -> None:
        """An op that reads places and fills new ones (or checks, and fills none)."""
        b = scope.builder
        reads = [self.places[v] for v in op.operands]
        if on_host(op):
            reads = [self.dense(b, p, op.loc) for p in reads]
        if op.name in WITH_EPILOGUE:
            reads = [
                p if product_reads(op, i, p.type) else self.dense(b, p, op.loc) for i, p in enumerate(reads)
            ]
        taken: set[Value] = set()
        places: list[Value] = []
        for r in op.results:
            target = self.destination(op, r, scope, taken)
            taken.add(self.roots[target])
            places.append(target)
            self.bind(r, target, self.roots[target])
        targets = list(places)
        if self.pieces and op.name in LINES:
            axis = int(op.attrs["axis"])
            if lies_across(reads[0].type, axis):
                reads = [self.copy(b, reads[0], self.lines(b, reads[0].type, axis), op.loc)]
            places = [self.lines(b, p.type, axis) if lies_across(p.type, axis) else p for p in places]
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
            self.start_from(b, reads[0], places[0], op.loc)
        b.block.append(new)
        for made, target in zip(places, targets):
            self.start_from(b, made, target, op.loc)

    def lines(self, b: Builder, type: Type, axis: int) -> Value:
        """New memory for a value, in which it is dense along `axis`."""
        order = [*(a for a in range(type.rank) if a != axis), axis]
        memory = self.alloc(b, Type(type.dtype, tuple(type.shape[a] for a in order)), "")
        strides = dict(zip(order, memory.type.strides))
        return self.windows.window(b, memory, type.value, 0, tuple(strides[a] for a in range(type.rank)))

    def part(self, op: Op, scope: _Scope) -> None:
        """A part of complex numbers that something other than a kernel reads: a map."""
        source = self.places[op.operands[0]]
        body = Block([Type(source.type.dtype)])
        inner = Builder(body, loc=op.loc)
        inner.op("yield", inner.op(op.name, *body.params).result)
        self.map_of([source], op, body, scope)

    def created(self, op: Op, scope: _Scope) -> None:
        """A value made of nothing, which no kernel took in: a map without operands; one number that is only to lie around windows is
        there once."""
        t = op.result.type
        if self.pieces and op.name == "const" and all(lies_around(u, op.result) for u in op.result.users):
            b = scope.builder
            number = self.alloc(b, Type(t.dtype), "")
            self.fill(b, number, op.attrs["value"], op.loc)
            self.bind(op.result, self.windows.window(b, number, t, 0, (0,) * t.rank), number)
            return
        body = Block()
        inner = Builder(body, loc=op.loc)
        attrs: dict[str, Any] = {**op.attrs, "shape": []} if op.name == "iota" else dict(op.attrs)
        if op.name == "const":
            attrs["type"] = Type(t.dtype)
        inner.op("yield", inner.op(op.name, attrs=attrs).result)
        self.map_of([], op, body, scope)

    def map_of(self, sources: list[Value], op: Op, body: Block, scope: _Scope) -> None:
        """The result of `op` as a map of what lies in `sources`."""
        target = self.destination(op, op.result, scope, set())
        self.bind(op.result, target, self.roots[target])
        scope.builder.block.append(inner_fuse([*sources, target], op.result.type, body, op.loc))

    def dense(self, b: Builder, place: Value, loc: str) -> Value:
        """The place itself if it is row-major and dense, else a copy that is."""
        if place.type.strides == dense_strides(place.type.shape):
            return place
        return self.copy(b, place, self.alloc(b, place.type.value, ""), loc)

    def start_from(self, b: Builder, source: Value, target: Value, loc: str) -> None:
        if source is not target:
            self.copy(b, source, target, loc)

    def destination(self, op: Op, result: Value, scope: _Scope, taken: set[Value]) -> Value:
        """Where `result` goes: a place it is wanted in, an operand's that dies here, or new memory."""
        wanted = self.wanted(scope, result)
        if (
            wanted is not None
            and wanted.type.value == result.type
            and self._is_free(op, result, wanted, scope)
        ):
            return wanted
        for i, v in enumerate(op.operands):
            if self.roots[self.places[v]] not in taken and self._may_take(op, i, result, scope):
                return self.places[v]
        return self.alloc(scope.builder, result.type, result.name)

    def _is_free(self, op: Op, result: Value, wanted: Value, scope: _Scope) -> bool:
        """Whether `op` neither reads otherwise nor writes besides what `result` would overwrite in `wanted`."""
        root, apart = self.roots[wanted], scope.wishes.apart
        read_otherwise = any(
            self.roots[self.places[v]] is root
            and not same_window(op, i, result, self.places[v], wanted)
            and not apart(result, v)
            for i, v in enumerate(op.operands)
        )
        return not read_otherwise and not any(
            self.roots[self.places[r]] is root and not apart(result, r) for r in op.results[: result.index]
        )

    def _may_take(self, op: Op, i: int, result: Value, scope: _Scope) -> bool:
        """Whether operand i is memory of this function's that dies here, which `result` may overwrite while it is read."""
        v, place = op.operands[i], self.places[op.operands[i]]
        if place not in self.owned or place.type.value != result.type or not may_take(op, i, result):
            return False
        if scope.last_use.get(self.storage_of(v)) != scope.position or not self._dies_here(v, scope):
            return False
        return all(
            may_take(op, j, result) and self.places[w] is place
            for j, w in enumerate(op.operands)
            if self.roots[self.places[w]] is place
        )

    def _dies_here(self, value: Value, scope: _Scope) -> bool:
        """Only memory of the block being placed may be taken: outer memory lives on in the next round."""
        root = self.roots[self.places[value]]
        return isinstance(root.owner, Op) and root.owner.parent is scope.builder.block

    def alloc(self, b: Builder, type: Type, name: str) -> Value:
        space = "arena" if self.known_at_entry(type) else "late"
        value = b.op("alloc", attrs={"type": type.at(space)}).result
        value.name = name
        self.roots[value] = value
        self.owned.add(value)
        return value

    def copy(self, b: Builder, source: Value, target: Value, loc: str) -> Value:
        b.block.append(Op(TABLE["copy"], [source, target], [], attrs={"into": 1}, loc=loc))
        return target

    # -- views ----------------------------------------------------------------------------------------------------

    def view(self, op: Op, scope: _Scope) -> None:
        source = self.places[op.operands[0]]
        there = self.wanted(scope, op.result)
        # what is updated in place may have been wanted elsewhere before
        made_there = op.result in scope.wishes.through and source is scope.wishes.places.get(op.operands[0])
        if there is not None and made_there and self.roots[source] is self.roots[there]:
            self.bind(op.result, there, self.roots[there])
            return
        window = window_of(op, source.type)
        if window is None:  # a reshape of strided memory
            b, t = scope.builder, source.type.value
            if there is None:
                dense = self.alloc(b, t, "")
            else:
                dense = self.windows.window(b, there, t, 0, dense_strides(t.shape))
                self.bind(op.result, there, self.roots[there])
            source = self.copy(b, source, dense, op.loc)
            if there is not None:
                return
            window = window_of(op, source.type)
            assert window is not None
        offset, strides = window
        self.bind(
            op.result,
            self.windows.window(scope.builder, source, op.result.type, offset, strides, op.result.name),
            self.roots[source],
        )
        if op.name == "refine":
            for have, want in zip(op.operands[0].type.shape, op.result.type.shape):
                if have != want:
                    scope.builder.op(
                        "check_size",
                        attrs={"left": have, "right": want, "message": "sizes differ"},
                        loc=op.loc,
                    )

    def concat(self, op: Op, scope: _Scope) -> None:
        b, wishes = scope.builder, scope.wishes
        target = wishes.wholes.get(op)
        if target is None:
            target = self.destination(op, op.result, scope, set())
        self.bind(op.result, target, self.roots[target])
        for k, (v, start) in enumerate(zip(op.operands, starts(op), strict=True)):
            wish = wishes.parts.get(source_of(v))
            made_there = wish is not None and (wish.concat, wish.number) == (op, k)
            if not made_there or self.places[v] is not wishes.places.get(v):
                part = self.windows.part(b, target, v.type, start, [1] * v.type.rank)
                if not same_place(self.places[v], part):  # a reshape of strided memory copied to it
                    self.copy(b, self.places[v], part, op.loc)

    def insert(self, op: Op, scope: _Scope) -> None:
        """x with a window replaced or added to: in x's memory when x dies here, else in a copy."""
        b = scope.builder
        x, v = op.operands
        target = self.destination(op, op.result, scope, set())
        source = self.places[x]
        value = self.places[v]
        if self.roots[value] is self.roots[target]:
            value = self.copy(b, value, self.alloc(b, v.type, ""), op.loc)
        if lies_around(op, x) and not any(source.type.strides) and self.pieces:
            self.copy_around(b, source, target, op)
        else:
            self.start_from(b, source, target, op.loc)
        self.bind(op.result, target, self.roots[target])
        window = self.windows.part(b, target, v.type, op.attrs["start"], op.attrs["step"])
        if op.attrs["mode"] == "set":
            self.copy(b, value, window, op.loc)
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
                        self.windows.part(b, p, type, start, [1] * len(start)) for p in (source, target)
                    )
                    self.copy(b, outside, there, op.loc)
            start[axis], sizes[axis] = at, count

    # -- scan -----------------------------------------------------------------------------------------------------

    def scan(self, op: Op, scope: _Scope) -> None:
        """A native loop: elements are windows, carries have memory of their own, or rows of their stacks, outputs are made in
        their rows."""
        b, body = scope.builder, op.block
        seqs, carries = int(op.attrs["seqs"]), int(op.attrs["carries"])
        length: Size = op.attrs["length"]
        index = dims.name(f"i{self.loops}")
        self.loops += 1
        tracks = self.tracks(op, scope)
        tracked = {j for track in tracks.values() for j in track.stacks}
        outs: list[Value] = []
        for k, r in enumerate(op.results):
            if r in self.places:
                outs.append(self.places[r])
                continue
            target = self.wanted(scope, r)
            if target is None or self.roots[target] is not target:
                target = self.alloc(b, r.type, r.name)
            if op.attrs["until"] and k >= carries:
                self.fill(b, target, 0, op.loc)  # what no step reaches
            if k < carries:
                self.copy(b, self.places[op.operands[seqs + k]], target, op.loc)
            outs.append(target)
            self.bind(r, target, self.roots[target])
        inner = Block()
        at = dims.sub(dims.sub(length, 1), index) if op.attrs["reverse"] else index
        inside = self.scope(inner, body)
        following: list[Value] = []  # where the next values of the carries have to be
        for k, p in enumerate(body.params):
            if k < seqs:
                whole = self.places[op.operands[k]]
                self.bind(p, self.windows.element(inside.builder, whole, p.type, at), self.roots[whole])
            elif (track := tracks.get(k - seqs)) is not None:
                old, new = (
                    self.windows.element(inside.builder, track.whole, p.type, n) for n in track.rows(at)
                )
                self.bind(p, old, self.roots[track.whole])
                following.append(new)
            else:
                self.bind(p, outs[k - seqs], self.roots[outs[k - seqs]])
                following.append(outs[k - seqs])
        rows: list[tuple[Value, Value]] = []
        ends = len(op.results) - bool(op.attrs["until"])
        for k in range(carries, ends):
            if k not in tracked:
                v = body.yields[k]
                rows.append((v, self.windows.element(inside.builder, outs[k], v.type, at)))
                inside.wishes.want(*rows[-1])
        for k in tracks:
            inside.wishes.want_behind(body.yields[k], body.params[seqs + k], following[k])
        changed = carries_in_place(body, seqs, [k for k in range(carries) if k not in tracks])
        for k in changed:
            inside.wishes.places.setdefault(body.yields[k], following[k])
        self.block(body, inside)
        for v, row in rows:
            self.start_from(inside.builder, self.places[v], row, op.loc)
        stop: list[Value] = []
        if op.attrs["until"]:
            stop.append(self.alloc(b, Type("bool"), ""))
            self.copy(inside.builder, self.places[body.yields[-1]], stop[0], op.loc)
            self.fill(inside.builder, outs[-1], dims.add(index, 1), op.loc)
        self.commit(inside.builder, list(zip(body.yields[:carries], following)))
        inside.builder.op("yield")
        b.op("for", *stop, attrs={"index": index, "length": length}, blocks=[inner], loc=op.loc)

    def tracks(self, op: Op, scope: _Scope) -> dict[int, Track]:
        """The carries whose values lie in rows, of which the stacks of old and of new values are windows; those of
        them that are made elsewhere, such as in an output, are not.  The results are bound."""
        b, seqs = scope.builder, int(op.attrs["seqs"])
        found: dict[int, Track] = {}
        for k, stacks in stacked_carries(op).items():
            wishes = {j: self.wanted(scope, op.results[j]) for j in stacks}
            stacks = {j: n for j, n in stacks.items() if (w := wishes[j]) is None or self.roots[w] is not w}
            if not stacks:
                continue
            first, last = op.operands[seqs + k], op.results[k]
            t = last.type
            whole = self.alloc(b, t.with_shape(dims.add(op.attrs["length"], 1), *t.shape), last.name)
            track = found[k] = Track(whole, stacks, bool(op.attrs["reverse"]))
            begin, end = track.ends(op.attrs["length"])
            self.copy(b, self.places[first], self.windows.element(b, whole, t, begin), op.loc)
            self.bind(last, self.windows.element(b, whole, t, end), self.roots[whole])
            for j, row in stacks.items():
                stack = op.results[j]
                offset = dims.mul(row, whole.type.strides[0])
                window = self.windows.window(b, whole, stack.type, offset, whole.type.strides, stack.name)
                self.bind(stack, window, self.roots[whole])
        return found

    def fill(self, b: Builder, target: Value, value: Size | float, loc: str) -> None:
        """A number, or a size, everywhere in a place."""
        t = target.type
        body = Block()
        inner = Builder(body, loc=loc)
        made = (
            inner.const(value, Type(t.dtype))
            if not isinstance(value, dims.Expr)
            else inner.op("size", attrs={"value": value}).result
        )
        inner.op("yield", made)
        b.block.append(inner_fuse([target], t, body, loc))

    # -- ifelse ---------------------------------------------------------------------------------------------------

    def ifelse(self, op: Op, scope: _Scope) -> None:
        """Both branches make their results in the same places."""
        b = scope.builder
        targets: list[Value] = []
        for r in op.results:
            wanted = self.wanted(scope, r)
            targets.append(wanted if wanted is not None else self.alloc(b, r.type, r.name))
            self.bind(r, targets[-1], self.roots[targets[-1]])
        blocks: list[Block] = []
        for branch in op.blocks:
            inside = self.scope(Block(), branch)
            for v, target in zip(branch.yields, targets):
                inside.wishes.want(v, target)
            self.block(branch, inside)
            inside.builder.loc = op.loc
            for v, target in zip(branch.yields, targets):
                self.start_from(inside.builder, self.places[v], target, op.loc)
            inside.builder.op("yield")
            blocks.append(inside.builder.block)
        b.op("ifelse", self.places[op.operands[0]], blocks=blocks, loc=op.loc)
