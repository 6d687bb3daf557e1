"""LLVM text of memory whose sizes only running tells.

A call takes a bag of blocks and gives it back, with the GIL held; in between the bag is its own.  What does not fit is asked of
Python, which takes a smaller block back for it.
"""

from __future__ import annotations

from tcc.codegen.slots import field
from tcc.codegen.to_python import callee_text
from tcc.runtime import layout as at


def late_text() -> str:
    """`tcc_late_enter`, `tcc_late_alloc`, `tcc_late_release`, `tcc_late_leave`, and `tcc_grant`."""
    return "".join((_enter_text(), _alloc_text(), _release_text(), _leave_text(), _grant_text()))


def _enter_text() -> str:
    """A call takes a bag from the record."""
    return f"""
define void @tcc_late_enter(ptr %ctx) #0 {{
{field("record", "%ctx", at.CTX_RECORD, "ptr")}
  %bags.at = getelementptr i64, ptr %record, i64 {at.RECORD_LATE}
  %bag = load ptr, ptr %bags.at
  %used.at = getelementptr i64, ptr %ctx, i64 {at.CTX_LATE_USED}
  store ptr null, ptr %used.at
  %free.at = getelementptr i64, ptr %ctx, i64 {at.CTX_LATE_FREE}
  store ptr %bag, ptr %free.at
  %none = icmp eq ptr %bag, null
  br i1 %none, label %out, label %take
take:
{field("next", "%bag", at.BLOCK_BAG, "ptr")}
  store ptr %next, ptr %bags.at
  br label %out
out:
  ret void
}}
"""


def _alloc_text() -> str:
    """A block of the bag that is large enough, or one that Python makes, for the context's own use; null if there is none."""
    return f"""
define ptr @tcc_late_alloc(ptr %ctx, i64 %claim, i64 %bytes) #0 {{
entry:
  %overflow = alloca i32
  %free.at = getelementptr i64, ptr %ctx, i64 {at.CTX_LATE_FREE}
  br label %look
look:
  %link = phi ptr [%free.at, %entry], [%block, %skip]
  %block = load ptr, ptr %link
  %end = icmp eq ptr %block, null
  br i1 %end, label %ask, label %weigh
weigh:
{field("capacity", "%block", at.BLOCK_CAPACITY)}
  %fits = icmp uge i64 %capacity, %bytes
  br i1 %fits, label %unlink, label %skip
skip:
  br label %look
unlink:
  %rest = load ptr, ptr %block
  store ptr %rest, ptr %link
  br label %keep
ask:
  %old = load ptr, ptr %free.at
  %bare = icmp eq ptr %old, null
  br i1 %bare, label %call, label %drop
drop:
  %others = load ptr, ptr %old
  store ptr %others, ptr %free.at
  br label %call
call:
  %released = call i1 @tcc_gil_enter(ptr %ctx){callee_text(at.API_LATE)}
  %result = call ptr (ptr, ptr, ...) @PyObject_CallFunction(ptr %callee, ptr @tcc_format_late, ptr %self, ptr %record, i64 %claim, i64 %bytes, ptr %old)
  %failed = icmp eq ptr %result, null
  br i1 %failed, label %leave, label %read
read:
  %address = call i64 @PyLong_AsLongLongAndOverflow(ptr %result, ptr %overflow)
  call void @Py_DecRef(ptr %result)
  br label %leave
leave:
  %got = phi i64 [0, %call], [%address, %read]
  call void @tcc_gil_leave(ptr %ctx, i1 %released)
  %made = getelementptr i8, ptr null, i64 %got
  br i1 %failed, label %none, label %keep
none:
  ret ptr null
keep:
  %mine = phi ptr [%block, %unlink], [%made, %leave]
{field("used", "%ctx", at.CTX_LATE_USED, "ptr")}
  store ptr %used, ptr %mine
  store ptr %mine, ptr %used.at
  %memory = getelementptr i8, ptr %mine, i64 {at.BLOCK_HEADER}
  ret ptr %memory
}}
"""


def _release_text() -> str:
    """What was taken since `mark` is free again, for this call."""
    return f"""
define void @tcc_late_release(ptr %ctx, ptr %mark) #0 {{
entry:
  %used.at = getelementptr i64, ptr %ctx, i64 {at.CTX_LATE_USED}
  %free.at = getelementptr i64, ptr %ctx, i64 {at.CTX_LATE_FREE}
  br label %look
look:
  %block = load ptr, ptr %used.at
  %end = icmp eq ptr %block, %mark
  br i1 %end, label %out, label %move
move:
  %next = load ptr, ptr %block
  store ptr %next, ptr %used.at
  %free = load ptr, ptr %free.at
  store ptr %free, ptr %block
  store ptr %block, ptr %free.at
  br label %look
out:
  ret void
}}
"""


def _leave_text() -> str:
    """The bag goes back to the record."""
    return f"""
define void @tcc_late_leave(ptr %ctx) #0 {{
entry:
  call void @tcc_late_release(ptr %ctx, ptr null)
  %free.at = getelementptr i64, ptr %ctx, i64 {at.CTX_LATE_FREE}
  %bag = load ptr, ptr %free.at
  %none = icmp eq ptr %bag, null
  br i1 %none, label %out, label %give
give:
{field("record", "%ctx", at.CTX_RECORD, "ptr")}
{field("bags", "%record", at.RECORD_LATE, "ptr")}
  %next.at = getelementptr i64, ptr %bag, i64 {at.BLOCK_BAG}
  store ptr %bags, ptr %next.at
  store ptr %bag, ptr %bags.at
  br label %out
out:
  ret void
}}
"""


def _grant_text() -> str:
    """Asks Python whether so much memory may be taken, if it is much."""
    return f"""
define i32 @tcc_grant(ptr %ctx, i64 %claim, i64 %bytes) #0 {{
entry:
  %small = icmp ult i64 %bytes, {at.UNCHECKED_BYTES}
  br i1 %small, label %fine, label %ask
ask:
  %released = call i1 @tcc_gil_enter(ptr %ctx){callee_text(at.API_GRANT)}
  %result = call ptr (ptr, ptr, ...) @PyObject_CallFunction(ptr %callee, ptr @tcc_format_grant, ptr %self, ptr %record, i64 %claim, i64 %bytes)
  %failed = icmp eq ptr %result, null
  call void @Py_DecRef(ptr %result)
  call void @tcc_gil_leave(ptr %ctx, i1 %released)
  %status = select i1 %failed, i32 {at.STATUS_PYTHON}, i32 {at.STATUS_OK}
  ret i32 %status
fine:
  ret i32 {at.STATUS_OK}
}}
"""
