"""Random programs at the level of values, drawn from the op table, for `tcc.tools.fuzz`.

A program is made together with its values on one set of arguments, so that indices stay in range and most numbers
ordinary.  Sizes are names with known values, 0 and 1 among them; so one program is compiled for exact and for run-time
sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tcc.ir import dims
from tcc.ir.core import Func, Op, Value
from tcc.ir.dims import Size
from tcc.ir.ops.rules import NUMBERS
from tcc.ir.optable import TABLE, OpDef
from tcc.ir.types import COMPILED, FLOATS, INTEGERS, Type
from tcc.tools.compare import argument
from tcc.tools.draft import MOST, Draft, type_names
from tcc.tools.growing import Reject, grow

SIZES = (0, 1, 2, 3, 5, 16, 17, 33)
LARGE_SIZES = (129, 300)
ROWS = [d for d in TABLE.values() if d.scalar]
DTYPES = ["f32"] * 8 + ["f64"] * 3 + ["i64"] * 3 + sorted(COMPILED)


# -- steps -------------------------------------------------------------------------------------------------------


def elementwise(d: Draft) -> None:
    row: OpDef = d.choice(ROWS)
    if row.name == "where":
        x = d.pick()
        d.keep(d.op("where", d.like(x.type.with_dtype("bool")), x, d.like(x.type)))
        return
    if row.name == "cast":
        cast(d)
        return
    x = d.pick()
    low, high = (row.samples[0].low, row.samples[0].high) if row.samples else (-2, 2)
    if x.type.dtype in INTEGERS and (low, high) != (-2, 2):
        low, high = max(int(low), 0), int(high)
    operands = [x, *(d.like(x.type) for _ in row.operand_names[1:])]
    if (low, high) != (-2, 2) and x.type.dtype != "bool" and d.chance(0.85):
        operands = [d.clipped(v, low, high) for v in operands]
    d.keep(d.op(row.name, *operands))


def cast(d: Draft) -> None:
    x = d.pick()
    dtype = d.choice(DTYPES)
    if x.type.dtype in FLOATS and dtype in INTEGERS:
        x = d.op("where", d.op("isnan", x), d.b.full(0, x), x)  # a NaN has no integer
        x = d.clipped(x, 0 if dtype[0] == "u" else -100, 100)
    d.keep(d.op("cast", x, dtype=dtype))


def easy(d: Draft) -> None:
    """Arithmetic of floats, which most programs are made of."""
    x = d.pick(lambda v: v.type.dtype in FLOATS)
    name = d.choice("add sub mul add mul tanh sigmoid exp neg sqr maximum minimum abs sin div".split())
    operands = [x, *(d.like(x.type) for _ in TABLE[name].operand_names[1:])]
    d.keep(d.op(name, *operands))


def broadcast(d: Draft) -> None:
    x = d.pick(lambda v: v.type.rank < 4)
    shape = [d.size() if s == 1 and d.chance(0.7) else s for s in x.type.shape]
    lead = [d.size() for _ in range(d.choice([0, 0, 1, 1, 2]))]
    d.keep(d.op("broadcast", x, shape=(*lead, *shape)))


def dimshuffle(d: Draft) -> None:
    x = d.pick(lambda v: v.type.rank > 0)
    order = [int(a) for a in d.rng.permutation(x.type.rank)]
    order = [a for a in order if x.type.shape[a] != 1 or d.chance(0.5)]
    while len(order) < 5 and d.chance(0.3):
        order.insert(int(d.rng.integers(len(order) + 1)), -1)
    d.keep(d.op("dimshuffle", x, order=order))


def reshape(d: Draft) -> None:
    x = d.pick()
    shape = list(x.type.shape)
    how = d.choice(["flat", "permute", "merge", "one"])
    if how == "flat":
        shape = [x.type.size]
    elif how == "permute":
        shape = [shape[a] for a in d.rng.permutation(len(shape))]
    elif how == "merge" and len(shape) > 1:
        k = int(d.rng.integers(len(shape) - 1))
        shape[k : k + 2] = [shape[k] * shape[k + 1]]
    elif how == "one":
        shape.insert(int(d.rng.integers(len(shape) + 1)), 1)
    d.keep(d.op("reshape", x, shape=tuple(shape)))


def window(d: Draft, shape: Sequence[Size]) -> dict[str, list[Any]]:
    """start, size and step of a window that exists."""
    start: list[Size] = []
    size: list[Size] = []
    step: list[int] = []
    for n in shape:
        some = d.number(n) > 0
        how = d.choice(["all", "all", "half", "rest", "reverse", "even", "back2", "one", "last", "none"])
        if not some and how in ("one", "last"):
            how = "all"
        first, count, by = {
            "all": (0, n, 1),
            "half": (0, n // 2, 1),
            "rest": (n // 2, n - n // 2, 1),
            "reverse": (n - 1, n, -1),
            "even": (0, (n + 1) // 2, 2),
            "back2": (n - 1, (n + 1) // 2, -2),
            "one": (0, 1, 1),
            "last": (n - 1, 1, 1),
            "none": (0, 0, 1),
        }[how]
        start.append(first)
        size.append(count)
        step.append(by)
    return {"start": start, "size": size, "step": step}


def slices(d: Draft) -> None:
    x = d.pick(lambda v: v.type.rank > 0)
    d.keep(d.op("slice", x, **window(d, x.type.shape)))


def insert(d: Draft) -> None:
    x = d.pick(lambda v: v.type.rank > 0)
    where = window(d, x.type.shape)
    v = d.like(x.type.with_shape(*where["size"])) if d.chance(0.5) else d.op("slice", d.like(x.type), **where)
    mode = "set" if x.type.dtype == "bool" else d.choice(["set", "add"])
    d.keep(d.op("insert", x, v, mode=mode, **where))


def concat(d: Draft) -> None:
    x = d.pick(lambda v: v.type.rank > 0)
    axis = int(d.rng.integers(x.type.rank))
    parts = [x]
    for _ in range(d.choice([0, 1, 1, 1, 2])):
        shape = [d.size() if a == axis else s for a, s in enumerate(x.type.shape)]
        parts.append(d.like(x.type.with_shape(*shape)))
    d.keep(d.op("concat", *parts, axis=axis))


def reduction(d: Draft) -> None:
    name = d.choice(["sum", "sum", "sum", "prod", "max", "min", "any", "all", "logsumexp"])
    x = d.pick(lambda v: v.type.rank > 0 and (v.type.dtype == "bool") == (name in ("any", "all")))
    axes = [a for a in range(x.type.rank) if d.chance(0.5)]
    attrs: dict[str, Any] = {"axes": axes}
    if name in ("sum", "prod") and d.chance(0.15):
        attrs["dtype"] = d.choice(
            sorted((NUMBERS & COMPILED) - (INTEGERS if x.type.dtype in FLOATS else set()))
        )
    d.keep(d.op(name, x, **attrs))


def along_axis(d: Draft) -> None:
    x = d.pick(lambda v: v.type.rank > 0)
    name = d.choice(["argmax", "argmin", "cumsum", "cumprod", "sort", "argsort"])
    d.keep(d.op(name, x, axis=int(d.rng.integers(x.type.rank))))


def index(d: Draft, shape: Sequence[Size], bound: Size, dtype: str) -> Value:
    """A new parameter that is checked to lie within the bound."""
    if d.number(bound) == 0 and d.number(dims.product(tuple(shape))) > 0:
        raise Reject
    top = d.top
    if len(top.block.params) >= 10 or dims.names_of(dims.product(tuple(shape))) & top.bound:
        raise Reject
    p = top.block.add_param(Type(dtype, tuple(shape)), f"p{len(top.block.params)}")
    check = top.b.op("check_index", p, attrs={"bound": bound})
    d.frame.env[p] = argument(p, d.sizes, d.seed)
    d.frame.op(check)
    return p


def gather(d: Draft) -> None:
    x = d.pick(lambda v: v.type.rank > 0)
    axes = [a for a in range(x.type.rank) if d.chance(0.5)] or [0]
    shape = d.shape(d.choice([0, 1, 1, 2]))
    dtype = d.choice(["i64", "i64", "i32", "u8"])
    indices = [index(d, shape, x.type.shape[a], dtype) for a in axes]
    if d.chance(0.6):
        d.keep(d.op("gather", x, *indices, axes=axes))
        return
    rest = [s for a, s in enumerate(x.type.shape) if a not in axes]
    v = d.like(x.type.with_shape(*shape, *rest))
    mode = "set" if x.type.dtype == "bool" else d.choice(["set", "add"])
    d.keep(d.op("scatter", x, v, *indices, axes=axes, mode=mode))


def pick_of_rows(d: Draft) -> None:
    """One element of each row, as a cross-entropy picks it."""
    x = d.pick(lambda v: v.type.rank == 2 and v.type.dtype in FLOATS)
    n, m = x.type.shape
    labels = index(d, (n,), m, d.choice(["i64", "i32"]))
    if d.chance(0.5):
        d.keep(d.op("xent", x, labels))
        return
    rows = d.op("iota", shape=(n,), axis=0, dtype=labels.type.dtype)
    d.keep(d.op("gather", x, rows, labels, axes=[0, 1]))


def matmul(d: Draft) -> None:
    x = d.pick(lambda v: v.type.rank >= 2 and v.type.dtype != "bool")
    *batch, m, k = x.type.shape
    if d.chance(0.3):
        order = [*range(len(batch)), len(batch) + 1, len(batch)]
        x = d.op("dimshuffle", x, order=order)
        m, k = k, m
    y = (
        d.op(
            "dimshuffle",
            d.like(x.type.with_shape(*batch, n, k)),
            order=[*range(len(batch)), len(batch) + 1, len(batch)],
        )
        if d.chance(0.3) and (n := d.size()) is not None
        else d.like(x.type.with_shape(*batch, k, d.size()))
    )
    z = d.keep(d.op("matmul", x, y))
    if d.chance(0.4):
        z = d.keep(d.op("add", z, d.like(z.type)))
        if z.type.dtype in FLOATS:
            d.keep(d.op(d.choice(["tanh", "sigmoid", "neg", "sqr"]), z))


def rows(d: Draft) -> None:
    x = d.pick(lambda v: v.type.rank > 0 and v.type.dtype in FLOATS)
    d.keep(d.op(d.choice(["softmax", "log_softmax"]), x))


def normalise(d: Draft) -> None:
    """Subtracts a mean or maximum of the rows, or of the columns."""
    x = d.pick(lambda v: v.type.rank > 0 and v.type.dtype in FLOATS)
    axis = int(d.rng.integers(x.type.rank))
    total = d.op(d.choice(["sum", "max", "min"]), x, axes=[axis])
    order = [*range(axis), -1, *range(axis, x.type.rank - 1)]
    wide = d.op("broadcast", d.op("dimshuffle", total, order=order), shape=x.type.shape)
    d.keep(d.op(d.choice(["sub", "mul", "maximum"]), x, wide))


def sizes(d: Draft) -> None:
    """A size as a number, among the numbers; or a number as a size."""
    if d.chance(0.6) or d is not d.top:
        v = d.op("size", value=d.size() if isinstance(s := d.size(), int) else s + 1)
        x = d.pick(lambda v: v.type.dtype in FLOATS)
        d.keep(d.op("mul", x, d.op("broadcast", d.op("cast", v, dtype=x.type.dtype), shape=x.type.shape)))
        return
    name = f"s{len(d.bound)}"
    d.sizes[name] = d.frame.sizes[name] = int(d.choice(SIZES))
    d.bound.add(name)
    top = d.top
    p = top.block.add_param(Type("i64"), f"p{len(top.block.params)}")
    d.frame.env[p] = np.asarray(d.sizes[name])
    op = d.b.op("bind", p, attrs={"size": dims.name(name)})
    d.frame.op(op)
    x = d.pick(lambda v: v.type.rank < 4)
    d.keep(d.op("broadcast", x, shape=(dims.name(name), *x.type.shape)))
    d.keep(d.op("iota", shape=(dims.name(name),), axis=0, dtype=d.choice(["f32", "i64"])))


def refine(d: Draft) -> None:
    if d is not d.top:
        raise Reject
    x = d.pick(lambda v: v.type.rank > 0)
    shape = []
    for s in x.type.shape:
        equal = [n for n in d.sizes if d.sizes[n] == d.number(s) and n not in d.bound]
        shape.append(dims.name(d.choice(equal)) if equal and d.chance(0.6) else s)
    d.keep(d.op("refine", x, type=x.type.with_shape(*shape)))


def scan(d: Draft) -> None:
    """A loop over sequences and carries, whose body is a small program that reads outer values."""
    if d.outer is not None and d.outer.outer is not None:
        raise Reject
    length = d.size()
    longest = 33 if d.outer is None else 5  # the interpreter takes long
    if dims.names_of(length) & d.top.bound or d.number(length) > longest:
        raise Reject
    sequences = [
        d.like(Type("f32", (length, *d.shape(d.choice([0, 1, 2]))))) for _ in range(d.choice([0, 1, 1, 2]))
    ]
    carries = [
        d.pick(lambda v: v.type.rank < 3 and v.type.dtype in FLOATS) for _ in range(d.choice([0, 1, 1, 2]))
    ]
    inner = Draft(d.rng, d.sizes, d.seed, d)
    for s in sequences:
        p = inner.block.add_param(s.type.with_shape(*s.type.shape[1:]))
        a = d.array(s)
        d.frame.env[p] = np.asarray(a[0]) if len(a) else np.ones(a.shape[1:], a.dtype)
        inner.values.append(p)
    states = []
    for c in carries:
        p = inner.block.add_param(c.type)
        d.frame.env[p] = d.array(c)
        inner.values.append(p)
        states.append(p)
    grow(inner, int(d.rng.integers(2, 7)), INNER)
    nexts = []
    for p in states:
        made = [v for v in inner.values if v.type == p.type]
        v = d.choice(made)
        if d.chance(0.6) and v.type.dtype in FLOATS:
            v = inner.op("tanh", inner.op("add", v, p))
        nexts.append(v)
    outs = (
        [d.choice(inner.values) for _ in range(d.choice([0, 1, 2]) if carries else 1)] if inner.values else []
    )
    outs = [v for v in outs if v.type.rank < 4 and not type_names(v.type) & d.top.bound]
    if not nexts and not outs:
        raise Reject
    ends = (
        [d.choice(flags)]
        if d.chance(0.2) and (flags := [v for v in inner.values if v.type == Type("bool")])
        else []
    )
    inner.b.op("yield", *nexts, *outs, *ends)
    attrs = {"seqs": len(sequences), "carries": len(carries), "length": length}
    op = d.b.op(
        "scan",
        *sequences,
        *carries,
        attrs={**attrs, "reverse": d.chance(0.3), "until": bool(ends)},
        blocks=[inner.block],
    )
    d.frame.op(op)
    d.values += op.results


def ifelse(d: Draft) -> None:
    """Two small programs that read outer values, one of which runs."""
    if d.outer is not None and d.outer.outer is not None:
        raise Reject
    flag = d.like(Type("bool"))
    wanted = [d.pick(lambda v: v.type.rank < 4).type for _ in range(d.choice([1, 1, 2]))]
    if any(type_names(t) & d.top.bound for t in wanted):
        raise Reject
    blocks = []
    for _ in range(2):
        inner = Draft(d.rng, d.sizes, d.seed, d)
        grow(inner, int(d.rng.integers(1, 5)), INNER)
        inner.b.op("yield", *[d.choice([v for v in inner.visible if v.type == t]) for t in wanted])
        blocks.append(inner.block)
    op = d.b.op("ifelse", flag, blocks=blocks)
    d.frame.op(op)
    d.values += op.results


def gradients(d: Draft) -> None:
    """Reverse mode, by the rows' own rules, of the sum of some value."""
    if d is not d.top:
        raise Reject
    y = d.pick(lambda v: v.type.dtype in FLOATS)
    cost = d.op("sum", y, axes=list(range(y.type.rank))) if y.type.rank else y
    before = d.block.last
    found: dict[Value, Value] = {cost: d.b.full(1, cost)}
    order: dict[Op, None] = {}

    def visit(op: Op | None) -> None:
        if op is None or op in order:
            return
        for v in op.operands:
            visit(v.op)
        order[op] = None

    visit(cost.op)
    for op in reversed(order):
        if op.defn.grad is None or len(op.results) != 1 or op.result not in found:
            continue
        try:
            made = op.defn.grad(d.b, op, [found[op.result]])
        except TypeError:
            continue
        for v, g in zip(op.operands, made):
            if g is not None and v.type.dtype in FLOATS and g.type == v.type:
                found[v] = d.b.add(found[v], g) if v in found else g
    done = before is None
    for o in d.block.ops:
        if done and (not o.results or o.results[0] not in d.frame.env):
            d.frame.op(o)
        done = done or o is before
    leaves = [g for v, g in found.items() if v.op is None]
    d.values += [g for g in leaves if d.number(g.type.size) <= MOST]


