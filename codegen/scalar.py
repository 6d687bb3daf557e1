"""Scalar bodies of the op table, such as `where(a > b, a, 0)`, on vectors of any dtype.

An operand is (dtype, LLVM text).  LLVM's i8 is both "i8" and "u8": signedness, and with it division, comparison,
shifting and conversion, is a fact of the dtype.  A bool is i1 in registers and i8 in memory.
"""

from __future__ import annotations

import ast
import functools
import math
import operator
from collections.abc import Callable, Mapping

from tcc.codegen import halves
from tcc.codegen.emit import Emit
from tcc.codegen.halves import HALVES
from tcc.codegen.lanes import (
    Lanes,
    alignment,
    const,
    elem,
    from_memory,
    load,
    memory_elem,
    register_bytes,
    store,
    to_memory,
)
from tcc.codegen.primitives import PRIMITIVES
from tcc.codegen.target import Target
from tcc.ir.types import COMPLEX

__all__ = [
    "PRIMITIVES",
    "alignment",
    "const",
    "elem",
    "emit_scalar",
    "from_memory",
    "load",
    "memory_elem",
    "register_bytes",
    "store",
    "sum_body",
    "to_memory",
]

Value = tuple[str, str]  # dtype, LLVM text
Number = bool | int | float

OPERATORS: dict[type[ast.AST], tuple[str, Callable[..., Number] | None]] = {
    ast.Add: ("add", operator.add),
    ast.Sub: ("sub", operator.sub),
    ast.Mult: ("mul", operator.mul),
    ast.Div: ("div", operator.truediv),
    ast.FloorDiv: ("floordiv", operator.floordiv),
    ast.Mod: ("mod", operator.mod),
    ast.Pow: ("pow", operator.pow),
    ast.BitAnd: ("and", operator.and_),
    ast.BitOr: ("or", operator.or_),
    ast.BitXor: ("xor", operator.xor),
    ast.USub: ("neg", operator.neg),
    ast.Invert: ("not", operator.invert),
    ast.Eq: ("eq", operator.eq),
    ast.NotEq: ("ne", operator.ne),
    ast.Lt: ("lt", operator.lt),
    ast.LtE: ("le", operator.le),
    ast.Gt: ("gt", operator.gt),
    ast.GtE: ("ge", operator.ge),
}
CONSTANTS: dict[str, float] = {"pi": math.pi, "inf": math.inf, "nan": math.nan}


def emit_scalar(
    e: Emit, target: Target, body: str, operands: Mapping[str, Value], *, lanes: int, result: str
) -> str:
    """Evaluates `body`, a Python expression over the names in `operands`, in every lane; the value's dtype is `result`.

    Its operators are Python's, its functions those in PRIMITIVES, `where(cond, a, b)`, and `cast(a)`, which makes `a` a
    `result`.  A number takes the dtype of what it meets.  TypeError where dtypes do not fit, ValueError where the text
    is no scalar body.
    """
    writer = _Writer(e, target, body, operands, lanes, result)
    tree = _parse(body)
    value = writer.evaluate(tree)
    if not isinstance(value, tuple):
        return const(result, lanes, value)
    if value[0] != result:
        raise TypeError(f"scalar body {body!r} gives {value[0]}, wanted {result}")
    if result in HALVES and not _exact(tree):
        return halves.rounded(e, target, result, lanes, value[1])
    return value[1]


# of what a narrower float holds, these make what it holds
EXACT = frozenset(
    {"neg", "abs", "min", "max", "sign", "floor", "ceil", "trunc", "rint", "copysign", "cast", "where"}
)


def _exact(node: ast.expr) -> bool:
    match node:
        case ast.Name() | ast.Constant(value=bool() | int()):
            return True
        case ast.UnaryOp(op=ast.USub(), operand=a):
            return _exact(a)
        case ast.Call(func=ast.Name(id="where"), args=[_, a, b]):
            return _exact(a) and _exact(b)
        case ast.Call(func=ast.Name(id=name), args=args):
            return name in EXACT and all(map(_exact, args))
    return False


@functools.cache
def _parse(body: str) -> ast.expr:
    try:
        return ast.parse(body, mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"scalar body {body!r} is no expression") from error


