"""Theano's names of cuDNN's functions, over convolution, pooling, softmax and batch normalisation, which run on any device.

`theano.sandbox.cuda.dnn` has older signatures than `theano.gpuarray.dnn`: those here begin with `Old` or `old_`.
"""

from __future__ import annotations

from typing import Any

from tcc import build, elemwise
from tcc.ir.callers import warn
from tcc.tensor.nnet import abstract_conv, bn, separable
from tcc.tensor.nnet import basic as nnet
from tcc.tensor.signal import pool
from tcc.theano.gpuops import in_use
from tcc.theano.legacyop import LegacyOp
from tcc.theano.netops import AveragePoolGrad, CorrMM, MaxPoolGrad
from tcc.variable import Constant, as_variable


def dnn_present() -> bool:
    """Whether a GPU is in use: what is in this module runs on CPUs too."""
    return in_use()


def dnn_available(context_name: Any = None) -> bool:
    """As `dnn_present`."""
    return in_use()


dnn_present.msg = dnn_available.msg = "functions run on the CPU; the flag dnn.enabled=True passes over that"  # type: ignore[attr-defined]


# -- convolution -----------------------------------------------------------------------------------------------------------


class GpuDnnConvDesc(LegacyOp):
    """How a convolution is done.  Called with the shapes of its operands, it is what the ops below take."""

    options = {
        "border_mode": "valid",
        "subsample": (1, 1),
        "dilation": None,
        "conv_mode": "conv",
        "precision": "float32",
        "num_groups": 1,
    }
    num_groups = 1
    dilation = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.conv_mode not in ("conv", "cross"):
            raise ValueError(f"conv_mode must be 'conv' or 'cross', got {self.conv_mode!r}")

    def apply(self, *shapes: Any) -> Any:
        return self

    def abstract(self, kind: str, num_groups: int = 1) -> Any:
        """The convolution, or with `kind` "_gradInputs" or "_gradWeights" its gradient."""
        rank, groups = len(self.subsample), max(num_groups, self.num_groups)
        made = getattr(abstract_conv, f"AbstractConv{rank}d{kind}")
        flip = self.conv_mode == "conv"
        return made(None, None, self.border_mode, self.subsample, flip, self.dilation, groups)


class OldGpuDnnConvDesc(GpuDnnConvDesc):
    """As GpuDnnConvDesc, without dilation and groups."""

    options = {"border_mode": "valid", "subsample": (1, 1), "conv_mode": "conv", "precision": "float32"}


class _Convolving(LegacyOp):
    """alpha times what is computed, plus beta times `output`, whose sizes the result has."""

    options = {"algo": None, "inplace": False, "num_groups": 1, "workmem": None}

    def apply(
        self, a: Any, b: Any, output: Any, desc: GpuDnnConvDesc, alpha: Any = None, beta: Any = None
    ) -> Any:
        made = self.computed(as_variable(a), as_variable(b), as_variable(output), desc)
        if not _is(alpha, None, 1):
            made = made * elemwise.cast(alpha, made.type.dtype)
        if not _is(beta, None, 0):
            made = made + output * elemwise.cast(beta, made.type.dtype)
        return made

    def computed(self, a: Any, b: Any, output: Any, desc: GpuDnnConvDesc) -> Any:
        raise NotImplementedError


def _is(value: Any, *known: Any) -> bool:
    value = value.data if isinstance(value, Constant) else value
    return value is None or isinstance(value, int | float) and value in known


class GpuDnnConv(_Convolving):
    """`GpuDnnConv()(img, kern, output, desc)`."""

    def computed(self, a: Any, b: Any, output: Any, desc: GpuDnnConvDesc) -> Any:
        return desc.abstract("", self.num_groups)(a, b)

    @staticmethod
    def get_out_shape(
        ishape: Any, kshape: Any, border_mode: Any, subsample: Any, dilation: Any = None
    ) -> Any:
        """The sizes of a convolution's result, of the sizes of its operands."""
        count = len(subsample) + 2
        ishape, kshape = (
            s if isinstance(s, list | tuple) else [s[i] for i in range(count)] for s in (ishape, kshape)
        )
        return separable.get_conv_output_shape(
            ishape, kshape, border_mode, subsample, dilation or (1,) * len(subsample)
        )


