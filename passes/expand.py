"""Composite operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tcc.ir.arrays import as_numbers, in_memory
from tcc.ir.builder import Builder
from tcc.ir.core import Block, Func, Op, Value
from tcc.ir.ops.sparse import PRODUCTS as SPARSE
from tcc.ir.ops.sparse import check_matrix
from tcc.ir.types import HALVES, Type, numpy_dtype
from tcc.passes.indexing import picks
from tcc.passes.manager import Context
from tcc.passes.shortrows import of_columns, of_short_rows
from tcc.passes.writes import on_host

# rows with kernels for float32 and float64 alone
CONVOLUTIONS = frozenset(("conv", "conv_input", "conv_filter"))
WIDE = CONVOLUTIONS | frozenset("matmul pool unpool max_pool_grad max_pool_pick".split())

BYTES = {"i8": (-128, 127), "u8": (0, 255)}  # and what they hold
NARROW = {
    "i32": (("i8", "i8"), ("u8", "i8"), ("i8", "u8")),
    "f32": (("bf16", "bf16"), ("f16", "f16")),
}  # pairs of dtypes whose products have instructions, by that of their sums
RESHAPED = frozenset(("dimshuffle", "reshape", "broadcast", "slice"))


# From how many rows on NumPy's LAPACK takes less time than the kernels, by a row's name (for solutions by triangles never, as NumPy has
# no way to it).  On a CPU with AVX-512, one thread of each, float64: a Cholesky factor of 2048 rows 176 against 269 ms; an inverse of
# 1024 116 against 211, of 1536 422 against 428; pivots of 1024 37 against 56, of 1536 243 against 170.
LAPACK_FROM = {
    "cholesky": 2048,
    "solve": 1280,
    "matrix_inverse": 1280,
    "det": 1024,
    "logabsdet": 1024,
    "sign_of_det": 1024,
}


def expand(
    func: Func,
    ctx: Context,
    *,
    half_products: bool = False,
    widening: str = "i8 u8",
    lapack: str = "large",
) -> None:
    """Writes operations whose row has an expansion (softmax, xent, ...) in terms of others, so that fusion sees inside;
    a scatter of one element to each row, and reductions and stacks of rows of a few elements, become elementwise, too.

    Products, windows and composites of float16 and bfloat16 are float32's, between casts that fuse with what is around them;
    with `half_products`, which machines for them want, products of matrices and convolutions stay.  `widening` names the dtypes
    of which products read the numbers as they are, where they are cast to a wider dtype to be multiplied and added up.
    Factors and solutions of matrices become kernels, but where these are known to be large, which is left to LAPACK on the host
    (`lapack` = "large"), where that cannot be ("never"), or where the kernels are none of a CPU ("always").
    """
    _visit(func.body, half_products, frozenset(widening.split()), lapack)


def needs_python(op: Op) -> bool:
    """Whether an operation runs on the host and never becomes anything else."""
    return on_host(op) and not (op.defn.host and op.defn.expand is not None)


def _visit(block: Block, half_products: bool, widening: frozenset[str], lapack: str) -> None:
    op = block.first
    while op is not None:
        for inner in op.blocks:
            _visit(inner, half_products, widening, lapack)
        before = op.prev
        product = op.name == "matmul" and 1 not in op.result.type.shape[-2:]
        stays = half_products and (product or op.name in CONVOLUTIONS)
        b = Builder(block, before=op, loc=op.loc)
        results: Sequence[Value] | None = None
        if op.name in SPARSE and not op.attrs["checked"] and not on_host(op):
            check_matrix(b, op)
            op.attrs["checked"] = True
        if op.name == "matmul_widening":
            if op.operands[0].type.dtype not in widening:
                assert op.defn.expand is not None
                results = op.defn.expand(b, op)
        elif op.name == "matmul" and op.result.type.dtype in NARROW:
            results = of_narrow(op, b, widening)
        elif op.defn.host:
            results = _native(op, b, lapack)
        elif not stays:
            results = _expansion(op, b)
        if results is None and op.name == "matmul" and op.result.type.shape[-2:] == (1, 1):
            results = of_vectors(op, b)
        if results is None:
            op = op.next
            continue
        for old, new in zip(op.results, results):
            new.name = new.name or old.name
        op.replace_by(list(results))
        op = before.next if before is not None else block.first  # what it became may hold composites again


def _native(op: Op, b: Builder, lapack: str) -> Sequence[Value] | None:
    if op.defn.expand is None or lapack == "always":
        return None
    rows = op.operands[0].type.shape[-1]
    triangle = op.attrs.get("kind", "general") != "general"
    if lapack == "large" and not triangle and isinstance(rows, int) and rows >= LAPACK_FROM[op.name]:
        return None
    return op.defn.expand(b, op)


def _expansion(op: Op, b: Builder) -> Sequence[Value] | None:
    if (op.name in WIDE or op.defn.expand is not None) and any(v.type.dtype in HALVES for v in op.operands):
        return in_float32(op, b)
    if op.name == "scatter" and picks(op):
        return [one_in_each_row(op, b)]
    if (made := of_short_rows(op, b) or of_columns(op, b)) is not None:
        return [made]
    if op.defn.expand is None or op.defn.kernel:
        return None
    results: Sequence[Value] = op.defn.expand(b, op)
    return results


def of_narrow(op: Op, b: Builder, narrow: frozenset[str]) -> Sequence[Value] | None:
    """A product of casts of `narrow` dtypes, seen through views, as one of those; None where no instruction takes them."""
    wide = op.result.type.dtype
    pairs = [p for p in NARROW[wide] if narrow.issuperset(p)]
    found = next((p for p in pairs if all(map(_counts_as, op.operands, p))), None)
    if found is None or op.attrs["accumulate"]:
        return None
    if wide == "f32" and 1 in op.result.type.shape[-2:]:
        return None  # a reduction, as float32's own
    operands = (_as_narrow(v, dtype, b) for v, dtype in zip(op.operands, found))
    if found != ("i8", "u8"):
        return [b.matmul_widening(*operands)]
    rank = op.result.type.rank
    turned = [*range(rank - 2), rank - 1, rank - 2]
    right, left = (b.dimshuffle(v, order=turned) for v in operands)
    return [b.dimshuffle(b.matmul_widening(left, right), order=turned)]


def _counts_as(v: Value, dtype: str) -> bool:
    """Whether `v` is a cast of a narrow dtype, or a constant that it holds."""
    op = v.op
    if op is None:
        return False
    if op.name == "cast":
        return op.operands[0].type.dtype == dtype
    if op.name == "const":
        return _holds(dtype, np.asarray(op.attrs["value"]))
    return op.name in RESHAPED and _counts_as(op.operands[0], dtype)


def _holds(dtype: str, value: np.ndarray[Any, Any]) -> bool:
    if dtype in HALVES:
        with np.errstate(over="ignore"):
            return np.array_equal(as_numbers(in_memory(value, dtype), dtype), value, equal_nan=True)
    low, high = BYTES[dtype]
    return bool(np.all((low <= value) & (value <= high)))


def _as_narrow(v: Value, dtype: str, b: Builder) -> Value:
    op = v.op
    assert op is not None
    if op.name == "cast":
        return op.operands[0]
    if op.name == "const":
        value = np.asarray(op.attrs["value"]).astype(numpy_dtype(dtype))
        return b.const(value if value.ndim else value.item(), Type(dtype, v.type.shape))
    return b.op(op.name, _as_narrow(op.operands[0], dtype, b), attrs=op.attrs).result


def in_float32(op: Op, b: Builder) -> Sequence[Value]:
    """The op on its operands in float32, and its results rounded once."""
    wide = [b.cast(v, dtype="f32") if v.type.dtype in HALVES else v for v in op.operands]
    if op.name == "matmul" and (made := sum_of_products(op, b, *wide)) is not None:
        results = [made]
    else:
        results = b.op(op.name, *wide, attrs=op.attrs).results
    return [
        b.cast(new, dtype=old.type.dtype) if new.type.dtype != old.type.dtype else new
        for new, old in zip(results, op.results, strict=True)
    ]


def sum_of_products(op: Op, b: Builder, x: Value, y: Value) -> Value | None:
    """A matrix times a vector as a reduction, which reads the halves where they lie; None for other products."""
    *batch, m, n = op.result.type.shape
    if m != 1 and n != 1:
        return None
    k, rank = x.type.shape[-1], op.result.type.rank
    turned = [*range(rank - 2), rank - 1, rank - 2]
    if n == 1:
        row = b.dimshuffle(y, order=turned)
        terms, along = b.mul(x, b.broadcast(row, shape=[*batch, m, k])), rank - 1
    else:
        column = b.dimshuffle(x, order=turned)
        terms, along = b.mul(b.broadcast(column, shape=[*batch, k, n]), y), rank - 2
    result: Value = b.reshape(b.sum(terms, axes=(along,)), shape=list(op.result.type.shape))
    return result


def of_vectors(op: Op, b: Builder) -> Sequence[Value] | None:
    """A product of a row by a column as the sum that it is, which fuses with what makes and what reads it, and whose chains
    and threads share one sum's terms; None for one that adds to what is there."""
    if len(op.operands) > 2 or op.attrs["accumulate"]:
        return None
    made = sum_of_products(op, b, *op.operands)
    return None if made is None else [made]


def one_in_each_row(op: Op, b: Builder) -> Value:
    """scatter(x, v, iota, y) as where(iota == y, v, x), or with x + v in place of v."""
    x, v, *_, y = op.operands
    shape, rank = list(x.type.shape), x.type.rank
    count = b.broadcast(b.size_value(shape[-1], dtype=y.type.dtype), shape=list(y.type.shape))
    column = b.where(b.lt(y, 0), b.add(y, count), y)

    def over_rows(value: Value) -> Value:
        result: Value = b.broadcast(b.dimshuffle(value, order=[*range(rank - 1), -1]), shape=shape)
        return result

    chosen = b.eq(b.iota(shape=shape, axis=rank - 1, dtype=y.type.dtype), over_rows(column))
    wide = over_rows(v)
    result: Value = b.where(chosen, wide if op.attrs["mode"] == "set" else b.add(x, wide), x)
    return result
