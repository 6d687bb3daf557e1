"""A random program that is being drawn: its block, and the value of everything in it on the program's own arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tcc.ir import dims
from tcc.ir.arrays import Array
from tcc.ir.builder import Builder
from tcc.ir.core import Block, Op, Value
from tcc.ir.dims import Size
from tcc.ir.interpret import Frame
from tcc.ir.types import FLOATS, Type
from tcc.tools.compare import argument
from tcc.tools.growing import Reject

MOST = 1 << 15  # elements of a value
MOST_INSIDE = 1 << 11  # in a loop
SLOW = frozenset(
    "erf erfc erfinv gamma gammaln psi trigamma".split()
)  # in NumPy, where they are Python element by element
MOST_SLOW = 1 << 9
LARGE = 1e4  # numbers above are mostly avoided


class Draft:
    """A block being written, and the value of everything in it on the program's own arguments."""

    def __init__(
        self, rng: np.random.Generator, sizes: dict[str, int], seed: int, outer: Draft | None = None
    ) -> None:
        self.rng, self.sizes, self.seed, self.outer = rng, sizes, seed, outer
        self.block = Block()
        self.b = Builder(self.block)
        self.top: Draft = outer.top if outer else self
        self.frame: Frame = outer.frame if outer else Frame()
        self.frame.sizes = dict(sizes)
        self.values: list[Value] = []
        self.bound: set[str] = set()  # sizes that are bound at run time

    # -- random choices ------------------------------------------------------------------------------------------

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def choice(self, items: Sequence[Any]) -> Any:
        if not items:
            raise Reject
        return items[int(self.rng.integers(len(items)))]

    def size(self) -> Size:
        """A name, or now and then a number."""
        names = [n for n in self.sizes if n not in self.top.bound]
        if self.chance(0.15):
            return 1
        if self.chance(0.08):
            return int(self.choice([2, 3, 5, 17]))
        return dims.name(self.choice(names))

    def shape(self, rank: int | None = None) -> tuple[Size, ...]:
        rank = self.choice([0, 1, 1, 2, 2, 2, 3, 4]) if rank is None else rank
        return tuple(self.size() for _ in range(rank))

    @property
    def visible(self) -> list[Value]:
        return [*self.outer.visible, *self.values] if self.outer else self.values

    def pick(self, fits: Callable[[Value], bool] = lambda v: True) -> Value:
        """A value that fits, recent ones more often."""
        found: list[Value] = [v for v in self.visible if fits(v)]
        if not found:
            raise Reject
        return found[int(len(found) * self.rng.random() ** 0.6)]

    def array(self, v: Value) -> Array:
        return self.frame.env[v]

    def number(self, size: Size) -> int:
        return dims.evaluate(size, self.sizes)

    # -- making values -------------------------------------------------------------------------------------------

    def op(self, name: str, *operands: Any, **attrs: Any) -> Value:
        """One operation with one result, built and run; Reject, with nothing left behind, where its numbers run away."""
        try:
            op = self.b.op(name, *operands, attrs=attrs)
        except TypeError:
            raise Reject from None
        if any(self.number(s) < 0 for r in op.results for s in r.type.shape) or any(
            self.number(r.type.size) > self.most(name) for r in op.results
        ):
            op.erase()
            raise Reject
        self.run(op)
        if op.results and self.wild(op.result) and self.chance(0.95):
            op.erase()
            raise Reject
        return op.results[0] if op.results else op  # type: ignore[return-value]

    def most(self, name: str) -> int:
        """Elements of a result that are not too many for the interpreter."""
        if name in SLOW:
            return MOST_SLOW if self.outer is None else MOST_SLOW // 8
        return MOST if self.outer is None else MOST_INSIDE

    def run(self, op: Op) -> None:
        made = [o for o in self.block.ops if o.name == "const" and o.result not in self.frame.env]
        for o in dict.fromkeys([*made, op]):
            self.frame.op(o)

    def wild(self, v: Value) -> bool:
        a = self.array(v)
        if a.dtype.kind != "f" or not a.size:
            return False
        bad = ~np.isfinite(a)
        return bool(bad.mean() > 0.3 or np.any(np.abs(a[~bad]) > LARGE))

    def keep(self, v: Value) -> Value:
        self.values.append(v)
        return v

    def param(self, type: Type) -> Value:
        top = self.top
        if len(top.block.params) >= 10:
            raise Reject
        if type_names(type) & top.bound or dims.evaluate(type.size, self.sizes) > MOST:
            raise Reject
        p = top.block.add_param(type, f"p{len(top.block.params)}")
        top.values.append(p)
        self.frame.env[p] = argument(p, self.sizes, self.seed)
        return p

    def const(self, value: Any, type: Type) -> Value:
        v = self.b.const(value, type)
        assert v.op is not None
        self.run(v.op)
        return v

    def like(self, type: Type) -> Value:
        """Some value of this type: one that is there, one broadcast to it, a parameter, a constant."""
        same = [v for v in self.visible if v.type == type]
        if same and self.chance(0.6):
            return self.choice(same)  # type: ignore[no-any-return]
        wide = [v for v in self.visible if v.type.dtype == type.dtype and fits(v.type, type)]
        if wide and self.chance(0.5):
            return self.op("broadcast", self.choice(wide), shape=type.shape)
        if type.rank and self.chance(0.5):
            cut = int(self.rng.integers(type.rank))
            shape = tuple(1 if self.chance(0.3) else s for s in type.shape[cut:])
            return self.op("broadcast", self.param(Type(type.dtype, shape)), shape=type.shape)
        if type.rank and self.chance(0.1) and type.dtype != "bool":
            return self.op("iota", shape=type.shape, axis=int(self.rng.integers(type.rank)), dtype=type.dtype)
        if self.chance(0.25):
            value = self.choice([0, 1, 2, -1, 0.5]) if type.dtype in FLOATS else self.choice([0, 1, 2, 3])
            return self.const(bool(value) if type.dtype == "bool" else value, type)
        if self.chance(0.1) and self.number(type.size) < 40 and not type_names(type):
            return self.const(np.asarray(self.array(self.param(type))), type)
        return self.param(type)

    def clipped(self, x: Value, low: float, high: float) -> Value:
        return self.op("clip", x, self.b.full(low, x), self.b.full(high, x))


def fits(small: Type, wide: Type) -> bool:
    """Whether it broadcasts."""
    lead = wide.rank - small.rank
    return lead >= 0 and all(s == 1 or s == w for s, w in zip(small.shape, wide.shape[lead:]))


def type_names(type: Type) -> frozenset[str]:
    return frozenset().union(*map(dims.names_of, type.shape))
