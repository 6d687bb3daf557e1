"""LLVM text of what compiled functions call at run time: the pool (codegen/pool.py), errors, and the way to Python.

One module, compiled once per process or found in the cache.  It holds no address of this process: those come through the
API table and through symbols, so the object code is the same everywhere.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

from tcc.codegen.jit import Image, compile_object
from tcc.codegen.pool import CLOCK_MONOTONIC_COARSE, clock_text, pool_text
from tcc.codegen.target import Target, host
from tcc.runtime import cache
from tcc.runtime import layout as at
from tcc.runtime.native import provide
from tcc.runtime.symbols import symbols

POLL_NS = 20_000_000

# What entries and bodies may call, and its type.
DECLARATIONS: dict[str, str] = {
    "tcc_parallel": "declare void @tcc_parallel(ptr, ptr, ptr, i64, i64)",
    "tcc_fail": "declare void @tcc_fail(ptr, i64, i64, i64, i64, i64)",
    "tcc_poll": "declare i32 @tcc_poll(ptr)",
    "tcc_host_call": "declare i32 @tcc_host_call(ptr, ptr, i64)",
    "tcc_output": "declare ptr @tcc_output(ptr, i64, i64, i64, ptr)",
    "tcc_late_alloc": "declare ptr @tcc_late_alloc(ptr, i64)",
    "tcc_late_free": "declare void @tcc_late_free(ptr)",
    "tcc_gil_release": "declare void @tcc_gil_release(ptr)",
    "tcc_gil_acquire": "declare void @tcc_gil_acquire(ptr)",
    "tcc_slow": "declare ptr @tcc_slow(ptr, ptr, i64, ptr)",
    "tcc_raise": "declare void @tcc_raise(ptr, ptr)",
    "tcc_adopt": "declare i1 @tcc_adopt(ptr, ptr, i64, ptr)",
    "tcc_drop": "declare void @tcc_drop(ptr, i64)",
}


def support_text(target: Target) -> str:
    """The whole module, but for what `compile_object` adds."""
    return "".join(
        (
            pool_text(target),
            clock_text("tcc_coarse_clock", CLOCK_MONOTONIC_COARSE),
            _error_text(),
            PYTHON,
            _gil_text(),
            _poll_text(),
            _host_text(),
            _output_text(),
            _late_text(),
            _slow_text(),
            _callback_text(),
            _arena_text(),
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
declare ptr @PyErr_NoMemory()
declare ptr @calloc(i64, i64)
declare void @free(ptr)
@tcc_format_host = internal constant [4 x i8] c"nnO\\00"
@tcc_format_raise = internal constant [8 x i8] c"OnLLLLL\\00"
@tcc_format_adopt = internal constant [5 x i8] c"OnnO\\00"
"""


def _error_text() -> str:
    return f"""
define void @tcc_fail(ptr %ctx, i64 %op, i64 %a, i64 %b, i64 %c, i64 %d) #0 {{
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
  call void @tcc_gil_leave(ptr %ctx, i1 %released)
  %clear = icmp eq i32 %signal, 0
  br i1 %clear, label %arm, label %stop
arm:
  %later = add i64 %now, {POLL_NS}
  store i64 %later, ptr %next.at
  br label %fine
fine:
  ret i32 {at.STATUS_OK}
stop:
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
    return f"""
define ptr @tcc_late_alloc(ptr %ctx, i64 %bytes) #0 {{
entry:
  %rounded = add i64 %bytes, 191
  %block = call ptr @calloc(i64 %rounded, i64 1)
  %failed = icmp eq ptr %block, null
  br i1 %failed, label %none, label %keep
keep:                                             ; linked by the first word; the memory begins at the second next line of 64
  %head.at = getelementptr i64, ptr %ctx, i64 {at.CTX_LATE}
  %head = load ptr, ptr %head.at
  store ptr %head, ptr %block
  store ptr %block, ptr %head.at
  %past = getelementptr i8, ptr %block, i64 127
  %memory = call ptr @llvm.ptrmask.p0.i64(ptr %past, i64 -64)
  ret ptr %memory
