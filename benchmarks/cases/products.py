"""Matrix products, m x k x n.  NT has the second factor transposed in memory, TN the first."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.case import (
    DEVICE,
    Array,
    Case,
    Function,
    Functions,
    Inputs,
    Rng,
    Update,
    Values,
    Work,
    normal,
)

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
        if in_halves and DEVICE != "cpu":
            return Work(flops=2 * m * n * k, dtype="bfloat16")
        return Work(read=(m * k + k * n) * (2 if in_halves else 1), written=4 * m * n)

    in_halves = kind == "bfloat16"
    return Case(
        f"matmul {'bf16' if in_halves else 'i8'} {'x'.join(map(str, shape))}",
        kind,
        Values(held=("a", "b") if in_halves else ()),
        inputs,
        dict(zip("mkn", shape)),
        {"m": 13, "k": 37, "n": 19},
        work,
        tolerance=1e-2 if in_halves else 0,
        without=(
            "torch.compile",
            "onnxruntime",
            "pytensor",
            "numpy",
        ),  # which lack them, or call what torch calls
        bfloat16=in_halves,
    )


def halves(kind: str, shape: tuple[int, int, int]) -> Case:
    """Products of bfloat16 that are rounded to it where they lie: a @ b, or a layer, tanh(a @ b + c), whose map belongs into it."""

    def inputs(rng: Rng, m: int, k: int, n: int) -> Inputs:
        shapes = {"a": (m, k), "b": (k, n), "c": (n,), "out": (m, n)}
        exact = {name: normal(rng, *size, scale=0.1) for name, size in shapes.items()}
        return {name: (v.view("uint32") & 0xFFFF0000).view("float32") for name, v in exact.items()}

    name = "a @ b" if kind == "product" else "tanh(a @ b + c)"
    return Case(
        f"{name} of bf16 {'x'.join(map(str, shape))}",
        kind,
        Update(("out",)),
        inputs,
        dict(zip("mkn", shape)),
        {"m": 13, "k": 37, "n": 19},
        lambda m, k, n: Work(flops=2 * m * n * k, dtype="bfloat16"),
        tolerance=1e-2,
        without=("cupy",),  # which has no bfloat16
        bfloat16=True,
        for_gpus=True,
    )


NARROW = ((256, 256, 256), (1024, 1024, 1024), (64, 1024, 4096))
SKINNY = ((600, 784, 500), (20, 650, 2600), (16, 4096, 4096))

CASES = (
    *(
        product(layout, dtype, shape)
        for dtype in ("float32", "float64")
        for shape in (*SQUARES, *(LARGE if dtype == "float32" else ()), *OTHERS)
        for layout in ("NN", "NT", "TN")
    ),
    *(narrow(kind, shape) for kind in ("bytes", "bfloat16") for shape in NARROW),
    *(halves("product", shape) for shape in (*SQUARES[3:], *LARGE, *SKINNY)),
    *(halves("layer", shape) for shape in (*SKINNY, LARGE[0])),
)


def numpy() -> Functions:
    """Every library that overloads `@` and has `.T` runs the first three."""

    def placed(out: Array, value: Array) -> tuple[()]:
        out[...] = value
        return ()

    return {
        "NN": lambda a, b: a @ b,
        "NT": lambda a, b: a @ b.T,
        "TN": lambda a, b: a.T @ b,
        "bytes": lambda a, b: a.astype("int32") @ b.astype("int32"),
        "bfloat16": lambda a, b: a @ b,
        "product": lambda a, b, c, out: placed(out, a @ b),
        "layer": lambda a, b, c, out: placed(out, np.tanh(a @ b + c)),
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
        "bfloat16": widened("float32"),
        "product": lambda a, b, c, out: ([], T.dot(a, b)),
        "layer": lambda a, b, c, out: ([], T.tanh(T.dot(a, b) + c)),
    }


def torch() -> Functions:
    import torch

    def product(a: Any, b: Any, c: Any, out: Any) -> Any:
        torch.mm(a, b, out=out)
        return ()

    def layer(a: Any, b: Any, c: Any, out: Any) -> Any:
        torch.tanh(torch.addmm(c, a, b), out=out)
        return ()

    return numpy() | {"bytes": torch._int_mm, "product": product, "layer": layer}


def jax() -> Functions:
    import jax.numpy as jnp
    from jax import lax

    def widened(dtype: str) -> Function:
        return lambda a, b: lax.dot(a, b, preferred_element_type=dtype)

    return numpy() | {
        "bytes": widened("int32"),
        "bfloat16": widened("float32"),
        "product": lambda a, b, c, out: ((), [a @ b]),
        "layer": lambda a, b, c, out: ((), [jnp.tanh(a @ b + c)]),
    }


pytensor = numpy
