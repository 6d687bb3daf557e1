"""Compiled functions in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from tcc.codegen import jit, support
from tcc.codegen.products import engines
from tcc.codegen.target import Target
from tcc.runtime import native
from tcc.runtime.symbols import symbols


class Compiled(NamedTuple):
    """Object files with the name of their entry, and the engines that it calls: their names and dtypes, and of each dtype the
    forms of its products, if they are known."""

    code: Sequence[bytes]
    entry: str
    engines: Mapping[str, str]
    forms: Mapping[str, Iterable[int]] = MappingProxyType({})


def load(compiled: Compiled, target: Target) -> tuple[jit.Image, int]:
    """The code in memory, and the address of its entry."""
    support.load()
    known = dict(symbols())
    known.update({name: native.provided(name) for name in support.DECLARATIONS})
    known.update(engines.addresses(compiled.engines, target, compiled.forms))
    image = jit.Image.load(compiled.code, known)
    entry = image.address(compiled.entry)
    engines.finish()
    return image, entry
