"""A restricted Boltzmann machine of handwritten digits, trained by persistent contrastive divergence (Tieleman 2008).

python examples/rbm.py                          # MNIST; --help shows what else there is; pictures are left in build/rbm
tcc dump examples/rbm.py:train_step             # its training step at every stage; needs no data set
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import digits_data
import tcc
import tcc.tensor as T
from characters import positive, some, whole
from optimizers import Expression, Updates

tcc.config.floatX = "float32"

SHADES = " .:-=+*#%@"
Step = Callable[[int], Any]


class Machine:
    """p(v, h) ~ exp(v b + h c + v W h) over visible units v [n,pixels] and hidden units h [n,hidden], all of them 0 or 1."""

    def __init__(self, pixels: int, hidden: int, seed: int) -> None:
        limit = 4 * np.sqrt(6 / (pixels + hidden))
        start = np.random.default_rng(seed).uniform(-limit, limit, (pixels, hidden)).astype(np.float32)
        self.weights = tcc.shared(start, "weights")
        self.visible_bias = tcc.shared(np.zeros(pixels, np.float32), "visible_bias")
        self.hidden_bias = tcc.shared(np.zeros(hidden, np.float32), "hidden_bias")
        self.parameters = [self.weights, self.visible_bias, self.hidden_bias]
        self.noise = tcc.random.Stream(seed)

    def free_energy(self, v: Expression) -> Expression:
        """-log of the sum over h of exp(v b + h c + v W h), for each v: [n]."""
        hidden = T.nnet.softplus(T.dot(v, self.weights) + self.hidden_bias).sum(axis=1)
        return -hidden - T.dot(v, self.visible_bias)

    def hidden(self, v: Expression) -> Expression:
        """h drawn from p(h | v)."""
        return self.drawn(T.nnet.sigmoid(T.dot(v, self.weights) + self.hidden_bias))

    def visible(self, h: Expression) -> tuple[Expression, Expression]:
        """p(v = 1 | h), and v drawn from it."""
        p = T.nnet.sigmoid(T.dot(h, self.weights.T) + self.visible_bias)
        return p, self.drawn(p)

    def drawn(self, p: Expression) -> Expression:
        return T.cast(self.noise.uniform(p.shape, dtype="float32") < p, "float32")

    def gibbs(self, v: Expression, steps: Any) -> tuple[Expression, Expression, Updates]:
        """p(v | h) and v after so many steps v -> h -> v of Gibbs sampling; the draws' updates go into the function."""

        def step(v: Expression, _: Expression) -> list[Expression]:
            p, drawn = self.visible(self.hidden(v))
            return [drawn, p]

        (drawn, p), updates = tcc.scan(step, outputs_info=[v, v], n_steps=steps)
        return p[-1], drawn[-1], list(updates.items())

    def learn(self, v: Expression, chains: Any, steps: int, rate: float) -> tuple[Expression, Updates]:
        """The gap between the free energy of `v` and of the machine's own samples; its slope is that of -log p(v).

        The samples are those of Markov chains that go on from call to call.
        """
        _, samples, updates = self.gibbs(chains, steps)
        cost = self.free_energy(v).mean() - self.free_energy(samples).mean()
        slopes = tcc.grad(cost, self.parameters, consider_constant=[samples])
        updates += [(p, p - np.float32(rate) * g) for p, g in zip(self.parameters, slopes)]
        return cost, [*updates, (chains, samples)]

    def pseudo_likelihood(self, v: Expression) -> tuple[Expression, Updates]:
        """The log of the product over pixels of p(pixel | others), guessed from one pixel, which is the next in each call.

        p(pixel | others) is sigmoid(F(v with that pixel flipped) - F(v)).
        """
        pixels = self.visible_bias.shape[0]
        pixel = tcc.shared(0, "pixel")
        v = T.round(v)
        flipped = T.set_subtensor(v[:, pixel], 1 - v[:, pixel])
        gap = self.free_energy(flipped) - self.free_energy(v)
        guess = T.cast(pixels, "float32") * T.log(T.nnet.sigmoid(gap)).mean()
        return guess, [(pixel, (pixel + 1) % pixels)]


def compile_step(
    machine: Machine, images: NDArray[np.float32], batch: int, chains: int, steps: int, rate: float
) -> Step:
    """f(index) -> the pseudo-likelihood of minibatch `index` of the images; learns from it."""
    index = T.lscalar("index")
    v = tcc.shared(images, "images")[index * batch : (index + 1) * batch]
    rng = np.random.default_rng(len(images))
    start = (rng.random((chains, images.shape[1])) < images.mean(axis=0)).astype(np.float32)
    _, updates = machine.learn(v, tcc.shared(start, "chains"), steps, rate)
    guess, count = machine.pseudo_likelihood(v)
    step: Step = tcc.function([index], guess, updates=[*updates, *count], name="rbm_step")
    return step


def compile_sample(
    machine: Machine, start: NDArray[np.float32], steps: int
) -> Callable[[], NDArray[np.float32]]:
    """f() -> p(v | h) in chains that begin at `start` and take this many steps in each call."""
    chains = tcc.shared(start, "sampled")
    p, drawn, updates = machine.gibbs(chains, steps)
    sample: Callable[[], NDArray[np.float32]] = tcc.function(
        [], p, updates=[*updates, (chains, drawn)], name="sample"
    )
    return sample


