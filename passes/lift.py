"""Matrix products of a loop's steps as one large product outside of it."""

from __future__ import annotations

from collections.abc import Sequence

from tcc.ir.builder import Builder
from tcc.ir.core import Attrs, Block, Func, Op, Value
from tcc.ir.dims import mul, names_of
from tcc.passes.checks import names_bound
from tcc.passes.manager import Context
from tcc.passes.steps import Steps, extend


def lift(func: Func, ctx: Context) -> None:
    """Takes out of scans what one product can do for all steps: products of sequence elements with outer values go before
    the loop, and products that are only stacked, and sums over the steps (gradients of weights), behind it."""
    _visit(func.body)


def _visit(block: Block) -> None:
    for op in block.ops:
        for inner in op.blocks:
            _visit(inner)
        if op.name == "scan":
            new = _before(op)
            if not op.attrs["until"]:  # else the steps that are made are not all
                _after(_out(new))


def _before(scan: Op) -> Op:
    """Products whose left side is known for all steps become sequences."""
    steps = Steps(scan)
    products = [op.result for op in scan.block.ops if op.name == "matmul" and op.result in steps.free]
    if not products:
        return scan
    new, _ = extend(scan, [(steps.all_steps(p), p) for p in products], [])
    return new


def _out(scan: Op) -> Op:
    """Products with outer values that no later step needs are done for all steps behind the loop."""
    steps = Steps(scan)
    carries = int(scan.attrs["carries"])
    last = scan.block.last
    moved: set[Value] = set()
    sides: list[Value] = []
    stacks = dict.fromkeys(v for v in scan.block.yields[carries:] if v not in steps.free)
    for v in stacks:
        chain = _chain(v, scan.block, steps)
        product = chain[-1].op if chain else None
        if product is None or not _only_stacked(chain, last, carries):
            continue
        moved.update(chain)
        sides.append(product.operands[0])
    if not sides:
        return scan
    behind = scan.next
    outputs = list(scan.block.yields[carries:])
    new, results = extend(scan, [], list(dict.fromkeys(sides)))
    steps.behind(dict(zip(dict.fromkeys(sides), results)), moved, behind)
    for v, r in zip(outputs, new.results[carries:]):
        if v in moved and r.uses:
            r.replace_by(steps.all_steps(v))
    return new


def _chain(v: Value, body: Block, steps: Steps) -> list[Value]:
    """`v` and what it is a rearrangement of, down to a product of two axes with an outer matrix; empty if it is none."""
    found = [v]
    while True:
        op = found[-1].op
        if op is None or op.parent is not body or op.blocks:
            return []
        if op.name == "matmul":
            inner = not steps.outer(op.operands[0])
            return found if inner and steps.outer(op.operands[1]) and op.result.type.rank == 2 else []
        if op.name not in ("dimshuffle", "reshape"):
            return []
        found.append(op.operands[0])


def _only_stacked(chain: Sequence[Value], last: Op | None, carries: int) -> bool:
    """Whether all that reads the chain is the chain itself and what is stacked of its head."""
    head, *rest = chain
    return all(u is last and i >= carries for u, i in head.uses) and all(len(v.uses) == 1 for v in rest)


def _after(scan: Op) -> None:
    """A carry that only adds up products becomes one product over all steps, and one that adds up what is stacked anyway, or sums
    of it, becomes one sum."""
    steps = Steps(scan)
    sums: list[tuple[int, Op]] = []
    rows: list[tuple[int, Value, Attrs]] = []  # carries, what they add up, and the attributes of the sum
    bound = names_bound(scan.block)
    for i in range(int(scan.attrs["carries"])):
        term = _added(scan, i)
        if term is None:
            continue
        added = (
            term.op if len(term.uses) == 1 and term.op is not None and term.op.parent is scan.block else None
        )
        if any(_sized_by(v, bound) for v in (added.operands if added is not None else [term])):
            continue  # as many rows as each step counts cannot be stacked
        if added is not None and added.name == "matmul" and not added.blocks and added.result.type.rank == 2:
            sums.append((i, added))
        elif added is not None and added.name == "sum":
            attrs = {**added.attrs, "axes": [0, *(a + 1 for a in added.attrs["axes"])]}
            rows.append((i, added.operands[0], attrs))
        elif term.type.dtype != "bool":  # what is added up of those is whether any holds
            rows.append((i, term, {"axes": [0]}))
    sides = [
        _side(v, turned) for _, p in sums for v, turned in ((p.operands[0], True), (p.operands[1], False))
    ]
    stacked = list(dict.fromkeys(v for v, _ in sides if v not in steps.free and not steps.outer(v)))
    known = {*stacked, *scan.block.yields[int(scan.attrs["carries"]) :]}
    rows = [row for row in rows if row[1] in known]
    if not sums and not rows:
        return
    stacked = list(dict.fromkeys([*stacked, *(v for _, v, _ in rows)]))
    ready = {v: steps.all_steps(v) for v, _ in sides if v in steps.free}
    constant = [v for v, _ in sides if steps.outer(v)]
    following = scan.next
    assert scan.parent is not None
    block = scan.parent
    new, results = extend(scan, [], stacked)
    ready |= dict(zip(stacked, results))
    b = Builder(block, before=following, loc=new.loc)
    for v in constant:
        ready[v] = b.broadcast(v, shape=[new.attrs["length"], *v.type.shape])
    for (i, _), left, right in zip(sums, sides[::2], sides[1::2]):
        total = b.matmul(_flat(b, ready[left[0]], left[1], 0), _flat(b, ready[right[0]], right[1], 1))
        start = new.operands[int(new.attrs["seqs"]) + i]
        new.results[i].replace_by(b.add(start, total))
    for i, v, attrs in rows:
        total = b.op("sum", ready[v], attrs=attrs).result
        start = new.operands[int(new.attrs["seqs"]) + i]
        new.results[i].replace_by(b.add(start, total))


def _sized_by(v: Value, names: set[str]) -> bool:
    return any(names_of(size) & names for size in v.type.shape)


def _added(scan: Op, i: int) -> Value | None:
    """The value of the body that carry `i` adds up, if it does nothing else."""
    param, next_value = scan.block.params[int(scan.attrs["seqs"]) + i], scan.block.yields[i]
    step = next_value.op
    if step is None or step.name != "add" or param not in step.operands or len(param.uses) > 1:
        return None
    if len(next_value.uses) > 1 or step.parent is not scan.block or step.operands[0] is step.operands[1]:
        return None
    return next(v for v in step.operands if v is not param)


def _side(v: Value, rows: bool) -> tuple[Value, bool]:
    """(value to have for all steps, whether it is the transposed operand): a transposition is undone, for the steps can
    be put before the summed axis then without moving anything."""
    turned = v.op is not None and v.op.name == "dimshuffle" and list(v.op.attrs["order"]) == [1, 0]
    if rows and turned:
        assert v.op is not None
        return v.op.operands[0], True
    return v, False


def _flat(b: Builder, whole: Value, turned: bool, side: int) -> Value:
    """[t,m,k] as [m,t*k] (side 0), [t,k,n] as [t*k,n] (side 1); `turned` says that k comes before m."""
    t, p, q = whole.type.shape
    if side == 1:
        result: Value = b.reshape(whole, shape=[mul(t, p), q])
        return result
    if turned:
        flat: Value = b.dimshuffle(b.reshape(whole, shape=[mul(t, p), q]), order=[1, 0])
        return flat
    moved: Value = b.reshape(b.dimshuffle(whole, order=[1, 0, 2]), shape=[p, mul(t, q)])
    return moved
