"""Products by a GPU's matrix instructions (mma.sync): float16 and bfloat16, added up in float32; bytes, added up in int32;
float64; and float32 rounded to tf32, where that is asked for.

A block makes a tile of the result, each warp a part of it.  Slices of the operands are copied to shared memory in pieces of 16
bytes along the axis along which the operand is dense, by asynchronous copies where the pieces are whole and aligned, while
the slices before are multiplied.  `ldmatrix` gives lanes their halves or bytes, and turns what lies the other way round, of bytes
two lines at a time; words of 32 and 64 bits are loaded one by one, from rows padded so that no two lanes meet in a bank.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tcc.codegen.emit import Emit, VecType
from tcc.codegen.gpu.chips import SHARED, WARP
from tcc.codegen.gpu.convolutions import Conv, ConvFilter, ConvInput
from tcc.codegen.gpu.kernel import GpuKernel, barrier, finish, thread
from tcc.codegen.gpu.ops import MMA64, WORDS, mma_result
from tcc.codegen.gpu.products import Matmul, Product
from tcc.codegen.index import plus, times
from tcc.ir.core import Op
from tcc.ir.dims import Size

LEAST_SM = 80
MOST_SHARED = 96 << 10  # bytes, which every chip from LEAST_SM on has


@dataclass(frozen=True)
class Kind:
    """An instruction: D[m, 8] = A[m, k] B[k, 8] + C of a warp, on elements of some bytes."""

    name: str
    bytes: int
    m: int
    k: int
    depth: int  # of a slice along k
    pads: tuple[int, int]  # of rows along k, and of rows along lines, in elements

    @property
    def piece(self) -> int:
        """Elements of 16 bytes."""
        return 16 // self.bytes


KINDS = {
    "bf16": Kind("bf16", 2, 16, 16, 32, (8, 8)),
    "f16": Kind("f16", 2, 16, 16, 32, (8, 8)),
    "f32": Kind("tf32", 4, 16, 8, 32, (4, 8)),
    "f64": Kind("f64", 8, 8, 4, 16, (4, 4)),
    "i8": Kind("s8.s8", 1, 16, 32, 64, (16, 16)),
    "u8": Kind("u8.s8", 1, 16, 32, 64, (16, 16)),
}  # by the dtype of the first operand


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


def shape_for(m: Size, n: Size, kind: Kind) -> Shape:
    big = isinstance(m, int) and isinstance(n, int) and m * n >= 1 << 21 and min(m, n) >= 128
    return LARGE if big and kind.bytes < 8 else SMALL


class Area:
    """Where the slices of one operand lie in shared memory: lines along the dense axis, padded so that banks differ."""

    def __init__(self, along_k: bool, lines: int, kind: Kind) -> None:
        self.along_k, self.kind = along_k, kind
        self.count, self.length = (lines, kind.depth) if along_k else (kind.depth, lines)
        self.pitch = self.length + kind.pads[0 if along_k else 1]
        self.two_lines = (
            kind.bytes == 1 and not along_k
        )  # whether a matrix of 16-bit words has two lines in each

    def slot(self, e: Emit, line: str) -> str:
        """Where a line lies: of bytes by k, numbers 0, 1, 4, 5, ... of sixteen before 2, 3, 6, 7, ..., so that a matrix's
        lanes have four neighbours along k from two matrices whose rows lie in all banks."""
        if not self.two_lines:
            return line
        far = e.value(f"shl i64 {e.value(f'and i64 {line}, 2')}, 2")
        near = e.value(f"lshr i64 {e.value(f'and i64 {line}, 12')}, 1")
        return e.value(f"or i64 {e.value(f'and i64 {line}, -15')}, {e.value(f'or i64 {far}, {near}')}")

    @property
    def bytes(self) -> int:
        return self.kind.bytes * self.count * self.pitch


def multiplies(op: Op, sm: int, tf32: bool) -> bool:
    """Whether matrix instructions make a placed product or convolution; `tf32` allows those that round float32."""
    dtype = op.operands[0].type.dtype
    asked = tf32 if dtype == "f32" else op.name == "matmul_widening" if dtype in ("i8", "u8") else True
    return sm >= LEAST_SM and dtype in KINDS and asked


def matrix_kernels(op: Op) -> list[GpuKernel]:
    """A placed product or convolution of a dtype that there are instructions for."""
    return {"conv": _Conv, "conv_input": _ConvInput, "conv_filter": _ConvFilter}.get(op.name, _Matmul)(
        op
    ).kernels()


def whole_kernel(op: Op) -> GpuKernel:
    """A placed `matmul` by one kernel, k not cut."""

    class Whole(_Matmul):
        stretches = 1

    return Whole(op).kernel()


class Matrices(Product):
    """How a product is made; what it multiplies, another class says."""

    def __init__(self, op: Op) -> None:
        super().__init__(op)
        self.kind = KINDS[self.types[0].dtype]
        self.shape = shape_for(self.m, self.n, self.kind)
        self.a_area = Area(self.a_along_k, self.shape.m, self.kind)
        self.b_area = Area(self.b_along_k, self.shape.n, self.kind)
        self.stage_bytes = self.a_area.bytes + self.b_area.bytes
        room = MOST_SHARED if self.shape is LARGE else SHARED
        self.stages = max(2, min(4 if self.shape is LARGE else 3, room // self.stage_bytes))
        self.total = str(self.t)

    def kernel(self) -> GpuKernel:
        e, shape = self.e, self.shape
        self.begin_product()
        self.shared = e.call("ptr", "tcc.shared")
        self.member = thread(e)
        self.lane = e.value(f"and i64 {self.member}, {WARP - 1}")
        warp = e.value(f"lshr i64 {self.member}, 5")
        self.begin_tile(shape.m, shape.n)
        self.run = 4 if self.b_area.two_lines else 2  # neighbours of a row that a lane has
        self.begin_results(self.run)
        rows, columns = shape.m // shape.warps_m, shape.n // shape.warps_n
        self.fragments = rows // self.kind.m, columns // 8
        self.each = self.kind.m * 8 // WARP  # numbers of a fragment that a lane has
        self.warp_row = times(e, e.value(f"udiv i64 {warp}, {shape.warps_n}"), str(rows))
        self.warp_column = times(e, e.value(f"urem i64 {warp}, {shape.warps_n}"), str(columns))
        self.over_parts(self.one)
        e.end()
        bytes = self.stages * self.stage_bytes
        return finish(e, "matrices", self.slots.slots, self.grid(shape.m, shape.n), shape.threads, bytes)

    def one(self) -> None:
        e, ahead, depth = self.e, self.stages - 1, self.kind.depth
        length = e.value(f"sub i64 {self.k_last}, {self.k_first}")
        slices = e.value(f"sdiv i64 {plus(e, length, str(depth - 1))}, {depth}")
        barrier(e)  # of the product before
        for s in range(ahead):
            self.copy_slice(str(s), str(s), slices)
        count = self.fragments[0] * self.fragments[1] * self.each
        t = VecType(self.total)

        def step(s: str, totals: list[str]) -> list[str]:
            e.call("void", f"tcc.copies_left_{ahead - 1}")
            barrier(e)  # the slice is there for all, and the one before it is done with
            following = plus(e, s, str(ahead))
            self.copy_slice(following, e.value(f"urem i64 {following}, {self.stages}"), slices)
            base = self.stage(e.value(f"urem i64 {s}, {self.stages}"))
            for k0 in range(0, depth, self.kind.k):
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
            base, k0 = self.stage(stage), plus(e, self.k_first, times(e, s, str(self.kind.depth)))
            self.copy_operand(0, self.a_area, base, self.row, k0)
            self.copy_operand(1, self.b_area, e.gep(base, self.a_area.bytes), self.column, k0)

        e.when(e.value(f"icmp slt i64 {s}, {slices}"), copy)
        e.call("void", "tcc.copies_begun")

    def copy_operand(self, operand: int, area: Area, base: str, first: str, k0: str) -> None:
        e, piece = self.e, self.kind.piece
        pieces = area.length // piece
        bound = self.size(self.n if operand else self.m)
        k, unit = self.k_last, f"i{8 * self.kind.bytes}"
        assert area.count * pieces % self.shape.threads == 0
        for share in range(area.count * pieces // self.shape.threads):
            number = plus(e, self.member, str(share * self.shape.threads))
            line, which = e.value(f"udiv i64 {number}, {pieces}"), e.value(f"urem i64 {number}, {pieces}")
            start = times(e, which, str(piece))
            at = plus(e, times(e, area.slot(e, line), str(area.pitch)), start)
            target = e.gep(base, at, unit)
            if area.along_k:
                self.copy_piece(operand, area, target, plus(e, first, line), bound, plus(e, k0, start), k)
            else:
                self.copy_piece(operand, area, target, plus(e, k0, line), k, plus(e, first, start), bound)

    def copy_piece(
        self, operand: int, area: Area, target: str, line: str, lines: str, start: str, length: str
    ) -> None:
        """16 bytes of a line from `start` on, 0 where there are none."""
        e, piece = self.e, self.kind.piece
        there = e.value(f"icmp slt i64 {line}, {lines}")
        whole = e.value(f"icmp sle i64 {plus(e, start, str(piece))}, {length}")

        def address(place: str) -> tuple[str, str]:
            i, k = (line, place) if area.along_k else (place, line)
            return self.a_at(i, k) if operand == 0 else self.b_at(k, i)

        if not self.pieces_lie_dense(operand):
            self.gather_piece(target, line, lines, start, length, address)
            return
        source, _ = address(start)
        number = e.value(f"ptrtoint ptr {source} to i64")
        aligned = e.value(f"icmp eq i64 {e.value(f'and i64 {number}, 15')}, 0")
        quick = e.value(f"and i1 {there}, {e.value(f'and i1 {whole}, {aligned}')}")
        copied, single, after = e.label(), e.label(), e.label()
        e.branch_if(quick, copied, single)
        e.at(copied)
        e.call("void", "tcc.copy_async", ("ptr", target), ("ptr", source))
        e.branch(after)
        e.at(single)
        self.gather_piece(target, line, lines, start, length, address)
        e.branch(after)
        e.at(after)

    def pieces_lie_dense(self, operand: int) -> bool:
        return False

    def gather_piece(
        self,
        target: str,
        line: str,
        lines: str,
        start: str,
        length: str,
        address: Callable[[str], tuple[str, str]],
    ) -> None:
        """One by one."""
        e, piece, bits = self.e, self.kind.piece, 8 * self.kind.bytes
        t = VecType(f"i{bits}", piece)
        there = e.value(f"icmp slt i64 {line}, {lines}")
        gathered = "poison"
        for lane in range(piece):
            place = plus(e, start, str(lane))
            inside = e.value(f"and i1 {there}, {e.value(f'icmp slt i64 {place}, {length}')}")
            pointer, exists = address(place)
            if exists:
                inside = e.value(f"and i1 {inside}, {exists}")
            before, inner, joined = e.current, e.label(), e.label()
            e.branch_if(inside, inner, joined)
            e.at(inner)
            value = e.value(f"load i{bits}, ptr {pointer}, align {bits // 8}")
            e.branch(joined)
            e.at(joined)
            one = e.value(f"phi i{bits} [0, %{before}], [{value}, %{inner}]")
            gathered = e.value(f"insertelement {t} {gathered}, i{bits} {one}, i64 {lane}")
        e.line(f"store {t} {gathered}, ptr {target}, align 16")

    # -- products ----------------------------------------------------------------------------------------------------

    def matrices(self, area: Area, base: str, first: str, k0: int, rows_first: bool) -> list[str]:
        """Four matrices of 16 lines and 32 bytes of k, from a line on: for A lines change first, for B k does.

        Those that have two lines in each word give the even lines first, then the odd ones.
        """
        e, lane, piece = self.e, self.lane, self.kind.piece
        if area.two_lines:
            at = plus(e, times(e, plus(e, lane, str(k0)), str(area.pitch)), first)
            words = self.load_matrices("ldmatrix_trans", e.gep(base, at))
            found = [self.bytes_of(words[half], words[half + 1], line) for half in (0, 2) for line in (0, 1)]
            return found if rows_first else [found[0], found[2], found[1], found[3]]
        low = e.value(f"and i64 {lane}, 7")
        second, third = (e.value(f"and i64 {e.value(f'lshr i64 {lane}, {b}')}, 1") for b in (3, 4))
        by_line, by_k = (second, third) if rows_first else (third, second)
        i, k = times(e, by_line, "8"), plus(e, times(e, by_k, str(piece)), str(k0))
        if area.along_k:
            line, along, name = plus(e, plus(e, first, i), low), k, "ldmatrix"
        else:
            line, along, name = plus(e, k, low), plus(e, first, i), "ldmatrix_trans"
        at = plus(e, times(e, line, str(area.pitch)), along)
        return self.load_matrices(name, e.gep(base, at, f"i{8 * self.kind.bytes}"))

    def load_matrices(self, name: str, pointer: str) -> list[str]:
        words = self.e.call(WORDS, f"tcc.{name}", ("ptr", pointer))
        return [self.e.value(f"extractvalue {WORDS} {words}, {n}") for n in range(4)]

    def bytes_of(self, first: str, second: str, line: int) -> str:
        """Four of k of one of two lines, whose bytes take turns in two words."""
        e, t = self.e, "<4 x i8>"
        x, y = (e.value(f"bitcast i32 {w} to {t}") for w in (first, second))
        places = ", ".join(f"i32 {n}" for n in range(line, 8, 2))
        chosen = e.value(f"shufflevector {t} {x}, {t} {y}, <4 x i32> <{places}>")
        return e.value(f"bitcast {t} {chosen} to i32")

    def words(self, area: Area, base: str, first: str, k0: int, lines: int) -> list[str]:
        """This lane's elements of some lines (8 or 16) and a fragment's k: lines change first."""
        e, unit = self.e, self.total
        line = plus(e, first, e.value(f"lshr i64 {self.lane}, 2"))
        k = plus(e, e.value(f"and i64 {self.lane}, 3"), str(k0))
        found = []
        for more_k in range(0, self.kind.k, 4):
            for more in range(0, lines, 8):
                i, along = plus(e, line, str(more)), plus(e, k, str(more_k))
                slow, fast = (i, along) if area.along_k else (along, i)
                at = e.gep(base, plus(e, times(e, slow, str(area.pitch)), fast), unit)
                value = e.value(f"load {unit}, ptr {at}, align {self.kind.bytes}")
                found.append(e.call("i32", "tcc.to_tf32", ("float", value)) if unit == "float" else value)
        return found

    def multiply_slice(self, base: str, k0: int, totals: list[str]) -> list[str]:
        e, kind = self.e, self.kind
        rows, columns = self.fragments
        b_base = e.gep(base, self.a_area.bytes)
        a: list[list[str]] = []
        for r in range(rows):
            at = plus(e, self.warp_row, str(kind.m * r))
            a.append(
                self.matrices(self.a_area, base, at, k0, True)
                if kind.bytes <= 2
                else self.words(self.a_area, base, at, k0, kind.m)
            )
        b: list[list[str]] = []
        for c in range(0, columns, 2):
            at = plus(e, self.warp_column, str(8 * c))
            if kind.bytes <= 2:
                words = self.matrices(self.b_area, b_base, at, k0, False)
                b += [words[:2], words[2:]]
            else:
                b += [self.words(self.b_area, b_base, plus(e, at, str(x)), k0, 8) for x in (0, 8)]
        made: list[str] = []
        word, result = ("double", MMA64) if kind.bytes == 8 else ("i32", mma_result(self.total))
        for r in range(rows):
            for c in range(columns):
                mine = self.each * (r * columns + c)
                given = [(word, w) for w in [*a[r], *b[c]]]
                given += [(self.total, x) for x in totals[mine : mine + self.each]]
                d = e.call(result, f"tcc.mma.{kind.name}", *given)
                made += [e.value(f"extractvalue {result} {d}, {n}") for n in range(self.each)]
        return made

    def write_fragments(self, totals: list[str]) -> None:
        e = self.e
        columns = self.fragments[1]
        a_two, b_two = self.a_area.two_lines, self.b_area.two_lines
        quad = times(e, e.value(f"lshr i64 {self.lane}, 2"), "2" if a_two else "1")
        pair = times(e, e.value(f"and i64 {self.lane}, 3"), "4" if b_two else "2")
        top = plus(e, plus(e, self.row, self.warp_row), quad)
        left = plus(e, plus(e, self.column, self.warp_column), pair)
        found: dict[tuple[int, int], str] = {}
        for number, total in enumerate(totals):
            fragment, n = divmod(number, self.each)
            r, c = divmod(fragment, columns)
            down = self.kind.m * r + (n // 2 if a_two else 8 * (n // 2))
            along = 16 * (c // 2) + 2 * (n % 2) + c % 2 if b_two else 8 * c + n % 2
            found[down, along] = total
        for down, along in sorted(found):
            if along % self.run == 0:
                own = [found[down, along + c] for c in range(self.run)]
                self.finish_run(plus(e, top, str(down)), plus(e, left, str(along)), own)


class _Matmul(Matrices, Matmul):
    def pieces_lie_dense(self, operand: int) -> bool:
        along_k = self.b_along_k if operand else self.a_along_k
        return self.types[operand].strides[-1 if along_k == (operand == 0) else -2] == 1


class _Conv(Matrices, Conv):
    def pieces_lie_dense(self, operand: int) -> bool:
        return self.in_images(self.x, self.kind.piece) if operand else self.whole_filters


class _ConvInput(Matrices, ConvInput):
    def pieces_lie_dense(self, operand: int) -> bool:
        return self.in_images(self.y, self.kind.piece) if operand else self.pointwise and self.whole_filters


class _ConvFilter(Matrices, ConvFilter):
    def pieces_lie_dense(self, operand: int) -> bool:
        piece = self.kind.piece
        return self.in_images(self.x, piece) if operand else self.lie_apart(self.y, piece)
