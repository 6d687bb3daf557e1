"""When no garbage is collected."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.RLock()  # what collects may have been called from within
_inside: list[
    bool
] = []  # one for each block that is open, in whichever thread: whether garbage was collected before the first


@contextmanager
def uncollected() -> Iterator[None]:
    """No garbage is collected before this block and all that overlap it, in whichever thread, are over."""
    with _lock:
        _inside.append(_inside[0] if _inside else gc.isenabled())
        gc.disable()
    try:
        yield
    finally:
        with _lock:
            if _inside.pop() and not _inside:
                gc.enable()
