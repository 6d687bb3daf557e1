"""The cost model of matrix products: which form, which blocks, what is copied, how the work is split.

Written once for numbers and for run-time values (tcc.codegen.index), so that a kernel for known sizes and one for any size
choose alike.  Only the form changes bits; it depends on sizes and layout alone.

A tile does rows * vectors multiply-adds for each vector of B and each number of A that it loads, so that with both in the
second-level cache it is bound by arithmetic.  What costs is everything else, and the model weighs it by these facts:

- B's block is read once by each panel of rows: it has to fit the second-level cache beside the panels of A and of C, so it
  gets half.  To copy it costs a read and a write of each element, which the arithmetic of the first tiles hides where one
  thread alone reads the copy, and B is near; rows in far memory, or a multiple of a page apart, are better read along their
  whole length, and for low tiles any B that the second-level cache lacks, in wide blocks, unless rows are few.
- A is read once for each block of columns, C is read and written once for each block of k.  C's lines are fetched a tile
  ahead, one in each of its last steps, and A's rows while the panel before is computed, one by each tile.  C costs more, for
  it is also written, down to _KC_LEAST, or as far as a panel of A takes no more than _A_SHARE of the first-level cache,
  or where its lines come from the second as fast as tiles read them.
- Low tiles (AVX2) take twice the bytes of B for as many multiply-adds as high ones, which they get from the third-level cache
  nearly as fast where lines come fast from there: then B's block is as wide as that one lets it, so that A is read and copied once.
  Its panels and their rows of A may take turns in the first-level cache: C, read and written half as often, costs more.
- Each panel of A is read by all tiles of its rows: it should stay in the first-level cache, half of it or less.
- A copy of A that several blocks of columns use is made once, by blocks of rows that the third-level cache holds.
- Lines a power of two apart share cache sets, lines on many pages miss the table of pages: such operands are copied.
- Few rows use a large B once: it streams from memory.  Low tiles (AVX2) fetch the block that follows meanwhile.  Where lines from beyond the second-level cache come as fast in any order
  (`Target.scattered_lines`), best in place, from memory with few of its rows side by side; from the third-level cache its blocks
  come as fast as they are used, and short chains would only read and write C more often.  Elsewhere so is a B that the
  third-level cache likely has, but the first tiles copy it if others read it; from memory each row has to be read along some of
  its length, which is what a copy does.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import MappingProxyType

from tcc.codegen.emit import Emit, VecType
from tcc.codegen.index import Index, Size
from tcc.codegen.products.dot import DOT_ROWS
from tcc.codegen.products.microkernel import STEPS, VECTORS, tile_rows
from tcc.codegen.products.record import (
    A_BLOCK,
    A_COLUMNS,
    A_ROWS,
    A_UNPACKED,
    DOT,
    FETCHED,
    FETCHED_ALONG,
    FETCHED_FIRST,
    NOT_FETCHED,
    PACK_EACH,
    PACK_FIRST,
    PACK_ROWS,
    PACK_TURN,
    ROW,
    ROW_PANELS,
    ROW_UNIT,
    TILES,
    UNPACKED,
    a_column_bytes,
    a_row_bytes,
    unit_rows,
)
from tcc.codegen.target import Target
from tcc.codegen.vectors import LINE

KC = 1024  # the most of k in one block: long chains make the updates of C rare
_KC_STREAMED = 32  # the least where B is read in place from memory: few of its rows side by side
_KC_FEW = KC // 2  # the most where few rows use B, from nearer: a panel of A in half the first-level cache
_KC_ALONG = (
    128  # the most where B's rows are fetched along their length: as many lines of a row as a tile has rounds
)
_STREAM_ROWS = 3  # that pay for a copy of a B from memory
_KC_LEAST = 256  # shorter blocks of k would read and write C too often
_A_SHARE = 18 / 32  # of the first-level cache that a panel of A may always take, for the same reason
_A_SHARE_HIGH = 19 / 32  # where tiles are higher, and their panels have so many fewer steps of k
_LEAST_PANELS = 4
_FEW_PANELS = (
    8  # of B that are copied at a time where few rows use the copy: it is still in the nearest cache then
)
_MANY_TILES = 16  # rows of tiles that pay for a copy of B, and that threads share by rows
_SOME_TILES = 2  # rows of tiles that pay for a copy of B that the first of them makes
_WAY_BYTES = 4096  # lines a multiple of this apart are in one set of the first-level cache, of 12 or 8
_WAYS = 8  # of that cache at least: lines that one set holds
_FAR_BYTES = 2048  # lines of memory so far apart are on another page at every second step
_DOT_COPY = 1 << 16  # elements of the short side that are worth a copy to make them contiguous along k
_FEW_ROWS_CACHES = 4  # low tiles of few rows copy a B of so many second-level caches as they come to it
_NEAR_CACHES = 8  # B's rows are read a panel at a time, or in place, if B takes so many times the second-level cache at most
_THIRD_CACHES = 16  # what takes so many times the second-level cache at most may be in the third
_BLOCK_CACHES = (
    8  # the copy of A that all blocks of columns use takes so many times the second-level cache at most
)
_LEAST_APART = 8  # panels of columns that are worth reading all of A for
_LEAST_APART_BLOCK = 32  # and copying a block of it, as each thread would
_PARALLEL_WORK = 1 << 18  # multiply-adds that pay for a second thread (some microseconds)

Sizes = dict[str, Size]
_TRANSPOSED = {
    **{
        "m": "n",
        "n": "m",
        "ars": "bcs",
        "bcs": "ars",
        "acs": "brs",
        "brs": "acs",
        "crs": "ccs",
        "ccs": "crs",
    },
    **{"batch_a": "batch_b", "batch_b": "batch_a", "inner_a": "inner_b", "inner_b": "inner_a"},
}


def choose_form(t: VecType, x: Index, sizes: Sizes, fused: bool, panels: bool = False) -> tuple[Sizes, Sizes]:
    """The form, and the sizes it sees (strides in elements): those of the transposed product when `turned`.

    DOT sums in lanes along k; it is taken when k is contiguous on the long side and the other is half a vector at most.
    ROW adds rows of B; a matrix of contiguous columns times a vector is turned into it, unless an epilogue, which wants
    vectors along the rows of C, is `fused`.  B that is `panels` is for TILES and ROW_PANELS.
    """
    if panels:
        return {"form": x.pick(x.equal(sizes["m"], 1), ROW_PANELS, TILES), "turned": 0}, sizes | {"ccs": 1}
    few, deep = t.lanes // 2, 4 * t.lanes
    m, n, k, sizes = sizes["m"], sizes["n"], sizes["k"], sizes | {"ccs": 1}

    def narrow(long: Size, short: Size, long_step: Size, short_step: Size) -> Size:
        fits = x.both(x.both(x.less(short, few + 1), x.less(deep - 1, k)), x.equal(long_step, 1))
        copied = x.both(x.less(few * few, long), x.less(x.mul(short, k), _DOT_COPY + 1))
        return x.both(fits, x.either(x.equal(short_step, 1), copied))

    by_rows = narrow(m, n, sizes["acs"], sizes["brs"])
    by_columns = x.both(x.sub(1, by_rows), narrow(n, m, sizes["brs"], sizes["acs"]))
    dot = x.either(by_rows, by_columns)
    column = x.both(x.both(x.equal(n, 1), x.equal(sizes["ars"], 1)), x.equal(sizes["crs"], 1))
    turned = x.either(by_columns, 0 if fused else x.both(x.sub(1, dot), column))
    seen = {name: x.pick(turned, sizes[_TRANSPOSED.get(name, name)], value) for name, value in sizes.items()}
    row = x.both(x.equal(seen["m"], 1), x.equal(seen["bcs"], 1))
    return {"form": x.pick(dot, DOT, x.pick(row, ROW, TILES)), "turned": turned}, seen


def plan(
    t: VecType,
    target: Target,
    x: Index,
    sizes: Sizes,
    form: Sizes,
    panels: bool = False,
    wishes: Mapping[str, int] = MappingProxyType({}),
) -> Sizes:
    """The fields of the engine's record that are choices, for the sizes that the form sees; B may be `panels` already.

    `wishes` for some of them go before what the model would choose (tuning.py has those that a product can have).
    """
    if all(isinstance(size, int) for size in (*sizes.values(), form["form"])):
        return dict(_known_plan(t, target, tuple(sizes.items()), form["form"], panels, tuple(wishes.items())))
    return _plan(t, target, x, sizes, form["form"], panels, wishes)


@functools.lru_cache(1024)
def _known_plan(
    t: VecType,
    target: Target,
    sizes: tuple[tuple[str, Size], ...],
    form: Size,
    panels: bool,
    wishes: tuple[tuple[str, int], ...],
) -> Sizes:
    """Of sizes that are numbers, which are asked for several times, and by many products of one shape."""
    return _plan(t, target, Index(Emit()), dict(sizes), form, panels, dict(wishes))


def _plan(
    t: VecType, target: Target, x: Index, sizes: Sizes, form: Size, panels: bool, wishes: Mapping[str, int]
) -> Sizes:
    copy = _copies(t, target, x, sizes, form, panels, wishes)
    split = _split(t, target, x, sizes, form, copy)
    return copy | {name: wishes.get(name, value) for name, value in split.items()}


def most_shared_bytes(t: VecType, target: Target) -> int:
    """No plan's `shared_bytes` is more."""
    least = KC * _LEAST_PANELS * VECTORS * t.lanes
    rows = target.l2_bytes * _BLOCK_CACHES + unit_rows(target) * int(a_row_bytes(t, KC, Index(Emit())))
    block = target.l2_bytes // 2
    if not target.avx512 and target.scattered_lines:
        block = target.l2_bytes * _BLOCK_CACHES
    return max(block, max(least, _DOT_COPY) * t.bytes) + rows


