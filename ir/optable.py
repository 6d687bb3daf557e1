"""The op table: everything the compiler knows about an operation is one row, an `OpDef`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tcc.ir.core import Attrs, Block, Op
from tcc.ir.dims import Size
from tcc.ir.types import Type

TypeRule = Callable[[Sequence[Type], Attrs, Sequence[Block]], list[Type]]
# (builder, op, gradients of the results) -> gradients of the operands; None: not connected.  The builder is the IR's
# or the frontend's, `op` an Op or an Apply: both have operands, results, result, attrs.
GradRule = Callable[[Any, Any, Sequence[Any]], Sequence[Any]]
# (builder, op, directional derivatives of the operands) -> those of the results
RopRule = Callable[[Any, Any, Sequence[Any]], Sequence[Any]]
Expansion = Callable[[Any, Any], Sequence[Any]]


class Undefined:
    """A gradient that exists and has no rule: an error for who needs it.  `reason` says why."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


class Required:
    """Stands where an attribute has no default."""

    def __repr__(self) -> str:
        return "required"


REQUIRED = Required()


@dataclass(frozen=True)
class Sample:
    """One instance for the tests: operand types, attributes, and the range that floats are drawn from."""

    types: tuple[str, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    low: float = -2.0
    high: float = 2.0


@dataclass(frozen=True)
class OpDef:
    """One row.  `infer` is the only type rule: the builder calls it, and the verifier calls it again."""

    name: str
    operands: str  # "a, b", "*xs", or both: "x, *indices"
    infer: TypeRule
    ref: Callable[..., Any] | None = None  # NumPy meaning: ref(*arrays, **attrs), sizes as numbers
    attrs: Mapping[str, Any] = field(default_factory=dict)  # name -> default, or REQUIRED
    doc: str = ""
    grad: GradRule | None = None  # None: not differentiable
    rop: RopRule | None = None
    scalar: str = ""  # elementwise body over the operands' names, e.g. "max(a, b)"; codegen needs no more
    expand: Expansion | None = None  # rewrites into other rows
    kernel: bool = False  # codegen has a kernel of this name
    host: bool = False  # its kernel is `ref`, run by Python on dense arrays
    reuse: tuple[int, ...] = ()  # operands whose memory the result may take
    view: int | None = None  # operand that the result aliases
    flops: Callable[[Op], Size] = field(default=lambda op: 0)
    commutes: bool = False
    pure: bool = True  # may be merged, moved and dropped
    fails: bool = False  # may end the run with an error
    raises: bool = False  # refuses some values: it runs only where it is asked for
    blocks: int = 0
    samples: tuple[Sample, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled and copied as its name: a row is the table's."""
        return named, (self.name,)

    @cached_property
    def arity(self) -> int | None:
        """Number of operands; None when the last name takes any number."""
        return None if "*" in self.operands else len(self.operand_names)

    @cached_property
    def operand_names(self) -> list[str]:
        return [n.strip() for n in self.operands.split(",")] if self.operands.strip() else []

    def operand_name(self, i: int) -> str:
        """As messages name it: `b`, or `xs[2]`."""
        names = self.operand_names
        if not names:
            return str(i)
        if names[-1].startswith("*") and i >= len(names) - 1:
            return f"{names[-1][1:]}[{i - len(names) + 1}]"
        return names[i] if i < len(names) else str(i)


TABLE: dict[str, OpDef] = {}


def named(name: str) -> OpDef:
    """The row of this name; KeyError if there is none."""
    return TABLE[name]


def define(defn: OpDef) -> OpDef:
    """Puts a row into the table."""
    assert defn.name not in TABLE, f"op {defn.name} is defined twice"
    TABLE[defn.name] = defn
    return defn


def complete_attrs(defn: OpDef, attrs: Mapping[str, Any]) -> Attrs:
    """`attrs` with the row's defaults; TypeError on one that is missing or not the row's."""
    out: Attrs = {}
    for key, default in defn.attrs.items():
        value = attrs.get(key, default)
        if value is REQUIRED:
            raise TypeError(f"{defn.name} needs the attribute {key}")
        out[key] = value
    for key, value in attrs.items():
        if key in GENERAL_ATTRS:
            out[key] = value
        elif key not in defn.attrs:
            known = ", ".join(defn.attrs) or "none"
            raise TypeError(f"{defn.name} has no attribute {key} (it has {known})")
    return out


# Attributes that any op may carry: how many trailing operands are places for the results (after placement)
GENERAL_ATTRS = frozenset({"into"})


def check_arity(defn: OpDef, count: int) -> None:
    """TypeError unless `count` operands fit the row."""
    if defn.arity is not None:
        if count != defn.arity:
            raise TypeError(f"{defn.name} takes {defn.arity} operands ({defn.operands}), got {count}")
    elif count < len(defn.operand_names) - 1:
        raise TypeError(f"{defn.name} takes at least {len(defn.operand_names) - 1} operands, got {count}")


def known(name: str) -> bool:
    return name in TABLE
