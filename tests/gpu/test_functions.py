"""Functions on a device, which is the emulator: where values live, what travels, and what an error leaves behind."""

from __future__ import annotations

import gc
import pickle
import signal
import threading
from typing import Any

import numpy as np
import pytest

import tcc
import tcc.tensor as T
from tcc.devices import emulator
from tcc.runtime import dlpack
from tcc.runtime.device_arrays import DeviceArray
from tcc.runtime.device_program import CheckStatus

RNG = np.random.default_rng(0)
DEVICE = "emulator"


def vector(values: Any) -> Any:
    return np.asarray(values, np.float32)


def doubling(**more: Any) -> Any:
    x = T.vector("x", dtype="float32")
    return tcc.function([x], x * 2, **more)


class Traffic:
    """Counts copies between the host and the emulator."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.up = self.down = 0
        device = emulator()
        to_device, to_host = device.to_device, device.to_host

        def up(*args: Any) -> None:
            self.up += 1
            to_device(*args)

        def down(*args: Any) -> None:
            self.down += 1
            to_host(*args)

        monkeypatch.setattr(device, "to_device", up)
        monkeypatch.setattr(device, "to_host", down)


@pytest.fixture
def traffic(monkeypatch: pytest.MonkeyPatch) -> Traffic:
    return Traffic(monkeypatch)


def test_a_function_names_its_device() -> None:
    f = doubling(device=DEVICE)
    assert f.device.name == DEVICE
    assert f(vector([1, 2])).tolist() == [2, 4] and f(vector([])).size == 0


def test_config_names_the_device_and_contexts_name_devices() -> None:
    with tcc.change_flags(device=DEVICE):
        assert doubling().device.name == DEVICE
    with tcc.change_flags([("contexts", f"dev0->{DEVICE}"), ("device", "dev0")]):
        assert doubling().device.name == DEVICE
        with pytest.raises(ValueError, match=r"no device 'dev1' \(there are cpu, cuda0 .*, emulator, dev0\)"):
            doubling(device="dev1")
    with pytest.raises(ValueError, match="no device 'tpu'"):
        tcc.config.device = "tpu"
    assert tcc.config.device == "cpu"


def test_a_shared_variable_names_the_device() -> None:
    w = tcc.shared(vector([1, 2, 3]), target=DEVICE)
    assert tcc.function([], w.sum()).device.name == DEVICE
    assert not hasattr(tcc.function([], w.sum(), device="cpu"), "device")


def test_updates_stay_on_the_device(traffic: Traffic) -> None:
    w = tcc.shared(vector(np.arange(1000)), target=DEVICE)
    f = tcc.function([], updates=[(w, w + 1)])
    f()
    traffic.up = 0
    f()
    f()
    assert (traffic.up, traffic.down) == (0, 0)
    np.testing.assert_array_equal(w.get_value(), np.arange(1000) + 3)
    assert traffic.down == 1
    w.get_value()
    assert traffic.down == 1, "the host's copy is as new"


def test_host_and_device_functions_see_each_others_updates() -> None:
    w = tcc.shared(vector([1, 2]))
    here = tcc.function([], w.sum(), updates=[(w, w * 3)])
    there = tcc.function([], w.sum(), updates=[(w, w + 1)], device=DEVICE)
    assert [float(f()) for f in (here, there, there, here, here, there)] == [3, 9, 11, 13, 39, 117]
    w.set_value(vector([1, 1, 1]))
    assert [float(f()) for f in (there, here)] == [3, 6]


def test_a_host_function_waits_for_what_the_device_has() -> None:
    w = tcc.shared(vector([1, 2]))
    there = tcc.function([], updates=[(w, w + 1)], device=DEVICE)
    read = tcc.function([], w * 1)
    read()
    for turn in range(3):
        there()
        assert read().tolist() == [2 + turn, 3 + turn]


def test_a_scan_copies_nothing_inside(traffic: Traffic) -> None:
    w = tcc.shared(vector(RNG.normal(size=(4, 4)) * 0.3), target=DEVICE)
    x = T.matrix("x", dtype="float32")
    states, _ = tcc.scan(
        lambda row, h: T.tanh(row + T.dot(h, w)), sequences=x, outputs_info=T.zeros_like(x[0])
    )
    f = tcc.function([x], states[-1])
    given = vector(RNG.normal(size=(7, 4)))
    f(given)
    traffic.up = traffic.down = 0
    got = f(given)
    assert (traffic.up, traffic.down) == (1, 1)
    h = np.zeros(4, np.float32)
    for row in given:
        h = np.tanh(row + h @ w.get_value())
    np.testing.assert_allclose(got, h, rtol=1e-5)


def test_sizes_that_depend_on_data() -> None:
    x = T.vector("x", dtype="float32")
    f = tcc.function([x], x[(x > 0).nonzero()], device=DEVICE)
    assert f(vector([1, -2, 3, -4, 5])).tolist() == [1, 3, 5]
    assert f(vector([-1, -2])).tolist() == []


def test_an_error_leaves_updates_undone_and_names_the_line() -> None:
    w = tcc.shared(vector([1, 2, 3]), target=DEVICE)
    i = T.lscalar("i")
    f = tcc.function([i], w[i], updates=[(w, w + w[i])])
    with pytest.raises(
        IndexError, match=r"index 5 is out of bounds for an axis of size 3[^\0]*test_functions.py"
    ):
        f(5)
    assert w.get_value().tolist() == [1, 2, 3]
    assert float(f(1)) == 2 and w.get_value().tolist() == [3, 4, 5]


def test_a_size_that_does_not_fit_is_explained() -> None:
    x, y = T.vector("x", dtype="float32"), T.vector("y", dtype="float32")
    f = tcc.function([x, y], x + y, device=DEVICE)
    with pytest.raises(ValueError, match="Input dimension mis-match"):
        f(vector([1, 2]), vector([1, 2, 3]))


def test_sizes_may_vary_and_shared_shapes_change() -> None:
    f = doubling(device=DEVICE)
    for n in (3, 5, 8, 13):
        assert f(vector(np.arange(n))).tolist() == (2 * np.arange(n)).tolist()
    assert len(f.variants) == 2
    w = tcc.shared(vector([1, 2]), target=DEVICE)
    grow = tcc.function([], updates=[(w, T.concatenate([w, w]))])
    grow()
    grow()
    assert w.get_value().tolist() == [1, 2] * 4


def test_rows_of_the_host_run_there() -> None:
    x = T.matrix("x", dtype="float64")
    f = tcc.function([x], T.nlinalg.matrix_inverse(x) * 2, device=DEVICE)
    a = RNG.normal(size=(5, 5))
    np.testing.assert_allclose(f(a), 2 * np.linalg.inv(a), rtol=1e-10)


def test_outputs_of_transfer_stay() -> None:
    x = T.vector("x", dtype="float32")
    f = tcc.function([x], [x.transfer(DEVICE) + 0, (x + 1).transfer(DEVICE), x * 2], device=DEVICE)
    here, there, also_here = f(vector([1, 2]))
    assert isinstance(here, np.ndarray) and isinstance(also_here, np.ndarray)
    assert isinstance(there, DeviceArray) and np.asarray(there).tolist() == [2, 3]
    assert doubling(device=DEVICE)(there).tolist() == [4, 6]


def test_values_of_the_device_without_a_copy() -> None:
    w = tcc.shared(vector([1, 2]), target=DEVICE)
    inner, copied = (
        w.get_value(borrow=True, return_internal_type=True),
        w.get_value(return_internal_type=True),
    )
    tcc.function([], updates=[(w, w * 5)])()
    assert (inner.get().tolist(), copied.get().tolist()) == ([5, 10], [1, 2])
    w.set_value(DeviceArray.of(emulator(), vector([7, 8, 9])))
    assert w.get_value().tolist() == [7, 8, 9]
    with pytest.raises(TypeError, match="got an array of int64"):
        w.set_value(DeviceArray.of(emulator(), np.arange(3)))


def test_dlpack_goes_both_ways() -> None:
    a = DeviceArray.of(emulator(), RNG.normal(size=(3, 4)))
    b = np.from_dlpack(a)
    assert b.ctypes.data == a.address and b.shape == (3, 4)
    wanted = a.get()
    del a
    np.testing.assert_array_equal(b, wanted)  # which keeps the memory

    class Foreign:
        """Another framework's array, in the host's memory."""

        def __init__(self, array: Any) -> None:
            self.array = array

        def __dlpack__(self, **more: Any) -> Any:
            return self.array.__dlpack__(**more)

        def __dlpack_device__(self) -> tuple[int, int]:
            return (1, 0)

    source = RNG.normal(size=(3, 4)).astype(np.float32)
    np.testing.assert_array_equal(DeviceArray.from_other(emulator(), Foreign(source.T)).get(), source.T)
    assert doubling(device=DEVICE)(Foreign(source[0])).tolist() == (2 * source[0]).tolist()


def test_borrowed_memory_is_described() -> None:
    source = RNG.normal(size=(3, 4)).astype(np.float32)
    capsule = source.T.__dlpack__()
    found = dlpack.borrow(capsule)
    assert (found.address, found.shape, found.strides) == (source.ctypes.data, (4, 3), (1, 4))
    assert found.dtype == np.float32 and found.device == (dlpack.CPU, 0)
    with pytest.raises(TypeError, match="has not been taken"):
        dlpack.borrow(capsule)


def test_bfloat16_goes_both_ways() -> None:
    """Its kind is DLPack's, and numbers are never its bits."""
    values = vector([1, -2.5, 3.140625, np.inf])
    w = tcc.shared(values, "w", dtype="bfloat16", target=DEVICE)
    a = w.get_value(borrow=True, return_internal_type=True)
    assert a.bfloat and np.asarray(a).tolist() == values.tolist() and "bfloat16" in repr(a)
    assert float(pickle.loads(pickle.dumps(a)).numbers()[1]) == -2.5
    found = dlpack.borrow(a.copy().__dlpack__())
    assert found.bfloat and found.dtype == np.uint16 and found.shape == (4,)

    class Foreign:
        """Another framework's array of bfloat16, in the host's memory, every second of its elements."""

        def __init__(self) -> None:
            self.bits = (np.repeat(-values, 2).view(np.uint32) >> 16).astype(np.uint16)

        def __dlpack__(self, **more: Any) -> Any:
            capsule = self.bits[::2].__dlpack__()
            where = dlpack._pointer(id(capsule), b"dltensor")
            dlpack.ctypes.cast(where, dlpack.ctypes.POINTER(dlpack._Managed)).contents.tensor.kind = 4
            return capsule

        def __dlpack_device__(self) -> tuple[int, int]:
            return (1, 0)

    assert doubling(device=DEVICE)(Foreign()).tolist() == (-2 * values).tolist()
    w.set_value(Foreign())
    assert w.get_value().tolist() == (-values).tolist()
    w.set_value(DeviceArray.from_other(emulator(), Foreign()), borrow=True)
    assert w.get_value().tolist() == (-values).tolist()
    v = tcc.shared(np.zeros(4, np.uint16), "v", target=DEVICE)
    with pytest.raises(TypeError, match="v is .* got an array of bfloat16"):
        v.set_value(w.get_value(borrow=True, return_internal_type=True))


