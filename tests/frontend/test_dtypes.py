"""Theano's dtypes (cast_policy "custom"): arrays by NumPy's promotion, Python numbers by value."""

from __future__ import annotations

import numpy as np
import pytest

import tcc
import tcc.tensor as T


def of(dtype: str):
    return T.vector("v", dtype=dtype)


@pytest.mark.parametrize(
    "a, b, result",
    [
        ("int32", "float32", "float64"),
        ("int64", "float32", "float64"),
        ("int16", "float32", "float32"),
        ("int8", "uint8", "int16"),
        ("uint64", "int64", "float64"),
        ("bool", "bool", "bool"),
    ],
)
def test_two_variables_promote_as_arrays(a, b, result):
    assert (of(a) * of(b)).dtype == result


def test_a_size_times_float32_is_float64():
    x = T.fmatrix("x")
    assert (x.shape[0] * x).dtype == "float64"


@pytest.mark.parametrize("number, dtype", [(1, "int8"), (300, "int16"), (70000, "int32"), (2**40, "int64")])
def test_ints_take_the_smallest_signed_dtype(number, dtype):
    assert T.as_tensor_variable(number).dtype == dtype


@pytest.mark.parametrize(
    "x, number, result",
    [
        ("float32", 1, "float32"),
        ("float32", 300, "float32"),
        ("float32", 70000, "float64"),
        ("float16", 300, "float32"),
    ],
)
def test_ints_then_promote(x, number, result):
    assert (of(x) + number).dtype == result


def test_floats_with_floatX_float32_are_float32():
    with tcc.change_flags(floatX="float32"):
        assert T.as_tensor_variable(0.1).dtype == "float32"


def test_floats_with_floatX_float64_are_float32_only_if_exact():
    x = T.fvector("x")
    assert (x * 0.5).dtype == "float32"
    assert (x * 0.1).dtype == "float64"


def test_numpy_scalars_arrays_and_lists_keep_their_dtype():
    x = T.fvector("x")
    assert (np.float64(1) * x).dtype == "float64"
    assert T.as_tensor_variable([1.0, 2.0]).dtype == "float64"
    assert T.as_tensor_variable([1, 2]).dtype == "int64"
    assert T.constant(np.arange(3)).dtype == "int64"


def test_a_bool_is_no_number():
    with pytest.raises(TypeError):
        T.fvector("x") + True
    with pytest.raises(T.AsTensorError):
        T.as_tensor_variable(True)


def test_policy_numpy_floatX():
    with tcc.change_flags(cast_policy="numpy+floatX", floatX="float32"):
        assert T.as_tensor_variable(1).dtype == "int64"
        assert T.as_tensor_variable(0.1).dtype == "float32"


def test_true_division_of_integers_is_floatX():
    with tcc.change_flags(floatX="float32"):
        assert (of("int64") / of("int32")).dtype == "float32"
    assert (of("int32") / of("float32")).dtype == "float64"


def test_floor_division_and_modulo_keep_ints_with_pythons_signs():
    a, b = T.lvector("a"), T.lvector("b")
    assert (a // b).dtype == (a % b).dtype == "int64"
    f = tcc.function([a, b], [a // b, a % b])
    quotient, rest = f([7, -7, 7, -7], [2, 2, -2, -2])
    assert quotient.tolist() == [3, -4, -4, 3]
    assert rest.tolist() == [1, 1, -1, -1]


@pytest.mark.parametrize(
    "dtype, result",
    [
        ("bool", "float32"),
        ("int8", "float32"),
        ("int16", "float32"),
        ("int32", "float64"),
        ("int64", "float64"),
        ("float16", "float16"),
    ],
)
def test_float_functions_of_integers(dtype, result):
    assert T.exp(of(dtype)).dtype == result
    if dtype != "bool":
        assert T.floor(of(dtype)).dtype == result


def test_functions_that_keep_integers():
    x = of("int32")
    assert abs(x).dtype == (-x).dtype == T.sqr(x).dtype == T.sgn(x).dtype == "int32"
    with pytest.raises(TypeError):
        T.round(x)
    with pytest.raises(TypeError):
        T.sgn(of("bool"))


@pytest.mark.parametrize(
    "dtype, result",
    [
        ("int8", "int64"),
        ("bool", "int64"),
        ("uint8", "uint64"),
        ("float32", "float32"),
        ("float16", "float16"),
    ],
)
def test_sums(dtype, result):
    assert T.sum(of(dtype)).dtype == T.prod(of(dtype)).dtype == result


def test_a_sum_of_float32_is_accumulated_in_float64():
    x = np.full(2**20, 0.1, "float32")
    v = T.fvector("v")
    assert v.sum().eval({v: x}) == np.float32(x.sum(dtype="float64"))


def test_means_and_extremes():
    assert T.mean(of("int32")).dtype == T.var(of("int32")).dtype == T.std(of("int32")).dtype == "float64"
    assert T.mean(of("float32")).dtype == T.std(of("float32")).dtype == "float32"
    assert T.max(of("bool")).dtype == "bool"
    assert T.argmax(of("float32")).dtype == "int64"
    assert T.any(of("float32")).dtype == "bool"


def test_comparisons_are_bool():
    x = of("float32")
    assert (x > 0).dtype == T.isnan(x).dtype == T.isinf(x).dtype == "bool"
    assert T.isnan(of("int32")).dtype == "bool"


def test_creation():
    with tcc.change_flags(floatX="float32"):
        assert T.switch(of("bool"), 1, 0).dtype == "int8"
        assert T.arange(3).dtype == T.arange(np.int32(3)).dtype == "int64"
        assert T.arange(3.0).dtype == "float32"
        assert T.zeros((2,)).dtype == T.ones((2,)).dtype == T.eye(2).dtype == "float32"
        assert T.alloc(0, 2).dtype == "int8"


def test_shared_keeps_numpys_dtype():
    with tcc.change_flags(floatX="float32"):
        assert tcc.shared(1).dtype == "int64"
        assert tcc.shared(1.0).dtype == "float64"
        assert tcc.shared(np.float32(3)).dtype == "float32"
    for value in ([1, 2], "abc", None):
        assert not hasattr(tcc.shared(value), "dtype")
        assert tcc.shared(value).get_value() == value


def test_floatX_is_read_when_constructors_run():
    assert T.scalar().dtype == "float64"
    tcc.config.floatX = "float32"
    assert T.scalar().dtype == T.matrix().dtype == "float32"
    assert T.dscalar().dtype == "float64" and T.iscalar().dtype == "int32" and T.lvector().dtype == "int64"
    with pytest.raises(ValueError):
        tcc.config.floatX = "float8"


def test_a_number_is_summed_more_often_than_float16_can_count():
    v, n = T.scalar(dtype="float16"), T.lscalar()
    for made in (T.alloc(v, n), T.fill(T.alloc(v, n), np.float16(1e-4))):
        f = tcc.function([v, n], made.sum(), on_unused_input="ignore")
        for count in (100_000, 70_000, 5):
            assert f(np.float16(1e-4), count) == np.float16(count * float(np.float16(1e-4)))


def test_the_mean_of_halves_is_within_their_range():
    x = T.vector(dtype="float16")
    made = tcc.function([x], [x.mean(), T.mean(x, dtype="float32")])(np.ones(100_000, "float16"))
    assert [m.dtype.name for m in made] == ["float16", "float32"] and made == [1, 1]
