"""Matrix products: what is asked for, the plan by a cost model, and the kernel that hands both to the shared engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tcc.codegen.dot import dot_rows
from tcc.codegen.emit import Emit, VecType
from tcc.codegen.gemm import (
    A_COLUMNS,
    A_ROWS,
    A_UNPACKED,
    DOT,
    FIELDS,
    PACK_EACH,
    PACK_ROWS,
    PACK_TURN,
    ROW,
    ROW_UNIT,
    TILES,
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
    emit: EmitEpilogue = field(compare=False, repr=False, default=lambda e, target, acc, *_: acc)


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
_STRIDES = ("ars", "acs", "brs", "bcs", "crs", "ccs", "batch_a", "batch_b", "batch_c")
_TRANSPOSED = {
    **{
        "m": "n",
        "n": "m",
        "ars": "bcs",
        "bcs": "ars",
        "acs": "brs",
        "brs": "acs",
        "crs": "ccs",
        "ccs": "crs",
    },
    **{"batch_a": "batch_b", "batch_b": "batch_a"},
}


def matmul_slots(spec: Matmul) -> tuple[str, ...]:
    """The slots of %args in order: addresses a, b, c, the epilogue's own, then what is not known at compile time.

    Strides in slots are in elements.
    """
    extra = tuple(name for name, _ in spec.epilogue.slots) if spec.epilogue else ()
    return ("a", "b", "c", *extra, *(name for name, get in _SIZES.items() if get(spec) is None))


@dataclass(frozen=True)
class KernelText:
    """A kernel's own functions with what they declare, and by name the shared ones, of which it calls `tcc_gemm_T`."""

    text: str
    helpers: dict[str, str]
    declares: frozenset[str]


def matmul_scratch(spec: Matmul, target: Target) -> int:
    """Bytes of scratch that each thread needs: an upper bound where sizes are not known."""
    t, x = _vector(spec, target), Index(Emit())
    sizes = {name: get(spec) for name, get in _SIZES.items()}
    known = {name: value for name, value in sizes.items() if value is not None}
    if len(known) < len(sizes):
        panels = max(
            2 * target.l2_bytes, _KC * _LEAST_PANELS * VECTORS * t.lanes * t.bytes, _DOT_COPY * t.bytes
        )
        return panels + int(a_copy_bytes(t, target, _KC, x))
    form, turned = _form(spec, t, x, dict(known))
    plan = _plan(t, target, x, turned, form)
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

    given = {field_name: size(field_name) for field_name in _SIZES}
    addresses = {n: e.value(f"load ptr, ptr {e.gep('%args', slots[n], 'i64')}") for n in ("a", "b", "c")}
    form, sizes = _form(spec, t, x, given)
    r["a"] = _pick_pointer(e, form["turned"], addresses["b"], addresses["a"])
    r["b"] = _pick_pointer(e, form["turned"], addresses["a"], addresses["b"])
    r["c"] = addresses["c"]
    r["args"] = "%args"
    r["epilogue"] = f"@{name}_epilogue" if spec.epilogue else "null"
    r["accumulate"] = int(spec.accumulate)
    for field_name, value in (sizes | form | _plan(t, target, x, sizes, form)).items():
        r[field_name] = x.mul(value, t.bytes) if field_name in _STRIDES else value
    e.line(f"call void @{engine_name(t)}(ptr %ctx, ptr {record})")
    e.end("i32 0")
    return KernelText(e.text(), engine(t, target), frozenset(e.declared))


def _vector(spec: Matmul, target: Target) -> VecType:
    return target.vector({"f32": "float", "f64": "double"}[spec.dtype])


# The cost model -------------------------------------------------------------------------------------------------

_KC = 1024  # the most of k in one block: long chains make the updates of C rare
_KC_STREAMED = 256  # where a large B is read in place
_LEAST_PANELS = 4
_SET_BYTES = 1024  # lines of memory a multiple of this apart crowd into few sets of the first-level cache
_DOT_COPY = 1 << 16  # elements of the short side that are worth a copy to make them contiguous along k
_PARALLEL_WORK = 1 << 18  # multiply-adds that pay for a second thread (some microseconds)


