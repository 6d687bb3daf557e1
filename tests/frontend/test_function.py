"""What `tcc.function` takes and gives, and how it refuses."""

from __future__ import annotations

import weakref

import numpy as np
import pytest

import tcc
import tcc.tensor as T

ONES = np.ones((2, 3))


def f_of(x, **kwargs):
    return tcc.function([x], x * 1, **kwargs)


def test_rank_must_match():
    with pytest.raises(TypeError, match=r"Wrong number of dimensions: expected 2, got 1 with shape \(2,\)"):
        f_of(T.matrix())(np.ones(2))


@pytest.mark.parametrize(
    "given, ok", [("int16", True), ("int32", False), ("int64", False), ("float64", False)]
)
def test_arrays_must_not_lose_precision(given, ok):
    f = f_of(T.fvector("x"))
    if ok:
        assert f(np.ones(2, given)).dtype == "float32"
        return
    with pytest.raises(
        TypeError, match=rf"cannot store a value of dtype {given} without risking loss of precision"
    ):
        f(np.ones(2, given))


def test_numbers_and_lists_must_survive_the_round_trip():
    f = f_of(T.fvector("x"))
    assert f([1, 2]).tolist() == [1, 2] and f([1.5]).tolist() == [1.5]
    with pytest.raises(TypeError, match="cannot store accurately value"):
        f([0.1])
    assert f_of(T.fscalar())(np.float64(0.5)) == 0.5
    assert f_of(T.iscalar())(3.0) == 3
    with pytest.raises(TypeError):
        f_of(T.iscalar())(3.5)


def test_a_python_float_always_fits_a_floatX_scalar():
    with tcc.change_flags(floatX="float32"):
        x = T.scalar()
        assert f_of(x)(0.1) == np.float32(0.1)
        with pytest.raises(TypeError):
            f_of(x, allow_input_downcast=False)(0.1)


def test_allow_input_downcast():
    f = f_of(T.fvector(), allow_input_downcast=True)
    assert f(np.array([0.1])).dtype == "float32"
    assert f_of(T.ivector(), allow_input_downcast=True)([1.7]).tolist() == [1]


def test_a_bad_argument_is_named():
    x = T.fmatrix("x")
    f = tcc.function([x], x)
    with pytest.raises(TypeError) as e:
        f(ONES)
    text = str(e.value)
    assert 'Bad input argument x to theano function with name "' in text and "test_function.py:" in text
    assert "at index 0 (0-based)" in text and "Backtrace when that variable is created" in text


def test_inputs_must_be_a_list():
    x = T.scalar()
    with pytest.raises(Exception, match="should be contained in a list, even when there is a single input"):
        tcc.function(x, x)


def test_duplicate_unused_and_missing_inputs():
    x, y = T.scalars("x", "y")
    with pytest.raises(tcc.UnusedInputError):
        tcc.function([x, x], x)
    with pytest.raises(tcc.UnusedInputError, match="on_unused_input='ignore'"):
        tcc.function([x, y], x)
    assert tcc.function([x, y], x, on_unused_input="ignore")(1, 2) == 1
    with pytest.warns(UserWarning, match="not part of the computational graph"):
        tcc.function([x, y], x, on_unused_input="warn")
    with pytest.raises(tcc.MissingInputError) as e:
        tcc.function([x], x + y)
    text = str(e.value)
    assert text.startswith(
        "Input 1 of the graph (indices start from 0), used to compute Elemwise{add,no_inplace}(x, y)"
    )
    assert "was not provided and not given a value" in text and "test_function.py:" in text
    m, v = T.matrix("m"), T.vector("v")
    with pytest.raises(tcc.MissingInputError, match=r"used to compute Elemwise\{add,no_inplace\}\(m, v\)"):
        tcc.function([m], m + v)
    with pytest.raises(tcc.MissingInputError, match=r"used to compute Shape_i\{0\}\(v\)"):
        tcc.function([], v.shape[0])


def test_a_shared_variable_is_no_input():
    w = tcc.shared(1.0)
    with pytest.raises(TypeError, match="shared variable"):
        tcc.function([w], w)


def test_a_missing_argument():
    x, y = T.scalars("x", "y")
    f = tcc.function([x, y], x + y)
    with pytest.raises(TypeError, match="Missing required input: y"):
        f(1)
    with pytest.raises(TypeError):
        f(1, 2, 3)


