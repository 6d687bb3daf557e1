"""Inputs of every rank and dtype, and arrays made of sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tcc import build
from tcc.build import as_size, node, shape_of, size_of, static_size
from tcc.elemwise import DISCRETE, add, cast, ceil, ge, invert, maximum, mul, sub, true_div
from tcc.graph import Shown
from tcc.ir.types import FROM_NUMPY
from tcc.settings import config
from tcc.shapes import as_sizes, dimshuffle, shape_padright
from tcc.types import TensorType, dtype_name, promote, tensor_type
from tcc.variable import TensorConstant, Variable, as_variable, scalar_constant

RANKS: dict[str, tuple[bool, ...]] = {
    "scalar": (),
    "vector": (False,),
    "row": (True, False),
    "col": (False, True),
    "matrix": (False, False),
    "tensor3": (False,) * 3,
    "tensor4": (False,) * 4,
    "tensor5": (False,) * 5,
    "tensor6": (False,) * 6,
    "tensor7": (False,) * 7,
}
PREFIXES = {
    "": None,
    "b": "int8",
    "w": "int16",
    "i": "int32",
    "l": "int64",
    "f": "float32",
    "d": "float64",
    "c": "complex64",
    "z": "complex128",
}
PLURALS = {"matrix": "matrices"}


class Constructor(TensorType):
    """The type that `fmatrix` and its kin stand for; called, it makes a variable."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"a type has no attribute {name!r}: called, as T.dmatrix('x'), it makes a variable"
        )

    def __call__(
        self, name: str | None = None, dtype: str | None = None, shape: Sequence[int | None] | None = None
    ) -> Any:
        if shape is not None and len(shape) != self.ndim:
            raise TypeError(f"{self}: shape must have {self.ndim} sizes, got {tuple(shape)}")
        flags = self.broadcastable
        return TensorType(dtype or self.dtype, flags if shape is None or any(flags) else None, shape=shape)(
            name
        )


def _constructor(kind: str, prefix: str) -> Callable[..., Any]:
    flags, fixed = RANKS[kind], PREFIXES[prefix]
    if fixed is not None:
        return Constructor(fixed, flags)

    def make(
        name: str | None = None, dtype: str | None = None, shape: Sequence[int | None] | None = None
    ) -> Any:
        chosen = dtype or str(config.floatX)
        if shape is not None and len(shape) != len(flags):
            raise TypeError(f"{kind}: shape must have {len(flags)} sizes, got {tuple(shape)}")
        return TensorType(chosen, flags if shape is None or any(flags) else None, shape=shape)(name)

    make.__name__ = make.__qualname__ = kind
    broadcast = [f"axis {n}" for n, flag in enumerate(flags) if flag]
    says = f"  It has size 1 along {' and '.join(broadcast)}, and broadcasts there." if broadcast else ""
    make.__doc__ = f"A new {kind} of `dtype` (config.floatX without one); `shape` may fix sizes.{says}"
    return make


def _plural(singular: Callable[..., Any], name: str) -> Callable[..., list[Any]]:
    def make(*names: Any, dtype: str | None = None) -> list[Any]:
        if len(names) == 1 and isinstance(names[0], int):
            names = (None,) * names[0]
        elif len(names) == 1:
            names = tuple(names[0])
        return [singular(n, dtype=dtype) for n in names]

    make.__doc__ = f"Several of {name}: by names, by the letters of one string, or by their number."
    return make


CONSTRUCTORS: dict[str, Callable[..., Any]] = {}
for _prefix in PREFIXES:
    for _kind in RANKS:
        _make = _constructor(_kind, _prefix)
        CONSTRUCTORS[_prefix + _kind] = _make
        CONSTRUCTORS[_prefix + PLURALS.get(_kind, _kind + "s")] = _plural(_make, _prefix + _kind)


def tensor(*args: Any, **kwargs: Any) -> Any:
    """A new variable: tensor(dtype, broadcastable, name=..., shape=...)."""
    name = kwargs.pop("name", None)
    return TensorType(*args, **kwargs)(name)


# -- filled arrays ---------------------------------------------------------------------------------------------------


