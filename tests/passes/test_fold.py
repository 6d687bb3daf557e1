"""Constants are what native code would make of them, as nearly as can be."""

from __future__ import annotations

import numpy as np
import pytest

from tcc.ir.text import parse
from tcc.passes.fold import constant, fold
from tcc.passes.manager import Context


@pytest.mark.parametrize(
    "name", ["exp", "expm1", "log1p", "tanh", "sin", "cosh", "atan", "sigmoid", "softplus"]
)
def test_functions_of_float32_are_rounded_once(name):
    given = np.abs(np.random.default_rng(0).standard_normal(200)).astype(np.float32)
    (func,) = parse(f"""
func @f() -> (f32[200]) {{
  %a = const {{value = {given.tolist()}, type = f32[200]}} : f32[200]
  %b = {name} %a : f32[200]
  yield %b
}}""").values()
    op = func.body.yields[0].op
    assert op is not None and op.defn.ref is not None
    want = op.defn.ref(given.astype(np.float64)).astype(np.float32)
    fold(func, Context())
    np.testing.assert_array_equal(constant(func.body.yields[0]), want, strict=True)


def test_other_dtypes_and_results_keep_their_own():
    (func,) = parse("""
func @f() -> (i32[], bool[], f32[]) {
  %a = const {value = 7, type = i32[]} : i32[]
  %b = sqr %a : i32[]
  %x = const {value = 1e30, type = f32[]} : f32[]
  %c = isnan %x : bool[]
  %y = sqr %x : f32[]
  yield %b, %c, %y
}""").values()
    fold(func, Context())
    got = [constant(v) for v in func.body.yields]
    assert [g.dtype for g in got] == [np.int32, np.bool_, np.float32]
    assert got == [49, False, np.inf]
