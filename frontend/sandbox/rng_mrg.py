"""`MRG_RandomStreams`: the numbers of Theano's class of that name, from many streams of MRG31k3p at once.

Every draw has states of its own, one for each of its streams.  Streams of a draw lie 2^72 numbers apart, draws 2^134.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from tcc import build
from tcc.build import node, size_arithmetic, size_of, size_product, size_variable, static_size
from tcc.elemwise import add as add_
from tcc.elemwise import cast, cos, eq, invert, log, lt, mul, neq, sin, sqrt, sub, switch, true_div
from tcc.ir.ops.random import M1, M2
from tcc.ir.types import FROM_NUMPY
from tcc.joining import join
from tcc.random import common_sizes, counts_of, sizes_of
from tcc.reductions import cumsum
from tcc.reductions import sum as total
from tcc.settings import config
from tcc.shapes import addbroadcast, reshape
from tcc.sharedvar import shared
from tcc.types import dtype_name, promote
from tcc.variable import TensorConstant, Variable, as_variable, scalar_constant

Matrix = tuple[tuple[int, ...], ...]

MOST_STREAMS = 60 * 256
FIRST: Matrix = ((0, 4194304, 129), (1, 0, 0), (0, 1, 0))  # a step of the first component, modulo M1
SECOND: Matrix = ((32768, 0, 32769), (1, 0, 0), (0, 1, 0))  # of the second, modulo M2
HALF_STEP = float(np.float16(3.0458e-05))  # the greatest with which 2^15 of them are below 1
TRUNCATED_STD = 0.87962566103423978  # of a standard normal number within -2..2


def _product(a: Matrix, b: Matrix, modulus: int) -> Matrix:
    columns = list(zip(*b))
    return tuple(tuple(sum(x * y for x, y in zip(row, c)) % modulus for c in columns) for row in a)


@functools.cache
def jump(log2: int) -> tuple[Any, Any]:
    """The matrices of 2^log2 steps of both components."""
    a, b = FIRST, SECOND
    for _ in range(log2):
        a, b = _product(a, a, M1), _product(b, b, M2)
    return np.array(a, np.int64), np.array(b, np.int64)


def advanced(states: Any, log2: int) -> Any:
    """States (rows of 6 numbers) after 2^log2 steps."""
    parts = []
    for matrix, columns, modulus in zip(jump(log2), (slice(0, 3), slice(3, 6)), (M1, M2)):
        terms = matrix * np.asarray(states, np.int64)[:, None, columns] % modulus
        parts.append(terms.sum(2) % modulus)
    return np.concatenate(parts, axis=1)


def streams_from(state: Any, count: int) -> Any:
    """The states of `count` streams, the first of which is in `state`."""
    states, doubled = np.asarray(state, np.int64)[None], 72
    while len(states) < count:
        states = np.concatenate([states, advanced(states, doubled)])
        doubled += 1
    return states[:count].astype(np.int32)


def guess_n_streams(size: Any, warn: bool = False) -> int:
    """How many streams a draw of this size has: a sixth of its elements, at most 15360; 15360 for symbolic sizes."""
    if not isinstance(size, tuple | list) or not all(isinstance(n, int | np.integer) for n in size):
        return MOST_STREAMS
    count = int(np.prod(size, dtype=np.int64))
    return min(count // 6 if count > 6 else count, MOST_STREAMS)


def without_replacement(p: Any, unit: Any, dtype: str) -> Any:
    """For each row of the matrix p, different columns by its probabilities: as many as the matrix `unit` of uniform numbers
    has rows.  ValueError when the function runs if there are not that many."""
    from tcc.loops import scan

    line = node("iota", shape=[size_of(p, 1)], axis=0, dtype="i64").result
    unit = build.at_most(
        unit,
        size_of(p, 1),
        "Cannot sample without replacement n samples bigger than the size of the distribution",
    )

    def one(u: Any, left: Any) -> list[Any]:
        below = build.elementwise(
            "le", cumsum(cast(left, "float64"), axis=1), cast(u, "float64").dimshuffle(0, "x")
        )
        at = total(cast(below, "int64"), axis=1)
        rest = switch(eq(line, at.dimshuffle(0, "x")), 0, left)
        rest = cast(true_div(rest, total(rest, axis=1, keepdims=True)), left.dtype)
        return [rest, switch(neq(at, size_variable(size_of(p, 1))), at, -1)]

    (_, chosen), _ = scan(one, sequences=[unit], outputs_info=[p, None])
    return cast(chosen.T, dtype)


class MRG_RandomStreams:
    """Random numbers of MRG31k3p.  `seed` is a number, or the six of a state."""

    def __init__(self, seed: Any = 12345, use_cuda: Any = None) -> None:
        self.state_updates: list[tuple[Any, Any, Any, int | None]] = []
        self.default_instance_seed = seed
        self.set_rstate(seed)

    def updates(self) -> list[tuple[Any, Any, Any, int | None]]:
        return list(self.state_updates)

    def set_rstate(self, seed: Any) -> None:
        """The state of the next draw; ValueError for one that the generator cannot have."""
        if isinstance(seed, int | np.integer):
            if seed == 0:
                raise ValueError("seed should not be 0", seed)
            if not 0 < seed < M2:
                raise ValueError(f"seed should be less than {M2}", seed)
            seed = [int(seed)] * 6
        if not isinstance(seed, list | tuple | np.ndarray) or len(seed) != 6:
            raise TypeError("seed should be 1 integer or 6 integers")
        for part, modulus, said in ((seed[:3], M1, "first"), (seed[3:], M2, "last")):
            if not any(part):
                raise ValueError(f"The {said} 3 values of seed should not be all 0", seed)
            if any(n >= modulus or n < 0 for n in part):
                raise ValueError(f"The {said} 3 values of seed should be less than {modulus}", seed)
        self.rstate = np.asarray(seed, np.int32)

    def seed(self, seed: Any = None) -> None:
        """All draws start again, from another seed if one is given."""
        self.set_rstate(self.default_instance_seed if seed is None else seed)
        for state, _, size, nstreams in self.state_updates:
            state.set_value(
                self.get_substream_rstates(self.n_streams(size) if nstreams is None else nstreams)
            )

    def inc_rstate(self) -> None:
        """Moves on to the streams of the next draw."""
        self.rstate = advanced(self.rstate[None], 134)[0].astype(np.int32)

    def get_substream_rstates(self, n_streams: int, dtype: Any = None, inc_rstate: bool = True) -> Any:
        """The first states of a draw's streams."""
        if not isinstance(n_streams, int | np.integer) or n_streams <= 0:
            raise ValueError(f"there must be a stream, got {n_streams}")
        made = streams_from(self.rstate, int(n_streams))
        if inc_rstate:
            self.inc_rstate()
        return made

    def n_streams(self, size: Any) -> int:
        return guess_n_streams(size)

    def uniform(
        self,
        size: Any,
        low: Any = 0.0,
        high: Any = 1.0,
        ndim: int | None = None,
        dtype: Any = None,
        nstreams: int | None = None,
        **_: Any,
    ) -> Any:
        """Numbers between low and high, neither of which is drawn."""
        low, high = as_variable(low), as_variable(high)
        chosen = _floats(dtype, low, high)
        _check_size(size)
        count = self.n_streams(size) if nstreams is None else nstreams
        state = shared(self.get_substream_rstates(count), shape=(count, 6))
        state.tag.is_rng = True
        sizes = sizes_of(size, ndim)
        halves = chosen == "float16"
        made = node("mrg", state, count=size_product(sizes), dtype="f64" if halves else FROM_NUMPY[chosen])
        new_state, drawn = made.results
        drawn = _as_halves(drawn) if halves else drawn
        state.default_update = new_state
        self.state_updates.append((state, new_state, size, nstreams))
        u = reshape(drawn, sizes) if len(sizes) != 1 else drawn
        if not sizes:
            u = drawn.dimshuffle()
        u.rstate, u.update = state, (state, new_state)
        low, high = build.cast(low, chosen), build.cast(high, chosen)
        r = u if _is(low, 0) and _is(high, 1) else add_(mul(u, sub(high, low)), low)
        if r.type.broadcastable != u.type.broadcastable:
            raise NotImplementedError(
                "Increase the size to match the broadcasting pattern of `low` and `high` arguments"
            )
        return r

    def binomial(
        self,
        size: Any = None,
        n: int = 1,
        p: Any = 0.5,
        ndim: int | None = None,
        dtype: Any = "int64",
        nstreams: int | None = None,
        **_: Any,
    ) -> Any:
        """1 with probability p, else 0."""
        if n != 1:
            raise NotImplementedError("MRG_RandomStreams.binomial with n > 1")
        p = as_variable(p)
        if size is None:
            size = tuple(common_sizes([p]))
        return cast(lt(self.uniform(size, ndim=ndim, nstreams=nstreams), p), dtype)

    def multinomial(
        self,
        size: Any = None,
        n: Any = 1,
        pvals: Any = None,
        ndim: int | None = None,
        dtype: Any = "int64",
        nstreams: int | None = None,
        **_: Any,
    ) -> Any:
        """For each row of the matrix `pvals` how often each column is drawn in n draws."""
        if pvals is None:
            raise TypeError("You have to specify pvals")
        pvals = as_variable(pvals)
        if size is not None:
            if any(isinstance(i, int) and i <= 0 for i in size):
                raise ValueError("The specified size contains a dimension with value <= 0", size)
            raise ValueError(
                "Provided a size argument to MRG_RandomStreams.multinomial, which does not use the size argument."
            )
        if ndim is not None:
            raise ValueError(
                "Provided an ndim argument to MRG_RandomStreams.multinomial, which does not use the ndim argument."
            )
        if pvals.ndim != 2:
            raise NotImplementedError("MRG_RandomStreams.multinomial only implemented for pvals.ndim = 2")
        unit = self._rows(pvals, n, nstreams)
        return cast(counts_of(pvals, unit, size_of(pvals, 1)), pvals.dtype if dtype == "auto" else dtype)

    def _rows(self, p: Any, n: Any, nstreams: int | None) -> Any:
        """n uniform numbers for each row of p, in Theano's order: row by row for the first, then for the second."""
        rows, many = size_of(p, 0), build.as_size(n, "n")
        total = size_arithmetic("mul", rows, many)
        made = self.uniform((size_variable(total),), ndim=1, nstreams=nstreams)
        return reshape(made, [many, rows]).T

    def choice(
        self,
        size: Any = 1,
        a: Any = None,
        replace: bool = True,
        p: Any = None,
        ndim: int | None = None,
        dtype: Any = "int64",
        nstreams: int | None = None,
        **_: Any,
    ) -> Any:
        """For each row of the matrix p, `size` different columns, drawn with its probabilities."""
        if replace:
            raise NotImplementedError("MRG_RandomStreams.choice only works without replacement for now.")
        if a is not None:
            raise TypeError(
                "For now, a has to be None in MRG_RandomStreams.choice. Sampled values are between 0 and p.shape[1]-1"
            )
        if p is None:
            raise TypeError("For now, p has to be specified in MRG_RandomStreams.choice.")
        if ndim is not None:
            raise ValueError("ndim argument to MRG_RandomStreams.choice is not used.")
        p = as_variable(p)
        if p.ndim != 2:
            raise NotImplementedError("MRG_RandomStreams.choice is only implemented for p.ndim = 2")
        wanted, there = static_size(as_variable(size)), p.type.shape[1]
        if wanted is not None and there is not None and wanted > there:
            raise ValueError(
                "Cannot sample without replacement n samples bigger than the size of the distribution."
            )
        return without_replacement(p, self._rows(p, size, nstreams).T, dtype)

    def multinomial_wo_replacement(
        self,
        size: Any = None,
        n: Any = 1,
        pvals: Any = None,
        ndim: int | None = None,
        dtype: Any = "int64",
        nstreams: int | None = None,
        **_: Any,
    ) -> Any:
        """As `choice(size=n, replace=False, p=pvals)`."""
        if size is not None:
            raise ValueError("Provided a size argument to multinomial_wo_replacement, which does not use it.")
        made = self.choice(n, None, False, pvals, ndim, dtype, nstreams)
        return addbroadcast(made, 1) if isinstance(n, int) and n == 1 else made

    def normal(
        self,
        size: Any,
        avg: Any = 0.0,
        std: Any = 1.0,
        ndim: int | None = None,
        dtype: Any = None,
        nstreams: int | None = None,
        truncate: bool = False,
        **_: Any,
    ) -> Any:
        """Normal numbers by Box and Muller's method; with `truncate` those farther than 2 from 0 are drawn anew."""
        avg, std = as_variable(avg), as_variable(std)
        chosen = _floats(dtype, avg, std)
        _check_size(size)
        sizes = sizes_of(size, ndim)
        # that many as Theano draws, whose number of streams hangs on it
        wanted = size_variable(size_product(sizes))
        half = build.as_size(add_(wanted, 1) // 2)
        both = size_variable(size_arithmetic("mul", 2, half))
        uniform = self.uniform((both,), ndim=1, dtype=chosen, nstreams=nstreams)
        at = size_variable(half)
        u1, u2 = uniform[:at], uniform[at:]
        radius = sqrt(mul(scalar_constant(-2.0, chosen), log(u1)))
        theta = mul(scalar_constant(2 * np.pi, chosen), u2)
        if truncate:
            drawn = self._truncated(radius, theta, chosen, nstreams)
        else:
            drawn = join(0, mul(radius, cos(theta)), mul(radius, sin(theta)))
        made = reshape(drawn[:wanted], sizes)
        return add_(mul(made, cast(std, chosen)), cast(avg, chosen))

    def _truncated(self, radius: Any, theta: Any, dtype: str, nstreams: int | None) -> Any:
        """Those within -2..2, and those that are not with a radius that is drawn anew, each kind together."""
        turns = [cos(theta), sin(theta)]
        made = [mul(radius, t) for t in turns]
        odd = [(z < -2.0) | (z > 2.0) for z in made]
        good = [z[invert(o)] for z, o in zip(made, odd)]
        bad = [o.nonzero()[0] for o in odd]
        lower = scalar_constant(1.0 / np.e**2, dtype)
        count = add_(bad[0].size, bad[1].size)
        u = self.uniform((count,), low=lower, high=1.0, ndim=1, dtype=dtype, nstreams=nstreams)
        again = sqrt(mul(scalar_constant(-2.0, dtype), log(u)))
        fixed = [
            mul(part, turn[at])
            for part, turn, at in zip((again[: bad[0].size], again[bad[0].size :]), turns, bad)
        ]
        return join(0, good[0], fixed[0], good[1], fixed[1])

    def truncated_normal(
        self,
        size: Any,
        avg: Any = 0.0,
        std: Any = 1.0,
        ndim: int | None = None,
        dtype: Any = None,
        nstreams: int | None = None,
        **_: Any,
    ) -> Any:
        """Normal numbers within two standard deviations, whose standard deviation is `std` after that."""
        std = as_variable(std)
        return self.normal(
            size, avg, std / scalar_constant(TRUNCATED_STD, _floats(dtype, std)), ndim, dtype, nstreams, True
        )


def _floats(dtype: Any, *values: Any) -> str:
    if dtype in (None, "floatX"):
        dtype = str(config.floatX) if dtype else promote(str(config.floatX), *(v.type.dtype for v in values))
    name = dtype_name(dtype)
    if name not in ("float16", "float32", "float64"):
        raise TypeError(f"MRG_RandomStreams draws float16, float32 or float64, not {name}")
    return name


def _as_halves(drawn: Any) -> Any:
    """float16 of 15 of the generator's bits, as Theano makes them, so that neither 0 nor 1 is among them."""
    bits = cast(mul(drawn, 2.0**31), "int64") & 0x7FFF
    return cast(mul(add_(bits, 1), HALF_STEP), "float16")


def _is(v: Any, number: int) -> bool:
    return isinstance(v, TensorConstant) and v.data.ndim == 0 and bool(v.data == number)


def _check_size(size: Any) -> None:
    if isinstance(size, tuple | list):
        if not all(isinstance(n, int | np.integer | Variable) for n in size):
            raise AssertionError("size must be a tuple of int or a Theano variable")
        if any(isinstance(n, int | np.integer) and n <= 0 for n in size):
            raise ValueError("The specified size contains a dimension with value <= 0", size)
    elif isinstance(size, int | np.integer):
        _check_size((size,))
    elif not (isinstance(size, Variable) and size.type.ndim == 1):
        raise TypeError(
            f"size must be a tuple of int or a Theano Variable with 1 dimension, got {size} of type {type(size)}"
        )
