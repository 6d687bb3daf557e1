"""Matrix products: what is asked for, the plan by a cost model, and the kernel that hands both to the shared engine."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field

from tcc.codegen.emit import Emit, VecType
from tcc.codegen.gemm import (
    A_COLUMNS,
    A_ROWS,
    A_UNPACKED,
    FIELDS,
    PACK_EACH,
    PACK_ROWS,
    PACK_TURN,
    UNIT_ROWS,
    UNPACKED,
    Record,
    a_copy_bytes,
    engine,
    engine_name,
)
from tcc.codegen.index import Index, Size
from tcc.codegen.microkernel import VECTORS, lane_mask, load, store, tile_rows
from tcc.codegen.target import Target

EmitEpilogue = Callable[[Emit, Target, str, VecType, str, str, str, str, dict[str, str]], "str | None"]


@dataclass(frozen=True)
class Epilogue:
    """Work on finished elements of C, done tile by tile while they are in the first-level cache.

    `emit(e, target, acc, t, row, col, mask, batch, slots)` gets a vector of elements (row, col), (row, col + 1), ... of C,
    the lanes that exist (`<n x i1>`), and the values of `slots` by name; it returns the vector to store in C, or None when
    it stored what is wanted elsewhere (C holds the bare product then).
    """

    key: str  # equal keys mean equal text
    slots: tuple[tuple[str, str], ...] = ()  # (name, "ptr" or "i64") of what it needs from %args
    emit: EmitEpilogue = field(compare=False, default=lambda e, target, acc, *_: acc)


@dataclass(frozen=True)
class Matmul:
    """C[m,n] (+)= A[m,k] B[k,n], `batch` of them.  Strides are in elements; None is a run-time value."""

    dtype: str  # f32 f64
    m: int | None
    n: int | None
    k: int | None
    a: tuple[int | None, int | None]  # row stride, column stride
    b: tuple[int | None, int | None]
    c: int | None  # row stride; columns are contiguous
    batch: int | None = 1
    batch_strides: tuple[int | None, int | None, int | None] = (0, 0, 0)
    accumulate: bool = False
    epilogue: Epilogue | None = None


# Sizes and strides in the order of their slots, and how a spec holds them.
_SIZES: dict[str, Callable[[Matmul], int | None]] = {
    "m": lambda s: s.m,
    "n": lambda s: s.n,
    "k": lambda s: s.k,
    "ars": lambda s: s.a[0],
    "acs": lambda s: s.a[1],
    "brs": lambda s: s.b[0],
    "bcs": lambda s: s.b[1],
    "crs": lambda s: s.c,
    "batch": lambda s: s.batch,
    "batch_a": lambda s: s.batch_strides[0],
    "batch_b": lambda s: s.batch_strides[1],
    "batch_c": lambda s: s.batch_strides[2],
}
_STRIDES = ("ars", "acs", "brs", "bcs", "crs", "batch_a", "batch_b", "batch_c")


def matmul_slots(spec: Matmul) -> tuple[str, ...]:
    """The slots of %args in order: addresses a, b, c, the epilogue's own, then what is not known at compile time.

    Strides in slots are in elements.
    """
    extra = tuple(name for name, _ in spec.epilogue.slots) if spec.epilogue else ()
    return ("a", "b", "c", *extra, *(name for name, get in _SIZES.items() if get(spec) is None))


@dataclass(frozen=True)
class KernelText:
    """A kernel's functions, the shared ones that must stand in the same module (by name), and what all of them declare."""

    text: str
    helpers: dict[str, str]
    declares: frozenset[str]


