"""Carries of a loop whose values are stacked anyway: rows that hold the first value and those of all steps need no copies."""

from __future__ import annotations

from typing import NamedTuple

from tcc.ir import dims
from tcc.ir.core import Op, Value
from tcc.ir.dims import Size


class Track(NamedTuple):
    """A carry in rows of `whole`, one more than there are steps, in the order of the stacks: in a loop that walks backwards
    the first value is the last row."""

    whole: Value
    stacks: dict[int, int]  # result of the scan -> the row in which it begins
    reverse: bool

    def rows(self, at: Size) -> tuple[Size, Size]:
        """Of the old and the new value, in the step that stacks in row `at`."""
        after = dims.add(at, 1)
        return (after, at) if self.reverse else (at, after)

    def ends(self, length: Size) -> tuple[Size, Size]:
        """The rows of the first and of the last value."""
        return (length, 0) if self.reverse else (0, length)


def stacked_carries(scan: Op) -> dict[int, dict[int, int]]:
    """For each carry whose old or new values are stacked: these results, and the row of its track in which each begins."""
    found: dict[int, dict[int, int]] = {}
    if scan.attrs["until"]:  # the last value is in a row that only running tells
        return found
    seqs, carries = int(scan.attrs["seqs"]), int(scan.attrs["carries"])
    yields, reverse = scan.block.yields, bool(scan.attrs["reverse"])
    taken: set[int] = set()
    for k in range(carries):
        rows = {scan.block.params[seqs + k]: int(reverse), yields[k]: int(not reverse)}
        stacks = {
            j: rows[yields[j]] for j in range(carries, len(yields)) if yields[j] in rows and j not in taken
        }
        if stacks and len(rows) == 2:  # else it never changes
            found[k] = stacks
            taken.update(stacks)
    return found
