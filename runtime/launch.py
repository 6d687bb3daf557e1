"""Running a `DeviceProgram` on any `Device`: a driver, or the emulator of the tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from tcc.ir.dims import Size, evaluate
from tcc.ir.types import memory_dtype
from tcc.runtime.device_program import (
    MOST_STRIDE,
    MULTIPROCESSORS,
    STATUS_WORDS,
    Address,
    Allocate,
    Array,
    CheckSize,
    CheckStatus,
    Copy,
    DeviceCall,
    DeviceKernel,
    DeviceProgram,
    HostStep,
    Launch,
    Loop,
    Operand,
    ReadSize,
    Step,
    TensorMap,
    ToDevice,
    ToHost,
)
from tcc.runtime.host import perform


class Device(Protocol):
    """What runs a program.  Calls are taken in order; only `to_host` and `synchronise` wait.

    Inside `with device:` it is one thread's.  `dlpack` is its kind and number in DLPack's terms; a grid may hang on how many
    `multiprocessors` it has.
    """

    name: str
    dlpack: tuple[int, int]
    multiprocessors: int

    def __enter__(self) -> Any: ...
    def __exit__(self, *error: Any) -> None: ...
    def alloc(self, bytes: int) -> int: ...
    def free(self, address: int) -> None: ...
    def to_device(self, address: int, source: Array) -> None: ...
    def to_host(self, target: Array, address: int) -> None: ...
    def copy(self, target: int, source: int, bytes: int) -> None: ...
    def tensor_map(self, address: int, map: TensorMap, sizes: Mapping[str, int]) -> Sequence[int]: ...
    def launch(self, kernel: DeviceKernel, grid: tuple[int, int, int], arguments: Sequence[int]) -> None: ...
    def synchronise(self) -> None: ...


class StepFailed(Exception):
    """An operation that can fail did: its number in the program's `ops`, and what it says."""

    def __init__(self, op: int, values: tuple[int, int, int]) -> None:
        super().__init__(f"operation {op} failed with {values}")
        self.op, self.values = op, values


def execute(
    program: DeviceProgram,
    device: Device,
    bound: Mapping[int, int],
    sizes: dict[str, int],
    poll: Callable[[], None] = lambda: None,
) -> dict[int, int]:
    """Runs a program whose inputs, shared variables, constants and early outputs lie at the addresses `bound`, by buffer.

    `sizes` has the program's `host_sizes` already, and gets those that are found on the way.  Scratch that is bound is not allocated.  Returns the addresses of late
    buffers that are outputs, which are the caller's.  What else was allocated goes back.
    """
    run = Run(program, device, dict(bound), sizes, poll)
    try:
        for number, buffer in enumerate(program.buffers):
            if buffer.space == "scratch" and number not in bound:
                run.allocate(number)
        run.steps(program.steps)
    except BaseException:
        run.release(keep=False)
        raise
    return run.release(keep=True)


