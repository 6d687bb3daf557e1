"""Theano's base classes where programs call or subclass them: they stand for tcc's own, whose instances are theirs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from tcc import sharedvar, types, variable
from tcc.functions import In
from tcc.gradient import passing
from tcc.runtime.buffers import ObjectContainer
from tcc.shapes import patternbroadcast
from tcc.user_op import Op


class Standing(type):
    """A class that counts the instances and subclasses of the one it `stands` for as its own."""

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, cls.__dict__.get("stands", ())) or super().__instancecheck__(instance)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, cls.__dict__.get("stands", ())) or super().__subclasscheck__(subclass)


class Type(types.Handled, metaclass=Standing):
    """What a variable may hold.  Values of a program's own types are Python objects, which its ops alone read."""

    stands = types.Type


class SharedVariable(metaclass=Standing):
    """`SharedVariable(name, type, value, strict)`: a shared variable of this type; TypeError if the value is not of it."""

    stands: Any = variable.SharedVariable

    def __new__(
        cls,
        name: str | None = None,
        type: Any = None,
        value: Any = None,
        strict: bool = False,
        allow_downcast: bool | None = None,
        container: Any = None,
    ) -> Any:
        if isinstance(type, types.TensorType):
            if container is not None:
                return sharedvar.TensorSharedVariable(type, container, name)
            array = type.filter(value, strict, allow_downcast)
            made = sharedvar.shared(
                array, name, strict, allow_downcast, borrow=array is value, shape=type.shape
            )
            if made.type != type:
                raise TypeError(f"{type} cannot be the type of a shared variable")
            return made
        made = sharedvar.GenericSharedVariable(container or ObjectContainer(type.filter(value)), name)
        made.type = type
        return made


class TensorSharedVariable(SharedVariable):
    """As `SharedVariable`, of arrays."""

    stands = sharedvar.TensorSharedVariable


class Param(In):
    """`In` as it was once called, with `default` for `value`."""

    def __init__(
        self,
        variable: Any,
        default: Any = None,
        name: str | None = None,
        mutable: bool = False,
        strict: bool = False,
        allow_downcast: bool | None = None,
        implicit: bool | None = None,
        borrow: bool | None = None,
    ) -> None:
        super().__init__(
            variable, name, default, None, mutable, strict, borrow, allow_downcast, True, implicit
        )


def _of_one(rule: Callable[..., Sequence[Any]], x: Any, derivative: Any) -> Any:
    return rule([x], [derivative])[0]


class ViewOp(Op):
    """`ViewOp()(x)` is x; a subclass gives it another gradient, `grad(inputs, output_grads)`.  No Python runs for it."""

    view_map: ClassVar[dict[int, list[int]]] = {0: [0]}
    __props__ = ()

    def native_node(self, x: Any, result: Any) -> Any:
        """What `Apply(op, [x], [y])` is for y of the type `result`, which may say more or less of sizes than x does."""
        return self.make_node(patternbroadcast(x, result.broadcastable))

    def make_node(self, x: Any) -> Any:
        x = variable.as_variable(x)
        grad, along = (functools.partial(_of_one, rule, x) for rule in (self.grad, self.R_op))
        return passing(str(self), x, grad, along, self).owner

    def grad(self, inputs: Sequence[Any], output_grads: Sequence[Any]) -> list[Any]:
        return list(output_grads)

    def R_op(self, inputs: Sequence[Any], eval_points: Sequence[Any]) -> list[Any]:
        return list(eval_points)


view_op = ViewOp()
