"""Row kernels that add up columns too, against the interpreter; one kernel; the same bits with any number of threads."""

from __future__ import annotations

import numpy as np
import pytest
from native import check

import tcc
from tcc import tensor as T
from tcc.ir.parser import parse_func
from tcc.passes.manager import Context, run
from tcc.passes.pipeline import default_pipeline, gpu_pipeline

RNG = np.random.default_rng(0)

SUMS = """
func @f(%x: DT[n,m], %g: DT[m]) -> (DT[n,m], DT[m], DT[m]) {
  %y, %a, %b = fuse %x, %g {maps = ["ab", "b"], dims = [n, m], row = 1, out = ["ab", "b", "b"], reduce = ["", "sum", "HOW"]} (%u: DT[m], %w: DT[m]) {
    %s = max %u {axes = [0]} : DT[]
    %k = broadcast %s {shape = [m]} : DT[m]
    %d = sub %u, %k : DT[m]
    %p = mul %d, %w : DT[m]
    yield %p, %d, %u
  } : DT[n,m], DT[m], DT[m]
  yield %y, %a, %b
}"""


@pytest.mark.parametrize("target", ["host", "x86-64-v3", "plain"])
@pytest.mark.parametrize("dtype, how", [("f32", "sum"), ("f64", "min"), ("i32", "max"), ("f16", "sum")])
def test_totals_of_columns(target, dtype, how, monkeypatch):
    monkeypatch.setenv("TCC_TARGET", target)
    numpy = {"f32": np.float32, "f64": np.float64, "i32": np.int32, "f16": np.float16}[dtype]
    for n, m in [(3, 5), (1, 1), (4, 1), (0, 4), (71, 33), (300, 200)]:
        x, g = (RNG.integers(-4, 5, shape).astype(numpy) for shape in ((n, m), (m,)))
        check(SUMS.replace("DT", dtype).replace("HOW", how), [x, g])


def norm_and_gradients():
    x, g = T.fmatrices("x", "g")
    gain = T.fvector("gain")
    centred = x - x.mean(axis=1, keepdims=True)
    y = centred * gain / T.sqrt((centred * centred).mean(axis=1, keepdims=True) + np.float32(1e-5))
    return tcc.function([x, gain, g], [y, *T.grad(None, [x, gain], known_grads={y: g}), g.sum(axis=0)])


def test_the_same_bits_with_any_number_of_threads(monkeypatch):
    x, g = RNG.standard_normal((2, 1000, 333)).astype(np.float32)
    gain = RNG.standard_normal(333).astype(np.float32)
    made = []
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("TCC_THREADS", threads)
        made.append(norm_and_gradients()(x, gain, g))
    for one, two, five in zip(*made, strict=True):
        assert np.array_equal(one, two) and np.array_equal(one, five)
    wide = x.astype(np.float64)
    unit = (wide - wide.mean(axis=1, keepdims=True)) / np.sqrt(wide.var(axis=1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(made[0][2], (g * unit).sum(axis=0), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(made[0][3], g.astype(np.float64).sum(axis=0), rtol=1e-6, atol=1e-5)


SOFTMAX = """
func @f(%x: f32[N,M]) -> (f32[N,M], f32[M], f32[M]) {
  %m = max %x {axes = [1]} : f32[N]
  %k = dimshuffle %m {order = [0, -1]} : f32[N,1]
  %b = broadcast %k {shape = [N, M]} : f32[N,M]
  %d = sub %x, %b : f32[N,M]
  %e = exp %d : f32[N,M]
  %s = sum %e {axes = [0]} : f32[M]
  %t = sqr %s : f32[M]
  yield %e, %s, %t
}"""


@pytest.mark.parametrize(
    "n, m, gpu, kernels",
    [(64, 10, False, 2), (63, 10, False, 3), (64, 8193, False, 3), (64, 10, True, 2), (64, 4097, True, 3)],
)
def test_when_columns_are_added_up_in_a_row_kernel(n, m, gpu, kernels):
    func = parse_func(SOFTMAX.replace("N", str(n)).replace("M", str(m)))
    run(
        func,
        [s for s in (gpu_pipeline() if gpu else default_pipeline()) if s.name not in ("place", "plan")],
        Context(),
    )
    assert sum(op.name == "fuse" for op in func.body.ops) <= kernels
    rows = [op for op in func.body.ops if op.name == "fuse" and op.attrs["row"]]
    assert any(any(op.attrs["reduce"]) for op in rows) == (kernels == 2)
