"""LLVM text of what compiled functions call at run time: the pool (codegen/pool.py), errors, and the way to Python.

One module, compiled once per process or found in the cache.  It holds no address of this process: those come through the
API table and through symbols, so the object code is the same everywhere.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

from tcc.codegen.jit import Image, compile_object
from tcc.codegen.keys import cache_key
from tcc.codegen.pool import CLOCK_MONOTONIC_COARSE, clock_text, pool_text
from tcc.codegen.target import Target, host
from tcc.runtime import cache
from tcc.runtime import layout as at
from tcc.runtime.native import provide
from tcc.runtime.panels import PATIENCE
from tcc.runtime.symbols import symbols

POLL_NS = 20_000_000

# What entries and bodies may call, and its type.
DECLARATIONS: dict[str, str] = {
    "tcc_parallel": "declare void @tcc_parallel(ptr, ptr, ptr, i64, i64)",
    "tcc_fail": "declare void @tcc_fail(ptr, i64, i64, i64, i64, i64)",
    "tcc_poll": "declare i32 @tcc_poll(ptr)",
    "tcc_host_call": "declare i32 @tcc_host_call(ptr, ptr, i64)",
    "tcc_output": "declare ptr @tcc_output(ptr, i64, i64, i64, ptr)",
    "tcc_grant": "declare i32 @tcc_grant(ptr, i64, i64)",
    "tcc_late_alloc": "declare ptr @tcc_late_alloc(ptr, i64, i64)",
    "tcc_late_release": "declare void @tcc_late_release(ptr, ptr)",
    "tcc_late_enter": "declare void @tcc_late_enter(ptr)",
    "tcc_late_leave": "declare void @tcc_late_leave(ptr)",
    "tcc_gil_release": "declare void @tcc_gil_release(ptr)",
    "tcc_gil_acquire": "declare void @tcc_gil_acquire(ptr)",
    "tcc_slow": "declare ptr @tcc_slow(ptr, ptr, i64, ptr)",
    "tcc_raise": "declare void @tcc_raise(ptr)",
    "tcc_adopt": "declare i1 @tcc_adopt(ptr, i64, ptr)",
    "tcc_drop": "declare void @tcc_drop(ptr, i64)",
    "tcc_kept": "declare ptr @tcc_kept(ptr, ptr)",
}


def support_text(target: Target) -> str:
    """The whole module, but for what `compile_object` adds."""
    return "".join(
        (
            pool_text(target),
            clock_text("tcc_coarse_clock", CLOCK_MONOTONIC_COARSE),
            error_text(),
            PYTHON,
            _gil_text(),
            _poll_text(),
            _host_text(),
            _output_text(),
            _late_text(),
            _slow_text(),
            _callback_text(),
            _list_text(),
            _kept_text(),
        )
    )


PYTHON = """
declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)
declare i32 @PyErr_CheckSignals()
declare void @Py_IncRef(ptr)
declare void @Py_DecRef(ptr)
declare ptr @PyTuple_New(i64)
declare i32 @PyTuple_SetItem(ptr, i64, ptr)
declare ptr @PyTuple_GetItem(ptr, i64)
declare i64 @PyTuple_Size(ptr)
declare ptr @PyDict_New()
declare i32 @PyDict_SetItem(ptr, ptr, ptr)
declare ptr @PyObject_CallFunctionObjArgs(ptr, ...)
declare ptr @PyObject_CallFunction(ptr, ptr, ...)
declare i64 @PyLong_AsLongLongAndOverflow(ptr, ptr)
@tcc_format_host = internal constant [4 x i8] c"nnO\\00"
@tcc_format_raise = internal constant [8 x i8] c"OnLLLLL\\00"
@tcc_format_adopt = internal constant [5 x i8] c"OnnO\\00"
@tcc_format_grant = internal constant [5 x i8] c"OnLL\\00"
@tcc_format_late = internal constant [6 x i8] c"OnLLn\\00"
"""


def error_text(linkage: str = "") -> str:
    """`tcc_fail`: keeps the first error of a call."""
    return f"""
define {linkage}void @tcc_fail(ptr %ctx, i64 %op, i64 %a, i64 %b, i64 %c, i64 %d) #0 {{
  %op.at = getelementptr i64, ptr %ctx, i64 {at.CTX_ERROR}
  %swap = cmpxchg ptr %op.at, i64 0, i64 %op acq_rel monotonic, align 8
  %first = extractvalue {{ i64, i1 }} %swap, 1
  br i1 %first, label %write, label %out
