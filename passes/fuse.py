"""Fusion: what is computed element by element becomes `fuse` ops, one for each kernel."""

from __future__ import annotations

import heapq
from collections.abc import Mapping

from tcc.ir.core import Block, Func, Op, Value
from tcc.passes.access import inline
from tcc.passes.checks import names_bound
from tcc.passes.clusters import Clusters
from tcc.passes.epilogue import WITH_EPILOGUE, Carriers, absorb
from tcc.passes.groups import Group, Limits, is_pick, judge
from tcc.passes.manager import Context
from tcc.passes.nest import write


def fuse(
    func: Func,
    ctx: Context,
    *,
    max_ops: int = 96,
    max_operands: int = 24,
    epilogues: str = "matmul conv conv_input",
    columns: bool = False,
    most_totals: int = 8192,
) -> None:
    """Groups elementwise operations, reductions and what they read, so that fewer bytes move.  `epilogues` names the products that may carry a block; with `columns` a matrix times one column may, too.
    Row kernels add up `most_totals` columns at most, whose totals in float64 then take little of the second-level cache.

    Afterwards no elementwise operation and no reduction stands outside a `fuse` op.
    """
    params = {p.name: p for p in func.body.params}
    updates: dict[str, int] = func.attrs.get("updates", {})
    updated = {func.body.yields[i]: params[name] for name, i in updates.items()}
    bound = frozenset(names_bound(func.body))
    limits = Limits(max_ops, max_operands, most_totals)
    _visit(func.body, limits, Carriers(frozenset(epilogues.split()), columns), bound, updated, ctx)


def _visit(
    block: Block,
    limits: Limits,
    epilogues: Carriers,
    bound: frozenset[str],
    updated: Mapping[Value, Value],
    ctx: Context,
) -> None:
    for op in block.ops:
        for inner in op.blocks if op.name not in ("fuse", *WITH_EPILOGUE) else ():
            _visit(inner, limits, epilogues, bound, {}, ctx)
    clusters = Clusters(block, limits, bound)
    _explain(clusters, ctx)
    absorb(clusters, epilogues, updated, ctx)
    if any(_is_nest(g) for g in clusters.groups):
        _rewrite(block, clusters)


def _is_nest(group: Group) -> bool:
    """Whether it becomes a `fuse` op: a gather that found no row kernel to join stays a gather."""
    return group.dims is not None and not all(is_pick(op) for op in group.ops)


def _rewrite(block: Block, clusters: Clusters) -> None:
    end = block.last
    assert end is not None
    old = list(block.ops)
    for group in _ordered(block, clusters):
        if isinstance(group, Group) and _is_nest(group):
            write(group, block, end)
            continue
        for op in group.ops if isinstance(group, Group) else [group]:
            if op is not end:
                block.move(op, before=end)
    for op in reversed(old):
        nest = op in clusters.group_of and _is_nest(clusters.group_of[op])
        if (nest or inline(op)) and not any(r.uses for r in op.results):
            op.erase()


def _ordered(block: Block, clusters: Clusters) -> list[Group | Op]:
    """Groups and inline ops, each after what it reads, otherwise in the order of their last operations."""
    position = {op: i for i, op in enumerate(block.ops)}
    unit_of: dict[Op, Group | Op] = {op: clusters.group_of.get(op, op) for op in position}
    key: dict[Group | Op, int] = {}
    for op, unit in unit_of.items():
        key[unit] = position[op]
    waiting: dict[Group | Op, set[Group | Op]] = {unit: set() for unit in key}
    readers: dict[Group | Op, list[Group | Op]] = {unit: [] for unit in key}
    for op, unit in unit_of.items():
        for source in [*_direct(op, block), *clusters.depends[op]]:
            other = unit_of[source]
            absorbed = inline(source) and _absorbs(unit, op)
            if other is not unit and other not in waiting[unit] and not absorbed:
                waiting[unit].add(other)
                readers[other].append(unit)
    ready = [(key[u], i, u) for i, u in enumerate(key) if not waiting[u]]
    heapq.heapify(ready)
    number = {u: i for i, u in enumerate(key)}
    order: list[Group | Op] = []
    while ready:
        _, _, unit = heapq.heappop(ready)
        order.append(unit)
        for reader in readers[unit]:
            waiting[reader].discard(unit)
            if not waiting[reader]:
                heapq.heappush(ready, (key[reader], number[reader], reader))
    assert len(order) == len(key), "fusion closed a cycle"
    return order


def _absorbs(unit: Group | Op, op: Op) -> bool:
    """Whether inline ops that `op` of `unit` reads are written into its block."""
    return (
        isinstance(unit, Group) and _is_nest(unit) and (unit.finished is None or op not in unit.finished.ops)
    )


def _direct(op: Op, block: Block) -> list[Op]:
    """The operations of the block whose results `op`, or a block in it, reads."""
    read = [*op.operands, *(v for b in op.blocks for o in b.walk() for v in o.operands)]
    return [v.op for v in read if v.op is not None and v.op.parent is block]


def _explain(clusters: Clusters, ctx: Context) -> None:
    """Remarks on producers that did not join a loop nest that reads them element by element."""
    for group in clusters.groups:
        if not _is_nest(group):
            continue
        for value in group.reads:
            producer = clusters.group_of.get(value.op) if value.op is not None else None
            if producer is None or producer.dims is None or value.op is None:
                continue
            text = _reason(producer, group, clusters)
            ctx.remark(value.op, f"not fused into {group.first.name}: {text}")


def _reason(producer: Group, reader: Group, clusters: Clusters) -> str:
    assert reader.dims is not None
    if producer.dims != reader.dims:
        return "the iteration spaces differ"
    ops = {**producer.ops, **reader.ops}
    problem = judge(ops, reader.dims, clusters.limits).problem
    return problem or "what it makes is read by an operation that must run in between"
