"""Parts of sparse matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tcc.tensor as T
from tcc.build import size_variable
from tcc.sparse.basic import (
    CSM,
    Whole,
    as_format,
    as_sparse_variable,
    csm_properties,
    csm_shape,
    found,
    key,
    shape_of,
    sizes_of,
    starts_of,
    transpose,
)
from tcc.sparse.products import true_dot
from tcc.variable import as_variable


def item(x: Any, index: Any) -> Any:
    """x[rows], x[rows, columns]: numbers, slices and vectors of integers; two numbers give a number, all else a matrix."""
    if not isinstance(index, tuple):
        index = (index,)
    if len(index) > 2:
        raise ValueError(f"a sparse matrix takes at most two indices, got {len(index)}")
    rows, columns = (*index, slice(None))[:2]
    kinds = [_kind(i) for i in (rows, columns)]
    if kinds == ["number", "number"]:
        return get_item_scalar(x, (rows, columns))
    if kinds == ["vector", "vector"]:
        return get_item_2lists(x, rows, columns)
    if kinds[0] == "vector" and columns == slice(None):
        return get_item_list(x, rows)
    if "number" in kinds:
        raise NotImplementedError("a row or column of a sparse matrix is x[i:i+1] or x[:, i:i+1]")
    return get_item_2d(x, (rows, columns))


def _kind(i: Any) -> str:
    if isinstance(i, slice):
        return "slice"
    return "number" if as_variable(i).type.ndim == 0 else "vector"


def _wrapped(i: Any, size: Any) -> Any:
    """Indices counted from the start; IndexError when the function runs for one that is out of bounds."""
    return T.arange(size_variable(size))[T.cast(as_variable(i), "int64")]


def get_item_2lists(x: Any, ind1: Any, ind2: Any) -> Any:
    """The elements at (ind1[k], ind2[k]), as a dense vector."""
    return Whole(_elements, _elements_grad)(as_sparse_variable(x), as_variable(ind1), as_variable(ind2))


def _elements(x: Any, ind1: Any, ind2: Any) -> Any:
    rows, columns = (_wrapped(i, n) for i, n in zip((ind1, ind2), shape_of(x)))
    pair = (rows, columns) if x.type.format == "csr" else (columns, rows)
    return found(x, key(*pair, sizes_of(x).minor))[1]


def _elements_grad(operands: Sequence[Any], result: Any, g: Any) -> Sequence[Any]:
    """The elements of g at their places, a sum where places are repeated."""
    x, ind1, ind2 = operands
    rows, columns = (_wrapped(i, n) for i, n in zip((ind1, ind2), shape_of(x)))
    right = transpose(_selection(T.ones_like(g), columns, csm_shape(x)[1]))
    made = true_dot(_selection(g, rows, csm_shape(x)[0]), right)
    return [as_format(made, x.type.format), None, None]


def _selection(data: Any, index: Any, rows: Any) -> Any:
    """The matrix of as many columns as there is data: data[k] in the row index[k] of column k."""
    count = index.shape[0]
    return CSM("csc").of(data, index, T.arange(count + 1), T.stack([rows, count]))


def get_item_scalar(x: Any, index: Any) -> Any:
    """The element at (row, column)."""
    row, column = (T.shape_padleft(as_variable(i)) for i in index)
    return get_item_2lists(x, row, column)[0]


def get_item_list(x: Any, index: Any) -> Any:
    """The matrix of these rows, in the order given."""
    index = as_variable(index)
    if index.type.ndim != 1:
        raise IndexError("index should be a vector", index.type)
    return Whole(_rows, _rows_grad)(as_sparse_variable(x), index)


def _rows_grad(operands: Sequence[Any], result: Any, g: Any) -> Sequence[Any]:
    """The rows of g where they came from, a sum where rows are repeated."""
    x, index = operands
    index = _wrapped(index, shape_of(x)[0])
    back = _selection(T.ones(index.shape, g.type.dtype), index, csm_shape(x)[0])
    return [as_format(true_dot(back, g), x.type.format), None]


def _rows(x: Any, index: Any) -> Any:
    data, indices, indptr, shape = csm_properties(as_format(x, "csr"))
    wide = T.cast(indptr, "int64")
    first = wide[:-1][index]
    counts = wide[1:][index] - first
    starts = starts_of(counts)
    total = T.repeat(first - starts[:-1], counts)
    at = total + T.arange(total.shape[0])
    made = CSM("csr").of(data[at], indices[at], starts, T.stack([index.shape[0], shape[1]]))
    return as_format(made, x.type.format)


def get_item_2d(x: Any, index: Any) -> Any:
    """x[rows] or x[rows, columns] of slices (or vectors of integers), as a matrix."""
    x = as_sparse_variable(x)
    pair = index if isinstance(index, tuple) else (index,)
    rows, columns = (*pair, slice(None))[:2]
    made = _part(x, rows)
    return transpose(_part(transpose(made), columns))


def _part(x: Any, index: Any) -> Any:
    """Rows of a matrix."""
    if isinstance(index, slice):
        if index == slice(None):
            return x
        index = T.arange(size_variable(shape_of(x)[0]))[index]
    return get_item_list(x, index)
