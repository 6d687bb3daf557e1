"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` when the block ends, and vanishes when an exception ends it.

    What is there and no file, such as /dev/null or a pipe, is written to.  OSError names `path`, whatever name the file has
    meanwhile.
    """
    if path.exists() and not path.is_file():
        with path.open("wb") as stream:
            yield stream
        return
    part = path.with_name(f".{path.name[:200]}.{os.getpid()}-{os.urandom(4).hex()}.part")
    try:
        with part.open("xb") as file:
            yield file
        part.replace(path)
    except OSError as e:
        if e.filename == str(part):
            e.filename, e.filename2 = str(path), None
        raise
    finally:
        part.unlink(missing_ok=True)
