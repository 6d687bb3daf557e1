"""Theano's formats: str, pp, debugprint, Print."""

from __future__ import annotations

import numpy as np
import pytest

import tcc
import tcc.tensor as T

x, y = T.fmatrix("x"), T.fmatrix("y")
s = T.dscalar("s")
v = T.fvector("v")


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: x, "x"),
        (lambda: T.fmatrix(), "<TensorType(float32, matrix)>"),
        (
            lambda: T.TensorType("float64", (False, False, True))(),
            "<TensorType(float64, (False, False, True))>",
        ),
        (lambda: T.TensorType("float64", (False,) * 3)(), "<TensorType(float64, 3D)>"),
        (lambda: T.row(dtype="int8"), "<TensorType(int8, row)>"),
        (lambda: x + y, "Elemwise{add,no_inplace}.0"),
        (lambda: x + v, "Elemwise{add,no_inplace}.0"),
        (lambda: x.sum(), "Sum{acc_dtype=float64}.0"),
        (lambda: x.sum(axis=0), "Sum{axis=[0], acc_dtype=float64}.0"),
        (lambda: T.dot(x, y), "dot.0"),
        (lambda: T.dot(x, v), "dot.0"),
        (lambda: x[0], "Subtensor{int64}.0"),
        (lambda: v.dimshuffle(0, "x"), "InplaceDimShuffle{0,x}.0"),
        (lambda: x.T, "x.T"),
        (lambda: T.nnet.softmax(x), "Softmax.0"),
        (lambda: T.nnet.sigmoid(x), "sigmoid.0"),
        (lambda: x.reshape((2, 3)), "Reshape{2}.0"),
        (lambda: T.concatenate([x, y]), "Join.0"),
        (lambda: T.alloc(1.0, 2, 3), "Alloc.0"),
        (lambda: x.astype("int32"), "Elemwise{Cast{int32}}.0"),
        (lambda: T.constant(3), "TensorConstant{3}"),
        (lambda: T.constant([1, 1, 1]), "TensorConstant{(3,) of 1}"),
        (lambda: tcc.scan(lambda a: a, sequences=v)[0], "for{cpu,scan_fn}.0"),
        (lambda: T.max(x), "max"),
        (lambda: T.argmax(x), "argmax"),
        (lambda: T.mean(x), "mean"),
        (lambda: abs(x), "Elemwise{abs_,no_inplace}.0"),
        (lambda: x / y, "Elemwise{true_div,no_inplace}.0"),
        (lambda: T.set_subtensor(x[0], 1), "IncSubtensor{Set;int64}.0"),
    ],
)
def test_str(make, text):
    assert str(make()) == text


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: x + y, "(x + y)"),
        (lambda: s**2, "(s ** TensorConstant{2})"),
        (lambda: T.dot(x, y), "(x \\dot y)"),
        (lambda: T.nnet.sigmoid(x), "sigmoid(x)"),
        (lambda: T.sum(T.tanh(x), axis=0), "Sum{axis=[0], acc_dtype=float64}(tanh(x))"),
        (lambda: x[0], "x[Constant{0}]"),
        (lambda: x.T, "x.T"),
        (lambda: T.exp(x) / T.log(y), "(exp(x) / log(y))"),
        (lambda: T.gt(x, 0), "gt(x, TensorConstant{0})"),
        (lambda: -x * v, "((-x) * v)"),
        (lambda: x[1:, 0], "x[Constant{1}:, Constant{0}]"),
        (
            lambda: tcc.grad(s**2, s),
            "((fill((s ** TensorConstant{2}), TensorConstant{1.0}) * TensorConstant{2}) * "
            "(s ** (TensorConstant{2} - TensorConstant{1})))",
        ),
    ],
)
def test_pp(make, text):
    assert tcc.pp(make()) == text


def test_pp_of_a_function():
    assert tcc.pp(tcc.function([x, y], x + y)) == "(x + y)"


