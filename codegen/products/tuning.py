"""Plans of matrix products that are measured, where TCC_TUNE asks for it, in place of what the cost model chooses.

From the model's plan on, one field after another takes whichever of its values is fastest on this machine, in turns with the best
plan so far.  All plans of register tiles add up in one order, so that the bits of results are those of the model's plan.  What was
found stays in the cache, for the machine, the sizes and strides and the number of threads: it is measured once.
"""

from __future__ import annotations

import ctypes
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tcc.codegen import jit, support
from tcc.codegen.emit import merge
from tcc.codegen.keys import cache_key
from tcc.codegen.products import engines
from tcc.codegen.products.matmul import Matmul, chosen_plan, matmul_kernel, matmul_scratch, matmul_slots
from tcc.codegen.products.microkernel import VECTORS
from tcc.codegen.products.op import product_spec
from tcc.codegen.products.plan import KC
from tcc.codegen.products.record import (
    A_BLOCK,
    A_COLUMNS,
    A_ROWS,
    A_UNPACKED,
    FETCHES_B,
    PACK_FIRST,
    PACK_ROWS,
    TILES,
    UNPACKED,
)
from tcc.codegen.products.small import is_small
from tcc.codegen.target import Target
from tcc.codegen.vectors import LINE
from tcc.ir.core import Func, Op
from tcc.runtime import cache, threads
from tcc.runtime import layout as at

Array = np.ndarray[Any, np.dtype[Any]]
Plan = tuple[str, ...]  # "field=value" for each of FIELDS
Measure = Callable[[Sequence[Matmul], Target], list[float]]

FIELDS = ("pack_b", "fetch_b", "kc_most", "nc_most", "pack_a", "by_columns", "apart")
LEAST_WORK = 1 << 18  # multiply-adds of a product that is worth it
GAIN = 0.97  # of the best time so far: less is noise
_NEVER_APART = 1 << 40  # panels of columns that each thread has to have for a product of its own
_SECONDS = 0.02  # that one plan is timed for, or a few calls
_CALLS = (3, 50)
_found: dict[str, Plan] = {}  # by this process


def tune(
    func: Func,
    target: Target,
    remark: Callable[[Op, str], None],
    measure: Measure | None = None,
) -> None:
    """Gives the products of a placed function measured plans: those by register tiles whose sizes are known."""
    for op in func.body.walk():
        if op.name != "matmul" or op.attrs.get("plan") or op.operands[0].type.dtype not in ("f32", "f64"):
            continue
        spec = product_spec(op, target)
        why = "it is small" if is_small(op, target) else not_tuned(spec, target)
        if why:
            remark(op, f"plan not measured: {why}")
            continue
        plan = tuned_plan(spec, target, measure or seconds_of)
        op.attrs = {**op.attrs, "plan": plan}
        remark(op, f"plan measured: {', '.join(plan)}")


def not_tuned(spec: Matmul, target: Target) -> str:
    """Why a product has the model's plan, or ""."""
    numbers = (spec.m, spec.n, spec.k, *spec.a, *spec.b, spec.c)
    if spec.panels or spec.kept:
        return "its second factor may be panels, whose plan is for these"
    if None in numbers or spec.batch != 1:
        return "it has sizes that are not known, or a batch"
    m, n, k, *strides = (int(v or 0) for v in numbers)
    if min(strides) < 0 or m * n * k < LEAST_WORK:
        return "it is small"
    if int(chosen_plan(spec, target)["form"]) != TILES:
        return "it is no product of tiles"
    return ""


def tuned_plan(spec: Matmul, target: Target, measure: Measure) -> Plan:
    """The measured plan of a product that can have one: from the cache, else found now and kept there."""
    bare = replace(spec, epilogue=None, backwards=False, accumulate=False, plan=())
    key = cache_key("plan", repr(bare), target)
    if key not in _found:
        data = cache.get(key)
        _found[key] = tuple(json.loads(data)) if data is not None else _search(bare, target, measure)
        if data is None:
            cache.put(key, json.dumps(_found[key]).encode())
    return _found[key]


def _search(spec: Matmul, target: Target, measure: Measure) -> Plan:
    best = _plan_of(spec, target)
    for field in FIELDS:
        others = [_plan_of(replace(spec, plan=p), target) for p in _variants(spec, best, field, target)]
        plans = list(dict.fromkeys([best, *others]))
        times = measure([replace(spec, plan=p) for p in plans], target) if len(plans) > 1 else [0.0]
        fastest = min(range(len(plans)), key=times.__getitem__)
        if times[fastest] < GAIN * times[0]:
            best = plans[fastest]
    return best


def _plan_of(spec: Matmul, target: Target) -> Plan:
    chosen = chosen_plan(spec, target)
    return tuple(f"{field}={chosen[field]}" for field in FIELDS)


