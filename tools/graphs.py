"""Random graphs as users write them, for `tcc.tools.fuzz --graphs`: loops, branches, indexing, random numbers, updates, and
gradients of all of it.

`tcc.tools.programs` draws from the op table; this draws from the frontend, so what `grad`, `Rop` and `scan` make is met
as well.  The result is lowered and goes the same way from there on.  A value's sizes are known here as numbers; the graph
has names, which are equal only where the program says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import tcc
import tcc.tensor as T
from tcc.graph import ancestors
from tcc.ir import dims
from tcc.ir.core import Func
from tcc.sandbox.rng_mrg import MRG_RandomStreams
from tcc.tools.growing import Reject, grow

SIZES = (0, 1, 2, 3, 5, 8, 17)
MOST = 1 << 12  # elements of a value
MOST_INPUTS = 10
FLOATS = ("float32", "float64")
FAMILIES = {
    "loops": {"scan"},
    "branches": {"ifelse"},
    "slices": {"slice", "insert"},
    "lookups": {"gather", "scatter", "positions"},
    "random numbers": {"philox", "mrg"},
}

Shape = tuple[int, ...]


class Sketch:
    """Values with their sizes: of the whole graph, or of one step of a loop (`outer` is what stands around it)."""

    def __init__(self, rng: np.random.Generator, outer: Sketch | None = None) -> None:
        self.rng, self.outer = rng, outer
        self.top: Sketch = outer.top if outer else self
        self.values: list[tuple[Any, Shape]] = []
        self.updates: dict[Any, Any] = {}
        if outer is None:
            self.inputs: list[Any] = []
            self.shared: list[tuple[Any, Shape]] = []
            self.sizes: dict[str, int] = {}
            self.streams = (tcc.random.Stream(1), MRG_RandomStreams(2))
            self.common = [int(n) for n in rng.choice(SIZES, 3)]
            self.slopes: list[Any] = []  # gradients and directional derivatives

    @property
    def depth(self) -> int:
        return 0 if self.outer is None else self.outer.depth + 1

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def choice(self, items: Sequence[Any]) -> Any:
        if not items:
            raise Reject
        return items[int(self.rng.integers(len(items)))]

    def size(self) -> int:
        return int(self.choice(self.top.common))

    def shape(self, rank: int | None = None) -> Shape:
        rank = int(self.choice([0, 1, 1, 2, 2, 2, 3])) if rank is None else rank
        return tuple(self.size() for _ in range(rank))

    @property
    def visible(self) -> list[tuple[Any, Shape]]:
        return [*self.outer.visible, *self.values] if self.outer else self.values

    def pick(self, fits: Callable[[Any, Shape], bool] = lambda v, s: True) -> tuple[Any, Shape]:
        """A float that fits, recent ones more often."""
        found = [(v, s) for v, s in self.visible if v.dtype in FLOATS and fits(v, s)]
        if not found:
            raise Reject
        return found[int(len(found) * self.rng.random() ** 0.6)]

    def keep(self, v: Any, shape: Shape) -> tuple[Any, Shape]:
        if int(np.prod(shape)) > MOST or v.ndim > 4:
            raise Reject
        assert v.ndim == len(shape), (v, shape)
        self.values.append((v, shape))
        return v, shape

    def named(self, v: Any, shape: Shape) -> None:
        """Sizes of a parameter, as lowering names them."""
        self.top.sizes |= {f"{v.name}_{axis}": n for axis, n in enumerate(shape)}

    def input(self, shape: Shape, dtype: str = "float32") -> Any:
        top = self.top
        if len(top.inputs) + len(top.shared) >= MOST_INPUTS or int(np.prod(shape)) > MOST:
            raise Reject
        if dtype in FLOATS and self.chance(0.3):
            v = tcc.shared(np.zeros(shape, dtype), f"w{len(top.shared)}")
            top.shared.append((v, shape))
        else:
            v = T.TensorType(dtype, (False,) * len(shape))(f"v{len(top.inputs)}")
            top.inputs.append(v)
        if dtype in FLOATS:
            top.values.append((v, shape))
        self.named(v, shape)
        return v

    def like(self, shape: Shape, dtype: str) -> Any:
        """A value of this shape and dtype: one that is there, or an input."""
        same = [v for v, s in self.visible if s == shape and v.dtype == dtype]
        return self.choice(same) if same and self.chance(0.8) else self.input(shape, dtype)

    def index(self, shape: Shape, bound: int) -> Any:
        if bound == 0 and int(np.prod(shape)) > 0:
            raise Reject
        return self.input(shape, str(self.choice(["int64", "int64", "int32"])))


# -- steps -----------------------------------------------------------------------------------------------------------


def maps(d: Sketch) -> None:
    x, shape = d.pick()
    f = d.choice(
        [T.tanh, T.nnet.sigmoid, T.sqr, T.sin, abs, T.neg, lambda a: T.exp(T.clip(a, -3, 3)), T.nnet.relu]
    )
    d.keep(f(x), shape)


def arithmetic(d: Sketch) -> None:
    x, shape = d.pick()
    y = d.like(shape, x.dtype)
    f = d.choice([T.add, T.sub, T.mul, T.maximum, T.minimum, lambda a, b: a / (T.sqr(b) + 1)])
    d.keep(f(x, y), shape)


def broadcasts(d: Sketch) -> None:
    x, shape = d.pick(lambda v, s: len(s) > 0)
    axis = int(d.rng.integers(len(shape)))
    y = d.like(shape[axis:], x.dtype)
    if axis < len(shape) - 1 and d.chance(0.5):
        row = d.like(shape[:axis] + shape[axis + 1 :], x.dtype)
        order = [*range(axis), "x", *range(axis, len(shape) - 1)]
        d.keep(x * row.dimshuffle(*order), shape)
        return
    d.keep(d.choice([T.add, T.mul, T.sub])(x, y), shape)


def reductions(d: Sketch) -> None:
    x, shape = d.pick(lambda v, s: len(s) > 0)
    axis = int(d.rng.integers(len(shape)))
    rest = shape[:axis] + shape[axis + 1 :]
    how = d.choice(["sum", "sum", "mean", "max", "var", "softmax", "cumsum"])
    if how in ("mean", "max", "var", "softmax") and shape[axis] == 0:
        raise Reject
    if how == "softmax":
        y = x if x.ndim == 2 else None
        if y is None:
            raise Reject
        d.keep(T.nnet.softmax(y), shape)
    elif how == "cumsum":
        d.keep(T.cumsum(x, axis=axis), shape)
    else:
        d.keep(getattr(x, how)(axis=axis), rest)


def products(d: Sketch) -> None:
    x, shape = d.pick(lambda v, s: len(s) in (1, 2))
    n = d.size()
    if len(shape) == 1 and d.chance(0.3):
        d.keep(T.dot(d.like((n, shape[0]), x.dtype), x) * 0.3, (n,))
    elif len(shape) == 2 and d.chance(0.3):
        d.keep(T.dot(d.like((n, shape[0]), x.dtype), x) * 0.3, (n, shape[1]))
    elif d.chance(0.3):
        d.keep(T.dot(x, d.like((n, shape[-1]), x.dtype).T) * 0.3, (*shape[:-1], n))
    else:
        d.keep(T.dot(x, d.like((shape[-1], n), x.dtype)) * 0.3, (*shape[:-1], n))


def moves(d: Sketch) -> None:
    x, shape = d.pick(lambda v, s: len(s) > 0)
    how = d.choice(["T", "flat", "roll", "join", "stack", "pad", "repeat", "tile"])
    if how == "T":
        d.keep(x.T, shape[::-1])
    elif how == "flat":
        d.keep(x.flatten(), (int(np.prod(shape)),))
    elif how == "roll":
        d.keep(T.roll(x, 1, axis=0), shape)
    elif how == "join":
        axis = int(d.rng.integers(len(shape)))
        other = d.like((*shape[:axis], d.size(), *shape[axis + 1 :]), x.dtype)
        n = next(s for v, s in reversed([*d.top.visible, *d.visible]) if v is other)[axis]
        d.keep(T.join(axis, x, other), (*shape[:axis], shape[axis] + n, *shape[axis + 1 :]))
    elif how == "stack":
        d.keep(T.stack([x, d.like(shape, x.dtype)], axis=0), (2, *shape))
    elif how == "pad":
        d.keep(x.dimshuffle("x", *range(len(shape))).sum(axis=0), shape)
    elif how == "repeat":
        d.keep(T.repeat(x, 2, axis=0), (2 * shape[0], *shape[1:]))
    else:
        d.keep(T.tile(x, (2,) * len(shape)), tuple(2 * n for n in shape))


def part(d: Sketch, n: int) -> tuple[Any, int]:
    """A slice of an axis of n elements, and how many it takes."""
    how = d.choice(
        [
            slice(None),
            slice(None, None, -1),
            slice(1, None),
            slice(None, -1),
            slice(None, None, 2),
            slice(0, 3),
        ]
    )
    return how, len(range(n)[how])


def slices(d: Sketch) -> None:
    x, shape = d.pick(lambda v, s: len(s) > 0)
    items, sizes = zip(*(part(d, n) for n in shape))
    if d.chance(0.3) and shape[0] > 0:
        d.keep(x[(d.choice([0, -1]), *items[1:])], tuple(sizes[1:]))
    elif d.chance(0.4):
        y = d.like(tuple(sizes), x.dtype) if d.chance(0.6) else np.asarray(0.5, x.dtype)
        d.keep(d.choice([T.set_subtensor, T.inc_subtensor])(x[tuple(items)], y), shape)
    else:
        d.keep(x[tuple(items)], tuple(sizes))


def lookups(d: Sketch) -> None:
    empty = d.chance(0.1)
    x, shape = d.pick(lambda v, s: len(s) > 0 and (s[0] > 0 or empty))
    if d.chance(0.3) and len(shape) == 2 and shape[1] > 0:
        labels = d.index((shape[0],), shape[1])
        d.keep(x[T.arange(x.shape[0]), labels], (shape[0],))
        return
    at = d.shape(int(d.choice([0, 1, 1, 2])))
    index = d.index(at, shape[0])
    if d.chance(0.4):
        y = d.like((*at, *shape[1:]), x.dtype)
        d.keep(T.inc_subtensor(x[index], y) if d.chance(0.7) else T.inc_subtensor(x[index], y * 0), shape)
    else:
        d.keep(x[index], (*at, *shape[1:]))


def masks(d: Sketch) -> None:
    x, shape = d.pick()
    y = d.like(shape, x.dtype)
    if d.chance(0.4) and len(shape) > 0 and d.depth == 0:
        total = x[(y > 0).nonzero()].sum()
        d.keep(total, ())
        return
    d.keep(T.switch(x > y, x * y, x - 1), shape)


def noise(d: Sketch) -> None:
    """Dropout and its like."""
    x, shape = d.pick()
    stream = d.choice(d.top.streams)
    size = x.shape if len(shape) else ()
    how = d.choice(["normal", "uniform", "binomial"])
    if how == "binomial":
        drawn = (
            stream.binomial(size, n=1, p=0.5, dtype=x.dtype, ndim=len(shape))
            if len(shape)
            else stream.binomial((), n=1, p=0.5, dtype=x.dtype)
        )
    else:
        drawn = (
            getattr(stream, how)(size, dtype=x.dtype, ndim=len(shape))
            if len(shape)
            else getattr(stream, how)((), dtype=x.dtype)
        )
    d.keep(d.choice([T.mul, T.add])(x, drawn), shape)


def branches(d: Sketch) -> None:
    flag, _ = d.pick(lambda v, s: s == ())
    x, shape = d.pick()
    y = d.like(shape, x.dtype)
    d.keep(tcc.ifelse(flag > 0, T.tanh(x) * y, y - 1), shape)


def loops(d: Sketch) -> None:
    """A scan whose step is a small program of its own."""
    if d.depth == 2:
        raise Reject
    steps = int(d.choice([n for n in (*d.top.common, 1, 2, 4) if n <= (17 if d.depth == 0 else 5)]))
    sequences: list[tuple[Any, Shape]] = []
    for _ in range(int(d.choice([0, 1, 1, 2]))):
        found = [(v, s) for v, s in d.visible if len(s) > 0 and s[0] == steps and v.dtype in FLOATS]
        if found and d.chance(0.7):
            sequences.append(d.choice(found))
        else:
            shape = (steps, *d.shape(int(d.choice([0, 1, 1, 2]))))
            sequences.append((d.input(shape), shape))
    states = [d.pick(lambda v, s: len(s) < 3) for _ in range(int(d.choice([0, 1, 1, 2])))]
    taps = [int(d.choice([1, 1, 1, 2])) for _ in states]
    firsts = []
    for (v, _), count in zip(states, taps):
        v = T.unbroadcast(v, *range(v.ndim)) if v.ndim else v
        firsts.append(v if count == 1 else {"initial": T.stack([v, v * 0.5]), "taps": [-2, -1]})
    extra = int(d.choice([0, 0, 1])) if states else 1
    ends = d.chance(0.1)
    shapes: list[Shape] = []

    def step(*args: Any) -> Any:
        inner = Sketch(d.rng, d)
        given = list(args)
        for _, s in sequences:
            inner.values.append((given.pop(0), s[1:]))
        held = []
        for (_, s), count in zip(states, taps):
            held.append([given.pop(0) for _ in range(count)])
            inner.values += [(v, s) for v in held[-1]]
        grow(inner, int(d.rng.integers(1, 6)), INNER, REFUSALS)
        outs = []
        for (v, s), carried in zip(states, held):
            same = [x for x, t in inner.values if t == s and x.dtype == v.dtype]
            made = T.tanh(d.choice(same) + 0.5 * carried[0])
            outs.append(T.unbroadcast(made, *range(made.ndim)) if made.ndim else made)
            shapes.append((steps, *s))
        for _ in range(extra):
            x, s = d.choice(inner.values)
            outs.append(x)
            shapes.append((steps, *s))
        if not outs:
            raise Reject
        if ends:
            flag = outs[0].sum() > 0.5 if outs[0].ndim else outs[0] > 0.5
            return outs, inner.updates, tcc.until(flag)
        return outs, inner.updates

    options: dict[str, Any] = {"go_backwards": d.chance(0.2)}
    if d.chance(0.1):
        options["truncate_gradient"] = 2
    if not sequences or d.chance(0.3):
        options["n_steps"] = steps
    if ends and steps == 0:
        raise Reject
    made, updates = tcc.scan(
        step, [v for v, _ in sequences], [*firsts, *[None] * extra], return_list=True, **options
    )
    d.updates |= updates
    for v, s in zip(made, shapes):
        if ends:  # how many steps are made, only running tells
            d.keep(v.sum(axis=0), s[1:])
        else:
            d.keep(v, s)
            if d.chance(0.4) and steps:
                d.keep(v[-1], s[1:])


def gradients(d: Sketch) -> None:
    if d.depth:
        raise Reject
    y, _ = d.pick()
    cost = d.choice([lambda v: T.sqr(v).sum(), lambda v: T.tanh(v).sum(), lambda v: (v * 0.3).sum()])(y)
    leaves = [(v, s) for v, s in [*((v, s) for v, s in d.values if v.owner is None)]]
    if not leaves:
        raise Reject
    wrt = [d.choice(leaves) for _ in range(int(d.choice([1, 1, 2])))]
    found = T.grad(cost, [v for v, _ in wrt], disconnected_inputs="ignore")
    if d.chance(0.15):
        again = sum(T.sqr(g).sum() for g in found)
        found = T.grad(again, [v for v, _ in wrt], disconnected_inputs="ignore")
    for g, (v, s) in zip(found, wrt):
        d.keep(g, s)
        d.slopes.append(g)
        if d.chance(0.5) and any(v is w for w, _ in d.shared):
            d.updates[v] = v - np.asarray(0.1, v.dtype) * g


def directions(d: Sketch) -> None:
    if d.depth:
        raise Reject
    y, shape = d.pick()
    leaves = [(v, s) for v, s in d.values if v.owner is None]
    x, s = d.choice(leaves)
    along = d.like(s, x.dtype)
    slope, _ = d.keep(T.Rop(y, x, along, disconnected_outputs="ignore"), shape)
    d.slopes.append(slope)


STEPS: list[tuple[Callable[[Sketch], None], int]] = [
    (maps, 12),
    (arithmetic, 12),
    (broadcasts, 6),
    (reductions, 8),
    (products, 8),
    (moves, 4),
    (slices, 6),
    (lookups, 5),
    (masks, 3),
    (noise, 4),
    (branches, 2),
    (loops, 8),
    (gradients, 6),
    (directions, 2),
]
REFUSALS = (Reject, tcc.gradient.NullTypeGradError, tcc.gradient.DisconnectedInputError)
INNER = [(step, weight) for step, weight in STEPS if step not in (gradients, directions)]


def grown(seed: int) -> Sketch:
    """What is drawn for a seed."""
    rng = np.random.default_rng([seed, 1])
    d = Sketch(rng)
    d.input(d.shape(2) if d.chance(0.5) else ())
    for _ in range(int(rng.integers(0, 3))):
        try:
            d.input(d.shape(), str(d.choice(["float32", "float32", "float64"])))
        except Reject:
            continue
    some = [(step, w * int(rng.integers(1, 5))) for step, w in STEPS if rng.random() < 0.7]
    grow(d, int(rng.integers(4, 22)), [*some, (arithmetic, 5)], REFUSALS)
    for step in (lookups, noise, loops, gradients):  # which are rare among so many others, and rarely meet
        if d.chance(0.3):
            grow(d, 2, [(step, 1)], REFUSALS)
    return d


def graph(seed: int) -> tuple[Func, dict[str, int]]:
    """The graph of a seed, lowered, and the sizes that it was drawn with."""
    return lowered(grown(seed), f"graph{seed}")


def lowered(d: Sketch, name: str) -> tuple[Func, dict[str, int]]:
    f = tcc.function(d.inputs, outputs(d), updates=list(d.updates.items()), on_unused_input="ignore")
    f.func.name = name
    names = frozenset().union(*(dims.names_of(s) for p in f.func.body.params for s in p.type.shape))
    return f.func, {n: d.sizes[n] for n in sorted(names)}


def outputs(d: Sketch) -> list[Any]:
    """What was made last."""
    return [v for v, _ in d.values if v.owner is not None][-4:] or [v * 2 for v, _ in d.values[:1]]


def contents(d: Sketch, func: Func) -> set[str]:
    """What results hang on: families of rows, and gradients."""
    rows = {op.name for op in func.body.walk()}
    found = {family for family, members in FAMILIES.items() if rows & members}
    read = set(ancestors([*outputs(d), *d.updates.values()]))
    return found | {"gradients" for g in d.slopes if g in read}
