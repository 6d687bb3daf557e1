"""Makes nodes: static facts of results, implicit casts and broadcasts, and the builder that gradient rules write with."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tcc.graph import Apply, Shown
from tcc.ir import dims
from tcc.ir import ops as _ops  # noqa: F401  (fills the table)
from tcc.ir import types as ir
from tcc.ir.optable import TABLE, OpDef, check_arity, complete_attrs
from tcc.locations import Location
from tcc.types import NAMES, Static, TensorType, promote, tensor_type
from tcc.variable import TensorConstant, Variable, as_variable, number_dtype, scalar_constant

Size = int | Variable  # of an array in the graph; a variable is an integer scalar
LSCALAR = tensor_type("int64", ())


def row(name: str) -> OpDef:
    return TABLE[name]


# Rows that only the frontend's graph has; lowering knows what becomes of each.
FRONT: dict[str, OpDef] = {}


class FrontRow(OpDef):
    """A row that is none of the op table's."""

    def __reduce__(self) -> tuple[Any, ...]:
        return front_row, (self.name,)


def front_row(name: str) -> OpDef:
    return FRONT[name]


def front(name: str, operands: str, doc: str) -> OpDef:
    """A row of the frontend's own.  Its type is given by whoever builds it."""

    def infer(types: Any, attrs: Any, blocks: Any) -> list[ir.Type]:
        raise TypeError(f"{name} is lowered, never built")

    defn = FrontRow(name, operands=operands, infer=infer, doc=doc)
    FRONT[name] = defn
    return defn


SIZE_OF = row("shape_of")
INDEX = front(
    "index",
    "i",
    "`i` as a position on an axis of size `bound`: IndexError outside -n <= i < n, negatives wrapped",
)
INDICES = front("indices", "i", "an index array, checked against `bound`: IndexError outside -n <= i < n")
STEPS = front(
    "steps", "n", "`n`, if no size in `available` is less: ValueError for a sequence that is too short"
)
SAME_SIZE = front(
    "same_size", "n", "`n`, which must be the size `other`: ValueError, whose text is `message`, if it is not"
)
WITH_GRAD = front(
    "with_grad", "*xs", "the first `count` operands, whose gradient by the others is given and not derived"
)
REBROADCAST = front("rebroadcast", "x", "the same array with other broadcast flags; a new flag is checked")


def node(
    name: str,
    *operands: Variable,
    shown: Shown | None = None,
    implicit: bool = False,
    loc: Location | None = None,
    types: Sequence[Any] | None = None,
    **attrs: Any,
) -> Apply:
    """The row `name` applied; result types are inferred by the row unless given."""
    defn = TABLE[name]
    check_arity(defn, len(operands))
    full = complete_attrs(defn, attrs)
    if types is None:
        types = infer(defn, operands, full)
    return Apply(defn, operands, full, types, shown=shown, implicit=implicit, loc=loc)


def infer(defn: OpDef, operands: Sequence[Variable], attrs: dict[str, Any]) -> list[TensorType]:
    """The row's own type rule, on names for the sizes that are not known; names that must be equal become one."""
    if defn.scalar:
        dtype = scalar_rule(defn.name, tuple(v.type.ir for v in operands), attrs.get("dtype"))
        return [tensor_type(dtype, merged_shape(defn.name, operands))]
    fresh = map(_unknown, itertools.count())
    types = [
        ir.Type(v.type.ir, tuple(next(fresh) if s is None else s for s in v.type.shape)) for v in operands
    ]
    sizes: dict[Variable, dims.Size] = {}

    def static(v: Any) -> dims.Size:
        known = static_size(v)
        return sizes.setdefault(v, next(fresh)) if known is None else known

    plain = {key: _with_sizes(value, static) for key, value in attrs.items()}
    while True:  # a name goes away each time
        try:
            results = defn.infer(types, plain, [])
            return [tensor_type(NAMES[t.dtype], _static(t.shape)) for t in results]
        except dims.SizeMismatch as e:
            loose = _loosened(defn, types, plain, e)
            if loose is not None:
                types = loose
                continue
            known = _unify(e)
            types = [t.substitute(known) for t in types]
            plain = {key: _substitute(value, known) for key, value in plain.items()}


@functools.cache
def _unknown(number: int) -> dims.Size:
    """A name for a size that is not known while a type is inferred."""
    return dims.name(f"size{number}")


@functools.cache
def scalar_rule(name: str, dtypes: tuple[str, ...], dtype: str | None) -> str:
    """The result's dtype of an elementwise row, in NumPy's name."""
    defn = TABLE[name]
    attrs = dict(defn.attrs)
    if dtype is not None:
        attrs["dtype"] = dtype
    (result,) = defn.infer([ir.Type(d) for d in dtypes], attrs, [])
    return NAMES[result.dtype]


