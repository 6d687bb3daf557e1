"""`tcc compile`: from a function to files that need nothing."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tcc.ir.files import replacing
from tcc.tools.command import Command
from tcc.tools.report import Failure, read_module, say, write_text, writing

if TYPE_CHECKING:
    from tcc.codegen.target import Target
    from tcc.exporting import Model
    from tcc.runtime.manifest import Range
    from tcc.tools.emitting import Emitter, Made

KINDS = ("bundle", "shared", "static", "obj", "exe", "header", "python", "llvm-ir", "asm", "ptx", "tcir")
EMBED_LIMIT = 16 << 20  # bytes of weights that a library holds by default
MISMATCH = 3
GPU_ARCH = "sm_80"  # newer ones run its code too
TOLERANCE = 1e4  # of --verify, in the dtype's precision


@click.command(
    "compile",
    cls=Command,
    short_help="Turns a function into a library for C, or a bundle.",
    examples=[
        "tcc compile model.py:predict -o build/",
        "tcc compile model.py:predict --emit shared,header,python --shape x=n,5 -o build/",
        "tcc compile model.py --entry predict=predict --entry step=step --name mlp --emit static,header -o build/",
        "tcc compile graph.tcir --emit obj -o graph.o",
        "tcc compile model.py:predict --target cuda --gpu-arch sm_90 --emit shared,header,ptx -o build/",
    ],
)
@click.argument("target")
@click.option(
    "-o", "--output", help="A folder; a file, by its suffix; - for text on stdout.  [default: ./NAME/]"
)
@click.option(
    "--emit", "kinds", default="", help=f"Kinds of files, with commas: {', '.join(KINDS)}.  [default: bundle]"
)
@click.option("--name", default="", help="The prefix of C's names.  [default: the function's]")
@click.option(
    "--entry",
    "entries",
    multiple=True,
    metavar="NAME=FN",
    help="An entry and its function; repeatable, they share state.",
)
@click.option("--target", "device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--mtriple", default="", help="LLVM's triple of another machine.  [default: this machine]")
@click.option(
    "--mcpu", default="", help="LLVM's name of a CPU, or x86-64-v2, -v3, -v4.  [default: this machine's]"
)
@click.option("--mattr", default="", help="LLVM's features, like +neon.")
@click.option("--gpu-arch", default="", help="Like sm_90, for --target cuda.  [default: sm_80, and newer]")
@click.option(
    "--shape",
    "shapes",
    multiple=True,
    metavar="ARG=SIZES",
    help="Like x=n,784 or x=1..1024,784: numbers, names, ranges; n=1..64 bounds a name.",
)
@click.option(
    "--weights",
    type=click.Choice(["embed", "separate"]),
    help="In the library, or in NAME.safetensors.  [default: embed up to 16 MB]",
)
@click.option(
    "--checks",
    type=click.Choice(["full", "none"]),
    default="full",
    show_default=True,
    help="Whether arguments are checked at run time.",
)
@click.option(
    "--verify",
    "trials",
    type=click.IntRange(0, 10_000),
    default=1,
    show_default=True,
    help="How many random inputs are compared with the interpreter.",
)
@click.option(
    "--threads",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="The most that a call may use.",
)
@click.option("--json", "as_json", is_flag=True, help="Tell what was made as JSON on stdout.")
@click.option(
    "--depfile", type=click.Path(path_type=Path), help="Write what the files hang on, for make and ninja."
)
@click.option("--force", is_flag=True, help="Replace files that are there.")
def compile_command(
    target: str, output: str | None, kinds: str, name: str, entries: tuple[str, ...], device: str, mtriple: str, mcpu: str,
    mattr: str, gpu_arch: str, shapes: tuple[str, ...], weights: str | None, checks: str, trials: int, threads: int,
    as_json: bool, depfile: Path | None, force: bool,
) -> None:  # fmt: skip
    """Compiles the function TARGET (model.py:f, package.module:f or FILE.tcir) to files that need neither tcc nor Python.

    A library has a C header, takes DLPack's tensors of any sizes that its shapes allow, checks them, and keeps its state in a
    context of the caller's.  Equal input gives equal bytes.
    """
    from tcc.tools.building import LinkError, NoLinker
    from tcc.tools.emitting import Emitter

    chosen = kinds_of(kinds, output)
    gpu = gpu_of(device, gpu_arch, chosen)
    text = bool({"bundle", "tcir"} & set(chosen))
    model = loaded(target, name, entries, shapes, bool(gpu) and not text)
    machine = machine_of(mtriple, mcpu, mattr)
    bytes = sum(t.array.nbytes for t in model.state.values())
    embed = weights == "embed" or (weights is None and bytes < EMBED_LIMIT)
    emitter = Emitter(model, machine, threads, embed, checks == "full", gpu)
    try:
        place = Place.of(output, chosen, model.name)
        files = place.named(emitter, chosen)
    except (NoLinker, LinkError) as e:
        raise Failure(f"tcc compile: error: {e}") from None
    except TypeError as e:
        raise Failure(f"{target}: error: {e}") from None
    if trials:
        verify(emitter, trials)
    if place.stdout:
        to_stdout(files[0])
        return
    paths = place.write(files, force)
    if depfile is not None:
        write_depfile(depfile, paths, target)
    if as_json:
        click.echo(emitter.described(files).to_json(), nl=False)
    else:
        for path in paths:
            say(f"wrote {path}")


def kinds_of(text: str, output: str | None) -> tuple[str, ...]:
    """Those asked for; else the one that the file's suffix names, else a bundle."""
    from tcc.tools.emitting import SUFFIXES

    if text:
        kinds = tuple(dict.fromkeys(k for k in text.split(",") if k))
        for kind in kinds:
            if kind not in KINDS:
                raise click.BadParameter(
                    f"no kind {kind!r} (there are {', '.join(KINDS)})", param_hint="--emit"
                )
        return kinds or ("bundle",)
    suffix = Path(output or "").suffix.replace(".wasm", ".so")
    return tuple(k for k, s in SUFFIXES.items() if s and s == suffix) or ("bundle",)


