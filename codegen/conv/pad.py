"""The copies of images that a convolution reads: where the last axis is spread, a plane for each tap, zeros where the image
has no element; and of images that are turned."""

from __future__ import annotations

from collections.abc import Sequence

from tcc.codegen.conv.axes import Axis
from tcc.codegen.conv.text import ConvText, Number, needed_mask
from tcc.codegen.emit import VecType
from tcc.codegen.index import Index
from tcc.codegen.products.pack import copy_transposed, pack_name, transposed
from tcc.codegen.vectors import LINE, lane_mask, load, store
from tcc.ir.dims import known
from tcc.ir.types import Type

_LINES_AHEAD = 2  # of each pixel's channels, which the next squares read


def write_spread_pad(w: ConvText, source: int, axes: Sequence[Axis]) -> None:
    """Body over (image, channel): every row of every plane that meets the source; zeros in the others, and behind the last
    plane, if there are none yet."""
    e = w.begin_body("pad")
    x, t = Index(e), w.t
    kind = w.types[source]
    padded, channels, first = w.get("padded"), w.size(w.channels), w.get("first", "i64")
    image, channel, slack = (w.size(s) for s in (w.image, w.channel, w.slack))
    space = [known(s) for s in w.three(kind.shape[2:], 1)]
    steps = [w.size(s) for s in w.three(kind.strides[2:], 0)]
    sn, sc = w.size(kind.strides[0]), w.size(kind.strides[1])
    plane, from_, fresh = w.size(w.plane), w.pointer(source), w.fresh()

    def unit(u: str, _: list[str]) -> None:
        i, c = w.divide(x, u, channels)
        place = e.gep(padded, x.add(x.mul(i, image), x.mul(c, channel)), t.elem)
        read = e.gep(from_, x.add(x.mul(x.add(first, i), sn), x.mul(c, sc)), t.elem)

        def behind(at: Number) -> None:
            w.zero(e.gep(padded, x.add(at, x.mul(channels, channel)), t.elem), slack)

        last = e.value(f"icmp eq i64 {x.pick(x.equal(x.add(c, 1), channels), w.get('fresh', 'i64'), 0)}, 1")
        if all(a.spread for a in axes):  # images that are laid out as one have one end
            once = e.value(f"icmp eq i64 {i}, 0")
            e.when(e.value(f"and i1 {last}, {once}"), lambda: behind(0))
        else:
            e.when(last, lambda: behind(x.mul(i, image)))

        def lines(axis: int, read: str, number: Number, at: Number, valid: str | None) -> None:
            """All rows along the axes from `axis` on of the planes and positions met so far."""
            a = axes[axis]
            if axis == 2:
                heads = [
                    e.gep(place, x.add(x.mul(x.add(x.mul(number, a.phases), k), plane), x.mul(at, known(a.pitch))), t.elem)
                    for k in range(a.phases)
                ]  # fmt: skip
                if valid is None:
                    _row(w, a, read, heads, space[2], steps[2])
                    return
                e.when(valid, lambda: _row(w, a, read, heads, space[2], steps[2]))
                none = e.value(f"select i1 {fresh}, i1 {e.value(f'xor i1 {valid}, true')}, i1 false")
                e.when(none, lambda: _row(w, a, read, heads, 0, steps[2]))
                return

            def position(k: Number, z: Number) -> None:
                if a.spread:
                    index = x.add(x.mul(z, a.spread.step), x.mul(k, a.spread.apart))
                    index = x.add(index, w.size(a.spread.first))
                else:
                    index = x.sub(x.add(x.mul(z, a.phases), k), w.size(a.lo))
                inside = valid
                if not _always(a, space[axis]):
                    inside = e.value(f"icmp ult i64 {index}, {space[axis]}")
                    inside = inside if valid is None else e.value(f"and i1 {valid}, {inside}")
                lines(
                    axis + 1,
                    e.gep(read, x.mul(index, steps[axis]), t.elem),
                    x.add(x.mul(number, a.phases), k),
                    x.add(x.mul(at, known(a.pitch)), z),
                    inside,
                )

            if a.phases == a.pitch == 1:
                position(0, 0)
                return

            def phase(k: str, _: list[str]) -> None:
                e.loop(0, known(a.pitch), 1, lambda z, _: position(k, z))

            e.loop(0, a.phases, 1, phase)

        lines(0, read, 0, 0, None)

    e.loop("%begin", "%end", 1, unit)
    e.end()


