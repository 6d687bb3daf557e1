"""The stand-in driver: built once a session, and programs that run in a process which finds it as libcuda.so.1."""

from __future__ import annotations

import atexit
import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@functools.cache
def folder() -> Path:
    """Where the library lies; skips the test if it cannot be built."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    made = Path(tempfile.mkdtemp(prefix="standin-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    source = (HERE / "standin.c").read_text()
    missing = sorted(wanted() - set(re.findall(r"^int (cu\w+)\(", source, re.M)))
    rest = "".join(
        f'int {name}(void) {{ fprintf(stderr, "stand-in: no {name}\\n"); return 801; }}\n' for name in missing
    )
    (made / "all.c").write_text(source + rest)
    options = ["-shared", "-fPIC", "-w", "-O1", "-Wl,-soname,libcuda.so.1"]
    library, text = str(made / "libcuda.so.1"), str(made / "all.c")
    subprocess.run([compiler, *options, "-o", library, text], check=True)
    return made


def wanted() -> set[str]:
    """What pycuda's extension takes from the driver."""
    found = importlib.util.find_spec("pycuda")
    if found is None or not found.submodule_search_locations:
        return set()
    (extension,) = Path(found.submodule_search_locations[0]).glob("_driver*.so")
    symbols = subprocess.run(["nm", "-D", "--undefined-only", str(extension)], capture_output=True, text=True)
    return set(re.findall(r"\bU (cu[A-Z]\w*)", symbols.stdout))


def run(program: str, library: bool = True, pycuda: bool = True, **environment: str) -> str:
    """What a program prints whose libcuda is the stand-in; with its errors, if it fails.  Skips the test without `pycuda`, if the
    program needs it."""
    if library and pycuda and importlib.util.find_spec("pycuda") is None:
        pytest.skip("pycuda is not installed")
    paths = {"PYTHONPATH": str(HERE)}
    if library:
        paths["LD_LIBRARY_PATH"] = str(folder())
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **paths, **environment},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()
