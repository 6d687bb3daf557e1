"""A function whose inputs lie in memory in other orders of their axes."""

from __future__ import annotations

from collections.abc import Sequence

from tcc.ir.builder import Builder
from tcc.ir.clone import clone
from tcc.ir.core import Func, Value
from tcc.ir.types import Type


def turnable(input: Value) -> bool:
    """Whether what reads an input may as well read it turned.  The steps of a loop are better off with a copy."""
    return not any(op.blocks or op.parent is not input.block for op in input.users)


def turned(func: Func, orders: Sequence[Sequence[int]]) -> Func:
    """`func` for inputs that are given with their axes in these orders, or as they are, where that is empty: axis k of what is
    given is axis order[k] of the input.  The kernels that read an input absorb how it is turned."""
    made = clone(func)
    inputs = [p for p in made.body.params if p.name not in made.attrs.get("shared", ())]
    builder = Builder(made.body, made.body.first)
    for input, order in zip(inputs, orders, strict=True):
        if not order:
            continue
        readers = list(input.uses)
        input.type = Type(input.type.dtype, tuple(input.type.shape[axis] for axis in order))
        back = builder.dimshuffle(input, order=[order.index(axis) for axis in range(len(order))])
        for op, number in readers:
            op.set_operand(number, back)
    return made
