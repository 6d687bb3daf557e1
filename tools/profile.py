"""How long each kernel of a compiled function takes, and what share of the machine's limits that is."""

from __future__ import annotations

import ctypes
import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tcc.codegen import support
from tcc.codegen.emit import Emit
from tcc.codegen.jit import Image, compile_object, function
from tcc.codegen.target import chosen, host
from tcc.driver import Program
from tcc.ir import dims
from tcc.ir.clone import clone
from tcc.ir.core import Op
from tcc.ir.types import numpy_dtype
from tcc.runtime import threads
from tcc.runtime.callable import Function, Parameter
from tcc.tools.peak import copy_bandwidth, fma_peak, read_bandwidth

Array = np.ndarray[Any, Any]
MOST_CALLS = 1 << 12  # kernel calls that the text of a function may hold
WARM_UP = 3
SECONDS = 1.0


@dataclass(frozen=True)
class KernelTime:
    """Of one kernel call of the function's text, for one call of the function."""

    op: Op
    seconds: float
    calls: float  # more than 1 in a loop
    flops: float  # multiplications and additions of one call; 0 for what is no product
    bytes: float  # of its operands and results


def profile(
    program: Program, args: Sequence[Array], seconds: float = SECONDS
) -> tuple[list[KernelTime], float]:
    """The kernels' least times, in the order of the program, and the whole call's, for these arguments' sizes.

    The program is called again and again, so its shared variables change as they do.
    """
    support.load()
    inputs = [p for p in program.func.body.params if p.name not in program.containers]
    parameters = [Parameter(p.name or "", p.type.dtype, p.type.rank, np.asarray) for p in inputs]
    f = Function(program.func.name, parameters, program.specialise)
    f(*args)
    func = clone(program.func, program.seen)
    func.attrs["hints"], func.attrs["returns"] = {}, program.returns
    pairs = np.zeros((MOST_CALLS, 2), np.int64)
    variant = program.make(func, chosen(), pairs.ctypes.data).variant(program.containers, func.name)
    ops = list(program.timed)
    if len(ops) > MOST_CALLS:
        raise ValueError(f"{func.name} has {len(ops)} kernel calls, more than {MOST_CALLS}")
    f.install(variant)
    for _ in range(WARM_UP):
        f(*args)
    pairs[:] = np.iinfo(np.int64).max, 0
    count, whole, now = 0, np.inf, _cycle_counter()
    start, first = time.perf_counter(), now()
    while (before := time.perf_counter() - start) < seconds or not count:
        f(*args)
        count += 1
        whole = min(whole, time.perf_counter() - start - before)
    cycle = before / (now() - first)
    found = [
        KernelTime(
            op, cycle * cycles * calls / count if calls else 0.0, calls / count, _flops(op), _bytes(op)
        )
        for op, (cycles, calls) in zip(ops, pairs.tolist())
    ]
    return found, float(whole)


def table(found: Sequence[KernelTime], whole: float) -> str:
    """The slowest first; a kernel's shares are those of this number of threads' multiply-adds and of memory."""
    head = ["us", "%", "calls", "fma", "memory", "kernel"]
    lines = [head]
    count = threads.pool().limit
    for k in sorted(found, key=lambda k: -k.seconds):
        fma, memory = shares(k)
        lines.append(
            [
                f"{1e6 * k.seconds:.1f}",
                f"{100 * k.seconds / whole:.1f}",
                f"{k.calls:g}",
                f"{100 * fma:.0f} %" if fma else "",
                f"{100 * memory:.0f} %",
                described(k.op) + (f"  {k.op.loc}" if k.op.loc else ""),
            ]
        )
    inside = sum(k.seconds for k in found)
    lines.append(
        [
            f"{1e6 * (whole - inside):.1f}",
            f"{100 * (1 - inside / whole):.1f}",
            "",
            "",
            "",
            "between kernels, and other programs",
        ]
    )
    widths = [max(len(line[k]) for line in lines) for k in range(len(head) - 1)]
    rows = ["  ".join([*(cell.rjust(w) for cell, w in zip(line, widths)), line[-1]]) for line in lines]
    return "\n".join([*rows, f"{1e6 * whole:.1f} us a call on {count} thread{'s' * (count > 1)}"])


