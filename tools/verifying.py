"""A model's code against the interpreter, and against the clock, on random inputs."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tcc.ir import dims
from tcc.ir.types import numpy_dtype
from tcc.loading import Model
from tcc.runtime import threads
from tcc.runtime.manifest import Entry, Range

Array = np.ndarray[Any, Any]
LARGEST_SIZE = 17  # of a size that is chosen at random
TRIES = 20  # to find inputs that a function takes
USUAL_SIZE = 32
HALVES = {"f16": 2.0**-10, "bf16": 2.0**-7}  # the precision of what each op rounds to
HALF_TOLERANCE = 32.0  # of functions with halves: more would let anything pass


class Mismatch(Exception):
    """Results that differ by more than the tolerance."""


def verified(
    native: Model,
    reference: Model,
    entry: Entry,
    trials: int,
    seed: int,
    sizes: Mapping[str, int],
    tolerance: float,
) -> str:
    """One line that says what was compared.  Mismatch names the worst element; ValueError, that no inputs were found."""
    worst, least = 0.0, coarsest(reference.entries[entry.name].func)
    tolerance = min(tolerance, HALF_TOLERANCE) if least else tolerance
    start = reference.state.get()
    for trial in range(trials):
        for model in (native, reference):
            model.state.set(start)
        given, numbers, wanted = accepted(reference, entry, np.random.default_rng([seed, trial]), sizes)
        got = results(native.entries[entry.name](**given), entry)
        pairs = [(f"the result {n}", wanted[n], got[n]) for n in wanted]
        pairs += [
            (f"the new value of {n}", reference.state[n].get_value(), native.state[n].get_value())
            for n in entry.updates
        ]
        for what, want, have in pairs:
            error, text = difference(want, have, least)
            if error > tolerance:
                shown = ", ".join(f"{n} = {v}" for n, v in numbers.items()) or "no sizes"
                where = origin(reference, entry, what)
                raise Mismatch(
                    f"@{entry.name}: {what}{text}{where}\nnote: trial {trial} of seed {seed}, {shown}"
                )
            worst = max(worst, error)
    return f"@{entry.name}: {trials} random inputs agree with the interpreter (worst error {worst:.3g} of its dtype's precision)"


def origin(model: Model, entry: Entry, what: str) -> str:
    """The op that makes a result, and its line."""
    func = model.entries[entry.name].func
    name = what.split()[-1]
    index = func.attrs.get("updates", {}).get(name) if what.startswith("the new") else None
    if index is None:
        index = [r.name for r in entry.results].index(name)
    op = func.body.yields[index].op
    if op is not None and op.name == "cast" and not op.loc:  # bfloat16 as callers get it
        op = op.operands[0].op
    return "" if op is None else f", made by {op.name}" + (f" at {op.loc}" if op.loc else "")


def coarsest(func: Any) -> float:
    """The precision of the coarsest of HALVES that the function computes in, or 0."""
    ops = list(func.body.walk())
    values = [*func.body.params, *(r for op in ops for r in op.results)]
    return max((HALVES.get(v.type.dtype, 0.0) for v in values), default=0.0)


def difference(want: Array, got: Array, least: float = 0.0) -> tuple[float, str]:
    """The largest error, in the dtype's precision (or `least`, if that is coarser) times the largest element, and what it is;
    inf for what is no number.

    An element that is finite in `got` alone counts as right.
    """
    if want.shape != got.shape or want.dtype != got.dtype:
        return np.inf, f" is {got.dtype}{list(got.shape)}, and {want.dtype}{list(want.shape)} interpreted"
    if not want.size:
        return 0.0, ""
    if want.dtype.kind not in "fc":
        errors = np.where(want == got, 0.0, np.inf)
    else:
        finite = np.abs(want[np.isfinite(want)]).astype(np.float64)
        unit = max(least, float(np.finfo(want.dtype).eps)) * float(finite.max(initial=0.0) or 1.0)
        same = (want == got) | (np.isnan(want) & np.isnan(got))
        with np.errstate(all="ignore"):
            apart = np.abs(want.astype(np.result_type(want, np.float64)) - got) / unit
        # Rules that keep numbers where the program as written overflows are no mistake
        kept = ~np.isfinite(want) & np.isfinite(got)
        errors = np.where(same | kept, 0.0, np.where(np.isfinite(apart), apart, np.inf))
    at = np.unravel_index(int(np.argmax(errors)), want.shape)
    place = "[" + ", ".join(map(str, map(int, at))) + "]" if at else ""
    error = float(errors[at])
    return error, f": element {place} is {got[at]}, and {want[at]} interpreted (error {error:.3g})"


def accepted(
    model: Model, entry: Entry, rng: np.random.Generator, sizes: Mapping[str, int]
) -> tuple[dict[str, Array], dict[str, int], dict[str, Array]]:
    """Random arguments that the interpreter takes, their sizes, and its results.

    Later tries are tamer: all sizes equal, then integers of zero.
    """
    last: Exception | None = None
    for attempt in range(TRIES):
        numbers = chosen_sizes(entry, rng, sizes, alike=attempt >= TRIES // 4)
        given = random_arguments(
            entry, model.entries[entry.name].func, numbers, rng, zeros=attempt >= TRIES // 2
        )
        try:
            return given, numbers, results(model.entries[entry.name](**given), entry)
        except (ValueError, IndexError, TypeError) as e:
            last = e
    raise ValueError(f"no random inputs were found that it takes; the last were refused with: {last}")


def results(made: Any, entry: Entry) -> dict[str, Array]:
    if isinstance(made, dict):
        return {n: np.asarray(a) for n, a in made.items()}
    listed = [made] if entry.returns == "array" else made
    return {r.name: np.asarray(a) for r, a in zip(entry.results, listed, strict=True)}


def chosen_sizes(
    entry: Entry, rng: np.random.Generator, sizes: Mapping[str, int], alike: bool = False
) -> dict[str, int]:
    common = int(rng.integers(1, LARGEST_SIZE + 1))
    made = {}
    for name, r in entry.sizes.items():
        number = common if alike else int(rng.integers(0, LARGEST_SIZE + 1))
        made[name] = sizes.get(name, within(r, number))
    return made


def within(r: Range, number: int) -> int:
    return max(r.least, number if r.most is None else min(number, r.most))


def random_arguments(
    entry: Entry, func: Any, numbers: Mapping[str, int], rng: np.random.Generator, zeros: bool = False
) -> dict[str, Array]:
    """Standard normal numbers; integers below the least bound that an index of the function is checked against."""
    bounds = [dims.evaluate(b, numbers) for b in index_bounds(func) if dims.names_of(b) <= numbers.keys()]
    high = max(1, min(bounds, default=3))
    made: dict[str, Array] = {}
    for a in entry.arguments:
        shape = [dims.evaluate(s, numbers) for s in a.sizes]
        dtype = numpy_dtype(a.dtype)
        if dtype.kind in "iub":
            made[a.name] = (np.zeros(shape) if zeros else rng.integers(0, high, shape)).astype(dtype)
        else:
            made[a.name] = np.asarray(rng.standard_normal(shape)).astype(dtype)
    return made


def index_bounds(func: Any) -> list[dims.Size]:
    return [op.attrs["bound"] for op in func.body.walk() if op.name == "check_index"]


# -- time --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Timing:
    """Seconds of a call: the least and the median of `calls`, and the first, which compiles."""

    name: str
    sizes: Mapping[str, int]
    threads: int
    calls: int
    best: float
    median: float
    first: float
    device: str = "cpu"

    def text(self) -> str:
        sizes = ", ".join(f"{n} = {v}" for n, v in self.sizes.items())
        where = f"{self.threads} thread{'s' * (self.threads > 1)}" if self.device == "cpu" else self.device
        return (
            f"@{self.name}: {1e6 * self.median:.1f} us a call (best {1e6 * self.best:.1f} us, the first {1e3 * self.first:.1f} ms; "
            f"{self.calls} calls, {where}{', ' + sizes if sizes else ''})"
        )

    def json(self) -> str:
        return json.dumps(self.__dict__ | {"sizes": dict(self.sizes)})


def timed(model: Model, entry: Entry, sizes: Mapping[str, int], seconds: float) -> Timing:
    """Calls an entry again and again on the same random arguments.  ValueError if it refuses them."""
    numbers = {n: sizes.get(n, within(r, USUAL_SIZE)) for n, r in entry.sizes.items()}
    function = model.entries[entry.name]
    given = list(random_arguments(entry, function.func, numbers, np.random.default_rng(0)).values())
    clock = time.perf_counter
    begin = clock()
    try:
        function(*given)
    except (TypeError, IndexError) as e:
        raise ValueError(str(e)) from None
    first = clock() - begin
    spans: list[float] = []
    end = clock() + seconds
    while not spans or clock() < end:
        begin = clock()
        function(*given)
        spans.append(clock() - begin)
    device = getattr(getattr(function, "device", None), "name", "cpu")
    return Timing(
        entry.name,
        numbers,
        threads.pool().limit,
        len(spans),
        min(spans),
        float(np.median(spans)),
        first,
        device,
    )
