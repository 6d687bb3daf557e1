"""What tensor instructions do, on the host: LLVM text that a kernel's module gets for the emulator where it uses them."""

from __future__ import annotations

from tcc.codegen.emit import Emit

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


def mma_text(kind: str, per_word: int) -> str:
    """One element of a warp's product, from the words that the lanes gave: C + sum over k of A[row, k] * B[k, column].

    Words of A hold rows 0-7 and 8-15 in turn, for the lower and then the upper half of k; those of B the two halves.
    """
    e = Emit()
    e.function(f"internal float @emu.mma.{kind}(i32 %row, i32 %col, float %start)")
    mine = e.value("load i32, ptr @emu.thread")
    warp = e.value(f"and i32 {mine}, -32")

    def number(word: str, half: str) -> str:
        if kind == "tf32":
            return e.value(f"bitcast i32 {e.value(f'and i32 {word}, {-0x2000}')} to float")
        moved = e.value(f"lshr i32 {word}, {e.value(f'shl i32 {half}, 4')}")
        if kind == "bf16":
            return e.value(f"bitcast i32 {e.value(f'shl i32 {moved}, 16')} to float")
        short = e.value(f"bitcast i16 {e.value(f'trunc i32 {moved} to i16')} to half")
        return e.value(f"fpext half {short} to float")

    def step(i: str, total: list[str]) -> list[str]:
        k = e.value(f"trunc i64 {i} to i32")
        half = e.value(f"and i32 {k}, {per_word - 1}")
        quad = e.value(f"and i32 {e.value(f'udiv i32 {k}, {per_word}')}, 3")
        upper = e.value(f"udiv i32 {k}, {4 * per_word}")

        def give(line: str, word: str) -> str:
            lane = e.value(f"or i32 {e.value(f'shl i32 {line}, 2')}, {quad}")
            return e.value(f"call i32 @emu.slot(i32 {e.value(f'or i32 {warp}, {lane}')}, i32 {word})")

        word = e.value(f"add i32 {e.value(f'shl i32 {upper}, 1')}, {e.value('lshr i32 %row, 3')}")
        a = number(give(e.value("and i32 %row, 7"), word), half)
        b = number(give("%col", e.value(f"add i32 {upper}, 4")), half)
        return [e.value(f"fadd float {total[0]}, {e.value(f'fmul float {a}, {b}')}")]

    (total,) = e.loop(0, 8 * per_word, 1, step, [("float", "%start")])
    e.end(f"float {total}")
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