def shares(k: KernelTime) -> tuple[float, float]:
    """Of the machine's multiply-adds and of its memory's speed, that a kernel reaches."""
    once, count = k.seconds / max(k.calls, 1), threads.pool().limit
    if not once:
        return 0.0, 0.0
    fma = k.flops / once / fma_peak(count, _elem(k.op)) if k.flops else 0.0
    return fma, _least_seconds(k.op, count) / once


def slowest(found: Sequence[KernelTime], count: int) -> list[str]:
    """`61 % matmul f32[600,784] ... (68 % of fma)`: the kernels that take most of the time, equal ones together."""
    total = sum(k.seconds for k in found)
    groups: dict[str, list[KernelTime]] = {}
    for k in found:
        groups.setdefault(described(k.op), []).append(k)
    times = {name: sum(k.seconds for k in group) for name, group in groups.items()}
    lines = []
    for name in sorted(times, key=times.__getitem__, reverse=True)[:count]:
        if times[name] < 0.01 * total:
            break
        fma, memory = shares(groups[name][0])
        many = f"{len(groups[name])} times " if len(groups[name]) > 1 else ""
        limit = f"{100 * fma:.0f} % of fma" if fma else f"{100 * memory:.0f} % of memory"
        lines.append(f"{100 * times[name] / total:.0f} % {many}{name} ({limit})")
    return lines


def random_arguments(program: Program, sizes: dict[str, int]) -> list[Array]:
    """Standard normal numbers, and zeros where integers are wanted; ValueError names a size that is not given."""
    rng = np.random.default_rng(0)
    found: list[Array] = []
    for p in program.func.body.params:
        if p.name in program.containers:
            continue
        missing = {n for s in p.type.shape for n in dims.names_of(s)} - sizes.keys()
        if missing:
            raise ValueError(f"{p.name} is {p.type}: give the size {sorted(missing)[0]}")
        shape = [dims.evaluate(s, sizes) for s in p.type.shape]
        dtype = numpy_dtype(p.type.dtype)
        found.append((rng.standard_normal(shape) if dtype.kind == "f" else np.zeros(shape)).astype(dtype))
    return found


@functools.cache
def _cycle_counter() -> Callable[[], int]:
    e = Emit()
    e.function("i64 @now()")
    e.end(f"i64 {e.call('i64', 'llvm.readcyclecounter')}")
    image = Image.load([compile_object("\n".join([*e.declared, e.text()]), host())])
    call = function(image.address("now"), ctypes.c_int64)

    def now() -> int:
        assert image
        return int(call())

    return now


def _number(size: Any) -> int:
    return dims.evaluate(size, dict.fromkeys(dims.names_of(size), 1))


def _flops(op: Op) -> float:
    if op.name == "fuse":
        return 0
    if op.name == "matmul":
        return 2.0 * _number(op.operands[-1].type.size) * _number(op.operands[0].type.shape[-1])
    return float(_number(op.defn.flops(op))) if op.name.startswith("conv") else 0


def _bytes(op: Op) -> float:
    return float(sum(_number(v.type.bytes) for v in dict.fromkeys(op.operands)))


def _least_seconds(op: Op, count: int) -> float:
    """Of moving the operands and results once, in memory as far from the processor as their size tells."""
    written = sum(_number(v.type.bytes) for v in op.places)
    read = sum(_number(v.type.bytes) for v in op.reads)
    if op.name in ("gather", "scatter"):  # of the table, only the rows that are looked up
        table = _number(op.reads[0].type.bytes)
        moved = min(table, read + written - table * (1 + (op.name == "scatter")))
        written, read = moved, read - table + moved
    near = 1 << max(12, int(read + written - 1).bit_length())  # as many bytes, roughly: measuring takes time
    both, rest = min(read, written), abs(read - written)
    return 2 * both / copy_bandwidth(near, count) + rest / read_bandwidth(near, count)


def _elem(op: Op) -> str:
    return "double" if op.operands[-1].type.dtype == "f64" else "float"


def described(op: Op) -> str:
    """The op with its shapes; of a fuse, what stands in it."""
    name = op.name
    if name == "fuse":
        inner = [o.name for o in op.block.ops if o.name != "yield"]
        name = f"fuse({' '.join(inner[:8])}{' ...' if len(inner) > 8 else ''})"
    reads, writes = (" ".join(str(v.type.value) for v in vs) for vs in (op.reads, op.places))
    return f"{name} {reads} -> {writes}"
