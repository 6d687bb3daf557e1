"""`model.py:f`: the compiled functions that a Python file, a module or a `.tcir` file holds."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from tcc.driver import Program
from tcc.tools.report import Failure, read_module


def load_programs(target: str, pattern: str = "") -> dict[str, Program]:
    """The functions that `target` names, those whose names `pattern` finds, by name; Failure if there are none.

    `model.py:f` and `package.module:f` name a compiled function or a zero-argument builder of one, of several in a list, or
    of several in a dict.  Without `:f`, every compiled function of the module counts.  The functions of a `.tcir` file are
    read, and nothing is run.
    """
    try:
        wanted = re.compile(pattern)
    except re.error as e:
        raise click.BadParameter(f"{pattern!r} is not a regular expression: {e}", param_hint="--fn") from None
    found = read_programs(target) if target.endswith(".tcir") or target == "-" else import_programs(target)
    chosen = {name: p for name, p in found.items() if wanted.search(name)}
    if not chosen:
        names = ", ".join(found) or f"no compiled function; name one, or what builds one: {target}:NAME"
        raise Failure(
            f"{target}: error: nothing to show{f' for --fn {pattern}' if pattern else ''} (there is {names})"
        )
    return chosen


def read_programs(path: str) -> dict[str, Program]:
    return {name: Program(func, {}) for name, func in read_module(path).items()}


def import_programs(target: str) -> dict[str, Program]:
    return {name: f.program for name, f in import_functions(target).items()}


def import_functions(target: str) -> dict[str, Any]:
    """The compiled functions behind `model.py:f` or `model.py`, as the user's program has them."""
    place, _, attribute = target.partition(":")
    with running(target):
        module = import_module(place)
    if not attribute:
        return {name: v for name, v in vars(module).items() if program_of(v) is not None}
    return named_functions(target, attribute, attribute_of(module, place, attribute))


def attribute_of(module: ModuleType, place: str, name: str) -> Any:
    """A module's function, or what a builder of that name makes."""
    try:
        value = getattr(module, name)
    except AttributeError:
        names = [
            k for k, v in vars(module).items() if not k.startswith("_") and not isinstance(v, ModuleType)
        ]
        near = difflib.get_close_matches(name, names, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise Failure(f"{place}: error: no attribute {name}{hint}") from None
    if (
        name == "main" and program_of(value) is None
    ):  # by convention it trains, or asks for arguments, and returns nothing
        raise Failure(
            f"{place}:main: error: main runs a whole program; name a compiled function, or a function that builds one"
        )
    if program_of(value) is None and callable(value):
        builder: Callable[[], Any] = value
        with running(f"{place}:{name}"):
            value = builder()
    return value


def named_functions(target: str, name: str, value: Any) -> dict[str, Any]:
    if program_of(value) is not None:
        return {name: value}
    if isinstance(value, Mapping):
        items = {str(k): v for k, v in value.items()}
    elif isinstance(value, list | tuple) and value:
        items = {f"{name}_{i}": v for i, v in enumerate(value)}
    else:
        raise Failure(
            f"{target}: error: not a compiled function but {type(value).__name__} (make one with tcc.function)"
        )
    return {k: f for key, v in items.items() for k, f in named_functions(target, key, v).items()}


def program_of(value: Any) -> Program | None:
    """The program behind a function that `tcc.function` made."""
    found = getattr(value, "program", None)
    return found if isinstance(found, Program) else None


def import_module(place: str) -> ModuleType:
    """A file, run under its own name with its folder first on the path; or a module by its name."""
    path = Path(place)
    if not place.endswith(".py"):
        if not all(part.isidentifier() for part in place.split(".")):
            raise Failure(
                f"{place}: error: neither a Python file nor the name of a module (model.py:f names a function)"
            )
        sys.path.insert(0, "")
        try:
            return importlib.import_module(place)
        except ModuleNotFoundError as e:
            if e.name is None or not f"{place}.".startswith(f"{e.name}."):
                raise
            raise Failure(
                f"{place}: error: no module of this name, and no file (model.py:f names one)"
            ) from None
    if not path.is_file():
        raise Failure(f"{place}: error: no such file")
    sys.path.insert(0, str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def running(target: str) -> Iterator[None]:
    """Runs the user's code: what it prints goes to stderr, and what it raises is an error in the input, with its line."""
    with contextlib.redirect_stdout(sys.stderr):
        try:
            yield
        except Failure:
            raise
        except SystemExit as e:
            raise Failure(f"{target}: error: it ended the program with exit status {e.code}") from None
        except Exception as e:
            raise Failure(user_error(target, e)) from None


def user_error(target: str, e: Exception) -> str:
    """The exception at the innermost line of the user's file."""
    name = str(Path(target.partition(":")[0]).resolve())
    lines = [f for f in traceback.extract_tb(e.__traceback__) if str(Path(f.filename).resolve()) == name]
    where = f"{target.partition(':')[0]}:{lines[-1].lineno}" if lines else target
    if isinstance(e, SyntaxError) and e.lineno:
        where = f"{e.filename}:{e.lineno}:{e.offset or 1}"
    source = f"\n{lines[-1].line}" if lines and lines[-1].line else ""
    notes = "".join(f"\nnote: {n}" for n in getattr(e, "__notes__", ()))
    message = e.msg if isinstance(e, SyntaxError) else e
    return f"{where}: error: {type(e).__name__}: {message}{source}{notes}"
