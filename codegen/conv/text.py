"""What the kernels of convolution and its gradients share: the padded image, register tiles, records, copies."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

from tcc.codegen.emit import Emit, VecType, constant_mask, declaration
from tcc.codegen.index import Index
from tcc.codegen.kernel import Kernel, Operand, Runtime, Scratch, Slots, finish
from tcc.codegen.nest import PARALLEL_WORK
from tcc.codegen.products.engines import vector
from tcc.codegen.target import Target
from tcc.codegen.vectors import LINE, each_vector, fetch, lane_mask, load, pieces, splat, store, store_first
from tcc.ir.core import Op
from tcc.ir.dims import Size, add, floordiv, maximum, minimum, mul
from tcc.ir.types import Type, dense_strides
from tcc.runtime import layout as at

Number = int | str
FIELDS = ("args", "first", "table", "pack", "count", "part", "chunk", "padded", "fresh")
_ALIGN = 64
PAGE = 4096
STRAIGHT = 8  # vectors that are moved one by one in the text
ROUND_ROOM = 4  # times a round's bytes, or images, that are padded at a time for all threads
MOST_ROWS = 14  # of a register tile, but for those of one vector
TILE_END = 40  # cycles of a tile beside its steps, and three more for each of its vectors


def step_cycles(target: Target, products: int, loads: float) -> float:
    """Of a register tile: so many multiply-adds of vectors, with what they load."""
    both = math.sqrt(math.hypot((products / target.multiply_adds) ** 2, (loads / 2) ** 2))
    return max(both, 4.0) + 0.5


def best_tile(
    t: VecType,
    target: Target,
    rows: Size,
    columns: Size,
    depth: Size,
    aligned: bool = False,
    whole: int = 0,
    ends: bool = False,
    lines: tuple[Size, Size] = (-1, 0),
    taps: int = 1,
) -> tuple[float, int, int]:
    """(cycles, rows, vectors) with the register tile that takes the least time for a product of rows x columns and `depth` steps.

    Each step is a load and splat for each row, a load for each vector, which crosses a cache line if not aligned, and a
    multiply-add for each of both; two loads fit a cycle, and a chain goes on after four.  What there is about as much of as
    of the other keeps it waiting.  `whole` rows are not cut.  Where there are
    `ends`, columns left over have a tile of fewer vectors.
    With `taps`, each row's element meets the vectors of so many steps, with an accumulator for each.
    The vectors of all steps lie in `lines`: (how many, by how many elements each is longer than a tile is wide), or apart.
    Where they do not stay in the first-level cache for the next rows, each line of it takes a cycle of the loads' time.
    """
    registers = 32 if target.avx512 else 16
    m = rows if isinstance(rows, int) else 1 << 10
    n = columns if isinstance(columns, int) else 1 << 16
    k = depth if isinstance(depth, int) else 1 << 10
    count, longer = (x if isinstance(x, int) else -1 for x in lines)

    def cycles(h: int, v: int) -> float:
        """Of a tile."""
        apart = k * v * t.lanes
        read, beside = apart * t.bytes, 0
        # taps share them, and find them again if the rows' panel leaves them there
        if min(count, longer) >= 0:
            read, beside = min(read, count * (v * t.lanes + longer) * t.bytes), k * h * t.bytes
        far = read / (max(k, 1) * LINE) if read + beside > target.l1_bytes else 0
        loads = h + v * (1 if aligned else 2) + 2 * far
        return k * step_cycles(target, h * v * taps, loads) + TILE_END + 3 * h * v

    best: tuple[float, int, int] | None = None
    for v in range(1, 9):
        blocks, rest = divmod(n, v * t.lanes)
        for h in range(
            1, min((registers - 1) // (v * taps) - 1, 28 if v == 1 and aligned else MOST_ROWS) + 1
        ):
            if whole and h != whole:
                continue
            end = cycles(h, -(-rest // t.lanes) if ends else v) if rest else 0.0
            cost = -(-m // h) * (blocks * cycles(h, v) + end)
            if best is None or cost < best[0]:
                best = cost, h, v
    assert best is not None
    return best


def round_bytes(target: Target) -> int:
    """Of padded images at a time: half of the second-level cache, where tiles find them again."""
    return target.l2_bytes // 2


def needed_mask(lanes: Sequence[bool]) -> str | None:
    """None where all lanes are."""
    return None if all(lanes) else constant_mask(lanes)


class ConvText:
    """A kernel being written: an entry, and bodies that get a record of addresses through `tcc_parallel`."""

    def __init__(self, op: Op, target: Target) -> None:
        self.op, self.target = op, target
        self.e, self.slots = Emit(), Slots()
        self.helpers: dict[str, str] = {}
        last = len(op.operands) - 1
        self.types: list[Type] = [op.operands[i].type for i in (0, 1, last)]
        self.order = (0, 1, 2)  # which of the operands and the result each of the types is
        self.t = vector(self.types[0].dtype, target)
        self.total: Size = 0
        for i in (0, 1, last):
            self.slots.index(Operand(i))
        self.slots.slots.append(Scratch(0))
        self.strides, self.dilation = (self.three(op.attrs[k], 1) for k in ("strides", "dilation"))

    def three(self, values: Sequence[Any], fill: int) -> list[Any]:
        """Of three spatial axes, where those that are not there come first."""
        return [*[fill] * (3 - len(values)), *values]

    def pads(self) -> list[Size]:
        """Before the first element, along each axis."""
        return self.three(self.op.attrs["pads"][::2], 0)

    def one_tap(self, filters: Type, *images: Type) -> bool:
        """Whether the one tap of a filter meets each pixel, which of known sizes follow one another in the `images`."""
        sizes = [*filters.shape, *(s for t in images for s in t.shape[1:]), *self.op.attrs["pads"]]
        if not all(isinstance(s, int) for s in sizes) or any(self.op.attrs["pads"]):
            return False
        dense = all(t.strides[2:] == dense_strides(t.shape[2:]) for t in images)
        return dense and {*filters.shape[2:], *self.strides} == {1}

    # -- memory --------------------------------------------------------------------------------------------------

    def reserve(self, bytes: Size) -> Size:
        """An offset in the call's scratch."""
        offset = self.total
        self.total = add(self.total, mul(floordiv(add(bytes, _ALIGN - 1), _ALIGN), _ALIGN))
        return offset

    def lay_out(self, axes: Sequence[Any], channels: Size, slack: Size) -> None:
        """Sizes of the padded image in elements; `slack` zeros follow it."""
        self.channels, self.slack = channels, slack
        self.plane: Size = mul(*(a.pitch for a in axes))
        self.channel: Size = mul(self.plane, *(a.phases for a in axes))
        self.copied = self.channel  # of an image
        self.image: Size = add(mul(channels, self.channel), slack)

    def fitting(self, images: Size, elements: Size, most: int) -> Size:
        """As many of the images, which take so many elements of scratch, as fit `most` bytes, but at least one."""
        return maximum(minimum(images, floordiv(most, maximum(mul(elements, self.t.bytes), 1))), 1)

    def image_number(self, x: Index, first: Number, i: Number) -> Number:
        """Which image is the i-th of a round."""
        return x.add(first, i)

    def merge_images(self, images: Size) -> Size:
        """How many are laid out as one, plane by plane, and read together: their pixels follow one another."""
        count = self.fitting(images, mul(self.channels, self.channel), round_bytes(self.target))
        self.image, self.plane, self.channel = self.plane, mul(self.plane, count), mul(self.channel, count)
        self.padded = self.reserve(mul(add(mul(self.channels, self.channel), self.slack), self.t.bytes))
        return count

    def scratch(self, offset: Size) -> str:
        base = self._head("load ptr, ptr {}", 3)
        return self.e.gep(base, self.size(offset))

    def thread_scratch(self) -> str:
        e = self.e
        base = e.value(f"load ptr, ptr {e.gep('%ctx', at.CTX_SCRATCH, 'i64')}")
        each = e.value(f"load i64, ptr {e.gep('%ctx', at.CTX_SCRATCH_BYTES, 'i64')}")
        return e.gep(base, e.value(f"mul i64 %thread, {each}"))

    # -- functions -----------------------------------------------------------------------------------------------

    def _begin(self, signature: str) -> Emit:
        self.e.function(signature)
        self._heads: dict[str, str] = {}
        self._slot = len(self.e.lines)
        self.e.lines.append("")
        return self.e

    def begin_body(self, name: str) -> Emit:
        """`name(ctx, record, begin, end, thread)`."""
        e = self._begin(
            f"internal void @KERNEL_NAME.{name}(ptr %ctx, ptr %rec, i64 %begin, i64 %end, i64 %thread)"
        )
        e.lines[self._slot] = "  %args = load ptr, ptr %rec"
        return e

    def begin_function(self, name: str, *params: str) -> Emit:
        """A function of the kernel's %args and more."""
        return self._begin(f"internal void @KERNEL_NAME.{name}(ptr %args, {', '.join(params)})")

    def begin_kernel(self) -> Emit:
        e = self._begin("i32 @KERNEL_NAME(ptr %ctx, ptr %args)")
        e.quick()
        self.record = e.value(f"alloca [{len(FIELDS)} x i64]")
        e.line(f"store ptr %args, ptr {self.record}")
        # where the tiles are worth two threads these are awake, so that copies are soon worth them too, and every thread
        # finds in its caches what it copied
        x = Index(e)
        work = self.size(floordiv(self.op.defn.flops(self.op), 2))
        self.share = x.pick(x.less(work, 16 * PARALLEL_WORK), 4 * PARALLEL_WORK, PARALLEL_WORK // 4)
        return e

    def _head(self, text: str, slot: int) -> str:
        """A load from a slot of %args, where the function begins."""
        key = text + str(slot)
        if key not in self._heads:
            place, name = self.e.fresh(), self.e.fresh()
            self.e.lines[self._slot] += (
                f"\n  {place} = getelementptr i64, ptr %args, i64 {slot}\n  {name} = {text.format(place)}"
            )
            self._heads[key] = name
        return self._heads[key]

    def size(self, size: Size) -> Number:
        if isinstance(size, int):
            return size
        return self._head("load i64, ptr {}", self.slots.index(Runtime(size)))

    def pointer(self, operand: int) -> str:
        """Of the first, the second, and the result."""
        return self._head("load ptr, ptr {}", self.order[operand])

    def extra(self, number: int) -> str:
        """The address of what the epilogue reads."""
        return self._head("load ptr, ptr {}", self.slots.index(Operand(2 + number)))

    def put(self, field: str, value: Number) -> None:
        kind = "ptr" if field in ("args", "table", "pack", "padded") else "i64"
        self.e.line(f"store {kind} {value}, ptr {self.e.gep(self.record, FIELDS.index(field), 'i64')}")

    def get(self, field: str, kind: str = "ptr") -> str:
        return self.e.value(f"load {kind}, ptr {self.e.gep('%rec', FIELDS.index(field), 'i64')}")

    def fresh(self) -> str:
        """Whether zeros are to be written around what is copied: later rounds find those of the first."""
        return self.e.value(f"icmp ne i64 {self.get('fresh', 'i64')}, 0")

    def call(self, name: str, *args: tuple[str, Number]) -> None:
        self.call_by(f"@KERNEL_NAME.{name}", *args)

    def helper(self, e: Emit, name: str) -> str:
        """The address of the function `name` that `e` holds, which kernels share."""
        text = "\n".join([*e.declared, e.text()])
        own = f"tcc_helper_{hashlib.sha256(text.encode()).hexdigest()[:20]}"
        self.helpers[own] = text.replace(f"@{name}(", f"@{own}(")
        (head,) = (line for line in self.helpers[own].splitlines() if line.startswith("define "))
        self.e.declare(declaration(head))
        return f"@{own}"

    def call_by(self, address: str, *args: tuple[str, Number]) -> None:
        self.e.line(f"call void {address}({', '.join(f'{k} {a}' for k, a in args)})")

    def parallel(self, body: str, units: Number, cost: Number) -> None:
        """`cost` of a unit in sixteenths of a cycle."""
        x = Index(self.e)
        grain = x.add(x.div(self.share, x.add(cost, 64)), 1)
        self.e.declare("declare void @tcc_parallel(ptr, ptr, ptr, i64, i64)")
        self.e.line(
            f"call void @tcc_parallel(ptr %ctx, ptr @KERNEL_NAME.{body}, ptr {self.record}, i64 {units}, i64 {grain})"
        )

    def finish(self, kind: str, thread_scratch: Size) -> Kernel:
        self.e.end("i32 0")
        self.slots.slots[3] = Scratch(add(self.total, _ALIGN))
        return finish(self.e, tuple(self.slots.slots), kind, thread_scratch, self.helpers)

    def divide(self, x: Index, a: Number, b: Number) -> tuple[Number, Number]:
        """Quotient and rest."""
        q = x.div(a, b)
        return q, x.sub(a, x.mul(q, b))

    # -- parts ---------------------------------------------------------------------------------------------------

    def in_pieces(self, count: Number) -> bool:
        """Whether so many elements are best moved by whole vectors and parts of them, with no loop and no mask: stores with
        masks take long without AVX-512."""
        return not self.target.avx512 and isinstance(count, int) and count <= STRAIGHT * self.t.lanes

    def store_first(self, value: str, pointer: str, count: int) -> None:
        """The first lanes of a vector."""
        e, t = self.e, self.t
        if count == t.lanes or not self.in_pieces(count):
            store(e, t, value, pointer, needed_mask([j < count for j in range(t.lanes)]))
            return
        store_first(e, t, [value], [pointer], count)

    def zero(self, dst: str, count: Number) -> None:
        e, t = self.e, self.t

        def vector(i: str, mask: str | None, _: list[str]) -> list[str]:
            store(e, t, "zeroinitializer", e.gep(dst, i, t.elem), mask)
            return []

        each_vector(e, t, self.target, str(count), vector)

    def fetch(self, place: str, bytes: int) -> None:
        """Lines that will be read soon, a page of them at most.  A fetch of what is not there does nothing."""
        for byte in range(0, min(bytes, PAGE), LINE):
            fetch(self.e, self.e.gep(place, byte), 0)

    def copy(self, src: str, dst: str, count: Number, step: Number = 1, src_step: Number = 1) -> None:
        """`count` elements, which are `step` apart in dst."""
        e, t = self.e, self.t
        if step == 1 and src_step == 1 and self.in_pieces(count):
            for first, lanes in pieces(t, int(count)):
                some = VecType(t.elem, lanes)
                store(e, some, load(e, some, e.gep(src, first, t.elem)), e.gep(dst, first, t.elem))
            return
        if step == 1 and src_step == 1:

            def vector(i: str, mask: str | None, _: list[str]) -> list[str]:
                store(e, t, load(e, t, e.gep(src, i, t.elem), mask), e.gep(dst, i, t.elem), mask)
                return []

            each_vector(e, t, self.target, str(count), vector)
            return
        if src_step == 1 and isinstance(step, int) and step <= 4 and self.target.avx512:
            self._space_out(src, dst, count, step)
            return

        def element(_: str, v: list[str]) -> list[str]:
            value = e.value(f"load {t.elem}, ptr {v[0]}, align {t.bytes}")
            e.line(f"store {t.elem} {value}, ptr {v[1]}, align {t.bytes}")
            return [e.gep(v[0], src_step, t.elem), e.gep(v[1], step, t.elem)]

        e.loop(0, count, 1, element, [("ptr", src), ("ptr", dst)])

    def _space_out(self, src: str, dst: str, count: Number, step: int) -> None:
        """`count` elements to every `step`-th of dst, by whole vectors with masks."""
        e, t = self.e, self.t
        x = Index(e)

        def vector(i: str, mask: str | None, _: list[str]) -> list[str]:
            value = load(e, t, e.gep(src, i, t.elem), mask)
            places, to = x.mul(x.sub(count, i), step), e.gep(dst, x.mul(i, step), t.elem)
            for first in range(0, step * t.lanes, t.lanes):
                lanes = ", ".join(f"i32 {(first + j) // step}" for j in range(t.lanes))
                part = e.value(f"shufflevector {t} {value}, {t} poison, <{t.lanes} x i32> <{lanes}>")
                some = needed_mask([(first + j) % step == 0 for j in range(t.lanes)])
                there = lane_mask(e, t, str(x.max(x.sub(places, first), 0)))
                store(e, t, part, e.gep(to, first, t.elem), e.value(f"and {t.of('i1')} {there}, {some}"))
            return []

        each_vector(e, t, self.target, str(count), vector)

    def resumed(self, places: Sequence[int]) -> list[str]:
        """The vectors at these elements of %c, or zeros where %resume is 0."""
        e, t = self.e, self.t
        resume, start, entry = e.label(), e.label(), e.current
        e.branch_if(e.value("icmp ne i64 %resume, 0"), resume, start)
        e.at(resume)
        old = [load(e, t, e.gep("%c", place, t.elem)) for place in places]
        e.branch(start)
        e.at(start)
        return [e.value(f"phi {t} [zeroinitializer, %{entry}], [{p}, %{resume}]") for p in old]

    def multiply(self, rows: Sequence[str], vectors: Sequence[str], acc: list[str]) -> list[str]:
        """One step of a register tile: each row's element times each vector, added to its accumulator."""
        e, t = self.e, self.t
        done = []
        for i, p in enumerate(rows):
            a = splat(e, t, e.value(f"load {t.elem}, ptr {p}, align {t.bytes}"))
            for j, b in enumerate(vectors):
                done.append(e.call(t, f"llvm.fma.{t.suffix}", (t, a), (t, b), (t, acc[i * len(vectors) + j])))
        return done

    def write_plain_pad(self, source: int, axes: Sequence[Any]) -> None:
        """Body over (image, channel): the channel's elements where the phases of the strides have them, among zeros, which
        are written first if there are none yet."""
        e = self.begin_body("pad")
        x, t = Index(e), self.t
        kind = self.types[source]
        padded, channels, first = (
            self.get("padded"),
            self.size(self.channels),
            self.get("first", "i64"),
        )
        image, channel, slack = (self.size(s) for s in (self.image, self.channel, self.slack))
        space = [self.size(s) for s in self.three(kind.shape[2:], 1)]
        steps = [self.size(s) for s in self.three(kind.strides[2:], 0)]
        sn, sc = self.size(kind.strides[0]), self.size(kind.strides[1])
        los = [self.size(a.lo) for a in axes]
        pitch = [self.size(a.pitch) for a in axes]
        plane, from_ = self.size(self.plane), self.pointer(source)
        fresh = self.fresh()
        # the hardware's own streams end at the page that is read
        ahead = x.mul(sc, max(1, PAGE // max(sc * t.bytes, 1)) if isinstance(sc, int) else 1)

        def unit(u: str, _: list[str]) -> None:
            i, c = self.divide(x, u, channels)
            place = e.gep(padded, x.add(x.mul(i, image), x.mul(c, channel)), t.elem)
            read = e.gep(from_, x.add(x.mul(self.image_number(x, first, i), sn), x.mul(c, sc)), t.elem)
            fill = x.add(channel, x.pick(x.equal(x.add(c, 1), channels), slack, 0))
            # lines of several phases are near then when parts of rows go to them
            if any(a.phases > 1 for a in axes):
                self.zero(place, fill)
            else:
                e.when(fresh, lambda: self.zero(place, fill))

            def lines(axis: int, read: str, phase: Number, at: Number) -> None:
                if axis == 2:
                    self._pad_row(
                        x, axes[2], read, place, phase, at, space[2], steps[2], los[2], pitch[2], plane
                    )
                    return

                def line(k: str, _: list[str]) -> None:
                    z, rest = self.divide(x, x.add(k, los[axis]), axes[axis].phases)
                    row = e.gep(read, x.mul(k, steps[axis]), t.elem)
                    if axis == 1 and steps[2] == 1 and isinstance(space[2], int):
                        self.fetch(e.gep(row, ahead, t.elem), space[2] * t.bytes)
                    lines(
                        axis + 1,
                        row,
                        x.add(x.mul(phase, axes[axis].phases), rest),
                        x.add(x.mul(at, pitch[axis]), z),
                    )

                e.loop(0, space[axis], 1, line)

            lines(0, read, 0, 0)

        e.loop("%begin", "%end", 1, unit)
        e.end()

    def _pad_row(
        self,
        x: Index,
        axis: Any,
        read: str,
        place: str,
        phase: Number,
        at: Number,
        count: Number,
        step: Number,
        lo: Number,
        pitch: Number,
        plane: Number,
    ) -> None:
        e, t, s = self.e, self.t, axis.phases

        def row(number: Number, z: Number) -> str:
            """Where position z of a phase of this row stands."""
            plane_at = x.mul(x.add(x.mul(phase, s), number), plane)
            return e.gep(place, x.add(plane_at, x.add(x.mul(at, pitch), z)), t.elem)

        if s == 1:
            self.copy(read, row(0, lo), count, 1, step)
            return
        heads = []
        for k in range(s):
            z, number = self.divide(x, x.add(lo, k), s)
            heads.append(row(number, z))
        done: Number = 0
        if step == 1 and s <= 4 and self.target.avx512:
            self._split_row(x, s, read, heads, count)
            return
        if step == 1 and s <= 4:  # whole vectors of each phase at once
            many = VecType(t.elem, t.lanes * s)
            done = x.mul(x.div(count, many.lanes), many.lanes)

            def split(i: str, p: list[str]) -> list[str]:
                whole = e.value(f"load {many}, ptr {e.gep(read, i, t.elem)}, align {t.bytes}")
                for k in range(s):
                    lanes = ", ".join(f"i32 {k + s * j}" for j in range(t.lanes))
                    part = e.value(
                        f"shufflevector {many} {whole}, {many} poison, <{t.lanes} x i32> <{lanes}>"
                    )
                    store(e, t, part, p[k])
                return [e.gep(q, t.lanes, t.elem) for q in p]

            heads = e.loop(0, done, many.lanes, split, [("ptr", q) for q in heads])
        for k in range(s):
            left = x.div(x.add(x.max(x.sub(x.sub(count, done), k), 0), s - 1), s)
            start = e.gep(read, x.mul(x.add(done, k), step), t.elem)
            self.copy(start, heads[k], left, 1, x.mul(step, s) if s > 1 else step)

    def _split_row(self, x: Index, s: int, read: str, heads: Sequence[str], count: Number) -> None:
        """Every s-th of `count` elements to each of the s heads, by whole vectors with masks."""
        e, t = self.e, self.t
        many = VecType(t.elem, t.lanes * s)

        def split(i: str, p: list[str]) -> list[str]:
            left = x.sub(count, i)
            whole = load(e, many, e.gep(read, i, t.elem), lane_mask(e, many, str(left)))
            for k in range(s):
                lanes = ", ".join(f"i32 {k + s * j}" for j in range(t.lanes))
                part = e.value(f"shufflevector {many} {whole}, {many} poison, <{t.lanes} x i32> <{lanes}>")
                some = x.div(x.add(x.max(x.sub(left, k), 0), s - 1), s)
                store(e, t, part, p[k], lane_mask(e, t, str(some)))
            return [e.gep(q, t.lanes, t.elem) for q in p]

        e.loop(0, count, many.lanes, split, [("ptr", q) for q in heads])
