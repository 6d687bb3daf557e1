"""The library within a bundle as a model's entries and state; only `tcc.load` uses it, for a file that its user trusts."""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from tcc.ir import safetensors
from tcc.ir.arrays import as_numbers, in_memory
from tcc.ir.core import Func
from tcc.ir.safetensors import Data
from tcc.ir.types import numpy_dtype
from tcc.runtime import library
from tcc.runtime.bundle import Bundle
from tcc.runtime.manifest import Entry

Array = np.ndarray[Any, Any]


class Named(NamedTuple):
    name: str


class NativeVariable:
    """A variable of the state, in the memory of the library's context; its shape is fixed.  bfloat16 has float32 for its values."""

    def __init__(self, name: str, dtype: str, state: Mapping[str, Array]) -> None:
        self.name, self.dtype, self._state = name, dtype, state

    @property
    def memory(self) -> Array:
        """What the library works on."""
        return self._state[self.name]

    def get_value(self, borrow: bool = False) -> Array:
        """A copy of the value; with `borrow` the array itself where NumPy has its dtype."""
        memory = self.memory
        value = as_numbers(memory, self.dtype)
        return value.copy() if value is memory and not borrow else value

    def set_value(self, new_value: Any, borrow: bool = False) -> None:
        """TypeError for another dtype or shape."""
        self.memory[...] = in_memory(self.filter(new_value), self.dtype)

    def filter(self, value: Any) -> Array:
        new, old = np.asarray(value), self.memory
        dtype = numpy_dtype(self.dtype)
        if new.dtype != dtype or new.shape != old.shape:
            raise TypeError(f"{self.name} is {dtype}{list(old.shape)}, got {new.dtype}{list(new.shape)}")
        return new


class NativeEntry:
    """An entry that takes and returns what the function that it was made of did: for bfloat16 float32."""

    def __init__(self, entry: Entry, call: library.Entry, func: Func | None) -> None:
        self.name, self.entry, self.func, self._call = entry.name, entry, func, call
        self.parameters = [Named(a.name) for a in entry.arguments]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        halves = {a.name for a in self.entry.arguments if a.dtype == "bf16"}
        args = (
            tuple(self._halved(p.name, v) if p.name in halves else v for p, v in zip(self.parameters, args))
            + args[len(self.parameters) :]
        )
        kwargs = {n: self._halved(n, v) if n in halves else v for n, v in kwargs.items()}
        made = self._call(*args, **kwargs)
        listed = [] if made is None else list(made) if isinstance(made, tuple) else [made]
        listed = [as_numbers(a, r.dtype) for a, r in zip(listed, self.entry.results, strict=True)]
        if self.entry.returns == "array":
            return listed[0]
        return (
            dict(zip((r.name for r in self.entry.results), listed))
            if self.entry.returns == "dict"
            else listed
        )

    def _halved(self, name: str, value: Any) -> Any:
        """A bfloat16 argument as the library takes it: its bits, or the array of another framework as it is."""
        if hasattr(value, "__dlpack__") and not isinstance(value, np.ndarray | np.generic):
            return value
        array = np.asarray(value)
        if array.dtype != np.float32 and not (np.isscalar(value) or isinstance(value, list | tuple)):
            raise TypeError(
                f"{self.name}: {name} is {array.dtype}, wanted float32, which is rounded to bfloat16"
            )
        return in_memory(array, "bf16")


def opened(file: Bundle, threads: int) -> library.Model | None:
    """The library of a bundle with the bundle's state, loaded from memory; None if there is none for this machine.

    ModelError if this CPU lacks what it needs.
    """
    target, shared = file.manifest.target, file.manifest.file("shared")
    this = os.uname()
    if target is None or shared is None or this.sysname != "Linux" or "linux" not in target.triple:
        return None
    if target.triple.split("-")[0] != this.machine:
        return None
    model = library.Model(_in_memory(file.members[shared.name]), threads, None, file.manifest.name)
    names = [t.name for t in file.manifest.state]
    if names:
        model.restore_from(b"".join(safetensors.encode({n: file.tensors[n] for n in names})))
    return model


def _in_memory(code: Data) -> ctypes.CDLL:
    """A library from its bytes, wherever programs may lie.  The link is for a name of its own: of one that is known, the
    system gives what it has."""
    with (
        tempfile.TemporaryDirectory(prefix="tcc-") as folder,
        os.fdopen(os.memfd_create("tcc-model"), "wb") as memory,
    ):
        memory.write(code)
        memory.flush()
        link = os.path.join(folder, "library")
        os.symlink(f"/proc/self/fd/{memory.fileno()}", link)
        return ctypes.CDLL(link)
