"""The gradient of a scan: a scan that walks the steps from the last to the first (backpropagation through time).

Its carries are the gradients by the states, and one sum for each captured value.  What it reads of the forward steps is
stacked by a second forward scan, which the pass `merge` makes one with the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tcc import build
from tcc.adjoints import ZERO, accumulate, discrete, fitted, instantiated, vanishes, zeros
from tcc.creation import zeros as filled
from tcc.elemwise import eq, switch
from tcc.graph import Apply, Body, Shown, captures, dependent, rebuild, toposort, variables_in
from tcc.ir.optable import Undefined
from tcc.joining import join
from tcc.loops import cut_to, element_like, with_test_value
from tcc.testvalues import complete, untested
from tcc.types import tensor_type
from tcc.variable import Variable

if TYPE_CHECKING:
    from tcc.backward import Walk

# Made anew from what they read rather than kept for every step.
CHEAP = frozenset(
    {"dimshuffle", "reshape", "broadcast", "slice", "cast", "identity", "rebroadcast", "second"}
)


def pulled_scan(walk: Walk, node: Apply, flowing: Sequence[Any]) -> Sequence[Any]:
    """Gradients by all inputs of a scan, given those by its results: a variable, ZERO or None for each."""
    with untested():  # the parameters of the reverse loop stand for no value
        made = _Reverse(walk, node).run(flowing)
    complete([g for g in made if isinstance(g, Variable)])
    return made


class Steps:
    """A scan in parts: `sequences` with their `elements`, `first` values of the `states` with their `nexts`, what is
    stacked (`outs`), and what its steps read besides."""

    def __init__(self, node: Apply) -> None:
        assert node.body is not None
        self.node, self.body = node, node.body
        seqs, self.carries = int(node.attrs["seqs"]), int(node.attrs["carries"])
        self.ends = len(node.results) - bool(node.attrs["until"])
        self.sequences, self.first = node.operands[:seqs], node.operands[seqs:]
        self.elements, self.states = self.body.params[:seqs], self.body.params[seqs:]
        results = self.body.results
        self.nexts, self.outs = results[: self.carries], results[self.carries : self.ends]
        self.condition = results[self.ends :]
        self.sizes = list(variables_in(node.attrs))
        self.captured = list(node.extra[len(self.sizes) :])
        self.inner = dependent(self.body)


@dataclass
class _Kept:
    """Values of the forward steps that the reverse reads, the parameters that stand for them there, and the sequences."""

    replace: dict[Any, Any]
    sequences: list[Any]
    params: list[Any]


class _Reverse(Steps):
    def __init__(self, walk: Walk, node: Apply) -> None:
        super().__init__(node)
        self.walk = walk
        self.length: Any = node.results[-1] if self.condition else node.attrs["length"]
        self.ragged = ragged(self.body, self.inner)
        self.wanted = self.varying()
        self.leaves = frozenset([*self.body.params, *self.captured])

    def varying(self) -> list[Any]:
        """Parameters and captures that hang on something that the gradient is asked by."""
        matters = self.walk.matters
        found = {p for p, v in zip(self.body.params, self.node.operands) if v in matters}
        found |= {v for v in self.captured if v in matters}
        nodes = toposort(self.body.results, stop=lambda v: v not in self.inner)
        while True:
            reached = set(found)
            for node in nodes:
                if any(v in reached for v in node.sources):
                    reached.update(node.results)
            more = {p for p, v in zip(self.states, self.nexts) if v in reached} - found
            if not more:
                return [v for v in (*self.body.params, *self.captured) if v in found]
            found |= more

    def run(self, flowing: Sequence[Any]) -> Sequence[Any]:
        """Gradients by all inputs of the scan."""
        stacks = dict(enumerate(flowing[self.carries : self.ends]))
        steps = {
            k: fitted(g, self.node.results[self.carries + k])
            for k, g in stacks.items()
            if not vanishes(g) and not discrete(self.outs[k])
        }
        still = [k for k, g in stacks.items() if g is not None and k not in steps]
        elements = {k: element_like(g) for k, g in steps.items()}
        after = {p: like_state(p) for p in self.states}
        active = [p for p, g in zip(self.states, flowing) if g is not None]
        while True:
            grads = self.one_step(active, after, elements, still)
            more = [p for p in self.states if p not in active and grads.get(p) is not None]
            if not more:
                break
            active += more
        undefined = {v: g for v, g in grads.items() if isinstance(g, Undefined)}
        grads |= dict.fromkeys(undefined, ZERO)
        found = grads | {p: ZERO if p in active else None for p in self.states}
        found |= self.summed(grads, active, flowing, after, steps, elements)
        own = [*self.body.params, *[None] * len(self.sizes), *self.captured]
        out = [found.get(v) for v in own]
        if not undefined:
            return out
        # What a state makes undefined, the steps before it hand on.
        every = next((undefined[p] for p in self.states if p in undefined), None)
        return [
            undefined.get(v) or (every if g is not None else None) or g for v, g in zip(own, out, strict=True)
        ]

    def one_step(
        self,
        active: Sequence[Any],
        after: Mapping[Any, Any],
        elements: Mapping[int, Any],
        still: Sequence[int],
    ) -> dict[Any, Any]:
        """The gradients by parameters and captures of one step, from those by the next states and by its outputs."""
        seeds: dict[Any, Any] = {}
        for p, following in zip(self.states, self.nexts):
            if p in active:
                accumulate(seeds, following, ZERO if discrete(following) else after[p])
        for k, g in elements.items():
            accumulate(seeds, self.outs[k], g)
        for k in still:
            accumulate(seeds, self.outs[k], ZERO)
        return self.walk.within(seeds, self.wanted, self.leaves)

    def summed(
        self,
        grads: Mapping[Any, Any],
        active: Sequence[Any],
        flowing: Sequence[Any],
        after: Mapping[Any, Any],
        steps: Mapping[int, Any],
        elements: Mapping[int, Any],
    ) -> dict[Any, Any]:
        """By each state, capture and element, the gradient over all steps, from the `grads` of one step."""
        moving = {
            p: instantiated(g, first)
            for p, first, g in zip(self.states, self.first, flowing)
            if p in active and not discrete(p)
        }
        sums = [v for v in self.captured if not vanishes(grads.get(v))]
        along = [p for p in self.elements if not vanishes(grads.get(p))]
        totals = {v: (v.type if not discrete(v) else grads[v].type)() for v in sums}
        results = [
            *(instantiated(grads.get(p), p) for p in moving),
            *(build.elementwise("add", totals[v], fitted(grads[v], v)) for v in sums),
            *(fitted(grads[p], p) for p in along),
        ]
        first = [
            *moving.values(),
            *(zeros(v) if not discrete(v) else build.Builder().full(0, grads[v]) for v in sums),
        ]
        states = [*(after[p] for p in moving), *totals.values()]
        return dict(
            zip([*moving, *sums, *along], self.loop(states, len(sums), first, results, steps, elements))
        )

    # -- the loop ------------------------------------------------------------------------------------------------

    def loop(
        self,
        states: Sequence[Any],
        sums: int,
        first: Sequence[Any],
        results: Sequence[Any],
        steps: Mapping[int, Any],
        elements: Mapping[int, Any],
    ) -> list[Any]:
        """Last states and stacks of the reverse scan; of a truncated gradient, over the last steps alone."""
        kept = self.kept(results)
        body_results = rebuild(results, kept.replace)
        params = [*elements.values(), *kept.params, *states]
        sequences = [*steps.values(), *kept.sequences]
        length = self.length
        skipped: Any = 0
        if self.condition:  # steps that were not made have no gradient
            sequences = [cut_to(s, length) for s in sequences]
        most = int(self.node.attrs.get("truncate", -1))
        if most >= 0:
            length = build.size_arithmetic("minimum", length, most)
            skipped = build.size_arithmetic("sub", self.length, length)
            sequences = [s[skipped:] for s in sequences]
        body = Body(tuple(params), tuple(body_results))
        attrs = {
            "seqs": len(sequences),
            "carries": len(states),
            "length": length,
            "reverse": not self.node.attrs["reverse"],
            "until": False,
        }
        known = build.static_size(length)
        types = [s.type for s in states]
        types += [tensor_type(r.type.dtype, (known, *r.type.shape)) for r in results[len(states) :]]
        made = list(scan_node([*sequences, *first], attrs, types, body, "grad_of_scan_fn").results)
        if most < 0 and not self.condition:
            return made
        return self.padded(made, len(states), len(states) - sums, skipped)

    def padded(self, made: list[Any], count: int, moving: int, skipped: Any) -> list[Any]:
        """Nothing flows to the steps before the last ones, nor to the initial states if there are such steps, nor to those
        that were not made.
        """
        out = []
        for k, v in enumerate(made):
            if k >= count:
                rest = [build.size_of(v, a) for a in range(1, v.type.ndim)]
                missing = build.size_arithmetic("sub", self.node.attrs["length"], self.length)
                sides = [filled((n, *rest), dtype=v.type.dtype) for n in (skipped, missing)]
                v = join(0, sides[0], v, sides[1])
            elif k < moving:
                v = switch(eq(build.size_variable(skipped), 0), v, 0)
                v = build.cast(v, made[k].type.dtype)
            out.append(v)
        return out

    def kept(self, results: Iterable[Any]) -> _Kept:
        """What the reverse steps read of the forward ones: elements of the sequences, and values to be stacked."""
        read = self.frontier(results)
        kept = _Kept({}, [], [])
        whole = dict(zip(self.elements, self.sequences))
        remake = bool(
            self.node.attrs.get("remake")
        )  # between checkpoints; what these steps stacked is not kept either
        if not remake:
            whole |= dict(zip(self.outs, self.node.results[self.carries :]))
        stacked = [v for v in read if v not in whole]
        if stacked:
            known = build.static_size(self.node.attrs["length"])
            ends = self.ends
            types = [r.type for r in self.node.results[:ends]]
            types += [tensor_type(v.type.dtype, (known, *v.type.shape)) for v in stacked]
            types += [r.type for r in self.node.results[ends:]]
            body = Body(self.body.params, (*self.nexts, *self.outs, *stacked, *self.condition))
            shown = self.node.shown
            label = shown.label if shown is not None else "for{cpu,scan_fn}"
            attrs = self.node.attrs | {"forward": not remake}
            again = scan_node(self.node.operands, attrs, types, body, label)
            whole |= dict(zip(stacked, again.results[ends : ends + len(stacked)]))
        for v in read:
            self.add(kept, v, whole[v])
        for p in self.elements:  # of which only sizes are read
            if p not in kept.replace:
                self.add(kept, p, whole[p])
        for p, v in zip(self.states, self.first):
            kept.replace.setdefault(p, v)
        return kept

    def add(self, kept: _Kept, v: Any, whole: Any) -> None:
        kept.replace[v] = element_like(whole)
        kept.params.append(kept.replace[v])
        kept.sequences.append(whole)

    def frontier(self, results: Iterable[Any]) -> list[Any]:
        """The values of the forward steps that are read, views seen through; sizes do not count."""
        found: dict[Any, None] = {}
        roots = list(results)
        nodes = toposort(roots, stop=lambda v: v in self.inner or v in self.leaves)
        steps = {r for n in nodes if self.stackable(n) for r in n.results}
        inner = self.inner | steps
        nodes = [n for n in nodes if n.results[0] not in steps] if steps else nodes
        waiting = [v for n in nodes if n.name != "shape_of" for v in n.sources if v in inner]
        waiting += [v for v in roots if v in inner]
        seen: set[Any] = set()
        while waiting:
            v = waiting.pop(0)
            if v in seen:
                continue
            seen.add(v)
            owner = v.owner
            if owner is None or not (owner.name in CHEAP or _counts(v) or v in self.ragged):
                found[v] = None
                continue
            if owner.name != "shape_of":
                waiting += [x for x in owner.sources if x in inner]
        return list(found)

    def stackable(self, node: Apply) -> bool:
        """Whether it is the forward loop that the gradient of a loop in the body reads, and its stacks can be kept for every step:
        they are not made again then, as the merged forward loops make them anyway."""
        return (
            bool(node.attrs.get("forward"))
            and not any(v in self.inner or v in self.leaves for v in variables_in(node.attrs))
            and not any(v in self.ragged for v in node.sources)
        )


def ragged(body: Body, inner: set[Any]) -> set[Any]:
    """The values of a body whose sizes may differ from step to step: they cannot be stacked, and are made again."""
    varying: set[Any] = set(body.params)
    found: set[Any] = set()
    for node in toposort(body.results, stop=lambda v: v not in inner):
        if node.name == "shape_of":
            if node.operands[0] in found:
                varying.update(node.results)
            continue
        if any(v in varying for v in node.sources):
            varying.update(node.results)
        if any(v in varying for v in variables_in(node.attrs)) or any(v in found for v in node.operands):
            found.update(r for r in node.results if r.type.ndim)
    return found


def _counts(v: Any) -> bool:
    """A size or a position, made again at no cost."""
    return (
        v.type.ndim == 0
        and v.type.dtype == "int64"
        and v.owner.name not in ("call", "scan", "ifelse", "gather")
    )


def like_state(p: Any) -> Any:
    return with_test_value(p.type(), p, lambda value: value)


def scan_node(
    operands: Sequence[Any], attrs: dict[str, Any], types: Sequence[Any], body: Body, label: str
) -> Apply:
    """A scan as `tcc.scan` makes it."""
    shown = Shown(label, (build.size_variable(attrs["length"]), *operands, *captures(body)))
    return Apply(build.row("scan"), operands, attrs, types, body=body, shown=shown)
