"""The frontend's graph: immutable applications of rows of the op table, and walks over them."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as with_fields
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from tcc.ir.optable import OpDef
from tcc.locations import Location, user_location
from tcc.opfunction import OpFunction
from tcc.settings import config

if TYPE_CHECKING:
    from tcc.types import Type
    from tcc.variable import Variable


@dataclass(frozen=True, slots=True)
class Body:
    """What a structured op does in each step: a lambda.  Variables of `results` that hang on no parameter are captures."""

    params: tuple[Variable, ...]
    results: tuple[Variable, ...]


@dataclass(frozen=True, slots=True, eq=False)
class ShownOp:
    """What stands for an operation, or for several, under Theano's name, `Subtensor{int64}`; `defn` is the row of the last.

    It equals the function that applies it, if that is an op in Theano: `v.owner.op == T.exp`.
    """

    label: str
    defn: OpDef

    @property
    def kind(self) -> str:
        """The name without its options."""
        return self.label.partition("{")[0]

    @property
    def scalar_op(self) -> ShownOp:
        """The function of numbers that an elementwise op applies, which this stands for too; AttributeError for other ops."""
        if not self.defn.scalar:
            raise AttributeError(f"{self.label} is no elementwise op")
        return self

    @property
    def function(self) -> str:
        """The name of the function of numbers that is applied; else the label."""
        if self.kind != "Elemwise":
            return self.label
        _, _, options = self.label.removesuffix("}").partition("{")
        return options.removesuffix(",no_inplace")

    def __eq__(self, other: object) -> bool:
        if isinstance(other, OpFunction):
            return self.function == other.__name__
        return type(other) is type(self) and (self.label, self.defn) == (other.label, other.defn)

    def __hash__(self) -> int:
        return hash(self.function)

    def __repr__(self) -> str:
        return self.label


@dataclass(frozen=True, slots=True, repr=False)
class ShownLoop(ShownOp):
    """What stands for a loop: the variables that a step starts from, and those that it makes."""

    inputs: tuple[Variable, ...]
    outputs: tuple[Variable, ...]

    __hash__ = ShownOp.__hash__


@dataclass(frozen=True, slots=True)
class Shown:
    """How a node prints when Theano has one op where the graph has several: its name there, its inputs there, and
    the op itself if it has options that programs ask for."""

    label: str
    inputs: tuple[Variable, ...]
    op: Any = None


class Apply:
    """A row applied to operands.  `extra` are further inputs: variables inside size attributes, and a body's captures.

    `implicit` marks broadcasts and casts that the user did not write: printing passes over them.
    """

    __slots__ = (
        "defn",
        "operands",
        "attrs",
        "results",
        "extra",
        "body",
        "loc",
        "shown",
        "implicit",
        "index",
        "_tag",
        "__weakref__",
    )

    def __init__(
        self,
        defn: OpDef,
        operands: Sequence[Variable],
        attrs: dict[str, Any],
        types: Sequence[Type],
        *,
        body: Body | None = None,
        loc: Location | None = None,
        shown: Shown | None = None,
        implicit: bool = False,
    ) -> None:
        from tcc.variable import result_of

        self.defn, self.operands, self.attrs = defn, tuple(operands), attrs
        self.extra: tuple[Variable, ...] = tuple(variables_in(attrs))
        self.body = body
        if body is not None:
            self.extra += tuple(captures(body))
        self.loc = user_location() if loc is None else loc
        self.shown, self.implicit = shown, implicit
        self.index: Any = None  # of a subtensor: (whole, index) for set_subtensor
        self._tag: SimpleNamespace | None = None
        self.results = tuple(result_of(t, self, i) for i, t in enumerate(types))
        if config.compute_test_value != "off" and defn.name != "call":
            from tcc.testvalues import attach

            attach(self)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return flat(self, self) or super().__reduce_ex__(protocol)

    def __copy__(self) -> Apply:
        made: Apply = object.__new__(type(self))
        made.__setstate__(self.__getstate__())
        return made

    def __getstate__(self) -> dict[str, Any]:
        """Of its own, because the oldest pickle protocols take no slots."""
        return {name: getattr(self, name) for name in Apply.__slots__ if name != "__weakref__"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)

    @property
    def tag(self) -> SimpleNamespace:
        """Notes of the user's, which copies of the node keep."""
        if self._tag is None:
            self._tag = SimpleNamespace()
        return self._tag

    @property
    def name(self) -> str:
        return self.defn.name

    @property
    def op(self) -> Any:
        """What was applied: the user's op, or what stands for rows under Theano's name."""
        if "op" in self.attrs:
            return self.attrs["op"]
        if self.shown is not None and self.shown.op is not None:
            return self.shown.op
        from tcc.printing import label

        if self.body is not None:
            return ShownLoop(label(self), self.defn, self.body.params, self.body.results)
        return ShownOp(label(self), self.defn)

    @property
    def sources(self) -> list[Variable]:
        """All that its results hang on."""
        return list(sources(self))

    @property
    def inputs(self) -> list[Variable]:
        """As the user knows them, and Theano's op of this name has them: the axis of a Join comes first, casts are left out, and so
        are the sizes of broadcasts that nobody wrote."""
        return list(shown_inputs(self)) if self.shown is not None or self.implicit else self.sources

    @property
    def outputs(self) -> list[Variable]:
        return list(self.results)

    def get_parents(self) -> list[Variable]:
        """What a walk up the graph meets next."""
        return self.sources

    @property
    def result(self) -> Variable:
        only: Variable
        (only,) = self.results
        return only

    @property
    def out(self) -> Variable:
        """The only result, or that which the op calls its default; AttributeError if there is none."""
        default = getattr(self.op, "default_output", None)
        if default is None and len(self.results) != 1:
            raise AttributeError(f"{self} has {len(self.results)} outputs, and none is the default")
        if default is not None and not (isinstance(default, int) and 0 <= default < len(self.results)):
            raise AttributeError(f"{self}: the default output is {default!r}, of {len(self.results)}")
        only: Variable = self.results[default or 0]
        return only

    def default_output(self) -> Variable:
        return self.out

    def __repr__(self) -> str:
        from tcc.printing import label

        return f"{label(self)}({', '.join(map(str, shown_inputs(self)))})"


