"""What Theano's op classes share: `Softmax()(x)`, `CumOp(axis=1)(x)`.  Each is the function of tcc that does its work, behind
Theano's constructor.

`rows` are the rows of the op table that nodes of the op have, so that `isinstance(v.owner.op, Softmax)` says what it says in Theano.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from tcc.build import shape_of
from tcc.gradient import Lop, grad
from tcc.graph import ShownOp, clone
from tcc.tangents import Rop
from tcc.variable import Constant, as_variable


class OpClass(type):
    """Counts rows of the op table, and what stands for several, among the instances."""

    known: ClassVar[dict[str, type]] = {}

    def __init__(cls, name: str, *args: Any) -> None:
        super().__init__(name, *args)
        OpClass.known[name] = cls

    def __instancecheck__(cls, instance: Any) -> bool:
        if isinstance(instance, ShownOp):
            kind, row = OpClass.known.get(instance.kind), instance.defn.name
            if kind is not None and (issubclass(kind, cls) or row not in kind.__dict__.get("rows", ())):
                return issubclass(kind, cls)
            return row in cls.__dict__.get("rows", ())
        return super().__instancecheck__(instance)


class Node(NamedTuple):
    """What `make_node` returns."""

    op: Any
    inputs: list[Any]
    outputs: list[Any]


class LegacyOp(metaclass=OpClass):
    """An op by its options: `apply(*inputs)` makes the result, or several.  Equal options make equal ops."""

    options: ClassVar[dict[str, Any]] = {}
    rows: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        unknown = set(kwargs) - set(self.options)
        if len(args) > len(self.options) or unknown:
            raise TypeError(
                f"{type(self).__name__} takes {', '.join(self.options) or 'no options'}, got {args} {kwargs}"
            )
        for name, value in {**self.options, **dict(zip(self.options, args)), **kwargs}.items():
            setattr(self, name, tuple(value) if isinstance(value, list) else value)

    if TYPE_CHECKING:  # options are attributes

        def __getattr__(self, name: str) -> Any: ...

    @property
    def __props__(self) -> tuple[str, ...]:
        return tuple(self.options)

    def _key(self) -> tuple[Any, ...]:
        return (type(self), *(getattr(self, name) for name in self.options))

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __str__(self) -> str:
        given = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.options)
        return type(self).__name__ + (f"{{{given}}}" if given else "")

    __repr__ = __str__

    def apply(self, *inputs: Any) -> Any:
        raise NotImplementedError(f"{self} cannot be applied: use the function that makes it")

    def __call__(self, *inputs: Any, **kwargs: Any) -> Any:
        name, as_list = kwargs.pop("name", None), kwargs.pop("return_list", False)
        made = self.apply(*inputs, **kwargs)
        if name is not None:
            made.name = name
        return [made] if as_list and not isinstance(made, list | tuple) else made

    def make_node(self, *inputs: Any) -> Node:
        made = self(*inputs)
        return Node(
            self, [as_variable(v) for v in inputs], list(made) if isinstance(made, list | tuple) else [made]
        )

    def grad(self, inputs: Sequence[Any], output_grads: Sequence[Any]) -> list[Any]:
        """Gradients by the inputs, as if these were independent of each other; of a NullType where there is none."""
        values = [as_variable(v) for v in inputs]
        fresh = [v if isinstance(v, Constant) else v.type() for v in values]
        known = dict(zip(self.make_node(*fresh).outputs, output_grads, strict=True))
        made = grad(None, fresh, known_grads=known, disconnected_inputs="ignore", null_gradients="return")
        return list(clone(made, [pair for pair in zip(fresh, values) if pair[0] is not pair[1]]))

    def L_op(self, inputs: Sequence[Any], outputs: Sequence[Any], output_grads: Sequence[Any]) -> list[Any]:
        return list(Lop(list(outputs), list(inputs), list(output_grads), disconnected_inputs="ignore"))

    def R_op(self, inputs: Sequence[Any], eval_points: Sequence[Any]) -> list[Any]:
        """Derivatives of the outputs along `eval_points`."""
        return list(Rop(self.make_node(*inputs).outputs, list(inputs), list(eval_points)))

    def infer_shape(self, node: Any, shapes: Any) -> list[Any]:
        """The sizes of the results."""
        return [tuple(shape_of(v)) for v in node.outputs]

    def perform(self, node: Any, inputs: Sequence[Any], output_storage: Sequence[list[Any]]) -> None:
        """Computes into `output_storage`."""
        made = self(*inputs)
        for cell, v in zip(output_storage, made if isinstance(made, list | tuple) else [made]):
            cell[0] = np.asarray(v.eval())
