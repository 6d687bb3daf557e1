"""Softmax and cross-entropy with class numbers, under the names of Theano's fused ops, and the hierarchical softmax."""

from __future__ import annotations

from typing import Any

from tcc import build
from tcc.creation import arange, zeros_like
from tcc.elemwise import TO_FLOAT, add, cast, eq, int_div, lt, mod, mul, neg, sub, true_div
from tcc.graph import Shown
from tcc.indexing import inc_subtensor
from tcc.joining import concatenate
from tcc.products import dot, tensordot
from tcc.reductions import argmax, max_and_argmax, sum
from tcc.shapes import dimshuffle, flatten, reshape
from tcc.tensor.extra_ops import checked_index, unique
from tcc.tensor.nnet.basic import softmax
from tcc.tensor.nnet.blocksparse import sparse_block_dot
from tcc.variable import as_variable


def softmax_with_bias(x: Any, b: Any) -> Any:
    """The softmax of each row of x + b."""
    return softmax(_biased(x, b))


def _biased(x: Any, b: Any) -> Any:
    x, b = as_variable(x), as_variable(b)
    if x.type.ndim != 2 or x.type.dtype in TO_FLOAT:
        raise ValueError("x must be 2-d tensor of floats", x.type)
    if b.type.ndim != 1 or b.type.dtype in TO_FLOAT:
        raise ValueError("b must be 1-d tensor of floats", b.type)
    return build.cast(add(x, b), x.type.dtype)


def _classes(y: Any, scores: Any) -> Any:
    """Class numbers of columns of `scores`: ValueError, when the function runs, if one is negative, IndexError if too large."""
    y = checked_index(y, build.size_of(scores, 1), 1)
    none = build.same_size(sum(cast(lt(y, 0), "int64")), 0, "y_i value out of bounds: negative class numbers")
    return add(y, build.size_variable(none))


def crossentropy_softmax_argmax_1hot_with_bias(x: Any, b: Any, y_idx: Any) -> list[Any]:
    """-log softmax(x + b)[i, y_idx[i]], the softmax, and in y_idx's dtype the most probable class, of each row.

    A negative class number is ValueError when the function runs, one that is too large IndexError.
    """
    logits, labels = _biased(x, b), as_variable(y_idx)
    if labels.type.ndim != 1 or labels.type.dtype[:3] not in ("int", "uin"):
        raise ValueError("y_idx must be 1-d tensor of [u]ints", labels.type)
    cost = build.node("xent", logits, _classes(labels, logits)).result
    others = [softmax(logits), cast(argmax(logits, axis=1), labels.type.dtype)]
    for v in others:  # the labels count as used, whichever result is asked for
        v.owner.shown = Shown(
            "CrossentropySoftmaxArgmax1HotWithBias", (as_variable(x), as_variable(b), labels)
        )
    return [cost, *others]


def crossentropy_softmax_1hot_with_bias(x: Any, b: Any, y_idx: Any) -> list[Any]:
    """-log softmax(x + b)[i, y_idx[i]], and the softmax."""
    return crossentropy_softmax_argmax_1hot_with_bias(x, b, y_idx)[:2]


def crossentropy_softmax_1hot(x: Any, y_idx: Any) -> list[Any]:
    """-log softmax(x)[i, y_idx[i]], and the softmax."""
    return crossentropy_softmax_1hot_with_bias(x, zeros_like(as_variable(x)[0]), y_idx)


def crossentropy_softmax_max_and_argmax_1hot_with_bias(x: Any, b: Any, y_idx: Any) -> tuple[Any, ...]:
    """-log softmax(x + b)[i, y_idx[i]], the softmax, and its largest element in each row, with its position."""
    cost, p = crossentropy_softmax_1hot_with_bias(x, b, y_idx)
    return (cost, p, *max_and_argmax(p, axis=-1))


def crossentropy_softmax_max_and_argmax_1hot(x: Any, y_idx: Any) -> tuple[Any, ...]:
    """The same of softmax(x)."""
    return crossentropy_softmax_max_and_argmax_1hot_with_bias(x, zeros_like(as_variable(x)[0]), y_idx)


