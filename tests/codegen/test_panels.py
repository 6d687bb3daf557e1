"""Second factors that are panels: constants, and what all steps of a loop read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tcc
from tcc import tensor as T
from tcc.codegen import support
from tcc.codegen.products.panels import panel_bytes
from tcc.codegen.target import chosen
from tcc.driver import Program
from tcc.ir.ops.linalg import panels_ref
from tcc.ir.text import parse_func
from tcc.passes.manager import Step
from tcc.passes.pipeline import parse_pipeline
from tcc.runtime.callable import Function, Parameter
from tcc.tools.compare import same_bits

Array = np.ndarray[Any, Any]
DTYPES = ("float32", "float64")


@pytest.fixture(autouse=True, params=("host", "x86-64-v3", "plain"))
def target(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCC_TARGET", request.param)


def normal(dtype: str, *shape: int) -> Array:
    made: Array = np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)
    return made


def reads_panels(f: Any) -> bool:
    text: str = f.program.text(
        "fused", {n: v for n, v in f.program.seen.items() if n not in f.program.varying}
    )
    return "columns = " in text


class Placed(Program):
    """Runs none of the passes that would take `panels` apart."""

    def pipeline(self) -> list[Step]:
        return parse_pipeline("place,plan")


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_copies(dtype: str) -> None:
    short = {"float32": "f32", "float64": "f64"}[dtype]
    width = panel_bytes(chosen()) // np.dtype(dtype).itemsize
    for k, n in ((5, 3 * width), (70, 2 * width + 3), (3, 1), (33, width - 1), (0, 5), (4, 0)):
        count = -(-n // width)
        text = f"""func @f(%b: S[{k},{n}], %t: S[{n},{k}]) -> (S[{count},{k},{width}], S[{count},{k},{width}], S[{count},{k},{width}]) {{
          %turned = dimshuffle %t {{order = [1, 0]}} : S[{k},{n}]
          %back = slice %b {{start = [{max(k - 1, 0)}, {max(n - 1, 0)}], size = [{k}, {n}], step = [-1, -1]}} : S[{k},{n}]
          %p = panels %b {{width = {width}}} : S[{count},{k},{width}]
          %q = panels %turned {{width = {width}}} : S[{count},{k},{width}]
          %r = panels %back {{width = {width}}} : S[{count},{k},{width}]
          yield %p, %q, %r
        }}"""
        program = Placed(parse_func(text.replace("S[", f"{short}[")), {})
        support.load()
        given = [Parameter(name, short, 2, np.asarray) for name in "bt"]
        function = Function("f", given, program.specialise)
        b, t = normal(dtype, k, n), normal(dtype, n, k)
        for got, matrix in zip(function(b, t), (b, t.T, b[::-1, ::-1]), strict=True):
            assert same_bits(got, panels_ref(matrix, width)), (k, n)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("large", [False, True])
def test_what_all_steps_read(dtype: str, turned: bool, large: bool) -> None:
    n = (750 if dtype == "float32" else 530) if large else 110  # more than two megabytes, or some kilobytes
    u = normal(dtype, n, n) / np.float32(30)
    recurrent, x = tcc.shared(u), T.tensor3("x", dtype)
    states, _ = tcc.scan(
        lambda x, h: T.tanh(x + T.dot(h, recurrent.T if turned else recurrent)),
        sequences=x,
        outputs_info=T.zeros_like(x[0]),
    )
    f = tcc.function([x], states[-1], updates=[(recurrent, recurrent / 2)])
    for m in (2, 15, 40):
        xs = normal(dtype, 4, m, n)
        w = recurrent.get_value().astype(np.float64)
        h = np.zeros((m, n))
        for step in xs:
            h = np.tanh(step + h @ (w.T if turned else w))
        np.testing.assert_allclose(f(xs), h, rtol=1e-3, atol=1e-4)
    assert reads_panels(f) is (large or turned or not chosen().avx512)


@pytest.mark.parametrize("dtype", DTYPES)
def test_constants_of_both_layouts(dtype: str) -> None:
    x = T.matrix("x", dtype)
    w, tall = normal(dtype, 301, 470), normal(dtype, 129, 301)
    bias = normal(dtype, 470)
    f = tcc.function([x], [T.tanh(T.dot(x, T.constant(w)) / 8 + bias), T.dot(x, T.constant(tall).T)])
    for m in (2, 1, 0, 13, 29, 100):
        a = normal(dtype, m, 301)
        wide = a.astype(np.float64)
        first, second = f(a)
        np.testing.assert_allclose(first, np.tanh(wide @ w / 8 + bias), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(second, wide @ tall.T, rtol=1e-4, atol=1e-4)
    assert reads_panels(f)


def test_nan_and_inf_stay_in_their_column() -> None:
    x, w = T.matrix("x", "float32"), normal("float32", 90, 70)
    w[3, 5], w[7, 69] = np.nan, np.inf
    f = tcc.function([x], T.dot(x, T.constant(np.ascontiguousarray(w.T)).T))
    got = f(np.ones((3, 90), "float32"))
    assert np.isnan(got[:, 5]).all() and np.isinf(got[:, 69]).all()
    assert np.isfinite(np.delete(got, [5, 69], axis=1)).all()


@pytest.mark.parametrize("by_rows", [False, True])
def test_steps_of_a_loop_give_the_bits_of_products_alone(by_rows: bool) -> None:
    """Every other one goes through the matrix backwards."""
    u, x, h = tcc.shared(normal("float32", 203, 203) / np.float32(15)), T.fmatrix("x"), T.fvector("h")

    def step(x: Any, h: Any) -> Any:
        return T.dot(u, h) + x if by_rows else T.dot(h, u) + x

    loop = tcc.function([x], tcc.scan(step, sequences=x, outputs_info=T.zeros_like(x[0]))[0])
    v = T.fvector("v")
    alone = tcc.function([v, h], step(v, h))
    xs = normal("float32", 5, 203)
    for _ in range(5):  # panels are kept from the third call on
        state = np.zeros(203, "float32")
        for given, found in zip(xs, loop(xs), strict=True):
            state = alone(given, state)
            assert same_bits(found, state)


def test_products_of_one_shape_in_loops_of_their_own_follow_their_own_steps() -> None:
    w, v, n = T.fmatrix("w"), T.fvector("v"), T.lscalar("n")

    def steps(count: Any) -> Any:
        return lambda h: tcc.scan(lambda a: T.tanh(T.dot(w, a)), outputs_info=h, n_steps=count)[0]

    nested, _ = tcc.scan(lambda h: steps(3)(h)[-1], outputs_info=v, n_steps=n)
    f = tcc.function([w, v, n], [nested, steps(n)(v)])
    m = np.random.default_rng(0).standard_normal((17, 17)).astype("f") / 4
    inner, plain = f(m, np.ones(17, "f"), 6)
    np.testing.assert_allclose(inner[1], plain[5], rtol=1e-4, atol=1e-5)
