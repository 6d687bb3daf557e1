"""Theano's functions on graphs (`gof.graph`, `gof.utils`) and on test values (`gof.op`)."""

from __future__ import annotations

import builtins
import collections
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tcc import equality
from tcc.build import size_of, size_variable
from tcc.compiling import function
from tcc.fgraph import FunctionGraph
from tcc.graph import Body, copied, toposort
from tcc.ir.callers import warn
from tcc.settings import config
from tcc.testvalues import value_of
from tcc.variable import Constant, SharedVariable, Variable, as_variable


def clone(
    i: Sequence[Any], o: Sequence[Any], copy_inputs: bool = True, copy_orphans: bool | None = None
) -> tuple[list[Any], list[Any]]:
    """(inputs, outputs) of a copy of the graph between them; inputs, and what else has no owner, are copied if asked."""
    orphans = copy_inputs if copy_orphans is None else copy_orphans
    given = set(i)
    new: dict[Any, Any] = {v: v.clone() if copy_inputs else v for v in i}
    for node in toposort(list(o), stop=lambda v: v in given):
        for v in node.sources:
            if v.owner is None:
                new.setdefault(v, v.clone() if orphans else v)
        new.update(zip(node.results, copied(node, new).results))
    return [new[v] for v in i], [new.get(v, v) for v in o]


def min_informative_str(obj: Any, indent_level: int = 0, _tags: dict[int, str] | None = None) -> str:
    """The graph above a variable, a line for each node, down to variables that have names; letters stand for what recurs."""
    tags = {} if _tags is None else _tags
    indent = " " * indent_level
    if id(obj) in tags:
        return f"{indent}<{tags[id(obj)]}>"
    tags[id(obj)] = tag = _letters(len(tags))
    owner = getattr(obj, "owner", None)
    if hasattr(obj, "__array__"):
        lines = ["<ndarray>"]
    elif getattr(obj, "name", None) is not None:
        lines = [obj.name]
    elif owner is not None:
        lines = [str(owner.op), *(min_informative_str(v, indent_level + 1, tags) for v in owner.inputs)]
    else:
        lines = [str(obj)]
    return f"{indent}{tag}. " + "\n".join(lines)


def _letters(number: int) -> str:
    """A, B, ..., Z, AA, AB, ..."""
    text = ""
    while number >= 0:
        number, last = divmod(number, 26)
        text, number = chr(65 + last) + text, number - 1
    return text


def var_descriptor(obj: Any, _prev_obs: dict[int, str] | None = None, _tag_generator: Any = None) -> str:
    """How a variable is computed, on one line without addresses: equal for equal graphs.  An array shows as its strides and a
    digest of its elements, what recurs as its letters."""
    tags = {} if _prev_obs is None else _prev_obs
    if id(obj) in tags:
        return f"<{tags[id(obj)]}>"
    tags[id(obj)] = tag = _letters(len(tags))
    if isinstance(obj, np.ndarray):
        strides = ",".join(map(str, obj.strides))
        text = f"<ndarray:strides=[{strides}],digest={hashlib.sha256(obj.tobytes()).hexdigest()}>"
    elif getattr(obj, "owner", None) is not None:
        text = f"{obj.owner.op}({','.join(var_descriptor(v, tags) for v in obj.owner.inputs)})"
    elif getattr(obj, "name", None) is not None:
        text = obj.name
    else:
        text = f"theano_var{{type={obj.type}}}" if " at 0x" in str(obj) else str(obj)
    return f"{tag}={text}"


