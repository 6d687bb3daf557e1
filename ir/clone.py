"""Copies of functions, with sizes put in for names on the way: all that specialising is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tcc.ir.core import Block, Func, Op, Value
from tcc.ir.dims import Expr, Size, names_of, substitute
from tcc.ir.types import Type


def clone(func: Func, known: Mapping[str, Size] | None = None) -> Func:
    """A copy of `func` in which the size names in `known` are replaced; ops keep names and locations."""
    known = known or {}
    env: dict[Value, Value] = {}
    body = clone_block(func.body, env, known)
    return Func(func.name, body, {k: _attr(v, known) for k, v in func.attrs.items()})


def substitute_sizes(func: Func, known: Mapping[str, Size]) -> None:
    """Puts sizes in for names throughout `func`, in place.  A replacement may use names that are replaced too."""
    settled: dict[str, Size] = {}

    def settle(name: str) -> Size:
        if name not in settled:
            size = known[name]
            inner = {n: settle(n) for n in names_of(size) if n in known}
            settled[name] = substitute(size, inner)
        return settled[name]

    for n in known:
        settle(n)
    _substitute_block(func.body, settled)


def _substitute_block(block: Block, known: Mapping[str, Size]) -> None:
    for p in block.params:
        p.type = p.type.substitute(known)
    for op in block.ops:
        for r in op.results:
            r.type = r.type.substitute(known)
        if op.attrs:
            op.attrs = {k: _attr(v, known) for k, v in op.attrs.items()}
        for b in op.blocks:
            _substitute_block(b, known)


def clone_block(block: Block, env: dict[Value, Value], known: Mapping[str, Size]) -> Block:
    """A copy of `block`; `env` maps the values that it captures, and takes those that it defines."""
    new = Block([p.type.substitute(known) for p in block.params], [p.name for p in block.params])
    env.update(zip(block.params, new.params, strict=True))
    for op in block.ops:
        new.append(clone_op(op, env, known))
    return new


def clone_op(op: Op, env: dict[Value, Value], known: Mapping[str, Size]) -> Op:
    blocks = [clone_block(b, env, known) for b in op.blocks]
    copy = Op(
        op.defn,
        [env.get(v, v) for v in op.operands],
        [r.type.substitute(known) for r in op.results],
        attrs={k: _attr(v, known) for k, v in op.attrs.items()} if op.attrs else {},
        blocks=blocks,
        loc=op.loc,
    )
    for old, fresh in zip(op.results, copy.results):
        fresh.name = old.name
        env[old] = fresh
    return copy


def _attr(value: Any, known: Mapping[str, Size]) -> Any:
    if isinstance(value, Expr):
        return substitute(value, known)
    if isinstance(value, Type):
        return value.substitute(known)
    if type(value) in (list, tuple):
        return type(value)(_attr(v, known) for v in value)
    return value
