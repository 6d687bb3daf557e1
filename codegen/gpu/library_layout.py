"""Where things are in the device record of a context of a model's library for a GPU, whose slots are of eight bytes:

BUSY          1 while a call runs
CONTEXT       the driver's; NUMBER, STREAM
COUNT         of the device's multiprocessors
ASIDE         a stream that waits for none, on which graphs are captured
CAPTURING     the address of the graph that is being captured
functions     of the kernels, then their modules
values        for each tensor of the state, then each constant: its address, and whether it is HERE or NEWER than the host's
buffers       for each buffer of each entry: its address, and how many bytes it has
graphs        for each entry that launches several kernels before the host looks at anything: which of its WAYS is taken next;
              then for each those kernels as one graph, whether a call is KNOWN, and its sizes and addresses
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tcc.codegen.gpu.chips import Chip
from tcc.runtime.device_program import DeviceKernel, DeviceProgram, Launch, Step, is_captured, walk

_BUSY, CONTEXT, NUMBER, STREAM, ASIDE, CAPTURING, COUNT, FIRST = range(8)  # slots of a device record
HERE, NEWER = 1, 2
WAYS = 4
GRAPH, KNOWN, KEYS = range(3)  # slots of a graph, behind which its keys stand
PLAIN, LAUNCHED, CAPTURED, LOST = range(4)  # what `tcc_cu_replay` has done


@dataclass(frozen=True)
class DeviceLibrary:
    """What the entries of a model share on a device; `programs` go by the entries' names, `state` are all tensors' names and bytes."""

    programs: Mapping[str, DeviceProgram]
    state: Mapping[str, int]
    chip: Chip

    @cached_property
    def kernels(self) -> dict[str, DeviceKernel]:
        return {name: k for p in self.programs.values() for name, k in p.kernels.items()}

    def function(self, kernel: str) -> int:
        """The slot of its function; that of its module is len(kernels) further."""
        return FIRST + list(self.kernels).index(kernel)

    @cached_property
    def _values(self) -> dict[Any, int]:
        """The slots of what has its place on the device: names of the state, (entry, number) of constants."""
        keys: list[Any] = [*self.state]
        keys += [(entry, n) for entry, p in self.programs.items() for n in range(len(p.constants))]
        first = FIRST + 2 * len(self.kernels)
        return {key: first + 2 * i for i, key in enumerate(keys)}

    def value(self, key: str | tuple[str, int]) -> int:
        """The first of two slots, of a tensor of the state or a constant."""
        return self._values[key]

    @cached_property
    def _buffers(self) -> dict[tuple[str, int], int]:
        """Two slots for each buffer, and for a copy of each tensor of the state."""
        first = FIRST + 2 * len(self.kernels) + 2 * len(self._values)
        keys = [
            (e, n) for e, p in self.programs.items() for n in range(len(p.buffers) + len(p.signature.shared))
        ]
        return {key: first + 2 * i for i, key in enumerate(keys)}

    def buffer(self, entry: str, number: int) -> int:
        """The first of two slots; behind an entry's buffers stand the copies of its state."""
        return self._buffers[entry, number]

    @cached_property
    def graphs(self) -> dict[str, int]:
        """The first slot of each entry's graph, of those that have one."""
        found, at = dict[str, int](), self.memories.stop
        for entry, p in self.programs.items():
            if sum(isinstance(s, Launch) for step in captured_steps(p) for s in walk((step,))) > 1:
                found[entry] = at
                at += graph_slots(p)
        return found

    @property
    def slots(self) -> int:
        ends = (at + graph_slots(self.programs[entry]) for entry, at in self.graphs.items())
        return max([self.memories.stop, *ends])

    @property
    def memories(self) -> range:
        """The slots of addresses, every second one."""
        first = FIRST + 2 * len(self.kernels)
        return range(first, first + 2 * (len(self._values) + len(self._buffers)), 2)


def captured_steps(program: DeviceProgram) -> tuple[Step, ...]:
    """The first steps, of which the host looks at nothing."""
    steps = program.steps
    looked = (n for n, step in enumerate(steps) if not all(map(is_captured, walk((step,)))))
    return steps[: next(looked, len(steps))]


def early_buffers(program: DeviceProgram) -> list[int]:
    """Those whose memory is there before any step."""
    return [n for n, b in enumerate(program.buffers) if b.space != "late"]


def key_count(program: DeviceProgram) -> int:
    return len(program.signature.frame.sizes) + len(early_buffers(program))


def graph_slots(program: DeviceProgram) -> int:
    return 1 + WAYS * (KEYS + key_count(program))
