"""Theano's locks of folders between processes, which programs take for files of their own."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_held: list[Any] = []  # the file that is locked, or None for a lock within a lock


def get_lock(
    lock_dir: str | None = None, timeout: float | None = None, max_wait: float | None = None, **_: Any
) -> None:
    """Waits for the lock of a folder, which is made; inside another lock that one holds for both.  TimeoutError after `timeout`
    seconds, if these are given."""
    import fcntl

    if _held:
        _held.append(None)
        return
    folder = Path(lock_dir or Path(tempfile.gettempdir(), "theano_lock"))
    folder.mkdir(parents=True, exist_ok=True)
    file = open(folder / "lock", "a")  # noqa: SIM115
    end = None if timeout is None else time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if end is None else fcntl.LOCK_NB))
            break
        except BlockingIOError:
            if end is not None and time.monotonic() > end:
                file.close()
                raise TimeoutError(f"the lock of {folder} was held for {timeout} s") from None
            time.sleep(0.01)
    _held.append(file)


def release_lock() -> None:
    """Gives the lock that was taken last back."""
    file = _held.pop() if _held else None
    if file is not None:
        file.close()


@contextlib.contextmanager
def lock_ctx(lock_dir: str | None = None, keep_lock: bool = False, **options: Any) -> Iterator[None]:
    """The lock of a folder for a block."""
    get_lock(lock_dir, **options)
    try:
        yield
    finally:
        if not keep_lock:
            release_lock()


__all__ = ["get_lock", "lock_ctx", "release_lock"]