def map_variables(
    replacer: Callable[[Any], Any], graphs: Iterable[Any], additional_inputs: Iterable[Any] = ()
) -> list[Any]:
    """The graphs with `replacer(v)` in the place of each variable v, in the steps of scans too; a replacement is taken as it is."""
    new: dict[Any, Any] = {}

    def mapped(outputs: Sequence[Any], params: frozenset[Any]) -> list[Any]:
        for node in toposort(outputs, stop=lambda v: v in params or v in new):
            for v in node.sources:
                if v.owner is None and v not in params and v not in new:
                    new[v] = replacer(v)
            body = node.body
            if body is not None:
                inner = frozenset(body.params)
                body = Body(body.params, tuple(mapped(body.results, params | inner)))
            if body != node.body or any(new.get(v, v) is not v for v in node.sources):
                made = copied(node, new, body).results
            else:
                made = node.results
            for old, fresh in zip(node.results, made):
                replaced = replacer(old)
                new[old] = fresh if replaced is old else replaced
        return [new[v] if v in new else v if v in params else replacer(v) for v in outputs]

    return mapped(list(graphs), frozenset())


def general_toposort(
    r_out: Iterable[Any], deps: Callable[[Any], Any], debug_print: bool = False, **_: Any
) -> list[Any]:
    """What `r_out` hang on by `deps`, and themselves, each behind all that it hangs on.  ValueError for a circle."""
    before: dict[Any, list[Any]] = {}
    waiting = collections.deque(r_out)
    while waiting:
        thing = waiting.pop()
        if thing not in before:
            before[thing] = list(deps(thing) or ())
            waiting.extend(before[thing])
    order: list[Any] = []
    placed: set[Any] = set()
    clients: dict[Any, list[Any]] = {}
    missing = {thing: len(set(found)) for thing, found in before.items()}
    for thing, found in before.items():
        for other in dict.fromkeys(found):
            clients.setdefault(other, []).append(thing)
    ready = collections.deque(thing for thing, count in missing.items() if not count)
    while ready:
        thing = ready.popleft()
        order.append(thing)
        placed.add(thing)
        for client in clients.get(thing, ()):
            missing[client] -= 1
            if not missing[client]:
                ready.append(client)
    if len(order) != len(before):
        raise ValueError("graph contains cycles")
    return order


def as_string(
    i: Iterable[Any],
    o: Sequence[Any],
    leaf_formatter: Callable[[Any], str] = str,
    node_formatter: Callable[[Any, list[str]], str] = lambda node, args: f"{node.op}({', '.join(args)})",
) -> list[str]:
    """Each output as a text of ops applied to texts; a node that is used twice is `*n -> text` first, then `*n`."""
    given = set(i)
    nodes = toposort(o, stop=lambda v: v in given)
    uses = collections.Counter(
        v.owner
        for v in (*o, *(u for n in nodes for u in n.sources))
        if v.owner is not None and v not in given
    )
    shared = {node: number for number, node in enumerate((n for n in nodes if uses[n] > 1), 1)}
    done: set[Any] = set()

    def text(v: Any) -> str:
        if v.owner is None or v in given:
            return leaf_formatter(v)
        node = v.owner
        which = f"::{v.index}" if len(node.results) > 1 else ""
        if node in done and node in shared:
            return f"*{shared[node]}{which}"
        done.add(node)
        whole = node_formatter(node, [text(u) for u in node.sources])
        return f"*{shared[node]} -> {whole}" if node in shared else whole

    return [text(v) for v in o]


def is_same_graph(var1: Any, var2: Any, givens: Any = None, debug: bool = False) -> bool:
    """`tcc.equality.is_same_graph`; `debug` chooses nothing."""
    return equality.is_same_graph(var1, var2, givens)


def give_variables_names(variables: Iterable[Any]) -> list[str]:
    """Gives variables names that differ, where they have none or one that another has; returns the names."""
    listed = list(variables)
    counts = collections.Counter(v.name for v in listed)
    number = 0
    for v in listed:
        if v.name is None or counts[v.name] > 1:
            base = v.name or str(v.type)
            while counts[f"{base}_{number}"]:
                number += 1
            v.name = f"{base}_{number}"
            counts[v.name] += 1
    return [v.name for v in listed]


def remove(predicate: Callable[[Any], Any], coll: Iterable[Any]) -> Iterable[Any]:
    """The elements for which the predicate does not hold."""
    return builtins.filter(lambda x: not predicate(x), coll)


