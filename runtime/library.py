"""The Python loader of a model's library, written by `tcc compile`; it needs NumPy alone.

model = load()
y = model(x)                    a model of one entry; model.ENTRY(x) else, and arguments by name; several results have names
model.state["W"]                a view of the state, to read or write
model.save("w.safetensors")     and model.restore("w.safetensors")
"""

from __future__ import annotations

import ctypes
import os
from collections import namedtuple
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

NAME = "model"
LIBRARY = "libmodel.so"

TCC_OK, TCC_SIZE = 0, 5
_KINDS = {0: "int", 1: "uint", 2: "float", 4: "bfloat", 5: "complex", 6: "bool"}


class Tensor(ctypes.Structure):  # DLTensor
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device", ctypes.c_int32 * 2),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


class Spec(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("shape", ctypes.c_char_p),
        ("least", ctypes.POINTER(ctypes.c_int64)),
        ("most", ctypes.POINTER(ctypes.c_int64)),
        ("dtype", ctypes.c_char_p),
        ("rank", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("alignment", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
    ]


class _Entry(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("arguments", ctypes.c_int32),
        ("results", ctypes.c_int32),
        ("tensors", ctypes.POINTER(Spec)),
    ]


class _Info(ctypes.Structure):
    _fields_ = [
        ("abi", ctypes.c_int32),
        ("entry_count", ctypes.c_int32),
        ("name", ctypes.c_char_p),
        ("version", ctypes.c_char_p),
        ("triple", ctypes.c_char_p),
        ("features", ctypes.c_char_p),
        ("entries", ctypes.POINTER(_Entry)),
        ("state", ctypes.POINTER(Spec)),
        ("state_count", ctypes.c_int32),
        ("threads", ctypes.c_int32),
    ]


class _Options(ctypes.Structure):
    _fields_ = [("threads", ctypes.c_int32), ("device", ctypes.c_int32), ("weights", ctypes.c_char_p)]


class ModelError(ValueError):
    """What the library refuses; `status` is its number in the header."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


def dtype_of(spec: Spec) -> np.dtype[Any]:
    """NumPy has no bfloat16: its 16 bits are uint16."""
    if spec.code == 4:
        return np.dtype("uint16")
    return np.dtype("bool" if spec.code == 6 else f"{_KINDS[spec.code]}{spec.bits}")


def _tensor(array: np.ndarray[Any, Any], spec: Spec) -> Tensor:
    shape = (ctypes.c_int64 * max(1, array.ndim))(*array.shape)
    made = Tensor(array.ctypes.data, (1, 0), array.ndim, spec.code, spec.bits, 1, shape, None, 0)
    made.kept = array
    return made


def _lent(value: Any) -> Tensor:
    """The tensor of an array that has `__dlpack__`, where it lies."""
    capsule = value.__dlpack__()
    kind = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
    address = kind(("PyCapsule_GetPointer", ctypes.pythonapi))(capsule, b"dltensor")
    made = Tensor.from_address(address)
    made.kept = capsule
    return made


def _list(tensors: list[Tensor]) -> Any:
    return (ctypes.POINTER(Tensor) * max(1, len(tensors)))(*map(ctypes.pointer, tensors))


class Entry:
    """One function of a model, called with arrays in their order or by their names."""

    def __init__(self, model: Model, info: _Entry) -> None:
        self._model, self.name = model, info.name.decode()
        self._inputs = info.tensors[: info.arguments]
        self._outputs = info.tensors[info.arguments : info.arguments + info.results]
        # its own name may be no name for a class, as `lambda`
        self._several = namedtuple("Results", self.results, rename=True)  # type: ignore[misc]

    @property
    def results(self) -> list[str]:
        """The names of what a call gives."""
        return [s.name.decode() for s in self._outputs]

    def __repr__(self) -> str:
        def one(s: Spec) -> str:
            return f"{s.name.decode()}: {s.dtype.decode()}[{s.shape.decode()}]"

        return f"{self.name}({', '.join(map(one, self._inputs))}) -> ({', '.join(map(one, self._outputs))})"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The result, or a named tuple of several.  TypeError for wrong arguments, ModelError for what the library refuses."""
        model = self._model
        given = list(map(self._input, self._inputs, self._arguments(args, kwargs)))
        inputs, shown = _list(given), [Tensor() for _ in self._outputs]
        rooms = [(ctypes.c_int64 * max(1, spec.rank))() for spec in self._outputs]
        for tensor, room in zip(shown, rooms):
            tensor.shape = room
        model.check(model.call(f"{self.name}_infer_shapes", model.context, inputs, _list(shown)))
        wanted = [tuple(room[: spec.rank]) for spec, room in zip(self._outputs, rooms)]
        while True:
            shapes = [tuple(max(0, n) for n in shape) for shape in wanted]
            arrays = [np.empty(s, dtype_of(spec)) for s, spec in zip(shapes, self._outputs)]
            results = list(map(_tensor, arrays, self._outputs))
            status = model.call(f"{self.name}_run", model.context, inputs, _list(results), None)
            now = [tuple(r.shape[: r.ndim]) for r in results]
            if (
                status != TCC_SIZE or now == shapes
            ):  # else a size that depends on data: there is room for it now
                model.check(status)
                break
            wanted = now
        made = [a.reshape(-1)[: int(np.prod(s))].reshape(s) for a, s in zip(arrays, now)]
        return made[0] if len(made) == 1 else self._several(*made) if made else None

    def _arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Any]:
        names = [s.name.decode() for s in self._inputs]
        rest = names[len(args) :]
        if len(args) > len(names) or set(kwargs) != set(rest):
            raise TypeError(f"{self.name} takes {', '.join(names) or 'nothing'}")
        return [*args, *(kwargs[n] for n in rest)]

    def _input(self, spec: Spec, value: Any) -> Tensor:
        """bfloat16 is an array with `__dlpack__`, such as torch's, or one of its bits: of uint16, or of ml_dtypes' dtype."""
        bfloat = spec.code == 4
        if bfloat and hasattr(value, "__dlpack__") and not isinstance(value, np.ndarray | np.generic):
            return _lent(value)
        array = np.asarray(value)
        if bfloat and array.dtype.name == "bfloat16":
            array = array.view("uint16")
        dtype = dtype_of(spec)
        plain = np.isscalar(value) or isinstance(value, list | tuple)
        if array.dtype != dtype and (bfloat or not plain):
            wanted = "bfloat16, or uint16 with its bits" if bfloat else dtype
            raise TypeError(f"{self.name}: {spec.name.decode()} is {array.dtype}, wanted {wanted}")
        return _tensor(np.require(array, dtype, ["C", "A"]), spec)


class State(Mapping[str, "np.ndarray[Any, Any]"]):
    """Views of a model's own memory by name."""

    def __init__(self, model: Model) -> None:
        info = model.info
        self._model, self._specs = model, {s.name.decode(): s for s in info.state[: info.state_count]}

    def __getitem__(self, name: str) -> np.ndarray[Any, Any]:
        tensor, spec = Tensor(), self._specs[name]
        self._model.check(
            self._model.call("state_get", self._model.context, name.encode(), ctypes.byref(tensor))
        )
        shape = tuple(tensor.shape[: tensor.ndim])
        count = int(np.prod(shape)) * spec.bits // 8
        memory = (ctypes.c_uint8 * count).from_address(tensor.data)
        memory.model = self._model  # a view keeps the context alive
        return np.frombuffer(memory, dtype_of(spec)).reshape(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._specs)

    def __len__(self) -> int:
        return len(self._specs)


class Model:
    """A model with a state of its own."""

    def __init__(
        self, library: ctypes.CDLL, threads: int, weights: str | None, name: str, device: int = 0
    ) -> None:
        self._library, self.name = library, name
        self.info = self.c_function("info", ctypes.POINTER(_Info))().contents
        self._error = self.c_function("last_error", ctypes.c_char_p)
        options = _Options(threads, device, None if weights is None else os.fsencode(weights))
        self._destroy = self.c_function("destroy", None)
        self.context = ctypes.c_void_p(self.c_function("create", ctypes.c_void_p)(ctypes.byref(options)))
        if not self.context:
            raise ModelError(self._error().decode())
        self.state = State(self)
        self.entries = {e.name.decode(): Entry(self, e) for e in self.info.entries[: self.info.entry_count]}

    def c_function(self, name: str, result: Any) -> Any:
        function = getattr(self._library, f"{self.name}_{name}")
        function.restype = result
        return function

    def call(self, name: str, *args: Any) -> int:
        """The status of a function of the library."""
        return int(getattr(self._library, f"{self.name}_{name}")(*args))

    def check(self, status: int) -> None:
        """ModelError with what the library says, unless the status is TCC_OK."""
        if status != TCC_OK:
            raise ModelError(self._error().decode(), status)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if len(self.entries) != 1:
            raise TypeError(f"{self.name} has several entries: {', '.join(self.entries)}")
        (entry,) = self.entries.values()
        return entry(*args, **kwargs)

    def __getattr__(self, name: str) -> Entry:
        try:
            return self.__dict__["entries"][name]  # type: ignore[no-any-return]
        except KeyError:
            raise AttributeError(f"{self.__dict__.get('name')} has no entry {name}") from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the state as a safetensors file."""
        size = self.c_function("state_size", ctypes.c_int64)(self.context)
        buffer = ctypes.create_string_buffer(size)
        self.check(self.call("state_save", self.context, buffer, ctypes.c_int64(size)))
        with open(path, "wb") as file:
            file.write(buffer.raw)

    def restore(self, path: str | os.PathLike[str]) -> None:
        """Takes the state that `save` wrote."""
        with open(path, "rb") as file:
            self.restore_from(file.read())

    def restore_from(self, data: bytes) -> None:
        """Takes the state from the bytes of such a file."""
        self.check(self.call("state_load", self.context, data, ctypes.c_int64(len(data))))

    def __del__(self) -> None:
        if self.__dict__.get("context"):
            self._destroy(self.context)
            self.context = ctypes.c_void_p()


def load(
    library: str | os.PathLike[str] | None = None,
    threads: int = 0,
    weights: str | None = None,
    name: str = NAME,
    device: int = 0,
) -> Model:
    """The model of the library beside this file; `weights` names a file to take the state from, as `save` writes it, `device`
    is the number of the GPU of a library for GPUs, whose state is to be asked for anew after each call."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), LIBRARY) if library is None else library
    return Model(ctypes.CDLL(os.fspath(path)), threads, weights, name, device)
