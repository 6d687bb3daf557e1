"""Programs that the passes are tested on, as a user's frontend would build them, gradients taken op by op."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tcc.ir import dims
from tcc.ir.builder import Builder
from tcc.ir.core import Block, Func, Op, Value
from tcc.ir.optable import Undefined
from tcc.ir.text import parse_func
from tcc.ir.types import Type, numpy_dtype, parse_type

SIZES = {"n": 6, "d": 5, "h": 7, "c": 4, "t": 3, "b": 2, "v": 9}


def start(name: str, params: Mapping[str, str]) -> tuple[Func, Builder, list[Value]]:
    block = Block([parse_type(t) for t in params.values()], list(params))
    return Func(name, block), Builder(block), block.params


def gradients(b: Builder, cost: Value, wrt: Sequence[Value]) -> list[Value]:
    """Reverse mode with the rows' own rules, simplifying nothing; of what has an undefined gradient, none."""
    order: dict[Op, None] = {}

    def visit(op: Op | None) -> None:
        if op is None or op in order:
            return
        for v in op.operands:
            visit(v.op)
        order[op] = None

    visit(cost.op)
    found: dict[Value, Value] = {cost: b.full(1, cost)}
    undefined: set[Value] = set()
    for op in reversed(order):
        if op.defn.grad is None or not any(r in found for r in op.results):
            continue
        flowing = [found[r] if r in found else b.full(0, r) for r in op.results]
        for v, g in zip(op.operands, op.defn.grad(b, op, flowing)):
            if isinstance(g, Undefined):
                undefined.add(v)
            elif g is not None:
                found[v] = b.add(found[v], g) if v in found else g
    return [found[v] for v in wrt if v not in undefined]


def over_rows(b: Builder, v: Value, x: Value) -> Value:
    result: Value = b.broadcast(b.dimshuffle(v, order=[0, -1]), shape=b.shape(x))
    return result


def affine(b: Builder, x: Value, w: Value, bias: Value) -> Value:
    product = b.matmul(x, w)
    result: Value = b.add(product, b.broadcast(bias, shape=b.shape(product)))
    return result


def mean(b: Builder, x: Value) -> Value:
    result: Value = b.div(b.sum(x, axes=[0]), b.size_value(b.size(x, 0), dtype=b.dtype(x)))
    return result


# ways to write the logarithm of the probability of the label in each row


def log_then_pick(b: Builder, z: Value, y: Value) -> Value:
    result: Value = b.gather(b.log(b.softmax(z)), b.iota(shape=b.shape(y)), y, axes=[0, 1])
    return result


def pick_then_log(b: Builder, z: Value, y: Value) -> Value:
    result: Value = b.log(b.gather(b.softmax(z), b.iota(shape=b.shape(y)), y, axes=[0, 1]))
    return result


def by_hand(b: Builder, z: Value, y: Value) -> Value:
    e = b.exp(z)
    p = b.div(e, over_rows(b, b.sum(e, axes=[1]), z))
    result: Value = b.gather(b.log(p), b.iota(shape=b.shape(y)), y, axes=[0, 1])
    return result


def one_hot(b: Builder, z: Value, y: Value) -> Value:
    hot = b.cast(b.eq(b.iota(shape=b.shape(z), axis=1), over_rows(b, y, z)), dtype="f32")
    result: Value = b.sum(b.mul(hot, b.log(b.softmax(z))), axes=[1])
    return result


def composite(b: Builder, z: Value, y: Value) -> Value:
    result: Value = b.neg(b.xent(z, y))
    return result


LIKELIHOODS: dict[str, Callable[[Builder, Value, Value], Value]] = {
    f.__name__: f for f in (log_then_pick, pick_then_log, by_hand, one_hot, composite)
}


def softmax_regression(likelihood: Callable[[Builder, Value, Value], Value] = log_then_pick) -> Func:
    """One step: cost, new w, new bias."""
    types = {"x": "f32[n,d]", "y": "i64[n]", "w": "f32[d,c]", "bias": "f32[c]"}
    f, b, (x, y, w, bias) = start("softmax_regression", types)
    cost = b.neg(mean(b, likelihood(b, affine(b, x, w, bias), y)))
    return finish(f, b, cost, [w, bias])


def finish(f: Func, b: Builder, cost: Value, weights: Sequence[Value]) -> Func:
    """Yields the cost and the weights after a step of gradient descent, which are updates in place."""
    moved = [
        b.sub(w, b.mul(g, b.full(0.1, g))) for w, g in zip(weights, gradients(b, cost, weights), strict=True)
    ]
    b.op("yield", cost, *moved)
    f.attrs |= {
        "shared": [w.name for w in weights],
        "updates": {w.name: 1 + i for i, w in enumerate(weights)},
    }
    return f


