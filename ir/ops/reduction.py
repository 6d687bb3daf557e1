"""Rows that fold or order the elements along axes.  Reductions drop the axes that they reduce."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tcc.ir.core import Attrs, Block
from tcc.ir.ops.rules import (
    ANY,
    BOOL,
    NUMBERS,
    ORDERED,
    back_to,
    elementwise,
    linear,
    per_operand_element,
    want_axes,
    want_axis,
    want_dtype,
)
from tcc.ir.optable import REQUIRED, GradRule, OpDef, RopRule, Sample, TypeRule, define
from tcc.ir.types import Type, numpy_dtype


def reduced(row: str, accepts: frozenset[str]) -> TypeRule:
    """The operand's type without `axes`, of the dtype that the attribute `dtype` names if there is one."""

    def infer(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
        (t,), axes = types, attrs["axes"]
        want_dtype(row, "x", t, accepts)
        want_axes(row, axes, t.rank)
        dtype = attrs.get("dtype") or t.dtype
        if "dtype" in attrs and dtype not in NUMBERS:
            raise TypeError(f"{row}: of {t} needs the attribute dtype, a number type; got {attrs['dtype']!r}")
        return [Type(dtype, tuple(s for a, s in enumerate(t.shape) if a not in axes))]

    return infer


def spread(b: Any, v: Any, op: Any) -> Any:
    """`v`, of the shape of the result of the reduction `op`, repeated to the shape of its operand."""
    x = op.operands[0]
    axes = op.attrs["axes"] if "axes" in op.attrs else [op.attrs["axis"]]
    if len(axes) == 0:
        return v
    kept = [a for a in range(b.rank(x)) if a not in axes]
    order = [kept.index(a) if a in kept else -1 for a in range(b.rank(x))]
    return b.broadcast(b.dimshuffle(v, order=order) if kept else v, shape=b.shape(x))


def as_dtype_of(b: Any, v: Any, x: Any) -> Any:
    return back_to(b, v, b.dtype(x))


def reduction(
    name: str,
    ref: Callable[..., Any],
    doc: str,
    *,
    accepts: frozenset[str],
    grad: GradRule,
    rop: RopRule | None = None,
    dtype: bool = False,
) -> OpDef:
    """A row over `axes`; with `dtype`, the result's dtype is an attribute (None: the operand's)."""
    types = ("f32[3,4]", "f64[2,3,4]", "i64[5]") if dtype or accepts != BOOL else ("bool[3,4]", "bool[5]")
    extra = {"dtype": None} if dtype else {}
    samples = [Sample((t,), {"axes": (0,)}) for t in types] + [Sample((types[0],), {"axes": (0, 1)})]
    samples += [Sample((types[0],), {"axes": (1,)}), Sample((types[0],), {"axes": ()})]
    if dtype:
        samples += [Sample(("i32[3,4]",), {"axes": (1,), "dtype": "i64"})]
        samples += [Sample(("f32[3,4]",), {"axes": (1,), "dtype": "f64"})]
    return define(
        OpDef(
            name,
            "x",
            reduced(name, accepts),
            ref,
            {"axes": REQUIRED, **extra},
            doc=doc,
            grad=grad,
            rop=rop,
            kernel=True,
            flops=per_operand_element(1),
            samples=tuple(samples),
        )
    )


# -- sum and product -------------------------------------------------------------------------------------------------


def _accumulate(fold: Any) -> Callable[..., Any]:
    """Adds up (or multiplies) floats in the widest float, as the kernels do at least in effect."""

    def ref(x: Any, axes: Sequence[int], dtype: str | None) -> Any:
        result = numpy_dtype(dtype) if dtype else np.asarray(x).dtype
        wide = {"f": np.float64, "c": np.complex128}.get(result.kind, result)
        return np.asarray(fold(x, axis=tuple(axes), dtype=wide)).astype(result)

    return ref


def sum_grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
    return [as_dtype_of(b, spread(b, g[0], op), op.operands[0])]


def prod_grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
    """The product of the others, exact with zeros: x's own share is divided out of the product of all that is not 0."""
    (x,), result = op.operands, op.result
    wide = as_dtype_of(b, x, result)
    is_zero = b.eq(wide, 0)
    without = b.where(is_zero, b.full(1, wide), wide)
    axes = op.attrs["axes"]
    zero = b.cast(is_zero, dtype=b.dtype(wide))
    zeros = b.sum(zero, axes=axes)
    others = b.div(spread(b, b.prod(without, axes=axes), op), without)
    exact = b.where(b.eq(spread(b, zeros, op), zero), others, b.full(0, wide))
    return [as_dtype_of(b, b.mul(spread(b, g[0], op), exact), x)]


reduction(
    "sum",
    _accumulate(np.sum),
    "The sum over `axes`, of dtype `dtype` (None: x's).",
    accepts=ANY,
    grad=sum_grad,
    rop=linear("sum"),
    dtype=True,
)
reduction(
    "prod",
    _accumulate(np.prod),
    "The product over `axes`, of dtype `dtype` (None: x's).",
    accepts=ANY,
    grad=prod_grad,
    dtype=True,
)

# -- extremes --------------------------------------------------------------------------------------------------------


def lowest(dtype: np.dtype[Any]) -> Any:
    """The maximum of nothing."""
    if dtype.kind == "f":
        return dtype.type(-np.inf)
    return np.iinfo(dtype).min if dtype.kind in "iu" else False


def highest(dtype: np.dtype[Any]) -> Any:
    """The minimum of nothing."""
    if dtype.kind == "f":
        return dtype.type(np.inf)
    return np.iinfo(dtype).max if dtype.kind in "iu" else True


def max_ref(x: Any, axes: Sequence[int]) -> Any:
    return np.maximum.reduce(np.asarray(x), axis=tuple(axes), initial=lowest(np.asarray(x).dtype))


def min_ref(x: Any, axes: Sequence[int]) -> Any:
    return np.minimum.reduce(np.asarray(x), axis=tuple(axes), initial=highest(np.asarray(x).dtype))


def extreme_grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
    (x,) = op.operands
    wide = spread(b, g[0], op)
    return [b.where(b.eq(x, spread(b, op.result, op)), wide, b.full(0, wide))]


def flat_grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
    return [b.full(0, op.operands[0])]


reduction("max", max_ref, "The largest over `axes`; NaN if any is.", accepts=ORDERED, grad=extreme_grad)
reduction("min", min_ref, "The smallest over `axes`; NaN if any is.", accepts=ORDERED, grad=extreme_grad)
reduction("any", lambda x, axes: np.any(x, tuple(axes)), "Whether any holds.", accepts=BOOL, grad=flat_grad)
reduction("all", lambda x, axes: np.all(x, tuple(axes)), "Whether all hold.", accepts=BOOL, grad=flat_grad)

# -- along one axis --------------------------------------------------------------------------------------------------


def arg_row(name: str, find: Callable[..., Any], doc: str) -> OpDef:
    def infer(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
        (t,), axis = types, attrs["axis"]
        want_dtype(name, "x", t, ORDERED)
        want_axis(name, axis, t.rank)
        return [Type("i64", (*t.shape[:axis], *t.shape[axis + 1 :]))]

    def ref(x: Any, axis: int) -> Any:
        if np.shape(x)[axis] == 0:
            return np.zeros(np.delete(np.shape(x), axis), np.int64)
        return find(x, axis)

    samples = (
        Sample(("f32[3,4]",), {"axis": 1}),
        Sample(("f64[3,4]",), {"axis": 0}),
        Sample(("i64[5]",), {"axis": 0}),
    )
    return define(
        OpDef(
            name,
            "x",
            infer,
            ref,
            {"axis": REQUIRED},
            doc=doc,
            grad=flat_grad,
            kernel=True,
            flops=per_operand_element(1),
            samples=samples,
        )
    )


arg_row(
    "argmax", np.argmax, "The first index of the largest along `axis`, or of the first NaN; 0 of nothing."
)
arg_row(
    "argmin", np.argmin, "The first index of the smallest along `axis`, or of the first NaN; 0 of nothing."
)


def along_axis(row: str, accepts: frozenset[str], result: str = "") -> TypeRule:
    """The operand's type, under a valid `axis`."""
    same = elementwise(row, "x", accepts, result)

    def infer(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
        want_axis(row, attrs["axis"], types[0].rank)
        return same(types, attrs, blocks)

    return infer


def reversed_along(b: Any, x: Any, axis: int) -> Any:
    shape, rank = b.shape(x), b.rank(x)
    start = [shape[a] - 1 if a == axis else 0 for a in range(rank)]
    return b.slice(x, start=start, size=list(shape), step=[-1 if a == axis else 1 for a in range(rank)])


def sum_of_following(b: Any, x: Any, axis: int) -> Any:
    return reversed_along(b, b.cumsum(reversed_along(b, x, axis), axis=axis), axis)


def cumsum_grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
    return [sum_of_following(b, g[0], op.attrs["axis"])]


def cumprod_grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
    return [b.div(sum_of_following(b, b.mul(op.result, g[0]), op.attrs["axis"]), op.operands[0])]


def _running(fold: Callable[..., Any], x: Any, axis: int) -> Any:
    """In x's dtype; of float16 the totals are float32's, each rounded where it is put down."""
    return fold(x, axis, dtype=np.float32 if x.dtype == np.float16 else x.dtype).astype(x.dtype)


def running(
    name: str, ref: Callable[..., Any], doc: str, grad: GradRule, rop: RopRule | None, low: float
) -> OpDef:
    samples = (
        Sample(("f32[3,4]",), {"axis": 1}),
        Sample(("f64[3,4]",), {"axis": 0}),
        Sample(("i64[5]",), {"axis": 0}),
    )
    return define(
        OpDef(
            name,
            "x",
            along_axis(name, NUMBERS),
            lambda x, axis: _running(ref, np.asarray(x), axis),
            {"axis": REQUIRED},
            doc=doc,
            grad=grad,
            rop=rop,
            kernel=True,
            flops=per_operand_element(1),
            samples=tuple(Sample(s.types, s.attrs, low=low) for s in samples),
        )
    )


running("cumsum", np.cumsum, "The running sum along `axis`.", cumsum_grad, linear("cumsum"), -2.0)
running("cumprod", np.cumprod, "The running product along `axis`.", cumprod_grad, None, 0.5)

# -- order -----------------------------------------------------------------------------------------------------------


def sort_grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
    (x,), axis = op.operands, op.attrs["axis"]
    order = b.argsort(x, axis=axis)
    indices = [order if a == axis else b.iota(shape=b.shape(x), axis=a) for a in range(b.rank(x))]
    return [b.scatter(b.full(0, x), g[0], *indices, axes=tuple(range(b.rank(x))), mode="add")]


def ordering(name: str, ref: Callable[..., Any], doc: str, grad: GradRule, result: str) -> OpDef:
    return define(
        OpDef(
            name,
            "x",
            along_axis(name, ORDERED, result),
            ref,
            {"axis": REQUIRED},
            doc=doc,
            grad=grad,
            kernel=True,
            flops=per_operand_element(10),
            samples=(Sample(("f32[3,4]",), {"axis": 1}), Sample(("f64[5,2]",), {"axis": 0})),
        )
    )


ordering(
    "sort",
    lambda x, axis: np.sort(x, axis, kind="stable"),
    "x in ascending order along `axis`.",
    sort_grad,
    "",
)
ordering(
    "argsort",
    lambda x, axis: np.argsort(x, axis, kind="stable"),
    "The indices that sort x along `axis`, equal elements in their order.",
    flat_grad,
    "i64",
)


def argtopk_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    (t,), axis, k = types, attrs["axis"], attrs["k"]
    want_dtype("argtopk", "x", t, ORDERED)
    want_axis("argtopk", axis, t.rank)
    n = t.shape[axis]
    if isinstance(k, int) and isinstance(n, int) and not 0 <= k <= n:
        raise TypeError(f"argtopk: k must be within 0..{n}, the size of axis {axis}, got {k}")
    return [Type("i64", (*t.shape[:axis], k, *t.shape[axis + 1 :]))]


def argtopk(x: Any, axis: int, k: int, largest: bool) -> Any:
    """NaN is larger than all numbers; equal elements stay in their order."""
    if not largest:
        return np.take(np.argsort(x, axis, kind="stable"), range(k), axis)
    turned = np.argsort(np.flip(x, axis), axis, kind="stable")
    return np.shape(x)[axis] - 1 - np.take(np.flip(turned, axis), range(k), axis)


define(
    OpDef(
        "argtopk",
        "x",
        argtopk_type,
        argtopk,
        {"axis": REQUIRED, "k": REQUIRED, "largest": True},
        doc="The indices of the k largest (or smallest) along `axis`, those first, equal elements in their order; k is at most the axis's size.",
        grad=flat_grad,
        kernel=True,
        flops=per_operand_element(4),
        samples=(
            Sample(("f32[3,4]",), {"axis": 1, "k": 2}),
            Sample(("f64[5,2]",), {"axis": 0, "k": 3, "largest": False}),
        ),
    )
)
