"""`tcc doctor`: what this machine and this installation are, as text to paste into a report."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

from tcc.ir import knobs
from tcc.runtime import cache, machine
from tcc.runtime.cuda import driver
from tcc.runtime.devices import DeviceError
from tcc.tools.describe import columns, knobs_table
from tcc.tools.toolchain import linkers

SHOWN_FEATURES = (
    "sse4.2",
    "avx",
    "avx2",
    "fma",
    "avx512f",
    "avx512dq",
    "avx512bw",
    "avx512vl",
    "avx512vnni",
    "avx512bf16",
    "amx-int8",
    "amx-bf16",
    "neon",
    "sve",
)


def report() -> tuple[str, list[str]]:
    """The text, and the problems that were found."""
    problems: list[str] = []
    rows = [
        *versions(),
        *processor(problems),
        *accelerator(problems),
        ("linker", ", ".join(linkers()) or "none; needed for nothing but shared libraries"),
        *cache_rows(problems),
    ]
    worked = trial(problems)
    rows.append(("compiles and runs", f"{worked} ({sys.executable})" if worked == "yes" else worked))
    return f"{columns(rows)}\n\nsettings\n{knobs_table()}", problems


def versions() -> list[tuple[str, str]]:
    names = ("tcc", "numpy", "llvmlite", "scipy", "pycuda", "click")
    rows = [
        ("python", f"{platform.python_version()} ({platform.python_implementation()}, {platform.platform()})")
    ]
    for name in names:
        try:
            rows.append((name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            rows.append((name, "not installed"))
    return rows


def processor(problems: list[str]) -> list[tuple[str, str]]:
    try:
        machine.require_linux()
    except RuntimeError as e:
        problems.append(str(e))
        return [("platform", str(e))]
    import llvmlite.binding as llvm

    from tcc.codegen.target import chosen

    features = llvm.get_host_cpu_features()
    target = chosen()
    return [
        ("llvm", ".".join(map(str, llvm.llvm_version_info))),
        ("cpu", f"{target.cpu} ({target.triple})"),
        ("features", " ".join(f for f in SHOWN_FEATURES if features.get(f))),
        (
            "vectors",
            f"{target.vector_bits} bits, {'with' if target.avx512 else 'without'} AVX-512 intrinsics",
        ),
        ("caches", f"L1 {target.l1_bytes >> 10} KiB, L2 {target.l2_bytes >> 10} KiB"),
        ("cpus", f"{machine.usable_cpus()} to use, {os.cpu_count()} in the machine"),
        ("threads a call", str(_or_error(problems))),
        ("memory", f"{machine.available_memory() / 2**30:.1f} GiB to be had"),
    ]


def _or_error(problems: list[str]) -> int | str:
    from tcc.runtime.threads import thread_count

    try:
        return thread_count()
    except ValueError as e:
        problems.append(str(e))
        return str(e)


def accelerator(problems: list[str]) -> list[tuple[str, str]]:
    """Driver, devices, whether they work, and what assembles for them.  A machine without a GPU is no problem."""
    found = driver.look()
    rows = [("gpu driver", f"CUDA {driver.spelt(found.driver)}")] if found.driver else []
    names = [(f"cuda{number}", name) for number, name in enumerate(found.devices)]
    try:
        driver.load()
    except DeviceError as e:
        rows += [*names, ("gpu", str(e))]
    else:
        rows += [(device, f"{name}; compiles and runs: {trial(problems, device)}") for device, name in names]
    tools = [shutil.which(name) for name in ("ptxas", "nvcc")]
    rows.append(("cuda toolkit", ", ".join(filter(None, tools)) or "none; needed for nothing but CUDA C"))
    return rows


def cache_rows(problems: list[str]) -> list[tuple[str, str]]:
    try:
        stats = cache.open_default().stats()
    except knobs.KnobError as e:
        problems.append(str(e))
        return [("cache", str(e))]
    if stats.folder is None:
        return [("cache", "off")]
    size = f"{stats.entries} entries, {stats.bytes / 2**20:.1f} of {stats.limit >> 20} MB"
    if not _writable(stats.folder):
        problems.append(f"the cache folder {stats.folder} cannot be written")
    return [("cache", f"{stats.folder}: {size}")]


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def trial(problems: list[str], device: str = "cpu") -> str:
    """Compiles x + 1, and looks at what it gives: yes, no, or why a device cannot be used."""
    try:
        from tcc import compiling, tensor

        x = tensor.vector("x", dtype="float32")
        got = compiling.function([x], x + 1, name="doctor", device=device)(np.array([1, 2, 3], np.float32))
    except DeviceError as e:
        return f"no; {e}"
    except Exception as e:
        problems.append(f"compiling fails: {type(e).__name__}: {e}")
        return "no"
    if not np.array_equal(got, [2, 3, 4]):
        problems.append(f"x + 1 of [1, 2, 3] gave {got} on {device}")
        return "no"
    return "yes"
