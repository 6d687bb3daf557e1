"""Lists of arrays as values of a function: `typed_list`.  Python code works on them, and each operation makes a new list."""

from __future__ import annotations

from typing import Any

import numpy as np

from tcc.types import Handled, TensorType, Type
from tcc.user_op import Apply, Op
from tcc.variable import GenericVariable, Variable, as_variable

__all__ = [
    "Append",
    "Count",
    "Extend",
    "GetItem",
    "Index",
    "Insert",
    "Length",
    "MakeList",
    "Remove",
    "Reverse",
    "TypedListType",
    "TypedListVariable",
    "append",
    "count",
    "extend",
    "getitem",
    "index_",
    "insert",
    "length",
    "make_list",
    "remove",
    "reverse",
]


class TypedListType(Handled):
    """Lists whose elements are of the type `ttype`, or with `depth` lists of lists of ... of such elements."""

    def __init__(self, ttype: Type, depth: int = 0) -> None:
        if not isinstance(ttype, Type):
            raise TypeError("Expected a Type", ttype)
        if depth < 0:
            raise ValueError("Please specify a depth superior or equal to 0")
        self.ttype: Type = ttype if depth == 0 else TypedListType(ttype, depth - 1)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TypedListType) and self.ttype == other.ttype

    def __hash__(self) -> int:
        return hash((TypedListType, self.ttype))

    def __repr__(self) -> str:
        return f"TypedList <{self.ttype}>"

    def get_depth(self) -> int:
        """How many lists are around this one's elements."""
        return self.ttype.get_depth() + 1 if isinstance(self.ttype, TypedListType) else 0

    def filter(self, data: Any, strict: bool = False, allow_downcast: bool | None = None) -> Any:
        """A new list of the elements, each as a value of their type; TypeError for what is no list."""
        if not isinstance(data, list):
            raise TypeError(f"Expected a python list, got {type(data).__name__}")
        return [self.ttype.filter(x, strict, allow_downcast) for x in data]

    def variable_class(self) -> Any:
        return TypedListVariable


class TypedListVariable(GenericVariable):
    """A list that is computed or given."""

    def __getitem__(self, index: Any) -> Any:
        return getitem(self, index)

    def __len__(self) -> int:
        raise TypeError(
            "the length of a list is only known when the function runs: use typed_list.length or x.ttype"
        )

    def append(self, toAppend: Any) -> Any:
        return append(self, toAppend)

    def extend(self, toAppend: Any) -> Any:
        return extend(self, toAppend)

    def insert(self, index: Any, toInsert: Any) -> Any:
        return insert(self, index, toInsert)

    def remove(self, toRemove: Any) -> Any:
        return remove(self, toRemove)

    def reverse(self) -> Any:
        return reverse(self)

    def count(self, elem: Any) -> Any:
        return count(self, elem)

    def ind(self, elem: Any) -> Any:
        return index_(self, elem)

    @property
    def ttype(self) -> Any:
        return self.type.ttype

    @property
    def dtype(self) -> Any:
        return self.type.ttype.dtype

    @property
    def ndim(self) -> int:
        return int(self.type.ttype.ndim + 1)


def _list(x: Any, op: Op) -> Any:
    if not isinstance(x, Variable) or not isinstance(x.type, TypedListType):
        raise TypeError(f"{op} takes a typed list, got {x!r}")
    return x


def _element(x: Any, element: Any) -> Any:
    """An element as a variable of the list's type; TypeError for another type."""
    if not isinstance(element, Variable):
        element = x.type.ttype.filter_variable(element)
    if element.type != x.type.ttype:
        raise TypeError(f"an element of {x.type} must be of {x.type.ttype}, got {element.type}")
    return element


def _position(index: Any) -> Any:
    v = as_variable(index)
    if v.type.ndim or v.type.dtype[:3] not in ("int", "uin"):
        raise TypeError("Expected scalar or slice as index", v)
    return v


def _alike(a: Any, b: Any) -> bool:
    """Whether two values are equal, element by element."""
    if isinstance(a, list):
        return len(a) == len(b) and all(map(_alike, a, b))
    if np.shape(a) != np.shape(b):
        return False
    sparse = hasattr(a, "nnz") or hasattr(b, "nnz")
    return bool((a != b).nnz == 0 if sparse else np.array_equal(a, b))


def _where(items: list[Any], element: Any) -> int:
    for k, item in enumerate(items):
        if _alike(item, element):
            return k
    raise ValueError("the element is not in the list")


