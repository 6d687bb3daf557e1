"""Types of variables: dtype, number of axes, and which axes broadcast."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tcc import handles
from tcc.ir import arrays
from tcc.ir.types import FROM_NUMPY, numpy_dtype
from tcc.ir.types import promote as promote_ir
from tcc.runtime import dlpack
from tcc.settings import config

if TYPE_CHECKING:
    from tcc.variable import Variable

NAMES = {ours: name for name, ours in FROM_NUMPY.items()}
Static = tuple[int | None, ...]  # sizes that are known; exactly the axes of size 1 broadcast

RANK_NAMES = {
    (): "scalar",
    (False,): "vector",
    (False, True): "col",
    (True, False): "row",
    (False, False): "matrix",
}


@functools.cache
def promote(*dtypes: str) -> str:
    """NumPy's promotion of arrays, on NumPy's names; bfloat16 with another float is float32 or that wider one."""
    if "bfloat16" in dtypes:
        return NAMES[promote_ir(*(FROM_NUMPY[d] for d in dtypes))]
    return np.result_type(*(np.dtype(d) for d in dtypes)).name


class Type:
    """What a variable may hold."""

    dtype = "object"
    ndim = 0

    def __call__(self, name: str | None = None) -> Variable:
        """A new variable of this type."""
        from tcc.variable import make_variable

        made: Variable = make_variable(self, name=name)
        return made

    make_variable = __call__

    def filter(self, data: Any, strict: bool = False, allow_downcast: bool | None = None) -> Any:
        """`data` as a value of this type, or TypeError."""
        raise NotImplementedError

    def filter_variable(self, other: Any, allow_convert: bool = True) -> Any:
        """`other` (a variable or value) as a variable of exactly this type, or TypeError."""
        from tcc.variable import Variable, make_constant

        if not isinstance(other, Variable):
            return make_constant(self, self.filter(other))
        if other.type != self:
            raise TypeError(f"Cannot convert Type {other.type} (of Variable {other}) into Type {self}.")
        return other

    def is_valid_value(self, data: Any) -> bool:
        """Whether `data` is such a value as it stands."""
        try:
            self.filter(data, strict=True)
        except (TypeError, ValueError):
            return False
        return True


class Packed(Type):
    """A type whose values are no arrays.  Inside functions they travel as arrays of the types `parts`."""

    @property
    def parts(self) -> tuple[TensorType, ...]:
        raise NotImplementedError

    def pack(self, value: Any) -> list[Any]:
        """A value of this type as arrays."""
        raise NotImplementedError

    def unpack(self, arrays: Sequence[Any]) -> Any:
        """The value that `pack` made arrays of."""
        raise NotImplementedError

    def variable_class(self) -> Any:
        from tcc.variable import GenericVariable

        return GenericVariable


class Handled(Packed):
    """A type of Python objects that only Python code reads: a number stands for each (tcc.handles)."""

    @property
    def parts(self) -> tuple[TensorType, ...]:
        return (tensor_type("int64", ()),)

    def pack(self, value: Any) -> list[Any]:
        return [handles.keep(value)]

    def unpack(self, arrays: Sequence[Any]) -> Any:
        return handles.kept(arrays[0])


class Generic(Handled):
    """Any Python object; only Python code reads it."""

    def filter(self, data: Any, strict: bool = False, allow_downcast: bool | None = None) -> Any:
        return data

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))

    def __repr__(self) -> str:
        return "<tcc.types.Generic>"


class NoneType(Generic):
    """None alone."""

    def filter(self, data: Any, strict: bool = False, allow_downcast: bool | None = None) -> Any:
        if data is not None:
            raise TypeError(f"Expected None, got {data!r}")
        return data

    def __repr__(self) -> str:
        return "NoneTypeT"


generic = Generic()
none_type = NoneType()


class TensorType(Type):
    """Arrays of one dtype and rank.  Axes flagged in `broadcastable` have size 1 and broadcast; others never do.

    `shape` may say sizes, None where unknown; a 1 there is a flag.  Equality is of dtype and flags.
    """

    filter_checks_isfinite = False  # on the class: whether no value may have a NaN or an infinity

    def __init__(
        self,
        dtype: str | np.dtype[Any] | type,
        broadcastable: Sequence[bool | int] | None = None,
        name: str | None = None,
        shape: Sequence[int | None] | None = None,
    ) -> None:
        self.dtype = dtype_name(dtype)
        if broadcastable is None and shape is None:
            raise TypeError("TensorType needs `broadcastable`, one flag for each axis, or `shape`")
        flags = tuple(bool(b) for b in broadcastable) if broadcastable is not None else None
        sizes: Static = tuple(shape) if shape is not None else tuple(1 if b else None for b in flags or ())
        if flags is not None:
            if len(flags) != len(sizes):
                raise TypeError(f"TensorType: {len(flags)} broadcast flags for shape {sizes}")
            for flag, size in zip(flags, sizes):
                if flag and size not in (None, 1):
                    raise TypeError(f"TensorType: an axis of size {size} cannot be broadcastable")
            sizes = tuple(1 if flag else size for flag, size in zip(flags, sizes))
        self.shape = sizes
        self.broadcastable = tuple(s == 1 for s in sizes)
        self.ir = FROM_NUMPY[self.dtype]
        self.numpy_dtype = numpy_dtype(self.ir)  # what carries its values: float32 those of bfloat16

    @property
    def ndim(self) -> int:  # type: ignore[override]
        return len(self.shape)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return (
            isinstance(other, TensorType)
            and self.dtype == other.dtype
            and self.broadcastable == other.broadcastable
        )

    def __hash__(self) -> int:
        return hash((self.dtype, self.broadcastable))

    def __repr__(self) -> str:
        flags = self.broadcastable
        text = RANK_NAMES.get(flags) or (str(flags) if any(flags) else f"{len(flags)}D")
        return f"TensorType({self.dtype}, {text})"

    def clone(
        self,
        dtype: str | None = None,
        broadcastable: Sequence[bool] | None = None,
        shape: Static | None = None,
    ) -> TensorType:
        """A type like this one, with some facts changed."""
        if broadcastable is not None:
            return TensorType(dtype or self.dtype, broadcastable)
        return tensor_type(dtype or self.dtype, self.shape if shape is None else shape)

    @staticmethod
    def values_eq(a: Any, b: Any) -> bool:
        """Whether two arrays have the same dtype, shape and elements; a NaN equals a NaN."""
        a, b = np.asarray(a), np.asarray(b)
        return a.dtype == b.dtype and bool(np.array_equal(a, b, equal_nan=a.dtype.kind in "fc"))

    @staticmethod
    def values_eq_approx(
        a: Any,
        b: Any,
        allow_remove_inf: bool = False,
        allow_remove_nan: bool = False,
        rtol: float | None = None,
        atol: float | None = None,
    ) -> bool:
        """Whether two arrays have the same dtype and shape, and elements as near as their dtype lets one expect.

        What `allow_remove_inf` and `allow_remove_nan` name in `a` may be anything in `b`.
        """
        a, b = np.asarray(a), np.asarray(b)
        if a.dtype != b.dtype or a.shape != b.shape:
            return False
        if a.dtype.kind not in "fc":
            return bool((a == b).all())
        narrow = {"float16": 1e-3, "float32": 1e-5, "complex64": 1e-5}.get(a.dtype.name)
        relative = (narrow or 1e-5) if rtol is None else rtol
        absolute = (narrow or 1e-8) if atol is None else atol
        near = np.isclose(a, b, relative, absolute, equal_nan=True)
        near |= (allow_remove_inf & np.isinf(a)) | (allow_remove_nan & np.isnan(a))
        return bool(near.all())

    def filter(
        self, data: Any, strict: bool = False, allow_downcast: bool | None = None
    ) -> np.ndarray[Any, Any]:
        """`data` as an array of this type.  Without `allow_downcast` no value may change.

        Arrays are judged by their dtype, numbers and lists by their values; with None a Python float always fits floatX.
        bfloat16 is float32 outside of functions, as NumPy lacks it, and is rounded here, half to even.
        """
        if type(data) is not np.ndarray or data.dtype != self.numpy_dtype:
            data = self._converted(data, strict, allow_downcast)
        if self.ir == "bf16":
            data = self.carried(data)
        shape = data.shape
        if len(shape) != len(self.shape):
            raise TypeError(
                f"Wrong number of dimensions: expected {self.ndim}, got {data.ndim} with shape {data.shape}."
            )
        for size, wanted in zip(shape, self.shape):
            if wanted is not None and size != wanted:
                self._refuse_shape(shape)
        if self.filter_checks_isfinite and self.numpy_dtype.kind in "fc" and not np.isfinite(data).all():
            raise ValueError(f"non-finite elements are not allowed in {self}")
        return data  # type: ignore[no-any-return]

    def carried(self, data: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """`data` in the NumPy dtype that carries values of this type, with no more digits than the type has."""
        data = np.asarray(data).astype(self.numpy_dtype, copy=False)
        return arrays.rounded(data) if self.ir == "bf16" else data

    def value_zeros(self, shape: Sequence[int]) -> np.ndarray[Any, Any]:
        """An array of zeros of this dtype."""
        return np.zeros(shape, self.numpy_dtype)

    def _refuse_shape(self, shape: tuple[int, ...]) -> None:
        if any(b and s != 1 for b, s in zip(self.broadcastable, shape)):
            raise TypeError(
                "Non-unit value on shape on a broadcastable dimension.", shape, self.broadcastable
            )
        raise ValueError(f"Wrong shape: expected {_shape_text(self.shape)}, got {shape}")

    def _converted(self, data: Any, strict: bool, allow_downcast: bool | None) -> np.ndarray[Any, Any]:
        from tcc.variable import Variable

        if isinstance(data, Variable):
            raise TypeError(
                "Expected an array-like object, but found a Variable: maybe you are trying to call a function on a "
                "(possibly shared) variable instead of a numeric array?"
            )
        if strict:
            if not isinstance(data, np.ndarray):
                raise TypeError(
                    f"{self} expected a ndarray object, got {type(data).__name__}: {_short(data)}"
                )
            raise TypeError(f"{self} expected a ndarray object with dtype = {self.dtype} (got {data.dtype}).")
        if self.ir == "bf16" and hasattr(data, "__dlpack_device__") and not isinstance(data, np.ndarray):
            if data.__dlpack_device__()[0] == dlpack.CPU:
                given, bfloat = dlpack.on_host(data)
                data = array = arrays.as_numbers(given, "bf16") if bfloat else given
                if array.dtype == self.numpy_dtype:
                    return array
        if allow_downcast:
            return np.asarray(data).astype(self.numpy_dtype, copy=False)
        if isinstance(data, np.ndarray):
            if promote(self.dtype, data.dtype.name) == self.dtype:
                return np.asarray(data, self.numpy_dtype)
            raise TypeError(
                f"{self} cannot store a value of dtype {data.dtype} without risking loss of precision. If you do not "
                f"mind this loss, {_how_to_convert(self)}."
            )
        if allow_downcast is None and type(data) is float and self.dtype == config.floatX:
            return np.asarray(data, self.numpy_dtype)
        try:
            exact = np.asarray(data)
        except ValueError as e:
            raise TypeError(f"{self} cannot store {_short(data)}: {e}") from e
        if exact.dtype.name not in FROM_NUMPY or exact.dtype.hasobject:
            kind = ValueError if exact.dtype.kind in "US" else TypeError  # as float("abc") and float({}) say
            raise kind(f"{self} cannot store {_short(data)}, a value of type {type(data).__name__}")
        with np.errstate(all="ignore"):
            converted = exact.astype(self.numpy_dtype)
        if np.array_equal(exact, converted, equal_nan=exact.dtype.kind in "fc"):
            return converted
        raise TypeError(
            f"{self} cannot store accurately value {_short(data)}, it would be represented as "
            f"{_short(converted.astype(exact.dtype).tolist())}. If you do "
            f"not mind this loss, {_how_to_convert(self)}."
        )

    def filter_variable(self, other: Any, allow_convert: bool = True) -> Any:
        """`other` (a variable, array or number) as a variable of exactly this type, or TypeError; with `allow_convert`, axes
        that certainly have one element may be taken for axes of any size."""
        from tcc.shapes import patternbroadcast
        from tcc.variable import Variable, make_constant

        if not isinstance(other, Variable):
            return make_constant(self, self.filter(other))
        if other.type == self:
            return other
        if allow_convert and isinstance(other.type, TensorType) and other.type.dtype == self.dtype:
            narrower = len(other.type.shape) == len(self.shape) and all(
                theirs or not ours for ours, theirs in zip(self.broadcastable, other.type.broadcastable)
            )
            if narrower:
                return patternbroadcast(other, self.broadcastable)
        raise TypeError(
            f"Cannot convert Type {other.type} (of Variable {other}) into Type {self}. You can try to manually convert "
            f"{other} into a {self}."
        )


@functools.lru_cache(1 << 12)
def tensor_type(dtype: str, shape: Static) -> TensorType:
    """The type of this dtype and these static sizes."""
    return TensorType(dtype, shape=shape)


def dtype_name(dtype: Any) -> str:
    """The name of a dtype, given as a name or as NumPy's object; "floatX" is config.floatX.  TypeError if there is none."""
    if isinstance(dtype, str) and dtype == "floatX":
        return str(config.floatX)
    try:
        name = str(np.dtype(dtype).name)
    except TypeError:
        name = str(dtype)
    if name not in FROM_NUMPY or name == "object":
        raise TypeError(f"Unsupported dtype for TensorType: {dtype}")
    return name


def _shape_text(shape: Static) -> str:
    return "(" + ", ".join("?" if s is None else str(s) for s in shape) + ")"


def _how_to_convert(wanted: TensorType) -> str:
    return (
        f'convert it, as .astype("{wanted.dtype}") does; a function converts its arguments if it is made with '
        "allow_input_downcast=True"
    )


def _short(data: Any) -> str:
    text = str(data)
    return text if len(text) <= 80 else text[:75] + "(...)"
