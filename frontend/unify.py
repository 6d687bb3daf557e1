"""Sizes that are found to be equal while a function is built, and the builder that finds them so."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tcc.graph import Apply
from tcc.ir import dims
from tcc.ir.builder import Builder
from tcc.ir.core import Block, Value
from tcc.ir.dims import Expr, Size, size_error
from tcc.ir.types import Type
from tcc.printing import label
from tcc.variable import Variable


class Sizes:
    """Names of the parameters' sizes, and what each is found to be equal to."""

    def __init__(self) -> None:
        self.entry: dict[str, tuple[int, int]] = {}  # name -> (parameter, axis)
        self.known: dict[str, Size] = {}
        self.named: dict[str, list[str]] = {}  # name -> those whose known size is made of it
        self.why: dict[tuple[int, int], str] = {}
        self.lazy = False  # in a branch, which may not run: nothing is demanded of the parameters

    def resolve(self, size: Size) -> Size:
        return dims.substitute(size, self.known) if self.known else size

    def merge(self, a: Size, b: Size, reason: str) -> bool:
        """Makes two sizes equal by definition; False if only running can tell.  The function's entry checks it."""
        for left, right in ((b, a), (a, b)) if not self.lazy else ():
            if not isinstance(left, Expr) or left.plain is None or left.plain not in self.entry:
                continue
            names = dims.names_of(right)
            if left.plain in names or not names <= self.entry.keys():
                continue
            if isinstance(right, Expr) and right.plain is not None and self._older(left.plain, right.plain):
                continue
            self._define(left.plain, right)
            self.why.setdefault(self.entry[left.plain], reason)
            for n in sorted(names):
                self.why.setdefault(self.entry[n], reason)
            return True
        return False

    def _older(self, a: str, b: str) -> bool:
        return self.entry[a] < self.entry[b]

    def _define(self, name: str, size: Size) -> None:
        changed = self.named.pop(name, [])
        for n in changed:
            self.known[n] = dims.substitute(self.known[n], {name: size})
        self.known[name] = size
        for n in dims.names_of(size):
            self.named.setdefault(n, []).extend([name, *changed])


