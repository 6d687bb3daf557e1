"""Random programs through the interpreter and the whole native pipeline: `python -m tcc.tools.fuzz --seeds 1000`.

A program that the two do not agree on is made smaller and printed with the command that runs it again.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click

from tcc.codegen import support
from tcc.ir.core import Func
from tcc.ir.text import parse, print_func
from tcc.tools.compare import arguments, disagreement
from tcc.tools.graphs import contents as contents_of
from tcc.tools.graphs import grown, lowered
from tcc.tools.programs import program
from tcc.tools.reduce import reduced

Case = tuple[Func, dict[str, int], int]  # a program, its sizes, the seed of its arguments
Maker = Callable[[], tuple[Case, set[str]]]  # a program, and what it contains
BATCH = 200  # programs of one process
HEADER = re.compile(r"^// sizes:(.*?); arguments: (\d+)", re.M)


@dataclass
class Outcome:
    """What came of a program."""

    found: str  # what is wrong, or nothing
    contents: frozenset[str] = frozenset()


def outcomes(makers: Sequence[Maker]) -> Iterator[Outcome]:
    """What comes of each, in order.  A child process works through many, which share what tcc keeps from one compile to the
    next; where native code takes it down, another goes on behind that program."""
    done = 0
    while done < len(makers):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            with os.fdopen(writing, "wb") as pipe:
                for make in makers[done : done + BATCH]:
                    pickle.dump(outcome(make), pipe)
                    pipe.flush()
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe, contextlib.suppress(EOFError):
            while True:
                yield pickle.load(pipe)
                done += 1
        _, status = os.waitpid(child, 0)
        if status:
            how = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"status {status}"
            yield Outcome(f"killed by {how}")
            done += 1


def outcome(make: Maker) -> Outcome:
    try:
        (func, sizes, seed), contents = make()
    except Exception as e:  # the frontend refuses what it should take
        return Outcome(f"cannot be drawn: {type(e).__name__}: {e}")
    try:
        found = disagreement(func, arguments(func, sizes, seed))
    except BaseException as e:
        found = f"{type(e).__name__}: {e}"
    return Outcome(found, frozenset(contents))


def problem(func: Func, sizes: Mapping[str, int], seed: int) -> str:
    """What is wrong with native code for this program on the arguments of `seed`, or nothing; found in a child process,
    which the code may take down."""
    (only,) = outcomes([lambda: ((func, dict(sizes), seed), set())])
    return only.found


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
    parent = os.getpid()
    # a run that is ended from outside removes its folder, which no child of it does
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143) if os.getpid() == parent else os._exit(143))
    with tempfile.TemporaryDirectory(
        prefix="tcc-fuzz-"
    ) as folder:  # keeps the engines of products for all children
        os.environ["TCC_CACHE_DIR"] = folder
        sys.exit(run(seeds, start, keep or Path(tempfile.gettempdir()), shrink, graphs, files) > 0)


def run(seeds: int, start: int, keep: Path, shrink: bool, graphs: bool, files: Sequence[Path]) -> int:
    """How many programs failed."""
    begin = time.perf_counter()
    draw = drawn_graph if graphs else drawn_program
    makers: dict[str, Maker] = {str(p): partial(kept, p) for p in files} or {
        f"seed {s}": partial(draw, s) for s in range(start, start + seeds)
    }
    failed = 0
    contents: Counter[str] = Counter()
    for result, (name, make) in zip(outcomes(list(makers.values())), makers.items()):
        contents.update(result.contents)
        if result.found:
            failed += 1
            tell(name, make, result.found, keep, shrink)
    seconds = time.perf_counter() - begin
    click.echo("".join(f"{count} with {family}, " for family, count in sorted(contents.items())), nl=False)
    click.echo(f"{len(makers)} programs, {failed} failed, {seconds:.1f} s")
    return failed


def drawn_graph(seed: int) -> tuple[Case, set[str]]:
    d = grown(seed)
    func, sizes = lowered(d, f"graph{seed}")
    return (func, sizes, seed), contents_of(d, func)


def drawn_program(seed: int) -> tuple[Case, set[str]]:
    return (*program(seed), seed), set()


def kept(path: Path) -> tuple[Case, set[str]]:
    return read(path), set()


def tell(name: str, make: Maker, found: str, keep: Path, shrink: bool) -> None:
    """Prints what is wrong with a program and keeps it, made smaller if that is wanted."""
    try:
        func, sizes, seed = make()[0]
    except Exception:
        click.echo(f"{name} {found}\n")
        return
    if shrink:
        kind = found.partition(":")[0]  # what goes on failing must fail in the same way
        func, sizes = reduced(func, sizes, lambda f, s: problem(f, s, seed).partition(":")[0] == kind)
        found = problem(func, sizes, seed) or found
    keep.mkdir(parents=True, exist_ok=True)
    path = keep / f"{func.name}.tcir"
    path.write_text(as_text(func, sizes, seed))
    click.echo(f"{name}: {found}\n{as_text(func, sizes, seed)}rerun with: python -m tcc.tools.fuzz {path}\n")


if __name__ == "__main__":
    main()
