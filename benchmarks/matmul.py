"""`python -m benchmarks.matmul [--dtype f64] [--threads 2]`: the kernels of matrix products beside NumPy's library, by turns.

Set OPENBLAS_NUM_THREADS to the same number of threads, for NumPy reads it when it is loaded.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from tcc.codegen import engines, jit, support
from tcc.codegen.matmul import Matmul, matmul_kernel, matmul_scratch
from tcc.codegen.target import host
from tcc.runtime import layout as at
from tcc.runtime.threads import Pool
from tcc.tools.peak import fma_peak

Array = np.ndarray[Any, Any]
MLP = [
    *[("NN", 600, 500, 784), ("NN", 600, 10, 500)],
    *[("NT", 600, 500, 10), ("TN", 784, 500, 600), ("TN", 500, 10, 600)],
]
SQUARES = [(layout, s, s, s) for s in (64, 128, 256, 512, 1024, 2048) for layout in ("NN", "NT", "TN")]
THIN = [("NN", 1, 1000, 1000), ("NT", 1, 1000, 1000), ("TN", 1000, 1, 1000), ("NN", 20, 4096, 1024)]
ROUNDS = 7
SECONDS = 0.05  # that one side runs in a round
PAUSE = 0.03  # lets the other side's idle threads fall asleep


def kernel(dtype: str, a: Array, b: Array, c: Array, threads: int) -> tuple[Callable[[], None], float]:
    """A call of our kernel for exactly these operands, and the milliseconds that compiling it took."""
    m, n = c.shape
    k = a.shape[1]
    strides = [(x.strides[0] // x.itemsize, x.strides[1] // x.itemsize) for x in (a, b)]
    spec, target = Matmul(dtype, m, n, k, strides[0], strides[1], n), host()
    began = time.perf_counter()
    text = matmul_kernel("product", spec, target)
    code = jit.compile_object("\n".join([*sorted(text.declares), text.text]), target)
    spent = 1e3 * (time.perf_counter() - began)
    image = jit.Image.load([code], engines.addresses({text.engine: dtype}, target))
    run = jit.function(image.address("product"), ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)

    each = -(-matmul_scratch(spec, target) // 64) * 64
    pool, scratch = Pool(threads), np.zeros(threads * each + 64, np.uint8)
    ctx = (ctypes.c_int64 * at.CTX_SLOTS)()
    ctx[at.CTX_POOL], ctx[at.CTX_THREADS], ctx[at.CTX_SCRATCH_BYTES] = pool.address, threads, each
    ctx[at.CTX_SCRATCH] = -(-scratch.ctypes.data // 64) * 64
    args = (ctypes.c_int64 * 3)(*(x.ctypes.data for x in (a, b, c)))
    places = ctypes.addressof(ctx), ctypes.addressof(args)
    kept = (image, pool, scratch, ctx, args, a, b, c)

    def call() -> None:
        assert kept
        run(*places)

    return call, spent


def by_turns(*calls: Callable[[], object]) -> list[float]:
    """The median seconds of each call."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(ROUNDS):
        for call, mine in zip(calls, times, strict=True):
            time.sleep(PAUSE)
            call()
            start = time.perf_counter()
            while (before := time.perf_counter()) - start < SECONDS:
                call()
                mine.append(time.perf_counter() - before)
    return [statistics.median(mine) for mine in times]


def rows(dtype: str, threads: int) -> Iterator[str]:
    """One line of text a case."""
    np_dtype = np.dtype({"f32": "f4", "f64": "f8"}[dtype])
    peak = fma_peak(threads, {"f32": "float", "f64": "double"}[dtype])
    yield f"{dtype}, {threads} threads, peak {peak / 1e9:.0f} GFLOP/s"
    rng = np.random.default_rng(0)
    for layout, m, n, k in (*MLP, *THIN, *SQUARES):
        a = rng.standard_normal((k, m) if layout[0] == "T" else (m, k)).astype(np_dtype)
        b = rng.standard_normal((n, k) if layout[1] == "T" else (k, n)).astype(np_dtype)
        a, b = (x.T if turned == "T" else x for x, turned in zip((a, b), layout, strict=True))
        c, theirs = np.empty((m, n), np_dtype), np.empty((m, n), np_dtype)
        call, spent = kernel(dtype, a, b, c, threads)
        ours, numpy = by_turns(call, partial(np.dot, a, b, out=theirs))
        assert np.allclose(c, theirs, rtol=1e-4, atol=1e-3)
        flops = 2 * m * n * k
        yield (
            f"{layout} {m}x{n}x{k}: {flops / ours / 1e9:.1f} GFLOP/s ({flops / ours / peak:.0%} of peak), "
            f"NumPy {flops / numpy / 1e9:.1f}, {numpy / ours:.2f} times as fast, compiled in {spent:.1f} ms"
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.matmul", description=__doc__)
    parser.add_argument("--dtype", choices=("f32", "f64"), default="f32")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    support.load()
    for line in rows(options.dtype, options.threads):
        print(line, flush=True)


if __name__ == "__main__":
    main()
