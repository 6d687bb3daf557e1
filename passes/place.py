"""Gives every value a place in memory: the one pass after which ops write somewhere.

Outputs and shared variables are written by the ops that make them where that can be: shared variables after the last op that
can fail, and old values are read before they are overwritten.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tcc.ir import dims
from tcc.ir.builder import Builder
from tcc.ir.core import Block, Func, Op, Value
from tcc.ir.dims import Size
from tcc.ir.types import Type
from tcc.passes.destinations import Destinations
from tcc.passes.inplace import carries_in_place, sink_updates
from tcc.passes.manager import Context
from tcc.passes.placing import Ops, Scope
from tcc.passes.tracks import Track, stacked_carries


def place(func: Func, ctx: Context, *, pieces: bool = True, batch_axes: int = 2) -> None:
    """Rewrites `func` to level 3: ops carry `into`, results are parameters in @output or updates of @shared.

    With `pieces` there are more copies that take less time: lines to be sorted that lie across memory are turned on their way in
    and out, and one number is written around a window alone.  Products walk `batch_axes` axes of a batch.
    """
    _Placement(func, ctx, pieces, batch_axes).run()


class _Placement(Ops):
    """Places functions, their blocks, and ops that have blocks."""

    def __init__(self, func: Func, ctx: Context, pieces: bool, batch_axes: int) -> None:
        super().__init__(func, pieces, batch_axes)
        self.func, self.ctx = func, ctx
        self.shared = list(func.attrs.get("shared", ()))
        self.updates: dict[str, int] = dict(func.attrs.get("updates", {}))
        self.loops = 0

    # -- the function ---------------------------------------------------------------------------------------------

    def run(self) -> None:
        m = self.memory
        old = self.func.body
        types = [p.type.at("shared" if p.name in self.shared else "input") for p in old.params]
        body = Block(types, [p.name for p in old.params])
        params = {p.name: p for p in old.params}
        for p, new in zip(old.params, body.params):
            m.bind(p, new)
        in_place = sink_updates(old, params, self.updates, self.ctx)
        scope = self.scope(body, old)
        updated = {index: name for name, index in self.updates.items()}
        adopts = [i for i, name in updated.items() if old.yields[i].type != params[name].type]
        made = [i for i in range(len(old.yields)) if i not in updated] + adopts
        outputs = [(old.yields[i], self.output(old.yields[i], f"out{i}", scope)) for i in made]
        commits: list[tuple[Value, Value]] = []
        for i, name in updated.items():
            v, target = old.yields[i], m.places[params[name]]
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
            m.start_from(b, m.places[v], known, "")
        self.commit(b, commits)
        b.op("yield")
        self.func.body = body
        body.parent = self.func
        self.func.attrs["outputs"] = [v.type for v, _ in outputs]
        self.func.attrs["adopts"] = [updated[i] for i in adopts]

    def output(self, value: Value, name: str, scope: Scope) -> Value | None:
        """The parameter in which an output is made; None if its sizes are only known later."""
        if not self.memory.known_at_entry(value.type):
            return None
        place = scope.builder.block.add_param(value.type.at("output"), name)
        self.memory.roots[place] = place
        scope.wishes.want(value, place)
        return place

    def commit(self, b: Builder, commits: Sequence[tuple[Value, Value]]) -> None:
        """Copies new values of shared variables over the old ones; one that is itself an old value goes first to the side."""
        m = self.memory
        sources: list[Value] = []
        targets = {target for _, target in commits}
        for v, target in commits:
            source = m.places[v]
            if m.roots[source] in targets and source is not target:
                source = m.copy(b, source, m.alloc(b, v.type, ""), "")
            sources.append(source)
        for source, (_, target) in zip(sources, commits):
            m.start_from(b, source, target, "")

    # -- blocks ---------------------------------------------------------------------------------------------------

    def scope(self, block: Block, old: Block) -> Scope:
        """For placing the ops of `old` in `block`."""
        builder = Builder(block)
        return Scope(builder, self.last_uses(old), Destinations(self.memory, builder, old, self.batch_axes))

    def block(self, block: Block, scope: Scope) -> None:
        self.parts(block, scope)
        for i, op in enumerate(list(block.ops)):
            scope.position = i
            scope.builder.loc = op.loc
            if op.name == "yield":
                return
            if op.name == "scan":
                self.scan(op, scope)
            elif op.name == "ifelse":
                self.ifelse(op, scope)
            else:
                self.op(op, scope)

    def parts(self, block: Block, scope: Scope) -> None:
        """Has what is put together made where it will stand.  A whole lives as long as its parts, and theirs; a part, which may be
        all of it, as long as the whole."""
        last = scope.last_use
        found = [
            (self.storage_of(v), self.storage_of(op.result))
            for op in reversed(list(block.ops))
            if op.name == "concat"
            and all(self.memory.known_at_entry(v.type) for v in (*op.operands, op.result))
            for v in scope.wishes.want_parts(op)
        ]
        for part, whole in reversed(found):
            last[whole] = max(last.get(whole, 0), last.get(part, 0))
        for part, whole in found:
            last[part] = max(last.get(part, 0), last[whole])

    # -- scan -----------------------------------------------------------------------------------------------------

    def scan(self, op: Op, scope: Scope) -> None:
        """A native loop: elements are windows, carries have memory of their own, or rows of their stacks, outputs are made in
        their rows."""
        m, b, body = self.memory, scope.builder, op.block
        seqs, carries = int(op.attrs["seqs"]), int(op.attrs["carries"])
        length: Size = op.attrs["length"]
        index = dims.name(f"i{self.loops}")
        self.loops += 1
        at = dims.sub(dims.sub(length, 1), index) if op.attrs["reverse"] else index
        tracks = self.tracks(op, scope)
        outs = self.results(op, scope)
        inside = self.scope(Block(), body)
        following = self.params(op, inside, at, tracks, outs)
        rows = self.rows(op, inside, at, tracks, outs)
        for k in tracks:
            inside.wishes.want_behind(body.yields[k], body.params[seqs + k], following[k])
        for k in carries_in_place(body, seqs, [k for k in range(carries) if k not in tracks]):
            inside.wishes.places.setdefault(body.yields[k], following[k])
        self.block(body, inside)
        for v, row in rows:
            m.start_from(inside.builder, m.places[v], row, op.loc)
        stop: list[Value] = []
        if op.attrs["until"]:
            stop.append(m.alloc(b, Type("bool"), ""))
            m.copy(inside.builder, m.places[body.yields[-1]], stop[0], op.loc)
            m.fill(inside.builder, outs[-1], dims.add(index, 1), op.loc)
        self.commit(inside.builder, list(zip(body.yields[:carries], following)))
        inside.builder.op("yield")
        attrs = {"index": index, "length": length}
        b.op("for", *stop, attrs=attrs, blocks=[inside.builder.block], loc=op.loc)

    def results(self, op: Op, scope: Scope) -> list[Value]:
        """Where the results of a scan lie; carries start from their first values there."""
        m, b = self.memory, scope.builder
        seqs, carries = int(op.attrs["seqs"]), int(op.attrs["carries"])
        for k, r in enumerate(op.results):
            if r in m.places:  # in a track
                continue
            target = self.wanted(scope, r)
            if target is None or m.roots[target] is not target:
                target = m.alloc(b, r.type, r.name)
            if op.attrs["until"] and k >= carries:
                m.fill(b, target, 0, op.loc)  # what no step reaches
            if k < carries:
                m.copy(b, m.places[op.operands[seqs + k]], target, op.loc)
            m.bind(r, target)
        return [m.places[r] for r in op.results]

    def params(
        self, op: Op, inside: Scope, at: Size, tracks: Mapping[int, Track], outs: Sequence[Value]
    ) -> list[Value]:
        """Binds the parameters of a step that stacks in row `at`; where the next values of the carries have to be."""
        m, seqs = self.memory, int(op.attrs["seqs"])
        following: list[Value] = []
        for k, p in enumerate(op.block.params):
            if k < seqs:
                m.bind(p, m.element(inside.builder, m.places[op.operands[k]], p.type, at))
                continue
            old = new = outs[k - seqs]
            if (track := tracks.get(k - seqs)) is not None:
                old, new = (m.element(inside.builder, track.whole, p.type, n) for n in track.rows(at))
            m.bind(p, old)
            following.append(new)
        return following

    def rows(
        self, op: Op, inside: Scope, at: Size, tracks: Mapping[int, Track], outs: Sequence[Value]
    ) -> list[tuple[Value, Value]]:
        """What a step stacks outside of tracks, and the rows where it is wanted."""
        stacked = {j for track in tracks.values() for j in track.stacks}
        found: list[tuple[Value, Value]] = []
        for k in range(int(op.attrs["carries"]), len(op.results) - bool(op.attrs["until"])):
            if k not in stacked:
                v = op.block.yields[k]
                found.append((v, self.memory.element(inside.builder, outs[k], v.type, at)))
                inside.wishes.want(*found[-1])
        return found

    def tracks(self, op: Op, scope: Scope) -> dict[int, Track]:
        """The carries whose values lie in rows, of which the stacks of old and of new values are windows; those of
        them that are made elsewhere, such as in an output, are not.  The results are bound."""
        m, b, seqs = self.memory, scope.builder, int(op.attrs["seqs"])
        found: dict[int, Track] = {}
        for k, stacks in stacked_carries(op).items():
            wishes = {j: self.wanted(scope, op.results[j]) for j in stacks}
            stacks = {j: n for j, n in stacks.items() if (w := wishes[j]) is None or m.roots[w] is not w}
            if not stacks:
                continue
            first, last = op.operands[seqs + k], op.results[k]
            t = last.type
            whole = m.alloc(b, t.with_shape(dims.add(op.attrs["length"], 1), *t.shape), last.name)
            track = found[k] = Track(whole, stacks, bool(op.attrs["reverse"]))
            begin, end = track.ends(op.attrs["length"])
            m.copy(b, m.places[first], m.element(b, whole, t, begin), op.loc)
            m.bind(last, m.element(b, whole, t, end))
            for j, row in stacks.items():
                stack = op.results[j]
                offset = dims.mul(row, whole.type.strides[0])
                window = m.window(b, whole, stack.type, offset, whole.type.strides, stack.name)
                m.bind(stack, window)
        return found

    # -- ifelse ---------------------------------------------------------------------------------------------------

    def ifelse(self, op: Op, scope: Scope) -> None:
        """Both branches make their results in the same places."""
        m, b = self.memory, scope.builder
        targets: list[Value] = []
        for r in op.results:
            wanted = self.wanted(scope, r)
            targets.append(wanted if wanted is not None else m.alloc(b, r.type, r.name))
            m.bind(r, targets[-1])
        blocks: list[Block] = []
        for branch in op.blocks:
            inside = self.scope(Block(), branch)
            for v, target in zip(branch.yields, targets):
                inside.wishes.want(v, target)
            self.block(branch, inside)
            inside.builder.loc = op.loc
            for v, target in zip(branch.yields, targets):
                m.start_from(inside.builder, m.places[v], target, op.loc)
            inside.builder.op("yield")
            blocks.append(inside.builder.block)
        b.op("ifelse", m.places[op.operands[0]], blocks=blocks, loc=op.loc)
