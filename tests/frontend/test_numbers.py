"""Elementwise functions, reductions, shapes and creation against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import tcc
import tcc.tensor as T
from tcc.elemwise import xlogx, xlogy0

A = np.array([[0.3, -0.7, 1.2], [2.5, -1.5, 0.5]])
P = np.abs(A) + 0.1
SMALL = A / 3

UNARY = {
    "exp": (np.exp, A),
    "exp2": (np.exp2, A),
    "expm1": (np.expm1, A),
    "log": (np.log, P),
    "log2": (np.log2, P),
    "log10": (np.log10, P),
    "log1p": (np.log1p, P),
    "sqrt": (np.sqrt, P),
    "sqr": (np.square, A),
    "sin": (np.sin, A),
    "cos": (np.cos, A),
    "tan": (np.tan, A),
    "arcsin": (np.arcsin, SMALL),
    "arccos": (np.arccos, SMALL),
    "arctan": (np.arctan, A),
    "sinh": (np.sinh, A),
    "cosh": (np.cosh, A),
    "tanh": (np.tanh, A),
    "arcsinh": (np.arcsinh, A),
    "arccosh": (np.arccosh, P + 1),
    "arctanh": (np.arctanh, SMALL),
    "floor": (np.floor, A),
    "ceil": (np.ceil, A),
    "trunc": (np.trunc, A),
    "sgn": (np.sign, A),
    "abs_": (np.abs, A),
    "neg": (np.negative, A),
    "inv": (np.reciprocal, A),
    "isnan": (np.isnan, A),
    "isinf": (np.isinf, A),
    "round_half_to_even": (np.rint, A),
    "deg2rad": (np.deg2rad, A),
    "rad2deg": (np.rad2deg, A),
    "identity": (np.copy, A),
}
BINARY = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "true_div": np.divide,
    "int_div": np.floor_divide,
    "mod": np.mod,
    "minimum": np.minimum,
    "maximum": np.maximum,
    "arctan2": np.arctan2,
    "eq": np.equal,
    "neq": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}


@pytest.mark.parametrize("name", UNARY)
def test_unary(name):
    reference, value = UNARY[name]
    x = T.matrix("x")
    np.testing.assert_allclose(getattr(T, name)(x).eval({x: value}), reference(value), rtol=1e-12)


@pytest.mark.parametrize("name", BINARY)
def test_binary(name):
    x, y = T.matrices("x", "y")
    np.testing.assert_allclose(getattr(T, name)(x, y).eval({x: A, y: A[::-1]}), BINARY[name](A, A[::-1]))


def test_operators():
    x, y = T.matrices("x", "y")
    i, j = T.lvector("i"), T.lvector("j")
    made = tcc.function(
        [x, y], [2 + x, 2 - x, 2 * x, 2 / x, 7 // y, 7 % y, 2**x, -x, abs(x), +x, x <= y, 1 > x]
    )
    expected = [2 + A, 2 - A, 2 * A, 2 / A, 7 // P, 7 % P, 2**A, -A, abs(A), A, A <= P, 1 > A]
    for got, want in zip(made(A, P), expected):
        np.testing.assert_allclose(got, want)
    bits = tcc.function([i, j], [i & j, i | j, i ^ j, ~i, 1 & j])([5, 6], [3, 4])
    for got, want in zip(bits, [[1, 4], [7, 6], [6, 2], [-6, -7], [1, 0]]):
        assert got.tolist() == want


def test_numpy_on_the_left():
    x = T.vector("x")
    made = np.ones(2) + x
    assert isinstance(made, T.Variable) and made.eval({x: [1.0, 2.0]}).tolist() == [2, 3]


def test_rounding():
    x = T.vector("x")
    half = [0.5, 1.5, -0.5, 2.4]
    assert T.round(x).eval({x: half}).tolist() == [1, 2, -1, 2]
    assert T.round(x, mode="half_to_even").eval({x: half}).tolist() == [0, 2, 0, 2]
    assert T.iround(x).dtype == "int64"


def test_special_cases():
    x = T.vector("x")
    v = np.array([np.nan, np.inf, -np.inf, 0, 1])
    assert T.isnan(x).eval({x: v}).tolist() == [True, False, False, False, False]
    assert T.isinf(x).eval({x: v}).tolist() == [False, True, True, False, False]
    assert T.isclose(x, x).eval({x: v}).tolist() == [False, True, True, True, True]
    assert T.isclose(x, x, equal_nan=True).eval({x: v}).all()
    assert T.clip(x, 0, 0.5).eval({x: [-1.0, 0.2, 3]}).tolist() == [0, 0.2, 0.5]
    assert T.switch(x, 1, 2).eval({x: [0.0, 3.0]}).tolist() == [2, 1]
    assert T.add(x, x, x).eval({x: [1.0]}).tolist() == [3]


@pytest.mark.parametrize("mode", ["FAST_RUN", "FAST_COMPILE"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "uint8"])
def test_bounds_that_cross(mode, dtype):
    x, low, high = (T.vector(name, dtype=dtype) for name in ("x", "low", "high"))
    f = tcc.function([x, low, high], T.clip(x, low, high), mode=mode)
    a = np.arange(11, dtype=dtype)
    seven, three = np.full(11, 7, dtype), np.full(11, 3, dtype)
    assert f(a, seven, three).tolist() == [7] * 7 + [3] * 4
    assert f(a, three, seven).tolist() == np.clip(np.arange(11), 3, 7).tolist()
    if dtype.startswith("f"):
        g = tcc.function([x, low, high], tcc.grad(T.clip(x, low, high).sum(), [x, low, high]), mode=mode)
        by_x, by_low, by_high = g(np.array([0, 5, 9, np.nan], dtype), seven[:4], three[:4])
        assert [by_x.tolist(), by_low.tolist(), by_high.tolist()] == [[0] * 4, [1, 1, 0, 0], [0, 0, 1, 0]]


def test_book_typos_are_aliases():
    assert T.abs is T.abs_ and T.intdiv is T.int_div and T.truediv is T.true_div and T.one_like is T.ones_like


def test_cast():
    x = T.vector("x")
    assert T.cast(x, "int32").eval({x: [1.9, -1.9]}).tolist() == [1, -1]
    with tcc.change_flags(floatX="float32"):
        assert x.astype("floatX").dtype == "float32"
    with pytest.raises(TypeError):
        x.astype("nope")


@pytest.mark.parametrize("axis", [None, 0, 1, -1, (0, 1), [1]])
@pytest.mark.parametrize("keepdims", [False, True])
def test_reductions(axis, keepdims):
    x = T.matrix("x")
    at = tuple(axis) if isinstance(axis, list) else axis
    names = ["sum", "prod", "mean", "max", "min", "var", "std", "any", "all"]
    made = tcc.function([x], [getattr(T, n)(x, axis=axis, keepdims=keepdims) for n in names])(A)
    for n, got in zip(names, made):
        want = getattr(np, n)(A, axis=at, keepdims=keepdims)
        assert got.shape == np.shape(want), n
        np.testing.assert_allclose(got, want, err_msg=n)


def test_positions_of_extremes():
    x = T.tensor3("x")
    a = np.random.default_rng(0).normal(size=(2, 3, 4))
    for axis in (None, 0, 1, -1):
        assert np.array_equal(T.argmax(x, axis=axis).eval({x: a}), np.argmax(a, axis))
        assert np.array_equal(T.argmin(x, axis=axis).eval({x: a}), np.argmin(a, axis))
    assert np.array_equal(T.argmax(x, axis=(1, 2)).eval({x: a}), a.reshape(2, -1).argmax(1))
    top, where = T.max_and_argmax(x, axis=1)
    assert np.array_equal(top.eval({x: a}), a.max(1)) and np.array_equal(where.eval({x: a}), a.argmax(1))


def test_more_reductions():
    x = T.matrix("x")
    np.testing.assert_allclose(T.ptp(x, axis=0).eval({x: A}), np.ptp(A, 0))
    np.testing.assert_allclose(x.norm(2).eval({x: A}), np.sqrt((A**2).sum()))
    np.testing.assert_allclose(T.var(x, ddof=1).eval({x: A}), A.var(ddof=1))
    np.testing.assert_allclose(T.cumsum(x, axis=1).eval({x: A}), A.cumsum(1))
    np.testing.assert_allclose(T.cumprod(x).eval({x: A}), A.cumprod())
    np.testing.assert_allclose(T.sort(x, axis=0).eval({x: A}), np.sort(A, 0))
    assert np.array_equal(T.argsort(x).eval({x: A}), np.argsort(A))
    np.testing.assert_allclose(x.sum(dtype="float32").eval({x: A}), A.sum(), rtol=1e-6)
    with pytest.raises(ValueError):
        x.sum(axis=2)
    with pytest.raises(ValueError):
        x.sum(axis=(0, 0))


def test_the_shape_of_what_is_declared_whole():
    x = T.TensorType("float32", shape=(5, 19))("x")
    assert x.shape.eval().tolist() == [5, 19]
    assert (T.arange(x.shape[0]) + x.sum(axis=1)).eval({x: np.ones((5, 19), "f4")}).tolist() == [
        19,
        20,
        21,
        22,
        23,
    ]


def test_shapes():
    x = T.tensor3("x")
    a = np.arange(24.0).reshape(2, 3, 4)
    n = T.lscalar("n")
    cases = [
        (x.reshape((4, 6)), a.reshape(4, 6)),
        (x.reshape((x.shape[0], -1)), a.reshape(2, -1)),
        (x.reshape([-1]), a.reshape(-1)),
        (T.reshape(x, T.as_tensor_variable([6, 4])), a.reshape(6, 4)),
        (x.flatten(), a.flatten()),
        (x.flatten(2), a.reshape(2, 12)),
        (x.dimshuffle(2, "x", 0, 1), a.transpose(2, 0, 1)[:, None]),
        (x.T, a.T),
        (x.transpose(0, 2, 1), a.transpose(0, 2, 1)),
        (x.transpose((0, 2, 1)), a.transpose(0, 2, 1)),
        (x.swapaxes(0, 2), a.swapaxes(0, 2)),
        (T.shape_padleft(x, 2), a[None, None]),
        (T.shape_padright(x), a[..., None]),
        (T.shape_padaxis(x, 1), a[:, None]),
        (T.squeeze(x[:, None]), a),
        (T.stack([x, x * 2]), np.stack([a, a * 2])),
        (T.stack(x, x), np.stack([a, a])),
        (T.stack([x, x], axis=-1), np.stack([a, a], -1)),
        (T.concatenate([x, x], axis=1), np.concatenate([a, a], 1)),
        (T.join(-1, x, x), np.concatenate([a, a], -1)),
        (T.stacklists([[x[0, 0, 0], 1.0], [2.0, 3.0]]), np.array([[0, 1], [2, 3.0]])),
        (T.split(x, [1, 3], 2, axis=2)[1], a[:, :, 1:]),
        (T.tile(x, (2, 1, 3)), np.tile(a, (2, 1, 3))),
        (T.tile(x, (2,)), np.tile(a, 2)),
        (T.repeat(x, 2, axis=1), a.repeat(2, 1)),
        (x.repeat(3), a.repeat(3)),
        (T.roll(x, 1, axis=2), np.roll(a, 1, 2)),
        (T.roll(x, -5), np.roll(a, -5)),
        (x.diagonal(1, 1, 2), a.diagonal(1, 1, 2)),
        (x.shape, np.array(a.shape)),
        (x.size, np.array(24)),
        (T.outer(x[0, 0], x[1, 1]), np.outer(a[0, 0], a[1, 1])),
    ]
    made = tcc.function([x], [c[0] for c in cases])(a)
    for k, (got, (_, want)) in enumerate(zip(made, cases)):
        assert got.shape == want.shape and np.allclose(got, want), k
    assert x.reshape((n, 24 // 2)).eval({x: a, n: 2}).shape == (2, 12)
    with pytest.raises(ValueError):
        x.reshape((n, 5)).eval({x: a, n: 2})
    with pytest.raises(ValueError, match=r"Split\{2\}"):
        T.split(x, [1, 2], 2, axis=2)[1].eval({x: a})


@pytest.mark.parametrize("mode", ["FAST_RUN", "FAST_COMPILE"])
@pytest.mark.parametrize("sizes", [[5, -1], [-1, 5], [5, 0], [2, 1]])
def test_split_by_sizes_that_are_wrong(sizes, mode):
    x, s = T.matrix("x"), T.lvector("s")
    f = tcc.function([x, s], T.split(x, s, 2), mode=mode)
    with pytest.raises(ValueError):
        f(np.ones((4, 2)), sizes)
    if -1 in sizes:
        with pytest.raises(ValueError, match="split: sizes must not be negative"):
            T.split(x, sizes, 2)


def test_reshape_by_a_vector_of_unknown_length_needs_ndim():
    x, s = T.vector("x"), T.lvector("s")
    with pytest.raises(ValueError, match="ndim"):
        T.reshape(x, s)
    assert T.reshape(x, s, ndim=2).eval({x: np.arange(6.0), s: [2, 3]}).shape == (2, 3)


def test_creation():
    n = T.lscalar("n")
    x = T.matrix("x")
    cases = [
        (T.zeros((2, n)), np.zeros((2, 3))),
        (T.ones(n), np.ones(3)),
        (T.eye(n), np.eye(3)),
        (T.eye(2, n, 1), np.eye(2, 3, 1)),
        (T.arange(n), np.arange(3)),
        (T.arange(1, n * 4, 2), np.arange(1, 12, 2)),
        (T.arange(n, 0, -1), np.arange(3, 0, -1)),
        (T.arange(5, n), np.arange(5, 3)),
        (T.arange(0.0, 1.0, 0.25), np.arange(0, 1, 0.25)),
        (T.arange(T.cast(n, "float64") / 2), np.arange(1.5)),
        (T.alloc(x[0], n, 3), np.broadcast_to(A[0], (3, 3))),
        (T.fill(x, 2), np.full(A.shape, 2)),
        (T.zeros_like(x), np.zeros_like(A)),
        (T.ones_like(x, dtype="int8"), np.ones(A.shape, "int8")),
        (T.identity_like(x), np.eye(2, 3)),
        (T.full((n,), 7), np.full(3, 7)),
        (T.mgrid[0:2, 0:3][1], np.mgrid[0:2, 0:3][1]),
        (T.ogrid[0:2, 0:3][0], np.ogrid[0:2, 0:3][0]),
        (T.tri(n), np.tri(3)),
        (T.tril(x), np.tril(A)),
        (T.triu(x), np.triu(A)),
    ]
    made = tcc.function([n, x], [c[0] for c in cases])(3, A)
    for k, (got, (_, want)) in enumerate(zip(made, cases)):
        assert got.shape == want.shape and np.array_equal(got, want), k


def test_constructors():
    assert [v.name for v in T.matrices("x", "y")] == ["x", "y"]
    assert [v.type for v in T.imatrices(2)] == [T.imatrix().type] * 2
    assert T.tensor3s(2)[1].ndim == 3 and T.vectors("a", "b")[0].ndim == 1
    assert T.tensor("float32", (True, False)).type == T.frow().type
    assert T.matrix("x", shape=(None, 784)).type.shape == (None, 784)
    assert T.scalar("s", dtype="uint8").dtype == "uint8"
    with pytest.raises(AttributeError):
        T.nope  # noqa: B018


def test_x_log_x_is_nothing_at_nothing() -> None:
    x, y = T.dvectors("x", "y")
    f = tcc.function([x, y], [xlogx(x), xlogy0(x, y)])
    a, b = f([0.0, 1.0, 2.0], [0.0, 3.0, 4.0])
    np.testing.assert_allclose(a, [0, 0, 2 * np.log(2)])
    np.testing.assert_allclose(b, [0, np.log(3), 2 * np.log(4)])


@pytest.mark.parametrize("rank, ndim", [(1, 1), (1, 3), (2, 2), (3, 3)])
def test_tile_by_a_vector(rank, ndim) -> None:
    x, reps = T.tensor("float64", (False,) * rank), T.ivector("reps")
    a = np.arange(2.0 * 3**rank).reshape(*[3] * (rank - 1), 6)
    f = tcc.function([x, reps], T.tile(x, reps, ndim))
    for many in ([], [2], [2, 3], [3, 1, 2])[: ndim + 1]:
        wanted = [1] * (ndim - len(many)) + many
        np.testing.assert_array_equal(f(a, np.array(many, "int32")), np.tile(a, wanted))
    with pytest.raises(AssertionError, match="tile: reps has more than"):
        f(a, [2] * (ndim + 1))


NEGATIVE = {
    "concatenate": lambda x, n: T.concatenate([T.zeros((2 - n,)), x]),
    "matrix": lambda x, n: T.concatenate([T.zeros((2 - n, 3)), T.ones((n, 3))]),
    "sum": lambda x, n: T.alloc(x.sum(), 2 - n).sum(),
    "reshape": lambda x, n: T.zeros((4,)).reshape((2 - n, 2 - n)),
    "eye": lambda x, n: T.eye(2 - n).sum(),
    "repeat": lambda x, n: T.concatenate([T.repeat(x, 2 - n), x, x, x]),
    "scan": lambda x, n: tcc.scan(lambda a: T.concatenate([T.zeros((2 - n,)) + a, x]), x)[0],
    "invariant": lambda x, n: tcc.scan(
        lambda a: a * T.concatenate([T.exp(x[: 2 - n]), T.zeros((2 - n,)), x])[0], x
    )[0],
    "steps": lambda x, n: T.concatenate(
        [tcc.scan(lambda a: a * 2, outputs_info=x, n_steps=2 - n)[0].flatten(), x, x]
    ),
    "behind work": lambda x, n: T.concatenate(
        [T.sort(T.exp(T.outer(x, x)), 0)[0], T.zeros((2 - n,)), T.sort(x)]
    ),
}


@pytest.mark.parametrize("mode", ["FAST_RUN", "FAST_COMPILE"])
@pytest.mark.parametrize("name", NEGATIVE)
def test_sizes_that_come_out_below_zero(name, mode) -> None:
    """Natively, for sizes that are known and for those that are not."""
    x = T.dvector("x")
    f = tcc.function([x], NEGATIVE[name](x, x.shape[0]), mode=mode)
    f([1.0] if name != "reshape" else [])
    for _ in range(2):
        with pytest.raises(ValueError):
            f([1.0, 2.0, 3.0, 4.0])
    with pytest.raises(ValueError):
        tcc.function([x], NEGATIVE[name](x, x.shape[0]), mode=mode)([1.0, 2.0, 3.0, 4.0])


def test_repetitions_are_put_together_with_others() -> None:
    x = T.dvector("x")
    f = tcc.function([x], T.concatenate([T.repeat(x, 2), x, T.tile(x, (3,))]), mode="FAST_RUN")
    for n in (1, 2, 3):
        a = np.arange(n) + 1.0
        np.testing.assert_array_equal(f(a), np.concatenate([np.repeat(a, 2), a, np.tile(a, 3)]))


def test_a_result_is_also_put_together_reshaped() -> None:
    """It is made in one output, so that the other has to be copied."""
    x, y = T.dmatrices("xy")
    e = T.exp(x)
    f = tcc.function([x, y], [e, T.concatenate([e.reshape((1, e.size)), y], axis=1)], mode="FAST_RUN")
    for k in range(3):
        a, b = np.arange(6.0).reshape(2, 3) - k, np.full((1, 4), k)
        made, together = f(a, b)
        np.testing.assert_allclose(made, np.exp(a))
        np.testing.assert_array_equal(together, np.concatenate([made.reshape(1, 6), b], axis=1))


def test_what_is_put_together_is_read_again() -> None:
    """Its memory is nobody else's while it is a part of what is read, or has parts that are."""
    x = T.dmatrix("x")
    y = T.dot(x, x)
    z = T.tanh(y)
    whole = T.concatenate([y, x[:0]])
    rows = T.concatenate([y, x]).reshape((4, 8))
    most = T.tanh(T.concatenate([rows, T.dot(x, rows)]))
    outputs = [T.dot(whole, T.dot(z, z)), T.dot(y, T.dot(most, most)[:4, :4])]
    a = np.arange(16.0).reshape(4, 4) % 5 / 8
    b = a @ a
    r = np.concatenate([b, a]).reshape(4, 8)
    m = np.tanh(np.concatenate([r, a @ r]))
    expected = [b @ (np.tanh(b) @ np.tanh(b)), b @ (m @ m)[:4, :4]]
    for made, wanted in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(tcc.function([x], made, mode="FAST_RUN")(a), wanted)


