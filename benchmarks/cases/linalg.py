"""Linear algebra: factors and solutions, of one matrix and of many small ones, a Kalman filter, and a Gaussian process."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.case import Array, Case, Functions, Inputs, Rng, Slopes, Values, Work, normal

WIDE = "float64"


def positive(rng: Rng, n: int) -> Inputs:
    x = normal(rng, n, n, dtype=WIDE)
    return {"x": x @ x.T + n * np.eye(n)}


def system(rng: Rng, n: int, k: int) -> Inputs:
    return {"a": normal(rng, n, n, dtype=WIDE) + n * np.eye(n), "b": normal(rng, n, k, dtype=WIDE)}


def systems(rng: Rng, count: int, n: int) -> Inputs:
    a = normal(rng, count, n, n, dtype=WIDE) + n * np.eye(n)
    return {"a": a, "b": normal(rng, count, n, 1, dtype=WIDE)}


def filtered(rng: Rng, steps: int, states: int, seen: int) -> Inputs:
    """Observations, how the state moves and what is seen of it."""
    move = 0.9 * np.eye(states) + normal(rng, states, states, dtype=WIDE, scale=0.1)
    return {
        "y": normal(rng, steps, seen, dtype=WIDE),
        "move": move,
        "see": normal(rng, seen, states, dtype=WIDE),
    }


def process(rng: Rng, points: int) -> Inputs:
    return {
        "x": normal(rng, points, 3, dtype=WIDE),
        "y": normal(rng, points, dtype=WIDE),
        "log_scale": np.array(0.3),
        "log_noise": np.array(-1.0),
    }


def _cholesky(n: int) -> Case:
    work = lambda n: Work(n**3 / 6, 4 * n * n, 8 * n * n, WIDE)  # noqa: E731
    tiny = {"n": 3}
    return Case(f"cholesky {n}x{n} f64", "cholesky", Values(), positive, {"n": n}, tiny, work, tolerance=1e-9)


def _solve(n: int, k: int) -> Case:
    tiny, sizes = {"n": 3, "k": 2}, {"n": n, "k": k}
    work = lambda n, k: Work(n**3 / 3 + n * n * k, 8 * n * (n + k), 8 * n * k, WIDE)  # noqa: E731
    return Case(f"solve {n}x{n} by {k} f64", "solve", Values(), system, sizes, tiny, work, tolerance=1e-9)


CASES = (
    *map(_cholesky, (4, 32, 256)),
    _solve(4, 1),
    _solve(32, 32),
    _solve(256, 256),
    Case(
        "solve 1000 of 6x6 f64",
        "solve",
        Values(),
        systems,
        {"count": 1000, "n": 6},
        {"count": 3, "n": 2},
        tolerance=1e-9,
    ),
    Case(
        "kalman filter, 4 states, 200 steps f64",
        "kalman",
        Values(),
        filtered,
        {"steps": 200, "states": 4, "seen": 2},
        {"steps": 3, "states": 3, "seen": 2},
        tolerance=1e-8,
    ),
    Case(
        "gaussian process + gradient, 200 points f64",
        "process",
        Slopes(("log_scale", "log_noise")),
        process,
        {"points": 200},
        {"points": 7},
        tolerance=1e-8,
    ),
)


def numpy() -> Functions:
    def kalman(y: Array, move: Array, see: Array) -> Any:
        states, seen = len(move), len(see)
        m, p, total, means = np.zeros(states), np.eye(states), 0.0, []
        for row in y:
            m, p = move @ m, move @ p @ move.T + 0.01 * np.eye(states)
            s = see @ p @ see.T + 0.1 * np.eye(seen)
            gain, rest = np.linalg.solve(s, see @ p).T, row - see @ m
            total += rest @ np.linalg.solve(s, rest) + np.linalg.slogdet(s)[1]
            m, p = m + gain @ rest, p - gain @ s @ gain.T
            means.append(m)
        return np.array(means), np.array(0.5 * total)

    def process(x: Array, y: Array, log_scale: Array, log_noise: Array) -> Any:
        scale, noise = np.exp(-log_scale), np.exp(log_noise)
        apart = np.square(x[:, None] - x[None]).sum(axis=2)
        near = np.exp(-apart * scale)
        cover = near + noise * np.eye(len(x))
        back = np.linalg.inv(cover)
        z = back @ y
        slopes = near * apart * scale, noise * np.eye(len(x))
        value = 0.5 * (y @ z) + 0.5 * np.linalg.slogdet(cover)[1]
        return value, *(np.array(0.5 * np.sum(back * d) - 0.5 * (z @ d @ z)) for d in slopes)

    return {"cholesky": np.linalg.cholesky, "solve": np.linalg.solve, "kalman": kalman, "process": process}


def tcc() -> Functions:
    import tcc
    import tcc.tensor as T
    from tcc.tensor import nlinalg, slinalg

    return symbolic(tcc, T, slinalg, nlinalg)


def pytensor() -> Functions:
    import pytensor
    import pytensor.tensor as pt
    from pytensor.tensor import nlinalg, slinalg

    functions = symbolic(pytensor, pt, slinalg, nlinalg)
    return {"solve": lambda a, b: slinalg.solve(a, b, b_ndim=2)} | {
        k: f for k, f in functions.items() if k != "solve"
    }


def symbolic(library: Any, T: Any, slinalg: Any, nlinalg: Any) -> Functions:
    """For both libraries with Theano's API."""

    def kalman(y: Any, move: Any, see: Any) -> Any:
        states, seen = move.type.shape[0], see.type.shape[0]

        def step(row: Any, m: Any, p: Any, move: Any, see: Any) -> Any:
            m, p = T.dot(move, m), T.dot(T.dot(move, p), move.T) + 0.01 * np.eye(states)
            s = T.dot(T.dot(see, p), see.T) + 0.1 * np.eye(seen)
            gain, rest = slinalg.solve(s, T.dot(see, p)).T, row - T.dot(see, m)
            cost = T.dot(rest, slinalg.solve(s, rest)) + nlinalg.slogdet(s)[1]
            return m + T.dot(gain, rest), p - T.dot(T.dot(gain, s), gain.T), cost

        starts = [T.zeros(states, dtype=WIDE), T.eye(states, dtype=WIDE), None]
        (means, _, costs), _ = library.scan(step, [y], starts, [move, see])
        return [means, 0.5 * costs.sum()]

    def process(x: Any, y: Any, log_scale: Any, log_noise: Any) -> Any:
        apart = T.sqr(x[:, None, :] - x[None, :, :]).sum(axis=2)
        cover = T.exp(-apart * T.exp(-log_scale)) + T.exp(log_noise) * T.eye(y.shape[0])
        root = slinalg.cholesky(cover)
        half = slinalg.solve_triangular(root, y, lower=True)
        return 0.5 * T.sum(T.sqr(half)) + T.sum(T.log(T.diag(root)))

    return {"cholesky": slinalg.cholesky, "solve": slinalg.solve, "kalman": kalman, "process": process}


