"""Variables: what the user's expressions are made of."""

from __future__ import annotations

import itertools
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import numpy as np

from tcc.graph import Apply, flat
from tcc.ir.types import FROM_NUMPY, numpy_dtype
from tcc.locations import Location, user_location
from tcc.operators import TensorOperators
from tcc.settings import config, device_name
from tcc.types import Packed, TensorType, Type, dtype_name, tensor_type

Array = np.ndarray[Any, Any]


class AsTensorError(TypeError):
    """The object cannot stand in an expression."""


class Variable:
    """A node of the graph: an input, or result `index` of the node `owner`.  Identity is the object."""

    __count__ = itertools.count()
    # of what `Rop` makes: the inputs of what it differentiates, which functions may take
    moved_by: tuple[Variable, ...] = ()

    def __init__(
        self, type: Type, owner: Apply | None = None, index: int | None = None, name: str | None = None
    ) -> None:
        self.type: Any = type
        self.owner = owner
        self.index = index
        self.name = name
        self.loc: Location = user_location() if owner is None else owner.loc

    @cached_property
    def tag(self) -> SimpleNamespace:
        """Notes of the user's, such as `test_value`."""
        return SimpleNamespace()

    @cached_property
    def auto_name(self) -> str:
        """A name of its own, `auto_12`: the next one when it is first asked for."""
        return f"auto_{next(Variable.__count__)}"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return flat(self, self.owner) or super().__reduce_ex__(protocol)

    def __copy__(self) -> Any:
        made = object.__new__(type(self))
        made.__dict__.update(self.__getstate__())
        return made

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled: all but the functions that `eval` keeps."""
        return {k: v for k, v in self.__dict__.items() if k != "_fn_cache"}

    def clone(self) -> Any:
        """Another variable like this one, without its owner."""
        return make_variable(self.type, self.name)

    def eval(self, inputs_to_values: dict[Variable, Any] | None = None) -> Any:
        """The value, given those of the inputs that it hangs on; compiled functions are kept with the variable."""
        from tcc.compiling import evaluate

        return evaluate(self, inputs_to_values or {})

    def transfer(self, target: str) -> Any:
        """This value; as an output of a function it is left on the device `target` (`cpu`: the host)."""
        return transfer(self, target)

    def get_parents(self) -> list[Any]:
        return [self.owner] if self.owner is not None else []

    def __str__(self) -> str:
        from tcc.printing import variable_text

        return variable_text(self)

    def __repr__(self) -> str:
        return str(self)


class TensorVariable(TensorOperators, Variable):
    """An array that is computed or given."""


class GenericVariable(Variable):
    """Any object; only Python code reads it."""


class Constant(Variable):
    """A value that the graph itself holds."""

    def __init__(self, type: Type, data: Any, name: str | None = None) -> None:
        self.type, self.owner, self.index, self.name = type, None, None, name
        self.data = data

    loc: Location = ("", 0)

    @property
    def value(self) -> Any:
        return self.data

    def signature(self) -> tuple[Any, ...]:
        """What equal constants have in common."""
        return self.type, self.data

    def equals(self, other: Any) -> bool:
        """Whether another variable is a constant of the same type and value."""
        return isinstance(other, Constant) and self.signature() == other.signature()

    @cached_property
    def tag(self) -> SimpleNamespace:
        """Notes of the user's; the value is its own test value, since programs ask for that of shapes, which may be constants."""
        return SimpleNamespace(test_value=self.data)

    def clone(self) -> Any:
        return type(self)(self.type, self.data, self.name)


class TensorConstant(TensorOperators, Constant):
    """An array as a constant; `origin` is the constant that an implicit cast made it of, for printing, `sized` the
    variable whose sizes, all known, it holds."""

    origin: TensorConstant | None = None
    sized: Any = None

    def signature(self) -> tuple[Any, ...]:
        """What equal constants have in common: the type and the bits."""
        return self.type, self.data.shape, self.data.tobytes()


class SharedVariable(Variable):
    """A value that outlives calls: functions read it, and their updates write it.  See tcc.sharedvar."""

    container: Any
    default_update: Any = None
    target: str | None = None  # the device that functions of it run on, unless they say otherwise


def make_variable(type: Type, name: str | None = None) -> Any:
    """An input of this type."""
    if isinstance(type, TensorType):
        return TensorVariable(type, name=name)
    return variable_class(type)(type, name=name)


def variable_class(type: Any) -> Any:
    """The class of variables of a type."""
    if isinstance(type, TensorType):
        return TensorVariable
    return type.variable_class() if isinstance(type, Packed) else GenericVariable


def result_of(type: Any, owner: Apply, index: int) -> Any:
    cls = TensorVariable if isinstance(type, TensorType) else variable_class(type)
    v = cls.__new__(cls)
    v.type, v.owner, v.index, v.name, v.loc = type, owner, index, None, owner.loc
    return v


def make_constant(type: Type, data: Any, name: str | None = None) -> Any:
    """A constant of this type."""
    if isinstance(type, TensorType):
        return TensorConstant(type, data, name)
    return Constant(type, data, name)


