"""A function that runs on a device: its programs, and what a call takes there and brings back."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from tcc.ir.dims import evaluate
from tcc.ir.types import memory_dtype
from tcc.runtime.buffers import Array, Container
from tcc.runtime.callable import Failure, Parameter, converted, in_order, ordered
from tcc.runtime.device_arrays import DeviceArray, is_foreign
from tcc.runtime.device_graph import CapturedCall, Capturing
from tcc.runtime.device_program import DeviceProgram
from tcc.runtime.launch import Device, StepFailed, execute
from tcc.runtime.signature import SizeMismatch
from tcc.runtime.tracebacks import shorten

Given = Array | DeviceArray
MOST_GRAPHS = 4  # of a function's variant
MOST_COUNT = 1 << 31  # below which each integer that counts something is one of its dtype
MOST_KEPT = 1 << 28  # bytes of memory that those which may not be launched again have of their own


class DeviceVariant:
    """One compilation for a device.  `containers` go with `program.signature.shared` one to one."""

    def __init__(
        self,
        program: DeviceProgram,
        device: Device,
        containers: Sequence[Container],
        failures: Mapping[int, Failure],
    ) -> None:
        self.program, self.device, self.containers = program, device, tuple(containers)
        self.signature, self.failures = program.signature, failures
        self._constants = [DeviceArray.of(device, c) for c in program.constants]
        self.graphs: list[CapturedCall] = []  # that which was launched last comes last
        self._copies_in = self._copies_out = (
            False  # of a graph, since inputs were elsewhere or outputs were lent
        )
        self._capturing = device if program.segments and isinstance(device, Capturing) else None
        written = [s.written for s in self.signature.shared]
        for output in self.signature.outputs:
            if output.adopt is not None:
                written[output.adopt] = True
        self._locked = sorted(zip(self.containers, written), key=lambda p: p[0].record)
        self._written = [n for n, s in enumerate(self.signature.shared) if s.written]
        self._updated = [self.containers[n] for n in self._written]
        self.returned = sum(o.adopt is None for o in self.signature.outputs)  # the others come last
        self._replaced = self.returned < len(self.signature.outputs)
        self._fit: list[tuple[int, ...]] = []  # shapes that are known to fit
        self.calls = 0

    def mismatch(self, arrays: Sequence[Given]) -> SizeMismatch | None:
        """Why this program is not for these sizes."""
        inputs, shared = [a.shape for a in arrays], [c.shape for c in self.containers]
        if self._fit == inputs + shared and self.calls:
            return None
        try:
            self.signature.bind(inputs, shared)
        except SizeMismatch as e:
            return e
        self._fit = inputs + shared
        return None

    def run(self, arrays: Sequence[Given], stay: frozenset[int] = frozenset()) -> list[Given]:
        """The outputs, on the host but for those in `stay`.  Containers hold what was computed once all has gone well."""
        held: list[Container] = []
        try:
            for container, write in self._locked:
                container.hold(write)
                held.append(container)
            with self.device:
                values = [c.on(self.device) for c in self.containers]
                if not self._torn():
                    return self._made(arrays, values, stay)
                with interrupts_wait():
                    return self._made(arrays, values, stay)
        finally:
            for container in reversed(held):
                container.let_go()

    def again(self, arrays: Sequence[Any], stay: frozenset[int]) -> list[Given] | None:
        """A captured call once more: the quick way of `run`.  None where anything is not as it was."""
        graphs = [] if self._replaced else [g for g in reversed(self.graphs) if g.takes(arrays, stay)]
        if not graphs:
            return None
        for n in graphs[0].here:
            if arrays[n].is_borrowed:
                return None
        grasped = []
        try:
            for container, _ in self._locked:
                grasped.append(container.grasp())
            for container in self._updated:
                if not container.away:
                    return None
            with self.device:
                graph = self._ready([g for g in graphs if g.stands(self.containers)], arrays)
                if graph is None:
                    return None
                made = graph.run(arrays)
                return made if graph.brings_all else [self._brought(n, o, stay) for n, o in enumerate(made)]
        finally:
            for mutex in grasped:
                mutex.release()

    def _brought(self, number: int, output: Given, stay: frozenset[int]) -> Given:
        return output.get() if isinstance(output, DeviceArray) and number not in stay else output

    def _made(
        self, arrays: Sequence[Given], values: Sequence[DeviceArray], stay: frozenset[int]
    ) -> list[Given]:
        outputs = self._run(arrays, values, stay)
        for number in self._written:
            self.containers[number].left_on(values[number])
        for spec, value in zip(self.signature.outputs, outputs):
            if spec.adopt is not None:
                self.containers[spec.adopt].left_on(value)  # type: ignore[arg-type]
        return [self._brought(number, o, stay) for number, o in enumerate(outputs[: self.returned])]

    def _torn(self) -> bool:
        """Whether Ctrl-C could leave some updates done.  A graph is given to the device at once, and containers whose value
        is there already need no more than that."""
        whole = bool(self.graphs) and not self._replaced
        return any(w and not (whole and c.away) for c, w in self._locked)

    def _run(
        self, arrays: Sequence[Given], values: Sequence[DeviceArray], stay: frozenset[int]
    ) -> Sequence[Given]:
        self.calls += 1
        if self._capturing is not None and self.calls > 1:
            return self._captured(self._capturing, arrays, values, stay).run(arrays)
        sizes = self.sizes(arrays, values)
        inputs = [a if isinstance(a, DeviceArray) else DeviceArray.of(self.device, a) for a in arrays]
        early = self.outputs(sizes)
        try:
            late = execute(self.program, self.device, self.bound(inputs, values, early), sizes)
        except StepFailed as e:
            raise self.failures[e.op](*e.values, 0) from None
        found = {self.program.buffers[number].number: address for number, address in late.items()}
        outputs: list[DeviceArray] = []
        for number, spec in enumerate(self.signature.outputs):
            if number in early:
                outputs.append(early[number])
            else:
                shape = [evaluate(s, sizes) for s in spec.shape]
                outputs.append(DeviceArray(self.device, shape, memory_dtype(spec.dtype), found[number]))
        return outputs

    def _captured(
        self, device: Capturing, arrays: Sequence[Given], values: Sequence[DeviceArray], stay: frozenset[int]
    ) -> CapturedCall:
        """The graph for a call: one that there is, or else a new one.  Some are kept, so that sizes that take turns are captured
        once, but none where that takes memory that is wanted."""
        graph = self._kept(values, arrays, stay)
        if graph is not None:
            return graph
        while len(self.graphs) >= MOST_GRAPHS or sum(g.bytes for g in self.graphs) > MOST_KEPT:
            del self.graphs[0]
        for alone in (not self.graphs, True):
            try:
                made = CapturedCall(self, device, values, arrays, stay, self._copies_in, self._copies_out)
                break
            except MemoryError:
                if alone:
                    raise
                self.graphs.clear()
        self.graphs.append(made)
        return made

    def _kept(
        self, values: Sequence[DeviceArray], arrays: Sequence[Given], stay: frozenset[int]
    ) -> CapturedCall | None:
        """A graph that will do; those of other places go, and those in whose stead one is to come that copies more."""
        addresses = [v.address for v in values]
        self.graphs = [g for g in self.graphs if g.values == addresses]
        fitting = [g for g in reversed(self.graphs) if g.takes(arrays, stay)]
        graph = self._ready(fitting, arrays)
        for other in fitting if graph is None else ():
            self._copies_in = self._copies_in or not other.reads(arrays)
            self._copies_out = self._copies_out or other.is_lent
            if other.is_lent or not other.reads(arrays):
                self.graphs.remove(other)
        return graph

    def _ready(self, graphs: Sequence[CapturedCall], arrays: Sequence[Any]) -> CapturedCall | None:
        """Of graphs for a call's places and shapes, one that can be launched for what it brings."""
        for graph in graphs:
            if not graph.is_lent and graph.reads(arrays) and graph.follows(arrays):
                if graph is not self.graphs[-1]:
                    self.graphs.remove(graph)
                    self.graphs.append(graph)
                return graph
        return None

    def sizes(self, arrays: Sequence[Given], values: Sequence[DeviceArray]) -> dict[str, int]:
        sizes = dict(self.signature.bind([a.shape for a in arrays], [v.shape for v in values]))
        for size in self.program.host_sizes:
            sizes[size.name] = size.of(arrays)
            if sizes[size.name] < 0:
                op, wrong, bound = size.failed(sizes[size.name], arrays, sizes)
                raise self.failures[op](wrong, bound, 0, 0)
        return sizes

    def outputs(self, sizes: Mapping[str, int]) -> dict[int, DeviceArray]:
        """Memory for those whose sizes are known before the call, by their numbers."""
        return {n: DeviceArray(self.device, *t) for n, t in self.output_types(sizes).items()}

    def output_types(self, sizes: Mapping[str, int]) -> dict[int, tuple[tuple[int, ...], np.dtype[Any]]]:
        """Their shapes and dtypes."""
        return {
            number: (tuple(evaluate(s, sizes) for s in spec.shape), memory_dtype(spec.dtype))
            for number, spec in enumerate(self.signature.outputs)
            if not spec.late
        }

    def bound(
        self,
        inputs: Sequence[DeviceArray],
        values: Sequence[DeviceArray],
        outputs: Mapping[int, DeviceArray],
    ) -> dict[int, int]:
        """The addresses of the program's buffers that are there before it runs."""
        spaces: dict[str, Any] = {
            "input": inputs,
            "shared": values,
            "output": outputs,
            "constant": self._constants,
        }
        return {
            number: spaces[buffer.space][buffer.number].address
            for number, buffer in enumerate(self.program.buffers)
            if buffer.space in spaces
        }


