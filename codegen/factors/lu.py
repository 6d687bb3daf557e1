"""Factors of matrices by elimination with partial pivoting, p a = l u, and solutions and determinants by them.

The transpose of the matrix lies in scratch memory, so that a column, in which pivots are looked for and which a pivot divides, is a
row there.  Some columns at a time are taken from the matrix, their rows in the order that was found so far; the columns before
take their part; then they are eliminated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from tcc.codegen.emit import VecType
from tcc.codegen.factors.triangular import Columns, Group, Substitution, Triangle
from tcc.codegen.index import plus, times
from tcc.codegen.kernel import Kernel, finish
from tcc.codegen.nest import iota
from tcc.codegen.target import Target
from tcc.codegen.vectors import load, store
from tcc.ir import dims
from tcc.ir.core import Op
from tcc.ir.dims import Size


class Elimination(Substitution):
    """Scratch memory: the factors, the order of the rows, then what a solution needs."""

    def __init__(self, op: Op, target: Target, k: Size = 0) -> None:
        super().__init__(op, target, op.operands[0].type.shape[-1], k)
        self.pitch = self.row_pitch(self.n)

    @property
    def factor_bytes(self) -> Size:
        return dims.mul(dims.mul(self.rounded(self.n), self.pitch), self.one.bytes)

    @property
    def bytes(self) -> Size:
        order = dims.mul(dims.add(self.n, 64 // 8 + self.vector.lanes), 8)
        return dims.add(dims.add(self.factor_bytes, order), self.panel_bytes)

    @property
    def sizes(self) -> list[Size]:
        return [self.pitch, self.panel_size, self.factor_bytes, self.bytes, self.panel_bytes]

    def areas(self) -> tuple[str, str, str]:
        """Of the factors, the order and the panel."""
        w, e = self.scratch(), self.e
        order = e.gep(w, self.size(self.factor_bytes))
        panel = e.gep(w, self.size(dims.sub(self.bytes, self.panel_bytes)))
        return w, order, panel

    def each(self, start: int | str, end: int | str, body: Callable[[int | str], None]) -> None:
        """A loop, or what few known rounds are."""
        if (
            isinstance(start, int)
            and isinstance(end, int)
            and isinstance(self.n, int)
            and self.n <= self.rows
        ):
            for i in range(start, end):
                body(i)
        else:
            self.e.loop(start, end, 1, lambda i, _: body(i))

    # -- factors --------------------------------------------------------------------------------------------------------

    def factor(self, a: str, w: str, order: str) -> tuple[str, str]:
        """The factors of the matrix at a, and the order of its rows.  The number of the first pivot that is 0, and the sign of the
        order, as a number of the matrix's dtype, are the values."""
        e, n = self.e, self.size(self.n)
        self.each(0, self.x.max(n, 0), lambda i: e.line(f"store i64 {i}, ptr {e.gep(order, i, 'i64')}"))
        state: list[tuple[VecType | str, str]] = [("i64", "0"), (self.one, self.one.const(1))]
        if isinstance(self.n, int) and self.n <= self.rows:
            return self.columns(a, w, order, 0, self.n, "0", self.one.const(1))

        def block(c: str, carried: list[str]) -> list[str]:
            return list(self.columns(a, w, order, c, self.rows, *carried))

        failed, sign = e.loop(0, n, self.rows, block, state)
        return failed, sign

    def columns(
        self, a: str, w: str, order: str, c: int | str, rows: int, failed: str, sign: str
    ) -> tuple[str, str]:
        """Columns from `c` on."""
        self.fetch(a, w, order, c, rows)
        if c != 0:
            self.above(w, c, rows)
            self.below(w, c, rows)
        return self.eliminated(w, order, c, rows, failed, sign)

    def row(self, w: str, number: int | str, at: int | str = 0) -> str:
        return self.at(w, (number, self.size(self.pitch)), (at, 1))

    def fetch(self, a: str, w: str, order: str, c: int | str, rows: int) -> None:
        """Columns of the matrix, as far as there are any."""
        e, ix, t, n = self.e, self.x, self.vector, self.size(self.n)
        numbers = VecType("i64", t.lanes)
        down = self.vectors.splat(numbers, str(self.stride(0, -2)))

        def part(i: int | str) -> None:
            left = ix.sub(n, i)
            mask = self.mask(t, left) if t.lanes > 1 else None
            at = load(e, numbers, e.gep(order, i, "i64"), mask)
            offsets = e.value(f"mul {numbers} {at}, {down}")
            for r in range(rows):
                column = (
                    ix.add(c, r)
                    if isinstance(self.n, int) and rows == self.n
                    else ix.min(ix.add(c, r), ix.sub(n, 1))
                )
                base = self.at(a, (column, self.stride(0, -1)))
                if t.lanes == 1:
                    value = self.number(e.gep(base, offsets, self.elem))
                else:
                    pointers = e.value(f"getelementptr {self.elem}, ptr {base}, {numbers} {offsets}")
                    value = e.call(
                        t,
                        f"llvm.masked.gather.{t.suffix}.v{t.lanes}p0",
                        (f"<{t.lanes} x ptr> align {t.bytes}", pointers),
                        (t.of("i1"), mask or self.vectors.all_lanes(t.lanes)),
                        (t, "zeroinitializer"),
                    )
                store(e, t, value, self.row(w, ix.add(c, r), i))

        if isinstance(self.n, int) and self.small(self.n, self.stride(0, -1)):
            for r, column in enumerate(self.columns_of(a, self.stride(0, -2), self.n)):
                store(e, self.piece, column, self.row(w, r))
            return
        if isinstance(self.n, int) and self.n <= self.rows:
            for i in range(0, self.n, t.lanes):
                part(i)
            return
        done: int | str = 0
        if self.stride(0, -1) == 1 and self.piece.lanes > 1:
            inside = ix.less(ix.add(c, rows - 1), n)
            done = ix.mul(ix.round_down(ix.add(n, 0), self.piece.lanes), inside)
            e.loop(0, done, self.piece.lanes, lambda i, _: self.fetch_turned(a, w, order, c, rows, i))
        e.loop(done, n, t.lanes, lambda i, _: part(i))

    def fetch_turned(self, a: str, w: str, order: str, c: int | str, rows: int, i: str) -> None:
        """Of as many rows as a piece has lanes, which are dense."""
        e, ix, t = self.e, self.x, self.piece
        numbers = [e.value(f"load i64, ptr {e.gep(order, ix.add(i, s), 'i64')}") for s in range(t.lanes)]
        for first in range(0, rows, t.lanes):
            places = [self.at(a, (number, self.stride(0, -2)), (ix.add(c, first), 1)) for number in numbers]
            for r, column in enumerate(self.turned([load(e, t, place) for place in places]), first):
                store(e, t, column, self.row(w, ix.add(c, r), i))

    def tile(self, t: VecType, w: str, c: int | str, i: int | str, rows: int, count: int) -> list[list[str]]:
        e = self.e
        return [
            [
                load(e, t, e.gep(self.row(w, self.x.add(c, r), i), v * t.lanes, self.elem))
                for v in range(count)
            ]
            for r in range(rows)
        ]

    def leave(self, t: VecType, w: str, c: int | str, i: int | str, acc: list[list[str]]) -> None:
        for r, vectors in enumerate(acc):
            for v, value in enumerate(vectors):
                at = self.e.gep(self.row(w, self.x.add(c, r), i), v * t.lanes, self.elem)
                store(self.e, t, value, at)

    def above(self, w: str, c: int | str, rows: int) -> None:
        """The part of u: solutions by l, which lie in lanes."""
        e, t, pitch = self.e, self.piece, self.size(self.pitch)

        def part(i: str, _: list[str]) -> None:
            acc = self.tile(t, w, c, i, rows, 1)
            acc = self.update(t, acc, i, self.row(w, c), pitch, 1, self.row(w, 0, i), pitch)
            for s in range(t.lanes - 1):
                factors = load(e, t, self.row(w, self.x.add(i, s), i))
                behind = ", ".join(f"i1 {str(lane > s).lower()}" for lane in range(t.lanes))
                for vectors in acc:
                    solved = self.vectors.splat(t, self.lane(t, vectors[0], s))
                    less = self.less_product(t, vectors[0], solved, factors)
                    vectors[0] = e.value(f"select {t.of('i1')} <{behind}>, {t} {less}, {t} {vectors[0]}")
            self.leave(t, w, c, i, acc)

        e.loop(0, c, t.lanes, part)

    def below(self, w: str, c: int | str, rows: int) -> None:
        """What is still to be eliminated, without the products of what is."""
        t, pitch = self.vector, self.size(self.pitch)

        def part(i: str, _: list[str]) -> None:
            acc = self.tile(t, w, c, i, rows, self.strip_vectors)
            acc = self.update(t, acc, c, self.row(w, c), pitch, 1, self.row(w, 0, i), pitch)
            self.leave(t, w, c, i, acc)

        self.e.loop(c, self.size(self.n), self.width, part)

    def eliminated(
        self, w: str, order: str, c: int | str, rows: int, failed: str, sign: str
    ) -> tuple[str, str]:
        """The block's columns one after another."""
        e, ix, one = self.e, self.x, self.one
        end = (
            rows if isinstance(self.n, int) and rows == self.n else ix.min(rows, ix.sub(self.size(self.n), c))
        )

        def column(r: int | str, failed: str, sign: str) -> tuple[str, str]:
            k = ix.add(c, r)
            p = self.largest(w, k)
            moved = e.value(f"icmp ne i64 {p}, {k}")
            e.when(moved, lambda: self.swap(w, order, k, p, ix.add(c, rows)))
            turned = e.value(f"fneg {one} {sign}")
            sign = e.value(f"select i1 {moved}, {one} {turned}, {one} {sign}")
            pivot = self.number(self.row(w, k, k))
            failed = self.first_zero(pivot, k, failed)
            self.divide(w, c, r, rows, k, pivot)
            return failed, sign

        if isinstance(end, int) and c == 0:
            for r in range(end):
                failed, sign = column(r, failed, sign)
            return failed, sign
        state: list[tuple[VecType | str, str]] = [("i64", failed), (one, sign)]
        failed, sign = e.loop(0, end, 1, lambda r, v: list(column(r, *v)), state)
        return failed, sign

    def largest(self, w: str, k: int | str) -> str:
        """Where the largest element of a column is, from its diagonal on; the first of equal ones, and NaN is none."""
        e, ix, t, n = self.e, self.x, self.vector, self.size(self.n)
        number = t.of(f"i{8 * t.bytes}")
        narrow = (
            str(k)
            if number.elem == "i64" or isinstance(k, int)
            else e.value(f"trunc i64 {k} to {number.elem}")
        )
        first = self.vectors.splat(number, narrow) if t.lanes > 1 else narrow
        if t.lanes > 1:
            each = iota(t.lanes).replace("i64", number.elem)
            first = e.value(f"add {number} {first}, {each}")
        step = number.const(t.lanes)

        def part(i: int | str, best: str, at: str, here: str) -> list[str]:
            left = ix.sub(n, i)
            mask = self.mask(t, left) or (self.vectors.all_lanes(t.lanes))
            value = load(e, t, self.row(w, k, i))
            size = e.call(t, f"llvm.fabs.{t.suffix}", (t, value))
            more = e.value(f"fcmp ogt {t} {size}, {best}")
            more = e.value(f"and {t.of('i1')} {more}, {mask}")
            return [
                e.value(f"select {t.of('i1')} {more}, {t} {size}, {t} {best}"),
                e.value(f"select {t.of('i1')} {more}, {number} {here}, {number} {at}"),
                e.value(f"add {number} {here}, {step}"),
            ]

        none = t.const(-1)
        base = self.vectors.splat(number, narrow)
        if isinstance(k, int) and isinstance(self.n, int):
            best, at, here = none, base, first
            for i in range(k, self.n, t.lanes):
                best, at, here = part(i, best, at, here)
        else:
            best, at, _ = e.loop(
                k, n, t.lanes, lambda i, v: part(i, *v), [(t, none), (number, base), (number, first)]
            )
        if t.lanes > 1:
            most = e.call(self.one, f"llvm.vector.reduce.fmax.{t.suffix}", (t, best))
            equal = e.value(f"fcmp oeq {t} {best}, {self.vectors.splat(t, most)}")
            far = number.const((1 << (8 * t.bytes - 1)) - 1)
            at = e.value(f"select {t.of('i1')} {equal}, {number} {at}, {number} {far}")
            at = e.call(number.elem, f"llvm.vector.reduce.smin.{number.suffix}", (number, at))
        return at if number.elem == "i64" else e.value(f"zext {number.elem} {at} to i64")

    def swap(self, w: str, order: str, k: int | str, p: str, rows: int | str) -> None:
        """Rows k and p of the matrix, in its first columns, and in the order."""
        e = self.e

        def pair(t: str, a: str, b: str) -> None:
            first, second = e.value(f"load {t}, ptr {a}"), e.value(f"load {t}, ptr {b}")
            e.line(f"store {t} {second}, ptr {a}")
            e.line(f"store {t} {first}, ptr {b}")

        self.each(0, rows, lambda r: pair(str(self.one), self.row(w, r, k), self.row(w, r, p)))
        pair("i64", e.gep(order, k, "i64"), e.gep(order, p, "i64"))

    def divide(self, w: str, c: int | str, r: int | str, rows: int, k: int | str, pivot: str) -> None:
        """A column by its pivot, which its products then take part of those behind it.  Behind a pivot of 0 are zeros alone."""
        e, ix, t, one = self.e, self.x, self.vector, self.one
        zero = e.value(f"fcmp oeq {one} {pivot}, {one.const(0)}")
        # of a pivot whose reciprocal is infinite that of a multiple is taken, and as many times what it divides
        size = e.call(one, f"llvm.fabs.{one.suffix}", (one, pivot))
        least, factor = (2.0**-120, 2.0**60) if self.elem == "float" else (2.0**-1000, 2.0**500)
        low = e.value(f"fcmp olt {one} {size}, {one.const(least)}")
        rise = e.value(f"select i1 {low}, {one} {one.const(factor)}, {one} {one.const(1)}")
        raised = self.reciprocal(e.value(f"fmul {one} {pivot}, {rise}"))
        scale = e.value(f"select i1 {zero}, {one} {one.const(1)}, {one} {raised}")
        scales, rises = self.vectors.splat(t, scale), self.vectors.splat(t, rise)
        start, n = ix.add(k, 1), self.size(self.n)

        def part(i: int | str) -> None:
            at = self.row(w, k, i)
            risen = e.value(f"fmul {t} {load(e, t, at)}, {rises}")
            factors = e.value(f"fmul {t} {risen}, {scales}")
            store(e, t, factors, at)

            def other(s: int | str) -> None:
                taken = self.spread(t, self.row(w, ix.add(c, s), k))
                place = self.row(w, ix.add(c, s), i)
                store(e, t, self.less_product(t, load(e, t, place), taken, factors), place)

            self.each(ix.add(r, 1), rows, other)

        if isinstance(start, int) and isinstance(self.n, int):
            for i in range(start, self.n, t.lanes):
                part(i)
        else:
            e.loop(start, n, t.lanes, lambda i, _: part(i))

    # -- solutions ------------------------------------------------------------------------------------------------------

    def solve_group(self, w: str, order: str, systems: Sequence[str], group: Group) -> None:
        """u x = l \\ (b in the order of the rows)."""
        pitch, last = self.size(self.pitch), self.x.sub(self.size(self.n), 1)
        b, x = (Columns(systems[i], self.stride(i, -2), self.types[i].strides[-1]) for i in (1, 2))
        self.solve(Triangle(w, 1, pitch, unit=True), replace(b, order=order), x, group)
        corner = self.at(w, (last, pitch), (last, 1))
        ends = replace(x, base=self.at(x.base, (last, x.row)), row=self.x.sub(0, x.row))
        self.solve(Triangle(corner, -1, self.x.sub(0, pitch)), ends, ends, group)


