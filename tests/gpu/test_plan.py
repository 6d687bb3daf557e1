"""What `tcc dump --target cuda` shows of a function."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from emulated import assembled

from tcc.codegen.gpu import kernel
from tcc.runtime import cache
from tcc.tools.cli import cli

MODEL = """
import numpy as np, tcc, tcc.tensor as T
x = T.matrix("x", dtype="float64")
w = tcc.shared(np.eye(3), "w")
f = tcc.function([x], [T.nlinalg.matrix_inverse(x) + w, x[(x[:, 0] > 0).nonzero()]], updates=[(w, w + x)])
h = T.dvector("h")
steps, _ = tcc.scan(lambda h: h * 2, outputs_info=h, n_steps=5)
g = tcc.function([h], steps[-1])
"""


def dump(tmp_path: Path, *more: str) -> str:
    model = tmp_path / "model.py"
    model.write_text(MODEL)
    done = CliRunner().invoke(cli, ["dump", f"{model}:f", "--target", "cuda", *more])
    return done.output


def test_the_plan_shows_kernels_and_copies(tmp_path: Path) -> None:
    lines = dump(tmp_path, "--stage", "plan").splitlines()
    text = "\n".join(lines)
    assert "launched step by step" in lines[0]
    host = next(i for i, line in enumerate(lines) if line.startswith("on host    matrix_inverse"))
    assert lines[host - 1] == "to host    f64[3,3] x (8 * 3 * 3 bytes)"
    assert lines[host + 1].startswith("to device  f64[3,3] #")
    assert "to device  f64[3,3] x" in lines and "on device  f64[3,3] w, which is written" in lines
    assert "to host    the size" in text and "to host    f64[3,3] output 0" in lines
    assert any(line.startswith("launch     tcc_gather") for line in lines)


def test_ptx_is_for_the_architecture(tmp_path: Path) -> None:
    assert ".target sm_80" in dump(tmp_path, "--stage", "ptx", "--gpu-arch", "sm_80")
    assert "no code is made for 'sm_1'" in dump(tmp_path, "--gpu-arch", "sm_1")
    assert "--target cuda has no asm" in dump(tmp_path, "--stage", "asm")


@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_90a"])
def test_the_ptx_of_all_kernels_is_one_file_for_ptxas(tmp_path: Path, arch: str) -> None:
    text = dump(tmp_path, "--stage", "ptx", "--gpu-arch", arch)
    assert text.count(".version") == 1 and text.count(".visible .entry") > 5
    assert "error" not in assembled(text, arch)


def test_ptx_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_default", [cache.Cache(tmp_path / "cache")])
    first = dump(tmp_path, "--stage", "ptx")
    monkeypatch.setattr(kernel, "_assembled", lambda text, chip: pytest.fail("assembled again"))
    assert dump(tmp_path, "--stage", "ptx") == first and ".entry" in first
