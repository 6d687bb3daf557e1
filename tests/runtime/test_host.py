"""Python functions called from native code."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from tiny import Build, body, build, slot

from tcc.ir import dims
from tcc.runtime.buffers import Container, ObjectContainer
from tcc.runtime.callable import Function, Objects, Parameter
from tcc.runtime.host import HostArray, HostCall, HostObject
from tcc.runtime.signature import InputSpec, OutputSpec, SharedSpec, Signature

n = dims.name("n")

# z = call 0 of x, both f64[n]
CALL = body(
    slot("ctx", 0)
    + slot("x", 2)
    + slot("z", 3)
    + slot("n", 4, "i64")
    + """
  %args = alloca [4 x i64]
  %p1 = getelementptr i64, ptr %args, i64 1
  %p2 = getelementptr i64, ptr %args, i64 2
  %p3 = getelementptr i64, ptr %args, i64 3
  store ptr %x, ptr %args
  store ptr %z, ptr %p1
  store i64 %n, ptr %p2
  store i64 %n, ptr %p3
  %status = call i32 @tcc_host_call(ptr %ctx, ptr %args, i64 0)
  ret i32 %status"""
)
VECTOR = HostArray("f64", 1)
# the same, with a written container before the output
SHARED_CALL = CALL.replace("ptr %frame, i64 4", "ptr %frame, i64 5").replace(
    "ptr %frame, i64 3", "ptr %frame, i64 4"
)


def signature(work: int = 0, shared: tuple[SharedSpec, ...] = ()) -> Signature:
    return Signature((InputSpec("f64", (n,)),), shared, (OutputSpec("f64", (n,)),), "array", work=work)


def row(function: Any) -> HostCall:
    return HostCall("double at model.py:7", function, (VECTOR,), (VECTOR,))


@pytest.mark.parametrize("work", [0, 10**6])
@pytest.mark.parametrize("size", [0, 1, 100])
def test_arrays_go_in_and_come_back(make: Build, work: int, size: int) -> None:
    kept: list[np.ndarray[Any, Any]] = []
    f = make(signature(work), CALL, host_calls=[row(lambda x: (kept.append(x), [2 * x])[1])])
    x = np.arange(float(size))
    np.testing.assert_array_equal(f(x), 2 * x)
    assert kept[0].flags.owndata and kept[0] is not x


@pytest.mark.parametrize("work", [0, 10**6])
def test_exceptions_pass_through(make: Build, work: int) -> None:
    def broken(x: Any) -> Sequence[Any]:
        raise ArithmeticError("singular")

    w = Container(np.zeros(1))
    f = make(
        signature(work, (SharedSpec("f64", (1,), written=True),)),
        SHARED_CALL,
        host_calls=[row(broken)],
        containers=[w],
    )
    for _ in range(2):
        with pytest.raises(ArithmeticError, match="singular"):
            f(np.ones(3))
    assert not w.busy(write=True)


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        (
            [np.zeros(3, "f4")],
            TypeError,
            "double at model.py:7: result 0 is of dtype float32, wanted float64",
        ),
        ([np.zeros(4)], ValueError, r"result 0 has the shape \(4,\), wanted \(3,\)"),
        ([], TypeError, "expected a list of 1 results, got 0 results"),
        (np.zeros(3), TypeError, "expected a list of 1 results, got ndarray"),
    ],
)
def test_results_are_checked(make: Build, result: Any, error: type[Exception], message: str) -> None:
    f = make(signature(), CALL, host_calls=[row(lambda x: result)])
    with pytest.raises(error, match=message):
        f(np.ones(3))


def test_other_threads_run_during_a_host_call(make: Build) -> None:
    here, there = threading.Event(), threading.Event()

    def meet(x: Any) -> Sequence[Any]:
        here.set()
        assert there.wait(10)
        return [x]

    f = make(signature(), CALL, host_calls=[row(meet)])
    caller = threading.Thread(target=f, args=(np.ones(2),))
    caller.start()
    assert here.wait(10)
    there.set()
    caller.join(10)
    assert not caller.is_alive()


def test_a_function_may_call_itself_through_python(make: Build) -> None:
    def again(x: np.ndarray[Any, Any]) -> Sequence[Any]:
        return [f(x - 1) + 1 if x[0] > 0 else x]

    f: Any = make(signature(), CALL, host_calls=[row(again)])
    np.testing.assert_array_equal(f(np.array([5.0, 7.0])), [5, 7])


def test_what_would_wait_for_itself_is_an_error(make: Build) -> None:
    """A host call that reads or sets a variable which its own caller is writing."""
    w = Container(np.zeros(1))
    w.name = "w"
    spec = SharedSpec("f64", (1,), written=True)
    reader = make(Signature((), (SharedSpec("f64", (1,)),), (), "none"), body("  ret i32 0"), containers=[w])
    for action in (w.get, lambda: w.set(np.ones(1)), reader):
        f = make(signature(0, (spec,)), SHARED_CALL, host_calls=[row(lambda x: action())], containers=[w])
        with pytest.raises(RuntimeError, match="shared variable 'w' is in use by the very call"):
            f(np.ones(2))
    f = make(
        signature(0, (SharedSpec("f64", (1,)),)),
        SHARED_CALL,
        host_calls=[row(lambda x: [x + w.get()])],
        containers=[w],
    )
    np.testing.assert_array_equal(f(np.ones(2)), [1, 1])


def test_objects_are_handed_around() -> None:
    """(state, new state) are objects: x is drawn from the generator in a container, which takes its next state."""
    text = CALL
    state = ObjectContainer([10])

    def draw(x: np.ndarray[Any, Any], generator: list[int], tag: object) -> Sequence[Any]:
        return [x + generator[0], [generator[0] + 1], (tag, generator[0])]

    call = HostCall(
        "draw", draw, (VECTOR, HostObject(0), HostObject(1)), (VECTOR, HostObject(2), HostObject(3))
    )
    plan = Objects(4, {1: 1}, ((state, 0, True),), ((state, 2),), {0: 3})
    listed = Signature((InputSpec("f64", (n,)),), (), (OutputSpec("f64", (n,)),), "list")
    variant = build(listed, text, host_calls=[call], objects=plan)
    parameters = [Parameter("x", "f64", 1, np.asarray), Parameter("tag", "object", 0, lambda v: v)]
    f = Function("f", parameters, lambda f, arrays: variant)
    for step in (10, 11):
        tagged, drawn = f(np.zeros(2), "name")
        assert tagged == ("name", step) and drawn.tolist() == [step, step]
    assert state.get() == [12]
