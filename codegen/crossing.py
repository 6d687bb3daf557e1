"""Rows whose operands lie dense across them: tiles of these are turned into scratch memory, where rows are runs.

A row's elements lie far apart then, each in a cache line, and mostly in a page, of its own; its neighbours in these lines are those
of the next rows.  So rows are taken in bands, and a line is read once for all its rows.  A map takes a band tile by tile; a row
kernel, which visits a row more than once, has a whole band turned.
"""

from __future__ import annotations

from collections.abc import Sequence

from tcc.codegen import scalar
from tcc.codegen.index import at_most, plus, times
from tcc.codegen.nest import Nest
from tcc.codegen.program import Access, Program
from tcc.codegen.target import Target
from tcc.codegen.turning import BLOCK, Turning, tile_lanes
from tcc.ir.dims import Size
from tcc.ir.types import itemsize

BAND_ROWS = 16  # of a row kernel: float32 numbers of a cache line


class Crossing(Nest):
    """What `turn_reads` finds is read in tiles, in the order of `tiles`."""

    outer: Sequence[int]

    def __init__(self, program: Program, target: Target) -> None:
        super().__init__(program, target)
        self.crossing: list[Access] = []  # the operands that lie across the rows, if they are turned
        self.turned: dict[Access, str] = {}  # where element 0 of row 0 would be, by the tile's pitch
        self.tile_rows = self.tile_columns = 0

    def turn_reads(self, whole_rows: bool) -> None:
        """Decides which operands of a nest of rows are turned; what visits rows more than once, or at once, needs `whole_rows`."""
        axis, length = self.inner - 1, self.program.sizes[self.inner]
        rows = self.program.sizes[axis]
        across = [
            a for a in self.program.reads if a.strides[axis] == 1 and a.strides[self.inner] not in (0, 1)
        ]
        if not across or self.lanes == 1:
            return
        if isinstance(rows, int) and rows < min(tile_lanes(a.dtype, self.target) for a in across):
            return  # such rows lie close to each other
        if not whole_rows:
            self.crossing, self.tile_rows, self.tile_columns = across, BLOCK, self.step
        elif isinstance(length, int):  # else nobody knows how much memory a band takes
            columns = -(-length // self.lanes) * self.lanes
            if 2 * sum(BAND_ROWS * columns * itemsize(a.dtype) for a in across) <= self.target.l2_bytes:
                self.crossing, self.tile_rows, self.tile_columns = across, BAND_ROWS, columns

    @property
    def step(self) -> int:
        """Elements that a round of a row's main loop takes."""
        raise NotImplementedError

    def row(self, indices: Sequence[str], start: str, stop: str) -> None:
        """Writes what a kernel does in [start, stop) of a row."""
        raise NotImplementedError

    def spill_bytes(self) -> Size:
        """What the rows themselves keep in scratch memory."""
        raise NotImplementedError

    def bands(self) -> str:
        """How many bands of `tile_rows` there are along the last outer axis."""
        up = self.e.value(f"add i64 {self.size(self.program.sizes[self.outer[-1]])}, {self.tile_rows - 1}")
        return self.e.value(f"sdiv i64 {up}, {self.tile_rows}")

    def tiles(self) -> None:
        """Each unit is a band of rows, which is walked tile by tile."""
        e, axis = self.e, self.outer[-1]
        n, rows, bands = (
            self.size(self.program.sizes[self.inner]),
            self.size(self.program.sizes[axis]),
            self.bands(),
        )

        def band(unit: str, _: list[str]) -> None:
            above = self.unravel(e.value(f"udiv i64 {unit}, {bands}"), self.outer[:-1])
            first = times(e, e.value(f"urem i64 {unit}, {bands}"), str(self.tile_rows))
            last = at_most(e, plus(e, first, str(self.tile_rows)), rows)

            def tile(start: str, _: list[str]) -> None:
                stop = at_most(e, plus(e, start, str(self.tile_columns)), n)
                self.turn(above, first, last, start, stop)
                e.loop(first, last, 1, lambda row, _: self.row([*above, row], start, stop))

            e.loop(0, n, self.tile_columns, tile)

        e.loop("%begin", "%end", 1, band)

    def turn(self, above: Sequence[str], first: str, last: str, start: str, stop: str) -> None:
        """Copies elements [start, stop) of the rows [first, last), at the outer indices `above`, of each such operand into scratch
        memory."""
        e = self.e
        offset = self.spill_bytes()
        for access in self.crossing:
            elem, bytes = scalar.memory_elem(access.dtype), itemsize(access.dtype)
            buffer = e.gep(self.scratch(), self.size(offset))
            offset = offset + self.tile_bytes(access)
            stride, pitch = self.size(access.strides[self.inner]), str(self.tile_columns)
            source = e.gep(self.base(access, [*above, first]), times(e, start, stride), elem)
            rows, columns = e.value(f"sub i64 {last}, {first}"), e.value(f"sub i64 {stop}, {start}")
            turning = Turning(e, elem, tile_lanes(access.dtype, self.target), stride, pitch)
            turning.block(source, buffer, "0", rows, "0", columns)
            before = plus(e, times(e, first, pitch), start)
            self.turned[access] = self.moved(buffer, e.value(f"mul i64 {before}, {-bytes}"))

    def moved(self, pointer: str, bytes: str) -> str:
        """May point in front of the memory, where element 0 of row 0 would be."""
        return self.e.value(f"getelementptr i8, ptr {pointer}, i64 {bytes}")

    def tile_bytes(self, access: Access) -> int:
        return -(-self.tile_rows * self.tile_columns * itemsize(access.dtype) // 64) * 64

    def at_point(self, indices: Sequence[str]) -> None:
        super().at_point(indices)
        for access in self.crossing:
            row = times(self.e, indices[-1], str(self.tile_columns * itemsize(access.dtype)))
            self.bases[access.slot] = self.moved(self.turned[access], row)

    def row_stride(self, access: Access) -> Size:
        return 1 if access in self.crossing else super().row_stride(access)
