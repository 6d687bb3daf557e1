"""Rules for gather, scatter and insert."""

from __future__ import annotations

from tcc.ir.builder import Builder
from tcc.ir.core import Op, Value
from tcc.ir.dims import Size, add
from tcc.ir.types import FLOATS
from tcc.passes.access import identity, resolve
from tcc.passes.fold import splat
from tcc.passes.pattern import AnyRule, function_rule
from tcc.passes.reductions import without_axes
from tcc.passes.views import made_by


def is_zeros(v: Value) -> bool:
    number = splat(v)
    return number is not None and bool(number == 0)


def sparse(v: Value) -> Op | None:
    """The `scatter` of sums into zeros that makes `v`."""
    op = made_by(v, "scatter")
    return op if op is not None and op.attrs["mode"] == "add" and is_zeros(op.operands[0]) else None


def counts_rows(indices: list[Value], shape: tuple[object, ...]) -> bool:
    """Whether index k < last is the position along axis k: one element of each row is meant."""
    rank = len(indices)
    if rank < 2 or len(shape) != rank or indices[0].type.shape != shape[:-1]:
        return False
    for k, index in enumerate(indices[:-1]):
        access = resolve(index, identity(rank - 1))
        made = made_by(access.value, "iota")
        if made is None or access.axes[int(made.attrs["axis"])] != k:
            return False
    return True


def picks(op: Op) -> bool:
    """Whether a gather or scatter is about one element of each row."""
    first = 1 if op.name == "gather" else 2
    shape = op.operands[0].type.shape
    return list(op.attrs["axes"]) == list(range(len(shape))) and counts_rows(op.operands[first:], shape)


# -- gather ----------------------------------------------------------------------------------------------------------


@function_rule("log", strength="stable")
def log_of_picked(op: Op, b: Builder) -> Value | None:
    """log(gather(f(x), i)) -> gather(log(f(x)), i), for softmax and sigmoid"""
    inner = made_by(op.operands[0], "gather")
    if inner is None or made_by(inner.operands[0], "softmax", "sigmoid") is None:
        return None
    return b.op("gather", b.log(inner.operands[0]), *inner.operands[1:], attrs=inner.attrs).result


@function_rule("gather", strength="stable")
def picked_log_softmax(op: Op, b: Builder) -> Value | None:
    """gather(log_softmax(x), iota, y) -> neg(xent(x, y))"""
    inner = made_by(op.operands[0], "log_softmax")
    if inner is None or inner.result.type.rank != 2 or not picks(op):
        return None
    result: Value = b.neg(b.xent(inner.operands[0], op.operands[-1]))
    return result


@function_rule("gather")
def gather_all(op: Op, b: Builder) -> Value | None:
    """gather(x, iota) over the whole first axis -> x"""
    x, *indices = op.operands
    if list(op.attrs["axes"]) != [0] or op.result.type != x.type:
        return None
    made = made_by(indices[0], "iota")
    return x if made is not None and made.result.type.rank == 1 else None


@function_rule("gather")
def gather_of_number(op: Op, b: Builder) -> Value | None:
    """gather(broadcast of one number) -> broadcast"""
    inner = made_by(op.operands[0], "broadcast")
    if inner is None or inner.operands[0].type.rank:
        return None
    result: Value = b.broadcast(inner.operands[0], shape=list(op.result.type.shape))
    return result


@function_rule("gather")
def gather_of_repeated(op: Op, b: Builder) -> Value | None:
    """gather(keep(r), iota, y) -> r"""
    rank = op.operands[0].type.rank
    if made_by(op.operands[0], "broadcast") is None or not picks(op):
        return None
    return without_axes(op.operands[0], [rank - 1], op.result.type.shape, b)


# -- scatter ---------------------------------------------------------------------------------------------------------


@function_rule("neg", "mul", "div", strength="stable", after=("scatter",))
def of_sparse(op: Op, b: Builder) -> Value | None:
    """scatter(0, v, i) * x -> scatter(0, v * gather(x, i), i), and so for neg and division"""
    for k, operand in enumerate(op.operands if op.name == "mul" else op.operands[:1]):
        inner = sparse(operand)
        if inner is None or op.result.type.dtype not in FLOATS or len(operand.uses) > 1:
            continue
        zeros, v, *indices = inner.operands
        rest = []
        if op.name != "neg":
            other = op.operands[1 - k]
            number = splat(other)
            gathered = (
                b.op("gather", other, *indices, attrs={"axes": inner.attrs["axes"]}).result
                if number is None
                else None
            )
            rest = [b.full(number.item(), v) if number is not None else gathered]
        scaled = b.op(op.name, v, *(r for r in rest if r is not None)).result
        return b.op("scatter", zeros, scaled, *indices, attrs=inner.attrs).result
    return None


@function_rule("add", "sub", strength="stable", after=("scatter",))
def sum_with_sparse(op: Op, b: Builder) -> Value | None:
    """x + scatter(0, v, i) -> scatter(x, v, i)"""
    for k in (1, 0) if op.name == "add" else (1,):
        inner = sparse(op.operands[k])
        if inner is None or len(inner.result.uses) > 1:
            continue
        _, v, *indices = inner.operands
        added = v if op.name == "add" else b.neg(v)
        return b.op("scatter", op.operands[1 - k], added, *indices, attrs=inner.attrs).result
    return None


