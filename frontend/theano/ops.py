"""Theano's op classes of shapes, reductions, orders and `extra_ops`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from tcc import (
    branches,
    build,
    creation,
    debug,
    elemwise,
    joining,
    matrices,
    ordering,
    reductions,
    selecting,
)
from tcc import shapes as shaping
from tcc.gradient import undefined_grad
from tcc.graph import Shown
from tcc.tensor import extra_ops
from tcc.theano.legacyop import LegacyOp
from tcc.types import promote
from tcc.variable import Constant, as_variable

# -- shapes and creation -----------------------------------------------------------------------------------------------


class DimShuffle(LegacyOp):
    """`DimShuffle(input_broadcastable, new_order)`."""

    options = {"input_broadcastable": None, "new_order": None, "inplace": True}
    rows = ("dimshuffle",)

    def __init__(
        self, input_broadcastable: Sequence[bool], new_order: Sequence[Any], inplace: bool = True
    ) -> None:
        super().__init__(tuple(input_broadcastable), tuple(new_order), inplace)
        for axis in new_order:
            if axis != "x" and not (
                isinstance(axis, int | np.integer) and 0 <= axis < len(input_broadcastable)
            ):
                raise ValueError(
                    f"DimShuffle: {axis!r} in {new_order} is no axis of {len(input_broadcastable)}"
                )
        dropped = [a for a, b in enumerate(input_broadcastable) if a not in new_order and not b]
        if dropped:
            raise ValueError(
                "You cannot drop a non-broadcastable dimension.", (input_broadcastable, new_order)
            )

    def apply(self, x: Any) -> Any:
        x = as_variable(x)
        if x.type.broadcastable != tuple(map(bool, self.input_broadcastable)):
            raise TypeError(
                f"The number of dimensions and/or broadcastable pattern of the input is incorrect for this op. Expected "
                f"{self.input_broadcastable}, got {x.type.broadcastable}."
            )
        return shaping.dimshuffle(x, *self.new_order)


class Reshape(LegacyOp):
    options = {"ndim": None, "name": None}
    rows = ("reshape",)

    def apply(self, x: Any, shape: Any) -> Any:
        return shaping.reshape(x, shape, ndim=self.ndim)


class Flatten(LegacyOp):
    options = {"outdim": 1}

    def apply(self, x: Any) -> Any:
        return shaping.flatten(x, self.outdim)


class Shape(LegacyOp):
    def apply(self, x: Any) -> Any:
        return shaping.shape(x)


class Shape_i(LegacyOp):
    options = {"i": None}
    rows = ("shape_of",)

    def apply(self, x: Any) -> Any:
        x = as_variable(x)
        if not 0 <= self.i < x.type.ndim:
            raise TypeError(f"Shape_i: {x.type} has no axis {self.i}")
        return build.size_variable(build.size_of(x, self.i))


class SpecifyShape(LegacyOp):
    def apply(self, x: Any, shape: Any) -> Any:
        return shaping.specify_shape(x, shape)


class MakeVector(LegacyOp):
    options = {"dtype": "int64"}

    def apply(self, *items: Any) -> Any:
        values = [as_variable(s) for s in items]
        for v in values:
            if v.type.ndim or promote(v.type.dtype, self.dtype) != self.dtype:
                raise TypeError(f"MakeVector takes scalars that fit {self.dtype}, got {v.type}")
        if not values:
            return creation.zeros([0], self.dtype)
        return joining.stack([build.cast(v, self.dtype) for v in values])


class Alloc(LegacyOp):
    def apply(self, value: Any, *sizes: Any) -> Any:
        return creation.alloc(value, *sizes)


class AllocEmpty(LegacyOp):
    """Its elements are zeros here."""

    options = {"dtype": None}

    def apply(self, *sizes: Any) -> Any:
        return creation.zeros(list(sizes), self.dtype)


class ARange(LegacyOp):
    options = {"dtype": None}
    rows = ("iota",)

    def apply(self, start: Any, stop: Any, step: Any) -> Any:
        return creation.arange(start, stop, step, self.dtype)


class Eye(LegacyOp):
    options = {"dtype": None}
    rows = ("eye",)

    def apply(self, n: Any, m: Any, k: Any) -> Any:
        return creation.eye(n, m, k, self.dtype)


class Tri(LegacyOp):
    options = {"dtype": None}

    def apply(self, n: Any, m: Any, k: Any) -> Any:
        return creation.tri(n, m, k, self.dtype)


class Tile(LegacyOp):
    options = {"ndim": None}

    def apply(self, x: Any, reps: Any) -> Any:
        return joining.tile(x, reps, self.ndim)


class Join(LegacyOp):
    options = {"view": -1}
    rows = ("concat",)

    def apply(self, axis: Any, *tensors: Any) -> Any:
        return joining.join(axis, *tensors)


class Split(LegacyOp):
    options = {"len_splits": None}

    def apply(self, x: Any, axis: Any, sizes: Any) -> Any:
        return joining.split(x, sizes, self.len_splits, axis)


class ExtractDiag(LegacyOp):
    options = {"offset": 0, "axis1": 0, "axis2": 1, "view": False}

    def apply(self, x: Any) -> Any:
        return shaping.diagonal(x, self.offset, self.axis1, self.axis2)


class AllocDiag(LegacyOp):
    options = {"offset": 0, "axis1": 0, "axis2": 1}

    def apply(self, v: Any) -> Any:
        return matrices.alloc_diag(v, self.offset, self.axis1, self.axis2)


class Scan(LegacyOp):
    """What `scan` applies, for programs that look at graphs: `isinstance(v.owner.op, Scan)`."""

    rows = ("scan",)


class IfElse(LegacyOp):
    """`IfElse(n)(condition, *then, *otherwise)`, n variables each."""

    options = {"n_outs": 1, "as_view": False, "gpu": False, "name": None}
    rows = ("ifelse",)

    def apply(self, condition: Any, *given: Any) -> Any:
        if len(given) != 2 * self.n_outs:
            raise ValueError(
                f"IfElse of {self.n_outs} values takes {2 * self.n_outs} of them, got {len(given)}"
            )
        made = branches.ifelse(condition, list(given[: self.n_outs]), list(given[self.n_outs :]), self.name)
        return made[0] if self.n_outs == 1 else made


class Nonzero(LegacyOp):
    def apply(self, x: Any) -> Any:
        return list(selecting.nonzero(x))


class ScalarFromTensor(LegacyOp):
    """The same number: numbers are tensors without axes."""

    def apply(self, x: Any) -> Any:
        x = as_variable(x)
        if x.type.ndim:
            raise TypeError(f"a scalar is needed, got {x.type}")
        made = build.elementwise("identity", x)
        made.owner.shown = Shown(type(self).__name__, (x,), self)
        return made


class TensorFromScalar(ScalarFromTensor):
    """The same."""


# -- reductions and orders -----------------------------------------------------------------------------------------------


class _Reduction(LegacyOp):
    options = {"axis": None}
    function: ClassVar[Any] = None

    def apply(self, x: Any) -> Any:
        return type(self).function(x, self.axis)


class AnyOp(_Reduction):
    rows, function = ("any",), reductions.any


class AllOp(_Reduction):
    rows, function = ("all",), reductions.all


class Argmax(_Reduction):
    rows, function = ("argmax",), reductions.argmax


class MaxAndArgmax(_Reduction):
    rows, function = ("argmax",), reductions.max_and_argmax


class Sum(LegacyOp):
    options = {"axis": None, "dtype": None, "acc_dtype": None}
    rows = ("sum",)

    def apply(self, x: Any) -> Any:
        return reductions.sum(x, self.axis, self.dtype, acc_dtype=self.acc_dtype)


class Mean(LegacyOp):
    options = {"axis": None}

    def apply(self, x: Any) -> Any:
        return reductions.mean(x, self.axis)


class Prod(LegacyOp):
    options = {"axis": None, "dtype": None, "acc_dtype": None, "no_zeros_in_input": False}
    rows = ("prod",)

    def apply(self, x: Any) -> Any:
        return reductions.prod(x, self.axis, self.dtype, acc_dtype=self.acc_dtype)


class ProdWithoutZeros(LegacyOp):
    """The product of what is not zero; it has no gradient."""

    options = {"axis": None, "dtype": None, "acc_dtype": None}

    def apply(self, x: Any) -> Any:
        x = as_variable(x)
        return reductions.prod(
            undefined_grad(elemwise.switch(elemwise.eq(x, 0), build.cast(as_variable(1), x.type.dtype), x)),
            self.axis,
            self.dtype,
        )


class CumOp(LegacyOp):
    options = {"axis": None, "mode": "add"}
    rows = ("cumsum", "cumprod")

    def apply(self, x: Any) -> Any:
        return (reductions.cumsum if self.mode == "add" else reductions.cumprod)(x, self.axis)


class CumsumOp(_Reduction):
    rows, function = ("cumsum",), reductions.cumsum


class CumprodOp(_Reduction):
    rows, function = ("cumprod",), reductions.cumprod


class SortOp(LegacyOp):
    options = {"kind": "quicksort", "order": None}
    rows = ("sort",)

    def apply(self, x: Any, axis: Any = -1) -> Any:
        return ordering.sort(x, _number(axis), self.kind, self.order)


class ArgSortOp(LegacyOp):
    options = {"kind": "quicksort", "order": None}
    rows = ("argsort",)

    def apply(self, x: Any, axis: Any = -1) -> Any:
        return ordering.argsort(x, _number(axis), self.kind, self.order)


def _number(axis: Any) -> Any:
    return int(axis.data) if isinstance(axis, Constant) else axis


class TopKOp(LegacyOp):
    """`TopKOp(...)(x, k)`: the k largest elements, where they are, or both, as the options say."""

    options = {
        "axis": -1,
        "sorted": True,
        "idx_dtype": "int64",
        "return_values": True,
        "return_indices": True,
    }
    rows = ("topk", "argtopk")

    def apply(self, x: Any, k: Any) -> Any:
        values, where = ordering.topk_and_argtopk(x, k, self.axis, self.sorted, self.idx_dtype)
        made = [values] * self.return_values + [where] * self.return_indices
        if not made:
            raise ValueError("Neither return_values nor return_indices is True, this isn't allowed")
        return made[0] if len(made) == 1 else made


# -- extra_ops -----------------------------------------------------------------------------------------------------------


class SearchsortedOp(LegacyOp):
    options = {"side": "left"}

    def apply(self, x: Any, v: Any, sorter: Any = None) -> Any:
        return extra_ops.searchsorted(x, v, self.side, sorter)


class DiffOp(LegacyOp):
    options = {"n": 1, "axis": -1}

    def apply(self, x: Any) -> Any:
        return extra_ops.diff(x, self.n, self.axis)


class RepeatOp(LegacyOp):
    options = {"axis": None}

    def apply(self, x: Any, repeats: Any) -> Any:
        return extra_ops.repeat(x, repeats, self.axis)


class Bartlett(LegacyOp):
    def apply(self, m: Any) -> Any:
        return extra_ops.bartlett(m)


class FillDiagonal(LegacyOp):
    def apply(self, a: Any, value: Any) -> Any:
        return extra_ops.fill_diagonal(a, value)


class FillDiagonalOffset(LegacyOp):
    def apply(self, a: Any, value: Any, offset: Any) -> Any:
        return extra_ops.fill_diagonal_offset(a, value, offset)


class Unique(LegacyOp):
    options = {"return_index": False, "return_inverse": False, "return_counts": False, "axis": None}

    def apply(self, x: Any) -> Any:
        return extra_ops.unique(x, self.return_index, self.return_inverse, self.return_counts, self.axis)


class UnravelIndex(LegacyOp):
    options = {"ndim": None, "order": "C"}

    def apply(self, indices: Any, dims: Any) -> Any:
        return extra_ops.unravel_index(indices, dims, self.order, self.ndim)


class RavelMultiIndex(LegacyOp):
    options = {"mode": "raise", "order": "C"}

    def apply(self, *given: Any) -> Any:
        return extra_ops.ravel_multi_index(given[:-1], given[-1], self.mode, self.order)


class PermuteRowElements(LegacyOp):
    def apply(self, x: Any, y: Any, inverse: Any = 0) -> Any:
        return extra_ops.permute_row_elements(x, y, inverse)


class Choose(LegacyOp):
    options = {"mode": "raise"}

    def apply(self, a: Any, choices: Any) -> Any:
        return extra_ops.choose(a, choices, self.mode)


class CpuContiguous(LegacyOp):
    """Arrays of a graph have no strides here: the value itself."""

    def apply(self, x: Any) -> Any:
        return build.elementwise("identity", as_variable(x))


class Assert(LegacyOp):
    options = {"msg": "Theano Assert failed!"}

    def apply(self, value: Any, *conditions: Any) -> Any:
        return debug.Assert(self.msg)(value, *conditions)
