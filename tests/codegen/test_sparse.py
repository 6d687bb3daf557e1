"""Products with matrices in compressed rows in native code, against their meaning in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tcc.ir.ops.sparse import NOT_ASCENDING, OUTSIDE
from tcc.ir.samples import draw_array
from tcc.ir.text import parse_func
from tcc.ir.types import Type
from tcc.tools.compare import disagreement, run_native

Array = np.ndarray[Any, Any]

TEXT = """func @f(%a: {d}[n], %i: i32[n], %p: i32[6], %x: {d}[7,{k}], %y: {d}[5,{k}])
  -> ({d}[5,{k}], {d}[7,{k}], {d}[n], {d}[5,{k}]) {{
  %u = csr_dot %a, %i, %p, %x : {d}[5,{k}]
  %v = csr_tdot %a, %i, %p, %y {{columns = 7}} : {d}[7,{k}]
  %w = csr_sample %i, %p, %y, %x : {d}[n]
  %t = dimshuffle %x {{order = [1, 0]}} : {d}[{k},7]
  %s = add %t, %t : {d}[{k},7]
  %r = dimshuffle %s {{order = [1, 0]}} : {d}[7,{k}]
  %q = csr_dot %a, %i, %p, %r : {d}[5,{k}]
  yield %u, %v, %w, %q
}}"""
INDPTR = np.array(
    [0, 3, 3, 10, 11, 17], "int32"
)  # rows of none, of one, and of more than one turn of the sums
INDICES = np.array([0, 3, 6, 0, 1, 2, 3, 4, 5, 6, 2, 6, 1, 4, 1, 0, 5], "int32")


def arguments(dtype: str, k: int, indices: Array, indptr: Array) -> list[Array]:
    shapes = ((len(indices),), (7, k), (5, k))
    rng = np.random.default_rng(k)
    a, x, y = (draw_array(Type(dtype, s), rng, -2.0, 2.0) for s in shapes)
    return [a, indices, indptr, x, y]


@pytest.mark.parametrize("target", ["host", "x86-64-v3", "plain"])
@pytest.mark.parametrize("dtype", ["f32", "f64", "i16"])
def test_products(dtype: str, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No column, one, less than a vector of them, several vectors and a ragged end; known sizes and run-time ones have the same bits."""
    monkeypatch.setenv("TCC_TARGET", target)
    func = parse_func(TEXT.format(d=dtype, k="k"))
    for k in (0, 1, 3, 37) if target == "host" else (37,):
        assert disagreement(func, arguments(dtype, k, INDICES, INDPTR)) == ""


def test_what_is_no_matrix_raises() -> None:
    func = parse_func(TEXT.format(d="f32", k=2))
    for message, wrong in ((NOT_ASCENDING, (INDICES, INDPTR[::-1].copy())), (OUTSIDE, (INDICES + 1, INDPTR))):
        args = arguments("f32", 2, *wrong)
        assert disagreement(func, args) == ""
        with pytest.raises(ValueError, match=message):
            run_native(func, args)


def test_a_matrix_without_rows() -> None:
    func = parse_func("""func @f(%a: f32[n], %i: i32[n], %p: i32[1], %x: f32[7,k], %y: f32[0,k]) -> (f32[0,k], f32[7,k], f32[n]) {
      %u = csr_dot %a, %i, %p, %x : f32[0,k]
      %v = csr_tdot %a, %i, %p, %y {columns = 7} : f32[7,k]
      %w = csr_sample %i, %p, %y, %x : f32[n]
      yield %u, %v, %w
    }""")
    none = np.zeros(0, "f4")
    args = [none, none.astype("i4"), np.zeros(1, "i4"), np.ones((7, 3), "f4"), np.ones((0, 3), "f4")]
    assert disagreement(func, args) == ""
