"""`tcc.load`: models from bundles, of which nothing is unpickled, imported by name or run that was not trusted."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tcc import native
from tcc.callables import InterpretedFunction, compiled
from tcc.functions import DictFunction, In, InputContainer, parameter
from tcc.ir.core import Func, Module
from tcc.ir.safetensors import Tensor, tensor
from tcc.ir.text import ParseError, parse
from tcc.ir.types import Type
from tcc.ir.verify import VerifyError, verify
from tcc.locations import NOWHERE, located_at
from tcc.lower import Lowered, carried
from tcc.native import NativeEntry, NativeVariable
from tcc.passes.distrust import distrust
from tcc.runtime import bundle
from tcc.runtime.buffers import Container
from tcc.runtime.bundle import Bundle, BundleError
from tcc.runtime.callable import Parameter
from tcc.runtime.manifest import Array, Entry, Manifest
from tcc.runtime.weights import match, read, write
from tcc.sharedvar import TensorSharedVariable
from tcc.types import NAMES, TensorType
from tcc.variable import make_variable

Variable = TensorSharedVariable | NativeVariable


class State(Mapping[str, Variable]):
    """A model's variables by name, which its entries read and update."""

    def __init__(self, variables: Mapping[str, Variable]) -> None:
        self._variables = dict(variables)

    def __getitem__(self, name: str) -> Variable:
        if name not in self._variables:
            raise KeyError(f"no state {name} (there is {', '.join(self._variables) or 'none'})")
        return self._variables[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)

    def get(self) -> dict[str, np.ndarray[Any, Any]]:  # type: ignore[override]
        """Copies of all values."""
        return {name: v.get_value() for name, v in self.items()}

    def set(self, values: Mapping[str, Any]) -> None:
        """New values for some of it; all are checked before the first is set.  KeyError, TypeError."""
        ready = [(self[name], _filtered(self[name], value)) for name, value in values.items()]
        for variable, value in ready:
            variable.set_value(value)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a .safetensors or .npz file."""
        write(Path(path), self._tensors())

    def load(self, path: str | os.PathLike[str]) -> None:
        """Takes the values of such a file; ValueError, and nothing changes, unless names, dtypes and shapes are the same."""
        found = read(Path(path))
        match(found, self._tensors(), str(path))
        for name, t in found.items():
            variable = self[name]
            if isinstance(variable, NativeVariable):
                variable.memory[...] = t.array
            else:
                variable.container.set(t.array)

    def _tensors(self) -> dict[str, Tensor]:
        return {name: _tensor(v) for name, v in self.items()}


def _tensor(variable: Variable) -> Tensor:
    """The value as a file holds it."""
    if isinstance(variable, NativeVariable):
        return tensor(variable.memory, variable.dtype)
    return tensor(variable.container.get(), variable.type.ir)


def _filtered(variable: Variable, value: Any) -> Any:
    return variable.filter(value) if isinstance(variable, NativeVariable) else variable.type.filter(value)


class Model:
    """A model from a file: each entry is a function of its name, and a model of one entry is called as that is.

    `native` says whether the file's own library runs; otherwise the IR is compiled, or without llvmlite interpreted.
    """

    def __init__(
        self, manifest: Manifest, entries: Mapping[str, Any], state: State, native: bool = False
    ) -> None:
        self.manifest, self.entries, self.state, self.native = manifest, dict(entries), state, native

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if len(self.entries) != 1:
            raise TypeError(
                f"{self.manifest.name} has several entries; call one of {', '.join(self.entries)}"
            )
        (function,) = self.entries.values()
        return function(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        found = self.__dict__.get("entries", {}).get(name)
        if found is None:
            raise AttributeError(
                f"a model of {', '.join(self.__dict__.get('entries', ()))} has no {name!r}",
                name=name,
                obj=self,
            )
        return found

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.entries})

    def __repr__(self) -> str:
        return f"<model {self.manifest.name}: {', '.join(map(described, self.manifest.entries))}>"


def described(entry: Entry) -> str:
    """Like `predict(x: f32[n,784]) -> (y: f32[n,10])`."""

    def one(a: Array) -> str:
        return f"{a.name}: {a.dtype}[{','.join(map(str, a.shape))}]"

    return f"{entry.name}({', '.join(map(one, entry.arguments))}) -> ({', '.join(map(one, entry.results))})"


def load(
    path: str | os.PathLike[str],
    interpret: bool = False,
    trust_native: bool | str = False,
    threads: int = 0,
    device: str | None = None,
) -> Model:
    """The model in a bundle, with its own copy of the state.

    Its IR is compiled when an entry is first called for new sizes, or, if `interpret` or where llvmlite is not installed,
    interpreted with NumPy; what is compiled runs on `device`, or where `config.device` says.  `trust_native`, which is True or the SHA-256 that the file must have (`tcc inspect` tells it),
    runs the bundle's own library instead, if it has one for this machine, on up to `threads` threads (0: as many as it
    was compiled for): it is a program that may do anything.  ValueError (BundleError) for a file that is spoiled, newer, no
    bundle or not the one that is trusted, or whose library this CPU cannot run; OSError if it cannot be read.
    """
    file = bundle.read(Path(path))
    if isinstance(trust_native, str) and trust_native.lower().removeprefix("sha256:") != file.sha256:
        raise BundleError(f"{path}: its SHA-256 is {file.sha256}, not the trusted {trust_native}")
    module = module_of(file)
    own = native.opened(file, threads) if trust_native and not interpret else None
    if own is not None:
        shown = State({t.name: NativeVariable(t.name, t.dtype, own.state) for t in file.manifest.state})
        called = {e.name: NativeEntry(e, own.entries[e.name], module[e.name]) for e in file.manifest.entries}
        return Model(file.manifest, called, shown, native=True)
    state = {t.name: _variable(file, t.name) for t in file.manifest.state}
    compile = not interpret and importlib.util.find_spec("llvmlite") is not None
    where = None
    if compile:
        from tcc.devices import chosen

        where = chosen(device)
    entries = {e.name: function_of(e, module[e.name], state, compile, where) for e in file.manifest.entries}
    return Model(file.manifest, entries, State(state))


def _variable(file: Bundle, name: str) -> TensorSharedVariable:
    t = file.tensors[name]
    kind = TensorType(NAMES[t.dtype], shape=(None,) * t.array.ndim)
    return TensorSharedVariable(kind, Container(np.array(t.array)), name)


def function_of(
    entry: Entry, func: Func, state: Mapping[str, TensorSharedVariable], compile: bool, device: Any = None
) -> Any:
    """An entry as `tcc.function` would have made it."""
    with located_at(NOWHERE):  # the file does not say where its author made them
        inputs = [make_variable(TensorType(NAMES[a.dtype], shape=_known(a)), a.name) for a in entry.arguments]
    places = {p.name: i for i, p in enumerate(func.body.params)}
    why = {}
    for key, text in func.attrs.get("why", {}).items():
        name, _, axis = str(key).rpartition(".")
        if name in places and axis.isdecimal():
            why[places[name], int(axis)] = str(text)
    whole = carried(func, len(entry.arguments), len(entry.results))
    lowered = Lowered(whole, inputs, [state[n] for n in entry.reads], why, bare=func)
    parameters = [_parameter(a, v, i, entry) for i, (a, v) in enumerate(zip(entry.arguments, inputs))]
    returns = "list" if entry.returns == "dict" else entry.returns
    if device is not None:
        from tcc.devices import compiled_for

        made: Any = compiled_for(device, entry.name, parameters, lowered, returns)
    else:
        made = (compiled if compile else InterpretedFunction)(entry.name, parameters, lowered, returns)
    return DictFunction(made, [r.name for r in entry.results]) if entry.returns == "dict" else made


def _known(a: Array) -> tuple[int | None, ...]:
    return tuple(s if isinstance(s, int) else None for s in a.shape)


def _parameter(a: Array, variable: Any, number: int, entry: Entry) -> Parameter:
    """Converts as functions do, and keeps to the ranges of sizes."""
    plain = parameter(In(variable), number, entry.name, InputContainer())
    limits = [
        (axis, size, entry.sizes[size])
        for axis, size in enumerate(a.shape)
        if isinstance(size, str) and size in entry.sizes
    ]

    def convert(value: Any) -> Any:
        array = plain.convert(value)
        for axis, size, r in limits:
            got = array.shape[axis]
            if got < r.least or (r.most is not None and got > r.most):
                raise ValueError(
                    f"{entry.name}: {a.name}, axis {axis}: its size {size} is {got}, wanted {r.least} to {r.most}"
                )
        return array

    return plain._replace(convert=convert)


# -- the text ----------------------------------------------------------------------------------------------------


def module_of(file: Bundle) -> Module:
    """The functions of a bundle, which are what its manifest says they are; BundleError if not."""
    text = file.manifest.file("tcir")
    if text is None:
        raise BundleError(f"{file.path}: it holds no {bundle.TEXT}, only what was made of it")
    constants = {t.name: file.tensors[t.name].array for t in file.manifest.constants}
    where = f"{file.path}: {text.name}"
    try:
        module = parse(bytes(file.members[text.name]), text.name, constants, beside=False)
        for func in module.values():
            verify(func)
            distrust(func)
    except (ParseError, VerifyError) as e:
        raise BundleError(f"{where}: {e}") from None
    if list(module) != [e.name for e in file.manifest.entries]:
        raise BundleError(f"{where} holds {', '.join(module)}, not the entries of the manifest")
    for entry in file.manifest.entries:
        wrong = mismatch(entry, module[entry.name], file.manifest)
        if wrong:
            raise BundleError(f"{where}: @{entry.name} is not what the manifest says: {wrong}")
    return module


def mismatch(entry: Entry, func: Func, manifest: Manifest) -> str:
    """Where a function and its entry differ, or ""."""
    params, results = func.body.params, func.body.yields
    updates = func.attrs.get("updates", {})
    count = len(entry.arguments)
    if [p.name for p in params] != [*(a.name for a in entry.arguments), *entry.reads]:
        return f"it has the parameters {', '.join(p.name for p in params)}"
    if list(func.attrs.get("shared", [])) != list(entry.reads) or list(updates) != list(entry.updates):
        return "it reads or updates other state"
    if list(updates.values()) != list(range(len(entry.results), len(results))):
        return f"it has {len(results)} results"
    for a, v in zip((*entry.arguments, *entry.results), (*params[:count], *results)):
        if v.type != Type(a.dtype, a.sizes):
            return f"{a.name} is {v.type}, not {Type(a.dtype, a.sizes)}"
        if a.dtype not in NAMES:
            return f"{a.name} is {a.dtype}, which NumPy lacks; only C programs can use it"
    ranks = {t.name: (t.dtype, len(t.shape)) for t in manifest.state}
    for p in params[count:]:
        if (p.type.dtype, p.type.rank) != ranks[p.name]:
            return f"its state {p.name} is {p.type}"
    for name, index in updates.items():
        if (results[index].type.dtype, results[index].type.rank) != ranks[name]:
            return f"the new value of {name} is {results[index].type}"
    return ""
