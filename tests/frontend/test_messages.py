"""What is said to whoever makes the usual mistakes: what, got, wanted, where, and what to do, in a few lines."""

from __future__ import annotations

import copy
import pickle
import threading
import traceback
from pathlib import Path

import numpy as np
import pytest

import tcc
import tcc.tensor as T
from tcc.debug import Assert
from tcc.locations import located_at, user_location
from tcc.user_op import Apply, Op, as_op


def said(error, call, *args):
    """All that a traceback says of the error, which is at most 25 lines."""
    with pytest.raises(error) as e:
        call(*args)
    text = "".join(traceback.format_exception_only(e.value))
    assert len(text.splitlines()) <= 25
    return text


def test_sizes_that_do_not_fit():
    x, w = T.matrix("x"), tcc.shared(np.zeros((5, 4)), "W")
    text = said(ValueError, tcc.function([x], T.tanh(T.dot(x, w))), np.zeros((3, 6)))
    assert "W, axis 0: its size is 5, wanted 6, the size of x, axis 1" in text
    assert "Shapes: x (3, 6), W (5, 4)" in text
    assert "dot at " in text and "test_messages.py:" in text and "broadcasts" not in text


def test_a_size_of_one_that_does_not_broadcast():
    x, y = T.matrices("x", "y")
    for a, b in ((4, 1), (1, 4)):
        text = said(ValueError, tcc.function([x, y], x + y), np.zeros((3, a)), np.zeros((3, b)))
        assert "T.addbroadcast" in text


def test_test_values_that_do_not_fit():
    x, y = T.matrices("x", "y")
    x.tag.test_value, y.tag.test_value = np.zeros((3, 4)), np.zeros((3, 5))
    with tcc.change_flags(compute_test_value="raise"):
        text = said(ValueError, T.dot, x, y)
    assert "Shapes: x (3, 4), y (3, 5)" in text and "dot at " in text and "test_messages.py:" in text


@pytest.mark.parametrize(
    ("error", "call", "words"),
    [
        (tcc.UnusedInputError, lambda x, w: tcc.function([x, T.vector("y")], x), "y, of TensorType"),
        (TypeError, lambda x, w: tcc.function([], x, givens={x: np.zeros(3)}), "in `givens`, for x, of"),
        (TypeError, lambda x, w: T.stack([x, w]), "x of TensorType(float32, matrix), w of"),
        (TypeError, lambda x, w: T.concatenate([x, w]), "w of TensorType(float64, vector)"),
        (
            TypeError,
            lambda x, w: T.signal.pool.pool_2d(x, 2),
            "ws must be 2 integers, one for each axis, got 2",
        ),
        (
            ValueError,
            lambda x, w: tcc.function([x], x, mode="FAST"),
            "(there are FAST_RUN, FAST_COMPILE, DebugMode",
        ),
        (ValueError, lambda x, w: tcc.scan(lambda a, h: a + h, x[0], [0]), "T.zeros(shape, 'float32')"),
        (ValueError, lambda x, w: T.specify_shape(w, (4,)).eval(), "error: specify_shape at"),
    ],
)
def test_mistakes_while_building(error, call, words):
    assert words in said(error, call, T.fmatrix("x"), tcc.shared(np.zeros(3), "w"))


def test_an_index_that_is_not_there():
    x, y = T.matrix("x"), T.lvector("classes")
    f = tcc.function([x, y], T.nnet.categorical_crossentropy(T.nnet.softmax(x), y).mean(), mode="FAST_RUN")
    text = said(IndexError, f, np.zeros((2, 3)), np.array([0, 3]))
    assert "index 3 is out of bounds for an axis of size 3 (index number 1 of classes)" in text
    assert "test_messages.py:" in text


def test_floats_as_indices():
    x, y = T.matrix("x"), T.vector("y")
    text = said(TypeError, lambda: x[T.arange(y.shape[0]), y])
    assert "got y, of TensorType(float64, vector)" in text and "ivector" in text


def test_assignment():
    x = T.matrix("x")
    with pytest.raises(TypeError, match="set_subtensor"):
        x[0] = 1


@pytest.mark.parametrize("other", ["a", b"a", None])
def test_what_is_no_number_beside_an_operator(other):
    x = T.vector("x")
    for call in (lambda: x + other, lambda: other + x, lambda: x - other, lambda: x / other):
        with pytest.raises(TypeError) as e:
            call()
        assert len(traceback.extract_tb(e.value.__traceback__)) == 2  # nothing but the caller's own lines


