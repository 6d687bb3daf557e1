"""Which size names an operation depends on."""

from __future__ import annotations

from typing import Any

from tcc.ir.core import Op
from tcc.ir.dims import Expr
from tcc.ir.types import Type


def op_names(op: Op) -> set[str]:
    """The size names in its result types, its attributes, and in what its blocks hold."""
    found: set[str] = set()
    for r in op.results:
        _collect(r.type, found)
    for value in op.attrs.values():
        _collect(value, found)
    for b in op.blocks:
        for inner in b.ops:
            found |= op_names(inner)
    return found


def _collect(value: Any, found: set[str]) -> None:
    if isinstance(value, Expr):
        found |= value.names
    elif isinstance(value, Type):
        for size in value.shape:
            _collect(size, found)
    elif isinstance(value, list | tuple):
        for item in value:
            _collect(item, found)
