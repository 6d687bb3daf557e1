"""What the names of a kernel in Python mean, and arithmetic on them."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from tcc.codegen import halves
from tcc.codegen.emit import Emit, VecType
from tcc.codegen.gpu.chips import LANE
from tcc.codegen.lanes import Lanes, elem
from tcc.codegen.primitives import PRIMITIVES
from tcc.codegen.scalar import OPERATORS
from tcc.ir.types import DTYPES, FROM_NUMPY, HALVES, INTEGERS


@dataclass(frozen=True)
class Number:
    """Of a dtype, in a register."""

    dtype: str
    text: str


@dataclass(frozen=True)
class Array:
    name: str
    dtype: str
    base: str
    sizes: tuple[str, ...]  # texts of i64
    written: bool = True


@dataclass(frozen=True)
class Slot:
    """Where a name's number is kept."""

    dtype: str
    pointer: str


@dataclass(frozen=True)
class Dtype:
    """An array's `dtype`, whose `type` casts."""

    ir: str

    @property
    def type(self) -> Dtype:
        return self


@dataclass(frozen=True)
class Outside:
    """An object of Python's: a module, a function, a dtype."""

    value: Any


Value = Any  # Number | bool | int | float | Array | Outside | tuple of such


@dataclass(frozen=True)
class Source:
    """A Python function as it was written."""

    tree: ast.FunctionDef
    scope: Callable[[str], Any]  # the object that a name outside of it means; KeyError
    file: str
    lines: Sequence[str] = ()

    def refuse(self, node: ast.AST, message: str, kind: type[Exception] = TypeError) -> NoReturn:
        """Raises an error that names the line."""
        line = getattr(node, "lineno", self.tree.lineno)
        text = f"\n    {self.lines[line - 1].strip()}" if 0 < line <= len(self.lines) else ""
        raise kind(f"{self.file}:{line}: {message}{text}")


def named(dtype: str) -> str:
    return DTYPES[dtype][0] or "bfloat16"


def kind_of(value: Value) -> str:
    if isinstance(value, Array):
        return f"the array {value.name}"
    if isinstance(value, Outside):
        return f"{getattr(value.value, '__name__', value.value)}"
    return "a tuple" if isinstance(value, tuple) else "nothing" if value is None else "a number"


def scope_of(function: Any) -> Callable[[str], Any]:
    """What names outside of a function mean to it."""
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or ()))

    def find(name: str) -> Any:
        if name in cells:
            return cells[name].cell_contents
        if name in function.__globals__:
            return function.__globals__[name]
        return vars(builtins)[name]

    return find


