"""Functions of numbers that programs write as classes: `class Step(UnaryScalarOp)` with `impl`, for `Elemwise(Step(same_out))`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from tcc import build, tensor
from tcc.elemwise import TO_FLOAT
from tcc.theano.legacyop import LegacyOp, OpClass
from tcc.types import TensorType, promote
from tcc.user_op import Apply, Op
from tcc.variable import as_variable


def _number(dtype: str) -> TensorType:
    return TensorType(dtype, ())


def _floating(dtype: str) -> str:
    return TO_FLOAT.get(dtype, dtype)


def _upcast(*types: Any) -> str:
    dtypes: list[str] = [t.dtype for t in types]
    return functools.reduce(promote, dtypes)


# What the result's type is: a function of the operands' types gives one for each result.


def same_out(*types: Any) -> list[TensorType]:
    """The first operand's."""
    return [_number(types[0].dtype)]


def upcast_out(*types: Any) -> list[TensorType]:
    """The one that all operands fit into."""
    return [_number(_upcast(*types))]


def upgrade_to_float(*types: Any) -> list[TensorType]:
    """The one that all operands fit into as floats."""
    return [_number(_upcast(*(_number(_floating(t.dtype)) for t in types)))]


def same_out_float_only(*types: Any) -> list[TensorType]:
    """The first operand's; TypeError if it is no float."""
    if types[0].dtype not in ("float16", "float32", "float64"):
        raise TypeError(f"only floats are taken, got {types[0].dtype}")
    return same_out(*types)


def _real(of: Callable[..., list[TensorType]]) -> Callable[..., list[TensorType]]:
    def no_complex(*types: Any) -> list[TensorType]:
        if any(t.dtype.startswith("complex") for t in types):
            raise TypeError(f"complex numbers are not taken, got {', '.join(t.dtype for t in types)}")
        return of(*types)

    return no_complex


same_out_nocomplex, upgrade_to_float_no_complex = _real(same_out), _real(upgrade_to_float)


def specific_out(*wanted: Any) -> Callable[..., list[TensorType]]:
    """These, whatever the operands are."""
    return lambda *types: [_number(t.dtype) for t in wanted]


def transfer_type(*positions: Any) -> Callable[..., list[TensorType]]:
    """For each result, that of the operand of this number, or a type."""
    return lambda *types: [_number((types[p] if isinstance(p, int) else p).dtype) for p in positions]


class ScalarOp(Op):
    """A function of numbers, which runs in Python: `impl(*numbers)`, and `grad(inputs, output_grads)` if it has a gradient.

    It is applied to each element of arrays that broadcast.  `output_types_preference(*types)` tells the results' types.
    `c_code` is not run: NotImplementedError for an op without `impl`.
    """

    nin, nout = -1, 1

    def __init__(self, output_types_preference: Any = None, name: str | None = None) -> None:
        self.name = name
        if output_types_preference is not None:
            if not callable(output_types_preference):
                raise TypeError(f"{self}: output_types_preference must be a function of types")
            self.output_types_preference = output_types_preference

    def __str__(self) -> str:
        return getattr(self, "name", None) or super().__str__()

    def _props(self) -> tuple[Any, ...]:
        kind = getattr(self, "output_types_preference", None)
        return (*super()._props(), getattr(kind, "__func__", kind), getattr(self, "name", None))

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and isinstance(other, ScalarOp) and self._props() == other._props()

    def __hash__(self) -> int:
        return hash((type(self), self._props()))

    def output_types(self, types: Sequence[Any]) -> list[TensorType]:
        """One for each result."""
        if not hasattr(self, "output_types_preference"):
            raise NotImplementedError(f"the op {self} must be made with output_types_preference")
        return list(self.output_types_preference(*types))

    def make_node(self, *inputs: Any) -> Apply:
        values = [as_variable(v) for v in inputs]
        if self.nin >= 0 and len(values) != self.nin:
            raise TypeError(f"Wrong number of inputs for {self} (got {len(values)}, expected {self.nin})")
        values = build.broadcast_together(str(self), values)
        shape = values[0].type.shape
        types = self.output_types([_number(v.type.dtype) for v in values])
        return Apply(self, values, [TensorType(t.dtype, shape=shape)() for t in types])

    def infer_shape(self, node: Any, shapes: Sequence[Any]) -> list[Any]:
        return [shapes[0] for _ in node.outputs]

    def impl(self, *numbers: Any) -> Any:
        has = "c_code alone, which tcc does not run" if hasattr(self, "c_code") else "no impl"
        raise NotImplementedError(f"the op {self} has {has}: define impl, a function of numbers")

    def perform(self, node: Any, inputs: Sequence[Any], output_storage: Sequence[list[Any]]) -> None:
        made = np.frompyfunc(self.impl, len(inputs), len(node.outputs))(*inputs)
        for cell, result, output in zip(
            output_storage, made if isinstance(made, tuple) else (made,), node.outputs
        ):
            cell[0] = np.asarray(result, output.type.dtype)