def alloc(value: Any, *sizes: Any) -> Any:
    """`value` stretched to these sizes; literal sizes of 1 broadcast."""
    value = as_variable(value)
    if len(sizes) == 1 and isinstance(sizes[0], list | tuple):
        sizes = tuple(sizes[0])
    wanted = as_sizes(sizes, "alloc")
    if value.type.ndim > len(wanted):
        raise TypeError(
            "The Alloc value to use has more dimensions than the specified dimensions",
            value.type.ndim,
            len(wanted),
        )
    static = tuple(static_size(s) for s in wanted)
    made = node("broadcast", value, shape=wanted, types=(tensor_type(value.type.dtype, static),))
    made.shown = Shown("Alloc", (value, *(s if isinstance(s, Variable) else as_variable(s) for s in wanted)))
    return made.result


def _filled(number: int, shape: Any, dtype: str | None) -> Any:
    sizes = as_sizes(shape, "shape")
    return alloc(scalar_constant(number, _float(dtype)), *sizes)


def _float(dtype: Any) -> str:
    return dtype_name("floatX" if dtype is None else dtype)


def zeros(shape: Any, dtype: str | None = None) -> Any:
    """Zeros of `dtype` (config.floatX without one)."""
    return _filled(0, shape, dtype)


def ones(shape: Any, dtype: str | None = None) -> Any:
    """Ones of `dtype` (config.floatX without one)."""
    return _filled(1, shape, dtype)


def zeros_like(model: Any, dtype: str | None = None, opt: bool = False) -> Any:
    """Zeros in the shape of the model."""
    return _like(0, model, dtype)


def ones_like(model: Any, dtype: str | None = None, opt: bool = False) -> Any:
    """Ones in the shape of the model."""
    return _like(1, model, dtype)


def _like(number: int, model: Any, dtype: str | None) -> Any:
    model = as_variable(model)
    chosen = model.type.dtype if dtype is None else _float(dtype)
    value = scalar_constant(number, chosen)
    made = build.broadcast_to(value, shape_of(model), implicit=False)
    if made.owner is None:  # without axes; it hangs on the model all the same
        types = (tensor_type(chosen, ()),)
        return build.node(
            "second", model, value, types=types, shown=Shown("Elemwise{second,no_inplace}", (model, value))
        ).result
    made.owner.shown = Shown("Elemwise{second,no_inplace}", (model, value))
    return made


def full(shape: Any, fill_value: Any, dtype: str | None = None) -> Any:
    """An array of one value."""
    value = as_variable(fill_value)
    return alloc(value if dtype is None else cast(value, dtype), *as_sizes(shape, "full"))


def eye(n: Any, m: Any = None, k: Any = 0, dtype: str | None = None) -> Any:
    """Ones on the `k`-th diagonal, else zeros; n x m, or n x n."""
    rows = as_size(n, "eye: n")
    columns = rows if m is None else as_size(m, "eye: m")
    diagonal = static_size(as_variable(k))
    if diagonal is None:
        row, column = (node("iota", shape=[rows, columns], axis=a, dtype="i64").result for a in (0, 1))
        shifted = build.elementwise("add", row, build.cast(as_variable(k), "int64"))
        return build.cast(build.elementwise("eq", shifted, column), _float(dtype))
    return node("eye", shape=[rows, columns], k=diagonal, dtype=FROM_NUMPY[_float(dtype)]).result


def identity_like(x: Any) -> Any:
    """An identity matrix in the shape of x."""
    x = as_variable(x)
    return eye(size_of(x, 0), size_of(x, 1), k=0, dtype=x.type.dtype)


def arange(start: Any, stop: Any = None, step: Any = 1, dtype: str | None = None) -> Any:
    """start, start + step, ... below stop.  Of integers int64, of Python floats config.floatX, otherwise promoted."""
    if stop is None:
        start, stop = 0, start
    first, last, by = as_variable(start), as_variable(stop), as_variable(step)
    if dtype is None:
        dtype = promote(first.type.dtype, last.type.dtype, by.type.dtype)
        if dtype in DISCRETE:
            dtype = "uint64" if dtype == "uint64" else "int64"
        elif config.cast_policy == "custom" and _python_floats(start, stop, step):
            dtype = str(config.floatX)
    dtype = _float(dtype)
    shown = Shown(f"ARange{{dtype='{dtype}'}}", (first, last, by))
    count = _count(first, last, by)
    at, step_size = static_size_or_none(first), static_size_or_none(by)
    if at == 0 and step_size == 1 and dtype in ("int64", "int32", "float32", "float64"):
        made = node("iota", shape=[count], axis=0, dtype=FROM_NUMPY[dtype])
        made.shown = shown
        return made.result
    line = node("iota", shape=[count], axis=0, dtype=FROM_NUMPY[dtype]).result
    first, by = build.cast(first, dtype), build.cast(by, dtype)
    if dtype not in DISCRETE:
        by = sub(add(first, by), first)  # NumPy's step, to the last bit: from the first element to the second
    result = add(mul(line, by), first)
    result.owner.shown = shown
    return result