def test_pp_of_a_compiled_function_shows_what_runs():
    s, m, w = T.scalar("s"), T.matrix("m"), T.matrix("w")
    assert tcc.pp(tcc.function([s], tcc.grad(s**2, s), mode="FAST_RUN")) == "(2.0 * s)"
    f = tcc.function([m, w], [T.tanh(T.dot(m, w)), m - m.max(axis=0)], mode="FAST_RUN")
    assert tcc.pp(f) == "[tanh((m \\dot w)), (m - max(m))]"


def test_debugprint():
    z = x + y * 2
    assert tcc.printing.debugprint(z, file="str") == (
        "Elemwise{add,no_inplace} [id A] ''   \n"
        " |x [id B]\n"
        " |Elemwise{mul,no_inplace} [id C] ''   \n"
        "   |y [id D]\n"
        "   |TensorConstant{2} [id E]\n"
    )


def test_debugprint_without_marks():
    z = x + y * 2
    assert tcc.printing.debugprint(z, file="str", ids="") == (
        "Elemwise{add,no_inplace}  ''   \n"
        " |x \n"
        " |Elemwise{mul,no_inplace}  ''   \n"
        "   |y \n"
        "   |TensorConstant{2} \n"
    )


def test_debugprint_tells_what_reads_a_result():
    total = T.dot(x, y)
    f = tcc.function([x, y], [total, T.dot(total, x)], mode="FAST_RUN")
    f(np.ones((2, 2), "float32"), np.ones((2, 2), "float32"))
    text = tcc.printing.debugprint(f, file="str", print_clients=True)
    assert text.splitlines()[0].endswith("   0 clients:[('[id B]', 1), ('output', '')]")
    assert "clients" not in tcc.printing.debugprint(f, file="str")


def test_debugprint_of_a_function_numbers_the_nodes():
    f = tcc.function([x, y], x + y * 2)
    assert "Elemwise{add,no_inplace} [id A] ''   1\n" in tcc.printing.debugprint(f, file="str")


def test_debugprint_shows_what_a_scan_does():
    made, _ = tcc.scan(lambda a, b: T.tanh(a + b), sequences=v, outputs_info=np.float32(0))
    text = tcc.printing.debugprint(made, file="str")
    assert "Inner graphs of the scan ops:" in text and " >Elemwise{tanh,no_inplace}" in text


def test_debugprint_goes_to_standard_output(capsys):
    tcc.printing.debugprint(x)
    assert capsys.readouterr().out == "x [id A]\n"


def test_Print(capsys):
    value = np.array([1, 2], "float32")
    assert (tcc.printing.Print("hello")(v) * 2).eval({v: value}).tolist() == [2, 4]
    assert capsys.readouterr().out == "hello __str__ = [1. 2.]\n"


def test_repr_of_types():
    assert repr(T.fmatrix().type) == "TensorType(float32, matrix)"
    assert T.fmatrix().type == T.TensorType("float32", (False, False)) != T.frow().type
    assert len({T.fmatrix().type, T.TensorType("float32", (False, False))}) == 1


def test_debugprint_after_compilation_shows_what_runs():
    f = tcc.function([x, y], T.tanh(x + y) * 2, mode="FAST_RUN")
    f(np.ones((2, 3), "float32"), np.ones((2, 3), "float32"))
    text = tcc.printing.debugprint(f, file="str")
    assert text.startswith("Elemwise{Composite{") and "tanh((i0 + i1))" in text
    assert " |x [id B]" in text and len(text.splitlines()) == 3


def test_pp_shows_inner_names_but_expands_the_whole():
    mean = T.mean(x)
    assert tcc.pp(mean * 2) == "(mean * TensorConstant{2})"
    assert tcc.pp(mean).startswith("(Sum{acc_dtype=float64}(x) / ")


def test_pydotprint_without_pydot(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pydot", None)
    with pytest.raises(RuntimeError, match="Failed to import pydot"):
        tcc.printing.pydotprint(x + y)