def _always(a: Axis, size: int) -> bool:
    """Whether every position along the axis holds an element of the source, of `size`."""
    reach = (known(a.pitch) - 1, a.phases - 1)
    if a.spread:
        ends = [
            o * a.spread.step + k * a.spread.apart + known(a.spread.first)
            for o in (0, reach[0])
            for k in (0, reach[1])
        ]
        return min(ends) >= 0 and max(ends) < size
    return a.lo == 0 and reach[0] * a.phases + reach[1] < size


def _row(w: ConvText, a: Axis, read: str, heads: Sequence[str], size: int, step: Number) -> None:
    """A row of the source, of `size` elements, to the planes of all taps."""
    how, t, e = a.spread, w.t, w.e
    assert how is not None
    count, first = known(a.pitch), known(how.first)
    for k, head in enumerate(heads):
        begin = k * how.apart + first
        if step != 1 or how.step > 4:
            some = range(max(-(begin // how.step), 0), min((size - 1 - begin) // how.step + 1, count))
            w.zero(head, count)
            if some:
                at = e.gep(read, Index(e).mul(begin + some[0] * how.step, step), t.elem)
                w.copy(at, e.gep(head, some[0], t.elem), len(some), 1, Index(e).mul(step, how.step))
            continue
        for o in range(0, count, t.lanes):
            lanes = [o + j < count and 0 <= begin + (o + j) * how.step < size for j in range(t.lanes)]
            value = _some(w, read, begin + o * how.step, how.step, lanes) if any(lanes) else "zeroinitializer"
            w.store_first(value, e.gep(head, o, t.elem), min(count - o, t.lanes))


def _some(w: ConvText, read: str, begin: int, step: int, lanes: Sequence[bool]) -> str:
    """The elements begin, begin + step, ..., zeros in the lanes that are false."""
    e, t = w.e, w.t
    # not inbounds: lanes before the row are not read
    at = e.value(f"getelementptr {t.elem}, ptr {read}, i64 {begin}")
    if step == 1:
        return load(e, t, at, needed_mask(lanes))
    many = VecType(t.elem, t.lanes * step)
    wanted = [lanes[j // step] and j % step == 0 for j in range(many.lanes)]
    whole = load(e, many, at, needed_mask(wanted))
    order = ", ".join(f"i32 {j * step}" for j in range(t.lanes))
    return e.value(f"shufflevector {many} {whole}, {many} poison, <{t.lanes} x i32> <{order}>")


def write_pad(w: ConvText, source: int, axes: Sequence[Axis]) -> None:
    """The body `pad` over (image, channel) for the layout of the axes."""
    kind = w.types[source]
    count = kind.shape[1]
    many = not isinstance(count, int) or count >= w.t.lanes // 2
    neighbours = many and kind.strides[1] == 1 and kind.strides[-1] != 1
    if axes[2].spread:
        write_spread_pad(w, source, axes)
    elif neighbours and all(a.phases == 1 for a in axes) and (w.target.avx512 or _fills_squares(w, kind)):
        _write_turned_pad(w, source, axes)
    else:
        w.write_plain_pad(source, axes)


def _fills_squares(w: ConvText, kind: Type) -> bool:
    """Whether rows are long enough for squares without masks, the last of which goes back over the one before."""
    row = kind.shape[-1]
    return isinstance(row, int) and row >= w.t.lanes


def _write_turned_pad(w: ConvText, source: int, axes: Sequence[Axis]) -> None:
    """Of images whose channels are neighbours in memory: a vector of them is read for each pixel, and squares are turned.  The
    first of as many channels as a vector has does it for all of them."""
    e = w.begin_body("pad")
    x, t = Index(e), w.t
    kind = w.types[source]
    padded, channels, first = w.get("padded"), w.size(w.channels), w.get("first", "i64")
    image, channel, slack = (w.size(s) for s in (w.image, w.channel, w.slack))
    space = [w.size(s) for s in w.three(kind.shape[2:], 1)]
    steps = [w.size(s) for s in w.three(kind.strides[2:], 0)]
    los, pitch = [w.size(a.lo) for a in axes], [w.size(a.pitch) for a in axes]
    sn, from_, fresh = w.size(kind.strides[0]), w.pointer(source), w.fresh()

    def square(read: str, place: str, count: Number, pixels: Number) -> None:
        last, some = x.sub(pixels, 1), lane_mask(e, t, str(count))
        rows = [
            load(e, t, e.gep(read, x.mul(x.min(last, i), steps[2]), t.elem), some) for i in range(t.lanes)
        ]
        for i, row in enumerate(transposed(e, t, rows)):
            there = lane_mask(e, t, str(x.pick(x.less(i, count), pixels, 0)))
            store(e, t, row, e.gep(place, x.mul(channel, i), t.elem), there)

    turn = "" if w.target.avx512 else w.helper(copy_transposed(t, w.target), pack_name(t, "turn"))

    def row_of_squares(read: str, place: str, count: Number) -> None:
        size = known(kind.shape[-1])
        whole = size // t.lanes * t.lanes
        for begin, pixels in ((0, whole), *([(size - t.lanes, t.lanes)] if size > whole else [])):
            from_ = e.gep(read, x.mul(steps[2], begin), t.elem)
            sizes = (("i64", x.mul(steps[2], t.bytes)), ("ptr", e.gep(place, begin, t.elem)))
            ahead = ("i64", _LINES_AHEAD * LINE)
            how = (*sizes, ("i64", x.mul(channel, t.bytes)), ("i64", pixels), ("i64", count), ahead)
            w.call_by(turn, ("ptr", from_), *how)

    def some_channels(i: Number, c: Number) -> None:
        count = x.min(x.sub(channels, c), t.lanes)
        place = e.gep(padded, x.add(x.mul(i, image), x.mul(c, channel)), t.elem)
        read = e.gep(from_, x.add(x.mul(w.image_number(x, first, i), sn), c), t.elem)
        last = x.equal(x.add(c, count), channels)
        e.when(fresh, lambda: w.zero(place, x.add(x.mul(count, channel), x.pick(last, slack, 0))))

        def lines(axis: int, read: str, at: Number) -> None:
            def pixels(k: str, _: list[str]) -> None:
                here = e.gep(place, x.add(x.mul(at, pitch[2]), x.add(los[2], k)), t.elem)
                square(e.gep(read, x.mul(k, steps[2]), t.elem), here, count, x.sub(space[2], k))

            def line(k: str, _: list[str]) -> None:
                z = x.add(x.mul(at, pitch[axis]), x.add(los[axis], k))
                lines(axis + 1, e.gep(read, x.mul(k, steps[axis]), t.elem), z)

            if axis == 2 and turn:
                row_of_squares(read, e.gep(place, x.add(x.mul(at, pitch[2]), los[2]), t.elem), count)
            elif axis == 2:
                e.loop(0, space[2], t.lanes, pixels)
            else:
                e.loop(0, space[axis], 1, line)

        lines(0, read, 0)

    def unit(u: str, _: list[str]) -> None:
        i, c = w.divide(x, u, channels)
        begins = e.value(f"icmp eq i64 {x.sub(c, x.mul(x.div(c, t.lanes), t.lanes))}, 0")
        e.when(begins, lambda: some_channels(i, c))

    e.loop("%begin", "%end", 1, unit)
    e.end()
