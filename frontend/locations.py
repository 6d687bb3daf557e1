"""Where in the user's program nodes come from."""

from __future__ import annotations

import os
import sys
import threading

from tcc.ir.callers import users_frame

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
    frame, _ = users_frame(sys._getframe(1))
    return NOWHERE if frame is None else (frame.f_code.co_filename, frame.f_lineno)


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
