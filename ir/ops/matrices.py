"""What rows of linear algebra and their gradients are made of, in terms of a builder `b`: all but the last two axes are a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tcc.ir.core import Attrs
from tcc.ir.dims import Size
from tcc.ir.ops.factors import want_matrix
from tcc.ir.types import Type


def transposed(b: Any, x: Any) -> Any:
    rank = b.rank(x)
    return b.dimshuffle(x, order=[*range(rank - 2), rank - 1, rank - 2])


def product(b: Any, *factors: Any) -> Any:
    made, *rest = factors
    for f in rest:
        made = b.matmul(made, f)
    return made


def matrix_of(b: Any, number: Any, like: Any) -> Any:
    """A number for each matrix of `like`, filled into it."""
    rank = b.rank(like)
    return b.broadcast(b.dimshuffle(number, order=[*range(rank - 2), -1, -1]), shape=b.shape(like))


def triangle(b: Any, x: Any, keep: str) -> Any:
    """x where row - column is as `keep` (gt, ge, lt, eq) says, else 0."""
    rank, shape = b.rank(x), b.shape(x)
    row, column = b.iota(shape=shape, axis=rank - 2), b.iota(shape=shape, axis=rank - 1)
    return b.where(getattr(b, keep)(row, column), x, b.full(0, x))


def diagonal_matrix(b: Any, v: Any, like: Any) -> Any:
    """The vectors v on the diagonals of matrices of the shape of `like`."""
    return triangle(b, row_matrix(b, v, like), "eq")


def lower_half(b: Any, s: Any) -> Any:
    """The gradient by a matrix of which only the lower triangle is read, from that by a symmetric one."""
    return b.sub(triangle(b, b.add(s, transposed(b, s)), "ge"), triangle(b, s, "eq"))


def row_matrix(b: Any, v: Any, like: Any) -> Any:
    """The vectors v as each row of matrices of the shape of `like`, one element a column."""
    rank = b.rank(like)
    return b.broadcast(b.dimshuffle(v, order=[*range(rank - 2), -1, rank - 2]), shape=b.shape(like))


def column_matrix(b: Any, v: Any, like: Any) -> Any:
    """The same with v as each column."""
    rank = b.rank(like)
    return b.broadcast(b.dimshuffle(v, order=[*range(rank - 1), -1]), shape=b.shape(like))


def corner(b: Any, x: Any, rows: Size, columns: Size) -> Any:
    """The first rows and columns of matrices."""
    rank = b.rank(x)
    size = [*b.shape(x)[: rank - 2], rows, columns]
    return b.slice(x, start=[0] * rank, size=size, step=[1] * rank)


def square(name: str) -> Callable[[Sequence[Type], Attrs], list[Type]]:
    def infer(types: Sequence[Type], attrs: Attrs) -> list[Type]:
        want_matrix(name, "x", types[0], square=True)
        return [types[0]]

    return infer


def number(name: str) -> Callable[[Sequence[Type], Attrs], list[Type]]:
    def infer(types: Sequence[Type], attrs: Attrs) -> list[Type]:
        want_matrix(name, "x", types[0], square=True)
        return [types[0].with_shape(*types[0].shape[:-2])]

    return infer
