"""`tcc.scan`: a loop over sequences with carried states.  The step function is called once, and becomes a body."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tcc import build
from tcc.build import Size, size_arithmetic, size_of, size_variable, static_size
from tcc.compiling import MissingInputError, default_updates
from tcc.graph import Apply, Body, Shown, ancestors, captures, rebuild, toposort
from tcc.settings import config
from tcc.shapes import shape_padleft, unbroadcast
from tcc.testvalues import value_of
from tcc.types import TensorType, tensor_type
from tcc.updates import OrderedUpdates
from tcc.variable import Constant, SharedVariable, Variable, as_variable, scalar_constant

LSCALAR = tensor_type("int64", ())


class until:
    """What a step function returns to end the loop after the step on which the condition holds."""

    def __init__(self, condition: Any) -> None:
        self.condition = as_variable(condition)


@dataclass
class Sequence_:
    """One input sequence, cut for each tap so that element t of every cut belongs to step t."""

    cuts: list[Any]
    names: list[str | None]


@dataclass
class State:
    """One output: its initial value and taps, or neither.  `params` are the carried values, oldest first."""

    initial: Any = None
    taps: list[int] = field(default_factory=list)
    first: list[Any] = field(default_factory=list)
    params: list[Any] = field(default_factory=list)


def scan(
    fn: Callable[..., Any],
    sequences: Any = None,
    outputs_info: Any = None,
    non_sequences: Any = None,
    n_steps: Any = None,
    truncate_gradient: int = -1,
    go_backwards: bool = False,
    mode: Any = None,
    name: str | None = None,
    profile: Any = False,
    allow_gc: Any = None,
    strict: bool = False,
    return_list: bool = False,
) -> tuple[Any, OrderedUpdates]:
    """(outputs, updates) of `fn` applied step after step; outputs are stacked along a new first axis.

    `fn` takes elements of the sequences, then prior outputs, then `non_sequences`.  It returns outputs, updates of shared variables
    (a dict or pairs), and `until(condition)`, whose step is the last one, or some of these.  A sequence is a variable, whose first axis is that
    of the steps, or {"input": ..., "taps": [...]}.  An entry of `outputs_info` is the initial value of an output that feeds back,
    {"initial": ..., "taps": [...]}, or None.  There are `n_steps` steps, else as many as the shortest sequence has elements;
    with `go_backwards`, or a negative `n_steps`, sequences are read from their ends.  `truncate_gradient` is the number of last steps that a
    gradient walks back, -1 for all.  With `strict` all shared variables that `fn` uses must be in `non_sequences`; a single
    output comes as a list with `return_list`.  ValueError and TypeError say what does not fit.
    """
    cuts, elements, length = _walked(sequences, n_steps, go_backwards)
    others = [v if isinstance(v, Variable) else as_variable(v) for v in as_list(non_sequences)]
    states = [_state(info, k) for k, info in enumerate(as_list(outputs_info))]
    prior = [s.params[t] for s in states for t in s.taps]
    outputs, updates, condition = _returned(_called(fn, elements, prior, others))
    states = _states_of(outputs, states)
    if static_size(length) != 1 or condition is not None:  # a single step has no next one
        outputs = [_checked(o, s, k) for k, (o, s) in enumerate(zip(outputs, states))]
    updates += default_updates(outputs, updates, {}, False, [v for v in others if v.owner is not None])
    stacks, made = _built(
        cuts, elements, states, outputs, updates, length, name, strict, others, truncate_gradient, condition
    )
    _default_updates_outside(made, {*elements, *prior})
    if not stacks:
        return None, made
    return (stacks if return_list or len(stacks) > 1 else stacks[0]), made


def _states_of(outputs: Sequence[Any], states: list[State]) -> list[State]:
    """One for each output: `states`, or where outputs_info says nothing those of a map."""
    if not states:
        return [State() for _ in outputs]
    if len(states) != len(outputs):
        raise ValueError(
            "Please provide None as outputs_info for any output that does not feed back into scan (i.e. it behaves like a "
            f"map): fn returned {len(outputs)} outputs, outputs_info has {len(states)}"
        )
    return states


def _default_updates_outside(made: OrderedUpdates, params: set[Any]) -> None:
    """A default update that hangs on the step's parameters, as where numbers are drawn in the shape of an element, means
    nothing outside: there it is the state after the last step."""
    for state, last in made.items():
        update = getattr(state, "default_update", None)
        if update is not None and not params.isdisjoint(ancestors([update])):
            state.default_update = last


def as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _tensor(value: Any, what: str) -> Any:
    if isinstance(value, Variable) and not isinstance(value.type, TensorType):
        raise TypeError(
            f"scan {what} tensors, got {value} of {value.type}: pass it through non_sequences, or what it is made of as tensors"
        )
    return as_variable(value)


# -- sequences -------------------------------------------------------------------------------------------------------


def _sequence(given: Any, backwards: bool) -> Sequence_:
    info = given if isinstance(given, dict) else {"input": given}
    whole = _tensor(info["input"], "walks along")
    taps = info.get("taps", [0])
    taps = [taps] if isinstance(taps, int) else list(taps)
    if whole.type.ndim == 0:
        raise ValueError(f"scan: a sequence needs an axis to walk along, got {whole} of {whole.type}")
    low, high = min(0, *taps), max(0, *taps)
    cuts, names = [], []
    for k in taps:
        cut = whole
        if low != high:
            cut = whole[k - low :] if k == high else whole[k - low : k - high]
        cuts.append(cut[::-1] if backwards else cut)
        suffix = "[t]" if k == 0 else f"[t{k:+d}]"
        names.append(whole.name + suffix if whole.name else None)
    return Sequence_(cuts, names)


def _walked(sequences: Any, n_steps: Any, backwards: bool) -> tuple[list[Any], list[Any], Size]:
    """What is walked along, its elements in a step, and the number of steps."""
    steps = None if n_steps is None else build.as_size(n_steps, "n_steps")
    if isinstance(steps, int) and steps < 0:
        steps, backwards = -steps, not backwards
    seqs = [_sequence(s, backwards) for s in as_list(sequences)]
    cuts = [c for s in seqs for c in s.cuts]
    length = _length(cuts, steps)
    cuts = [cut_to(c, length) for c in cuts]
    return cuts, [element_like(c, n) for c, n in zip(cuts, [n for s in seqs for n in s.names])], length


def _length(cuts: Sequence[Any], steps: Size | None) -> Size:
    sizes = [size_of(c, 0) for c in cuts]
    if steps is None:
        if not sizes:
            raise ValueError(
                "No information about the number of steps provided. Either provide a value for n_steps argument of scan or "
                "provide an input sequence"
            )
        shortest = sizes[0]
        for s in sizes[1:]:
            shortest = size_arithmetic("minimum", shortest, s)
        return shortest
    for s in sizes:
        if isinstance(s, int) and isinstance(steps, int) and s < steps:
            raise ValueError(
                f"Sequence is shorter then the required number of steps : (n_steps, seq) ({steps}, {s})"
            )
    if isinstance(steps, int) and all(isinstance(s, int) for s in sizes):
        return steps
    attrs = {"available": sizes}
    return Apply(build.STEPS, (size_variable(steps),), attrs, (LSCALAR,), implicit=True).result


def cut_to(sequence: Any, length: Size) -> Any:
    """The first `length` elements."""
    size = size_of(sequence, 0)
    if size is length or (isinstance(size, int) and size == static_size(length)):
        return sequence
    rank = sequence.type.ndim
    sizes = [length, *(size_of(sequence, k) for k in range(1, rank))]
    known = static_size(length)
    types = (tensor_type(sequence.type.dtype, (None if known == 1 else known, *sequence.type.shape[1:])),)
    return build.node(
        "slice", sequence, start=[0] * rank, size=sizes, step=[1] * rank, types=types, implicit=True
    ).result


def element_like(sequence: Any, name: str | None = None) -> Any:
    element = tensor_type(sequence.type.dtype, sequence.type.shape[1:])(name)
    return with_test_value(element, sequence, lambda whole: whole[0] if len(whole) else None)


def with_test_value(param: Any, source: Any, part: Callable[[Any], Any]) -> Any:
    """A parameter of the body, which its tag says, with a test value where what it stands for has one."""
    param.tag.step = True
    if config.compute_test_value != "off":
        value = source.data if isinstance(source, Constant) else value_of(source)
        if value is not None:
            param.tag.test_value = part(value)
    return param


# -- states ----------------------------------------------------------------------------------------------------------


# what an entry of outputs_info may say; the last two mean something to Theano alone
OUTPUT = frozenset({"initial", "taps", "return_steps", "inplace"})


def _state(info: Any, number: int) -> State:
    given = info if isinstance(info, dict) else {"initial": info}
    unknown = given.keys() - OUTPUT
    if unknown:
        raise ValueError(
            f"output {number}: outputs_info says {', '.join(sorted(unknown))}; {', '.join(sorted(OUTPUT))} are known"
        )
    initial, taps = given.get("initial"), given.get("taps", [-1])
    if initial is None:
        if isinstance(info, dict) and info.get("taps") is not None:
            raise ValueError(
                "If you are using slices of an output you need to provide a initial state for it", info
            )
        return State()
    initial = _tensor(initial, "carries")
    taps = [taps] if isinstance(taps, int) else list(taps)
    if any(t >= 0 for t in taps):
        raise ValueError(f"All the tap values must be smaller than 0, output {number} has {taps}")
    if len(set(taps)) < len(taps):
        raise ValueError(f"All the taps must be different from each other, output {number} has {taps}")
    oldest = min(taps)
    if oldest == -1:
        first = [initial]
    else:
        if initial.type.ndim == 0:
            raise ValueError(
                f"output {number}: taps {taps} need an initial value with {-oldest} elements on its first axis"
            )
        first = [initial[k] for k in range(-oldest)]
    names = [f"{initial.name}[t{oldest + k:+d}]" if initial.name else None for k in range(-oldest)]
    params = [with_test_value(v.type(n), v, lambda value: value) for v, n in zip(first, names)]
    return State(initial, taps, first, params)


def _checked(output: Any, state: State, number: int) -> Any:
    """The output as a next state: of the dtype and axes of the initial value."""
    if state.initial is None:
        return output
    wanted = state.params[0].type
    said = (
        "When compiling the inner function of scan the following error has been encountered: The initial state "
        f"(`outputs_info` in scan nomenclature) of variable {output} (argument number {number})"
    )
    if output.type.dtype != wanted.dtype:
        raise ValueError(
            f"{said} has dtype {wanted.dtype}, while the result of the inner function (`fn`) has dtype {output.type.dtype}. "
            "This can happen if the inner function of scan results in an upcast or downcast: start with a state of that "
            f"dtype, such as T.zeros(shape, '{output.type.dtype}') (a Python 0 is int8), or cast what fn returns."
        )
    if output.type.ndim != wanted.ndim:
        raise ValueError(
            f"{said} has {wanted.ndim} dimension(s), while the result of the inner function (`fn`) has {output.type.ndim} "
            "dimension(s). This can happen if the inner function of scan changes its number of dimensions: the state must "
            "start with as many as fn returns."
        )
    if output.type != wanted:
        raise TypeError(
            f"Cannot convert Type {output.type} (of Variable {output}) into Type {wanted}. The state of a scan must keep its "
            "broadcast flags: use tensor.unbroadcast(state, axis) or tensor.addbroadcast(...)."
        )
    return output


def _called(fn: Callable[..., Any], elements: list[Any], prior: list[Any], others: list[Any]) -> Any:
    """What the step gives; an error says what it was called with, if that is not what it takes."""
    args = [*elements, *prior, *others]
    try:
        return fn(*args)
    except TypeError as e:
        if not _takes(fn, args):
            e.add_note(
                f"scan calls it with {len(args)} arguments: {len(elements)} elements of sequences, {len(prior)} prior outputs "
                f"and {len(others)} non-sequences, in that order"
            )
        raise


def _takes(fn: Callable[..., Any], args: Sequence[Any]) -> bool:
    try:
        inspect.signature(fn).bind(*args)
    except TypeError:
        return False
    except ValueError:  # no signature is known
        return True
    return True


def _returned(made: Any) -> tuple[list[Any], list[tuple[Any, Any]], Any]:
    """(outputs, updates, condition) of what a step function returned."""
    outputs: list[Any] = []
    updates: list[tuple[Any, Any]] = []
    condition = None
    parts = list(made) if isinstance(made, tuple) else [made]
    if isinstance(made, list):
        kinds = (list, tuple, dict, until)
        parts = made if any(isinstance(p, kinds) and not _is_update(p) for p in made) else [made]
    flat = isinstance(made, tuple) and not any(isinstance(p, list | tuple | dict | until) for p in parts)
    if flat:
        return [_tensor(p, "stacks") for p in parts], [], None
    for part in parts:
        if part is None:
            continue
        if isinstance(part, until):
            condition = part.condition
        elif isinstance(part, dict):
            updates += list(part.items())
        elif isinstance(part, list | tuple):
            if part and all(_is_update(p) for p in part):
                updates += [(p[0], p[1]) for p in part]
            else:
                outputs += [_tensor(p, "stacks") for p in part]
        else:
            outputs.append(_tensor(part, "stacks"))
    return outputs, [(s, s.type.filter_variable(e)) for s, e in updates], condition


def _is_update(p: Any) -> bool:
    return isinstance(p, list | tuple) and len(p) == 2 and isinstance(p[0], SharedVariable)


# -- the node --------------------------------------------------------------------------------------------------------


def _built(
    cuts: Sequence[Any],
    elements: Sequence[Any],
    states: Sequence[State],
    outputs: Sequence[Any],
    updates: Sequence[tuple[Any, Any]],
    length: Size,
    name: str | None,
    strict: bool,
    others: Sequence[Any],
    truncate: int,
    condition: Any,
) -> tuple[list[Any], OrderedUpdates]:
    targets = [s for s, _ in updates]
    held = [s.type(s.name) for s in targets]
    ends = [] if condition is None else [_condition(condition)]
    results = rebuild([*outputs, *(e for _, e in updates), *ends], dict(zip(targets, held)))
    ends = [results.pop()] if ends else []
    count = len(outputs)
    if static_size(length) == 1 and not ends:
        return _inlined(cuts, elements, states, results, targets, held, count)
    params: list[Any] = [*elements]
    operands: list[Any] = [*cuts]
    following: list[Any] = []
    for state, out in zip(states, results):
        params += state.params
        operands += state.first
        following += [*state.params[1:], out] if state.params else []
    params += held
    operands += targets
    following += results[count:]
    body = Body(tuple(params), (*following, *results[:count], *ends))
    if strict:
        _refuse_captures(body, others)
    known = static_size(length)
    types: list[TensorType] = [o.type for o in operands[len(cuts) :]]
    types += [tensor_type(r.type.dtype, (known, *r.type.shape)) for r in results[:count]]
    types += [LSCALAR for _ in ends]
    attrs = {"seqs": len(cuts), "carries": len(following), "length": length, "reverse": False}
    attrs |= {"truncate": truncate, "until": bool(ends)}
    read = set(ancestors(body.results)) if others else ()
    unused = [v for v in others if v not in read]
    inputs = (size_variable(length), *operands, *captures(body), *unused)
    shown = Shown(f"for{{cpu,{name or 'scan_fn'}}}", inputs)
    node = Apply(build.row("scan"), operands, attrs, types, body=body, shown=shown)
    last = node.results[len(following) - len(targets) : len(following)]
    stacks = list(node.results[len(following) : len(following) + count])
    if ends:
        stacks = [cut_to(s, node.results[-1]) for s in stacks]
    return stacks, OrderedUpdates(zip(targets, last))


def _condition(given: Any) -> Any:
    """Whether to end, as a bool."""
    if given.type.ndim != 0:
        raise TypeError(f"until() takes a scalar, got {given.type}")
    if given.type.dtype == "bool":
        return given
    return build.elementwise("ne", given, scalar_constant(0, given.type.dtype))


def _inlined(
    cuts: Sequence[Any],
    elements: Sequence[Any],
    states: Sequence[State],
    results: Sequence[Any],
    targets: Sequence[Any],
    held: Sequence[Any],
    count: int,
) -> tuple[list[Any], OrderedUpdates]:
    """One step is no loop: the parameters are replaced by what they stand for."""
    given = {e: c[0] for e, c in zip(elements, cuts)}
    for state in states:
        given |= dict(zip(state.params, state.first))
    given |= dict(zip(held, targets))
    made = rebuild(results, given)
    return [unbroadcast(shape_padleft(o), 0) for o in made[:count]], OrderedUpdates(
        zip(targets, made[count:])
    )


def _refuse_captures(body: Body, given: Sequence[Any]) -> None:
    """The shared variables that a body uses must be given, or hang on what is."""
    above = set(given)
    used = captures(body)
    leaves = [*used, *(v for n in toposort(used, stop=lambda v: v in above) for v in n.sources)]
    for v in leaves:
        if isinstance(v, SharedVariable) and v not in above:
            raise MissingInputError(
                f"ScanOp is missing an input: {v}. With strict=True pass it through non_sequences."
            )


def map(
    fn: Callable[..., Any],
    sequences: Any,
    non_sequences: Any = None,
    go_backwards: bool = False,
    name: str | None = None,
    **_: Any,
) -> tuple[Any, OrderedUpdates]:
    """`fn` applied to each element."""
    return scan(fn, sequences, None, non_sequences, go_backwards=go_backwards, name=name)


def reduce(
    fn: Callable[..., Any],
    sequences: Any,
    outputs_info: Any,
    non_sequences: Any = None,
    go_backwards: bool = False,
    name: str | None = None,
    **_: Any,
) -> tuple[Any, OrderedUpdates]:
    """The last state of `fn` (element, accumulator) -> accumulator."""
    made, updates = scan(fn, sequences, outputs_info, non_sequences, go_backwards=go_backwards, name=name)
    last = [m[-1] for m in made] if isinstance(made, list) else made[-1]
    return last, updates


def foldl(
    fn: Callable[..., Any], sequences: Any, outputs_info: Any, non_sequences: Any = None, **rest: Any
) -> Any:
    """`reduce` from the first element on."""
    return reduce(fn, sequences, outputs_info, non_sequences, go_backwards=False, **rest)


def foldr(
    fn: Callable[..., Any], sequences: Any, outputs_info: Any, non_sequences: Any = None, **rest: Any
) -> Any:
    """`reduce` from the last element on."""
    return reduce(fn, sequences, outputs_info, non_sequences, go_backwards=True, **rest)
