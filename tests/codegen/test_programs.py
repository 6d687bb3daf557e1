"""Whole programs in the text form, natively and by the interpreter: windows of memory, updates, loops, run-time sizes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from quick import native

from tcc.ir.text import parse_func
from tcc.ir.types import numpy_dtype
from tcc.runtime.threads import pool
from tcc.tools.compare import arguments, disagreement, run_native


def agree(text: str, **sizes: int) -> None:
    func = parse_func(text)
    assert disagreement(func, arguments(func, sizes, 1), native) == ""


# -- windows ---------------------------------------------------------------------------------------------------------

# a view of %x: f32[n,m], and its type
VIEWS = {
    "whole": ("dimshuffle %x {order = [0, 1]}", "n,m"),
    "transposed": ("dimshuffle %x {order = [1, 0]}", "m,n"),
    "backwards": ("slice %x {start = [n-1, m-1], size = [n, m], step = [-1, -1]}", "n,m"),
    "every other": ("slice %x {start = [0, 1], size = [(n+1)//2, m//2], step = [2, 2]}", "(n+1)//2,m//2"),
    "rows": ("slice %x {start = [n//2, 0], size = [n-n//2, m], step = [1, 1]}", "n-n//2,m"),
    "columns": ("slice %x {start = [0, m//2], size = [n, m-m//2], step = [1, 1]}", "n,m-m//2"),
    "flat": ("reshape %x {shape = [n*m]}", "n*m"),
    "repeated": ("broadcast %x {shape = [3, n, m]}", "3,n,m"),
    "one more": ("dimshuffle %x {order = [1, -1, 0]}", "m,1,n"),
}
SIZES = [(0, 3), (3, 0), (1, 1), (5, 16), (17, 33)]


@pytest.mark.slow
@pytest.mark.parametrize("n, m", SIZES)
@pytest.mark.parametrize("view", VIEWS)
def test_kernels_read_windows(view: str, n: int, m: int) -> None:
    """A map, its reduction over all, over the last and over the first axis, running sums, and the window itself."""
    source, shape = VIEWS[view]
    first, _, rest = shape.partition(",")
    without_last = shape.rpartition(",")[0]
    rank = shape.count(",")
    agree(
        f"""
func @f(%x: f32[n,m]) -> (f32[{shape}], f32[{shape}], f32[], f32[{without_last}], f32[{rest}], f32[{shape}]) {{
  %v = {source} : f32[{shape}]
  %y = mul %v, %v : f32[{shape}]
  %a = sum %v {{axes = {list(range(rank + 1))}}} : f32[]
  %b = sum %v {{axes = [{rank}]}} : f32[{without_last}]
  %c = max %v {{axes = [0]}} : f32[{rest}]
  %d = cumsum %v {{axis = 0}} : f32[{shape}]
  yield %v, %y, %a, %b, %c, %d
}}""",
        n=n,
        m=m,
    )


@pytest.mark.slow
@pytest.mark.parametrize("n, m", [(3, 0), (1, 1), (17, 33)])
@pytest.mark.parametrize("left", ["", "t", "r", "s"])
@pytest.mark.parametrize("right", ["", "t", "r", "s"])
def test_products_read_windows(left: str, right: str, n: int, m: int) -> None:
    views = {
        "": "dimshuffle %{x} {{order = [0, 1]}}",
        "t": "dimshuffle %{x} {{order = [1, 0]}}",
        "r": "slice %{x} {{start = [n-1, n-1], size = [n, n], step = [-1, -1]}}",
        "s": "slice %{x} {{start = [0, 0], size = [n, n], step = [1, 1]}}",
    }
    agree(
        f"""
func @f(%x: f32[n,n], %y: f32[n,n], %z: f32[n,m], %b: f32[m]) -> (f32[n,n], f32[n,m], f64[n,n]) {{
  %v = {views[left].format(x="x")} : f32[n,n]
  %w = {views[right].format(x="y")} : f32[n,n]
  %p = matmul %v, %w : f32[n,n]
  %q = matmul %p, %z : f32[n,m]
  %c = broadcast %b {{shape = [n, m]}} : f32[n,m]
  %s = add %q, %c : f32[n,m]
  %t = tanh %s : f32[n,m]
  %wide = cast %v {{dtype = "f64"}} : f64[n,n]
  %d = dimshuffle %wide {{order = [1, 0]}} : f64[n,n]
  %u = matmul %wide, %d : f64[n,n]
  yield %p, %t, %u
}}""",
        n=n,
        m=m,
    )


@pytest.mark.parametrize(
    "b, m, k, n", [(0, 3, 4, 5), (3, 0, 4, 5), (3, 4, 0, 5), (2, 17, 33, 1), (3, 1, 16, 17)]
)
def test_batched_products(b: int, m: int, k: int, n: int) -> None:
    agree(
        """
