"""What tensor instructions do, on the host: LLVM text that a kernel's module gets for the emulator where it uses them."""

from __future__ import annotations

from tcc.codegen.emit import Emit
from tcc.codegen.gpu.emulated_tiles import in_shared
from tcc.codegen.gpu.ops import THREADS
from tcc.ir.types import itemsize

POINTER = """
define internal ptr @emu.pointer(i32 %t) alwaysinline {
  %low = call i32 @emu.slot(i32 %t, i32 0)
  %high = call i32 @emu.slot(i32 %t, i32 1)
  %a = zext i32 %low to i64
  %b = zext i32 %high to i64
  %c = shl i64 %b, 32
  %d = or i64 %c, %a
  %p = inttoptr i64 %d to ptr
  ret ptr %p
}
"""


PER_WORD = {"tf32": 1, "bf16": 2, "f16": 2, "s8.s8": 4, "u8.s8": 4}  # numbers of 32 bits


def mma_text(kind: str) -> str:
    """One element of a warp's product, from the words that the lanes gave: C + sum over k of A[row, k] * B[k, column].

    Words of A hold rows 0-7 and 8-15 in turn, for the lower and then the upper half of k; those of B the two halves.
    """
    e, per_word = Emit(), PER_WORD[kind]
    total = "i32" if per_word == 4 else "float"
    e.function(f"internal {total} @emu.mma.{kind}(i32 %row, i32 %col, {total} %start)")
    mine = e.value("load i32, ptr @emu.thread")
    warp = e.value(f"and i32 {mine}, -32")

    def number(word: str, part: str, operand: int) -> str:
        if kind == "tf32":
            return e.value(f"bitcast i32 {e.value(f'and i32 {word}, {-0x2000}')} to float")
        moved = e.value(f"lshr i32 {word}, {e.value(f'mul i32 {part}, {32 // per_word}')}")
        if per_word == 4:
            wide = "sext" if kind.split(".")[operand] == "s8" else "zext"
            return e.value(f"{wide} i8 {e.value(f'trunc i32 {moved} to i8')} to i32")
        if kind == "bf16":
            return e.value(f"bitcast i32 {e.value(f'shl i32 {moved}, 16')} to float")
        short = e.value(f"bitcast i16 {e.value(f'trunc i32 {moved} to i16')} to half")
        return e.value(f"fpext half {short} to float")

    def step(i: str, sums: list[str]) -> list[str]:
        k = e.value(f"trunc i64 {i} to i32")
        part = e.value(f"and i32 {k}, {per_word - 1}")
        quad = e.value(f"and i32 {e.value(f'udiv i32 {k}, {per_word}')}, 3")
        upper = e.value(f"udiv i32 {k}, {4 * per_word}")

        def give(line: str, word: str) -> str:
            lane = e.value(f"or i32 {e.value(f'shl i32 {line}, 2')}, {quad}")
            return e.value(f"call i32 @emu.slot(i32 {e.value(f'or i32 {warp}, {lane}')}, i32 {word})")

        word = e.value(f"add i32 {e.value(f'shl i32 {upper}, 1')}, {e.value('lshr i32 %row, 3')}")
        a = number(give(e.value("and i32 %row, 7"), word), part, 0)
        b = number(give("%col", e.value(f"add i32 {upper}, 4")), part, 1)
        f = "f" if total == "float" else ""
        return [e.value(f"{f}add {total} {sums[0]}, {e.value(f'{f}mul {total} {a}, {b}')}")]

    (made,) = e.loop(0, 8 * per_word, 1, step, [(total, "%start")])
    e.end(f"{total} {made}")
    return e.text()


_MMA64 = """
define internal void @emu.give_double(i32 %word, double %x) alwaysinline {
  %w = bitcast double %x to i64
  %low = trunc i64 %w to i32
  %up = lshr i64 %w, 32
  %high = trunc i64 %up to i32
  %next = add i32 %word, 1
  call void @emu.give(i32 %word, i32 %low)
  call void @emu.give(i32 %next, i32 %high)
  ret void
}
define internal double @emu.double(i32 %t, i32 %word) {
  %next = add i32 %word, 1
  %low = call i32 @emu.slot(i32 %t, i32 %word)
  %high = call i32 @emu.slot(i32 %t, i32 %next)
  %a = zext i32 %low to i64
  %b = zext i32 %high to i64
  %c = shl i64 %b, 32
  %d = or i64 %c, %a
  %x = bitcast i64 %d to double
  ret double %x
}
"""


