"""Convolution with images as the lanes of vectors, where the borders are a great part of the work.

The source is turned, so that a vector holds one element of neighbouring images, and so are the results at the end.  Each
pixel of the result then has just the taps that meet the source there, whatever the strides: the gradient by the image of an
unpadded convolution of small images multiplies many zeros otherwise.  An element is the same chain as in `conv/kernel.py`,
without those steps that add zero.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from tcc.codegen.conv.axes import Run
from tcc.codegen.conv.channels import ByChannels
from tcc.codegen.conv.channels_plan import by_channels_is_possible
from tcc.codegen.conv.kernel import Conv
from tcc.codegen.conv.plan import TURN, ConvPlan
from tcc.codegen.conv.text import ROUND_ROOM, Number, best_tile, round_bytes
from tcc.codegen.conv.tile import ConvTile
from tcc.codegen.conv.walk import Walk, kept_apart
from tcc.codegen.emit import VecType
from tcc.codegen.index import Index
from tcc.codegen.kernel import Kernel
from tcc.codegen.products.pack import copy_transposed, pack_name
from tcc.codegen.target import Target
from tcc.codegen.vectors import load, store
from tcc.ir.core import Op
from tcc.ir.dims import known
from tcc.ir.types import dense_strides
from tcc.runtime import layout as at

MOST_ENTRIES = 1 << 12  # taps that all results of an image meet
_MOST_TEXT = 1 << 12  # multiply-adds that stand in the text one by one
_LEAN = 0.93  # of the model's time for tiles by channels, whose vectors are aligned, beside that by pixels
_NEAR = 4  # which part of the second-level cache filters may fill to be met again pixel by pixel
_STEP_END = 1.1  # what short loops over taps take longer
_FAR_END = 1.5  # and those over taps of filters that come from far


def conv_kernel(op: Op, target: Target) -> Kernel:
    """A placed `conv` or `conv_input`, by the way that takes less time."""
    by_pixels = Conv(op, target)
    n = by_pixels.source.shape[0]
    images = n if isinstance(n, int) else 1
    best: Conv | ByChannels | _ByImages = by_pixels
    least = by_pixels.cycles * (1 if by_pixels.merged else images)
    if by_channels_is_possible(by_pixels):
        by_channels = ByChannels(op, target)
        whole = by_channels.whole_cycles * images
        if _LEAN * whole + by_channels.filters_cycles < least + by_pixels.filters_cycles:
            best, least = by_channels, _LEAN * whole
    if _is_possible(by_pixels):
        by_images = _ByImages(op, target)
        if by_images.whole_cycles < least:
            best = by_images
    return best.kernel()


def _is_possible(c: ConvPlan) -> bool:
    """Sizes are known, the last axes are dense, and most of the filters' taps meet nothing somewhere."""
    sizes = [*c.source.shape, *c.filters.shape, *c.result.shape, *c.pads()]
    if c.groups != 1 or not all(isinstance(s, int) for s in sizes) or 0 in sizes[: -len(c.pads())]:
        return False
    source, result = c.source, c.result
    dense = source.strides[1:] == dense_strides(source.shape[1:])
    if not dense or result.strides[2:] != dense_strides(result.shape[2:]):
        return False
    taps, pixels = (math.prod(map(known, t.shape[2:])) for t in (c.filters, result))
    return known(source.shape[0]) >= c.t.lanes and 1 < taps and taps * pixels <= 4 * MOST_ENTRIES


@dataclass(frozen=True)
class _Met:
    """What one result meets along an axis: the first tap, the source's element there, and how many taps."""

    tap: int
    element: int
    count: int


@dataclass(frozen=True)
class _Neighbours:
    """Of so many results in a row: for each of the taps that some of them meet, from the first of these, which element of the
    source each result meets, from the first of those."""

    count: int
    taps: tuple[tuple[int, tuple[int | None, ...]], ...]