class Numbers:
    """Text of arithmetic.  Numbers keep their dtypes: a plain one takes that of what it meets, two that differ are refused."""

    def __init__(self, source: Source) -> None:
        self.e = Emit()
        self.variables: list[str] = []  # allocas, for the head of the text
        self.source = source

    def refuse(self, node: ast.AST, message: str, kind: type[Exception] = TypeError) -> NoReturn:
        self.source.refuse(node, message, kind)

    def variable(self, dtype: str) -> Slot:
        name = self.e.fresh("v")
        t = VecType(elem(dtype))
        self.variables += [f"  {name} = alloca {t}", f"  store {t} {t.const(0)}, ptr {name}"]
        return Slot(dtype, name)

    def put(self, slot: Slot, value: Number) -> None:
        self.e.line(f"store {elem(slot.dtype)} {value.text}, ptr {slot.pointer}")

    def get(self, slot: Slot) -> Number:
        return Number(slot.dtype, self.e.value(f"load {elem(slot.dtype)}, ptr {slot.pointer}"))

    def operate(self, node: ast.AST, op: ast.AST, *args: Value) -> Value:
        if isinstance(op, ast.LShift | ast.RShift):
            return self.apply(node, "shl" if isinstance(op, ast.LShift) else "shr", *args)
        if type(op) not in OPERATORS:
            self.refuse(node, f"a kernel has no {type(op).__name__.lower()}", SyntaxError)
        name, fold = OPERATORS[type(op)]
        if fold is not None and all(isinstance(a, bool | int | float) for a in args):
            try:
                return fold(*args)
            except (ArithmeticError, TypeError) as e:
                self.refuse(node, str(e), type(e))
        if name == "pow" and isinstance(args[1], int) and 1 <= args[1] <= 4:
            product = args[0]
            for _ in range(args[1] - 1):
                product = self.apply(node, "mul", product, args[0])
            return product
        return self.apply(node, name, *args)

    def apply(self, node: ast.AST, name: str, *args: Value) -> Value:
        """A primitive on numbers of one dtype."""
        primitive = PRIMITIVES[name]
        if len(args) != primitive.arity:
            self.refuse(node, f"{name} takes {primitive.arity} numbers, got {len(args)}")
        for a in args:
            if not isinstance(a, Number | bool | int | float):
                self.refuse(node, f"{name} takes numbers, got {kind_of(a)}")
        dtypes = dict.fromkeys(a.dtype for a in args if isinstance(a, Number))
        if len(dtypes) > 1:
            told = " and ".join(map(named, dtypes))
            self.refuse(node, f"{name} of {told}: cast one, as in np.{named(list(dtypes)[-1])}(...)")
        dtype = next(iter(dtypes), None) or self.number(node, args[0]).dtype
        lanes = Lanes(self.e, LANE, dtype, 1)
        texts = [self.as_dtype(node, a, dtype, name).text for a in args]
        try:
            text = primitive.emit(name, lanes, *texts)
        except TypeError:
            hint = {
                "div": ": // divides integers, or cast them",
                "add": ": cast it",
                "sub": ": cast it",
            }.get(name, "")
            self.refuse(node, f"{name} has no meaning for {named(dtype)}{hint}")
        result = dtype if primitive.result == "same" else primitive.result
        if result in HALVES:
            text = halves.rounded(self.e, LANE, result, 1, text)
        return Number(result, text)

    def number(self, node: ast.AST, value: Value) -> Number:
        """A plain number is a float64, an int64 or a bool, as in NumPy."""
        if isinstance(value, Number):
            return value
        if isinstance(value, bool | int | float):
            dtype = "bool" if isinstance(value, bool) else "i64" if isinstance(value, int) else "f64"
            return self.as_dtype(node, value, dtype, "it")
        self.refuse(node, f"a number is wanted, got {kind_of(value)}")

    def as_dtype(self, node: ast.AST, value: Value, dtype: str, what: str) -> Number:
        """A number of just this dtype; plain ones fit if nothing is lost."""
        if isinstance(value, Number):
            if value.dtype != dtype:
                told = f"{what} is {named(dtype)}, got {named(value.dtype)}"
                self.refuse(node, f"{told}: cast it, as in np.{named(dtype)}(...)")
            return value
        if not isinstance(value, bool | int | float):
            self.refuse(node, f"{what} is {named(dtype)}, got {kind_of(value)}")
        lanes = Lanes(self.e, LANE, dtype, 1)
        fits = lanes.is_float or (lanes.is_bool == isinstance(value, bool) and isinstance(value, int))
        if not fits or (
            dtype in INTEGERS and not np.iinfo(named(dtype)).min <= value <= np.iinfo(named(dtype)).max
        ):
            self.refuse(node, f"{what} is {named(dtype)}, which {value} is not")
        try:
            rounded = halves.nearest(dtype, value) if dtype in HALVES else value
            return Number(dtype, lanes.const(rounded))
        except OverflowError:
            self.refuse(node, f"{what} is {named(dtype)}, which has no number as large", OverflowError)

    def cast(self, node: ast.AST, value: Value, dtype: str) -> Number:
        given = self.number(node, value)
        return Number(dtype, Lanes(self.e, LANE, given.dtype, 1).cast(given.text, dtype))

    def truth(self, node: ast.AST, value: Value) -> str:
        given = self.number(node, value)
        return given.text if given.dtype == "bool" else self.cast(node, given, "bool").text

    def dtype_of(self, node: ast.AST, given: Any) -> str:
        if isinstance(given, Dtype):
            return given.ir
        try:
            return FROM_NUMPY[np.dtype(given).name]
        except (TypeError, KeyError):
            self.refuse(node, f"{given!r} is no dtype of arrays")
