"""`theano.tensor.inplace`: elementwise functions that overwrite their first operand.

Inside a function that makes no difference, as tcc decides by itself where it computes; an input that may be overwritten
(`In(mutable=True)`, `accept_inplace=True`) has the result in the caller's array after the call.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tcc import build, tensor
from tcc.graph import Shown
from tcc.printing import label
from tcc.theano.indexops import Elemwise
from tcc.variable import as_variable


class InPlace(Elemwise):
    """A function of tcc whose result lies in its first operand's memory, and so is cast to its dtype; TypeError if it is
    larger."""

    destroy_map = {0: [0]}

    def apply(self, *inputs: Any) -> Any:
        first = as_variable(inputs[0])
        made = build.cast(super().apply(first, *inputs[1:]), first.type.dtype)
        if made.type != first.type:
            raise TypeError(f"{self}: the result, a {made.type}, does not fit in {first}, a {first.type}")
        node = made.owner
        if node.shown is None or not node.shown.inputs or node.shown.inputs[0] is not first:
            node.shown = Shown(
                label(node).replace("no_inplace", "inplace"), (first, *map(as_variable, inputs[1:]))
            )
        node.shown = replace(node.shown, op=self)
        return made

    def __str__(self) -> str:
        return str(self.name)


def __getattr__(name: str) -> InPlace:
    base = name.removesuffix("_inplace")
    if base == name or not hasattr(tensor, base):
        raise AttributeError(name)
    return InPlace(getattr(tensor, base), None, name)
