"""What the steps of the convolutional networks need: kernels of each kind and bytes of the arena.  Numbers that rise are lost
fusion or lost reuse of memory."""

from __future__ import annotations

from collections import Counter

import pytest

import tcc.driver
from benchmarks.cases import CASES, function_of
from benchmarks.peers import tcc_peer
from tcc.ir.clone import clone
from tcc.passes.manager import Context, run
from tcc.passes.pipeline import cpu_pipeline

CONVOLUTIONS = ("conv", "conv_input", "conv_filter")
# (convolutions, convolutions with a block, loop nests, bytes of the arena)
WANTED = {
    "lenet forward": (2, 0, 3, 28800000),
    "lenet step": (5, 1, 16, 73380352),
    "resnet-20 forward": (21, 19, 24, 8388672),
    "resnet-20 step": (62, 16, 187, 111169792),
}


@pytest.mark.parametrize("kind", WANTED)
def test_kernels_and_memory_of_a_network(kind: str) -> None:
    case = next(c for c in CASES if c.kind == kind)
    task = tcc_peer.task(case, function_of("tcc", case), case.arrays())
    program = task.names["f"].program
    assert isinstance(program, tcc.driver.Program)
    sizes = program.bind([task.names[name] for name in task.names if name != "f"])
    func = clone(program.func, sizes)
    run(func, cpu_pipeline(), Context())
    found = Counter(op.name for op in func.body.walk())
    blocks = sum(op.name in CONVOLUTIONS and bool(op.blocks) for op in func.body.walk())
    convolutions = sum(found[name] for name in CONVOLUTIONS)
    assert (convolutions, blocks, found["fuse"], func.attrs["arena"]) == WANTED[kind]
