"""Products of small matrices whose sizes are known, many of them or of many rows: the numbers of A times rows of B, all in registers.

The engine takes longer to plan one than to compute it.  An element is the chain of multiply-adds over k that the engine's tiles
have, so that the bits are the same; k is too short for its other form (`choose_form`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tcc.codegen import scalar
from tcc.codegen.emit import VecType, constant_mask
from tcc.codegen.gather import Places
from tcc.codegen.index import plus, times
from tcc.codegen.kernel import Kernel, Operand, Runtime, Slot
from tcc.codegen.nest import iota
from tcc.codegen.products.matmul import Epilogue
from tcc.codegen.target import Target
from tcc.codegen.vectors import gather, load, pieces, splat, store
from tcc.ir.core import Op
from tcc.ir.dims import known
from tcc.passes.batchaxes import Steps, batch_walk

_STEPS = 512  # vectors of multiply-adds of one product
_UNROLLED = 64  # that are written without a loop over k
_SUMS = 24  # vectors of sums in the registers of AVX-512, with some for the operands
_STEP, _OVERHEAD = 16, 256  # sixteenths of a cycle that a step takes, and a unit of work besides
_FACTORS = 16  # vectors of B that rows share, in registers


class Part(NamedTuple):
    """Neighbouring columns that are one vector."""

    first: int
    type: VecType
    mask: str | None


def columns(target: Target, elem: str, n: int) -> list[Part]:
    """Vectors of n columns: the last through a mask where that is an instruction's, else in smaller and smaller ones."""
    t = target.vector(elem)
    if not target.avx512:
        return [Part(first, VecType(elem, lanes), None) for first, lanes in pieces(t, n)]
    made = []
    for first in range(0, n, t.lanes):
        left = min(n - first, t.lanes)
        part = VecType(elem, 1 << (left - 1).bit_length())
        made.append(
            Part(
                first,
                part,
                None if left == part.lanes else constant_mask([i < left for i in range(part.lanes)]),
            )
        )
    return made


def is_small(op: Op, target: Target) -> bool:
    """Whether a placed product of floats is one for this kernel."""
    a, c = op.operands[0].type, op.operands[-1].type
    m, n, k = c.shape[-2], c.shape[-1], a.shape[-1]
    if (
        target.is_gpu
        or op.attrs.get("columns") is not None
        or op.attrs.get("kept")
        or op.attrs.get("accumulate")
    ):
        return False
    if not isinstance(n, int) or not isinstance(k, int) or n == 0:
        return False
    elem = scalar.elem(c.dtype)
    factors = k * len(columns(target, elem, n))
    if not 0 < k < 4 * target.vector(elem).lanes:
        return False
    if _one_factor(op):
        return factors <= _factors(target)
    return isinstance(m, int) and 0 < m * factors <= _STEPS


def _one_factor(op: Op) -> bool:
    """Whether there is one B, so that a unit of work is a row of the one product."""
    return batch_walk(op.operands[-1].type).number == 1


def _factors(target: Target) -> int:
    return _FACTORS if target.avx512 else _FACTORS // 2


def small_product_kernel(
    op: Op, target: Target, epilogue: Epilogue | None, slots: Mapping[str, Slot]
) -> Kernel:
    """A placed `matmul` that `is_small`; `slots` are the epilogue's, by name."""
    product = _Product(op, target, epilogue, slots)
    product.write()
    return product.w.finish("matmul_small")


