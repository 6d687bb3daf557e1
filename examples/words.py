"""Vectors of words, learnt from which words stand around them (CBOW: Mikolov et al. 2013), and what they are good for.

python examples/words.py --text my.txt                            # any UTF-8 file; --help shows what else there is
python examples/words.py --text my.txt --near king,sword          # the nearest words of these
python examples/words.py --text my.txt --questions questions-words.txt     # "a is to b as c is to ?"
tcc dump examples/words.py:train_step                             # the training step at every stage
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import tcc
import tcc.tensor as T
from characters import TEXT, InputError, positive, read_text, some, whole
from optimizers import Expression, Updates

tcc.config.floatX = "float32"

LOSSES = ("negative", "softmax")
Numbers = NDArray[np.int32]
Step = Callable[[Numbers, float], Any]  # f(places in the text, rate) -> the mean cost


# Text


def split(text: str) -> list[str]:
    """Words in lower case; digits, signs and underscores separate them."""
    return re.findall(r"[^\W\d_]+(?:['’][^\W\d_]+)*", text.lower())


def vocabulary(words: Sequence[str], least: int) -> tuple[list[str], NDArray[np.int64]]:
    """The words that occur `least` times or more, the most frequent first, and how often each occurs."""
    counted = sorted(Counter(words).items(), key=lambda item: (-item[1], item[0]))
    kept = [(word, n) for word, n in counted if n >= least]
    return [word for word, _ in kept], np.array([n for _, n in kept], np.int64)


def thinned(numbers: Numbers, counts: NDArray[np.int64], share: float, rng: np.random.Generator) -> Numbers:
    """`numbers` without some of the frequent words: one of frequency f stays with probability sqrt(share / f)."""
    frequency = counts / counts.sum()
    stays: NDArray[np.bool_] = rng.random(len(numbers)) < np.sqrt(share / frequency)[numbers]
    return numbers[stays]


# The model


class Vectors:
    """For each word, a vector for where it is read (`inner`) and one for where it is guessed (`outer`)."""

    def __init__(self, words: int, width: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        start = rng.uniform(-0.5 / width, 0.5 / width, (words, width)).astype(np.float32)
        self.inner = tcc.shared(start, "inner")
        self.outer = tcc.shared(np.zeros((words, width), np.float32), "outer")

    def softmax(self, around: Expression, word: Expression, rate: Expression) -> tuple[Expression, Updates]:
        """-log p of `word` [n] among all words, from the mean of the vectors of the words `around` it [n, 2 window]."""
        read = self.inner[around]
        p = T.nnet.softmax(T.dot(read.mean(axis=1), self.outer.T))
        cost = T.nnet.categorical_crossentropy(p, word).sum()
        slopes = tcc.grad(cost, [read, self.outer])
        return cost, [
            (self.inner, T.inc_subtensor(read, -rate * slopes[0])),
            (self.outer, self.outer - rate * slopes[1]),
        ]

    def negative(
        self, around: Expression, word: Expression, rate: Expression, others: Expression
    ) -> tuple[Expression, Updates]:
        """-log p that `word` is told from `others` [n, k], words drawn by chance."""
        guessed = self.outer[T.concatenate([word[:, None], others], axis=1)]
        read = self.inner[around]
        scores = (guessed * read.mean(axis=1)[:, None, :]).sum(axis=2)
        cost = T.nnet.softplus(-scores[:, 0]).sum() + T.nnet.softplus(scores[:, 1:]).sum()
        slopes = tcc.grad(cost, [read, guessed])
        return cost, [
            (self.inner, T.inc_subtensor(read, -rate * slopes[0])),
            (self.outer, T.inc_subtensor(guessed, -rate * slopes[1])),
        ]


def compile_step(
    vectors: Vectors, text: Any, counts: NDArray[np.int64], window: int, negatives: int, loss: str, seed: int
) -> Step:
    """f(places, rate) -> the mean cost at these places of the shared `text`; changes the vectors of their words."""
    places, rate = T.ivector("places"), T.scalar("rate")
    beside = np.array([k for k in range(-window, window + 1) if k], np.int32)
    around, word = text[places[:, None] + beside], text[places]
    if loss == "softmax":
        cost, updates = vectors.softmax(around, word, rate)
    else:
        weights = counts**0.75
        shares = tcc.shared((np.cumsum(weights) / weights.sum()).astype(np.float32), "shares")
        uniform = tcc.random.Stream(seed).uniform((places.shape[0], negatives), dtype="float32")
        others = T.minimum(T.searchsorted(shares, uniform.flatten(), side="right"), len(counts) - 1)
        cost, updates = vectors.negative(around, word, rate, others.reshape((-1, negatives)))
    step: Step = tcc.function(
        [places, rate],
        cost / places.shape[0],
        updates=updates,
        name=f"cbow_{loss}",
        allow_input_downcast=True,
    )
    return step


def compile_nearest(vectors: NDArray[np.float32], count: int) -> Callable[..., tuple[Numbers, Any]]:
    """f(query [n, width], without [n, k]) -> the `count` words most like each query by cosine, and how like they are.

    Words of `without` are left out.
    """
    query, without = T.matrix("query"), T.imatrix("without")
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = tcc.shared((vectors / np.maximum(norm, 1e-9)).astype(np.float32), "unit")
    cosine = T.dot(query / T.maximum(query.norm(2, axis=1, keepdims=True), 1e-9), unit.T)
    cosine = T.set_subtensor(cosine[T.arange(query.shape[0])[:, None], without], -np.inf)
    best = T.argsort(-cosine, axis=1)[:, :count]
    nearest: Callable[..., tuple[Numbers, Any]] = tcc.function(
        [query, without], [best, cosine[T.arange(query.shape[0])[:, None], best]], name="nearest"
    )
    return nearest


def train_step() -> Step:
    """One step of negative sampling over blank text: something to dump and to look at."""
    text = tcc.shared(np.zeros(1000, np.int32), "text")
    return compile_step(Vectors(2000, 100, 0), text, np.ones(2000, np.int64), 4, 5, "negative", 0)


# What the vectors are good for


def nearest_words(
    vectors: NDArray[np.float32], words: Sequence[str], asked: Sequence[str], count: int
) -> Iterator[str]:
    """A line for each word asked for: those with the most similar vectors."""
    number = {word: k for k, word in enumerate(words)}
    nearest = compile_nearest(vectors, count)
    for word in asked:
        if word not in number:
            yield f"{word}: not among the words of this text"
            continue
        row = np.array([[number[word]]], np.int32)
        (found,), (likeness,) = nearest(vectors[row[0]], row)
        yield f"{word}: " + ", ".join(f"{words[k]} {c:.2f}" for k, c in zip(found, likeness))


def read_questions(path: Path) -> dict[str, list[list[str]]]:
    """The questions of each section: lines `: name`, then lines of four words a b c d, for "a is to b as c is to d"."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise InputError(
            f"--questions {path}: {e.strerror if isinstance(e, OSError) else 'not UTF-8'}"
        ) from None
    sections: dict[str, list[list[str]]] = {}
    name = "all"
    for number, line in enumerate(lines, 1):
        if line.startswith(":"):
            name = line[1:].strip()
        elif line.strip():
            four = line.lower().split()
            if len(four) != 4:
                raise InputError(
                    f"--questions {path}, line {number}: wanted four words, got {len(four)}: {line.strip()!r}"
                )
            sections.setdefault(name, []).append(four)
    if not sections:
        raise InputError(f"--questions {path}: no questions in it")
    return sections


