"""The character model as a user runs it, on a small text."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from example_runs import run_example

SMALL = ("--units", 24, "--batch", 4, "--steps", 16, "--rate", 0.01, "--write", 40)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("Où es-tu? Là, là, là.\n" * 40, encoding="utf-8")
    return path


def costs(output: str) -> list[float]:
    return [float(bits) for bits in re.findall(r"epoch .*?   (\d+\.\d+) bits a character", output)]


def saved(path: Path) -> dict[str, bytes]:
    with np.load(path) as file:
        return {name: file[name].tobytes() for name in file.files}


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_each_cell_learns_and_writes(text: Path, tmp_path: Path, cell: str) -> None:
    path = tmp_path / "saved" / "network.npz"
    done = run_example(
        "characters.py",
        "--text",
        text,
        "--cell",
        cell,
        "--epochs",
        8,
        "--save",
        path,
        "--seed-text",
        "Là",
        *SMALL,
    )
    assert done.returncode == 0, done.stderr
    found = costs(done.stdout)
    assert len(found) == 8 and found[-1] < 0.6 * found[0]
    assert re.search(r"ms a step, \d+\.\d steps a second", done.stdout)
    written = done.stdout.split(f"wrote {path}\n")[1]
    assert written.startswith("Là") and len(written) == 2 + 40 + 1
    assert set(written) <= set(text.read_text(encoding="utf-8"))


def test_training_in_two_parts_is_training_at_once_bit_for_bit(text: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole.npz", tmp_path / "parts.npz"
    run_example("characters.py", "--text", text, "--epochs", 4, "--save", whole, *SMALL)
    run_example("characters.py", "--text", text, "--epochs", 2, "--save", parts, *SMALL)
    done = run_example(
        "characters.py", "--text", text, "--epochs", 2, "--resume", parts, "--write", 5, threads=2
    )
    assert done.returncode == 0, done.stderr
    assert "epoch   4/4" in done.stdout
    assert saved(whole) == saved(parts)


def test_a_cold_writer_repeats_the_text_it_knows(text: Path, tmp_path: Path) -> None:
    path = tmp_path / "network.npz"
    run_example("characters.py", "--text", text, "--epochs", 15, "--save", path, *SMALL)
    cold = [
        run_example(
            "characters.py",
            "--text",
            text,
            "--epochs",
            0,
            "--resume",
            path,
            "--write",
            19,
            "--seed-text",
            "Où ",
            "--temperature",
            0.01,
        )
        for _ in range(2)
    ]
    assert cold[0].stdout.endswith("Où es-tu? Là, là, là.\n\n")
    assert cold[0].stdout.splitlines()[1:] == cold[1].stdout.splitlines()[1:]


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("--text", "nowhere.txt"), "--text nowhere.txt: No such file"),
        (("--resume", "nowhere.npz"), "--resume nowhere.npz: no such file"),
        (("--resume", __file__), "not a file that this program saved"),
        (("--seed-text", "Ωmega"), "does not know the characters 'Ω'"),
        (("--seed-text", ""), "wanted one character or more"),
        (("--batch", 100_000), "characters for training"),
        (("--temperature", 0), "wanted a number above 0, got 0"),
        (("--epochs", -1), "wanted 0 or more, got -1"),
    ],
)
def test_wrong_arguments_get_a_message(tmp_path: Path, arguments: tuple[object, ...], words: str) -> None:
    done = run_example("characters.py", "--epochs", 0, *arguments)
    assert done.returncode != 0 and words in done.stderr and "Traceback" not in done.stderr


def test_a_text_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "latin"
    path.write_bytes("é".encode("latin-1") * 10)
    assert "not UTF-8 (byte 0)" in run_example("characters.py", "--text", path).stderr
