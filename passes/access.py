"""How an operation in a loop nest reads its operands: through broadcasts and transpositions down to a stored value."""

from __future__ import annotations

from dataclasses import dataclass

from tcc.ir.core import Op, Value
from tcc.passes.fold import splat

# Rows that a loop nest absorbs as index maps, scalars or parts of what it reads, once for each reader.
PARTS = frozenset({"real", "imag"})
INLINE = frozenset({"broadcast", "dimshuffle", "iota", "size", "const", "identity"}) | PARTS

Axes = tuple[
    int | None, ...
]  # for each axis of a value its axis of the loop nest; None: its size is 1, index 0


@dataclass(frozen=True)
class Access:
    """`value` read at `axes`, or a `part` of it (real, imag).  A const (a splat), size or iota is not read at all but computed
    in place."""

    value: Value
    axes: Axes
    part: str = ""

    @property
    def generated(self) -> bool:
        op = self.value.op
        return op is not None and op.name in ("const", "size", "iota") and inline(op)

    @property
    def whole(self) -> Access:
        """Without its part."""
        return Access(self.value, self.axes)


def inline(op: Op) -> bool:
    """Whether a loop nest absorbs `op`: its kind says so, and a constant is a splat."""
    return op.name in INLINE and (op.name != "const" or splat(op.result) is not None)


def resolve(value: Value, axes: Axes) -> Access:
    """What is really read when a loop nest reads `value` at `axes`."""
    while value.op is not None and value.op.name in ("broadcast", "dimshuffle", "identity"):
        op = value.op
        source = op.operands[0]
        if op.name == "broadcast":
            axes = _through_broadcast(source, value, axes)
        elif op.name == "dimshuffle":
            order = list(op.attrs["order"])
            axes = tuple(axes[order.index(k)] if k in order else None for k in range(source.type.rank))
        value = source
    return Access(value, axes)


def reading(value: Value, axes: Axes) -> Access:
    """The same where a part of what is stored will do."""
    found = resolve(value, axes)
    op = found.value.op
    if op is None or op.name not in PARTS:
        return found
    whole = resolve(op.operands[0], found.axes)
    return Access(whole.value, whole.axes, op.name)


def _through_broadcast(source: Value, result: Value, axes: Axes) -> Axes:
    extra = result.type.rank - source.type.rank
    return tuple(
        axes[extra + k] if size == result.type.shape[extra + k] else None
        for k, size in enumerate(source.type.shape)
    )


def identity(rank: int) -> Axes:
    return tuple(range(rank))
