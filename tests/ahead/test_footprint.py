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

import tcc
import tcc.tensor as T
from tcc.ahead import library, with_shapes
from tcc.codegen.aot import library as aot
from tcc.codegen.target import cross, host
from tcc.exporting import exported
from tcc.runtime import library as loader
from tcc.tensor.signal.pool import pool_2d
from tcc.tools.building import NoLinker, shared_library


def weights(*shape: int) -> Any:
    return tcc.shared(np.full(shape, 0.01, "float32"), "w")


def mlp() -> Any:
    x = T.fmatrix("x")
    return tcc.function(
        [x], T.nnet.softmax(T.tanh(x.dot(weights(784, 500)) + weights(500)).dot(weights(500, 10)))
    )


def lenet() -> Any:
    x = T.ftensor4("x")
    h = x
    for maps, channels in ((20, 1), (50, 20)):
        shape = (maps, channels, 5, 5)
        h = pool_2d(T.nnet.conv2d(h, weights(*shape), filter_shape=shape), (2, 2), ignore_border=True)
        h = T.tanh(h + weights(maps).dimshuffle("x", 0, "x", "x"))
    return tcc.function(
        [x], T.nnet.softmax(T.tanh(h.flatten(2).dot(weights(800, 500))).dot(weights(500, 10)))
    )


def lstm() -> Any:
    x, W, U, b = T.ftensor3("x"), weights(128, 1024), weights(256, 1024), weights(1024)

    def step(x: Any, h: Any, c: Any) -> Any:
        z = x.dot(W) + h.dot(U) + b
        i, f, g, o = (z[:, k : k + 256] for k in range(0, 1024, 256))
        c = T.nnet.sigmoid(f) * c + T.nnet.sigmoid(i) * T.tanh(g)
        return T.nnet.sigmoid(o) * T.tanh(c), c

    zeros = T.zeros((x.shape[1], 256), dtype="float32")
    (hs, _), _ = tcc.scan(step, sequences=x, outputs_info=[zeros, zeros])
    return tcc.function([x], T.nnet.softmax(hs[-1].dot(weights(256, 10))))


def cbow() -> Any:
    x = T.lmatrix("x")
    return tcc.function([x], T.nnet.softmax(weights(10000, 128)[x].mean(axis=1).dot(weights(128, 10000))))


MODELS: dict[str, tuple[Callable[[], Any], tuple[int | str, ...], int]] = {
    "mlp": (mlp, ("n", 784), 20),
    "lenet": (lenet, ("n", 1, 28, 28), 64),
    "lstm": (lstm, ("t", "n", 128), 64),
    "cbow": (cbow, ("n", 8), 20),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("level", ["x86-64-v3", "x86-64-v4"])
def test_a_library_is_small_and_needs_libc_and_libm(tmp_path: Path, name: str, level: str) -> None:
    if not host().triple.startswith("x86_64") or shutil.which("readelf") is None:
        pytest.skip("levels of x86, and their linker's tools")
    make, shape, limit = MODELS[name]
    target = cross("x86_64-linux-gnu", level)
    model = with_shapes(exported({"predict": make()}, name), {"x": shape})
    try:
        code = shared_library(aot.library_object(library(model, target, embed=False)), target)
    except NoLinker as e:
        pytest.skip(str(e))
    assert len(code) <= limit * 1024
    (tmp_path / "m.so").write_bytes(code)
    said = subprocess.run(["readelf", "-d", tmp_path / "m.so"], capture_output=True, text=True, check=True)
    needed = {line.split("[")[1].split("]")[0] for line in said.stdout.splitlines() if "NEEDED" in line}
    assert needed <= {"libc.so.6", "libm.so.6"}


def test_the_first_result_comes_at_once(build: Callable[..., Any], tmp_path: Path) -> None:
    """In a fraction of a millisecond, where nothing else runs."""
    build({"predict": mlp()}, {"x": ("n", 784)})
    (made,) = tmp_path.glob("*.so")
    x, spans = np.ones((1, 784), "float32"), []
    for k in range(5):
        shutil.copy(made, tmp_path / f"{k}.so")  # which is not loaded yet
        begin = time.perf_counter()
        loader.load(tmp_path / f"{k}.so", name="m")(x)
        spans.append(time.perf_counter() - begin)
    assert min(spans) < 5e-3, spans
    assert os.path.getsize(made) < 1.7e6  # the weights are in it once
