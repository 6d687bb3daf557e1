"""Theano's names of cuDNN, of its GPU back ends and of its graph optimiser, in the manner of the programs that use them."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import tcc
import tcc.tensor as T
import tcc.theano

theano = tcc.theano.install()
OLD = importlib.import_module("theano.sandbox.cuda.dnn")
NEW = importlib.import_module("theano.gpuarray.dnn")
BASIC = importlib.import_module("theano.sandbox.cuda.basic_ops")
rng = np.random.default_rng(0)


def images(*shape: int) -> Any:
    return rng.standard_normal(shape)


def correlated(x: Any, w: Any, pad: int, step: int) -> Any:
    """x under w, as it lies, over two axes."""
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    kh, kw = w.shape[2:]
    rows, columns = ((n - k) // step + 1 for n, k in zip(x.shape[2:], (kh, kw)))
    made = np.zeros((len(x), len(w), rows, columns))
    for i in range(rows):
        for j in range(columns):
            part = x[:, :, i * step : i * step + kh, j * step : j * step + kw]
            made[:, :, i, j] = np.einsum("bcij,fcij->bf", part, w)
    return made


@pytest.mark.parametrize("dnn", [OLD, NEW])
@pytest.mark.parametrize("mode", ["conv", "cross"])
@pytest.mark.parametrize(
    ("border", "pad", "step"), [("valid", 0, 1), ((2, 2), 2, 2), (1, 1, 3), ("full", 2, 1)]
)
def test_convolution(dnn: Any, mode: str, border: Any, pad: int, step: int) -> None:
    x, w = images(2, 3, 7, 7), images(4, 3, 3, 3)
    lies = w if mode == "cross" else w[:, :, ::-1, ::-1]
    made = dnn.dnn_conv(T.constant(x), T.constant(w), border, (step, step), conv_mode=mode)
    np.testing.assert_allclose(made.eval(), correlated(x, lies, pad, step), rtol=1e-10, atol=1e-12)


def test_the_older_signature_has_no_dilation() -> None:
    x, w = images(2, 3, 7, 7), images(4, 3, 3, 3)
    made = OLD.dnn_conv(T.constant(x), T.constant(w), "valid", (1, 1), "cross").eval()
    np.testing.assert_allclose(made, correlated(x, w, 0, 1), rtol=1e-10, atol=1e-12)
    wide = NEW.dnn_conv(T.constant(x), T.constant(w), "valid", (1, 1), (2, 2), "cross").eval()
    spread = np.zeros((4, 3, 5, 5))
    spread[:, :, ::2, ::2] = w
    np.testing.assert_allclose(wide, correlated(x, spread, 0, 1), rtol=1e-10, atol=1e-12)
    with pytest.raises(ValueError, match="conv_mode"):
        OLD.dnn_conv(T.constant(x), T.constant(w), conv_mode="correlation")


def test_convolution_over_three_axes() -> None:
    x, w = images(2, 3, 1, 6, 5), images(4, 3, 1, 3, 2)
    made = NEW.dnn_conv3d(T.constant(x), T.constant(w), conv_mode="cross").eval()
    np.testing.assert_allclose(
        made[:, :, 0], correlated(x[:, :, 0], w[:, :, 0], 0, 1), rtol=1e-10, atol=1e-12
    )


def test_transposed_convolution_of_a_descriptor_is_the_gradient() -> None:
    """As generative programs make it: sizes from an array that is never filled."""
    x, w = T.dtensor4("x"), T.dtensor4("w")
    img, kerns = BASIC.gpu_contiguous(x), BASIC.gpu_contiguous(w)
    out = BASIC.gpu_alloc_empty(img.shape[0], kerns.shape[1], img.shape[2] * 2, img.shape[3] * 2)
    for mode in ("conv", "cross"):
        desc = OLD.GpuDnnConvDesc(border_mode=(2, 2), subsample=(2, 2), conv_mode=mode)(
            out.shape, kerns.shape
        )
        made = OLD.GpuDnnConvGradI()(kerns, img, out, desc)
        v, u, given = images(2, 4, 3, 5), images(4, 3, 5, 5), images(2, 3, 6, 10)
        y = theano.function([x, w], made)(v, u)
        lies = u if mode == "cross" else u[:, :, ::-1, ::-1]
        assert y.shape == given.shape  # and <y, given> is <v, the convolution of given>
        np.testing.assert_allclose((y * given).sum(), (v * correlated(given, lies, 2, 2)).sum(), rtol=1e-10)
        forward = OLD.GpuDnnConv()(T.constant(given), w, x, desc, 2.0, 3.0)
        np.testing.assert_allclose(
            theano.function([x, w], forward)(v, u), 2 * correlated(given, lies, 2, 2) + 3 * v, rtol=1e-9
        )
        by_w = OLD.GpuDnnConvGradW()(T.constant(given), x, w, desc)
        np.testing.assert_allclose(
            (theano.function([x, w], by_w)(v, u) * u).sum(), (y * given).sum(), rtol=1e-10
        )
        by_w = (OLD if mode == "conv" else NEW).dnn_gradweight(
            T.constant(given), x, w.shape, (2, 2), (2, 2), **{"conv_mode": mode}
        )
        np.testing.assert_allclose(
            (theano.function([x, w], by_w)(v, u) * u).sum(), (y * given).sum(), rtol=1e-10
        )
        by_x = OLD.dnn_gradinput(w, x, out.shape, (2, 2), (2, 2), mode)
        np.testing.assert_array_equal(theano.function([x, w], by_x)(v, u), y)


def test_pooling() -> None:
    x = images(2, 3, 5, 6)
    windows = np.lib.stride_tricks.sliding_window_view(x, (2, 3), (2, 3))
    assert np.array_equal(OLD.dnn_pool(T.constant(x), (2, 3)).eval(), windows.max((-1, -2)))
    for mode, of in (("average", np.mean), ("average_inc_pad", np.mean), ("sum", np.sum)):
        made = NEW.dnn_pool(T.constant(x), (2, 3), (2, 2), mode, (0, 0)).eval()
        np.testing.assert_allclose(made, of(windows[:, :, ::2, ::2], (-1, -2)), rtol=1e-12)
    v = T.constant(x)
    made = NEW.GpuDnnPool("max")(v, (2, 2), (2, 2), (1, 1))
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)[:, :, :6]
    assert np.array_equal(made.eval(), padded.reshape(2, 3, 3, 2, 4, 2).max((3, 5)))
    old = OLD.GpuDnnPool()(v, OLD.GpuDnnPoolDesc((2, 2), (2, 2), "max", (1, 1))())
    assert np.array_equal(old.eval(), made.eval())
    assert NEW.dnn_pool(T.constant(images(1, 2, 4, 4, 4)), (2, 2, 2), (2, 2, 2)).eval().shape == (
        1,
        2,
        2,
        2,
        2,
    )


@pytest.mark.parametrize(("mode", "axes"), [("channel", (1,)), ("instance", (1, 2, 3))])
def test_softmax(mode: str, axes: Any) -> None:
    x, g = images(2, 3, 4, 5), images(2, 3, 4, 5)
    wanted = np.exp(x) / np.exp(x).sum(axes, keepdims=True)
    v = T.dtensor4()
    for algo, value in (("accurate", wanted), ("log", np.log(wanted))):
        for made in (NEW.GpuDnnSoftmax(algo, mode)(v), OLD.GpuDnnSoftmax("bc01", algo, mode)(v)):
            np.testing.assert_allclose(theano.function([v], made)(x), value, rtol=1e-10)
        by_hand = NEW.GpuDnnSoftmaxGrad(algo, mode)(T.constant(g), made)
        both = theano.function([v], [by_hand, T.grad((made * g).sum(), v)])(x)
        np.testing.assert_allclose(*both, rtol=1e-9, atol=1e-12)


def test_batch_normalisation() -> None:
    x, g, b = images(4, 3, 2, 2), images(1, 3, 1, 1), images(1, 3, 1, 1)
    made = NEW.dnn_batch_normalization_train(T.constant(x), T.constant(g), T.constant(b), "spatial", 1e-3)
    out, mean, invstd = (v.eval() for v in made)
    m, v = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
    np.testing.assert_allclose(out, (x - m) / np.sqrt(v + 1e-3) * g + b, rtol=1e-10)
    np.testing.assert_allclose(mean, m, rtol=1e-10)
    tested = OLD.dnn_batch_normalization_test(*map(T.constant, (x, g, b, m, v)), "spatial", 1e-3).eval()
    np.testing.assert_allclose(tested, out, rtol=1e-10)
    with pytest.raises(ValueError, match="1e-5"):
        NEW.dnn_batch_normalization_train(T.constant(x), T.constant(g), T.constant(b), "spatial", 1e-6)
    with pytest.raises(ValueError, match="gamma"):
        NEW.dnn_batch_normalization_train(T.constant(x), T.constant(g[0]), T.constant(b), "spatial")


def test_what_moves_a_variable_is_the_variable() -> None:
    x = T.fmatrix("x")
    cuda = importlib.import_module("theano.sandbox.cuda")
    assert BASIC.gpu_contiguous(BASIC.as_cuda_ndarray_variable(x)) is x
    assert cuda.host_from_gpu(cuda.gpu_from_host(x)) is x
    assert cuda.CudaNdarrayType((False, True))().type == T.fcol().type
    assert not cuda.cuda_enabled and not OLD.dnn_available() and not isinstance(x, cuda.CudaNdarrayVariable)
    assert not isinstance(x.type, cuda.CudaNdarrayType)
    img, kern = images(2, 3, 5, 5), images(4, 3, 3, 3)
    blas = importlib.import_module("theano.sandbox.cuda.blas")
    assert (
        importlib.import_module("theano.sandbox.cuda.cuda_ndarray").cuda_ndarray.CudaNdarray
        is cuda.CudaNdarray
    )
    made = blas.GpuCorrMM("valid", (2, 2), (1, 1))(T.constant(img), T.constant(kern)).eval()
    np.testing.assert_allclose(made, correlated(img, kern, 1, 2), rtol=1e-10)


def test_the_older_convolution_op() -> None:
    conv = importlib.import_module("theano.tensor.nnet.conv")
    x, w = images(2, 3, 7, 6), images(4, 3, 3, 2)
    made = conv.ConvOp((3, 7, 6), (3, 2), 4, 2, dx=2, dy=2)(T.constant(x), T.constant(w)).eval()
    np.testing.assert_allclose(made, correlated(x, w[:, :, ::-1, ::-1], 0, 2), rtol=1e-10, atol=1e-12)
    assert made.shape[2:] == conv.ConvOp.getOutputShape((7, 6), (3, 2), (2, 2)) == (3, 3)


def test_a_lock_of_a_folder_keeps_other_processes_out(tmp_path: Any) -> None:
    locks = importlib.import_module("theano.gof.compilelock")
    folder = tmp_path / "a" / "b"
    program = (
        "import tcc.theano, importlib; tcc.theano.install()\n"
        f"importlib.import_module('theano.gof.compilelock').get_lock({str(folder)!r}, timeout=0.05)"
    )
    with locks.lock_ctx(str(folder)):
        with locks.lock_ctx(str(folder)):  # by the same process once more
            pass
        other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert "TimeoutError: the lock of" in other.stderr
    subprocess.run([sys.executable, "-c", program], check=True)


def test_optimisations_are_taken_and_ignored() -> None:
    gof = importlib.import_module("theano.gof")
    opt = importlib.import_module("theano.tensor.opt")

    @opt.register_canonicalize("fast_compile")
    @gof.local_optimizer([None])
    def local_nothing(node: Any) -> Any:
        raise AssertionError("never called")

    assert opt.register_specialize(local_nothing) is local_nothing
    opt.register_canonicalize(gof.OpRemove(None), name="remove")
    theano.compile.optdb["specialize"].register("nothing", local_nothing, "fast_run")
    theano.compile.optdb.register("nothing", gof.TopoOptimizer(local_nothing), 52.1, "fast_run", "inplace")
    x = T.dscalar()
    assert theano.function([x], x + 1)(1.0) == 2
    assert isinstance(theano.function([x], x), theano.compile.function_module.Function)


def test_an_op_of_c_code_names_itself() -> None:
    class OfFiles(importlib.import_module("theano.gof").COp):
        def make_node(self, v: Any) -> Any:
            return tcc.Apply(self, [v], [v.type()])

    x = T.dvector()
    with pytest.raises(NotImplementedError, match="OfFiles.*c_code alone"):
        theano.function([x], OfFiles(["x.c"], "run")(x))([1.0])


def test_descriptions_of_variables() -> None:
    describe = importlib.import_module("theano.printing").var_descriptor
    x, y = T.dvector("x"), T.dvector("x")
    assert describe(T.exp(x) * x) == describe(T.exp(y) * y) != describe(T.exp(x) + x)
    assert describe(np.ones(2)) != describe(np.zeros(2))


def test_names_of_both_pythons() -> None:
    six = importlib.import_module("theano.compat.six")
    moves = importlib.import_module("theano.compat.six.moves")
    assert list(moves.xrange(2)) == [0, 1] and moves.reduce(max, [1, 3]) == 3
    assert dict(six.iteritems({1: 2})) == {1: 2} and isinstance("", six.string_types)

    @six.add_metaclass(type("Meta", (type,), {"mark": 3}))
    class Made:
        pass

    assert Made.mark == 3  # type: ignore[attr-defined]
    with pytest.raises(KeyError, match="a"):
        six.reraise(KeyError, KeyError("a"))


def test_flags_of_programs() -> None:
    made = importlib.import_module("theano.configparser")
    with pytest.warns(UserWarning, match="unknown flag"):
        tcc.config.take("mine.count", "3", "a test")
    made.AddConfigVar("mine.count", "how many", made.IntParam(1))
    made.AddConfigVar("mine.word", "which", made.EnumStr("a", "b"))
    assert tcc.config.mine.count == 3 and tcc.config.mine.word == "a"
    tcc.config.mine.word = "b"
    assert tcc.config.mine.word == "b"


def test_a_flag_lets_programs_go_on_without_a_gpu() -> None:
    program = (
        "import tcc.theano; tcc.theano.install(); import theano.gpuarray.dnn, theano.sandbox.cuda\n"
        "print(theano.gpuarray.pygpu_activated, theano.sandbox.cuda.cuda_enabled, theano.gpuarray.dnn.dnn_present())"
    )
    for flags, said in (("", "False False False"), ("dnn.enabled=True", "True True True")):
        made = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "THEANO_FLAGS": flags},
        )
        assert made.stdout.strip() == said
