"""`tcc.function`: from inputs, outputs, updates and givens to something that can be called."""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tcc.build import cast
from tcc.functions import DictFunction, In, Recipe, left_behind, with_updates
from tcc.graph import ancestors, rebuild, shown_inputs, toposort
from tcc.ir.callers import warn
from tcc.locations import place
from tcc.modes import get_mode
from tcc.printing import visible
from tcc.settings import config, device_name
from tcc.types import TensorType
from tcc.variable import Constant, SharedVariable, TensorConstant, Variable, as_variable, target_of


class UnusedInputError(Exception):
    """An input on which nothing depends."""


class MissingInputError(Exception):
    """A variable of the graph that is neither an input nor given a value."""


class InconsistencyError(Exception):
    """An op that would overwrite what it may not."""


class Out:
    """An output; `borrow` allows the result to be memory that the function goes on using."""

    def __init__(self, variable: Any, borrow: bool = False) -> None:
        self.variable = variable if isinstance(variable, Variable) else as_variable(variable)
        self.borrow = borrow


def function(
    inputs: Sequence[Any],
    outputs: Any = None,
    mode: Any = None,
    updates: Any = None,
    givens: Any = None,
    no_default_updates: bool | Sequence[Any] = False,
    accept_inplace: bool = False,
    name: str | None = None,
    rebuild_strict: bool = True,
    allow_input_downcast: bool | None = None,
    profile: Any = None,
    on_unused_input: str | None = None,
    device: str | None = None,
) -> Any:
    """A callable that computes `outputs` (a variable, list, dict or None) from `inputs` and then applies `updates`.

    `updates` are (shared variable, new value) pairs, all computed from the old values; `givens` are (variable, replacement)
    pairs, of the same types unless `rebuild_strict` is False.  `accept_inplace` lets ops overwrite inputs, as `In(mutable=True)`
    does for one.  Shared variables with a `default_update`, such as random states, get it at each call, but for those in
    `no_default_updates` (all with True).  `mode` says how the function is made, as `config.mode` has it; `name` is what messages
    and profiles call it.  `allow_input_downcast` lets calls bring numbers of more precision than an input's (None: Python floats
    for float32 alone).  `on_unused_input` is raise, warn or ignore.  With `profile` (True, a message, or a ProfileStats)
    calls are counted and timed: `f.profile.summary()`.  `device` is where it runs, as `config.device` has it; outputs made by
    `transfer` stay there.  UnusedInputError, MissingInputError and TypeError say what does not fit.

    A call takes arrays, numbers or lists, by position or by the names of inputs, and gives NumPy arrays.  TypeError and ValueError
    say which argument is wrong, IndexError which index; an error leaves all shared variables as they were.
    """
    if name is None:
        name = _caller()
    if isinstance(outputs, dict) and not all(isinstance(k, str) for k in outputs):
        raise AssertionError("the keys of an outputs dictionary must be strings")
    if not isinstance(inputs, list | tuple):
        raise Exception(
            "Input variables of a Theano function should be contained in a list, even when there is a single input."
        )
    ins = [_as_input(i, allow_input_downcast) for i in inputs]
    _refuse_duplicates(ins)
    outs = _as_outputs(outputs)
    pairs = _as_updates(updates)
    replace = _as_givens(givens, [i.variable for i in ins], rebuild_strict)
    ins = _with_overwritten(ins, [*outs, *(e for _, e in pairs)], accept_inplace)
    kept = left_behind(ins)
    pairs += default_updates([*outs, *kept], pairs, replace, no_default_updates, [i.variable for i in ins])
    results = rebuild([*outs, *(e for _, e in pairs), *kept], replace)
    count = len(outs)
    ins = with_updates(ins, results[count + len(pairs) :])
    pairs = [(s, e) for (s, _), e in zip(pairs, results[count:])]
    _check_inputs([i.variable for i in ins], results, on_unused_input or config.on_unused_input)
    returns = "list" if outputs is None or isinstance(outputs, list | tuple | dict) else "array"
    if device is not None:
        device_name(device)
    stay = frozenset(i for i, v in enumerate(outs) if device_name(target_of(v)) != "cpu")
    recipe = Recipe(ins, results[:count], pairs, name, get_mode(mode), returns, device, stay)
    keys = sorted(outputs) if isinstance(outputs, dict) else None
    start = time.perf_counter()
    made = recipe.make()
    if profile or profile is None and config.profile:
        from tcc.profiling import (
            profiled,
        )  # measuring kernels needs llvmlite, which importing tcc does not load

        made = profiled(made, profile, name, time.perf_counter() - start)
    return made if keys is None else DictFunction(made, keys)


