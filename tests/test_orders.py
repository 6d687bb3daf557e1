"""Large arrays in other orders of their axes than C's: read where they lie, by code of their own."""

from __future__ import annotations

import numpy as np
import pytest

import tcc
import tcc.tensor as T
from tcc.runtime.callable import MOST_ORDERS, TURNED_BYTES

RNG = np.random.default_rng(0)


def reasons(f):
    return [h.reason for h in f.program.history]


def lying(x, order):
    """Equal to x, with its axes in this order in memory."""
    return np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))


ROWS = {
    "sum": (lambda x: x.sum(), lambda x: x.sum()),
    "sums of columns": (lambda x: x.sum(0), lambda x: x.sum(0)),
    "sums of rows": (lambda x: x.sum(1), lambda x: x.sum(1)),
    "map": (lambda x: x * 2 + 1, lambda x: x * 2 + 1),
    "costly map": (lambda x: T.exp(-abs(x)) + T.tanh(x), lambda x: np.exp(-abs(x)) + np.tanh(x)),
    "standardised": (lambda x: (x - x.mean(0)) / x.std(0), lambda x: (x - x.mean(0)) / x.std(0)),
    "row norms": (
        lambda x: x / T.sqrt((x**2).sum(1, keepdims=True)),
        lambda x: x / np.sqrt((x**2).sum(1, keepdims=True)),
    ),
    "largest": (lambda x: x.argmax(1), lambda x: x.argmax(1)),
    "running sum": (lambda x: x.cumsum(1), lambda x: x.cumsum(1)),
    "itself": (lambda x: x, lambda x: x),
    "reshaped": (lambda x: x.flatten()[5:1000], lambda x: x.ravel()[5:1000]),
    "rows taken": (lambda x: x[np.array([3, 0, 3])], lambda x: x[[3, 0, 3]]),
    "product": (lambda x: T.dot(x.T, x), lambda x: x.T @ x),
}


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("shape", [(301, 300), (40000, 8), (9, 40001)])
def test_fortran_order(name, shape):
    if name == "product" and shape[1] > 1000:
        return
    build, wanted = ROWS[name]
    x = T.fmatrix("x")
    f = tcc.function([x], build(x))
    a = RNG.standard_normal(shape).astype("f")
    got = f(np.asfortranarray(a))
    assert got.flags.c_contiguous
    wide = wanted(a.astype("f8"))
    np.testing.assert_allclose(got, wide, rtol=2e-5, atol=2e-5 * max(1, abs(wide).max()))
    assert "axes of x in the order (1, 0)" in reasons(f)[0] and len(reasons(f)) == 1


@pytest.mark.parametrize("dtype", ["uint8", "bool", "int16", "float16", "int64", "float64", "complex128"])
@pytest.mark.parametrize("order", [(0, 2, 3, 1), (3, 2, 1, 0), (1, 0, 2, 3), (2, 0, 1, 3)])
def test_moved_axes_of_any_dtype(dtype, order):
    a = lying((RNG.standard_normal((9, 33, 21, 50)) * 9).astype(dtype), order)
    x = T.TensorType(dtype, (False,) * 4)("x")
    f = tcc.function([x], [T.switch(T.eq(x, x), x, x), x[::-1, :, 3:]])
    for got, wanted in zip(f(a), (a, a[::-1, :, 3:])):
        np.testing.assert_array_equal(got, wanted)
    assert f"axes of x in the order {order}" in reasons(f)[0]


def test_sizes_that_vary_are_left_to_run_time_in_each_order():
    x, y = T.fmatrix("x"), T.fmatrix("y")
    f = tcc.function([x, y], T.tanh(x + y) - (x * y).sum(1, keepdims=True))
    for n in (400, 401, 420):
        a, b = (RNG.standard_normal((n, 300)).astype("f") for _ in range(2))
        wanted = np.tanh(a + b) - (a.astype("f8") * b).sum(1, keepdims=True)
        for given in ((a, b), (np.asfortranarray(a), b), (np.asfortranarray(a), np.asfortranarray(b))):
            np.testing.assert_allclose(f(*given), wanted, rtol=1e-4, atol=1e-4)
    assert len(reasons(f)) == 6


