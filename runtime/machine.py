"""What this process may use of the machine: CPUs and memory, as affinity, cgroups and limits leave them."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def require_linux() -> None:
    """RuntimeError on other systems: futexes, sched_getaffinity and the ELF loader are Linux's."""
    if sys.platform != "linux" or sys.maxsize < 2**32:
        raise RuntimeError(f"tcc compiles and runs code on 64-bit Linux, not on {sys.platform}")


def allowed_cpus() -> list[int]:
    """The CPUs of the process's affinity mask, ascending."""
    return sorted(os.sched_getaffinity(0))


def usable_cpus() -> int:
    """How many CPUs' worth of time the process may take: its affinity mask, cut to the cgroup's quota."""
    quota = cgroup_cpus()
    count = len(allowed_cpus())
    return count if quota is None else max(1, min(count, round(quota)))


def cgroup_cpus(root: Path = CGROUP, membership: Path = Path("/proc/self/cgroup")) -> float | None:
    """The tightest CPU quota from the process's cgroup up to the root, in CPUs; None without one."""
    found = [_quota_v2(folder) for folder in _folders(root, membership, "")]
    found += [_quota_v1(folder) for folder in _folders(root / "cpu", membership, "cpu")]
    limits = [limit for limit in found if limit is not None]
    return min(limits) if limits else None


def cgroup_memory(root: Path = CGROUP, membership: Path = Path("/proc/self/cgroup")) -> int | None:
    """Bytes that the process's cgroups leave free; None without a limit."""
    found = [_left(f, "memory.max", "memory.current") for f in _folders(root, membership, "")]
    found += [
        _left(f, "memory.limit_in_bytes", "memory.usage_in_bytes")
        for f in _folders(root / "memory", membership, "memory")
    ]
    limits = [limit for limit in found if limit is not None]
    return min(limits) if limits else None


def available_memory() -> int:
    """Bytes that can be had now: the system's estimate, within the cgroup's limit and RLIMIT_AS."""
    found = [_meminfo("MemAvailable")]
    cgroup = cgroup_memory()
    if cgroup is not None:
        found.append(cgroup)
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        pages = int(_read(Path("/proc/self/statm")).split()[0])
        found.append(max(0, soft - pages * resource.getpagesize()))
    return min(found)


def _folders(root: Path, membership: Path, controller: str) -> list[Path]:
    """The process's cgroup in the hierarchy of `controller` ("" is version 2), and its parents up to `root`."""
    for line in _read(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        if controller not in controllers.split(",") or not root.is_dir():
            continue
        folder = root / path.lstrip("/")
        inside = [folder, *folder.parents]
        return [f for f in inside if f == root or root in f.parents]
    return []


def _quota_v2(folder: Path) -> float | None:
    words = _read(folder / "cpu.max").split()
    if len(words) != 2 or words[0] == "max":
        return None
    return int(words[0]) / int(words[1])


def _quota_v1(folder: Path) -> float | None:
    quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
    if not quota or not period or int(quota) < 0:
        return None
    return int(quota) / int(period)


def _left(folder: Path, limit: str, used: str) -> int | None:
    most, now = _read(folder / limit), _read(folder / used)
    if not most or not now or most == "max" or int(most) > 1 << 60:
        return None
    return max(0, int(most) - int(now))


def _meminfo(key: str) -> int:
    for line in _read(Path("/proc/meminfo")).splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    return sys.maxsize


def _read(path: Path) -> str:
    """ "" where the file is not there or not ours to read: no such limit."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
