"""Containers of shared variables: what get and set copy, what native code sees, who waits for whom."""

from __future__ import annotations

import ctypes
import os
import pickle
import threading
import time

import numpy as np
import pytest
from tiny import Build, body, slot

from tcc.ir import dims
from tcc.runtime import layout as at
from tcc.runtime.buffers import Container, ObjectContainer, aligned_empty
from tcc.runtime.signature import InputSpec, OutputSpec, SharedSpec, Signature

n = dims.name("n")

# w[0] += x, for w of any size; z = w[0]
ADD = body(
    slot("x", 2)
    + slot("w", 3)
    + slot("z", 4)
    + """
  %a = load double, ptr %x
  %b = load double, ptr %w
  %c = fadd double %a, %b
  store double %c, ptr %w
  store double %c, ptr %z
  ret i32 0"""
)
STEP = Signature((InputSpec("f64"),), (SharedSpec("f64", (n,), written=True),), (OutputSpec("f64"),), "array")
# sets x[1] and waits, without the GIL, until x[0] is set
HOLD = body(
    slot("ctx", 0)
    + slot("x", 2)
    + slot("w", 3)
    + """
  %told = getelementptr i64, ptr %x, i64 1
  store volatile i64 1, ptr %told
  br label %again
again:
  %status = call i32 @tcc_poll(ptr %ctx)
  %stop = load volatile i64, ptr %x
  %set = icmp ne i64 %stop, 0
  br i1 %set, label %out, label %again
out:
  ret i32 0"""
)


def words(container: Container) -> ctypes.Array[ctypes.c_int64]:
    return (ctypes.c_int64 * (at.SHARED_DIMS + container.rank)).from_address(container.record)


@pytest.mark.parametrize("shape", [(), (0,), (3,), (5, 7), (2, 3, 4)])
def test_arrays_are_aligned(shape: tuple[int, ...]) -> None:
    a = aligned_empty(shape, "f4")
    assert a.shape == shape and a.dtype == "f4" and a.flags.c_contiguous
    assert a.size == 0 or a.ctypes.data % 64 == 0


def test_values_are_copied_unless_borrowed() -> None:
    given = np.arange(3.0)
    mine, borrowed = Container(given), Container(given, borrow=True)
    given[0] = 9
    assert mine.get()[0] == 0 and borrowed.get()[0] == 9
    borrowed.get()[1] = 8
    assert borrowed.get()[1] == 1
    borrowed.get(borrow=True)[1] = 8
    assert given[1] == 8


def test_set_of_equal_sizes_keeps_the_buffer() -> None:
    c = Container(np.zeros(3))
    address, version = words(c)[at.SHARED_DATA], c.version
    c.set(np.ones(3))
    assert words(c)[at.SHARED_DATA] == address and c.get()[0] == 1 and c.version > version
    c.set(np.ones(4))
    assert words(c)[at.SHARED_DATA] != address and c.shape == (4,)
    own = np.full(4, 2.0)
    c.set(own, borrow=True)
    assert c.array is own


def test_a_buffer_that_others_have_is_theirs_once_the_value_is_set() -> None:
    given = np.zeros(3)
    borrowed, lent = Container(given, borrow=True), Container(given)
    seen = lent.get(borrow=True)
    assert borrowed.own is None and lent.own is None
    for c in (borrowed, lent):
        c.set(np.ones(3))
        assert c.own is not None and c.get().tolist() == [1, 1, 1]
    assert given.tolist() == seen.tolist() == [0, 0, 0]


def test_a_container_owns_what_was_pickled() -> None:
    made = pickle.loads(pickle.dumps(Container(np.arange(3.0))))
    assert made.own is not None and words(made)[at.SHARED_DATA] % 64 == 0 and made.get().tolist() == [0, 1, 2]


def test_a_buffer_that_native_code_cannot_use_is_copied() -> None:
    for odd in (np.zeros((4, 4))[:, :2], np.zeros(3, ">f8"), np.zeros((2, 3)).T, np.frombuffer(bytes(16))):
        c = Container(odd, borrow=True)
        assert c.array.flags.carray and c.array.dtype.isnative and c.dtype == odd.dtype.newbyteorder("=")


def test_dtype_and_rank_stay() -> None:
    c = Container(np.zeros((2, 3), "f4"))
    c.name = "W"
    for wrong in (np.zeros((2, 3)), np.zeros(3, "f4")):
        with pytest.raises(TypeError, match="container W holds float32 of rank 2, got"):
            c.set(wrong)
    with pytest.raises(TypeError, match="holds numbers"):
        Container(np.array([None]))


