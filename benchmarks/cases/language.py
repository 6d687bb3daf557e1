"""Small models of language: a step of the continuous bag of words (Mikolov et al. 2013), a gated recurrent unit (Cho et al. 2014)."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.case import RATE, Array, Case, Functions, Inputs, Rng, Update, Values, Work, normal


def words(rng: Rng, vocabulary: int, batch: int, context: int, width: int) -> Inputs:
    """Rows of `into` are the words' vectors, rows of `out` those that predict them."""
    return {
        "words": rng.integers(0, vocabulary, (batch, context)).astype(np.int64),
        "y": rng.integers(0, vocabulary, batch).astype(np.int64),
        "into": normal(rng, vocabulary, width, scale=0.5),
        "out": normal(rng, vocabulary, width, scale=0.1),
    }


def lookups(rng: Rng, vocabulary: int, count: int, width: int) -> Inputs:
    """Words may occur more than once."""
    return {
        "words": rng.integers(0, vocabulary, count).astype(np.int64),
        "table": normal(rng, vocabulary, width),
    }


def additions(rng: Rng, **sizes: int) -> Inputs:
    return {**lookups(rng, **sizes), "rows": normal(rng, sizes["count"], sizes["width"])}


def cell(rng: Rng, batch: int, units: int) -> Inputs:
    """Reset, update and new state, in this order, in the rows of the weights."""
    scale = units**-0.5
    return {
        "x": normal(rng, batch, units),
        "h": normal(rng, batch, units),
        "w": normal(rng, 3 * units, units, scale=scale),
        "u": normal(rng, 3 * units, units, scale=scale),
        "b": normal(rng, 3 * units, scale=0.1),
        "c": normal(rng, 3 * units, scale=0.1),
    }


CASES = (
    Case(
        "cbow step, 10,000 words, batch 64, 128 dims",
        "cbow",
        Update(("into", "out")),
        words,
        {"vocabulary": 10_000, "batch": 64, "context": 8, "width": 128},
        {"vocabulary": 31, "batch": 5, "context": 3, "width": 7},
        lambda vocabulary, batch, context, width: Work(flops=6 * batch * vocabulary * width),
    ),
    Case(
        "gru cell, batch 1, 512 units",
        "gru",
        Values(held=("w", "u", "b", "c")),
        cell,
        {"batch": 1, "units": 512},
        {"batch": 1, "units": 13},
        lambda batch, units: Work(read=4 * 2 * 3 * units * units),
    ),
    *(
        Case(
            name,
            kind,
            form,
            inputs,
            {"vocabulary": 1_000_000, "count": 262_144, "width": 128},
            {"vocabulary": 31, "count": 45, "width": 7},
            work,
            for_gpus=True,
        )
        for name, kind, form, inputs, work in (
            (
                "lookup of 262,144 rows, 128 dims",
                "lookup",
                Values(held=("table",)),
                lookups,
                lambda vocabulary, count, width: Work(read=4 * count * width, written=4 * count * width),
            ),
            (
                "sums into 262,144 rows, 128 dims",
                "scatter",
                Update(("table",)),
                additions,
                lambda vocabulary, count, width: Work(read=8 * count * width, written=4 * count * width),
            ),
        )
    ),
)


def numpy() -> Functions:
    def cbow(words: Array, y: Array, into: Array, out: Array) -> Any:
        rows, count = np.arange(len(y)), words.shape[1]
        inner = into[words].mean(axis=1)
        z = inner @ out.T
        z -= z.max(axis=1, keepdims=True)
        slope = np.exp(z)
        total = slope.sum(axis=1, keepdims=True)
        cost = (np.log(total)[:, 0] - z[rows, y]).mean()
        slope /= total
        slope[rows, y] -= 1
        slope *= 1 / len(y)
        step = (slope @ out) * (-RATE / count)
        out -= (slope.T @ inner) * RATE
        np.add.at(into, words, step[:, None, :])
        return cost

    def sigmoid(x: Array) -> Array:
        result: Array = 1 / (1 + np.exp(-x))
        return result

    def gru(x: Array, h: Array, w: Array, u: Array, b: Array, c: Array) -> Any:
        given, kept = np.split(x @ w.T + b, 3, axis=1), np.split(h @ u.T + c, 3, axis=1)
        reset, update = sigmoid(given[0] + kept[0]), sigmoid(given[1] + kept[1])
        new = np.tanh(given[2] + reset * kept[2])
        return new + update * (h - new)

    def scatter(words: Array, table: Array, rows: Array) -> Any:
        np.add.at(table, words, rows)
        return ()

    return {"cbow": cbow, "gru": gru, "lookup": lambda words, table: table[words], "scatter": scatter}


