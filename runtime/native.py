"""The bridge to CPython and NumPy: the addresses that native entries need, and the type of compiled functions.

Nothing is compiled here.  The code behind a function's call is given to `provide` once, by whoever compiled or loaded it.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tcc.ir.types import memory_dtype
from tcc.runtime import layout as at
from tcc.runtime.machine import require_linux

PY_TP_CALL, PY_TP_MEMBERS = 50, 72  # slot numbers of CPython's stable ABI
T_PYSSIZET, READONLY = 19, 1
FLAG_BASETYPE, FLAG_VECTORCALL, FLAG_VERSION_TAG = 1 << 10, 1 << 11, 1 << 18
TYPE_FLAGS_OFFSET, TYPE_VECTORCALL_OFFSET = 168, 56  # in PyTypeObject
NUMPY_ARRAY_TYPE, NUMPY_ARRAY_NEW = 2, 93  # in NumPy's C-API table, the same since NumPy 1

_provided: dict[str, int] = {}
_kept: list[object] = []  # what native code points to for as long as the process lives


def provide(addresses: Mapping[str, int], owner: object) -> None:
    """Takes the support functions' addresses, `tcc_slow` among them; `owner` keeps their memory."""
    _provided.update(addresses)
    _keep(owner)


def provided(name: str) -> int:
    """The address of a support function; RuntimeError before `provide`."""
    if name not in _provided:
        raise RuntimeError(f"{name} is not loaded: tcc.codegen.support.load() or a loaded model provides it")
    return _provided[name]


def _keep(thing: object) -> None:
    """For ever: idle workers still run this code while the interpreter tears itself down."""
    _kept.append(thing)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


class _Slot(ctypes.Structure):
    _fields_ = [("slot", ctypes.c_int), ("function", ctypes.c_void_p)]


class _Spec(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("basicsize", ctypes.c_int),
        ("itemsize", ctypes.c_int),
        ("flags", ctypes.c_uint),
        ("slots", ctypes.c_void_p),
    ]


class _Member(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("type", ctypes.c_int),
        ("offset", ctypes.c_ssize_t),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    ]


def _make_base() -> type:
    """A type with a vectorcall slot and a record pointer, both null at first; Python subclasses add the rest."""
    require_linux()
    if "t" in sys.abiflags or sys.implementation.name != "cpython":
        raise RuntimeError("tcc's compiled functions need CPython with the GIL")
    offset = 8 * at.OBJECT_VECTORCALL
    members = (_Member * 2)(_Member(b"__vectorcalloffset__", T_PYSSIZET, offset, READONLY, None), _Member())
    call = ctypes.cast(ctypes.pythonapi.PyVectorcall_Call, ctypes.c_void_p).value
    slots = (_Slot * 3)(_Slot(PY_TP_CALL, call), _Slot(PY_TP_MEMBERS, ctypes.addressof(members)), _Slot())
    flags = FLAG_BASETYPE | FLAG_VECTORCALL | FLAG_VERSION_TAG
    spec = _Spec(b"tcc.runtime.native.Native", at.OBJECT_BYTES, 0, flags, ctypes.addressof(slots))
    _kept.extend((members, slots, spec))
    make = ctypes.pythonapi.PyType_FromSpec
    make.restype, make.argtypes = ctypes.py_object, [ctypes.c_void_p]
    base: type = make(ctypes.addressof(spec))
    return base


_Base: Any = _make_base()


class Native(_Base):  # type: ignore[misc]
    """An object whose call is native code: TypeError until `enter` has said where."""

    def __init_subclass__(cls) -> None:
        """CPython 3.11 drops the vectorcall flag in Python subclasses; from 3.12 on it is inherited."""
        super().__init_subclass__()
        _inherit_vectorcall(cls)

    def enter(self, entry: int, record: int) -> None:
        """Calls go to the native function at `entry` from now on.  A call in another thread goes on with what it began."""
        words = (ctypes.c_int64 * (at.OBJECT_BYTES // 8)).from_address(id(self))
        # one step for all threads, since code must not meet another's record
        words[at.OBJECT_VECTORCALL : at.OBJECT_RECORD + 1] = [entry, record]


def _inherit_vectorcall(cls: type) -> None:
    if cls.__flags__ & FLAG_VECTORCALL:
        return
    flags = ctypes.c_ulong.from_address(id(cls) + TYPE_FLAGS_OFFSET)
    offset = ctypes.c_ssize_t.from_address(id(cls) + TYPE_VECTORCALL_OFFSET)
    if flags.value != cls.__flags__ or offset.value != 8 * at.OBJECT_VECTORCALL:
        raise RuntimeError(f"unknown layout of type objects in Python {sys.version}")
    flags.value |= FLAG_VECTORCALL


_inherit_vectorcall(Native)


def array_api() -> Callable[[int], int]:
    """NumPy's C-API table: its slot number gives an address."""
    core = getattr(np, "_core", None) or np.core
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    table = ctypes.cast(get(core._multiarray_umath._ARRAY_API, None), ctypes.POINTER(ctypes.c_void_p))
    if table[NUMPY_ARRAY_TYPE] != id(np.ndarray):
        raise RuntimeError(f"unknown layout of NumPy {np.__version__}'s C API")
    return lambda slot: int(table[slot] or 0)


@functools.cache
def api_table(
    slow: Callable[..., Any],
    raise_error: Callable[..., Any],
    adopt: Callable[..., Any],
    grant: Callable[..., Any],
    late: Callable[..., Any],
) -> ctypes.Array[ctypes.c_int64]:
    """The API table that all records point to."""
    numpy_slot = array_api()
    table = (ctypes.c_int64 * at.API_SLOTS)()
    things: dict[int, object] = {
        at.API_NDARRAY: np.ndarray,
        at.API_NOT_IMPLEMENTED: NotImplemented,
        at.API_NONE: None,
        at.API_LONG: int,
        at.API_FLOAT: float,
        at.API_SLOW: slow,
        at.API_RAISE: raise_error,
        at.API_ADOPT: adopt,
        at.API_GRANT: grant,
        at.API_LATE: late,
    }
    for index, name in enumerate(at.DTYPES):
        dtype = memory_dtype(name)
        things[at.API_DTYPES + 2 * index] = dtype
        things[at.API_DTYPES + 2 * index + 1] = dtype.type
    for slot, thing in things.items():
        _keep(thing)
        table[slot] = id(thing)
    table[at.API_ARRAY_NEW] = numpy_slot(NUMPY_ARRAY_NEW)
    return table
