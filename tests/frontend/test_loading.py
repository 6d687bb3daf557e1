"""Models in files: saved, loaded, called and trained as the functions that they were."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tcc
import tcc.tensor as T
from tcc.ir.text import parse
from tcc.runtime import bundle
from tcc.runtime.bundle import BundleError, Member
from tcc.runtime.weights import WeightsError

F = np.float32


def build() -> dict[str, Any]:
    """A classifier: what predicts, and the step that trains it, over the same weights."""
    rng = np.random.default_rng(0)
    x, y = T.matrix("x", dtype="float32"), T.lvector("y")
    w = tcc.shared(rng.normal(size=(5, 3)).astype(F), "w")
    b = tcc.shared(np.zeros(3, F), "b")
    p = T.nnet.softmax(T.dot(x, w) + b)
    loss = T.nnet.categorical_crossentropy(p, y).sum()
    steps = [(v, v - F(0.1) * tcc.grad(loss, v)) for v in (w, b)]
    return {
        "predict": tcc.function([x], p, mode="FAST_COMPILE"),
        "step": tcc.function([x, y], [loss, p], updates=steps, mode="FAST_COMPILE"),
    }


def data(n: int = 4) -> tuple[Any, Any]:
    rng = np.random.default_rng(n)
    return rng.normal(size=(n, 5)).astype(F), rng.integers(0, 3, n)


@pytest.mark.parametrize("interpret", [True, False])
def test_it_predicts_and_trains_as_the_functions_do(tmp_path: Path, interpret: bool) -> None:
    model = build()
    tcc.save(tmp_path / "m.tcb", model)
    got = tcc.load(tmp_path / "m.tcb", interpret=interpret)
    assert sorted(got.entries) == ["predict", "step"] and sorted(got.state) == ["b", "w"]
    assert "predict(x: f32[x_0,5]) -> (output_0: f32[x_0,3])" in repr(got)
    for n in (4, 1, 0, 7):
        x, y = data(n)
        np.testing.assert_allclose(got.predict(x), model["predict"](x), rtol=1e-5)
        for a, b in zip(got.step(x, y), model["step"](x, y)):
            np.testing.assert_allclose(a, b, rtol=1e-5)
    kept = got.state.get()
    assert not np.array_equal(kept["w"], tcc.load(tmp_path / "m.tcb").state["w"].get_value())


def test_state_is_read_set_kept_and_taken_back(tmp_path: Path) -> None:
    tcc.save(tmp_path / "m.tcb", build())
    model, x = tcc.load(tmp_path / "m.tcb", interpret=True), data()
    before = model.predict(x[0])
    model.state.save(tmp_path / "s.safetensors")
    model.step(*x)
    assert not np.array_equal(model.predict(x[0]), before)
    model.state.load(tmp_path / "s.safetensors")
    np.testing.assert_array_equal(model.predict(x[0]), before)
    model.state.set({"b": np.ones(3, F)})
    assert model.state["b"].get_value().tolist() == [1, 1, 1]
    with pytest.raises(TypeError):
        model.state.set({"b": np.zeros(3, F), "w": np.zeros((5, 3), "c8")})
    assert model.state["b"].get_value().tolist() == [1, 1, 1]
    with pytest.raises(KeyError, match="no state v .there is w, b."):
        model.state["v"]
    tcc.save_weights(tmp_path / "w.npz", {"w": np.zeros((3, 5), F), "b": np.zeros(3, F)})
    with pytest.raises(WeightsError, match=r"w is f32\[3,5\], wanted f32\[5,3\]|w is f32\[3, 5\]"):
        model.state.load(tmp_path / "w.npz")


def test_what_it_returns_is_what_the_function_did(tmp_path: Path) -> None:
    x = T.vector("x", dtype="float64")
    for outputs in (x * 2, [x * 2], [x, x + 1], {"twice": x * 2, "more": x + 1}, []):
        f = tcc.function([x], outputs, mode="FAST_COMPILE", on_unused_input="ignore")
        tcc.save(tmp_path / "f.tcb", f)
        model = tcc.load(tmp_path / "f.tcb", interpret=True)
        np.testing.assert_equal(model(np.arange(3.0)), f(np.arange(3.0)))
        np.testing.assert_equal(model(x=np.arange(3.0)), f(np.arange(3.0)))


def test_large_constants_are_in_the_file(tmp_path: Path) -> None:
    table = np.random.default_rng(1).normal(size=(100,))
    x = T.lvector("x")
    tcc.save(tmp_path / "f.tcb", tcc.function([x], T.constant(table)[x], mode="FAST_COMPILE"))
    model = tcc.load(tmp_path / "f.tcb", interpret=True)
    np.testing.assert_array_equal(model([3, -1]), table[[3, -1]])
    with pytest.raises(IndexError):
        model([100])


def test_bad_arguments_are_named(tmp_path: Path) -> None:
    tcc.save(tmp_path / "m.tcb", build())
    model = tcc.load(tmp_path / "m.tcb", interpret=True)
    with pytest.raises(TypeError, match="several entries; call one of predict, step"):
        model(1)
    with pytest.raises(AttributeError, match="a model of predict, step has no 'train'"):
        model.train  # noqa: B018
    with pytest.raises(
        TypeError, match='Bad input argument x to theano function with name "predict"'
    ) as refused:
        model.predict(np.zeros(3, F))
    assert "created" not in str(refused.value)  # which is somewhere in the reader
    with pytest.raises(ValueError, match=r"Wrong shape: expected \(\?, 5\), got \(2, 4\)"):
        model.predict(np.zeros((2, 4), F))


def test_ranges_of_sizes_are_kept_to(tmp_path: Path) -> None:
    x = T.vector("x", dtype="float32")
    tcc.save(tmp_path / "m.tcb", tcc.function([x], x + 1, name="f", mode="FAST_COMPILE"))
    file = bundle.read(tmp_path / "m.tcb")
    text = file.manifest.to_json().replace('"least": 0', '"least": 2').replace('"most": null', '"most": 4')
    manifest = file.manifest.from_json(text)
    bundle.write(
        tmp_path / "m.tcb", manifest, [Member("model.tcir", "tcir", bytes(file.members["model.tcir"]))]
    )
    model = tcc.load(tmp_path / "m.tcb", interpret=True)
    assert model(np.zeros(4, F)).tolist() == [1] * 4
    for n in (1, 5):
        with pytest.raises(ValueError, match=f"f: x, axis 0: its size x_0 is {n}, wanted 2 to 4"):
            model(np.zeros(n, F))


def test_what_needs_this_program_is_refused_all_at_once(tmp_path: Path) -> None:
    x = T.dvector("x")

    @tcc.as_op(itypes=[T.dvector], otypes=[T.dvector])
    def first(a: Any) -> Any:
        return a

    @tcc.as_op(itypes=[T.dvector], otypes=[T.dvector])
    def second(a: Any) -> Any:
        return a

    f = tcc.function([x], second(first(x)))
    with pytest.raises(
        TypeError,
        match="(?s)f: a model cannot hold.*the Python op FromFunctionOp{first}, .*the Python op FromFunctionOp{second}, ",
    ):
        tcc.save(tmp_path / "m.tcb", {"f": f})
    with pytest.raises(
        TypeError, match="f: a model is made of functions of arrays that tcc.function made, not of int"
    ):
        tcc.save(tmp_path / "m.tcb", {"f": 3})
    with pytest.raises(ValueError, match="'a-b' cannot name a model or an entry"):
        tcc.save(tmp_path / "m.tcb", {"a-b": build()["predict"]})
    assert not list(tmp_path.iterdir())


def rewritten(path: Path, change: Any) -> Path:
    """The bundle with other text, in order otherwise."""
    file = bundle.read(path)
    members = [Member(f.name, f.role, bytes(file.members[f.name])) for f in file.manifest.files]
    members = [m._replace(data=change(m.data)) if m.role == "tcir" else m for m in members]
    bundle.write(path, file.manifest, members)
    return path


@pytest.mark.parametrize(
    "old, new, message",
    [
        (b"func @predict", b"func @run", "holds run, step, not the entries of the manifest"),
        (b"%x: f32", b"%x: f64", "operands must have one dtype"),
        (b"(%x: f32[x_0,5]", b"(%z: f32[x_0,5], %x: f32[x_0,5]", "it has the parameters z, x"),
        (b'shared = ["w", "b"]', b'shared = ["b", "w"]', "it reads or updates other state"),
        (b"yield", b"yeild", "no op named yeild"),
        (b"\n", b"\n\xff", "not UTF-8"),
        (
            b"{",
            b"{\n  %c = const {value = @sha256:0123, type = f32[70]} : f32[70]\n",
            "there is no constant 0123 here",
        ),
    ],
)
def test_text_that_is_not_what_the_manifest_says_is_refused(
    tmp_path: Path, old: bytes, new: bytes, message: str
) -> None:
    tcc.save(tmp_path / "m.tcb", build())
    with pytest.raises(BundleError, match=f"(?s)m.tcb: model.tcir.*{message}"):
        tcc.load(rewritten(tmp_path / "m.tcb", lambda text: text.replace(old, new, 1)))


def test_without_llvmlite_it_is_interpreted(tmp_path: Path) -> None:
    """In a process where llvmlite cannot be imported."""
    model, x = build(), data()
    tcc.save(tmp_path / "m.tcb", model)
    np.save(tmp_path / "x.npy", x[0])
    program = (
        "import sys; sys.modules['llvmlite'] = None; sys.modules['llvmlite.binding'] = None\n"
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda n, *a: None if n == 'llvmlite' else find(n, *a)\n"
        "import numpy as np, tcc; m = tcc.load('m.tcb'); np.save('y.npy', m.predict(np.load('x.npy')))\n"
        "assert not any(n.startswith('tcc.codegen') for n in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), model["predict"](x[0]))


def joined() -> Any:
    """A function with a size that several others make."""
    x, y, z = T.fmatrix("x"), T.fmatrix("y"), T.fvector("z")
    return tcc.function([x, y, z], T.concatenate([x, y], axis=1).flatten() + z, name="joined")


def test_equal_models_are_equal_bytes_in_every_process(tmp_path: Path) -> None:
    here = str(Path(__file__).parent)
    program = (
        f"import sys; sys.path.insert(0, {here!r}); import test_loading as t, tcc\n"
        "tcc.save(sys.argv[1] + '.tcb', t.build(), 'm'); tcc.save(sys.argv[1] + '_joined.tcb', t.joined(), 'm')"
    )
    for seed in "13":
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", program, f"{tmp_path}/{seed}"], env=environment, check=True)
    for name in (".tcb", "_joined.tcb"):
        assert (tmp_path / f"1{name}").read_bytes() == (tmp_path / f"3{name}").read_bytes()
    text = bytes(bundle.read(tmp_path / "1.tcb").members["model.tcir"])
    assert list(parse(text)) == ["predict", "step"]
    assert here.encode() not in text and b"test_loading.py:" in text


@pytest.mark.parametrize("interpret", [True, False])
def test_bfloat16_state_keeps_its_two_bytes(tmp_path: Path, interpret: bool) -> None:
    w = tcc.shared(np.arange(6, dtype=F).reshape(2, 3) / 3, "w", dtype="bfloat16")
    x = T.fmatrix("x")
    f = tcc.function([x], x.dot(w.astype("float32")), updates=[(w, w * 2)], name="f", mode="FAST_COMPILE")
    tcc.save(tmp_path / "m.tcb", f)
    model, ones = tcc.load(tmp_path / "m.tcb", interpret=interpret), np.ones((1, 2), F)
    assert np.array_equal(model(ones), f(ones)) and np.array_equal(model(ones), f(ones))
    model.state.save(tmp_path / "w.safetensors")
    tcc.save_weights(tmp_path / "f.safetensors", f)
    assert (tmp_path / "w.safetensors").read_bytes() == (tmp_path / "f.safetensors").read_bytes()
    model.state.set({"w": np.zeros((2, 3), F)})
    model.state.load(tmp_path / "f.safetensors")
    assert np.array_equal(model.state["w"].get_value(), w.get_value())
