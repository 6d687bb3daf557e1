"""Arrays to and from other frameworks without a copy, by DLPack's capsules or the CUDA array interface."""

from __future__ import annotations

import ctypes
import math
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
CPU, CUDA, CUDA_HOST = 1, 2, 3  # kinds of devices
_KINDS = {"i": 0, "u": 1, "f": 2, "c": 5, "b": 6}
_LETTERS = {code: letter for letter, code in _KINDS.items()}
_BFLOAT = 4
_BFLOAT_TYPE = "<V2"  # of the CUDA array interface, which has no bfloat16: as the package ml_dtypes spells it
_NAME = b"dltensor"


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device", ctypes.c_int32),
        ("number", ctypes.c_int32),
        ("rank", ctypes.c_int32),
        ("kind", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("offset", ctypes.c_uint64),
    ]


class _Managed(ctypes.Structure):
    _fields_ = [("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p)]


_Deleter = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Managed))
_Destructor = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_api = ctypes.pythonapi
_new = _api.PyCapsule_New
_new.restype, _new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, _Destructor]
# the destructor gets an object that is being torn down, so these take its address
_is_valid = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", _api))
_pointer = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_GetPointer", _api))
_rename = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_SetName", _api))
_clear = ctypes.PYFUNCTYPE(None)(("PyErr_Clear", _api))
_given: dict[int, tuple[object, ...]] = {}  # what lent memory needs until its borrower calls the deleter
_USED = b"used_dltensor"


def _give_back(managed: Any) -> None:
    _given.pop(ctypes.addressof(managed.contents), None)


def _drop(capsule: int) -> None:
    """Of a capsule that nobody took.  Who refused it may have set an error, with which nothing here could be called, and which no
    callback can leave set: Python then reports a SystemError in its place."""
    _clear()
    if _is_valid(capsule, _NAME):
        _given.pop(_pointer(capsule, _NAME), None)


_deleter, _destructor = _Deleter(_give_back), _Destructor(_drop)


def lend(
    address: int,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    device: tuple[int, int],
    owner: object,
    bfloat: bool = False,
) -> Any:
    """A capsule of C-contiguous memory, which `owner` keeps until the borrower lets go; `bfloat`: its 16 bits are bfloat16."""
    managed, dims = _Managed(), (ctypes.c_int64 * max(1, len(shape)))(*shape)
    t = managed.tensor
    t.data, (t.device, t.number), t.rank = address, device, len(shape)
    t.kind, t.bits, t.lanes = _BFLOAT if bfloat else _KINDS[dtype.kind], 8 * dtype.itemsize, 1
    t.shape = dims
    managed.deleter = ctypes.cast(_deleter, ctypes.c_void_p).value
    _given[ctypes.addressof(managed)] = (managed, dims, owner)
    return _new(ctypes.addressof(managed), _NAME, _destructor)


class Borrowed(NamedTuple):
    """Memory of another framework's; `owner` gives it back when it is dropped.  `strides` are in elements.

    Of bfloat16 (`bfloat`), which NumPy lacks, `dtype` is uint16, its bits.
    """

    address: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    device: tuple[int, int]
    owner: object
    bfloat: bool = False


class _Owner:
    def __init__(self, managed: int) -> None:
        self.managed = managed

    def __del__(self) -> None:
        pointer = ctypes.cast(self.managed, ctypes.POINTER(_Managed))
        if pointer.contents.deleter:
            _Deleter(pointer.contents.deleter)(pointer)


def borrow(capsule: Any) -> Borrowed:
    """What a capsule holds, which can be taken only once; TypeError for what NumPy has no dtype for."""
    address = id(capsule)
    if not _is_valid(address, _NAME):
        raise TypeError(f"a DLPack capsule that has not been taken yet is needed, got {capsule!r}")
    where = _pointer(address, _NAME)
    t = ctypes.cast(where, ctypes.POINTER(_Managed)).contents.tensor
    dtype: np.dtype[Any]
    bfloat = t.kind == _BFLOAT and t.bits == 16
    if bfloat and t.lanes == 1:
        dtype = np.dtype(np.uint16)
    elif t.kind in _LETTERS and t.lanes == 1:
        letter = _LETTERS[t.kind]
        dtype = np.dtype(bool) if letter == "b" else np.dtype(f"{letter}{t.bits // 8}")
    else:
        raise TypeError(f"DLPack's dtype (kind {t.kind}, {t.bits} bits, {t.lanes} lanes) has no counterpart")
    shape = tuple(t.shape[: t.rank])
    strides = tuple(t.strides[: t.rank]) if t.strides else None
    found = Borrowed(
        (t.data or 0) + t.offset, dtype, shape, strides, (t.device, t.number), _Owner(where), bfloat
    )
    _rename(address, _USED)
    return found


def exposed(other: Any) -> Borrowed:
    """What an object with `__cuda_array_interface__` shows; TypeError for structures and masks.  Of the device nothing is said."""
    shown = other.__cuda_array_interface__
    bfloat = shown["typestr"] == _BFLOAT_TYPE
    dtype = np.dtype(np.uint16 if bfloat else shown["typestr"])
    if dtype.kind not in _KINDS or shown.get("mask") is not None:
        raise TypeError(f"{type(other).__name__} holds {dtype}, or a mask, and arrays of numbers are taken")
    strides = shown.get("strides")
    steps = None if strides is None else tuple(s // dtype.itemsize for s in strides)
    return Borrowed(shown["data"][0] or 0, dtype, tuple(shown["shape"]), steps, (CUDA, -1), other, bfloat)


def typestr(dtype: np.dtype[Any], bfloat: bool) -> str:
    """How the CUDA array interface names a dtype."""
    return _BFLOAT_TYPE if bfloat else dtype.str


def on_host(other: Any) -> tuple[Array, bool]:
    """A copy of an array of the host's memory that has `__dlpack__`, and whether its 16 bits are bfloat16."""
    found = borrow(other.__dlpack__())
    steps = found.strides
    if 0 in found.shape or steps is None:
        steps = None
    elif min(steps, default=0) < 0:
        raise TypeError(f"{type(other).__name__} runs backwards along an axis: copy it first")
    reach = 1 + sum((n - 1) * s for n, s in zip(found.shape, steps)) if steps else math.prod(found.shape)
    memory = (ctypes.c_uint8 * (reach * found.dtype.itemsize)).from_address(found.address or id(found))
    bytes = None if steps is None else tuple(s * found.dtype.itemsize for s in steps)
    return np.ndarray(found.shape, found.dtype, memoryview(memory), strides=bytes).copy(), found.bfloat
