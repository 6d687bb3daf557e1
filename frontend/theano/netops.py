"""Theano's op classes of networks and of pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tcc import build, elemwise
from tcc.build import shape_of
from tcc.gradient import Lop
from tcc.tangents import Rop
from tcc.tensor.nnet import abstract_conv, blocksparse, bn, neighbours, onehot
from tcc.tensor.nnet import basic as nnet
from tcc.tensor.nnet.separable import get_conv_shape_1axis
from tcc.tensor.signal import pool
from tcc.theano.legacyop import LegacyOp
from tcc.types import promote
from tcc.variable import as_variable


class Softmax(LegacyOp):
    rows = ("softmax",)

    def apply(self, x: Any) -> Any:
        return nnet.softmax(x)


class LogSoftmax(LegacyOp):
    rows = ("log_softmax",)

    def apply(self, x: Any) -> Any:
        return nnet.logsoftmax(x)


class SoftmaxWithBias(LegacyOp):
    def apply(self, x: Any, b: Any) -> Any:
        return onehot.softmax_with_bias(x, b)


class SoftmaxGrad(LegacyOp):
    def apply(self, dy: Any, sm: Any) -> Any:
        return onehot.softmax_grad(dy, sm)


class CrossentropyCategorical1Hot(LegacyOp):
    def apply(self, coding_dist: Any, true_one_of_n: Any) -> Any:
        return nnet.crossentropy_categorical_1hot(coding_dist, true_one_of_n)


class CrossentropyCategorical1HotGrad(LegacyOp):
    def apply(self, g_y: Any, coding_dist: Any, true_one_of_n: Any) -> Any:
        return onehot.crossentropy_categorical_1hot_grad(g_y, coding_dist, true_one_of_n)


class CrossentropySoftmaxArgmax1HotWithBias(LegacyOp):
    def apply(self, x: Any, b: Any, y_idx: Any) -> Any:
        return onehot.crossentropy_softmax_argmax_1hot_with_bias(x, b, y_idx)


class CrossentropySoftmax1HotWithBiasDx(LegacyOp):
    def apply(self, dnll: Any, sm: Any, y_idx: Any) -> Any:
        return onehot.crossentropy_softmax_1hot_with_bias_dx(dnll, sm, y_idx)


class Prepend_scalar_constant_to_each_row(LegacyOp):
    options = {"val": 0}

    def apply(self, mat: Any) -> Any:
        return onehot.prepend_scalar_to_each_row(self.val, mat)


class Prepend_scalar_to_each_row(LegacyOp):
    def apply(self, val: Any, mat: Any) -> Any:
        return onehot.prepend_scalar_to_each_row(val, mat)


# -- correlation ---------------------------------------------------------------------------------------------------------


class _Correlation(LegacyOp):
    options = {"border_mode": "valid", "subsample": (1, 1), "filter_dilation": (1, 1), "num_groups": 1}
    rank = 2

    def _abstract(self, kind: str) -> Any:
        made = getattr(abstract_conv, f"AbstractConv{self.rank}d{kind}")
        return made(
            None, None, self.border_mode, self.subsample, False, self.filter_dilation, self.num_groups
        )

    def _sizes(self, shape: Any, a: Any, g: Any, filters: bool) -> Any:
        """`shape`, or the sizes that border_mode leaves no doubt of; ValueError where it does."""
        if shape is not None:
            return shape
        if any(s != 1 for s in (*self.subsample, *self.filter_dilation)) or self.border_mode not in (
            "valid",
            "full",
        ):
            raise ValueError(
                "shape must be given unless border_mode is valid or full, without subsample or dilation"
            )
        pairs = zip(shape_of(a)[2:], shape_of(g)[2:])
        sizes = [(build.size_variable(x), build.size_variable(y)) for x, y in pairs]
        if self.border_mode == "full":
            return [y - x + 1 for x, y in sizes]
        return [x - y + 1 if filters else x + y - 1 for x, y in sizes]


class CorrMM(_Correlation):
    """The correlation of images with filters, which are not turned."""

    rows = ("conv",)

    def apply(self, img: Any, kern: Any) -> Any:
        return self._abstract("")(*_spatial(self.rank, img, kern))


class CorrMM_gradWeights(_Correlation):
    """What CorrMM gives back to its filters, whose spatial sizes are `shape`."""

    rows = ("conv_filter",)

    def apply(self, img: Any, topgrad: Any, shape: Any = None) -> Any:
        img, topgrad = _spatial(self.rank, img, topgrad)
        return self._abstract("_gradWeights")(img, topgrad, self._sizes(shape, img, topgrad, True))


class CorrMM_gradInputs(_Correlation):
    """What CorrMM gives back to its images, whose spatial sizes are `shape`."""

    rows = ("conv_input",)

    def apply(self, kern: Any, topgrad: Any, shape: Any = None) -> Any:
        kern, topgrad = _spatial(self.rank, kern, topgrad)
        return self._abstract("_gradInputs")(kern, topgrad, self._sizes(shape, kern, topgrad, False))


class Corr3dMM(CorrMM):
    options = {**CorrMM.options, "subsample": (1, 1, 1), "filter_dilation": (1, 1, 1)}
    rank = 3


class Corr3dMM_gradWeights(CorrMM_gradWeights):
    options = Corr3dMM.options
    rank = 3


class Corr3dMM_gradInputs(CorrMM_gradInputs):
    options = Corr3dMM.options
    rank = 3


class ConvOp(LegacyOp):
    """The older convolution, by channels and sizes of images and sizes and number of filters; what it says of unrolling is ignored."""

    options = {
        **dict.fromkeys(("imshp", "kshp", "nkern", "bsize")),
        "dx": 1,
        "dy": 1,
        "output_mode": "valid",
        **dict.fromkeys(("unroll_batch", "unroll_kern", "unroll_patch", "imshp_logical", "kshp_logical")),
        "kshp_logical_top_aligned": True,
        "verbose": 0,
        "version": -1,
        "direction_hint": "forward",
        "openmp": None,
    }

    def apply(self, inputs: Any, kerns: Any) -> Any:
        channels, *image = self.imshp or (None,) * 3
        shapes = (self.bsize, channels, *image), (self.nkern, channels, *(self.kshp or (None, None)))
        return abstract_conv.conv2d(
            inputs, kerns, *shapes, border_mode=self.output_mode, subsample=(self.dx, self.dy)
        )

    @staticmethod
    def getOutputShape(  # noqa: N802
        inshp: Sequence[Any], kshp: Sequence[Any], stride: Sequence[int] = (1, 1), mode: str = "valid"
    ) -> tuple[Any, ...]:
        """The (rows, columns) of the result, of those of an image and of filters."""
        return tuple(get_conv_shape_1axis(i, k, mode, d) for i, k, d in zip(inshp, kshp, stride))


def _spatial(rank: int, *operands: Any) -> list[Any]:
    """The operands, of `rank` spatial axes each, in one dtype."""
    values = [as_variable(x) for x in operands]
    for x in values:
        if x.type.ndim != rank + 2:
            raise TypeError(f"a tensor of {rank + 2} axes is needed, got {x.type}")
    return _alike(*values)


def _alike(*values: Any) -> list[Any]:
    """The variables in the dtype that holds all of theirs."""
    made = [as_variable(v) for v in values]
    dtype = promote(*(v.type.dtype for v in made))
    return [build.cast(v, dtype) for v in made]


# -- blocks and patches --------------------------------------------------------------------------------------------------


class SparseBlockGemv(LegacyOp):
    options = {"inplace": False}

    def apply(self, o: Any, W: Any, h: Any, inputIdx: Any, outputIdx: Any) -> Any:
        return blocksparse.sparse_block_gemv(o, W, h, inputIdx, outputIdx)


class SparseBlockOuter(LegacyOp):
    options = {"inplace": False}

    def apply(self, o: Any, x: Any, y: Any, xIdx: Any, yIdx: Any, alpha: Any = 1) -> Any:
        return blocksparse.sparse_block_outer(o, x, y, xIdx, yIdx, alpha)


class Images2Neibs(LegacyOp):
    options = {"mode": "valid"}

    def apply(self, ten4: Any, neib_shape: Any, neib_step: Any = None) -> Any:
        return neighbours.images2neibs(ten4, neib_shape, neib_step, self.mode)


# -- batch normalisation ---------------------------------------------------------------------------------------------------


class _BatchNorm(LegacyOp):
    """`axes` are those that are normalised over; parameters have size 1 there."""

    options = {"axes": (0,)}


class AbstractBatchNormTrain(_BatchNorm):
    """The result, mean and 1 / sqrt(var + epsilon), and the new running mean and variance where they are given."""

    def apply(
        self,
        x: Any,
        scale: Any,
        bias: Any,
        epsilon: Any = 1e-4,
        running_average_factor: Any = 0.1,
        running_mean: Any = None,
        running_var: Any = None,
    ) -> Any:
        x, scale, bias = _alike(x, scale, bias)
        return bn.batch_normalization_train(
            x, scale, bias, self.axes, epsilon, running_average_factor, running_mean, running_var
        )


class AbstractBatchNormInference(_BatchNorm):
    def apply(self, x: Any, scale: Any, bias: Any, mean: Any, variance: Any, epsilon: Any = 1e-4) -> Any:
        x, scale, bias, mean, variance = _alike(x, scale, bias, mean, variance)
        return bn.batch_normalization_test(x, scale, bias, mean, variance, self.axes, epsilon)


class AbstractBatchNormTrainGrad(_BatchNorm):
    """Gradients by x, scale and bias of what AbstractBatchNormTrain makes, given that by its result, its mean and 1 / std."""

    def apply(self, x: Any, dy: Any, scale: Any, x_mean: Any, x_invstd: Any, epsilon: Any = 1e-4) -> Any:
        x, dy, scale, x_mean, x_invstd = _alike(x, dy, scale, x_mean, x_invstd)
        scale, x_mean, x_invstd = (
            bn.spread(v, name, x.type.ndim, self.axes)
            for v, name in ((scale, "scale"), (x_mean, "x_mean"), (x_invstd, "x_invstd"))
        )
        normal = (x - x_mean) * x_invstd
        by_scale = (dy * normal).sum(self.axes, keepdims=True)
        by_bias = dy.sum(self.axes, keepdims=True)
        inner = dy - dy.mean(self.axes, keepdims=True) - normal * (dy * normal).mean(self.axes, keepdims=True)
        return [scale * x_invstd * inner, by_scale, by_bias]


# -- pooling -------------------------------------------------------------------------------------------------------------


class Pool(LegacyOp):
    options = {"ignore_border": False, "mode": "max", "ndim": 2, "openmp": None}
    rows = ("pool",)

    def apply(self, x: Any, ws: Any, stride: Any = None, pad: Any = None) -> Any:
        pad = (0,) * self.ndim if pad is None else pad
        mode = "max" if self.mode == "max_deterministic" else self.mode
        return pool.pool_nd(self.ndim, x, ws, self.ignore_border, stride, pad, mode)

    @staticmethod
    def out_shape(
        imgshape: Sequence[Any],
        ws: Any = None,
        ignore_border: bool = False,
        stride: Any = None,
        pad: Any = None,
        ndim: int = 2,
        ds: Any = None,
        st: Any = None,
        padding: Any = None,
    ) -> list[Any]:
        """The sizes of the result of pooling something of these sizes."""
        ws, stride, pad = (
            ws if ds is None else ds,
            stride if st is None else st,
            pad if padding is None else padding,
        )
        if ws is None or len(imgshape) < ndim:
            raise TypeError(
                f"Pool.out_shape needs a window and at least {ndim} sizes, got {ws} and {imgshape}"
            )
        stride, pad = ws if stride is None else stride, (0,) * ndim if pad is None else pad
        lead = len(imgshape) - ndim
        sizes = zip(imgshape[lead:], ws, stride, pad)
        return [*imgshape[:lead], *(_windows(n + 2 * p, w, s, ignore_border) for n, w, s, p in sizes)]


def _windows(n: Any, w: Any, s: Any, ignore_border: bool) -> Any:
    """The number of windows of `w`, `s` apart, over `n` elements: numbers or variables."""
    if all(isinstance(v, int | np.integer) for v in (n, w, s)):
        if ignore_border:
            return max((n - w) // s + 1, 0)
        return (n - 1) // s + 1 if s >= w else max(0, (n - 1 - w) // s + 1) + 1
    if ignore_border:
        return elemwise.maximum((n - w) // s + 1, 0)
    return elemwise.switch(elemwise.ge(s, w), (n - 1) // s + 1, elemwise.maximum(0, (n - 1 - w) // s + 1) + 1)


class MaxPoolGrad(LegacyOp):
    """What max pooling gives back: of its input, its result, and the gradient by that."""

    options = {"ignore_border": False, "mode": "max", "ndim": 2, "openmp": None}
    rows = ("max_pool_grad",)

    def apply(self, x: Any, maxout: Any, gz: Any, ws: Any, stride: Any = None, pad: Any = None) -> Any:
        x = as_variable(x)
        made = Pool(self.ignore_border, "max", self.ndim)(x, ws, stride, pad)
        return Lop(made, x, build.cast(as_variable(gz), made.type.dtype))


class AveragePoolGrad(LegacyOp):
    """What pooling by sums or averages gives back: of its input, and the gradient by its result."""

    options = {"ignore_border": False, "mode": "average_inc_pad", "ndim": 2, "openmp": None}

    def apply(self, x: Any, gz: Any, ws: Any, stride: Any = None, pad: Any = None, dummy: Any = None) -> Any:
        x = as_variable(x)
        made = Pool(self.ignore_border, self.mode, self.ndim)(x, ws, stride, pad)
        return Lop(made, x, build.cast(as_variable(gz), made.type.dtype))


class DownsampleFactorMaxGradGrad(LegacyOp):
    """The derivative of max pooling along `ggx`."""

    options = {"ignore_border": False, "mode": "max", "ndim": 2, "openmp": None}

    def apply(self, x: Any, maxout: Any, ggx: Any, ws: Any, stride: Any = None, pad: Any = None) -> Any:
        x = as_variable(x)
        return Rop(Pool(self.ignore_border, "max", self.ndim)(x, ws, stride, pad), x, as_variable(ggx))
