"""Products of float16 and bfloat16 by a GPU's matrix instructions (mma.sync), added up in float32.

A block makes a tile of the result, each warp a part of it.  Slices of the operands are copied to shared memory in pieces of 16
bytes along the axis along which the operand is dense, by asynchronous copies where the pieces are whole and aligned, while
the slices before are multiplied; `ldmatrix` turns what lies the other way round.
"""

from __future__ import annotations

from dataclasses import dataclass

from tcc.codegen.emit import VecType
from tcc.codegen.gpu.chips import SHARED, WARP
from tcc.codegen.gpu.kernel import GpuKernel, barrier, block_index, finish, grid_size, thread
from tcc.codegen.gpu.ops import MMA, WORDS
from tcc.codegen.gpu.products import MOST_BATCH, Matmul, tile_count
from tcc.codegen.kernel import plus, times
from tcc.ir import dims
from tcc.ir.core import Op
from tcc.ir.dims import Size

PIECE = 8  # halves of 16 bytes
DEPTH = 32  # of a slice along k
LEAST_SM = 80


@dataclass(frozen=True)
class Shape:
    """What a block makes, and its warps: so many along the rows by so many along the columns."""

    m: int
    n: int
    warps_m: int
    warps_n: int

    @property
    def threads(self) -> int:
        return WARP * self.warps_m * self.warps_n


SMALL, LARGE = Shape(64, 64, 2, 2), Shape(128, 128, 2, 4)


def shape_for(m: Size, n: Size) -> Shape:
    big = isinstance(m, int) and isinstance(n, int) and m * n >= 1 << 21 and min(m, n) >= 128
    return LARGE if big else SMALL


class Area:
    """Where the slices of one operand lie in shared memory: lines along the dense axis, padded so that banks differ."""

    def __init__(self, along_k: bool, lines: int) -> None:
        self.along_k = along_k
        self.count, self.length = (lines, DEPTH) if along_k else (DEPTH, lines)
        self.pitch = self.length + PIECE

    @property
    def bytes(self) -> int:
        return 2 * self.count * self.pitch


def matrix_kernels(op: Op) -> list[GpuKernel]:
    """A placed `matmul` of halves."""
    return [_Matrices(op).kernel()]


