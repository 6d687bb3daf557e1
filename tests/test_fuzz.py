"""Random programs, and those that once failed, by the interpreter and natively."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from quick import native, natively_quick

from tcc.ir.arrays import Array
from tcc.ir.core import Func
from tcc.passes.pipeline import OPTIONAL
from tcc.tools.compare import arguments, disagreement
from tcc.tools.fuzz import read
from tcc.tools.graphs import graph
from tcc.tools.programs import program

BATCH = 10
BATCHES = [
    pytest.param(start, marks=[] if start < 120 else pytest.mark.long) for start in range(0, 200, BATCH)
]
WHOLE = 4  # every so many programs, one is compiled as programs of users are; what is drawn is what is computed, not how
KEPT = sorted((Path(__file__).parent / "regressions").glob("*.tcir"))


def failures(seeds: range, draw: Callable[[int], tuple[Func, dict[str, int]]] = program) -> dict[int, str]:
    """What is wrong, by seed; `python -m tcc.tools.fuzz --start SEED --seeds 1` makes the program small."""
    found = {}
    for seed in seeds:
        func, sizes = draw(seed)
        run = natively_quick if seed % WHOLE else native
        found[seed] = disagreement(func, arguments(func, sizes, seed), run)
    return {seed: text for seed, text in found.items() if text}


@pytest.mark.slow
@pytest.mark.parametrize("start", BATCHES)
def test_random_programs(start: int) -> None:
    assert failures(range(start, start + BATCH)) == {}


@pytest.mark.slow
@pytest.mark.parametrize("start", BATCHES)
def test_random_graphs(start: int) -> None:
    """Of the frontend, with gradients of loops, branches and random numbers."""
    assert failures(range(start, start + BATCH), graph) == {}


def test_random_graphs_have_what_they_are_drawn_for() -> None:
    names = {op.name for seed in range(40) for op in graph(seed)[0].body.walk()}
    assert names >= {
        "scan",
        "ifelse",
        "philox",
        "mrg",
        "gather",
        "scatter",
        "insert",
        "matmul",
        "check_index",
    }


@pytest.mark.slow
@pytest.mark.parametrize("skip", [*sorted(OPTIONAL), ",".join(sorted(OPTIONAL))])
def test_random_programs_without_a_pass(skip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCC_SKIP", skip)
    assert failures(range(1000, 1004)) == {}


@pytest.mark.parametrize("path", KEPT, ids=lambda p: p.stem)
def test_programs_that_once_failed(path: Path) -> None:
    func, sizes, seed = read(path)
    assert disagreement(func, arguments(func, sizes, seed), native) == ""


def test_what_is_wrong_by_more_than_roundings_is_found() -> None:
    func, sizes, seed = read(Path(__file__).parent / "regressions" / "product_beside_what_is_exact.tcir")

    def wrong(func: Func, arrays: Sequence[Array], *, exact: bool = True) -> list[Array]:
        (result,) = native(func, arrays, exact=exact)
        result[0, 0] *= 1.001
        return [result]

    assert "result 0, of concat, is" in disagreement(func, arguments(func, sizes, seed), wrong)
