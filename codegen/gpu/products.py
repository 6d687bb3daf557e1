"""Products on a GPU: matrix products, and convolution and its gradients as products whose operands are found by index.

A block makes a tile of the result.  Slices of both operands go through shared memory, where they lie with k outermost, and each thread
adds up a small tile in registers by fused multiply-adds, k in order: the result does not depend on the tile.  Along an
operand's dense axis neighbouring threads read neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tcc.codegen import scalar
from tcc.codegen.emit import VecType
from tcc.codegen.epilogue import emit_block
from tcc.codegen.gather import Places
from tcc.codegen.gpu.chips import LANE
from tcc.codegen.gpu.kernel import GpuKernel, barrier, block_index, finish, grid_size, thread
from tcc.codegen.kernel import plus, times
from tcc.codegen.nest import WIDER
from tcc.ir import dims
from tcc.ir.core import Op, Value
from tcc.ir.dims import Size
from tcc.ir.types import HALVES

MOST_BATCH = 1 << 15  # a grid's z axis


@dataclass(frozen=True)
class Tile:
    """What a block makes (rows x columns), what a thread makes of it, and how much of k goes through shared memory at once."""

    m: int
    n: int
    rows: int
    columns: int
    k: int

    @property
    def threads(self) -> int:
        return (self.m // self.rows) * (self.n // self.columns)


SMALL, LARGE = Tile(32, 32, 4, 2, 16), Tile(128, 128, 8, 8, 8)
MIDDLE = Tile(64, 64, 4, 4, 16)


def tile_for(m: Size, n: Size) -> Tile:
    """A large tile where there are enough of them to go round."""
    if not isinstance(m, int) or not isinstance(n, int):
        return MIDDLE
    if m * n >= 1 << 20 and min(m, n) >= 128:
        return LARGE
    return MIDDLE if m * n > 1 << 14 and min(m, n) > 32 else SMALL


def product_kernels(op: Op) -> list[GpuKernel]:
    """A placed `matmul a, b, *extras, result`."""
    return [Matmul(op).kernel()]


def conv_kernels(op: Op) -> list[GpuKernel]:
    """A placed `conv`, `conv_input` or `conv_filter`."""
    return [{"conv": _Conv, "conv_input": _ConvInput, "conv_filter": _ConvFilter}[op.name](op).kernel()]


class _Product(Places):
    """C[z, i, j] = sum over k of A[z, i, k] B[z, k, j]; the cases say where the elements lie."""

    m: Size
    n: Size
    k: Size
    batch: Size
    a_along_k = True  # whether A is dense along k rather than along its rows
    b_along_k = False

    def __init__(self, op: Op) -> None:
        super().__init__(op, LANE)
        self.dtype = self.types[0].dtype
        # halves are added up in float32
        self.sum_dtype = WIDER[self.dtype] if self.dtype in HALVES else self.dtype
        self.t = VecType(scalar.elem(self.sum_dtype))
        self.cell = VecType(scalar.memory_elem(self.sum_dtype))  # in shared memory
        self.out = len(self.types) - 1

    # -- what the cases say ------------------------------------------------------------------------------------------

    def enter(self, z: str) -> None:
        """The product of number `z` begins."""

    def a_at(self, i: str, k: str) -> tuple[str, str]:
        """The address of A[i, k], and whether there is such an element (an i1, or "" if i and k being in range will do)."""
        raise NotImplementedError

    def b_at(self, k: str, j: str) -> tuple[str, str]:
        raise NotImplementedError

    def place(self, i: str, j: str) -> list[str]:
        """The result's indices of C[i, j]."""
        raise NotImplementedError

    # -- the kernel --------------------------------------------------------------------------------------------------

    def kernel(self) -> GpuKernel:
        e = self.e
        tile = self.tile = tile_for(self.m, self.n)
        assert tile.m * tile.k % tile.threads == 0 and tile.n * tile.k % tile.threads == 0
        self.begin("void @KERNEL_NAME(ptr %args)", [self.m, self.n, self.k, self.batch, *self.more_sizes()])
        self.shared = e.call("ptr", "tcc.shared")
        self.a_row, self.b_row = tile.m + 4, tile.n + 4  # a step of k: the pad spreads the banks
        self.b_shared = e.gep(self.shared, tile.k * self.a_row, self.cell.elem)
        self.member = thread(e)
        across = tile.n // tile.columns
        ty = e.value(f"udiv i64 {self.member}, {across}")
        tx = e.value(f"urem i64 {self.member}, {across}")
        self.own_row, self.own_column = times(e, ty, str(tile.rows)), times(e, tx, str(tile.columns))
        self.row = times(e, block_index(e, "y"), str(tile.m))
        self.column = times(e, block_index(e, "x"), str(tile.n))
        e.loop(block_index(e, "z"), self.size(self.batch), grid_size(e, "z"), lambda z, _: self.one(z))
        e.end()
        bytes = tile.k * (self.a_row + self.b_row) * self.cell.bytes
        grid = (tile_count(self.n, tile.n), tile_count(self.m, tile.m), dims.minimum(self.batch, MOST_BATCH))
        return finish(e, self.op.name, self.slots.slots, grid, tile.threads, bytes)

    def more_sizes(self) -> Sequence[Size]:
        return ()

    def one(self, z: str) -> None:
        e, tile = self.e, self.tile
        self.enter(z)
        count = tile.rows * tile.columns
        zero = self.t.const(0)

        def step(k0: str, totals: list[str]) -> list[str]:
            a = self.fetch(tile.m, self.row, self.size(self.m), k0, self.a_along_k, self.a_at)
            b = self.fetch(
                tile.n, self.column, self.size(self.n), k0, self.b_along_k, lambda j, k: self.b_at(k, j)
            )
            barrier(e)  # all are done with the last slice
            for (at, value), base, row in [
                *((x, self.shared, self.a_row) for x in a),
                *((x, self.b_shared, self.b_row) for x in b),
            ]:
                line, along = at
                place = e.gep(base, plus(e, times(e, along, str(row)), line), self.cell.elem)
                scalar.store(e, LANE, self.sum_dtype, 1, value, place, None)
            barrier(e)
            if tile is LARGE:
                for kk in range(tile.k):
                    totals = self.multiply(str(kk), totals)
                return totals
            return e.loop(0, tile.k, 1, self.multiply, [(self.t, x) for x in totals])

        totals = e.loop(0, self.size(self.k), tile.k, step, [(self.t, zero)] * count)
        self.write(totals)

    def fetch(
        self,
        lines: int,
        first: str,
        bound: str,
        k0: str,
        along_k: bool,
        at: Callable[[str, str], tuple[str, str]],
    ) -> list[tuple[tuple[str, str], str]]:
        """This thread's share of a slice: ((line in the tile, k in the slice), value), 0 where there is nothing."""
        e, tile = self.e, self.tile
        found = []
        for share in range(lines * tile.k // tile.threads):
            number = plus(e, self.member, str(share * tile.threads))
            if along_k:
                line, along = e.value(f"udiv i64 {number}, {tile.k}"), e.value(f"urem i64 {number}, {tile.k}")
            else:
                line, along = e.value(f"urem i64 {number}, {lines}"), e.value(f"udiv i64 {number}, {lines}")
            i, k = plus(e, first, line), plus(e, k0, along)
            inside = e.value(
                f"and i1 {e.value(f'icmp slt i64 {i}, {bound}')}, {e.value(f'icmp slt i64 {k}, {self.size(self.k)}')}"
            )
            # an element that surely exists stands for those that do not
            i = e.value(f"select i1 {inside}, i64 {i}, i64 0")
            k = e.value(f"select i1 {inside}, i64 {k}, i64 0")
            pointer, exists = at(i, k)
            if exists:  # if none does, there is nothing at the address
                inside = e.value(f"and i1 {inside}, {exists}")
                value = scalar.load(e, LANE, self.dtype, 1, pointer, inside)
            else:
                value = scalar.load(e, LANE, self.dtype, 1, pointer, None)
                value = e.value(f"select i1 {inside}, {self.t} {value}, {self.t} {self.t.const(0)}")
            found.append(((line, along), value))
        return found

    def multiply(self, kk: str, totals: list[str]) -> list[str]:
        e, tile = self.e, self.tile
        a = self.from_shared(self.shared, plus(e, times(e, kk, str(self.a_row)), self.own_row), tile.rows)
        b = self.from_shared(
            self.b_shared, plus(e, times(e, kk, str(self.b_row)), self.own_column), tile.columns
        )
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
        operands = {n: (self.dtype, v) for n, v in zip("abc", (x, y, total))}
        body = "(a & b) | c" if self.dtype == "bool" else "a * b + c"
        return scalar.emit_scalar(e, LANE, body, operands, lanes=1, result=self.dtype)

    def write(self, totals: list[str]) -> None:
        e, tile = self.e, self.tile
        for r in range(tile.rows):
            i = plus(e, plus(e, self.row, self.own_row), str(r))
            for c in range(tile.columns):
                j = plus(e, plus(e, self.column, self.own_column), str(c))
                self.finish_inside(i, j, totals[r * tile.columns + c])

    def finish_inside(self, i: str, j: str, total: str) -> None:
        """Writes C[i, j], if there is one."""
        e = self.e
        row, column = (
            e.value(f"icmp slt i64 {x}, {self.size(bound)}") for x, bound in ((i, self.m), (j, self.n))
        )
        e.when(e.value(f"and i1 {row}, {column}"), lambda: self.finished(i, j, total))

    def finished(self, i: str, j: str, total: str) -> None:
        """One element, through the op's block."""
        e, op = self.e, self.op
        at = self.place(i, j)
        if self.dtype in HALVES:
            total = scalar.emit_scalar(e, LANE, "cast(a)", {"a": ("f32", total)}, lanes=1, result=self.dtype)
        if op.attrs.get("accumulate"):
            operands = {"a": (self.dtype, self.load(self.out, at)), "b": (self.dtype, total)}
            body = "a | b" if self.dtype == "bool" else "a + b"
            total = scalar.emit_scalar(e, LANE, body, operands, lanes=1, result=self.dtype)
        if op.blocks:
            env: dict[Value, str] = {op.block.params[0]: total}
            for x, p in enumerate(op.block.params[1:]):
                where = [at[ord(letter) - ord("a")] for letter in op.attrs["maps"][x]]
                shape = self.types[2 + x].shape
                env[p] = self.load(2 + x, ["0" if s == 1 else w for w, s in zip(where, shape, strict=True)])
            total = emit_block(e, LANE, op.block, env, 1)
        self.store(self.out, at, total)


def tile_count(size: Size, by: int) -> Size:
    return dims.floordiv(dims.add(size, by - 1), by)


class Matmul(_Product):
    def __init__(self, op: Op) -> None:
        super().__init__(op)
        a, b, c = self.types[0], self.types[1], self.types[-1]
        self.m, self.n, self.k = c.shape[-2], c.shape[-1], a.shape[-1]
        self.batch = dims.product(list(c.shape[:-2]))
        self.a_along_k = a.strides[-1] == 1 or a.strides[-2] != 1
        self.b_along_k = b.strides[-1] != 1

    def enter(self, z: str) -> None:
        self.z = self.unravel(z, self.types[-1].shape[:-2])

    def a_at(self, i: str, k: str) -> tuple[str, str]:
        return self.address(0, [*self.z, i, k]), ""

    def b_at(self, k: str, j: str) -> tuple[str, str]:
        return self.address(1, [*self.z, k, j]), ""

    def place(self, i: str, j: str) -> list[str]:
        return [*self.z, i, j]


class _Geometry(_Product):
    """What the convolutions share: groups are the batch, and taps meet places of the image."""

    def __init__(self, op: Op) -> None:
        super().__init__(op)
        self.space = self.types[0].rank - 2
        self.groups = int(op.attrs["groups"])
        self.batch = self.groups
        self.x, self.w, self.y = self.roles()
        x, w = self.types[self.x], self.types[self.w]
        self.filters, self.channels = dims.floordiv(w.shape[0], self.groups), w.shape[1]
        self.taps, self.pixels = list(w.shape[2:]), list(self.types[self.y].shape[2:])
        self.images, self.places = x.shape[0], list(x.shape[2:])

    def roles(self) -> tuple[int, int, int]:
        """The numbers of the image, the filters and the convolution's result among the operands."""
        raise NotImplementedError

    def more_sizes(self) -> Sequence[Size]:
        return [
            self.filters,
            self.channels,
            *self.op.attrs["pads"][::2],
            *self.op.attrs["strides"],
            *self.op.attrs["dilation"],
        ]

    def enter(self, z: str) -> None:
        self.z = z

    def split(self, number: str, shape: Sequence[Size]) -> list[str]:
        return self.unravel(number, shape)

    def in_group(self, number: str, each: Size) -> str:
        return plus(self.e, times(self.e, self.z, self.size(each)), number)

    def met(self, pixels: Sequence[str], taps: Sequence[str]) -> tuple[list[str], str]:
        """The place of the image that a tap of a pixel meets, and whether it is inside; 0 if it is not."""
        e, attrs = self.e, self.op.attrs
        found, inside = [], "true"
        for axis, (p, t) in enumerate(zip(pixels, taps)):
            at = plus(
                e,
                times(e, p, self.size(attrs["strides"][axis])),
                times(e, t, self.size(attrs["dilation"][axis])),
            )
            at = e.value(f"sub i64 {at}, {self.size(attrs['pads'][2 * axis])}")
            good = e.value(f"icmp ult i64 {at}, {self.size(self.places[axis])}")
            found.append(e.value(f"select i1 {good}, i64 {at}, i64 0"))
            inside = e.value(f"and i1 {inside}, {good}")
        return found, inside

    def meeting(self, places: Sequence[str], taps: Sequence[str]) -> tuple[list[str], str]:
        """The pixel whose tap meets a place of the image, and whether there is one."""
        e, attrs = self.e, self.op.attrs
        found, inside = [], "true"
        for axis, (s, t) in enumerate(zip(places, taps)):
            step = self.size(attrs["strides"][axis])
            at = e.value(
                f"sub i64 {plus(e, s, self.size(attrs['pads'][2 * axis]))}, {times(e, t, self.size(attrs['dilation'][axis]))}"
            )
            pixel, rest = at, "0"
            if step != "1":
                pixel, rest = e.value(f"sdiv i64 {at}, {step}"), e.value(f"srem i64 {at}, {step}")
            good = e.value(f"icmp sge i64 {at}, 0")
            good = e.value(f"and i1 {good}, {e.value(f'icmp eq i64 {rest}, 0')}")
            good = e.value(
                f"and i1 {good}, {e.value(f'icmp slt i64 {pixel}, {self.size(self.pixels[axis])}')}"
            )
            found.append(e.value(f"select i1 {good}, i64 {pixel}, i64 0"))
            inside = e.value(f"and i1 {inside}, {good}")
        return found, inside


class _Conv(_Geometry):
    """Filters by pixels of all images; k is channels and taps."""

    def roles(self) -> tuple[int, int, int]:
        return 0, 1, self.out

    def __init__(self, op: Op) -> None:
        super().__init__(op)
        self.m, self.n = self.filters, dims.product([self.images, *self.pixels])
        self.k = dims.product([self.channels, *self.taps])

    def a_at(self, i: str, k: str) -> tuple[str, str]:
        return self.address(
            1, [self.in_group(i, self.filters), *self.split(k, [self.channels, *self.taps])]
        ), ""

    def b_at(self, k: str, j: str) -> tuple[str, str]:
        channel, *taps = self.split(k, [self.channels, *self.taps])
        image, *pixels = self.split(j, [self.images, *self.pixels])
        where, inside = self.met(pixels, taps)
        return self.address(0, [image, self.in_group(channel, self.channels), *where]), inside

    def place(self, i: str, j: str) -> list[str]:
        image, *pixels = self.split(j, [self.images, *self.pixels])
        return [image, self.in_group(i, self.filters), *pixels]


class _ConvInput(_Geometry):
    """Channels by places of all images; k is filters and taps."""

    def roles(self) -> tuple[int, int, int]:
        return self.out, 0, 1

    def __init__(self, op: Op) -> None:
        super().__init__(op)
        self.m, self.n = self.channels, dims.product([self.images, *self.places])
        self.k = dims.product([self.filters, *self.taps])
        self.a_along_k = False

    def a_at(self, i: str, k: str) -> tuple[str, str]:
        number, *taps = self.split(k, [self.filters, *self.taps])
        return self.address(0, [self.in_group(number, self.filters), i, *taps]), ""

    def b_at(self, k: str, j: str) -> tuple[str, str]:
        number, *taps = self.split(k, [self.filters, *self.taps])
        image, *places = self.split(j, [self.images, *self.places])
        where, inside = self.meeting(places, taps)
        return self.address(1, [image, self.in_group(number, self.filters), *where]), inside

    def place(self, i: str, j: str) -> list[str]:
        image, *places = self.split(j, [self.images, *self.places])
        return [image, self.in_group(i, self.channels), *places]


class _ConvFilter(_Geometry):
    """Filters by channels and taps; k is pixels of all images."""

    def roles(self) -> tuple[int, int, int]:
        return 0, self.out, 1

    def __init__(self, op: Op) -> None:
        super().__init__(op)
        self.m, self.n = self.filters, dims.product([self.channels, *self.taps])
        self.k = dims.product([self.images, *self.pixels])
        self.b_along_k = True

    def a_at(self, i: str, k: str) -> tuple[str, str]:
        image, *pixels = self.split(k, [self.images, *self.pixels])
        return self.address(1, [image, self.in_group(i, self.filters), *pixels]), ""

    def b_at(self, k: str, j: str) -> tuple[str, str]:
        image, *pixels = self.split(k, [self.images, *self.pixels])
        channel, *taps = self.split(j, [self.channels, *self.taps])
        where, inside = self.met(pixels, taps)
        return self.address(0, [image, self.in_group(channel, self.channels), *where]), inside

    def place(self, i: str, j: str) -> list[str]:
        return [self.in_group(i, self.filters), *self.split(j, [self.channels, *self.taps])]
