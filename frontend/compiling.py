"""`tcc.function`: from inputs, outputs, updates and givens to something that can be called."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tcc.graph import ancestors, rebuild, shown_inputs, toposort
from tcc.ir import interpret
from tcc.ir.core import Func
from tcc.lower import Lowered, lower, place
from tcc.modes import BadOptimization, Mode, get_mode
from tcc.printing import visible
from tcc.runtime.buffers import Container
from tcc.runtime.callable import Function as NativeFunction
from tcc.runtime.callable import Parameter
from tcc.runtime.signature import SizeMismatch
from tcc.settings import config
from tcc.types import TensorType
from tcc.variable import Constant, SharedVariable, Variable, as_variable


class UnusedInputError(Exception):
    """An input on which nothing depends."""


class MissingInputError(Exception):
    """A variable of the graph that is neither an input nor given a value."""


class In:
    """An input with options: `value` is its default, `name` its keyword, `allow_downcast` and `strict` how it converts."""

    def __init__(
        self,
        variable: Any,
        name: str | None = None,
        value: Any = None,
        update: Any = None,
        mutable: bool | None = None,
        strict: bool = False,
        borrow: bool | None = None,
        allow_downcast: bool | None = None,
        autoname: bool = True,
        implicit: bool | None = None,
    ) -> None:
        if update is not None:
            raise NotImplementedError(
                "In(update=...): keep the value in a shared variable and pass `updates` instead"
            )
        self.variable, self.value, self.strict, self.allow_downcast = variable, value, strict, allow_downcast
        self.name = name or (variable.name if autoname else None)
        self.mutable, self.borrow, self.implicit = bool(mutable), bool(borrow), implicit


Param = In


class Out:
    """An output; `borrow` allows the result to be memory that the function goes on using."""

    def __init__(self, variable: Any, borrow: bool = False) -> None:
        self.variable, self.borrow = as_variable(variable), borrow


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
) -> Any:
    """A callable that computes `outputs` (a variable, list, dict or None) from `inputs` and then applies `updates`.

    `updates` are (shared variable, new value) pairs, all computed from the old values; `givens` are (variable, replacement)
    pairs.  UnusedInputError, MissingInputError and TypeError say what does not fit.
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
    replace = _as_givens(givens, [i.variable for i in ins])
    pairs += default_updates(outs, pairs, replace, no_default_updates)
    results = rebuild([*outs, *(e for _, e in pairs)], replace)
    count = len(outs)
    pairs = [(s, e) for (s, _), e in zip(pairs, results[count:])]
    _check_inputs([i.variable for i in ins], results, on_unused_input or config.on_unused_input)
    returns = "list" if outputs is None or isinstance(outputs, list | tuple | dict) else "array"
    recipe = Recipe(ins, results[:count], pairs, name, get_mode(mode), returns)
    keys = sorted(outputs) if isinstance(outputs, dict) else None
    return recipe.make() if keys is None else DictFunction(recipe.make(), keys)


@dataclass(frozen=True)
class Recipe:
    """What a function is made of; pickled and copied functions are made again."""

    inputs: list[In]
    outputs: list[Any]
    updates: list[tuple[Any, Any]]
    name: str
    mode: Mode
    returns: str

    def make(self) -> Any:
        lowered = lower([i.variable for i in self.inputs], self.outputs, self.updates, _symbol(self.name))
        parameters = [_parameter(i, number, self.name) for number, i in enumerate(self.inputs)]
        made = self.mode.make(self.name, parameters, lowered, self.returns)
        made.recipe = self
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        """With its nodes in front, operands before users, so that pickling goes no deeper than one node."""
        fields = (self.inputs, self.outputs, self.updates, self.name, self.mode, self.returns)
        return _recipe, (toposort([*self.outputs, *(e for _, e in self.updates)]), *fields)

    def changed(self, swap: Mapping[Any, Any], delete_updates: bool, name: str | None) -> Recipe:
        """With shared variables in place of others, without updates, or under another name."""
        pairs = [] if delete_updates else self.updates
        made = rebuild([*self.outputs, *(e for _, e in pairs)], swap)
        count = len(self.outputs)
        updates = [(swap.get(s, s), e) for (s, _), e in zip(pairs, made[count:])]
        return Recipe(self.inputs, made[:count], updates, name or self.name, self.mode, self.returns)


