"""Gradients: types, disconnection, kinks, and agreement with differences."""

from __future__ import annotations

import numpy as np
import pytest

import tcc
import tcc.tensor as T
from tcc.gradient import DisconnectedInputError, disconnected_grad, grad_clip, grad_scale, jacobian, zero_grad

RNG = np.random.default_rng(1)


def differences(f, x, step=1e-6):
    out = np.zeros_like(x)
    for k in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[k] += step
        down[k] -= step
        out[k] = (f(up) - f(down)) / (2 * step)
    return out


def at(expression, x, value):
    """d sum(expression) / dx at a value."""
    return tcc.grad(expression.sum(), x).eval({x: value}).tolist()


def test_the_cost_is_a_scalar():
    x = T.vector("x")
    with pytest.raises(TypeError, match="cost must be a scalar.*mean"):
        tcc.grad(x * 2, x)


def test_the_form_of_wrt_is_the_form_of_the_result():
    x, y = T.scalars("x", "y")
    z = x * y
    assert type(tcc.grad(z, [x, y])) is list and type(tcc.grad(z, (x, y))) is tuple
    assert isinstance(tcc.grad(z, x), T.Variable)


def test_dtype_and_flags_are_those_of_wrt():
    x, row = T.fmatrix("x"), T.row("row", dtype="float32")
    gx, grow = tcc.grad((x * row * np.float64(2)).sum(), [x, row])
    assert gx.type == x.type and grow.type == row.type


def test_by_integers_the_gradient_is_of_floats():
    x, i = T.fvector("x"), T.ivector("i")
    g = tcc.grad((x * i).sum(), i)
    assert g.dtype == "float64"
    assert g.eval(
        {x: np.array([2, 3], "float32"), i: [1, 1]},
    ).tolist() == [2, 3]
    g = tcc.grad((i * 2).sum().astype("float32"), i)
    assert g.dtype == tcc.config.floatX and g.eval({i: [1, 2]}).tolist() == [0, 0]


def test_disconnected_inputs():
    x, y = T.vectors("x", "y")
    with pytest.raises(DisconnectedInputError, match="y.*disconnected_inputs='ignore'"):
        tcc.grad(x.sum(), y)
    assert tcc.grad(x.sum(), y, disconnected_inputs="ignore").eval({y: [1.0, 2]}).tolist() == [0, 0]
    with pytest.warns(UserWarning):
        tcc.grad(x.sum(), y, disconnected_inputs="warn")
    assert tcc.grad(x.sum(), y, disconnected_inputs="ignore", return_disconnected="None") is None
    with pytest.raises(ValueError):
        tcc.grad(x.sum(), y, disconnected_inputs="nope")


def test_shapes_and_indices_are_disconnected():
    x, i = T.vector("x"), T.lscalar("i")
    with pytest.raises(DisconnectedInputError):
        tcc.grad((x.shape[0] * 2.0).sum(), x)
    with pytest.raises(DisconnectedInputError):
        tcc.grad(x[i], i)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: (x > 0) * 1.0,
        lambda x: T.argmax(x) * 1.0,
        T.round,
        T.floor,
        T.ceil,
        T.sgn,
        lambda x: x.astype("int32") * 1.0,
    ],
)
def test_steps_have_a_gradient_of_zero(f):
    x = T.vector("x")
    assert at(f(x), x, [0.3, 1.2]) == [0, 0]


def test_consider_constant():
    x = T.vector("x")
    y = x * x
    assert tcc.grad((y * x).sum(), x, consider_constant=[y]).eval({x: [3.0]}).tolist() == [9]
    with pytest.raises(DisconnectedInputError):
        tcc.grad(y.sum(), x, consider_constant=[y])


def test_known_grads():
    x = T.vector("x")
    z = x * x
    assert tcc.grad(None, x, known_grads={z: T.constant([1.0, 10.0])}).eval({x: [1.0, 2.0]}).tolist() == [
        2,
        40,
    ]


def test_Lop():
    W, v = T.matrix("W"), T.vector("v")
    x = T.vector("x")
    y = T.dot(x, W)
    made = tcc.Lop(y, W, v)
    f = tcc.function([W, v, x], made, on_unused_input="ignore")
    assert f(np.zeros((2, 2)), [3.0, 4.0], [1.0, 2.0]).tolist() == [[3, 4], [6, 8]]


def test_changed_gradients():
    x = T.vector("x")
    with pytest.raises(DisconnectedInputError):
        tcc.grad(disconnected_grad(x).sum(), x)
    assert at(disconnected_grad(x) * x, x, [3.0]) == [3]
    assert at(zero_grad(x) * 2, x, [3.0]) == [0]
    assert at(grad_clip(x, -1, 1) * 5, x, [3.0]) == [1]
    assert at(grad_scale(x, 2) * 5, x, [3.0]) == [10]


