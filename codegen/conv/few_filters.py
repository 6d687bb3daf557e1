"""The gradient of a convolution by few filters, such as those of a depthwise one, with pixels as the lanes of vectors.

Vectors of filters would have idle lanes.  g is copied with the pitch of the padded image, so that all pixels of an image are
one run; a register tile of (channels or taps) x filters multiplies vectors of both runs and adds up in lanes.  What lies
behind a row of g is left out by a mask, since the image may be infinite there.  An element is a sum in each lane over images,
then vectors of pixels; parts of the images, then lanes are added up in a fixed order.
"""

from __future__ import annotations

from collections.abc import Callable

from tcc.codegen.conv.axes import ceil_div
from tcc.codegen.conv.filter import ConvFilter
from tcc.codegen.conv.text import Number
from tcc.codegen.emit import VecType
from tcc.codegen.index import Index
from tcc.codegen.kernel import Kernel
from tcc.codegen.products.dot import sum_lanes
from tcc.codegen.target import Target
from tcc.codegen.vectors import load, store
from tcc.ir.core import Op
from tcc.ir.dims import Size, add, floordiv, known, mul, sub


def conv_filter_kernel(op: Op, target: Target) -> Kernel:
    """A placed `conv_filter`.  What decides is known whatever the images' sizes, so that the bits are the same."""
    by_filters = ConvFilter(op, target)
    out = op.operands[-1].type
    filters = floordiv(out.shape[0], int(op.attrs["groups"]))
    few = isinstance(filters, int) and 0 < 2 * filters <= by_filters.t.lanes
    one_tap = {*out.shape[2:]} == {1}
    return (FewFilters(op, target) if few and not one_tap else by_filters).kernel()


