"""A rehearsal of `python -m benchmarks --device cuda`: every case at tiny sizes through PTX and pycuda, on the stand-in for the driver."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest
import standin
from emulated import Array, assembled, sizes_of

import tcc
import tcc.tensor as T
from benchmarks.case import Case
from benchmarks.cases import CASES, TOPICS, function_of
from benchmarks.peers import symbolic
from tcc.ir.clone import clone
from tcc.runtime.device_program import DeviceProgram, Launch

PROGRAM = """
from standin_kernels import GRAPH_LAUNCHES, LAUNCHES, count
from benchmarks.cases import CASES, function_of
from benchmarks.measure import disagreement, reference
from benchmarks.peers import tcc_peer

kinds = {(c.kind, c.by_host, *c.tiny.values()): c for c in CASES if c.topic in TOPICS and c.timed}
for case in kinds.values():
    task = tcc_peer.task(case, function_of("tcc", case), case.arrays(tiny=True))
    launches, graphs = count(LAUNCHES), count(GRAPH_LAUNCHES)
    wrong = disagreement(task.results(), reference(case, tiny=True), case.tolerance)
    for _ in range(2):
        eval(task.statement, task.names)
    print(case.name, wrong, count(LAUNCHES) > launches, count(GRAPH_LAUNCHES) >= graphs + 2, sep=": ")
"""
QUICK = "maps", "rows", "products", "ordering", "classifiers"
ARCHS = ("sm_80", "sm_90", "sm_90a")
BETWEEN = tuple(f" {n}x{n}x{n}" for n in (128, 256, 512, 2048))
OTHERS = tuple(topic for topic in TOPICS if topic not in QUICK)


@pytest.mark.parametrize("topics", [QUICK, pytest.param(OTHERS, marks=pytest.mark.slow)], ids=" ".join)
def test_every_case_is_launched_as_a_graph_and_right(topics: tuple[str, ...]) -> None:
    """The first call launches step by step, the others as a graph."""
    got = standin.run(f"TOPICS = {topics}" + PROGRAM, BENCH_DEVICE="cuda")
    rows = dict(row.split(": ", 1) for row in got.splitlines())
    assert {row: said for row, said in rows.items() if said != "None: True: True"} == {}
    kinds = {c.kind for c in CASES if c.topic in topics and c.timed}
    assert {c.kind for c in CASES if c.name in rows} == kinds


class Blank(np.ndarray[Any, Any]):
    """Zeros of a shape and dtype that take no memory, nor time: one element for all, whatever is computed with them."""

    @classmethod
    def of(cls, shape: Any, dtype: Any = float) -> Array:
        return np.broadcast_to(np.zeros((), dtype), shape).view(cls)

    def astype(self, dtype: Any, *_: Any, **__: Any) -> Array:  # type: ignore[override]
        return self.of(self.shape, dtype)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **_: Any) -> Any:
        if ufunc is np.matmul:
            a, b = inputs
            shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
            return self.of(shape, np.result_type(a, b))
        ones = [np.ones((), x.dtype) if isinstance(x, np.ndarray) else x for x in inputs]
        return self.of(np.broadcast_shapes(*map(np.shape, inputs)), ufunc(*ones).dtype)


class Zeros:
    """In the place of random numbers, where only sizes count."""

    def standard_normal(self, size: Any = ()) -> Array:
        return Blank.of(size)

    def random(self, size: Any, dtype: Any = float) -> Array:
        return Blank.of(size, dtype)

    def uniform(self, low: float, high: float, size: Any) -> Array:
        return Blank.of(size)

    def integers(self, low: int, high: int, size: Any, dtype: Any = int) -> Array:
        return Blank.of(size, dtype)


def at_its_size(case: Case, arch: str) -> DeviceProgram:
    """tcc's program for a case, for a GPU."""
    inputs = case.inputs(Zeros(), **case.sizes)  # type: ignore[arg-type]
    with tcc.change_flags(device="emulator"):
        f = symbolic.task(tcc, T, case, function_of("tcc", case), inputs).names["f"]
    given = iter(v for name, v in inputs.items() if name not in case.form.held)
    held = f.program.containers
    arrays = [held[p.name].get() if p.name in held else next(given) for p in f.func.body.params]
    f.program.arch = arch
    program: DeviceProgram = f.program.device_program(clone(f.func, sizes_of(f.func, arrays)))
    return program


@pytest.mark.long
@pytest.mark.skipif(shutil.which("ptxas") is None, reason="there is no ptxas")
@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("topic", TOPICS)
def test_kernels_at_their_sizes_are_assembled_and_launched_within_limits(topic: str, arch: str) -> None:
    """Each case for one of the chips, which take turns; of square products, the smallest and one that fills a device."""
    cases = [c for c in CASES if c.topic == topic and c.timed and not c.name.endswith(BETWEEN)]
    for case in cases[ARCHS.index(arch) :: len(ARCHS)]:
        program = at_its_size(case, arch)
        for step in program.walk():
            if isinstance(step, Launch) and all(isinstance(n, int) for n in step.grid):
                x, y, z = map(int, step.grid)  # type: ignore[arg-type]
                assert x < 1 << 31 and max(y, z) < 1 << 16, case.name
        for kernel in program.kernels.values():
            said = assembled(kernel.text, arch)
            good = "error" not in said and "C75" not in said and " 0 bytes spill stores" in said
            assert good, f"{case.name}: {kernel.what}: {said}"