def mma64_text() -> str:
    """The same of doubles, four along k, which each lane gave one of for A and one for B."""
    e = Emit()
    e.function("internal double @emu.mma.f64(i32 %row, i32 %col, double %start)")
    warp = e.value(f"and i32 {e.value('load i32, ptr @emu.thread')}, -32")

    def give(line: str, k: int, word: int) -> str:
        lane = e.value(f"or i32 {e.value(f'shl i32 {line}, 2')}, {k}")
        return e.value(f"call double @emu.double(i32 {e.value(f'or i32 {warp}, {lane}')}, i32 {word})")

    total = "%start"
    for k in range(4):
        a, b = give("%row", k, 0), give("%col", k, 2)
        total = e.call("double", "llvm.fma.f64", ("double", a), ("double", b), ("double", total))
    e.end(f"double {total}")
    return "\n".join([*e.declared, _MMA64, e.text()])


UNDER_WAY = 64  # copies that a thread may have begun and not waited for; the oldest then land
COPIES = f"""
@emu.copies = internal global [{THREADS * UNDER_WAY} x [3 x i64]] zeroinitializer
@emu.copy_state = internal global [{THREADS} x [3 x i64]] zeroinitializer
define internal ptr @emu.copy_at(i64 %number) alwaysinline {{
  %c = load i32, ptr @emu.thread
  %t = zext i32 %c to i64
  %row = mul i64 %t, {UNDER_WAY}
  %in = and i64 %number, {UNDER_WAY - 1}
  %i = add i64 %row, %in
  %p = getelementptr [3 x i64], ptr @emu.copies, i64 %i
  ret ptr %p
}}
define internal ptr @emu.copy_word(i32 %word) alwaysinline {{
  %c = load i32, ptr @emu.thread
  %row = getelementptr [3 x i64], ptr @emu.copy_state, i32 %c
  %p = getelementptr i64, ptr %row, i32 %word
  ret ptr %p
}}
define internal void @emu.copies_land(i64 %before, i64 %most) {{
entry:
  %first.at = call ptr @emu.copy_word(i32 0)
  %last.at = call ptr @emu.copy_word(i32 1)
  %last = load i64, ptr %last.at
  br label %head
head:
  %first = load i64, ptr %first.at
  %some = icmp slt i64 %first, %last
  br i1 %some, label %look, label %done
look:
  %p = call ptr @emu.copy_at(i64 %first)
  %q = getelementptr i64, ptr %p, i64 1
  %r = getelementptr i64, ptr %p, i64 2
  %group = load i64, ptr %r
  %old = icmp slt i64 %group, %before
  %held = sub i64 %last, %first
  %full = icmp sge i64 %held, %most
  %due = or i1 %old, %full
  br i1 %due, label %land, label %done
land:
  %target = load i64, ptr %p
  %source = load i64, ptr %q
  %from = inttoptr i64 %source to ptr
  %to = inttoptr i64 %target to ptr
  %good = call ptr @emu.check(ptr %from, i64 16, i64 15)
  %place = call ptr @emu.check(ptr %to, i64 16, i64 15)
  %v = load i128, ptr %good, align 16
  store i128 %v, ptr %place, align 16
  %next = add i64 %first, 1
  store i64 %next, ptr %first.at
  br label %head
done:
  ret void
}}
define internal void @emu.copy_later(ptr %target, ptr %source) {{
  call void @emu.copies_land(i64 -1, i64 {UNDER_WAY})
  %last.at = call ptr @emu.copy_word(i32 1)
  %group.at = call ptr @emu.copy_word(i32 2)
  %last = load i64, ptr %last.at
  %group = load i64, ptr %group.at
  %p = call ptr @emu.copy_at(i64 %last)
  %q = getelementptr i64, ptr %p, i64 1
  %r = getelementptr i64, ptr %p, i64 2
  %a = ptrtoint ptr %target to i64
  %b = ptrtoint ptr %source to i64
  store i64 %a, ptr %p
  store i64 %b, ptr %q
  store i64 %group, ptr %r
  %next = add i64 %last, 1
  store i64 %next, ptr %last.at
  ret void
}}
define internal void @emu.copies_begun() {{
  %group.at = call ptr @emu.copy_word(i32 2)
  %group = load i64, ptr %group.at
  %next = add i64 %group, 1
  store i64 %next, ptr %group.at
  ret void
}}
define internal void @emu.copies_left(i64 %n) {{
  %group.at = call ptr @emu.copy_word(i32 2)
  %group = load i64, ptr %group.at
  %before = sub i64 %group, %n
  call void @emu.copies_land(i64 %before, i64 {2 * UNDER_WAY})
  ret void
}}
"""

