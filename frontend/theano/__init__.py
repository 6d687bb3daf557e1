"""Theano's module paths and legacy names over tcc: `import tcc.theano; tcc.theano.install()`, then `import theano`.

The modules are made from the table in tcc.theano.names as they are asked for.  `tcc.theano.tensor` and `theano.tensor` are
one module.  `python -m tcc.theano script.py` runs an unmodified program.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from tcc.theano.tree import ROOT, Finder, Mirror, module


def install() -> Any:
    """Makes the tree what `import theano` finds, and imports it, which reads ~/.theanorc and THEANO_FLAGS.

    RuntimeError if another theano is loaded already.
    """
    register()
    return importlib.import_module(ROOT)


def register() -> None:
    """As `install`, without importing it yet."""
    loaded = sys.modules.get("theano")
    if loaded is not None and not isinstance(loaded, Mirror):
        raise RuntimeError(
            f"another theano is imported already, from {getattr(loaded, '__file__', '?')}: call tcc.theano.install() first"
        )
    if not _found_below(ROOT):
        sys.meta_path.insert(0, Finder(ROOT))


def _found_below(prefix: str) -> bool:
    return any(isinstance(f, Finder) and f.prefix == prefix for f in sys.meta_path)


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return getattr(module(""), name)


def __dir__() -> list[str]:
    return sorted({"install", *dir(module(""))})


if not _found_below(f"tcc.{ROOT}"):
    sys.meta_path.append(Finder(f"tcc.{ROOT}"))
