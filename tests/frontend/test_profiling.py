"""What a profile tells of kernels and of compilation."""

from __future__ import annotations

import io

import numpy as np

import tcc
from tcc import tensor as T
from tcc.profiling import ProfileStats


def test_kernels_are_measured_on_copies() -> None:
    x, w = T.matrix("x"), tcc.shared(np.ones((40, 30)), "w")
    result = T.dot(T.tanh(x), w).sum(1)
    f = tcc.function([x], result, "FAST_RUN", {w: w + 1}, profile=True, name="counted")
    for _ in range(3):
        f(np.ones((50, 40)))
    kernels = f.profile.kernels(0.01)
    assert any(k.op.name == "matmul" for k in kernels)
    assert [k.seconds for k in kernels] == sorted((k.seconds for k in kernels), reverse=True)
    assert (w.get_value() == 4).all()
    out = io.StringIO()
    f.profile.summary(out)
    text = out.getvalue()
    assert "3 calls" in text and "matmul f64[50,40] f64[40,30]" in text and "(first call)" in text


def test_what_is_interpreted_or_was_not_called_has_no_kernels() -> None:
    x = T.vector("x")
    stats = ProfileStats("both")
    f, g = (
        tcc.function([x], e, profile=stats, mode=m) for e, m in ((x + 1, "FAST_COMPILE"), (2 * x, "FAST_RUN"))
    )
    f([1.0])
    assert f.profile is g.profile is stats and stats.fct_callcount == 1 and stats.kernels() == []
    g([1.0])
    assert len(stats.kernels(0.01)) == 1 and len(stats.phases()) >= 1
