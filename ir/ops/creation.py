"""Rows that make values from attributes alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tcc.ir.core import Attrs, Block
from tcc.ir.dims import Size
from tcc.ir.ops.rules import want_axis
from tcc.ir.optable import REQUIRED, OpDef, Sample, define
from tcc.ir.types import DTYPES, Type, numpy_dtype


def const_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    value, t = attrs["value"], attrs["type"]
    shape = np.shape(value)
    if shape and shape != t.shape:
        raise TypeError(f"const: the value has the shape {list(shape)}, its type is {t}")
    return [t]


def const_ref(value: Any, type: Type) -> Any:
    array = np.asarray(value, dtype=numpy_dtype(type.dtype))
    return np.full(type.shape, array) if array.ndim == 0 else array


define(
    OpDef(
        "const",
        "",
        const_type,
        const_ref,
        {"value": REQUIRED, "type": REQUIRED},
        doc="A number that fills `type`, or an array.",
        samples=(
            Sample((), {"value": 2.5, "type": Type("f32", (3, 4))}),
            Sample((), {"value": [[1, 2, 3], [4, 5, 6]], "type": Type("i64", (2, 3))}),
            Sample((), {"value": True, "type": Type("bool")}),
        ),
    )
)

define(
    OpDef(
        "size",
        "",
        lambda types, attrs, blocks: [Type("i64")],
        lambda value: np.asarray(value, dtype=np.int64),
        {"value": REQUIRED},
        doc="A size as a number.",
        samples=(Sample((), {"value": 7}),),
    )
)


def want_known_dtype(row: str, dtype: str) -> None:
    if dtype not in DTYPES:
        raise TypeError(f"{row}: no dtype {dtype!r} (there are {', '.join(DTYPES)})")


def iota_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    shape = tuple(attrs["shape"])
    want_known_dtype("iota", attrs["dtype"])
    if shape:  # with no shape, in a fuse body, the axis is one of the iteration space
        want_axis("iota", attrs["axis"], len(shape))
    return [Type(attrs["dtype"], shape)]


def iota_ref(shape: Sequence[int], axis: int, dtype: str) -> Any:
    line = np.arange(shape[axis]).astype(numpy_dtype(dtype))
    return np.broadcast_to(line.reshape([-1] + [1] * (len(shape) - axis - 1)), tuple(shape)).copy()


define(
    OpDef(
        "iota",
        "",
        iota_type,
        iota_ref,
        {"shape": REQUIRED, "axis": 0, "dtype": "i64"},
        doc="Each element's index along `axis`.",
        samples=(
            Sample((), {"shape": (5,)}),
            Sample((), {"shape": (3, 4), "axis": 0, "dtype": "f32"}),
            Sample((), {"shape": (3, 4), "axis": 1, "dtype": "i32"}),
        ),
    )
)


def eye_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    shape: tuple[Size, ...] = tuple(attrs["shape"])
    want_known_dtype("eye", attrs["dtype"])
    if len(shape) != 2:
        raise TypeError(f"eye: needs a shape of two sizes, got {list(shape)}")
    return [Type(attrs["dtype"], shape)]


def eye_expand(b: Any, op: Any) -> list[Any]:
    shape, k, dtype = op.attrs["shape"], op.attrs["k"], op.attrs["dtype"]
    row, column = b.iota(shape=shape, axis=0), b.iota(shape=shape, axis=1)
    if k != 0:
        row = b.add(row, b.broadcast(b.size_value(k), shape=shape))
    return [b.cast(b.eq(row, column), dtype=dtype)]


define(
    OpDef(
        "eye",
        "",
        eye_type,
        lambda shape, k, dtype: np.eye(shape[0], shape[1], k).astype(numpy_dtype(dtype)),
        {"shape": REQUIRED, "k": 0, "dtype": REQUIRED},
        doc="1 where column - row is `k`, else 0.",
        expand=eye_expand,
        samples=(
            Sample((), {"shape": (3, 3), "dtype": "f32"}),
            Sample((), {"shape": (3, 5), "k": 1, "dtype": "i64"}),
            Sample((), {"shape": (4, 3), "k": -2, "dtype": "f64"}),
        ),
    )
)
