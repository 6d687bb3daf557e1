"""Random streams: `rng = tcc.random.Stream(seed)`, then `rng.normal((n, 3))` and its like in expressions.

The generator is counter-based (Philox 4x32-10): an element hangs on the seed, on which draw of the stream it belongs to, on
how often the draw was made, and on its index; not on threads or on the machine.  Each draw keeps its state in a shared
variable whose `default_update` counts, so every call of a function brings new numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tcc import build
from tcc.build import Size, node, size_arithmetic, size_of, size_variable
from tcc.elemwise import (
    DISCRETE,
    add,
    cast,
    cos,
    erfinv,
    floor,
    log,
    log1p,
    lt,
    maximum,
    mul,
    neg,
    sqrt,
    sub,
    true_div,
)
from tcc.indexing import take
from tcc.ir.ops.random import philox
from tcc.ordering import argsort
from tcc.reductions import cumsum
from tcc.reductions import sum as total
from tcc.settings import config
from tcc.shapes import as_sizes, dimshuffle
from tcc.sharedvar import shared
from tcc.types import dtype_name, promote
from tcc.variable import as_variable, scalar_constant

SECOND = 1 << 63  # the second word of a draw: no draw is made so often


def sizes_of(size: Any, ndim: int | None = None, what: str = "size") -> list[Size]:
    """A shape as the functions of random numbers take it: None, a number, a tuple, or a vector.

    The length of a vector that is not known when the graph is built is `ndim`; ValueError without one, and when the function
    runs for a vector of another length.
    """
    if size is None:
        return []
    sizes = as_sizes(size, what, ndim)
    if ndim is not None and len(sizes) != ndim:
        raise ValueError(f"{what}: ndim is {ndim}, but there are {len(sizes)} sizes")
    return sizes


def common_sizes(values: Sequence[Any]) -> list[Size]:
    """The shape of variables brought together by their flags."""
    if not values:
        return []
    return list(build.shape_of(build.broadcast_together("random", list(values))[0]))


def _u64(value: int) -> Any:
    return scalar_constant(value, "uint64")


class Stream:
    """Draws from one seed.  `seed()` starts all of them again."""

    def __init__(self, seed: int | None = None) -> None:
        self.default_seed = _fresh_seed() if seed is None else _checked_seed(seed)
        self.states: list[Any] = []

    @property
    def state_updates(self) -> list[tuple[Any, Any]]:
        """(state, state after a call) of each draw so far."""
        return [(s, s.default_update) for s in self.states]

    def updates(self) -> list[tuple[Any, Any]]:
        return self.state_updates

    def seed(self, seed: int | None = None) -> None:
        """All draws start again, from another seed if one is given."""
        if seed is not None:
            self.default_seed = _checked_seed(seed)
        for number, state in enumerate(self.states):
            state.set_value(self._start(number))

    def _start(self, number: int) -> Any:
        return np.array([philox(np.uint64(number), np.uint64(0), np.uint64(self.default_seed)), 0], np.uint64)

    def _state(self) -> Any:
        state = shared(self._start(len(self.states)), name=f"random{len(self.states)}", shape=(2,))
        self.states.append(state)
        state.default_update = build.elementwise("add", state, as_variable(np.array([0, 1], np.uint64)))
        state.tag.is_rng = True
        return state

    # -- bits ------------------------------------------------------------------------------------------------------

    def bits(self, size: Any = None, ndim: int | None = None) -> Any:
        """uint64, all of whose bits are random."""
        return self._bits(self._state(), sizes_of(size, ndim))

    def _bits(self, state: Any, sizes: Sequence[Size], second: bool = False) -> Any:
        """One uint64 for each element: Philox of its index in row-major order and of the number of the call."""
        index: Any = None
        stride: Size = 1
        for axis in reversed(range(len(sizes))):
            line = node("iota", shape=list(sizes), axis=axis, dtype="u64").result
            if not (isinstance(stride, int) and stride == 1):
                step = build.cast(size_variable(stride), "uint64")
                line = build.elementwise("mul", line, build.broadcast_to(step, sizes))
            index = line if index is None else build.elementwise("add", index, line)
            stride = size_arithmetic("mul", stride, sizes[axis])
        if index is None:
            index = _u64(0)
        key, call = state[0], state[1]
        if second:
            call = build.elementwise("add", call, _u64(SECOND))
        return node("philox", index, build.broadcast_to(call, sizes), build.broadcast_to(key, sizes)).result

    def _unit(self, sizes: Sequence[Size], dtype: str, state: Any = None, second: bool = False) -> Any:
        """Multiples of 2^-24 (float32) or 2^-53 (float64) in [0, 1)."""
        made = self._bits(self._state() if state is None else state, sizes, second)
        kept = 53 if dtype == "float64" else 24
        high = build.elementwise("shr", made, _u64(64 - kept))
        whole = build.cast(high, "int64" if dtype == "float64" else "int32")
        return mul(build.cast(whole, dtype), scalar_constant(2.0**-kept, dtype))

    # -- distributions ---------------------------------------------------------------------------------------------

    def uniform(
        self, size: Any = None, low: Any = 0.0, high: Any = 1.0, ndim: int | None = None, dtype: Any = None
    ) -> Any:
        """Numbers in [low, high)."""
        low, high, chosen, sizes = _given(size, ndim, dtype, low, high)
        unit = self._unit(sizes, chosen)
        return _scaled(unit, sub(high, low), low)

    def normal(
        self, size: Any = None, avg: Any = 0.0, std: Any = 1.0, ndim: int | None = None, dtype: Any = None
    ) -> Any:
        """Normal numbers by Box and Muller's method (1958), one for each element."""
        avg, std, chosen, sizes = _given(size, ndim, dtype, avg, std)
        state = self._state()
        one = scalar_constant(1.0, chosen)
        radius = sqrt(mul(scalar_constant(-2.0, chosen), log(sub(one, self._unit(sizes, chosen, state)))))
        turn = mul(scalar_constant(2 * math.pi, chosen), self._unit(sizes, chosen, state, second=True))
        return _scaled(mul(radius, cos(turn)), std, avg)

    def truncated_normal(
        self,
        size: Any = None,
        avg: Any = 0.0,
        std: Any = 1.0,
        low: float = -2.0,
        high: float = 2.0,
        ndim: int | None = None,
        dtype: Any = None,
    ) -> Any:
        """Normal numbers within `low` and `high` standard deviations of the mean, by the inverse distribution."""
        avg, std, chosen, sizes = _given(size, ndim, dtype, avg, std)
        root = scalar_constant(math.sqrt(2), chosen)
        start, end = (math.erf(bound / math.sqrt(2)) for bound in (low, high))
        at = _scaled(
            self._unit(sizes, chosen), scalar_constant(end - start, chosen), scalar_constant(start, chosen)
        )
        return _scaled(mul(root, erfinv(at)), std, avg)

    def exponential(
        self, size: Any = None, scale: Any = 1.0, ndim: int | None = None, dtype: Any = None
    ) -> Any:
        """Exponential numbers of mean `scale`."""
        scale, chosen, sizes = _given(size, ndim, dtype, scale)
        return mul(neg(log(sub(scalar_constant(1.0, chosen), self._unit(sizes, chosen)))), scale)

    def gumbel(self, size: Any = None, ndim: int | None = None, dtype: Any = None) -> Any:
        """-log(-log(u)): argmax(logits + gumbel) is a draw with the probabilities softmax(logits)."""
        chosen, sizes = _given(size, ndim, dtype)
        least = scalar_constant(2.0**-54 if chosen == "float64" else 2.0**-25, chosen)
        return neg(log(neg(log1p(neg(maximum(self._unit(sizes, chosen), least))))))

    def bernoulli(self, size: Any = None, p: Any = 0.5, ndim: int | None = None, dtype: Any = "int64") -> Any:
        """1 with probability p, else 0."""
        return self.binomial(size, 1, p, ndim, dtype)

    def binomial(
        self, size: Any = None, n: int = 1, p: Any = 0.5, ndim: int | None = None, dtype: Any = "int64"
    ) -> Any:
        """How many of `n` (a number) trials succeed, each with probability p."""
        p = as_variable(p)
        floats = p.type.dtype if p.type.dtype not in DISCRETE else str(config.floatX)
        sizes = sizes_of(size, ndim) if size is not None else common_sizes([p])
        if n == 1:
            return cast(lt(self._unit(sizes, floats), p), _dtype(dtype))
        trials = self._unit([*sizes, n], floats)
        deep = dimshuffle(p, *range(p.type.ndim), "x")
        return cast(total(cast(lt(trials, deep), "int64"), axis=len(sizes)), _dtype(dtype))

    def integers(
        self, size: Any = None, low: int = 0, high: int = 2, ndim: int | None = None, dtype: Any = "int64"
    ) -> Any:
        """Whole numbers in low..high-1, both of them numbers; their number is at most 2^32."""
        many = high - low
        if not 0 < many <= 2**32:
            raise ValueError(
                f"integers: there must be 1 to 2^32 numbers from low to high, got {low} to {high}"
            )
        made = self._bits(self._state(), sizes_of(size, ndim))
        # the upper 64 of the 96 bits of made * many
        upper = build.elementwise("mul", build.elementwise("shr", made, _u64(32)), _u64(many))
        lower = build.elementwise("mul", build.elementwise("and", made, _u64(2**32 - 1)), _u64(many))
        carried = build.elementwise("add", upper, build.elementwise("shr", lower, _u64(32)))
        whole = build.cast(build.elementwise("shr", carried, _u64(32)), "int64")
        return cast(add(whole, scalar_constant(low, "int64")), _dtype(dtype))

    def random_integers(
        self, size: Any = None, low: int = 0, high: int = 1, ndim: int | None = None, dtype: Any = "int64"
    ) -> Any:
        """Whole numbers in low..high."""
        return self.integers(size, low, high + 1, ndim, dtype)

    # -- order -----------------------------------------------------------------------------------------------------

    def permutation(self, n: Any, size: Any = None, ndim: int | None = None) -> Any:
        """The numbers 0..n-1 in random order along the last axis, one permutation for each index of `size`."""
        keys = self.bits([*sizes_of(size, ndim), build.as_size(n, "n")])
        return argsort(keys, axis=keys.type.ndim - 1)

    def shuffle(self, x: Any, axis: int = 0) -> Any:
        """x with its slices along `axis` in random order."""
        x = as_variable(x)
        return take(x, self.permutation(size_of(x, axis % x.type.ndim)), axis)

    def choice(
        self, size: Any = None, a: Any = 2, replace: bool = True, p: Any = None, ndim: int | None = None
    ) -> Any:
        """Elements of the vector `a`, or of 0..a-1, with probabilities `p` (all equal without it).

        Without replacement `size` is one number, at most that of the elements; elements of probability 0 come last.
        """
        a = as_variable(a)
        many = size_of(a, 0) if a.type.ndim else build.as_size(a, "a")
        sizes = sizes_of(size, ndim)
        if not replace:
            if len(sizes) != 1:
                raise ValueError("choice: without replacement size is one number")
            # each element waits for an exponential time of rate p; the first to come are chosen
            wait = self.exponential([many], dtype="float64")
            order = argsort(wait if p is None else true_div(wait, as_variable(p)), axis=0)
            at = order[: size_variable(sizes[0])]
        elif p is None:
            unit = self._unit(sizes, "float64")
            at = cast(floor(mul(unit, cast(size_variable(many), "float64"))), "int64")
        else:
            from tcc.tensor.extra_ops import searchsorted

            edges = cumsum(cast(as_variable(p), "float64"))
            at = searchsorted(edges[:-1], self._unit(sizes, "float64"), side="right")
        return a[at] if a.type.ndim else at

    def categorical(self, p: Any, dtype: Any = "int64") -> Any:
        """A position along p's last axis, with the probabilities that stand there."""
        p = as_variable(p)
        *outer, _ = build.shape_of(p)
        unit = self._unit(outer, p.type.dtype)
        last = p.type.ndim - 1
        passed = lt(cumsum(p, axis=last), dimshuffle(unit, *range(last), "x"))
        return cast(build.elementwise("minimum", total(passed, axis=last), _last(p)), _dtype(dtype))

    def multinomial(self, n: int = 1, pvals: Any = None, dtype: Any = "int64") -> Any:
        """How often each position along the last axis of `pvals` is drawn in `n` (a number) draws."""
        p = as_variable(pvals)
        *outer, many = build.shape_of(p)
        unit = self._unit([*outer, n], "float64")
        return cast(counts_of(p, unit, many), _dtype(dtype))


