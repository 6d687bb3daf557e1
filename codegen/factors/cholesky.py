"""Factors of symmetric positive matrices: u = y' by blocks of rows in scratch memory, a matrix to a unit."""

from __future__ import annotations

from collections.abc import Sequence

from tcc.codegen.emit import VecType
from tcc.codegen.factors.tile import Acc, Tiles
from tcc.codegen.index import plus, times
from tcc.codegen.kernel import Kernel, finish
from tcc.codegen.target import Target
from tcc.codegen.vectors import each_vector, load, store
from tcc.ir import dims
from tcc.ir.core import Op
from tcc.ir.dims import Size

UNROLLED = 4  # blocks of rows


class Factor(Tiles):
    """Row i of u, right of its diagonal, is what is left of column i of x when the rows above it have taken their part, by the
    square root of its pivot."""

    def __init__(self, op: Op, target: Target) -> None:
        super().__init__(op, target)
        self.n: Size = self.types[0].shape[-1]
        self.pitch = self.row_pitch(self.n)

    @property
    def known(self) -> bool:
        return isinstance(self.n, int)

    @property
    def bytes(self) -> Size:
        """Of u, and of the reciprocals of a block's diagonal."""
        rows = dims.add(dims.mul(self.rounded(self.n), self.pitch), self.rows)
        return dims.mul(rows, self.one.bytes)

    def factor(self, x: str, u: str) -> str:
        """u of the matrix at x; the value is the number of the first pivot that is not positive."""
        failed = "0"
        if isinstance(self.n, int) and self.n <= UNROLLED * self.rows:
            for i in range(0, self.n, self.rows):
                failed = self.block(x, u, i, min(self.rows, self.n - i), failed)
            return failed

        def block(i: str, carried: list[str]) -> list[str]:
            return [self.block(x, u, i, self.rows, carried[0])]

        return self.e.loop(0, self.size(self.n), self.rows, block, [("i64", failed)])[0]

    def block(self, x: str, u: str, i: int | str, rows: int, failed: str) -> str:
        """Rows from `i` on.  Behind the last one of all are others, which nobody reads, where their number is not known."""
        e, ix, t, lanes = self.e, self.x, self.vector, self.vector.lanes
        pitch, n = self.size(self.pitch), self.size(self.n)
        inverses = self.at(u, (self.size(self.rounded(self.n)), pitch))
        left = ix.sub(n, i)

        def width(start: int | str) -> int:
            rest = ix.sub(n, start)
            return min(self.strip_vectors, -(-rest // lanes)) if isinstance(rest, int) else self.strip_vectors

        first = width(i)
        acc = self.updated(x, u, i, i, rows, first)
        acc, failed, scales = self.diagonal(t, acc, i, left, failed)
        self.keep(u, acc, i, i)
        for r, scale in enumerate(scales):
            store(e, self.one, scale, e.gep(inverses, r, self.elem))
        block = self.at(u, (i, pitch), (i, 1))

        def rest(j: int | str, count: int) -> None:
            made = self.updated(x, u, i, j, rows, count)

            def factor(s: int, r: int) -> str:
                return self.spread(t, self.at(block, (r, pitch), (s, 1)))

            def ended(r: int, vectors: list[str]) -> list[str]:
                scale = self.spread(t, e.gep(inverses, r, self.elem))
                return [e.value(f"fmul {t} {v}, {scale}") for v in vectors]

            self.keep(u, self.eliminate(t, made, factor, ended), i, j)

        start = ix.add(i, first * lanes)
        if isinstance(start, int) and self.known:
            for j in range(start, int(n), self.width):
                rest(j, width(j))
        else:
            e.loop(start, n, self.width, lambda j, _: rest(j, self.strip_vectors))
        return failed

    def updated(self, x: str, u: str, i: int | str, j: int | str, rows: int, count: int) -> Acc:
        """x', from column `j` on, without what the rows above `i` take."""
        e, ix, t, lanes = self.e, self.x, self.vector, self.vector.lanes
        n, pitch = self.size(self.n), self.size(self.pitch)
        down, along = self.stride(0, -2), self.stride(0, -1)
        last = ix.sub(ix.sub(n, 1), i)
        whole = isinstance(self.n, int) and (self.n % self.rows == 0 or isinstance(i, int))
        masks = [self.mask(t, ix.sub(n, ix.add(j, v * lanes))) for v in range(count)]

        def gathered() -> list[str]:
            flat: list[str] = []
            for r in range(rows):
                row = r if whole or r == 0 else ix.min(r, last)
                base = self.at(x, (i, along), (row, along), (j, down))
                for v, mask in enumerate(masks):
                    at = self.at(base, (v * lanes, down))
                    flat.append(self.read(t, at, self.types[0].strides[-2], mask))
            return flat

        if isinstance(self.n, int) and self.small(self.n, along):
            none_behind = [self.piece.const(0)] * (lanes // self.piece.lanes - 1)
            flat = [self.joined([column, *none_behind]) for column in self.columns_of(x, down, self.n)]
        elif along == 1 and rows == self.rows and self.piece.lanes > 1:
            there = self.both(ix.less(ix.add(i, rows - 1), n), ix.less(ix.add(j, count * lanes - 1), n))
            none: list[tuple[VecType | str, str]] = [(t, t.const(0))] * (rows * count)
            flat = e.when(there, lambda: self.turned_tile(x, i, j, rows, count), none)
            others: list[tuple[VecType | str, str]] = [(t, value) for value in flat]
            flat = e.when(e.value(f"xor i1 {there}, true"), gathered, others)
        else:
            flat = gathered()
        acc: Acc = [flat[r * count : (r + 1) * count] for r in range(rows)]
        a, b = self.at(u, (i, 1)), self.at(u, (j, 1))
        return self.update(t, acc, i, a, 1, pitch, b, pitch)

    def turned_tile(self, x: str, i: int | str, j: int | str, rows: int, count: int) -> list[str]:
        """Rows of x, which are dense, as columns."""
        e, t, piece = self.e, self.vector, self.piece
        made: list[list[list[str]]] = [[[] for _ in range(count)] for _ in range(rows)]
        for v in range(count):
            for first in range(0, rows, piece.lanes):
                for part in range(0, t.lanes, piece.lanes):
                    places = [
                        self.at(
                            x, (self.x.add(j, v * t.lanes + part + s), self.stride(0, -2)), (i, 1), (first, 1)
                        )
                        for s in range(piece.lanes)
                    ]
                    columns = self.turned([load(e, piece, place) for place in places])
                    for r, column in enumerate(columns, first):
                        made[r][v].append(column)
        return [self.joined(parts) for row in made for parts in row]

    def keep(self, u: str, acc: Acc, i: int | str, j: int | str) -> None:
        e, t = self.e, self.vector
        for r, vectors in enumerate(acc):
            base = self.at(u, (self.x.add(i, r), self.size(self.pitch)), (j, 1))
            for v, value in enumerate(vectors):
                store(e, t, value, e.gep(base, v * t.lanes, self.elem))

    def diagonal(
        self, t: VecType, acc: Acc, i: int | str, left: int | str, failed: str
    ) -> tuple[Acc, str, list[str]]:
        """The tile that has the block's diagonal; the reciprocals of which are the last value."""
        e, scales, roots = self.e, list[str](), list[str]()

        def element(r: int, c: int) -> str:
            return self.lane(t, current[r][c // t.lanes], c % t.lanes)

        current = acc

        def ended(r: int, vectors: list[str]) -> list[str]:
            nonlocal failed
            current[r] = vectors
            pivot = element(r, r)
            failed = self.first_bad(pivot, r, i, left, failed)
            roots.append(e.call(self.one, f"llvm.sqrt.{self.one.suffix}", (self.one, pivot)))
            scales.append(self.reciprocal(roots[-1]))
            scale = self.vectors.splat(t, scales[-1])
            current[r] = [e.value(f"fmul {t} {v}, {scale}") for v in vectors]
            return current[r]

        def factor(s: int, r: int) -> str:
            return self.vectors.splat(t, element(r, s))

        acc = self.eliminate(t, acc, factor, ended)
        for r, root in enumerate(roots):  # an infinite pivot times the reciprocal of its root is none
            v, c = divmod(r, t.lanes)
            acc[r][v] = root if t.lanes == 1 else self.e.value(
                f"insertelement {t} {acc[r][v]}, {self.one} {root}, i64 {c}"
            )  # fmt: skip
        return acc, failed, scales

    def first_bad(self, pivot: str, r: int, i: int | str, left: int | str, failed: str) -> str:
        e, ix = self.e, self.x
        bad = e.value(f"fcmp ule {self.one} {pivot}, {self.one.const(0)}")
        if not isinstance(left, int):  # there may be no such row
            bad = e.value(f"and i1 {bad}, {e.value(f'icmp slt i64 {r}, {left}')}")
        some = e.value(f"select i1 {bad}, i64 {ix.add(i, r + 1)}, i64 0")
        if failed == "0":
            return some
        return e.value(f"select i1 {e.value(f'icmp ne i64 {failed}, 0')}, i64 {failed}, i64 {some}")

    # -- the result -----------------------------------------------------------------------------------------------------

    def write_result(self, u: str, y: str, failed: str) -> None:
        """y = u', with zeros right of its diagonal, or NaN everywhere."""
        e, ix, t, piece = self.e, self.x, self.vector, self.piece
        n, pitch = self.size(self.n), self.size(self.pitch)
        down, along = self.types[1].strides[-2], self.types[1].strides[-1]
        bad = e.value(f"icmp ne i64 {failed}, 0")
        other = e.value(
            f"select i1 {bad}, {self.one} {self.one.const(float('nan'))}, {self.one} {self.one.const(0)}"
        )
        others = self.vectors.splat(t, other)

        if isinstance(self.n, int) and self.small(self.n, self.stride(1, -1)):
            narrow = self.vectors.splat(piece, other)
            for s, line in enumerate(self.columns_of(u, pitch, self.n)):
                kept = ", ".join(f"i1 {str(lane <= s).lower()}" for lane in range(piece.lanes))
                fine = e.value(f"select {piece.of('i1')} <{kept}>, {piece} {line}, {piece} {narrow}")
                line = e.value(f"select i1 {bad}, {piece} {narrow}, {piece} {fine}")
                store(e, piece, line, self.at(y, (s, self.size(down))), self.mask(piece, self.n))
            return

        def turned(r: str, c: str) -> None:
            lines = [load(e, t, self.at(u, (ix.add(c, s), pitch), (r, 1))) for s in range(t.lanes)]
            for s, line in enumerate(self.turned(lines)):
                store(e, t, line, self.at(y, (ix.add(r, s), self.size(down)), (c, 1)))

        def columns(c: str, mask: str | None, _: list[str]) -> list[str]:
            """Some, of all rows: the lines of u that they are read from stay in the cache."""

            def place(r: str) -> str:
                return self.at(y, (r, self.size(down)), (c, self.size(along)))

            def above(r: str, _: list[str]) -> None:
                self.write(t, others, place(r), along, mask)

            def below(r: str, _: list[str]) -> None:
                count = ix.add(ix.sub(r, c), 1)
                kept = e.value(f"select i1 {bad}, i64 0, i64 {count}")
                inside = self.mask(t, kept) or "true"
                value = self.read(t, self.at(u, (c, pitch), (r, 1)), self.pitch, inside)
                value = e.value(f"select {t.of('i1')} {inside}, {t} {value}, {t} {others}")
                self.write(t, value, place(r), along, mask)

            e.loop(0, c, 1, above)
            start: int | str = c
            if (
                along == 1 and piece.lanes == t.lanes > 1
            ):  # tiles that are whole and hold nothing of the diagonal
                first = ix.add(c, t.lanes)
                size = ix.round_down(ix.max(ix.sub(n, first), 0), t.lanes)
                good = e.value(f"xor i1 {bad}, true")
                size = ix.mul(size, e.value(f"zext i1 {good} to i64"))
                end = ix.add(first, size)
                e.loop(c, ix.min(first, n), 1, below)
                e.loop(first, end, t.lanes, lambda r, _: turned(r, c))
                start = end
            e.loop(start, n, 1, below)
            return []

        each_vector(e, t, self.target, n, columns)


def cholesky_kernel(op: Op, target: Target) -> Kernel:
    """`cholesky_factor x, y, failed`."""
    w = Factor(op, target)
    e, n = w.e, w.n
    batch: Sequence[Size] = op.operands[0].type.shape[:-2]
    sizes = [w.pitch, w.rounded(n)]
    w.begin_body(sizes)

    def unit(number: str, _: list[str]) -> None:
        at = w.unravel(number, batch)
        u = w.scratch()
        failed = w.factor(w.matrix(0, at), u)
        w.write_result(u, w.matrix(1, at), failed)
        w.store(2, at, failed)

    e.loop("%begin", "%end", 1, unit)
    e.end()
    w.begin_kernel(sizes)
    size = w.size(n)
    cube = times(e, times(e, size, size), size)
    w.parallel(w.count(batch), plus(e, cube, times(e, size, "1000")))
    e.end("i32 0")
    return finish(e, tuple(w.slots.slots), op.name, w.bytes)
