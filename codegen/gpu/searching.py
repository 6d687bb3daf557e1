"""What looks for elements on a GPU: positions of those that hold, in two steps, and the first extreme of a line, by a team."""

from __future__ import annotations

from tcc.codegen import scalar
from tcc.codegen.emit import VecType
from tcc.codegen.extremes import Extremes
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
from tcc.codegen.gpu.scans import LONG, SHORT, Prefix
from tcc.codegen.index import at_most, plus, times
from tcc.codegen.kernel import Scratch
from tcc.codegen.nest import identity_value
from tcc.ir import dims
from tcc.ir.core import Op
from tcc.ir.dims import Size

STRETCH = 4096
NOWHERE = (1 << 63) - 1


def position_kernels(op: Op) -> list[GpuKernel]:
    """A placed `positions`: stretches count those that hold, then each knows where its first one goes."""
    return [_Positions(op).kernel(counts=True), _Positions(op).kernel(counts=False)]


class _Positions(Prefix):
    dtype = "i64"

    def __init__(self, op: Op) -> None:
        super().__init__(op, LANE)
        self.length = self.types[0].shape[0]
        self.stretches: Size = ceil_div(self.length, STRETCH)

    def kernel(self, *, counts: bool) -> GpuKernel:
        e = self.e
        self.begin("void @KERNEL_NAME(ptr %args)", [self.stretches])
        self.totals = self.slots.pointer(e, Scratch(dims.mul(8, self.stretches)))
        self.begin_team()
        n = self.size(self.length)

        def unit(s: str, _: list[str]) -> None:
            begin = times(e, s, str(STRETCH))
            last = at_most(e, plus(e, begin, str(STRETCH)), n)
            (self.tally if counts else self.place)(s, begin, last)

        e.loop(block_index(e), self.size(self.stretches), grid_size(e), unit)
        e.end()
        grid = dims.minimum(self.stretches, MOST_BLOCKS), 1, 1
        return finish(e, "count" if counts else "positions", self.slots.slots, grid, LONG, self.shared_bytes)

    def tally(self, s: str, begin: str, last: str) -> None:
        e = self.e

        def add(i: str, total: list[str]) -> list[str]:
            return [plus(e, total[0], e.value(f"zext i1 {self.load(0, [i])} to i64"))]

        (own,) = e.loop(plus(e, begin, self.member), last, LONG, add, [("i64", "0")])
        _, whole = self.across(own)
        first = e.value(f"icmp eq i64 {self.member}, 0")
        e.when(first, lambda: e.line(f"store i64 {whole}, ptr {e.gep(self.totals, s, 'i64')}"))

    def place(self, s: str, begin: str, last: str) -> None:
        e = self.e

        def add(i: str, total: list[str]) -> list[str]:
            return [plus(e, total[0], e.value(f"load i64, ptr {e.gep(self.totals, i, 'i64')}"))]

        (own,) = e.loop(self.member, s, LONG, add, [("i64", "0")])
        _, before = self.across(own)

        def turn(at: str, found: list[str]) -> list[str]:
            i = plus(e, at, self.member)
            start, inside, after = e.current, e.label(), e.label()
            e.branch_if(e.value(f"icmp slt i64 {i}, {last}"), inside, after)
            e.at(inside)
            there = self.load(0, [i])
            e.branch(after)
            e.at(after)
            holds = e.value(f"phi i1 [false, %{start}], [{there}, %{inside}]")
            rank, many = self.across(e.value(f"zext i1 {holds} to i64"))
            e.when(holds, lambda: self.store(1, [plus(e, found[0], rank)], i))
            return [plus(e, found[0], many)]

        e.loop(begin, last, LONG, turn, [("i64", before)])


def extreme_kernel(op: Op) -> GpuKernel:
    """A placed `argmax` or `argmin` along a dense axis."""
    return _Extreme(op).kernel()