@pytest.mark.parametrize(
    "f, value, slope",
    [
        (T.nnet.relu, [0.0, -1, 2], [0.5, 0, 1]),
        (lambda x: T.nnet.relu(x, 0.5), [0.0, -1, 2], [0.75, 0.5, 1]),
        (abs, [0.0], [0]),
        (T.max, [1.0, 2, 2], [0, 1, 1]),
        (T.min, [1.0, 1, 2], [1, 1, 0]),
        (lambda x: T.clip(x, 0, 1), [0.0, 1, 0.5, 2], [1, 1, 1, 0]),
        (lambda x: T.switch(x > 0, x * 2, x * 3), [1.0, -1], [2, 3]),
        (T.prod, [0.0, 2, 3], [6, 0, 0]),
        (T.sqrt, [0.0], [np.inf]),
        (lambda x: x % 2, [3.5], [1]),
    ],
)
def test_kinks(f, value, slope):
    x = T.vector("x")
    assert at(f(x), x, value) == slope


@pytest.mark.parametrize("f", [T.maximum, T.minimum])
def test_ties_of_maximum_go_to_the_first(f):
    x, y = T.vectors("x", "y")
    gradients = tcc.function([x, y], tcc.grad(f(x, y).sum(), [x, y]))
    assert [g.item() for g in gradients([1.0], [1.0])] == [1, 0]


def test_names():
    x = T.scalar("x")
    cost = x * x
    assert tcc.grad(cost, x).name is None
    cost.name = "cost"
    assert tcc.grad(cost, x).name == "(dcost/dx)"


FUNCTIONS = {
    "tanh of a product": lambda x: T.tanh(T.dot(x, x.T)).sum(),
    "softmax": lambda x: (T.nnet.softmax(x) ** 2).sum(),
    "logsoftmax": lambda x: (T.nnet.logsoftmax(x) * x).sum(),
    "cross-entropy": lambda x: T.nnet.categorical_crossentropy(T.nnet.softmax(x), np.array([0, 2, 1])).mean(),
    "binary": lambda x: T.nnet.binary_crossentropy(T.nnet.sigmoid(x), 0.3).sum(),
    "variance": lambda x: (T.var(x, axis=0) * T.std(x, axis=1).sum()).sum(),
    "broadcast": lambda x: (x * x[0] + x[:, :1].T.dimshuffle("x", 0, 1)[0].T.flatten()).sum(),
    "join": lambda x: (T.concatenate([x, x[::-1] ** 2], axis=1) * T.stack([x[0, 0], x[1, 1]]).sum()).sum(),
    "reshape": lambda x: (x[:2].reshape((3, -1)).T.flatten() ** 3)[2:5].sum(),
    "gather": lambda x: (x[[0, 0, 2]] * x[T.arange(3), [0, 1, 1]].dimshuffle(0, "x")).sum(),
    "set": lambda x: (T.set_subtensor(x[1], x[0] * 2) ** 2).sum(),
    "inc": lambda x: (T.inc_subtensor(x[[0, 0]], x[1] * 3) ** 2).sum(),
    "pow": lambda x: ((abs(x) + 1) ** x).sum(),
    "max over rows": lambda x: (T.max(x, axis=1) * T.min(x, axis=0)).sum(),
    "products of ranks": lambda x: T.tensordot(x, T.stack([x, x * 2]), axes=[[0], [1]]).sum(),
    "batched": lambda x: (T.batched_dot(T.stack([x, x]), T.stack([x.T, x.T * 3])) ** 2).sum(),
    "cumsum": lambda x: (T.cumsum(x, axis=0) * x).sum(),
    "tile": lambda x: (T.tile(x, (2, 3)) * T.repeat(x, 6, axis=0).sum()).sum(),
    "ptp": lambda x: T.ptp(x) * T.outer(x[0], x[1]).sum(),
    "softplus": lambda x: (T.nnet.softplus(x) * T.nnet.elu(x)).sum(),
    "sort": lambda x: (T.sort(x, axis=0)[0] * x[1]).sum(),
    "split": lambda x: (T.split(x.flatten(), [4, 5], 2)[1] ** 2).sum(),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_against_differences(name):
    x = T.matrix("x")
    cost = FUNCTIONS[name](x)
    value = RNG.uniform(0.2, 1.5, (3, 3)) * np.array([[1, -1, 1], [1, 1, -1], [-1, 1, 1]])
    f, g = tcc.function([x], cost), tcc.function([x], tcc.grad(cost, x))
    np.testing.assert_allclose(g(value), differences(f, value), rtol=1e-5, atol=1e-6)


def test_second_order():
    x = T.scalar("x")
    g = tcc.grad(tcc.grad(x**4, x), x)
    assert g.eval({x: 2.0}) == 48


def test_jacobian():
    x = T.vector("x", shape=(2,))
    y = T.stack([x[0] * x[1], x[0] ** 2])
    assert jacobian(y, x).eval({x: [2.0, 3.0]}).tolist() == [[3, 2], [4, 0]]


def test_a_gradient_by_a_constant_and_one_with_fewer_axes():
    x, one = T.scalar("x"), T.as_tensor_variable(1.0)
    assert tcc.grad(one * x, one).eval({x: 3.0}) == 3
    m = T.matrix("m")
    g = tcc.grad(None, m, known_grads={m * 2: T.constant(1.0)})
    assert g.eval({m: np.ones((2, 2))}).tolist() == [[2, 2], [2, 2]]
