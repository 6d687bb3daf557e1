"""Programs drawn at random from the op table: the whole pipeline means what the interpreter says of its input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from programs import gradients

from tcc.ir.builder import Builder
from tcc.ir.clone import clone
from tcc.ir.core import Block, Func, Value
from tcc.ir.interpret import run as interpret
from tcc.ir.optable import TABLE, OpDef, Sample
from tcc.ir.samples import draw, sample_types
from tcc.ir.text import parse_func, print_func
from tcc.ir.types import FLOATS, Type
from tcc.passes.manager import Context, run
from tcc.passes.pipeline import default_pipeline

N, M = 5, 4
Step = Callable[["Drawing"], Value]


def check(func: Func, args: list[Any], strength: str = "stable") -> None:
    with np.errstate(all="ignore"):
        want = interpret(clone(func), *[np.array(a) for a in args])
        run(func, default_pipeline(), Context(strength=strength))
        got = interpret(func, *[np.array(a) for a in args])
    again = parse_func(print_func(func))
    assert print_func(again) == print_func(func)
    for g, w in zip(got, want, strict=True):
        finite = np.isfinite(w)  # where the input overflows, a stable rule may not
        np.testing.assert_allclose(np.asarray(g)[finite], np.asarray(w)[finite], rtol=1e-3, atol=1e-4)


ROWS = [(d, s) for d in TABLE.values() for s in d.samples if d.name not in ("alloc", "place", "view", "copy")]


@pytest.mark.parametrize("row,sample", ROWS, ids=[f"{d.name}({','.join(s.types)})" for d, s in ROWS])
def test_every_row(row: OpDef, sample: Sample) -> None:
    block = Block(sample_types(sample), [f"x{i}" for i in range(len(sample.types))])
    func, b = Func("f", block), Builder(block)
    op = b.op(row.name, *block.params, attrs=sample.attrs)
    results: list[Value] = list(op.results)
    connected = row.name != "second"  # it reads nothing of its first operand
    if row.grad is not None and connected and all(v.type.dtype in FLOATS for v in [*results, *block.params]):
        weighted = b.sqr(results[0])
        cost = b.sum(weighted, axes=list(range(weighted.type.rank)))
        results += gradients(b, cost, block.params)
    b.op("yield", *results)
    check(func, draw(sample, np.random.default_rng(len(row.name))))


class Drawing:
    """A program being drawn: matrices, vectors and numbers that later steps may read."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        block = Block(
            [
                Type("f32", (N, M)),
                Type("f32", (N, M)),
                Type("f32", (M,)),
                Type("f32", (M, M)),
                Type("i64", (N,)),
            ],
            ["x", "y", "v", "w", "labels"],
        )
        self.func, self.b = Func("f", block), Builder(block)
        self.weights = block.params[:4]
        self.labels = block.params[4]
        self.pool: dict[int, list[Value]] = {2: list(block.params[:2]), 1: [block.params[2]], 0: []}
        self.rows: list[Value] = []  # of shape [N]

    def pick(self, values: list[Value]) -> Value:
        recent = values[-6:]
        return recent[int(self.rng.integers(len(recent)))]

    def matrix(self) -> Value:
        return self.pick(self.pool[2])

    def keep(self, v: Value) -> Value:
        result: Value = self.b.broadcast(self.b.dimshuffle(v, order=[0, -1]), shape=[N, M])
        return result


UNARY = "neg abs sqr exp tanh sigmoid softplus log1p sin reciprocal sqrt expm1".split()
BINARY = "add sub mul div maximum minimum add mul sub".split()


def unary(d: Drawing) -> Value:
    name = str(d.rng.choice(UNARY))
    x = d.matrix()
    if name in ("log1p", "reciprocal", "sqrt"):
        x = d.b.add(d.b.sqr(x), 0.5)
    if name in ("exp", "expm1"):
        x = d.b.tanh(x)
    return d.b.op(name, x).result


def binary(d: Drawing) -> Value:
    name = str(d.rng.choice(BINARY))
    x, y = d.matrix(), d.matrix()
    if name == "div":
        y = d.b.add(d.b.sqr(y), 0.5)
    if name == "mul":
        y = d.b.tanh(y)
    return d.b.op(name, x, y).result


