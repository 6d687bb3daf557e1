"""Connectionist temporal classification: a loss for sequences of labels that are not aligned with the input."""

from __future__ import annotations

from typing import Any

from tcc import build
from tcc.elemwise import TO_FLOAT
from tcc.variable import as_variable

__all__ = ["ConnectionistTemporalClassification", "ctc", "ctc_available", "ctc_present"]


def ctc(activations: Any, labels: Any, input_lengths: Any) -> Any:
    """-log of the probability of each sequence of labels, as a vector with an element for each sequence.

    activations: floats [step, sequence, class], before the softmax; class 0 is the blank.  labels: integers [sequence,
    label], each row ending at its first negative number.  input_lengths: how many steps of each sequence count.  The cost
    of labels that fit no path is infinite, with gradient 0.  ValueError when the function runs for labels or lengths out of
    range.
    """
    x, labels, lengths = as_variable(activations), as_variable(labels), as_variable(input_lengths)
    if x.type.ndim != 3:
        raise ValueError(f"activations must have 3 axes: steps, sequences, classes; got {x.type}")
    for name, v, rank in (("labels", labels, 2), ("input_lengths", lengths, 1)):
        if v.type.ndim != rank or v.type.dtype[:3] not in ("int", "uin"):
            raise TypeError(f"ctc: {name} must be integers with {rank} axes, got {v.type}")
    x = build.cast(x, TO_FLOAT.get(x.type.dtype, x.type.dtype))
    return build.node("ctc", x, build.cast(labels, "int64"), build.cast(lengths, "int64")).result


class ConnectionistTemporalClassification:
    """`ConnectionistTemporalClassification()(activations, labels, input_lengths)` is `ctc` of them."""

    def __init__(self, compute_grad: bool = True, openmp: bool | None = None) -> None:
        self.compute_grad = compute_grad

    def __call__(self, activations: Any, labels: Any, input_lengths: Any) -> Any:
        return ctc(activations, labels, input_lengths)


def ctc_present() -> bool:
    """True: tcc computes it itself."""
    return True


ctc_available = ctc_present
