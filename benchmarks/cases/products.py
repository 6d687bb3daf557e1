"""Matrix products, m x k x n.  NT has the second factor transposed in memory, TN the first."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.case import DEVICE, Case, Function, Functions, Inputs, Rng, Values, Work, normal

SQUARES = tuple((n, n, n) for n in (64, 128, 256, 512, 1024, 2048))
LARGE = ((4096, 4096, 4096), (8192, 8192, 8192))  # for GPUs
OTHERS = ((600, 784, 500), (20, 650, 2600), (600, 500, 10), (64, 1024, 4096))


def product(layout: str, dtype: str, shape: tuple[int, int, int]) -> Case:
    def inputs(rng: Rng, m: int, k: int, n: int) -> Inputs:
        a = (k, m) if layout[0] == "T" else (m, k)
        b = (n, k) if layout[1] == "T" else (k, n)
        return {"a": normal(rng, *a, dtype=dtype), "b": normal(rng, *b, dtype=dtype)}

    return Case(
        f"matmul f{dtype[-2:]} {layout} {'x'.join(map(str, shape))}",
        layout,
        Values(),
        inputs,
        dict(zip("mkn", shape)),
        {"m": 13, "k": 37, "n": 19},
        lambda m, k, n: Work(flops=2 * m * n * k, dtype=dtype),
        without=("torch.compile",),  # calls what torch calls
        for_gpus=shape in LARGE,
    )


def narrow(kind: str, shape: tuple[int, int, int]) -> Case:
    """Sums in 32 bits of products of int8 or bfloat16; bfloat16's results may be rounded to it."""

    def inputs(rng: Rng, m: int, k: int, n: int) -> Inputs:
        if kind == "bytes":
            return {
                name: rng.integers(-128, 128, size, "int8") for name, size in (("a", (m, k)), ("b", (k, n)))
            }
        exact = {"a": normal(rng, m, k), "b": normal(rng, k, n)}
        return {name: (v.view("uint32") & 0xFFFF0000).view("float32") for name, v in exact.items()}

    def work(m: int, k: int, n: int) -> Work:
        """On a CPU the limit of memory: what these instructions reach on registers alone is not measured there."""
        if halves and DEVICE != "cpu":
            return Work(flops=2 * m * n * k, dtype="bfloat16")
        return Work(read=(m * k + k * n) * (2 if halves else 1), written=4 * m * n)

    halves = kind == "bfloat16"
    return Case(
        f"matmul {'bf16' if halves else 'i8'} {'x'.join(map(str, shape))}",
        kind,
        Values(held=("a", "b") if halves else ()),
        inputs,
        dict(zip("mkn", shape)),
        {"m": 13, "k": 37, "n": 19},
        work,
        tolerance=1e-2 if halves else 0,
        without=(
            "torch.compile",
            "onnxruntime",
            "pytensor",
            "numpy",
        ),  # which lack them, or call what torch calls
        bfloat16=halves,
        for_gpus=halves and shape not in NARROW,
    )


def dense(shape: tuple[int, int, int]) -> Case:
    """tanh(a @ b + c) of bfloat16: a layer, whose map belongs into its product."""
    exact = narrow("bfloat16", shape).inputs

    def inputs(rng: Rng, m: int, k: int, n: int) -> Inputs:
        row = normal(rng, n)
        given = exact(rng, m=m, k=k, n=n)
        given["b"] /= 16  # so that tanh is not flat; exact in bfloat16
        return {**given, "c": (row.view("uint32") & 0xFFFF0000).view("float32")}

    return Case(
        f"tanh(a @ b + c) bf16 {'x'.join(map(str, shape))}",
        "dense",
        Values(held=("a", "b", "c")),
        inputs,
        dict(zip("mkn", shape)),
        {"m": 13, "k": 37, "n": 19},
        lambda m, k, n: Work(flops=2 * m * n * k, dtype="bfloat16"),
        tolerance=2e-2,
        bfloat16=True,
        for_gpus=True,
    )


NARROW = ((256, 256, 256), (1024, 1024, 1024), (64, 1024, 4096))
HALVES = (
    (512, 512, 512),
    (2048, 2048, 2048),
    *LARGE,
    (600, 784, 500),
    (20, 650, 2600),
    (16, 4096, 4096),
)  # for GPUs

CASES = (
    *(
        product(layout, dtype, shape)
        for dtype in ("float32", "float64")
        for shape in (*SQUARES, *(LARGE if dtype == "float32" else ()), *OTHERS)
        for layout in ("NN", "NT", "TN")
    ),
    *(
        narrow(kind, shape)
        for kind in ("bytes", "bfloat16")
        for shape in (*NARROW, *(HALVES if kind == "bfloat16" else ()))
    ),
    *(dense(shape) for shape in ((600, 784, 500), (16, 4096, 4096), (4096, 4096, 4096))),
)


def numpy() -> Functions:
    """Every library that overloads `@` and has `.T` runs the first three."""
    return {
        "NN": lambda a, b: a @ b,
        "NT": lambda a, b: a @ b.T,
        "TN": lambda a, b: a.T @ b,
        "bytes": lambda a, b: a.astype("int32") @ b.astype("int32"),
        "bfloat16": lambda a, b: a @ b,
        "dense": lambda a, b, c: np.tanh(a @ b + c),
    }


def tcc() -> Functions:
    import tcc.tensor as T

    def widened(dtype: str) -> Function:
        return lambda a, b: T.dot(T.cast(a, dtype), T.cast(b, dtype))

    return {
        "NN": T.dot,
        "NT": lambda a, b: T.dot(a, b.T),
        "TN": lambda a, b: T.dot(a.T, b),
        "bytes": widened("int32"),
        "bfloat16": widened("float32") if DEVICE == "cpu" else T.dot,
        "dense": lambda a, b, c: T.tanh(T.dot(a, b) + c),
    }


def torch() -> Functions:
    import torch

    def dense(a: Any, b: Any, c: Any) -> Any:
        return torch.tanh(torch.addmm(c, a, b))

    return numpy() | {"bytes": torch._int_mm, "dense": dense}


def jax() -> Functions:
    import jax.numpy as jnp
    from jax import lax

    def widened(dtype: str) -> Function:
        return lambda a, b: lax.dot(a, b, preferred_element_type=dtype)

    return numpy() | {
        "bytes": widened("int32"),
        "bfloat16": widened("float32"),
        "dense": lambda a, b, c: jnp.tanh(a @ b + c),
    }


pytensor = numpy
