"""Diagonals, products of Kronecker and Einstein, padding, covariance: matrix functions made of other functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tcc import build
from tcc.build import Size, as_size, node, shape_of, size_arithmetic, size_of, size_product, size_variable
from tcc.elemwise import cast, eq, mul, switch, true_div
from tcc.graph import inputs
from tcc.indexing import set_subtensor, take
from tcc.joining import join
from tcc.products import batched_dot, dot
from tcc.reductions import mean
from tcc.reductions import sum as total
from tcc.shapes import diagonal, dimshuffle, flatten, rebroadcast, reshape, shape_padleft, two_axes
from tcc.types import promote
from tcc.variable import Constant, as_variable, scalar_constant


def diag(v: Any, k: int = 0) -> Any:
    """A matrix with the vector v on its k-th diagonal, or that diagonal of a matrix."""
    v = as_variable(v)
    if v.type.ndim == 1:
        return alloc_diag(v, k)
    if v.type.ndim >= 2:
        return diagonal(v, k)
    raise ValueError("Number of dimensions of `v` must be greater than 0.")


def alloc_diag(v: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """Zeros with v's last axis on the diagonal `offset` of two new axes, the axes `axis1` and `axis2` of the result: what
    `diagonal` takes out again.  Of a vector it is a square matrix.
    """
    v = as_variable(v)
    rank = v.type.ndim
    if rank < 1:
        raise ValueError(f"alloc_diag needs an array of one axis or more, got {v.type}")
    axis1, axis2 = two_axes("alloc_diag", rank + 1, axis1, axis2)
    n = size_of(v, rank - 1)
    if offset == 0:
        shape = [n, n]
        row, column = (node("iota", shape=shape, axis=k, dtype="i64").result for k in (0, 1))
        of_columns = dimshuffle(v, *range(rank - 1), "x", rank - 1)
        made = switch(eq(row, column), of_columns, scalar_constant(0, v.type.dtype))
    else:
        side = size_arithmetic("add", n, abs(offset))
        zeros = build.broadcast_to(scalar_constant(0, v.type.dtype), [*shape_of(v)[:-1], side, side])
        line: Any = node("iota", shape=[n], axis=0, dtype="i64").result
        row, column = (line, line + offset) if offset > 0 else (line - offset, line)
        made = set_subtensor(zeros[(*[slice(None)] * (rank - 1), row, column)], v)
    new = {axis1: rank - 1, axis2: rank}
    rest = iter(range(rank - 1))
    return dimshuffle(made, *(new[a] if a in new else next(rest) for a in range(rank + 1)))


def trace(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """The sum of a diagonal."""
    made = diagonal(a, offset, axis1, axis2)
    return total(made, axis=made.type.ndim - 1)


def kron(a: Any, b: Any) -> Any:
    """Kronecker's product: blocks a[i, j] * b."""
    a, b = as_variable(a), as_variable(b)
    if a.type.ndim + b.type.ndim <= 2:
        raise TypeError(
            f"kron: inputs dimensions must sum to 3 or more. You passed {a.type.ndim} and {b.type.ndim}."
        )
    rank = max(a.type.ndim, b.type.ndim)
    a, b = (shape_padleft(v, rank - v.type.ndim) for v in (a, b))
    outer = [p for k in range(rank) for p in (k, "x")]
    inner = [p for k in range(rank) for p in ("x", k)]
    product = mul(dimshuffle(a, *outer), dimshuffle(b, *inner))
    return reshape(product, [size_arithmetic("mul", s, t) for s, t in zip(shape_of(a), shape_of(b))])


def horizontal_stack(*args: Any) -> Any:
    """Matrices side by side."""
    return join(1, *args)


def vertical_stack(*args: Any) -> Any:
    """Matrices one below the other."""
    return join(0, *args)


# -- padding ---------------------------------------------------------------------------------------------------------


