"""LLVM text of what the body of an entry calls in a library: errors of its ops, memory and results of sizes found late.

The same functions as codegen/support.py has for a running program, without Python: what goes wrong is said at once, and its
status waits in the call's context.
"""

from __future__ import annotations

from tcc.codegen.aot.checks import field
from tcc.codegen.aot.messages import refuse
from tcc.codegen.support import error_text
from tcc.runtime import layout as at


def _tell() -> str:
    """Keeps the status of what was refused within the body, which itself only says STATUS_PYTHON."""
    return f"""
  %r.i = sext i32 %r to i64
  %told.at = getelementptr i64, ptr %ctx, i64 {at.CTX_OBJECTS}
  store i64 %r.i, ptr %told.at
  ret ptr null"""


def body_text() -> str:
    """What the body of an entry calls: errors of ops, memory of sizes found late, and results of such sizes."""
    return _simple_text() + _late_text() + _output_text()


def _simple_text() -> str:
    """A library is not interrupted, and asks nobody for memory."""
    return f"""
define internal i32 @tcc_poll(ptr %ctx) #0 {{
  ret i32 0
}}

{error_text("internal ")}
define internal i32 @tcc_grant(ptr %ctx, i64 %claim, i64 %bytes) #0 {{
  ret i32 0
}}
"""


def _late_text() -> str:
    return f"""
define internal ptr @tcc_late_alloc(ptr %ctx, i64 %claim, i64 %bytes) #0 {{
entry:
  %padded = add i64 %bytes, {at.BLOCK_HEADER + 63}
  %whole = and i64 %padded, -64
  %block = call ptr @aligned_alloc(i64 64, i64 %whole)
  %none = icmp eq ptr %block, null
  br i1 %none, label %lost, label %keep
lost:
  %who.at = getelementptr i64, ptr %ctx, i64 {at.CTX_FUNCTION}
  %who.i = load i64, ptr %who.at
  %r = {refuse("memory", "memory", "i64 %who.i", "i64 %bytes")}
  br label %tell
tell:{_tell()}
keep:
  %used.at = getelementptr i64, ptr %ctx, i64 {at.CTX_LATE_USED}
  %used = load ptr, ptr %used.at
  store ptr %used, ptr %block
  store ptr %block, ptr %used.at
  %memory = getelementptr i8, ptr %block, i64 {at.BLOCK_HEADER}
  ret ptr %memory
}}

define internal void @tcc_late_release(ptr %ctx, ptr %mark) #0 {{
entry:
  %used.at = getelementptr i64, ptr %ctx, i64 {at.CTX_LATE_USED}
  br label %look
look:
  %block = load ptr, ptr %used.at
  %end = icmp eq ptr %block, %mark
  br i1 %end, label %out, label %drop
drop:
  %next = load ptr, ptr %block
  store ptr %next, ptr %used.at
  call void @free(ptr %block)
  br label %look
out:
  ret void
}}
"""


def _output_text() -> str:
    """Where a result of a late size goes, if the caller's tensor has room; its shape is written there."""
    return f"""
define internal ptr @tcc_output(ptr %ctx, i64 %index, i64 %typenum, i64 %rank, ptr %dims) #0 {{
entry:
  %list.at = getelementptr i64, ptr %ctx, i64 {at.CTX_OUTPUTS}
  %list = load ptr, ptr %list.at
  %t.at = getelementptr ptr, ptr %list, i64 %index
  %t = load ptr, ptr %t.at
{field("shape", "%t", "tcc_tensor", 5, "ptr")}{field("strides", "%t", "tcc_tensor", 6, "ptr")}
{field("base", "%t", "tcc_tensor", 0, "ptr")}{field("offset", "%t", "tcc_tensor", 7, "i64")}
  br label %head
head:
  %i = phi i64 [0, %entry], [%i1, %axis]
  %room = phi i64 [1, %entry], [%room1, %axis]
  %need = phi i64 [1, %entry], [%need1, %axis]
  %more = icmp slt i64 %i, %rank
  br i1 %more, label %axis, label %compare
axis:
  %has.at = getelementptr i64, ptr %shape, i64 %i
  %wants.at = getelementptr i64, ptr %dims, i64 %i
  %has = load i64, ptr %has.at
  %wants = load i64, ptr %wants.at
  %room1 = mul i64 %room, %has
  %need1 = mul i64 %need, %wants
  %i1 = add i64 %i, 1
  br label %head
compare:
  br label %walk
walk:
  %j = phi i64 [%rank, %compare], [%j1, %step]
  %stride = phi i64 [1, %compare], [%wider, %step]
  %left = icmp sgt i64 %j, 0
  br i1 %left, label %write, label %done
write:
  %j1 = sub i64 %j, 1
  %from = getelementptr i64, ptr %dims, i64 %j1
  %to = getelementptr i64, ptr %shape, i64 %j1
  %size = load i64, ptr %from
  store i64 %size, ptr %to
  %wider = mul i64 %stride, %size
  %dense = icmp eq ptr %strides, null
  br i1 %dense, label %step, label %spread
spread:
  %stride.at = getelementptr i64, ptr %strides, i64 %j1
  store i64 %stride, ptr %stride.at
  br label %step
step:
  br label %walk
done:
  %start = getelementptr i8, ptr %base, i64 %offset
  %fits = icmp ule i64 %need, %room
  br i1 %fits, label %out, label %narrow
out:
  ret ptr %start
narrow:
  %who.at = getelementptr i64, ptr %ctx, i64 {at.CTX_FUNCTION}
  %who.i = load i64, ptr %who.at
  %record.at = getelementptr i64, ptr %ctx, i64 {at.CTX_RECORD}
  %specs = load ptr, ptr %record.at
  %spec = getelementptr %tcc_spec, ptr %specs, i64 %index
  %name.i = load i64, ptr %spec
  %r = {refuse("size", "room", "i64 %who.i", "i64 %name.i", "i64 %room", "i64 %need")}
  br label %tell
tell:{_tell()}
}}
"""
