"""The rows of the op table, by kind.  Importing this package fills the table."""

from tcc.ir.ops import (
    control,
    conv,
    creation,
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
    "control",
    "conv",
    "creation",
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
