"""docs/other-machines.md: its programs in other languages, run where these are installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cross import require

from tcc.codegen.target import KNOWN
from tcc.tools.cli import run

GUIDE = (Path(__file__).parents[2] / "docs/other-machines.md").read_text()
MODEL = """
import numpy as np
import tcc
import tcc.tensor as T

x, y = T.matrix("x", dtype="float32"), T.lvector("y")
w = tcc.shared(np.random.default_rng(0).normal(size=(5, 3)).astype("float32"), "w")
p = T.nnet.softmax(T.dot(x, w))
loss = T.nnet.categorical_crossentropy(p, y).sum()
predict = tcc.function([x], p)
step = tcc.function([x, y], loss, updates=[(w, w - np.float32(0.1) * tcc.grad(loss, w))])
"""


def code(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", GUIDE, re.S)
    return str(found)


@pytest.mark.slow
@pytest.mark.parametrize("language", ["js", "rust", "go"])
def test_the_programs_print_what_the_model_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language: str
) -> None:
    tool, file = {"js": ("node", "main.mjs"), "rust": ("rustc", "main.rs"), "go": ("go", "main.go")}[language]
    if shutil.which(tool) is None or (language != "js" and shutil.which("cc") is None):
        pytest.skip(f"no {tool}, or no linker for a library")
    if language == "js":
        require(KNOWN[-1])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("model.py").write_text(MODEL)
    Path(file).write_text(code(language))
    words = [
        "model.py",
        "--entry",
        "predict=predict",
        "--entry",
        "step=step",
        "--name",
        "mlp",
        "-o",
        "build/",
    ]
    machine = ["--mtriple", "wasm32-unknown-unknown"] if language == "js" else []
    assert run(["compile", *words, *machine, "--emit", "shared,header"]) == 0
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": "build",
        "GO111MODULE": "off",
        "GOCACHE": str(tmp_path / "go"),
    }
    if language == "rust":
        subprocess.run(["rustc", "-O", file, "-L", "build"], check=True)
    command = {"js": ["node", file], "rust": ["./main"], "go": ["go", "run", file]}[language]
    said = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    space: dict[str, object] = {}
    exec(compile(MODEL, "model.py", "exec"), space)
    x = (np.arange(10, dtype="float32") / 10).astype("float32").reshape(2, 5)
    want = space["predict"](x)  # type: ignore[operator]
    np.testing.assert_allclose([float(v) for v in said.split()], want.ravel(), atol=6e-5)
