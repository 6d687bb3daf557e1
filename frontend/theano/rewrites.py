"""Where Theano's programs register optimisations of graphs: tcc's passes do that work, so that these are taken and not used, which
changes no result that does not hang on rounding."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


class Rewrite:
    """An optimisation as it was made, which is never applied."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args, self.name = args, kwargs.get("name")

    def __str__(self) -> str:
        return f"{type(self).__name__}{self.args}"

    def apply(self, fgraph: Any) -> None:
        """Nothing."""

    optimize = apply

    @staticmethod
    def warn(*args: Any) -> None:
        """What programs give as `failure_callback`."""

    warn_inplace = warn_ignore = warn


class OpRemove(Rewrite):
    """Takes an op out."""


class OpSub(Rewrite):
    """Puts an op in the place of another."""


class PatternSub(Rewrite):
    """Puts a pattern in the place of another."""


class LocalOptGroup(Rewrite):
    """Several of one node."""


class TopoOptimizer(Rewrite):
    """One for all nodes, in order."""


class EquilibriumOptimizer(Rewrite):
    """Several, as long as anything changes."""


class SeqOptimizer(Rewrite):
    """Several, one after another."""


class Optimizer(Rewrite):
    """The base of those on whole graphs."""


class LocalOptimizer(Rewrite):
    """The base of those on single nodes."""


def local_optimizer(tracks: Any, inplace: bool = False, requirements: Any = ()) -> Callable[[Any], Any]:
    """The function below it, as it is."""
    return lambda function: function


def out2in(*rewrites: Any, **options: Any) -> Rewrite:
    """A TopoOptimizer."""
    return TopoOptimizer(*rewrites, **options)


in2out = out2in


def register(first: Any, *tags: Any, **options: Any) -> Any:
    """Takes a rewrite and returns it, or as a decorator, `@register("tag")`."""
    if not isinstance(first, str):
        return first
    return lambda rewrite: rewrite


class Database:
    """Theano's list of optimisations, in which everything can be registered and nothing is found."""

    def __getitem__(self, name: str) -> Database:
        return self

    def __contains__(self, name: str) -> bool:
        return False

    def register(self, name: str, rewrite: Any, *tags: Any, **options: Any) -> Any:
        """Returns the rewrite."""
        return rewrite

    def query(self, *tags: Any, **options: Any) -> Rewrite:
        """A rewrite that does nothing."""
        return SeqOptimizer(*tags)


optdb = Database()

# Lists that programs with code of C or CUDA append to when they are imported; compiling it is what fails.
default_make_thunk: list[Any] = []
rpath_defaults: list[str] = []


def render_string(string: str, sub: Any) -> str:
    """A template of code, filled in."""
    return str(string % sub)


def get_lib_extension() -> str:
    """The ending of the names of Python's extension modules."""
    return "pyd" if sys.platform == "win32" else "so"
