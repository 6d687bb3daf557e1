"""Connectionist temporal classification (Graves et al. 2006), in log space, on the host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tcc.ir.core import Attrs, Block
from tcc.ir.ops.rules import want_dtype, want_rank, want_size
from tcc.ir.optable import OpDef, Sample, define
from tcc.ir.types import Type

FLOATS = frozenset({"f32", "f64"})
COUNTS = frozenset({"i32", "i64"})
BLANK = 0


def ctc_type(row: str, types: Sequence[Type]) -> tuple[Type, Type]:
    x, labels, lengths = types
    want_dtype(row, "activations", x, FLOATS)
    want_rank(row, "activations", x, 3)
    for name, t, rank in (("labels", labels, 2), ("lengths", lengths, 1)):
        want_dtype(row, name, t, COUNTS)
        want_rank(row, name, t, rank)
        want_size(row, f"axis 0 of operand {name}", t.shape[0], x.shape[1])
    return x, x.with_shape(x.shape[1])


def checked(x: Any, labels: Any, lengths: Any) -> list[Any]:
    """The labels of each sequence, without what follows the first negative one; ValueError for what is out of range."""
    steps, _, classes = x.shape
    if lengths.size and (lengths.min() < 0 or lengths.max() > steps):
        raise ValueError(f"ctc: input_lengths must be within 0..{steps}, got {lengths.tolist()}")
    ends = [np.append(np.flatnonzero(row < 0), len(row))[0] for row in labels]
    found = [row[:end] for row, end in zip(labels, ends)]
    for row in found:
        if row.size and ((row == BLANK).any() or row.max() >= classes):
            raise ValueError(
                f"ctc: labels must be within 1..{classes - 1} (0 is the blank), got {row.tolist()}"
            )
    return found


def log_softmax(x: Any) -> Any:
    shifted = x - x.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def forward(log: Any, states: Any, skips: Any) -> Any:
    """log of the probability of all beginnings that end in each state, step by step: (steps, states)."""
    alpha = np.full((len(log), len(states)), -np.inf)
    alpha[0, :2] = log[0, states[:2]]
    for t in range(1, len(log)):
        before = alpha[t - 1]
        total = before.copy()
        total[1:] = np.logaddexp(total[1:], before[:-1])
        total[2:] = np.where(skips, np.logaddexp(total[2:], before[:-2]), total[2:])
        alpha[t] = total + log[t, states]
    return alpha


def paths(row: Any) -> tuple[Any, Any]:
    """The states of a label sequence, with blanks around each, and which of them may be reached across a blank."""
    states = np.full(2 * len(row) + 1, BLANK, np.int64)
    states[1::2] = row
    skips = (states[2:] != BLANK) & (states[2:] != states[:-2])
    return states, skips


def total(alpha: Any) -> float:
    """log of the probability of what ends in the last label, or the blank behind it."""
    return float(np.logaddexp.reduce(alpha[-1, -2:]))


def shares(log: Any, row: Any) -> Any:
    """The part of the probability of the labels that goes through each class in each step; None if it is 0."""
    states, skips = paths(row)
    alpha = forward(log, states, skips)
    if not np.isfinite(total(alpha)):
        return None
    # the same from the end, backwards; both contain the step's own probability
    beta = forward(log[::-1], states[::-1], skips[::-1])[::-1, ::-1]
    through = np.zeros_like(log)
    np.add.at(through.T, states, np.exp(alpha + beta - log[:, states] - total(alpha)).T)
    return through


def ctc_ref(x: Any, labels: Any, lengths: Any) -> Any:
    rows = checked(x, labels, lengths)
    costs = np.zeros(x.shape[1])
    for i, (row, n) in enumerate(zip(rows, lengths)):
        log = log_softmax(x[:n, i].astype(np.float64))
        costs[i] = -total(forward(log, *paths(row))) if n else np.inf if len(row) else 0.0
    return costs.astype(x.dtype)


def ctc_slope_ref(x: Any, labels: Any, lengths: Any) -> Any:
    rows = checked(x, labels, lengths)
    slope = np.zeros(x.shape)
    for i, (row, n) in enumerate(zip(rows, lengths)):
        log = log_softmax(x[:n, i].astype(np.float64))
        through = shares(log, row) if n else None
        if through is not None:
            slope[:n, i] = np.exp(log) - through
    return slope.astype(x.dtype)


def cost_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    return [ctc_type("ctc", types)[1]]


def slope_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    return [ctc_type("ctc_slope", types)[0]]


def ctc_grad(b: Any, op: Any, g: Sequence[Any]) -> list[Any]:
    x, labels, lengths = op.operands
    wide = b.broadcast(b.dimshuffle(g[0], order=[-1, 0, -1]), shape=b.shape(x))
    return [b.mul(wide, b.ctc_slope(x, labels, lengths)), None, None]


SAMPLES = tuple(Sample((x, "i32[2,1]", "i32[2]"), low=1.0) for x in ("f64[4,2,3]", "f32[5,2,4]"))
for name, rule, ref, grad, doc in (
    (
        "ctc",
        cost_type,
        ctc_ref,
        ctc_grad,
        "-log of the probability of each sequence of labels (0 is the blank, a negative label ends) given activations "
        "[step, sequence, class] before the softmax, of which the first `lengths` steps count.",
    ),
    ("ctc_slope", slope_type, ctc_slope_ref, None, "The gradient of ctc; 0 where the labels are impossible."),
):
    define(
        OpDef(
            name,
            "activations, labels, lengths",
            rule,
            ref,
            doc=doc,
            grad=grad,
            kernel=True,
            host=True,
            flops=lambda op: op.operands[0].type.size,
            samples=SAMPLES,
        )
    )
