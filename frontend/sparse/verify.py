"""Gradients of functions of sparse matrices against differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tcc.tensor as T
from tcc.gradcheck import verify_grad
from tcc.sparse.basic import CSM, dense_from_sparse, is_sparse


def verify_grad_sparse(
    op: Callable[..., Any], pt: Sequence[Any], structured: bool = False, **options: Any
) -> None:
    """GradientError unless the gradients of `op` at the point `pt`, in which there are SciPy matrices, are those that
    differences give: by stored elements with `structured`, else by every element of a matrix."""
    points = [p if not is_sparse(p) else p.data if structured else p.toarray() for p in pt]

    def made_of(p: Any, v: Any) -> Any:
        if not is_sparse(p):
            return v
        return CSM(p.format)(v, p.indices, p.indptr, p.shape) if structured else _from_all(v, p)

    def dense(*args: Any) -> Any:
        made = op(*map(made_of, pt, args))
        return dense_from_sparse(made, structured) if is_sparse(made) else made

    verify_grad(dense, points, **options)


def _from_all(v: Any, p: Any) -> Any:
    """A matrix in which every element is stored, so that each has a gradient."""
    rows, columns = p.shape
    whole = v if p.format == "csr" else v.T
    major, minor = (rows, columns) if p.format == "csr" else (columns, rows)
    indices = T.tile(T.arange(minor), [major])
    return CSM(p.format)(T.flatten(whole), indices, T.arange(major + 1) * minor, p.shape)
