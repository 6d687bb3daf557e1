"""Copies between a device's memory and the host's, around what Python runs there."""

from __future__ import annotations

from tcc.ir.core import Block, Func, Op, Value
from tcc.ir.ops.control import called
from tcc.ir.optable import TABLE, complete_attrs
from tcc.passes.manager import Context
from tcc.passes.writes import on_host

KEPT = ("arena", "late")  # memory that is nobody's but the function's


def transfer(func: Func, ctx: Context) -> None:
    """Gives ops that Python runs memory of the host (@host), with copies between it and the device's; what such an op has just
    made is not fetched for the next one, and what no kernel reads is not sent."""
    for block in [func.body, *(b for op in func.body.walk() for b in op.blocks)]:
        _Transfers().block(block)


def stays_on_host(op: Op) -> bool:
    """Whether Python runs it on arrays of the host: a function with a form for devices is given what lies there."""
    known = called(op.attrs.get("function"))
    return on_host(op) and known.kernels is None and known.on_device is None


class _Transfers:
    """Of one block: `here` is what the host has of the places that an op reads or has made, as long as nothing writes them."""

    def __init__(self) -> None:
        self.here: dict[Value, Value] = {}

    def block(self, block: Block) -> None:
        sent: list[Op] = []
        for op in list(block.ops):
            if stays_on_host(op):
                sent += self.around(op)
            else:
                for written in [op, *(o for b in op.blocks for o in b.walk())]:
                    self.forget(written.places)
        for copy in sent:
            self.drop_unread(copy)

    def around(self, op: Op) -> list[Op]:
        """The copies of an op's results to the device; those of its operands are put before it."""
        reads, places = op.reads, op.places
        for i, v in enumerate(reads):
            if v not in self.here:
                self.here[v] = self.memory(op, v)
                self.copy(op, v, self.here[v], op)
            op.set_operand(i, self.here[v])
        self.forget(places)
        sent = []
        for i, v in enumerate(places, len(reads)):
            made = self.here[v] = self.memory(op, v)
            op.set_operand(i, made)
            sent.append(self.copy(op, made, v, op.next))
        return sent

    def forget(self, written: list[Value]) -> None:
        roots = {_root(v) for v in written}
        self.here = {v: h for v, h in self.here.items() if _root(v) not in roots}

    def memory(self, op: Op, like: Value) -> Value:
        t = like.type.value.at("host")
        made = Op(TABLE["alloc"], [], [t], attrs=complete_attrs(TABLE["alloc"], {"type": t}), loc=op.loc)
        assert op.parent is not None
        op.parent.append(made, op)
        made.result.name = like.name
        return made.result

    def copy(self, op: Op, source: Value, target: Value, before: Op | None) -> Op:
        assert op.parent is not None
        return op.parent.append(
            Op(TABLE["copy"], [source, target], [], attrs={"into": 1}, loc=op.loc), before
        )

    def drop_unread(self, copy: Op) -> None:
        """Takes a copy to the device away again if it alone knows the place."""
        place = copy.operands[1]
        assert place.type.place is not None
        own = place.op is not None and place.op.name == "alloc" and place.type.place.space in KEPT
        if own and place.users == [copy]:
            copy.erase()


def _root(value: Value) -> Value:
    while value.op is not None and value.op.name == "view":
        value = value.op.operands[0]
    return value