def test_forms_of_outputs():
    x = T.scalar("x")
    assert type(tcc.function([x], x)(1)) is np.ndarray
    assert tcc.function([x], x)(1).shape == ()
    assert tcc.function([x], [x])(1) == [1]
    assert tcc.function([x], {"a": x, "b": x * 2})(3) == {"a": 3, "b": 6}
    assert tcc.function([x], None, on_unused_input="ignore")(1) == []


def test_keywords_and_defaults():
    x, y = T.scalars("x", "y")
    f = tcc.function([x, tcc.In(y, value=10)], x - y)
    assert f(1) == -9 and f(1, 2) == -1 and f(y=1, x=5) == 4
    g = tcc.function([tcc.In(x, name="other"), y], x - y)
    assert g(other=3, y=1) == 2


def test_outputs_that_are_inputs_or_shared_are_copies():
    x = T.vector("x")
    w = tcc.shared(np.zeros(2))
    f = tcc.function([x], [x, w])
    given = np.ones(2)
    same, held = f(given)
    same += 1
    held += 1
    assert given.tolist() == [1, 1] and w.get_value().tolist() == [0, 0]
    assert tcc.function([x], tcc.Out(x, borrow=True))(given).tolist() == [1, 1]


def test_an_input_in_the_middle_of_a_graph():
    x = T.scalar("x")
    y = x * 2
    assert tcc.function([y], y + 1)(5) == 6


def test_a_size_mismatch_inside_names_the_op_and_the_line():
    x, w = T.matrices("x", "w")
    f = tcc.function([x, w], T.dot(x, w))
    with pytest.raises(ValueError, match=r"dot.*test_function\.py"):
        f(ONES, ONES)


def test_an_index_out_of_range():
    x, i = T.vector("x"), T.lscalar("i")
    f = tcc.function([x, i], x[i])
    assert f([1.0, 2], -1) == 2
    with pytest.raises(IndexError, match="index 2"):
        f([1.0, 2], 2)


def test_variables_behave_like_objects():
    x = T.matrix("x")
    x._keras_shape = (1, 2)
    assert {x: 1}[x] == 1
    assert (x == None) is False and x == x  # noqa: E711
    assert weakref.ref(x)() is x
    x.tag.note = 1
    assert x.tag.note == 1
    with pytest.raises(AttributeError):
        x.nope  # noqa: B018
    assert bool(x) and bool(x + 1)
    with pytest.raises(TypeError, match="Variables do not support boolean operations.*tcc.tensor.switch"):
        bool(x > 0)


def test_what_an_iteration_needs():
    x = T.tensor4("x")
    a, b, c, d = x.shape
    assert tcc.function([x], [a, b, c, d])(np.ones((1, 2, 3, 4))) == [1, 2, 3, 4]
    assert len(list(x.shape[2:])) == 2
    with pytest.raises(TypeError, match="TensorType does not support iteration"):
        iter(x)


def test_modes_are_checked():
    with pytest.raises(ValueError, match="FAST_RUN"):
        tcc.function([], T.constant(1), mode="NOPE")


def test_eval():
    x, y = T.matrices("x", "y")
    z = x + y
    assert z.eval({x: [[1, 2], [1, 3]], y: [[1, 0], [3, 4]]}).tolist() == [[2, 2], [4, 7]]
    assert len(z._fn_cache) == 1
    z.eval({y: ONES, x: ONES})
    assert len(z._fn_cache) == 1
    with pytest.raises(AttributeError, match="keys"):
        z.eval([1])
    with pytest.raises(TypeError):
        z.eval({"x": ONES})


def test_deep_graphs_need_no_recursion():
    x = y = T.scalar("x")
    for _ in range(3000):
        y = y + 1
    assert y.eval({x: 0}) == 3000
    assert tcc.grad(y, x).eval({x: 0}) == 1
    assert len(tcc.printing.debugprint(y, depth=3, file="str").splitlines()) == 5


def test_signature():
    import inspect

    assert list(inspect.signature(tcc.function).parameters)[:5] == [
        "inputs",
        "outputs",
        "mode",
        "updates",
        "givens",
    ]


def test_nothing_has_no_extreme():
    x = T.matrix("x")
    functions = [tcc.function([x], f(x, axis=0)) for f in (T.max, T.min, T.argmax, T.argmin)]
    for f in functions:
        for rows in (2, 3):
            assert f(np.ones((rows, 4))).shape == (4,) and f(np.ones((rows, 0))).shape == (0,)
        with pytest.raises(ValueError, match=r"too few elements along its axes \(.*0 against 1\)"):
            f(np.ones((0, 4)))


