"""Loops that compute the same steps."""

from __future__ import annotations

from collections.abc import Hashable

from tcc.ir.core import Block, Func, Op, Value
from tcc.passes.cse import freeze, op_key
from tcc.passes.manager import Context
from tcc.passes.steps import extend


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


def _steps(scan: Op) -> tuple[Hashable, dict[Value, int]]:
    """Equal for scans whose steps are equal; and the number of each value of the body."""
    numbers: dict[Value, int] = {p: i for i, p in enumerate(scan.block.params)}
    keys: list[Hashable] = [*map(id, scan.operands), freeze(scan.attrs)]
    for op in scan.block.ops:
        if op.name == "yield":
            break
        keys.append((op_key(op, numbers), tuple(r.type for r in op.results)))
        for r in op.results:
            numbers[r] = len(numbers)
    fixed = scan.block.yields[: int(scan.attrs["carries"])]
    fixed += scan.block.yields[-1:] if scan.attrs["until"] else []
    keys += [numbers.get(v, id(v)) for v in fixed]
    return tuple(keys), numbers


def _into(first: Op, other: Op) -> Op:
    """`first` with the stacks of `other`, which goes away."""
    by_number = {n: v for v, n in _steps(first)[1].items()}
    numbers = _steps(other)[1]
    carries, ends = int(first.attrs["carries"]), len(other.results) - bool(other.attrs["until"])
    stacked = [by_number[numbers[v]] if v in numbers else v for v in _stacked(other)]
    merged, results = extend(first, [], stacked)
    other.replace_by(
        [
            *merged.results[:carries],
            *results,
            *merged.results[len(merged.results) - len(other.results) + ends :],
        ]
    )
    return _once(merged)


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