def shown_inputs(node: Apply) -> tuple[Variable, ...]:
    """The inputs that the user knows of."""
    return node.shown.inputs if node.shown is not None else node.operands


def variables_in(attrs: Mapping[str, Any]) -> Iterator[Variable]:
    """The variables that stand in size attributes."""
    for value in attrs.values():
        if type(value) in (list, tuple):
            for item in value:
                if hasattr(item, "owner"):
                    yield item
        elif hasattr(value, "owner"):
            yield value


def with_variables(value: Any, change: Callable[[Variable], Any]) -> Any:
    """An attribute's value with its variables replaced."""
    if type(value) in (list, tuple):
        return type(value)(change(v) if hasattr(v, "owner") else v for v in value)
    return change(value) if hasattr(value, "owner") else value


def sources(node: Apply) -> tuple[Variable, ...]:
    return (*node.operands, *node.extra)


def toposort(
    outputs: Iterable[Variable],
    stop: Callable[[Variable], bool] | None = None,
    inputs: Callable[[Apply], Iterable[Variable]] = sources,
) -> list[Apply]:
    """The nodes that `outputs` hang on by their `inputs`, operands before users; nothing above a variable where `stop` is true."""
    order: list[Apply] = []
    done: set[Apply] = set()
    stack: list[tuple[Apply, Iterator[Variable] | None]] = []
    for output in outputs:
        if output.owner is None or output.owner in done or (stop is not None and stop(output)):
            continue
        stack.append((output.owner, None))
        while stack:
            node, rest = stack[-1]
            if rest is None:
                if node in done:
                    stack.pop()
                    continue
                rest = iter(inputs(node))
                stack[-1] = (node, rest)
            for v in rest:
                if v.owner is not None and v.owner not in done and (stop is None or not stop(v)):
                    stack.append((v.owner, None))
                    break
            else:
                stack.pop()
                if node not in done:
                    done.add(node)
                    order.append(node)
    return order


