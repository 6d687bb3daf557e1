"""Products of halves, rounded or not, and of bytes on sm_90a: tiles by the tensor memory accelerator, multiplied by warpgroups,
added up in float32 and int32.

A block stays and takes tile after tile.  One thread of its first warpgroup has tiles of the operands copied into a ring of stages;
two warpgroups multiply what has come, 64 rows each or half of the columns, and write the result through the op's block while the next
tile's stages fill.  A stage's `full` mbarrier counts the bytes that are under way, its `empty` one the warps that are done with it.
Operands may lie dense along k or along their lines, but bytes, which the instruction takes along k alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tcc.codegen.emit import Emit, VecType, is_number
from tcc.codegen.gpu import hopper_ops, tensorcore
from tcc.codegen.gpu.chips import WARP
from tcc.codegen.gpu.kernel import (
    FIRST_MAP,
    GpuKernel,
    TileMap,
    barrier,
    block_index,
    ceil_div,
    finish,
    grid_size,
    thread,
    tile_at,
)
from tcc.codegen.gpu.products import Matmul, Product
from tcc.codegen.index import at_most, plus, times
from tcc.codegen.kernel import Operand
from tcc.ir import dims
from tcc.ir.core import Op
from tcc.ir.dims import Size
from tcc.ir.types import HALVES, Type, itemsize
from tcc.runtime import device_program
from tcc.runtime.device_program import MAP_WORDS, MOST_STRIDE

LINE = 128  # bytes of a stage along k
DEPTH = 64  # halves of them
GROUP = 128  # threads
CONSUMERS = 2
THREADS = GROUP * (1 + CONSUMERS)
MULTIPROCESSORS = (
    132  # of an H100, for which widths are chosen; a grid has as many blocks as the device that it runs on
)
LEAST_TILES = 32  # with fewer, smaller tiles and parts of k keep more of the device busy
LEAST_ROWS = 64  # with fewer, most of a tile's rows are none
BYTES = frozenset({"i8"})  # uint8 by int8 asks for PTX 8.4, which drivers before CUDA 12.4 do not take
SHARED = 227 << 10
CHUNK = 64  # columns that go through shared memory at once on their way out
PITCH = CHUNK + 4
LINES_STEP, ROWS_STEP = DEPTH * 128, 8 * 128  # bytes: from 64 lines to the next, and from eight rows
SWIZZLED = 1 << 62  # by 128 bytes, in a product's descriptor


@dataclass(frozen=True)
class Shape:
    """What a block makes: its warpgroups have 64 rows each, or, where there are no more, half of the columns."""

    rows: int
    columns: int

    @property
    def width(self) -> int:
        """Columns of a warpgroup."""
        return self.columns * self.rows // 128

    def tiles(self, batch: Size, m: Size, n: Size) -> Size:
        return dims.mul(batch, ceil_div(m, self.rows), ceil_div(n, self.columns))


FLAT, NARROW, WIDE = Shape(64, 256), Shape(128, 128), Shape(128, 256)


def shape_for(batch: Size, m: Size, n: Size) -> Shape:
    """Of wide tiles less is read, but not at the price of idle multiprocessors."""
    if isinstance(m, int) and m <= FLAT.rows:
        return FLAT
    few = WIDE.tiles(batch, m, n)
    narrow = isinstance(n, int) and n <= NARROW.columns or isinstance(few, int) and few < MULTIPROCESSORS
    return NARROW if narrow else WIDE


def fits(op: Op) -> bool:
    """Whether a placed `matmul` may be for this form.  What sizes of run time say is asked when it is launched."""
    if op.name not in ("matmul", "matmul_widening"):
        return False
    a, b, c = op.operands[0].type, op.operands[1].type, op.operands[-1].type
    if a.dtype not in (HALVES | BYTES if op.name == "matmul_widening" else HALVES) or c.rank > 3:
        return False
    if a.dtype in BYTES and (a.strides[-1] != 1 or b.strides[-2] != 1):
        return False
    if any(isinstance(s, int) and s <= 0 for s in (*c.shape, a.shape[-1])):
        return False
    wanted = all(not isinstance(size, int) or size >= least for size, least in _needs(c))
    return wanted and all(map(_may_have_map, (a, b)))


def _needs(c: Type) -> list[tuple[Size, int]]:
    """Sizes, and what they are to be at least for this form to pay."""
    *outer, m, n = c.shape
    sizes = dims.product(outer), m, n
    needs = [(shape_for(*sizes).tiles(*sizes), LEAST_TILES), (m, LEAST_ROWS)]
    return needs if isinstance(n, int) else [*needs, (n, NARROW.columns + 1)]


def _may_have_map(t: Type) -> bool:
    """One axis dense, and the others' steps, as far as they are known, multiples of 16 bytes, not inside each other and less than 2^40."""
    if 1 not in t.strides[-2:]:
        return False
    inner, outer = (-1, -2) if t.strides[-1] == 1 else (-2, -1)
    step, size, whole = t.strides[outer], t.shape[inner], 16 // itemsize(t.dtype)
    reach = dims.mul(t.shape[outer], step)
    batch = t.strides[0] if t.rank > 2 else reach

    def known(*sizes: Size) -> bool:
        return all(isinstance(s, int) for s in sizes)

    if known(step) and step % whole or known(step, size) and step < size:  # type: ignore[operator]
        return False
    if known(batch) and (batch % whole or batch * itemsize(t.dtype) >= MOST_STRIDE):  # type: ignore[operator]
        return False
    return not (known(reach, batch) and reach > batch)  # type: ignore[operator]


