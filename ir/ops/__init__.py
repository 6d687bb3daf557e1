"""The rows of the op table, by kind.  Importing this package fills the table."""

from tcc.ir.ops import control, creation, elementwise, indexing, linalg, nn, placed, reduction, shape

__all__ = [
    "control",
    "creation",
    "elementwise",
    "indexing",
    "linalg",
    "nn",
    "placed",
    "reduction",
    "shape",
]
