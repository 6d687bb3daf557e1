"""Libraries of models: the same results as in a running program, and plain words for what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from classifier import SHAPES, mlp
from lent import Lent

import tcc
import tcc.tensor as T
from tcc.ahead import library
from tcc.codegen.aot import library as aot
from tcc.codegen.target import cross
from tcc.exporting import exported
from tcc.ir.arrays import as_numbers, in_memory
from tcc.runtime.library import ModelError
from tcc.runtime.manifest import Range

Build = Callable[..., Any]


@pytest.mark.parametrize("threads", [1, 2])
def test_training_gives_the_bits_of_the_program(build: Build, threads: int) -> None:
    predict, step, params = mlp()
    model = build({"predict": predict, "step": step}, {"x": (17, 64), "y": (17,)}, threads)
    rng = np.random.default_rng(1)
    x, y = rng.random((17, 64), dtype="float32"), rng.integers(0, 10, 17)
    for _ in range(5):
        assert model.step(x, y) == step(x, y)
    for p in params:
        np.testing.assert_array_equal(model.state[p.name], p.get_value())
    np.testing.assert_array_equal(model.predict(x), predict(x))


@pytest.mark.parametrize("n", [0, 1, 3, 64])
def test_any_size(build: Build, n: int) -> None:
    predict, _, _ = mlp()
    model = build({"predict": predict}, {"x": ("n", 64)})
    x = np.random.default_rng(n).random((n, 64), dtype="float32")
    np.testing.assert_allclose(model(x), predict(x), rtol=1e-6)


def test_maps_that_may_store_past_the_caches(build: Build) -> None:
    """Two of them, of any length: their metadata stands once in the module."""
    x, w = T.fmatrix("x"), tcc.shared(np.eye(3, dtype="float32"), name="w")
    f = tcc.function([x], [T.dot(x * 2 + 1, w), T.dot(x * x - 3, w)])
    model = build({"f": f}, {"x": ("n", 3)})
    given = np.random.default_rng(0).random((50, 3), dtype="float32")
    for got, want in zip(model(given), f(given), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_numbers(build: Build, dtype: str) -> None:
    """As C's `float _Complex` and `double _Complex`: the parts side by side, aligned as one of them."""
    z, w = T.TensorType(dtype, (False, False))("z"), tcc.shared(np.full((3, 3), 1 - 2j, dtype), name="w")
    f = tcc.function([z], [T.dot(z, w) * 1j, abs(z).sum(axis=1)], updates=[(w, w * z[0, 0])])
    model = build({"f": f}, {"z": ("n", 3)})
    rng = np.random.default_rng(0)
    given = (rng.standard_normal((50, 3)) + 1j * rng.standard_normal((50, 3))).astype(dtype)
    bytes = np.zeros(given.nbytes + given.itemsize, np.uint8)
    odd = bytes[given.itemsize // 2 :][: given.nbytes].view(dtype).reshape(given.shape)
    odd[...] = given
    for _ in range(2):
        for got, want in zip(model(odd), f(given), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-5)
    np.testing.assert_allclose(model.state["w"], w.get_value(), rtol=1e-5)


def test_state_goes_through_a_file(build: Build, tmp_path: Any) -> None:
    predict, step, params = mlp()
    first = build({"predict": predict, "step": step}, SHAPES)
    x, y = np.ones((4, 64), "float32"), np.zeros(4, "int64")
    first.step(x, y)
    first.save(tmp_path / "w.safetensors")
    tcc.load_weights(tmp_path / "w.safetensors", params)
    second = build(
        {"predict": predict, "step": step}, SHAPES, embed=False, weights=str(tmp_path / "w.safetensors")
    )
    np.testing.assert_array_equal(second.predict(x), first.predict(x))
    np.testing.assert_array_equal(second.state["W1"], params[0].get_value())


def test_every_pair_of_bytes_is_embedded_as_it_is(build: Build) -> None:
    every = np.arange(1 << 16, dtype="uint16")
    w, x = tcc.shared(every, name="w"), T.lscalar("x")
    model = build({"f": tcc.function([x], w[x])})
    np.testing.assert_array_equal(model.state["w"], every)
    np.testing.assert_array_equal(
        build({"f": tcc.function([x], T.constant(every)[x])})(np.int64(0x2330)), 0x2330
    )


def test_separate_weights_must_come_before_a_run(build: Build, tmp_path: Any) -> None:
    predict, _, _ = mlp()
    model = build({"predict": predict}, embed=False)
    with pytest.raises(ModelError, match="the state has no values yet"):
        model(np.ones((1, 64), "float32"))
    (tmp_path / "w").write_bytes(b"short")
    with pytest.raises(ModelError, match=r"cannot read .* as the \d+ bytes"):
        build({"predict": predict}, embed=False, weights=str(tmp_path / "w"))
    with pytest.raises(ModelError, match=r"5 bytes given, and the state has \d+"):
        model.restore(tmp_path / "w")


def test_sizes_that_only_running_tells(build: Build) -> None:
    x = T.fvector("x")
    model = build({"f": tcc.function([x], [x[x > 0] * 2, T.nonzero(x)[0]])})
    for n in (0, 1, 7, 3000):
        given = np.random.default_rng(n).standard_normal(n).astype("float32")
        kept, where = model(given)
        np.testing.assert_array_equal(kept, given[given > 0] * 2)
        np.testing.assert_array_equal(where, np.nonzero(given)[0])


def test_too_little_room_for_a_result_changes_no_state(build: Build) -> None:
    x, count = T.fvector("x"), tcc.shared(np.zeros(2), name="count")
    f = tcc.function([x], x[x > 0], updates=[(count, count + 1)])
    model = build({"f": f})
    for n in (3, 50):
        np.testing.assert_array_equal(model(np.ones(n, "float32")), np.ones(n))
    np.testing.assert_array_equal(model.state["count"], [2, 2])


def test_a_scan(build: Build) -> None:
    x, w = T.fmatrix("x"), tcc.shared(np.eye(3, dtype="float32") * 0.5, name="w")
    h, _ = tcc.scan(lambda x, h: T.tanh(x + h.dot(w)), sequences=x, outputs_info=T.zeros((3,), "float32"))
    f = tcc.function([x], h)
    model = build({"f": f}, {"x": ("t", 3)})
    for n in (1, 5):
        given = np.random.default_rng(n).random((n, 3), dtype="float32")
        np.testing.assert_allclose(model(given), f(given), rtol=1e-6)


@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "uint16", "int32", "int64", "uint64", "float16", "float32", "float64"]
)
def test_dtypes(build: Build, dtype: str) -> None:
    x = T.TensorType(dtype, (False,))("x")
    model = build({"f": tcc.function([x], x[::-1])})
    given = np.arange(5).astype(dtype)
    np.testing.assert_array_equal(model(given), given[::-1])
    assert model(given).dtype == dtype


