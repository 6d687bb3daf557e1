"""Rows of complex numbers: all but `real`, `imag` and `complex` become operations on parts (passes/parts.py).

The gradient by a complex z = x + iy is dC/dx + i dC/dy, Theano's.  Rules are written for the conjugate of that, for which the
chain rule of holomorphic functions holds as it stands: `grad` conjugates what flows in and what comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tcc.ir.core import Attrs, Block
from tcc.ir.ops.elementwise import unary
from tcc.ir.ops.rules import want_dtype, want_same_dtype, want_shape
from tcc.ir.optable import OpDef, Sample, define
from tcc.ir.types import COMPLEX, COMPLEX_OF, REAL_OF, Type


def _part(
    name: str,
    ref: Callable[..., Any],
    doc: str,
    slope: Callable[[Any, Any, Any], Any],
    linear: bool = True,
    scalar: str = "",
) -> OpDef:
    """A row from complex numbers to real ones."""

    def infer(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
        want_dtype(name, "a", types[0], COMPLEX)
        return [types[0].with_dtype(REAL_OF[types[0].dtype])]

    def rop(b: Any, op: Any, t: Sequence[Any]) -> list[Any]:
        return [None if t[0] is None else getattr(b, name)(t[0])]

    return define(
        OpDef(
            name,
            "a",
            infer,
            ref,
            doc=doc,
            grad=lambda b, op, g: [slope(b, g[0], op.operands[0])],
            rop=rop if linear else None,
            scalar=scalar,
            samples=(Sample(("c64[3,4]",)), Sample(("c128[]",))),
        )
    )


def _angle_slope(b: Any, g: Any, z: Any) -> Any:
    x, y = b.real(z), b.imag(z)
    scaled = b.div(g, b.add(b.sqr(x), b.sqr(y)))
    return b.neg(b.complex(b.mul(scaled, y), b.mul(scaled, x)))


def _modulus_slope(b: Any, g: Any, z: Any) -> Any:
    size = b.modulus(z)
    scaled = b.where(b.eq(size, 0), b.full(0, size), b.div(g, size))
    return b.complex(b.mul(scaled, b.real(z)), b.neg(b.mul(scaled, b.imag(z))))


def complex_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    want_dtype("complex", "a", types[0], frozenset(COMPLEX_OF))
    want_same_dtype("complex", types)
    want_shape("complex", "b", types[1], types[0].shape, "a")
    return [types[0].with_dtype(COMPLEX_OF[types[0].dtype])]


def complex_of(a: Any, b: Any) -> Any:
    whole = np.empty(np.shape(a), np.result_type(a, np.complex64))
    whole.real, whole.imag = a, b
    return whole


def complex_rop(b: Any, op: Any, t: Sequence[Any]) -> list[Any]:
    if t[0] is None and t[1] is None:
        return [None]
    return [b.complex(*(b.full(0, x) if d is None else d for x, d in zip(op.operands, t)))]


unary("conj", "", np.conj, "The complex conjugate.", accepts=COMPLEX, slope=lambda b, g, x, y: b.conj(g))
_part(
    "real",
    lambda a: np.copy(np.real(a)),
    "The real part.",
    lambda b, g, z: b.complex(g, b.full(0, g)),
    scalar="real(a)",
)
_part(
    "imag",
    lambda a: np.copy(np.imag(a)),
    "The imaginary part.",
    lambda b, g, z: b.complex(b.full(0, g), b.neg(g)),
    scalar="imag(a)",
)
_part("angle", np.angle, "The argument, in -pi..pi.", _angle_slope, linear=False)
_part("modulus", np.abs, "The absolute value; its gradient at 0 is 0.", _modulus_slope, linear=False)
define(
    OpDef(
        "complex",
        "a, b",
        complex_type,
        complex_of,
        doc="a + ib.",
        grad=lambda b, op, g: [b.real(g[0]), b.neg(b.imag(g[0]))],
        rop=complex_rop,
        scalar="complex(a, b)",
        samples=(Sample(("f32[3,4]", "f32[3,4]")), Sample(("f64[]", "f64[]"))),
    )
)
