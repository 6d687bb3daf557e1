"""A recurrent network that learns to write as a text is written, one character after another, and writes some.

python examples/characters.py                               # an LSTM on a part of Coriolanus; --help shows what else there is
python examples/characters.py --text my.txt --cell gru      # any UTF-8 file
python examples/characters.py --epochs 0 --resume build/characters/lstm.npz --seed-text "MARCIUS:"      # only writes
tcc dump examples/characters.py:train_step                  # its training step at every stage
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import tcc
import tcc.tensor as T
from optimizers import OPTIMIZERS, Expression, Shared, clip_norm

tcc.config.floatX = "float32"

TEXT = Path(__file__).parent / "data" / "coriolanus.txt"
VALID = 0.05  # the share of the text, at its end, that is kept for validation

Characters = NDArray[np.int32]  # places in the alphabet
Step = Callable[..., tuple[Expression, ...]]


class InputError(Exception):
    """A file or an option that does not fit; the text says which."""


# Cells.  Each takes what the input gives, z [n, gates * units], its states [n, units], and U [units, gates * units].


def rnn(z: Expression, h: Expression, u: Expression) -> tuple[Expression, ...]:
    """tanh(z + h U)  (Elman 1990)"""
    return (T.tanh(z + T.dot(h, u)),)


def lstm(z: Expression, h: Expression, c: Expression, u: Expression) -> tuple[Expression, ...]:
    """c = f c + i g, h = o tanh(c), with a forget gate  (Hochreiter and Schmidhuber 1997; Gers et al. 2000)"""
    i, f, o, g = parts(z + T.dot(h, u), 4)
    c = T.nnet.sigmoid(f) * c + T.nnet.sigmoid(i) * T.tanh(g)
    return T.nnet.sigmoid(o) * T.tanh(c), c


def gru(z: Expression, h: Expression, u: Expression) -> tuple[Expression, ...]:
    """h = k h + (1 - k) tanh(z3 + r (h U3))  (Cho et al. 2014, with the gate r behind the product)"""
    z1, z2, z3 = parts(z, 3)
    h1, h2, h3 = parts(T.dot(h, u), 3)
    keep, reset = T.nnet.sigmoid(z1 + h1), T.nnet.sigmoid(z2 + h2)
    return (keep * h + (1 - keep) * T.tanh(z3 + reset * h3),)


def parts(z: Expression, count: int) -> list[Expression]:
    """`count` equal parts of the columns of z."""
    width = z.shape[1] // count
    return [z[:, k * width : (k + 1) * width] for k in range(count)]


CELLS: dict[str, tuple[Step, int, int]] = {
    "rnn": (rnn, 1, 1),
    "lstm": (lstm, 4, 2),
    "gru": (gru, 3, 1),
}  # gates, states


@dataclass(frozen=True)
class Settings:
    """What a saved network needs to be built again and trained on."""

    cell: str
    units: int
    batch: int
    steps: int
    optimizer: str
    rate: float
    clip: float
    seed: int


class Network:
    """A cell between a table of the characters' vectors and a softmax over the characters."""

    def __init__(self, settings: Settings, characters: int) -> None:
        self.cell, gates, self.states = CELLS[settings.cell]
        self.units = settings.units
        rng = np.random.default_rng(settings.seed)
        width = gates * self.units

        def uniform(rows: int, columns: int, limit: float) -> NDArray[np.float32]:
            return rng.uniform(-limit, limit, (rows, columns)).astype(np.float32)

        bias = np.zeros(width, np.float32)
        if settings.cell == "lstm":
            bias[self.units : 2 * self.units] = 1  # remember, at first
        limit = 1 / math.sqrt(self.units)
        self.table = tcc.shared(uniform(characters, width, limit), "table")
        self.recurrent = tcc.shared(uniform(self.units, width, limit), "recurrent")
        self.bias = tcc.shared(bias, "bias")
        self.out = tcc.shared(uniform(self.units, characters, limit), "out")
        self.out_bias = tcc.shared(np.zeros(characters, np.float32), "out_bias")
        self.parameters = [self.table, self.recurrent, self.bias, self.out, self.out_bias]

    def zeros(self, n: int) -> list[Shared]:
        """Shared states of `n` texts that are about to begin."""
        return [tcc.shared(np.zeros((n, self.units), np.float32), f"state{k}") for k in range(self.states)]

    def step(self, character: Expression, *states: Expression) -> tuple[Expression, ...]:
        """The states after characters [n]."""
        return self.cell(self.table[character] + self.bias, *states, self.recurrent)

    def scores(self, h: Expression) -> Expression:
        """The logits of the next character, [..., characters]."""
        return T.dot(h, self.out) + self.out_bias

    def read(self, text: Expression, states: list[Shared]) -> tuple[Expression, list[Expression]]:
        """The mean -log p of each next character of `text` [steps + 1, n], and the states at its end."""
        inputs = self.table[text[:-1]] + self.bias  # for all steps at once
        found, _ = tcc.scan(
            self.cell, sequences=inputs, outputs_info=list(states), non_sequences=self.recurrent
        )
        each = found if isinstance(found, list) else [found]
        p = T.nnet.softmax(self.scores(each[0].reshape((-1, self.units))))
        return T.nnet.categorical_crossentropy(p, text[1:].flatten()).mean(), [e[-1] for e in each]