def analogies(
    vectors: NDArray[np.float32], words: Sequence[str], sections: dict[str, list[list[str]]]
) -> Iterator[tuple[str, int, int, int]]:
    """(section, right, asked, all): d is guessed as the word nearest to b - a + c, of unit vectors, but a, b and c.

    Questions with words that have no vector are not asked.
    """
    number = {word: k for k, word in enumerate(words)}
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.maximum(norm, 1e-9)
    nearest = compile_nearest(vectors, 1)
    for name, questions in sections.items():
        known = np.array([[number[w] for w in q] for q in questions if all(w in number for w in q)], np.int32)
        right = 0
        for part in np.array_split(known, len(known) // 256 + 1) if len(known) else []:
            a, b, c, d = part.T
            guessed, _ = nearest(unit[b] - unit[a] + unit[c], part[:, :3])
            right += int((guessed[:, 0] == d).sum())
        yield name, right, len(known), len(questions)


def answered(section: str, right: int, asked: int, questions: int) -> str:
    share = f"{100 * right / asked:5.1f} %" if asked else "   -   "
    return f"{share}  {right} of {asked} questions right, {questions - asked} not asked: {section}"


def save(path: Path, words: Sequence[str], vectors: NDArray[np.float32]) -> None:
    """Text that other programs read: a line with the sizes, then each word and its vector."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8") as file:
        print(*vectors.shape, file=file)
        for word, vector in zip(words, vectors):
            print(word, *(f"{x:.6g}" for x in vector), file=file)
    part.replace(path)


# The program


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--text", type=Path, default=TEXT, metavar="FILE", help="UTF-8 text (%(default)s)")
    parser.add_argument(
        "--loss", choices=LOSSES, default="negative", help="sampling, or all words (%(default)s)"
    )
    parser.add_argument("--width", type=some, default=100, help="of a vector (%(default)s)")
    parser.add_argument("--window", type=some, default=4, help="words read on either side (%(default)s)")
    parser.add_argument("--negatives", type=some, default=8, help="words drawn against each (%(default)s)")
    parser.add_argument(
        "--least", type=some, default=3, metavar="N", help="drop words rarer than this (%(default)s)"
    )
    parser.add_argument(
        "--thin",
        type=positive,
        default=1e-3,
        metavar="SHARE",
        help="drop some of the words more frequent (%(default)s)",
    )
    parser.add_argument("--batch", type=some, default=128, help="words guessed a step (%(default)s)")
    parser.add_argument("--epochs", type=whole, default=15, help="(%(default)s)")
    parser.add_argument(
        "--rate", type=positive, default=0.1, help="learning rate, falling to zero (%(default)s)"
    )
    parser.add_argument("--seed", type=whole, default=0, help="of vectors, order and draws (%(default)s)")
    parser.add_argument(
        "--near", metavar="WORDS", help="whose nearest words to print, with commas (frequent ones)"
    )
    parser.add_argument("--count", type=some, default=6, help="nearest words to print (%(default)s)")
    parser.add_argument(
        "--questions", type=Path, metavar="FILE", help="analogies: ': section' and lines 'a b c d'"
    )
    parser.add_argument("--save", type=Path, metavar="FILE", help="the vectors as text (nowhere)")
    return parser.parse_args()


def train(
    step: Step, text: Any, numbers: Numbers, counts: NDArray[np.int64], options: argparse.Namespace
) -> Iterator[str]:
    """Goes over the text, thinned anew in each epoch, in random order; says how it goes."""
    rng, seconds, guessed = np.random.default_rng(options.seed), [], 0
    for epoch in range(options.epochs):
        kept = thinned(numbers, counts, options.thin, rng)
        places = np.arange(options.window, len(kept) - options.window, dtype=np.int32)
        if len(places) == 0:
            raise InputError(
                f"{len(kept)} words are left of the text, too few for a --window of {options.window}"
            )
        text.set_value(kept)
        batches = np.array_split(rng.permutation(places), -(-len(places) // options.batch))
        costs = []
        for k, batch in enumerate(batches):
            rate = options.rate * (1 - (epoch + k / len(batches)) / options.epochs)
            start = time.perf_counter()
            costs.append(float(step(batch, rate)))
            seconds.append(time.perf_counter() - start)
        guessed += len(places)
        spent = sum(seconds[-len(batches) :])
        yield f"epoch {epoch + 1:3}/{options.epochs}   cost {statistics.fmean(costs):.4f}   {spent:.2f} s"
    if seconds:
        middle = statistics.median(seconds)
        yield (
            f"{1e3 * middle:.3f} ms a step, {1 / middle:,.0f} steps a second, "
            f"{guessed / len(seconds) / middle:,.0f} words a second"
        )


def run(options: argparse.Namespace) -> None:
    sections = read_questions(options.questions) if options.questions else {}
    read = split(read_text(options.text))
    words, counts = vocabulary(read, options.least)
    if len(words) < 2:
        raise InputError(
            f"--text {options.text}: {len(words)} words occur {options.least} times or more, wanted 2"
        )
    number = {word: k for k, word in enumerate(words)}
    numbers = np.array([number[word] for word in read if word in number], np.int32)
    print(
        f"{len(read):,} words, {len(words):,} different ones that occur {options.least} times or more",
        flush=True,
    )
    vectors, text = Vectors(len(words), options.width, options.seed), tcc.shared(numbers, "text")
    step = compile_step(vectors, text, counts, options.window, options.negatives, options.loss, options.seed)
    for line in train(step, text, numbers, counts, options):
        print(line, flush=True)
    learnt = vectors.inner.get_value()
    asked = split(options.near.replace(",", " ")) if options.near else words[20:200:20]
    for line in nearest_words(learnt, words, asked, min(options.count, len(words) - 1)):
        print(line)
    if sections:
        found = list(analogies(learnt, words, sections))
        right, asked_of, all_of = (sum(counts) for counts in zip(*(f[1:] for f in found)))
        for answer in [*found, ("in all", right, asked_of, all_of)]:
            print(answered(*answer))
    if options.save:
        save(options.save, words, learnt)
        print(f"wrote {options.save}")


def main() -> int:
    try:
        run(arguments())
    except InputError as e:
        print(f"words.py: error: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