class _ByImages(ConvTile):
    """A tile is [h channels, some neighbours in a row of results, v vectors of images]."""

    def __init__(self, op: Op, target: Target) -> None:
        super().__init__(op, target)
        self.images = known(self.source.shape[0])
        self.space, self.kernel_size, self.pixels = (
            [known(s) for s in self.three(t.shape[2:], 1)] for t in (self.source, self.filters, self.result)
        )
        self.met = [self._along(axis) for axis in range(3)]
        self.inside, self.made = math.prod(self.space), math.prod(self.pixels)
        self.merged = self.direct = False
        entries = math.prod(sum(m.count for m in line) for line in self.met)
        cycles = self._tile(max(known(self.depth_channels) * entries // self.made, 1))
        self.width = self.v * self.t.lanes
        self.tiles = -(-known(self.m) // self.h)
        vectors = -(-self.images // self.t.lanes) * (
            known(self.depth_channels) * self.inside + 2 * known(self.m) * self.made
        )
        of_tile = known(self.depth_channels) * math.prod(self.kernel_size) * self.h * self.t.bytes
        tile_stays = of_tile <= target.l1_bytes * 3 // 4
        all_stay = self.tiles * of_tile <= target.l2_bytes // _NEAR
        self.tile_by_tile = tile_stays or not all_stay
        end = _STEP_END if all_stay else _FAR_END
        self.whole_cycles = end * cycles + TURN * vectors
        text = sum(len(some.taps) for some in {some for _, _, some in self._groups()})
        if entries > MOST_ENTRIES or text * self.h * self.row * self.v > _MOST_TEXT:
            self.whole_cycles = math.inf

    def _tile(self, depth: int) -> float:
        """The cycles of all tiles of so many steps."""
        how = self.t, self.target, known(self.m)
        if self.target.avx512:
            self.row = 1
            cycles, self.h, self.v = best_tile(*how, self.images, depth, aligned=True, ends=True)
            return cycles * self.made
        # neighbours meet the same elements, which are in the first-level cache then
        across, self.v = self.pixels[2], 1
        cycles, self.h, self.row = best_tile(*how, across * self.t.lanes, depth, aligned=True, ends=True)
        return cycles * (self.made // across) * -(-self.images // self.t.lanes)

    def _along(self, axis: int) -> list[_Met]:
        """For each result along an axis; taps and elements are `apart`."""
        lo, stride, dilation = known(self.pads()[axis]), self.strides[axis], self.dilation[axis]
        line = []
        for o in range(self.pixels[axis]):
            at: list[tuple[int, int]] = []
            for tap in range(self.kernel_size[axis]):
                i, rest = o * stride + tap * dilation - lo, 0
                if not self.forward:
                    i, rest = divmod(o + lo - tap * dilation, stride)
                if not rest and 0 <= i < self.space[axis]:
                    at.append((tap, i))
            line.append(_Met(*(at[0] if at else (0, 0)), len(at)))
        return line

    def _apart(self, axis: int) -> tuple[int, int]:
        """From one tap that a result meets to the next: (taps, elements)."""
        stride, dilation = self.strides[axis], self.dilation[axis]
        if self.forward:
            return 1, dilation
        common = math.gcd(stride, dilation)
        return stride // common, -dilation // common

    def _groups(self) -> list[tuple[int, int, _Neighbours]]:
        """Of a row of results, some at a time: the first tap and element, and what they meet from there."""
        line, groups = self.met[2], []
        (tap_step, step), end = self._apart(2), len(self.met[2])
        for begin in range(0, end, self.row):
            some = line[begin : begin + self.row]
            met = [{m.tap + i * tap_step: m.element + i * step for i in range(m.count)} for m in some]
            taps = sorted(set().union(*met))
            first = taps[0] if taps else 0
            element = min((i for at in met for i in at.values()), default=0)
            steps = tuple(
                (tap - first, tuple(at[tap] - element if tap in at else None for at in met)) for tap in taps
            )
            groups.append((first, element, _Neighbours(len(some), steps)))
        return groups

    def _constant(self, values: Sequence[int]) -> str:
        """The name of a table in the code."""
        text = f"[{len(values)} x i32] [{', '.join(f'i32 {v}' for v in values)}]"
        name = f"@tcc_taps_{hashlib.sha256(text.encode()).hexdigest()[:20]}"
        self.e.declare(f"{name} = internal constant {text}")
        return name

    def kernel(self) -> Kernel:
        taps, bytes = math.prod(self.kernel_size), self.t.bytes
        channels = known(self.depth_channels)
        self.depths = [channels * taps]
        self.turned_block = channels * self.inside * self.width
        self.made_block = known(self.tiles) * self.h * self.made * self.width
        blocks = -(-self.images // self.width)
        most = max(round_bytes(self.target) // ((self.turned_block + self.made_block) * bytes), 1)
        room = min(blocks, most * ROUND_ROOM)
        pack = self.reserve(known(self.tiles) * self.h * channels * taps * bytes)
        self.turned = self.reserve(room * self.turned_block * bytes)
        self.results = self.reserve(room * self.made_block * bytes)
        self.turn = self.helper(copy_transposed(self.t, self.target), pack_name(self.t, "turn"))
        rest = -(-(self.images % self.width) // self.t.lanes)
        groups = self._groups()
        kinds = sorted({some for _, _, some in groups}, key=str)
        for v in sorted({self.v, rest or self.v}):
            for number, some in enumerate(kinds):
                self._write_sum(f"sum{number}of{v}", some, v)
        self.write_edge()
        self.write_pack(0, tuple(Run(0, 1, k, 0, 0, 0, 1, 0, 1) for k in self.kernel_size), table_too=False)
        self._write_turn()
        self._write_pixels([(tap, element, kinds.index(some)) for tap, element, some in groups], rest)
        self._write_back()

        e = self.begin_kernel()
        x = Index(e)
        self.put("pack", self.scratch(pack))
        self.parallel("pack0", known(self.tiles), channels * taps * self.h * 32)

        threads = e.value(f"load i64, ptr {e.gep('%ctx', at.CTX_THREADS, 'i64')}")
        at_once = x.min(x.mul(x.max(threads, 1), most), room)

        def round(first: str, _: list[str]) -> None:
            """As many blocks of images as stay in the threads' near caches."""
            count = x.min(x.sub(blocks, first), at_once)
            self.put("first", first)
            self.put("count", count)
            self.parallel("turn", x.mul(count, channels), self.inside * self.v * 64)
            entries = math.prod(sum(m.count for m in line) for line in self.met) * channels // self.made
            cost = self.h * self.row * self.v * (entries * 8 + 64)
            self.parallel("pixels", x.mul(count, self._rows() * len(groups) * known(self.tiles)), cost)
            self.parallel("back", x.mul(count, known(self.m)), self.made * self.v * 96)

        e.loop(0, blocks, at_once, round)
        return self.finish(self.op.name, thread_scratch=self.width * self._line() * bytes)

    def _line(self) -> int:
        """Elements from one image to the next of a channel's results that are turned back."""
        return -(-self.made // self.t.lanes) * self.t.lanes

    def _step(self) -> Number:
        return 1

    def _images_of(self, x: Index, block: Number) -> tuple[Number, Number]:
        """(the first image, how many) of a block of the round."""
        first = x.mul(x.add(self.get("first", "i64"), block), self.width)
        return first, x.min(x.sub(self.images, first), self.width)

    def _write_turn(self) -> None:
        """Body over (block, channel of the source): images beside one another."""
        e = self.begin_body("turn")
        x, t = Index(e), self.t
        channels, sn = self.depth_channels, self.size(self.source.strides[0])
        source, turned = self.pointer(self.si), self.scratch(self.turned)

        def unit(u: str, _: list[str]) -> None:
            block, c = self.divide(x, u, self.size(channels))
            first, count = self._images_of(x, block)
            read = e.gep(source, x.add(x.mul(first, sn), x.mul(c, self.inside)), t.elem)
            to = e.gep(turned, x.mul(u, self.inside * self.width), t.elem)
            places = (("ptr", read), ("i64", x.mul(sn, t.bytes)), ("ptr", to), ("i64", self.width * t.bytes))
            self.call_by(self.turn, *places, ("i64", count), ("i64", self.inside), ("i64", 0))

        e.loop("%begin", "%end", 1, unit)
        e.end()

    def _rows(self) -> int:
        """Of results, of an image and a channel."""
        return self.pixels[0] * self.pixels[1]

    def _write_sum(self, name: str, some: _Neighbours, v: int) -> None:
        """`name(args, a, b, c, deep, down)`: c[h, some of a row, v vectors] are the sums over channels, and so many taps along the
        first two axes, of what `some` results in a row meet."""
        e, t, h = self.e, self.t, self.h
        places = ("ptr noalias readonly %a", "ptr noalias readonly %b", "ptr noalias %c")
        self.begin_function(name, *places, "i64 %deep", "i64 %down")
        tap, element = h * t.bytes, self.width * t.bytes
        row = some.count

        def taps(_: Number, places: list[str], sums: list[str]) -> tuple[list[str], list[str]]:
            for number, (from_first, met) in enumerate(some.taps):
                if number:
                    places = kept_apart(e, places)
                a, b = e.gep(places[0], from_first * tap), places[1]
                there = [(p, j, i) for p, i in enumerate(met) if i is not None for j in range(v)]
                vectors = [load(e, t, e.gep(b, i * element + j * t.lanes * t.bytes)) for _, j, i in there]
                at = [(i * row + p) * v + j for i in range(h) for p, j, _ in there]
                filters = [e.gep(a, i, t.elem) for i in range(h)]
                for k, value in zip(at, self.multiply(filters, vectors, [sums[k] for k in at]), strict=True):
                    sums[k] = value
            return kept_apart(e, places), sums

        levels: list[tuple[Number, tuple[int, int]]] = []
        tap_size, size = math.prod(self.kernel_size), self.inside
        levels.append((self.size(self.depth_channels), (tap_size * tap, size * element)))
        for axis, count in ((0, "%deep"), (1, "%down")):
            tap_size, size = tap_size // self.kernel_size[axis], size // self.space[axis]
            taps_apart, apart = self._apart(axis)
            if any(m.count != 1 for m in self.met[axis]):
                levels.append((count, (taps_apart * tap_size * tap, apart * size * element)))
        walk = Walk(tuple(levels), ((0, 0),))
        start: list[tuple[VecType, str]] = [(t, "zeroinitializer")] * (h * row * v)
        done = walk.through(e, levels[0][0], [(0, "%a"), (1, "%b")], start, taps)
        for k, value in enumerate(done):
            i, rest = divmod(k, row * v)
            p, j = divmod(rest, v)
            place = (i * self.made + p) * self.width + j * t.lanes
            store(e, t, value, e.gep("%c", place, t.elem))
        e.end()

    def _write_pixels(self, groups: Sequence[tuple[int, int, int]], rest: int) -> None:
        """Body over (block, group of neighbouring results, tile of their channels).  Filters of which a tile's stay in the
        first-level cache meanwhile, or that do not all stay in a near one, meet all results tile by tile."""
        e = self.begin_body("pixels")
        x, t = Index(e), self.t
        turned, results, pack = self.scratch(self.turned), self.scratch(self.results), self.get("pack")
        _, kh, kw = self.kernel_size
        _, sh, sw = self.space
        tap, element = self.h * t.bytes, self.width * t.bytes
        rows: list[int] = []
        for deep, down in itertools.product(*self.met[:2]):
            taps, elements = deep.tap * kh + down.tap, deep.element * sh + down.element
            rows += [taps * kw * tap, elements * sw * element, deep.count, down.count]
        of_rows = self._constant(rows)
        of_groups = self._constant([n for i, j, which in groups for n in (i * tap, j * element, which)])

        def numbers(table: str, number: Number, count: int) -> list[str]:
            at = e.gep(table, x.mul(number, count), "i32")
            found = [e.value(f"load i32, ptr {e.gep(at, i, 'i32')}, align 4") for i in range(count)]
            return [e.value(f"sext i32 {n} to i64") for n in found]

        def unit(u: str, _: list[str]) -> None:
            if self.tile_by_tile:
                both, pixel = self.divide(x, u, self._rows() * len(groups))
                block, number = self.divide(x, both, self.size(self.tiles))
            else:
                both, number = self.divide(x, u, self.size(self.tiles))
                block, pixel = self.divide(x, both, self._rows() * len(groups))
            row, group = self.divide(x, pixel, len(groups))
            a_row, b_row, deep, down = numbers(of_rows, row, 4)
            a_group, b_group, which = numbers(of_groups, group, 3)
            first = x.add(x.mul(row, self.pixels[2]), x.mul(group, self.row))
            b = e.gep(turned, x.mul(block, self.turned_block), t.elem)
            c = e.gep(results, x.add(x.mul(block, self.made_block), x.mul(first, self.width)), t.elem)
            a = e.gep(pack, x.mul(number, x.mul(self.size(self.depths[0]), self.h)), t.elem)
            to = e.gep(c, x.mul(number, self.h * self.made * self.width), t.elem)
            places = (
                ("ptr", e.gep(a, x.add(a_row, a_group))),
                ("ptr", e.gep(b, x.add(b_row, b_group))),
                ("ptr", to),
            )
            function = self._function(x, which, 1 + max(n for _, _, n in groups), block, rest)
            self.call_by(function, ("ptr", "%args"), *places, ("i64", deep), ("i64", down))

        e.loop("%begin", "%end", 1, unit)
        e.end()

    def _function(self, x: Index, which: str, kinds: int, block: Number, rest: int) -> str:
        """That which of these it is, for the images of a block."""
        e = self.e

        def of_vectors(v: int) -> str:
            function = f"@KERNEL_NAME.sum0of{v}"
            for number in range(1, kinds):
                this = e.value(f"icmp eq i64 {which}, {number}")
                function = e.value(f"select i1 {this}, ptr @KERNEL_NAME.sum{number}of{v}, ptr {function}")
            return function

        if not rest or rest == self.v:
            return of_vectors(self.v)
        full = e.value(f"icmp eq i64 {self._images_of(x, block)[1]}, {self.width}")
        return e.value(f"select i1 {full}, ptr {of_vectors(self.v)}, ptr {of_vectors(rest)}")

    def _write_back(self) -> None:
        """Body over (block, channel of the result): each image's pixels to their places, through the op's block."""
        e = self.begin_body("back")
        x, t = Index(e), self.t
        results, lines, to = self.scratch(self.results), self.thread_scratch(), self.pointer(2)
        sn, sc = (self.size(s) for s in self.result.strides[:2])
        m = self.size(self.m)

        def unit(u: str, _: list[str]) -> None:
            block, channel = self.divide(x, u, m)
            first, count = self._images_of(x, block)
            at = x.add(x.mul(block, self.made_block), x.mul(channel, self.made * self.width))
            width, line = self.width * t.bytes, self._line()
            places = (
                ("ptr", e.gep(results, at, t.elem)),
                ("i64", width),
                ("ptr", lines),
                ("i64", line * t.bytes),
            )
            self.call_by(self.turn, *places, ("i64", self.made), ("i64", count), ("i64", 0))

            def image(i: str, _: list[str]) -> None:
                number = x.add(first, i)
                place = e.gep(to, x.add(x.mul(number, sn), x.mul(channel, sc)), t.elem)
                ends = (("ptr", "%args"), ("ptr", e.gep(lines, x.mul(i, line), t.elem)), ("ptr", place))
                which = (("i64", self.made), ("i64", 1), ("i64", number), ("i64", channel), ("i64", 0))
                self.call("edge", *ends, *which)

            e.loop(0, count, 1, image)

        e.loop("%begin", "%end", 1, unit)
        e.end()
