"""What is known of one op: whose memory its results may take, and of whose memory they are windows."""

from __future__ import annotations

from collections.abc import Sequence

from tcc.ir import dims
from tcc.ir.core import Block, Op, Value
from tcc.ir.dims import Size
from tcc.ir.optable import TABLE, complete_attrs
from tcc.ir.types import Type, dense_strides
from tcc.ir.verify import may_reuse
from tcc.passes.batchaxes import walks
from tcc.passes.epilogue import CONVOLUTIONS
from tcc.passes.pattern import is_complex

VIEWS = frozenset("dimshuffle reshape slice broadcast refine identity windows pairs of_pairs".split())
DENSE_VIEWS = (
    "reshape",
    "dimshuffle",
    "identity",
    "pairs",
    "of_pairs",
)  # that may see all of what lies densely
MOVES = VIEWS | frozenset(
    "const concat copy insert gather scatter fuse scan ifelse for alloc view yield".split()
)


LINES = frozenset({"sort", "argsort", "argtopk"})  # what works on one line along an axis at a time


def lies_across(type: Type, axis: int) -> bool:
    """Whether neighbours along an axis lie apart in memory, and others beside each other."""
    beside = (n != 1 and s == 1 for n, s in zip(type.shape, type.strides))
    return type.strides[axis] != 1 and type.shape[axis] != 1 and any(beside)


def lies_around(op: Op, value: Value) -> bool:
    """Whether `op` writes a window, every element of it, into what is a copy of `value` otherwise."""
    return (
        op.name == "insert"
        and op.operands[0] is value
        and op.operands[1] is not value
        and op.attrs["mode"] == "set"
        and all(s == 1 for s in op.attrs["step"])
    )


def reads_one_number(op: Op, value: Value) -> bool:
    """Whether `op` reads `value`, a number that fills its shape, as well where it is there once."""
    scattered = (
        op.name == "scatter" and value is op.operands[1] and value not in (op.operands[0], *op.operands[2:])
    )
    return lies_around(op, value) or scattered


def on_host(op: Op) -> bool:
    """Whether Python runs it, on dense arrays: rows that say so, and what computes with complex numbers as a whole."""
    return op.defn.host or (op.name not in MOVES and is_complex(op))


def inner_fuse(operands: list[Value], type: Type, block: Block, loc: str) -> Op:
    """A fuse op that maps `block` over dense windows of one shape; the last operand is the place of its result."""
    letters = "abcdefghijklmnop"[: type.rank]
    attrs = complete_attrs(
        TABLE["fuse"],
        {
            "maps": [letters] * (len(operands) - 1),
            "dims": list(type.shape),
            "out": [letters],
            "into": 1,
        },
    )
    return Op(TABLE["fuse"], operands, [], attrs=attrs, blocks=[block], loc=loc)


def moved_blocks(op: Op) -> list[Block]:
    """The op's blocks, taken from it (the old body is thrown away)."""
    return list(op.blocks)


def may_fail(op: Op) -> bool:
    inside = [op, *(o for b in op.blocks for o in b.walk())]
    return any(o.defn.fails or on_host(o) for o in inside)


def top_op(op: Op, block: Block) -> Op:
    """The op of `block` that is `op` or holds it."""
    while op.parent is not block:
        parent = op.parent.parent if op.parent is not None else None
        assert isinstance(parent, Op)
        op = parent
    return op


def can_write(op: Op, result: Value, target: Value) -> bool:
    """Whether `op` could make `result` in the memory of `target`, as far as what it reads of it goes."""
    if (
        op.name in VIEWS
        or op.name in ("const", "scan", "ifelse", "concat")
        or on_host(op)
        or result.type != target.type
    ):
        return False
    return all(v is not target or may_take(op, i, result) for i, v in enumerate(op.operands)) and not any(
        v is not target and source_of(v) is target for v in op.operands
    )


def source_of(value: Value) -> Value:
    """What a view, or a view of a view, is seen of."""
    while value.op is not None and value.op.name in VIEWS:
        value = value.op.operands[0]
    return value


def may_take(op: Op, i: int, result: Value) -> bool:
    """Whether the result may be written where operand `i` stands."""
    if op.name == "fuse":
        out = op.attrs["out"][result.index]
        reduce = op.attrs.get("reduce") or [""] * len(op.results)
        if op.attrs.get("row"):  # totals of columns are written when all rows are done
            reduce = reduce[result.index]
        return bool(op.attrs["maps"][i] == out and not any(reduce))
    return may_reuse(op, i, result.index) or i == added_operand(op.name, op.blocks)


def added_operand(name: str, blocks: Sequence[Block]) -> int | None:
    """The operand of a matrix product whose epilogue does nothing but add it; the product may start from it instead."""
    if name not in ("matmul", "matmul_widening") or not blocks:
        return None
    (block,) = blocks
    first = block.first
    if len(block.params) != 2 or first is None or first.name != "add" or block.yields != [first.result]:
        return None
    same = first.result.type == block.params[1].type
    return 2 if same and set(first.operands) == set(block.params) else None


def product_reads(op: Op, i: int, type: Type, batch_axes: int) -> bool:
    """Whether the kernel of a product or convolution can read its operand i in this place: few strides walk a product's
    batch, and what an epilogue reads along columns, or pixels, is contiguous."""
    if op.name in CONVOLUTIONS:
        space = op.result.type.rank - 2
        pixels = i > 1 and bool(op.attrs["maps"][i - 2].strip("ab"))
        return not pixels or type.strides[-space:] == dense_strides(type.shape[-space:])
    if i < 2 or i - 2 >= len(op.attrs["maps"]):
        return walks(type, batch_axes)
    column = chr(ord("a") + op.result.type.rank - 1)
    letters: str = op.attrs["maps"][i - 2]
    return column not in letters or type.shape[-1] == 1 or (letters[-1] == column and type.strides[-1] == 1)


