"""The example programs as a user runs them, and made-up digits for those that read digits."""

from __future__ import annotations

import gzip
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
Array = np.ndarray[Any, Any]


def run_example(name: str, *arguments: object, threads: int = 1) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, arguments)],
        env={**os.environ, "TCC_THREADS": str(threads), "PYTHONUTF8": "1"},
        capture_output=True,
        encoding="utf-8",
    )


def write_digits(path: Path, pixels: int, rows: tuple[int, int, int]) -> Path:
    """Ten prototypes and noise, so that a classifier has something to find; `rows` to train with, validate and test."""
    rng = np.random.default_rng(3)
    prototypes = rng.random((10, pixels))

    def images(labels: Array) -> Array:
        return prototypes[labels] + 0.1 * rng.standard_normal((len(labels), pixels))

    return write_parts(path, rng, images, rows)


def write_parts(
    path: Path, rng: np.random.Generator, images: Callable[[Array], Array], rows: tuple[int, int, int]
) -> Path:
    """A file of three parts as the digits', with random labels."""

    def part(count: int) -> tuple[Array, Array]:
        labels = rng.integers(0, 10, count)
        return images(labels).astype(np.float32), labels

    with gzip.open(path, "wb", 1) as file:
        pickle.dump(tuple(map(part, rows)), file, protocol=4)
    return path