def streams(text: Characters, batch: int, steps: int) -> Characters:
    """`text` as `batch` columns of equal length, each a run of it: [a multiple of steps, plus 1, batch]."""
    blocks = (len(text) - 1) // batch // steps
    if blocks == 0:
        raise InputError(
            f"{batch} texts of {steps} steps need {batch * steps + 1} characters for training, got {len(text)}: "
            "give more text, or a smaller --batch or --steps"
        )
    length = blocks * steps
    starts = np.arange(batch) * length
    return np.ascontiguousarray(text[starts + np.arange(length + 1)[:, None]])


class Trainer:
    """The compiled training step of a network over a text, and all that it changes."""

    def __init__(self, settings: Settings, alphabet: str, text: Characters) -> None:
        self.settings, self.alphabet, self.epoch = settings, alphabet, 0
        self.network = Network(settings, len(alphabet))
        cut = len(text) - int(VALID * len(text))
        columns = streams(text[:cut], settings.batch, settings.steps)
        self.count = (len(columns) - 1) // settings.steps
        self.states = self.network.zeros(settings.batch)
        index = T.lscalar("index")
        rows = index * settings.steps
        part = tcc.shared(columns, "text")[rows : rows + settings.steps + 1]
        cost, lasts = self.network.read(part, self.states)
        gradients = tcc.grad(cost, self.network.parameters, consider_constant=self.states)
        updates = OPTIMIZERS[settings.optimizer][0](
            self.network.parameters, clip_norm(gradients, settings.clip), settings.rate
        )
        self.kept = [variable for variable, _ in updates]  # parameters and the optimizer's state
        self.step = tcc.function(
            [index], cost, updates=updates + list(zip(self.states, lasts)), name=f"{settings.cell}_step"
        )
        self.valid = text[cut:]

    def train(self) -> tuple[float, list[float]]:
        """One epoch: the mean cost, and the seconds of each step."""
        for state in self.states:
            state.set_value(np.zeros_like(state.get_value(borrow=True)))
        costs, seconds = [], []
        for k in range(self.count):
            start = time.perf_counter()
            costs.append(float(self.step(k)))
            seconds.append(time.perf_counter() - start)
        self.epoch += 1
        return statistics.fmean(costs), seconds

    def compile_error(self) -> Callable[[], float]:
        """f() -> the mean -log p on the validation text; nan where that is shorter than two characters."""
        if len(self.valid) < 2:
            return lambda: math.nan
        cost, _ = self.network.read(tcc.shared(self.valid[:, None]), self.network.zeros(1))
        error = tcc.function([], cost, name=f"{self.settings.cell}_error")
        return lambda: float(error())


