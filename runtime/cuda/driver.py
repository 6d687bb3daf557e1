"""From nothing to a device that can be used, or one error that says what is missing and what to do."""

from __future__ import annotations

import ctypes
import functools
from typing import Any, NamedTuple

from tcc.runtime.devices import DeviceError

LEAST_DRIVER = 11080  # CUDA 11.8: its PTX, 7.8, is the first that knows sm_90
LEAST_SM = 70
OTHERWISE = "or run on the CPU (device=cpu)"


class Found(NamedTuple):
    """What there is of CUDA here, found without pycuda.  `problem` is empty if a device can be opened."""

    driver: int  # as 13000; 0 without one
    devices: tuple[str, ...]
    problem: str


@functools.cache
def library() -> Any:
    """The driver's library; DeviceError if there is none."""
    try:
        return ctypes.CDLL("libcuda.so.1", mode=ctypes.RTLD_GLOBAL)
    except OSError:
        raise DeviceError(
            "there is no NVIDIA driver (libcuda.so.1 is not found): install the driver of your GPU "
            f"(in a container, start it with --gpus all), {OTHERWISE}"
        ) from None


def look() -> Found:
    """Driver and devices, with no context made."""
    try:
        lib = library()
    except DeviceError as e:
        return Found(0, (), str(e))
    version, count = ctypes.c_int(), ctypes.c_int()
    lib.cuDriverGetVersion(ctypes.byref(version))
    problem = _too_old(version.value)
    status = lib.cuInit(0)
    if status == 0:
        lib.cuDeviceGetCount(ctypes.byref(count))
    elif not problem:
        problem = _no_init(lib, status)
    names = []
    for number in range(count.value):
        name = ctypes.create_string_buffer(100)
        lib.cuDeviceGetName(name, 100, number)
        names.append(name.value.decode(errors="replace"))
    if not names and not problem:
        problem = NO_DEVICE
    return Found(version.value, tuple(names), problem)


NO_DEVICE = (
    "the NVIDIA driver finds no GPU: see whether nvidia-smi lists one and whether CUDA_VISIBLE_DEVICES hides it, "
    f"{OTHERWISE}"
)


def _too_old(version: int) -> str:
    if version >= LEAST_DRIVER:
        return ""
    return (
        f"the NVIDIA driver is for CUDA {spelt(version)}, and {spelt(LEAST_DRIVER)} is the least: "
        f"update the driver, {OTHERWISE}"
    )


def _no_init(lib: Any, status: int) -> str:
    if status == 100:  # CUDA_ERROR_NO_DEVICE
        return NO_DEVICE
    text = ctypes.c_char_p()
    lib.cuGetErrorString(status, ctypes.byref(text))
    said = (text.value or b"an unknown error").decode(errors="replace")
    return f"the NVIDIA driver does not start (error {status}: {said}): see what nvidia-smi says, {OTHERWISE}"


def spelt(version: int) -> str:
    """13000 -> 13.0"""
    return f"{version // 1000}.{version % 1000 // 10}"


def load() -> Any:
    """pycuda.driver, initialised; DeviceError says which part is missing."""
    found = look()
    if found.problem:
        raise DeviceError(found.problem)
    try:
        import pycuda.driver as cuda
    except ModuleNotFoundError:
        raise DeviceError(
            "pycuda is not installed: `pip install tcc[cuda]`, which builds it with a C++ compiler and the CUDA toolkit's "
            f"cuda.h, {OTHERWISE}"
        ) from None
    except ImportError as e:
        raise DeviceError(
            f"pycuda does not fit this driver ({e}): build it anew (`pip install --force-reinstall --no-cache-dir "
            f"--no-binary pycuda pycuda`), {OTHERWISE}"
        ) from None
    cuda.init()
    return cuda


def check_device(cuda: Any, number: int) -> Any:
    """pycuda's device; DeviceError if there is none of that number, or one that is too old."""
    count = cuda.Device.count()
    if number >= count:
        there = "there is only cuda0" if count == 1 else f"there are cuda0 to cuda{count - 1}"
        raise DeviceError(f"no device cuda{number}: {there}")
    device = cuda.Device(number)
    major, minor = device.compute_capability()
    if 10 * major + minor < LEAST_SM:
        raise DeviceError(
            f"cuda{number}, {device.name()}, has compute capability {major}.{minor}, and "
            f"{LEAST_SM / 10} is the least: choose another, {OTHERWISE}"
        )
    return device
