"""What tensor variables can do: operators and methods, all of them functions of `tcc.tensor`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import tcc

if TYPE_CHECKING:
    from tcc.types import TensorType

COMPARISONS = frozenset({"eq", "ne", "lt", "le", "gt", "ge"})


class TensorOperators:
    """Mixed into tensor variables, constants and shared variables.  `==` is identity, as a dictionary needs it."""

    type: TensorType
    owner: Any
    name: str | None
    __array_priority__ = 1000  # NumPy leaves `array + x` to us

    # -- static facts

    @property
    def dtype(self) -> str:
        return self.type.dtype

    @property
    def ndim(self) -> int:
        return len(self.type.shape)

    @property
    def broadcastable(self) -> tuple[bool, ...]:
        return self.type.broadcastable

    # -- arithmetic

    def __abs__(self) -> Any:
        return tcc.tensor.abs_(self)

    def __neg__(self) -> Any:
        return tcc.tensor.neg(self)

    def __pos__(self) -> Any:
        return self

    def __add__(self, other: Any) -> Any:
        return _binary("add", self, other)

    def __radd__(self, other: Any) -> Any:
        return _binary("add", other, self)

    def __sub__(self, other: Any) -> Any:
        return _binary("sub", self, other)

    def __rsub__(self, other: Any) -> Any:
        return _binary("sub", other, self)

    def __mul__(self, other: Any) -> Any:
        return _binary("mul", self, other)

    def __rmul__(self, other: Any) -> Any:
        return _binary("mul", other, self)

    def __truediv__(self, other: Any) -> Any:
        return _binary("true_div", self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return _binary("true_div", other, self)

    def __floordiv__(self, other: Any) -> Any:
        return _binary("int_div", self, other)

    def __rfloordiv__(self, other: Any) -> Any:
        return _binary("int_div", other, self)

    def __mod__(self, other: Any) -> Any:
        return _binary("mod", self, other)

    def __rmod__(self, other: Any) -> Any:
        return _binary("mod", other, self)

    def __divmod__(self, other: Any) -> Any:
        return self // other, self % other

    def __pow__(self, other: Any) -> Any:
        return _binary("pow", self, other)

    def __rpow__(self, other: Any) -> Any:
        return _binary("pow", other, self)

    def __matmul__(self, other: Any) -> Any:
        return _binary("matmul", self, other)

    def __rmatmul__(self, other: Any) -> Any:
        return _binary("matmul", other, self)

    def __floor__(self) -> Any:
        return tcc.tensor.floor(self)

    def __ceil__(self) -> Any:
        return tcc.tensor.ceil(self)

    def __trunc__(self) -> Any:
        return tcc.tensor.trunc(self)

    # -- comparisons (`==` stays identity: tcc.tensor.eq compares elements)

    def __lt__(self, other: Any) -> Any:
        return _binary("lt", self, other)

    def __le__(self, other: Any) -> Any:
        return _binary("le", self, other)

    def __gt__(self, other: Any) -> Any:
        return _binary("gt", self, other)

    def __ge__(self, other: Any) -> Any:
        return _binary("ge", self, other)

    def __bool__(self) -> bool:
        """True, but for comparisons, where Python's `if` and `and` cannot mean what was written."""
        if self.owner is not None and self.owner.name in COMPARISONS:
            raise TypeError(
                "Variables do not support boolean operations. tcc.tensor.switch chooses element by element, "
                "tcc.ifelse between two expressions, and & and | stand for `and` and `or`."
            )
        return True

    # -- bits

    def __invert__(self) -> Any:
        return tcc.tensor.invert(self)

    def __and__(self, other: Any) -> Any:
        return _binary("and_", self, other)

    def __rand__(self, other: Any) -> Any:
        return _binary("and_", other, self)

    def __or__(self, other: Any) -> Any:
        return _binary("or_", self, other)

    def __ror__(self, other: Any) -> Any:
        return _binary("or_", other, self)

    def __xor__(self, other: Any) -> Any:
        return _binary("xor", self, other)

    def __rxor__(self, other: Any) -> Any:
        return _binary("xor", other, self)

    # -- shape

    @property
    def shape(self) -> Any:
        return tcc.tensor.shape(self)

    @property
    def size(self) -> Any:
        return tcc.tensor.size(self)

    @property
    def real(self) -> Any:
        return tcc.tensor.real(self)

    @property
    def imag(self) -> Any:
        return tcc.tensor.imag(self)

    @property
    def T(self) -> Any:
        return tcc.tensor.transpose(self)

    def __len__(self) -> int:
        raise TypeError("object of type 'TensorVariable' has no len(): use x.shape[0]")

    def __index__(self) -> int:
        raise TypeError(
            "'TensorVariable' object cannot be interpreted as an integer: it has a value when a function runs. "
            "T.arange, T.zeros and tcc.scan take variables, where range, np.zeros and loops take numbers."
        )

    def __iter__(self) -> Iterator[Any]:
        length = tcc.tensor.get_vector_length_or_none(self)
        if length is None:
            raise TypeError(
                "TensorType does not support iteration. Maybe you are using builtin.sum instead of "
                "theano.tensor.sum? (Maybe .max?)"
            )
        return (self[i] for i in range(length))

    def __getitem__(self, index: Any) -> Any:
        return tcc.tensor.subtensor(self, index)

    def __setitem__(self, index: Any, value: Any) -> None:
        raise TypeError(
            "A variable does not change: tcc.tensor.set_subtensor(x[index], value) is x with other elements there, "
            "inc_subtensor adds to them."
        )

    def take(self, indices: Any, axis: int | None = None, mode: str = "raise") -> Any:
        return tcc.tensor.take(self, indices, axis, mode)

    def reshape(self, shape: Any, ndim: int | None = None) -> Any:
        return tcc.tensor.reshape(self, shape, ndim=ndim)

    def flatten(self, ndim: int = 1) -> Any:
        return tcc.tensor.flatten(self, ndim)

    def ravel(self) -> Any:
        return tcc.tensor.flatten(self)

    def dimshuffle(self, *pattern: Any) -> Any:
        return tcc.tensor.dimshuffle(self, *pattern)

    def transpose(self, *axes: Any) -> Any:
        if len(axes) == 1 and isinstance(axes[0], list | tuple):
            axes = tuple(axes[0])
        return tcc.tensor.transpose(self, axes or None)

    def swapaxes(self, axis1: int, axis2: int) -> Any:
        return tcc.tensor.swapaxes(self, axis1, axis2)

    def squeeze(self) -> Any:
        return tcc.tensor.squeeze(self)

    def diagonal(self, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
        return tcc.tensor.diagonal(self, offset, axis1, axis2)

    def fill(self, value: Any) -> Any:
        return tcc.tensor.fill(self, value)

    def copy(self, name: str | None = None) -> Any:
        made = tcc.tensor.tensor_copy(self)
        made.name = name
        return made

    def astype(self, dtype: str) -> Any:
        return tcc.tensor.cast(self, dtype)

    # -- reductions

    def sum(self, axis: Any = None, dtype: Any = None, keepdims: bool = False, acc_dtype: Any = None) -> Any:
        return tcc.tensor.sum(self, axis, dtype, keepdims, acc_dtype)

    def prod(self, axis: Any = None, dtype: Any = None, keepdims: bool = False, acc_dtype: Any = None) -> Any:
        return tcc.tensor.prod(self, axis, dtype, keepdims, acc_dtype)

    def mean(self, axis: Any = None, dtype: Any = None, keepdims: bool = False, acc_dtype: Any = None) -> Any:
        return tcc.tensor.mean(self, axis, dtype, keepdims=keepdims, acc_dtype=acc_dtype)

    def var(self, axis: Any = None, ddof: int = 0, keepdims: bool = False, corrected: bool = False) -> Any:
        return tcc.tensor.var(self, axis, ddof, keepdims, corrected)

    def std(self, axis: Any = None, ddof: int = 0, keepdims: bool = False, corrected: bool = False) -> Any:
        return tcc.tensor.std(self, axis, ddof, keepdims, corrected)

    def max(self, axis: Any = None, keepdims: bool = False) -> Any:
        return tcc.tensor.max(self, axis, keepdims)

    def min(self, axis: Any = None, keepdims: bool = False) -> Any:
        return tcc.tensor.min(self, axis, keepdims)

    def argmax(self, axis: Any = None, keepdims: bool = False) -> Any:
        return tcc.tensor.argmax(self, axis, keepdims)

    def argmin(self, axis: Any = None, keepdims: bool = False) -> Any:
        return tcc.tensor.argmin(self, axis, keepdims)

    def any(self, axis: Any = None, keepdims: bool = False) -> Any:
        return tcc.tensor.any(self, axis, keepdims)

    def all(self, axis: Any = None, keepdims: bool = False) -> Any:
        return tcc.tensor.all(self, axis, keepdims)

    def ptp(self, axis: int | None = None) -> Any:
        return tcc.tensor.ptp(self, axis)

    def norm(self, L: Any, axis: Any = None, keepdims: bool = False) -> Any:
        return tcc.tensor.norm(self, L, axis, keepdims)

    def searchsorted(self, v: Any, side: str = "left", sorter: Any = None) -> Any:
        from tcc.tensor.extra_ops import searchsorted

        return searchsorted(self, v, side, sorter)

    def cumsum(self, axis: int | None = None) -> Any:
        return tcc.tensor.cumsum(self, axis)

    def cumprod(self, axis: int | None = None) -> Any:
        return tcc.tensor.cumprod(self, axis)

    # -- others

    def trace(self) -> Any:
        return tcc.tensor.trace(self)

    def conj(self) -> Any:
        return tcc.tensor.conj(self)

    conjugate = conj

    def choose(self, choices: Any, mode: str = "raise") -> Any:
        return tcc.tensor.choose(self, choices, mode)

    def compress(self, x: Any, axis: int | None = None) -> Any:
        return tcc.tensor.compress(self, x, axis)

    def get_scalar_constant_value(self) -> Any:
        return tcc.tensor.get_scalar_constant_value(self)

    def dot(self, other: Any) -> Any:
        return tcc.tensor.dot(self, other)

    def nonzero(self, return_matrix: bool = False) -> Any:
        return tcc.tensor.nonzero(self, return_matrix)

    def nonzero_values(self) -> Any:
        return tcc.tensor.nonzero_values(self)

    def sort(self, axis: int = -1, kind: str = "quicksort", order: Any = None) -> Any:
        return tcc.tensor.sort(self, axis, kind, order)

    def argsort(self, axis: int = -1, kind: str = "quicksort", order: Any = None) -> Any:
        return tcc.tensor.argsort(self, axis, kind, order)

    def clip(self, a_min: Any, a_max: Any) -> Any:
        return tcc.tensor.clip(self, a_min, a_max)

    def round(self, mode: str | None = None) -> Any:
        return tcc.tensor.round(self, mode)

    def trunc(self) -> Any:
        return tcc.tensor.trunc(self)

    def repeat(self, repeats: Any, axis: int | None = None) -> Any:
        return tcc.tensor.repeat(self, repeats, axis)

    def zeros_like(self, dtype: str | None = None) -> Any:
        return tcc.tensor.zeros_like(self, dtype)

    def ones_like(self, dtype: str | None = None) -> Any:
        return tcc.tensor.ones_like(self, dtype)


def _unary(name: str) -> Callable[[Any], Any]:
    def method(self: Any) -> Any:
        return getattr(tcc.tensor, name)(self)

    method.__name__ = name
    method.__doc__ = f"tcc.tensor.{name} of it, which is what NumPy's function of that name calls."
    return method


for _name in (
    "arccos arccosh arcsin arcsinh arctan arctanh ceil cos cosh deg2rad exp exp2 expm1 floor log log10 log1p log2 "
    "rad2deg sin sinh sqrt tan tanh"
).split():
    setattr(TensorOperators, _name, _unary(_name))


def _binary(name: str, a: Any, b: Any) -> Any:
    """NotImplemented for what cannot be a tensor of numbers, so that Python asks the other operand."""
    if any(v is None or isinstance(v, str | bytes) for v in (a, b)):
        return NotImplemented
    if getattr(b, "is_sparse", False) or getattr(a, "is_sparse", False):
        return NotImplemented
    return getattr(tcc.tensor, name)(a, b)
