"""Kernels that address memory by index: gather, scatter, the check of their indices, and running sums.

Indices may be negative, as in NumPy; `check_index` has made sure that they are in range, so nothing here fails but it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tcc.codegen import scalar
from tcc.codegen.emit import Emit, VecType
from tcc.codegen.index import at_most, plus, times
from tcc.codegen.kernel import Kernel, Operand, OpId, Slots, finish, memo_sizes
from tcc.codegen.nest import PARALLEL_WORK, Position, iota
from tcc.codegen.target import Target
from tcc.codegen.vectors import each_vector, gather, lane_mask, splat
from tcc.ir.core import Op
from tcc.ir.dims import Size
from tcc.ir.types import HALVES, Type, bits_dtype, dense_strides

LineBody = Callable[[list[str], "str | None"], None]


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
        self.load_arguments(sizes)

    def load_arguments(self, sizes: Sequence[Size] = ()) -> None:
        """The operands' addresses and what sizes they have, and others."""
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

    def as_i64(self, dtype: str, value: str, lanes: int = 1) -> str:
        operands = {"a": (dtype, value)}
        return scalar.emit_scalar(self.e, self.target, "cast(a)", operands, lanes=lanes, result="i64")

    def is_dense(self, i: int) -> bool:
        """Whether operand `i` is known to be row-major, without gaps."""
        return self.types[i].strides == dense_strides(self.types[i].shape)

    def parallel(self, units: str, cost: str) -> None:
        e = self.e
        share = e.value(f"sdiv i64 {PARALLEL_WORK}, {e.value(f'add i64 {cost}, 64')}")
        grain = e.value(f"add i64 {share}, 1")
        e.declare("declare void @tcc_parallel(ptr, ptr, ptr, i64, i64)")
        e.line(
            f"call void @tcc_parallel(ptr %ctx, ptr @KERNEL_NAME.body, ptr %args, i64 {units}, i64 {grain})"
        )

    def lines(self, axis: int, beside: int | None, lanes: int, cost: str, body: LineBody) -> None:
        """A kernel that walks lines of operand 0 along `axis`, `lanes` of them at a time that are neighbours along `beside`.

        `body(places, mask)` gets the indices along the other axes, and which lanes there are (None: the only one).
        """
        e, shape = self.e, self.types[0].shape
        kept = [a for a in range(len(shape)) if a != axis]
        outer = [shape[a] for a in kept if a != beside]

        def strips() -> str:
            if beside is None:
                return "1"
            return e.value(f"sdiv i64 {plus(e, self.size(shape[beside]), str(lanes - 1))}, {lanes}")

        def unit(u: str, _: list[str]) -> None:
            if beside is None:
                body(self.unravel(u, outer), None)
                return
            n = strips()
            start = times(e, e.value(f"urem i64 {u}, {n}"), str(lanes))
            places = self.unravel(e.value(f"udiv i64 {u}, {n}"), outer) if outer else []
            at = kept.index(beside)
            left = e.value(f"sub i64 {self.size(shape[beside])}, {start}")
            narrow = VecType(scalar.memory_elem(self.types[0].dtype), lanes)
            body([*places[:at], start, *places[at:]], lane_mask(e, narrow, left))

        self.begin_body()
        e.loop("%begin", "%end", 1, unit)
        e.end()
        self.begin_kernel()
        self.parallel(times(e, self.count(outer), strips()), times(e, self.size(shape[axis]), cost))
        e.end("i32 0")

    def dense_beside(self, axis: int, operands: Sequence[int]) -> int | None:
        """An axis other than `axis` along which the operands, of one rank, all lie dense."""
        types = [self.types[i] for i in operands]
        found = [
            a
            for a, size in enumerate(types[0].shape)
            if a != axis and size != 1 and all(t.strides[a] == 1 for t in types)
        ]
        return found[-1] if found else None

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
        dtype = t.dtype if mode == "add" else bits_dtype(t.dtype)
        vector = self.target.vector(scalar.elem(dtype))

        def one(pos: Position) -> None:
            at_a = e.gep(a, times(e, pos.offset, self.size(sa)), elem)
            at_b = e.gep(b, times(e, pos.offset, self.size(sb)), elem)
            mask = pos.mask or None
            value = number or scalar.load(e, self.target, dtype, pos.lanes, at_b, mask)
            if mode == "add":
                old = scalar.load(e, self.target, dtype, pos.lanes, at_a, mask)
                operands = {"a": (dtype, old), "b": (dtype, value)}
                body = scalar.sum_body(dtype)
                value = scalar.emit_scalar(e, self.target, body, operands, lanes=pos.lanes, result=dtype)
            scalar.store(e, self.target, dtype, pos.lanes, value, at_a, mask)

        number = ""
        if sa == 1 and sb in (0, 1):
            lanes = vector.lanes
            if sb == 0:
                number = splat(e, vector, scalar.load(e, self.target, dtype, 1, b, None))
            whole = e.value(f"and i64 {n}, {-lanes}")
            e.loop(0, whole, lanes, lambda i, _: one(Position(i, lanes)))

            def tail(i: str, _: list[str]) -> None:
                left = e.value(f"sub i64 {n}, {i}")
                t = VecType("i64", lanes)
                one(Position(i, lanes, e.value(f"icmp slt {t} {iota(lanes)}, {splat(e, t, left)}")))

            e.loop(whole, n, lanes, tail)
            return
        e.loop(0, n, 1, lambda i, _: one(Position(i, 1)))