class FewFilters(ConvFilter):
    """A placed `conv_filter` of at most half a vector of filters in each group."""

    in_vectors = False

    def __init__(self, op: Op, target: Target) -> None:
        super().__init__(op, target)
        deep, down, across = self.pixels
        pitch_h, pitch = self.axes[1].pitch, self.axes[2].pitch
        rows = add(mul(sub(deep, 1), pitch_h), down)
        self.run = add(mul(sub(rows, 1), pitch), across)  # of an image's pixels
        line = mul(ceil_div(self.run, self.t.lanes), self.t.lanes)
        self.turned_image = mul(self.groups, self.filters, line)
        self.line = line
        self.mask = self.reserve(line)

    def _tile(self, pixels: Size) -> tuple[int, int, int]:
        """Rows are taps along as many of the last axes as registers allow, of some channels; a vector for each filter."""
        registers = 32 if self.target.avx512 else 16
        filters = known(self.filters)
        most = max((registers - 2 - filters) // filters, 1)
        rows = 1
        for inner in (3, 2, 1):
            taps = mul(*self.taps[3 - inner :])
            if isinstance(taps, int) and 0 < taps <= most:
                self.inner, rows = inner, taps
                break
        else:
            self.inner = 0
        channels = most // rows
        if isinstance(self.per_group, int):
            channels = max(min(channels, self.per_group), 1)
            channels = -(-self.per_group // -(-max(self.per_group, 1) // channels)) or 1
        return rows * channels, filters, channels

    def _cut_lines(self, bytes: Size) -> None:
        self.lines_at_once, self.chunks = self.pixels[1], 1

    def _skips_borders(self) -> bool:
        return False

    def _place(self, x: Index, z: Number, y: Number) -> Number:
        """Of a row of pixels in the run."""
        pitch_h, pitch = (self.size(a.pitch) for a in self.axes[1:])
        return x.mul(x.add(x.mul(z, pitch_h), y), pitch)

    def write_turn(self) -> None:
        """Body over (image, group): the rows of g with the image's pitch; the first also writes the mask, a byte for each
        element of the run."""
        e = self.begin_body("turn")
        x, t, g = Index(e), self.t, self.types[1]
        first, from_, to = self.get("first", "i64"), self.pointer(1), self.scratch(self.turned)
        sn, sc = self.size(g.strides[0]), self.size(g.strides[1])
        steps = [self.size(s) for s in self.three(g.strides[2:], 0)]
        deep, down, across = (self.size(s) for s in self.pixels)
        line = self.size(self.line)
        mask = self.scratch(self.mask)

        def rows(body: Callable[[Number, Number], None]) -> None:
            def depth(z: str, _: list[str]) -> None:
                e.loop(0, down, 1, lambda y, _: body(z, y))

            e.loop(0, deep, 1, depth)

        def ones(z: Number, y: Number) -> None:
            row = e.gep(mask, self._place(x, z, y))
            e.loop(0, across, 1, lambda i, _: e.line(f"store i8 1, ptr {e.gep(row, i)}"))

        def write_mask() -> None:
            e.loop(0, line, 1, lambda i, _: e.line(f"store i8 0, ptr {e.gep(mask, i)}"))
            rows(ones)

        begins = e.value("icmp eq i64 %begin, 0")
        e.when(e.value(f"and i1 {begins}, {e.value(f'icmp eq i64 {first}, 0')}"), write_mask)

        def unit(u: str, _: list[str]) -> None:
            i, group = self.divide(x, u, self.groups)
            number = self.image_number(x, first, i)
            read = e.gep(from_, x.add(x.mul(number, sn), x.mul(x.mul(group, self.v), sc)), t.elem)
            place = e.gep(to, x.mul(u, x.mul(line, self.v)), t.elem)
            self.zero(place, x.mul(line, self.v))

            def channel(j: str, _: list[str]) -> None:
                def row(z: Number, y: Number) -> None:
                    at = x.add(x.mul(j, sc), x.add(x.mul(z, steps[0]), x.mul(y, steps[1])))
                    there = x.add(x.mul(j, line), self._place(x, z, y))
                    self.copy(e.gep(read, at, t.elem), e.gep(place, there, t.elem), across, 1, steps[2])

                rows(row)

            e.loop(0, self.v, 1, channel)

        e.loop("%begin", "%end", 1, unit)
        e.end()

    def write_sum(self) -> None:
        """`sum(rec, a, b, c, mask, images, resume)`: c[row, filter] (+)= sums in lanes over images of runs of a times runs of
        b."""
        e, t, h, v = self.e, self.t, self.h, self.v
        self._begin(
            "internal void @KERNEL_NAME.sum(ptr %rec, ptr noalias readonly %a, ptr noalias readonly %b, ptr noalias %c, "
            "ptr noalias readonly %mask, i64 %images, i64 %resume)"
        )
        e.lines[self._slot] = "  %args = load ptr, ptr %rec"
        x = Index(e)
        offsets = self.row_offsets(x)
        image, turned, line = self.size(self.image), self.size(self.turned_image), self.size(self.line)
        acc = self.resumed([i * t.lanes for i in range(h * v)])

        def one(_: str, s: list[str]) -> list[str]:
            a, b, acc = s[0], s[1], s[2:]

            def step(q: str, acc: list[str]) -> list[str]:
                flags = e.value(f"load {t.of('i8')}, ptr {e.gep('%mask', q)}, align 1")
                there = e.value(f"icmp ne {t.of('i8')} {flags}, zeroinitializer")
                slopes = [load(e, t, e.gep(b, x.add(x.mul(line, j), q), t.elem)) for j in range(v)]
                done = []
                for r, offset in enumerate(offsets):
                    some = load(e, t, e.gep(a, x.add(offset, q), t.elem))
                    some = e.value(f"select {t.of('i1')} {there}, {t} {some}, {t} zeroinitializer")
                    for j, g in enumerate(slopes):
                        old = acc[r * v + j]
                        done.append(e.call(t, f"llvm.fma.{t.suffix}", (t, some), (t, g), (t, old)))
                return done

            acc = e.loop(0, line, t.lanes, step, [(t, p) for p in acc])
            return [e.gep(a, image, t.elem), e.gep(b, turned, t.elem), *acc]

        start: list[tuple[VecType | str, str]] = [("ptr", "%a"), ("ptr", "%b")]
        start += [(t, p) for p in acc]
        for i, value in enumerate(e.loop(0, "%images", 1, one, start)[2:]):
            store(e, t, value, e.gep("%c", i * t.lanes, t.elem))
        e.end()

    def write_tiles(self) -> None:
        """Body over tiles: each for all images of the round."""
        e = self.begin_body("tiles")
        x, t = Index(e), self.t
        padded, turned, sums = (self.scratch(s) for s in (self.padded, self.turned, self.sums))
        mask, first, count = self.scratch(self.mask), self.get("first", "i64"), self.get("count", "i64")
        image, turned_image, line = (self.size(s) for s in (self.image, self.turned_image, self.line))

        def unit(u: str, _: list[str]) -> None:
            part, tile, left, c = self.tile_of_round(x, u, sums)
            group, _block, start, _taps = self.tile_start(x, str(tile))
            copy = x.mul(part, count)
            a = e.gep(padded, x.add(start, x.mul(copy, image)), t.elem)
            b = e.gep(turned, x.add(x.mul(group, x.mul(line, self.v)), x.mul(copy, turned_image)), t.elem)
            here = x.max(x.min(count, left), 0)
            places = (("ptr", "%rec"), ("ptr", a), ("ptr", b), ("ptr", c), ("ptr", mask))
            self.call("sum", *places, ("i64", here), ("i64", first))

        e.loop("%begin", "%end", 1, unit)
        e.end()

    def finish_row(self, c: str, row: str) -> None:
        """The sums of lanes of each filter of a row, side by side where the row begins."""
        e, t = self.e, self.t
        at = e.gep(c, Index(e).mul(row, self.width), t.elem)
        for j in range(self.v):
            total = sum_lanes(e, t, load(e, t, e.gep(at, j * t.lanes, t.elem)))
            e.line(f"store {t.elem} {total}, ptr {e.gep(at, j, t.elem)}, align {t.bytes}")
