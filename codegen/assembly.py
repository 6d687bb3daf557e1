"""What a register tile does between two branches: loads and multiply-adds of vectors that stay in registers.

Where all distances are numbers nothing is left for a compiler to decide: registers have their values all along, and a core
takes its instructions in any order.  So for AVX2 they are written as instructions where LLVM reads those, and only has to
encode them; for other targets they are LLVM text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tcc.codegen.emit import Emit, VecType
from tcc.codegen.index import Size as Number
from tcc.codegen.target import Target
from tcc.codegen.vectors import load, splat

FAR = 1 << 31  # bytes, beyond what an instruction has for a distance
Place = tuple[int, Number]  # in memory: which of the pointers, bytes from there


class Registers:
    """Vectors in registers: the first hold `values`, which go on as they are in the end, and so many `more` are for use in
    between.  Written as LLVM text, as it comes."""

    def __init__(
        self, e: Emit, t: VecType, pointers: Sequence[str], values: Sequence[str], more: int
    ) -> None:
        self.e, self.t, self.pointers, self.kept = e, t, pointers, len(values)
        self.values = [*values, *["poison"] * more]

    def load(self, register: int, place: Place, mask: str | None = None) -> None:
        self.values[register] = load(self.e, self.t, self._at(place), mask)

    def splat(self, register: int, place: Place) -> None:
        """An element, in every lane."""
        t = self.t
        one = self.e.value(f"load {t.elem}, ptr {self._at(place)}, align {t.bytes}")
        self.values[register] = splat(self.e, t, one)

    def multiply_add(self, register: int, a: int, b: int) -> None:
        """Adds the product of two registers, rounding once."""
        t, v = self.t, self.values
        v[register] = self.e.call(t, f"llvm.fma.{t.suffix}", (t, v[a]), (t, v[b]), (t, v[register]))

    def written(self) -> list[str]:
        """The values after all of it."""
        return self.values[: self.kept]

    def _at(self, place: Place) -> str:
        return self.e.gep(self.pointers[place[0]], place[1])


class Assembly(Registers):
    """The same as x86's instructions; all distances are numbers, and there are no masks."""

    def __init__(
        self, e: Emit, t: VecType, pointers: Sequence[str], values: Sequence[str], more: int
    ) -> None:
        super().__init__(e, t, pointers, values, more)
        self.kind = "s" if t.elem == "float" else "d"
        self.lines: list[str] = []

    def load(self, register: int, place: Place, mask: str | None = None) -> None:
        self.lines.append(f"vmovup{self.kind} {self._at(place)}, ${register}")

    def splat(self, register: int, place: Place) -> None:
        self.lines.append(f"vbroadcasts{self.kind} {self._at(place)}, ${register}")

    def multiply_add(self, register: int, a: int, b: int) -> None:
        self.lines.append(f"vfmadd231p{self.kind} ${b}, ${a}, ${register}")

    def written(self) -> list[str]:
        t, kept, all = self.t, self.kept, len(self.values)
        kind = f"{{ {', '.join([str(t)] * all)} }}"
        told = ["=x"] * kept + ["=&x"] * (all - kept) + [str(i) for i in range(kept)]
        told += ["r"] * len(self.pointers)
        given = [*(f"{t} {v}" for v in self.values[:kept]), *(f"ptr {p}" for p in self.pointers)]
        text = "\\0A".join(self.lines)
        done = self.e.value(f'call {kind} asm sideeffect "{text}", "{",".join(told)}"({", ".join(given)})')
        return [self.e.value(f"extractvalue {kind} {done}, {i}") for i in range(kept)]

    def _at(self, place: Place) -> str:
        pointer, bytes = place  # behind the registers, and those with values once more
        return f"{bytes or ''}(${len(self.values) + self.kept + pointer})"


@dataclass(frozen=True)
class Reads:
    """What a step of a tile reads: elements, and vectors, which meet each of the elements.  Of a vector with a mask some lanes
    are not there."""

    elements: tuple[Place, ...]
    vectors: tuple[Place, ...]
    masks: tuple[str | None, ...] = ()

    def assembled(self, target: Target) -> bool:
        """Whether steps are written as instructions."""
        registers = (len(self.elements) + 1) * len(self.vectors) + 1
        known = all(isinstance(at, int) and abs(at) < FAR for _, at in (*self.elements, *self.vectors))
        return target.assembles and registers <= target.registers and known and not self.masks

    def moved(self, apart: Sequence[int]) -> Reads:
        """With each of the pointers so far from where it is."""
        elements, vectors = (
            tuple((p, _sum(at, apart[p])) for p, at in some) for some in (self.elements, self.vectors)
        )
        return Reads(elements, vectors, self.masks)


def _sum(at: Number, apart: int) -> Number:
    assert isinstance(at, int)
    return at + apart


def add_steps(r: Registers, steps: Sequence[Reads]) -> list[str]:
    """The sums, which are the values of the registers `r`, after some steps."""
    first = r.kept
    for reads in steps:
        count = len(reads.vectors)
        masks = reads.masks or [None] * count
        for j, (place, mask) in enumerate(zip(reads.vectors, masks, strict=True)):
            r.load(first + j, place, mask)
        for i, place in enumerate(reads.elements):
            r.splat(first + count, place)
            for j in range(count):
                r.multiply_add(i * count + j, first + count, first + j)
    return r.written()


def one_step(e: Emit, t: VecType, reads: Reads, pointers: Sequence[str], sums: Sequence[str]) -> list[str]:
    """The sums after a step, as LLVM text."""
    return add_steps(Registers(e, t, pointers, sums, len(reads.vectors) + 1), [reads])
