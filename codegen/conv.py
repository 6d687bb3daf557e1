"""Convolution and its gradient by the image, by register tiles that read the padded image in place.

A copy of the image in scratch has zeros around it, rows of a constant pitch, and a plane for each phase of the strides.
So the elements that a tap meets for a run of neighbouring results are a run too, at a distance that is the tap's alone: a
register tile of `rows` channels by some vectors of pixels takes its vectors at the offsets of a table.  Results that
fall between two rows of the image are computed and dropped; the zeros at a row's start serve the row before as well.
Each element is one chain of fused multiply-adds over channels, then taps, whatever the tile.

The gradient by the image is such a convolution of g for each phase of the strides, with the taps that meet the phase.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tcc.codegen.conv_text import ConvText, Number, tile_shape
from tcc.codegen.index import Index
from tcc.codegen.kernel import Kernel
from tcc.codegen.target import Target
from tcc.ir.core import Op
from tcc.ir.dims import Size, add, floordiv, maximum, minimum, mul, sub


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
class Axis:
    """The padded source along one axis: `lo` zeros, then its elements, cut into `phases`, each `pitch` long."""

    lo: Size
    phases: int
    pitch: Size
    share: Size  # zeros that the next row begins with, of each phase
    runs: tuple[Run, ...]


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
        runs.append(
            Run(
                max(t0, 0),
                tstep,
                taps,
                sub(first, q0),
                count,
                base,
                stride,
                start,
                -dilation * tstep // stride,
            )
        )
    return Axis(zeros, 1, pitch, zeros if last else 0, tuple(runs))


def conv_kernel(op: Op, target: Target) -> Kernel:
    """A placed `conv` or `conv_input`.  Threads share the images, and the runs of pixels of each."""
    forward = op.name == "conv"
    w = ConvText(op, target)
    si, fi = (0, 1) if forward else (1, 0)
    source, filters, result = w.types[si], w.types[fi], w.types[2]
    groups = int(op.attrs["groups"])
    f_out, f_in = floordiv(filters.shape[0], groups), filters.shape[1]
    channels, m = (f_in, f_out) if forward else (f_out, f_in)
    make = forward_axis if forward else backward_axis
    space, kernel, other = (w.three(t.shape[2:], 1) for t in (source, filters, result))
    pads = w.pads()
    axes = [
        make(
            *((space[i], kernel[i], other[i]) if forward else (other[i], kernel[i], space[i])),
            pads[i],
            w.strides[i],
            w.dilation[i],
            i == 2,
        )
        for i in range(3)
    ]
    phases = [(a, b, c) for a in axes[0].runs for b in axes[1].runs for c in axes[2].runs]
    p = axes[2].pitch
    most: Size = 0
    for _, rows, cols in phases:
        most = maximum(most, add(mul(sub(rows.count, 1), p), cols.count))
    depth = [mul(channels, *(r.taps for r in phase)) for phase in phases]
    h, v = tile_shape(w.t, target, m, most, max((k for k in depth if isinstance(k, int)), default=depth[0]))
    width, tiles = v * w.t.lanes, ceil_div(m, h)
    w.lay_out(axes, channels=mul(groups, channels), slack=add(width, axes[2].share, w.t.lanes))

    tables, packs = [], []
    for k in depth:
        tables.append(w.reserve(mul(k, 8)))
        packs.append(w.reserve(mul(groups, tiles, k, h * w.t.bytes)))
    most_images = w.images_at_once(source.shape[0])
    w.write_tile(h, v)
    w.write_pad(si, axes)

    # the table and the packed filters of each phase
    for number, phase in enumerate(phases):
        _write_pack(w, number, phase, forward, fi, groups, channels, m, h, tiles, depth[number], axes)
        _write_tiles(w, number, phase, axes, groups, channels, m, h, v, tiles, depth[number])

    e = w.begin_kernel()
    x = Index(e)
    for number in range(len(phases)):
        w.put("table", w.scratch(tables[number]))
        w.put("pack", w.scratch(packs[number]))
        w.parallel(f"pack{number}", x.mul(w.size(tiles), groups), x.mul(w.size(depth[number]), h * 32))

    def images(first: str, _: list[str]) -> None:
        count = x.min(x.sub(w.size(source.shape[0]), first), w.size(most_images))
        w.put("first", first)
        w.parallel("pad", x.mul(count, w.size(mul(groups, channels))), x.mul(w.size(w.channel), 4))
        for number, (d, rows, cols) in enumerate(phases):
            w.put("table", w.scratch(tables[number]))
            w.put("pack", w.scratch(packs[number]))
            long = maximum(add(mul(sub(rows.count, 1), p), cols.count), 0)
            blocks = mul(floordiv(add(long, width - 1), width), minimum(cols.count, 1), d.count, groups)
            cost = x.mul(w.size(mul(tiles, depth[number])), h * v * 8)
            w.parallel(
                f"tiles{number}", x.mul(count, w.size(blocks)), x.add(cost, x.mul(w.size(tiles), h * v * 64))
            )

    e.loop(0, w.size(source.shape[0]), w.size(most_images), images)
    return w.finish(op.name, thread_scratch=h * width * w.t.bytes)


def _write_pack(
    w: ConvText,
    number: int,
    phase: tuple[Run, ...],
    forward: bool,
    fi: int,
    groups: int,
    channels: Size,
    m: Size,
    h: int,
    tiles: Size,
    depth: Size,
    axes: list[Axis],
) -> None:
    """Body over tiles of filters: copies them in the order in which the tiles read them; the first also makes the table."""
    e = w.begin_body(f"pack{number}")
    x = Index(e)
    t_elem, strides = w.t.elem, w.types[fi].strides
    s0, s1 = w.size(strides[0]), w.size(strides[1])
    rest = [w.size(s) for s in w.three(strides[2:], 0)]
    mm, cc, kk, tt = w.size(m), w.size(channels), w.size(depth), w.size(tiles)
    base, table, pack = w.pointer(fi), w.get("table"), w.get("pack")

    def each(body: Callable[[str, list[str], Number], None]) -> None:
        """`body(c, taps, k)` over channels, then taps."""
        counts = [w.size(r.taps) for r in phase]

        def channel(c: str, _: list[str]) -> None:
            def taps(axis: int, at: list[str], k: Number) -> None:
                if axis == 3:
                    body(c, at, k)
                    return
                e.loop(
                    0,
                    counts[axis],
                    1,
                    lambda i, _: taps(axis + 1, [*at, i], x.add(x.mul(k, counts[axis]), i)),
                )

            taps(0, [], c)

        e.loop(0, cc, 1, channel)

    def entry(c: str, at: list[str], k: Number) -> None:
        plane: Number = c
        inside: Number = 0
        for axis, run, i in zip(axes, phase, at):
            u = x.add(w.size(run.start), x.mul(i, run.apart))
            z = x.div(u, axis.phases)
            plane = x.add(x.mul(plane, axis.phases), x.sub(u, x.mul(z, axis.phases)))
            inside = x.add(x.mul(inside, w.size(axis.pitch)), z)
        where = x.add(x.mul(plane, w.size(w.plane)), inside)
        e.line(f"store i64 {x.mul(where, w.t.bytes)}, ptr {e.gep(table, k, 'i64')}")

    e.when(e.value("icmp eq i64 %begin, 0"), lambda: each(entry))

    def tile(u: str, _: list[str]) -> None:
        group, number = x.div(u, tt), x.sub(u, x.mul(x.div(u, tt), tt))
        place = e.gep(pack, x.mul(u, x.mul(kk, h)), t_elem)

        def element(c: str, at: list[str], k: Number) -> None:
            offset: Number = 0
            for run, i, s in zip(phase, at, rest):
                offset = x.add(offset, x.mul(x.add(run.t0, x.mul(i, run.tstep)), s))

            def row(r: str, _: list[str]) -> None:
                channel = x.add(x.mul(number, h), r)
                real = e.value(f"icmp slt i64 {channel}, {mm}")
                known = x.min(channel, x.sub(mm, 1))
                if forward:
                    where = x.add(x.mul(x.add(x.mul(group, mm), known), s0), x.mul(c, s1))
                else:
                    where = x.add(x.mul(x.add(x.mul(group, cc), c), s0), x.mul(known, s1))
                value = e.value(
                    f"load {t_elem}, ptr {e.gep(base, x.add(where, offset), t_elem)}, align {w.t.bytes}"
                )
                value = e.value(f"select i1 {real}, {t_elem} {value}, {t_elem} 0.0")
                at_pack = e.gep(place, x.add(x.mul(k, h), r), t_elem)
                e.line(f"store {t_elem} {value}, ptr {at_pack}, align {w.t.bytes}")

            e.loop(0, h, 1, row)

        each(element)

    e.loop("%begin", "%end", 1, tile)
    e.end()


def _write_tiles(
    w: ConvText,
    number: int,
    phase: tuple[Run, ...],
    axes: list[Axis],
    groups: int,
    channels: Size,
    m: Size,
    h: int,
    v: int,
    tiles: Size,
    depth: Size,
) -> None:
    """Body over (image, group, depth, block of pixels): the block for all filters, then its rows to the result."""
    e = w.begin_body(f"tiles{number}")
    x = Index(e)
    d, rows, cols = phase
    width = v * w.t.lanes
    pitch_h, p = (w.size(a.pitch) for a in axes[1:])
    long = w.size(maximum(add(mul(sub(rows.count, 1), axes[2].pitch), cols.count), 0))
    blocks, depths = x.div(x.add(long, width - 1), width), w.size(d.count)
    mm, kk, tt, cc = w.size(m), w.size(depth), w.size(tiles), w.size(channels)
    phases = math.prod(a.phases for a in axes)
    out = w.types[2]
    sn, sc = w.size(out.strides[0]), w.size(out.strides[1])
    sd, sh, sw = (w.size(s) for s in w.three(out.strides[2:], 0))
    result, table, pack, first, padded = (
        w.pointer(2),
        w.get("table"),
        w.get("pack"),
        w.get("first", "i64"),
        w.scratch(w.padded),
    )
    elem = w.t.elem
    tile = w.thread_scratch()
    plane, image, ow = w.size(w.plane), w.size(w.image), w.size(cols.count)
    firsts = [w.size(r.first) for r in phase]
    bases = [w.size(r.base) for r in phase]

    # rows of results follow one another in both memories: a run is copied as one
    steps = w.three(out.strides[2:], 0)
    gapless = (
        rows.step == cols.step == 1 and axes[2].pitch == cols.count and steps[1] == mul(cols.count, steps[2])
    )

    def unit(u: str, _: list[str]) -> None:
        rest, block = w.divide(x, u, blocks)
        rest, z = w.divide(x, rest, depths)
        i, group = w.divide(x, rest, groups)
        q0 = x.mul(block, width)
        q1 = x.min(x.add(q0, width), long)
        at = x.add(x.mul(x.add(firsts[0], z), pitch_h), firsts[1])
        at = x.add(x.add(x.mul(at, p), firsts[2]), q0)
        at = x.add(at, x.mul(x.mul(x.mul(group, cc), phases), plane))
        b = e.gep(padded, x.add(at, x.mul(i, image)), elem)
        to = x.add(x.mul(x.add(first, i), sn), x.mul(x.mul(group, mm), sc))
        to = x.add(to, x.mul(x.add(bases[0], x.mul(z, d.step)), sd))
        y0, y1 = (0, 1) if gapless else (x.div(q0, p), x.add(x.div(x.sub(q1, 1), p), 1))

        def filters(number: str, _: list[str]) -> None:
            a = e.gep(pack, x.mul(x.add(x.mul(group, tt), number), x.mul(kk, h)), elem)
            w.call("tile", ("ptr", a), ("ptr", table), ("ptr", b), ("ptr", tile), ("i64", kk))
            channel = x.mul(number, h)
            count = x.min(x.sub(mm, channel), h)

            def line(y: str, _: list[str]) -> None:
                begin = q0 if gapless else x.max(q0, x.mul(y, p))
                end = q1 if gapless else x.min(q1, x.add(x.mul(y, p), ow))
                length = x.max(x.sub(end, begin), 0)
                column = x.add(bases[2], x.mul(x.sub(begin, x.mul(y, p)), cols.step))
                row = x.mul(x.add(bases[1], x.mul(y, rows.step)), sh)
                place = x.add(x.add(to, row), x.add(x.mul(channel, sc), x.mul(column, sw)))
                src, dst = e.gep(tile, x.sub(begin, q0), elem), e.gep(result, place, elem)

                def copy(_: str, v: list[str]) -> list[str]:
                    w.copy(v[0], v[1], length, x.mul(sw, cols.step))
                    return [e.gep(v[0], width, elem), e.gep(v[1], sc, elem)]

                e.loop(0, count, 1, copy, [("ptr", src), ("ptr", dst)])

            e.loop(y0, y1, 1, line)

        e.loop(0, tt, 1, filters)

    e.loop("%begin", "%end", 1, unit)
    e.end()
