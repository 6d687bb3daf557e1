"""MRG31k3p on a GPU, by its emulator: the CPU's bits, numbers and states."""

from __future__ import annotations

import numpy as np
import pytest
from emulated import assembled, program_of, run_program

from tcc.codegen.gpu.chips import chip
from tcc.codegen.gpu.driver import lower
from tcc.ir import dims
from tcc.ir.builder import Builder
from tcc.ir.clone import clone
from tcc.ir.core import Block, Func
from tcc.ir.dims import Size
from tcc.ir.ops.random import M2
from tcc.ir.types import Type
from tcc.passes.manager import Context, run
from tcc.passes.pipeline import gpu_pipeline
from tcc.tools.compare import run_native


def draw(streams: Size, count: int, dtype: str) -> Func:
    block = Block([Type("i32", (streams, 6))], ["state"])
    b = Builder(block)
    state = block.params[0]
    made = b.op("mrg", state, attrs={"count": count, "dtype": dtype})
    b.op("yield", *made.results)
    return Func("draw", block)


@pytest.mark.parametrize(
    "streams, count, dtype",
    [(1, 5, "f32"), (63, 200, "f64"), (65, 64, "f32"), (131, 1000, "f32"), (3, 0, "f64"), (200, 1, "f32")],
)
def test_numbers_and_states(streams: int, count: int, dtype: str) -> None:
    state = np.random.default_rng(0).integers(1, M2, (streams, 6)).astype(np.int32)
    want = run_native(draw(streams, count, dtype), [state])
    for size in (streams, dims.name("n")):
        func = draw(size, count, dtype)
        program = program_of(func, [state], exact=False)
        assert [name.split("_")[1] for name in program.kernels] == ["streams"]
        for descending in (False, True):
            got = run_program(program, func, [state], descending)
            assert [a.tobytes() for a in got] == [a.tobytes() for a in want]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sm_80", "sm_90"])
def test_it_is_assembled(name: str) -> None:
    g = clone(draw(15360, 1 << 20, "f32"), {})
    run(g, gpu_pipeline(), Context())
    for kernel in lower(g, chip(name)).kernels.values():
        said = assembled(kernel.text, name)
        assert "error" not in said and " 0 bytes spill stores" in said, said
