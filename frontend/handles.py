"""Python objects inside compiled functions: a number stands for each while the function that brought it runs."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import numpy as np

_numbers = itertools.count(1)
_frames = threading.local()


class scope:
    """Objects kept inside are forgotten at its end.  Each thread, and each function that one calls, has scopes of its own."""

    def __enter__(self) -> None:
        self.outer = getattr(_frames, "objects", None)
        _frames.objects = {}

    def __exit__(self, *_: object) -> None:
        _frames.objects = self.outer


def keep(value: Any) -> np.ndarray[Any, Any]:
    """A number for an object, as an int64 scalar."""
    number = next(_numbers)
    _frames.objects[number] = value
    return np.asarray(number, np.int64)


def kept(number: Any) -> Any:
    """The object behind a number that `keep` gave in this scope."""
    return _frames.objects[int(number)]
