"""Theano's names for what tcc does otherwise, and its quirks.  Nothing of tcc itself imports this."""

from __future__ import annotations

import builtins
import functools
import importlib.util
import struct
from collections.abc import Iterable
from typing import Any

import numpy as np

from tcc import graph, tensor
from tcc.compiling import function
from tcc.creation import ones_like as one_like
from tcc.debug import Assert
from tcc.devices import chosen
from tcc.elemwise import abs_ as abs
from tcc.elemwise import int_div as intdiv
from tcc.elemwise import true_div as truediv
from tcc.fgraph import shown_toposort
from tcc.gradient import DisconnectedType
from tcc.ir.callers import warn
from tcc.joining import stacklists as stacklist
from tcc.loops import scan
from tcc.modes import get_mode
from tcc.printing import debugprint
from tcc.reductions import axes_of
from tcc.runtime.devices import DeviceError
from tcc.settings import config
from tcc.shapes import dimshuffle
from tcc.theano import matrixops
from tcc.theano import ops as ops_of
from tcc.theano.tree import module
from tcc.types import TensorType, promote
from tcc.variable import Constant, TensorConstant, as_variable, transfer  # noqa: F401

__all__ = ["abs", "dot", "intdiv", "one_like", "scan", "stacklist", "truediv"]

# What programs compare with: the version whose API this is.
__version__ = version = short_version = full_version = "1.0.5"


def __getattr__(name: str) -> Any:
    """Modules of the tree that are attributes of others under the same name as something native."""
    paths = {
        "root": "",
        "gof": "gof",
        "gof_utils": "gof.utils",
        "compile": "compile",
        "compile_mode": "compile.mode",
        "tensor_sharedvar": "tensor.sharedvar",
        "tensor_basic": "tensor.basic",
        "tensor_subtensor": "tensor.subtensor",
        "scal": "scalar",
        "opt": "tensor.opt",
        "sparse_basic": "sparse.basic",
        "sparse_sharedvar": "sparse.sharedvar",
    }
    if name.startswith("scalar_of_"):
        return Scalar(name.removeprefix("scalar_of_"))
    if name.startswith("scalar_"):  # `theano.scalar.int_types` are types, `theano.tensor.int_types` names
        return [Scalar(dtype) for dtype in scalar_kinds[name.removeprefix("scalar_")]]
    if name in ("FAST_RUN", "FAST_COMPILE"):
        return get_mode(name)
    if name not in paths:
        raise AttributeError(name)
    return module(paths[name])


def relu(x: Any, alpha: Any = 0) -> Any:
    """tcc.tensor.nnet.relu; of an array, without `alpha`, the array that NumPy computes."""
    if isinstance(x, np.ndarray) and isinstance(alpha, int | float) and alpha == 0:
        return 0.5 * (x + np.abs(x))
    return tensor.nnet.relu(x, alpha)


# -- graphs ------------------------------------------------------------------------------------------------------------


def inputs(variable_list: Iterable[Any], blockers: Iterable[Any] | None = None) -> list[Any]:
    """The variables without owner, and those of `blockers`, that the list hangs on, as a search in depth meets them: of the
    last in the list first, of a node's inputs from the left."""
    stop = set(blockers or ())
    found: dict[Any, None] = {}
    seen: set[Any] = set()
    left = list(variable_list)
    while left:
        v = left.pop()
        if v in seen:
            continue
        seen.add(v)
        if v.owner is None or v in stop:
            found[v] = None
        else:
            left.extend(reversed(v.owner.sources))
    return list(found)


def variables(i: Iterable[Any], o: Iterable[Any]) -> list[Any]:
    """All variables between inputs and outputs, both included."""
    stop, outputs = set(i), list(o)
    found = dict.fromkeys([*stop, *outputs])
    for node in graph.toposort(outputs, stop=lambda v: v in stop):
        found.update(dict.fromkeys([*node.sources, *node.results]))
    return list(found)


def io_toposort(inputs: Iterable[Any], outputs: Iterable[Any], *_: Any, **__: Any) -> list[Any]:
    """The nodes between inputs and outputs, operands before users."""
    return shown_toposort(inputs, outputs)


list_of_nodes = io_toposort


def ops(i: Iterable[Any], o: Iterable[Any]) -> set[Any]:
    """The nodes between inputs and outputs."""
    return set(io_toposort(i, o))


