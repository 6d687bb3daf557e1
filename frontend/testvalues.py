"""Values that travel with a graph while it is built (config.compute_test_value), so that mistakes show where they are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tcc.graph import Apply, toposort
from tcc.ir.callers import warn
from tcc.settings import config
from tcc.sharedvar import TensorSharedVariable
from tcc.types import Packed
from tcc.variable import Constant, SharedVariable, Variable


class MissingTestValue(AttributeError, ValueError):
    """A variable without a test value where the policy is "raise"; programs catch it as the one or the other."""


def attach(node: Apply) -> None:
    """Gives the results of a new node their test values, if its inputs have theirs.

    With the policy "raise" MissingTestValue names the first input that has none.
    """
    values = {}
    for number, v in enumerate(node.sources):
        if isinstance(v, Constant):
            continue
        value = value_of(v)
        if value is None:
            return _missing(node, number, v)
        values[v] = value
    _compute(values, node.results)


def complete(outputs: Sequence[Variable]) -> None:
    """Gives variables their test values that were built while none were computed."""
    if config.compute_test_value == "off" or all(value_of(v) is not None for v in outputs):
        return
    known: dict[Any, Any] = {}

    def has(v: Variable) -> bool:
        value = v.data if isinstance(v, Constant) else value_of(v)
        if value is not None and not isinstance(v, Constant):
            known[v] = value
        return value is not None

    for node in toposort(outputs, stop=has):
        for number, v in enumerate(node.sources):
            if v.owner is None and not has(v):
                return _missing(node, number, v)
    _compute(known, outputs)


def _compute(values: Mapping[Any, Any], outputs: Sequence[Variable]) -> None:
    from tcc.callables import program_of
    from tcc.compiling import function
    from tcc.ir import interpret
    from tcc.lower import lower

    with untested():
        given = [v for v in values if not isinstance(v, SharedVariable)]
        if any(isinstance(v.type, Packed) for v in (*values, *outputs)):
            told = function(given, list(outputs), mode="FAST_COMPILE", on_unused_input="ignore")
            for result, value in zip(outputs, told(*(values[v] for v in given))):
                result.tag.test_value = value
            return
        lowered = lower(given, list(outputs))
        arrays = [values[v] for v in (*given, *lowered.shared)]
        try:
            made = interpret.run(lowered.func, *arrays)
        except ValueError:
            program_of(lowered, "list").bind(
                arrays[: len(given)]
            )  # which names the node whose sizes do not fit
            raise
        for result, value in zip(outputs, made):
            result.tag.test_value = value


def value_of(v: Any) -> Any:
    """A variable's test value as an array of its type, or None."""
    if isinstance(v, TensorSharedVariable):  # an array, where a stream's state shows as a RandomState
        return TensorSharedVariable.get_value(v)
    if isinstance(v, SharedVariable):
        return v.get_value(borrow=True)  # type: ignore[attr-defined]
    given = getattr(v.tag, "test_value", None) if "tag" in v.__dict__ else None
    return None if given is None else v.type.filter(given)


def _missing(node: Apply, number: int, v: Variable) -> None:
    message = f"Cannot compute test value: input {number} ({v}) of Op {node!r} missing default value."
    if config.compute_test_value == "raise":
        raise MissingTestValue(message)
    if config.compute_test_value == "warn":
        warn(message)


class untested:
    """No test values are computed inside."""

    def __enter__(self) -> None:
        self.policy = config.compute_test_value
        config.compute_test_value = "off"

    def __exit__(self, *_: object) -> None:
        config.compute_test_value = self.policy