func @f(%x: f32[b,m,k], %y: f32[k,n], %z: f32[b,n,m], %e: f32[b,2,n,k]) -> (f32[b,m,n], f32[b,m,m], f32[2,b,n,n]) {
  %w = broadcast %y {shape = [b, k, n]} : f32[b,k,n]
  %p = matmul %x, %w : f32[b,m,n]
  %q = dimshuffle %z {order = [0, 2, 1]} : f32[b,m,n]
  %s = add %p, %q : f32[b,m,n]
  %r = matmul %s, %z : f32[b,m,m]
  %f = dimshuffle %e {order = [1, 0, 2, 3]} : f32[2,b,n,k]
  %g = dimshuffle %e {order = [1, 0, 3, 2]} : f32[2,b,k,n]
  %t = matmul %f, %g : f32[2,b,n,n]
  yield %s, %r, %t
}""",
        b=b,
        m=m,
        k=k,
        n=n,
    )


@pytest.mark.parametrize("dtype", ["bool", "i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64", "f64"])
def test_every_dtype_moves_and_adds_up(dtype: str) -> None:
    total = "i64" if dtype == "bool" else dtype
    agree(
        f"""
func @f(%x: {dtype}[n,m], %i: i32[3]) -> ({dtype}[m,n], {dtype}[2*n,m], {total}[m], {dtype}[3,m], {dtype}[n], i64[m]) {{
  check_index %i {{bound = n}}
  %t = dimshuffle %x {{order = [1, 0]}} : {dtype}[m,n]
  %r = slice %x {{start = [n-1, 0], size = [n, m], step = [-1, 1]}} : {dtype}[n,m]
  %c = concat %x, %r {{axis = 0}} : {dtype}[2*n,m]
  %s = sum %x {{axes = [0], dtype = "{total}"}} : {total}[m]
  %g = gather %r, %i {{axes = [0]}} : {dtype}[3,m]
  %u = max %x {{axes = [1]}} : {dtype}[n]
  %a = argmin %x {{axis = 0}} : i64[m]
  yield %t, %c, %s, %g, %u, %a
}}""",
        n=5,
        m=35,
    )


# -- reductions ------------------------------------------------------------------------------------------------------

SUBSETS = [list(s) for r in range(1, 5) for s in itertools.combinations(range(4), r)]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["f32", "f64", "i32", "bool"])
@pytest.mark.parametrize("shape", [(3, 5, 2, 17), (2, 1, 33, 4), (4, 0, 3, 2)])
def test_reductions_over_every_subset_of_axes(dtype: str, shape: tuple[int, ...]) -> None:
    kinds = ["any", "all", "max", "min"] if dtype == "bool" else ["sum", "prod", "max", "min"]
    lines, names, types = [], [], []
    for axes, kind in itertools.product(SUBSETS, kinds):
        rest = ",".join("pqrs"[a] for a in range(4) if a not in axes)
        names.append(f"%r{len(names)}")
        types.append(f"{dtype}[{rest}]")
        lines.append(f"  {names[-1]} = {kind} %x {{axes = {axes}}} : {types[-1]}")
    text = f"func @f(%x: {dtype}[p,q,r,s]) -> ({', '.join(types)}) {{\n" + "\n".join(lines)
    agree(f"{text}\n  yield {', '.join(names)}\n}}", **dict(zip("pqrs", shape)))


@pytest.mark.parametrize("m", [0, 1, 15, 16, 17, 129, 5000])
@pytest.mark.parametrize("n", [1, 3])
def test_rows_of_any_length(n: int, m: int) -> None:
    agree(
        """
