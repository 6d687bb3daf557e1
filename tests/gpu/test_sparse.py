"""Products with matrices in compressed rows on the emulator."""

from __future__ import annotations

import numpy as np
from emulated import program_of, run_program

from tcc.ir.interpret import run as interpret
from tcc.ir.text import parse_func

TEXT = """func @f(%a: f32[5], %i: i32[5], %p: i32[4], %x: f32[7,3], %y: f32[3,3]) -> (f32[3,3], f32[7,3], f32[5]) {
  %u = csr_dot %a, %i, %p, %x : f32[3,3]
  %v = csr_tdot %a, %i, %p, %y {columns = 7} : f32[7,3]
  %w = csr_sample %i, %p, %y, %x : f32[5]
  yield %u, %v, %w
}"""


def test_products() -> None:
    rng = np.random.default_rng(0)
    indices, indptr = np.array([0, 3, 6, 3, 1], "int32"), np.array([0, 3, 3, 5], "int32")
    a, x, y = (rng.standard_normal(s).astype("f") for s in (5, (7, 3), (3, 3)))
    func, args = parse_func(TEXT), [a, indices, indptr, x, y]
    made = run_program(program_of(func, args, exact=True), func, args, False)
    for got, wanted in zip(made, interpret(func, *args), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
