"""The frontend's tests where functions run on a device: those that tell most for their time.  All of them are run by
`TCC_FLAGS=device=emulator python -m pytest tests/frontend`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from emulated import only_emulated

FRONTEND = Path(__file__).parent.parent / "frontend"
# Of modules whose tests run as FAST_RUN too, that alone: as FAST_COMPILE functions are interpreted, wherever they run.
GROUPS = [
    "function updates inputs ifelse config modes messages unshared debug",
    "scan scan_counts checkpoints random raw_random user_op",
    pytest.param("indexing broadcast numbers bfloat16 table_rop special onehot", marks=pytest.mark.long),
    pytest.param("loading profiling typed_list fft graphop separable weights", marks=pytest.mark.long),
]
INTERPRETED = "config modes unshared scan_counts raw_random numbers bfloat16 table_rop loading profiling separable weights"


@only_emulated
@pytest.mark.parametrize("group", GROUPS, ids=lambda g: g.split()[0])
def test_frontend_on_a_device(group: str) -> None:
    files = [str(FRONTEND / f"test_{name}.py") for name in group.split()]
    chosen = " or ".join(["FAST_RUN", *(f"test_{name}.py" for name in INTERPRETED.split())])
    words = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow", "-k", chosen, *files]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        env=os.environ | {"TCC_FLAGS": "device=emulator"},
        capture_output=True,
        text=True,
        cwd=FRONTEND.parent.parent,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
