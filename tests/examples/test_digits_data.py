"""The digits' loader on small files of its own making; no test here reaches the network."""

from __future__ import annotations

import gzip
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import digits_data
from digits_data import DataError

RNG = np.random.default_rng(7)


def some(rows: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    return RNG.integers(0, 256, (rows, 28, 28), np.uint8), RNG.integers(0, 10, rows, np.uint8)


def write_pickle(path: Path, thing: object) -> Path:
    with gzip.open(path, "wb", 1) as file:
        pickle.dump(thing, file, protocol=4)
    return path


def write_idx(path: Path, array: np.ndarray[Any, Any], *, cut: int = 0, magic: int | None = None) -> None:
    first = magic if magic is not None else 0x800 + array.ndim
    data = struct.pack(f">{array.ndim + 1}I", first, *array.shape) + array.tobytes()[cut:]
    path.write_bytes(gzip.compress(data, 1) if path.suffix == ".gz" else data)


def write_idx_folder(folder: Path, mark: str, end: str) -> None:
    for part, rows in (("train", 12), ("t10k", 5)):
        images, labels = some(rows)
        write_idx(folder / f"{part}-images{mark}idx3-ubyte{end}", images)
        write_idx(folder / f"{part}-labels{mark}idx1-ubyte{end}", labels)


def test_a_pickle_of_three_pairs(tmp_path: Path) -> None:
    images, labels = some(6)
    flat = images.reshape(6, -1) / np.float32(256)
    path = write_pickle(tmp_path / "mnist.pkl.gz", tuple((flat, labels.astype(np.int64)) for _ in range(3)))
    for part in digits_data.load(str(path)):
        assert part.images.dtype == np.float32 and part.labels.dtype == np.int32
        np.testing.assert_array_equal(part.images, flat)
        np.testing.assert_array_equal(part.labels, labels)


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("true",)


@pytest.mark.parametrize(
    "thing, words",
    [
        (Trap(), "refused to load posix.system"),
        (np.array([Trap()], object), "refused to load posix.system"),
        ([(1, 2)] * 3, "wanted NumPy arrays, got int and int"),
        ([(np.zeros((4, 9)), np.zeros(3))] * 3, r"got \(4, 9\) and \(3,\)"),
        ([1, 2, 3], "not a gzipped pickle of three pairs"),
    ],
)
def test_a_pickle_of_anything_else_is_refused(tmp_path: Path, thing: object, words: str) -> None:
    with pytest.raises(DataError, match=words):
        digits_data.load(str(write_pickle(tmp_path / "mnist.pkl.gz", thing)))


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mnist.pkl.gz"
    path.write_bytes(gzip.compress(pickle.dumps(list(range(1000))))[:100])
    with pytest.raises(DataError, match="not a gzipped pickle"):
        digits_data.load(str(path))


@pytest.mark.parametrize("mark, end", [("-", ""), ("-", ".gz"), (".", ""), (".", ".gz")])
def test_a_folder_of_idx_files(tmp_path: Path, mark: str, end: str) -> None:
    write_idx_folder(tmp_path, mark, end)
    train, valid, test = digits_data.load(str(tmp_path))
    assert [part.images.shape for part in (train, valid, test)] == [(10, 784), (2, 784), (5, 784)]
    assert train.images.dtype == np.float32 and 0 <= train.images.min() and train.images.max() < 1


def test_an_incomplete_folder_is_refused(tmp_path: Path) -> None:
    write_idx_folder(tmp_path, "-", "")
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="holds none of t10k-labels-idx1-ubyte, "):
        digits_data.load(str(tmp_path))


@pytest.mark.parametrize(
    "fault, words", [({"cut": 1}, "do not fit the 9407 bytes"), ({"magic": 7}, "not an idx file of 3 axes")]
)
def test_a_damaged_idx_file_is_refused(tmp_path: Path, fault: dict[str, int], words: str) -> None:
    write_idx_folder(tmp_path, "-", "")
    write_idx(tmp_path / "train-images-idx3-ubyte", some(12)[0], **fault)
    with pytest.raises(DataError, match=words):
        digits_data.load(str(tmp_path))


def test_a_cache_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(DataError, match="cannot be kept in the cache folder: .*Not a directory"):
        digits_data.load()


def test_a_path_that_is_not_there() -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        digits_data.load("nowhere/mnist.pkl.gz")


def test_no_way_to_download_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(args, 1, "", "ERROR: no matching distribution\n")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(digits_data.subprocess, "run", refuse)
    with pytest.raises(DataError) as caught:
        digits_data.load()
    for words in ("no matching distribution", sys.executable, "--data sklearn-digits", str(tmp_path)):
        assert words in str(caught.value)


def test_small_digits_need_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match="pip install scikit-learn"):
        digits_data.load("sklearn-digits")
