"""Two classifiers of handwritten digits, trained from scratch: softmax regression, and a network with one hidden layer.

python examples/digits.py                       # MNIST; --help shows what else there is
tcc dump examples/digits.py:train_step          # the network's training step at every stage; needs no data set
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import digits_data
import tcc
import tcc.tensor as T
from digits_data import Digits, Part
from optimizers import OPTIMIZERS, Expression, Shared, Updates, clip_norm, sgd

tcc.config.floatX = "float32"

CLASSES = 10
BOOK_STEPS, BOOK_GPU_SECONDS, BOOK_CPU_SECONDS = 83_000, 355, 3_096  # of this network on a GTX 980M, on an i7


@dataclass(frozen=True)
class Model:
    """A symbolic classifier: images `x` [n,pixels], labels `y` [n], class probabilities [n,10].

    `noisy` are the probabilities that it is trained by, where they are others (dropout).
    """

    name: str
    x: Expression
    y: Expression
    probabilities: Expression
    parameters: list[Shared]
    noisy: Expression | None = None

    @property
    def cost(self) -> Expression:
        """The mean negative log likelihood of the right labels, while training."""
        probabilities = self.probabilities if self.noisy is None else self.noisy
        return -T.mean(T.log(probabilities)[T.arange(self.y.shape[0]), self.y])

    @property
    def error(self) -> Expression:
        """The share of images whose most probable class is wrong."""
        return T.mean(T.neq(T.argmax(self.probabilities, axis=1), self.y))


def linear(pixels: int) -> Model:
    """softmax(x W + b), started at zero."""
    x, y = T.matrix("x"), T.ivector("y")
    w = tcc.shared(np.zeros((pixels, CLASSES), np.float32), "W")
    b = tcc.shared(np.zeros(CLASSES, np.float32), "b")
    return Model("linear", x, y, T.nnet.softmax(T.dot(x, w) + b), [w, b])


def mlp(pixels: int, hidden: int, seed: int) -> Model:
    """softmax(tanh(x W1 + b1) W2 + b2), with Glorot's initialisation."""
    rng = np.random.default_rng(seed)
    x, y = T.matrix("x"), T.ivector("y")
    w1 = tcc.shared(glorot(rng, pixels, hidden), "W1")
    b1 = tcc.shared(np.zeros(hidden, np.float32), "b1")
    w2 = tcc.shared(glorot(rng, hidden, CLASSES), "W2")
    b2 = tcc.shared(np.zeros(CLASSES, np.float32), "b2")
    inner = T.tanh(T.dot(x, w1) + b1)
    return Model("mlp", x, y, T.nnet.softmax(T.dot(inner, w2) + b2), [w1, b1, w2, b2])


def glorot(rng: np.random.Generator, inputs: int, outputs: int) -> NDArray[np.float32]:
    """Uniform in +-sqrt(6 / (inputs + outputs))  (Glorot and Bengio 2010)."""
    limit = np.sqrt(6 / (inputs + outputs))
    return rng.uniform(-limit, limit, (inputs, outputs)).astype(np.float32)


def compile_step(model: Model, data: Part, batch: int, updates: Updates) -> Callable[[int], Any]:
    """f(index) -> the cost on minibatch `index` of `data`, which is kept in shared variables; applies `updates`."""
    index = T.lscalar("index")
    rows = slice(index * batch, (index + 1) * batch)
    images, labels = tcc.shared(data.images, "images"), tcc.shared(data.labels, "labels")
    givens = {model.x: images[rows], model.y: labels[rows]}
    step: Callable[[int], Any] = tcc.function(
        [index], model.cost, updates=updates, givens=givens, name=f"{model.name}_step"
    )
    return step


def compile_error(model: Model, data: Part, batch: int = 1000) -> Callable[[], float]:
    """f() -> the error on `data`, of which it takes `batch` digits at a time."""
    index = T.lscalar("index")
    rows = slice(index * batch, (index + 1) * batch)
    givens = {model.x: tcc.shared(data.images)[rows], model.y: tcc.shared(data.labels)[rows]}
    part = tcc.function([index], model.error, givens=givens, name=f"{model.name}_error")
    count = len(data.labels)

    def error() -> float:
        starts = range(0, count, batch)
        return sum(float(part(k)) * min(batch, count - at) for k, at in enumerate(starts)) / count

    return error


def compile_predict(model: Model) -> Callable[[NDArray[np.float32]], NDArray[np.int64]]:
    """f(images) -> the most probable classes."""
    most_probable = T.argmax(model.probabilities, axis=1)
    predict: Callable[[NDArray[np.float32]], NDArray[np.int64]] = tcc.function(
        [model.x], most_probable, name=f"{model.name}_predict"
    )
    return predict


def train_step() -> Callable[[int], Any]:
    """One step of plain gradient descent of the network, over blank digits: something to dump and to look at."""
    data = digits_data.blank().train
    model = mlp(data.images.shape[1], hidden=500, seed=0)
    return compile_step(model, data, 600, sgd(model.parameters, tcc.grad(model.cost, model.parameters), 0.1))


# Training


@dataclass
class History:
    """What was seen while a model was trained."""

    costs: list[float] = field(default_factory=list)  # mean over each epoch
    valid_errors: list[float] = field(default_factory=list)
    test_error: float = 1.0
    step_seconds: list[float] = field(default_factory=list)


