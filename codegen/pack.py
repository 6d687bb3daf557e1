"""Copies of matrix blocks into scratch, in the order in which the register tiles read them."""

from __future__ import annotations

from tcc.codegen.emit import Emit, VecType
from tcc.codegen.index import Index
from tcc.codegen.microkernel import each_vector, load, store
from tcc.codegen.target import Target


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


def copy_transposed(t: VecType) -> Emit:
    """LLVM text of `void @tcc_pack_T_turn(src, src stride, dst, dst stride, rows, cols)`: dst[c, r] = src[r, c].

    For up to `lanes` rows, at least one; in most columns a vector is written, in which rows beyond repeat the last one.
    A vector is put together from 16-byte pieces of rows, whose transposes stay in lanes.
    """
    e, piece = Emit(), VecType(t.elem, 16 // t.bytes)
    e.function(
        f"internal void @{pack_name(t, 'turn')}(ptr noalias readonly %src, i64 %ss, ptr noalias %dst, i64 %ds, "
        "i64 %rows, i64 %cols)"
    )
    x = Index(e)
    last = x.sub("%rows", 1)
    starts = ["%src"] + [e.gep("%src", str(x.mul(x.min(i, last), "%ss"))) for i in range(1, t.lanes)]
    full = e.value(f"and i64 %cols, {-piece.lanes}")

    def block(column: str, v: list[str]) -> list[str]:
        pieces = [load(e, piece, e.gep(p, column, t.elem)) for p in starts]
        stacked = [_concat(e, piece, pieces[i :: piece.lanes]) for i in range(piece.lanes)]
        dst = v[0]
        for vector in _transpose_lanes(e, t, stacked):
            store(e, t, vector, dst)
            dst = e.gep(dst, "%ds")
        return [dst]

    (end,) = e.loop(0, full, piece.lanes, block, [("ptr", "%dst")])
    rest = e.value(f"sub i64 %cols, {full}")
    e.line(
        f"call void @{pack_name(t, 'each')}(ptr {e.gep('%src', full, t.elem)}, i64 {t.bytes}, i64 %ss, ptr {end}, "
        f"i64 %ds, i64 {rest}, i64 %rows)"
    )
    e.end()
    return e


def _concat(e: Emit, t: VecType, parts: list[str]) -> str:
    while len(parts) > 1:
        order = ", ".join(f"i32 {i}" for i in range(2 * t.lanes))
        pairs = zip(parts[::2], parts[1::2], strict=True)
        parts = [
            e.value(f"shufflevector {t} {a}, {t} {b}, <{2 * t.lanes} x i32> <{order}>") for a, b in pairs
        ]
        t = VecType(t.elem, 2 * t.lanes)
    return parts[0]


def _transpose_lanes(e: Emit, t: VecType, rows: list[str]) -> list[str]:
    """Transposes the square block in each 16 bytes: log2 rounds of interleaving row i with row i + half."""
    side = len(rows)
    half = side // 2
    low = [lane + i // 2 + (i % 2) * t.lanes for lane in range(0, t.lanes, side) for i in range(side)]
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
