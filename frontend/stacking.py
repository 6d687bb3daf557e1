"""The sizes of what a loop stacks, which must be known outside of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tcc.ir import dims
from tcc.ir.builder import Builder
from tcc.ir.clone import clone_block
from tcc.ir.core import Block, Op, Value
from tcc.ir.dims import Size
from tcc.ir.types import Type
from tcc.passes.cse import repeatable
from tcc.passes.sizes import op_names


def bound_in(block: Block) -> list[str]:
    """The names of sizes that are told in the block itself."""
    return [str(op.attrs["size"]) for op in block.ops if op.name == "bind"]


def bind_before(body: Block, outer: Block) -> set[str]:
    """Moves each `bind` of a size that is the same in every step, with what makes it, to the end of `outer`.

    Returns the names moved.
    """
    varying: set[Value] = set(body.params)
    late, moved = set(bound_in(body)), set()
    for op in list(body.ops):
        same = not any(v in varying for o in _with_inner(op) for v in o.operands) and not late & op_names(op)
        if op.name == "bind" and op.operands[0] not in varying:
            name = str(op.attrs["size"])
            for o in [*_makers(op.operands[0], body), op]:
                outer.move(o)
            late.discard(name)
            moved.add(name)
        elif not same or not repeatable(op):
            varying.update(op.results)
    return moved


def _with_inner(op: Op) -> list[Op]:
    return [op, *(o for b in op.blocks for o in b.walk())]


def _makers(v: Value, body: Block) -> list[Op]:
    """The ops of `body` that `v` hangs on, in order."""
    found: set[Op] = set()
    waiting = [v]
    while waiting:
        op = waiting.pop().op
        if op is None or op.parent is not body or op in found:
            continue
        found.add(op)
        waiting += [x for o in _with_inner(op) for x in o.operands]
    return [op for op in body.ops if op in found]


def told_by_steps(
    b: Builder,
    body: Block,
    results: Sequence[Value],
    operands: Sequence[Value],
    sizes: Sequence[Size],
    attrs: Any,
) -> list[Value]:
    """The largest value that each of `sizes`, whose names are bound in `body`, has in some step: a scan for them alone.

    `results` are the next states, then, of a loop that may end early, the condition.  The caller checks that no step differs.
    """
    fresh: dict[str, Size] = {n: dims.name(f"{n}.told") for n in all_bound(body)}
    env: dict[Value, Value] = {}
    steps = clone_block(body, env, fresh)
    inner = Builder(steps, loc=b.loc)
    most = [steps.add_param(Type("i64")) for _ in sizes]
    told = [inner.maximum(m, inner.size_value(dims.substitute(s, fresh))) for m, s in zip(most, sizes)]
    carries = attrs["carries"]
    nexts = [env.get(v, v) for v in results]
    inner.op("yield", *nexts[:carries], *told, *nexts[carries:])
    _drop_unread(steps)
    zero = b.const(0, Type("i64"))
    whole = {**attrs, "carries": carries + len(told)}
    made = b.op("scan", *operands, *[zero] * len(told), attrs=whole, blocks=[steps])
    return list(made.results[carries : carries + len(told)])


def all_bound(body: Block) -> list[str]:
    return [str(op.attrs["size"]) for op in body.walk() if op.name == "bind"]


def _drop_unread(block: Block) -> None:
    """Python functions above all, which would be called once more."""
    for op in reversed(list(block.ops)):
        if op.results and not any(r.uses for r in op.results):
            op.erase()


def sized(b: Builder, values: Sequence[Value], known: Mapping[Size, Size], message: str) -> list[Value]:
    """The values with the sizes that are known outside, which running checks to be those of each step."""
    for late, size in known.items():
        b.op("check_size", attrs={"left": late, "right": size, "message": message})
    types = [Type(v.type.dtype, tuple(known.get(s, s) for s in v.type.shape)) for v in values]
    return [v if v.type == t else b.refine(v, type=t) for v, t in zip(values, types)]
