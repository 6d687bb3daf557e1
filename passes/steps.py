"""Operations of a loop's body for all steps at once: their results with the steps as a new first axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tcc.ir.builder import Builder
from tcc.ir.core import Block, Op, Value
from tcc.ir.dims import Size, mul
from tcc.passes.checks import guarded, names_bound, root
from tcc.passes.cse import repeatable
from tcc.passes.groups import REDUCTIONS
from tcc.passes.sizes import op_names

MOVES = frozenset({"dimshuffle", "broadcast", "reshape", "slice"})


class Steps:
    """What of a scan's body depends on sequences and outer values alone, and its values for all steps."""

    def __init__(self, scan: Op) -> None:
        assert scan.parent is not None
        self.scan, self.body = scan, scan.block
        self.length: Size = scan.attrs["length"]
        self.seqs = int(scan.attrs["seqs"])
        self.b = Builder(scan.parent, before=scan, loc=scan.loc)
        self.made: dict[Value, Value] = dict(zip(self.body.params[: self.seqs], scan.operands))
        self.free = self._free()

    def behind(self, given: Mapping[Value, Value], free: set[Value], before: Op | None) -> None:
        """From here on values are made after the loop, from the stacks of some of the body's; `free` are those to be made."""
        self.made = dict(given)
        self.free = {*given, *free}
        assert self.b.block is not None
        self.b = Builder(self.b.block, before=before, loc=self.scan.loc)

    def outer(self, v: Value) -> bool:
        """Whether it is the same in every step, being made outside."""
        block: Block | None = v.block
        while block is not None:
            if block is self.body:
                return False
            block = block.parent_block
        return True

    def _free(self) -> set[Value]:
        """The values of the body that do not depend on a carry and can be made for all steps at once."""
        bound = names_bound(self.body)
        told = names_bound(outermost(self.body)) if any(op.defn.fails for op in self.body.ops) else set()
        free = set(self.body.params[: self.seqs])
        for op in self.body.ops:
            if (
                not repeatable(op)
                or op.blocks
                or len(op.results) != 1
                or not op.operands
                or bound & op_names(op)
            ):
                continue
            varies = [v in free for v in op.operands]
            if (
                any(varies)
                and all(f or self.outer(v) for f, v in zip(varies, op.operands))
                and supported(op, varies)
                and (op.name == "gather" and not self.scan.attrs["until"] or not guarded(op, told))
            ):
                free.add(op.result)
        return free

    def all_steps(self, v: Value) -> Value:
        """A free value for all steps."""
        if v not in self.made:
            assert v.op is not None
            for operand in v.op.operands:
                if operand in self.free:
                    self.all_steps(operand)
            self.made[v] = self._batched(v.op)
        return self.made[v]

    def _batched(self, op: Op) -> Value:
        b, t = self.b, self.length
        operands = [self.made.get(v, v) for v in op.operands]
        varies = [v in self.free for v in op.operands]
        shape = [t, *op.result.type.shape]
        if op.name == "matmul":
            x, w = operands
            if varies[1]:  # w @ x is transpose(transpose(x) @ transpose(w))
                w, x = b.dimshuffle(operands[0], order=[1, 0]), b.dimshuffle(operands[1], order=[0, 2, 1])
                shape = [t, shape[2], shape[1]]
            flat = b.reshape(x, shape=[mul(t, x.type.shape[1]), x.type.shape[2]])
            whole: Value = b.reshape(b.matmul(flat, w), shape=shape)
            return b.op("dimshuffle", whole, attrs={"order": [0, 2, 1]}).result if varies[1] else whole
        if op.name == "gather":
            self._check(op, operands)
            return b.op("gather", *operands, attrs=op.attrs).result
        if op.name in REDUCTIONS:
            return b.op(
                op.name, *operands, attrs={**op.attrs, "axes": [a + 1 for a in op.attrs["axes"]]}
            ).result
        if op.name in MOVES:
            return self._moved(op, operands[0], shape)
        wide = [v if f else b.broadcast(v, shape=shape) for v, f in zip(operands, varies)]
        return b.op(op.name, *wide, attrs=op.attrs).result

    def _check(self, gather: Op, operands: Sequence[Value]) -> None:
        """The body's checks of a gather's indices, in front of it for all steps."""
        for axis, inner, index in zip(gather.attrs["axes"], gather.operands[1:], operands[1:]):
            bound = gather.operands[0].type.shape[axis]
            for check in self.body.ops:
                if (
                    check.name == "check_index"
                    and check.attrs["bound"] == bound
                    and root(check.operands[0]) is root(inner)
                ):
                    self.b.op("check_index", index, attrs=check.attrs)
                    check.erase()
                    break

    def _moved(self, op: Op, x: Value, shape: list[Size]) -> Value:
        b = self.b
        match op.name:
            case "dimshuffle":
                order = [0, *(k if k < 0 else k + 1 for k in op.attrs["order"])]
                return b.op("dimshuffle", x, attrs={"order": order}).result
            case "broadcast":
                rank = x.type.rank - 1
                order = [0, *[-1] * (len(shape) - 1 - rank), *range(1, rank + 1)]
                return b.op("broadcast", b.dimshuffle(x, order=order), attrs={"shape": shape}).result
            case "reshape":
                return b.op("reshape", x, attrs={"shape": shape}).result
        window = {
            "start": [0, *op.attrs["start"]],
            "size": [self.length, *op.attrs["size"]],
            "step": [1, *op.attrs["step"]],
        }
        return b.op("slice", x, attrs=window).result


