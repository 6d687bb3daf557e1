"""Recurrent networks: a step of a language model with long short-term memory (Hochreiter and Schmidhuber 1997), and a plain
recurrent network over one sequence.

The models are written once; a library brings the loop over the steps and what else it calls by names of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks import tape
from benchmarks.case import Case, Descent, Function, Functions, Inputs, Rng, Values, Work, normal

LSTM = ("table", "w", "u", "b", "out", "c")
RNN = ("w", "u", "b")


@dataclass(frozen=True)
class Library:
    lookup: Function  # table, words
    lstm: Function  # x (steps, batch, width), w, u, b -> the states (steps, batch, units), from zeros
    rnn: Function  # x (steps, width), w, u, b -> the states (steps, units), from zeros
    linear: Function  # x, w, b: x @ w.T + b
    flat: Function  # (steps, batch, units) -> (steps * batch, units)
    words: Function  # (steps, batch) -> (steps * batch,)
    cost: Function  # logits, labels: the mean cross-entropy
    mean: Function = lambda x: x.mean()


def sentences(rng: Rng, steps: int, batch: int, units: int, vocabulary: int) -> Inputs:
    """Input, forget, new and output in this order in the rows of the weights."""
    scale = units**-0.5
    return {
        "words": rng.integers(0, vocabulary, (steps, batch)).astype(np.int64),
        "y": rng.integers(0, vocabulary, (steps, batch)).astype(np.int64),
        "table": normal(rng, vocabulary, units),
        "w": normal(rng, 4 * units, units, scale=scale),
        "u": normal(rng, 4 * units, units, scale=scale),
        "b": normal(rng, 4 * units, scale=0.1),
        "out": normal(rng, vocabulary, units, scale=scale),
        "c": normal(rng, vocabulary, scale=0.1),
    }


def sequence(rng: Rng, steps: int, units: int) -> Inputs:
    scale = units**-0.5
    return {
        "x": normal(rng, steps, units),
        "w": normal(rng, units, units, scale=scale),
        "u": normal(rng, units, units, scale=scale),
        "b": normal(rng, units, scale=0.1),
    }


def sequence_and_targets(rng: Rng, **sizes: int) -> Inputs:
    inputs = sequence(rng, **sizes)
    return {"x": inputs.pop("x"), "y": normal(rng, sizes["steps"], sizes["units"]), **inputs}


def lstm_flops(steps: int, batch: int, units: int, vocabulary: int) -> Work:
    """Forwards, and twice as much backwards."""
    return Work(flops=6 * steps * batch * units * (8 * units + vocabulary))


LSTM_TINY = {"steps": 4, "batch": 3, "units": 5, "vocabulary": 11}
RNN_SIZES, RNN_TINY = {"steps": 50, "units": 500}, {"steps": 4, "units": 7}

CASES = (
    *(
        Case(
            f"lstm language model step, batch {batch}, {units} units",
            "lstm step",
            Descent(LSTM),
            sentences,
            {"steps": 30, "batch": batch, "units": units, "vocabulary": 5000},
            LSTM_TINY,
            lstm_flops,
            compiled=batch == 32,
        )
        for batch, units in ((32, 256), (20, 512))
    ),
    Case(
        "rnn forward, 50 steps, 500 units",
        "rnn forward",
        Values(held=RNN),
        sequence,
        RNN_SIZES,
        RNN_TINY,
        lambda steps, units: Work(flops=4 * steps * units * units),
    ),
    Case(
        "rnn step, 50 steps, 500 units",
        "rnn step",
        Descent(RNN),
        sequence_and_targets,
        RNN_SIZES,
        RNN_TINY,
        lambda steps, units: Work(flops=10 * steps * units * units),
    ),
)


def models(lib: Library) -> Functions:
    def lstm_step(words: Any, y: Any, table: Any, w: Any, u: Any, b: Any, out: Any, c: Any) -> Any:
        states = lib.lstm(lib.lookup(table, words), w, u, b)
        return lib.cost(lib.linear(lib.flat(states), out, c), lib.words(y))

    def rnn_step(x: Any, y: Any, w: Any, u: Any, b: Any) -> Any:
        slope = lib.rnn(x, w, u, b) - y
        return lib.mean(slope * slope)

    return {"lstm step": lstm_step, "rnn forward": lib.rnn, "rnn step": rnn_step}


def reference() -> Functions:
    def sigmoid(x: tape.Node) -> tape.Node:
        return 1 / (tape.exp(-x) + 1)

    def linear(x: tape.Node, w: tape.Node, b: tape.Node) -> tape.Node:
        return x @ w.T + b

    def lstm(x: tape.Node, w: tape.Node, u: tape.Node, b: tape.Node) -> tape.Node:
        steps, batch, _ = x.value.shape
        n = u.value.shape[1]
        h = c = tape.Node(np.zeros((batch, n)))
        states = []
        for t in range(steps):
            z = linear(x[t], w, b) + h @ u.T
            i, f, g, o = (z[:, k * n : (k + 1) * n] for k in range(4))
            c = sigmoid(f) * c + sigmoid(i) * tape.tanh(g)
            h = sigmoid(o) * tape.tanh(c)
            states.append(h)
        return tape.stack(states)

    def rnn(x: tape.Node, w: tape.Node, u: tape.Node, b: tape.Node) -> tape.Node:
        h = tape.Node(np.zeros((1, u.value.shape[1])))
        states = []
        for t in range(len(x.value)):
            h = tape.tanh(linear(x[t : t + 1], w, b) + h @ u.T)
            states.append(h)
        return tape.stack(states).reshape(*x.value.shape)

    def flat(x: tape.Node) -> tape.Node:
        return x.reshape(-1, x.value.shape[-1])

    return models(
        Library(
            lambda table, words: table[words],
            lstm,
            rnn,
            linear,
            flat,
            lambda y: y.reshape(-1),
            tape.cross_entropy,
            lambda x: x.mean().reshape(),
        )
    )


def numpy() -> Functions:
    def rnn(x: Any, w: Any, u: Any, b: Any) -> Any:
        given, states = x @ w.T + b, np.empty_like(x)
        h = np.zeros_like(b)
        for t in range(len(x)):
            states[t] = h = np.tanh(given[t] + u @ h)
        return states

    return {"rnn forward": rnn}


def tcc() -> Functions:
    import tcc
    import tcc.tensor as T
    from benchmarks.cases import rows

    return symbolic(tcc, T, T.nnet.sigmoid, rows.tcc()["xent"])


def pytensor() -> Functions:
    import pytensor
    import pytensor.tensor as pt

    from benchmarks.cases import rows

    return symbolic(pytensor, pt, pt.sigmoid, rows.pytensor()["xent"])


def symbolic(library: Any, T: Any, sigmoid: Any, cost: Any) -> Functions:
    """For both libraries with Theano's API."""

    def lstm(x: Any, w: Any, u: Any, b: Any) -> Any:
        n = u.shape[1]

        def step(x: Any, h: Any, c: Any) -> Any:
            z = T.dot(x, w.T) + T.dot(h, u.T) + b
            i, f, g, o = (z[:, k * n : (k + 1) * n] for k in range(4))
            c = sigmoid(f) * c + sigmoid(i) * T.tanh(g)
            return sigmoid(o) * T.tanh(c), c

        zeros = T.zeros((x.shape[1], n), dtype=x.dtype)
        (states, _), _ = library.scan(step, sequences=[x], outputs_info=[zeros, zeros])
        return states

    def rnn(x: Any, w: Any, u: Any, b: Any) -> Any:
        states, _ = library.scan(
            lambda x, h: T.tanh(T.dot(w, x) + T.dot(u, h) + b),
            sequences=[x],
            outputs_info=[T.zeros_like(b)],
        )
        return states

    return models(
        Library(
            lookup=lambda table, words: table[words],
            lstm=lstm,
            rnn=rnn,
            linear=lambda x, w, b: T.dot(x, w.T) + b,
            flat=lambda x: x.reshape((-1, x.shape[2])),
            words=lambda y: y.flatten(),
            cost=cost,
        )
    )


