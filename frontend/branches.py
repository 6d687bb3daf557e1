"""`tcc.ifelse`: one of two branches, chosen when the function runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tcc import build
from tcc.graph import Apply, Shown
from tcc.types import Packed, tensor_type
from tcc.variable import Variable, as_variable, scalar_constant


def ifelse(condition: Any, then_branch: Any, else_branch: Any, name: str | None = None) -> Any:
    """`then_branch` if the scalar `condition` is not zero, else `else_branch`: only what the taken one needs is computed.

    Branches are variables, or lists of as many variables; a pair must be of one dtype and rank (TypeError), its sizes may
    differ.  Unlike `switch`, which computes both and chooses element by element.  Where a branch's sizes hang on its
    values, what they hang on is computed once for the sizes and once for the results.
    """
    condition = as_variable(condition)
    if condition.type.ndim != 0:
        raise TypeError(f"ifelse: the condition must be a scalar, got {condition.type}")
    listed = isinstance(then_branch, list | tuple)
    then, other = (_branch(b) for b in (then_branch, else_branch))
    if len(then) != len(other) or listed != isinstance(else_branch, list | tuple):
        raise ValueError(
            f"ifelse: the branches must have the same number of values, got {len(then)} and {len(other)}"
        )
    pairs = [_alike(k, a, b) for k, (a, b) in enumerate(zip(then, other))]
    flag = (
        condition if condition.type.dtype == "bool" else build.elementwise("ne", condition, _zero(condition))
    )
    then, other = [a for a, _ in pairs], [b for _, b in pairs]
    types = [
        a.type
        if isinstance(a.type, Packed)
        else tensor_type(
            a.type.dtype, tuple(s if s == t else None for s, t in zip(a.type.shape, b.type.shape))
        )
        for a, b in pairs
    ]
    shown = Shown(f"if{{{name or ''}}}", (condition, *then, *other))
    made = Apply(build.row("ifelse"), [flag, *then, *other], {}, types, shown=shown).results
    return list(made) if listed else made[0]


def along(axis: Any, rank: int, make: Callable[[int], Any]) -> Any:
    """`make(axis)` for an axis that only the running function knows; IndexError there for one that does not exist.

    One branch for each of the `rank` axes; the results are of one dtype and rank.
    """
    from tcc.tensor.extra_ops import checked_index

    number = build.cast(as_variable(axis), "int64")
    number = checked_index(number, rank) % rank
    made = make(rank - 1)
    for k in reversed(range(rank - 1)):
        made = ifelse(build.elementwise("eq", number, scalar_constant(k, "int64")), make(k), made)
    return made


def _branch(given: Any) -> list[Any]:
    """Arrays, or values that are none, such as objects and sparse matrices."""
    listed = given if isinstance(given, list | tuple) else [given]
    return [v if isinstance(v, Variable) and isinstance(v.type, Packed) else as_variable(v) for v in listed]


def _zero(condition: Any) -> Any:
    return scalar_constant(0, condition.type.dtype)


def _alike(number: int, a: Any, b: Any) -> tuple[Any, Any]:
    """A pair with equal flags: an axis is flagged only if both sides say so."""
    from tcc.shapes import unbroadcast

    if isinstance(a.type, Packed) and a.type == b.type:
        return a, b
    packed = isinstance(a.type, Packed) or isinstance(b.type, Packed)
    if packed or a.type.dtype != b.type.dtype or a.type.ndim != b.type.ndim:
        raise TypeError(
            f"The two branches should have identical types, but they are {a.type} and {b.type} respectively (number {number}). "
            "This error could be raised if for example you provided a one element list on the `then` branch but a tensor on "
            "the `else` branch."
        )
    flags = [x != y for x, y in zip(a.type.broadcastable, b.type.broadcastable)]
    axes = [k for k, differs in enumerate(flags) if differs]
    return (unbroadcast(a, *axes), unbroadcast(b, *axes)) if axes else (a, b)
