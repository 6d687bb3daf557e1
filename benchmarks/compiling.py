"""`python -m benchmarks.compiling`: how long tcc takes from a graph to its first result, without a cache.

Chains and mixed graphs of n nodes show whether that is linear in n; the others are what users wait for.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

CHAINS = (1000, 2000, 4000, 8000)
Expression = Any


def arrays(*shape: int) -> Any:
    """Small numbers that are the same every time."""
    count = int(np.prod(shape))
    return (np.sin(np.arange(count)) / max(1, shape[0]) ** 0.5).reshape(shape).astype("float32")


def chain(count: int) -> Callable[[], Any]:
    """`count` elementwise operations, each on the result of the one before."""
    import tcc
    import tcc.tensor as T

    x = T.fvector("x")
    y = x
    for k in range(count // 2):
        y = (T.tanh(y) if k % 7 == 0 else abs(y)) + np.float32(k % 5 + 1)
    f = tcc.function([x], y)
    return lambda: f(arrays(64))


def mixed(count: int) -> Callable[[], Any]:
    """A training step of about `count` nodes in the frontend's graph: products, reductions, elementwise, their gradients."""
    import tcc
    import tcc.tensor as T

    x = T.fmatrix("x")
    h = x
    parameters = []
    for k in range(max(1, count // 75)):
        w, b = tcc.shared(arrays(16, 16), f"w{k}"), tcc.shared(arrays(16), f"b{k}")
        parameters += [w, b]
        h = T.tanh(T.dot(h, w) + b)
        h = h - h.mean(axis=0)
        h = h / T.sqrt((h * h).mean(axis=0) + np.float32(1))
    cost = (h * h).mean()
    slopes = tcc.grad(cost, parameters)
    step = tcc.function(
        [x], cost, updates=[(p, p - np.float32(0.01) * g) for p, g in zip(parameters, slopes)]
    )
    return lambda: step(arrays(8, 16))


def layers(count: int) -> Callable[[], Any]:
    """The outputs of an MLP of that depth."""
    import tcc
    import tcc.tensor as T

    x = T.fmatrix("x")
    h = x
    for k in range(count):
        h = T.tanh(T.dot(h, tcc.shared(arrays(64, 64), f"w{k}")) + tcc.shared(arrays(64), f"b{k}"))
    f = tcc.function([x], h)
    return lambda: f(arrays(32, 64))


def residual(count: int) -> Callable[[], Any]:
    """A training step of a residual net of dense layers with batch normalisation, two to a block, with momentum."""
    import tcc
    import tcc.tensor as T

    x, y = T.fmatrix("x"), T.lvector("y")
    parameters = []

    def parameter(name: str, *shape: int) -> Expression:
        parameters.append(tcc.shared(arrays(*shape), name))
        return parameters[-1]

    def dense(h: Expression, name: str) -> Expression:
        z = T.dot(h, parameter(f"w{name}", 64, 64))
        centred = z - z.mean(axis=0)
        normal = centred / T.sqrt((centred * centred).mean(axis=0) + np.float32(1e-5))
        return normal * parameter(f"gamma{name}", 64) + parameter(f"beta{name}", 64)

    h = x
    for k in range(count // 2):
        h = T.nnet.relu(h + dense(T.nnet.relu(dense(h, f"{k}a")), f"{k}b"))
    out = T.nnet.softmax(T.dot(h, parameter("w", 64, 10)))
    cost = -T.mean(T.log(out)[T.arange(y.shape[0]), y])
    updates = []
    for p, g in zip(parameters, tcc.grad(cost, parameters)):
        v = tcc.shared(np.zeros_like(p.get_value()))
        new = np.float32(0.9) * v - np.float32(0.01) * g
        updates += [(v, new), (p, p + new)]
    step = tcc.function([x, y], cost, updates=updates)
    return lambda: step(arrays(32, 64), np.arange(32) % 10)


def functions(count: int) -> Callable[[], Any]:
    """Functions of an operation or two, each compiled and called once."""
    import tcc
    import tcc.tensor as T

    unary = (T.tanh, T.exp, T.sqrt, T.log1p, abs, T.sin, T.cos, T.sqr)

    def run() -> None:
        for k in range(count):
            x = T.fvector("x") if k % 3 else T.fmatrix("x")
            y = unary[k % 8](x) + np.float32(k % 11)
            tcc.function([x], y.sum() if k % 5 == 0 else y)(arrays(8) if k % 3 else arrays(4, k % 9 + 1))

    return run


KINDS = {f.__name__: f for f in (chain, mixed, layers, residual, functions)}
CASES = (
    *(("chain", n) for n in CHAINS),
    *(("mixed", n) for n in CHAINS),
    ("layers", 164),
    ("residual", 164),
    ("functions", 1000),
)


def measure(kind: str, count: int) -> None:
    """Prints the seconds for one case, in this process."""
    from benchmarks.peers.tcc_peer import warm_up

    warm_up()
    KINDS["chain"](2)()  # what is loaded once a process
    start = time.perf_counter()
    run = KINDS[kind](count)
    built = time.perf_counter()
    run()
    end = time.perf_counter()
    print(f"{end - start:.3f} {built - start:.3f}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compiling")
    parser.add_argument("--only", metavar="KIND", choices=KINDS, help="one kind of case")
    parser.add_argument("--case", nargs=2, metavar=("KIND", "N"), help="one case, in this process")
    options = parser.parse_args()
    if options.case:
        measure(options.case[0], int(options.case[1]))
        return 0
    last: tuple[str, float] = ("", 0)
    for kind, count in CASES:
        if options.only not in (None, kind):
            continue
        with tempfile.TemporaryDirectory(prefix="tcc-bench-") as folder:
            command = [sys.executable, "-m", "benchmarks.compiling", "--case", kind, str(count)]
            environment = {**os.environ, "TCC_CACHE_DIR": folder, "PYTHONDONTWRITEBYTECODE": ""}
            told = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
        total, graph = map(float, told.split())
        more = f"   {total / last[1]:.2f} x the one before" if last[0] == kind else ""
        print(f"{kind:10} {count:5} {total:8.3f} s, of it {graph:.3f} for the graph{more}", flush=True)
        last = kind, total
    return 0


if __name__ == "__main__":
    sys.exit(main())
