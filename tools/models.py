"""The commands about models in files: run, bench, inspect, verify, targets."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tcc.tools.command import Command
from tcc.tools.report import Failure, reading

if TYPE_CHECKING:
    from tcc.loading import Model

MISMATCH = 3

entry_option = click.option(
    "--entry", default="", metavar="NAME", help="Which entry; needed where there are several."
)
size_option = click.option(
    "--size", "sizes", multiple=True, metavar="NAME=N", help="The number behind a size; repeatable."
)
interpret_option = click.option(
    "--interpret", is_flag=True, help="Interpret the IR with NumPy; nothing is compiled."
)
trust_option = click.option(
    "--trust-native",
    is_flag=True,
    help="Run the file's own library, a program that may do anything: for files you trust.",
)
pin_option = click.option(
    "--pin", metavar="SHA256", help="As --trust-native, if the file has this hash (see tcc inspect)."
)
device_option = click.option(
    "--device",
    default="",
    metavar="NAME",
    help="cuda0, ..., or emulator, on which it runs instead of the CPU.",
)
threads_option = click.option("--threads", type=click.IntRange(1, 256), help="Threads that a call may use.")


@click.command(
    "run",
    cls=Command,
    short_help="Runs a model on arrays in files.",
    examples=[
        "tcc run mlp.tcb --entry predict x.npy",
        "tcc run mlp.tcb --entry step x=x.npy y=y.npy -o out.npz --save-state trained.safetensors",
        "tcc run mlp.tcb inputs.npz -o y.npy --entry predict --trust-native",
    ],
)
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("inputs", nargs=-1, metavar="[NAME=]INPUT...")
@entry_option
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="A .npz or .safetensors file for all results, a .npy for one.",
)
@click.option("--state", type=click.Path(path_type=Path), help="State to begin with, .safetensors or .npz.")
@click.option(
    "--save-state", type=click.Path(path_type=Path), help="Where the state goes when the run is over."
)
@interpret_option
@trust_option
@pin_option
@threads_option
def run(
    file: Path,
    inputs: tuple[str, ...],
    entry: str,
    output: Path | None,
    state: Path | None,
    save_state: Path | None,
    interpret: bool,
    trust_native: bool,
    pin: str | None,
    threads: int | None,
) -> None:
    """Runs the model of the bundle FILE once.

    Each INPUT is a .npy file, for the argument NAME or the next one, or a .npz or .safetensors file that holds arguments
    by name.  Without -o the results are printed.
    """
    from tcc.tools import running

    running.require_suffixes(output, save_state)
    model = opened(file, interpret, threads, pin or trust_native)
    function = chosen(model, entry)
    arguments = running.arguments(function, inputs)
    if state is not None:
        with reading(state):
            model.state.load(state)
    results = running.called(model, function, arguments)
    if output is None:
        click.echo(running.shown(results), nl=False)
    else:
        dtypes = {r.name: r.dtype for r in model.manifest.entry(function.name).results}
        running.write(output, results, dtypes)
    if save_state is not None:
        running.save_state(save_state, model)


@click.command(
    "inspect",
    cls=Command,
    short_help="Tells what a model's file or a file of weights holds.",
    examples=["tcc inspect mlp.tcb", "tcc inspect mlp.tcb --json", "tcc inspect inputs.npz"],
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="The manifest itself.")
def inspect(file: Path, as_json: bool) -> None:
    """Checks all of a bundle, and tells its entries, sizes, state, members and hash; or the tensors of a file of weights."""
    from tcc.runtime import bundle, weights
    from tcc.tools import inspecting

    with reading(file):
        if file.suffix in weights.SUFFIXES:
            if as_json:
                raise click.UsageError("--json tells a bundle's manifest, and this is a file of weights")
            click.echo(inspecting.weights_text(weights.read(file)))
            return
        found = bundle.read(file)
    click.echo(found.manifest.to_json() if as_json else inspecting.bundle_text(found), nl=not as_json)


@click.command(
    "verify",
    cls=Command,
    short_help="Compares a model's code with the interpreter.",
    examples=["tcc verify mlp.tcb", "tcc verify mlp.tcb -n 10 --seed 7 --size x_0=33"],
)
@click.argument("file", type=click.Path(path_type=Path))
@entry_option
@click.option(
    "-n",
    "trials",
    type=click.IntRange(1, 1_000_000),
    default=3,
    show_default=True,
    help="How many random inputs.",
)
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of the random inputs."
)
@size_option
@click.option(
    "--tolerance",
    type=click.FloatRange(0),
    default=1000.0,
    show_default=True,
    help="How far an element may be off, in the precision of its dtype times the largest element; with float16 or bfloat16 "
    "in the function in that one's precision, and at most 32.",
)
@trust_option
@pin_option
@threads_option
def verify(
    file: Path,
    entry: str,
    trials: int,
    seed: int,
    sizes: tuple[str, ...],
    tolerance: float,
    trust_native: bool,
    pin: str | None,
    threads: int | None,
) -> None:
    """Runs every entry of the bundle FILE on random inputs, compiled and interpreted, results and new state both.

    Exit code 3 when they differ by more than the tolerance; the message names the worst element.
    """
    from tcc.tools import verifying

    numbers = read_sizes(sizes)
    native, reference = opened(file, False, threads, pin or trust_native), opened(file, True, threads)
    for name in [chosen(native, entry).name] if entry else list(native.entries):
        e = native.manifest.entry(name)
        known_sizes(e, numbers)
        try:
            said = verifying.verified(native, reference, e, trials, seed, numbers, tolerance)
        except verifying.Mismatch as wrong:
            raise Failure(f"{file}: error: {wrong}", MISMATCH) from None
        except ValueError as wrong:
            raise Failure(f"{file}: error: @{name}: {wrong}") from None
        click.echo(said)


@click.command(
    "bench",
    cls=Command,
    short_help="Times the calls of a model.",
    examples=[
        "tcc bench mlp.tcb --entry predict --size x_0=64 --seconds 0.1",
        "tcc bench mlp.tcb --threads 1 --seconds 0.1 --json",
        "tcc bench mlp.tcb --entry predict --seconds 0.1 --device emulator",
    ],
)
@click.argument("file", type=click.Path(path_type=Path))
@entry_option
@size_option
@click.option(
    "--seconds",
    type=click.FloatRange(0.01, 600),
    default=1.0,
    show_default=True,
    help="How long to call each entry.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@interpret_option
@trust_option
@pin_option
@threads_option
@device_option
def bench(
    file: Path,
    entry: str,
    sizes: tuple[str, ...],
    seconds: float,
    as_json: bool,
    interpret: bool,
    trust_native: bool,
    pin: str | None,
    threads: int | None,
    device: str,
) -> None:
    """Times the entries of the bundle FILE on random inputs; a size that is not given is 32, within its range.

    On a device a call brings its arguments there and its results back; `tcc profile --device` times the kernels.
    """
    from tcc.tools import verifying

    if device and (interpret or trust_native or pin):
        raise click.UsageError(
            "--device compiles the model's IR, so neither --interpret nor its library go with it"
        )
    numbers = read_sizes(sizes)
    opened_device(device)
    model = opened(file, interpret, threads, pin or trust_native, device)
    for name in [chosen(model, entry).name] if entry else list(model.entries):
        e = model.manifest.entry(name)
        known_sizes(e, numbers)
        try:
            found = verifying.timed(model, e, numbers, seconds)
        except ValueError as wrong:
            raise Failure(f"{file}: error: @{name}: {wrong}") from None
        click.echo(found.json() if as_json else found.text())


@click.command(
    "targets",
    cls=Command,
    short_help="Lists the machines that code can be made for.",
    examples=["tcc targets"],
)
def targets() -> None:
    """Lists triples with their CPUs and vectors, and which linkers, emulators and assemblers are found here."""
    from tcc.tools.inspecting import targets_text

    click.echo(targets_text())


COMMANDS = (run, bench, inspect, verify, targets)


# -- what they share ---------------------------------------------------------------------------------------------


def opened_device(name: str) -> Any:
    """The device, or None for the CPU; Failure says why it cannot be used."""
    from tcc.devices import DeviceError, chosen
    from tcc.settings import device_name

    if not name:
        return None
    try:
        return chosen(device_name(name))
    except DeviceError as e:
        raise Failure(f"tcc: error: {e}") from None
    except ValueError as e:
        raise click.BadParameter(str(e), param_hint="--device") from None


def opened(
    file: Path, interpret: bool, threads: int | None, trust: bool | str = False, device: str = "cpu"
) -> Model:
    """The model of a bundle; Failure for one that cannot be read, or whose library does not run here."""
    from tcc.loading import load
    from tcc.runtime.library import ModelError

    if threads is not None:
        os.environ["TCC_THREADS"] = str(threads)
    with reading(file):
        try:
            return load(file, interpret, trust, threads or 0, device or None)
        except ModelError as e:
            raise Failure(f"{file}: error: {e}") from None


def chosen(model: Model, name: str) -> Any:
    """The entry of that name, or the only one."""
    if not name and len(model.entries) == 1:
        (name,) = model.entries
    if name in model.entries:
        return model.entries[name]
    names = ", ".join(model.entries)
    near = difflib.get_close_matches(name, model.entries, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    said = f"no entry {name} ({hint}there are {names})" if name else f"there are several entries: {names}"
    raise click.BadParameter(said, param_hint="--entry")


def read_sizes(texts: tuple[str, ...]) -> dict[str, int]:
    found = {}
    for text in texts:
        name, _, number = text.partition("=")
        if not name or not (number.isascii() and number.isdigit() and len(number) < 19):
            raise click.BadParameter(f"{text!r} is not like n=600", param_hint="--size")
        found[name] = int(number)
    return found


def known_sizes(entry: Any, numbers: Mapping[str, int]) -> None:
    wrong = sorted(numbers.keys() - entry.sizes.keys())
    if wrong:
        names = ", ".join(entry.sizes) or "none"
        raise click.BadParameter(
            f"@{entry.name} has no size {wrong[0]} (it has {names})", param_hint="--size"
        )