def scalar_constant(value: Any, dtype: str) -> TensorConstant:
    """A 0-d constant."""
    type = tensor_type(dtype, ())
    return TensorConstant(type, type.carried(np.asarray(value)))


def number_dtype(value: int | float) -> str:
    """What dtype a Python number has in an expression (config.cast_policy)."""
    if isinstance(value, float):
        if config.floatX == "float64" and config.cast_policy == "custom" and _survives_float32(value):
            return "float32"
        return str(config.floatX)
    if config.cast_policy != "custom":
        return "int64" if -(2**63) <= value < 2**63 else "uint64"
    for dtype, limit in (("int8", 2**7), ("int16", 2**15), ("int32", 2**31), ("int64", 2**63)):
        if -limit <= value < limit:
            return dtype
    if 0 <= value < 2**64:
        return "uint64"
    raise OverflowError(f"the integer {value} does not fit 64 bits")


def _survives_float32(value: float) -> bool:
    with np.errstate(over="ignore"):
        return value != value or float(np.float32(value)) == value


def constant(
    value: Any, name: str | None = None, ndim: int | None = None, dtype: str | None = None
) -> TensorConstant:
    """A constant: Python numbers take the smallest dtype that holds them, arrays keep theirs; sizes of 1 broadcast."""
    if dtype is not None:
        data = np.asarray(value, numpy_dtype(FROM_NUMPY[dtype_name(dtype)]))
    elif isinstance(value, bool) and ndim != 0:
        raise AsTensorError(
            "Cannot cast True or False as a tensor variable. Please use np.array(True) or np.array(False) if you need "
            "these constants. This error might be caused by using the == operator on Variables. v == w does not do what "
            "you think it does, use theano.tensor.eq(v, w) instead."
        )
    elif isinstance(value, int | float) and not isinstance(value, np.generic):
        data = np.asarray(value, number_dtype(value))
    else:
        try:
            data = np.asarray(value)
        except ValueError as e:
            raise AsTensorError(f"Cannot convert {value!r} to a tensor: {e}") from e
        if isinstance(value, list | tuple) and not data.size:
            data = data.astype(
                numpy_dtype(FROM_NUMPY[config.floatX])
            )  # NumPy says float64 where nothing says what
    if data.dtype.name not in FROM_NUMPY or data.dtype.hasobject:
        raise AsTensorError(f"Cannot convert {value!r} to TensorType", type(value))
    if isinstance(value, np.ndarray) and data is value:
        data = value.copy()
    if ndim is not None and data.ndim != ndim:
        if data.ndim > ndim:
            raise ValueError(f"ndarray could not be cast to have {ndim} dimensions: it has {data.ndim}")
        data = data.reshape((1,) * (ndim - data.ndim) + data.shape)
    if not data.dtype.isnative:
        data = data.astype(data.dtype.newbyteorder("="))
    made = tensor_type(data.dtype.name if dtype is None else dtype_name(dtype), data.shape)
    return TensorConstant(made, made.carried(data), name)


def as_variable(x: Any, name: str | None = None, ndim: int | None = None) -> Any:
    """`x` (a variable, number, array, or list of these) as a tensor variable; AsTensorError if it cannot be one."""
    if isinstance(x, TensorOperators):
        if ndim is None or x.ndim == ndim:
            return x
        from tcc.shapes import shape_padleft

        if x.ndim < ndim:
            return shape_padleft(x, ndim - x.ndim)
        if all(x.type.broadcastable[: x.ndim - ndim]):
            return x.dimshuffle(*range(x.ndim - ndim, x.ndim))
        raise ValueError(f"TensorType could not be cast to have {ndim} dimensions: it has {x.ndim}", x.type)
    if isinstance(x, Apply):
        default = getattr(x.op, "default_output", None)
        if default is None and len(x.results) != 1:
            raise ValueError("It is ambiguous which output of a multi-output Op has to be fetched.", x)
        return as_variable(x.out, name, ndim)
    if isinstance(x, Variable):
        raise AsTensorError("Variable type field must be a TensorType.", x, x.type)
    if isinstance(x, list | tuple) and _holds_variable(x):
        from tcc.joining import stack

        return as_variable(stack([as_variable(item) for item in x]), name, ndim)
    return constant(x, name, ndim)


as_tensor_variable = as_variable


def _holds_variable(items: Any) -> bool:
    return any(isinstance(i, Variable) or (isinstance(i, list | tuple) and _holds_variable(i)) for i in items)


def transfer(x: Any, target: str) -> Any:
    """x; as an output of a function it is left on the device `target`, and is an array of that device for the caller.

    `cpu` is the host.  ValueError for a name that means no device.
    """
    from tcc.build import node

    x = as_variable(x)
    if device_name(target) == device_name(target_of(x)):
        return x
    made = node("identity", x).results[0]
    made.tag.target = target
    return made


def target_of(x: Any) -> str:
    """Where `transfer` has put a variable."""
    return str(x.tag.target) if "tag" in x.__dict__ and hasattr(x.tag, "target") else "cpu"
