"""Kernels over windows: the max or sum of each, and what each element gets back from the windows that hold it.

Both directions take a row of the result at a time, in vectors along the last axis.  Forward a vector is as many windows:
with stride 2 to 4 the elements at one place of each are shuffled out of whole vectors, which serve all places; windows
that reach over an end are taken one at a time.  Backward a vector of windows is spread over `stride` vectors of elements,
so each element visits its windows itself, in order, and nothing is scattered.  Threads split the result's rows; on a
GPU (`single`) each takes an element, so that neighbours meet the same memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import NamedTuple

from tcc.codegen import scalar
from tcc.codegen.emit import VecType, constant_mask, is_number
from tcc.codegen.gather import Places
from tcc.codegen.index import at_least, at_most, plus, times
from tcc.codegen.kernel import Kernel
from tcc.codegen.nest import Fold, Position, Vectors
from tcc.codegen.target import Target
from tcc.ir.core import Op
from tcc.ir.dims import Size
from tcc.ir.types import Type

SHUFFLED = 4  # the largest stride of which vectors are shuffled apart; beyond it elements are gathered
SPREAD = 8  # the largest stride at which a vector of windows is spread over its elements
UNROLLED = 4  # places of a window along its outer axes that stand in the text one by one


Visit = Callable[[list[str], list[str]], list[str]]  # addresses of rows, totals -> the next ones


class Axis(NamedTuple):
    """One axis that windows move along: elements, windows, and their geometry."""

    elements: Size
    windows: Size
    ws: int
    stride: int
    pad: int

    @property
    def whole(self) -> bool:
        """Whether each window certainly lies within the elements."""
        fits = isinstance(self.elements, int) and isinstance(self.windows, int)
        return self.pad == 0 and fits and (self.windows - 1) * self.stride + self.ws <= self.elements  # type: ignore[operator]

    @property
    def reach(self) -> int:
        """The most windows that hold one element."""
        return -(-self.ws // self.stride)


class Row(NamedTuple):
    """A row of the result: its indices; of the rows that are read for it, along each outer axis, where places begin and
    which of them there are; how many elements and windows a row has."""

    at: list[str]
    starts: list[str]
    ranges: list[tuple[str, str]]
    elements: str
    windows: str


class Pooling:
    """A kernel being written; operand `elements` has the elements' shape, operand `windows` the windows'.  Operands `read` are folded."""

    fold: Fold
    read: Sequence[int]
    out: int

    def __init__(self, op: Op, target: Target, elements: int, windows: int, single: bool) -> None:
        self.op, self.target, self.single = op, target, single
        self.w = Places(op, target)
        self.e = self.w.e
        rank = len(op.attrs["ws"])
        self.w.types = merged(self.w.types, rank)
        types = self.w.types
        self.lead = list(types[elements].shape[: types[elements].rank - rank])
        geometry = zip(op.attrs["ws"], op.attrs["stride"], op.attrs["pad"])
        sizes = zip(types[elements].shape[-rank:], types[windows].shape[-rank:])
        *self.outer, self.inner = [Axis(n, o, *g) for (n, o), g in zip(sizes, geometry)]
        self.dtype = types[elements].dtype
        self.lanes = target.vector(scalar.elem(self.dtype)).lanes
        if isinstance(self.inner.windows, int):  # short rows take shorter vectors
            while self.lanes > 2 and self.lanes // 2 >= self.inner.windows:
                self.lanes //= 2
        self.vectors = Vectors(self.e, target, str)

    def kernel(self, rows: Sequence[Size], cost: int, unit: Callable[[list[str], str], None]) -> Kernel:
        """`unit` writes the row at indices of shape `rows`, or one element of it; `cost` is that of a window or element."""
        e, w = self.e, self.w
        length = w.types[-1].shape[-1]
        units = [*rows, length] if self.single else rows
        w.begin_body()
        self.vectors.size = w.size

        def one(u: str, _: list[str]) -> None:
            at = w.unravel(u, units)
            unit(at[: len(rows)], at[-1] if self.single else "")

        e.loop("%begin", "%end", 1, one)
        e.end()
        w.begin_kernel()
        w.parallel(w.count(units), str(cost) if self.single else times(e, w.size(length), str(cost)))
        e.end("i32 0")
        return w.finish(self.op.name)

    # -- small texts ----------------------------------------------------------------------------------------------

    def minus(self, a: str, b: str) -> str:
        if is_number(b):
            return plus(self.e, a, str(-int(b)))
        return self.e.value(f"sub i64 {a}, {b}")

    def over(self, a: str, by: int) -> str:
        """a // by, where a is not negative."""
        if by == 1 or is_number(a):
            return a if by == 1 else str(int(a) // by)
        return self.e.value(f"udiv i64 {a}, {by}")

    def body(self, text: str, lanes: int, **operands: str) -> str:
        named = {k: (self.dtype, v) for k, v in operands.items()}
        return scalar.emit_scalar(self.e, self.target, text, named, lanes=lanes, result=self.dtype)

    def within(self, start: str, n: str) -> str:
        """Which lanes from `start` on lie in 0 .. n - 1; "" if all do."""
        if is_number(start) and is_number(n):
            live = [0 <= int(start) + lane < int(n) for lane in range(self.lanes)]
            return "" if all(live) else constant_mask(live)
        t = VecType("i64", self.lanes)
        index = self.vectors.lane_index(Position(start, self.lanes))
        # as unsigned numbers, those below 0 are large
        return self.e.value(f"icmp ult {t} {index}, {self.vectors.splat(t, n)}")

    def strips(self, start: str, stop: str, emit: Callable[[str], None]) -> None:
        """`emit` for every vector of [start, stop); a few known ones one by one, so that their masks are constants."""
        if is_number(start) and is_number(stop) and int(stop) - int(start) <= UNROLLED * self.lanes:
            for o in range(int(start), int(stop), self.lanes):
                emit(str(o))
            return
        self.e.loop(start, stop, self.lanes, lambda o, _: emit(o))

    def totals(self, row: Row, lanes: int, count: int, visit: Visit) -> list[str]:
        """`count` vectors of totals, to which `visit` adds what each of the rows that are read brings, of addresses of these."""
        e, types, lead = self.e, [self.fold.total_type(lanes)] * count, row.at[: len(self.lead)]

        def nest(depth: int, at: list[str], now: list[str]) -> list[str]:
            if depth == len(row.ranges):
                where = [*lead, *(plus(e, s, t) for s, t in zip(row.starts, at)), "0"]
                return visit([self.w.address(i, where) for i in self.read], now)
            start, stop = row.ranges[depth]
            if is_number(start) and is_number(stop) and int(stop) - int(start) <= UNROLLED:
                for i in range(int(start), int(stop)):
                    now = nest(depth + 1, [*at, str(i)], now)
                return now
            inner = list(zip(types, now))
            return e.loop(start, stop, 1, lambda i, v: nest(depth + 1, [*at, i], v), inner)

        return nest(0, [], [self.fold.identity(lanes)] * count)

    def load(self, operand: int, base: str, spot: Position) -> str:
        """What lies at `spot` of the row at `base`."""
        return self.vectors.load(self.dtype, base, self.w.types[operand].strides[-1], spot)

    def parts(self, bases: Sequence[str], spot: Position) -> list[str]:
        return [self.load(operand, base, spot) for operand, base in zip(self.read, bases)]

    def store(self, base: str, spot: Position, value: str) -> None:
        self.vectors.store(self.dtype, value, base, self.w.types[self.out].strides[-1], spot)


# -- forward ---------------------------------------------------------------------------------------------------------


def pool_kernel(op: Op, target: Target, single: bool = False) -> Kernel:
    """y[o] = max or sum over the window of x."""
    return Forward(op, target, Fold(op.attrs["mode"], op.operands[0].type.dtype), (0,), single).write()


def max_pool_pick_kernel(op: Op, target: Target, single: bool = False) -> Kernel:
    """out[o] = sum over the window of v where x == y[o]."""
    return Forward(op, target, Fold("sum", op.operands[0].type.dtype), (0, 2), single).write()


class Forward(Pooling):
    """`read` are the operands of which each window's elements are taken; with two of them a third, y, selects."""

    def __init__(self, op: Op, target: Target, fold: Fold, read: tuple[int, ...], single: bool) -> None:
        self.out = len(op.operands) - 1
        super().__init__(op, target, 0, self.out, single)
        self.fold, self.read = fold, read

    def write(self) -> Kernel:
        rows = [*self.lead, *(a.windows for a in self.outer)]
        return self.kernel(rows, 2 * prod(self.op.attrs["ws"]) * len(self.read) + 4, self.row)

    def row(self, at: list[str], single: str) -> None:
        """The row, or its window `single`."""
        e, a, w, lanes = self.e, self.inner, self.w, self.lanes
        places = [self.places(axis, o) for axis, o in zip(self.outer, at[len(self.lead) :])]
        starts, ranges = [start for start, _, _ in places], [(low, high) for _, low, high in places]
        row = Row(at, starts, ranges, w.size(a.elements), w.size(a.windows))
        if single:
            self.one(row, single)
            return
        low, high = self.fitting(row)
        if not a.whole:
            e.loop("0", low, 1, lambda o, _: self.one(row, o))
        middle = self.unmasked(row, low, high)
        self.strips(low, middle, lambda o: self.vector(row, Position(o, lanes), True))
        self.strips(middle, high, lambda o: self.vector(row, Position(o, lanes, self.within(o, high)), False))
        if not a.whole:
            e.loop(high, row.windows, 1, lambda o, _: self.one(row, o))

    def fitting(self, row: Row) -> tuple[str, str]:
        """The windows that lie within the row of elements: from, to before."""
        e, a = self.e, self.inner
        if a.whole:
            return "0", row.windows
        low = at_most(e, self.over(str(a.pad + a.stride - 1), a.stride), row.windows)
        ends = self.over(at_least(e, plus(e, row.elements, str(a.pad - a.ws + a.stride)), "0"), a.stride)
        return low, at_least(e, low, at_most(e, row.windows, ends))

    def unmasked(self, row: Row, low: str, high: str) -> str:
        """To where from `low` on whole vectors of windows read whole vectors of elements."""
        e, a, lanes = self.e, self.inner, self.lanes
        whole_loads = self.over(plus(e, row.elements, str(a.pad)), a.stride)
        last = at_most(e, high, plus(e, whole_loads, str(1 - a.reach)))
        count = at_least(e, self.minus(last, low), "0")
        count = str(int(count) & -lanes) if is_number(count) else e.value(f"and i64 {count}, {-lanes}")
        return plus(e, low, count)

    def vector(self, row: Row, pos: Position, full: bool) -> None:
        """The windows of `pos`, all of whose places lie within the row."""
        y = self.chosen(row, pos)
        self.write_windows(row, pos, lambda bases, now: [self.taps(bases, now[0], pos, full, y)])

    def one(self, row: Row, o: str) -> None:
        """A window that may reach over the row's ends."""
        e, pos = self.e, Position(o, 1)
        y = self.chosen(row, pos)
        start, low, high = self.places(self.inner, o)

        def visit(bases: list[str], now: list[str]) -> list[str]:
            def step(t: str, total: list[str]) -> list[str]:
                parts = self.parts(bases, Position(plus(e, start, t), 1))
                return [self.fold.add(e, self.target, total[0], self.element(parts, y, 1), 1)]

            return e.loop(low, high, 1, step, [(self.fold.total_type(1), now[0])])

        self.write_windows(row, pos, visit)

    def chosen(self, row: Row, pos: Position) -> str:
        """The windows' own values, if they select."""
        return self.load(1, self.w.address(1, [*row.at, "0"]), pos) if len(self.read) > 1 else ""

    def write_windows(self, row: Row, pos: Position, visit: Visit) -> None:
        (total,) = self.totals(row, pos.lanes, 1, visit)
        value = self.fold.narrow(self.e, self.target, total, pos.lanes)
        self.store(self.w.address(self.out, [*row.at, "0"]), pos, value)

    def places(self, axis: Axis, o: str) -> tuple[str, str, str]:
        """Where window `o` starts, and which of its places lie within the axis."""
        e = self.e
        start = plus(e, times(e, o, str(axis.stride)), str(-axis.pad))
        if axis.whole:
            return start, "0", str(axis.ws)
        low = at_least(self.e, "0", e.value(f"sub i64 0, {start}")) if axis.pad else "0"
        return start, low, at_most(self.e, str(axis.ws), self.minus(self.w.size(axis.elements), start))

    def element(self, parts: Sequence[str], y: str, lanes: int) -> str:
        if len(parts) == 1:
            return parts[0]
        return self.body("where(x == y, v, 0)", lanes, x=parts[0], y=y, v=parts[1])

    def taps(self, bases: list[str], total: str, pos: Position, full: bool, y: str) -> str:
        """The windows of `pos` along one row: their places in order, `stride` of them from the same vectors."""
        e, a = self.e, self.inner
        for group in range(a.reach):
            first = plus(e, times(e, pos.offset, str(a.stride)), str(group * a.stride - a.pad))
            parts = [self.apart(i, b, first, pos, full) for i, b in zip(self.read, bases)]
            for place in range(min(a.stride, a.ws - group * a.stride)):
                value = self.element([p(place) for p in parts], y, pos.lanes)
                total = self.fold.add(e, self.target, total, value, pos.lanes)
        return total

    def apart(self, i: int, base: str, first: str, pos: Position, full: bool) -> Callable[[int], str]:
        """For k < stride the vector of the elements first + k, first + k + stride, ... of operand `i`'s row."""
        e, a, lanes = self.e, self.inner, pos.lanes
        stride, elem = self.w.types[i].strides[-1], scalar.memory_elem(self.dtype)
        if stride != 1 or not 1 < a.stride <= SHUFFLED or lanes == 1:

            def gathered(k: int) -> str:
                at = times(e, plus(e, first, str(k)), self.w.size(stride))
                spot = Position("0", lanes, pos.mask)
                return self.vectors.load(self.dtype, e.gep(base, at, elem), stride * a.stride, spot)

            return gathered
        whole = []
        n = self.w.size(a.elements)
        for v in range(a.stride):
            at = plus(e, first, str(v * lanes))
            spot = Position(at, lanes, "" if full else self.within(at, n))
            whole.append(self.vectors.load(self.dtype, base, 1, spot))
        return lambda k: self.pick(whole, k)

    def pick(self, whole: list[str], k: int) -> str:
        """Elements k, k + stride, ... of the vectors one after the other."""
        e, lanes, stride = self.e, self.lanes, len(whole)
        t = VecType(scalar.elem(self.dtype), lanes)
        made = whole[0]
        for v in range(1, stride):
            # lanes below `done` are right already, in order; this vector brings the next ones
            order = []
            for lane in range(lanes):
                source = k + lane * stride
                if source // lanes < v:
                    order.append(source if v == 1 else lane)
                elif source // lanes == v:
                    order.append(lanes + source % lanes)
                else:
                    order.append(0)
            indices = ", ".join(f"i32 {i}" for i in order)
            made = e.value(f"shufflevector {t} {made}, {t} {whole[v]}, <{lanes} x i32> <{indices}>")
        return made


# -- backward --------------------------------------------------------------------------------------------------------


class Backward(Pooling):
    """Operand `g` is what comes back; with `selects` operands 0 and 1 are the elements and the windows' maxima."""

    def __init__(self, op: Op, target: Target, g: int, selects: bool, single: bool) -> None:
        self.out, self.selects = len(op.operands) - 1, selects
        super().__init__(op, target, self.out, g, single)
        self.fold, self.read = Fold("sum", self.dtype), [1, g] if selects else [g]
        if self.inner.stride > SPREAD:
            self.lanes = 1

    def write(self) -> Kernel:
        rows = [*self.lead, *(a.elements for a in self.outer)]
        reach = prod(a.reach for a in [*self.outer, self.inner])
        return self.kernel(rows, 4 * reach + 6, self.row)

    def row(self, at: list[str], single: str) -> None:
        """The row, or its element `single`."""
        a, w = self.inner, self.w
        ranges = [self.holders(axis, i) for axis, i in zip(self.outer, at[len(self.lead) :])]
        row = Row(at, ["0"] * len(ranges), ranges, w.size(a.elements), w.size(a.windows))
        if single:
            self.one(row, single)
        elif a.stride > SPREAD:
            self.e.loop("0", row.elements, 1, lambda i, _: self.one(row, i))
        else:
            self.vectors_of(row)

    def vectors_of(self, row: Row) -> None:
        """The row, masked near its ends."""
        e, a, lanes = self.e, self.inner, self.lanes
        limit = at_most(e, row.windows, self.over(plus(e, row.elements, str(a.pad)), a.stride))
        early = max(a.reach - 1, -(-a.pad // a.stride))

        def either(o: str) -> None:
            if is_number(o) and is_number(limit):
                self.strip(row, o, not early <= int(o) <= int(limit) - lanes)
                return
            end = plus(e, o, str(lanes))
            fits = e.value(f"icmp sle i64 {end}, {limit}")
            if early:
                fits = e.value(f"and i1 {fits}, {e.value(f'icmp sge i64 {o}, {early}')}")
            inside, edge, after = e.label(), e.label(), e.label()
            e.branch_if(fits, inside, edge)
            e.at(inside)
            self.strip(row, o, False)
            e.branch(after)
            e.at(edge)
            self.strip(row, o, True)
            e.branch(after)
            e.at(after)

        end = self.over(plus(e, row.elements, str(a.pad + a.stride - 1)), a.stride)
        self.strips("0", end, either)

    def strip(self, row: Row, o: str, masked: bool) -> None:
        """The elements from that at which window `o` starts to that at which window `o + lanes` does."""
        e, a, w, lanes = self.e, self.inner, self.w, self.lanes
        first = plus(e, times(e, o, str(a.stride)), str(-a.pad))
        spots = []
        for v in range(a.stride):
            start = plus(e, first, str(v * lanes))
            spots.append(Position(start, lanes, self.within(start, row.elements) if masked else ""))
        xs = self.elements(row.at, spots)

        def visit(bases: list[str], totals: list[str]) -> list[str]:
            for k in range(a.reach):
                start = plus(e, o, str(-k))
                live = self.within(start, row.windows) if masked else ""
                parts = self.parts(bases, Position(start, lanes, live))
                totals = [self.spread(v, k, parts, xs, total) for v, total in enumerate(totals)]
            return totals

        totals = self.totals(row, lanes, a.stride, visit)
        base = w.address(self.out, [*row.at, "0"])
        for spot, total in zip(spots, totals):
            self.store(base, spot, self.fold.narrow(e, self.target, total, lanes))

    def one(self, row: Row, i: str) -> None:
        """One element, for strides at which windows are too far apart for vectors of them."""
        e, spot = self.e, Position(i, 1)
        (x,) = self.elements(row.at, [spot]) or [""]
        low, high = self.holders(self.inner, i)

        def visit(bases: list[str], totals: list[str]) -> list[str]:
            def step(o: str, now: list[str]) -> list[str]:
                value = self.element(x, self.parts(bases, Position(o, 1)), 1)
                return [self.fold.add(e, self.target, now[0], value, 1)]

            return e.loop(low, high, 1, step, [(self.fold.total_type(1), totals[0])])

        (total,) = self.totals(row, 1, 1, visit)
        base = self.w.address(self.out, [*row.at, "0"])
        self.store(base, spot, self.fold.narrow(e, self.target, total, 1))

    def elements(self, at: list[str], spots: Sequence[Position]) -> list[str]:
        """The elements of x there, if they select."""
        if not self.selects:
            return []
        base, stride = self.w.address(0, [*at, "0"]), self.w.types[0].strides[-1]
        return [self.vectors.load(self.dtype, base, stride, s) for s in spots]

    def holders(self, axis: Axis, i: str) -> tuple[str, str]:
        """The windows that hold element `i`: from, to before."""
        e = self.e
        low = self.over(at_least(self.e, plus(e, i, str(axis.pad - axis.ws + axis.stride)), "0"), axis.stride)
        last = self.over(plus(e, i, str(axis.pad)), axis.stride)
        return low, at_most(self.e, plus(e, last, "1"), self.w.size(axis.windows))

    def spread(self, v: int, k: int, parts: Sequence[str], xs: Sequence[str], total: str) -> str:
        """Adds to the v-th vector of elements what the k-th last window that holds each brings."""
        e, a, lanes = self.e, self.inner, self.lanes
        t = VecType(scalar.elem(self.dtype), lanes)
        sources = [divmod(v * lanes + lane, a.stride) for lane in range(lanes)]
        held = [place + k * a.stride < a.ws for _, place in sources]
        if not any(held):
            return total
        if a.stride > 1 and lanes > 1:
            order = ", ".join(f"i32 {o}" for o, _ in sources)
            parts = [e.value(f"shufflevector {t} {p}, {t} poison, <{lanes} x i32> <{order}>") for p in parts]
        value = self.element(xs[v] if xs else "", parts, lanes)
        if not all(held):
            value = e.value(f"select <{lanes} x i1> {constant_mask(held)}, {t} {value}, {t} {t.const(0)}")
        return self.fold.add(e, self.target, total, value, lanes)

    def element(self, x: str, parts: Sequence[str], lanes: int) -> str:
        if not self.selects:
            return parts[0]
        return self.body("where(x == y, g, 0)", lanes, x=x, y=parts[0], g=parts[1])


def merged(types: Sequence[Type], rank: int) -> list[Type]:
    """The types with those neighbouring axes before the last `rank` as one that every operand walks as one."""
    groups: list[list[int]] = []
    for axis in range(types[0].rank - rank):
        before = groups[-1][-1] if groups else -1
        if groups and all(t.strides[before] == t.shape[axis] * t.strides[axis] for t in types):
            groups[-1].append(axis)
        else:
            groups.append([axis])
    out = []
    for t in types:
        assert t.place is not None
        shape, strides = list(t.shape[t.rank - rank :]), list(t.strides[t.rank - rank :])
        for group in reversed(groups):
            size: Size = 1
            for axis in group:
                size = size * t.shape[axis]
            shape.insert(0, size)
            strides.insert(0, t.strides[group[-1]])
        out.append(Type(t.dtype, tuple(shape)).at(t.place.space, tuple(strides)))
    return out