func @f(%x: f32[n,m], %g: f32[m], %y: f64[n,m]) -> (f32[n,m], f32[n,m], f32[n], f32[n,m], f64[n,m]) {
  %s = softmax %x : f32[n,m]
  %l = log_softmax %x : f32[n,m]
  %e = logsumexp %x {axes = [1]} : f32[n]
  %t = sum %x {axes = [1]} : f32[n]
  %c = size {value = m+1} : i64[]
  %d = cast %c {dtype = "f32"} : f32[]
  %dn = broadcast %d {shape = [n]} : f32[n]
  %mean = div %t, %dn : f32[n]
  %mk = dimshuffle %mean {order = [0, -1]} : f32[n,1]
  %mb = broadcast %mk {shape = [n, m]} : f32[n,m]
  %z = sub %x, %mb : f32[n,m]
  %q = sqr %z : f32[n,m]
  %v = sum %q {axes = [1]} : f32[n]
  %one = const {value = 1.0, type = f32[n]} : f32[n]
  %v1 = add %v, %one : f32[n]
  %r = sqrt %v1 : f32[n]
  %rk = dimshuffle %r {order = [0, -1]} : f32[n,1]
  %rb = broadcast %rk {shape = [n, m]} : f32[n,m]
  %w = div %z, %rb : f32[n,m]
  %gb = broadcast %g {shape = [n, m]} : f32[n,m]
  %o = mul %w, %gb : f32[n,m]
  %ty = softmax %y : f64[n,m]
  yield %s, %l, %e, %o, %ty
}""",
        n=n,
        m=m,
    )


# -- updates ---------------------------------------------------------------------------------------------------------


def test_variables_that_swap_turn_and_read_each_other() -> None:
    agree(
        """
func @f(%a: f32[n,n], %b: f32[n,n], %c: f32[n,n], %x: f32[n,n])
    -> (f32[n,n], f32[n,n], f32[n,n], f32[n,n]) {shared = ["a", "b", "c"], updates = {a = 1, b = 2, c = 3}} {
  %s = add %a, %b : f32[n,n]
  %t = dimshuffle %b {order = [1, 0]} : f32[n,n]
  %u = mul %c, %x : f32[n,n]
  %v = add %u, %a : f32[n,n]
  yield %s, %b, %t, %v
}""",
        n=17,
    )


@pytest.mark.parametrize("mode", ["set", "add"])
def test_windows_of_a_variable_are_written_in_place(mode: str) -> None:
    agree(
        f"""
