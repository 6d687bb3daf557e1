"""What the kernels of a compiled function cost: each with a clock around it, the function called again and again."""

from __future__ import annotations

import ctypes
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
from tcc.runtime.callable import Function, Parameter

Array = np.ndarray[Any, Any]
MOST_CALLS = 1 << 12  # kernel calls and late sizes that the text of a function may hold
NONE: Mapping[str, int] = {}
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
    shares: tuple[float, float] | None = None  # of a device's multiply-adds and of its copies' bandwidth
    sizes: Mapping[str, int] = field(default_factory=dict)  # what the last call found for sizes that it binds


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
    records = list(zip(ops, pairs.tolist()))
    sizes = {str(op.attrs["size"]): value for op, (value, _) in records if op.name == "bind"}
    found = [
        KernelTime(
            op,
            cycle * cycles * calls / count if calls else 0.0,
            calls / count,
            flops_of(op, sizes),
            bytes_of(op, sizes),
            sizes=sizes,
        )
        for op, (cycles, calls) in records
        if op.name != "bind"
    ]
    return found, float(whole)


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


def number(size: Any, sizes: Mapping[str, int] = NONE) -> int:
    """A size where these stand behind its names; a name that has none, such as a loop's index, is taken to be 1."""
    return dims.evaluate(size, {**dict.fromkeys(dims.names_of(size), 1), **sizes})


def flops_of(op: Op, sizes: Mapping[str, int] = NONE) -> float:
    if op.name == "fuse":
        return 0
    if op.name in ("matmul", "matmul_widening"):
        size = number(op.operands[-1].type.size, sizes)
        return 2.0 * size * number(op.operands[0].type.shape[-1], sizes)
    return float(number(op.defn.flops(op), sizes)) if op.name.startswith("conv") else 0


def bytes_of(op: Op, sizes: Mapping[str, int] = NONE) -> float:
    return float(sum(number(v.type.bytes, sizes) for v in dict.fromkeys(op.operands)))


def described(op: Op) -> str:
    """The op with its shapes; of a fuse, what stands in it, and how it reduces."""
    name = op.name
    if name == "fuse":
        inner = [o.name for o in op.block.ops if o.name != "yield"]
        inner += dict.fromkeys(r for r in op.attrs["reduce"] if r)
        name = f"fuse({' '.join(inner[:8])}{' ...' if len(inner) > 8 else ''})"
    reads, writes = (" ".join(str(v.type.value) for v in vs) for vs in (op.reads, op.places))
    return f"{name} {reads} -> {writes}"
