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
from dataclasses import dataclass, replace

from tcc.codegen.conv.axes import Axis, Run
from tcc.codegen.conv.pad import write_pad
from tcc.codegen.conv.plan import ENOUGH, ConvPlan
from tcc.codegen.conv.rounds import Do, ImageRounds
from tcc.codegen.conv.text import TILE_END, Number, step_cycles
from tcc.codegen.conv.tile import ConvTile
from tcc.codegen.conv.walk import Place
from tcc.codegen.index import Index
from tcc.codegen.kernel import Kernel
from tcc.codegen.products.pack import copy_transposed, pack_name
from tcc.codegen.target import Target
from tcc.codegen.vectors import load, store
from tcc.ir.core import Op
from tcc.ir.dims import Size, add, known, mul

CHUNK_BYTES = 1 << 15  # of results that take the same steps and are turned at a time
_TURN = 6  # cycles for a vector that is turned and copied
_MOST_ROWS = 4  # of pixels in a tile
_FEW_VECTORS = 4  # of an image's pixels that one tap meets, past which a vector of them has few idle lanes
_MOST_COLS = 1 << 10  # of a row of results, whose tiles stand in the text one by one


@dataclass(frozen=True)
class _Block:
    """How results of a phase are cut: tiles of up to tile[0] x tile[1] pixels in chunks of some rows, which are `apart` in a
    chunk's copy."""

    tile: tuple[int, int]
    rows: int
    cols: int
    apart: int

    @property
    def pixels(self) -> int:
        return self.rows * self.apart

    @property
    def tiles(self) -> list[tuple[int, int, int, int]]:
        """(first row, first column, rows, columns) of each, of which those at an edge are smaller."""
        (h, w), rows, cols = self.tile, self.rows, self.cols
        return [
            (y, x, min(h, rows - y), min(w, cols - x)) for y in range(0, rows, h) for x in range(0, cols, w)
        ]


@dataclass(frozen=True)
class _Chunk:
    """Which results: of a group, a block of its filters, an image, a depth and some rows."""

    group: Number
    filters: Number
    i: Number
    z: Number
    y: Number


def by_channels_is_possible(c: ConvPlan) -> bool:
    """Whether sizes but the number of images are known, and rows are not long."""
    sizes = [*c.source.shape[1:], *c.filters.shape, *c.result.shape[1:], *c.pads()]
    steps = [*c.filters.strides, *c.result.strides[1:]]
    known_sizes = all(isinstance(s, int) for s in (*sizes, *steps))
    if not known_sizes or 0 in sizes[: -len(c.pads())]:
        return False
    if c.in_place and known(c.runs[0]) > _FEW_VECTORS * c.t.lanes:
        return False
    return known(c.result.shape[-1]) <= _MOST_COLS


def _filter_steps(c: ConvPlan) -> tuple[bool, list[tuple[int, int]]]:
    """(whether what a tile of k sums over lies in pieces that can be turned, (size, step) of the channels and the taps): the
    piece of a filter is all of it, or the taps of a channel in the gradient."""
    filters = c.filters
    taps = [(known(n), known(s)) for n, s in zip(filters.shape[2:], filters.strides[2:])]
    depth = (known(c.depth_channels), known(filters.strides[1 if c.forward else 0]))
    if filters.strides[0 if c.forward else 1] == 1:  # neighbours already
        return False, [depth, *taps]
    size = 1
    for n, s in sorted([depth, *taps] if c.forward else taps, key=lambda axis: abs(axis[1])):
        if n > 1 and abs(s) != size:
            return False, [depth, *taps]
        size *= n
    return True, [depth, *taps]


