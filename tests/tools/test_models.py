"""The commands about models in files, and the examples in every command's help."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from lent import Lent

import tcc
import tcc.tensor as T
from tcc.runtime import bundle, weights
from tcc.tools import verifying
from tcc.tools.cli import cli, run
from tcc.tools.command import Command

Output = pytest.CaptureFixture[str]
F = np.float32
MODEL = """
import numpy as np
import tcc
import tcc.tensor as T

F = np.float32
x, y = T.matrix("x", dtype="float32"), T.lvector("y")
w = tcc.shared(np.random.default_rng(0).normal(size=(5, 3)).astype(F), "w")
b = tcc.shared(np.zeros(3, F), "b")
p = T.nnet.softmax(T.dot(x, w) + b)
loss = T.nnet.categorical_crossentropy(p, y).sum()
predict = tcc.function([x], p, name="predict")
step = tcc.function([x, y], loss, updates=[(v, v - F(0.1) * tcc.grad(loss, v)) for v in (w, b)], name="step")
"""
GRAPH = """func @f(%x: f32[n,4], %y: f32[n,4]) -> (f32[n,4]) {
  %a = add %x, %y : f32[n,4]
  %b = mul %a, %a : f32[n,4]
  yield %b
}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the examples name."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "model.py").write_text(MODEL)
    (folder / "graph.tcir").write_text(GRAPH)
    space: dict[str, object] = {}
    exec(compile(MODEL, "model.py", "exec"), space)
    tcc.save(folder / "mlp.tcb", {"predict": space["predict"], "step": space["step"]})
    x = np.random.default_rng(1).normal(size=(4, 5)).astype(F)
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", np.array([0, 1, 2, 0]))
    np.savez(folder / "inputs.npz", x=x)
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of it as the current folder, with an import path and a cache of its own."""
    shutil.copytree(made, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("TCC_CACHE_DIR", str(made / "cache"))
    monkeypatch.setenv("TCC_THREADS", "1")  # and back again, whatever --threads sets
    yield tmp_path / "here"
    sys.modules.pop("model", None)


EXAMPLES = [(name, e) for name, c in cli.commands.items() for e in getattr(c, "examples", ())]


@pytest.mark.parametrize("name, example", EXAMPLES, ids=[e for _, e in EXAMPLES])
def test_every_example_of_the_help_runs(here: Path, name: str, example: str, capsys: Output) -> None:
    words = shlex.split(example)
    assert words[0] == "tcc" and words[1] == name
    if "shared" in example and shutil.which("cc") is None:
        pytest.skip("a shared library needs a linker, and there is no C compiler")
    assert run(words[1:]) == 0, capsys.readouterr().err


def test_every_command_has_an_example_in_its_help(capsys: Output) -> None:
    for name, command in cli.commands.items():
        assert isinstance(command, Command) and command.examples
        assert run([name, "--help"]) == 0
        assert re.search(rf"\nExamples?:\n  tcc {name}", capsys.readouterr().out)


# -- run ---------------------------------------------------------------------------------------------------------


def test_run_writes_what_the_model_gives(here: Path) -> None:
    want = tcc.load("mlp.tcb", interpret=True).predict(np.load("x.npy"))
    for words in (["x.npy"], ["x=x.npy"], ["inputs.npz"], ["x.npy", "--interpret"]):
        for output in ("y.npy", "y.npz", "y.safetensors"):
            assert run(["run", "mlp.tcb", "--entry", "predict", *words, "-o", output]) == 0
        np.testing.assert_allclose(np.load("y.npy"), want, rtol=1e-5)
        np.testing.assert_allclose(weights.read(Path("y.npz"))["output_0"].array, want, rtol=1e-5)


def test_run_carries_state_from_run_to_run(here: Path) -> None:
    words = ["run", "mlp.tcb", "--entry", "step", "x=x.npy", "y=y.npy", "--interpret"]
    assert run([*words, "--save-state", "1.safetensors"]) == 0
    assert run([*words, "--state", "1.safetensors", "--save-state", "2.npz"]) == 0
    model = tcc.load("mlp.tcb", interpret=True)
    for _ in range(2):
        model.step(np.load("x.npy"), np.load("y.npy"))
    np.testing.assert_array_equal(weights.read(Path("2.npz"))["w"].array, model.state["w"].get_value())


@pytest.mark.parametrize(
    "words, code, message",
    [
        (["mlp.tcb"], 2, "there are several entries: predict, step"),
        (["mlp.tcb", "--entry", "predikt"], 2, "no entry predikt (did you mean predict? there are predict, step)"),
        (["mlp.tcb", "--entry", "predict"], 2, "predict needs the argument x: give x=FILE.npy"),
        (["mlp.tcb", "--entry", "predict", "z=x.npy"], 2, "predict has no argument z (it has x)"),
        (["mlp.tcb", "--entry", "predict", "x.npy", "y.npy"], 2, "there is no argument left for it"),
        (["mlp.tcb", "--entry", "predict", "x.npy", "x=x.npy"], 2, "the argument x is given twice"),
        (["mlp.tcb", "--entry", "predict", "x.txt"], 2, "an input is a .npy file"),
        (["mlp.tcb", "--entry", "predict", "no.npy"], 1, "no.npy: error: No such file or directory"),
        (["mlp.tcb", "--entry", "predict", "x=y.npy"], 1, "predict(x: f32[x_0,5]) -> (output_0: f32[x_0,3]): Bad input"),
        (["mlp.tcb", "--entry", "predict", "x=model.npy"], 4, "model.npy is no .npy file that can be read"),
        (["mlp.tcb", "--entry", "predict", "x.npy", "-o", "y.txt"], 2, "results go to a .npz, .safetensors or .npy"),
        (["mlp.tcb", "--entry", "predict", "x.npy", "-o", "no/y.npy"], 1, "no/y.npy: error: cannot write: No such file"),
        (["mlp.tcb", "--entry", "predict", "x.npy", "--state", "inputs.npz"], 4, "inputs.npz lacks w, b (it has x)"),
        (["mlp.tcb", "--entry", "step", "x.npy", "y.npy", "--save-state", "s.bin"], 2, "state goes to a .safetensors or"),
        (["no.tcb", "x.npy"], 1, "no.tcb: error: No such file or directory"),
        (["model.py", "x.npy"], 4, "model.py: not a bundle"),
    ],
)  # fmt: skip
def test_run_says_what_is_wrong(
    here: Path, words: list[str], code: int, message: str, capsys: Output
) -> None:
    shutil.copy("model.py", "model.npy")
    before = sorted(here.iterdir())
    assert run(["run", *words, "--interpret"]) == code
    captured = capsys.readouterr()
    assert message in captured.err and "Traceback" not in captured.err and captured.out == ""
    assert sorted(here.iterdir()) == before


# -- inspect -----------------------------------------------------------------------------------------------------


def test_inspect_tells_all_and_its_hash_is_that_of_the_file(here: Path, capsys: Output) -> None:
    assert run(["inspect", "mlp.tcb"]) == 0
    out = capsys.readouterr().out
    assert "step(x: f32[x_0,5], y: i64[x_0]) -> (output_0: f32[]); updates w, b" in out
    assert bundle.read(Path("mlp.tcb")).sha256 in out and "w  f32[5, 3]  60 bytes" in out
    assert run(["inspect", "mlp.tcb", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "mlp"
    assert run(["inspect", "inputs.npz"]) == 0
    assert capsys.readouterr().out == "x  f32[4, 5]  80 bytes\n"


def test_a_spoiled_or_newer_file_is_4(here: Path, capsys: Output) -> None:
    whole = Path("mlp.tcb").read_bytes()
    for data in (whole[:-5], whole.replace(b'"format": 1', b'"format": 9'), b""):
        Path("bad.tcb").write_bytes(data)
        for command in ("inspect", "verify", "bench", "run"):
            assert run([command, "bad.tcb"]) == 4
            assert re.match("tcc: error: bad.tcb: .*(cut off|spoiled|not a bundle)", capsys.readouterr().err)


# -- the library in a bundle -------------------------------------------------------------------------------------


@pytest.fixture
def native(here: Path) -> Path:
    """A bundle with a library for this machine."""
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler to link a library")
    entries = ["--entry", "predict=predict", "--entry", "step=step", "--name", "mlp"]
    assert run(["compile", "model.py", *entries, "--verify", "0", "-o", "native.tcb"]) == 0
    return Path("native.tcb")


def test_a_librarys_results_and_state_are_the_interpreters(native: Path, capsys: Output) -> None:
    model, other = tcc.load(native, trust_native=True), tcc.load(native, interpret=True)
    assert model.native and not other.native and not tcc.load(native).native
    x, y = np.load("x.npy"), np.load("y.npy")
    for _ in range(3):
        np.testing.assert_allclose(model.step(x, y), other.step(x=x, y=y), rtol=1e-5)
    np.testing.assert_allclose(model.predict(x=x), other.predict(x), rtol=1e-5)
    for name, value in other.state.get().items():
        np.testing.assert_allclose(model.state[name].get_value(), value, rtol=1e-4, atol=1e-6)
    model.state.save("s.safetensors")
    other.state.load("s.safetensors")
    model.state.set({"b": np.ones(3, F)})
    assert model.state["b"].get_value().tolist() == [1, 1, 1]
    with pytest.raises(TypeError, match="w is float32.5, 3., got float32.3, 5."):
        model.state.set({"b": np.zeros(3, F), "w": np.zeros((3, 5), F)})
    assert model.state["b"].get_value().tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="x has size 4 in axis 1, wanted 5"):
        model.predict(x[:, :4].copy())
    with pytest.raises(ValueError, match="index 5 is out of bounds"):
        model.step(x, y + 5)
    for command in (["verify"], ["bench", "--seconds", "0.02"], ["run", "--entry", "predict", "x=x.npy"]):
        assert run([command[0], str(native), *command[1:], "--trust-native"]) == 0, capsys.readouterr().err


def test_a_library_runs_only_if_it_is_trusted(
    native: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    pinned = bundle.read(native).sha256
    assert (
        tcc.load(native, trust_native=pinned).native
        and tcc.load(native, trust_native=f"sha256:{pinned}").native
    )
    assert run(["run", str(native), "--entry", "predict", "x=x.npy", "--pin", pinned]) == 0
    assert run(["run", str(native), "--entry", "predict", "x=x.npy", "--pin", "0" * 64]) == 4
    assert f"its SHA-256 is {pinned}, not the trusted 000" in capsys.readouterr().err

    def loaded(*_: object) -> None:
        raise AssertionError("it is loaded")

    monkeypatch.setattr("tcc.native.opened", loaded)
    tcc.load(native)
    with pytest.raises(AssertionError, match="it is loaded"):
        tcc.load(native, trust_native=True)


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_bfloat16_is_the_librarys_own_and_float32_for_python(here: Path, capsys: Output) -> None:
    (here / "brain.py").write_text(
        "import numpy as np, tcc, tcc.tensor as T\n"
        "w = tcc.shared(np.arange(6, dtype='f').reshape(2, 3) / 3, 'w', dtype='bfloat16')\n"
        "x = T.matrix('x', dtype='bfloat16')\n"
        "f = tcc.function([x], x.dot(w), updates=[(w, w * 2)], name='f')\n"
    )
    assert run(["compile", "brain.py:f", "-o", "brain"]) == 0
    assert "not verified" not in capsys.readouterr().err
    assert run(["inspect", "brain/f.tcb"]) == 0
    assert "f(x: bf16[x_0,2]) -> (output_0: bf16[x_0,3]); updates w" in capsys.readouterr().out
    np.save("ones.npy", np.ones((1, 2), F))
    for extra in ([], ["--interpret"], ["--trust-native"]):
        assert run(["run", "brain/f.tcb", "ones.npy", "-o", "y.safetensors", *extra]) == 0
        assert weights.read(Path("y.safetensors"))["output_0"].dtype == "bf16"
    tcc.save_weights("x.safetensors", {"x": tcc.shared(np.ones((1, 2), F), dtype="bfloat16")})
    assert run(["run", "brain/f.tcb", "x.safetensors", "-o", "y.npy"]) == 0
    assert np.load("y.npy").tolist() == [[1, 1.671875, 2.328125]]
    assert run(["verify", "brain/f.tcb", "--trust-native"]) == 0
    plain, trusted = (tcc.load("brain/f.tcb", trust_native=t) for t in (False, True))
    ones = np.ones((1, 2), F)
    assert trusted.native and np.array_equal(trusted(ones), plain(ones))
    lent = Lent(np.full((1, 2), 0x3F80, "uint16"))
    assert np.array_equal(trusted(lent), plain(lent))
    for model, name in ((plain, "a"), (trusted, "b")):
        model.state.save(f"{name}.safetensors")
    assert Path("a.safetensors").read_bytes() == Path("b.safetensors").read_bytes()
    assert np.array_equal(trusted.state["w"].get_value(), plain.state["w"].get_value())
    trusted.state.set({"w": np.full((2, 3), 0.5, F)})
    assert np.array_equal(trusted(ones), np.ones((1, 3), F))
    trusted.state.load("a.safetensors")
    assert np.array_equal(trusted(ones), plain(ones))


# -- verify, bench, targets --------------------------------------------------------------------------------------


def test_verify_names_the_worst_element_and_is_3(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    right = verifying.results

    def wrong(made: object, entry: object) -> dict[str, object]:
        found = right(made, entry)  # type: ignore[arg-type]
        calls.append(1)
        if len(calls) == 2:  # what the compiled code gives in the first trial
            found["output_0"] = found["output_0"].copy()
            found["output_0"][1, 2] += 0.5
        return found

    calls: list[int] = []
    monkeypatch.setattr(verifying, "results", wrong)
    assert run(["verify", "mlp.tcb", "--entry", "predict", "--size", "x_0=3"]) == 3
    err = capsys.readouterr().err
    assert re.search(
        r"mlp.tcb: error: @predict: the result output_0: element \[1, 2\] is .*, and .* interpreted", err
    )
    assert "made by softmax at model.py:10" in err and "trial 0 of seed 0, x_0 = 3" in err


def test_verify_compares_new_state_too(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    native, reference = tcc.load("mlp.tcb"), tcc.load("mlp.tcb", interpret=True)
    step = native.entries["step"]
    native.entries["step"] = lambda **given: [
        step(**given),
        native.state["w"].set_value(np.zeros((5, 3), F)),
    ][0]
    with pytest.raises(
        verifying.Mismatch, match="the new value of w: element .* is 0.0, and .* made by sub at model.py"
    ):
        verifying.verified(native, reference, native.manifest.entry("step"), 1, 0, {}, 1000)


@pytest.mark.parametrize(
    "want, got, error",
    [
        ([1.0, 2.0], [1.0, 2.0], 0),
        ([np.nan, np.inf], [np.nan, np.inf], 0),
        ([np.nan, 1.0], [3.0, 1.0], 0),
        ([1.0, 1.0], [np.nan, 1.0], np.inf),
        ([1.0, 2.0], [1.0, 2.0 + 8 * 2.0**-52], 4),
        ([], [], 0),
        ([1, 2], [1, 3], np.inf),
    ],
)
def test_how_far_elements_are_apart(want: list[float], got: list[float], error: float) -> None:
    assert verifying.difference(np.array(want), np.array(got))[0] == error


def test_verify_and_bench_say_what_is_wrong(here: Path, capsys: Output) -> None:
    for command in ("verify", "bench"):
        assert run([command, "mlp.tcb", "--size", "k=3"]) == 2
        assert "@predict has no size k (it has x_0)" in capsys.readouterr().err
        assert run([command, "mlp.tcb", "--size", "x_0=-1"]) == 2
        assert "'x_0=-1' is not like n=600" in capsys.readouterr().err


def test_a_function_of_indices_is_verified_on_indices_that_it_takes(here: Path, capsys: Output) -> None:
    i = T.lvector("i")
    tcc.save("table.tcb", tcc.function([i], T.constant(np.arange(4.0))[i], name="look"))
    assert run(["verify", "table.tcb"]) == 0
    assert "@look: 3 random inputs agree with the interpreter" in capsys.readouterr().out


def test_bench_tells_times_sizes_and_threads(here: Path) -> None:
    words = ["bench", "mlp.tcb", "--entry", "predict", "--seconds", "0.02", "--json", "--threads", "1"]
    done = subprocess.run([sys.executable, "-m", "tcc", *words], capture_output=True, text=True)
    got = json.loads(done.stdout)
    assert got["name"] == "predict" and got["sizes"] == {"x_0": 32} and got["threads"] == 1
    assert 0 < got["best"] <= got["median"] and got["calls"] >= 1


def test_targets_lists_triples_and_tools(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.setenv("PATH", "")
    assert run(["targets"]) == 0
    out = capsys.readouterr().out
    for word in ("aarch64-unknown-linux-gnu", "x86-64-v4", "wasm32-unknown-unknown", "no node", "no ptxas"):
        assert word in out
