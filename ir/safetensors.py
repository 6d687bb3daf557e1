"""The safetensors format: an 8-byte little-endian length, a JSON header, and the raw data of each tensor.

https://github.com/huggingface/safetensors.  What is read is checked against all of the format's own rules: the tensors
fill the data without holes and without sharing a byte.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from tcc.ir.types import FROM_NUMPY, itemsize, memory_dtype

Array = np.ndarray[Any, np.dtype[Any]]
Data = bytes | memoryview

LARGEST_HEADER = 100_000_000  # bytes, as the format says
_CODES = {
    d: d.upper() for d in ("u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64", "f16", "bf16", "f32", "f64")
}
_CODES |= {"bool": "BOOL", "c64": "C64", "c128": "C128"}
_DTYPES = {code: dtype for dtype, code in _CODES.items()}
_FIELDS = {"dtype", "shape", "data_offsets"}


class Tensor(NamedTuple):
    """`dtype` as the IR names it; `array` as it lies in memory (bfloat16 as uint16); `offset` within the file's data."""

    dtype: str
    array: Array
    offset: int = 0


def tensor(array: Array, dtype: str = "") -> Tensor:
    """An array as a tensor of the dtype that it has; TypeError if the format has none such."""
    found = dtype or FROM_NUMPY.get(array.dtype.name, "")
    if found not in _CODES:
        raise TypeError(f"safetensors has no dtype {array.dtype}")
    return Tensor(found, array)


def placed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """In the order of the file, with their offsets: those of wide elements first, so that each lies as its elements need."""
    order = sorted(tensors, key=lambda name: (-itemsize(tensors[name].dtype), name))
    made, at = {}, 0
    for name in order:
        made[name] = tensors[name]._replace(offset=at)
        at += tensors[name].array.nbytes
    return made


def encode(tensors: Mapping[str, Tensor]) -> list[bytes]:
    """The parts of a file: the same for equal tensors, in whatever order they are given."""
    header, parts = {}, []
    for name, t in placed(tensors).items():
        end = t.offset + t.array.nbytes
        header[name] = {
            "dtype": _CODES[t.dtype],
            "shape": list(t.array.shape),
            "data_offsets": [t.offset, end],
        }
        parts.append(np.ascontiguousarray(t.array).tobytes())
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return [len(text).to_bytes(8, "little") + text, *parts]


def decode(data: Data) -> dict[str, Tensor]:
    """The tensors of a file, which share its memory.  ValueError says what is wrong."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8:
        raise ValueError("it is cut off within its first 8 bytes")
    if length > LARGEST_HEADER:
        raise ValueError(f"it wants a header of {length} bytes, more than the format's {LARGEST_HEADER}")
    if 8 + length > len(data):
        raise ValueError(f"it is cut off: its header needs {length} bytes and there are {len(data) - 8}")
    try:
        header = json.loads(bytes(data[8 : 8 + length]), object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("its header is nested too deep") from None
    except json.JSONDecodeError as e:
        raise ValueError(f"its header is not JSON ({e})") from None
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    rest = memoryview(data)[8 + length :]
    entries = {name: _entry(name, e) for name, e in header.items() if name != "__metadata__"}
    at = 0
    for name, (dtype, shape, begin, end) in sorted(entries.items(), key=lambda e: e[1][2:]):
        if begin != at:
            raise ValueError(f"the data of {name} begin at {begin}, and those before end at {at}")
        if end - begin != math.prod(shape) * itemsize(dtype):
            raise ValueError(f"{name}, {dtype}{shape}, has {end - begin} bytes")
        at = end
    if at != len(rest):
        raise ValueError(f"its tensors need {at} bytes of data, and there are {len(rest)}")
    for name, (dtype, _, begin, end) in entries.items():
        if dtype == "bool" and np.any(np.frombuffer(rest[begin:end], np.uint8) > 1):
            raise ValueError(f"{name}, of dtype bool, has bytes other than 0 and 1")
    return {
        name: Tensor(dtype, np.frombuffer(rest[begin:end], memory_dtype(dtype)).reshape(shape), begin)
        for name, (dtype, shape, begin, end) in entries.items()
    }


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("its header has a name twice")
    return made


def _entry(name: str, entry: Any) -> tuple[str, list[int], int, int]:
    """(dtype, shape, begin, end)."""
    if not isinstance(entry, dict) or entry.keys() != _FIELDS:
        raise ValueError(f"{name} has not the fields {', '.join(sorted(_FIELDS))}")
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in _DTYPES:
        raise ValueError(f"{name} has the dtype {str(code)[:20]!r} (known are {', '.join(_DTYPES)})")
    if not _naturals(shape) or len(shape) > 32:
        raise ValueError(f"the shape of {name} is not a list of at most 32 sizes")
    if not _naturals(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"the data_offsets of {name} are not two places in order")
    return _DTYPES[code], shape, offsets[0], offsets[1]


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and all(type(v) is int and 0 <= v < 1 << 63 for v in value)
