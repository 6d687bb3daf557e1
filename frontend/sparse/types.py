"""The type of sparse matrices: compressed rows (csr), compressed columns (csc), or blocks (bsr), which work as rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tcc.ir.ops.sparse import scipy_sparse
from tcc.settings import config
from tcc.types import Packed, TensorType, dtype_name, promote, tensor_type

FORMATS = ("csr", "csc", "bsr")
INDEX = "int32"
DTYPES = [f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)]
DTYPES += ["float32", "float64", "complex64", "complex128"]  # SciPy has no float16


class SparseType(Packed):
    """SciPy's matrices of one format, csr, csc or bsr, and one dtype."""

    ndim = 2
    broadcastable = (False, False)
    dtype_set = frozenset(DTYPES)

    def __init__(
        self, format: str, dtype: str = "floatX", broadcastable: Any = None, name: str | None = None
    ) -> None:
        if format not in FORMATS:
            raise NotImplementedError(f'unsupported format "{format}" not in list', FORMATS)
        self.format, self.dtype = format, dtype_name(dtype)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SparseType) and (self.format, self.dtype) == (other.format, other.dtype)

    def __hash__(self) -> int:
        return hash((self.format, self.dtype))

    def __repr__(self) -> str:
        return f"Sparse[{self.dtype}, {self.format}]"

    def clone(self, format: str | None = None, dtype: str | None = None) -> SparseType:
        return SparseType(format or self.format, dtype or self.dtype)

    def filter(self, data: Any, strict: bool = False, allow_downcast: bool | None = None) -> Any:
        """`data`, a SciPy matrix of any format, as one of this type; TypeError for a dtype that would lose precision, and if
        `strict` for another format."""
        if not hasattr(data, "tocsr") or strict and data.format != self.format:
            raise TypeError(
                f"{self} needs a SciPy matrix of format {self.format}, got {type(data).__name__}"
                + (f" of format {data.format}" if hasattr(data, "format") else "")
            )
        data = data.asformat(self.format)
        if data.dtype.name == self.dtype:
            return data
        if strict:
            raise TypeError(f"{self} is not of dtype {data.dtype}")
        if allow_downcast or promote(self.dtype, data.dtype.name) == self.dtype:
            return data.astype(self.dtype)
        raise TypeError(
            f"{self} cannot store a value of dtype {data.dtype} without risking loss of precision"
        )

    def is_valid_value(self, a: Any) -> bool:
        """Whether `a` is a SciPy matrix of this format."""
        return bool(scipy_sparse().issparse(a) and a.format == self.format)

    def values_eq(self, a: Any, b: Any) -> bool:
        """Whether two matrices have the same shape and elements, wherever these are stored."""
        sparse = scipy_sparse()
        both = sparse.issparse(a) and sparse.issparse(b)
        return bool(both and a.shape == b.shape and abs(a - b).sum() == 0)

    def values_eq_approx(self, a: Any, b: Any, eps: float = 1e-6) -> bool:
        """`values_eq`, but for differences below `eps`."""
        sparse = scipy_sparse()
        if not sparse.issparse(a) or not sparse.issparse(b) or a.shape != b.shape:
            return False
        apart = abs(a - b)
        return apart.nnz == 0 or bool(apart.max() < eps)

    @staticmethod
    def may_share_memory(a: Any, b: Any) -> bool:
        """Whether an array of one matrix may overlap an array of the other; either may be an array itself."""
        first, second = (
            [v.data, v.indices, v.indptr]
            if hasattr(v, "indptr")
            else [v]
            if isinstance(v, np.ndarray)
            else []
            for v in (a, b)
        )
        return any(np.may_share_memory(x, y) for x in first for y in second)

    # -- as arrays

    @property
    def parts(self) -> tuple[TensorType, ...]:
        vector = (None,)
        return (
            tensor_type(self.dtype, vector),
            tensor_type(INDEX, vector),
            tensor_type(INDEX, vector),
            tensor_type("int64", (2,)),
        )

    def pack(self, value: Any) -> list[Any]:
        if max(*value.shape, len(value.indices)) >= 2**31:
            raise ValueError(
                f"a sparse matrix of {value.shape} with {value.nnz} elements is too large: indices are int32"
            )
        value = value.tocsr() if self.format == "bsr" else value
        indptr = np.asarray(value.indptr, INDEX)
        count = int(indptr[-1])  # SciPy may have room for more
        data, indices = np.asarray(value.data[:count]), np.asarray(value.indices[:count], INDEX)
        return [data, indices, indptr, np.asarray(value.shape, "int64")]

    def unpack(self, arrays: Sequence[Any]) -> Any:
        data, indices, indptr, shape = arrays
        kind = getattr(scipy_sparse(), "csc_matrix" if self.format == "csc" else "csr_matrix")
        made = kind((data, indices, indptr), shape=tuple(map(int, shape)))
        return made.tobsr() if self.format == "bsr" else made

    def packed(self, parts: Sequence[Any]) -> Any:
        """A variable that is made of these arrays: of this type, or in rows for one in blocks."""
        from tcc.sparse.basic import CSM

        return CSM("csc" if self.format == "csc" else "csr").of(*parts)

    def variable_class(self) -> Any:
        from tcc.sparse.variables import SparseVariable

        return SparseVariable


def matrix(format: str, name: str | None = None, dtype: str | None = None) -> Any:
    """A new sparse variable of a format, csr, csc or bsr, and a dtype (config.floatX without one)."""
    return SparseType(format, dtype or str(config.floatX))(name)


def csr_matrix(name: str | None = None, dtype: str | None = None) -> Any:
    """A new variable in compressed rows."""
    return matrix("csr", name, dtype)


def csc_matrix(name: str | None = None, dtype: str | None = None) -> Any:
    """A new variable in compressed columns."""
    return matrix("csc", name, dtype)


def bsr_matrix(name: str | None = None, dtype: str | None = None) -> Any:
    """A new variable in blocks.  What is computed of it is in compressed rows."""
    return matrix("bsr", name, dtype)


def csr_fmatrix(name: str | None = None) -> Any:
    """A new variable in compressed rows of float32."""
    return matrix("csr", name, "float32")


def csr_dmatrix(name: str | None = None) -> Any:
    """A new variable in compressed rows of float64."""
    return matrix("csr", name, "float64")


def csc_fmatrix(name: str | None = None) -> Any:
    """A new variable in compressed columns of float32."""
    return matrix("csc", name, "float32")


def csc_dmatrix(name: str | None = None) -> Any:
    """A new variable in compressed columns of float64."""
    return matrix("csc", name, "float64")


def bsr_fmatrix(name: str | None = None) -> Any:
    """A new variable in blocks of float32."""
    return matrix("bsr", name, "float32")


def bsr_dmatrix(name: str | None = None) -> Any:
    """A new variable in blocks of float64."""
    return matrix("bsr", name, "float64")
