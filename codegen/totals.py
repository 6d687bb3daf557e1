"""Row kernels that add up columns too, such as layer normalisation's gradients: one visit to memory for both.

Rows are dealt out in stretches, whose number depends on the sizes alone.  Each has totals of its own, which stay in the nearest caches while
its rows go by in order; at the end those of the stretches are added up in order.  So the order of adding does not depend on the number of
threads.  float32 is added up in float64.
"""

from __future__ import annotations

from tcc.codegen.index import at_most, plus, times
from tcc.codegen.kernel import Kernel, Scratch, finish
from tcc.codegen.nest import Fold, Position
from tcc.codegen.program import Access, Program
from tcc.codegen.rows import Rows
from tcc.codegen.target import Target
from tcc.ir import dims
from tcc.ir.dims import Size
from tcc.ir.types import itemsize

STRETCHES = 32  # at most
FEWEST = 8  # rows of a stretch, at least
STRIP = 128  # columns whose totals one unit of the last step adds up


def totals_kernel(program: Program, target: Target) -> Kernel:
    """The kernel of a program of rows, some of whose results are reduced over all rows."""
    return _Totals(program, target).kernel()


class _Totals(Rows):
    def __init__(self, program: Program, target: Target) -> None:
        super().__init__(program, target)
        self.count_of_rows = dims.mul(*(program.sizes[a] for a in self.outer))
        some = dims.floordiv(dims.add(self.count_of_rows, STRETCHES - 1), STRETCHES)
        self.each = dims.maximum(FEWEST, some)
        self.totals = [w for w in program.writes if w.reduce]
        assert all(set(w.strides[: self.inner]) <= {0} for w in self.totals), "totals of some of the rows"
        self.offsets: dict[Access, Size] = {}
        self.pitch: Size = 0
        for w in self.totals:
            self.offsets[w] = self.pitch
            line = dims.mul(self.length, itemsize(fold(w).total_dtype))
            self.pitch = dims.add(self.pitch, dims.mul(dims.floordiv(dims.add(line, 63), 64), 64))
        self.places: dict[Access, str] = {}  # of the current stretch's totals

    def kernel(self) -> Kernel:
        e = self.e
        self.begin_body()
        self.stretches()
        e.end()
        self.begin_body("add")
        self.add_up()
        e.end()
        self.begin_kernel()
        n, each = self.size(self.length), self.size(self.each)
        cost = plus(e, times(e, n, str(self.element_cost)), "200")
        self.parallel(self.stretch_count(), times(e, each, cost))
        strips = e.value(f"sdiv i64 {plus(e, n, str(STRIP - 1))}, {STRIP}")
        self.parallel(strips, str(2 * STRETCHES * STRIP * len(self.totals)), "add")
        e.end("i32 0")
        return finish(e, tuple(self.slots.slots), "totals", self.spill_bytes())

    def stretch_count(self) -> str:
        e, each = self.e, self.size(self.each)
        up = plus(e, self.size(self.count_of_rows), plus(e, each, "-1"))
        return e.value(f"sdiv i64 {up}, {each}")

    def totals_of(self, stretch: str) -> dict[Access, str]:
        e = self.e
        area = self.slots.pointer(e, Scratch(dims.mul(STRETCHES, self.pitch)))
        base = e.gep(area, times(e, stretch, self.size(self.pitch)))
        return {w: e.gep(base, self.size(offset)) for w, offset in self.offsets.items()}

    def stretches(self) -> None:
        """Each unit is a stretch of rows."""
        e = self.e
        n, each, rows = self.size(self.length), self.size(self.each), self.size(self.count_of_rows)
        sizes = [self.pitch, *self.offsets.values(), *(self.spill_row_bytes(s) for s in self.plan.spills)]
        for size in sizes:  # loaded ahead of the loops
            self.size(size)

        def clear(pos: Position, _: list[str]) -> list[str]:
            for w, place in self.places.items():
                self.store(fold(w).total_dtype, fold(w).identity(pos.lanes), place, 1, pos)
            return []

        def stretch(unit: str, _: list[str]) -> None:
            first = times(e, unit, each)
            last = at_most(e, plus(e, first, each), rows)
            self.places = self.totals_of(unit)
            self.visit_range("0", n, [], clear, None)
            e.loop(first, last, 1, lambda row, _: self.row(self.unravel(row, self.outer), "0", n))

        e.loop("%begin", "%end", 1, stretch)

    def put(self, access: Access, value: str, pos: Position) -> None:
        if not access.reduce:
            super().put(access, value, pos)
            return
        dtype = fold(access).total_dtype
        total = self.load(dtype, self.places[access], 1, pos)
        total = fold(access).add(self.e, self.target, total, value, pos.lanes)
        self.store(dtype, total, self.places[access], 1, pos)

    def add_up(self) -> None:
        """Each unit is a strip of columns, whose totals of all stretches become the results."""
        e, lanes = self.e, self.lanes
        n, stretches = self.size(self.length), self.stretch_count()
        for size in (self.pitch, *self.offsets.values()):
            self.size(size)
        kinds = [fold(w) for w in self.totals]
        starts = [(k.total_type(lanes), k.identity(lanes)) for k in kinds]

        def some(pos: Position) -> None:
            def one(stretch: str, totals: list[str]) -> list[str]:
                places = self.totals_of(stretch)
                more = [self.load(k.total_dtype, places[w], 1, pos) for w, k in zip(self.totals, kinds)]
                return [k.combine(e, self.target, t, m, lanes) for k, t, m in zip(kinds, totals, more)]

            for w, k, total in zip(self.totals, kinds, e.loop(0, stretches, 1, one, starts)):
                made = k.narrow(e, self.target, total, lanes)
                self.store(w.dtype, made, self.pointers[w.slot], w.strides[self.inner], pos)

        def strip(unit: str, _: list[str]) -> None:
            start = times(e, unit, str(STRIP))
            stop = at_most(e, plus(e, start, str(STRIP)), n)
            e.loop(start, stop, lanes, lambda at, _: some(Position(at, lanes, self.tail_mask(at, stop))))

        e.loop("%begin", "%end", 1, strip)


def fold(access: Access) -> Fold:
    """How a result adds up."""
    return Fold(access.reduce, access.dtype)
