"""How the command line speaks: diagnostics, exit codes, and files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from tcc.ir.core import Module, Op
from tcc.ir.files import replacing
from tcc.ir.text import ParseError, parse
from tcc.ir.verify import VerifyError, verify

OK, INPUT_ERROR, USAGE, BAD_FILE, INTERNAL, INTERRUPTED = 0, 1, 2, 4, 70, 130


class Failure(Exception):
    """Ends the command with a message for the user and an exit code."""

    def __init__(self, message: str, code: int = INPUT_ERROR) -> None:
        super().__init__(message)
        self.message, self.code = message, code


def say(text: str) -> None:
    """A line on stderr, whatever it is able to show."""
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    click.echo(text.encode(encoding, "backslashreplace").decode(encoding), err=True)


def complain(text: str) -> None:
    """A diagnostic on stderr; the word `error:` is red on a terminal unless NO_COLOR is set."""
    if sys.stderr.isatty() and "NO_COLOR" not in os.environ:
        text = text.replace("error:", "\033[1;31merror:\033[0m", 1)
    say(text)


def verify_failure(
    e: VerifyError, path: str, source: str, positions: Mapping[Op, tuple[int, int]]
) -> Failure:
    """As a parse error looks, at the operation in the text that it came from."""
    if e.op is None or e.op not in positions:
        return Failure(f"{path}: error: {e}")
    line, col = positions[e.op]
    text = source.splitlines()[line - 1]
    caret = "".join("\t" if c == "\t" else " " for c in text[: col - 1]) + "^"
    note = f"\nnote: written at {e.op.loc}" if e.op.loc else ""
    return Failure(
        f"{path}:{line}:{col}: error: {e.op.name} in @{e.func.name}: {e.message}\n{text}\n{caret}{note}"
    )


def read_text(path: str) -> str:
    """A file, or standard input for `-`; Failure when it cannot be read as text."""
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as e:
        raise Failure(f"{path}: error: {e.strerror}") from None
    try:
        return data.decode()
    except UnicodeDecodeError as e:
        line = data.count(b"\n", 0, e.start) + 1
        raise Failure(f"{shown(path)}:{line}: error: not UTF-8 text") from None


def shown(path: str) -> str:
    """How messages call a file given as an argument."""
    return "<stdin>" if path == "-" else path


def read_module(path: str) -> Module:
    """The verified functions of a file; Failure at the line that is wrong."""
    source = read_text(path)
    positions: dict[Op, tuple[int, int]] = {}
    try:
        module = parse(source, shown(path), positions=positions)
        for func in module.values():
            verify(func)
    except ParseError as e:
        raise Failure(str(e)) from None
    except VerifyError as e:
        raise verify_failure(e, shown(path), source, positions) from None
    return module


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns an OSError while `path` is read into a Failure."""
    try:
        yield
    except OSError as e:
        raise Failure(f"{e.filename or path}: error: {e.strerror}") from None


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns what goes wrong while `path` is written into a Failure."""
    try:
        yield
    except OSError as e:
        raise Failure(f"{e.filename or path}: error: cannot write: {e.strerror}") from None


def write_text(path: Path, text: str) -> None:
    """Under a temporary name first, then renamed."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(text.encode())


def crash(e: BaseException, arguments: list[str]) -> Path:
    """Writes what a report of an internal error needs, and gives its path."""
    handle, name = tempfile.mkstemp(prefix="tcc-crash-", suffix=".txt")
    with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(f"tcc {' '.join(arguments)}\n\n{''.join(traceback.format_exception(e))}")
    return Path(name)
