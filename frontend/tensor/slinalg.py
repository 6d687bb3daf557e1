"""Linear algebra under the names of Theano's slinalg.  It runs on the host, through NumPy's LAPACK, and has gradients."""

from __future__ import annotations

from typing import Any

from tcc import build
from tcc.build import node
from tcc.creation import tril, triu
from tcc.elemwise import add
from tcc.matrices import kron
from tcc.opfunction import OpFunction
from tcc.shapes import dimshuffle
from tcc.tensor.nlinalg import as_matrix, eigh
from tcc.types import none_type, promote
from tcc.variable import as_variable

__all__ = ["Cholesky", "Eigvalsh", "Solve", "cholesky", "eigvalsh", "expm", "kron", "solve", "solve_lower_triangular",
           "solve_symmetric", "solve_triangular", "solve_upper_triangular"]  # fmt: skip


def _swapped(x: Any) -> Any:
    rank = x.type.ndim
    return dimshuffle(x, *range(rank - 2), rank - 1, rank - 2)


@OpFunction
def cholesky(x: Any, lower: bool = True, on_error: str = "raise") -> Any:
    """The triangle y with y y' = x (or y' y = x, for lower=False).  Only one triangle of x is read.

    Where x is not positive: numpy.linalg.LinAlgError, or a matrix of NaN for on_error="nan".
    """
    if on_error not in ("raise", "nan"):
        raise ValueError(f'cholesky: on_error must be "raise" or "nan", got {on_error!r}')
    x = as_matrix(x, "cholesky")
    if lower:
        return node("cholesky", x, on_error=on_error).result
    return _swapped(node("cholesky", _swapped(x), on_error=on_error).result)


@OpFunction
def expm(x: Any) -> Any:
    """The exponential of a matrix."""
    return node("expm", as_matrix(x, "expm")).result


@OpFunction
def solve(a: Any, b: Any, assume_a: str = "gen", lower: bool = False) -> Any:
    """x with a x = b, for a vector or matrix b; numpy.linalg.LinAlgError where there is none."""
    if assume_a not in ("gen", "sym", "her", "pos"):
        raise ValueError(f"solve: assume_a must be gen, sym, her or pos, got {assume_a!r}")
    return _solved(a, b, "general")


def solve_triangular(
    a: Any, b: Any, lower: bool = False, trans: int | str = 0, unit_diagonal: bool = False
) -> Any:
    """x with a x = b (a' x = b for trans=1), where only one triangle of a is read."""
    if unit_diagonal:
        raise NotImplementedError("solve_triangular: unit_diagonal")
    a = as_matrix(a, "solve_triangular")
    if trans in (1, 2, "T", "C"):
        a, lower = _swapped(a), not lower
    return _solved(a, b, "lower" if lower else "upper")


def solve_lower_triangular(a: Any, b: Any) -> Any:
    """x with a x = b for a lower triangle a."""
    return solve_triangular(a, b, lower=True)


def solve_upper_triangular(a: Any, b: Any) -> Any:
    """x with a x = b for an upper triangle a."""
    return solve_triangular(a, b, lower=False)


def _solved(a: Any, b: Any, kind: str) -> Any:
    a, b = as_matrix(a, "solve"), as_variable(b)
    if b.type.ndim not in (a.type.ndim, a.type.ndim - 1):
        raise TypeError(f"solve: b must be a vector or a matrix, got {b.type} beside {a.type}")
    dtype = promote(a.type.dtype, b.type.dtype)
    if dtype == "float16":  # which LAPACK does not know
        dtype = "float32"
    a, b = build.cast(a, dtype), build.cast(b, dtype)
    if b.type.ndim == a.type.ndim:
        return node("solve", a, b, kind=kind).result
    column = dimshuffle(b, *range(b.type.ndim), "x")
    return dimshuffle(node("solve", a, column, kind=kind).result, *range(b.type.ndim))


def solve_symmetric(a: Any, b: Any) -> Any:
    """x with a x = b for a symmetric matrix a."""
    return _solved(a, b, "general")


def eigvalsh(a: Any, b: Any = None, lower: bool = True) -> Any:
    """The values w with a v = w b v for some v, ascending: a symmetric, b symmetric and positive (1 if not given).

    Only one triangle of each is read.  numpy.linalg.LinAlgError where b is not positive.
    """
    a = as_matrix(a, "eigvalsh")
    if b is not None and getattr(b, "type", None) != none_type:
        b = as_matrix(b, "eigvalsh")
        dtype = promote(a.type.dtype, b.type.dtype)
        a, b = _symmetric(build.cast(a, dtype), lower), build.cast(b, dtype)
        factor = cholesky(b if lower else _swapped(b))
        half = solve_lower_triangular(factor, a)
        a, lower = solve_lower_triangular(factor, _swapped(half)), True
    return eigh(a, "L" if lower else "U")[0]


def _symmetric(a: Any, lower: bool) -> Any:
    """The symmetric matrix of one triangle."""
    half, rest = (tril(a), tril(a, -1)) if lower else (triu(a), triu(a, 1))
    return add(half, _swapped(rest))


class Eigvalsh:
    """`Eigvalsh(lower=True)(a, b)` is `eigvalsh(a, b)`."""

    def __init__(self, lower: bool = True) -> None:
        self.lower = lower

    def __call__(self, a: Any, b: Any = None) -> Any:
        return eigvalsh(a, b, self.lower)


class Cholesky:
    """`Cholesky(lower=True, on_error="raise")(x)` is `cholesky(x)`."""

    def __init__(self, lower: bool = True, on_error: str = "raise") -> None:
        if on_error not in ("raise", "nan"):
            raise ValueError('on_error must be one of "raise" or "nan"')
        self.lower, self.on_error = lower, on_error

    def __call__(self, x: Any) -> Any:
        return cholesky(x, self.lower, self.on_error)


class Solve:
    """`Solve(A_structure="general", lower=False)(a, b)` is the solution of a x = b."""

    def __init__(self, A_structure: str = "general", lower: bool = False) -> None:
        kinds = {
            "general": "general",
            "symmetric": "general",
            "lower_triangular": "lower",
            "upper_triangular": "upper",
        }
        if A_structure not in kinds:
            raise ValueError("Invalid matrix structure argument", A_structure)
        self.kind = kinds[A_structure]

    def __call__(self, a: Any, b: Any) -> Any:
        return _solved(a, b, self.kind)
