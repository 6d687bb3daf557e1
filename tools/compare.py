"""One function by the interpreter and by the whole CPU pipeline, and how far the two may be apart.

The tolerance is measured: the interpreter runs again with every rounded result moved at random by a few units in the
last place, as in stochastic arithmetic (CESTAC, Vignes 1974), and what moves far may be far off.  An element that such
a run turns into another integer, truth value or kind of infinity is not compared.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tcc.driver import Program
from tcc.ir import dims, interpret
from tcc.ir.arrays import Array, as_numbers, in_memory
from tcc.ir.clone import clone
from tcc.ir.core import Func, Op, Value
from tcc.ir.types import INTEGERS, numpy_dtype
from tcc.runtime.buffers import Container
from tcc.runtime.callable import Function, Parameter

RUNS = 4  # shaken runs
MORE = 16  # shaken runs before something is called different: in a few, moves may cancel by chance
SLACK = 24  # times what the shaken runs differ by
# Rows whose float results are exact, or as exact as their operands.
EXACT = frozenset(
    "identity neg abs sign floor ceil trunc rint round_half_away where clip minimum maximum second cast broadcast "
    "dimshuffle reshape slice refine concat gather max min sort const iota size".split()
)
BASIC = frozenset("add sub mul div sqr sqrt reciprocal insert scatter".split())
# Rows that add up: their terms are moved, because their total may be small by cancellation.
CONTRACTIONS = frozenset(
    "sum prod cumsum cumprod matmul matmul_widening conv conv_input conv_filter logsumexp softmax log_softmax xent insert scatter".split()
)
# Rows whose results near 0 are differences of larger numbers.
NEAR_ZERO = frozenset("gammaln psi log_softmax logsumexp xent".split())


def compile_native(
    func: Func, containers: Mapping[str, Container], *, exact: bool, apart: bool = True
) -> tuple[Function, Program]:
    """`func` as native code, made at its first call: for the sizes of that call, or with all sizes left to run time, where
    those that happen to be equal stay `apart` or are one, as in a function that has seen them vary together."""
    from tcc.codegen import support

    support.load()
    names = frozenset().union(*(dims.names_of(s) for p in func.body.params for s in p.type.shape))
    varying = frozenset() if exact else names
    trail = [{n: k for k, n in enumerate(sorted(varying))}] if apart else []
    program = Program(func, containers, varying=varying, trail=trail)
    parameters = [
        Parameter(p.name, p.type.dtype, p.type.rank, np.asarray)
        for p in func.body.params
        if p.name not in containers
    ]
    return Function(func.name, parameters, program.specialise), program


def run_native(func: Func, arrays: Sequence[Array], *, exact: bool = True) -> list[Array]:
    """What the interpreter would give, one array for each result, updates of shared variables among them."""
    shared = func.attrs.get("shared", ())
    pairs = list(zip(func.body.params, arrays, strict=True))
    containers = {p.name: Container(in_memory(a, p.type.dtype)) for p, a in pairs if p.name in shared}
    function, _ = compile_native(func, containers, exact=exact)
    given = [
        in_memory(a, p.type.dtype) if p.type.dtype == "bf16" else a
        for p, a in pairs
        if p.name not in containers
    ]
    outputs = iter(function(*given))
    updates = {index: name for name, index in func.attrs.get("updates", {}).items()}
    made = [
        containers[updates[i]].get() if i in updates else next(outputs) for i in range(len(func.body.yields))
    ]
    return [as_numbers(a, v.type.dtype) for a, v in zip(made, func.body.yields)]


class Runner(Protocol):
    """Gives the results of a function, for known or for run-time sizes."""

    def __call__(self, func: Func, arrays: Sequence[Array], *, exact: bool = True) -> list[Array]: ...


class Shaken(interpret.Frame):
    """The interpreter with results moved by a few units in the last place."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.rng = np.random.default_rng(number // 2)
        self.sign = 1 - 2 * (number % 2)  # every second run moves everything the other way
        self.odd = False  # whether some result was not finite, which the passes may cancel
        self.empty = False  # whether some result had no elements
        self.rounds = False  # whether the terms that are being added up are not all whole
        self.undefined = (
            False  # whether the last bits decide: a cast to an integer that cannot hold it, an error
        )

    def results(self, func: Func, arrays: Sequence[Array]) -> list[Array]:
        try:
            return list(map(np.asarray, self.call(func, arrays)))
        except (IndexError, ValueError):  # a branch that was taken by the last bits of its condition
            self.undefined = True
            return []

    def op(self, op: Op) -> None:
        if op.name == "cast" and op.result.type.dtype in INTEGERS:
            self.undefined |= outside(self.env[op.operands[0]], numpy_dtype(op.result.type.dtype))
        if op.name not in CONTRACTIONS:
            super().op(op)
            return
        kept = {v: self.env[v] for v in op.operands}
        # among other terms whole ones are rounded too, once they are added to them
        self.rounds = not all(np.all(is_whole(a) | ~np.isfinite(a)) for a in kept.values())
        eps = max((eps_of(v) for v in op.results), default=0.0)
        self.env.update((v, self.moved(a, 2, self.rounds, eps=eps)) for v, a in kept.items())
        super().op(op)
        self.env.update(kept)
        if op.name == "matmul" and eps:
            # one chain over k rounds by up to k * eps * sum |a| |b|, always to one side when its terms are alike
            a, b = (np.abs(kept[v].astype(np.float64)) for v in op.operands[:2])
            bound = a.shape[-1] * eps / SLACK * np.matmul(a, b)
            result = self.env[op.result]
            self.env[op.result] = (result + self.sign * bound).astype(result.dtype)

    def checked(self, op: Op, value: Value, result: object) -> Array:
        array = super().checked(op, value, result)
        self.empty |= array.size == 0
        self.odd |= array.dtype.kind == "f" and not np.all(np.isfinite(array))
        if op.name in EXACT or op.blocks:
            return array
        if op.name in BASIC or op.name in CONTRACTIONS - NEAR_ZERO - {"softmax"}:
            return self.moved(array, 1, self.rounds and op.name in CONTRACTIONS, eps=eps_of(value))
        least = 1.0 if op.name in NEAR_ZERO else 0.0
        return self.moved(array, 4, whole=True, least=least, eps=eps_of(value))

    def moved(
        self, array: Array, ulps: int, whole: bool = False, least: float = 0.0, eps: float = 0.0
    ) -> Array:
        """`array` with its elements moved; whole numbers, most likely made without rounding, only if asked for.

        `eps` is that of a coarser dtype to which they are about to be rounded.
        """
        if array.dtype.kind != "f":
            return array
        info = np.finfo(array.dtype)
        kept = ~np.isfinite(array) | (is_whole(array) & (not whole))
        with np.errstate(all="ignore"):
            step = np.maximum(np.maximum(np.abs(array), least) * max(info.eps, eps), info.tiny) * ulps
            far = self.sign * self.rng.uniform(0.5, 1, array.shape) * self.rng.choice([-1, 1], array.shape)
            shift = np.where(kept, 0, step * far)
        return np.asarray(array + shift).astype(array.dtype)