class GpuDnnConvGradW(_Convolving):
    """`GpuDnnConvGradW()(img, topgrad, output, desc)`: the gradient by the filters."""

    def computed(self, a: Any, b: Any, output: Any, desc: GpuDnnConvDesc) -> Any:
        return desc.abstract("_gradWeights", self.num_groups)(a, b, _sizes(output))


class GpuDnnConvGradI(_Convolving):
    """`GpuDnnConvGradI()(kern, topgrad, output, desc)`: the gradient by the images."""

    def computed(self, a: Any, b: Any, output: Any, desc: GpuDnnConvDesc) -> Any:
        return desc.abstract("_gradInputs", self.num_groups)(a, b, _sizes(output))


def _sizes(x: Any) -> list[Any]:
    """The spatial sizes, as integers or variables."""
    return [build.size_variable(s) for s in build.shape_of(x)[2:]]


def _algorithm(workmem: Any, algo: Any) -> None:
    """Algorithms are tcc's own choice."""
    if workmem is not None:
        if algo is not None:
            raise ValueError("You can't use both algo and workmem")
        warn("workmem is deprecated, use algo instead")


def dnn_conv(
    img: Any,
    kerns: Any,
    border_mode: Any = "valid",
    subsample: Any = (1, 1),
    dilation: Any = (1, 1),
    conv_mode: str = "conv",
    direction_hint: Any = None,
    workmem: Any = None,
    algo: Any = None,
    precision: Any = None,
    num_groups: int = 1,
) -> Any:
    """Convolution, or with `conv_mode` 'cross' correlation, of images (batch, channels, rows, columns)."""
    _algorithm(workmem, algo)
    return GpuDnnConvDesc(border_mode, tuple(subsample), dilation, conv_mode).abstract("", num_groups)(
        img, kerns
    )


def old_dnn_conv(
    img: Any,
    kerns: Any,
    border_mode: Any = "valid",
    subsample: Any = (1, 1),
    conv_mode: str = "conv",
    direction_hint: Any = None,
    workmem: Any = None,
    algo: Any = None,
    precision: Any = None,
) -> Any:
    """As `dnn_conv`."""
    _algorithm(workmem, algo)
    return dnn_conv(img, kerns, border_mode, subsample, (1,) * len(subsample), conv_mode)


def dnn_conv3d(
    img: Any,
    kerns: Any,
    border_mode: Any = "valid",
    subsample: Any = (1, 1, 1),
    dilation: Any = (1, 1, 1),
    conv_mode: str = "conv",
    direction_hint: Any = None,
    algo: Any = None,
    precision: Any = None,
    num_groups: int = 1,
) -> Any:
    """As `dnn_conv`, over three axes."""
    return dnn_conv(img, kerns, border_mode, subsample, dilation, conv_mode, num_groups=num_groups)


def old_dnn_conv3d(
    img: Any,
    kerns: Any,
    border_mode: Any = "valid",
    subsample: Any = (1, 1, 1),
    conv_mode: str = "conv",
    direction_hint: Any = None,
    workmem: Any = None,
    algo: Any = None,
    precision: Any = None,
) -> Any:
    """As `dnn_conv`, over three axes."""
    return old_dnn_conv(img, kerns, border_mode, subsample, conv_mode)


def dnn_gradweight(
    img: Any,
    topgrad: Any,
    kerns_shp: Any,
    border_mode: Any = "valid",
    subsample: Any = (1, 1),
    dilation: Any = None,
    conv_mode: str = "conv",
    precision: Any = None,
    algo: Any = None,
    num_groups: int = 1,
) -> Any:
    """The gradient by filters of the shape `kerns_shp`."""
    how = GpuDnnConvDesc(border_mode, tuple(subsample), dilation, conv_mode)
    return how.abstract("_gradWeights", num_groups)(img, topgrad, _spatial(kerns_shp, subsample))