class _ListOp(Op):
    """One of the operations on lists: `kinds` says what its operands are, `values(*operands)` computes the result.

    With `inplace` a list that is given to a function may have the result in it after the call."""

    kinds = "list"
    result = "list"

    def __init__(self, inplace: bool = False) -> None:
        self.inplace = inplace
        if inplace:
            self.destroy_map = {0: [0]}

    def make_node(self, *inputs: Any) -> Apply:
        x = _list(inputs[0], self)
        given = [x]
        for kind, v in zip(self.kinds.split()[1:], inputs[1:], strict=True):
            given.append(
                _position(v) if kind == "index" else _element(x, v) if kind == "element" else self._same(x, v)
            )
        kinds = {
            "list": x.type,
            "element": x.type.ttype,
            "number": TensorType("int64", ()),
        }
        return Apply(self, given, [kinds[self.result]()])

    def _same(self, x: Any, other: Any) -> Any:
        _list(other, self)
        if other.type != x.type:
            raise TypeError(f"{self}: lists of {x.type} and {other.type}")
        return other

    def values(self, *operands: Any) -> Any:
        raise NotImplementedError

    def perform(self, node: Any, inputs: list[Any], output_storage: list[list[Any]]) -> None:
        output_storage[0][0] = self.values(*inputs)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.inplace == other.inplace

    def __hash__(self) -> int:
        return hash((type(self), self.inplace))


class GetItem(_ListOp):
    """x[i]: an element, or for a slice a list.  IndexError when the function runs where there is none."""

    kinds, result = "list index", "element"

    def make_node(self, x: Any, index: Any) -> Apply:
        x = _list(x, self)
        if not isinstance(index, slice):
            return super().make_node(x, index)
        ends = [None if v is None else _position(v) for v in (index.start, index.stop, index.step)]
        op = Slice(tuple(v is not None for v in ends))
        return Apply(op, [x, *(v for v in ends if v is not None)], [x.type()])

    def values(self, *operands: Any) -> Any:
        return operands[0][int(operands[1])]


class Slice(Op):
    """x[start:stop:step], with those of the three that are `given`."""

    __props__ = ("given",)

    def __init__(self, given: tuple[bool, ...]) -> None:
        self.given = given

    def perform(self, node: Any, inputs: list[Any], output_storage: list[list[Any]]) -> None:
        ends = iter(inputs[1:])
        output_storage[0][0] = inputs[0][slice(*(int(next(ends)) if g else None for g in self.given))]


class Append(_ListOp):
    """The list with an element more at its end."""

    kinds = "list element"

    def values(self, *operands: Any) -> Any:
        return [*operands[0], operands[1]]


class Extend(_ListOp):
    """The list with those of another behind it."""

    kinds = "list list"

    def values(self, *operands: Any) -> Any:
        return [*operands[0], *operands[1]]


class Insert(_ListOp):
    """The list with an element put in before position `index`."""

    kinds = "list index element"

    def values(self, *operands: Any) -> Any:
        made = list(operands[0])
        made.insert(int(operands[1]), operands[2])
        return made


class Remove(_ListOp):
    """The list without the first element that is equal to one; ValueError when the function runs if there is none."""

    kinds = "list element"

    def values(self, *operands: Any) -> Any:
        at = _where(operands[0], operands[1])
        return [*operands[0][:at], *operands[0][at + 1 :]]


class Reverse(_ListOp):
    """The list from its end."""

    def values(self, *operands: Any) -> Any:
        return operands[0][::-1]


class Index(_ListOp):
    """The position of the first element that is equal to one; ValueError when the function runs if there is none."""

    kinds, result = "list element", "number"

    def values(self, *operands: Any) -> Any:
        return np.asarray(_where(operands[0], operands[1]), np.int64)


class Count(_ListOp):
    """How many elements are equal to one."""

    kinds, result = "list element", "number"

    def values(self, *operands: Any) -> Any:
        return np.asarray(sum(_alike(item, operands[1]) for item in operands[0]), np.int64)


class Length(_ListOp):
    """The number of elements."""

    result = "number"

    def values(self, *operands: Any) -> Any:
        return np.asarray(len(operands[0]), np.int64)


class MakeList(Op):
    """The list of variables of one type."""

    __props__ = ()

    def make_node(self, items: Any) -> Apply:
        if not isinstance(items, list | tuple) or not items:
            raise TypeError("a list of at least one variable is needed")
        values = [v if isinstance(v, Variable) else as_variable(v) for v in items]
        for v in values[1:]:
            if v.type != values[0].type:
                raise TypeError("MakeList need all input variable to be of the same type.")
        return Apply(self, values, [TypedListType(values[0].type)()])

    def perform(self, node: Any, inputs: list[Any], output_storage: list[list[Any]]) -> None:
        output_storage[0][0] = list(inputs)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(MakeList)


getitem, append, extend, insert, remove, reverse = (
    GetItem(),
    Append(),
    Extend(),
    Insert(),
    Remove(),
    Reverse(),
)
index_, count, length, make_list = Index(), Count(), Length(), MakeList()
