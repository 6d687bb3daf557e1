"""NumPy's RandomState as an array of words, and its methods with Theano's conventions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tcc.ir.types import numpy_dtype

# 624 words of the Mersenne twister, the position in them, whether a normal number is kept, and its two words
WORDS = 628


def pack(generator: np.random.RandomState) -> Any:
    """The generator's state as `WORDS` words."""
    state: Any = generator.get_state(legacy=True)
    _, key, position, has_gauss, gauss = state
    tail = np.array([position, has_gauss], np.uint32)
    return np.concatenate([key.astype(np.uint32), tail, np.array([gauss]).view(np.uint32)])


def unpack(words: Any, generator: np.random.RandomState | None = None) -> np.random.RandomState:
    """A generator, a new one if none is given, in the state that `words` hold."""
    words = np.ascontiguousarray(words, np.uint32)
    generator = np.random.RandomState() if generator is None else generator
    gauss = float(words[626:].view(np.float64)[0])
    generator.set_state(("MT19937", words[:624], int(words[624]), int(words[625]), gauss))
    return generator


class _Drawing(threading.local):
    """The generator that a thread's draws take turns with: a new one asks the system for a seed, which takes longer."""

    def __init__(self) -> None:
        self.generator = np.random.RandomState()


_drawing = _Drawing()


def draw(method: str, state: Any, sizes: Any, args: Sequence[Any], dtype: str) -> tuple[Any, Any]:
    """The state after the draw, and what was drawn as `dtype`."""
    generator = unpack(state, _drawing.generator)
    made = METHODS[method](generator, tuple(int(n) for n in sizes), *args)
    return pack(generator), np.asarray(made).astype(numpy_dtype(dtype))


def _random_integers(generator: np.random.RandomState, sizes: tuple[int, ...], low: Any, high: Any) -> Any:
    """Both bounds are included.  Bounds that are arrays take one draw for each element."""
    return generator.randint(low, np.asarray(high, np.int64) + 1, sizes)


def _choice(generator: np.random.RandomState, sizes: tuple[int, ...], a: Any, replace: Any, p: Any) -> Any:
    if np.ndim(a) > 1:
        raise ValueError(f"a.ndim ({np.ndim(a)}) must be 0 or 1")
    return generator.choice(
        a.item() if np.ndim(a) == 0 else a, sizes, bool(replace), p if np.size(p) else None
    )


def _permutation(generator: np.random.RandomState, sizes: tuple[int, ...], n: Any) -> Any:
    """One permutation of 0..n-1 for each index of `sizes`."""
    n = int(n)
    out = np.empty((*sizes, n), np.int64)
    for at in np.ndindex(*sizes):
        out[at] = generator.permutation(n)
    return out


def _multinomial(generator: np.random.RandomState, sizes: tuple[int, ...], n: Any, pvals: Any) -> Any:
    """Counts along a last axis, for each index of `sizes`."""
    n = np.broadcast_to(n, sizes)
    pvals = np.broadcast_to(pvals, (*sizes, pvals.shape[-1]))
    out = np.empty((*sizes, pvals.shape[-1]), np.int64)
    for at in np.ndindex(*sizes):
        p = pvals[at]
        # NumPy refuses probabilities that add up to more than 1, as rounded ones do
        if 1 < np.sum(p) < 1 + 1e-5 or p[-1] < 5e-5:
            p = p * (1 - 5e-5)
        assert np.sum(p) <= 1, np.sum(p)
        out[at] = generator.multinomial(n[at], p.astype(np.float64))
    return out


METHODS: dict[str, Callable[..., Any]] = {
    "uniform": lambda g, sizes, low, high: g.uniform(low, high, sizes),
    "normal": lambda g, sizes, avg, std: g.normal(avg, std, sizes),
    "binomial": lambda g, sizes, n, p: g.binomial(n, p, sizes),
    "poisson": lambda g, sizes, lam: g.poisson(lam, sizes),
    "random_integers": _random_integers,
    "choice": _choice,
    "permutation": _permutation,
    "multinomial": _multinomial,
}
