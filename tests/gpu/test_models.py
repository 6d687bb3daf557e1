"""The benchmarks' cases at tiny sizes, the example models' training steps among them, on the emulator.

TCC_TEST_DEVICE=cuda0 runs them on a GPU.
"""

from __future__ import annotations

import os

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
SLOW = ("resnet-164 step", "resnet-20 step", "resnet-20 forward")
DEVICE = os.environ.get("TCC_TEST_DEVICE", "emulator")


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            case, id=case.name, marks=[pytest.mark.slow] if case.kind in SLOW or "164" in case.name else []
        )
        for case in KINDS.values()
    ],
)
def test_a_device_agrees_with_the_reference(case: Case) -> None:
    with tcc.change_flags(floatX="float32", device=DEVICE):
        task = symbolic.task(tcc, T, case, function_of("tcc", case), case.arrays(tiny=True))
    assert task.names["f"].device.name == DEVICE
    assert disagreement(task.results(), reference(case, tiny=True), case.tolerance) is None
