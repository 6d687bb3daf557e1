"""The loops around the register tiles: C[m, n] (+)= A[m, k] B[k, n] for run-time sizes, strides and plan.

One set of functions serves every product of its dtype.  What a call needs stands in a record of eight-byte slots (FIELDS):

    for each run of columns, if there are enough that each thread has one of its own, else for all columns:
    for each block of MC rows, for each block of KC of k:
        copy A's block, if more than one block of columns uses it     (threads share the copies, each makes a part; rows are
                                                                      copied as the first block of columns comes to them)
        for each block of NC columns:
            copy B's block into panels of one tile's columns
            for each run of tile rows, split over threads:            (or the columns are split, when there are few rows)
                copy the rows of one tile into the thread's scratch, if A is copied, but not its block
                for each panel: the register tile, then the epilogue on it while it is in the first-level cache
                                                                      (without AVX-512 behind all tiles of those rows)
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

from tcc.codegen.emit import Emit, VecType
from tcc.codegen.index import Index, Size
from tcc.codegen.products.blocks import block_body, pack_body, panel_body, rows_body
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
from tcc.codegen.products.microkernel import VECTORS, micro_kernel, steps_in_round, tile_name, tile_rows
from tcc.codegen.products.open_tile import open_tile
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
    ALL,
    BLOCK_UNIT,
    BODY,
    FETCHED_FIRST,
    FIELDS,
    FORMS,
    GROUP,
    NOT_FETCHED,
    PACK_EACH,
    PACK_FIRST,
    PACK_ROWS,
    ROW_UNIT,
    ROWS_SHARED,
    UNPACKED,
    Reach,
    Record,
    a_row_bytes,
    begin_part,
    call_part,
    copies_edge,
    end_part,
    engine_name,
    fetches_b,
    keeps,
    made_widths,
    packs_before,
    select,
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
        if vectors in made_widths(target) and keeps(reach) and not reach.small and name not in parts:
            parts[name] = micro_kernel(t, tile_rows(target)[0], vectors, target, True, ragged=ragged)
    highest = tile_rows(target)[0]
    if reach.small and tile_name(t, highest, VECTORS) not in parts:
        parts[tile_name(t, highest, VECTORS)] = micro_kernel(
            t,
            highest,
            VECTORS,
            target,
            resumes=reach.resume,
            ragged=reach.ragged,
            far=reach.far,
            steps=steps_in_round(target, reach.small),
        )
    if pack_name(t, "turn") not in parts:
        parts[pack_name(t, "turn")] = copy_transposed(t, target)
    return parts | {
        pack_name(t, "rows"): copy_rows(t, target),
        pack_name(t, "panel"): copy_panel(t, max(VECTORS, -(-tile_rows(target)[0] // t.lanes)), target),
        pack_name(t, "block"): copy_block(t, VECTORS, target),
        pack_name(t, "each"): copy_elements(t),
        pack_name(t, "group"): copy_group(t, tile_rows(target)[0], GROUP, target),
        engine_name(t, "_pack"): pack_body(t, target, reach),
        engine_name(t, "_rows"): rows_body(t),
        engine_name(t, "_panel"): panel_body(t, target, reach),
        engine_name(t, "_block"): block_body(t, target, reach),
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
    return _Product(t, target, reach).write()


class _Product:
    """Writes `one`: a method for each form, and for each loop of the one with tiles.  What stands in the record for the whole
    product is read at the function's head."""

    def __init__(self, t: VecType, target: Target, reach: Reach) -> None:
        self.t, self.target, self.reach = t, target, reach
        self.width = VECTORS * t.lanes
        e = self.e = Emit()
        begin_part(e, t, "_one", "ptr %ctx, ptr %r, i64 %thread")
        x, r = self.x, self.r = Index(e), Record(e, "%r")
        self.m, self.n, self.k, self.mc_most, self.kc_most, self.nc_most = (
            r[name] for name in ("m", "n", "k", "mc_most", "kc_most", "nc_most")
        )
        self.accumulate, self.base = r["accumulate"], r["panels"]
        self.threads = e.value(f"load i64, ptr {e.gep('%ctx', at.CTX_THREADS, 'i64')}")
        # whoever makes panels is their only reader
        alone = x.either(x.less(0, r["serial"]), x.less(self.threads, 2))
        self.own: Size = x.either(r["by_columns"], alone) if reach.threads else 1
        # whoever reads rows of A reads them for all columns
        self.whole_rows: Size = x.either(x.equal(r["by_columns"], 0), alone) if reach.threads else 1
        copies = bool(reach.packs_b - {UNPACKED})
        packed = self.packed = e.value(f"icmp ne i64 {r['pack_b']}, {UNPACKED}") if copies else "false"
        self.by_columns, self.grain, self.pack_grain, self.epilogue = (
            r[name] for name in ("by_columns", "grain", "pack_grain", "epilogue")
        )
        self.bcs = r["bcs"]  # of B that is panels, a panel's bytes by its columns
        self.panels = select(e, packed, "ptr", self.base, r["b"])
        self.panel_row = select(e, packed, "i64", self.width * t.bytes, r["brs"])

    def write(self) -> Emit:
        form = self.r["form"]
        forms = (self._tiles, self._dots, self._row, self._panels_alone, self._row_of_panels)
        for kind, write in zip(FORMS, forms, strict=True):
            if kind in self.reach.forms:
                self.e.when(self.e.value(f"icmp eq i64 {form}, {kind}"), write)
        return end_part(self.e)

    def _parallel(self, part: str, units: Size, grain: Size) -> None:
        e, t, job = self.e, self.t, (("ptr", "%ctx"), ("ptr", "%r"))
        if not self.reach.threads:
            call_part(e, engine_name(t, part), *job, ("i64", 0), ("i64", units), ("i64", 0))
            return
        sizes = (("i64", "%thread"), ("i64", units), ("i64", grain))
        call_part(e, engine_name(t, "_share"), *job, ("ptr", f"@{engine_name(t, part)}"), *sizes)

    # -- forms -----------------------------------------------------------------------------------------------------

    def _tiles(self) -> None:
        """A thread for each run of columns, if there are enough, else all for each block."""
        if not self.reach.threads:
            return self._together()
        e, x, r = self.e, self.x, self.r
        units, apart = x.ceil_div(self.n, self.width), r["apart"]
        all_have = x.less(x.sub(x.mul(apart, self.threads), 1), units)
        wide = x.both(x.both(x.less(1, self.threads), all_have), x.equal(r["serial"], 0))
        if not self.target.avx512:
            few = x.less(
                x.ceil_div(self.m, unit_rows(self.target)), x.add(x.mul(self.threads, ROWS_SHARED), 1)
            )
            wide = x.both(wide, few)
        each, shared, after = e.label(), e.label(), e.label()
        e.branch_if(e.value(f"icmp ne i64 {wide}, 0"), each, shared)
        e.at(each)
        job = (("ptr", "%ctx"), ("ptr", f"@{engine_name(self.t, '_columns')}"), ("ptr", "%r"))
        e.call("void", "tcc_parallel", *job, ("i64", str(units)), ("i64", apart))
        e.branch(after)
        e.at(shared)
        self._together()
        e.branch(after)
        e.at(after)

    def _dots(self) -> None:
        r, x = self.r, self.x
        b = (("ptr", r["b"]), ("i64", r["bcs"]), ("i64", r["brs"]))
        to = (("ptr", r["panels"]), ("i64", x.mul(self.k, self.t.bytes)))
        copy = (*b, *to, ("i64", self.n), ("i64", self.k))
        if PACK_EACH in self.reach.packs_b:
            self.e.when(self.packed, lambda: call_part(self.e, pack_name(self.t, "each"), *copy))
        self._parallel("_dot", x.ceil_div(self.m, DOT_ROWS), self.grain)

    def _row(self) -> None:
        self._parallel("_row", self.x.ceil_div(self.n, ROW_UNIT), self.grain)

    def _row_of_panels(self) -> None:
        self._parallel("_row_panels", self.x.ceil_div(self.n, ROW_UNIT), self.grain)

    def _panels_alone(self) -> None:
        r, x = self.r, self.x
        c, bytes = r["c"], self.t.bytes
        r["panels"], r["panel_row"], r["panel_column"] = c, self.width * bytes, x.mul(self.k, bytes)
        r["jc"], r["nc"], r["pc"], r["kc"] = 0, self.n, 0, self.k
        self._parallel("_pack", x.ceil_div(self.n, self.width), self.pack_grain)

    # -- the loops of the tiles, from the outermost ------------------------------------------------------------------

    def _together(self) -> None:
        self.r["panel_row"] = self.panel_row
        if A_BLOCK not in self.reach.packs_a:
            return self._rows("0", [])
        self.r["block"] = self.e.gep(self.base, self.r["b_bytes"])
        self.e.loop(0, self.m, self.mc_most, self._rows)

    def _rows(self, ic: str, _: list[str]) -> None:
        x, r, m = self.x, self.r, self.m
        mc = x.min(self.mc_most, x.sub(m, ic)) if A_BLOCK in self.reach.packs_a else m
        r["ic"], r["mc"] = ic, mc
        high = x.less(unit_rows(self.target) - 1, r["mc"])
        if keeps(self.reach):
            first: Size = x.equal(r["pack_b"], PACK_FIRST)
            if fetches_b(self.target, self.reach):
                fetched = x.both(x.equal(r["pack_b"], PACK_ROWS), x.equal(r["fetch_b"], FETCHED_FIRST))
                first = x.either(first, fetched)
            r["keep"] = x.both(x.both(self.own, first), high)
        else:
            r["keep"] = 0
        if not self.reach.resume:
            return self._depth("0", [])
        # k = 0 still writes zeros: at least one round
        self.e.loop(0, x.max(self.k, 1), self.kc_most, self._depth)

    def _depth(self, pc: str, _: list[str]) -> None:
        e, x, r, t = self.e, self.x, self.r, self.t
        kc = x.min(self.kc_most, x.sub(self.k, pc)) if self.reach.resume else self.k
        r["pc"], r["kc"], r["finish"] = pc, kc, self.epilogue
        if self.reach.resume:
            end = e.value(f"icmp sge i64 {x.add(pc, kc)}, {self.k}")
            r["resume"] = x.either(self.accumulate, x.less(0, pc))
            r["finish"] = e.value(f"select i1 {end}, ptr {self.epilogue}, ptr null")
        panel_bytes = x.mul(x.round_up(kc, t.lanes), t.bytes)
        r["panel_column"] = select(e, self.packed, "i64", panel_bytes, self.bcs)
        if A_BLOCK in self.reach.packs_a:
            r["block_row"] = a_row_bytes(t, kc, x)
            block, fills = x.equal(r["pack_a"], A_BLOCK), x.both(x.equal(r["acs"], t.bytes), self.whole_rows)
            r["fill"] = x.both(block, fills)
            before = e.value(f"icmp ne i64 {x.both(block, x.sub(1, fills))}, 0")
            e.when(before, lambda: self._parallel("_rows", x.ceil_div(r["mc"], BLOCK_UNIT), 1))
        e.loop(0, self.n, self.nc_most, self._columns)

    def _columns(self, jc: str, _: list[str]) -> None:
        e, x, r = self.e, self.x, self.r
        nc, pc = x.min(self.nc_most, x.sub(self.n, jc)), r["pc"]
        r["jc"], r["nc"] = jc, nc
        if fetches_b(self.target, self.reach):
            r["beyond"] = self._beyond(x.add(jc, nc), x.add(pc, r["kc"]))
        count = x.ceil_div(nc, self.width)
        unpacked_at = e.gep(self.panels, x.add(x.mul(pc, self.panel_row), x.mul(jc, self.bcs)))
        r["panels"] = select(e, self.packed, "ptr", self.panels, unpacked_at)
        if packs_before(self.target, self.reach):
            before = e.value(f"icmp eq i64 {r['keep']}, 0")
            before = e.value(f"and i1 {self.packed}, {before}")
            e.when(before, lambda: self._parallel("_pack", count, self.pack_grain))
        if copies_edge(self.target, self.reach):
            self._copy_edge(nc)
        units = x.pick(self.by_columns, count, x.ceil_div(r["mc"], unit_rows(self.target)))
        self._parallel("_block", units, self.grain)
        r["fill"] = 0

    def _beyond(self, right: Size, below: Size) -> str:
        """Where B's next block begins, to be fetched, or null: it is on the `right` of this one, or `below`, at the left."""
        e, x, r = self.e, self.x, self.r
        beside = x.less(right, self.n)
        fetched = x.less(NOT_FETCHED, r["fetch_b"])
        there = x.both(fetched, x.either(beside, x.less(below, self.k)))
        row, column = x.pick(beside, r["pc"], below), x.mul(beside, right)
        at = e.gep(r["b"], x.add(x.mul(row, r["brs"]), x.mul(column, self.bcs)))
        return e.value(f"select i1 {e.value(f'icmp ne i64 {there}, 0')}, ptr {at}, ptr null")

    def _copy_edge(self, nc: Size) -> None:
        """The block's last columns, if they are fewer than a tile's and B is read in place: where its panel would be, or alone."""
        e, x, r, t = self.e, self.x, self.r, self.t
        whole = x.mul(x.div(nc, self.width), self.width)
        rest = x.sub(nc, whole)
        panel = e.gep(self.base, x.mul(whole, r["panel_column"]))
        r["edge"] = edge = select(e, self.packed, "ptr", panel, self.base)
        there = x.add(x.mul(r["pc"], r["brs"]), x.mul(x.add(r["jc"], whole), t.bytes))
        in_place = e.value(f"icmp eq i64 {self.bcs}, {t.bytes}")
        in_place = e.value(f"and i1 {in_place}, {e.value(f'icmp ne i64 {rest}, 0')}")
        made = e.value(f"xor i1 {self.packed}, true")
        if keeps(self.reach):
            made = e.value(f"or i1 {made}, {e.value('icmp ne i64 ' + r['keep'] + ', 0')}")
        lines = (
            ("ptr", e.gep(r["b"], there)),
            ("i64", r["brs"]),
            ("ptr", edge),
            ("i64", self.width * t.bytes),
        )
        copy = (*lines, ("i64", r["kc"]), ("i64", rest))
        e.when(e.value(f"and i1 {in_place}, {made}"), lambda: call_part(e, pack_name(t, "panel"), *copy))


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
    bases = {name: (r[name], r[f"batch_{name}"], r[f"inner_{name}"]) for name in ("a", "b", "c")}
    inner = r["inner"]
    panels = thread_scratch(e, x, "%thread")

    def product(index: str, _: list[str]) -> None:
        first = x.div(index, inner)
        second = x.sub(index, x.mul(first, inner))
        for name, (base, along_first, along_second) in bases.items():
            mine[name] = e.gep(base, x.add(x.mul(first, along_first), x.mul(second, along_second)))
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
