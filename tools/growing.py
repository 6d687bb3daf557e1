"""How random programs grow: steps drawn by weight, those that do not fit left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np


class Reject(Exception):
    """A step that does not fit what is there."""


class Grown(Protocol):
    rng: np.random.Generator


D = TypeVar("D", bound=Grown)


def grow(
    d: D,
    steps: int,
    table: Sequence[tuple[Callable[[D], None], int]],
    refusals: tuple[type[Exception], ...] = (Reject,),
) -> None:
    """Takes `steps` steps of a table, each with its weight; one that raises a refusal leaves `d` as it found it."""
    weights = np.array([w for _, w in table], float)
    for _ in range(steps):
        step = table[int(d.rng.choice(len(table), p=weights / weights.sum()))][0]
        try:
            step(d)
        except refusals:
            continue
