"""Scatter on a GPU.  No element has two writers, and points come in their order, so sums are the CPU's to the last bit.

Of few points each warp has some of the target's places and 32 neighbouring elements of each: it looks at all indices, 32 at a time,
and takes those that are its own.  Many are sorted first, by place and then by number; a warp takes the run of one place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tcc.codegen import scalar
from tcc.codegen.emit import VecType
from tcc.codegen.gpu.chips import LANE, WARP
from tcc.codegen.gpu.indexing import Indexed, unless_empty
from tcc.codegen.gpu.kernel import (
    BLOCK,
    GpuKernel,
    block_index,
    blocks_for,
    ceil_div,
    finish,
    grid_size,
    thread,
)
from tcc.codegen.gpu.sorting import Records
from tcc.codegen.index import plus, times
from tcc.ir import dims
from tcc.ir.core import Op
from tcc.ir.dims import Size
from tcc.ir.types import Type, bits_dtype

OWNERS = 1 << 12  # warps among which a target is divided
MANY = 1 << 12  # points that are sorted
WORD = 1 << 32
AHEAD = 4  # values that are read before they are added


def scatter_kernels(op: Op) -> list[GpuKernel]:
    """x[indices at axes] = v, or += v, in place; where points are equal, in their order."""
    kernels, first = list[GpuKernel](), _Sorted(op)
    if first.launched != 1:
        kernels.append(_Scatter(op).kernel(dims.add(1, dims.mul(-1, first.launched))))
    if first.launched != 0:
        merges = [_Sorted(op).merge_kernel(p) for p in range(first.passes)]
        kernels += [first.tile_kernel(), *merges, _Sorted(op).runs_kernel()]
    return kernels


class _Scatter(Indexed):
    def __init__(self, op: Op) -> None:
        super().__init__(op, LANE)
        self.axes = [int(a) for a in op.attrs["axes"]]
        self.out = len(self.types) - 1
        self.t: Type = self.types[self.out]
        self.rest = [a for a in range(self.t.rank) if a not in self.axes]
        self.points = self.types[2].shape
        self.rest_shape = [self.t.shape[a] for a in self.rest]
        self.strips = ceil_div(dims.product(self.rest_shape), WARP)
        targets = dims.product([self.t.shape[a] for a in self.axes])
        share = dims.maximum(dims.floordiv(OWNERS, dims.maximum(self.strips, 1)), 1)
        self.owners: Size = dims.maximum(dims.minimum(targets, share), 1)

    def kernel(self, launched: Size) -> GpuKernel:
        """One that is launched if `launched` is not 0."""
        e = self.e
        self.begin("void @KERNEL_NAME(ptr %args)", [self.strips, self.owners])
        member = thread(e)
        self.lane = e.value(f"and i64 {member}, {WARP - 1}")
        each = BLOCK // WARP
        warp = e.value(f"add i64 {times(e, block_index(e), str(each))}, {e.value(f'lshr i64 {member}, 5')}")
        items = times(e, self.size(self.owners), self.size(self.strips))
        step = times(e, grid_size(e), str(each))
        e.loop(warp, items, step, lambda item, _: self.item(item))
        e.end()
        grid = blocks_for(dims.mul(launched, self.owners, self.strips, WARP))
        return finish(e, "scatter", self.slots.slots, grid)

    def item(self, item: str) -> None:
        """The elements of one strip at the points of one owner."""
        e = self.e
        strips = self.size(self.strips)
        owner = e.value(f"udiv i64 {item}, {strips}")
        live, inner = self.elements(e.value(f"urem i64 {item}, {strips}"))
        count = self.count_points()

        def some(start: str, _: list[str]) -> None:
            point = plus(e, start, self.lane)
            there = e.value(f"icmp slt i64 {point}, {count}")
            point = e.value(f"select i1 {there}, i64 {point}, i64 0")
            target = self.target_of(self.unravel(point, self.points))
            mine = e.value(f"icmp eq i64 {e.value(f'urem i64 {target}, {self.size(self.owners)}')}, {owner}")
            found = e.call("i32", "tcc.ballot", ("i1", e.value(f"and i1 {there}, {mine}")))
            low = e.value(f"trunc i64 {target} to i32")
            high = e.value(f"trunc i64 {e.value(f'lshr i64 {target}, 32')} to i32")
            hits = e.value(f"zext i32 {e.call('i32', 'llvm.ctpop.i32', ('i32', found))} to i64")

            def hit(_: str, left: list[str]) -> list[str]:
                at = e.call("i32", "llvm.cttz.i32", ("i32", left[0]), ("i1", "false"))
                lower = e.call("i32", "tcc.shuffle_from", ("i32", low), ("i32", at))
                upper = e.call("i32", "tcc.shuffle_from", ("i32", high), ("i32", at))
                whole = e.value(f"shl i64 {e.value(f'zext i32 {upper} to i64')}, 32")
                whole = e.value(f"or i64 {whole}, {e.value(f'zext i32 {lower} to i64')}")
                p = plus(e, start, e.value(f"zext i32 {at} to i64"))
                e.when(live, lambda: self.write(whole, p, inner))
                less = e.value(f"sub i32 {left[0]}, 1")
                return [e.value(f"and i32 {left[0]}, {less}")]

            e.loop(0, hits, 1, hit, [("i32", found)])

        e.loop(0, count, WARP, some)

    def elements(self, strip: str) -> tuple[str, list[str]]:
        """Whether this lane has an element of a strip, and its indices."""
        e = self.e
        element = plus(e, times(e, strip, str(WARP)), self.lane)
        live = e.value(f"icmp slt i64 {element}, {self.count(self.rest_shape)}")
        return live, self.unravel(element, self.rest_shape)

    def count_points(self) -> str:
        return unless_empty(self, self.count(self.points), [self.t.shape[a] for a in self.axes])

    def target_of(self, point: Sequence[str]) -> str:
        """The number, in row-major order along the axes, of what a point names."""
        number = "0"
        for k, axis in enumerate(self.axes):
            bound = self.size(self.t.shape[axis])
            number = plus(self.e, times(self.e, number, bound), self.index(2 + k, point, bound))
        return number

    @property
    def adds(self) -> bool:
        return bool(self.op.attrs["mode"] == "add")

    @property
    def dtype(self) -> str:
        return self.t.dtype if self.adds else bits_dtype(self.t.dtype)

    def write(self, target: str, point: str, inner: Sequence[str]) -> None:
        where, value = self.where(target, inner), self.given(point, inner)
        if self.adds:
            value = self.sum(self.loaded(where), value)
        self.keep(value, where)

    def where(self, target: str, inner: Sequence[str]) -> str:
        at = ["0"] * self.t.rank
        for axis, i in zip(self.axes, self.unravel(target, [self.t.shape[a] for a in self.axes])):
            at[axis] = i
        for axis, i in zip(self.rest, inner):
            at[axis] = i
        return self.address(self.out, at)

    def given(self, point: str, inner: Sequence[str]) -> str:
        return self.loaded(self.address(1, [*self.unravel(point, self.points), *inner]))

    def loaded(self, pointer: str) -> str:
        return scalar.load(self.e, LANE, self.dtype, 1, pointer, None)

    def keep(self, value: str, pointer: str) -> None:
        scalar.store(self.e, LANE, self.dtype, 1, value, pointer, None)

    def sum(self, a: str, b: str) -> str:
        operands = {"a": (self.dtype, a), "b": (self.dtype, b)}
        body = scalar.sum_body(self.dtype)
        return scalar.emit_scalar(self.e, LANE, body, operands, lanes=1, result=self.dtype)


class _Sorted(_Scatter, Records):
    """Records are a place's number, then the point's: 32 bits each."""

    def __init__(self, op: Op) -> None:
        super().__init__(op)
        self.kept, self.width = [], 64
        self.length = dims.product(list(self.points))
        self.lay_out()

    @property
    def launched(self) -> Size:
        targets = dims.product([self.t.shape[a] for a in self.axes])
        made = dims.minimum(dims.floordiv(self.length, MANY), 1)
        for size in (targets, self.length):
            too_large = dims.minimum(dims.floordiv(size, WORD - 1), 1)
            made = dims.mul(made, dims.add(1, dims.mul(-1, too_large)))
        return made

    @property
    def in_memory(self) -> Size:
        return self.launched

    def more_sizes(self) -> Sequence[Size]:
        return [self.strips]

    def line(self, places: Sequence[str]) -> str:
        return ""

    def line_length(self) -> str:
        return self.count_points()

    def record_of(self, source: str, index: str) -> str:
        place = self.target_of(self.unravel(index, self.points))
        return self.e.value(f"or i64 {self.e.value(f'shl i64 {place}, 32')}, {index}")

    def runs_kernel(self) -> GpuKernel:
        """A warp for each record and 32 elements; it has work if the record begins a run of one place, or ends it where the
        last point is what stays."""
        e = self.e
        self.begin_sort()
        member, each = thread(e), BLOCK // WARP
        self.lane = e.value(f"and i64 {member}, {WARP - 1}")
        self.count_runs, self.records = self.count_points(), self.sorted_area()
        warp = plus(e, times(e, block_index(e), str(each)), e.value(f"lshr i64 {member}, 5"))
        strips, step = self.size(self.strips), times(e, grid_size(e), str(each))

        def item(number: str, _: list[str]) -> None:
            s, strip = e.value(f"udiv i64 {number}, {strips}"), e.value(f"urem i64 {number}, {strips}")
            place = e.value(f"lshr i64 {self.record(s)}, 32")
            beside = plus(e, s, "-1" if self.adds else "1")
            there = e.value(f"icmp ult i64 {beside}, {self.count_runs}")  # before the first is far above
            other = e.value(
                f"lshr i64 {self.record(e.value(f'select i1 {there}, i64 {beside}, i64 {s}'))}, 32"
            )
            alone = e.value(
                f"or i1 {e.value(f'xor i1 {there}, true')}, {e.value(f'icmp ne i64 {place}, {other}')}"
            )
            e.when(alone, lambda: (self.add_run if self.adds else self.put_last)(s, place, strip))

        e.loop(warp, times(e, self.count_runs, strips), step, item)
        e.end()
        grid = blocks_for(dims.mul(self.launched, self.length, self.strips, WARP))
        return finish(e, "runs", self.slots.slots, grid)

    def record(self, s: str) -> str:
        return self.read_record(self.record_at(self.records, s))

    def put_last(self, s: str, place: str, strip: str) -> None:
        e = self.e
        live, inner = self.elements(strip)
        point = e.value(f"and i64 {self.record(s)}, {WORD - 1}")
        e.when(live, lambda: self.write(place, point, inner))

    def add_run(self, s: str, place: str, strip: str) -> None:
        """A lane's element, to which those of the run's points are added, 32 records at a time; some values are read ahead of their sums."""
        e, t = self.e, VecType(scalar.elem(self.dtype))
        live, inner = self.elements(strip)
        start = self.if_live(live, lambda: self.loaded(self.where(place, inner)), t)
        before, head, after = e.current, e.label(), e.label()
        e.branch(head)
        e.at(head)
        first, total, slot = e.fresh("s"), e.fresh("t"), len(e.lines)
        e.lines.append("")
        at = plus(e, first, self.lane)
        there = e.value(f"icmp slt i64 {at}, {self.count_runs}")
        record = self.record(e.value(f"select i1 {there}, i64 {at}, i64 {s}"))
        same = e.value(f"icmp eq i64 {e.value(f'lshr i64 {record}, 32')}, {place}")
        found = e.call("i32", "tcc.ballot", ("i1", e.value(f"and i1 {there}, {same}")))
        others = e.value(f"xor i32 {found}, -1")
        ones = e.call("i32", "llvm.cttz.i32", ("i32", others), ("i1", "false"))  # 32 if all are
        count = e.value(f"zext i32 {ones} to i64")
        point = e.value(f"trunc i64 {record} to i32")

        def some(j: str, sums: list[str]) -> list[str]:
            numbers = []
            for n in range(AHEAD):
                lane = e.value(f"trunc i64 {plus(e, j, str(n))} to i32")
                p = e.call("i32", "tcc.shuffle_from", ("i32", point), ("i32", lane))
                numbers.append(e.value(f"zext i32 {p} to i64"))
            total = sums[0]

            def add() -> str:
                made = total
                inside = [e.value(f"icmp slt i64 {plus(e, j, str(n))}, {count}") for n in range(AHEAD)]
                known = [
                    e.value(f"select i1 {i}, i64 {p}, i64 {numbers[0]}") for i, p in zip(inside, numbers)
                ]
                values = [self.given(p, inner) for p in known]
                for i, value in zip(inside, values):
                    more = self.sum(made, value)
                    made = e.value(f"select i1 {i}, {t} {more}, {t} {made}")
                return made

            return [self.if_live(live, add, t)]

        (sum,) = e.loop(0, count, AHEAD, some, [(t, total)])
        following = plus(e, first, str(WARP))
        e.lines[slot] = (
            f"  {first} = phi i64 [{s}, %{before}], [{following}, %{e.current}]\n"
            f"  {total} = phi {t} [{start}, %{before}], [{sum}, %{e.current}]"
        )
        e.branch_if(e.value(f"icmp eq i32 {ones}, {WARP}"), head, after)
        e.at(after)
        e.when(live, lambda: self.keep(sum, self.where(place, inner)))

    def if_live(self, live: str, make: Callable[[], str], t: VecType) -> str:
        """What `make` gives where a lane has an element."""
        e = self.e
        before, inside, after = e.current, e.label(), e.label()
        e.branch_if(live, inside, after)
        e.at(inside)
        value, last = make(), e.current
        e.branch(after)
        e.at(after)
        return e.value(f"phi {t} [{t.const(0)}, %{before}], [{value}, %{last}]")
