"""cumsum and cumprod on a GPU along an axis that lies dense: each line by a team of threads, long lines in stretches.

A thread adds up some neighbours, a warp the threads' totals by shuffles, a block the warps' in order, and a carry goes from round to
round.  A stretch starts from nothing; a second kernel adds what came before to all but the first.  Lines along other axes are
one thread's each, neighbours beside neighbours (the general form).
"""

from __future__ import annotations

from collections.abc import Sequence

from tcc.codegen import scalar
from tcc.codegen.emit import VecType
from tcc.codegen.gather import Places
from tcc.codegen.gpu.chips import LANE, WARP
from tcc.codegen.gpu.kernel import (
    MOST_BLOCKS,
    GpuKernel,
    barrier,
    block_index,
    ceil_div,
    finish,
    grid_size,
    shuffle,
    thread,
)
from tcc.codegen.gpu.maps import WIDE
from tcc.codegen.index import at_most, plus, times
from tcc.codegen.kernel import Scratch
from tcc.ir import dims
from tcc.ir.core import Op
from tcc.ir.dims import Size
from tcc.ir.types import HALVES

LONG = 256  # threads of a line's team
SHORT = 512  # most elements of a line that one warp takes
SOME = 4  # elements that a thread takes at once
STRETCH = 16384


def scans(op: Op) -> bool:
    """Whether lines are for teams."""
    axis = int(op.attrs["axis"])
    return (
        all(v.type.strides[axis] == 1 for v in op.operands)
        or dims.product([s for a, s in enumerate(op.operands[0].type.shape) if a != axis]) == 1
    )


def scan_kernels(op: Op) -> list[GpuKernel]:
    """A placed `cumsum` or `cumprod`."""
    first = _Scan(op)
    made = [first.line_kernel()]
    return made if first.stretches == 1 else [*made, _Scan(op).carry_kernel()]


