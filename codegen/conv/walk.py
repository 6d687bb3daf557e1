"""How a register tile goes through its steps, channels and then taps, where all distances are numbers.

A round is as many steps as stand in the text one by one: their addresses are constants beside registers that move once a
round.  Where a core's other thread takes half of what it can issue, a tile takes as long as its instructions.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tcc.codegen.assembly import Assembly, Reads, add_steps, one_step
from tcc.codegen.emit import Emit, VecType
from tcc.codegen.index import Index
from tcc.codegen.index import Size as Number
from tcc.codegen.target import Target
from tcc.ir.dims import Size

MOST_STEPS = 12  # of a round
# what a tap of a channel meets in an operand, in bytes from its first
Meets = Callable[[int, Sequence[int]], Number]
# what is done in a round: its number, pointers and sums, to the pointers, as later text should know them, and sums after it
Round = Callable[[Number, list[str], list[str]], tuple[list[str], list[str]]]


def kept_apart(e: Emit, places: Sequence[str]) -> list[str]:
    """The same for what follows: what two steps both read would be kept in registers between them, which are all taken."""
    return [e.value(f'call ptr asm "", "=r,0"(ptr {p})') for p in places]


@dataclass(frozen=True)
class Walk:
    """For each operand of a tile, distances in bytes: of a round's `steps`, and from one turn of each level to the next.  Of
    the levels, (turns, distances), the first is that of the rounds, whose turns are the tile's to count."""

    levels: tuple[tuple[Number, tuple[int, ...]], ...]
    steps: tuple[tuple[int, ...], ...]

    @property
    def steps_of_round(self) -> int:
        """Of the first level."""
        return math.prod(int(turns) for turns, _ in self.levels[1:]) * len(self.steps)

    def through(
        self,
        e: Emit,
        rounds: Number,
        pointers: Sequence[tuple[int, str]],
        sums: Sequence[tuple[VecType, str]],
        round: Round,
    ) -> list[str]:
        """The sums after so many rounds; each of the pointers is to one of the operands."""
        x, kinds = Index(e), [t for t, _ in sums]
        operands = [operand for operand, _ in pointers]

        def level(depth: int, k: Number, places: list[str], values: list[str]) -> tuple[list[str], list[str]]:
            if depth == len(self.levels):
                return round(k, places, values)
            turns, apart = self.levels[depth]

            def turn(i: str, s: list[str]) -> list[str]:
                here, values = s[: len(operands)], s[len(operands) :]
                here, values = level(depth + 1, x.add(x.mul(k, turns) if depth else 0, i), here, values)
                if depth + 1 < len(self.levels):  # from where the inner turns began
                    here = s[: len(operands)]
                return [*(e.gep(p, apart[operand]) for p, operand in zip(here, operands)), *values]

            carried: list[tuple[VecType | str, str]] = [("ptr", p) for p in places]
            carried += zip(kinds, values, strict=True)
            done = e.loop(0, turns if depth else rounds, 1, turn, carried)
            return done[: len(operands)], done[len(operands) :]

        return level(0, 0, [p for _, p in pointers], [value for _, value in sums])[1]

    def round_of(
        self,
        e: Emit,
        target: Target,
        t: VecType,
        reads: Reads,
        operands: Sequence[int],
        before: Callable[[Number], None] = lambda k: None,
    ) -> Round:
        """All steps of a round, one by one, which read so of the `operands` that pointers are to, behind what `before` writes
        for each number of a step."""

        def round(k: Number, places: list[str], sums: list[str]) -> tuple[list[str], list[str]]:
            x = Index(e)
            apart = [[distances[operand] for operand in operands] for distances in self.steps]
            numbers = [x.add(x.mul(k, len(apart)), i) for i in range(len(apart))]
            steps = [reads.moved(distances) for distances in apart] if reads.assembled(target) else []
            if steps and all(step.assembled(target) for step in steps):
                for number in numbers:
                    before(number)
                return places, add_steps(Assembly(e, t, places, sums, len(reads.vectors) + 1), steps)
            for number, distances in zip(numbers, apart, strict=True):
                before(number)
                here = [e.gep(p, distance) for p, distance in zip(places, distances, strict=True)]
                sums = one_step(e, t, reads, here, sums)
                places = kept_apart(e, places)
            return places, sums

        return round


def regular_walk(channels: Size, taps: Sequence[Size], places: Sequence[Meets]) -> Walk | None:
    """Through all taps of each of the channels; None where distances are not known, or not the same from turn to turn."""
    counts = [n for n in taps if isinstance(n, int) and n]
    if not isinstance(channels, int) or len(counts) < len(taps):
        return None
    none = [0] * len(counts)

    def at(channel: int, tap: Sequence[int]) -> tuple[Number, ...]:
        return tuple(place(channel, tap) for place in places)

    def apart(points: list[tuple[Number, ...]]) -> tuple[int, ...] | None:
        """From each of the points to the next, if that is always the same."""
        if not all(isinstance(p, int) for point in points for p in point):
            return None
        between = {tuple(int(b) - int(a) for a, b in zip(*pair)) for pair in itertools.pairwise(points)}
        return between.pop() if len(between) == 1 else None if between else (0,) * len(places)

    inner = len(counts)
    while inner and math.prod(counts[inner - 1 :]) <= MOST_STEPS:
        inner -= 1
    points = [[at(0, none), at(1, none)]]
    points += [[at(0, [*none[:a], i, *none[a + 1 :]]) for i in range(counts[a])] for a in range(inner)]
    found = [apart(p) for p in points]
    if None in found:
        return None
    in_round = [at(0, [*none[:inner], *tap]) for tap in itertools.product(*map(range, counts[inner:]))]
    steps = [tuple(map(int, point)) for point in in_round]
    turns, distances = [channels, *counts[:inner]], [d for d in found if d is not None]
    if not inner:  # a round of several channels
        some = next(n for n in (6, 5, 4, 3, 2, 1) if n * len(steps) <= MOST_STEPS and channels % n == 0)
        each = distances[0]
        steps = [tuple(p + c * d for p, d in zip(s, each)) for c in range(some) for s in steps]
        turns[0], distances[0] = channels // some, tuple(some * d for d in each)
    return Walk(tuple(zip(turns, distances, strict=True)), tuple(steps))