def torch() -> Functions:
    import torch
    from torch.nn import functional as F

    one_layer = (
        True,
        1,
        0.0,
        True,
        False,
        False,
    )  # has biases, layers, dropout, training, two ways, batch first

    def lstm(x: Any, w: Any, u: Any, b: Any) -> Any:
        zeros = x.new_zeros(1, x.shape[1], u.shape[1])
        return torch._VF.lstm(x, (zeros, zeros), [w, u, b, torch.zeros_like(b)], *one_layer)[0]

    def rnn(x: Any, w: Any, u: Any, b: Any) -> Any:
        zeros = x.new_zeros(1, 1, u.shape[1])
        return torch._VF.rnn_tanh(x[:, None], zeros, [w, u, b, torch.zeros_like(b)], *one_layer)[0][:, 0]

    return models(
        Library(
            lookup=lambda table, words: F.embedding(words, table),
            lstm=lstm,
            rnn=rnn,
            linear=F.linear,
            flat=lambda x: x.flatten(0, 1),
            words=lambda y: y.flatten(),
            cost=F.cross_entropy,
        )
    )


def jax() -> Functions:
    import jax
    import jax.numpy as jnp
    from jax import lax

    from benchmarks.cases import rows

    def lstm(x: Any, w: Any, u: Any, b: Any) -> Any:
        def step(carry: Any, given: Any) -> Any:
            h, c = carry
            i, f, g, o = jnp.split(given + h @ u.T, 4, axis=1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        zeros = jnp.zeros((x.shape[1], u.shape[1]), x.dtype)
        return lax.scan(step, (zeros, zeros), x @ w.T + b)[1]

    def rnn(x: Any, w: Any, u: Any, b: Any) -> Any:
        def step(h: Any, given: Any) -> Any:
            h = jnp.tanh(given + u @ h)
            return h, h

        return lax.scan(step, jnp.zeros_like(b), x @ w.T + b)[1]

    return models(
        Library(
            lookup=lambda table, words: table[words],
            lstm=lstm,
            rnn=rnn,
            linear=lambda x, w, b: x @ w.T + b,
            flat=lambda x: x.reshape(-1, x.shape[-1]),
            words=jnp.ravel,
            cost=rows.jax()["xent"],
        )
    )
