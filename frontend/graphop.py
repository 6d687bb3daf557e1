"""`OpFromGraph`: a piece of a graph as an op, whose gradient may be replaced.  Its graph is put in where it is applied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tcc import build
from tcc.adjoints import DisconnectedType, given_gradient, zeros
from tcc.compiling import MissingInputError
from tcc.gradient import grad
from tcc.graph import Apply, Shown, ancestors, inputs, rebuild
from tcc.variable import Constant, SharedVariable, Variable, as_variable


class OpFromGraph:
    """`OpFromGraph([x, y], [z])(a, b)` is z with a and b for x and y.

    The gradient is that of the graph unless it is given: `lop_overrides(inputs, outputs, output_grads)`, or
    `grad_overrides(inputs, output_grads)`, or a function set as the attribute `grad` of the op.  Instead of one function
    for all inputs there may be a list with "default", None or a DisconnectedType (not connected), a NullType (not defined), a
    variable or a function for each.  `rop_overrides(inputs, eval_points)` does the same for Rop.  An OpFromGraph may stand for
    a function: it takes the lists' variables one after the other.
    """

    def __init__(
        self,
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        inline: bool = True,
        lop_overrides: Any = "default",
        grad_overrides: Any = "default",
        rop_overrides: Any = "default",
        connection_pattern: Sequence[Sequence[bool]] | None = None,
        name: str | None = None,
        **_: Any,
    ) -> None:
        if not isinstance(outputs, list | tuple):
            raise TypeError(f"outputs must be list, got {type(outputs)}")
        for v in [*inputs, *outputs]:
            if not isinstance(v, Variable):
                raise TypeError("inputs and outputs must be Variable instances", v)
        if lop_overrides != "default" and grad_overrides != "default":
            raise ValueError("lop_overrides and grad_overrides are mutually exclusive")
        self.inputs, self.outputs, self.name = list(inputs), list(outputs), name
        self.lop_overrides, self.rop_overrides, self._connected = (
            lop_overrides,
            rop_overrides,
            connection_pattern,
        )
        self.grad: Any = None if grad_overrides == "default" else grad_overrides
        _refuse_missing(self)

    def __call__(self, *args: Any) -> Any:
        if len(args) != len(self.inputs):
            raise ValueError(f"Expected {len(self.inputs)} inputs, got {len(args)}")
        values = [v.type.filter_variable(as_variable(a)) for v, a in zip(self.inputs, args)]
        made = rebuild(self.outputs, dict(zip(self.inputs, values)))
        if self.grad is not None or self.lop_overrides != "default" or self.rop_overrides != "default":
            made = self._with_gradient(made, values)
        return made[0] if len(made) == 1 else made

    def _with_gradient(self, made: list[Any], values: list[Any]) -> list[Any]:
        count = len(made)

        def rule(b: Any, node: Any, grads: Sequence[Any]) -> list[Any]:
            return [None] * count + self._pulled(values, made, list(grads))

        def push(b: Any, node: Any, tangents: Sequence[Any]) -> list[Any]:
            return self._pushed(values, list(tangents[:count]), list(tangents[count:]))

        defn = replace(build.WITH_GRAD, grad=rule, rop=push)
        attrs = {"count": count}
        shown = Shown(str(self), tuple(values))
        return list(Apply(defn, [*made, *values], attrs, [m.type for m in made], shown=shown).results)

    def _pushed(self, values: list[Any], derived: list[Any], moved: list[Any]) -> list[Any]:
        """The derivatives of the results along `moved`: `derived`, the graph's own, where they are not overridden."""
        if self.rop_overrides == "default":
            return derived
        points = [zeros(v) if t is None else t for v, t in zip(values, moved)]
        given = self.rop_overrides
        if callable(given):
            return _listed(_called(given, values, points))
        return [t if isinstance(one, str) else _called(one, values, points) for one, t in zip(given, derived)]

    def connection_pattern(self, node: Any = None) -> list[list[bool]]:
        """For each input, and then each shared variable inside, whether each result hangs on it."""
        if self._connected is not None:
            return [list(row) for row in self._connected]
        shared = [v for v in inputs(self.outputs) if isinstance(v, SharedVariable)]
        reached = [set(ancestors([o])) for o in self.outputs]
        return [[v in behind for behind in reached] for v in [*self.inputs, *shared]]

    def _pulled(self, values: list[Any], made: list[Any], grads: list[Any]) -> list[Any]:
        given, args = self.lop_overrides, (values, made, grads)
        if self.grad is not None:
            given, args = self.grad, (values, grads)  # type: ignore[assignment]
        if callable(given):
            pulled = _listed(_called(given, *args))
        else:
            if len(given) != len(values):
                raise ValueError(f"{self}: {len(given)} overrides for {len(values)} inputs")
            pulled = [self._one(k, g, values, made, grads, args) for k, g in enumerate(given)]
        if len(pulled) != len(values):
            raise ValueError(f"{self}: {len(pulled)} gradients for {len(values)} inputs")
        return [given_gradient(g) for g in pulled]

    def _one(self, k: int, given: Any, values: Any, made: Any, grads: Any, args: tuple[Any, ...]) -> Any:
        if isinstance(given, str) and given == "default":
            known = dict(zip(made, grads))
            return grad(None, values[k], known_grads=known, disconnected_inputs="ignore")
        plain = isinstance(given, Variable | DisconnectedType) or not callable(given)
        return given if plain else _called(given, *args)

    def __str__(self) -> str:
        return self.name or f"OpFromGraph{{{len(self.inputs)} inputs}}"


def _called(given: Any, *lists: Sequence[Any]) -> Any:
    """An override applied: a function to the lists, an op to their variables."""
    return given(*(v for one in lists for v in one)) if isinstance(given, OpFromGraph) else given(*lists)


def _listed(made: Any) -> list[Any]:
    return list(made) if isinstance(made, list | tuple) else [made]


def _refuse_missing(op: OpFromGraph) -> None:
    for v in inputs(op.outputs):
        if v not in op.inputs and not isinstance(v, Constant | SharedVariable):
            raise MissingInputError(f"OpFromGraph is missing an input: {v}")