def outermost(block: Block) -> Block:
    """The block of the function that a block belongs to."""
    while (around := block.parent_block) is not None:
        block = around
    return block


def supported(op: Op, varies: Sequence[bool]) -> bool:
    """Whether `op` can be done for all steps at once, given which operands differ from step to step."""
    if op.name == "matmul":
        return sum(varies) == 1 and op.result.type.rank == 2
    if op.name == "gather":
        return not varies[0] and all(varies[1:])
    return bool(op.defn.scalar) or op.name in MOVES or op.name in REDUCTIONS


def extend(
    scan: Op, sequences: Sequence[tuple[Value, Value]], stacked: Sequence[Value]
) -> tuple[Op, list[Value]]:
    """The scan with more sequences (whole value, the body's value that its element stands for) and more results: the
    stacks of body values.  Returns it and the stack of each of these; one that is there already serves."""
    assert scan.parent is not None
    body, end = scan.block, scan.block.last
    seqs, carries = int(scan.attrs["seqs"]), int(scan.attrs["carries"])
    ends = len(body.yields) - bool(scan.attrs["until"])
    wanted, there = stacked, body.yields[carries:ends]
    condition, count = body.yields[ends:], scan.results[ends:]
    stacked = [v for v in wanted if v not in there]
    assert end is not None
    for i, (whole, inner) in enumerate(sequences):
        param = Value(whole.type.with_shape(*whole.type.shape[1:]), body, 0, inner.name)
        inner.replace_by(param)
        body.params.insert(seqs + i, param)
    for i, p in enumerate(body.params):
        p.index = i
    end.set_operands([*body.yields[:ends], *stacked, *condition])
    states = scan.operands[seqs:]
    length = scan.attrs["length"]
    new = Op(
        scan.defn,
        [*scan.operands[:seqs], *(whole for whole, _ in sequences), *states],
        [
            *(r.type for r in scan.results[:ends]),
            *(v.type.with_shape(length, *v.type.shape) for v in stacked),
            *(r.type for r in count),
        ],
        attrs={**scan.attrs, "seqs": seqs + len(sequences), "carries": carries},
        blocks=[body],
        loc=scan.loc,
    )
    scan.blocks = []
    scan.parent.append(new, before=scan)
    for old, result in zip(scan.results[:ends], new.results):
        old.replace_by(result)
        result.name = old.name
    for old in count:
        old.replace_by(new.results[-1])
    scan.erase()
    stacks = [*there, *stacked]
    return new, [new.results[carries + stacks.index(v)] for v in wanted]
