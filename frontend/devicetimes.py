"""What the kernels of a function on a device cost, each timed alone, beside what the device reaches at best: bytes that its copies
move, and multiply-adds on registers."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tcc.devices import DeviceSource
from tcc.ir.core import Op
from tcc.ir.types import HALVES
from tcc.measuring import KernelTime, bytes_of, flops_of
from tcc.runtime.buffers import Container
from tcc.runtime.callable import Parameter
from tcc.runtime.device_function import DeviceFunction
from tcc.runtime.device_program import DeviceKernel, Launch

COPIED = 256 << 20  # bytes of the copy that the bandwidth is measured by: more than a GPU's caches hold
COPIED_HERE = 8 << 20  # of the emulator's, whose memory is the host's
COPIES = 5
PEAK_BLOCKS, PEAK_ROUNDS = 2048, 1024


class Clocked:
    """A device whose launches are timed: the least seconds and the number, by kernel."""

    def __init__(self, device: Any) -> None:
        self.device, self.name, self.dlpack = device, device.name, device.dlpack
        self.multiprocessors = device.multiprocessors
        self.least: dict[str, float] = {}
        self.launches: dict[str, int] = {}
        self.alloc, self.free, self.copy = device.alloc, device.free, device.copy
        self.to_device, self.to_host, self.synchronise = device.to_device, device.to_host, device.synchronise
        self.tensor_map = device.tensor_map

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
    count = COPIED if hasattr(device, "timed") else COPIED_HERE
    memory = [device.alloc(count) for _ in range(2)]
    try:
        seconds = min(spent(device, lambda: device.copy(*memory, count)) for _ in range(COPIES))
    finally:
        for address in memory:
            device.free(address)
    return 2 * count / seconds


@functools.cache
def peak(device: Any, arch: str | None, dtype: str) -> float:
    """Operations a second, a multiply-add being two, of products of a dtype."""
    from tcc.codegen.gpu.chips import chip
    from tcc.codegen.gpu.kernel import ptx
    from tcc.codegen.gpu.peaks import peak_kernel

    own = None if arch is None else chip(arch)
    kernel, operations = peak_kernel(dtype, own is not None and own.specific)
    text = kernel.text if own is None else ptx(kernel, own)
    blocks, rounds = (1, 64) if arch is None else (PEAK_BLOCKS, PEAK_ROUNDS)
    loaded = DeviceKernel(kernel.name, text, kernel.block, len(kernel.slots), kernel.shared, "peak")
    memory = device.alloc(8 * blocks * kernel.block)
    try:
        work = [memory, rounds]
        seconds = min(
            spent(device, lambda: device.launch(loaded, (blocks, 1, 1), work)) for _ in range(COPIES)
        )
    finally:
        device.free(memory)
    return blocks * kernel.block * rounds * operations / seconds


def shares(source: DeviceSource, op: Op, seconds: float) -> tuple[float, float]:
    """Of the device's multiply-adds and of its copies' bandwidth, that one run of an op's kernel reaches."""
    if not seconds:
        return 0.0, 0.0
    products = flops_of(op)
    fma = products / seconds / peak(source.device, source.arch, _multiplied(op)) if products else 0.0
    return fma, bytes_of(op) / seconds / bandwidth(source.device)


def _multiplied(op: Op) -> str:
    """The dtype whose multiply-adds an op is made of."""
    dtype = op.operands[0].type.dtype
    return dtype if dtype in HALVES or dtype == "f64" else "f32"


def profile(source: DeviceSource, args: Sequence[Any], seconds: float) -> tuple[list[KernelTime], float]:
    """The kernels' least times for these arguments, in the order of the program, and the whole call's, copies included.

    The function runs again and again, on copies of its shared variables.
    """
    clock = Clocked(source.device)
    f = _copied(source, clock)
    f(*args)
    clock.launches.clear()
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds / 2 or not count:
        f(*args)
        count += 1
    assert f.variant is not None
    program = f.variant.program
    found = []
    launched = dict[str, Launch]()
    for s in program.walk():
        if isinstance(s, Launch):
            launched.setdefault(s.kernel, s)
    for kernel, step in launched.items():
        op = program.ops[step.op]
        each, calls = clock.least.get(kernel, 0.0), clock.launches.get(kernel, 0) / count
        work = flops_of(op) * step.layers, bytes_of(op) * step.layers
        found.append(KernelTime(op, each * calls, calls, *work, shares(source, op, each / step.layers)))
    return found, _whole(_copied(source, source.device), args, seconds / 2)


def _copied(source: DeviceSource, device: Any) -> DeviceFunction:
    """The function anew, on copies of its shared variables."""
    containers = {n: Container(c.get()) for n, c in source.containers.items()}
    own = DeviceSource(source.func, containers, "list", device=device, arch=source.arch, cached=False)
    inputs = [p for p in source.func.body.params if p.name not in containers]
    parameters = [Parameter(p.name or "", p.type.dtype, p.type.rank, np.asarray) for p in inputs]
    return DeviceFunction(source.func.name, parameters, own.specialise, device, "list")


def _whole(f: DeviceFunction, args: Sequence[Any], seconds: float) -> float:
    """The least seconds of a call, as its caller sees them."""
    for _ in range(2):  # compiles, and is captured
        f(*args)
    best, start = np.inf, time.perf_counter()
    while (before := time.perf_counter() - start) < seconds or best == np.inf:
        f(*args)
        best = min(best, time.perf_counter() - start - before)
    return float(best)
