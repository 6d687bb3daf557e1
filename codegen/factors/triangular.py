"""Solutions by triangles: a strip of the right-hand sides' columns to a unit, blocks of rows after one another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tcc.codegen.emit import VecType
from tcc.codegen.factors.tile import Tiles
from tcc.codegen.kernel import Kernel, finish, plus, times
from tcc.codegen.target import Target
from tcc.ir import dims
from tcc.ir.core import Op
from tcc.ir.dims import Size

UNROLLED = 3  # blocks of rows
# vectors, how many, the first column, and how many are left
StripBody = Callable[[VecType, int, "int | str", "int | str"], None]


@dataclass(frozen=True)
class Triangle:
    """A lower triangle: an upper one is one from its end, with negative strides."""

    base: str
    row: int | str
    column: int | str
    unit: bool = False  # ones on its diagonal, which is not read


@dataclass(frozen=True)
class Columns:
    """Some columns of the right-hand sides or of the solutions."""

    base: str
    row: int | str
    column: Size
    order: str = ""  # where the numbers of its rows are, if these are not in their order


@dataclass(frozen=True)
class Strip:
    """`count` vectors of columns, of which `left` columns exist; solved rows are kept in `panel`, if it is needed."""

    t: VecType
    count: int
    left: int | str
    panel: str


class Substitution(Tiles):
    """Solves systems of `n` equations."""

    def __init__(self, op: Op, target: Target, n: Size, upper: bool = False) -> None:
        super().__init__(op, target)
        self.n, self.upper = n, upper

    @property
    def panel_bytes(self) -> Size:
        """Of the solved rows of a strip."""
        if isinstance(self.n, int) and self.n <= self.rows:
            return 0
        rows = dims.maximum(self.rounded(self.n), 1)  # an entry takes scratch memory of some bytes only
        return dims.mul(rows, self.width * self.one.bytes)

    def solve(self, a: Triangle, b: Columns, x: Columns, strip: Strip) -> str:
        """x with a x = b; the number of the first 0 on the diagonal is the value."""
        n, rows = self.n, self.rows
        failed = "0"
        if not isinstance(n, int):

            def block(i: str, carried: list[str]) -> list[str]:
                return [self.block(a, b, x, strip, i, rows, carried[0])]

            return self.e.loop(0, self.size(n), rows, block, [("i64", failed)])[0]
        whole = n // rows * rows
        if n <= UNROLLED * rows:
            for i in range(0, n, rows):
                failed = self.block(a, b, x, strip, i, min(rows, n - i), failed)
            return failed

        def known(i: str, carried: list[str]) -> list[str]:
            return [self.block(a, b, x, strip, i, rows, carried[0])]

        failed = self.e.loop(0, whole, rows, known, [("i64", failed)])[0]
        return self.block(a, b, x, strip, whole, n - whole, failed) if n > whole else failed

    def block(
        self, a: Triangle, b: Columns, x: Columns, strip: Strip, i: int | str, rows: int, failed: str
    ) -> str:
        """Rows from `i` on; where their number is not known, what would be behind the last is that again, and not kept."""
        e, ix, t = self.e, self.x, strip.t
        open_end = not isinstance(self.n, int)
        last = ix.sub(ix.sub(self.size(self.n), 1), i)
        pitch = strip.count * t.lanes
        masks = [self.mask(t, ix.sub(strip.left, v * t.lanes)) for v in range(strip.count)]

        def row(r: int) -> int | str:
            return ix.min(r, last) if open_end and r else r

        def column(place: Columns, r: int | str, v: int) -> str:
            at = self.at(place.base, *(((i, place.row), (r, place.row)) if not place.order else ()))
            if place.order:
                number = e.value(f"load i64, ptr {e.gep(place.order, ix.add(i, r), 'i64')}")
                at = self.at(place.base, (number, place.row))
            return self.at(at, (v * t.lanes, self.size(place.column)))

        acc = [
            [self.read(t, column(b, row(r), v), b.column, masks[v]) for v in range(strip.count)]
            for r in range(rows)
        ]
        corner = self.at(a.base, (i, a.row))
        acc = self.update(t, acc, i, corner, a.row, a.column, strip.panel, pitch, row)
        corner = self.at(corner, (i, a.column))
        inverse: list[str] = []
        if not a.unit:
            for r in range(rows):
                pivot = self.number(self.at(corner, (row(r), a.row), (row(r), a.column)))
                failed = self.first_zero(pivot, ix.add(i, r), failed)
                inverse.append(self.splat(t, self.reciprocal(pivot)))

        def factor(s: int, r: int) -> str:
            return self.spread(t, self.at(corner, (row(s), a.row), (row(r), a.column)))

        def ended(r: int, vectors: list[str]) -> list[str]:
            return vectors if a.unit else [e.value(f"fmul {t} {v}, {inverse[r]}") for v in vectors]

        acc = self.eliminate(t, acc, factor, ended)

        def keep(r: int) -> None:
            for v in range(strip.count):
                self.write(t, acc[r][v], column(x, r, v), x.column, masks[v])

        for r in range(rows):
            if self.panel_bytes != 0:
                for v in range(strip.count):
                    at = self.at(strip.panel, (ix.add(i, r), pitch))
                    e.line(f"store {t} {acc[r][v]}, ptr {e.gep(at, v * t.lanes, self.elem)}, align {t.bytes}")
            if open_end and r:
                e.when(e.value(f"icmp sle i64 {r}, {last}"), lambda r=r: keep(r))  # type: ignore[misc]
            else:
                keep(r)
        return failed

    def first_zero(self, pivot: str, number: int | str, failed: str) -> str:
        e = self.e
        counted = self.x.sub(self.size(self.n), number) if self.upper else self.x.add(number, 1)
        zero = e.value(f"fcmp oeq {self.one} {pivot}, {self.one.const(0)}")
        some = e.value(f"select i1 {zero}, i64 {counted}, i64 0")
        if failed == "0":
            return some
        before = e.value(f"icmp ne i64 {failed}, 0")
        return e.value(f"select i1 {before}, i64 {failed}, i64 {some}")

    def splat(self, t: VecType, number: str) -> str:
        return self.vectors.splat(t, number)

    # -- columns --------------------------------------------------------------------------------------------------------

    def narrow(self, count: int) -> tuple[VecType, int]:
        """Vectors for a known number of columns that are less than a whole strip, and how many."""
        t = self.vector
        while t.lanes >= 2 * max(count, 1):
            t = VecType(t.elem, t.lanes // 2)
        return t, max(1, -(-count // t.lanes))

    def strips(self, k: Size) -> int | str:
        """How many strips there are; one at least, which looks at the diagonal."""
        columns = self.x.add(self.size(k), 0)
        if isinstance(columns, int):
            return max(1, -(-columns // self.width))
        whole = self.x.div(columns, self.width)
        rest = self.x.ceil_div(self.x.sub(columns, self.x.mul(whole, self.width)), self.vector.lanes)
        return self.x.max(self.x.add(whole, rest), 1)

    def strip(self, k: Size, number: int | str, body: StripBody) -> None:
        """Strip `number`: whole ones come first; those behind are one, or one for each vector if their number is not known."""
        e, ix, t = self.e, self.x, self.vector
        columns = ix.add(self.size(k), 0)
        whole = ix.div(columns, self.width)
        first = ix.mul(number, self.width)
        if isinstance(columns, int) and (whole == 0 or columns % self.width == 0):
            kind = self.narrow(columns) if whole == 0 else (t, self.strip_vectors)
            body(*kind, first, columns if whole == 0 else self.width)
            return
        inside = e.value(f"icmp slt i64 {number}, {whole}")
        e.when(inside, lambda: body(t, self.strip_vectors, first, self.width))
        rest = self.narrow(columns % self.width) if isinstance(columns, int) else (t, 1)

        def last() -> None:
            start = ix.add(ix.mul(whole, self.width), ix.mul(ix.sub(number, whole), rest[0].lanes))
            body(*rest, start, ix.sub(columns, start))

        e.when(e.value(f"xor i1 {inside}, true"), last)

    def each_strip(self, k: Size, body: StripBody) -> None:
        self.e.loop(0, self.strips(k), 1, lambda number, _: self.strip(k, number, body))


def triangular_solve_kernel(op: Op, target: Target) -> Kernel:
    """`triangular_solve a, b, x, failed`."""
    *batch, n, k = op.operands[1].type.shape
    w = Substitution(op, target, n, bool(op.attrs["upper"]))
    e = w.e
    w.begin_body()

    def unit(u: str, _: list[str]) -> None:
        strips = w.strips(k)
        number: int | str = 0 if strips == 1 else e.value(f"urem i64 {u}, {strips}")
        at = w.unravel(u if strips == 1 else e.value(f"udiv i64 {u}, {strips}"), batch)
        systems = [w.matrix(i, at) for i in (0, 1, 2)]
        panel = w.scratch() if w.panel_bytes != 0 else "null"

        def solve(t: VecType, count: int, first: int | str, left: int | str) -> None:
            failed = _solve(w, systems, first, Strip(t, count, left, panel))
            if number == 0:
                w.store(3, at, failed)
            else:
                e.when(e.value(f"icmp eq i64 {number}, 0"), lambda: w.store(3, at, failed))

        w.strip(k, number, solve)

    e.loop("%begin", "%end", 1, unit)
    e.end()
    w.begin_kernel()
    size = w.size(n)
    cost = plus(e, times(e, times(e, size, size), str(4 * w.strip_vectors)), times(e, size, "300"))
    w.parallel(times(e, w.count(batch), str(w.strips(k))), cost)
    e.end("i32 0")
    return finish(e, tuple(w.slots.slots), op.name, w.panel_bytes)


def _solve(w: Substitution, systems: Sequence[str], first: int | str, strip: Strip) -> str:
    rows = [w.stride(i, -2) for i in (0, 1, 2)]
    column = w.stride(0, -1)
    bases = list(systems)
    if w.upper:
        last = w.x.sub(w.size(w.n), 1)
        bases = [w.at(base, (last, row)) for base, row in zip(bases, rows, strict=True)]
        bases[0] = w.at(bases[0], (last, column))
        rows, column = [w.x.sub(0, row) for row in rows], w.x.sub(0, column)
    places = [
        Columns(w.at(bases[i], (first, w.stride(i, -1))), rows[i], w.types[i].strides[-1]) for i in (1, 2)
    ]
    return w.solve(Triangle(bases[0], rows[0], column), places[0], places[1], strip)
