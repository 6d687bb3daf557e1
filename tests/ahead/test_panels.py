"""Weights that products read as panels: laid out once, and the state that callers see stays what it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tcc
import tcc.tensor as T
from tcc.codegen.products.panels import panel_bytes
from tcc.codegen.target import host, level
from tcc.ir.ops.linalg import panels_ref

Array = np.ndarray[Any, Any]
Build = Callable[..., Any]

# What an entry makes of x and W, the shape of W, and whether W lies in the library as panels alone.
FORMS: dict[str, tuple[Callable[[Any, Any], Any], tuple[int, int], bool]] = {
    "rows": (lambda x, w: x.dot(w), (5, 70), True),
    "columns": (lambda x, w: x.dot(w.T), (70, 5), True),
    "both ways": (lambda x, w: T.tanh(x.dot(w)).dot(w.T), (70, 90), False),
    "a part": (lambda x, w: x.dot(w[:, 2:72]), (5, 74), False),
    "read too": (lambda x, w: x.dot(w) * w[1, 2], (5, 70), False),
}


def normal(dtype: str, *shape: int) -> Array:
    made: Array = np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)
    return made


@pytest.mark.parametrize("machine", ["host", "x86-64-v3"])
@pytest.mark.parametrize("form", FORMS)
def test_the_state_is_what_it_was(build: Build, form: str, machine: str, tmp_path: Path) -> None:
    """Read, saved, restored and written where it lies, with values in the library or beside it."""
    if machine != "host" and not host().triple.startswith("x86_64"):
        pytest.skip("a level of x86")
    target = host() if machine == "host" else level(machine)
    f, shape, alone = FORMS[form]
    value, other, third = (normal("float32", *shape) * F for F in np.float32([1, 2, 3]))
    x, w = T.fmatrix("x"), tcc.shared(value, "w")
    entry = tcc.function([x], f(x, w))
    k = shape[1] if form == "columns" else shape[0]
    given = [normal("float32", m, k) for m in (0, 1, 2, 40)]

    def check(model: Any, value: Array) -> None:
        w.set_value(value)
        for a in given:
            np.testing.assert_allclose(model(a), entry(a), rtol=1e-4, atol=1e-4)

    model = build({"f": entry}, {"x": ("n", k)}, target=target)
    code = (tmp_path / "libm1.so").read_bytes()
    assert (value.tobytes() in code) is not alone
    panels = panels_ref(value if form == "rows" else value.T, panel_bytes(target) // 4)
    assert (panels.tobytes() in code) is alone
    model.save(tmp_path / "w.safetensors")
    check(model, value)
    w.set_value(other)
    tcc.save_weights(tmp_path / "other.safetensors", [w])
    model.restore(tmp_path / "other.safetensors")
    check(model, other)
    np.testing.assert_array_equal(model.state["w"], other)
    model.state["w"][...] = third
    check(model, third)
    model.restore(tmp_path / "w.safetensors")
    check(model, value)

    fresh = build({"f": entry}, {"x": ("n", k)}, target=target)
    np.testing.assert_array_equal(fresh.state["w"], value)
    fresh.state["w"][...] = third
    check(fresh, third)
    beside = build({"f": entry}, {"x": ("n", k)}, 1, target, False, str(tmp_path / "other.safetensors"))
    check(beside, other)
    np.testing.assert_array_equal(beside.state["w"], other)


def test_entries_and_dtypes_share_the_state(build: Build, tmp_path: Path) -> None:
    """One is updated, and is no panels; the others are read by two entries, as float32 and as float64."""
    x, y = T.fmatrix("x"), T.dmatrix("y")
    values = {"u": normal("float32", 5, 70), "v": normal("float64", 5, 90), "w": normal("float32", 5, 80)}
    u, v, w = (tcc.shared(value, name) for name, value in values.items())
    functions = {
        "f": tcc.function([x, y], [x.dot(u), y.dot(v), x.dot(w)]),
        "g": tcc.function([x], x.dot(u).sum(), updates=[(w, w + np.float32(1))]),
    }
    model = build(functions)
    code = (tmp_path / "libm1.so").read_bytes()
    assert [values[n].tobytes() in code for n in "uvw"] == [False, False, True]
    for rows in (1, 33):
        a = normal("float32", rows, 5)
        np.testing.assert_allclose(model.g(a), functions["g"](a), rtol=1e-4)
        for got, want in zip(
            model.f(a, a.astype("float64")), functions["f"](a, a.astype("float64")), strict=True
        ):
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    for name in "uv":
        np.testing.assert_array_equal(model.state[name], values[name])
    np.testing.assert_array_equal(model.state["w"], w.get_value())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_row_is_added_to_the_state(build: Build, dtype: str) -> None:
    """By panels, in a chain that starts from what stands there."""
    x, total = T.matrix("x", dtype=dtype), tcc.shared(normal(dtype, 1, 300), "total")
    w = tcc.shared(normal(dtype, 40, 300), "w")
    f = tcc.function([x], x.sum(), updates=[(total, total + x.dot(w))])
    model = build({"f": f}, {"x": (1, 40)})
    for i in range(3):
        given = normal(dtype, 1, 40) + np.asarray(i, dtype)
        model(given), f(given)
        np.testing.assert_array_equal(model.state["total"], total.get_value())
