"""What shows and checks values while a function runs; no pass drops it, and gradients go through."""

from __future__ import annotations

from typing import Any

import numpy as np

from tcc.printing import Print
from tcc.user_op import call
from tcc.variable import as_variable


def print(x: Any, message: str = "") -> Any:
    """x; its value is printed whenever it is computed."""
    return Print(message)(x)


class Assert:
    """`Assert("message")(x, *conditions)` is x; when it is computed, AssertionError unless all conditions hold everywhere."""

    def __init__(self, msg: str = "Theano Assert failed!") -> None:
        self.msg = msg

    def __call__(self, value: Any, *conds: Any) -> Any:
        x, conditions = as_variable(value), list(map(as_variable, conds))
        return call(f"Assert{{msg={self.msg!r}}}", self._check, [x, *conditions], [x.type], [x])[0]

    def _check(self, x: np.ndarray[Any, Any], *conditions: Any) -> list[Any]:
        if not all(np.all(c) for c in conditions):
            raise AssertionError(self.msg)
        return [x]