def test_the_record_says_where_the_value_is() -> None:
    c = Container(np.zeros((2, 3)))
    address = c.record
    assert words(c)[at.SHARED_DATA] == c.array.ctypes.data and list(words(c)[at.SHARED_DIMS :]) == [2, 3]
    c.set(np.zeros((5, 4)))
    assert c.record == address
    assert words(c)[at.SHARED_DATA] == c.array.ctypes.data and list(words(c)[at.SHARED_DIMS :]) == [5, 4]


def test_native_code_sees_every_set(make: Build) -> None:
    c = Container(np.zeros(1))
    step = make(STEP, ADD, containers=[c])
    assert step(2.0) == 2 and step(3.0) == 5 and c.get()[0] == 5
    c.set(np.array([100.0]))
    assert step(1.0) == 101
    c.set(np.array([7.0, 8.0]))
    version = c.version
    assert step(1.0) == 8 and c.shape == (2,) and c.version > version


def test_a_container_twice_is_refused(make: Build) -> None:
    c = Container(np.zeros(1))
    with pytest.raises(ValueError, match="twice"):
        make(
            Signature((), (SharedSpec("f64", (1,)),) * 2, (), "none"), body("  ret i32 0"), containers=[c, c]
        )


def test_an_adopted_output_becomes_the_buffer(make: Build) -> None:
    signature = Signature(
        (InputSpec("f64"),),
        (SharedSpec("f64", (n,), written=True),),
        (OutputSpec("f64"), OutputSpec("f64", (n + 1,), adopt=0)),
        "array",
    )
    text = body(
        slot("x", 2)
        + slot("z", 4)
        + slot("new", 5)
        + """
  %v = load double, ptr %x
  store double %v, ptr %z
  store double %v, ptr %new
  ret i32 0"""
    )
    c = Container(np.zeros(1))
    f = make(signature, text, containers=[c])
    assert f(4.0) == 4 and c.shape == (2,) and c.get()[0] == 4
    assert f(5.0) == 5 and c.shape == (3,)
    assert c.array.base is None and c.array.flags.owndata


@pytest.mark.parametrize(("holds", "waits"), [(True, True), (False, False)])
def test_a_reader_waits_for_a_writer_only(make: Build, holds: bool, waits: bool) -> None:
    c = Container(np.zeros(1))
    spec = (SharedSpec("f64", (1,), written=holds),)
    f = make(Signature((InputSpec("i64", (2,)),), spec, (), "none", work=10**6), HOLD, containers=[c])
    read = make(Signature((), (SharedSpec("f64", (1,)),), (), "none"), body("  ret i32 0"), containers=[c])
    switch = np.zeros(2, "i8")
    done: list[str] = []
    threads = [threading.Thread(target=f, args=(switch,))]
    threads[0].start()
    while not switch[1]:
        time.sleep(0.001)
    for name, action in (("get", c.get), ("call", read)):
        threads.append(
            threading.Thread(target=lambda name=name, action=action: (action(), done.append(name)))
        )
        threads[-1].start()
    time.sleep(0.1)
    assert sorted(done) == ([] if waits else ["call", "get"])
    switch[0] = 1
    for thread in threads:
        thread.join()
    assert sorted(done) == ["call", "get"]


def test_writers_exclude_each_other_and_readers(make: Build) -> None:
    c = Container(np.zeros(1))
    work = 10**6  # each call gives the GIL away
    step = make(Signature(STEP.inputs, STEP.shared, STEP.outputs, "array", work=work), ADD, containers=[c])

    def many() -> None:
        for _ in range(300):
            step(1.0)

    threads = [threading.Thread(target=many) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(t.is_alive() for t in threads):
        c.get()
    for thread in threads:
        thread.join()
    assert c.get()[0] == 1200 and not c.busy(write=True)


def test_a_forked_child_does_not_wait_for_threads_that_it_lacks(make: Build) -> None:
    c = Container(np.zeros(1))
    spec = (SharedSpec("f64", (1,), written=True),)
    f = make(Signature((InputSpec("i64", (2,)),), spec, (), "none", work=10**6), HOLD, containers=[c])
    switch = np.zeros(2, "i8")
    holder = threading.Thread(target=f, args=(switch,))
    holder.start()
    while not switch[1]:
        time.sleep(0.001)
    assert c.busy(write=True)
    child = os.fork()
    if child == 0:
        c.set(np.ones(1))
        os._exit(int(c.get()[0]))
    switch[0] = 1
    holder.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


def test_object_containers_copy_deeply() -> None:
    state = {"key": [1]}
    c = ObjectContainer(state)
    state["key"].append(2)
    assert c.get() == {"key": [1]}
    c.set(state, borrow=True)
    assert c.get(borrow=True) is state and c.get() is not state
