"""How the sums of a gradient by filters get from their tiles to the filters' places."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tcc.codegen.conv.axes import ceil_div
from tcc.codegen.conv.text import Number
from tcc.codegen.index import Index
from tcc.codegen.products.pack import copy_transposed, pack_name
from tcc.codegen.vectors import load, store
from tcc.ir.dims import Size, known, mul
from tcc.ir.types import dense_strides

if TYPE_CHECKING:
    from tcc.codegen.conv.filter import ConvFilter

TOGETHER = 64  # elements of a filter that are written together, if so many are in one piece


def is_turned(w: ConvFilter) -> bool:
    """Whether a filter lies in one piece, and the filters, which are neighbours in a tile, far from one another."""
    out = w.types[2]
    return w.in_vectors and out.strides[1:] == dense_strides(out.shape[1:]) and out.strides[0] != 1


def channels_together(w: ConvFilter) -> int:
    taps = mul(*w.taps)
    return max(TOGETHER // taps, 1) if isinstance(taps, int) and taps else 1


def _piece(w: ConvFilter) -> Size:
    """Elements of a filter that are written together, in whole vectors."""
    return mul(ceil_div(mul(channels_together(w), *w.taps), w.t.lanes), w.t.lanes)


def scratch_bytes(w: ConvFilter) -> Size:
    return mul(2 * w.width * w.t.bytes, _piece(w))


def write_sums_out(w: ConvFilter) -> None:
    if is_turned(w):
        _write_turned(w)
    else:
        _write_rows(w)


def _write_turned(w: ConvFilter) -> None:
    """Body over (group, block of filters, some channels): the sums of all parts, turned so that a filter's elements are
    neighbours, which take whole lines to their places."""
    turn = w.helper(copy_transposed(w.t, w.target), pack_name(w.t, "turn"))
    e = w.begin_body("out")
    x, t, width = Index(e), w.t, w.width
    sums, result, rows = w.scratch(w.sums), w.pointer(2), w.thread_scratch()
    so, sc = w.size(w.types[2].strides[0]), w.size(w.types[2].strides[1])
    filters, per_group, parts, blocks = (w.size(s) for s in (w.filters, w.per_group, w.parts, w.blocks))
    together, piece = channels_together(w), w.size(_piece(w))
    chunks = w.size(ceil_div(w.per_group, together))
    taps = [w.size(s) for s in w.taps]
    all_taps = x.mul(x.mul(taps[0], taps[1]), taps[2])
    apart = x.mul(w.size(w.units), w.h * width)
    turned = e.gep(rows, x.mul(piece, width), t.elem)

    def unit(u: str, _: list[str]) -> None:
        rest, chunk = w.divide(x, u, chunks)
        group, block = w.divide(x, rest, blocks)
        first = x.mul(chunk, together)
        channels = x.min(x.sub(per_group, first), together)
        begin = x.mul(block, width)
        count = x.min(x.sub(filters, begin), width)

        def channel(c: str, _: list[str]) -> None:
            def along(axis: int, at: list[Number], number: Number) -> None:
                if axis < 3:

                    def one(i: str, _: list[str]) -> None:
                        along(axis + 1, [*at, i], x.add(x.mul(number, taps[axis]), i))

                    e.loop(0, taps[axis], 1, one)
                    return
                source = e.gep(sums, x.mul(w.sums_row(x, rest, x.add(first, c), at), width), t.elem)
                to = e.gep(rows, x.mul(x.add(x.mul(c, all_taps), number), width), t.elem)
                for j in range(0, width, t.lanes):
                    store(e, t, _of_parts(w, e.gep(source, j, t.elem), apart, parts), e.gep(to, j, t.elem))

            along(0, [], 0)

        e.loop(0, channels, 1, channel)
        length = x.mul(channels, all_taps)
        sizes = (("i64", width * t.bytes), ("ptr", turned), ("i64", x.mul(piece, t.bytes)))
        w.call_by(turn, ("ptr", rows), *sizes, ("i64", length), ("i64", count), ("i64", 0))
        start = x.add(x.mul(x.add(x.mul(group, filters), begin), so), x.mul(first, sc))

        def line(o: str, _: list[str]) -> None:
            to = e.gep(result, x.add(start, x.mul(o, so)), t.elem)
            w.copy(e.gep(turned, x.mul(o, piece), t.elem), to, length)

        e.loop(0, count, 1, line)

    e.loop("%begin", "%end", 1, unit)
    e.end()


def _of_parts(w: ConvFilter, place: str, apart: Number, parts: Number) -> str:
    """A vector of sums, those of all parts together."""
    e, t, x = w.e, w.t, Index(w.e)
    first = load(e, t, place)
    if parts == 1:
        return first

    def more(p: str, v: list[str]) -> list[str]:
        return [e.value(f"fadd {t} {v[0]}, {load(e, t, e.gep(place, x.mul(p, apart), t.elem))}")]

    return e.loop(1, parts, 1, more, [(t, first)])[0]


def _write_rows(w: ConvFilter) -> None:
    """Body over tiles: the parts' sums together, to the filters' places."""
    e = w.begin_body("out")
    x, t, out = Index(e), w.t, w.types[2]
    sums, result = w.scratch(w.sums), w.pointer(2)
    so, sc = w.size(out.strides[0]), w.size(out.strides[1])
    steps = [w.size(s) for s in w.three(out.strides[2:], 0)]
    filters, per_group = w.size(w.filters), w.size(w.per_group)
    for size in (*w.outer, w.row_blocks, w.blocks):
        w.size(size)
    parts = w.size(w.parts)
    taps_of_row = math.prod(known(k) for k in w.taps[3 - w.inner :])
    apart = x.mul(w.size(w.units), w.h * w.width)

    def unit(u: str, _: list[str]) -> None:
        group, block, taps, rows = w.unit_of(x, u)
        c = e.gep(sums, x.mul(u, w.h * w.width), t.elem)
        begin = x.mul(block, w.width)
        count = x.min(x.sub(filters, begin), w.width)
        start = x.mul(x.add(x.mul(group, filters), begin), so)
        first = w.first_channel(x, rows)

        def add_parts(k: str, _: list[str]) -> None:
            place = e.gep(c, k, t.elem)
            store(e, t, _of_parts(w, place, apart, parts), place)

        if parts != 1:
            e.loop(0, w.h * w.width, t.lanes, add_parts)

        def row(r: str, _: list[str]) -> None:
            w.finish_row(c, r)
            channel, inner = w.row_of(r, x)
            to = x.add(start, x.mul(x.add(first, channel), sc))
            for tap, step in zip([*taps, *inner], steps, strict=True):
                to = x.add(to, x.mul(tap, step))
            w.copy(e.gep(c, x.mul(r, w.width), t.elem), e.gep(result, to, t.elem), count, so)

        at_once = w.size(w.channels_at_once)
        begin = x.sub(x.mul(rows, at_once), first)
        there = x.min(at_once, x.sub(per_group, first))
        e.loop(x.mul(begin, taps_of_row), x.mul(there, taps_of_row), 1, row)

    e.loop("%begin", "%end", 1, unit)
    e.end()
