"""Sizes of draws from NumPy's states: those of the parameters for -1, and vectors of a wrong length."""

from __future__ import annotations

import numpy as np
import pytest

import tcc
import tcc.tensor as T
from tcc.tensor import raw_random


def test_minus_one_is_the_size_of_the_parameters():
    state, pvals = raw_random.random_state_type(), T.dtensor3("pvals")
    f = tcc.function([state, pvals], raw_random.multinomial(state, n=9, pvals=pvals, size=(1, -1))[1])
    given = np.array([[[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]]])
    made = f(np.random.RandomState(4), given)
    want = np.random.RandomState(4)
    np.testing.assert_array_equal(made, [[want.multinomial(9, p) for p in given[0]]])
    low = T.dvector("low")
    g = tcc.function([state, low], raw_random.uniform(state, (2, -1), low, 3.0)[1])
    bounds = np.array([0.0, 1.0, 2.0])
    np.testing.assert_array_equal(
        g(np.random.RandomState(4), bounds), np.random.RandomState(4).uniform(bounds, 3.0, (2, 3))
    )


def test_minus_one_where_the_parameters_have_no_axis():
    with pytest.raises(ValueError, match="they have none"):
        raw_random.uniform(raw_random.random_state_type(), (-1, 2))


@pytest.mark.parametrize("given", [[4], [2, 3, 1]])
def test_a_size_of_a_wrong_length(given):
    state, size = raw_random.random_state_type(), T.lvector("size")
    f = tcc.function([state, size], raw_random.uniform(state, size, ndim=2)[1])
    assert f(np.random.RandomState(1), [2, 3]).shape == (2, 3)
    with pytest.raises(ValueError, match="size"):
        f(np.random.RandomState(1), given)


def test_gradients_of_whole_numbers_are_compared():
    tcc.verify_grad(lambda x: T.argsort(x), [np.array([3.0, 1.0, 2.0])], rng=np.random.RandomState(2))


def test_a_permutation_of_no_size_is_a_vector():
    state = raw_random.random_state_type()
    for ndim in (1, None):
        assert raw_random.permutation(state, n=4, ndim=ndim)[1].type.ndim == 1
    with pytest.raises(TypeError, match="makes a vector, got ndim=2"):
        raw_random.permutation(state, n=4, ndim=2)
