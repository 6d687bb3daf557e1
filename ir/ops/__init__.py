"""The rows of the op table, by kind.  Importing this package fills the table."""

from tcc.ir.ops import (
    control,
    conv,
    creation,
    elementwise,
    indexing,
    linalg,
    nn,
    placed,
    pooling,
    reduction,
    shape,
)

__all__ = [
    "control",
    "conv",
    "creation",
    "elementwise",
    "indexing",
    "linalg",
    "nn",
    "placed",
    "pooling",
    "reduction",
    "shape",
]
