"""Matrix products: what is asked for, the plan by a cost model, and the kernel that hands both to the shared engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tcc.codegen.emit import Emit, VecType
from tcc.codegen.index import Index, Size
from tcc.codegen.kernel import quick_heads
from tcc.codegen.products.engines import vector
from tcc.codegen.products.microkernel import VECTORS
from tcc.codegen.products.plan import KC, Sizes, choose_form, most_shared_bytes, plan
from tcc.codegen.products.reach import reach
from tcc.codegen.products.record import (
    A_COLUMNS,
    A_ROWS,
    DOT,
    FIELDS,
    Reach,
    Record,
    a_copy_bytes,
    engine_name,
)
from tcc.codegen.target import Target
from tcc.codegen.vectors import lane_mask, load, store, store_first

EmitEpilogue = Callable[
    [Emit, Target, str, VecType, str, str, "str | None", str, dict[str, str]], "str | None"
]


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
    """C[m,n] (+)= A[m,k] B[k,n], `batch` of them, along two axes, the second of size `inner`.  Strides are in elements; None is a run-time value."""

    dtype: str  # f32 f64
    m: int | None
    n: int | None
    k: int | None
    a: tuple[int | None, int | None]  # row stride, column stride
    b: tuple[int | None, int | None]
    c: int | None  # row stride; columns are contiguous
    batch: int | None = 1
    batch_strides: tuple[int | None, int | None, int | None] = (0, 0, 0)
    inner: int | None = 1
    inner_strides: tuple[int | None, int | None, int | None] = (0, 0, 0)
    accumulate: bool = False
    epilogue: Epilogue | None = None
    panels: bool = False  # B is in panels of one tile's columns; its strides are those of a row and, by its columns, of a panel
    kept: bool = False  # there may be such panels besides B, which are read in its place
    backwards: bool = False  # a slot tells whether rows are taken from the last one on; no bit hangs on it
    plan: tuple[str, ...] = ()  # "field=value" of what is to be otherwise than the cost model chooses


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
    "inner": lambda s: s.inner,
    "inner_a": lambda s: s.inner_strides[0],
    "inner_b": lambda s: s.inner_strides[1],
    "inner_c": lambda s: s.inner_strides[2],
}
_STRIDES = frozenset("ars acs brs bcs crs ccs batch_a batch_b batch_c inner_a inner_b inner_c".split())


def matmul_slots(spec: Matmul) -> tuple[str, ...]:
    """The slots of %args in order: addresses a, b, c, of kept panels or null, whether it goes backwards, the epilogue's own,
    then what is not known at compile time.

    Strides in slots are in elements.
    """
    extra = tuple(name for name, _ in spec.epilogue.slots) if spec.epilogue else ()
    more = ("kept",) * spec.kept + ("backwards",) * spec.backwards
    return ("a", "b", "c", *more, *extra, *(name for name, get in _SIZES.items() if get(spec) is None))


class KernelText(NamedTuple):
    """A kernel's own functions with what they declare, the engine that they call, and what of it."""

    text: str
    engine: str
    declares: frozenset[str]
    reach: Callable[[], Reach]


def matmul_scratch(spec: Matmul, target: Target) -> int:
    """Bytes of scratch that each thread needs: an upper bound where sizes are not known."""
    t, x = _vector(spec, target), Index(Emit())
    known = {name: value for name, get in _SIZES.items() if (value := get(spec)) is not None}
    if len(known) < len(_SIZES):
        return most_shared_bytes(t, target) + int(a_copy_bytes(t, target, KC, x))

    def wanted(given: Sizes, panels: bool) -> int:
        form, sizes = choose_form(t, x, given, spec.epilogue is not None, panels)
        chosen = plan(t, target, x, sizes, form, panels, wishes(spec))
        copies = chosen["pack_a"] in (A_ROWS, A_COLUMNS)
        return int(chosen["shared_bytes"]) + int(
            a_copy_bytes(t, target, chosen["kc_most"], x) if copies else 0
        )

    most = wanted(dict(known), spec.panels)
    return max(most, wanted(_of_panels(t, known), True)) if spec.kept else most


def wishes(spec: Matmul) -> dict[str, int]:
    """What its plan asks for, by field."""
    return {name: int(value) for name, value in (item.split("=") for item in spec.plan)}


def chosen_plan(spec: Matmul, target: Target) -> Sizes:
    """The form and the plan of a product whose sizes are all known."""
    t, x = _vector(spec, target), Index(Emit())
    given: Sizes = {name: value for name, get in _SIZES.items() if (value := get(spec)) is not None}
    form, sizes = choose_form(t, x, given, spec.epilogue is not None, spec.panels)
    return form | plan(t, target, x, sizes, form, spec.panels, wishes(spec))


