"""Derivatives as statisticians need them: a Hessian times a vector, and a log-density with its gradient."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks import tape
from benchmarks.case import Array, Case, Functions, Inputs, Rng, Slopes, Values, normal

WEIGHTS = ("w0", "b0", "w1")
HYPER = ("mu", "log_tau", "log_sigma", "level", "slope", "log_nu", "shift", "log_scale")


def perceptron(rng: Rng, batch: int, width: int, hidden: int) -> Inputs:
    """Data, weights, and a direction for each of the weights."""
    shapes = {"w0": (width, hidden), "b0": (hidden,), "w1": (hidden, 1)}
    weights = {name: normal(rng, *shape, scale=0.3) for name, shape in shapes.items()}
    directions = {f"v{name}": normal(rng, *shape) for name, shape in shapes.items()}
    return {"x": normal(rng, batch, width), "t": normal(rng, batch, 1), **weights, **directions}


def hierarchy(rng: Rng, size: int) -> Inputs:
    """Two kinds of observations, the latent values, and what they depend upon."""
    wide = "float64"
    latent = normal(rng, size, dtype=wide)
    return {
        "y": latent + normal(rng, size, dtype=wide),
        "k": (rng.random(size) < 0.5).astype(wide),
        "z": latent,
        **{name: np.array(0.3 * rng.standard_normal()) for name in HYPER},
    }


CASES = (
    Case(
        "hessian-vector product, 16-32-1 mlp, batch 32",
        "hvp",
        Values(),
        perceptron,
        {"batch": 32, "width": 16, "hidden": 32},
        {"batch": 5, "width": 3, "hidden": 7},
    ),
    Case(
        "log-density + gradient, 1000 float64",
        "density",
        Slopes(("z", *HYPER)),
        hierarchy,
        {"size": 1000},
        {"size": 13},
        tolerance=1e-9,
    ),
)


def density(lib: Any) -> Any:
    """A hierarchical model of some 200 operations with its gradient.

    Latent z ~ Normal(mu, tau); y ~ Student-t with location z; k ~ Bernoulli(logistic(level + slope * z)); and priors.
    """

    def log_density(
        y: Any,
        k: Any,
        z: Any,
        mu: Any,
        log_tau: Any,
        log_sigma: Any,
        level: Any,
        slope: Any,
        log_nu: Any,
        shift: Any,
        log_scale: Any,
    ) -> Any:
        nu = 2 + lib.exp(log_nu)
        latent = (z - mu) * lib.exp(-log_tau)
        residual = (y - shift - z * lib.exp(log_scale)) * lib.exp(-log_sigma)
        logit = level + slope * z
        per_item = (
            -0.5 * latent * latent
            - log_tau
            - 0.5 * (nu + 1) * lib.log1p(residual * residual / nu)
            - 0.5 * lib.log(nu)
            - log_sigma
            + k * logit
            - lib.softplus(logit)
        )
        normal_priors = sum(
            -0.5 * (v / s) ** 2 for v, s in ((mu, 10.0), (level, 2.0), (slope, 2.0), (shift, 1.0))
        )
        positive_priors = sum(
            v - 0.5 * lib.exp(2 * v) / (s * s)
            for v, s in ((log_tau, 1.0), (log_sigma, 1.0), (log_scale, 1.0))
        )
        return lib.total(per_item) + normal_priors + positive_priors + log_nu - 0.1 * nu

    return log_density


def reference() -> Functions:
    def softplus(x: tape.Node) -> tape.Node:
        return tape.log(1 + tape.exp(x))

    lib = SimpleNamespace(
        exp=tape.exp,
        log=tape.log,
        log1p=lambda x: tape.log(1 + x),
        softplus=softplus,
        total=lambda x: x.sum().reshape(),
    )
    return {"density": density(lib), "hvp": lambda *nodes: numpy()["hvp"](*(n.value for n in nodes))}


def numpy() -> Functions:
    def hvp(x: Array, t: Array, w0: Array, b0: Array, w1: Array, v0: Array, vb: Array, v1: Array) -> Any:
        """The gradient of the mean squared error, differentiated in the direction v by hand (Pearlmutter 1994)."""
        scale = 2 / len(x)
        inner = np.tanh(x @ w0 + b0)
        slope = 1 - inner * inner
        moved = slope * (x @ v0 + vb)
        error, error_moved = inner @ w1 - t, moved @ w1 + inner @ v1
        back = error @ w1.T
        back_moved = error_moved @ w1.T + error @ v1.T
        by_inner = back_moved * slope - 2 * back * inner * moved
        return (
            x.T @ by_inner * scale,
            by_inner.sum(axis=0) * scale,
            (inner.T @ error_moved + moved.T @ error) * scale,
        )

    return {"hvp": hvp}


def tcc() -> Functions:
    import tcc
    import tcc.tensor as T

    return symbolic(tcc, T, T.nnet.softplus)


def pytensor() -> Functions:
    import pytensor
    import pytensor.tensor as pt

    return symbolic(pytensor, pt, pt.softplus)


def symbolic(library: Any, T: Any, softplus: Any) -> Functions:
    """For both libraries with Theano's API."""

    def hvp(x: Any, t: Any, w0: Any, b0: Any, w1: Any, *directions: Any) -> Any:
        cost = T.mean(T.sqr(T.dot(T.tanh(T.dot(x, w0) + b0), w1) - t))
        slopes = library.grad(cost, [w0, b0, w1])
        along = sum(T.sum(slope * v) for slope, v in zip(slopes, directions))
        return library.grad(along, [w0, b0, w1])

    lib = SimpleNamespace(exp=T.exp, log=T.log, log1p=T.log1p, softplus=softplus, total=T.sum)
    return {"hvp": hvp, "density": density(lib)}


def torch() -> Functions:
    import torch
    from torch.nn import functional as F

    def hvp(x: Any, t: Any, w0: Any, b0: Any, w1: Any, v0: Any, vb: Any, v1: Any) -> Any:
        """By hand, which is faster than grad of grad."""
        scale = 2 / len(x)
        inner = torch.tanh(torch.addmm(b0, x, w0))
        slope = 1 - inner * inner
        moved = slope * torch.addmm(vb, x, v0)
        error, error_moved = inner @ w1 - t, torch.addmm(moved @ w1, inner, v1)
        by_inner = torch.addmm(error_moved @ w1.T, error, v1.T) * slope - 2 * (error @ w1.T) * inner * moved
        return (
            (x.T @ by_inner) * scale,
            by_inner.sum(dim=0) * scale,
            torch.addmm(moved.T @ error, inner.T, error_moved) * scale,
        )

    lib = SimpleNamespace(
        exp=torch.exp, log=torch.log, log1p=torch.log1p, softplus=F.softplus, total=torch.sum
    )
    return {"hvp": hvp, "density": density(lib)}


def jax() -> Functions:
    import jax
    import jax.numpy as jnp

    def hvp(x: Any, t: Any, w0: Any, b0: Any, w1: Any, *directions: Any) -> Any:
        def cost(w0: Any, b0: Any, w1: Any) -> Any:
            return jnp.mean(jnp.square(jnp.tanh(x @ w0 + b0) @ w1 - t))

        return jax.jvp(jax.grad(cost, (0, 1, 2)), (w0, b0, w1), directions)[1]

    lib = SimpleNamespace(exp=jnp.exp, log=jnp.log, log1p=jnp.log1p, softplus=jax.nn.softplus, total=jnp.sum)
    return {"hvp": hvp, "density": density(lib)}