def test_a_capsule_that_nobody_takes_lets_go() -> None:
    a = DeviceArray.of(emulator(), np.arange(3.0))
    gc.collect()
    before = len(emulator().blocks)
    capsule = a.__dlpack__()
    del a
    assert len(emulator().blocks) == before
    del capsule
    assert len(emulator().blocks) == before - 1


def test_no_memory_is_left_behind() -> None:
    w = tcc.shared(vector(RNG.normal(size=50)), target=DEVICE)
    x = T.vector("x", dtype="float32")
    f = tcc.function([x], x[(x > 0).nonzero()].sum(), updates=[(w, w + x)])
    given = vector(RNG.normal(size=50))
    f(given)
    gc.collect()
    before = len(emulator().blocks)
    for _ in range(3):
        f(given)
    with pytest.raises(ValueError):
        f(given[:20])
    gc.collect()
    assert len(emulator().blocks) == before


def test_functions_are_copied_and_pickled() -> None:
    w = tcc.shared(vector([1, 2]), target=DEVICE)
    f = tcc.function([], w.sum(), updates=[(w, w + 1)], device=DEVICE)
    f()
    again = pickle.loads(pickle.dumps(f))
    assert again.device.name == DEVICE and float(again()) == 5 and float(f()) == 5
    assert f.copy().device.name == DEVICE


