"""Functions that are no methods of the classes they are attributes of."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class OpFunction(Generic[P, R]):
    """A function that stays one as a class's attribute: with `activation = T.tanh`, `self.activation(x)` is tanh(x).

    Theano has objects in the place of these functions, which bind no `self`.  Pickles carry the name.
    """

    __name__: str
    __qualname__: str

    def __init__(self, function: Callable[P, R]) -> None:
        self._function = function
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._function(*args, **kwargs)

    def __hash__(self) -> int:
        return hash(self.__name__)  # that of what it applies, which equals it (`graph.ShownOp`)

    def __repr__(self) -> str:
        return f"<function {self.__module__}.{self.__qualname__}>"

    def __reduce__(self) -> str:
        return self.__qualname__
