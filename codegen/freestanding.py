"""What LLVM's code calls where no C library is linked, as text: for wasm32, which has memory.fill and memory.copy as instructions.

A definition is weak, so that a program which has the function keeps its own.
"""

from __future__ import annotations

from tcc.codegen.target import Target

# The product of two 128-bit integers, given and returned in halves, the low one first
_MULTI3 = """
define weak void @__multi3(ptr %out, i64 %a, i64 %a_high, i64 %b, i64 %b_high) #0 {
  %a0 = and i64 %a, 4294967295
  %a1 = lshr i64 %a, 32
  %b0 = and i64 %b, 4294967295
  %b1 = lshr i64 %b, 32
  %p00 = mul i64 %a0, %b0
  %p01 = mul i64 %a0, %b1
  %p10 = mul i64 %a1, %b0
  %p11 = mul i64 %a1, %b1
  %carry = lshr i64 %p00, 32
  %middle0 = add i64 %p01, %carry
  %low_middle = and i64 %middle0, 4294967295
  %middle1 = add i64 %p10, %low_middle
  %high0 = lshr i64 %middle0, 32
  %high1 = lshr i64 %middle1, 32
  %high2 = add i64 %p11, %high0
  %high3 = add i64 %high2, %high1
  %cross0 = mul i64 %a, %b_high
  %cross1 = mul i64 %a_high, %b
  %high4 = add i64 %high3, %cross0
  %high5 = add i64 %high4, %cross1
  %low = mul i64 %a, %b
  store i64 %low, ptr %out
  %at = getelementptr i64, ptr %out, i32 1
  store i64 %high5, ptr %at
  ret void
}
"""


def text(target: Target) -> str:
    """What a target's module needs to be whole by itself."""
    return _MULTI3 if target.triple.startswith("wasm32") else ""
