"""Matrix products of integers: register tiles of rows by vectors, over operands as they lie.

Sums wrap as NumPy's do, so that the order of the terms does not change a bit, and vectors may stand along the columns of B
or along k, whichever is contiguous.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tcc.codegen import scalar
from tcc.codegen.emit import Emit, VecType
from tcc.codegen.gather import Places
from tcc.codegen.index import at_most, plus, times
from tcc.codegen.kernel import Kernel
from tcc.codegen.target import Target
from tcc.codegen.vectors import lane_mask, splat
from tcc.ir.core import Op

_ROWS = 4  # of C in a tile
_VECTORS = 2  # and of vectors along the columns, or of columns where vectors stand along k
_STEP = 32  # sixteenths of a cycle that a multiply-add of one vector takes, with its loads

Piece = Callable[[str, int], None]


def integer_product_kernel(op: Op, target: Target) -> Kernel:
    """A placed `matmul a, b, result` of integers, or of bytes into int32; a unit of work is `_ROWS` rows of the result."""
    product = _Product(op, target)
    product.write()
    return product.w.finish("matmul_integer")


class _Product:
    def __init__(self, op: Op, target: Target) -> None:
        self.w = Places(op, target)
        self.e, self.target = self.w.e, target
        a, b, self.c = self.w.types[0], self.w.types[1], self.w.types[-1]
        self.depth, self.dtype = a.shape[-1], self.c.dtype
        self.across = b.strides[-1] == 1 and self.c.strides[-1] == 1
        column = self.c.shape[-1] == 1  # whose vectors would hold one number
        self.along = a.strides[-1] == 1 and b.strides[-2] == 1 and (column or not self.across)
        self.elem = scalar.memory_elem(self.dtype)
        self.sides = [(t.dtype, scalar.memory_elem(t.dtype)) for t in (a, b)]
        self.lanes = target.vector(self.elem).lanes if self.across or self.along else 1

    def write(self) -> None:
        w, e = self.w, self.e
        *batch, m, n = self.c.shape
        w.begin_body()
        high, wide = w.size(m), w.size(n)
        tiles = ceil_div(e, high, _ROWS)

        def unit(u: str, _: list[str]) -> None:
            at = w.unravel(e.value(f"udiv i64 {u}, {tiles}"), batch)
            top = times(e, e.value(f"urem i64 {u}, {tiles}"), str(_ROWS))
            end = at_most(e, plus(e, top, str(_ROWS)), high)

            def rows(row: str, height: int) -> None:
                lines = [[*at, plus(e, row, str(i))] for i in range(height)]
                if self.along:
                    pieces(e, "0", wide, (_VECTORS, 1), lambda j, count: self._dot(lines, j, count))
                else:
                    self._columns(lines, wide)

            pieces(e, top, end, (_ROWS, 1), rows)

        e.loop("%begin", "%end", 1, unit)
        e.end()
        w.begin_kernel()
        tiles = ceil_div(e, w.size(m), _ROWS)
        cost = times(e, w.size(n), str(max(1, _STEP * _ROWS // self.lanes)))
        w.parallel(times(e, w.count(batch), tiles), times(e, w.size(self.depth), cost))
        e.end("i32 0")

    def _columns(self, lines: Sequence[list[str]], wide: str) -> None:
        """Rows of C: whole tiles of columns, then vectors of which the last is masked, or single columns."""
        e, width = self.e, _VECTORS * self.lanes
        whole = times(e, e.value(f"sdiv i64 {wide}, {width}"), str(width))
        e.loop(0, whole, width, lambda j, _: self._tile(lines, j, self.lanes, [None] * _VECTORS))
        lanes = self.lanes if self.target.avx512 else 1  # masks cost, where they are no instruction's

        def rest(j: str, _: list[str]) -> None:
            mask = None if lanes == 1 else self._mask(e.value(f"sub i64 {wide}, {j}"))
            self._tile(lines, j, lanes, [mask])

        e.loop(whole, wide, lanes, rest)

    def _tile(self, lines: Sequence[list[str]], j: str, lanes: int, masks: Sequence[str | None]) -> None:
        """Rows by vectors of columns from `j` on: each number of A times vectors of a row of B."""
        w, e = self.w, self.e
        t, (a_type, b_type) = VecType(scalar.elem(self.dtype), lanes), w.types[:2]
        rows, out = len(lines), len(w.types) - 1
        b_step, c_step = w.size(b_type.strides[-1]), w.size(self.c.strides[-1])
        places = [(line, v) for line in lines for v in range(len(masks))]

        def place(line: list[str], v: int) -> str:
            return e.gep(w.address(out, [*line, j]), times(e, str(v * lanes), c_step), self.elem)

        def step(_: str, v: list[str]) -> list[str]:
            bp, heads, acc = v[0], v[1 : 1 + rows], v[1 + rows :]
            b = [
                self._load(1, e.gep(bp, times(e, str(k * lanes), b_step), self.sides[1][1]), lanes, mask)
                for k, mask in enumerate(masks)
            ]
            a = [splat(e, t, self._load(0, p, 1)) for p in heads]
            following = [e.gep(p, w.size(a_type.strides[-1]), self.sides[0][1]) for p in heads]
            new = [
                self._add(x, y, acc[i * len(b) + k], lanes) for i, x in enumerate(a) for k, y in enumerate(b)
            ]
            return [e.gep(bp, w.size(b_type.strides[-2]), self.sides[1][1]), *following, *new]

        pointers = [w.address(1, [*lines[0][:-1], "0", j]), *(w.address(0, [*line, "0"]) for line in lines)]
        carried: list[tuple[VecType | str, str]] = [
            *(("ptr", p) for p in pointers),
            *[(t, t.const(0))] * len(places),
        ]
        done = e.loop(0, w.size(self.depth), 1, step, carried)[len(pointers) :]
        for (line, v), value in zip(places, done, strict=True):
            scalar.store(e, self.target, self.dtype, lanes, value, place(line, v), masks[v])

    def _dot(self, lines: Sequence[list[str]], j: str, count: int) -> None:
        """Rows by `count` columns from `j` on: sums in lanes along k, then of the lanes."""
        w, e, lanes = self.w, self.e, self.lanes
        depth, out = w.size(self.depth), len(w.types) - 1
        columns = [plus(e, j, str(i)) for i in range(count)]
        a = [w.address(0, [*line, "0"]) for line in lines]
        b = [w.address(1, [*lines[0][:-1], "0", column]) for column in columns]

        def step(width: int) -> Callable[[str, list[str]], list[str]]:
            def terms(k: str, acc: list[str]) -> list[str]:
                masked = width > 1 and self.target.avx512
                mask = self._mask(e.value(f"sub i64 {depth}, {k}")) if masked else None
                x, y = (
                    [self._load(i, e.gep(p, k, self.sides[i][1]), width, mask) for p in side]
                    for i, side in enumerate((a, b))
                )
                return [
                    self._add(p, q, acc[i * count + c], width)
                    for i, p in enumerate(x)
                    for c, q in enumerate(y)
                ]

            return terms

        t, one = (VecType(scalar.elem(self.dtype), n) for n in (lanes, 1))
        whole = depth if self.target.avx512 else e.value(f"and i64 {depth}, {-lanes}")
        sums = e.loop(0, whole, lanes, step(lanes), [(t, t.const(0))] * (len(a) * count))
        total = [e.call(one, f"llvm.vector.reduce.add.{t.suffix}", (t, s)) for s in sums]
        if not self.target.avx512:
            total = e.loop(whole, depth, 1, step(1), [(one, s) for s in total])
        places = [[*line, column] for line in lines for column in columns]
        for place, value in zip(places, total, strict=True):
            w.store(out, place, value)

    def _mask(self, left: str) -> str:
        return lane_mask(self.e, VecType(self.elem, self.lanes), left)

    def _load(self, side: int, pointer: str, lanes: int, mask: str | None = None) -> str:
        """Of A or B, as numbers of the result's dtype."""
        dtype, _ = self.sides[side]
        value = scalar.load(self.e, self.target, dtype, lanes, pointer, mask)
        if dtype == self.dtype:
            return value
        given = {"a": (dtype, value)}
        return scalar.emit_scalar(self.e, self.target, "cast(a)", given, lanes=lanes, result=self.dtype)

    def _add(self, a: str, b: str, c: str, lanes: int) -> str:
        operands = {name: (self.dtype, value) for name, value in zip("abc", (a, b, c))}
        return scalar.emit_scalar(self.e, self.target, "a * b + c", operands, lanes=lanes, result=self.dtype)


def ceil_div(e: Emit, n: str, by: int) -> str:
    return e.value(f"sdiv i64 {plus(e, n, str(by - 1))}, {by}")


def pieces(e: Emit, begin: str, end: str, sizes: Sequence[int], body: Piece) -> None:
    """`body(start, size)` for pieces from `begin` to `end`: of the first of the falling sizes as many as there are, then of the
    next; the last is 1."""
    for size in sizes:
        count = e.value(f"sub i64 {end}, {begin}")
        whole = plus(e, begin, times(e, e.value(f"sdiv i64 {count}, {size}"), str(size)))
        e.loop(begin, whole, size, lambda i, _, size=size: body(i, size))  # type: ignore[misc]
        begin = whole