def _variants(spec: Matmul, plan: Plan, field: str, target: Target) -> Iterator[Plan]:
    """The plan with other values of a field."""
    was = dict(item.split("=") for item in plan)
    for value in _values(spec, {name: int(v) for name, v in was.items()}, field, target):
        yield tuple(f"{name}={value}" if name == field else f"{name}={v}" for name, v in was.items())


def _values(spec: Matmul, now: dict[str, int], field: str, target: Target) -> list[int]:
    n, k, many = int(spec.n or 0), int(spec.k or 0), threads.thread_count() > 1
    width = VECTORS * engines.vector(spec.dtype, target).lanes
    if field == "pack_b":
        by_rows = spec.b[1] == 1
        return [PACK_ROWS, PACK_FIRST, UNPACKED] if by_rows else []
    if field == "fetch_b":
        return [*FETCHES_B] if spec.b[1] == 1 and not target.avx512 else []
    if field == "kc_most":
        return [min(k, depth) for depth in (KC, KC // 2, KC // 4, KC // 8, KC // 16)]
    if field == "nc_most":
        # a block of B takes half the second-level cache at most, as the scratch is laid out
        most = max(target.l2_bytes // 2 // (now["kc_most"] * (8 if spec.dtype == "f64" else 4)), width)
        blocks = [most // part // width * width for part in (1, 2, 4, 8)]
        return [min(-(-n // width) * width, block) for block in blocks if block]
    if field == "pack_a":
        copy = [A_ROWS] * (spec.a[1] == 1) + [A_COLUMNS] * (spec.a[0] == 1 and spec.a[1] != 1)
        block = [A_BLOCK] * (now["pack_b"] not in (UNPACKED, PACK_FIRST))
        return [A_UNPACKED, *copy, *block]
    if field == "by_columns":
        return [0, 1] if many else []
    return [1, _NEVER_APART] if many else []


def seconds_of(specs: Sequence[Matmul], target: Target) -> list[float]:
    """The least time of a call of each, in turns."""
    calls = Calls(specs, target)

    def one(number: int) -> float:
        start = time.perf_counter()
        calls.run(number)
        return time.perf_counter() - start

    rough = max(one(0) for _ in range(2))
    least = [one(number) for number in range(len(specs))]
    for _ in range(int(min(max(_SECONDS / rough, _CALLS[0]), _CALLS[1]))):
        least = [min(t, one(number)) for number, t in enumerate(least)]
    return least


class Calls:
    """Products of the same sizes and strides by several plans, on numbers that nobody wants; `arrays` is the memory of a, b, c."""

    def __init__(self, specs: Sequence[Matmul], target: Target) -> None:
        first = specs[0]
        kernels = [matmul_kernel(f"plan{i}", spec, target) for i, spec in enumerate(specs)]
        support.load()
        entries = engines.addresses({kernels[0].engine: first.dtype}, target)
        engines.finish()
        engines.wait()
        texts = ["\n".join([*kernel.declares, kernel.text]) for kernel in kernels]
        self.image = jit.Image.load([jit.compile_object(merge(texts), target)], entries)
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
        self.codes = [kind(self.image.address(f"plan{i}")) for i in range(len(specs))]
        m, n, k = (int(v or 0) for v in (first.m, first.n, first.k))
        places = {"a": (m, k, first.a), "b": (k, n, first.b), "c": (m, n, (first.c, 1))}
        self.arrays = {name: _numbers(*place, first.dtype) for name, place in places.items()}
        slots = matmul_slots(first)
        self.args = (ctypes.c_int64 * len(slots))(*(self.arrays[slot].ctypes.data for slot in slots))
        count = threads.pool().limit
        each = -(-max(matmul_scratch(spec, target) for spec in specs) // LINE) * LINE
        self.scratch = np.zeros(count * each + LINE, np.uint8)
        self.context = (ctypes.c_int64 * at.CTX_SLOTS)()
        self.context[at.CTX_POOL], self.context[at.CTX_THREADS] = threads.pool().address, count
        self.context[at.CTX_SCRATCH] = -(-self.scratch.ctypes.data // LINE) * LINE
        self.context[at.CTX_SCRATCH_BYTES] = each

    def run(self, number: int) -> None:
        self.codes[number](self.context, self.args)


def _numbers(rows: int, columns: int, strides: tuple[int | None, int | None], dtype: str) -> Array:
    """The memory of a matrix with such strides, in elements."""
    down, across = (int(s or 0) for s in strides)
    count = (rows - 1) * down + (columns - 1) * across + 1
    numbers = np.random.default_rng(0).standard_normal(count)
    return numbers.astype(f"float{dtype[1:]}")