def _recipe(nodes: Sequence[Any], *fields: Any) -> Recipe:
    return Recipe(*fields)


class Made:
    """What compiled and interpreted functions have in common: the recipe, with which they are copied and pickled."""

    recipe: Recipe

    @property
    def output_variables(self) -> Sequence[Any]:
        return self.recipe.outputs

    @property
    def update_variables(self) -> Sequence[Any]:
        return self.recipe.updates

    def copy(
        self,
        name: str | None = None,
        share_memory: bool = False,
        swap: Mapping[Any, Any] | None = None,
        delete_updates: bool = False,
    ) -> Any:
        """Another function of the same recipe and the same shared variables.

        `swap` puts shared variables of the same types in place of others; with `delete_updates` nothing is updated.
        TypeError names a pair of different types.
        """
        for old, new in (swap or {}).items():
            if old.type != new.type:
                raise TypeError(f"copy: swap has {new}, a {new.type}, for {old}, a {old.type}")
        return self.recipe.changed(swap or {}, delete_updates, name).make()

    def __reduce__(self) -> tuple[Any, ...]:
        return Recipe.make, (self.recipe,)


def evaluate(v: Variable, values: Mapping[Variable, Any]) -> Any:
    """`v.eval`: small graphs run once are interpreted; the function is kept with the variable."""
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
    except TypeError as e:
        raise TypeError(
            f"Outputs must be theano Variable or Out instances. Received {value!r} of type {type(value)}"
        ) from e


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
    except (TypeError, AttributeError) as e:
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
        ) from e


def _as_givens(givens: Any, inputs: Sequence[Variable]) -> dict[Any, Any]:
    pairs = givens.items() if isinstance(givens, Mapping) else givens or []
    replace: dict[Any, Any] = {}
    for old, new in pairs:
        if not isinstance(old, Variable):
            raise TypeError("given keys must be Variable", old)
        if old in inputs:
            raise RuntimeError(
                f"You are trying to replace variable {old} through the `givens` parameter, but this variable is an input to "
                "your function. Replacing inputs is currently forbidden because it has no effect. One way to modify an input "
                "`x` to a function evaluating f(x) is to define a new input `y` and use "
                "`theano.function([y], f(x), givens={x: g(y)})`. Another solution consists in using `theano.clone`."
            )
        replace[old] = old.type.filter_variable(new)
    return replace


def default_updates(
    outputs: Sequence[Any],
    pairs: Sequence[tuple[Any, Any]],
    replace: Mapping[Any, Any],
    without: bool | Sequence[Any],
) -> list[tuple[Any, Any]]:
    """The default updates of every shared variable that the graph, as the user wrote it, hangs on."""
    if without is True:
        return []
    excluded = set(without) if isinstance(without, list | tuple | set) else set()
    found: dict[Any, Any] = {}
    given = {s for s, _ in pairs}
    waiting = [*outputs, *(e for _, e in pairs), *replace.values()]
    while waiting:
        fresh = [
            v
            for v in ancestors(waiting)
            if isinstance(v, SharedVariable) and v not in found and v not in given and v not in excluded
        ]
        waiting = []
        for v in fresh:
            if getattr(v, "default_update", None) is not None:
                found[v] = _update_value(v, v.default_update)
                waiting.append(found[v])
    return list(found.items())


def _check_inputs(given: Sequence[Variable], results: Sequence[Any], on_unused: str) -> None:
    used = set(ancestors(results))
    for number, v in enumerate(given):
        if v in used or on_unused == "ignore":
            continue
        text = (
            "theano.function was asked to create a function computing outputs given certain inputs, but the provided input "
            f"variable at index {number} is not part of the computational graph needed to compute the outputs: {v}.\n"
        )
        if on_unused == "warn":
            warnings.warn(text, stacklevel=3)
            continue
        if on_unused != "raise":
            raise ValueError(f"on_unused_input must be raise, warn or ignore, got {on_unused!r}")
        raise UnusedInputError(
            text
            + "To make this error into a warning, you can pass the parameter on_unused_input='warn' to theano.function. "
            "To disable it completely, use on_unused_input='ignore'."
        )
    above = set(given)
    leaves = [v for v in _leaves(results, above) if not isinstance(v, Constant | SharedVariable)]
    missing = [v for v in leaves if v not in above]
    if missing:
        _refuse_missing(missing[0], leaves, results)


