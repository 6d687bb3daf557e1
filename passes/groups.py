"""Which operations share a loop nest.

A group is a set of operations over one iteration space.  Groups grow by merging: a producer with its consumers, and
siblings that read the same operand.  Merging must not close a cycle through operations outside.  Levels decide that
without a search: every operation outside a group that feeds it has a lower level, so groups of equal level can always
be merged, and a lower one can be moved up to a consumer when its other consumers have higher levels than that one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from tcc.ir.core import Op, Value
from tcc.ir.dims import Size, product
from tcc.passes.access import Access, identity, inline, reading, resolve
from tcc.passes.pattern import is_complex

REDUCTIONS = frozenset({"sum", "prod", "max", "min", "any", "all"})
LONGEST_SINGLE_ROW = 65536  # elements; a longer row that is the only one is better reduced in parallel
FEWEST_ROWS = 64  # below, rows dealt out in stretches keep few threads busy


class Limits(NamedTuple):
    """What a kernel may hold."""

    ops: int
    operands: int
    totals: int  # columns that a row kernel adds up


# operations with what they read; what is generated in place is left out
Members = dict[Op, tuple[Access, ...]]


class Finished(NamedTuple):
    """A matrix product or convolution, and what its readers see of it: its result, or a reshape of that."""

    product: Op
    result: Value

    def reshaped(self, dims: Sequence[Size]) -> bool:
        """Whether the rows of the product have other numbers in the space of its readers, `dims`."""
        return self.result is not self.product.result or len(dims) != self.result.type.rank

    @property
    def ops(self) -> list[Op]:
        return [op for op in dict.fromkeys((self.product, self.result.op)) if op is not None]


@dataclass(eq=False)
class Group:
    """Operations that become one kernel.  `dims` is the iteration space; None: not a loop nest, one op by itself."""

    dims: tuple[Size, ...] | None
    ops: Members
    level: int
    row: bool = False  # numbers of whole rows are read inside
    finished: Finished | None = None  # the product among `ops` whose epilogue the others are

    @property
    def first(self) -> Op:
        return next(iter(self.ops))

    @cached_property
    def reads(self) -> dict[Value, None]:
        """The values from outside that it reads over its whole space."""
        assert self.dims is not None
        whole = identity(len(self.dims))
        found = (a.value for read in self.ops.values() for a in read if a.axes == whole)
        return {v: None for v in found if v.op not in self.ops}


def is_whole(a: Access, dims: Sequence[Size]) -> bool:
    """Whether it reads an element of its own for each point of the space `dims`, in the order of its axes."""
    return [k for k in a.axes if k is not None and dims[k] != 1] == [k for k, n in enumerate(dims) if n != 1]


def fusable(op: Op) -> bool:
    """Whether it has a loop nest of its own."""
    if inline(op) or op.blocks or not op.defn.pure or is_complex(op):
        return False
    return bool(op.defn.scalar) or op.name in REDUCTIONS


def space(op: Op) -> tuple[Size, ...]:
    """The iteration space of a fusable op or row pick."""
    return op.operands[0].type.shape if op.name in REDUCTIONS or op.name == "gather" else op.result.type.shape


def is_pick(op: Op) -> bool:
    """Whether `gather` takes one element of each row: all indices but the last count the rows."""
    if op.name != "gather" or op.result.type.rank < 1 or is_complex(op):
        return False
    source, indices = op.operands[0], op.operands[1:]
    rank = source.type.rank
    if list(op.attrs["axes"]) != list(range(rank)) or op.result.type.shape != source.type.shape[:-1]:
        return False
    for k, index in enumerate(indices[:-1]):
        access = resolve(index, identity(rank - 1))
        made = access.value.op
        if made is None or made.name != "iota" or access.axes[int(made.attrs["axis"])] != k:
            return False
        if made.result.type.shape[int(made.attrs["axis"])] != source.type.shape[k]:
            return False
    return True


def accesses(op: Op) -> list[Access]:
    """How a fusable op reads its operands, over its own space; of a pick only the source and the last index."""
    rank = len(space(op))
    if op.name == "gather":
        return [reading(op.operands[0], identity(rank)), resolve(op.operands[-1], identity(rank - 1))]
    return [reading(v, identity(rank)) for v in op.operands]


def member(op: Op) -> tuple[Access, ...]:
    """What a group notes of an operation."""
    return tuple(a for a in accesses(op) if not a.generated)


# -- may these operations share a kernel? --------------------------------------------------------------------------


class Verdict(NamedTuple):
    """Whether operations can be one loop nest: `problem` says why not; `row` whether it is a row kernel."""

    problem: str = ""
    row: bool = False


def judge(members: Members, dims: tuple[Size, ...], limits: Limits) -> Verdict:
    """Whether `members` can be one loop nest over `dims`.  In a row kernel some of them work on one number for each row:
    their space is `dims` without the last axis."""
    if len(members) > limits.ops:
        return Verdict(f"{len(members)} operations (the limit is {limits.ops})")
    rank = len(dims)
    across = tuple(range(rank - 1))  # the axes of columns
    reduced = {_reduced_axes(o) for o in members if o.name in REDUCTIONS}
    totalled = len(reduced) > 1 and reduced == {across, (rank - 1,)}
    if len(reduced) > 1 and not totalled:
        return Verdict("its reductions are over different axes")
    read: set[Access] = set()
    row = back = False
    for op, reads in members.items():
        whole = len(space(op)) == rank
        if not whole and _is_fold(op):
            return Verdict(f"a {op.name} over the rows' numbers")
        row = row or not whole or op.name == "gather"
        for a in reads:
            source = a.value.op
            if source is None or source not in members:
                read.add(a.whole)
                continue
            of_rows = _is_fold(source) or len(space(source)) < rank
            problem = _misread_row(op, a, source, across) if of_rows else _misread(a, whole, rank)
            if problem:
                return Verdict(f"%{a.value.name} {problem}")
            row = row or of_rows
            back = back or (of_rows and whole)
    if len(read) > limits.operands:
        return Verdict(f"{len(read)} operands (the limit is {limits.operands})")
    if across and across in reduced and (row or totalled):
        problem = _judge_totals(dims, limits.totals)
        if problem:
            return Verdict(problem)
        reduced = reduced - {across}
    return _judge_row(dims, reduced, back) if row or totalled else Verdict()


def _is_fold(op: Op) -> bool:
    """Whether it makes one number of a row or column."""
    return op.name in REDUCTIONS or op.name == "gather"


def _reduced_axes(op: Op) -> tuple[int, ...]:
    return tuple(sorted(op.attrs["axes"]))


def _misread(a: Access, whole: bool, rank: int) -> str:
    """What is wrong with reading an element that the nest makes, by an operation over its `whole` space or not."""
    return "" if whole and a.axes == identity(rank) else "is read at another place than it is made"


def _misread_row(op: Op, a: Access, source: Op, across: tuple[int, ...]) -> str:
    """What is wrong with `op` reading what the nest makes of rows: the axes before the last, `across`, count them."""
    of_columns = source.name in REDUCTIONS and _reduced_axes(source) == across
    wrong = a.axes != across or of_columns or op.name in REDUCTIONS
    return "is not one number for each row" if wrong else ""


def _judge_totals(dims: tuple[Size, ...], most: int) -> str:
    """Why columns are not added up in a row kernel, which keeps the totals of a stretch of rows."""
    rows = product(dims[:-1])
    if isinstance(dims[-1], int) and dims[-1] > most:
        return f"totals of {dims[-1]} columns do not stay in a near cache"
    if isinstance(rows, int) and rows < FEWEST_ROWS:
        return f"{rows} rows are too few to be dealt out in stretches"
    return ""


def _judge_row(dims: tuple[Size, ...], reduced: set[tuple[int, ...]], back: bool) -> Verdict:
    if not dims or reduced - {(len(dims) - 1,)}:
        return Verdict("a reduction is read that is not over the last axis")
    length = dims[-1]
    pays = bool(reduced) and back and not (isinstance(length, int) and length > LONGEST_SINGLE_ROW)
    if all(n == 1 for n in dims[:-1]) and not pays:
        return Verdict("there is only one row")
    return Verdict(row=True)


def escapes(value: Value, group: Group) -> bool:
    """Whether something outside the group reads `value`, directly or through inline ops."""
    work = [value]
    while work:
        for user in work.pop().users:
            if user in group.ops:
                continue
            if not inline(user):
                return True
            work.append(user.result)
    return False
