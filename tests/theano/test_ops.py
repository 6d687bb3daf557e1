"""Theano's op classes, each against NumPy, and what their users take from around them."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

import tcc
import tcc.theano
from tcc import gradcheck, gradient
from tcc import tensor as T
from tcc.theano import drawops, indexops, legacy, legacyop, matrixops, netops, ops

tcc.theano.install()
RNG = np.random.RandomState(7)
M = RNG.rand(3, 4)
SQUARE = RNG.rand(4, 4) + 4 * np.eye(4)
IMAGE = RNG.rand(2, 1, 5, 6)
BLOCKS = RNG.rand(1, 1, 5), RNG.rand(3, 2, 4, 5), RNG.rand(1, 2, 4)
SOFT = np.exp(M) / np.exp(M).sum(1, keepdims=True)

VALUES: list[tuple[Any, tuple[Any, ...], Any]] = [
    (ops.DimShuffle((False, False), (1, "x", 0)), (M,), M.T[:, None]),
    (ops.Reshape(1), (M, [12]), M.ravel()),
    (ops.Flatten(1), (M,), M.ravel()),
    (ops.Shape(), (M,), [3, 4]),
    (ops.Shape_i(1), (M,), 4),
    (ops.MakeVector("int64"), (1, 2), [1, 2]),
    (ops.SpecifyShape(), (M, (3, 4)), M),
    (ops.Alloc(), (1.5, 2, 3), np.full((2, 3), 1.5)),
    (ops.AllocEmpty("float32"), (2, 3), np.zeros((2, 3))),
    (ops.ARange("int64"), (1, 7, 2), [1, 3, 5]),
    (ops.Eye("float64"), (2, 3, 1), np.eye(2, 3, 1)),
    (ops.Tri("float64"), (2, 3, 0), np.tri(2, 3)),
    (ops.Tile(2), (M, [2, 1]), np.tile(M, (2, 1))),
    (ops.Join(), (1, M, M), np.concatenate([M, M], 1)),
    (ops.ExtractDiag(1), (M,), np.diag(M, 1)),
    (ops.TopKOp(return_indices=False), (M, 2), np.sort(M)[:, :-3:-1]),
    (ops.TopKOp(0, True, "int32", return_values=False), (M, 2), np.argsort(-M, 0)[:2]),
    (ops.AllocDiag(1), (M[0],), np.diag(M[0], 1)),
    (ops.Sum(axis=1), (M,), M.sum(1)),
    (ops.Mean(0), (M,), M.mean(0)),
    (ops.Prod(axis=[0]), (M,), M.prod(0)),
    (ops.ProdWithoutZeros(), (np.array([2.0, 0.0, 3.0]),), 6.0),
    (ops.AnyOp(0), (M > 0.5,), (M > 0.5).any(0)),
    (ops.AllOp(), (M > 0.5,), (M > 0.5).all()),
    (ops.Argmax(1), (M,), M.argmax(1)),
    (ops.CumOp(axis=1), (M,), M.cumsum(1)),
    (ops.CumOp(mode="mul"), (M,), M.cumprod()),
    (ops.SortOp(), (M, 0), np.sort(M, 0)),
    (ops.ArgSortOp(), (M, -1), np.argsort(M)),
    (
        ops.SearchsortedOp("right"),
        (np.arange(4.0), M[0] * 4),
        np.searchsorted(np.arange(4.0), M[0] * 4, "right"),
    ),
    (ops.DiffOp(n=2), (M,), np.diff(M, 2)),
    (ops.RepeatOp(axis=0), (M, 2), np.repeat(M, 2, 0)),
    (ops.Bartlett(), (5,), np.bartlett(5)),
    (ops.FillDiagonal(), (SQUARE, 0.0), SQUARE * (1 - np.eye(4))),
    (ops.PermuteRowElements(), (M, np.array([3, 0, 1, 2])), M[:, [3, 0, 1, 2]]),
    (ops.CpuContiguous(), (M.T,), M.T),
    (ops.Assert("no"), (M, True), M),
    (matrixops.Dot(), (M, SQUARE), M @ SQUARE),
    (matrixops.MatrixInverse(), (SQUARE,), np.linalg.inv(SQUARE)),
    (matrixops.Det(), (SQUARE,), np.linalg.det(SQUARE)),
    (netops.Softmax(), (M,), SOFT),
    (netops.LogSoftmax(), (M,), np.log(SOFT)),
    (netops.SoftmaxWithBias(), (M, np.zeros(4)), SOFT),
    (netops.Prepend_scalar_constant_to_each_row(2.0), (M,), np.c_[np.full(3, 2.0), M]),
    (netops.Prepend_scalar_to_each_row(), (3.0, M), np.c_[np.full(3, 3.0), M]),
    (
        netops.SparseBlockGemv(),
        (*BLOCKS, [[2, 0]], [[1]]),
        BLOCKS[0] + BLOCKS[2][0, 0] @ BLOCKS[1][2, 1] + BLOCKS[2][0, 1] @ BLOCKS[1][0, 1],
    ),
    (
        netops.SparseBlockOuter(),
        (np.zeros((1, 1, 4, 4)), M[None, :1], M[None, 1:2], [[0]], [[0]]),
        np.outer(M[0], M[1])[None, None],
    ),
    (netops.Images2Neibs("ignore_borders"), (IMAGE, (5, 4)), IMAGE[:, 0, :, :4].reshape(2, 20)),
    (netops.Pool(ignore_border=True), (IMAGE, (2, 2)), IMAGE[:, :, :4].reshape(2, 1, 2, 2, 3, 2).max((3, 5))),
]


@pytest.mark.parametrize(
    ("op", "given", "want"), VALUES, ids=lambda v: str(v) if isinstance(v, legacyop.LegacyOp) else ""
)
def test_value(op: Any, given: tuple[Any, ...], want: Any) -> None:
    given = tuple(np.array(v) if isinstance(v, bool) else v for v in given)
    made = op(*given)
    assert np.allclose(made.eval(), want, rtol=1e-9)
    node = op.make_node(*given)
    assert node.op is op and node.outputs[0].type == made.type
    storage: list[list[Any]] = [[None]]
    op.perform(node, list(given), storage)
    assert np.allclose(storage[0][0], want)
    assert [np.shape(want)] == [
        tuple(int(T.as_tensor_variable(s).eval()) for s in one) for one in op.infer_shape(node, [])
    ]


def test_equal_options_make_equal_ops() -> None:
    assert ops.Sum(axis=[0]) == ops.Sum((0,)) != ops.Sum(1)
    assert hash(ops.CumOp()) == hash(ops.CumOp(None, "add"))
    assert str(ops.CumOp(1)) == "CumOp{axis=1, mode='add'}"
    with pytest.raises(TypeError, match="Sum takes axis"):
        ops.Sum(nope=1)


def test_nodes_tell_their_op_class() -> None:
    x = T.matrix()
    assert isinstance(T.nnet.softmax(x).owner.op, netops.Softmax)
    assert not isinstance(x.sum().owner.op, netops.Softmax)


def test_theanos_least_squares() -> None:
    lstsq = importlib.import_module("theano.tensor.nlinalg").lstsq
    x, y = T.lmatrix("x"), T.lmatrix("y")
    f = tcc.function([x, y], lstsq()(x, y, 1e-9)[:1])
    left, right = np.array([[2, 1], [3, 4]]), np.array([[17, 20], [43, 50]])
    np.testing.assert_allclose(f(left, right)[0], np.linalg.solve(left, right))


def test_no_weights_of_a_choice_may_be_zero() -> None:
    streams = importlib.import_module("theano.tensor.shared_randomstreams").RandomStreams(3)
    made = tcc.function([], streams.choice((11, 8), 10, 1, 0))()
    seed = np.random.RandomState(3).randint(2**30)
    np.testing.assert_array_equal(made, np.random.RandomState(int(seed)).choice(10, (11, 8), True, None))


def test_nodes_of_topk_tell_their_class() -> None:
    x = T.matrix("x")
    f = tcc.function([x], T.topk(x, 1))
    assert any(isinstance(n.op, ops.TopKOp) for n in f.maker.fgraph.apply_nodes)


def test_a_method_of_numpys_generator_as_an_op() -> None:
    raw = importlib.import_module("theano.tensor.raw_random")
    state = raw.random_state_type()
    for fn in ("uniform", np.random.RandomState.uniform):
        op = raw.RandomFunction(fn, T.dvector)
        after, out = op(state, (4,), -2.0, 2.0)
        assert out.type == T.dvector
        f = tcc.function([state], [out, op(after, (4,), 0.0, 1.0)[1]])
        first, second = f(np.random.RandomState(5))
        want = np.random.RandomState(5)
        np.testing.assert_array_equal(first, want.uniform(-2.0, 2.0, 4))
        np.testing.assert_array_equal(second, want.uniform(0.0, 1.0, 4))
    shuffled = raw.RandomFunction("permutation", T.lmatrix, ndim_added=1)(state, (3,), 8)[1]
    want = np.random.RandomState(5)
    np.testing.assert_array_equal(
        tcc.function([state], shuffled)(np.random.RandomState(5)), [want.permutation(8) for _ in range(3)]
    )
    with pytest.raises(TypeError, match="none of"):
        raw.RandomFunction("wald", T.dvector)
    with pytest.raises(ValueError, match="ndim_added"):
        raw.RandomFunction("uniform", T.dvector, ndim_added=1)


def test_gradients_of_an_op() -> None:
    x, y, g = T.matrix(), T.matrix(), T.matrix()
    by_x, by_y = matrixops.Dot().grad([x, y], [g])
    ones = np.ones((3, 4))
    assert np.allclose(by_x.eval({y: SQUARE, g: ones}), ones @ SQUARE.T)
    assert np.allclose(by_y.eval({x: M, g: ones}), M.T @ ones)
    (moved,) = matrixops.Dot().R_op([x, y], [x, y])
    assert np.allclose(moved.eval({x: M, y: SQUARE}), 2 * M @ SQUARE)


@pytest.mark.parametrize("ignore_border", [True, False])
@pytest.mark.parametrize(("window", "stride"), [(2, 2), (3, 2), (2, 3), (1, 3), (5, 1)])
def test_sizes_of_pooling(ignore_border: bool, window: int, stride: int) -> None:
    for n in (5, 6, 7, 11):
        x = np.zeros((1, 1, n, n))
        made = netops.Pool(ignore_border)(x, (window, window), (stride, stride)).eval()
        assert netops.Pool.out_shape(x.shape, (window, window), ignore_border, (stride, stride)) == list(
            made.shape
        )
        free = T.lscalar("n")
        (size,) = netops.Pool.out_shape([free], (window,), ignore_border, (stride,), ndim=1)
        assert size.eval({free: n}) == made.shape[-1]


def test_what_pooling_gives_back() -> None:
    small = IMAGE[:, :, :4]

    def gradient(x: Any) -> Any:
        out = netops.Pool(True)(x, (2, 2))
        return netops.MaxPoolGrad(True)(x, out, T.ones_like(out), (2, 2))

    assert gradient(T.as_tensor_variable(small)).eval().sum() == small.size / 4
    mean = netops.AveragePoolGrad(True)(small, np.ones((2, 1, 2, 3)), (2, 2)).eval()
    assert np.allclose(mean, 0.25)
    second = netops.DownsampleFactorMaxGradGrad(True)(
        small, np.zeros((2, 1, 2, 3)), np.ones_like(small), (2, 2)
    ).eval()
    assert np.allclose(second, 1)


def test_the_fused_cross_entropy() -> None:
    theano = importlib.import_module("theano")
    nll, soft, best = theano.tensor.nnet.crossentropy_softmax_argmax_1hot_with_bias(M, np.zeros(4), [0, 3, 1])
    assert np.allclose(nll.eval(), -np.log(SOFT)[[0, 1, 2], [0, 3, 1]])
    assert np.allclose(soft.eval(), SOFT) and list(best.eval()) == list(M.argmax(1))
    slope = theano.tensor.nnet.crossentropy_softmax_1hot_with_bias_dx(np.ones(3), SOFT, [0, 3, 1]).eval()
    assert np.allclose(slope, SOFT - np.eye(4)[[0, 3, 1]])
    given = theano.tensor.nnet.softmax_grad(M, SOFT).eval()
    assert np.allclose(given, SOFT * (M - (M * SOFT).sum(1, keepdims=True)))


def test_numeric_gradients() -> None:
    found = gradcheck.numeric_grad(lambda x, y: (x * y).sum(), [M, M + 1]).gf
    assert np.allclose(found[0], M + 1, atol=1e-5) and np.allclose(found[1], M, atol=1e-5)
    assert np.allclose(gradcheck.numeric_grad(lambda x: (x**2).sum(), M).gf, 2 * M, atol=1e-5)
    assert gradcheck.verify_grad.E_grad is gradcheck.GradientError  # type: ignore[attr-defined]


def test_flags_of_groups_can_be_changed_for_a_while() -> None:
    with tcc.change_flags([("conv.assert_shape", True), ("floatX", "float32")]):
        assert tcc.config.conv.assert_shape is True and tcc.config.floatX == "float32"
    assert tcc.config.conv.assert_shape is False and tcc.config.floatX == "float64"
    assert tcc.config.cxx == "" and tcc.config.unittests.rseed == "666" and tcc.config.nvcc.flags is None


@pytest.mark.parametrize("border_mode", ["valid", "full"])
@pytest.mark.parametrize("rank", [2, 3])
def test_correlations_and_what_they_give_back(border_mode: str, rank: int) -> None:
    sizes = (5, 6, 4)[:rank]
    img, kern = RNG.rand(2, 3, *sizes), RNG.rand(4, 3, *(2, 3, 2)[:rank])
    plain, by_weights, by_inputs = (
        getattr(netops, ("CorrMM" if rank == 2 else "Corr3dMM") + kind)(border_mode)
        for kind in ("", "_gradWeights", "_gradInputs")
    )
    conv = T.nnet.conv2d if rank == 2 else T.nnet.conv3d
    x, w = (v.astype("float64") for v in (T.as_tensor_variable(img), T.as_tensor_variable(kern)))
    want = conv(x, w, border_mode=border_mode, filter_flip=False)
    assert np.allclose(plain(img, kern).eval(), want.eval())
    top = RNG.rand(*want.eval().shape)
    by_x, by_w = tcc.grad((want * top).sum(), [x, w])
    assert np.allclose(by_weights(img, top).eval(), by_w.eval())
    assert np.allclose(by_inputs(kern, top).eval(), by_x.eval())
    with pytest.raises(TypeError, match="axes is needed"):
        plain(img[0], kern)
    with pytest.raises(ValueError, match="shape must be given"):
        type(by_weights)("half")(img, top)


def test_values_of_a_type_are_compared() -> None:
    kind = T.fvector
    a = np.array([1, np.nan], np.float32)
    assert kind.values_eq(a, a.copy()) and not kind.values_eq(a, a.astype("float64"))
    assert kind.values_eq_approx(a, a * np.float32(1 + 1e-6)) and not kind.values_eq_approx(a, a + 1)
    assert kind.values_eq_approx(a, np.array([1, 2], np.float32), allow_remove_nan=True)
    assert not kind.values_eq_approx(a, a[:1]) and kind.values_eq_approx(np.array([3]), np.array([3]))


def test_gradients_of_float32_are_checked_by_float64_projections() -> None:
    big = (np.arange(300.0).reshape(20, 15) + 100).astype("float32")
    gradcheck.verify_grad(lambda x: x * 2, [big], rng=np.random.RandomState(1))


def test_classes_of_indexing_take_what_theanos_take() -> None:
    x, i = T.dmatrix("x"), T.lvector("i")
    s = T.lscalar("s")
    rows = np.array([2, 0])

    def value(made: Any) -> Any:
        return tcc.function([x, i, s], made, on_unused_input="ignore")(M, rows, 1)

    cut = indexops.Subtensor((slice(T.lscalar, None, None), 2))
    np.testing.assert_array_equal(value(cut(x, s)), M[1:, 2])
    with pytest.raises(ValueError, match="1 indices wanted, got 2"):
        cut(x, s, s)
    want = M.copy()
    want[1:, 2] += 3
    np.testing.assert_array_equal(
        value(indexops.IncSubtensor((slice(T.lscalar, None, None), 2))(x, 3.0, s)), want
    )
    np.testing.assert_array_equal(value(indexops.AdvancedSubtensor1()(x, i)), M[rows])
    want = M.copy()
    want[rows] = 5
    made = indexops.AdvancedIncSubtensor1(set_instead_of_inc=True)(x, T.constant(np.full((2, 4), 5.0)), i)
    np.testing.assert_array_equal(value(made), want)
    assert isinstance(x[i].owner.op, indexops.AdvancedSubtensor1)
    assert isinstance(x[1:].owner.op, indexops.Subtensor)
    assert isinstance(T.inc_subtensor(x[i], 1.0).owner.op, indexops.AdvancedIncSubtensor)
    assert not isinstance(x[i].owner.op, indexops.Elemwise)


def test_elementwise_and_reducing_classes_take_functions_of_scalars() -> None:
    scalar = importlib.import_module("theano.scalar")
    x = T.dmatrix("x")
    np.testing.assert_array_equal(indexops.Elemwise(scalar.add)(x, x).eval({x: M}), 2 * M)
    np.testing.assert_array_equal(indexops.CAReduce(scalar.maximum, axis=0)(x).eval({x: M}), M.max(0))
    np.testing.assert_allclose(indexops.CAReduceDtype(scalar.mul, 1)(x).eval({x: M}), M.prod(1))
    assert isinstance(T.exp(x).owner.op, indexops.Elemwise)
    assert isinstance(x.sum().owner.op, indexops.CAReduce)
    with pytest.raises(NotImplementedError, match="add, mul, maximum"):
        indexops.CAReduce(scalar.sub)(x)
    with pytest.raises(TypeError, match="a function of theano.scalar"):
        indexops.Elemwise(3)(x)


def test_draws_by_given_numbers():
    p, u, n = T.fmatrix(), T.fvector(), T.iscalar()
    counts = tcc.function([p, u], drawops.MultinomialFromUniform("auto")(p, u, 2))
    made = counts(np.float32([[0.2, 0.8], [0.5, 0.5]]), np.float32([0.1, 0.6, 0.9, 0.7]))
    assert made.dtype == "float32" and made.tolist() == [[1, 1], [0, 2]]
    chosen = tcc.function([p, u, n], drawops.ChoiceFromUniform()(p, u, n))
    assert chosen(np.float32([[0.5, 0.5]]), np.float32([0.9, 0.1]), 2).tolist() == [[1, 0]]
    with pytest.raises(ValueError, match="without replacement"):
        chosen(np.float32([[0.5, 0.5]]), np.float32([0.9, 0.1, 0.3]), 3)
    again = tcc.function([p, u], drawops.ChoiceFromUniform(replace=True)(p, u, 2))
    assert again(np.float32([[0.5, 0.5]]), np.float32([0.9, 0.8])).tolist() == [[1, 1]]
    with pytest.raises(NotImplementedError, match="pvals"):
        drawops.MultinomialFromUniform()(u, u)


def test_indexing_by_instances_of_the_ops():
    x, y, i = T.matrix(), T.vector(), T.lvector()
    made = tcc.function(
        [x, y, i],
        [
            indexops.advanced_subtensor1(x, i),
            indexops.advanced_inc_subtensor(x, y, i, i),
            indexops.advanced_set_subtensor(x, y, i, i),
            indexops.advanced_boolean_subtensor(x, x > 0),
        ],
    )(np.eye(2), [5.0, 7], [1, 1])
    assert [m.tolist() for m in made] == [[[0, 1], [0, 1]], [[1, 0], [0, 13]], [[1, 0], [0, 7]], [1, 1]]


def test_the_bound_of_a_spectral_radius():
    x = T.dmatrix()
    m = np.array([[2.0, 1], [1, 2]])
    assert 3 <= legacy.spectral_radius_bound(x, 5).eval({x: m}) < 3.1
    for bad, error in (((T.vector(), 2), TypeError), ((x, 2.0), TypeError), ((x, 0), ValueError)):
        with pytest.raises(error):
            legacy.spectral_radius_bound(*bad)


def test_gradients_that_do_not_exist_are_null() -> None:
    order, x = T.vector("order"), T.vector("x")
    jv = tcc.theano.module("tensor.inplace").jv_inplace
    by_order, by_x = jv.grad([order, x], [T.ones_like(x)])
    assert isinstance(by_order.type, gradient.NullType) and by_x.type == x.type
    with pytest.raises(gradient.NullTypeGradError, match="trigamma has no gradient"):
        tcc.grad(T.tri_gamma(x).sum(), x)
    null = tcc.grad(T.tri_gamma(x).sum(), x, null_gradients="return")
    assert isinstance(null.type, gradient.NullType)


def test_scalar_ops_of_a_program_are_elementwise_functions() -> None:
    scalar, tensor = tcc.theano.module("scalar"), tcc.theano.module("tensor")

    class Rounded(scalar.UnaryScalarOp):
        def impl(self, x: float) -> float:
            return round(x)

        def grad(self, inputs: Any, grads: Any) -> Any:
            return grads

    class Hypot(scalar.BinaryScalarOp):
        def impl(self, x: float, y: float) -> float:
            return (x * x + y * y) ** 0.5

        def grad(self, inputs: Any, grads: Any) -> Any:
            (g,), h = grads, self(*inputs)
            return [g * v / h for v in inputs]

    rounded = tensor.Elemwise(Rounded(scalar.same_out_nocomplex, name="rounded"))
    hypot = tensor.Elemwise(Hypot(scalar.upgrade_to_float))
    x, v, i = T.fmatrix("x"), T.fvector("v"), T.ivector("i")
    f = tcc.function([x, v], [rounded(x), *tcc.grad((rounded(x) ** 2).sum() + hypot(x, v).sum(), [x, v])])
    a, b = np.array([[0.6, 1.2], [-2.7, 0.1]], "f4"), np.array([3, 4], "f4")
    got, by_x, by_v = f(a, b)
    assert got.dtype == "float32" and (got == np.round(a)).all()
    np.testing.assert_allclose(by_x, 2 * np.round(a) + a / np.hypot(a, b), rtol=1e-6)
    np.testing.assert_allclose(by_v, (b / np.hypot(a, b)).sum(0), rtol=1e-6)
    assert hypot(i, v).dtype == "float64" and str(rounded(x).owner.op) == "rounded"
    assert Rounded(scalar.same_out) == Rounded(scalar.same_out) != Rounded(scalar.upcast_out)
    with pytest.raises(TypeError, match="got 1, expected 2"):
        hypot(x)
    with pytest.raises(NotImplementedError, match="define impl"):
        scalar.UnaryScalarOp(scalar.same_out)(x).eval({x: a})


def test_a_view_op_whose_gradient_a_program_turns() -> None:
    class Turned(tcc.theano.module("compile").ViewOp):
        __props__ = ("by",)

        def __init__(self, by: float) -> None:
            self.by = by

        def grad(self, inputs: Any, grads: Any) -> Any:
            return [-self.by * grads[0]]

    x = T.fvector("x")
    y = Turned(0.5)(x)
    value, by_x = tcc.function([x], [y, tcc.grad((3 * y).sum(), x)])(np.ones(2, "f4"))
    assert list(value) == [1, 1] and list(by_x) == [-1.5, -1.5]
    assert y.owner.op == Turned(0.5) != Turned(1.0) and y.owner.op._props() == (0.5,)
    assert str(y) == "Turned{by=0.5}.0"
