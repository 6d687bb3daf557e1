"""The pipeline as a whole: any optional pass may be missing, and applying a pass again changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from programs import PROGRAMS, arguments

from tcc.ir.core import Func
from tcc.ir.interpret import run as interpret
from tcc.ir.text import print_func
from tcc.passes.manager import Context, Step, run
from tcc.passes.pipeline import OPTIONAL, PASSES, VALUES, default_pipeline, parse_pipeline, pass_options

Program = Callable[[], Func]
SKIPS = [frozenset[str](), *(frozenset({name}) for name in sorted(OPTIONAL)), OPTIONAL]


@pytest.mark.parametrize("skip", SKIPS, ids=lambda s: "+".join(sorted(s)) or "none")
@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_any_optional_pass_may_be_missing(program: Program, skip: frozenset[str]) -> None:
    func = program()
    args = arguments(func)
    want = interpret(func, *args)
    run(func, default_pipeline(), Context(skip=skip))
    for got, w in zip(interpret(func, *args), want, strict=True):
        np.testing.assert_allclose(got, w, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", ["fold", "cse", "dce", "canonicalize", "hoist", "expand", "fuse"])
@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_applied_twice_is_applied_once(program: Program, name: str) -> None:
    func = program()
    until = max(i for i, step in enumerate(VALUES) if step.name == name)
    run(func, VALUES[: until + 1], Context())
    once = print_func(func)
    run(func, [VALUES[until]], Context())
    assert print_func(func) == once


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_nothing_elementwise_stays_outside_kernels(program: Program) -> None:
    func = program()
    run(func, default_pipeline(), Context())
    inside = {
        o for op in func.body.walk() if op.name in ("fuse", "matmul") for b in op.blocks for o in b.walk()
    }
    left = [op.name for op in func.body.walk() if op not in inside and (op.defn.scalar or op.defn.expand)]
    assert left == []


def test_pipelines_as_text() -> None:
    steps = parse_pipeline("canonicalize{composites=false}, fuse{max_ops=8,max_operands=3},dce")
    assert [s.name for s in steps] == ["canonicalize", "fuse", "dce"]
    assert [dict(s.options) for s in steps] == [{"composites": False}, {"max_ops": 8, "max_operands": 3}, {}]
    assert parse_pipeline(",".join(map(str, steps))) == steps
    assert parse_pipeline("") == []


@pytest.mark.parametrize(
    "text, words",
    [
        ("fuze", "no pass named fuze"),
        ("fuse{max_op=1}", "fuse has no option max_op"),
        ("cse{x=1}", "cse has no option x .it has none"),
        ("fuse{max_ops=many}", "option max_ops of fuse is int, got 'many'"),
        ("fuse{max_ops}", "option 'max_ops' of fuse has no value"),
        ("fuse dce", "cannot read the pipeline at 'fuse dce'"),
    ],
)
def test_pipelines_that_cannot_be_read(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_pipeline(text)


def test_every_pass_says_what_it_does() -> None:
    assert all(p.__doc__ for p in PASSES.values())
    assert pass_options(PASSES["fuse"]).keys() == {
        "max_ops",
        "max_operands",
        "epilogues",
        "columns",
        "most_totals",
    }


def test_a_failure_tells_how_to_rerun_it() -> None:
    def broken(func: Func, ctx: Context, *, depth: int = 1) -> None:
        raise RuntimeError("oh")

    func = PROGRAMS["chain"]()
    with pytest.raises(RuntimeError, match="oh") as caught:
        run(func, [Step(PASSES["dce"], {}), Step(broken, {"depth": 2}), Step(PASSES["cse"], {})], Context())
    (note,) = caught.value.__notes__
    assert "func @chain" in note
    assert "tcc opt -p 'broken{depth=2},cse' INPUT.tcir" in note


def test_dumps_remarks_and_times(tmp_path: Any) -> None:
    func = PROGRAMS["softmax_regression"]()
    ctx = Context(dump=tmp_path, dump_after=frozenset({"fuse"}))
    steps = default_pipeline()
    run(func, steps, ctx)
    (dump,) = tmp_path.iterdir()
    assert dump.name == f"{[s.name for s in steps].index('fuse'):02d}-fuse.tcir"
    assert "row = 1" in dump.read_text()
    assert [t.pass_name for t in ctx.times] == [s.name for s in steps]
    assert any("not fused" in r.text and r.pass_name == "fuse" for r in ctx.remarks)
    assert ctx.firings
