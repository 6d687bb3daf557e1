"""Word vectors as a user trains them, on made-up sentences, and what is asked of vectors made by hand."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from example_runs import run_example

import words
from characters import InputError


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """Cats and dogs do one kind of thing, cars and trucks another."""
    rng = np.random.default_rng(0)
    kinds = [
        (["cat", "dog"], "eats sleeps barks purrs runs".split()),
        (["car", "truck"], "rusts brakes fuel wheel road".split()),
    ]
    lines = []
    for _ in range(150):
        names, deeds = kinds[rng.integers(2)]
        lines.append(" ".join(rng.choice([*names, *deeds], 20)))
    path = tmp_path / "text.txt"
    path.write_text(".\n".join(lines), encoding="utf-8")
    return path


SMALL = (
    "--width",
    12,
    "--window",
    2,
    "--thin",
    1,
    "--rate",
    0.05,
    "--near",
    "cat,truck,unicorn",
    "--count",
    6,
)


@pytest.mark.parametrize("loss", words.LOSSES)
def test_words_of_a_kind_are_near_each_other(text: Path, tmp_path: Path, loss: str) -> None:
    saved = [tmp_path / "one.txt", tmp_path / "two.txt"]
    for threads, path in enumerate(saved, 1):
        done = run_example(
            "words.py", "--text", text, "--loss", loss, "--epochs", 8, "--save", path, *SMALL, threads=threads
        )
        assert done.returncode == 0, done.stderr
    costs = [float(cost) for cost in re.findall(r"   cost (\d+\.\d+)", done.stdout)]
    assert len(costs) == 8 and costs[-1] < 0.95 * costs[0]
    assert re.search(r"ms a step, [\d,]+ steps a second", done.stdout)
    near = dict(line.split(": ") for line in done.stdout.splitlines() if ": " in line)
    assert set(re.findall("[a-z]+", near["cat"])) == set("dog eats sleeps barks purrs runs".split())
    assert set(re.findall("[a-z]+", near["truck"])) == set("car rusts brakes fuel wheel road".split())
    assert near["unicorn"] == "not among the words of this text"
    assert saved[0].read_bytes() == saved[1].read_bytes()
    assert saved[0].read_text().splitlines()[0] == "14 12"


def test_words() -> None:
    assert words.split("Là, don't_stop 7x7 O’Neil 'quoted'!") == [
        "là",
        "don't",
        "stop",
        "x",
        "o’neil",
        "quoted",
    ]
    kept, counts = words.vocabulary(["b", "a", "b", "c", "a", "b"], 2)
    assert kept == ["b", "a"] and counts.tolist() == [3, 2]


@pytest.mark.usefixtures("float32")
def test_analogies_of_vectors_made_by_hand(tmp_path: Path) -> None:
    """The fourth is in the direction of b - a + c; a, b and c themselves are no answers."""
    man, woman, king, fish = np.eye(4, dtype=np.float32)
    named = {"man": man, "woman": woman, "king": king + man, "queen": king + woman, "fish": fish}
    path = tmp_path / "questions.txt"
    path.write_text(": royal\nman king woman queen\nMan King Woman fish\n: rare\n\nman king woman unicorn\n")
    sections = words.read_questions(path)
    assert list(words.analogies(np.array(list(named.values())), list(named), sections)) == [
        ("royal", 1, 2, 2),
        ("rare", 0, 0, 1),
    ]
    path.write_text(": royal\nman king woman\n")
    with pytest.raises(InputError, match="questions.txt, line 2: wanted four words, got 3: 'man king woman'"):
        words.read_questions(path)


@pytest.mark.parametrize(
    "arguments, said",
    [
        (("--text", "nowhere.txt"), "--text nowhere.txt: No such file"),
        (("--questions", "nowhere.txt"), "--questions nowhere.txt: No such file"),
        (("--least", 100_000), "0 words occur 100000 times or more, wanted 2"),
        (("--window", 100_000), "too few for a --window of 100000"),
        (("--rate", "fast"), "invalid positive value: 'fast'"),
    ],
)
def test_wrong_arguments_get_a_message(arguments: tuple[object, ...], said: str) -> None:
    done = run_example("words.py", *arguments)
    assert done.returncode != 0 and said in done.stderr and "Traceback" not in done.stderr
