"""What devices have in common: their errors, and how their memory is handed out."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable

GRAIN = 256  # bytes; what a device's own allocator aligns to
SEGMENT = 2 << 20  # bytes that small requests are cut from


class DeviceError(RuntimeError):
    """A device cannot be used; the message says why and what to do.  Functions for the CPU go on."""


class DeviceLost(DeviceError):
    """A kernel or the hardware failed such that every later call fails too: what the device held is gone."""


class DeviceMemoryError(DeviceError, MemoryError):
    """The device has not as much memory."""


class Pool:
    """Memory of one device, kept when it is freed, cut from segments by best fit; neighbours that are free are joined.

    Small blocks that are freed wait for others of their size first, and are joined when there is no room else.

    `reserve(bytes)` gives a segment's address, or raises MemoryError; `release(address)` gives it back.  Work of a device is
    taken in order, so memory that is freed may be handed out at once.  Unless it `keeps` memory, each request is a segment of its
    own, of just its size: then tools that watch a device see each access that is out of bounds.
    """

    def __init__(
        self, reserve: Callable[[int], int], release: Callable[[int], None], keeps: bool = True
    ) -> None:
        self._reserve, self._release, self._keeps = reserve, release, keeps
        self._segments: dict[int, int] = {}  # address -> bytes
        self._used: dict[int, tuple[int, int]] = {}  # address -> bytes, its segment
        self._waiting: dict[int, list[tuple[int, int]]] = {}  # bytes -> addresses, their segments
        self._free: list[tuple[int, int, int]] = []  # bytes, address, its segment; ascending
        self._starts: dict[int, tuple[int, int]] = {}  # of free blocks: address -> bytes, segment
        self._ends: dict[int, int] = {}  # of free blocks: address behind it -> address

    @property
    def used(self) -> int:
        return sum(bytes for bytes, _ in self._used.values())

    @property
    def held(self) -> int:
        """Used or kept."""
        return sum(self._segments.values())

    def preallocate(self, bytes: int) -> None:
        self._put(self._segment(-(-bytes // GRAIN) * GRAIN), bytes // GRAIN * GRAIN)

    def alloc(self, bytes: int) -> int:
        """MemoryError, from `reserve`, when all that is kept has been given back and there is still too little."""
        if not self._keeps:
            address = self._segment(max(bytes, 1))
            self._used[address] = self._segments[address], address
            return address
        bytes = max(GRAIN, -(-bytes // GRAIN) * GRAIN)
        waiting = self._waiting.get(bytes)
        if waiting:
            address, segment = waiting.pop()
            self._used[address] = bytes, segment
            return address
        index = bisect_left(self._free, (bytes, 0, 0))
        if index == len(self._free):
            self._join_waiting()
            index = bisect_left(self._free, (bytes, 0, 0))
        if index == len(self._free):
            size = max(bytes, SEGMENT)
            try:
                self._put(self._segment(size), size)
            except MemoryError:
                self.trim()
                self._put(self._segment(bytes), bytes)
            index = bisect_left(self._free, (bytes, 0, 0))
        size, address, segment = self._free[index]
        self._take(address)
        if size > bytes:
            self._put(address + bytes, size - bytes, segment)
        self._used[address] = bytes, segment
        return address

    def free(self, address: int) -> None:
        bytes, segment = self._used.pop(address)
        if not self._keeps:
            del self._segments[address]
            self._release(address)
            return
        if bytes < SEGMENT:
            self._waiting.setdefault(bytes, []).append((address, segment))
        else:
            self._join(address, bytes, segment)

    def _join_waiting(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for bytes, blocks in waiting.items():
            for address, segment in blocks:
                self._join(address, bytes, segment)

    def _join(self, address: int, bytes: int, segment: int) -> None:
        behind = self._starts.get(address + bytes)
        if behind is not None and behind[1] == segment:
            self._take(address + bytes)
            bytes += behind[0]
        before = self._ends.get(address)
        if before is not None and self._starts[before][1] == segment:
            size, _ = self._starts[before]
            self._take(before)
            address, bytes = before, bytes + size
        self._put(address, bytes, segment)

    def trim(self) -> None:
        """Gives back the segments that are free as a whole."""
        self._join_waiting()
        for address, bytes in list(self._segments.items()):
            if self._starts.get(address) == (bytes, address):
                self._take(address)
                del self._segments[address]
                self._release(address)

    def _segment(self, bytes: int) -> int:
        address = self._reserve(bytes)
        self._segments[address] = bytes
        return address

    def _put(self, address: int, bytes: int, segment: int | None = None) -> None:
        segment = address if segment is None else segment
        insort(self._free, (bytes, address, segment))
        self._starts[address] = bytes, segment
        self._ends[address + bytes] = address

    def _take(self, address: int) -> None:
        bytes, segment = self._starts.pop(address)
        del self._ends[address + bytes]
        del self._free[bisect_left(self._free, (bytes, address, segment))]
