"""docs/model-binaries.md, from its model to its C program, which trains to the same bits as Python does."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tcc
from tcc.codegen.target import host
from tcc.tools.cli import run

needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
GUIDE = (Path(__file__).parents[2] / "docs/model-binaries.md").read_text()


def block(language: str, start: str = "") -> str:
    found = [b for b in re.findall(rf"```{language}\n(.*?)```", GUIDE, re.S) if b.startswith(start)]
    return str(found[0])


def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """The guide's files and data in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("model.py").write_text(block("python"))
    Path("train.c").write_text(block("c"))
    rng = np.random.default_rng(1)
    y = rng.integers(0, 10, 320)
    x = (rng.random((10, 64))[y] + 0.3 * rng.random((320, 64))).astype("float32")
    x.tofile("x.bin")
    y.astype("int64").tofile("y.bin")
    return x, y


@needs_cc
@pytest.mark.parametrize("fixed", [False, True])
def test_the_guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fixed: bool) -> None:
    x, y = begun(tmp_path, monkeypatch)
    command = block("sh", "tcc compile")
    if fixed:
        command = command.replace("x=n,64 --shape y=n", "x=32,64 --shape y=32")
    assert run(shlex.split(command.replace("\\\n", ""))[1:]) == 0
    assert f"predict: output_0 [{32 if fixed else 3}, 10]" in shell(block("sh", "cc build/digits_example.c"))
    said = shell(block("sh", "cc -std=c11"))
    losses = [float.fromhex(line) for line in said.split()]
    space: dict[str, Any] = {}
    exec(compile(Path("model.py").read_text(), "model.py", "exec"), space)
    step = space["step"]
    if not fixed:  # code for sizes that vary, as the library has it
        start = [p.get_value() for p in space["parameters"]]
        for n in (32, 7):
            step(x[:n], y[:n])
        for p, value in zip(space["parameters"], start):
            p.set_value(value)
    wanted = [float(step(x[i : i + 32], y[i : i + 32])) for _ in range(5) for i in range(0, 320, 32)]
    assert losses == wanted and losses[-1] < losses[0] / 3
    trained = [p.get_value() for p in space["parameters"]]
    tcc.load_weights("trained.safetensors", space["parameters"])
    for value, p in zip(trained, space["parameters"]):
        np.testing.assert_array_equal(value, p.get_value())


@needs_cc
def test_valgrind_finds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In code for AVX2, as valgrind knows no AVX-512; 3.19 lacks one of its instructions, `vmovq` between registers."""
    if shutil.which("valgrind") is None or not host().triple.startswith("x86_64"):
        pytest.skip("there is no valgrind")
    version = re.findall(
        r"\d+", subprocess.run(["valgrind", "--version"], capture_output=True, text=True).stdout
    )
    if tuple(map(int, version[:2])) < (3, 24):
        pytest.skip(f"valgrind {'.'.join(version)} does not know all of AVX2")
    begun(tmp_path, monkeypatch)
    command = block("sh", "tcc compile").replace("\\\n", "") + " --mcpu x86-64-v3"
    assert run(shlex.split(command)[1:]) == 0
    shell(block("sh", "cc build/digits_example.c").replace("&& ./example", ""))
    want = shell(block("sh", "cc -std=c11"))
    for program in ("train", "example"):
        found = ["valgrind", "--error-exitcode=9", "--leak-check=full", f"./{program}"]
        done = subprocess.run(found, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert program != "train" or done.stdout == want


def shell(line: str) -> str:
    return subprocess.run(["sh", "-ec", line], check=True, capture_output=True, text=True).stdout
