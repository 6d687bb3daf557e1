"""argmax and argmin along dense and strided axes, with ties, NaN and infinities, for three kinds of target."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from native import check

from tcc.codegen.extremes import STRETCH
from tcc.ir.types import numpy_dtype

SHAPES = [(1,), (130,), (3, 0), (37, 10), (2, 3, 5), (7, 131), (3, 5, 70)]
TEXT = """
func @f(%x: {dtype}[{sizes}]) -> ({results}) {{
{lines}
  yield {names}
}}"""


@pytest.fixture(autouse=True, params=["host", "x86-64-v3", "plain"])
def target(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCC_TARGET", request.param)


def values(dtype: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Few different numbers, so that there are ties."""
    r = np.random.default_rng(len(shape) + sum(shape))
    x = r.integers(0 if dtype[0] in "ub" else -4, 2 if dtype == "bool" else 5, shape)
    return x.astype(numpy_dtype(dtype))


def both_along_every_axis(dtype: str, x: np.ndarray[Any, Any]) -> None:
    """Of x as it lies, and of x as its axes are turned."""
    sizes = [f"n{a}" for a in range(x.ndim)]
    lines, results = [], []
    turned = sizes[::-1]
    order = ", ".join(str(a) for a in reversed(range(x.ndim)))
    lines.append(f"  %t = dimshuffle %x {{order = [{order}]}} : {dtype}[{','.join(turned)}]")
    for operand, shape in (("x", sizes), ("t", turned)):
        for axis in range(x.ndim):
            for name in ("argmax", "argmin"):
                kept = ",".join(shape[:axis] + shape[axis + 1 :])
                lines.append(f"  %{name}{operand}{axis} = {name} %{operand} {{axis = {axis}}} : i64[{kept}]")
                results.append(f"i64[{kept}]")
    names = ", ".join(line.split()[0] for line in lines[1:])
    text = TEXT.format(
        dtype=dtype, sizes=",".join(sizes), results=", ".join(results), lines="\n".join(lines), names=names
    )
    check(text, [x], rtol=0, atol=0)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", ["f32", "f64", "i8", "u64", "bool"])
def test_extremes(dtype: str, shape: tuple[int, ...]) -> None:
    both_along_every_axis(dtype, values(dtype, shape))


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_the_first_nan_wins_and_infinities_count(dtype: str) -> None:
    x = values(dtype, (40, 67))
    x[np.random.default_rng(0).random(x.shape) < 0.02] = np.nan
    x[3], x[:, 5], x[4] = -np.inf, np.inf, -0.0
    x[4, ::2] = 0.0
    both_along_every_axis(dtype, x)


@pytest.mark.parametrize("dtype", ["f32", "f16", "i8"])
def test_rows_of_several_stretches(dtype: str) -> None:
    n = 2 * STRETCH + 77
    x = np.tile(values(dtype, (1, n)), (6, 1))
    x[1, [STRETCH - 1, STRETCH, n - 1]] = x.max() + 1
    x[2, n - 1] = x.min() - 1
    if dtype != "i8":
        x[2, [5, STRETCH + 5]], x[3, [STRETCH, n - 1]], x[4], x[5, STRETCH:] = np.nan, np.nan, -np.inf, np.inf
    both_along_every_axis(dtype, x)