def _last(p: Any) -> Any:
    return size_variable(size_arithmetic("sub", size_of(p, p.type.ndim - 1), 1))


def counts_of(p: Any, unit: Any, many: Size) -> Any:
    """How many of the uniform numbers along the last axis of `unit` fall to each position along that of `p`."""
    last = p.type.ndim - 1
    edges = cumsum(cast(p, "float64"), axis=last)
    deep = dimshuffle(cast(unit, "float64"), *range(last + 1), "x")
    below = dimshuffle(edges, *range(last), "x", last)
    at = total(cast(build.elementwise("le", below, deep), "int64"), axis=last + 1)
    line = node("iota", shape=[many], axis=0, dtype="i64").result
    hit = build.elementwise("eq", dimshuffle(at, *range(last + 1), "x"), line)
    return total(cast(hit, "int64"), axis=last)


def _given(size: Any, ndim: int | None, dtype: Any, *values: Any) -> list[Any]:
    """The parameters in the dtype of the result, that dtype, and the sizes: those of the parameters where none are given."""
    parts = [as_variable(v) for v in values]
    if dtype is None:
        chosen = promote(str(config.floatX), *(v.type.dtype for v in parts))
    else:
        chosen = _dtype(dtype)
    if chosen not in ("float32", "float64"):
        raise TypeError(f"random numbers are float32 or float64, not {chosen}")
    sizes = sizes_of(size, ndim) if size is not None else common_sizes(parts)
    return [*(build.cast(v, chosen) for v in parts), chosen, sizes]


def _dtype(dtype: Any) -> str:
    return dtype_name("floatX" if dtype is None else dtype)


def _scaled(x: Any, factor: Any, offset: Any) -> Any:
    """x * factor + offset, without what changes nothing."""
    if not _is(factor, 1):
        x = mul(x, factor)
    return x if _is(offset, 0) else add(x, offset)


def _is(v: Any, number: int) -> bool:
    data = getattr(v, "data", None)
    return isinstance(data, np.ndarray) and data.ndim == 0 and bool(data == number)


def _checked_seed(seed: Any) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**64:
        raise ValueError(f"a seed is a whole number in 0..2^64-1, got {seed!r}")
    return int(seed)


def _fresh_seed() -> int:
    return int(np.random.SeedSequence().generate_state(1, np.uint64)[0])
