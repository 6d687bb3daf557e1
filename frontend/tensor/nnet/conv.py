"""The older signature of conv2d."""

from __future__ import annotations

from typing import Any

from tcc.tensor.nnet import abstract_conv


def conv2d(
    input: Any,
    filters: Any,
    image_shape: Any = None,
    filter_shape: Any = None,
    border_mode: Any = "valid",
    subsample: Any = (1, 1),
    **ignored: Any,
) -> Any:
    """As `tcc.tensor.nnet.conv2d`; unrolling arguments are accepted and mean nothing here."""
    return abstract_conv.conv2d(
        input, filters, image_shape, filter_shape, border_mode=border_mode, subsample=subsample
    )


__all__ = ["conv2d"]