def dnn_gradinput(
    kerns: Any,
    topgrad: Any,
    img_shp: Any,
    border_mode: Any = "valid",
    subsample: Any = (1, 1),
    dilation: Any = None,
    conv_mode: str = "conv",
    precision: Any = None,
    algo: Any = None,
    num_groups: int = 1,
) -> Any:
    """The gradient by images of the shape `img_shp`."""
    how = GpuDnnConvDesc(border_mode, tuple(subsample), dilation, conv_mode)
    return how.abstract("_gradInputs", num_groups)(kerns, topgrad, _spatial(img_shp, subsample))


def _spatial(shape: Any, subsample: Any) -> list[Any]:
    """The sizes of a whole shape, a sequence or a vector, behind the first two."""
    return [shape[i + 2] for i in range(len(subsample))]


def old_dnn_gradweight(
    img: Any,
    topgrad: Any,
    kerns_shp: Any,
    border_mode: Any = "valid",
    subsample: Any = (1, 1),
    conv_mode: str = "conv",
) -> Any:
    """As `dnn_gradweight`."""
    return dnn_gradweight(img, topgrad, kerns_shp, border_mode, subsample, None, conv_mode)


def old_dnn_gradinput(
    kerns: Any,
    topgrad: Any,
    img_shp: Any,
    border_mode: Any = "valid",
    subsample: Any = (1, 1),
    conv_mode: str = "conv",
) -> Any:
    """As `dnn_gradinput`."""
    return dnn_gradinput(kerns, topgrad, img_shp, border_mode, subsample, None, conv_mode)


def dnn_gradweight3d(
    img: Any, topgrad: Any, kerns_shp: Any, border_mode: Any = "valid", subsample: Any = (1, 1, 1), *args: Any
) -> Any:
    """As `dnn_gradweight`, over three axes."""
    return dnn_gradweight(img, topgrad, kerns_shp, border_mode, subsample, *args)


def dnn_gradinput3d(
    kerns: Any, topgrad: Any, img_shp: Any, border_mode: Any = "valid", subsample: Any = (1, 1, 1), *args: Any
) -> Any:
    """As `dnn_gradinput`, over three axes."""
    return dnn_gradinput(kerns, topgrad, img_shp, border_mode, subsample, *args)


class OldGpuCorrMM(CorrMM):
    """CorrMM with the older `pad` (rows, columns), which stands for a border_mode."""

    options = {"border_mode": "valid", "subsample": (1, 1), "pad": (0, 0)}
    filter_dilation, num_groups = (1, 1), 1

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        pads = self.pad if isinstance(self.pad, tuple) else (self.pad, self.pad)
        if pads != (0, 0):
            if self.border_mode != "valid":
                raise ValueError("border_mode must be 'valid' where pad is given")
            self.border_mode: Any = self.pad if isinstance(self.pad, str) else pads


# -- pooling, softmax, batch normalisation -----------------------------------------------------------------------------------


def dnn_pool(img: Any, ws: Any, stride: Any = None, mode: str = "max", pad: Any = None) -> Any:
    """`pool_2d` or `pool_3d`, by the length of `ws`, of windows inside the images and their padding, a stride of 1 apart if none
    is given.  'average' is 'average_inc_pad', and 'sum' counts the padding, too."""
    count = len(ws)
    mode = {"average": "average_inc_pad", "max_deterministic": "max"}.get(mode, mode)
    stride = (1,) * count if stride is None else stride
    return pool.pool_nd(count, img, ws, True, stride, (0,) * count if pad is None else pad, mode)


class GpuDnnPool(LegacyOp):
    """`GpuDnnPool(mode)(img, ws, stride, pad)`, or `(img, desc)` with a GpuDnnPoolDesc."""

    options = {"mode": "max"}

    def apply(self, img: Any, ws: Any, stride: Any = None, pad: Any = None) -> Any:
        if isinstance(ws, GpuDnnPoolDesc):
            return dnn_pool(img, ws.ws, ws.stride, ws.mode, ws.pad)
        return dnn_pool(img, ws, stride, self.mode, pad)


class GpuDnnPoolDesc(LegacyOp):
    """How pooling is done; called, it is what `GpuDnnPool()` takes."""

    options = {"ws": (1, 1), "stride": None, "mode": "max", "pad": None}

    def apply(self) -> Any:
        return self


