"""Matrix products, m x k x n.  NT has the second factor transposed in memory, TN the first."""

from __future__ import annotations

from benchmarks.case import Case, Functions, Inputs, Rng, Values, Work, normal

SQUARES = tuple((n, n, n) for n in (64, 128, 256, 512, 1024, 2048))
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
    )


CASES = tuple(
    product(layout, dtype, shape)
    for dtype in ("float32", "float64")
    for shape in (*SQUARES, *OTHERS)
    for layout in ("NN", "NT", "TN")
)


def numpy() -> Functions:
    """Every library that overloads `@` and has `.T` runs these."""
    return {"NN": lambda a, b: a @ b, "NT": lambda a, b: a @ b.T, "TN": lambda a, b: a.T @ b}


def tcc() -> Functions:
    import tcc.tensor as T

    return {"NN": T.dot, "NT": lambda a, b: T.dot(a, b.T), "TN": lambda a, b: T.dot(a.T, b)}


torch = jax = pytensor = numpy
