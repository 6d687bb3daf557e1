"""Theano's classes of indexing, elementwise and reducing ops: `Subtensor`, `AdvancedIncSubtensor1`, `Elemwise(scalar.add)`, `CAReduce`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from tcc import build, elemwise, indexing, reductions
from tcc.ir.optable import TABLE
from tcc.theano.legacyop import LegacyOp
from tcc.types import TensorType
from tcc.variable import Variable, as_variable


def _filled(entry: Any, given: Iterator[Any]) -> Any:
    """An entry of Theano's `idx_list`, whose types stand for the inputs that follow."""
    if isinstance(entry, slice):
        return slice(*(_filled(part, given) for part in (entry.start, entry.stop, entry.step)))
    return next(given) if isinstance(entry, TensorType) else entry


class Subtensor(LegacyOp):
    """`Subtensor(idx_list)(x, *indices)`: x[idx_list], each type in the list being replaced by the next of `indices`."""

    options = {"idx_list": ()}
    rows = ("slice",)

    def apply(self, x: Any, *inputs: Any) -> Any:
        given = iter(inputs)
        index = tuple(_filled(entry, given) for entry in self.idx_list)
        left = len(list(given))
        if left:
            raise ValueError(f"{self}: {len(inputs) - left} indices wanted, got {len(inputs)}")
        return as_variable(x)[index]


class IncSubtensor(Subtensor):
    """`IncSubtensor(idx_list)(x, y, *indices)`: x with y added to, or put in place of, a part."""

    options = {
        "idx_list": (),
        "inplace": False,
        "set_instead_of_inc": False,
        "destroyhandler_tolerate_aliased": None,
    }
    rows = ("insert",)

    def apply(self, x: Any, *inputs: Any) -> Any:
        y, *indices = inputs
        write = indexing.set_subtensor if self.set_instead_of_inc else indexing.inc_subtensor
        return write(super().apply(x, *indices), y)


class AdvancedSubtensor(LegacyOp):
    """`AdvancedSubtensor()(x, *indices)`: x[indices], arrays among them."""

    rows = ("gather",)

    def apply(self, x: Any, *indices: Any) -> Any:
        return as_variable(x)[indices]


class AdvancedSubtensor1(AdvancedSubtensor):
    """`AdvancedSubtensor1()(x, i)`: the rows i of x."""

    rows = ("gather",)


class AdvancedIncSubtensor(LegacyOp):
    """`AdvancedIncSubtensor()(x, y, *indices)`: x with y added to, or put in place of, x[indices]."""

    options = {"inplace": False, "set_instead_of_inc": False}
    rows = ("scatter",)

    def apply(self, x: Any, y: Any, *indices: Any) -> Any:
        write = indexing.set_subtensor if self.set_instead_of_inc else indexing.inc_subtensor
        return write(as_variable(x)[indices], y)


class AdvancedIncSubtensor1(AdvancedIncSubtensor):
    """`AdvancedIncSubtensor1()(x, y, i)`: the same for the rows i of x."""

    rows = ("scatter",)


class AdvancedBooleanSubtensor(AdvancedSubtensor):
    """`AdvancedBooleanSubtensor()(x, *indices)`: x[indices], masks among them."""


class AdvancedBooleanIncSubtensor(AdvancedIncSubtensor):
    """`AdvancedBooleanIncSubtensor()(x, y, *indices)`: as AdvancedIncSubtensor, masks among the indices."""


advanced_subtensor, advanced_subtensor1 = AdvancedSubtensor(), AdvancedSubtensor1()
advanced_inc_subtensor, advanced_inc_subtensor1 = AdvancedIncSubtensor(), AdvancedIncSubtensor1()
advanced_set_subtensor = AdvancedIncSubtensor(set_instead_of_inc=True)
advanced_set_subtensor1 = AdvancedIncSubtensor1(set_instead_of_inc=True)
advanced_boolean_subtensor, advanced_boolean_inc_subtensor = (
    AdvancedBooleanSubtensor(),
    AdvancedBooleanIncSubtensor(),
)
advanced_boolean_set_subtensor = AdvancedBooleanIncSubtensor(set_instead_of_inc=True)


class Elemwise(LegacyOp):
    """`Elemwise(scalar_op)(*inputs)`: a function of scalars, which broadcasts; the functions of `theano.scalar` do so by themselves."""

    options = {"scalar_op": None, "inplace_pattern": None, "name": None, "nfunc_spec": None, "openmp": None}
    rows = tuple(name for name, row in TABLE.items() if row.scalar)

    def apply(self, *inputs: Any) -> Any:
        if not callable(self.scalar_op):
            raise TypeError(
                f"Elemwise: scalar_op is {self.scalar_op!r}; a function of theano.scalar or a Python function of variables is wanted"
            )
        return self.scalar_op(*inputs)


_REDUCTIONS: dict[Callable[..., Any], Callable[..., Variable]] = {
    elemwise.add: reductions.sum,
    elemwise.mul: reductions.prod,
    elemwise.maximum: reductions.max,
    elemwise.minimum: reductions.min,
    elemwise.and_: reductions.all,
    elemwise.or_: reductions.any,
}


class CAReduce(LegacyOp):
    """`CAReduce(scalar_op, axis)(x)`: add, mul, maximum, minimum, and_ or or_ of the elements along the axes, in x's dtype."""

    options = {"scalar_op": None, "axis": None}
    rows: ClassVar[tuple[str, ...]] = ("sum", "prod", "max", "min", "all", "any")

    def apply(self, x: Any) -> Any:
        if self.scalar_op not in _REDUCTIONS:
            known = ", ".join(f.__name__ for f in _REDUCTIONS)
            raise NotImplementedError(f"CAReduce: scalar_op is {self.scalar_op!r}; {known} are known")
        x = as_variable(x)
        return build.cast(_REDUCTIONS[self.scalar_op](x, self.axis), x.type.dtype)


class CAReduceDtype(CAReduce):
    """`CAReduce` with the types of the result and of the sum; the first is kept."""

    options = {"scalar_op": None, "axis": None, "dtype": None, "acc_dtype": None}
    rows = ("sum", "prod")

    def apply(self, x: Any) -> Any:
        if self.scalar_op not in (elemwise.add, elemwise.mul):
            return super().apply(x)
        return _REDUCTIONS[self.scalar_op](x, self.axis, self.dtype, acc_dtype=self.acc_dtype)
