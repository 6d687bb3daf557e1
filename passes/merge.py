"""Loops that compute the same steps."""

from __future__ import annotations

from collections.abc import Hashable

from tcc.ir.core import Block, Func, Op, Value
from tcc.passes.cse import freeze, op_key
from tcc.passes.manager import Context
from tcc.passes.steps import extend

Numbers = dict[Value, Hashable]


def merge(func: Func, ctx: Context) -> None:
    """Makes one scan of those that differ in nothing but in what they stack, and stacks each value once.

    A gradient needs more of the forward steps than the program asked for, and brings a scan of its own for that.
    """
    _visit(func.body)


def _visit(block: Block) -> None:
    known: dict[Hashable, Op] = {}
    place: dict[Op | None, int] = {}
    for number, op in enumerate(block.ops):
        place[op] = number
        for inner in op.blocks:
            _visit(inner)
        if op.name != "scan":
            continue
        key, numbers = _steps(op)
        first = known.get(key)
        # what `op` stacks as it is, made outside, may come from `first` itself
        if first is None or any(
            place.get(v.op, -1) >= place[first] for v in _stacked(op) if v not in numbers
        ):
            known[key] = _once(op)
            continue
        known[key] = _into(first, op)
        place[known[key]] = place[first]


def _steps(scan: Op) -> tuple[Hashable, Numbers]:
    """Equal for scans whose steps are equal, whatever they and the scans in them stack; and the number of each value of
    the body."""
    numbers: Numbers = {p: i for i, p in enumerate(scan.block.params)}
    keys = _body(scan, numbers)
    return (*map(id, scan.operands), freeze(scan.attrs), keys), numbers


def _body(scan: Op, numbers: Numbers) -> Hashable:
    keys: list[Hashable] = []
    for op in scan.block.ops:
        if op.name == "yield":
            break
        keys.append((_inner(op, numbers) if op.name == "scan" else op_key(op, numbers), _types(op)))
        for k, r in enumerate(op.results):
            numbers.setdefault(r, (len(keys), k))
    fixed = scan.block.yields[: int(scan.attrs["carries"])]
    fixed += scan.block.yields[-1:] if scan.attrs["until"] else []
    return (*keys, *(numbers.get(v, id(v)) for v in fixed))


def _types(op: Op) -> Hashable:
    count = int(op.attrs["carries"]) if op.name == "scan" else len(op.results)
    return tuple(r.type for r in op.results[:count])


def _inner(scan: Op, numbers: Numbers) -> Hashable:
    """The key of a scan in a body, of which a stack has the number of what it stacks."""
    name = ("scan", len(numbers))
    within = dict(numbers)
    for i, p in enumerate(scan.block.params):
        within[p] = (name, i)
    operands = [numbers.get(v, id(v)) for v in scan.operands]
    key = ("scan", *operands, freeze(scan.attrs), _body(scan, within))
    carries, ends = int(scan.attrs["carries"]), len(scan.results) - bool(scan.attrs["until"])
    for v, r in zip(_stacked(scan), scan.results[carries:ends]):
        numbers[r] = (name, "stack", within.get(v, id(v)))
    for r in scan.results[ends:]:
        numbers[r] = (name, "count")
    return key


def _into(first: Op, other: Op) -> Op:
    """`first` with the stacks of `other`, which goes away."""
    merged, results = _widen(first, other, {})
    other.replace_by(results)
    return _once(merged)


def _widen(first: Op, other: Op, same: dict[Value, Value]) -> tuple[Op, list[Value]]:
    """`first`, of which the scans in its body do too, with the stacks of `other`, whose steps are equal; and what `first` has
    for each result of `other`.  `same` learns what `first` has for each value of the other's body."""
    same.update(zip(other.block.params, first.block.params))
    for a, b in zip(list(first.block.ops), list(other.block.ops)):
        if a.name == "yield":
            break
        same.update(zip(b.results, _widen(a, b, same)[1] if a.name == "scan" else a.results))
    carries, ends = int(other.attrs["carries"]), len(other.results) - bool(other.attrs["until"])
    merged, stacks = extend(first, [], [same.get(v, v) for v in _stacked(other)])
    count = merged.results[len(merged.results) - len(other.results) + ends :]
    return merged, [*merged.results[:carries], *stacks, *count]


def _stacked(scan: Op) -> list[Value]:
    """What a step adds to the stacks."""
    return scan.block.yields[int(scan.attrs["carries"]) : len(scan.results) - bool(scan.attrs["until"])]


def _once(scan: Op) -> Op:
    """Of equal stacks all readers read the first."""
    carries, ends = int(scan.attrs["carries"]), len(scan.results) - bool(scan.attrs["until"])
    first: dict[Value, Value] = {}
    for v, r in zip(_stacked(scan), scan.results[carries:ends]):
        r.replace_by(first.setdefault(v, r))
    return scan
