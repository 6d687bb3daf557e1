"""What this machine can do at best: multiply-adds on registers alone, and bytes moved between memory and registers."""

from __future__ import annotations

import ctypes
import functools
import threading
import time
from collections.abc import Callable

import numpy as np

from tcc.codegen.emit import Emit, merge
from tcc.codegen.jit import Image, compile_object, function
from tcc.codegen.target import Target, host

ACCUMULATORS = (
    3 / 4
)  # of the registers: chains enough to hide the latency of a multiply-add, few enough not to be spilled
UNROLL = 4
RUNS = 60  # short ones, so that some fall between what else the machine does
BLOCK = 8  # vectors moved in one round of a loop over memory
PASS_SECONDS = 2e-3  # that passes over the same memory take together, at least


@functools.cache
def fma_peak(threads: int = 1, elem: str = "float") -> float:
    """Floating-point operations a second (a multiply-add counts as two) that `threads` threads reach together."""
    target = host()
    lanes = target.vector(elem).lanes
    image = Image.load([compile_object(multiply(target, elem), target)])
    run = function(image.address("peak"), None, ctypes.c_int64, ctypes.c_void_p)
    rounds = 50_000
    count = _chains(target)
    values = [np.zeros((count + 1, lanes), "f4" if elem == "float" else "f8") for _ in range(threads)]
    seconds = _together(threads, lambda thread: run(rounds, values[thread].ctypes.data))
    return float(threads * rounds * UNROLL * count * lanes * 2 / seconds)


@functools.cache
def read_bandwidth(nbytes: int = 256 << 20, threads: int = 1) -> float:
    """Bytes a second that `threads` threads together read of the same `nbytes`, again and again."""
    return _bandwidth("read", nbytes, threads)


@functools.cache
def copy_bandwidth(nbytes: int = 256 << 20, threads: int = 1) -> float:
    """Bytes a second, read and written, when `threads` threads copy one half of `nbytes` to the other again and again.

    The best of ordinary stores and those that go past the caches.
    """
    return max(_bandwidth(kind, nbytes, threads) for kind in ("copy", "stream"))


def _bandwidth(kind: str, nbytes: int, threads: int) -> float:
    target = host()
    run = function(_memory(target).address(kind), None, *[ctypes.c_int64] * 4)
    step = BLOCK * target.vector("float").bytes * target.vector("float").lanes
    each = max(1, nbytes // (1 if kind == "read" else 2) // threads // step)
    # ones, for the pages of zeros that nobody wrote to are one and the same
    arrays = [np.ones((2, each * step + 64), np.uint8) for _ in range(threads)]
    places = [[int(row.ctypes.data) + -int(row.ctypes.data) % 64 for row in pair] for pair in arrays]
    moved = threads * each * step * (1 if kind == "read" else 2)
    passes = max(1, int(PASS_SECONDS * 10e9 / moved))
    seconds = _together(threads, lambda thread: run(*places[thread], each, passes))
    return moved * passes / seconds


def _together(threads: int, work: Callable[[int], object]) -> float:
    """The least seconds, over some runs, from the first thread's start of `work(thread)` to the last one's end."""
    gate = threading.Barrier(threads)
    spans = np.zeros((threads, RUNS, 2))

    def body(thread: int) -> None:
        for k in range(RUNS):
            gate.wait()
            spans[thread, k, 0] = time.perf_counter()
            work(thread)
            spans[thread, k, 1] = time.perf_counter()

    others = [threading.Thread(target=body, args=(thread,)) for thread in range(1, threads)]
    for other in others:
        other.start()
    body(0)
    for other in others:
        other.join()
    return float((spans[:, :, 1].max(axis=0) - spans[:, :, 0].min(axis=0)).min())


def _chains(target: Target) -> int:
    return int(ACCUMULATORS * target.registers)


def multiply(target: Target, elem: str) -> str:
    """`void @peak(i64 rounds, ptr values)`: every vector of `values` but the last grows by the square of the last."""
    e, v = Emit(), target.vector(elem)
    e.function("void @peak(i64 %rounds, ptr %values)")
    places = [e.gep("%values", k, str(v)) for k in range(_chains(target) + 1)]
    *sums, factor = [e.value(f"load {v}, ptr {place}, align 4") for place in places]

    def body(_: str, carried: list[str]) -> list[str]:
        for _step in range(UNROLL):
            carried = [e.call(v, f"llvm.fma.{v.suffix}", (v, factor), (v, factor), (v, c)) for c in carried]
        return carried

    for value, place in zip(e.loop(0, "%rounds", 1, body, [(v, s) for s in sums]), places):
        e.line(f"store {v} {value}, ptr {place}, align 4")
    e.end()
    return merge([*e.declared, e.text()])


@functools.cache
def _memory(target: Target) -> Image:
    return Image.load([compile_object(_moves(target), target)])


def _moves(target: Target) -> str:
    """`void @read|@copy|@stream(source, sink, blocks, passes)`: of BLOCK vectors each, aligned."""
    e, v = Emit(), target.vector("float")
    bits = v.of("i32")
    zero = [(bits, "zeroinitializer")] * BLOCK
    for kind in ("read", "copy", "stream"):
        e.function(f"void @{kind}(i64 %from, i64 %to, i64 %blocks, i64 %passes)")
        source, sink = e.value("inttoptr i64 %from to ptr"), e.value("inttoptr i64 %to to ptr")
        past = ", !nontemporal !0" if kind == "stream" else ""

        def block(index: str, seen: list[str], kind: str = kind, past: str = past) -> list[str]:
            first = e.value(f"mul i64 {index}, {BLOCK}")
            here, there = e.gep(source, first, str(bits)), e.gep(sink, first, str(bits))  # noqa: B023
            loaded = [
                e.value(f"load {bits}, ptr {e.gep(here, k, str(bits))}, align 64") for k in range(BLOCK)
            ]
            if kind == "read":
                return [e.value(f"or {bits} {a}, {b}") for a, b in zip(seen, loaded)]
            for k, value in enumerate(loaded):
                e.line(f"store {bits} {value}, ptr {e.gep(there, k, str(bits))}, align 64{past}")
            return seen

        def once(_: str, seen: list[str], block: Callable[..., list[str]] = block) -> list[str]:
            return e.loop(0, "%blocks", 1, block, [(bits, s) for s in seen])

        seen = e.loop(0, "%passes", 1, once, zero)
        if kind == "read":  # what is read must be used
            for k, value in enumerate(seen):
                e.line(f"store {bits} {value}, ptr {e.gep(sink, k, str(bits))}, align 64")
        e.end()
    return e.text() + "\n!0 = !{i32 1}\n"
