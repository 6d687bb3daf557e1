"""argmax and argmin along one axis: the first extreme, or the first NaN; 0 of nothing.

Along a dense axis the extreme is found first and then looked for, in the stretch of the row that has it.  Otherwise
each lane keeps the best of its own line, where the lanes are neighbours along a dense axis that is kept.
"""

from __future__ import annotations

from collections.abc import Sequence

from tcc.codegen import scalar
from tcc.codegen.emit import VecType, is_number
from tcc.codegen.gather import Places
from tcc.codegen.index import at_most, plus, times
from tcc.codegen.kernel import Kernel
from tcc.codegen.nest import Fold, identity_value, iota
from tcc.codegen.rows import AHEAD_SHORT
from tcc.codegen.target import Target
from tcc.codegen.vectors import LINE, fetch, gather, lane_mask, splat
from tcc.ir.core import Op
from tcc.ir.dims import product
from tcc.ir.types import itemsize

WAYS = 4  # accumulators of a dense row
SHORT = 32  # elements of a row, of which several are walked side by side where they can be gathered
STRETCH = 1 << 13  # elements of a row that are looked through again: they are still near


def arg_kernel(op: Op, target: Target) -> Kernel:
    """A unit of parallel work is one result, or a vector of them."""
    w = Extremes(op, target)
    return w.dense() if w.t.strides[w.axis] == 1 and not w.gathered else w.across()