class Prefix(Places):
    """A kernel whose teams add numbers of `dtype` up, or multiply them, and know what came before each."""

    team = LONG
    dtype: str
    body = "a + b"

    @property
    def t(self) -> VecType:
        return VecType(scalar.elem(self.dtype))

    @property
    def start(self) -> str:
        return self.t.const(0 if self.body == "a + b" else 1)

    def begin_team(self) -> None:
        e = self.e
        self.member = thread(e)
        if self.team == WARP:
            self.member = e.value(f"and i64 {self.member}, {WARP - 1}")
        else:
            self.shared = e.call("ptr", "tcc.shared")
        self.lane = e.value(f"and i64 {self.member}, {WARP - 1}")

    @property
    def shared_bytes(self) -> int:
        return 0 if self.team == WARP else 8 * WARP

    def combine(self, a: str, b: str) -> str:
        operands = {"a": (self.dtype, a), "b": (self.dtype, b)}
        return scalar.emit_scalar(self.e, LANE, self.body, operands, lanes=1, result=self.dtype)

    def across(self, total: str) -> tuple[str, str]:
        """The totals of the team's threads before this one, and of all."""
        e, t = self.e, self.t
        lane = e.value(f"trunc i64 {self.lane} to i32")
        for by in (1, 2, 4, 8, 16):
            from_lane = e.value(f"sub i32 {lane}, {by}")
            other = shuffle(e, t, total, "shuffle_from", from_lane)
            inside = e.value(f"icmp sge i32 {lane}, {by}")
            total = e.value(f"select i1 {inside}, {t} {self.combine(other, total)}, {t} {total}")
        previous = shuffle(e, t, total, "shuffle_from", e.value(f"sub i32 {lane}, 1"))
        before = e.value(f"select i1 {e.value(f'icmp eq i32 {lane}, 0')}, {t} {self.start}, {t} {previous}")
        whole = shuffle(e, t, total, "shuffle_from", 31)
        return (before, whole) if self.team == WARP else self.between_warps(before, whole)

    def between_warps(self, before: str, total: str) -> tuple[str, str]:
        e, elem = self.e, scalar.memory_elem(self.dtype)
        each = 8 // VecType(elem).bytes
        warp = e.value(f"lshr i64 {self.member}, 5")
        barrier(e)  # those who still read the last round's
        at = e.gep(self.shared, times(e, warp, str(each)), elem)
        first = e.value(f"icmp eq i64 {self.lane}, 0")
        e.when(first, lambda: scalar.store(e, LANE, self.dtype, 1, total, at, None))
        barrier(e)
        whole, mine = self.start, self.start
        for w in range(LONG // WARP):
            mine = e.value(
                f"select i1 {e.value(f'icmp eq i64 {warp}, {w}')}, {self.t} {whole}, {self.t} {mine}"
            )
            one = scalar.load(e, LANE, self.dtype, 1, e.gep(self.shared, w * each, elem), None)
            whole = self.combine(whole, one) if w else one
        return self.combine(mine, before), whole


class _Scan(Prefix):
    def __init__(self, op: Op) -> None:
        super().__init__(op, LANE)
        self.axis = int(op.attrs["axis"])
        self.length: Size = self.types[0].shape[self.axis]
        self.kept = [s for a, s in enumerate(self.types[0].shape) if a != self.axis]
        self.source, self.stored = self.types[0].dtype, self.types[1].dtype
        self.dtype = "f32" if self.stored in HALVES else self.stored  # of totals
        self.body = "a + b" if op.name == "cumsum" else "a * b"
        short = isinstance(self.length, int) and self.length <= SHORT
        self.team, self.block = (WARP, 128) if short else (LONG, LONG)
        # a half was rounded when it was stored, so there nothing can be added later
        whole = self.stored in HALVES or short
        self.stretches: Size = 1 if whole else dims.maximum(ceil_div(self.length, STRETCH), 1)

    def begin_scan(self) -> None:
        e = self.e
        self.begin("void @KERNEL_NAME(ptr %args)", [self.length, self.stretches, *self.kept])
        if self.stretches != 1:
            several = dims.minimum(dims.add(self.stretches, -1), 1)
            lines = dims.product(self.kept)
            self.totals = self.slots.pointer(e, Scratch(dims.mul(several, lines, self.stretches, 8)))
        self.begin_team()

    def teams(self) -> tuple[str, str]:
        e, each = self.e, self.block // self.team
        if each == 1:
            return block_index(e), grid_size(e)
        mine = e.value(f"lshr i64 {thread(e)}, 5")
        return plus(e, times(e, block_index(e), str(each)), mine), times(e, grid_size(e), str(each))

    def cast(self, value: str, dtype: str, to: str) -> str:
        if dtype == to:
            return value
        return scalar.emit_scalar(self.e, LANE, "cast(a)", {"a": (dtype, value)}, lanes=1, result=to)

    def place(self, i: int, line: Sequence[str], along: str) -> str:
        return self.address(i, [*line[: self.axis], along, *line[self.axis :]])

    # -- stretches -------------------------------------------------------------------------------------------------

    def line_kernel(self) -> GpuKernel:
        e = self.e
        self.begin_scan()
        n, stretches = self.size(self.length), self.size(self.stretches)
        first, step = self.teams()
        team = str(self.team)
        if self.team == LONG and not isinstance(self.length, int):  # the order of a known short length
            short = e.value(f"icmp sle i64 {n}, {SHORT}")
            team = e.value(f"select i1 {short}, i64 {WARP}, i64 {LONG}")

        def unit(u: str, _: list[str]) -> None:
            line, number, last, begin = u, "0", n, "0"
            if self.stretches != 1:
                line, number = e.value(f"udiv i64 {u}, {stretches}"), e.value(f"urem i64 {u}, {stretches}")
                begin = times(e, number, str(STRETCH))
                last = at_most(e, plus(e, begin, str(STRETCH)), n)
            total = self.stretch(self.unravel(line, self.kept), begin, last, team)
            if self.stretches != 1:
                several = e.value(f"icmp sgt i64 {stretches}, 1")
                mine = e.value(f"and i1 {several}, {e.value(f'icmp eq i64 {self.member}, 0')}")
                e.when(mine, lambda: scalar.store(e, LANE, self.dtype, 1, total, self.total_at(u), None))

        e.loop(first, times(e, self.count(self.kept), stretches), step, unit)
        e.end()
        units = dims.mul(*self.kept, self.stretches)
        grid = dims.minimum(ceil_div(units, self.block // self.team), MOST_BLOCKS), 1, 1
        return finish(e, "scan", self.slots.slots, grid, self.block, self.shared_bytes)

    def total_at(self, unit: str) -> str:
        elem = scalar.memory_elem(self.dtype)
        return self.e.gep(self.totals, times(self.e, unit, str(8 // VecType(elem).bytes)), elem)

    def stretch(self, line: Sequence[str], begin: str, last: str, team: str) -> str:
        """Writes the running totals of [begin, last); gives the whole."""
        e = self.e
        idle = e.value(f"icmp sge i64 {self.member}, {team}")
        offset = e.value(f"select i1 {idle}, i64 {STRETCH}, i64 {times(e, self.member, str(SOME))}")

        def turn(at: str, carry: list[str]) -> list[str]:
            own = plus(e, at, offset)
            running: list[str] = []
            total = self.start
            for value in self.read_some(line, own, last):
                total = value if not running else self.combine(total, value)
                running.append(total)
            before, whole = self.across(total)
            before = self.combine(carry[0], before)
            self.write_some(line, own, last, [self.combine(before, value) for value in running])
            return [self.combine(carry[0], whole)]

        (total,) = e.loop(begin, last, times(e, team, str(SOME)), turn, [(self.t, self.start)])
        return total

    def together(self, i: int, line: Sequence[str], own: str, last: str) -> tuple[VecType, int, str]:
        """The type of a thread's neighbours of an operand in memory, how they are aligned, and whether one access may take them."""
        e, t = self.e, VecType(scalar.memory_elem(self.types[i].dtype), SOME)
        align = min(WIDE, SOME * t.bytes)
        if self.types[i].strides[self.axis] != 1:
            return t, align, "false"
        address = e.value(f"ptrtoint ptr {self.place(i, line, own)} to i64")
        even = e.value(f"icmp eq i64 {e.value(f'and i64 {address}, {align - 1}')}, 0")
        whole = e.value(f"icmp sle i64 {plus(e, own, str(SOME))}, {last}")
        return t, align, e.value(f"and i1 {even}, {whole}")

    def read_some(self, line: Sequence[str], own: str, last: str) -> list[str]:
        """A thread's neighbours; what changes nothing where there are none."""
        e = self.e
        t, align, whole = self.together(0, line, own, last)
        quick, single, after = e.label(), e.label(), e.label()
        e.branch_if(whole, quick, single)
        e.at(quick)
        got = e.value(f"load {t}, ptr {self.place(0, line, own)}, align {align}")
        ones = [e.value(f"extractelement {t} {got}, i64 {k}") for k in range(SOME)]
        ones = [scalar.from_memory(e, LANE, self.source, 1, one) for one in ones]
        fast, fast_from = [self.cast(one, self.source, self.dtype) for one in ones], e.current
        e.branch(after)
        e.at(single)
        slow = [self.read(line, plus(e, own, str(k)), last) for k in range(SOME)]
        slow_from = e.current
        e.branch(after)
        e.at(after)
        return [e.value(f"phi {self.t} [{a}, %{fast_from}], [{b}, %{slow_from}]") for a, b in zip(fast, slow)]

    def write_some(self, line: Sequence[str], own: str, last: str, totals: Sequence[str]) -> None:
        e = self.e
        t, align, whole = self.together(1, line, own, last)

        def store() -> None:
            made = "poison"
            for k, total in enumerate(totals):
                value = self.cast(total, self.dtype, self.stored)
                one = scalar.to_memory(e, LANE, self.stored, 1, value)
                made = e.value(f"insertelement {t} {made}, {t.elem} {one}, i64 {k}")
            e.line(f"store {t} {made}, ptr {self.place(1, line, own)}, align {align}")

        def apart() -> None:
            for k, total in enumerate(totals):
                self.write(line, plus(e, own, str(k)), last, total)

        e.when(whole, store)
        e.when(e.value(f"xor i1 {whole}, true"), apart)

    def read(self, line: Sequence[str], at: str, last: str) -> str:
        e = self.e
        before, inside, after = e.current, e.label(), e.label()
        e.branch_if(e.value(f"icmp slt i64 {at}, {last}"), inside, after)
        e.at(inside)
        value = scalar.load(e, LANE, self.source, 1, self.place(0, line, at), None)
        value = self.cast(value, self.source, self.dtype)
        end = e.current
        e.branch(after)
        e.at(after)
        return e.value(f"phi {self.t} [{self.start}, %{before}], [{value}, %{end}]")

    def write(self, line: Sequence[str], at: str, last: str, total: str) -> None:
        e = self.e

        def store() -> None:
            value = self.cast(total, self.dtype, self.stored)
            scalar.store(e, LANE, self.stored, 1, value, self.place(1, line, at), None)

        e.when(e.value(f"icmp slt i64 {at}, {last}"), store)

    # -- what came before ------------------------------------------------------------------------------------------

    def carry_kernel(self) -> GpuKernel:
        """Adds the totals of the stretches before it to a stretch, which is a block's."""
        e = self.e
        self.begin_scan()
        n, stretches = self.size(self.length), self.size(self.stretches)
        later = e.value(f"sub i64 {stretches}, 1")

        def unit(u: str, _: list[str]) -> None:
            line = e.value(f"udiv i64 {u}, {later}")
            number = plus(e, e.value(f"urem i64 {u}, {later}"), "1")
            first = times(e, line, stretches)
            places = self.unravel(line, self.kept)

            def add(s: str, carry: list[str]) -> list[str]:
                one = scalar.load(e, LANE, self.dtype, 1, self.total_at(plus(e, first, s)), None)
                return [self.combine(carry[0], one)]

            (carry,) = e.loop(0, number, 1, add, [(self.t, self.start)])
            begin = times(e, number, str(STRETCH))
            last = at_most(e, plus(e, begin, str(STRETCH)), n)

            def one(at: str, _: list[str]) -> None:
                place = self.place(1, places, at)
                value = scalar.load(e, LANE, self.stored, 1, place, None)
                scalar.store(e, LANE, self.stored, 1, self.combine(carry, value), place, None)

            e.loop(plus(e, begin, self.member), last, LONG, one)

        e.loop(block_index(e), times(e, self.count(self.kept), later), grid_size(e), unit)
        e.end()
        units = dims.mul(*self.kept, dims.add(self.stretches, -1))
        return finish(
            e, "carry", self.slots.slots, (dims.minimum(units, MOST_BLOCKS), 1, 1), LONG, self.shared_bytes
        )
