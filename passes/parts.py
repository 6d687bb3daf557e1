"""Complex numbers as pairs of real ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from tcc.ir.builder import Builder
from tcc.ir.core import Block, Func, Op, Value
from tcc.ir.types import COMPLEX, REAL_OF, Type
from tcc.passes.complexes import ELEMENTWISE, OTHERS, Complex, Made
from tcc.passes.fold import constant, splat
from tcc.passes.manager import Context
from tcc.passes.pattern import is_complex

MOVED = frozenset({"broadcast", "dimshuffle"})  # what a kernel absorbs


def parts(func: Func, ctx: Context) -> None:
    """Rewrites what computes with complex numbers into operations on their real and imaginary parts, which fuse as others do:
    `real` and `imag` of what is read, and `complex` of what is made, where something needs it as one."""
    _Parts().visit(func.body)


class _Parts:
    def __init__(self) -> None:
        self.known: dict[Value, Complex] = {}

    def visit(self, block: Block) -> None:
        op = block.first
        while op is not None:
            for inner in op.blocks:
                self.visit(inner)
            before = op.prev
            if is_complex(op) and self.lower(op):
                op = before.next if before is not None else block.first  # what it became may be complex again
            else:
                op = op.next

    def lower(self, op: Op) -> bool:
        """Puts what `op` becomes in its place, if it has a lowering."""
        assert op.parent is not None
        b = Builder(op.parent, before=op, loc=op.loc)
        if op.name in ELEMENTWISE:
            made: Made | None = ELEMENTWISE[op.name](b, *map(self.of, op.operands))
        elif op.name in OTHERS:
            read = [self.of(v) if self.whole(op, v) else v for v in op.operands]
            made = OTHERS[op.name](b, op, *read)
        else:
            return False
        if made is None:
            return False
        result: Value = b.complex(*made) if isinstance(made, Complex) else made
        result.name = result.name or op.result.name
        op.replace_by([result])
        return True

    def whole(self, op: Op, v: Value) -> bool:
        """Whether an operand is to be taken apart: real ones are, too, where the result is complex and has their elements."""
        takes_real = op.name in ("cast", "sum", "cumsum") and op.result.type.dtype in COMPLEX
        return v.type.dtype in COMPLEX or takes_real

    def of(self, v: Value) -> Complex:
        """The parts of a value, taken where it is made."""
        if v not in self.known:
            self.known[v] = self.found(v)
        return self.known[v]

    def found(self, v: Value) -> Complex:
        op = v.op
        if op is not None and op.name == "complex":
            return Complex(*op.operands)
        b = _behind(v)
        if v.type.dtype not in COMPLEX:
            return Complex(v, b.full(0, v))
        if op is not None and op.name == "const":
            return _of_constant(b, v)
        if op is not None and op.name in MOVED:
            source = self.of(op.operands[0]) if _simple(op.operands[0]) else None
            if source is not None and (source.is_real or splat(source.re) is not None):
                return Complex(*(b.op(op.name, part, attrs=op.attrs).result for part in source))
        return Complex(b.real(v), b.imag(v))


def _simple(v: Value) -> bool:
    """Whether it may be known to be real without being taken apart."""
    return v.op is not None and v.op.name in ("complex", "const", *MOVED)


def _of_constant(b: Any, v: Value) -> Complex:
    t = Type(REAL_OF[v.type.dtype], v.type.shape)
    value = constant(v)
    made = [
        p.item() if p.ndim == 0 else np.ascontiguousarray(p)
        for p in map(np.asarray, (value.real, value.imag))
    ]
    return Complex(*(b.const(p, t) for p in made))


def _behind(v: Value) -> Builder:
    """Writes what is to stand right behind a value."""
    if isinstance(v.owner, Op):
        assert v.owner.parent is not None
        return Builder(v.owner.parent, before=v.owner.next, loc=v.owner.loc)
    return Builder(v.owner, before=v.owner.first)