def numpy_type(value: Value) -> np.dtype[Any]:
    return numpy_dtype(value.type.dtype)


def eps_of(value: Value) -> float:
    """The step of its dtype above 1; 0 if it is no float."""
    if value.type.dtype == "bf16":
        return 2.0**-7
    dtype = numpy_type(value)
    return float(np.finfo(dtype).eps) if dtype.kind == "f" else 0.0


def is_whole(array: Array) -> Array:
    """Which elements are small whole numbers, that are added and multiplied without rounding."""
    return np.asarray((array == np.rint(array)) & (np.abs(array) < 1 << 16))


def outside(array: Array, dtype: np.dtype[Any]) -> bool:
    """Whether some float of `array` has no whole part in the dtype."""
    info = np.iinfo(dtype)
    return array.dtype.kind == "f" and not bool(np.all((array > info.min - 1.0) & (array < info.max + 1.0)))


@dataclass
class Expected:
    """What the interpreter gives, and how certain that is.  Where an intermediate result was not finite (`odd`), what it
    gives after the passes will do as well: they may cancel infinities."""

    func: Func
    arrays: Sequence[Array]
    want: list[Array]
    shaken: list[list[Array]]
    fused: list[Array]
    odd: bool
    undefined: bool

    @classmethod
    def of(cls, func: Func, arrays: Sequence[Array], fused: Sequence[Array]) -> Expected:
        want = interpret.run(func, *arrays)
        frames = [Shaken(k) for k in range(RUNS)]
        with np.errstate(all="ignore"):
            shaken = [frame.results(func, arrays) for frame in frames]
        # a factor taken out of a sum of nothing may be infinite or NaN, too
        lost = any(np.any(np.isnan(f)) for f in fused if f.dtype.kind == "f")
        odd = any(f.odd or (f.empty and lost) for f in frames)
        return cls(
            func,
            arrays,
            list(map(np.asarray, want)),
            shaken,
            list(map(np.asarray, fused)),
            odd,
            any(f.undefined for f in frames),
        )

    def difference(self, i: int, got: Array) -> str:
        """What is wrong with result i, or nothing."""
        found = self._difference(i, got)
        if not found or len(self.shaken) > RUNS:
            return found
        frames = [Shaken(k) for k in range(RUNS, MORE)]
        with np.errstate(all="ignore"):
            more = [frame.results(self.func, self.arrays) for frame in frames]
        if any(f.undefined for f in frames):
            return ""
        self.shaken += more
        self.odd |= any(f.odd for f in frames)
        return self._difference(i, got)

    def _difference(self, i: int, got: Array) -> str:
        shaken = [s[i] for s in self.shaken]
        found = difference(got, self.want[i], shaken)
        if found and self.odd and not difference(got, self.fused[i], shaken):
            return ""
        return found


