"""An op of one's own: sparsemax, in NumPy, with a gradient, trained through inside a loop.

sparsemax(z) is the point of the simplex that is nearest to z (Martins and Astudillo 2016): like softmax it gives weights
that add up to one, but most of them are zero.  Here a reader looks at a set of items several times, at each look weighs
them by sparsemax, and has to find the pair of items that belong together.

python examples/user_op.py                      # --help shows what else there is
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

import tcc
import tcc.tensor as T
from characters import positive, some, whole
from digits import glorot
from optimizers import Expression, adam, clip_norm

tcc.config.floatX = "float32"

Array = NDArray[Any]


class Sparsemax(tcc.Op):
    """For each row z of a matrix, the p >= 0 with sum(p) = 1 that is nearest to z."""

    __props__ = ()  # the names of its attributes: ops are equal where these are

    def make_node(self, z: Any) -> tcc.Apply:
        """Says what the op takes and gives; TypeError for what it does not take."""
        z = T.as_tensor_variable(z)
        if z.ndim != 2 or z.dtype not in ("float32", "float64"):
            raise TypeError(f"Sparsemax wants a matrix of floats, got {z.type}")
        return tcc.Apply(self, [z], [z.type()])

    def perform(self, node: Any, inputs: list[Array], output_storage: list[list[Any]]) -> None:
        """p = max(z - t, 0), where t is so that p adds up to one: found by sorting."""
        (z,) = inputs
        if z.size == 0:
            output_storage[0][0] = z.copy()
            return
        falling = -np.sort(-z, axis=1)
        over = np.cumsum(falling, axis=1) - 1
        rank = np.arange(1, z.shape[1] + 1, dtype=z.dtype)
        support = (falling * rank > over).sum(axis=1, keepdims=True)
        threshold = np.take_along_axis(over, support - 1, axis=1) / support.astype(z.dtype)
        output_storage[0][0] = np.maximum(z - threshold, 0)

    def infer_shape(self, node: Any, shapes: list[Any]) -> list[Any]:
        """With it, sizes are known without running the op; without it, it is run to tell them."""
        return shapes

    def L_op(self, inputs: list[Any], outputs: list[Any], output_grads: list[Any]) -> list[Expression]:
        """The gradient by z, given that by p: what g is above its mean, over the elements that are not zero."""
        (p,), (g,) = outputs, output_grads
        support = T.cast(p > 0, p.dtype)
        mean = (support * g).sum(axis=1, keepdims=True) / support.sum(axis=1, keepdims=True)
        return [support * (g - mean)]


sparsemax = Sparsemax()


@tcc.as_op(itypes=[T.fvector, T.fvector], otypes=[T.fscalar], infer_shape=lambda node, shapes: [()])
def rank_correlation(a: Array, b: Array) -> Array:
    """Spearman's: how far the order of `a` is that of `b`, from -1 to 1.  A function needs no class, if nobody asks its gradient."""
    first, second = (np.argsort(np.argsort(v)).astype(np.float64) for v in (a, b))
    return np.asarray(np.corrcoef(first, second)[0, 1], np.float32)


def problems(rng: np.random.Generator, n: int, items: int, width: int) -> tuple[Array, Array]:
    """Sets of items [n, items, 3 width + 1]: (marked?, key, pointer, number).  The marked one's pointer is another one's key,
    whose number is wanted: [n].
    """
    keys = rng.standard_normal((n, items, width))
    pointers = rng.standard_normal((n, items, width))
    numbers = rng.uniform(-1, 1, (n, items))
    marked, wanted = np.argsort(rng.random((n, items)), axis=1)[:, :2].T
    rows = np.arange(n)
    pointers[rows, marked] = keys[rows, wanted]
    mark = np.zeros((n, items))
    mark[rows, marked] = 1
    sets = np.concatenate([mark[..., None], keys, pointers, numbers[..., None]], axis=2)
    return sets.astype(np.float32), numbers[rows, wanted].astype(np.float32)


