"""Products on a GPU by fused multiply-adds: matrix products, and what convolutions share with them.

A block makes a tile of the result.  Slices of both operands go through shared memory, where they lie with k outermost, and each thread
adds up a small tile in registers, k in order: the result does not depend on the tile.  Along an operand's dense axis
neighbouring threads read neighbours.  Where there are few tiles, k is cut into parts, whose totals a second kernel adds up in order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tcc.codegen import scalar
from tcc.codegen.emit import VecType
from tcc.codegen.gpu.chips import LANE
from tcc.codegen.gpu.kernel import (
    BLOCK,
    GpuKernel,
    barrier,
    block_index,
    blocks_for,
    ceil_div,
    finish,
    global_thread,
    grid_size,
    thread,
    tile_at,
)
from tcc.codegen.gpu.results import Results
from tcc.codegen.index import at_most, plus, times
from tcc.ir import dims
from tcc.ir.core import Op
from tcc.ir.dims import Size
from tcc.ir.types import HALVES

MOST_BATCH = 1 << 15  # a grid's y axis


@dataclass(frozen=True)
class Tile:
    """What a block makes (rows x columns), what a thread makes of it, how much of k goes through shared memory at once, and how
    much of that is one round of the loop, whose addresses are then known."""

    m: int
    n: int
    rows: int
    columns: int
    k: int
    round: int = 4

    @property
    def threads(self) -> int:
        return (self.m // self.rows) * (self.n // self.columns)


SMALL, LARGE = Tile(32, 32, 4, 2, 16), Tile(128, 128, 8, 8, 8, 8)
MIDDLE = Tile(64, 64, 4, 4, 16)
FLAT, THIN = Tile(8, 128, 2, 4, 16), Tile(128, 8, 4, 2, 16)


def tile_for(m: Size, n: Size) -> Tile:
    """A large tile where there are enough of them to go round."""
    if not isinstance(m, int) or not isinstance(n, int):
        return MIDDLE
    if m * n >= 1 << 20 and min(m, n) >= 128:
        return LARGE
    if min(m, n) <= 8 < max(m, n) // 8:
        return FLAT if m < n else THIN
    return MIDDLE if m * n > 1 << 14 and min(m, n) > 32 else SMALL


def product_kernels(op: Op) -> list[GpuKernel]:
    """A placed `matmul` or `matmul_widening a, b, *extras, result`."""
    return Matmul(op).kernels()


class Product(Results):
    """C[z, i, j] = sum over k of A[z, i, k] B[z, k, j]; the cases say where the elements lie."""

    a_along_k = True  # whether A is dense along k rather than along its rows
    b_along_k = False
    divides = (
        False  # whether places are found by divisions: those of a line then stand before the loop over k
    )
    dense: Sequence[bool] = (False, False)  # whether neighbours along those axes may be read at once
    # blocks of a large tile of float32 on a multiprocessor: beside it, what a convolution knows of its positions
    # would not find room in half of the registers
    resident = 1

    # -- what the cases say ------------------------------------------------------------------------------------------

    def enter(self, z: str) -> None:
        """The product of number `z` begins."""

    def a_at(self, i: str, k: str) -> tuple[str, str]:
        """The address of A[i, k], and whether there is such an element (an i1, or "" if i and k being in range will do)."""
        raise NotImplementedError

    def b_at(self, k: str, j: str) -> tuple[str, str]:
        raise NotImplementedError

    # -- the kernels -------------------------------------------------------------------------------------------------

    def kernels(self) -> list[GpuKernel]:
        """One, and one that adds up the parts in order if k is cut; of run-time sizes it is not launched if k is not."""
        made = [self.kernel()]
        return made if self.stretches == 1 else [*made, self.again().fold_kernel()]

    def again(self) -> Product:
        """Itself, with nothing written yet."""
        return type(self)(self.op)

    def all_sizes(self) -> list[Size]:
        return [self.m, self.n, self.k, self.batch, self.stretches, self.stretch, *self.more_sizes()]

    def begin_product(self) -> None:
        self.begin("void @KERNEL_NAME(ptr %args)", self.all_sizes())
        if self.stretches != 1:
            self.partial_area = self.slots.pointer(self.e, self.partials)

    def fold_kernel(self) -> GpuKernel:
        e = self.e
        self.begin_product()
        first, step = global_thread(e, BLOCK)

        def element(u: str, _: list[str]) -> None:
            z, i, j = self.unravel(u, [self.batch, self.m, self.n])
            self.enter(z)
            e.when(self.in_columns(j), lambda: total_of(z, i, j))

        def total_of(z: str, i: str, j: str) -> None:
            def add(s: str, totals: list[str]) -> list[str]:
                part = plus(e, times(e, z, self.size(self.stretches)), s)
                one = scalar.load(e, LANE, self.sum_dtype, 1, self.partial_at(part, i, j), None)
                operands = {"a": (self.sum_dtype, totals[0]), "b": (self.sum_dtype, one)}
                body = "a | b" if self.dtype == "bool" else "a + b"
                return [scalar.emit_scalar(e, LANE, body, operands, lanes=1, result=self.sum_dtype)]

            (total,) = e.loop(0, self.size(self.stretches), 1, add, [(self.t, self.t.const(0))])
            at = self.place(i, j)
            self.store(self.out, at, self.made(at, total))

        e.loop(first, self.count([self.batch, self.m, self.n]), step, element)
        e.end()
        several = dims.minimum(dims.add(self.stretches, -1), 1)
        return finish(e, "parts", self.slots.slots, blocks_for(dims.mul(several, self.batch, self.m, self.n)))

    def grid(self, m: int, n: int) -> tuple[Size, Size, Size]:
        """Tiles are along x, which alone may be more than 65,535."""
        parts = dims.minimum(dims.mul(self.batch, self.stretches), MOST_BATCH)
        return dims.mul(ceil_div(self.m, m), ceil_div(self.n, n)), parts, 1

    def begin_tile(self, m: int, n: int) -> None:
        """Where this block's tile of m x n begins."""
        down, along = self.size(ceil_div(self.m, m)), self.size(ceil_div(self.n, n))
        row, column = tile_at(self.e, block_index(self.e), down, along)
        self.row, self.column = times(self.e, row, str(m)), times(self.e, column, str(n))

    def over_parts(self, one: Callable[[], None]) -> None:
        """`one()` for each product of the batch and each part of k, which is [self.k_first, self.k_last)."""
        e = self.e
        stretches = self.size(self.stretches)

        def part(number: str, _: list[str]) -> None:
            self.part, z, s = number, number, "0"
            if self.stretches != 1:
                z, s = e.value(f"udiv i64 {number}, {stretches}"), e.value(f"urem i64 {number}, {stretches}")
            self.enter(z)
            self.k_first, self.k_last = "0", self.size(self.k)
            if self.stretches != 1:
                self.k_first = times(e, s, self.size(self.stretch))
                end = plus(e, self.k_first, self.size(self.stretch))
                self.k_last = at_most(e, end, self.k_last)
            one()

        e.loop(block_index(e, "y"), times(e, self.size(self.batch), stretches), grid_size(e, "y"), part)

    def kernel(self) -> GpuKernel:
        e = self.e
        tile = self.tile = tile_for(self.m, self.n)
        assert tile.m * tile.k % tile.threads == 0 and tile.n * tile.k % tile.threads == 0
        self.begin_product()
        self.shared = e.call("ptr", "tcc.shared")
        self.a_row, self.b_row = tile.m + 4, tile.n + 4  # a step of k: the pad spreads the banks
        self.member = thread(e)
        across = tile.n // tile.columns
        ty = e.value(f"udiv i64 {self.member}, {across}")
        tx = e.value(f"urem i64 {self.member}, {across}")
        self.own_row = times(e, ty, str(tile.rows))
        # a thread's columns are runs of 16 bytes, those of neighbours beside each other: no two of them meet in a bank
        self.run = min(tile.columns, 16 // self.cell.bytes)
        first, apart = times(e, tx, str(self.run)), self.run * across
        self.own_columns = [plus(e, first, str(c * apart)) for c in range(tile.columns // self.run)]
        self.begin_tile(tile.m, tile.n)
        resident = self.resident if tile is LARGE and self.dtype == "f32" else 1
        if resident == 1:  # half of the registers have no room for what else that takes
            self.begin_results(self.run)
        self.over_parts(self.one)
        e.end()
        grid, bytes = self.grid(tile.m, tile.n), 2 * self.slice_bytes
        return finish(e, self.op.name, self.slots.slots, grid, tile.threads, bytes, resident=resident)

    @property
    def slice_bytes(self) -> int:
        return self.tile.k * (self.a_row + self.b_row) * self.cell.bytes

    def more_sizes(self) -> Sequence[Size]:
        return ()

    def one(self) -> None:
        """A slice is fetched to registers while the one before is multiplied; two take turns in shared memory."""
        e, tile = self.e, self.tile
        count = tile.rows * tile.columns
        zero = self.t.const(0)
        self.prepare_runs()
        barrier(e)  # of the product before

        def first() -> None:
            self.put(self.fetch_both(self.k_first), self.shared)

        e.when(e.value(f"icmp slt i64 {self.k_first}, {self.k_last}"), first)
        barrier(e)

        def step(k0: str, carried: list[str]) -> list[str]:
            *totals, turn = carried
            fetched = self.fetch_both(plus(e, k0, str(tile.k)))
            base = e.gep(self.shared, turn)

            def some(first: str, totals: list[str]) -> list[str]:
                for kk in range(tile.round):
                    totals = self.multiply(base, plus(e, first, str(kk)), totals)
                return totals

            totals = e.loop(0, tile.k, tile.round, some, [(self.t, x) for x in totals])
            other = e.value(f"sub i64 {self.slice_bytes}, {turn}")
            self.put(fetched, e.gep(self.shared, other))
            barrier(e)
            return [*totals, other]

        carried: list[tuple[VecType | str, str]] = [(self.t, zero)] * count + [("i64", "0")]
        totals = e.loop(self.k_first, self.k_last, tile.k, step, carried)[:-1]
        self.write(totals)

    # -- slices ------------------------------------------------------------------------------------------------------

    def prepare_runs(self) -> None:
        """Finds out which operands can be read in runs of 16 bytes."""
        e = self.e
        self.aligned = ["false", "false"]
        for operand, find in enumerate((self.a_at, self.b_at)):
            if not self.dense[operand]:
                continue
            at = find("0", "0")[0]
            t = self.types[operand]
            pitch = t.strides[-2] if t.strides[-1] == 1 else t.strides[-1]
            joined = times(e, self.size(pitch), str(self.cell.bytes))
            joined = e.value(f"or i64 {joined}, {e.value(f'ptrtoint ptr {at} to i64')}")
            self.aligned[operand] = e.value(f"icmp eq i64 {e.value(f'and i64 {joined}, 15')}, 0")

    def fetch_both(self, k0: str) -> list[tuple[int, str, str, list[str]]]:
        tile = self.tile
        a = self.fetch(0, tile.m, self.row, self.size(self.m), k0, self.a_along_k, self.a_at)
        return a + self.fetch(
            1, tile.n, self.column, self.size(self.n), k0, self.b_along_k, lambda j, k: self.b_at(k, j)
        )

    def fetch(
        self,
        operand: int,
        lines: int,
        first: str,
        bound: str,
        k0: str,
        along_k: bool,
        at: Callable[[str, str], tuple[str, str]],
    ) -> list[tuple[int, str, str, list[str]]]:
        """This thread's share of a slice: (operand, line in the tile, k in the slice, a run of values), 0 where there is nothing."""
        e, tile = self.e, self.tile
        each = lines * tile.k // tile.threads
        run = min(16 // self.cell.bytes, each) if self.dense[operand] else 1
        found = []
        for share in range(each // run):
            number = plus(e, self.member, str(share * tile.threads))
            pieces = (tile.k if along_k else lines) // run
            slow, fast = e.value(f"udiv i64 {number}, {pieces}"), e.value(f"urem i64 {number}, {pieces}")
            fast = times(e, fast, str(run))
            line, along = (slow, fast) if along_k else (fast, slow)
            i, k = plus(e, first, line), plus(e, k0, along)

            def one(j: int, i: str = i, k: str = k) -> str:
                line, along = (i, plus(e, k, str(j))) if along_k else (plus(e, i, str(j)), k)
                return self.element(operand, line, bound, along, at)

            if run == 1:
                values = [one(0)]
            else:
                ends = [(i, 0 if along_k else run, bound), (k, run if along_k else 0, self.k_last)]
                whole = self.aligned[operand]
                for start, more, end in ends:
                    last = plus(e, start, str(more - 1 if more else 0))
                    whole = e.value(f"and i1 {whole}, {e.value(f'icmp slt i64 {last}, {end}')}")
                values = self.run_of(run, whole, at(i, k)[0], one)
            found.append((operand, line, along, values))
        return found

    def run_of(self, run: int, whole: str, pointer: str, one: Callable[[int], str]) -> list[str]:
        """Neighbours in one access where that may be, else one by one."""
        e, t = self.e, VecType(self.cell.elem, run)
        quick, single, after = e.label(), e.label(), e.label()
        e.branch_if(whole, quick, single)
        e.at(quick)
        fast = e.value(f"load {t}, ptr {pointer}, align {run * t.bytes}")
        e.branch(after)
        e.at(single)
        slow = "poison"
        for j in range(run):
            slow = e.value(f"insertelement {t} {slow}, {t.elem} {one(j)}, i64 {j}")
        last = e.current
        e.branch(after)
        e.at(after)
        joined = e.value(f"phi {t} [{fast}, %{quick}], [{slow}, %{last}]")
        return [e.value(f"extractelement {t} {joined}, i64 {j}") for j in range(run)]

    def element(
        self, operand: int, i: str, bound: str, k: str, at: Callable[[str, str], tuple[str, str]]
    ) -> str:
        """As the sums are; 0 where there is none."""
        e, dtype = self.e, self.types[operand].dtype

        def load(pointer: str, mask: str | None) -> str:
            value = scalar.load(e, LANE, dtype, 1, pointer, mask)
            if dtype in (self.sum_dtype, *HALVES):  # which are float32 once they are loaded
                return value
            return scalar.emit_scalar(
                e, LANE, "cast(a)", {"a": (dtype, value)}, lanes=1, result=self.sum_dtype
            )

        in_line, in_k = e.value(f"icmp slt i64 {i}, {bound}"), e.value(f"icmp slt i64 {k}, {self.k_last}")
        inside = e.value(f"and i1 {in_line}, {in_k}")
        # an element that surely exists stands for those that do not
        i = e.value(f"select i1 {in_line if self.divides else inside}, i64 {i}, i64 0")
        k = e.value(f"select i1 {in_k if self.divides else inside}, i64 {k}, i64 0")
        pointer, exists = at(i, k)
        if exists:  # if none does, there is nothing at the address
            inside = e.value(f"and i1 {inside}, {exists}")
            return load(pointer, inside)
        if self.divides:
            pointer = e.value(f"select i1 {inside}, ptr {pointer}, ptr {at('0', '0')[0]}")
        value = load(pointer, None)
        return e.value(f"select i1 {inside}, {self.t} {value}, {self.t} {self.t.const(0)}")

    def put(self, fetched: list[tuple[int, str, str, list[str]]], base: str) -> None:
        """Lays what was fetched down with k outermost."""
        e = self.e
        for operand, line, along, values in fetched:
            row = self.b_row if operand else self.a_row
            area = e.gep(base, self.tile.k * self.a_row if operand else 0, self.cell.elem)
            along_k = self.b_along_k if operand else self.a_along_k
            place = e.gep(area, plus(e, times(e, along, str(row)), line), self.cell.elem)
            if len(values) > 1 and not along_k:
                t = VecType(self.cell.elem, len(values))
                whole = "poison"
                for j, value in enumerate(values):
                    whole = e.value(f"insertelement {t} {whole}, {t.elem} {value}, i64 {j}")
                e.line(f"store {t} {whole}, ptr {place}, align {t.bytes * t.lanes}")
                continue
            for j, value in enumerate(values):
                scalar.store(e, LANE, self.sum_dtype, 1, value, e.gep(place, j * row, self.cell.elem), None)

    def multiply(self, base: str, kk: str, totals: list[str]) -> list[str]:
        e, tile = self.e, self.tile
        b_base = e.gep(base, tile.k * self.a_row, self.cell.elem)
        a = self.from_shared(base, plus(e, times(e, kk, str(self.a_row)), self.own_row), tile.rows)
        step = times(e, kk, str(self.b_row))
        b = [x for own in self.own_columns for x in self.from_shared(b_base, plus(e, step, own), self.run)]
        made: list[str] = []
        for r, x in enumerate(a):
            for c, y in enumerate(b):
                made.append(self.multiply_add(x, y, totals[r * tile.columns + c]))
        return made

    def from_shared(self, base: str, offset: str, count: int) -> list[str]:
        e = self.e
        start = e.gep(base, offset, self.cell.elem)
        if self.cell.elem not in ("float", "double"):
            return [
                scalar.load(e, LANE, self.sum_dtype, 1, e.gep(start, i, self.cell.elem), None)
                for i in range(count)
            ]
        each = min(count, 16 // self.cell.bytes)
        values: list[str] = []
        for i in range(0, count, each):
            t = VecType(self.cell.elem, each)
            got = e.value(f"load {t}, ptr {e.gep(start, i, self.cell.elem)}, align {each * t.bytes}")
            values += [e.value(f"extractelement {t} {got}, i64 {j}") for j in range(each)]
        return values

    def multiply_add(self, x: str, y: str, total: str) -> str:
        e, t = self.e, self.t
        if t.is_float:
            return e.call(t, f"llvm.fma.{t.suffix}", (t, x), (t, y), (t, total))
        operands = {n: (self.sum_dtype, v) for n, v in zip("abc", (x, y, total))}
        body = "(a & b) | c" if self.dtype == "bool" else "a * b + c"
        return scalar.emit_scalar(e, LANE, body, operands, lanes=1, result=self.sum_dtype)

    def write(self, totals: list[str]) -> None:
        e, tile = self.e, self.tile
        for r in range(tile.rows):
            i = plus(e, plus(e, self.row, self.own_row), str(r))
            for c, own in zip(range(0, tile.columns, self.run), self.own_columns):
                start = r * tile.columns + c
                self.finish_run(i, plus(e, self.column, own), totals[start : start + self.run])


class Matmul(Product):
    resident = 2

    def __init__(self, op: Op) -> None:
        super().__init__(op)
        a, b, c = self.types[0], self.types[1], self.types[-1]
        self.m, self.n, self.k = c.shape[-2], c.shape[-1], a.shape[-1]
        self.batch = dims.product(list(c.shape[:-2]))
        self.a_along_k = a.strides[-1] == 1 or a.strides[-2] != 1
        self.b_along_k = b.strides[-1] != 1
        self.dense = [t.dtype in ("f32", "f64") and 1 in t.strides[-2:] for t in (a, b)]

    def enter(self, z: str) -> None:
        self.z = self.unravel(z, self.types[-1].shape[:-2])

    def a_at(self, i: str, k: str) -> tuple[str, str]:
        return self.address(0, [*self.z, i, k]), ""

    def b_at(self, k: str, j: str) -> tuple[str, str]:
        return self.address(1, [*self.z, k, j]), ""

    def place(self, i: str, j: str) -> list[str]:
        return [*self.z, i, j]

    def result_steps(self) -> list[Size] | None:
        t = self.types[-1]
        return [s for s, n in zip(t.strides[:-1], t.shape) if n != 1] if t.strides[-1] == 1 else None