def test_threads_take_turns() -> None:
    w = tcc.shared(vector(np.zeros(10)), target=DEVICE)
    f = tcc.function([], updates=[(w, w + 1)])
    here = tcc.function([], updates=[(w, w + 1)], device="cpu")
    f(), here()

    def work(g: Any) -> None:
        for _ in range(20):
            g()
            w.get_value()

    threads = [threading.Thread(target=work, args=(g,)) for g in (f, f, here)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert w.get_value().tolist() == [62.0] * 10


def test_an_interrupt_comes_behind_the_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    v, w = (tcc.shared(vector([1, 2]), target=DEVICE) for _ in range(2))
    f = tcc.function([], updates=[(v, v + w), (w, w * v)])
    f()
    device, launched = emulator(), emulator().launch

    def launch(*args: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        launched(*args)

    monkeypatch.setattr(device, "launch", launch)
    with pytest.raises(KeyboardInterrupt):
        f()
    assert v.get_value().tolist() == [3, 8] and w.get_value().tolist() == [2, 16]


def test_theanos_words_fall_back_where_there_is_no_gpu() -> None:
    from tcc.runtime.cuda.driver import look

    if not look().problem:
        pytest.skip("there is a GPU")
    with pytest.warns(UserWarning, match="functions run on the CPU") as caught:
        f = doubling(device="gpu0")
    assert [w.filename for w in caught] == [__file__]
    assert f(vector([1])).tolist() == [2]
    with pytest.raises(tcc.devices.DeviceError, match="run on the CPU"):
        doubling(device="cuda")


def test_a_profile_names_the_kernels_of_the_device() -> None:
    x = T.matrix("x", dtype="float32")
    w = tcc.shared(vector(RNG.normal(size=(6, 4))), target=DEVICE)
    f = tcc.function([x], T.tanh(T.dot(x, w)).sum(), updates=[(w, w * 2)], profile=True)
    f(vector(RNG.normal(size=(5, 6))))
    before = w.get_value()
    kernels = f.profile.kernels(0.01)
    assert {k.op.name for k in kernels} >= {"matmul", "fuse"}
    assert all(k.seconds > 0 and k.shares is not None and k.shares[1] > 0 for k in kernels)
    assert next(k for k in kernels if k.op.name == "matmul").flops == 2 * 5 * 6 * 4
    assert "% of the device's multiply-adds, " in f.profile.text()
    np.testing.assert_array_equal(w.get_value(), before)


def test_functions_that_kernels_call_come_with_them() -> None:
    """Sines in a reduction, whose threads are coroutines, and in sums over columns."""
    x = T.matrix("x", dtype="float64")
    f = tcc.function([x], [T.sin(x).sum(), T.cos(x).sum(axis=0)], device=DEVICE)
    given = 1e5 * RNG.normal(size=(7, 5))
    whole, columns = f(given)
    np.testing.assert_allclose(whole, np.sin(given).sum(), rtol=1e-12)
    np.testing.assert_allclose(columns, np.cos(given).sum(axis=0), rtol=1e-12)


@pytest.mark.parametrize("device", [DEVICE, "cpu"])
@pytest.mark.parametrize("classes", [4, 700, 0])
def test_a_wrong_label_reads_within_its_row(device: str, classes: int) -> None:
    """Cross-entropy picks an element of each row in the row's kernel.  The check is looked at once, before shared variables
    are written, and no label leads out of memory until then."""
    x, y = T.matrix("x", dtype="float32"), T.lvector("y")
    w = tcc.shared(np.float32(1), target=device)
    cost = T.nnet.categorical_crossentropy(T.nnet.softmax(w * x), y).mean()
    step = tcc.function([x, y], cost, updates=[(w, w - tcc.grad(cost, w))], device=device)
    given, before = vector(RNG.normal(size=(3, classes))), w.get_value()
    for labels, wrong in (
        ([0, classes + 100, 1], True),
        ([0, -classes - 1, 1], True),
        ([0, 3, -1], not classes),
    ):
        if not wrong:
            assert step(given, labels) > 0
            continue
        with pytest.raises(IndexError, match=f"is out of bounds for an axis of size {classes}"):
            step(given, labels)
        assert w.get_value() == before
    if device != "cpu":
        checks = [s for s in step.variant.program.walk() if isinstance(s, CheckStatus)]
        assert len(checks) == 1


def test_tf32_is_a_flag_of_the_functions_that_are_made() -> None:
    x, w = T.fmatrices("x", "w")
    a, b = (vector(RNG.normal(size=s)) for s in ((20, 40), (40, 30)))
    plain = tcc.function([x, w], T.dot(x, w), device=DEVICE)
    with tcc.config.change_flags(tf32=True):
        rounded = tcc.function([x, w], T.dot(x, w), device=DEVICE)
    np.testing.assert_allclose(plain(a, b), a @ b, rtol=1e-5, atol=1e-5)
    error = np.abs(rounded(a, b) - a @ b)
    assert 1e-5 < error.max() < 2e-3 * (np.abs(a) @ np.abs(b)).max()
    assert next(iter(rounded.variant.program.kernels)).startswith("tcc_matrices")


def test_an_element_that_is_not_there_is_not_read() -> None:
    """The check comes before the copy of a view that begins behind the end."""
    x = T.fvector("x")
    third, last = (tcc.function([x], v, device=DEVICE) for v in (x[2], x[-1]))
    assert third(vector([1, 2, 3])) == 3 and last(vector([1, 2])) == 2
    for f, short in ((third, [1, 2]), (last, [])):
        for _ in range(2):
            with pytest.raises(IndexError):
                f(vector(short))


def test_sizes_of_scalars_that_are_made_in_place() -> None:
    x = T.lvector("x")
    f = tcc.function([x], T.extra_ops.bincount(x), device="emulator")
    for given in ([3, 1, 0, 1, 3, 3], [2], [3, 1, 0, 1, 3, 3]):
        np.testing.assert_array_equal(f(np.array(given)), np.bincount(given))


def test_an_index_that_makes_a_size_is_what_is_wrong() -> None:
    """On both sides; the size that the host makes of it is negative only on one."""
    x, i = T.matrix("x"), T.iscalar("i")
    f = tcc.function([x, i], x[i, 1:], device="emulator")
    a = RNG.standard_normal((4, 3))
    for index in (3, -4, 0):
        np.testing.assert_array_equal(f(a, index), a[index, 1:])
        for bad in (4, -5, -100):
            with pytest.raises(IndexError, match=f"index {bad} is out of bounds for an axis of size 4"):
                f(a, bad)
