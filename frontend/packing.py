"""Functions of values that are no arrays: sparse matrices, lists and other objects, and of inputs that keep their values.

Before such a function is lowered, variables of packed types (tcc.types.Packed) are replaced by the arrays they travel as;
the function that is made of the rest stands behind one that packs and unpacks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from tcc import handles
from tcc.build import front
from tcc.functions import In, InputContainer, Made, Recipe, left_behind, parameter
from tcc.graph import Apply, Body, copied, dependent, toposort, with_variables
from tcc.locations import located_at
from tcc.runtime.callable import ordered
from tcc.types import Handled, Packed
from tcc.user_op import call
from tcc.variable import Constant, SharedVariable, Variable, make_constant

PACKED = front(
    "packed", "*xs", "an operation `op` on packed values, of which `op.expand` makes operations on arrays"
)


class PackedOp:
    """What a `packed` node does: `types(*operands)` of the results, `expand(*operands)` in terms of other operations (the
    operands are variables of the same types), and `grad(operands, results, grads)`, of which absent ones are None.

    One that `assembles` has one result, whose arrays its operands are."""

    assembles = False

    def types(self, *operands: Any) -> list[Any]:
        raise NotImplementedError

    def expand(self, *operands: Any) -> Sequence[Any]:
        raise NotImplementedError

    def grad(self, operands: Sequence[Any], results: Sequence[Any], grads: Sequence[Any]) -> Sequence[Any]:
        raise NotImplementedError

    def __call__(self, *operands: Any) -> Any:
        results = Apply(PACKED, operands, {"op": self}, self.types(*operands)).results
        return results[0] if len(results) == 1 else list(results)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash((type(self), *self.__dict__.values()))

    def __str__(self) -> str:
        return type(self).__name__


def is_packed(v: Any) -> bool:
    return isinstance(v.type, Packed)


def needed(nodes: Iterable[Apply]) -> bool:
    """Whether there are packed values in a graph."""
    for node in nodes:
        if node.defn is PACKED or any(map(is_packed, node.sources)) or any(map(is_packed, node.results)):
            return True
        if node.body is not None:
            inner = dependent(node.body)
            if needed(toposort(node.body.results, stop=lambda v, inner=inner: v not in inner)):  # type: ignore[misc]
                return True
    return False


class Unpacking:
    """A graph rewritten without packed values: `parts` has the arrays of each, `new` what replaces other variables."""

    def __init__(self) -> None:
        self.parts: dict[Variable, tuple[Any, ...]] = {}
        self.new: dict[Variable, Variable] = {}
        self.done: set[Variable] = set()

    def outputs(self, variables: Sequence[Any]) -> list[Any]:
        """The arrays of these variables, in order."""
        self.walk(variables)
        return [part for v in variables for part in self.of(v)]

    def of(self, v: Any) -> tuple[Any, ...]:
        if not is_packed(v):
            return (self.new.get(v, v),)
        if v not in self.parts:
            self.parts[v] = self.given(v)
        return self.parts[v]

    def given(self, v: Any) -> tuple[Any, ...]:
        """The arrays of a constant or shared variable."""
        from tcc.compiling import MissingInputError

        if isinstance(v.type, Handled):
            if isinstance(v, Constant | SharedVariable):
                return tuple(call("object", Source(v), [], list(v.type.parts), [], sizes=[]))
        elif isinstance(v, Constant):
            return tuple(make_constant(t, a) for t, a in zip(v.type.parts, v.type.pack(v.data)))
        elif isinstance(v, SharedVariable):
            parts: tuple[Any, ...] = v.parts  # type: ignore[attr-defined]
            return parts
        raise MissingInputError(f"{v}, of {v.type}, was not provided and not given a value")

    def walk(self, outputs: Sequence[Any]) -> None:
        known = (self.parts, self.new, self.done)
        for node in toposort(outputs, stop=lambda v: any(v in k for k in known)):
            self.node(node)

    def node(self, node: Apply) -> None:
        with located_at(node.loc):
            if node.defn is PACKED:
                self.packed(node)
            elif node.name == "call" and (any(map(is_packed, (*node.operands, *node.results)))):
                self.call(node)
            elif node.name == "ifelse" and any(map(is_packed, node.results)):
                self.branches(node)
            elif node.body is not None:
                self.loop(node)
            elif any(map(is_packed, node.operands)):
                bad = next(v for v in node.operands if is_packed(v))
                raise TypeError(f"{node.name} cannot take {bad}, a {bad.type}")
            elif any(v in self.new for v in node.sources):
                self.record(node, copied(node, self.new).results)

    def record(self, node: Apply, results: Sequence[Any]) -> None:
        """What the node's results have become, which lies in `results` part by part."""
        given = iter(results)
        self.done.update(results)
        for r in node.results:
            if is_packed(r):
                self.parts[r] = tuple(next(given) for _ in r.type.parts)
            else:
                self.new[r] = next(given)
                self.new[r].name = self.new[r].name or r.name

    def packed(self, node: Apply) -> None:
        if node.attrs["op"].assembles:
            self.record(node, [self.new.get(v, v) for v in node.operands])
            return
        operands = [v.type.packed(self.of(v)) if is_packed(v) else self.new.get(v, v) for v in node.operands]
        for v in node.operands:
            self.done.update(self.of(v))
        self.record(node, self.outputs(node.attrs["op"].expand(*operands)))

    def call(self, node: Apply) -> None:
        """Python code on packed values: their arrays go there and back."""
        attrs = {
            key: with_variables(value, lambda v: self.new.get(v, v)) for key, value in node.attrs.items()
        }
        packed = [v.type for v in node.operands], [r.type for r in node.results]
        types = [p for r in node.results for p in (r.type.parts if is_packed(r) else (r.type,))]
        given = iter(attrs["sizes"])
        sizes = [
            size
            for r in node.results
            for size in (
                [n for p in r.type.parts for n in p.shape]
                if is_packed(r)
                else [next(given) for _ in range(r.type.ndim)]
            )
        ]
        attrs |= {"types": types, "sizes": sizes, "function": Handling(node.attrs["function"], *packed)}
        made = Apply(node.defn, [p for v in node.operands for p in self.of(v)], attrs, types)
        self.record(node, made.results)

    def branches(self, node: Apply) -> None:
        types = [p for r in node.results for p in (r.type.parts if is_packed(r) else (r.type,))]
        made = Apply(node.defn, [p for v in node.operands for p in self.of(v)], dict(node.attrs), types)
        self.record(node, made.results)

    def loop(self, node: Apply) -> None:
        assert node.body is not None
        if any(map(is_packed, (*node.operands, *node.results, *node.body.params))):
            raise TypeError(
                "scan: what is not an array can be a non-sequence, not a sequence, a state or an output"
            )
        inner = dependent(node.body)
        for part in toposort(node.body.results, stop=lambda v: v not in inner):
            self.node(part)
        body = Body(node.body.params, tuple(self.of(v)[0] for v in node.body.results))
        if body == node.body and not any(v in self.new for v in node.sources):
            return
        attrs = {
            key: with_variables(value, lambda v: self.new.get(v, v)) for key, value in node.attrs.items()
        }
        operands = [self.new.get(v, v) for v in node.operands]
        made = Apply(node.defn, operands, attrs, [r.type for r in node.results], body=body)
        self.record(node, made.results)


