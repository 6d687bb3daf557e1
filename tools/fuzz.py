"""Random programs through the interpreter and the whole native pipeline: `python -m tcc.tools.fuzz --seeds 1000`.

A program that the two do not agree on is made smaller and printed with the command that runs it again.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import click

from tcc.ir.core import Func
from tcc.ir.text import parse, print_func
from tcc.tools.compare import arguments, disagreement
from tcc.tools.programs import program
from tcc.tools.reduce import reduced

HEADER = re.compile(r"^// sizes:(.*?); arguments: (\d+)", re.M)


def problem(func: Func, sizes: Mapping[str, int], seed: int) -> str:
    """What is wrong with native code for this program on the arguments of `seed`, or nothing."""
    return disagreement(func, arguments(func, sizes, seed))


def as_text(func: Func, sizes: Mapping[str, int], seed: int) -> str:
    """The program as a file that `read` reads."""
    given = ", ".join(f"{n} = {v}" for n, v in sizes.items())
    return f"// sizes: {given}; arguments: {seed}\n{print_func(func)}\n"


def read(path: Path) -> tuple[Func, dict[str, int], int]:
    """A program with its sizes and the seed of its arguments, from the header line `// sizes: n = 3; arguments: 7`."""
    text = path.read_text()
    header = HEADER.search(text)
    if header is None:
        raise ValueError(f"{path}: no line like `// sizes: n = 3; arguments: 7`")
    sizes = {n.strip(): int(v) for n, v in (item.split("=") for item in header[1].split(",") if item.strip())}
    (func,) = parse(text, str(path)).values()
    return func, sizes, int(header[2])


def smaller(func: Func, sizes: Mapping[str, int], seed: int) -> tuple[Func, dict[str, int]]:
    def fails(f: Func, s: Mapping[str, int]) -> bool:
        try:
            return bool(problem(f, s, seed))
        except Exception:
            return False

    return reduced(func, sizes, fails)


@click.command()
@click.option("--seeds", default=100, show_default=True, help="How many programs.")
@click.option("--start", default=0, show_default=True, help="The first seed.")
@click.option("--keep", type=click.Path(path_type=Path), default=None, help="Where failing programs go.")
@click.option(
    "--reduce/--no-reduce", "shrink", default=True, help="Whether failing programs are made smaller."
)
@click.argument("files", nargs=-1, type=click.Path(path_type=Path, exists=True))
def main(seeds: int, start: int, keep: Path | None, shrink: bool, files: tuple[Path, ...]) -> None:
    """Runs random programs, or the FILES that an earlier run kept, by the interpreter and natively."""
    os.environ.setdefault("TCC_CACHE", "0")
    failed = 0
    begin = time.perf_counter()
    cases = [(str(p), *read(p)) for p in files] or (
        (f"seed {s}", *program(s), s) for s in range(start, start + seeds)
    )
    for name, func, sizes, seed in cases:
        found = problem(func, sizes, seed)
        if not found:
            continue
        failed += 1
        if shrink:
            func, sizes = smaller(func, sizes, seed)
            found = problem(func, sizes, seed) or found
        folder = keep or Path(tempfile.gettempdir())
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{func.name}.tcir"
        path.write_text(as_text(func, sizes, seed))
        click.echo(
            f"{name}: {found}\n{as_text(func, sizes, seed)}rerun with: python -m tcc.tools.fuzz {path}\n"
        )
    seconds = time.perf_counter() - begin
    click.echo(f"{len(files) or seeds} programs, {failed} failed, {seconds:.1f} s")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
