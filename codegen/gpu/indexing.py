"""Gather, scatter and the check of indices on a GPU.

A gather is a map of its result.  In a scatter no element has two writers, and points come in their order, so sums are the CPU's to the
last bit.  Of few points each warp has some of the target's places and 32 neighbouring elements of each: it looks at all indices, 32 at a
time, and takes those that are its own.  Many are sorted first, by place and then by number; a warp takes the run of one place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tcc.codegen import scalar
from tcc.codegen.emit import Emit, VecType
from tcc.codegen.gather import Places
from tcc.codegen.gpu.chips import LANE, WARP
from tcc.codegen.gpu.kernel import (
    BLOCK,
    GpuKernel,
    Status,
    block_index,
    blocks_for,
    ceil_div,
    finish,
    global_thread,
    grid_size,
    thread,
)
from tcc.codegen.gpu.maps import WIDE
from tcc.codegen.gpu.sorting import Records
from tcc.codegen.kernel import OpId, plus, times
from tcc.codegen.nest import Vectors
from tcc.ir import dims
from tcc.ir.core import Op
from tcc.ir.dims import Size
from tcc.ir.types import Type, bits_dtype, itemsize
from tcc.runtime.launch import STATUS_WORDS

OWNERS = 1 << 12  # warps among which a target is divided
MANY = 1 << 12  # points that are sorted
WORD = 1 << 32
AHEAD = 4  # values that are read before they are added
LAST = (1 << 63) - 1


def clamped(e: Emit, index: str, bound: str) -> str:
    """The nearest index that is within."""
    last = e.value(f"sub i64 {bound}, 1")
    low = e.call("i64", "llvm.smin.i64", ("i64", index), ("i64", last))
    return e.call("i64", "llvm.smax.i64", ("i64", low), ("i64", "0"))


def unless_empty(w: Vectors | Places, count: str, bounds: Sequence[Size]) -> str:
    """A count, but 0 if no index can be within."""
    for size in bounds:
        if isinstance(size, int) and size:
            continue
        none = w.e.value(f"icmp eq i64 {w.size(size)}, 0")
        count = w.e.value(f"select i1 {none}, i64 0, i64 {count}")
    return count


class Indexed(Places):
    """Places that are found by index.  An index that is not within, which a check has noted, counts as the nearest that is."""

    def index(self, i: int, at: Sequence[str], bound: str) -> str:
        return clamped(self.e, super().index(i, at, bound), bound)


def gather_kernels(op: Op) -> list[GpuKernel]:
    """result[i.., r..] = x[indices at axes, r elsewhere], in runs of 16 bytes where both lie dense along the last axis."""
    w = Indexed(op, LANE)
    e = w.e
    axes = [int(a) for a in op.attrs["axes"]]
    x, index, out = w.types[0], w.types[1], w.types[-1]
    dtype = bits_dtype(x.dtype)
    elem = VecType(scalar.memory_elem(dtype))
    run = WIDE // elem.bytes if _gathers_runs(op, axes) else 1
    w.begin("void @KERNEL_NAME(ptr %args)")
    first, step = global_thread(e, BLOCK)

    def places(at: Sequence[str]) -> tuple[str, str]:
        rest = iter(at[index.rank :])
        source = [
            w.index(1 + axes.index(a), at[: index.rank], w.size(s)) if a in axes else next(rest)
            for a, s in enumerate(x.shape)
        ]
        return w.address(0, source), w.address(len(w.types) - 1, at)

    def copy(source: str, target: str, lanes: int) -> None:
        t = VecType(elem.elem, lanes)
        value = e.value(f"load {t}, ptr {source}, align {t.bytes * lanes}")
        e.line(f"store {t} {value}, ptr {target}, align {t.bytes * lanes}")

    def some(count: str, each_row: str, lanes: int, start: str) -> None:
        """Copies `count` runs of `lanes` elements, of which a row has `each_row` from `start` on, dealt to the threads."""

        def one(u: str, _: list[str]) -> None:
            k = e.value(f"urem i64 {u}, {each_row}")
            outer = w.unravel(e.value(f"udiv i64 {u}, {each_row}"), out.shape[:-1])
            copy(*places([*outer, plus(e, start, times(e, k, str(lanes)))]), lanes)

        e.loop(first, count, step, one)

    bounds = [x.shape[a] for a in axes]
    if run == 1:
        points = unless_empty(w, w.count(out.shape), bounds)
        e.loop(first, points, step, lambda u, _: copy(*places(w.unravel(u, out.shape)), 1))
        threads = out.size
    else:
        n, rows = w.size(out.shape[-1]), unless_empty(w, w.count(out.shape[:-1]), bounds)
        whole = e.value(f"sdiv i64 {n}, {run}")
        aligned = _aligned(w, [0, len(w.types) - 1], elem.bytes)
        runs = e.value(f"select i1 {aligned}, i64 {whole}, i64 0")
        done = times(e, runs, str(run))
        rest = e.value(f"sub i64 {n}, {done}")
        some(times(e, rows, runs), runs, run, "0")
        some(times(e, rows, rest), rest, 1, done)
        threads = dims.mul(*out.shape[:-1], ceil_div(out.shape[-1], run))
    e.end()
    return [finish(e, "gather", w.slots.slots, blocks_for(threads))]


def _aligned(w: Places, operands: Sequence[int], bytes: int) -> str:
    """Whether all rows of operands, of elements of so many bytes, begin at multiples of WIDE."""
    e, joined = w.e, "0"
    for i in operands:
        address = e.value(f"ptrtoint ptr {w.address(i, ['0'] * w.types[i].rank)} to i64")
        joined = address if joined == "0" else e.value(f"or i64 {joined}, {address}")
        for stride in w.types[i].strides[:-1]:
            joined = e.value(f"or i64 {joined}, {times(e, w.size(stride), str(bytes))}")
    return e.value(f"icmp eq i64 {e.value(f'and i64 {joined}, {WIDE - 1}')}, 0")


def _gathers_runs(op: Op, axes: Sequence[int]) -> bool:
    x, index, out = op.operands[0].type, op.operands[1].type, op.operands[-1].type
    last = x.rank - 1
    if out.rank == index.rank or last in axes or (x.strides[-1], out.strides[-1]) != (1, 1):
        return False
    return not isinstance(out.shape[-1], int) or out.shape[-1] * itemsize(x.dtype) >= WIDE


def scatter_kernels(op: Op) -> list[GpuKernel]:
    """x[indices at axes] = v, or += v, in place; where points are equal, in their order."""
    kernels = list[GpuKernel]()
    many = _Sorted(op).launched
    if many != 1:
        kernels.append(_Scatter(op).kernel(dims.add(1, dims.mul(-1, many))))
    if many != 0:
        kernels += [
            _Sorted(op).tile_kernel(),
            *(_Sorted(op).merge_kernel(p) for p in range(_Sorted(op).passes)),
            _Sorted(op).runs_kernel(),
        ]
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
        return scalar.emit_scalar(self.e, LANE, "a + b", operands, lanes=1, result=self.dtype)


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


def check_index_kernels(op: Op) -> list[GpuKernel]:
    """Fails with (index, bound, position) of the first index i that is not -bound <= i < bound: it is found, then looked up.

    Nothing is done if an op before it has failed.
    """
    return [_check(op, find=True), _check(op, find=False)]


def _check(op: Op, find: bool) -> GpuKernel:
    w = Places(op, LANE)
    e, t, bound_size = w.e, w.types[0], op.attrs["bound"]
    w.begin("void @KERNEL_NAME(ptr %args)", [bound_size])
    slots = [*w.slots.slots, Status(), OpId()]
    status = e.value(f"load ptr, ptr {e.gep('%args', len(slots) - 2, 'i64')}")
    failed_op = e.gep(status, STATUS_WORDS - 1, "i64")
    fine = e.value(f"icmp eq i64 {e.value(f'load i64, ptr {failed_op}')}, 0")
    bound = w.size(bound_size)
    first, step = global_thread(e, BLOCK)

    def look(i: str, _: list[str]) -> None:
        value = w.as_i64(t.dtype, w.load(0, w.unravel(i, t.shape)))
        low = "0" if t.dtype[0] == "u" else e.value(f"sub i64 0, {bound}")
        under, over = e.value(f"icmp slt i64 {value}, {low}"), e.value(f"icmp sge i64 {value}, {bound}")
        key = e.value(f"sub i64 {LAST}, {i}")
        bad = e.value(f"or i1 {under}, {over}")

        def note() -> None:
            e.call("i64", "tcc.atomic_max", ("ptr", status), ("i64", key))

        e.when(bad, note)

    def tell() -> None:
        at = e.value(f"sub i64 {LAST}, {e.value(f'load i64, ptr {status}')}")
        value = w.as_i64(t.dtype, w.load(0, w.unravel(at, t.shape)))
        for word, number in enumerate((value, bound, at), 1):
            e.line(f"store i64 {number}, ptr {e.gep(status, word, 'i64')}")
        own = e.value(f"load i64, ptr {e.gep('%args', len(slots) - 1, 'i64')}")
        e.line(f"store i64 {own}, ptr {failed_op}")

    if find:
        count = e.value(f"select i1 {fine}, i64 {w.count(t.shape)}, i64 0")
        e.loop(first, count, step, look)
    else:
        failed = e.value(f"icmp ne i64 {e.value(f'load i64, ptr {status}')}, 0")
        alone = e.value(f"icmp eq i64 {first}, 0")
        mine = e.value(f"and i1 {failed}, {fine}")
        e.when(e.value(f"and i1 {mine}, {alone}"), tell)
    e.end()
    return finish(e, "check_index", slots, blocks_for(t.size) if find else (1, 1, 1))
