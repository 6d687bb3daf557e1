"""`tcc compile`: its files, and its words and exit codes for what it cannot do."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tcc.runtime import bundle
from tcc.runtime.manifest import Manifest
from tcc.tools import compiling
from tcc.tools.building import archive
from tcc.tools.cli import run

Output = pytest.CaptureFixture[str]
needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")

MODEL = """
import numpy as np, tcc
import tcc.tensor as T
x, y = T.fmatrix("x"), T.fvector("y")
w = tcc.shared(np.arange(6, dtype="float32").reshape(3, 2) / 8, name="w")
predict = tcc.function([x], T.tanh(x.dot(w)), name="predict")
step = tcc.function([x, y], T.sum((x.dot(w)[:, 0] - y) ** 2),
                    updates=[(w, w - 0.125 * T.grad(T.sum((x.dot(w)[:, 0] - y) ** 2), w))], name="step")
m = T.dmatrix("m")
spectrum = tcc.function([m], T.nlinalg.eigh(m)[0], name="spectrum")
@tcc.as_op([T.fvector], [T.fvector])
def doubled(v):
    return v * 2
callback = tcc.function([y], doubled(y), name="callback")
number = 3
def both():
    return {"predict": predict, "step": step}
def broken():
    return [][0]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "compiled_model.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("compiled_model", None)
    return tmp_path


HERE = "compiled_model.py"


def test_what_is_emitted(folder: Path, capsys: Output) -> None:
    kinds = "bundle,static,obj,header,python,llvm-ir,asm,tcir"
    assert run(["compile", f"{HERE}:both", "--name", "m", "--emit", kinds, "--verify", "0", "-o", "out"]) == 0
    names = "CMakeLists.txt libm.a m-config.cmake m.h m.json m.ll m.o m.pc m.py m.s m.tcb m.tcir m_example.c"
    assert sorted(p.name for p in (folder / "out").iterdir()) == sorted(names.split())
    manifest = Manifest.from_json((folder / "out/m.json").read_text())
    assert [e.name for e in manifest.entries] == ["predict", "step"] and manifest.entries[1].updates == ("w",)
    assert manifest.target is not None and manifest.target.threads == 1
    for file in manifest.files:
        assert (folder / "out" / file.name).stat().st_size == file.bytes
    assert {m for m in bundle.read(folder / "out/m.tcb").members} >= {"model.tcir", "weights.safetensors"}


def test_equal_input_gives_equal_bytes_whatever_the_hash_seed(folder: Path) -> None:
    made = []
    for seed in ("1", "2"):
        out = folder / f"out{seed}"
        command = [sys.executable, "-m", "tcc", "compile", f"{HERE}:both", "--name", "m", "--verify", "0"]
        command += ["--emit", "bundle,static,header,python,llvm-ir", "-o", str(out)]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True)
        made.append({p.name: p.read_bytes() for p in out.iterdir()})
    assert made[0] == made[1]


