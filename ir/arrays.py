"""Large constants beside the text: named by content, kept in safetensors files.

A file is an 8-byte little-endian length, a JSON header, and the raw data (https://github.com/huggingface/safetensors).
"""

from __future__ import annotations

import hashlib
import json
import math
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from tcc.ir.types import DTYPES, memory_dtype

Array = np.ndarray[Any, np.dtype[Any]]

_CODES = {
    "u8": "U8",
    "i8": "I8",
    "u16": "U16",
    "i16": "I16",
    "u32": "U32",
    "i32": "I32",
    "u64": "U64",
    "i64": "I64",
}
_CODES |= {"bool": "BOOL", "f16": "F16", "f32": "F32", "f64": "F64", "c64": "C64", "c128": "C128"}
_NUMPY = {code: np.dtype(str(DTYPES[ours][0])) for ours, code in _CODES.items()}
_OF_NUMPY = {dtype: code for code, dtype in _NUMPY.items()}


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
    header: dict[str, Any] = {}
    at = 0
    for name, array in arrays.items():
        code = _OF_NUMPY.get(array.dtype)
        if code is None:
            raise TypeError(f"safetensors has no dtype {array.dtype} ({name})")
        header[name] = {"dtype": code, "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in arrays.values():
            file.write(np.ascontiguousarray(array).tobytes())
    part.replace(path)


def read_safetensors(path: Path) -> dict[str, Array]:
    """The arrays of a file, by name.  ValueError says what is wrong with it; OSError when it cannot be read."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    if len(data) < 8 or end > len(data):
        raise ValueError(f"{path}: truncated safetensors file")
    try:
        header = json.loads(data[8:end])
        entries = {k: v for k, v in header.items() if k != "__metadata__"}
        return {k: _entry(data[end:], v) for k, v in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise ValueError(f"{path}: not a safetensors file ({e})") from None


def _entry(data: bytes, entry: dict[str, Any]) -> Array:
    begin, end = entry["data_offsets"]
    dtype, shape = _NUMPY[entry["dtype"]], tuple(int(s) for s in entry["shape"])
    if not 0 <= begin <= end <= len(data) or end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"the data of {shape} {dtype} is not at [{begin}, {end})")
    return np.frombuffer(data[begin:end], dtype).reshape(shape)
