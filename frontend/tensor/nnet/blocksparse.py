"""Products of chosen blocks of a weight tensor with blocks of vectors."""

from __future__ import annotations

from typing import Any

from tcc.elemwise import add, mul
from tcc.reductions import sum as total
from tcc.shapes import dimshuffle
from tcc.variable import as_variable

__all__ = ["sparse_block_dot", "sparse_block_gemv", "sparse_block_outer"]


def sparse_block_gemv(o: Any, W: Any, h: Any, inputIdx: Any, outputIdx: Any) -> Any:
    """o[b, j] + the sum over i of h[b, i] W[inputIdx[b, i], outputIdx[b, j]].

    o [batch, out blocks, out], W [blocks in, blocks out, in, out], h [batch, in blocks, in]; integer indices [batch, blocks].
    IndexError when the function runs for a block that is not there.
    """
    o, w, h, rows, columns = map(as_variable, (o, W, h, inputIdx, outputIdx))
    for name, v, rank in (
        ("o", o, 3),
        ("W", w, 4),
        ("h", h, 3),
        ("inputIdx", rows, 2),
        ("outputIdx", columns, 2),
    ):
        if v.type.ndim != rank:
            raise TypeError(f"sparse_block_gemv: {name} must have {rank} axes, got {v.type}")
    blocks = w[
        dimshuffle(rows, 0, 1, "x"), dimshuffle(columns, 0, "x", 1)
    ]  # [batch, in blocks, out blocks, in, out]
    return add(o, total(mul(dimshuffle(h, 0, 1, "x", 2, "x"), blocks), axis=(1, 3)))


def sparse_block_outer(o: Any, x: Any, y: Any, xIdx: Any, yIdx: Any, alpha: Any = 1) -> Any:
    """o, with `alpha` times the outer product of x[b, i] and y[b, j] added to o[xIdx[b, i], yIdx[b, j]].

    o [blocks in, blocks out, in, out], x [batch, in blocks, in], y [batch, out blocks, out].
    """
    from tcc.indexing import inc_subtensor

    o, x, y, rows, columns = map(as_variable, (o, x, y, xIdx, yIdx))
    product = mul(dimshuffle(x, 0, 1, "x", 2, "x"), dimshuffle(y, 0, "x", 1, "x", 2))
    return inc_subtensor(o[dimshuffle(rows, 0, 1, "x"), dimshuffle(columns, 0, "x", 1)], mul(alpha, product))


def sparse_block_dot(W: Any, h: Any, inputIdx: Any, b: Any, outputIdx: Any) -> Any:
    """b[outputIdx[b, j]] + the sum over i of h[b, i] W[inputIdx[b, i], outputIdx[b, j]]: [batch, out blocks, out].

    h may be one example, without the batch axis that the indices lack then too; the result has one.
    """
    h, rows, columns = as_variable(h), as_variable(inputIdx), as_variable(outputIdx)
    if h.type.ndim == 2:
        h, rows, columns = (dimshuffle(v, "x", *range(v.type.ndim)) for v in (h, rows, columns))
    return sparse_block_gemv(as_variable(b)[columns], W, h, rows, columns)
