"""What the functions of the contraction engine share: the record of a call, sizes of copies, how a function begins and ends."""

from __future__ import annotations

from dataclasses import dataclass

from tcc.codegen.emit import Emit, VecType
from tcc.codegen.index import Index, Size
from tcc.codegen.products.microkernel import VECTORS, tile_rows
from tcc.codegen.target import Target
from tcc.runtime import layout as at

# Forms: register tiles; sums along k in lanes; one row of C as a sum of rows; no product, but C as the panels of B; one row of C
# from panels.
FORMS = TILES, DOT, ROW, PANELS, ROW_PANELS = range(5)
# How B's panels are made: not at all, where B is read in place or is such panels itself; by the first tiles that read them (by rows
# before them, where more than one thread reads a panel), by rows, by columns, an element at a time.
PACKS_B = UNPACKED, PACK_FIRST, PACK_ROWS, PACK_TURN, PACK_EACH = range(5)
# How A's rows are copied: a tile at a time, by rows or by columns, or a block of rows, which all blocks of columns use.
PACKS_A = A_UNPACKED, A_ROWS, A_COLUMNS, A_BLOCK = range(4)
# Whether tiles fetch B's next block: each a column of lines, after which the tiles that come to it first may make its panels
# instead of a copy before; or each a row.
FETCHES_B = NOT_FETCHED, FETCHED, FETCHED_FIRST, FETCHED_ALONG = range(4)

# Strides are in bytes.  turned: the record describes the transposed product.  index: which of the batch is being computed.
# inner: products along the second axis of the batch, whose strides are inner_a, inner_b, inner_c; those of the first are batch_a...
# apart: panels of columns that a thread may take as a product of its own, at least.  left: columns that lie left of those.
# shared_bytes: of each thread's scratch, the first part, for B's panels and, from b_bytes on, A's block, whose rows are
# block_row bytes apart.  keep: the first tiles make B's panels.  edge: a copy of the block's last
# columns, where these are fewer than a tile's and B is read in place (`copies_edge`).  fill: the tiles of the first block of columns make A's block.  panel_row, panel_column: bytes from one to the next in
# B's panels.  backwards: rows of DOT, and panels of ROW_PANELS, are taken from the last one on, for the step of a loop before has
# left that in the nearest cache.  resume: the tiles start from C.  finish: the epilogue once the sums are complete, else null.
# beyond: B's next block if it is to be fetched, else null.
FIELDS = {
    name: slot
    for slot, name in enumerate(
        """
        a b c args epilogue
        m n k ars acs brs bcs crs ccs accumulate
        batch batch_a batch_b batch_c inner inner_a inner_b inner_c
        form turned mc_most kc_most nc_most pack_a pack_b fetch_b by_columns grain pack_grain batch_grain apart shared_bytes b_bytes
        serial index left backwards panels panel_row panel_column keep edge block block_row fill ic mc jc nc pc kc resume finish beyond
        """.split()
    )
}
POINTERS = ("a", "b", "c", "args", "epilogue", "panels", "edge", "block", "finish", "beyond")
GROUP = 8  # tiles whose rows of A are copied together by columns, so that whole lines of memory are read
BLOCK_UNIT = 64  # rows of A's block are handed to threads in such units
ROWS_SHARED = 8  # low tiles' rows of tiles: if threads have more than so many each, they share blocks
ROW_UNIT = 256  # columns of a product of one row are handed to threads in such units
BODY = "ptr %ctx, ptr %r, i64 %begin, i64 %end, i64 %thread"  # parameters of what threads share
_HOT = ("_panel", "_row_panels")


@dataclass(frozen=True)
class Reach:
    """What an engine has to do: the forms, the ways to copy A and B, whether threads share its work, whether there are batches,
    whether there are tiles of one vector of columns, whether tiles start from C, and whether B may end within a wide one.

    One that is `small` has the highest tile and one of any height below in place of one for each.
    """

    forms: frozenset[int] = frozenset(FORMS)
    packs_a: frozenset[int] = frozenset(PACKS_A)
    packs_b: frozenset[int] = frozenset(PACKS_B)
    threads: bool = True
    batch: bool = True
    narrow: bool = True
    resume: bool = True
    ragged: bool = True
    small: bool = False

    @property
    def far(self) -> bool:
        """Whether nothing has read B lately: it is not copied."""
        return not self.packs_b - {UNPACKED}

    def __or__(self, other: Reach) -> Reach:
        return Reach(
            self.forms | other.forms,
            self.packs_a | other.packs_a,
            self.packs_b | other.packs_b,
            self.threads or other.threads,
            self.batch or other.batch,
            self.narrow or other.narrow,
            self.resume or other.resume,
            self.ragged or other.ragged,
            self.small and other.small,
        )


