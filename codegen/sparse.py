"""Products with matrices in compressed rows.

Elements of a row are taken in their order, what they meet of a dense matrix in vectors of neighbouring columns.  Where that is one
column, or what is added up lies along a row, a few sums, or a vector of them, take turns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tcc.codegen import scalar
from tcc.codegen.emit import VecType
from tcc.codegen.gather import Places
from tcc.codegen.index import Index, at_most, plus, times
from tcc.codegen.kernel import Kernel
from tcc.codegen.nest import Fold
from tcc.codegen.target import Target
from tcc.codegen.vectors import each_vector, lane_mask, splat
from tcc.ir.core import Op
from tcc.ir.dims import Size
from tcc.ir.types import FLOATS, HALVES

TURNS = 4  # sums that take turns where a row meets one column
STRIP = 4  # vectors of columns that a row meets at a time
ROW, TERM = 64, 24  # sixteenths of a cycle: of a row, and of an element of it and a vector


class Compressed(Places):
    """A kernel over a matrix whose indices are operand number `indices`, followed by its indptr, and dense ones."""

    def __init__(self, op: Op, target: Target, indices: int, dense: Sequence[int]) -> None:
        super().__init__(op, target)
        self.indices, self.dtype = indices, self.types[-1].dtype
        self.total = "f32" if self.dtype in HALVES else self.dtype
        self.elem, self.memory = scalar.elem(self.dtype), scalar.memory_elem(self.dtype)
        along = all(self.types[i].strides[1] == 1 for i in dense)
        self.lanes = target.vector(self.elem).lanes if along else 1

    @property
    def rows(self) -> str:
        return self.e.value(f"sub i64 {self.size(self.types[self.indices + 1].shape[0])}, 1")

    def elements(self, row: str) -> tuple[str, str]:
        """The numbers of a row's first element, and of the next row's."""
        places = (row, plus(self.e, row, "1"))
        start, end = (self.as_i64("i32", self.load(self.indices + 1, [r])) for r in places)
        return start, end

    def column(self, element: str) -> str:
        return self.as_i64("i32", self.load(self.indices, [element]))

    def add_product(self, a: str, b: str, total: str, lanes: int) -> str:
        e, t = self.e, VecType(self.elem, lanes)
        if self.dtype in FLOATS and self.target.fma:
            return e.call(t, f"llvm.fma.{t.suffix}", (t, a), (t, b), (t, total))
        operands = {"a": (self.total, a), "b": (self.total, b), "c": (self.total, total)}
        return scalar.emit_scalar(e, self.target, "a * b + c", operands, lanes=lanes, result=self.total)

    def get(self, i: int, at: Sequence[str], lanes: int, mask: str | None) -> str:
        """Neighbours in a dense matrix."""
        return scalar.load(self.e, self.target, self.dtype, lanes, self.address(i, at), mask)

    def put(self, i: int, at: Sequence[str], value: str, lanes: int, mask: str | None) -> None:
        scalar.store(self.e, self.target, self.dtype, lanes, value, self.address(i, at), mask)

    def splat(self, number: str, lanes: int) -> str:
        return splat(self.e, VecType(self.elem, lanes), number)

    def strips(self, start: str, end: str, body: Callable[[list[str], int, str | None], None]) -> None:
        """`body(columns, lanes, mask)`: where vectors of neighbouring columns begin, STRIP of them, then one at a time."""
        e, x, lanes = self.e, Index(self.e), self.lanes
        count = x.sub(end, start)
        wide, whole = (str(x.add(start, x.round_down(count, step))) for step in (STRIP * lanes, lanes))

        def several(j: str, _: list[str]) -> None:
            body([plus(e, j, str(v * lanes)) for v in range(STRIP)], lanes, None)

        e.loop(start, wide, STRIP * lanes, several)
        e.loop(wide, whole, lanes, lambda j, _: body([j], lanes, None))
        left = str(x.sub(end, whole))
        if lanes > 1 and left != "0":
            mask = lane_mask(e, VecType(self.memory, lanes), left)
            e.when(e.value(f"icmp ne i64 {left}, 0"), lambda: body([whole], lanes, mask))

    def by_rows(self, elements: int, columns: Size, body: Callable[[str], None]) -> Kernel:
        """A kernel whose units are rows; each has its share of the elements that operand `elements` counts."""
        e = self.e
        self.begin_body()
        e.loop("%begin", "%end", 1, lambda r, _: body(r))
        e.end()
        self.begin_kernel()
        rows = self.rows
        each = e.value(f"udiv i64 {self.size(self.types[elements].shape[0])}, {plus(e, rows, '1')}")
        vectors = e.value(f"udiv i64 {plus(e, self.size(columns), str(self.lanes - 1))}, {self.lanes}")
        self.parallel(rows, plus(e, times(e, times(e, each, vectors), str(TERM)), str(ROW)))
        e.end("i32 0")
        return self.finish(self.op.name)


def csr_dot_kernel(op: Op, target: Target) -> Kernel:
    """y[r] = sum of data[e] x[indices[e]] over a row's elements e; a unit is a row."""
    w = Compressed(op, target, 1, (3, 4))
    e, columns = w.e, w.types[4].shape[1]

    def one_column(row: str) -> None:
        start, end = w.elements(row)
        t = VecType(w.elem)
        middle = e.value(f"and i64 {e.value(f'sub i64 {end}, {start}')}, {-TURNS}")
        middle = e.value(f"add i64 {start}, {middle}")

        def term(at: str, total: str) -> str:
            return w.add_product(w.load(0, [at]), w.load(3, [w.column(at), "0"]), total, 1)

        def some(at: str, totals: list[str]) -> list[str]:
            return [term(plus(e, at, str(k)), total) for k, total in enumerate(totals)]

        first, *others = e.loop(start, middle, TURNS, some, [(t, t.const(0))] * TURNS)
        (first,) = e.loop(middle, end, 1, lambda at, v: [term(at, v[0])], [(t, first)])
        fold = Fold("sum", w.total, w.total)
        for other in others:
            first = fold.combine(e, target, first, other, 1)
        w.put(4, [row, "0"], first, 1, None)

    def several(row: str) -> None:
        start, end = w.elements(row)

        def strip(starts: list[str], lanes: int, mask: str | None) -> None:
            t = VecType(w.elem, lanes)

            def step(at: str, totals: list[str]) -> list[str]:
                factor, source = w.splat(w.load(0, [at]), lanes), w.column(at)
                return [
                    w.add_product(factor, w.get(3, [source, j], lanes, mask), total, lanes)
                    for j, total in zip(starts, totals, strict=True)
                ]

            totals = e.loop(start, end, 1, step, [(t, t.const(0))] * len(starts))
            for j, total in zip(starts, totals, strict=True):
                w.put(4, [row, j], total, lanes, mask)

        w.strips("0", w.size(columns), strip)

    def row(r: str) -> None:
        """The bits of one column do not hang on whether it is known to be one."""
        if isinstance(columns, int):
            return one_column(r) if columns == 1 else several(r)
        single = e.value(f"icmp eq i64 {w.size(columns)}, 1")
        e.when(single, lambda: one_column(r))
        e.when(e.value(f"xor i1 {single}, true"), lambda: several(r))

    return w.by_rows(0, columns, row)


