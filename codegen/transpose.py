"""Copies that turn memory: what lies dense along one axis comes to lie dense along another.

Square tiles of as many rows as a row has lanes, a cache line or 16 at most, are turned in registers, in log2(lanes) rounds of
pairwise shuffles (Eklundh, 1972).  Tiles are taken in square blocks, so that a cache line which two tiles share, on either
side, is still in the nearest caches when the second one comes.  A unit of parallel work is a strip of blocks.
"""

from __future__ import annotations

from tcc.codegen import scalar
from tcc.codegen.emit import VecType
from tcc.codegen.kernel import Kernel, finish, plus, times
from tcc.codegen.nest import Nest
from tcc.codegen.program import Program
from tcc.codegen.target import Target
from tcc.ir.dims import Size
from tcc.ir.types import itemsize

BLOCK = 64  # elements of a block's side
TILE = 16  # most lanes of a tile


def turns(program: Program, target: Target) -> bool:
    """Whether a copy is dense along different axes on its two sides, each at least a tile long as far as is known."""
    read, write, inner = program.reads[0], program.writes[0], len(program.sizes) - 1
    across = _dense_axis(program)
    if across is None or write.strides[inner] != 1 or read.strides[inner] == 1:
        return False
    sides = (program.sizes[across], program.sizes[inner])
    return all(not isinstance(s, int) or s >= tile_lanes(read.dtype, target) for s in sides)


def tile_lanes(dtype: str, target: Target) -> int:
    return max(2, min(TILE, target.vector_bits // (8 * itemsize(dtype))))


def _dense_axis(program: Program) -> int | None:
    """An outer axis along which the source lies dense."""
    strides = program.reads[0].strides[:-1]
    return next((a for a, s in enumerate(strides) if s == 1 and program.sizes[a] != 1), None)


def transpose_kernel(program: Program, target: Target) -> Kernel:
    return _Transpose(program, target).kernel()


class _Transpose(Nest):
    def __init__(self, program: Program, target: Target) -> None:
        super().__init__(program, target)
        self.read, self.write = program.reads[0], program.writes[0]
        across = _dense_axis(program)
        assert across is not None
        self.across = across
        self.outer = [a for a in range(self.inner) if a != across]
        self.elem = scalar.memory_elem(self.read.dtype)
        self.side = tile_lanes(self.read.dtype, target)

    def kernel(self) -> Kernel:
        e, sizes = self.e, self.program.sizes
        self.begin_body()
        blocks = self.blocks(sizes[self.across])
        m, n = self.size(sizes[self.across]), self.size(sizes[self.inner])

        def unit(u: str, _: list[str]) -> None:
            outer = self.unravel(e.value(f"udiv i64 {u}, {blocks}"), self.outer) if self.outer else []
            at = [*outer[: self.across], "0", *outer[self.across :]]
            source, target = self.base(self.read, at), self.base(self.write, at)
            first = times(e, e.value(f"urem i64 {u}, {blocks}"), str(BLOCK))
            last = self.least(plus(e, first, str(BLOCK)), m)
            e.loop(
                0,
                n,
                BLOCK,
                lambda j, _: self.block(
                    source, target, first, last, j, self.least(plus(e, j, str(BLOCK)), n)
                ),
            )

        e.loop("%begin", "%end", 1, unit)
        e.end()
        self.begin_kernel()
        units = times(e, self.count(self.outer), self.blocks(sizes[self.across]))
        self.parallel(units, times(e, self.size(sizes[self.inner]), str(8 * BLOCK)))
        e.end("i32 0")
        return finish(e, tuple(self.slots.slots), "transpose")

    def blocks(self, size: Size) -> str:
        return self.e.value(f"sdiv i64 {plus(self.e, self.size(size), str(BLOCK - 1))}, {BLOCK}")

    def least(self, a: str, b: str) -> str:
        return self.e.call("i64", "llvm.smin.i64", ("i64", a), ("i64", b))

    def whole(self, start: str, end: str) -> str:
        """Where the last whole tile of [start, end) ends."""
        e = self.e
        return plus(e, start, e.value(f"and i64 {e.value(f'sub i64 {end}, {start}')}, {-self.side}"))

    def block(self, source: str, target: str, i0: str, i1: str, j0: str, j1: str) -> None:
        """Rows i of the result from i0 to before i1, columns j from j0 to before j1."""
        e, side = self.e, self.side
        i_end, j_end = self.whole(i0, i1), self.whole(j0, j1)

        def over(low: str, high: str, step: int, left: str, right: str, write: bool) -> None:
            def column(j: str, _: list[str]) -> None:
                e.loop(
                    left,
                    right,
                    step,
                    lambda i, _: (self.tile if write else self.element)(source, target, i, j),
                )

            e.loop(low, high, step, column)

        over(j0, j_end, side, i0, i_end, True)
        over(j0, j_end, 1, i_end, i1, False)
        over(j_end, j1, 1, i0, i1, False)

    def places(self, source: str, target: str, i: str, j: str) -> tuple[str, str]:
        e = self.e
        read = plus(e, i, times(e, j, self.size(self.read.strides[self.inner])))
        write = plus(e, j, times(e, i, self.size(self.write.strides[self.across])))
        return e.gep(source, read, self.elem), e.gep(target, write, self.elem)

    def element(self, source: str, target: str, i: str, j: str) -> None:
        e, bytes = self.e, VecType(self.elem).bytes
        read, write = self.places(source, target, i, j)
        e.line(
            f"store {self.elem} {e.value(f'load {self.elem}, ptr {read}, align {bytes}')}, ptr {write}, align {bytes}"
        )

    def tile(self, source: str, target: str, i: str, j: str) -> None:
        e, t = self.e, VecType(self.elem, self.side)
        rows = []
        for k in range(self.side):
            read, _ = self.places(source, target, i, plus(e, j, str(k)))
            rows.append(e.value(f"load {t}, ptr {read}, align {t.bytes}"))
        h = self.side // 2
        while h:
            low = [k if not k & h else self.side + k - h for k in range(self.side)]
            high = [k + h if not k & h else self.side + k for k in range(self.side)]
            for k in range(self.side):
                if not k & h:
                    a, b = rows[k], rows[k + h]
                    rows[k], rows[k + h] = self.shuffled(t, a, b, low), self.shuffled(t, a, b, high)
            h //= 2
        for k, row in enumerate(rows):
            _, write = self.places(source, target, plus(e, i, str(k)), j)
            e.line(f"store {t} {row}, ptr {write}, align {t.bytes}")

    def shuffled(self, t: VecType, a: str, b: str, lanes: list[int]) -> str:
        index = ", ".join(f"i32 {k}" for k in lanes)
        return self.e.value(f"shufflevector {t} {a}, {t} {b}, <{t.lanes} x i32> <{index}>")
