"""Shared variables that functions read and do not update: their panels are kept from call to call, and never stale."""

from __future__ import annotations

import ctypes
import gc
import pickle
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tcc
from tcc import tensor as T
from tcc.codegen.products.panels import panel_bytes
from tcc.codegen.target import chosen
from tcc.ir.ops.linalg import panels_ref
from tcc.ir.text import parse_func
from tcc.passes.manager import Context, run
from tcc.passes.pipeline import parse_pipeline
from tcc.runtime.panels import PATIENCE
from tcc.tools.compare import same_bits

Array = np.ndarray[Any, Any]
ENOUGH = PATIENCE + 2  # calls after which panels are there

# What a function multiplies by, of a variable of this shape.
PARTS: dict[str, tuple[tuple[int, ...], Callable[[Any], Any]]] = {
    "rows": ((61, 90), lambda w: w),
    "columns": ((90, 61), lambda w: w.T),
    "few columns": ((200, 13), lambda w: w),
    "a part": ((70, 101), lambda w: w[4:65, 3:93]),
    "backwards": ((61, 90), lambda w: w[::-1, ::-1]),
    "every other": ((122, 180), lambda w: w[::2, 1::2]),
    "one of a stack": ((3, 61, 90), lambda w: w[1]),
    "turned part of a stack": ((90, 61, 3), lambda w: w[:, :, 0].T),
}


def normal(*shape: int, dtype: str = "float32") -> Array:
    made: Array = np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)
    return made


def held(f: Any) -> int:
    """Bytes of panels of a function's newest code."""
    return sum(p.bytes for p in f.variant.panels)


def warm(f: Any, *args: Array) -> Any:
    for _ in range(ENOUGH):
        result = f(*args)
    return result


def product(w: Any) -> Any:
    x = T.matrix("x", w.dtype)
    return tcc.function([x], T.dot(x, w))


@pytest.fixture
def w() -> Any:
    return tcc.shared(normal(61, 90), "w")


X = normal(7, 61)


