"""Copies of matrix blocks into scratch, in the order in which the register tiles read them."""

from __future__ import annotations

import functools

from tcc.codegen.emit import Emit, VecType
from tcc.codegen.index import Index
from tcc.codegen.target import Target
from tcc.codegen.vectors import LINE, each_vector, lane_mask, load, store

_ROWS_AHEAD = 12  # rows that are fetched ahead of the one that is copied
_LINES_AHEAD = 28  # of rows of a group of panels, which often crowd into few sets of the first-level cache
_BYTES_AHEAD = 4096  # of rows that follow: a short one is read before the next has come


def pack_name(t: VecType, kind: str) -> str:
    return f"tcc_pack_{t.suffix}_{kind}"


def copy_rows(t: VecType, target: Target) -> Emit:
    """LLVM text of `void @tcc_pack_T_rows(src, src stride, dst, dst stride, rows, cols)`; strides in bytes.

    Columns are contiguous on both sides; each row of dst is filled up with zeros to a whole vector.
    """
    e = Emit()
    e.function(
        f"internal void @{pack_name(t, 'rows')}(ptr noalias readonly %src, i64 %ss, ptr noalias %dst, i64 %ds, "
        "i64 %rows, i64 %cols)"
    )

    def row(_: str, v: list[str]) -> list[str]:
        def vector(i: str, mask: str | None, _: list[str]) -> list[str]:
            store(e, t, load(e, t, e.gep(v[0], i, t.elem), mask), e.gep(v[1], i, t.elem))
            return []

        each_vector(e, t, target, "%cols", vector)
        return [e.gep(v[0], "%ss"), e.gep(v[1], "%ds")]

    e.loop(0, "%rows", 1, row, [("ptr", "%src"), ("ptr", "%dst")])
    e.end()
    return e