def test_a_step_with_other_arguments():
    text = said(TypeError, lambda: tcc.scan(lambda a, h, w: h, T.matrix(), [T.vector()]))
    assert "missing 1 required positional argument: 'w'" in text
    assert "2 arguments: 1 elements of sequences, 1 prior outputs and 0 non-sequences" in text


class Reads(Op):
    __props__ = ()

    def make_node(self, x):
        return Apply(self, [x], [x.type()])

    def perform(self, node, inputs, output_storage):
        output_storage[0][0] = inputs[0][7]


class InC(Op):
    __props__ = ()

    def make_node(self, x):
        return Apply(self, [x], [x.type()])

    def c_code(self, node, name, inputs, outputs, sub):
        return ""


def test_what_fails_in_python_says_which_op_and_where():
    x = T.vector("x")
    for made, error, words in (
        (Reads()(x), IndexError, "in Reads"),
        (InC()(x), NotImplementedError, "the op InC has c_code alone"),
        (Assert("must be positive")(x, T.all(x > 0)), AssertionError, "must be positive"),
        (T.nlinalg.matrix_inverse(T.outer(x, x)), np.linalg.LinAlgError, "in matrix_inverse"),
    ):
        text = said(error, tcc.function([x], made * 2), np.zeros(3))
        assert words in text and "test_messages.py:" in text, text


def test_numpys_functions_take_variables():
    x = T.vector("x")
    a = np.array([0.25, 0.5])
    for f in (np.exp, np.sqrt, np.log1p, np.tanh, np.arcsin, np.floor, np.conjugate):
        np.testing.assert_allclose(f(x).eval({x: a}), f(a))
    assert T.eye(3).trace().eval() == 3


def test_what_one_thread_builds_does_not_come_from_anothers_lines():
    seen = []
    with located_at(("rules.py", 1)):
        other = threading.Thread(target=lambda: seen.append(user_location()))
        other.start()
        other.join()
        assert user_location() == ("rules.py", 1)
    assert seen[0][0] == __file__


def test_a_refused_argument_is_said_without_the_way_to_it():
    with pytest.raises(TypeError, match="Bad input argument x") as e:
        tcc.function([T.fmatrix("x")], [], on_unused_input="ignore")(np.zeros((3, 4)))
    assert len("".join(traceback.format_exception(e.value)).splitlines()) <= 25


def whole_traceback(call, *args):
    """What the interpreter would print, and the frames."""
    with pytest.raises(Exception) as e:
        call(*args)
    return "".join(traceback.format_exception(e.value)), traceback.extract_tb(e.value.__traceback__)


def in_loops(step, x, depth):
    return step(x) if not depth else tcc.scan(lambda row: in_loops(step, row, depth - 1), [x])[0]


@pytest.mark.parametrize("mode", ["FAST_RUN", "FAST_COMPILE", "DebugMode", "NanGuardMode"])
@pytest.mark.parametrize("depth", [0, 2])
@pytest.mark.parametrize("step", [Reads(), T.nlinalg.matrix_inverse, lambda m: m[7]])
def test_tracebacks_show_the_users_frames(mode, depth, step):
    x = T.TensorType("float64", (False,) * (depth + 2))("x")
    f = tcc.function([x], in_loops(step, x, depth), mode=mode)
    for _ in range(2):  # the first call compiles
        text, frames = whole_traceback(f, np.zeros((2,) * (depth + 2)))
        assert len(text.splitlines()) <= 25, text
        others = [frame for frame in frames if frame.filename != __file__]
        assert len(others) <= 1 and "test_messages.py:" in text, text
        assert (frames[-1].name == "perform") == isinstance(step, Reads)


def test_tracebacks_of_nan_guards_in_loops():
    x = T.matrix("x")
    f = tcc.function([x], in_loops(T.log, x, 2), mode="NanGuardMode")
    text, _ = whole_traceback(f, -np.ones((2, 2)))
    assert "NaN detected" in text and "in the output of log" in text and len(text.splitlines()) <= 25, text


def test_tracebacks_are_whole_on_request(monkeypatch):
    monkeypatch.setenv("TCC_TRACEBACK", "whole")
    for mode in ("FAST_RUN", "FAST_COMPILE"):
        x = T.vector("x")
        _, frames = whole_traceback(tcc.function([x], Reads()(x), mode=mode), np.zeros(3))
        assert any(frame.filename.endswith("user_op.py") for frame in frames)


