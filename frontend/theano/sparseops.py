"""Theano's op classes of sparse matrices, and functions of `theano.sparse` that its programs know by the names of ops."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

import tcc.tensor as T
from tcc import sparse as S
from tcc.elemwise import DISCRETE
from tcc.ir.ops.sparse import scipy_sparse
from tcc.packing import PackedOp
from tcc.sparse import arithmetic, basic, products, structure
from tcc.sparse.types import DTYPES
from tcc.theano.legacyop import LegacyOp, Node, OpClass
from tcc.types import TensorType
from tcc.variable import Variable, as_variable

all_dtypes = DTYPES
complex_dtypes = [t for t in DTYPES if t.startswith("complex")]
float_dtypes = [t for t in DTYPES if t.startswith("float")]
int_dtypes = [t for t in DTYPES if t.startswith("int")]
uint_dtypes = [t for t in DTYPES if t.startswith("uint")]
integer_dtypes = discrete_dtypes = [*int_dtypes, *uint_dtypes]
continuous_dtypes = [*complex_dtypes, *float_dtypes]


def _is_sparse_variable(x: Any) -> bool:
    if not isinstance(x, Variable):
        raise NotImplementedError(f"a variable is needed, got {type(x).__name__}", x)
    return isinstance(x.type, S.SparseType)


def _is_dense_variable(x: Any) -> bool:
    if not isinstance(x, Variable):
        raise NotImplementedError(f"a variable is needed, got {type(x).__name__}", x)
    return isinstance(x.type, TensorType)


def _is_sparse(x: Any) -> bool:
    """Whether a value is a SciPy matrix and not an array."""
    if isinstance(x, np.ndarray) or hasattr(x, "tocsr"):
        return hasattr(x, "tocsr")
    raise NotImplementedError(f"a SciPy matrix or an array is needed, got {type(x).__name__}", x)


def _is_dense(x: Any) -> bool:
    """Whether a value is an array and not a SciPy matrix."""
    return not _is_sparse(x)


def hash_from_sparse(data: Any) -> str:
    """A hash of a SciPy matrix: its elements, its pattern, its shape, dtype and format."""
    made = hashlib.sha256()
    for part in (data.data, data.indices, data.indptr):
        made.update(hashlib.sha256(np.ascontiguousarray(part).tobytes()).digest())
    made.update(f"{data.shape} {data.dtype} {data.format}".encode())
    return made.hexdigest()


def __getattr__(name: str) -> Any:
    if name == "_mtypes":  # the classes of SciPy, which is not loaded before
        return [getattr(scipy_sparse(), f"{format}_matrix") for format in ("csc", "csr")]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class SparseOpClass(OpClass):
    """Counts nodes of packed values among the instances; dense ops of the same names stay who they are."""

    def __init__(cls, name: str, *args: Any) -> None:
        type.__init__(cls, name, *args)

    def __instancecheck__(cls, instance: Any) -> bool:
        if isinstance(instance, PackedOp):
            return isinstance(instance, cls.__dict__.get("packed", ()))
        return super().__instancecheck__(instance)


class SparseOp(LegacyOp, metaclass=SparseOpClass):
    """An op whose operands may be sparse.  `packed` are the nodes that it makes."""

    packed: ClassVar[tuple[type, ...]] = ()

    def make_node(self, *inputs: Any) -> Node:
        made = self(*inputs)
        values = [basic.as_sparse_or_tensor_variable(v) for v in inputs]
        return Node(self, values, list(made) if isinstance(made, list | tuple) else [made])

    def perform(self, node: Any, inputs: Sequence[Any], output_storage: Sequence[list[Any]]) -> None:
        made = self(*inputs)
        for cell, v in zip(output_storage, made if isinstance(made, list | tuple) else [made]):
            cell[0] = v.eval()


def _op(
    name: str,
    function: Callable[..., Any] | None,
    options: dict[str, Any] | None = None,
    passed: bool = False,
    packed: tuple[type, ...] = (),
    rows: tuple[str, ...] = (),
) -> Any:
    """A class of that name: `function` of its operands, and of its options if they are `passed`; without a function it
    only stands in questions about a graph."""
    entries: dict[str, Any] = {"options": options or {}, "packed": packed, "rows": rows}
    if function is not None:
        made = function

        def apply(self: Any, *operands: Any, **named: Any) -> Any:
            given = {k: getattr(self, k) for k in self.options} if passed else {}
            return made(*operands, **named, **given)

        entries["apply"] = apply
        entries["__doc__"] = made.__doc__
    return SparseOpClass(name, (SparseOp,), entries)


def _of_format(name: str, x: Any, *formats: str) -> Any:
    x = basic.as_sparse_variable(x)
    if x.type.format not in formats:
        raise TypeError(f"{name} takes a matrix in {' or '.join(formats)} format, got {x.type}")
    return x


def _of_one_type(name: str, x: Any, y: Any) -> tuple[Any, Any]:
    x, y = basic.as_sparse_variable(x), basic.as_sparse_variable(y)
    if x.type != y.type:
        raise NotImplementedError(
            f"{name} takes two matrices of one format and dtype, got {x.type} and {y.type}"
        )
    return x, y


def _vector_of(name: str, x: Any, y: Any) -> tuple[Any, Any]:
    x, y = basic.as_sparse_variable(x), as_variable(y)
    if y.type.ndim != 1:
        raise TypeError(f"{name} takes a vector, got {y.type}")
    if x.type.dtype != y.type.dtype:
        raise NotImplementedError(
            f"{name} takes a matrix and a vector of one dtype, got {x.type} and {y.type}; `mul` casts"
        )
    return x, y


def add_s_s(x: Any, y: Any) -> Any:
    """The sum of two sparse matrices of one format and dtype."""
    return arithmetic.add(*_of_one_type("add_s_s", x, y))


def add_s_s_data(x: Any, y: Any) -> Any:
    """The sum of two sparse matrices of one pattern, which is not looked at: the elements of y are added in their order."""
    x, y = _of_one_type("add_s_s_data", x, y)
    return basic.like(x, basic.csm_data(x) + basic.csm_data(y))


def add_s_d(x: Any, y: Any) -> Any:
    """The dense sum of a sparse and a dense matrix."""
    return arithmetic.add(basic.as_sparse_variable(x), as_variable(y))


def structured_add_s_v(x: Any, y: Any) -> Any:
    """A vector added to each row of x, at the places of its stored elements."""
    x, y = _vector_of("structured_add_s_v", x, y)
    y = T.specify_shape(y, [basic.shape_of(x)[1]], "the shape of the sparse matrix")
    return basic.like(x, basic.csm_data(x) + y[basic.places(x)[1]])


def mul_s_s(x: Any, y: Any) -> Any:
    """The product by element of two sparse matrices of one format and dtype."""
    return arithmetic.mul(*_of_one_type("mul_s_s", x, y))


def mul_s_d(x: Any, y: Any) -> Any:
    """The sparse product by element of a sparse and a dense matrix."""
    return arithmetic.mul(basic.as_sparse_variable(x), as_variable(y))


def mul_s_v(x: Any, y: Any) -> Any:
    """Each row of x by the vector y, by element."""
    return arithmetic.mul(*_vector_of("mul_s_v", x, y))


def construct_sparse_from_list(x: Any, values: Any, ilist: Any) -> Any:
    """A csc matrix of the shape of x, whose row ilist[k] is the row k of `values` (a sum where rows are repeated)."""
    x, values, ilist = as_variable(x), as_variable(values), as_variable(ilist)
    if ilist.type.dtype not in DISCRETE:
        raise TypeError("index must be integers")
    if ilist.type.ndim != 1:
        raise TypeError("index must be vector")
    if x.type.ndim != 2:
        raise TypeError(f"cannot create a sparse matrix with {x.type.ndim} dimensions")
    if values.type.ndim != 2:
        raise TypeError(f"cannot create a sparse matrix from values with {values.type.ndim} ndim")
    rows, columns = values.shape[0], values.shape[1]
    return S.CSC(
        T.flatten(values.T), T.tile(ilist, [columns]), T.arange(columns + 1) * rows, T.stack([*x.shape])
    )


def _remove0(x: Any, inplace: bool = False) -> Any:
    return structure.remove0(x)


def _sorted(x: Any, inplace: bool = False) -> Any:
    return structure.ensure_sorted_indices(x)


def _stacked(stack: Callable[..., Any], *blocks: Any, format: str | None, dtype: str | None) -> Any:
    return stack(blocks, format or "csc", dtype)


def _true_dot(x: Any, y: Any, grad_preserves_dense: bool = True) -> Any:
    return products.true_dot(x, y, grad_preserves_dense)


def _properties(x: Any, kmap: Any = None) -> Any:
    return list(basic.csm_properties(x))


def _col_scale(x: Any, s: Any) -> Any:
    return arithmetic.col_scale(_of_format("ColScaleCSC", x, "csc"), s)


def _row_scale(x: Any, s: Any) -> Any:
    return arithmetic.row_scale(_of_format("RowScaleCSC", x, "csc"), s)


CSMProperties = _op("CSMProperties", _properties, {"kmap": None}, True, (basic.CSMProperties,))
CSMGrad = csm_grad = _op("CSMGrad", None, {"kmap": None})
Cast = _op("Cast", lambda x, out_type: basic.cast(x, out_type), {"out_type": None}, True)
DenseFromSparse = _op(
    "DenseFromSparse", basic.dense_from_sparse, {"structured": True}, True, (basic.DenseFromSparse,)
)
Transpose, Neg = _op("Transpose", basic.transpose), _op("Neg", arithmetic.neg)
ColScaleCSC, RowScaleCSC = _op("ColScaleCSC", _col_scale), _op("RowScaleCSC", _row_scale)
SpSum = _op("SpSum", structure.sp_sum, {"axis": None, "sparse_grad": True}, True, (structure.SpSum,))
Diag, SquareDiagonal = (
    _op("Diag", structure.diag, packed=(structure.Diag,)),
    _op("SquareDiagonal", structure.square_diagonal),
)
EnsureSortedIndices = _op("EnsureSortedIndices", _sorted, {"inplace": False}, True)
Remove0 = _op("Remove0", _remove0, {"inplace": False}, True)
AddSS = _op("AddSS", add_s_s, packed=(arithmetic.AddSS,))
AddSSData, AddSD = _op("AddSSData", add_s_s_data), _op("AddSD", add_s_d)
StructuredAddSV = _op("StructuredAddSV", structured_add_s_v)
MulSS = _op("MulSS", mul_s_s, packed=(arithmetic.MulSS,))
MulSD, MulSV = _op("MulSD", mul_s_d), _op("MulSV", mul_s_v)
_STACK = {"format": None, "dtype": None}
HStack = _op("HStack", functools.partial(_stacked, structure.hstack), _STACK, True)
VStack = _op("VStack", functools.partial(_stacked, structure.vstack), _STACK, True)
TrueDot = _op(
    "TrueDot", _true_dot, {"grad_preserves_dense": True}, True, (products.TrueDot, products.TrueDotDense)
)
StructuredDot = _op(
    "StructuredDot", products.structured_dot, packed=(products.TrueDot,), rows=("csr_dot", "csr_tdot")
)
SamplingDot = _op("SamplingDot", products.sampling_dot, rows=("csr_sample",))
Dot, Usmm = _op("Dot", products.dot, rows=("csr_dot", "csr_tdot")), _op("Usmm", products.usmm)
ConstructSparseFromList = _op("ConstructSparseFromList", construct_sparse_from_list)
GetItemList, GetItem2Lists = _op("GetItemList", S.get_item_list), _op("GetItem2Lists", S.get_item_2lists)
GetItem2d, GetItemScalar = _op("GetItem2d", S.get_item_2d), _op("GetItemScalar", S.get_item_scalar)
GetItemListGrad, GetItem2ListsGrad, StructuredDotGradCSC, StructuredDotGradCSR = (
    _op(name, None)
    for name in ("GetItemListGrad", "GetItem2ListsGrad", "StructuredDotGradCSC", "StructuredDotGradCSR")
)

# what Theano's optimiser puts in their place
(
    AddSD_ccode,
    CSMGradC,
    MulSDCSC,
    MulSDCSR,
    MulSVCSR,
    SamplingDotCSR,
    StructuredAddSVCSR,
    StructuredDotCSC,
    StructuredDotCSR,
    UsmmCscDense,
) = (
    _op(name, None)
    for name in (
        "AddSD_ccode CSMGradC MulSDCSC MulSDCSR MulSVCSR SamplingDotCSR StructuredAddSVCSR StructuredDotCSC "
        "StructuredDotCSR UsmmCscDense"
    ).split()
)
