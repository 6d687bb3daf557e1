"""What the type rules and gradient rules of several rows share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tcc.ir.core import Attrs, Block, Op
from tcc.ir.dims import Size, SizeMismatch, mul
from tcc.ir.optable import Expansion, GradRule, OpDef, RopRule, Sample, TypeRule, define
from tcc.ir.types import COMPLEX, FLOATS, INTEGERS, Type

BOOL = frozenset({"bool"})
REAL = INTEGERS | FLOATS
NUMBERS = REAL | COMPLEX
ORDERED = BOOL | REAL
ANY = BOOL | NUMBERS
ANALYTIC = FLOATS | COMPLEX

_KINDS = {
    BOOL: "bool",
    INTEGERS: "an integer type",
    FLOATS: "a float type",
    COMPLEX: "a complex type",
    REAL: "an integer or float type",
    ANALYTIC: "a float or complex type",
    NUMBERS: "a number type",
    ORDERED: "a bool, integer or float type",
    BOOL | INTEGERS: "a bool or integer type",
}


def want_dtype(row: str, operand: str, type: Type, accepts: frozenset[str]) -> None:
    if type.dtype not in accepts:
        wanted = _KINDS.get(accepts) or "one of " + ", ".join(sorted(accepts))
        raise TypeError(f"{row}: operand {operand} must be of {wanted}, got {type}")


def want_rank(row: str, operand: str, type: Type, rank: int) -> None:
    if type.rank != rank:
        raise TypeError(f"{row}: operand {operand} must have rank {rank}, got {type}")


def want_size(row: str, what: str, got: Size, wanted: Size) -> None:
    if got != wanted:
        raise SizeMismatch(f"{row}: {what} must be {wanted}, got {got}", got, wanted)


def want_shape(row: str, operand: str, got: Type, wanted: Sequence[Size], source: str) -> None:
    """`got` must have the shape `wanted`, which is that of `source`."""
    if got.shape == wanted:
        return
    if got.rank != len(wanted):
        sizes = ",".join(map(str, wanted))
        raise TypeError(f"{row}: operand {operand} must have the shape [{sizes}] of {source}, got {got}")
    for axis, (have, want) in enumerate(zip(got.shape, wanted)):
        if have != want:
            message = (
                f"{row}: axis {axis} of operand {operand} must be {want} as that of {source}, got {have}"
            )
            raise SizeMismatch(message, have, want)


def want_same_dtype(row: str, types: Sequence[Type]) -> None:
    for type in types[1:]:
        if type.dtype != types[0].dtype:
            raise TypeError(f"{row}: operands must have one dtype, got {listed(types)}")


def want_axes(row: str, axes: Sequence[int], rank: int) -> None:
    """Ascending and within the rank."""
    for axis, following in zip(axes, [*axes[1:], rank]):
        if not 0 <= axis < following or axis >= rank:
            raise TypeError(f"{row}: axes must ascend within 0..{rank - 1}, got {list(axes)}")


def want_axis(row: str, axis: int, rank: int) -> None:
    if not 0 <= axis < rank:
        raise TypeError(f"{row}: axis must be within 0..{rank - 1}, got {axis}")


def want_blocks(row: str, blocks: Sequence[Block], count: int) -> None:
    if len(blocks) != count:
        raise TypeError(f"{row}: takes {count} block{'s' * (count != 1)}, got {len(blocks)}")


def elementwise(row: str, operands: str, accepts: frozenset[str], result: str = "") -> TypeRule:
    """Operands of one shape and one dtype out of `accepts`; the result's dtype is theirs unless `result` names it."""
    first, *others = operands.split(", ")

    def infer(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
        want_dtype(row, first, types[0], accepts)
        want_same_dtype(row, types)
        for name, type in zip(others, types[1:]):
            want_shape(row, name, type, types[0].shape, first)
        return [types[0].with_dtype(result) if result else types[0]]

    return infer


def listed(types: Sequence[Type]) -> str:
    return "(" + ", ".join(map(str, types)) + ")"


def result_size(op: Op) -> Size:
    return op.results[0].type.size


def per_element(flops: int) -> Any:
    """The cost of an op that takes `flops` for each element of its result."""
    return lambda op: mul(flops, result_size(op))


def per_operand_element(flops: int) -> Any:
    """The cost of an op that takes `flops` for each element of its first operand."""
    return lambda op: mul(flops, op.operands[0].type.size)


def linear(row: str) -> RopRule:
    """The directional derivative of a row that is linear in its first operand and takes no derivative by the others."""

    def rop(b: Any, op: Any, tangents: Sequence[Any]) -> list[Any]:
        if tangents[0] is None:
            return [None]
        return [getattr(b, row)(tangents[0], *op.operands[1:], **op.attrs)]

    return rop


def linear_in_all(row: str, count: int | None = None) -> RopRule:
    """The same for a row that is linear in its first `count` operands together (all of them without `count`)."""

    def rop(b: Any, op: Any, tangents: Sequence[Any]) -> list[Any]:
        n = len(op.operands) if count is None else count
        if all(t is None for t in tangents[:n]):
            return [None]
        moved = [b.full(0, x) if t is None else t for x, t in zip(op.operands[:n], tangents)]
        return [getattr(b, row)(*moved, *op.operands[n:], **op.attrs)]

    return rop


def back_to(b: Any, g: Any, dtype: str) -> Any:
    """A gradient as that of what had this dtype before a cast: of real numbers it is real."""
    if dtype in FLOATS and b.dtype(g) in COMPLEX:
        g = b.real(g)
    return g if b.dtype(g) == dtype else b.cast(g, dtype=dtype)


def host_row(
    name: str,
    operands: str,
    infer: Callable[[Sequence[Type], Attrs], list[Type]],
    ref: Callable[..., Any],
    doc: str,
    samples: Sequence[Sample] = (),
    grad: GradRule | None = None,
    rop: RopRule | None = None,
    attrs: Attrs | None = None,
    flops: int = 100,
    expand: Expansion | None = None,
    raises: bool = False,
) -> OpDef:
    """Defines a row that `ref` computes at run time, on the host, or what it expands into where that is better; `flops` are those
    of an element of the first operand, and it `raises` if there are values that it refuses."""

    def rule(types: Sequence[Type], given: Attrs, blocks: Sequence[Block]) -> list[Type]:
        return infer([t.value for t in types], given)

    return define(
        OpDef(
            name,
            operands,
            rule,
            ref,
            attrs or {},
            doc=doc,
            grad=grad,
            rop=rop,
            expand=expand,
            kernel=True,
            host=True,
            raises=raises,
            flops=per_operand_element(flops),
            samples=tuple(samples),
        )
    )