def difference(got: Array, want: Array, shaken: Sequence[Array]) -> str:
    if got.dtype != want.dtype or got.shape != want.shape:
        return f"is {got.dtype}{list(got.shape)}, wanted {want.dtype}{list(want.shape)}"
    if want.dtype.kind != "f":
        settled = np.all([s == want for s in shaken], axis=0)
        return first_of(settled & (got != want), got, want)
    with np.errstate(all="ignore"):
        settled = np.all([kind(s) == kind(want) for s in shaken], axis=0)
        spread = np.max([np.abs(s.astype(np.float64) - want) for s in shaken], axis=0)
        info = np.finfo(want.dtype)
        size = np.abs(want.astype(np.float64))
        shares = (spread / size)[size > 0]
        shares = shares[np.isfinite(shares)]
        usual = float(np.median(shares)) if shares.size else 0.0  # moves that cancel by chance say nothing
        allowed = SLACK * np.maximum(spread, usual * size) + 4 * info.eps * size + 4 * info.tiny
        close = np.abs(got.astype(np.float64) - want) <= allowed
    wrong = settled & np.where(np.isfinite(want), ~close, kind(got) != kind(want))
    return first_of(wrong, got, want)


def kind(array: Array) -> Array:
    """0 for a number, 1 for NaN, 2 and 3 for the infinities."""
    return np.asarray(np.isnan(array) + 2 * np.isposinf(array) + 3 * np.isneginf(array))


def first_of(wrong: Array, got: Array, want: Array) -> str:
    if not np.any(wrong):
        return ""
    at = tuple(int(i) for i in np.argwhere(wrong)[0])
    count = int(np.count_nonzero(wrong))
    return f"is {got[at]!r} at {list(at)}, wanted {want[at]!r} ({count} of {wrong.size} differ)"


def same_bits(a: Array, b: Array) -> bool:
    """Equal to the last bit; NaN of any payload is NaN, and a rule of algebra may turn the sign of a zero."""
    return np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")


def disagreement(func: Func, arrays: Sequence[Array], run_native: Runner = run_native) -> str:
    """How native code, or what another runner makes, and the interpreter differ on these arguments, or nothing.

    Exact and run-time sizes must agree to the bit, unless the architecture allows otherwise, and an error must be raised
    by both, or by neither.
    """
    try:
        interpret.run(func, *arrays)
    except (IndexError, ValueError) as e:
        return missed_error(func, arrays, e, run_native)
    try:
        fused = after_passes(func)
        expected = Expected.of(func, arrays, interpret.run(fused, *arrays))
    except Exception as e:
        return f"after the passes: {type(e).__name__}: {e}"
    if expected.undefined:
        return ""
    seen = []
    for exact in (True, False):
        sizes = "exact sizes" if exact else "run-time sizes"
        try:
            got = run_native(func, arrays, exact=exact)
        except Exception as e:
            return f"with {sizes}: {type(e).__name__}: {e}"
        for i, g in enumerate(got):
            found = expected.difference(i, g)
            if found:
                return f"with {sizes} {_which(func, i)} {found}"
        seen.append(got)
    for i, (a, b) in enumerate(zip(*seen)):
        if not same_bits(a, b):
            if may_round_otherwise(func, fused, arrays):
                return ""
            return f"{_which(func, i)} differs between exact and run-time sizes: {a!r} against {b!r}"
    return ""


