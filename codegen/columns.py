"""Reductions over outer axes with the inner axis kept, such as the sum of a matrix over its rows.

Each unit of work is a strip of the inner axis whose accumulators stay in registers while the outer axes go by in order, or,
where rows come from far away, a longer stretch of it, whose accumulators stay in the nearest cache: then memory is read in
runs, some rows at a time.  Both add up in the same order.  float32 is added up in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tcc.codegen import scalar
from tcc.codegen.emit import VecType
from tcc.codegen.index import Index, at_most, plus, times
from tcc.codegen.kernel import Kernel, finish
from tcc.codegen.nest import Fold, Memo, Nest, Position, read_access
from tcc.codegen.program import Node, Program
from tcc.codegen.target import Target
from tcc.codegen.vectors import each_vector

ROWS_AHEAD = 16  # the hardware does not follow strides of pages
STRETCH = 1024  # elements of the inner axis whose accumulators are in memory
ROWS = 4  # that are added to them at a time
FEW_ROWS = 16  # most rows that are added up in registers, vector by vector of a stretch
WORD = 8  # bytes of an accumulator


Point = tuple[
    list[str], dict[int, str], Memo, Memo
]  # indices, addresses, and values that do not vary, of a row
Points = list[Point]


def column_kernel(program: Program, target: Target) -> Kernel:
    """The kernel of a program that keeps its inner axis and reduces outer ones."""
    return _Columns(program, target).kernel()


class _Columns(Nest):
    def __init__(self, program: Program, target: Target) -> None:
        super().__init__(program, target)
        axes = range(self.inner)
        self.kept = [a for a in axes if not program.reduced[a]]
        self.summed = [a for a in axes if program.reduced[a]]
        self.together = self.vectors_together()
        self.ways = 4 if self.light else 1
        n = program.sizes[self.inner]
        if self.light and target.avx512 and self.far() and isinstance(n, int) and n >= 16 * self.lanes:
            self.ways = 8  # fewer, longer runs of memory, where there are registers for them
        pairs = list(zip(program.results, program.writes, strict=True))
        self.reduces = [(n, w) for n, w in pairs if w.reduce]
        self.maps = [(n, w) for n, w in pairs if not w.reduce]
        self.folds = [Fold(w.reduce, w.dtype) for _, w in self.reduces]
        known = isinstance(n, int) and n >= 4 * self.lanes
        # (with 32 registers strips are long enough, and lines are fetched ahead)
        self.stretches = known and self.light and self.far() and target.registers < 32 and self.lanes > 1
        rows = program.sizes[self.summed[0]] if len(self.summed) == 1 else None
        self.at_once = rows if isinstance(rows, int) and rows <= FEW_ROWS else 0

    def kernel(self) -> Kernel:
        e = self.e
        if self.stretches:
            return self.kernel_of_stretches()
        wide, strip = self.lanes * self.together, self.strip_length
        self.begin_body()
        n = self.size(self.program.sizes[self.inner])
        strips = self.strips(n)

        def body(unit: str, _: list[str]) -> None:
            outer, index = unit, unit
            if self.kept:
                index = e.value(f"urem i64 {unit}, {strips}")
                outer = e.value(f"udiv i64 {unit}, {strips}")
            kept = self.unravel(outer, self.kept)
            start = times(e, index, str(strip))
            end = plus(e, start, str(strip))
            length = self.program.sizes[self.inner]

            def whole() -> None:
                steps = range(0, strip, wide)
                self.strip(kept, [Position(plus(e, start, str(at)), wide) for at in steps])

            if isinstance(length, int) and length % strip == 0:
                return whole()
            if isinstance(length, int) and length < strip:
                return self.ragged_strip(kept, start, n)
            fits = e.value(f"icmp sle i64 {end}, {n}")
            e.when(fits, whole)
            e.when(e.value(f"xor i1 {fits}, true"), lambda: self.ragged_strip(kept, start, n))

        e.loop("%begin", "%end", 1, body)
        e.end()
        self.begin_kernel()
        strips = self.strips(self.size(self.program.sizes[self.inner]))
        cost = times(e, self.count(self.summed), str(strip * self.element_cost))
        self.parallel(times(e, self.count(self.kept), strips), cost)
        e.end("i32 0")
        return finish(e, tuple(self.slots.slots), "columns")

    def ragged_strip(self, kept: Sequence[str], start: str, n: str) -> None:
        """The last strip, which is no whole one: all of it at once where its length is known."""
        length = self.program.sizes[self.inner]
        if isinstance(length, int):
            left, lanes = length % self.strip_length, self.lanes
            places = range(0, left, lanes)
            masks = ["" if at + lanes <= left else self.tail_mask(str(at), str(left)) for at in places]
            positions = [
                Position(plus(self.e, start, str(at)), lanes, mask) for at, mask in zip(places, masks)
            ]
            if positions:
                self.strip(kept, positions)
            return
        self.e.loop(
            start,
            n,
            self.lanes,
            lambda at, _: self.strip(kept, [Position(at, self.lanes, self.tail_mask(at, n))]),
        )

    @property
    def strip_length(self) -> int:
        return self.lanes * self.together * self.ways

    def strips(self, n: str) -> str:
        return str(Index(self.e).ceil_div(n, self.strip_length))

    def strip(self, kept: Sequence[str], positions: list[Position]) -> None:
        """All reduced axes for some neighbouring vectors of the inner axis."""
        e = self.e
        count, lanes = len(self.folds), positions[0].lanes
        types = [f.total_type(lanes) for f in self.folds] * len(positions)
        totals = [f.identity(lanes) for f in self.folds] * len(positions)

        def point(at: Sequence[str], values: list[str]) -> list[str]:
            self.at_point(at)
            new: list[str] = []
            for w, pos in enumerate(positions):
                new += self.visit(pos, values[w * count : (w + 1) * count])
            return new

        def nest(axes: list[int], at: list[str], values: list[str]) -> list[str]:
            if not axes:
                return point(at, values)
            end = self.size(self.program.sizes[axes[0]])
            return e.loop(0, end, 1, lambda i, v: nest(axes[1:], [*at, i], v), list(zip(types, values)))

        totals = nest(self.summed, list(kept), totals)
        at = [*kept, *["0"] * len(self.summed)]
        for k, (_, access) in enumerate(self.reduces):
            base = self.base(access, at)
            for w, pos in enumerate(positions):
                value = self.folds[k].narrow(e, self.target, totals[w * count + k], lanes)
                self.store(access.dtype, value, base, access.strides[self.inner], pos)

    # -- accumulators in memory -----------------------------------------------------------------------------------

    def kernel_of_stretches(self) -> Kernel:
        e = self.e
        self.begin_body()
        n = self.size(self.program.sizes[self.inner])
        pieces = self.pieces(n)

        def unit(u: str, _: list[str]) -> None:
            outer, piece = (
                (u, "0") if pieces == "1" else (e.value(f"{op} i64 {u}, {pieces}") for op in ("udiv", "urem"))
            )
            kept = self.unravel(outer, self.kept) if self.kept else []
            start = times(e, piece, str(STRETCH))
            count = at_most(e, str(Index(e).sub(n, start)), str(STRETCH))
            self.stretch(kept, start, count)

        e.loop("%begin", "%end", 1, unit)
        e.end()
        self.begin_kernel()
        pieces = self.pieces(self.size(self.program.sizes[self.inner]))
        cost = times(e, self.count(self.summed), str(STRETCH * self.element_cost))
        self.parallel(times(e, self.count(self.kept), pieces), cost)
        e.end("i32 0")
        memory = 0 if self.at_once else len(self.folds) * STRETCH * WORD
        return finish(e, tuple(self.slots.slots), "columns", memory)

    def pieces(self, n: str) -> str:
        return str(Index(self.e).ceil_div(n, STRETCH))

    def stretch(self, kept: Sequence[str], start: str, count: str) -> None:
        """All reduced axes for `count` neighbours along the inner axis from `start` on."""
        e, lanes = self.e, self.lanes
        t = VecType(scalar.memory_elem(self.program.writes[0].dtype), lanes)

        def at(k: int, offset: str) -> str:
            return e.gep(totals[k], offset, scalar.memory_elem(self.folds[k].total_dtype))

        def keep(offset: str, values: Sequence[str]) -> None:
            for k, (fold, value) in enumerate(zip(self.folds, values, strict=True)):
                scalar.store(e, self.target, fold.total_dtype, lanes, value, at(k, offset))

        def kept_at(offset: str) -> list[str]:
            dtypes = [fold.total_dtype for fold in self.folds]
            return [scalar.load(e, self.target, d, lanes, at(k, offset)) for k, d in enumerate(dtypes)]

        def each(body: Callable[[str, Position], None]) -> None:
            def vector(offset: str, mask: str | None, _: list[str]) -> list[str]:
                body(offset, Position(plus(e, start, offset), lanes, mask or ""))
                return []

            each_vector(e, t, self.target, count, vector)

        def points(outer: list[str], first: str, many: int) -> Points:
            return [self.point([*kept, *outer, plus(e, first, str(r))]) for r in range(many)]

        def added(points: Points, pos: Position, values: list[str]) -> list[str]:
            for point in points:
                self.indices, self.bases, self.scalars, self.splats = point
                values = self.visit(pos, values)
            return values

        def rows(outer: list[str], first: str, many: int) -> None:
            made = points(outer, first, many)
            each(lambda offset, pos: keep(offset, added(made, pos, kept_at(offset))))

        def nest(axes: list[int], outer: list[str]) -> None:
            end = self.size(self.program.sizes[axes[0]])
            if len(axes) > 1:
                e.loop(0, end, 1, lambda i, _: nest(axes[1:], [*outer, i]))
                return
            whole = str(Index(e).round_down(end, ROWS))
            e.loop(0, whole, ROWS, lambda i, _: rows(outer, i, ROWS))
            e.loop(whole, end, 1, lambda i, _: rows(outer, i, 1))

        bases = [self.base(access, [*kept, *["0"] * len(self.summed)]) for _, access in self.reduces]
        nothing = [f.identity(lanes) for f in self.folds]

        def leave(pos: Position, values: list[str]) -> None:
            for (_, access), fold, base, value in zip(self.reduces, self.folds, bases, values):
                made = fold.narrow(e, self.target, value, lanes)
                self.store(access.dtype, made, base, access.strides[self.inner], pos)

        if self.at_once:
            all_rows = points([], "0", self.at_once)
            each(lambda _, pos: leave(pos, added(all_rows, pos, nothing)))
            return
        memory = self.scratch()
        totals = [e.gep(memory, k * STRETCH * WORD) for k in range(len(self.folds))]
        each(lambda offset, _: keep(offset, nothing))
        nest(self.summed, [])
        each(lambda offset, pos: leave(pos, kept_at(offset)))

    def point(self, at: Sequence[str]) -> Point:
        """What a row's loop needs, made ahead of it: indices, addresses, and what does not vary."""
        self.at_point(at)
        for node in self.program.nodes:
            if not node.varies:
                self.splatted(node)
        return self.indices, dict(self.bases), self.scalars, self.splats

    def _varying(self, node: Node, pos: Position, get: Callable[[Node], str]) -> str:
        if node.kind == "param" and not pos.mask and not self.stretches and self.far():
            access = read_access(self.program, node)
            ahead = access.strides[self.summed[-1]] * ROWS_AHEAD
            if access.strides[self.inner] == 1 and isinstance(ahead, int):
                self.fetch(access, pos, ahead)
        return super()._varying(node, pos, get)

    def visit(self, pos: Position, accumulators: list[str]) -> list[str]:
        memo: Memo = {}
        new: list[str] = []
        for (node, access), fold, acc in zip(self.reduces, self.folds, accumulators, strict=True):
            value = self.vector(node, pos, memo)
            if node.dtype != access.dtype:
                value = self.cast(node.dtype, value, access.dtype, pos.lanes)
            new.append(fold.add(self.e, self.target, acc, value, pos.lanes))
        values = [self.vector(node, pos, memo) for node, _ in self.maps]
        for (_, access), value in zip(self.maps, values):
            self.store(access.dtype, value, self.bases[access.slot], access.strides[self.inner], pos)
        return new
