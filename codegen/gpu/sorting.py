"""sort, argsort and argtopk on a GPU: tiles of a line by a bitonic network in shared memory, then merges of neighbouring runs.

Records are the CPU's (tcc.codegen.radix): integers that are ordered as the elements are, with their positions below where
those are asked for, so no two of them are equal and the result hangs on no order.  A merge gives each block neighbours of the
result, whose beginnings in both runs are found by bisection (merge path: Odeh et al., 2012).  The last steps of a bitonic network
merge these, three of them in a thread's registers at a time: threads that walk through both runs meet in banks as chance has it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tcc.codegen.emit import VecType
from tcc.codegen.gather import Places
from tcc.codegen.gpu.chips import LANE
from tcc.codegen.gpu.kernel import (
    BLOCK,
    MOST_BLOCKS,
    GpuKernel,
    barrier,
    block_index,
    blocks_for,
    ceil_div,
    finish,
    global_thread,
    grid_size,
    thread,
)
from tcc.codegen.index import at_least, at_most, plus, times
from tcc.codegen.kernel import Runtime, Scratch
from tcc.codegen.radix import Lines
from tcc.ir import dims
from tcc.ir.core import Op
from tcc.ir.dims import Size

TILE = 1024  # records of a line that a block sorts
THREADS = 256
SOME = TILE // BLOCK  # records that a thread of a merge holds
MOST_PASSES = 22  # for 2^32 elements


def sort_kernels(op: Op) -> list[GpuKernel]:
    """A placed `sort`, `argsort` or `argtopk`.  Of a run-time length, passes that it does not need are not launched."""
    first = _Sort(op)
    made = [first.tile_kernel()]
    if first.tiles == 1:
        return made
    made += [_Sort(op).merge_kernel(p) for p in range(first.passes)]
    return [*made, _Sort(op).write_kernel()]


class Records(Places):
    """Lines of records that are sorted in memory: `kept` lines of `length` integers of `width` bits, of which no two are equal or
    it does not matter which comes first."""

    kept: list[Size]
    length: Size
    width: int

    def lay_out(self) -> None:
        """What follows from these."""
        self.record_type = VecType(f"i{self.width}")
        self.count_kept: Size = dims.product(self.kept)
        self.tiles: Size = dims.maximum(ceil_div(self.length, TILE), 1)
        self.pitch = dims.mul(self.tiles, TILE)

    @property
    def bytes(self) -> int:
        return self.width // 8

    @property
    def in_memory(self) -> Size:
        """1 if there is work to do on records in memory, else 0."""
        raise NotImplementedError

    def line(self, places: Sequence[str]) -> str:
        """Where a line's elements begin."""
        raise NotImplementedError

    def record_of(self, source: str, index: str) -> str:
        """The record of an element of a line."""
        raise NotImplementedError

    def line_length(self) -> str:
        return self.size(self.length)

    def more_sizes(self) -> Sequence[Size]:
        return ()

    @property
    def passes(self) -> int:
        """The most merges that there may be to do."""
        return (self.tiles - 1).bit_length() if isinstance(self.tiles, int) else MOST_PASSES

    def begin_sort(self) -> None:
        sizes = [self.length, self.tiles, self.pitch, self.count_kept, *self.more_sizes()]
        self.begin("void @KERNEL_NAME(ptr %args)", sizes)
        if self.in_memory != 0:
            self.half = dims.mul(self.in_memory, self.count_kept, self.pitch, self.bytes)
            first = self.slots.pointer(self.e, Scratch(dims.mul(2, self.half)))
            self.areas = first, self.e.gep(first, self.size(self.half))

    def record_at(self, base: str, index: str) -> str:
        return self.e.gep(base, index, self.record_type.elem)

    def cell(self, index: str) -> str:
        """A record's place in the tile.  Threads that exchange records some power of two apart have numbers with one bit missing:
        every second group of as many as the banks hold lies backwards, so that no two of these meet in a bank."""
        e, group = self.e, max(1, 128 // self.bytes)
        odd = e.value(f"and i64 {index}, {group}")
        flipped = e.value(f"sub i64 {odd}, {e.value(f'lshr i64 {odd}, {group.bit_length() - 1}')}")
        return self.record_at(self.shared, e.value(f"xor i64 {index}, {flipped}"))

    def read_record(self, pointer: str) -> str:
        return self.e.value(f"load {self.record_type}, ptr {pointer}, align {self.bytes}")

    def keep_record(self, record: str, pointer: str) -> None:
        self.e.line(f"store {self.record_type} {record}, ptr {pointer}, align {self.bytes}")

    # -- tiles -----------------------------------------------------------------------------------------------------

    def tile_kernel(self) -> GpuKernel:
        e = self.e
        self.begin_sort()
        self.shared, self.member = e.call("ptr", "tcc.shared"), thread(e)
        n, tiles = self.line_length(), self.size(self.tiles)
        power = self.power(n) if self.tiles == 1 or not isinstance(self.tiles, int) else str(TILE)

        def unit(u: str, _: list[str]) -> None:
            line, tile = (
                (u, "0")
                if self.tiles == 1
                else (e.value(f"udiv i64 {u}, {tiles}"), e.value(f"urem i64 {u}, {tiles}"))
            )
            places = self.unravel(line, self.kept)
            start = times(e, tile, str(TILE))
            source = self.line(places)

            def load(t: str, _: list[str]) -> None:
                record = self.record_within(source, plus(e, start, t), n)
                self.keep_record(record, self.cell(t))

            e.loop(self.member, power, THREADS, load)
            barrier(e)
            self.network(power)
            self.leave(line, places, start, power)
            barrier(e)  # the next tile takes the place of this one

        e.loop(block_index(e), times(e, self.size(self.count_kept), tiles), grid_size(e), unit)
        e.end()
        blocks = dims.minimum(dims.mul(self.launched, self.count_kept, self.tiles), MOST_BLOCKS)
        return finish(e, "tiles", self.slots.slots, (blocks, 1, 1), THREADS, TILE * self.bytes)

    @property
    def launched(self) -> Size:
        """1 if tiles are sorted, else 0."""
        return 1

    def power(self, n: str) -> str:
        """The least power of two that is not less than n, from 1 to TILE."""
        e = self.e
        low = at_most(e, n, str(TILE))
        low = at_least(e, low, "1")
        bits = e.call("i64", "llvm.ctlz.i64", ("i64", e.value(f"sub i64 {low}, 1")), ("i1", "false"))
        return e.value(f"shl i64 1, {e.value(f'sub i64 64, {bits}')}")

    def record_within(self, source: str, index: str, n: str) -> str:
        """The record of an element; the greatest of all behind the end."""
        e = self.e
        before, inside, after = e.current, e.label(), e.label()
        e.branch_if(e.value(f"icmp slt i64 {index}, {n}"), inside, after)
        e.at(inside)
        record = self.record_of(source, index)
        last = e.current
        e.branch(after)
        e.at(after)
        return e.value(f"phi {self.record_type} [-1, %{before}], [{record}, %{last}]")

    def network(self, power: str) -> None:
        """Sorts `power` records in shared memory (Batcher, 1968): size 2, 4, ..., strides size / 2, size / 4, ..., 1."""
        e = self.e
        pairs = e.value(f"lshr i64 {power}, 1")

        def stage(size: str) -> None:
            def step(stride: str) -> None:
                def exchange(p: str, _: list[str]) -> None:
                    low = e.value(f"and i64 {p}, {e.value(f'sub i64 {stride}, 1')}")
                    first = plus(e, times(e, e.value(f"sub i64 {p}, {low}"), "2"), low)
                    a, b = (self.cell(x) for x in (first, plus(e, first, stride)))
                    x, y = self.read_record(a), self.read_record(b)
                    up = e.value(f"icmp eq i64 {e.value(f'and i64 {first}, {size}')}, 0")
                    over = e.value(f"icmp ugt {self.record_type} {x}, {y}")
                    wrong = e.value(f"icmp eq i1 {up}, {over}")
                    for value, other, place in ((x, y, a), (y, x, b)):
                        self.keep_record(
                            e.value(
                                f"select i1 {wrong}, {self.record_type} {other}, {self.record_type} {value}"
                            ),
                            place,
                        )

                e.loop(self.member, pairs, THREADS, exchange)
                barrier(e)

            self.powers(
                e.value(f"lshr i64 {size}, 1"), lambda s: e.value(f"icmp ne i64 {s}, 0"), "lshr", step
            )

        self.powers("2", lambda s: e.value(f"icmp sle i64 {s}, {power}"), "shl", stage)

    def powers(self, start: str, more: Callable[[str], str], move: str, body: Callable[[str], None]) -> None:
        """`body(s)` for s = start, moved by one bit each time, while there are more."""
        e = self.e
        before, head, inside, after = e.current, e.label(), e.label(), e.label()
        e.branch(head)
        e.at(head)
        s, slot = e.fresh("s"), len(e.lines)
        e.lines.append("")
        e.branch_if(more(s), inside, after)
        e.at(inside)
        body(s)
        following = e.value(f"{move} i64 {s}, 1")
        e.lines[slot] = f"  {s} = phi i64 [{start}, %{before}], [{following}, %{e.current}]"
        e.branch(head)
        e.at(after)

    def leave(self, line: str, places: Sequence[str], start: str, power: str) -> None:
        """A sorted tile goes to memory."""
        e = self.e

        def one(t: str, _: list[str]) -> None:
            at = plus(e, plus(e, times(e, line, self.size(self.pitch)), start), t)
            self.keep_record(self.read_record(self.cell(t)), self.record_at(self.areas[0], at))

        e.loop(self.member, power, THREADS, one)

    # -- merges ----------------------------------------------------------------------------------------------------

    def merge_kernel(self, number: int) -> GpuKernel:
        """Runs of TILE * 2 ** number become runs of twice that, TILE results by a block, whose records go through shared memory."""
        e = self.e
        self.begin_sort()
        self.shared, self.member = e.call("ptr", "tcc.shared"), thread(e)
        length = Runtime(TILE << number)  # so that all passes are one kernel, or two: areas take turns
        run = e.value(f"load i64, ptr {e.gep('%args', self.slots.index(length), 'i64')}")
        source, target = self.areas if number % 2 == 0 else self.areas[::-1]
        pitch, tiles = self.size(self.pitch), self.size(self.tiles)

        def unit(u: str, _: list[str]) -> None:
            line = times(e, e.value(f"udiv i64 {u}, {tiles}"), pitch)
            out = times(e, e.value(f"urem i64 {u}, {tiles}"), str(TILE))
            pair = times(e, run, "2")
            begin = e.value(f"and i64 {out}, {e.value(f'sub i64 0, {pair}')}")
            left = e.value(f"sub i64 {pitch}, {begin}")
            a = self.record_at(source, plus(e, line, begin))
            self.merge(a, run, left, e.value(f"sub i64 {out}, {begin}"))

            def result(t: str, _: list[str]) -> None:
                """The network's last step, of neighbours."""
                x, y = (self.read_record(self.spot(n)) for n in (t, e.value(f"xor i64 {t}, 1")))
                odd = e.value(f"trunc i64 {t} to i1")
                less = e.value(f"icmp ult {self.record_type} {x}, {y}")
                other = e.value(f"icmp eq i1 {less}, {odd}")
                made = e.value(f"select i1 {other}, {self.record_type} {y}, {self.record_type} {x}")
                self.keep_record(made, self.record_at(target, plus(e, plus(e, line, out), t)))

            e.loop(self.member, TILE, BLOCK, result)
            barrier(e)  # the next records take the place of these

        e.loop(block_index(e), times(e, self.size(self.count_kept), tiles), grid_size(e), unit)
        e.end()
        needed = dims.minimum(dims.floordiv(dims.add(self.tiles, -1), 1 << number), 1)
        blocks = dims.minimum(dims.mul(self.launched, needed, self.count_kept, self.tiles), MOST_BLOCKS)
        return finish(e, "merge", self.slots.slots, (blocks, 1, 1), BLOCK, TILE * self.bytes)

    def spot(self, index: str) -> str:
        """A record's place in a tile that is merged, where neither threads that hold neighbours nor those whose records' numbers
        lack bits 1 to 3 or 4 to 6 meet in a bank."""
        e = self.e
        low = e.value(f"and i64 {e.value(f'lshr i64 {index}, {4 if self.bytes <= 4 else 3}')}, 14")
        high = e.value(f"and i64 {e.value(f'lshr i64 {index}, 3')}, 16")
        return self.record_at(self.shared, e.value(f"xor i64 {e.value(f'xor i64 {index}, {low}')}, {high}"))

    def held(self, stride: int) -> list[str]:
        """The numbers of the thread's records, which are `stride` apart."""
        e = self.e
        low = e.value(f"and i64 {self.member}, {stride - 1}")
        first = plus(e, times(e, e.value(f"sub i64 {self.member}, {low}"), str(SOME)), low)
        return [plus(e, first, str(k * stride)) for k in range(SOME)]

    def in_registers(self, records: list[str]) -> list[str]:
        """The network's steps of strides 4, 2 and 1 of the thread's records."""
        e, t, records = self.e, self.record_type, list(records)
        for stride in (4, 2, 1):
            for k in range(SOME):
                if k & stride == 0:
                    x, y = records[k], records[k + stride]
                    over = e.value(f"icmp ugt {t} {x}, {y}")
                    records[k] = e.value(f"select i1 {over}, {t} {y}, {t} {x}")
                    records[k + stride] = e.value(f"select i1 {over}, {t} {x}, {t} {y}")
        return records

    def merge(self, a: str, run: str, left: str, diagonal: str) -> None:
        """Leaves TILE results from number `diagonal` on in shared memory, but for the order of neighbours: of the run at `a`, with
        `left` records from there to the end, and the one behind it."""
        e = self.e
        b = self.record_at(a, run)
        a_count = at_most(e, run, left)
        rest = e.value(f"sub i64 {left}, {a_count}")
        b_count = at_most(e, rest, run)
        i = self.split(a, b, a_count, b_count, diagonal)
        own = e.value(f"sub i64 {self.split(a, b, a_count, b_count, plus(e, diagonal, str(TILE)))}, {i}")
        first, second = self.record_at(a, i), self.record_at(b, e.value(f"sub i64 {diagonal}, {i}"))

        def place(t: str) -> str:
            """Those of the first run rise, behind them those of the second fall."""
            of_a = e.value(f"icmp slt i64 {t}, {own}")
            other = self.record_at(second, e.value(f"sub i64 {TILE - 1}, {t}"))
            return e.value(f"select i1 {of_a}, ptr {self.record_at(first, t)}, ptr {other}")

        for stride in (BLOCK, BLOCK // SOME, BLOCK // SOME**2):
            numbers = self.held(stride)
            places = [place(t) if stride == BLOCK else self.spot(t) for t in numbers]
            made = self.in_registers([self.read_record(p) for p in places])
            for t, record in zip(numbers, made, strict=True):
                self.keep_record(record, self.spot(t))
            barrier(e)

    def split(self, a: str, b: str, a_count: str, b_count: str, diagonal: str) -> str:
        """How many of the first `diagonal` results are of a; of equal records those of a come first."""
        e = self.e
        below = e.value(f"sub i64 {diagonal}, {b_count}")
        low = at_least(e, below, "0")
        high = at_most(e, diagonal, a_count)
        before, head, inside, after = e.current, e.label(), e.label(), e.label()
        e.branch(head)
        e.at(head)
        lo, hi, slot = e.fresh("l"), e.fresh("h"), len(e.lines)
        e.lines.append("")
        e.branch_if(e.value(f"icmp slt i64 {lo}, {hi}"), inside, after)
        e.at(inside)
        middle = e.value(f"lshr i64 {plus(e, lo, hi)}, 1")
        other = e.value(f"sub i64 {e.value(f'sub i64 {diagonal}, 1')}, {middle}")
        x, y = self.read_record(self.record_at(a, middle)), self.read_record(self.record_at(b, other))
        less = e.value(f"icmp ule {self.record_type} {x}, {y}")
        new_lo = e.value(f"select i1 {less}, i64 {e.value(f'add i64 {middle}, 1')}, i64 {lo}")
        new_hi = e.value(f"select i1 {less}, i64 {hi}, i64 {middle}")
        e.lines[slot] = "\n".join(
            f"  {v} = phi i64 [{old}, %{before}], [{new}, %{e.current}]"
            for v, old, new in ((lo, low, new_lo), (hi, high, new_hi))
        )
        e.branch(head)
        e.at(after)
        return lo

    def sorted_area(self) -> str:
        """Where the records lie after all merges."""
        e = self.e
        less = e.value(f"sub i64 {self.size(self.tiles)}, 1")
        passes = e.value(f"sub i64 64, {e.call('i64', 'llvm.ctlz.i64', ('i64', less), ('i1', 'false'))}")
        odd = e.value(f"icmp ne i64 {e.value(f'and i64 {passes}, 1')}, 0")
        return e.value(f"select i1 {odd}, ptr {self.areas[1]}, ptr {self.areas[0]}")


class _Sort(Records, Lines):
    """A line's only tile goes to the result at once; else what is in memory does at the end."""

    def __init__(self, op: Op) -> None:
        largest = op.name == "argtopk" and bool(op.attrs["largest"])
        Lines.__init__(self, op, LANE, positions=op.name != "sort", largest=largest)
        self.lanes = 1
        self.kept = [s for a, s in enumerate(self.types[0].shape) if a != self.axis]
        self.found = self.types[1].shape[self.axis]  # of argtopk fewer than there are
        self.lay_out()

    @property
    def in_memory(self) -> Size:
        return dims.minimum(dims.add(self.tiles, -1), 1)

    def more_sizes(self) -> Sequence[Size]:
        return [self.found]

    def line(self, places: Sequence[str]) -> str:
        return self.at(0, places)

    def record_of(self, source: str, index: str) -> str:
        e, t = self.e, f"i{self.bits}"
        at = e.gep(source, times(e, index, self.size(self.types[0].strides[self.axis])), t)
        key = self.key(e.value(f"load {t}, ptr {at}, align {self.bits // 8}"))
        return self.record(key, index) if self.positions else key

    def leave(self, line: str, places: Sequence[str], start: str, power: str) -> None:
        e, several = self.e, super().leave

        def result(t: str, _: list[str]) -> None:
            self.put_result(places, t, self.read_record(self.cell(t)))

        def whole() -> None:
            e.loop(self.member, self.size(self.found), THREADS, result)

        if self.tiles == 1:
            whole()
        elif isinstance(self.tiles, int):
            several(line, places, start, power)
        else:
            one = e.value(f"icmp eq i64 {self.size(self.tiles)}, 1")
            e.when(one, whole)
            e.when(e.value(f"xor i1 {one}, true"), lambda: several(line, places, start, power))

    def put_result(self, places: Sequence[str], index: str, record: str) -> None:
        e = self.e
        at = times(e, index, self.size(self.types[1].strides[self.axis]))
        if not self.positions:
            t = f"i{self.bits}"
            e.line(
                f"store {t} {self.element(record)}, ptr {e.gep(self.at(1, places), at, t)}, align {self.bits // 8}"
            )
            return
        low = e.value(f"and {self.record_type} {record}, {(1 << 32) - 1}")
        value = low if self.width == 64 else e.value(f"trunc {self.record_type} {low} to i64")
        e.line(f"store i64 {value}, ptr {e.gep(self.at(1, places), at, 'i64')}, align 8")

    def write_kernel(self) -> GpuKernel:
        e = self.e
        self.begin_sort()
        found, area = self.size(self.found), self.sorted_area()
        first, step = global_thread(e, BLOCK)

        def element(u: str, _: list[str]) -> None:
            line, t = e.value(f"udiv i64 {u}, {found}"), e.value(f"urem i64 {u}, {found}")
            at = plus(e, times(e, line, self.size(self.pitch)), t)
            self.put_result(self.unravel(line, self.kept), t, self.read_record(self.record_at(area, at)))

        e.loop(first, times(e, self.size(self.count_kept), found), step, element)
        e.end()
        threads = dims.mul(self.in_memory, self.count_kept, self.found)
        return finish(e, "sorted", self.slots.slots, blocks_for(threads))
