"""What the process may use, and what importing the runtime costs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tcc.runtime import machine


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_tightest_quota_counts(tmp_path: Path) -> None:
    root, me = tmp_path / "cgroup", tmp_path / "self"
    write(me, "0::/a/b\n")
    write(root / "cpu.max", "max 100000\n")
    write(root / "a/cpu.max", "150000 100000\n")
    write(root / "a/b/cpu.max", "400000 100000\n")
    assert machine.cgroup_cpus(root, me) == 1.5
    write(root / "a/cpu.max", "max 100000\n")
    assert machine.cgroup_cpus(root, me) == 4


def test_version_1_quotas(tmp_path: Path) -> None:
    root, me = tmp_path / "cgroup", tmp_path / "self"
    write(me, "4:cpu,cpuacct:/x\n3:memory:/x\n")
    write(root / "cpu/x/cpu.cfs_quota_us", "50000")
    write(root / "cpu/x/cpu.cfs_period_us", "100000")
    write(root / "memory/x/memory.limit_in_bytes", "1000")
    write(root / "memory/x/memory.usage_in_bytes", "400")
    assert machine.cgroup_cpus(root, me) == 0.5
    assert machine.cgroup_memory(root, me) == 600


def test_memory_that_a_cgroup_leaves(tmp_path: Path) -> None:
    root, me = tmp_path / "cgroup", tmp_path / "self"
    write(me, "0::/a\n")
    write(root / "a/memory.max", "5000")
    write(root / "a/memory.current", "6000")
    assert machine.cgroup_memory(root, me) == 0
    write(root / "a/memory.max", "max")
    assert machine.cgroup_memory(root, me) is None


def test_no_cgroup_is_no_limit(tmp_path: Path) -> None:
    assert machine.cgroup_cpus(tmp_path / "none", tmp_path / "none") is None


def test_affinity_counts() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from tcc.runtime.threads import thread_count; print(thread_count())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def test_available_memory_is_bounded_by_rlimit() -> None:
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (2 << 30, resource.RLIM_INFINITY))\n"
        "from tcc.runtime.machine import available_memory; print(available_memory())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout) < 2 << 30


def test_other_systems_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(RuntimeError, match="64-bit Linux, not on darwin"):
        machine.require_linux()


def test_the_runtime_needs_no_compiler() -> None:
    folder = Path(machine.__file__).parent
    names = [f"tcc.runtime.{f.stem}" for f in sorted(folder.glob("*.py")) if f.stem != "__init__"]
    assert "tcc.runtime.callable" in names
    code = f"import sys, {', '.join(names)}; print([m for m in sys.modules if m.startswith(('llvmlite', 'tcc.codegen'))])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ}
    )
    assert done.stdout == "[]\n"
