"""Runs emitted elementwise code on arrays, and measures errors in units in the last place."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tcc.codegen.emit import Emit
from tcc.codegen.jit import Image, compile_object, function
from tcc.codegen.scalar import load, memory_elem, store
from tcc.codegen.target import Target
from tcc.ir.types import DTYPES, FROM_NUMPY
from tcc.runtime.symbols import symbols

Array = np.ndarray[Any, Any]
Writer = Callable[..., str]  # (Emit, *loaded operands) -> the result's text


class Library:
    """Elementwise functions of vectors of `lanes`, compiled together: name -> (operand dtypes, result dtype, writer)."""

    def __init__(
        self, functions: Mapping[str, tuple[Sequence[str], str, Writer]], target: Target, lanes: int
    ) -> None:
        self.lanes = lanes
        self.results = {name: result for name, (_, result, _) in functions.items()}
        e = Emit()
        for name, (dtypes, result, write) in functions.items():
            params = ", ".join(f"ptr %x{k}" for k in range(len(dtypes)))
            e.function(f"void @f_{name}(i64 %n, {params}, ptr %y)")

            def body(index: str, _: list[str]) -> None:
                values = [
                    load(e, target, d, lanes, e.gep(f"%x{k}", index, memory_elem(d)))
                    for k, d in enumerate(dtypes)
                ]
                store(e, target, result, lanes, write(e, *values), e.gep("%y", index, memory_elem(result)))

            e.loop(0, "%n", lanes, body)
            e.end()
        text = "\n".join([*e.declared, e.text()])
        self.image = Image.load([compile_object(text, target)], symbols())

    def __call__(self, name: str, *operands: Array) -> Array:
        n = operands[0].size
        pad = -n % self.lanes
        padded = [np.concatenate([a, np.ones(pad, a.dtype)]) for a in operands]
        result = np.empty(n + pad, DTYPES[self.results[name]][0])
        pointers = [ctypes.c_void_p] * (len(padded) + 1)
        call = function(self.image.address(f"f_{name}"), None, ctypes.c_int64, *pointers)
        call(n + pad, *(a.ctypes.data for a in padded), result.ctypes.data)
        return result[:n]


def dtype_of(a: Array) -> str:
    return FROM_NUMPY[a.dtype.name]


def ulps(got: Array, exact: Array) -> Array:
    """The distance of `got` from the longdouble `exact`; inf where one is finite, NaN or of a sign that the other is not."""
    with np.errstate(all="ignore"):
        rounded = exact.astype(got.dtype)
        distance = np.abs(got.astype(np.longdouble) - exact) / np.spacing(np.abs(rounded))
    alike = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
    finite = np.isfinite(got) & np.isfinite(rounded)
    return np.where(alike & ~finite, 0.0, np.where(finite, distance.astype(float), np.inf))
