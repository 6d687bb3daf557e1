"""Arrays in a device's memory, and how they meet NumPy, torch, CuPy and JAX."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tcc.ir.arrays import as_numbers
from tcc.runtime import dlpack

if TYPE_CHECKING:
    from tcc.runtime.launch import Device

Array = np.ndarray[Any, Any]
DEFAULT_STREAM, NO_STREAM = 1, -1  # in DLPack's terms


class DeviceArray:
    """A C-contiguous array of a device.  Its memory goes back when nobody refers to it any more.

    `np.asarray` copies it to the host.  On a GPU it has `__cuda_array_interface__`, and everywhere `__dlpack__`, so torch, CuPy and
    JAX take it without a copy.  NumPy has no bfloat16: with `bfloat` an array of uint16 holds its bits, which other frameworks
    get as bfloat16 and `np.asarray` as float32.
    """

    def __init__(self, device: Device, shape: Sequence[int], dtype: Any, address: int | None = None) -> None:
        """`address` is of memory that `device.alloc` gave, and that is this array's from now on."""
        self.device, self.shape, self.dtype = device, tuple(map(int, shape)), np.dtype(dtype)
        self.nbytes = math.prod(self.shape) * self.dtype.itemsize
        self._owner: object = None
        self._lent = self.bfloat = False
        self.address = device.alloc(max(1, self.nbytes)) if address is None else address

    @classmethod
    def of(cls, device: Device, source: Array) -> DeviceArray:
        """A copy of an array of the host's."""
        made = cls(device, source.shape, source.dtype)
        if made.nbytes:
            device.to_device(made.address, np.ascontiguousarray(source))
        return made

    @classmethod
    def within(cls, whole: DeviceArray, offset: int, shape: Sequence[int], dtype: Any) -> DeviceArray:
        """A part of another one's memory, from a byte on; whether it is lent shows there too."""
        made = cls(whole.device, shape, dtype, whole.address + offset)
        made._owner = whole
        return made

    def move_out(self) -> None:
        """What is `within` another one gets memory of its own, with the same contents; within `with device:`."""
        address = self.device.alloc(max(1, self.nbytes))
        self.device.copy(address, self.address, self.nbytes)
        self.address, self._owner = address, None

    def _lend(self) -> None:
        """Others may work on the memory from now on."""
        self._lent = True
        if isinstance(self._owner, DeviceArray):
            self._owner._lend()

    @property
    def is_lent(self) -> bool:
        return self._lent

    @classmethod
    def from_other(cls, device: Device, other: Any) -> DeviceArray:
        """An array of torch, CuPy, JAX or NumPy on this device: its own memory where it lies on this GPU, else a copy.

        TypeError for what is no array or lies on another GPU, ValueError if it lies on this one and is not C-contiguous.
        """
        if isinstance(other, DeviceArray) and other.device is device:
            return other
        if isinstance(other, DeviceArray):
            return cls._of_kind(device, other.get(), other.bfloat)
        if not is_foreign(other):
            return cls.of(device, np.asarray(other))
        if hasattr(other, "__dlpack__"):
            where = tuple(map(int, other.__dlpack_device__()))
            if where[0] in (dlpack.CPU, dlpack.CUDA_HOST):
                return cls._of_kind(device, *dlpack.on_host(other))
            here = where == device.dlpack
        else:
            here = device.dlpack[0] == dlpack.CUDA and device.owns(dlpack.exposed(other).address)  # type: ignore[attr-defined]
        if not here:
            raise TypeError(f"{type(other).__name__} lies on another device than {device.name}: move it")
        found = _borrowed(device, other)
        if not _dense(found.shape, found.strides):
            raise ValueError(f"an array that {device.name} takes must be C-contiguous: copy it first")
        made = cls(device, found.shape, found.dtype, found.address)
        made._owner, made.bfloat = found.owner, found.bfloat
        return made

    @classmethod
    def _of_kind(cls, device: Device, source: Array, bfloat: bool) -> DeviceArray:
        made = cls.of(device, source)
        made.bfloat = bfloat
        return made

    @property
    def is_borrowed(self) -> bool:
        """Whether the memory is another framework's, which must not be let go while the device works on it."""
        return self._owner is not None and not isinstance(self._owner, DeviceArray)

    def __del__(self) -> None:
        if getattr(self, "_owner", self) is None and "address" in self.__dict__:
            try:
                if self._lent:  # others' streams may still work on it
                    self.device.settle()  # type: ignore[attr-defined]
                self.device.free(self.address)
            except Exception:  # the interpreter may be half gone
                pass

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def get(self, out: Array | None = None) -> Array:
        """A copy on the host, in `out` (C-contiguous, of this shape and dtype) if it is given; of bfloat16 its bits."""
        out = np.empty(self.shape, self.dtype) if out is None else out
        if self.nbytes:
            with self.device:  # where the address stays what it is
                self.device.to_host(out, self.address)
        return out

    def copy(self) -> DeviceArray:
        made = DeviceArray(self.device, self.shape, self.dtype)
        with self.device:
            self.device.copy(made.address, self.address, self.nbytes)
        made.bfloat = self.bfloat
        return made

    def numbers(self) -> Array:
        """A copy on the host, bfloat16 as float32."""
        return as_numbers(self.get(), "bf16") if self.bfloat else self.get()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError(f"an array of {self.device.name} is copied when it becomes one of the host")
        found = self.numbers()
        return found if dtype is None else found.astype(dtype, copy=False)

    def item(self) -> Any:
        """The only element, as a number of Python's."""
        return self.numbers().item()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        return bool(self.numbers())

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled and copied as its values, which go to the device of that name."""
        return DeviceArray._of_kind, (self.device, self.get(), self.bfloat)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("an array without axes has no length")
        return self.shape[0]

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        if self.device.dlpack[0] != dlpack.CUDA:
            raise AttributeError(f"{self.device.name} is no GPU")
        self.device.synchronise()
        self._lend()
        return {
            "shape": self.shape,
            "typestr": dlpack.typestr(self.dtype, self.bfloat),
            "data": (self.address, False),
            "strides": None,
            "version": 3,
            "stream": None,  # nothing is to be waited for
        }

    def __dlpack__(
        self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: Any = None
    ) -> Any:
        """A capsule, which the consumer's `stream` may read at once: what makes the values comes before in it (None: in the
        default stream; -1: nowhere, as its caller sees to that)."""
        if dl_device is not None and tuple(dl_device) != self.device.dlpack:
            raise BufferError(f"an array of {self.device.name} does not move by itself")
        source = self.copy() if copy else self
        if self.device.dlpack[0] == dlpack.CUDA:
            if stream != NO_STREAM:
                self.device.precede(DEFAULT_STREAM if stream is None else int(stream))  # type: ignore[attr-defined]
            source._lend()
        return dlpack.lend(source.address, self.dtype, self.shape, self.device.dlpack, source, self.bfloat)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device.dlpack

    def __repr__(self) -> str:
        dtype = "bfloat16" if self.bfloat else self.dtype
        return f"DeviceArray({np.array2string(self.numbers(), separator=', ')}, {dtype}, {self.device.name})"


def is_foreign(value: Any) -> bool:
    """Whether it is an array of another framework, which may lie on a device."""
    return not isinstance(value, np.ndarray | np.generic) and (
        hasattr(value, "__dlpack_device__") or hasattr(value, "__cuda_array_interface__")
    )


def _borrowed(device: Any, other: Any) -> dlpack.Borrowed:
    """Another framework's memory, ready for the device's stream."""
    if hasattr(other, "__dlpack__"):
        return dlpack.borrow(other.__dlpack__(stream=device.stream))
    found = dlpack.exposed(other)
    stream = other.__cuda_array_interface__.get("stream")
    if stream is not None:
        device.follow(stream)
    return found


def _dense(shape: tuple[int, ...], strides: tuple[int, ...] | None) -> bool:
    if strides is None or 0 in shape:
        return True
    step = 1
    for size, stride in zip(reversed(shape), reversed(strides)):
        if size != 1 and stride != step:
            return False
        step *= size
    return True
