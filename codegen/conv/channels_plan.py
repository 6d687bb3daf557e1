"""What is decided of a convolution with the result's channels as lanes before text is written: its vectors of filters, tiles of
pixels, and the chunks of rows that take the same steps."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field, replace

from tcc.codegen.conv.axes import Axis
from tcc.codegen.conv.plan import ENOUGH, TURN, ConvPlan
from tcc.codegen.conv.text import TILE_END, Number, step_cycles
from tcc.codegen.conv.tile import ConvTile
from tcc.codegen.conv.walk import Walk
from tcc.codegen.target import Target
from tcc.ir.core import Op
from tcc.ir.dims import Size, known

CHUNK_BYTES = 1 << 15  # of results that take the same steps and are turned at a time
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


@dataclass
class Cut:
    """How a block of so many vectors of filters meets the pixels of each phase: in which tiles, and how these go through their
    steps, by numbers or by a table."""

    v: int
    lanes: int
    cycles: float  # of the block for an image
    blocks: list[_Block | None]
    walks: list[Walk | None] = field(default_factory=list)
    tables: list[Size] = field(default_factory=list)


class ChannelsPlan(ConvTile):
    """A placed `conv` or `conv_input` by channels."""

    def __init__(self, op: Op, target: Target) -> None:
        super().__init__(op, target)
        self.merged = self.whole_rows = self.direct = self.in_place = False
        self.panel = 0
        self.turned, self.steps = _filter_steps(self)
        self.taps = math.prod(n for n, _ in self.steps[1:])
        m = known(self.m)
        cuts = [self._cut(v) for v in range(1, min(4, -(-m // self.t.lanes)) + 1)]

        def last(whole: Cut) -> Cut:
            """Of the last block of filters, which may be narrower."""
            return whole if self.target.avx512 else cuts[-(-((m - 1) % whole.lanes + 1) // self.t.lanes) - 1]

        def cycles(whole: Cut) -> float:
            """Of an image."""
            return ((m - 1) // whole.lanes * whole.cycles + last(whole).cycles) * self.groups

        self.whole = min(cuts, key=cycles)
        self.v, self.lanes, self.blocks = self.whole.v, self.whole.lanes, self.whole.blocks
        self.whole_cycles = cycles(self.whole)
        self.filter_blocks = -(-m // self.lanes)
        self.part = self._channels_at_once()
        self.last = self.whole if self.part else last(self.whole)
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
        # all blocks of filters meet the same chunks
        for k, (block, other) in enumerate(zip(self.blocks, self.last.blocks, strict=True)):
            if block and other:
                self.last.blocks[k] = replace(block, tile=other.tile)
        self.in_parts = bool(self.part) or any(self._parts(known(k), self.lanes) > 1 for k in self.depths)
        self.filters_cycles = TURN * self.groups * m * known(self.depth_channels) * self.taps / self.t.lanes
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

    def _cut(self, v: int) -> Cut:
        """With tiles of v vectors."""
        t, total = self.t, 0.0
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
                    turned = 2 * TURN * v * t.lanes * (-(-block.pixels // t.lanes))
                    chunk = tiles + turned + TILE_END
                    cost = chunk * -(-rows // block.rows)
                    if best is None or cost < best[0]:
                        best = cost, block
            assert best is not None
            blocks.append(best[1])
            total += best[0] * depths
        return Cut(v, v * t.lanes, total, blocks)

    def _chunk(self, h: int, w: int, rows: int, cols: int, v: int) -> _Block:
        """As many rows of tiles as fit a first-level cache, the same for all chunks: they pass through it once for each part of
        the filters, which come from the second-level cache for each chunk."""
        fit = max(CHUNK_BYTES // (cols * v * self.t.lanes * self.t.bytes), h)
        chunks = -(-rows // fit)
        each = -(-rows // chunks)
        return _Block((h, w), min(-(-each // h) * h, rows), cols, cols)

    def _parts(self, k: int, lanes: int) -> int:
        """In how many parts all tiles of a chunk take k steps: each has its filters in a part of the first-level cache, where the
        next tile finds them."""
        bytes = k * lanes * self.t.bytes
        part = self.target.l1_bytes * 3 // 8
        return -(-bytes // part) if bytes > 2 * part else 1

    def _steps_at_once(self, cut: Cut, number: int) -> int:
        """Of a phase, in whole rounds."""
        k, walk = known(self.depths[number]), cut.walks[number]
        round = walk.steps_of_round if walk else 1
        return max(-(-k // (self._parts(k, cut.lanes) * round)) * round, 1)

    def _chunks(self, number: int) -> int:
        """Of a phase of an image."""
        (d, rows, _), block = self.phases[number], self.blocks[number]
        assert block
        return -(-known(rows.count) // block.rows) * known(d.count)
