"""The gradient of a convolution by its filters, by register tiles of (channels or taps) x filters that sum over pixels.

The image is padded as for the convolution itself (tcc.codegen.conv.kernel), so the elements that a tap meets along a row of
results are a row too; g is turned, so that the vectors of a tile are filters.  A tile's rows are channels that one tap
meets, or channels and the taps along the last axes: all, where these are few.  Where taps are neighbours along a row, each
element of the image is read once for all of them: it meets g's vectors of as many pixels, which stay in registers.  Such
tiles leave out what would meet zeros, and so read the image in place if it is dense.

Filters of one tap are sums of products of matrices, which read in place too; the operand of fewer channels is turned.

The sums stay in scratch between rounds of images: each element is one chain of fused multiply-adds over images, then
pixels, whatever the tile.  Where filters are small, images are cut into a few parts, whatever the number of threads, each
with sums of its own that are added up in order: so there are tiles enough to go round, and threads, which take as many parts
at a time as there are of them, read the images that they copied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tcc.codegen.assembly import FAR, Assembly, Reads, Registers, one_step
from tcc.codegen.conv.axes import ceil_div
from tcc.codegen.conv.filter_out import channels_together, is_turned, scratch_bytes, write_sums_out
from tcc.codegen.conv.filter_plan import FilterPlan
from tcc.codegen.conv.pad import write_pad
from tcc.codegen.conv.text import Number, round_bytes
from tcc.codegen.conv.walk import Walk
from tcc.codegen.emit import VecType
from tcc.codegen.index import Index
from tcc.codegen.kernel import Kernel
from tcc.codegen.products.pack import copy_elements, copy_transposed, pack_name
from tcc.codegen.vectors import store
from tcc.ir.dims import Size, add, floordiv, known, maximum, minimum, mul, sub
from tcc.ir.types import dense_strides
from tcc.runtime import layout as at

PIXELS = 16  # that stand in the text one by one, or some more: a line of memory


class ConvFilter(FilterPlan):
    """A placed `conv_filter`.  Threads share the copies of each round of images, then the tiles."""

    def kernel(self) -> Kernel:
        x, g, _ = self.types
        channels = mul(self.groups, self.per_group)
        # the last tile of channels reads planes behind those that there are
        self.lay_out(self.axes, channels, slack=2 * self.t.lanes)
        self.sums = self.reserve(mul(self.parts, self.units, self.h * self.width * self.t.bytes))
        self._cut_lines(mul(add(self.image, self.turned_image), self.t.bytes))
        most = self.fitting(self.part, add(self.image, self.turned_image), round_bytes(self.target))
        if self.in_place:
            self.image, self.channel = x.strides[:2]
        else:
            self.padded = self.reserve(mul(self.image, most, self.parts, self.t.bytes))
            self.reserve(mul(self.channel, self.channels_at_once, self.t.bytes))
            write_pad(self, 0, self.axes)
        self.turned = self.reserve(mul(self.turned_image, most, self.parts, self.t.bytes))
        self.write_turn()
        self.write_sum()
        self.write_tiles()
        write_sums_out(self)

        e = self.begin_kernel()
        part, parts, units = self.size(self.part), self.size(self.parts), self.size(self.units)
        i = Index(e)

        if not self.in_place:
            self.put("padded", self.scratch(self.padded))
        at_once: Number = 1
        if self.parts != 1:
            threads = e.value(f"load i64, ptr {e.gep('%ctx', at.CTX_THREADS, 'i64')}")
            at_once = i.max(i.min(threads, parts), 1)

        def some_parts(first_part: str, _: list[str]) -> None:
            here = i.min(i.sub(parts, first_part), at_once)
            self.put("part", first_part)

            def images(first: str, _: list[str]) -> None:
                """Some images of each of these parts."""
                count = i.min(i.sub(part, first), self.size(most))
                self.put("first", first)
                self.put("fresh", i.equal(i.add(first, first_part), 0))
                self.put("count", count)
                copies = i.mul(count, here)
                if not self.in_place:
                    self.parallel(
                        "pad", i.mul(copies, self.size(channels)), i.mul(self.size(self.channel), 8)
                    )
                turns = i.mul(copies, self.size(mul(self.groups, self.blocks)))
                cost = i.mul(self.size(self.pixel_count), self.width * 8)
                self.parallel("turn", turns, cost)
                work = i.mul(count, i.mul(self.size(self.pixel_count), self.h * self.v * 8))

                def some_lines(chunk: str, _: list[str]) -> None:
                    self.put("chunk", chunk)
                    self.parallel("tiles", i.mul(here, units), i.div(work, self.size(self.chunks)))

                e.loop(0, self.size(self.chunks), 1, some_lines)

            # without images still zeros
            e.loop(0, i.max(part, 1), self.size(most), images)

        e.loop(0, parts, at_once, some_parts)
        out = mul(self.groups, self.blocks, ceil_div(self.per_group, channels_together(self)))
        if not is_turned(self):
            out = self.units
        self.parallel("out", self.size(out), i.mul(parts, self.h * self.width * 32))
        return self.finish("conv_filter", scratch_bytes(self) if is_turned(self) else 0)

    def _cut_lines(self, bytes: Size) -> None:
        """An image whose copies take too many bytes is met by all tiles a few lines at a time."""
        deep, down, _ = self.pixels
        fit = floordiv(mul(down, round_bytes(self.target)), maximum(bytes, 1))
        self.lines_at_once: Size = maximum(minimum(down, fit), 1) if deep == 1 else maximum(down, 1)
        self.chunks = maximum(floordiv(sub(add(down, self.lines_at_once), 1), self.lines_at_once), 1)

    def image_number(self, x: Index, first: Number, i: Number) -> Number:
        """Images follow one another part by part; behind the last one it is copied again, for nobody."""
        if self.parts == 1:
            return x.add(first, i)
        part, rest = self.divide(x, i, x.max(self.get("count", "i64"), 1))
        part = x.add(self.get("part", "i64"), part)
        number = x.add(x.mul(part, self.size(self.part)), x.add(first, rest))
        return x.min(number, x.sub(self.size(self.types[0].shape[0]), 1))

    def write_turn(self) -> None:
        """Body over (image, group, block of filters): g's rows of pixels as columns."""
        t, g = self.t, self.types[1]
        dense = g.strides[2:] == dense_strides(g.shape[2:])
        if dense:
            ahead = g.strides[0] * t.bytes if isinstance(g.strides[0], int) else 0
            copy = self.helper(copy_transposed(t, self.target), pack_name(t, "turn"))
        else:
            copy = self.helper(copy_elements(t), pack_name(t, "each"))
        e = self.begin_body("turn")
        x = Index(e)
        first, from_, to = self.get("first", "i64"), self.pointer(1), self.scratch(self.turned)
        sn, sc = self.size(g.strides[0]), self.size(g.strides[1])
        steps = [self.size(s) for s in self.three(g.strides[2:], 0)]
        pixels = [self.size(s) for s in self.pixels]
        count, blocks, filters = self.size(self.pixel_count), self.size(self.blocks), self.size(self.filters)

        def unit(u: str, _: list[str]) -> None:
            rest, block = self.divide(x, u, blocks)
            i, group = self.divide(x, rest, self.groups)
            begin = x.mul(block, self.width)
            channel = x.add(x.mul(group, filters), begin)
            number = self.image_number(x, first, i)
            read = e.gep(from_, x.add(x.mul(number, sn), x.mul(channel, sc)), t.elem)
            place = e.gep(to, x.mul(x.mul(u, count), self.width), t.elem)
            some = x.min(x.sub(filters, begin), self.width)

            def zero(k: str, _: list[str]) -> None:
                store(e, t, "zeroinitializer", e.gep(place, k, t.elem))

            e.when(
                e.value(f"icmp slt i64 {some}, {self.width}"),
                lambda: (e.loop(0, x.mul(count, self.width), t.lanes, zero), None)[1],
            )
            sizes = (("i64", x.mul(sc, t.bytes)), ("ptr", place), ("i64", self.width * t.bytes))
            if dense:
                self.call_by(copy, ("ptr", read), *sizes, ("i64", some), ("i64", count), ("i64", ahead))
                return

            def line(axis: int, read: str, at: Number) -> None:
                if axis == 2:
                    row = e.gep(place, x.mul(at, x.mul(pixels[2], self.width)), t.elem)
                    strides = (("i64", x.mul(steps[2], t.bytes)), ("i64", x.mul(sc, t.bytes)))
                    to = (("ptr", row), ("i64", self.width * t.bytes))
                    self.call_by(copy, ("ptr", read), *strides, *to, ("i64", pixels[2]), ("i64", some))
                    return
                e.loop(
                    0,
                    pixels[axis],
                    1,
                    lambda k, _: line(
                        axis + 1,
                        e.gep(read, x.mul(k, steps[axis]), t.elem),
                        x.add(x.mul(at, pixels[axis]), k),
                    ),
                )

            line(0, read, 0)

        e.loop("%begin", "%end", 1, unit)
        e.end()

    def write_sum(self) -> None:
        """`sum(rec, a, b, c, images, slices, lines, count, resume)`: c[h, v vectors] (+)= sums over images, slices and lines
        of a row of a times a row of b."""
        e, t, h, v = self.e, self.t, self.h, self.v
        self._begin(
            "internal void @KERNEL_NAME.sum(ptr %rec, ptr noalias readonly %a, ptr noalias readonly %b, ptr noalias %c, "
            "i64 %images, i64 %slices, i64 %lines, i64 %count, i64 %resume)"
        )
        e.lines[self._slot] = "  %args = load ptr, ptr %rec"
        x = Index(e)
        offsets = self.row_offsets(x)
        pitch, image = self.size(self.axes[2].pitch), self.size(self.image)
        plane = x.mul(self.size(self.axes[1].pitch), pitch)
        turned_slice = x.mul(x.mul(self.size(self.pixels[1]), self.size(self.pixels[2])), self.width)
        turned_image = self.size(self.turned_image)
        acc = self.resumed([i * t.lanes for i in range(h * v)])

        def ends(s: list[str]) -> list[str]:
            return [e.gep(s[0], pitch, t.elem), e.gep(s[1], x.mul("%count", self.width), t.elem)]

        def line(_: str, s: list[str]) -> list[str]:
            if self.window > 1:
                if self.in_place:  # nobody has copied the next image: this line of it comes meanwhile
                    for offset in offsets[:: self.window]:
                        place = e.gep(e.gep(s[0], offset, t.elem), image, t.elem)
                        self.fetch(place, known(self.space[2]) * t.bytes)
                return self._add_line(s, offsets, pitch)

            return [*ends(s), *self._add_pixels(s, offsets)]

        def lines(s: list[str]) -> list[str]:
            return e.loop(0, "%lines", 1, line, [("ptr", s[0]), ("ptr", s[1]), *((t, q) for q in s[2:])])[2:]

        slices: Number = 1 if self.taps[0] == self.pixels[0] == 1 else "%slices"
        sums = self._around(slices, (plane, turned_slice), lines)
        last = self._around("%images", (image, turned_image), sums)(["%a", "%b", *acc])
        for i, value in enumerate(last):
            store(e, t, value, e.gep("%c", i * t.lanes, t.elem))
        e.end()

    def _add_pixels(self, s: list[str], offsets: Sequence[Number]) -> list[str]:
        """The sums after a line of `sum`, pixel by pixel."""
        e, t, count = self.e, self.t, self.pixels[2]

        x = Index(e)
        reads = Reads(
            tuple((0, x.mul(o, t.bytes)) for o in offsets),
            tuple((1, j * t.lanes * t.bytes) for j in range(self.v)),
        )

        def fetch_next(places: list[str]) -> None:
            """Nobody has copied the next channels, of whose rows a core sees only the ends coming."""
            for o in offsets:
                next_block = x.add(o, x.mul(self.channels_at_once, self.size(self.channel)))
                self.fetch(e.gep(places[0], next_block, t.elem), 1)

        apart = (t.bytes, self.width * t.bytes)  # from one pixel to the next
        many = isinstance(count, int) and not self.target.avx512
        rounds: Number = max(known(count) // PIXELS, 1) if many else "%count"
        each = known(count) // int(rounds) if many else 1
        steps = tuple((i * apart[0], i * apart[1]) for i in range(each))
        walk = Walk(((rounds, (each * apart[0], each * apart[1])),), steps)
        each_round = walk.round_of(e, self.target, t, reads, (0, 1))

        def round(k: Number, places: list[str], sums: list[str]) -> tuple[list[str], list[str]]:
            if many and self.in_place:
                fetch_next(places)
            return each_round(k, places, sums)

        sums = walk.through(e, rounds, [(0, s[0]), (1, s[1])], [(t, q) for q in s[2:]], round)
        for i in range(each * int(rounds), known(count)) if many else ():
            sums = one_step(e, t, reads, [e.gep(p, i * far) for p, far in zip(s, apart)], sums)
        return sums

    def _around(
        self, count: Number, apart: tuple[Number, Number], body: Callable[[list[str]], list[str]]
    ) -> Callable[[list[str]], list[str]]:
        """`body`, which makes sums of (a, b, sums), for each of so many that are `apart` in a and b."""
        e, t = self.e, self.t

        def one(_: str, s: list[str]) -> list[str]:
            return [*(e.gep(p, step, t.elem) for p, step in zip(s, apart)), *body(s)]

        return lambda s: e.loop(0, count, 1, one, [("ptr", s[0]), ("ptr", s[1]), *((t, q) for q in s[2:])])[
            2:
        ]

    def _add_line(self, s: list[str], offsets: Sequence[Number], pitch: Number) -> list[str]:
        """A line of `sum` where an element of a is read once for all taps: the vectors of b that these meet stay in registers."""
        e, t, v, taps = self.e, self.t, self.v, self.window
        count, sums, bytes = known(self.pixels[2]), self.h * self.v, self.t.bytes
        # an image that is read in place has no zeros before and behind its elements
        before = known(self.axes[2].lo) if self.in_place else 0
        end = before + known(self.space[2]) if self.in_place else count + taps
        far = max((o if isinstance(o, int) else FAR for o in offsets), default=0) + end * self.width
        fits = far * bytes < FAR and sums + taps * v + 1 <= self.target.registers
        kind = Assembly if self.target.assembles and fits else Registers

        def pixels(places: Sequence[str], first: int, number: int, values: Sequence[str]) -> list[str]:
            """The values, sums and then the vectors of the last pixels, after some more, from the `first` of those at
            `places` on.  A vector's registers are those of the one as many pixels before as there are taps."""

            def vector(q: int, j: int) -> int:
                return sums + q % taps * v + j

            acc, near = values[:sums], list(values[sums:])
            young = [near[k * v : (k + 1) * v] for k in range(taps - 1)]
            ring = [["poison"] * v] * taps
            for k, vectors in enumerate(young):
                ring[(first - 1 - k) % taps] = vectors
            given = [*acc, *(value for some in ring for value in some)]
            r = kind(e, t, places, given, 1)
            for q in range(first, first + number):
                at = q - first
                for j in range(v) if q < count else ():
                    r.load(vector(q, j), (1, (at * self.width + j * t.lanes) * bytes))
                met = range(max(0, q - count + 1), min(taps, q + 1)) if before <= q < end else range(0)
                for i in range(0, self.h, taps) if met else ():
                    r.splat(len(given), (0, Index(e).mul(Index(e).add(offsets[i], at), bytes)))
                    for k in met:
                        for j in range(v):
                            r.multiply_add((i + k) * v + j, len(given), vector(q - k, j))
            done, last = r.written(), first + number - 1
            return done[:sums] + [done[vector(last - k, j)] for k in range(taps - 1) for j in range(v)]

        a, b, acc = s[0], s[1], s[2:]
        start = [e.gep(a, -before, t.elem), b]
        values = pixels(start, 0, taps - 1, [*acc, *["poison"] * (v * (taps - 1))])
        at = [e.gep(a, taps - 1 - before, t.elem), e.gep(b, (taps - 1) * self.width, t.elem)]
        # after as many pixels as taps the vectors are where they began: those need not be moved
        inside = count - taps + 1
        together = 1 if self.target.avx512 or inside < 2 * taps else taps
        whole = inside // together * together

        def round(_: str, s: list[str]) -> list[str]:
            after = pixels(s[:2], taps - 1, together, s[2:])
            return [e.gep(s[0], together, t.elem), e.gep(s[1], together * self.width, t.elem), *after]

        carried: list[tuple[VecType | str, str]] = [("ptr", p) for p in at]
        carried += [(t, q) for q in values]
        done = e.loop(0, whole, together, round, carried)
        rest = pixels(done[:2], taps - 1 + whole, inside - whole + taps - 1, done[2:])
        return [e.gep(a, pitch, t.elem), e.gep(b, count * self.width, t.elem), *rest[:sums]]

    def write_tiles(self) -> None:
        """Body over tiles: each for all images of the round."""
        e = self.begin_body("tiles")
        x, t = Index(e), self.t
        padded = self.pointer(0) if self.in_place else self.scratch(self.padded)
        turned, sums = self.scratch(self.turned), self.scratch(self.sums)
        first, count = self.get("first", "i64"), self.get("count", "i64")
        chunk: Number = 0 if self.chunks == 1 else self.get("chunk", "i64")
        at_once = self.size(self.lines_at_once)
        image, pitch = self.size(self.image), self.size(self.axes[2].pitch)
        plane = self.size(mul(self.axes[1].pitch, self.axes[2].pitch))
        corner: Number = 0
        if self.in_place:
            deep, down = self.axes[:2]
            corner = x.mul(x.add(x.mul(self.size(deep.lo), self.size(down.pitch)), self.size(down.lo)), pitch)
        turned_image, pixels = self.size(self.turned_image), [self.size(s) for s in self.pixels]
        line = x.mul(pixels[2], self.width)
        lines = x.mul(pixels[1], line)
        pixel_count, blocks = self.size(self.pixel_count), self.size(self.blocks)
        for size in (*self.outer, self.row_blocks, self.plane, *(a.pitch for a in self.axes)):
            self.size(size)
        # what tiles of the same filters read of g stays in the first-level cache, some images at a time
        turned_block = mul(self.pixel_count, self.width, t.bytes)
        near = self.size(maximum(floordiv(self.target.l1_bytes * 3 // 4, maximum(turned_block, 1)), 1))

        def unit(u: str, begin_image: Number) -> None:
            part, tile, left, c = self.tile_of_round(x, u, sums)
            group, block, start, taps = self.tile_start(x, str(tile))
            start = x.sub(start, corner)
            outer: list[Number] = [*taps, *[0] * self.inner]
            (z0, z1), (y0, y1) = (self._met(x, axis, outer[axis]) for axis in (0, 1))
            if self.chunks != 1:
                y0 = x.max(y0, x.mul(chunk, at_once))
                y1 = x.max(x.min(y1, x.mul(x.add(chunk, 1), at_once)), y0)
            b_start = x.mul(x.mul(x.add(x.mul(group, blocks), block), pixel_count), self.width)
            copy = x.add(x.mul(part, count), begin_image)
            number = self.image_number(x, first, copy) if self.in_place else copy
            a = x.add(x.add(start, x.mul(y0, pitch)), x.add(x.mul(z0, plane), x.mul(number, image)))
            b = x.add(x.add(b_start, x.mul(y0, line)), x.add(x.mul(z0, lines), x.mul(copy, turned_image)))
            # nothing to sum still makes zeros
            some = x.sub(x.min(x.min(count, x.add(begin_image, near)), left), begin_image)
            places = (("ptr", e.gep(padded, a, t.elem)), ("ptr", e.gep(turned, b, t.elem)), ("ptr", c))
            counts = (("i64", some), ("i64", x.sub(z1, z0)), ("i64", x.sub(y1, y0)), ("i64", pixels[2]))
            self.call(
                "sum", ("ptr", "%rec"), *places, *counts, ("i64", x.add(x.add(first, begin_image), chunk))
            )

        def some_images(begin: str, _: list[str]) -> None:
            e.loop("%begin", "%end", 1, lambda u, _: unit(u, begin))

        e.loop(0, x.max(count, 1), near, some_images)
        e.end()

    def tile_of_round(self, x: Index, u: str, sums: str) -> tuple[Number, Number, Number, str]:
        """(its part among those of the round, the tile, images of that part that are left, its sums)."""
        e, first, per_part = self.e, self.get("first", "i64"), self.size(self.part)
        local: Number = 0
        tile: Number = u
        number: Number = u
        there = per_part
        if self.parts != 1:
            units = self.size(self.units)
            local, tile = self.divide(x, u, units)
            part = x.add(self.get("part", "i64"), local)
            number = x.add(x.mul(part, units), tile)
            there = x.min(per_part, x.sub(self.size(self.types[0].shape[0]), x.mul(part, per_part)))
        place = e.gep(sums, x.mul(number, self.h * self.width), self.t.elem)
        return local, tile, x.sub(there, first), place
