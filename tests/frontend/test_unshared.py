"""Convolutions whose filters differ from place to place."""

import itertools

import numpy as np
import pytest

import tcc
import tcc.tensor as T
from tcc.tensor.nnet.abstract_conv import (
    AbstractConv2d,
    conv2d,
    conv2d_grad_wrt_inputs,
    conv2d_grad_wrt_weights,
)


def reference(x, w, stride, pads, dilation, groups, flip):
    """Place by place, in float64."""
    w = w[..., ::-1, ::-1] if flip else w
    x = np.pad(x.astype(np.float64), ((0, 0), (0, 0), *pads))
    out, rows, columns, each, kr, kc = w.shape
    y = np.zeros((len(x), out, rows, columns))
    for o, i, j in itertools.product(range(out), range(rows), range(columns)):
        first = o // (out // groups) * each
        r, c = i * stride[0], j * stride[1]
        part = x[:, first : first + each]
        part = part[
            :,
            :,
            r : r + (kr - 1) * dilation[0] + 1 : dilation[0],
            c : c + (kc - 1) * dilation[1] + 1 : dilation[1],
        ]
        y[:, o, i, j] = (part * w[o, i, j]).sum(axis=(1, 2, 3))
    return y


CASES = [
    ("valid", ((0, 0), (0, 0)), (1, 1), (1, 1), 1, True),
    ("valid", ((0, 0), (0, 0)), (2, 1), (1, 2), 1, False),
    ("half", ((1, 1), (1, 1)), (1, 1), (1, 1), 2, True),
    ("full", ((2, 2), (2, 2)), (2, 3), (1, 1), 2, True),
    (((1, 0), 2), ((1, 0), (2, 2)), (1, 2), (2, 1), 1, True),
]


def draw(pads, stride, dilation, groups):
    rng = np.random.default_rng(5)
    size = [(n + sum(p) - 2 * d - 1) // s + 1 for n, p, d, s in zip((7, 8), pads, dilation, stride)]
    x = rng.normal(size=(3, 4, 7, 8)).astype(np.float32)
    w = rng.normal(size=(6, *size, 4 // groups, 3, 3)).astype(np.float32)
    return x, w, rng.normal(size=(3, 6, *size)).astype(np.float32)


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
@pytest.mark.parametrize("mode, pads, stride, dilation, groups, flip", CASES)
def test_values_and_gradients(mode, pads, stride, dilation, groups, flip, known):
    a, b, c = draw(pads, stride, dilation, groups)
    x, w, g = T.ftensor4("x"), tcc.shared(b, "w"), T.ftensor4("g")
    shape = b.shape if known else None
    how = {
        "border_mode": mode,
        "subsample": stride,
        "filter_dilation": dilation,
        "num_groups": groups,
        "filter_flip": flip,
        "unshared": True,
    }
    y = conv2d(x, w, filter_shape=shape, **how)
    cost = (y * g).sum()
    by_x, by_w = tcc.grad(cost, [x, w])
    own_x = conv2d_grad_wrt_inputs(g, w, (None, None, 7, 8)[-2:], shape, **how)
    own_w = conv2d_grad_wrt_weights(x, g, b.shape if known else w.shape, **how)
    got, *found = tcc.function([x, g], [y, by_x, by_w, own_x, own_w])(a, c)
    arguments = (stride, pads, dilation, groups, flip)
    np.testing.assert_allclose(got, reference(a, b, *arguments), rtol=1e-4, atol=1e-4)
    # the function is linear in each: its gradient is told by one direction
    u, v = np.random.default_rng(6).normal(size=a.shape), np.random.default_rng(7).normal(size=b.shape)
    for name, direction, given in (("x", u, found[0::2]), ("w", v, found[1::2])):
        moved = reference(*((u, b) if name == "x" else (a, v)), *arguments)
        for made in given:
            np.testing.assert_allclose((made * direction).sum(), (moved * c).sum(), rtol=1e-3)


def test_as_a_class_and_what_is_refused():
    a, b, _ = draw(((0, 0), (0, 0)), (1, 1), (1, 1), 1)
    x, w = T.ftensor4("x"), T.TensorType("float32", (False,) * 6)("w")
    made = AbstractConv2d(kshp=b.shape, unshared=True)(x, w)
    got = tcc.function([x, w], made)(a, b)
    np.testing.assert_allclose(
        got, reference(a, b, (1, 1), ((0, 0), (0, 0)), (1, 1), 1, True), rtol=1e-4, atol=1e-4
    )
    with pytest.raises(TypeError, match="conv2d: unshared filters must have 6 axes"):
        conv2d(x, T.ftensor4(), unshared=True)
