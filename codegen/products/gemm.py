"""The loops around the register tiles: C[m, n] (+)= A[m, k] B[k, n] for run-time sizes, strides and plan.

One set of functions serves every product of its dtype.  What a call needs stands in a record of eight-byte slots (FIELDS):

    for each run of columns, if there are enough that each thread has one of its own, else for all columns:
    for each block of MC rows, for each block of KC of k:
        copy A's block, if more than one block of columns uses it     (threads share the copies, each makes a part)
        for each block of NC columns:
            copy B's block into panels of one tile's columns
            for each run of tile rows, split over threads:            (or the columns are split, when there are few rows)
                copy the rows of one tile into the thread's scratch, if A is copied, but not its block
                for each panel: the register tile, then the epilogue on it while it is in the first-level cache
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

from tcc.codegen.emit import Emit, VecType
from tcc.codegen.index import Index, Size
from tcc.codegen.products.dot import (
    DOT_ROWS,
    dot_body,
    dot_kernel,
    dot_name,
    row_body,
    row_kernel,
    row_name,
    row_panels_body,
)
from tcc.codegen.products.microkernel import VECTORS, micro_kernel, steps_at_once, tile_name, tile_rows
from tcc.codegen.products.open_tile import open_heights, open_tile
from tcc.codegen.products.pack import (
    copy_block,
    copy_elements,
    copy_group,
    copy_panel,
    copy_rows,
    copy_transposed,
    pack_name,
)
from tcc.codegen.products.record import (
    A_BLOCK,
    A_COLUMNS,
    A_ROWS,
    ALL,
    BLOCK_UNIT,
    BODY,
    FIELDS,
    FORMS,
    GROUP,
    PACK_EACH,
    PACK_FIRST,
    PACK_ROWS,
    PACK_TURN,
    ROW_UNIT,
    UNPACKED,
    Reach,
    Record,
    a_column_bytes,
    a_row_bytes,
    begin_part,
    call_part,
    end_part,
    engine_name,
    keeps,
    packs_before,
    thread_scratch,
    unit_rows,
)
from tcc.codegen.target import Target
from tcc.runtime import layout as at


@functools.cache
def engine(t: VecType, target: Target, reach: Reach = ALL) -> dict[str, str]:
    """All functions of the products of `t`, with what they declare; the one to call is `void @tcc_gemm_T(ctx, record)`."""
    return {name: written(e) for name, e in parts_of(t, target, reach).items()}


def written(e: Emit) -> str:
    """A function with what it declares."""
    return "\n".join([*e.declared, e.text()])


def parts_of(
    t: VecType, target: Target, reach: Reach = ALL, made: Mapping[str, Emit] | None = None
) -> dict[str, Emit]:
    """The engine's functions by name; those in `made` are taken from there."""
    parts = dict(made or {})
    for vectors in range(1, VECTORS + 1):
        ragged = vectors < VECTORS  # B itself has two narrow tiles at its right edge
        for rows in heights(target, reach):
            if tile_name(t, rows, vectors) not in parts:
                parts[tile_name(t, rows, vectors)] = (
                    micro_kernel(t, rows, vectors, target, ragged=ragged)
                    if rows
                    else open_tile(t, vectors, target, reach)
                )
        name = tile_name(t, tile_rows(target)[0], vectors, True)
        if keeps(target, reach) and not reach.small and name not in parts:
            parts[name] = micro_kernel(t, tile_rows(target)[0], vectors, target, True, ragged=ragged)
    if reach.small:
        highest = tile_rows(target)[0]
        parts[tile_name(t, highest, VECTORS)] = micro_kernel(
            t, highest, VECTORS, target, resumes=reach.resume, ragged=reach.ragged, far=reach.far
        )
    if pack_name(t, "turn") not in parts:
        parts[pack_name(t, "turn")] = copy_transposed(t, target)
    return parts | {
        pack_name(t, "rows"): copy_rows(t, target),
        pack_name(t, "panel"): copy_panel(t, max(VECTORS, -(-tile_rows(target)[0] // t.lanes)), target),
        pack_name(t, "block"): copy_block(t, VECTORS, target),
        pack_name(t, "each"): copy_elements(t),
        pack_name(t, "group"): copy_group(t, tile_rows(target)[0], GROUP, target),
        engine_name(t, "_pack"): _pack_body(t, reach),
        engine_name(t, "_rows"): _rows_body(t),
        engine_name(t, "_panel"): _row_panel(t, target, reach),
        engine_name(t, "_block"): _block_body(t, target, reach),
        dot_name(t): dot_kernel(t, target),
        engine_name(t, "_dot"): dot_body(t),
        row_name(t): row_kernel(t, target),
        engine_name(t, "_row"): row_body(t),
        engine_name(t, "_row_panels"): row_panels_body(t, target, reach),
        engine_name(t, "_share"): _share(t),
        engine_name(t, "_one"): _one(t, target, reach),
        **({engine_name(t, "_columns"): _columns_body(t)} if reach.threads else {}),
        engine_name(t, "_batch"): _batch_body(t),
        engine_name(t): _entry(t, reach),
    }


def heights(target: Target, reach: Reach) -> tuple[int, ...]:
    """Of its tiles; 0 is any."""
    return (0,) if reach.small else tile_rows(target)


def _pack_body(t: VecType, reach: Reach) -> Emit:
    """Body over panels: copies B's block [kc, nc] into them."""
    e, width = Emit(), VECTORS * t.lanes
    begin_part(e, t, "_pack", BODY)
    x, r = Index(e), Record(e, "%r")
    nc, kc, brs, bcs, mode = r["nc"], r["kc"], r["brs"], r["bcs"], r["pack_b"]
    column, row = r["panel_column"], r["panel_row"]
    source = e.gep(r["b"], x.add(x.mul(r["jc"], bcs), x.mul(r["pc"], brs)))
    panels = r["panels"]

    def panel(p: str, _: list[str]) -> None:
        j = x.mul(p, width)
        cols = x.min(x.sub(nc, j), width)
        src, dst = e.gep(source, x.mul(j, bcs)), e.gep(panels, x.mul(j, column))
        turn, each = (e.value(f"icmp eq i64 {mode}, {m}") for m in (PACK_TURN, PACK_EACH))
        ptr, i64 = "ptr", "i64"

        def one_by_one() -> None:
            steps = ((ptr, src), (i64, brs), (i64, bcs), (ptr, dst), (i64, row), (i64, kc), (i64, cols))
            call_part(e, pack_name(t, "each"), *steps)

        def turned() -> None:
            squares = (("ptr", src), ("i64", bcs), ("ptr", dst), ("i64", row), ("i64", cols), ("i64", kc))
            call_part(e, pack_name(t, "turn"), *squares, ("i64", 0))

        if PACK_EACH in reach.packs_b:
            e.when(each, one_by_one)
        if PACK_TURN in reach.packs_b:
            e.when(turn, turned)

    def by_rows() -> None:
        j = x.mul("%begin", width)
        cols = x.min(x.sub(nc, j), x.mul(x.sub("%end", "%begin"), width))
        lines = (("ptr", e.gep(source, x.mul(j, bcs))), ("i64", brs))
        to = (("ptr", e.gep(panels, x.mul(j, column))), ("i64", row), ("i64", x.mul(column, width)))
        call_part(e, pack_name(t, "block"), *lines, *to, ("i64", kc), ("i64", cols))

    rows = e.value(f"icmp sle i64 {mode}, {PACK_ROWS}")
    if reach.packs_b & {PACK_FIRST, PACK_ROWS}:
        e.when(rows, by_rows)
    if reach.packs_b & {PACK_TURN, PACK_EACH}:
        e.loop("%begin", str(x.pick(e.value(f"zext i1 {rows} to i64"), "%begin", "%end")), 1, panel)
    return end_part(e)


def _rows_body(t: VecType) -> Emit:
    """Body over units of BLOCK_UNIT rows: copies A's block [mc, kc]."""
    e = Emit()
    begin_part(e, t, "_rows", BODY)
    x, r = Index(e), Record(e, "%r")
    ars, acs, kc, step = r["ars"], r["acs"], r["kc"], r["block_row"]
    i = x.mul("%begin", BLOCK_UNIT)
    rows = x.sub(x.min(r["mc"], x.mul("%end", BLOCK_UNIT)), i)
    src = e.gep(r["a"], x.add(x.mul(x.add(r["ic"], i), ars), x.mul(r["pc"], acs)))
    dst = (("ptr", e.gep(r["block"], x.mul(i, step))), ("i64", step))
    by_rows = e.value(f"icmp eq i64 {acs}, {t.bytes}")
    along, across = (("ptr", src), ("i64", ars)), (("ptr", src), ("i64", acs))
    e.when(by_rows, lambda: call_part(e, pack_name(t, "rows"), *along, *dst, ("i64", rows), ("i64", kc)))
    by_columns = e.value(f"xor i1 {by_rows}, true")
    sizes = (("i64", kc), ("i64", rows), ("i64", 0))
    e.when(by_columns, lambda: call_part(e, pack_name(t, "turn"), *across, *dst, *sizes))
    return end_part(e)


def _row_panel(t: VecType, target: Target, reach: Reach) -> Emit:
    """`panel(r, a, ars, acs, i, rows, j0, j1, wide, narrow, ahead, line, pace, first)`: rows i.. of C by columns j0..j1 of the block.

    A's rows stand at `a`.  Meanwhile the rows that the next panel reads are fetched, one by each tile: the first is at `ahead`,
    the next `line` bytes on, and each step of k fetches `pace` bytes of it.  The `first` panel of B's block reads B itself and
    makes the panels that the others read.
    """
    e, width = Emit(), VECTORS * t.lanes
    params = (
        "ptr %r, ptr %a, i64 %ars, i64 %acs, i64 %i, i64 %rows, i64 %j0, i64 %j1, ptr %wide, ptr %narrow, "
        "ptr %ahead, i64 %line, i64 %pace, i1 %first"
    )
    begin_part(e, t, "_panel", params)
    x, r = Index(e), Record(e, "%r")
    kc, crs, jc = r["kc"], r["crs"], r["jc"]
    panels, column, finish = (r[name] for name in ("panels", "panel_column", "finish"))
    resume = r["resume"] if reach.resume else 0
    b, brs, b_column = panels, r["panel_row"], column
    if keeps(target, reach):
        itself = e.gep(r["b"], x.add(x.mul(r["pc"], r["brs"]), x.mul(jc, t.bytes)))
        b, brs, b_column = (
            e.value(f"select i1 %first, {kind} {yes}, {kind} {no}")
            for kind, yes, no in (("ptr", itself, b), ("i64", r["brs"], brs), ("i64", t.bytes, b_column))
        )
    # wide tiles read whole vectors, which B itself may not have at its right edge: two narrow ones are there
    halved = target.avx512 and not reach.small
    in_place = e.value(f"icmp eq i64 {b_column}, {t.bytes}") if halved else ""
    c = e.gep(r["c"], x.add(x.mul("%i", crs), x.mul(jc, t.bytes)))
    fused = e.value(f"icmp ne ptr {finish}, null")
    args, index, left_of = r["args"], r["index"], r["left"] if reach.threads else 0

    below = e.gep(c, x.add(x.mul("%rows", crs), x.mul("%j0", t.bytes)))

    def next_tile(j: str, v: list[str]) -> list[str]:
        left, function = x.sub("%j1", j), "%wide"
        step: Size = width
        if reach.narrow:
            few = e.value(f"icmp sle i64 {left}, {t.lanes}")
            if halved:
                ragged = e.value(f"icmp slt i64 {left}, {width}")
                few = e.value(f"or i1 {few}, {e.value(f'and i1 {in_place}, {ragged}')}")
                step = e.value(f"select i1 {few}, i64 {t.lanes}, i64 {width}")
            function = e.value(f"select i1 {few}, ptr %narrow, ptr %wide")
        cols = x.min(left, step)
        panel: Size = e.value(f"and i64 {j}, {-width}") if halved else j
        within = x.mul(x.sub(j, panel), t.bytes) if halved else 0
        bp, cp = e.gep(b, x.add(x.mul(panel, b_column), within)), e.gep(c, j, t.elem)
        keep = "null"
        if keeps(target, reach):
            made = e.gep(panels, x.add(x.mul(panel, column), within))
            keep = e.value(f"select i1 %first, ptr {made}, ptr null")
        last = e.value(f"icmp sge i64 {x.add(j, step)}, %j1")
        following = e.value(f"select i1 {last}, ptr {below}, ptr {e.gep(cp, step, t.elem)}")
        e.line(
            f"call void {function}(ptr %a, i64 %ars, i64 %acs, ptr {bp}, i64 {brs}, ptr {cp}, i64 {crs}, "
            f"ptr {following}, ptr {v[0]}, i64 %pace, i64 {kc}, i64 {cols}, i64 {resume}, ptr {keep}, i64 %rows)"
        )
        e.when(
            fused,
            lambda: e.line(
                f"call void {finish}(ptr {args}, ptr {cp}, i64 {crs}, i64 %rows, i64 {cols}, i64 %i, "
                f"i64 {x.add(x.add(jc, j), left_of)}, i64 {index})"
            ),
        )
        e.line(f"{columns} = add i64 {step}, 0")
        return [e.gep(v[0], "%line")]

    columns = "%columns"
    e.loop("%j0", "%j1", columns, next_tile, [("ptr", "%ahead")])
    return end_part(e)


def _block_body(t: VecType, target: Target, reach: Reach) -> Emit:
    """Body over units of rows (or over panels of columns): the tiles of one block, in panels of nearly equal height."""
    e, width, sizes, unit = Emit(), VECTORS * t.lanes, tile_rows(target), unit_rows(target)
    begin_part(e, t, "_block", BODY)
    x, r = Index(e), Record(e, "%r")
    top, mc, nc, kc = r["ic"], r["mc"], r["nc"], r["kc"]
    first: Size = top
    last: Size = x.add(top, mc)
    j0: Size = 0
    j1: Size = nc
    if reach.threads:
        by_columns = r["by_columns"]
        first = x.add(top, x.pick(by_columns, 0, x.mul("%begin", unit)))
        last = x.add(top, x.pick(by_columns, mc, x.min(mc, x.mul("%end", unit))))
        j0 = x.pick(by_columns, x.mul("%begin", width), 0)
        j1 = x.pick(by_columns, x.min(nc, x.mul("%end", width)), nc)
    scratch = e.gep(thread_scratch(e, x, "%thread"), r["shared_bytes"])
    mode = r["pack_a"]
    by_rows, by_cols, block = (
        e.value(f"icmp eq i64 {mode}, {m}") if m in reach.packs_a else "false"
        for m in (A_ROWS, A_COLUMNS, A_BLOCK)
    )
    copies = e.value(f"or i1 {by_rows}, {by_cols}") if reach.packs_a & {A_ROWS, A_COLUMNS} else "false"
    ars, acs = (
        _select(e, block, "i64", yes, no) for yes, no in ((r["block_row"], r["ars"]), (t.bytes, r["acs"]))
    )
    source = _select(e, block, "ptr", r["block"], e.gep(r["a"], x.mul(r["pc"], acs)))
    above = _select(e, block, "i64", top, 0)
    along, across = a_row_bytes(t, kc, x), a_column_bytes(t, target)
    row_step = _select(e, copies, "i64", _select(e, by_cols, "i64", t.bytes, along), ars)
    col_step = _select(e, copies, "i64", _select(e, by_cols, "i64", across, t.bytes), acs)
    # rows are fetched ahead along k where they are contiguous, else a step of k of all of them at a time
    lines = x.both(x.equal(acs, t.bytes), x.less(0, x.sub(kc, 1)))
    across_rows = x.mul(x.sub(1, lines), _select(e, by_cols, "i64", 0, acs))
    line, pace = x.mul(lines, ars), x.add(x.mul(lines, t.bytes), across_rows)
    if steps_at_once(target) > 1:  # neighbouring tiles fetch neighbouring steps
        line, pace = x.add(line, across_rows), x.mul(pace, steps_at_once(target))

    makes_panels = e.value(f"icmp ne i64 {r['keep']}, 0") if keeps(target, reach) else "false"
    ahead = keeps(target, reach) and not reach.small
    if ahead:
        low = e.value(f"icmp sle i64 {kc}, {target.l1_bytes // 2 // (width * t.bytes)}")
        b = e.gep(r["b"], x.add(x.mul(r["pc"], r["brs"]), x.mul(r["jc"], t.bytes)))

    def panel(row: str, _: list[str]) -> None:
        left = x.sub(last, row)
        even = x.ceil_div(left, x.ceil_div(left, sizes[0]))
        makes = "false"
        if makes_panels != "false":
            makes = e.value(f"and i1 {makes_panels}, {e.value(f'icmp eq i64 {row}, {first}')}")
        whole = e.value(f"or i1 {by_cols}, {makes}")
        if reach.small:  # its highest tile is faster than the open one
            whole = e.value(f"or i1 {whole}, {e.value(f'icmp sge i64 {left}, {2 * sizes[0]}')}")
        share = e.value(f"select i1 {whole}, i64 {sizes[0]}, i64 {even}")
        rows, tiles = _height(e, t, x.min(share, left), left, target, reach)
        if reach.small:
            highest = e.value(f"icmp eq i64 {rows}, {sizes[0]}")
            highest = e.value(f"and i1 {highest}, {e.value(f'xor i1 {makes}, true')}")
            tiles[0] = e.value(f"select i1 {highest}, ptr @{tile_name(t, sizes[0], VECTORS)}, ptr {tiles[0]}")
        at = e.gep(source, x.mul(x.sub(row, above), ars))
        start = at
        to = ("ptr", scratch)
        if A_ROWS in reach.packs_a:
            lines_of_a = (("ptr", at), ("i64", ars), to, ("i64", along), ("i64", rows), ("i64", kc))
            e.when(by_rows, lambda: call_part(e, pack_name(t, "rows"), *lines_of_a))
            start = e.value(f"select i1 {by_rows}, ptr {scratch}, ptr {start}")
        if A_COLUMNS in reach.packs_a:
            done = x.sub(row, first)
            in_group = x.sub(done, x.mul(x.div(done, group), group))
            number = x.div(in_group, sizes[0])
            within = x.sub(in_group, x.mul(number, sizes[0]))
            begins = e.value(f"and i1 {by_cols}, {e.value(f'icmp eq i64 {in_group}, 0')}")
            columns_of_a = (
                *(("ptr", at), ("i64", acs), to),
                *(("i64", across), ("i64", kc), ("i64", x.min(left, group))),
            )
            e.when(begins, lambda: call_part(e, pack_name(t, "group"), *columns_of_a))
            panel_bytes = x.add(x.mul(kc, across), 64)
            copied = e.gep(scratch, x.add(x.mul(number, panel_bytes), x.mul(within, t.bytes)))
            start = e.value(f"select i1 {by_cols}, ptr {copied}, ptr {start}")
        a = (("ptr", start), ("i64", row_step), ("i64", col_step))
        place = (("i64", row), ("i64", rows), ("i64", j0), ("i64", j1))
        stream = [("ptr", e.gep(at, x.mul(rows, ars))), ("i64", line), ("i64", pace)]
        if ahead:
            # while a low panel of B is made, the next one's rows are fetched: a higher one would drive out what is being read
            beside = (e.gep(e.gep(b, x.mul(j0, t.bytes)), width, t.elem), width * t.bytes, r["brs"])
            other = e.value(f"and i1 {makes}, {low}")
            stream = [
                (kind, e.value(f"select i1 {other}, {kind} {yes}, {kind} {no}"))
                for (kind, no), yes in zip(stream, beside, strict=True)
            ]
            makers = [f"@{tile_name(t, sizes[0], n, True)}" for n in (VECTORS, 1)]
            tiles = [
                e.value(f"select i1 {makes}, ptr {a}, ptr {b}") for a, b in zip(makers, tiles, strict=True)
            ]
        functions = (("ptr", f) for f in tiles)
        call_part(e, engine_name(t, "_panel"), ("ptr", "%r"), *a, *place, *functions, *stream, ("i1", makes))
        e.line(f"{height} = add i64 {rows}, 0")

    group = GROUP * sizes[0]
    height = "%height"
    e.loop(str(first), str(last), height, panel)
    return end_part(e)


def _select(e: Emit, cond: str, kind: str, yes: Size, no: Size) -> str:
    """`yes` where `cond`, which may be known to be false."""
    return str(no) if cond == "false" else e.value(f"select i1 {cond}, {kind} {yes}, {kind} {no}")


def _height(
    e: Emit, t: VecType, share: Size, left: Size, target: Target, reach: Reach
) -> tuple[Size, list[str]]:
    """The rows of the next tile, and the wide and the narrow tile of that height: the least that is enough for an even share."""
    sizes = open_heights(target) if reach.small else tile_rows(target)
    rows: Size = sizes[0]
    first = 0 if reach.small else sizes[0]
    tiles = [f"@{tile_name(t, first, n)}" if n > 1 or reach.narrow else "null" for n in (VECTORS, 1)]
    for larger, size in zip(sizes, sizes[1:]):
        fits = e.value(f"icmp sle i64 {share}, {size}")
        over = e.value(f"icmp sgt i64 {larger}, {left}")
        take = e.value(f"or i1 {fits}, {over}")
        rows = e.value(f"select i1 {take}, i64 {size}, i64 {rows}")
        if reach.small:
            continue
        names = [f"@{tile_name(t, size, n)}" for n in (VECTORS, 1)]
        tiles = [e.value(f"select i1 {take}, ptr {a}, ptr {b}") for a, b in zip(names, tiles, strict=True)]
    return rows, tiles


def _share(t: VecType) -> Emit:
    """`share(ctx, r, body, thread, units, grain)`: a body by all threads, or by this one alone in a serial product."""
    e = Emit()
    begin_part(e, t, "_share", "ptr %ctx, ptr %r, ptr %body, i64 %thread, i64 %units, i64 %grain")
    alone, share, after = e.label(), e.label(), e.label()
    e.branch_if(e.value(f"icmp ne i64 {Record(e, '%r')['serial']}, 0"), alone, share)
    e.at(alone)
    e.line("call void %body(ptr %ctx, ptr %r, i64 0, i64 %units, i64 %thread)")
    e.branch(after)
    e.at(share)
    sizes = (("i64", "%units"), ("i64", "%grain"))
    e.call("void", "tcc_parallel", ("ptr", "%ctx"), ("ptr", "%body"), ("ptr", "%r"), *sizes)
    e.branch(after)
    e.at(after)
    return end_part(e)


def _one(t: VecType, target: Target, reach: Reach) -> Emit:
    """`one(ctx, r, thread)`: one product; the blocks of columns, and of k inside them."""
    e, width = Emit(), VECTORS * t.lanes
    begin_part(e, t, "_one", "ptr %ctx, ptr %r, i64 %thread")
    x, r = Index(e), Record(e, "%r")
    m, n, k, mc_most, kc_most, nc_most = (
        r[name] for name in ("m", "n", "k", "mc_most", "kc_most", "nc_most")
    )
    accumulate, base = r["accumulate"], r["panels"]
    threads = e.value(f"load i64, ptr {e.gep('%ctx', at.CTX_THREADS, 'i64')}")
    # whoever makes panels is their only reader
    lone = x.either(r["by_columns"], x.either(x.less(0, r["serial"]), x.less(threads, 2)))
    own = lone if reach.threads else 1
    copies = bool(reach.packs_b - {UNPACKED})
    packed = e.value(f"icmp ne i64 {r['pack_b']}, {UNPACKED}") if copies else "false"
    by_columns, grain, pack_grain, epilogue = r["by_columns"], r["grain"], r["pack_grain"], r["epilogue"]
    bcs = r["bcs"]  # of B that is panels, a panel's bytes by its columns
    panels = _select(e, packed, "ptr", base, r["b"])
    row = _select(e, packed, "i64", width * t.bytes, r["brs"])

    def parallel(part: str, units: Size, grain: Size) -> None:
        if not reach.threads:
            all_units = (("i64", 0), ("i64", units), ("i64", 0))
            return call_part(e, engine_name(t, part), ("ptr", "%ctx"), ("ptr", "%r"), *all_units)
        sizes = (("i64", "%thread"), ("i64", units), ("i64", grain))
        call_part(
            e,
            engine_name(t, "_share"),
            ("ptr", "%ctx"),
            ("ptr", "%r"),
            ("ptr", f"@{engine_name(t, part)}"),
            *sizes,
        )

    def dots() -> None:
        copy = (
            ("ptr", r["b"]),
            ("i64", r["bcs"]),
            ("i64", r["brs"]),
            ("ptr", r["panels"]),
            ("i64", x.mul(k, t.bytes)),
        )
        if PACK_EACH in reach.packs_b:
            e.when(packed, lambda: call_part(e, pack_name(t, "each"), *copy, ("i64", n), ("i64", k)))
        parallel("_dot", x.ceil_div(m, DOT_ROWS), grain)

    def columns(jc: str, _: list[str]) -> None:
        nc, pc = x.min(nc_most, x.sub(n, jc)), r["pc"]
        r["jc"], r["nc"] = jc, nc
        count = x.ceil_div(nc, width)
        unpacked_at = e.gep(panels, x.add(x.mul(pc, row), x.mul(jc, bcs)))
        r["panels"] = _select(e, packed, "ptr", panels, unpacked_at)
        if packs_before(target, reach):
            before = e.value(f"icmp eq i64 {r['keep']}, 0")
            before = e.value(f"and i1 {packed}, {before}")
            e.when(before, lambda: parallel("_pack", count, pack_grain))
        parallel("_block", x.pick(by_columns, count, x.ceil_div(r["mc"], unit_rows(target))), grain)

    def depth(pc: str, _: list[str]) -> None:
        kc = x.min(kc_most, x.sub(k, pc)) if reach.resume else k
        r["pc"], r["kc"], r["finish"] = pc, kc, epilogue
        if reach.resume:
            end = e.value(f"icmp sge i64 {x.add(pc, kc)}, {k}")
            r["resume"] = x.either(accumulate, x.less(0, pc))
            r["finish"] = e.value(f"select i1 {end}, ptr {epilogue}, ptr null")
        r["panel_column"] = _select(e, packed, "i64", x.mul(x.round_up(kc, t.lanes), t.bytes), bcs)
        if A_BLOCK in reach.packs_a:
            r["block_row"] = a_row_bytes(t, kc, x)
            block = e.value(f"icmp eq i64 {r['pack_a']}, {A_BLOCK}")
            e.when(block, lambda: parallel("_rows", x.ceil_div(r["mc"], BLOCK_UNIT), 1))
        e.loop(0, n, nc_most, columns)

    def rows(ic: str, _: list[str]) -> None:
        r["ic"], r["mc"] = ic, x.min(mc_most, x.sub(m, ic)) if A_BLOCK in reach.packs_a else m
        high = x.less(unit_rows(target) - 1, r["mc"])
        r["keep"] = x.both(x.both(own, x.equal(r["pack_b"], PACK_FIRST)), high) if keeps(target, reach) else 0
        if not reach.resume:
            return depth("0", [])
        # k = 0 still writes zeros: at least one round
        e.loop(0, x.max(k, 1), kc_most, depth)

    def together() -> None:
        r["panel_row"] = row
        if A_BLOCK not in reach.packs_a:
            return rows("0", [])
        r["block"] = e.gep(base, r["b_bytes"])
        e.loop(0, m, mc_most, rows)

    def tiles() -> None:
        if not reach.threads:
            return together()
        units, apart = x.ceil_div(n, width), r["apart"]
        all_have = x.less(x.sub(x.mul(apart, threads), 1), units)
        wide = x.both(x.both(x.less(1, threads), all_have), x.equal(r["serial"], 0))
        each, shared, after = e.label(), e.label(), e.label()
        e.branch_if(e.value(f"icmp ne i64 {wide}, 0"), each, shared)
        e.at(each)
        job = (("ptr", "%ctx"), ("ptr", f"@{engine_name(t, '_columns')}"), ("ptr", "%r"))
        e.call("void", "tcc_parallel", *job, ("i64", str(units)), ("i64", apart))
        e.branch(after)
        e.at(shared)
        together()
        e.branch(after)
        e.at(after)

    def row_form() -> None:
        parallel("_row", x.ceil_div(n, ROW_UNIT), grain)

    def row_of_panels() -> None:
        parallel("_row_panels", x.ceil_div(n, ROW_UNIT), grain)

    def panels_alone() -> None:
        r["panels"], r["panel_row"], r["panel_column"] = r["c"], width * t.bytes, x.mul(k, t.bytes)
        r["jc"], r["nc"], r["pc"], r["kc"] = 0, n, 0, k
        parallel("_pack", x.ceil_div(n, width), pack_grain)

    form = r["form"]
    forms = (tiles, dots, row_form, panels_alone, row_of_panels)
    for kind, write in zip(FORMS, forms, strict=True):
        if kind in reach.forms:
            e.when(e.value(f"icmp eq i64 {form}, {kind}"), write)
    return end_part(e)


def _own_record(e: Emit) -> str:
    """A copy of the record."""
    own = e.value(f"alloca [{len(FIELDS)} x i64], align 8")

    def copy(i: str, _: list[str]) -> None:
        value = e.value(f"load i64, ptr {e.gep('%r', i, 'i64')}")
        e.line(f"store i64 {value}, ptr {e.gep(own, i, 'i64')}")

    e.loop(0, len(FIELDS), 1, copy)
    return own


def _columns_body(t: VecType) -> Emit:
    """Body over panels of columns: a product of its own, whose panels no other thread reads."""
    e, width = Emit(), VECTORS * t.lanes
    begin_part(e, t, "_columns", BODY)
    own = _own_record(e)
    x, r, mine = Index(e), Record(e, "%r"), Record(e, own)
    first = x.mul("%begin", width)
    mine["b"] = e.gep(r["b"], x.mul(first, r["bcs"]))
    mine["c"] = e.gep(r["c"], x.mul(first, t.bytes))
    mine["n"] = x.sub(x.min(r["n"], x.mul("%end", width)), first)
    mine["left"] = first
    mine["serial"], mine["panels"] = 1, thread_scratch(e, x, "%thread")
    call_part(e, engine_name(t, "_one"), ("ptr", "%ctx"), ("ptr", own), ("i64", "%thread"))
    return end_part(e)


def _batch_body(t: VecType) -> Emit:
    """Body over the batch: each product with a record of its own."""
    e = Emit()
    begin_part(e, t, "_batch", BODY)
    own = _own_record(e)
    x, r, mine = Index(e), Record(e, "%r"), Record(e, own)
    bases = {name: (r[name], r[f"batch_{name}"]) for name in ("a", "b", "c")}
    panels = thread_scratch(e, x, "%thread")

    def product(index: str, _: list[str]) -> None:
        for name, (base, stride) in bases.items():
            mine[name] = e.gep(base, x.mul(index, stride))
        mine["index"] = index
        mine["panels"] = panels
        call_part(e, engine_name(t, "_one"), ("ptr", "%ctx"), ("ptr", own), ("i64", "%thread"))

    e.loop("%begin", "%end", 1, product)
    return end_part(e)


def _entry(t: VecType, reach: Reach) -> Emit:
    """`void @tcc_gemm_T(ctx, r)`: one thread for each product when there are many or small ones, else all for each."""
    e = Emit()
    begin_part(e, t, "", "ptr %ctx, ptr %r")
    r = Record(e, "%r")
    if reach.threads:
        r["left"] = 0
    batch, grain = r["batch"], r["batch_grain"]
    body = engine_name(t, "_batch")
    if not reach.batch:
        r["serial"], r["index"] = int(not reach.threads), 0
        r["panels"] = thread_scratch(e, Index(e), "0")
        call_part(e, engine_name(t, "_one"), ("ptr", "%ctx"), ("ptr", "%r"), ("i64", 0))
        return end_part(e)
    if not reach.threads:
        r["serial"] = 1
        call_part(e, body, ("ptr", "%ctx"), ("ptr", "%r"), ("i64", 0), ("i64", batch), ("i64", 0))
        return end_part(e)
    many = e.value(f"icmp sgt i64 {grain}, 0")
    share, alone, after = e.label(), e.label(), e.label()
    e.branch_if(many, share, alone)
    e.at(share)
    r["serial"] = 1
    e.call(
        "void",
        "tcc_parallel",
        ("ptr", "%ctx"),
        ("ptr", f"@{body}"),
        ("ptr", "%r"),
        ("i64", batch),
        ("i64", grain),
    )
    e.branch(after)
    e.at(alone)
    r["serial"] = 0
    call_part(e, body, ("ptr", "%ctx"), ("ptr", "%r"), ("i64", 0), ("i64", batch), ("i64", 0))
    e.branch(after)
    e.at(after)
    return end_part(e)
