"""Sizes that follow from integer inputs alone, such as those of `x[index * 600 : (index + 1) * 600]`: the host has the inputs, and
knows such sizes before anything is launched."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tcc.codegen.placed import space_of
from tcc.ir.core import Func, Op, Value
from tcc.ir.types import INTEGERS
from tcc.runtime.device_program import HOST_OPS, HostSize, Tree

MOST_OPS = 200  # of a size


class HostSizes:
    """The `bind`s of a placed function's body, as far as they follow from its inputs."""

    def __init__(self, func: Func) -> None:
        self.inputs = [p for p in func.body.params if space_of(p) == "input"]
        self.writers: dict[Value, list[Op]] = {}  # of each place, in order: some work in place
        self.trees: dict[Op, Tree] = {}
        self.position: dict[Op, int] = {}
        self.checks: list[tuple[Tree, Op]] = []  # of indices that the host knows, so far
        self.before: dict[Op, int] = {}  # how many of them come before a size
        for number, op in enumerate(func.body.ops):
            self.position[op] = number
            for inner in (op, *(o for b in op.blocks for o in b.walk())):
                for place in inner.places:
                    self.writers.setdefault(place, []).append(op)
            if op.name == "bind":
                tree = self.place(op.operands[0], op)
                if tree is not None and _count(tree) <= MOST_OPS:
                    self.trees[op], self.before[op] = tree, len(self.checks)
            if op.name == "check_index":
                tree = self.place(op.operands[0], op)
                if tree is not None and _count(tree) <= MOST_OPS:
                    self.checks.append((tree, op))

    def found(self, op: Op, number: Callable[[Op], int]) -> HostSize:
        """What `op`, one of them, binds; `number` is an op's among those that may fail."""
        checks = tuple((tree, c.attrs["bound"], number(c)) for tree, c in self.checks[: self.before[op]])
        return HostSize(str(op.attrs["size"]), self.trees[op], number(op), checks)

    def needless(self, op: Op) -> bool:
        """Whether what an op writes is read by such `bind`s alone."""
        users = [u for p in op.places for u in p.users if u is not op]
        return op.name == "fuse" and bool(users) and all(u in self.trees for u in users)

    def place(self, value: Value, reader: Op) -> Tree | None:
        """What a scalar in memory holds when an op reads it."""
        if value.type.rank or value.type.dtype not in INTEGERS:
            return None
        if value in self.inputs:
            return ("input", self.inputs.index(value))
        before = (w for w in self.writers.get(value, ()) if self.position[w] < self.position[reader])
        writer = max(before, key=self.position.__getitem__, default=None)
        if writer is None or writer.name != "fuse" or writer.attrs["dims"]:
            return None
        block = writer.block
        known: dict[Value, Tree | None] = {
            p: self.place(v, writer) for p, v in zip(block.params, writer.reads, strict=True)
        }
        return _tree(block.yields[writer.places.index(value)], known)


def _tree(value: Value, known: Mapping[Value, Tree | None]) -> Tree | None:
    if value in known:
        return known[value]
    op: Any = value.op
    if op is None or op.blocks or value.type.rank:
        return None
    if op.name == "const":
        number = int(op.attrs["value"])
        return number if value.type.dtype == "i64" else None
    if op.name == "cast" and value.type.dtype == "i64" and op.operands[0].type.dtype in INTEGERS:
        return _tree(op.operands[0], known) if op.operands[0].type.dtype != "u64" else None
    if op.name not in HOST_OPS or value.type.dtype not in ("i64", "bool"):
        return None
    if any(v.type.dtype not in ("i64", "bool") for v in op.operands):
        return None
    parts = [_tree(v, known) for v in op.operands]
    return None if any(p is None for p in parts) else (op.name, *parts)


def _count(tree: Tree) -> int:
    return 1 + sum(map(_count, tree[1:])) if isinstance(tree, tuple) and tree[0] != "input" else 1
