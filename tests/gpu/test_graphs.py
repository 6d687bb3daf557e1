"""Captured calls: what goes through pinned memory, when the host waits, and what a check that fails leaves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from capturing import Capturing

import tcc
import tcc.tensor as T
from tcc import devices
from tcc.runtime import device_function, device_graph
from tcc.runtime.device_arrays import DeviceArray


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Capturing]:
    made = Capturing()
    monkeypatch.setattr(devices, "emulator", lambda: made)
    yield made


x, v, i = T.matrix("x", dtype="float32"), T.vector("v", dtype="float32"), T.lvector("i")
RNG = np.random.default_rng(0)


def f32(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def test_a_call_waits_once_and_its_results_are_its_own(device: Capturing) -> None:
    f = tcc.function([x, v], [x + v, x.sum(), T.argmax(x, axis=1)], device="emulator")
    kept = []
    for shape in ((3, 5), (3, 5), (3, 5), (4, 5), (4, 5), (0, 5), (0, 5)):
        a, b = f32(*shape), f32(shape[1])
        before = device.waits
        got = f(a, b)
        waited = device.waits - before
        kept.append((got, [a + b, a.sum(dtype=np.float64), a.argmax(axis=1)]))
    for got, want in kept:
        for one, other in zip(got, want, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5)
    assert waited == 1 and device.replays
    del f
    assert not device.pinned


def test_large_arrays_go_their_own_way(device: Capturing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_graph, "MOST_PINNED", 100)
    f = tcc.function([x], [x + 1, x.sum()], device="emulator")
    for _ in range(3):
        a = f32(3, 9)
        got, total = f(a)
        np.testing.assert_array_equal(got, a + 1)
        np.testing.assert_allclose(total, a.sum(), rtol=1e-5)
    assert device.replays == 2 and not device.pinned


def test_inputs_and_outputs_that_stay_on_the_device(device: Capturing) -> None:
    f = tcc.function([x, v], [(x * v).transfer("emulator"), x.sum(axis=0)], device="emulator")
    there: Any = f32(3, 5)
    for turn in range(5):
        b = f32(5)
        want = np.asarray(there) * b, np.asarray(there).sum(axis=0)
        next_one, total = f(there, b)
        np.testing.assert_array_equal(np.asarray(next_one), want[0])
        np.testing.assert_allclose(total, want[1], rtol=1e-5, atol=1e-6)
        there = next_one if turn > 1 else f32(3, 5)
    assert device.replays == 4


def test_outputs_of_the_device_are_the_graphs_until_somebody_keeps_them(device: Capturing) -> None:
    f = tcc.function([v], [(v * 2).transfer("emulator"), (v + 1).transfer("emulator")], device="emulator")
    given = DeviceArray.of(device, f32(5))
    copies: list[int] = []
    real = device.copy
    device.copy = lambda *a: (copies.append(a[2]), real(*a))[1]  # type: ignore[method-assign,func-returns-value]
    for _ in range(4):
        f(given)
    assert not copies and device.replays == 3
    kept = [f(given) for _ in range(3)]
    assert copies == [20] * 4
    for double, more in kept:
        np.testing.assert_array_equal(np.asarray(double), 2 * np.asarray(given))
        np.testing.assert_array_equal(np.asarray(more), np.asarray(given) + 1)
    value = np.asarray(given)
    for _ in range(4):  # each result is the next input: lies elsewhere
        given, _ = f(given)
        value = value * 2
        np.testing.assert_array_equal(np.asarray(given), value)


def test_outputs_that_were_lent_are_never_written_again(
    device: Capturing, monkeypatch: pytest.MonkeyPatch
) -> None:
    f = tcc.function([v], (v * 2).transfer("emulator"), device="emulator")
    given = DeviceArray.of(device, f32(5))
    f(given)
    lent = f(given)
    lent._lend()
    address, before = lent.address, np.asarray(lent)
    other = DeviceArray.of(device, f32(5))
    for _ in range(3):
        np.testing.assert_array_equal(np.asarray(f(other)), 2 * np.asarray(other))
    assert lent.address == address
    np.testing.assert_array_equal(np.asarray(lent), before)


def test_updates_alone_do_not_wait(device: Capturing) -> None:
    w = tcc.shared(np.zeros(5, np.float32), target="emulator")
    f = tcc.function([v], updates=[(w, w + v)], device="emulator")
    given = [f32(5) for _ in range(4)]
    for value in given:
        before = device.waits
        f(value)
    assert device.waits == before and device.replays == 3
    np.testing.assert_allclose(w.get_value(), np.sum(given, axis=0), rtol=1e-5)


def test_a_check_that_fails_leaves_the_state(device: Capturing) -> None:
    w = tcc.shared(f32(5, 3), target="emulator")
    f = tcc.function([i], w[i].sum(), updates=[(w, T.inc_subtensor(w[i], 1))], device="emulator")
    good = np.array([0, 4, -5])
    for _ in range(3):
        f(good)
    want, before = w.get_value(), device.waits
    for _ in range(2):
        with pytest.raises(IndexError, match="index 5 is out of bounds"):
            f(good + 5)
    np.testing.assert_array_equal(w.get_value(), want)
    f(good)
    assert (w.get_value() != want).any() and device.waits > before


def test_a_call_that_was_interrupted_is_waited_for(
    device: Capturing, monkeypatch: pytest.MonkeyPatch
) -> None:
    f = tcc.function([v], v * 2, device="emulator")
    for _ in range(2):
        f(f32(4))
    wait = device.synchronise

    def stopped() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(device, "synchronise", stopped)
    with pytest.raises(KeyboardInterrupt):
        f(f32(4))
    monkeypatch.setattr(device, "synchronise", wait)
    a, before = f32(4), device.waits
    np.testing.assert_array_equal(f(a), a * 2)
    assert device.waits == before + 2


def test_minibatches_by_index_are_one_graph(device: Capturing) -> None:
    """The host makes sizes and places of the index; launches that hang on them are patched."""
    images, labels = f32(22, 3), RNG.integers(0, 2, 22)
    index, y = T.lscalar("index"), T.lvector("y")
    steps = []
    for where in ("cpu", "emulator"):
        w = tcc.shared(np.zeros((3, 2), np.float32))
        rows = slice(index * 4, (index + 1) * 4)
        cost = T.nnet.categorical_crossentropy(T.nnet.softmax(T.dot(x, w)), y).mean()
        givens = {x: tcc.shared(images)[rows], y: tcc.shared(labels)[rows]}
        steps.append(
            (
                tcc.function(
                    [index], cost, updates=[(w, w - tcc.grad(cost, w))], givens=givens, device=where
                ),
                w,
            )
        )
    (here, w), (there, v) = steps
    for k in [0, 3, 1, 1, 4, 2, 5, 0, -3, -1]:  # one of two rows, one of none, some from the end
        np.testing.assert_allclose(there(k), here(k), rtol=1e-5)
        np.testing.assert_allclose(v.get_value(), w.get_value(), rtol=1e-4, atol=1e-6)
        if k == 2:
            assert device.patches and there.variant is not None
            kept, patches = there.variant.graphs[-1], device.patches
            assert kept.now == [8, 4]
    assert device.patches > patches and device.replays


def test_sizes_that_take_turns_are_captured_once(device: Capturing, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few of them, in all as much memory as may be kept; the oldest goes first."""
    w = tcc.shared(np.zeros(5, np.float32), target="emulator")
    f = tcc.function([x], x.sum(axis=0) * 2, updates=[(w, w + x.sum(axis=0))], device="emulator")
    total = np.zeros(5, np.float32)

    def call(*rows: int) -> int:
        """How many graphs are made for calls with so many rows."""
        before, variant = device.captures, f.variant
        for n in rows:
            a = f32(n, 5)
            np.testing.assert_allclose(f(a), 2 * a.sum(axis=0), rtol=1e-4, atol=1e-5)
            total[...] += a.sum(axis=0)
            np.testing.assert_allclose(w.get_value(), total, rtol=1e-4, atol=1e-4)
        assert variant is None or len(f.variant.graphs) <= device_function.MOST_GRAPHS
        return device.captures - before

    call(7, 7, 3, 3)  # the first is for one size, the next for any
    assert call(7) == 1 and call(3, 7, 3, 7, 7) == 0
    assert call(1, 0) == 2 and call(7, 3, 1, 0) == 0
    assert call(4) == 1 and call(0, 1, 3) == 0 and call(7) == 1  # which was the oldest
    monkeypatch.setattr(device_function, "MOST_KEPT", 0)
    assert call(9) == 1 and call(9, 9) == 0 and call(7) == 1 and call(9) == 1
    f.free()
    assert not f.variant.graphs and call(7) == 1


