"""Values, operations, blocks and functions.

A value is made once, by an operation or as a block's parameter, and knows its uses.  Every region is one block that
ends in `yield`: control flow is structured (`scan`, `ifelse`, `fuse`, `for`), a block may use any value of the blocks
around it, and dominance is "defined earlier in this block or in an enclosing one".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tcc.ir.types import Type

if TYPE_CHECKING:
    from tcc.ir.optable import OpDef

Attrs = dict[str, Any]


class Value:
    """One SSA value.  `name` is a hint for printing; identity is the object."""

    __slots__ = ("type", "owner", "index", "name", "uses")

    def __init__(self, type: Type, owner: Op | Block, index: int, name: str = "") -> None:
        self.type, self.owner, self.index, self.name = type, owner, index, name
        self.uses: dict[tuple[Op, int], None] = {}  # (user, operand index), an ordered set

    @property
    def op(self) -> Op | None:
        """The operation that makes this value, or None for a block's parameter."""
        return self.owner if isinstance(self.owner, Op) else None

    @property
    def block(self) -> Block:
        """The block in which it becomes visible."""
        if isinstance(self.owner, Block):
            return self.owner
        assert self.owner.parent is not None
        return self.owner.parent

    @property
    def users(self) -> list[Op]:
        """The operations that read it, each once, in order."""
        return list(dict.fromkeys(op for op, _ in self.uses))

    def replace_by(self, new: Value) -> None:
        """Every use of this value becomes one of `new`; `new` takes the name if it has none."""
        if new is self:
            return
        for user, i in self.uses:
            user.operands[i] = new
        new.uses |= self.uses
        self.uses = {}
        if not new.name and isinstance(new.owner, Op):
            new.name = self.name

    def __repr__(self) -> str:
        return f"%{self.name or '?'}: {self.type}"


class Op:
    """One operation: a row of the op table applied to operands."""

    __slots__ = ("defn", "name", "operands", "attrs", "blocks", "results", "parent", "loc", "prev", "next")

    def __init__(
        self,
        defn: OpDef,
        operands: Sequence[Value],
        types: Sequence[Type],
        *,
        attrs: Attrs | None = None,
        blocks: Sequence[Block] = (),
        loc: str = "",
    ) -> None:
        self.defn, self.name = defn, defn.name
        self.attrs, self.loc = attrs if attrs is not None else {}, loc
        self.operands = list(operands)
        for i, v in enumerate(self.operands):
            v.uses[self, i] = None
        self.results = [Value(t, self, i) for i, t in enumerate(types)]
        self.blocks = list(blocks)
        for b in self.blocks:
            b.parent = self
        self.parent: Block | None = None
        self.prev: Op | None = None
        self.next: Op | None = None

    @property
    def result(self) -> Value:
        """Its only result."""
        (value,) = self.results
        return value

    @property
    def block(self) -> Block:
        """Its only block."""
        (block,) = self.blocks
        return block

    @property
    def into(self) -> int:
        """How many of the last operands are places that take the results; 0 before placement."""
        return int(self.attrs.get("into", 0))

    @property
    def reads(self) -> list[Value]:
        """The operands without the places that take the results."""
        return self.operands[: len(self.operands) - self.into]

    @property
    def places(self) -> list[Value]:
        return self.operands[len(self.operands) - self.into :]

    def set_operand(self, i: int, new: Value) -> None:
        del self.operands[i].uses[self, i]
        self.operands[i] = new
        new.uses[self, i] = None

    def set_operands(self, new: Sequence[Value]) -> None:
        for i, v in enumerate(self.operands):
            del v.uses[self, i]
        self.operands = list(new)
        for i, v in enumerate(self.operands):
            v.uses[self, i] = None

    def replace_by(self, values: Sequence[Value]) -> None:
        """The results' uses go to `values`, and the operation goes away."""
        for old, new in zip(self.results, values, strict=True):
            old.replace_by(new)
        self.erase()

    def erase(self) -> None:
        """Removes it; its results must have no uses."""
        assert not any(r.uses for r in self.results), f"erasing {self.name}, whose result is still used"
        assert self.parent is not None
        for i, v in enumerate(self.operands):
            del v.uses[self, i]
        for b in self.blocks:
            for op in reversed(list(b.ops)):
                op.erase()
        self.parent.unlink(self)

    def __repr__(self) -> str:
        return f"<{self.name} of {', '.join(map(repr, self.operands))}>"


class Block:
    """A linked list of operations that ends in `yield`, with typed parameters."""

    __slots__ = ("params", "first", "last", "parent")

    def __init__(self, types: Sequence[Type] = (), names: Sequence[str] = ()) -> None:
        self.params = [Value(t, self, i, names[i] if names else "") for i, t in enumerate(types)]
        self.first: Op | None = None
        self.last: Op | None = None
        self.parent: Op | Func | None = None

    @property
    def ops(self) -> Iterator[Op]:
        """In order; the operation just yielded may be erased or have others put before it."""
        op = self.first
        while op is not None:
            following = op.next
            yield op
            op = following

    @property
    def yields(self) -> list[Value]:
        """What its `yield` hands out."""
        assert self.last is not None and self.last.name == "yield", "a block without yield"
        return self.last.operands

    def add_param(self, type: Type, name: str = "") -> Value:
        value = Value(type, self, len(self.params), name)
        self.params.append(value)
        return value

    def remove_param(self, index: int) -> None:
        assert not self.params[index].uses, "removing a parameter that is still used"
        del self.params[index]
        for i, p in enumerate(self.params):
            p.index = i

    def append(self, op: Op, before: Op | None = None) -> Op:
        """Puts `op` at the end, or before another operation of this block."""
        op.parent, op.next, op.prev = self, before, before.prev if before else self.last
        if op.prev:
            op.prev.next = op
        else:
            self.first = op
        if before:
            before.prev = op
        else:
            self.last = op
        return op

    def unlink(self, op: Op) -> None:
        if op.prev:
            op.prev.next = op.next
        else:
            self.first = op.next
        if op.next:
            op.next.prev = op.prev
        else:
            self.last = op.prev
        op.parent = op.prev = op.next = None

    def move(self, op: Op, before: Op | None = None) -> None:
        """Takes `op` from where it is and puts it here."""
        assert op.parent is not None
        op.parent.unlink(op)
        self.append(op, before)

    def walk(self) -> Iterator[Op]:
        """Every operation, outer before inner, in order; as with `ops`, the one just yielded may be erased."""
        op = self.first
        while op is not None:
            following = op.next
            yield op
            for b in op.blocks:
                yield from b.walk()
            op = following

    def count(self) -> int:
        """The number of operations, inner ones too."""
        total, op = 0, self.first
        while op is not None:
            total += 1
            for b in op.blocks:
                total += b.count()
            op = op.next
        return total

    @property
    def parent_block(self) -> Block | None:
        return self.parent.parent if isinstance(self.parent, Op) else None


class Func:
    """A named entry point.  Its block's `yield` operands are the results; `attrs` hold facts about it as a whole."""

    __slots__ = ("name", "body", "attrs")

    def __init__(self, name: str, body: Block, attrs: Mapping[str, Any] | None = None) -> None:
        self.name, self.body = name, body
        self.attrs: Attrs = dict(attrs or {})
        body.parent = self


Module = dict[str, Func]
