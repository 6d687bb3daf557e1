"""Kernels whose results lie where their operands lie."""

from __future__ import annotations

import numpy as np
import pytest
from native import check

MAPS = '{maps = ["ab", "ab"], dims = [n, m], out = ["ab", "ab"]}'


def swap(first: str, second: str) -> str:
    """Both results of the middle kernel read both operands, in whose memory they are made."""
    head = f"{MAPS} (%u: f32[], %v: f32[])"
    types = ": f32[n,m], f32[n,m]"
    return f"""
func @f(%x: f32[n,m], %y: f32[n,m]) -> (f32[n,m], f32[n,m]) {{
  %a, %b = fuse %x, %y {head} {{
    %p = exp %u : f32[]
    %q = exp %v : f32[]
    yield %p, %q
  }} {types}
  %c, %d = fuse %a, %b {head} {{
    %p = {first} %u, %v : f32[]
    %q = {second} %u, %v : f32[]
    yield %p, %q
  }} {types}
  %e, %g = fuse %c, %d {head} {{
    %p = neg %u : f32[]
    %q = neg %v : f32[]
    yield %p, %q
  }} {types}
  yield %e, %g
}}"""


@pytest.mark.parametrize("shape", [(1, 1), (5, 4), (7, 33)])
def test_all_operands_are_read_before_a_result_is_written(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
    check(swap("add", "sub"), [x, y])
    check(swap("sub", "mul"), [x, y])