def csr_tdot_kernel(op: Op, target: Target) -> Kernel:
    """y[indices[e]] += data[e] x[r] over the elements e of all rows r, in order; a unit is a strip of columns of x and y."""
    w = Compressed(op, target, 1, (3, 4))
    e, (height, columns) = w.e, w.types[4].shape
    width = STRIP * w.lanes
    w.begin_body()
    rows = w.rows

    def strip(starts: list[str], lanes: int, mask: str | None) -> None:
        def clear(r: str, _: list[str]) -> None:
            for j in starts:
                w.put(4, [r, j], VecType(w.elem, lanes).const(0), lanes, mask)

        def row(r: str, _: list[str]) -> None:
            start, end = w.elements(r)
            values = [w.get(3, [r, j], lanes, mask) for j in starts]

            def one(at: str, _: list[str]) -> None:
                factor, to = w.splat(w.load(0, [at]), lanes), w.column(at)
                for j, value in zip(starts, values, strict=True):
                    total = w.add_product(factor, value, w.get(4, [to, j], lanes, mask), lanes)
                    w.put(4, [to, j], total, lanes, mask)

            e.loop(start, end, 1, one)

        e.loop(0, w.size(height), 1, clear)
        e.loop(0, rows, 1, row)

    def unit(u: str, _: list[str]) -> None:
        first = times(e, u, str(width))
        w.strips(first, at_most(e, plus(e, first, str(width)), w.size(columns)), strip)

    e.loop("%begin", "%end", 1, unit)
    e.end()
    w.begin_kernel()
    units = e.value(f"sdiv i64 {plus(e, w.size(columns), str(width - 1))}, {width}")
    w.parallel(units, times(e, w.size(w.types[0].shape[0]), str(STRIP * TERM)))
    e.end("i32 0")
    return w.finish(op.name)


def csr_sample_kernel(op: Op, target: Target) -> Kernel:
    """z[e] = x[r] . y[indices[e]] for the elements e of each row r; a unit is a row."""
    w = Compressed(op, target, 0, (2, 3))
    e, k = w.e, w.types[2].shape[1]
    t = VecType(w.elem, w.lanes)

    def row(r: str) -> None:
        start, end = w.elements(r)

        def one(at: str, _: list[str]) -> None:
            source = w.column(at)

            def along(j: str, mask: str | None, total: list[str]) -> list[str]:
                a, b = w.get(2, [r, j], w.lanes, mask), w.get(3, [source, j], w.lanes, mask)
                return [w.add_product(a, b, total[0], w.lanes)]

            (total,) = each_vector(e, t, target, w.size(k), along, [(t, t.const(0))])
            total = Fold("sum", w.total, w.total).halved(e, target, total, w.lanes, 1)
            scalar.store(e, target, w.dtype, 1, total, w.address(4, [at]))

        e.loop(start, end, 1, one)

    return w.by_rows(0, k, row)
