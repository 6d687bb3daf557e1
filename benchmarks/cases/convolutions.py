"""Convolutions in NCHW, correlating as neural networks do: forward, and the gradients by both operands in one run."""

from __future__ import annotations

from typing import Any

from benchmarks import tape
from benchmarks.case import Case, Functions, Inputs, Rng, Values, Work, normal

# filter size, channels in and out, image size, batch, stride, padding
SHAPES = (
    (3, 64, 64, 28, 16, 1, 1),
    (3, 3, 64, 32, 32, 1, 1),
    (1, 64, 256, 14, 32, 1, 0),
    (5, 1, 20, 28, 100, 1, 0),
    (5, 20, 50, 12, 100, 1, 0),
    (3, 64, 128, 56, 8, 2, 1),
)


def both(r: int, c: int, f: int, size: int, n: int, stride: int, pad: int) -> tuple[Case, Case]:
    """The forward case and that of the gradients."""
    out = (size + 2 * pad - r) // stride + 1

    def operands(rng: Rng, c: int, f: int, size: int, n: int) -> Inputs:
        return {"x": normal(rng, n, c, size, size), "w": normal(rng, f, c, r, r, scale=(c * r * r) ** -0.5)}

    def with_cotangent(rng: Rng, c: int, f: int, size: int, n: int) -> Inputs:
        rows = (size + 2 * pad - r) // stride + 1
        return {**operands(rng, c, f, size, n), "g": normal(rng, n, f, rows, rows)}

    def flops(c: int, f: int, size: int, n: int) -> float:
        return 2 * n * f * c * r * r * out * out

    name = f"conv {r}x{r} {c}-{f} {size}x{size} n{n}" + (f" stride {stride}" if stride > 1 else "")
    sizes, tiny = {"c": c, "f": f, "size": size, "n": n}, {"c": min(c, 3), "f": 5, "size": 9, "n": 2}
    border = f"{stride},{pad}"
    return (
        Case(name, f"forward {border}", Values(), operands, sizes, tiny, lambda **s: Work(flops=flops(**s))),
        Case(
            f"{name} gradients",
            f"gradients {border}",
            Values(),
            with_cotangent,
            sizes,
            tiny,
            lambda **s: Work(flops=2 * flops(**s)),
            without=(
                "torch.compile",
                "onnxruntime",
            ),  # the one calls what torch calls, the other has no gradients
        ),
    )


CASES = tuple(case for shape in SHAPES for case in both(*shape))
BORDERS = sorted({shape[5:] for shape in SHAPES})  # stride and padding


def functions(forward: Any, gradients: Any) -> Functions:
    """`forward(stride, pad)` and `gradients(stride, pad)` give the functions for a border."""
    made = {"forward": forward, "gradients": gradients}
    return {f"{kind} {s},{p}": make(s, p) for kind, make in made.items() for s, p in BORDERS}


def reference() -> Functions:
    def gradients(stride: int, pad: int) -> Any:
        def both(x: tape.Node, w: tape.Node, g: tape.Node) -> list[Any]:
            return tape.gradient(tape.conv2d(x, w, stride, pad), [x, w], g.value)

        return both

    return functions(lambda stride, pad: lambda x, w: tape.conv2d(x, w, stride, pad), gradients)


def tcc() -> Functions:
    import tcc
    import tcc.tensor as T

    def forward(stride: int, pad: int) -> Any:
        return lambda x, w: T.nnet.conv2d(
            x, w, border_mode=(pad, pad), subsample=(stride, stride), filter_flip=False
        )

    def gradients(stride: int, pad: int) -> Any:
        return lambda x, w, g: tcc.grad(None, [x, w], known_grads={forward(stride, pad)(x, w): g})

    return functions(forward, gradients)


def torch() -> Functions:
    import torch

    def gradients(stride: int, pad: int) -> Any:
        def both(x: Any, w: Any, g: Any) -> Any:
            s, p = [stride, stride], [pad, pad]
            return torch.ops.aten.convolution_backward(
                g, x, w, None, s, p, [1, 1], False, [0, 0], 1, [True, True, False]
            )[:2]

        return both

    return functions(lambda s, p: lambda x, w: torch.conv2d(x, w, stride=s, padding=p), gradients)


def jax() -> Functions:
    import jax

    def forward(stride: int, pad: int) -> Any:
        return lambda x, w: jax.lax.conv_general_dilated(
            x, w, (stride, stride), ((pad, pad), (pad, pad)), dimension_numbers=("NCHW", "OIHW", "NCHW")
        )

    return functions(forward, lambda s, p: lambda x, w, g: jax.vjp(forward(s, p), x, w)[1](g))