write:
  %a.at = getelementptr i64, ptr %op.at, i64 1
  %b.at = getelementptr i64, ptr %op.at, i64 2
  %c.at = getelementptr i64, ptr %op.at, i64 3
  %d.at = getelementptr i64, ptr %op.at, i64 4
  store i64 %a, ptr %a.at
  store i64 %b, ptr %b.at
  store i64 %c, ptr %c.at
  store i64 %d, ptr %d.at
  br label %out
out:
  ret void
}}
"""


def _gil_text() -> str:
    return f"""
define void @tcc_gil_release(ptr %ctx) #0 {{
  %state.at = getelementptr i64, ptr %ctx, i64 {at.CTX_THREAD_STATE}
  %state = call ptr @PyEval_SaveThread()
  store ptr %state, ptr %state.at
  ret void
}}

define void @tcc_gil_acquire(ptr %ctx) #0 {{
  %state.at = getelementptr i64, ptr %ctx, i64 {at.CTX_THREAD_STATE}
  %state = load ptr, ptr %state.at
  %held = icmp eq ptr %state, null
  br i1 %held, label %out, label %take
take:
  call void @PyEval_RestoreThread(ptr %state)
  store ptr null, ptr %state.at
  br label %out
out:
  ret void
}}

define internal i1 @tcc_gil_enter(ptr %ctx) #0 {{
  %state.at = getelementptr i64, ptr %ctx, i64 {at.CTX_THREAD_STATE}
  %state = load ptr, ptr %state.at
  %released = icmp ne ptr %state, null
  call void @tcc_gil_acquire(ptr %ctx)
  ret i1 %released
}}

define internal void @tcc_gil_leave(ptr %ctx, i1 %released) #0 {{
  br i1 %released, label %give, label %out
give:
  call void @tcc_gil_release(ptr %ctx)
  br label %out
out:
  ret void
}}
"""


def _poll_text() -> str:
    return f"""
define i32 @tcc_poll(ptr %ctx) #0 {{
entry:
  %now = call i64 @tcc_coarse_clock()
  %next.at = getelementptr i64, ptr %ctx, i64 {at.CTX_NEXT_POLL}
  %next = load i64, ptr %next.at
  %first = icmp eq i64 %next, 0
  br i1 %first, label %arm, label %look
look:
  %early = icmp slt i64 %now, %next
  br i1 %early, label %fine, label %ask
ask:
  %released = call i1 @tcc_gil_enter(ptr %ctx)
  %signal = call i32 @PyErr_CheckSignals()
  %clear = icmp eq i32 %signal, 0
  br i1 %clear, label %go, label %stop
go:                                               ; a call that was taken to be short goes on without the GIL
  call void @tcc_gil_release(ptr %ctx)
  br label %arm
arm:
  %later = add i64 %now, {POLL_NS}
  store i64 %later, ptr %next.at
  br label %fine
fine:
  ret i32 {at.STATUS_OK}
stop:
  call void @tcc_gil_leave(ptr %ctx, i1 %released)
  ret i32 {at.STATUS_PYTHON}
}}
"""


def _host_text() -> str:
    return f"""
define i32 @tcc_host_call(ptr %ctx, ptr %args, i64 %index) #0 {{
entry:
  %released = call i1 @tcc_gil_enter(ptr %ctx)
  %record.at = getelementptr i64, ptr %ctx, i64 {at.CTX_RECORD}
  %record = load ptr, ptr %record.at
  %host.at = getelementptr i64, ptr %record, i64 {at.RECORD_HOST}
  %host = load ptr, ptr %host.at
  %objects.at = getelementptr i64, ptr %ctx, i64 {at.CTX_OBJECTS}
  %given = load ptr, ptr %objects.at
  %api.at = getelementptr i64, ptr %record, i64 {at.RECORD_API}
  %api = load ptr, ptr %api.at
  %none.at = getelementptr i64, ptr %api, i64 {at.API_NONE}
  %none = load ptr, ptr %none.at
  %absent = icmp eq ptr %given, null
  %objects = select i1 %absent, ptr %none, ptr %given
  %result = call ptr (ptr, ptr, ...) @PyObject_CallFunction(ptr %host, ptr @tcc_format_host, i64 %index, ptr %args, ptr %objects)
  %failed = icmp eq ptr %result, null
  br i1 %failed, label %out, label %drop