def train(model: Model, digits: Digits, updates: Updates, batch: int, epochs: int, seed: int) -> History:
    """Runs `epochs` times over the minibatches of the training set, in an order drawn anew for each epoch."""
    steps = len(digits.train.labels) // batch
    if steps == 0:
        raise digits_data.DataError(f"a batch of {batch} needs more than {len(digits.train.labels)} digits")
    start = time.perf_counter()
    step = compile_step(model, digits.train, batch, updates)
    valid_error = compile_error(model, digits.valid)
    print(
        f"{model.name}: compiled in {time.perf_counter() - start:.2f} s, {steps} steps an epoch", flush=True
    )
    rng, history = np.random.default_rng(seed), History()
    for epoch in range(epochs):
        costs = []
        for index in rng.permutation(steps):
            start = time.perf_counter()
            costs.append(float(step(int(index))))
            history.step_seconds.append(time.perf_counter() - start)
        history.costs.append(statistics.fmean(costs))
        history.valid_errors.append(valid_error())
        seconds = sum(history.step_seconds[-steps:])
        print(
            f"{model.name}: epoch {epoch + 1:3}/{epochs}   cost {history.costs[-1]:.4f}"
            f"   validation error {100 * history.valid_errors[-1]:5.2f} %   {seconds:.2f} s",
            flush=True,
        )
    history.test_error = compile_error(model, digits.test)()
    return history


# What is left behind


def save(model: Model, folder: Path) -> Path:
    """The parameters under their names, in an .npz file."""
    path = folder / f"{model.name}.npz"
    np.savez(path, allow_pickle=False, **{p.name: p.get_value() for p in model.parameters})
    return path


def plot(histories: dict[str, History], path: Path) -> Path:
    """The curves of the cost and of the validation error, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name, history in histories.items():
        epochs = range(1, len(history.costs) + 1)
        left.semilogy(epochs, history.costs, label=name)
        right.plot(epochs, [100 * error for error in history.valid_errors], label=name)
    left.set(xlabel="epoch", ylabel="training cost", title="negative log likelihood")
    right.set(xlabel="epoch", ylabel="%", title="validation error")
    for axes in (left, right):
        axes.grid(True, which="both", alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120)
    return path


def speed(seconds: Sequence[float], pixels: int, hidden: int, batch: int) -> str:
    """The median time of a step, set against what the machine, or its GPU, could do and against the book's figures."""
    from tcc.devices import arch_of, chosen
    from tcc.devicetimes import peak
    from tcc.runtime.threads import thread_count
    from tcc.tools.peak import fma_peak

    step = statistics.median(seconds)
    products = batch * (
        4 * pixels * hidden + 6 * hidden * CLASSES
    )  # two products of the first layer, three of the second
    threads = thread_count()
    device: Any = chosen(None)
    most = peak(device, arch_of(device), "f32") if device else fma_peak(threads)
    where = device.name if device else f"{threads} thread{'s' * (threads > 1)}"
    share = products / step / most
    gpu, cpu = BOOK_GPU_SECONDS / BOOK_STEPS, BOOK_CPU_SECONDS / BOOK_STEPS
    return (
        f"mlp: {1e3 * step:.2f} ms a step on {where}, {100 * share:.0f} % of the FMA peak\n"
        f"     {gpu / step:.2g} x as fast as the book's GTX 980M ({1e3 * gpu:.1f} ms a step), "
        f"{cpu / step:.2g} x as fast as its i7 ({1e3 * cpu:.1f} ms)"
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", metavar="PATH", help=digits_data.HELP.replace("%", "%%"))
    parser.add_argument(
        "--optimizer", choices=OPTIMIZERS, default="nesterov", help="for the network (%(default)s)"
    )
    parser.add_argument(
        "--rate", type=float, help="the network's learning rate (one that suits the optimizer)"
    )
    parser.add_argument("--clip", type=float, default=0, metavar="NORM", help="clip the gradient's norm (no)")
    parser.add_argument("--hidden", type=int, default=500, help="units of the hidden layer (%(default)s)")
    parser.add_argument("--batch", type=int, default=600, help="digits a step (%(default)s)")
    parser.add_argument("--epochs", type=int, default=15, help="for the network (%(default)s)")
    parser.add_argument("--linear-epochs", type=int, default=60, help="for softmax regression (%(default)s)")
    parser.add_argument(
        "--seed", type=int, default=0, help="of weights and of the minibatches' order (%(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("build/digits"), help="folder for results (%(default)s)"
    )
    return parser.parse_args()


def run(options: argparse.Namespace) -> None:
    digits = digits_data.load(options.data)
    pixels = digits.train.images.shape[1]
    sizes = ", ".join(f"{len(part.labels):,} {name}" for name, part in digits._asdict().items())
    print(f"digits of {pixels} pixels: {sizes}", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)

    first = linear(pixels)
    updates = sgd(first.parameters, tcc.grad(first.cost, first.parameters), 0.13)
    histories = {"linear": train(first, digits, updates, options.batch, options.linear_epochs, options.seed)}

    second = mlp(pixels, options.hidden, options.seed)
    optimizer, rate = OPTIMIZERS[options.optimizer]
    gradients = tcc.grad(second.cost, second.parameters)
    if options.clip:
        gradients = clip_norm(gradients, options.clip)
    updates = optimizer(second.parameters, gradients, options.rate or rate)
    histories["mlp"] = train(second, digits, updates, options.batch, options.epochs, options.seed)

    print("wrote", *(save(model, options.out) for model in (first, second)))
    if find_spec("matplotlib"):
        print("wrote", plot(histories, options.out / "losses.png"))
    else:
        print("no plot of the losses: matplotlib is not installed")
    shown = digits.test.images[:20]
    print("the first test digits:", *digits.test.labels[:20])
    print("       the mlp reads: ", *compile_predict(second)(shown))
    print(speed(histories["mlp"].step_seconds, pixels, options.hidden, options.batch))
    for name, history in histories.items():
        print(f"{name}: test error {100 * history.test_error:.2f} %")


def main() -> int:
    try:
        run(arguments())
    except digits_data.DataError as e:
        print(f"digits.py: error: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
