"""The `tcc` command.  What a command needs is imported when it runs, so that `tcc --help` is quick."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

import tcc
from tcc.ir import dims
from tcc.ir.knobs import STAGES, KnobError
from tcc.ir.optable import TABLE
from tcc.ir.text import LARGEST_INLINE, large_constants, print_module, save
from tcc.runtime.bundle import BundleError
from tcc.runtime.weights import WeightsError
from tcc.tools import compiling, models
from tcc.tools.command import Group, leave
from tcc.tools.report import (
    BAD_FILE,
    INPUT_ERROR,
    INTERNAL,
    INTERRUPTED,
    OK,
    USAGE,
    Failure,
    complain,
    crash,
    read_module,
    say,
    write_text,
    writing,
)

if TYPE_CHECKING:
    from tcc.driver import Program


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and ends the process with its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    leave(run(given))


def run(arguments: list[str]) -> int:
    """The exit code of a command line: no exception leaves this."""
    if not arguments:
        complain(cli.get_help(click.Context(cli, info_name="tcc")))
        return USAGE
    try:
        cli.main(arguments, prog_name="tcc", standalone_mode=False)
    except click.exceptions.Exit as e:
        return e.exit_code
    except click.ClickException as e:
        usage = e.ctx.get_usage() + "\n" if isinstance(e, click.UsageError) and e.ctx is not None else ""
        complain(f"{usage}tcc: error: {e.format_message()}")
        return USAGE
    except (click.Abort, KeyboardInterrupt):
        complain("tcc: interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        return OK
    except Failure as e:
        complain(e.message)
        if e.code == INTERNAL and e.__cause__ is not None:
            complain(f"note: the details are in {crash(e.__cause__, arguments)}")
        return e.code
    except KnobError as e:
        complain(f"tcc: error: {e}")
        return INPUT_ERROR
    except (BundleError, WeightsError) as e:
        complain(f"tcc: error: {e}")
        return BAD_FILE
    except Exception as e:
        complain(
            f"tcc: internal error: {type(e).__name__}: {e}\nnote: the details are in {crash(e, arguments)}"
        )
        return INTERNAL
    return OK


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(tcc.__version__, prog_name="tcc")
def cli() -> None:
    """A tensor compiler: shows what becomes of a function, and runs passes on text."""


for command in (compiling.compile_command, *models.COMMANDS):
    cli.add_command(command)


# -- functions ---------------------------------------------------------------------------------------------------


@cli.command(
    short_help="Shows a function at each stage of its compilation.",
    examples=[
        "tcc dump model.py:predict --stage fused",
        "tcc dump graph.tcir --stage values --dump-dir build",
        "tcc dump model.py:predict --target cuda --gpu-arch sm_90 --stage plan",
    ],
)
@click.argument("target")
@click.option(
    "--stage", type=click.Choice([*STAGES, "ptx", "all"]), default="all", help="Which form of the function."
)
@click.option(
    "--target", "code", type=click.Choice(["cpu", "cuda"]), default="cpu", help="What the code is for."
)
@click.option("--gpu-arch", default="sm_90", metavar="ARCH", help="With --target cuda: sm_80, sm_90a, ...")
@click.option(
    "--dump-dir", type=click.Path(path_type=Path), help="Write files NAME.STAGE.* there, not to stdout."
)
@click.option(
    "--fn",
    "pattern",
    default="",
    metavar="RE",
    help="Only functions whose name this regular expression finds.",
)
@click.option(
    "--size", "sizes", multiple=True, metavar="NAME=N", help="Put a number in for a size; repeatable."
)
def dump(
    target: str,
    stage: str,
    code: str,
    gpu_arch: str,
    dump_dir: Path | None,
    pattern: str,
    sizes: tuple[str, ...],
) -> None:
    """Shows the function TARGET (model.py:f, package.module:f or FILE.tcir) at a stage of its compilation."""
    from tcc.driver import SUFFIXES
    from tcc.tools.load import load_programs

    numbers = models.read_sizes(sizes)
    if stage in WRONG_STAGES[code]:
        raise click.BadParameter(f"--target {code} has no {stage}", param_hint="--stage")
    every = tuple(s for s in (*STAGES, "ptx") if s not in WRONG_STAGES[code])
    stages = every if stage == "all" else (stage,)
    for name, program in load_programs(target, pattern).items():
        program = for_gpu(program, gpu_arch) if code == "cuda" else program
        check_sizes(name, program, numbers)
        for s in stages:
            text = program.text(s, shared_sizes(program) | numbers)
            if dump_dir is not None:
                write_text(dump_dir / f"{name}.{s}{SUFFIXES.get(s, '.tcir')}", text)
                continue
            comment = ";" if s == "llvm" else "//" if s == "ptx" else "#" if s in ("asm", "plan") else "//"
            head = f"{comment} {name}: {s}\n" if len(stages) > 1 else ""
            click.echo(head + text, nl=not text.endswith("\n"))


WRONG_STAGES = {"cpu": ("ptx",), "cuda": ("asm",)}


def for_gpu(program: Program, arch: str) -> Program:
    """What makes text of a program for a GPU architecture."""
    from tcc.devices import DeviceSource, check_arch

    try:
        check_arch(arch)
    except ValueError as e:
        raise click.BadParameter(str(e), param_hint="--gpu-arch") from None
    return DeviceSource(program.func, program.containers, program.returns, arch=arch)


def shared_sizes(program: Program) -> dict[str, int]:
    """The sizes that shared variables have now, which a call would put in."""
    params = [p for p in program.func.body.params if p.name in program.containers]
    pairs = [(s, n) for p in params for s, n in zip(p.type.shape, program.containers[p.name].shape)]
    return {s.plain: n for s, n in pairs if not isinstance(s, int) and s.plain is not None}


def check_sizes(name: str, program: Program, sizes: dict[str, int]) -> None:
    known = {n for p in program.func.body.params for s in p.type.shape for n in dims.names_of(s)}
    wrong = sorted(sizes.keys() - known)
    if wrong:
        names = ", ".join(sorted(known)) or "none"
        raise click.BadParameter(f"@{name} has no size {wrong[0]} (it has {names})", param_hint="--size")


@cli.command(
    short_help="Says why a function was compiled, and what was not fused and why.",
    examples=["tcc explain model.py:predict"],
)
@click.argument("target")
@click.option(
    "--fn",
    "pattern",
    default="",
    metavar="RE",
    help="Only functions whose name this regular expression finds.",
)
def explain(target: str, pattern: str) -> None:
    """Says why TARGET (model.py:f) was compiled, each time, and what the passes did not do and why."""
    from tcc.explaining import explanation
    from tcc.tools.load import load_programs

    for name, program in load_programs(target, pattern).items():
        click.echo(explanation(name, program))


@cli.command(
    short_help="Times each kernel of a function, beside the machine's limits.",
    examples=[
        "tcc profile model.py:predict --size x_0=32 --seconds 0.1",
        "tcc profile model.py:predict --size x_0=32 --seconds 0.1 --device emulator",
    ],
)
@click.argument("target")
@click.option(
    "--size", "sizes", multiple=True, metavar="NAME=N", help="The number behind a size; repeatable."
)
@click.option("--seconds", type=float, default=1.0, help="How long to call it.")
@models.device_option
def profile(target: str, sizes: tuple[str, ...], seconds: float, device: str) -> None:
    """Times each kernel of the function TARGET (model.py:f), called with random numbers, beside the limits of the machine or the device."""
    from tcc.tools.load import load_programs
    from tcc.tools.profile import measured, random_arguments, with_state

    if not 0 < seconds <= 600:
        raise click.BadParameter(
            f"wanted more than 0 and at most 600, got {seconds:g}", param_hint="--seconds"
        )
    for name, program in load_programs(target).items():
        numbers = shared_sizes(program) | models.read_sizes(sizes)
        check_sizes(name, program, numbers)
        try:
            program = with_state(program, numbers)
            args = random_arguments(program, numbers)
        except ValueError as e:
            raise click.BadParameter(f"@{name}: {e}", param_hint="--size") from None
        click.echo(f"@{name}\n{measured(program, args, seconds, models.opened_device(device))}")


@cli.command(
    short_help="Runs passes over functions in text form.",
    examples=[
        "tcc opt graph.tcir -p canonicalize,cse,dce",
        "tcc opt graph.tcir -p 'fuse{max_ops=8}' -o fused.tcir",
    ],
)
@click.argument("file", required=False)
@click.option(
    "-p",
    "--passes",
    "pipeline",
    default="",
    help="Like 'canonicalize,fuse{max_ops=8}'; none: check and print.",
)
@click.option("-o", "--output", default="-", help="A file, or - for stdout.")
@click.option(
    "--print-after", multiple=True, metavar="PASS", help="Print the function to stderr after this pass."
)
@click.option("--print-after-all", is_flag=True, help="Print it after every pass.")
@click.option("--print-changed", is_flag=True, help="Print it after every pass that changed it.")
@click.option("--verify-each", is_flag=True, help="Verify after every pass, not only after the last.")
@click.option("--time-passes", is_flag=True, help="Print how long each pass took to stderr.")
@click.option("--reproducer", type=click.Path(path_type=Path), help="Where the input of a failing pass goes.")
@click.option(
    "--run-reproducer", metavar="FILE", help="Run the passes that the first line of FILE names on it."
)
def opt(
    file: str | None,
    pipeline: str,
    output: str,
    print_after: tuple[str, ...],
    print_after_all: bool,
    print_changed: bool,
    verify_each: bool,
    time_passes: bool,
    reproducer: Path | None,
    run_reproducer: str | None,
) -> None:
    """Reads functions from FILE (- for stdin), runs passes over them, and prints them."""
    from tcc.passes.pipeline import PASSES
    from tcc.tools.opt import Options, reproducer_steps, steps_of, transform

    if run_reproducer is not None and (file or pipeline):
        raise click.UsageError("--run-reproducer brings its own file and passes")
    if file is None and run_reproducer is None:
        raise click.UsageError("no FILE given (- is stdin)")
    unknown = [name for name in print_after if name not in PASSES]
    if unknown:
        raise click.BadParameter(
            f"no pass named {unknown[0]} (there are {', '.join(PASSES)})", param_hint="--print-after"
        )
    path = str(run_reproducer or file)
    steps = reproducer_steps(path) if run_reproducer else steps_of(pipeline)
    module = read_module(path)
    options = Options(
        frozenset(print_after),
        print_after_all,
        print_changed,
        verify_each or bool(run_reproducer),
        time_passes,
        reproducer,
    )
    transform(module, steps, options)
    if output != "-":
        with writing(Path(output)):
            save(Path(output), module)
        return
    click.echo(print_module(module), nl=False)
    if large_constants(module):
        say(
            f"note: constants of more than {LARGEST_INLINE} elements are only named here; -o FILE writes them beside it"
        )


# -- the compiler itself -----------------------------------------------------------------------------------------


@cli.command(
    short_help="Lists the op table, or tells all about one op.", examples=["tcc ops", "tcc ops matmul"]
)
@click.argument("name", required=False)
def ops(name: str | None) -> None:
    """Lists the op table, or tells all about the op NAME."""
    from tcc.tools.describe import op_text, ops_table

    if name is None:
        click.echo(ops_table())
        return
    if name not in TABLE:
        near = difflib.get_close_matches(name, TABLE, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise click.BadParameter(f"no op named {name}{hint}", param_hint="NAME")
    click.echo(op_text(TABLE[name]))


@cli.command(short_help="Lists the passes in their order, with their options.", examples=["tcc passes"])
def passes() -> None:
    """Lists the passes in the order in which they run, with their options."""
    from tcc.tools.describe import passes_table

    click.echo(passes_table())


@cli.command(
    short_help="Tells about the compiled code kept on disk, or removes it.", examples=["tcc cache stats"]
)
@click.argument("what", type=click.Choice(["stats", "clear", "verify", "path"]), default="stats")
def cache(what: str) -> None:
    """The compiled code kept on disk: its size, its folder; removes all of it, or the entries that are spoiled."""
    from tcc.runtime.cache import open_default

    kept = open_default()
    stats = kept.stats()
    if stats.folder is None:
        click.echo("the cache is off")
    elif what == "path":
        click.echo(stats.folder)
    elif what == "clear":
        click.echo(f"removed {kept.clear()} entries from {stats.folder}")
    elif what == "verify":
        bad = kept.verify()
        click.echo(f"{stats.entries} entries in {stats.folder}, {len(bad)} were spoiled and are removed")
    else:
        size = f"{stats.bytes / 2**20:.1f} MB of at most {stats.limit >> 20} MB"
        click.echo(f"{stats.entries} entries in {stats.folder}, {size}")


@cli.command(short_help="Checks the installation and the machine.", examples=["tcc doctor"])
def doctor() -> None:
    """Checks the installation and the machine; its text belongs into a report of a problem."""
    from tcc.tools.doctor import report

    text, problems = report()
    click.echo(text)
    if problems:
        raise Failure("\n".join(f"tcc doctor: error: {p}" for p in problems))


if __name__ == "__main__":
    main()