def matmul_scratch(spec: Matmul, target: Target) -> int:
    """Bytes of scratch that each thread needs: an upper bound where sizes are not known."""
    t, x = _vector(spec, target), Index(Emit())
    sizes = {name: get(spec) for name, get in _SIZES.items()}
    known = {name: value for name, value in sizes.items() if value is not None}
    if len(known) < len(sizes):
        kc = _KC_BYTES // t.bytes
        panels = max(_block_bytes(target), (kc + t.lanes) * _least_columns(t) * t.bytes)
        return panels + int(a_copy_bytes(t, target, kc + t.lanes, x))
    plan = _plan(spec, t, target, x, {name: value for name, value in known.items()})
    rows = int(a_copy_bytes(t, target, plan["kc_most"], x)) if plan["pack_a"] != A_UNPACKED else 0
    return int(plan["shared_bytes"]) + rows


def matmul_kernel(name: str, spec: Matmul, target: Target) -> KernelText:
    """The kernel `name` after the kernel ABI."""
    t, e = _vector(spec, target), Emit()
    if spec.epilogue:
        _write_epilogue(e, name, spec, spec.epilogue, t, target)
    e.function(f"i32 @{name}(ptr %ctx, ptr %args)")
    slots = {slot: i for i, slot in enumerate(matmul_slots(spec))}
    record = e.value(f"alloca [{len(FIELDS)} x i64], align 8")
    x, r = Index(e), Record(e, record)

    def size(field_name: str) -> Size:
        known = _SIZES[field_name](spec)
        if known is not None:
            return known
        return e.value(f"load i64, ptr {e.gep('%args', slots[field_name], 'i64')}")

    sizes = {field_name: size(field_name) for field_name in _SIZES}
    for field_name in ("a", "b", "c"):
        r[field_name] = e.value(f"load ptr, ptr {e.gep('%args', slots[field_name], 'i64')}")
    r["args"] = "%args"
    r["epilogue"] = f"@{name}_epilogue" if spec.epilogue else "null"
    r["accumulate"] = int(spec.accumulate)
    for field_name, value in sizes.items():
        r[field_name] = x.mul(value, t.bytes) if field_name in _STRIDES else value
    for field_name, value in _plan(spec, t, target, x, sizes).items():
        r[field_name] = value
    e.line(f"call void @{engine_name(t)}(ptr %ctx, ptr {record})")
    e.end("i32 0")
    functions = _engine(t, target)
    declares = frozenset(line for f in (e, *functions.values()) for line in f.declared)
    return KernelText(e.text(), {key: f.text() for key, f in functions.items()}, declares)


_engine = functools.cache(engine)


def _vector(spec: Matmul, target: Target) -> VecType:
    return target.vector({"f32": "float", "f64": "double"}[spec.dtype])


# The cost model -------------------------------------------------------------------------------------------------

_KC_BYTES = 4096  # of one column of B in a block of k: long chains make the updates of C rare
_PARALLEL_WORK = 1 << 18  # multiply-adds that pay for a second thread (some microseconds)


def _block_bytes(target: Target) -> int:
    """B's block; it streams past the register tiles fast enough from beyond the second-level cache."""
    return 2 * target.l2_bytes


def _least_columns(t: VecType) -> int:
    return 4 * VECTORS * t.lanes


