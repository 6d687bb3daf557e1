from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tcc.ir.interpret import run
from tcc.ir.text import parse_func

Array = np.ndarray[Any, Any]


def randoms(*shapes: tuple[int, ...], dtype: str = "float32") -> list[Array]:
    rng = np.random.default_rng(1)
    return [rng.standard_normal(s).astype(dtype) for s in shapes]


# -- values ------------------------------------------------------------------------------------------------------

SCAN = """
func @rnn(%xs: f32[t,3], %h: f32[3], %w: f32[3]) -> (f32[3], f32[t,3]) {
  %last, %hs = scan %xs, %h {seqs = 1, carries = 1, length = t} (%x: f32[3], %c: f32[3]) {
    %a = mul %c, %w : f32[3]
    %b = add %a, %x : f32[3]
    yield %b, %b
  } : f32[3], f32[t,3]
  yield %last, %hs
}
"""


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_scan_carries_and_stacks(steps: int) -> None:
    xs, h, w = randoms((steps, 3), (3,), (3,))
    last, hs = run(parse_func(SCAN), xs, h, w)
    want = [h]
    for x in xs:
        want.append(want[-1] * w + x)
    np.testing.assert_array_equal(last, want[-1])
    np.testing.assert_array_equal(hs, np.array(want[1:], np.float32).reshape(steps, 3))


def test_ifelse_runs_one_block() -> None:
    func = parse_func("""
func @f(%c: bool[], %i: i64[2]) -> (i64[2]) {
  %r = ifelse %c () {
    check_index %i {bound = 1}
    yield %i
  } () {
    %0 = neg %i : i64[2]
    yield %0
  } : i64[2]
  yield %r
}""")
    i = np.array([0, 5])
    np.testing.assert_array_equal(run(func, np.bool_(False), i)[0], -i)
    with pytest.raises(IndexError):
        run(func, np.bool_(True), i)


def test_bind_names_a_number_as_a_size() -> None:
    func = parse_func("""
func @arange(%n: i64[]) -> (i64[k]) {
  bind %n {size = k} loc "a.py:1"
  %r = iota {shape = [k]} : i64[k]
  yield %r
}""")
    np.testing.assert_array_equal(run(func, np.int64(4))[0], np.arange(4))
    with pytest.raises(ValueError, match="k = -1") as e:
        run(func, np.int64(-1))
    assert "in bind, written at a.py:1" in e.value.__notes__


def test_an_error_names_the_operation_and_the_line() -> None:
    func = parse_func("""
func @f(%xs: i64[t,2]) -> () {
  scan %xs {seqs = 1, length = t} (%x: i64[2]) {
    check_index %x {bound = 3, axis = 1} loc "m.py:5"
    yield
  } loc "m.py:4"
  yield
}""")
    run(func, np.array([[-3, 2]]))
    with pytest.raises(IndexError, match="index 3 is out of bounds") as e:
        run(func, np.array([[0, 1], [3, 0]]))
    assert e.value.__notes__ == ["in check_index, written at m.py:5", "in scan, written at m.py:4"]


def test_calls_run_python_and_check_what_comes_back() -> None:
    func = parse_func("""
func @f(%x: f32[n]) -> (f32[n]) {
  %y = call %x {name = "twice", types = [f32[n]]} : f32[n]
  yield %y
}""")
    x = np.float32([1, 2])
    with pytest.raises(NotImplementedError, match="twice is a Python function"):
        run(func, x)
    op = func.body.first
    assert op is not None
    op.attrs["function"] = lambda a: [2 * a]
    np.testing.assert_array_equal(run(func, x)[0], 2 * x)
    op.attrs["function"] = lambda a: [a[:1]]
    with pytest.raises(ValueError, match=r"twice: result 0 has the shape \(1,\), wanted \(2,\)"):
        run(func, x)
    op.attrs["function"] = lambda a: [a.astype("f8")]
    with pytest.raises(TypeError, match="twice: result 0 is of dtype float64, wanted float32"):
        run(func, x)
    op.attrs["function"] = lambda a: a
    with pytest.raises(TypeError, match="twice: expected a list of 1 results, got array"):
        run(func, x)


def test_bfloat16_is_rounded_after_every_operation() -> None:
    func = parse_func("""
func @f(%x: bf16[n], %y: bf16[n]) -> (bf16[n]) {
  %z = add %x, %y : bf16[n]
  yield %z
}""")
    x, y = np.float32([1, 1, 1, 1, np.nan]), np.float32([2**-8, 2**-7, 3 * 2**-8, 2**-9, 1])
    want = np.float32([1, 1 + 2**-7, 1 + 2**-6, 1, np.nan])
    np.testing.assert_array_equal(run(func, x, y)[0], want)


