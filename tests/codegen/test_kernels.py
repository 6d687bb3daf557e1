"""Kernels of every kind against the interpreter, with exact and with run-time sizes, for three kinds of target."""

from __future__ import annotations

import numpy as np
import pytest
from native import check

from tcc.codegen import nest
from tcc.ir.text import parse_func
from tcc.tools.compare import disagreement, run_native, same_bits

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True, params=["host", "x86-64-v3", "plain"])
def target(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCC_TARGET", request.param)


SHAPES = [(3, 5), (1, 1), (0, 4), (4, 0), (17, 33), (64, 128), (7, 1000)]


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("n, m", SHAPES)
def test_map_with_a_broadcast_operand(n, m):
    text = """
func @f(%x: f32[n,m], %y: f32[n,m], %b: f32[m]) -> (f32[n,m]) {
  %z = fuse %x, %y, %b {maps = ["ab", "ab", "b"], dims = [n, m], out = ["ab"]} (%u: f32[], %v: f32[], %w: f32[]) {
    %s = add %u, %v : f32[]
    %t = mul %s, %w : f32[]
    yield %t
  } : f32[n,m]
  yield %z
}"""
    check(text, [normal(n, m), normal(n, m), normal(m)])


@pytest.mark.parametrize("n, m", [*SHAPES, (33, 300), (300, 17)])
def test_an_operand_is_read_transposed(n, m):
    text = """
func @f(%x: f32[n,m], %y: f32[m,n]) -> (f32[n,m]) {
  %z = fuse %x, %y {maps = ["ab", "ba"], dims = [n, m], out = ["ab"]} (%u: f32[], %v: f32[]) {
    %s = add %u, %v : f32[]
    yield %s
  } : f32[n,m]
  yield %z
}"""
    check(text, [normal(n, m), normal(m, n)])


@pytest.mark.parametrize("step", [0, 1])  # 1: the factor is not that of elements in order
@pytest.mark.parametrize("n, m", [(3, 5), (1, 1), (0, 4), (4, 1), (1, 4), (17, 33), (700, 3)])
def test_elements_are_counted_in_order_by_one_loop(n, m, step):
    text = f"""
func @f(%x: i64[n,m], %b: i64[m]) -> (i64[n,m], i64[n,m], i64[n,m]) {{
  %p, %q, %r = fuse %x, %b {{maps = ["ab", "b"], dims = [n, m], out = ["ab", "ab", "ab"]}} (%u: i64[], %v: i64[]) {{
    %i = iota {{shape = []}} : i64[]
    %j = iota {{shape = [], axis = 1}} : i64[]
    %c = const {{value = {m + step}, type = i64[]}} : i64[]
    %w = mul %i, %c : i64[]
    %s = add %j, %w : i64[]
    %t = mul %u, %s : i64[]
    %a = add %v, %s : i64[]
    yield %t, %s, %a
  }} : i64[n,m], i64[n,m], i64[n,m]
  yield %p, %q, %r
}}"""
    check(text, [RNG.integers(-9, 9, (n, m)), RNG.integers(-9, 9, m)])
    check(
        text.replace("yield %t, %s, %a", "yield %t, %s, %t"),
        [RNG.integers(-9, 9, (n, m)), RNG.integers(-9, 9, m)],
    )


@pytest.mark.parametrize("k, n, m", [(2, 17, 300), (3, 40, 129), (0, 16, 200), (2, 1, 150)])
def test_matrices_are_transposed_beside_what_is_not(k, n, m):
    text = """
func @f(%x: f64[k,n,m], %y: f64[k,m,n], %b: f64[n]) -> (f64[k,n,m], f64[k,n,m]) {
  %z, %w = fuse %x, %y, %b {maps = ["abc", "acb", "b"], dims = [k, n, m], out = ["abc", "abc"]} (%u: f64[], %v: f64[], %c: f64[]) {
    %s = add %u, %v : f64[]
    %t = mul %v, %c : f64[]
    yield %s, %t
  } : f64[k,n,m], f64[k,n,m]
  yield %z, %w
}"""
    check(text, [RNG.standard_normal(s) for s in ((k, n, m), (k, m, n), (n,))])


@pytest.mark.parametrize("how", ["sum", "max", "min", "prod"])
@pytest.mark.parametrize("out", ["a", "b", ""])
@pytest.mark.parametrize("n, m", [(3, 5), (1, 1), (17, 33), (65, 200), (300, 1000), (2, 5000)])
def test_reduction(how, out, n, m):
    kind = {"a": "f32[n]", "b": "f32[m]", "": "f32[]"}[out]
    text = f"""
func @f(%x: f32[n,m]) -> ({kind}) {{
  %z = fuse %x {{maps = ["ab"], dims = [n, m], out = ["{out}"], reduce = ["{how}"]}} (%u: f32[]) {{
    %s = mul %u, %u : f32[]
    yield %s
  }} : {kind}
  yield %z
}}"""
    check(text, [normal(n, m)], rtol=1e-4)


def test_reduction_over_outer_and_inner_axes_at_once():
    text = """
func @f(%x: f32[p,n,m]) -> (f32[n]) {
  %z = fuse %x {maps = ["abc"], dims = [p, n, m], out = ["b"], reduce = ["sum"]} (%u: f32[]) {
    yield %u
  } : f32[n]
  yield %z
}"""
    check(text, [normal(5, 3, 70)], rtol=1e-4)


def test_a_map_and_its_sum_at_once():
    text = """
func @f(%x: f32[n]) -> (f32[n], f32[]) {
  %y, %z = fuse %x {maps = ["a"], dims = [n], out = ["a", ""], reduce = ["", "sum"]} (%u: f32[]) {
    %s = mul %u, %u : f32[]
    yield %s, %s
  } : f32[n], f32[]
  yield %y, %z
}"""
    check(text, [normal(40000)], rtol=1e-4)


@pytest.mark.parametrize("n, m", [(3, 5), (1, 1), (17, 33), (5, 200), (30, 1000), (2, 5000)])
def test_softmax_is_one_row_kernel(n, m):
    text = """
func @f(%x: f32[n,m]) -> (f32[n,m], f32[n]) {
  %z, %l = fuse %x {maps = ["ab"], dims = [n, m], out = ["ab", "a"], row = 1, reduce = ["", ""]} (%u: f32[m]) {
    %mx = max %u {axes = [0]} : f32[]
    %mb = broadcast %mx {shape = [m]} : f32[m]
    %d = sub %u, %mb : f32[m]
    %e = exp %d : f32[m]
    %s = sum %e {axes = [0]} : f32[]
    %sb = broadcast %s {shape = [m]} : f32[m]
    %p = div %e, %sb : f32[m]
    yield %p, %s
  } : f32[n,m], f32[n]
  yield %z, %l
}"""
    check(text, [normal(n, m)], rtol=1e-4)


@pytest.mark.parametrize(
    "n, k, m", [(3, 5, 4), (1, 1, 1), (17, 33, 10), (60, 78, 50), (13, 30, 99), (0, 3, 2), (3, 0, 2)]
)
def test_products_with_an_epilogue_and_an_update_in_place(n, k, m):
    text = """
func @f(%x: f32[n,k], %w: f32[k,m], %b: f32[m]) -> (f32[n,m], f32[k,m]) {shared = ["w"], updates = {w = 1}} {
  %a = matmul %x, %w, %b {maps = ["b"]} (%u: f32[], %v: f32[]) {
    %s = add %u, %v : f32[]
    %q = mul %s, %s : f32[]
    yield %q
  } : f32[n,m]
  %xt = dimshuffle %x {order = [1, 0]} : f32[k,n]
  %g = matmul %xt, %a : f32[k,m]
  %w2 = fuse %w, %g {maps = ["ab", "ab"], dims = [k, m], out = ["ab"]} (%u: f32[], %v: f32[]) {
    %s = sub %u, %v : f32[]
    yield %s
  } : f32[k,m]
  yield %a, %w2
}"""
    check(text, [normal(n, k), normal(m)], {"w": normal(k, m)}, rtol=1e-3, atol=1e-3)


def test_gather_and_scatter_with_negative_and_repeated_indices():
    text = """
func @f(%w: f32[n,m], %i: i32[k]) -> (f32[k,m], f32[n,m]) {
  check_index %i {bound = n}
  %g = gather %w, %i {axes = [0]} : f32[k,m]
  %s = scatter %w, %g, %i {axes = [0], mode = "add"} : f32[n,m]
  yield %g, %s
}"""
    check(text, [normal(6, 5), np.array([1, -1, 3, 1], np.int32)])


def test_scan_is_a_native_loop():
    text = """
func @f(%xs: f32[t,b,i], %h0: f32[b,h], %wx: f32[i,h], %wh: f32[h,h]) -> (f32[b,h], f32[t,b,h]) {
  %last, %hs = scan %xs, %h0 {seqs = 1, carries = 1, length = t} (%x: f32[b,i], %hp: f32[b,h]) {
    %a = matmul %x, %wx : f32[b,h]
    %r = matmul %hp, %wh : f32[b,h]
    %n = fuse %a, %r {maps = ["ab", "ab"], dims = [b, h], out = ["ab"]} (%u: f32[], %v: f32[]) {
      %s = add %u, %v : f32[]
      %q = mul %s, %u : f32[]
      yield %q
    } : f32[b,h]
    yield %n, %n
  } : f32[b,h], f32[t,b,h]
  yield %last, %hs
}"""
    check(text, [normal(4, 3, 5), normal(3, 6), normal(5, 6) * 0.1, normal(6, 6) * 0.1])


def test_carries_that_swap():
    text = """
func @f(%a: f32[n], %b: f32[n]) -> (f32[n], f32[n]) {
  %p, %q = scan %a, %b {seqs = 0, carries = 2, length = 3} (%x: f32[n], %y: f32[n]) {
    yield %y, %x
  } : f32[n], f32[n]
  yield %p, %q
}"""
    check(text, [normal(4), normal(4)])


@pytest.mark.parametrize("dtype", ["f32", "f64", "i16", "i64"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 70), (7, 33, 4), (2, 0, 3), (0, 3, 17)], ids=str)
def test_running_sums_and_products_along_any_axis(dtype, shape):
    dims = ["p", "n", "m"]
    lines = [f"  %t = dimshuffle %x {{order = [2, 1, 0]}} : {dtype}[m,n,p]"]
    results = []
    for operand, sizes in (("x", dims), ("t", dims[::-1])):
        kind = f"{dtype}[{','.join(sizes)}]"
        for axis in range(3):
            for name in ("cumsum", "cumprod"):
                lines.append(f"  %{name}{operand}{axis} = {name} %{operand} {{axis = {axis}}} : {kind}")
                results.append(kind)
    names = ", ".join(line.split()[0] for line in lines[1:])
    text = f"func @f(%x: {dtype}[p,n,m]) -> ({', '.join(results)}) {{\n" + "\n".join(lines)
    x = RNG.integers(-2, 3, shape).astype({"f": "f", "i": "i"}[dtype[0]] + str(int(dtype[1:]) // 8))
    check(f"{text}\n  yield {names}\n}}", [x], rtol=0, atol=0)


@pytest.mark.parametrize("length", [1, 9, 31, 32, 33, 71, 128, 257])
def test_long_chains_give_the_same_bits_for_known_and_run_time_lengths(length):
    func = parse_func("""
func @f(%x: f32[m,n]) -> (f32[m], f32[m,n]) {
  %e = exp %x : f32[m,n]
  %s = sum %e {axes = [1]} : f32[m]
  %p = softmax %x : f32[m,n]
  yield %s, %p
}""")
    x = normal(3, length)
    e = np.exp(x.astype(np.float64))
    known, unknown = (run_native(func, [x], exact=exact) for exact in (True, False))
    assert all(same_bits(a, b) for a, b in zip(known, unknown, strict=True))
    np.testing.assert_allclose(known[0], e.sum(1), rtol=1e-6)
    np.testing.assert_allclose(known[1], e / e.sum(1, keepdims=True), rtol=1e-5)


def test_columns_from_far_away_add_up_as_near_ones():
    """More rows than fit a cache, which go to accumulators in memory some at a time: the bits are those of run-time sizes, whose
    accumulators are in registers.  A ragged end on both axes, a factor for each row, several reductions, two reduced axes."""
    func = parse_func("""func @f(%x: f64[p,q,n], %w: f64[p,q]) -> (f64[n], f64[n], f64[p,n]) {
      %c = dimshuffle %w {order = [0, 1, -1]} : f64[p,q,1]
      %b = broadcast %c {shape = [p, q, n]} : f64[p,q,n]
      %y = mul %x, %b : f64[p,q,n]
      %s = sum %y {axes = [0, 1]} : f64[n]
      %m = max %x {axes = [0, 1]} : f64[n]
      %t = sum %x {axes = [1]} : f64[p,n]
      yield %s, %m, %t
    }""")
    rng = np.random.default_rng(0)
    assert disagreement(func, [rng.standard_normal((3, 87, 1029)), rng.standard_normal((3, 87))]) == ""


@pytest.mark.parametrize("n", [5, 32, 101])
def test_columns_of_long_chains_take_vectors_together(n, monkeypatch):
    """The bits are those of one vector at a time and of run-time sizes; a result is not reduced."""
    func = parse_func("""func @f(%x: f32[p,n], %b: f32[n]) -> (f32[n], f32[n], f32[p,n]) {
      %s, %m, %y = fuse %x, %b {maps = ["ab", "b"], dims = [p, n], out = ["b", "b", "ab"], reduce = ["sum", "max", ""]} (%u: f32[], %v: f32[]) {
        %a = mul %u, %v : f32[]
        %e = exp %a : f32[]
        %t = tanh %e : f32[]
        yield %e, %t, %t
      } : f32[n], f32[n], f32[p,n]
      yield %s, %m, %y
    }""")
    arrays = [normal(7, n), normal(n)]
    assert disagreement(func, arrays) == ""
    together = run_native(func, arrays, exact=True)
    monkeypatch.setattr(nest, "TOGETHER", 1)
    alone = run_native(func, arrays, exact=True)
    assert all(same_bits(a, b) for a, b in zip(together, alone, strict=True))


@pytest.mark.parametrize("rows", [1, 3, 16])
def test_few_rows_from_far_away_add_up_as_near_ones(rows):
    func = parse_func("""func @f(%x: f32[q,p,n], %w: f32[p]) -> (f32[q,n], i32[n], f32[n]) {
      %c = dimshuffle %w {order = [-1, 0, -1]} : f32[1,p,1]
      %b = broadcast %c {shape = [q, p, n]} : f32[q,p,n]
      %y = mul %x, %b : f32[q,p,n]
      %s = sum %y {axes = [1]} : f32[q,n]
      %i = cast %x {dtype = "i32"} : i32[q,p,n]
      %t = sum %i {axes = [0, 1]} : i32[n]
      %m = max %x {axes = [0, 1]} : f32[n]
      yield %s, %t, %m
    }""")
    rng = np.random.default_rng(0)
    n = 150_001 // rows  # more than the second-level cache holds
    x = 9 * rng.standard_normal((1, rows, n), np.float32)
    assert disagreement(func, [x, rng.standard_normal(rows, np.float32)]) == ""