STEPS: list[tuple[Callable[[Draft], None], int]] = [
    (elementwise, 20),
    (easy, 20),
    (cast, 2),
    (broadcast, 5),
    (dimshuffle, 6),
    (reshape, 4),
    (slices, 6),
    (insert, 5),
    (concat, 4),
    (reduction, 12),
    (along_axis, 3),
    (gather, 5),
    (pick_of_rows, 2),
    (matmul, 8),
    (rows, 3),
    (normalise, 4),
    (sizes, 2),
    (refine, 1),
    (scan, 4),
    (ifelse, 2),
    (gradients, 2),
]
INNER = [(s, w) for s, w in STEPS if s not in (gradients, refine)]


def program(seed: int) -> tuple[Func, dict[str, int]]:
    """The program of a seed, and the sizes that it was drawn with."""
    with np.errstate(all="ignore"):
        return drawn(seed)


def drawn(seed: int) -> tuple[Func, dict[str, int]]:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 5))
    choices = (*SIZES, *LARGE_SIZES) if rng.random() < 0.2 else SIZES
    d = Draft(rng, {f"n{k}": int(rng.choice(choices)) for k in range(count)}, seed)
    for _ in range(int(rng.integers(1, 4))):
        try:
            d.param(Type(d.choice(DTYPES[:12]), d.shape()))
        except Reject:
            continue
    if not d.values:
        d.param(Type("f32", ()))
    # each program from a few kinds of steps, which meet more often than if all had their share (swarm testing)
    some = [(step, w * int(rng.integers(1, 5))) for step, w in STEPS if rng.random() < 0.6]
    grow(d, int(rng.integers(3, 30)), [*some, (easy, 5)])
    return finish(d), d.sizes