def check(f: Any, w: Any) -> None:
    """Now, and once panels may be there."""
    for _ in range(ENOUGH):
        np.testing.assert_allclose(f(X), X @ w.get_value(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("machine", ["host", "x86-64-v3", "plain"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("part", PARTS)
def test_the_bits_are_those_without_panels(
    part: str, dtype: str, machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TCC_TARGET", machine)
    shape, seen = PARTS[part]
    w, x, b = tcc.shared(normal(*shape, dtype=dtype)), T.matrix("x", dtype), normal(90, dtype=dtype)
    matrix = seen(w.get_value())
    bias = b[: matrix.shape[1]]
    f = tcc.function([x], T.tanh(T.dot(x, seen(w)) / 8 + bias))
    for m in (5, 1, 0, 2, 3, 13, 40):
        a = normal(m, len(matrix), dtype=dtype)
        w.set_value(w.get_value())
        first = f(a)
        assert m != 5 or held(f) == 0
        np.testing.assert_allclose(first, np.tanh(a @ matrix / 8 + bias), rtol=1e-4, atol=1e-5)
        assert same_bits(warm(f, a), first), m
    (panels,) = f.variant.panels
    width = panel_bytes(chosen()) // np.dtype(dtype).itemsize
    assert same_bits(panels._array, panels_ref(np.ascontiguousarray(matrix), width))


def lent_now(w: Any) -> None:
    w.get_value(borrow=True)[3] += 1


def by_address(w: Any) -> None:
    array = w.container.storage[0]
    place = ctypes.cast(array.ctypes.data, ctypes.POINTER(ctypes.c_float))
    place[5] = 100.0


def set_borrowed(w: Any) -> None:
    mine = w.get_value() + 1
    w.set_value(mine, borrow=True)
    mine[0] = 7


CHANGES: dict[str, Callable[[Any], Any]] = {
    "set": lambda w: w.set_value(w.get_value() * 3),
    "updated in place": lambda w: tcc.function([], [], updates=[(w, w * 2)])(),
    "a few rows updated": lambda w: tcc.function([], [], updates=[(w, T.inc_subtensor(w[2:5], 1))])(),
    "updated by an interpreter": lambda w: tcc.function([], [], updates=[(w, w - 1)], mode="FAST_COMPILE")(),
    "zeroed": lambda w: w.zero(),
    "lent and written": lent_now,
    "written by its address": by_address,
    "set to what the caller keeps": set_borrowed,
    "seen by another library": lambda w: np.from_dlpack(w.get_value(borrow=True)).__setitem__(1, 5),
    "exchanged": lambda w: w.set_value(normal(90, 61).T),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen_at_once(change: str, w: Any) -> None:
    f = product(w)
    warm(f, X)
    assert held(f) > 0
    before = w.get_value()
    CHANGES[change](w)
    assert (w.get_value() != before).any()
    check(f, w)
    w.set_value(before)
    check(f, w)
    assert f.variant.panels[0].make() is False and held(f) > 0  # they are of this value


@pytest.mark.parametrize("change", ["lent and written", "set to what the caller keeps"])
def test_a_buffer_that_others_have_is_never_trusted(change: str, w: Any) -> None:
    f = product(w)
    CHANGES[change](w)
    warm(f, X)
    assert held(f) == 0
    buffer = w.get_value(borrow=True)
    for number in range(4):
        buffer[number] = number
        check(f, w)
    assert held(f) == 0
    w.set_value(normal(61, 90))
    buffer[:] = 0  # no longer the variable's
    warm(f, X)
    assert held(f) > 0
    check(f, w)


def test_two_variables_of_one_array() -> None:
    array = normal(61, 90)
    first, second = tcc.shared(array, borrow=True), tcc.shared(array, borrow=True)
    f, step = product(first), tcc.function([], [], updates=[(second, second + 1)])
    for _ in range(3):
        check(f, first)
        step()
        assert same_bits(first.get_value(), second.get_value())
    check(f, first)


def test_what_changes_from_call_to_call_is_not_copied(w: Any) -> None:
    f, step = product(w), tcc.function([], [], updates=[(w, w * 0.5)])
    for _ in range(10):
        np.testing.assert_allclose(f(X), X @ w.get_value(), rtol=1e-4, atol=1e-4)
        step()
    assert held(f) == 0


def test_what_a_function_updates_itself_is_not_kept(w: Any) -> None:
    x = T.fmatrix("x")
    f = tcc.function([x], T.dot(x, w), updates=[(w, w + 1)])
    for _ in range(6):
        before = w.get_value()
        np.testing.assert_allclose(f(X), X @ before, rtol=1e-4, atol=1e-4)
    assert not f.variant.panels


def test_functions_share_the_panels_of_a_variable(w: Any) -> None:
    f, g = product(w), product(w)
    warm(f, X)
    g(X)
    assert f.variant.panels[0] is g.variant.panels[0]
    gone = weakref.ref(f.variant.panels[0])
    del f
    gc.collect()
    assert gone() is not None
    del g
    gc.collect()
    assert gone() is None and not w.container.panels


def test_free_gives_the_memory_back(w: Any) -> None:
    f = product(w)
    warm(f, X)
    f.free()
    assert held(f) == 0
    check(f, w)
    assert held(f) > 0


def test_other_sizes_of_the_variable(w: Any) -> None:
    f = product(w)
    warm(f, X)
    for n in (200, 90, 133):
        w.set_value(normal(61, n))
        check(f, w)


def test_an_update_that_changes_the_size(w: Any) -> None:
    f = product(w)
    step = tcc.function([], [], updates=[(w, T.concatenate([w, w[:, :2]], axis=1))])
    for _ in range(3):
        check(f, w)
        step()
    check(f, w)


def test_rows_that_a_flattened_batch_has_by_another_name() -> None:
    """Their number is a size that holds by a `refine` where the batch varies: (n * 4 * 5 * 6) // n."""
    x, w = T.tensor4("x", dtype="float32"), tcc.shared(normal(120, 64))
    f = tcc.function([x], T.dot(T.reshape(x, (x.shape[0], T.prod(x.shape) // x.shape[0])), w))
    for n in (3, 4, 5):
        a = normal(n, 4, 5, 6)
        np.testing.assert_allclose(warm(f, a), a.reshape(n, 120) @ w.get_value(), rtol=1e-4, atol=1e-4)


def test_givens_name_another_variable(w: Any) -> None:
    other, x = tcc.shared(normal(61, 90) + 1, "other"), T.fmatrix("x")
    f = tcc.function([x], T.dot(x, w), givens={w: other})
    check(f, other)
    w.set_value(w.get_value() * 2)
    check(f, other)
    other.set_value(other.get_value() * 2)
    check(f, other)


@pytest.mark.parametrize(
    "n", [64, 96]
)  # the wider one has panels before the loop, if it is turned or tiles want copies
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("machine", ["host", "x86-64-v3"])
def test_what_all_steps_read(machine: str, turned: bool, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCC_TARGET", machine)
    u = tcc.shared(normal(n, n) / 16)
    factor = u.T if turned else u
    x = T.tensor3("x", "float32")
    states, _ = tcc.scan(
        lambda x, h: T.tanh(x + T.dot(h, factor)), sequences=x, outputs_info=T.zeros_like(x[0])
    )
    f = tcc.function([x], states[-1])
    xs = normal(5, 7, n)

    def check() -> None:
        first, h = f(xs), np.zeros((7, n))
        assert same_bits(warm(f, xs), first) and held(f) == n * n * 4
        w = u.get_value().astype(np.float64)
        for step in xs:
            h = np.tanh(step + h @ (w.T if turned else w))
        np.testing.assert_allclose(first, h, rtol=1e-4, atol=1e-5)

    check()
    u.set_value(u.get_value() / 2)
    check()
    u.get_value(borrow=True)[3] = 1
    expected = f(xs)
    u.set_value(u.get_value())
    assert same_bits(f(xs), expected) and same_bits(warm(f, xs), expected)


def test_pickles_carry_values_and_no_panels(w: Any) -> None:
    f = product(w)
    warm(f, X)
    before = f(X)
    g = pickle.loads(pickle.dumps(f))
    assert same_bits(g(X), before) and held(g) == 0
    assert same_bits(warm(g, X), before) and held(g) > 0
    (copied,) = g.program.containers.values()
    copied.set(w.get_value() * 2)
    np.testing.assert_allclose(g(X), 2 * before, rtol=1e-4, atol=1e-4)
    check(f, w)


def test_readers_and_writers_in_threads() -> None:
    """All of a result is of one version: W is a multiple of ones, set and updated while others read it."""
    w = tcc.shared(np.ones((64, 96), "float32"))
    f, step = product(w), tcc.function([], [], updates=[(w, w + 1)])
    x = np.ones((4, 64), "float32")
    wrong: list[Array] = []
    done = threading.Event()

    def read() -> None:
        last = 0.0
        while not done.is_set():
            got = f(x) / 64
            if got.min() != got.max() or got[0, 0] < last or got[0, 0] != np.round(got[0, 0]):
                wrong.append(got)
                return
            last = got[0, 0]

    readers = [threading.Thread(target=read) for _ in range(3)]
    for thread in readers:
        thread.start()
    for number in range(200):
        if number % 3:
            step()
        else:
            w.set_value(w.get_value() + 1)
        if number % 10 == 0:
            warm(f, x)
    done.set()
    for thread in readers:
        thread.join()
    assert not wrong
    np.testing.assert_array_equal(f(x), np.full((4, 96), 64 * 201))


def test_which_products_read_them() -> None:
    """A variable that is not updated, seen from two sides; not one that is updated, or small, nor for many rows."""
    text = """func @f(%x: f32[m,64], %h: f32[m,40], %y: f32[600,64], %w: f32[64,40], %u: f32[64,40], %s: f32[64,5])
      -> (f32[m,40], f32[m,64], f32[m,40], f32[m,5], f32[600,40], f32[64,40])
      {shared = ["w", "u", "s"], updates = {u = 5}} {
      %a = matmul %x, %w : f32[m,40]
      %wt = dimshuffle %w {order = [1, 0]} : f32[40,64]
      %b = matmul %h, %wt : f32[m,64]
      %c = matmul %x, %u : f32[m,40]
      %d = matmul %x, %s : f32[m,5]
      %e = matmul %y, %w : f32[600,40]
      %v = neg %u : f32[64,40]
      yield %a, %b, %c, %d, %e, %v
    }"""
    func = parse_func(text)
    run(func, parse_pipeline("panels{row_bytes=64, keep=true}"), Context(verify=2))
    products = [op for op in func.body.walk() if op.name == "matmul"]
    assert [op.attrs["kept"] for op in products] == [True, True, False, False, False]
    assert [str(op.operands[-1].type) for op in products[:2]] == ["f32[3,64,16]", "f32[4,40,16]"]


def test_the_setting_turns_it_off(w: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCC_KEEP", "0")
    f = product(w)
    warm(f, X)
    assert not f.variant.panels
