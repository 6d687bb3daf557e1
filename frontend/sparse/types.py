"""The type of sparse matrices, in compressed rows (csr) or compressed columns (csc)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tcc.ir.ops.sparse import scipy_sparse
from tcc.settings import config
from tcc.types import Packed, TensorType, dtype_name, promote, tensor_type

FORMATS = ("csr", "csc")
INDEX = "int32"


class SparseType(Packed):
    """SciPy's matrices of one format, csr or csc, and one dtype."""

    ndim = 2
    broadcastable = (False, False)

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
        """`data` as a matrix of this type; TypeError for another format, or a dtype that would lose precision."""
        if getattr(data, "format", None) != self.format or not hasattr(data, "indptr"):
            raise TypeError(
                f"{self} needs a SciPy matrix of format {self.format}, got {type(data).__name__}"
                + (f" of format {data.format}" if hasattr(data, "format") else "")
            )
        if data.dtype.name == self.dtype:
            return data
        if strict:
            raise TypeError(f"{self} is not of dtype {data.dtype}")
        if allow_downcast or promote(self.dtype, data.dtype.name) == self.dtype:
            return data.astype(self.dtype)
        raise TypeError(
            f"{self} cannot store a value of dtype {data.dtype} without risking loss of precision"
        )

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
        indptr = np.asarray(value.indptr, INDEX)
        count = int(indptr[-1])  # SciPy may have room for more
        data, indices = np.asarray(value.data[:count]), np.asarray(value.indices[:count], INDEX)
        return [data, indices, indptr, np.asarray(value.shape, "int64")]

    def unpack(self, arrays: Sequence[Any]) -> Any:
        data, indices, indptr, shape = arrays
        kind = getattr(scipy_sparse(), f"{self.format}_matrix")
        return kind((data, indices, indptr), shape=tuple(map(int, shape)))

    def packed(self, parts: Sequence[Any]) -> Any:
        """A variable of this type that is made of these arrays."""
        from tcc.sparse.basic import CSM

        return CSM(self.format)(*parts)

    def variable_class(self) -> Any:
        from tcc.sparse.variables import SparseVariable

        return SparseVariable


def matrix(format: str, name: str | None = None, dtype: str | None = None) -> Any:
    """A new sparse variable of a format, csr or csc, and a dtype (config.floatX without one)."""
    return SparseType(format, dtype or str(config.floatX))(name)


def csr_matrix(name: str | None = None, dtype: str | None = None) -> Any:
    """A new variable in compressed rows."""
    return matrix("csr", name, dtype)


def csc_matrix(name: str | None = None, dtype: str | None = None) -> Any:
    """A new variable in compressed columns."""
    return matrix("csc", name, dtype)


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
