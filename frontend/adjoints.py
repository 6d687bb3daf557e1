"""What stands for a derivative: a variable, ZERO, None where nothing flows, or Undefined."""

from __future__ import annotations

from typing import Any

from tcc import build
from tcc.creation import zeros_like
from tcc.elemwise import DISCRETE
from tcc.ir.optable import Undefined
from tcc.settings import config
from tcc.shapes import patternbroadcast
from tcc.types import TensorType, Type
from tcc.variable import Variable, as_variable


class DisconnectedInputError(ValueError):
    """The cost does not depend on a variable that its gradient is asked for."""


class NullTypeGradError(TypeError):
    """A gradient that is needed is not defined."""


class DisconnectedType:
    """The type of a gradient by something on which the cost does not depend.  An op's `grad` returns `DisconnectedType()()`."""

    def __call__(self) -> DisconnectedType:
        return self

    @property
    def type(self) -> DisconnectedType:
        """Itself: what stands for the gradient is its type too."""
        return self

    def __repr__(self) -> str:
        return "DisconnectedType"


class NullType(Type):
    """The type of a gradient that is not defined; `why_null` says why."""

    def __init__(self, why_null: str = "(no reason given)") -> None:
        self.why_null = why_null

    def __repr__(self) -> str:
        return f"NullType: {self.why_null}"


class _Zero:
    """A gradient that is zero everywhere: the result depends on the variable in steps only."""


ZERO = _Zero()


def vanishes(g: Any) -> bool:
    """Whether it is zero everywhere, or there is none."""
    return g is None or g is ZERO


def given_gradient(g: Any) -> Any:
    """What an op's `grad` or the user says: a variable, Undefined, or None for a gradient that does not exist."""
    if g is None or isinstance(g, DisconnectedType):
        return None
    if isinstance(g, Undefined):
        return g
    if isinstance(g, Variable) and isinstance(g.type, NullType):
        return Undefined(g.type.why_null)
    return g if isinstance(g, Variable) else as_variable(g)


def discrete(v: Any) -> bool:
    """Whether it has values that change in steps alone."""
    return isinstance(v.type, TensorType) and v.type.dtype in DISCRETE


def zeros(v: Any) -> Any:
    """Zeros of the type that a gradient by `v` has."""
    if not isinstance(v.type, TensorType):
        return v.zeros_like()
    return zeros_like(v, str(config.floatX) if discrete(v) else v.type.dtype)


def fitted(g: Any, v: Any) -> Any:
    """A gradient with the dtype and flags of what it is by; by integers it stays of floats."""
    if not isinstance(v.type, TensorType):
        return g
    if not discrete(v):
        g = build.cast(g, v.type.dtype)
    if g.type.broadcastable != v.type.broadcastable:
        g = patternbroadcast(g, v.type.broadcastable)
    return g


def instantiated(g: Any, v: Any) -> Any:
    """A gradient by `v` as a variable of its type, be it of zeros."""
    return zeros(v) if vanishes(g) else fitted(g, v)


def accumulate(grads: dict[Any, Any], v: Any, g: Any) -> None:
    before = grads.get(v)
    if before is None or before is ZERO:
        grads[v] = g
    elif isinstance(g, Undefined):
        grads[v] = g
    elif g is not ZERO and not isinstance(before, Undefined):
        grads[v] = before + g
