"""Functions, variables and shared variables are pickled and copied."""

from __future__ import annotations

import copy
import functools
import io
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tcc
import tcc.tensor as T
from tcc.theano.classes import ViewOp

x = T.dvector("x")


def again(obj: Any) -> Any:
    return pickle.loads(pickle.dumps(obj))


def counter() -> tuple[Any, Any]:
    w = tcc.shared(np.zeros(2), "w")
    return w, tcc.function([tcc.In(x, value=np.ones(2))], (w * x).sum(), updates=[(w, w + x)])


def test_a_shared_variable_comes_with_its_value() -> None:
    w = tcc.shared(np.arange(3.0), "w")
    v = again(w)
    assert v.name == "w" and v.type == w.type
    np.testing.assert_array_equal(v.get_value(), [0, 1, 2])
    v.set_value(np.zeros(3))
    np.testing.assert_array_equal(w.get_value(), [0, 1, 2])


def test_clones_share_their_container_afterwards_too() -> None:
    w = tcc.shared(np.zeros(2), "w")
    a, b = again((w, w.clone()))
    a.set_value(np.ones(2))
    np.testing.assert_array_equal(b.get_value(), [1, 1])


def test_an_expression_is_the_same_expression() -> None:
    y = T.exp(x + 1).sum()
    y.tag.test_value = 3.0
    x2, y2 = again((x, y))
    assert y2.tag.test_value == 3.0
    np.testing.assert_allclose(y2.eval({x2: [0.0, 1.0]}), y.eval({x: [0.0, 1.0]}))


@pytest.mark.parametrize("duplicate", [again, copy.deepcopy])
def test_a_function_takes_its_state_along(duplicate: Any) -> None:
    w, f = counter()
    f([1.0, 2.0])
    g = duplicate(f)
    assert g.name == f.name
    assert f() == g() == 3.0
    np.testing.assert_array_equal(w.get_value(), [2, 3])
    g()
    assert f([1.0, 0.0]) == 2.0


def test_a_copied_function_shares_its_state() -> None:
    w, f = counter()
    copy.copy(f)()
    f.copy()()
    np.testing.assert_array_equal(w.get_value(), [2, 2])


def test_copies_with_other_variables_and_without_updates() -> None:
    w, f = counter()
    v = tcc.shared(np.full(2, 5.0), "v")
    assert f.copy(swap={w: v})([1.0, 1.0]) == 10.0
    np.testing.assert_array_equal(v.get_value(), [6, 6])
    assert f.copy(delete_updates=True, name="g")([1.0, 1.0]) == 0.0
    np.testing.assert_array_equal(w.get_value(), [0, 0])
    with pytest.raises(TypeError, match="swap"):
        f.copy(swap={w: tcc.shared(np.float32(1))})


@functools.cache
def deep() -> Any:
    y = x
    for _ in range(1000):
        y = y + 1
    return y


def test_a_deep_function() -> None:
    f = again(tcc.function([x], deep(), mode="FAST_COMPILE"))
    assert f([0.0]) == [1000.0]


@pytest.mark.parametrize("duplicate", [again, copy.deepcopy])
def test_deep_variables_and_nodes(duplicate: Any) -> None:
    y = deep()
    (x2, many, node), kept = duplicate((x, [y * k for k in range(300)], y.owner)), pickle.dumps(y)
    assert many[7].owner.operands[0] is node.out and tcc.graph.inputs([node.out])[0] is x2
    assert len(pickle.dumps([y * k for k in range(300)])) < 2 * len(kept)  # each node once
    assert many[2].eval({x2: [0.0]}) == [2000.0]


def test_two_picklers_of_one_deep_graph() -> None:
    """The first one, which lives on, has written nothing for the second."""
    first, second = (io.BytesIO() for _ in range(2))
    one, other = (pickle.Pickler(file) for file in (first, second))
    one.dump(deep())
    other.dump((deep() * 2, deep()))
    one.dump(deep())
    other.dump(deep() * 3)
    second.seek(0)
    for kept, wanted in ((pickle.load(second)[0], 2000.0), (again(deep()), 1000.0)):
        x2 = tcc.graph.inputs([kept])[0]
        assert kept.eval({x2: [0.0]}) == [wanted]


