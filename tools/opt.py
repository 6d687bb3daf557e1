"""`tcc opt`: functions as text in, passes over them, functions as text out."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tcc.ir.core import Func, Module
from tcc.ir.text import print_func
from tcc.ir.verify import verify
from tcc.passes import manager
from tcc.passes.manager import Context, Step
from tcc.passes.pipeline import parse_pipeline
from tcc.tools.report import BAD_FILE, INTERNAL, USAGE, Failure, read_text, say, write_text

HEADER = re.compile(r"^// passes:(.*)$", re.M)


@dataclass
class Options:
    """What is printed on the way, and where the input of a failing pass goes."""

    after: frozenset[str] = frozenset()
    after_all: bool = False
    changed: bool = False
    verify_each: bool = False
    time: bool = False
    reproducer: Path | None = None
    context: Context = field(default_factory=Context)


def steps_of(text: str) -> list[Step]:
    try:
        return parse_pipeline(text)
    except ValueError as e:
        raise Failure(f"tcc: error: {e}", USAGE) from None


def reproducer_steps(path: str) -> list[Step]:
    """The passes that the first line of a reproducer names."""
    header = HEADER.search(read_text(path))
    if header is None:
        raise Failure(f"{path}: error: no line like `// passes: canonicalize,fuse`", BAD_FILE)
    return steps_of(header[1])


def transform(module: Module, steps: Sequence[Step], options: Options) -> None:
    """Runs the passes over every function; Failure, with a reproducer written, when one of them breaks."""
    ctx = options.context
    ctx.verify = 2 if options.verify_each else 0
    for func in module.values():
        for i, step in enumerate(steps):
            before = print_func(func)
            try:
                manager.run(func, [step], ctx)
                if i == len(steps) - 1:
                    verify(func)
            except Exception as e:
                path = reproduce(func.name, before, steps[i:], options.reproducer)
                raise Failure(
                    f"tcc: error: pass {step.name} failed in @{func.name}: {type(e).__name__}: {e}\n"
                    f"note: its input is in {path}; rerun with: tcc opt --run-reproducer {path}",
                    INTERNAL,
                ) from e
            show(func, step, before, options)
    if options.time:
        say(timings(ctx))


def show(func: Func, step: Step, before: str, options: Options) -> None:
    after = print_func(func)
    if options.after_all or step.name in options.after or (options.changed and after != before):
        say(f"// @{func.name} after {step}\n{after}\n")


def reproduce(name: str, text: str, steps: Sequence[Step], path: Path | None) -> Path:
    """Writes the text before a failing pass, under the line that names the passes left."""
    if path is None:
        folder = Path(tempfile.mkdtemp(prefix="tcc-"))
        path = folder / f"{re.sub(r'[^A-Za-z0-9_]', '_', name)}.tcir"
    write_text(path, f"// passes: {','.join(map(str, steps))}\n{text}\n")
    return path


def timings(ctx: Context) -> str:
    """Milliseconds and operations left, pass by pass, and the rules that were applied."""
    total = sum(t.seconds for t in ctx.times) or 1e-9
    lines = [f"{'pass':<16}{'ms':>9}{'share':>8}{'ops':>8}"]
    for t in ctx.times:
        lines.append(f"{t.pass_name:<16}{t.seconds * 1e3:9.3f}{t.seconds / total:8.1%}{t.ops:8d}")
    lines.append(f"{'total':<16}{total * 1e3:9.3f}")
    return "\n".join(lines)
