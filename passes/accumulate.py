"""Gradient descent as a product that adds to the weights."""

from __future__ import annotations

import numpy as np

from tcc.ir.builder import Builder
from tcc.ir.core import Func, Op, Value
from tcc.ir.types import HALVES
from tcc.passes.access import identity, resolve
from tcc.passes.fold import splat
from tcc.passes.manager import Context


def accumulate(func: Func, ctx: Context) -> None:
    """Makes of an update `w - (a @ b) * c` of a shared variable `w + a @ (b * -c)`, which a product can add in place.

    The scale goes to the smaller operand, and only where that is much smaller than `w`: the product is then never
    written and read again, which for the weights of a layer is most of the traffic.
    """
    params = {p.name: p for p in func.body.params}
    updates: dict[str, int] = func.attrs.get("updates", {})
    for name, index in updates.items():
        new, old = func.body.yields[index], params[name]
        step = new.op
        if step is None or step.parent is not func.body or step.name not in ("add", "sub"):
            continue
        sides = (0, 1) if step.name == "add" else (0,)
        for k in sides:
            if step.operands[k] is old:
                _add_into(step, step.operands[1 - k], old, ctx)
                break


def _add_into(step: Op, change: Value, old: Value, ctx: Context) -> None:
    made, scale = change.op, None
    if made is not None and made.name == "mul" and len(change.uses) == 1:
        scale = next((v for v in made.operands if _uniform(v)), None)
        made = next((v.op for v in made.operands if v is not scale), None) if scale is not None else None
    if (
        made is None
        or made.name != "matmul"
        or old.type.dtype in HALVES
        or made.blocks
        or len(made.result.uses) > 1
        or old.type.rank != 2
    ):
        return
    operands = list(made.operands)
    k = min((0, 1), key=lambda i: _elements(operands[i]))
    if 2 * _elements(operands[k]) > _elements(old):
        ctx.remark(step, f"%{old.name} is not added to in place: no operand of the product is much smaller")
        return
    assert step.parent is not None
    b = Builder(step.parent, before=step, loc=step.loc)
    number, less = splat(scale) if scale is not None else None, step.name == "sub"
    if number is not None:
        operands[k] = b.mul(
            operands[k], b.full((np.negative(number) if less else number).item(), operands[k])
        )
    elif scale is not None:
        scalar = b.broadcast(resolve(scale, ()).value, shape=list(operands[k].type.shape))
        operands[k] = b.mul(operands[k], scalar)
    if less and number is None:
        operands[k] = b.neg(operands[k])
    elif scale is None:
        return  # it is a plain sum already
    step.replace_by([b.add(old, b.matmul(*operands))])


def _uniform(v: Value) -> bool:
    return splat(v) is not None or resolve(v, identity(v.type.rank)).axes == ()


def _elements(v: Value) -> int:
    """A number to compare; one that is not known counts as large."""
    return v.type.size if isinstance(v.type.size, int) else 1 << 62
