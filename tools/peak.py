"""What this machine can do at best: multiply-adds on registers alone, and bytes read from memory."""

from __future__ import annotations

import ctypes
import functools
import threading
import time

import numpy as np

from tcc.codegen.emit import Emit
from tcc.codegen.jit import Image, compile_object, function
from tcc.codegen.target import Target, host

ACCUMULATORS = (
    24  # enough independent chains to hide the latency of a multiply-add, few enough to stay in registers
)
UNROLL = 4
RUNS = 12


@functools.cache
def fma_peak(threads: int = 1, elem: str = "float") -> float:
    """Floating-point operations a second (a multiply-add counts as two) that `threads` threads reach together."""
    target = host()
    lanes = target.vector(elem).lanes
    image = Image.load([compile_object(_loop(target, elem), target)])
    run = function(image.address("peak"), None, ctypes.c_int64, ctypes.c_void_p)
    rounds = 1_000_000
    values = [np.zeros((ACCUMULATORS + 1, lanes), "f4" if elem == "float" else "f8") for _ in range(threads)]
    gate = threading.Barrier(threads)
    spans = np.zeros((threads, RUNS, 2))

    def work(thread: int) -> None:
        for k in range(RUNS):
            gate.wait()
            spans[thread, k, 0] = time.perf_counter()
            run(rounds, values[thread].ctypes.data)
            spans[thread, k, 1] = time.perf_counter()

    others = [threading.Thread(target=work, args=(thread,)) for thread in range(1, threads)]
    for other in others:
        other.start()
    work(0)
    for other in others:
        other.join()
    seconds = (spans[:, :, 1].max(axis=0) - spans[:, :, 0].min(axis=0)).min()
    return float(threads * rounds * UNROLL * ACCUMULATORS * lanes * 2 / seconds)


def _loop(target: Target, elem: str) -> str:
    """`void @peak(i64 rounds, ptr values)`: every vector of `values` but the last grows by the square of the last."""
    e, v = Emit(), target.vector(elem)
    e.function("void @peak(i64 %rounds, ptr %values)")
    places = [e.gep("%values", k, str(v)) for k in range(ACCUMULATORS + 1)]
    *sums, factor = [e.value(f"load {v}, ptr {place}, align 4") for place in places]

    def body(_: str, carried: list[str]) -> list[str]:
        for _step in range(UNROLL):
            carried = [e.call(v, f"llvm.fma.{v.suffix}", (v, factor), (v, factor), (v, c)) for c in carried]
        return carried

    for value, place in zip(e.loop(0, "%rounds", 1, body, [(v, s) for s in sums]), places):
        e.line(f"store {v} {value}, ptr {place}, align 4")
    e.end()
    return "\n".join(e.declared) + "\n" + e.text()


@functools.cache
def copy_bandwidth(megabytes: int = 256) -> float:
    """Bytes a second, read and written, that one thread moves when NumPy copies what no cache holds."""
    source = np.ones(megabytes << 18, np.float32)
    sink = np.empty_like(source)
    seconds = []
    for _ in range(RUNS // 2):
        start = time.perf_counter()
        np.copyto(sink, source)
        seconds.append(time.perf_counter() - start)
    return 2 * source.nbytes / min(seconds)