func @f(%w: f32[n,m], %v: f32[n,m], %i: i64[k], %u: f32[k,m], %e: f32[n])
    -> (f32[n], f32[n,m], f32[n,m]) {{shared = ["w", "v"], updates = {{w = 1, v = 2}}}} {{
  check_index %i {{bound = n}}
  %old = sum %w {{axes = [1]}} : f32[n]
  %rest = slice %w {{start = [0, m-1], size = [n, m//2], step = [1, -1]}} : f32[n,m//2]
  %w2 = insert %w, %rest {{start = [0, 0], size = [n, m//2], step = [1, 1], mode = "{mode}"}} : f32[n,m]
  %v2 = scatter %v, %u, %i {{axes = [0], mode = "{mode}"}} : f32[n,m]
  %ek = dimshuffle %e {{order = [0, -1]}} : f32[n,1]
  %v3 = insert %v2, %ek {{start = [0, m-1], size = [n, 1], step = [1, 1], mode = "{mode}"}} : f32[n,m]
  yield %old, %w2, %v3
}}""",
        n=5,
        m=33,
        k=7,
    )


def test_a_variable_may_change_its_shape() -> None:
    agree(
        """
func @f(%w: f32[n], %x: f32[m]) -> (f32[], f32[n+m]) {shared = ["w"], updates = {w = 1}} {
  %c = concat %w, %x {axis = 0} : f32[n+m]
  %s = sum %c {axes = [0]} : f32[]
  yield %s, %c
}""",
        n=3,
        m=16,
    )


def test_an_error_leaves_variables_as_they_were() -> None:
    func = parse_func("""
func @f(%w: f32[n], %i: i64[k]) -> (f32[n], f32[k]) {shared = ["w"], updates = {w = 0}} {
  %d = add %w, %w : f32[n]
  check_index %i {bound = n}
  %g = gather %d, %i {axes = [0]} : f32[k]
  yield %d, %g
}""")
    from tcc.runtime.buffers import Container
    from tcc.tools.compare import compile_native

    w = Container(np.ones(4, np.float32))
    for exact in (True, False):
        function, _ = compile_native(func, {"w": w}, exact=exact)
        with pytest.raises(IndexError, match="index 9 is out of bounds"):
            function(np.array([1, 9]))
        assert w.get().tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(
    "dtype, index", [("u64", 2**64 - 1), ("u8", 255), ("i8", -4), ("i64", 3), ("i32", -(2**31))]
)
def test_an_index_out_of_range_is_an_error(dtype: str, index: int) -> None:
    func = parse_func(f"""
func @f(%x: f32[n], %i: {dtype}[k]) -> (f32[k]) {{
  check_index %i {{bound = n}}
  %g = gather %x, %i {{axes = [0]}} : f32[k]
  yield %g
}}""")
    args = [np.ones(3, np.float32), np.array([0, 2, index], numpy_dtype(dtype))]
    assert disagreement(func, args) == ""
    with pytest.raises(IndexError, match="out of bounds for an axis of size 3"):
        run_native(func, args)


# -- loops -----------------------------------------------------------------------------------------------------------

LOOP = """
func @f(%xs: f32[t,n], %ys: f64[t], %a: f32[n], %b: f32[n], %w: f32[n,n])
    -> (f32[n], f32[n], f32[t,n], f64[t], f32[t,n,n], f32[t]) {
  %rev = slice %xs {start = [t-1, 0], size = [t, n], step = [-1, 1]} : f32[t,n]
  %p, %q, %o1, %o2, %o3, %o4 = scan %xs, %rev, %ys, %a, %b {seqs = 3, carries = 2, length = t} (%x: f32[n], %r: f32[n], %y: f64[], %c: f32[n], %d: f32[n]) {
    %k = dimshuffle %c {order = [-1, 0]} : f32[1,n]
    %m = matmul %k, %w : f32[1,n]
    %h = reshape %m {shape = [n]} : f32[n]
    %s = add %h, %x : f32[n]
    %u = tanh %s : f32[n]
    %v = mul %d, %r : f32[n]
    %z = add %v, %c : f32[n]
    %e = tanh %z : f32[n]
    %yy = mul %y, %y : f64[]
    %g = broadcast %u {shape = [n, n]} : f32[n,n]
    %l = sum %e {axes = [0]} : f32[]
    yield %e, %u, %c, %yy, %g, %l
  } : f32[n], f32[n], f32[t,n], f64[t], f32[t,n,n], f32[t]
  yield %p, %q, %o1, %o2, %o3, %o4
}"""


@pytest.mark.parametrize("t, n", [(0, 3), (1, 1), (3, 0), (5, 17)])
def test_loops_with_several_sequences_carries_and_outputs(t: int, n: int) -> None:
    agree(LOOP, t=t, n=n)


@pytest.mark.parametrize("t, u, n", [(0, 2, 3), (2, 0, 3), (3, 2, 5)])
def test_a_loop_in_a_loop(t: int, u: int, n: int) -> None:
    agree(
        """
func @f(%xs: f32[t,u,n], %a: f32[n], %w: f32[n]) -> (f32[n], f32[t,u,n], f32[t,n]) {
  %r, %o, %l = scan %xs, %a {seqs = 1, carries = 1, length = t} (%x: f32[u,n], %c: f32[n]) {
    %s, %p = scan %x, %c {seqs = 1, carries = 1, length = u} (%y: f32[n], %d: f32[n]) {
      %m = mul %d, %w : f32[n]
      %z = add %m, %y : f32[n]
      yield %z, %m
    } : f32[n], f32[u,n]
    %e = tanh %s : f32[n]
    yield %e, %p, %c
  } : f32[n], f32[t,u,n], f32[t,n]
  yield %r, %o, %l
}""",
        t=t,
        u=u,
        n=n,
    )


def test_an_epilogue_reads_what_is_not_contiguous() -> None:
    """Elements of a transposed sequence, in the place of a bias and of a whole matrix."""
    agree(
        """
func @f(%xs: f32[n,m,t], %bs: f32[n,t], %a: f32[m,n], %w: f32[n,n]) -> (f32[m,n], f32[t,m,n]) {
  %st = dimshuffle %xs {order = [2, 1, 0]} : f32[t,m,n]
  %bt = dimshuffle %bs {order = [1, 0]} : f32[t,n]
  %last, %all = scan %st, %bt, %a {seqs = 2, carries = 1, length = t} (%x: f32[m,n], %b: f32[n], %c: f32[m,n]) {
    %p = matmul %c, %w : f32[m,n]
    %bb = broadcast %b {shape = [m, n]} : f32[m,n]
    %q = add %p, %bb : f32[m,n]
    %r = mul %q, %x : f32[m,n]
    %s = tanh %r : f32[m,n]
    %u = matmul %s, %w : f32[m,n]
    %v = add %u, %bb : f32[m,n]
    yield %s, %v
  } : f32[m,n], f32[t,m,n]
  yield %last, %all
}""",
        n=17,
        m=5,
        t=3,
    )


@pytest.mark.parametrize("p, q", [(3, 4), (1, 5), (4, 1), (0, 3)])
def test_an_epilogue_behind_reshaped_rows(p: int, q: int) -> None:
    """A bias, a whole array that lies in another order in memory, and one that a loop makes."""
    agree(
        """
func @f(%xs: f32[m,q,p,t], %b: f32[m], %a: f32[p,q,m], %w: f32[m,m]) -> (f32[p,q,m], f32[t,p,q,m]) {
  %st = dimshuffle %xs {order = [3, 2, 1, 0]} : f32[t,p,q,m]
  %last, %all = scan %st, %a {seqs = 1, carries = 1, length = t} (%x: f32[p,q,m], %c: f32[p,q,m]) {
    %l = reshape %c {shape = [p*q, m]} : f32[p*q,m]
    %i = matmul %l, %w : f32[p*q,m]
    %d = reshape %i {shape = [p, q, m]} : f32[p,q,m]
    %bb = broadcast %b {shape = [p, q, m]} : f32[p,q,m]
    %s = add %d, %bb : f32[p,q,m]
    %r = mul %s, %x : f32[p,q,m]
    %h = tanh %r : f32[p,q,m]
    yield %h, %h
  } : f32[p,q,m], f32[t,p,q,m]
  yield %last, %all
}""",
        m=19,
        p=p,
        q=q,
        t=2,
    )


@pytest.mark.parametrize("t", [0, 1, 4])
def test_carries_that_turn_round(t: int) -> None:
    agree(
        """
func @f(%a: f32[n], %b: f32[n], %c: f32[n], %s: f32[n], %of_t: bool[t]) -> (f32[n], f32[n], f32[n], f32[t,n], f32[n])
    {shared = ["s"], updates = {s = 4}} {
  %p, %q, %r, %o = scan %a, %b, %c {seqs = 0, carries = 3, length = t} (%x: f32[n], %y: f32[n], %z: f32[n]) {
    %v = slice %x {start = [n-1], size = [n], step = [-1]} : f32[n]
    yield %y, %z, %v, %x
  } : f32[n], f32[n], f32[n], f32[t,n]
  %u = add %s, %p : f32[n]
  yield %p, %q, %r, %o, %u
}""",
        n=17,
        t=t,
    )


# -- threads ---------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(pool().threads < 2, reason="one CPU")
def test_one_thread_and_two_agree_to_the_bit() -> None:
    func = parse_func("""
func @f(%x: f32[n,m], %y: f32[m,n], %i: i64[n])
    -> (f32[n,m], f32[], f32[n], f32[m], f32[n,m], f32[n,n], i64[m], f32[n,m], f32[n,m]) {
  check_index %i {bound = n}
  %t = dimshuffle %y {order = [1, 0]} : f32[n,m]
  %a = mul %x, %t : f32[n,m]
  %b = tanh %a : f32[n,m]
  %c = sum %b {axes = [0, 1]} : f32[]
  %d = sum %b {axes = [1]} : f32[n]
  %e = sum %b {axes = [0]} : f32[m]
  %s = softmax %x : f32[n,m]
  %p = matmul %x, %y : f32[n,n]
  %k = argmax %x {axis = 0} : i64[m]
  %g = gather %x, %i {axes = [0]} : f32[n,m]
  %h = cumsum %x {axis = 0} : f32[n,m]
  yield %b, %c, %d, %e, %s, %p, %k, %g, %h
}""")
    args = arguments(func, {"n": 513, "m": 1031}, 1)
    seen = []
    for limit in (1, 2):
        pool().limit = limit
        try:
            seen += [run_native(func, args, exact=exact) for exact in (True, False)]
        finally:
            pool().limit = pool().threads
    for other in seen[1:]:
        for first, second in zip(seen[0], other, strict=True):
            np.testing.assert_array_equal(first, second)


# -- sizes that are known late ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("s", [0, 1, 3, 40, 5000])
def test_sizes_bound_at_run_time(s: int) -> None:
    """Outputs, working memory, and the scratch of kernels, all of a size that no argument tells."""
    agree(
        """
func @f(%count: i64[], %x: f32[n], %w: f32[n,m]) -> (f32[s,n], f32[n], f32[s,m], f32[s,n], i64[s], f32[n,s], f32[]) {
  bind %count {size = s}
  %b = broadcast %x {shape = [s, n]} : f32[s,n]
  %i = iota {shape = [s, n], axis = 0, dtype = "f32"} : f32[s,n]
  %j = sin %i : f32[s,n]
  %y = add %b, %j : f32[s,n]
  %t = sum %y {axes = [0]} : f32[n]
  %p = matmul %y, %w : f32[s,m]
  %z = softmax %y : f32[s,n]
  %c = iota {shape = [s]} : i64[s]
  %r = slice %c {start = [s-1], size = [s], step = [-1]} : i64[s]
  %yt = dimshuffle %y {order = [1, 0]} : f32[n,s]
  %zt = log_softmax %yt : f32[n,s]
  %all = sum %y {axes = [0, 1]} : f32[]
  yield %y, %t, %p, %z, %r, %zt, %all
}""",
        n=17,
        m=5,
        s=s,
    )


@pytest.mark.parametrize("s", [0, 1, 7])
def test_memory_of_a_size_bound_at_run_time_inside_a_loop(s: int) -> None:
    agree(
        """
func @f(%count: i64[], %xs: f32[t,n], %w: f32[n,n]) -> (f32[n], f32[t,n], f32[s,n]) {
  bind %count {size = s}
  %i = iota {shape = [s, n], axis = 1, dtype = "f32"} : f32[s,n]
  %a = const {value = 0.5, type = f32[n]} : f32[n]
  %z = const {value = 0.0, type = f32[s,n]} : f32[s,n]
  %last, %all, %rows = scan %xs, %a, %z {seqs = 1, carries = 2, length = t} (%x: f32[n], %c: f32[n], %d: f32[s,n]) {
    %b = broadcast %x {shape = [s, n]} : f32[s,n]
    %y = mul %b, %i : f32[s,n]
    %p = matmul %y, %w : f32[s,n]
    %o = softmax %p : f32[s,n]
    %r = sum %o {axes = [0]} : f32[n]
    %e = add %r, %c : f32[n]
    %f = add %d, %o : f32[s,n]
    yield %e, %f, %r
  } : f32[n], f32[s,n], f32[t,n]
  yield %last, %rows, %all
}""",
        n=17,
        t=3,
        s=s,
    )


def test_a_size_that_is_found_to_be_another() -> None:
    text = """
func @f(%x: f32[n,m], %y: f32[k]) -> (f32[k,m]) {
  %r = refine %x {type = f32[k,m]} : f32[k,m]
  %c = dimshuffle %y {order = [0, -1]} : f32[k,1]
  %b = broadcast %c {shape = [k, m]} : f32[k,m]
  %z = add %r, %b : f32[k,m]
  yield %z
}"""
    agree(text, n=5, k=5, m=3)
    func = parse_func(text)
    for exact in (True, False):
        with pytest.raises(ValueError, match="sizes differ"):
            run_native(func, arguments(func, {"n": 5, "k": 4, "m": 3}, 1), exact=exact)


def test_a_negative_size_is_an_error() -> None:
    func = parse_func("""
func @f(%count: i64[]) -> (f32[s]) {
  bind %count {size = s}
  %z = iota {shape = [s], dtype = "f32"} : f32[s]
  yield %z
}""")
    with pytest.raises(ValueError, match="a size must not be negative, got -2"):
        run_native(func, [np.array(-2)])
