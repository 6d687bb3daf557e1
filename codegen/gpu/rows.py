"""Rows on a GPU: reductions along the inner axis and row kernels (softmax, norms, cross-entropy), a team of threads a row.

What is computed in which phase is the CPU's (tcc.codegen.rows).  Thread t of the team takes runs of 16 bytes t, t + team, ... where
rows are long enough, then one element of what is left; totals are folded by lanes of the run, then by shuffles within a warp, then those of the warps in order through shared memory, so the order depends on the row's
length alone.  A short row has one warp, and needs no barrier.  One long row is cut into chunks whose totals a second kernel adds up in order.

Rows that are visited several times, of a known length that has room there, are read once, into registers, all of a thread's runs at once.
Others are read again in each phase, and what was computed is computed again: on a GPU memory is what they wait for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tcc.codegen import scalar
from tcc.codegen.emit import VecType
from tcc.codegen.gpu.chips import LANE, WARP
from tcc.codegen.gpu.indexing import clamped, unless_empty
from tcc.codegen.gpu.kernel import GpuKernel, barrier, block_index, finish, grid_size, shuffle, thread
from tcc.codegen.gpu.maps import WIDE, Runs
from tcc.codegen.index import at_most, plus, times
from tcc.codegen.nest import Fold, Memo, Position, fold_of
from tcc.codegen.program import Node, Program
from tcc.codegen.rows import CHUNK, Rows
from tcc.ir import dims
from tcc.ir.dims import Size
from tcc.ir.types import itemsize

LONG = 256  # threads of a row's team
SHORT = 512  # most elements of a row that one warp takes
MOST_ROWS = 1 << 16  # blocks
HELD = 64  # most registers that a thread keeps of what it reads of a row
HELD_FLOPS = 1 << 10  # most flops in the straight-line text that takes


def row_kernels(program: Program) -> list[GpuKernel]:
    """The kernels of a program that reduces along its inner axis or works on rows, one after another."""
    rows = Teams(program)
    if rows.full and isinstance(rows.length, int) and rows.length <= CHUNK:
        return [rows.whole_kernel()]
    if rows.full:
        return [rows.chunk_kernel(), Teams(program).collect_kernel()]
    return [rows.row_kernel()]


class Teams(Runs, Rows):
    spilling = False

    def __init__(self, program: Program) -> None:
        super().__init__(program, LANE)
        self.ways = 1
        short = isinstance(self.length, int) and self.length <= SHORT and not self.full and not self.summed
        self.team = WARP if short else LONG
        self.block_threads = 128 if short else LONG
        moved = [a for a in [*program.reads, *program.writes] if a.varies(self.inner) and not a.reduce]
        self.dense = [a for a in moved if a.strides[self.inner] == 1]
        self.run = self.run_length(max((itemsize(a.dtype) for a in moved), default=WIDE))
        self.member = self.shared = ""
        self.held: list[Position] = []  # a thread's runs of a row that it holds
        self.inside: dict[str, str] = {}  # by their offsets, whether they are there, of those that may not be
        self.later: list[Callable[[], object]] = []  # the stores of a phase of such a row

    def is_unrolled(self) -> bool:
        """Not but while a row that is held is being written."""
        return False

    def run_length(self, widest: int) -> int:
        """Elements that a thread takes at once; one where not all of the team would have some."""
        run = max(1, WIDE // widest) if self.dense else 1
        few = isinstance(self.length, int) and self.length < run * self.team
        return 1 if few else run

    # -- kernels ---------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        e = self.e
        e.function("void @KERNEL_NAME(ptr %args)")
        self.load_arguments()
        self.member = thread(e)
        if self.team == WARP:
            self.member = e.value(f"and i64 {self.member}, {WARP - 1}")
        else:
            self.shared = e.call("ptr", "tcc.shared")

    def teams(self) -> tuple[str, str]:
        """The number of this thread's team, and how many there are."""
        e = self.e
        if self.team == LONG:
            return block_index(e), grid_size(e)
        each = self.block_threads // WARP
        mine = e.value(f"lshr i64 {thread(e)}, 5")
        first = e.value(f"add i64 {e.value(f'mul i64 {block_index(e)}, {each}')}, {mine}")
        return first, e.value(f"mul i64 {grid_size(e)}, {each}")

    def grid(self) -> tuple[Size, Size, Size]:
        rows = dims.mul(*(self.program.sizes[a] for a in self.outer))
        each = self.block_threads // self.team
        return dims.minimum(dims.floordiv(dims.add(rows, each - 1), each), MOST_ROWS), 1, 1

    def begin_rows(self) -> tuple[str, str]:
        """Loads sizes ahead of the loop, and gives `teams`."""
        self.begin()
        for size in (self.length, *(self.program.sizes[a] for a in self.outer)):
            self.size(size)
        self.hold_runs()
        return self.teams()

    def row_kernel(self) -> GpuKernel:
        e = self.e
        first, step = self.begin_rows()
        row = self.summed_rows if self.summed else self.row
        n = self.size(self.length)

        def body(unit: str, _: list[str]) -> None:
            row(self.unravel(unit, self.outer), "0", n)

        picks = any(n.kind == "take" for n in self.plan.nodes)
        e.loop(first, unless_empty(self, self.count(self.outer), [self.length] if picks else []), step, body)
        e.end()
        return finish(e, "row", self.slots.slots, self.grid(), self.block_threads, self.shared_bytes())

    def shared_bytes(self) -> int:
        return 0 if self.team == WARP else 8 * (LONG // WARP)

    def chunk_kernel(self) -> GpuKernel:
        e = self.e
        self.begin()
        n = self.size(self.length)
        chunk, _ = self.teams()
        start = times(e, chunk, str(CHUNK))
        stop = at_most(e, plus(e, start, str(CHUNK)), n)
        self.enter([])
        totals = self.phase(0, start, stop, None)
        for node in self.reduce_nodes():
            fold = fold_of(node)
            one = self.across(fold.wide, totals[node])
            elem = scalar.memory_elem(fold.total_dtype)
            at = e.gep(self.partial_pointer(node), times(e, chunk, str(8 // VecType(elem).bytes)), elem)
            self.alone(lambda: scalar.store(e, LANE, fold.total_dtype, 1, one, at, None))
        e.end()
        blocks = dims.floordiv(dims.add(self.length, CHUNK - 1), CHUNK)
        return finish(e, "chunk", self.slots.slots, (blocks, 1, 1), LONG, self.shared_bytes())

    def whole_kernel(self) -> GpuKernel:
        """One chunk, whose total is rounded as if it had been collected."""
        e = self.e
        self.begin()
        self.enter([])
        totals = self.phase(0, "0", self.size(self.length), None)
        for node in self.reduce_nodes():
            fold = fold_of(node)
            one = self.across(fold.wide, totals[node])
            total = fold.combine(e, LANE, fold.identity(1), one, 1)
            self.scalars[node] = fold.narrow(e, LANE, total, 1)
        self.store_scalars()
        e.end()
        return finish(e, "whole", self.slots.slots, (1, 1, 1), LONG, self.shared_bytes())

    def collect_kernel(self) -> GpuKernel:
        e = self.e
        self.begin()
        units = self.chunk_count(self.size(self.length))
        for node in self.reduce_nodes():
            self.partial_pointer(node)
        self.enter([])
        for node in self.reduce_nodes():
            self.scalars[node] = self.collected(node, units)
        self.store_scalars()
        e.end()
        return finish(e, "collect", self.slots.slots, (1, 1, 1), LONG, self.shared_bytes())

    def collected(self, node: Node, units: str) -> str:
        """The total of the chunks' totals, each thread's share of them in order."""
        e, fold = self.e, fold_of(node)
        elem, pointer = scalar.memory_elem(fold.total_dtype), self.partial_pointer(node)

        def add(unit: str, values: list[str]) -> list[str]:
            at = e.gep(pointer, times(e, unit, str(8 // VecType(elem).bytes)), elem)
            one = scalar.load(e, LANE, fold.total_dtype, 1, at, None)
            return [fold.combine(e, LANE, values[0], one, 1)]

        (total,) = e.loop(self.member, units, self.team, add, [(fold.total_type(1), fold.identity(1))])
        return self.across(fold, total)

    # -- a row by its team -----------------------------------------------------------------------------------------

    def row(self, indices: Sequence[str], start: str, stop: str) -> None:
        self.enter(indices)
        if not self.held:
            self.phases(start, stop)
            return
        e = self.e
        if self.run == 1:
            self.held_phases(start, stop)
            return
        quick, slow, after = e.label(), e.label(), e.label()
        e.branch_if(self.all_aligned(start), quick, slow)
        e.at(quick)
        self.held_phases(start, stop)
        e.branch(after)
        e.at(slow)
        self.scalars, self.splats = {}, {}  # what was made of them is not there
        self.phases(start, stop)
        e.branch(after)
        e.at(after)

    def phases(self, start: str, stop: str) -> None:
        for phase in range(self.plan.final + 1):
            if phase == self.plan.final:
                taken = [n for n in self.plan.nodes if n.kind == "take" and n.phase <= phase]
                for node in taken:
                    self.scalar(node)
                if taken:
                    self.meet()  # before a result is written where the element lay
            totals = self.phase(phase, start, stop, None)
            for node, total in totals.items():
                self.scalars[node] = self.across(fold_of(node), total)
        self.store_scalars()

    # -- rows that are held ------------------------------------------------------------------------------------------

    def hold_runs(self) -> None:
        """Finds the runs that a thread holds, if it can hold them."""
        if not isinstance(self.length, int) or self.plan.final == 0 or self.summed or self.length % self.run:
            return
        runs = self.length // self.run
        each = -(-runs // self.team)  # of a thread
        words = sum(max(1, itemsize(n.dtype) // 4) for n in self.revisited())
        if each * self.run * words > HELD or each * self.run * self.program.flops > HELD_FLOPS:
            return
        e = self.e
        for k in range(each):
            number = plus(e, self.member, str(k * self.team))
            if (k + 1) * self.team > runs:  # another one stands for one that is not there
                inside = e.value(f"icmp slt i64 {number}, {runs}")
                number = e.value(f"select i1 {inside}, i64 {number}, i64 0")
            offset = e.value(f"mul i64 {number}, {self.run}")
            if (k + 1) * self.team > runs:
                self.inside[offset] = inside
            self.held.append(Position(offset, self.run))

    def revisited(self) -> set[Node]:
        """The operands along the row that reductions read: what comes after those reads them once more, or nothing that is left."""
        found: set[Node] = set()
        waiting = list(self.plan.reduces)
        while waiting:
            node = waiting.pop()
            if node not in found:
                found.add(node)
                waiting += node.inputs
        return {n for n in found if n.varies and n.kind == "param"}

    def held_phases(self, start: str, stop: str) -> None:
        self.unrolled = True
        self.phases(start, stop)
        self.unrolled, self.vectors = False, {}

    def unrolled_block(
        self, folds: list[Fold], visit: Callable[[Position, list[str]], list[str]]
    ) -> list[str]:
        """This thread's share as `block` takes it, in straight-line text: what was made at a place is there in later phases."""
        e, run = self.e, self.run
        totals = [f.identity(run) for f in folds]
        lanes, splats = self.lanes, self.splats
        self.lanes, self.splats = run, {}
        for pos in self.held:
            made = visit(pos, totals)
            inside = self.inside.get(pos.offset)
            if inside is not None:
                types = [f.total_type(run) for f in folds]
                made = [
                    e.value(f"select i1 {inside}, {t} {new}, {t} {old}")
                    for t, new, old in zip(types, made, totals)
                ]
            totals = made
        for store in self.later:
            store()
        self.later = []
        self.lanes, self.splats = lanes, splats
        return totals if run == 1 else [f.wide.across(e, LANE, t, run) for f, t in zip(folds, totals)]

    def write(self, node: Node, phase: int, pos: Position, memo: Memo, spills: dict[Node, str]) -> None:
        """Of a row that is held all is read and computed before the first store, behind which no load could be begun."""
        if not self.unrolled:
            super().write(node, phase, pos, memo, spills)
            return
        store, inside = super().write, self.inside.get(pos.offset)
        if inside is None:
            self.later.append(lambda: store(node, phase, pos, memo, spills))
        else:
            self.later.append(lambda: self.e.when(inside, lambda: store(node, phase, pos, memo, spills)))

    def summed_rows(self, indices: Sequence[str], start: str, stop: str) -> None:
        reduces = self.reduce_nodes()
        folds = [fold_of(n) for n in reduces]
        types = [f.total_type(1) for f in folds]

        def nest(axes: list[int], at: list[str], values: list[str]) -> list[str]:
            if not axes:
                self.enter(at)
                totals = self.phase(0, start, stop, dict(zip(reduces, values)))
                return [totals[n] for n in reduces]
            end = self.size(self.program.sizes[axes[0]])
            return self.e.loop(0, end, 1, lambda i, v: nest(axes[1:], [*at, i], v), list(zip(types, values)))

        totals = nest(self.summed, list(indices), [f.identity(1) for f in folds])
        self.enter([*indices, *["0"] * len(self.summed)])
        for node, fold, total in zip(reduces, folds, totals):
            self.scalars[node] = self.across(fold, total)
        self.store_scalars()

    def store_scalars(self) -> None:
        pairs = zip(self.plan.results, self.program.writes)
        left = [(n, access) for n, access in pairs if n not in self.plan.stored]
        values = [self.scalar(node) for node, _ in left]
        if not left:
            return
        if any(a.slot != w.slot for a in self.program.reads for _, w in left if not a.varies(self.inner)):
            self.meet()  # all have read what a result may lie over

        def store() -> None:
            for (_, access), value in zip(left, values):
                self.store(access.dtype, value, self.bases[access.slot], 1, Position("0", 1))

        self.alone(store)

    def block(
        self, start: str, stop: str, folds: list[Fold], visit: Callable[[Position, list[str]], list[str]]
    ) -> list[str]:
        """This thread's share: runs, by vectors where rows are aligned, then what is left one by one.

        A row of a run-time length is divided as one of that length, if known, would be: a short one among a warp's threads.
        """
        e, run = self.e, self.run
        types = [f.total_type(1) for f in folds]
        totals = [f.identity(1) for f in folds]
        length = e.value(f"sub i64 {stop}, {start}")
        member, team, left = self.member, str(self.team), start
        if self.team == LONG and not isinstance(self.length, int) and not self.full and not self.summed:
            short = e.value(f"icmp sle i64 {length}, {SHORT}")
            team = e.value(f"select i1 {short}, i64 {WARP}, i64 {LONG}")
            idle = e.value(f"icmp sge i64 {member}, {team}")
            member = e.value(f"select i1 {idle}, i64 {length}, i64 {member}")  # past the end
        if run > 1:
            enough = e.value(f"icmp sge i64 {length}, {times(e, team, str(run))}")
            whole = e.value(f"select i1 {enough}, i64 {e.value(f'and i64 {length}, {-run}')}, i64 0")
            left = plus(e, start, whole)
            totals = self.runs(start, left, member, team, folds, visit)
        return e.loop(
            plus(e, left, member), stop, team, lambda i, v: visit(Position(i, 1), v), list(zip(types, totals))
        )

    def runs(
        self,
        start: str,
        stop: str,
        member: str,
        team: str,
        folds: list[Fold],
        visit: Callable[[Position, list[str]], list[str]],
    ) -> list[str]:
        e, run = self.e, self.run
        types = [f.total_type(run) for f in folds]
        zeros = [f.identity(run) for f in folds]
        first = plus(e, start, times(e, member, str(run)))
        step = times(e, team, str(run))
        splats = self.splats

        def loop(aligned: bool) -> list[str]:
            self.aligned, self.lanes, self.splats = aligned, run, {}
            made = e.loop(
                first,
                stop,
                step,
                lambda i, values: visit(Position(i, run), values),
                list(zip(types, zeros)),
            )
            self.aligned, self.lanes, self.splats = True, 1, splats
            return made

        quick, slow, after = e.label(), e.label(), e.label()
        e.branch_if(self.all_aligned(start), quick, slow)
        ends: list[tuple[list[str], str]] = []
        for label, aligned in ((quick, True), (slow, False)):
            e.at(label)
            ends.append((loop(aligned), e.current))
            e.branch(after)
        e.at(after)
        (fast, fast_from), (other, other_from) = ends
        whole = [
            e.value(f"phi {t} [{a}, %{fast_from}], [{b}, %{other_from}]")
            for t, a, b in zip(types, fast, other)
        ]
        return [f.wide.across(e, LANE, total, run) for f, total in zip(folds, whole)]

    def all_aligned(self, start: str) -> str:
        """Whether the runs of this row from `start` on lie at multiples of their size."""
        e, whole = self.e, "true"
        for access in self.dense:
            at = e.gep(self.bases[access.slot], start, scalar.memory_elem(access.dtype))
            address = e.value(f"ptrtoint ptr {at} to i64")
            odd = e.value(f"and i64 {address}, {self.run * itemsize(access.dtype) - 1}")
            whole = e.value(f"and i1 {whole}, {e.value(f'icmp eq i64 {odd}, 0')}")
        return whole

    def place_in_row(self, index: Node) -> str:
        """Within the row: an index that is not has been noted by its check."""
        return clamped(self.e, super().place_in_row(index), self.size(self.length))

    # -- teams -----------------------------------------------------------------------------------------------------

    def across(self, fold: Fold, total: str) -> str:
        """The team's total, in every thread of it."""
        e = self.e
        t = fold.total_type(1)
        for by in (16, 8, 4, 2, 1):
            other = shuffle(e, t, total, "shuffle_xor", by)
            total = fold.combine(e, LANE, total, other, 1)
        if self.team != WARP:
            total = self.between_warps(fold, t, total)
        return fold.narrow(e, LANE, total, 1)

    def between_warps(self, fold: Fold, t: VecType, total: str) -> str:
        e = self.e
        elem = scalar.memory_elem(fold.total_dtype)
        each = 8 // VecType(elem).bytes
        warp = e.value(f"lshr i64 {self.member}, 5")
        barrier(e)  # those who still read what the last total left
        lane = e.value(f"and i64 {self.member}, {WARP - 1}")
        at = e.gep(self.shared, times(e, warp, str(each)), elem)
        e.when(
            e.value(f"icmp eq i64 {lane}, 0"),
            lambda: scalar.store(e, LANE, fold.total_dtype, 1, total, at, None),
        )
        barrier(e)
        whole = ""
        for w in range(self.team // WARP):
            one = scalar.load(e, LANE, fold.total_dtype, 1, e.gep(self.shared, w * each, elem), None)
            whole = one if not whole else fold.combine(e, LANE, whole, one, 1)
        return whole

    def alone(self, then: Callable[[], None]) -> None:
        """The first thread of the team does it."""
        self.e.when(self.e.value(f"icmp eq i64 {self.member}, 0"), then)

    def meet(self) -> None:
        self.e.call("void", "tcc.warp_barrier" if self.team == WARP else "tcc.barrier")
