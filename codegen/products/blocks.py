"""What threads share of one block of a product: the copies of A's and B's block, and its register tiles."""

from __future__ import annotations

from tcc.codegen.emit import Emit, VecType
from tcc.codegen.index import Index, Size
from tcc.codegen.products.microkernel import VECTORS, steps_in_round, tile_name, tile_rows
from tcc.codegen.products.open_tile import open_heights
from tcc.codegen.products.pack import pack_name
from tcc.codegen.products.record import (
    A_BLOCK,
    A_COLUMNS,
    A_ROWS,
    A_UNPACKED,
    BLOCK_UNIT,
    BODY,
    FETCHED_ALONG,
    GROUP,
    PACK_EACH,
    PACK_FIRST,
    PACK_ROWS,
    PACK_TURN,
    Reach,
    Record,
    a_column_bytes,
    a_row_bytes,
    begin_part,
    call_part,
    copies_edge,
    end_part,
    engine_name,
    fetches_b,
    keeps,
    made_widths,
    select,
    thread_scratch,
    unit_rows,
)
from tcc.codegen.target import Target


def pack_body(t: VecType, target: Target, reach: Reach) -> Emit:
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
            ahead = 0 if target.avx512 else x.mul(bcs, t.lanes)  # the rows of the strip that follows
            call_part(e, pack_name(t, "turn"), *squares, ("i64", ahead))

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


def rows_body(t: VecType) -> Emit:
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


def panel_body(t: VecType, target: Target, reach: Reach) -> Emit:
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
    if keeps(reach):
        itself = e.gep(r["b"], x.add(x.mul(r["pc"], r["brs"]), x.mul(jc, t.bytes)))
        b, brs, b_column = (
            e.value(f"select i1 %first, {kind} {yes}, {kind} {no}")
            for kind, yes, no in (("ptr", itself, b), ("i64", r["brs"], brs), ("i64", t.bytes, b_column))
        )
    # wide tiles read whole vectors, which B itself may not have at its right edge: two narrow ones are there
    halved, copied = target.avx512 and not reach.small, copies_edge(target, reach)
    in_place = e.value(f"icmp eq i64 {b_column}, {t.bytes}") if halved or copied else ""
    c = e.gep(r["c"], x.add(x.mul("%i", crs), x.mul(jc, t.bytes)))
    fused = e.value(f"icmp ne ptr {finish}, null")
    args, index, left_of = r["args"], r["index"], r["left"] if reach.threads else 0

    below = e.gep(c, x.add(x.mul("%rows", crs), x.mul("%j0", t.bytes)))

    def wide(left: Size) -> str:
        """The wide tile: of columns that are copied already, none that keeps them."""
        if not copied or not keeps(reach) or reach.small:
            return "%wide"
        short = e.value(f"and i1 %first, {e.value(f'icmp slt i64 {left}, {width}')}")
        return e.value(f"select i1 {short}, ptr @{tile_name(t, unit_rows(target), VECTORS)}, ptr %wide")

    def next_tile(j: str, v: list[str]) -> list[str]:
        left = x.sub("%j1", j)
        step: Size = width
        function = wide(left)
        if reach.narrow:
            few = e.value(f"icmp sle i64 {left}, {t.lanes}")
            if halved:
                ragged = e.value(f"icmp slt i64 {left}, {width}")
                few = e.value(f"or i1 {few}, {e.value(f'and i1 {in_place}, {ragged}')}")
                step = e.value(f"select i1 {few}, i64 {t.lanes}, i64 {width}")
            function = e.value(f"select i1 {few}, ptr %narrow, ptr {function}")
        cols = x.min(left, step)
        panel: Size = e.value(f"and i64 {j}, {-width}") if halved else j
        within = x.mul(x.sub(j, panel), t.bytes) if halved else 0
        bp, cp, row = e.gep(b, x.add(x.mul(panel, b_column), within)), e.gep(c, j, t.elem), brs
        makes = "%first"
        if copied:
            short = e.value(f"icmp slt i64 {left}, {width}")
            at_edge = e.value(f"and i1 {in_place}, {short}")
            bp = e.value(f"select i1 {at_edge}, ptr {r['edge']}, ptr {bp}")
            row = e.value(f"select i1 {at_edge}, i64 {width * t.bytes}, i64 {brs}")
            makes = e.value(f"and i1 %first, {e.value(f'xor i1 {short}, true')}")
        keep = "null"
        if keeps(reach):
            made = e.gep(panels, x.add(x.mul(panel, column), within))
            keep = e.value(f"select i1 {makes}, ptr {made}, ptr null")
        last = e.value(f"icmp sge i64 {x.add(j, step)}, %j1")
        following = e.value(f"select i1 {last}, ptr {below}, ptr {e.gep(cp, step, t.elem)}")
        e.line(
            f"call void {function}(ptr %a, i64 %ars, i64 %acs, ptr {bp}, i64 {row}, ptr {cp}, i64 {crs}, "
            f"ptr {following}, ptr {v[0]}, i64 %pace, i64 {kc}, i64 {cols}, i64 {resume}, ptr {keep}, i64 %rows)"
        )
        if target.avx512:
            finished(j, cols)
        e.line(f"{columns} = add i64 {step}, 0")
        return [e.gep(v[0], "%line")]

    def finished(j: str, cols: Size) -> None:
        call = (
            f"call void {finish}(ptr {args}, ptr {e.gep(c, j, t.elem)}, i64 {crs}, i64 %rows, i64 {cols}, i64 %i, "
            f"i64 {x.add(x.add(jc, j), left_of)}, i64 {index})"
        )
        e.when(fused, lambda: e.line(call))

    columns = "%columns"
    e.loop("%j0", "%j1", columns, next_tile, [("ptr", "%ahead")])
    if not target.avx512:
        # rows of all tiles: of chains of operations few are under way at a time, and they begin and end with a row
        finished("%j0", x.sub("%j1", "%j0"))
    return end_part(e)


