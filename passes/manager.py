"""Runs a pipeline: verifies, times and dumps around each pass, and tells how to rerun one that failed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tcc.ir.core import Func, Op
from tcc.ir.text import print_func
from tcc.ir.verify import verify

Pass = Callable[..., None]  # (func, ctx, **options)


class Step(NamedTuple):
    """One pass with its options, as a pipeline lists it."""

    function: Pass
    options: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.function.__name__

    def __str__(self) -> str:
        if not self.options:
            return self.name
        return f"{self.name}{{{', '.join(f'{k}={v}' for k, v in self.options.items())}}}"


class Remark(NamedTuple):
    """What a pass has to say about one op: mostly why it did not act."""

    pass_name: str
    op: str
    loc: str
    text: str

    def __str__(self) -> str:
        return f"{self.pass_name}: {self.op}: {self.text}" + (f" ({self.loc})" if self.loc else "")


class Timing(NamedTuple):
    pass_name: str
    seconds: float
    ops: int  # after the pass


@dataclass
class Context:
    """What a pass may read (the target, the strength of rules), and where it reports.

    `verify`: 0 never, 1 before the first and after the last pass, 2 after every pass.  `dump` is a folder that takes
    the text after every pass, or after those named in `dump_after`.
    """

    target: str = "cpu"
    strength: str = "stable"  # exact, stable or fast: the strongest rules allowed
    verify: int = 2
    dump: Path | None = None
    dump_after: frozenset[str] = frozenset()
    skip: frozenset[str] = frozenset()  # optional passes to leave out
    remarks: list[Remark] = field(default_factory=list)
    times: list[Timing] = field(default_factory=list)
    firings: dict[str, int] = field(default_factory=dict)  # rewrite rule -> how often it was applied
    current: str = ""  # the pass that is running

    def remark(self, op: Op, text: str) -> None:
        """Reports `text` about `op`; `tcc explain` shows it."""
        self.remarks.append(Remark(self.current, op.name, op.loc, text))


def run(func: Func, pipeline: Sequence[Step], ctx: Context) -> None:
    """Applies the passes in order.  An exception carries the text before the failing pass and the command to rerun it."""
    if ctx.verify >= 1:
        verify(func)
    steps = [s for s in pipeline if s.name not in ctx.skip]
    for i, step in enumerate(steps):
        before = print_func(func) if ctx.verify >= 2 else ""
        start = time.perf_counter()
        ctx.current = step.name
        try:
            step.function(func, ctx, **step.options)
            if ctx.verify >= 2 or (ctx.verify == 1 and i == len(steps) - 1):
                verify(func)
        except Exception as e:
            e.add_note(_reproducer(func.name, steps[i:], before))
            raise
        finally:
            ctx.current = ""
        ctx.times.append(Timing(step.name, time.perf_counter() - start, func.body.count()))
        if ctx.dump is not None and (not ctx.dump_after or step.name in ctx.dump_after):
            ctx.dump.mkdir(parents=True, exist_ok=True)
            (ctx.dump / f"{i:02d}-{step.name}.tcir").write_text(print_func(func) + "\n")


def _reproducer(name: str, rest: Sequence[Step], before: str) -> str:
    command = f"tcc opt -p '{','.join(map(str, rest))}' INPUT.tcir"
    if not before:
        return f"pass {rest[0].name} failed in @{name}; TCC_VERIFY=2 keeps its input here, to rerun with: {command}"
    return f"pass {rest[0].name} failed on INPUT.tcir:\n{before}\nrerun with: {command}"