def evaluate(v: Variable, values: Mapping[Variable, Any]) -> Any:
    """`v.eval`: small graphs run once are interpreted; the function is kept with the variable."""
    for key in values.keys():  # noqa: SIM118 (AttributeError names it for what is no dict)
        if not isinstance(key, Variable):
            raise TypeError(f"eval takes a dict from variables to their values, got the key {key!r}")
    inputs = tuple(sorted(values.keys(), key=id))
    cache = v.__dict__.setdefault("_fn_cache", {})
    if inputs not in cache:
        cache[inputs] = function(inputs, v, mode="FAST_COMPILE")
    return cache[inputs](*(values[i] for i in inputs))


# -- what is given to `function` -------------------------------------------------------------------------------------


def _as_input(given: Any, allow_downcast: bool | None) -> In:
    made = given if isinstance(given, In) else None
    if isinstance(given, tuple) and len(given) == 2 and isinstance(given[0], Variable):
        made = In(given[0], value=given[1])
    if made is None:
        if not isinstance(given, Variable):
            raise TypeError(
                f"Unknown parameter type: {type(given)} ({given!r}); inputs are variables or In(...)"
            )
        made = In(given)
    if isinstance(made.variable, SharedVariable):
        raise TypeError(
            f"Cannot use a shared variable ({made.variable}) as explicit input. Consider substituting a non-shared variable "
            "via the `givens` parameter"
        )
    if isinstance(made.variable, Constant):
        raise TypeError(f"A constant cannot be an input of a function: {made.variable}")
    if made.allow_downcast is None:
        made.allow_downcast = config.allow_input_downcast if allow_downcast is None else allow_downcast
    return made


def _with_overwritten(ins: Sequence[In], results: Sequence[Any], accepted: bool) -> list[In]:
    """The inputs, those that ops overwrite (`destroy_map`: result number -> numbers of operands) with what is left in them."""
    given = {i.variable: number for number, i in enumerate(ins)}
    made = list(ins)
    for node in toposort(results, stop=lambda v: v in given):
        op = node.attrs.get("op") or (node.shown.op if node.shown is not None else None)
        for result, operands in (getattr(op, "destroy_map", None) or {}).items():
            for number in {given[v] for v in (shown_inputs(node)[k] for k in operands) if v in given}:
                if not (accepted or ins[number].mutable):
                    raise InconsistencyError(
                        f"Trying to destroy a protected Variable: {node} overwrites the input {ins[number].variable}. "
                        "Make it In(..., mutable=True), or pass accept_inplace=True."
                    )
                made[number] = copy.copy(made[number])
                made[number].overwritten = node.results[result]
    return made


def _refuse_duplicates(ins: Sequence[In]) -> None:
    first: dict[Variable, int] = {}
    for number, i in enumerate(ins):
        if i.variable in first:
            raise UnusedInputError(
                f"Variable {i.variable} is used twice in inputs to theano.function at indices {first[i.variable]} and "
                f"{number}.  This would result in values provided for it being ignored. Please do not duplicate variables "
                "in the inputs list."
            )
        first[i.variable] = number


def _as_outputs(outputs: Any) -> list[Any]:
    if outputs is None:
        return []
    if isinstance(outputs, dict):
        outputs = [outputs[k] for k in sorted(outputs)]
    if not isinstance(outputs, list | tuple):
        outputs = [outputs]
    return [
        o.variable if isinstance(o, Out) else o if isinstance(o, Variable) else _output(o) for o in outputs
    ]


