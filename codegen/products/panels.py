"""A matrix in the panels that register tiles read: what the engine copies for one product, kept for many."""

from __future__ import annotations

from tcc.codegen.emit import Emit, VecType
from tcc.codegen.index import Index
from tcc.codegen.index import Size as Number
from tcc.codegen.kernel import Kernel, Operand, Slots, finish
from tcc.codegen.products.engines import vector
from tcc.codegen.products.microkernel import VECTORS
from tcc.codegen.products.record import (
    FIELDS,
    PACK_EACH,
    PACK_ROWS,
    PACK_TURN,
    PANELS,
    POINTERS,
    Reach,
    Record,
    engine_name,
)
from tcc.codegen.target import Target
from tcc.codegen.vectors import lane_mask, store
from tcc.ir.core import Op
from tcc.ir.dims import Size
from tcc.ir.types import Type, itemsize
from tcc.passes.panels import COPIED_BYTES, LOOP_BYTES


def panel_bytes(target: Target) -> int:
    """Of a row of a panel, which is as wide as the widest tile, for all dtypes alike."""
    return VECTORS * target.vector_bits // 8


def loop_bytes(target: Target) -> int:
    """Of a factor that is worth panels before a loop whose steps read it: tiles that read whole vectors want a copy of any."""
    return LOOP_BYTES if target.avx512 else COPIED_BYTES


def check_width(type: Type, target: Target) -> None:
    """ValueError if panels of this type are not for this target's tiles."""
    width, wanted = type.shape[-1], panel_bytes(target) // itemsize(type.dtype)
    if width != wanted:
        raise ValueError(f"the panels {type} have {width} columns, the tiles of {target.cpu} want {wanted}")


def panels_kernel(op: Op, target: Target) -> Kernel:
    """A placed `panels b, result`, or `panels b, kept, result`, by the engine's copies: none if those kept are there."""
    b, result = op.operands[0].type, op.operands[-1].type
    check_width(result, target)
    t, e, slots = vector(b.dtype, target), Emit(), Slots()
    x = Index(e)
    e.function("i32 @KERNEL_NAME(ptr %ctx, ptr %args)")
    if len(op.operands) > 2:
        there, make = e.label(), e.label()
        e.branch_if(e.value(f"icmp ne ptr {slots.pointer(e, Operand(1))}, null"), there, make)
        e.at(there)
        e.line("ret i32 0")
        e.at(make)
    record = e.value(f"alloca [{len(FIELDS)} x i64], align 8")
    r = Record(e, record)

    def number(size: Size) -> Number:
        return size if isinstance(size, int) else slots.size(e, size)

    k, n = (number(s) for s in b.shape)
    brs, bcs = (number(s) for s in b.strides)
    turned = x.pick(x.equal(brs, 1), PACK_TURN, PACK_EACH)
    zeros: dict[str, Number] = dict.fromkeys(FIELDS, 0)
    fields = zeros | {
        "n": n,
        "k": k,
        "brs": x.mul(brs, t.bytes),
        "bcs": x.mul(bcs, t.bytes),
        "pack_b": x.pick(x.equal(bcs, 1), PACK_ROWS, turned),
        "form": PANELS,
        "batch": 1,
        "inner": 1,
        "pack_grain": x.ceil_div(1 << 15, x.mul(x.max(k, 1), VECTORS * t.lanes)),
    }
    for name, value in fields.items():
        r[name] = "null" if name in POINTERS else value
    last = len(op.operands) - 1
    r["b"], r["c"] = (slots.pointer(e, Operand(i)) for i in (0, last))
    e.call("void", engine_name(t), ("ptr", "%ctx"), ("ptr", record))
    _clear_edge(e, t, slots.pointer(e, Operand(last)), k, n)
    e.end("i32 0")
    made = finish(e, tuple(slots.slots), "panels")
    reach = Reach(
        frozenset({PANELS}), frozenset(), frozenset({PACK_ROWS, PACK_TURN, PACK_EACH}), False, small=True
    )
    return Kernel(
        made.name, made.text, made.slots, 0, made.declares, {engine_name(t): b.dtype}, lambda: reach
    )


def _clear_edge(e: Emit, t: VecType, panels: str, k: Number, n: Number) -> None:
    """Zeros behind the last column, of which the copies leave anything."""
    x, width = Index(e), VECTORS * t.lanes
    whole = x.mul(x.div(n, width), width)
    rest = x.sub(n, whole)
    if rest == 0:
        return
    last = e.gep(panels, str(x.mul(whole, k)), t.elem)
    masks = []
    for j in range(VECTORS):
        there = lane_mask(e, t, str(x.min(x.max(x.sub(rest, j * t.lanes), 0), t.lanes)))
        masks.append(e.value(f"xor {t.of('i1')} {there}, {t.of('i1').const(True)}"))

    def row(i: str, _: list[str]) -> None:
        for j, mask in enumerate(masks):
            at = e.gep(last, x.add(x.mul(i, width), j * t.lanes), t.elem)
            store(e, t, "zeroinitializer", at, mask)

    count = x.pick(x.less(0, rest), k, 0)
    e.loop(0, count, 1, row)
