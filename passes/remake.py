"""Results of maps that are made again where they are read, so that fewer bytes move.

What normalises a convolution's result makes the centred values and those under the activation, too, for the gradient:
all of them take a few operations on what the gradient's kernels can read in their place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tcc.ir.builder import Builder
from tcc.ir.clone import clone_op
from tcc.ir.core import Func, Op, Value
from tcc.ir.dims import Size, product
from tcc.ir.types import COMPLEX, itemsize
from tcc.passes.epilogue import CONVOLUTIONS, WITH_EPILOGUE, cheap, contiguous, scalar_flops
from tcc.passes.manager import Context
from tcc.passes.nest import LETTERS

NEAR = 1 << 15  # bytes of a result that stays in the nearest cache until it is read
WRITTEN = 2  # a write is a read and a write of memory


class Source(NamedTuple):
    """An operand of a kernel, and how the kernel's point reads it."""

    value: Value
    map: str


def remake(
    func: Func, ctx: Context, *, max_flops: int = 8, max_ops: int = 96, max_operands: int = 24
) -> None:
    """Drops results of maps that all their readers make again, by few operations, from what moves fewer bytes."""
    updates: Mapping[str, int] = func.attrs.get("updates", {})
    kept = {p for p in func.body.params if p.name in updates}
    remaker = _Remaker(kept, max_flops, max_ops, max_operands)
    for op in list(func.body.walk()):
        if op.name == "fuse" and not op.attrs["row"]:
            remaker.visit(op)


class _Remaker:
    def __init__(self, updated: set[Value], max_flops: int, max_ops: int, max_operands: int) -> None:
        self.updated = updated  # reading them later would keep updates from being made in place
        self.max_flops, self.max_ops, self.max_operands = max_flops, max_ops, max_operands

    def visit(self, op: Op) -> None:
        candidates = [v for v in op.results if self.candidate(op, v)]
        for chosen in [candidates] if len(candidates) == 1 else [candidates, *([v] for v in candidates)]:
            if chosen and self.pays(op, chosen):
                move(op, chosen)
                return

    def candidate(self, op: Op, result: Value) -> bool:
        """Whether `result` can be made again by all that read it."""
        k, dims = result.index, op.attrs["dims"]
        whole = [LETTERS[a] for a in range(len(dims))]
        if not result.uses or _how(op, k) or list(op.attrs["out"][k]) != whole or 1 in dims:
            return False
        elements = product(dims)
        if isinstance(elements, int) and elements * itemsize(result.type.dtype) <= NEAR:
            return False
        needed = slice_of(op, [k])
        if scalar_flops(needed) > self.max_flops or any(o.name == "iota" for o in needed):
            return False
        if any(s.value in self.updated and s.map == op.attrs["out"][k] for s in read_by(op, needed, [k])):
            return False
        return all(self.reads_points(user, result, op) for user in result.users)

    def reads_points(self, reader: Op, result: Value, maker: Op) -> bool:
        """Whether `reader` is a kernel that reads `result` point by point and has room for its operations."""
        k, needed = result.index, slice_of(maker, [result.index])
        map = maker.attrs["out"][k]
        if reader.parent is not maker.parent or reader.name not in ("fuse", *WITH_EPILOGUE):
            return False
        if reader.name == "fuse" and (reader.attrs["row"] or reader.attrs["dims"] != maker.attrs["dims"]):
            return False
        own = first_extra(reader)
        at = [i for i, v in enumerate(reader.operands) if v is result]
        if any(i < own or reader.attrs["maps"][i - own] != map for i in at):
            return False
        if reader.name == "fuse":
            return True
        pixels = map[2 if reader.name in CONVOLUTIONS else -1 :]
        for s in read_by(maker, needed, [k]):
            if s.value.type.dtype in COMPLEX:
                return False
            dense = s.map.endswith(pixels) and contiguous(s.value, len(pixels))
            if any(c in pixels for c in s.map) and not dense:
                return False
        return True

    def pays(self, op: Op, chosen: Sequence[Value]) -> bool:
        """Whether fewer bytes move, in kernels that are not too large."""
        dims = op.attrs["dims"]
        saved = sum(WRITTEN * itemsize(v.type.dtype) for v in chosen)
        for reader in dict.fromkeys(user for v in chosen for user in v.users):
            read = [v for v in chosen if v in reader.operands]
            numbers = [v.index for v in read]
            needed = slice_of(op, numbers)
            new = [s for s in read_by(op, needed, numbers) if s not in sources(reader)]
            saved += sum(itemsize(v.type.dtype) for v in read)
            saved -= sum(weight(s, dims) for s in new)
            body = list(reader.block.ops)
            if len(body) + len(needed) > self.max_ops:
                return False
            if len(reader.operands) + len(new) - len(read) > self.max_operands:
                return False
            if reader.name != "fuse" and not cheap([*body, *needed]):
                return False
        return saved > 0


