"""The body of a `fuse` op as the loop emitters see it: nodes that vary along the inner axis or do not, in phases.

A phase is one visit to the row.  A reduction along the row ends a phase: what depends on its result belongs to the
next one.  A value that a later phase needs is computed again there when that is cheap, and kept in a scratch row when
it is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tcc.ir.core import Op, Value
from tcc.ir.dims import Size, floordiv
from tcc.ir.types import COMPLEX, Type, bits_dtype

EXPENSIVE = 8  # flops an element from which a value is kept rather than computed again


@dataclass(eq=False)
class Node:
    """One scalar or row value.  kind: param, const, size, index, op, reduce or take."""

    kind: str
    dtype: str
    varies: bool
    phase: int
    inputs: list[Node] = field(default_factory=list)
    op: Op | None = None
    value: Any = None  # a constant's value, a size, or a parameter's or axis's number
    how: str = ""  # sum prod max min any all
    flops: int = 0

    @property
    def chain(self) -> int:
        """Flops an element to compute it from memory and earlier phases."""
        return self.flops + sum(i.chain for i in self.inputs if i.varies and self.kind != "reduce")


@dataclass(frozen=True)
class Access:
    """An operand or result in memory: its slot and its stride, in elements, along each iteration axis."""

    slot: int
    dtype: str
    strides: tuple[Size, ...]
    reduce: str = ""  # results only

    def varies(self, axis: int) -> bool:
        return self.strides[axis] != 0


@dataclass
class Program:
    """A fuse op ready to be emitted: `sizes` and `order` of the iteration axes (last is inner), nodes, results."""

    sizes: list[Size]
    reads: list[Access]
    writes: list[Access]
    results: list[Node]
    nodes: list[Node]
    reduced: list[bool]  # per axis: no result keeps it after reduction... of those that reduce
    row: bool
    fresh: bool = (
        False  # a result is an output, so its pages are new: cleared in the nearest cache when first written
    )

    @property
    def phases(self) -> int:
        return 1 + max((n.phase for n in self.nodes), default=0)

    @property
    def flops(self) -> int:
        """An element of the iteration space."""
        return sum(n.flops for n in self.nodes if n.varies)

    @property
    def loads(self) -> list[Node]:
        return [n for n in self.nodes if n.kind == "param"]


def strides_for(type: Type, letters: str, axes: int) -> tuple[Size, ...]:
    """The stride of a place along each iteration axis, from its map; 0 where the map lacks the axis or the size is 1."""
    out: list[Size] = [0] * axes
    strides = type.strides
    if 0 in type.shape:  # those of an empty place may be 0, and would say that it does not vary
        strides = (1,) * type.rank
    for letter, stride, size in zip(letters, strides, type.shape, strict=True):
        if size != 1:
            out[ord(letter) - ord("a")] = stride
    return tuple(out)


def build(op: Op) -> Program:
    """The program of a placed `fuse` op: its last `into` operands are the places of the results."""
    sizes: list[Size] = list(op.attrs["dims"])
    axes = len(sizes)
    into = op.into
    row = bool(op.attrs.get("row"))
    reads = [
        Access(i, v.type.dtype, strides_for(v.type, m, axes))
        for i, (v, m) in enumerate(zip(op.reads, op.attrs["maps"], strict=True))
    ]
    reduces = list(op.attrs.get("reduce") or [""] * into)
    writes = [
        Access(len(op.reads) + i, v.type.dtype, strides_for(v.type, m, axes), how)
        for i, (v, m, how) in enumerate(zip(op.places, op.attrs["out"], reduces, strict=True))
    ]
    kept = chr(ord("a") + axes - 1) if row else "-"  # a row kernel's totals of columns make no loop
    reduced = [
        any(
            how and chr(ord("a") + a) not in m and kept not in m
            for m, how in zip(op.attrs["out"], reduces, strict=True)
        )
        for a in range(axes)
    ]
    sums = {} if row else _sums_of_indices(op, axes)
    groups, counted = _counted(sizes, reads, writes, reduced, sums)
    if counted is None:
        groups, counted = _loops(sizes, reads, writes, reduced, _axes_read(op), row), {}
    position = {a: g for g, group in enumerate(groups) for a in group}
    new_sizes, new_reads, new_writes = _grouped(sizes, reads, writes, groups)
    nodes, results = _nodes(op, new_reads, position, len(new_sizes) - 1, row, counted)
    return Program(
        new_sizes,
        new_reads,
        new_writes,
        results,
        nodes,
        [any(reduced[a] for a in g) for g in groups] or [False],
        row,
        any(v.type.place is not None and v.type.place.space == "output" for v in op.places),
    )


def _sums_of_indices(op: Op, axes: int) -> dict[Value, tuple[int, ...]]:
    """The body's 64-bit values that are sums of multiples of indices: the factor of each axis' index."""
    found: dict[Value, tuple[int, ...]] = {}
    for o in op.block.ops:
        if not o.results or o.result.type.dtype not in ("i64", "u64"):
            continue
        terms = [found.get(v) for v in o.operands]
        if o.name == "iota":
            found[o.result] = tuple(int(a == o.attrs["axis"]) for a in range(axes))
        elif o.name == "add" and terms[0] is not None and terms[1] is not None:
            found[o.result] = tuple(x + y for x, y in zip(terms[0], terms[1]))
        elif o.name == "mul":
            for v, term in zip(reversed(o.operands), terms):
                if term is not None and v.op is not None and v.op.name == "const":
                    found[o.result] = tuple(int(v.op.attrs["value"]) * x for x in term)
    return found


def _counted(
    sizes: list[Size],
    reads: list[Access],
    writes: list[Access],
    reduced: list[bool],
    sums: Mapping[Value, tuple[int, ...]],
) -> tuple[list[list[int]], dict[Value, int] | None]:
    """Loops in which every sum of indices that is used otherwise is the index of one loop, with that loop's number.

    Random numbers count the elements of an array so, whose rows then need not be walked one by one.  None if there are
    no such loops.
    """
    used = {
        v: term for v, term in sums.items() if any(not u.results or u.result not in sums for u in v.users)
    }
    if not used:
        return [], None
    counts = [Access(-1, v.type.dtype, term) for v, term in used.items()]
    groups = _loops(sizes, reads, writes, reduced, set(), False, counts)
    counted: dict[Value, int] = dict.fromkeys(sums, -1)
    for v, term in used.items():
        factors = {g: term[group[-1]] for g, group in enumerate(groups) if term[group[-1]]}
        if list(factors.values()) != [1]:
            return [], None
        (counted[v],) = factors
    return groups, counted


def as_pairs(type: Type) -> Type:
    """A place of complex numbers as one of pairs of floats, along a last axis."""
    pairs = Type({"c64": "f32", "c128": "f64"}[type.dtype], (*type.shape, 2))
    assert type.place is not None
    return pairs.at(type.place.space, (*(2 * s for s in type.strides), 1))


def copy_program(op: Op) -> Program:
    """`copy source, target` as a map with an empty body."""
    source, target = op.operands
    return copies(source.type, target.type)


def copies(source: Type, target: Type) -> Program:
    """A map with an empty body from one place to another one."""
    if source.dtype in COMPLEX:
        source, target = as_pairs(source), as_pairs(target)
    sizes = list(target.shape)
    letters = "".join(chr(ord("a") + a) for a in range(len(sizes)))
    dtype = bits_dtype(source.dtype)
    read = Access(0, dtype, strides_for(source, letters, len(sizes)))
    write = Access(1, dtype, strides_for(target, letters, len(sizes)))
    groups = _loops(sizes, [read], [write], [False] * len(sizes), set(), False)
    new_sizes, reads, writes = _grouped(sizes, [read], [write], groups)
    node = Node("param", dtype, reads[0].varies(len(new_sizes) - 1), 0, value=0)
    return Program(new_sizes, reads, writes, [node], [node], [False] * len(new_sizes), False)


def _loops(
    sizes: list[Size],
    reads: list[Access],
    writes: list[Access],
    reduced: list[bool],
    fixed: set[int],
    row: bool,
    counts: Sequence[Access] = (),
) -> list[list[int]]:
    """The iteration axes in loop order, in groups that are walked as one, by `counts` too."""
    axes = len(sizes)
    inner = axes - 1 if row else _inner_axis(reads, writes, sizes)
    order = [a for a in range(axes) if a != inner] + ([inner] if axes else [])
    order = _sorted_outer(order, reduced)
    return _merge(order, sizes, [*reads, *writes, *counts], reduced, fixed, keep_last=row)


def _grouped(
    sizes: list[Size], reads: list[Access], writes: list[Access], groups: list[list[int]]
) -> tuple[list[Size], list[Access], list[Access]]:
    """Sizes and strides by group; a rank-0 program gets one axis of size 1."""
    if not groups:
        one = [Access(a.slot, a.dtype, (0,), a.reduce) for a in [*reads, *writes]]
        return [1], one[: len(reads)], one[len(reads) :]
    return (
        [_product(sizes[a] for a in group) for group in groups],
        [_regroup(r, groups) for r in reads],
        [_regroup(w, groups) for w in writes],
    )


def _product(sizes: Any) -> Size:
    total: Size = 1
    for s in sizes:
        total = total * s
    return total


def _axes_read(op: Op) -> set[int]:
    """Axes whose index the body reads, which must stay what they are."""
    if op.attrs.get("row"):
        return {int(o.attrs["axis"]) for o in op.block.ops if o.name == "iota" and not o.result.type.shape}
    return {int(o.attrs["axis"]) for o in op.block.ops if o.name == "iota"}


def _inner_axis(reads: list[Access], writes: list[Access], sizes: list[Size]) -> int:
    """The axis to vectorise: the one along which most memory is dense.  An access counts by how many axes it walks, as
    a guess at its elements, and a write twice."""
    if not sizes:
        return -1
    weights = [(access, 8 ** sum(s != 0 for s in access.strides)) for access in reads]
    weights += [(access, 2 * 8 ** sum(s != 0 for s in access.strides)) for access in writes]
    best, best_score = len(sizes) - 1, -1
    for a in range(len(sizes)):
        score = sum(w for access, w in weights if access.strides[a] == 1)
        if sizes[a] != 1 and score >= best_score:
            best, best_score = a, score
    return best


def _sorted_outer(order: list[int], reduced: list[bool]) -> list[int]:
    """Kept axes before reduced ones, the inner axis staying last."""
    if not order:
        return order
    outer, inner = order[:-1], order[-1]
    return [a for a in outer if not reduced[a]] + [a for a in outer if reduced[a]] + [inner]


def _merge(
    order: list[int],
    sizes: list[Size],
    accesses: list[Access],
    reduced: list[bool],
    fixed: set[int],
    keep_last: bool,
) -> list[list[int]]:
    """Neighbouring axes that every access walks as one become one."""
    groups: list[list[int]] = []
    for position, a in enumerate(order):
        last = position == len(order) - 1
        if sizes[a] == 1 and a not in fixed and not reduced[a] and not (keep_last and last):
            continue
        if groups and a not in fixed and not (keep_last and last):
            b = groups[-1][-1]
            if (
                b not in fixed
                and reduced[a] == reduced[b]
                and all(x.strides[b] == sizes[a] * x.strides[a] for x in accesses)
            ):
                groups[-1].append(a)
                continue
        groups.append([a])
    return groups


def _regroup(access: Access, groups: list[list[int]]) -> Access:
    return Access(access.slot, access.dtype, tuple(access.strides[g[-1]] for g in groups), access.reduce)


def _nodes(
    op: Op,
    reads: list[Access],
    position: Mapping[int, int],
    last: int,
    row: bool,
    counted: Mapping[Value, int],
) -> tuple[list[Node], list[Node]]:
    """The body's values in order, and the nodes of its results."""
    env: dict[Value, Node] = {}
    nodes: list[Node] = []

    def add(value: Value, node: Node) -> None:
        env[value] = node
        nodes.append(node)

    for i, p in enumerate(op.block.params):
        varies = bool(p.type.shape) if row else last >= 0 and reads[i].varies(last)
        add(p, Node("param", p.type.dtype, varies, 0, value=i))
    for o in op.block.ops:
        if o.name == "yield":
            break
        r = o.results[0]
        if r in counted:
            if counted[r] >= 0:
                add(r, Node("index", r.type.dtype, counted[r] == last, 0, value=counted[r]))
            continue
        inputs = [env[v] for v in o.operands]
        phase = max((i.phase for i in inputs), default=0)
        varies = any(i.varies for i in inputs)
        if o.name == "const":
            add(r, Node("const", r.type.dtype, False, 0, value=o.attrs["value"]))
        elif o.name == "size":
            add(r, Node("size", r.type.dtype, False, 0, value=o.attrs["value"]))
        elif o.name == "iota":
            axis = last if row and r.type.shape else position[int(o.attrs["axis"])]
            add(r, Node("index", r.type.dtype, axis == last, 0, value=axis))
        elif o.name in ("broadcast", "reshape", "dimshuffle"):
            env[r] = inputs[0]
        elif o.name == "gather":
            add(r, Node("take", r.type.dtype, False, phase, inputs, o))
        elif o.defn.scalar:
            add(r, Node("op", r.type.dtype, varies, phase, inputs, o, flops=_flops(o)))
        else:
            assert row, f"{o.name} in a fuse body without rows"
            source = inputs[0]
            node = Node("reduce", r.type.dtype, False, phase + 1, inputs, o, how=o.name)
            add(r, node if source.varies or last >= 0 else source)
    return nodes, [env[v] for v in op.block.yields]


def _flops(op: Op) -> int:
    """Of one element."""
    one, size = op.defn.flops(op), op.result.type.size
    if size == 0:
        return 0
    quotient = floordiv(one, size)
    return quotient if isinstance(quotient, int) else 1
