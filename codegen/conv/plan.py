"""What is decided of a convolution, or its gradient by the image, before text is written: its axes, phases and register tile."""

from __future__ import annotations

from tcc.codegen.conv.axes import (
    Axis,
    backward_axis,
    best_axes,
    ceil_div,
    forward_axis,
    spread_axis,
    whole_rows,
)
from tcc.codegen.conv.text import MOST_ROWS, ConvText, best_tile
from tcc.codegen.target import Target
from tcc.ir.core import Op
from tcc.ir.dims import Size, add, floordiv, known, maximum, mul, sub
from tcc.passes.epilogue import cheap

ENOUGH = 16  # pieces of work that threads share
TURN = 6  # cycles for a vector that is turned and copied
_ELEMENT = 2  # cycles for a filter's element that is copied


class ConvPlan(ConvText):
    """A placed `conv` or `conv_input`: a convolution of `source` with `filters` to `result`, of images, depths, rows and columns."""

    def __init__(self, op: Op, target: Target) -> None:
        super().__init__(op, target)
        self.forward = op.name == "conv"
        self.si, self.fi = (0, 1) if self.forward else (1, 0)
        self.source, self.filters, self.result = self.types[self.si], self.types[self.fi], self.types[2]
        self.groups = int(op.attrs["groups"])
        f_out, f_in = floordiv(self.filters.shape[0], self.groups), self.filters.shape[1]
        self.depth_channels, self.m = (f_in, f_out) if self.forward else (f_out, f_in)
        self.axes = self._axes()
        self.phases = [
            (a, b, c) for a in self.axes[0].runs for b in self.axes[1].runs for c in self.axes[2].runs
        ]
        self.merged = all(a.spread for a in self.axes)
        self.whole_rows = self._dense_rows() and whole_rows(self.axes, self.t)
        self.runs = self._runs()
        self.depths = [mul(self.depth_channels, *(r.taps for r in phase)) for phase in self.phases]
        deepest = max((k for k in self.depths if isinstance(k, int)), default=self.depths[0])
        # tiles may read the source itself
        self.in_place = self.one_tap(self.filters, self.source) and not any(a.spread for a in self.axes)
        in_panels = self.in_place and known(self.m) > MOST_ROWS
        self._take_tile(deepest, in_panels)
        # blocks of pixels that are copied for all tiles of filters
        self.panel = self._panel_blocks(deepest) if in_panels else 0
        self._find_places()

    def _runs(self) -> list[Size]:
        """Pixels of each phase that follow one another."""
        if self.merged or self.whole_rows:
            return [mul(*(r.count for r in self.phases[0][0 if self.merged else 1 :]))]
        pitch = self.axes[2].pitch
        return [maximum(add(mul(sub(rows.count, 1), pitch), cols.count), 0) for _, rows, cols in self.phases]

    def _take_tile(self, deepest: Size, in_panels: bool) -> None:
        """The register tile of the least time for so many steps, and what that time is."""
        pitch, (lines, longer) = self.axes[2].pitch, self._lines()
        aligned = isinstance(pitch, int) and pitch % self.t.lanes == 0 and self.axes[2].spread is not None
        pixels: Size = 0
        for run in self.runs:
            pixels = maximum(pixels, run)
        if self.merged:
            pixels = mul(pixels, self.source.shape[0])
        reads = (-1, 0) if in_panels else (lines, longer)
        how = self.t, self.target, self.m, pixels, deepest, aligned or in_panels
        cycles, self.h, self.v = best_tile(*how, ends=not self.merged, lines=reads)
        deep = self.phases[0][0].count
        each = 1 if self.merged or not isinstance(deep, int) else deep
        # of an image, or of all where they are merged, and to copy the filters
        self.cycles = cycles * len(self.phases) * each * self.groups
        copied = mul(self.groups, self.m, *self.filters.shape[2:], self.depth_channels)
        self.filters_cycles = float(_ELEMENT * copied) if isinstance(copied, int) else 0.0
        self.width = self.v * self.t.lanes
        self.heads = self.v if self.whole_rows else 1  # addresses of a tile's vectors
        self.tiles = ceil_div(self.m, self.h)
        read = mul(lines, add(self.width, longer), self.t.bytes)
        # the next block finds nothing in the first-level cache where all filters pass through it meanwhile
        through = add(read, mul(self.tiles, self.h, deepest, self.t.bytes))
        self.far = isinstance(through, int) and known(read) >= 0 and through > self.target.l1_bytes

    def _find_places(self) -> None:
        """Whether results go from a tile to their places at once."""
        (d, rows, cols), steps = self.phases[0], self.three(self.result.strides[2:], 0)
        # rows of results follow one another in memory, and tiles go on from row to row
        whole = self.whole_rows or self.axes[2].pitch == cols.count
        self.gapless = len(self.phases) == rows.step == cols.step == 1 and whole and self._dense_rows()
        if self.merged and d.count != 1:
            self.gapless = self.gapless and steps[0] == mul(rows.count, steps[1])
        self.direct = self.gapless and steps[2] == 1 and (not self.op.blocks or cheap(self.op.block.ops))

    def _panel_blocks(self, depth: Size) -> int:
        """How many blocks of pixels are copied at a time for all tiles of filters, which find their vectors one after the other
        then.  In the source each step's are a plane from those of the step before: two lines, often of another page.
        """
        fit = self.target.l2_bytes // 4 // max(known(depth) * self.width * self.t.bytes, 1)
        blocks = -(-known(self.runs[0]) // self.width)
        images = self.source.shape[0]
        if isinstance(images, int):  # that threads share
            blocks = -(-blocks * images // ENOUGH)
        return max(min(fit, blocks), 1)

    def _dense_rows(self) -> bool:
        """Whether rows of results follow one another in memory."""
        steps = self.three(self.result.strides[2:], 0)
        return bool(steps[1] == mul(self.three(self.result.shape[2:], 1)[2], steps[2]))

    def end(self, run: Size) -> tuple[int, int] | None:
        """(vectors, lanes of the last one or 0 for all) of a run's last tile, if that is not like the others."""
        rest = run % self.width if isinstance(run, int) and not self.merged else 0
        v, last = -(-rest // self.t.lanes), 0
        if self.direct or self.in_place:
            last = rest % self.t.lanes
        return (v, last) if rest and (v < self.v or last) else None

    def _axes(self) -> list[Axis]:
        make = forward_axis if self.forward else backward_axis
        space, kernel, other = (self.three(t.shape[2:], 1) for t in (self.source, self.filters, self.result))
        pads = self.pads()
        shared: list[Axis] = []
        spread: list[Axis | None] = []
        for i in range(3):
            how = pads[i], self.strides[i], self.dilation[i]
            sizes = (space[i], kernel[i], other[i]) if self.forward else (other[i], kernel[i], space[i])
            shared.append(make(*sizes, *how, i == 2))
            known = isinstance(kernel[i], int) and (self.forward or self.strides[i] == 1)
            spread.append(spread_axis(kernel[i], other[i], *how, self.forward) if known else None)
        return self._layout(shared, spread, space)

    def _layout(self, shared: list[Axis], spread: list[Axis | None], space: list[Size]) -> list[Axis]:
        """One of the two for each axis."""
        how = self.t, self.target, self._dense_rows()
        return best_axes(shared, spread, space, self.depth_channels, self.m, *how)

    def _lines(self) -> tuple[Size, Size]:
        """What taps of the first phase read for a run of results: (lines, elements by which each is longer than the run)."""
        lines, longer = self.depth_channels, 0
        for axis, run in zip(self.axes, self.phases[0]):
            if not isinstance(run.taps, int) or not isinstance(axis.pitch, int):
                return -1, 0
            lines = mul(lines, min(axis.phases, run.taps))
            longer = longer * axis.pitch + max(run.taps - 1, 0) * abs(run.apart) // axis.phases
        return lines, longer
