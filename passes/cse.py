"""Common subexpressions."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any

import numpy as np

from tcc.ir.core import Block, Func, Op, Value
from tcc.passes.manager import Context


def cse(func: Func, ctx: Context) -> None:
    """Merges equal pure operations; one in an enclosing block serves the inner ones too."""
    merge_equal(func.body)


def merge_equal(block: Block) -> int:
    """Merges equal pure operations in a block and those inside it; returns how many went away."""
    return _visit(block, {})


def _visit(block: Block, known: dict[Hashable, Op]) -> int:
    merged = 0
    added: list[Hashable] = []  # so that leaving the block forgets its own ops without a copy of `known`
    for op in block.ops:
        for inner in op.blocks:
            merged += _visit(inner, known)
        if not repeatable(op):
            continue
        key = op_key(op, {})
        first = known.get(key)
        if first is None:
            known[key] = op
            added.append(key)
            continue
        op.replace_by(first.results)
        merged += 1
    for key in added:
        del known[key]
    return merged


def repeatable(op: Op) -> bool:
    """Whether it may be merged, moved and dropped: it and all it holds are pure, and it is no terminator."""
    if not op.defn.pure or op.defn.fails or op.name == "yield":
        return False
    return all(repeatable(o) or o.name == "yield" for b in op.blocks for o in b.ops)


def op_key(op: Op, local: dict[Value, Any]) -> Hashable:
    """Equal for operations that compute the same; `local` numbers the values of the blocks around it, if those are
    compared as well."""
    operands: list[Hashable] = [_value_key(v, local) for v in op.operands]
    if op.defn.commutes:
        operands.sort(key=str)
    blocks = tuple(_block_key(b, local) for b in op.blocks)
    attrs = tuple((k, freeze(v)) for k, v in sorted(op.attrs.items())) if op.attrs else ()
    return (op.name, *operands, attrs, blocks)


def _value_key(value: Value, local: dict[Value, Any]) -> Hashable:
    number = local.get(value)
    return id(value) if number is None else ("local", number)


def _block_key(block: Block, local: dict[Value, Any]) -> Hashable:
    local = dict(local)
    for p in block.params:
        local[p] = len(local)
    keys: list[Hashable] = [tuple(p.type for p in block.params)]
    for op in block.ops:
        keys.append(op_key(op, local))
        for r in op.results:
            local[r] = len(local)
    return tuple(keys)


def freeze(value: Any) -> Hashable:
    """An attribute as a dictionary key.  Zeros of both signs differ, and so do True, 1 and 1.0."""
    if isinstance(value, list | tuple):
        return tuple(map(freeze, value))
    if isinstance(value, dict):
        return tuple((k, freeze(v)) for k, v in sorted(value.items()))
    if isinstance(value, np.ndarray | np.generic):
        return (value.shape, value.dtype.str, value.tobytes())
    if isinstance(value, float):
        return (value, math.copysign(1.0, value))
    if isinstance(value, bool | int):
        return (type(value).__name__, value)
    return value if isinstance(value, Hashable) else id(value)