def lu_solve_kernel(op: Op, target: Target) -> Kernel:
    """`lu_solve a, b, x, failed`."""
    k = op.operands[1].type.shape[-1]
    w = Elimination(op, target, k)
    e = w.e
    batch = op.operands[0].type.shape[:-2]
    w.begin_body(w.sizes)

    def unit(number: str, _: list[str]) -> None:
        at = w.unravel(number, batch)
        systems = [w.matrix(i, at) for i in (0, 1, 2)]
        factors, order, panel = w.areas()
        failed = w.factor(systems[0], factors, order)[0]

        def solve(number: str, _: list[str]) -> None:
            w.solve_group(factors, order, systems, w.group(number, panel))

        e.loop(0, w.groups(), 1, solve)
        w.store(3, at, failed)

    e.loop("%begin", "%end", 1, unit)
    e.end()
    w.begin_kernel(w.sizes)
    square = times(e, w.size(w.n), w.size(w.n))
    cost = times(e, square, plus(e, w.size(w.n), w.size(k)))
    w.parallel(w.count(batch), plus(e, cost, times(e, w.size(w.n), "2000")))
    e.end("i32 0")
    return finish(e, tuple(w.slots.slots), op.name, w.bytes)


def lu_pivots_kernel(op: Op, target: Target) -> Kernel:
    """`lu_pivots x, pivots, failed`."""
    w = Elimination(op, target)
    e = w.e
    batch = op.operands[0].type.shape[:-2]
    w.begin_body(w.sizes)

    def unit(number: str, _: list[str]) -> None:
        at = w.unravel(number, batch)
        factors, order = w.areas()[:2]
        failed, sign = w.factor(w.matrix(0, at), factors, order)

        def pivot(i: int | str) -> None:
            value = w.number(w.row(factors, i, i))
            first = e.value(f"icmp eq i64 {i}, 0")
            signed = e.value(f"fmul {w.one} {value}, {sign}")
            w.store(1, [*at, str(i)], e.value(f"select i1 {first}, {w.one} {signed}, {w.one} {value}"))

        w.each(0, w.x.max(w.size(w.n), 0), pivot)
        w.store(2, at, failed)

    e.loop("%begin", "%end", 1, unit)
    e.end()
    w.begin_kernel(w.sizes)
    n = w.size(w.n)
    w.parallel(w.count(batch), plus(e, times(e, times(e, n, n), n), times(e, n, "2000")))
    e.end("i32 0")
    return finish(e, tuple(w.slots.slots), op.name, w.bytes)
