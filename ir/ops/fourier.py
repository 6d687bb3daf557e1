"""Fourier transforms of real arrays, which run on the host.  Complex numbers are pairs along a last axis.

The first axis is a batch; all others are transformed, the last of them to its first half, n // 2 + 1 numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tcc.ir import dims
from tcc.ir.core import Attrs, Block
from tcc.ir.ops.rules import linear, per_operand_element, want_dtype, want_size
from tcc.ir.optable import OpDef, Sample, define
from tcc.ir.types import Type

FLOATS = frozenset({"f32", "f64"})


def spectrum(t: Type) -> Type:
    *outer, n = t.shape
    return t.with_shape(*outer, dims.add(dims.floordiv(n, 2), 1), 2)


def want_signal(row: str, operand: str, t: Type) -> None:
    want_dtype(row, operand, t, FLOATS)
    if t.rank < 2:
        raise TypeError(f"{row}: operand {operand} must be [batch, n, ...], got {t}")


def axes_of(x: Any) -> tuple[int, ...]:
    return tuple(range(1, x.ndim))


def complex_of(pairs: Any) -> Any:
    return pairs[..., 0] + 1j * pairs[..., 1]


def pairs_of(z: Any, dtype: Any) -> Any:
    return np.stack([z.real, z.imag], axis=-1).astype(dtype)


def rfft_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    want_signal("rfft", "x", types[0])
    return [spectrum(types[0])]


def rfft_ref(x: Any) -> Any:
    if 0 in x.shape:
        return np.zeros((*x.shape[:-1], x.shape[-1] // 2 + 1, 2), x.dtype)
    return pairs_of(np.fft.rfftn(x, axes=axes_of(x)), x.dtype)


def adjoint_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    g, x = types
    want_signal("rfft_adjoint", "x", x)
    for axis, (have, want) in enumerate(zip(g.shape, spectrum(x).shape, strict=True)):
        want_size("rfft_adjoint", f"axis {axis} of operand g", have, want)
    return [x]


def adjoint_ref(g: Any, x: Any) -> Any:
    if x.size == 0:
        return np.zeros_like(x)
    n = x.shape[-1]
    k = np.arange(n // 2 + 1)
    half = np.where((k == 0) | (2 * k == n), 1.0, 0.5)
    made = np.fft.irfftn(complex_of(g) * half, x.shape[1:], axes=axes_of(x))
    return (made * np.prod(x.shape[1:])).astype(x.dtype)


def irfft_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    (x,) = types
    want_dtype("irfft", "x", x, FLOATS)
    if x.rank < 3:
        raise TypeError(f"irfft: operand x must be [batch, n, ..., 2], got {x}")
    want_size("irfft", "the last axis of operand x", x.shape[-1], 2)
    *outer, half, _ = x.shape
    n = dims.add(dims.mul(2, dims.sub(half, 1)), int(attrs["odd"]))
    return [x.with_shape(*outer, n)]


def irfft_ref(x: Any, odd: bool) -> Any:
    shape = (*x.shape[1:-2], 2 * (x.shape[-2] - 1) + int(odd))
    if 0 in (len(x), *shape):
        return np.zeros((len(x), *shape), x.dtype)
    z = complex_of(x)
    return np.fft.irfftn(z, shape, axes=axes_of(z)).astype(x.dtype)


def irfft_grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
    """Each number but the first (and, of an even length, the last) stands for its conjugate too."""
    (x,) = op.operands
    rank, shape = b.rank(x), b.shape(x)
    k = b.iota(shape=shape, axis=rank - 2)
    single = b.eq(k, b.full(0, k))
    if not op.attrs["odd"]:
        last = b.sub(b.size_value(b.size(x, rank - 2)), 1)
        single = getattr(b, "or")(single, b.eq(k, b.broadcast(last, shape=shape)))
    count = b.size_value(b.count(op.result, range(1, rank - 1)), dtype=b.dtype(x))
    scaled = b.div(b.rfft(g[0]), b.broadcast(count, shape=shape))
    return [b.where(single, scaled, b.mul(scaled, 2))]


define(
    OpDef(
        "rfft",
        "x",
        rfft_type,
        rfft_ref,
        doc="The discrete Fourier transform over all axes but the first; not scaled.",
        grad=lambda b, op, g: [b.rfft_adjoint(g[0], op.operands[0])],
        rop=linear("rfft"),
        kernel=True,
        host=True,
        flops=per_operand_element(50),
        samples=(Sample(("f64[2,4]",)), Sample(("f32[1,5]",)), Sample(("f64[2,3,4]",))),
    )
)
define(
    OpDef(
        "rfft_adjoint",
        "g, x",
        adjoint_type,
        adjoint_ref,
        doc="The gradient of `rfft` by x, of which only the shape matters.",
        grad=lambda b, op, g: [b.rfft(g[0]), b.full(0, op.operands[1])],
        rop=linear("rfft_adjoint"),
        kernel=True,
        host=True,
        flops=per_operand_element(50),
        samples=(Sample(("f64[2,3,2]", "f64[2,4]")), Sample(("f32[2,3,2,2]", "f32[2,3,3]"))),
    )
)
define(
    OpDef(
        "irfft",
        "x",
        irfft_type,
        irfft_ref,
        {"odd": False},
        doc="The inverse of `rfft`, for an even or odd last size.",
        grad=irfft_grad,
        rop=linear("irfft"),
        kernel=True,
        host=True,
        flops=per_operand_element(50),
        samples=(Sample(("f64[2,3,2]",)), Sample(("f32[1,3,2]",), {"odd": True}), Sample(("f64[2,3,3,2]",))),
    )
)
