"""Sparse variables, constants and shared variables, and what Python's operators do with them."""

from __future__ import annotations

import copy
from typing import Any

import tcc
from tcc.locations import user_location
from tcc.runtime.buffers import Container
from tcc.sharedvar import TensorSharedVariable
from tcc.sparse.types import SparseType
from tcc.types import TensorType
from tcc.variable import Constant, SharedVariable, Variable


class SparseOperators:
    """Mixed into sparse variables.  `*` is by element."""

    type: SparseType
    is_sparse = True
    ndim = 2
    __array_priority__ = 2000  # NumPy and dense variables leave operators to us

    @property
    def dtype(self) -> str:
        return self.type.dtype

    @property
    def format(self) -> str:
        return self.type.format

    @property
    def broadcastable(self) -> tuple[bool, bool]:
        return (False, False)

    @property
    def T(self) -> Any:
        return tcc.sparse.transpose(self)

    def transpose(self) -> Any:
        return tcc.sparse.transpose(self)

    @property
    def shape(self) -> Any:
        return tcc.sparse.csm_shape(self)

    @property
    def size(self) -> Any:
        """The number of stored elements."""
        return tcc.sparse.csm_data(self).shape[0]

    def __neg__(self) -> Any:
        return tcc.sparse.neg(self)

    def __add__(self, other: Any) -> Any:
        return tcc.sparse.add(self, other)

    def __radd__(self, other: Any) -> Any:
        return tcc.sparse.add(other, self)

    def __sub__(self, other: Any) -> Any:
        return tcc.sparse.sub(self, other)

    def __rsub__(self, other: Any) -> Any:
        return tcc.sparse.sub(other, self)

    def __mul__(self, other: Any) -> Any:
        return tcc.sparse.mul(self, other)

    def __rmul__(self, other: Any) -> Any:
        return tcc.sparse.mul(other, self)

    def __lt__(self, other: Any) -> Any:
        return tcc.sparse.lt(self, other)

    def __le__(self, other: Any) -> Any:
        return tcc.sparse.le(self, other)

    def __gt__(self, other: Any) -> Any:
        return tcc.sparse.gt(self, other)

    def __ge__(self, other: Any) -> Any:
        return tcc.sparse.ge(self, other)

    def __dot__(self, other: Any) -> Any:
        return tcc.sparse.structured_dot(self, other)

    def __rdot__(self, other: Any) -> Any:
        return tcc.sparse.structured_dot(other, self)

    def __matmul__(self, other: Any) -> Any:
        return tcc.sparse.structured_dot(self, other)

    def __rmatmul__(self, other: Any) -> Any:
        return tcc.sparse.structured_dot(other, self)

    def dot(self, other: Any) -> Any:
        return tcc.sparse.structured_dot(self, other)

    def __getitem__(self, index: Any) -> Any:
        return tcc.sparse.slices.item(self, index)

    def __iter__(self) -> Any:
        raise TypeError("a sparse variable cannot be iterated over")

    def toarray(self) -> Any:
        return tcc.sparse.dense_from_sparse(self)

    def sum(self, axis: int | None = None, sparse_grad: bool = False) -> Any:
        return tcc.sparse.sp_sum(self, axis, sparse_grad)

    def astype(self, dtype: str) -> Any:
        return tcc.sparse.cast(self, dtype)

    def zeros_like(self) -> Any:
        return tcc.sparse.sp_zeros_like(self)


class SparseVariable(SparseOperators, Variable):
    """A sparse matrix that is computed or given."""


class SparseConstant(SparseOperators, Constant):
    """A sparse matrix that the graph holds."""


class SparseSharedVariable(SparseOperators, SharedVariable):
    """A sparse matrix that functions read and update: the containers of its arrays."""

    def __init__(
        self, type: SparseType, parts: tuple[TensorSharedVariable, ...], name: str | None = None
    ) -> None:
        self.type, self.owner, self.index, self.name = type, None, None, name
        self.loc = user_location()
        self.parts = parts
        self.default_update: Any = None

    def get_value(self, borrow: bool = False, return_internal_type: bool = False) -> Any:
        """The matrix; with `borrow` over the arrays themselves, which later calls may change."""
        return self.type.unpack([p.get_value(borrow) for p in self.parts])

    def set_value(self, new_value: Any, borrow: bool = False) -> None:
        """A new matrix of the same format and dtype, of any sizes and pattern."""
        arrays = self.type.pack(self.type.filter(new_value))
        for part, array in zip(self.parts, arrays):
            part.set_value(array, borrow)

    def clone(self) -> SparseSharedVariable:
        """Another variable with the same containers."""
        return SparseSharedVariable(self.type, self.parts, self.name)


def shared(value: Any, name: str | None = None, borrow: bool = False, **_: Any) -> SparseSharedVariable:
    """A shared variable of a SciPy matrix in csr, csc or bsr format."""
    if not borrow:
        value = copy.deepcopy(value)
    kind = SparseType(value.format, value.dtype.name)
    names = ("data", "indices", "indptr", "shape")
    parts = tuple(
        TensorSharedVariable(
            t if k < 3 else TensorType("int64", shape=(2,)),
            Container(array, borrow=True),
            f"{name}_{n}" if name else None,
        )
        for k, (t, array, n) in enumerate(zip(kind.parts, kind.pack(value), names))
    )
    return SparseSharedVariable(kind, parts, name)