drop:
  call void @Py_DecRef(ptr %result)
  br label %out
out:
  call void @tcc_gil_leave(ptr %ctx, i1 %released)
  %status = select i1 %failed, i32 {at.STATUS_PYTHON}, i32 {at.STATUS_OK}
  ret i32 %status
}}
"""


def _output_text() -> str:
    return f"""
define ptr @tcc_output(ptr %ctx, i64 %index, i64 %typenum, i64 %rank, ptr %dims) #0 {{
entry:
  %released = call i1 @tcc_gil_enter(ptr %ctx)
  %record.at = getelementptr i64, ptr %ctx, i64 {at.CTX_RECORD}
  %record = load ptr, ptr %record.at
  %api.at = getelementptr i64, ptr %record, i64 {at.RECORD_API}
  %api = load ptr, ptr %api.at
  %type.at = getelementptr i64, ptr %api, i64 {at.API_NDARRAY}
  %type = load ptr, ptr %type.at
  %new.at = getelementptr i64, ptr %api, i64 {at.API_ARRAY_NEW}
  %new = load ptr, ptr %new.at
  %rank32 = trunc i64 %rank to i32
  %typenum32 = trunc i64 %typenum to i32
  %array = call ptr %new(ptr %type, i32 %rank32, ptr %dims, i32 %typenum32, ptr null, ptr null, i32 0, i32 0, ptr null)
  %failed = icmp eq ptr %array, null
  br i1 %failed, label %none, label %keep
none:
  call void @tcc_gil_leave(ptr %ctx, i1 %released)
  ret ptr null
keep:
  %outputs.at = getelementptr i64, ptr %ctx, i64 {at.CTX_OUTPUTS}
  %outputs = load ptr, ptr %outputs.at
  %place = getelementptr ptr, ptr %outputs, i64 %index
  %old = load ptr, ptr %place
  store ptr %array, ptr %place
  call void @Py_DecRef(ptr %old)
  call void @tcc_gil_leave(ptr %ctx, i1 %released)
  %data.at = getelementptr i64, ptr %array, i64 2
  %data = load ptr, ptr %data.at
  ret ptr %data
}}

define void @tcc_drop(ptr %outputs, i64 %count) #0 {{
entry:
  br label %head
head:
  %i = phi i64 [0, %entry], [%i1, %one]
  %more = icmp ult i64 %i, %count
  br i1 %more, label %one, label %out
one:
  %place = getelementptr ptr, ptr %outputs, i64 %i
  %array = load ptr, ptr %place
  call void @Py_DecRef(ptr %array)
  %i1 = add i64 %i, 1
  br label %head
out:
  ret void
}}
"""


def _late_text() -> str:
    """Memory of sizes that only running tells.  A call takes a bag of blocks and gives it back, with the GIL held; in
    between the bag is its own.  What does not fit is asked of Python, which takes a smaller block back for it.
    """
    return f"""
define void @tcc_late_enter(ptr %ctx) #0 {{
  %record.at = getelementptr i64, ptr %ctx, i64 {at.CTX_RECORD}
  %record = load ptr, ptr %record.at
  %bags.at = getelementptr i64, ptr %record, i64 {at.RECORD_LATE}
  %bag = load ptr, ptr %bags.at
  %used.at = getelementptr i64, ptr %ctx, i64 {at.CTX_LATE_USED}
  store ptr null, ptr %used.at
  %free.at = getelementptr i64, ptr %ctx, i64 {at.CTX_LATE_FREE}
  store ptr %bag, ptr %free.at
  %none = icmp eq ptr %bag, null
  br i1 %none, label %out, label %take
take:
  %next.at = getelementptr i64, ptr %bag, i64 {at.BLOCK_BAG}
  %next = load ptr, ptr %next.at
  store ptr %next, ptr %bags.at
  br label %out
out:
  ret void
}}

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
  %capacity.at = getelementptr i64, ptr %block, i64 {at.BLOCK_CAPACITY}
  %capacity = load i64, ptr %capacity.at
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
  %released = call i1 @tcc_gil_enter(ptr %ctx){_callee(at.API_LATE)}
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
  %used.at = getelementptr i64, ptr %ctx, i64 {at.CTX_LATE_USED}
  %used = load ptr, ptr %used.at
  store ptr %used, ptr %mine
  store ptr %mine, ptr %used.at
  %memory = getelementptr i8, ptr %mine, i64 {at.BLOCK_HEADER}
  ret ptr %memory
}}

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

