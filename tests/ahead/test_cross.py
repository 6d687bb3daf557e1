"""Models for other machines, through their C interface: under qemu-user, and for wasm32 through the JavaScript loader."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cross import require

import tcc
import tcc.tensor as T
from tcc.ahead import library
from tcc.codegen.aot import library as aot
from tcc.codegen.target import KNOWN, Target, cross, host
from tcc.exporting import Model, exported
from tcc.runtime.library import load
from tcc.tools import building
from tcc.tools.building import NoLinker, executable, shared_library
from tcc.tools.cli import run
from tcc.tools.jsfiles import LOADER

F = np.float32
STEPS = 3

PROGRAM = r"""
#include <stdint.h>
#include <stdio.h>
typedef struct {
  void *data; int32_t device, id, ndim; uint8_t code, bits; uint16_t lanes;
  int64_t *shape, *strides; uint64_t offset;
} DLTensor;
void *mlp_create(const void *);
void mlp_destroy(void *);
int mlp_predict_run(void *, DLTensor **, DLTensor **, void *);
int mlp_step_run(void *, DLTensor **, DLTensor **, void *);
const char *mlp_last_error(void);
int main(void) {
  float x[] = {@X@}, out[ROWS * 3], loss;
  int64_t y[] = {@Y@}, nx[] = {ROWS, 5}, ny[] = {ROWS}, no[] = {ROWS, 3}, bad[] = {ROWS, 4};
  DLTensor tx = {x, 1, 0, 2, 2, 32, 1, nx, 0, 0}, ty = {y, 1, 0, 1, 0, 64, 1, ny, 0, 0};
  DLTensor to = {out, 1, 0, 2, 2, 32, 1, no, 0, 0}, tl = {&loss, 1, 0, 0, 2, 32, 1, 0, 0, 0};
  DLTensor *in[] = {&tx, &ty}, *results[] = {&to}, *losses[] = {&tl};
  void *m = mlp_create(0);
  if (!m) return puts(mlp_last_error()), 1;
  printf("{\"losses\": [");
  for (int k = 0; k < STEPS; k++) {
    if (mlp_step_run(m, in, losses, 0)) return puts(mlp_last_error()), 2;
    printf("%s%.9g", k ? ", " : "", loss);
  }
  if (mlp_predict_run(m, in, results, 0)) return puts(mlp_last_error()), 3;
  printf("], \"output\": [");
  for (int k = 0; k < ROWS * 3; k++) printf("%s%.9g", k ? ", " : "", out[k]);
  tx.shape = bad;
  mlp_predict_run(m, in, results, 0);
  printf("], \"error\": \"%s\"}", mlp_last_error());
  mlp_destroy(m);
}
"""
SCRIPT = """
import { readFileSync } from "node:fs";
import { load } from "./mlp.mjs";
const m = await load(readFileSync("mlp.wasm")), losses = [];
const x = { shape: [ROWS, 5], data: Float32Array.from([@X@]) };
const y = { shape: [ROWS], data: BigInt64Array.from([@Y@].map(BigInt)) };
for (let k = 0; k < STEPS; k++) losses.push(m.run("step", { x, y }).output_0.data[0]);
const output = [...m.run("predict", { x }).output_0.data];
let error;
try {
  m.run("predict", { x: { shape: [ROWS, 4], data: x.data.slice(0, ROWS * 4) } });
} catch (e) {
  error = e.message;
}
console.log(JSON.stringify({ losses, output, error }));
"""


def functions() -> dict[str, Any]:
    x, y = T.matrix("x", dtype="float32"), T.lvector("y")
    w = tcc.shared(np.random.default_rng(0).normal(size=(5, 3)).astype(F), "w")
    b = tcc.shared(np.zeros(3, F), "b")
    p = T.nnet.softmax(T.dot(x, w) + b)
    loss = T.nnet.categorical_crossentropy(p, y).sum()
    steps = [(v, v - F(0.1) * tcc.grad(loss, v)) for v in (w, b)]
    return {"predict": tcc.function([x], p), "step": tcc.function([x, y], loss, updates=steps)}


def filled(text: str, x: Any, y: Any) -> str:
    for name, value in (("@X@", x), ("@Y@", y)):
        text = text.replace(name, ", ".join(map(repr, value.ravel().tolist())))
    return text.replace("ROWS", str(len(x))).replace("STEPS", str(STEPS))


def answers(model: Model, target: Target, x: Any, y: Any, folder: Path) -> dict[str, Any]:
    """What the program, or the script, prints."""
    code = aot.library_object(library(model, target))
    command: Sequence[str]
    if target.triple.startswith("wasm32"):
        (folder / "mlp.wasm").write_bytes(shared_library(code, target))
        (folder / "mlp.mjs").write_text(LOADER)
        (folder / "main.mjs").write_text(filled(SCRIPT, x, y))
        command = ["node", "main.mjs"]
    else:
        (folder / "main").write_bytes(executable(code, {"main.c": filled(PROGRAM, x, y)}, target))
        (folder / "main").chmod(0o755)
        arch = target.triple.split("-")[0]
        system = [
            "-L",
            f"/usr/{arch}-linux-gnu",
            *(["-cpu", "rv64,v=true,vlen=128"] if arch == "riscv64" else []),
        ]
        command = ["./main"] if arch == "x86_64" else [f"qemu-{arch}", *system, "./main"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("target", KNOWN, ids=lambda t: f"{t.triple.split('-')[0]}-{t.cpu}{t.features[-2:]}")
def test_a_model_trains_and_predicts_as_here(target: Target, tmp_path: Path) -> None:
    require(target)
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(6, 5)).astype(F), rng.integers(0, 3, 6)
    here = functions()
    model = exported(here, "mlp")  # before it is trained
    try:
        got = answers(model, target, x, y, tmp_path)
    except NoLinker as e:
        pytest.skip(str(e))
    losses = [here["step"](x, y) for _ in range(STEPS)]
    np.testing.assert_allclose(got["losses"], losses, rtol=1e-6)
    np.testing.assert_allclose(np.reshape(got["output"], (6, 3)), here["predict"](x), rtol=2e-6)
    assert got["error"] == "mlp_predict: x has size 4 in axis 1, wanted 5"


def test_a_module_for_wasm32_needs_no_tool_but_a_linker(monkeypatch: pytest.MonkeyPatch) -> None:
    target = KNOWN[-1]
    code = aot.library_object(library(exported(functions(), "mlp"), target))
    assert code[:4] == b"\0asm"
    monkeypatch.setattr(building, "zig", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(
        NoLinker, match="no linker for wasm32-unknown-unknown: a module needs wasm-ld or the pip package"
    ):
        shared_library(code, target)


@pytest.mark.parametrize("triple", ["aarch64-linux-gnu", "riscv64-linux-gnu", "wasm32-unknown-unknown"])
def test_code_for_several_threads_is_made_or_refused(triple: str) -> None:
    target, model = cross(triple), exported(functions(), "mlp")
    if triple.startswith("wasm32"):
        with pytest.raises(TypeError, match="code for wasm32-unknown-unknown runs on one thread, not on 4"):
            library(model, target, 4)
        return
    assert aot.library_object(library(model, target, 4))[:4] == b"\x7fELF"


@pytest.mark.parametrize(
    "words, code, message",
    [
        (["--threads", "4", "--emit", "obj"], 1, "runs on one thread, not on 4"),
        (
            ["--emit", "exe"],
            1,
            "there are no programs for wasm32-unknown-unknown; --emit shared makes a module",
        ),
        (
            ["--mcpu", "mpv", "--emit", "obj"],
            1,
            "'mpv' is not a recognized processor for this target; did you mean mvp?|'mpv'",
        ),
    ],
)
def test_what_wasm32_has_not_is_said(
    tmp_path: Path, words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "f.tcir").write_text(
        "func @f(%x: f32[n]) -> (f32[n]) {\n  %y = neg %x : f32[n]\n  yield %y\n}\n"
    )
    assert (
        run(
            [
                "compile",
                f"{tmp_path}/f.tcir",
                "--mtriple",
                "wasm32-unknown-unknown",
                *words,
                "-o",
                f"{tmp_path}/o/",
            ]
        )
        == code
    )
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "o").exists()


def test_a_module_comes_with_its_loader(tmp_path: Path) -> None:
    (tmp_path / "f.tcir").write_text(
        "func @f(%x: f32[n]) -> (f32[n]) {\n  %y = neg %x : f32[n]\n  yield %y\n}\n"
    )
    require(KNOWN[-1])
    words = [
        "compile",
        f"{tmp_path}/f.tcir",
        "--mtriple",
        "wasm32-unknown-unknown",
        "--emit",
        "shared,header",
    ]
    assert run([*words, "-o", f"{tmp_path}/o/"]) == 0
    assert sorted(p.name for p in (tmp_path / "o").iterdir()) == ["f.h", "f.json", "f.mjs", "f.wasm"]
    assert run([*words[:-2], "-o", f"{tmp_path}/g.wasm"]) == 0
    assert (tmp_path / "g.wasm").read_bytes() == (tmp_path / "o" / "f.wasm").read_bytes()


def test_lld_alone_links_libraries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of this machine's kind one that runs, of another's one that is made."""
    lld = shutil.which("ld.lld")
    if lld is None:
        pytest.skip("no ld.lld")
    monkeypatch.setattr(building, "zig", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: lld if name == "ld.lld" else None)
    here = functions()
    model = exported(here, "mlp")
    for target in (cross("aarch64-linux-gnu"), host()):
        code = shared_library(aot.library_object(library(model, target)), target)
        assert code[:4] == b"\x7fELF"
    (tmp_path / "libmlp.so").write_bytes(code)
    x = np.ones((2, 5), F)
    np.testing.assert_allclose(
        load(tmp_path / "libmlp.so", name="mlp").predict(x), here["predict"](x), rtol=1e-5
    )
    with pytest.raises(NoLinker, match="a program needs a C compiler"):
        executable(code, {"main.c": PROGRAM}, host())


def test_what_would_link_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "zig", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(
        NoLinker,
        match="needs aarch64-linux-gnu-gcc, ld.lld or the pip package ziglang .pip install ziglang.; the object",
    ):
        shared_library(b"", cross("aarch64-linux-gnu"))


@pytest.mark.slow
@pytest.mark.parametrize("triple", ["", "aarch64-linux-gnu", "riscv64-linux-gnu"])
def test_ziglang_links_for_every_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, triple: str
) -> None:
    if not building.zig():
        pytest.skip("the Python package ziglang is not installed")
    target = cross(triple) if triple else host()
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: which(name) if name.startswith("qemu") else None)
    code = aot.library_object(library(exported(functions(), "mlp"), target))
    assert shared_library(code, target)[:4] == b"\x7fELF"
