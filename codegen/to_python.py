"""LLVM text of what compiled functions ask of Python: the GIL, signals, functions that run on the host, arrays for results, and
the way of calls that the entry does not take.
"""

from __future__ import annotations

from tcc.codegen.slots import field
from tcc.runtime import layout as at

POLL_NS = 20_000_000  # between two looks at whether Ctrl-C was pressed


def python_text() -> str:
    """All of it; `tcc_coarse_clock` (codegen/workers.py) is not among it."""
    return "".join(
        (
            PYTHON,
            _gil_text(),
            _poll_text(),
            _host_text(),
            _output_text(),
            _slow_text(),
            _call_text(),
            _callback_text(),
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


def _gil_text() -> str:
    return f"""
define void @tcc_gil_release(ptr %ctx) #0 {{
  %state.at = getelementptr i64, ptr %ctx, i64 {at.CTX_THREAD_STATE}
  %state = call ptr @PyEval_SaveThread()
  store ptr %state, ptr %state.at
  ret void
}}

define void @tcc_gil_acquire(ptr %ctx) #0 {{
{field("state", "%ctx", at.CTX_THREAD_STATE, "ptr")}
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
{field("state", "%ctx", at.CTX_THREAD_STATE, "ptr")}
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
{field("next", "%ctx", at.CTX_NEXT_POLL)}
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
{field("record", "%ctx", at.CTX_RECORD, "ptr")}
{field("host", "%record", at.RECORD_HOST, "ptr")}
  %objects.at = getelementptr i64, ptr %ctx, i64 {at.CTX_OBJECTS}
  %given = load ptr, ptr %objects.at
{field("api", "%record", at.RECORD_API, "ptr")}
{field("none", "%api", at.API_NONE, "ptr")}
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
{field("record", "%ctx", at.CTX_RECORD, "ptr")}
{field("api", "%record", at.RECORD_API, "ptr")}
{field("type", "%api", at.API_NDARRAY, "ptr")}
{field("new", "%api", at.API_ARRAY_NEW, "ptr")}
  %rank32 = trunc i64 %rank to i32
  %typenum32 = trunc i64 %typenum to i32
  %array = call ptr %new(ptr %type, i32 %rank32, ptr %dims, i32 %typenum32, ptr null, ptr null, i32 0, i32 0, ptr null)
  %failed = icmp eq ptr %array, null
  br i1 %failed, label %none, label %keep
none:
  call void @tcc_gil_leave(ptr %ctx, i1 %released)
  ret ptr null
keep:
{field("outputs", "%ctx", at.CTX_OUTPUTS, "ptr")}
  %place = getelementptr ptr, ptr %outputs, i64 %index
  %old = load ptr, ptr %place
  store ptr %array, ptr %place
  call void @Py_DecRef(ptr %old)
  call void @tcc_gil_leave(ptr %ctx, i1 %released)
{field("data", "%array", 2, "ptr")}
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
{field("record", "%self", at.OBJECT_RECORD, "ptr")}
{field("api", "%record", at.RECORD_API, "ptr")}
{field("slow", "%api", at.API_SLOW, "ptr")}
  %result = call ptr (ptr, ...) @PyObject_CallFunctionObjArgs(ptr %slow, ptr %self, ptr %tuple, ptr %dict, ptr null)
  call void @Py_DecRef(ptr %dict)
  call void @Py_DecRef(ptr %tuple)
  ret ptr %result
}}
"""


def _call_text() -> str:
    """`tcc_call`, the vectorcall of every compiled function.  PY_VECTORCALL_ARGUMENTS_OFFSET is the count's top bit."""
    return f"""
define ptr @tcc_call(ptr %self, ptr %args, i64 %flagged, ptr %kwnames) #0 {{
entry:
{field("record", "%self", at.OBJECT_RECORD, "ptr")}
{field("inputs", "%record", at.RECORD_INPUTS)}
  %count = and i64 %flagged, {2**63 - 1}
  %right = icmp eq i64 %count, %inputs
  %positional = icmp eq ptr %kwnames, null
  %fits = and i1 %right, %positional
  br i1 %fits, label %fast, label %slow
fast:
{field("to", "%record", at.RECORD_ENTRY, "ptr")}
  %result = call ptr %to(ptr %self, ptr %record, ptr %args, ptr null)
{field("api", "%record", at.RECORD_API, "ptr")}
{field("not", "%api", at.API_NOT_IMPLEMENTED, "ptr")}
  %refused = icmp eq ptr %result, %not
  br i1 %refused, label %again, label %done
again:
  call void @Py_DecRef(ptr %result)
  br label %slow
slow:
  %answer = call ptr @tcc_slow(ptr %self, ptr %args, i64 %flagged, ptr %kwnames)
  ret ptr %answer
done:
  ret ptr %result
}}
"""


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
define i1 @tcc_adopt(ptr %ctx, i64 %container, ptr %array) #0 {{{callee_text(at.API_ADOPT)}
  {call} @tcc_format_adopt, ptr %self, ptr %record, i64 %container, ptr %array)
  %ok = icmp ne ptr %result, null
  call void @Py_DecRef(ptr %result)
  ret i1 %ok
}}

define void @tcc_raise(ptr %ctx) #0 {{{callee_text(at.API_RAISE)}{errors}
  {call} @tcc_format_raise, ptr %self, ptr %record, {", ".join(f"i64 %e{i}" for i in range(5))})
  call void @Py_DecRef(ptr %result)
  ret void
}}
"""


def callee_text(slot: int) -> str:
    """Loads the Python function in a slot of the API table, and the function and record that the context is of."""
    return f"""
{field("self", "%ctx", at.CTX_FUNCTION, "ptr")}
{field("record", "%ctx", at.CTX_RECORD, "ptr")}
{field("api", "%record", at.RECORD_API, "ptr")}
  %callee.at = getelementptr i64, ptr %api, i64 {slot}
  %callee = load ptr, ptr %callee.at"""
