"""Reverse-mode differentiation: one walk back through a graph, by the rows' gradient rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from tcc import build
from tcc.adjoints import (
    ZERO,
    NullTypeGradError,
    accumulate,
    discrete,
    fitted,
    given_gradient,
    vanishes,
    zeros,
)
from tcc.branches import ifelse
from tcc.graph import Apply, toposort
from tcc.ir.optable import Undefined
from tcc.locations import located_at, place
from tcc.loopgrad import pulled_scan
from tcc.shapes import patternbroadcast
from tcc.variable import Variable

# What these rows read has no influence that a gradient could see.
CUTS = frozenset({"shape_of", "index", "indices"})
COMPLEX = ("complex64", "complex128")


class Walk(NamedTuple):
    """What rules may ask of a walk: what hangs on the variables that a gradient is asked by, and what counts as constant."""

    builder: build.Builder
    matters: set[Any]
    constants: set[Any]

    def within(self, seeds: Mapping[Any, Any], wrt: Sequence[Any], leaves: frozenset[Any]) -> dict[Any, Any]:
        """The same of a part of the graph, such as one step of a loop."""
        return backward(seeds, wrt, self.constants, leaves)


def backward(
    seeds: Mapping[Any, Any],
    wrt: Sequence[Any],
    constants: set[Any],
    leaves: frozenset[Any] = frozenset(),
    settled: frozenset[Any] = frozenset(),
) -> dict[Any, Any]:
    """The gradient by each variable between `seeds` and `wrt`: a variable, ZERO, or absent where nothing flows.

    Nothing flows through `constants` nor to what is behind `leaves`, and nothing is added to the seeds that are `settled`.
    """
    wanted = set(wrt)
    nodes = toposort(list(seeds), stop=lambda v: v in constants or v in leaves)
    matters: set[Any] = set(wanted)
    for node in nodes:
        if any(v in matters for v in node.sources):
            matters.update(node.results)
    grads: dict[Any, Any] = {}
    for v, g in seeds.items():
        accumulate(grads, v, g)
    walk = Walk(build.Builder(), matters, constants)
    for node in reversed(nodes):
        flowing = [grads.get(r) for r in node.results]
        if all(g is None for g in flowing) or not any(v in matters for v in node.sources):
            continue
        with located_at(node.loc):
            made = pulled(walk, node, flowing)
            for v, g in zip(node.sources, made):  # of what is in size attributes there is no gradient
                if g is not None and v in matters and v not in settled:
                    accumulate(grads, v, g)
    return grads


def pulled(walk: Walk, node: Apply, flowing: Sequence[Any]) -> Sequence[Any]:
    """Gradients by the node's operands, or by all its inputs, given those by its results."""
    if node.name == "call":
        return _of_call(node, flowing)
    undefined = _undefined(node, flowing)
    return undefined if undefined is not None else RULES.get(node.name, _of_row)(walk, node, flowing)


def _undefined(node: Apply, flowing: Sequence[Any]) -> Sequence[Any] | None:
    """If one gradient by a result is undefined, so are those by all that has influence."""
    found = next((g for g in flowing if isinstance(g, Undefined)), None)
    return None if found is None else _to_all(node, found, len(node.sources))


def _to_all(node: Apply, g: Any, count: int) -> Sequence[Any]:
    return [g if _reaches(node, k) else None for k in range(count)]


def _reaches(node: Apply, k: int) -> bool:
    """Whether operand k has any influence on the values of the result, be it in steps."""
    if node.name in ("gather", "scatter"):
        return k < (1 if node.name == "gather" else 2)
    return not (node.name == "second" and k == 0)


# -- rules for rows that have none in the table, or none that suits the frontend's graph ---------------------------------


def _of_call(node: Apply, flowing: Sequence[Any]) -> Sequence[Any]:
    """Of a user's op, which may say which results hang on which inputs."""
    pattern = getattr(node.op, "connection_pattern", None)
    if pattern is None:
        undefined = _undefined(node, flowing)
        return undefined if undefined is not None else _called(node, flowing)
    links = pattern(node)
    flowing = [g if any(row[k] for row in links) else None for k, g in enumerate(flowing)]
    undefined = _undefined(node, flowing)
    if undefined is not None:
        return undefined
    through = [any(on and g is not None for on, g in zip(row, flowing)) for row in links]
    return [g if on else None for g, on in zip(_called(node, flowing), through)]


