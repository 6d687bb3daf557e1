"""Convolution and its gradient by the image, by register tiles that read the padded image in place.

A copy of the image in scratch has zeros around it, rows of a constant pitch, and a plane for each phase of the strides or
for each tap along a row (`conv/axes.py`).  So the elements that a tap meets for a run of neighbouring results are a run
too, at a distance that is the tap's alone: a register tile of `rows` channels by some vectors of pixels takes its vectors
at constant distances (`conv/walk.py`), or at those of a table.  Each element is one chain of fused multiply-adds over
channels, then taps, whatever the tile.
A filter of one tap meets runs of the image itself, which many filters read from panels: copies of some blocks of pixels.

Where results follow one another in memory as in the copy, a tile goes from registers to its place, through the op's block;
what is at an edge, or has an expensive block, goes through a copy of the tile in the first-level cache.

The gradient by the image is such a convolution of g for each phase of the strides, with the taps that meet the phase.
"""

from __future__ import annotations

import math

from tcc.codegen.conv.axes import Run
from tcc.codegen.conv.pad import write_pad
from tcc.codegen.conv.rounds import Do, ImageRounds, each_round
from tcc.codegen.conv.text import Number, needed_mask
from tcc.codegen.conv.tile import AHEAD, ConvTile
from tcc.codegen.index import Index
from tcc.codegen.kernel import Kernel
from tcc.codegen.vectors import LINE, load, store
from tcc.ir.dims import add, floordiv, known, maximum, minimum, mul

ROWS_AHEAD = 8  # whose first two lines are fetched, after which the hardware has the row's others come


class Conv(ConvTile):
    """A placed `conv` or `conv_input` by pixels.  Threads share the images, and the runs of pixels of each."""

    def kernel(self) -> Kernel:
        h, width, images = self.h, self.width, self.source.shape[0]
        slack = add(width, self.axes[2].share, self.t.lanes)
        self.lay_out(self.axes, channels=mul(self.groups, self.depth_channels), slack=slack)
        tables, packs = [], []
        for k in self.depths:
            tables.append(self.reserve(mul(add(k, AHEAD), 8)))
            packs.append(self.reserve(mul(self.groups, self.tiles, k, h * self.t.bytes)))
        rounds = None
        if self.in_place:
            most_images, (self.image, self.plane) = maximum(images, 1), self.source.strides[:2]
        elif self.merged:
            most_images = self.merge_images(images)
        else:
            rounds = ImageRounds(self, images)
        if not self.in_place:
            write_pad(self, self.si, self.axes)
        self.find_walks()
        ends = {(self.walk_of(n), *end) for n in range(len(self.phases)) if (end := self.end(self.runs[n]))}
        for number in sorted({self.walk_of(n) for n in range(len(self.phases))}):
            self.write_tile(f"tile{number}", number, self.v)
        for number, v, last in sorted(ends):
            self.write_tile(f"end{number}of{v}", number, v, last)
        self.write_edge()
        # the table and the packed filters of each phase
        for number, phase in enumerate(self.phases):
            self.write_pack(number, phase, table_too=not self.panel and not self.walks[number])
            _Tiles(self, number, phase).write()
        x = Index(self.e)

        def round(count: Number, do: Do) -> None:
            if not self.in_place:
                do("pad", x.mul(count, self.size(self.channels)), x.mul(self.size(self.copied), 8))
            for number in range(len(self.phases)):
                self.put("table", self.scratch(tables[number]))
                self.put("pack", self.scratch(packs[number]))
                do(f"tiles{number}", *self._units(number, count))

        if rounds:
            rounds.write_own(round)

        self.begin_kernel()
        for number in range(len(self.phases)):
            self.put("table", self.scratch(tables[number]))
            self.put("pack", self.scratch(packs[number]))
            units = x.mul(self.size(self.tiles), self.groups)
            self.parallel(f"pack{number}", units, x.mul(self.size(self.depths[number]), h * 32))
        if rounds:
            rounds.make(round)
        else:
            if not self.in_place:
                self.put("padded", self.scratch(self.padded))
            each_round(self, 0, self.size(images), self.size(most_images), round, self.parallel)
        lines = add(h, mul(self.panel, self.depths[0]))
        return self.finish(self.op.name, thread_scratch=mul(lines, width, self.t.bytes))

    def _units(self, number: int, count: Number) -> tuple[Number, Number]:
        """(how many, cost) of the body of a phase for so many images."""
        x, width = Index(self.e), self.width
        (d, _, cols), run = self.phases[number], self.runs[number]
        if self.merged:
            pixels = x.mul(count, self.size(run))
            units = x.mul(x.div(x.add(pixels, width - 1), width), self.groups)
        else:
            each = width * max(self.panel, 1)
            blocks = mul(floordiv(add(run, each - 1), each), minimum(cols.count, 1), d.count, self.groups)
            units = x.mul(count, self.size(blocks))
        tile = self.h * self.v
        cost = x.mul(self.size(mul(self.tiles, self.depths[number])), tile * 8 * max(self.panel, 1))
        return units, x.add(cost, x.mul(self.size(self.tiles), tile * 64))


