"""Shared variables to and from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tcc
import tcc.tensor as T
from tcc.runtime.weights import WeightsError


@pytest.fixture
def layer() -> Any:
    x = T.matrix("x", dtype="float32")
    w = tcc.shared(np.arange(6, dtype=np.float32).reshape(3, 2), "w")
    b = tcc.shared(np.zeros(2, np.float32), "b")
    n = tcc.shared(np.int64(0))
    f = tcc.function([x], T.dot(x, w) + b, updates=[(n, n + 1)], name="layer", mode="FAST_COMPILE")
    return f, w, b, n


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_a_function_keeps_all_it_reads_and_updates(tmp_path: Path, layer: Any, suffix: str) -> None:
    f, w, b, n = layer
    path = tmp_path / f"w{suffix}"
    before = f(np.ones((1, 3), np.float32))
    tcc.save_weights(path, f)
    w.set_value(w.get_value() * 2)
    n.set_value(np.int64(7))
    got = tcc.load_weights(path, f)
    assert sorted(got) == ["b", "shared", "w"]
    assert n.get_value() == 1
    np.testing.assert_array_equal(f(np.ones((1, 3), np.float32)), before)


def test_variables_arrays_and_names_of_ones_own(tmp_path: Path, layer: Any) -> None:
    _, w, b, n = layer
    tcc.save_weights(tmp_path / "a.safetensors", [w, b])
    tcc.save_weights(tmp_path / "b.safetensors", {"w": w.get_value(), "b": b})
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    tcc.save_weights(tmp_path / "c.npz", {"layer.0.weight": w})
    assert list(tcc.load_weights(tmp_path / "c.npz")) == ["layer.0.weight"]
    tcc.save_weights(tmp_path / "d.npz", w)
    np.testing.assert_array_equal(tcc.load_weights(tmp_path / "d.npz")["w"], w.get_value())


def test_nothing_changes_unless_all_fits(tmp_path: Path, layer: Any) -> None:
    _, w, b, _ = layer
    path = tmp_path / "w.npz"
    old = w.get_value()
    tcc.save_weights(path, {"w": old + 1, "b": np.zeros(3, np.float32)})
    with pytest.raises(WeightsError, match=r"w.npz: b is f32\[3\], wanted f32\[2\]"):
        tcc.load_weights(path, [w, b])
    tcc.save_weights(path, {"w": old + 1, "b": np.zeros(2)})
    with pytest.raises(WeightsError, match=r"b is f64\[2\], wanted f32\[2\]"):
        tcc.load_weights(path, [w, b])
    tcc.save_weights(path, {"w": old + 1})
    with pytest.raises(WeightsError, match=r"w.npz lacks b \(it has w\)"):
        tcc.load_weights(path, [w, b])
    tcc.save_weights(path, {"w": old + 1, "c": old})
    with pytest.raises(WeightsError, match="w.npz has c, which nothing here is called"):
        tcc.load_weights(path, w)
    np.testing.assert_array_equal(w.get_value(), old)
    tcc.load_weights(path, w, strict=False)
    np.testing.assert_array_equal(w.get_value(), old + 1)


def test_what_has_no_name_or_no_numbers_is_named(tmp_path: Path, layer: Any) -> None:
    f, w, _, n = layer
    with pytest.raises(ValueError, match="has no name of its own; give it one"):
        tcc.save_weights(tmp_path / "w.npz", [n])
    with pytest.raises(ValueError, match="has no name of its own"):
        tcc.save_weights(tmp_path / "w.npz", [w, tcc.shared(np.ones(2), "w")])
    with pytest.raises(TypeError, match="words holds a list, not an array"):
        tcc.save_weights(tmp_path / "w.npz", [tcc.shared(["a"], "words")])
    with pytest.raises(TypeError, match="not of int"):
        tcc.save_weights(tmp_path / "w.npz", 3)
    with pytest.raises(TypeError, match="x: safetensors has no dtype"):
        tcc.save_weights(tmp_path / "w.npz", {"x": "text"})
    with pytest.raises(TypeError, match="w is a ndarray, not a shared variable"):
        tcc.save_weights(tmp_path / "w.npz", w)
        tcc.load_weights(tmp_path / "w.npz", {"w": w.get_value()})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["w.npz"]
