"""Wrong calls from C: each is refused in words, and nothing outside of what it was given is touched."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from classifier import SHAPES, mlp

from tcc.codegen import target


@pytest.mark.parametrize("level", ["host", "x86-64-v3", "x86-64-v2"])
def test_a_thousand_wrong_calls(build: Callable[..., Any], level: str, tmp_path: Any) -> None:
    if level != "host" and not target.host().triple.startswith("x86_64"):
        pytest.skip("a level of x86")
    machine = target.host() if level == "host" else target.level(level)
    predict, step, _ = mlp()
    build({"predict": predict, "step": step}, SHAPES, target=machine)
    library = str(next(tmp_path.glob("*.so")))
    command = [sys.executable, "-m", "tcc.tools.callfuzz", library, "m", "--calls", "1000"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "status 0: 100 calls\n" in done.stdout and done.stdout.count("\n") > 9
