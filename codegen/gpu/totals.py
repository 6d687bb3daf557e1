"""Row kernels that add up columns too (gradients of a norm's gain and bias) on a GPU: one visit to memory for both.

Rows are dealt out in stretches, whose number hangs on the sizes alone.  A team takes a stretch, row by row; each of its threads meets the
same columns in every row and keeps their totals to itself, in shared memory where they are known to fit.  A second kernel adds up those
of the stretches, as it does for sums over rows (columns.py).
"""

from __future__ import annotations

from tcc.codegen import scalar
from tcc.codegen.gpu.chips import LANE
from tcc.codegen.gpu.columns import Columns
from tcc.codegen.gpu.indexing import unless_empty
from tcc.codegen.gpu.kernel import GpuKernel, ceil_div, finish, thread
from tcc.codegen.gpu.rows import MOST_ROWS, SHORT, Teams
from tcc.codegen.index import at_most, plus, times
from tcc.codegen.kernel import Scratch
from tcc.codegen.nest import Position
from tcc.codegen.program import Access, Program
from tcc.codegen.totals import fold
from tcc.ir import dims
from tcc.ir.dims import Size

STRETCHES, SHORT_STRETCHES = 1 << 10, 1 << 12  # at most; of rows that a warp takes
NEAR = 32 << 10  # bytes of a block's totals in shared memory
GRAIN = 4  # a stretch's totals begin at multiples of so many words of eight bytes


def total_kernels(program: Program) -> list[GpuKernel]:
    """The kernels of a program of rows, some of whose results are reduced over all rows."""
    return [_Stretches(program).first_kernel(), _Collect(program).second_kernel()]


class _Dealt:
    """How rows are dealt out."""

    def __init__(self, program: Program) -> None:
        *outer, columns = program.sizes
        self.rows: Size = dims.mul(*outer)
        long = dims.minimum(dims.floordiv(dims.add(columns, -1), SHORT), 1)
        most = dims.add(SHORT_STRETCHES, dims.mul(STRETCHES - SHORT_STRETCHES, long))
        self.each: Size = dims.maximum(dims.floordiv(dims.add(self.rows, most, -1), most), 1)
        self.count: Size = dims.floordiv(dims.add(self.rows, self.each, -1), self.each)
        self.pitch: Size = dims.mul(GRAIN, ceil_div(columns, GRAIN))

    def area(self, number: int) -> Scratch:
        """Of one result's totals; those of others differ in their bytes, so that they are other memory."""
        return Scratch(dims.add(dims.mul(8, self.pitch, self.count), 8 * number))


class _Stretches(Teams):
    def __init__(self, program: Program) -> None:
        super().__init__(program)
        self.dealt = _Dealt(program)
        self.totals = [w for w in program.writes if w.reduce]
        assert all(set(w.strides[: self.inner]) <= {0} for w in self.totals), "totals of some of the rows"
        self.places: dict[Access, str] = {}  # of the totals of the stretch that is being visited
        pitch = self.dealt.pitch
        bytes = len(self.totals) * 8 * pitch * self.teams_of_block if isinstance(pitch, int) else NEAR + 1
        self.near = bytes if bytes <= NEAR else 0

    @property
    def teams_of_block(self) -> int:
        return self.block_threads // self.team

    def grid(self) -> tuple[Size, Size, Size]:
        return dims.minimum(ceil_div(self.dealt.count, self.teams_of_block), MOST_ROWS), 1, 1

    def shared_bytes(self) -> int:
        return super().shared_bytes() + self.near

    def first_kernel(self) -> GpuKernel:
        e, dealt = self.e, self.dealt
        first, step = self.begin_rows()
        n, pitch, each = self.size(self.length), self.size(dealt.pitch), self.size(dealt.each)
        picks = any(node.kind == "take" for node in self.plan.nodes)
        rows = unless_empty(self, self.count(self.outer), [self.length] if picks else [])
        areas = [self.slots.pointer(e, dealt.area(k)) for k in range(len(self.totals))]
        near: list[str] = []
        if self.near:
            base = e.gep(e.call("ptr", "tcc.shared"), super().shared_bytes())
            mine = e.value(f"udiv i64 {thread(e)}, {self.team}")
            mine = times(e, mine, str(len(areas) * 8 * dealt.pitch))
            near = [e.gep(base, plus(e, mine, str(8 * dealt.pitch * k))) for k in range(len(areas))]

        def clear(pos: Position, _: list[str]) -> list[str]:
            for w, place in self.places.items():
                self.store(fold(w).total_dtype, fold(w).identity(pos.lanes), place, 1, pos)
            return []

        def stretch(unit: str, _: list[str]) -> None:
            start = times(e, unit, each)
            stop = at_most(e, plus(e, start, each), rows)
            row = times(e, times(e, unit, pitch), "8")
            far = [e.gep(area, row) for area in areas]
            self.places = dict(zip(self.totals, near or far))
            self.enter(self.unravel("0", self.outer))
            self.block("0", n, [], clear)
            e.loop(start, stop, 1, lambda r, _: self.row(self.unravel(r, self.outer), "0", n))
            if not near:
                return

            def leave(pos: Position, _: list[str]) -> list[str]:
                for w, place in zip(self.totals, far):
                    dtype = fold(w).total_dtype
                    self.store(dtype, self.load(dtype, self.places[w], 1, pos), place, 1, pos)
                return []

            self.enter(self.unravel("0", self.outer))
            self.block("0", n, [], leave)

        e.loop(first, self.size(dealt.count), step, stretch)
        e.end()
        return finish(e, "totals", self.slots.slots, self.grid(), self.block_threads, self.shared_bytes())

    def put(self, access: Access, value: str, pos: Position) -> None:
        if not access.reduce:
            super().put(access, value, pos)
            return
        kind, place = fold(access), self.places[access]
        total = self.load(kind.total_dtype, place, 1, pos)
        self.store(kind.total_dtype, kind.add(self.e, LANE, total, value, pos.lanes), place, 1, pos)


class _Collect(Columns):
    def __init__(self, program: Program) -> None:
        super().__init__(program)
        self.dealt = _Dealt(program)
        self.kept, self.summed, self.maps = [], list(range(self.inner)), []
        self.rows, self.stretch, self.stretches = self.dealt.rows, self.dealt.each, self.dealt.count
        self.divided = True

    def begin_columns(self) -> None:
        super().begin_columns()
        self.size(self.dealt.pitch)  # ahead of the loops

    def partial(self, fold: int) -> Scratch:
        return self.dealt.area(fold)

    def partial_at(self, k: int, row: str, column: str) -> str:
        e, elem = self.e, scalar.memory_elem(self.folds[k].total_dtype)
        start = times(e, times(e, row, self.size(self.dealt.pitch)), "8")
        return e.gep(e.gep(self.slots_of_partials[k], start), column, elem)
