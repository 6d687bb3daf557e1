"""Gather and the check of indices on a GPU: both are maps, of the result and of the indices."""

from __future__ import annotations

from collections.abc import Sequence

from tcc.codegen import scalar
from tcc.codegen.emit import Emit, VecType
from tcc.codegen.gather import Places
from tcc.codegen.gpu.chips import LANE
from tcc.codegen.gpu.kernel import (
    BLOCK,
    GpuKernel,
    Status,
    barrier,
    blocks_for,
    ceil_div,
    finish,
    global_thread,
)
from tcc.codegen.gpu.maps import WIDE
from tcc.codegen.index import at_least, at_most, plus, times
from tcc.codegen.kernel import OpId
from tcc.codegen.nest import Vectors
from tcc.ir import dims
from tcc.ir.core import Op
from tcc.ir.dims import Size
from tcc.ir.types import bits_dtype, itemsize
from tcc.runtime.device_program import STATUS_WORDS

LAST = (1 << 63) - 1
FEW = 1 << 10  # indices that one block checks


def clamped(e: Emit, index: str, bound: str) -> str:
    """The nearest index that is within."""
    last = e.value(f"sub i64 {bound}, 1")
    low = at_most(e, index, last)
    return at_least(e, low, "0")


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


def check_index_kernels(op: Op) -> list[GpuKernel]:
    """Fails with (index, bound, position) of the first index i that is not -bound <= i < bound: it is found, then looked up, by
    one block if there are few.

    Nothing is done if an op before it has failed.
    """
    size = op.operands[0].type.size
    if isinstance(size, int) and size <= FEW:
        return [_check(op, find=True, tells=True)]
    return [_check(op, find=True, tells=False), _check(op, find=False, tells=True)]


def _check(op: Op, find: bool, tells: bool) -> GpuKernel:
    w = Places(op, LANE)
    e, t, bound_size = w.e, w.types[0], op.attrs.get("bound", 1)
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
    if find and tells:
        barrier(e)
    if tells:
        failed = e.value(f"icmp ne i64 {e.value(f'load i64, ptr {status}')}, 0")
        alone = e.value(f"icmp eq i64 {first}, 0")
        mine = e.value(f"and i1 {failed}, {fine}")
        e.when(e.value(f"and i1 {mine}, {alone}"), tell)
    e.end()
    return finish(e, op.name, slots, (1, 1, 1) if tells else blocks_for(t.size))
