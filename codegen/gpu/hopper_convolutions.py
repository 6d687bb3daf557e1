"""Convolutions of halves and their gradients on sm_90a, as products of warpgroups (hopper.py) over pixels.

What they read is copied first, so that channels lie dense: images are [groups, images, height, width, channels], filters
[taps, groups, filters, channels], rows of channels at multiples of 16 bytes.  A tile of the images is then one copy in the driver's
im2col mode, which walks pixels in their order, finds zeros around an image and steps by strides; a slice of k is a tap and 64 channels,
or, for the gradient of filters, 64 pixels, whose columns are blocks of 64 channels of one tap.  The gradient of images is a product
for each phase of the strides, over the taps that meet it.

It pays where there is work to hide three launches behind, and where at least a quarter of what tiles multiply, which are of 64 filters
and 64 channels, is there; the rest is for mma.sync (tensorcore.py).  So are three axes of space, sizes of run time but the number of
images, and what the driver's maps do not reach: corners of a byte, taps of 255 from the first, strides of 8.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from tcc.codegen.gpu import hopper
from tcc.codegen.gpu.convolutions import Conv, ConvFilter, ConvInput, Geometry
from tcc.codegen.gpu.hopper import DEPTH, LINES_STEP, Warpgroups
from tcc.codegen.gpu.kernel import GpuKernel, GpuSlot, TileMap, ceil_div
from tcc.codegen.gpu.maps import map_kernel
from tcc.codegen.gpu.turned import turned_kernel
from tcc.codegen.index import plus, times
from tcc.codegen.kernel import Operand, Scratch
from tcc.codegen.program import copies
from tcc.ir import dims
from tcc.ir.core import Op
from tcc.ir.dims import Size
from tcc.ir.types import HALVES, Type
from tcc.runtime.device_program import Walk

BLOCK = 64  # channels that are copied at once
LEAST_WORK = 1 << 28  # multiply-adds
LEAST_SLICES = 8  # of k in a part
SHARE = 4  # at least a part in so many of what is multiplied is there
LIKELY_IMAGES = 16  # where their number is one of run time
MOST_PHASES = 16  # of strides, each of which is a launch
MOST_OFFSET, CORNERS, MOST_STEP = 255, range(-128, 128), 8
PIECE = 8  # halves of 16 bytes


def fits(op: Op) -> bool:
    """Whether a placed convolution is for this form."""
    if op.name not in ("conv", "conv_input", "conv_filter"):
        return False
    a, b, c = op.operands[0].type, op.operands[1].type, op.operands[-1].type
    image, filters, result = {"conv": (a, b, c), "conv_input": (c, a, b), "conv_filter": (a, c, b)}[op.name]
    if a.dtype not in HALVES or a.dtype != b.dtype or a.rank not in (3, 4):
        return False
    sizes = [*image.shape[1:], *filters.shape, *result.shape[1:]]
    attrs = [n for name in ("pads", "strides", "dilation") for n in op.attrs[name]]
    if not all(isinstance(n, int) for n in [*sizes, *attrs]) or 0 in (image.shape[0], *sizes):
        return False
    if op.name == "conv_input" and math.prod(op.attrs["strides"]) > MOST_PHASES:
        return False
    products = _products(op)
    return all(p.reaches() for p in products) and products[0].pays()


def kernels(op: Op) -> list[GpuKernel]:
    """The copies of what is read, then the products."""
    products = _products(op)
    return [*(c.kernel() for c in products[0].copies), *(k for p in products for k in p.kernels())]


def _products(op: Op) -> list[_Pixels]:
    if op.name == "conv":
        return [_Conv(op)]
    if op.name == "conv_filter":
        return [_ConvFilter(op)]
    places = zip(op.attrs["strides"], map(dims.known, op.operands[-1].type.shape[2:]))
    return [_ConvInput(op, phase) for phase in itertools.product(*(range(min(s, n)) for s, n in places))]


def _likely(size: Size) -> int:
    return dims.evaluate(size, dict.fromkeys(dims.names_of(size), LIKELY_IMAGES))


class Copied(NamedTuple):
    """Operand number `operand` with its channels dense, as it is to lie in scratch memory: its axes where it lies now, channels last."""

    operand: int
    source: Type

    @property
    def pitch(self) -> int:
        """From channels to the next, in elements."""
        channels = self.source.shape[-1]
        assert isinstance(channels, int)
        return -(-channels // PIECE) * PIECE

    @property
    def slot(self) -> Scratch:
        bytes = 2 * self.pitch
        return Scratch(dims.mul(bytes, *self.source.shape[:-1]), 1 + self.operand)

    def kernel(self) -> GpuKernel:
        rows = Type(self.source.dtype, (*self.source.shape[:-1], self.pitch)).strides
        program = copies(self.source, self.source.at("arena", rows))
        made = turned_kernel(program) or map_kernel(program)
        places: dict[GpuSlot, GpuSlot] = {Operand(0): Operand(self.operand), Operand(1): self.slot}
        return replace(made, slots=tuple(places.get(s, s) for s in made.slots))


class Axis(NamedTuple):
    """How positions meet places along an axis: number p meets lower + p * step, and more at the taps behind the first one, in the
    order in which they are numbered here, `apart` from each other.  They are every `period`-th of the filter's `all_taps`, from `first` on.
    """

    places: int
    positions: int
    lower: int
    step: int
    taps: int
    apart: int
    all_taps: int
    first: int = 0
    period: int = 1

    @property
    def upper(self) -> int:
        """How far from the end of the places the last position lies."""
        return self.lower + (self.positions - 1) * self.step + 1 - self.places

    @property
    def reach(self) -> int:
        return max(self.taps - 1, 0) * abs(self.apart)

    @property
    def reaches(self) -> bool:
        """Whether a map can say so."""
        corners = self.lower in CORNERS and self.upper in CORNERS
        return corners and self.reach <= MOST_OFFSET and self.step <= MOST_STEP


# what a line of pixels has for a height
ONE = Axis(places=1, positions=1, lower=0, step=1, taps=1, apart=0, all_taps=1)


class _Pixels(Warpgroups, Geometry):
    """A product of which B is made of the pixels of images."""

    read: int  # the operand that has them

    def __init__(self, op: Op) -> None:
        super().__init__(op)
        own = [self.axis(a) for a in range(self.space)]
        self.axes = [ONE] * (2 - self.space) + own  # height and width

    def axis(self, a: int) -> Axis:
        """Of a convolution."""
        pads, strides, dilation = (self.op.attrs[n] for n in ("pads", "strides", "dilation"))
        places, pixels, taps = (dims.known(sizes[a]) for sizes in (self.places, self.pixels, self.taps))
        return Axis(places, pixels, -pads[2 * a], strides[a], taps, dilation[a], taps)

    # -- whether it may, and should ----------------------------------------------------------------------------------

    def reaches(self) -> bool:
        return self.meets_none or all(a.reaches for a in self.axes)

    @property
    def meets_none(self) -> bool:
        """Whether no tap meets anything."""
        return any(a.taps == 0 for a in self.axes)

    def pays(self) -> bool:
        filters, channels = _likely(self.filters), _likely(self.channels)
        pixels = _likely(self.images) * math.prod(map(_likely, self.pixels))
        work = self.groups * filters * channels * math.prod(map(_likely, self.taps)) * pixels
        tiled = -(-filters // BLOCK) * BLOCK * -(-channels // BLOCK) * BLOCK
        tiles = _likely(self.shape.tiles(self.batch, self.m, self.n)) * self.stretches
        return work >= LEAST_WORK and tiled <= SHARE * filters * channels and tiles >= hopper.LEAST_TILES

    # -- operands ----------------------------------------------------------------------------------------------------

    @property
    def copies(self) -> list[Copied]:
        """A's and B's."""
        return [self.filters_copied(), self.images_copied(self.read)]

    def images_copied(self, operand: int) -> Copied:
        """[groups, images, places.., channels]"""
        t = self.types[operand]
        image, channel, *places = t.strides
        channels = dims.floordiv(t.shape[1], self.groups)
        shape = (self.groups, t.shape[0], *t.shape[2:], channels)
        strides = (dims.mul(channels, channel), image, *places, channel)
        return Copied(operand, Type(t.dtype, shape).at("arena", strides))

    def filters_copied(self) -> Copied:
        """[taps.., groups, filters, channels]"""
        t = self.types[self.w]
        filter, channel, *taps = t.strides
        shape = (*self.taps, self.groups, self.filters, self.channels)
        return Copied(
            self.w,
            Type(t.dtype, shape).at("arena", (*taps, dims.mul(self.filters, filter), filter, channel)),
        )

    def maps(self) -> list[TileMap]:
        return [self.filter_map(), self.pixel_map(self.shape.columns)]

    def filter_map(self) -> TileMap:
        """Channels, filters, groups of all taps."""
        copied = self.filters_copied()
        sizes = self.channels, self.filters, dims.mul(self.groups, *self.taps)
        row = 2 * copied.pitch
        box = BLOCK, self.shape.rows if self.a_along_k else DEPTH
        return TileMap(copied.slot, sizes, (row, dims.mul(row, self.filters)), box, 2)

    def pixel_map(self, pixels: int) -> TileMap:
        copied = self.images_copied(self.read)
        height, width = self.axes
        row = 2 * copied.pitch
        sizes = (copied.source.shape[-1], width.places, height.places, dims.mul(self.groups, self.images))
        strides = (row, row * width.places, row * width.places * height.places)
        pairs = [(0, 0), (0, 0), (1, 1)]
        if not self.meets_none:
            pairs = [
                (width.lower, height.lower),
                (width.upper, height.upper),
                (width.step, height.step),
            ]
        return TileMap(copied.slot, sizes, strides, (BLOCK, pixels), 2, Walk(*pairs))

    def position(self, number: str) -> list[str]:
        """The column, row and image of the first tap of a pixel."""
        e = self.e
        image, *at = self.split(number, [self.images, *(a.positions for a in self.axes)])
        places = [plus(e, times(e, p, str(a.step)), str(a.lower)) for p, a in zip(at, self.axes)]
        return [*reversed(places), plus(e, times(e, self.z, self.size(self.images)), image)]

    def tap(self, number: str) -> tuple[str, list[str]]:
        """The number of a tap among all of the filter's, and how far right and down from the first one it lies."""
        e, found, offsets = self.e, "0", list[str]()
        for a, i in zip(self.axes, self.split(number, [a.taps for a in self.axes])):
            own = plus(e, times(e, i, str(a.period)), str(a.first))
            found = plus(e, times(e, found, str(a.all_taps)), own)
            offset = times(e, i, str(abs(a.apart)))
            offsets.insert(0, offset if a.apart >= 0 else e.value(f"sub i64 {a.reach}, {offset}"))
        return found, offsets

    def blocks_of(self, number: str, count: int) -> tuple[str, str]:
        """A tap, and the first channel of its block, of `count`, of a number of both."""
        tap, block = self.divider.split(number, str(count), True)
        return tap, times(self.e, block, str(BLOCK))

    # -- parts of k --------------------------------------------------------------------------------------------------

    @property
    def inner(self) -> int:
        """Blocks of the images' channels."""
        return -(-_likely(self.types[self.read].shape[1]) // self.groups // BLOCK)

    @property
    def all_slices(self) -> Size:
        return math.prod(a.taps for a in self.axes) * self.inner

    @functools.cached_property
    def stretches(self) -> int:  # type: ignore[override]
        """So that there are tiles for all multiprocessors, if k is long enough."""
        wanted = hopper.MULTIPROCESSORS // _likely(self.shape.tiles(self.batch, self.m, self.n))
        slices = self.all_slices
        if isinstance(slices, int):
            wanted = min(wanted, slices // LEAST_SLICES)
            return -(-slices // -(-slices // wanted)) if wanted > 1 else 1
        return max(wanted, 1)

    # -- the producer ------------------------------------------------------------------------------------------------

    def slice_count(self) -> str:
        return str(self.all_slices)

    def begin_copies(self) -> None:
        self.enter(self.number)
        self.first_tap = self.position(self.column)

    def copy_slice(self, base: str, full: str, s: str) -> None:
        """A tap, and a block of channels."""
        e = self.e
        number, channel = self.blocks_of(s, self.inner)
        tap, offsets = self.tap(number)
        matrix = plus(e, times(e, tap, str(self.groups)), self.z)
        self.copy(0, base, full, self.row, channel, matrix)
        self.call_copy("pixel_copy", self.b_place(base), full, 1, channel, *self.first_tap, *offsets)


class _Conv(_Pixels, Conv):
    read, b_along_k = 0, True


class _Phase(ConvInput):
    """The places of a phase of the strides."""

    phase: Sequence[int]

    def __init__(self, op: Op) -> None:
        super().__init__(op)
        pairs = zip(self.phase, op.attrs["strides"], self.places)
        self.own_places = [-(-(n - first) // step) for first, step, n in pairs]  # type: ignore[operator]
        self.n = dims.product([self.images, *self.own_places])


class _ConvInput(_Pixels, _Phase):
    read, b_along_k = 1, True

    def __init__(self, op: Op, phase: Sequence[int]) -> None:
        self.phase = phase
        super().__init__(op)

    def again(self) -> _ConvInput:
        return _ConvInput(self.op, self.phase)

    def axis(self, a: int) -> Axis:
        """Of this phase's places, which meet pixels: the later the tap, the further left."""
        step, dilation = self.op.attrs["strides"][a], self.op.attrs["dilation"][a]
        start = self.phase[a] + self.op.attrs["pads"][2 * a]
        pixels, own, taps = (dims.known(sizes[a]) for sizes in (self.pixels, self.own_places, self.taps))
        met = [t for t in range(taps) if (start - t * dilation) % step == 0]
        if not met:
            return Axis(pixels, own, 0, 1, 0, 0, taps)
        period = met[1] - met[0] if len(met) > 1 else 1
        lower = (start - met[-1] * dilation) // step
        apart = -(period * dilation // step)
        return Axis(pixels, own, lower, 1, len(met), apart, taps, met[0], period)

    def place(self, i: str, j: str) -> list[str]:
        e = self.e
        image, *own = self.split(j, [self.images, *self.own_places])
        steps = zip(own, self.op.attrs["strides"], self.phase)
        places = [plus(e, times(e, p, str(step)), str(first)) for p, step, first in steps]
        return [image, self.in_group(i, self.channels), *places]

    def result_steps(self) -> list[Size] | None:
        return super().result_steps() if all(s == 1 for s in self.op.attrs["strides"]) else None


class _Blocks(ConvFilter):
    """Filters by blocks of channels of each tap."""

    def __init__(self, op: Op) -> None:
        super().__init__(op)
        self.padded = -(-_likely(self.channels) // BLOCK) * BLOCK
        self.n = dims.mul(self.padded, *self.taps)


class _ConvFilter(_Pixels, _Blocks):
    read = 0

    def __init__(self, op: Op) -> None:
        super().__init__(op)
        self.a_along_k = self.b_along_k = False

    def reaches(self) -> bool:
        """What lies behind the last pixel of a group is the next one's, which may be NaN."""
        apart = self.groups == 1 or dims.mod(self.k, DEPTH) == 0
        return apart and super().reaches()

    @property
    def copies(self) -> list[Copied]:
        return [self.images_copied(self.y), self.images_copied(self.read)]

    def maps(self) -> list[TileMap]:
        """Of A filters, pixels and groups."""
        copied = self.images_copied(self.y)
        row = 2 * copied.pitch
        sizes, strides = (self.filters, self.k, self.groups), (row, dims.mul(row, self.k))
        return [TileMap(copied.slot, sizes, strides, (BLOCK, DEPTH), 2), self.pixel_map(DEPTH)]

    @property
    def all_slices(self) -> Size:
        return ceil_div(self.k, DEPTH)

    def slice_count(self) -> str:
        return self.parts(self.k, DEPTH)

    def begin_copies(self) -> None:
        """Columns' blocks; those that are not there have channels that are not."""
        e = self.e
        self.enter(self.number)
        self.blocks = []
        for block in range(self.shape.columns // BLOCK):
            column = plus(e, self.column, str(block * BLOCK))
            there = e.value(f"icmp slt i64 {column}, {self.n}")
            some = e.value(f"select i1 {there}, i64 {column}, i64 0")
            tap, channel = self.blocks_of(e.value(f"udiv i64 {some}, {BLOCK}"), self.padded // BLOCK)
            channel = e.value(f"select i1 {there}, i64 {channel}, i64 {self.padded}")
            self.blocks.append((channel, self.tap(tap)[1]))

    def copy_slice(self, base: str, full: str, s: str) -> None:
        """Some pixels."""
        k = times(self.e, s, str(DEPTH))
        self.copy(0, base, full, self.row, k, self.z)
        first = self.position(k)
        for block, (channel, offsets) in enumerate(self.blocks):
            target = self.e.gep(self.b_place(base), block * LINES_STEP)
            self.call_copy("pixel_copy", target, full, 1, channel, *first, *offsets)

    def place(self, i: str, j: str) -> list[str]:
        tap, channel = self.divider.split(j, str(self.padded), True)
        return [self.in_group(i, self.filters), channel, *self.split(tap, self.taps)]

    def in_columns(self, j: str) -> str:
        _, channel = self.divider.split(j, str(self.padded), True)
        there = self.e.value(f"icmp slt i64 {channel}, {self.size(self.channels)}")
        return self.e.value(f"and i1 {super().in_columns(j)}, {there}")

    def result_steps(self) -> list[Size] | None:
        return None
