"""Runs functions of the value level through the pipeline, the GPU's code generation and the emulator; or, where TCC_TEST_DEVICE
names one, on a GPU, which knows one order of threads."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tcc.codegen.gpu.chips import chip
from tcc.codegen.gpu.driver import lower
from tcc.codegen.gpu.emulator import Emulator
from tcc.devices import arch_of, open_device
from tcc.failures import failure, failure_record
from tcc.ir.arrays import as_numbers, in_memory
from tcc.ir.clone import clone
from tcc.ir.core import Func
from tcc.ir.dims import evaluate
from tcc.ir.types import memory_dtype
from tcc.passes.manager import Context, run
from tcc.passes.pipeline import gpu_pipeline
from tcc.runtime.device_program import DeviceProgram
from tcc.runtime.launch import Device, StepFailed, execute
from tcc.runtime.signature import InputSpec, Signature

Array = np.ndarray[Any, Any]
DEVICE = os.environ.get("TCC_TEST_DEVICE", "emulator")
only_emulated = pytest.mark.skipif(DEVICE != "emulator", reason="looks at what the emulator does")


def lowered(func: Func, tile_maps: bool = False) -> DeviceProgram:
    """For the device that the tests run on."""
    arch = None if DEVICE == "emulator" else arch_of(open_device(DEVICE))
    return lower(func, chip(arch) if arch else None, tile_maps=tile_maps)


def sizes_of(func: Func, arrays: Sequence[Array]) -> dict[str, int]:
    specs = tuple(InputSpec(p.type.dtype, p.type.shape, name=p.name) for p in func.body.params)
    return dict(Signature(specs).bind([np.shape(a) for a in arrays]))


def program_of(func: Func, arrays: Sequence[Array], *, exact: bool) -> DeviceProgram:
    sizes = sizes_of(func, arrays)
    g = clone(func, sizes if exact else {})
    g.attrs["hints"] = sizes
    run(g, gpu_pipeline(), Context())
    return lowered(g)


def run_program(
    program: DeviceProgram,
    func: Func,
    arrays: Sequence[Array],
    descending: bool = False,
    device: Device | None = None,
) -> list[Array]:
    """Results in the order of the function's, updates of shared variables among them."""
    if device is None:
        device = Emulator(descending=descending) if DEVICE == "emulator" else open_device(DEVICE)
    sizes = sizes_of(func, arrays)
    shared = list(func.attrs.get("shared", ()))
    given = [in_memory(np.asarray(a), p.type.dtype) for p, a in zip(func.body.params, arrays)]
    inputs = [a for p, a in zip(func.body.params, given) if p.name not in shared]
    containers = {p.name: a for p, a in zip(func.body.params, given) if p.name in shared}
    ordered = [containers[s.name] for s in program.signature.shared]
    bound: dict[int, int] = {}
    outputs: dict[int, tuple[int, tuple[int, ...]]] = {}
    for number, buffer in enumerate(program.buffers):
        source = {"input": inputs, "shared": ordered, "constant": program.constants}.get(buffer.space)
        if source is not None:
            array = source[buffer.number]
            bound[number] = device.alloc(array.nbytes)
            device.to_device(bound[number], array)
        elif buffer.space == "output":
            spec = program.signature.outputs[buffer.number]
            bound[number] = device.alloc(evaluate(buffer.bytes, sizes))
            outputs[buffer.number] = (bound[number], tuple(evaluate(s, sizes) for s in spec.shape))
    late_sizes = dict(sizes)
    try:
        late = execute(program, device, bound, late_sizes)
    except StepFailed as e:  # as a function's user sees it
        raise failure(failure_record(program.ops[e.op]))(*e.values, 0) from None
    for number, address in late.items():
        spec = program.signature.outputs[program.buffers[number].number]
        outputs[program.buffers[number].number] = (
            address,
            tuple(evaluate(s, late_sizes) for s in spec.shape),
        )

    def read(dtype: str, address: int, shape: tuple[int, ...]) -> Array:
        array = np.empty(shape, memory_dtype(dtype))
        if array.size:
            device.to_host(array, address)
        return as_numbers(array, dtype)

    made = [read(s.dtype, *outputs[i]) for i, s in enumerate(program.signature.outputs) if s.adopt is None]
    adopted = {
        program.signature.shared[s.adopt].name: read(s.dtype, *outputs[i])
        for i, s in enumerate(program.signature.outputs)
        if s.adopt is not None
    }
    state = {
        s.name: read(s.dtype, bound[n], ordered[b.number].shape)
        for n, b in enumerate(program.buffers)
        if b.space == "shared"
        for s in [program.signature.shared[b.number]]
    } | adopted
    for address in (*bound.values(), *late.values()):
        device.free(address)
    updates = {index: name for name, index in func.attrs.get("updates", {}).items()}
    rest = iter(made)
    return [state[updates[i]] if i in updates else next(rest) for i in range(len(func.body.yields))]


def emulated(
    func: Func, arrays: Sequence[Array], *, exact: bool = True, descending: bool = False
) -> list[Array]:
    return run_program(program_of(func, arrays, exact=exact), func, arrays, descending)


def assembled(text: str, name: str) -> str:
    """What ptxas says of some PTX."""
    ptxas = shutil.which("ptxas")
    if ptxas is None:
        pytest.skip("there is no ptxas")
    done = subprocess.run(
        [ptxas, f"-arch={name}", "-v", "-", "-o", "/dev/null"], input=text, capture_output=True, text=True
    )
    return done.stderr if done.returncode == 0 else f"error: {done.stderr}"