class Listing:
    """The nodes that `outputs` hang on, operands before users, less those of listings that are alive: pickled in front of the
    variables, so that pickling and deep copies go no deeper than one node, however deep the graph.  It is read as a list.

    Picklers, and `deepcopy`, hold what they have written until they are done.  So a node of a listing that is alive is
    written, or is about to be, and needs no listing of its own; unless it is asked for when its listing has been written:
    then that was another pickler's.
    """

    def __init__(self, outputs: Iterable[Variable], *, unwritten: bool = False) -> None:
        self.nodes = dict.fromkeys(toposort(outputs, stop=lambda v: is_listed(v.owner, unwritten=unwritten)))
        self.written = False
        _alive.listings.add(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (), None, iter([*self.nodes, _End(self)])


class _End:
    """Stands behind the nodes of a listing, and is written when they are."""

    def __init__(self, listing: Listing) -> None:
        self.listing = listing

    def __reduce__(self) -> tuple[Any, ...]:
        self.listing.written = True
        return int, ()


class _Alive(threading.local):
    """The listings of this thread's picklers."""

    def __init__(self) -> None:
        self.listings = weakref.WeakSet[Listing]()


_alive = _Alive()


def is_listed(node: Apply | None, *, unwritten: bool = False) -> bool:
    """Whether a listing has it; with `unwritten`, one that is still to be written."""
    return any(node in one.nodes and not (unwritten and one.written) for one in _alive.listings)


def flat(obj: Any, owner: Apply | None) -> tuple[Any, ...] | None:
    """How to pickle a node, or a variable that has an owner, with a listing in front; None where there is one already."""
    again = obj is owner  # what has been written is not asked for again
    if owner is None or is_listed(owner, unwritten=again):
        return None
    return _second, (Listing(owner.results, unwritten=again), obj)


def _second(listing: list[Apply], obj: Any) -> Any:
    return obj


def ancestors(outputs: Iterable[Variable], blockers: Collection[Variable] = ()) -> list[Variable]:
    """Every variable that `outputs` hang on, themselves included, each once, inputs first; none behind `blockers`."""
    outputs, held = list(outputs), set(blockers)
    found: dict[Variable, None] = {}
    for node in toposort(outputs, stop=lambda v: v in held):
        found.update(dict.fromkeys(node.sources))
        found.update(dict.fromkeys(node.results))
    found.update(dict.fromkeys(outputs))
    return list(found)


def inputs(outputs: Iterable[Variable]) -> list[Variable]:
    """The variables without owner that `outputs` hang on: inputs, shared variables and constants."""
    outputs = list(outputs)
    found: dict[Variable, None] = {v: None for v in outputs if v.owner is None}
    for node in toposort(outputs):
        found.update((v, None) for v in node.sources if v.owner is None)
    return list(found)


def dependent(body: Body) -> set[Variable]:
    """The variables of a body that hang on its parameters."""
    found = set(body.params)
    for node in toposort(body.results, stop=lambda v: v in found):
        if any(v in found for v in node.sources):
            found.update(node.results)
    return found


def captures(body: Body) -> list[Variable]:
    """What a body uses from around it."""
    inner = dependent(body)
    found: dict[Variable, None] = {v: None for v in body.results if v not in inner}
    for node in toposort(body.results, stop=lambda v: v not in inner):
        found.update((v, None) for v in node.sources if v not in inner)
    return list(found)


def rebuild(outputs: Sequence[Variable], replace: Mapping[Variable, Variable]) -> list[Variable]:
    """`outputs` with variables replaced; what does not hang on a replaced one is kept as it is."""
    new: dict[Variable, Variable] = dict(replace)
    for node in toposort(outputs, stop=lambda v: v in replace):
        if not any(new.get(v, v) is not v for v in node.sources):
            continue
        copy = copied(node, new)
        for old, fresh in zip(node.results, copy.results):
            new.setdefault(old, fresh)
    return [new.get(v, v) for v in outputs]


def copied(node: Apply, new: Mapping[Variable, Variable], body: Body | None = None) -> Apply:
    """The same application on other inputs, and with another body if one is given."""

    from tcc.testvalues import untested

    def change(v: Variable) -> Variable:
        return new.get(v, v)

    if body is None and node.body is not None:
        body = node.body
        outer = {v: new[v] for v in node.extra if new.get(v, v) is not v}
        body = Body(body.params, tuple(rebuild(body.results, outer)))
    shown = node.shown
    if shown is not None:
        shown = with_fields(shown, inputs=tuple(map(change, shown.inputs)))
    with untested():  # copies keep the test values of what they are copies of
        fresh = Apply(
            node.defn,
            [change(v) for v in node.operands],
            {key: with_variables(value, change) for key, value in node.attrs.items()},
            [r.type for r in node.results],
            body=body,
            loc=node.loc,
            shown=shown,
            implicit=node.implicit,
        )
    if node.index is not None:
        whole, index = node.index
        fresh.index = (change(whole), tuple(with_variables(i, change) for i in index))
    if node._tag is not None:
        fresh.tag.__dict__.update(node.tag.__dict__)
    for old, made in zip(node.results, fresh.results):
        made.name = old.name
        if "tag" in old.__dict__:
            made.tag.__dict__.update(old.tag.__dict__)
    return fresh


def clone(
    output: Any,
    replace: Any = None,
    strict: bool = True,
    share_inputs: bool = True,
    copy_inputs: bool | None = None,
) -> Any:
    """`output` (a variable, or a list or dict of them) with variables replaced as `replace` (pairs or a dict) says.

    With `share_inputs=False` inputs are new variables too; a shared variable's clone keeps the same container.
    """
    from tcc.variable import Constant, SharedVariable, as_variable

    if copy_inputs is not None:
        share_inputs = not copy_inputs
    if isinstance(output, Mapping):
        values = clone(list(output.values()), replace, strict, share_inputs)
        return dict(zip(output, values))
    outputs = list(output) if isinstance(output, list | tuple) else [output]
    pairs = list(replace.items()) if isinstance(replace, Mapping) else list(replace or [])
    new: dict[Variable, Variable] = {}
    for old, other in pairs:
        other = as_variable(other)
        new[old] = old.type.filter_variable(other) if strict else other
    made = rebuild(outputs, new)
    if not share_inputs:
        fresh = [v for v in inputs(made) if not isinstance(v, Constant)]
        made = rebuild(
            made, {v: v.clone() if isinstance(v, SharedVariable) else v.type(v.name) for v in fresh}
        )
    return made if isinstance(output, list | tuple) else made[0]
