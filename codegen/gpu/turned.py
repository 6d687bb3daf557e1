"""Maps on a GPU that turn memory: what is written is dense along one axis, and some of what is read along another.

A block takes a square tile of both axes.  Each thread reads some runs along the one axis, turns them in registers, and puts
them in shared memory as runs along the other, whence all are taken with what else the map reads.  A run is 16 bytes in
device and shared memory, where the runs of a row are permuted by exclusive or, so that neither way two threads meet in a bank.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tcc.codegen import scalar
from tcc.codegen.emit import VecType
from tcc.codegen.gpu.chips import LANE, SHARED
from tcc.codegen.gpu.kernel import (
    MOST_BLOCKS,
    GpuKernel,
    barrier,
    block_index,
    ceil_div,
    finish,
    grid_size,
    thread,
)
from tcc.codegen.gpu.maps import WIDE, Threads
from tcc.codegen.index import plus, times
from tcc.codegen.lanes import from_memory
from tcc.codegen.nest import Position, read_access
from tcc.codegen.program import Access, Node, Program
from tcc.ir import dims
from tcc.ir.types import itemsize

RUNS = 16  # of a tile's row, and of its column
WORD = 4  # bytes of a bank
LONGEST = 8  # elements of a run
BLOCK = RUNS * RUNS
LEAST = 16  # elements of both axes, where they are known: less would leave most of a tile empty


def turned_kernel(program: Program) -> GpuKernel | None:
    """A program without reductions, if it turns memory and its tiles fit."""
    across = across_axis(program)
    if across is None:
        return None
    made = _Turned(program, across)
    return made.kernel() if made.shared_bytes <= SHARED else None


def across_axis(program: Program) -> int | None:
    """The axis along which operands lie dense that are walked otherwise."""
    inner = len(program.sizes) - 1
    if not any(w.strides[inner] == 1 for w in program.writes):
        return None

    def long(axis: int) -> bool:
        size = program.sizes[axis]
        return not isinstance(size, int) or size >= LEAST

    found = [a for a in range(inner) if any(_turns(r, a, inner) for r in program.reads) and long(a)]
    return found[-1] if found and long(inner) else None


def _turns(access: Access, across: int, inner: int) -> bool:
    return access.strides[across] == 1 and access.strides[inner] not in (0, 1)


class _Turned(Threads):
    def __init__(self, program: Program, across: int) -> None:
        super().__init__(program)
        self.across = across
        self.turned = [r for r in program.reads if _turns(r, across, self.inner)]
        widest = max(itemsize(a.dtype) for a in [*self.turned, *program.writes])
        self.run = min(LONGEST, WIDE // widest)
        self.side = RUNS * self.run
        self.shift = self.run.bit_length() - 1
        self.areas: dict[int, int] = {}
        self.shared_bytes = 0
        self.apart = False  # whether elements come one by one
        for access in self.turned:
            self.areas[access.slot] = self.shared_bytes
            self.shared_bytes += self.side * (
                self.side * itemsize(access.dtype) + max(WORD, itemsize(access.dtype))
            )
        self.outer = [a for a in range(self.inner) if a != across]

    def kernel(self) -> GpuKernel:
        e, sizes = self.e, self.program.sizes
        self.begin()
        self.shared = e.call("ptr", "tcc.shared")
        self.member = thread(e)
        self.low, self.high = (
            e.value(f"and i64 {self.member}, {RUNS - 1}"),
            e.value(f"lshr i64 {self.member}, 4"),
        )
        self.m, self.n = self.size(sizes[self.across]), self.size(sizes[self.inner])
        down, along = (
            e.value(f"sdiv i64 {plus(e, s, str(self.side - 1))}, {self.side}") for s in (self.m, self.n)
        )
        count = times(e, self.count(self.outer), times(e, down, along))

        def unit(u: str, _: list[str]) -> None:
            left = times(e, e.value(f"urem i64 {u}, {along}"), str(self.side))
            u = e.value(f"udiv i64 {u}, {along}")
            top = times(e, e.value(f"urem i64 {u}, {down}"), str(self.side))
            outer = self.unravel(e.value(f"udiv i64 {u}, {down}"), self.outer) if self.outer else []
            self.tile(outer, top, left)
            barrier(e)  # the next tile takes the place of this one

        e.loop(block_index(e), count, grid_size(e), unit)
        e.end()
        tiles = dims.mul(
            *(sizes[a] for a in self.outer),
            *(ceil_div(sizes[a], self.side) for a in (self.across, self.inner)),
        )
        grid = dims.minimum(tiles, MOST_BLOCKS), 1, 1
        return finish(e, "turned", self.slots.slots, grid, BLOCK, self.shared_bytes)

    def at(self, outer: Sequence[str], row: str) -> list[str]:
        return [*outer[: self.across], row, *outer[self.across :]]

    def tile(self, outer: Sequence[str], top: str, left: str) -> None:
        """All at once if it is whole and aligned, else one by one."""
        e = self.e
        self.at_point(self.at(outer, top))
        whole = "true"
        for start, end in ((top, self.m), (left, self.n)):
            inside = e.value(f"icmp sle i64 {plus(e, start, str(self.side))}, {end}")
            whole = e.value(f"and i1 {whole}, {inside}")
        for access in [*self.program.reads, *self.program.writes]:
            turned = access in self.turned
            beside = self.inner if turned else self.across
            if not turned and access.strides[self.inner] != 1:
                continue
            elem = scalar.memory_elem(access.dtype)
            first = times(e, left, self.size(access.strides[self.inner]))
            at = e.value(f"ptrtoint ptr {e.gep(self.bases[access.slot], first, elem)} to i64")
            pitch = times(e, self.size(access.strides[beside]), str(itemsize(access.dtype)))
            odd = e.value(
                f"and i64 {e.value(f'or i64 {at}, {pitch}')}, {self.run * itemsize(access.dtype) - 1}"
            )
            whole = e.value(f"and i1 {whole}, {e.value(f'icmp eq i64 {odd}, 0')}")
        quick, single, after = e.label(), e.label(), e.label()
        e.branch_if(whole, quick, single)
        e.at(quick)
        self.lanes = self.run
        for access in self.turned:
            self.turn(access, left)
        barrier(e)
        for i in range(self.run):
            self.visit(outer, top, left, plus(e, self.high, str(RUNS * i)), times(e, self.low, str(self.run)))
        self.lanes = 1
        e.branch(after)
        e.at(single)
        self.apart = True
        self.one_by_one(outer, top, left)
        self.apart = False
        e.branch(after)
        e.at(after)

    # -- shared memory -----------------------------------------------------------------------------------------------

    def place(self, access: Access, row: str, column: str) -> str:
        """The address of an element of the tile: its row's runs are permuted by the row's own number among runs, or, where elements
        come one by one, rows are a word longer."""
        e = self.e
        area = e.gep(self.shared, self.areas[access.slot])
        if self.apart:
            pitch = self.side + max(1, WORD // itemsize(access.dtype))
            return e.gep(area, plus(e, times(e, row, str(pitch)), column), scalar.memory_elem(access.dtype))
        run = e.value(f"xor i64 {self.over(column)}, {e.value(f'and i64 {self.over(row)}, {RUNS - 1}')}")
        within = e.value(f"and i64 {column}, {self.run - 1}")
        index = plus(e, times(e, row, str(self.side)), plus(e, times(e, run, str(self.run)), within))
        return e.gep(area, index, scalar.memory_elem(access.dtype))

    def over(self, number: str) -> str:
        return self.e.value(f"lshr i64 {number}, {self.shift}")

    def turn(self, access: Access, left: str) -> None:
        """This thread's square: runs along the rows' axis are read, runs along columns put down."""
        e, run = self.e, self.run
        t = VecType(scalar.memory_elem(access.dtype), run)
        row, column = times(e, self.low, str(run)), times(e, self.high, str(run))
        stride = self.size(access.strides[self.inner])
        read = []
        for j in range(run):
            at = times(e, plus(e, left, plus(e, column, str(j))), stride)
            source = e.gep(self.bases[access.slot], plus(e, at, row), t.elem)
            read.append(e.value(f"load {t}, ptr {source}, align {run * t.bytes}"))
        for i in range(run):
            made = "poison" if run > 1 else read[0]
            for j in range(run if run > 1 else 0):
                one = e.value(f"extractelement {t} {read[j]}, i64 {i}")
                made = e.value(f"insertelement {t} {made}, {t.elem} {one}, i64 {j}")
            place = self.place(access, plus(e, row, str(i)), column)
            e.line(f"store {t} {made}, ptr {place}, align {run * t.bytes}")

    def one_by_one(self, outer: Sequence[str], top: str, left: str) -> None:
        e, side = self.e, self.side
        self.at_point(self.at(outer, top))

        def each(down_first: bool, then: Callable[[str, str], None]) -> None:
            """Every element of the tile that there is; neighbouring threads go down, or along."""

            def one(k: str, _: list[str]) -> None:
                number = plus(e, k, self.member)
                fast, slow = (
                    e.value(f"and i64 {number}, {side - 1}"),
                    e.value(f"lshr i64 {number}, {self.shift + 4}"),
                )
                row, column = (fast, slow) if down_first else (slow, fast)
                inside = [
                    e.value(f"icmp slt i64 {plus(e, start, x)}, {end}")
                    for start, x, end in ((top, row, self.m), (left, column, self.n))
                ]
                e.when(e.value(f"and i1 {inside[0]}, {inside[1]}"), lambda: then(row, column))

            e.loop(0, side * side, BLOCK, one)

        def put(access: Access) -> Callable[[str, str], None]:
            base, elem = self.bases[access.slot], scalar.memory_elem(access.dtype)
            align = VecType(elem).bytes

            def copy(row: str, column: str) -> None:
                at = times(e, plus(e, left, column), self.size(access.strides[self.inner]))
                value = e.value(f"load {elem}, ptr {e.gep(base, plus(e, at, row), elem)}, align {align}")
                e.line(f"store {elem} {value}, ptr {self.place(access, row, column)}, align {align}")

            return copy

        for access in self.turned:
            each(True, put(access))
        barrier(e)
        each(False, lambda row, column: self.visit(outer, top, left, row, column))

    # -- the map -----------------------------------------------------------------------------------------------------

    def visit(self, outer: Sequence[str], top: str, left: str, row: str, column: str) -> None:
        """`self.lanes` neighbours of a row of the tile."""
        self.spot = row, column
        self.map_at(self.at(outer, plus(self.e, top, row)), Position(plus(self.e, left, column), self.lanes))

    def _varying(self, node: Node, pos: Position, get: Callable[[Node], str]) -> str:
        access = read_access(self.program, node) if node.kind == "param" else None
        if access is None or access not in self.turned:
            return super()._varying(node, pos, get)
        place = self.place(access, *self.spot)
        if pos.lanes == 1:
            return scalar.load(self.e, LANE, access.dtype, 1, place, None)
        t = VecType(scalar.memory_elem(access.dtype), pos.lanes)
        got = self.e.value(f"load {t}, ptr {place}, align {t.bytes * t.lanes}")
        return from_memory(self.e, LANE, access.dtype, pos.lanes, got)
