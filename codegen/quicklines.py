"""Lines that are sorted by quicksorts of vectors, where the CPU has instructions for them (quicksort.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tcc.codegen.emit import VecType
from tcc.codegen.index import at_most, times
from tcc.codegen.kernel import Kernel, Scratch
from tcc.codegen.nest import Position
from tcc.codegen.quicksort import Quicksort
from tcc.codegen.radix import BUCKETS, INSERTION, Areas, Lines
from tcc.codegen.target import Target
from tcc.codegen.vectors import load, store
from tcc.ir import dims
from tcc.ir.core import Op
from tcc.runtime.layout import CTX_THREADS

COST = 128  # sixteenths of a cycle an element
DEPTH = 2  # times the depth that halving takes, behind which ranges are sorted by radix
LONG = 1 << 16  # elements of a line that is worth all threads
SHARES = 8  # of a thread, for each of which a line has a part and a range of values
MOST_SHARES = 64  # of all threads
SAMPLED = 16  # elements for each range of values
# What threads know of a line that they share, and the words of one entry of its table.
JOB = {
    name: slot for slot, name in enumerate("args line shares n to spare samples sorted table starts".split())
}
ENTRY = 2  # where some elements are, and their number


class QuickLines(Lines):
    """sort and argsort by vectors: where the result's line is dense it is sorted there.

    Of fewer lines than threads each is shared by all, in phases.  Every thread makes the records of a part of the line.  It
    cuts its part by the quantiles of samples, as quicksort would by its pivots, into ranges of values.  A range's elements of
    all parts are put together, at their place in the result, and sorted there.
    """

    def __init__(self, op: Op, target: Target, *, positions: bool) -> None:
        super().__init__(op, target, positions=positions)
        self.vector = VecType(f"i{self.width}", self.lanes)
        self.top = -(1 << (self.width - 1))
        self.dense = self.types[1].strides[self.axis] == 1
        self.long = not isinstance(self.length, int) or self.length >= LONG

    def quick_kernel(self) -> Kernel:
        e = self.e
        finish = None if self.settled_later else self.finished
        length = self.length if isinstance(self.length, int) else None
        sort = Quicksort(e, self.target, self.vector.elem, length, finish, "@KERNEL_NAME.steady")
        sort.write()
        self.few = sort.is_few
        if not self.few:
            self.write_sort()
            self.write_steady()
        self.write_more()
        self.write_body(self.line)
        if self.long:
            self.write_split()
            self.write_phases()
            self.write_shared()
        self.begin_kernel([self.area])
        if self.long:
            self.write_choice()
        else:
            self.share_lines(COST)
        e.end("i32 0")
        return self.finished_kernel(dims.mul(2, self.area))

    def line(self, places: list[str], areas: Areas) -> None:
        """A line by one thread."""
        n = self.size(self.length)
        to = self.at(1, places) if self.dense else areas.first
        self.build(places, to, n)
        self.sort_range(places, to, areas.second, n)
        if not self.dense:
            self.leave(places, to, n)

    @property
    def settled_later(self) -> bool:
        """Whether sorted records are not turned into what the result holds as they are left; of signed integers they are it."""
        return self.dtype[0] == "i" and not self.positions

    def write_more(self) -> None:
        """Functions besides those that sort records."""

    def sort_range(self, places: Sequence[str], to: str, spare: str, n: str) -> None:
        """Records of a line, or all of a range of values, to what the result holds."""
        self.sort_records(to, spare, n)

    def sort_records(self, to: str, spare: str, n: str) -> None:
        e = self.e
        if self.few:
            e.line(f"call void @KERNEL_NAME.few(ptr {to}, ptr {to}, i64 {n})")
            return
        zeros = e.call("i64", "llvm.ctlz.i64", ("i64", n), ("i1", "false"))
        depth = e.value(f"mul i64 {e.value(f'sub i64 64, {zeros}')}, {DEPTH}")
        e.line(f"call void @KERNEL_NAME.quick(ptr {to}, ptr {to}, ptr {spare}, i64 {n}, i64 {depth})")

    def turned(self, records: str) -> str:
        """Records as signed integers of their order, and back."""
        return self.e.value(f"xor {self.vector} {records}, {self.vector.const(self.top)}")

    def keep_records(self, records: str, base: str, pos: Position) -> None:
        at = self.e.gep(base, pos.offset, self.vector.elem)
        store(self.e, self.vector, self.turned(records), at, pos.mask or None)

    def finished(self, records: str) -> str:
        """What the result holds: of records as signed integers."""
        if self.positions:
            return self.e.value(f"and {self.vector} {records}, {self.vector.const((1 << 32) - 1)}")
        return self.element(self.turned(records))

    def write_steady(self) -> None:
        """`void steady(ptr from, ptr to, ptr spare, i64 n)`: by radix."""
        e, t = self.e, self.vector
        e.function("internal void @KERNEL_NAME.steady(ptr %from, ptr %to, ptr %spare, i64 %n)")
        counts = e.value(f"alloca [{self.digits * BUCKETS} x i32], align 64")
        here = e.value("icmp eq ptr %from, %to")
        other = e.value(f"select i1 {here}, ptr %spare, ptr %to")

        def place(base: str, pos: Position) -> tuple[str, str | None]:
            return e.gep(base, pos.offset, t.elem), pos.mask or None

        def turn(pos: Position) -> None:
            at, mask = place("%from", pos)
            store(e, t, self.turned(load(e, t, at, mask)), at, mask)

        self.each_vector("%n", turn)
        made = e.value(f"call ptr @KERNEL_NAME.sort(ptr %from, ptr {other}, ptr {counts}, i64 %n)")

        def leave(pos: Position) -> None:
            at, mask = place(made, pos)
            value = self.finished(self.turned(load(e, t, at, mask)))
            store(e, t, value, place("%to", pos)[0], mask)

        self.each_vector("%n", leave)
        e.end()

    def leave(self, places: Sequence[str], line: str, end: str, start: str = "0") -> None:
        """What is sorted of a line goes to the result, which is not dense."""
        e, base = self.e, self.at(1, places)
        stride, t = self.types[1].strides[self.axis], self.vector

        def one(pos: Position) -> None:
            value = load(e, t, e.gep(line, pos.offset, t.elem), pos.mask or None)
            self.vectors.store(f"u{self.width}", value, base, stride, pos)

        self.each_vector(end, one, start)

    # -- lines that threads share -----------------------------------------------------------------------------------

    def write_choice(self) -> None:
        """The kernel: lines to threads, or each line to all of them."""
        e, lines = self.e, self.count(self.kept)
        threads = e.value(f"load i64, ptr {e.gep('%ctx', CTX_THREADS, 'i64')}")
        few = e.value(f"icmp slt i64 {lines}, {threads}")
        long = e.value(f"icmp sge i64 {self.size(self.length)}, {LONG}")
        shared = e.value(f"and i1 {few}, {long}")

        def together() -> None:
            many = times(e, threads, str(SHARES))
            shares = at_most(e, many, str(MOST_SHARES))
            call = f"call void @KERNEL_NAME.shared(ptr %ctx, ptr %args, i64 {shares}, i64"
            e.loop(0, lines, 1, lambda u, _: e.line(f"{call} {u})"))

        e.when(shared, together)
        e.when(e.value(f"xor i1 {shared}, true"), lambda: self.share_lines(COST))

    def write_split(self) -> None:
        """`void split(ptr from, ptr to, ptr spare, i64 n, ptr pivots, ptr entries, i64 first, i64 count)`.

        Cuts records into ranges of values by pivots; each goes to the spare area, and into the table."""
        e, elem = self.e, self.vector.elem
        call = "call void @KERNEL_NAME.split"
        e.function(
            "internal void @KERNEL_NAME.split(ptr %from, ptr %to, ptr %spare, i64 %n, ptr %pivots, ptr %entries, "
            "i64 %first, i64 %count)"
        )
        one, several = e.label(), e.label()
        e.branch_if(e.value("icmp eq i64 %count, 1"), one, several)
        e.at(one)
        e.when(e.value("icmp eq ptr %from, %to"), lambda: self.copy_records("%spare", "%to", "%n"))
        entry = e.gep("%entries", e.value(f"mul i64 %first, {ENTRY}"), "i64")
        e.line(f"store ptr %spare, ptr {entry}")
        e.line(f"store i64 %n, ptr {e.gep(entry, 1, 'i64')}")
        e.line("ret void")
        e.at(several)
        half = e.value("lshr i64 %count, 1")
        upper = e.value(f"add i64 %first, {half}")
        pivot = e.value(f"load {elem}, ptr {e.gep('%pivots', e.value(f'sub i64 {upper}, 1'), elem)}")
        cut = f"ptr %from, ptr %to, ptr %spare, i64 %n, {elem} {pivot}"
        low = e.value(f"call i64 @KERNEL_NAME.cut({cut})")
        high = e.value(f"sub i64 %n, {low}")
        known = "ptr %pivots, ptr %entries"
        spare, to = e.gep("%spare", high, elem), e.gep("%to", low, elem)
        e.line(f"{call}(ptr %to, ptr %to, ptr {spare}, i64 {low}, {known}, i64 %first, i64 {half})")
        rest = e.value(f"sub i64 %count, {half}")
        e.line(f"{call}(ptr %spare, ptr {to}, ptr %spare, i64 {high}, {known}, i64 {upper}, i64 {rest})")
        e.end()

    def copy_records(self, to: str, source: str, n: str) -> None:
        e = self.e
        e.declare("declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)")
        size = e.value(f"mul i64 {n}, {self.width // 8}")
        e.line(f"call void @llvm.memcpy.p0.p0.i64(ptr {to}, ptr {source}, i64 {size}, i1 false)")

    def job(self, name: str, pointer: str = "%job") -> str:
        """What a shared line's threads know."""
        kind = "i64" if name in ("line", "shares", "n") else "ptr"
        return self.e.value(f"load {kind}, ptr {self.e.gep(pointer, JOB[name], 'i64')}")

    def begin_phase(self, name: str) -> None:
        e = self.e
        e.function(
            f"internal void @KERNEL_NAME.{name}(ptr %ctx, ptr %job, i64 %begin, i64 %end, i64 %thread)"
        )
        e.line(f"%args = load ptr, ptr {e.gep('%job', JOB['args'], 'i64')}")
        self.load_arguments([self.area])

    def part(self, share: str) -> tuple[str, str]:
        """Where a thread's part of the line begins and ends."""
        e, n, shares = self.e, self.job("n"), self.job("shares")
        ends = (e.value(f"mul i64 {n}, {s}") for s in (share, e.value(f"add i64 {share}, 1")))
        start, end = (e.value(f"udiv i64 {at}, {shares}") for at in ends)
        return start, end

    def entry(self, table: str, shares: str, share: str, number: str) -> tuple[str, str]:
        """Where a part's elements of one range are, and their number."""
        e = self.e
        index = e.value(f"add i64 {e.value(f'mul i64 {share}, {shares}')}, {number}")
        at = e.gep(table, e.value(f"mul i64 {index}, {ENTRY}"), "i64")
        return e.value(f"load ptr, ptr {at}"), e.value(f"load i64, ptr {e.gep(at, 1, 'i64')}")

    def write_phases(self) -> None:
        """The bodies: over parts of a line, then over ranges of values."""
        e, elem = self.e, self.vector.elem

        def phase(name: str, body: Callable[[str], None]) -> None:
            self.begin_phase(name)
            e.loop("%begin", "%end", 1, lambda u, _: body(u))
            e.end()

        def make(share: str) -> None:
            start, end = self.part(share)
            self.build(self.unravel(self.job("line"), self.kept), self.job("to"), end, start)

        def cut(share: str) -> None:
            start, end = self.part(share)
            shares, count = self.job("shares"), e.value(f"sub i64 {end}, {start}")
            to, spare = (e.gep(self.job(name), start, elem) for name in ("to", "spare"))
            row = e.value(f"mul i64 {e.value(f'mul i64 {share}, {shares}')}, {ENTRY}")
            known = f"ptr {self.job('sorted')}, ptr {e.gep(self.job('table'), row, 'i64')}"
            e.line(
                f"call void @KERNEL_NAME.split(ptr {to}, ptr {to}, ptr {spare}, i64 {count}, {known}, i64 0, i64 {shares})"
            )

        def bounds(number: str) -> tuple[str, str]:
            starts = e.gep(self.job("starts"), number, "i64")
            start, end = (e.value(f"load i64, ptr {e.gep(starts, i, 'i64')}") for i in range(2))
            return start, end

        def collect(number: str) -> None:
            table, shares, (start, _) = self.job("table"), self.job("shares"), bounds(number)

            def one(share: str, at: list[str]) -> list[str]:
                source, count = self.entry(table, shares, share, number)
                self.copy_records(at[0], source, count)
                return [e.gep(at[0], count, elem)]

            e.loop(0, shares, 1, one, [("ptr", e.gep(self.job("to"), start, elem))])

        def sort(number: str) -> None:
            start, end = bounds(number)
            to, spare = (e.gep(self.job(name), start, elem) for name in ("to", "spare"))
            places = self.unravel(self.job("line"), self.kept)
            self.sort_range(places, to, spare, e.value(f"sub i64 {end}, {start}"))
            if not self.dense:
                self.leave(places, self.job("to"), end, start)

        for name, body in (("make", make), ("cuts", cut), ("collect", collect), ("sorts", sort)):
            phase(name, body)

    def write_shared(self) -> None:
        """`void shared(ptr ctx, ptr args, i64 shares, i64 line)`: one line by all threads."""
        e = self.e
        self.begin(
            "internal void @KERNEL_NAME.shared(ptr %ctx, ptr %args, i64 %shares, i64 %line)", [self.area]
        )
        job = e.value(f"alloca [{len(JOB)} x i64], align 8")
        areas, n = self.areas_of("0"), self.size(self.length)
        to = self.at(1, self.unravel("%line", self.kept)) if self.dense else areas.first
        words = 2 * MOST_SHARES * SAMPLED + MOST_SHARES * MOST_SHARES * ENTRY + MOST_SHARES + 1
        samples = self.slots.pointer(e, Scratch(8 * words))
        other = e.gep(samples, MOST_SHARES * SAMPLED, "i64")
        table = e.gep(other, MOST_SHARES * SAMPLED, "i64")
        starts = e.gep(table, MOST_SHARES * MOST_SHARES * ENTRY, "i64")
        known = {"args": "%args", "line": "%line", "shares": "%shares", "n": n, "to": to}
        known |= {"spare": areas.second, "samples": samples, "table": table, "starts": starts}

        def tell(name: str, value: str) -> None:
            kind = "i64" if name in ("line", "shares", "n") else "ptr"
            e.line(f"store {kind} {value}, ptr {e.gep(job, JOB[name], 'i64')}")

        def phase(name: str) -> None:
            e.declare("declare void @tcc_parallel(ptr, ptr, ptr, i64, i64)")
            e.line(
                f"call void @tcc_parallel(ptr %ctx, ptr @KERNEL_NAME.{name}, ptr {job}, i64 %shares, i64 1)"
            )

        for name, value in known.items():
            tell(name, value)
        phase("make")
        tell("sorted", self.pivots(to, n, samples, other))
        phase("cuts")

        def first(number: str, at: list[str]) -> list[str]:
            e.line(f"store i64 {at[0]}, ptr {e.gep(starts, number, 'i64')}")

            def add(share: str, total: list[str]) -> list[str]:
                return [e.value(f"add i64 {total[0]}, {self.entry(table, '%shares', share, number)[1]}")]

            return e.loop(0, "%shares", 1, add, [("i64", at[0])])

        (end,) = e.loop(0, "%shares", 1, first, [("i64", "0")])
        e.line(f"store i64 {end}, ptr {e.gep(starts, '%shares', 'i64')}")
        phase("collect")
        phase("sorts")
        e.end()

    def bound_of(self, record: str) -> str:
        """The lowest record of the range of values that one begins."""
        return record

    def pivots(self, records: str, n: str, samples: str, other: str) -> str:
        """The records between ranges of values: quantiles of samples at equal distances."""
        e, elem = self.e, self.vector.elem
        count = e.value(f"mul i64 %shares, {SAMPLED}")
        step = e.value(f"udiv i64 {n}, {count}")

        def sample(i: str, _: list[str]) -> None:
            record = e.value(f"load {elem}, ptr {e.gep(records, e.value(f'mul i64 {i}, {step}'), elem)}")
            unsigned = self.bound_of(e.value(f"xor {elem} {record}, {self.top}"))
            e.line(f"store {elem} {unsigned}, ptr {e.gep(samples, i, elem)}")

        e.loop(0, count, 1, sample)
        counts = e.value(f"alloca [{self.digits * BUCKETS} x i32], align 64")
        made = e.value(f"call ptr @KERNEL_NAME.sort(ptr {samples}, ptr {other}, ptr {counts}, i64 {count})")

        def pivot(i: str, _: list[str]) -> None:
            """In front of where it is found."""
            at = e.value(f"mul i64 {e.value(f'add i64 {i}, 1')}, {SAMPLED}")
            record = e.value(f"load {elem}, ptr {e.gep(made, at, elem)}")
            e.line(f"store {elem} {e.value(f'xor {elem} {record}, {self.top}')}, ptr {e.gep(made, i, elem)}")

        e.loop(0, e.value("sub i64 %shares, 1"), 1, pivot)
        return made