def pad(x: Any, pad_width: Any, mode: str = "constant", constant_values: Any = 0) -> Any:
    """x with elements put before and behind it along each axis, as numpy.pad does.

    `pad_width` is a number, a pair, or one pair for each axis; mode constant, edge, reflect, symmetric or wrap.
    """
    x = as_variable(x)
    widths = _pairs(pad_width, x.type.ndim)
    if mode == "constant":
        sizes = shape_of(x)
        whole = [
            size_arithmetic("add", size_arithmetic("add", before, n), behind)
            for n, (before, behind) in zip(sizes, widths)
        ]
        value = build.cast(as_variable(constant_values), x.type.dtype)
        start = [before for before, _ in widths]
        filled = build.broadcast_to(value, whole)
        return node("insert", filled, x, start=start, size=list(sizes), step=[1] * x.type.ndim).result
    if mode not in PADDING:
        raise ValueError(f"pad: mode must be constant, {', '.join(PADDING)}, got {mode!r}")
    for axis, (before, behind) in enumerate(widths):
        if before == 0 and behind == 0:
            continue
        n = size_of(x, axis)
        length = size_arithmetic("add", size_arithmetic("add", before, n), behind)
        line = node("iota", shape=[length], axis=0, dtype="i64").result
        at = line - build.cast(size_variable(before), "int64")
        source = PADDING[mode](at, build.cast(size_variable(n), "int64"))
        inside = size_arithmetic("add", before, n)
        parts = [x]
        if before != 0:
            parts.insert(0, take(x, source[:before], axis))
        if behind != 0:
            parts.append(take(x, source[inside:], axis))
        x = join(axis, *parts)
    return x


def _mirrored(at: Any, n: Any) -> Any:
    period = build.elementwise("maximum", 2 * n - 2, scalar_constant(1, "int64"))
    rest = at % period
    return build.elementwise("minimum", rest, period - rest)


def _doubled(at: Any, n: Any) -> Any:
    rest = at % (2 * n)
    return build.elementwise("minimum", rest, 2 * n - 1 - rest)


PADDING: dict[str, Callable[[Any, Any], Any]] = {
    "edge": lambda at, n: build.elementwise("clip", at, scalar_constant(0, "int64"), n - 1),
    "wrap": lambda at, n: at % n,
    "reflect": _mirrored,
    "symmetric": _doubled,
}


def _pairs(width: Any, rank: int) -> list[tuple[Size, Size]]:
    if not isinstance(width, list | tuple):
        width = [(width, width)] * rank
    elif len(width) == 2 and not isinstance(width[0], list | tuple):
        width = [tuple(width)] * rank
    elif len(width) == 1:
        (one,) = width
        width = [(one[0], one[-1]) if isinstance(one, list | tuple) else (one, one)] * rank
    if len(width) != rank:
        raise ValueError(f"pad: {len(width)} pairs of widths for {rank} axes")
    made = [(as_size(a, "pad_width"), as_size(b, "pad_width")) for a, b in width]
    if any(isinstance(w, int) and w < 0 for pair in made for w in pair):
        raise ValueError("index can't contain negative values")
    return made


# -- Einstein's summation --------------------------------------------------------------------------------------------


def einsum(subscripts: str, *operands: Any) -> Any:
    """Sums of products over the labels that the output lacks, as numpy.einsum; two operands at a time, from the left.

    What two operands share and the rest does not need is contracted by a (batched) matrix product.
    """
    values = [as_variable(v) for v in operands]
    terms, output = _labels(subscripts, values)
    parts = [_without_repeats(v, t) for v, t in zip(values, terms)]
    dtype = promote(*(v.type.dtype for v in values))
    value, labels = parts[0]
    for number, (other, theirs) in enumerate(parts[1:], 1):
        later = set(output).union(*(t for _, t in parts[number + 1 :]))
        value, labels = _contracted(value, labels, other, theirs, later, dtype)
    gone = [k for k, label in enumerate(labels) if label not in output]
    if gone:
        value = total(value, axis=gone)
        labels = [label for label in labels if label in output]
    value = dimshuffle(value, *(labels.index(label) for label in output))
    return cast(value, dtype) if value.type.dtype != dtype else value


