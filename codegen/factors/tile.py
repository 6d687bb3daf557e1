"""Register tiles of factors and solutions: some rows by some vectors of columns.

All that is done here is one chain for each element, of `x - sum over p of a[., p] * b[p, .]` with p ascending, which a reciprocal or
nothing ends.  Where tiles begin and how high they are does not change it, so the bits are the same for known and run-time sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tcc.codegen import scalar
from tcc.codegen.emit import VecType
from tcc.codegen.gather import Places
from tcc.codegen.index import Index
from tcc.codegen.nest import Position, Vectors
from tcc.codegen.products.record import thread_scratch
from tcc.codegen.target import Target
from tcc.codegen.vectors import LINE, fetch, lane_mask, load, splat
from tcc.ir import dims
from tcc.ir.core import Op
from tcc.ir.dims import Size

AHEAD = 8  # steps
Acc = list[list[str]]  # rows of vectors


class Tiles(Places):
    """A kernel being written over tiles of at most `rows` rows and `strip` vectors."""

    def __init__(self, op: Op, target: Target) -> None:
        super().__init__(op, target)
        self.x = Index(self.e)
        self.dtype = self.types[0].dtype
        self.elem = scalar.elem(self.dtype)
        self.one = VecType(self.elem)
        self.vector = target.vector(self.elem)
        self.strip_vectors = 3
        self.width = self.strip_vectors * self.vector.lanes
        self.rows = min(8 if target.registers >= 32 else 4, self.width)
        self.piece = VecType(self.elem, min(self.rows, self.vector.lanes))

    @property
    def vectors(self) -> Vectors:
        return Vectors(self.e, self.target, self.size)

    # -- addresses ------------------------------------------------------------------------------------------------------

    def at(self, base: str, *steps: tuple[int | str, int | str]) -> str:
        """`base` moved by the sum of (number, stride in elements)."""
        offset: int | str = 0
        for number, stride in steps:
            offset = self.x.add(offset, self.x.mul(number, stride))
        return self.e.gep(base, offset, self.elem)

    def stride(self, i: int, axis: int) -> int | str:
        """Of an operand, in elements."""
        s = self.types[i].strides[axis]
        return s if isinstance(s, int) else self.size(s)

    def matrix(self, i: int, batch: Sequence[str]) -> str:
        """The address of a matrix of operand `i`."""
        return self.address(i, [*batch, "0", "0"])

    def scratch(self) -> str:
        return thread_scratch(self.e, self.x, "%thread")

    def rounded(self, n: Size) -> Size:
        """To whole tiles."""
        return dims.mul(dims.floordiv(dims.add(n, self.rows - 1), self.rows), self.rows)

    def row_pitch(self, n: Size) -> Size:
        """Of rows of `n` elements in scratch memory, whose ends a strip may go past: an odd number of cache lines, so that a column
        lies in all sets of the first-level cache."""
        line = LINE // self.one.bytes
        lines = dims.floordiv(dims.add(dims.add(self.rounded(n), self.width), line), 2 * line)
        return dims.add(dims.mul(lines, 2 * line), line)

    # -- vectors --------------------------------------------------------------------------------------------------------

    def number(self, pointer: str) -> str:
        return self.e.value(f"load {self.one}, ptr {pointer}, align {self.one.bytes}")

    def spread(self, t: VecType, pointer: str) -> str:
        """The number at an address in every lane."""
        return splat(self.e, t, self.number(pointer))

    def lane(self, t: VecType, vector: str, i: int) -> str:
        return vector if t.lanes == 1 else self.e.value(f"extractelement {t} {vector}, i64 {i}")

    def less_product(self, t: VecType, c: str, a: str, b: str) -> str:
        """c - a * b, as the machine does it best."""
        e = self.e
        if self.target.fma:
            minus = e.value(f"fneg {t} {a}")
            return e.call(t, f"llvm.fma.{t.suffix}", (t, minus), (t, b), (t, c))
        return e.value(f"fsub {t} {c}, {e.value(f'fmul {t} {a}, {b}')}")

    def reciprocal(self, number: str) -> str:
        return self.e.value(f"fdiv {self.one} {self.one.const(1)}, {number}")

    def mask(self, t: VecType, left: int | str) -> str | None:
        """The lanes that exist where `left` elements are left; None for all."""
        if isinstance(left, int) and left >= t.lanes:
            return None
        return lane_mask(self.e, t, str(left))

    def read(self, t: VecType, base: str, stride: Size, mask: str | None) -> str:
        """Elements any stride apart."""
        return self.vectors.load(self.dtype, base, stride, Position("0", t.lanes, mask or ""))

    def write(self, t: VecType, value: str, base: str, stride: Size, mask: str | None) -> None:
        self.vectors.store(self.dtype, value, base, stride, Position("0", t.lanes, mask or ""))

    def turned(self, rows: Sequence[str]) -> list[str]:
        """The columns of as many pieces as they have lanes: halves are exchanged, then quarters, and so on.  (Gathers take longer.)"""
        t, made = self.piece, list(rows)
        half = t.lanes // 2
        while half:
            low = [k if not k & half else t.lanes + k - half for k in range(t.lanes)]
            high = [k + half if not k & half else t.lanes + k for k in range(t.lanes)]
            for k in range(t.lanes):
                if k & half:
                    continue
                pair = made[k], made[k + half]
                made[k], made[k + half] = (self.shuffled(t, *pair, lanes) for lanes in (low, high))
            half //= 2
        return made

    def small(self, n: Size, *strides: int | str) -> bool:
        """Whether a whole matrix of dense rows is one piece."""
        return isinstance(n, int) and 0 < n <= self.piece.lanes > 1 and all(s == 1 for s in strides)

    def columns_of(self, base: str, row: int | str, n: int) -> list[str]:
        """Of a small matrix, with zeros behind them."""
        t = self.piece
        lines = [load(self.e, t, self.at(base, (s, row)), self.mask(t, n)) for s in range(n)]
        return self.turned([*lines, *[t.const(0)] * (t.lanes - n)])[:n]

    def shuffled(self, t: VecType, a: str, b: str, lanes: Sequence[int]) -> str:
        numbers = ", ".join(f"i32 {k}" for k in lanes)
        return self.e.value(f"shufflevector {t} {a}, {t} {b}, <{len(lanes)} x i32> <{numbers}>")

    def joined(self, parts: Sequence[str]) -> str:
        """Pieces as a vector."""
        parts, t = list(parts), self.piece
        while len(parts) > 1:
            lanes = range(2 * t.lanes)
            parts = [self.shuffled(t, a, b, lanes) for a, b in zip(parts[::2], parts[1::2], strict=True)]
            t = VecType(t.elem, 2 * t.lanes)
        return parts[0]

    def both(self, first: int | str, second: int | str) -> str:
        """An i1 of two sizes that are conditions."""
        return self.e.value(f"icmp ne i64 {self.x.both(first, second)}, 0")

    # -- tiles ----------------------------------------------------------------------------------------------------------

    def update(
        self,
        t: VecType,
        acc: Acc,
        depth: int | str,
        a: str,
        a_row: int | str,
        a_step: int | str,
        b: str,
        b_step: int | str,
        rows: Sequence[int | str] = range(16),
    ) -> Acc:
        """acc[r] - sum over p < depth of a[rows[r] * a_row + p * a_step] * b[p * b_step + ...]."""
        e, width = self.e, len(acc[0])
        panel = b_step == width * t.lanes
        offsets = [self.x.mul(row, a_row) for row in rows[: len(acc)]]

        def step(_: str, carried: list[str]) -> list[str]:
            a_at, b_at, *flat = carried
            right = [load(e, t, e.gep(b_at, v * t.lanes, self.elem)) for v in range(width)]
            if a_step not in (1, -1):  # no two steps in one line
                fetch(e, e.gep(a_at, self.x.mul(AHEAD, a_step), self.elem), 0)
            for v in range(0 if panel else width):
                fetch(e, e.gep(b_at, self.x.add(self.x.mul(AHEAD, b_step), v * t.lanes), self.elem), 0)
            made = []
            for r, offset in enumerate(offsets):
                left = self.spread(t, e.gep(a_at, offset, self.elem))
                made += [self.less_product(t, flat[r * width + v], left, right[v]) for v in range(width)]
            return [e.gep(a_at, a_step, self.elem), e.gep(b_at, b_step, self.elem), *made]

        starts: list[tuple[VecType | str, str]] = [
            ("ptr", a),
            ("ptr", b),
            *((t, v) for vs in acc for v in vs),
        ]
        _, _, *flat = e.loop(0, depth, 1, step, starts)
        return [flat[r * width : (r + 1) * width] for r in range(len(acc))]

    def eliminate(
        self,
        t: VecType,
        acc: Acc,
        factor: Callable[[int, int], str],
        finish: Callable[[int, list[str]], list[str]],
    ) -> Acc:
        """Rows in their order: `finish(r, vectors)` ends a row, which then leaves those behind it, `factor(s, r)` times."""
        acc = [list(row) for row in acc]
        for r in range(len(acc)):
            acc[r] = finish(r, acc[r])
            for s in range(r + 1, len(acc)):
                left = factor(s, r)
                acc[s] = [self.less_product(t, c, left, b) for c, b in zip(acc[s], acc[r], strict=True)]
        return acc