def test_a_result_is_another_shape_of_what_is_updated_in_place() -> None:
    x, s = T.dmatrix("x"), tcc.shared(np.eye(3))
    made = s * 2 + x
    f = tcc.function([x], [made.flatten(), made.dimshuffle(0, "x", 1)], updates=[(s, made)], mode="FAST_RUN")
    for wanted in (2 * np.eye(3) + 1, 4 * np.eye(3) + 3):
        flat, spread = f(np.ones((3, 3)))
        np.testing.assert_array_equal(flat, wanted.ravel())
        np.testing.assert_array_equal(spread, wanted[:, None])
        np.testing.assert_array_equal(s.get_value(), wanted)


def test_what_is_put_together_within_rows_that_lie_apart() -> None:
    """What Python makes is dense."""
    x = T.dmatrix("x")
    tall = T.concatenate([T.nlinalg.matrix_inverse(x), T.tanh(x)])
    f = tcc.function([x], T.concatenate([T.exp(T.concatenate([x, x])), tall], axis=1), mode="FAST_RUN")
    a = np.eye(3) * 4 + np.arange(9.0).reshape(3, 3) / 4
    right = np.concatenate([np.linalg.inv(a), np.tanh(a)])
    wanted = np.concatenate([np.exp(np.concatenate([a, a])), right], axis=1)
    np.testing.assert_allclose(f(a), wanted, atol=1e-14)


