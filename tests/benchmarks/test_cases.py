"""Every case at tiny sizes: tcc, and NumPy where it has the case, against the reference in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks import tape
from benchmarks.case import Case
from benchmarks.cases import CASES, MODULES, function_of
from benchmarks.measure import disagreement, reference
from benchmarks.peers import numpy_peer, tcc_peer

KINDS = {(case.topic, case.kind, *case.tiny.values()): case for case in CASES}


PEERS = {"tcc": tcc_peer, "numpy": numpy_peer}
THERE = [
    pytest.param(
        case,
        library,
        id=f"{library}: {case.name}",
        marks=[pytest.mark.long] if case.kind == "resnet-164 step" else [],
    )
    for case in KINDS.values()
    for library in PEERS
    if case.kind in getattr(MODULES[case.topic], library, dict)()
]


@pytest.mark.parametrize("case, library", THERE)
def test_a_peer_agrees_with_the_reference(case: Case, library: str) -> None:
    peer: Any = PEERS[library]
    results = peer.task(case, function_of(library, case), case.arrays(tiny=True)).results()
    assert disagreement(results, reference(case, tiny=True), case.tolerance) is None


def test_every_function_belongs_to_a_case() -> None:
    for topic, module in MODULES.items():
        kinds = {case.kind for case in CASES if case.topic == topic}
        for library in ("reference", "numpy", "tcc"):
            assert getattr(module, library, dict)().keys() <= kinds


@pytest.mark.parametrize("stride, pad", [(1, 0), (1, 1), (2, 1)])
def test_the_reference_differentiates_as_differences_do(stride: int, pad: int) -> None:
    """Every operation of the tape in one cost, along random directions."""
    rng = np.random.default_rng(0)
    values = [rng.standard_normal(s) for s in ((2, 2, 6, 6), (4, 2, 3, 3), (4, 1, 1), (4, 3))]
    labels = np.array([2, 0])

    def cost(*given: tape.Node) -> tape.Node:
        x, w, gain, out = given
        x = tape.conv2d(x, w, stride, pad)
        x = x * gain / (tape.exp(x.mean((0, 2, 3))) + 1) - 0.5
        x = tape.stack([x[0], x[1]])
        x = tape.relu(x) + tape.tanh(-x) + tape.log(x * x + 1) ** 2
        if stride == 1:
            x = tape.max_pool(x)
        return tape.cross_entropy(x.mean((2, 3)).reshape(2, 4) @ out + x.sum().reshape(1, 1), labels)

    nodes = [tape.Node(value) for value in values]
    slopes = tape.gradient(cost(*nodes), nodes)
    for k, value in enumerate(values):
        direction, tiny = rng.standard_normal(value.shape), 1e-6
        up, down = (
            cost(*(tape.Node(v + step if j == k else v) for j, v in enumerate(values))).value
            for step in (tiny * direction, -tiny * direction)
        )
        assert (slopes[k] * direction).sum() == pytest.approx((up - down) / (2 * tiny), rel=1e-5, abs=1e-8)