def _called(node: Apply, flowing: Sequence[Any]) -> Sequence[Any]:
    rule = node.attrs.get("gradient")
    if rule is None:
        raise NullTypeGradError(f"{node.attrs['name']} has no gradient: define grad(inputs, output_grads)")
    given = [zeros(r) if vanishes(g) else g for g, r in zip(flowing, node.results)]
    made = rule(list(node.operands), given)
    if made is None:
        raise TypeError(f"{node.attrs['name']}.grad returned None, expected a list of gradients")
    made = list(made) if isinstance(made, list | tuple) else [made]
    if len(made) != len(node.operands):
        raise ValueError(
            f"{node.attrs['name']}.grad returned {len(made)} gradients for {len(node.operands)} inputs"
        )
    return [given_gradient(g) for g in made]


def _of_nothing(walk: Walk, node: Apply, flowing: Sequence[Any]) -> Sequence[Any]:
    return [None] * len(node.operands)


def _of_packed(walk: Walk, node: Apply, flowing: Sequence[Any]) -> Sequence[Any]:
    if all(map(vanishes, flowing)):
        return [ZERO] * len(node.operands)
    made: Sequence[Any] = node.attrs["op"].grad(
        node.operands, node.results, [None if g is ZERO else g for g in flowing]
    )
    return made


def _of_draw(walk: Walk, node: Apply, flowing: Sequence[Any]) -> Sequence[Any]:
    """Of numbers by what their distribution hangs on."""
    reason = f"numbers drawn at {place(node.loc)} have no gradient by the parameters of their distribution"
    return [None, None, *(Undefined(reason) for _ in node.operands[2:])]


def _of_branches(walk: Walk, node: Apply, flowing: Sequence[Any]) -> Sequence[Any]:
    """Only the branch that was taken has a gradient, and only that is computed."""
    count = len(node.results)
    made: list[list[Any]] = [[], []]
    for k, (g, r) in enumerate(zip(flowing, node.results)):
        for side in (0, 1):
            v = node.operands[1 + side * count + k]
            if vanishes(g) or discrete(r):
                made[side].append(None if g is None else ZERO)
                continue
            pair = [fitted(g, r), zeros(v)] if side == 0 else [zeros(v), fitted(g, r)]
            made[side].append(ifelse(node.operands[0], *pair))
    return [ZERO, *made[0], *made[1]]


RULES: dict[str, Callable[[Walk, Apply, Sequence[Any]], Sequence[Any]]] = {
    **dict.fromkeys(CUTS, _of_nothing),
    "ifelse": _of_branches,
    "legacy_draw": _of_draw,
    "packed": _of_packed,
    "scan": pulled_scan,
}


# -- rows of the table ---------------------------------------------------------------------------------------------------


def _of_row(walk: Walk, node: Apply, flowing: Sequence[Any]) -> Sequence[Any]:
    count = len(node.operands)
    if all(map(vanishes, flowing)) or all(map(discrete, node.results)):
        return _to_all(node, ZERO, count)
    if node.name == "cast":
        (x,) = node.operands
        g = flowing[0]
        if g.type.dtype in COMPLEX and x.type.dtype not in COMPLEX:
            g = build.node("real", g).result
        return [g if discrete(x) else build.cast(g, x.type.dtype)]
    if node.name == "rebroadcast":
        return [patternbroadcast(flowing[0], node.operands[0].type.broadcastable)]
    if not count:  # ranges and the like hang on sizes alone
        return []
    if node.defn.grad is None:
        return _to_all(node, Undefined(f"{node.name} has no gradient (at {place(node.loc)})"), count)
    b = walk.builder
    full = [
        b.full(0, r) if vanishes(g) else build.cast(patternbroadcast(g, r.type.broadcastable), r.type.dtype)
        for g, r in zip(flowing, node.results)
    ]
    made = node.defn.grad(b, node, [_conjugate(g) for g in full])
    if any(r.type.dtype in COMPLEX for r in (*node.operands, *node.results)):
        made = [_conjugate(g) if isinstance(g, Variable) else g for g in made]
    return [
        ZERO if discrete(v) and isinstance(g, Variable) and discrete(g) else g
        for v, g in zip(node.operands, made)
    ]


def _conjugate(g: Any) -> Any:
    """Of complex numbers, for which rules are written in conjugates (ir/ops/complexes.py)."""
    return build.node("conj", g).result if g.type.dtype in COMPLEX else g
