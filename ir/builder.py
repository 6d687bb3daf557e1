"""Builds operations at a point of a block; types are inferred.

Gradient and expansion rules are written against these method names.  The frontend has a builder with the same names
whose values are variables and whose sizes may be variables too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tcc.ir import ops as _ops  # noqa: F401  (fills the table)
from tcc.ir.core import Block, Op, Value
from tcc.ir.dims import Size, minimum, product
from tcc.ir.optable import TABLE, check_arity, complete_attrs
from tcc.ir.types import Type

Number = bool | int | float | complex


class Builder:
    """Appends to `block`, or before the operation `before` in it."""

    def __init__(self, block: Block, before: Op | None = None, loc: str = "") -> None:
        self.block, self.before, self.loc = block, before, loc

    def op(
        self,
        name: str,
        *operands: Value | Number,
        attrs: Mapping[str, Any] | None = None,
        blocks: Sequence[Block] = (),
        loc: str = "",
    ) -> Op:
        """One operation of the row `name`.  A number among the operands becomes a constant like the first value."""
        defn = TABLE[name]
        like = next((v for v in operands if isinstance(v, Value)), None)
        values = [v if isinstance(v, Value) else self._constant(name, v, like) for v in operands]
        check_arity(defn, len(values))
        full = complete_attrs(defn, attrs or {})
        types = self.infer(defn.infer, values, full, blocks)
        return self.block.append(
            Op(defn, values, types, attrs=full, blocks=blocks, loc=loc or self.loc), self.before
        )

    def infer(
        self, rule: Any, values: Sequence[Value], attrs: dict[str, Any], blocks: Sequence[Block]
    ) -> list[Type]:
        """The type rule applied; the graph builder overrides it to unify sizes."""
        types: list[Type] = rule([v.type.value for v in values], attrs, blocks)
        return types

    def _constant(self, name: str, value: Number, like: Value | None) -> Value:
        if like is None:
            raise TypeError(f"{name}: a number needs a value beside it to take its type from")
        return self.const(value, like.type.value)

    def const(self, value: Any, type: Type) -> Value:
        """`value` (a number, filled into `type`'s shape, or an array) as a value of that type."""
        return self.op("const", attrs={"value": value, "type": type}).result

    # -- what the rules ask about values -------------------------------------------------------------------------

    def dtype(self, x: Value) -> str:
        return x.type.dtype

    def rank(self, x: Value) -> int:
        return x.type.rank

    def shape(self, x: Value) -> tuple[Size, ...]:
        return x.type.shape

    def size(self, x: Value, axis: int) -> Size:
        return x.type.shape[axis]

    def count(self, x: Value, axes: Sequence[int]) -> Size:
        """The number of elements along `axes`."""
        return product([x.type.shape[a] for a in axes])

    def smaller(self, a: Size, b: Size) -> Size:
        return minimum(a, b)

    def size_value(self, size: Size, dtype: str = "i64") -> Value:
        """A size read as a rank-0 value."""
        v = self.op("size", attrs={"value": size}).result
        return v if dtype == "i64" else self.cast(v, dtype=dtype)

    def full(self, value: Number, like: Value, dtype: str | None = None) -> Value:
        """A constant of the shape of `like`, and of its dtype unless another is given."""
        return self.const(value, Type(dtype or like.type.dtype, like.type.shape))

    def is_one(self, x: Value, axis: int) -> bool:
        """Whether that size is statically 1."""
        return x.type.shape[axis] == 1

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """`b.mul(x, y)` is `b.op("mul", x, y).result`; keywords are attributes."""
        if name not in TABLE:
            raise AttributeError(f"no op named {name}")

        def build(*operands: Value | Number, **attrs: Any) -> Any:
            results = self.op(name, *operands, attrs=attrs).results
            return results[0] if len(results) == 1 else results

        return build