class Reader:
    """Looks `looks` times at a set; what it looks for is made of what it saw last."""

    def __init__(self, width: int, units: int, looks: int, seed: int) -> None:
        rng, features = np.random.default_rng(seed), 2 * width + 2
        self.looks = looks
        self.first = tcc.shared(np.zeros(features, np.float32), "first")
        self.inner = tcc.shared(glorot(rng, features, units), "inner")
        self.query = tcc.shared(glorot(rng, units, features), "query")
        self.skip = tcc.shared(glorot(rng, features, features), "skip")
        self.out = tcc.shared(glorot(rng, features, 1)[:, 0], "out")
        self.parameters = [self.first, self.inner, self.query, self.skip, self.out]

    def read(self, sets: Expression) -> tuple[Expression, Expression]:
        """The number that is guessed for each set [n], and the weights of its items at each look [looks, n, items]."""
        start = T.alloc(self.first, sets.shape[0], self.first.shape[0])

        def look(query: Expression) -> tuple[Expression, Expression, Expression]:
            scores = T.batched_dot(sets, query)
            weights = sparsemax(scores)
            seen = T.batched_dot(weights, sets)
            return T.dot(T.tanh(T.dot(seen, self.inner)), self.query) + T.dot(seen, self.skip), seen, weights

        (_, seen, weights), _ = tcc.scan(look, outputs_info=[start, None, None], n_steps=self.looks)
        return T.dot(seen[-1], self.out), weights


def compile_step(reader: Reader, rate: float) -> Callable[[Array, Array], list[Any]]:
    """f(sets, numbers) -> the mean square error, the share of weights that are zero, and the rank correlation; learns."""
    sets, numbers = T.tensor3("sets"), T.vector("numbers")
    guessed, weights = reader.read(sets)
    cost = T.sqr(guessed - numbers).mean()
    slopes = clip_norm(tcc.grad(cost, reader.parameters), 1.0)
    zeros = T.eq(weights, 0).mean(dtype="float32")
    step: Callable[[Array, Array], list[Any]] = tcc.function(
        [sets, numbers],
        [cost, zeros, rank_correlation(guessed, numbers)],
        updates=adam(reader.parameters, slopes, rate),
        name="reader_step",
    )
    return step


def train_step() -> Callable[[Array, Array], list[Any]]:
    """The step with its defaults: something to dump and to look at."""
    return compile_step(Reader(4, 32, 2, 0), 0.005)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--items", type=some, default=6, help="of a set, 2 or more (%(default)s)")
    parser.add_argument("--width", type=some, default=4, help="numbers of a key (%(default)s)")
    parser.add_argument("--units", type=some, default=32, help="of the reader (%(default)s)")
    parser.add_argument("--looks", type=some, default=2, help="at each set (%(default)s)")
    parser.add_argument("--batch", type=some, default=128, help="sets a step, 2 or more (%(default)s)")
    parser.add_argument("--steps", type=whole, default=3000, help="(%(default)s)")
    parser.add_argument("--rate", type=positive, default=0.005, help="learning rate (%(default)s)")
    parser.add_argument("--seed", type=whole, default=0, help="of weights and of problems (%(default)s)")
    options = parser.parse_args()
    if options.items < 2 or options.batch < 2:
        parser.error(f"wanted 2 or more items and sets, got --items {options.items} --batch {options.batch}")
    return options


def run(options: argparse.Namespace) -> None:
    rng = np.random.default_rng(options.seed)
    tcc.verify_grad(sparsemax, [rng.standard_normal((3, 5))], rng=rng)
    print("sparsemax: its gradient agrees with finite differences")
    reader = Reader(options.width, options.units, options.looks, options.seed)
    step = compile_step(reader, options.rate)
    every, seconds = max(options.steps // 10, 1), []
    for first in range(0, options.steps, every):
        rows = []
        for _ in range(min(every, options.steps - first)):
            sets, numbers = problems(rng, options.batch, options.items, options.width)
            start = time.perf_counter()
            rows.append([float(v) for v in step(sets, numbers)])
            seconds.append(time.perf_counter() - start)
        cost, zeros, order = (statistics.fmean(column) for column in zip(*rows))
        print(
            f"step {first + len(rows):5}   square error {cost:.4f}   {100 * zeros:.0f} % of the weights are zero"
            f"   rank correlation {order:.2f}",
            flush=True,
        )
    if seconds:
        middle = statistics.median(seconds)
        print(f"{1e3 * middle:.3f} ms a step, {1 / middle:,.0f} steps a second")


def main() -> int:
    try:
        run(arguments())
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