class UnaryScalarOp(ScalarOp):
    """Of one number."""

    nin = 1


class BinaryScalarOp(ScalarOp):
    """Of two numbers."""

    nin = 2


class NamedScalarOp(LegacyOp):
    """One of Theano's classes of scalar ops, `GammaLn(upgrade_to_float, name="gammaln")`: the function of its name, whatever
    the type is said to be."""

    options = {"output_types_preference": None, "name": None}
    function: ClassVar[Callable[..., Any]]

    def apply(self, *inputs: Any) -> Any:
        return type(self).function(*inputs)

    def __str__(self) -> str:
        return self.name or type(self).__name__


# Theano's classes by the functions that their ops are; the others have the functions' names, capitalised.
_CLASSES = {
    **{
        name.capitalize(): name
        for name in "add angle ceil clip conj cos cosh erf erfc erfcinv erfcx erfinv exp exp2".split()
    },
    **{
        name.capitalize(): name
        for name in "expm1 floor gamma i0 i1 identity imag inv invert iv j0 j1 jv log".split()
    },
    **{
        name.capitalize(): name
        for name in "log10 log1p log2 maximum minimum mod mul neg pow psi real second sgn".split()
    },
    **{name.capitalize(): name for name in "sin sinh sqr sqrt sub switch tan tanh trunc".split()},
    **{name.upper(): name for name in "eq ge gt le lt neq".split()},
    **{f"Arc{name.capitalize()}": f"arc{name}" for name in "cos cosh sin sinh tan tan2 tanh".split()},
    **{name: f"{name.lower()}_" for name in ("Abs", "AND", "OR")},
    **{
        "XOR": "xor",
        "Chi2SF": "chi2sf",
        "Deg2Rad": "deg2rad",
        "Rad2Deg": "rad2deg",
        "IsInf": "isinf",
        "IsNan": "isnan",
    },
    **{
        "GammaInc": "gammainc",
        "GammaIncC": "gammaincc",
        "GammaL": "gammal",
        "GammaLn": "gammaln",
        "GammaU": "gammau",
    },
    **{"IntDiv": "int_div", "TrueDiv": "true_div", "TriGamma": "tri_gamma"},
    **{
        f"RoundHalf{how}": f"round_half_{word}"
        for how, word in (("AwayFromZero", "away_from_zero"), ("ToEven", "to_even"))
    },
    **{"ScalarSigmoid": "nnet.sigmoid", "ScalarSoftplus": "nnet.softplus"},
}
_ROWS = {
    **{
        "abs_": "abs",
        "and_": "and",
        "or_": "or",
        "int_div": "floordiv",
        "true_div": "div",
        "neq": "ne",
        "sgn": "sign",
    },
    **{"inv": "reciprocal", "invert": "not", "switch": "where", "tri_gamma": "trigamma"},
    **{f"arc{name}": f"a{name}" for name in "cos cosh sin sinh tan tan2 tanh".split()},
    **{"round_half_away_from_zero": "round_half_away", "round_half_to_even": "rint"},
}


def _named(name: str, path: str) -> OpClass:
    function: Any = functools.reduce(getattr, path.split("."), tensor)
    row = _ROWS.get(path, path.rpartition(".")[2])
    body = {
        "function": staticmethod(function),
        "rows": (row,),
        "__module__": __name__,
        "__doc__": function.__doc__,
    }
    return OpClass(name, (NamedScalarOp,), body)


globals().update({name: _named(name, path) for name, path in _CLASSES.items()})
