"""Kernels as machine code, which the cache keeps: another process needs not wait for the driver's assembler again."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

from tcc.runtime import cache
from tcc.runtime.cuda.graphs import GraphError, do

PTX = 1  # CU_JIT_INPUT_PTX


def codes(ptx: str, sm: int, driver: int) -> Iterator[bytes]:
    """What the current context's device may load for PTX, until the driver takes one: machine code from the cache; the same made
    now, for the cache; and the PTX, of which the driver says what is wrong.

    `sm` and `driver`, the device's architecture and the driver's version, are what it is code for besides.
    """
    key = cache.key("cubin", str(sm), str(driver), ptx)
    found = cache.get(key)
    if found is not None:
        yield found
    text = ptx.encode() + b"\0"
    try:
        made = _linked(text)
    except GraphError:
        pass
    else:
        cache.put(key, made)
        yield made
    yield text


def _linked(ptx: bytes) -> bytes:
    state, code, size = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_size_t()
    do("cuLinkCreate_v2", 0, None, None, ctypes.byref(state))
    try:
        do("cuLinkAddData_v2", state, PTX, ptx, ctypes.c_size_t(len(ptx)), b"kernel", 0, None, None)
        do("cuLinkComplete", state, ctypes.byref(code), ctypes.byref(size))
        return ctypes.string_at(code.value or 0, size.value)  # which is the state's
    finally:
        do("cuLinkDestroy", state)