def _output(value: Any) -> Any:
    try:
        return as_variable(value)
    except TypeError:
        raise TypeError(
            f"Outputs must be theano Variable or Out instances. Received {value!r} of type {type(value)}"
        ) from None


def _as_updates(updates: Any) -> list[tuple[Any, Any]]:
    if updates is None:
        return []
    if isinstance(updates, Mapping):
        updates = updates.items()
    pairs: dict[Any, Any] = {}
    for pair in updates:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise ValueError(
                f"Error: updates parameter must be an OrderedDict/dict or a list of lists/tuples with 2 elements, got {pair!r}"
            )
        target, value = pair
        if not isinstance(target, SharedVariable):
            raise TypeError("update target must be a SharedVariable", target)
        if target in pairs:
            raise ValueError("this shared variable already has an update expression", (target, pairs[target]))
        pairs[target] = _update_value(target, value)
    return list(pairs.items())


def _update_value(target: Any, value: Any) -> Any:
    try:
        return target.type.filter_variable(value, allow_convert=False)
    except (TypeError, AttributeError):
        kind = value.type if isinstance(value, Variable) else type(value)
        message = (
            "An update must have the same type as the original shared variable "
            f"(shared_var={target}, shared_var.type={target.type}, update_val={value}, update_val.type={kind})."
        )
        if isinstance(value, Variable) and getattr(value.type, "dtype", "") != target.type.dtype:
            message += f" Cast it: x.astype('{target.type.dtype}')."
        raise TypeError(
            message,
            "If the difference is related to the broadcast pattern, you can call the tensor.unbroadcast(var, "
            "axis_to_unbroadcast[, ...]) function to remove broadcastable dimensions.",
        ) from None


def _as_givens(givens: Any, inputs: Sequence[Variable], strict: bool) -> dict[Any, Any]:
    pairs = givens.items() if isinstance(givens, Mapping) else givens or []
    replace: dict[Any, Any] = {}
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise TypeError(
                f"givens must be a dict or pairs of a variable and what replaces it, got {pair!r}"
            )
        old, new = pair
        if not isinstance(old, Variable):
            raise TypeError("given keys must be Variable", old)
        if old in inputs:
            raise RuntimeError(
                f"You are trying to replace variable {old} through the `givens` parameter, but this variable is an input to "
                "your function. Replacing inputs is currently forbidden because it has no effect. One way to modify an input "
                "`x` to a function evaluating f(x) is to define a new input `y` and use "
                "`theano.function([y], f(x), givens={x: g(y)})`. Another solution consists in using `theano.clone`."
            )
        try:
            replace[old] = old.type.filter_variable(new if strict else _cast_to(old, new))
        except TypeError as e:
            e.add_note(f"in `givens`, for {old}, of {old.type}, created at {place(old.loc)}")
            raise
    return replace


def _cast_to(old: Variable, new: Any) -> Any:
    """A tensor in the dtype and with the flags of the one it replaces, if it has as many axes."""
    from tcc.shapes import patternbroadcast

    if (
        not isinstance(old.type, TensorType)
        or not isinstance(new, Variable)
        or new.type.ndim != old.type.ndim
    ):
        return new
    return patternbroadcast(cast(new, old.type.dtype), old.type.broadcastable)