PHASES = """
define internal void @emu.phase_move(ptr %p, i64 %arrived, i64 %bytes) {
  %s = load i64, ptr %p
  %less = sub i64 %s, %arrived
  %more = shl i64 %bytes, 32
  %t = add i64 %less, %more
  %missing = and i64 %t, 65535
  %up = lshr i64 %t, 32
  %left = and i64 %up, 2147483647
  %any = or i64 %missing, %left
  %over = icmp eq i64 %any, 0
  %turned = xor i64 %t, -9223372036854775808
  %high = lshr i64 %t, 16
  %count = and i64 %high, 65535
  %new = or i64 %turned, %count
  %r = select i1 %over, i64 %new, i64 %t
  store i64 %r, ptr %p
  ret void
}
"""


GROUPS = 8  # of products under way that are remembered for a thread
# A thread's groups: how many, then for each where A and B begin in shared memory and B's bytes; the last is not yet begun.
UNDER_WAY_PRODUCTS = f"""
@emu.groups = internal global [{THREADS} x [{1 + 3 * GROUPS + 3} x i64]] zeroinitializer
define internal ptr @emu.group_word(i64 %t, i64 %word) alwaysinline {{
  %row = getelementptr [{1 + 3 * GROUPS + 3} x i64], ptr @emu.groups, i64 %t
  %p = getelementptr i64, ptr %row, i64 %word
  ret ptr %p
}}
define internal i64 @emu.me() alwaysinline {{
  %c = load i32, ptr @emu.thread
  %t = zext i32 %c to i64
  ret i64 %t
}}
define internal void @emu.products_begun() {{
  %t = call i64 @emu.me()
  %p = call ptr @emu.group_word(i64 %t, i64 0)
  %count = load i64, ptr %p
  %next = add i64 %count, 1
  %kept = call i64 @llvm.umin.i64(i64 %next, i64 {GROUPS})
  store i64 %kept, ptr %p
  %at = mul i64 %kept, 3
  %word = add i64 %at, 3
  %q = call ptr @emu.group_word(i64 %t, i64 %word)
  store i64 0, ptr %q
  ret void
}}
define internal void @emu.products_left(i64 %n) {{
entry:
  %t = call i64 @emu.me()
  %p = call ptr @emu.group_word(i64 %t, i64 0)
  %count = load i64, ptr %p
  %more = icmp ugt i64 %count, %n
  br i1 %more, label %drop, label %done
drop:
  %old = sub i64 %count, %n
  %first = mul i64 %old, 3
  %word = add i64 %first, 1
  %from = call ptr @emu.group_word(i64 %t, i64 %word)
  %to = call ptr @emu.group_word(i64 %t, i64 1)
  %bytes = mul i64 %n, 24
  call void @llvm.memmove.p0.p0.i64(ptr %to, ptr %from, i64 %bytes, i1 false)
  store i64 %n, ptr %p
  %last = mul i64 %n, 3
  %free = add i64 %last, 3
  %q = call ptr @emu.group_word(i64 %t, i64 %free)
  store i64 0, ptr %q
  br label %done
done:
  ret void
}}
define internal i1 @emu.products_open() {{
  %t = call i64 @emu.me()
  %p = call ptr @emu.group_word(i64 %t, i64 0)
  %count = load i64, ptr %p
  %open = icmp ne i64 %count, 0
  ret i1 %open
}}
declare i64 @llvm.umin.i64(i64, i64)
declare void @llvm.memmove.p0.p0.i64(ptr, ptr, i64, i1)
"""


TOTALS = "@emu.totals = internal global [128 x i32] zeroinitializer\n"


