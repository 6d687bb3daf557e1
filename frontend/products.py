"""Products of matrices and what is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tcc import build
from tcc.build import node, shape_of, size_of, size_product
from tcc.elemwise import mul
from tcc.graph import Shown
from tcc.reductions import sum as _sum
from tcc.shapes import dimshuffle, reshape
from tcc.types import promote
from tcc.variable import as_variable


def dot(a: Any, b: Any) -> Any:
    """The product over a's last axis and b's last but one (its only one, if a vector); scalars multiply."""
    x, y = as_variable(a), as_variable(b)
    if not x.type.ndim or not y.type.ndim:
        return mul(x, y)
    if x.type.ndim > 2 or y.type.ndim > 2:
        return tensordot(x, y, [[x.type.ndim - 1], [max(0, y.type.ndim - 2)]])
    result = _product(*_one_dtype(x, y))
    _show(result, "dot", a=x, b=y)
    return result


def matmul(a: Any, b: Any) -> Any:
    """The product over the last two axes, with those before them as a batch."""
    x, y = as_variable(a), as_variable(b)
    if x.type.ndim <= 2 and y.type.ndim <= 2:
        return dot(x, y)
    rank = max(x.type.ndim, y.type.ndim)
    left, right = _one_dtype(x, y)
    if x.type.ndim == 1 or y.type.ndim == 1:
        axis = x.type.ndim - 1, max(0, y.type.ndim - 2)
        return tensordot(x, y, [[axis[0]], [axis[1]]])
    left, right = (dimshuffle(v, *["x"] * (rank - v.type.ndim), *range(v.type.ndim)) for v in (left, right))
    batch = [
        size_of(left, k) if not left.type.broadcastable[k] else size_of(right, k) for k in range(rank - 2)
    ]
    left, right = (
        build.broadcast_to(v, [*batch, *(size_of(v, k) for k in (rank - 2, rank - 1))]) for v in (left, right)
    )
    return node("matmul", left, right, shown=Shown("BatchedDot", (x, y))).result


def _one_dtype(x: Any, y: Any) -> tuple[Any, Any]:
    dtype = promote(x.type.dtype, y.type.dtype)
    if dtype == "bool":
        raise TypeError("dot is not defined on bools; cast them")
    return build.cast(x, dtype), build.cast(y, dtype)


def _product(x: Any, y: Any) -> Any:
    """Vectors stand as a row or a column of a matrix."""
    left = dimshuffle(x, "x", 0) if x.type.ndim == 1 else x
    right = dimshuffle(y, 0, "x") if y.type.ndim == 1 else y
    result = node("matmul", left, right).result
    keep = [k for k, v in enumerate((x, y)) if v.type.ndim == 2]
    return result if keep == [0, 1] else dimshuffle(result, *keep)


def _show(result: Any, label: str, a: Any, b: Any) -> None:
    result.owner.shown = Shown(label, (a, b))


def outer(a: Any, b: Any) -> Any:
    """The products of each element of a with each of b."""
    x, y = as_variable(a), as_variable(b)
    x = x if x.type.ndim == 1 else reshape(x, [-1])
    y = y if y.type.ndim == 1 else reshape(y, [-1])
    return mul(dimshuffle(x, 0, "x"), dimshuffle(y, "x", 0))


def tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
    """The sum of products over pairs of axes; a number stands for that many last axes of a and first ones of b."""
    x, y = as_variable(a), as_variable(b)
    first, second = _pairs(axes, x.type.ndim, y.type.ndim)
    return _contract(x, y, first, second, 0, "TensorDot")


def _pairs(axes: Any, left: int, right: int, batched: int = 0) -> tuple[list[int], list[int]]:
    if isinstance(axes, int):
        if axes > left - batched or axes > right - batched:
            raise ValueError(
                f"axes can not be larger than the dimension of a ({left}) or b ({right}), got {axes}"
            )
        return list(range(left - axes, left)), list(range(batched, batched + axes))
    one, two = axes
    first = [one] if isinstance(one, int) else list(one)
    second = [two] if isinstance(two, int) else list(two)
    if len(first) != len(second):
        raise ValueError(f"axes elements must have the same length, got {axes}")
    for k, rank in [*((k, left) for k in first), *((k, right) for k in second)]:
        if not -rank <= k < rank:
            raise ValueError(f"axes contain {k}, but there are {rank} dimensions")
    return [k % left for k in first], [k % right for k in second]


def _contract(x: Any, y: Any, first: Sequence[int], second: Sequence[int], batch: int, label: str) -> Any:
    """Both as [batch..., free, summed] matrices."""
    left, right = _one_dtype(x, y)
    shared = list(range(batch))
    free_x = [k for k in range(x.type.ndim) if k not in first and k >= batch]
    free_y = [k for k in range(y.type.ndim) if k not in second and k >= batch]
    left = dimshuffle(left, *shared, *free_x, *first)
    right = dimshuffle(right, *shared, *second, *free_y)
    sizes_x, sizes_y = shape_of(left), shape_of(right)
    head = list(sizes_x[:batch])
    m, n = len(free_x), len(free_y)
    rows, summed = sizes_x[batch : batch + m], sizes_x[batch + m :]
    columns = sizes_y[batch + len(second) :]
    flat_x = reshape(left, [*head, size_product(rows), size_product(summed)])
    flat_y = reshape(
        right, [*sizes_y[:batch], size_product(sizes_y[batch : batch + len(second)]), size_product(columns)]
    )
    made = node("matmul", flat_x, flat_y).result
    if m == 1 and n == 1:
        result = made
    else:
        result = reshape(made, [*head, *rows, *columns])
        flags = [x.type.broadcastable[k] for k in (*shared, *free_x)] + [
            y.type.broadcastable[k] for k in free_y
        ]
        assert len(flags) == result.type.ndim
    _show(result, label, x, y)
    return result


def batched_dot(a: Any, b: Any) -> Any:
    """dot for each element of the first axes."""
    x, y = as_variable(a), as_variable(b)
    if not x.type.ndim or not y.type.ndim:
        raise TypeError("a and b must have at least one (1) dimension")
    if min(x.type.ndim, y.type.ndim) > 1 and max(x.type.ndim, y.type.ndim) > 3:
        return batched_tensordot(x, y, [[x.type.ndim - 1], [max(1, y.type.ndim - 2)]])
    if x.type.ndim == 1:
        return mul(dimshuffle(x, 0, *["x"] * (y.type.ndim - 1)), y)
    if y.type.ndim == 1:
        return mul(x, dimshuffle(y, 0, *["x"] * (x.type.ndim - 1)))
    left, right = _one_dtype(x, y)
    if x.type.ndim == 2 and y.type.ndim == 2:
        result = _sum(mul(left, right), axis=1)
        result.owner.shown = Shown("BatchedDot", (x, y))
        return result
    left = dimshuffle(left, 0, "x", 1) if x.type.ndim == 2 else left
    right = dimshuffle(right, 0, 1, "x") if y.type.ndim == 2 else right
    result = node("matmul", left, right).result
    if x.type.ndim == 2 or y.type.ndim == 2:
        result = dimshuffle(result, 0, 2 if x.type.ndim == 2 else 1)
    result.owner.shown = Shown("BatchedDot", (x, y))
    return result


def batched_tensordot(x: Any, y: Any, axes: Any = 2) -> Any:
    """tensordot for each element of the first axes; a list of axes counts the batch axis."""
    x, y = as_variable(x), as_variable(y)
    first, second = _pairs(axes, x.type.ndim, y.type.ndim, batched=1)
    return _contract(x, y, first, second, 1, "BatchedTensorDot")