# -- fused -------------------------------------------------------------------------------------------------------


def test_fuse_reads_permuted_operands_and_reduces() -> None:
    func = parse_func("""
func @f(%x: f64[n,m], %y: f64[m,n], %s: f64[]) -> (f64[m,n], f64[m], f64[], i64[m]) {
  %a, %b, %c, %d = fuse %x, %y, %s {maps = ["ab", "ba", ""], dims = [n, m], out = ["ba", "b", "", "b"], reduce = ["", "max", "sum", "sum"]} (%u: f64[], %v: f64[], %w: f64[]) {
    %0 = mul %u, %v : f64[]
    %1 = add %0, %w : f64[]
    %2 = iota {shape = []} : i64[]
    yield %1, %1, %u, %2
  } : f64[m,n], f64[m], f64[], i64[m]
  yield %a, %b, %c, %d
}""")
    x, y = randoms((3, 4), (4, 3), dtype="float64")
    a, b, c, d = run(func, x, y, np.float64(2))
    np.testing.assert_array_equal(a, (x * y.T + 2).T)
    np.testing.assert_array_equal(b, (x * y.T + 2).max(0))
    np.testing.assert_allclose(c, x.sum())
    np.testing.assert_array_equal(d, [3, 3, 3, 3])


def test_row_kernels_see_one_row_at_a_time() -> None:
    func = parse_func("""
func @f(%x: f64[n,m], %y: i64[n]) -> (f64[n,m], f64[n], f64[], f64[m]) {
  %a, %b, %c, %d = fuse %x, %y {maps = ["ab", "a"], dims = [n, m], row = 1, out = ["ab", "a", "", "b"], reduce = ["", "", "sum", "sum"]} (%r: f64[m], %i: i64[]) {
    %0 = sum %r {axes = [0]} : f64[]
    %1 = broadcast %0 {shape = [m]} : f64[m]
    %2 = div %r, %1 : f64[m]
    %3 = gather %2, %i {axes = [0]} : f64[]
    %4 = iota {shape = [], dtype = "f64"} : f64[]
    %5 = mul %3, %4 : f64[]
    %6 = iota {shape = [m], dtype = "f64"} : f64[m]
    %7 = mul %2, %6 : f64[m]
    yield %7, %3, %5, %2
  } : f64[n,m], f64[n], f64[], f64[m]
  yield %a, %b, %c, %d
}""")
    (x,), y = randoms((3, 4), dtype="float64"), np.array([0, 3, -1])
    p = x / x.sum(1, keepdims=True)
    picked = p[np.arange(3), y]
    for got, want in zip(
        run(func, x, y), [p * np.arange(4), picked, picked @ np.arange(3), p.sum(0)], strict=True
    ):
        np.testing.assert_allclose(got, want)


def test_a_product_hands_its_elements_to_its_block() -> None:
    func = parse_func("""
func @f(%a: f32[n,k], %b: f32[k,m], %c: f32[m], %d: f32[m,n]) -> (f32[n,m], bool[n,m]) {
  %r, %p = matmul %a, %b, %c, %d {maps = ["b", "ba"]} (%x: f32[], %u: f32[], %v: f32[]) {
    %0 = add %x, %u : f32[]
    %1 = mul %0, %v : f32[]
    %2 = lt %1, %u : bool[]
    yield %1, %2
  } : f32[n,m], bool[n,m]
  yield %r, %p
}""")
    a, b, c, d = randoms((2, 3), (3, 4), (4,), (4, 2))
    want = (a @ b + c) * d.T
    r, p = run(func, a, b, c, d)
    np.testing.assert_array_equal(r, want)
    np.testing.assert_array_equal(p, want < c)


# -- placed ------------------------------------------------------------------------------------------------------

PLACED = """
func @f(%x: &f32[n,m] @input, %w: &f32[m] @shared, %out: &f32[n,m] @output) -> () {shared = ["w"], outputs = [f32[n,m]], arena = 4*n*m+4*m} {
  %t = alloc {type = &f32[n,m] @arena, offset = 0} : &f32[n,m] @arena
  %s = alloc {type = &f32[m] @arena, offset = OFFSET} : &f32[m] @arena
  copy %w, %s {into = 1}
  for {index = i, length = n} () {
    %row = view %x {type = &f32[m] @input, offset = i*m} : &f32[m] @input
    %to = view %t {type = &f32[m] @arena, offset = i*m} : &f32[m] @arena
    add %row, %s, %to {into = 1}
    add %w, %row, %w {into = 1}
    yield
  }
  %back = view %t {type = &f32[n,m; m,-1] @arena, offset = m-1} : &f32[n,m; m,-1] @arena
  copy %back, %out {into = 1}
  yield
}
"""


