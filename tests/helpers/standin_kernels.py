"""Inside a process that has the stand-in for its driver: kernels that are launched there run on the emulator."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from tcc.codegen.gpu import driver, kernel
from tcc.codegen.gpu.emulator import Emulator
from tcc.devices import DeviceSource
from tcc.runtime.device_program import DeviceKernel

library = ctypes.CDLL("libcuda.so.1")
library.standin_count.restype = ctypes.c_long
LAUNCHES, GRAPH_LAUNCHES, COPIES_IN, COPIES_OUT, USED = range(5)
known: dict[str, Any] = {}
emulator = Emulator()


def count(what: int) -> int:
    return int(library.standin_count(what))


@ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.POINTER(ctypes.c_uint),
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_uint,
)
def _launch(name: bytes, dims: Sequence[int], params: int, bytes: int, shared: int) -> int:
    k = known[name.decode()]
    args = np.frombuffer(ctypes.string_at(params, bytes), np.int64).tolist()
    most = library.standin_blocks(None, None, 0)
    starts, sizes = (ctypes.c_uint64 * most)(), (ctypes.c_size_t * most)()
    library.standin_blocks(starts, sizes, most)
    emulator.blocks = {a: SimpleNamespace(nbytes=n) for a, n in zip(starts, sizes)}  # type: ignore[misc]
    try:
        assert (dims[3], shared) == (k.block, k.shared)
        text = DeviceKernel(k.name, k.text, k.block, len(k.slots), k.shared)
        emulator.launch(text, (dims[0], dims[1], dims[2]), args)
    except Exception as e:
        print(f"{type(e).__name__}: {e}")
        return 719
    return 0


library.standin_set_launch(_launch)
_ptx = driver.ptx


def _noted(made: Any, chip: Any) -> str:
    known[made.name] = made
    return _ptx(made, chip)


driver.ptx = kernel.ptx = _noted
_artefact = DeviceSource.artefact


def _made(self: DeviceSource, fixed: Any) -> Any:
    self.cached = False  # a program from the cache has no kernels for the emulator
    return _artefact(self, fixed)


DeviceSource.artefact = _made  # type: ignore[method-assign]