def test_a_failed_check_of_sizes_shows_both():
    x = T.matrix("x")
    f = tcc.function([x], x.reshape((x.shape[0] * 2, x.shape[1] // 2)), mode="FAST_RUN")
    text = "total size of new array must be unchanged"
    with pytest.raises(ValueError, match=rf"{text} \(6 against 4\)\nwritten at .*test_function.py:"):
        f(np.ones((2, 3)))
    assert f(np.ones((2, 4))).shape == (4, 2) and f(np.ones((3, 6))).shape == (6, 3)
    with pytest.raises(ValueError, match=rf"{text} \(x_0\*x_1 = 6 against 2\*\(x_1//2\)\*x_0 = 4\)"):
        f(np.ones((2, 3)))


@pytest.mark.parametrize("mode", ["FAST_COMPILE", "FAST_RUN"])
def test_checks_that_fail_for_the_sizes_at_hand(mode):
    x = T.vector("x")
    third = tcc.function([x], x[2], mode=mode)
    square = tcc.function([x], x.reshape((x.shape[0] // 2, 2)), mode=mode)
    assert third([1.0, 2, 3]) == 3 and square([1.0, 2]).tolist() == [[1, 2]]
    for _ in range(2):
        with pytest.raises(IndexError, match="2"):
            third([1.0, 2])
        with pytest.raises(ValueError, match="total size of new array must be unchanged"):
            square([1.0, 2, 3])
    assert third([1.0, 2, 3, 4]) == 3


def test_the_same_in_native_code():
    x, y = T.matrices("x", "y")
    i = T.lscalar("i")
    w = tcc.shared(np.zeros(3), "w")
    f = tcc.function([x, y], [x + y, (x * 2).mean(axis=0), T.dot(x, y.T)], mode="FAST_RUN")
    a = np.arange(6.0).reshape(2, 3)
    for got, want in zip(f(a, a), [a + a, 2 * a.mean(0), a @ a.T]):
        np.testing.assert_allclose(got, want)
    with pytest.raises(ValueError, match=r"test_function\.py"):
        f(a, a[:1])
    g = tcc.function([i], w[i], updates=[(w, w + i)], mode="FAST_RUN")
    assert g(1) == 0 and g(i=2) == 1
    with pytest.raises(IndexError):
        g(3)
    assert w.get_value().tolist() == [3, 3, 3]


def test_host_calls_are_not_taken_from_the_cache():
    for _ in range(2):
        x = T.vector("x")
        assert tcc.function([x], T.sort(x), mode="FAST_RUN")([3.0, 1, 2]).tolist() == [1, 2, 3]


def test_python_suggests_names_that_are_nearly_right() -> None:
    """It does so where an AttributeError says whose attribute was wanted."""
    for module, wrong in ((tcc, "funktion"), (tcc.tensor, "matrixs")):
        with pytest.raises(AttributeError, match=f"has no attribute '{wrong}'") as e:
            getattr(module, wrong)
        assert e.value.name == wrong and e.value.obj is module


@pytest.mark.parametrize("mode", [None, "FAST_COMPILE"])
def test_a_reshape_whose_sizes_wrap_around_64_bits_is_refused(mode):
    x, n, m, i = T.fvector("x"), T.lscalar("n"), T.lscalar("m"), T.lscalar("i")
    f = tcc.function([x, n, m, i], x.reshape((n, m))[1, i], mode=mode)
    data = np.arange(1 << 10, dtype="float32")
    assert f(data, 4, 256, 3) == 259
    for wrong in (
        (1 << 10, (1 << 54) + 1),
        (1 << 62, 4),
        (1 << 32, 1 << 32),
    ):  # the first product is 1 << 10 there
        with pytest.raises(ValueError, match="total size of new array must be unchanged"):
            f(data, *wrong, 1 << 53)


def test_a_shape_whose_numbers_only_running_tells():
    """One size becomes a number when the function is compiled for a call, the other stays a name."""
    x = T.tensor3()
    f = tcc.function([x], T.reshape(x, T.stack([x.shape[0], T.prod(x.shape[1:])]), ndim=2), mode="FAST_RUN")
    for shape in ((1, 4, 3), (2, 4, 3), (1, 1, 1), (1, 0, 3)):
        a = np.random.default_rng(0).normal(size=shape)
        assert np.array_equal(f(a), a.reshape(shape[0], shape[1] * shape[2]))
    n = T.iscalar()
    g = tcc.function([x, n], x.reshape((1, n)), mode="FAST_RUN")
    assert g(np.ones((1, 4, 3)), 12).shape == (1, 12)
    with pytest.raises(ValueError, match=r"total size of new array must be unchanged \(12 against"):
        g(np.ones((1, 4, 3)), 13)
