"""Forward-mode differentiation: one walk from the inputs to the outputs, by the rows' rules for directional derivatives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tcc import build
from tcc.adjoints import DisconnectedInputError, NullTypeGradError, discrete, fitted, zeros
from tcc.backward import CUTS, backward
from tcc.branches import ifelse
from tcc.graph import Apply, Body, inputs, toposort
from tcc.ir.optable import Undefined
from tcc.locations import located_at
from tcc.loopgrad import Steps, like_state, scan_node
from tcc.loops import element_like
from tcc.types import tensor_type
from tcc.variable import Constant, SharedVariable, Variable, as_variable


def Rop(
    f: Any,
    wrt: Any,
    eval_points: Any,
    disconnected_outputs: str = "raise",
    return_disconnected: str = "zero",
) -> Any:
    """d f / d wrt . eval_points: the Jacobian times a vector, of the type of `f` (a variable, list or tuple).

    DisconnectedInputError for an output that does not depend on `wrt`, unless `disconnected_outputs` is "ignore" or "warn";
    it is then zero, or None with `return_disconnected="None"`.  ValueError if an eval_point does not have the axes of its
    variable.
    """
    asked = list(wrt) if isinstance(wrt, list | tuple) else [wrt]
    points = list(eval_points) if isinstance(eval_points, list | tuple) else [eval_points]
    outputs = list(f) if isinstance(f, list | tuple) else [f]
    if len(asked) != len(points):
        raise ValueError(f"Rop: {len(asked)} variables, {len(points)} eval_points")
    seeds: dict[Any, Any] = {}
    for v, p in zip(asked, map(as_variable, points)):
        if p.type.ndim != v.type.ndim:
            raise ValueError(
                f"Element {len(seeds)} of wrt/eval_point has mismatched dimensionality: {v.type} and {p.type}"
            )
        seeds[v] = fitted(p, v)
    tangents = forward(outputs, seeds)
    reached = _reached(outputs, seeds)
    made = [
        zeros(v)
        if v in reached and v not in tangents
        else _finished(v, tangents.get(v), disconnected_outputs, return_disconnected)
        for v in outputs
    ]
    for v, t in zip(outputs, made):
        if t is not None and t.owner is not None:
            t.moved_by = tuple(i for i in inputs([v]) if not isinstance(i, Constant | SharedVariable))
    if isinstance(f, tuple):
        return tuple(made)
    return made if isinstance(f, list) else made[0]


def _reached(outputs: Sequence[Any], seeds: Mapping[Any, Any]) -> set[Any]:
    """What has values that hang on `seeds`, be it by way of a derivative that is zero."""
    found = set(seeds)
    for node in toposort(outputs, stop=lambda v: v in seeds):
        if node.name in CUTS or node.name == "call" or node.defn.doc == "DisconnectedGrad":
            continue
        if any(v in found for v in node.sources):
            found.update(r for r in node.results if not discrete(r))
    return found


def _finished(v: Any, t: Any, policy: str, absent: str) -> Any:
    if t is not None:
        return fitted(t, v)
    if policy == "raise":
        raise DisconnectedInputError(
            f"Rop: the output {v} does not depend on `wrt`; pass disconnected_outputs='ignore' for zeros."
        )
    return None if absent == "None" else zeros(v)


def forward(outputs: Sequence[Any], seeds: Mapping[Any, Any]) -> dict[Any, Any]:
    """The directional derivatives of everything between `seeds` and `outputs`; absent where they are zero."""
    tangents = dict(seeds)
    builder = build.Builder()
    for node in toposort(outputs, stop=lambda v: v in seeds):
        if all(v not in tangents for v in node.sources):
            continue
        if node.name in CUTS or all(discrete(r) for r in node.results):
            continue
        with located_at(node.loc):
            for r, t in zip(node.results, _pushed(builder, node, tangents)):
                if t is not None and not discrete(r):
                    tangents.setdefault(r, fitted(t, r))
    return tangents


def _pushed(b: build.Builder, node: Apply, tangents: Mapping[Any, Any]) -> Sequence[Any]:
    moved = [tangents.get(v) for v in node.operands]
    if node.name == "scan":
        return _through_scan(node, tangents)
    if node.name == "rebroadcast":
        return moved
    if node.name == "ifelse":
        return _through_branches(node, moved)
    if node.name == "call":
        push = getattr(node.attrs.get("op"), "R_op", None)
        return _by_reverse(node, moved) if push is None else _of_user(node, push, moved)
    if node.defn.rop is None:
        return _by_reverse(node, moved)
    made: Sequence[Any] = node.defn.rop(b, node, moved)
    return made


def _of_user(node: Apply, push: Callable[..., Any], moved: Sequence[Any]) -> Sequence[Any]:
    """R_op(inputs, eval_points) of a user's op: what it returns for each result, None where it hangs on nothing that moves."""
    made = push(list(node.operands), list(moved))
    made = list(made) if isinstance(made, list | tuple) else [made]
    if len(made) != len(node.results):
        raise ValueError(
            f"{node.attrs['name']}.R_op returned {len(made)} results for {len(node.results)} outputs"
        )
    return [None if t is None else as_variable(t) for t in made]