# -- what is compiled --------------------------------------------------------------------------------------------


def loaded(
    target: str, name: str, entries: tuple[str, ...], shapes: tuple[str, ...], kernels: bool = False
) -> Model:
    """The model, with `kernels` also with GPU kernels in Python; Failure or UsageError says what is wrong with it."""
    from tcc.ahead import ShapeError, with_shapes
    from tcc.exporting import exported, from_module
    from tcc.ir.knobs import KnobError
    from tcc.runtime.manifest import ManifestError, is_symbol

    place, _, attribute = target.partition(":")
    stem = name or symbol(attribute or Path(place).stem)
    if not is_symbol(stem):
        raise click.BadParameter(f"{stem!r} is no name of letters, digits and _", param_hint="--name")
    try:
        if target.endswith(".tcir") or target == "-":
            if entries:
                raise click.UsageError("--entry names functions of a program, and a .tcir file has its own")
            model = from_module(read_module(target), name or ("model" if target == "-" else stem))
        else:
            model = exported(functions_of(target, place, attribute, entries), stem, kernels)
        named, given = read_shapes(shapes, {a.name for e in model.entries for a in e.arguments})
        return with_shapes(model, given, named)
    except ShapeError as e:
        raise Failure(f"{target}: error: --shape: {e}") from None
    except (TypeError, ManifestError) as e:
        raise Failure(f"{target}: error: {e}") from None
    except KnobError:
        raise
    except ValueError as e:
        raise Failure(f"{target}: error: {e}") from None


def functions_of(target: str, place: str, attribute: str, entries: tuple[str, ...]) -> dict[str, Any]:
    from tcc.tools.load import attribute_of, import_functions, import_module, named_functions, running

    if not entries:
        found = import_functions(target)
        if not found:
            raise Failure(
                f"{target}: error: no compiled function; name one, or what builds one: {target}:NAME"
            )
        return {symbol(n): f for n, f in found.items()}
    if attribute:
        raise click.UsageError(f"--entry names the functions of {place}; leave out :{attribute}")
    with running(target):
        module = import_module(place)
    made: dict[str, Any] = {}
    for text in entries:
        name, equals, function = text.partition("=")
        if not equals or not name or not function:
            raise click.BadParameter(f"{text!r} is not like predict=f", param_hint="--entry")
        if name in made:
            raise click.BadParameter(f"the entry {name} is given twice", param_hint="--entry")
        found = named_functions(f"{place}:{function}", function, attribute_of(module, place, function))
        if len(found) != 1:
            raise Failure(f"{place}:{function}: error: {len(found)} functions, and an entry is one")
        made[name] = next(iter(found.values()))
    return made


def symbol(text: str) -> str:
    made = "".join(c if c.isascii() and c.isalnum() else "_" for c in text)
    return made if made and not made[0].isdigit() else f"m{made}"


def read_shapes(
    texts: tuple[str, ...], arguments: set[str]
) -> tuple[dict[str, Range], dict[str, tuple[int | str | Range, ...]]]:
    """Ranges of size names, and the sizes of arguments."""
    named: dict[str, Range] = {}
    given: dict[str, tuple[int | str | Range, ...]] = {}
    for text in texts:
        name, equals, sizes = text.partition("=")
        if not equals:
            raise click.BadParameter(f"{text!r} is not like x=n,784", param_hint="--shape")
        read = tuple(read_size(s, text) for s in sizes.split(",")) if sizes else ()
        if name not in arguments and len(read) == 1 and not isinstance(read[0], int | str):
            named[name] = read[0]
        elif name in given:
            raise click.BadParameter(f"{name} is given twice", param_hint="--shape")
        else:
            given[name] = read
    return named, given


def read_size(text: str, whole: str) -> int | str | Range:
    from tcc.runtime.manifest import Range, is_symbol

    least, dots, most = text.partition("..")
    if dots and least.isdecimal() and (most.isdecimal() or not most):
        if most and int(most) < int(least):
            raise click.BadParameter(f"the range {text} is empty", param_hint="--shape")
        return Range(int(least), int(most) if most else None)
    if text.isdecimal():
        return int(text)
    if is_symbol(text):
        return text
    raise click.BadParameter(
        f"{text!r} in {whole} is no number, no name and no range like 1..64", param_hint="--shape"
    )


