"""Pooling kernels against NumPy: any window, stride, padding, size, stride in memory and target."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from quick import native, quick_code

from tcc.codegen.target import chosen
from tcc.codegen.tiled_pooling import max_pool_grad_kernel, unpool_kernel
from tcc.ir import dims
from tcc.ir.builder import Builder
from tcc.ir.core import Block, Func
from tcc.ir.ops.pooling import max_pool_grad_ref, max_pool_pick_ref, pool_ref, pooled_shape, unpool_ref
from tcc.ir.types import FROM_NUMPY, Type
from tcc.passes.manager import Context, run
from tcc.passes.pipeline import cpu_pipeline
from tcc.tools.compare import compile_native, run_native

Array = np.ndarray[Any, Any]
TARGETS = {"host": "", "plain256": "256", "plain128": "128"}


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if TARGETS[request.param]:
        monkeypatch.setenv("TCC_TARGET", "plain")
        monkeypatch.setenv("TCC_VECTOR_BITS", TARGETS[request.param])


def everything(x_type: Type, attrs: dict[str, Any]) -> Func:
    """max, sum, and both ways back: of x, of what comes back (g for the maxima and sums), of v picked at the maxima."""
    block = Block([x_type], ["x"])
    b = Builder(block)
    (x,) = block.params
    shape = tuple(pooled_shape(x_type.shape, {"partial": 0, **attrs}))
    g = block.add_param(Type(x_type.dtype, shape), "g")
    v = block.add_param(x_type, "v")
    rank = len(attrs["ws"])
    y = b.pool(x, mode="max", **attrs)
    size = list(x_type.shape[x_type.rank - rank :])
    results = [
        y,
        b.pool(x, mode="sum", **attrs),
        b.max_pool_grad(x, y, g, **attrs),
        b.unpool(g, size=size, **attrs),
        b.max_pool_pick(x, y, v, **attrs),
    ]
    b.op("yield", *results)
    return Func("pooling", block)


def wanted(x: Array, g: Array, v: Array, attrs: dict[str, Any]) -> list[Array]:
    full = {"partial": 0, **attrs}
    y = pool_ref(x, "max", **full)
    return [
        y,
        pool_ref(x, "sum", **full),
        max_pool_grad_ref(x, y, g, **full),
        unpool_ref(g, x.shape[x.ndim - len(attrs["ws"]) :], **full),
        max_pool_pick_ref(x, y, v, **full),
    ]


def drawn(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Array:
    """Small whole numbers, so that windows have ties and sums are exact, and some NaN."""
    out = rng.integers(-4, 5, shape).astype(dtype)
    if out.dtype.kind == "f":
        out[rng.random(shape) < 0.02] = np.nan
    return out


def agree(x_type: Type, attrs: dict[str, Any], x: Array, g: Array, v: Array) -> None:
    with np.errstate(invalid="ignore"):
        want = wanted(x, g, v, attrs)
    exact = run_native(everything(Type(x_type.dtype, x.shape), attrs), [x, g, v])
    late = native(everything(x_type, attrs), [x, g, v], exact=False)
    for name, w, a, b in zip("max sum max_grad unpool pick".split(), want, exact, late, strict=True):
        np.testing.assert_array_equal(a, w, err_msg=f"{name} {attrs} of {x.shape}")
        np.testing.assert_array_equal(b, w, err_msg=f"{name} {attrs} of {x.shape}, sizes left to run time")


def named(rank: int) -> tuple[Any, ...]:
    return tuple(dims.name(f"n{k}") for k in range(rank))


def attrs_of(ws: int, stride: int, pad: int, partial: int) -> dict[str, Any]:
    return {"ws": (ws,), "stride": (stride,), "pad": (pad,), "partial": partial}


LINES = [
    attrs_of(w, s, p, partial)
    for w, s, p, partial in itertools.product((1, 2, 3, 5), (1, 2, 3, 4, 5, 9), (0, 1, 2), (0, 1))
    if p < w and not (p and partial)
][::3]


@pytest.mark.slow
@pytest.mark.parametrize(
    "attrs", LINES, ids=lambda a: "-".join(str(v[0] if v != a["partial"] else v) for v in a.values())
)
def test_lines(attrs: dict[str, Any], target: None) -> None:
    """Rows of every length around those of vectors."""
    rng = np.random.default_rng(len(str(attrs)))
    func = everything(Type("f32", named(2)), attrs)
    late, program = compile_native(func, {}, exact=False)
    for n in (0, 1, 2, 3, 7, 31, 32, 33, 67, 151):
        shape = tuple(pooled_shape((3, n), attrs))
        x, v, g = drawn(rng, (3, n), "f4"), drawn(rng, (3, n), "f4"), drawn(rng, shape, "f4")
        with np.errstate(invalid="ignore"):
            want = wanted(x, g, v, attrs)
        runs = {"left to run time": late(x, g, v)}
        if n in (7, 67):
            with quick_code():
                runs["exact"] = run_native(func, [x, g, v])
        for how, results in runs.items():
            for k, (got, w) in enumerate(zip(results, want, strict=True)):
                np.testing.assert_array_equal(got, w, err_msg=f"result {k}, n = {n}, sizes {how}")
    assert len(program.history) == 1


def planes() -> Iterator[tuple[tuple[int, ...], dict[str, Any], str]]:
    yield (2, 3, 8, 24), {"ws": (2, 2), "stride": (2, 2), "pad": (0, 0)}, "f4"
    yield (2, 3, 8, 8), {"ws": (2, 2), "stride": (2, 2), "pad": (0, 0)}, "f4"
    yield (3, 2, 12, 9), {"ws": (4, 3), "stride": (4, 3), "pad": (0, 0)}, "f8"
    yield (3, 5, 14), {"ws": (2,), "stride": (2,), "pad": (0,)}, "f4"
    yield (2, 3, 7, 37), {"ws": (3, 3), "stride": (2, 2), "pad": (1, 1)}, "f4"
    yield (5, 13, 40), {"ws": (2, 3), "stride": (3, 2), "pad": (1, 2)}, "f8"
    yield (5, 13, 41), {"ws": (3, 2), "stride": (1, 3), "pad": (0, 0), "partial": 1}, "f8"
    yield (2, 6, 7, 35), {"ws": (3, 2, 2), "stride": (2, 2, 2), "pad": (1, 0, 1)}, "f4"
    yield (3, 4, 5), {"ws": (2, 2, 2), "stride": (1, 1, 1), "pad": (0, 0, 0)}, "i4"
    yield (3, 50, 50), {"ws": (50, 50), "stride": (50, 50), "pad": (0, 0)}, "f4"
    yield (2, 9, 20), {"ws": (3, 3), "stride": (2, 2), "pad": (1, 1)}, "i1"
    yield (0, 4, 4), {"ws": (2, 2), "stride": (2, 2), "pad": (0, 0)}, "f4"
    yield (2, 4, 1), {"ws": (3, 3), "stride": (2, 2), "pad": (0, 0)}, "f4"


@pytest.mark.parametrize("shape,attrs,dtype", list(planes()))
def test_planes(shape: tuple[int, ...], attrs: dict[str, Any], dtype: str, target: None) -> None:
    rng = np.random.default_rng(1)
    x, v = drawn(rng, shape, dtype), drawn(rng, shape, dtype)
    g = drawn(rng, tuple(pooled_shape(shape, {"partial": 0, **attrs})), dtype)  # type: ignore[arg-type]
    agree(Type(FROM_NUMPY[x.dtype.name], named(len(shape))), attrs, x, g, v)


def test_elements_of_short_rows_fill_vectors(target: None) -> None:
    """No store leaves lanes out, though a row has six elements."""
    attrs = {"ws": (2, 2), "stride": (2, 2), "pad": (0, 0)}
    func = everything(Type("f32", (3, 8, 6)), attrs)
    run(func, cpu_pipeline(), Context())
    ops = {op.name: op for op in func.body.walk()}
    for kernel, name in ((max_pool_grad_kernel, "max_pool_grad"), (unpool_kernel, "unpool")):
        text = kernel(ops[name], chosen()).text
        assert "store <" in text and "masked.store" not in text


def test_memory_of_any_strides(target: None) -> None:
    """Channels last, reversed, and every other element."""
    attrs = {"ws": (3, 2), "stride": (2, 2), "pad": (1, 0)}
    rng = np.random.default_rng(2)
    whole = drawn(rng, (2, 11, 70, 6), "f4")
    x = whole.transpose(0, 3, 1, 2)[:, ::2, ::-1, ::2]
    v = drawn(rng, x.shape[::-1], "f4").T
    g = drawn(rng, tuple(pooled_shape(x.shape, {"partial": 0, **attrs}))[::-1], "f4").T  # type: ignore[arg-type]
    agree(Type("f32", named(4)), attrs, x, g, v)


def test_real_sums() -> None:
    attrs = {"ws": (3, 3), "stride": (2, 2), "pad": (1, 1)}
    rng = np.random.default_rng(3)
    x, v = rng.standard_normal((2, 4, 21, 45)).astype("f4"), rng.standard_normal((2, 4, 21, 45)).astype("f4")
    g = rng.standard_normal((2, 4, 11, 23)).astype("f4")
    want = wanted(x, g, v, attrs)
    got = run_native(everything(Type("f32", x.shape), attrs), [x, g, v])
    late = run_native(everything(Type("f32", named(4)), attrs), [x, g, v], exact=False)
    for a, b, w in zip(got, late, want, strict=True):
        np.testing.assert_allclose(a, w, rtol=1e-6)
        np.testing.assert_array_equal(a, b)
