"""Blocks of memory that are turned: what lies dense along one axis comes to lie dense along another.

Square tiles of as many rows as a row has lanes, a cache line or 16 at most, are turned in registers, in log2(lanes) rounds of
pairwise shuffles (Eklundh, 1972).  Tiles are taken in square blocks, so that a cache line which two tiles share, on either
side, is still in the nearest caches when the second one comes.
"""

from __future__ import annotations

from tcc.codegen.emit import Emit, VecType
from tcc.codegen.index import plus, times
from tcc.codegen.target import Target
from tcc.ir.types import itemsize

BLOCK = 64  # elements of a block's side
TILE = 16  # most lanes of a tile


def tile_lanes(dtype: str, target: Target) -> int:
    return max(2, min(TILE, target.vector_bits // (8 * itemsize(dtype))))


class Turning:
    """Writes what turns blocks: element (i, j) is read at i + j * `read` and written at j + i * `write`, in elements."""

    def __init__(self, e: Emit, elem: str, side: int, read: str, write: str) -> None:
        self.e, self.elem, self.side, self.read, self.write = e, elem, side, read, write

    def block(self, source: str, target: str, i0: str, i1: str, j0: str, j1: str) -> None:
        """Rows i of the result from i0 to before i1, columns j from j0 to before j1."""
        i_end, j_end = self._whole(i0, i1), self._whole(j0, j1)

        def over(low: str, high: str, step: int, left: str, right: str, write: bool) -> None:
            def column(j: str, _: list[str]) -> None:
                self.e.loop(
                    left,
                    right,
                    step,
                    lambda i, _: (self._tile if write else self._element)(source, target, i, j),
                )

            self.e.loop(low, high, step, column)

        over(j0, j_end, self.side, i0, i_end, True)
        over(j0, j_end, 1, i_end, i1, False)
        over(j_end, j1, 1, i0, i1, False)

    def _whole(self, start: str, end: str) -> str:
        """Where the last whole tile of [start, end) ends."""
        e = self.e
        return plus(e, start, e.value(f"and i64 {e.value(f'sub i64 {end}, {start}')}, {-self.side}"))

    def _places(self, source: str, target: str, i: str, j: str) -> tuple[str, str]:
        e = self.e
        read, write = plus(e, i, times(e, j, self.read)), plus(e, j, times(e, i, self.write))
        return e.gep(source, read, self.elem), e.gep(target, write, self.elem)

    def _element(self, source: str, target: str, i: str, j: str) -> None:
        e, bytes = self.e, VecType(self.elem).bytes
        read, write = self._places(source, target, i, j)
        e.line(
            f"store {self.elem} {e.value(f'load {self.elem}, ptr {read}, align {bytes}')}, ptr {write}, align {bytes}"
        )

    def _tile(self, source: str, target: str, i: str, j: str) -> None:
        e, t = self.e, VecType(self.elem, self.side)
        columns = []
        for k in range(self.side):
            read, _ = self._places(source, target, i, plus(e, j, str(k)))
            columns.append(e.value(f"load {t}, ptr {read}, align {t.bytes}"))
        rows, h = columns, self.side // 2
        while h:
            low = [k if not k & h else self.side + k - h for k in range(self.side)]
            high = [k + h if not k & h else self.side + k for k in range(self.side)]
            for k in range(self.side):
                if not k & h:
                    a, b = rows[k], rows[k + h]
                    rows[k], rows[k + h] = self._shuffled(t, a, b, low), self._shuffled(t, a, b, high)
            h //= 2
        for k, row in enumerate(rows):
            _, write = self._places(source, target, plus(e, i, str(k)), j)
            e.line(f"store {t} {row}, ptr {write}, align {t.bytes}")

    def _shuffled(self, t: VecType, a: str, b: str, lanes: list[int]) -> str:
        index = ", ".join(f"i32 {k}" for k in lanes)
        return self.e.value(f"shufflevector {t} {a}, {t} {b}, <{t.lanes} x i32> <{index}>")