def test_places_are_windows_of_memory() -> None:
    x, w = randoms((3, 4), (4,))
    old = w.copy()
    (out,) = run(parse_func(PLACED.replace("OFFSET", "4*n*m")), x, w)
    np.testing.assert_array_equal(out, (x + old)[:, ::-1])
    np.testing.assert_allclose(w, old + x.sum(0), rtol=1e-5)


def test_a_plan_that_gives_two_live_places_one_memory_is_seen() -> None:
    x, w = randoms((3, 4), (4,))
    (out,) = run(parse_func(PLACED.replace("OFFSET", "4*m")), x, w.copy())
    assert not np.array_equal(out, (x + w)[:, ::-1])


def test_memory_outside_of_the_arena_cannot_be_had() -> None:
    x, w = randoms((3, 4), (4,))
    with pytest.raises(ValueError):
        run(parse_func(PLACED.replace("OFFSET", "4*n*m+4")), x, w)


def test_memory_is_not_zero_before_it_is_written() -> None:
    func = parse_func("""
func @f(%out: &f32[2] @output) -> () {
  %t = alloc {type = &f32[2] @arena} : &f32[2] @arena
  copy %t, %out {into = 1}
  yield
}""")
    assert np.isnan(run(func)[0]).all()


def test_outputs_of_unknown_size_are_made_on_the_way() -> None:
    func = parse_func("""
func @f(%n: &i64[] @input, %x: &f32[2] @input, %y: &f32[2] @output) -> () {outputs = [f32[2], i64[k]]} {
  bind %n {size = k}
  neg %x, %y {into = 1}
  %r = alloc {type = &i64[k] @output, offset = 1} : &i64[k] @output
  iota %r {shape = [k], into = 1}
  yield
}""")
    y, r = run(func, np.int64(3), np.float32([1, 2]))
    np.testing.assert_array_equal(y, [-1, -2])
    np.testing.assert_array_equal(r, [0, 1, 2])


# -- arguments ---------------------------------------------------------------------------------------------------

SIZES = "func @f(%x: f32[2*n+1,m], %y: f32[m], %z: f32[n]) -> () { yield }"


@pytest.mark.parametrize(
    "shapes, words",
    [
        ([(5, 3), (3,), (2,)], ""),
        ([(5, 3), (4,), (2,)], r"axis 0 of argument %y must be 3 \(m: m = 3 by axis 1 of %x\), got 4"),
        ([(4, 3), (3,), (2,)], r"axis 0 of argument %x must be 5 \(2\*n\+1: n = 2 by axis 0 of %z\), got 4"),
        ([(5, 3), (3,)], "@f takes 3 arguments, got 2"),
        ([(5, 3), (3,), (2, 1)], r"argument %z is f32\[n\], got float32 of shape \(2, 1\)"),
    ],
)
def test_arguments_that_do_not_fit_are_named(shapes: list[tuple[int, ...]], words: str) -> None:
    arrays = randoms(*shapes)
    if not words:
        run(parse_func(SIZES), *arrays)
        return
    with pytest.raises((ValueError, TypeError), match=words):
        run(parse_func(SIZES), *arrays)


def test_a_size_known_only_in_an_expression_is_solved_for() -> None:
    func = parse_func("func @f(%x: f32[2*n+1]) -> (i64[]) { %r = size {value = n} : i64[] yield %r }")
    assert run(func, np.zeros(7, np.float32))[0] == 3
    with pytest.raises(ValueError, match="the size n cannot be told from axis 0 of argument %x"):
        run(func, np.zeros(8, np.float32))


def test_dtypes_are_not_converted() -> None:
    with pytest.raises(TypeError, match="argument %x is f32.*got float64"):
        run(parse_func("func @f(%x: f32[n]) -> () { yield }"), np.zeros(2))


def test_a_result_that_no_address_space_holds() -> None:
    func = parse_func(
        "func @f(%x: f32[]) -> (f32[1073741824,1073741824,4]) {\n  %y = broadcast %x {shape = (1073741824, 1073741824, 4)} : f32[1073741824,1073741824,4]\n  yield %y\n}"
    )
    with pytest.raises(MemoryError, match="broadcast needs 18,446,744,073,709,551,616 bytes"):
        run(func, np.float32(1))