def constant(d: Drawing) -> Value:
    name = str(d.rng.choice(BINARY))
    return d.b.op(name, d.matrix(), float(d.rng.choice([1.0, 2.0, 0.5, -1.0]))).result


def shrink(d: Drawing) -> Value:
    how = str(d.rng.choice(["sum", "max", "sum"]))
    axis = int(d.rng.integers(2))
    result: Value = d.b.op(how, d.b.tanh(d.matrix()), attrs={"axes": [axis]}).result
    (d.rows if axis else d.pool[1]).append(result)
    return d.keep(result) if axis else d.b.broadcast(result, shape=[N, M])


def total(d: Drawing) -> Value:
    number = d.b.sum(d.b.tanh(d.matrix()), axes=[0, 1])
    d.pool[0].append(number)
    result: Value = d.b.broadcast(d.b.div(number, 20.0), shape=[N, M])
    return result


def spread(d: Drawing) -> Value:
    result: Value = d.b.broadcast(d.pick(d.pool[1]), shape=[N, M])
    return result


def back(d: Drawing) -> Value:
    return d.keep(d.b.exp(d.b.tanh(d.pick(d.rows)))) if d.rows else unary(d)


def product(d: Drawing) -> Value:
    result: Value = d.b.matmul(d.b.tanh(d.matrix()), d.weights[3])
    return result


def transposed(d: Drawing) -> Value:
    t = d.b.dimshuffle(d.matrix(), order=[1, 0])
    result: Value = d.b.dimshuffle(d.b.tanh(t), order=[1, 0])
    return result


def soft(d: Drawing) -> Value:
    return d.b.op(str(d.rng.choice(["softmax", "log_softmax"])), d.matrix()).result


def soft_by_hand(d: Drawing) -> Value:
    e = d.b.exp(d.b.tanh(d.matrix()))
    result: Value = d.b.div(e, d.keep(d.b.sum(e, axes=[1])))
    return result


def picked(d: Drawing) -> Value:
    p = d.b.softmax(d.matrix())
    row = d.b.log(d.b.gather(p, d.b.iota(shape=[N]), d.labels, axes=[0, 1]))
    d.rows.append(row)
    return d.keep(row)


def window(d: Drawing) -> Value:
    part = d.b.slice(d.matrix(), start=[1, 0], size=[3, M], step=[1, 1])
    result: Value = d.b.insert(
        d.matrix(), d.b.tanh(part), start=[0, 0], size=[3, M], step=[2 - 1, 1], mode="add"
    )
    return result


def selected(d: Drawing) -> Value:
    x, y = d.matrix(), d.matrix()
    result: Value = d.b.where(d.b.lt(x, y), x, d.b.full(0, x))
    return result


STEPS: list[Step] = [
    *(unary, binary, binary, constant, constant, shrink, shrink, total, spread, back, product, transposed),
    *(soft, soft_by_hand, picked, window, selected),
]


def drawn(seed: int, steps: int) -> Func:
    """A cost made in `steps` steps, and its gradients."""
    d = Drawing(seed)
    for _ in range(steps):
        d.pool[2].append(STEPS[int(d.rng.integers(len(STEPS)))](d))
    last = d.b.tanh(d.matrix())
    cost = d.b.sum(d.b.mul(last, d.weights[0]), axes=[0, 1])
    reached = [w for w, g in zip(d.weights, _reached(cost, d.weights)) if g]
    results = [cost, last, *gradients(d.b, cost, reached)]
    d.b.op("yield", *results)
    return d.func


def _reached(cost: Value, wanted: list[Value]) -> list[bool]:
    seen: set[Value] = set()
    work = [cost]
    while work:
        v = work.pop()
        if v not in seen:
            seen.add(v)
            work += v.op.operands if v.op is not None else []
    return [w in seen for w in wanted]


def inputs(seed: int) -> list[Any]:
    rng = np.random.default_rng(seed)
    floats = [rng.standard_normal(s).astype(np.float32) for s in ((N, M), (N, M), (M,), (M, M))]
    return [*floats, rng.integers(-M, M, N)]


@pytest.mark.parametrize("seed", range(60))
def test_random_programs(seed: int) -> None:
    check(drawn(seed, 4 + seed % 9), inputs(seed))
