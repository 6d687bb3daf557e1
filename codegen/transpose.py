"""Copies that turn memory: what lies dense along one axis comes to lie dense along another.

A unit of parallel work is a strip of the blocks of tcc.codegen.turning.
"""

from __future__ import annotations

from tcc.codegen import scalar
from tcc.codegen.index import at_most, plus, times
from tcc.codegen.kernel import Kernel, finish
from tcc.codegen.nest import Nest
from tcc.codegen.program import Program
from tcc.codegen.target import Target
from tcc.codegen.turning import BLOCK, Turning, tile_lanes
from tcc.ir.dims import Size


def turns(program: Program, target: Target) -> bool:
    """Whether a copy is dense along different axes on its two sides, each at least a tile long as far as is known."""
    read, write, inner = program.reads[0], program.writes[0], len(program.sizes) - 1
    across = _dense_axis(program)
    if across is None or write.strides[inner] != 1 or read.strides[inner] == 1:
        return False
    sides = (program.sizes[across], program.sizes[inner])
    return all(not isinstance(s, int) or s >= tile_lanes(read.dtype, target) for s in sides)


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

    def kernel(self) -> Kernel:
        e, sizes = self.e, self.program.sizes
        self.begin_body()
        blocks = self.blocks(sizes[self.across])
        m, n = self.size(sizes[self.across]), self.size(sizes[self.inner])
        strides = self.size(self.read.strides[self.inner]), self.size(self.write.strides[self.across])
        elem = scalar.memory_elem(self.read.dtype)
        turning = Turning(e, elem, tile_lanes(self.read.dtype, self.target), *strides)

        def unit(u: str, _: list[str]) -> None:
            outer = self.unravel(e.value(f"udiv i64 {u}, {blocks}"), self.outer) if self.outer else []
            at = [*outer[: self.across], "0", *outer[self.across :]]
            source, target = self.base(self.read, at), self.base(self.write, at)
            first = times(e, e.value(f"urem i64 {u}, {blocks}"), str(BLOCK))
            last = at_most(e, plus(e, first, str(BLOCK)), m)
            e.loop(
                0,
                n,
                BLOCK,
                lambda j, _: turning.block(
                    source, target, first, last, j, at_most(e, plus(e, j, str(BLOCK)), n)
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
