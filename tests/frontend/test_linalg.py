"""Linear algebra against NumPy's and SciPy's, and its gradients against differences."""

from __future__ import annotations

import numpy as np
import pytest

import tcc
import tcc.tensor as T
from tcc.tensor import nlinalg, slinalg

RNG = np.random.default_rng(5)
A = RNG.normal(size=(4, 4)) + 2 * np.eye(4)
WIDE, TALL = RNG.normal(size=(3, 5)), RNG.normal(size=(5, 3))
SPD = A @ A.T
BATCH = RNG.normal(size=(2, 3, 3)) + 2 * np.eye(3)
V = RNG.normal(size=4)


def variables(arrays):
    return [T.TensorType(a.dtype.name, (False,) * a.ndim)() for a in arrays]


def run(make, *arrays):
    params = variables(arrays)
    return tcc.function(params, make(*params))(*arrays)


VALUES = {
    "inv": (nlinalg.matrix_inverse, np.linalg.inv, [A]),
    "inv of a batch": (nlinalg.inv, np.linalg.inv, [BATCH]),
    "inv of nothing": (nlinalg.inv, np.linalg.inv, [np.zeros((0, 0))]),
    "det": (nlinalg.det, np.linalg.det, [A]),
    "det of a batch": (nlinalg.det, np.linalg.det, [BATCH]),
    "logdet": (nlinalg.logdet, lambda a: np.linalg.slogdet(a)[1], [A]),
    "pinv": (nlinalg.pinv, np.linalg.pinv, [WIDE]),
    "eigh": (nlinalg.eigh, np.linalg.eigh, [SPD]),
    "eigh U": (lambda x: nlinalg.eigh(x, "U")[0], lambda x: np.linalg.eigh(x, "U")[0], [A]),
    "eig": (nlinalg.eig, np.linalg.eig, [np.triu(A)]),
    "svd": (lambda x: nlinalg.svd(x, False), lambda x: np.linalg.svd(x, False), [TALL]),
    "svd full": (nlinalg.svd, np.linalg.svd, [WIDE]),
    "singular values": (
        lambda x: nlinalg.svd(x, compute_uv=False),
        lambda x: np.linalg.svd(x, compute_uv=False),
        [WIDE],
    ),
    "qr": (nlinalg.qr, np.linalg.qr, [TALL]),
    "qr complete": (
        lambda x: nlinalg.qr(x, "complete"),
        lambda x: np.linalg.qr(x, "complete"),
        [TALL],
    ),
    "qr r": (lambda x: nlinalg.qr(x, "r"), lambda x: np.linalg.qr(x, "r"), [WIDE]),
    "matrix_power": (lambda x: nlinalg.matrix_power(x, 5), lambda x: np.linalg.matrix_power(x, 5), [A]),
    "matrix_power 0": (lambda x: nlinalg.matrix_power(x, 0), lambda x: np.eye(4), [A]),
    "matrix_power -2": (lambda x: nlinalg.matrix_power(x, -2), lambda x: np.linalg.matrix_power(x, -2), [A]),
    "matrix_dot": (nlinalg.matrix_dot, lambda *a: np.linalg.multi_dot(a), [WIDE, TALL, WIDE]),
    "tensorinv": (
        nlinalg.tensorinv,
        np.linalg.tensorinv,
        [(RNG.normal(size=(4, 4)) + 3 * np.eye(4)).reshape(2, 2, 2, 2)],
    ),
    "tensorsolve": (
        nlinalg.tensorsolve,
        np.linalg.tensorsolve,
        [(RNG.normal(size=(4, 4)) + 3 * np.eye(4)).reshape(2, 2, 2, 2), RNG.normal(size=(2, 2))],
    ),
    "lstsq": (nlinalg.lstsq, lambda a, b: np.linalg.lstsq(a, b, rcond=None), [TALL, V[[0, 1, 2, 3, 0]]]),
    "cholesky": (slinalg.cholesky, np.linalg.cholesky, [SPD]),
    "cholesky upper": (
        lambda x: slinalg.cholesky(x, lower=False),
        lambda x: np.linalg.cholesky(x).T,
        [SPD],
    ),
    "solve": (slinalg.solve, np.linalg.solve, [A, TALL[:4]]),
    "solve a vector": (slinalg.solve, np.linalg.solve, [A, V]),
    "solve lower": (
        slinalg.solve_lower_triangular,
        lambda a, b: np.linalg.solve(np.tril(a), b),
        [A, V],
    ),
    "solve upper": (
        slinalg.solve_upper_triangular,
        lambda a, b: np.linalg.solve(np.triu(a), b),
        [A, TALL[:4]],
    ),
    "solve transposed": (
        lambda a, b: slinalg.solve_triangular(a, b, lower=True, trans=1),
        lambda a, b: np.linalg.solve(np.tril(a).T, b),
        [A, V],
    ),
}
for _ord in (None, "fro", "nuc", np.inf, -np.inf, 1, -1, 2, -2):
    VALUES[f"norm {_ord}"] = (
        lambda x, o=_ord: nlinalg.norm(x, o),
        lambda x, o=_ord: np.linalg.norm(x, o),
        [WIDE],
    )
