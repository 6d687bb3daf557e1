"""Kernels that address memory by index: gather, scatter, the check of their indices, and running sums.

Indices may be negative, as in NumPy; `check_index` has made sure that they are in range, so nothing here fails but it.
"""

from __future__ import annotations

from collections.abc import Sequence

from tcc.codegen import scalar
from tcc.codegen.emit import Emit, VecType
from tcc.codegen.kernel import Kernel, Operand, OpId, Slots, finish, memo_sizes, plus, times
from tcc.codegen.nest import PARALLEL_WORK, Position, iota
from tcc.codegen.target import Target
from tcc.ir.core import Op
from tcc.ir.dims import Size
from tcc.ir.types import Type


class Places:
    """A kernel being written over strided places."""

    def __init__(self, op: Op, target: Target) -> None:
        self.op, self.target = op, target
        self.e, self.slots = Emit(), Slots()
        self.types: list[Type] = [v.type for v in op.operands]
        self.pointers: list[str] = []
        self.size = memo_sizes(self.slots, self.e)
        for i in range(len(self.types)):
            self.slots.index(Operand(i))

    def begin(self, signature: str, sizes: Sequence[Size] = ()) -> None:
        self.e.function(signature)
        self.size = memo_sizes(self.slots, self.e)
        for t in self.types:
            for s in (*t.shape, *t.strides):
                self.size(s)
        for s in sizes:
            self.size(s)
        self.pointers = [self.slots.pointer(self.e, Operand(i)) for i in range(len(self.types))]

    def begin_body(self, sizes: Sequence[Size] = ()) -> None:
        self.begin(
            "internal void @KERNEL_NAME.body(ptr %ctx, ptr noalias %args, i64 %begin, i64 %end, i64 %thread)",
            sizes,
        )

    def begin_kernel(self, sizes: Sequence[Size] = ()) -> None:
        self.begin("i32 @KERNEL_NAME(ptr %ctx, ptr noalias %args)", sizes)

    def address(self, i: int, indices: Sequence[str]) -> str:
        """Of the element of operand `i` at `indices`."""
        t = self.types[i]
        offset = "0"
        for index, stride in zip(indices, t.strides, strict=True):
            offset = plus(self.e, offset, times(self.e, index, self.size(stride)))
        return self.e.gep(self.pointers[i], offset, scalar.memory_elem(t.dtype))

    def load(self, i: int, indices: Sequence[str]) -> str:
        return scalar.load(self.e, self.target, self.types[i].dtype, 1, self.address(i, indices), None)

    def store(self, i: int, indices: Sequence[str], value: str) -> None:
        scalar.store(self.e, self.target, self.types[i].dtype, 1, value, self.address(i, indices), None)

    def unravel(self, unit: str, shape: Sequence[Size]) -> list[str]:
        """Row-major indices of element number `unit`."""
        indices: list[str] = []
        for s in reversed(shape[1:]):
            n = self.size(s)
            indices.append(self.e.value(f"urem i64 {unit}, {n}"))
            unit = self.e.value(f"udiv i64 {unit}, {n}")
        return [unit, *reversed(indices)] if shape else []

    def count(self, shape: Sequence[Size]) -> str:
        total = "1"
        for s in shape:
            total = times(self.e, total, self.size(s))
        return total

    def index(self, i: int, at: Sequence[str], bound: str) -> str:
        """An index as i64, with negative ones counted from the end."""
        wide = self.as_i64(self.types[i].dtype, self.load(i, at))
        negative = self.e.value(f"icmp slt i64 {wide}, 0")
        wrapped = self.e.value(f"add i64 {wide}, {bound}")
        return self.e.value(f"select i1 {negative}, i64 {wrapped}, i64 {wide}")

    def as_i64(self, dtype: str, value: str) -> str:
        return scalar.emit_scalar(
            self.e, self.target, "cast(a)", {"a": (dtype, value)}, lanes=1, result="i64"
        )

    def parallel(self, units: str, cost: str) -> None:
        e = self.e
        share = e.value(f"sdiv i64 {PARALLEL_WORK}, {e.value(f'add i64 {cost}, 64')}")
        grain = e.value(f"add i64 {share}, 1")
        e.declare("declare void @tcc_parallel(ptr, ptr, ptr, i64, i64)")
        e.line(
            f"call void @tcc_parallel(ptr %ctx, ptr @KERNEL_NAME.body, ptr %args, i64 {units}, i64 {grain})"
        )

    def finish(self, kind: str) -> Kernel:
        return finish(self.e, tuple(self.slots.slots), kind)

    def copy_row(
        self,
        target: int,
        to: Sequence[str],
        source: int,
        start: Sequence[str],
        axis: int,
        from_axis: int,
        mode: str,
    ) -> None:
        """Elements along `axis` of the target from (or plus) those along `from_axis` of the source; both rank >= 1."""
        e, t = self.e, self.types[target]
        n = self.size(t.shape[axis])
        a, b = self.address(target, to), self.address(source, start)
        sa, sb = t.strides[axis], self.types[source].strides[from_axis]
        elem = scalar.memory_elem(t.dtype)

        def one(pos: Position) -> None:
            at_a = e.gep(a, times(e, pos.offset, self.size(sa)), elem)
            at_b = e.gep(b, times(e, pos.offset, self.size(sb)), elem)
            mask = pos.mask or None
            value = scalar.load(e, self.target, t.dtype, pos.lanes, at_b, mask)
            if mode == "add":
                old = scalar.load(e, self.target, t.dtype, pos.lanes, at_a, mask)
                operands = {"a": (t.dtype, old), "b": (t.dtype, value)}
                value = scalar.emit_scalar(e, self.target, "a + b", operands, lanes=pos.lanes, result=t.dtype)
            scalar.store(e, self.target, t.dtype, pos.lanes, value, at_a, mask)

        if sa == 1 and sb == 1:
            lanes = self.target.vector(elem).lanes
            whole = e.value(f"and i64 {n}, {-lanes}")
            e.loop(0, whole, lanes, lambda i, _: one(Position(i, lanes)))

            def tail(i: str, _: list[str]) -> None:
                left = e.value(f"sub i64 {n}, {i}")
                one_lane = e.value(f"insertelement <{lanes} x i64> poison, i64 {left}, i64 0")
                all_lanes = e.value(
                    f"shufflevector <{lanes} x i64> {one_lane}, <{lanes} x i64> poison, "
                    f"<{lanes} x i32> zeroinitializer"
                )
                one(Position(i, lanes, e.value(f"icmp slt <{lanes} x i64> {iota(lanes)}, {all_lanes}")))

            e.loop(whole, n, lanes, tail)
            return
        e.loop(0, n, 1, lambda i, _: one(Position(i, 1)))