def finish(d: Draft) -> Func:
    """Yields some values, those that nothing reads among them; some parameters become shared variables that some of them
    update."""
    live = [v for v in d.values if v.op is not None] or d.values
    last = [v for v in live if not v.uses]
    others = [v for v in live if v.uses and d.chance(0.15)]
    chosen = [*last[-6:], *others[-3:]] or live[-1:]
    func = Func(f"fuzz{d.seed}", d.block)
    shared: list[str] = []
    updates: dict[str, int] = {}
    if d.chance(0.4):
        for p in d.block.params:
            if any(u.name in ("bind", "check_index") for u in p.users) or d.chance(0.4):
                continue
            shared.append(p.name)
            made = [v for v in (*d.values, *d.block.params) if v.type == p.type and v is not p]
            if made and d.chance(0.8):
                updates[p.name] = len(chosen)
                chosen.append(d.choice(made[-4:]))
    for name in missing_names(d, chosen):
        d.block.add_param(Type("bool", (dims.name(name),)), f"q{name}")
    d.b.op("yield", *chosen)
    if shared:
        func.attrs |= {"shared": shared, "updates": updates}
    return func


def missing_names(d: Draft, chosen: Sequence[Value]) -> list[str]:
    """Sizes that the shape of no parameter tells."""
    plain = {s.plain for p in d.block.params for s in p.type.shape if not isinstance(s, int)}
    return [n for n in d.sizes if n not in plain and n not in d.bound]
