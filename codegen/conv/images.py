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

from tcc.codegen.conv.axes import Run
from tcc.codegen.conv.channels import ByChannels, by_channels_is_possible
from tcc.codegen.conv.kernel import Conv
from tcc.codegen.conv.plan import ConvPlan
from tcc.codegen.conv.text import Number, best_tile, round_bytes
from tcc.codegen.conv.tile import ConvTile
from tcc.codegen.emit import VecType
from tcc.codegen.index import Index
from tcc.codegen.kernel import Kernel
from tcc.codegen.products.pack import copy_transposed, pack_name
from tcc.codegen.target import Target
from tcc.codegen.vectors import load, store
from tcc.ir.core import Op
from tcc.ir.dims import known
from tcc.ir.types import dense_strides

MOST_ENTRIES = 1 << 12  # of the table of taps
_TURN = 6  # cycles for a vector that is turned and copied
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


class _ByImages(ConvTile):
    def __init__(self, op: Op, target: Target) -> None:
        super().__init__(op, target)
        self.images = known(self.source.shape[0])
        self.space, self.kernel_size, self.pixels = (
            [known(s) for s in self.three(t.shape[2:], 1)] for t in (self.source, self.filters, self.result)
        )
        self.met = self._taps()
        entries = sum(map(len, self.met))
        self.inside, self.made = math.prod(self.space), math.prod(self.pixels)
        channels, m = known(self.depth_channels), known(self.m)
        depth = max(channels * entries // self.made, 1)
        cycles, self.h, self.v = best_tile(
            self.t, target, m, self.images, depth, aligned=True, ends=True, lines=(-1, 0)
        )
        self.width = self.v * self.t.lanes
        self.tiles = -(-m // self.h)
        vectors = -(-self.images // self.t.lanes) * (channels * self.inside + 2 * m * self.made)
        self.filters_stay = self.tiles * self.h * channels * math.prod(self.kernel_size) * self.t.bytes <= (
            target.l2_bytes // _NEAR
        )
        end = _STEP_END if self.filters_stay else _FAR_END
        self.whole_cycles = end * cycles * self.made + _TURN * vectors
        if entries > MOST_ENTRIES:
            self.whole_cycles = math.inf
        self.merged = self.direct = False

    def _taps(self) -> list[list[tuple[int, int]]]:
        """For each pixel of the result: the taps that meet an element of the source, and that element."""
        lines = []
        for axis in range(3):
            lo, stride, dilation = known(self.pads()[axis]), self.strides[axis], self.dilation[axis]
            line: list[list[tuple[int, int]]] = []
            for o in range(self.pixels[axis]):
                at: list[tuple[int, int]] = []
                for tap in range(self.kernel_size[axis]):
                    i, rest = o * stride + tap * dilation - lo, 0
                    if not self.forward:
                        i, rest = divmod(o + lo - tap * dilation, stride)
                    if not rest and 0 <= i < self.space[axis]:
                        at.append((tap, i))
                line.append(at)
            lines.append(line)
        _, sh, sw = self.space
        _, kh, kw = self.kernel_size
        return [
            [((a * kh + b) * kw + c, (i * sh + j) * sw + k) for (a, i), (b, j), (c, k) in itertools.product(*at)]
            for at in itertools.product(*lines)
        ]  # fmt: skip

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
        most = max(
            min(blocks, round_bytes(self.target) // ((self.turned_block + self.made_block) * bytes)), 1
        )
        pack = self.reserve(known(self.tiles) * self.h * channels * taps * bytes)
        self.turned = self.reserve(most * self.turned_block * bytes)
        self.results = self.reserve(most * self.made_block * bytes)
        self.turn = self.helper(copy_transposed(self.t, self.target), pack_name(self.t, "turn"))
        rest = -(-(self.images % self.width) // self.t.lanes)
        for v in sorted({self.v, rest or self.v}):
            self._write_sum(v)
        self.write_edge()
        self.write_pack(0, tuple(Run(0, 1, k, 0, 0, 0, 1, 0, 1) for k in self.kernel_size), table_too=False)
        self._write_turn()
        self._write_pixels(rest)
        self._write_back()

        e = self.begin_kernel()
        x = Index(e)
        self.put("pack", self.scratch(pack))
        self.parallel("pack0", known(self.tiles), channels * taps * self.h * 32)

        def round(first: str, _: list[str]) -> None:
            """Some blocks of images."""
            count = x.min(x.sub(blocks, first), most)
            self.put("first", first)
            self.put("count", count)
            self.parallel("turn", x.mul(count, channels), self.inside * self.v * 64)
            entries = sum(map(len, self.met)) * channels // self.made
            cost = self.h * self.v * (entries * 8 + 64)
            self.parallel("pixels", x.mul(count, self.made * known(self.tiles)), cost)
            self.parallel("back", x.mul(count, known(self.m)), self.made * self.v * 96)

        e.loop(0, blocks, most, round)
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

    def _write_sum(self, v: int) -> None:
        """`sum(args, a, b, c, taps, count)`: c[h, v vectors] are the sums over channels, then over the taps in a table."""
        e, t, h = self.e, self.t, self.h
        places = ("ptr noalias readonly %a", "ptr noalias readonly %b", "ptr noalias %c")
        self.begin_function(f"sum{v}", *places, "ptr noalias readonly %taps", "i64 %count")

        def channel(_: str, s: list[str]) -> list[str]:
            def tap(k: str, acc: list[str]) -> list[str]:
                entry = e.gep("%taps", k, "i64")
                where = [e.value(f"load i32, ptr {e.gep(entry, i, 'i32')}, align 4") for i in range(2)]
                a, b = (e.gep(p, e.value(f"sext i32 {w} to i64")) for p, w in zip(s[:2], where))
                vectors = [load(e, t, e.gep(b, j * t.lanes, t.elem)) for j in range(v)]
                return self.multiply([e.gep(a, i, t.elem) for i in range(h)], vectors, acc)

            acc = e.loop(0, "%count", 1, tap, [(t, p) for p in s[2:]])
            a = e.gep(s[0], math.prod(self.kernel_size) * h, t.elem)
            return [a, e.gep(s[1], self.inside * self.width, t.elem), *acc]

        start: list[tuple[VecType | str, str]] = [("ptr", "%a"), ("ptr", "%b")]
        start += [(t, "zeroinitializer")] * (h * v)
        done = e.loop(0, self.size(self.depth_channels), 1, channel, start)[2:]
        for i, value in enumerate(done):
            place = (i // v * self.made * self.width) + i % v * t.lanes
            store(e, t, value, e.gep("%c", place, t.elem))
        e.end()

    def _write_pixels(self, rest: int) -> None:
        """Body over (block, pixel of the result, tile of its channels).  Filters that do not stay in a near cache from pixel to
        pixel meet all pixels tile by tile."""
        e = self.begin_body("pixels")
        x, t = Index(e), self.t
        turned, results, pack = self.scratch(self.turned), self.scratch(self.results), self.get("pack")
        each: list[int] = []
        starts = [0]
        for met in self.met:
            for tap, element in met:
                each += [tap * self.h * t.bytes, element * self.width * t.bytes]
            starts.append(len(each) // 2)
        taps, ends = self._constant(each or [0]), self._constant(starts)

        def unit(u: str, _: list[str]) -> None:
            if self.filters_stay:
                both, number = self.divide(x, u, self.size(self.tiles))
                block, pixel = self.divide(x, both, self.made)
            else:
                both, pixel = self.divide(x, u, self.made)
                block, number = self.divide(x, both, self.size(self.tiles))
            at = e.gep(ends, pixel, "i32")
            places_of = [e.value(f"load i32, ptr {e.gep(at, i, 'i32')}, align 4") for i in range(2)]
            bounds = [e.value(f"sext i32 {i} to i64") for i in places_of]
            b = e.gep(turned, x.mul(block, self.turned_block), t.elem)
            c = e.gep(results, x.add(x.mul(block, self.made_block), x.mul(pixel, self.width)), t.elem)
            function = f"@KERNEL_NAME.sum{self.v}"
            if rest:
                count = self._images_of(x, block)[1]
                full = e.value(f"icmp eq i64 {count}, {self.width}")
                function = e.value(f"select i1 {full}, ptr {function}, ptr @KERNEL_NAME.sum{rest}")

            a = e.gep(pack, x.mul(number, x.mul(self.size(self.depths[0]), self.h)), t.elem)
            to = e.gep(c, x.mul(number, self.h * self.made * self.width), t.elem)
            places = (("ptr", "%args"), ("ptr", a), ("ptr", b), ("ptr", to))
            these = (("ptr", e.gep(taps, bounds[0], "i64")), ("i64", x.sub(bounds[1], bounds[0])))
            self.call_by(function, *places, *these)

        e.loop("%begin", "%end", 1, unit)
        e.end()

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
