"""Convolutional networks: LeNet of the digits demo, and residual networks for 32x32 pixels (He et al. 2015, section 4.2).

The models are written once; a library brings the ten operations that they are made of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks import tape
from benchmarks.case import Array, Case, Descent, Function, Functions, Inputs, Rng, Values, Work, normal

EPSILON = 1e-5  # of batch normalisation


@dataclass(frozen=True)
class Library:
    """What a library calls the operations; images are NCHW, filters OIHW."""

    conv: Function  # x, w, stride, pad
    max_pool: Function  # 2 by 2
    normalized: Function  # x, gain, bias: by the batch's own statistics
    scaled: Function  # x, gain, bias, mean, variance: by those given
    dense: Function  # x, w, b
    per_channel: Function  # b, to add to images
    flat: Function  # all axes but the first
    tanh: Function
    relu: Function
    spatial_mean: Function  # (n, c, h, w) -> (n, c)
    softmax: Function  # of rows
    cost: Function  # logits, labels: the mean cross-entropy


def he(rng: Rng, *shape: int) -> Array:
    """Normal with variance 2 / fan-in (He et al. 2015)."""
    return normal(rng, *shape, scale=float(np.sqrt(2 / np.prod(shape[1:]))))


# -- LeNet: convolution, pooling and tanh twice, a layer of tanh units, softmax ------------------------------------

LENET = ("w0", "b0", "w1", "b1", "w2", "b2", "w3", "b3")


def lenet_parameters(rng: Rng, first: int, second: int, hidden: int, classes: int) -> Inputs:
    return {
        "w0": he(rng, first, 1, 5, 5),
        "b0": normal(rng, first, scale=0.1),
        "w1": he(rng, second, first, 5, 5),
        "b1": normal(rng, second, scale=0.1),
        "w2": normal(rng, second * 16, hidden, scale=(second * 16) ** -0.5),
        "b2": normal(rng, hidden, scale=0.1),
        "w3": normal(rng, hidden, classes, scale=hidden**-0.5),
        "b3": normal(rng, classes, scale=0.1),
    }


def lenet_inputs(rng: Rng, batch: int, **sizes: int) -> Inputs:
    return {"x": rng.random((batch, 1, 28, 28), np.float32), **lenet_parameters(rng, **sizes)}


def lenet_batch(rng: Rng, batch: int, **sizes: int) -> Inputs:
    inputs = lenet_inputs(rng, batch, **sizes)
    y = rng.integers(0, sizes["classes"], batch).astype(np.int64)
    return {"x": inputs.pop("x"), "y": y, **inputs}


def lenet_flops(batch: int, first: int, second: int, hidden: int, classes: int) -> tuple[float, float]:
    """Of the first convolution, whose input needs no gradient, and of the rest: one pass."""
    rest = second * first * 25 * 64 + second * 16 * hidden + hidden * classes
    return 2 * batch * first * 25 * 576, 2 * batch * rest


def lenet_logits(lib: Library, x: Any, *p: Any) -> Any:
    for w, b in (p[:2], p[2:4]):
        x = lib.tanh(lib.max_pool(lib.conv(x, w, 1, 0)) + lib.per_channel(b))
    return lib.dense(lib.tanh(lib.dense(lib.flat(x), *p[4:6])), *p[6:8])


# -- residual networks: 6 n + 2 layers, 1x1 convolutions where the shape changes ------------------------------------


def blocks(n: int, width: int) -> Iterator[tuple[str, int, int, int]]:
    """Name, channels in and out, and stride of each residual block."""
    channels = width
    for stage in range(3):
        for k in range(n):
            out = width << stage
            yield f"s{stage}b{k}", channels, out, 2 if stage and not k else 1
            channels = out


def resnet_parameters(rng: Rng, n: int, width: int, classes: int, statistics: bool) -> Inputs:
    """Of each convolution its filters, then gain and bias, then mean and variance if wanted."""
    found: Inputs = {}

    def conv(name: str, out: int, channels: int, r: int) -> None:
        found[f"{name}w"] = he(rng, out, channels, r, r)
        found[f"{name}gain"] = 1 + normal(rng, out, scale=0.1)
        found[f"{name}bias"] = normal(rng, out, scale=0.1)
        if statistics:
            found[f"{name}mean"] = normal(rng, out, scale=0.1)
            found[f"{name}var"] = rng.uniform(0.5, 2, out).astype(np.float32)

    conv("first", width, 3, 3)
    for name, channels, out, stride in blocks(n, width):
        conv(f"{name}c0", out, channels, 3)
        conv(f"{name}c1", out, out, 3)
        if stride > 1:
            conv(f"{name}short", out, channels, 1)
    found["w"] = normal(rng, 4 * width, classes, scale=(4 * width) ** -0.5)
    found["b"] = normal(rng, classes, scale=0.1)
    return found


def resnet_names(n: int, statistics: bool) -> tuple[str, ...]:
    return tuple(resnet_parameters(np.random.default_rng(0), n, 1, 1, statistics))


def resnet_inputs(rng: Rng, batch: int, size: int, **sizes: int) -> Inputs:
    return {"x": normal(rng, batch, 3, size, size), **resnet_parameters(rng, statistics=True, **sizes)}


def resnet_batch(rng: Rng, batch: int, size: int, **sizes: int) -> Inputs:
    return {
        "x": normal(rng, batch, 3, size, size),
        "y": rng.integers(0, sizes["classes"], batch).astype(np.int64),
        **resnet_parameters(rng, statistics=False, **sizes),
    }


def resnet_logits(lib: Library, n: int, normalize: Function, each: int, x: Any, *p: Any) -> Any:
    """`normalize(x, ...)` takes `each` parameters behind the filters."""
    given = iter(p)

    def conv(x: Any, stride: int, pad: int) -> Any:
        x = lib.conv(x, next(given), stride, pad)
        return normalize(x, *(next(given) for _ in range(each)))

    x = lib.relu(conv(x, 1, 1))
    for _, _, _, stride in blocks(n, 1):
        inner = lib.relu(conv(x, stride, 1))
        inner = conv(inner, 1, 1)
        x = lib.relu(inner + (conv(x, stride, 0) if stride > 1 else x))
    return lib.dense(lib.spatial_mean(x), next(given), next(given))


def resnet_flops(batch: int, size: int, n: int, width: int, classes: int) -> tuple[float, float]:
    """Of the first convolution, whose input needs no gradient, and of the rest: one pass."""
    first, rest, area = 2 * batch * width * 27 * size * size, 2 * batch * 4 * width * classes, size * size
    for _, channels, out, stride in blocks(n, width):
        area //= stride * stride
        rest += 2 * batch * area * out * (9 * channels + 9 * out + (channels if stride > 1 else 0))
    return first, rest


# -- the cases ------------------------------------------------------------------------------------------------------

LENET_SIZES = {"batch": 500, "first": 20, "second": 50, "hidden": 500, "classes": 10}
LENET_TINY = {"batch": 3, "first": 2, "second": 3, "hidden": 7, "classes": 5}
RESNET_SIZES = {"batch": 64, "size": 32, "n": 3, "width": 16, "classes": 10}
RESNET_TINY = {"batch": 3, "size": 8, "n": 3, "width": 3, "classes": 5}
DEEP = 27  # blocks a stage: 164 layers

CASES = (
    Case(
        "lenet forward, batch 500",
        "lenet forward",
        Values(held=LENET),
        lenet_inputs,
        LENET_SIZES,
        LENET_TINY,
        lambda **s: Work(flops=sum(lenet_flops(**s))),
    ),
    Case(
        "lenet sgd step, batch 500",
        "lenet step",
        Descent(LENET),
        lenet_batch,
        LENET_SIZES,
        LENET_TINY,
        lambda **s: Work(flops=2 * lenet_flops(**s)[0] + 3 * lenet_flops(**s)[1]),
        compiled=True,
    ),
    Case(
        "resnet-20 inference, batch 64",
        "resnet-20 forward",
        Values(held=resnet_names(3, True)),
        resnet_inputs,
        RESNET_SIZES,
        RESNET_TINY,
        lambda **s: Work(flops=sum(resnet_flops(**s))),
    ),
    Case(
        "resnet-20 training step, batch 64",
        "resnet-20 step",
        Descent(resnet_names(3, False)),
        resnet_batch,
        RESNET_SIZES,
        RESNET_TINY,
        lambda **s: Work(flops=2 * resnet_flops(**s)[0] + 3 * resnet_flops(**s)[1]),
        tolerance=2e-3,  # batch normalisation makes much of small differences, twenty times over
        compiled=True,
    ),
    Case(
        "resnet-164 training step, batch 2",
        "resnet-164 step",
        Descent(resnet_names(DEEP, False)),
        resnet_batch,
        {**RESNET_SIZES, "batch": 2, "n": DEEP},
        {**RESNET_TINY, "n": DEEP},
        tolerance=2e-2,
        compiled=True,
        timed=False,
    ),
)


def models(lib: Library) -> Functions:
    def resnet_step(n: int) -> Callable[..., Any]:
        return lambda x, y, *p: lib.cost(resnet_logits(lib, n, lib.normalized, 2, x, *p), y)

    return {
        "lenet forward": lambda x, *p: lib.softmax(lenet_logits(lib, x, *p)),
        "lenet step": lambda x, y, *p: lib.cost(lenet_logits(lib, x, *p), y),
        "resnet-20 forward": lambda x, *p: lib.softmax(resnet_logits(lib, 3, lib.scaled, 4, x, *p)),
        "resnet-20 step": resnet_step(3),
        "resnet-164 step": resnet_step(DEEP),
    }


def reference() -> Functions:
    def per_channel(b: tape.Node) -> tape.Node:
        return b.reshape(1, -1, 1, 1)

    def normalized(x: tape.Node, gain: tape.Node, bias: tape.Node) -> tape.Node:
        centred = x - x.mean((0, 2, 3))
        unit = centred * ((centred * centred).mean((0, 2, 3)) + EPSILON) ** -0.5
        return unit * per_channel(gain) + per_channel(bias)

    def scaled(x: tape.Node, gain: tape.Node, bias: tape.Node, mean: tape.Node, var: tape.Node) -> tape.Node:
        return (x - per_channel(mean)) * per_channel(gain * (var + EPSILON) ** -0.5) + per_channel(bias)

    def softmax(z: tape.Node) -> tape.Node:
        p = tape.exp(z)
        return p / p.sum(1)

    return models(
        Library(
            conv=tape.conv2d,
            max_pool=tape.max_pool,
            normalized=normalized,
            scaled=scaled,
            dense=lambda x, w, b: x @ w + b,
            per_channel=per_channel,
            flat=lambda x: x.reshape(x.value.shape[0], -1),
            tanh=tape.tanh,
            relu=tape.relu,
            spatial_mean=lambda x: x.mean((2, 3)).reshape(*x.value.shape[:2]),
            softmax=softmax,
            cost=tape.cross_entropy,
        )
    )


def tcc() -> Functions:
    import tcc.tensor as T
    from benchmarks.cases import rows
    from tcc.tensor.signal.pool import pool_2d

    train, test = T.nnet.bn.batch_normalization_train, T.nnet.bn.batch_normalization_test

    def conv(x: Any, w: Any, stride: int, pad: int) -> Any:
        known = w.get_value(borrow=True).shape  # filters are shared variables
        return T.nnet.conv2d(
            x, w, filter_shape=known, border_mode=(pad, pad), subsample=(stride, stride), filter_flip=False
        )

    return models(
        Library(
            conv=conv,
            max_pool=lambda x: pool_2d(x, (2, 2), ignore_border=True),
            normalized=lambda x, gain, bias: train(x, gain, bias, "spatial", EPSILON)[0],
            scaled=lambda x, gain, bias, mean, var: test(x, gain, bias, mean, var, "spatial", EPSILON),
            dense=lambda x, w, b: T.dot(x, w) + b,
            per_channel=lambda b: b.dimshuffle("x", 0, "x", "x"),
            flat=lambda x: x.flatten(2),
            tanh=T.tanh,
            relu=T.nnet.relu,
            spatial_mean=lambda x: x.mean(axis=(2, 3)),
            softmax=T.nnet.softmax,
            cost=rows.tcc()["xent"],
        )
    )


def torch() -> Functions:
    import torch
    from torch.nn import functional as F

    return models(
        Library(
            conv=lambda x, w, stride, pad: torch.conv2d(x, w, stride=stride, padding=pad),
            max_pool=lambda x: F.max_pool2d(x, 2),
            normalized=lambda x, gain, bias: F.batch_norm(x, None, None, gain, bias, True, 0.1, EPSILON),
            scaled=lambda x, gain, bias, mean, var: F.batch_norm(
                x, mean, var, gain, bias, False, 0.1, EPSILON
            ),
            dense=lambda x, w, b: torch.addmm(b, x, w),
            per_channel=lambda b: b.view(1, -1, 1, 1),
            flat=lambda x: x.flatten(1),
            tanh=torch.tanh,
            relu=torch.relu,
            spatial_mean=lambda x: x.mean((2, 3)),
            softmax=lambda z: torch.softmax(z, 1),
            cost=F.cross_entropy,
        )
    )


def jax() -> Functions:
    import jax
    import jax.numpy as jnp
    from jax import lax

    from benchmarks.cases import rows

    def conv(x: Any, w: Any, stride: int, pad: int) -> Any:
        borders = ((pad, pad), (pad, pad))
        return lax.conv_general_dilated(
            x, w, (stride, stride), borders, dimension_numbers=("NCHW", "OIHW", "NCHW")
        )

    def normalized(x: Any, gain: Any, bias: Any) -> Any:
        mean = x.mean((0, 2, 3), keepdims=True)
        return scaled(x, gain, bias, mean, jnp.square(x - mean).mean((0, 2, 3), keepdims=True))

    def scaled(x: Any, gain: Any, bias: Any, mean: Any, var: Any) -> Any:
        channels = (1, -1, 1, 1)
        scale = lax.rsqrt(var.reshape(channels) + EPSILON) * gain.reshape(channels)
        return (x - mean.reshape(channels)) * scale + bias.reshape(channels)

    return models(
        Library(
            conv=conv,
            max_pool=lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID"),
            normalized=normalized,
            scaled=scaled,
            dense=lambda x, w, b: x @ w + b,
            per_channel=lambda b: b.reshape(1, -1, 1, 1),
            flat=lambda x: x.reshape(x.shape[0], -1),
            tanh=jnp.tanh,
            relu=jax.nn.relu,
            spatial_mean=lambda x: x.mean((2, 3)),
            softmax=jax.nn.softmax,
            cost=rows.jax()["xent"],
        )
    )