class ByChannels(ConvTile):
    """A placed `conv` or `conv_input` by channels."""

    def __init__(self, op: Op, target: Target) -> None:
        super().__init__(op, target)
        self.merged = self.whole_rows = self.direct = self.in_place = False
        self.panel = 0
        self.turned, self.steps = _filter_steps(self)
        self.taps = math.prod(n for n, _ in self.steps[1:])
        self.whole_cycles = math.inf  # of an image
        self.v, self.blocks = 1, []
        m = known(self.m)
        for v in range(1, min(4, -(-m // self.t.lanes)) + 1):
            cycles, blocks = self._cut(v)
            if cycles < self.whole_cycles:
                self.whole_cycles, self.v, self.blocks = cycles, v, blocks
        self.woven = self._woven()
        # phases that a chunk makes, in the order of their results in a row
        self.together = [
            sorted(range(n, n + self.woven), key=lambda k: known(self.phases[k][2].base))
            for n in range(0, len(self.phases), self.woven)
        ]
        if self.woven > 1:
            for numbers in self.together:
                some = [b for k in numbers if (b := self.blocks[k])]
                rows, apart = min(b.rows for b in some), max(b.cols for b in some)
                for k, b in zip(numbers, some, strict=True):
                    self.blocks[k] = replace(b, rows=rows, apart=apart)
        self.lanes = self.v * self.t.lanes
        self.filter_blocks = -(-m // self.lanes)
        self.part = self._channels_at_once()
        self.in_parts = bool(self.part) or any(self._parts(known(k)) > 1 for k in self.depths)
        self.filters_cycles = _TURN * self.groups * m * known(self.depth_channels) * self.taps / self.t.lanes
        most = max((b.pixels for b in self.blocks if b), default=0)
        self.width = -(-most // self.t.lanes) * self.t.lanes  # of a channel's results that are turned
        self.woven_apart = self.width * self.lanes

    def _woven(self) -> int:
        """How many phases of the last axis, whose results take turns in a row, are written together: as whole vectors, where
        each phase alone would write every second or fourth element of the row's lines."""
        s = self.strides[2]
        if self.forward or s not in (2, 4) or self.t.lanes <= s or self.op.blocks or not all(self.blocks):
            return 1
        dense = self.three(self.result.strides[2:], 0)[2] == 1
        return s if dense and s <= known(self.result.shape[-1]) else 1

    def _step(self) -> Number:
        return super()._step() if self.woven == 1 else 1

    def _channels_at_once(self) -> int:
        """How many channels of a block of filters are turned for all images before the tiles meet them; 0 where all filters are
        turned first, since these meet much, or are few."""
        images = self.source.shape[0]
        if not isinstance(images, int) or len(self.phases) > 1 or self.blocks[0] is None or not self.turned:
            return 0
        if self.groups * self.filter_blocks < ENOUGH:
            return 0
        depth, apart = self.steps[0]
        if self.forward and depth > 1 and apart != self.taps:  # channels are not runs of a filter
            return 0
        chunks = images * self._chunks(0)
        if chunks * self.blocks[0].pixels * self.lanes * self.t.bytes > self.target.l2_bytes // 4:
            return 0
        each = self.taps * self.lanes * self.t.bytes
        fit = max(self.target.l1_bytes // 2 // each, 1)
        whole = self.t.lanes // math.gcd(self.taps, self.t.lanes)  # channels that are whole squares
        if whole * each <= self.target.l1_bytes * 3 // 4:
            fit = max(fit // whole, 1) * whole
        return min(fit, max(depth, 1))

    def _layout(self, shared: list[Axis], spread: list[Axis | None], space: list[Size]) -> list[Axis]:
        return shared

    def _cut(self, v: int) -> tuple[float, list[_Block | None]]:
        """(cycles of an image, how each phase is cut) with tiles of v vectors."""
        m, t, total = known(self.m), self.t, 0.0
        registers = 32 if self.target.avx512 else 16
        most = (registers - 1) // v - 1
        blocks: list[_Block | None] = []
        for phase, depth in zip(self.phases, self.depths):
            depths, rows, cols = (known(r.count) for r in phase)
            if depths * rows * cols == 0:
                blocks.append(None)
                continue
            k = known(depth)
            far = v if k else 0

            @functools.cache
            def tile_cycles(pixels: int) -> float:
                loads = pixels + v + far
                return k * step_cycles(self.target, pixels * v, loads) + TILE_END + 3 * pixels * v

            best: tuple[float, _Block] | None = None
            for h in range(1, min(rows, _MOST_ROWS) + 1):
                for w in range(1, cols + 1):
                    if h * w > most or (h > 1 and w < cols):
                        continue
                    block = self._chunk(h, w, rows, cols, v)
                    tiles = sum(tile_cycles(a * b) for _, _, a, b in block.tiles)
                    turned = 2 * _TURN * v * t.lanes * (-(-block.pixels // t.lanes))
                    chunk = tiles + turned + TILE_END
                    cost = chunk * -(-rows // block.rows)
                    if best is None or cost < best[0]:
                        best = cost, block
            assert best is not None
            blocks.append(best[1])
            total += best[0] * depths
        return total * -(-m // (v * t.lanes)) * self.groups, blocks

    def _chunk(self, h: int, w: int, rows: int, cols: int, v: int) -> _Block:
        """As many rows of tiles as fit a first-level cache, the same for all chunks: they pass through it once for each part of
        the filters, which come from the second-level cache for each chunk."""
        fit = max(CHUNK_BYTES // (cols * v * self.t.lanes * self.t.bytes), h)
        chunks = -(-rows // fit)
        each = -(-rows // chunks)
        return _Block((h, w), min(-(-each // h) * h, rows), cols, cols)

    # -- text ----------------------------------------------------------------------------------------------------

    def kernel(self) -> Kernel:
        t, images = self.t, self.source.shape[0]
        self.lay_out(self.axes, mul(self.groups, self.depth_channels), slack=add(self.axes[2].share, t.lanes))
        self.tables = [self.reserve(mul(k, 16)) for k in self.depths]
        channels = known(self.depth_channels)
        blocks = 0 if self.part else self.groups * self.filter_blocks
        pack = self.reserve(blocks * channels * self.taps * self.lanes * t.bytes)
        rounds = ImageRounds(self, images)
        self.turn = self.helper(copy_transposed(t, self.target), pack_name(t, "turn"))
        write_pad(self, self.si, self.axes)
        self.find_walks()
        for tile in sorted(
            {
                (self.walk_of(n), h, w, b.apart)
                for n, b in enumerate(self.blocks)
                if b
                for _, _, h, w in b.tiles
            }
        ):
            self._write_tile(*tile)
        self.write_edge()
        self._write_filters()
        made = [numbers for numbers in self.together if self.blocks[numbers[0]]]
        for numbers in made:
            self._write_chunks(numbers, rounds.room)

        x = Index(self.e)
        turned = channels * self.taps * self.v * 8 * _TURN

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

    def _parts(self, k: int) -> int:
        """In how many parts all tiles of a chunk take k steps: each has its filters in a part of the first-level cache, where the
        next tile finds them."""
        bytes = k * self.lanes * self.t.bytes
        part = self.target.l1_bytes * 3 // 8
        return -(-bytes // part) if bytes > 2 * part else 1

    def _steps_at_once(self, number: int) -> int:
        """Of a phase, in whole rounds."""
        k, walk = known(self.depths[number]), self.walks[number]
        round = walk.steps_of_round if walk else 1
        return max(-(-k // (self._parts(k) * round)) * round, 1)

    def _chunks(self, number: int) -> int:
        """Of a phase of an image."""
        (d, rows, _), block = self.phases[number], self.blocks[number]
        assert block
        return -(-known(rows.count) // block.rows) * known(d.count)

    def _write_filters(self) -> None:
        """Body over (group, block of filters): for each step of k, neighbouring filters' elements; the first also writes the
        tables."""
        e = self.begin_body("filters")
        x, t = Index(e), self.t
        pack = self.get("pack")
        places = [self.scratch(table) for table in self.tables]

        def all_tables() -> None:
            for place, phase, walk in zip(places, self.phases, self.walks, strict=True):
                if not walk:
                    self._write_steps(place, phase)

        e.when(e.value("icmp eq i64 %begin, 0"), all_tables)
        depth = known(self.depth_channels)

        def unit(u: str, _: list[str]) -> None:
            to = e.gep(pack, x.mul(u, depth * self.taps * self.lanes), t.elem)
            self._turn_filters(*self.divide(x, u, self.filter_blocks), to, 0, depth)

        if not self.part:
            e.loop("%begin", "%end", 1, unit)
        e.end()

    def _turn_filters(self, group: Number, number: Number, to: str, first: Number, count: Number) -> None:
        """Of a block of filters, `count` channels from `first` on: for each step of k, neighbouring filters' elements."""
        e, x, t, lanes = self.e, Index(self.e), self.t, self.lanes
        s0, s1 = (known(s) for s in self.filters.strides[:2])
        along, apart = (s0, s1) if self.forward else (s1, s0)
        m, depth = known(self.m), known(self.depth_channels)
        begin = x.mul(number, lanes)
        of_group = x.mul(group, m * s0 if self.forward else depth * s0)
        source = e.gep(self.pointer(self.fi), x.add(of_group, x.mul(begin, along)), t.elem)
        source = e.gep(source, x.mul(first, apart), t.elem)
        some = x.min(x.sub(m, begin), lanes)
        if m % lanes:
            zeros = x.mul(count, self.taps * lanes)
            e.when(e.value(f"icmp slt i64 {some}, {lanes}"), lambda: self.zero(to, zeros))
        if not self.turned:
            self._copy_steps(source, to, some, along)
            return
        piece = self.steps if self.forward else self.steps[1:]
        corner = sum((n - 1) * s for n, s in piece if s < 0)
        # the next channels' lines arrive while tiles meet these
        ahead = self.part * abs(apart) * t.bytes if self.part else 0

        def turn(channel: Number, size: Number) -> None:
            read = e.gep(source, x.add(x.mul(channel, apart), corner), t.elem)
            there = e.gep(to, x.mul(channel, self.taps * lanes), t.elem)
            strides = (("i64", along * t.bytes), ("ptr", there), ("i64", lanes * t.bytes))
            self.call_by(self.turn, ("ptr", read), *strides, ("i64", some), ("i64", size), ("i64", ahead))

        if self.forward:
            turn(0, x.mul(count, self.taps))
        else:
            e.loop(0, count, 1, lambda channel, _: turn(channel, self.taps))

    def _copy_steps(self, source: str, to: str, some: Number, along: int) -> None:
        """The elements of filters that are `along` apart, step by step."""
        e, x, t = self.e, Index(self.e), self.t

        def steps(axis: int, read: str, k: Number) -> None:
            if axis == len(self.steps):
                self.copy(read, e.gep(to, x.mul(k, self.lanes), t.elem), some, 1, along)
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

    def _write_steps(self, table: str, phase: tuple[Run, ...]) -> None:
        """For each step of k, the distances in bytes of the image's element and the filters' vectors."""
        e, x = self.e, Index(self.e)

        def entry(c: str, at: list[str], k: Number) -> None:
            to = e.gep(table, x.mul(k, 2), "i64")
            e.line(f"store i64 {x.mul(self.distance(phase, c, at), self.t.bytes)}, ptr {to}")
            there = x.mul(self._place_of(phase, c, at), self.lanes * self.t.bytes)
            e.line(f"store i64 {there}, ptr {e.gep(to, 1, 'i64')}")

        self.each_step(phase, entry)

    def _places(self, phase: tuple[Run, ...]) -> list[Place]:
        """Of the operands of a tile's step: the pixels' elements, and the vectors of filters."""
        x = Index(self.e)

        def pixels(channel: int, taps: Sequence[int]) -> Number:
            return x.mul(self.distance(phase, channel, taps), self.t.bytes)

        def filters(channel: int, taps: Sequence[int]) -> Number:
            return x.mul(self._place_of(phase, channel, taps), self.lanes * self.t.bytes)

        return [pixels, filters]

    def _write_tile(self, number: int, rows: int, cols: int, apart: int) -> None:
        """`pixels(args, a, table, b, c, k, resume)`: c[pixel, v vectors] (+)= the sums over k of a's element for each pixel times
        the vectors of b, both at the distances in the table; rows of pixels are `apart` in c.  Where the distances of the
        phase `number` are regular they stand in the text, and k counts rounds."""
        e, t, v = self.e, self.t, self.v
        places = ("ptr noalias readonly %a", "ptr noalias readonly %table", "ptr noalias readonly %b")
        resume = ["i64 %resume"] if self.in_parts else []
        name = f"pixels{number}of{rows}x{cols}in{apart}"
        self.begin_function(name, *places, "ptr noalias %c", "i64 %k", *resume)
        pitch = known(self.axes[2].pitch)
        pixels = [(y, x) for y in range(rows) for x in range(cols)]

        def step(_: Number, places: list[str], sums: list[str]) -> list[str]:
            a, b = places
            vectors = [load(e, t, e.gep(b, j * t.lanes, t.elem)) for j in range(v)]
            return self.multiply([e.gep(a, y * pitch + x, t.elem) for y, x in pixels], vectors, sums)

        def by_table(k: str, s: list[str]) -> list[str]:
            entry, sums = s[0], s[1:]
            where = [e.value(f"load i64, ptr {e.gep(entry, i, 'i64')}") for i in range(2)]
            return [
                e.gep(entry, 2, "i64"),
                *step(k, [e.gep(p, w) for p, w in zip(("%a", "%b"), where)], sums),
            ]

        at = [(y * apart + x) * self.lanes + j * t.lanes for y, x in pixels for j in range(v)]
        sums = self.resumed(at) if self.in_parts else ["zeroinitializer"] * len(at)
        start = [(t, q) for q in sums]
        if walk := self.walks[number]:
            done = walk.through(e, "%k", [(0, "%a"), (1, "%b")], start, step)
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

        def tile_steps(n: int, chunk: _Chunk, tile: str, b: str, begin: Number, steps: Number) -> None:
            """Of all tiles of a chunk of a phase."""
            (d, rows, cols), block = self.phases[n], self.blocks[n]
            assert block
            at = x.add(
                x.mul(x.add(known(d.first), chunk.z), pitch_h), x.add(known(rows.first), first_row(chunk.y))
            )
            at = x.add(x.mul(at, pitch), known(cols.first))
            at = x.add(at, x.mul(x.mul(chunk.group, depth * planes), plane))
            a = e.gep(padded, x.add(at, x.mul(chunk.i, image)), t.elem)
            table = e.gep(self.scratch(self.tables[n]), x.mul(begin, 2), "i64")
            if walk := self.walks[n]:
                round, steps = x.div(begin, walk.steps_of_round), x.div(steps, walk.steps_of_round)
                a, b = (e.gep(p, x.mul(round, d)) for p, d in zip((a, b), walk.levels[0][1]))
            for row, col, height, width in block.tiles:
                name = f"pixels{self.walk_of(n)}of{height}x{width}in{block.apart}"
                places = (
                    ("ptr", "%args"),
                    ("ptr", e.gep(a, row * pitch + col, t.elem)),
                    ("ptr", table),
                    ("ptr", b),
                )
                to = e.gep(tile, (row * block.apart + col) * lanes, t.elem)
                resume = [("i64", begin)] if self.in_parts else []
                self.call(name, *places, ("ptr", to), ("i64", steps), *resume)

        def turn(tile: str, place: int) -> None:
            """A phase's results, to lines of the channels."""
            self.call_by(
                self.turn,
                ("ptr", tile),
                ("i64", lanes * t.bytes),
                ("ptr", e.gep(lines, place * self.woven_apart, t.elem)),
                ("i64", self.width * t.bytes),
                ("i64", block.pixels),
                ("i64", lanes),
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

        def all_steps(n: int, chunk: _Chunk, b: str) -> None:
            k = known(self.depths[n])
            part = self._steps_at_once(n)

            def some(begin: Number, _: Sequence[str]) -> None:
                tile_steps(n, chunk, tiles, b, begin, x.min(x.sub(k, begin), part))

            e.loop(0, max(k, 1), part, some)

        def unit(u: str, _: list[str]) -> None:
            rest, y = self.divide(x, u, chunks)
            rest, z = self.divide(x, rest, known(d.count))
            rest, i = self.divide(x, rest, count)
            chunk = _Chunk(*self.divide(x, rest, self.filter_blocks), i, z, y)
            b = e.gep(pack, x.mul(rest, depth * self.taps * lanes), t.elem)
            for place, n in enumerate(numbers):
                all_steps(n, chunk, b)
                turn(tiles, place)
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
                self._turn_filters(group, filters, turned, channel, here)
                begin = x.mul(channel, self.taps)
                # the table's distances are those in a copy of all channels
                b = e.gep(turned, x.mul(begin, -lanes), t.elem)
                each_chunk(
                    lambda chunk, tile: tile_steps(number, chunk, tile, b, begin, x.mul(here, self.taps))
                )

            e.loop(0, max(depth, 1), max(self.part, 1), some_channels)

            def results(chunk: _Chunk, tile: str) -> None:
                turn(tile, 0)
                write(chunk)

            each_chunk(results)

        e.loop("%begin", "%end", 1, block_of_filters if self.part else unit)
        e.end()