# Files


def save(trainer: Trainer, path: Path) -> None:
    """Everything that training goes on from; the file is whole at any moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = {"settings": asdict(trainer.settings), "alphabet": trainer.alphabet, "epoch": trainer.epoch}
    arrays = {f"v{k}": variable.get_value() for k, variable in enumerate(trainer.kept)}
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        np.savez(file, allow_pickle=False, head=np.array(json.dumps(head)), **arrays)
    os.replace(part, path)


def load(path: Path, text: str) -> Trainer:
    """The trainer that `save` wrote, over `text`."""
    try:
        with np.load(path) as saved:
            head = json.loads(str(saved["head"]))
            arrays = [saved[f"v{k}"] for k in range(len(saved.files) - 1)]
        trainer = Trainer(Settings(**head["settings"]), head["alphabet"], places(text, head["alphabet"]))
        trainer.epoch = int(head["epoch"])
        for variable, array in zip(trainer.kept, arrays, strict=True):
            variable.set_value(array)
    except FileNotFoundError:
        raise InputError(f"--resume {path}: no such file") from None
    except (OSError, KeyError, TypeError, ValueError) as e:
        raise InputError(f"--resume {path}: not a file that this program saved ({e})") from e
    return trainer


def read_text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as e:
        raise InputError(f"--text {path}: not UTF-8 (byte {e.start})") from None
    except OSError as e:
        raise InputError(f"--text {path}: {e.strerror}") from None
    if not text:
        raise InputError(f"--text {path}: empty")
    return text


def places(text: str, alphabet: str) -> Characters:
    """The place of each character in `alphabet`."""
    known = {character: k for k, character in enumerate(alphabet)}
    strange = sorted(set(text) - set(known))
    if strange:
        raise InputError(f"the network does not know the characters {''.join(strange[:20])!r}")
    return np.array([known[character] for character in text], np.int32)


# Writing


def compile_write(network: Network, seed: int) -> Callable[[Characters, int, float], Characters]:
    """f(start, length, temperature) -> `length` characters drawn one after another, behind those of `start`.

    A character is drawn with probability softmax(scores / temperature): it is the largest of scores / temperature plus
    Gumbel's noise (Gumbel 1954).
    """
    start, length, temperature = T.ivector("start"), T.lscalar("length"), T.scalar("temperature")
    noise = tcc.random.Stream(seed)
    begin = [T.zeros((1, network.units)) for _ in range(network.states)]
    read, _ = tcc.scan(
        lambda character, *states: network.step(character.reshape((1,)), *states),
        sequences=start[:-1],
        outputs_info=begin,
    )
    read = read if isinstance(read, list) else [read]
    states = [T.concatenate([b[None], r])[-1] for b, r in zip(begin, read)]

    def write(character: Expression, *states: Expression) -> list[Expression]:
        new = network.step(character.reshape((1,)), *states)
        scores = network.scores(new[0])[0] / temperature
        chosen = T.argmax(scores + noise.gumbel(scores.shape, dtype="float32"))
        return [T.cast(chosen, "int32"), *new]

    written, updates = tcc.scan(write, outputs_info=[start[-1], *states], n_steps=length)
    f: Callable[[Characters, int, float], Characters] = tcc.function(
        [start, length, temperature], written[0], updates=updates, name="write", allow_input_downcast=True
    )
    return f


def train_step() -> Callable[[int], Any]:
    """One step of the LSTM with its defaults: something to dump and to look at."""
    text = read_text(TEXT)
    alphabet = "".join(sorted(set(text)))
    settings = Settings("lstm", 256, 16, 50, "adam", 0.002, 1.0, 0)
    step: Callable[[int], Any] = Trainer(settings, alphabet, places(text, alphabet)).step
    return step


def positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"wanted a number above 0, got {text}")
    return value


def whole(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"wanted 0 or more, got {text}")
    return value


def some(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"wanted 1 or more, got {text}")
    return value


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--text", type=Path, default=TEXT, metavar="FILE", help="UTF-8 text (%(default)s)")
    parser.add_argument("--cell", choices=CELLS, default="lstm", help="(%(default)s)")
    parser.add_argument("--units", type=some, default=256, help="of the cell (%(default)s)")
    parser.add_argument("--batch", type=some, default=16, help="texts read side by side (%(default)s)")
    parser.add_argument(
        "--steps", type=some, default=50, help="characters that a gradient sees (%(default)s)"
    )
    parser.add_argument("--epochs", type=whole, default=20, help="to train; 0 to write only (%(default)s)")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="adam", help="(%(default)s)")
    parser.add_argument("--rate", type=positive, help="learning rate (one that suits the optimizer)")
    parser.add_argument(
        "--clip", type=positive, default=1.0, metavar="NORM", help="of the gradient (%(default)s)"
    )
    parser.add_argument(
        "--seed", type=whole, default=0, help="of weights and of what is written (%(default)s)"
    )
    parser.add_argument(
        "--save", type=Path, metavar="FILE", help="after each epoch (build/characters/CELL.npz)"
    )
    parser.add_argument(
        "--resume", type=Path, metavar="FILE", help="go on with a saved network and its settings"
    )
    parser.add_argument(
        "--write", type=whole, default=400, metavar="N", help="characters to write (%(default)s)"
    )
    parser.add_argument(
        "--seed-text", default="\n", metavar="TEXT", help="what to write on from (a new line)"
    )
    parser.add_argument("--temperature", type=positive, default=0.7, help="of the choice (%(default)s)")
    return parser.parse_args()


def report(trainer: Trainer, epochs: int, path: Path) -> Iterator[str]:
    """Trains, saves after each epoch, and says how it goes."""
    name, error, seconds = trainer.settings.cell, trainer.compile_error(), []
    last = trainer.epoch + epochs
    for _ in range(epochs):
        cost, taken = trainer.train()
        seconds += taken
        save(trainer, path)
        bits = [value / math.log(2) for value in (cost, error())]
        yield (
            f"{name}: epoch {trainer.epoch:3}/{last}   {bits[0]:.4f} bits a character   "
            f"validation {bits[1]:.4f}   {sum(taken):.2f} s"
        )
    if seconds:
        step = statistics.median(seconds)
        characters = trainer.settings.batch * trainer.settings.steps / step
        yield f"{name}: {1e3 * step:.2f} ms a step, {1 / step:.1f} steps a second, {characters:,.0f} characters a second"
        yield f"wrote {path}"


def run(options: argparse.Namespace) -> None:
    text = read_text(options.text)
    if not options.seed_text:
        raise InputError("--seed-text: wanted one character or more, got none")
    start = time.perf_counter()
    if options.resume:
        trainer = load(options.resume, text)
    else:
        alphabet = "".join(sorted(set(text)))
        rate = options.rate or OPTIMIZERS[options.optimizer][1]
        settings = Settings(
            options.cell,
            options.units,
            options.batch,
            options.steps,
            options.optimizer,
            rate,
            options.clip,
            options.seed,
        )
        trainer = Trainer(settings, alphabet, places(text, alphabet))
    seed_text = places(options.seed_text, trainer.alphabet)
    print(
        f"{trainer.settings.cell}: {len(text):,} characters, {len(trainer.alphabet)} different; "
        f"built in {time.perf_counter() - start:.2f} s, {trainer.count} steps an epoch",
        flush=True,
    )
    path = options.save or options.resume or Path("build/characters") / f"{trainer.settings.cell}.npz"
    for line in report(trainer, options.epochs, path):
        print(line, flush=True)
    if options.write:
        written = compile_write(trainer.network, options.seed)(seed_text, options.write, options.temperature)
        print(options.seed_text + "".join(trainer.alphabet[k] for k in written))


def main() -> int:
    try:
        run(arguments())
    except InputError as e:
        print(f"characters.py: error: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
