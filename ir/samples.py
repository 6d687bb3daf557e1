"""Random operands for the instances of rows that the op table names."""

from __future__ import annotations

from typing import Any

import numpy as np

from tcc.ir.arrays import Array
from tcc.ir.optable import Sample
from tcc.ir.types import Type, numpy_dtype, parse_type


def sample_types(sample: Sample) -> list[Type]:
    return [parse_type(t) for t in sample.types]


def draw(sample: Sample, rng: np.random.Generator) -> list[Array]:
    """One array for each operand; numbers lie within the sample's range, integers on its bounds too."""
    return [draw_array(t, rng, sample.low, sample.high) for t in sample_types(sample)]


def draw_array(type: Type, rng: np.random.Generator, low: float, high: float) -> Array:
    dtype = numpy_dtype(type.dtype)
    shape: Any = type.shape
    if dtype.kind == "b":
        return np.asarray(rng.integers(0, 2, shape)).astype(dtype)
    if dtype.kind in "iu":
        return np.asarray(rng.integers(int(np.ceil(low)), int(np.floor(high)), shape, endpoint=True)).astype(
            dtype
        )
    if dtype.kind == "c":
        return np.asarray(rng.uniform(low, high, shape) + 1j * rng.uniform(low, high, shape)).astype(dtype)
    return np.asarray(rng.uniform(low, high, shape)).astype(dtype)