def compile_energy(machine: Machine) -> Callable[[NDArray[np.float32]], Any]:
    """f(images) -> their mean free energy.  What was learnt and what was not are about equal, or the machine overfits."""
    v = T.matrix("v")
    energy: Callable[[NDArray[np.float32]], Any] = tcc.function(
        [v], machine.free_energy(v).mean(), name="energy"
    )
    return energy


def train_step() -> Step:
    """One step over blank digits: something to dump and to look at."""
    images = digits_data.blank().train.images
    return compile_step(Machine(images.shape[1], 500, 0), images, 20, 20, 5, 0.05)


# Pictures


def tiled(images: NDArray[np.float32], columns: int) -> NDArray[np.uint8]:
    """Square pictures side by side, from the least (black) to the largest value (white) of each, with gaps between them."""
    side = isqrt(images.shape[1])
    rows = -(-len(images) // columns)
    low, high = images.min(axis=1, keepdims=True), images.max(axis=1, keepdims=True)
    shades = np.zeros((rows * columns, side + 1, side + 1), np.uint8)
    shades[: len(images), :side, :side] = (255 * (images - low) / np.maximum(high - low, 1e-9)).reshape(
        -1, side, side
    )
    whole = shades.reshape(rows, columns, side + 1, side + 1).swapaxes(1, 2)
    return whole.reshape(rows * (side + 1), columns * (side + 1))[:-1, :-1]


def write_pgm(path: Path, picture: NDArray[np.uint8]) -> None:
    """A picture in grey: portable graymap, binary."""
    path.write_bytes(b"P5\n%d %d\n255\n" % picture.shape[::-1] + np.ascontiguousarray(picture).tobytes())


def as_text(image: NDArray[np.float32]) -> str:
    """A square picture of values in [0,1] as characters, two pixels high each."""
    side = isqrt(len(image))
    rows = image.reshape(side, side)[: side // 2 * 2].reshape(-1, 2, side).mean(axis=1)
    last = len(SHADES) - 1
    return "\n".join("".join(SHADES[round(float(x) * last)] for x in row).rstrip() for row in rows)


# The program


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", metavar="PATH", help=digits_data.HELP.replace("%", "%%"))
    parser.add_argument("--hidden", type=some, default=500, help="units (%(default)s)")
    parser.add_argument("--batch", type=some, default=20, help="digits a step (%(default)s)")
    parser.add_argument("--chains", type=some, default=20, help="Markov chains that go on (%(default)s)")
    parser.add_argument(
        "--steps", type=some, default=5, help="of Gibbs sampling for a step of learning (%(default)s)"
    )
    parser.add_argument("--rate", type=positive, default=0.05, help="learning rate (%(default)s)")
    parser.add_argument("--epochs", type=whole, default=5, help="(%(default)s)")
    parser.add_argument("--samples", type=some, default=6, help="rows of samples (%(default)s)")
    parser.add_argument("--between", type=some, default=500, help="steps between two of them (%(default)s)")
    parser.add_argument("--seed", type=whole, default=0, help="of weights, order and draws (%(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path("build/rbm"), help="folder for pictures (%(default)s)"
    )
    return parser.parse_args()


def train(machine: Machine, digits: digits_data.Digits, options: argparse.Namespace) -> None:
    images, unseen = digits.train.images, digits.valid.images
    count = len(images) // options.batch
    if count == 0:
        raise digits_data.DataError(f"a batch of {options.batch} needs more than {len(images)} digits")
    step = compile_step(machine, images, options.batch, options.chains, options.steps, options.rate)
    energy = compile_energy(machine)
    rng, seconds = np.random.default_rng(options.seed), []
    for epoch in range(options.epochs):
        guesses = []
        for index in rng.permutation(count):
            start = time.perf_counter()
            guesses.append(float(step(int(index))))
            seconds.append(time.perf_counter() - start)
        seen = float(energy(images[: len(unseen)]))
        print(
            f"rbm: epoch {epoch + 1:3}/{options.epochs}   pseudo-likelihood {statistics.fmean(guesses):.2f}   free energy "
            f"{seen:.2f} (unseen digits {float(energy(unseen)):.2f})   {sum(seconds[-count:]):.2f} s",
            flush=True,
        )
    if seconds:
        middle = statistics.median(seconds)
        print(f"rbm: {1e3 * middle:.2f} ms a step, {1 / middle:,.1f} steps a second")


def run(options: argparse.Namespace) -> None:
    digits = digits_data.load(options.data)
    pixels = digits.train.images.shape[1]
    if isqrt(pixels) ** 2 != pixels:
        raise digits_data.DataError(f"pictures are drawn of square digits, got {pixels} pixels")
    machine = Machine(pixels, options.hidden, options.seed)
    train(machine, digits, options)
    options.out.mkdir(parents=True, exist_ok=True)
    filters = machine.weights.get_value().T
    write_pgm(options.out / "filters.pgm", tiled(filters[:100], 10))
    sample = compile_sample(machine, np.round(digits.test.images[:10]), options.between)
    rows = [sample() for _ in range(options.samples)]
    write_pgm(options.out / "samples.pgm", tiled(np.concatenate(rows), len(rows[0])))
    print(as_text(rows[-1][0]))
    print("wrote", options.out / "filters.pgm", options.out / "samples.pgm")


def main() -> int:
    try:
        run(arguments())
    except (digits_data.DataError, OSError) as e:
        print(f"rbm.py: error: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
