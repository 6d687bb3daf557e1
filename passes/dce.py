"""Dead code."""

from __future__ import annotations

from tcc.ir.core import Block, Func, Op, Value
from tcc.passes.cse import repeatable
from tcc.passes.manager import Context


def dce(func: Func, ctx: Context) -> None:
    """Drops pure operations whose results nobody reads, and what a scan carries or stacks for nobody."""
    _visit(func.body)


def _visit(block: Block) -> None:
    op = block.last
    while op is not None:
        before = op.prev
        if repeatable(op) and not any(r.uses for r in op.results):
            op.erase()
        else:
            if op.name == "scan":
                op = shrink_scan(op)
            for inner in op.blocks:
                _visit(inner)
        op = before


def shrink_scan(op: Op) -> Op:
    """The scan without the sequences, carries and stacked results that nothing observable depends on."""
    seqs, carries = int(op.attrs["seqs"]), int(op.attrs["carries"])
    body = op.block
    wanted = {i for i, r in enumerate(op.results) if r.uses}
    if op.attrs["until"]:
        wanted.add(len(op.results) - 1)
    for inner in list(body.ops):
        if not repeatable(inner) and inner.name != "yield":
            return op  # what may fail or act stays, with all that it reads
    live = _reached([body.yields[i] for i in wanted], body)
    while True:
        more = [i for i in range(carries) if i not in wanted and body.params[seqs + i] in live]
        if not more:
            break
        wanted |= set(more)
        live = _reached([body.yields[i] for i in wanted], body)
    keep_seqs = [i for i in range(seqs) if body.params[i] in live]
    keep_yields = sorted(wanted)
    if len(keep_seqs) == seqs and len(keep_yields) == len(body.yields):
        return op
    return _rebuild(op, keep_seqs, keep_yields)


def _reached(roots: list[Value], body: Block) -> set[Value]:
    """All values of `body` and of blocks inside it that `roots` depend on."""
    live: set[Value] = set()
    work = list(roots)
    while work:
        v = work.pop()
        if v in live:
            continue
        live.add(v)
        owner = v.op
        if owner is None or v.block is not body:
            continue
        work += owner.operands
        work += [w for b in owner.blocks for o in b.walk() for w in o.operands]
    return live


def _rebuild(op: Op, keep_seqs: list[int], keep_yields: list[int]) -> Op:
    seqs, carries = int(op.attrs["seqs"]), int(op.attrs["carries"])
    body, end = op.block, op.block.last
    assert end is not None and op.parent is not None
    keep_carries = [i for i in keep_yields if i < carries]
    end.set_operands([body.yields[i] for i in keep_yields])
    _visit(body)
    kept_params = [*keep_seqs, *(seqs + i for i in keep_carries)]
    for i in reversed(range(len(body.params))):
        if i not in kept_params:
            body.remove_param(i)
    new = Op(
        op.defn,
        [op.operands[i] for i in kept_params],
        [op.results[i].type for i in keep_yields],
        attrs={**op.attrs, "seqs": len(keep_seqs), "carries": len(keep_carries)},
        blocks=[body],
        loc=op.loc,
    )
    op.blocks = []
    op.parent.append(new, before=op)
    for i, result in zip(keep_yields, new.results):
        op.results[i].replace_by(result)
        result.name = op.results[i].name
    op.erase()
    return new
