"""`RandomStreams`: numbers of NumPy's RandomState, as Theano's class of that name draws them.

Each draw has a RandomState of its own, in a shared variable; a function that uses the draw moves it on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tcc.ir.ops import legacy
from tcc.runtime.buffers import Container
from tcc.sharedvar import TensorSharedVariable
from tcc.tensor import raw_random
from tcc.tensor.raw_random import random_state_type


class RandomStateSharedVariable(TensorSharedVariable):
    """A RandomState that functions draw from.  What `get_value` returns is a copy: `set_value` puts it back."""

    def get_value(self, borrow: Any = False, return_internal_type: bool = False) -> Any:
        return legacy.unpack(self.container.get(True))

    def set_value(self, new_value: Any, borrow: bool = False) -> None:
        if not isinstance(new_value, np.random.RandomState):
            raise TypeError(
                f"{self.name or 'a random state'} holds a numpy.random.RandomState, got {new_value!r}"
            )
        self.container.set(legacy.pack(new_value))

    def clone(self) -> RandomStateSharedVariable:
        return RandomStateSharedVariable(self.type, self.container, self.name)


def randomstate_constructor(
    value: np.random.RandomState, name: str | None = None, borrow: bool = False
) -> RandomStateSharedVariable:
    """A shared variable that holds a RandomState."""
    return RandomStateSharedVariable(random_state_type, Container(legacy.pack(value)), name)


class RandomStreams:
    """Draws whose RandomStates are seeded one after the other from `RandomState(seed)`."""

    def __init__(self, seed: Any = None) -> None:
        self.state_updates: list[tuple[Any, Any]] = []
        self.default_instance_seed = seed
        self.gen_seedgen = np.random.RandomState(seed)

    def updates(self) -> list[tuple[Any, Any]]:
        return list(self.state_updates)

    def seed(self, seed: Any = None) -> None:
        """All draws start again, from another seed if one is given."""
        generator = np.random.RandomState(self.default_instance_seed if seed is None else seed)
        for state, _ in self.state_updates:
            state.set_value(np.random.RandomState(int(generator.randint(2**30))))

    def __getitem__(self, item: Any) -> np.random.RandomState:
        """The RandomState of the draw whose state or state after it is `item`."""
        made: np.random.RandomState = self._state(item).get_value()
        return made

    def __setitem__(self, item: Any, value: np.random.RandomState) -> None:
        self._state(item).set_value(value)

    def _state(self, item: Any) -> Any:
        for state, after in self.state_updates:
            if item is state or item is after:
                return state
        raise KeyError(item)

    def gen(self, op: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The numbers that `op(state, *args)` -> (state after, numbers) draws from a new state."""
        state = randomstate_constructor(np.random.RandomState(int(self.gen_seedgen.randint(2**30))))
        after, out = op(state, *args, **kwargs)
        out.rng, out.update = state, (state, after)
        self.state_updates.append(out.update)
        state.default_update = after
        return out

    def uniform(
        self, size: Any = None, low: Any = 0.0, high: Any = 1.0, ndim: Any = None, dtype: Any = None
    ) -> Any:
        """Numbers in [low, high)."""
        return self.gen(raw_random.uniform, size, low, high, ndim=ndim, dtype=dtype)

    def normal(
        self, size: Any = None, avg: Any = 0.0, std: Any = 1.0, ndim: Any = None, dtype: Any = None
    ) -> Any:
        """Normal numbers."""
        return self.gen(raw_random.normal, size, avg, std, ndim=ndim, dtype=dtype)

    def binomial(
        self,
        size: Any = None,
        n: Any = 1,
        p: Any = 0.5,
        ndim: Any = None,
        dtype: Any = "int64",
        prob: Any = None,
    ) -> Any:
        """How many of n trials succeed, each with probability p."""
        return self.gen(raw_random.binomial, size, n, p, ndim=ndim, dtype=dtype, prob=prob)

    def poisson(self, size: Any = None, lam: Any = None, ndim: Any = None, dtype: Any = "int64") -> Any:
        """How often something happens whose mean number is `lam`."""
        return self.gen(raw_random.poisson, size, 1.0 if lam is None else lam, ndim=ndim, dtype=dtype)

    def random_integers(
        self, size: Any = None, low: Any = 0, high: Any = 1, ndim: Any = None, dtype: Any = "int64"
    ) -> Any:
        """Whole numbers in low..high."""
        return self.gen(raw_random.random_integers, size, low, high, ndim=ndim, dtype=dtype)

    def choice(
        self,
        size: Any = None,
        a: Any = 2,
        replace: Any = True,
        p: Any = None,
        ndim: Any = None,
        dtype: Any = "int64",
    ) -> Any:
        """Elements of the vector `a`, or of 0..a-1, with probabilities p."""
        return self.gen(raw_random.choice, size, a, replace, p, ndim=ndim, dtype=dtype)

    def permutation(self, size: Any = None, n: Any = 1, ndim: Any = None, dtype: Any = "int64") -> Any:
        """The numbers 0..n-1 in random order along a last axis, for each index of `size`."""
        return self.gen(raw_random.permutation, size, n, ndim=ndim, dtype=dtype)

    def multinomial(
        self,
        size: Any = None,
        n: Any = 1,
        pvals: Any = (0.5, 0.5),
        ndim: Any = None,
        dtype: Any = "int64",
    ) -> Any:
        """How often each position of the last axis of `pvals` is drawn in n draws, for each index of `size`."""
        return self.gen(raw_random.multinomial, size, n, pvals, ndim=ndim, dtype=dtype)

    def shuffle_row_elements(self, input: Any) -> Any:
        """`input` with each row (along the last axis) in an order of its own."""
        from tcc.tensor.extra_ops import permute_row_elements

        sizes = [input.shape[k] for k in range(input.ndim - 1)]
        perm = self.permutation(size=tuple(sizes), n=input.shape[input.ndim - 1], ndim=input.ndim - 1)
        return permute_row_elements(input, perm)
