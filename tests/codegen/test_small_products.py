"""Products of small matrices of known sizes: the bits of those of run-time sizes, in every layout, and a kernel without the engine."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tcc.codegen.driver import lower
from tcc.codegen.target import chosen
from tcc.passes.manager import Context
from tcc.passes.place import place
from tcc.passes.plan import plan
from tests.helpers.native import check, only

LAYOUTS = {
    "NN": ("m,k", "k,n", ""),
    "NT": ("m,k", "n,k", "b"),
    "TN": ("k,m", "k,n", "a"),
    "TT": ("k,m", "n,k", "ab"),
}


@pytest.fixture(autouse=True, params=("host", "x86-64-v3", "plain"))
def target(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCC_TARGET", request.param)


def turned(name: str, type: str, turn: bool) -> str:
    order = "[0, 2, 1]" if "c," in type else "[1, 0]"
    return f"  %{name}t = dimshuffle %{name} {{order = {order}}} : {type}\n" if turn else ""


def product(dtype: str, layout: str, batch: str = "") -> str:
    a, b, turns = LAYOUTS[layout]
    left, right = (f"%{name}t" if name in turns else f"%{name}" for name in "ab")
    text = f"func @f(%a: D[{batch}{a}], %b: D[{batch}{b}]) -> (D[{batch}m,n]) {{\n"
    text += turned("a", f"D[{batch}m,k]", "a" in turns) + turned("b", f"D[{batch}k,n]", "b" in turns)
    text += f"  %r = matmul {left}, {right} : D[{batch}m,n]\n  yield %r\n}}"
    return text.replace("D[", f"{dtype}[")


def operands(dtype: str, layout: str, batch: int, m: int, n: int, k: int) -> list[np.ndarray]:
    rng = np.random.default_rng(m + 10 * n + 100 * k)
    a = rng.standard_normal((batch, *((k, m) if layout[0] == "T" else (m, k))))
    b = rng.standard_normal((batch, *((n, k) if layout[1] == "T" else (k, n))))
    kind = {"f32": np.float32, "f64": np.float64}[dtype]
    return [a.astype(kind), b.astype(kind)]


def engines(text: str, *sizes: tuple[str, int]) -> dict[str, str]:
    for name, size in sizes:
        text = (
            text.replace(f"[{name},", f"[{size},")
            .replace(f",{name},", f",{size},")
            .replace(f",{name}]", f",{size}]")
        )
    func = only(text)
    for step in (place, plan):
        step(func, Context())
    return lower(func, chosen()).engines


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_batches(dtype: str, layout: str) -> None:
    sizes = list(itertools.product((1, 3, 9), (1, 2, 7, 17), (1, 4, 13)))
    for m, n, k in sizes[::3]:
        check(product(dtype, layout, "c,"), operands(dtype, layout, 5, m, n, k), rtol=1e-4, atol=1e-4)
    check(product(dtype, layout, "c,"), operands(dtype, layout, 0, 3, 3, 3))


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_batches_along_two_axes_that_no_stride_walks(dtype: str) -> None:
    """Heads of attention: factors are read, and the result is written, where they lie."""
    text = """func @f(%a: D[b,m,h,k], %b: D[b,n,h,k], %c: D[h,k,n]) -> (D[b,m,h*n], D[b,h,m,n]) {
      %q = dimshuffle %a {order = [0, 2, 1, 3]} : D[b,h,m,k]
      %t = dimshuffle %b {order = [0, 2, 3, 1]} : D[b,h,k,n]
      %r = matmul %q, %t : D[b,h,m,n]
      %o = dimshuffle %r {order = [0, 2, 1, 3]} : D[b,m,h,n]
      %s = reshape %o {shape = (b, m, h*n)} : D[b,m,h*n]
      %every = broadcast %c {shape = [b, h, k, n]} : D[b,h,k,n]
      %z = matmul %q, %every : D[b,h,m,n]
      yield %s, %z
    }""".replace("D[", f"{dtype}[")
    kind = {"f32": np.float32, "f64": np.float64}[dtype]
    rng = np.random.default_rng(0)
    for b, h, m, n, k in (
        (3, 2, 2, 3, 3),
        (2, 3, 17, 20, 40),
        (1, 4, 9, 8, 33),
        (4, 1, 1, 5, 2),
        (0, 2, 3, 3, 3),
    ):
        shapes = (b, m, h, k), (b, n, h, k), (h, k, n)
        check(text, [rng.standard_normal(s).astype(kind) for s in shapes], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_product_whose_rows_share_a_factor(layout: str) -> None:
    for m, n, k in ((1, 3, 3), (40, 3, 3), (7, 20, 5), (5, 1, 9), (0, 3, 2)):
        check(
            product("f32", layout), [x[0] for x in operands("f32", layout, 1, m, n, k)], rtol=1e-4, atol=1e-4
        )


def test_infinity_zeros_and_signs() -> None:
    a = np.array([[[np.inf, 0.0], [-0.0, -0.0]], [[np.nan, 1.0], [1e308, 1e308]]])
    b = np.array([[[0.0, 1.0], [-0.0, 3.0]], [[1.0, -1.0], [10.0, -10.0]]])
    check(product("f64", "NN", "c,"), [a, b])


def test_the_block_reads_vectors_and_numbers() -> None:
    block = """(%x: f32[], %p: f32[], %q: f32[]) {
      %0 = add %x, %p : f32[]
      %1 = mul %0, %q : f32[]
      yield %1
    }"""
    many = f"""func @f(%a: f32[c,3,4], %b: f32[c,4,5], %u: f32[5], %v: f32[c,3]) -> (f32[c,3,5]) {{
      %r = matmul %a, %b, %u, %v {{maps = ["c", "ab"]}} {block} : f32[c,3,5]
      yield %r
    }}"""
    one = f"""func @f(%a: f32[c,4], %b: f32[4,5], %u: f32[5], %v: f32[c]) -> (f32[c,5]) {{
      %r = matmul %a, %b, %u, %v {{maps = ["b", "a"]}} {block} : f32[c,5]
      yield %r
    }}"""
    rng = np.random.default_rng(0)

    def numbers(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    check(many, [numbers(7, 3, 4), numbers(7, 4, 5), numbers(5), numbers(7, 3)])
    check(one, [numbers(11, 4), numbers(4, 5), numbers(5), numbers(11)])


def test_operands_that_lie_apart() -> None:
    whole = np.random.default_rng(1).standard_normal((6, 8, 10))
    check(product("f64", "NN", "c,"), [whole[::2, ::-2, 1:4], whole[3:, 2:5, ::-3]])


def test_which_products_take_no_engine() -> None:
    many, one = product("f32", "NN", "c,"), product("f32", "NN")
    assert not engines(many, ("m", 4), ("k", 4), ("n", 4))
    assert not engines(one, ("k", 3), ("n", 3))
    assert engines(many, ("k", 4), ("n", 4))  # of any number of rows
    assert engines(one, ("m", 40), ("k", 40), ("n", 40))
