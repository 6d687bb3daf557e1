"""sort, argsort and argtopk along one axis: radix sorts of integers that are ordered as the elements are.

An element becomes an unsigned key (negative floats with all bits turned, others with the sign bit turned; NaN is the largest
key), and where positions are asked for, a record with the key above the position, so that equal elements stay in their
order.  Long lines are sorted by bytes from the lowest (LSD radix sort; bytes that all records share are passed over), short
ones by insertion.  argtopk of a small part of a line finds a bound of the k-th key, which the
k-th least of the lowest keys of 2k groups is, and sorts what does not lie above that (of elements in no order 1.4 k); of a
larger part it finds the byte-wise prefix of the k-th key first, and sorts what lies below it.  A
unit of parallel work is a line, which may have up to 2^32 elements.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tcc.codegen.emit import VecType
from tcc.codegen.gather import Places
from tcc.codegen.index import Index, known, plus, times
from tcc.codegen.kernel import Kernel, finish
from tcc.codegen.nest import Position, Vectors, iota
from tcc.codegen.target import Target
from tcc.codegen.vectors import load, splat, store
from tcc.ir import dims
from tcc.ir.core import Op
from tcc.ir.dims import Size
from tcc.ir.types import FLOATS, itemsize
from tcc.runtime.layout import CTX_SCRATCH, CTX_SCRATCH_BYTES

INSERTION = 32  # most records that are sorted by insertion
BUCKETS = 256
FEW = 32  # elements that are looked for below a bound of which the lowest keys of groups fit registers
GROUP = 4  # elements, at least, of a group whose lowest key helps to find a bound
INFINITY = {"f16": 0x7C00, "bf16": 0x7F80, "f32": 0x7F80_0000, "f64": 0x7FF0_0000_0000_0000}


class Areas:
    """Of one thread: two areas for the records of a line, and counters."""

    def __init__(self, first: str, second: str, counts: str) -> None:
        self.first, self.second, self.counts = first, second, counts


class Lines(Places):
    def __init__(self, op: Op, target: Target, *, positions: bool, largest: bool = False) -> None:
        super().__init__(op, target)
        self.axis, self.positions, self.largest = int(op.attrs["axis"]), positions, largest
        self.dtype = self.types[0].dtype
        self.length: Size = self.types[0].shape[self.axis]
        self.bits = 8 * itemsize(self.dtype)
        self.raw = f"u{self.bits}"  # an element as it lies in memory
        self.width = self.bits if not positions else 64 if self.bits <= 32 else 128
        self.shift = self.width // 2 if positions else 0  # where the key begins
        self.lanes = (
            target.vector(f"i{self.bits}").lanes if not positions else max(2, target.vector_bits // 64)
        )
        self.kept: list[Size] = [s for a, s in enumerate(self.types[0].shape) if a != self.axis]
        self.vectors = Vectors(self.e, target, lambda size: self.size(size))
        self.selects = False

    # -- the kernel -----------------------------------------------------------------------------------------------

    @property
    def area(self) -> Size:
        """Bytes of the records of a line, with room for whole vectors."""
        records = dims.add(dims.maximum(self.length, 2 * FEW), self.lanes)
        return dims.mul(dims.floordiv(dims.add(dims.mul(records, self.width // 8), 63), 64), 64)

    @property
    def digits(self) -> int:
        """Bytes of what records are sorted by."""
        return min(self.bits, self.width - self.shift) // 8

    def kernel(self, line: Callable[[list[str], Areas], None], more: Sequence[Size] = ()) -> Kernel:
        self.write_sort()
        if self.selects:
            self.write_select()
        self.write_body(line, more)
        self.begin_kernel()
        self.share_lines(64 * self.digits)
        self.e.end("i32 0")
        counters = self.digits * BUCKETS * 4
        return self.finished_kernel(dims.add(dims.mul(2, self.area), counters))

    def write_body(self, line: Callable[[list[str], Areas], None], more: Sequence[Size] = ()) -> None:
        """What a thread does with some lines."""
        e = self.e
        self.begin_body([self.area, *more])
        areas = self.areas_of("%thread")

        def unit(u: str, _: list[str]) -> None:
            line(self.unravel(u, self.kept), areas)

        e.loop("%begin", "%end", 1, unit)
        e.end()

    def areas_of(self, thread: str) -> Areas:
        e = self.e
        base = e.value(f"load ptr, ptr {e.gep('%ctx', CTX_SCRATCH, 'i64')}")
        each = e.value(f"load i64, ptr {e.gep('%ctx', CTX_SCRATCH_BYTES, 'i64')}")
        first = e.gep(base, times(e, thread, each))
        second = e.gep(first, self.size(self.area))
        return Areas(first, second, e.gep(second, self.size(self.area)))

    def share_lines(self, cost: int) -> None:
        """Lines to threads; `cost` sixteenths of a cycle an element."""
        self.parallel(self.count(self.kept), times(self.e, self.size(self.length), str(cost)))

    def finished_kernel(self, scratch: Size) -> Kernel:
        return finish(self.e, tuple(self.slots.slots), self.op.name, scratch)

    def at(self, i: int, places: Sequence[str]) -> str:
        """The address of the line of operand `i`."""
        return self.address(i, [*places[: self.axis], "0", *places[self.axis :]])

    def each_vector(self, end: str, body: Callable[[Position], None], start: str = "0") -> None:
        """`body` of vectors of a line's elements; the last may have fewer."""
        e, lanes = self.e, self.lanes
        count = end if start == "0" else e.value(f"sub i64 {end}, {start}")
        whole = plus(e, start, e.value(f"and i64 {count}, {-lanes}"))
        e.loop(start, whole, lanes, lambda i, _: body(Position(i, lanes)))

        def rest(i: str, _: list[str]) -> None:
            body(Position(i, lanes, self.live(end, i)))

        e.loop(whole, end, lanes, rest)

    # -- keys -----------------------------------------------------------------------------------------------------

    def build(self, places: Sequence[str], records: str, end: str, start: str = "0") -> None:
        """The line's records; what lies behind them up to a whole vector is written too."""

        def vector(pos: Position) -> None:
            key = self.keys_at(places, pos)
            if self.positions:
                key = self.with_positions(key, self.vectors.lane_index(pos))
            self.keep_records(key, records, pos)

        self.each_vector(end, vector, start)

    def with_positions(self, keys: str, index: str) -> str:
        """Vectors of keys, and of the elements' positions, as records."""
        e, record = self.e, VecType(f"i{self.width}", self.lanes)
        wide = e.value(f"zext {VecType(f'i{self.bits}', self.lanes)} {keys} to {record}")
        wide = e.value(f"shl {record} {wide}, {record.const(self.shift)}")
        if self.width > 64:
            index = e.value(f"zext {VecType('i64', self.lanes)} {index} to {record}")
        return e.value(f"or {record} {wide}, {index}")

    def keep_records(self, records: str, base: str, pos: Position) -> None:
        record = VecType(f"i{self.width}", self.lanes)
        self.e.line(f"store {record} {records}, ptr {self.e.gep(base, pos.offset, record.elem)}, align 1")

    def record(self, key: str, index: str) -> str:
        """One key and its position, an i64."""
        e, t = self.e, f"i{self.width}"
        wide = e.value(f"shl {t} {e.value(f'zext i{self.bits} {key} to {t}')}, {self.shift}")
        at = index if self.width == 64 else e.value(f"zext i64 {index} to {t}")
        return e.value(f"or {t} {wide}, {at}")

    def below(self, places: Sequence[str], areas: Areas, k: Size) -> str:
        """Puts the records of a line into the first area that may be among the k lowest; gives their number."""
        e, t = self.e, VecType(f"i{self.bits}", self.lanes)
        n = self.size(self.length)
        sorted_groups = self.sorted(areas, areas.second, areas.first, self.group_minima(places, areas, k))
        last = k - 1 if isinstance(k, int) else e.value(f"sub i64 {self.size(k)}, 1")
        bound = e.value(f"lshr i{self.width} {self.load(sorted_groups, str(last))}, {self.shift}")
        bounds = splat(e, t, e.value(f"trunc i{self.width} {bound} to i{self.bits}"))

        def collect(start: str, end: str, count: str, masked: bool) -> str:
            def vector(i: str, state: list[str]) -> list[str]:
                mask = self.live(end, i) if masked else ""
                keys = self.keys_at(places, Position(i, self.lanes, mask))
                hits = e.value(f"icmp ule {t} {keys}, {bounds}")
                hits = e.value(f"and {t.of('i1')} {hits}, {mask}") if masked else hits
                return [self.append(keys, hits, i, state[0], areas.first)]

            return e.loop(start, end, self.lanes, vector, [("i64", count)])[0]

        full = e.value(f"and i64 {n}, {-self.lanes}")
        return collect(full, n, collect("0", full, "0", False), True)

    def group_minima(self, places: Sequence[str], areas: Areas, k: Size) -> str:
        """Puts the lowest keys of 2k groups of a line, or of a few more, as records into the second area; gives their number.

        A group has every so-manieth element.  The lowest keys of a few groups are kept in registers, of more in the first area.
        """
        e, lanes, n = self.e, self.lanes, self.size(self.length)
        t = VecType(f"i{self.bits}", lanes)
        index = Index(e)
        step = index.round_up(index.mul(2, known(self.size(k))), lanes)
        whole = e.value(f"sub i64 {n}, {e.value(f'srem i64 {n}, {step}')}")

        def lower(a: str, b: str) -> str:
            return e.call(t, f"llvm.umin.{t.suffix}", (t, a), (t, b))

        def keep(group: str, g: str) -> None:
            for lane in range(lanes):
                one = e.value(f"extractelement {t} {group}, i64 {lane}")
                self.put(self.record(one, "0"), areas.second, plus(e, g, str(lane)))

        if isinstance(k, int) and k <= FEW:
            ways = range(0, int(step), lanes)

            def least(i: str, found: list[str]) -> list[str]:
                keys = [self.keys_at(places, Position(plus(e, i, str(w)), lanes)) for w in ways]
                return [lower(a, b) for a, b in zip(found, keys)]

            groups = e.loop(0, whole, str(step), least, [(t, t.const(-1))] * len(ways))
            for w, group in zip(ways, groups, strict=True):
                keep(group, str(w))
            return str(step)

        def at(g: str) -> str:
            return e.gep(areas.first, g, t.elem)

        def begin(g: str, _: list[str]) -> None:
            store(e, t, self.keys_at(places, Position(g, lanes)), at(g))

        def add(i: str, _: list[str]) -> None:
            def one(g: str, _: list[str]) -> None:
                keys = self.keys_at(places, Position(plus(e, i, g), lanes))
                store(e, t, lower(load(e, t, at(g)), keys), at(g))

            e.loop(0, str(step), lanes, one)

        e.loop(0, str(step), lanes, begin)  # there are as many elements
        e.loop(str(step), whole, str(step), add)
        e.loop(0, str(step), lanes, lambda g, _: keep(load(e, t, at(g)), g))
        return str(step)

    def keys_at(self, places: Sequence[str], pos: Position) -> str:
        """Vectors of a line's keys."""
        base, stride = self.at(0, places), self.types[0].strides[self.axis]
        return self.key(self.vectors.load(self.raw, base, stride, pos))

    def live(self, end: str, i: str) -> str:
        """Which lanes of a vector from `i` on lie before `end`."""
        t = VecType("i64", self.lanes)
        left = splat(self.e, t, self.e.value(f"sub i64 {end}, {i}"))
        return self.e.value(f"icmp slt {t} {iota(self.lanes)}, {left}")

    def append(self, keys: str, hits: str, first: str, count: str, records: str) -> str:
        """Appends the records of the lanes that hit; gives how many there are then."""
        e, lanes = self.e, self.lanes
        t, bits = VecType(f"i{self.bits}", lanes), f"i{lanes}"
        given = e.value(f"bitcast {t.of('i1')} {hits} to {bits}")
        before, head, inside, after = e.current, *(e.label() for _ in range(3))
        left, rest, at, following = e.fresh("b"), e.fresh("b"), e.fresh("n"), e.fresh("n")
        e.branch(head)
        e.at(head)
        e.line(f"{left} = phi {bits} [{given}, %{before}], [{rest}, %{inside}]")
        e.line(f"{at} = phi i64 [{count}, %{before}], [{following}, %{inside}]")
        e.branch_if(e.value(f"icmp ne {bits} {left}, 0"), inside, after)
        e.at(inside)
        lane = e.call(bits, f"llvm.cttz.{bits}", (bits, left), ("i1", "true"))
        lane = e.value(f"zext {bits} {lane} to i64")
        one = e.value(f"extractelement {t} {keys}, i64 {lane}")
        self.put(self.record(one, plus(e, first, lane)), records, at)
        e.line(f"{rest} = and {bits} {left}, {e.value(f'sub {bits} {left}, 1')}")
        e.line(f"{following} = add i64 {at}, 1")
        e.branch(head)
        e.at(after)
        return at

    def key(self, bits: str, lanes: int = 0) -> str:
        """Elements as unsigned integers in their order, or, of the largest first, in the opposite one."""
        e, t = self.e, VecType(f"i{self.bits}", lanes or self.lanes)
        top = -(1 << (self.bits - 1))

        def op(name: str, a: str, b: str | int) -> str:
            return e.value(f"{name} {t} {a}, {b if isinstance(b, str) else t.const(b)}")

        def select(cond: str, a: str, b: str) -> str:
            return e.value(f"select {t.of('i1')} {cond}, {t} {a}, {t} {b}")

        made = bits
        if self.dtype in FLOATS:
            size = op("and", bits, ~top)
            nan = op("icmp ugt", size, INFINITY[self.dtype])
            if self.positions:  # -0.0 and 0.0 are equal
                bits = select(op("icmp eq", size, 0), t.const(0), bits)
            made = op("xor", bits, op("or", op("ashr", bits, self.bits - 1), top))
            made = select(nan, t.const(-1), made)
        elif self.dtype[0] == "i":
            made = op("xor", bits, top)
        return op("xor", made, -1) if self.largest else made

    def element(self, key: str) -> str:
        """Elements from their keys."""
        e, t = self.e, VecType(f"i{self.bits}", self.lanes)
        top = -(1 << (self.bits - 1))
        if self.dtype in FLOATS:
            negative = e.value(f"icmp sge {t} {key}, zeroinitializer")
            turn = e.value(f"select {t.of('i1')} {negative}, {t} {t.const(-1)}, {t} {t.const(top)}")
            return e.value(f"xor {t} {key}, {turn}")
        return e.value(f"xor {t} {key}, {t.const(top)}") if self.dtype[0] == "i" else key

    def write(self, places: Sequence[str], records: str, n: str) -> None:
        """The result's line from sorted records."""
        e, base = self.e, self.at(1, places)
        stride = self.types[1].strides[self.axis]
        record = VecType(f"i{self.width}", self.lanes)

        def vector(pos: Position) -> None:
            got = e.value(f"load {record}, ptr {e.gep(records, pos.offset, record.elem)}, align 1")
            if not self.positions:
                self.vectors.store(self.raw, self.element(got), base, stride, pos)
                return
            index = e.value(f"and {record} {got}, {record.const((1 << 32) - 1)}")
            if self.width > 64:
                index = e.value(f"trunc {record} {index} to {VecType('i64', self.lanes)}")
            self.vectors.store("i64", index, base, stride, pos)

        self.each_vector(n, vector)

    # -- sorting records --------------------------------------------------------------------------------------------

    def sorted(self, areas: Areas, records: str, other: str, n: str) -> str:
        """Where `n` records are once they are sorted: in `records`, or in `other`, which must be as large."""
        return self.e.value(
            f"call ptr @KERNEL_NAME.sort(ptr {records}, ptr {other}, ptr {areas.counts}, i64 {n})"
        )

    def load(self, records: str, index: str) -> str:  # type: ignore[override]
        e, t = self.e, f"i{self.width}"
        return e.value(f"load {t}, ptr {e.gep(records, index, t)}, align 1")

    def put(self, record: str, records: str, index: str) -> None:
        e, t = self.e, f"i{self.width}"
        e.line(f"store {t} {record}, ptr {e.gep(records, index, t)}, align 1")

    def digit(self, record: str, p: int | str) -> str:
        """The key's byte number `p`, from the lowest."""
        e, t = self.e, f"i{self.width}"
        if isinstance(p, int):
            amount: str | int = self.shift + 8 * p
        else:
            wide = plus(e, times(e, p, "8"), str(self.shift))
            amount = (
                wide
                if self.width == 64
                else e.value(f"{'zext' if self.width > 64 else 'trunc'} i64 {wide} to {t}")
            )
        moved = record if amount == 0 else e.value(f"lshr {t} {record}, {amount}")
        byte = moved if self.width == 8 else e.value(f"trunc {t} {moved} to i8")
        return e.value(f"zext i8 {byte} to i64")

    def clear(self, counts: str, tables: int) -> None:
        bytes = tables * BUCKETS * 4
        self.e.declare("declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)")
        self.e.line(f"call void @llvm.memset.p0.i64(ptr {counts}, i8 0, i64 {bytes}, i1 false)")

    def counted(self, counter: str) -> str:
        """The counter's value, which goes up by one."""
        e = self.e
        old = e.value(f"load i32, ptr {counter}")
        e.line(f"store i32 {e.value(f'add i32 {old}, 1')}, ptr {counter}")
        return e.value(f"zext i32 {old} to i64")

    def write_sort(self) -> None:
        """`ptr sort(ptr a, ptr b, ptr counts, i64 n)`."""
        e = self.e
        e.function(
            "internal ptr @KERNEL_NAME.sort(ptr noalias %a, ptr noalias %b, ptr noalias %counts, i64 %n)"
        )
        e.line("%from.at = alloca ptr")
        e.line("%to.at = alloca ptr")

        few, many = e.label(), e.label()
        e.branch_if(e.value(f"icmp sle i64 %n, {INSERTION}"), few, many)
        e.at(few)
        self.insertion("%a", "%n")
        e.line("ret ptr %a")
        e.at(many)

        self.clear("%counts", self.digits)
        tables = [e.gep("%counts", p * BUCKETS, "i32") for p in range(self.digits)]

        def count(i: str, _: list[str]) -> None:
            record = self.load("%a", i)
            for p, table in enumerate(tables):
                self.counted(e.gep(table, self.digit(record, p), "i32"))

        e.loop(0, "%n", 1, count)
        e.line("store ptr %a, ptr %from.at")
        e.line("store ptr %b, ptr %to.at")
        for p, table in enumerate(tables):
            self.write_pass(p, table)
        e.end("ptr " + e.value("load ptr, ptr %from.at"))

    def insertion(self, records: str, n: str) -> None:
        """Sorts a few records where they are."""
        e = self.e

        def insert(i: str, _: list[str]) -> None:
            record = self.load(records, i)
            before, head, look, move, place = e.current, *(e.label() for _ in range(4))
            j, lower = e.fresh("j"), e.fresh("j")
            e.branch(head)
            e.at(head)
            e.line(f"{j} = phi i64 [{i}, %{before}], [{lower}, %{move}]")
            e.line(f"{lower} = sub i64 {j}, 1")
            e.branch_if(e.value(f"icmp sgt i64 {j}, 0"), look, place)
            e.at(look)
            previous = self.load(records, lower)
            e.branch_if(e.value(f"icmp ugt i{self.width} {previous}, {record}"), move, place)
            e.at(move)
            self.put(previous, records, j)
            e.branch(head)
            e.at(place)
            self.put(record, records, j)

        e.loop(1, n, 1, insert)

    def write_pass(self, p: int, table: str) -> None:
        """Moves the records by one byte of their keys, unless all have the same."""
        e = self.e
        source = e.value("load ptr, ptr %from.at")
        target = e.value("load ptr, ptr %to.at")
        bucket = e.gep(table, self.digit(self.load(source, "0"), p), "i32")
        held = e.value(f"zext i32 {e.value(f'load i32, ptr {bucket}')} to i64")

        def move() -> None:
            def start(i: str, total: list[str]) -> list[str]:
                counter = e.gep(table, i, "i32")
                here = e.value(f"load i32, ptr {counter}")
                e.line(f"store i32 {total[0]}, ptr {counter}")
                return [e.value(f"add i32 {total[0]}, {here}")]

            e.loop(0, BUCKETS, 1, start, [("i32", "0")])

            def one(i: str, _: list[str]) -> None:
                record = self.load(source, i)
                self.put(record, target, self.counted(e.gep(table, self.digit(record, p), "i32")))

            e.loop(0, "%n", 1, one)
            e.line(f"store ptr {target}, ptr %from.at")
            e.line(f"store ptr {source}, ptr %to.at")

        e.when(e.value(f"icmp ne i64 {held}, %n"), move)

    def write_select(self) -> None:
        """`void select(ptr records, ptr out, ptr counts, i64 n, i64 k)`: the k lowest of n >= k records to `out`.

        From the highest byte on: records below the bucket that holds the k-th go to `out`, those in it stay to be told apart
        by the next byte, in their order.
        """
        e = self.e
        e.function(
            "internal void @KERNEL_NAME.select(ptr noalias %records, ptr noalias %out, ptr noalias %counts, i64 %n, i64 %k)"
        )

        def level(turn: str, state: list[str]) -> list[str]:
            left, made = state
            p = e.value(f"sub i64 {self.digits - 1}, {turn}")
            self.clear("%counts", 1)

            def count(i: str, _: list[str]) -> None:
                self.counted(e.gep("%counts", self.digit(self.load("%records", i), p), "i32"))

            e.loop(0, left, 1, count)
            wanted = e.value(f"sub i64 %k, {made}")

            def find(b: str, carried: list[str]) -> list[str]:
                total, bucket = carried
                held = e.value(f"load i32, ptr {e.gep('%counts', b, 'i32')}")
                here = e.value(f"zext i32 {held} to i64")
                after = e.value(f"add i64 {total}, {here}")
                short = e.value(f"icmp slt i64 {after}, {wanted}")
                following = e.value(f"add i64 {b}, 1")
                return [after, e.value(f"select i1 {short}, i64 {following}, i64 {bucket}")]

            _, bucket = e.loop(0, BUCKETS, 1, find, [("i64", "0"), ("i64", "0")])

            def part(i: str, ends: list[str]) -> list[str]:
                kept, put = ends
                record = self.load("%records", i)
                digit = self.digit(record, p)
                # both stores are made, and the one that counts moves its end on
                self.put(record, "%records", kept)
                self.put(record, "%out", put)
                same = e.value(f"zext i1 {e.value(f'icmp eq i64 {digit}, {bucket}')} to i64")
                lower = e.value(f"zext i1 {e.value(f'icmp ult i64 {digit}, {bucket}')} to i64")
                return [e.value(f"add i64 {kept}, {same}"), e.value(f"add i64 {put}, {lower}")]

            return e.loop(0, left, 1, part, [("i64", "0"), ("i64", made)])

        left, made = e.loop(0, self.digits, 1, level, [("i64", "%n"), ("i64", "0")])
        wanted = e.value(f"sub i64 %k, {made}")

        def rest(i: str, _: list[str]) -> None:
            self.put(self.load("%records", i), "%out", plus(e, made, i))

        e.loop(0, wanted, 1, rest)
        e.end()
