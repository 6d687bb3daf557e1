"""Arrays that a function reads from files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tcc.types import TensorType, generic
from tcc.user_op import Apply, Op
from tcc.variable import Constant, Variable

__all__ = ["LoadFromDisk", "load"]


class LoadFromDisk(Op):
    """The array in an .npy file, which must be of `dtype` and have the flags `broadcastable`."""

    __props__ = ("dtype", "broadcastable", "mmap_mode")

    def __init__(self, dtype: Any, broadcastable: Sequence[bool], mmap_mode: str | None = None) -> None:
        self.dtype, self.broadcastable = np.dtype(dtype).name, tuple(map(bool, broadcastable))
        if mmap_mode not in (None, "c"):
            raise ValueError(f"The only supported values for mmap_mode are None and 'c', got {mmap_mode}")
        self.mmap_mode: Any = mmap_mode

    def make_node(self, path: Any) -> Apply:
        if isinstance(path, str):
            path = Constant(generic, path)
        if not isinstance(path, Variable) or path.type != generic:
            raise TypeError(
                f"the path is a string, or a variable of Generic type that holds one, got {path!r}"
            )
        return Apply(self, [path], [TensorType(self.dtype, self.broadcastable)()])

    def perform(self, node: Any, inputs: list[Any], output_storage: list[list[Any]]) -> None:
        found = np.load(inputs[0], mmap_mode=self.mmap_mode)
        if found.dtype != self.dtype or found.ndim != len(self.broadcastable):
            raise TypeError(
                f"Trying to load an array of dtype {found.dtype} with {found.ndim} axes from {inputs[0]}, expected "
                f"{node.outputs[0].type}"
            )
        output_storage[0][0] = found


def load(path: Any, dtype: Any, broadcastable: Sequence[bool], mmap_mode: str | None = None) -> Any:
    """The array in an .npy file, read whenever the function runs.

    `path` is a string or a variable of Generic type.  With mmap_mode="c" the file is mapped into memory, not read.
    TypeError when the function runs for an array of another dtype or rank.
    """
    return LoadFromDisk(dtype, broadcastable, mmap_mode)(path)