def copy_panel(t: VecType, vectors: int, target: Target) -> Emit:
    """LLVM text of `void @tcc_pack_T_panel(src, src stride, dst, dst stride, rows, cols)`; strides in bytes.

    Like `copy_rows` for at most `vectors` vectors of columns, at least one column: the rows are read far apart, so those
    that follow are fetched ahead.
    """
    e = Emit()
    e.function(
        f"internal void @{pack_name(t, 'panel')}(ptr noalias readonly %src, i64 %ss, ptr noalias %dst, i64 %ds, "
        "i64 %rows, i64 %cols)"
    )
    e.declare("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
    x = Index(e)
    ahead = x.mul("%ss", _ROWS_AHEAD)

    def copy(masks: list[str | None]) -> None:
        def row(_: str, v: list[str]) -> list[str]:
            src, dst = v
            fetched = e.gep(src, ahead)
            for j, mask in enumerate(masks):
                at = e.gep(fetched, j * t.lanes, t.elem)
                e.line(f"call void @llvm.prefetch.p0(ptr {at}, i32 0, i32 3, i32 1)")
                vector = load(e, t, e.gep(src, j * t.lanes, t.elem), mask)
                store(e, t, vector, e.gep(dst, j * t.lanes, t.elem))
            return [e.gep(src, "%ss"), e.gep(dst, "%ds")]

        e.loop(0, "%rows", 1, row, [("ptr", "%src"), ("ptr", "%dst")])

    for count in range(1, vectors + 1):
        first, last = (count - 1) * t.lanes, count * t.lanes
        rest = e.value(f"sub i64 %cols, {first}")
        full = e.value(f"icmp eq i64 %cols, {last}")
        fits = e.value(
            f"icmp ult i64 {e.value(f'sub i64 {rest}, 1')}, {t.lanes}"
        )  # 1 to a vector of them are left
        whole: list[str | None] = [None] * count
        if not target.avx512:  # where masks cost
            e.when(full, functools.partial(copy, whole))
            fits = e.value(f"and i1 {fits}, {e.value(f'xor i1 {full}, true')}")
        mask = lane_mask(e, t, str(x.max(rest, 0)))
        e.when(fits, functools.partial(copy, [*whole[1:], mask]))
    e.end()
    return e


def copy_block(t: VecType, vectors: int, target: Target) -> Emit:
    """LLVM text of `void @tcc_pack_T_block(src, src stride, dst, dst stride, panel stride, rows, cols)`; strides in bytes.

    Panels of `vectors` vectors of columns, side by side in src: rows are read along their whole length, as memory likes it, and
    those that follow are fetched meanwhile.
    """
    e = Emit()
    e.function(
        f"internal void @{pack_name(t, 'block')}(ptr noalias readonly %src, i64 %ss, ptr noalias %dst, i64 %ds, i64 %ps, "
        "i64 %rows, i64 %cols)"
    )
    e.declare("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
    x = Index(e)
    width = vectors * t.lanes
    full = x.mul(x.div("%cols", width), width)
    rest = x.sub("%cols", full)
    ragged = e.value(f"icmp sgt i64 {rest}, 0")
    ahead = x.mul("%ss", x.max(x.div(_BYTES_AHEAD, x.mul(x.max("%cols", 1), t.bytes)), 1))
    masks = [lane_mask(e, t, str(x.max(x.sub(rest, j * t.lanes), 0))) for j in range(vectors)]

    def row(_: str, v: list[str]) -> list[str]:
        src, dst = v
        below, following = e.gep(src, "%ss"), e.gep(src, ahead)

        def copy(at: str, to: str, masks: list[str | None]) -> None:
            for j, mask in enumerate(masks):
                store(e, t, load(e, t, e.gep(at, j * t.lanes, t.elem), mask), e.gep(to, j * t.lanes, t.elem))

        def panel(c: str, w: list[str]) -> list[str]:
            for line in range(0, width * t.bytes, LINE):
                place = e.gep(e.gep(following, c, t.elem), line)
                e.line(f"call void @llvm.prefetch.p0(ptr {place}, i32 0, i32 3, i32 1)")
            copy(e.gep(src, c, t.elem), w[0], [None] * vectors)
            return [e.gep(w[0], "%ps")]

        (last,) = e.loop(0, full, width, panel, [("ptr", dst)])
        e.when(ragged, lambda: copy(e.gep(src, str(full), t.elem), last, [*masks]))
        return [below, e.gep(dst, "%ds")]

    e.loop(0, "%rows", 1, row, [("ptr", "%src"), ("ptr", "%dst")])
    e.end()
    return e


def copy_group(t: VecType, width: int, count: int, target: Target) -> Emit:
    """LLVM text of `void @tcc_pack_T_group(src, src stride, dst, dst stride, rows, cols)`; strides in bytes.

    Up to `count` panels of `width` columns, side by side in src and one after another in dst; what stands behind a panel's
    columns, up to a whole vector, is anything.
    """
    e = Emit()
    e.function(
        f"internal void @{pack_name(t, 'group')}(ptr noalias readonly %src, i64 %ss, ptr noalias %dst, i64 %ds, "
        "i64 %rows, i64 %cols)"
    )
    e.declare("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
    x = Index(e)
    size = x.add(x.mul("%rows", "%ds"), LINE)

    def panel(p: str, _: list[str]) -> None:
        first = x.mul(p, width)
        src, dst = e.gep("%src", first, t.elem), e.gep("%dst", x.mul(p, size))
        cols = x.min(x.sub("%cols", first), width)
        e.line(
            f"call void @{pack_name(t, 'panel')}(ptr {src}, i64 %ss, ptr {dst}, i64 %ds, i64 %rows, i64 {cols})"
        )

    def row(_: str, v: list[str]) -> list[str]:
        src, *places = v
        for line in range(0, count * width * t.bytes, LINE):
            at = e.gep(e.gep(src, ahead), line)
            e.line(f"call void @llvm.prefetch.p0(ptr {at}, i32 0, i32 3, i32 1)")
        for p, place in enumerate(places):
            for lane in range(0, width, t.lanes):
                first = p * width + lane
                vector = load(
                    e, t, e.gep(src, first, t.elem), None if first + t.lanes <= count * width else part
                )
                store(e, t, vector, e.gep(place, lane, t.elem))
        return [e.gep(p, step) for p, step in zip(v, ["%ss"] + ["%ds"] * count)]

    def whole_rows() -> None:
        starts = [e.gep("%dst", x.mul(size, p)) for p in range(count)]
        e.loop(0, "%rows", 1, row, [("ptr", p) for p in ["%src", *starts]])

    part = lane_mask(e, t, str(width % t.lanes))
    ahead = x.mul("%ss", max(_ROWS_AHEAD // 3, _LINES_AHEAD * LINE // (count * width * t.bytes)))
    whole = e.value(f"icmp eq i64 %cols, {count * width}")
    e.when(whole, whole_rows)
    e.loop(0, x.pick(e.value(f"zext i1 {whole} to i64"), 0, x.ceil_div("%cols", width)), 1, panel)
    e.end()
    return e


def copy_transposed(t: VecType, target: Target) -> Emit:
    """LLVM text of `void @tcc_pack_T_turn(src, src stride, dst, dst stride, rows, cols, ahead)`: dst[c, r] = src[r, c].

    By squares, of whole vectors where a shuffle crosses them at once, else of 16 bytes, as many as fill a vector below each
    other.  Each row of dst is written in whole vectors, in which rows of src beyond the last repeat it.  Lines `ahead` bytes from
    those that are read are fetched.
    """
    e = Emit()
    e.declare("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
    piece = t if target.avx512 else VecType(t.elem, 16 // t.bytes)
    side, high = piece.lanes, t.lanes
    e.function(
        f"internal void @{pack_name(t, 'turn')}(ptr noalias readonly %src, i64 %ss, ptr noalias %dst, i64 %ds, "
        "i64 %rows, i64 %cols, i64 %ahead)"
    )
    e.line(f"%square = alloca [{side - 1} x {t}], align {high * t.bytes}")
    x = Index(e)
    last = x.sub("%rows", 1)
    full = e.value(f"and i64 %cols, {-side}")

    def strip(r: str, _: list[str]) -> None:
        starts = [e.gep("%src", str(x.mul(x.min(x.add(r, i), last), "%ss"))) for i in range(high)]

        def square(c: str, mask: str | None) -> list[str]:
            rows = [load(e, piece, e.gep(p, c, t.elem), mask) for p in starts]
            return transposed(e, t, [_joined(e, piece, rows[i::side]) for i in range(side)])

        def whole(rows: list[str], dst: str) -> None:
            for vector in rows:
                store(e, t, vector, dst)
                dst = e.gep(dst, "%ds")

        def some(
            rows: list[str], dst: str
        ) -> None:  # through memory: a branch for each row takes long to compile
            for i, vector in enumerate(rows[:-1]):
                store(e, t, vector, e.gep("%square", str(i), str(t)))

            def row(i: str, v: list[str]) -> list[str]:
                store(e, t, load(e, t, e.gep("%square", i, str(t))), v[0])
                return [e.gep(v[0], "%ds")]

            e.loop(0, str(x.sub("%cols", full)), 1, row, [("ptr", dst)])

        def squares(c: str, v: list[str]) -> list[str]:
            (dst,) = v
            for p in starts:
                place = e.gep(e.gep(p, c, t.elem), "%ahead")
                e.line(f"call void @llvm.prefetch.p0(ptr {place}, i32 0, i32 3, i32 1)")
            if target.avx512:  # masks cost nothing, so that the text of a square stands here alone
                left = str(x.sub("%cols", c))
                rows = square(c, lane_mask(e, piece, left))
                fits = e.value(f"icmp sge i64 {left}, {side}")
                e.when(fits, lambda: whole(rows, dst))
                e.when(e.value(f"xor i1 {fits}, true"), lambda: some(rows, dst))
            else:
                whole(square(c, None), dst)
            return [e.gep(dst, str(x.mul("%ds", side)))]

        start = [("ptr", e.gep("%dst", r, t.elem))]
        if target.avx512:
            e.loop(0, "%cols", side, squares, start)
            return
        (end,) = e.loop(0, full, side, squares, start)
        rest = str(x.sub("%cols", full))
        ragged = e.value(f"icmp sgt i64 {rest}, 0")
        e.when(ragged, lambda: some(square(full, lane_mask(e, piece, rest)), end))

    e.loop(0, "%rows", high, strip)
    e.end()
    return e


def _joined(e: Emit, t: VecType, parts: list[str]) -> str:
    """Vectors of `t`, a power of two of them, one after the other."""
    while len(parts) > 1:
        t, half = VecType(t.elem, 2 * t.lanes), t
        order = ", ".join(f"i32 {i}" for i in range(t.lanes))
        parts = [
            e.value(f"shufflevector {half} {a}, {half} {b}, <{t.lanes} x i32> <{order}>")
            for a, b in zip(parts[::2], parts[1::2], strict=True)
        ]
    return parts[0]


def transposed(e: Emit, t: VecType, rows: list[str]) -> list[str]:
    """The transpose of a square, or of several that lie beside each other: log2(side) rounds of interleaving row i with row i + side / 2."""
    side, half = len(rows), len(rows) // 2
    low = [first + i // 2 + (i % 2) * t.lanes for first in range(0, t.lanes, side) for i in range(side)]
    for _ in range(half.bit_length()):
        following = []
        for a, b in zip(rows[:half], rows[half:], strict=True):
            for lanes in (low, [i + half for i in low]):
                order = ", ".join(f"i32 {i}" for i in lanes)
                following.append(e.value(f"shufflevector {t} {a}, {t} {b}, <{t.lanes} x i32> <{order}>"))
        rows = following
    return rows


def copy_elements(t: VecType) -> Emit:
    """LLVM text of `void @tcc_pack_T_each(src, row stride, col stride, dst, dst stride, rows, cols)`: any layout."""
    e = Emit()
    e.function(
        f"internal void @{pack_name(t, 'each')}(ptr noalias readonly %src, i64 %rs, i64 %cs, ptr noalias %dst, "
        "i64 %ds, i64 %rows, i64 %cols)"
    )

    def row(_: str, v: list[str]) -> list[str]:
        def element(c: str, w: list[str]) -> list[str]:
            value = e.value(f"load {t.elem}, ptr {w[0]}, align {t.bytes}")
            e.line(f"store {t.elem} {value}, ptr {e.gep(v[1], c, t.elem)}, align {t.bytes}")
            return [e.gep(w[0], "%cs")]

        e.loop(0, "%cols", 1, element, [("ptr", v[0])])
        return [e.gep(v[0], "%rs"), e.gep(v[1], "%ds")]

    e.loop(0, "%rows", 1, row, [("ptr", "%src"), ("ptr", "%dst")])
    e.end()
    return e
