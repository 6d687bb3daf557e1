"""Convolution with the result's channels as the lanes of vectors, where rows of pixels do not fill vectors.

Filters are turned, so that a vector holds neighbouring ones; a register tile is a rectangle of pixels, each of which meets
the vectors with one element of the padded image, wherever that stands.  So no lane is idle, however small images are.  Of
filters beyond the first-level cache all tiles of a chunk take the same steps before they go on.  Many filters for few
pixels are turned where they are met, some channels at a time, so that they come from far memory once and never go back
there.  An element is the same chain as in `conv/kernel.py`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tcc.codegen.assembly import Reads, one_step
from tcc.codegen.conv.axes import Run
from tcc.codegen.conv.channels_plan import ChannelsPlan, Cut
from tcc.codegen.conv.pad import write_pad
from tcc.codegen.conv.plan import TURN
from tcc.codegen.conv.rounds import Do, ImageRounds
from tcc.codegen.conv.text import Number
from tcc.codegen.conv.walk import Meets
from tcc.codegen.index import Index
from tcc.codegen.kernel import Kernel
from tcc.codegen.products.pack import copy_transposed, pack_name
from tcc.codegen.vectors import store
from tcc.ir.dims import Size, add, known, mul


@dataclass(frozen=True)
class _Chunk:
    """Which results: of a group, a block of its filters, an image, a depth and some rows."""

    group: Number
    filters: Number
    i: Number
    z: Number
    y: Number


class ByChannels(ChannelsPlan):
    """A placed `conv` or `conv_input` by channels."""

    def kernel(self) -> Kernel:
        t, images = self.t, self.source.shape[0]
        self.lay_out(self.axes, mul(self.groups, self.depth_channels), slack=add(self.axes[2].share, t.lanes))
        self.cuts = [self.whole, *([self.last] if self.last is not self.whole else [])]
        for cut in self.cuts:
            cut.tables = [self.reserve(mul(k, 16)) for k in self.depths]
        channels = known(self.depth_channels)
        blocks = 0 if self.part else self.groups * self.filter_blocks
        pack = self.reserve(blocks * channels * self.taps * self.lanes * t.bytes)
        rounds = ImageRounds(self, images)
        self.turn = self.helper(copy_transposed(t, self.target), pack_name(t, "turn"))
        write_pad(self, self.si, self.axes)
        self.find_walks()
        for cut in self.cuts:
            for tile in sorted(
                {
                    (self._walk_of(cut, n), h, w, b.apart)
                    for n, b in enumerate(cut.blocks)
                    if b
                    for _, _, h, w in b.tiles
                }
            ):
                self._write_tile(cut, *tile)
        self.write_edge()
        self._write_filters()
        made = [numbers for numbers in self.together if self.blocks[numbers[0]]]
        for numbers in made:
            self._write_chunks(numbers, rounds.room)

        x = Index(self.e)
        turned = channels * self.taps * self.v * 8 * TURN

        def round(count: Number, do: Do) -> None:
            do("pad", x.mul(count, self.size(self.channels)), x.mul(self.size(self.copied), 8))
            for numbers in made:
                chunks, block = self._chunks(numbers[0]), self.blocks[numbers[0]]
                assert block
                cost = sum(known(self.depths[n]) for n in numbers) * self.v * block.pixels * 8
                units: Number = self.groups * self.filter_blocks
                if self.part:
                    do(f"chunks{numbers[0]}", units, x.add(x.mul(x.mul(count, chunks), cost), turned))
                else:
                    do(f"chunks{numbers[0]}", x.mul(count, chunks * int(units)), cost)

        if not self.part:
            rounds.write_own(round)
        self.begin_kernel()
        self.put("pack", self.scratch(pack))
        self.parallel("filters", max(blocks, 1), turned if blocks else 0)
        rounds.make(round, shared=bool(self.part))
        most_pixels = max((b.pixels for b in self.blocks if b), default=0)
        each = most_pixels
        if self.part and self.blocks[0]:
            each = known(rounds.room) * self._chunks(0) * most_pixels + self.part * self.taps
        scratch = (each + self.woven * self.width) * self.lanes * t.bytes
        return self.finish(self.op.name, thread_scratch=scratch)

    def find_walks(self) -> None:
        for cut in self.cuts:
            cut.walks = [self._walk(phase, self._places_of(cut, phase)) for phase in self.phases]

    def _walk_of(self, cut: Cut, number: int) -> int:
        return cut.walks.index(cut.walks[number])

    def _write_filters(self) -> None:
        """Body over (group, block of filters): for each step of k, neighbouring filters' elements; the first also writes the
        tables."""
        e = self.begin_body("filters")
        x, t = Index(e), self.t
        pack = self.get("pack")
        places = [[self.scratch(table) for table in cut.tables] for cut in self.cuts]

        def all_tables() -> None:
            for cut, tables in zip(self.cuts, places, strict=True):
                for place, phase, walk in zip(tables, self.phases, cut.walks, strict=True):
                    if not walk:
                        self._write_steps(cut, place, phase)

        e.when(e.value("icmp eq i64 %begin, 0"), all_tables)
        depth = known(self.depth_channels)

        def unit(u: str, _: list[str]) -> None:
            to = e.gep(pack, x.mul(u, depth * self.taps * self.lanes), t.elem)
            group, number = self.divide(x, u, self.filter_blocks)
            lanes: Number = self.lanes
            if self.last is not self.whole:
                lanes = x.pick(x.equal(number, self.filter_blocks - 1), self.last.lanes, lanes)
            self._turn_filters(group, number, lanes, to, 0, depth)

        if not self.part:
            e.loop("%begin", "%end", 1, unit)
        e.end()

    def _turn_filters(
        self, group: Number, number: Number, lanes: Number, to: str, first: Number, count: Number
    ) -> None:
        """Of a block of filters, `count` channels from `first` on: for each step of k, as many neighbouring filters' elements
        as there are lanes."""
        e, x, t = self.e, Index(self.e), self.t
        s0, s1 = (known(s) for s in self.filters.strides[:2])
        along, apart = (s0, s1) if self.forward else (s1, s0)
        m, depth = known(self.m), known(self.depth_channels)
        begin = x.mul(number, self.lanes)
        of_group = x.mul(group, m * s0 if self.forward else depth * s0)
        source = e.gep(self.pointer(self.fi), x.add(of_group, x.mul(begin, along)), t.elem)
        source = e.gep(source, x.mul(first, apart), t.elem)
        some = x.min(x.sub(m, begin), lanes)
        if m % self.lanes:
            zeros = x.mul(count, x.mul(lanes, self.taps))
            e.when(e.value(f"icmp slt i64 {some}, {lanes}"), lambda: self.zero(to, zeros))
        if not self.turned:
            self._copy_steps(source, to, some, lanes, along)
            return
        piece = self.steps if self.forward else self.steps[1:]
        corner = sum((n - 1) * s for n, s in piece if s < 0)
        # the next channels' lines arrive while tiles meet these
        ahead = self.part * abs(apart) * t.bytes if self.part else 0

        def turn(channel: Number, size: Number) -> None:
            read = e.gep(source, x.add(x.mul(channel, apart), corner), t.elem)
            there = e.gep(to, x.mul(channel, x.mul(lanes, self.taps)), t.elem)
            strides = (("i64", along * t.bytes), ("ptr", there), ("i64", x.mul(lanes, t.bytes)))
            self.call_by(self.turn, ("ptr", read), *strides, ("i64", some), ("i64", size), ("i64", ahead))

        if self.forward:
            turn(0, x.mul(count, self.taps))
        else:
            e.loop(0, count, 1, lambda channel, _: turn(channel, self.taps))

    def _copy_steps(self, source: str, to: str, some: Number, lanes: Number, along: int) -> None:
        """The elements of filters that are `along` apart, step by step."""
        e, x, t = self.e, Index(self.e), self.t

        def steps(axis: int, read: str, k: Number) -> None:
            if axis == len(self.steps):
                self.copy(read, e.gep(to, x.mul(k, lanes), t.elem), some, 1, along)
                return
            n, step = self.steps[axis]

            def one(i: str, _: list[str]) -> None:
                steps(axis + 1, e.gep(read, x.mul(i, step), t.elem), x.add(x.mul(k, n), i))

            e.loop(0, n, 1, one)

        steps(0, source, 0)

    def _channels_together(self) -> Size:
        return math.gcd(known(self.depth_channels), self.part)

    def _place_of(self, phase: tuple[Run, ...], channel: Number, at: Sequence[Number]) -> Number:
        """Which of a block's steps, in the order of its copy, is that of a tap of a phase and a channel."""
        x = Index(self.e)
        taps = [x.add(run.t0, x.mul(i, run.tstep)) for run, i in zip(phase, at)]
        axes = [(n, s, i) for (n, s), i in zip(self.steps[1:], taps[3 - len(self.steps[1:]) :])]
        if not self.turned:
            k = channel
            for n, _, i in axes:
                k = x.add(x.mul(k, n), i)
            return k
        if self.forward:
            k, axes = 0, [(*self.steps[0], channel), *axes]
        else:
            k = x.mul(channel, self.taps)
        for n, s, i in axes:
            if n > 1:
                k = x.add(k, x.mul(i if s > 0 else x.sub(n - 1, i), abs(s)))
        return k

    def _write_steps(self, cut: Cut, table: str, phase: tuple[Run, ...]) -> None:
        """For each step of k, the distances in bytes of the image's element and the filters' vectors."""
        e, x = self.e, Index(self.e)

        def entry(c: str, at: list[str], k: Number) -> None:
            to = e.gep(table, x.mul(k, 2), "i64")
            e.line(f"store i64 {x.mul(self.distance(phase, c, at), self.t.bytes)}, ptr {to}")
            there = x.mul(self._place_of(phase, c, at), cut.lanes * self.t.bytes)
            e.line(f"store i64 {there}, ptr {e.gep(to, 1, 'i64')}")

        self.each_step(phase, entry)

    def _places_of(self, cut: Cut, phase: tuple[Run, ...]) -> list[Meets]:
        """Of the operands of a tile's step: the pixels' elements, and the vectors of filters."""
        x = Index(self.e)

        def pixels(channel: int, taps: Sequence[int]) -> Number:
            return x.mul(self.distance(phase, channel, taps), self.t.bytes)

        def filters(channel: int, taps: Sequence[int]) -> Number:
            return x.mul(self._place_of(phase, channel, taps), cut.lanes * self.t.bytes)

        return [pixels, filters]

    def _write_tile(self, cut: Cut, number: int, rows: int, cols: int, apart: int) -> None:
        """`pixels(args, a, table, b, c, k, resume)`: c[pixel, v vectors] (+)= the sums over k of a's element for each pixel times
        the vectors of b, both at the distances in the table; rows of pixels are `apart` in c.  Where the distances of the
        phase `number` are regular they stand in the text, and k counts rounds."""
        e, t, v = self.e, self.t, cut.v
        places = ("ptr noalias readonly %a", "ptr noalias readonly %table", "ptr noalias readonly %b")
        resume = ["i64 %resume"] if self.in_parts else []
        name = f"pixels{number}by{v}of{rows}x{cols}in{apart}"
        self.begin_function(name, *places, "ptr noalias %c", "i64 %k", *resume)
        pitch = known(self.axes[2].pitch)
        pixels = [(y, x) for y in range(rows) for x in range(cols)]

        reads = Reads(
            tuple((0, (y * pitch + x) * t.bytes) for y, x in pixels),
            tuple((1, j * t.lanes * t.bytes) for j in range(v)),
        )

        def by_table(_: str, s: list[str]) -> list[str]:
            entry, sums = s[0], s[1:]
            where = [e.value(f"load i64, ptr {e.gep(entry, i, 'i64')}") for i in range(2)]
            return [
                e.gep(entry, 2, "i64"),
                *one_step(e, t, reads, [e.gep(p, w) for p, w in zip(("%a", "%b"), where)], sums),
            ]

        at = [(y * apart + x) * cut.lanes + j * t.lanes for y, x in pixels for j in range(v)]
        sums = self.resumed(at) if self.in_parts else ["zeroinitializer"] * len(at)
        start = [(t, q) for q in sums]
        if walk := cut.walks[number]:
            done = walk.through(
                e, "%k", [(0, "%a"), (1, "%b")], start, walk.round_of(e, self.target, t, reads, (0, 1))
            )
        else:
            done = e.loop(0, "%k", 1, by_table, [("ptr", "%table"), *start])[1:]
        for place, value in zip(at, done, strict=True):
            store(e, t, value, e.gep("%c", place, t.elem))
        e.end()

    def _write_chunks(self, numbers: Sequence[int], most_images: Size) -> None:
        """Body over (group, block of filters, image, depth, chunk), or (group, block of filters), of phases that are made
        together: their results to their places."""
        number, block = numbers[0], self.blocks[numbers[0]]
        assert block
        e = self.begin_body(f"chunks{number}")
        x, t, lanes = Index(e), self.t, self.lanes
        d, rows, cols = self.phases[number]
        out, m, depth = self.result, known(self.m), known(self.depth_channels)
        sn, sc = self.size(out.strides[0]), known(out.strides[1])
        sd, sh, sw = (known(s) for s in self.three(out.strides[2:], 0))
        pitch_h, pitch = (known(a.pitch) for a in self.axes[1:])
        planes = math.prod(a.phases for a in self.axes)
        first, count, pack = self.get("first", "i64"), self.get("count", "i64"), self.get("pack")
        padded, result = self.get("padded"), self.pointer(2)
        plane, image = self.size(self.plane), self.size(self.image)
        chunks = self._chunks(number) // max(known(d.count), 1)
        lines = self.thread_scratch()
        tiles = e.gep(lines, self.woven * self.woven_apart, t.elem)
        together = rows.step == cols.step == 1 and sh == block.cols * sw

        def first_row(chunk: Number) -> Number:
            return x.min(x.mul(chunk, block.rows), known(rows.count) - block.rows)

        def tile_steps(
            cut: Cut, n: int, chunk: _Chunk, tile: str, b: str, begin: Number, steps: Number
        ) -> None:
            """Of all tiles of a chunk of a phase."""
            (d, rows, cols), block = self.phases[n], cut.blocks[n]
            assert block
            at = x.add(
                x.mul(x.add(known(d.first), chunk.z), pitch_h), x.add(known(rows.first), first_row(chunk.y))
            )
            at = x.add(x.mul(at, pitch), known(cols.first))
            at = x.add(at, x.mul(x.mul(chunk.group, depth * planes), plane))
            a = e.gep(padded, x.add(at, x.mul(chunk.i, image)), t.elem)
            table = e.gep(self.scratch(cut.tables[n]), x.mul(begin, 2), "i64")
            if walk := cut.walks[n]:
                round, steps = x.div(begin, walk.steps_of_round), x.div(steps, walk.steps_of_round)
                a, b = (e.gep(p, x.mul(round, d)) for p, d in zip((a, b), walk.levels[0][1]))
            for row, col, height, width in block.tiles:
                name = f"pixels{self._walk_of(cut, n)}by{cut.v}of{height}x{width}in{block.apart}"
                places = (
                    ("ptr", "%args"),
                    ("ptr", e.gep(a, row * pitch + col, t.elem)),
                    ("ptr", table),
                    ("ptr", b),
                )
                to = e.gep(tile, (row * block.apart + col) * cut.lanes, t.elem)
                resume = [("i64", begin)] if self.in_parts else []
                self.call(name, *places, ("ptr", to), ("i64", steps), *resume)

        def turn(cut: Cut, tile: str, place: int) -> None:
            """A phase's results, to lines of the channels."""
            self.call_by(
                self.turn,
                ("ptr", tile),
                ("i64", cut.lanes * t.bytes),
                ("ptr", e.gep(lines, place * self.woven_apart, t.elem)),
                ("i64", self.width * t.bytes),
                ("i64", block.pixels),
                ("i64", cut.lanes),
                ("i64", 0),
            )

        def write(chunk: _Chunk) -> None:
            """The turned results of a chunk, to their places."""
            y, z = first_row(chunk.y), chunk.z
            in_group = x.mul(chunk.filters, lanes)
            channel = x.add(x.mul(chunk.group, m), in_group)
            some = x.min(x.sub(m, in_group), lanes)
            number = x.add(first, chunk.i)
            to = e.gep(result, x.add(x.mul(number, sn), x.mul(channel, sc)), t.elem)
            deep = x.mul(x.add(known(d.base), x.mul(z, d.step)), sd)

            # the last chunk goes back over rows that the one before it writes, from what a block may no longer read
            done: Number = x.sub(x.mul(chunk.y, block.rows), y) if known(rows.count) % block.rows else 0

            def line(row: Number, length: Number) -> None:
                place = x.add(deep, x.mul(x.add(known(rows.base), x.mul(x.add(y, row), rows.step)), sh))
                place = x.add(place, known(cols.base) * sw)
                pixel = x.mul(x.add(x.mul(z, known(rows.count)), x.add(y, row)), block.cols)
                source = e.gep(lines, x.mul(row, block.apart), t.elem)
                sizes = (length, some, number, channel, pixel)
                ends = (("ptr", "%args"), ("ptr", source), ("ptr", e.gep(to, place, t.elem)))
                self.call("edge", *ends, *(("i64", s) for s in sizes))

            if together:
                line(done, x.mul(x.sub(block.rows, done), block.cols))
            else:
                length = sum(known(self.phases[n][2].count) for n in numbers)
                e.loop(done, block.rows, 1, lambda row, _: line(row, length))

        def all_steps(cut: Cut, n: int, chunk: _Chunk, b: str) -> None:
            k = known(self.depths[n])
            part = self._steps_at_once(cut, n)

            def some(begin: Number, _: Sequence[str]) -> None:
                tile_steps(cut, n, chunk, tiles, b, begin, x.min(x.sub(k, begin), part))

            e.loop(0, max(k, 1), part, some)

        def unit(u: str, _: list[str]) -> None:
            rest, y = self.divide(x, u, chunks)
            rest, z = self.divide(x, rest, known(d.count))
            rest, i = self.divide(x, rest, count)
            chunk = _Chunk(*self.divide(x, rest, self.filter_blocks), i, z, y)
            b = e.gep(pack, x.mul(rest, depth * self.taps * lanes), t.elem)

            def results(cut: Cut) -> None:
                for place, n in enumerate(numbers):
                    all_steps(cut, n, chunk, b)
                    turn(cut, tiles, place)

            if self.last is self.whole:
                results(self.whole)
            else:
                for relation, cut in (("slt", self.whole), ("eq", self.last)):
                    here = e.value(f"icmp {relation} i64 {chunk.filters}, {self.filter_blocks - 1}")
                    e.when(here, functools.partial(results, cut))
            write(chunk)

        def block_of_filters(u: str, _: list[str]) -> None:
            """All that a block of filters meets, a part of its channels after the other."""
            group, filters = self.divide(x, u, self.filter_blocks)
            total = x.mul(count, known(d.count) * chunks)
            turned = e.gep(
                tiles, x.mul(self.size(most_images), known(d.count) * chunks * block.pixels * lanes), t.elem
            )

            def each_chunk(body: Callable[[_Chunk, str], None]) -> None:
                def one(c: str, _: list[str]) -> None:
                    rest, y = self.divide(x, c, chunks)
                    i, z = self.divide(x, rest, known(d.count))
                    body(
                        _Chunk(group, filters, i, z, y), e.gep(tiles, x.mul(c, block.pixels * lanes), t.elem)
                    )

                e.loop(0, total, 1, one)

            def some_channels(channel: str, _: list[str]) -> None:
                here = x.min(x.sub(depth, channel), self.part)
                self._turn_filters(group, filters, lanes, turned, channel, here)
                begin = x.mul(channel, self.taps)
                # the table's distances are those in a copy of all channels
                b = e.gep(turned, x.mul(begin, -lanes), t.elem)
                steps = x.mul(here, self.taps)
                each_chunk(lambda chunk, tile: tile_steps(self.whole, number, chunk, tile, b, begin, steps))

            e.loop(0, max(depth, 1), max(self.part, 1), some_channels)

            def results(chunk: _Chunk, tile: str) -> None:
                turn(self.whole, tile, 0)
                write(chunk)

            each_chunk(results)

        e.loop("%begin", "%end", 1, block_of_filters if self.part else unit)
        e.end()
