"""Quicksort of integers by whole vectors, for CPUs that move lanes by numbers (AVX2 and AVX-512).

A step of the recursion cuts a range in two: what is below the pivot goes to the range's place in the result, the rest to a spare
area, both in order and without a branch for each element (as Bramas, 2017, and vqsort, Blacher et al., 2022, which work in place).
One of the two targets is where the range lies, and is never written past what has been read.  Ranges of a few vectors are
sorted in registers: the columns by Batcher's network, then pairs of neighbouring columns are merged by bitonic ones.

The pivot is the median of samples, so ranges shrink by half; one that does not is left to a sort that takes the same time
for all orders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tcc.codegen.emit import Emit, VecType
from tcc.codegen.index import at_least
from tcc.codegen.target import Target
from tcc.codegen.vectors import lane_mask, load, splat, store

LARGE = 64  # times the samples of a large range
UNROLLED = 4
FILL = 14  # sixteenths of what fits the registers that a range there is to have


class Quicksort:
    """Writes `quick` and what it needs; what is sorted is taken for signed integers, `elem`.

    What is sorted has `length` elements, if that is known: of a few, only `few` is written.  `finish` turns sorted vectors into what is left in the result (None: themselves); `stable_time` names a function
    `void (ptr from, ptr to, ptr spare, i64 n)` whose time hangs on n alone, which finishes too.
    """

    def __init__(
        self,
        e: Emit,
        target: Target,
        elem: str,
        length: int | None,
        finish: Callable[[str], str] | None,
        stable_time: str,
    ) -> None:
        self.e, self.t, self.finish, self.stable_time = e, target.vector(elem), finish, stable_time
        most = target.registers // 2
        self.networks = (most // 4, most // 2, most)  # vectors that are sorted in registers
        enough = [v for v in self.networks if length is not None and length <= v * self.t.lanes]
        self.used = enough[:1] or self.networks
        self.is_few = bool(enough)
        self.samples = (
            self.networks[0],
            most,
        )  # vectors that a pivot is the median of, in a range and in a large one
        self.most = (1 << (8 * self.t.bytes - 1)) - 1

    @property
    def base(self) -> int:
        """The most that are sorted in registers."""
        return self.networks[-1] * self.t.lanes

    def write(self) -> None:
        for vectors in self.used:
            self.write_network(vectors)
        self.write_few()
        if self.is_few:
            return
        self.write_cut()
        self.write_pivot()
        self.write_sort()

    def at(self, base: str, index: int | str) -> str:
        return self.e.gep(base, index, self.t.elem)

    def load(self, pointer: str, mask: str | None = None) -> str:
        """A vector, with the greatest number where the mask has no lane."""
        e, t = self.e, self.t
        if mask is None:
            return load(e, t, pointer)
        name, mt = f"llvm.masked.load.{t.suffix}.p0", t.of("i1")
        e.declare(f"declare {t} @{name}(ptr, {mt}, {t})")
        return e.value(
            f"call {t} @{name}(ptr align {t.bytes} {pointer}, {mt} {mask}, {t} {t.const(self.most)})"
        )

    def each(self, n: str, body: Callable[[str, str | None], None]) -> None:
        """`body(index, mask)` for vectors from the first of n elements to the last, which may have fewer."""
        e, t = self.e, self.t
        whole = e.value(f"and i64 {n}, {-t.lanes}")
        e.loop(0, whole, t.lanes, lambda i, _: body(i, None))
        rest = e.value(f"sub i64 {n}, {whole}")
        e.when(e.value(f"icmp ne i64 {rest}, 0"), lambda: body(whole, lane_mask(e, t, rest)))

    # -- in registers ---------------------------------------------------------------------------------------------

    def write_network(self, vectors: int) -> None:
        """`void network(ptr from, ptr to, i64 n)`: of at most so many vectors, and more than the next smaller network takes."""
        e, t = self.e, self.t
        e.function(f"internal void @KERNEL_NAME.network{vectors}(ptr %from, ptr %to, i64 %n)")
        sure = max((v for v in self.networks if v < vectors), default=0)
        masks: list[str | None] = [None] * sure
        for i in range(sure, vectors):
            left = e.value(f"sub i64 %n, {i * t.lanes}")
            masks.append(lane_mask(e, t, at_least(e, left, "0")))
        v = [self.load(self.at("%from", i * t.lanes), mask) for i, mask in enumerate(masks)]
        for i, j in odd_even_pairs(vectors):
            v[i], v[j] = self.ordered(v[i], v[j])
        levels = t.lanes.bit_length() - 1
        v = e.loop(0, levels, 1, self.merge_columns, [(t, x) for x in v])
        for i, mask in enumerate(masks):
            store(e, t, v[i], self.at("%to", i * t.lanes), mask)
        e.end()

    def ordered(self, a: str, b: str) -> tuple[str, str]:
        """Lane by lane, the lesser and the greater."""
        t = self.t
        low, high = (self.e.call(t, f"llvm.{m}.{t.suffix}", (t, a), (t, b)) for m in ("smin", "smax"))
        return low, high

    def merge_columns(self, level: str, v: list[str]) -> list[str]:
        """Groups of 2 << level columns become sorted, row after row, whose halves are.  (A loop, as there is much text in it.)

        A row's partner is turned: the sequence of the left half and, backwards, of the right one is bitonic, and so are
        the lesser and the greater ones, which stay where they are, in rows that lie in the upper and in the lower half.
        """
        e, t, v, height = self.e, self.t, list(v), len(v)
        last = e.value(f"sub i64 {e.value(f'shl i64 2, {level}')}, 1")
        turned = self.partners(last)
        while height > 1:
            for block in range(0, len(v), height):
                for i in range(height // 2):
                    low, high = block + i, block + height - 1 - i
                    v[low], v[high] = self.ordered(v[low], self.moved(t, v[high], turned))
            height //= 2

        def within_rows(step: str, v: list[str]) -> list[str]:
            bit = e.value(f"shl i64 1, {e.value(f'sub i64 {level}, {step}')}")
            first = e.value(f"icmp eq i64 {step}, 0")
            partner = self.partners(e.value(f"select i1 {first}, i64 {last}, i64 {bit}"))
            lanes = ", ".join(f"{t.elem} {i}" for i in range(t.lanes))
            chosen = e.value(f"and {t} <{lanes}>, {splat(e, t, self.narrow(bit))}")
            upper = e.value(f"icmp ne {t} {chosen}, zeroinitializer")
            made = []
            for x in v:
                lesser, greater = self.ordered(x, self.moved(t, x, partner))
                made.append(e.value(f"select {t.of('i1')} {upper}, {t} {greater}, {t} {lesser}"))
            return made

        return e.loop(0, e.value(f"add i64 {level}, 1"), 1, within_rows, [(t, x) for x in v])

    def narrow(self, value: str, elem: str = "") -> str:
        """An i64 as an element."""
        elem = elem or self.t.elem
        return value if elem == "i64" else self.e.value(f"trunc i64 {value} to {elem}")

    def partners(self, distance: str) -> str:
        """For `moved`: of each lane the one whose number differs in the bits of `distance`."""
        e, index = self.e, self.index_type(self.t)
        size = index.lanes // self.t.lanes
        lanes = ", ".join(f"{index.elem} {i}" for i in range(index.lanes))
        bits = self.narrow(e.value(f"mul i64 {distance}, {size}") if size > 1 else distance, index.elem)
        return e.value(f"xor {index} <{lanes}>, {splat(e, index, bits)}")

    @staticmethod
    def index_type(t: VecType) -> VecType:
        """Of the numbers of lanes: of a vector of 256 bits, its eighths."""
        return t if t.bytes * t.lanes == 64 else VecType("i32", 8)

    def moved(self, t: VecType, x: str, index: str) -> str:
        """A vector's lanes by their numbers."""
        e, to = self.e, self.index_type(t)
        if to == t:
            kind = {"<16 x i32>": "avx512.permvar.si.512", "<8 x i64>": "avx512.permvar.di.512"}
            return e.call(t, f"llvm.x86.{kind.get(str(t), 'avx2.permd')}", (t, x), (t, index))
        got = e.call(to, "llvm.x86.avx2.permd", (to, e.value(f"bitcast {t} {x} to {to}")), (to, index))
        return e.value(f"bitcast {to} {got} to {t}")

    def write_few(self) -> None:
        """`void few(ptr from, ptr to, i64 n)`: n of `base` at most, finished."""
        e, t = self.e, self.t
        e.function("internal void @KERNEL_NAME.few(ptr %from, ptr %to, i64 %n)")
        after = e.label()
        for vectors in self.used:
            here, larger = e.label(), e.label()
            if vectors != self.used[-1]:
                e.branch_if(e.value(f"icmp sle i64 %n, {vectors * t.lanes}"), here, larger)
                e.at(here)
            e.line(f"call void @KERNEL_NAME.network{vectors}(ptr %from, ptr %to, i64 %n)")
            e.branch(after)
            e.at(larger if vectors != self.used[-1] else after)
        self.finished("%to", "%n")
        e.end()

    def finished(self, place: str, n: str) -> None:
        if self.finish is None:
            return
        e, t, finish = self.e, self.t, self.finish

        def one(i: str, mask: str | None) -> None:
            at = self.at(place, i)
            store(e, t, finish(self.load(at, mask)), at, mask)

        self.each(n, one)

    # -- one step -------------------------------------------------------------------------------------------------

    def write_cut(self) -> None:
        """`i64 cut(ptr from, ptr low, ptr high, i64 n, T pivot)`: what is below the pivot to `low`, the rest to `high`.

        Gives how many are below.  `from` may be one of the two; no more than n elements of either are written.
        """
        e, t, i64 = self.e, self.t, "i64"
        part = VecType(t.elem, min(t.lanes, 8))  # the table has as many rows as there are sets of lanes
        bits, mask_type = f"i{part.lanes}", part.of("i1")
        e.function(f"internal i64 @KERNEL_NAME.cut(ptr %from, ptr %low, ptr %high, i64 %n, {t.elem} %pivot)")
        pivot = splat(e, part, "%pivot")

        def lanes_of(mask: str) -> str:
            return e.value(f"bitcast {mask_type} {mask} to {bits}")

        def counted(lanes: str) -> str:
            return e.call(i64, "llvm.ctpop.i64", (i64, e.value(f"zext {bits} {lanes} to i64")))

        def vectors(count: int) -> Callable[[str, list[str]], list[str]]:
            def some(i: str, state: list[str]) -> list[str]:
                (below,) = state
                indices = [e.value(f"add i64 {i}, {u * part.lanes}") for u in range(count)]
                loaded = [load(e, part, self.at("%from", index)) for index in indices]
                for index, x in zip(indices, loaded, strict=True):
                    less = lanes_of(e.value(f"icmp slt {part} {x}, {pivot}"))
                    rest = e.value(f"xor {bits} {less}, -1")
                    store(e, part, self.compressed(part, x, less), self.at("%low", below))
                    above = e.value(f"sub i64 {index}, {below}")
                    store(e, part, self.compressed(part, x, rest), self.at("%high", above))
                    below = e.value(f"add i64 {below}, {counted(less)}")
                return [below]

            return some

        whole = e.value(f"and i64 %n, {-part.lanes}")
        many = e.value(f"and i64 %n, {-UNROLLED * part.lanes}")
        (below,) = e.loop(0, many, UNROLLED * part.lanes, vectors(UNROLLED), [(i64, "0")])
        (below,) = e.loop(many, whole, part.lanes, vectors(1), [(i64, below)])
        left = e.value(f"sub i64 %n, {whole}")

        def last() -> list[str]:
            live = lane_mask(e, part, left)
            x = load(e, part, self.at("%from", whole), live)
            less = e.value(f"icmp slt {part} {x}, {pivot}")
            low = lanes_of(e.value(f"and {mask_type} {less}, {live}"))
            high = e.value(f"xor {bits} {low}, {lanes_of(live)}")
            above = e.value(f"sub i64 {whole}, {below}")
            for lanes, place, index in ((low, "%low", below), (high, "%high", above)):
                some = lane_mask(e, part, counted(lanes))
                store(e, part, self.compressed(part, x, lanes), self.at(place, index), some)
            return [e.value(f"add i64 {below}, {counted(low)}")]

        (total,) = e.when(e.value(f"icmp ne i64 {left}, 0"), last, [(i64, below)])
        e.end(f"i64 {total}")

    def compressed(self, part: VecType, x: str, lanes: str) -> str:
        """Those lanes of a vector in front, by a table.  (Instructions for this take longer, some CPUs' very long.)"""
        e, to = self.e, self.index_type(part)
        table = f"@tcc_lanes_{part.lanes}"
        e.declare(f"{table} = internal constant [{1 << part.lanes} x i64] [{_rows(part.lanes)}], align 64")
        row = e.gep(table, e.value(f"zext i{part.lanes} {lanes} to i64"), "i64")
        index = e.value(f"zext <8 x i8> {e.value(f'load <8 x i8>, ptr {row}, align 8')} to {to}")
        return self.moved(part, x, index)

    def write_pivot(self) -> None:
        """`T pivot(ptr from, i64 n)`: of vectors at equal distances, about the median.

        So many are below it that ranges in the end fill the registers: half of the pieces, of which a little less than fits.
        """
        e, t = self.e, self.t
        e.function(f"internal {t.elem} @KERNEL_NAME.pivot(ptr %from, i64 %n)")
        few, many = self.samples
        samples = e.value(f"alloca [{many} x {t}], align 64")
        last = e.value(f"sub i64 %n, {t.lanes}")
        piece = self.base * FILL // 16
        pieces = e.value(f"udiv i64 {e.value(f'add i64 %n, {piece - 1}')}, {piece}")
        low = e.value(f"mul i64 {e.value(f'lshr i64 {pieces}, 1')}, {piece}")

        def median(vectors: int) -> list[str]:
            step = e.value(f"udiv i64 {last}, {vectors - 1}")
            for i in range(vectors):
                x = self.load(self.at("%from", e.value(f"mul i64 {step}, {i}")))
                store(e, t, x, self.at(samples, i * t.lanes))
            count = vectors * t.lanes
            e.line(f"call void @KERNEL_NAME.network{vectors}(ptr {samples}, ptr {samples}, i64 {count})")
            rank = e.value(f"udiv i64 {e.value(f'mul i64 {low}, {count}')}, %n")
            return [e.value(f"load {t.elem}, ptr {self.at(samples, rank)}")]

        large = e.value(f"icmp sgt i64 %n, {LARGE * many * t.lanes}")
        (found,) = median(few)
        (found,) = e.when(large, lambda: median(many), [(t.elem, found)])
        e.end(f"{t.elem} {found}")

    def write_sort(self) -> None:
        """`void quick(ptr from, ptr to, ptr spare, i64 n, i64 depth)`: `from` is `to` or `spare`, each with room for n elements."""
        e, t = self.e, self.t
        e.function("internal void @KERNEL_NAME.quick(ptr %from, ptr %to, ptr %spare, i64 %n, i64 %depth)")

        def leave(cond: str, text: str) -> None:
            then, on = e.label(), e.label()
            e.branch_if(cond, then, on)
            e.at(then)
            e.line(text)
            e.line("ret void")
            e.at(on)

        few = e.value(f"icmp sle i64 %n, {self.base}")
        leave(few, "call void @KERNEL_NAME.few(ptr %from, ptr %to, i64 %n)")
        deep = e.value("icmp eq i64 %depth, 0")
        leave(deep, f"call void {self.stable_time}(ptr %from, ptr %to, ptr %spare, i64 %n)")

        pivot = e.value(f"call {t.elem} @KERNEL_NAME.pivot(ptr %from, i64 %n)")
        less = self.divide("%from", "%n", pivot)

        def none_less() -> list[str]:
            """The pivot is the least: those that equal it are at their places, whose number may be all."""
            after = e.value(f"add {t.elem} {pivot}, 1")
            greatest = e.value(f"icmp eq {t.elem} {pivot}, {self.most}")
            equal = e.when(
                e.value(f"xor i1 {greatest}, true"),
                lambda: [self.divide("%spare", "%n", after)],
                [("i64", "%n")],
            )[0]
            same = splat(e, t, pivot)
            value = self.finish(same) if self.finish else same
            self.each(equal, lambda i, mask: store(e, t, value, self.at("%to", i), mask))
            return [equal, "0"]

        zero = e.value(f"icmp eq i64 {less}, 0")
        done, low = e.when(zero, none_less, [("i64", less), ("i64", less)])
        high = e.value(f"sub i64 %n, {done}")
        below = e.value("sub i64 %depth, 1")
        spare = self.at("%spare", high)
        e.line(f"call void @KERNEL_NAME.quick(ptr %to, ptr %to, ptr {spare}, i64 {low}, i64 {below})")
        to = self.at("%to", done)
        e.line(f"call void @KERNEL_NAME.quick(ptr %spare, ptr {to}, ptr %spare, i64 {high}, i64 {below})")
        e.end()

    def divide(self, source: str, n: str, pivot: str) -> str:
        """A range by a pivot, to where its result and where its spare area is; how many are below it."""
        return self.e.value(
            f"call i64 @KERNEL_NAME.cut(ptr {source}, ptr %to, ptr %spare, i64 {n}, {self.t.elem} {pivot})"
        )


def odd_even_pairs(n: int) -> Iterator[tuple[int, int]]:
    """Batcher's network (1968) for n values, a power of two: what to compare, in order."""
    p = 1
    while p < n:
        k = p
        while k:
            for j in range(k % p, n - k, 2 * k):
                for i in range(j, j + k):
                    if i // (2 * p) == (i + k) // (2 * p):
                        yield i, i + k
            k //= 2
        p *= 2


def _rows(lanes: int) -> str:
    """For each set of lanes their numbers, lowest first, as bytes; of lanes that are two eighths of a vector, both."""
    size, rows = 8 // lanes, []
    for chosen in range(1 << lanes):
        eighths = [lane * size + part for lane in range(lanes) if chosen >> lane & 1 for part in range(size)]
        rows.append(sum(eighth << 8 * i for i, eighth in enumerate(eighths)))
    return ", ".join(f"i64 {row}" for row in rows)
