"""The padded image along one axis: where its elements stand in scratch, and which of them each tap meets.

Two layouts.  A *shared* axis holds the elements once, zeros around them, one plane for each phase of the stride; all taps
read it at different distances, and a row is as long as the farthest tap needs: results that fall behind a row's end are
computed and dropped.  A *spread* axis has a plane for each tap, with just the elements that the tap meets, in the order of
the results: nothing is dropped, and runs of results go on from row to row.  The copies of an element are as many as taps.

Where a row of results is whole vectors, a shared axis drops nothing either: each vector of a tile has an address of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tcc.codegen.emit import VecType
from tcc.codegen.target import Target
from tcc.ir.dims import Size, add, floordiv, known, maximum, mul, sub

MOST_TAPS = 11  # of a spread axis, or that share what they read
MOST_VECTORS = 64  # of a row of all its planes, which are written one by one


def ceil_div(a: Size, b: int) -> Size:
    return floordiv(add(a, b - 1), b)


@dataclass(frozen=True)
class Run:
    """A phase along one axis: the taps t0, t0 + tstep, .. and the results base, base + step, ..., the first of which stands
    at `first` in the padded source.  `apart` of two taps' offsets; `start` is the first tap's (in steps of the source)."""

    t0: int
    tstep: int
    taps: Size
    first: Size
    count: Size
    base: Size
    step: int
    start: Size
    apart: int


@dataclass(frozen=True)
class Spread:
    """Position o of tap t's plane holds the source's element o * step + t * apart + first."""

    step: int
    apart: int
    first: Size


@dataclass(frozen=True)
class Axis:
    """The padded source along one axis: `lo` zeros, then its elements, cut into `phases`, each `pitch` long."""

    lo: Size
    phases: int
    pitch: Size
    share: Size  # zeros that the next row begins with, of each phase
    runs: tuple[Run, ...]
    spread: Spread | None = None  # `phases` are taps then


def forward_axis(s: Size, k: Size, out: Size, lo: Size, stride: int, dilation: int, last: bool) -> Axis:
    reach = floordiv(mul(add(k, -1), dilation), stride)
    share = floordiv(lo, stride) if last else 0
    pitch = maximum(maximum(ceil_div(add(lo, s), stride), out), sub(add(out, reach), share))
    return Axis(lo, stride, pitch, share, (Run(0, 1, k, 0, out, 0, 1, 0, dilation),))


def backward_axis(size: Size, k: Size, g: Size, lo: Size, stride: int, dilation: int, last: bool) -> Axis:
    reach = maximum(floordiv(mul(add(k, -1), dilation), stride), 0)
    q0 = floordiv(lo, stride)
    zeros = maximum(sub(reach, q0), 0)
    most = maximum(sub(add(floordiv(sub(add(size, lo), 1), stride), 1), q0), 0)
    pitch = maximum(add(zeros, g), add(most, q0, 0 if last else zeros))
    common = math.gcd(dilation, stride)
    runs = []
    for phase in range(stride):
        first = ceil_div(maximum(sub(lo, phase), 0), stride)
        count = maximum(sub(add(floordiv(sub(add(size, lo), 1 + phase), stride), 1), first), 0)
        t0 = next((t for t in range(stride) if dilation * t % stride == phase), -1)
        tstep = stride // common
        taps = 0 if t0 < 0 else maximum(ceil_div(sub(k, t0), tstep), 0)
        start = sub(add(q0, zeros), (dilation * max(t0, 0) - phase) // stride)
        base = sub(add(mul(stride, first), phase), lo)
        apart = -dilation * tstep // stride
        runs.append(Run(max(t0, 0), tstep, taps, sub(first, q0), count, base, stride, start, apart))
    return Axis(zeros, 1, pitch, zeros if last else 0, tuple(runs))


def spread_axis(k: int, out: Size, lo: Size, stride: int, dilation: int, forward: bool) -> Axis:
    """For `out` results; of the gradient, whose stride must be 1, these are the image's elements."""
    how = Spread(stride, dilation, mul(-1, lo)) if forward else Spread(1, -dilation, lo)
    return Axis(0, k, out, 0, (Run(0, 1, k, 0, out, 0, 1, 0, 1),), how)


def whole_rows(axes: Sequence[Axis], t: VecType) -> bool:
    """Whether results along the shared last axis, which are all of one phase, are whole vectors with gaps between the rows."""
    last = axes[2]
    one = last.spread is None and all(len(a.runs) == 1 for a in axes)
    if not one or not isinstance(last.pitch, int) or not isinstance(last.runs[0].count, int):
        return False
    count = last.runs[0].count
    return 0 < count < last.pitch and count % t.lanes == 0


def best_axes(
    shared: list[Axis],
    spread: list[Axis | None],
    source: list[Size],
    channels: Size,
    m: Size,
    t: VecType,
    target: Target,
    dense: bool,
) -> list[Axis]:
    """The faster layout of each axis: the last is spread where what its copies cost is less than what is dropped without,
    and then the others too where they have one tap.  Sizes that are not known leave all shared.  The rows of results follow
    one another in memory if they are `dense`."""
    last = spread[2]
    sizes = [
        *source, channels, m, *(s for a in shared for s in (a.pitch, a.runs[0].taps, a.runs[0].count))
    ]  # fmt: skip
    if last is None or not all(isinstance(s, int) for s in sizes):
        return shared
    rows, cols = known(shared[1].runs[0].count), known(shared[2].runs[0].count)
    taps = [known(a.runs[0].taps) for a in shared]
    if not 0 < taps[2] <= MOST_TAPS or rows * cols == 0 or taps[2] * -(-cols // t.lanes) > MOST_VECTORS:
        return shared
    lines = known(mul(*source[:2]))
    # cycles for a channel of an image: multiply-adds, copies, and from the second line on what the tiles' ends cost
    depth = known(shared[0].runs[0].count)
    each = math.prod(taps) * known(m) / (t.lanes * target.multiply_adds) * depth
    by_row, row = max(known(channels), 1), -(-cols // t.lanes)
    whole = dense and whole_rows(shared, t)
    pixels = rows * cols if whole else (rows - 1) * known(shared[2].pitch) + cols
    alone = each * pixels + lines * (3 * -(-known(source[2]) // t.lanes) + 12)
    if known(shared[2].pitch) != cols and not whole:
        alone += known(m) * depth * rows * (2 * row + 8) / by_row
    copied = each * rows * cols + lines * (3 * row * taps[2] + 12)
    if copied >= alone:
        return shared
    return [
        *(b if b is not None and n == 1 else a for a, b, n in zip(shared[:2], spread[:2], taps)), last
    ]  # fmt: skip