def merged_shape(name: str, operands: Sequence[Variable]) -> Static:
    """What is known of the sizes of operands that must be of one shape."""
    first: Static = operands[0].type.shape
    for v in operands[1:]:
        if v.type.shape == first:
            continue
        if len(v.type.shape) != len(first):
            raise TypeError(f"{name}: operands of {len(first)} and {v.type.ndim} axes")
        first = tuple(_same(name, operands[0], a, v, b) for a, b in zip(first, v.type.shape))
    return first


def _same(name: str, v: Variable, a: int | None, w: Variable, b: int | None) -> int | None:
    if a is None or b is None or a == b:
        return b if a is None else a
    raise ValueError(
        f"{name}: the sizes {a} (of {v}, {v.type.shape}) and {b} (of {w}, {w.type.shape}) differ"
    )


def _static(shape: Sequence[dims.Size]) -> Static:
    return tuple(s if isinstance(s, int) else None for s in shape)


def _loosened(
    defn: OpDef, types: list[ir.Type], attrs: dict[str, Any], e: dims.SizeMismatch
) -> list[ir.Type] | None:
    """The operands' types with one size written as the expression that it must equal when the function runs, where no
    name can stand for that: the known size of a pooled array against that of half an unknown one."""
    if any(isinstance(s, dims.Expr) and s.plain for s in (e.left, e.right)):
        return None
    for size, other in ((e.left, e.right), (e.right, e.left)):
        if isinstance(other, int):
            continue
        for i, t in enumerate(types):
            for axis in (a for a, s in enumerate(t.shape) if s == size):
                shape = (*t.shape[:axis], other, *t.shape[axis + 1 :])
                tried = [*types[:i], t.with_shape(*shape), *types[i + 1 :]]
                try:
                    defn.infer(tried, attrs, [])
                except dims.SizeMismatch as f:
                    if str(f) == str(e) or (f.left, f.right) == (e.right, e.left):
                        continue
                return tried
    return None


def _unify(e: dims.SizeMismatch) -> dict[str, dims.Size]:
    for a, b in ((e.left, e.right), (e.right, e.left)):
        if not isinstance(a, int) and a.plain is not None and a.plain not in dims.names_of(b):
            return {a.plain: b}
    if isinstance(e.left, int) and isinstance(e.right, int):
        raise ValueError(str(e)) from e
    # an expression over unknown sizes: decided when the function runs
    return {n: e.right for n in sorted(dims.names_of(e.left))[:1]} or {
        n: e.left for n in sorted(dims.names_of(e.right))[:1]
    }


def _with_sizes(value: Any, static: Callable[[Any], dims.Size]) -> Any:
    if type(value) in (list, tuple):
        return type(value)(static(v) if isinstance(v, Variable) else v for v in value)
    return static(value) if isinstance(value, Variable) else value


def _substitute(value: Any, known: dict[str, dims.Size]) -> Any:
    if type(value) in (list, tuple):
        return type(value)(_substitute(v, known) for v in value)
    return dims.substitute(value, known) if isinstance(value, dims.Expr) else value


# -- sizes ---------------------------------------------------------------------------------------------------------


def size_of(x: Variable, axis: int) -> Size:
    """The size along `axis`: an int where it is known, else a variable (one for each axis of `x`)."""
    known: int | None = x.type.shape[axis]
    if known is not None:
        return known
    cache = x.__dict__.setdefault("_sizes", {})
    if axis not in cache:
        cache[axis] = Apply(SIZE_OF, (x,), {"axis": axis}, (LSCALAR,), loc=x.loc).results[0]
    return cache[axis]  # type: ignore[no-any-return]


def shape_of(x: Variable) -> tuple[Size, ...]:
    return tuple(size_of(x, axis) for axis in range(x.type.ndim))


def at_most(x: Variable, bound: Size, message: str) -> Variable:
    """x; ValueError with this text when the function runs if its first axis is longer than `bound`."""
    n, sizes = size_of(x, 0), list(shape_of(x))
    attrs = {"available": [bound], "message": message}
    checked = Apply(STEPS, (size_variable(n),), attrs, (LSCALAR,), implicit=True).result
    made = node(
        "slice", x, start=[0] * x.type.ndim, size=[checked, *sizes[1:]], step=[1] * x.type.ndim, implicit=True
    )
    return made.result