def _labels(subscripts: str, values: Sequence[Any]) -> tuple[list[list[str]], list[str]]:
    """The labels of each operand's axes and of the output's; those of `...` are numbers."""
    text = subscripts.replace(" ", "")
    left, arrow, right = text.partition("->")
    inputs = left.split(",")
    if len(inputs) != len(values):
        raise ValueError(f"einsum: {len(inputs)} terms in {subscripts!r} for {len(values)} operands")
    dots = 0
    for t, v in zip(inputs, values):
        if "..." in t:
            dots = max(dots, v.type.ndim - len(t.replace("...", "")))
    terms = []
    for t, v in zip(inputs, values):
        before, ellipsis, behind = t.partition("...")
        many = v.type.ndim - len(before) - len(behind)
        if many < 0 or (many and not ellipsis):
            raise ValueError(f"einsum: the term {t!r} does not fit an operand of {v.type.ndim} axes")
        terms.append([*before, *(str(dots - many + k) for k in range(many)), *behind])
    bad = {label for t in terms for label in t if not (label.isalpha() or label.isdigit())}
    if bad:
        raise ValueError(f"einsum: {sorted(bad)} in {subscripts!r} are no labels")
    every = [label for t in terms for label in t]
    if arrow:
        before, ellipsis, behind = right.partition("...")
        output = [*before, *(map(str, range(dots)) if ellipsis else ()), *behind]
    else:
        output = [
            *map(str, range(dots)),
            *sorted(x for x in set(every) if x.isalpha() and every.count(x) == 1),
        ]
    if len(set(output)) < len(output) or not set(output) <= set(every):
        raise ValueError(f"einsum: the output {right!r} must name labels of the operands, each once")
    return terms, output


def _without_repeats(v: Any, labels: list[str]) -> tuple[Any, list[str]]:
    """Axes of one label become their diagonal."""
    labels = list(labels)
    for label in list(labels):
        while labels.count(label) > 1:
            first = labels.index(label)
            second = labels.index(label, first + 1)
            v = diagonal(v, 0, first, second)
            labels = [x for k, x in enumerate(labels) if k not in (first, second)] + [label]
    return v, labels


def _contracted(
    a: Any, la: list[str], b: Any, lb: list[str], later: set[str], dtype: str
) -> tuple[Any, list[str]]:
    a, la = _summed(a, la, later | set(lb))
    b, lb = _summed(b, lb, later | set(la))
    shared = [x for x in la if x in lb]
    narrow = any(a.type.broadcastable[la.index(x)] != b.type.broadcastable[lb.index(x)] for x in shared)
    inner = [x for x in shared if x not in later]
    if not inner or narrow:
        labels = [*la, *(x for x in lb if x not in la)]
        sides = [
            dimshuffle(v, *(own.index(x) if x in own else "x" for x in labels))
            for v, own in ((a, la), (b, lb))
        ]
        return mul(*sides), labels
    batch = [x for x in shared if x in later]
    rows, columns = [x for x in la if x not in shared], [x for x in lb if x not in shared]
    size = {x: size_of(v, k) for v, own in ((b, lb), (a, la)) for k, x in enumerate(own)}

    def count(labels: Sequence[str]) -> Size:
        return size_product([size[x] for x in labels])

    left = dimshuffle(cast(a, dtype), *(la.index(x) for x in [*batch, *rows, *inner]))
    right = dimshuffle(cast(b, dtype), *(lb.index(x) for x in [*batch, *inner, *columns]))
    if batch:
        left = reshape(left, [count(batch), count(rows), count(inner)])
        made = batched_dot(left, reshape(right, [count(batch), count(inner), count(columns)]))
    else:
        made = dot(reshape(left, [count(rows), count(inner)]), reshape(right, [count(inner), count(columns)]))
    labels = [*batch, *rows, *columns]
    return reshape(made, [size[x] for x in labels]), labels


