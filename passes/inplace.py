"""Which updates of shared variables, and carries of loops, are made where the old value stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from tcc.ir.core import Block, Op, Value
from tcc.passes.manager import Context
from tcc.passes.writes import VIEWS, can_write, may_fail, top_op


def sink_updates(
    body: Block, params: Mapping[str, Value], updates: Mapping[str, int], ctx: Context
) -> set[Value]:
    """Moves ops that make updates behind the last op that can fail; returns the updates made in place."""
    assert body.last is not None
    wanted = _writers(body, params, updates)
    order = {op: i for i, op in enumerate(body.ops)}
    last_failure = max((i for op, i in order.items() if may_fail(op)), default=-1)
    aliases = alias_classes(body)
    readers_of = {
        op: {u for _, target in pairs for a in aliases[target] for u in a.users if u in wanted} - {op}
        for op, pairs in wanted.items()
    }  # other updates that still read what this one overwrites
    returned: dict[Value, set[int]] = {}  # of each yielded value, its positions
    for i, y in enumerate(body.yields):
        returned.setdefault(y, set()).add(i)
    in_place: set[Value] = set()
    moved: list[Op] = []
    for op, in_turn in _in_turn(readers_of):
        late = order[op] > last_failure
        only_updates = all(u is body.last for r in op.results for u in r.users)
        for value, target in wanted[op]:
            old = {(a, i) for a in aliases[target] for i in returned.get(a, ())}
            kept = old - {(target, updates[target.name])}
            if kept or not in_turn or not (late or only_updates):
                ctx.remark(op, f"%{target.name} is not updated in place")
                continue
            readers = {order[top_op(u, body)] for a in aliases[target] for u in a.users}
            if only_updates or all(r < order[op] for r in readers - {order[op], order[body.last]}):
                in_place.add(value)
        if only_updates:
            moved.append(op)
            order[op] = len(order) + len(moved)  # behind all that stays, in this order
    for op in moved:
        body.move(op, before=body.last)
    return in_place


def _writers(
    body: Block, params: Mapping[str, Value], updates: Mapping[str, int]
) -> dict[Op, list[tuple[Value, Value]]]:
    """The ops that could write updates where the old values stand: of each its (new value, variable)."""
    found: dict[Op, list[tuple[Value, Value]]] = {}
    yields = body.yields
    times = Counter(yields)
    for name, index in updates.items():
        value, target = yields[index], params[name]
        op = value.op
        if op is not None and op.parent is body and can_write(op, value, target) and times[value] == 1:
            found.setdefault(op, []).append((value, target))
    return found


def _in_turn(readers_of: Mapping[Op, set[Op]]) -> Iterator[tuple[Op, bool]]:
    """Updates behind those that still read what they overwrite, and whether they are: of some that read each other's, one
    comes too soon."""
    waiting = {op: set(readers) for op, readers in readers_of.items()}
    frees: dict[Op, list[Op]] = {}
    for op, readers in waiting.items():
        for reader in readers:
            frees.setdefault(reader, []).append(op)
    number = {op: i for i, op in enumerate(waiting)}
    free = [op for op, readers in waiting.items() if not readers]
    while waiting:
        following: list[Op] = []
        for op in free or [next(iter(waiting))]:
            del waiting[op]
            for other in frees.get(op, ()):
                if other in waiting:
                    waiting[other].discard(op)
                    if not waiting[other]:
                        following.append(other)
            yield op, bool(free)
        free = sorted(following, key=lambda op: number[op])


def alias_classes(body: Block) -> dict[Value, set[Value]]:
    """For each parameter, itself and the views of it."""
    found: dict[Value, set[Value]] = {p: {p} for p in body.params}
    root: dict[Value, Value] = {p: p for p in body.params}
    for op in body.walk():
        if op.name in VIEWS and op.operands[0] in root:
            root[op.result] = root[op.operands[0]]
            found[root[op.result]].add(op.result)
    return found


def carries_in_place(body: Block, seqs: int, carries: Sequence[int]) -> list[int]:
    """Those of a loop's `carries` whose next value is made after the last reader of the old one, and may overwrite it."""
    order = {o: i for i, o in enumerate(body.ops)}
    aliases = alias_classes(body)
    found: list[int] = []
    for k in carries:
        v, param = body.yields[k], body.params[seqs + k]
        op = v.op
        if op is None or op.parent is not body:
            continue
        readers = [order[top_op(u, body)] for a in aliases[param] for u in a.users]
        yielded = any(y in aliases[param] for y in body.yields)
        if not yielded and all(r <= order[op] for r in readers) and can_write(op, v, param):
            found.append(k)
    return found
