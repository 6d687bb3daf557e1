"""The rows of the op table, by kind.  Importing this package fills the table."""

from tcc.ir.ops import (
    bessel,
    control,
    conv,
    creation,
    ctc,
    elementwise,
    fourier,
    indexing,
    lapack,
    linalg,
    nn,
    placed,
    pooling,
    random,
    reduction,
    shape,
)

__all__ = [
    "bessel",
    "control",
    "conv",
    "creation",
    "ctc",
    "elementwise",
    "fourier",
    "indexing",
    "lapack",
    "linalg",
    "nn",
    "placed",
    "pooling",
    "random",
    "reduction",
    "shape",
]
