"""Elementwise work."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from benchmarks.case import Array, Case, Functions, Inputs, Rng, Values, Work, normal


def vector(rng: Rng, size: int) -> Inputs:
    return {"x": normal(rng, size)}


def matrix(rng: Rng, rows: int, columns: int) -> Inputs:
    return {"x": normal(rng, rows, columns)}


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
        for_gpus=size > 1_000_000,
    )


ADD_ONE = Case("x + 1, 8 floats", "add_one", Values(), vector, {"size": 8}, {"size": 8})

CASES = (
    ADD_ONE,
    replace(ADD_ONE, name="x + 1, 8 floats, from the host and back", for_gpus=True, by_host=True),
    chain(1000),
    chain(1_000_000),
    chain(100_000_000),
    Case(
        "transpose (8192,8191)",
        "transpose",
        Values(),
        matrix,
        {"rows": 8192, "columns": 8191},
        {"rows": 37, "columns": 41},
        lambda rows, columns: Work(read=4 * rows * columns, written=4 * rows * columns),
        for_gpus=True,
    ),
)


def numpy() -> Functions:
    def chain(x: Array) -> Array:
        gauss: Array = np.log1p(np.exp(-(x * x)))
        result: Array = 0.5 * (np.tanh(x) * (1 / (1 + np.exp(-x))) + gauss) - x
        return result

    return {"add_one": lambda x: x + 1, "chain": chain, "transpose": lambda x: x.T.copy()}


def tcc() -> Functions:
    import tcc.tensor as T

    return {
        "add_one": lambda x: x + 1,
        "chain": lambda x: 0.5 * (T.tanh(x) * T.nnet.sigmoid(x) + T.log1p(T.exp(-(x * x)))) - x,
        "transpose": lambda x: x.T,
    }


def torch() -> Functions:
    import torch

    return {
        "add_one": lambda x: x + 1,
        "chain": lambda x: 0.5 * (torch.tanh(x) * torch.sigmoid(x) + torch.log1p(torch.exp(-(x * x)))) - x,
        "transpose": lambda x: x.T.contiguous(),
    }


def jax() -> Functions:
    import jax
    import jax.numpy as jnp

    return {
        "add_one": lambda x: x + 1,
        "chain": lambda x: 0.5 * (jnp.tanh(x) * jax.nn.sigmoid(x) + jnp.log1p(jnp.exp(-(x * x)))) - x,
        "transpose": lambda x: x.T,
    }


def pytensor() -> Functions:
    import pytensor.tensor as pt

    return {
        "add_one": lambda x: x + 1,
        "chain": lambda x: 0.5 * (pt.tanh(x) * pt.sigmoid(x) + pt.log1p(pt.exp(-(x * x)))) - x,
        "transpose": lambda x: x.T,
    }