class _Tiles:
    """Writes the body over (image, group, depth, block of pixels) of a phase: the block for all filters, to the result.
    Merged images are one.  What all units need is loaded at the function's head, once."""

    def __init__(self, conv: Conv, number: int, phase: tuple[Run, ...]) -> None:
        c = self.c = conv
        self.number, (d, rows, cols) = number, phase
        self.phase = phase
        e = self.e = c.begin_body(f"tiles{number}")
        x = self.x = Index(e)
        self.pitch_h, self.pitch = (c.size(a.pitch) for a in c.axes[1:])
        self.run: Number = c.size(c.runs[number])
        self.m, self.depth, self.tiles, self.depth_channels = (
            c.size(s) for s in (c.m, c.depths[number], c.tiles, c.depth_channels)
        )
        self.planes = math.prod(a.phases for a in c.axes)
        self.sn, self.sc = c.size(c.result.strides[0]), c.size(c.result.strides[1])
        self.sd, self.sh, self.sw = (c.size(s) for s in c.three(c.result.strides[2:], 0))
        self.result, self.table, self.pack, self.first = (
            c.pointer(2),
            c.get("table"),
            c.get("pack"),
            c.get("first", "i64"),
        )
        self.padded = c.pointer(c.si) if c.in_place else c.get("padded")
        self.tile = c.thread_scratch()
        self.plane, self.image, self.cols = c.size(c.plane), c.size(c.image), c.size(cols.count)
        self.firsts = [c.size(r.first) for r in phase]
        self.bases = [c.size(r.base) for r in phase]
        self.rows, self.depths = c.size(rows.count), c.size(d.count)
        # what of a block is in one line has its places in a row; lines are `apart` in the copy
        self.apart: Number = self.run if c.gapless else self.pitch
        self.length: Number = self.run if c.gapless else self.cols
        self.long = x.mul(c.get("count", "i64"), self.run) if c.merged else self.run
        self.blocks = x.div(x.add(self.long, c.width - 1), c.width)
        each = max(c.panel, 1)
        self.panels = x.div(x.add(self.blocks, each - 1), each)
        self.one_line = c.gapless and not c.merged
        self.end = c.end(c.runs[number])
        whole_vectors = self.end and (self.end[1] or known(c.runs[number]) % c.t.lanes == 0)
        self.never_cut = bool(whole_vectors) or (isinstance(self.run, int) and self.run % c.width == 0)

    def write(self) -> None:
        self.e.loop("%begin", "%end", 1, self._unit)
        self.e.end()

    def _unit(self, u: str, _: list[str]) -> None:
        c, x = self.c, self.x
        rest, block = c.divide(x, u, self.panels)
        self.z: Number = 0
        self.i: Number = 0
        if not c.merged:
            rest, self.z = c.divide(x, rest, self.depths)
            self.i, rest = c.divide(x, rest, c.groups)
        self.group = rest
        if c.panel:
            self._panel(block)
        else:
            self._block(block)
            self.e.loop(0, self.tiles, 1, self._filters)

    def _block(self, block: Number, copy: str | None = None) -> None:
        """A block of pixels: where its tiles read, which may be a copy, and where their results belong."""
        c, e, x = self.c, self.e, self.x
        self.q0 = x.mul(block, c.width)
        self.q1 = x.min(x.add(self.q0, c.width), self.long)
        self.heads = [copy] if copy else self._heads(block)
        self.y0: Number = 0 if self.one_line else x.div(self.q0, self.apart)
        self.y1: Number = 1 if self.one_line else x.add(x.div(x.sub(self.q1, 1), self.apart), 1)
        walk = c.walk_of(self.number)
        self.function = f"@KERNEL_NAME.tile{walk}"
        if self.end:
            full = e.value(f"icmp sle i64 {x.add(self.q0, c.width)}, {self.long}")
            self.function = e.value(
                f"select i1 {full}, ptr {self.function}, ptr @KERNEL_NAME.end{walk}of{self.end[0]}"
            )
        self.whole: str | None = None  # whether the block goes straight to its places, where that hangs on it
        if c.direct and not self.never_cut:
            self.whole = e.value(f"icmp sle i64 {x.add(self.q0, c.width)}, {self.long}")
            if not self.one_line:
                one = e.value(f"icmp eq i64 {x.add(self.y0, 1)}, {self.y1}")
                self.whole = e.value(f"and i1 {self.whole}, {one}")

    def _panel(self, panel: Number) -> None:
        """Some blocks of an image that tiles would read in place: they are copied, block by block, and meet the filters of
        one tile after the other."""
        c, e, x, t = self.c, self.e, self.x, self.c.t
        first = x.mul(panel, c.panel)
        count = x.min(x.sub(self.blocks, first), c.panel)
        self.q0 = x.mul(first, c.width)
        (source,) = self._heads(first)
        copies = e.gep(self.tile, c.h * c.width, t.elem)
        block = x.mul(self.depth, c.width)
        rest = known(c.runs[self.number]) % c.width
        whole: Number = count
        if rest:
            whole = x.sub(count, x.pick(x.equal(x.add(first, count), self.blocks), 1, 0))

        def step(k: str, _: list[str]) -> None:
            read = e.gep(source, x.mul(k, self.plane), t.elem)
            to = e.gep(copies, x.mul(k, c.width), t.elem)
            c.fetch(e.gep(read, x.mul(self.plane, ROWS_AHEAD), t.elem), 2 * LINE)

            def some(b: Number, lanes: int) -> None:
                from_, there = e.gep(read, x.mul(b, c.width), t.elem), e.gep(to, x.mul(b, block), t.elem)
                for j in range(0, c.width, t.lanes):
                    mask = needed_mask([j + i < lanes for i in range(t.lanes)])
                    store(e, t, load(e, t, e.gep(from_, j, t.elem), mask), e.gep(there, j, t.elem))

            e.loop(0, whole, 1, lambda b, _: some(b, c.width))
            if rest:
                e.when(e.value(f"icmp slt i64 {whole}, {count}"), lambda: some(whole, rest))

        e.loop(0, self.depth, 1, step)

        def filters(number: str, _: list[str]) -> None:
            def one(b: str, _: list[str]) -> None:
                self._block(b, e.gep(copies, x.mul(x.sub(b, first), block), t.elem))
                self._filters(number, [])

            e.loop(first, x.add(first, count), 1, one)

        e.loop(0, self.tiles, 1, filters)

    def _heads(self, block: Number) -> list[str]:
        """Where a tile's vectors are read for a tap at distance 0: the first, or each where rows are whole vectors."""
        c, e, x, elem = self.c, self.e, self.x, self.c.t.elem
        at = x.add(x.mul(x.add(self.firsts[0], self.z), self.pitch_h), self.firsts[1])
        at = x.add(x.add(x.mul(at, self.pitch), self.firsts[2]), 0 if c.whole_rows else self.q0)
        at = x.add(at, x.mul(x.mul(x.mul(self.group, self.depth_channels), self.planes), self.plane))
        b = e.gep(self.padded, x.add(at, x.mul(self.i, self.image)), elem)
        if not c.whole_rows:
            return [b]
        heads, vectors = [], known(self.phase[2].count) // c.t.lanes
        for j in range(c.v):
            row, vector = c.divide(x, x.add(x.mul(block, c.v), j), vectors)
            heads.append(e.gep(b, x.add(x.mul(row, self.pitch), x.mul(vector, c.t.lanes)), elem))
        return heads

    def _line_at(self, y: Number) -> tuple[Number, Number, Number]:
        """(image, depth, row) of a line."""
        c, x = self.c, self.x
        if not c.merged:
            return x.add(self.first, self.i), self.z, y
        if c.gapless:
            return x.add(self.first, y), 0, 0
        rest, row = c.divide(x, y, self.rows)
        image, deep = c.divide(x, rest, self.depths)
        return x.add(self.first, image), deep, row

    def _filters(self, number: str, _: list[str]) -> None:
        """A tile of filters for the block."""
        c, e, x, elem = self.c, self.e, self.x, self.c.t.elem
        a = x.mul(x.add(x.mul(self.group, self.tiles), number), x.mul(self.depth, c.h))
        a_at = e.gep(self.pack, a, elem)
        in_group = x.mul(number, c.h)
        channel = x.add(x.mul(self.group, self.m), in_group)
        count = x.min(x.sub(self.m, in_group), c.h)
        to = e.gep(self.result, x.mul(channel, self.sc), elem)
        args: list[tuple[str, Number]] = [("ptr", "%args"), ("ptr", a_at), ("ptr", self.table)]
        args += [*(("ptr", b) for b in self.heads), ("ptr", self.tile), ("i64", self.depth)]
        if c.direct:
            where, deep = self._line_at(self.y0)[:2]
            inside = self.q0 if self.one_line else x.sub(self.q0, x.mul(self.y0, self.apart))
            place = x.add(x.add(x.mul(where, self.sn), x.mul(deep, self.sd)), inside)
            place_at = e.gep(to, place, elem)
            if self.whole is not None:
                place_at = e.value(f"select i1 {self.whole}, ptr {place_at}, ptr null")
            pixel = x.add(x.mul(x.mul(deep, self.rows), self.cols), inside)
            args += [("ptr", place_at), ("i64", count), ("i64", where), ("i64", channel), ("i64", pixel)]
        if c.in_place and not c.panel and not c.target.avx512:
            self._fetch_next(number)
        c.call_by(self.function, *args)

        def line(y: str, _: list[str]) -> None:
            self._line(y, to, count, channel)

        if not c.direct:
            e.loop(self.y0, self.y1, 1, line)
        elif self.whole is not None:
            cut, after = e.label(), e.label()
            e.branch_if(self.whole, after, cut)
            e.at(cut)
            e.loop(self.y0, self.y1, 1, line)
            e.branch(after)
            e.at(after)

    def _line(self, y: str, to: str, count: Number, channel: Number) -> None:
        """What of the tile's copy lies in line y, to the places of `count` channels at `to`."""
        c, e, x, elem = self.c, self.e, self.x, self.c.t.elem
        d, rows, cols = self.phase
        begin = self.q0 if self.one_line else x.max(self.q0, x.mul(y, self.apart))
        end = self.q1 if self.one_line else x.min(self.q1, x.add(x.mul(y, self.apart), self.length))
        count_here = x.max(x.sub(end, begin), 0)
        where, deep, row = self._line_at(0 if self.one_line else y)
        inside = x.sub(begin, 0 if self.one_line else x.mul(y, self.apart))
        column = x.add(self.bases[2], x.mul(inside, cols.step))
        place = x.mul(x.add(self.bases[0], x.mul(deep, d.step)), self.sd)
        place = x.add(place, x.mul(x.add(self.bases[1], x.mul(row, rows.step)), self.sh))
        place = x.add(x.add(place, x.mul(where, self.sn)), x.mul(column, self.sw))
        source = e.gep(self.tile, x.sub(begin, self.q0), elem)
        result = e.gep(to, place, elem)
        pixel = x.add(x.mul(x.add(x.mul(deep, self.rows), row), self.cols), inside)
        places: list[tuple[str, Number]] = [("ptr", "%args"), ("ptr", source), ("ptr", result)]
        sizes = (count_here, count, where, channel, pixel)
        c.call("edge", *places, *(("i64", size) for size in sizes))

    def _fetch_next(self, number: Number) -> None:
        """What the next block of pixels reads of an image that nobody copied comes from far: each tile of filters has its
        share of it come."""
        c, e, x = self.c, self.e, self.x
        depth = known(c.depths[0])
        share = -(-depth // max(known(c.tiles), 1))
        begin = x.mul(number, share)

        def step(k: str, _: list[str]) -> None:
            where = e.value(f"load i64, ptr {e.gep(self.table, k, 'i64')}")
            c.fetch(e.gep(e.gep(self.heads[0], where), c.width, c.t.elem), c.width * c.t.bytes)

        e.loop(begin, x.min(x.add(begin, share), depth), 1, step)
