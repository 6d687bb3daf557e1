"""Reverse-mode differentiation in NumPy, plain and slow: the reference of cases whose gradient nobody wants to write by hand.

A `Node` has a value and, for each node it was made from, the pullback of its cotangent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from benchmarks.case import RATE, Array, Case, Descent, Function, Inputs, Slopes, Values, listed

Pull = Callable[[Array], Array]


class Node:
    __array_priority__ = 1  # NumPy's arrays leave mixed arithmetic to nodes

    def __init__(self, value: Any, parents: Sequence[tuple[Node, Pull]] = ()) -> None:
        self.value, self.parents = np.asarray(value), parents

    def __add__(self, other: Any) -> Node:
        other = node(other)
        return Node(self.value + other.value, [(self, lambda g: g), (other, lambda g: g)])

    def __mul__(self, other: Any) -> Node:
        other = node(other)
        return Node(
            self.value * other.value, [(self, lambda g: g * other.value), (other, lambda g: g * self.value)]
        )

    def __truediv__(self, other: Any) -> Node:
        return self * node(other) ** -1

    def __pow__(self, power: float) -> Node:
        return Node(self.value**power, [(self, lambda g: g * power * self.value ** (power - 1))])

    def __matmul__(self, other: Node) -> Node:
        a, b = self.value, other.value
        return Node(a @ b, [(self, lambda g: g @ b.T), (other, lambda g: a.T @ g)])

    def __neg__(self) -> Node:
        return self * -1.0

    def __sub__(self, other: Any) -> Node:
        return self + -node(other)

    def __rsub__(self, other: Any) -> Node:
        return (-self).__add__(other)

    def __rtruediv__(self, other: Any) -> Node:
        return node(other) / self

    __radd__, __rmul__ = __add__, __mul__

    def reshape(self, *shape: int) -> Node:
        return Node(self.value.reshape(shape), [(self, lambda g: g.reshape(self.value.shape))])

    def __getitem__(self, at: Any) -> Node:
        def pull(g: Array) -> Array:
            whole = np.zeros_like(self.value)
            np.add.at(whole, at, g)
            return whole

        return Node(self.value[at], [(self, pull)])

    @property
    def T(self) -> Node:
        return Node(self.value.T, [(self, lambda g: g.T)])

    def sum(self, axis: Any = None) -> Node:
        """Keeps the axes that it sums over."""
        total = self.value.sum(axis=axis, keepdims=True)
        return Node(total, [(self, lambda g: np.broadcast_to(g, self.value.shape))])

    def mean(self, axis: Any = None) -> Node:
        total = self.sum(axis)
        return total * (total.value.size / self.value.size)


def node(value: Any) -> Node:
    return value if isinstance(value, Node) else Node(value)


def stack(parts: Sequence[Node]) -> Node:
    """Along a new first axis."""

    def pull(k: int) -> Pull:
        return lambda g: g[k]

    return Node(np.stack([p.value for p in parts]), [(p, pull(k)) for k, p in enumerate(parts)])


def tanh(x: Node) -> Node:
    y = np.tanh(x.value)
    return Node(y, [(x, lambda g: g * (1 - y * y))])


def exp(x: Node) -> Node:
    y = np.exp(x.value)
    return Node(y, [(x, lambda g: g * y)])


def log(x: Node) -> Node:
    return Node(np.log(x.value), [(x, lambda g: g / x.value)])


def relu(x: Node) -> Node:
    return Node(np.maximum(x.value, 0), [(x, lambda g: g * (x.value > 0))])


def cross_entropy(z: Node, labels: Array) -> Node:
    """The mean over rows of -log softmax(z) at the row's label, a scalar."""
    rows = np.arange(len(labels))
    shifted = z.value - z.value.max(axis=1, keepdims=True)
    p = np.exp(shifted)
    total = p.sum(axis=1, keepdims=True)
    cost = (np.log(total[:, 0]) - shifted[rows, labels]).mean()
    wanted = np.zeros_like(p)
    wanted[rows, labels] = 1
    return Node(cost, [(z, lambda g: g * (p / total - wanted) / len(labels))])