def descriptor(e: Emit, pointer: str) -> str:
    """What a product is told of an operand that begins at a place of shared memory."""
    start = e.call("i64", "tcc.matrix_place", ("ptr", pointer))
    return e.value(f"or i64 {start}, {SWIZZLED | (ROWS_STEP >> 4) << 32 | (LINES_STEP >> 4) << 16}")


def kernel(op: Op) -> GpuKernel:
    """A placed `matmul` that may fit, with what is launched where it does not."""
    made = _Matmul(op).kernel()
    t = op.operands[-1].type
    if all(isinstance(s, int) for s in (*t.shape, op.operands[0].type.shape[-1])):
        return replace(made, unless=(tensorcore.whole_kernel(op),))
    return replace(made, unless=tuple(tensorcore.matrix_kernels(op)), needs=tuple(_needs(t)))


class Warpgroups(Product):
    """How a product is made; what it multiplies, and where that lies, another class says."""

    stretches = 1

    def __init__(self, op: Op) -> None:
        super().__init__(op)
        self.shape = shape_for(self.batch, self.m, self.n)
        self.each = itemsize(self.types[0].dtype)
        self.depth = LINE // self.each
        self.stage_bytes = LINE * (self.shape.rows + self.shape.columns)
        self.out_bytes = 4 * 16 * PITCH * CONSUMERS * 4  # sixteen rows of each warp
        self.stages = (SHARED - self.out_bytes - 256) // self.stage_bytes
        self.total = str(self.t)  # float or i32
        self.totals = hopper_ops.totals(self.shape.width, self.total)

    # -- what the cases say ------------------------------------------------------------------------------------------

    def maps(self) -> list[TileMap]:
        """Of A, and of B."""
        raise NotImplementedError

    def slice_count(self) -> str:
        """Stages of k."""
        return self.parts(self.k, self.depth)

    def begin_copies(self) -> None:
        """The tile at self.row and self.column is about to be copied."""

    def copy_slice(self, base: str, full: str, s: str) -> None:
        """Begins to copy slice `s` of both operands to a stage, whose mbarrier is `full`."""
        raise NotImplementedError

    # -- heads -----------------------------------------------------------------------------------------------------

    def all_sizes(self) -> list[Size]:
        return [self.m, self.n, self.k, self.batch, *self.more_sizes()]

    def kernel(self) -> GpuKernel:
        e = self.e
        self.begin_product()
        self.down, self.along = self.parts(self.m, self.shape.rows), self.parts(self.n, self.shape.columns)
        self.tiles = times(e, times(e, self.down, self.along), self.size(self.batch))
        self.tiles = times(e, self.tiles, self.size(self.stretches))
        self.slices = self.slice_count()
        self.shared, self.member = e.call("ptr", "tcc.shared"), thread(e)
        self.begin_results(2)
        ring = self.stages * self.stage_bytes
        self.staging = e.gep(self.shared, ring)
        self.full = e.gep(self.staging, self.out_bytes)
        self.empty = e.gep(self.full, 8 * self.stages)
        self.map_of = [
            e.value(f"getelementptr i64, ptr %args, i64 {FIRST_MAP}"),
        ]
        self.map_of.append(e.gep(self.map_of[0], MAP_WORDS, "i64"))
        warp = e.value(f"trunc i64 {e.value(f'lshr i64 {self.member}, 5')} to i32")
        same = e.call(
            "i32", "tcc.shuffle_from", ("i32", warp), ("i32", "0")
        )  # so that it is known to be the warp's
        group = e.value(f"lshr i32 {same}, 2")

        def begin() -> None:
            for s in range(self.stages):
                e.call("void", "tcc.mbarrier_init", ("ptr", e.gep(self.full, 8 * s)), ("i32", "1"))
                count = str(CONSUMERS * GROUP // WARP)
                e.call("void", "tcc.mbarrier_init", ("ptr", e.gep(self.empty, 8 * s)), ("i32", count))
            e.call("void", "tcc.mbarriers_made")

        e.when(e.value(f"icmp eq i64 {self.member}, 0"), begin)
        barrier(e)
        producer, consumer, after = e.label(), e.label(), e.label()
        e.branch_if(e.value(f"icmp eq i32 {group}, 0"), producer, consumer)
        e.at(producer)
        e.call("void", "tcc.registers_40")
        e.when(e.value(f"icmp eq i64 {self.member}, 0"), self.produce)
        e.branch(after)
        e.at(consumer)
        e.call("void", "tcc.registers_232")
        self.consume()
        e.branch(after)
        e.at(after)
        e.end()
        slots = [*self.slots.slots, *self.maps()]
        bytes = ring + self.out_bytes + 16 * self.stages
        tiles = dims.mul(self.shape.tiles(self.batch, self.m, self.n), self.stretches)
        return finish(
            e,
            "warpgroups",
            slots,
            (dims.minimum(tiles, device_program.MULTIPROCESSORS), 1, 1),
            THREADS,
            bytes,
        )

    def parts(self, size: Size, each: int) -> str:
        """How many of `each` hold a size, that is not 0."""
        if isinstance(size, int):
            return str(-(-size // each))
        return self.e.value(f"udiv i64 {plus(self.e, self.size(size), str(each - 1))}, {each}")

    def over_tiles(self, body: Callable[[list[str]], list[str]]) -> None:
        """The tiles of this block, in order, with the number of stages taken before; `body` sets out from self.row and the others."""
        e = self.e
        each = times(e, self.down, self.along)

        def tile(number: str, turn: list[str]) -> list[str]:
            self.part, t = e.value(f"udiv i64 {number}, {each}"), e.value(f"urem i64 {number}, {each}")
            row, column = tile_at(e, t, self.down, self.along)
            self.row, self.column = (
                times(e, row, str(self.shape.rows)),
                times(e, column, str(self.shape.columns)),
            )
            self.choose_part()
            return body(turn)

        e.loop(block_index(e), self.tiles, grid_size(e), tile, [("i64", "0")])

    def choose_part(self) -> None:
        """The product of the batch and the slices of k of self.part."""
        e = self.e
        self.number, self.first, self.last = self.part, "0", self.slices
        if self.stretches != 1:
            count = self.stretches
            self.number, s = (
                e.value(f"udiv i64 {self.part}, {count}"),
                e.value(f"urem i64 {self.part}, {count}"),
            )
            each = e.value(f"udiv i64 {plus(e, self.slices, str(count - 1))}, {count}")
            self.first = times(e, s, each)
            self.last = at_most(e, plus(e, self.first, each), self.slices)

    def stage(self, turn: str) -> tuple[str, str, str]:
        """The stage of a turn, its number times 8, and the parity of its round."""
        e = self.e
        s = e.value(f"urem i64 {turn}, {self.stages}")
        parity = e.value(f"and i64 {e.value(f'udiv i64 {turn}, {self.stages}')}, 1")
        return (
            e.gep(self.shared, times(e, s, str(self.stage_bytes))),
            times(e, s, "8"),
            e.value(f"trunc i64 {parity} to i32"),
        )

    # -- the producer ----------------------------------------------------------------------------------------------

    def produce(self) -> None:
        e = self.e

        def tile(turn: list[str]) -> list[str]:
            self.begin_copies()

            def slice(s: str, turn: list[str]) -> list[str]:
                base, at, parity = self.stage(turn[0])
                before = e.value(f"xor i32 {parity}, 1")  # of the round before; in the first, none
                e.call("void", "tcc.mbarrier_wait", ("ptr", e.gep(self.empty, at)), ("i32", before))
                full = e.gep(self.full, at)
                e.call("void", "tcc.mbarrier_expect", ("ptr", full), ("i32", str(self.stage_bytes)))
                self.copy_slice(base, full, s)
                return [plus(e, turn[0], "1")]

            return e.loop(self.first, self.last, 1, slice, [("i64", turn[0])])

        self.over_tiles(tile)

    def b_place(self, base: str) -> str:
        """Where B lies in a stage."""
        return self.e.gep(base, LINE * self.shape.rows)

    def copy(self, operand: int, base: str, full: str, line: str, k: str, number: str) -> None:
        """Begins to copy the lines of a tile of A or B from one on, and a stage of k, of matrix `number` of its map."""
        e = self.e
        along_k = self.b_along_k if operand else self.a_along_k
        lines, target = self.shape.rows, base
        if operand:
            lines, target = self.shape.columns, self.b_place(base)
        for block in range(1 if along_k else lines // 64):
            at = line if along_k else plus(e, line, str(64 * block))
            x, y = (k, at) if along_k else (at, k)
            self.call_copy("tile_copy", e.gep(target, block * LINES_STEP), full, operand, x, y, number)

    def call_copy(self, name: str, target: str, full: str, operand: int, *places: str) -> None:
        e = self.e
        given = [("i32", c if is_number(c) else e.value(f"trunc i64 {c} to i32")) for c in places]
        pointers = [("ptr", p) for p in (target, full, self.map_of[operand])]
        e.call("void", f"tcc.{name}", *pointers, *given)

    # -- consumers -------------------------------------------------------------------------------------------------

    def consume(self) -> None:
        e = self.e
        width = self.shape.width
        count = width // 2
        self.mine = e.value(f"sub i64 {self.member}, {GROUP}")
        self.lane = e.value(f"and i64 {self.mine}, {WARP - 1}")
        self.leads = e.value(f"icmp eq i64 {self.lane}, 0")
        half = e.value(f"lshr i64 {self.mine}, 7")
        t = VecType(self.total)

        def tile(turn: list[str]) -> list[str]:
            def slice(s: str, carried: list[str]) -> list[str]:
                *totals, turn = carried
                base, at, parity = self.stage(turn)
                e.call("void", "tcc.mbarrier_wait", ("ptr", e.gep(self.full, at)), ("i32", parity))
                e.call("void", "tcc.products_fence")
                totals = self.multiply_stage(base, half, totals)
                e.call("void", "tcc.products_begun")
                e.call("void", "tcc.products_left_1")  # the one before is done
                e.when(
                    e.value(f"icmp ne i64 {s}, {self.first}"),
                    lambda: self.release(e.value(f"sub i64 {turn}, 1")),
                )
                return [*totals, plus(e, turn, "1")]

            begun: list[tuple[VecType | str, str]] = [(t, t.const(0))] * count + [("i64", turn[0])]
            *totals, after = e.loop(self.first, self.last, 1, slice, begun)
            e.call("void", "tcc.products_left_0")
            self.release_last(after)
            settled = e.call(
                self.totals, f"tcc.settled.{self.total}.{width}", *((self.total, x) for x in totals)
            )
            self.write_tile(
                half, [e.value(f"extractvalue {self.totals} {settled}, {i}") for i in range(count)]
            )
            return [after]

        self.over_tiles(tile)

    def release_last(self, after: str) -> None:
        """Of the stages that a tile took, which may be none if k is cut."""
        e = self.e

        def release() -> None:
            self.release(e.value(f"sub i64 {after}, 1"))

        if self.stretches != 1:
            e.when(e.value(f"icmp slt i64 {self.first}, {self.last}"), release)
        elif self.last != "0":
            release()

    def release(self, turn: str) -> None:
        """This warp is done with the stage of a turn."""
        e = self.e

        def arrive() -> None:
            _, at, _ = self.stage(turn)
            e.call("void", "tcc.mbarrier_arrive", ("ptr", e.gep(self.empty, at)))

        e.when(self.leads, arrive)

    def multiply_stage(self, base: str, half: str, totals: list[str]) -> list[str]:
        """Adds the products of a stage, 32 bytes along k at a time."""
        e = self.e
        a_start, b_start = base, self.b_place(base)
        if self.shape is FLAT:
            b_start = e.gep(b_start, times(e, half, str(LINE * self.shape.width)))
        else:
            a_start = e.gep(a_start, times(e, half, str(LINE * 64)))
        a, b = self.descriptor(a_start), self.descriptor(b_start)
        name = f"tcc.wgmma.{self.types[0].dtype}.{self.shape.width}"
        if self.each == 2:
            name += f".{int(not self.a_along_k)}{int(not self.b_along_k)}"
        for step in range(LINE // 32):
            given = [(self.total, x) for x in totals]
            for start, along_k in ((a, self.a_along_k), (b, self.b_along_k)):
                bytes = step * (32 if along_k else 2 * ROWS_STEP)
                given.append(("i64", plus(e, start, str(bytes >> 4))))
            made = e.call(self.totals, name, *given)
            totals = [e.value(f"extractvalue {self.totals} {made}, {i}") for i in range(len(totals))]
        return totals

    def descriptor(self, pointer: str) -> str:
        return descriptor(self.e, pointer)

    # -- the result --------------------------------------------------------------------------------------------------

    def write_tile(self, half: str, totals: list[str]) -> None:
        """Each warp's sixteen rows, some columns at a time: fragments to shared memory, whole rows from there."""
        e = self.e
        warp = e.value(f"lshr i64 {self.mine}, 5")
        area = e.gep(self.staging, times(e, warp, str(16 * PITCH * 4)))
        quad, pair = e.value(f"lshr i64 {self.lane}, 2"), times(e, e.value(f"and i64 {self.lane}, 3"), "2")
        top, first = plus(e, self.row, times(e, e.value(f"and i64 {warp}, 3"), "16")), self.column
        if self.shape is FLAT:
            first = plus(e, first, times(e, half, str(self.shape.width)))
        else:
            top = plus(e, top, times(e, half, "64"))
        double, pairs = times(e, self.lane, "2"), VecType(self.total, 2)
        for chunk in range(self.shape.width // CHUNK):
            e.call("void", "tcc.warp_barrier")  # all have read what lay there
            for g in range(CHUNK // 8):
                for r in (0, 1):
                    at = times(e, plus(e, quad, str(8 * r)), str(PITCH))
                    place = e.gep(area, plus(e, at, plus(e, pair, str(8 * g))), self.total)
                    index = 4 * (chunk * CHUNK // 8 + g) + 2 * r
                    two = e.value(f"insertelement {pairs} poison, {self.total} {totals[index]}, i64 0")
                    two = e.value(f"insertelement {pairs} {two}, {self.total} {totals[index + 1]}, i64 1")
                    e.line(f"store {pairs} {two}, ptr {place}, align 8")
            e.call("void", "tcc.warp_barrier")
            left = plus(e, plus(e, first, str(chunk * CHUNK)), double)

            def row(r: str, _: list[str], left: str = left) -> None:
                at = plus(e, times(e, r, str(PITCH)), double)
                two = e.value(f"load {pairs}, ptr {e.gep(area, at, self.total)}, align 8")
                self.enter(self.number)
                ones = [e.value(f"extractelement {pairs} {two}, i64 {c}") for c in (0, 1)]
                self.finish_run(plus(e, top, r), left, ones)

            e.loop(0, 16, 1, row)


class _Matmul(Warpgroups, Matmul):
    def maps(self) -> list[TileMap]:
        """The dense axis, the other one, the batch."""
        made = []
        for i, along_k, lines in (
            (0, self.a_along_k, self.shape.rows),
            (1, self.b_along_k, self.shape.columns),
        ):
            t = self.types[i]
            inner, outer = (-1, -2) if t.strides[-1] == 1 else (-2, -1)
            batch = t.strides[0] if t.rank > 2 else dims.mul(t.shape[outer], t.strides[outer])
            count = t.shape[0] if t.rank > 2 else 1
            box = (self.depth, lines) if along_k else (64, DEPTH)
            steps = dims.mul(self.each, t.strides[outer]), dims.mul(self.each, batch)
            made.append(TileMap(Operand(i), (t.shape[inner], t.shape[outer], count), steps, box, self.each))
        return made

    def copy_slice(self, base: str, full: str, s: str) -> None:
        k = times(self.e, s, str(self.depth))
        self.copy(0, base, full, self.row, k, self.number)
        self.copy(1, base, full, self.column, k, self.number)
