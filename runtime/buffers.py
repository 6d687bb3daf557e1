"""Containers: what the values of shared variables are kept in, and who may use them when."""

from __future__ import annotations

import copy
import ctypes
import os
import threading
import time
import weakref
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from tcc.ir.types import FROM_NUMPY
from tcc.runtime import layout as at
from tcc.runtime.device_arrays import DeviceArray

if TYPE_CHECKING:
    from tcc.runtime.launch import Device
    from tcc.runtime.panels import Panels

WRITER_WAITS = 1 << 32  # one waiting writer, in SHARED_CLAIMS
FIRST_NAP, LONGEST_NAP = 20e-6, 1e-3  # seconds

Array = np.ndarray[Any, Any]


def aligned_empty(shape: Sequence[int], dtype: Any) -> Array:
    """A C-contiguous array at a multiple of 64 bytes, as full-width vectors like it."""
    dtype = np.dtype(dtype)
    count = int(np.prod(shape, dtype=np.int64))
    raw = np.empty(count * dtype.itemsize + at.BLOCK_HEADER, np.uint8)
    start = -raw.ctypes.data % at.BLOCK_HEADER
    out: Array = raw[start : start + count * dtype.itemsize].view(dtype).reshape(shape)
    return out


def aligned(array: Array, dtype: Any = None) -> Array:
    """A copy of `array`, in its dtype or another, at a multiple of 64 bytes."""
    out = aligned_empty(array.shape, array.dtype if dtype is None else dtype)
    out[...] = array
    return out


class _Active(threading.local):
    """The (containers, written) of the calls that this thread is inside of, while they are in a host call."""

    def __init__(self) -> None:
        self.calls: list[tuple[Sequence[Storage], Sequence[bool]]] = []


_active = _Active()


@contextmanager
def inside_call(containers: Sequence[Storage], written: Sequence[bool]) -> Iterator[None]:
    """Notes that this thread's Python code runs within a call that holds these containers."""
    _active.calls.append((containers, written))
    try:
        yield
    finally:
        _active.calls.pop()


class Storage:
    """What a shared variable's value is kept in, with the record that native code reads.  Clones may share one.

    Native entries change the record's lock with the GIL held and never between two of their own checks.  Python code
    claims the container first, which keeps new native calls out, and then waits for those inside.
    """

    def __init__(self, rank: int) -> None:
        self._words = (ctypes.c_int64 * (at.SHARED_DIMS + rank))()
        self._mutex = threading.RLock()
        self.name = ""  # for messages
        _all.add(self)

    @property
    def record(self) -> int:
        """The native record's address, the same for the container's whole life."""
        return ctypes.addressof(self._words)

    @property
    def version(self) -> int:
        """Goes up when the contents may have changed."""
        return self._words[at.SHARED_VERSION]

    def busy(self, write: bool) -> bool:
        """Whether a call that reads, or writes, has to wait now."""
        lock, claims = self._words[at.SHARED_LOCK], self._words[at.SHARED_CLAIMS]
        return lock != 0 or claims % WRITER_WAITS != 0 if write else lock < 0 or claims != 0

    @contextmanager
    def held(self, write: bool) -> Iterator[None]:
        """For Python code that reads or writes the contents; RuntimeError if the caller's own call is in the way."""
        self.hold(write)
        try:
            yield
        finally:
            self.let_go()

    def hold(self, write: bool) -> None:
        """What `held` begins with, for who calls `let_go` whatever happens."""
        self._mutex.acquire()
        self._words[at.SHARED_CLAIMS] += 1
        lock = self._words
        if not lock[at.SHARED_LOCK]:
            return
        try:
            _wait(lambda: lock[at.SHARED_LOCK] != 0 if write else lock[at.SHARED_LOCK] < 0, self, write)
        except BaseException:
            self.let_go()
            raise

    def let_go(self) -> None:
        self._words[at.SHARED_CLAIMS] -= 1
        self._mutex.release()

    @property
    def storage(self) -> tuple[Any]:
        """The value itself, as the one item of a tuple."""
        return (self.get(borrow=True),)

    @property
    def value(self) -> Any:
        """A copy of the value."""
        return self.get()

    def get(self, borrow: bool = False) -> Any:
        raise NotImplementedError

    def wait(self, write: bool) -> None:
        """Until a call may try again."""
        if not self.busy(write):
            return
        queue = WRITER_WAITS if write else 0
        with self._mutex:
            self._words[at.SHARED_CLAIMS] += queue
        try:
            _wait(lambda: self.busy(write), self, write)
        finally:
            with self._mutex:
                self._words[at.SHARED_CLAIMS] -= queue

    def _touched(self) -> None:
        self._words[at.SHARED_VERSION] += 1


