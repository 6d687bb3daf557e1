"""Sparse matrices from arrays and back, from dense matrices and back, and what all operations on them are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

import tcc.tensor as T
from tcc import build
from tcc.build import Size, as_size, size_of, size_variable
from tcc.elemwise import DISCRETE
from tcc.packing import PackedOp
from tcc.selecting import nonzero
from tcc.settings import config
from tcc.sparse.types import FORMATS, INDEX, SparseType
from tcc.sparse.variables import SparseConstant, SparseOperators
from tcc.tensor.extra_ops import searchsorted
from tcc.types import tensor_type
from tcc.variable import Variable, as_variable

LAST_KEY = 2**63 - 1


def is_sparse(x: Any) -> bool:
    """Whether x is a sparse variable or a SciPy matrix."""
    return isinstance(x, SparseOperators) or hasattr(x, "tocsr") and hasattr(x, "format")


def constant(x: Any, name: str | None = None) -> SparseConstant:
    """A SciPy matrix in csr, csc or bsr format as a constant."""
    if getattr(x, "format", None) not in FORMATS:
        raise TypeError(
            f"a sparse constant is a SciPy matrix in csr, csc or bsr format, got {type(x).__name__}"
        )
    return SparseConstant(SparseType(x.format, x.dtype.name), x.copy(), name)


def as_sparse_variable(x: Any, name: str | None = None) -> Any:
    """A sparse variable or SciPy matrix as a variable in rows or columns; TypeError for anything dense."""
    if not isinstance(x, SparseOperators):
        if isinstance(x, Variable) or not is_sparse(x):
            raise TypeError(f"Cannot convert {x} to SparseType", type(x))
        x = constant(x, name)
    return Rows()(x) if x.type.format == "bsr" else x


as_sparse = as_sparse_variable


def as_sparse_or_tensor_variable(x: Any, name: str | None = None) -> Any:
    """A sparse variable of what is sparse, a tensor variable of all else."""
    return as_sparse_variable(x, name) if is_sparse(x) else as_variable(x, name)


class Rows(PackedOp):
    """A matrix in blocks, in compressed rows: as its arrays are."""

    def types(self, *operands: Any) -> list[Any]:
        return [SparseType("csr", operands[0].type.dtype)]

    def expand(self, *operands: Any) -> Sequence[Any]:
        return operands

    def grad(self, operands: Sequence[Any], results: Sequence[Any], grads: Sequence[Any]) -> Sequence[Any]:
        return grads


# -- arrays of a matrix, and a matrix of arrays ------------------------------------------------------------------------


class CSM(PackedOp):
    """`CSM(format)(data, indices, indptr, shape)`: the matrix of these arrays.  Its gradient is by the data.

    ValueError, when the function runs, for a shape of another number of rows (csr) or columns (csc) than indptr has.
    """

    assembles = True

    def __init__(self, format: str) -> None:
        if format not in ("csr", "csc"):
            raise ValueError("format must be one of: 'csr' or 'csc'", format)
        self.format = format

    def __call__(self, data: Any, indices: Any, indptr: Any, shape: Any) -> Any:
        data, indices, indptr, shape = self.operands(data, indices, indptr, shape)
        axis, lines = (0, "rows") if self.format == "csr" else (1, "columns")
        what = f"indptr, which has one element more than the sparse matrix has {lines}"
        return super().__call__(data, indices, T.specify_shape(indptr, [shape[axis] + 1], what), shape)

    def of(self, data: Any, indices: Any, indptr: Any, shape: Any) -> Any:
        """The same of arrays that are known to fit."""
        return super().__call__(*self.operands(data, indices, indptr, shape))

    def operands(self, data: Any, indices: Any, indptr: Any, shape: Any) -> tuple[Any, Any, Any, Any]:
        """The arrays as variables; TypeError for those of another rank or dtype."""
        arrays = [as_variable(data)]
        for name, given in (("indices", indices), ("indptr", indptr)):
            v = as_variable(given)
            if v.type.ndim != 1 or v.type.dtype not in DISCRETE:
                raise TypeError(f"{name} must be vector of integers", v, v.type)
            arrays.append(build.cast(v, INDEX))
        if arrays[0].type.ndim != 1:
            raise TypeError("data argument must be a vector", arrays[0], arrays[0].type)
        if isinstance(shape, list | tuple):
            shape = T.stack([T.cast(as_variable(n), "int64") for n in shape])
        shape = as_variable(shape)
        if shape.type.ndim != 1 or shape.type.dtype not in DISCRETE:
            raise TypeError("shape must be vector of integers", shape, shape.type)
        return *arrays, build.cast(shape, "int64")

    def types(self, *operands: Any) -> list[Any]:
        return [SparseType(self.format, operands[0].type.dtype)]

    def grad(self, operands: Sequence[Any], results: Sequence[Any], grads: Sequence[Any]) -> Sequence[Any]:
        return [sampled(grads[0], results[0]), None, None, None]

    def __str__(self) -> str:
        return self.format.upper()


CSR, CSC = CSM("csr"), CSM("csc")


class CSMProperties(PackedOp):
    """The data, indices, indptr and shape of a matrix."""

    def types(self, *operands: Any) -> list[Any]:
        return list(operands[0].type.parts)

    def expand(self, *operands: Any) -> Sequence[Any]:
        return csm_properties(operands[0])

    def grad(self, operands: Sequence[Any], results: Sequence[Any], grads: Sequence[Any]) -> Sequence[Any]:
        return [None if grads[0] is None else like(operands[0], grads[0])]


def csm_properties(x: Any) -> tuple[Any, Any, Any, Any]:
    """The data, indices, indptr and shape of a matrix; the gradient by the data is one of the matrix's own pattern."""
    x = as_sparse_variable(x)
    if x.owner is not None and isinstance(x.owner.attrs.get("op"), CSM):
        data, indices, indptr, shape = x.owner.operands
        return data, indices, indptr, shape
    cache = x.__dict__
    if "_properties" not in cache:
        cache["_properties"] = tuple(CSMProperties()(x))
    made: tuple[Any, Any, Any, Any] = cache["_properties"]
    return made