def test_a_loop_within_a_loop_that_reads_a_deep_variable() -> None:
    y = deep()
    total = tcc.map(lambda v: tcc.map(lambda u: u * v + y[0], y)[0].sum(), y)[0].sum()
    x2, total2 = again((x, total))
    assert total2.eval({x2: [1.0]}) == total.eval({x: [1.0]})


def test_a_copied_variable_is_another_of_the_same_node() -> None:
    y = x + 1
    z, node = copy.copy(y), copy.copy(y.owner)
    assert z is not y and z.owner is y.owner
    assert node is not y.owner and node.operands == y.owner.operands


class Pulled(tcc.Op):
    """With a gradient that is written the newer way."""

    __props__ = ()
    itypes, otypes = [T.dvector], [T.dvector]

    def perform(self, node: Any, inputs: Any, output_storage: Any) -> None:
        output_storage[0][0] = inputs[0] * 2

    def L_op(self, inputs: Any, outputs: Any, output_grads: Any) -> Any:
        return [output_grads[0] * (outputs[0] / inputs[0])]


@pytest.mark.parametrize("duplicate", [again, copy.deepcopy])
def test_gradients_of_what_passes_with_another_and_of_written_ops(duplicate: Any) -> None:
    values: list[Any] = [
        tcc.gradient.grad_clip(x * 3, -0.5, x[0] / 4),
        tcc.gradient.grad_scale(x * 3, 5),
        tcc.gradient.disconnected_grad(x * 3) + x,
        tcc.gradient.zero_grad(x * 3) + x,
        ViewOp()(x * 3),
        Pulled()(x),
    ]
    x2, copies = duplicate((x, values))
    for y, z in zip(values, copies):
        want, got = (tcc.grad(v.sum(), at).eval({at: [1.0, 2.0]}) for v, at in ((y, x), (z, x2)))
        np.testing.assert_array_equal(got, want)
    node = copy.copy(values[-1].owner)
    assert type(node) is type(values[-1].owner) and node.operands == (x,)


def test_a_loop_and_a_dictionary_of_outputs() -> None:
    total, _ = tcc.scan(lambda v, s: s + v, sequences=x, outputs_info=T.constant(0.0, dtype="float64"))
    f = again(tcc.function([x], {"total": total[-1]}))
    assert f([1.0, 2.0, 3.0])["total"] == 6.0


class Doubled(tcc.Op):
    __props__ = ()

    def make_node(self, v: Any) -> Any:
        return tcc.Apply(self, [v], [v.type()])

    def perform(self, node: Any, inputs: Any, output_storage: Any) -> None:
        output_storage[0][0] = 2 * inputs[0]


def test_a_user_written_op() -> None:
    f = copy.deepcopy(tcc.function([x], Doubled()(x) + 1))
    np.testing.assert_array_equal(f([1.0, 2.0]), [3, 5])


@tcc.as_op(itypes=[T.dvector], otypes=[T.dvector])
def trebled(v: Any) -> Any:
    return 3 * v


def test_an_op_of_a_function_is_found_by_its_name() -> None:
    assert pickle.loads(pickle.dumps(trebled(x))).owner.op is trebled
    local = tcc.as_op(itypes=[T.dvector], otypes=[T.dvector])(lambda v: v)
    with pytest.raises(pickle.PicklingError, match="can be pickled where it is"):
        pickle.dumps(local)


def test_another_process_reads_it(tmp_path: Path) -> None:
    _, f = counter()
    f([1.0, 2.0])
    (tmp_path / "f.pickle").write_bytes(pickle.dumps(f))
    text = f"import pickle; f = pickle.load(open({str(tmp_path / 'f.pickle')!r}, 'rb')); print(f([1.0, 1.0]))"
    run = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
    assert run.stdout.strip() == "3.0", run.stderr
