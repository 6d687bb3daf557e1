"""Programs of a device, run by a device that is NumPy: what `execute` does with each step."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tcc.ir.dims import name
from tcc.runtime.device_program import (
    Address,
    Allocate,
    Buffer,
    CheckSize,
    CheckStatus,
    Copy,
    DeviceKernel,
    DeviceProgram,
    HostStep,
    IfElse,
    Launch,
    Loop,
    Operand,
    ReadSize,
    Step,
    ToDevice,
    ToHost,
)
from tcc.runtime.host import HostArray, HostCall
from tcc.runtime.launch import StepFailed, execute
from tcc.runtime.signature import Signature


class Memory:
    """A device whose kernels add their second argument to the f32 at their first, once a block."""

    name, dlpack, multiprocessors = "memory", (1, 0), 1

    def __init__(self) -> None:
        self.blocks: dict[int, Any] = {}

    def alloc(self, bytes: int) -> int:
        block = ctypes.create_string_buffer(bytes)
        self.blocks[ctypes.addressof(block)] = block
        return ctypes.addressof(block)

    def free(self, address: int) -> None:
        del self.blocks[address]

    def to_device(self, address: int, source: np.ndarray) -> None:
        ctypes.memmove(address, source.ctypes.data, source.nbytes)

    def to_host(self, target: np.ndarray, address: int) -> None:
        ctypes.memmove(target.ctypes.data, address, target.nbytes)

    def copy(self, target: int, source: int, bytes: int) -> None:
        ctypes.memmove(target, source, bytes)

    def launch(self, kernel: DeviceKernel, grid: tuple[int, int, int], arguments: Sequence[int]) -> None:
        cell = ctypes.c_float.from_address(arguments[0])
        cell.value += grid[0] * grid[1] * grid[2] * arguments[1]

    def synchronise(self) -> None: ...
    def __enter__(self) -> Memory:
        return self

    def __exit__(self, *error: Any) -> None: ...


ADD = DeviceKernel("add", "", 1, 2)
N = name("n")


def run(
    *steps: Step, buffers: Sequence[Buffer] = (), **values: Any
) -> tuple[Memory, dict[int, int], list[float]]:
    """Runs steps over an f32[4] in buffer 0; the memory, late outputs, and what the array then holds."""
    device = Memory()
    base = device.alloc(64)
    array = np.array(values.pop("array", [0, 0, 0, 0]), values.pop("dtype", np.float32))
    device.to_device(base, array)
    program = DeviceProgram({"add": ADD}, (Buffer("output", 0, 16), *buffers), steps, Signature())
    late = execute(program, device, {0: base}, {"n": 3, **values})
    device.to_host(array, base)
    assert set(device.blocks) == {base, *late.values()}, "scratch goes back"
    return device, late, array.tolist()


def test_grids_and_offsets_are_sizes():
    _, _, got = run(Launch("add", (N, 2, 1), (Address(0, N + 1), N)))
    assert got == [0, 18, 0, 0]


def test_an_empty_grid_launches_nothing():
    assert run(Launch("add", (N - 3, 1, 1), (Address(0), 1)))[2] == [0, 0, 0, 0]


def test_loops_give_their_index_and_stop():
    i = name("i")
    step = Launch("add", (1, 1, 1), (Address(0, 4 * i), i))
    assert run(Loop("i", N, (step,)))[2] == [0, 1, 2, 0]
    stopped = Loop("i", N, (step,), Address(0, 4))  # its lowest byte is 1
    assert run(stopped, array=[0, 1.0000001, 0, 0])[2][2] == 0


def test_branches_and_copies():
    then, otherwise = Copy(Address(0, 8), Address(0, 4), 4), Copy(Address(0, 12), Address(0, 4), 4)
    step = IfElse(Address(0), (then,), (otherwise,))
    assert run(step, array=[1, 7, 0, 0], dtype=np.int32)[2] == [1, 7, 7, 0]
    assert run(step, array=[0, 7, 0, 0], dtype=np.int32)[2] == [0, 7, 0, 7]


def test_scratch_goes_back_and_late_outputs_stay():
    buffers = [Buffer("scratch", bytes=4 * N), Buffer("late", bytes=8 * name("m")), Buffer("late", 0, 8)]
    steps = [ReadSize("m", Address(0), 1), Allocate(2), Allocate(3)]
    device, late, _ = run(*steps, buffers=buffers, array=[5, 0], dtype=np.int64)
    assert list(late) == [3] and len(device.blocks) == 2


@pytest.mark.parametrize(
    "step, array, values",
    [
        (ReadSize("m", Address(0), 4), [-2, 0], (-2, 0, 0)),
        (CheckSize(N, 4, 4), [0, 0], (3, 4, 0)),
        (CheckStatus(Address(0)), [1, 9, 8, 7, 4], (9, 8, 7)),
    ],
)
def test_failures_say_which_operation_and_why(step: Step, array: list[int], values: tuple[int, ...]):
    with pytest.raises(StepFailed) as failed:
        run(step, buffers=[Buffer("scratch", bytes=8)], array=array, dtype=np.int64)
    assert (failed.value.op, failed.value.values) == (4, values)


def test_host_steps_copy_both_ways():
    call = HostCall(
        "twice",
        lambda x, n: [(2 * x + n).astype(np.float32)],
        (HostArray("f32", 1), HostArray("i64", 0)),
        (HostArray("f32", 1),),
    )
    steps = [
        ToHost(0, Operand(Address(0), "f32", (2,))),
        HostStep(call, (0,), (N,), ((1, "f32", (N - 1,)),)),
        ToDevice(Operand(Address(0, 8), "f32", (N - 1,)), 1),
    ]
    assert run(*steps, array=[1, 2, 0, 0])[2] == [1, 2, 5, 7]


def test_what_looks_at_results_is_not_captured():
    launch = Launch("add", (1, 1, 1), ())
    loop = Loop("i", 3, (launch, Copy(Address(0), Address(0), 4)))
    assert DeviceProgram({}, (), (launch, loop), Signature()).segments == [(launch, loop)]
    for step in (ReadSize("m", Address(0), 0), Loop("i", 3, (CheckStatus(Address(0)),))):
        assert not DeviceProgram({}, (), (launch, step), Signature()).segments


def test_checks_divide_what_is_captured():
    launch, check = Launch("add", (1, 1, 1), ()), CheckStatus(Address(0))
    program = DeviceProgram({}, (), (launch, launch, check, launch, check), Signature())
    assert program.segments == [(launch, launch), check, (launch,), check]