def same_window(op: Op, i: int, result: Value, have: Value, want: Value) -> bool:
    return have is want and may_take(op, i, result)


def writes_apart(value: Value, have: Type, batch_axes: int) -> bool:
    """Whether what makes `value` can write it as it lies in a larger whole: densely, or in rows that lie apart.  Products walk so
    many axes of batches."""
    op = value.op
    assert op is not None
    dense = all(n == 1 or s == d for n, s, d in zip(have.shape, have.strides, dense_strides(have.shape)))
    if dense or op.name == "concat":
        return True
    if op.name == "matmul":
        walked = have.rank == 2 or (batch_axes > 1 and walks(have, batch_axes))
        return walked and have.strides[-1] == 1
    scattered = have.shape[-1] != 1 and have.strides[-1] != 1
    return op.name == "fuse" and not any(op.attrs["reduce"] or ()) and not scattered


def source_window(op: Op, have: Type, batch_axes: int) -> Type | None:
    """The operand of a view as it lies where the result lies as `have` says; None if the result is not all of it, densely, and
    nothing that writes there."""
    source = op.operands[0].type
    assert have.place is not None
    if op.name == "dimshuffle" and _makes(op.operands[0], "matmul"):
        there = source.at(have.place.space, _before(op, have))
        return there if writes_apart(op.operands[0], there, batch_axes) else None
    if op.name not in DENSE_VIEWS or have.strides != dense_strides(have.shape):
        return None
    if op.name == "dimshuffle":
        order = op.attrs["order"]
        kept = [d for d in order if d >= 0 and source.shape[d] != 1]
        if kept != [d for d, n in enumerate(source.shape) if n != 1]:
            if not _makes(op.operands[0], "gather"):
                return None
            # what is taken along an axis that is not the first is made with this axis in front: it is written where it lies
            return source.at(have.place.space, _before(op, have))
    return source.at(have.place.space)


def _makes(value: Value, name: str) -> bool:
    return value.op is not None and value.op.name == name and not on_host(value.op)


def _before(op: Op, have: Type) -> tuple[Size, ...]:
    """The strides of the operand of a dimshuffle whose result lies as `have` says."""
    order = list(op.attrs["order"])
    return tuple(have.strides[order.index(d)] if d in order else 1 for d in range(op.operands[0].type.rank))


def reshaped_order(value: Value, batch_axes: int) -> list[int] | None:
    """The order of axes in which a product writes its result, so that a reshape of it in this order copies nothing."""
    if not _makes(value, "matmul"):
        return None
    for view in value.users:
        if view.name == "dimshuffle" and any(user.name == "reshape" for user in view.result.users):
            dense = view.result.type.at("arena")
            if writes_apart(value, value.type.at("arena", _before(view, dense)), batch_axes):
                left = [d for d in range(value.type.rank) if d not in view.attrs["order"]]
                return left + [d for d in view.attrs["order"] if d >= 0]
    return None


def window_of(op: Op, source: Type) -> tuple[Size, tuple[Size, ...]] | None:
    """(offset, strides) in elements of a view's result in the memory of its operand; None if it is no window of it."""
    strides = source.strides
    if op.name == "identity":
        return 0, strides
    if op.name == "dimshuffle":
        return 0, tuple(1 if d < 0 else strides[d] for d in op.attrs["order"])
    if op.name == "broadcast":
        shape = op.result.type.shape
        lead = len(shape) - source.rank
        out: list[Size] = [0] * lead
        for axis, (have, want) in enumerate(zip(source.shape, shape[lead:])):
            out.append(0 if have == 1 and want != 1 else strides[axis])
        return 0, tuple(out)
    if op.name == "slice":
        offset: Size = 0
        for s, start in zip(strides, op.attrs["start"]):
            offset = dims.add(offset, dims.mul(s, start))
        return offset, tuple(dims.mul(s, by) for s, by in zip(strides, op.attrs["step"]))
    if op.name == "windows":
        rank = len(op.attrs["ws"])
        steps = [dims.mul(s, by) for s, by in zip(strides[-rank:], op.attrs["step"])]
        return 0, (*strides[:-rank], *steps, *strides[-rank:])
    if op.name == "pairs":
        return 0, (*(dims.mul(2, s) for s in strides), 1)
    if op.name == "of_pairs":
        half = tuple(dims.floordiv(s, 2) for s in strides[:-1])
        whole = strides[-1] == 1 and all(dims.mul(2, h) == s for h, s in zip(half, strides))
        return (0, half) if whole else None
    if op.name == "refine":
        return 0, dense_strides(op.result.type.shape) if strides == dense_strides(source.shape) else strides
    return _reshaped(source, op.result.type.shape)


def _reshaped(source: Type, shape: tuple[Size, ...]) -> tuple[Size, tuple[Size, ...]] | None:
    if source.strides == dense_strides(source.shape):
        return 0, dense_strides(shape)
    old = [(n, s) for n, s in zip(source.shape, source.strides) if n != 1]
    new = [n for n in shape if n != 1]
    if [n for n, _ in old] != new:
        return None
    kept = iter(s for _, s in old)
    return 0, tuple(1 if n == 1 else next(kept) for n in shape)
