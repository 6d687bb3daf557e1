"""Where in the user's program nodes and warnings come from."""

from __future__ import annotations

import os
import sys
import threading
import warnings
from types import FrameType

Location = tuple[str, int]  # file and line
NOWHERE: Location = ("", 0)


class _Locations(threading.local):
    """Where this thread's nodes are said to come from while rules build them; none: from the caller outside tcc."""

    def __init__(self) -> None:
        self.inner: list[Location] = []


_override = _Locations()


def user_location() -> Location:
    """The file and line of the innermost frame that is not tcc's own."""
    if _override.inner:
        return _override.inner[-1]
    frame, _ = _users_frame(sys._getframe(1))
    return NOWHERE if frame is None else (frame.f_code.co_filename, frame.f_lineno)


def warn(message: str, kind: type[Warning] = UserWarning) -> None:
    """A warning at the line of the innermost frame that is not tcc's own."""
    _, inside = _users_frame(sys._getframe(1))
    warnings.warn(message, kind, stacklevel=2 + inside)


def _users_frame(frame: FrameType | None) -> tuple[FrameType | None, int]:
    """The innermost frame that is not tcc's own, from this one on, and how many are inside of it."""
    inside = 0
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if not module.startswith("tcc.") and module != "tcc":
            break
        frame, inside = frame.f_back, inside + 1
    return frame, inside


class located_at:
    """Nodes built inside are said to come from `loc`."""

    def __init__(self, loc: Location) -> None:
        self.loc = loc

    def __enter__(self) -> None:
        _override.inner.append(self.loc)

    def __exit__(self, *_: object) -> None:
        _override.inner.pop()


def place(loc: Location) -> str:
    """A location as messages say it: under the current folder without its name."""
    if not loc[0]:
        return ""
    path = loc[0]
    here = os.getcwd() + os.sep
    return f"{path[len(here) :] if path.startswith(here) else path}:{loc[1]}"