def gpu_of(device: str, arch: str, kinds: tuple[str, ...]) -> str:
    """The architecture that code for a GPU is made for; empty for the CPU."""
    from tcc.devices import check_arch

    if device != "cuda":
        for given, option in ((arch, "--gpu-arch"), ("ptx" in kinds, "--emit ptx")):
            if given:
                raise click.UsageError(f"{option} goes with --target cuda")
        return ""
    try:
        check_arch(arch or GPU_ARCH)
    except ValueError as e:
        raise click.BadParameter(str(e), param_hint="--gpu-arch") from None
    return arch or GPU_ARCH


def machine_of(triple: str, cpu: str, features: str) -> Target:
    from tcc.codegen import target as targets

    if not triple and not cpu and not features:
        return targets.chosen()
    try:
        return targets.cross(triple or targets.host().triple, cpu, features)
    except targets.TargetError as e:
        raise Failure(f"tcc compile: error: {e}") from None


# -- where it goes -----------------------------------------------------------------------------------------------


class Place:
    """Where the files go: a folder, one file by its name, or stdout."""

    def __init__(self, folder: Path, file: str = "", stdout: bool = False) -> None:
        self.folder, self.file, self.stdout = folder, file, stdout

    @classmethod
    def of(cls, output: str | None, kinds: tuple[str, ...], name: str) -> Place:
        from tcc.tools.emitting import SUFFIXES

        if output is None:
            return cls(Path(name))
        if output == "-":
            if len(kinds) != 1:
                raise click.UsageError("-o - writes one kind of file; name it with --emit")
            return cls(Path(), stdout=True)
        path = Path(output)
        if output.endswith("/") or path.is_dir() or not path.suffix and kinds != ("exe",):
            return cls(path)
        if len(kinds) != 1:
            raise click.UsageError(
                f"{output} is one file, and --emit asks for {', '.join(kinds)}; give a folder"
            )
        if SUFFIXES[kinds[0]] != path.suffix and (kinds[0], path.suffix) != ("shared", ".wasm"):
            raise click.UsageError(
                f"{output}: a file of kind {kinds[0]} ends with {SUFFIXES[kinds[0]] or 'no suffix'}"
            )
        return cls(path.parent, path.name)

    def named(self, emitter: Emitter, kinds: tuple[str, ...]) -> list[Made]:
        """The files; of a single one, only what it cannot do without."""
        from dataclasses import replace

        made = emitter.files(kinds)
        if not self.file and not self.stdout:
            return made
        kept = [f for f in made[1:] if f.role == "weights"] if self.file else []
        return [replace(made[0], name=self.file or made[0].name), *kept]

    def write(self, files: list[Made], force: bool) -> list[Path]:
        paths = [self.folder / f.name for f in files]
        there = [p for p in paths if p.exists()]
        if there and not force:
            raise Failure(f"{there[0]}: error: it is there already; --force replaces it")
        for path, made in zip(paths, files):
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                with replacing(path) as file:
                    file.write(made.data)
                    if made.program:
                        os.fchmod(file.fileno(), 0o755)
        return paths


def to_stdout(made: Made) -> None:
    from tcc.tools.emitting import TEXT

    text = made.role in TEXT
    if not text and sys.stdout.isatty():
        raise Failure(f"tcc compile: error: {made.name} is no text for a terminal; send it to a file")
    sys.stdout.flush()
    sys.stdout.buffer.write(made.data)


def write_depfile(path: Path, outputs: list[Path], target: str) -> None:
    """As gcc -MD writes it: what was made, and the files of the user's program that were read."""
    own = Path(__file__).resolve().parent.parent
    files = {Path(target.partition(":")[0])} if target.partition(":")[0].endswith((".py", ".tcir")) else set()
    prefixes = (Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve(), own)
    for module in list(sys.modules.values()):
        name = getattr(module, "__file__", None)
        if name and not any(Path(name).resolve().is_relative_to(p) for p in prefixes):
            files.add(Path(os.path.relpath(name)))

    def word(p: Path) -> str:
        return str(p).replace(" ", "\\ ").replace("$", "$$").replace("#", "\\#")

    write_text(path, f"{' '.join(map(word, outputs))}: {' '.join(sorted(map(word, files)))}\n")


# -- verifying ---------------------------------------------------------------------------------------------------


def verify(emitter: Emitter, trials: int) -> None:
    """Compares the library with the interpreter; Failure with exit code 3 names the worst element."""
    from tcc.tools.checking import Unable, compare
    from tcc.tools.verifying import Mismatch

    try:
        compare(emitter, trials, TOLERANCE)
    except Unable as e:
        say(f"note: not verified: {e}")
    except Mismatch as e:
        raise Failure(f"{emitter.name}: error: verify: {e}", MISMATCH) from None