class Extremes(Places):
    def __init__(self, op: Op, target: Target) -> None:
        super().__init__(op, target)
        self.axis, self.t = int(op.attrs["axis"]), self.types[0]
        self.dtype = "u8" if self.t.dtype == "bool" else self.t.dtype  # as it lies in memory
        self.fold = Fold(op.name[3:], self.dtype)
        self.kept = [a for a in range(self.t.rank) if a != self.axis]
        self.lanes = target.vector(scalar.elem(self.dtype)).lanes
        self.gathered = self.is_gathered()

    def is_gathered(self) -> bool:
        """Whether lanes are short rows, whose elements are gathered: words that an instruction gathers."""
        n = self.t.shape[self.axis]
        short = isinstance(n, int) and n <= SHORT and bool(self.kept) and self.t.strides[self.axis] == 1
        return short and itemsize(self.dtype) >= 4 and self.target.avx2 and not self.target.avx512

    def at(self, places: Sequence[str], along: str) -> list[str]:
        """Indices of the operand from those of the result and that along the axis."""
        return [*places[: self.axis], along, *places[self.axis :]]

    def vector(self, pointer: str, lanes: int, mask: str | None = None) -> str:
        return scalar.load(self.e, self.target, self.dtype, lanes, pointer, mask)

    def is_nan(self, value: str, lanes: int) -> str:
        t = VecType(scalar.elem(self.dtype), lanes)
        return self.e.value(f"fcmp uno {t} {value}, {value}")

    def tail_mask(self, left: str) -> str:
        """The lanes of which `left` elements are left."""
        return lane_mask(self.e, VecType(scalar.elem(self.dtype), self.lanes), left)

    # -- a dense row -----------------------------------------------------------------------------------------------

    def dense(self) -> Kernel:
        e = self.e
        shape = [self.t.shape[a] for a in self.kept]
        self.begin_body()

        def unit(u: str, _: list[str]) -> None:
            places = self.unravel(u, shape)
            row, n = self.address(0, self.at(places, "0")), self.size(self.t.shape[self.axis])
            start, count, extreme, nan = self.stretch(row, n)
            first = e.gep(row, start, scalar.memory_elem(self.dtype))
            self.store(1, places, plus(e, start, self.first_of(first, count, extreme, nan)))

        e.loop("%begin", "%end", 1, unit)
        e.end()
        self.begin_kernel()
        self.parallel(self.count(shape), times(e, self.size(self.t.shape[self.axis]), "8"))
        e.end("i32 0")
        return self.finish(self.op.name)

    def stretch(self, row: str, n: str) -> tuple[str, str, str, str]:
        """Where the first stretch of n neighbours with the extreme, or a NaN, starts, its length, and what `extreme` says of it."""
        e, t = self.e, VecType(scalar.elem(self.dtype))
        if is_number(n) and int(n) <= STRETCH:
            return ("0", n, *self.extreme(row, n))

        def one(i: str, carried: list[str]) -> list[str]:
            start, best, had_nan = carried
            count = at_most(e, e.value(f"sub i64 {n}, {i}"), str(STRETCH))
            value, nan = self.extreme(e.gep(row, i, scalar.memory_elem(self.dtype)), count)
            sign = ">" if self.fold.how == "max" else "<"
            operands = {"a": (self.dtype, value), "b": (self.dtype, best)}
            better = scalar.emit_scalar(e, self.target, f"a {sign} b", operands, lanes=1, result="bool")
            better = e.value(f"or i1 {better}, {nan}")
            better = e.value(f"and i1 {better}, {e.value(f'xor i1 {had_nan}, true')}")
            return [
                e.value(f"select i1 {better}, i64 {i}, i64 {start}"),
                e.value(f"select i1 {better}, {t} {value}, {t} {best}"),
                e.value(f"or i1 {had_nan}, {nan}"),
            ]

        # nothing is better than the worst there is, and the first stretch is right for a row of those
        worst = t.const(identity_value(self.fold.how, self.dtype))
        start, best, nan = e.loop(0, n, STRETCH, one, [("i64", "0"), (t, worst), ("i1", "false")])
        return start, at_most(e, e.value(f"sub i64 {n}, {start}"), str(STRETCH)), best, nan

    def extreme(self, row: str, n: str) -> tuple[str, str]:
        """The largest (or smallest) of n neighbours, and whether one is NaN, which the first does not tell then."""
        e, lanes, fold = self.e, self.lanes, self.fold
        elem, t = scalar.memory_elem(self.dtype), VecType(scalar.elem(self.dtype), self.lanes)
        i1 = t.of("i1")
        whole = e.value(f"and i64 {n}, {-lanes * WAYS}")

        def main(i: str, carried: list[str]) -> list[str]:
            *best, nan = carried
            start = e.gep(row, i, elem)
            for byte in range(0, WAYS * lanes * VecType(elem).bytes if self.from_afar() else 0, LINE):
                fetch(e, e.gep(start, AHEAD_SHORT + byte), 0)
            values = [self.vector(e.gep(start, k * lanes, elem), lanes) for k in range(WAYS)]
            for x, y in zip(values[::2], values[1::2]) if t.is_float else ():
                nan = e.value(f"or {i1} {nan}, {e.value(f'fcmp uno {t} {x}, {y}')}")
            return [*(self.better(t, b, v) for b, v in zip(best, values)), nan]

        start = [*[(t, fold.identity(lanes))] * WAYS, (i1, "zeroinitializer")]
        *best, nan = e.loop(0, whole, lanes * WAYS, main, start)

        def rest(i: str, carried: list[str]) -> list[str]:
            mask = self.tail_mask(e.value(f"sub i64 {n}, {i}"))
            value = self.vector(e.gep(row, i, elem), lanes, mask)
            inside = e.value(f"select {i1} {mask}, {t} {value}, {t} {fold.neutral(lanes)}")
            nan = carried[1]
            if t.is_float:
                nan = e.value(f"or {i1} {nan}, {self.is_nan(inside, lanes)}")
            return [self.better(t, carried[0], inside), nan]

        total, nan = e.loop(whole, n, lanes, rest, [(t, best[0]), (i1, nan)])
        for other in best[1:]:
            total = self.better(t, total, other)
        return fold.across(e, self.target, total, lanes), self.any(nan)

    def from_afar(self) -> bool:
        """Whether rows come from behind the second-level cache, and are known to; vectors of whole lines need no help."""
        count = product([*self.t.shape])
        bytes = count * itemsize(self.dtype) if isinstance(count, int) else 0
        return bytes > self.target.l2_bytes and not self.target.avx512

    def better(self, t: VecType, a: str, b: str) -> str:
        """The larger (or smaller) of each two numbers; of two that NaN is among, either."""
        if not t.is_float:
            return self.fold.combine(self.e, self.target, a, b, t.lanes)
        first = self.e.value(f"fcmp {'ogt' if self.fold.how == 'max' else 'olt'} {t} {a}, {b}")
        return self.e.value(f"select {t.of('i1')} {first}, {t} {a}, {t} {b}")

    def any(self, hit: str) -> str:
        bits = self.bits(hit)
        return self.e.value(f"icmp ne i{self.lanes} {bits}, 0")

    def bits(self, hit: str) -> str:
        return self.e.value(f"bitcast <{self.lanes} x i1> {hit} to i{self.lanes}")

    def first_of(self, row: str, n: str, extreme: str, nan: str) -> str:
        """The index of the first NaN of n neighbours, where there is one, or of the first `extreme`; 0 if none is."""
        if not VecType(scalar.elem(self.dtype)).is_float:
            return self.search(row, n, extreme)
        e = self.e
        some, none, done = e.label(), e.label(), e.label()
        e.branch_if(nan, some, none)
        found: list[tuple[str, str]] = []
        for label, wanted in ((some, None), (none, extreme)):
            e.at(label)
            found.append((self.search(row, n, wanted), e.current))
            e.branch(done)
        e.at(done)
        return e.value("phi i64 " + ", ".join(f"[{index}, %{block}]" for index, block in found))

    def search(self, row: str, n: str, wanted: str | None) -> str:
        """The index of the first of n neighbours that is `wanted`, or NaN if that is None; 0 if none is."""
        e, lanes = self.e, self.lanes
        elem, t = scalar.memory_elem(self.dtype), VecType(scalar.elem(self.dtype), self.lanes)
        same = splat(e, t, wanted) if wanted is not None else ""
        found, done = e.label(), e.label()
        hits: list[tuple[str, str, str]] = []  # lanes that hit, index of the first lane, block

        def hit_at(i: str, mask: str | None = None) -> str:
            value = self.vector(e.gep(row, i, elem), lanes, mask)
            if wanted is None:
                return self.is_nan(value, lanes)
            return e.value(f"{'fcmp oeq' if t.is_float else 'icmp eq'} {t} {value}, {same}")

        def walk(start: str, end: str, step: int, target: str | None, masked: bool = False) -> str:
            """To the end, or to `target` where some lane hits; gives the index there."""
            before, head, look, following, after = e.current, *(e.label() for _ in range(4))
            i, next = e.fresh("i"), e.fresh("i")
            e.branch(head)
            e.at(head)
            e.line(f"{i} = phi i64 [{start}, %{before}], [{next}, %{following}]")
            e.branch_if(e.value(f"icmp slt i64 {i}, {end}"), look, after)
            e.at(look)
            mask = self.tail_mask(e.value(f"sub i64 {end}, {i}")) if masked else None
            hit = hit_at(i, mask)
            for k in range(lanes, step, lanes):
                hit = e.value(f"or {t.of('i1')} {hit}, {hit_at(plus(e, i, str(k)))}")
            if mask:
                hit = e.value(f"and {t.of('i1')} {hit}, {mask}")
            bits = self.bits(hit)
            if target is not None:
                hits.append((bits, i, e.current))
            e.branch_if(e.value(f"icmp ne i{lanes} {bits}, 0"), target or after, following)
            e.at(following)
            e.line(f"{next} = add nsw i64 {i}, {step}")
            e.branch(head)
            e.at(after)
            return i

        # some vectors at once, then those of the first hit one by one
        block = walk("0", e.value(f"and i64 {n}, {-lanes * WAYS}"), lanes * WAYS, None)
        whole = e.value(f"and i64 {n}, {-lanes}")
        walk(block, whole, lanes, found)
        walk(whole, n, lanes, found, masked=True)
        missing = e.current
        e.branch(done)
        e.at(found)
        bits = e.value(f"phi i{lanes} " + ", ".join(f"[{bits}, %{block}]" for bits, _, block in hits))
        start = e.value("phi i64 " + ", ".join(f"[{i}, %{block}]" for _, i, block in hits))
        wide = bits if lanes == 64 else e.value(f"zext i{lanes} {bits} to i64")
        lane = e.call("i64", "llvm.cttz.i64", ("i64", wide), ("i1", "true"))
        index, place = plus(e, start, lane), e.current
        e.branch(done)
        e.at(done)
        return e.value(f"phi i64 [0, %{missing}], [{index}, %{place}]")

    # -- lines beside each other -----------------------------------------------------------------------------------

    def across(self) -> Kernel:
        beside = self.kept[-1] if self.gathered else self.dense_beside(self.axis, (0,))
        if beside is None:
            self.lanes = 1
        out = -1 if beside is None else self.kept.index(beside)

        def line(places: list[str], mask: str | None) -> None:
            self.store_lanes(places, out, self.best_of(places, mask), mask)

        self.lines(self.axis, beside, self.lanes, "64", line)
        return self.finish(self.op.name)

    def best_of(self, places: Sequence[str], mask: str | None) -> str:
        """The index along the axis of the best element of each lane's line."""
        e, lanes = self.e, self.lanes
        t, i1 = VecType(scalar.elem(self.dtype), lanes), VecType("i1", lanes)
        index = VecType(f"i{8 * t.bytes}" if self.gathered else "i64", lanes)
        offsets = self.offsets() if self.gathered else ""

        def step(i: str, carried: list[str]) -> list[str]:
            best, where = carried
            first = self.address(0, self.at(places, i))
            if self.gathered:
                value = gather(e, t, first, offsets, mask, align=scalar.alignment(self.dtype))
            else:
                value = self.vector(first, lanes, mask)
            sign = ">" if self.fold.how == "max" else "<"
            operands = {"a": (self.dtype, value), "b": (self.dtype, best)}
            better = scalar.emit_scalar(e, self.target, f"a {sign} b", operands, lanes=lanes, result="bool")
            if t.is_float:
                had = e.value(f"fcmp ord {t} {best}, {best}")
                nan = e.value(f"and {i1} {self.is_nan(value, lanes)}, {had}")
                better = e.value(f"or {i1} {better}, {nan}")
            new = e.value(f"select {i1} {better}, {t} {value}, {t} {best}")
            here = i if index.elem == "i64" else e.value(f"trunc i64 {i} to {index.elem}")
            here = here if lanes == 1 else splat(e, index, here)
            return [new, e.value(f"select {i1} {better}, {index} {here}, {index} {where}")]

        # nothing is better than the worst there is, and index 0 is right for a line of those
        worst = t.const(identity_value(self.fold.how, self.dtype))
        n = self.size(self.t.shape[self.axis])
        found = e.loop(0, n, 1, step, [(t, worst), (index, index.const(0))])[1]
        return found if index.elem == "i64" else e.value(f"zext {index} {found} to <{lanes} x i64>")

    def offsets(self) -> str:
        """Of the rows that lanes walk, from the first of them."""
        wide = VecType("i64", self.lanes)
        step = splat(self.e, wide, self.size(self.t.strides[self.kept[-1]]))
        return self.e.value(f"mul {wide} {iota(self.lanes)}, {step}")

    def store_lanes(self, places: Sequence[str], out: int, value: str, mask: str | None) -> None:
        e, lanes = self.e, self.lanes
        if out < 0 or self.types[1].strides[out] == 1:
            scalar.store(e, self.target, "i64", lanes, value, self.address(1, places), mask)
            return
        for lane in range(lanes):

            def one() -> None:
                at = [*places[:out], plus(e, places[out], str(lane)), *places[out + 1 :]]
                self.store(1, at, e.value(f"extractelement <{lanes} x i64> {value}, i64 {lane}"))

            e.when(e.value(f"extractelement <{lanes} x i1> {mask}, i64 {lane}"), one)
