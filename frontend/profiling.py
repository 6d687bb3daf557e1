"""How often a function was called and how long that took: `function(..., profile=True)`, then `f.profile.summary()`."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

from tcc.functions import Made


class ProfileStats:
    """Counts of one function, or of several that were made with this object as their `profile`.

    `fct_callcount` calls took `fct_call_time` seconds; making the functions took `compile_time`, and compiling them for the
    sizes that calls brought, within the call time, `specialise_time`.
    """

    def __init__(self, message: str | None = None, name: str | None = None, **_: Any) -> None:
        self.message = message if message is not None else name
        self.fct_callcount = 0
        self.fct_call_time = 0.0
        self.compile_time = 0.0
        self.functions: list[Any] = []

    @property
    def specialise_time(self) -> float:
        programs = [getattr(f, "program", None) for f in self.functions]
        return float(sum(c.seconds for p in programs for c in getattr(p, "history", ())))

    def text(self) -> str:
        """The counts as a table."""
        calls, total = self.fct_callcount, self.fct_call_time
        each = f" ({total / calls:.3e}s each)" if calls else ""
        lines = ["Function profiling", "=================="]
        if self.message:
            lines.append(f"  Message: {self.message}")
        lines += [
            f"  Time in {calls} calls to Function.__call__: {total:.3e}s{each}",
            f"  Of these, compiling for sizes: {self.specialise_time:.3e}s",
            f"  Making the function: {self.compile_time:.3e}s",
            "  What each kernel takes: tcc profile program.py:function",
        ]
        return "\n".join(lines) + "\n"

    def summary(self, file: TextIO | None = None, *_: Any, **__: Any) -> None:
        """Writes `text` to a file, stderr if none is given."""
        (file or sys.stderr).write(self.text())


class ProfiledFunction(Made):
    """A function whose calls are counted and timed."""

    def __init__(self, inner: Any, profile: ProfileStats) -> None:
        self.inner, self.profile = inner, profile
        self.recipe = inner.recipe
        profile.functions.append(inner)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return self.inner(*args, **kwargs)
        finally:
            self.profile.fct_call_time += time.perf_counter() - start
            self.profile.fct_callcount += 1

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "inner" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __getitem__(self, key: Any) -> Any:
        return self.inner[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self.inner[key] = value
