"""Functions of neural networks: `T.nnet`."""

from __future__ import annotations

from typing import Any

from tcc import build
from tcc.elemwise import TO_FLOAT, abs_, add, clip, expm1, log, lt, mul, neg, switch, true_div
from tcc.elemwise import sub as _sub
from tcc.graph import Shown
from tcc.opfunction import OpFunction
from tcc.reductions import sum as _sum
from tcc.shapes import dimshuffle, moveaxis
from tcc.variable import as_variable

SELU_ALPHA, SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946


def _of_floats(x: Any) -> Any:
    x = as_variable(x)
    return build.cast(x, TO_FLOAT.get(x.type.dtype, x.type.dtype))


@OpFunction
def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x))."""
    return build.elementwise("sigmoid", _of_floats(x))


@OpFunction
def softplus(x: Any) -> Any:
    """log(1 + exp(x)), without overflow."""
    return build.elementwise("softplus", _of_floats(x))


def hard_sigmoid(x: Any) -> Any:
    """clip(0.2 x + 0.5, 0, 1)."""
    x = _of_floats(x)
    result = clip(add(mul(x, build.cast(as_variable(0.2), x.type.dtype)), 0.5), 0.0, 1.0)
    result = build.cast(result, x.type.dtype)
    result.name = "hard_sigmoid"
    return result


@OpFunction
def ultra_fast_sigmoid(x: Any) -> Any:
    """A piecewise approximation of the sigmoid, off by less than 0.03."""
    x = _of_floats(x)
    half = mul(x, build.cast(as_variable(0.5), x.type.dtype))
    size = abs_(half)
    near = true_div(mul(1.5, size), add(1.0, size))
    middle = add(0.935409070603099, mul(0.0458812946797165, _sub(size, 1.7)))
    curve = switch(lt(size, 1.7), near, switch(lt(size, 3), middle, 0.99505475368673))
    signed = switch(lt(half, 0), neg(curve), curve)
    result = build.cast(mul(0.5, add(signed, 1.0)), x.type.dtype)
    result.name = "ultra_fast_sigmoid"
    return result


def relu(x: Any, alpha: Any = 0) -> Any:
    """max(x, 0), or with `alpha` (a number or tensor) alpha * x below 0.  Its gradient at 0 is (1 + alpha) / 2."""
    x = as_variable(x)
    if isinstance(alpha, int | float) and alpha == 0:
        return mul(0.5, add(x, abs_(x)))
    alpha = as_variable(alpha)
    f1 = mul(0.5, add(1, alpha))
    f2 = mul(0.5, _sub(1, alpha))
    return add(mul(f1, x), mul(f2, abs_(x)))


def elu(x: Any, alpha: Any = 1) -> Any:
    """x above 0, alpha * (exp(x) - 1) below."""
    x = as_variable(x)
    return switch(x > 0, x, mul(alpha, expm1(x)))


def selu(x: Any) -> Any:
    """SELU_SCALE * elu(x, SELU_ALPHA)."""
    return mul(SELU_SCALE, elu(x, SELU_ALPHA))


def softsign(x: Any) -> Any:
    """x / (1 + |x|)."""
    x = as_variable(x)
    return true_div(x, add(1.0, abs_(x)))


def softmax(c: Any, axis: int | None = None) -> Any:
    """exp(c) over its sum, along `axis` of floats with any number of axes; without `axis` of each row of a matrix (Theano's
    form, where a vector gives a row).  ValueError for an axis that is not there."""
    return _rows("softmax", c, axis)


def logsoftmax(c: Any, axis: int | None = None) -> Any:
    """The logarithm of the softmax, without overflow; of what, as for `softmax`."""
    return _rows("log_softmax", c, axis)


def _rows(row: str, c: Any, axis: int | None) -> Any:
    c = as_variable(c)
    ndim = c.type.ndim
    if c.type.dtype in TO_FLOAT or axis is None and ndim not in (1, 2):
        several = ndim > 2 and c.type.dtype not in TO_FLOAT
        hint = f".  Say along which axis: {row.replace('_', '')}(x, axis=-1)" if several else ""
        raise ValueError(f"{row}: x must be 1-d or 2-d tensor of floats. Got {c.type}{hint}")
    if axis is None:
        x = dimshuffle(c, "x", 0) if ndim == 1 else c
        title = "Softmax" if row == "softmax" else "LogSoftmax"
        return build.node(row, x, shown=Shown(title, (x,))).result
    if not -ndim <= axis < ndim:
        raise ValueError(f"{row}: x has {ndim} axes, got axis={axis}")
    if axis % ndim == ndim - 1:
        return build.node(row, c).result
    return moveaxis(build.node(row, moveaxis(c, axis, -1)).result, -1, axis)


def categorical_crossentropy(coding_dist: Any, true_dist: Any) -> Any:
    """-log of the probability of the true class: `true_dist` holds class numbers, or a distribution in each row."""
    p, t = as_variable(coding_dist), as_variable(true_dist)
    if t.type.ndim == p.type.ndim:
        return neg(_sum(mul(t, log(p)), axis=p.type.ndim - 1))
    if t.type.ndim == p.type.ndim - 1:
        if t.type.dtype[:3] not in ("int", "uin"):
            raise TypeError(f"categorical_crossentropy: class numbers must be integers, got {t.type}")
        from tcc.creation import arange

        if p.type.ndim != 2:
            raise TypeError("rank mismatch between coding and true distributions")
        rows = arange(build.size_variable(build.size_of(p, 0)))
        made = neg(log(p[rows, t]))
        made.owner.shown = Shown("CrossentropyCategorical1Hot", (p, t))
        return made
    raise TypeError("rank mismatch between coding and true distributions")


def crossentropy_categorical_1hot(coding_dist: Any, true_idx: Any) -> Any:
    """As `categorical_crossentropy` with class numbers."""
    return categorical_crossentropy(coding_dist, true_idx)


def binary_crossentropy(output: Any, target: Any) -> Any:
    """-(t log p + (1 - t) log(1 - p)), for each element; infinite where p is 0 or 1 and wrong."""
    p, t = as_variable(output), as_variable(target)
    return neg(add(mul(t, log(p)), mul(_sub(1.0, t), log(_sub(1.0, p)))))


def sigmoid_binary_crossentropy(output: Any, target: Any) -> Any:
    """binary_crossentropy(sigmoid(x), t), without overflow."""
    x, t = as_variable(output), as_variable(target)
    return add(mul(x, _sub(1.0, t)), softplus(neg(x)))