# -- test values -------------------------------------------------------------------------------------------------------


def get_test_value(v: Any) -> Any:
    """The test value of a variable: a constant's or shared variable's own.  AttributeError if there is none."""
    v = v if isinstance(v, Variable) else as_variable(v)
    value = v.data if isinstance(v, Constant) else value_of(v)
    if value is None:
        raise AttributeError(f"{v} has no test value")
    return value


def missing_test_message(msg: str) -> None:
    """What config.compute_test_value says is done about a missing test value: nothing, a warning, or AttributeError."""
    if config.compute_test_value == "raise":
        raise AttributeError(msg)
    if config.compute_test_value == "warn":
        warn(msg)


def debug_error_message(msg: str) -> None:
    """ValueError for wrong test values, or with config.compute_test_value = "warn" a warning."""
    if config.compute_test_value != "warn":
        raise ValueError(msg)
    warn(msg)


def get_debug_values(*args: Any) -> list[Any]:
    """[the test value], or [the tuple of them]; [] where there are none, or config.compute_test_value is "off"."""
    if config.compute_test_value == "off":
        return []
    values = []
    for v in args:
        try:
            values.append(get_test_value(v))
        except AttributeError:
            missing_test_message(f"Argument {v} has no test value")
            return []
    return values if len(values) == 1 else [tuple(values)]


def debug_assert(condition: Any, msg: str | None = None) -> None:
    """Asserts a condition on test values, if these are carried along."""
    if config.compute_test_value != "off":
        assert condition, msg


def stack_search(start: Any, expand: Any, mode: str = "bfs", build_inv: bool = False) -> Any:
    """The nodes that `expand`, which lists a node's neighbours or gives None, reaches from the deque `start`, which is
    emptied, each once; with `build_inv`, also from whom each was reached."""
    if mode not in ("bfs", "dfs"):
        raise ValueError("mode should be bfs or dfs", mode)
    pop = start.popleft if mode == "bfs" else start.pop
    found: dict[int, Any] = {}
    reached_from: dict[Any, list[Any]] = {}
    while start:
        node = pop()
        if id(node) in found:
            continue
        found[id(node)] = node
        neighbours = list(expand(node) or ())
        for other in neighbours if build_inv else ():
            reached_from.setdefault(other, []).append(node)
        start.extend(neighbours)
    listed = list(found.values())
    return (listed, reached_from) if build_inv else listed


def shape_of_variables(
    fgraph: FunctionGraph, input_shapes: Mapping[Any, Sequence[int]]
) -> dict[Any, tuple[int, ...]]:
    """The shape of each tensor of a graph, for inputs of these shapes (integers); all inputs are to have one."""
    missing = [v for v in fgraph.inputs if v not in input_shapes and not isinstance(v, SharedVariable)]
    if missing:
        raise ValueError(f"shape_of_variables: no shape given for {', '.join(map(str, missing))}")
    tensors: list[Any] = [v for v in fgraph.variables if hasattr(v.type, "broadcastable")]
    given: list[Any] = [v for v in fgraph.inputs if not isinstance(v, SharedVariable)]
    f = function(given, [v.shape for v in tensors], mode="FAST_COMPILE", on_unused_input="ignore")
    found = f(*(np.zeros(input_shapes[v], v.dtype) for v in given))
    return {v: tuple(map(int, shape)) for v, shape in zip(tensors, found)}


class ShapeFeature:
    """What knows a graph's shapes: `shape_of[v]` is a tuple of int64 scalars, constants where sizes are known, and None for what has
    no shape.  A graph has it as its `shape_feature`."""

    def __init__(self) -> None:
        self.shape_of: dict[Any, tuple[Any, ...] | None] = {}

    def on_attach(self, fgraph: Any) -> None:
        fgraph.shape_feature = self
        for v in fgraph.variables:
            has_shape = hasattr(v.type, "broadcastable")
            self.shape_of[v] = (
                tuple(size_variable(size_of(v, a)) for a in range(v.type.ndim)) if has_shape else None
            )
