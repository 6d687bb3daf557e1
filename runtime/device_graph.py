"""A device's program captured once, with memory of its own, and launched as a whole from then on.

Where the host waits for results anyway, its arrays go through pinned memory that the graph copies from and to itself: a call fills
one block, launches, waits once, and takes the results out of another.  A program whose checks are looked at on the way is several
graphs.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from tcc.ir import dims
from tcc.ir.dims import Size, evaluate
from tcc.runtime.device_arrays import DeviceArray
from tcc.runtime.device_program import (
    STATUS_WORDS,
    Address,
    Allocate,
    CheckStatus,
    Copy,
    DeviceCall,
    DeviceKernel,
    Launch,
    Loop,
    Step,
    TensorMap,
)
from tcc.runtime.launch import Device, Run, execute

if TYPE_CHECKING:
    from tcc.runtime.buffers import Container
    from tcc.runtime.device_function import DeviceVariant, Given

Array = np.ndarray[Any, Any]
Like = tuple[tuple[int, ...], np.dtype[Any]]
MOST_KNOWN = 1 << 12  # values of scalars whose sizes, and the arguments that follow, are kept
# bytes of arrays that a graph copies itself; larger ones travel in parts while they are being copied
MOST_PINNED = 1 << 20
GRAIN = 256  # bytes; what arrays of one block lie at multiples of


@runtime_checkable
class Capturing(Device, Protocol):
    """A device that can take a program as a whole.

    `pin` gives memory of the host's that copies of a graph may use, until `unpin` of its address; `send` and `fetch` copy from and to it without
    waiting.  What is `captured` to be `patched` keeps apart its launches.
    """

    def prepare(self, kernel: DeviceKernel) -> Any: ...
    def wait(self) -> None:
        """As `synchronise`, within `with device:`."""
        ...

    def captured(self, patched: bool = False) -> AbstractContextManager[Any]: ...
    def replay(self, graph: Any) -> None: ...
    def pin(self, bytes: int) -> Array: ...
    def unpin(self, address: int) -> None: ...
    def send(self, address: int, pinned: Array) -> None: ...
    def fetch(self, pinned: Array, address: int) -> None: ...

    def launches(self, graph: Any) -> int:
        """How many there are in a graph that may be patched, or in the one that is being captured."""
        ...

    def patch(
        self,
        graph: Any,
        number: int,
        kernel: DeviceKernel,
        grid: tuple[int, int, int],
        arguments: Sequence[int],
    ) -> None:
        """Another grid and other arguments for one of them, from the next launch of the graph on; within `with device:`."""
        ...


class _Block:
    """Arrays side by side, by number: on the device, and, if `pinned`, in memory of the host's that one copy fills or empties."""

    def __init__(self, device: Capturing, like: Mapping[int, Like], pinned: bool) -> None:
        sizes = [math.prod(shape) * dtype.itemsize for shape, dtype in like.values()]
        starts = np.cumsum([0, *(-(-size // GRAIN) * GRAIN for size in sizes)]).tolist()
        self.bytes: int = starts[-1]
        self.device, self.whole = device, DeviceArray(device, (self.bytes,), np.uint8)
        self.arrays = {
            n: DeviceArray.within(self.whole, start, shape, dtype)
            for (n, (shape, dtype)), start in zip(like.items(), starts)
        }
        self.memory = device.pin(self.bytes) if pinned and self.bytes else None
        self.address = 0 if self.memory is None else int(self.memory.ctypes.data)
        self.views = {
            n: np.empty(shape, dtype)
            if self.memory is None
            else self.memory[start : start + size].view(dtype).reshape(shape)
            for (n, (shape, dtype)), start, size in zip(like.items(), starts, sizes)
            if pinned
        }

    def send(self) -> None:
        if self.memory is not None:
            self.device.send(self.whole.address, self.memory)

    def fetch(self) -> None:
        if self.memory is not None:
            self.device.fetch(self.memory, self.whole.address)

    def __del__(self) -> None:
        if getattr(self, "address", 0):
            self.device.unpin(self.address)


class _Following:
    """A launch of a graph, number so many of it, whose arguments hang on sizes of these names."""

    def __init__(self, graph: Any, number: int, step: Launch, names: set[str], run: Run) -> None:
        self.graph, self.number, self.step, self.names, self.run = graph, number, step, names, run
        self.kernel, self.grid = run.program.kernels[step.kernel], run.grid(step)
        self.arguments = run.arguments(step)
        # arguments by the scalars that the sizes are made of
        self.known: dict[tuple[int, ...], list[int]] = {}
        maps = any(isinstance(a, TensorMap) for a in step.arguments)  # which are several words
        self.changing = (
            None if maps else [n for n, a in enumerate(step.arguments) if _argument_names(a) & names]
        )

    def patch(self, scalars: tuple[int, ...]) -> None:
        """For the sizes that `run` has now, which were made of some scalars."""
        found = self.known.get(scalars)
        if found is None:
            found = self.made()
            if len(self.known) < MOST_KNOWN:
                self.known[scalars] = found
        self.run.device.patch(self.graph, self.number, self.kernel, self.grid, found)  # type: ignore[attr-defined]

    def made(self) -> list[int]:
        run = self.run
        if self.changing is None:
            return run.arguments(self.step)
        found = list(self.arguments)
        for n in self.changing:
            a = self.step.arguments[n]
            found[n] = run.at(a) if isinstance(a, Address) else run.number(a)  # type: ignore[arg-type]
        return found


class CapturedCall:
    """The program of a variant for given shapes and places of its shared variables.

    `stay` numbers the outputs that remain on the device.  Callers get the graph's own memory: before the next call writes there,
    an array that somebody still has moves out.  So nothing is copied for who keeps nothing.  With `copies_out` they get
    copies; what containers adopt is one in any case.  Inputs that lie on the device are read where they lay when it was captured;
    with `copies_in` they are copied, wherever they lie.
    """

    def __init__(
        self,
        variant: DeviceVariant,
        device: Capturing,
        values: Sequence[DeviceArray],
        arrays: Sequence[Given],
        stay: frozenset[int],
        copies_in: bool,
        copies_out: bool,
    ) -> None:
        program = variant.program
        self.device, self.failures = device, variant.failures
        sizes = variant.sizes(arrays, values)
        self.values = [v.address for v in values]
        self.stay, self.expected = stay, [(type(a), a.shape, a.dtype) for a in arrays]
        here = {n for n, a in enumerate(arrays) if isinstance(a, DeviceArray)}
        self.here = sorted(here)  # the inputs that lie on the device
        types: dict[int, Like] = {n: (a.shape, a.dtype) for n, a in enumerate(arrays)}
        made = variant.output_types(sizes)
        brought = [n for n in made if n not in stay and n < variant.returned]
        given = sum(a.nbytes for n, a in enumerate(arrays) if n not in here)
        fetched = sum(math.prod(made[n][0]) * made[n][1].itemsize for n in brought)
        self.direct = bool(brought) and given + fetched <= MOST_PINNED
        self.sent = _Block(device, {n: t for n, t in types.items() if n not in here}, self.direct)
        self.filled = list(self.sent.views.items())
        self.fetched = _Block(device, {n: made[n] for n in brought}, self.direct)
        self.lent = _Block(device, {n: t for n, t in made.items() if n not in brought}, False)
        self.own = _Block(device, {n: types[n] for n in sorted(here) if copies_in}, False)
        self.read = [(n, arrays[n].address) for n in sorted(here - self.own.arrays.keys())]  # type: ignore[union-attr]
        placed = self.sent.arrays | self.own.arrays
        self.copied = [(n, a) for n, a in sorted(placed.items()) if n in here or not self.direct]
        # what makes a call's outputs
        self.made = [self._maker(n, not copies_out and n < variant.returned) for n in sorted(made)]
        self.handed: dict[int, weakref.ref[DeviceArray]] = {}
        inputs: list[Any] = [placed.get(n, a) for n, a in enumerate(arrays)]
        bound = variant.bound(inputs, values, self.fetched.arrays | self.lent.arrays)
        self.scratch = {
            number: DeviceArray(device, (evaluate(b.bytes, sizes),), np.uint8)
            for number, b in enumerate(program.buffers)
            if b.space in ("scratch", "late")
        }
        bound |= {number: s.address for number, s in self.scratch.items()}
        for kernel in program.kernels.values():
            self.device.prepare(kernel)  # loading is not to be captured
        segments = program.segments
        self.status = device.pin(8 * STATUS_WORDS) if len(segments) > 1 else None
        self.status_at = 0 if self.status is None else int(self.status.ctypes.data)
        self.early = program.host_sizes
        names = {s.name for s in self.early}
        self.now = [sizes[s.name] for s in self.early]
        self.scalars = sorted({n for s in self.early for n in s.inputs})
        self.known: dict[tuple[int, ...], list[int]] = {}  # what scalars mean
        self.state = Run(program, device, bound, sizes)
        self.following: list[_Following] = []  # launches whose arguments hang on early sizes
        self.fixed = set().union(*(dims.names_of(b.bytes) for b in program.buffers)) & names
        self.parts = self.capture(bound, segments)
        self.brings_all = self.direct or not brought  # whether nothing is left to be brought to the host
        self.waits = self.parts[-1] is not None and self.direct  # which the last check does otherwise
        self.running = False  # whether the device may still read what is pinned

    def _maker(self, n: int, handed: bool) -> Callable[[], Given]:
        if n in self.fetched.views:
            return self.fetched.views[n].copy
        if n in self.fetched.arrays:
            array = self.fetched.arrays[n]
            return lambda: array
        if not handed:
            return self.lent.arrays[n].copy
        lent, weak = self.lent.arrays[n], weakref.ref(self)  # nothing of its own is to keep it
        return lambda: weak().hand_out(n, lent)  # type: ignore[union-attr]

    def capture(
        self, bound: Mapping[int, int], segments: Sequence[tuple[Step, ...] | CheckStatus]
    ) -> list[Any]:
        """Graphs, and None where the status is looked at."""
        run, device = self.state, self.device
        last = max(n for n, s in enumerate(segments) if not isinstance(s, CheckStatus))
        parts: list[Any] = []
        for n, segment in enumerate(segments):
            if isinstance(segment, CheckStatus):
                parts.append(None)
                continue
            with device.captured(patched=bool(self.early)) as graph:
                if not n:
                    self.sent.send()
                for step in segment:
                    if not isinstance(step, Allocate):  # which has been done
                        before = device.launches(graph)
                        execute(replace(run.program, steps=(step,)), device, bound, run.sizes)
                        self.note(step, graph, before)
                if n == last:
                    self.fetched.fetch()
                follows = segments[n + 1] if n + 1 < len(segments) else None
                if isinstance(follows, CheckStatus) and self.status is not None:
                    device.fetch(self.status, bound[follows.source.buffer])
            parts.append(graph)
        return parts

    def note(self, step: Step, graph: Any, before: int) -> None:
        """What of a step, that was captured behind so many launches, hangs on early sizes."""
        names = _names(step) & {s.name for s in self.early}
        launched = self.device.launches(graph) - before
        if not isinstance(step, Launch) or step.otherwise:
            self.fixed |= names
            return
        of_grid = set().union(*map(dims.names_of, step.grid)) & names  # which says whether it is launched
        self.fixed |= of_grid
        if launched and names > of_grid:
            self.following.append(_Following(graph, before, step, names - of_grid, self.state))

    def follows(self, arrays: Sequence[Any]) -> bool:
        """Whether it is for the sizes that these inputs mean, or has been made to be; within `with device:`."""
        if not self.early:
            return True
        given = tuple([arrays[n].item() for n in self.scalars])
        now = self.known.get(given)
        if now is None:
            now = [size.of(arrays) for size in self.early]
            if len(self.known) < MOST_KNOWN:
                self.known[given] = now
        if now == self.now:
            return True
        if min(now) < 0:
            return False
        for size, old, new in zip(self.early, self.now, now) if self.fixed else ():
            if old != new and size.name in self.fixed:
                return False
        for size, new in zip(self.early, now):
            self.state.sizes[size.name] = new
        self.now = now
        for launch in self.following:
            launch.patch(given)
        return True

    def __del__(self) -> None:
        if getattr(self, "running", False):
            with suppress(Exception):  # the device may be lost, or the interpreter half gone
                self.device.synchronise()
        if getattr(self, "status_at", 0):
            self.device.unpin(self.status_at)

    @property
    def is_lent(self) -> bool:
        """Whether others may still work on outputs that were handed out, so that no call may write there."""
        return self.lent.whole.is_lent

    def reads(self, arrays: Sequence[Any]) -> bool:
        """Whether inputs lie where they are read."""
        for n, address in self.read:
            if arrays[n].address != address:
                return False
        return True

    def stands(self, containers: Sequence[Container]) -> bool:
        """Whether the newest values of shared variables, which the caller grasps, lie where it reads and writes them."""
        for container, address in zip(containers, self.values):
            if not container.is_at(address):
                return False
        return True

    @property
    def bytes(self) -> int:
        """Of the device's memory that are its own."""
        blocks = (self.sent, self.fetched, self.lent, self.own)
        return sum(b.bytes for b in blocks) + sum(int(s.nbytes) for s in self.scratch.values())

    def takes(self, arrays: Sequence[Any], stay: frozenset[int]) -> bool:
        """Whether these, be they what they may, are arrays like those that it was made for."""
        if len(arrays) != len(self.expected) or self.stay is not stay and self.stay != stay:
            return False
        for array, (kind, shape, dtype) in zip(arrays, self.expected):
            if type(array) is not kind or array.shape != shape:
                return False
            if array.dtype is not dtype and array.dtype != dtype:
                return False
            if kind is DeviceArray and (array.device is not self.device or array.bfloat):
                return False
        return True

    def run(self, arrays: Sequence[Given]) -> list[Given]:
        """The outputs: new arrays, of the host if they are small; what else is brought there is this call's until the next one."""
        device = self.device
        if self.running:
            device.wait()
        for found in self.handed.values():
            kept = found()
            if kept is not None:
                kept.move_out()
        for number, view in self.filled:
            view[...] = arrays[number]
        for number, place in self.copied:
            array = arrays[number]
            if type(array) is DeviceArray:
                device.copy(place.address, array.address, array.nbytes)
            elif array.nbytes:
                device.to_device(place.address, array)  # type: ignore[arg-type]
        self.running = self.direct
        for part in self.parts:
            if part is not None:
                device.replay(part)
            else:
                self.look()
        if self.waits:
            device.wait()
        self.running = False
        return [make() for make in self.made]

    def hand_out(self, number: int, array: DeviceArray) -> DeviceArray:
        whole = self.lent.whole
        made = DeviceArray.within(whole, array.address - whole.address, array.shape, array.dtype)
        self.handed[number] = weakref.ref(made)
        return made

    def look(self) -> None:
        """Raises what a check has found."""
        self.device.wait()
        assert self.status is not None
        failed, *values, op = self.status.view(np.int64).tolist()
        if failed:
            raise self.failures[op](values[0], values[1], values[2], 0)


def _names(step: Step) -> set[str]:
    """The names of sizes that a step hangs on."""
    if isinstance(step, Loop):
        return set(dims.names_of(step.length)).union(*map(_names, step.body))
    found: set[str] = set()
    if isinstance(step, Launch):
        found.update(*map(_argument_names, step.arguments))
        return found.union(*map(dims.names_of, step.grid), *map(_names, step.otherwise))
    if isinstance(step, Copy):
        return found.union(*map(dims.names_of, (step.target.offset, step.source.offset, step.bytes)))
    if isinstance(step, DeviceCall):
        for o in (*step.operands, *step.results):
            found.update(*map(dims.names_of, (o.address.offset, *o.shape)))
    return found


def _argument_names(a: Address | Size | TensorMap) -> set[str]:
    if isinstance(a, TensorMap):
        return set().union(*map(dims.names_of, (a.address.offset, *a.sizes, *a.strides)))
    return set(dims.names_of(a.offset if isinstance(a, Address) else a))
