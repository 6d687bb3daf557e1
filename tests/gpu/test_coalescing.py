"""How warps meet memory: no kernel touches more sectors than is stated here, relative to the fewest that could hold what is asked for,
nor takes more waves of shared memory's banks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from emulated import program_of, run_program
from sectors import Counting, Traffic, counted, served

import tcc
import tcc.tensor as T
from tcc.sandbox.rng_mrg import MRG_RandomStreams
from tcc.tensor.signal.pool import pool_2d

LINE, COVER = (
    1.25,
    0.02,
)  # what odd ends of rows may cost; the share of a program's sectors below which a kernel is no matter

x, t, v, i = (
    T.matrix("x", dtype="float32"),
    T.tensor4("t", dtype="float32"),
    T.vector("v", dtype="float32"),
    T.lvector("i"),
)
a, b, h, g = (
    T.matrix(name, dtype=d) for name, d in zip("abhg", ["float32", "float32", "float16", "float16"])
)
k, m, n = T.tensor4("k", dtype="float32"), T.matrix("m", dtype="int8"), T.matrix("n", dtype="int8")
ARRAYS: dict[Any, tuple[int, ...]] = {
    x: (40, 333),
    t: (2, 3, 28, 29),
    v: (333,),
    a: (192, 40),
    b: (40, 128),
    h: (64, 48),
    g: (48, 64),
    k: (8, 3, 3, 3),
    m: (64, 64),
    n: (64, 64),
}
CASES: dict[str, tuple[list[Any], Any, float]] = {
    "map": ([v], T.tanh(v) + 1, 1),
    "row to all rows": ([x, v], x * v, LINE),
    "column to all columns": ([x, i], x * i[:, None], LINE),
    "backwards": ([v], v[::-1] + 1, LINE),
    "every second": ([x], x[:, ::2] + 1, 1.6),  # which leaves half of what it reads
    "joined": ([x], T.concatenate([x, 2 * x], axis=1), LINE),
    "turned": ([x], x.T + 1, LINE),
    "channels last": ([t], t.dimshuffle(0, 2, 3, 1) + 1, LINE),
    "sum": ([x], x.sum(), LINE),
    "sum of rows": ([x], x.sum(axis=1), LINE),
    "sum of columns": ([x], x.sum(axis=0), LINE),
    "argmax": ([x], T.argmax(x, axis=1), LINE),
    "argmax of columns": ([x], T.argmax(x, axis=0), LINE),
    "softmax": ([x], T.nnet.softmax(x), LINE),
    "layernorm": ([x], (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True), LINE),
    "cross-entropy": ([x, i], T.nnet.categorical_crossentropy(T.nnet.softmax(x), i).mean(), LINE),
    "batch norm": (
        [t],
        T.nnet.bn.batch_normalization_train(t, *[np.ones((1, 3, 1, 1), "f4")] * 2, "spatial")[0],
        LINE,
    ),
    "gather": ([x, i], x[i], LINE),
    "sums into rows": ([x, i], T.inc_subtensor(x[i], 1), LINE),
    "running sum": ([v], T.cumsum(v), LINE),
    "running sums of rows": ([x], T.cumsum(x, axis=1), 3.3),  # most of which begin at no multiple of 16 bytes
    "running sums of columns": ([x], T.cumsum(x, axis=0), LINE),
    "sort": ([x], T.sort(x, axis=1), LINE),
    "sort of a long line": ([x], T.argsort(x.flatten()), LINE),
    "pool": ([t], pool_2d(t, (2, 2), ignore_border=True), 2.3),  # a lane has every second element
    "pool's gradient": ([t], T.grad(T.sqr(pool_2d(t, (2, 2), ignore_border=True)).sum(), t), 2.3),
    "average pool's gradient": (
        [t],
        T.grad(T.sqr(pool_2d(t, (2, 2), mode="sum", ignore_border=True)).sum(), t),
        2.3,
    ),
    "product": ([a, b], T.tanh(T.dot(a, b)), 1.02),
    "product of halves": ([h, g], T.dot(h, g), 1.45),  # of whose sectors a warp fills halves
    "product of bytes": ([m, n], T.dot(T.cast(m, "int32"), T.cast(n, "int32")), 1.02),
    "convolution": ([t, k], T.nnet.conv2d(t, k, border_mode=(1, 1)), 1.35),
    "random": ([], MRG_RandomStreams(3).uniform((40, 100)), LINE),
}

# of shared memory, where some threads of a warp meet in a bank: those that put pieces of operands down, and random streams' jumps
WAVES = {
    "product": 1.05,
    "convolution": 1.05,
    "product of halves": 1.65,
    "product of bytes": 2,
    "random": 1.55,
}


def arrays(inputs: list[Any]) -> list[Any]:
    rng = np.random.default_rng(0)
    return [
        rng.integers(0, 40, 40) if p is i else rng.standard_normal(ARRAYS[p]).astype(p.dtype) for p in inputs
    ]


@pytest.mark.parametrize(
    "name", [pytest.param(c, marks=pytest.mark.long) if c.startswith("sort") else c for c in CASES]
)
def test_warps_waste_little(name: str) -> None:
    inputs, made, most = CASES[name]
    made_for = tcc.function(inputs, made, device="emulator")
    func, given = made_for.func, arrays(inputs)
    given += [made_for.program.containers[n].get() for n in func.attrs.get("shared", ())]
    program, device = program_of(func, given, exact=False), Counting()
    run_program(program, func, given, device=device)
    whole = sum(k.touched for k in device.traffic.values())
    found = {
        program.kernels[k].what: k_.waste for k, k_ in device.traffic.items() if k_.touched > COVER * whole
    }
    assert found and {what: waste for what, waste in found.items() if waste > most} == {}
    for waves in device.waves.values():
        assert waves.touched <= WAVES.get(name, 1) * waves.least


def test_what_waves_are() -> None:
    def warp(address: Callable[[int], int], bytes: int = 4) -> Traffic:
        return served([(1, 0, lane, address(lane), bytes) for lane in range(32)])

    assert warp(lambda k: 4 * k) == (1, 1)
    assert warp(lambda k: 0) == (1, 1)  # one word for all
    assert warp(lambda k: 8 * k) == (2, 1)
    assert warp(lambda k: 128 * k) == (32, 1)
    assert warp(lambda k: 132 * k) == (1, 1)
    assert warp(lambda k: 16 * k, 16) == (4, 4)
    assert warp(lambda k: 32 * k, 16) == (8, 4)


def test_what_is_counted() -> None:
    def warp(address: Callable[[int], int], bytes: int = 4) -> Traffic:
        return counted([(1, 0, lane, address(lane), bytes) for lane in range(32)])

    assert warp(lambda k: 4 * k) == (4, 4)  # neighbours
    assert warp(lambda k: 4 * k + 4) == (5, 4)
    assert warp(lambda k: 8 * k) == (8, 4)
    assert warp(lambda k: 4096 * k) == (32, 4)
    assert warp(lambda k: 0) == (1, 1)
    assert warp(lambda k: 16 * k, 16) == (16, 16)