def _leaves(results: Sequence[Any], given: set[Variable]) -> list[Any]:
    """Inputs of the graph below what is given (an input may be an intermediate variable)."""
    params: set[Any] = set()
    found: dict[Any, None] = {v: None for v in results if v.owner is None or v in given}
    for node in toposort(results, stop=lambda v: v in given):
        found.update((v, None) for v in node.inputs if v.owner is None or v in given)
        if node.body is not None:
            params.update(node.body.params)
    return [v for v in found if v not in params]


def _refuse_missing(v: Variable, leaves: Sequence[Any], results: Sequence[Any]) -> None:
    shown = [n for n in toposort(results) if not n.implicit and v in map(visible, shown_inputs(n))]
    node = min(shown, key=lambda n: n.name == "shape_of", default=None)
    by = f", used to compute {node!r}," if node is not None else ""
    number = list(leaves).index(v)
    raise MissingInputError(
        f"Input {number} of the graph (indices start from 0){by} was not provided and not given a value. "
        f"It is {v}, of {v.type}, created at {place(v.loc)}: add it to `inputs`, or replace it through `givens`."
    )


def _parameter(i: In, number: int, function_name: str) -> Parameter:
    v, kind = i.variable, i.variable.type
    if not isinstance(kind, TensorType):
        raise TypeError(f"the input {v} is of {kind}; only tensors can be inputs")
    strict, allow = i.strict, i.allow_downcast

    def convert(value: Any) -> np.ndarray[Any, Any]:
        try:
            return kind.filter(value, strict, allow)
        except (TypeError, ValueError) as e:
            said = f" {i.name}" if i.name else ""
            first = (
                f'Bad input argument{said} to theano function with name "{function_name}" at index {number} (0-based).\n'
                f"Backtrace when that variable is created:\n\n  {place(v.loc)}\n\n"
            )
            e.args = (first + " ".join(map(str, e.args)),)
            raise

    default: Callable[[], Any] | None = None
    if i.value is not None:
        held = i.value
        kind.filter(held, strict, allow)
        default = lambda: held  # noqa: E731
    return Parameter(i.name or f"input_{number}", kind.ir, kind.ndim, convert, default)


def _caller() -> str:
    frame = sys._getframe(2)
    while frame is not None and frame.f_globals.get("__name__", "").startswith("tcc"):
        frame = frame.f_back  # type: ignore[assignment]
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else "<unknown>:0"


def _symbol(name: str) -> str:
    """The function's name in the IR: without the folder of the file that made it."""
    text = "".join(c if c.isalnum() else "_" for c in os.path.basename(name))
    return text if text[:1].isalpha() or text[:1] == "_" else f"f{text}"


# -- what is called --------------------------------------------------------------------------------------------------


def explained(lowered: Lowered) -> Callable[[SizeMismatch], Exception]:
    """Turns a size mismatch at the entry into an error that names the op and the line that need the sizes equal."""
    params = lowered.func.body.params
    reasons = {f"{params[p].name}, axis {axis}": text for (p, axis), text in lowered.why.items()}

    def explain(e: SizeMismatch) -> Exception:
        text = str(e)
        where = text.split(":")[0]
        reason = reasons.get(where)
        if reason is None:
            return ValueError(f"Input dimension mis-match. {text}")
        return ValueError(f"Input dimension mis-match. {text}\nApply node that caused the error: {reason}")

    return explain


