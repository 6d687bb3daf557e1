"""Shared variables: values that live from call to call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tcc.ir.arrays import as_numbers, in_memory
from tcc.ir.types import FROM_NUMPY
from tcc.locations import user_location
from tcc.operators import TensorOperators
from tcc.runtime.buffers import Container, ObjectContainer
from tcc.runtime.device_arrays import DeviceArray, is_foreign
from tcc.runtime.dlpack import CUDA, on_host
from tcc.settings import device_name
from tcc.types import TensorType, generic
from tcc.variable import SharedVariable, Variable


def _on_its_device(value: Any) -> DeviceArray | None:
    """An array of torch, CuPy or JAX where it lies; None for one of the host's."""
    kind, number = getattr(value, "__dlpack_device__", lambda: (CUDA, 0))()
    if kind != CUDA:
        return None
    from tcc.devices import open_device

    return DeviceArray.from_other(open_device(f"cuda{int(number)}"), value)


class TensorSharedVariable(TensorOperators, SharedVariable):
    """An array that functions read and update."""

    container: Container
    strict: bool = False
    allow_downcast: bool | None = None

    def __init__(self, type: TensorType, container: Container, name: str | None = None) -> None:
        self.type, self.owner, self.index, self.name = type, None, None, name
        self.loc = user_location()
        self.container = container
        self.default_update: Any = None
        if name:
            container.name = name

    def get_value(self, borrow: Any = False, return_internal_type: bool = False) -> Any:
        """A copy of the value; with `borrow` the array itself, which later calls may change.

        With `return_internal_type`, of a variable that lives on a device, it is an array of that device.
        """
        if return_internal_type:
            from tcc.devices import chosen

            device = chosen(None, [self.target])
            if device is not None:
                with self.container.held(write=False):
                    found = self.container.on(device)
                    found.bfloat = self.type.ir == "bf16"
                    return found if borrow else found.copy()
        return as_numbers(self.container.get(bool(borrow)), self.type.ir)

    def set_value(self, new_value: Any, borrow: bool = False) -> None:
        """A new value of the same dtype and rank, of any sizes; TypeError names the variable.

        An array of a device (of tcc's, or of torch, CuPy or JAX) stays there.
        """
        if is_foreign(new_value):
            found = new_value if isinstance(new_value, DeviceArray) else _on_its_device(new_value)
            if found is not None:
                self._set_on_device(found if borrow else found.copy())
                if found.is_borrowed and not borrow:
                    found.device.synchronise()  # its owner may let go of it now
                return
            array, bfloat = on_host(new_value)
            new_value = as_numbers(array, "bf16") if bfloat else array
        try:
            value = self.type.filter(new_value, self.strict, self.allow_downcast)
        except (TypeError, ValueError) as e:
            name = f'Container name "{self.name}"' if self.name else "Container without name"
            e.args = (f"{name}: {e}",)
            raise
        self.container.set(_stored(value, self.type), borrow=borrow and isinstance(new_value, np.ndarray))

    def _set_on_device(self, value: DeviceArray) -> None:
        odd = value.bfloat and self.type.ir != "bf16"
        if odd or value.dtype != self.container.dtype or value.ndim != self.container.rank:
            dtype = "bfloat16" if value.bfloat else value.dtype
            raise TypeError(
                f"{self.name or 'a shared variable'} is {self.type}, got an array of {dtype} and rank {value.ndim}"
            )
        with self.container.held(write=True):
            self.container.left_on(value)

    def zero(self, borrow: bool = False) -> None:
        """All elements become 0."""
        self.container.set(np.zeros(self.container.shape, self.container.dtype), borrow=True)

    def clone(self) -> TensorSharedVariable:
        """Another variable with the same container."""
        copy = TensorSharedVariable(self.type, self.container, self.name)
        copy.default_update, copy.target = None, self.target
        if "tag" in self.__dict__:
            copy.tag.__dict__.update(self.tag.__dict__)
        return copy

    @property
    def value(self) -> Any:
        raise Exception(
            "sharedvar.value does not exist anymore. Use sharedvar.get_value() or sharedvar.set_value() instead."
        )

    @value.setter
    def value(self, _: Any) -> None:
        raise Exception(
            "sharedvar.value does not exist anymore. Use sharedvar.get_value() or sharedvar.set_value() instead."
        )


def _stored(value: Any, type: TensorType) -> Any:
    """An array of the type as its container keeps it."""
    return in_memory(value, "bf16") if type.ir == "bf16" else value


class GenericSharedVariable(SharedVariable):
    """Any Python object as a shared value."""

    container: ObjectContainer

    def __init__(self, container: ObjectContainer, name: str | None = None) -> None:
        self.type, self.owner, self.index, self.name = generic, None, None, name
        self.loc = user_location()
        self.container = container

    def get_value(self, borrow: Any = False, return_internal_type: bool = False) -> Any:
        return self.container.get(bool(borrow))

    def set_value(self, new_value: Any, borrow: bool = False) -> None:
        self.container.set(new_value, borrow)

    def clone(self) -> GenericSharedVariable:
        return GenericSharedVariable(self.container, self.name)


def shared(
    value: Any,
    name: str | None = None,
    strict: bool = False,
    allow_downcast: bool | None = None,
    borrow: bool = False,
    broadcastable: Sequence[bool] | None = None,
    target: str | None = None,
    shape: Sequence[int | None] | None = None,
    dtype: str | None = None,
) -> Any:
    """A variable whose value functions share.  `borrow` keeps the array itself instead of a copy.

    Numbers take NumPy's own dtype (1.0 is float64) unless `dtype` names another, to which values are cast; bfloat16 takes
    two bytes of an element here, and its values are float32.  Lists and other objects are kept as objects.  No axis broadcasts unless
    `broadcastable` says so; `shape` fixes sizes.  `strict` and `allow_downcast` say what `set_value` converts.
    `target` names the device on which functions of it run, unless they or `config.device` say otherwise.
    """
    if isinstance(value, Variable):
        raise TypeError(
            "Shared variable constructor needs numeric values and not symbolic variables: pass x.get_value() or an array."
        )
    if hasattr(value, "tocsr") and getattr(value, "format", None) in ("csr", "csc"):
        from tcc import sparse

        return sparse.shared(value, name, borrow)
    if not isinstance(value, np.ndarray | np.generic | bool | int | float):
        return GenericSharedVariable(ObjectContainer(value, borrow), name)
    array = np.asarray(value)
    if array.dtype.hasobject or array.dtype.name not in FROM_NUMPY:
        return GenericSharedVariable(ObjectContainer(value, borrow), name)
    sizes = tuple(shape) if shape is not None else (None,) * array.ndim
    if broadcastable is not None:
        if len(broadcastable) != len(sizes):
            raise TypeError(
                f"Wrong number of dimensions: expected {len(broadcastable)}, which broadcastable={tuple(broadcastable)} has, "
                f"got {len(sizes)} with shape {array.shape}."
            )
        sizes = tuple(1 if b else s for b, s in zip(broadcastable, sizes))
    type = TensorType(array.dtype.name if dtype is None else dtype, shape=sizes)
    array = type.filter(array if dtype is None else type.carried(array), strict, allow_downcast)
    made = TensorSharedVariable(type, Container(_stored(array, type), borrow), name)
    made.strict, made.allow_downcast = strict, allow_downcast
    if target is not None:
        device_name(target)
        made.target = target
    return made
