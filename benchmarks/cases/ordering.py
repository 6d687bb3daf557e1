"""Sorting, and the largest of each row."""

from __future__ import annotations

import numpy as np

from benchmarks.case import Array, Case, Functions, Inputs, Rng, Values, Work, normal


def vector(rng: Rng, size: int) -> Inputs:
    return {"x": normal(rng, size)}


def rows(rng: Rng, m: int, n: int) -> Inputs:
    return {"x": normal(rng, m, n)}


CASES = (
    Case(
        "sort of 1e6",
        "sort",
        Values(),
        vector,
        {"size": 1_000_000},
        {"size": 1001},
        lambda size: Work(read=4 * size, written=4 * size),
    ),
    Case(
        "argsort of rows, 1000 x 1000",
        "argsort",
        Values(),
        rows,
        {"m": 1000, "n": 1000},
        {"m": 3, "n": 101},
        lambda m, n: Work(read=4 * m * n, written=8 * m * n),
    ),
    Case(
        "10 largest of rows, 1024 x 1000",
        "topk",
        Values(),
        rows,
        {"m": 1024, "n": 1000},
        {"m": 3, "n": 101},
        lambda m, n: Work(read=4 * m * n, written=40 * m),
    ),
)


def numpy() -> Functions:
    def topk(x: Array) -> Array:
        largest: Array = np.sort(np.partition(x, -10)[:, -10:])[:, ::-1]
        return largest

    return {"sort": np.sort, "argsort": lambda x: np.argsort(x, kind="stable"), "topk": topk}


def tcc() -> Functions:
    import tcc.tensor as T

    return {"sort": T.sort, "argsort": T.argsort, "topk": lambda x: T.topk(x, 10)}


def torch() -> Functions:
    import torch

    return {
        "sort": lambda x: torch.sort(x)[0],
        "argsort": lambda x: torch.argsort(x, stable=True),
        "topk": lambda x: torch.topk(x, 10)[0],
    }


def jax() -> Functions:
    import jax
    import jax.numpy as jnp

    return {"sort": jnp.sort, "argsort": jnp.argsort, "topk": lambda x: jax.lax.top_k(x, 10)[0]}