@function_rule("sum", after=("scatter",))
def sum_of_sparse(op: Op, b: Builder) -> Value | None:
    """sum(scatter(0, v, i)) -> v, where each row gets one element and rows are summed"""
    inner = sparse(op.operands[0])
    if inner is None or inner.result.type.dtype != op.result.type.dtype or not picks(inner):
        return None
    return inner.operands[1] if list(op.attrs["axes"]) == [inner.result.type.rank - 1] else None


# -- insert ----------------------------------------------------------------------------------------------------------


def same_window(a: Op, b: Op) -> bool:
    return all(list(a.attrs[k]) == list(b.attrs[k]) for k in ("start", "size", "step"))


@function_rule("insert")
def insert_all(op: Op, b: Builder) -> Value | None:
    """insert(x, v) over all of x -> v, or x + v"""
    x, v = op.operands
    if v.type != x.type or any(s != 1 for s in op.attrs["step"]):
        return None
    if op.attrs["mode"] == "set":
        return v
    result: Value = b.add(x, v)
    return result


@function_rule("insert")
def insert_added_to_zeros(op: Op, b: Builder) -> Value | None:
    """insert(0, v, add) -> insert(0, v, set)"""
    if op.attrs["mode"] != "add" or not is_zeros(op.operands[0]):
        return None
    return b.op("insert", *op.operands, attrs={**op.attrs, "mode": "set"}).result


@function_rule("add", after=("insert",))
def sum_with_inserted(op: Op, b: Builder) -> Value | None:
    """x + insert(0, v) -> insert(x, v, add): gradients of slices accumulate in place"""
    for k in (1, 0):
        inner = made_by(op.operands[k], "insert")
        if inner is None or not is_zeros(inner.operands[0]) or len(inner.result.uses) > 1:
            continue
        attrs = {**inner.attrs, "mode": "add"}
        return b.op("insert", op.operands[1 - k], inner.operands[1], attrs=attrs).result
    return None


@function_rule("insert")
def parts_of_zeros(op: Op, b: Builder) -> Value | None:
    """insert(insert(0, u), v) over windows that lie side by side and cover all -> concat(u, v): gradients of parts"""
    parts: list[Op] = []
    inner: Op | None = op
    while inner is not None and (not parts or len(inner.result.uses) == 1):
        parts.append(inner)
        base = inner.operands[0]
        inner = made_by(base, "insert")
    whole = op.result.type.shape
    if len(parts) < 2 or not is_zeros(base) or any(s != 1 for p in parts for s in p.attrs["step"]):
        return None
    cut = [k for k, n in enumerate(whole) if any(p.attrs["size"][k] != n for p in parts)]
    if len(cut) != 1:
        return None
    (axis,) = cut
    waiting, ordered = list(parts), []
    at: Size = 0
    while waiting:
        part = next((p for p in waiting if p.attrs["start"][axis] == at), None)
        if part is None:
            return None
        waiting.remove(part)
        ordered.append(part.operands[1])
        at = add(at, part.attrs["size"][axis])
    if at != whole[axis]:
        return None
    return b.op("concat", *ordered, attrs={"axis": axis}).result


@function_rule("slice")
def slice_of_inserted(op: Op, b: Builder) -> Value | None:
    """slice(insert(x, v, set)) of the same window -> v"""
    inner = made_by(op.operands[0], "insert")
    if inner is None or inner.attrs["mode"] != "set" or not same_window(op, inner):
        return None
    return inner.operands[1]


@function_rule("slice")
def last_of_stack(op: Op, b: Builder) -> Value | None:
    """slice(the stack of a carry) at the last step -> the last carry, so that the stack may go"""
    stack = op.operands[0]
    scan = made_by(stack, "scan")
    if scan is None or scan.attrs["until"] or stack.index < scan.attrs["carries"] or op.attrs["size"][0] != 1:
        return None
    yields, carries = scan.block.yields, int(scan.attrs["carries"])
    same = [j for j in range(carries) if yields[j] is yields[stack.index]]
    end = 0 if scan.attrs["reverse"] else scan.attrs["length"] - 1
    if not same or op.attrs["start"][0] != end:
        return None
    last = b.dimshuffle(scan.results[same[0]], order=[-1, *range(stack.type.rank - 1)])
    rest = {k: [{"start": 0, "size": 1, "step": 1}[k], *op.attrs[k][1:]] for k in ("start", "size", "step")}
    return b.op("slice", last, attrs=rest).result


STABILISE: list[AnyRule] = [log_of_picked, picked_log_softmax]
RULES: list[AnyRule] = [
    gather_all,
    gather_of_number,
    gather_of_repeated,
    of_sparse,
    sum_with_sparse,
    sum_of_sparse,
    insert_all,
    parts_of_zeros,
    insert_added_to_zeros,
    sum_with_inserted,
    slice_of_inserted,
    last_of_stack,
]
