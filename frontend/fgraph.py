"""The graph of a function, to look at: `f.maker.fgraph`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from tcc.graph import Apply, inputs, toposort
from tcc.variable import SharedVariable, Variable

if TYPE_CHECKING:
    from tcc.functions import Recipe


def shown_toposort(given: Iterable[Variable], outputs: Iterable[Variable]) -> list[Apply]:
    """The nodes between variables and `outputs` as the program was written, those that make a node's `inputs` before it."""
    stop = set(given)
    return toposort(outputs, stop=lambda v: v in stop, inputs=lambda node: node.inputs)


class FunctionGraph:
    """From inputs to outputs, as the program was written: tcc optimises its IR (`tcc dump`, `tcc explain`), not this graph.

    Updates are outputs behind the function's own, and shared variables are inputs behind its own.  Nothing changes a graph, so
    that `clone` need not copy one.
    """

    def __init__(
        self,
        inputs: Sequence[Variable],
        outputs: Sequence[Variable],
        features: Iterable[Any] = (),
        clone: bool = True,
    ) -> None:
        self.inputs, self.outputs = list(inputs), list(outputs)
        for feature in features or ():
            self.attach_feature(feature)

    def attach_feature(self, feature: Any) -> None:
        """Tells a feature, such as one that knows shapes, of its graph: `feature.on_attach(self)`, if it wants to know."""
        on_attach = getattr(feature, "on_attach", None)
        if on_attach is not None:
            on_attach(self)

    def toposort(self) -> list[Apply]:
        """Its nodes, those that make a node's `inputs` before it."""
        return shown_toposort(self.inputs, self.outputs)

    @property
    def apply_nodes(self) -> set[Apply]:
        return set(self.toposort())

    @property
    def variables(self) -> set[Variable]:
        return {*self.inputs, *self.outputs, *(v for n in self.toposort() for v in (*n.inputs, *n.results))}

    def clients(self, v: Variable) -> list[tuple[Any, int]]:
        """(node, number of the input) for each use of a variable; ("output", number) where it is a result.

        What a node reads and does not show, the result of a cast of its input, counts by its place among the node's `sources`.
        """

        def uses(node: Apply) -> list[int]:
            shown = [k for k, u in enumerate(node.inputs) if u is v]
            return shown or [k for k, u in enumerate(node.sources) if u is v]

        used = [(n, k) for n in self.toposort() for k in uses(n)]
        return [*used, *(("output", k) for k, o in enumerate(self.outputs) if o is v)]


class Maker:
    """What a function was made of."""

    def __init__(self, recipe: Recipe) -> None:
        self.inputs, self.mode, self.name = list(recipe.inputs), recipe.mode, recipe.name
        outputs = [*recipe.outputs, *(e for _, e in recipe.updates)]
        given = [i.variable for i in recipe.inputs]
        found = [v for v in inputs(outputs) if isinstance(v, SharedVariable)]
        shared = [*found, *(s for s, _ in recipe.updates if s not in found)]
        self.outputs = list(recipe.outputs)
        self.fgraph = FunctionGraph([*given, *shared], outputs)
