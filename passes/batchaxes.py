"""The batch axes of a matrix product, which its kernel walks as two axes at most, with a stride along each for each operand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tcc.ir.dims import Size
from tcc.ir.types import Type

Steps = tuple[Size, Size]  # along the first axis and along the second


class Walk(NamedTuple):
    """`number` products, `inner` of them along the second axis, and each operand's steps."""

    number: Size
    inner: Size
    steps: tuple[Steps, ...]


def walked(types: Sequence[Type]) -> Walk | None:
    """The axes but the last two of places that agree in them: neighbours of which one stride walks both are one axis; None if
    more than two are left."""
    axes: list[tuple[Size, tuple[Size, ...]]] = []  # the innermost first
    for k in reversed(range(types[0].rank - 2)):
        size, steps = types[0].shape[k], tuple(t.strides[k] for t in types)
        if size == 1:
            continue
        if axes and all(step == axes[-1][0] * s for step, s in zip(steps, axes[-1][1], strict=True)):
            axes[-1] = size * axes[-1][0], axes[-1][1]
        else:
            axes.append((size, steps))
    if len(axes) > 2:
        return None
    none: tuple[Size, tuple[Size, ...]] = (1, (0,) * len(types))
    inner, outer = axes if len(axes) == 2 else (none, *axes, none)[:2]
    return Walk(outer[0] * inner[0], inner[0], tuple(zip(outer[1], inner[1], strict=True)))


def batch_walk(*types: Type) -> Walk:
    """As `walked`, of places: placement copies what two axes do not walk."""
    found = walked(types)
    assert found is not None, f"placement left batch axes that two strides do not walk: {types}"
    return found


def walks(type: Type, axes: int) -> bool:
    """Whether an operand's batch is walked along so many axes, whatever strides the other operands have."""
    alone = walked([type])
    few = sum(n != 1 for n in type.shape[:-2]) <= axes
    return few or (alone is not None and alone.inner == 1)