assert_op = Assert()


def hashtype(self: Any) -> int:
    """A hash of an object's class."""
    return hash(type(self).__name__) ^ hash(type(self).__module__)


class MethodNotDefined(Exception):
    """A method that an op's writer left out."""


class TestValueError(Exception):
    """A test value that is missing."""

    __test__ = False


class NotScalarConstantError(Exception):
    """The variable's value is not known before it runs."""


class EmptyConstantError(NotScalarConstantError):
    """A constant without elements."""


FILLING = frozenset(
    {"second", "broadcast", "dimshuffle", "rebroadcast", "identity", "cast"}
)  # what fills an array with a number


def get_scalar_constant_value(v: Any, **_: Any) -> Any:
    """The value that a variable, or each of its elements, certainly has; NotScalarConstantError for one that is not known."""
    v = as_variable(v)
    dtype = v.type.numpy_dtype
    while v.owner is not None:
        joined = _element(v)
        if joined is None and v.owner.name not in FILLING:
            break
        v = v.owner.operands[-1] if joined is None else joined
    if isinstance(v, Constant) and not np.size(v.data):
        raise EmptyConstantError(v)
    if isinstance(v, Constant) and np.size(v.data) and (np.asarray(v.data) == np.ravel(v.data)[0]).all():
        return np.ravel(v.data)[0].astype(dtype)
    if not isinstance(v, Constant):
        known = [u for u in graph.inputs([v]) if not isinstance(u, Constant)]
        if known:
            raise NotScalarConstantError(v)
        try:
            elements = np.ravel(v.eval())
        except AssertionError as e:
            raise NotScalarConstantError(v) from e
        if not elements.size or (elements != elements[0]).any():
            raise NotScalarConstantError(v)
        return elements[0].astype(dtype)
    if np.size(v.data) != 1:
        raise NotScalarConstantError(v)
    return np.asarray(v.data).reshape(())[()]


def _element(v: Any) -> Any:
    """The scalar that `v`, an element of a vector of scalars, is; None for all others."""
    whole, index = getattr(v.owner, "index", None) or (None, None)
    if (
        v.type.ndim
        or whole is None
        or whole.type.ndim != 1
        or whole.owner is None
        or whole.owner.name != "concat"
    ):
        return None
    number = index[0] if isinstance(index, tuple) and len(index) == 1 else index
    number = number.data if isinstance(number, Constant) else number
    parts = whole.owner.operands
    if not isinstance(number, int | np.integer | np.ndarray) or builtins.any(
        p.type.shape != (1,) for p in parts
    ):
        return None
    return parts[int(number)]


def sparse_grad(v: Any) -> Any:
    """`v`: gradients of rows that were picked are sparse updates here without being asked for."""
    return v


def spectral_radius_bound(X: Any, log2_exponent: int) -> Any:  # noqa: N803
    """trace(X ** n) ** (1 / n) with n = 2 ** log2_exponent, which is not below the largest eigenvalue of a symmetric positive
    matrix, and near it for large n.  TypeError unless X is a matrix and the exponent an integer, ValueError unless it is positive."""
    x = as_variable(X)
    if x.type.ndim != 2:
        raise TypeError("spectral_radius_bound requires a matrix argument", x)
    if not isinstance(log2_exponent, int | np.integer):
        raise TypeError("spectral_radius_bound requires an integer exponent", log2_exponent)
    if log2_exponent <= 0:
        raise ValueError("spectral_radius_bound requires a strictly positive exponent", log2_exponent)
    for _ in range(log2_exponent):
        x = tensor.dot(x, x)
    return tensor.nlinalg.trace(x) ** (2.0**-log2_exponent)


def detect_nan(i: int, node: Any, fn: Any) -> None:
    """What MonitorMode may call: prints an operation that gave NaN, with its inputs and outputs."""
    for output in fn.outputs:
        value = np.asarray(output[0])
        if value.dtype.kind == "f" and np.isnan(value).any():
            print("*** NaN detected ***")
            debugprint(node)
            print(f"Inputs : {[x[0] for x in fn.inputs]}")
            print(f"Outputs: {[x[0] for x in fn.outputs]}")
            break


