"""What Theano's own tests, and those of libraries on top of it, take from `theano.tests.unittest_tools`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any
from unittest import SkipTest, TestCase

import numpy as np

from tcc import gradcheck
from tcc.compiling import function
from tcc.theano.legacy import _allclose

__all__ = [
    "InferShapeTester",
    "SkipTest",
    "WrongValue",
    "assert_allclose",
    "attr",
    "fetch_seed",
    "seed_rng",
    "verify_grad",
]

SEED = 666


class WrongValue(AssertionError):
    """A value that is not near the expected one."""


def assert_allclose(expected: Any, value: Any, rtol: float | None = None, atol: float | None = None) -> None:
    """WrongValue unless the arrays, which may broadcast, are as near each other as their dtypes let one expect."""
    if not _allclose(expected, value, rtol, atol):
        raise WrongValue(f"expected\n{expected}\ngot\n{value}\n(rtol {rtol}, atol {atol})")


def fetch_seed(pseed: int | None = None) -> int:
    """The seed that tests draw from: THEANO_FLAGS' `unittests.rseed` has no say here."""
    return int(os.environ.get("TCC_TEST_SEED", SEED if pseed is None else pseed))


def seed_rng(pseed: int | None = None) -> int:
    """Seeds NumPy's own generator, and returns the seed."""
    seed = fetch_seed(pseed)
    np.random.seed(seed)
    return seed


def verify_grad(
    op: Callable[..., Any], pt: Sequence[Any], n_tests: int = 2, rng: Any = None, **options: Any
) -> None:
    """As `tcc.gradcheck.verify_grad`, with a generator of its own if none is given."""
    gradcheck.verify_grad(
        op, pt, n_tests, np.random.RandomState(fetch_seed()) if rng is None else rng, **options
    )


verify_grad.E_grad = gradcheck.GradientError  # type: ignore[attr-defined]


def attr(*_: Any, **__: Any) -> Callable[[Any], Any]:
    """A mark on a test that nothing reads."""
    return lambda test: test


class InferShapeTester(TestCase):
    """Checks that the sizes of results can be had."""

    def _compile_and_check(
        self,
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        numeric_inputs: Sequence[Any],
        cls: Any = None,
        excluding: Any = None,
        warn: bool = True,
        check_topo: bool = True,
    ) -> None:
        values = function(list(inputs), list(outputs), on_unused_input="ignore")(*numeric_inputs)
        shapes = function(list(inputs), [o.shape for o in outputs], on_unused_input="ignore")(*numeric_inputs)
        for value, shape in zip(values, shapes, strict=True):
            assert value.shape == tuple(shape)