def torch() -> Functions:
    import torch
    from torch import linalg

    def kalman(y: Any, move: Any, see: Any) -> Any:
        states, seen = len(move), len(see)
        m, p = torch.zeros(states, dtype=y.dtype), torch.eye(states, dtype=y.dtype)
        total, means, noise = 0.0, [], 0.01 * torch.eye(states, dtype=y.dtype)
        blur = 0.1 * torch.eye(seen, dtype=y.dtype)
        for row in y:
            m, p = move @ m, move @ p @ move.T + noise
            s = see @ p @ see.T + blur
            gain, rest = linalg.solve(s, see @ p).T, row - see @ m
            total = total + rest @ linalg.solve(s, rest) + torch.logdet(s)
            m, p = m + gain @ rest, p - gain @ s @ gain.T
            means.append(m)
        return torch.stack(means), 0.5 * total

    def process(x: Any, y: Any, log_scale: Any, log_noise: Any) -> Any:
        apart = torch.square(x[:, None] - x[None]).sum(dim=2)
        noise = torch.exp(log_noise) * torch.eye(len(x), dtype=x.dtype)
        root = linalg.cholesky(torch.exp(-apart * torch.exp(-log_scale)) + noise)
        half = linalg.solve_triangular(root, y[:, None], upper=False)
        return 0.5 * torch.sum(torch.square(half)) + torch.sum(torch.log(torch.diagonal(root)))

    return {"cholesky": linalg.cholesky, "solve": linalg.solve, "kalman": kalman, "process": process}


def jax() -> Functions:
    import jax
    import jax.numpy as jnp
    from jax.scipy.linalg import solve_triangular

    def kalman(y: Any, move: Any, see: Any) -> Any:
        states, seen = len(move), len(see)

        def step(carry: Any, row: Any) -> Any:
            m, p = carry
            m, p = move @ m, move @ p @ move.T + 0.01 * jnp.eye(states)
            s = see @ p @ see.T + 0.1 * jnp.eye(seen)
            gain, rest = jnp.linalg.solve(s, see @ p).T, row - see @ m
            cost = rest @ jnp.linalg.solve(s, rest) + jnp.linalg.slogdet(s)[1]
            m, p = m + gain @ rest, p - gain @ s @ gain.T
            return (m, p), (m, cost)

        start = jnp.zeros(states, y.dtype), jnp.eye(states, dtype=y.dtype)
        _, (means, costs) = jax.lax.scan(step, start, y)
        return means, 0.5 * costs.sum()

    def process(x: Any, y: Any, log_scale: Any, log_noise: Any) -> Any:
        apart = jnp.square(x[:, None] - x[None]).sum(axis=2)
        noise = jnp.exp(log_noise) * jnp.eye(len(x), dtype=x.dtype)
        root = jnp.linalg.cholesky(jnp.exp(-apart * jnp.exp(-log_scale)) + noise)
        half = solve_triangular(root, y, lower=True)
        return 0.5 * jnp.sum(jnp.square(half)) + jnp.sum(jnp.log(jnp.diagonal(root)))

    return {"cholesky": jnp.linalg.cholesky, "solve": jnp.linalg.solve, "kalman": kalman, "process": process}
