"""Measured plans of products: what is asked for, kept, shown, and that no plan changes a bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tcc
from tcc import tensor as T
from tcc.codegen.products import tuning
from tcc.codegen.products.matmul import Matmul, chosen_plan, wishes
from tcc.codegen.products.record import PACK_ROWS, UNPACKED
from tcc.codegen.products.tuning import FIELDS, Calls, tuned_plan
from tcc.codegen.target import KNOWN, Target, host
from tcc.runtime import cache, threads
from tcc.tools.compare import same_bits

SHAPES = ((20, 650, 700), (97, 300, 130), (300, 70, 520), (15, 33, 600))  # rows, k, columns
LAYOUTS = ("NN", "NT", "TN", "TT")


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tuning, "_found", {})
    monkeypatch.setattr(cache, "_default", [cache.Cache(tmp_path)])
    monkeypatch.setenv("TCC_TUNE", "1")


def product(m: int, k: int, n: int, layout: str = "NN", dtype: str = "f32") -> Matmul:
    a = (k, 1) if layout[0] == "N" else (1, m)
    b = (n, 1) if layout[1] == "N" else (1, k)
    return Matmul(dtype, m, n, k, a, b, n)


class Timer:
    """Says that plans take the less time the more of what it likes is in them; keeps what it was asked about."""

    def __init__(self, **liked: int) -> None:
        self.liked, self.asked = liked.items(), 0

    def __call__(self, specs: Sequence[Matmul], target: Target) -> list[float]:
        self.asked += 1
        return [10.0 - sum(wishes(spec)[field] == value for field, value in self.liked) for spec in specs]


def test_the_fastest_value_of_each_field_is_taken_and_stays_in_the_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec, timer = product(20, 650, 2600), Timer(pack_b=PACK_ROWS, kc_most=112)
    plan = tuned_plan(spec, KNOWN[1], timer)
    assert [item.split("=")[0] for item in plan] == list(FIELDS)
    assert {"pack_b": PACK_ROWS, "kc_most": 112}.items() <= dict(
        (name, int(value)) for name, value in (item.split("=") for item in plan)
    ).items()
    monkeypatch.setattr(tuning, "_found", {})  # as another process finds it
    other = Timer(pack_b=UNPACKED)
    assert tuned_plan(spec, KNOWN[1], other) == plan and not other.asked
    assert tuned_plan(product(20, 651, 2600), KNOWN[1], other) != plan and other.asked


def test_little_gain_leaves_the_plan_of_the_cost_model() -> None:
    spec = product(97, 300, 130)

    def all_alike(specs: Sequence[Matmul], target: Target) -> list[float]:
        return [1.0, *[0.98] * (len(specs) - 1)]

    model = chosen_plan(spec, host())
    assert tuned_plan(spec, host(), all_alike) == tuple(f"{field}={model[field]}" for field in FIELDS)


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_plan_gives_the_same_bits(layout: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone and beside the first few other values of the fields before."""
    monkeypatch.setattr(threads, "thread_count", lambda: 2)
    for m, k, n in SHAPES:
        spec = product(m, k, n, layout, dtype)
        plans = [tuning._plan_of(spec, host())]
        for field in FIELDS:
            for plan in plans[:6]:
                plans += [*tuning._variants(spec, plan, field, host())]
        specs = [replace(spec, plan=plan) for plan in dict.fromkeys(plans)]
        assert len(specs) > 12
        calls = Calls(specs, host())
        c = calls.arrays["c"]
        calls.run(0)
        wanted = c.copy()
        for number in range(len(specs)):
            c.fill(np.nan)
            calls.run(number)
            assert same_bits(c, wanted), specs[number]


def test_a_function_has_measured_plans_where_sizes_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    timer = Timer(kc_most=80)
    monkeypatch.setattr(tuning, "seconds_of", timer)
    a, b, c = T.fmatrix("a"), T.fmatrix("b"), T.fvector("c")
    f = tcc.function([a, b, c], [T.tanh(T.dot(a, b) + c), T.dot(b, c)])
    rng = np.random.default_rng(0)
    x, y, z = (rng.standard_normal(s).astype("f") for s in ((70, 160), (160, 90), (90,)))
    found = f(x, y, z)
    np.testing.assert_allclose(found[0], np.tanh(x.astype("d") @ y + z), rtol=1e-4, atol=1e-5)
    sizes = f.program.history[-1].sizes
    assert "kc_most=80" in f.program.text("placed", sizes)
    assert "plan measured: " in tcc.explain(f) and "kc_most=80" in tcc.explain(f)
    assert "plan not measured: it is" in tcc.explain(f)
    f(x[:50], y, z)
    f(x[:40], y, z)
    assert "plan not measured: it has sizes that are not known" in tcc.explain(f)


def test_without_the_setting_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TCC_TUNE")
    timer = Timer()
    monkeypatch.setattr(tuning, "seconds_of", timer)
    a = T.TensorType("float32", shape=(90, 90))("a")
    f = tcc.function([a], T.dot(a, a))
    f(np.ones((90, 90), "f"))
    assert not timer.asked and "plan" not in tcc.explain(f)


def test_times_are_those_of_each_plan() -> None:
    spec = product(64, 64, 64)
    assert all(0 < t < 1 for t in tuning.seconds_of([spec, spec], host()))