def dot(l: Any, r: Any) -> Any:  # noqa: E741
    """l r, of which one may be sparse.  Constants whose sizes do not fit are refused when a function is made of it, not before."""
    for x, name, other in ((l, "__dot__", r), (r, "__rdot__", l)):
        if hasattr(type(x), name):
            return getattr(x, name)(other)
    try:
        return tensor.dot(l, r)
    except ValueError:
        loose = [_of_any_size(as_variable(x)) for x in (l, r)]
        if loose == [l, r]:
            raise
        return tensor.dot(*loose)


def _of_any_size(x: Any) -> Any:
    """A constant whose type does not say its sizes; other variables as they are."""
    if not isinstance(x, TensorConstant):
        return x
    return TensorConstant(TensorType(x.type.dtype, x.type.broadcastable), x.data, x.name)


# -- numbers -----------------------------------------------------------------------------------------------------------


class Scalar(TensorType):
    """Theano's type of a number, which shows as its dtype: an array without axes here."""

    def __init__(self, dtype: str) -> None:
        super().__init__(dtype, ())

    def __str__(self) -> str:
        return self.dtype


def _scalars(dtype: str, names: Any) -> Any:
    """A number's variable, or one for each letter or each of several names."""
    listed = list(names[0]) if len(names) == 1 else list(names)
    made = [Scalar(dtype)(name) for name in listed]
    return made[0] if len(made) == 1 else made


def floats(*names: Any) -> Any:
    """Numbers of float64, one for each letter or name."""
    return _scalars("float64", names)


def ints(*names: Any) -> Any:
    """Numbers of int64, one for each letter or name."""
    return _scalars("int64", names)


def complexs(*names: Any) -> Any:
    """Numbers of complex128, one for each letter or name."""
    return _scalars("complex128", names)


int_types = "int8 int16 int32 int64 uint8 uint16 uint32 uint64".split()
float_types = "float16 float32 float64".split()
all_types = ["bool", *int_types, *float_types, "complex64", "complex128"]


def upcast(dtype: Any, *dtypes: Any) -> str:
    """The dtype that holds values of all of them, as expressions have it."""
    return functools.reduce(promote, (str(np.dtype(d)) for d in dtypes), str(np.dtype(dtype)))


def round_half_away_from_zero_vec(x: Any) -> Any:
    """An array's elements as the nearest whole numbers, halves away from zero."""
    x = np.asarray(x)
    return np.trunc(x + np.copysign(0.5, x)).astype(x.dtype)


def _asarray(a: Any, dtype: Any, order: Any = None) -> np.ndarray[Any, Any]:
    """`numpy.asarray`, with `floatX` among the dtypes."""
    return np.asarray(a, config.floatX if dtype == "floatX" else dtype, order)


def local_bitwidth() -> int:
    """The number of bits of an address."""
    return 8 * struct.calcsize("P")


def python_int_bitwidth() -> int:
    """The number of bits of C's long."""
    return 8 * struct.calcsize("l")


# -- devices -----------------------------------------------------------------------------------------------------------


def use_gpu(device: str, *_: Any, **__: Any) -> None:
    """Theano's way to choose a device after import; a warning says why it cannot be used."""
    try:
        found = chosen(device)
    except DeviceError as e:
        warn(f"{device} was asked for: {e}; functions run on the CPU")
    else:
        if found is not None:  # which `gpu` is, with a warning, where there is none
            config.device = device


pydot_imported = importlib.util.find_spec("pydot") is not None
pydot_imported_msg = "" if pydot_imported else "pydot is not installed"


# -- Python 2 ----------------------------------------------------------------------------------------------------------

izip, imap = builtins.zip, builtins.map


def cmp(a: Any, b: Any) -> int:
    """-1, 0 or 1 as a is below, equal to or above b."""
    return int(a > b) - int(a < b)


def exc_message(e: BaseException) -> Any:
    """The first argument of an exception, or all of them."""
    return e.args[0] if len(e.args) == 1 else e.args


# -- tensors -----------------------------------------------------------------------------------------------------------

uint_types = [t for t in int_types if t[0] == "u"]
complex_types = ["complex64", "complex128"]
integer_dtypes = int_dtypes = [t for t in int_types if t[0] != "u"]
integer_dtypes = [*int_dtypes, *uint_types]
uint_dtypes, float_dtypes, complex_dtypes, all_dtypes = uint_types, float_types, complex_types, all_types
discrete_dtypes = ["bool", *integer_dtypes]
continuous_dtypes = [*float_types, *complex_types]
scalar_kinds = {
    "int_types": int_dtypes,
    "uint_types": uint_types,
    "integer_types": integer_dtypes,
    "float_types": float_types,
    "complex_types": complex_types,
    "discrete_types": discrete_dtypes,
    "continuous_types": continuous_dtypes,
    "all_types": all_types,
}


