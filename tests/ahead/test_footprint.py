"""How much a library brings along: bytes, other libraries, and time until its first result."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.libraries.models import SHAPES, function
from tcc.ahead import library, with_shapes
from tcc.codegen.aot import library as aot
from tcc.codegen.target import cross, host
from tcc.exporting import exported
from tcc.runtime import library as loader
from tcc.tools.building import NoLinker, shared_library

LIMITS = {"mlp": 20, "lenet": 64, "lstm": 64, "cbow": 20}  # KiB


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("level", ["x86-64-v3", "x86-64-v4"])
def test_a_library_is_small_and_needs_libc_and_libm(tmp_path: Path, name: str, level: str) -> None:
    if not host().triple.startswith("x86_64") or shutil.which("readelf") is None:
        pytest.skip("levels of x86, and their linker's tools")
    target = cross("x86_64-linux-gnu", level)
    model = with_shapes(exported({"predict": function(name)}, name), {"x": SHAPES[name]})
    try:
        code = shared_library(aot.library_object(library(model, target, embed=False)), target)
    except NoLinker as e:
        pytest.skip(str(e))
    assert len(code) <= LIMITS[name] * 1024
    (tmp_path / "m.so").write_bytes(code)
    said = subprocess.run(["readelf", "-d", tmp_path / "m.so"], capture_output=True, text=True, check=True)
    needed = {line.split("[")[1].split("]")[0] for line in said.stdout.splitlines() if "NEEDED" in line}
    assert needed <= {"libc.so.6", "libm.so.6"}


def test_the_first_result_comes_at_once(build: Callable[..., Any], tmp_path: Path) -> None:
    """In a fraction of a millisecond, where nothing else runs."""
    build({"predict": function("mlp")}, {"x": SHAPES["mlp"]})
    (made,) = tmp_path.glob("*.so")
    x, spans = np.ones((1, 784), "float32"), []
    for k in range(5):
        shutil.copy(made, tmp_path / f"{k}.so")  # which is not loaded yet
        begin = time.perf_counter()
        loader.load(tmp_path / f"{k}.so", name="m")(x)
        spans.append(time.perf_counter() - begin)
    assert min(spans) < 5e-3, spans
    assert os.path.getsize(made) < 1.7e6  # the weights are in it once
