"""Names of Theano's two GPU back ends.  Where a variable's value lies is a function's affair here, so that what moves one is the
variable itself, and a GPU's types are tensors' types."""

from __future__ import annotations

from typing import Any

import numpy as np

from tcc import sharedvar
from tcc.creation import alloc, zeros
from tcc.settings import config
from tcc.theano.legacyop import LegacyOp
from tcc.types import TensorType
from tcc.user_op import Op
from tcc.variable import as_variable


def in_use() -> bool:
    """Whether functions are made for a GPU, or the flag `dnn.enabled=True` has programs go on that refuse to run without one."""
    return not config.device.startswith("cpu") or str(config.dnn.enabled) == "True"


def __getattr__(name: str) -> Any:
    """What modules say of this when they are first asked."""
    if name == "enabled":
        return in_use()
    raise AttributeError(name)


def unuse() -> None:
    """Functions made from now on are for the CPU."""
    config.device = "cpu"


class _Moved(LegacyOp):
    def apply(self, x: Any, *_: Any) -> Any:
        return as_variable(x)


class HostFromGpu(_Moved):
    """Its operand."""


class GpuFromHost(_Moved):
    """Its operand."""

    options = {"context_name": None}


class GpuToGpu(GpuFromHost):
    """Its operand."""


class GpuContiguous(_Moved):
    """Its operand: arrays of a graph have no strides."""


gpu_from_host, host_from_gpu, gpu_contiguous = GpuFromHost(), HostFromGpu(), GpuContiguous()


def as_gpuarray_variable(x: Any, context_name: Any = None) -> Any:
    """`x` as a variable."""
    return as_variable(x)


def infer_context_name(*variables: Any) -> None:
    """The name of the GPU on which variables lie: they lie on none until a function is made."""


class GpuAlloc(LegacyOp):
    """`GpuAlloc(context)(value, *shape)`: an array filled with a value."""

    options = {"context_name": None, "memset_0": False}

    def apply(self, value: Any, *shape: Any) -> Any:
        return alloc(value, *shape)


class OldGpuAlloc(GpuAlloc):
    """`GpuAlloc()(value, *shape)`."""

    options = {"memset_0": False}


class GpuAllocEmpty(LegacyOp):
    """`GpuAllocEmpty(dtype, context)(*shape)`: an array of zeros, where Theano's has any values."""

    options = {"dtype": "float32", "context_name": None}

    def apply(self, *shape: Any) -> Any:
        return zeros(list(shape), self.dtype)


class OldGpuAllocEmpty(GpuAllocEmpty):
    """`GpuAllocEmpty()(*shape)`."""

    options = {}
    dtype = "float32"


gpu_alloc, gpu_alloc_empty = OldGpuAlloc(), OldGpuAllocEmpty()


def empty_like(var: Any) -> Any:
    """An array of zeros, with the sizes and dtype of another."""
    var = as_variable(var)
    return zeros(var.shape, var.type.dtype)


# -- types and values ------------------------------------------------------------------------------------------------------


class CudaNdarrayType:
    """`CudaNdarrayType(broadcastable)` is the type of tensors of float32; nothing is an instance."""

    def __new__(cls, broadcastable: Any, name: str | None = None, dtype: str | None = None) -> Any:
        if dtype not in (None, "float32"):
            raise TypeError(f"CudaNdarrayType is of float32, got {dtype}")
        return TensorType("float32", broadcastable)


class GpuArrayType:
    """`GpuArrayType(dtype, broadcastable)` is the type of tensors; nothing is an instance."""

    def __new__(
        cls, dtype: str, broadcastable: Any, context_name: Any = None, name: str | None = None
    ) -> Any:
        return TensorType(dtype, broadcastable)


class CudaNdarray:
    """`CudaNdarray(array)` is an array of float32; nothing is an instance."""

    def __new__(cls, value: Any) -> Any:
        return np.asarray(value, "float32")


class GpuVariable:
    """The class of variables that lie on a GPU: no variable is an instance."""


def shared_constructor(
    value: Any,
    name: str | None = None,
    strict: bool = False,
    allow_downcast: bool | None = None,
    borrow: bool = False,
    broadcastable: Any = None,
    target: Any = None,
) -> Any:
    """A shared variable of float32, of an array of float32; TypeError for others."""
    if not isinstance(value, np.ndarray) or value.dtype != np.float32:
        raise TypeError(f"an array of float32 is needed, got {value!r:.80}")
    return sharedvar.shared(value, name, strict, allow_downcast, borrow=borrow, broadcastable=broadcastable)


class COp(Op):
    """The base of ops whose code is in files of C.  tcc runs no C: a subclass needs `perform`, and applying one without it
    raises an error that names it."""

    c_code: Any = None

    def __init__(self, func_files: Any = None, func_name: str | None = None) -> None:
        self.func_files, self.func_name = func_files, func_name
