"""The benchmarks' cases at tiny sizes, the example models' training steps among them, on the emulator."""

from __future__ import annotations

import pytest

import tcc
import tcc.tensor as T
from benchmarks.case import Case
from benchmarks.cases import CASES, MODULES, function_of
from benchmarks.measure import disagreement, reference
from benchmarks.peers import symbolic

KINDS = {
    (case.topic, case.kind, *case.tiny.values()): case
    for case in CASES
    if case.kind in getattr(MODULES[case.topic], "tcc", dict)()
}
SLOW = ("resnet-164 step", "resnet-20 step")


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.name, marks=[pytest.mark.slow] if case.kind in SLOW else [])
        for case in KINDS.values()
    ],
)
def test_the_emulator_agrees_with_the_reference(case: Case) -> None:
    with tcc.change_flags(floatX="float32", device="emulator"):
        task = symbolic.task(tcc, T, case, function_of("tcc", case), case.arrays(tiny=True))
    assert task.names["f"].device.name == "emulator"
    assert disagreement(task.results(), reference(case, tiny=True), case.tolerance) is None