def test_graphs_that_are_kept_give_way(device: Capturing, monkeypatch: pytest.MonkeyPatch) -> None:
    f = tcc.function([x], x + 1, device="emulator")
    for n in (2, 3, 3, 4):
        f(f32(n, 2))
    real, kept = device_function.CapturedCall, []

    def scarce(*given: Any) -> Any:
        kept.append(len(f.variant.graphs))
        if f.variant.graphs:
            raise devices.DeviceMemoryError("no memory")
        return real(*given)

    monkeypatch.setattr(device_function, "CapturedCall", scarce)
    a = f32(6, 2)
    np.testing.assert_array_equal(f(a), a + 1)
    assert kept[-1] == 0 and len(kept) == 2 and len(f.variant.graphs) == 1


def test_minibatches_of_two_lengths_are_two_graphs(device: Capturing) -> None:
    """The last one of an epoch is shorter, so that other blocks are launched for it."""
    data, index = tcc.shared(f32(2000, 3), target="emulator"), T.lscalar("index")
    f = tcc.function([index], (data[index * 1024 : (index + 1) * 1024] * 2).sum(), device="emulator")
    for _ in range(3):
        before = device.captures
        for k in (0, 1):
            want = 2 * data.get_value()[k * 1024 : (k + 1) * 1024].sum(dtype=np.float64)
            np.testing.assert_allclose(f(k), want, rtol=1e-4)
    assert device.captures == before