def default_updates(
    outputs: Sequence[Any],
    pairs: Sequence[tuple[Any, Any]],
    replace: Mapping[Any, Any],
    without: bool | Sequence[Any],
    given: Sequence[Any] = (),
) -> list[tuple[Any, Any]]:
    """The default updates of every shared variable that the graph, as the user wrote it, hangs on in front of `given`; one that
    is replaced counts only where the replacements hang on it."""
    if without is True:
        return []
    if without is not False and not isinstance(without, list | tuple | set):
        raise TypeError(f"no_default_updates should be either a boolean or a list, got {without!r}")
    excluded = set(without) if isinstance(without, list | tuple | set) else set()
    found: dict[Any, Any] = {}
    excluded |= {s for s, _ in pairs}
    waiting = [*outputs, *(e for _, e in pairs)]
    reached = ancestors(replace.values(), given)
    while waiting or reached:
        reached += [v for v in ancestors(waiting, [*given, *replace]) if v not in replace]
        fresh = [v for v in reached if isinstance(v, SharedVariable) and v not in found and v not in excluded]
        waiting, reached = [], []
        for v in dict.fromkeys(fresh):
            if getattr(v, "default_update", None) is not None:
                found[v] = _update_value(v, v.default_update)
                waiting.append(found[v])
    return list(found.items())


def _check_inputs(given: Sequence[Variable], results: Sequence[Any], on_unused: str) -> None:
    used = set(ancestors(results, given))
    if not used.issuperset(given):  # what a scan or an op takes without reading it is used, too
        shown = [v.owner.shown for v in used if v.owner is not None and v.owner.shown is not None]
        used |= set(ancestors([v for one in shown for v in one.inputs], given))
    used |= set(
        ancestors([v.sized for v in used if isinstance(v, TensorConstant) and v.sized is not None], given)
    )
    used.update([i for v in used for i in v.moved_by])
    above = set(given)
    leaves = [v for v in _leaves(results, above) if not isinstance(v, Constant | SharedVariable)]
    missing = [v for v in leaves if v not in above]
    for v in missing:
        if getattr(v.tag, "step", False):  # says more than that an input of the scan is not used
            _refuse_missing(v, leaves, results)
    for number, v in enumerate(given):
        if v in used or on_unused == "ignore":
            continue
        text = (
            "theano.function was asked to create a function computing outputs given certain inputs, but the provided input "
            f"variable at index {number} is not part of the computational graph needed to compute the outputs: {v}, "
            f"of {v.type}, created at {place(v.loc)}.\n"
        )
        if on_unused == "warn":
            warn(text)
            continue
        if on_unused != "raise":
            raise ValueError(f"on_unused_input must be raise, warn or ignore, got {on_unused!r}")
        raise UnusedInputError(
            text
            + "To make this error into a warning, you can pass the parameter on_unused_input='warn' to theano.function. "
            "To disable it completely, use on_unused_input='ignore'."
        )
    if missing:
        _refuse_missing(missing[0], leaves, results)


def _leaves(results: Sequence[Any], given: set[Variable]) -> list[Any]:
    """Inputs of the graph below what is given (an input may be an intermediate variable)."""
    params: set[Any] = set()
    found: dict[Any, None] = {v: None for v in results if v.owner is None or v in given}
    for node in toposort(results, stop=lambda v: v in given):
        found.update((v, None) for v in node.sources if v.owner is None or v in given)
        if node.body is not None:
            params.update(node.body.params)
    return [v for v in found if v not in params]


def _refuse_missing(v: Variable, leaves: Sequence[Any], results: Sequence[Any]) -> None:
    shown = [n for n in toposort(results) if not n.implicit and v in map(visible, shown_inputs(n))]
    node = min(shown, key=lambda n: n.name == "shape_of", default=None)
    by = f", used to compute {node!r}," if node is not None else ""
    number = list(leaves).index(v)
    advice = "add it to `inputs`, or replace it through `givens`"
    if getattr(v.tag, "step", False):
        advice = "it has a value in the steps of its scan alone, whose fn must return what is needed outside"
    raise MissingInputError(
        f"Input {number} of the graph (indices start from 0){by} was not provided and not given a value. "
        f"It is {v}, of {v.type}, created at {place(v.loc)}: {advice}."
    )


def _caller() -> str:
    frame = sys._getframe(2)
    while frame is not None and frame.f_globals.get("__name__", "").startswith("tcc"):
        frame = frame.f_back  # type: ignore[assignment]
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else "<unknown>:0"
