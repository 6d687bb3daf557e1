"""What the table of Theano's modules is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Entry(NamedTuple):
    """One module of the tree."""

    sources: Sequence[str] = ()
    names: Mapping[str, str] = {}
    doc: str = ""


def taken(home: str, names: str) -> dict[str, str]:
    """Names that a module of tcc has, as targets."""
    return {name: f"{home}:{name}" for name in names.split()}