define void @tcc_late_leave(ptr %ctx) #0 {{
entry:
  call void @tcc_late_release(ptr %ctx, ptr null)
  %free.at = getelementptr i64, ptr %ctx, i64 {at.CTX_LATE_FREE}
  %bag = load ptr, ptr %free.at
  %none = icmp eq ptr %bag, null
  br i1 %none, label %out, label %give
give:
  %record.at = getelementptr i64, ptr %ctx, i64 {at.CTX_RECORD}
  %record = load ptr, ptr %record.at
  %bags.at = getelementptr i64, ptr %record, i64 {at.RECORD_LATE}
  %bags = load ptr, ptr %bags.at
  %next.at = getelementptr i64, ptr %bag, i64 {at.BLOCK_BAG}
  store ptr %bags, ptr %next.at
  store ptr %bag, ptr %bags.at
  br label %out
out:
  ret void
}}

define i32 @tcc_grant(ptr %ctx, i64 %claim, i64 %bytes) #0 {{
entry:
  %small = icmp ult i64 %bytes, {at.UNCHECKED_BYTES}
  br i1 %small, label %fine, label %ask
ask:
  %released = call i1 @tcc_gil_enter(ptr %ctx){_callee(at.API_GRANT)}
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


def _slow_text() -> str:
    """`tcc_slow` is also a vectorcall of its own: that of a function that has not been compiled yet."""
    return f"""
define ptr @tcc_slow(ptr %self, ptr %args, i64 %flagged, ptr %kwnames) #0 {{
entry:
  %count = and i64 %flagged, {2**63 - 1}
  %tuple = call ptr @PyTuple_New(i64 %count)
  %failed = icmp eq ptr %tuple, null
  br i1 %failed, label %none, label %head
none:
  ret ptr null
head:
  %i = phi i64 [0, %entry], [%i1, %one]
  %more = icmp ult i64 %i, %count
  br i1 %more, label %one, label %named
one:
  %arg.at = getelementptr ptr, ptr %args, i64 %i
  %arg = load ptr, ptr %arg.at
  call void @Py_IncRef(ptr %arg)
  %r0 = call i32 @PyTuple_SetItem(ptr %tuple, i64 %i, ptr %arg)
  %i1 = add i64 %i, 1
  br label %head
named:
  %dict = call ptr @PyDict_New()
  %poor = icmp eq ptr %dict, null
  br i1 %poor, label %lost, label %any
lost:
  call void @Py_DecRef(ptr %tuple)
  ret ptr null
any:
  %positional = icmp eq ptr %kwnames, null
  br i1 %positional, label %call, label %keys
keys:
  %names = call i64 @PyTuple_Size(ptr %kwnames)
  br label %key
key:
  %k = phi i64 [0, %keys], [%k1, %pair]
  %left = icmp ult i64 %k, %names
  br i1 %left, label %pair, label %call
pair:
  %name = call ptr @PyTuple_GetItem(ptr %kwnames, i64 %k)
  %slot = add i64 %count, %k
  %value.at = getelementptr ptr, ptr %args, i64 %slot
  %value = load ptr, ptr %value.at
  %r1 = call i32 @PyDict_SetItem(ptr %dict, ptr %name, ptr %value)
  %k1 = add i64 %k, 1
  %wrong = icmp ne i32 %r1, 0
  br i1 %wrong, label %bad, label %key
bad:
  call void @Py_DecRef(ptr %dict)
  call void @Py_DecRef(ptr %tuple)
  ret ptr null
call:
  %record.at = getelementptr i64, ptr %self, i64 {at.OBJECT_RECORD}
  %record = load ptr, ptr %record.at
  %api.at = getelementptr i64, ptr %record, i64 {at.RECORD_API}
  %api = load ptr, ptr %api.at
  %slow.at = getelementptr i64, ptr %api, i64 {at.API_SLOW}
  %slow = load ptr, ptr %slow.at
  %result = call ptr (ptr, ...) @PyObject_CallFunctionObjArgs(ptr %slow, ptr %self, ptr %tuple, ptr %dict, ptr null)
  call void @Py_DecRef(ptr %dict)
  call void @Py_DecRef(ptr %tuple)
  ret ptr %result
}}
"""