def _summed(v: Any, labels: list[str], wanted: set[str]) -> tuple[Any, list[str]]:
    gone = [k for k, x in enumerate(labels) if x not in wanted]
    return (total(v, axis=gone) if gone else v), [x for x in labels if x in wanted]


# -- statistics ------------------------------------------------------------------------------------------------------


def cov(
    m: Any,
    y: Any = None,
    rowvar: bool = True,
    bias: bool = False,
    ddof: int | None = None,
    fweights: Any = None,
    aweights: Any = None,
) -> Any:
    """The covariance matrix of variables that are the rows of m (and of y), or with rowvar=False the columns."""
    if fweights is not None or aweights is not None:
        raise NotImplementedError("cov: weights of observations")
    if ddof is not None and ddof != int(ddof):
        raise ValueError("ddof must be integer")

    def rows(v: Any) -> Any:
        v = as_variable(v)
        if v.type.ndim > 2:
            raise ValueError(f"cov takes vectors and matrices, got {v.type}")
        v = shape_padleft(v) if v.type.ndim == 1 else v if rowvar else v.T
        return build.cast(v, promote(v.type.dtype, "float64")) if v.type.dtype[:5] != "float" else v

    x = rows(m) if y is None else join(0, rows(m), rows(y))
    taken = (0 if bias else 1) if ddof is None else int(ddof)
    n = build.cast(size_variable(size_of(x, 1)), x.type.dtype) - scalar_constant(taken, x.type.dtype)
    centered = x - mean(x, axis=1, keepdims=True)
    made = true_div(dot(centered, centered.T), n)
    return dimshuffle(made) if made.type.broadcastable == (True, True) else made


def vectorize(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn` of scalars as a function of arrays, which broadcast by their flags; it is called once, with variables."""

    def function(*args: Any) -> Any:
        from tcc.loops import map as each

        values = build.broadcast_together("vectorize", [as_variable(a) for a in args])
        if values[0].type.ndim == 0:
            return fn(*values)
        shape = list(shape_of(values[0]))
        made, _ = each(fn, [flatten(v) for v in values])
        results = [
            reshape(r, [*shape, *shape_of(r)[1:]]) for r in (made if isinstance(made, list) else [made])
        ]
        return results if isinstance(made, list) else results[0]

    function.__doc__ = fn.__doc__
    return function


def get_scalar_constant_value(v: Any) -> Any:
    """The number that a scalar expression certainly is, as a 0-d array; NotScalarConstantError if it may vary."""
    v = as_variable(v)
    if v.type.shape and any(s != 1 for s in v.type.shape):
        raise NotScalarConstantError(f"{v} of {v.type} is not a scalar")
    known = build.static_size(v) if v.type.ndim == 0 and v.type.dtype[:3] in ("int", "uin") else None
    if known is not None:
        return np.asarray(known, v.type.dtype)
    if not all(isinstance(leaf, Constant) for leaf in inputs([v])):
        raise NotScalarConstantError(f"{v} is not a constant")
    return np.asarray(v.eval()).reshape(())


def extract_constant(x: Any, elemwise: bool = True, only_process_constants: bool = False) -> Any:
    """The number that `x` certainly is, or `x` itself."""
    try:
        return get_scalar_constant_value(x)
    except NotScalarConstantError:
        return x


class NotScalarConstantError(Exception):
    """The expression is not a number that is known when the graph is built."""


class Rebroadcast:
    """Changes broadcast flags: Rebroadcast((axis, flag), ...)(x); a new flag is checked when the function runs."""

    def __init__(self, *axis: tuple[int, bool]) -> None:
        self.axis = {int(a): bool(flag) for a, flag in axis}

    def __call__(self, x: Any) -> Any:
        return rebroadcast(x, self.axis)

    def __repr__(self) -> str:
        return f"Rebroadcast{{{','.join(f'({a},{int(b)})' for a, b in self.axis.items())}}}"