def _by_reverse(node: Apply, moved: Sequence[Any]) -> Sequence[Any]:
    """The gradient of (the gradient by u of results . u) . tangents: that is linear in u, whatever u is."""
    along = [v for v, t in zip(node.operands, moved) if t is not None]
    results = [r for r in node.results if not discrete(r)]
    if node.defn.grad is None and node.name != "call":
        raise NullTypeGradError(f"{node.name} has no directional derivative")
    held = {r: _held(zeros(r)) for r in results}
    pulled = backward(held, along, set(), frozenset(along))
    undefined = next((g for v in along if isinstance(g := pulled.get(v), Undefined)), None)
    if undefined is not None:
        raise NullTypeGradError(f"Rop: {undefined.reason}")
    seeds = {
        g: t
        for v, t in zip(node.operands, moved)
        if t is not None and isinstance(g := pulled.get(v), Variable)
    }
    if not seeds:
        return [None] * len(node.results)
    back = backward(seeds, list(held.values()), set(), frozenset([*node.operands, *held.values()]))
    return [t if r in held and isinstance(t := back.get(held[r]), Variable) else None for r in node.results]


def _held(x: Any) -> Any:
    """x as a variable that no gradient looks behind."""
    return build.elementwise("identity", x)


def _through_branches(node: Apply, moved: Sequence[Any]) -> Sequence[Any]:
    count = len(node.results)
    made: list[Any] = []
    for k in range(count):
        pair = [(node.operands[at], moved[at]) for at in (1 + k, 1 + count + k)]
        if all(t is None for _, t in pair):
            made.append(None)
            continue
        made.append(ifelse(node.operands[0], *(zeros(v) if t is None else t for v, t in pair)))
    return made


def _through_scan(node: Apply, tangents: Mapping[Any, Any]) -> Sequence[Any]:
    """A scan that carries the derivatives of its states beside them."""
    s = Steps(node)
    elements = {p: tangents[v] for p, v in zip(s.elements, s.sequences) if v in tangents}
    given = {p: element_like(t) for p, t in elements.items()}
    given |= {v: tangents[v] for v in s.captured if v in tangents}
    states = {p: like_state(p) for p in s.states}
    start = {p for p, v in zip(s.states, s.first) if v in tangents}
    moving, made = _moving(s, start, given, states)
    kept = [(p, *more) for p, *more in zip(s.states, s.first, s.nexts) if p in moving]
    outs = [k for k, v in enumerate(s.outs) if v in made]
    body = Body(
        (*s.elements, *(given[p] for p in elements), *s.states, *(states[p] for p, _, _ in kept)),
        (
            *s.nexts,
            *(made.get(v) or zeros(v) for _, _, v in kept),
            *s.outs,
            *(made[s.outs[k]] for k in outs),
            *s.condition,
        ),
    )
    first = [tangents[v] if v in tangents else zeros(v) for _, v, _ in kept]
    known = build.static_size(node.attrs["length"])
    types = [
        *(r.type for r in node.results[: s.carries]),
        *(p.type for p, _, _ in kept),
        *(r.type for r in node.results[s.carries : s.ends]),
        *(tensor_type(v.type.dtype, (known, *v.type.shape)) for v in (s.outs[k] for k in outs)),
        *(r.type for r in node.results[s.ends :]),
    ]
    attrs = {**node.attrs, "seqs": len(s.elements) + len(elements), "carries": s.carries + len(kept)}
    operands = [*s.sequences, *elements.values(), *s.first, *first]
    pushed = scan_node(operands, attrs, types, body, "rop_of_scan_fn").results
    last = dict(zip((p for p, _, _ in kept), pushed[s.carries :]))
    stacks = dict(zip(outs, pushed[s.ends + len(kept) :]))
    return [
        *(last.get(p) for p in s.states),
        *(stacks.get(k) for k in range(len(s.outs))),
        *(None for _ in s.condition),
    ]


def _moving(
    s: Steps, moving: set[Any], given: Mapping[Any, Any], states: Mapping[Any, Any]
) -> tuple[set[Any], Mapping[Any, Any]]:
    """The states whose derivatives are not always zero, and the derivatives of what a step makes.

    A state moves from the start, or because a step makes it of what moves, which is known when a round finds no other.
    """
    results = [v for v in (*s.nexts, *s.outs) if v in s.inner]
    while True:
        made = forward(results, {**given, **{p: t for p, t in states.items() if p in moving}})
        more = {p for p, v in zip(s.states, s.nexts) if v in made and p not in moving and not discrete(p)}
        if not more:
            return moving, made
        moving = moving | more
