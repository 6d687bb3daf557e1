"""Loops and branches of the frontend's graph as IR."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tcc.graph import Apply, dependent, toposort, variables_in
from tcc.ir import dims
from tcc.ir.builder import Builder
from tcc.ir.clone import clone_block
from tcc.ir.core import Block, Op, Value
from tcc.ir.dims import Size
from tcc.ir.ops.control import called
from tcc.ir.types import Type
from tcc.locations import place
from tcc.printing import Print, label
from tcc.stacking import bind_before, bound_in, sized, told_by_steps
from tcc.unify import GraphBuilder, Scope, resolve_block
from tcc.user_op import Probed, probed_by
from tcc.variable import Variable

if TYPE_CHECKING:
    from tcc.lower import Lowering


def eager(nodes: Sequence[Apply], results: Sequence[Variable]) -> list[Apply]:
    """Of `nodes`, in order, those that `results` need whichever branches run, and if loops take no step."""
    risky = may_raise(nodes) if any(node.name == "scan" for node in nodes) else set()
    if not risky and not any(node.name == "ifelse" for node in nodes):
        return list(nodes)
    inside = set(nodes)
    needed: set[Apply] = set()
    waiting = [v.owner for v in results]
    while waiting:
        node = waiting.pop()
        if node is None or node in needed or node not in inside:
            continue
        needed.add(node)
        read = node.operands[:1] if node.name == "ifelse" else node.sources
        owners = [v.owner for v in read]
        if node.name == "scan" and not has_steps(node):
            always = [*node.operands, *variables_in(node.attrs)]  # its length among them
            owners = [v.owner for v in always] + [o for o in owners if o not in risky]
        waiting += owners
    return [node for node in nodes if node in needed]


def may_raise(nodes: Sequence[Apply]) -> set[Apply]:
    """Those that refuse some values, and what is made of these: without effects and checks, so that steps may make them."""
    found: set[Apply] = set()
    kept: set[Apply] = set()
    for node in nodes:
        owners = {v.owner for v in node.sources}
        if not node.defn.pure or node.defn.fails or node.body is not None or owners & kept:
            kept.add(node)
        elif node.defn.raises or owners & found:
            found.add(node)
    return found


def has_steps(node: Apply) -> bool:
    length = node.attrs["length"]
    return isinstance(length, int) and length > 0


def scan(lowering: Lowering, node: Apply) -> None:
    """The body is lowered where it stands: what hangs on its parameters goes into the block, and so does what may raise, which
    only steps ask for (`hoist` moves it out behind a test).  All else is around it."""
    assert node.body is not None
    operands = [lowering.value(v) for v in node.operands]
    seqs, carries = node.attrs["seqs"], node.attrs["carries"]
    length = lowering.size(node.attrs["length"])
    types = [Type(v.type.dtype, v.type.shape[1:]) for v in operands[:seqs]]
    types += [v.type for v in operands[seqs:]]
    block = Block(types, [lowering.unique(p.name) if p.name else "" for p in node.body.params])
    inner = dependent(node.body)
    scope = Scope(GraphBuilder(block, lowering.sizes, lambda: lowering.current))
    scope.values.update(zip(node.body.params, block.params))
    lowering.scopes.append(scope)
    nodes = toposort(node.body.results, stop=lambda v: v not in inner and is_made(lowering, v))
    for part in eager(nodes, node.body.results):
        lowering.node(part)
    results = [lowering.value(v) for v in node.body.results]
    for i, (result, carry) in enumerate(zip(results[:carries], operands[seqs:])):
        results[i] = as_shaped(lowering, result, carry.type)
    # what is stacked of a state has the state's sizes, which are known outside the loop
    states = dict(zip(node.body.results[:carries], results))
    results[carries:] = [states.get(v, r) for v, r in zip(node.body.results[carries:], results[carries:])]
    lowering.scopes.pop()
    lowering.current = node
    resolve_block(block, lowering.sizes)
    attrs = {"seqs": seqs, "carries": carries, "length": length}
    attrs |= {key: node.attrs[key] for key in ("reverse", "until")}
    moved = bind_before(block, lowering.builder.block)
    lowering.scopes[-1].bound |= {k: s for k, s in scope.bound.items() if str(s) in moved}
    ends = len(node.results) - bool(node.attrs["until"])
    results[carries:ends] = stackable(lowering, block, operands, results, ends, attrs, label(node))
    scope.builder.op("yield", *results)
    op = lowering.builder.op("scan", *operands, attrs=attrs, blocks=[block])
    lowering.define(node, op.results)


def stackable(
    lowering: Lowering,
    body: Block,
    operands: Sequence[Value],
    results: Sequence[Value],
    ends: int,
    attrs: dict[str, Any],
    what: str,
) -> list[Value]:
    """What a loop stacks, with sizes that are known before it; one step that differs is an error of the call."""
    carries = attrs["carries"]
    stacks = list(results[carries:ends])
    bound = set(bound_in(body))
    late = [s for s in dict.fromkeys(s for v in stacks for s in v.type.shape) if bound & dims.names_of(s)]
    if not late:
        return stacks
    rest = [*results[:carries], *results[ends:]]
    told = told_by_steps(lowering.builder, body, rest, operands, late, attrs)
    known = {s: lowering.bound(v) for s, v in zip(late, told)}
    message = f"{what}: what is stacked must have the same size in every step"
    return sized(Builder(body, loc=lowering.builder.loc), stacks, known, message)


def ifelse(lowering: Lowering, node: Apply) -> None:
    """What only one branch needs is made in its block, so that it runs, and may fail, only if it is wanted."""
    condition, count = lowering.value(node.operands[0]), len(node.results)
    branches = [node.operands[1 : 1 + count], node.operands[1 + count :]]
    blocks = [branch(lowering, b) for b in branches]
    lowering.current = node
    lowering.builder.loc = place(node.loc)
    shapes = joined_shapes(lowering, condition, blocks)
    for block in blocks:
        end = block.last
        assert end is not None
        b = Builder(block, before=end, loc=place(node.loc))
        made = [(v, Type(v.type.dtype, tuple(shape))) for v, shape in zip(block.yields, shapes)]
        end.set_operands([v if v.type == t else b.refine(v, type=t) for v, t in made])
    lowering.define(node, lowering.builder.op("ifelse", condition, blocks=blocks).results)


def branch(lowering: Lowering, results: Sequence[Variable]) -> Block:
    """A block that makes `results`.  Sizes that must be equal in it are so only if it runs."""
    block = Block()
    scope = Scope(GraphBuilder(block, lowering.sizes, lambda: lowering.current))
    outside = dict(lowering.exact), dict(lowering.keys), lowering.sizes.lazy
    lowering.sizes.lazy = True
    lowering.scopes.append(scope)
    nodes = toposort(results, stop=lambda v: is_made(lowering, v))
    for part in eager(nodes, results):
        lowering.node(part)
    scope.builder.op("yield", *map(lowering.value, results))
    lowering.scopes.pop()
    lowering.exact, lowering.keys, lowering.sizes.lazy = outside
    resolve_block(block, lowering.sizes)
    return block


def is_made(lowering: Lowering, v: Variable) -> bool:
    return v in lowering.exact or lowering.find(v) is not None


def joined_shapes(lowering: Lowering, condition: Value, blocks: Sequence[Block]) -> list[list[Size]]:
    """The shapes of what an ifelse gives.  Sizes that differ between its branches are told by branches of their own."""
    pairs = [
        [tuple(map(lowering.sizes.resolve, pair)) for pair in zip(then.type.shape, other.type.shape)]
        for then, other in zip(*(b.yields for b in blocks))
    ]
    late = list(dict.fromkeys(p for shape in pairs for p in shape if p[0] != p[1]))
    if not late:
        return [[size for size, _ in shape] for shape in pairs]
    inner = [told(lowering, block, [p[side] for p in late]) for side, block in enumerate(blocks)]
    sizes = lowering.builder.op("ifelse", condition, blocks=inner).results
    known: dict[Any, Size] = {p: lowering.bound(v) for p, v in zip(late, sizes)}
    return [[known.get(p, p[0]) for p in shape] for shape in pairs]


def told(lowering: Lowering, block: Block, sizes: Sequence[Size]) -> Block:
    """A block that makes these sizes, which may be bound in `block`."""
    bound: dict[str, Size] = {}
    for op in block.walk():
        if op.name == "bind":
            lowering.fresh += 1
            bound[str(op.attrs["size"])] = dims.name(f"s{lowering.fresh}")
    needed = set(bound) & set().union(*map(dims.names_of, sizes))
    made = clone_block(block, {}, bound) if needed else Block()
    if made.last is not None:
        run_once(made, block)
    for op in list(made.walk()):
        if op.name == "call" and isinstance(getattr(op.attrs["function"], "__self__", None), Print):
            op.result.replace_by(op.operands[0])  # the branch itself prints it
            op.erase()
    if made.last is not None:
        made.last.erase()
    b = Builder(made, loc=lowering.builder.loc)
    b.op("yield", *(b.size_value(dims.substitute(s, bound)) for s in sizes))
    return made


def run_once(first: Block, second: Block) -> None:
    """User-written ops that a block and its copy have, one before the other, run in the first.

    Those in loops run in both: of their steps, the last one's results would be kept.
    """
    for one, two in zip(first.ops, second.ops, strict=True):
        _run_in_first(one, two)
        if one.name == "ifelse":
            for branch, again in zip(one.blocks, two.blocks, strict=True):
                run_once(branch, again)


def _run_in_first(first: Op, second: Op) -> None:
    function: Any = first.attrs.get("function")
    probed, known = probed_by(function), called(function)
    if probed is None:
        compiled = any(form is not None for form in (known.kernels, known.on_device, known.want))
        if known.op is None or compiled:
            return
        probed = Probed(function)
    first.attrs["function"], second.attrs["function"] = probed.asked_twice(function)


def as_shaped(lowering: Lowering, value: Value, wanted: Type) -> Value:
    """A value whose sizes must be those of `wanted`."""
    for axis in range(value.type.rank):
        have, want = (lowering.sizes.resolve(t.shape[axis]) for t in (value.type, wanted))
        if have == want:
            continue
        mismatch = dims.SizeMismatch(
            f"a state's axis {axis} is {have}, its first value's is {want}", have, want
        )
        if not lowering.builder.demand(mismatch):
            shape = (*value.type.shape[:axis], want, *value.type.shape[axis + 1 :])
            value = lowering.builder.refine(value, type=Type(value.type.dtype, shape))
        value.type = value.type.substitute(lowering.sizes.known)
    return value