class GraphBuilder(Builder):
    """Builds at the end of a block.  Sizes that a type rule needs equal are made so, or checked at run time."""

    def __init__(self, block: Block, sizes: Sizes, node: Callable[[], Apply | None]) -> None:
        super().__init__(block)
        self.sizes, self.node = sizes, node

    def infer(
        self, rule: Any, values: Sequence[Value], attrs: dict[str, Any], blocks: Sequence[Block]
    ) -> list[Type]:
        assert isinstance(values, list)
        tried: list[Any] = []
        while True:
            if self.sizes.known:
                for v in values:
                    v.type = v.type.substitute(self.sizes.known)
                self.resolve_attrs(attrs)
            try:
                types: list[Type] = rule([v.type for v in values], attrs, blocks)
                return types
            except dims.SizeMismatch as e:
                self.settle(e, values, attrs, blocks, tried)

    def settle(
        self,
        e: dims.SizeMismatch,
        values: list[Value],
        attrs: dict[str, Any],
        blocks: Sequence[Block],
        tried: list[Any],
    ) -> None:
        """Makes the two sizes of a mismatch one.  `tried` has the pairs that were met before, and types that did not fit."""
        left, right = self.sizes.resolve(e.left), self.sizes.resolve(e.right)
        tried.append([v.type for v in values])
        if {left, right} in tried:  # they are turned into each other, as where one axis needs either
            if not self.refined_once(values, (left, right), tried):
                raise size_error(f"{self.what()}: Input dimension mis-match: {e}, written at {self.loc}")
            return
        if self.demand(e, blocks):
            return
        tried.append({left, right})
        # one of the two goes, in operands and attributes alike, so that a later mismatch does not turn this one round
        found = self.refined(values, left, right)
        old, new = (left, right) if found or not self.refined(values, right, left) else (right, left)
        self.replace_in_attrs(attrs, old, new)

    def demand(self, e: dims.SizeMismatch, blocks: Sequence[Block] = ()) -> bool:
        """Whether the two sizes of a mismatch can be made equal by definition; else running checks them.

        ValueError if both are known.
        """
        what, left, right = self.what(), self.sizes.resolve(e.left), self.sizes.resolve(e.right)
        if isinstance(left, int) and isinstance(right, int):
            raise size_error(
                f"{what}: Input dimension mis-match: the sizes {left} and {right} must be equal ({e}), written at {self.loc}"
            )
        if self.sizes.merge(left, right, self.reason()):
            for block in blocks:
                resolve_block(block, self.sizes)
            return True
        message = f"{what}: Input dimension mis-match"
        self.op("check_size", attrs={"left": left, "right": right, "message": message})
        return False

    def what(self) -> str:
        """The node that is being built, as messages name it."""
        node = self.node()
        return label(node) if node is not None else "the graph"

    def reason(self) -> str:
        return f"{self.what()} at {self.loc}" if self.loc else self.what()

    def refined(self, values: list[Value], old: Size, new: Size) -> bool:
        """Operands of size `old`, which was found to be `new`, under that size."""
        found = False
        for i, v in enumerate(values):
            if old not in v.type.shape:
                continue
            found = True
            shape = tuple(new if s == old else s for s in v.type.shape)
            values[i] = self.op("refine", v, attrs={"type": Type(v.type.dtype, shape)}).result
        return found

    def refined_once(self, values: list[Value], pair: tuple[Size, Size], tried: Sequence[Any]) -> bool:
        """Operands whose axes of either size have the one or the other, as was not tried yet; False if all was."""
        places = [(i, a) for i, v in enumerate(values) for a, size in enumerate(v.type.shape) if size in pair]
        for sizes in itertools.product(pair, repeat=len(places)):
            shapes = [list(v.type.shape) for v in values]
            for (i, axis), size in zip(places, sizes):
                shapes[i][axis] = size
            types = [Type(v.type.dtype, tuple(shape)) for v, shape in zip(values, shapes)]
            if types in tried:
                continue
            for i, (v, type) in enumerate(zip(values, types)):
                if v.type != type:
                    values[i] = self.op("refine", v, attrs={"type": type}).result
            return True
        return False

    def resolve_attrs(self, attrs: dict[str, Any]) -> None:
        for key, value in attrs.items():
            attrs[key] = substituted(value, self.sizes.known)

    def replace_in_attrs(self, attrs: dict[str, Any], old: Size, new: Size) -> None:
        for key, value in attrs.items():
            if isinstance(value, list | tuple):
                attrs[key] = type(value)(new if isinstance(s, Expr) and s == old else s for s in value)
            elif isinstance(value, Expr) and value == old:
                attrs[key] = new


def substituted(value: Any, known: Mapping[str, Size]) -> Any:
    if isinstance(value, Expr):
        return dims.substitute(value, known)
    if isinstance(value, Type):
        return value.substitute(known)
    if type(value) in (list, tuple):
        return type(value)(substituted(v, known) for v in value)
    return value


def resolve_block(block: Block, sizes: Sizes) -> None:
    """The sizes in a block as they are known now."""
    for p in block.params:
        p.type = p.type.substitute(sizes.known)
    for op in block.walk():
        for v in op.results:
            v.type = v.type.substitute(sizes.known)
        for b in op.blocks:
            for p in b.params:
                p.type = p.type.substitute(sizes.known)
        for key, value in op.attrs.items():
            op.attrs[key] = substituted(value, sizes.known)


class Scope:
    """One block being filled: what is visible from its start on, the sizes bound and the user-written ops called in it."""

    def __init__(self, builder: GraphBuilder) -> None:
        self.builder = builder
        self.values: dict[Variable, Value] = {}
        self.bound: dict[Any, Size] = {}
        # the results of user-written ops, by op, operands and types
        self.calls: dict[Any, Sequence[Value]] = {}
