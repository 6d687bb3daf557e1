"""Launches of one kernel that do not meet are one; those that do keep their order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from emulated import Array, assembled, emulated, program_of

import tcc
import tcc.tensor as T
from tcc import gpu
from tcc.codegen.gpu.chips import chip
from tcc.codegen.gpu.driver import lower
from tcc.codegen.gpu.layers import MOST_WORDS, Region, independent, region
from tcc.ir import dims
from tcc.ir.clone import clone
from tcc.ir.core import Func
from tcc.ir.interpret import run as interpret
from tcc.ir.types import Place, Type
from tcc.passes.manager import Context, run
from tcc.passes.pipeline import gpu_pipeline
from tcc.runtime.device_program import Address, Launch, Loop

RNG = np.random.default_rng(0)
X, START = RNG.standard_normal((5, 3, 8)).astype("f4"), RNG.standard_normal((3, 8)).astype("f4")


def scanned(step: Any, states: int) -> tuple[Func, list[Array]]:
    """All states of a scan over X, and its arguments."""
    x, h = T.tensor3("x", dtype="float32"), T.matrix("h", dtype="float32")
    made, _ = tcc.scan(step, sequences=x, outputs_info=[h] * states)
    return tcc.function([x, h], made, device="emulator").func, [X, START]


def launched(func: Func, args: list[Array]) -> list[list[int]]:
    """For each loop, how many ops each of its launches is for."""
    loops = [s for s in program_of(func, args, exact=True).walk() if isinstance(s, Loop)]
    return [[s.layers for s in loop.body if isinstance(s, Launch)] for loop in loops]


CASES = {
    "apart": (lambda x, a, b, c: (T.tanh(x + a), b * x, a - c), 3),
    "one after another": (lambda x, a, b, c: (b, c, T.tanh(a + x)), 3),
    "changing places": (lambda x, a, b: (b, a), 2),
}


@pytest.mark.parametrize("name", CASES)
def test_states_are_copied_at_once(name: str) -> None:
    """Blocks run in both orders: a layer that met another would show."""
    func, args = scanned(*CASES[name])
    assert max(map(max, launched(func, args))) > 1
    wanted = interpret(func, *args)
    for descending in (False, True):
        for a, b in zip(emulated(func, args, descending=descending), wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


def test_many_are_several_launches() -> None:
    """Chips take so many arguments."""
    count = MOST_WORDS // 2 + 1
    inputs = [T.vector(f"x{n}", dtype="float32") for n in range(count)]
    func = tcc.function(inputs, [-x for x in inputs], device="emulator").func
    args = [np.full(3, n, "f4") for n in range(count)]
    program = program_of(func, args, exact=True)
    assert [s.layers for s in program.steps if isinstance(s, Launch)] == [count - 1, 1]
    assert [a[0] for a in emulated(func, args)] == [-n for n in range(count)]


def test_as_many_blocks_as_the_longest_wants() -> None:
    """A kernel of run-time sizes is the same for all lengths, a layer has the blocks of the first."""
    x, y = T.fvectors("x", "y")
    func = tcc.function([x, y], [-x, -y], device="emulator").func
    args = [np.ones(n, "f4") for n in (3, 5000)]
    for exact in (True, False):
        program = program_of(func, args, exact=exact)
        assert [s.layers for s in program.steps if isinstance(s, Launch)] == [1, 1]


@tcc.kernel("float32[n] -> float32[n]")
def twice(x, y):  # type: ignore[no-untyped-def]
    i = gpu.index()
    if i < len(x):
        y[i] = 2 * x[i]


def test_each_element_has_a_thread_whatever_the_lengths() -> None:
    x, y = T.fvectors("x", "y")
    f = tcc.function([x, y], [twice(x), twice(y)], device="emulator")
    for n, m in ((3, 600), (4, 700), (5, 800)):
        for got, size in zip(f(np.ones(n, "f4"), np.ones(m, "f4")), (n, m)):
            np.testing.assert_array_equal(got, np.full(size, 2, "f4"))


def test_nothing_is_done_at_once_too() -> None:
    x, y = T.ftensor3s("x", "y")
    func = tcc.function([x, y], [-x, -y], device="emulator").func
    nothing = [np.zeros((2, 3, 0), "f4")] * 2
    assert [a.shape for a in emulated(func, nothing)] == [(2, 3, 0)] * 2


@pytest.mark.parametrize("name", ["sm_70", "sm_90"])
def test_they_are_assembled(name: str) -> None:
    """Arguments are read where they lie, with no copy on the stack."""
    func, _ = scanned(*CASES["apart"])
    run(g := clone(func, {"x_0": 5, "x_1": 3, "x_2": 8}), gpu_pipeline(), Context())
    texts = [k.text for k in lower(g, chip(name)).kernels.values() if "layers" in k.name]
    assert texts
    for text in texts:
        said = assembled(text, "sm_80" if name == "sm_70" else name)
        assert "error" not in said and " 0 bytes stack frame" in said, said


ROW, STRIP, BACK = (
    ((2, 8), (8, 1)),
    ((4, 8), (32, 1)),
    ((2, 8), (-8, 1)),
)
i = dims.name("i")
MEETINGS: list[tuple[Any, Any, Any, bool]] = [  # of what is written to: the kind, and the two places
    (ROW, 0, 64, True),
    (ROW, 0, 60, False),
    (ROW, 64, 0, True),
    (STRIP, 0, 32, True),
    (STRIP, 0, 28, False),
    (STRIP, 96, 0, True),
    (STRIP, 100, 0, False),
    (ROW, dims.mul(64, i), 640, True),
    (ROW, dims.mul(64, i), 576, False),
    (ROW, dims.add(dims.mul(-64, i), 576), 640, True),
    (ROW, dims.mul(64, i), dims.add(dims.mul(64, i), 64), True),
    (ROW, dims.mul(64, dims.name("n")), 640, False),
    (BACK, 0, 1 << 20, False),
]


@pytest.mark.parametrize("kind, first, second, apart", MEETINGS)
def test_what_meets(kind: Any, first: Any, second: Any, apart: bool) -> None:
    shape, strides = kind

    def touched(at: Any, written: bool) -> list[Region]:
        return [region(Address(0, at), Type("f32", shape, Place(strides)), written)]

    for writes in ((True, True), (True, False), (False, True)):
        assert independent(touched(first, writes[0]), touched(second, writes[1]), {"i": 10}) is apart
    assert independent(touched(first, False), touched(second, False), {})
