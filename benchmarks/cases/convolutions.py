"""Convolutions in NCHW, correlating as neural networks do: forward, and the gradients by both operands in one run."""

from __future__ import annotations

import math
from collections.abc import Callable
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
    (3, 512, 512, 7, 1, 1, 1),
)


def both(
    name: str,
    border: str,
    tiny: dict[str, int],
    filters: Callable[..., tuple[int, ...]],
    image: Callable[..., tuple[int, ...]],
    result: Callable[..., tuple[int, ...]],
    **sizes: int,
) -> tuple[Case, Case]:
    """The forward case and that of the gradients, of the shapes that the functions give for the sizes."""

    def operands(rng: Rng, **s: int) -> Inputs:
        shape = filters(**s)
        return {
            "x": normal(rng, *image(**s)),
            "w": normal(rng, *shape, scale=math.prod(shape[1:]) ** -0.5),
        }

    def with_cotangent(rng: Rng, **s: int) -> Inputs:
        return {**operands(rng, **s), "g": normal(rng, *result(**s))}

    def flops(**s: int) -> float:
        return 2 * math.prod(result(**s)) * math.prod(filters(**s)[1:])

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


def squares(r: int, c: int, f: int, size: int, n: int, stride: int, pad: int) -> tuple[Case, Case]:
    """Of square images with square filters."""

    def out(size: int) -> int:
        return (size + 2 * pad - r) // stride + 1

    name = f"conv {r}x{r} {c}-{f} {size}x{size} n{n}" + (f" stride {stride}" if stride > 1 else "")
    return both(
        name,
        f"{stride},{pad},1",
        {"c": min(c, 3), "f": 5, "size": 9, "n": 2},
        lambda c, f, size, n: (f, c, r, r),
        lambda c, f, size, n: (n, c, size, size),
        lambda c, f, size, n: (n, f, out(size), out(size)),
        c=c,
        f=f,
        size=size,
        n=n,
    )


# filters as wide as the image: words of a sentence; and a filter for each channel
SENTENCES = both(
    "conv 3x300 1-100 60x300 n16",
    "1,0,1",
    {"f": 5, "words": 7, "width": 9, "n": 2},
    lambda f, words, width, n: (f, 1, 3, width),
    lambda f, words, width, n: (n, 1, words, width),
    lambda f, words, width, n: (n, f, words - 2, 1),
    f=100,
    words=60,
    width=300,
    n=16,
)
DEPTHWISE = 96  # channels
BY_CHANNEL = both(
    f"conv 3x3 depthwise {DEPTHWISE} 56x56 n4",
    f"1,1,{DEPTHWISE}",
    {"size": 9, "n": 2},
    lambda size, n: (DEPTHWISE, 1, 3, 3),
    lambda size, n: (n, DEPTHWISE, size, size),
    lambda size, n: (n, DEPTHWISE, size, size),
    size=56,
    n=4,
)
CASES = (*(case for shape in SHAPES for case in squares(*shape)), *SENTENCES, *BY_CHANNEL)
BORDERS = sorted({(*shape[5:], 1) for shape in SHAPES} | {(1, 1, DEPTHWISE)})  # stride, padding, groups


def functions(forward: Any, gradients: Any) -> Functions:
    """`forward(stride, pad, groups)` and `gradients(stride, pad, groups)` give the functions."""
    made = {"forward": forward, "gradients": gradients}
    return {
        f"{kind} {s},{p},{groups}": make(s, p, groups)
        for kind, make in made.items()
        for s, p, groups in BORDERS
    }


def reference() -> Functions:
    def gradients(stride: int, pad: int, groups: int) -> Any:
        def both(x: tape.Node, w: tape.Node, g: tape.Node) -> list[Any]:
            return tape.gradient(tape.conv2d(x, w, stride, pad, groups), [x, w], g.value)

        return both

    def forward(stride: int, pad: int, groups: int) -> Any:
        return lambda x, w: tape.conv2d(x, w, stride, pad, groups)

    return functions(forward, gradients)


def tcc() -> Functions:
    import tcc
    import tcc.tensor as T

    def forward(stride: int, pad: int, groups: int) -> Any:
        return lambda x, w: T.nnet.conv2d(
            x,
            w,
            border_mode=(pad, pad),
            subsample=(stride, stride),
            filter_flip=False,
            num_groups=groups,
        )

    def gradients(stride: int, pad: int, groups: int) -> Any:
        return lambda x, w, g: tcc.grad(None, [x, w], known_grads={forward(stride, pad, groups)(x, w): g})

    return functions(forward, gradients)


def torch() -> Functions:
    import torch

    def gradients(stride: int, pad: int, groups: int) -> Any:
        def both(x: Any, w: Any, g: Any) -> Any:
            s, p = [stride, stride], [pad, pad]
            return torch.ops.aten.convolution_backward(
                g, x, w, None, s, p, [1, 1], False, [0, 0], groups, [True, True, False]
            )[:2]

        return both

    def forward(stride: int, pad: int, groups: int) -> Any:
        return lambda x, w: torch.conv2d(x, w, stride=stride, padding=pad, groups=groups)

    return functions(forward, gradients)


def jax() -> Functions:
    import jax

    def forward(stride: int, pad: int, groups: int) -> Any:
        return lambda x, w: jax.lax.conv_general_dilated(
            x,
            w,
            (stride, stride),
            ((pad, pad), (pad, pad)),
            dimension_numbers=("NCHW", "OIHW", "NCHW"),
            feature_group_count=groups,
        )

    def gradients(stride: int, pad: int, groups: int) -> Any:
        return lambda x, w, g: jax.vjp(forward(stride, pad, groups), x, w)[1](g)

    return functions(forward, gradients)
