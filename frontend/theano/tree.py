"""Modules made from a table: attributes and submodules are looked up when they are first used."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import Any

from tcc.theano.entries import Entry
from tcc.theano.names import INTERNAL, TREE

ROOT = "theano"
_made: dict[str, Mirror] = {}


class Mirror(types.ModuleType):
    """One of Theano's modules: `entry.names` by their targets, submodules, and what its native modules have: that of the
    same path in tcc, if there is one, and `entry.sources`."""

    def __init__(self, path: str, entry: Entry) -> None:
        super().__init__(full(path), entry.doc or f"Theano's module {full(path)}, over tcc.")
        self._path, self._entry = path, entry
        self._sources = [f"tcc.{path}", *entry.sources] if path and _exists(path) else list(entry.sources)
        if children(path):
            self.__path__: list[str] = []
        self.__file__ = __file__  # programs look for the folder of what they import

    def __getattr__(self, name: str) -> Any:
        entry: Entry = self.__dict__["_entry"]
        path: str = self.__dict__["_path"]
        if name == "__all__":
            return self._public()
        if name in entry.names:
            found = target(entry.names[name])
        elif _join(path, name) in TREE and not self._hides(name):
            return (
                importlib.import_module(f"{full(path)}.{name}")
                if full(path) in sys.modules
                else module(_join(path, name))
            )
        elif name.startswith("__"):
            raise AttributeError(name)
        else:
            found = self._native(name)
        setattr(self, name, found)
        return found

    def __setattr__(self, name: str, value: Any) -> None:
        """Importing a submodule makes it an attribute, unless a function has that name: `theano.tensor.sort` is one."""
        if isinstance(value, Mirror) and self._hides(name):
            return
        super().__setattr__(name, value)

    def _hides(self, name: str) -> bool:
        """Whether a name stands for something else than the submodule that is called so."""
        if name in self._entry.names:
            return not isinstance(target(self._entry.names[name]), Mirror)
        if self._path in (
            "",
            "tensor.nnet",
        ):  # `theano.ifelse` is a module, though `tcc.ifelse` is a function
            return False
        natives = (getattr(importlib.import_module(source), name, None) for source in self._sources)
        return any(found is not None and not isinstance(found, types.ModuleType) for found in natives)

    def _native(self, name: str) -> Any:
        for source in self._sources:
            found = getattr(importlib.import_module(source), name, None)
            if found is not None:
                return found
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

    def _public(self) -> list[str]:
        found = {*self._entry.names, *children(self._path)}
        for source in self._sources:
            native = importlib.import_module(source)
            found.update(
                getattr(native, "__all__", None) or (n for n in vars(native) if not n.startswith("_"))
            )
        return sorted(n for n in found if not n.startswith("_") and hasattr(self, n))

    def __dir__(self) -> list[str]:
        return sorted({*self.__dict__, *self._public()})


class Finder(MetaPathFinder, Loader):
    """Finds `theano` and what is in it (or the same below another name)."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: Any = None
    ) -> ModuleSpec | None:
        if fullname == self.prefix == ROOT:
            inner = ""
        elif fullname.startswith(f"{self.prefix}."):
            inner = fullname[len(self.prefix) + 1 :]
        else:
            return None
        if inner in INTERNAL:
            raise ModuleNotFoundError(
                f"{full(inner)} is a part of Theano's own compiler, which tcc has not: its passes (`tcc passes`) do that work",
                name=fullname,
            )
        if inner not in TREE:
            return None
        return importlib.util.spec_from_loader(fullname, self, is_package=bool(children(inner)))

    def create_module(self, spec: ModuleSpec) -> Any:
        return module(spec.name[len(self.prefix) + 1 :])

    def exec_module(self, module: Any) -> None:
        """There is nothing to run, as names are looked up when they are used; but importing `theano` reads its flags, and an
        index then means what it means there."""
        if module.__spec__.name == ROOT:
            from tcc.indexing import Rules
            from tcc.theano import flags

            flags.read()
            Rules.new_axes_drop = True


def module(path: str) -> Mirror:
    """The module at a path below the root ("" is the root)."""
    if path not in _made:
        _made[path] = Mirror(path, TREE[path])
    return _made[path]


def _exists(path: str) -> bool:
    """Whether tcc has a module of its own there."""
    parent = path.rpartition(".")[0]
    if parent:
        above = importlib.util.find_spec(f"tcc.{parent}") if _exists(parent) else None
        if above is None or above.submodule_search_locations is None:
            return False
    return importlib.util.find_spec(f"tcc.{path}") is not None


def full(path: str) -> str:
    return _join(ROOT, path)


def children(path: str) -> list[str]:
    """The names of the modules directly inside one."""
    inside = [p for p in TREE if p and p != path and p.rpartition(".")[0] == path]
    return [p.rpartition(".")[2] for p in inside]


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path and name else path or name


def target(text: str) -> Any:
    """What `module:attribute` or `=value` in the table stands for."""
    if text.startswith("="):
        return {"True": True, "False": False, "None": None}.get(text[1:], text[1:])
    home, _, attribute = text.partition(":")
    found = importlib.import_module(home)
    for part in filter(None, attribute.split(".")):
        found = getattr(found, part)
    return found