def test_bfloat16_comes_and_goes_as_its_16_bits(build: Build) -> None:
    x, w = T.matrix("x", dtype="bfloat16"), tcc.shared(np.eye(3, dtype="f") / 3, "w", dtype="bfloat16")
    f = tcc.function([x], [T.tanh(x.dot(w)), x.astype("float32") + 1, x], updates=[(w, w * 2)])
    model = build({"f": f}, {"x": ("n", 3)})
    assert repr(model.f) == (
        "f(x: bfloat16[n,3]) -> (output_0: bfloat16[n,3], output_1: float32[n,3], x: bfloat16[n,3])"
    )
    for n in (0, 1, 7):
        numbers = np.random.default_rng(n).normal(size=(n, 3)).astype("f")
        bits = in_memory(numbers, "bf16")
        for given in (bits, Lent(bits)):
            got, want = model(given), f(numbers)
            np.testing.assert_allclose(as_numbers(got[0], "bf16"), want[0], rtol=2**-7)
            np.testing.assert_array_equal(got[1], want[1])
            np.testing.assert_array_equal(got[2], bits)
    np.testing.assert_array_equal(as_numbers(model.state["w"], "bf16"), w.get_value())
    for wrong in (numbers, [[1, 2, 3]]):
        with pytest.raises(TypeError, match="f: x is .*, wanted bfloat16, or uint16 with its bits"):
            model(wrong)
    with pytest.raises(ModelError, match="m_f: x has size 2 in axis 1, wanted 3"):
        model(Lent(bits[:, :2].copy()))