def static_size(v: Any) -> int | None:
    """The number that an integer scalar certainly is."""
    if isinstance(v, int | np.integer):
        return int(v)
    if isinstance(v, TensorConstant):
        return int(v.data)
    if v.owner is not None and (v.owner.defn is STEPS or v.owner.name == "identity"):
        return static_size(v.owner.operands[0])
    if v.owner is not None and v.owner.name == "cast":
        before = v.owner.operands[0]
        whole = v.type.numpy_dtype.kind in "iu" and before.type.numpy_dtype.kind in "iu"
        known = static_size(before) if whole else None
        return None if known is None else int(np.array(known).astype(v.type.numpy_dtype))
    if v.owner is not None and v.owner.defn is SIZE_OF:
        size: int | None = v.owner.operands[0].type.shape[v.owner.attrs["axis"]]
        return size
    return None


def as_size(v: Any, what: str = "a size") -> Size:
    """A number or integer scalar variable as a size; TypeError for anything else."""
    if isinstance(v, bool) or isinstance(v, float | np.floating):
        raise TypeError(f"{what} must be an integer, got {v!r}")
    if isinstance(v, int | np.integer):
        return int(v)
    v = as_variable(v)
    if v.ndim != 0 or v.dtype[:3] not in ("int", "uin"):
        raise TypeError(f"{what} must be an integer scalar, got {v.type}")
    known = static_size(v)
    return v if known is None else known


def size_arithmetic(name: str, a: Size, b: Size) -> Size:
    """A row on two sizes."""
    if isinstance(a, int) and isinstance(b, int):
        return int(NUMBERS[name](a, b))
    x, y = (v if isinstance(v, Variable) else scalar_constant(v, "int64") for v in (a, b))
    x, y = (cast(v, "int64") for v in (x, y))
    return node(name, x, y, types=(LSCALAR,)).result


NUMBERS: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "floordiv": lambda a, b: a // b if b else 0,
    "mod": lambda a, b: a % b if b else 0,
    "minimum": min,
    "maximum": max,
}


def same_size(n: Size, other: Size, message: str) -> Size:
    """`n`, which must be the size `other`; ValueError, when the function runs at the latest, if it is not."""
    if isinstance(n, int) and isinstance(other, int):
        if n != other:
            raise ValueError(f"{message} ({n} against {other})")
        return n
    variable, attrs = size_variable(n), {"other": other, "message": message}
    made: Variable = Apply(SAME_SIZE, (variable,), attrs, (LSCALAR,)).results[0]
    return made


def size_product(sizes: Sequence[Size]) -> Size:
    total: Size = 1
    for s in sizes:
        total = s if isinstance(total, int) and total == 1 else size_arithmetic("mul", total, s)
    return total


def size_variable(size: Size) -> Any:
    """A size as an int64 scalar variable."""
    return size if isinstance(size, Variable) else scalar_constant(size, "int64")


# -- implicit casts and broadcasts ---------------------------------------------------------------------------------


def cast(x: Any, dtype: str, implicit: bool = True) -> Any:
    """`x` in another dtype; a constant is converted at once."""
    if x.type.dtype == dtype:
        return x
    if implicit and isinstance(x, TensorConstant):
        with np.errstate(all="ignore"):
            wanted = tensor_type(dtype, x.type.shape)
        made = TensorConstant(wanted, wanted.carried(x.data), x.name)
        made.origin = x.origin or x
        return made
    types = (tensor_type(dtype, x.type.shape),)
    return node("cast", x, dtype=ir.FROM_NUMPY[dtype], types=types, implicit=implicit).result


def broadcast_to(x: Any, sizes: Sequence[Size], implicit: bool = True) -> Any:
    """`x`, right-aligned, to these sizes: flagged axes stretch, the others must be equal."""
    static = tuple(static_size(s) for s in sizes)
    if x.type.ndim == len(static) and not any(b and s != 1 for b, s in zip(x.type.broadcastable, static)):
        return x
    return node(
        "broadcast", x, shape=list(sizes), types=(tensor_type(x.type.dtype, static),), implicit=implicit
    ).result


def broadcast_together(label: str, operands: Sequence[Any]) -> list[Any]:
    """The operands of an elementwise function, brought to one shape by their static flags."""
    first = operands[0].type.shape
    if all(v.type.shape == first for v in operands[1:]) and (
        None in first or 1 not in first or len(operands) == 1
    ):
        return list(operands)
    rank = max(v.type.ndim for v in operands)
    padded = [(1,) * (rank - v.type.ndim) + v.type.shape for v in operands]
    target = [_joined(label, operands, [p[axis] for p in padded], axis) for axis in range(rank)]
    out = []
    for v, shape in zip(operands, padded):
        if v.type.ndim == rank and all(s != 1 or t == 1 for s, t in zip(shape, target)):
            out.append(v)
            continue
        sizes = [_axis_size(v, operands, padded, target, axis, rank) for axis in range(rank)]
        made = node(
            "broadcast",
            v,
            shape=sizes,
            types=(tensor_type(v.type.dtype, tuple(target)),),
            shown=Shown(label, (v,)),
            implicit=True,
        )
        out.append(made.result)
    return out


