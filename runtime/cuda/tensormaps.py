"""Tensor maps, which pycuda lacks: how the tile copies of sm_90 see an array, as 16 words that a kernel gets."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping

from tcc.ir.dims import evaluate
from tcc.runtime.cuda.graphs import GraphError, do
from tcc.runtime.device_program import (
    MAP_WORDS,
    NOT_INTERLEAVED,
    PROMOTE_256,
    SWIZZLE_128,
    UINTS,
    ZEROS,
    TensorMap,
)

ALIGNMENT = 64


def tensor_map(address: int, map: TensorMap, sizes: Mapping[str, int]) -> list[int]:
    """The words of a map of an array at `address`; GraphError if the driver takes no such array."""
    rank = len(map.sizes)
    room = (ctypes.c_uint64 * (MAP_WORDS + ALIGNMENT // 8))()
    start = -(-ctypes.addressof(room) // ALIGNMENT) * ALIGNMENT
    shape = (ctypes.c_uint64 * rank)(*(evaluate(s, sizes) for s in map.sizes))
    strides = (ctypes.c_uint64 * (rank - 1))(*(evaluate(s, sizes) for s in map.strides))
    how = (NOT_INTERLEAVED, SWIZZLE_128, PROMOTE_256, ZEROS)
    array = (ctypes.c_void_p(start), UINTS[map.itemsize], rank, ctypes.c_void_p(address), shape, strides)
    try:
        if map.walk is None:
            box, ones = (ctypes.c_uint32 * 3)(*map.box, 1), (ctypes.c_uint32 * 3)(1, 1, 1)
            do("cuTensorMapEncodeTiled", *array, box, ones, *how)
        else:
            lower, upper = ((ctypes.c_int * 2)(*corner) for corner in (map.walk.lower, map.walk.upper))
            steps = (ctypes.c_uint32 * 4)(1, *map.walk.steps, 1)
            do("cuTensorMapEncodeIm2col", *array, lower, upper, *map.box, steps, *how)
    except GraphError as e:
        raise GraphError(
            f"{e}: a tensor map of {list(shape)} elements of {map.itemsize} bytes at {address:#x}, {list(strides)} bytes apart, in tiles of {map.box}"
            f"{f' by {map.walk}' if map.walk else ''}, which wants an address and strides that are multiples of 16, and tiles of at most 128 bytes by 256"
        ) from None
    return list((ctypes.c_int64 * MAP_WORDS).from_address(start))
