"""`tcc run`: arrays from files into a model, and its results into files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from tcc.ir.arrays import as_numbers, in_memory
from tcc.ir.files import replacing
from tcc.ir.safetensors import Tensor, tensor
from tcc.loading import Model, described
from tcc.runtime import weights
from tcc.tools.report import Failure, reading, writing

Array = np.ndarray[Any, Any]
MOST_SHOWN = 20  # elements of a result that is printed


def arguments(function: Any, inputs: Sequence[str]) -> dict[str, Array]:
    """The arrays by the names of the function's arguments; UsageError when they are not just its arguments."""
    names = [p.name for p in function.parameters]
    found: dict[str, Array] = {}
    for text in inputs:
        for name, array in read(text, [n for n in names if n not in found]).items():
            if name not in names:
                raise click.UsageError(
                    f"{text}: {function.name} has no argument {name} (it has {', '.join(names)})"
                )
            if name in found:
                raise click.UsageError(f"{text}: the argument {name} is given twice")
            found[name] = array
    missing = [n for n in names if n not in found]
    if missing:
        raise click.UsageError(f"{function.name} needs the argument {missing[0]}: give {missing[0]}=FILE.npy")
    return found


def read(text: str, left: Sequence[str]) -> dict[str, Array]:
    """What one INPUT of the command line brings."""
    name, equals, path = text.partition("=")
    file = Path(path if equals else text)
    with reading(file):
        if file.suffix in weights.SUFFIXES and not equals:
            return {n: as_numbers(t.array, t.dtype) for n, t in weights.read(file).items()}
        if file.suffix != ".npy":
            raise click.UsageError(
                f"{text}: an input is a .npy file, NAME=FILE.npy, or a .npz or .safetensors file"
            )
        if not equals and not left:
            raise click.UsageError(f"{text}: there is no argument left for it")
        return {name if equals else left[0]: weights.read_npy(file)}


def called(model: Model, function: Any, given: Mapping[str, Array]) -> dict[str, Array]:
    """The results by name.  Failure for what the function refuses."""
    entry = model.manifest.entry(function.name)
    try:
        made = function(**given)
    except (TypeError, ValueError, IndexError, MemoryError) as e:
        raise Failure(f"tcc run: error: {described(entry)}: {e}") from None
    if isinstance(made, dict):
        return made
    listed = [made] if entry.returns == "array" else made
    return {r.name: np.asarray(a) for r, a in zip(entry.results, listed, strict=True)}


def shown(results: Mapping[str, Array]) -> str:
    lines = []
    for name, array in results.items():
        with np.printoptions(threshold=MOST_SHOWN, linewidth=100, precision=6):
            lines.append(f"{name}: {array.dtype}{list(array.shape)}\n{array}\n")
    return "".join(lines)


def require_suffixes(output: Path | None, state: Path | None) -> None:
    """BadParameter, before anything runs, for files of kinds that are not written."""
    if output is not None and output.suffix not in (".npy", *weights.SUFFIXES):
        said = f"{output}: results go to a .npz, .safetensors or .npy file"
        raise click.BadParameter(said, param_hint="-o")
    if state is not None and state.suffix not in weights.SUFFIXES:
        said = f"{state}: state goes to a .safetensors or .npz file"
        raise click.BadParameter(said, param_hint="--save-state")


def write(path: Path, results: Mapping[str, Array], dtypes: Mapping[str, str]) -> None:
    """`dtypes` are the results' own: bfloat16, which NumPy carries as float32, is itself in a .safetensors file."""
    if path.suffix == ".npy" and len(results) != 1:
        raise click.BadParameter(
            f"{path}: there are {len(results)} results, which a .npz file can hold", param_hint="-o"
        )
    with writing(path):
        if path.suffix != ".npy":
            own = dtypes if path.suffix == ".safetensors" else {}
            weights.write(path, {n: stored(a, own.get(n, "")) for n, a in results.items()})
            return
        (array,) = results.values()
        with replacing(path) as file:
            np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)


def stored(array: Array, dtype: str) -> Tensor:
    return tensor(in_memory(array, dtype), dtype) if dtype == "bf16" else tensor(np.asarray(array))


def save_state(path: Path, model: Model) -> None:
    with writing(path):
        model.state.save(path)