def _joined(label: str, operands: Sequence[Any], sizes: Sequence[int | None], axis: int) -> int | None:
    known = {s for s in sizes if s is not None and s != 1}
    if len(known) > 1:
        said = ", ".join(f"{v} has {v.type.shape}" for v in operands)
        raise ValueError(f"{label}: Input dimension mis-match on axis {axis}: {said}")
    if known:
        return known.pop()
    return None if None in sizes else 1


def _axis_size(
    v: Any,
    operands: Sequence[Any],
    padded: Sequence[Static],
    target: Sequence[int | None],
    axis: int,
    rank: int,
) -> Size:
    known = target[axis]
    if known is not None:
        return known
    own = axis - (rank - v.type.ndim)
    if own >= 0 and v.type.shape[own] is None:
        return size_of(v, own)
    other = next(i for i, p in enumerate(padded) if p[axis] is None)
    return size_of(operands[other], axis - (rank - operands[other].type.ndim))


def elementwise(
    name: str, *operands: Any, label: str = "", dtype: str | None = None, shown: Shown | None = None
) -> Any:
    """The elementwise row `name` on variables of any ranks and dtypes, computed in `dtype` (else the promoted one)."""
    if dtype is None:
        dtype = promote(*(v.type.dtype for v in operands))
    values = [v if v.type.dtype == dtype else cast(v, dtype) for v in operands]
    if len(values) > 1:
        values = broadcast_together(label or name, values)
    return node(name, *values, shown=shown).result


# -- the builder of gradient rules ---------------------------------------------------------------------------------


class Builder:
    """The methods of `tcc.ir.builder.Builder`, on variables: sizes are ints or integer scalar variables."""

    def op(self, name: str, *operands: Any, attrs: dict[str, Any] | None = None) -> Apply:
        """One application.  A number among the operands becomes a constant like the first variable."""
        like = next((v for v in operands if isinstance(v, Variable)), None)
        values = [v if isinstance(v, Variable) else self._constant(name, v, like) for v in operands]
        return node(name, *values, **(attrs or {}))

    def _constant(self, name: str, value: Any, like: Variable | None) -> Any:
        if like is None:
            raise TypeError(f"{name}: a number needs a value beside it to take its type from")
        return self.full(value, like)

    def const(self, value: Any, type: Any) -> Any:
        """`value` filled into a type's shape, or an array."""
        dtype = NAMES.get(type.dtype, type.dtype)
        if isinstance(value, np.ndarray) and value.ndim:
            made = tensor_type(dtype, value.shape)
            return TensorConstant(made, made.carried(value))
        return broadcast_to(_number(value, dtype), list(type.shape))

    def full(self, value: Any, like: Variable, dtype: str | None = None) -> Any:
        """A constant of the shape of `like`, and of its dtype unless another (in the IR's name) is given."""
        made = _number(value, NAMES[dtype] if dtype else like.type.dtype)
        return broadcast_to(made, shape_of(like))

    def dtype(self, x: Variable) -> str:
        return str(x.type.ir)

    def rank(self, x: Variable) -> int:
        return int(x.type.ndim)

    def shape(self, x: Variable) -> tuple[Size, ...]:
        return shape_of(x)

    def size(self, x: Variable, axis: int) -> Size:
        return size_of(x, axis % max(1, x.type.ndim))

    def count(self, x: Variable, axes: Sequence[int]) -> Size:
        return size_product([size_of(x, a) for a in axes])

    def smaller(self, a: Size, b: Size) -> Size:
        return size_arithmetic("minimum", a, b)

    def size_value(self, size: Size, dtype: str = "i64") -> Any:
        return cast(size_variable(size), NAMES[dtype])

    def is_one(self, x: Variable, axis: int) -> bool:
        return bool(x.type.shape[axis] == 1)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in TABLE:
            raise AttributeError(f"no op named {name}")

        def build(*operands: Any, **attrs: Any) -> Any:
            results = self.op(name, *operands, attrs=attrs).results
            return results[0] if len(results) == 1 else results

        return build


def _number(value: Any, dtype: str) -> TensorConstant:
    """A constant of a rule; it prints as the number that the rule means: 1, not 1.0."""
    made = scalar_constant(value, dtype)
    plain = value.item() if isinstance(value, np.generic | np.ndarray) else value
    if isinstance(plain, float) and plain.is_integer() and abs(plain) < 128:
        plain = int(plain)
    if isinstance(plain, int) and not isinstance(plain, bool):
        made.origin = scalar_constant(plain, number_dtype(plain))
    return made