class _Extreme(Extremes):
    def __init__(self, op: Op) -> None:
        super().__init__(op, LANE)
        length = self.t.shape[self.axis]
        self.team, self.block = (WARP, 128) if isinstance(length, int) and length <= SHORT else (LONG, LONG)
        self.value = VecType(scalar.elem(self.dtype))

    def kernel(self) -> GpuKernel:
        e = self.e
        shape = [self.t.shape[a] for a in self.kept]
        self.begin("void @KERNEL_NAME(ptr %args)")
        self.member = thread(e)
        line, step = block_index(e), grid_size(e)
        each = self.block // self.team
        if self.team == WARP:
            line = plus(e, times(e, line, str(each)), e.value(f"lshr i64 {self.member}, 5"))
            step = times(e, step, str(each))
            self.member = e.value(f"and i64 {self.member}, {WARP - 1}")
        else:
            self.shared = e.call("ptr", "tcc.shared")
        n = self.size(self.t.shape[self.axis])
        worst = self.value.const(identity_value(self.fold.how, self.dtype))

        def unit(u: str, _: list[str]) -> None:
            places = self.unravel(u, shape)

            def look(i: str, best: list[str]) -> list[str]:
                value = scalar.load(e, LANE, self.dtype, 1, self.address(0, self.at(places, i)), None)
                return list(self.best_of_two((best[0], best[1]), (value, i)))

            begun: list[tuple[VecType | str, str]] = [(self.value, worst), ("i64", str(NOWHERE))]
            value, own = e.loop(self.member, n, self.team, look, begun)
            at = self.across(value, own)[1]
            none = e.value(f"icmp eq i64 {at}, {NOWHERE}")
            index = e.value(f"select i1 {none}, i64 0, i64 {at}")
            e.when(e.value(f"icmp eq i64 {self.member}, 0"), lambda: self.store(1, places, index))

        e.loop(line, self.count(shape), step, unit)
        e.end()
        lines = dims.minimum(ceil_div(dims.product(shape), each), MOST_BLOCKS)
        bytes = 0 if self.team == WARP else 16 * (LONG // WARP)
        return finish(e, self.op.name, self.slots.slots, (lines, 1, 1), self.block, bytes)

    def best_of_two(self, a: tuple[str, str], b: tuple[str, str]) -> tuple[str, str]:
        """The better of two elements and its index: NaN above all, of equal ones the first."""
        e, t = self.e, self.value

        def beats(x: str, y: str) -> str:
            sign = ">" if self.fold.how == "max" else "<"
            operands = {"a": (self.dtype, x), "b": (self.dtype, y)}
            wins = scalar.emit_scalar(e, LANE, f"a {sign} b", operands, lanes=1, result="bool")
            if t.is_float:
                only = e.value(f"and i1 {self.is_nan(x, 1)}, {e.value(f'fcmp ord {t} {y}, {y}')}")
                wins = e.value(f"or i1 {wins}, {only}")
            return wins

        earlier = e.value(f"icmp slt i64 {b[1]}, {a[1]}")
        equal = e.value(f"xor i1 {beats(a[0], b[0])}, true")
        take = e.value(f"or i1 {beats(b[0], a[0])}, {e.value(f'and i1 {equal}, {earlier}')}")
        return e.value(f"select i1 {take}, {t} {b[0]}, {t} {a[0]}"), e.value(
            f"select i1 {take}, i64 {b[1]}, i64 {a[1]}"
        )

    def across(self, value: str, at: str) -> tuple[str, str]:  # type: ignore[override]
        """The team's best."""
        e, t = self.e, self.value
        best = value, at
        for by in (16, 8, 4, 2, 1):
            other = (
                shuffle(e, t, best[0], "shuffle_xor", by),
                shuffle(e, VecType("i64"), best[1], "shuffle_xor", by),
            )
            best = self.best_of_two(best, other)
        if self.team == WARP:
            return best
        warp = e.value(f"lshr i64 {self.member}, 5")

        def cells(number: str) -> tuple[str, str]:
            at = e.gep(self.shared, times(e, number, "16"))
            return at, e.gep(at, 8)

        def leave() -> None:
            for cell, x, kind in zip(cells(warp), best, (t, VecType("i64"))):
                e.line(f"store {kind} {x}, ptr {cell}")

        barrier(e)  # those who still read the last line's
        e.when(e.value(f"icmp eq i64 {e.value(f'and i64 {self.member}, {WARP - 1}')}, 0"), leave)
        barrier(e)
        whole: tuple[str, str] | None = None
        for w in range(LONG // WARP):
            at_value, at_index = cells(str(w))
            one = e.value(f"load {t}, ptr {at_value}"), e.value(f"load i64, ptr {at_index}")
            whole = one if whole is None else self.best_of_two(whole, one)
        assert whole is not None
        return whole
