"""What the kernels of a function on a device cost, each timed alone, beside the bandwidth that the device's copies reach."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tcc.devices import DeviceSource
from tcc.measuring import KernelTime, bytes_of, flops_of
from tcc.runtime.buffers import Container
from tcc.runtime.callable import Parameter
from tcc.runtime.device_function import DeviceFunction
from tcc.runtime.launch import DeviceKernel, Launch

COPIED = 256 << 20  # bytes of the copy that the bandwidth is measured by: more than a GPU's caches hold
COPIES = 5


class Clocked:
    """A device whose launches are timed: the least seconds and the number, by kernel."""

    def __init__(self, device: Any) -> None:
        self.device, self.name, self.dlpack = device, device.name, device.dlpack
        self.least: dict[str, float] = {}
        self.launches: dict[str, int] = {}
        self.alloc, self.free, self.copy = device.alloc, device.free, device.copy
        self.to_device, self.to_host, self.synchronise = device.to_device, device.to_host, device.synchronise

    def __enter__(self) -> Any:
        self.device.__enter__()
        return self

    def __exit__(self, *error: Any) -> Any:
        return self.device.__exit__(*error)

    def launch(self, kernel: DeviceKernel, grid: tuple[int, int, int], arguments: Sequence[int]) -> None:
        seconds = spent(self.device, lambda: self.device.launch(kernel, grid, arguments))
        self.least[kernel.name] = min(seconds, self.least.get(kernel.name, seconds))
        self.launches[kernel.name] = self.launches.get(kernel.name, 0) + 1


def spent(device: Any, work: Callable[[], None]) -> float:
    """Seconds that a device takes for some work: by its own clock, or the host's for the emulator."""
    timed = getattr(device, "timed", None)
    if timed is not None:
        return float(timed(work))
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@functools.cache
def bandwidth(device: Any) -> float:
    """Bytes a second that a copy within the device reads and writes."""
    memory = [device.alloc(COPIED) for _ in range(2)]
    try:
        seconds = min(spent(device, lambda: device.copy(*memory, COPIED)) for _ in range(COPIES))
    finally:
        for address in memory:
            device.free(address)
    return 2 * COPIED / seconds


def profile(source: DeviceSource, args: Sequence[Any], seconds: float) -> list[KernelTime]:
    """The kernels' least times for these arguments, in the order of the program.

    The function runs again and again, on copies of its shared variables.
    """
    clock = Clocked(source.device)
    containers = {n: Container(c.get()) for n, c in source.containers.items()}
    own = DeviceSource(source.func, containers, "list", device=clock, arch=source.arch)
    inputs = [p for p in source.func.body.params if p.name not in containers]
    parameters = [Parameter(p.name or "", p.type.dtype, p.type.rank, np.asarray) for p in inputs]
    f = DeviceFunction(source.func.name, parameters, own.specialise, clock, "list")
    f(*args)
    clock.launches.clear()
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds or not count:
        f(*args)
        count += 1
    assert f.variant is not None
    program = f.variant.program
    copied = bandwidth(source.device)
    found = []
    for kernel in dict.fromkeys(s.kernel for s in program.walk() if isinstance(s, Launch)):
        op = program.ops[next(s.op for s in program.walk() if isinstance(s, Launch) and s.kernel == kernel)]
        each, calls = clock.least.get(kernel, 0.0), clock.launches.get(kernel, 0) / count
        share = bytes_of(op) / each / copied if each else 0.0
        found.append(KernelTime(op, each * calls, calls, flops_of(op), bytes_of(op), share))
    return found
