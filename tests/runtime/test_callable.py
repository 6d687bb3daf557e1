"""Calls of compiled functions: what takes the fast path, what the slow path mends, and what errors leave behind."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from typing import Any

import numpy as np
import pytest
import tiny
from tiny import Build, body, build, function, slot

from tcc.ir import dims
from tcc.runtime import layout as at
from tcc.runtime.buffers import Container
from tcc.runtime.callable import Function, Parameter
from tcc.runtime.signature import InputSpec, OutputSpec, SharedSpec, Signature, SizeMismatch

n, m = dims.name("n"), dims.name("m")

# z[i] = x[i] + 1
ADD_ONE = body(
    slot("x", 2)
    + slot("z", 3)
    + slot("n", 4, "i64")
    + """
  br label %head
head:
  %i = phi i64 [0, %0], [%i1, %one]
  %more = icmp slt i64 %i, %n
  br i1 %more, label %one, label %out
one:
  %from = getelementptr float, ptr %x, i64 %i
  %to = getelementptr float, ptr %z, i64 %i
  %u = load float, ptr %from
  %v = fadd float %u, 1.0
  store float %v, ptr %to
  %i1 = add i64 %i, 1
  br label %head
out:
  ret i32 0"""
)
VECTOR = Signature((InputSpec("f32", (n,), name="x"),), (), (OutputSpec("f32", (n,)),), "array")
# z = x for one f64 or i64
COPY = body(slot("x", 2) + slot("z", 3) + "\n  %v = load i64, ptr %x\n  store i64 %v, ptr %z\n  ret i32 0")
COPY32 = body(slot("x", 2) + slot("z", 3) + "\n  %v = load i32, ptr %x\n  store i32 %v, ptr %z\n  ret i32 0")
# runs until it is interrupted, or `stop`, the first word of x, is set
SPIN = body(
    slot("ctx", 0)
    + slot("x", 2)
    + """
  br label %again
again:
  %stop = load volatile i64, ptr %x
  %set = icmp ne i64 %stop, 0
  br i1 %set, label %out, label %poll
poll:
  %status = call i32 @tcc_poll(ptr %ctx)
  %fine = icmp eq i32 %status, 0
  br i1 %fine, label %again, label %interrupted
interrupted:
  ret i32 %status