class Source:
    """A constant or shared object, asked for whenever the function runs."""

    def __init__(self, v: Any) -> None:
        self.held = v.container if isinstance(v, SharedVariable) else v.data
        self.shared = isinstance(v, SharedVariable)

    def __call__(self) -> list[Any]:
        return [handles.keep(self.held.get(borrow=True) if self.shared else self.held)]


class Handling:
    """A function of packed values as one of their arrays."""

    def __init__(self, function: Callable[..., Any], operands: list[Any], results: list[Any]) -> None:
        self.function, self.operands, self.results = function, operands, results

    def __call__(self, *arrays: Any) -> list[Any]:
        left = iter(arrays)
        given = [
            t.unpack([next(left) for _ in t.parts]) if isinstance(t, Packed) else next(left)
            for t in self.operands
        ]
        made = zip(self.function(*given), self.results, strict=True)
        return [a for r, t in made for a in (t.pack(r) if isinstance(t, Packed) else [r])]


# -- functions -------------------------------------------------------------------------------------------------------


def wrapped(recipe: Recipe, containers: Sequence[InputContainer]) -> Any:
    """The function of a recipe that `tcc.lower` cannot take as it is; None for all others."""
    updates = [(s, e) for s, e in recipe.updates]
    results = [*recipe.outputs, *(e for _, e in updates)]
    changing = left_behind(recipe.inputs)
    if not changing and not any(map(is_packed, [*results, *(i.variable for i in recipe.inputs)])):
        given = {i.variable for i in recipe.inputs}
        if not needed(toposort(results, stop=lambda v: v in given)):
            return None
    return WrappedFunction(recipe, containers)


class WrappedFunction(Made):
    """Packs arguments, calls a function of arrays, unpacks its results, keeps the new values of inputs with
    updates and writes into the arrays of those that ops overwrite."""

    def __init__(self, recipe: Recipe, containers: Sequence[InputContainer]) -> None:
        self.recipe, self.name, self.returns = recipe, recipe.name, recipe.returns
        self.containers = list(containers)
        self.parameters = tuple(
            parameter(i, number, self.name, container)
            for number, (i, container) in enumerate(zip(recipe.inputs, containers))
        )
        unpacking = Unpacking()
        inner: list[In] = []
        for i in recipe.inputs:
            parts = [t(i.name) for t in i.variable.type.parts] if is_packed(i.variable) else [i.variable]
            if is_packed(i.variable):
                unpacking.parts[i.variable] = tuple(parts)
            else:
                unpacking.done.add(i.variable)  # what is above an input does not matter
            inner += [In(p, name=f"{i.name or 'input'}_{len(inner)}", strict=True) for p in parts]
        self.outputs = [*recipe.outputs, *left_behind(recipe.inputs)]
        kept = [(n, i.update, i.overwritten) for n, i in enumerate(recipe.inputs)]
        self.left = [(n, e is u) for n, u, o in kept for e in (u, o) if e is not None]
        pairs = []
        for shared, value in recipe.updates:
            targets = shared.parts if is_packed(shared) else [shared]
            pairs += list(zip(targets, unpacking.outputs([value]), strict=True))
        results = unpacking.outputs(self.outputs)
        self.inner = Recipe(inner, results, pairs, self.name, recipe.mode, "list", recipe.device).make()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        given = ordered(self.name, self.parameters, args, kwargs)
        values = [p.convert(v) for p, v in zip(self.parameters, given, strict=True)]
        arrays: list[Any] = []
        with handles.scope():
            for i, value in zip(self.recipe.inputs, values):
                arrays += i.variable.type.pack(value) if is_packed(i.variable) else [value]
            made = iter(self.inner(*arrays))
            results = [
                v.type.unpack([next(made) for _ in v.type.parts]) if is_packed(v) else next(made)
                for v in self.outputs
            ]
        count = len(self.recipe.outputs)
        for (number, kept), value in zip(self.left, results[count:]):
            if kept:
                self.containers[number].value = value
            elif isinstance(given[number], np.ndarray):
                given[number][...] = value
            elif isinstance(given[number], list):
                given[number][:] = value
        return results[0] if self.returns == "array" else results[:count]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "inner" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.inner, name)
