"""Rows of a few elements, such as the coordinates of points: reductions along them as maps over the rows, of which a vector then holds
an element of each of many, where it would hold one row; columns that are put side by side to make such rows as a map too, which writes
whole vectors."""

from __future__ import annotations

from tcc.ir.builder import Builder
from tcc.ir.core import Op, Value
from tcc.ir.dims import product
from tcc.ir.types import TOTALS, Type
from tcc.passes.fold import splat
from tcc.passes.pattern import is_complex

LONGEST = 4  # elements of a row, which lie as far apart as whole vectors are still read
FEWEST = 1024  # rows
MOST = 8  # operations on each element: they are written once for each of a row
COMBINED = {"sum": "add", "prod": "mul", "max": "maximum", "min": "minimum"}


def of_short_rows(op: Op, b: Builder) -> Value | None:
    """The reduction as a map, with the bits of a row's kernel; None where that is no gain, or what is reduced is also read whole."""
    if op.name not in COMBINED or is_complex(op):
        return None
    x = op.operands[0]
    *outer, n = x.type.shape
    rows = product(outer)
    if list(op.attrs["axes"]) != [x.type.rank - 1] or not (isinstance(n, int) and 2 <= n <= LONGEST):
        return None
    if not isinstance(rows, int) or rows < FEWEST or not _splits(x, MOST):
        return None
    result = op.result.type.dtype
    total = TOTALS.get(result, result) if op.name in ("sum", "prod") else result
    parts = [_as(total, _column(x, k, b), b) for k in range(n)]
    step = 1 << (n - 1).bit_length() >> 1
    while step:  # halves first, as the lanes of a vector are added up
        for k in range(step):
            if k + step < len(parts):
                parts[k] = b.op(COMBINED[op.name], parts[k], parts[k + step]).result
        del parts[step:]
        step >>= 1
    return _as(result, parts[0], b)


def of_columns(op: Op, b: Builder) -> Value | None:
    """A concat of a few columns as a map that picks one of them by an element's place in its row; None for others."""
    if op.name != "concat" or is_complex(op):
        return None
    shape, axis = list(op.result.type.shape), op.result.type.rank - 1
    if op.attrs["axis"] != axis:
        return None
    rows = product(shape[:-1])
    if any(v.type.shape[-1] != 1 for v in op.operands) or not 2 <= len(op.operands) <= LONGEST:
        return None
    if not isinstance(rows, int) or rows < FEWEST:
        return None
    place = b.iota(shape=shape, axis=axis, dtype="i64")
    made: Value
    *others, made = (b.broadcast(v, shape=shape) for v in op.operands)
    for k, column in reversed(list(enumerate(others))):
        made = b.where(b.eq(place, k), column, made)
    return made


def _as(dtype: str, v: Value, b: Builder) -> Value:
    made: Value = v if v.type.dtype == dtype else b.cast(v, dtype=dtype)
    return made


def _is_map(v: Value) -> bool:
    return v.op is not None and bool(v.op.defn.scalar)


def _splits(v: Value, most: int) -> bool:
    """Whether what makes `v` element by element takes at most so many operations, and is read by nothing else."""
    waiting, found = [v], 0
    while waiting:
        v = waiting.pop()
        op = v.op
        if op is None or splat(v) is not None:
            continue
        if op.name == "iota":
            return False
        if _is_map(v):
            found += 1
            if found > most or len(v.uses) > 1 or is_complex(op):
                return False
        if _is_map(v) or op.name in ("broadcast", "dimshuffle"):
            waiting.extend(op.operands)
    return True


def _column(v: Value, k: int, b: Builder) -> Value:
    """Element `k` of each row of `v`."""
    op, shape = v.op, list(v.type.shape[:-1])
    made: Value
    if (number := splat(v)) is not None:
        return b.const(number.item(), Type(v.type.dtype, tuple(shape)))
    if op is not None and _is_map(v):
        return b.op(op.name, *(_column(o, k, b) for o in op.operands), attrs=op.attrs).result
    if op is not None and op.name == "broadcast":
        source = op.operands[0]
        if source.type.rank and source.type.shape[-1] != 1:
            made = b.broadcast(_column(source, k, b), shape=shape)
        else:
            same = b.dimshuffle(source, order=list(range(source.type.rank - 1)))
            made = b.broadcast(same, shape=shape)
        return made
    source, order = v, list(range(v.type.rank))
    if op is not None and op.name == "dimshuffle":
        source, order = op.operands[0], list(op.attrs["order"])
    axis = order[-1]
    sizes = list(source.type.shape)
    start, size = [0] * len(sizes), [*sizes[:axis], 1, *sizes[axis + 1 :]]
    start[axis] = k
    part = b.slice(source, start=start, size=size, step=[1] * len(sizes))
    made = b.dimshuffle(part, order=order[:-1])
    return made
