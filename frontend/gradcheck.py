"""Gradients against finite differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tcc.compiling import function
from tcc.gradient import grad
from tcc.types import promote, tensor_type

STEPS = {"bfloat16": 1e-1, "float16": 1e-2, "float32": 3e-4, "float64": 1e-7}  # of the differences
TOLERANCES = {"bfloat16": 2e-1, "float16": 1e-1, "float32": 1e-2, "float64": 1e-4}  # absolute, and relative


class GradientError(Exception):
    """A gradient that differs from finite differences: which argument, where, and by how much."""


class numeric_grad:  # noqa: N801
    """One-sided differences of `f`, a function of arrays that gives a number, at `pt` (an array, or a list of them).

    `gf` has them in the form of `pt`.
    """

    type_eps = STEPS

    def __init__(
        self, f: Callable[..., Any], pt: Any, eps: float | None = None, out_type: str | None = None
    ) -> None:
        points = [np.array(p) for p in (pt if isinstance(pt, list | tuple) else [pt])]
        kind = max((p.dtype.name for p in points), key=STEPS.__getitem__)
        step = STEPS[kind] if eps is None else eps
        found = [_differences(f, points, (), k, step).astype(p.dtype) for k, p in enumerate(points)]
        self.gf: Any = found if isinstance(pt, list | tuple) else found[0]

    @staticmethod
    def abs_rel_err(a: Any, b: Any) -> tuple[Any, Any]:
        """The absolute and the relative errors between two arrays."""
        absolute = np.abs(a - b)
        return absolute, absolute / np.maximum(np.abs(a) + np.abs(b), 1e-8)


def verify_grad(
    fun: Callable[..., Any],
    pt: Sequence[Any],
    n_tests: int = 2,
    rng: Any = None,
    eps: float | None = None,
    out_type: str | None = None,
    abs_tol: float | None = None,
    rel_tol: float | None = None,
    mode: Any = None,
    cast_to_output_type: bool = False,
    no_debug_ref: bool = True,
) -> None:
    """Compares the gradient of `fun`, of float arrays `pt`, with one-sided differences along `n_tests` random projections of
    its result.  GradientError if an element differs by more than both `abs_tol` and `rel_tol`.
    The projected result is a float64, unless `cast_to_output_type`.
    """
    if rng is None:
        raise TypeError(
            "rng should be a valid instance of numpy.random.RandomState. You may want to use theano.tests.unittest_tools."
            "verify_grad instead of theano.gradient.verify_grad."
        )
    points = [np.array(p) for p in pt]
    for k, p in enumerate(points):
        if p.dtype.name not in STEPS:
            raise TypeError(
                f"verify_grad can work only with floating point inputs, but input {k} has dtype {p.dtype}."
            )
    inputs = [tensor_type(p.dtype.name, tuple(1 if s == 1 else None for s in p.shape))() for p in points]
    output = fun(*inputs)
    kind = max((p.dtype.name for p in points), key=STEPS.__getitem__)
    kind = max((kind, out_type or output.type.dtype), key=lambda dtype: STEPS.get(dtype, 0.0))
    eps = STEPS[kind] if eps is None else eps
    abs_tol = TOLERANCES[kind] if abs_tol is None else abs_tol
    rel_tol = TOLERANCES[kind] if rel_tol is None else rel_tol
    projected = output.type.dtype if cast_to_output_type else promote(output.type.dtype, "float64")
    weights = output.type.clone(dtype=projected)()
    cost = (output * weights).sum()
    given = [*inputs, weights]
    options = {
        "mode": mode,
        "on_unused_input": "ignore",
        "allow_input_downcast": True,
        "accept_inplace": True,
    }
    shape = function(inputs, output, **options)(*(p.copy() for p in points)).shape
    run = function(given, cost, **options)

    def value(*arrays: Any) -> Any:
        return run(*(a.copy() for a in arrays))

    slopes = function(given, grad(cost, inputs, disconnected_inputs="ignore"), **options)
    for _ in range(n_tests):
        projection = np.asarray(rng.random(shape) + 0.5, projected)
        made = slopes(*(p.copy() for p in points), projection)  # which may be overwritten
        for k, g in enumerate(made):
            _compare(k, g, _differences(value, points, (projection,), k, eps), abs_tol, rel_tol)


verify_grad.E_grad = GradientError  # type: ignore[attr-defined]  # programs catch it by this name


def _differences(f: Any, points: Sequence[Any], more: Sequence[Any], k: int, eps: float) -> Any:
    base = float(f(*points, *more))
    found = np.zeros(points[k].shape)
    moved = [p.copy() for p in points]
    for at in np.ndindex(found.shape):
        moved[k][at] += eps
        step = float(moved[k][at]) - float(points[k][at])  # as rounding left it
        found[at] = (float(f(*moved, *more)) - base) / step
        moved[k][at] = points[k][at]
    return found


def _compare(k: int, got: Any, want: Any, abs_tol: float, rel_tol: float) -> None:
    absolute, relative = numeric_grad.abs_rel_err(got, want)
    bad = np.minimum(absolute / abs_tol, relative / rel_tol)
    if got.size and not bad.max() <= 1:
        at = np.unravel_index(int(np.argmax(np.where(np.isnan(bad), np.inf, bad))), bad.shape)
        raise GradientError(
            f"the gradient by argument {k} is {got[at]} at {tuple(map(int, at))}, differences give {want[at]} "
            f"(absolute error {absolute[at]:.3g}, relative {relative[at]:.3g}; tolerances {abs_tol}, {rel_tol})"
        )


verify_grad.E_grad = GradientError  # type: ignore[attr-defined]
