"""Matrix products of a loop's steps as one large product outside of it."""

from __future__ import annotations

from tcc.ir.builder import Builder
from tcc.ir.core import Block, Func, Op, Value
from tcc.ir.dims import mul
from tcc.passes.manager import Context
from tcc.passes.steps import Steps, extend


def lift(func: Func, ctx: Context) -> None:
    """Takes out of scans what one product can do for all steps: products of sequence elements with outer values go before
    the loop, and sums of products over the steps (gradients of weights) behind it."""
    _visit(func.body)


def _visit(block: Block) -> None:
    for op in block.ops:
        for inner in op.blocks:
            _visit(inner)
        if op.name == "scan":
            _after(_before(op))


def _before(scan: Op) -> Op:
    """Products whose left side is known for all steps become sequences."""
    steps = Steps(scan)
    products = [op.result for op in scan.block.ops if op.name == "matmul" and op.result in steps.free]
    if not products:
        return scan
    new, _ = extend(scan, [(steps.all_steps(p), p) for p in products], [])
    return new


def _after(scan: Op) -> None:
    """A carry that only adds up products becomes one product over all steps."""
    steps = Steps(scan)
    sums: list[tuple[int, Op]] = []
    for i in range(int(scan.attrs["carries"])):
        product = _added_product(scan, i)
        if product is not None:
            sums.append((i, product))
    if not sums:
        return
    sides = [
        _side(v, turned) for _, p in sums for v, turned in ((p.operands[0], True), (p.operands[1], False))
    ]
    stacked = list(dict.fromkeys(v for v, _ in sides if v not in steps.free and not steps.outer(v)))
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


def _added_product(scan: Op, i: int) -> Op | None:
    """The product that carry `i` adds up, if it does nothing else."""
    param, next_value = scan.block.params[int(scan.attrs["seqs"]) + i], scan.block.yields[i]
    step = next_value.op
    if step is None or step.name != "add" or param not in step.operands or len(param.uses) > 1:
        return None
    if len(next_value.uses) > 1 or step.parent is not scan.block:
        return None
    product = (
        next(v.op for v in step.operands if v is not param)
        if step.operands[0] is not step.operands[1]
        else None
    )
    if product is None or product.name != "matmul" or product.blocks or product.result.type.rank != 2:
        return None
    return product if len(product.result.uses) == 1 and product.parent is scan.block else None


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
