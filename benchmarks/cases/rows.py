"""Reductions, and what goes along rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks import tape
from benchmarks.case import Array, Case, Functions, Inputs, Rng, Slopes, Values, Work, normal

EPSILON = 1e-5  # of layer normalisation
BIG = 10_000_000  # elements; more of them are for GPUs, whose caches hold fewer


def logits(rng: Rng, rows: int, columns: int) -> Inputs:
    labels = rng.integers(0, columns, rows).astype(np.int64)
    return {"x": normal(rng, rows, columns, scale=3), "y": labels}


def matrix(rng: Rng, rows: int, columns: int) -> Inputs:
    return {"x": normal(rng, rows, columns)}


def layer(rng: Rng, rows: int, columns: int) -> Inputs:
    return {
        "x": normal(rng, rows, columns),
        "gain": 1 + normal(rng, columns, scale=0.1),
        "bias": normal(rng, columns, scale=0.1),
        "g": normal(rng, rows, columns),
    }


def xent(rows: int, columns: int) -> Case:
    return Case(
        f"softmax xent + grad ({rows},{columns})",
        "xent",
        Slopes(("x",)),
        logits,
        {"rows": rows, "columns": columns},
        {"rows": 5, "columns": 19},
        lambda rows, columns: Work(read=4 * rows * columns, written=4 * rows * columns),
        for_gpus=rows * columns > BIG,
    )


def reading(name: str, kind: str, rows: int, columns: int) -> Case:
    return Case(
        name,
        kind,
        Values(),
        matrix,
        {"rows": rows, "columns": columns},
        {"rows": 7, "columns": 33},
        lambda rows, columns: Work(read=4 * rows * columns),
        for_gpus=rows * columns > BIG,
    )


def layernorm(rows: int, columns: int) -> Case:
    return Case(
        f"layernorm + grads ({rows},{columns})",
        "layernorm",
        Slopes(("x", "gain", "bias"), cotangent="g"),
        layer,
        {"rows": rows, "columns": columns},
        {"rows": 5, "columns": 33},
        lambda rows, columns: Work(read=8 * rows * columns, written=8 * rows * columns),
        for_gpus=rows * columns > BIG,
    )


CASES = (
    xent(600, 10),
    xent(64, 10_000),
    xent(8192, 10_000),
    Case(
        "softmax (16384,4096)",
        "softmax",
        Values(),
        matrix,
        {"rows": 16384, "columns": 4096},
        {"rows": 7, "columns": 33},
        lambda rows, columns: Work(read=4 * rows * columns, written=4 * rows * columns),
        for_gpus=True,
    ),
    layernorm(1024, 768),
    layernorm(16384, 4096),
    reading("column mean + var (600,784)", "mean_var", 600, 784),
    reading("column mean + var (65536,1024)", "mean_var", 65536, 1024),
    reading("sum of 1e7 floats", "sum", 1, 10_000_000),
    reading("sum of 1e8 floats", "sum", 1, 100_000_000),
    reading("argmax of rows (1024,1000)", "argmax", 1024, 1000),
    reading("argmax of rows (65536,1000)", "argmax", 65536, 1000),
)


def reference() -> Functions:
    """In terms of benchmarks.tape's nodes."""

    def layernorm(x: tape.Node, gain: tape.Node, bias: tape.Node) -> tape.Node:
        centred = x - x.mean(axis=1)
        return centred * ((centred * centred).mean(axis=1) + EPSILON) ** -0.5 * gain + bias

    return {"xent": tape.cross_entropy, "layernorm": layernorm}