_all: weakref.WeakSet[Storage] = weakref.WeakSet()


def _after_fork() -> None:
    """The threads that held containers are not in the child; only what this thread is inside of stays locked."""
    mine = {id(c) for containers, _ in _active.calls for c in containers}
    for container in list(_all):
        if id(container) not in mine:
            container._words[at.SHARED_LOCK] = 0
            container._words[at.SHARED_CLAIMS] = isinstance(container, Container) and container._away
            container._mutex = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)


def _wait(busy: Any, container: Storage, write: bool) -> None:
    nap = FIRST_NAP
    while busy():
        for containers, written in _active.calls:
            if any(c is container and (w or write) for c, w in zip(containers, written)):
                raise RuntimeError(
                    f"the shared variable {container.name or container!r} is in use by the very call that this code "
                    "runs in; it cannot be read or set before that call is over"
                )
        time.sleep(nap)
        nap = min(2 * nap, LONGEST_NAP)


class Container(Storage):
    """An array of fixed dtype and rank; its sizes and its buffer may change.

    Panels of it are kept as long as nobody else can write into the buffer (`own`): from when it is lent, or borrowed, until the
    container has another one, there are none.

    A device may have a copy.  What a device has written is newer than the buffer; then the container counts as claimed, so
    native calls turn to `wait`, which brings the value home, as everything else does that looks at the buffer.
    """

    def __init__(self, value: Array, borrow: bool = False) -> None:
        super().__init__(value.ndim)
        self._copy: DeviceArray | None = None
        self._copied = -1  # the version that the copy is of
        self._away = False  # whether the copy is newer than the buffer
        self._lent = False  # whether others may have the buffer
        self.panels: weakref.WeakValueDictionary[Hashable, Panels] = weakref.WeakValueDictionary()
        if value.dtype.name not in FROM_NUMPY or value.dtype.hasobject:
            raise TypeError(f"a container holds numbers, not {value.dtype}")
        self.dtype, self.rank = value.dtype.newbyteorder("="), value.ndim
        self._install(np.asarray(value), borrow)

    @property
    def array(self) -> Array:
        """The buffer itself, lent: what the caller writes into it, now or later, is seen."""
        with self._mutex:
            self.come_home()
            self._lent = True
            for found in self.panels.valuerefs():
                panels = found()
                if panels is not None:
                    panels.forget()
            return self._array

    def overlaps(self, array: Array) -> bool:
        """Whether an array lies in the buffer's memory, by their ends; the buffer is not lent for that."""
        return np.may_share_memory(array, self._array)

    @property
    def own(self) -> Array | None:
        """The buffer, to be read by a caller that holds the container; None if others may write into it."""
        self.come_home()
        return None if self._lent else self._array

    @property
    def shape(self) -> tuple[int, ...]:
        return self._copy.shape if self._copy is not None and self._away else tuple(self._array.shape)

    def wait(self, write: bool) -> None:
        self.come_home()
        super().wait(write)

    def on(self, device: Device) -> DeviceArray:
        """The value on a device; the caller holds the container."""
        if self._copy is None or self._copy.device is not device or self._stale:
            self.come_home()
            if self._copy is None or self._copy.device is not device or self._copy.shape != self.shape:
                self._copy = DeviceArray.of(device, self._array)
            elif self._copy.nbytes:  # where captured graphs expect it
                device.to_device(self._copy.address, self._array)
            self._copied = self.version
        return self._copy

    def grasp(self) -> threading.RLock:
        """Keeps other threads from the device's copy, until what it gives is released: less than `hold`, for who needs no more.

        Native calls do not know of the copy: they turn to `wait` while it is the newest, and may change the buffer, and with it
        the version, while it is not.
        """
        self._mutex.acquire()
        return self._mutex

    def is_at(self, address: int) -> bool:
        """Whether the newest value lies there on a device, for a caller that holds or grasps the container."""
        copy = self._copy
        return copy is not None and copy.address == address and (self._away or self._copied == self.version)

    @property
    def away(self) -> bool:
        """Whether a device has the newest value."""
        return self._away

    @property
    def _stale(self) -> bool:
        return not self._away and self._copied != self.version

    def left_on(self, value: DeviceArray) -> None:
        """A device has written the value, for a caller that holds the container for writing."""
        self._copy = value
        self._touched()
        if not self._away:
            self._away = True
            self._words[at.SHARED_CLAIMS] += 1

    def come_home(self) -> None:
        """The buffer has the newest value from now on."""
        with self._mutex:
            if self._away and self._copy is not None:
                buffer = self._array
                if buffer.shape != self._copy.shape or not buffer.flags.writeable:
                    buffer, self._lent = aligned_empty(self._copy.shape, self.dtype), False
                self._copy.get(buffer)
                self._touched()  # which the device may have written many times
                self._point_to(buffer)
                self._forget_device(keep=True)

    def _forget_device(self, keep: bool = False) -> None:
        """The buffer counts; with `keep` the copy is equal to it, else it is memory for the next one."""
        if self._away:
            self._away = False
            self._words[at.SHARED_CLAIMS] -= 1
        self._copied = self.version if keep else -1

    def get(self, borrow: bool = False) -> Array:
        """A copy, or with `borrow` the buffer itself, whose contents later calls may change."""
        if borrow:
            return self.array
        with self.held(write=False):
            self.come_home()
            return self._array.copy()

    def set(self, value: Array, borrow: bool = False) -> None:
        """Copies `value` in; with `borrow` keeps it as the buffer (if it is C-contiguous, aligned and writable).

        A buffer that others have stays as it is.
        TypeError if its dtype or rank differs.
        """
        if value.dtype != self.dtype or value.ndim != self.rank:
            raise TypeError(
                f"the container {self.name or ''} holds {self.dtype} of rank {self.rank}, "
                f"got {value.dtype} of rank {value.ndim}"
            )
        with self.held(write=True):
            self._forget_device()
            if not borrow and value.shape == self.shape and not self._lent:
                self._touched()
                np.copyto(self._array, value)
            else:
                self._install(value, borrow)

    def __reduce__(self) -> tuple[Any, ...]:
        return _container, (self.get(), self.name)

    def adopt(self, value: Array) -> None:
        """Takes `value` as the buffer, for a native call that holds the container for writing."""
        self._install(value, borrow=True)
        self._lent = False

    def _install(self, value: Array, borrow: bool) -> None:
        self._touched()
        flags = value.flags
        fit = flags.c_contiguous and flags.aligned and flags.writeable and value.dtype.isnative
        self._lent = borrow and fit
        if not self._lent:
            value = aligned(value, self.dtype)
        self._forget_device()
        self._point_to(value)

    def _point_to(self, value: Array) -> None:
        self._array = value
        self._words[at.SHARED_DATA] = value.ctypes.data
        for axis, size in enumerate(value.shape):
            self._words[at.SHARED_DIMS + axis] = size


def _container(value: Array, name: str) -> Container:
    made = Container(value)
    made.name = name
    return made


class ObjectContainer(Storage):
    """Any Python object, such as the state of a random number generator; only host calls see it."""

    def __init__(self, value: object, borrow: bool = False) -> None:
        super().__init__(0)
        self._value = value if borrow else copy.deepcopy(value)

    def get(self, borrow: bool = False) -> object:
        if borrow:
            return self._value
        with self.held(write=False):
            return copy.deepcopy(self._value)

    def set(self, value: object, borrow: bool = False) -> None:
        with self.held(write=True):
            self.adopt(value if borrow else copy.deepcopy(value))

    def __reduce__(self) -> tuple[Any, ...]:
        return ObjectContainer, (self.get(), True)

    def adopt(self, value: object) -> None:
        """For a call that holds the container for writing."""
        self._value = value
        self._touched()
