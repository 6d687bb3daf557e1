"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

PART = ".part"


@contextlib.contextmanager
def replacing(path: Path, mode: int = 0o666) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` when the block ends, and vanishes when an exception ends it.

    `mode` are its permissions, less those that the process's mask takes away; until then its name ends in PART.  What is
    there and no file, such as /dev/null or a pipe, is written to.  OSError names `path`, whatever name the file has meanwhile.
    """
    if path.exists() and not path.is_file():
        with path.open("wb") as stream:
            yield stream
        return
    part = path.with_name(f".{path.name[:200]}.{os.getpid()}-{os.urandom(4).hex()}{PART}")
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            yield file
        part.replace(path)
    except OSError as e:
        if e.filename == str(part):
            raise OSError(e.errno, e.strerror, str(path)) from None
        raise
    finally:
        with contextlib.suppress(
            OSError
        ):  # it has its name, or was never there; a read-only file system says so again
            part.unlink()
