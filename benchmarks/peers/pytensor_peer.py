"""PyTensor, with its default mode."""

from __future__ import annotations

from functools import partial

import pytensor
import pytensor.tensor as pt

from benchmarks.peers import symbolic

pytensor.config.floatX = "float32"
task = partial(symbolic.task, pytensor, pt)


def warm_up() -> None:
    """Imports what the first compilation would import."""
    import pytensor.link.numba.dispatch  # noqa: F401