@dataclass
class Run:
    """A program under way: where its buffers lie, and what its sizes are."""

    program: DeviceProgram
    device: Device
    bases: dict[int, int]
    sizes: dict[str, int]
    poll: Callable[[], None] = lambda: None
    owned: list[tuple[int, int]] = field(default_factory=list)  # buffer, address
    hosts: dict[int, Array] = field(default_factory=dict)  # the host's arrays

    def __post_init__(self) -> None:
        (name,) = MULTIPROCESSORS.names
        self.sizes[name] = self.device.multiprocessors

    def number(self, size: Size) -> int:
        return evaluate(size, self.sizes)

    def at(self, address: Address) -> int:
        return self.bases[address.buffer] + self.number(address.offset)

    def allocate(self, number: int) -> None:
        address = self.device.alloc(max(1, self.number(self.program.buffers[number].bytes)))
        self.bases[number] = address
        self.owned.append((number, address))

    def release(self, keep: bool) -> dict[int, int]:
        kept: dict[int, int] = {}
        for number, address in self.owned:
            buffer = self.program.buffers[number]
            if keep and buffer.space == "late" and buffer.number >= 0:
                kept[number] = address
            else:
                self.device.free(address)
        self.owned = []
        return kept

    def steps(self, steps: Sequence[Step]) -> None:
        for step in steps:
            self.step(step)

    def step(self, step: Step) -> None:
        if isinstance(step, Launch):
            self.launch(step)
        elif isinstance(step, Copy):
            self.device.copy(self.at(step.target), self.at(step.source), self.number(step.bytes))
        elif isinstance(step, Allocate):
            self.allocate(step.buffer)
        elif isinstance(step, ReadSize):
            (value,) = self.read(step.source, "i64", 1)
            if value < 0:
                raise StepFailed(step.op, (int(value), 0, 0))
            self.sizes[step.name] = int(value)
        elif isinstance(step, CheckSize):
            left, right = self.number(step.left), self.number(step.right)
            if left != right:
                raise StepFailed(step.op, (left, right, 0))
        elif isinstance(step, CheckStatus):
            self.check(step)
        elif isinstance(step, ToHost):
            self.hosts[step.number] = self.fetch(step.source)
        elif isinstance(step, ToDevice):
            self.send(step.target, self.hosts[step.number])
        elif isinstance(step, HostStep):
            self.host(step)
        elif isinstance(step, DeviceCall):
            self.device_call(step)
        elif isinstance(step, Loop):
            self.loop(step)
        else:
            (flag,) = self.read(step.flag, "bool", 1)
            self.steps(step.then if flag else step.otherwise)

    def check(self, step: CheckStatus) -> None:
        failed, *values, op = self.read(step.source, "i64", STATUS_WORDS).tolist()
        if failed:
            raise StepFailed(op, (values[0], values[1], values[2]))

    def launch(self, step: Launch) -> None:
        if step.otherwise and not self.fits(step):
            for other in step.otherwise:
                self.launch(other)
            return
        grid = self.grid(step)
        if all(grid):
            self.device.launch(self.program.kernels[step.kernel], grid, self.arguments(step))

    def grid(self, step: Launch) -> tuple[int, int, int]:
        x, y, z = (self.number(g) for g in step.grid)
        return x, y, z

    def arguments(self, step: Launch) -> list[int]:
        given: list[int] = []
        for a in step.arguments:
            if isinstance(a, TensorMap):
                given += self.device.tensor_map(self.at(a.address), a, self.sizes)
            else:
                given.append(self.at(a) if isinstance(a, Address) else self.number(a))
        return given

    def fits(self, step: Launch) -> bool:
        maps = (a for a in step.arguments if isinstance(a, TensorMap))
        return all(self.number(size) >= least for size, least in step.needs) and all(map(self.has_map, maps))

    def has_map(self, map: TensorMap) -> bool:
        """Whether the axes of an array lie as a tensor map wants: at multiples of 16 bytes, apart, and not too far."""
        sizes, strides = [self.number(s) for s in map.sizes], [self.number(s) for s in map.strides]
        aligned = not any(n % 16 for n in (self.at(map.address), *strides))
        apart = all(n * step <= beyond for n, step, beyond in zip(sizes, (map.itemsize, *strides), strides))
        return aligned and apart and strides[-1] < MOST_STRIDE and min(sizes) > 0

    def read(self, source: Address, dtype: str, count: int) -> Array:
        found = np.empty(count, memory_dtype(dtype))
        self.device.to_host(found, self.at(source))
        return found

    def loop(self, step: Loop) -> None:
        for i in range(self.number(step.length)):
            self.poll()
            self.sizes[step.index] = i
            mark = len(self.owned)
            self.steps(step.body)
            for _, address in self.owned[mark:]:  # late memory of one turn
                self.device.free(address)
            del self.owned[mark:]
            if step.stop is not None and self.read(step.stop, "bool", 1)[0]:
                break

    def fetch(self, source: Operand) -> Array:
        array = np.empty([self.number(s) for s in source.shape], memory_dtype(source.dtype))
        if array.size:
            self.device.to_host(array, self.at(source.address))
        return array

    def send(self, target: Operand, array: Array) -> None:
        if array.size:
            self.device.to_device(self.at(target.address), array)

    def host(self, step: HostStep) -> None:
        given = [self.hosts[n].copy() for n in step.operands]  # which the function may keep
        given += [np.array(self.number(s), np.int64) for s in step.sizes]
        made = [np.empty([self.number(s) for s in shape], memory_dtype(d)) for _, d, shape in step.results]
        perform(step.call, given, made)
        self.hosts |= {number: array for (number, _, _), array in zip(step.results, made)}

    def device_call(self, step: DeviceCall) -> None:
        arrays = [
            [(self.at(o.address), o._replace(shape=tuple(map(self.number, o.shape)))) for o in operands]
            for operands in (step.operands, step.results)
        ]
        if step.call.function.on_device(self.device, *arrays):  # type: ignore[attr-defined]
            return
        made = [np.empty([self.number(s) for s in r.shape], memory_dtype(r.dtype)) for r in step.results]
        perform(step.call, [self.fetch(o) for o in step.operands], made)
        for result, array in zip(step.results, made):
            self.send(result, array)