out:
  ret i32 0"""
)
LONG = 10 * at.RELEASE_NS


class Counting(Function):
    """Counts the calls that the native entry passed on."""

    slow_calls = 0

    def call_slowly(self, args: Any, kwargs: Any) -> Any:
        self.slow_calls += 1
        return super().call_slowly(args, kwargs)


@pytest.fixture(scope="module")
def add_one() -> Counting:
    variant = build(VECTOR, ADD_ONE)
    parameter = Parameter("x", "f32", 1, lambda v: np.asarray(v, "f4"))
    f = Counting("add_one", [parameter], lambda f, arrays: variant)
    f(np.ones(1, "f4"))
    return f


def is_slow(f: Counting, *args: Any, **kwargs: Any) -> bool:
    before = f.slow_calls
    f(*args, **kwargs)
    return f.slow_calls > before


@pytest.mark.parametrize("size", [0, 1, 7, 1000])
def test_plain_arrays_take_the_fast_path(add_one: Counting, size: int) -> None:
    x = np.arange(size, dtype="f4")
    assert not is_slow(add_one, x)
    result = add_one(x)
    assert type(result) is np.ndarray and result.dtype == "f4" and result.flags.owndata
    np.testing.assert_array_equal(result, x + 1)


odd_bytes = np.zeros(33, "i1")[1:].view("f4")
odd_bytes[:] = np.arange(8)
readonly = np.arange(8, dtype="f4")
readonly.flags.writeable = False


@pytest.mark.parametrize(
    ("given", "fast"),
    [
        (readonly, True),
        ([0, 1, 2, 3, 4, 5, 6, 7], False),
        (np.arange(8.0), False),
        (np.arange(8, dtype=">f4"), False),
        (np.arange(16, dtype="f4")[::2] / 2, True),
        (np.repeat(np.arange(8, dtype="f4"), 2)[::2], False),
        (odd_bytes, False),
        (np.arange(8, dtype="f4").view(np.recarray), False),
    ],
)
def test_what_is_not_plain_is_converted(add_one: Counting, given: Any, fast: bool) -> None:
    assert is_slow(add_one, given) is not fast
    np.testing.assert_array_equal(add_one(given), np.arange(1, 9, dtype="f4"))


def test_keywords_and_defaults(add_one: Counting) -> None:
    x = np.zeros(2, "f4")
    assert is_slow(add_one, x=x)
    f = Function("f", [Parameter("x", "f32", 1, np.asarray, lambda: x)], lambda f, a: add_one.variants[0])
    np.testing.assert_array_equal(f(), [1, 1])


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, "add_one: Missing required input: x"),
        ((1, 2), {}, r"add_one takes 1 arguments \(x\), got 2"),
        ((), {"y": 1}, "'y' is not among x"),
        (([1.0],), {"x": 1}, "'x' is given twice"),
        ((np.zeros((2, 2), "f4"),), {}, "x must be float32 of rank 1, got float32 of rank 2"),
    ],
)
def test_wrong_arguments(add_one: Counting, args: Any, kwargs: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        add_one(*args, **kwargs)


def test_calls_leak_nothing(add_one: Counting) -> None:
    x = np.arange(8, dtype="f4")
    things = (x, add_one, np.dtype("f4"), np.ndarray, None, NotImplemented)

    def counts() -> list[int]:
        return [sys.getrefcount(t) for t in things]

    def everything() -> None:
        add_one(x)
        add_one(x=x)
        add_one([1.0])
        with pytest.raises(TypeError):
            add_one(x, x)

    everything()
    gc.collect()
    before, objects = counts(), len(gc.get_objects())
    for _ in range(300):
        everything()
    gc.collect()
    assert max(abs(a - b) for a, b in zip(counts(), before)) < 20
    assert abs(len(gc.get_objects()) - objects) < 100
    assert sys.getrefcount(add_one(x)) == sys.getrefcount(x + 1)


def test_a_function_can_be_collected_and_referred_to_weakly() -> None:
    f = function(build(VECTOR, ADD_ONE))
    f.note = "attributes are allowed"  # type: ignore[attr-defined]
    ref = weakref.ref(f)
    del f
    gc.collect()
    assert ref() is None


def test_a_function_is_called_by_vectorcall(add_one: Counting) -> None:
    assert type(add_one).__flags__ & (1 << 11)
    assert callable(add_one)
    np.testing.assert_array_equal(add_one.__call__(np.zeros(1, "f4")), [1])
    np.testing.assert_array_equal(list(map(add_one, [np.zeros(1, "f4")]))[0], [1])


@pytest.mark.parametrize(
    ("dtype", "given"),
    [
        ("i64", 5),
        ("i64", -(2**62)),
        ("f64", 0.5),
        ("i64", np.int64(7)),
        ("f64", np.float64(7)),
        ("i64", True),
    ],
)
def test_numbers_for_scalars(make: Build, dtype: str, given: Any) -> None:
    f = make(Signature((InputSpec(dtype),), (), (OutputSpec(dtype),), "array"), COPY)
    result = f(given)
    assert result == given and result.dtype.name == {"i64": "int64", "f64": "float64"}[dtype]
    assert result.shape == ()


@pytest.mark.parametrize(
    ("given", "exact"), [(1.5, True), (0.1, False), (np.float32(0.1), True), (np.inf, True)]
)
@pytest.mark.parametrize("rounding", [False, True])
def test_a_python_float_becomes_float32(given: Any, exact: bool, rounding: bool) -> None:
    """Where digits would be lost, the slow path decides."""
    converted: list[Any] = []
    signature = Signature((InputSpec("f32", rounding=rounding),), (), (OutputSpec("f32"),), "array")
    variant = build(signature, COPY32)
    f = Function(
        "f", [Parameter("x", "f32", 0, lambda v: converted.append(v) or np.float32(v))], lambda f, a: variant
    )
    assert f(np.float32(1)) == 1  # compiles
    converted.clear()
    assert f(given) == np.float32(given)
    assert not converted or not (exact or rounding)
    assert converted or exact or rounding


def test_numbers_out_of_range_are_not_wrapped() -> None:
    """They go to the slow path, whose conversion refuses them."""

    def convert(value: Any) -> Any:
        if not -(2**31) <= value < 2**31:
            raise OverflowError(value)
        return np.asarray(value, "i4")

    variant = build(Signature((InputSpec("i32"),), (), (OutputSpec("i32"),), "array"), COPY32)
    f = Function("f", [Parameter("x", "i32", 0, convert)], lambda f, a: variant)
    assert f(-(2**31)) == -(2**31) == f(-(2**31))
    for value in (2**31, 2**64):
        with pytest.raises(OverflowError):
            f(value)


def test_numbers_may_be_left_to_the_slow_path() -> None:
    seen: list[Any] = []
    variant = build(Signature((InputSpec("i64", numbers=False),), (), (OutputSpec("i64"),), "array"), COPY)
    f = Function(
        "f", [Parameter("x", "i64", 0, lambda v: seen.append(v) or np.asarray(v))], lambda f, a: variant
    )
    f(np.int64(1))
    seen.clear()
    f(np.int64(1))
    assert not seen
    f(1)
    assert seen == [1]


def test_sizes_are_checked(make: Build) -> None:
    two = (
        InputSpec("f32", (n, 3), name="x"),
        InputSpec("f32", (n,), name="y"),
        InputSpec("f32", (2 * n,), name="z"),
    )
    f = make(Signature(two, (), (), "none"), body("  ret i32 0"))

    def call(*shapes: tuple[int, ...]) -> Any:
        return f(*(np.zeros(s, "f4") for s in shapes))

    assert call((5, 3), (5,), (10,)) is None
    with pytest.raises(SizeMismatch, match=r"x, axis 1: its size is 4, wanted 3"):
        call((5, 4), (5,), (10,))
    with pytest.raises(SizeMismatch, match=r"y, axis 0: its size is 6, wanted 5, the size of x, axis 0"):
        call((5, 3), (6,), (10,))
    with pytest.raises(SizeMismatch, match=r"z, axis 0: its size is 9, wanted 2\*n = 10"):
        call((5, 3), (5,), (9,))


def test_new_sizes_may_bring_new_code() -> None:
    asked = []

    def specialise(f: Function, arrays: Any) -> Any:
        asked.append(arrays[0].shape)
        size = n if len(asked) > 1 else arrays[0].shape[0]
        signature = Signature((InputSpec("f32", (size,)),), (), (), "none")
        return build(signature, body("  ret i32 0"))

    f = Function("f", [Parameter("x", "f32", 1, np.asarray)], specialise)
    for size in (5, 5, 6, 7, 5):
        f(np.zeros(size, "f4"))
    assert asked == [(5,), (6,)]


def test_outputs_come_as_a_list(make: Build) -> None:
    signature = Signature((InputSpec("i64"),), (), (OutputSpec("i64"), OutputSpec("f64", (2, 0, 3))), "list")
    result = make(signature, COPY)(4)
    assert type(result) is list and result[0] == 4 and result[1].shape == (2, 0, 3)


def test_a_size_that_nothing_gives_is_refused() -> None:
    with pytest.raises(ValueError, match="needs m"):
        Signature((InputSpec("f32", (n,)),), (), (OutputSpec("f32", (m,)),))


def test_late_outputs(make: Build) -> None:
    """z = an array of x elements, made by the body."""
    text = body(
        slot("ctx", 0)
        + slot("x", 2)
        + """
  %size = load i64, ptr %x
  %data = call ptr @tcc_output(ptr %ctx, i64 0, i64 7, i64 1, ptr %x)
  %failed = icmp eq ptr %data, null
  br i1 %failed, label %bad, label %good
