"""Theano's files of pickled objects: `misc.pkl_utils.dump` and `load`, `StripPickler`, and `theano.function_dump`.

A file is a zip archive: each array, and each shared variable's value under its name, is an `.npy` entry that `numpy.load`
reads, and what remains is the pickle `pkl`.
"""

from __future__ import annotations

import io
import os
import pickle
import tempfile
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from tcc.sharedvar import TensorSharedVariable
from tcc.variable import Variable

PREFIX = "array"


def _write_array(archive: zipfile.ZipFile, name: str, value: Any) -> None:
    held = io.BytesIO()
    np.save(held, value, allow_pickle=False)
    archive.writestr(f"{name}.npy", held.getvalue())


class PersistentNdarrayID:
    """Names arrays by their order, and puts them into the archive."""

    def __init__(self, zip_file: zipfile.ZipFile) -> None:
        self.zip_file, self.seen, self.count = zip_file, {}, 0  # type: ignore[var-annotated]

    def name_of(self, obj: Any) -> str:
        self.count += 1
        return f"{PREFIX}_{self.count - 1}"

    def __call__(self, obj: Any) -> str | None:
        if type(obj) is not np.ndarray or obj.dtype.hasobject:
            return None
        if id(obj) not in self.seen:
            name = self.name_of(obj)
            _write_array(self.zip_file, name, obj)
            self.seen[id(obj)] = name, obj  # which keeps the array, and so its id
        return f"ndarray.{self.seen[id(obj)][0]}"


class PersistentSharedVariableID(PersistentNdarrayID):
    """The same; what a shared variable holds has the variable's name.  ValueError for a name given twice, unless allowed."""

    def __init__(
        self, zip_file: zipfile.ZipFile, allow_unnamed: bool = True, allow_duplicates: bool = True
    ) -> None:
        super().__init__(zip_file)
        self.allow_unnamed, self.allow_duplicates = allow_unnamed, allow_duplicates
        self.names: dict[str, int] = {}
        self.variables: dict[int, str] = {}

    def name_of(self, obj: Any) -> str:
        return self.variables.get(id(obj)) or super().name_of(obj)

    def __call__(self, obj: Any) -> Any:
        if not isinstance(obj, TensorSharedVariable):
            return super().__call__(obj)
        if id(obj) in self.seen:
            return self.seen[id(obj)][0]
        if obj.name:
            number = self.names[obj.name] = self.names.get(obj.name, 0) + 1
            if number > 1 and not self.allow_duplicates:
                raise ValueError(f"multiple shared variables are called {obj.name!r}")
            name = obj.name if number == 1 else f"{obj.name}_{number}"
        elif not self.allow_unnamed:
            raise ValueError("a shared variable without a name")
        else:
            name = super().name_of(obj)
        _write_array(self.zip_file, name, obj.get_value())
        rest = {k: v for k, v in obj.__dict__.items() if k not in ("container", "_fn_cache")}
        self.seen[id(obj)] = ("shared", name, rest), obj
        return self.seen[id(obj)][0]


class PersistentNdarrayLoad:
    """Finds again what the names stand for."""

    def __init__(self, zip_file: zipfile.ZipFile) -> None:
        self.zip_file, self.cache = zip_file, {}  # type: ignore[var-annotated]

    def __call__(self, persid: Any) -> Any:
        name = persid[1] if isinstance(persid, tuple) else persid.partition(".")[2]
        if name not in self.cache:
            value = np.load(io.BytesIO(self.zip_file.read(f"{name}.npy")), allow_pickle=False)
            if isinstance(persid, tuple):
                from tcc.sharedvar import shared

                made = shared(value)
                made.__dict__.update(persid[2])
                value = made
            self.cache[name] = value
        return self.cache[name]


def dump(
    obj: Any,
    file_handler: BinaryIO,
    protocol: int = pickle.DEFAULT_PROTOCOL,
    persistent_id: Callable[[zipfile.ZipFile], Any] = PersistentSharedVariableID,
) -> None:
    """Writes `obj` into an open file as an archive; see the module."""
    with zipfile.ZipFile(file_handler, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
        handle, path = tempfile.mkstemp()
        try:
            with os.fdopen(handle, "wb") as held:
                pickler = pickle.Pickler(held, protocol=protocol)
                pickler.persistent_id = persistent_id(archive)  # type: ignore[method-assign]
                pickler.dump(obj)
            archive.write(path, "pkl")
        finally:
            os.unlink(path)


def load(f: Any, persistent_load: Callable[[zipfile.ZipFile], Any] = PersistentNdarrayLoad) -> Any:
    """What `dump` wrote into the open file.  As with every pickle, only of a file that is trusted."""
    with zipfile.ZipFile(f) as archive:
        unpickler = pickle.Unpickler(io.BytesIO(archive.read("pkl")))
        unpickler.persistent_load = persistent_load(archive)  # type: ignore[method-assign]
        return unpickler.load()


class StripPickler(pickle.Pickler):
    """Pickles graphs without the notes (`tag`) on their variables."""

    def __init__(self, file: Any, protocol: int = 0, extra_tag_to_remove: Any = None) -> None:
        super().__init__(file, protocol)

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Variable) and "tag" in obj.__dict__:
            made = obj.__reduce_ex__(2)
            state = {k: v for k, v in obj.__getstate__().items() if k != "tag"}
            return (*made[:2], state, *made[3:])
        return NotImplemented


class CompatUnpickler(pickle.Unpickler):
    """Reads pickles that Python 2 wrote."""

    def __init__(self, file: Any, **options: Any) -> None:
        super().__init__(file, **{"encoding": "latin1", **options})


def function_dump(filename: str, inputs: Any, outputs: Any = None, **options: Any) -> None:
    """Writes the arguments of `theano.function` to a file: `theano.function(**pickle.load(open(filename, "rb")))` makes it."""
    extra = options.pop("extra_tag_to_remove", None)
    with open(filename, "wb") as f:
        StripPickler(f, -1, extra).dump({"inputs": inputs, "outputs": outputs, **options})
