"""Kernels that walk rows: maps, reductions along the inner axis, and row kernels (softmax, norms, cross-entropy).

The inner axis is the row.  A row is visited once a phase (tcc.codegen.program), and it stays in the nearest cache between
phases; short rows of a known size are unrolled and stay in registers.  The order in which a reduction adds up depends
on the row's length alone: vector k goes to accumulator k % ways (the ragged end to the first), the accumulators are
folded pairwise, then the lanes of the one that is left by halves.  Where vectors are taken together, their accumulators are folded
by halves before the ragged end is added.  float32 is added up in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tcc.codegen import scalar, streams
from tcc.codegen.crossing import Crossing
from tcc.codegen.emit import VecType, constant_mask
from tcc.codegen.index import Index, at_most, plus, times
from tcc.codegen.kernel import Kernel, Runtime, Scratch, finish
from tcc.codegen.nest import Fold, Memo, Position, fold_of, read_access
from tcc.codegen.program import Access, Node, Program
from tcc.codegen.schedule import Schedule, starts
from tcc.codegen.target import Target
from tcc.ir.dims import Size
from tcc.ir.types import itemsize

FLAT_UNIT = 2048  # elements of a one-axis map that make one unit of parallel work
AHEAD = 16 << 10  # bytes: the hardware's own streams end at the page that is read
AHEAD_SHORT = 2 << 10  # of vectors of half a line, where 16 KiB take 1.1 times as long
PAGE = 4096
CHUNK = 16384  # elements of a full reduction that make one partial result
UNROLLED = 8  # vectors of a row of known size that are kept in registers
UNROLLED_FLOPS = 256  # most flops a lane in the straight-line text of such a row, which takes long to compile


def row_kernel(program: Program, target: Target) -> Kernel:
    """The kernel of a program whose inner axis is kept, or is the only one that is reduced."""
    return Rows(program, target).kernel()


class Rows(Crossing):
    spilling = True  # whether long rows keep what was expensive for a later phase in scratch memory

    def __init__(self, program: Program, target: Target) -> None:
        super().__init__(program, target)
        outer = list(range(self.inner))
        self.outer = [a for a in outer if not program.reduced[a]]
        self.summed = [a for a in outer if program.reduced[a]]
        self.length: Size = program.sizes[self.inner]
        self.together = self.vectors_together()
        self.ways = 1 if self.together > 1 else 4 if self.light else 2
        self.unrolled = self.is_unrolled()
        self.plan = Schedule(program, self.spilling and not self.unrolled)
        self.flat = not outer and not self.plan.reduces
        # one axis that is only reduced may be cut into chunks
        self.full = not outer and self.plan.only_reduces
        self.streaming = False  # whether whole registers are stored past the caches
        self.vectors: dict[tuple[str, int], Memo] = {}  # of the current row
        self.spill_base = ""

    @property
    def step(self) -> int:
        return self.lanes * self.together * self.ways

    def is_unrolled(self) -> bool:
        """Whether a row stays in registers."""
        vectors = -(-self.length // self.lanes) if isinstance(self.length, int) else UNROLLED + 1
        return vectors <= UNROLLED and vectors * self.program.flops <= UNROLLED_FLOPS

    # -- the kernel -----------------------------------------------------------------------------------------------

    def kernel(self) -> Kernel:
        e = self.e
        if self.outer and not self.summed:
            self.turn_reads(whole_rows=self.unrolled or self.plan.revisits)
        self.begin_body()
        if self.flat:
            self.stretch()
        elif self.full:
            self.chunks()
        elif self.crossing:
            self.tiles()
        else:
            self.rows()
        e.end()
        self.begin_kernel()
        n = self.extent()
        if self.flat:
            up = e.value(f"add i64 {n}, {FLAT_UNIT - 1}")
            self.parallel(e.value(f"sdiv i64 {up}, {FLAT_UNIT}"), str(FLAT_UNIT * self.element_cost))
        elif self.full:
            units = self.chunk_count(n)
            self.parallel(units, str(CHUNK * self.element_cost))
            self.collect(units)
        elif self.crossing:
            cost = times(e, n, str(self.tile_rows * self.element_cost))
            self.parallel(
                times(e, self.count(self.outer[:-1]), self.bands()), e.value(f"add i64 {cost}, 200")
            )
        else:
            cost = times(e, times(e, self.count(self.summed), n), str(self.element_cost))
            self.parallel(self.count(self.outer), e.value(f"add i64 {cost}, 200"))
        e.end("i32 0")
        return finish(
            e,
            tuple(self.slots.slots),
            "map" if self.flat else "row",
            self.spill_bytes() + sum(map(self.tile_bytes, self.crossing)),
        )

    def rows(self) -> None:
        e = self.e
        n = self.size(self.length)
        row = self.summed_rows if self.summed else self.row

        if not self.outer:
            row([], "0", n)
            return

        def body(unit: str, _: list[str]) -> None:
            row(self.unravel(unit, self.outer), "0", n)

        e.loop("%begin", "%end", 1, body)

    def extent(self) -> str:
        """The row's length.  That of a map along one axis is read from a slot though it may be known: nothing else tells the
        updates of a model's parameters apart, which so are one kernel."""
        if self.flat and not self.unrolled:
            return self.slots.load(self.e, Runtime(self.length))
        return self.size(self.length)

    def stretch(self) -> None:
        """A map along one axis, between two units of it."""
        e, n = self.e, self.extent()
        start, end = times(e, "%begin", str(FLAT_UNIT)), times(e, "%end", str(FLAT_UNIT))

        def until(end: str) -> str:
            return at_most(e, end, n)

        if not streams.streamable(self.program, self.target, self.lanes):
            self.row([], start, until(end))
            return
        reads, writes = (
            [self.pointers[a.slot] for a in p] for p in (self.program.reads, self.program.writes)
        )
        bytes = itemsize(self.program.writes[0].dtype)
        lead = streams.lead(e, writes, bytes, self.lanes)
        far, near, after = e.label(), e.label(), e.label()
        e.branch_if(streams.pays(e, n, lead, bytes, self.lanes, self.target, reads, writes), far, near)
        e.at(far)  # all units begin `lead` elements later, and the first one has these besides
        first = e.value(f"icmp eq i64 {start}, 0")
        e.when(first, lambda: self.row([], "0", lead))
        self.streaming = True
        self.row([], until(plus(e, start, lead)), until(plus(e, end, lead)))
        self.streaming = False
        streams.fence(e)
        e.branch(after)
        e.at(near)
        self.row([], start, until(end))
        e.branch(after)
        e.at(after)

    # -- one row --------------------------------------------------------------------------------------------------

    def row(self, indices: Sequence[str], start: str, stop: str) -> None:
        """All phases over [start, stop) of the row at `indices`, and the stores of what does not vary along it."""
        self.enter(indices)
        for phase in range(self.plan.final + 1):
            if phase == self.plan.final:
                # a result may lie where an operand lies: read single elements before any is overwritten
                for node in self.plan.nodes:
                    single = node.kind == "take" or (node.kind == "param" and not node.varies)
                    if single and node.phase <= phase:
                        self.scalar(node)
            totals = self.phase(phase, start, stop, None)
            for node, total in totals.items():
                self.scalars[node] = fold_of(node).across(self.e, self.target, total, self.lanes)
        self.store_scalars()

    def summed_rows(self, indices: Sequence[str], start: str, stop: str) -> None:
        """A reduction along the row and along outer axes too: the totals go from row to row."""
        reduces = self.reduce_nodes()
        folds = [fold_of(n) for n in reduces]
        types = [f.total_type(self.lanes) for f in folds]

        def nest(axes: list[int], at: list[str], values: list[str]) -> list[str]:
            if not axes:
                self.enter(at)
                totals = self.phase(0, start, stop, dict(zip(reduces, values)))
                return [totals[n] for n in reduces]
            end = self.size(self.program.sizes[axes[0]])
            return self.e.loop(0, end, 1, lambda i, v: nest(axes[1:], [*at, i], v), list(zip(types, values)))

        totals = nest(self.summed, list(indices), [f.identity(self.lanes) for f in folds])
        self.enter([*indices, *["0"] * len(self.summed)])
        for node, fold, total in zip(reduces, folds, totals):
            self.scalars[node] = fold.across(self.e, self.target, total, self.lanes)
        self.store_scalars()

    def store_scalars(self) -> None:
        pairs = zip(self.plan.results, self.program.writes)
        left = [(n, access) for n, access in pairs if not self.plan.of_elements(n, access)]
        values = [self.scalar(node) for node, _ in left]
        for (_, access), value in zip(left, values):
            self.store(access.dtype, value, self.bases[access.slot], 1, Position("0", 1))

    def enter(self, indices: Sequence[str]) -> None:
        self.vectors = {}
        self.at_point(indices)
        if self.plan.spills:
            self.spill_base = self.scratch()

    def spill_bytes(self) -> Size:
        return sum((self.spill_row_bytes(n) for n in self.plan.spills), start=0)

    def spill_row_bytes(self, node: Node) -> Size:
        """Rounded up to whole vectors and cache lines."""
        return (self.length * itemsize(node.dtype) + 127) // 64 * 64

    def spill_pointer(self, node: Node) -> str:
        offset: Size = 0
        for n in self.plan.spills:
            if n is node:
                break
            offset = offset + self.spill_row_bytes(n)
        return self.e.gep(self.spill_base, self.size(offset))

    def phase(self, phase: int, start: str, stop: str, carried: dict[Node, str] | None) -> dict[Node, str]:
        """One visit: stores and spills what is due, and gives the totals of the reductions that end here."""
        targets = self.plan.targets[phase]
        if not targets:
            return {}
        reduces = [n for n in targets if n.kind == "reduce"]
        others = [n for n in targets if n.kind != "reduce"]
        self.prepare(phase, targets)
        spills = {
            n: self.spill_pointer(n)
            for n in self.plan.spills
            if n in others or self.plan.spilled_before(n, phase)
        }

        def visit(pos: Position, accumulators: list[str]) -> list[str]:
            memo = self.vectors.setdefault((pos.offset, pos.lanes), {}) if self.unrolled else {}
            for n, pointer in spills.items():
                if self.plan.spilled_before(n, phase):
                    memo[n] = self.load(n.dtype, pointer, 1, pos)
            new = []
            for node, acc in zip(reduces, accumulators, strict=True):
                new.append(self.accumulate(node, acc, pos, memo))
            # a result may lie where an operand lies: all is read before anything is written
            for node in others:
                self.vector(node, pos, memo)
            for node in others:
                self.write(node, phase, pos, memo, spills)
            return new

        folds = [fold_of(n) for n in reduces]
        totals = self.visit_range(
            start, stop, folds, visit, [carried[n] for n in reduces] if carried else None
        )
        return dict(zip(reduces, totals))

    def write(self, node: Node, phase: int, pos: Position, memo: Memo, spills: dict[Node, str]) -> None:
        value = self.vector(node, pos, memo)
        if node in spills and node.phase == phase:
            self.store(node.dtype, value, spills[node], 1, pos)
        if phase != self.plan.final:
            return
        for result, access in zip(self.plan.results, self.program.writes):
            if result is node and self.plan.of_elements(node, access):
                self.put(access, value, pos)

    def put(self, access: Access, value: str, pos: Position) -> None:
        base = self.bases[access.slot]
        if self.streaming and not pos.mask:
            streams.stream(self.e, self.target, access, value, base, pos.offset, pos.lanes)
            return
        self.store(access.dtype, value, base, access.strides[self.inner], pos)

    def accumulate(self, node: Node, acc: str, pos: Position, memo: Memo) -> str:
        source = node.inputs[0]
        fold = fold_of(node)
        value = self.vector(source, pos, memo)
        if source.dtype != node.dtype:
            value = self.cast(source.dtype, value, node.dtype, pos.lanes)
        if pos.mask:
            t = VecType(scalar.elem(node.dtype), pos.lanes)
            rest = fold.neutral(pos.lanes)
            value = self.e.value(f"select <{pos.lanes} x i1> {pos.mask}, {t} {value}, {t} {rest}")
        return fold.add(self.e, self.target, acc, value, pos.lanes)

    def visit_range(
        self,
        start: str,
        stop: str,
        folds: list[Fold],
        visit: Callable[[Position, list[str]], list[str]],
        carried: list[str] | None,
    ) -> list[str]:
        """Calls `visit` for every vector of [start, stop); returns the folds' totals, begun from `carried`."""
        sums = self.unrolled_block(folds, visit) if self.unrolled else self.block(start, stop, folds, visit)
        if carried is None:
            return sums
        return [
            f.combine(self.e, self.target, t, s, self.lanes)
            for f, t, s in zip(folds, carried, sums, strict=True)
        ]

    def block(
        self, start: str, stop: str, folds: list[Fold], visit: Callable[[Position, list[str]], list[str]]
    ) -> list[str]:
        """The folds of the vectors of [start, stop), from their identities."""
        e, lanes, ways = self.e, self.lanes, self.ways
        wide = lanes * self.together
        step = self.step
        types = [f.total_type(wide) for f in folds]
        zeros = [f.identity(wide) for f in folds]
        x = Index(e)
        middle = str(x.add(start, x.round_down(x.sub(stop, start), step)))
        count = len(folds)

        def main(at: str, values: list[str]) -> list[str]:
            new: list[str] = []
            for way in range(ways):
                pos = Position(plus(e, at, str(way * wide)), wide)
                new += visit(pos, values[way * count : (way + 1) * count])
            return new

        accs = e.loop(start, middle, step, main, list(zip(types, zeros)) * ways)
        if self.together > 1:
            types = [f.total_type(lanes) for f in folds]
            accs = [f.halved(e, self.target, acc, wide, lanes) for f, acc in zip(folds, accs, strict=True)]

        def tail(at: str, values: list[str]) -> list[str]:
            return visit(Position(at, lanes, self.tail_mask(at, stop)), values)

        first = e.loop(middle, stop, lanes, tail, list(zip(types, accs[:count])))
        return self.fold_ways(folds, [first, *(accs[w * count : (w + 1) * count] for w in range(1, ways))])

    def unrolled_block(
        self, folds: list[Fold], visit: Callable[[Position, list[str]], list[str]]
    ) -> list[str]:
        """The same in straight-line text, for a row of a small known size."""
        assert isinstance(self.length, int)
        lanes, ways = self.lanes, self.ways * self.together
        whole = self.length // (lanes * ways) * ways  # vectors of the main part
        accs = [[f.identity(lanes) for f in folds] for _ in range(ways)]
        for k in range(-(-self.length // lanes)):
            if self.together > 1 and k == whole:
                accs = self.fold_halves(folds, accs)
            live = min(lanes, self.length - k * lanes)
            mask = "" if live == lanes else constant_mask([i < live for i in range(lanes)])
            way = k % ways if k < whole else 0
            accs[way] = visit(Position(str(k * lanes), lanes, mask), accs[way])
        return self.fold_halves(folds, accs)[0] if self.together > 1 else self.fold_ways(folds, accs)

    def fold_halves(self, folds: list[Fold], accs: list[list[str]]) -> list[list[str]]:
        """As the halves of vectors that are taken together."""
        while len(accs) > 1:
            half = len(accs) // 2
            accs = [self.combined(folds, x, y) for x, y in zip(accs[:half], accs[half:], strict=True)]
        return accs

    def combined(self, folds: list[Fold], a: list[str], b: list[str]) -> list[str]:
        return [f.combine(self.e, self.target, x, y, self.lanes) for f, x, y in zip(folds, a, b, strict=True)]

    def fold_ways(self, folds: list[Fold], accs: list[list[str]]) -> list[str]:
        while len(accs) > 1:
            accs = [self.combined(folds, accs[i], accs[i + 1]) for i in range(0, len(accs), 2)]
        return accs[0]

    # -- values ---------------------------------------------------------------------------------------------------

    def prepare(self, phase: int, targets: list[Node]) -> None:
        """Makes the scalars that the phase's loops use, and their vectors, ahead of the loops."""
        seen: set[Node] = set()

        def visit(node: Node) -> None:
            if node in seen:
                return
            seen.add(node)
            if not node.varies:
                self.splatted(node)
                return
            if self.plan.spilled_before(node, phase):
                return
            for i in node.inputs:
                visit(i)

        for start in starts(targets):
            visit(start)

    def _scalar(self, node: Node) -> str:
        if node.kind != "take":
            return super()._scalar(node)
        row, index = node.inputs
        return self.element(row, self.place_in_row(index), {})

    def place_in_row(self, index: Node) -> str:
        """An index as i64, with negative ones counted from the row's end."""
        e, wide = self.e, self.cast(index.dtype, self.scalar(index), "i64", 1)
        negative = e.value(f"icmp slt i64 {wide}, 0")
        wrapped = e.value(f"add i64 {wide}, {self.size(self.length)}")
        return e.value(f"select i1 {negative}, i64 {wrapped}, i64 {wide}")

    def element(self, node: Node, at: str, memo: Memo) -> str:
        """One element of a varying value."""
        if not node.varies:
            return self.scalar(node)
        if node not in memo:
            memo[node] = self._varying(node, Position(at, 1), lambda i: self.element(i, at, memo))
        return memo[node]

    # -- reductions of what lies far away ---------------------------------------------------------------------------

    def _varying(self, node: Node, pos: Position, get: Callable[[Node], str]) -> str:
        adds_up = self.full or self.summed
        if node.kind == "param" and not pos.mask and pos.lanes > 1 and adds_up and self.far():
            self.fetch_ahead(read_access(self.program, node), pos)
        return super()._varying(node, pos, get)

    def fetch_ahead(self, access: Access, pos: Position) -> None:
        """So far ahead in the row, or in a row to come."""
        if access.strides[self.inner] != 1:
            return
        size = VecType(scalar.memory_elem(access.dtype)).bytes
        ahead: Size = (AHEAD if self.target.avx512 else AHEAD_SHORT) // size
        if self.summed:
            row = self.length * size
            rows = 1 if not isinstance(row, int) else max(1, PAGE // max(row, 1))
            ahead = access.strides[self.summed[-1]] * rows
        if isinstance(ahead, int):
            self.fetch(access, pos, ahead)

    # -- full reductions -------------------------------------------------------------------------------------------

    def reduce_nodes(self) -> list[Node]:
        return [n for n in self.plan.targets[0] if n.kind == "reduce"]

    def partial_pointer(self, node: Node) -> str:
        n = (self.length + CHUNK - 1) // CHUNK * 8
        return self.slots.pointer(self.e, self.partial_slot(node, n))

    def partial_slot(self, node: Node, bytes: Size) -> Scratch:
        """One partial result, eight bytes, for each chunk; reductions differ in slot by a byte count that is theirs."""
        return Scratch(bytes + 8 * self.reduce_nodes().index(node))

    def chunk_count(self, n: str) -> str:
        up = self.e.value(f"add i64 {n}, {CHUNK - 1}")
        return self.e.value(f"sdiv i64 {up}, {CHUNK}")

    def chunks(self) -> None:
        """Each unit is a chunk whose partial results go to scratch."""
        e = self.e
        n = self.size(self.length)
        nodes = self.reduce_nodes()
        pointers = [self.partial_pointer(node) for node in nodes]

        def body(unit: str, _: list[str]) -> None:
            start = times(e, unit, str(CHUNK))
            stop = at_most(e, plus(e, start, str(CHUNK)), n)
            self.enter([])
            totals = self.phase(0, start, stop, None)
            for node, pointer in zip(nodes, pointers):
                fold = fold_of(node)
                one = fold.wide.across(e, self.target, totals[node], self.lanes)
                elem = scalar.memory_elem(fold.total_dtype)
                at = e.gep(pointer, times(e, unit, str(8 // VecType(elem).bytes)), elem)
                scalar.store(e, self.target, fold.total_dtype, 1, one, at, None)

        e.loop("%begin", "%end", 1, body)

    def collect(self, units: str) -> None:
        """Adds the chunks' partial results up in order, and stores what depends on them alone."""
        e = self.e
        self.enter([])
        for node in self.reduce_nodes():
            fold = fold_of(node)
            dtype = fold.total_dtype
            elem = scalar.memory_elem(dtype)
            pointer = self.partial_pointer(node)

            def add(unit: str, values: list[str]) -> list[str]:
                at = e.gep(pointer, times(e, unit, str(8 // VecType(elem).bytes)), elem)
                one = scalar.load(e, self.target, dtype, 1, at, None)
                return [fold.combine(e, self.target, values[0], one, 1)]

            (total,) = e.loop(0, units, 1, add, [(fold.total_type(1), fold.identity(1))])
            self.scalars[node] = fold.narrow(e, self.target, total, 1)
        self.store_scalars()
