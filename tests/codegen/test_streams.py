"""Maps whose results are stored past the caches: every length around the units of work, every alignment of places."""

from __future__ import annotations

import numpy as np
import pytest
from native import check, only

from tcc.codegen import streams
from tcc.codegen.driver import lower
from tcc.codegen.target import chosen
from tcc.passes.manager import Context
from tcc.passes.place import place
from tcc.passes.plan import plan

LENGTHS = [0, 1, 15, 17, 2048, 2063, 2065, 100_003]


@pytest.fixture(autouse=True, params=["host", "x86-64-v3", "plain"])
def target(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is too large for the caches."""
    monkeypatch.setenv("TCC_TARGET", request.param)
    monkeypatch.setattr(streams, "limit", lambda target: 1)


def axpy(dtype: str, old: str = "%x") -> str:
    return f"""
func @f(%x: {dtype}[n], %w: {dtype}[n]) -> ({dtype}[n]) {{shared = ["w"], updates = {{w = 0}}}} {{
  %z = fuse {old}, %x {{maps = ["a", "a"], dims = [n], out = ["a"]}} (%u: {dtype}[], %v: {dtype}[]) {{
    %p = mul %u, %u : {dtype}[]
    %s = add %p, %v : {dtype}[]
    yield %s
  }} : {dtype}[n]
  yield %z
}}"""


def streams_of(text: str) -> int:
    """How many streaming stores its kernels have, sizes left to run time."""
    func = only(text)
    for step in (place, plan):
        step(func, Context())
    return sum(k.text.count("!nontemporal") for k in lower(func, chosen()).kernels.values())


def values(n: int, dtype: str, shift: int) -> np.ndarray:
    """Anything, `shift` elements behind the beginning of an allocation."""
    whole = np.random.default_rng(n).integers(-9, 9, n + shift)
    return whole.astype({"f32": "f4", "f64": "f8", "i32": "i4"}[dtype])[shift:]


@pytest.mark.parametrize("shift", [0, 5])
@pytest.mark.parametrize("dtype", ["f32", "f64", "i32"])
@pytest.mark.parametrize("n", LENGTHS)
def test_a_new_value_of_a_shared_variable(n, dtype, shift):
    assert streams_of(axpy(dtype))
    check(axpy(dtype), [values(n, dtype, shift)], {"w": values(n, dtype, 0)})


@pytest.mark.parametrize("n", LENGTHS)
def test_a_result_that_lies_where_an_operand_lies(n):
    check(axpy("f32", "%w"), [values(n, "f32", 0)], {"w": values(n, "f32", 1)})


@pytest.mark.parametrize("n", LENGTHS)
def test_sizes_and_numbers_are_there_for_both_ways_of_storing(n):
    text = """
func @f(%x: f32[n], %k: f32[], %w: f32[n], %b: f32[m]) -> (f32[n]) {shared = ["w"], updates = {w = 0}} {
  %y = fuse %x, %k {maps = ["a", ""], dims = [n], out = ["a"]} (%u: f32[], %v: f32[]) {
    %m = size {value = m + 1} : i64[]
    %s = cast %m {dtype = "f32"} : f32[]
    %p = mul %u, %s : f32[]
    %q = sqr %v : f32[]
    %r = add %p, %q : f32[]
    yield %r
  } : f32[n]
  yield %y
}"""
    check(text, [values(n, "f32", 0), np.float32(3), np.zeros(7, "f4")], {"w": values(n, "f32", 0)})


@pytest.mark.parametrize("n", LENGTHS)
def test_two_results_on_any_two_alignments(n):
    text = """
func @f(%x: f32[n], %w: f32[n], %v: f32[n]) -> (f32[n], f32[n]) {shared = ["w", "v"], updates = {w = 0, v = 1}} {
  %y, %z = fuse %x {maps = ["a"], dims = [n], out = ["a", "a"]} (%u: f32[]) {
    %p = mul %u, %u : f32[]
    %s = add %p, %u : f32[]
    yield %p, %s
  } : f32[n], f32[n]
  yield %y, %z
}"""
    assert streams_of(text)
    for shift in range(3):
        check(text, [values(n, "f32", 0)], {"w": values(n, "f32", 0), "v": values(n, "f32", shift)})


def test_outputs_and_short_results_do_not_stream(monkeypatch):
    output = axpy("f32").replace(' {shared = ["w"], updates = {w = 0}}', "")
    assert not streams_of(output)
    monkeypatch.undo()
    host = chosen()
    assert not streams_of(axpy("f32").replace("[n]", "[1000]"))
    assert streams_of(axpy("f32").replace("[n]", f"[{4 * host.l2_bytes}]"))