def test_json_and_a_depfile(folder: Path, capsys: Output) -> None:
    arguments = ["compile", f"{HERE}:predict", "--emit", "obj", "-o", "a.o", "--json", "--depfile", "a.d"]
    assert run([*arguments, "--verify", "0"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["files"][0]["name"] == "a.o" and told["name"] == "predict"
    outputs, _, inputs = (folder / "a.d").read_text().partition(": ")
    assert outputs == "a.o" and HERE in inputs.split()


def test_text_on_stdout(folder: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert run(["compile", f"{HERE}:predict", "--emit", "header", "-o", "-", "--verify", "0"]) == 0
    assert b"int32_t predict_predict_run(" in capfdbinary.readouterr().out


@needs_cc
def test_verify_runs_the_library(folder: Path, capsys: Output) -> None:
    assert run(["compile", f"{HERE}:both", "--name", "m", "--shape", "x=n,3", "--shape", "y=n", "--shape", "n=2..9",
                "--verify", "3", "--emit", "shared", "-o", "out"]) == 0  # fmt: skip
    assert "not verified" not in capsys.readouterr().err


@needs_cc
def test_a_mismatch_has_an_exit_code_of_its_own(
    folder: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "TOLERANCE", -1.0)
    assert run(["compile", f"{HERE}:predict", "-o", "out"]) == 3
    said = capsys.readouterr().err
    assert "error: verify: @predict: the result output_0: element [" in said and "made by tanh at" in said
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([f"{HERE}:predikt"], 1, "no attribute predikt (did you mean predict?)"),
        ([f"{HERE}:number"], 1, "not a compiled function but int"),
        ([f"{HERE}:broken"], 1, "IndexError: list index out of range"),
        (["nothing.py:f"], 1, "nothing.py: error: no such file"),
        ([f"{HERE}:spectrum"], 1, "there is no native code without Python for:\n  eigh(f64["),
        ([f"{HERE}:predict", "--mtriple", "aarch64-unknown-linux-gnx"], 1, "did you mean aarch64-unknown-linux-gnu?"),
        ([f"{HERE}:predict", "--mcpu", "x86-64-v33"], 1, "did you mean x86-64-v3"),
        ([f"{HERE}:predict", "--mattr", "+avx512ff"], 1, "did you mean +avx512f?"),
        ([f"{HERE}:predict", "--mtriple", "riscv64-linux-gnu", "--mattr", "+vv"], 1, "did you mean +v?"),
        ([f"{HERE}:callback"], 1, "needs this Python program:\n  the Python op FromFunctionOp{doubled}, written at compiled_model.py:"),
        ([f"{HERE}:step", "--shape", "x=4,3", "--shape", "y=5"], 1, "--shape: "),
        ([f"{HERE}:predict", "--shape", "x=n,4"], 1, "its size is 3, not 4"),
        ([f"{HERE}:predict", "--shape", "q=n"], 1, "no argument q (there are x)"),
        ([f"{HERE}:predict", "--shape", "x=n"], 1, "x has 2 axes, and 1 sizes are given"),
        ([f"{HERE}:predict", "--shape", "x=9..2,3"], 2, "the range 9..2 is empty"),
        ([f"{HERE}:predict", "--shape", "x"], 2, "is not like x=n,784"),
        ([f"{HERE}:predict", "--emit", "dll"], 2, "no kind 'dll' (there are bundle, shared"),
        ([f"{HERE}:predict", "--gpu-arch", "sm_90"], 2, "--gpu-arch goes with --target cuda"),
        ([f"{HERE}:predict", "--name", "a-b"], 2, "no name of letters, digits and _"),
        ([f"{HERE}:predict", "--emit", "obj,asm", "-o", "x.o"], 2, "is one file"),
        ([f"{HERE}:predict", "--emit", "obj", "-o", "x.a"], 2, "a file of kind obj ends with .o"),
        ([f"{HERE}:predict", "--emit", "obj", "-o", "/proc/none/"], 1, "cannot write"),
        ([HERE, "--entry", "predict"], 2, "is not like predict=f"),
    ],
)  # fmt: skip
def test_clean_failures(folder: Path, capsys: Output, arguments: list[str], code: int, words: str) -> None:
    assert run(["compile", *arguments, "--verify", "0"]) == code
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said and "internal error" not in said


def test_files_are_not_replaced_without_force(folder: Path, capsys: Output) -> None:
    command = ["compile", f"{HERE}:predict", "--emit", "obj", "-o", "out", "--verify", "0"]
    assert run(command) == 0
    before = (folder / "out/predict.o").read_bytes()
    assert run(command) == 1 and "predict.o: error: it is there already; --force" in capsys.readouterr().err
    assert run([*command, "--force"]) == 0 and (folder / "out/predict.o").read_bytes() == before


def test_without_a_linker_it_says_so_and_objects_are_made(
    folder: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("tcc.tools.building.zig", lambda: False)
    assert run(["compile", f"{HERE}:predict", "--emit", "shared", "-o", "out"]) == 1
    said = capsys.readouterr().err
    assert "no linker for" in said and "pip install ziglang" in said and "--emit obj" in said
    assert run(["compile", f"{HERE}:predict", "--emit", "obj", "-o", "out"]) == 0
    assert "note: not verified: no linker" in capsys.readouterr().err
    assert run(["compile", f"{HERE}:predict", "-o", "out"]) == 0
    assert "predict.o" in bundle.read(folder / "out/predict.tcb").members


@pytest.mark.slow
def test_a_killed_compile_leaves_no_half_file(folder: Path) -> None:
    kinds = "obj,static,llvm-ir,asm,header"
    command = [
        sys.executable,
        "-m",
        "tcc",
        "compile",
        f"{HERE}:predict",
        "--name",
        "m",
        "--verify",
        "0",
        "--emit",
        kinds,
    ]
    subprocess.run([*command, "-o", "whole"], check=True, capture_output=True)
    for k in (0, 3):
        started = subprocess.Popen([*command, "-o", f"part{k}"], stderr=subprocess.DEVNULL)
        out = folder / f"part{k}"
        until = time.monotonic() + 20
        while not out.exists() and started.poll() is None and time.monotonic() < until:
            time.sleep(0.0005)
        time.sleep(0.001 * k)
        started.send_signal(signal.SIGKILL)
        started.wait()
        for path in out.iterdir() if out.exists() else ():
            if not path.name.endswith(".part"):
                assert path.read_bytes() == (folder / "whole" / path.name).read_bytes(), path


def test_an_archive_is_what_ar_writes(tmp_path: Path) -> None:
    if shutil.which("ar") is None:
        pytest.skip("there is no ar")
    (tmp_path / "m.a").write_bytes(archive("m", b"some bytes of code!", ["m_f", "m_g"]))
    listed = subprocess.run(["ar", "t", "m.a"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert listed.stdout.split() == ["m.o"]
    assert (
        subprocess.run(["ar", "p", "m.a"], cwd=tmp_path, capture_output=True, check=True).stdout[:19]
        == b"some bytes of code!"
    )


@needs_cc
@pytest.mark.parametrize("link", ["shared", "static"])
def test_the_example_builds_as_it_is(folder: Path, link: str) -> None:
    command = [
        "compile",
        f"{HERE}:both",
        "--name",
        "m",
        "--emit",
        f"{link},header",
        "-o",
        "out",
        "--verify",
        "0",
    ]
    assert run([*command, "--shape", "x=n,3", "--shape", "y=n"]) == 0
    flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic"]
    linked = ["-L.", "-lm", "-Wl,-rpath,$ORIGIN"] if link == "shared" else ["libm.a"]
    if link == "shared":
        linked = ["./libm.so", "-Wl,-rpath,$ORIGIN"]
    subprocess.run(["cc", *flags, "m_example.c", *linked, "-o", "example"], cwd="out", check=True)
    said = subprocess.run(["./example"], cwd="out", check=True, capture_output=True, text=True).stdout
    assert said.startswith("predict: output_0 [3, 2] ") and "\nstep: output_0 [] " in said


@needs_cc
def test_a_program_takes_its_weights_from_a_file(folder: Path) -> None:
    command = ["compile", f"{HERE}:predict", "--emit", "exe", "--weights", "separate", "-o", "out/"]
    assert run([*command, "--verify", "0"]) == 0
    done = subprocess.run(["out/predict"], capture_output=True, text=True)
    assert done.returncode == 1 and "the state has no values yet" in done.stderr
    done = subprocess.run(["out/predict", "out/predict.safetensors"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("predict: output_0 [3, 2] ")


@needs_cc
def test_the_python_loader_stands_alone(folder: Path) -> None:
    command = [
        "compile",
        f"{HERE}:both",
        "--name",
        "lone",
        "--emit",
        "shared,python",
        "-o",
        "out",
        "--verify",
        "0",
    ]
    assert run(command) == 0
    code = (
        "import sys; sys.path.insert(0, 'out'); import lone, numpy as np; m = lone.load();"
        "print(m.predict(np.ones((1, 3), 'f')), m.entries, 'tcc' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert said.startswith("[[0.63") and said.rstrip().endswith("False")
