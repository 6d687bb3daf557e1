"""Sparse matrices from arrays and back, their sums and products by element, and their structure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

import tcc.tensor as T
from tcc import build
from tcc.build import Size, as_size, size_of, size_variable
from tcc.elemwise import DISCRETE
from tcc.ir.ops.sparse import matrix_of
from tcc.packing import PackedOp
from tcc.selecting import nonzero
from tcc.settings import config
from tcc.sparse.types import FORMATS, INDEX, SparseType
from tcc.sparse.variables import SparseConstant, SparseOperators
from tcc.tensor.extra_ops import searchsorted
from tcc.types import promote, tensor_type
from tcc.user_op import call
from tcc.variable import Variable, as_variable

LAST_KEY = 2**63 - 1


def is_sparse(x: Any) -> bool:
    """Whether x is a sparse variable or a SciPy matrix."""
    return isinstance(x, SparseOperators) or hasattr(x, "tocsr") and hasattr(x, "format")


def constant(x: Any, name: str | None = None) -> SparseConstant:
    """A SciPy matrix in csr or csc format as a constant."""
    if getattr(x, "format", None) not in FORMATS:
        raise TypeError(f"a sparse constant is a SciPy matrix in csr or csc format, got {type(x).__name__}")
    return SparseConstant(SparseType(x.format, x.dtype.name), x.copy(), name)


def as_sparse_variable(x: Any, name: str | None = None) -> Any:
    """A sparse variable or SciPy matrix as a variable; TypeError for anything dense."""
    if isinstance(x, SparseOperators):
        return x
    if isinstance(x, Variable) or not is_sparse(x):
        raise TypeError(f"Cannot convert {x} to SparseType", type(x))
    return constant(x, name)


as_sparse = as_sparse_variable


def as_sparse_or_tensor_variable(x: Any, name: str | None = None) -> Any:
    """A sparse variable of what is sparse, a tensor variable of all else."""
    return as_sparse_variable(x, name) if is_sparse(x) else as_variable(x, name)


# -- arrays of a matrix, and a matrix of arrays ------------------------------------------------------------------------


class CSM(PackedOp):
    """`CSM(format)(data, indices, indptr, shape)`: the matrix of these arrays.  Its gradient is by the data."""

    assembles = True

    def __init__(self, format: str) -> None:
        if format not in FORMATS:
            raise ValueError("format must be one of: 'csr' or 'csc'", format)
        self.format = format

    def __call__(self, data: Any, indices: Any, indptr: Any, shape: Any) -> Any:
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
        return super().__call__(*arrays, build.cast(shape, "int64"))

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
    return CSM(x.type.format)(data, indices, indptr, shape)


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


def as_format(x: Any, format: str) -> Any:
    """The same matrix in another format."""
    if x.type.format == format:
        return x
    data, indices, indptr, shape = csm_properties(x)
    order, others, starts = build.node("csr_order", indices, indptr, columns=sizes_of(x).minor).results
    return CSM(format)(data[order], others, starts, shape)


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


class SparseFromDense:
    """`SparseFromDense(format)(x)`: the elements of a dense matrix that are not 0."""

    def __init__(self, format: str) -> None:
        self.format = format

    def __call__(self, x: Any) -> Any:
        x = as_variable(x)
        if x.type.ndim > 2:
            raise TypeError("SparseFromDense", f"a matrix is needed, got {x.type}")
        while x.type.ndim < 2:
            x = T.shape_padleft(x)
        shape = x.shape
        whole = x if self.format == "csr" else x.T
        majors, minors = nonzero(whole)
        return CSM(self.format)(whole[majors, minors], minors, starts_of(T.neq(whole, 0).sum(axis=1)), shape)


def starts_of(counts: Any) -> Any:
    """indptr of the numbers of elements."""
    zero = T.zeros([1], "int64")
    return T.concatenate([zero, T.cumsum(T.cast(counts, "int64"))])


csr_from_dense, csc_from_dense = SparseFromDense("csr"), SparseFromDense("csc")


def cast(x: Any, dtype: str) -> Any:
    """The matrix with elements of another dtype."""
    x = as_sparse_variable(x)
    return x if x.type.dtype == dtype else like(x, T.cast(csm_data(x), dtype))


def _cast_to(dtype: str) -> Any:
    def made(x: Any) -> Any:
        return cast(x, dtype)

    made.__doc__ = f"The matrix with elements of {dtype}."
    return made


bcast, wcast, icast, lcast = map(_cast_to, ("int8", "int16", "int32", "int64"))
fcast, dcast = map(_cast_to, ("float32", "float64"))


def sp_ones_like(x: Any) -> Any:
    """Ones at the places of the elements of x."""
    return like(as_sparse_variable(x), T.ones_like(csm_data(x)))


def sp_zeros_like(x: Any) -> Any:
    """A matrix of the shape of x without elements."""
    x = as_sparse_variable(x)
    _, _, indptr, shape = csm_properties(x)
    dtype = str(config.floatX) if x.type.dtype in DISCRETE else x.type.dtype
    return CSM(x.type.format)(T.zeros([0], dtype), T.zeros([0], INDEX), T.zeros_like(indptr), shape)


def transpose(x: Any) -> Any:
    """The transpose, in the other format: the same arrays."""
    x = as_sparse_variable(x)
    data, indices, indptr, shape = csm_properties(x)
    return CSM("csc" if x.type.format == "csr" else "csr")(data, indices, indptr, shape[::-1])


# -- sums and products by element --------------------------------------------------------------------------------------


def neg(x: Any) -> Any:
    """-x."""
    return like(as_sparse_variable(x), T.neg(csm_data(x)))


def _pair(x: Any, y: Any) -> tuple[Any, Any]:
    """Two matrices of one format, dtype and shape."""
    x, y = as_sparse_variable(x), as_sparse_variable(y)
    dtype = promote(x.type.dtype, y.type.dtype)
    return cast(x, dtype), cast(_fitted(as_format(y, x.type.format), x), dtype)


def _fitted(y: Any, x: Any) -> Any:
    """y, whose shape must be that of x, which is in the same format."""
    if csm_shape(y) is csm_shape(x) and csm_indptr(y) is csm_indptr(x):
        return y
    data, indices, indptr, _ = csm_properties(y)
    indptr = T.specify_shape(indptr, [size_of(csm_indptr(x), 0)], "the shape of the other sparse matrix")
    pair = zip(sizes_of(y), sizes_of(x))
    major, minor = (
        size_variable(build.same_size(a, b, "sparse: Input dimension mis-match, of two matrices"))
        for a, b in pair
    )
    shape = (major, minor) if x.type.format == "csr" else (minor, major)
    return CSM(x.type.format)(data, indices, indptr, T.stack(shape))


def _dense_like(dense: Any, x: Any) -> Any:
    """A dense matrix, row, column or vector that must have the sizes of x, but for axes that broadcast."""
    rank = dense.type.ndim
    sizes = [None if b else n for b, n in zip(dense.type.broadcastable, shape_of(x)[2 - rank :])]
    return T.specify_shape(dense, sizes, "the shape of the sparse matrix")


def combined(name: str, function: Callable[..., Any], x: Any, y: Any) -> Any:
    """A matrix that SciPy makes of two of one format and shape, of which only it knows how many elements it has."""
    starts = size_of(csm_indptr(x), 0)
    kinds = [tensor_type(t, (None,)) for t in (x.type.dtype, INDEX, INDEX)]
    inputs = [*csm_properties(x)[:3], *csm_properties(y)[:3], size_variable(sizes_of(y).minor)]
    data, indices, indptr = call(name, function, inputs, kinds, [], sizes=[None, None, starts])
    return CSM(x.type.format)(data, indices, indptr, csm_shape(y))


def _matrices(arrays: Sequence[Any]) -> list[Any]:
    a, b, c, d, e, f, width = arrays
    return [matrix_of(a, b, c, int(width)), matrix_of(d, e, f, int(width))]


def arrays_of(matrix: Any) -> list[Any]:
    """A matrix as the arrays of its compressed rows."""
    rows = matrix.tocsr()
    return [rows.data, np.asarray(rows.indices, INDEX), np.asarray(rows.indptr, INDEX)]


def added(*arrays: Any) -> list[Any]:
    a, b = _matrices(arrays)
    return arrays_of(a + b)


def product(*arrays: Any) -> list[Any]:
    a, b = _matrices(arrays)
    return arrays_of(a.multiply(b))


class AddSS(PackedOp):
    """The sum of two sparse matrices."""

    def types(self, *operands: Any) -> list[Any]:
        return [operands[0].type]

    def expand(self, *operands: Any) -> Sequence[Any]:
        return [combined("AddSS", added, *operands)]

    def grad(self, operands: Sequence[Any], results: Sequence[Any], grads: Sequence[Any]) -> Sequence[Any]:
        return [grads[0], grads[0]]


class MulSS(PackedOp):
    """The product by element of two sparse matrices: where both have elements."""

    def types(self, *operands: Any) -> list[Any]:
        return [operands[0].type]

    def expand(self, *operands: Any) -> Sequence[Any]:
        return [combined("MulSS", product, *operands)]

    def grad(self, operands: Sequence[Any], results: Sequence[Any], grads: Sequence[Any]) -> Sequence[Any]:
        x, y = operands
        return [mul(y, grads[0]), mul(x, grads[0])]


def kept(x: Any, mask: Any) -> Any:
    """A matrix without the elements where `mask` is false."""
    data, indices, indptr, shape = csm_properties(x)
    (at,) = nonzero(mask)
    starts = starts_of(mask)[indptr]
    return CSM(x.type.format)(data[at], indices[at], starts, shape)


def add(x: Any, y: Any) -> Any:
    """x + y: sparse of two sparse matrices, dense if one is dense."""
    x, y = as_sparse_or_tensor_variable(x), as_sparse_or_tensor_variable(y)
    if is_sparse(x) and is_sparse(y):
        x, y = _pair(x, y)
        if csm_indices(x) is csm_indices(y) and csm_indptr(x) is csm_indptr(y):
            return like(x, csm_data(x) + csm_data(y))
        return AddSS()(x, y)
    if not is_sparse(x) and not is_sparse(y):
        raise TypeError("sparse.add: one of the arguments must be sparse")
    matrix, dense = (x, y) if is_sparse(x) else (y, x)
    if dense.type.ndim != 2:
        raise TypeError(f"sparse.add: a dense argument must be a matrix, got {dense.type}")
    dense = (
        T.fill(dense_from_sparse(sp_zeros_like(matrix)), dense) if any(dense.type.broadcastable) else dense
    )
    dtype = promote(matrix.type.dtype, dense.type.dtype)
    dense = _dense_like(dense, matrix)
    return T.inc_subtensor(T.cast(dense, dtype)[places(matrix)], T.cast(csm_data(matrix), dtype))


def sub(x: Any, y: Any) -> Any:
    """x - y, as `add`."""
    x, y = as_sparse_or_tensor_variable(x), as_sparse_or_tensor_variable(y)
    return add(x, neg(y) if is_sparse(y) else T.neg(y))


def mul(x: Any, y: Any) -> Any:
    """The product by element, which is sparse: with a sparse matrix, a dense one, a vector for all rows, or a number."""
    x, y = as_sparse_or_tensor_variable(x), as_sparse_or_tensor_variable(y)
    if is_sparse(x) and is_sparse(y):
        x, y = _pair(x, y)
        if csm_indices(x) is csm_indices(y) and csm_indptr(x) is csm_indptr(y):
            return like(x, csm_data(x) * csm_data(y))
        return MulSS()(x, y)
    if not is_sparse(x) and not is_sparse(y):
        raise TypeError("sparse.mul: one of the arguments must be sparse")
    matrix, dense = (x, y) if is_sparse(x) else (y, x)
    if dense.type.ndim > 2:
        raise TypeError(f"sparse.mul: a dense argument has at most 2 axes, got {dense.type}")
    if dense.type.ndim == 0:
        return like(matrix, csm_data(matrix) * dense)
    rows, columns = places(matrix)
    dense = _dense_like(dense, matrix)
    if dense.type.ndim == 1:
        return like(matrix, csm_data(matrix) * dense[columns])
    flags = dense.type.broadcastable
    index = tuple(T.zeros_like(p) if flag else p for p, flag in zip((rows, columns), flags))
    return like(matrix, csm_data(matrix) * dense[index])


def col_scale(x: Any, s: Any) -> Any:
    """Each column of x by its element of the vector s."""
    return _scaled(x, s, 1)


def row_scale(x: Any, s: Any) -> Any:
    """Each row of x by its element of the vector s."""
    return _scaled(x, s, 0)


def _scaled(x: Any, s: Any, axis: int) -> Any:
    x, s = as_sparse_variable(x), as_variable(s)
    if s.type.ndim != 1:
        raise TypeError(f"s must be a vector, got {s.type}")
    s = T.specify_shape(s, [shape_of(x)[axis]], "the shape of the sparse matrix")
    return like(x, csm_data(x) * s[places(x)[axis]])


# -- reductions and diagonals ------------------------------------------------------------------------------------------


class SpSum(PackedOp):
    """The sum of a matrix, with a gradient at every place."""

    def __init__(self, axis: int | None) -> None:
        self.axis = axis

    def types(self, *operands: Any) -> list[Any]:
        return [tensor_type(operands[0].type.dtype, () if self.axis is None else (None,))]

    def expand(self, *operands: Any) -> Sequence[Any]:
        return [sp_sum(operands[0], self.axis, sparse_grad=True)]

    def grad(self, operands: Sequence[Any], results: Sequence[Any], grads: Sequence[Any]) -> Sequence[Any]:
        (x,), (g,) = operands, grads
        ones = T.ones(list(map(size_variable, shape_of(x))), x.type.dtype)
        wide = g if self.axis is None else g.dimshuffle("x", 0) if self.axis == 0 else g.dimshuffle(0, "x")
        return [SparseFromDense(x.type.format)(ones * wide)]


def sp_sum(x: Any, axis: int | None = None, sparse_grad: bool = False) -> Any:
    """The sum over all elements, or over axis 0 or 1, dense.  The gradient is at all places, or with `sparse_grad` at those
    of the elements of x."""
    x = as_sparse_variable(x)
    if axis not in (None, 0, 1, -1, -2):
        raise ValueError(f"Illegal value for self.axis: {axis}")
    axis = None if axis is None else axis % 2
    if not sparse_grad and x.type.dtype not in DISCRETE:
        return SpSum(axis)(x)
    data = csm_data(x)
    if axis is None:
        return data.sum()
    zero = T.zeros([size_variable(shape_of(x)[1 - axis])], x.type.dtype)
    return T.inc_subtensor(zero[places(x)[1 - axis]], data)


class Diag(PackedOp):
    """The diagonal of a matrix."""

    def types(self, *operands: Any) -> list[Any]:
        return [tensor_type(operands[0].type.dtype, (None,))]

    def expand(self, *operands: Any) -> Sequence[Any]:
        (x,) = operands
        rows, columns = places(x)
        at = nonzero(T.eq(rows, columns))[0]
        length = build.size_arithmetic("minimum", *shape_of(x))
        return [T.inc_subtensor(T.zeros([size_variable(length)], x.type.dtype)[rows[at]], csm_data(x)[at])]

    def grad(self, operands: Sequence[Any], results: Sequence[Any], grads: Sequence[Any]) -> Sequence[Any]:
        return [as_format(square_diagonal(grads[0]), operands[0].type.format)]


def diag(x: Any) -> Any:
    """The diagonal of a square matrix, as a dense vector."""
    return Diag()(as_sparse_variable(x))


def square_diagonal(diag: Any) -> Any:
    """The square matrix, in csc format, with this vector on its diagonal."""
    diag = as_variable(diag)
    if diag.type.ndim != 1:
        raise TypeError("data argument must be a vector", diag.type)
    n = size_variable(size_of(diag, 0))
    return CSC(diag, T.arange(n), T.arange(n + 1), T.stack([n, n]))


# -- structure ---------------------------------------------------------------------------------------------------------


def ensure_sorted_indices(x: Any) -> Any:
    """The same matrix, its elements in ascending order."""
    x = as_sparse_variable(x)
    data, indices, indptr, shape = csm_properties(x)
    order = T.argsort(keys_of(x))
    return CSM(x.type.format)(data[order], indices[order], indptr, shape)


def remove0(x: Any) -> Any:
    """The same matrix without stored zeros."""
    x = as_sparse_variable(x)
    return kept(x, T.neq(csm_data(x), 0))


def clean(x: Any) -> Any:
    """The same matrix, sorted and without stored zeros."""
    return ensure_sorted_indices(remove0(x))


def vstack(blocks: Sequence[Any], format: str | None = None, dtype: str | None = None) -> Any:
    """Matrices below each other, in the format of the first if none is given."""
    parts = _stacked(blocks, dtype)
    rows = [as_format(b, "csr") for b in parts]
    data, indices = (T.concatenate([f(b) for b in rows]) for f in (csm_data, csm_indices))
    starts, total = [T.zeros([1], INDEX)], None
    for b in rows:
        ends = csm_indptr(b)[1:] if total is None else csm_indptr(b)[1:] + total
        starts.append(T.cast(ends, INDEX))
        count = T.cast(csm_indptr(b)[-1], INDEX)
        total = count if total is None else total + count
    height = sum((csm_shape(b)[0] for b in rows[1:]), csm_shape(rows[0])[0])
    width: Any = sizes_of(rows[0]).minor
    for b in rows[1:]:
        width = build.same_size(
            width, sizes_of(b).minor, "sparse: Input dimension mis-match, of matrices that are stacked"
        )
    made = CSR(data, indices, T.concatenate(starts), T.stack([height, size_variable(width)]))
    return as_format(made, format or parts[0].type.format)


def hstack(blocks: Sequence[Any], format: str | None = None, dtype: str | None = None) -> Any:
    """Matrices beside each other, in the format of the first if none is given."""
    parts = _stacked(blocks, dtype)
    made = transpose(vstack([transpose(b) for b in parts], "csr"))
    return as_format(made, format or parts[0].type.format)


def _stacked(blocks: Sequence[Any], dtype: str | None) -> list[Any]:
    parts = [as_sparse_variable(b) for b in blocks]
    if not parts:
        raise ValueError("nothing to stack")
    wanted = dtype or promote(*(b.type.dtype for b in parts))
    return [cast(b, wanted) for b in parts]


# -- comparisons -------------------------------------------------------------------------------------------------------


def compared(name: str) -> Any:
    """A comparison: sparse, of bools, of two sparse matrices; dense if one is dense."""
    function = getattr(T, name)

    def compare(x: Any, y: Any) -> Any:
        x, y = as_sparse_or_tensor_variable(x), as_sparse_or_tensor_variable(y)
        if not is_sparse(x) and not is_sparse(y):
            raise TypeError(f"sparse.{name}: one of the arguments must be sparse")
        made = function(*(dense_from_sparse(v) if is_sparse(v) else v for v in (x, y)))
        return SparseFromDense(x.type.format)(made) if is_sparse(x) and is_sparse(y) else made

    compare.__name__ = compare.__qualname__ = name
    compare.__doc__ = f"{name} by element: sparse, of bools, of two sparse matrices; dense if one is dense."
    return compare


eq, neq, lt, le, gt, ge = map(compared, ("eq", "neq", "lt", "le", "gt", "ge"))
