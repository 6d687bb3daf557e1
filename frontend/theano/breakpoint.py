"""Theano's conditional breakpoint: `tests.breakpoint.PdbBreakpoint`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tcc.gradient import DisconnectedType
from tcc.user_op import Apply, Op
from tcc.variable import as_variable


class PdbBreakpoint(Op):
    """`a, b = PdbBreakpoint("name")(condition, a, b)`: the variables, and Python's debugger in front of them in a call where the
    condition holds; `inputs` there has their values, which may be changed in place.

    One variable is returned as it is, several as a list; gradients pass through.  TypeError unless the condition is a scalar.
    """

    __props__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def make_node(self, condition: Any, *monitored_vars: Any) -> Apply:
        flag, values = as_variable(condition), [as_variable(v) for v in monitored_vars]
        if flag.type.ndim:
            raise TypeError(f"{self}: the condition must be a scalar, got {flag.type}")
        return Apply(self, [flag, *values], [v.type() for v in values])

    def perform(self, node: Any, inputs: Sequence[Any], output_storage: Sequence[list[Any]]) -> None:
        condition, *given = inputs
        held = [np.array(x) for x in given]
        if condition:
            self.debug(held)
        for storage, value in zip(output_storage, held):
            storage[0] = value

    def debug(self, inputs: list[Any]) -> None:
        """The debugger, in a frame that has the values."""
        import pdb

        print(f"The condition of the breakpoint {self.name!r} holds: `inputs` has {len(inputs)} values.")
        pdb.set_trace()

    def grad(self, inputs: Sequence[Any], output_grads: Sequence[Any]) -> list[Any]:
        return [DisconnectedType()(), *output_grads]

    def infer_shape(self, node: Any, shapes: Sequence[Any]) -> list[Any]:
        return list(shapes[1:])

    def connection_pattern(self, node: Any) -> list[list[bool]]:
        """Each result hangs on its own input, none on the condition."""
        count = len(node.outputs)
        return [[False] * count, *([n == k for n in range(count)] for k in range(count))]
