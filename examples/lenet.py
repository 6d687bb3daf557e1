"""LeNet on handwritten digits: two layers of convolution and pooling, one of tanh units, softmax (LeCun et al. 1998).

python examples/lenet.py                        # MNIST; --help shows what else there is
python examples/lenet.py --dropout 0.5          # units are left out at random while it learns
tcc dump examples/lenet.py:train_step           # its training step at every stage; needs no data set
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from math import isqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

import digits_data
import tcc
import tcc.tensor as T
from digits import CLASSES, Model, compile_step, glorot, train
from optimizers import OPTIMIZERS, Expression, sgd
from tcc.tensor.signal.pool import pool_2d

FILTER = 5  # rows and columns of a filter
BOOK_EPOCH_SECONDS = 108 * 60 / 1000  # of 50,000 digits, on a GTX 980M


def filters(rng: np.random.Generator, count: int, channels: int) -> NDArray[np.float32]:
    """Uniform as Glorot and Bengio have it, for what a filter reads and what reads it after pooling."""
    area = FILTER * FILTER
    limit = np.sqrt(6 / (channels * area + count * area / 4))
    return rng.uniform(-limit, limit, (count, channels, FILTER, FILTER)).astype(np.float32)


def dropped(x: Expression, share: float, noise: tcc.random.Stream) -> Expression:
    """`x` with this share of its elements zero, drawn anew in each call, the others 1 / (1 - share) times as large.

    Srivastava et al. 2014, scaled while training, so that nothing is left to do when the network is used.
    """
    return x * noise.bernoulli(x.shape, p=1 - share, dtype="float32") / np.float32(1 - share)


def lenet(pixels: int, first: int, second: int, hidden: int, seed: int, dropout: float = 0) -> Model:
    """softmax(tanh(layer(layer(x)) W3 + b3) W4 + b4), where layer(x) is tanh(2 x 2 maxima of x * W + b).

    With dropout, that share of what the last two products read is dropped while training.
    """
    rng = np.random.default_rng(seed)
    side = isqrt(pixels)
    x, y = T.matrix("x"), T.ivector("y")
    image = x.reshape((-1, 1, side, side))
    parameters = []
    channels = 1
    for k, count in enumerate((first, second), 1):
        w = tcc.shared(filters(rng, count, channels), f"W{k}")
        b = tcc.shared(np.zeros(count, np.float32), f"b{k}")
        shape = (count, channels, FILTER, FILTER)
        pooled = pool_2d(T.nnet.conv2d(image, w, filter_shape=shape), (2, 2), ignore_border=True)
        image = T.tanh(pooled + b.dimshuffle("x", 0, "x", "x"))
        parameters += [w, b]
        channels, side = count, (side - FILTER + 1) // 2
    w3 = tcc.shared(glorot(rng, channels * side * side, hidden), "W3")
    b3 = tcc.shared(np.zeros(hidden, np.float32), "b3")
    w4 = tcc.shared(glorot(rng, hidden, CLASSES), "W4")
    b4 = tcc.shared(np.zeros(CLASSES, np.float32), "b4")
    parameters += [w3, b3, w4, b4]
    noise = tcc.random.Stream(seed)

    def classes(drop: Callable[[Expression], Expression]) -> Expression:
        inner = T.tanh(T.dot(drop(image.flatten(2)), w3) + b3)
        return T.nnet.softmax(T.dot(drop(inner), w4) + b4)

    noisy = classes(lambda v: dropped(v, dropout, noise)) if dropout else None
    return Model("lenet", x, y, classes(lambda v: v), parameters, noisy)


def train_step() -> Callable[[int], Any]:
    """One step of gradient descent over blank digits: something to dump and to look at."""
    data = digits_data.blank().train
    model = lenet(data.images.shape[1], 20, 50, 500, seed=0)
    return compile_step(model, data, 500, sgd(model.parameters, tcc.grad(model.cost, model.parameters), 0.1))


def share(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"wanted a share of at least 0 and less than 1, got {text}")
    return value


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", metavar="PATH", help=digits_data.HELP.replace("%", "%%"))
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="nesterov", help="(%(default)s)")
    parser.add_argument("--rate", type=float, default=0.05, help="learning rate (%(default)s)")
    parser.add_argument("--filters", type=int, nargs=2, default=(20, 50), help="of the layers (20 50)")
    parser.add_argument("--hidden", type=int, default=500, help="tanh units (%(default)s)")
    parser.add_argument(
        "--dropout", type=share, default=0, metavar="P", help="of what the last two layers read (no)"
    )
    parser.add_argument("--batch", type=int, default=500, help="digits a step (%(default)s)")
    parser.add_argument("--epochs", type=int, default=10, help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and order (%(default)s)")
    return parser.parse_args()


def run(options: argparse.Namespace) -> None:
    digits = digits_data.load(options.data)
    pixels = digits.train.images.shape[1]
    if isqrt(pixels) ** 2 != pixels or isqrt(pixels) < 16:
        raise digits_data.DataError(
            f"LeNet needs square digits of 16 x 16 pixels or more, got {pixels} pixels"
        )
    first, second = options.filters
    model = lenet(pixels, first, second, options.hidden, options.seed, options.dropout)
    gradients = tcc.grad(model.cost, model.parameters)
    updates = OPTIMIZERS[options.optimizer][0](model.parameters, gradients, options.rate)
    history = train(model, digits, updates, options.batch, options.epochs, options.seed)
    step = statistics.median(history.step_seconds)
    book = BOOK_EPOCH_SECONDS * options.batch / 50_000
    print(f"lenet: {1e3 * step:.2f} ms a step (the book's GTX 980M: {1e3 * book:.0f} ms for as many digits)")
    print(f"lenet: test error {100 * history.test_error:.2f} %")


def main() -> int:
    try:
        run(arguments())
    except digits_data.DataError as e:
        print(f"lenet.py: error: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
