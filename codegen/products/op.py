"""The `matmul` op as a kernel: its places and epilogue block in the terms of the contraction engine."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from tcc.codegen import scalar
from tcc.codegen.emit import Emit, VecType
from tcc.codegen.epilogue import emit_block, key_text
from tcc.codegen.index import plus, times
from tcc.codegen.kernel import Kernel, Operand, Runtime, Slot
from tcc.codegen.products.integer import integer_product_kernel
from tcc.codegen.products.matmul import Epilogue, Matmul, matmul_kernel, matmul_scratch, matmul_slots
from tcc.codegen.products.panels import check_width
from tcc.codegen.products.small import is_small, small_product_kernel
from tcc.codegen.target import Target
from tcc.codegen.vectors import splat
from tcc.ir import dims
from tcc.ir.core import Op, Value
from tcc.ir.dims import Size
from tcc.passes.batchaxes import batch_walk


def product_kernel(op: Op, target: Target) -> Kernel:
    """A placed `matmul a, b, *extras, result`: float products through the engine."""
    if op.operands[0].type.dtype not in ("f32", "f64"):
        return integer_product_kernel(op, target)
    if is_small(op, target):
        return small_product_kernel(op, target, *(_block(op) if op.blocks else (None, {})))
    spec, fixed, sizes = _described(op, target)
    slots = tuple(fixed[n] if n in fixed else Runtime(sizes[n]) for n in matmul_slots(spec))
    key = hashlib.sha256(repr(spec).encode()).hexdigest()[:20]
    text = matmul_kernel(f"tcc_matmul_{key}", spec, target)
    return Kernel(
        f"tcc_matmul_{key}",
        text.text,
        slots,
        matmul_scratch(spec, target),
        text.declares,
        {text.engine: spec.dtype},
        text.reach,
    )


def product_spec(op: Op, target: Target) -> Matmul:
    """A placed product of floats as the engine sees it."""
    return _described(op, target)[0]


def _described(op: Op, target: Target) -> tuple[Matmul, dict[str, Slot], dict[str, Size]]:
    """A product, the slots that are no sizes, and what its sizes are."""
    a, b, c = op.operands[0].type, op.operands[1].type, op.operands[-1].type
    panels, kept = op.attrs.get("columns") is not None, bool(op.attrs.get("kept"))
    batch, inner, steps = batch_walk(c, a) if panels else batch_walk(c, a, b)
    if panels or kept:
        check_width(op.operands[-2].type if kept else b, target)
    sizes: dict[str, Size] = {
        "m": c.shape[-2],
        "n": c.shape[-1],
        "k": a.shape[-1],
        "ars": a.strides[-2],
        "acs": a.strides[-1],
        "brs": b.strides[-2],
        "bcs": b.shape[-2] if panels else b.strides[-1],
        "crs": c.strides[-2],
        "batch": batch,
        "inner": inner,
    }
    walked = dict(zip("cab", steps))
    for name in "abc":
        sizes[f"batch_{name}"], sizes[f"inner_{name}"] = walked.get(name, (0, 0))
    known = {name: s if isinstance(s, int) else None for name, s in sizes.items()}
    epilogue, more = _block(op) if op.blocks else (None, {})
    loop = _loop_around(op) if 1 in c.shape[-2:] else None
    spec = Matmul(
        c.dtype,
        known["m"],
        known["n"],
        known["k"],
        (known["ars"], known["acs"]),
        (known["brs"], known["bcs"]),
        known["crs"],
        known["batch"],
        (known["batch_a"], known["batch_b"], known["batch_c"]),
        known["inner"],
        (known["inner_a"], known["inner_b"], known["inner_c"]),
        bool(op.attrs.get("accumulate")),
        epilogue,
        panels,
        kept,
        loop is not None,
        tuple(op.attrs.get("plan", ())),
    )
    last = len(op.operands) - 1
    fixed: dict[str, Slot] = {"a": Operand(0), "b": Operand(1), "c": Operand(last), **more}
    if kept:
        fixed["kept"] = Operand(last - 1)
    if loop is not None:
        fixed["backwards"] = Runtime(dims.name(str(loop.attrs["index"])) % 2)
    return spec, fixed, sizes


def _loop_around(op: Op) -> Op | None:
    """The loop that steps through a product of a matrix and a vector: every other step goes through the matrix backwards, so that
    of one that fills a cache it finds there what the step before has read last."""
    around = op.parent.parent if op.parent is not None else None
    return around if isinstance(around, Op) and around.name == "for" else None


def _block(op: Op) -> tuple[Epilogue, dict[str, Slot]]:
    """The op's block over the finished elements; extras are read by their maps over (batch.., row, column)."""
    extras = range(2, len(op.operands) - 1 - bool(op.attrs.get("kept")))
    rank = op.operands[-1].type.rank
    slots: list[tuple[str, str]] = []
    fixed: dict[str, Slot] = {}
    maps: list[str] = list(op.attrs["maps"])
    strides: list[tuple[Size, Size, Size]] = []
    for k, (i, letters) in enumerate(zip(extras, maps, strict=True)):
        slots.append((f"x{k}", "ptr"))
        fixed[f"x{k}"] = Operand(i)
        t = op.operands[i].type
        by_axis: list[Size] = [0] * rank
        for letter, s, size in zip(letters, t.strides, t.shape, strict=True):
            by_axis[ord(letter) - ord("a")] = 0 if size == 1 else s
        # a product with an epilogue has one batch axis at most (RANKS in passes/epilogue.py)
        triple = (by_axis[rank - 3] if rank > 2 else 0, by_axis[rank - 2], by_axis[rank - 1])
        for name, s in zip(("batch", "row", "col"), triple):
            if not isinstance(s, int):
                slots.append((f"x{k}_{name}", "i64"))
                fixed[f"x{k}_{name}"] = Runtime(s)
        strides.append(triple)
    block = op.block

    def emit(
        e: Emit,
        target: Target,
        acc: str,
        t: VecType,
        row: str,
        col: str,
        mask: str | None,
        batch: str,
        values: dict[str, str],
    ) -> str:
        env: dict[Value, str] = {block.params[0]: acc}
        for k, p in enumerate(block.params[1:]):
            sb, sr, sc = (
                str(s) if isinstance(s, int) else values[f"x{k}_{name}"]
                for name, s in zip(("batch", "row", "col"), strides[k])
            )
            dtype = p.type.dtype
            elem = scalar.memory_elem(dtype)
            offset = plus(e, times(e, batch, sb), times(e, row, sr))
            base = e.gep(values[f"x{k}"], offset, elem)
            if sc == "0":
                one = scalar.load(e, target, dtype, 1, base, None)
                env[p] = splat(e, VecType(scalar.elem(dtype), t.lanes), one)
            else:
                assert sc == "1", "an epilogue reads along contiguous columns"
                env[p] = scalar.load(e, target, dtype, t.lanes, e.gep(base, col, elem), mask)
        return emit_block(e, target, block, env, t.lanes)

    return Epilogue(_key(op, strides), tuple(slots), emit), fixed


def _key(op: Op, strides: Sequence[tuple[Size, Size, Size]]) -> str:
    """Text that is equal for epilogues that are equal but for run-time strides."""
    return f"{[[s if isinstance(s, int) else '?' for s in t] for t in strides]};{key_text(op.block)}"