class _Writer:
    def __init__(
        self, e: Emit, target: Target, body: str, operands: Mapping[str, Value], lanes: int, result: str
    ) -> None:
        self.e, self.target, self.body, self.operands, self.lanes, self.result = (
            e, target, body, operands, lanes, result,
        )  # fmt: skip

    def of(self, dtype: str) -> Lanes:
        return Lanes(self.e, self.target, dtype, self.lanes)

    def evaluate(self, node: ast.expr) -> Value | Number:
        match node:
            case ast.Constant(value=bool() | int() | float() as number):
                return number
            case ast.Name(id=name) if name in self.operands:
                return self.operands[name]
            case ast.Name(id=name) if name in CONSTANTS:
                return CONSTANTS[name]
            case ast.UnaryOp(op=op, operand=a):
                return self.operate(op, self.evaluate(a))
            case ast.BinOp(left=a, op=op, right=b) | ast.Compare(left=a, ops=[op], comparators=[b]):
                return self.operate(op, self.evaluate(a), self.evaluate(b))
            case ast.Call(func=ast.Name(id="cast"), args=[a], keywords=[]):
                return self.cast(self.evaluate(a))
            case ast.Call(func=ast.Name(id="where"), args=[cond, a, b], keywords=[]):
                return self.where(self.evaluate(cond), self.evaluate(a), self.evaluate(b))
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in PRIMITIVES:
                return self.apply(name, *(self.evaluate(a) for a in args))
        known = f"operands {', '.join(self.operands)}"
        raise ValueError(
            f"scalar body {self.body!r}: {ast.unparse(node)!r} is neither a primitive nor one of {known}"
        )

    def operate(self, op: ast.AST, *args: Value | Number) -> Value | Number:
        if type(op) not in OPERATORS:
            raise ValueError(f"scalar body {self.body!r} has an operator that is none of its own")
        name, fold = OPERATORS[type(op)]
        if fold is not None and not any(isinstance(a, tuple) for a in args):
            return fold(*args)
        return self.apply(name, *args)

    def apply(self, name: str, *args: Value | Number) -> Value | Number:
        primitive = PRIMITIVES[name]
        if len(args) != primitive.arity:
            raise ValueError(
                f"scalar body {self.body!r}: {name} takes {primitive.arity} operands, got {len(args)}"
            )
        if name == "pow" and not isinstance(args[1], tuple) and args[1] in POWERS:
            return POWERS[args[1]](self, args[0])
        lanes, texts = self.unify(name, *args)
        text = primitive.emit(name, lanes, *texts)
        return primitive.result_dtype(lanes.dtype), text

    def unify(self, name: str, *args: Value | Number) -> tuple[Lanes, list[str]]:
        """The one dtype of `args` (the result's, if all are numbers), and their texts."""
        dtypes = {a[0] for a in args if isinstance(a, tuple)} or {self.result}
        if len(dtypes) > 1:
            got = " and ".join(sorted(dtypes))
            raise TypeError(f"scalar body {self.body!r}: {name} needs operands of one dtype, got {got}")
        lanes = self.of(*dtypes)
        for a in args:
            if isinstance(a, float) and not lanes.is_float:
                raise TypeError(f"scalar body {self.body!r}: {name} of {lanes.dtype} and the number {a}")
        return lanes, [a[1] if isinstance(a, tuple) else lanes.const(a) for a in args]

    def cast(self, a: Value | Number) -> Value | Number:
        if not isinstance(a, tuple):
            return a
        return self.result, self.of(a[0]).cast(a[1], self.result)

    def where(self, cond: Value | Number, a: Value | Number, b: Value | Number) -> Value:
        if not isinstance(cond, tuple) or cond[0] != "bool":
            got = cond[0] if isinstance(cond, tuple) else cond
            raise TypeError(f"scalar body {self.body!r}: where needs a bool, got {got}")
        lanes, (first, second) = self.unify("where", a, b)
        return lanes.dtype, lanes.select(cond[1], first, second)


def sum_body(dtype: str) -> str:
    """The body that adds `a` and `b`."""
    return "complex(real(a) + real(b), imag(a) + imag(b))" if dtype in COMPLEX else "a + b"


# exponents that need no logarithm
POWERS: dict[Number, Callable[[_Writer, Value | Number], Value | Number]] = {
    1: lambda w, a: a,
    2: lambda w, a: w.apply("mul", a, a),
    3: lambda w, a: w.apply("mul", w.apply("mul", a, a), a),
    0.5: lambda w, a: w.apply("sqrt", a),
    -1: lambda w, a: w.apply("div", 1, a),
}
