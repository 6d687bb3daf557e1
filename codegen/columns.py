"""Reductions over outer axes with the inner axis kept, such as the sum of a matrix over its rows.

Each unit of work is a strip of the inner axis whose accumulators stay in registers while the outer axes go by in order.
float32 is added up in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tcc.codegen.index import plus, times
from tcc.codegen.kernel import Kernel, finish
from tcc.codegen.nest import Fold, Memo, Nest, Position, read_access
from tcc.codegen.program import Node, Program
from tcc.codegen.target import Target

ROWS_AHEAD = 16  # the hardware does not follow strides of pages


def column_kernel(program: Program, target: Target) -> Kernel:
    """The kernel of a program that keeps its inner axis and reduces outer ones."""
    return _Columns(program, target).kernel()


class _Columns(Nest):
    def __init__(self, program: Program, target: Target) -> None:
        super().__init__(program, target)
        axes = range(self.inner)
        self.kept = [a for a in axes if not program.reduced[a]]
        self.summed = [a for a in axes if program.reduced[a]]
        self.ways = 4 if self.light else 1
        n = program.sizes[self.inner]
        if self.light and target.avx512 and self.far() and isinstance(n, int) and n >= 16 * self.lanes:
            self.ways = 8  # fewer, longer runs of memory, where there are registers for them
        pairs = list(zip(program.results, program.writes, strict=True))
        self.reduces = [(n, w) for n, w in pairs if w.reduce]
        self.maps = [(n, w) for n, w in pairs if not w.reduce]
        self.folds = [Fold(w.reduce, w.dtype) for _, w in self.reduces]

    def kernel(self) -> Kernel:
        e = self.e
        strip = self.lanes * self.ways
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
            whole = e.value(f"icmp sle i64 {end}, {n}")
            inside, rest, after = e.label(), e.label(), e.label()
            e.branch_if(whole, inside, rest)
            e.at(inside)
            self.strip(
                kept, [Position(plus(e, start, str(w * self.lanes)), self.lanes) for w in range(self.ways)]
            )
            e.branch(after)
            e.at(rest)
            e.loop(
                start,
                n,
                self.lanes,
                lambda at, _: self.strip(kept, [Position(at, self.lanes, self.tail_mask(at, n))]),
            )
            e.branch(after)
            e.at(after)

        e.loop("%begin", "%end", 1, body)
        e.end()
        self.begin_kernel()
        strips = self.strips(self.size(self.program.sizes[self.inner]))
        cost = times(e, self.count(self.summed), str(strip * self.element_cost))
        self.parallel(times(e, self.count(self.kept), strips), cost)
        e.end("i32 0")
        return finish(e, tuple(self.slots.slots), "columns")

    def strips(self, n: str) -> str:
        strip = self.lanes * self.ways
        return self.e.value(f"sdiv i64 {self.e.value(f'add i64 {n}, {strip - 1}')}, {strip}")

    def strip(self, kept: Sequence[str], positions: list[Position]) -> None:
        """All reduced axes for some neighbouring vectors of the inner axis."""
        e = self.e
        count = len(self.folds)
        types = [f.total_type(self.lanes) for f in self.folds] * len(positions)
        totals = [f.identity(self.lanes) for f in self.folds] * len(positions)

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
                value = self.folds[k].narrow(e, self.target, totals[w * count + k], self.lanes)
                self.store(access.dtype, value, base, access.strides[self.inner], pos)

    def _varying(self, node: Node, pos: Position, get: Callable[[Node], str]) -> str:
        if node.kind == "param" and not pos.mask and self.far():
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
