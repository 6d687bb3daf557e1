"""Whether graphs say the same: nodes and constants by their structure, inputs by identity."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from tcc.graph import Apply, Body, rebuild, toposort
from tcc.variable import Constant, Variable, as_variable


def equal_computations(
    xs: Sequence[Any],
    ys: Sequence[Any],
    in_xs: Sequence[Any] | None = None,
    in_ys: Sequence[Any] | None = None,
) -> bool:
    """Whether each of `xs` is computed as the one of `ys` is, if `in_xs` are given what `in_ys` are given.

    ValueError if the lists differ in length.
    """
    if len(xs) != len(ys) or len(in_xs or ()) != len(in_ys or ()):
        raise ValueError("equal_computations compares lists of equal lengths")
    xs, ys = ([v if isinstance(v, Variable) else as_variable(v) for v in vs] for vs in (xs, ys))
    numbers = _Numbers()
    left = {x: numbers.of(("given", i, x.type)) for i, x in enumerate(in_xs or ())}
    right = {y: numbers.of(("given", i, y.type)) for i, y in enumerate(in_ys or ())}
    return numbers.of_graph(xs, left) == numbers.of_graph(ys, right)


def is_same_graph(x: Any, y: Any, givens: Any = None) -> bool:
    """Whether two variables are computed alike; `givens` (pairs or a dict) are replacements in both."""
    pairs = dict(givens.items() if isinstance(givens, Mapping) else givens or [])
    left, right = rebuild([x, y], pairs)
    return equal_computations([left], [right])


class _Numbers:
    """A number for each structure: equal structures have equal numbers."""

    def __init__(self) -> None:
        self.known: dict[Hashable, int] = {}

    def of(self, key: Hashable) -> int:
        return self.known.setdefault(key, len(self.known))

    def of_graph(self, outputs: Sequence[Any], given: Mapping[Any, int], depth: int = 0) -> list[int]:
        number: dict[Any, int] = dict(given)

        def leaf(v: Any) -> int:
            found = number.get(v)
            if found is None:
                found = number[v] = self.of(self._leaf(v))
            return found

        for node in toposort(outputs, stop=lambda v: v in given):
            key = self._node(node, [leaf(v) for v in node.operands], number, leaf, depth)
            for i, result in enumerate(node.results):
                number.setdefault(result, self.of((key, i)))
        return [leaf(v) for v in outputs]

    def _leaf(self, v: Any) -> Hashable:
        if not isinstance(v, Constant):
            return ("input", id(v))
        data = v.data
        if isinstance(data, np.ndarray):
            return ("constant", v.type, data.shape, data.tobytes())
        return ("object", repr(data))

    def _node(
        self, node: Apply, operands: list[int], number: Mapping[Any, int], leaf: Any, depth: int
    ) -> Hashable:
        attrs = {k: v for k, v in node.attrs.items() if k not in ("function", "gradient")}
        body = self._body(node.body, number, depth + 1) if node.body is not None else ()
        types = tuple(r.type for r in node.results)
        return (node.defn.name, tuple(operands), _frozen(attrs, leaf), body, types)

    def _body(self, body: Body, number: Mapping[Any, int], depth: int) -> Hashable:
        params = {p: self.of(("parameter", depth, i, p.type)) for i, p in enumerate(body.params)}
        return tuple(self.of_graph(body.results, {**number, **params}, depth))


def _frozen(value: Any, leaf: Any) -> Hashable:
    """An attribute as a key, with the numbers of its variables."""
    if hasattr(value, "owner"):
        return ("variable", leaf(value))
    if isinstance(value, Mapping):
        return tuple((k, _frozen(v, leaf)) for k, v in sorted(value.items()))
    if isinstance(value, list | tuple):
        return tuple(_frozen(v, leaf) for v in value)
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.shape, value.tobytes())
    return value if isinstance(value, Hashable) else repr(value)
