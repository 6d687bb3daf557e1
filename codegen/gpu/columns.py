"""Sums over outer axes on a GPU, such as that of a matrix over its rows, in two steps where there are many rows.

Rows are cut into stretches, of a length that hangs on their number alone.  A block takes a stretch of some columns: a thread adds
up every so many-th row of a run of 16 bytes, and the threads of a column fold their totals pairwise through shared memory.
Where there are several stretches, their totals go to memory and a second kernel adds those up the same way.  So the order is
a function of sizes, and few columns still keep many threads busy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tcc.codegen import scalar
from tcc.codegen.emit import VecType
from tcc.codegen.gpu.chips import LANE, WARP
from tcc.codegen.gpu.kernel import GpuKernel, barrier, block_index, ceil_div, finish, grid_size, thread
from tcc.codegen.gpu.maps import WIDE, Threads
from tcc.codegen.index import at_most, plus, times
from tcc.codegen.kernel import Scratch
from tcc.codegen.nest import Fold, Memo, Position
from tcc.codegen.program import Access, Program
from tcc.ir import dims
from tcc.ir.dims import Size
from tcc.ir.types import itemsize

BLOCK = 256
LEAST, MOST = 64, 256  # rows of a stretch, and stretches
MOST_GRID = 1 << 15


def column_kernels(program: Program) -> list[GpuKernel]:
    """The kernels of a program that keeps its inner axis and reduces outer ones."""
    first = Columns(program)
    if not first.divided:
        return [first.kernel("columns", whole=True)]
    return [first.kernel("stretch", whole=False), Columns(program).second_kernel()]


class Columns(Threads):
    def __init__(self, program: Program) -> None:
        super().__init__(program)
        axes = range(self.inner)
        self.kept = [a for a in axes if not program.reduced[a]]
        self.summed = [a for a in axes if program.reduced[a]]
        pairs = list(zip(program.results, program.writes, strict=True))
        self.reduces = [(n, w) for n, w in pairs if w.reduce]
        self.maps = [(n, w) for n, w in pairs if not w.reduce]
        self.folds = [Fold(w.reduce, w.dtype) for _, w in self.reduces]
        self.rows: Size = dims.mul(*(program.sizes[a] for a in self.summed))
        self.stretch = dims.maximum(LEAST, ceil_div(self.rows, MOST))
        self.stretches: Size = dims.floordiv(dims.add(self.rows, self.stretch, -1), self.stretch)
        self.divided = self.stretches not in (0, 1)
        self.columns = program.sizes[self.inner]
        moved = [a for a in [*program.reads, *program.writes] if a.varies(self.inner)]
        self.dense = [a for a in moved if a.strides[self.inner] == 1 and not a.reduce]
        self.each = max(1, WIDE // max((itemsize(a.dtype) for a in moved), default=WIDE))

    # -- heads -----------------------------------------------------------------------------------------------------

    def begin_columns(self) -> None:
        """Threads of a block: so many for runs of columns, a power of two, by so many for rows."""
        e = self.e
        self.begin()
        self.slots_of_partials = [
            self.slots.pointer(e, self.partial(i)) if self.divided else "" for i in range(len(self.folds))
        ]
        for s in (self.rows, self.stretch, self.stretches):
            self.size(s)
        self.shared = e.call("ptr", "tcc.shared")
        self.member = thread(e)
        runs = e.value(f"sdiv i64 {plus(e, self.size(self.columns), str(self.each - 1))}, {self.each}")
        width = "1"
        for power in range(5):
            wider = e.value(f"icmp sgt i64 {runs}, {1 << power}")
            width = e.value(f"select i1 {wider}, i64 {2 << power}, i64 {width}")
        self.width, self.height = width, e.value(f"udiv i64 {BLOCK}, {width}")
        self.across = e.value(f"and i64 {self.member}, {e.value(f'sub i64 {width}, 1')}")
        self.down = e.value(f"udiv i64 {self.member}, {width}")
        up = plus(e, runs, e.value(f"sub i64 {width}, 1"))
        self.strips = e.value(f"sdiv i64 {up}, {width}")

    def grid(self, stretches: Size) -> tuple[Size, Size, Size]:
        # as many as there are strips of the widest blocks, at least one
        strips = dims.maximum(ceil_div(self.columns, WARP * self.each), 1)
        kept = dims.mul(*(self.program.sizes[a] for a in self.kept))
        return dims.minimum(strips, MOST_GRID), stretches, dims.minimum(kept, MOST_GRID)

    def partial(self, fold: int) -> Scratch:
        """A total of eight bytes of each stretch for each column; folds differ in slot by a byte count that is theirs."""
        kept = dims.mul(*(self.program.sizes[a] for a in self.kept))
        return Scratch(dims.add(dims.mul(8, kept, self.columns, self.stretches), 8 * fold))

    def shared_bytes(self) -> int:
        return 8 * BLOCK * self.each

    def over_strips(self, body: Callable[[str, list[str], str], None]) -> None:
        """`body(number, kept, start)` for each of this block's places: a point of the kept axes by a strip of columns."""
        e = self.e

        def outer(z: str, _: list[str]) -> None:
            kept = self.unravel(z, self.kept)

            def strip(s: str, _: list[str]) -> None:
                body(z, kept, times(e, times(e, s, self.width), str(self.each)))

            e.loop(block_index(e), self.strips, grid_size(e), strip)

        e.loop(block_index(e, "z"), self.count(self.kept), grid_size(e, "z"), outer)

    # -- the first step --------------------------------------------------------------------------------------------

    def kernel(self, kind: str, *, whole: bool) -> GpuKernel:
        e = self.e
        self.begin_columns()
        rows = self.size(self.rows)
        first = "0" if whole else times(e, block_index(e, "y"), self.size(self.stretch))
        last = rows if whole else at_most(e, plus(e, first, self.size(self.stretch)), rows)

        def place(number: str, kept: list[str], start: str) -> None:
            totals, columns = self.stretch_of(kept, start, plus(e, first, self.down), last)
            for k, (fold, total) in enumerate(zip(self.folds, totals)):
                self.leave(number, kept, columns, k, self.fold_block(fold, total), whole)

        self.over_strips(place)
        e.end()
        return finish(
            e, kind, self.slots.slots, self.grid(1 if whole else self.stretches), BLOCK, self.shared_bytes()
        )

    def stretch_of(
        self, kept: Sequence[str], start: str, first: str, last: str
    ) -> tuple[list[str], list[str]]:
        """This thread's totals of rows first, first + height, ...: for each fold those of its columns, as a vector; and its columns.

        They are a run of the strip where all of its runs are aligned and there; else neighbouring threads take neighbouring ones.
        """
        e, each = self.e, self.each
        n = self.size(self.columns)
        self.at_point(self.indices_of(kept, "0"))
        end = plus(e, start, times(e, self.width, str(each)))
        whole = e.value(f"icmp sle i64 {end}, {n}")
        for access in self.dense:
            bytes = each * itemsize(access.dtype)
            joined = e.value(
                f"ptrtoint ptr {e.gep(self.bases[access.slot], start, scalar.memory_elem(access.dtype))} to i64"
            )
            for axis in self.summed:
                step = times(e, self.size(access.strides[axis]), str(itemsize(access.dtype)))
                joined = e.value(f"or i64 {joined}, {step}")
            odd = e.value(f"and i64 {joined}, {bytes - 1}")
            whole = e.value(f"and i1 {whole}, {e.value(f'icmp eq i64 {odd}, 0')}")
        types = [f.total_type(each) for f in self.folds]
        zeros = [f.identity(each) for f in self.folds]

        def rows(visit: Callable[[list[str]], list[str]]) -> list[str]:
            def row(r: str, values: list[str]) -> list[str]:
                self.at_point(self.indices_of(kept, r))
                return visit(values)

            return e.loop(first, last, self.height, row, list(zip(types, zeros)))

        run = plus(e, start, times(e, self.across, str(each)))
        apart = plus(e, start, self.across)
        column = e.value(f"select i1 {whole}, i64 {run}, i64 {apart}")
        step = e.value(f"select i1 {whole}, i64 1, i64 {self.width}")
        columns = [plus(e, column, times(e, step, str(lane))) for lane in range(each)]
        quick, single, after = e.label(), e.label(), e.label()
        e.branch_if(whole, quick, single)
        e.at(quick)
        self.lanes = each
        fast = rows(lambda values: self.visit(Position(run, each), values))
        self.lanes = 1
        e.branch(after)
        fast_from = e.current
        e.at(single)
        slow = rows(lambda values: self.one_by_one(columns, n, values, types))
        e.branch(after)
        slow_from = e.current
        e.at(after)
        totals = [
            e.value(f"phi {t} [{a}, %{fast_from}], [{b}, %{slow_from}]") for t, a, b in zip(types, fast, slow)
        ]
        return totals, columns

    def indices_of(self, kept: Sequence[str], row: str) -> list[str]:
        found = dict(zip(self.kept, kept))
        found |= zip(self.summed, self.unravel(row, self.summed))
        return [found[a] for a in range(self.inner)]

    def one_by_one(self, columns: list[str], n: str, values: list[str], types: list[VecType]) -> list[str]:
        """The same column by column, those that there are."""
        for lane, column in enumerate(columns):
            values = self.when_there(column, n, values, types, lane if self.each > 1 else None)
        return values

    def when_there(
        self, column: str, n: str, values: list[str], types: list[VecType], lane: int | None
    ) -> list[str]:
        e = self.e
        before, inside, after = e.current, e.label(), e.label()
        e.branch_if(e.value(f"icmp slt i64 {column}, {n}"), inside, after)
        e.at(inside)
        kept = dict(self.scalars), dict(self.splats)
        ones = [
            v if lane is None else e.value(f"extractelement {t} {v}, i64 {lane}")
            for t, v in zip(types, values)
        ]
        ones = self.visit(Position(column, 1), ones)
        if lane is not None:
            ones = [
                e.value(f"insertelement {t} {v}, {t.elem} {one}, i64 {lane}")
                for t, v, one in zip(types, values, ones)
            ]
        self.scalars, self.splats = kept  # what was made in here is not there after
        last = e.current
        e.branch(after)
        e.at(after)
        return [
            e.value(f"phi {t} [{v}, %{before}], [{one}, %{last}]") for t, v, one in zip(types, values, ones)
        ]

    def visit(self, pos: Position, totals: list[str]) -> list[str]:
        e = self.e
        memo: Memo = {}
        new: list[str] = []
        for (node, access), fold, total in zip(self.reduces, self.folds, totals, strict=True):
            value = self.vector(node, pos, memo)
            if node.dtype != access.dtype:
                value = self.cast(node.dtype, value, access.dtype, pos.lanes)
            new.append(fold.add(e, LANE, total, value, pos.lanes))
        values = [self.vector(node, pos, memo) for node, _ in self.maps]
        for (_, access), value in zip(self.maps, values):
            self.store(access.dtype, value, self.bases[access.slot], access.strides[self.inner], pos)
        return new

    # -- the second step -------------------------------------------------------------------------------------------

    def second_kernel(self) -> GpuKernel:
        e = self.e
        self.each = 1
        self.begin_columns()
        stretches = self.size(self.stretches)

        def place(number: str, kept: list[str], start: str) -> None:
            column = plus(e, start, self.across)
            there = e.value(f"icmp slt i64 {column}, {self.size(self.columns)}")
            last = e.value(f"select i1 {there}, i64 {stretches}, i64 0")
            for k, fold in enumerate(self.folds):

                def add(s: str, totals: list[str], k: int = k, fold: Fold = fold) -> list[str]:
                    at = self.partial_at(k, plus(e, times(e, number, stretches), s), column)
                    one = scalar.load(e, LANE, fold.total_dtype, 1, at, None)
                    return [fold.combine(e, LANE, totals[0], one, 1)]

                (total,) = e.loop(self.down, last, self.height, add, [(fold.total_type(1), fold.identity(1))])
                self.leave(number, kept, [column], k, self.fold_block(fold, total), True)

        self.over_strips(place)
        e.end()
        return finish(e, "stretches", self.slots.slots, self.grid(1), BLOCK, self.shared_bytes())

    # -- totals of a block -----------------------------------------------------------------------------------------

    def fold_block(self, fold: Fold, total: str) -> list[str]:
        """The totals of the threads of a run, halves of them onto each other, by column of the run; whole in those with `down` 0."""
        e, each = self.e, self.each
        t, elem = fold.total_type(each), scalar.memory_elem(fold.total_dtype)
        width = 8 // VecType(elem).bytes

        def cell(thread: str, lane: int) -> str:
            return e.gep(self.shared, times(e, plus(e, thread, str(lane * BLOCK)), str(width)), elem)

        def lane_of(value: str, lane: int) -> str:
            return value if each == 1 else e.value(f"extractelement {t} {value}, i64 {lane}")

        barrier(e)  # all are done with what lay there
        lanes = [lane_of(total, lane) for lane in range(each)]
        for lane, one in enumerate(lanes):
            scalar.store(e, LANE, fold.total_dtype, 1, one, cell(self.member, lane), None)
        barrier(e)
        head, inside, after = e.label(), e.label(), e.label()
        before = e.current
        e.branch(head)
        e.at(head)
        left, slot = e.fresh("h"), len(e.lines)
        e.lines.append("")
        half = e.value(f"lshr i64 {left}, 1")
        e.branch_if(e.value(f"icmp ne i64 {half}, 0"), inside, after)
        e.at(inside)

        def add() -> None:
            other = plus(e, self.member, times(e, half, self.width))
            for lane in range(each):
                a, b = (
                    scalar.load(e, LANE, fold.total_dtype, 1, cell(x, lane), None)
                    for x in (self.member, other)
                )
                scalar.store(
                    e,
                    LANE,
                    fold.total_dtype,
                    1,
                    fold.combine(e, LANE, a, b, 1),
                    cell(self.member, lane),
                    None,
                )

        e.when(e.value(f"icmp slt i64 {self.down}, {half}"), add)
        barrier(e)
        latch = e.current
        e.branch(head)
        e.lines[slot] = f"  {left} = phi i64 [{self.height}, %{before}], [{half}, %{latch}]"
        e.at(after)
        return [
            scalar.load(e, LANE, fold.total_dtype, 1, cell(self.member, lane), None) for lane in range(each)
        ]

    def leave(
        self, number: str, kept: list[str], columns: list[str], k: int, lanes: list[str], whole: bool
    ) -> None:
        """The first of the threads that share columns writes their totals: the results, or those of the stretch."""
        e, fold = self.e, self.folds[k]
        n, (_, access) = self.size(self.columns), self.reduces[k]
        if whole:
            self.at_point(self.indices_of(kept, "0"))

        def write() -> None:
            for at, total in zip(columns, lanes, strict=True):

                def one(at: str = at, total: str = total) -> None:
                    if whole:
                        self.put_total(access, fold, total, at)
                        return
                    row = plus(e, times(e, number, self.size(self.stretches)), block_index(e, "y"))
                    scalar.store(e, LANE, fold.total_dtype, 1, total, self.partial_at(k, row, at), None)

                e.when(e.value(f"icmp slt i64 {at}, {n}"), one)

        e.when(e.value(f"icmp eq i64 {self.down}, 0"), write)

    def put_total(self, access: Access, fold: Fold, total: str, at: str) -> None:
        value = fold.narrow(self.e, LANE, total, 1)
        self.store(access.dtype, value, self.bases[access.slot], access.strides[self.inner], Position(at, 1))

    def partial_at(self, k: int, row: str, column: str) -> str:
        e, elem = self.e, scalar.memory_elem(self.folds[k].total_dtype)
        index = plus(e, times(e, row, self.size(self.columns)), column)
        return e.gep(self.slots_of_partials[k], times(e, index, str(8 // VecType(elem).bytes)), elem)
