"""The object cache: whatever the disk does, a key gives what was put there or nothing."""

from __future__ import annotations

import errno
import multiprocessing
import os
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest

from tcc.runtime import cache
from tcc.runtime.cache import Cache, key

KEY = key("a kernel")
DATA = bytes(range(256)) * 40


@pytest.fixture
def kept(tmp_path: Path) -> Cache:
    return Cache(tmp_path)


def entry(c: Cache, k: str = KEY) -> Path:
    assert c.folder is not None
    return c.folder / k[:2] / k


def test_what_was_put_comes_back_in_another_process_too(kept: Cache, tmp_path: Path) -> None:
    assert kept.get(KEY) is None
    kept.put(KEY, DATA)
    assert kept.get(KEY) == DATA == Cache(tmp_path).get(KEY)
    assert (kept.stats().hits, kept.stats().misses, kept.stats().entries) == (1, 1, 1)


def test_keys_cover_where_parts_end() -> None:
    assert len({key("ab", "c"), key("a", "bc"), key("abc"), key(b"abc", ""), key("", "abc")}) == 5


@pytest.mark.parametrize(
    "spoil",
    [
        lambda whole: whole[:-1],
        lambda whole: whole + b"x",
        lambda whole: b"",
        lambda whole: whole[:20],
        lambda whole: whole[:-1] + bytes([whole[-1] ^ 1]),
        lambda whole: b"tcc-object-0\n" + whole[13:],
    ],
)
def test_a_bad_entry_is_absent_and_removed(kept: Cache, spoil: Any) -> None:
    kept.put(KEY, DATA)
    entry(kept).write_bytes(spoil(entry(kept).read_bytes()))
    assert kept.get(KEY) is None
    assert not entry(kept).exists()
    kept.put(KEY, DATA)
    assert kept.get(KEY) == DATA


def test_verify_finds_the_bad_ones(kept: Cache) -> None:
    keys = [key(str(i)) for i in range(4)]
    for k in keys:
        kept.put(k, DATA)
    entry(kept, keys[2]).write_bytes(b"nothing")
    assert kept.verify() == [keys[2]]
    assert kept.stats().entries == 3 and kept.verify() == []


def test_clear(kept: Cache) -> None:
    kept.put(KEY, DATA)
    assert kept.clear() == 1
    assert kept.get(KEY) is None and kept.stats().bytes == 0


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    kept = Cache(tmp_path, limit=10 * len(DATA))
    keys = [key(str(i)) for i in range(12)]
    for age, k in enumerate(keys[:9]):
        kept.put(k, DATA)
        os.utime(entry(kept, k), (0, 1_000_000 + age))
    assert kept.get(keys[0]) == DATA  # its time of use is now
    for k in keys[9:]:
        kept.put(k, DATA)
    assert kept.stats().bytes <= kept.limit
    left = {k for k in keys if entry(kept, k).exists()}
    assert keys[0] in left and keys[11] in left and keys[1] not in left


def test_leftovers_of_killed_writers_are_swept(tmp_path: Path) -> None:
    kept = Cache(tmp_path, limit=3 * len(DATA))
    kept.put(KEY, DATA)
    old, new = (entry(kept).parent / f".{name}.part" for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(DATA)
    os.utime(old, (0, 1_000_000))
    assert kept.stats().entries == 1 and kept.verify() == []
    Cache(tmp_path, limit=kept.limit).put(key("another"), DATA)
    assert not old.exists() and new.exists()


def test_a_failing_disk_warns_once_and_leaves_nothing(kept: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.put(KEY, DATA)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.warns(RuntimeWarning, match="No space left") as caught:
        kept.put(key("1"), DATA)
        kept.put(key("2"), DATA)
    assert len(caught) == 1
    assert kept.get(KEY) == DATA
    assert kept.folder is not None and not list(kept.folder.glob("*/*.part"))


def test_a_place_that_cannot_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    blocked = Cache(tmp_path / "file")
    with pytest.warns(RuntimeWarning, match="Not a directory"):
        blocked.put(KEY, DATA)
    assert blocked.get(KEY) is None and blocked.clear() == 0 and blocked.stats().entries == 0


def test_the_program_is_warned_where_it_calls_and_not_in_a_thread_of_ours(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    blocked = Cache(tmp_path / "file")
    ours = threading.Thread(target=blocked.put, args=(KEY, DATA))
    ours.start()
    ours.join()
    with pytest.warns(RuntimeWarning, match="Not a directory") as caught:
        blocked.put(KEY, DATA)
    assert [w.filename for w in caught] == [__file__]


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_read(kept: Cache, tmp_path: Path) -> None:
    kept.put(KEY, DATA)
    assert kept.folder is not None
    folders = [kept.folder, entry(kept).parent]
    for folder in folders:
        folder.chmod(0o500)
    try:
        readonly = Cache(tmp_path)
        assert readonly.get(KEY) == DATA
        with pytest.warns(RuntimeWarning, match="Permission denied"):
            readonly.put(key("other"), DATA)
    finally:
        for folder in folders:
            folder.chmod(0o700)


def _write_and_read(folder: Path, first: int) -> int:
    c = Cache(folder, limit=30 * len(DATA))  # they also evict each other's entries
    for i in range(200):
        k = key(str((first + i) % 40))
        c.put(k, DATA + k.encode())
        got = c.get(k)
        if got is not None and got != DATA + k.encode():
            return 1
    return 0


def test_processes_write_at_once(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.starmap(_write_and_read, [(tmp_path, 0), (tmp_path, 7)]) == [0, 0]
    assert Cache(tmp_path).verify() == []


def test_the_environment_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    for name in ("TCC_CACHE_DIR", "TCC_CACHE", "TCC_CACHE_MB"):
        monkeypatch.delenv(name, raising=False)
    assert cache.open_default().folder == tmp_path / "xdg" / "tcc" / cache.FORMAT
    monkeypatch.setenv("TCC_CACHE_DIR", str(tmp_path / "mine"))
    monkeypatch.setenv("TCC_CACHE_MB", "3")
    opened = cache.open_default()
    assert opened.folder == tmp_path / "mine" / cache.FORMAT and opened.limit == 3 << 20
    monkeypatch.setenv("TCC_CACHE_MB", "much")
    with pytest.raises(ValueError, match="TCC_CACHE_MB"):
        cache.open_default()


def test_a_folder_that_cannot_be_looked_at_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TCC_CACHE_DIR", str(tmp_path / ("long" * 100)))  # as one in a home that is closed
    opened = cache.open_default()
    with pytest.warns(RuntimeWarning, match="is not kept, .*: File name too long"):
        opened.put(KEY, DATA)
    assert opened.get(KEY) is None and opened.stats().entries == 0


def test_turned_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCC_CACHE", "0")
    monkeypatch.setenv("TCC_CACHE_DIR", str(tmp_path))
    off = cache.open_default()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        off.put(KEY, DATA)
    assert off.get(KEY) is None and off.stats().folder is None
    assert not list(tmp_path.iterdir())


def test_another_users_folder_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCC_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    owner = tmp_path.stat().st_uid
    if owner == 0:
        os.chown(tmp_path, 54321, -1)
    with pytest.warns(RuntimeWarning, match="another user"):
        assert cache.open_default().folder is None
