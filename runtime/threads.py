"""The number of threads, and the memory of the one thread pool; codegen/pool.py holds the code."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Sequence

from tcc.ir import knobs
from tcc.runtime import layout as at
from tcc.runtime.machine import allowed_cpus, usable_cpus

SPIN_NS = 100_000


def thread_count() -> int:
    """How many threads a call may use: TCC_THREADS, else as many as there are CPUs to use."""
    return knobs.THREADS.get() or min(usable_cpus(), knobs.MAX_THREADS)


class Pool:
    """The pool's memory at `address`.  It is never unmapped: idle workers look at it until the process ends.

    The workers start at the first parallel job, and again in a forked child.
    """

    def __init__(self, threads: int, cpus: Sequence[int] | None = None) -> None:
        self.threads = self._limit = threads
        self.address = _pages(at.POOL_BYTES)
        self._words = (ctypes.c_int64 * (at.POOL_BYTES // 8)).from_address(self.address)
        self.reset(cpus)
        os.register_at_fork(after_in_child=self.reset)

    @property
    def limit(self) -> int:
        """How many threads calls that begin from now on use, at most `threads`."""
        return self._limit

    @limit.setter
    def limit(self, count: int) -> None:
        if not 1 <= count <= self.threads:
            raise ValueError(f"the pool has {self.threads} threads, so a call cannot use {count}")
        self._limit = count
        self._words[at.POOL_LIMIT] = count

    def reset(self, cpus: Sequence[int] | None = None) -> None:
        """As before the first job.  Only for a process that has none of the pool's workers."""
        cpus = allowed_cpus() if cpus is None else list(cpus)
        words = self._words
        ctypes.memset(self.address, 0, at.POOL_BYTES)
        words[at.POOL_THREADS] = self.threads
        words[at.POOL_LIMIT] = self._limit
        words[at.POOL_HOME] = cpus[0]
        words[at.POOL_STRICT] = _pinning(self.threads, cpus)
        words[at.POOL_SPIN_NS] = SPIN_NS if self.threads <= len(cpus) else 0
        for cpu in cpus:
            if cpu < 64 * at.POOL_MASK_SLOTS:
                words[at.POOL_MASK + cpu // 64] |= ctypes.c_int64(1 << cpu % 64).value
        for worker in range(1, self.threads):
            place = at.POOL_WORKERS + worker * at.WORKER_SLOTS
            words[place + at.WORKER_CPU] = cpus[worker % len(cpus)]


def _pinning(threads: int, cpus: Sequence[int]) -> int:
    """POOL_STRICT: a caller and a worker that share a CPU run at a tenth of the speed.

    With fewer threads than CPUs the system's balancer may choose, as long as it leaves the caller's CPU alone; with more,
    nothing is gained by pinning.
    """
    if threads > len(cpus) or max(cpus) >= 64 * at.POOL_MASK_SLOTS:
        return -1
    return int(threads == len(cpus))


def _pages(size: int) -> int:
    """The address of fresh zeroed pages that stay for ever."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    address = libc.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
    if address in (None, ctypes.c_void_p(-1).value):
        raise MemoryError(f"no memory for the thread pool ({size} bytes)")
    return int(address)


_shared: list[Pool] = []


def pool() -> Pool:
    """The process's pool, made at the first use; its size is then fixed."""
    if not _shared:
        _shared.append(Pool(thread_count()))
    return _shared[0]