class HalvedLines(QuickLines):
    """argsort of 64 bits: records of the upper half of a key and the position, then, where several have the same upper half, of
    the lower one."""

    def __init__(self, op: Op, target: Target, *, positions: bool) -> None:
        super().__init__(op, target, positions=positions)
        self.width, self.shift = 64, 32
        self.vector, self.top = VecType("i64", self.lanes), -(1 << 63)
        self.low = (1 << 32) - 1

    @property
    def settled_later(self) -> bool:
        return True

    def with_positions(self, keys: str, index: str) -> str:
        upper = self.e.value(f"and {self.vector} {keys}, {self.vector.const(~self.low)}")
        return self.e.value(f"or {self.vector} {upper}, {index}")

    def finished(self, records: str) -> str:
        return records

    def bound_of(self, record: str) -> str:
        return self.e.value(f"and i64 {record}, {~self.low}")

    def sort_range(self, places: Sequence[str], to: str, spare: str, n: str) -> None:
        self.sort_records(to, spare, n)
        stride = self.size(self.types[0].strides[self.axis])
        call = f"call void @KERNEL_NAME.settle(ptr {to}, ptr {spare}, i64 {n}"
        self.e.line(f"{call}, ptr {self.at(0, places)}, i64 {stride})")

    def write_more(self) -> None:
        """`void settle(ptr to, ptr spare, i64 n, ptr line, i64 stride)`: sorted records become positions."""
        e = self.e
        e.function("internal void @KERNEL_NAME.settle(ptr %to, ptr %spare, i64 %n, ptr %line, i64 %stride)")
        head, look, single, run, extend, whole, after, done = (e.label() for _ in range(8))
        i, next_i, j, next_j = (e.fresh("i") for _ in range(4))
        e.branch(head)
        e.at(head)
        slot = len(e.lines)
        e.line("")
        e.branch_if(e.value(f"icmp slt i64 {i}, %n"), look, done)
        e.at(look)
        record = self.load("%to", i)
        self.put(e.value(f"and i64 {record}, {self.low}"), "%to", i)
        e.line(f"{next_i} = add i64 {i}, 1")
        e.branch_if(e.value(f"icmp slt i64 {next_i}, %n"), single, done)
        e.at(single)
        e.branch_if(self.same_upper(record, self.load("%to", next_i)), run, head)
        e.at(run)
        e.branch(extend)
        e.at(extend)
        e.line(f"{j} = phi i64 [{next_i}, %{run}], [{next_j}, %{whole}]")
        e.line(f"{next_j} = add i64 {j}, 1")
        e.branch_if(e.value(f"icmp slt i64 {next_j}, %n"), whole, after)
        e.at(whole)
        e.branch_if(self.same_upper(record, self.load("%to", next_j)), extend, after)
        e.at(after)
        self.settle_run(i, next_j)
        latch = e.current
        e.branch(head)
        e.lines[slot] = f"  {i} = phi i64 [0, %entry], [{next_i}, %{single}], [{next_j}, %{latch}]"
        e.at(done)
        e.end()

    def same_upper(self, a: str, b: str) -> str:
        return self.e.value(f"icmp ule i64 {self.e.value(f'xor i64 {a}, {b}')}, {self.low}")

    def settle_run(self, start: str, end: str) -> None:
        """Records from `start` on to before `end`, whose upper halves are equal, become positions in the order of the lower ones."""
        e = self.e
        first, count = e.gep("%to", start, "i64"), e.value(f"sub i64 {end}, {start}")

        def position(k: str) -> str:
            return e.value(f"and i64 {self.load(first, k)}, {self.low}")

        def lower(at: str) -> str:
            element = e.gep("%line", e.value(f"mul i64 {at}, %stride"), "i64")
            return e.value(f"shl i64 {self.key(e.value(f'load i64, ptr {element}'), 1)}, 32")

        def make(k: str, state: list[str]) -> list[str]:
            at = position(k)
            low = lower(at)
            self.put(e.value(f"or i64 {low}, {at}"), "%spare", k)
            self.put(at, first, k)  # right if all lower halves are equal
            return [e.value(f"or i64 {state[0]}, {e.value(f'xor i64 {low}, {state[1]}')}"), low]

        differ, _ = e.loop(0, count, 1, make, [("i64", "0"), ("i64", lower(position("0")))])

        def turn(pos: Position) -> None:
            at, mask = e.gep("%spare", pos.offset, "i64"), pos.mask or None
            store(e, self.vector, self.turned(load(e, self.vector, at, mask)), at, mask)

        def sort() -> None:
            few = e.value(f"icmp sle i64 {count}, {INSERTION}")
            short, long, after = e.label(), e.label(), e.label()
            e.branch_if(few, short, long)
            e.at(short)
            self.insertion("%spare", count)
            e.branch(after)
            e.at(long)
            self.each_vector(count, turn)
            self.sort_records("%spare", first, count)
            e.branch(after)
            e.at(after)

            def leave(k: str, _: list[str]) -> None:
                self.put(e.value(f"and i64 {self.load('%spare', k)}, {self.low}"), first, k)

            e.loop(0, count, 1, leave)

        e.when(e.value(f"icmp ne i64 {differ}, 0"), sort)
