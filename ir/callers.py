"""Frames of the program that calls tcc."""

from __future__ import annotations

import sys
import warnings
from types import FrameType


def users_frame(frame: FrameType | None) -> tuple[FrameType | None, int]:
    """The innermost frame that is not tcc's own, from this one on, and how many are inside of it."""
    inside = 0
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if not module.startswith("tcc.") and module != "tcc":
            break
        frame, inside = frame.f_back, inside + 1
    return frame, inside


def is_users() -> bool:
    """Whether the user's program has called, and not a thread of tcc's."""
    frame, _ = users_frame(sys._getframe(1))
    return frame is not None and frame.f_globals.get("__name__") != "threading"


def warn(message: str, kind: type[Warning] = UserWarning) -> None:
    """A warning at the line of the innermost frame that is not tcc's own."""
    _, inside = users_frame(sys._getframe(1))
    warnings.warn(message, kind, stacklevel=2 + inside)