class InterpretedFunction(Made):
    """Runs the IR as it was lowered, with NumPy: no compilation, for graphs that run once.

    `frame` is the interpreter, or one that looks at what passes through it (tcc.modes).
    """

    def __init__(
        self,
        name: str,
        parameters: Sequence[Parameter],
        lowered: Lowered,
        returns: str,
        frame: type[interpret.Frame] = interpret.Frame,
    ) -> None:
        self.name, self.parameters, self.lowered, self.returns = name, tuple(parameters), lowered, returns
        self.func = lowered.func
        self.program = _program(lowered, returns)
        self.frame = frame

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        values = NativeFunction._arguments(self, args, kwargs)  # type: ignore[arg-type]
        arrays = [p.convert(v) for p, v in zip(self.parameters, values, strict=True)]
        results = self.run(arrays)
        return results[0] if self.returns == "array" else results

    def run(self, arrays: Sequence[np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
        """New arrays; updates are stored when everything is computed."""
        results, updates = self.computed(arrays)
        for n, value in updates.items():
            self.program.containers[n].set(value)
        return results

    def computed(
        self, arrays: Sequence[np.ndarray[Any, Any]]
    ) -> tuple[list[np.ndarray[Any, Any]], dict[str, np.ndarray[Any, Any]]]:
        """The results, and the new values of shared variables by their names."""
        self.program.bind(arrays)
        containers = self.program.containers
        func = self.lowered.func
        shared = func.attrs.get("shared", [])
        made = interpret.run(func, *arrays, *(containers[n].get() for n in shared), frame=self.frame())
        updates = {n: np.asarray(made[index]) for n, index in func.attrs.get("updates", {}).items()}
        count = len(made) - len(updates)
        return [np.array(r) for r in made[:count]], updates


class DebugFunction(InterpretedFunction):
    """Interprets, and compares with compiled code that works on copies of the shared variables."""

    def computed(
        self, arrays: Sequence[np.ndarray[Any, Any]]
    ) -> tuple[list[np.ndarray[Any, Any]], dict[str, np.ndarray[Any, Any]]]:
        results, updates = super().computed(arrays)
        if any(op.name == "call" for op in self.func.body.walk()):
            return results, updates
        from tcc.driver import Program

        copies = {n: Container(c.get()) for n, c in self.program.containers.items()}
        program = Program(self.func, copies, "list", explained(self.lowered))
        native = NativeFunction(self.name, self.parameters, program.specialise)(*arrays)
        self.compare([(f"output {i}", a, b) for i, (a, b) in enumerate(zip(results, native, strict=True))])
        self.compare([(f"the new value of {n}", v, copies[n].get()) for n, v in updates.items()])
        return results, updates

    def compare(self, pairs: Sequence[tuple[str, Any, Any]]) -> None:
        for what, want, got in pairs:
            precision = np.finfo(want.dtype).eps if want.dtype.kind in "fc" else 0
            scale = np.max(np.abs(want[np.isfinite(want)]), initial=0) if precision else 0
            if not np.allclose(
                got, want, rtol=1000 * precision, atol=1000 * precision * scale, equal_nan=True
            ):
                raise BadOptimization(
                    f"{what} of {self.name}: compiled code gives\n{got}\nand the program as written\n{want}"
                )


class CompiledFunction(Made, NativeFunction):
    """Native code, compiled for the sizes that calls bring."""

    program: Any

    def optimised(self) -> Func:
        """The function after the passes, for the sizes of its last compile."""
        from tcc.ir.text import parse_func

        history = self.program.history
        return parse_func(self.program.text("fused", history[-1].sizes if history else {}))


def compiled(name: str, parameters: Sequence[Parameter], lowered: Lowered, returns: str) -> Any:
    """The function as native code, which is made at its first call."""
    from tcc.codegen import support

    support.load()
    program = _program(lowered, returns)
    made = CompiledFunction(name, parameters, program.specialise)
    made.program, made.lowered, made.func = program, lowered, lowered.func
    return made


def _program(lowered: Lowered, returns: Any) -> Any:
    from tcc.driver import Program

    names = lowered.func.attrs.get("shared", [])
    containers = {n: s.container for n, s in zip(names, lowered.shared)}
    return Program(lowered.func, containers, returns, explained(lowered))


class DictFunction:
    """A function whose outputs have names."""

    def __init__(self, inner: Any, keys: Sequence[str]) -> None:
        self.inner, self.keys = inner, list(keys)

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return dict(zip(self.keys, self.inner(*args, **kwargs)))

    def __reduce__(self) -> tuple[Any, ...]:
        return DictFunction, (self.inner, self.keys)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)