def _form(
    spec: Matmul, t: VecType, x: Index, sizes: dict[str, Size]
) -> tuple[dict[str, Size], dict[str, Size]]:
    """The form, and the sizes it sees: those of the transposed product when `turned`.

    `dot` sums in lanes along k; it is taken when k is contiguous on the long side and the other is half a vector at most,
    by sizes and layout alone, for its bits differ.  A matrix of contiguous columns times a vector is turned into a row.
    """
    few, deep = t.lanes // 2, 4 * t.lanes
    m, n, k, sizes = sizes["m"], sizes["n"], sizes["k"], sizes | {"ccs": 1}

    def narrow(long: Size, short: Size, long_step: Size, short_step: Size) -> Size:
        fits = x.both(x.both(x.less(short, few + 1), x.less(deep - 1, k)), x.equal(long_step, 1))
        copied = x.both(x.less(few * few, long), x.less(x.mul(short, k), _DOT_COPY + 1))
        return x.both(fits, x.either(x.equal(short_step, 1), copied))

    by_rows = narrow(m, n, sizes["acs"], sizes["brs"])
    by_columns = x.both(x.sub(1, by_rows), narrow(n, m, sizes["brs"], sizes["acs"]))
    dot = x.either(by_rows, by_columns)
    column = x.both(x.both(x.equal(n, 1), x.equal(sizes["ars"], 1)), x.equal(sizes["crs"], 1))
    turned = x.either(by_columns, x.both(x.sub(1, dot), column) if spec.epilogue is None else 0)
    seen = {name: x.pick(turned, sizes[_TRANSPOSED.get(name, name)], value) for name, value in sizes.items()}
    row = x.both(x.equal(seen["m"], 1), x.equal(seen["bcs"], 1))
    return {"form": x.pick(dot, DOT, x.pick(row, ROW, TILES)), "turned": turned}, seen


def _plan(
    t: VecType, target: Target, x: Index, sizes: dict[str, Size], form: dict[str, Size]
) -> dict[str, Size]:
    """The fields of the record that are choices.  Written once for numbers and for run-time values.

    B is copied when its columns are not contiguous, or when it is larger than half the second-level cache and many rows use
    the copy: a block of kc x nc of up to twice that cache streams past the tiles fast enough.  Where B stays in its place,
    a short kc keeps the number of rows that are read side by side small.  A is copied when its rows (its columns, where
    those are contiguous) fall on the same cache sets, and enough columns use the copy.
    """
    m, n, k = sizes["m"], sizes["n"], sizes["k"]
    ars, acs, brs, bcs = (sizes[name] for name in ("ars", "acs", "brs", "bcs"))
    width, rows = VECTORS * t.lanes, tile_rows(target)[0]
    depth, columns = x.max(k, 1), x.max(n, 1)
    large = x.less(target.l2_bytes // 2 // t.bytes, x.mul(n, k))
    worth = x.both(x.less(16 * rows, m), large) if target.avx512 else 1
    pack_b = x.pick(
        x.equal(bcs, 1), x.pick(worth, PACK_ROWS, UNPACKED), x.pick(x.equal(brs, 1), PACK_TURN, PACK_EACH)
    )
    streamed = x.both(x.equal(pack_b, UNPACKED), large)
    most = x.pick(streamed, _KC_STREAMED, _KC)
    kc = x.round_up(x.ceil_div(depth, x.ceil_div(depth, most)), t.lanes)
    fit = x.div(x.div(2 * target.l2_bytes // t.bytes, kc), width)
    block = x.max(x.mul(fit, width), _LEAST_PANELS * width)
    nc = x.min(x.round_up(x.ceil_div(columns, x.ceil_div(columns, block)), width), block)
    nc = x.pick(x.equal(pack_b, UNPACKED), x.round_up(columns, width), nc)

    line, sets = x.pick(x.equal(acs, 1), ars, acs), _SET_BYTES // t.bytes
    aligned = x.equal(x.mul(x.div(line, sets), sets), line)
    worth_a = x.both(x.both(aligned, x.less(2 * width, n)), x.less(2 * width, k))
    by_rows = x.pick(x.equal(acs, 1), A_ROWS, A_UNPACKED)
    columns_long = x.both(x.equal(ars, 1), x.less(_KC_STREAMED, k))
    pack_a = x.pick(worth_a, x.pick(columns_long, A_COLUMNS, by_rows), A_UNPACKED)
    by_columns = x.both(x.less(m, 4 * rows), x.less(2 * width, n))
    unit = x.pick(by_columns, x.mul(x.mul(m, depth), width), x.mul(x.mul(n, depth), UNIT_ROWS))
    work = x.mul(x.mul(x.max(m, 1), columns), depth)
    small = x.less(work, 16 * _PARALLEL_WORK)
    batch_grain = x.pick(small, x.ceil_div(_PARALLEL_WORK, work), 0)
    dot = x.equal(form["form"], DOT)
    unit = x.pick(dot, x.mul(n, x.mul(depth, dot_rows(t) // 2)), unit)
    unit = x.pick(x.equal(form["form"], ROW), x.mul(depth, ROW_UNIT), unit)
    pack_b = x.pick(dot, x.pick(x.equal(brs, 1), UNPACKED, PACK_EACH), pack_b)
    panels_bytes = x.mul(x.pick(dot, x.mul(n, k), x.mul(x.round_up(kc, t.lanes), nc)), t.bytes)
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


def _pick_pointer(e: Emit, cond: Size, a: str, b: str) -> str:
    if isinstance(cond, int):
        return a if cond else b
    return e.value(f"select i1 {e.value(f'icmp ne i64 {cond}, 0')}, ptr {a}, ptr {b}")


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
