"""What code calls where no C library is linked, as LLVM text: for wasm32, where a model's module is to need nothing at all.

Filling and copying memory are instructions there.  Blocks of memory are multiples of 128 bytes behind a header of 128, and go
to a list when they are given back.  There are no files.
"""

from __future__ import annotations

from tcc.codegen.target import Target

EXPORTS = ("tcc_alloc", "tcc_free")  # for a caller's arrays
ROOTS = (*EXPORTS, "__multi3")  # the last is called by what LLVM makes of products of 128 bits

_TEXT = """
@tcc_heap_free = internal global ptr null
@tcc_heap_top = internal global i32 0
@__heap_base = external global i8
declare i32 @llvm.wasm.memory.size.i32(i32)
declare i32 @llvm.wasm.memory.grow.i32(i32, i32)

define ptr @aligned_alloc(i64 %align, i64 %bytes) #0 {
entry:
  %small = icmp ult i64 %bytes, 2147483520
  br i1 %small, label %round, label %none
none:
  ret ptr null
round:
  %n = trunc i64 %bytes to i32
  %up = add i32 %n, 127
  %want = and i32 %up, -128
  %most = shl i32 %want, 1
  br label %look
look:
  %link = phi ptr [@tcc_heap_free, %round], [%block, %pass]
  %block = load ptr, ptr %link
  %end = icmp eq ptr %block, null
  br i1 %end, label %fresh, label %weigh
weigh:
  %has.at = getelementptr i32, ptr %block, i32 1
  %has = load i32, ptr %has.at
  %enough = icmp uge i32 %has, %want
  %close = icmp ule i32 %has, %most
  %fits = and i1 %enough, %close
  br i1 %fits, label %take, label %pass
pass:
  br label %look
take:
  %next = load ptr, ptr %block
  store ptr %next, ptr %link
  %old = getelementptr i8, ptr %block, i32 128
  ret ptr %old
fresh:
  %top0 = load i32, ptr @tcc_heap_top
  %begun = icmp ne i32 %top0, 0
  %base = ptrtoint ptr @__heap_base to i32
  %from = select i1 %begun, i32 %top0, i32 %base
  %from1 = add i32 %from, 127
  %at = and i32 %from1, -128
  %data = add i32 %at, 128
  %top = add i32 %data, %want
  %wraps = icmp ult i32 %top, %at
  br i1 %wraps, label %none, label %measure
measure:
  %pages = call i32 @llvm.wasm.memory.size.i32(i32 0)
  %pages.w = zext i32 %pages to i64
  %size = shl i64 %pages.w, 16
  %top.w = zext i32 %top to i64
  %over = icmp ugt i64 %top.w, %size
  br i1 %over, label %grow, label %keep
grow:
  %lack = sub i64 %top.w, %size
  %lack1 = add i64 %lack, 65535
  %more.w = lshr i64 %lack1, 16
  %more = trunc i64 %more.w to i32
  %was = call i32 @llvm.wasm.memory.grow.i32(i32 0, i32 %more)
  %failed = icmp eq i32 %was, -1
  br i1 %failed, label %none, label %keep
keep:
  store i32 %top, ptr @tcc_heap_top
  %made = inttoptr i32 %at to ptr
  %made.has = getelementptr i32, ptr %made, i32 1
  store i32 %want, ptr %made.has
  %new = inttoptr i32 %data to ptr
  ret ptr %new
}

define void @free(ptr %p) #0 {
entry:
  %nothing = icmp eq ptr %p, null
  br i1 %nothing, label %out, label %give
give:
  %block = getelementptr i8, ptr %p, i32 -128
  %first = load ptr, ptr @tcc_heap_free
  store ptr %first, ptr %block
  store ptr %block, ptr @tcc_heap_free
  br label %out
out:
  ret void
}

define ptr @tcc_alloc(i32 %bytes) #0 {
  %n = zext i32 %bytes to i64
  %p = call ptr @aligned_alloc(i64 64, i64 %n)
  ret ptr %p
}

define void @tcc_free(ptr %p) #0 {
  call void @free(ptr %p)
  ret void
}

define ptr @fopen(ptr %name, ptr %mode) #0 {
  ret ptr null
}

define i64 @fread(ptr %to, i64 %size, i64 %count, ptr %file) #0 {
  ret i64 0
}

define i32 @fclose(ptr %file) #0 {
  ret i32 0
}

define void @__multi3(ptr %out, i64 %a, i64 %a_high, i64 %b, i64 %b_high) #0 {
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


def is_freestanding(target: Target) -> bool:
    return target.triple.startswith("wasm32")


def text(target: Target) -> str:
    """What a target's module needs to be whole by itself."""
    return _TEXT if is_freestanding(target) else ""


def roots(target: Target) -> tuple[str, ...]:
    """Of that text, what others than the module call."""
    return ROOTS if is_freestanding(target) else ()