def block_body(t: VecType, target: Target, reach: Reach) -> Emit:
    """Body over units of rows (or over panels of columns): the tiles of one block, in panels of nearly equal height."""
    return _Block(t, target, reach).write()


class _Block:
    """Writes `block_body`.  What all panels of rows need is worked out at the function's head, once."""

    def __init__(self, t: VecType, target: Target, reach: Reach) -> None:
        self.t, self.target, self.reach = t, target, reach
        self.width, self.sizes = VECTORS * t.lanes, tile_rows(target)
        self.group = GROUP * self.sizes[0]  # rows of A that are copied together by columns
        e = self.e = Emit()
        begin_part(e, t, "_block", BODY)
        x, r = self.x, self.r = Index(e), Record(e, "%r")
        self.top, mc, nc, self.kc = r["ic"], r["mc"], r["nc"], r["kc"]
        self._take_share(mc, nc)
        self.scratch = e.gep(thread_scratch(e, x, "%thread"), r["shared_bytes"])
        self._find_a()
        self.makes_panels = e.value(f"icmp ne i64 {r['keep']}, 0") if keeps(reach) else "false"
        self.makes_beside = keeps(reach) and not reach.small
        if self.makes_beside:
            self.low = e.value(f"icmp sle i64 {self.kc}, {target.l1_bytes // 2 // (self.width * t.bytes)}")
            self.b = e.gep(r["b"], x.add(x.mul(r["pc"], r["brs"]), x.mul(r["jc"], t.bytes)))

    def _take_share(self, mc: str, nc: str) -> None:
        """The rows and columns of this thread."""
        x, r, unit = self.x, self.r, unit_rows(self.target)
        self.first: Size = self.top
        self.last: Size = x.add(self.top, mc)
        self.j0: Size = 0
        self.j1: Size = nc
        if self.reach.threads:
            by_columns = r["by_columns"]
            self.first = x.add(self.top, x.pick(by_columns, 0, x.mul("%begin", unit)))
            self.last = x.add(self.top, x.pick(by_columns, mc, x.min(mc, x.mul("%end", unit))))
            self.j0 = x.pick(by_columns, x.mul("%begin", self.width), 0)
            self.j1 = x.pick(by_columns, x.min(nc, x.mul("%end", self.width)), nc)

    def _find_a(self) -> None:
        """How A is copied, where and in what strides it is read, and what is fetched ahead of it."""
        e, x, r, t, kc, ways = self.e, self.x, self.r, self.t, self.kc, self.reach.packs_a
        mode = r["pack_a"]
        by_rows, self.by_cols, block = (
            e.value(f"icmp eq i64 {mode}, {m}") if m in ways else "false"
            for m in (A_ROWS, A_COLUMNS, A_BLOCK)
        )
        by_cols = self.by_cols
        self.fill = "false" if block == "false" else e.value(f"icmp ne i64 {r['fill']}, 0")
        self.by_rows = by_rows if block == "false" else e.value(f"or i1 {by_rows}, {self.fill}")
        if block != "false":
            block = e.value(f"and i1 {block}, {e.value(f'xor i1 {self.fill}, true')}")
        copies = e.value(f"or i1 {self.by_rows}, {by_cols}") if ways - {A_UNPACKED} else "false"
        self.ars, self.acs = (
            select(e, block, "i64", yes, no) for yes, no in ((r["block_row"], r["ars"]), (t.bytes, r["acs"]))
        )
        self.source = select(e, block, "ptr", r["block"], e.gep(r["a"], x.mul(r["pc"], self.acs)))
        self.above = select(e, block, "i64", self.top, 0)
        self.along, self.across = a_row_bytes(t, kc, x), a_column_bytes(t, self.target)
        self.row_step = select(e, copies, "i64", select(e, by_cols, "i64", t.bytes, self.along), self.ars)
        self.col_step = select(e, copies, "i64", select(e, by_cols, "i64", self.across, t.bytes), self.acs)
        # rows are fetched ahead along k where they are contiguous, else a step of k of all of them at a time
        lines = x.both(x.equal(self.acs, t.bytes), x.less(0, x.sub(kc, 1)))
        across_rows = x.mul(x.sub(1, lines), select(e, by_cols, "i64", 0, self.acs))
        # a round of steps fetches once: neighbouring tiles fetch neighbouring steps
        self.line = x.add(x.mul(lines, self.ars), across_rows)
        self.pace = x.mul(
            x.add(x.mul(lines, t.bytes), across_rows), steps_in_round(self.target, self.reach.small)
        )

    def write(self) -> Emit:
        self.e.loop(str(self.first), str(self.last), "%height", self._panel)
        return end_part(self.e)

    def _panel(self, row: str, _: list[str]) -> None:
        """The rows of one tile by all columns."""
        e, x, t = self.e, self.x, self.t
        left = x.sub(self.last, row)
        even = x.ceil_div(left, x.ceil_div(left, self.sizes[0]))
        makes = "false"
        if self.makes_panels != "false":
            makes = e.value(f"and i1 {self.makes_panels}, {e.value(f'icmp eq i64 {row}, {self.first}')}")
        rows, tiles = self._tiles(even, left, makes)
        at = e.gep(self.source, x.mul(x.sub(row, self.above), self.ars))
        start = self._copy_rows(at, row, rows, left)
        a = (("ptr", start), ("i64", self.row_step), ("i64", self.col_step))
        place = (("i64", row), ("i64", rows), ("i64", self.j0), ("i64", self.j1))
        stream = [("ptr", e.gep(at, x.mul(rows, self.ars))), ("i64", self.line), ("i64", self.pace)]
        if self.makes_beside:
            stream, tiles = self._fetch_beside(makes, stream, tiles)
        if fetches_b(self.target, self.reach):
            stream = self._fetch_beyond(row, stream)
        functions = (("ptr", f) for f in tiles)
        call_part(e, engine_name(t, "_panel"), ("ptr", "%r"), *a, *place, *functions, *stream, ("i1", makes))
        e.line(f"%height = add i64 {rows}, 0")

    def _tiles(self, even: Size, left: Size, makes: str) -> tuple[Size, list[str]]:
        """The rows of a panel of which `left` are left, and its wide and narrow tile."""
        e, x, t, highest = self.e, self.x, self.t, self.sizes[0]
        whole = e.value(f"or i1 {self.by_cols}, {makes}")
        if self.reach.small:  # its highest tile is faster than the open one
            whole = e.value(f"or i1 {whole}, {e.value(f'icmp sge i64 {left}, {2 * highest}')}")
        share = e.value(f"select i1 {whole}, i64 {highest}, i64 {even}")
        rows, tiles = _height(e, t, x.min(share, left), left, self.target, self.reach)
        if self.reach.small:
            is_highest = e.value(f"icmp eq i64 {rows}, {highest}")
            is_highest = e.value(f"and i1 {is_highest}, {e.value(f'xor i1 {makes}, true')}")
            name = tile_name(t, highest, VECTORS)
            tiles[0] = e.value(f"select i1 {is_highest}, ptr @{name}, ptr {tiles[0]}")
        return rows, tiles

    def _copy_rows(self, at: str, row: str, rows: Size, left: Size) -> str:
        """Where a panel's rows of A, which stand at `at`, are read: there, or in the thread's copy."""
        e, x, t, kc = self.e, self.x, self.t, self.kc
        start = at
        to = ("ptr", self.scratch)
        if self.by_rows != "false":
            to_block = e.gep(self.r["block"], x.mul(x.sub(row, self.top), self.along))
            copy = select(e, self.fill, "ptr", to_block, self.scratch)
            lines = (
                ("ptr", at),
                ("i64", self.ars),
                ("ptr", copy),
                ("i64", self.along),
                ("i64", rows),
                ("i64", kc),
            )
            e.when(self.by_rows, lambda: call_part(e, pack_name(t, "rows"), *lines))
            start = e.value(f"select i1 {self.by_rows}, ptr {copy}, ptr {start}")
        if A_COLUMNS in self.reach.packs_a:
            done = x.sub(row, self.first)
            in_group = x.sub(done, x.mul(x.div(done, self.group), self.group))
            number = x.div(in_group, self.sizes[0])
            within = x.sub(in_group, x.mul(number, self.sizes[0]))
            begins = e.value(f"and i1 {self.by_cols}, {e.value(f'icmp eq i64 {in_group}, 0')}")
            columns = (
                *(("ptr", at), ("i64", self.acs), to),
                *(("i64", self.across), ("i64", kc), ("i64", x.min(left, self.group))),
            )
            e.when(begins, lambda: call_part(e, pack_name(t, "group"), *columns))
            panel_bytes = x.add(x.mul(kc, self.across), 64)
            copied = e.gep(self.scratch, x.add(x.mul(number, panel_bytes), x.mul(within, t.bytes)))
            start = e.value(f"select i1 {self.by_cols}, ptr {copied}, ptr {start}")
        return start

    def _fetch_beside(
        self, makes: str, stream: list[tuple[str, Size]], tiles: list[str]
    ) -> tuple[list[tuple[str, Size]], list[str]]:
        """What is fetched ahead, and the tiles, where B's panels may be made (`makes`): while a low panel is, the next one's
        rows are fetched, since a higher one would drive out what is being read."""
        e, x, t = self.e, self.x, self.t
        beside = (
            e.gep(e.gep(self.b, x.mul(self.j0, t.bytes)), self.width, t.elem),
            self.width * t.bytes,
            self.r["brs"],
        )
        other = e.value(f"and i1 {makes}, {self.low}")
        fetched = _either(e, other, beside, stream)
        kept = made_widths(self.target)
        makers = [f"@{tile_name(t, self.sizes[0], n, n in kept)}" for n in (VECTORS, 1)]
        return fetched, [
            e.value(f"select i1 {makes}, ptr {a}, ptr {b}") for a, b in zip(makers, tiles, strict=True)
        ]

    def _fetch_beyond(self, row: str, stream: list[tuple[str, Size]]) -> list[tuple[str, Size]]:
        """What is fetched ahead where rows are few: of B's next block, from whose panels the tiles of these rows fetch a line in each
        round, until those of all rows have fetched it; then A's rows."""
        e, x, r = self.e, self.x, self.r
        beyond, down, across = r["beyond"], r["brs"], r["bcs"]
        above = x.ceil_div(x.sub(row, self.first), self.sizes[0])
        rounds = x.div(x.max(x.sub(self.kc, self.sizes[0]), 0), steps_in_round(self.target, self.reach.small))
        along = x.equal(r["fetch_b"], FETCHED_ALONG)
        tiles = x.ceil_div(x.sub(self.j1, self.j0), self.width)
        first = x.mul(above, x.pick(along, tiles, rounds))
        there = e.value(f"icmp ne ptr {beyond}, null")
        there = e.value(f"and i1 {there}, {e.value(f'icmp slt i64 {first}, {self.kc}')}")
        at = e.gep(beyond, x.add(x.mul(first, down), x.mul(self.j0, across)))
        beside = x.mul(across, self.width)
        these = (at, x.pick(along, down, beside), x.pick(along, beside, down))
        return _either(e, there, these, stream)


def _either(
    e: Emit, cond: str, these: tuple[Size, ...], others: list[tuple[str, Size]]
) -> list[tuple[str, Size]]:
    """`these` where `cond`, of the kinds of the others."""
    return [
        (kind, e.value(f"select i1 {cond}, {kind} {yes}, {kind} {no}"))
        for (kind, no), yes in zip(others, these, strict=True)
    ]


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