def test_few_orders_have_code_and_the_rest_is_copied():
    x = T.TensorType("float32", (False,) * 4)("x")
    f = tcc.function([x], x.sum((1, 2, 3)))
    a = RNG.standard_normal((16, 17, 18, 19)).astype("f")
    orders = [(3, 2, 1, 0), (0, 2, 3, 1), (0, 3, 2, 1), (1, 0, 2, 3), (2, 0, 1, 3), (3, 0, 1, 2)]
    for order in orders:
        np.testing.assert_allclose(f(lying(a, order)), a.sum((1, 2, 3)), rtol=1e-4, atol=1e-3)
    assert len(f.turned) == MOST_ORDERS
    f.free()
    np.testing.assert_allclose(f(lying(a, orders[0])), a.sum((1, 2, 3)), rtol=1e-4, atol=1e-3)


big = RNG.standard_normal((400, 401)).astype("f")


@pytest.mark.parametrize(
    "a",
    [
        big[:9, :9].T,
        big[::-1].T,
        big.T[:, ::-1],
        big[:, 3:].T,
        big[::2].T,
        np.broadcast_to(big[0], (300, 401)).T,
        np.lib.stride_tricks.as_strided(big, (300, 300), (4, 1200)),
        np.lib.stride_tricks.as_strided(big, (300, 300), (4, 4)),
        np.lib.stride_tricks.as_strided(big, (300, 300), (4, 8)),
        np.zeros((0, 500), "f", order="F"),
        np.ndarray((401, 400), "f", bytearray(b"\0" + big.tobytes()), 1, (4, 1604)),
        big.T.astype(">f4"),
        np.asfortranarray(big)[:1],
    ],
)
def test_what_is_small_or_not_dense_or_not_aligned_is_copied(a):
    x = T.fmatrix("x")
    f = tcc.function([x], [x + 1, x.max() if a.size else x.sum()])
    mapped, largest = f(a)
    np.testing.assert_array_equal(mapped, a.astype("f") + 1)
    assert largest == (a.max() if a.size else 0)


def test_loops_read_copies():
    x = T.fmatrix("x")
    hs, _ = tcc.scan(lambda row, h: h + row, [x], [T.zeros_like(x[0])])
    f = tcc.function([x], hs[-1])
    a = np.asfortranarray(RNG.integers(0, 9, (300, 301)).astype("f"))
    np.testing.assert_array_equal(f(a), a.sum(0))
    assert reasons(f) == ["first call"]


def test_a_mismatch_names_the_axis_as_written():
    x, y = T.fmatrix("x"), T.fmatrix("y")
    f = tcc.function([x, y], x + y)
    a = np.asfortranarray(big)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"x, axis 1.*401|y, axis 1.*300"):
            f(a, np.zeros((400, 300), "f"))
        f(a, big)


def test_updates_and_shared_values_in_fortran_order():
    w = tcc.shared(np.asfortranarray(big), "w")
    x = T.fmatrix("x")
    f = tcc.function([x], (w * x).sum(0), updates=[(w, w.T[:400, :400].T + x[:, :400])])
    w2 = big
    for _ in range(2):
        got = f(np.asfortranarray(big))
        np.testing.assert_allclose(got, (w2.astype("f8") * big).sum(0), rtol=1e-4, atol=1e-3)
        w2 = w2[:, :400] + big[:, :400]
        np.testing.assert_array_equal(w.get_value(), w2)
        w.set_value(w2 := big)


def test_the_same_bits_for_any_number_of_threads():
    from tcc.runtime import threads

    x = T.dmatrix("x")
    f = tcc.function([x], [x.sum(), x.sum(0), T.nnet.softmax(x), T.exp(x)])
    a = np.asfortranarray(RNG.standard_normal((1000, 700)))
    assert a.nbytes > TURNED_BYTES
    pool, found = threads.pool(), []
    before = pool.limit
    try:
        for count in (1, 2):
            pool.limit = min(count, before)
            found.append([r.tobytes() for r in f(a)])
    finally:
        pool.limit = before
    assert found[0] == found[1]


def test_a_borrowed_view_of_what_is_updated_is_copied():
    start = RNG.uniform(size=(300, 300))
    x, unread = T.matrix(), tcc.shared(start.copy(), borrow=True)
    w = tcc.shared(start.copy(), borrow=True)
    f = tcc.function([x], unread.sum(), updates=[(w, w * 2 + x)])
    for _ in range(2):
        before = w.get_value()
        f(w.get_value(borrow=True).T)
        np.testing.assert_array_equal(w.get_value(), before * 2 + before.T)
    before = w.get_value()
    f(unread.get_value(borrow=True).T)  # which the function only reads
    np.testing.assert_array_equal(w.get_value(), before * 2 + start.T)