def csm_data(x: Any) -> Any:
    """The stored elements."""
    return csm_properties(x)[0]


def csm_indices(x: Any) -> Any:
    """The column (csr) or row (csc) of each stored element."""
    return csm_properties(x)[1]


def csm_indptr(x: Any) -> Any:
    """Where each row (csr) or column (csc) starts and ends."""
    return csm_properties(x)[2]


def csm_shape(x: Any) -> Any:
    """The shape, as a vector of two."""
    return csm_properties(x)[3]


def like(x: Any, data: Any) -> Any:
    """A matrix with other elements at the places of those of x."""
    _, indices, indptr, shape = csm_properties(x)
    return CSM(x.type.format).of(data, indices, indptr, shape)


class Sizes(NamedTuple):
    """Of a matrix: how many rows (of csr; columns of csc) are compressed, and how long each is."""

    major: Size
    minor: Size


def sizes_of(x: Any) -> Sizes:
    _, _, indptr, shape = csm_properties(x)
    major = build.size_arithmetic("sub", size_of(indptr, 0), 1)
    return Sizes(major, as_size(shape[1 if x.type.format == "csr" else 0]))


def shape_of(x: Any) -> tuple[Size, Size]:
    """The numbers of rows and columns, as sizes."""
    major, minor = sizes_of(x)
    return (major, minor) if x.type.format == "csr" else (minor, major)


def places(x: Any) -> tuple[Any, Any]:
    """The row and the column of each stored element."""
    _, indices, indptr, _ = csm_properties(x)
    majors = build.node("csr_rows", indices, indptr).result
    return (majors, indices) if x.type.format == "csr" else (indices, majors)


