"""Python functions called from native code: the `call` op's way out.

`tcc_host_call(ctx, args, index)` calls row `index` of the function's table.  `args` points to eight-byte slots: the
addresses of the array operands, then those of the array results, then the sizes of those operands and results, axis by
axis, in the same order.  Everything is row-major and dense.  Object operands and results have no slot: they live in the
call's list of objects, at the position that their row names.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from tcc.ir.arrays import as_numbers, in_memory
from tcc.ir.types import itemsize, memory_dtype, numpy_dtype
from tcc.runtime.buffers import Array, Storage, inside_call
from tcc.runtime.tracebacks import shorten


class HostArray(NamedTuple):
    dtype: str
    rank: int


class HostObject(NamedTuple):
    position: int  # in the call's list of objects


class HostCall(NamedTuple):
    """`function(*operands)` returns one value for each result, in a list or tuple; operands are copies that it may keep."""

    name: str  # of the op and where it was written, for messages
    function: Callable[..., Sequence[Any]]
    operands: tuple[HostArray | HostObject, ...]
    results: tuple[HostArray | HostObject, ...]


Trampoline = Callable[[int, int, "list[object] | None"], None]


def trampoline(
    calls: Sequence[HostCall], containers: Sequence[Storage], written: Sequence[bool]
) -> Trampoline:
    """What native code calls for all rows of one function, which holds `containers` meanwhile."""

    def call(index: int, args: int, objects: list[object] | None) -> None:
        with inside_call(containers, written):
            try:
                _perform(calls[index], args, objects if objects is not None else [])
            except Exception as e:
                shorten(e)
                raise

    return call


def _perform(call: HostCall, args: int, objects: list[object]) -> None:
    arrays = [o for o in (*call.operands, *call.results) if isinstance(o, HostArray)]
    slots = (ctypes.c_int64 * (len(arrays) + sum(a.rank for a in arrays))).from_address(args)
    views = list(_views(arrays, slots))
    given = sum(isinstance(o, HostArray) for o in call.operands)
    perform(call, [v.copy() for v in views[:given]], views[given:], objects)


def perform(
    call: HostCall, given: Sequence[Array], places: Sequence[Array], objects: list[object] | None = None
) -> None:
    """Calls the function with arrays that it may keep, as they lie in memory, and puts what it returns into `places`."""
    objects = objects if objects is not None else []
    arrays, targets = iter(given), iter(places)
    operands = [
        objects[o.position] if isinstance(o, HostObject) else as_numbers(next(arrays), o.dtype)
        for o in call.operands
    ]
    try:
        results = call.function(*operands)
    except Exception as e:
        told = ", ".join(
            f"{v.dtype} {v.shape}" if isinstance(v, np.ndarray) else str(type(v)) for v in operands
        )
        e.add_note(f"in {call.name}, of {told}")
        raise
    if not isinstance(results, (list, tuple)) or len(results) != len(call.results):
        got = f"{len(results)} results" if isinstance(results, (list, tuple)) else type(results).__name__
        raise TypeError(f"{call.name}: expected a list of {len(call.results)} results, got {got}")
    # all are checked before the first is written
    into = [next(targets) if isinstance(row, HostArray) else None for row in call.results]
    checked = [
        result if not isinstance(row, HostArray) else _fitting(call.name, number, result, row.dtype, place)
        for number, (result, row, place) in enumerate(zip(results, call.results, into))
    ]
    for row, place, result in zip(call.results, into, checked):
        if isinstance(row, HostObject):
            objects[row.position] = result
        else:
            assert place is not None
            np.copyto(place, result)


def _views(arrays: Sequence[HostArray], slots: ctypes.Array[ctypes.c_int64]) -> Iterator[Array]:
    first = len(arrays)
    for index, array in enumerate(arrays):
        shape = tuple(slots[first : first + array.rank])
        first += array.rank
        memory: Any = (ctypes.c_char * (max(1, math.prod(shape)) * itemsize(array.dtype))).from_address(
            slots[index]
        )
        yield np.ndarray(shape, memory_dtype(array.dtype), memory)


def _fitting(name: str, number: int, result: object, dtype: str, place: Array | None) -> Array:
    value = np.asarray(result)
    if value.dtype != numpy_dtype(dtype):
        raise TypeError(f"{name}: result {number} is of dtype {value.dtype}, wanted {numpy_dtype(dtype)}")
    assert place is not None
    if value.shape != place.shape:
        raise ValueError(f"{name}: result {number} has the shape {value.shape}, wanted {place.shape}")
    return in_memory(value, dtype)