def _which(func: Func, result: int) -> str:
    op = func.body.yields[result].op
    return f"result {result}, of {op.name}," if op is not None else f"result {result}"


def after_passes(func: Func, sizes: Mapping[str, int] | None = None) -> Func:
    """What the passes make of it, with these sizes known and all others left to run time."""
    from tcc.passes.manager import run
    from tcc.passes.pipeline import context_from_knobs, default_pipeline

    fused = clone(func, sizes or {})
    run(fused, default_pipeline(), context_from_knobs())
    return fused


def may_round_otherwise(func: Func, fused: Func, arrays: Sequence[Array]) -> bool:
    """Whether known sizes may change the last bits: as a constant, which rules combine with others, as an axis of one
    element, which is left out of the loops, or because the passes make other operations of them (what follows from sizes
    alone is a constant then, and a scale goes to the smaller factor of a product)."""
    if any(1 in a.shape for a in arrays) or any(op.name == "size" for op in fused.body.walk()):
        return True
    return roundings(fused) != roundings(after_passes(func, sizes_of(func, arrays)))


def roundings(fused: Func) -> Counter[str]:
    """How often it has each row that rounds."""
    return Counter(op.name for op in fused.body.walk() if op.name not in EXACT and op.defn.pure)


def sizes_of(func: Func, arrays: Sequence[Array]) -> dict[str, int]:
    """The sizes that the parameters' shapes name."""
    return {
        size.plain: n
        for p, a in zip(func.body.params, arrays, strict=True)
        for size, n in zip(p.type.shape, a.shape, strict=True)
        if not isinstance(size, int) and size.plain is not None
    }


def missed_error(func: Func, arrays: Sequence[Array], error: Exception, run_native: Runner) -> str:
    for exact in (True, False):
        try:
            run_native(func, arrays, exact=exact)
        except type(error):
            continue
        return f"no {type(error).__name__}, wanted: {error}"
    return ""


# -- arguments ---------------------------------------------------------------------------------------------------


def arguments(func: Func, sizes: Mapping[str, int], seed: int) -> list[Array]:
    """Arrays of these sizes, each a function of its parameter's name, its use and the seed: what is checked as an index
    is in range, what is bound as a size is that size."""
    return [argument(p, sizes, seed) for p in func.body.params]


def argument(param: Value, sizes: Mapping[str, int], seed: int) -> Array:
    rng = np.random.default_rng([seed, zlib.crc32(param.name.encode())])
    shape = tuple(dims.evaluate(s, sizes) for s in param.type.shape)
    dtype = numpy_dtype(param.type.dtype)
    for op in param.users:
        if op.name == "bind":
            return np.asarray(sizes[str(op.attrs["size"])], dtype)
        if op.name == "check_index":
            told = dims.names_of(op.attrs["bound"]) <= sizes.keys()
            bound = (
                dims.evaluate(op.attrs["bound"], sizes) if told else 1
            )  # else running tells, and 0 is on most axes
            low = 0 if dtype.kind == "u" else -bound
            return np.asarray(rng.integers(low, max(bound, low + 1), shape)).astype(dtype)
    if param.type.dtype == "i32" and shape[1:] == (6,) and _draws(param):
        return np.asarray(rng.integers(1, 1 << 30, shape)).astype(dtype)
    if dtype.kind == "b":
        return np.asarray(rng.integers(0, 2, shape)).astype(dtype)
    if dtype.kind in "iu":
        low, high = (0, 9) if dtype.kind == "u" else (-5, 6)
        return np.asarray(rng.integers(low, high, shape)).astype(dtype)
    return floats(rng, shape, seed % 8 == 0).astype(dtype)


def _draws(param: Value) -> bool:
    """Whether the program draws from streams, whose states have six numbers that are not all 0."""
    return param.block is not None and any(op.name == "mrg" for op in param.block.walk())


def floats(rng: np.random.Generator, shape: tuple[int, ...], odd: bool) -> Array:
    """Around 1 in magnitude, some whole; with `odd`, some zeros of both signs, infinities and NaN."""
    out = rng.standard_normal(shape) * 1.5
    out = np.where(rng.random(shape) < 0.15, np.rint(out), out)
    if odd:
        special = rng.choice([0.0, -0.0, np.inf, -np.inf, np.nan], shape, p=[0.3, 0.3, 0.15, 0.15, 0.1])
        out = np.where(rng.random(shape) < 0.1, special, out)
    return np.asarray(out)
