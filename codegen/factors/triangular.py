"""Solutions by triangles: a strip of the right-hand sides' columns to a unit, blocks of rows after one another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tcc.codegen.emit import VecType
from tcc.codegen.factors.tile import Tiles
from tcc.codegen.index import plus, times
from tcc.codegen.kernel import Kernel, finish
from tcc.codegen.target import Target
from tcc.codegen.vectors import store
from tcc.ir import dims
from tcc.ir.core import Op
from tcc.ir.dims import Size

UNROLLED = 3  # blocks of rows
GROUP = 4  # strips


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
    """`count` vectors of columns from number `first` on, of which `left` columns exist; solved rows are kept in `panel`, if it is
    needed."""

    t: VecType
    count: int
    first: int | str
    left: int | str
    panel: str


@dataclass(frozen=True)
class Group:
    """The strips from `first` to before `end`, which a block of rows takes one after another, so that what it reads of the triangle
    stays in the first-level cache; the first one's panel is at `panel`."""

    first: int | str
    end: int | str
    panel: str


class Substitution(Tiles):
    """Solves systems of `n` equations for `k` right-hand sides."""

    def __init__(self, op: Op, target: Target, n: Size, k: Size, upper: bool = False) -> None:
        super().__init__(op, target)
        self.n, self.k, self.upper = n, k, upper

    @property
    def panel_size(self) -> Size:
        """Elements of the solved rows of a strip."""
        if self.k == 0 or (isinstance(self.n, int) and self.n <= self.rows):
            return 0
        # an entry takes scratch memory of some bytes only
        return dims.mul(dims.maximum(self.rounded(self.n), 1), self.width)

    @property
    def panel_bytes(self) -> Size:
        return dims.mul(self.panel_size, GROUP * self.one.bytes)

    def solve(self, a: Triangle, b: Columns, x: Columns, group: Group) -> str:
        """x with a x = b; the number of the first 0 on the diagonal is the value."""
        n, rows = self.n, self.rows
        if isinstance(n, int) and n <= UNROLLED * rows:
            failed = "0"
            for i in range(0, n, rows):
                failed = self.block(a, b, x, group, i, min(rows, n - i), failed)
            return failed

        def block(i: str, carried: list[str]) -> list[str]:
            return [self.block(a, b, x, group, i, rows, carried[0])]

        whole = n // rows * rows if isinstance(n, int) else self.size(n)
        failed = self.e.loop(0, whole, rows, block, [("i64", "0")])[0]
        if not isinstance(n, int) or n % rows == 0:
            return failed
        return self.block(a, b, x, group, n // rows * rows, n % rows, failed)

    def block(
        self, a: Triangle, b: Columns, x: Columns, group: Group, i: int | str, rows: int, failed: str
    ) -> str:
        """Rows from `i` on; where their number is not known, what would be behind the last is that again, and not kept."""
        e, ix = self.e, self.x
        last = None if isinstance(self.n, int) else ix.sub(ix.sub(self.size(self.n), 1), i)
        numbers = [ix.min(r, last) if last is not None and r else r for r in range(rows)]
        edge = self.at(a.base, (i, a.row))
        corner = self.at(edge, (i, a.column))
        inverses: list[str] = []
        for r in range(0 if a.unit else rows):
            pivot = self.number(self.at(corner, (numbers[r], a.row), (numbers[r], a.column)))
            failed = self.first_zero(pivot, ix.add(i, r), failed)
            inverses.append(self.reciprocal(pivot))

        def place(columns: Columns, strip: Strip, r: int | str) -> str:
            number = ix.add(i, r)
            if columns.order:
                number = e.value(f"load i64, ptr {e.gep(columns.order, number, 'i64')}")
            return self.at(columns.base, (number, columns.row), (strip.first, self.size(columns.column)))

        def solve(strip: Strip) -> None:
            t, pitch = strip.t, strip.count * strip.t.lanes
            masks = [self.mask(t, ix.sub(strip.left, v * t.lanes)) for v in range(strip.count)]

            def vectors(columns: Columns, r: int | str) -> list[str]:
                at, step = place(columns, strip, r), self.size(columns.column)
                return [self.at(at, (v * t.lanes, step)) for v in range(strip.count)]

            def factor(s: int, r: int) -> str:
                return self.spread(t, self.at(corner, (numbers[s], a.row), (numbers[r], a.column)))

            def ended(r: int, row: list[str]) -> list[str]:
                if a.unit:
                    return row
                scale = self.vectors.splat(t, inverses[r])
                return [e.value(f"fmul {t} {v}, {scale}") for v in row]

            acc = [
                [self.read(t, at, b.column, mask) for at, mask in zip(vectors(b, r), masks, strict=True)]
                for r in numbers
            ]
            acc = self.update(t, acc, i, edge, a.row, a.column, strip.panel, pitch, numbers)
            acc = self.eliminate(t, acc, factor, ended)

            def keep(r: int) -> None:
                for value, at, mask in zip(acc[r], vectors(x, r), masks, strict=True):
                    self.write(t, value, at, x.column, mask)

            for r, row in enumerate(acc):
                at = self.at(strip.panel, (ix.add(i, r), pitch)) if self.panel_size != 0 else ""
                for v, value in enumerate(row if at else ()):
                    store(e, t, value, e.gep(at, v * t.lanes, self.elem))
                if last is not None and r:
                    e.when(e.value(f"icmp sle i64 {r}, {last}"), lambda r=r: keep(r))  # type: ignore[misc]
                else:
                    keep(r)

        def one(number: str, _: list[str]) -> None:
            self.strip(group, number, solve)

        e.loop(group.first, group.end, 1, one)
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

    # -- columns --------------------------------------------------------------------------------------------------------

    def narrow(self, count: int) -> tuple[VecType, int]:
        """Vectors for a known number of columns that are less than a whole strip, and how many."""
        t = self.vector
        while t.lanes >= 2 * max(count, 1):
            t = VecType(t.elem, t.lanes // 2)
        return t, max(1, -(-count // t.lanes))

    def strips(self) -> int | str:
        """How many strips there are; one at least, which looks at the diagonal."""
        columns = self.x.add(self.size(self.k), 0)
        if isinstance(columns, int):
            return max(1, -(-columns // self.width))
        whole = self.x.div(columns, self.width)
        rest = self.x.ceil_div(self.x.sub(columns, self.x.mul(whole, self.width)), self.vector.lanes)
        return self.x.max(self.x.add(whole, rest), 1)

    def groups(self) -> int | str:
        return self.x.ceil_div(self.strips(), GROUP)

    def group(self, number: int | str, panel: str) -> Group:
        """The strips of group `number`."""
        ix, first = self.x, self.x.mul(number, GROUP)
        return Group(first, ix.min(ix.add(first, GROUP), self.strips()), panel)

    def strip(self, group: Group, number: int | str, body: Callable[[Strip], None]) -> None:
        """Strip `number`: whole ones come first; those behind are one, or one for each vector if their number is not known."""
        e, ix, t = self.e, self.x, self.vector
        columns = ix.add(self.size(self.k), 0)
        whole = ix.div(columns, self.width)
        first = ix.mul(number, self.width)
        panel = self.at(group.panel, (ix.sub(number, group.first), self.size(self.panel_size)))
        if isinstance(columns, int) and (whole == 0 or columns % self.width == 0):
            kind = self.narrow(columns) if whole == 0 else (t, self.strip_vectors)
            body(Strip(*kind, first, columns if whole == 0 else self.width, panel))
            return
        inside = e.value(f"icmp slt i64 {number}, {whole}")
        e.when(inside, lambda: body(Strip(t, self.strip_vectors, first, self.width, panel)))
        rest = self.narrow(columns % self.width) if isinstance(columns, int) else (t, 1)

        def last() -> None:
            start = ix.add(ix.mul(whole, self.width), ix.mul(ix.sub(number, whole), rest[0].lanes))
            body(Strip(*rest, start, ix.sub(columns, start), panel))

        e.when(e.value(f"xor i1 {inside}, true"), last)


def triangular_solve_kernel(op: Op, target: Target) -> Kernel:
    """`triangular_solve a, b, x, failed`."""
    *batch, n, k = op.operands[1].type.shape
    w = Substitution(op, target, n, k, bool(op.attrs["upper"]))
    e, sizes = w.e, [w.panel_size]
    w.begin_body(sizes)

    def unit(u: str, _: list[str]) -> None:
        groups = w.groups()
        number: int | str = 0 if groups == 1 else e.value(f"urem i64 {u}, {groups}")
        at = w.unravel(u if groups == 1 else e.value(f"udiv i64 {u}, {groups}"), batch)
        panel = w.scratch() if w.panel_size != 0 else "null"
        failed = _solve(w, [w.matrix(i, at) for i in (0, 1, 2)], w.group(number, panel))
        if number == 0:
            w.store(3, at, failed)
        else:
            e.when(e.value(f"icmp eq i64 {number}, 0"), lambda: w.store(3, at, failed))

    e.loop("%begin", "%end", 1, unit)
    e.end()
    w.begin_kernel(sizes)
    size = w.size(n)
    square = times(e, times(e, size, size), str(4 * GROUP * w.strip_vectors))
    w.parallel(times(e, w.count(batch), str(w.groups())), plus(e, square, times(e, size, "300")))
    e.end("i32 0")
    return finish(e, tuple(w.slots.slots), op.name, w.panel_bytes)


def _solve(w: Substitution, systems: Sequence[str], group: Group) -> str:
    rows = [w.stride(i, -2) for i in (0, 1, 2)]
    column = w.stride(0, -1)
    bases = list(systems)
    if w.upper:
        last = w.x.sub(w.size(w.n), 1)
        bases = [w.at(base, (last, row)) for base, row in zip(bases, rows, strict=True)]
        bases[0] = w.at(bases[0], (last, column))
        rows, column = [w.x.sub(0, row) for row in rows], w.x.sub(0, column)
    b, x = (Columns(bases[i], rows[i], w.types[i].strides[-1]) for i in (1, 2))
    return w.solve(Triangle(bases[0], rows[0], column), b, x, group)
