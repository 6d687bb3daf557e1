"""Why a function was compiled, and what became of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tcc.driver import Compilation, Program
from tcc.ir import knobs
from tcc.ir.clone import clone
from tcc.passes.manager import Context


def explain(function: Any) -> str:
    """What `tcc explain` prints about a function that `tcc.function` made; TypeError for anything else."""
    program = getattr(function, "program", None)
    if not isinstance(program, Program):
        raise TypeError(f"explain takes what tcc.function returns, got {type(function).__name__}")
    return explanation(program.func.name, program)


def explanation(name: str, program: Program) -> str:
    """Each compile with its reason, what the passes did not do and why, and the rewrite rules that were applied."""
    compiled = [f"  {number}. {compile_text(c)}" for number, c in enumerate(program.history, 1)]
    tuned = knobs.TUNE.get() and program.history  # plans are measured for known sizes
    func = clone(program.func, program.history[-1].sizes if tuned else {})
    context = program.run_passes(func)
    program.measure_plans(func, context)
    parts = [f"@{name}", *(compiled or ["  not called yet, so not compiled yet"]), *remarks(context)]
    return "\n".join(parts)


def compile_text(c: Compilation) -> str:
    """`n changed: compiled in 80.0 ms; sizes put in: m = 10; left to run time: n`"""
    known = ", ".join(f"{n} = {v}" for n, v in sorted(c.sizes.items())) or "none"
    varying = f"; left to run time: {', '.join(c.varying)}" if c.varying else ""
    how = "taken from the cache" if c.cached else "compiled"
    return f"{c.reason}: {how} in {c.seconds * 1e3:.1f} ms; sizes put in: {known}{varying}"


def remarks(context: Context) -> Iterator[str]:
    yield from (f"  {r}" for r in dict.fromkeys(map(str, context.remarks)))
    for rule, count in sorted(context.firings.items(), key=lambda item: (-item[1], item[0])):
        yield f"  rule {rule}: {count} {'time' if count == 1 else 'times'}"
