"""Compiling needs no program but the interpreter that runs it, and no network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

GUARD = """
import sys

STARTS = ("subprocess.Popen", "os.fork", "os.forkpty", "os.exec", "os.posix_spawn", "os.spawn", "os.system", "pty.spawn")

def refuse(event, args):
    if event in STARTS or event.startswith("socket."):
        raise AssertionError(f"{event} {args}")

sys.addaudithook(refuse)
"""

COMPILE = """
import numpy as np
import tcc, tcc.tensor as T

x, y = T.fmatrix("x"), T.ivector("y")
w = tcc.shared(np.full((3, 4), 0.5, "f4"), "w")
cost = -T.mean(T.log(T.nnet.softmax(T.dot(T.tanh(x), w)))[T.arange(y.shape[0]), y])
step = tcc.function([x, y], cost, updates=[(w, w - np.float32(0.1) * tcc.grad(cost, w))])
print(round(float(step(np.ones((5, 3), "f4"), np.zeros(5, "i4"))), 4))
"""


def guarded(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs `program` where starting a process or opening a socket raises, and no program can be found."""
    nowhere = {"PATH": str(folder), "TCC_CACHE_DIR": str(folder / "cache"), "HOME": str(folder)}
    return subprocess.run(
        [sys.executable, "-c", GUARD + program], cwd="/", env=nowhere, capture_output=True, text=True
    )


def test_compiling_starts_no_process(tmp_path: Path) -> None:
    done = guarded(COMPILE, tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, "1.3863"), done.stderr


def test_the_guard_sees_a_process(tmp_path: Path) -> None:
    for program in ("import os; os.system(':')", "import subprocess; subprocess.run([':'])"):
        done = guarded(program, tmp_path)
        assert done.returncode != 0 and "AssertionError" in done.stderr
    assert os.listdir(tmp_path) == []
