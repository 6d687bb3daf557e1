"""Where the values of a function lie: places, windows of them, new memory, and copies between them."""

from __future__ import annotations

from collections.abc import Sequence

from tcc.ir import dims
from tcc.ir.builder import Builder
from tcc.ir.core import Block, Func, Op, Value
from tcc.ir.dims import Size
from tcc.ir.optable import TABLE
from tcc.ir.types import Type, dense_strides
from tcc.passes.writes import inner_fuse


class Memory:
    """The place of each value, and the alloc or parameter that each place is a window of."""

    def __init__(self, func: Func) -> None:
        self.places: dict[Value, Value] = {}  # value -> its place in the new body
        self.roots: dict[Value, Value] = {}
        self.owned: set[Value] = set()  # arena roots, which may be taken over when they die
        self.entry_names = frozenset().union(
            *(dims.names_of(s) for p in func.body.params for s in p.type.shape)
        )

    def bind(self, value: Value, place: Value) -> None:
        """Says where a value lies; a place that is no window of another is a root."""
        self.places[value] = place
        self.roots.setdefault(place, place)

    def known_at_entry(self, type: Type) -> bool:
        return all(dims.names_of(s) <= self.entry_names for s in type.shape)

    # -- windows

    def window(
        self, b: Builder, source: Value, type: Type, offset: Size, strides: tuple[Size, ...], name: str = ""
    ) -> Value:
        """A place for `type` inside `source`, from `offset` elements on."""
        assert source.type.place is not None
        placed = type.at(source.type.place.space, strides)
        if offset == 0 and placed == source.type:
            return source
        value = b.op("view", source, attrs={"offset": offset, "type": placed}).result
        value.name = name
        self.roots[value] = self.roots[source]
        return value

    def element(self, b: Builder, whole: Value, type: Type, at: Size) -> Value:
        """Number `at` of what lies side by side in `whole`, along its first axis."""
        first, *rest = whole.type.strides
        return self.window(b, whole, type, dims.mul(at, first), tuple(rest))

    def part(self, b: Builder, whole: Value, type: Type, start: Sequence[Size], step: Sequence[int]) -> Value:
        """Every `step`-th element of `whole` from `start` on, as many as `type` has."""
        offset: Size = 0
        strides: list[Size] = []
        for s, at, by in zip(whole.type.strides, start, step, strict=True):
            offset = dims.add(offset, dims.mul(s, at))
            strides.append(dims.mul(s, by))
        return self.window(b, whole, type, offset, tuple(strides))

    # -- new memory, and what is written there

    def alloc(self, b: Builder, type: Type, name: str) -> Value:
        space = "arena" if self.known_at_entry(type) else "late"
        value = b.op("alloc", attrs={"type": type.at(space)}).result
        value.name = name
        self.roots[value] = value
        self.owned.add(value)
        return value

    def copy(self, b: Builder, source: Value, target: Value, loc: str) -> Value:
        b.block.append(Op(TABLE["copy"], [source, target], [], attrs={"into": 1}, loc=loc))
        return target

    def start_from(self, b: Builder, source: Value, target: Value, loc: str) -> None:
        if source is not target:
            self.copy(b, source, target, loc)

    def fill(self, b: Builder, target: Value, value: Size | float, loc: str) -> None:
        """A number, or a size, everywhere in a place."""
        t = target.type
        body = Block()
        inner = Builder(body, loc=loc)
        made = (
            inner.const(value, Type(t.dtype))
            if not isinstance(value, dims.Expr)
            else inner.op("size", attrs={"value": value}).result
        )
        inner.op("yield", made)
        b.block.append(inner_fuse([target], t, body, loc))

    def dense(self, b: Builder, place: Value, loc: str) -> Value:
        """The place itself if it is row-major and dense, else a copy that is."""
        if place.type.strides == dense_strides(place.type.shape):
            return place
        return self.copy(b, place, self.alloc(b, place.type.value, ""), loc)

    def lines(self, b: Builder, type: Type, axis: int) -> Value:
        """New memory for a value, in which it is dense along `axis`."""
        return self.ordered(b, type, [*(a for a in range(type.rank) if a != axis), axis])

    def ordered(self, b: Builder, type: Type, order: Sequence[int]) -> Value:
        """New memory for a value whose axes lie in this order."""
        memory = self.alloc(b, Type(type.dtype, tuple(type.shape[a] for a in order)), "")
        strides = dict(zip(order, memory.type.strides))
        return self.window(b, memory, type.value, 0, tuple(strides[a] for a in range(type.rank)))
