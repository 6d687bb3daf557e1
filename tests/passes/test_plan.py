"""Arena layouts: what lives at once never shares bytes, and what does not may."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

from tcc.ir import dims
from tcc.ir.builder import Builder
from tcc.ir.core import Block
from tcc.ir.dims import Size
from tcc.ir.types import Type
from tcc.passes.plan import Interval, _first_fit, _Occupancy, _slots

N = dims.name("n")


def intervals(lives: list[tuple[Size, int, int]]) -> list[Interval]:
    block = Builder(Block())
    alloc = {"type": Type("f32", (1,)).at("arena"), "offset": 0}
    return [Interval(block.op("alloc", attrs=dict(alloc)), *life) for life in lives]


def lives(seed: int, unit: Size) -> list[tuple[Size, int, int]]:
    r = random.Random(seed)
    found: list[tuple[Size, int, int]] = []
    for _ in range(r.randrange(40)):
        first = r.randrange(60)
        found.append((dims.mul(64 * r.randrange(1, 9), unit), first, first + r.randrange(r.choice((3, 40)))))
    return found


def clashes(placed: list[Interval], n: int) -> list[tuple[Interval, Interval]]:
    """Those alive at once that share bytes, for a size `n`."""

    def span(i: Interval) -> tuple[int, int]:
        start = dims.evaluate(i.op.attrs["offset"], {"n": n})
        return start, start + dims.evaluate(i.bytes, {"n": n})

    return [
        (a, b)
        for a, b in combinations(placed, 2)
        if a.first <= b.last and b.first <= a.last and span(a)[0] < span(b)[1] and span(b)[0] < span(a)[1]
    ]


@pytest.mark.parametrize("seed", range(20))
def test_bytes_are_shared_only_at_different_times(seed: int) -> None:
    known = intervals(lives(seed, 1))
    assert _first_fit(known) == max((i.op.attrs["offset"] + i.bytes for i in known), default=0)
    assert not clashes(known, 1)
    unknown = intervals(lives(seed, N))
    _slots(unknown, {"n": 3})
    assert not clashes(unknown, 3) and not clashes(unknown, 70)


def test_first_fit_takes_the_lowest_gap() -> None:
    a, b, c, d = intervals([(256, 0, 9), (192, 0, 4), (128, 5, 9), (64, 5, 9)])
    assert _first_fit([a, b, c, d]) == 448
    assert [i.op.attrs["offset"] for i in (a, b, c, d)] == [0, 256, 256, 384]


@pytest.mark.parametrize("seed", range(20))
def test_occupancy(seed: int) -> None:
    r = random.Random(seed)
    length = r.randrange(1, 40)
    taken, model = _Occupancy(length), [set[int]() for _ in range(length)]
    for _ in range(60):
        first = r.randrange(length)
        last = r.randrange(first, length)
        free = min(set(range(61)) - set[int]().union(*model[first : last + 1]))
        assert taken.first_free(first, last) == free
        taken.take(first, last, free)
        for time in model[first : last + 1]:
            time.add(free)