def keys_of(x: Any) -> Any:
    """A number for the place of each stored element, ascending where the matrix is sorted."""
    rows, columns = places(x)
    majors, minors = (rows, columns) if x.type.format == "csr" else (columns, rows)
    return key(majors, minors, sizes_of(x).minor)


def key(majors: Any, minors: Any, minor: Size) -> Any:
    return T.cast(majors, "int64") * size_variable(minor) + T.cast(minors, "int64")


def found(x: Any, wanted: Any) -> tuple[Any, Any]:
    """Whether there is an element of x for each of the keys, and the elements (0 where there is none)."""
    keys = keys_of(x)
    order = T.argsort(keys)
    ordered = T.concatenate([keys[order], T.constant(np.array([LAST_KEY]))])
    data = T.concatenate([csm_data(x)[order], T.zeros([1], x.type.dtype)])
    at = searchsorted(ordered, wanted)
    hit = T.eq(ordered[at], wanted)
    return hit, T.switch(hit, data[at], T.zeros([1], x.type.dtype))


def sampled(g: Any, z: Any) -> Any:
    """The elements of a gradient at the places of those of z."""
    g = as_format(g, z.type.format)
    _, indices, indptr, _ = csm_properties(z)
    data, g_indices, g_indptr, _ = csm_properties(g)
    if g_indices is indices and g_indptr is indptr:
        return data
    return found(g, keys_of(z))[1]


class Whole(PackedOp):
    """`make(*operands, *options)`, whose gradients `pull(operands, result, g, *options)` are not limited to patterns."""

    def __init__(self, make: Callable[..., Any], pull: Callable[..., Sequence[Any]], *options: Any) -> None:
        self.make, self.pull, self.options = make, pull, options

    def types(self, *operands: Any) -> list[Any]:
        return [self.make(*operands, *self.options).type]

    def expand(self, *operands: Any) -> Sequence[Any]:
        return [self.make(*operands, *self.options)]

    def grad(self, operands: Sequence[Any], results: Sequence[Any], grads: Sequence[Any]) -> Sequence[Any]:
        return self.pull(operands, results[0], grads[0], *self.options)

    def __str__(self) -> str:
        return self.make.__name__.strip("_")


def as_format(x: Any, format: str) -> Any:
    """The same matrix in another format."""
    return x if x.type.format == format else Whole(_reformed, _reform_grad, format)(x)


def _reformed(x: Any, format: str) -> Any:
    data, indices, indptr, shape = csm_properties(x)
    order, others, starts = build.node("csr_order", indices, indptr, columns=sizes_of(x).minor).results
    return CSM(format).of(data[order], others, starts, shape)


def _reform_grad(operands: Sequence[Any], result: Any, g: Any, format: str) -> Sequence[Any]:
    return [as_format(g, operands[0].type.format)]


# -- dense and sparse --------------------------------------------------------------------------------------------------


class DenseFromSparse(PackedOp):
    """A dense matrix, whose gradient is dense too unless it is `structured`."""

    def __init__(self, structured: bool) -> None:
        self.structured = structured

    def types(self, *operands: Any) -> list[Any]:
        return [tensor_type(operands[0].type.dtype, (None, None))]

    def expand(self, *operands: Any) -> Sequence[Any]:
        return [dense_from_sparse(operands[0])]

    def grad(self, operands: Sequence[Any], results: Sequence[Any], grads: Sequence[Any]) -> Sequence[Any]:
        return [SparseFromDense(operands[0].type.format)(grads[0])]


def dense_from_sparse(x: Any, structured: bool = True) -> Any:
    """The dense matrix.  Its gradient has the pattern of x, or with structured=False the one of the gradient by the result."""
    x = as_sparse_variable(x)
    if not structured:
        return DenseFromSparse(structured)(x)
    rows, columns = places(x)
    zero = T.zeros(list(map(size_variable, shape_of(x))), x.type.dtype)
    return T.inc_subtensor(zero[rows, columns], csm_data(x))


