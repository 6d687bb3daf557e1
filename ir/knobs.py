"""Every setting that the environment gives: its type, default and meaning, in one table.

A setting is read when it is used, as `knobs.THREADS.get()`.  One that changes the code which is made is marked so, and
then part of the cache's keys.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class KnobError(ValueError):
    """A setting's text that is not a value of its type."""


@dataclass(frozen=True)
class Knob(Generic[T]):
    """One environment variable.  `read` turns its text into the value, and raises ValueError if it cannot."""

    name: str
    default: T
    read: Callable[[str], T]
    wanted: str  # completes "TCC_X must be ..."
    doc: str
    changes_code: bool = False

    def get(self) -> T:
        """The value now; KnobError for nonsense.  An empty variable counts as one that is not set."""
        text = os.environ.get(self.name, "").strip()
        if not text:
            return self.default
        try:
            return self.read(text)
        except ValueError:
            raise KnobError(f"{self.name} must be {self.wanted}, got {text!r}") from None


TABLE: dict[str, Knob[Any]] = {}


def knob(
    name: str, default: T, read: Callable[[str], T], wanted: str, doc: str, *, changes_code: bool = False
) -> Knob[T]:
    """Puts a setting into the table."""
    made = Knob(name, default, read, wanted, doc, changes_code)
    TABLE[name] = made
    return made


def code_key() -> str:
    """What the settings contribute to the key of cached code; empty when all are at their defaults."""
    changed = ((k.name, k.get()) for k in TABLE.values() if k.changes_code and k.get() != k.default)
    return ";".join(f"{name}={sorted(v) if isinstance(v, frozenset) else v}" for name, v in changed)


# -- readers -----------------------------------------------------------------------------------------------------


def whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 20 and low <= int(text) <= high):
            raise ValueError
        return int(text)

    return read


def one_of(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError
        return text

    return read


def switch(text: str) -> bool:
    return one_of("0", "1")(text) == "1"


def names(text: str) -> frozenset[str]:
    found = [word.strip() for word in text.split(",")]
    if not all(word.isidentifier() for word in found):
        raise ValueError
    return frozenset(found)


def assignments(text: str) -> dict[str, str]:
    pairs = [item.partition("=") for item in text.split(",") if item.strip()]
    if not all(equals and key.strip() for key, equals, _ in pairs):
        raise ValueError
    return {key.strip(): value.strip() for key, _, value in pairs}


def folder(text: str) -> Path:
    return Path(text).expanduser()


# -- the settings ------------------------------------------------------------------------------------------------

MAX_THREADS = 256
STAGES = ("values", "fused", "placed", "plan", "llvm", "asm")

THREADS = knob(
    "TCC_THREADS",
    None,
    whole(1, MAX_THREADS),
    f"a number from 1 to {MAX_THREADS}",
    "threads that a call may use; without it, as many as there are CPUs to use",
)
CACHE = knob("TCC_CACHE", True, switch, "0 or 1", "whether compiled code is kept on disk")
CACHE_DIR = knob(
    "TCC_CACHE_DIR",
    None,
    folder,
    "a folder",
    "where it is kept; without it, tcc in XDG_CACHE_HOME or ~/.cache",
)
CACHE_MB = knob(
    "TCC_CACHE_MB",
    512,
    whole(1, 1 << 20),
    "a number of megabytes from 1 to 1048576",
    "how much is kept; the oldest goes first",
)
FLAGS: Knob[dict[str, str]] = knob(
    "TCC_FLAGS",
    {},
    assignments,
    "like floatX=float32,device=cpu",
    "values of tcc.config, over those of ~/.tccrc",
)
DUMP: Knob[frozenset[str]] = knob(
    "TCC_DUMP",
    frozenset(),
    names,
    "passes and stages like fuse,placed, or all",
    f"what every compilation writes to TCC_DUMP_DIR: passes, stages ({', '.join(STAGES)}), or all",
)
DUMP_DIR = knob("TCC_DUMP_DIR", Path("tcc-dump"), folder, "a folder", "where dumps go")
TRACEBACK = knob(
    "TCC_TRACEBACK",
    "short",
    one_of("short", "whole"),
    "short or whole",
    "short: an error of a call shows the user's own frames; whole: tcc's too",
)
VERIFY = knob(
    "TCC_VERIFY",
    1,
    whole(0, 2),
    "0, 1 or 2",
    "0: trust the passes, 1: verify before and after them, 2: after each",
)
SKIP: Knob[frozenset[str]] = knob(
    "TCC_SKIP", frozenset(), names, "passes like fuse,cse", "optional passes to leave out", changes_code=True
)
KEEP = knob(
    "TCC_KEEP",
    True,
    switch,
    "0 or 1",
    "whether functions keep shared variables that they do not update in the panels that products read",
    changes_code=True,
)
TUNE = knob(
    "TCC_TUNE",
    False,
    switch,
    "0 or 1",
    "whether plans of matrix products of known sizes are measured when a function is compiled, and kept in the cache",
    changes_code=True,
)
TARGET = knob(
    "TCC_TARGET",
    "host",
    one_of("host", "plain", "x86-64-v2", "x86-64-v3", "x86-64-v4"),
    "host, plain or a level like x86-64-v3",
    "host: this machine's own instructions; x86-64-v3, v2, v4: those of x86's levels; plain: vectors as any target has them",
    changes_code=True,
)
VECTOR_BITS = knob(
    "TCC_VECTOR_BITS",
    256,
    lambda text: int(one_of("128", "256", "512")(text)),
    "128, 256 or 512",
    "the width of the plain form's vectors",
    changes_code=True,
)
