"""Values that travel with a graph while it is built (config.compute_test_value), so that mistakes show where they are made."""

from __future__ import annotations

import warnings
from typing import Any

from tcc.graph import Apply
from tcc.settings import config
from tcc.sharedvar import TensorSharedVariable
from tcc.variable import Constant, SharedVariable, Variable


def attach(node: Apply) -> None:
    """Gives the results of a new node their test values, if its inputs have theirs.

    With the policy "raise" AttributeError names the first input that has none.
    """
    values = {}
    for number, v in enumerate(node.inputs):
        if isinstance(v, Constant):
            continue
        value = value_of(v)
        if value is None:
            return _missing(node, number, v)
        values[v] = value
    from tcc.ir import interpret
    from tcc.lower import lower

    with _off():
        given = [v for v in values if not isinstance(v, SharedVariable)]
        lowered = lower(given, list(node.results))
        arrays = [values[v] for v in (*given, *lowered.shared)]
        for result, value in zip(node.results, interpret.run(lowered.func, *arrays)):
            result.tag.test_value = value


def value_of(v: Any) -> Any:
    """A variable's test value as an array of its type, or None."""
    if isinstance(v, SharedVariable):
        return (
            v.get_value(borrow=True) if isinstance(v, TensorSharedVariable) else v.container.get(borrow=True)
        )
    given = getattr(v.tag, "test_value", None) if "tag" in v.__dict__ else None
    return None if given is None else v.type.filter(given)


def _missing(node: Apply, number: int, v: Variable) -> None:
    message = f"Cannot compute test value: input {number} ({v}) of Op {node!r} missing default value."
    if config.compute_test_value == "raise":
        raise AttributeError(message)
    if config.compute_test_value == "warn":
        warnings.warn(message, stacklevel=5)


class _off:
    """No test values while one is computed."""

    def __enter__(self) -> None:
        self.policy = config.compute_test_value
        config.compute_test_value = "off"

    def __exit__(self, *_: object) -> None:
        config.compute_test_value = self.policy