def tcc() -> Functions:
    import tcc
    import tcc.tensor as T

    return symbolic(tcc, T, T.nnet.sigmoid, lambda z: T.log(T.nnet.softmax(z)))


def pytensor() -> Functions:
    import pytensor
    import pytensor.tensor as pt

    return symbolic(pytensor, pt, pt.sigmoid, lambda z: pt.special.log_softmax(z, axis=1))


def symbolic(library: Any, T: Any, sigmoid: Any, log_softmax: Any) -> Functions:
    """For both libraries with Theano's API."""

    def cbow(words: Any, y: Any, into: Any, out: Any) -> Any:
        used = into[words]
        z = T.dot(used.mean(axis=1), out.T)
        cost = -T.mean(log_softmax(z)[T.arange(y.shape[0]), y])
        by_used, by_out = library.grad(cost, [used, out])
        rate = np.float32(RATE)
        return cost, [T.inc_subtensor(used, -rate * by_used), out - rate * by_out]

    def gru(x: Any, h: Any, w: Any, u: Any, b: Any, c: Any) -> Any:
        given, kept = T.dot(x, w.T) + b, T.dot(h, u.T) + c
        n = h.shape[1]
        reset = sigmoid(given[:, :n] + kept[:, :n])
        update = sigmoid(given[:, n : 2 * n] + kept[:, n : 2 * n])
        new = T.tanh(given[:, 2 * n :] + reset * kept[:, 2 * n :])
        return new + update * (h - new)

    return {
        "cbow": cbow,
        "gru": gru,
        "lookup": lambda words, table: table[words],
        "scatter": lambda words, table, rows: ([], T.inc_subtensor(table[words], rows)),
    }


def torch() -> Functions:
    import torch

    def cbow(words: Any, y: Any, into: Any, out: Any) -> Any:
        """The gradient by hand, so that only the words' rows are touched and nothing is taped."""
        inner = into[words].mean(dim=1)
        logs = torch.log_softmax(inner @ out.T, 1)
        cost = torch.nn.functional.nll_loss(logs, y)
        slope = logs.exp_()
        slope[torch.arange(len(y), device=y.device), y] -= 1
        step = (slope @ out).unsqueeze(1).expand(-1, words.shape[1], -1)
        out.addmm_(slope.T, inner, alpha=-RATE / len(y))
        scale = -RATE / (len(y) * words.shape[1])
        into.index_add_(0, words.flatten(), step.reshape(-1, into.shape[1]), alpha=scale)
        return cost

    def scatter(words: Any, table: Any, rows: Any) -> Any:
        table.index_add_(0, words, rows)
        return ()

    return {
        "cbow": cbow,
        "gru": lambda x, h, w, u, b, c: torch.gru_cell(x, h, w, u, b, c),
        "lookup": lambda words, table: torch.nn.functional.embedding(words, table),
        "scatter": scatter,
    }


def jax() -> Functions:
    import jax
    import jax.numpy as jnp

    from benchmarks.cases import rows

    cross_entropy = rows.jax()["xent"]

    def cbow(words: Any, y: Any, into: Any, out: Any) -> Any:
        def cost_of(used: Any, out: Any) -> Any:
            return cross_entropy(used.mean(axis=1) @ out.T, y)

        cost, (by_used, by_out) = jax.value_and_grad(cost_of, (0, 1))(into[words], out)
        return cost, [into.at[words].add(-RATE * by_used), out - RATE * by_out]

    def gru(x: Any, h: Any, w: Any, u: Any, b: Any, c: Any) -> Any:
        given, kept = jnp.split(x @ w.T + b, 3, axis=1), jnp.split(h @ u.T + c, 3, axis=1)
        reset, update = jax.nn.sigmoid(given[0] + kept[0]), jax.nn.sigmoid(given[1] + kept[1])
        new = jnp.tanh(given[2] + reset * kept[2])
        return new + update * (h - new)

    return {
        "cbow": cbow,
        "gru": gru,
        "lookup": lambda words, table: table[words],
        "scatter": lambda words, table, rows: ((), table.at[words].add(rows)),
    }
