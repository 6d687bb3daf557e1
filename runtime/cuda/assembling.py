"""Kernels as machine code, which the cache keeps: another process needs not wait for the driver's assembler again."""

from __future__ import annotations

import ctypes

from tcc.runtime import cache
from tcc.runtime.cuda.graphs import GraphError, do

PTX = 1  # CU_JIT_INPUT_PTX


def cubin(ptx: str, sm: int, driver: int) -> bytes | None:
    """The code of PTX for the current context's device, from the cache or made now; None where the driver does not make it.

    `sm` and `driver`, the device's architecture and the driver's version, are what it is code for besides.
    """
    key = cache.key("cubin", str(sm), str(driver), ptx)
    found = cache.get(key)
    if found is None:
        try:
            found = _linked(ptx.encode() + b"\0")
        except GraphError:  # loading the PTX says what is wrong with it
            return None
        cache.put(key, found)
    return found


def _linked(ptx: bytes) -> bytes:
    state, code, size = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_size_t()
    do("cuLinkCreate_v2", 0, None, None, ctypes.byref(state))
    try:
        do("cuLinkAddData_v2", state, PTX, ptx, ctypes.c_size_t(len(ptx)), b"kernel", 0, None, None)
        do("cuLinkComplete", state, ctypes.byref(code), ctypes.byref(size))
        return ctypes.string_at(code.value or 0, size.value)  # which is the state's
    finally:
        do("cuLinkDestroy", state)
