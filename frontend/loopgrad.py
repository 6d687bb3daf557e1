"""The gradient of a scan: a scan that walks the steps from the last to the first (backpropagation through time).

Its carries are the gradients by the states, and one sum for each captured value.  What it reads of the forward steps is
stacked by a second forward scan, which the pass `merge` makes one with the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tcc import build
from tcc.graph import Apply, Body, Shown, captures, dependent, rebuild, toposort, variables_in
from tcc.ir.optable import Undefined
from tcc.testvalues import complete, untested
from tcc.types import tensor_type
from tcc.variable import Variable

# Made anew from what they read rather than kept for every step.
CHEAP = frozenset(
    {"dimshuffle", "reshape", "broadcast", "slice", "cast", "identity", "rebroadcast", "second"}
)


def pulled_scan(node: Apply, flowing: Sequence[Any], matters: set[Any], constants: set[Any]) -> Sequence[Any]:
    """Gradients by all inputs of a scan, given those by its results: a variable, ZERO or None for each."""
    with untested():  # the parameters of the reverse loop stand for no value
        made = _Reverse(node, matters, constants).run(flowing)
    complete([g for g in made if isinstance(g, Variable)])
    return made


@dataclass
class _Kept:
    """Values of the forward steps that the reverse reads, the parameters that stand for them there, and the sequences."""

    replace: dict[Any, Any]
    sequences: list[Any]
    params: list[Any]


class _Reverse:
    def __init__(self, node: Apply, matters: set[Any], constants: set[Any]) -> None:
        assert node.body is not None
        self.node, self.body, self.constants = node, node.body, constants
        self.seqs, self.carries = int(node.attrs["seqs"]), int(node.attrs["carries"])
        self.elements, self.states = self.body.params[: self.seqs], self.body.params[self.seqs :]
        ends = len(node.results) - bool(node.attrs["until"])
        self.nexts, self.outs = self.body.results[: self.carries], self.body.results[self.carries : ends]
        self.condition = self.body.results[ends:]
        self.length: Any = node.results[-1] if self.condition else node.attrs["length"]
        self.sizes = list(variables_in(node.attrs))
        self.captured = list(node.extra[len(self.sizes) :])
        self.inner = dependent(self.body)
        self.ragged = ragged(self.body, self.inner)
        self.wanted = self.varying(matters)
        self.leaves = frozenset([*self.body.params, *self.captured])

    def varying(self, matters: set[Any]) -> list[Any]:
        """Parameters and captures that hang on something that the gradient is asked by."""
        operands = self.node.operands
        found = {p for p, v in zip(self.body.params, operands) if v in matters}
        found |= {v for v in self.captured if v in matters}
        nodes = toposort(self.body.results, stop=lambda v: v not in self.inner)
        while True:
            reached = set(found)
            for node in nodes:
                if any(v in reached for v in node.inputs):
                    reached.update(node.results)
            more = {p for p, v in zip(self.states, self.nexts) if v in reached} - found
            if not more:
                return [v for v in (*self.body.params, *self.captured) if v in found]
            found |= more

    def run(self, flowing: Sequence[Any]) -> Sequence[Any]:
        from tcc.gradient import ZERO, discrete, fitted, zeros

        steps = {
            k: fitted(g, self.node.results[self.carries + k])
            for k, g in enumerate(flowing[self.carries : self.carries + len(self.outs)])
            if g is not None and g is not ZERO and not discrete(self.outs[k])
        }
        still = [
            k
            for k, g in enumerate(flowing[self.carries : self.carries + len(self.outs)])
            if g is not None and k not in steps
        ]
        elements = {k: element_of(g) for k, g in steps.items()}
        after = {self.states[i]: like_state(self.states[i]) for i in range(self.carries)}
        active = [i for i, g in enumerate(flowing[: self.carries]) if g is not None]
        while True:
            grads = self.one_step(active, after, elements, still)
            more = [i for i, p in enumerate(self.states) if i not in active and grads.get(p) is not None]
            if not more:
                break
            active = sorted([*active, *more])
        moving = [i for i in active if not discrete(self.states[i])]
        undefined = {v: g for v, g in grads.items() if isinstance(g, Undefined)}
        grads |= dict.fromkeys(undefined, ZERO)
        nexts = {i: grads.get(self.states[i]) for i in moving}
        sums = [v for v in self.captured if grads.get(v) not in (None, ZERO)]
        along = [p for p in self.elements if grads.get(p) not in (None, ZERO)]
        totals = {v: (v.type if not discrete(v) else grads[v].type)() for v in sums}
        results = [
            *(
                zeros(self.states[i]) if nexts[i] in (None, ZERO) else fitted(nexts[i], self.states[i])
                for i in moving
            ),
            *(build.elementwise("add", totals[v], fitted(grads[v], v)) for v in sums),
            *(fitted(grads[p], p) for p in along),
        ]
        first = [
            *(self.at_end(i, flowing[i]) for i in moving),
            *(zeros(v) if not discrete(v) else build.Builder().full(0, grads[v]) for v in sums),
        ]
        made = self.loop(
            [*(after[self.states[i]] for i in moving), *totals.values()],
            len(sums),
            first,
            results,
            steps,
            elements,
        )
        by_state = dict(zip(moving, made))
        by_capture = dict(zip(sums, made[len(moving) :]))
        by_element = dict(zip(along, made[len(first) :]))
        out: list[Any] = []
        for p in self.elements:
            g = grads.get(p)
            out.append(by_element[p] if p in by_element else g)
        for i in range(self.carries):
            g = by_state.get(i)
            out.append(g if g is not None else ZERO if i in active else None)
        out += [None] * len(self.sizes)
        out += [by_capture.get(v, grads.get(v)) for v in self.captured]
        if not undefined:
            return out
        # What a state makes undefined, the steps before it hand on.
        every = next((undefined[p] for p in self.states if p in undefined), None)
        own = [*self.body.params, *[None] * len(self.sizes), *self.captured]
        return [
            undefined.get(v) or (every if g is not None else None) or g for v, g in zip(own, out, strict=True)
        ]

    def one_step(
        self,
        active: Sequence[int],
        after: Mapping[Any, Any],
        elements: Mapping[int, Any],
        still: Sequence[int],
    ) -> dict[Any, Any]:
        """The gradients by parameters and captures of one step, from those by the next states and by its outputs."""
        from tcc.gradient import ZERO, accumulate, backward, discrete

        seeds: dict[Any, Any] = {}
        for i in active:
            accumulate(seeds, self.nexts[i], ZERO if discrete(self.nexts[i]) else after[self.states[i]])
        for k, g in elements.items():
            accumulate(seeds, self.outs[k], g)
        for k in still:
            accumulate(seeds, self.outs[k], ZERO)
        return backward(seeds, self.wanted, self.constants, self.leaves)

    def at_end(self, i: int, g: Any) -> Any:
        from tcc.gradient import ZERO, fitted, zeros

        first = self.node.operands[self.seqs + i]
        return zeros(first) if g is None or g is ZERO else fitted(g, first)

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
            sequences = [first_of(s, length) for s in sequences]
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
        from tcc.creation import zeros as filled
        from tcc.elemwise import eq, switch
        from tcc.shapes import join

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
        whole = dict(zip(self.elements, self.node.operands))
        remake = bool(
            self.node.attrs.get("remake")
        )  # between checkpoints; what these steps stacked is not kept either
        if not remake:
            whole |= dict(zip(self.outs, self.node.results[self.carries :]))
        stacked = [v for v in read if v not in whole]
        if stacked:
            known = build.static_size(self.node.attrs["length"])
            ends = len(self.nexts) + len(self.outs)
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
        for p, v in zip(self.states, self.node.operands[self.seqs :]):
            kept.replace.setdefault(p, v)
        return kept

    def add(self, kept: _Kept, v: Any, whole: Any) -> None:
        kept.replace[v] = element_of(whole)
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
        waiting = [v for n in nodes if n.name != "shape_of" for v in n.inputs if v in inner]
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
                waiting += [x for x in owner.inputs if x in inner]
        return list(found)

    def stackable(self, node: Apply) -> bool:
        """Whether it is the forward loop that the gradient of a loop in the body reads, and its stacks can be kept for every step:
        they are not made again then, as the merged forward loops make them anyway."""
        return (
            bool(node.attrs.get("forward"))
            and not any(v in self.inner or v in self.leaves for v in variables_in(node.attrs))
            and not any(v in self.ragged for v in node.inputs)
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
        if any(v in varying for v in node.inputs):
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


def element_of(whole: Any) -> Any:
    from tcc.loops import element_like

    return element_like(whole, None)


def first_of(whole: Any, count: Any) -> Any:
    from tcc.loops import cut_to

    return cut_to(whole, count)


def like_state(p: Any) -> Any:
    from tcc.loops import with_test_value

    return with_test_value(p.type(), p, lambda value: value)


def scan_node(
    operands: Sequence[Any], attrs: dict[str, Any], types: Sequence[Any], body: Body, label: str
) -> Apply:
    """A scan as `tcc.scan` makes it."""
    shown = Shown(label, (build.size_variable(attrs["length"]), *operands, *captures(body)))
    return Apply(build.row("scan"), operands, attrs, types, body=body, shown=shown)
