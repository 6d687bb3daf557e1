"""How many kernels a recurrent net's training step needs, inside and outside its loops, and what a step moves."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

import tcc
import tcc.tensor as T
from tcc.ir import dims
from tcc.ir.clone import clone
from tcc.ir.core import Func, Op
from tcc.passes.manager import Context, run
from tcc.passes.pipeline import cpu_pipeline

KERNELS = ("matmul", "fuse", "copy", "gather", "scatter")
STEPS, BATCH, HIDDEN, WORDS = 7, 4, 16, 50
SHAPES = {
    "table": (WORDS, HIDDEN),
    "w": (HIDDEN, 4 * HIDDEN),
    "u": (HIDDEN, 4 * HIDDEN),
    "b": (4 * HIDDEN,),
    "out": (HIDDEN, WORDS),
}


def placed(f: Any, **sizes: int) -> Func:
    shared = f.func.attrs.get("shared", ())
    known = {f"{name}_{axis}": n for name in shared for axis, n in enumerate(SHAPES[name])}
    func = clone(f.func, {**known, **sizes})
    run(func, cpu_pipeline(), Context())
    return func


def inside(op: Op) -> bool:
    return op.parent is not None and isinstance(op.parent.parent, Op) and op.parent.parent.name == "for"


def kernels(func: Func, within: bool) -> dict[str, int]:
    return dict(Counter(o.name for o in func.body.walk() if o.name in KERNELS and inside(o) == within))


def moved(func: Func) -> list[int]:
    """Bytes that the kernels of each loop's step read and write."""
    loops = [o for o in func.body.walk() if o.name == "for"]
    kernels = [[o for o in loop.block.ops if o.name in KERNELS] for loop in loops]
    return [int(sum(v.type.bytes for o in ops for v in o.operands)) for ops in kernels]


def language_model() -> Any:
    def param(name: str) -> Any:
        return tcc.shared(np.zeros(SHAPES[name], "float32"), name)

    def step(e: Any, h: Any, c: Any) -> Any:
        z = T.dot(e, w) + T.dot(h, u) + b
        i, f, o, g = (z[:, k * HIDDEN : (k + 1) * HIDDEN] for k in range(4))
        c = T.nnet.sigmoid(f) * c + T.nnet.sigmoid(i) * T.tanh(g)
        return T.nnet.sigmoid(o) * T.tanh(c), c

    words, labels = T.imatrix("x"), T.imatrix("y")
    table, w, u, b, out = map(param, SHAPES)
    zeros = T.zeros((BATCH, HIDDEN), dtype="float32")
    (hs, _), _ = tcc.scan(step, [table[words]], [zeros, zeros])
    p = T.nnet.softmax(T.dot(hs.reshape((-1, HIDDEN)), out))
    cost = T.nnet.categorical_crossentropy(p, labels.flatten()).mean()
    params = [table, w, u, b, out]
    rate = np.float32(0.1)
    updates = [(v, v - rate * g) for v, g in zip(params, tcc.grad(cost, params))]
    return tcc.function([words, labels], cost, updates=updates)


def test_long_short_term_memory():
    func = placed(language_model(), x_0=STEPS, x_1=BATCH, y_0=STEPS, y_1=BATCH)
    within, outside = kernels(func, True), kernels(func, False)
    assert sum(o.name == "for" for o in func.body.walk()) == 2
    # h @ u forwards and dz @ u.T backwards: every other product is one over all steps
    assert within == {"matmul": 2, "fuse": 2}
    assert outside == {"matmul": 7, "fuse": 10, "gather": 2, "scatter": 1, "copy": 4}
    assert func.attrs["arena"] == 30848
    assert moved(func) == [9728, 8960]
    # the gradients of w and u, products of all steps, are added to them where they are
    assert sum(o.name == "matmul" and o.attrs["accumulate"] for o in func.body.walk()) == 2


def test_the_last_state_alone_needs_no_memory_that_grows():
    x, h0 = T.fmatrix("x"), T.fvector("h")
    hs, _ = tcc.scan(lambda a, h: T.tanh(a + h), [x], [h0])
    f = tcc.function([x, h0], hs[-1])
    sizes = {n for p in f.func.body.params for s in p.type.shape for n in dims.names_of(s)}
    arenas = {
        placed(f, **{n: steps if n == "x_0" else 8 for n in sizes}).attrs["arena"] for steps in (10, 10000)
    }
    assert len(arenas) == 1


def test_a_gradient_runs_inner_steps_once():
    """Two forward loops, one in the other, and the two that walk them backwards; checkpoints make the inner steps again."""
    x, w = T.dvector("x"), T.dscalar("w")

    def outer(h: Any, w: Any) -> Any:
        hs, _ = tcc.scan(lambda h, w: T.tanh(h * w + 1), None, [h], [w], 5)
        return hs[-1] * w

    hs, _ = tcc.scan(outer, None, [x], [w], 3)
    cost = hs[-1].sum()
    func = placed(tcc.function([x, w], [cost, tcc.grad(cost, w)]), x_0=4)
    assert sum(o.name == "for" for o in func.body.walk()) == 4
    kept, _ = tcc.scan_checkpoints(lambda h, w: T.tanh(h * w + 1), None, [x], [w], n_steps=20, save_every_N=5)
    cost = kept[-1].sum()
    func = placed(tcc.function([x, w], [cost, tcc.grad(cost, w)]), x_0=4)
    assert sum(o.name == "for" for o in func.body.walk()) == 5
