"""Compiled objects on disk, by a key that covers everything they depend on.

No locks: an entry is written under a temporary name and renamed, carries a checksum, and a bad one is removed and counts as
absent.  Whatever the file system does (full, read-only, written by others at the same time), the program goes on without.
TCC_CACHE, TCC_CACHE_DIR and TCC_CACHE_MB say whether, where and how much.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tcc.ir import knobs
from tcc.ir.callers import is_users, warn
from tcc.ir.files import PART, replacing

FORMAT = "v1"  # the subfolder; a change of the format or of what keys cover takes the next one
MAGIC = b"tcc-object-1\n"
DIGEST_BYTES = 16
KEEP_AFTER_EVICTION = 0.8  # of the bound
FRESH_S = (
    3600.0  # an entry's time of use is not written again within this; temporary files this old are leftovers
)


def key(*parts: str | bytes) -> str:
    """A name for what is made from `parts`; no two lists of parts share one."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


class Stats(NamedTuple):
    folder: Path | None  # None: turned off
    entries: int
    bytes: int
    limit: int
    hits: int  # of this process
    misses: int


class Cache:
    """`folder` None is a cache that holds nothing."""

    def __init__(self, folder: Path | None, limit: int = knobs.CACHE_MB.default << 20) -> None:
        self.folder = None if folder is None else folder / FORMAT
        self.limit = limit
        self.hits = self.misses = 0
        self._total: int | None = None  # bytes, as far as this process knows
        self._writable = True
        self._unsaid = ""  # why it is not writable, if the user has not been told

    def get(self, key: str) -> bytes | None:
        """What was put under `key`, or None."""
        data = self._read(key)
        if data is None:
            self.misses += 1
        else:
            self.hits += 1
        return data

    def put(self, key: str, data: bytes) -> None:
        """Keeps `data`; if that fails, warns once, at the user's line, and gives up writing for this process."""
        if self.folder is not None and self._writable:
            self._put(self._path(key), data)
        if self._unsaid and is_users():
            message, self._unsaid = self._unsaid, ""
            warn(message, RuntimeWarning)

    def _put(self, path: Path, data: bytes) -> None:
        try:
            self._write(path, MAGIC + _digest(data) + data)
        except OSError as e:
            self._writable = False
            self._unsaid = f"compiled code is not kept, {self.folder}: {e.strerror or e}"
            return
        self._total = self._measure() if self._total is None else self._total + len(data)
        if self._total > self.limit:
            self._evict()

    def clear(self) -> int:
        """Removes all entries; their number."""
        count = 0
        for path, _ in self._files():
            count += _remove(path)
        self._total = None
        return count

    def verify(self) -> list[str]:
        """Reads every entry, removes the bad ones, and gives their keys."""
        bad = []
        for path, _ in self._files():
            if not _is_temporary(path) and self._read(path.name) is None:
                bad.append(path.name)
        return bad

    def stats(self) -> Stats:
        files = [info for path, info in self._files() if not _is_temporary(path)]
        size = sum(info.st_size for info in files)
        return Stats(self.folder, len(files), size, self.limit, self.hits, self.misses)

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / key[:2] / key

    def _read(self, key: str) -> bytes | None:
        if self.folder is None:
            return None
        path = self._path(key)
        try:
            with open(path, "rb") as f:
                used = os.fstat(f.fileno())
                whole = f.read()
        except OSError:
            return None
        data = whole[len(MAGIC) + DIGEST_BYTES :]
        if whole != MAGIC + _digest(data) + data:
            _remove(path)
            return None
        if time.time() - used.st_mtime > FRESH_S:
            with contextlib.suppress(OSError):  # a read-only folder
                os.utime(path)
        return data

    def _write(self, path: Path, whole: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with replacing(path, 0o600) as f:
            f.write(whole)

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        """Every file, temporary ones too, with its state; what vanishes meanwhile is left out."""
        if self.folder is None:
            return
        with contextlib.suppress(OSError):  # of a folder that this user may not look at
            for path in self.folder.glob("*/*"):
                with contextlib.suppress(OSError):
                    yield path, path.stat()

    def _measure(self) -> int:
        return sum(info.st_size for _, info in self._files())

    def _evict(self) -> None:
        """Removes what was not used for the longest time, and what killed writers left."""
        now = time.time()
        files = sorted(self._files(), key=lambda f: f[1].st_mtime)
        total = sum(info.st_size for _, info in files)
        goal = self.limit * KEEP_AFTER_EVICTION
        for path, info in files:
            leftover = _is_temporary(path) and now - info.st_mtime > FRESH_S
            if leftover or (total > goal and not _is_temporary(path)):
                _remove(path)
                total -= info.st_size
        self._total = total


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


def _is_temporary(path: Path) -> bool:
    return path.name.endswith(PART)


def _remove(path: Path) -> bool:
    try:
        path.unlink()
    except OSError:
        return False
    return True


def open_default() -> Cache:
    """The cache that the settings ask for.  A folder of another user is not used: its entries are run as code."""
    folder = _default_folder() if knobs.CACHE.get() else None
    if folder is not None and _owner(folder) not in (None, 0, os.getuid()):
        warn(f"compiled code is not kept, {folder} belongs to another user", RuntimeWarning)
        folder = None
    return Cache(folder, knobs.CACHE_MB.get() << 20)


def _owner(folder: Path) -> int | None:
    """None of a folder that is not there, or lies where this user may not look: then nothing is read or kept."""
    try:
        return folder.stat().st_uid
    except OSError:
        return None


def _default_folder() -> Path | None:
    given = knobs.CACHE_DIR.get()
    if given is not None:
        return given
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        return Path(base) / "tcc"
    try:
        return Path.home() / ".cache" / "tcc"
    except RuntimeError:  # no home directory
        return None


_default: list[Cache] = []


def default() -> Cache:
    """The process's cache, opened at the first use."""
    if not _default:
        _default.append(open_default())
    return _default[0]


def get(key: str) -> bytes | None:
    return default().get(key)


def put(key: str, data: bytes) -> None:
    default().put(key, data)
