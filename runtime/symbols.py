"""Addresses of the C functions that generated code calls by name."""

from __future__ import annotations

import ctypes
import functools

LIBC = (
    "clock_gettime",
    "fma",  # LLVM's way to fused multiply-adds on CPUs without
    "fmaf",
    "pthread_create",
    "pthread_setaffinity_np",
    "pthread_sigmask",
    "sched_getcpu",
    "syscall",
)
PYTHON = (
    "PyDict_New",
    "PyDict_SetItem",
    "PyErr_CheckSignals",
    "PyErr_Occurred",
    "PyEval_RestoreThread",
    "PyEval_SaveThread",
    "PyList_New",
    "PyList_SetItem",
    "PyLong_AsLongLongAndOverflow",
    "PyObject_CallFunction",
    "PyObject_CallFunctionObjArgs",
    "PyTuple_GetItem",
    "PyTuple_New",
    "PyTuple_SetItem",
    "PyTuple_Size",
    "Py_DecRef",
    "Py_IncRef",
)


@functools.cache
def symbols() -> dict[str, int]:
    """Name to address, for linking.  AttributeError if this Python or libc lacks one."""
    libraries = ((ctypes.CDLL(None), LIBC), (ctypes.pythonapi, PYTHON))
    return {name: _address(getattr(library, name)) for library, names in libraries for name in names}


def _address(function: object) -> int:
    address = ctypes.cast(function, ctypes.c_void_p).value  # type: ignore[arg-type]
    assert address is not None
    return address