def check_index_kernel(op: Op, target: Target) -> Kernel:
    """Fails with (index, bound, position) unless every index i has -bound <= i < bound."""
    w = Places(op, target)
    e, t = w.e, w.types[0]
    bound_size: Size = op.attrs["bound"]
    w.begin_kernel([bound_size])
    op_id = e.value(f"load i64, ptr {e.gep('%args', w.slots.index(OpId()), 'i64')}")
    bound = w.size(bound_size)
    # of unsigned indices only one of 64 bits can look negative, and that is too large
    low = "0" if t.dtype[0] == "u" else e.value(f"sub i64 0, {bound}")

    def body(i: str, _: list[str]) -> None:
        value = w.as_i64(t.dtype, w.load(0, w.unravel(i, t.shape)))
        under = e.value(f"icmp slt i64 {value}, {low}")
        over = e.value(f"icmp sge i64 {value}, {bound}")
        bad = e.value(f"or i1 {under}, {over}")
        fail, fine = e.label(), e.label()
        e.branch_if(bad, fail, fine)
        e.at(fail)
        e.declare("declare void @tcc_fail(ptr, i64, i64, i64, i64, i64)")
        e.line(f"call void @tcc_fail(ptr %ctx, i64 {op_id}, i64 {value}, i64 {bound}, i64 {i}, i64 0)")
        e.line("ret i32 1")
        e.at(fine)

    e.loop(0, w.count(t.shape), 1, body)
    e.end("i32 0")
    return w.finish("check_index")


def gather_kernel(op: Op, target: Target) -> Kernel:
    """result[i.., r..] = x[indices at axes, r elsewhere]; a unit is one point of the indices' shape."""
    w = Places(op, target)
    e = w.e
    axes = [int(a) for a in op.attrs["axes"]]
    x, out = w.types[0], len(w.types) - 1
    index_rank = w.types[1].rank
    rest = [a for a in range(x.rank) if a not in axes]
    w.begin_body()

    def unit(u: str, _: list[str]) -> None:
        at = w.unravel(u, w.types[1].shape)
        source = ["0"] * x.rank
        for k, axis in enumerate(axes):
            source[axis] = w.index(1 + k, at, w.size(x.shape[axis]))
        _rows(w, out, at, index_rank, 0, source, rest, "set")

    e.loop("%begin", "%end", 1, unit)
    e.end()
    w.begin_kernel()
    cost = times(e, w.count([x.shape[a] for a in rest]), "4")
    w.parallel(w.count(w.types[1].shape), cost)
    e.end("i32 0")
    return w.finish("gather")