@pytest.mark.parametrize("dtype", ["int8", "bfloat16"])
def test_no_library_uses_matrix_registers(dtype: str) -> None:
    """A process has to ask the system for them; a CPU that has them has instructions for its vectors too."""
    extra = "+avx512vnni,+avx512bf16,+amx-tile,+amx-int8,+amx-bf16"
    machine = cross("x86_64-linux-gnu", "x86-64-v4")
    machine = machine._replace(features=f"{machine.features},{extra}".strip(","))
    assert machine.matrices("i8") and machine.matrices("bf16")
    x, w = T.matrix("x", dtype=dtype), tcc.shared(np.ones((64, 40), dtype if dtype == "int8" else "f"), "w")
    wide = "int32" if dtype == "int8" else dtype
    f = tcc.function([x], T.dot(T.cast(x, wide), T.cast(w, wide)))
    text = aot.library_assembly(library(exported({"f": f}, "m"), machine))
    assert ("vpdpbusd" if dtype == "int8" else "vdpbf16ps") in text
    assert "%tmm" not in text


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        ((4, 63), (4,), "m_step: x has size 63 in axis 1, wanted 64"),
        ((4, 64), (5,), "m_step: y has size 5 in axis 0, wanted 4, which is n"),
        ((9, 64), (9,), "m_step: x has size 9 in axis 0, wanted 1 to 8"),
        ((0, 64), (0,), "m_step: x has size 0 in axis 0, wanted 1 to 8"),
        ((4,), (4,), r"m_step: x has 1 axes, wanted 2, \[n,64\]"),
    ],
)
def test_refused_sizes(build: Build, x: Any, y: Any, words: str) -> None:
    _, step, _ = mlp()
    model = build({"step": step}, {"x": ("n", 64), "y": ("n",)}, ranges={"n": Range(1, 8)})
    with pytest.raises(ModelError, match=words):
        model(np.ones(x, "float32"), np.zeros(y, "int64"))


def test_an_index_out_of_bounds_changes_nothing(build: Build) -> None:
    _, step, params = mlp()
    model = build({"step": step}, SHAPES)
    with pytest.raises(
        ModelError, match=r"m_step: index 10 is out of bounds for an axis of size 10 .*classifier.py:\d+"
    ):
        model(np.ones((2, 64), "float32"), np.array([3, 10]))
    for p in params:
        np.testing.assert_array_equal(model.state[p.name], p.get_value())


def test_results_go_by_their_names_too(build: Build) -> None:
    """Also of an entry that Python has another use for the name of."""
    x = T.fvector("x")
    made = build({"lambda": tcc.function([x], {"low": x.min(), "high": x.max()})})(np.arange(3, dtype="f4"))
    assert (made.low, made.high) == (0, 2) and made == (made.high, made.low)


def test_a_convolution_has_the_bits_of_the_program(build: Build) -> None:
    """Its tiles are instructions where there is AVX2, which LLVM reads for a library too."""
    x, w = (
        T.ftensor4("x"),
        tcc.shared(np.random.default_rng(0).random((6, 3, 3, 3), dtype="float32"), name="w"),
    )
    f = tcc.function([x], T.nnet.conv2d(x, w, border_mode="half"))
    model = build({"f": f}, {"x": (2, 3, 16, 16)})
    given = np.random.default_rng(1).random((2, 3, 16, 16), dtype="float32")
    np.testing.assert_array_equal(model(given), f(given))