def test_errors_that_errors_came_from_are_shortened_too():
    def perform(x):
        try:
            return np.linalg.inv(x)
        except np.linalg.LinAlgError as e:
            raise ValueError("no inverse") from e

    x = T.matrix("x")
    op = as_op([T.dmatrix], [T.dmatrix])(perform)
    text, _ = whole_traceback(tcc.function([x], op(x)), np.zeros((2, 2)))
    assert "no inverse" in text and "Singular matrix" in text and len(text.splitlines()) <= 25, text


def test_values_of_another_dtype_and_what_converts_them():
    w = tcc.shared(np.zeros(3, "f4"), "w")
    assert '"w"' in said(TypeError, w.set_value, np.zeros(3))
    assert "represented as [0.10000000149011612]. " in said(TypeError, w.set_value, [0.1])
    for value in (np.zeros(3), [0.1]):
        text = said(TypeError, w.set_value, value)
        assert '.astype("float32")' in text and "allow_input_downcast=True" in text


@pytest.mark.parametrize(
    ("made", "error", "words"),
    [
        (
            lambda x: x.astype("f8"),
            TypeError,
            "result 0 of FromFunctionOp{<lambda>}: TensorType(float32, matrix)",
        ),
        (
            lambda x: None,
            ValueError,
            "FromFunctionOp{<lambda>} made no result 0, which it declares to be TensorType",
        ),
    ],
)
def test_python_ops_that_return_something_else(made, error, words):
    x = T.fmatrix()
    text = said(error, tcc.function([x], as_op([T.fmatrix], [T.fmatrix])(made)(x)), np.ones((2, 3), "f4"))
    assert words in text and "test_messages.py:" in text


def leaked():
    xs, inner = T.dvector("xs"), []
    tcc.scan(lambda x: inner.append(x * 2) or x, sequences=xs)
    return tcc.function([xs], inner[0])


@pytest.mark.parametrize(
    ("error", "call", "words"),
    [
        (tcc.MissingInputError, leaked, "It is xs[t], of TensorType(float64, scalar), created at"),
        (tcc.MissingInputError, leaked, "a value in the steps of its scan alone"),
        (
            ValueError,
            lambda: tcc.scan(abs, T.dvector(), [{"init": T.zeros(())}]),
            "says init; initial, inplace",
        ),
        (TypeError, lambda: range(T.dvector("x").shape[0]), "T.arange"),
        (TypeError, lambda: T.dvector("x").eval({"x": [1]}), "the key 'x'"),
        (TypeError, lambda: tcc.function([], T.dscalar("x"), givens=[T.dscalar("x"), 1.0]), "got x"),
        (ValueError, lambda: T.dvector("x").reshape(3, 5), "reshape((2, 3))"),
        (TypeError, lambda: T.dvector("x")[1 / T.iscalar("n")], "a // b"),
        (AttributeError, lambda: T.dmatrix.sum(), "T.dmatrix('x')"),
        (
            TypeError,
            lambda: tcc.function([T.dscalar("x")], [], on_unused_input="ignore")(1, 2),
            "1 arguments (x)",
        ),
        (TypeError, lambda: tcc.function([], [None]), "Received None"),
    ],
)
def test_what_newcomers_write(error, call, words):
    text = said(error, call)
    assert words in text
    assert "During handling" not in text and "direct cause" not in text


def test_types_that_make_variables_are_copied():
    for made in (copy.copy(T.dmatrix), copy.deepcopy(T.dmatrix), pickle.loads(pickle.dumps(T.dmatrix))):
        assert made == T.dmatrix and made("x").name == "x"


def test_a_folder_that_is_not_there(tmp_path):
    x = T.dvector("x")
    text = said(FileNotFoundError, tcc.save, tmp_path / "no" / "m.tcb", {"f": tcc.function([x], x)})
    assert text.endswith("m.tcb'\n")


def test_another_llvmlite():
    from tcc.codegen.keys import LLVMLITE, check_llvmlite

    check_llvmlite(LLVMLITE + ".1")
    assert "found 0.47.0 in" in said(ImportError, check_llvmlite, "0.47.0")
    pyproject = Path(__file__).parents[2] / "pyproject.toml"
    assert f'"llvmlite>={LLVMLITE},<' in pyproject.read_text()


def test_a_message_gives_the_shapes_of_few_arrays():
    x, many = T.dmatrix("x"), [tcc.shared(np.ones(3), f"w{k}") for k in range(40)]
    with pytest.raises(ValueError) as e:
        tcc.function([x], sum(many, x.sum(0)))(np.ones((2, 4)))
    assert "Shapes: x (2, 4), w0 (3,)" in str(e.value) and "w10 (3,), and 29 more" in str(e.value)