class DeviceFunction:
    """Called with arrays of the host or of the device in the order of `parameters`, or by their names.

    Results are arrays of the host, but for those whose numbers are in `stay`.  `specialise(function, arrays)` makes a variant, as
    for functions of the CPU.  DeviceError says what is wrong with the device.
    """

    def __init__(
        self,
        name: str,
        parameters: Sequence[Parameter],
        specialise: Callable[[Any, Sequence[Any]], Any],
        device: Device,
        returns: str,
        stay: frozenset[int] = frozenset(),
    ) -> None:
        self.name, self.parameters, self.returns = name, tuple(parameters), returns
        self.device, self.stay = device, stay
        self.variants: list[DeviceVariant] = []
        self._specialise = specialise
        self._exact = [
            (p, None if p.dtype == "object" else memory_dtype(p.dtype), p.rank) for p in self.parameters
        ]
        # numbers of those that a Python number may be given for, such as a minibatch's, and their dtypes
        self._counts = [(n, exact[1]) for n, exact in enumerate(self._exact) if _counts(exact[1], exact[2])]
        self._compiling = threading.RLock()

    @property
    def variant(self) -> DeviceVariant | None:
        return self.variants[-1] if self.variants else None

    def free(self) -> None:
        """Gives the working memory back; the next call takes it anew."""
        for variant in self.variants:
            variant.graphs.clear()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.variants and not kwargs:
            results = self.variants[-1].again(self._counted(args), self.stay)
            if results is not None:
                return results[0] if self.returns == "array" else results
        try:
            return self._call_slowly(args, kwargs)
        except Exception as e:
            shorten(e)
            raise

    def _counted(self, args: Sequence[Any]) -> Sequence[Any]:
        """With Python's integers as the arrays that the slow way would make of them."""
        made = args
        for n, dtype in self._counts:
            if n < len(args) and type(args[n]) is int and abs(args[n]) < MOST_COUNT:
                made = list(args) if made is args else made
                made[n] = np.array(args[n], dtype)  # type: ignore[index]
        return made

    def _call_slowly(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        given = ordered(self.name, self.parameters, args, kwargs)
        foreign, arrays = False, list[Given]()
        for value, exact in zip(given, self._exact, strict=True):
            if type(value) is np.ndarray and (value.dtype, value.ndim) == exact[1:] and value.flags.carray:
                arrays.append(value)
                continue
            arrays.append(self._taken(exact[0], value))
            foreign = True
        results = self._fitting(arrays).run(arrays, self.stay)
        if foreign and any(isinstance(a, DeviceArray) and a.is_borrowed for a in arrays):
            self.device.synchronise()  # its owner may let go of it now
        return results[0] if self.returns == "array" else results

    def _taken(self, parameter: Parameter, value: Any) -> Given:
        if is_foreign(value):
            found = DeviceArray.from_other(self.device, value)
            fits = found.dtype == memory_dtype(parameter.dtype) and not found.bfloat
            if fits and found.ndim == parameter.rank:
                return found
            value = found.numbers()
        value = converted(self.name, parameter, value)
        return in_order(value) if isinstance(value, np.ndarray) else value

    def _fitting(self, arrays: Sequence[Given]) -> DeviceVariant:
        with self._compiling:
            variant = self.variant
            if variant is None or variant.mismatch(arrays):
                for parameter, array in zip(self.parameters, arrays):  # what is wrong is said in their terms
                    self._taken(parameter, array)
                variant = self._specialise(self, arrays)
                problem = variant.mismatch(arrays)
                if problem:
                    raise problem
                self.variants.append(variant)
            return variant


def _counts(dtype: Any, rank: int) -> bool:
    return rank == 0 and dtype is not None and dtype.kind == "i" and dtype.itemsize >= 4


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Ctrl-C comes when the block is over, so that updates are made together or not at all."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[Any] = []
    before = signal.signal(signal.SIGINT, lambda *args: came.append(args))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came and callable(before):
        before(*came[0])