def wgmma_text(kind: str) -> str:
    """A thread's share of a warpgroup's product, whose totals lie in @emu.totals: rows r and r + 8, pairs of columns."""
    e, each = Emit(), itemsize(kind)
    total, f = ("i32", "") if each == 1 else ("float", "f")
    e.function(f"internal void @emu.wgmma.{kind}(i64 %a, i64 %b, i64 %groups, i1 %ta, i1 %tb)")
    me = e.value(f"zext i32 {e.value('load i32, ptr @emu.thread')} to i64")
    lane = e.value(f"and i64 {me}, 31")
    warp = e.value(f"and i64 {e.value(f'lshr i64 {me}, 5')}, 3")
    top = e.value(f"add i64 {e.value(f'shl i64 {warp}, 4')}, {e.value(f'lshr i64 {lane}, 2')}")
    left = e.value(f"shl i64 {e.value(f'and i64 {lane}, 3')}, 1")
    a, b = (_Matrix(e, kind, descriptor) for descriptor in ("%a", "%b"))
    _note_product(e, me, a, b)

    def group(g: str, _: list[str]) -> None:
        for n in range(4):
            row = e.value(f"add i64 {top}, {8 * (n // 2)}")
            column = e.value(f"add i64 {e.value(f'shl i64 {g}, 3')}, {e.value(f'add i64 {left}, {n % 2}')}")
            index = e.value(f"add i64 {e.value(f'shl i64 {g}, 2')}, {n}")
            place = e.value(f"getelementptr {total}, ptr @emu.totals, i64 {index}")

            def add(k: str, sums: list[str], row: str = row, column: str = column) -> list[str]:
                x, y = a.number("%ta", row, k), b.number("%tb", column, k)
                return [e.value(f"{f}add {total} {sums[0]}, {e.value(f'{f}mul {total} {x}, {y}')}")]

            (made,) = e.loop(0, 32 // each, 1, add, [(total, e.value(f"load {total}, ptr {place}"))])
            e.line(f"store {total} {made}, ptr {place}")

    e.loop(0, "%groups", 1, group)
    e.end()
    return e.text()


class _Matrix:
    """What a descriptor says, there in units of 16 bytes: where a matrix begins, the step from 64 lines to the next (of a turned
    one) and the step from eight rows of 128 bytes to the next."""

    def __init__(self, e: Emit, kind: str, descriptor: str) -> None:
        self.e, self.kind, self.each = e, kind, str(itemsize(kind))
        self.start, self.lines_step, self.rows_step = (self._field(descriptor, bit) for bit in (0, 16, 32))

    def _field(self, word: str, bit: int) -> str:
        moved = word if bit == 0 else self.e.value(f"lshr i64 {word}, {bit}")
        return self.e.value(f"shl i64 {self.e.value(f'and i64 {moved}, 16383')}, 4")

    def number(self, turned: str, line: str, k: str) -> str:
        """The element of a line at `k`, as totals are."""
        e = self.e
        offsets = [self._offset(parts) for parts in (self._along_k(line, k), self._along_lines(line, k))]
        offset = e.value(f"select i1 {turned}, i64 {offsets[1]}, i64 {offsets[0]}")
        if self.each == "1":
            return e.value(f"sext i8 {e.value(f'load i8, ptr {in_shared(e, offset)}')} to i32")
        short = e.value(f"load i16, ptr {in_shared(e, offset)}")
        if self.kind == "f16":
            return e.value(f"fpext half {e.value(f'bitcast i16 {short} to half')} to float")
        word = e.value(f"shl i32 {e.value(f'zext i16 {short} to i32')}, 16")
        return e.value(f"bitcast i32 {word} to float")

    def _along_k(self, line: str, k: str) -> list[str]:
        """What an element lies behind the start where those of a line are neighbours."""
        parts = [(line, "udiv", 8, self.rows_step), (line, "urem", 8, "128"), (k, "mul", 1, self.each)]
        return [self._part(*part) for part in parts]

    def _along_lines(self, line: str, k: str) -> list[str]:
        """Where those of one k are."""
        parts = [(line, "udiv", 64, self.lines_step), (line, "urem", 64, self.each)]
        parts += [(k, "udiv", 8, self.rows_step), (k, "urem", 8, "128")]
        return [self._part(*part) for part in parts]

    def _part(self, value: str, op: str, by: int, step: str) -> str:
        return self.e.value(f"mul i64 {self.e.value(f'{op} i64 {value}, {by}')}, {step}")

    def _offset(self, parts: list[str]) -> str:
        offset = self.start
        for part in parts:
            offset = self.e.value(f"add i64 {offset}, {part}")
        return offset


def _note_product(e: Emit, me: str, a: _Matrix, b: _Matrix) -> None:
    """The first product of a thread's group notes what it reads, for copies to know: A, B, and the bytes of B."""
    count = e.value(f"load i64, ptr {e.value(f'call ptr @emu.group_word(i64 {me}, i64 0)')}")
    at = e.value(f"mul i64 {count}, 3")
    cells = [
        e.value(f"call ptr @emu.group_word(i64 {me}, i64 {e.value(f'add i64 {at}, {w}')})") for w in (1, 2, 3)
    ]

    def note() -> None:
        for cell, value in zip(cells, (a.start, b.start, e.value("shl i64 %groups, 10"))):
            e.line(f"store i64 {value}, ptr {cell}")

    e.when(e.value(f"icmp eq i64 {e.value(f'load i64, ptr {cells[2]}')}, 0"), note)