def tanh(b: Builder, z: Value) -> Value:
    result: Value = b.tanh(z)
    return result


def sigmoid(b: Builder, z: Value) -> Value:
    result: Value = b.sigmoid(z)
    return result


def relu(b: Builder, z: Value) -> Value:
    """As Theano writes it, with 1/2 as its gradient at 0."""
    result: Value = b.mul(b.add(z, b.abs(z)), 0.5)
    return result


def mlp(activation: Callable[[Builder, Value], Value] = tanh) -> Func:
    """One step of a network with one hidden layer: cost, new weights."""
    types = {
        "x": "f32[n,d]",
        "y": "i64[n]",
        "w0": "f32[d,h]",
        "b0": "f32[h]",
        "w1": "f32[h,c]",
        "b1": "f32[c]",
    }
    f, b, (x, y, *weights) = start("mlp", types)
    hidden = activation(b, affine(b, x, *weights[:2]))
    cost = b.neg(mean(b, log_then_pick(b, affine(b, hidden, *weights[2:]), y)))
    return finish(f, b, cost, weights)


def logistic_regression() -> Func:
    """Binary cross-entropy of a sigmoid, as the formula has it."""
    types = {"x": "f32[n,d]", "y": "f32[n,1]", "w": "f32[d,1]"}
    f, b, (x, y, w) = start("logistic_regression", types)
    p = b.sigmoid(b.matmul(x, w))
    likelihood = b.add(b.mul(y, b.log(p)), b.mul(b.sub(1.0, y), b.log(b.sub(1.0, p))))
    cost = b.neg(mean(b, b.sum(likelihood, axes=[1])))
    return finish(f, b, cost, [w])


def chain() -> Func:
    return parse_func("""
func @chain(%x: f32[n,d], %y: f32[n,d]) -> (f32[n,d]) {
  %a = add %x, %y : f32[n,d]
  %b = exp %a : f32[n,d]
  %c = const {value = 1, type = f32[n,d]} : f32[n,d]
  %e = add %b, %c : f32[n,d]
  %g = log %e : f32[n,d]
  %h = mul %g, %x : f32[n,d]
  yield %h
}""")


def recurrent() -> Func:
    return parse_func("""
func @recurrent(%xs: f32[t,b,d], %h0: f32[b,h], %wx: f32[d,h], %wh: f32[h,h], %bias: f32[h]) -> (f32[b,h], f32[t]) {
  %last, %all = scan %xs, %h0 {seqs = 1, carries = 1, length = t} (%x: f32[b,d], %h: f32[b,h]) {
    %wt = dimshuffle %wh {order = [1, 0]} : f32[h,h]
    %a = matmul %x, %wx : f32[b,h]
    %r = matmul %h, %wt : f32[b,h]
    %s = add %a, %r : f32[b,h]
    %k = exp %bias : f32[h]
    %c = broadcast %k {shape = [b, h]} : f32[b,h]
    %p = add %s, %c : f32[b,h]
    %q = softmax %p : f32[b,h]
    %u = tanh %q : f32[b,h]
    yield %u, %q
  } : f32[b,h], f32[t,b,h]
  %e = sum %all {axes = [1, 2]} : f32[t]
  yield %last, %e
}""")


PROGRAMS: dict[str, Callable[[], Func]] = {
    "chain": chain,
    "recurrent": recurrent,
    "logistic_regression": logistic_regression,
    "softmax_regression": softmax_regression,
    "softmax_regression_by_hand": lambda: softmax_regression(by_hand),
    "mlp_tanh": mlp,
    "mlp_relu": lambda: mlp(relu),
    "mlp_sigmoid": lambda: mlp(sigmoid),
}


def arguments(func: Func, scale: float = 0.5) -> list[np.ndarray[Any, Any]]:
    """Random floats of the given deviation, labels, and 0/1 targets."""
    rng = np.random.default_rng(0)

    def draw(t: Type) -> np.ndarray[Any, Any]:
        shape = tuple(dims.evaluate(s, SIZES) for s in t.shape)
        if t.dtype == "i64":
            return rng.integers(0, SIZES["c"], shape)
        return (rng.standard_normal(shape) * scale).astype(numpy_dtype(t.dtype))

    return [draw(p.type) for p in func.body.params]
