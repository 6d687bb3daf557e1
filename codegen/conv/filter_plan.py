"""What is decided of the gradient of a convolution by its filters before text is written: its tile, what that reads, and
where its sums belong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from tcc.codegen.conv.axes import MOST_TAPS, Axis, ceil_div, forward_axis
from tcc.codegen.conv.text import ConvText, Number, best_tile
from tcc.codegen.index import Index
from tcc.codegen.target import Target
from tcc.ir.core import Op
from tcc.ir.dims import Size, add, floordiv, known, maximum, minimum, mul, sub
from tcc.ir.types import Place, Type, dense_strides

MOST_ROWS = 28  # of a tile
PARTS = 8  # of the images
PARTS_BYTES = 1 << 20  # of the sums of all parts


class FilterPlan(ConvText):
    """A placed `conv_filter`."""

    in_vectors = True  # a tile's row is a vector of filters, or some

    def __init__(self, op: Op, target: Target) -> None:
        super().__init__(op, target)
        self.groups = int(op.attrs["groups"])
        x, g, out = self.types
        matrices = self.one_tap(out, x, g)
        if matrices:
            self._take_matrices()
            x, g, out = self.types
        self.filters, self.per_group = floordiv(out.shape[0], self.groups), out.shape[1]
        self.space, self.taps, self.pixels = (self.three(t.shape[2:], 1) for t in (x, out, g))
        pads = self.pads()
        self.axes: list[Axis] = [
            forward_axis(
                self.space[i],
                self.taps[i],
                self.pixels[i],
                pads[i],
                self.strides[i],
                self.dilation[i],
                i == 2,
            )
            for i in range(3)
        ]
        self.inner = 0  # of how many of the last axes the taps are rows of one tile
        self.window = 1  # taps that share what they read
        self.h, self.v, self.channels_at_once = self._tile(mul(self.pixels[1], self.pixels[2]))
        self.in_place = False
        if self.per_group and (matrices or self._skips_borders()):
            self.in_place = True
            self.channels_at_once = min(self.channels_at_once, known(self.per_group))
            self.h = self.channels_at_once * math.prod(self.taps[3 - self.inner :])
            self.axes = [replace(a, pitch=s, share=0) for a, s in zip(self.axes, self.space)]
        self.width = self.v * self.t.lanes
        self.blocks = ceil_div(self.filters, self.width)
        self.row_blocks = ceil_div(self.per_group, self.channels_at_once)
        self.outer = self.taps[: 3 - self.inner]
        self.units = mul(self.groups, self.blocks, *self.outer, self.row_blocks)
        self.pixel_count: Size = mul(*self.pixels)
        self.turned_image: Size = mul(self.groups, self.blocks, self.pixel_count, self.width)
        bytes = maximum(mul(*out.shape, self.t.bytes * PARTS), 1)
        parts = add(1, mul(PARTS - 1, minimum(1, floordiv(PARTS_BYTES, bytes))))
        self.parts = minimum(parts, maximum(x.shape[0], 1))
        self.part = floordiv(sub(add(x.shape[0], self.parts), 1), self.parts)  # images

    def _tile(self, pixels: Size) -> tuple[int, int, int]:
        """(rows, vectors, channels) of a tile.  Rows are channels, or channels and the inner taps, which may share what they
        read, whatever takes the least time."""
        how = self.t, self.target, self.per_group, self.filters, pixels, True
        cycles, h, v = best_tile(*how)  # for a tap
        channels = h
        for inner, rows, some in self._rows_with_taps():
            whole, _, wide = best_tile(self.t, self.target, rows, self.filters, pixels, True, whole=rows)
            each = whole * -(-known(self.per_group) // some) * some / rows
            if each < cycles:
                cycles, h, v, channels, self.inner = each, rows, wide, some, inner
        taps, count = self.taps[2], self.pixels[2]
        near = self.strides[2] == self.dilation[2] == 1 and self.inner < 2
        if not near or not isinstance(taps, int) or not isinstance(count, int):
            return h, v, channels
        most = min(MOST_TAPS, ((32 if self.target.avx512 else 16) - 1) // 2)  # for a row of a vector
        if not 1 < taps <= min(count, most):
            return h, v, channels
        with_taps, few, wide = best_tile(*how, taps=taps)
        if with_taps >= cycles * taps:
            return h, v, channels
        self.inner, self.window = 1, taps
        return few * taps, wide, few

    def _rows_with_taps(self) -> list[tuple[int, int, int]]:
        """(how many of the last axes, rows, channels) of tiles whose rows are channels and the taps of those axes."""
        found = []
        most = min((32 if self.target.avx512 else 16) - 2, MOST_ROWS)
        for inner in (1, 2):
            taps = mul(*self.taps[3 - inner :])
            if not isinstance(taps, int) or not isinstance(self.per_group, int) or not 0 < taps <= most:
                continue
            at_once = {
                -(-self.per_group // -(-self.per_group // c))
                for c in range(1, min(most // taps, self.per_group) + 1)
            }
            found += [(inner, taps * c, c) for c in sorted(at_once)]
        return found

    def _skips_borders(self) -> bool:
        """Whether tiles may leave out what meets no element of the image, so that this needs no zeros around it."""
        x, pads = self.types[0], self.op.attrs["pads"]

        if not all(isinstance(s, int) for s in (*self.space, *self.taps, *self.pixels, *pads)):
            return False
        if self.window == 1 or {*self.strides} != {1} or x.strides[2:] != dense_strides(x.shape[2:]):
            return False
        before = known(self.axes[2].lo)
        return before < self.window and known(self.pixels[2]) <= before + known(self.space[2])

    def _met(self, x: Index, axis: int, tap: Number) -> tuple[Number, Number]:
        """The first pixel that a tap meets along an axis, and that behind the last one."""
        count = self.size(self.pixels[axis])
        if not self.in_place:
            return 0, count
        before = self.size(self.axes[axis].lo)
        here = x.sub(before, x.mul(tap, self.dilation[axis]))
        return x.max(here, 0), x.min(x.add(here, self.size(self.space[axis])), count)

    def _take_matrices(self) -> None:
        """All pixels on one axis; the operand of fewer channels is the one that is turned."""
        x, g, out = self.types
        pixels, strides = mul(*x.shape[2:]), out.strides
        if self.groups == 1 and known(x.shape[1]) < known(g.shape[1]):
            x, g = g, x
            self.order = (1, 0, 2)
            strides = (strides[1], strides[0])
        shape = (g.shape[1], floordiv(x.shape[1], self.groups), 1)
        self.types = [
            *(Type(t.dtype, (*t.shape[:2], pixels), Place((*t.strides[:2], 1))) for t in (x, g)),
            Type(out.dtype, shape, Place((*strides[:2], 1))),
        ]
        self.strides = self.dilation = [1, 1, 1]

    def _tap_offset(self, x: Index, axis: int, tap: Number) -> Number:
        """Elements from the first tap's place to another's along an axis."""
        u = x.mul(tap, self.dilation[axis])
        z, phase = self.divide(x, u, self.strides[axis])
        for a in self.axes[axis + 1 :]:
            z, phase = x.mul(z, self.size(a.pitch)), x.mul(phase, a.phases)
        return x.add(z, x.mul(phase, self.size(self.plane)))

    def row_of(self, r: Number, x: Index) -> tuple[Number, list[Number]]:
        """(channel, taps along the inner axes) of row r of a tile, the channel from the tile's first."""
        taps: list[Number] = []
        for size in reversed(self.taps[3 - self.inner :]):
            r, tap = self.divide(x, r, int(size))
            taps.insert(0, tap)
        return r, taps

    def row_offsets(self, x: Index) -> list[Number]:
        """Of what the rows of a tile meet, from its first."""
        offsets: list[Number] = []
        for r in range(self.h):
            channel, taps = self.row_of(r, x)
            offset = x.mul(channel, self.size(self.channel))
            for axis, tap in zip(range(3 - self.inner, 3), taps):
                offset = x.add(offset, self._tap_offset(x, axis, tap))
            offsets.append(offset)
        return offsets

    def first_channel(self, x: Index, block: Number) -> Number:
        """Of a block of channels.  In an image that is read in place nothing lies behind the last channel: the last block goes
        back over channels of the one before."""
        first = x.mul(block, self.size(self.channels_at_once))
        return x.min(first, known(self.per_group) - self.channels_at_once) if self.in_place else first

    def sums_row(self, x: Index, block: Number, channel: Number, taps: Sequence[Number]) -> Number:
        """Which of all tiles' rows has the sums of a tap of a channel, for a block of filters, counted through the groups."""
        k = block
        outer = 3 - self.inner
        for size, tap in zip(self.outer, taps):
            k = x.add(x.mul(k, self.size(size)), tap)
        rows = x.div(channel, self.size(self.channels_at_once))
        row = x.sub(channel, self.first_channel(x, rows))
        k = x.add(x.mul(k, self.size(self.row_blocks)), rows)
        for size, tap in zip(self.taps[outer:], taps[outer:]):
            row = x.add(x.mul(row, self.size(size)), tap)
        return x.add(x.mul(k, self.h), row)

    def tile_start(self, x: Index, u: str) -> tuple[Number, Number, Number, list[Number]]:
        """(group, block of filters, where an image's element is that the first row's first pixel meets, outer taps)."""
        group, block, taps, rows = self.unit_of(x, u)
        channel = x.add(x.mul(group, self.size(self.per_group)), self.first_channel(x, rows))
        start = x.mul(channel, self.size(self.channel))
        for axis, tap in enumerate(taps):
            start = x.add(start, self._tap_offset(x, axis, tap))
        return group, block, start, taps

    def unit_of(self, x: Index, u: str) -> tuple[Number, Number, list[Number], Number]:
        """(group, block of filters, outer taps, block of channels) of a tile."""
        rest, rows = self.divide(x, u, self.size(self.row_blocks))
        taps: list[Number] = []
        for size in reversed(self.outer):
            rest, tap = self.divide(x, rest, self.size(size))
            taps.insert(0, tap)
        group, block = self.divide(x, rest, self.size(self.blocks))
        return group, block, taps, rows

    def finish_row(self, c: str, row: str) -> None:
        """What is left to do to a row's sums."""