def _least_depth(t: VecType, target: Target) -> int:
    """Of k in one block where a block has many rows.

    Where the second-level cache hands over lines as fast as tiles read them, half a panel of A may as well come from there, a
    line in each step: on Intel's with AVX-512, whose tiles then update C half as often.
    """
    if target.avx512 and not target.scattered_lines:
        return KC // 2
    panel, share = tile_rows(target)[0] * t.bytes, _A_SHARE_HIGH if target.avx512 else _A_SHARE
    return min(KC // 2, max(_KC_LEAST, int(share * target.l1_bytes / panel) // t.lanes * t.lanes))


def _a_depth(t: VecType, target: Target) -> int:
    """The most of k for which a panel of A, copied by columns, takes half the first-level cache."""
    return max(t.lanes, target.l1_bytes // 2 // a_column_bytes(t, target) // t.lanes * t.lanes)


def _copies(
    t: VecType, target: Target, x: Index, sizes: Sizes, form: Size, panels: bool, wishes: Mapping[str, int]
) -> Sizes:
    """The blocks of rows, of k and of columns, and whether those of A and B are copied.

    B is copied when its columns are not contiguous, or when more than a few rows use the copy, with AVX-512 however small it is:
    few rows of memory begin at a multiple of a vector (NumPy's arrays seldom do), and a load across two lines is two, which takes
    a quarter of a tile's time, where the copy takes 2 % of 256x256x256.  A block fills half the second-level cache at most; it is
    as wide as it can be, for all of A is read once for each block of columns.  A B from memory that few rows use streams by, a few
    rows of it side by side.  Where A's columns are read in place, the tiles that follow find the same lines, two for each step of
    k, in the first-level cache, beside those fetched ahead, if rows are many, and a panel of B.

    Where A is copied and more than one block of columns use the copy, it is made once, of as many rows as the third-level
    cache may be asked for, and its lines are fetched a tile's rows ahead.
    """
    m, n, k, width = sizes["m"], sizes["n"], sizes["k"], VECTORS * t.lanes
    depth, columns = x.max(k, 1), x.max(n, 1)
    half = target.l2_bytes // 2 // t.bytes
    large = x.less(half // 2, x.mul(n, k))
    many = x.less(_MANY_TILES * tile_rows(target)[0], m)
    some = x.less(_SOME_TILES * tile_rows(target)[0], m)
    close = x.less(x.mul(n, k), target.l2_bytes * _NEAR_CACHES // t.bytes + 1)
    # rows that the first tiles would fetch ahead drive each other out where they crowd into one set
    way = _WAY_BYTES // t.bytes
    crowded = x.equal(x.mul(x.div(sizes["brs"], way), way), sizes["brs"])
    near = x.both(close, x.sub(1, x.both(crowded, x.less(target.l2_bytes // t.bytes - 1, x.mul(n, k)))))
    straight = x.pick(some, x.pick(near, PACK_FIRST, PACK_ROWS), UNPACKED)
    if not target.avx512:
        straight = _low_tiles_copy(t, target, x, m, x.mul(n, k), many)
    elif not target.scattered_lines:
        beyond = x.less(target.l2_bytes // t.bytes, x.mul(n, k))
        few = x.both(x.both(x.less(_STREAM_ROWS - 1, m), x.sub(1, some)), beyond)
        again = x.pick(x.less(tile_rows(target)[0], m), PACK_FIRST, UNPACKED)
        straight = x.pick(few, x.pick(close, again, PACK_ROWS), straight)
    pack = x.pick(x.equal(sizes["bcs"], 1), straight, x.pick(x.equal(sizes["brs"], 1), PACK_TURN, PACK_EACH))
    pack = wishes.get("pack_b", pack)
    unpacked: Size = x.equal(pack, UNPACKED)
    fetch: Size = NOT_FETCHED
    if not target.avx512:
        read = 1 if panels else x.equal(pack, PACK_ROWS)
        fetch = x.pick(read, _fetches(t, target, x, m, x.mul(n, k), crowded, panels), NOT_FETCHED)
    fetch = wishes.get("fetch_b", fetch)
    if panels:
        pack, unpacked = UNPACKED, 0
    wide = x.max(_least_depth(t, target), x.min(KC, x.div(half, x.round_up(columns, width))))
    # rows that are copied before the tiles run keep these waiting: they are read along as much of their length as fits
    rows_first: Size = 0
    if not panels and not target.avx512:
        rows_first = x.both(x.equal(pack, PACK_ROWS), x.sub(1, x.equal(fetch, FETCHED_FIRST)))
    broad = x.either(many, rows_first)
    deepest = KC if panels else x.pick(x.equal(sizes["bcs"], 1), _KC_FEW, KC)
    fitting = x.pick(broad, KC if panels else wide, deepest)
    streamed = x.max(_KC_STREAMED, x.min(KC // 2, x.div(half // 2, x.round_up(columns, width))))
    third = x.less(x.mul(n, k), target.l2_bytes * _THIRD_CACHES // t.bytes + 1)
    most = x.pick(unpacked, x.pick(large, x.pick(third, _KC_FEW, streamed), KC), fitting)
    most = x.pick(x.equal(fetch, FETCHED_ALONG), x.min(most, _KC_ALONG), most)

    def deep(most: Size) -> Size:
        return x.round_up(x.ceil_div(depth, x.ceil_div(depth, most)), t.lanes)

    room: Size = half
    if not target.avx512 and target.scattered_lines and not panels:
        room = x.pick(many, target.l2_bytes * _BLOCK_CACHES // t.bytes, half)

    def block(kc: Size) -> Size:
        fit = x.div(x.div(room, kc), width)
        return x.max(x.mul(x.pick(broad, fit, x.min(fit, _FEW_PANELS)), width), _LEAST_PANELS * width)

    a_copy = _a_copy(t, target, x, sizes)
    used_again = x.both(x.less(block(deep(most)), n), x.sub(1, unpacked))
    a_copy = x.pick(x.both(x.less(A_UNPACKED, a_copy), used_again), A_BLOCK, a_copy)
    a_copy = wishes.get("pack_a", a_copy)
    most = x.pick(x.equal(a_copy, A_COLUMNS), x.min(most, _a_depth(t, target)), most)
    scattered = x.both(x.equal(a_copy, A_UNPACKED), x.equal(sizes["ars"], 1))
    quarter, eighth = (max(t.lanes, target.l1_bytes // (share * LINE)) for share in (4, 8))
    beside = quarter if target.scattered_lines else x.pick(many, eighth, quarter)
    most = x.pick(scattered, x.min(most, beside), most)
    kc = deep(wishes.get("kc_most", most))
    widest = block(kc)
    balanced = x.min(x.round_up(x.ceil_div(columns, x.ceil_div(columns, widest)), width), widest)
    whole = x.both(unpacked, x.sub(1, x.both(large, third)))
    nc = wishes.get("nc_most", x.pick(whole, x.round_up(columns, width), balanced))

    row, unit, high = a_row_bytes(t, kc, x), unit_rows(target), x.max(m, 1)
    most_rows = x.max(x.div(target.l2_bytes * _BLOCK_CACHES, row), unit)
    even = x.round_up(x.ceil_div(high, x.ceil_div(high, most_rows)), unit)
    blocked = x.equal(a_copy, A_BLOCK)

    dot = x.equal(form, DOT)
    pack = x.pick(dot, x.pick(x.equal(sizes["brs"], 1), UNPACKED, PACK_EACH), pack)
    elements = x.pick(dot, x.mul(n, k), x.mul(kc, nc))
    in_place = x.both(x.equal(form, TILES), 0 if target.avx512 else x.equal(sizes["bcs"], 1))
    edge = x.both(in_place, x.sub(1, x.equal(x.mul(x.div(n, width), width), n)))
    edge = x.mul(edge, x.mul(kc, width * t.bytes))
    copied = x.pick(x.equal(pack, UNPACKED), edge, x.mul(elements, t.bytes))
    rows = x.pick(x.both(blocked, x.equal(form, TILES)), x.mul(even, row), 0)
    return {
        "mc_most": x.pick(blocked, even, high),
        "kc_most": kc,
        "nc_most": nc,
        "pack_a": a_copy,
        "pack_b": pack,
        "fetch_b": fetch,
        "b_bytes": copied,
        "shared_bytes": x.add(copied, rows),
    }


def _low_tiles_copy(t: VecType, target: Target, x: Index, m: Size, elements: Size, many: Size) -> Size:
    """Who copies the rows of a B of so many elements where tiles are low (AVX2): nobody for one row of tiles.

    The first of many rows of tiles copies a block that stays in the second-level cache; of few rows, to whom a copy is much, a B of
    some such caches too.  A larger one is read along its rows before, unless it has been fetched (`_fetches`): a low tile leaves
    little arithmetic to hide its lines behind.
    """
    cache = target.l2_bytes // t.bytes
    most = x.pick(many, cache // 2, cache * _FEW_ROWS_CACHES)
    copied = x.pick(x.less(most, elements), PACK_ROWS, PACK_FIRST)
    return x.pick(x.less(tile_rows(target)[0], m), copied, UNPACKED)


def _fetches(
    t: VecType, target: Target, x: Index, m: Size, elements: Size, crowded: Size, panels: bool
) -> Size:
    """How low tiles of few rows fetch the next block of a B of so many elements, for which they would wait.

    A panel of rows fetches a line in each round, in which it reads STEPS: as many panels fetch all.  To about so many the copy is
    much: tiles make it as they read what has been fetched, if that comes from the third-level cache; from memory it does not come
    in time.  Rows that crowd into few sets are fetched along their length, which only memory is slow enough for.
    """
    cache, high = target.l2_bytes // t.bytes, tile_rows(target)[0]
    few = x.both(x.less(high, m), x.less(m, _MANY_TILES * high + 1))
    far = x.less(cache * _FEW_ROWS_CACHES, elements)
    third = x.less(elements, cache * _THIRD_CACHES + 1)
    enough = x.both(x.less(STEPS // 2 * high, m), x.less(m, 2 * STEPS * high + 1))
    apart = x.pick(x.both(enough, third), FETCHED_FIRST, FETCHED)
    rows = x.pick(crowded, x.pick(third, NOT_FETCHED, FETCHED_ALONG), apart)
    return x.pick(x.both(few, far), FETCHED if panels else rows, NOT_FETCHED)


def _a_copy(t: VecType, target: Target, x: Index, sizes: Sizes) -> Size:
    """Whether A is copied, for which there have to be columns enough that use the copy.

    By rows where neighbouring rows fall on one cache set, or on two, of which a high tile's take nearly all ways, if more columns use
    the copy.  By columns, where each step of k is on other lines than the last: if rows are more than a few, since numbers of a tile's
    rows lie on two or three lines where one or two would do; on AMD's if there are more steps than the first-level cache and the
    table of pages hold, or if they lie far apart.
    """
    by_rows, width, way = x.equal(sizes["acs"], 1), VECTORS * t.lanes, _WAY_BYTES // t.bytes
    line = x.pick(by_rows, sizes["ars"], sizes["acs"])
    on_one, on_two = (x.equal(x.mul(x.div(line, step), step), line) for step in (way, way // 2))
    used = x.both(x.less(2 * width, sizes["n"]), x.less(2 * width, sizes["k"]))
    wide = x.less(4 * width - 1, sizes["n"])
    deep = x.less(_KC_LEAST - 1, sizes["k"])
    far = x.both(x.less(_FAR_BYTES // t.bytes - 1, sizes["acs"]), wide)
    rather = x.either(deep, far)
    if not target.scattered_lines:
        rather = x.either(rather, x.less(_SOME_TILES * tile_rows(target)[0], sizes["m"]))
    columns = x.both(x.both(x.equal(sizes["ars"], 1), used), rather)
    crowded = x.either(on_one, x.both(on_two, wide)) if tile_rows(target)[0] > _WAYS else on_one
    rows = x.both(x.both(by_rows, used), crowded)
    return x.pick(columns, A_COLUMNS, x.pick(rows, A_ROWS, A_UNPACKED))


def _split(t: VecType, target: Target, x: Index, sizes: Sizes, form: Size, copy: Sizes) -> Sizes:
    """How threads share the work: the least number of units worth a thread of its own (the grains).

    Where there are columns enough, more of them where each thread would copy A's blocks for itself, each has a product of its own:
    nobody waits for panels that others make, and the first tiles make them.  Otherwise threads share each block, whose columns are
    split where there are few rows; low tiles (AVX2) do wherever rows are enough (`ROWS_SHARED`), since a thread that is slower
    than another then takes less of them.  Products of a batch go to one thread each when they are small.
    """
    m, n, depth, width = sizes["m"], sizes["n"], x.max(sizes["k"], 1), VECTORS * t.lanes
    kc, nc = copy["kc_most"], copy["nc_most"]
    by_columns = x.both(x.less(m, _MANY_TILES * tile_rows(target)[0] + 1), x.less(2 * width, n))
    least = x.pick(x.equal(copy["pack_a"], A_BLOCK), _LEAST_APART_BLOCK, _LEAST_APART)
    unit = x.pick(by_columns, x.mul(x.mul(m, depth), width), x.mul(x.mul(n, depth), unit_rows(target)))
    # these wait for memory: a number read from the second-level cache takes the time of three multiply-adds of a tile
    unit = x.pick(x.equal(form, DOT), x.mul(n, x.mul(depth, 3 * DOT_ROWS)), unit)
    row = x.either(x.equal(form, ROW), x.equal(form, ROW_PANELS))
    unit = x.pick(row, x.mul(depth, 3 * ROW_UNIT), unit)
    work = x.mul(x.mul(x.max(m, 1), x.max(n, 1)), depth)
    alone = x.pick(x.less(work, 16 * _PARALLEL_WORK), x.ceil_div(_PARALLEL_WORK, work), 0)
    return {
        "by_columns": by_columns,
        "grain": x.ceil_div(_PARALLEL_WORK, x.max(unit, 1)),
        "pack_grain": x.ceil_div(_PARALLEL_WORK // 8, x.mul(kc, width)),
        "batch_grain": x.pick(x.equal(sizes["batch"], 1), 0, alone),
        "apart": x.max(
            x.max(least, x.ceil_div(nc, 2 * width)),
            x.ceil_div(_PARALLEL_WORK, x.max(x.mul(x.mul(m, depth), width), 1)),
        ),
    }