bad:
  ret i32 2
good:
  %memory = call ptr @tcc_late_alloc(ptr %ctx, i64 0, i64 1000)
  store i64 42, ptr %memory
  %v = load i64, ptr %memory
  store i64 %v, ptr %data
  ret i32 0"""
    )
    late = (OutputSpec("i64", (m,), late=True),)
    for work in (0, LONG):
        f = make(Signature((InputSpec("i64"),), (), late, "array", work=work, late=True), text)
        result = f(3)
        assert result.shape == (3,) and result[0] == 42
        with pytest.raises(ValueError):
            f(-1)
        with pytest.raises(MemoryError):
            f(2**55)


# Errors.

FAIL = body(
    slot("ctx", 0)
    + """
  call void @tcc_fail(ptr %ctx, i64 9, i64 1, i64 -2, i64 3, i64 4)
  call void @tcc_fail(ptr %ctx, i64 8, i64 0, i64 0, i64 0, i64 0)
  ret i32 1"""
)


def test_an_error_record_becomes_its_exception(make: Build) -> None:
    w = Container(np.zeros(3, "f4"))
    signature = Signature(
        (), (SharedSpec("f32", (3,), written=True),), (OutputSpec("f32", (1000,)),), "array"
    )
    f = make(signature, FAIL, containers=[w], failures={9: lambda *four: IndexError(f"take: {four}")})
    for _ in range(3):  # the lock is given back each time
        with pytest.raises(IndexError, match=r"take: \(1, -2, 3, 4\)"):
            f()
    f = make(signature, FAIL, containers=[w])
    with pytest.raises(RuntimeError, match="op 9 failed"):
        f()


# The GIL, threads, signals.


@pytest.mark.parametrize("work", [0, LONG])
def test_long_work_releases_the_gil(make: Build, work: int) -> None:
    """Also when it was taken to be short."""
    f = make(Signature((InputSpec("i64", (1,)),), (), (), "none", work=work), SPIN)
    stop = np.zeros(1, "i8")
    caller = threading.Thread(target=f, args=(stop,))
    caller.start()
    time.sleep(0.05)
    assert caller.is_alive()
    stop[0] = 1  # this line runs while the function does
    caller.join(10)
    assert not caller.is_alive()


def test_work_that_depends_on_sizes_decides_at_the_call(make: Build) -> None:
    signature = Signature((InputSpec("i64", (n,)),), (), (), "none", work=1000 * n)
    text = body(
        slot("ctx", 0)
        + slot("x", 2)
        + f"""
  %state.at = getelementptr i64, ptr %ctx, i64 {at.CTX_THREAD_STATE}
  %state = load i64, ptr %state.at
  store i64 %state, ptr %x
  ret i32 0"""
    )
    f = make(signature, text)
    for size, released in ((20, False), (21, True)):
        x = np.zeros(size, "i8")
        f(x)
        assert (x[0] != 0) == released


def test_one_function_runs_in_two_threads_at_once(make: Build) -> None:
    """Each call has its own arena; readers of one container do not exclude each other."""
    text = SPIN.replace(
        "%stop = load",
        "%arena.at = getelementptr i64, ptr %frame, i64 1\n %arena = load ptr, ptr %arena.at\n"
        "%told = getelementptr i64, ptr %x, i64 1\n store ptr %arena, ptr %told\n %stop = load",
    )
    signature = Signature(
        (InputSpec("i64", (2,)),), (SharedSpec("f32", (1,)),), (), "none", arena=100, work=LONG
    )
    f = make(signature, text, containers=[Container(np.zeros(1, "f4"))])
    words = [np.zeros(2, "i8") for _ in range(2)]
    callers = [threading.Thread(target=f, args=(w,)) for w in words]
    for caller in callers:
        caller.start()
    deadline = time.monotonic() + 10
    while not all(w[1] for w in words) and time.monotonic() < deadline:
        time.sleep(0.001)
    arenas = {int(w[1]) for w in words}
    for w in words:
        w[0] = 1
    for caller in callers:
        caller.join()
    assert len(arenas) == 2 and 0 not in arenas


def test_code_works_with_its_own_record(make: Build) -> None:
    """Also when another thread has put newer code in its place meanwhile."""
    signature = Signature((), (SharedSpec("f64", ()),), (OutputSpec("f64", ()),), "array")
    frame = signature.frame
    text = body(
        slot("w", frame.container(0)) + slot("z", frame.output(0)) + "\n  %v = load i64, ptr %w\n"
        "  store i64 %v, ptr %z\n  ret i32 0"
    )
    older, newer = (build(signature, text, containers=[Container(np.array(v))]) for v in (1.0, 2.0))
    f = function(older)
    f.install(newer)
    assert (older.attempt(f, []), newer.attempt(f, []), f()) == (1.0, 2.0, 2.0)


INTERRUPTED = """
import os, signal, sys, threading, time
sys.path[:0] = {folders!r}
import numpy as np
from tiny import build, function
from test_callable import *
w = Container(np.zeros(1, "f4"))
shared = (SharedSpec("f32", (1,), written=True),)
f = function(build(Signature((InputSpec("i64", (1,)),), shared, (), "none", work={work}), SPIN, containers=[w]))
stop = np.zeros(1, "i8")
threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start() if {work} else signal.setitimer(signal.ITIMER_REAL, 0.3)
signal.signal(signal.SIGALRM, signal.default_int_handler)
begin = time.monotonic()
try:
    f(stop)
except KeyboardInterrupt:
    assert time.monotonic() - begin < 5
    w.set(np.ones(1, "f4"))  # the lock is free
    print("interrupted")
"""


@pytest.mark.parametrize("work", [0, LONG])
def test_ctrl_c_stops_a_running_function(work: int, own_cache: Any) -> None:
    """With and without the GIL."""
    folders = [os.path.dirname(__file__), os.path.dirname(tiny.__file__)]
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED.format(folders=folders, work=work)],
        env={**os.environ, "TCC_CACHE_DIR": str(own_cache)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "interrupted\n", done.stderr
