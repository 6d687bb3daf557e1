"""The register tile of any height: what a library has in place of one tile for each.

It is the highest of the tiles of microkernel.py, which leaves its rows early: a branch a row, which the CPU foresees.  Where there
are many rows the highest itself runs beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tcc.codegen.emit import Emit, VecType
from tcc.codegen.index import at_most
from tcc.codegen.products.microkernel import AHEAD, AHEAD_FAR, VECTORS, begin_tile, tile_rows
from tcc.codegen.products.record import Reach
from tcc.codegen.products.record import keeps as copies_b
from tcc.codegen.target import Target
from tcc.codegen.vectors import fetch, lane_mask, load, splat, store


def open_heights(target: Target) -> tuple[int, ...]:
    """Of the tiles of an engine that is small, falling: those that save little are left out."""
    highest, _, *lower = tile_rows(target)
    return (highest, *lower)


def open_tile(t: VecType, vectors: int, target: Target, reach: Reach) -> Emit:
    """LLVM text of a tile of `rows` rows, one of `open_heights`; if `keep` is not null, B is copied there.

    The wide one is not the highest, which has a tile of its own, but where B is copied.
    """
    keeps, step_bytes = copies_b(reach), t.lanes * t.bytes
    heights = open_heights(target)[int(vectors == VECTORS and not keeps) :]
    e, most = Emit(), heights[0]
    begin_tile(e, t, 0, vectors)
    mask = lane_mask(e, t, e.value(f"sub i64 %cols, {(vectors - 1) * t.lanes}"))
    masks = [None] * (vectors - 1) + [mask]
    ragged = reach.ragged or vectors < VECTORS
    b_masks = masks if target.avx512 and ragged else [None] * vectors
    kept = e.value("icmp ne ptr %keep, null") if keeps else "false"
    ahead = e.value(f"select i1 {kept}, i64 {AHEAD_FAR}, i64 {AHEAD_FAR if reach.far else AHEAD}")
    ahead = e.value(f"mul i64 {ahead}, %brs")

    resume = e.value("icmp ne i64 %load, 0")
    first = ["zeroinitializer"] * (most * vectors)
    if reach.resume:
        start = _zero_masked if target.avx512 else _zero_or_old
        first = start(e, t, most, masks, resume)

    def step(_: str, v: list[str]) -> list[str]:
        a, bp, keep, fetched, *acc = v
        b = [load(e, t, e.gep(bp, j * step_bytes), b_masks[j]) for j in range(vectors)]
        for j in range(vectors):
            fetch(e, e.gep(e.gep(bp, ahead), j * step_bytes), 0)
            fetch(e, e.gep(fetched, j * step_bytes), 1)

        def copy() -> None:
            for j in range(vectors):
                store(e, t, b[j], e.gep(keep, j * step_bytes))

        if keeps:
            e.when(kept, copy)

        def row(i: int, w: list[str]) -> list[str]:
            number = splat(e, t, e.value(f"load {t.elem}, ptr {w[0]}, align {t.bytes}"))
            for j in range(vectors):
                at = 1 + i * vectors + j
                w[at] = e.call(t, f"llvm.fma.{t.suffix}", (t, number), (t, b[j]), (t, w[at]))
            return [e.gep(w[0], "%ars"), *w[1:]]

        _, *acc = _rows(e, heights, [("ptr", a), *((t, x) for x in acc)], row)
        moved = [e.gep(a, "%acs"), e.gep(bp, "%brs"), e.gep(keep, VECTORS * step_bytes * keeps)]
        return [*moved, e.gep(fetched, pace[0]), *acc]

    pace = [""]
    ending = at_most(e, "%kc", "%rows")
    before = e.value(f"sub i64 %kc, {ending}")

    def phase(number: str, v: list[str]) -> list[str]:
        last = e.value(f"icmp ne i64 {number}, 0")
        count = e.value(f"select i1 {last}, i64 {ending}, i64 {before}")
        at = e.value(f"select i1 {last}, ptr %next, ptr %stream")
        pace[0] = e.value(f"select i1 {last}, i64 %crs, i64 %along")
        carried = [("ptr", p) for p in [*v[:3], at]] + [(t, x) for x in v[3:]]
        after = e.loop(0, count, 1, step, carried)
        return after[:3] + after[4:]

    carried = [("ptr", p) for p in ("%a", "%b", "%keep")] + [(t, x) for x in first]
    done = e.loop(0, 2, 1, phase, carried)[3:]

    def put(i: int, v: list[str]) -> list[str]:
        for j in range(vectors):
            store(e, t, done[i * vectors + j], e.gep(v[0], j * step_bytes), masks[j])
        return [e.gep(v[0], "%crs")]

    _rows(e, heights, [("ptr", e.value("freeze ptr %c"))], put)
    e.end()
    return e


def _old(e: Emit, t: VecType, most: int, masks: Sequence[str | None]) -> list[str]:
    """C's tile; rows that are not there are those of the last one that is."""
    made, line = [], "%c"
    for i in range(most):
        if i:
            there = e.value(f"icmp sgt i64 %rows, {i}")
            line = e.value(f"select i1 {there}, ptr {e.gep(line, '%crs')}, ptr {line}")
        made += [load(e, t, e.gep(line, j * t.lanes * t.bytes), m) for j, m in enumerate(masks)]
    return made


def _zero_or_old(e: Emit, t: VecType, most: int, masks: Sequence[str | None], resume: str) -> list[str]:
    take, start, entry = e.label(), e.label(), e.current
    e.branch_if(resume, take, start)
    e.at(take)
    old = _old(e, t, most, masks)
    e.branch(start)
    e.at(start)
    return [e.value(f"phi {t} [zeroinitializer, %{entry}], [{x}, %{take}]") for x in old]


def _zero_masked(e: Emit, t: VecType, most: int, masks: Sequence[str | None], resume: str) -> list[str]:
    """Zeros are what is loaded of no lanes, where masks cost nothing."""
    lanes = t.of("i1")
    every = splat(e, lanes, resume)
    both = [every if m is None else e.value(f"and {lanes} {every}, {m}") for m in masks]
    return _old(e, t, most, both)


def _rows(
    e: Emit,
    heights: Sequence[int],
    carried: Sequence[tuple[VecType | str, str]],
    row: Callable[[int, list[str]], list[str]],
) -> list[str]:
    """`row(i, values)` for the rows from 0 to %rows - 1, which is one of `heights`."""
    values, after, exits = [v for _, v in carried], e.label(), []
    for i in range(max(heights)):
        values = row(i, list(values))
        if i + 1 in heights:
            exits.append((e.current, values))
        if i + 1 in heights and i + 1 < max(heights):
            more = e.label()
            e.branch_if(e.value(f"icmp eq i64 %rows, {i + 1}"), after, more)
            e.at(more)
    e.branch(after)
    e.at(after)
    made = []
    for k, (t, _) in enumerate(carried):
        came = ", ".join(f"[{v[k]}, %{block}]" for block, v in exits)
        made.append(e.value(f"phi {t} {came}"))
    return made