def crossentropy_softmax_1hot_with_bias_dx(dnll: Any, sm: Any, y_idx: Any) -> Any:
    """The gradient by x of a cost whose gradients by the cross-entropies are `dnll` (a vector or number); `sm`: the softmax."""
    dnll, sm, y = as_variable(dnll), as_variable(sm), as_variable(y_idx)
    hot = eq(dimshuffle(_classes(y, sm), 0, "x"), arange(build.size_variable(build.size_of(sm, 1))))
    scale = dimshuffle(dnll, 0, "x") if dnll.type.ndim else dnll
    return mul(scale, sub(sm, build.cast(hot, sm.type.dtype)))


def crossentropy_categorical_1hot_grad(g_y: Any, coding_dist: Any, true_one_of_n: Any) -> Any:
    """The gradient by p of a cost whose gradients by -log p[i, t[i]] are `g_y`."""
    g, p, t = as_variable(g_y), as_variable(coding_dist), as_variable(true_one_of_n)
    rows = arange(build.size_variable(build.size_of(p, 0)))
    return inc_subtensor(zeros_like(p)[rows, t], neg(true_div(g, p[rows, t])))


def softmax_grad(dy: Any, sm: Any) -> Any:
    """The gradient by x of a cost whose gradient by sm = softmax(x) is dy."""
    dy, sm = as_variable(dy), as_variable(sm)
    product = mul(dy, sm)
    return sub(product, mul(product.sum(axis=1, keepdims=True), sm))


def prepend_scalar_to_each_row(val: Any, mat: Any) -> Any:
    """A matrix with a column of the number `val` in front."""
    val, mat = as_variable(val), as_variable(mat)
    if mat.type.ndim != 2:
        raise TypeError("Expected a matrix as input")
    if val.type.ndim:
        raise TypeError("Expected a scalar value")
    column = build.broadcast_to(build.cast(val, mat.type.dtype), [build.size_of(mat, 0), 1])
    return concatenate([column, mat], axis=1)


def prepend_0_to_each_row(mat: Any) -> Any:
    """A matrix with a column of zeros in front."""
    return prepend_scalar_to_each_row(0, mat)


def prepend_1_to_each_row(mat: Any) -> Any:
    """A matrix with a column of ones in front."""
    return prepend_scalar_to_each_row(1, mat)


def confusion_matrix(actual: Any, pred: Any) -> list[Any]:
    """How often each class (row) was taken for each (column), and the classes in the order of rows and columns."""
    actual, pred = as_variable(actual), as_variable(pred)
    for name, v in (("actual", actual), ("pred", pred)):
        if v.type.ndim != 1:
            raise ValueError(f"{name} must be 1-d tensor variable")
    order = unique(concatenate([actual, pred]))
    rows, columns = (cast(eq(dimshuffle(v, 0, "x"), order), "int64") for v in (actual, pred))
    return [dot(rows.T, columns), order]


def h_softmax(
    x: Any,
    batch_size: Any,
    n_outputs: Any,
    n_classes: Any,
    n_outputs_per_class: Any,
    W1: Any,
    b1: Any,
    W2: Any,
    b2: Any,
    target: Any = None,
) -> Any:
    """A softmax over classes, then one over the outputs of a class (Goodman, Classes for fast maximum entropy training, 2001).

    x [batch, in], W1 [in, classes], b1 [classes], W2 [classes, in, outputs per class], b2 [classes, outputs per class].
    Probabilities [batch, outputs]; with `target`, a vector or column of output numbers, only theirs, [batch].
    """
    x, w2, b2 = as_variable(x), as_variable(W2), as_variable(b2)
    classes = softmax(add(dot(x, W1), b1))
    if target is None:
        each = add(tensordot(x, w2, [[1], [1]]), b2)
        inside = softmax(reshape(each, [-1, n_outputs_per_class]))
        inside = reshape(inside, [batch_size, n_classes, n_outputs_per_class])
        whole = reshape(mul(dimshuffle(classes, 0, 1, "x"), inside), [batch_size, -1], ndim=2)
        return whole[:, :n_outputs]
    target = flatten(as_variable(target))
    chosen, within = int_div(target, n_outputs_per_class), mod(target, n_outputs_per_class)
    rows = arange(batch_size)
    each = sparse_block_dot(
        dimshuffle(w2, "x", 0, 1, 2),
        dimshuffle(x, 0, "x", 1),
        zeros_like(dimshuffle(chosen, 0, "x"), "int32"),
        b2,
        dimshuffle(chosen, 0, "x"),
    )
    inside = softmax(dimshuffle(each, 0, 2))
    return mul(classes[rows, chosen], inside[rows, within])