class _Product:
    def __init__(self, op: Op, target: Target, epilogue: Epilogue | None, slots: Mapping[str, Slot]) -> None:
        self.w = Places(op, target)
        self.e, self.target, self.epilogue, self.slots = self.w.e, target, epilogue, slots
        self.a, self.b, self.c = self.w.types[0], self.w.types[1], self.w.types[-1]
        self.elem = scalar.elem(self.c.dtype)
        self.parts = columns(target, self.elem, known(self.c.shape[-1]))
        self.depth = known(self.a.shape[-1])
        self.shared = _one_factor(op)
        self.walk = batch_walk(self.a, self.b, self.c)
        self.rows = 1 if self.shared else known(self.c.shape[-2])
        self.factors: list[list[str]] = []  # of B, where the rows share them

    def write(self) -> None:
        w, e = self.w, self.e
        asked = [slot.size for slot in self.slots.values() if isinstance(slot, Runtime)]
        w.begin_body([self.walk.inner, *(s for steps in self.walk.steps for s in steps), *asked])
        if self.shared:
            self.factors = [self._factors(w.pointers[1], str(k)) for k in range(self.depth)]
        e.loop("%begin", "%end", 1, self._unit)
        e.end()
        count = self.c.shape[-2] if self.shared else self.walk.number
        w.begin_kernel([count])
        w.parallel(w.size(count), str(_OVERHEAD + _STEP * self.rows * self.depth * len(self.parts)))
        e.end("i32 0")

    def _unit(self, unit: str, _: list[str]) -> None:
        """A row of the one product, or one of many products, as many rows at a time as there are registers for their sums."""
        w, e = self.w, self.e
        a, b, c = w.pointers[0], w.pointers[1], w.pointers[-1]
        if self.shared:
            a, c = (
                e.gep(p, times(e, unit, w.size(t.strides[-2])), self.elem)
                for p, t in ((a, self.a), (c, self.c))
            )
        else:
            a, b, c = (e.gep(p, self._start(unit, s), self.elem) for p, s in zip((a, b, c), self.walk.steps))
        height = max(_sums(self.target) // len(self.parts), 1)
        for top in range(0, self.rows, height):
            rows = range(top, min(top + height, self.rows))
            sums = self._sums(a, b, rows)
            for row in rows:
                for part in self.parts:
                    self._store(c, unit, row, part, sums.pop(0))

    def _start(self, unit: str, steps: Steps) -> str:
        """Where an operand of a product begins."""
        w, e, inner = self.w, self.e, self.walk.inner
        if inner == 1:
            return times(e, unit, w.size(steps[0]))
        at = e.once(f"udiv i64 {unit}, {w.size(inner)}"), e.once(f"urem i64 {unit}, {w.size(inner)}")
        first, second = (times(e, i, w.size(s)) for i, s in zip(at, steps))
        return plus(e, first, second)

    def _sums(self, a: str, b: str, rows: range) -> list[str]:
        """Of each row and part of the columns, the chain over k."""
        w, e = self.w, self.e

        def step(k: str, sums: list[str]) -> list[str]:
            along = times(e, k, w.size(self.a.strides[-1]))
            factors = self.factors[int(k)] if self.shared else self._factors(b, k)
            made, left = [], iter(sums)
            for row in rows:
                at = plus(e, times(e, str(row), w.size(self.a.strides[-2])), along)
                number = load(e, VecType(self.elem), e.gep(a, at, self.elem))
                for part, factor in zip(self.parts, factors, strict=True):
                    t = part.type
                    operands = ((t, splat(e, t, number)), (t, factor), (t, next(left)))
                    made.append(e.call(t, f"llvm.fma.{t.suffix}", *operands))
            return made

        sums = [part.type.const(0) for _ in rows for part in self.parts]
        if not self.shared and len(sums) * self.depth > _UNROLLED:
            types = [part.type for _ in rows for part in self.parts]
            return e.loop(0, self.depth, 1, step, list(zip(types, sums)))
        for k in range(self.depth):
            sums = step(str(k), sums)
        return sums

    def _factors(self, b: str, k: str) -> list[str]:
        """Row k of B, in parts."""
        w, e = self.w, self.e
        row = e.gep(b, times(e, k, w.size(self.b.strides[-2])), self.elem)
        apart = w.size(self.b.strides[-1])
        made = []
        for part in self.parts:
            t, at = part.type, e.gep(row, times(e, str(part.first), apart), self.elem)
            if apart == "1" or t.lanes == 1:
                made.append(load(e, t, at, part.mask))
                continue
            wide = t.of("i64")
            each = e.value(f"mul {wide} {iota(t.lanes)}, {splat(e, wide, apart)}")
            made.append(gather(e, t, at, each, part.mask, align=t.bytes))
        return made

    def _store(self, c: str, unit: str, row: int, part: Part, value: str) -> None:
        w, e, t = self.w, self.e, part.type
        if self.epilogue is not None:
            values = {name: self._value(slot) for name, slot in self.slots.items()}
            mask = part.mask or constant_mask([True] * t.lanes)
            place = (
                (unit, str(part.first), mask, "0") if self.shared else (str(row), str(part.first), mask, unit)
            )
            done = self.epilogue.emit(e, self.target, value, t, *place, values)
            assert done is not None, "the block of a product yields what is stored"
            value = done
        line = e.gep(c, times(e, str(row), w.size(self.c.strides[-2])), self.elem)
        store(e, t, value, e.gep(line, part.first, self.elem), part.mask)

    def _value(self, slot: Slot) -> str:
        if isinstance(slot, Runtime):
            return self.w.size(slot.size)
        assert isinstance(slot, Operand)
        return self.w.pointers[slot.index]


def _sums(target: Target) -> int:
    return _SUMS if target.avx512 else _SUMS // 2
