"""The contraction engine to be compiled sooner: what a first result waits for while the whole engine is compiled."""

from __future__ import annotations

import functools
from dataclasses import replace

from tcc.codegen.emit import Emit, VecType
from tcc.codegen.products.gemm import parts_of, written
from tcc.codegen.products.microkernel import VECTORS, begin_tile, micro_kernel, tile_name, tile_rows
from tcc.codegen.products.pack import pack_name
from tcc.codegen.products.record import ALL, engine_name, keeps
from tcc.codegen.target import Target

QUICK_ROWS = (4, 1)  # the heights of its tiles, beside the highest; falling


@functools.cache
def quick_engine(
    t: VecType, target: Target, forms: frozenset[int] = ALL.forms
) -> tuple[dict[str, str], dict[str, str]]:
    """The same functions, as far as products of such `forms` call them, to be compiled in a quarter of the time: a few tiles, and the rest, for which level 0 will do.

    The tiles that most of a product goes through are those of the highest rows and VECTORS, and of the first of QUICK_ROWS; one of any
    height is made of these, and squares are transposed element by element.  It gives the same bits.  Calls go where the pointer
    `@tcc_gemm_T_now` says.
    """
    highest = tile_rows(target)[0]
    tiles = {(rows, vectors) for rows in QUICK_ROWS for vectors in range(1, VECTORS + 1)} | {
        (highest, VECTORS)
    }
    made = {
        tile_name(t, rows, vectors): micro_kernel(t, rows, vectors, target, plain=True)
        for rows, vectors in sorted(tiles)
    }
    made |= {tile_name(t, 0, vectors): _stacked(t, vectors, target) for vectors in range(1, VECTORS + 1)}
    parts = parts_of(
        t, target, replace(ALL, forms=forms, small=True), made | {pack_name(t, "turn"): _turned(t)}
    )
    e, name, quick, now = Emit(), engine_name(t), engine_name(t, "_quick"), engine_name(t, "_now")
    e.lines.append(f"@{now} = global ptr @{quick}")
    e.function(f"void @{name}(ptr %ctx, ptr %r)")
    e.line(f"call void {e.value(f'load ptr, ptr @{now}')}(ptr %ctx, ptr %r)")
    e.end()
    names = {tile_name(t, *tile) for tile in tiles if tile[0] != QUICK_ROWS[-1]}
    hot = {n: written(e).replace("define internal", "define") for n, e in parts.items() if n in names}
    rest = {n: written(e) for n, e in parts.items() if n not in names}
    heads = [
        line.split("{")[0] for text in hot.values() for line in text.splitlines() if line.startswith("define")
    ]
    rest[now] = "\n".join(
        [head.replace("define", "declare").replace("#0", "") for head in heads] + [e.text()]
    )
    rest[name] = rest[name].replace(f"@{name}(", f"@{quick}(")
    return hot, rest


def _stacked(t: VecType, vectors: int, target: Target) -> Emit:
    """The same function as `open_tile` made of calls of tiles of known heights: slower, compiled at once.

    Where it is to keep B's rows it copies them first, and reads the copy.
    """
    e = Emit()
    begin_tile(e, t, 0, vectors)
    e.quick()
    b, brs = "%b", "%brs"
    if keeps():
        row = VECTORS * t.lanes * t.bytes
        kept = e.value("icmp ne ptr %keep, null")
        copied = f"@{pack_name(t, 'panel')}(ptr %b, i64 %brs, ptr %keep, i64 {row}, i64 %kc, i64 %cols)"
        e.when(kept, lambda: e.line(f"call void {copied}"))
        b, brs = (
            e.value(f"select i1 {kept}, ptr %keep, ptr %b"),
            e.value(f"select i1 {kept}, i64 {row}, i64 %brs"),
        )
    done, at = "0", ["%a", "%c"]
    heights = [h for h in (tile_rows(target)[0], *QUICK_ROWS) if vectors == VECTORS or h in QUICK_ROWS]
    for height in heights:

        def tile(_: str, v: list[str], height: int = height) -> list[str]:
            e.line(
                f"call void @{tile_name(t, height, vectors)}(ptr {v[0]}, i64 %ars, i64 %acs, ptr {b}, i64 {brs}, ptr {v[1]}, "
                "i64 %crs, ptr %next, ptr %stream, i64 %along, i64 %kc, i64 %cols, i64 %load, ptr null, i64 0)"
            )
            return [e.gep(v[k], e.value(f"mul i64 {s}, {height}")) for k, s in enumerate(("%ars", "%crs"))]

        left = e.value(f"sub i64 %rows, {done}")
        whole = e.value(f"sub i64 {left}, {e.value(f'urem i64 {left}, {height}')}")
        end = e.value(f"add i64 {done}, {whole}")
        at = e.loop(done, end, height, tile, [("ptr", p) for p in at])
        done = end
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
