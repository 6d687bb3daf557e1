"""What the kernel of a program of rows computes in which of its visits to a row, and what it keeps from one to the next.

A visit is a phase (tcc.codegen.program): a reduction along the row ends one, and what needs its total comes in the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tcc.codegen.program import EXPENSIVE, Access, Node, Program


class Schedule:
    """`targets` are what each phase computes for its own sake: reductions that end there, results, which the last one writes,
    and, if it is `spilling`, `spills`, which lie in scratch rows from there on."""

    def __init__(self, program: Program, spilling: bool) -> None:
        self.inner, self.writes = len(program.sizes) - 1, program.writes
        self.results = _with_reductions(program)
        self.nodes = _below(self.results)
        self.reduces = [n for n in self.nodes if n.kind == "reduce"]
        self.stored = [n for n, a in zip(self.results, self.writes) if self.of_elements(n, a)]
        self.final = max([n.phase - 1 for n in self.reduces] + [n.phase for n in self.stored], default=0)
        self.targets: list[list[Node]] = [[] for _ in range(self.final + 1)]
        for node in self.reduces:
            self.targets[node.phase - 1].append(node)
        self.targets[self.final] += dict.fromkeys(self.stored)
        self.spills: list[Node] = self._spills() if spilling else []

    @property
    def only_reduces(self) -> bool:
        """Whether one visit is all there is, and its totals are all that comes of it."""
        totals = all(n in self.reduces or n.phase == 0 for n in self.results)
        return bool(self.reduces) and self.final == 0 and totals

    @property
    def revisits(self) -> bool:
        """Whether a row's elements are met more than once."""
        return any(n.kind in ("reduce", "take") for n in self.nodes)

    def of_elements(self, result: Node, access: Access) -> bool:
        """Whether a result is written element by element."""
        return result.varies or access.varies(self.inner)

    def spilled_before(self, node: Node, phase: int) -> bool:
        return node in self.spills and node.phase < phase

    def _spills(self) -> list[Node]:
        """What an earlier phase has computed at some expense; it becomes one of that phase's targets."""
        spills: dict[Node, None] = {}
        for phase in range(self.final, -1, -1):
            seen: set[Node] = set()

            def visit(node: Node) -> None:
                if node in seen or not node.varies:
                    return
                seen.add(node)
                if node.kind == "op" and node.phase < phase and node.chain >= EXPENSIVE:
                    if node not in spills:
                        spills[node] = None
                        self.targets[node.phase].append(node)
                    return
                for i in node.inputs:
                    visit(i)

            for start in starts(self.targets[phase]):
                visit(start)
        return list(spills)


def starts(targets: Sequence[Node]) -> Iterator[Node]:
    """What is computed element by element for some targets: the totals of reductions are not."""
    for t in targets:
        yield from t.inputs if t.kind == "reduce" else [t]


def _below(results: Sequence[Node]) -> list[Node]:
    """The nodes that make them, each before what it is made of."""
    found: dict[Node, None] = {}

    def visit(node: Node) -> None:
        if node not in found:
            found[node] = None
            for i in node.inputs:
                visit(i)

    for r in results:
        visit(r)
    return list(found)


def _with_reductions(program: Program) -> list[Node]:
    """The results' nodes, those that are reduced outside the body turned into reduction nodes along the row."""
    out: list[Node] = []
    for node, access in zip(program.results, program.writes, strict=True):
        if access.reduce and program.reduced[-1]:
            node = Node("reduce", access.dtype, False, node.phase + 1, [node], how=access.reduce)
        out.append(node)
    return out
