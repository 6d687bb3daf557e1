"""Checks that cannot fail, and checks that need not wait for a cast."""

from __future__ import annotations

import numpy as np

from tcc.ir import dims
from tcc.ir.core import Func, Op
from tcc.passes.access import identity, resolve
from tcc.passes.fold import constant
from tcc.passes.manager import Context
from tcc.passes.rules import WIDER


def checks(func: Func, ctx: Context) -> None:
    """Drops checks that certainly succeed, and checks an index before a cast that keeps its value."""
    for op in list(func.body.walk()):
        if op.name == "check_index":
            _before_cast(op)
        if certain(op):
            op.erase()


def _before_cast(op: Op) -> None:
    made = op.operands[0].op
    while made is not None and made.name == "cast":
        source = made.operands[0]
        if source.type.dtype == "bool" or made.result.type.dtype not in WIDER.get(source.type.dtype, ()):
            return
        op.set_operand(0, source)
        made = source.op


def certain(op: Op) -> bool:
    """Whether a check holds whatever the data and sizes are."""
    if op.name == "check_size":
        return bool(op.attrs["left"] == op.attrs["right"])
    if op.name != "check_index":
        return False
    index = op.operands[0]
    made = resolve(index, identity(index.type.rank)).value.op
    bound = op.attrs["bound"]
    if made is not None and made.name == "const" and isinstance(bound, int):
        values = np.asarray(constant(made.result))
        return bool(((values >= -bound) & (values < bound)).all())
    if made is None or made.name != "iota":
        return False
    count = made.result.type.shape[int(made.attrs["axis"])]
    return dims.nonnegative(dims.sub(bound, count))
