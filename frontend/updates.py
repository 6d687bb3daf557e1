"""Updates of shared variables, as `scan` returns them."""

from __future__ import annotations

from typing import Any

from tcc.variable import SharedVariable


class OrderedUpdates(dict[Any, Any]):
    """Updates of shared variables; `a + b` has both.  TypeError for the update of something else."""

    def __init__(self, *given: Any) -> None:
        super().__init__()
        self.update(*given)

    def __setitem__(self, key: Any, value: Any) -> None:
        if not isinstance(key, SharedVariable):
            raise TypeError("OrderedUpdates keys must inherit from SharedVariable", key)
        super().__setitem__(key, value)

    def update(self, given: Any = (), /) -> None:  # type: ignore[override]
        """Takes all of `given`.  KeyError for a variable that is to become something else already."""
        for key, value in dict(given).items():
            if self.get(key, value) is not value:
                raise KeyError("Collision", key)
            self[key] = value

    def __add__(self, other: Any) -> OrderedUpdates:
        made = OrderedUpdates(self)
        made.update(other)
        return made

    def __radd__(self, other: Any) -> OrderedUpdates:
        return OrderedUpdates(other) + self
