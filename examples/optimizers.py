"""Ways down a slope.  Each takes parameters, their gradients and a rate, and returns pairs (shared variable, new value).

All state (velocities, running means) is in shared variables of the parameters' shapes, made here and started at zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import tcc
import tcc.tensor as T

Shared = Any  # a shared variable
Expression = Any  # a symbolic array
Updates = list[tuple[Shared, Expression]]
Optimizer = Callable[[Sequence[Shared], Sequence[Expression], float], Updates]


def state(parameter: Shared) -> Shared:
    """A shared variable of zeros like `parameter`."""
    return tcc.shared(np.zeros_like(parameter.get_value(borrow=True)))


def clip_norm(gradients: Sequence[Expression], limit: float) -> list[Expression]:
    """`gradients` scaled so that the Euclidean norm of all of them together is at most `limit`."""
    norm = T.sqrt(sum(T.sum(T.sqr(gradient)) for gradient in gradients))
    scale = limit / T.maximum(norm, limit)
    return [gradient * scale for gradient in gradients]


def sgd(parameters: Sequence[Shared], gradients: Sequence[Expression], rate: float) -> Updates:
    """p - rate g"""
    return [(p, p - rate * g) for p, g in zip(parameters, gradients)]


def momentum(
    parameters: Sequence[Shared], gradients: Sequence[Expression], rate: float, keep: float = 0.9
) -> Updates:
    """v = keep v - rate g; p + v"""
    updates: Updates = []
    for p, g in zip(parameters, gradients):
        velocity = state(p)
        step = keep * velocity - rate * g
        updates += [(velocity, step), (p, p + step)]
    return updates


def nesterov(
    parameters: Sequence[Shared], gradients: Sequence[Expression], rate: float, keep: float = 0.9
) -> Updates:
    """v = keep v - rate g; p + keep v - rate g: momentum that looks one step ahead (Nesterov 1983, Bengio et al. 2012)"""
    updates: Updates = []
    for p, g in zip(parameters, gradients):
        velocity = state(p)
        step = keep * velocity - rate * g
        updates += [(velocity, step), (p, p + keep * step - rate * g)]
    return updates


def adagrad(
    parameters: Sequence[Shared], gradients: Sequence[Expression], rate: float, tiny: float = 1e-6
) -> Updates:
    """s = s + g^2; p - rate g / sqrt(s + tiny)  (Duchi et al. 2011)"""
    updates: Updates = []
    for p, g in zip(parameters, gradients):
        total = state(p)
        new = total + T.sqr(g)
        updates += [(total, new), (p, p - rate * g / T.sqrt(new + tiny))]
    return updates


def adadelta(
    parameters: Sequence[Shared],
    gradients: Sequence[Expression],
    rate: float,
    keep: float = 0.95,
    tiny: float = 1e-6,
) -> Updates:
    """s = mean of g^2; d = sqrt(u + tiny) / sqrt(s + tiny) g; u = mean of d^2; p - rate d  (Zeiler 2012)"""
    updates: Updates = []
    for p, g in zip(parameters, gradients):
        squares, steps = state(p), state(p)
        new_squares = keep * squares + (1 - keep) * T.sqr(g)
        step = T.sqrt(steps + tiny) / T.sqrt(new_squares + tiny) * g
        new_steps = keep * steps + (1 - keep) * T.sqr(step)
        updates += [(squares, new_squares), (steps, new_steps), (p, p - rate * step)]
    return updates


def rmsprop(
    parameters: Sequence[Shared],
    gradients: Sequence[Expression],
    rate: float,
    keep: float = 0.9,
    tiny: float = 1e-6,
) -> Updates:
    """s = mean of g^2; p - rate g / sqrt(s + tiny)  (Tieleman and Hinton 2012)"""
    updates: Updates = []
    for p, g in zip(parameters, gradients):
        squares = state(p)
        new = keep * squares + (1 - keep) * T.sqr(g)
        updates += [(squares, new), (p, p - rate * g / T.sqrt(new + tiny))]
    return updates


def adam(
    parameters: Sequence[Shared],
    gradients: Sequence[Expression],
    rate: float,
    keep: float = 0.9,
    keep_squares: float = 0.999,
    tiny: float = 1e-8,
) -> Updates:
    """m, s = means of g, g^2, freed of their start at zero; p - rate m / (sqrt(s) + tiny)  (Kingma and Ba 2015)"""
    count = tcc.shared(np.float32(0))
    t = count + 1
    corrected = rate * T.sqrt(1 - keep_squares**t) / (1 - keep**t)
    updates: Updates = [(count, t)]
    for p, g in zip(parameters, gradients):
        mean, squares = state(p), state(p)
        new_mean = keep * mean + (1 - keep) * g
        new_squares = keep_squares * squares + (1 - keep_squares) * T.sqr(g)
        step = corrected * new_mean / (T.sqrt(new_squares) + tiny)
        updates += [(mean, new_mean), (squares, new_squares), (p, p - step)]
    return updates


# name -> (optimizer, a rate that suits the digits)
OPTIMIZERS: dict[str, tuple[Optimizer, float]] = {
    "sgd": (sgd, 0.5),
    "momentum": (momentum, 0.1),
    "nesterov": (nesterov, 0.2),
    "adagrad": (adagrad, 0.02),
    "adadelta": (adadelta, 1.0),
    "rmsprop": (rmsprop, 0.001),
    "adam": (adam, 0.002),
}