def static_size_or_none(v: Any) -> int | None:
    """The number that an integer constant is."""
    if v.type.dtype in DISCRETE and v.type.ndim == 0:
        return static_size(v)
    return None


def _python_floats(*values: Any) -> bool:
    """Whether no array and no variable says that the values are floats."""
    return not any(isinstance(v, np.generic | np.ndarray) for v in values) and not any(
        isinstance(v, Variable) and v.type.dtype not in DISCRETE for v in values
    )


def _count(first: Any, last: Any, by: Any) -> Any:
    """How many steps of `by` lead from `first` to below `last`."""
    if all(isinstance(v, TensorConstant) for v in (first, last, by)):
        return len(np.arange(first.data.item(), last.data.item(), by.data.item()))
    if all(v.type.dtype in DISCRETE for v in (first, last, by)):
        a, b, s = (as_size(build.cast(v, "int64")) for v in (first, last, by))
        span = build.size_arithmetic("sub", b, a)
        if s != 1:
            # ceil(span / s) == -(span // -s)
            span = build.size_arithmetic(
                "sub", 0, build.size_arithmetic("floordiv", span, build.size_arithmetic("sub", 0, s))
            )
        return build.size_arithmetic("maximum", span, 0)
    steps = ceil(true_div(sub(build.cast(last, "float64"), first), by))
    return maximum(cast(steps, "int64"), 0)


def mgrid_of(sparse: bool) -> Any:
    """The object behind `mgrid` and `ogrid`: indexed with slices of numbers, it gives a list of ranges."""

    class Grid:
        def __getitem__(self, slices: Any) -> list[Any]:
            given = slices if isinstance(slices, tuple) else (slices,)
            lines = [arange(s.start or 0, s.stop, s.step or 1) for s in given]
            rank = len(lines)
            shaped = [
                dimshuffle(line, *(0 if a == k else "x" for a in range(rank))) for k, line in enumerate(lines)
            ]
            if sparse:
                return shaped
            sizes = [size_of(line, 0) for line in lines]
            return [build.broadcast_to(s, sizes, implicit=False) for s in shaped]

    return Grid()


mgrid, ogrid = mgrid_of(False), mgrid_of(True)


def tri(n: Any, m: Any = None, k: int = 0, dtype: str | None = None) -> Any:
    """Ones on and below the `k`-th diagonal."""
    rows = arange(n)
    columns = arange(n if m is None else m)
    return cast(ge(add(shape_padright(rows), k), columns), _float(dtype))


def tril(x: Any, k: int = 0) -> Any:
    """x with zeros above the `k`-th diagonal."""
    x = as_variable(x)
    return mul(x, tri(size_of(x, -2 % x.type.ndim), size_of(x, x.type.ndim - 1), k, x.type.dtype))


def triu(x: Any, k: int = 0) -> Any:
    """x with zeros below the `k`-th diagonal."""
    x = as_variable(x)
    below = tri(size_of(x, -2 % x.type.ndim), size_of(x, x.type.ndim - 1), k - 1, x.type.dtype)
    return mul(x, sub(build.cast(as_variable(1), x.type.dtype), below))


def tril_indices(n: Any, k: int = 0, m: Any = None) -> tuple[Any, Any]:
    """The indices of what is on and below the `k`-th diagonal of an n by m matrix, as for numpy.tril_indices."""
    from tcc.selecting import nonzero

    rows, columns = nonzero(tri(n, m, k, "bool"))
    return rows, columns


def tril_indices_from(x: Any, k: int = 0) -> tuple[Any, Any]:
    """The same for the matrix x."""
    x = as_variable(x)
    return tril_indices(size_of(x, 0), k, size_of(x, 1))


def triu_indices(n: Any, k: int = 0, m: Any = None) -> tuple[Any, Any]:
    """The indices of what is on and above the `k`-th diagonal of an n by m matrix, as for numpy.triu_indices."""
    from tcc.selecting import nonzero

    rows, columns = nonzero(invert(tri(n, m, k - 1, "bool")))
    return rows, columns


def triu_indices_from(x: Any, k: int = 0) -> tuple[Any, Any]:
    """The same for the matrix x."""
    x = as_variable(x)
    return triu_indices(size_of(x, 0), k, size_of(x, 1))
