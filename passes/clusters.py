"""Grows the groups of a block: producers with their consumers, and siblings that read the same operand.

Merging must not close a cycle through operations outside.  Levels decide that without a search: whatever feeds a group
has a lower level, so groups of equal level can always be merged, and a group can be moved up to its lowest consumer
when its other consumers have higher levels than that one.
"""

from __future__ import annotations

from collections.abc import Sequence

from tcc.ir.core import Block, Op, Value
from tcc.ir.dims import Size
from tcc.passes.access import inline
from tcc.passes.checks import guarded
from tcc.passes.groups import Finished, Group, Limits, Members, fusable, is_pick, judge, member, space
from tcc.passes.sizes import op_names

LAST = 1 << 60  # the level of `yield`


class Clusters:
    """The groups of one block; every operation that is not inline is in one."""

    def __init__(self, block: Block, limits: Limits, bound: frozenset[str]) -> None:
        self.limits = limits
        self.depends = dependencies(block, bound)
        self.feeds = {op: sources for op, sources in self.depends.items() if not inline(op)}
        self.readers: dict[Op, list[Op]] = {op: [] for op in self.feeds}
        for op, sources in self.feeds.items():
            for source in sources:
                self.readers[source].append(op)
        self.group_of: dict[Op, Group] = {}
        for op in self.feeds:
            loop = fusable(op) or is_pick(op)
            self.group_of[op] = Group(space(op) if loop else None, {op: member(op) if loop else ()}, 0)
        self.groups = dict.fromkeys(self.group_of.values())
        self._into_readers()
        self._forward()
        self._siblings()
        self._upward()
        self._siblings()

    def consumers(self, group: Group) -> list[Group]:
        """The groups that read a result of this one."""
        found = dict.fromkeys(self.group_of[r] for op in group.ops for r in self.readers[op])
        return [g for g in found if g is not group]

    def _into_readers(self) -> None:
        """Puts groups to their readers where these are in one group and need to read no more for it: the result never
        goes to memory, and what is cheap to compute waits until it is wanted."""
        joined = True
        while joined:
            joined = False
            for group in reversed(self._in_order()):
                readers = self.consumers(group)
                if len(readers) != 1 or group.dims is None or readers[0].dims is None:
                    continue
                added = group.reads.keys() - readers[0].reads.keys()
                if len(added) <= 1 and self._join([group, readers[0]], 0) is not None:
                    joined = True

    def _forward(self) -> None:
        """Gives the groups levels, and merges them with their producers of the highest level."""
        for group in self._in_order():
            sources = dict.fromkeys(self.group_of[f] for op in group.ops for f in self.feeds[op])
            sources.pop(group, None)
            level = max((s.level for s in sources), default=0)
            group.level = LAST if group.first.name == "yield" else level + 1
            top = [s for s in sources if s.level == level]
            if top:
                self._join([*top, group], level)

    def _in_order(self) -> list[Group]:
        """The groups, each after those that feed it: only the last op of a group has readers outside."""
        last = {self.group_of[op]: i for i, op in enumerate(self.feeds)}
        return sorted(last, key=lambda group: last[group])

    def _upward(self) -> None:
        """Moves groups up to their lowest consumer."""
        for group in sorted(self.groups, key=lambda g: -g.level):
            consumers = self.consumers(group)
            lowest = min((c.level for c in consumers), default=LAST)
            first = [c for c in consumers if c.level == lowest]
            if len(first) == 1:
                self._join([group, first[0]], lowest)

    def _siblings(self) -> None:
        """Merges groups of one level and space that read the same value; of rank-0 groups all of one level."""
        seen: dict[tuple[int, tuple[Size, ...], Value | None], Group] = {}
        for group in list(self.groups):
            if group.dims is None or group not in self.groups:
                continue
            for value in list(group.reads) if group.dims else [None]:
                key = (group.level, group.dims, value)
                other = seen.get(key)
                if other is not None and other is not group and other in self.groups:
                    group = self._join([other, group], group.level) or group
                seen[key] = group

    def _join(self, parts: Sequence[Group], level: int) -> Group | None:
        """One group in place of `parts`, or None when they cannot share a kernel."""
        spaces = [p.dims for p in parts if p.dims is not None]
        dims = max(spaces, key=len, default=())
        if len(spaces) < len(parts) or any(d not in (dims, dims[:-1]) for d in spaces):
            return None
        ops = {op: read for p in parts for op, read in p.ops.items()}
        verdict = judge(ops, dims, self.limits)
        if verdict.problem:
            return None
        merged = Group(dims, ops, level, verdict.row)
        for p in parts:
            del self.groups[p]
        self.groups[merged] = None
        self.group_of.update((op, merged) for op in ops)
        return merged

    def absorb(self, finished: Finished, epilogue: Group, group: Group) -> None:
        """Makes `epilogue`, a part of `group` that alone reads a product, one group with it."""
        made: Members = {op: () for op in finished.ops}
        for old in (*(self.group_of[op] for op in made), group):
            del self.groups[old]
        rest = Group(
            group.dims, {op: read for op, read in group.ops.items() if op not in epilogue.ops}, group.level
        )
        joined = Group(epilogue.dims, {**made, **epilogue.ops}, group.level, finished=finished)
        for part in (joined, rest) if rest.ops else (joined,):
            self.groups[part] = None
            self.group_of.update((op, part) for op in part.ops)


def dependencies(block: Block, bound: frozenset[str]) -> dict[Op, list[Op]]:
    """For every op of the block those, not inline, that it depends on: through inline ops, captured values, size names
    that are bound at run time (all of the function's in `bound`), and the order of effects; a check is one to what is safe
    behind it alone."""
    feeds: dict[Op, dict[Op, None]] = {}
    makers: dict[str, Op] = {}
    effect: Op | None = None
    for op in block.ops:
        read = [*op.operands, *(v for b in op.blocks for o in b.walk() for v in o.operands)]
        sources = [v.op for v in read if v.op is not None and v.op.parent is block]
        if makers:
            sources += [makers[n] for n in op_names(op) if n in makers]
        if not op.defn.pure or op.defn.fails:
            sources += [effect] if effect is not None else []
            effect = op
        elif effect is not None and guarded(op, bound):
            sources.append(effect)
        if op.name == "bind":
            makers[str(op.attrs["size"])] = op
        found: dict[Op, None] = {}
        for source in sources:
            found.update(feeds[source] if inline(source) else {source: None})
        feeds[op] = found
    return {op: list(found) for op, found in feeds.items()}
