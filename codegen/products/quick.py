"""The contraction engine to be compiled sooner: what a first result waits for while the whole engine is compiled."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from tcc.codegen.emit import Emit, VecType
from tcc.codegen.products.gemm import parts_of, written
from tcc.codegen.products.microkernel import VECTORS, begin_tile, micro_kernel, tile_name, tile_rows
from tcc.codegen.products.pack import pack_name
from tcc.codegen.products.record import engine_name, keeps
from tcc.codegen.target import Target

QUICK_ROWS = (4, 1)  # the heights of its tiles, beside the highest


@functools.cache
def quick_engine(t: VecType, target: Target) -> tuple[dict[str, str], dict[str, str]]:
    """The same functions, to be compiled in a quarter of the time: a few tiles, and the rest, for which level 0 will do.

    The tiles that most of a product goes through are those of the highest rows and VECTORS, and of the first of QUICK_ROWS; others
    are made of QUICK_ROWS, and squares are transposed element by element.  It gives the same bits.  Calls go where the pointer
    `@tcc_gemm_T_now` says.
    """
    highest = tile_rows(target)[0]
    made = {
        tile_name(t, rows, vectors): _stacked(t, rows, vectors, QUICK_ROWS)
        for rows in tile_rows(target)
        if rows not in QUICK_ROWS
        for vectors in range(1, VECTORS + 1)
        if (rows, vectors) != (highest, VECTORS)
    }
    short = [(rows, vectors) for rows in QUICK_ROWS for vectors in range(1, VECTORS + 1)]
    for rows, vectors in [*short, (highest, VECTORS)]:
        ragged = vectors < VECTORS
        made[tile_name(t, rows, vectors)] = micro_kernel(t, rows, vectors, target, ragged=ragged, steps=1)
    if keeps(target):
        made |= {tile_name(t, highest, v, True): _keeping(t, highest, v) for v in range(1, VECTORS + 1)}
    parts = parts_of(t, target, made=made | {pack_name(t, "turn"): _turned(t)})
    e, name, quick, now = Emit(), engine_name(t), engine_name(t, "_quick"), engine_name(t, "_now")
    e.lines.append(f"@{now} = global ptr @{quick}")
    e.function(f"void @{name}(ptr %ctx, ptr %r)")
    e.line(f"call void {e.value(f'load ptr, ptr @{now}')}(ptr %ctx, ptr %r)")
    e.end()
    tiles = {tile_name(t, QUICK_ROWS[0], v) for v in range(1, VECTORS + 1)} | {tile_name(t, highest, VECTORS)}
    hot = {n: written(e).replace("define internal", "define") for n, e in parts.items() if n in tiles}
    rest = {n: written(e) for n, e in parts.items() if n not in tiles}
    heads = [
        line.split("{")[0] for text in hot.values() for line in text.splitlines() if line.startswith("define")
    ]
    rest[now] = "\n".join(
        [head.replace("define", "declare").replace("#0", "") for head in heads] + [e.text()]
    )
    rest[name] = rest[name].replace(f"@{name}(", f"@{quick}(")
    return hot, rest


def _stacked(t: VecType, rows: int, vectors: int, heights: Sequence[int]) -> Emit:
    """The same function as `micro_kernel` made of calls of lower tiles, of the `heights` given: slower, compiled at once."""
    e = Emit()
    begin_tile(e, t, rows, vectors)
    e.quick()
    a, c, left = "%a", "%c", rows
    while left:
        height = max(h for h in heights if h <= left)
        e.line(
            f"call void @{tile_name(t, height, vectors)}(ptr {a}, i64 %ars, i64 %acs, ptr %b, i64 %brs, ptr {c}, "
            "i64 %crs, ptr %next, ptr %stream, i64 %along, i64 %kc, i64 %cols, i64 %load, ptr null, i64 0)"
        )
        a = e.gep(a, e.value(f"mul i64 %ars, {height}"))
        c = e.gep(c, e.value(f"mul i64 %crs, {height}"))
        left -= height
    e.end()
    return e


def _keeping(t: VecType, rows: int, vectors: int) -> Emit:
    """The same function as a `micro_kernel` that keeps B's rows: the copy first, then the tile that reads it."""
    e = Emit()
    begin_tile(e, t, rows, vectors, True)
    e.quick()
    row = VECTORS * t.lanes * t.bytes
    e.line(f"call void @{pack_name(t, 'panel')}(ptr %b, i64 %brs, ptr %keep, i64 {row}, i64 %kc, i64 %cols)")
    e.line(
        f"call void @{tile_name(t, rows, vectors)}(ptr %a, i64 %ars, i64 %acs, ptr %keep, i64 {row}, ptr %c, "
        "i64 %crs, ptr %next, ptr %stream, i64 %along, i64 %kc, i64 %cols, i64 %load, ptr null, i64 0)"
    )
    e.end()
    return e


def _turned(t: VecType) -> Emit:
    """The same function as `copy_transposed`, one element at a time."""
    e = Emit()
    e.function(
        f"internal void @{pack_name(t, 'turn')}(ptr noalias readonly %src, i64 %ss, ptr noalias %dst, i64 %ds, "
        "i64 %rows, i64 %cols, i64 %ahead)"
    )
    e.quick()
    e.line(
        f"call void @{pack_name(t, 'each')}(ptr %src, i64 {t.bytes}, i64 %ss, ptr %dst, i64 %ds, i64 %cols, i64 %rows)"
    )
    e.end()
    return e