def default(x: Any, default: Any) -> Any:
    """x, or `default` for None; TypeError unless they are of one type."""
    if x is None or isinstance(x, Constant) and x.data is None:
        return as_variable(default)
    x, default = as_variable(x), as_variable(default)
    if x.type != default.type:
        raise TypeError("Both default() arguments must have same type", x, default)
    return x


def makeKeepDims(x: Any, y: Any, axis: Any) -> Any:
    """y, a reduction of x over `axis`, with axes of size 1 in the place of those that are gone."""
    x, y = as_variable(x), as_variable(y)
    gone = set(axes_of(axis, x.type.ndim))
    kept = iter(range(y.type.ndim))
    return dimshuffle(y, *("x" if a in gone else next(kept) for a in range(x.type.ndim)))


def check_and_normalize_axes(x: Any, axis: Any) -> list[int]:
    """The axes as a list of numbers from 0 on; an empty one for None."""
    return [] if axis is None else list(axes_of(axis, as_variable(x).type.ndim))


def is_flat(var: Any, ndim: int | None = None, outdim: int | None = None) -> bool:
    """Whether a variable has `ndim` axes (1 if not given)."""
    wanted = ndim if ndim is not None else outdim if outdim is not None else 1
    return bool(as_variable(var).type.ndim == wanted)


def pfunc(params: Any, outputs: Any = None, **options: Any) -> Any:
    """`theano.function`, whose inputs are called `params` here."""
    return function(params, outputs, **options)


def divmod(x: Any, y: Any) -> tuple[Any, Any]:
    """x // y and x % y."""
    return tensor.int_div(x, y), tensor.mod(x, y)


def ceil_intdiv(a: Any, b: Any) -> Any:
    """a / b, rounded up, of integers."""
    whole = tensor.int_div(a, b)
    return whole + tensor.cast(tensor.neq(tensor.mod(a, b), 0), whole.type.dtype)


scalar_from_tensor, tensor_from_scalar = ops_of.ScalarFromTensor(), ops_of.TensorFromScalar()
make_vector = ops_of.MakeVector()
(
    _convert_to_bool,
    _convert_to_int8,
    _convert_to_int16,
    _convert_to_int32,
    _convert_to_int64,
    _convert_to_uint8,
    _convert_to_uint16,
    _convert_to_uint32,
    _convert_to_uint64,
    _convert_to_float16,
    _convert_to_float32,
    _convert_to_float64,
    _convert_to_complex64,
    _convert_to_complex128,
) = (functools.partial(tensor.cast, dtype=dtype) for dtype in all_dtypes)


Tensor = TensorType


def cpu_contiguous(x: Any) -> Any:
    """`x`: arrays of a graph have no strides."""
    return as_variable(x)


_dot = matrixops.Dot()


def _get_atol_rtol(a: Any, b: Any) -> tuple[float, float]:
    """The absolute and relative tolerance for comparing two arrays."""
    dtypes = {str(a.dtype), str(b.dtype)}
    if "float16" in dtypes:
        return 1e-3, 1e-3
    return (1e-5, 1e-5) if dtypes & {"float32", "complex64"} else (1e-8, 1e-5)


def _allclose(a: Any, b: Any, rtol: float | None = None, atol: float | None = None) -> bool:
    """`numpy.allclose`, with tolerances by the dtypes."""
    a, b = np.asarray(a), np.asarray(b)
    absolute, relative = _get_atol_rtol(a, b)
    return np.allclose(a, b, relative if rtol is None else rtol, absolute if atol is None else atol)


def format_as(use_list: bool, use_tuple: bool, outputs: Any) -> Any:
    """Outputs as a list, a tuple, or for neither as the only one of them."""
    assert not (use_list and use_tuple)
    if not use_list and not use_tuple:
        if isinstance(outputs, list | tuple):
            (outputs,) = outputs
        return outputs
    listed = list(outputs) if isinstance(outputs, list | tuple) else [outputs]
    return tuple(listed) if use_tuple else listed


disconnected_type = DisconnectedType()
