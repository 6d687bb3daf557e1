"""Shared variables in the panels that products read: copies that are kept from call to call, as long as the value stays.

A container has a version, which goes up with everything that may change its contents; panels are those of one version.  Native
entries hand them to the code while their version is the container's, and nothing otherwise: the code then reads the variable
itself.  So a value that changes from call to call costs no copies, and one that stayed for PATIENCE calls is copied once.
Whose buffer somebody else may write, since it is lent or borrowed, has no panels.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
from typing import Any, NamedTuple

import numpy as np

from tcc.runtime import layout as at
from tcc.runtime.arenas import require_memory
from tcc.runtime.buffers import Container, aligned_empty

Array = np.ndarray[Any, Any]
PATIENCE = 2  # calls that find a value as the one before did, until it is copied


class Layout(NamedTuple):
    """A parameter `name` that is panels of a shared variable: its elements (i, j) of [k, n] stand at offset + i * rows + j * columns."""

    name: str
    source: str
    offset: int
    k: int
    n: int
    rows: int
    columns: int

    def panels(self, tensor: Array, width: int, into: Array | None = None) -> Array:
        """Of the whole variable, `width` columns each, with zeros behind the last one."""
        flat = np.ascontiguousarray(tensor).reshape(-1)
        count, rest = divmod(self.n, width)
        made = np.empty((count + (rest > 0), self.k, width), flat.dtype) if into is None else into
        row, column = self.rows * flat.itemsize, self.columns * flat.itemsize

        def seen(first: int, panels: int, columns: int) -> Array:
            start = flat[self.offset + first * width * self.columns :]
            steps = (width * column, row, column)
            return np.lib.stride_tricks.as_strided(start, (panels, self.k, columns), steps, writeable=False)

        made[:count] = seen(0, count, width)
        if rest:
            made[count, :, :rest] = seen(count, 1, rest)[0]
            made[count, :, rest:] = 0
        return made


class KeptSpec(NamedTuple):
    """Panels, `width` columns each, that a function reads while they are there, of its container number `source`."""

    source: int
    layout: Layout
    width: int


def kept(container: Container, layout: Layout, width: int) -> Panels:
    """The panels of a container, one for all functions that read it so.  They live as long as one of these holds them."""
    made = Panels(container, layout, width)
    return container.panels.setdefault((*layout[2:], width), made)


class Panels:
    """Panels of one container."""

    def __init__(self, container: Container, layout: Layout, width: int) -> None:
        self._container, self._layout, self._width = container, layout, width
        self._words = (ctypes.c_int64 * at.PANELS_SLOTS)()
        self._array: Array | None = None
        self.forget()

    @property
    def record(self) -> int:
        """The native record's address."""
        return ctypes.addressof(self._words)

    @property
    def bytes(self) -> int:
        """Held now."""
        return 0 if self._array is None else self._array.nbytes

    def forget(self) -> None:
        """They are stale; a call that reads them goes on."""
        self._words[at.PANELS_VERSION] = self._words[at.PANELS_SEEN] = -1

    def make(self) -> bool:
        """Whether they were stale, and no longer are.  Not of a buffer that is lent, nor where there is no memory for them."""
        container = self._container
        self._words[at.PANELS_CALLS] = -1
        with container.held(write=False):
            value = container.own
            if value is None or self._words[at.PANELS_VERSION] == container.version:
                return False
            with contextlib.suppress(MemoryError):
                self._fill(value)
                self._words[at.PANELS_VERSION] = container.version
                return True
        return False

    def _fill(self, value: Array) -> None:
        # nobody reads the old ones: whoever did held the container, whose version could not change
        if self._array is None:
            shape = -(-self._layout.n // self._width), self._layout.k, self._width
            bytes = math.prod(shape) * value.itemsize
            if bytes >= at.UNCHECKED_BYTES:
                require_memory(bytes, 0, "a copy", f" of {self._layout.source}")
            self._array = aligned_empty(shape, value.dtype)
            self._words[at.PANELS_DATA] = self._array.ctypes.data
        self._layout.panels(value, self._width, self._array)

    def free(self) -> None:
        """Gives the memory back unless a call may be reading it; later calls make them anew."""
        self.forget()
        if not self._container.busy(write=True):
            self._array = None