for _ord in (None, np.inf, -np.inf, 0, 1, 2, 3):
    VALUES[f"norm of rows {_ord}"] = (
        lambda x, o=_ord: nlinalg.norm(x, o, axis=1),
        lambda x, o=_ord: np.linalg.norm(x, o, axis=1),
        [WIDE],
    )


@pytest.mark.parametrize("name", VALUES)
def test_numpy_says_the_same(name):
    make, numpys, arrays = VALUES[name]
    made, wanted = run(make, *arrays), numpys(*arrays)
    if not isinstance(made, list | tuple):
        made, wanted = [made], [wanted]
    for got, want in zip(made, wanted, strict=True):
        assert got.shape == np.shape(want)
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 30.0])
def test_expm_is_scipys(scale):
    linalg = pytest.importorskip("scipy.linalg")
    for x in (scale * A, np.zeros((0, 0))):
        np.testing.assert_allclose(run(slinalg.expm, x), linalg.expm(x), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("make", [nlinalg.inv, nlinalg.pinv, slinalg.cholesky, slinalg.expm])
def test_float32_stays_and_integers_become_float64(make):
    assert run(make, SPD.astype(np.float32)).dtype == np.float32
    assert run(make, (4 * np.eye(3)).astype(np.int64)).dtype == np.float64


SLOPES = {
    "inv": nlinalg.inv,
    "det": nlinalg.det,
    "logdet": nlinalg.logdet,
    "pinv": lambda x: nlinalg.pinv(x[:, :3]),
    "eigh": lambda x: nlinalg.eigh(T.dot(x, x.T))[0],
    "eigenvectors": lambda x: T.sqr(nlinalg.eigh(T.dot(x, x.T))[1]),
    "eigh U": lambda x: nlinalg.eigh(x, "U")[0],
    "singular values": lambda x: nlinalg.svd(x[:3], compute_uv=False),
    "nuclear norm": lambda x: nlinalg.norm(x, "nuc"),
    "matrix_power": lambda x: nlinalg.matrix_power(x, 3),
    "cholesky": lambda x: slinalg.cholesky(T.dot(x, x.T)),
    "cholesky upper": lambda x: slinalg.cholesky(T.dot(x, x.T), lower=False),
    "solve": lambda x: slinalg.solve(x, T.sin(x)),
    "solve a vector": lambda x: slinalg.solve(x, x[0]),
    "solve lower": lambda x: slinalg.solve_lower_triangular(x, x[:, :2]),
    "solve upper": lambda x: slinalg.solve_upper_triangular(x, x[1]),
    "expm": slinalg.expm,
}


@pytest.mark.parametrize("name", SLOPES)
def test_gradients_are_what_differences_say(name):
    x = T.matrix("x")
    y = (T.sin(SLOPES[name](x)) * T.arange(1.0, 2.0, 1.0)).sum()
    slope, value = tcc.function([x], T.grad(y, x)), tcc.function([x], y)
    got = slope(A)
    for at in np.ndindex(A.shape):
        step = np.zeros_like(A)
        step[at] = 1e-6
        np.testing.assert_allclose(got[at], (value(A + step) - value(A - step)) / 2e-6, rtol=1e-5, atol=1e-6)


def test_what_cannot_be_is_an_error():
    with pytest.raises(np.linalg.LinAlgError):
        run(nlinalg.inv, np.zeros((2, 2)))
    with pytest.raises(np.linalg.LinAlgError):
        run(slinalg.cholesky, -np.eye(2))
    with pytest.raises(np.linalg.LinAlgError):
        run(slinalg.solve_lower_triangular, np.zeros((2, 2)), np.zeros(2))
    with pytest.raises(np.linalg.LinAlgError, match="complex"):
        run(nlinalg.eig, np.array([[0.0, 1.0], [-1.0, 0.0]]))
    with pytest.raises(ValueError):
        run(nlinalg.inv, WIDE)
    with pytest.raises(TypeError, match="matrix"):
        nlinalg.det(T.vector())


def test_an_inverse_that_is_used_twice_is_computed_once():
    x = T.matrix("x")
    f = tcc.function([x], [nlinalg.inv(x).sum(), nlinalg.inv(x) * 2], mode="FAST_RUN")
    f(A)
    assert [op.name for op in f.optimised().body.walk()].count("lu_solve") == 1


def test_cholesky_gives_nan_where_a_matrix_is_not_positive():
    x = T.dtensor3("x")
    good, bad = np.array([[4.0, 2.0], [2.0, 3.0]]), np.array([[1.0, 2.0], [2.0, 1.0]])
    made = tcc.function([x], slinalg.cholesky(x, on_error="nan"))(np.stack([good, bad]))
    np.testing.assert_allclose(made[0], np.linalg.cholesky(good))
    assert np.isnan(made[1]).all()
    upper = tcc.function([x], slinalg.Cholesky(lower=False, on_error="nan")(x))(np.stack([bad, good]))
    np.testing.assert_allclose(upper[1], np.linalg.cholesky(good).T)
    assert np.isnan(upper[0]).all()
    m = T.dmatrix("m")
    slope = tcc.function([m], T.grad(slinalg.cholesky(m, on_error="nan").sum(), m))
    assert np.isfinite(slope(good)).all()
    assert np.isnan(slope(bad)).all()
    with pytest.raises(ValueError, match="on_error"):
        slinalg.cholesky(m, on_error="zero")


@pytest.mark.parametrize("mode", ["FAST_RUN", "FAST_COMPILE"])
def test_cholesky_takes_nan_for_a_pivot_that_is_not_positive(mode):
    x = T.dtensor3("x")
    fails, gives = (tcc.function([x], slinalg.cholesky(x, on_error=e), mode=mode) for e in ("raise", "nan"))
    both = np.stack([np.eye(2), np.diag([1, np.nan])])
    with pytest.raises(np.linalg.LinAlgError, match="Matrix is not positive definite"):
        fails(both)
    np.testing.assert_array_equal(gives(both), [np.eye(2), np.full((2, 2), np.nan)])


def test_least_squares_take_a_cutoff_that_is_computed():
    a, b, cut = T.dmatrix("a"), T.dvector("b"), T.dscalar("cut")
    left, right = np.array([[1.0, 0.0], [0.0, 1e-3], [0.0, 0.0]]), np.array([1.0, 2.0, 3.0])
    f = tcc.function([a, b, cut], nlinalg.lstsq(a, b, cut))
    for limit, rank in ((1e-2, 1), (1e-6, 2)):
        for made, wanted in zip(
            f(left, right, limit), np.linalg.lstsq(left, right, rcond=limit), strict=True
        ):
            np.testing.assert_allclose(made, wanted)
        assert f(left, right, limit)[2] == rank
    slope = tcc.function([a, b, cut], T.grad(nlinalg.lstsq(a, b, cut)[0].sum(), b))
    np.testing.assert_allclose(slope(left, right, 1e-6), [1.0, 1e3, 0.0])


def test_solve_takes_halves():
    a, b = T.matrix("a", dtype="float16"), T.vector("b", dtype="float16")
    x = slinalg.solve(a, b).eval({a: np.eye(2, dtype="float16") * 2, b: np.ones(2, "float16")})
    assert x.dtype == "float32" and x.tolist() == [0.5, 0.5]


def test_an_error_leaves_what_is_updated_as_it_was():
    x, total = T.dmatrix("x"), tcc.shared(np.zeros((2, 2)))
    updates = [(total, total + 1.0)]
    for make in (
        slinalg.cholesky,
        nlinalg.inv,
        lambda x: slinalg.solve(x, x),
        slinalg.solve_lower_triangular,
    ):
        y = make(x, x[0]) if make is slinalg.solve_lower_triangular else make(x)
        f = tcc.function([x], y.sum(), updates=updates)
        total.set_value(np.zeros((2, 2)))
        f(SPD[:2, :2])
        with pytest.raises(np.linalg.LinAlgError):
            f(np.zeros((2, 2)))
        np.testing.assert_array_equal(total.get_value(), np.ones((2, 2)))


def test_messages_are_those_of_numpy():
    x = T.dmatrix("x")
    for make, words in (
        (slinalg.cholesky, "Matrix is not positive definite"),
        (nlinalg.inv, "Singular matrix"),
        (lambda x: slinalg.solve(x, x), "Singular matrix"),
    ):
        with pytest.raises(np.linalg.LinAlgError, match=words):
            tcc.function([x], make(x))(np.zeros((3, 3)))


def test_messages_tell_the_pivot_and_the_matrix():
    x, b = T.dtensor3("x"), T.dmatrix("b")
    batch = np.stack([np.eye(3), np.eye(3), np.diag([1.0, 0, 1])])
    cases = [
        (x, nlinalg.inv(x), batch, r"Singular matrix \(pivot 2 of matrix number 2\)\nin matrix_inverse"),
        (b, slinalg.solve_upper_triangular(b, b), batch[2], r"Singular matrix \(pivot 2\)\nin solve"),
        (b, slinalg.cholesky(b), -batch[0], r"Matrix is not positive definite \(pivot 1\)\nin cholesky"),
    ]
    for variable, made, value, words in cases:
        f = tcc.function([variable], made, mode="FAST_RUN")
        with pytest.raises(np.linalg.LinAlgError, match=words):
            f(value)


def test_determinants_of_singular_matrices():
    x = T.dmatrix("x")
    f = tcc.function([x], [nlinalg.det(x), *nlinalg.slogdet(x)])
    for a in (np.zeros((2, 2)), np.ones((3, 3)), np.zeros((0, 0)), -np.eye(3), A[:, [1, 0, 2, 3]]):
        wanted = [np.linalg.det(a), *np.linalg.slogdet(a)]
        np.testing.assert_allclose(f(a), wanted, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_determinants_of_pivots_that_overflow_and_vanish_in_part(dtype):
    """As the first ones of 40 do, whatever the order in which they are multiplied."""
    x = T.matrix("x", dtype=dtype)
    f, large = tcc.function([x], nlinalg.det(x)), 1e160 if dtype == "float64" else 1e20
    for first in (large, 1 / large):
        pivots = np.array([-first, *[first] * 19, *[1 / first] * 20], dtype)
        np.testing.assert_allclose(f(np.diag(pivots)), -1, rtol=1e-4 if dtype == "float32" else 1e-12)
    assert f(np.diag([large] * 3).astype(dtype)) == np.inf and f(np.diag([1 / large] * 3).astype(dtype)) == 0
    assert np.isnan(f(np.array([[np.nan, 0], [0, large]], dtype)))


def kalman(steps):
    """The means and the log likelihood of a constant-velocity model, as a scan; `loop` in NumPy."""
    F, H = np.array([[1.0, 0.1], [0.0, 1.0]]), np.array([[1.0, 0.0]])
    Q, R = 0.01 * np.eye(2), 0.1 * np.eye(1)

    def step(y, m, p):
        m, p = T.dot(F, m), T.dot(T.dot(F, p), F.T) + Q
        s = T.dot(T.dot(H, p), H.T) + R
        gain = slinalg.solve(s, T.dot(H, p)).T
        rest = y - T.dot(H, m)
        half = slinalg.solve_lower_triangular(slinalg.cholesky(s), rest)
        ll = -0.5 * T.sum(half**2) - 0.5 * nlinalg.logdet(s)
        return m + T.dot(gain, rest), p - T.dot(T.dot(gain, s), gain.T), ll

    (means, _, ll), _ = tcc.scan(step, steps, [np.zeros(2), np.eye(2), None])

    def loop(ys):
        m, p, made, sum = np.zeros(2), np.eye(2), [], 0.0
        for y in ys:
            m, p = F @ m, F @ p @ F.T + Q
            s = H @ p @ H.T + R
            gain = np.linalg.solve(s, H @ p).T
            rest = y - H @ m
            sum -= 0.5 * rest @ np.linalg.solve(s, rest) + 0.5 * np.linalg.slogdet(s)[1]
            m, p = m + gain @ rest, p - gain @ s @ gain.T
            made.append(m)
        return np.array(made), sum

    return means, ll.sum(), loop


def test_a_kalman_filter_in_a_scan():
    y = T.dmatrix("y")
    means, ll, loop = kalman(y)
    ys = RNG.normal(size=(20, 1)).cumsum(0)
    made, wanted = tcc.function([y], [means, ll])(ys), loop(ys)
    np.testing.assert_allclose(made[0], wanted[0], rtol=1e-10)
    np.testing.assert_allclose(made[1], wanted[1], rtol=1e-10)
    slope, value = tcc.function([y], T.grad(ll, y)), tcc.function([y], ll)
    step = np.zeros_like(ys)
    step[7] = 1e-5
    np.testing.assert_allclose(slope(ys)[7, 0], (value(ys + step) - value(ys - step)) / 2e-5, rtol=1e-6)


@pytest.mark.parametrize("mode", ["FAST_RUN", "FAST_COMPILE"])
def test_a_constant_matrix_without_inverse_is_an_error_only_where_it_is_wanted(mode):
    x = T.dmatrix("x")
    f = tcc.function([x], tcc.ifelse(T.gt(x[0, 0], 0), nlinalg.inv(np.ones((2, 2))), x), mode=mode)
    np.testing.assert_array_equal(f(np.zeros((2, 2))), np.zeros((2, 2)))
    with pytest.raises(np.linalg.LinAlgError, match="Singular matrix(.|\n)*test_linalg.py"):
        f(np.ones((2, 2)))


def test_a_loop_of_no_steps_refuses_no_matrix():
    a, x = T.dmatrices("a", "x")
    chol = slinalg.cholesky(a)
    inverse = nlinalg.matrix_inverse(a) + 1

    def step(row, h):
        return h + row.dot(inverse).sum() + slinalg.solve_lower_triangular(chol, row).sum()

    steps, _ = tcc.scan(step, x, T.zeros(()))
    within, _ = tcc.scan(lambda row: tcc.scan(lambda v: (v + inverse).sum(), row)[0], x)
    f = tcc.function([a, x], [steps, within])
    good, bad, some, none = 2 * np.eye(3), np.zeros((3, 3)), np.ones((2, 3)), np.ones((0, 3))
    for _ in range(2):  # of other lengths: compiled for any
        one = 9 + 1.5 + 3 / np.sqrt(2)
        assert np.allclose(f(good, some)[0], [one, 2 * one]) and f(good, some)[1].shape == (2, 3)
        assert [m.shape for m in f(bad, none)] == [(0,), (0, 3)]
    with pytest.raises(np.linalg.LinAlgError):
        f(bad, some)
    outside = tcc.function(
        [a, x], [steps, inverse]
    )  # what is asked for beside the loop is made whatever the loop does
    with pytest.raises(np.linalg.LinAlgError):
        outside(bad, none)
