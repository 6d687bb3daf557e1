"""Constants."""

from __future__ import annotations

from typing import Any

import numpy as np

from tcc.ir.arrays import rounded
from tcc.ir.builder import Builder
from tcc.ir.core import Block, Func, Op, Value
from tcc.ir.dims import Expr, Size
from tcc.ir.types import COMPILED, Type, numpy_dtype
from tcc.passes.manager import Context


def fold(func: Func, ctx: Context, *, max_elements: int = 4096) -> None:
    """Computes what depends on constants alone, if a result has at most `max_elements` elements or stays a splat."""
    _visit(func.body, max_elements)


def _visit(block: Block, limit: int) -> None:
    for op in block.ops:
        for inner in op.blocks:
            _visit(inner, limit)
        folded = fold_op(op, limit)
        if folded is not None:
            op.replace_by([folded])


def fold_op(op: Op, limit: int) -> Value | None:
    """A constant equal to the result of `op`, put before it, or None."""
    if (
        op.blocks
        or not op.defn.pure
        or op.defn.ref is None
        or len(op.results) != 1
        or op.name in ("const", "yield")
    ):
        return None
    if op.name == "size":
        value = op.attrs["value"]
        return _const(op, value) if isinstance(value, int) else None
    if not op.operands or op.result.type.dtype not in COMPILED:
        return None
    sources = [v.op for v in op.operands]
    if any(s is None or s.name != "const" for s in sources):
        return None
    values = [constant(v) for v in op.operands]
    if op.defn.scalar and all(isinstance(v, np.generic) for v in values):
        return _const(op, _evaluate(op, values))
    known = [_dense(v, value, limit) for v, value in zip(op.operands, values)]
    if any(k is None for k in known) or not _small(op.result.type, limit) or not of_numbers(op.attrs):
        return None
    try:
        return _const(op, _evaluate(op, known))
    except (ValueError, IndexError):
        return None  # a call raises it, if it comes there: a singular matrix, an index out of bounds


def constant(v: Value) -> np.ndarray[Any, Any] | np.generic:
    """What a `const` holds, in its dtype: a NumPy scalar for a splat, else an array."""
    assert v.op is not None and v.op.name == "const"
    value = np.asarray(v.op.attrs["value"], dtype=numpy_dtype(v.type.dtype))
    return value[()] if value.ndim == 0 else value


def splat(v: Value) -> np.generic | None:
    """The number that fills `v`, if it is such a constant."""
    if v.op is None or v.op.name != "const":
        return None
    value = constant(v)
    return value if isinstance(value, np.generic) else None


def _evaluate(op: Op, values: Any) -> Any:
    """What NumPy makes of them; functions of float32 through float64, since its own of float32 are off by more than those
    of native code, and the two are to agree."""
    assert op.defn.ref is not None
    through = op.defn.scalar and all(v.type.dtype == "f32" for v in [*op.operands, op.result])
    with np.errstate(all="ignore"):
        if not through:
            return op.defn.ref(*values, **op.attrs)
        return np.asarray(op.defn.ref(*(v.astype(np.float64) for v in values), **op.attrs)).astype(np.float32)


def _dense(v: Value, value: Any, limit: int) -> Any:
    if not isinstance(value, np.generic):
        return value
    if not _small(v.type, limit):
        return None
    return np.full(v.type.shape, value)


def _small(t: Type, limit: int) -> bool:
    size = t.size  # a product with an empty axis is 0, whatever the other sizes are
    return isinstance(size, int) and size <= limit and all(isinstance(s, int) for s in t.shape)


def of_numbers(value: Any) -> bool:
    """Whether no size in an attribute is an expression."""
    if isinstance(value, dict):
        return all(map(of_numbers, value.values()))
    if isinstance(value, list | tuple):
        return all(map(of_numbers, value))
    if isinstance(value, Type):
        return all(map(of_numbers, (value.shape, value.strides)))
    return not isinstance(value, Expr)


def _const(op: Op, value: Any) -> Value:
    t = op.result.type
    array = np.asarray(value, dtype=numpy_dtype(t.dtype))
    array = rounded(array) if t.dtype == "bf16" else array
    new = Builder(_parent(op), before=op, loc=op.loc).const(_shortest(array, t.shape), t)
    new.name = op.result.name
    return new


def _shortest(array: np.ndarray[Any, Any], shape: tuple[Size, ...]) -> Any:
    """A Python number when all elements have equal bits (so that the constant is a splat), else the array."""
    if array.size and array.tobytes() == array.tobytes()[: array.itemsize] * array.size:
        return array.flat[0].item()
    return array


def _parent(op: Op) -> Block:
    assert op.parent is not None
    return op.parent