def check_index_kernel(op: Op, target: Target) -> Kernel:
    """Fails with (index, bound, position) unless every index i has -bound <= i < bound; numbers of pivots are to be 0."""
    w = Places(op, target)
    e, t = w.e, w.types[0]
    bound_size: Size = op.attrs.get("bound", 1)
    w.begin_kernel([bound_size])
    op_id = e.value(f"load i64, ptr {e.gep('%args', w.slots.index(OpId()), 'i64')}")
    bound = w.size(bound_size)
    # of unsigned indices only one of 64 bits can look negative, and that is too large
    low = "0" if t.dtype[0] == "u" else e.value(f"sub i64 0, {bound}")

    def body(i: str, _: list[str]) -> None:
        value = w.as_i64(t.dtype, w.load(0, w.unravel(i, t.shape)))
        fail, fine = e.label(), e.label()
        under, over = e.value(f"icmp slt i64 {value}, {low}"), e.value(f"icmp sge i64 {value}, {bound}")
        e.branch_if(e.value(f"or i1 {under}, {over}"), fail, fine)
        e.at(fail)
        e.declare("declare void @tcc_fail(ptr, i64, i64, i64, i64, i64)")
        e.line(f"call void @tcc_fail(ptr %ctx, i64 {op_id}, i64 {value}, i64 {bound}, i64 {i}, i64 0)")
        e.line("ret i32 1")
        e.at(fine)

    def several(i: str, found: list[str]) -> list[str]:
        value = scalar.load(e, target, t.dtype, lanes, e.gep(w.pointers[0], i, scalar.memory_elem(t.dtype)))
        index = w.as_i64(t.dtype, value, lanes)
        # one of both is negative (and one that wraps around is) where it is outside
        above = e.value(f"sub {wide} {splat(e, wide, last)}, {index}")
        below = e.value(f"sub {wide} {index}, {splat(e, wide, low)}")
        either = e.value(f"or {wide} {above}, {below}")
        return [e.value(f"or {wide} {found[0]}, {either}")]

    n, lanes, first = w.count(t.shape), 2 * target.vector("i64").lanes, "0"
    if lanes > 2 and w.is_dense(0):  # which one it is, is looked for only where there is one
        whole = e.value(f"and i64 {n}, {-lanes}")
        wide, last = VecType("i64", lanes), e.value(f"sub i64 {bound}, 1")
        (found,) = e.loop(0, whole, lanes, several, [(wide, wide.const(0))])
        bad = e.call("i64", f"llvm.vector.reduce.or.{wide.suffix}", (wide, found))
        bad = e.value(f"icmp slt i64 {bad}, 0")
        first = e.value(f"select i1 {bad}, i64 0, i64 {whole}")
    e.loop(first, n, 1, body)
    e.end("i32 0")
    return w.finish(op.name)


def gather_kernel(op: Op, target: Target) -> Kernel:
    """result[i.., r..] = x[indices at axes, r elsewhere]; a unit is one point of the indices' shape, where slices are copied,
    otherwise a run of points."""
    w = Places(op, target)
    axes = [int(a) for a in op.attrs["axes"]]
    x, out = w.types[0], w.types[-1]
    rest = [a for a in range(x.rank) if a not in axes]
    rows = rest and x.strides[rest[-1]] == 1 and out.strides[-1] == 1
    runs = w.types[1].rank and all(t.strides[w.types[1].rank - 1] == 1 for t in w.types[1:])
    if runs and not rows:
        return _gather_runs(w, axes, rest)
    e = w.e
    index_rank = w.types[1].rank
    w.begin_body()

    def unit(u: str, _: list[str]) -> None:
        at = w.unravel(u, w.types[1].shape)
        source = ["0"] * x.rank
        for k, axis in enumerate(axes):
            source[axis] = w.index(1 + k, at, w.size(x.shape[axis]))
        _rows(w, len(w.types) - 1, at, index_rank, 0, source, rest, "set")

    e.loop("%begin", "%end", 1, unit)
    e.end()
    w.begin_kernel()
    cost = times(e, w.count([x.shape[a] for a in rest]), "4")
    w.parallel(w.count(w.types[1].shape), cost)
    e.end("i32 0")
    return w.finish("gather")


RUN = 256  # points that are gathered at a time, where they all lie in a row