def conv2d(x: Node, w: Node, stride: int = 1, pad: int = 0, groups: int = 1) -> Node:
    """Correlation of x (n, c, h, w) with filters (f, c / groups, r, s)."""
    padded = np.pad(x.value, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    r, s = w.value.shape[2:]
    windows = sliding_window_view(padded, (r, s), axis=(2, 3))[:, :, ::stride, ::stride]

    def products(a: Array, along_a: int, b: Array, along_b: int, axes: Any, along: int) -> Array:
        """Those of each group."""
        pairs = zip(np.split(a, groups, along_a), np.split(b, groups, along_b))
        return np.concatenate([np.tensordot(*pair, axes) for pair in pairs], along)

    value = products(windows, 1, w.value, 0, ([1, 4, 5], [1, 2, 3]), 3).transpose(0, 3, 1, 2)

    def by_input(g: Array) -> Array:
        whole = np.zeros_like(padded)
        for at in np.ndindex(r, s):
            rows, columns = (slice(k, k + stride * n, stride) for k, n in zip(at, g.shape[2:]))
            met = products(g, 1, w.value[:, :, *at], 0, ([1], [0]), 3)
            whole[:, :, rows, columns] += met.transpose(0, 3, 1, 2)
        return whole[:, :, pad : whole.shape[2] - pad, pad : whole.shape[3] - pad]

    def by_filters(g: Array) -> Array:
        return products(g, 1, windows, 1, ([0, 2, 3], [0, 2, 3]), 0)

    return Node(value, [(x, by_input), (w, by_filters)])


def max_pool(x: Node) -> Node:
    """The largest of each 2 by 2 square."""
    n, c, h, w = x.value.shape
    squares = x.value.reshape(n, c, h // 2, 2, w // 2, 2)
    value = squares.max(axis=(3, 5))
    largest = squares == value[:, :, :, None, :, None]
    return Node(value, [(x, lambda g: (largest * g[:, :, :, None, :, None]).reshape(x.value.shape))])


def gradient(of: Node, by: Sequence[Node], cotangent: Any = 1.0) -> list[Array]:
    """The derivatives of `of` pulled back from `cotangent`, one for each node of `by`."""
    order: list[Node] = []
    seen: set[int] = set()
    stack = [(of, False)]
    while stack:
        here, done = stack.pop()
        if done:
            order.append(here)
        elif id(here) not in seen:
            seen.add(id(here))
            stack += [(here, True), *((parent, False) for parent, _ in here.parents)]
    found = {id(of): np.broadcast_to(np.asarray(cotangent), of.value.shape)}
    for here in reversed(order):
        if id(here) not in found:
            continue
        for parent, pull in here.parents:
            part = summed_to(pull(found[id(here)]), parent.value.shape)
            found[id(parent)] = found[id(parent)] + part if id(parent) in found else part
    return [found[id(x)] if id(x) in found else np.zeros_like(x.value) for x in by]


def summed_to(g: Array, shape: tuple[int, ...]) -> Array:
    """Sums over the axes along which an operand of this shape was broadcast."""
    g = g.sum(axis=tuple(range(g.ndim - len(shape))))
    axes = tuple(k for k, n in enumerate(shape) if n == 1 and g.shape[k] != 1)
    result: Array = g.sum(axis=axes, keepdims=True)
    return result


def results(case: Case, f: Function, inputs: Inputs) -> list[Array]:
    """What a case's results should be, from its function in terms of nodes; integers stay arrays."""
    form = case.form
    at: dict[str, Any] = {
        name: Node(value) if value.dtype.kind == "f" else value for name, value in inputs.items()
    }
    cotangent = at.pop(form.cotangent).value if isinstance(form, Slopes) and form.cotangent else 1.0
    made = f(*at.values())
    if isinstance(form, Values):
        return [node(value).value for value in listed(made)]
    if isinstance(form, Slopes):
        return [made.value, *gradient(made, [at[name] for name in form.by], cotangent)]
    if isinstance(form, Descent):
        parameters = [at[name] for name in form.held]
        return [made.value, *(p.value - RATE * g for p, g in zip(parameters, gradient(made, parameters)))]
    outputs, new = made
    return [node(value).value for value in (*listed(outputs), *listed(new))]