def _callee(slot: int) -> str:
    """Loads the Python function in a slot of the API table, and the function and record that the context is of."""
    return f"""
  %self.at = getelementptr i64, ptr %ctx, i64 {at.CTX_FUNCTION}
  %self = load ptr, ptr %self.at
  %record.at = getelementptr i64, ptr %ctx, i64 {at.CTX_RECORD}
  %record = load ptr, ptr %record.at
  %api.at = getelementptr i64, ptr %record, i64 {at.RECORD_API}
  %api = load ptr, ptr %api.at
  %callee.at = getelementptr i64, ptr %api, i64 {slot}
  %callee = load ptr, ptr %callee.at"""


def _callback_text() -> str:
    """Calls of the Python functions of the API table, on behalf of the call whose context is given."""
    call = "%result = call ptr (ptr, ptr, ...) @PyObject_CallFunction(ptr %callee, ptr"
    errors = "".join(
        f"""
  %e{i}.at = getelementptr i64, ptr %ctx, i64 {at.CTX_ERROR + i}
  %e{i} = load i64, ptr %e{i}.at"""
        for i in range(5)
    )
    return f"""
define i1 @tcc_adopt(ptr %ctx, i64 %container, ptr %array) #0 {{{_callee(at.API_ADOPT)}
  {call} @tcc_format_adopt, ptr %self, ptr %record, i64 %container, ptr %array)
  %ok = icmp ne ptr %result, null
  call void @Py_DecRef(ptr %result)
  ret i1 %ok
}}

define void @tcc_raise(ptr %ctx) #0 {{{_callee(at.API_RAISE)}{errors}
  {call} @tcc_format_raise, ptr %self, ptr %record, {", ".join(f"i64 %e{i}" for i in range(5))})
  call void @Py_DecRef(ptr %result)
  ret void
}}
"""


def _list_text() -> str:
    """For Python, which changes a record's free lists in one step by calling these with the GIL held."""
    return f"""
define void @tcc_list_push(ptr %head.at, ptr %block) #0 {{
  %head = load ptr, ptr %head.at
  %next.at = getelementptr i64, ptr %block, i64 {at.BLOCK_NEXT}
  store ptr %head, ptr %next.at
  store ptr %block, ptr %head.at
  ret void
}}

define ptr @tcc_list_take(ptr %head.at) #0 {{
  %head = load ptr, ptr %head.at
  store ptr null, ptr %head.at
  ret ptr %head
}}
"""


def _kept_text() -> str:
    """`tcc_kept(container, panels)`: the panels if they are of the container's value, null if a call is to do without them,
    and 1 when they are to be made."""
    return f"""
define ptr @tcc_kept(ptr %container, ptr %panels) #0 {{
  %now.at = getelementptr i64, ptr %container, i64 {at.SHARED_VERSION}
  %now = load i64, ptr %now.at
  %version.at = getelementptr i64, ptr %panels, i64 {at.PANELS_VERSION}
  %version = load i64, ptr %version.at
  %fresh = icmp eq i64 %version, %now
  br i1 %fresh, label %there, label %stale
there:
  %data.at = getelementptr i64, ptr %panels, i64 {at.PANELS_DATA}
  %data = load ptr, ptr %data.at
  ret ptr %data
stale:
  %seen.at = getelementptr i64, ptr %panels, i64 {at.PANELS_SEEN}
  %calls.at = getelementptr i64, ptr %panels, i64 {at.PANELS_CALLS}
  %seen = load i64, ptr %seen.at
  %calls = load i64, ptr %calls.at
  %same = icmp eq i64 %seen, %now
  %some = icmp sgt i64 %calls, 0
  %less = zext i1 %some to i64
  %fewer = sub i64 %calls, %less
  %left = select i1 %same, i64 %fewer, i64 {PATIENCE}
  store i64 %now, ptr %seen.at
  store i64 %left, ptr %calls.at
  %due = icmp eq i64 %left, 0
  %answer = select i1 %due, ptr inttoptr (i64 1 to ptr), ptr null
  ret ptr %answer
}}
"""


@functools.cache
def load() -> Mapping[str, int]:
    """The addresses of the support functions in this process, also given to tcc.runtime.native."""
    target = host()
    key = cache_key("support", "", target)
    data = cache.get(key)
    if data is None:
        data = compile_object(support_text(target), target, level=0)
        cache.put(key, data)
    image = Image.load([data], symbols())
    addresses = {name: image.address(name) for name in (*DECLARATIONS, "tcc_list_push", "tcc_list_take")}
    provide(addresses, image)
    return addresses
