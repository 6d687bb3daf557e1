"""Tracebacks of calls: the user's frames, from the call to the line of a user-written op that failed.

What is between them is tcc's, and says nothing about the program; the message names the operation and its line.
"""

from __future__ import annotations

import types
from collections.abc import Iterator

from tcc.ir.knobs import TRACEBACK

LIBRARIES = ("numpy", "scipy")


def shorten(error: BaseException) -> None:
    """Takes the frames of tcc, and of the libraries that tcc called, out of the traceback of `error` and of those of the errors
    that it came from; none if TCC_TRACEBACK says so."""
    left: BaseException | None = error if TRACEBACK.get() == "short" else None
    seen: set[int] = set()
    while left is not None and id(left) not in seen:
        seen.add(id(left))
        left.__traceback__ = _users(left.__traceback__)
        left = left.__cause__ or left.__context__


def _users(traceback: types.TracebackType | None) -> types.TracebackType | None:
    kept: types.TracebackType | None = None
    for tb in reversed(list(_outside(traceback))):
        kept = types.TracebackType(kept, tb.tb_frame, tb.tb_lasti, tb.tb_lineno)
    return kept


def _outside(tb: types.TracebackType | None) -> Iterator[types.TracebackType]:
    """The entries of user code, and of libraries that it called itself."""
    inside = False
    while tb is not None:
        package = tb.tb_frame.f_globals.get("__name__", "").partition(".")[0]
        inside = package == "tcc" or (inside and package in LIBRARIES)
        if not inside:
            yield tb
        tb = tb.tb_next