def _of_panels(t: VecType, sizes: Mapping[str, Any]) -> dict[str, Any]:
    """The sizes of a product that reads kept panels of B."""
    return {**sizes, "brs": VECTORS * t.lanes, "bcs": sizes["k"], "batch_b": 0, "inner_b": 0}


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

    given: Sizes = {field_name: size(field_name) for field_name in _SIZES}
    addresses = {n: e.value(f"load ptr, ptr {e.gep('%args', slots[n], 'i64')}") for n in ("a", "b", "c")}
    r["c"] = addresses["c"]
    r["args"] = "%args"
    r["epilogue"] = f"@{name}_epilogue" if spec.epilogue else "null"
    r["accumulate"] = int(spec.accumulate)
    way = f"load i64, ptr {e.gep('%args', slots['backwards'], 'i64')}" if spec.backwards else ""
    r["backwards"] = e.value(way) if way else 0
    form, sizes = choose_form(t, x, given, spec.epilogue is not None, spec.panels)

    def planned(b: str, form: Sizes, sizes: Sizes, panels: bool) -> None:
        r["a"] = _pick_pointer(e, form["turned"], b, addresses["a"])
        r["b"] = _pick_pointer(e, form["turned"], addresses["a"], b)
        chosen = plan(t, target, x, sizes, form, panels, wishes(spec))
        for field_name, value in (sizes | form | chosen).items():
            r[field_name] = x.mul(value, t.bytes) if field_name in _STRIDES else value

    if spec.kept and form["form"] != DOT:  # whose sums have an order of their own
        kept = e.value(f"load ptr, ptr {e.gep('%args', slots['kept'], 'i64')}")
        there = e.value(f"icmp ne ptr {kept}, null")
        if not isinstance(form["form"], int):
            chains = e.value(f"icmp ne i64 {form['form']}, {DOT}")
            there = e.value(f"and i1 {there}, {chains}")
        other, seen = choose_form(t, x, _of_panels(t, given), spec.epilogue is not None, True)
        e.when(there, lambda: planned(kept, other, seen, True))
        e.when(e.value(f"xor i1 {there}, true"), lambda: planned(addresses["b"], form, sizes, False))
    else:
        planned(addresses["b"], form, sizes, spec.panels)
    e.call("void", engine_name(t), ("ptr", "%ctx"), ("ptr", record))
    e.end("i32 0")
    known = {field_name: get(spec) for field_name, get in _SIZES.items()}
    fused, panels, accumulate = spec.epilogue is not None, spec.panels, spec.accumulate

    def needs() -> Reach:
        own = reach(t, target, known, fused, panels, accumulate)
        return own | reach(t, target, _of_panels(t, known), fused, True, accumulate) if spec.kept else own

    return KernelText(quick_heads(e.text()), engine_name(t), frozenset(e.declared), needs)


def _vector(spec: Matmul, target: Target) -> VecType:
    return vector(spec.dtype, target)


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

        def finished(t: VecType, j: str, mask: str | None) -> tuple[str | None, str]:
            p = e.gep(v[0], j, t.elem)
            col = str(x.add("%col", j))
            return epilogue.emit(e, target, load(e, t, p, mask), t, row, col, mask, "%batch", values), p

        def whole(j: str, _: list[str]) -> None:
            done, p = finished(pair, j, None)
            if done is not None:
                store(e, pair, done, p)

        def ragged(j: str, _: list[str]) -> None:
            left = str(x.sub("%cols", j))
            mask = lane_mask(e, t, left)
            done, p = finished(t, j, mask)
            if done is None:
                return
            if target.avx512:
                return store(e, t, done, p, mask)
            fits = e.value(f"icmp sge i64 {left}, {t.lanes}")
            e.when(fits, lambda: store(e, t, done, p))
            few = e.value(f"xor i1 {fits}, true")
            e.when(few, lambda: store_first(e, t, [done], [p], left))

        first = "0"
        if not target.avx512:  # masks cost something there; two chains of operations take as long as one
            pair = VecType(t.elem, 2 * t.lanes)
            first = e.value(f"and i64 %cols, {-pair.lanes}")
            e.loop(0, first, pair.lanes, whole)
        e.loop(first, "%cols", t.lanes, ragged)
        return [e.gep(v[0], "%crs")]

    e.loop(0, "%rows", 1, line, [("ptr", "%c")])
    e.end()