none:
  %released = call i1 @tcc_gil_enter(ptr %ctx)
  %r = call ptr @PyErr_NoMemory()
  call void @tcc_gil_leave(ptr %ctx, i1 %released)
  ret ptr null
}}
declare ptr @llvm.ptrmask.p0.i64(ptr, i64)

define void @tcc_late_free(ptr %ctx) #0 {{
entry:
  %head.at = getelementptr i64, ptr %ctx, i64 {at.CTX_LATE}
  %head = load ptr, ptr %head.at
  br label %look
look:
  %block = phi ptr [%head, %entry], [%next, %one]
  %end = icmp eq ptr %block, null
  br i1 %end, label %out, label %one
one:
  %next = load ptr, ptr %block
  call void @free(ptr %block)
  br label %look
out:
  ret void
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


def _callback_text() -> str:
    """Calls of the Python functions of the API table, on behalf of the call whose context is given."""

    def callee(slot: int) -> str:
        return f"""
  %record.at = getelementptr i64, ptr %ctx, i64 {at.CTX_RECORD}
  %record = load ptr, ptr %record.at
  %api.at = getelementptr i64, ptr %record, i64 {at.RECORD_API}
  %api = load ptr, ptr %api.at
  %callee.at = getelementptr i64, ptr %api, i64 {slot}
  %callee = load ptr, ptr %callee.at"""

    call = "%result = call ptr (ptr, ptr, ...) @PyObject_CallFunction(ptr %callee, ptr"
    errors = "".join(
        f"""
  %e{i}.at = getelementptr i64, ptr %ctx, i64 {at.CTX_ERROR + i}
  %e{i} = load i64, ptr %e{i}.at"""
        for i in range(5)
    )
    return f"""
define i1 @tcc_adopt(ptr %self, ptr %ctx, i64 %container, ptr %array) #0 {{{callee(at.API_ADOPT)}
  {call} @tcc_format_adopt, ptr %self, ptr %record, i64 %container, ptr %array)
  %ok = icmp ne ptr %result, null
  call void @Py_DecRef(ptr %result)
  ret i1 %ok
}}

define void @tcc_raise(ptr %self, ptr %ctx) #0 {{{callee(at.API_RAISE)}{errors}
  {call} @tcc_format_raise, ptr %self, ptr %record, {", ".join(f"i64 %e{i}" for i in range(5))})
  call void @Py_DecRef(ptr %result)
  ret void
}}
"""


def _arena_text() -> str:
    """For Python, which changes a record's free list in one step by calling these with the GIL held."""
    return f"""
define void @tcc_arena_push(ptr %record, ptr %block) #0 {{
  %head.at = getelementptr i64, ptr %record, i64 {at.RECORD_ARENA}
  %head = load ptr, ptr %head.at
  %next.at = getelementptr i64, ptr %block, i64 {at.ARENA_NEXT}
  store ptr %head, ptr %next.at
  store ptr %block, ptr %head.at
  ret void
}}

define ptr @tcc_arena_take(ptr %record) #0 {{
  %head.at = getelementptr i64, ptr %record, i64 {at.RECORD_ARENA}
  %head = load ptr, ptr %head.at
  store ptr null, ptr %head.at
  ret ptr %head
}}
"""


@functools.cache
def load() -> Mapping[str, int]:
    """The addresses of the support functions in this process, also given to tcc.runtime.native."""
    target = host()
    text = support_text(target)
    key = cache.key("support", text, repr(target))
    data = cache.get(key)
    if data is None:
        data = compile_object(text, target)
        cache.put(key, data)
    image = Image.load([data], symbols())
    addresses = {name: image.address(name) for name in (*DECLARATIONS, "tcc_arena_push", "tcc_arena_take")}
    provide(addresses, image)
    return addresses
