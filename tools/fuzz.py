"""Random programs through the interpreter and the whole native pipeline: `python -m tcc.tools.fuzz --seeds 1000`.

A program that the two do not agree on is made smaller and printed with the command that runs it again.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import click

from tcc.codegen import support
from tcc.ir.core import Func
from tcc.ir.text import parse, print_func
from tcc.tools.compare import arguments, disagreement
from tcc.tools.graphs import graph
from tcc.tools.programs import program
from tcc.tools.reduce import reduced

Case = tuple[Func, dict[str, int], int]  # a program, its sizes, the seed of its arguments
HEADER = re.compile(r"^// sizes:(.*?); arguments: (\d+)", re.M)


def problem(func: Func, sizes: Mapping[str, int], seed: int) -> str:
    """What is wrong with native code for this program on the arguments of `seed`, or nothing; found in a child process,
    which the code may take down."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            text = disagreement(func, arguments(func, sizes, seed))
        except BaseException as e:
            text = f"{type(e).__name__}: {e}"
        os.write(writing, text.encode()[: 1 << 15])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        found = pipe.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    return f"killed by {signal.Signals(os.WTERMSIG(status)).name}" if os.WIFSIGNALED(status) else found


def as_text(func: Func, sizes: Mapping[str, int], seed: int) -> str:
    """The program as a file that `read` reads."""
    given = ", ".join(f"{n} = {v}" for n, v in sizes.items())
    return f"// sizes: {given}; arguments: {seed}\n{print_func(func)}\n"


def read(path: Path) -> Case:
    """A program with its sizes and the seed of its arguments, from the header line `// sizes: n = 3; arguments: 7`."""
    text = path.read_text()
    header = HEADER.search(text)
    if header is None:
        raise ValueError(f"{path}: no line like `// sizes: n = 3; arguments: 7`")
    sizes = {n.strip(): int(v) for n, v in (item.split("=") for item in header[1].split(",") if item.strip())}
    (func,) = parse(text, str(path)).values()
    return func, sizes, int(header[2])


@click.command()
@click.option("--seeds", default=100, show_default=True, help="How many programs.")
@click.option("--start", default=0, show_default=True, help="The first seed.")
@click.option("--keep", type=click.Path(path_type=Path), default=None, help="Where failing programs go.")
@click.option(
    "--reduce/--no-reduce", "shrink", default=True, help="Whether failing programs are made smaller."
)
@click.option(
    "--graphs", is_flag=True, help="Graphs of the frontend, with their gradients, not programs of the IR."
)
@click.argument("files", nargs=-1, type=click.Path(path_type=Path, exists=True))
def main(
    seeds: int, start: int, keep: Path | None, shrink: bool, graphs: bool, files: tuple[Path, ...]
) -> None:
    """Runs random programs, or the FILES that an earlier run kept, by the interpreter and natively."""
    support.load()
    with tempfile.TemporaryDirectory() as folder:  # keeps the engines of products for all children
        os.environ["TCC_CACHE_DIR"] = folder
        sys.exit(run(seeds, start, keep or Path(tempfile.gettempdir()), shrink, graphs, files) > 0)


def run(seeds: int, start: int, keep: Path, shrink: bool, graphs: bool, files: Sequence[Path]) -> int:
    """How many programs failed."""
    failed = 0
    begin = time.perf_counter()
    draw = graph if graphs else program

    def drawn(seed: int) -> Case:
        return *draw(seed), seed

    cases: list[tuple[str, Callable[[], Case]]] = [(str(p), partial(read, p)) for p in files] or [
        (f"seed {s}", partial(drawn, s)) for s in range(start, start + seeds)
    ]
    for name, make in cases:
        try:
            func, sizes, seed = make()
        except Exception as e:  # the frontend refuses what it should take
            click.echo(f"{name} cannot be drawn: {type(e).__name__}: {e}\n")
            failed += 1
            continue
        found = problem(func, sizes, seed)
        if not found:
            continue
        failed += 1
        if shrink:
            kind = found.partition(":")[0]  # what goes on failing must fail in the same way
            func, sizes = reduced(func, sizes, lambda f, s: problem(f, s, seed).partition(":")[0] == kind)
            found = problem(func, sizes, seed) or found
        keep.mkdir(parents=True, exist_ok=True)
        path = keep / f"{func.name}.tcir"
        path.write_text(as_text(func, sizes, seed))
        click.echo(
            f"{name}: {found}\n{as_text(func, sizes, seed)}rerun with: python -m tcc.tools.fuzz {path}\n"
        )
    seconds = time.perf_counter() - begin
    click.echo(f"{len(files) or seeds} programs, {failed} failed, {seconds:.1f} s")
    return failed


if __name__ == "__main__":
    main()