def _plan(spec: Matmul, t: VecType, target: Target, x: Index, sizes: dict[str, Size]) -> dict[str, Size]:
    """The fields of the record that are choices.  Written once for numbers and for run-time values.

    kc: k in equal blocks of at most _KC_BYTES a column.  nc: as many columns as fit _block_bytes with that kc.
    B is copied when its columns are not contiguous, or when it is larger than the cache share or its rows fall on the same
    cache sets, and enough rows use the copy; A when its rows fall on the same cache sets, or are columns in memory.
    """
    m, n, k = sizes["m"], sizes["n"], sizes["k"]
    ars, acs, brs, bcs = (sizes[name] for name in ("ars", "acs", "brs", "bcs"))
    width, rows = VECTORS * t.lanes, tile_rows(target)[0]
    depth = x.max(k, 1)
    blocks = x.ceil_div(depth, _KC_BYTES // t.bytes)
    kc = x.round_up(x.ceil_div(depth, blocks), t.lanes)
    fit = x.div(x.div(_block_bytes(target), x.mul(kc, t.bytes)), width)
    most = x.max(x.mul(fit, width), _least_columns(t))
    columns = x.max(n, 1)
    nc = x.min(x.round_up(x.ceil_div(columns, x.ceil_div(columns, most)), width), most)

    aligned_b = x.equal(x.sub(brs, x.mul(x.div(brs, 2048 // t.bytes), 2048 // t.bytes)), 0)
    large = x.less(target.l2_bytes // 2 // t.bytes, x.mul(n, k))
    worth = x.both(x.less(4 * rows, m), x.either(large, x.both(aligned_b, x.less(64, k))))
    by_rows = x.pick(worth, PACK_ROWS, UNPACKED) if target.avx512 else PACK_ROWS
    pack_b = x.pick(x.equal(bcs, 1), by_rows, x.pick(x.equal(brs, 1), PACK_TURN, PACK_EACH))
    nc = x.pick(x.equal(pack_b, UNPACKED), x.round_up(columns, width), nc)

    aligned_a = x.equal(x.sub(ars, x.mul(x.div(ars, 1024 // t.bytes), 1024 // t.bytes)), 0)
    many = x.less(2 * width, n)
    pack_a = x.pick(
        x.equal(acs, 1),
        x.pick(x.both(many, aligned_a), A_ROWS, A_UNPACKED),
        x.pick(x.both(many, x.equal(ars, 1)), A_COLUMNS, A_UNPACKED),
    )
    by_columns = x.both(x.less(m, 4 * rows), x.less(2 * width, n))
    unit = x.pick(by_columns, x.mul(x.mul(m, depth), width), x.mul(x.mul(n, depth), UNIT_ROWS))
    work = x.mul(x.mul(x.max(m, 1), columns), depth)
    small = x.less(work, 16 * _PARALLEL_WORK)
    batch_grain = x.pick(small, x.ceil_div(_PARALLEL_WORK, work), 0)
    panels_bytes = x.mul(x.mul(x.round_up(kc, t.lanes), nc), t.bytes)
    return {
        "kc_most": kc,
        "nc_most": nc,
        "pack_a": pack_a,
        "pack_b": pack_b,
        "by_columns": by_columns,
        "grain": x.ceil_div(_PARALLEL_WORK, x.max(unit, 1)),
        "pack_grain": x.ceil_div(_PARALLEL_WORK // 8, x.mul(kc, width)),
        "batch_grain": x.pick(x.equal(sizes["batch"], 1), 0, batch_grain),
        "shared_bytes": x.pick(x.equal(pack_b, UNPACKED), 0, panels_bytes),
    }


def _write_epilogue(e: Emit, name: str, spec: Matmul, epilogue: Epilogue, t: VecType, target: Target) -> None:
    """`void @NAME_epilogue(args, c, crs, rows, cols, row, col, batch)`: the epilogue on one tile of C."""
    e.function(
        f"internal void @{name}_epilogue(ptr %args, ptr %c, i64 %crs, i64 %rows, i64 %cols, i64 %row, i64 %col, "
        "i64 %batch)"
    )
    x, slots = Index(e), {slot: i for i, slot in enumerate(matmul_slots(spec))}
    values = {
        slot: e.value(f"load {kind}, ptr {e.gep('%args', slots[slot], 'i64')}")
        for slot, kind in epilogue.slots
    }

    def line(i: str, v: list[str]) -> list[str]:
        row = str(x.add("%row", i))

        def vector(j: str, _: list[str]) -> None:
            p = e.gep(v[0], j, t.elem)
            mask = lane_mask(e, t, str(x.sub("%cols", j)))
            col = str(x.add("%col", j))
            done = epilogue.emit(e, target, load(e, t, p, mask), t, row, col, mask, "%batch", values)
            if done is not None:
                store(e, t, done, p, mask)

        e.loop(0, "%cols", t.lanes, vector)
        return [e.gep(v[0], "%crs")]

    e.loop(0, "%rows", 1, line, [("ptr", "%c")])
    e.end()