ALL = Reach()


class Record:
    """Reads and writes the fields of the record at `pointer`."""

    def __init__(self, e: Emit, pointer: str) -> None:
        self.e, self.pointer = e, pointer

    def __getitem__(self, name: str) -> str:
        t = "ptr" if name in POINTERS else "i64"
        return self.e.value(f"load {t}, ptr {self.e.gep(self.pointer, FIELDS[name], 'i64')}")

    def __setitem__(self, name: str, value: Size) -> None:
        t = "ptr" if name in POINTERS else "i64"
        self.e.line(f"store {t} {value}, ptr {self.e.gep(self.pointer, FIELDS[name], 'i64')}")


def unit_rows(target: Target) -> int:
    """Rows are handed to threads in such units: whole tiles."""
    return tile_rows(target)[0]


def keeps(reach: Reach = ALL) -> bool:
    """Whether there are tiles that copy B."""
    return PACK_FIRST in reach.packs_b


def fetches_b(target: Target, reach: Reach) -> bool:
    """Whether tiles may fetch B's next block: not the open one, whose rounds are of one step."""
    return not target.avx512 and not reach.small


def made_widths(target: Target) -> tuple[int, ...]:
    """Vectors of columns of the tiles that copy B: without masks (`copies_edge`) whole ones alone."""
    return tuple(range(1, VECTORS + 1)) if target.avx512 else (VECTORS,)


def copies_edge(target: Target, reach: Reach = ALL) -> bool:
    """Whether columns at B's right edge that are fewer than a tile's may have to be copied before the tiles run.

    Without AVX-512, whose masks cost nothing, tiles read whole vectors.
    """
    in_place = bool(reach.packs_b & {UNPACKED, PACK_FIRST})
    return not target.avx512 and in_place and (reach.ragged or reach.narrow)


def packs_before(target: Target, reach: Reach) -> bool:
    """Whether B's panels are ever made before the tiles run: those of a lone thread make all that PACK_FIRST asks for.

    Not beside A_BLOCK, whose last block of rows may be lower than a tile.
    """
    alone = keeps(reach) and not reach.threads and A_BLOCK not in reach.packs_a
    return bool(reach.packs_b - ({UNPACKED, PACK_FIRST} if alone else {UNPACKED}))


def engine_name(t: VecType, part: str = "") -> str:
    return f"tcc_gemm_{t.suffix}{part}"


def a_copy_bytes(t: VecType, target: Target, kc: Size, x: Index) -> Size:
    """Scratch for what is copied of A at a time: the rows of one tile, or a group of tiles by columns."""
    by_rows = x.mul(a_row_bytes(t, kc, x), tile_rows(target)[0])
    return x.max(by_rows, x.add(x.mul(kc, GROUP * a_column_bytes(t, target)), GROUP * 64))


def a_row_bytes(t: VecType, kc: Size, x: Index) -> Size:
    """From one row to the next in a copy of A by rows."""
    # one vector more than needed, so that rows of a power of two do not share cache sets
    return x.mul(x.add(x.round_up(kc, t.lanes), t.lanes), t.bytes)


def a_column_bytes(t: VecType, target: Target) -> int:
    """From one k to the next in a panel that is copied by columns: whole vectors."""
    return -(-tile_rows(target)[0] // t.lanes) * t.lanes * t.bytes


def begin_part(e: Emit, t: VecType, part: str, params: str) -> None:
    linkage = "internal " if part else ""
    e.function(f"{linkage}void @{engine_name(t, part)}({params})")
    if part not in _HOT:
        e.quick()


def end_part(e: Emit) -> Emit:
    e.end()
    return e


def call_part(e: Emit, name: str, *args: tuple[str, Size]) -> None:
    """A call of a function that stands in the same module."""
    e.line(f"call void @{name}({', '.join(f'{t} {a}' for t, a in args)})")


def thread_scratch(e: Emit, x: Index, thread: str) -> str:
    base = e.value(f"load ptr, ptr {e.gep('%ctx', at.CTX_SCRATCH, 'i64')}")
    bytes_each = e.value(f"load i64, ptr {e.gep('%ctx', at.CTX_SCRATCH_BYTES, 'i64')}")
    return e.gep(base, x.mul(thread, bytes_each))


def select(e: Emit, cond: str, kind: str, yes: Size, no: Size) -> str:
    """`yes` where `cond`, which may be known to be false."""
    return str(no) if cond == "false" else e.value(f"select i1 {cond}, {kind} {yes}, {kind} {no}")
