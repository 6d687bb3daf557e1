"""Where functions run: names of devices, and functions made for them.

`cpu`; `cuda` or `cuda0`, `cuda1`, ... (`gpu` and `gpu0` are Theano's older words); `emulator`, which runs a GPU's program on
the host, thread by thread, for tests; and names that `config.contexts` gives, as in `contexts=dev0->cuda0;dev1->cuda1`.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tcc.artefact import without_places
from tcc.callables import Specialised, explained
from tcc.devicecode import DeviceCode
from tcc.driver import Program
from tcc.failures import refuse_certain_failures
from tcc.ir.callers import warn
from tcc.ir.clone import clone
from tcc.ir.dims import Size
from tcc.lower import Lowered
from tcc.runtime.buffers import Container
from tcc.runtime.callable import Parameter
from tcc.runtime.device_function import DeviceFunction, DeviceVariant
from tcc.runtime.device_plan import plan_text
from tcc.runtime.device_program import DeviceProgram
from tcc.runtime.devices import DeviceError, DeviceLost, DeviceMemoryError
from tcc.runtime.launch import Device
from tcc.settings import config, device_name, wanted_device

__all__ = ["DeviceError", "DeviceLost", "DeviceMemoryError", "chosen", "emulator", "open_device"]

if TYPE_CHECKING:
    from tcc.passes.manager import Step


class _Turns:
    """What the emulator needs to be a device: a name, and one thread at a time."""

    name, dlpack = "emulator", (1, 0)

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.RLock()

    def __enter__(self) -> Any:
        self._lock.acquire()
        return self

    def __exit__(self, *error: Any) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[Any, ...]:
        return emulator, ()


@functools.cache
def emulator() -> Any:
    """The device that runs kernels on the host."""
    from tcc.codegen.gpu.emulator import Emulator

    return type("Emulated", (_Turns, Emulator), {})()


def open_device(name: str) -> Device:
    """The device of that name; ValueError for a name that means none, DeviceError if it cannot be used."""
    real = device_name(name)
    if real == "emulator":
        found: Device = emulator()
        return found
    if real == "cpu":
        raise ValueError("the CPU is no device")
    from tcc.runtime.cuda.device import open_device as open_cuda

    share = config.gpuarray.preallocate
    return open_cuda(int(real.removeprefix("cuda")), float(share or 0))


def chosen(name: str | None, targets: Sequence[str | None] = ()) -> Device | None:
    """The `wanted_device`; None for the CPU, to which Theano's old word `gpu` falls back with a warning where there is none."""
    name = wanted_device(name, targets)
    if device_name(name) == "cpu":
        return None
    try:
        return open_device(name)
    except DeviceError as e:
        if not name.startswith("gpu"):
            raise
        warn(f"device={name}: {e}; functions run on the CPU")
        return None


@dataclass
class DeviceSource(Program):
    """A function's IR with its containers, compiled for a device.

    `arch` is the architecture of the GPU, such as sm_90; None is the emulator's.  Without a device it makes text alone.
    """

    device: Any = None
    arch: str | None = None
    cached: bool = True  # what comes from the cache has no ops

    def artefact(self, fixed: Mapping[str, Size]) -> tuple[Any, bool]:
        from tcc.codegen.keys import environment
        from tcc.codegen.target import chosen
        from tcc.runtime import cache

        func = clone(self.func, fixed)
        refuse_certain_failures(func)
        func.attrs["hints"] = {n: v for n, v in self.seen.items() if n not in fixed}
        kept = self.cached and not any(op.name == "call" for op in func.body.walk())
        text, locs = without_places(func)
        key = cache.key("device", environment(chosen()), str(self.arch), str(self.returns), text)
        data = cache.get(key) if kept else None
        if data is not None:
            return _Code(DeviceCode.unpack(data, locs), self.device), True
        code = DeviceCode.of(self.device_program(func))
        if kept and code.can_be_kept:
            cache.put(key, code.pack(locs))
        return _Code(code, self.device), False

    def device_program(self, func: Any) -> DeviceProgram:
        from tcc.codegen.gpu.chips import chip
        from tcc.codegen.gpu.driver import lower

        self.run_passes(func)
        made = None if self.arch is None else chip(self.arch)
        return lower(func, made, self.returns, tile_maps=True, host_sizes=True)

    def measure_plans(self, func: Any, context: Any) -> None:
        """None: they are those of the CPU's engine."""

    def pipeline(self) -> list[Step]:
        from tcc.passes.pipeline import gpu_pipeline

        return gpu_pipeline()

    def text(self, stage: str, sizes: Mapping[str, Size] | None = None) -> str:
        """The function at one of STAGES, or as `ptx`; `plan` is what a call does, with its copies."""
        if stage not in ("plan", "llvm", "ptx"):
            return super().text(stage, sizes)
        from tcc.codegen.gpu.kernel import one_file

        func = clone(self.func, sizes or {})
        if stage == "plan":
            return plan_text(self.device_program(func))
        arch = self.arch
        try:
            self.arch = None if stage == "llvm" else arch
            kernels = self.device_program(func).kernels.values()
        finally:
            self.arch = arch
        return (
            one_file(kernels)
            if stage == "ptx"
            else "\n".join(f"; {k.name}: {k.what}\n{k.text}" for k in kernels)
        )


def check_arch(arch: str) -> None:
    """ValueError, with those that there are, for an architecture that no code is made for."""
    from tcc.codegen.gpu.chips import chip

    chip(arch)


def arch_of(device: Any) -> str | None:
    """The newest architecture that the device takes code for; None for the emulator."""
    sm = getattr(device, "sm", None)
    if sm is None:
        return None
    from tcc.codegen.gpu.chips import CHIPS, chip

    fit = [name for name in CHIPS if chip(name).sm == sm or not chip(name).specific and chip(name).sm < sm]
    fit = [name for name in fit if chip(name).driver <= device.driver] or fit
    return max(fit, key=lambda name: (chip(name).sm, chip(name).specific))


@dataclass
class _Code:
    code: DeviceCode
    device: Any

    def variant(self, containers: Mapping[str, Container], name: str) -> DeviceVariant:
        return self.code.variant(containers, self.device)


class CompiledForDevice(Specialised, DeviceFunction):
    """A function's programs for a device, made for the sizes that calls bring."""

    program: DeviceSource
    lowered: Lowered
    func: Any


def compiled_for(
    device: Device, name: str, parameters: Sequence[Parameter], lowered: Lowered, returns: Any
) -> CompiledForDevice:
    """The function on a device; what it compiles is compiled at its first call."""
    names = lowered.func.attrs.get("shared", [])
    containers = {n: s.container for n, s in zip(names, lowered.shared)}
    source = DeviceSource(
        lowered.func, containers, returns, explained(lowered), device=device, arch=arch_of(device)
    )
    made = CompiledForDevice(name, parameters, source.specialise, device, returns, lowered.stay)
    made.program, made.lowered, made.func = source, lowered, lowered.func
    return made