class _Matrices(Matmul):
    def __init__(self, op: Op) -> None:
        super().__init__(op)
        self.shape = shape_for(self.m, self.n)
        self.a_area = Area(self.a_along_k, self.shape.m)
        self.b_area = Area(self.b_along_k, self.shape.n)
        each = self.a_area.bytes + self.b_area.bytes
        self.stages = 3 if 3 * each <= SHARED else 2
        self.stage_bytes = each

    def kernel(self) -> GpuKernel:
        e, shape = self.e, self.shape
        self.begin("void @KERNEL_NAME(ptr %args)", [self.m, self.n, self.k, self.batch])
        self.shared = e.call("ptr", "tcc.shared")
        self.member = thread(e)
        self.lane = e.value(f"and i64 {self.member}, {WARP - 1}")
        warp = e.value(f"lshr i64 {self.member}, 5")
        self.row, self.column = (
            times(e, block_index(e, axis), str(size)) for axis, size in (("y", shape.m), ("x", shape.n))
        )
        rows, columns = shape.m // shape.warps_m, shape.n // shape.warps_n
        self.fragments = rows // 16, columns // 8
        self.warp_row = times(e, e.value(f"udiv i64 {warp}, {shape.warps_n}"), str(rows))
        self.warp_column = times(e, e.value(f"urem i64 {warp}, {shape.warps_n}"), str(columns))
        e.loop(block_index(e, "z"), self.size(self.batch), grid_size(e, "z"), lambda z, _: self.one(z))
        e.end()
        grid = (
            tile_count(self.n, shape.n),
            tile_count(self.m, shape.m),
            dims.minimum(self.batch, MOST_BATCH),
        )
        bytes = self.stages * self.stage_bytes
        return finish(e, "matrices", self.slots.slots, grid, shape.threads, bytes)

    def one(self, z: str) -> None:
        e, ahead = self.e, self.stages - 1
        self.enter(z)
        k = self.size(self.k)
        slices = e.value(f"sdiv i64 {plus(e, k, str(DEPTH - 1))}, {DEPTH}")
        barrier(e)  # of the product before
        for s in range(ahead):
            self.copy_slice(str(s), str(s), slices)
        count = self.fragments[0] * self.fragments[1] * 4
        t = VecType("float")

        def step(s: str, totals: list[str]) -> list[str]:
            e.call("void", f"tcc.copies_left_{ahead - 1}")
            barrier(e)  # the slice is there for all, and the one before it is done with
            following = plus(e, s, str(ahead))
            self.copy_slice(following, e.value(f"urem i64 {following}, {self.stages}"), slices)
            base = self.stage(e.value(f"urem i64 {s}, {self.stages}"))
            for k0 in range(0, DEPTH, 16):
                totals = self.multiply_slice(base, k0, totals)
            return totals

        totals = e.loop(0, slices, 1, step, [(t, t.const(0))] * count)
        e.call("void", "tcc.copies_left_0")
        self.write_fragments(totals)

    def stage(self, number: str) -> str:
        return self.e.gep(self.shared, times(self.e, number, str(self.stage_bytes)))

    # -- to shared memory --------------------------------------------------------------------------------------------

    def copy_slice(self, s: str, stage: str, slices: str) -> None:
        """Begins to copy slice `s` of both operands, if there is one."""
        e = self.e

        def copy() -> None:
            base, k0 = self.stage(stage), times(e, s, str(DEPTH))
            self.copy_operand(0, self.a_area, base, self.row, k0)
            self.copy_operand(1, self.b_area, e.gep(base, self.a_area.bytes), self.column, k0)

        e.when(e.value(f"icmp slt i64 {s}, {slices}"), copy)
        e.call("void", "tcc.copies_begun")

    def copy_operand(self, operand: int, area: Area, base: str, first: str, k0: str) -> None:
        e, pieces = self.e, area.length // PIECE
        bound = self.size(self.n if operand else self.m)
        k = self.size(self.k)
        assert area.count * pieces % self.shape.threads == 0
        for share in range(area.count * pieces // self.shape.threads):
            number = plus(e, self.member, str(share * self.shape.threads))
            line, piece = e.value(f"udiv i64 {number}, {pieces}"), e.value(f"urem i64 {number}, {pieces}")
            start = times(e, piece, str(PIECE))
            at = plus(e, times(e, line, str(area.pitch)), start)
            target = e.gep(base, at, "i16")
            if area.along_k:
                self.copy_piece(operand, area, target, plus(e, first, line), bound, plus(e, k0, start), k)
            else:
                self.copy_piece(operand, area, target, plus(e, k0, line), k, plus(e, first, start), bound)

    def copy_piece(
        self, operand: int, area: Area, target: str, line: str, lines: str, start: str, length: str
    ) -> None:
        """Eight elements of a line from `start` on, 0 where there are none."""
        e = self.e
        there = e.value(f"icmp slt i64 {line}, {lines}")
        whole = e.value(f"icmp sle i64 {plus(e, start, str(PIECE))}, {length}")

        def address(place: str) -> str:
            i, k = (line, place) if area.along_k else (place, line)
            return (self.a_at(i, k) if operand == 0 else self.b_at(k, i))[0]

        dense = self.types[operand].strides[-1 if area.along_k == (operand == 0) else -2] == 1
        source = address(start)
        number = e.value(f"ptrtoint ptr {source} to i64")
        aligned = e.value(f"icmp eq i64 {e.value(f'and i64 {number}, 15')}, 0")
        quick = e.value(f"and i1 {there}, {e.value(f'and i1 {whole}, {aligned}')}")
        if not dense:
            quick = "false"
        copied, single, after = e.label(), e.label(), e.label()
        e.branch_if(quick, copied, single)
        e.at(copied)
        e.call("void", "tcc.copy_async", ("ptr", target), ("ptr", source))
        e.branch(after)
        e.at(single)
        t = VecType("i16", PIECE)
        gathered = "poison"
        for lane in range(PIECE):
            place = plus(e, start, str(lane))
            inside = e.value(f"and i1 {there}, {e.value(f'icmp slt i64 {place}, {length}')}")
            before, inner, joined = e.current, e.label(), e.label()
            e.branch_if(inside, inner, joined)
            e.at(inner)
            value = e.value(f"load i16, ptr {address(place)}, align 2")
            last = e.current
            e.branch(joined)
            e.at(joined)
            one = e.value(f"phi i16 [0, %{before}], [{value}, %{last}]")
            gathered = e.value(f"insertelement {t} {gathered}, i16 {one}, i64 {lane}")
        e.line(f"store {t} {gathered}, ptr {target}, align 16")
        e.branch(after)
        e.at(after)

    # -- products ----------------------------------------------------------------------------------------------------

    def matrices(self, area: Area, base: str, first: str, k0: int, rows_first: bool) -> list[str]:
        """Four 8 x 8 matrices of 16 lines and 16 of k, from a line on: for A lines change first, for B k does."""
        e, lane = self.e, self.lane
        low = e.value(f"and i64 {lane}, 7")
        second, third = (e.value(f"and i64 {e.value(f'lshr i64 {lane}, {b}')}, 1") for b in (3, 4))
        by_line, by_k = (second, third) if rows_first else (third, second)
        i, k = times(e, by_line, "8"), plus(e, times(e, by_k, "8"), str(k0))
        if area.along_k:
            line, along, name = plus(e, plus(e, first, i), low), k, "ldmatrix"
        else:
            line, along, name = plus(e, k, low), plus(e, first, i), "ldmatrix_trans"
        pointer = e.gep(base, plus(e, times(e, line, str(area.pitch)), along), "i16")
        words = e.call(WORDS, f"tcc.{name}", ("ptr", pointer))
        return [e.value(f"extractvalue {WORDS} {words}, {n}") for n in range(4)]

    def multiply_slice(self, base: str, k0: int, totals: list[str]) -> list[str]:
        e = self.e
        rows, columns = self.fragments
        b_base = e.gep(base, self.a_area.bytes)
        a = [
            self.matrices(self.a_area, base, plus(e, self.warp_row, str(16 * r)), k0, True)
            for r in range(rows)
        ]
        b: list[list[str]] = []
        for c in range(0, columns, 2):
            words = self.matrices(self.b_area, b_base, plus(e, self.warp_column, str(8 * c)), k0, False)
            b += [words[:2], words[2:]]
        made: list[str] = []
        for r in range(rows):
            for c in range(columns):
                at = 4 * (r * columns + c)
                given = [("i32", w) for w in [*a[r], *b[c]]] + [("float", x) for x in totals[at : at + 4]]
                d = e.call(MMA, f"tcc.mma.{self.dtype}", *given)
                made += [e.value(f"extractvalue {MMA} {d}, {n}") for n in range(4)]
        return made

    def write_fragments(self, totals: list[str]) -> None:
        e = self.e
        rows, columns = self.fragments
        quad = e.value(f"lshr i64 {self.lane}, 2")
        pair = times(e, e.value(f"and i64 {self.lane}, 3"), "2")
        top = plus(e, plus(e, self.row, self.warp_row), quad)
        left = plus(e, plus(e, self.column, self.warp_column), pair)
        for number, total in enumerate(totals):
            fragment, n = divmod(number, 4)
            r, c = divmod(fragment, columns)
            assert r < rows
            self.finish_inside(
                plus(e, top, str(16 * r + 8 * (n // 2))), plus(e, left, str(8 * c + n % 2)), total
            )