class GpuDnnPoolGrad(LegacyOp):
    """What pooling gives back: of its input, its result, and the gradient by that."""

    options = {"mode": "max"}

    def apply(self, inp: Any, out: Any, out_grad: Any, ws: Any, stride: Any, pad: Any) -> Any:
        rank = as_variable(inp).type.ndim - 2
        if self.mode.startswith("max"):
            return MaxPoolGrad(True, "max", rank)(inp, out, out_grad, ws, stride, pad)
        mode = "average_inc_pad" if self.mode == "average" else self.mode
        return AveragePoolGrad(True, mode, rank)(inp, out_grad, ws, stride, pad)


class _Softmax(LegacyOp):
    options = {"algo": "accurate", "mode": "channel"}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.algo not in ("fast", "accurate", "log") or self.mode not in ("instance", "channel"):
            raise ValueError(
                f"algo must be fast, accurate or log, mode instance or channel, got {self.algo!r}, {self.mode!r}"
            )


class GpuDnnSoftmax(_Softmax):
    """Softmax of a tensor of 4 axes, over the channels of each place, or with `mode` 'instance' over all of an image.  `algo`
    'log' takes its logarithm."""

    def apply(self, x: Any) -> Any:
        x = as_variable(x)
        if x.type.ndim != 4:
            raise TypeError(f"a tensor of 4 axes is needed, got {x.type}")
        of = nnet.logsoftmax if self.algo == "log" else nnet.softmax
        if self.mode == "instance":
            return of(x.flatten(2)).reshape(x.shape)
        last = x.dimshuffle(0, 2, 3, 1)
        return of(last.reshape((-1, x.shape[1]))).reshape(last.shape).dimshuffle(0, 3, 1, 2)


class OldGpuDnnSoftmax(GpuDnnSoftmax):
    """As GpuDnnSoftmax, of `tensor_format` 'bc01'."""

    options = {"tensor_format": "bc01", **GpuDnnSoftmax.options}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.tensor_format != "bc01":
            raise ValueError(f"tensor_format must be 'bc01', got {self.tensor_format!r}")


class GpuDnnSoftmaxGrad(_Softmax):
    """The gradient by softmax's input, of the gradient by its result and that result."""

    def apply(self, dy: Any, sm: Any) -> Any:
        dy, sm = as_variable(dy), as_variable(sm)
        axes = (1,) if self.mode == "channel" else (1, 2, 3)
        if self.algo == "log":
            return dy - elemwise.exp(sm) * dy.sum(axes, keepdims=True)
        return sm * (dy - (dy * sm).sum(axes, keepdims=True))


def dnn_batch_normalization_train(
    inputs: Any,
    gamma: Any,
    beta: Any,
    mode: str = "per-activation",
    epsilon: float = 1e-4,
    running_average_factor: float = 0.1,
    running_mean: Any = None,
    running_var: Any = None,
) -> tuple[Any, ...]:
    """`batch_normalization_train` with parameters of the inputs' rank and an epsilon of at least 1e-5; ValueError for others."""
    _check(inputs, epsilon, gamma=gamma, beta=beta, running_mean=running_mean, running_var=running_var)
    return bn.batch_normalization_train(
        inputs, gamma, beta, mode, epsilon, running_average_factor, running_mean, running_var
    )


def dnn_batch_normalization_test(
    inputs: Any,
    gamma: Any,
    beta: Any,
    mean: Any,
    var: Any,
    mode: str = "per-activation",
    epsilon: float = 1e-4,
) -> Any:
    """`batch_normalization_test` with what `dnn_batch_normalization_train` demands."""
    _check(inputs, epsilon, gamma=gamma, beta=beta, mean=mean, var=var)
    return bn.batch_normalization_test(inputs, gamma, beta, mean, var, mode, epsilon)


def _check(inputs: Any, epsilon: float, **parameters: Any) -> None:
    rank = as_variable(inputs).type.ndim
    for name, p in parameters.items():
        if p is not None and as_variable(p).type.ndim != rank:
            raise ValueError(f"{name} must have {rank} axes, as the inputs have, got {as_variable(p).type}")
    if epsilon < 1e-5:
        raise ValueError(f"epsilon must be at least 1e-5, got {epsilon}")
