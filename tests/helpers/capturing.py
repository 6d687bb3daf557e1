"""The emulator as a device that captures graphs, as a GPU does, with pinned memory that is junk until the host has waited."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from tcc.codegen.gpu.emulator import Emulator
from tcc.devices import _Turns
from tcc.runtime.device_program import Array, DeviceKernel

Work = Callable[[], None]


class Capturing(_Turns, Emulator):
    """Copies to pinned memory land when the host waits, so that what does not wait finds junk."""

    def __init__(self) -> None:
        super().__init__()
        self.graph: list[Work] | None = None
        self.landing: list[Work] = []
        self.pinned: dict[int, Array] = {}
        self.captures = self.replays = self.waits = self.patches = 0
        self.patched = False
        self.nodes: dict[int, list[list[Any]]] = {}  # by graph

    def _give(self, work: Work) -> None:
        if self.graph is None:
            work()
        else:
            self.graph.append(work)

    @contextmanager
    def captured(self, patched: bool = False) -> Iterator[list[Work]]:
        self.patched = patched
        self.captures += 1
        self.graph = made = []
        self.nodes.pop(id(made), None)
        try:
            yield made
        finally:
            self.graph = None

    def replay(self, graph: list[Work]) -> None:
        self.replays += 1
        for work in graph:
            work()

    def prepare(self, kernel: DeviceKernel) -> None: ...

    def pin(self, bytes: int) -> Array:
        made = np.full(bytes, 0xCD, np.uint8)
        self.pinned[int(made.ctypes.data)] = made
        return made

    def unpin(self, address: int) -> None:
        del self.pinned[address]

    def send(self, address: int, pinned: Array) -> None:
        self._give(lambda: super(Capturing, self).to_device(address, pinned))

    def fetch(self, pinned: Array, address: int) -> None:
        def take() -> None:
            found = ctypes.string_at(address, pinned.nbytes)
            pinned[...] = 0xCD
            self.landing.append(lambda: pinned.__setitem__(..., np.frombuffer(found, np.uint8)))

        self._give(take)

    def synchronise(self) -> None:
        self.waits += 1
        for land in self.landing:
            land()
        self.landing.clear()

    def wait(self) -> None:
        self.synchronise()

    def to_host(self, target: Array, address: int) -> None:
        self.synchronise()
        super().to_host(target, address)

    def copy(self, target: int, source: int, bytes: int) -> None:
        self._give(lambda: super(Capturing, self).copy(target, source, bytes))

    def launch(self, kernel: DeviceKernel, grid: tuple[int, int, int], arguments: Sequence[int]) -> None:
        given = [kernel, grid, list(arguments)]
        if self.graph is not None and self.patched:
            self.nodes.setdefault(id(self.graph), []).append(given)
        self._give(lambda: super(Capturing, self).launch(*given))

    def launches(self, graph: list[Work]) -> int:
        return len(self.nodes.get(id(graph), []))

    def patch(self, graph: list[Work], number: int, *given: Any) -> None:
        self.patches += 1
        self.nodes[id(graph)][number][:] = given

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("made for one test")
