"""The batch axes of a matrix product, which its kernel walks as one axis of one stride for each operand."""

from __future__ import annotations

from tcc.ir.dims import Size
from tcc.ir.types import Type


def merged_batch(type: Type) -> tuple[Size, Size] | None:
    """All axes but the last two as one: its size, and the stride that walks it; None if no stride does."""
    count: Size = 1
    stride: Size = 0
    for size, step in reversed(list(zip(type.shape[:-2], type.strides[:-2], strict=True))):
        if size == 1:
            continue
        if count == 1:
            count, stride = size, step
            continue
        if step != count * stride:
            return None
        count = count * size
    return count, stride


def batch_axis(type: Type) -> tuple[Size, Size]:
    """As `merged_batch`, of a place: placement copies what no stride walks."""
    merged = merged_batch(type)
    assert merged is not None, f"placement left batch axes that no stride walks: {type}"
    return merged