class SparseFromDense(PackedOp):
    """`SparseFromDense(format)(x)`: the elements of a dense matrix that are not 0.  Its gradient is not limited to these."""

    def __init__(self, format: str) -> None:
        self.format = format

    def __call__(self, x: Any) -> Any:
        x = as_variable(x)
        if x.type.ndim > 2:
            raise TypeError("SparseFromDense", f"a matrix is needed, got {x.type}")
        while x.type.ndim < 2:
            x = T.shape_padleft(x)
        return super().__call__(x)

    def types(self, *operands: Any) -> list[Any]:
        return [SparseType(self.format, operands[0].type.dtype)]

    def expand(self, *operands: Any) -> Sequence[Any]:
        (x,) = operands
        whole = x if self.format == "csr" else x.T
        majors, minors = nonzero(whole)
        starts = starts_of(T.neq(whole, 0).sum(axis=1))
        return [CSM(self.format).of(whole[majors, minors], minors, starts, x.shape)]

    def grad(self, operands: Sequence[Any], results: Sequence[Any], grads: Sequence[Any]) -> Sequence[Any]:
        flags = [axis for axis, flag in enumerate(operands[0].type.broadcastable) if flag]
        dense = dense_from_sparse(grads[0])
        return [T.addbroadcast(dense, *flags) if flags else dense]


def starts_of(counts: Any) -> Any:
    """indptr of the numbers of elements."""
    zero = T.zeros([1], "int64")
    return T.concatenate([zero, T.cumsum(T.cast(counts, "int64"))])


csr_from_dense, csc_from_dense = SparseFromDense("csr"), SparseFromDense("csc")


def cast(x: Any, dtype: str) -> Any:
    """The matrix with elements of another dtype; of complex ones in a real dtype, their real parts."""
    x = as_sparse_variable(x)
    return x if x.type.dtype == dtype else Whole(with_dtype, _cast_grad, dtype)(x)


def with_dtype(x: Any, dtype: str) -> Any:
    """`cast` with a gradient of the pattern of x."""
    data = csm_data(x)
    return like(x, T.cast(data if dtype.startswith("complex") else T.real(data), dtype))


def _cast_grad(operands: Sequence[Any], result: Any, g: Any, dtype: str) -> Sequence[Any]:
    (x,) = operands
    return [None if x.type.dtype in DISCRETE else cast(g, x.type.dtype)]


def _cast_to(dtype: str) -> Any:
    def made(x: Any) -> Any:
        return cast(x, dtype)

    made.__doc__ = f"The matrix with elements of {dtype}."
    return made


bcast, wcast, icast, lcast = map(_cast_to, ("int8", "int16", "int32", "int64"))
fcast, dcast, ccast, zcast = map(_cast_to, ("float32", "float64", "complex64", "complex128"))


def sp_ones_like(x: Any) -> Any:
    """Ones at the places of the elements of x."""
    return like(as_sparse_variable(x), T.ones_like(csm_data(x)))


def sp_zeros_like(x: Any) -> Any:
    """A matrix of the shape of x without elements."""
    x = as_sparse_variable(x)
    _, _, indptr, shape = csm_properties(x)
    dtype = str(config.floatX) if x.type.dtype in DISCRETE else x.type.dtype
    return CSM(x.type.format).of(T.zeros([0], dtype), T.zeros([0], INDEX), T.zeros_like(indptr), shape)


def transpose(x: Any) -> Any:
    """The transpose, in the other format: the same arrays."""
    return Whole(_transposed, _transpose_grad)(as_sparse_variable(x))


def _transpose_grad(operands: Sequence[Any], result: Any, g: Any) -> Sequence[Any]:
    return [transpose(g)]


def _transposed(x: Any) -> Any:
    data, indices, indptr, shape = csm_properties(x)
    return CSM("csc" if x.type.format == "csr" else "csr").of(data, indices, indptr, shape[::-1])