def _rows(
    w: Places,
    out: int,
    at: Sequence[str],
    index_rank: int,
    source: int,
    start: list[str],
    rest: list[int],
    mode: str,
) -> None:
    """Copies (or adds) the slice that one index point names.  `start` is of the indexed array, `at` of the other one.

    For a gather the indexed array is the source; for a scatter it is the target, and `source` the values.
    """
    e = w.e
    gathering = w.op.name == "gather"
    indexed = source if gathering else out

    def nest(depth: int, inner: list[str]) -> None:
        if depth == len(rest) - 1 and rest:
            place = list(start)
            for axis, i in zip(rest, inner):
                place[axis] = i
            other = [*at, *inner, "0"]
            if gathering:
                w.copy_row(out, other, source, place, index_rank + depth, rest[depth], mode)
            else:
                w.copy_row(out, place, source, other, rest[depth], index_rank + depth, mode)
            return
        if not rest:
            value = w.load(source, start if gathering else at)
            to = at if gathering else start
            if mode == "add":
                dtype = w.types[out].dtype
                operands = {"a": (dtype, w.load(out, to)), "b": (dtype, value)}
                value = scalar.emit_scalar(e, w.target, "a + b", operands, lanes=1, result=dtype)
            w.store(out, to, value)
            return
        n = w.size(w.types[indexed].shape[rest[depth]])
        e.loop(0, n, 1, lambda i, _: nest(depth + 1, [*inner, i]))

    nest(0, [])


def scatter_kernel(op: Op, target: Target) -> Kernel:
    """x[indices at axes] = v, or += v, in place: the last operand is x's place.  Points are taken in order by one thread."""
    w = Places(op, target)
    e = w.e
    axes = [int(a) for a in op.attrs["axes"]]
    out = len(w.types) - 1
    t = w.types[out]
    rest = [a for a in range(t.rank) if a not in axes]
    index = w.types[2]
    w.begin_kernel()

    def unit(u: str, _: list[str]) -> None:
        at = w.unravel(u, index.shape)
        start = ["0"] * t.rank
        for k, axis in enumerate(axes):
            start[axis] = w.index(2 + k, at, w.size(t.shape[axis]))
        _rows(w, out, at, index.rank, 1, start, rest, str(op.attrs["mode"]))

    e.loop(0, w.count(index.shape), 1, unit)
    e.end("i32 0")
    return w.finish("scatter")


def running_kernel(op: Op, target: Target) -> Kernel:
    """cumsum and cumprod along one axis."""
    w = Places(op, target)
    e = w.e
    axis, t = int(op.attrs["axis"]), w.types[1]
    body_text, start = ("a + b", 0) if op.name == "cumsum" else ("a * b", 1)
    kept = [s for a, s in enumerate(t.shape) if a != axis]
    acc = VecType(scalar.elem(t.dtype))
    w.begin_body()

    def unit(u: str, _: list[str]) -> None:
        at = w.unravel(u, kept)

        def step(i: str, carried: list[str]) -> list[str]:
            where = [*at[:axis], i, *at[axis:]]
            value = w.load(0, where)
            if w.types[0].dtype != t.dtype:
                operands = {"a": (w.types[0].dtype, value)}
                value = scalar.emit_scalar(e, target, "cast(a)", operands, lanes=1, result=t.dtype)
            operands = {"a": (t.dtype, carried[0]), "b": (t.dtype, value)}
            total = scalar.emit_scalar(e, target, body_text, operands, lanes=1, result=t.dtype)
            w.store(1, where, total)
            return [total]

        e.loop(0, w.size(t.shape[axis]), 1, step, [(acc, acc.const(start))])

    e.loop("%begin", "%end", 1, unit)
    e.end()
    w.begin_kernel()
    w.parallel(w.count(kept), times(e, w.size(t.shape[axis]), "64"))
    e.end("i32 0")
    return w.finish(op.name)
