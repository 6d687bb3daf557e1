"""Functions of numbers that programs write as classes: `class Step(UnaryScalarOp)` with `impl`, for `Elemwise(Step(same_out))`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tcc import build
from tcc.elemwise import TO_FLOAT
from tcc.types import TensorType, promote
from tcc.user_op import Apply, Op
from tcc.variable import as_variable


def _number(dtype: str) -> TensorType:
    return TensorType(dtype, ())


def _floating(dtype: str) -> str:
    return TO_FLOAT.get(dtype, dtype)


def _upcast(*types: Any) -> str:
    dtypes: list[str] = [t.dtype for t in types]
    return functools.reduce(promote, dtypes)


# What the result's type is: a function of the operands' types gives one for each result.


def same_out(*types: Any) -> list[TensorType]:
    """The first operand's."""
    return [_number(types[0].dtype)]


def upcast_out(*types: Any) -> list[TensorType]:
    """The one that all operands fit into."""
    return [_number(_upcast(*types))]


def upgrade_to_float(*types: Any) -> list[TensorType]:
    """The one that all operands fit into as floats."""
    return [_number(_upcast(*(_number(_floating(t.dtype)) for t in types)))]


def same_out_float_only(*types: Any) -> list[TensorType]:
    """The first operand's; TypeError if it is no float."""
    if types[0].dtype not in ("float16", "float32", "float64"):
        raise TypeError(f"only floats are taken, got {types[0].dtype}")
    return same_out(*types)


def _real(of: Callable[..., list[TensorType]]) -> Callable[..., list[TensorType]]:
    def no_complex(*types: Any) -> list[TensorType]:
        if any(t.dtype.startswith("complex") for t in types):
            raise TypeError(f"complex numbers are not taken, got {', '.join(t.dtype for t in types)}")
        return of(*types)

    return no_complex


same_out_nocomplex, upgrade_to_float_no_complex = _real(same_out), _real(upgrade_to_float)


def specific_out(*wanted: Any) -> Callable[..., list[TensorType]]:
    """These, whatever the operands are."""
    return lambda *types: [_number(t.dtype) for t in wanted]


def transfer_type(*positions: Any) -> Callable[..., list[TensorType]]:
    """For each result, that of the operand of this number, or a type."""
    return lambda *types: [_number((types[p] if isinstance(p, int) else p).dtype) for p in positions]


class ScalarOp(Op):
    """A function of numbers, which runs in Python: `impl(*numbers)`, and `grad(inputs, output_grads)` if it has a gradient.

    It is applied to each element of arrays that broadcast.  `output_types_preference(*types)` tells the results' types.
    `c_code` is not run: NotImplementedError for an op without `impl`.
    """

    nin, nout = -1, 1

    def __init__(self, output_types_preference: Any = None, name: str | None = None) -> None:
        self.name = name
        if output_types_preference is not None:
            if not callable(output_types_preference):
                raise TypeError(f"{self}: output_types_preference must be a function of types")
            self.output_types_preference = output_types_preference

    def __str__(self) -> str:
        return getattr(self, "name", None) or super().__str__()

    def _props(self) -> tuple[Any, ...]:
        kind = getattr(self, "output_types_preference", None)
        return (*super()._props(), getattr(kind, "__func__", kind), getattr(self, "name", None))

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and isinstance(other, ScalarOp) and self._props() == other._props()

    def __hash__(self) -> int:
        return hash((type(self), self._props()))

    def output_types(self, types: Sequence[Any]) -> list[TensorType]:
        """One for each result."""
        if not hasattr(self, "output_types_preference"):
            raise NotImplementedError(f"the op {self} must be made with output_types_preference")
        return list(self.output_types_preference(*types))

    def make_node(self, *inputs: Any) -> Apply:
        values = [as_variable(v) for v in inputs]
        if self.nin >= 0 and len(values) != self.nin:
            raise TypeError(f"Wrong number of inputs for {self} (got {len(values)}, expected {self.nin})")
        values = build.broadcast_together(str(self), values)
        shape = values[0].type.shape
        types = self.output_types([_number(v.type.dtype) for v in values])
        return Apply(self, values, [TensorType(t.dtype, shape=shape)() for t in types])

    def infer_shape(self, node: Any, shapes: Sequence[Any]) -> list[Any]:
        return [shapes[0] for _ in node.outputs]

    def impl(self, *numbers: Any) -> Any:
        has = "c_code alone, which tcc does not run" if hasattr(self, "c_code") else "no impl"
        raise NotImplementedError(f"the op {self} has {has}: define impl, a function of numbers")

    def perform(self, node: Any, inputs: Sequence[Any], output_storage: Sequence[list[Any]]) -> None:
        made = np.frompyfunc(self.impl, len(inputs), len(node.outputs))(*inputs)
        for cell, result, output in zip(
            output_storage, made if isinstance(made, tuple) else (made,), node.outputs
        ):
            cell[0] = np.asarray(result, output.type.dtype)


class UnaryScalarOp(ScalarOp):
    """Of one number."""

    nin = 1


class BinaryScalarOp(ScalarOp):
    """Of two numbers."""

    nin = 2