def test_a_result_is_another_shape_of_what_has_its_sizes_late() -> None:
    x, c = T.dmatrix("x"), T.lscalar("c")
    either = tcc.ifelse(c > 0, T.exp(x), T.tanh(x.reshape((2, 8))))
    f = tcc.function([x, c], T.sort(either, axis=None).reshape((1, 16)), mode="FAST_RUN")
    g = tcc.function(
        [x, c], T.cos(T.dot(either, either.T).T[:2, :2] + either[:2, :2]).flatten(), mode="FAST_RUN"
    )
    h = tcc.function([x, c], either.reshape((1, 16)), mode="FAST_RUN")
    a = np.arange(16.0).reshape(4, 4) / 16
    for number, made in ((1, np.exp(a)), (0, np.tanh(a).reshape(2, 8))):
        np.testing.assert_allclose(f(a, number), np.sort(made, axis=None).reshape(1, 16))
        np.testing.assert_allclose(h(a, number), made.reshape(1, 16))
        np.testing.assert_allclose(g(a, number), np.cos((made @ made.T).T[:2, :2] + made[:2, :2]).ravel())


def test_lengths_of_shape_vectors() -> None:
    v, m = T.dvector("v"), T.dmatrix("m")
    assert len(tuple(v.shape)) == 1 and len(tuple(T.concatenate([v.shape, m.shape]))) == 3
    reps = T.concatenate([[1], m.shape[1:]])
    wide = T.tile(v.dimshuffle(0, "x"), reps, ndim=2)
    np.testing.assert_array_equal(wide.eval({v: [1.0, 2.0], m: np.zeros((5, 3))}), [[1] * 3, [2] * 3])


def test_more_equal_numbers_than_64_bits_count_are_summed() -> None:
    n, m, x = T.lscalar("n"), T.lscalar("m"), T.fvector("x")
    ones = [T.ones((n, m), dtype).sum() for dtype in ("float64", "float32")]
    f = tcc.function([n, m, x], [*ones, (T.ones((n, 1), "float64") * x).sum()], mode="FAST_RUN")
    for sizes in ((3, 4), (2**32, 2**31), (2**33, 2**33), (2**62, 2)):
        wanted = float(sizes[0]) * sizes[1]
        assert [float(v) for v in f(*sizes, np.ones(4, "f4"))] == [wanted, wanted, 4.0 * sizes[0]]