def _gather_runs(w: Places, axes: Sequence[int], rest: Sequence[int]) -> Kernel:
    """A unit is a run of points that lie in a row in the indices and in the result, at one place along the other axes of x."""
    e, x, index = w.e, w.types[0], w.types[1]
    last = len(w.types) - 1
    flat = not rest and all(w.is_dense(i) for i in range(1, last + 1))
    outer = [] if flat else [*index.shape[:-1], *(x.shape[a] for a in rest)]
    elem, bits = scalar.memory_elem(x.dtype), bits_dtype(x.dtype)
    # instructions gather words of four and eight bytes
    lanes = 2 * w.target.vector("i64").lanes if VecType(elem).bytes in (4, 8) else 1
    vector, wide = VecType(elem, lanes), VecType("i64", lanes)

    def run(pointers: Sequence[str], count: str) -> None:
        def several(i: str, mask: str | None, _: list[str]) -> list[str]:
            place = "0" if lanes == 1 else wide.const(0)
            for k, axis in enumerate(axes):
                dtype = w.types[1 + k].dtype
                at = e.gep(pointers[1 + k], i, scalar.memory_elem(dtype))
                point = w.as_i64(dtype, scalar.load(e, w.target, dtype, lanes, at, mask), lanes)
                negative = e.value(f"icmp slt {wide} {point}, {wide.const(0)}")
                wrapped = e.value(f"add {wide} {point}, {splat(e, wide, w.size(x.shape[axis]))}")
                point = e.value(f"select {wide.of('i1')} {negative}, {wide} {wrapped}, {wide} {point}")
                point = e.value(f"mul {wide} {point}, {splat(e, wide, w.size(x.strides[axis]))}")
                place = e.value(f"add {wide} {place}, {point}")
            if lanes == 1:
                value = scalar.load(e, w.target, bits, 1, e.gep(pointers[0], place, elem))
            else:
                value = gather(e, vector, pointers[0], place, mask, align=scalar.alignment(bits))
            scalar.store(e, w.target, bits, lanes, value, e.gep(pointers[last], i, elem), mask)
            return []

        if lanes == 1:
            e.loop(0, count, 1, lambda i, _: several(i, None, []))
        else:
            each_vector(e, vector, w.target, count, several)

    def points(u: str, _: list[str]) -> None:
        """A piece of all points, or those at the end of one outer index."""
        if flat:
            start = times(e, u, str(RUN))
            left = e.value(f"sub i64 {w.count(index.shape)}, {start}")
            count = at_most(e, left, str(RUN))
            at = [
                e.gep(w.pointers[i], start, scalar.memory_elem(w.types[i].dtype)) for i in range(1, last + 1)
            ]
            run([w.pointers[0], *at], count)
            return
        places = w.unravel(u, outer)
        before, beside = places[: index.rank - 1], places[index.rank - 1 :]
        source = ["0"] * x.rank
        for axis, place in zip(rest, beside, strict=True):
            source[axis] = place
        pointers = [w.address(i, [*before, "0"]) for i in range(1, last)]
        run(
            [w.address(0, source), *pointers, w.address(last, [*before, "0", *beside])],
            w.size(index.shape[-1]),
        )

    w.begin_body()
    e.loop("%begin", "%end", 1, points)
    e.end()
    w.begin_kernel()
    pieces = (
        e.value(f"sdiv i64 {plus(e, w.count(index.shape), str(RUN - 1))}, {RUN}") if flat else w.count(outer)
    )
    w.parallel(pieces, times(e, str(RUN) if flat else w.size(index.shape[-1]), "24"))
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
                body = scalar.sum_body(dtype)
                value = scalar.emit_scalar(e, w.target, body, operands, lanes=1, result=dtype)
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
    """cumsum and cumprod along one axis; where lines lie beside each other, a vector of them at a time."""
    w = Places(op, target)
    e = w.e
    axis, source, stored = int(op.attrs["axis"]), w.types[0].dtype, w.types[1].dtype
    t = "f32" if stored in HALVES else stored  # of the running total
    body_text, start = ("a + b", 0) if op.name == "cumsum" else ("a * b", 1)
    beside = w.dense_beside(axis, (0, 1))
    lanes = 1 if beside is None else min(target.vector(scalar.memory_elem(d)).lanes for d in (source, stored))
    acc = VecType(scalar.elem(t), lanes)

    def line(places: list[str], mask: str | None) -> None:
        def step(i: str, carried: list[str]) -> list[str]:
            where = [*places[:axis], i, *places[axis:]]
            value = scalar.load(e, target, source, lanes, w.address(0, where), mask)
            if source != t:
                operands = {"a": (source, value)}
                value = scalar.emit_scalar(e, target, "cast(a)", operands, lanes=lanes, result=t)
            operands = {"a": (t, carried[0]), "b": (t, value)}
            total = scalar.emit_scalar(e, target, body_text, operands, lanes=lanes, result=t)
            value = total
            if stored != t:
                operands = {"a": (t, total)}
                value = scalar.emit_scalar(e, target, "cast(a)", operands, lanes=lanes, result=stored)
            scalar.store(e, target, stored, lanes, value, w.address(1, where), mask)
            return [total]

        e.loop(0, w.size(w.types[0].shape[axis]), 1, step, [(acc, acc.const(start))])

    w.lines(axis, beside, lanes, "64", line)
    return w.finish(op.name)
