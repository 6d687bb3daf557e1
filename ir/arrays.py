"""Large constants beside the text: named by content, kept in safetensors files."""

from __future__ import annotations

import hashlib
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from tcc.ir import safetensors
from tcc.ir.files import replacing
from tcc.ir.types import memory_dtype

Array = np.ndarray[Any, np.dtype[Any]]


def rounded(array: Array) -> Array:
    """A float32 array with 8 bits of significand, half to even, as bfloat16 has them."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32).reshape(np.shape(array))
    kept = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(array), array, kept.view(np.float32))


def in_memory(value: Any, dtype: str) -> Array:
    """Numbers as an array of the bytes that the dtype has in memory: bfloat16 is the upper half of a float32."""
    if dtype != "bf16":
        return np.array(value, memory_dtype(dtype))
    wide = np.asarray(value, np.float32)
    quiet = np.where(np.isnan(wide), np.float32(np.nan), rounded(wide))
    return np.asarray(quiet.view(np.uint32) >> 16).astype(np.uint16)


def as_numbers(array: Array, dtype: str) -> Array:
    """The numbers whose bytes in memory these are."""
    if dtype != "bf16":
        return array
    return np.asarray(array.astype(np.uint32) << 16).view(np.float32)


_digests: dict[int, tuple[weakref.ref[Array], str]] = {}


def digest(array: Array) -> str:
    """The name of its content: 128 bits of the SHA-256 of dtype, shape and data.  Kept, so the array must not change."""
    known = _digests.get(id(array))
    if known is not None and known[0]() is array:
        return known[1]
    head = f"{array.dtype.name}{list(array.shape)}".encode()
    text = hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()[:32]
    key = id(array)
    _digests[key] = weakref.ref(array, lambda _: _digests.pop(key, None)), text
    return text


def write_safetensors(path: Path, arrays: dict[str, Array]) -> None:
    """Writes `arrays` under their names; TypeError for a dtype that the format lacks.  The file appears whole or not at all."""
    parts = safetensors.encode({name: safetensors.tensor(a) for name, a in arrays.items()})
    with replacing(path) as file:
        file.writelines(parts)


def read_safetensors(path: Path) -> dict[str, Array]:
    """The arrays of a file, by name.  ValueError says what is wrong with it; OSError when it cannot be read."""
    try:
        return {name: t.array for name, t in safetensors.decode(path.read_bytes()).items()}
    except ValueError as e:
        raise ValueError(f"{path}: not a safetensors file: {e}") from None
