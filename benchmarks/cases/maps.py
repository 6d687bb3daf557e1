"""Elementwise work."""

from __future__ import annotations

import numpy as np

from benchmarks.case import Array, Case, Functions, Inputs, Rng, Values, Work, normal


def vector(rng: Rng, size: int) -> Inputs:
    return {"x": normal(rng, size)}


def chain(size: int) -> Case:
    """Ten operations: x*x, neg, exp, log1p, tanh, sigmoid, *, +, *, -."""
    return Case(
        f"chain of 10, {size:.0e} floats".replace("e+0", "e"),
        "chain",
        Values(),
        vector,
        {"size": size},
        {"size": 37},
        lambda size: Work(read=4 * size, written=4 * size),
    )


CASES = (
    Case("x + 1, 8 floats", "add_one", Values(), vector, {"size": 8}, {"size": 8}),
    chain(1000),
    chain(1_000_000),
)


def numpy() -> Functions:
    def chain(x: Array) -> Array:
        gauss: Array = np.log1p(np.exp(-(x * x)))
        result: Array = 0.5 * (np.tanh(x) * (1 / (1 + np.exp(-x))) + gauss) - x
        return result

    return {"add_one": lambda x: x + 1, "chain": chain}


def tcc() -> Functions:
    import tcc.tensor as T

    return {
        "add_one": lambda x: x + 1,
        "chain": lambda x: 0.5 * (T.tanh(x) * T.nnet.sigmoid(x) + T.log1p(T.exp(-(x * x)))) - x,
    }


def torch() -> Functions:
    import torch

    return {
        "add_one": lambda x: x + 1,
        "chain": lambda x: 0.5 * (torch.tanh(x) * torch.sigmoid(x) + torch.log1p(torch.exp(-(x * x)))) - x,
    }


def jax() -> Functions:
    import jax
    import jax.numpy as jnp

    return {
        "add_one": lambda x: x + 1,
        "chain": lambda x: 0.5 * (jnp.tanh(x) * jax.nn.sigmoid(x) + jnp.log1p(jnp.exp(-(x * x)))) - x,
    }


def pytensor() -> Functions:
    import pytensor.tensor as pt

    return {
        "add_one": lambda x: x + 1,
        "chain": lambda x: 0.5 * (pt.tanh(x) * pt.sigmoid(x) + pt.log1p(pt.exp(-(x * x)))) - x,
    }
