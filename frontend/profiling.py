"""How often a function was called and how long that took: `function(..., profile=True)`, then `f.profile.summary()`."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

import numpy as np

from tcc import devicetimes
from tcc.callables import Specialised
from tcc.devices import DeviceSource
from tcc.driver import Program
from tcc.functions import Made
from tcc.measuring import KernelTime, described, profile
from tcc.runtime.buffers import Container
from tcc.runtime.callable import ordered

SECONDS = 0.2  # for measuring kernels
MOST = 20  # kernels that are listed


def _measured(f: Any, given: tuple[Any, Any], seconds: float) -> list[KernelTime]:
    args, named = given
    values = ordered(f.name, f.parameters, args, named)
    arrays = [np.asarray(p.convert(v)) for p, v in zip(f.parameters, values, strict=True)]
    if isinstance(f.program, DeviceSource):
        return devicetimes.profile(f.program, arrays, seconds)[0]
    copies = {n: Container(c.get()) for n, c in f.program.containers.items()}
    return profile(Program(f.program.func, copies, "list"), arrays, seconds)[0]


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
        self.last: dict[Any, tuple[Any, Any]] = {}  # the arguments of each function's last call

    @property
    def specialise_time(self) -> float:
        programs = [getattr(f, "program", None) for f in self.functions]
        return float(sum(c.seconds for p in programs for c in getattr(p, "history", ())))

    def kernels(self, seconds: float = SECONDS) -> list[KernelTime]:
        """Each kernel's time for the arguments of the last calls, the slowest first.

        The compiled functions run again and again for `seconds`, on copies of their shared variables.
        """
        found = [
            k
            for f, given in self.last.items()
            if isinstance(f, Specialised)
            for k in _measured(f, given, seconds)
        ]
        return sorted(found, key=lambda k: -k.seconds)

    def phases(self) -> list[tuple[str, float]]:
        """What was compiled so far, and for how long: each compile, and the passes of a function's last one."""
        found = []
        for f in self.functions:
            program: Any = getattr(f, "program", None)
            for c in getattr(program, "history", ()):
                found.append((f"{'from the cache' if c.cached else 'compiled'} ({c.reason})", c.seconds))
            if getattr(program, "context", None) is not None:
                found += [(f"  pass {t.pass_name}", t.seconds) for t in program.context.times]
        return found

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
        ]
        lines += [f"    {seconds:.3e}s  {what}" for what, seconds in self.phases()]
        kernels = self.kernels()
        if kernels:
            whole = sum(k.seconds for k in kernels) or 1.0
            lines += ["", "Kernels", "-------", "      %     a call    runs  kernel, and where it is written"]
            for k in kernels[:MOST]:
                where = f"  {k.op.loc}" if k.op.loc else ""
                if k.shares is not None:
                    fma, memory = k.shares
                    products = f"{100 * fma:.0f} % of the device's multiply-adds, " if fma else ""
                    where += f"  ({products}{100 * memory:.0f} % of its copies' bandwidth)"
                lines.append(
                    f"  {100 * k.seconds / whole:5.1f}  {k.seconds:.3e}s  {k.calls:g}  {described(k.op)}{where}"
                )
            if len(kernels) > MOST:
                lines.append(
                    f"  ... {len(kernels) - MOST} more; all of them: tcc profile program.py:function"
                )
        return "\n".join(lines) + "\n"

    def summary(self, file: TextIO | None = None, *_: Any, **__: Any) -> None:
        """Writes `text` to a file, stderr if none is given."""
        (file or sys.stderr).write(self.text())


class ProfiledFunction(Made):
    """A function whose calls are counted and timed."""

    def __init__(self, inner: Any, profile: ProfileStats) -> None:
        self.inner, self.profile = inner, profile
        self.recipe, self.containers = inner.recipe, inner.containers
        profile.functions.append(inner)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.profile.last[self.inner] = args, kwargs
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


def profiled(made: Any, profile: Any, name: str | None, seconds: float) -> ProfiledFunction:
    """A function that took `seconds` to make, with the counts that `profile` asks for: True or a message for counts of its own."""
    stats = (
        profile
        if isinstance(profile, ProfileStats)
        else ProfileStats(name if profile in (None, True) else profile)
    )
    stats.compile_time += seconds
    return ProfiledFunction(made, stats)