def numpy() -> Functions:
    def xent(z: Array, y: Array) -> tuple[Array, Array]:
        rows = np.arange(len(y))
        shifted = z - z.max(axis=1, keepdims=True)
        slope = np.exp(shifted)
        total = slope.sum(axis=1, keepdims=True)
        cost = (np.log(total)[:, 0] - shifted[rows, y]).mean()
        slope /= total
        slope[rows, y] -= 1
        slope /= len(y)
        return cost, slope

    def layernorm(x: Array, gain: Array, bias: Array, g: Array) -> tuple[Array, ...]:
        n = x.shape[1]
        unit = x - x.mean(axis=1, keepdims=True)
        scale = 1 / np.sqrt(np.einsum("ij,ij->i", unit, unit)[:, None] / n + EPSILON)
        unit *= scale
        inner = g * gain
        pulled = inner - inner.mean(axis=1, keepdims=True)
        pulled -= unit * (np.einsum("ij,ij->i", inner, unit)[:, None] / n)
        pulled *= scale
        return unit * gain + bias, pulled, np.einsum("ij,ij->j", g, unit), g.sum(axis=0)

    def softmax(x: Array) -> Array:
        slope: Array = np.exp(x - x.max(axis=1, keepdims=True))
        slope /= slope.sum(axis=1, keepdims=True)
        return slope

    return {
        "xent": xent,
        "softmax": softmax,
        "layernorm": layernorm,
        "mean_var": lambda x: (x.mean(axis=0), x.var(axis=0)),
        "sum": lambda x: x.sum(),
        "argmax": lambda x: x.argmax(axis=1),
    }


def tcc() -> Functions:
    import tcc.tensor as T

    def xent(z: Any, y: Any) -> Any:
        return -T.mean(T.log(T.nnet.softmax(z))[T.arange(y.shape[0]), y])

    def layernorm(x: Any, gain: Any, bias: Any) -> Any:
        centred = x - x.mean(axis=1, keepdims=True)
        return centred / T.sqrt(T.sqr(centred).mean(axis=1, keepdims=True) + EPSILON) * gain + bias

    return {
        "xent": xent,
        "softmax": T.nnet.softmax,
        "layernorm": layernorm,
        "mean_var": lambda x: [x.mean(axis=0), x.var(axis=0)],
        "sum": lambda x: x.sum(),
        "argmax": lambda x: x.argmax(axis=1),
    }


def torch() -> Functions:
    import torch
    from torch.nn import functional as F

    return {
        "xent": F.cross_entropy,
        "softmax": lambda x: torch.softmax(x, 1),
        "layernorm": lambda x, gain, bias: F.layer_norm(x, x.shape[1:], gain, bias, EPSILON),
        "mean_var": lambda x: torch.var_mean(x, dim=0, correction=0)[::-1],
        "sum": lambda x: x.sum(),
        "argmax": lambda x: x.argmax(dim=1),
    }


def jax() -> Functions:
    import jax
    import jax.numpy as jnp

    def xent(z: Any, y: Any) -> Any:
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(z), y[:, None], axis=1))

    def layernorm(x: Any, gain: Any, bias: Any) -> Any:
        centred = x - x.mean(axis=1, keepdims=True)
        return (
            centred * jax.lax.rsqrt(jnp.square(centred).mean(axis=1, keepdims=True) + EPSILON) * gain + bias
        )

    return {
        "xent": xent,
        "softmax": lambda x: jax.nn.softmax(x, axis=1),
        "layernorm": layernorm,
        "mean_var": lambda x: (x.mean(axis=0), x.var(axis=0)),
        "sum": lambda x: x.sum(),
        "argmax": lambda x: x.argmax(axis=1),
    }


def pytensor() -> Functions:
    import pytensor.tensor as pt

    def xent(z: Any, y: Any) -> Any:
        return -pt.mean(pt.special.log_softmax(z, axis=1)[pt.arange(y.shape[0]), y])

    def layernorm(x: Any, gain: Any, bias: Any) -> Any:
        centred = x - x.mean(axis=1, keepdims=True)
        variance = pt.sqr(centred).mean(axis=1, keepdims=True)
        return centred / pt.sqrt(variance + np.float32(EPSILON)) * gain + bias

    return {
        "xent": xent,
        "softmax": lambda x: pt.special.softmax(x, axis=1),
        "layernorm": layernorm,
        "mean_var": lambda x: [x.mean(axis=0), x.var(axis=0)],
        "sum": lambda x: x.sum(),
        "argmax": lambda x: pt.argmax(x, axis=1),
    }
