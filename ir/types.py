"""Types of values and of places in memory."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from tcc.ir import dims
from tcc.ir.dims import Size, parse_size

# name in the text form -> (name in NumPy, bytes); None where NumPy has no such type
DTYPES: dict[str, tuple[str | None, int]] = {
    "bool": ("bool", 1),
    "i8": ("int8", 1),
    "i16": ("int16", 2),
    "i32": ("int32", 4),
    "i64": ("int64", 8),
    "u8": ("uint8", 1),
    "u16": ("uint16", 2),
    "u32": ("uint32", 4),
    "u64": ("uint64", 8),
    "f16": ("float16", 2),
    "bf16": (None, 2),
    "f32": ("float32", 4),
    "f64": ("float64", 8),
    "c64": ("complex64", 8),
    "c128": ("complex128", 16),
    "object": ("object", 8),
}
# The names that users say; bfloat16 is the one that ml_dtypes registers with NumPy.
FROM_NUMPY: dict[str, str] = {numpy or "bfloat16": ours for ours, (numpy, _) in DTYPES.items()}
COMPILED = frozenset(
    {"bool", "i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64", "f16", "bf16", "f32", "f64"}
)
HALVES = frozenset({"f16", "bf16"})
FLOATS = frozenset({"f16", "bf16", "f32", "f64"})
TOTALS = {"f16": "f32", "bf16": "f32", "f32": "f64"}  # of sums and products, where it is another dtype
INTEGERS = frozenset({"i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64"})
COMPLEX = frozenset({"c64", "c128"})
REAL_OF = {
    "c64": "f32",
    "c128": "f64",
}  # of complex numbers: the dtype of their two parts, which lie side by side
COMPLEX_OF = {real: whole for whole, real in REAL_OF.items()}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value lives: strides in elements (None: row-major and dense), and the memory space."""

    strides: tuple[Size, ...] | None = None
    space: str = "arena"


@dataclass(frozen=True, slots=True)
class Type:
    """An array, written `f32[n,784]` as a value and `&f32[n,784; 1,n] @arena` as a place; a scalar has rank 0."""

    dtype: str
    shape: tuple[Size, ...] = ()
    place: Place | None = None

    def __str__(self) -> str:
        sizes = ",".join(map(str, self.shape))
        if self.place is None:
            return f"{self.dtype}[{sizes}]"
        strides = "" if self.place.strides is None else "; " + ",".join(map(str, self.place.strides))
        return f"&{self.dtype}[{sizes}{strides}] @{self.place.space}"

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> Size:
        """Number of elements."""
        return dims.product(self.shape)

    @property
    def bytes(self) -> Size:
        return dims.mul(self.size, itemsize(self.dtype))

    @property
    def value(self) -> Type:
        """Without its place."""
        return self if self.place is None else Type(self.dtype, self.shape)

    @property
    def strides(self) -> tuple[Size, ...]:
        """In elements; row-major unless the place says otherwise."""
        if self.place is not None and self.place.strides is not None:
            return self.place.strides
        return dense_strides(self.shape)

    def with_shape(self, *shape: Size) -> Type:
        return Type(self.dtype, shape)

    def with_dtype(self, dtype: str) -> Type:
        return Type(dtype, self.shape)

    def at(self, space: str, strides: tuple[Size, ...] | None = None) -> Type:
        """The place for such a value.  Row-major strides are written as none."""
        if strides == dense_strides(self.shape):
            strides = None
        return replace(self, place=Place(strides, space))

    def substitute(self, known: Mapping[str, Size]) -> Type:
        """With the names in `known` replaced: itself, where it has none of them."""
        place = self.place
        if place is not None and place.strides is not None:
            place = Place(tuple([dims.substitute(s, known) for s in place.strides]), place.space)
        shape = tuple([dims.substitute(s, known) for s in self.shape])
        return self if shape == self.shape and place == self.place else Type(self.dtype, shape, place)


def dense_strides(shape: tuple[Size, ...]) -> tuple[Size, ...]:
    """Row-major, in elements."""
    out: list[Size] = []
    step: Size = 1
    for size in reversed(shape):
        out.append(step)
        step = dims.mul(step, size)
    return tuple(reversed(out))


def bits_dtype(dtype: str) -> str:
    """A dtype of the same bytes, for copies that do not look at what they copy."""
    return "u16" if dtype in HALVES else dtype


def itemsize(dtype: str) -> int:
    """Bytes of one element in memory."""
    return DTYPES[dtype][1]


@functools.cache
def numpy_dtype(dtype: str) -> np.dtype[np.generic]:
    """The NumPy dtype that holds `dtype`; bfloat16 is interpreted as float32."""
    return np.dtype(DTYPES[dtype][0] or "float32")


@functools.cache
def memory_dtype(dtype: str) -> np.dtype[np.generic]:
    """The NumPy dtype of its bytes in memory: uint16 for bfloat16, which NumPy lacks."""
    return np.dtype("uint16") if dtype == "bf16" else numpy_dtype(dtype)


def promote(*dtypes: str) -> str:
    """NumPy's promotion of arrays."""
    if "bf16" in dtypes:
        others = [d for d in dtypes if d != "bf16"]
        return "bf16" if all(d in INTEGERS or d == "bool" for d in others) else promote(*others, "f32")
    return FROM_NUMPY[np.result_type(*(np.dtype(str(DTYPES[d][0])) for d in dtypes)).name]


_TYPE = re.compile(r"(&?)([a-z]+\d*)\[([^\];]*)(?:;([^\]]*))?\](?:\s*@(\w+))?")


def split_sizes(text: str) -> list[str]:
    """Cuts `n,min(a,b),3` at its outer commas."""
    out, depth, start = [], 0, 0
    for i, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if c == "," and depth == 0:
            out.append(text[start:i])
            start = i + 1
    return [*out, text[start:]] if text.strip() else []


def parse_type(text: str) -> Type:
    """Reads what `str` of a type writes; ValueError says what is wrong."""
    m = _TYPE.fullmatch(text.strip())
    if m is None or m[2] not in DTYPES:
        raise ValueError(f"not a type: {text!r} (expected something like f32[n,784])")
    shape = tuple(map(parse_size, split_sizes(m[3])))
    if not m[1]:
        if m[4] is not None or m[5] is not None:
            raise ValueError(
                f"not a type: {text!r} (only a place, written &{m[2]}[...], has strides or a space)"
            )
        return Type(m[2], shape)
    strides = None if m[4] is None else tuple(map(parse_size, split_sizes(m[4])))
    if strides is not None and len(strides) != len(shape):
        raise ValueError(f"not a type: {text!r} ({len(shape)} sizes but {len(strides)} strides)")
    return Type(m[2], shape, Place(strides, m[5] or "arena"))
