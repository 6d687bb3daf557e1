"""How long each kernel of a compiled function takes, and what share of the machine's or the device's limits that is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tcc import devicetimes
from tcc.devices import DeviceSource, arch_of
from tcc.driver import Program
from tcc.ir import dims
from tcc.ir.core import Op, Value
from tcc.ir.types import numpy_dtype
from tcc.measuring import SECONDS, KernelTime, described, number, profile
from tcc.runtime import threads
from tcc.runtime.buffers import Container
from tcc.tools.peak import copy_bandwidth, fma_peak, read_bandwidth

__all__ = [
    "SECONDS",
    "KernelTime",
    "described",
    "measured",
    "profile",
    "random_arguments",
    "shares",
    "slowest",
    "table",
]

Array = np.ndarray[Any, Any]


def table(found: Sequence[KernelTime], whole: float, device: str = "") -> str:
    """The slowest first; a kernel's shares are those of this number of threads' multiply-adds and of memory, or of a device's."""
    head = ["us", "%", "calls", "MB", "Gflop", "fma", "memory", "kernel"]
    lines = [head]
    count = threads.pool().limit
    where = f"on {device}" if device else f"on {count} thread{'s' * (count > 1)}"
    for k in sorted(found, key=lambda k: -k.seconds):
        fma, memory = shares(k)
        lines.append(
            [
                f"{1e6 * k.seconds:.1f}",
                f"{100 * k.seconds / whole:.1f}",
                f"{k.calls:g}",
                f"{k.bytes / 1e6:.3g}",
                f"{k.flops / 1e9:.3g}" if k.flops else "",
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
            *[""] * 5,
            "launches, copies and the host" if device else "between kernels, and other programs",
        ]
    )
    widths = [max(len(line[k]) for line in lines) for k in range(len(head) - 1)]
    rows = ["  ".join([*(cell.rjust(w) for cell, w in zip(line, widths)), line[-1]]) for line in lines]
    return "\n".join([*rows, f"{1e6 * whole:.1f} us a call {where}"])


def measured(program: Program, args: Sequence[Array], seconds: float, device: Any = None) -> str:
    """The table of a program's kernels on the device, or else where it was made for."""
    if device is not None:
        program = DeviceSource(
            program.func, program.containers, program.returns, device=device, arch=arch_of(device)
        )
    if isinstance(program, DeviceSource):
        return table(*devicetimes.profile(program, args, seconds), device=program.device.name)
    return table(*profile(program, args, seconds))


def shares(k: KernelTime) -> tuple[float, float]:
    """Of the machine's or device's multiply-adds and of its memory's speed, that a kernel reaches."""
    if k.shares is not None:
        return k.shares
    once, count = k.seconds / max(k.calls, 1), threads.pool().limit
    if not once:
        return 0.0, 0.0
    fma = k.flops / once / fma_peak(count, _elem(k.op)) if k.flops else 0.0
    return fma, _least_seconds(k, count) / once


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


def with_state(program: Program, sizes: dict[str, int]) -> Program:
    """The program, with random values for the shared variables of a text, which holds none."""
    names = set(program.func.attrs.get("shared", ())) - program.containers.keys()
    if not names:
        return program
    params = [p for p in program.func.body.params if p.name in names]
    made = {p.name: Container(_random(p, sizes, np.random.default_rng(1))) for p in params}
    return Program(program.func, {**program.containers, **made}, program.returns)


def random_arguments(program: Program, sizes: dict[str, int]) -> list[Array]:
    """Standard normal numbers, and zeros where integers are wanted; ValueError names a size that is not given."""
    rng = np.random.default_rng(0)
    found: list[Array] = []
    for p in program.func.body.params:
        if p.name not in program.containers:
            found.append(_random(p, sizes, rng))
    return found


def _random(p: Value, sizes: dict[str, int], rng: np.random.Generator) -> Array:
    missing = {n for s in p.type.shape for n in dims.names_of(s)} - sizes.keys()
    if missing:
        raise ValueError(f"{p.name} is {p.type}: give the size {sorted(missing)[0]}")
    shape = [dims.evaluate(s, sizes) for s in p.type.shape]
    dtype = numpy_dtype(p.type.dtype)
    return (rng.standard_normal(shape) if dtype.kind == "f" else np.zeros(shape)).astype(dtype)


def _least_seconds(k: KernelTime, count: int) -> float:
    """Of moving the operands and results once, in memory as far from the processor as their size tells."""
    op, sizes = k.op, k.sizes
    written = sum(number(v.type.bytes, sizes) for v in op.places)
    read = sum(number(v.type.bytes, sizes) for v in op.reads)
    if op.name in ("gather", "scatter"):  # of the table, only the rows that are looked up
        table = number(op.reads[0].type.bytes, sizes)
        moved = min(table, read + written - table * (1 + (op.name == "scatter")))
        written, read = moved, read - table + moved
    near = 1 << max(12, int(read + written - 1).bit_length())  # as many bytes, roughly: measuring takes time
    both, rest = min(read, written), abs(read - written)
    return 2 * both / copy_bandwidth(near, count) + rest / read_bandwidth(near, count)


def _elem(op: Op) -> str:
    return "double" if op.operands[-1].type.dtype == "f64" else "float"