def weight(s: Source, dims: Sequence[Size]) -> int:
    """Bytes a point that reading it moves."""
    return itemsize(s.value.type.dtype) if len(s.map) == len(dims) else 0


def first_extra(op: Op) -> int:
    """Where the operands begin that the block reads."""
    return len(op.operands) - len(op.attrs["maps"])


def sources(op: Op) -> list[Source]:
    return [Source(v, m) for v, m in zip(op.operands[first_extra(op) :], op.attrs["maps"], strict=True)]


def _how(op: Op, k: int) -> str:
    return str((op.attrs["reduce"] or [""] * len(op.results))[k])


def slice_of(op: Op, numbers: Sequence[int]) -> list[Op]:
    """The operations of its block that make these results, in order."""
    wanted = {op.block.yields[k] for k in numbers}
    found: list[Op] = []
    for inner in reversed(list(op.block.ops)):
        if inner.name != "yield" and any(r in wanted for r in inner.results):
            found.append(inner)
            wanted.update(inner.operands)
    return found[::-1]


def read_by(op: Op, inner: Sequence[Op], numbers: Sequence[int]) -> list[Source]:
    """What these operations of its block, and these results, read from memory."""
    read = {v for o in inner for v in o.operands} | {op.block.yields[k] for k in numbers}
    return [s for s, p in zip(sources(op), op.block.params, strict=True) if p in read]


def move(op: Op, chosen: Sequence[Value]) -> None:
    """Makes results again in each of their readers, and no longer in `op`."""
    for reader in dict.fromkeys(user for v in chosen for user in v.users):
        _make_in(reader, op, [v for v in chosen if v in reader.operands])
    _drop(op, {v.index for v in chosen})


def _make_in(reader: Op, op: Op, read: Sequence[Value]) -> None:
    block, own = reader.block, first_extra(reader)
    given = len(block.params) - len(reader.attrs["maps"])  # a product's own element
    numbers = [v.index for v in read]
    needed = slice_of(op, numbers)
    inside = dict(zip(sources(reader), block.params[given:], strict=True))
    params = dict(zip(sources(op), op.block.params, strict=True))
    env: dict[Value, Value] = {}
    operands, maps = list(reader.operands), list(reader.attrs["maps"])
    for s in read_by(op, needed, numbers):
        if s not in inside:
            inside[s] = block.add_param(params[s].type, s.value.name)
            operands.append(s.value)
            maps.append(s.map)
        env[params[s]] = inside[s]
    first = block.first
    for inner in needed:
        block.append(clone_op(inner, env, {}), before=first)
    for k in reversed(range(own, len(operands))):
        if operands[k] in read:
            made = op.block.yields[operands[k].index]
            block.params[given + k - own].replace_by(env[made])
            block.remove_param(given + k - own)
            del operands[k], maps[k - own]
    reader.set_operands(operands)
    reader.attrs = {**reader.attrs, "maps": maps}


def _drop(op: Op, numbers: set[int]) -> None:
    """Leaves results out, and all that only they need."""
    kept = [k for k in range(len(op.results)) if k not in numbers]
    if not kept:
        op.erase()
        return
    body, end = op.block, op.block.last
    assert end is not None and op.parent is not None
    end.set_operands([body.yields[k] for k in kept])
    for inner in reversed(list(body.ops)):
        if inner is not end and not any(r.uses for r in inner.results):
            inner.erase()
    used = [i for i, p in enumerate(body.params) if p.uses]
    for i in reversed(range(len(body.params))):
        if i not in used:
            body.remove_param(i)
    attrs = {
        **op.attrs,
        "maps": [op.attrs["maps"][i] for i in used],
        "out": [op.attrs["out"][k] for k in kept],
        "reduce": [_how(op, k) for k in kept],
    }
    op.blocks = []
    new = Builder(op.parent, op, op.loc).op(
        "fuse", *(op.operands[i] for i in used), attrs=attrs, blocks=[body]
    )
    for k, result in zip(kept, new.results, strict=True):
        op.results[k].replace_by(result)
        result.name = op.results[k].name
    op.erase()
