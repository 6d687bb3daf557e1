"""Reads the text form: one grammar for every operation and every level.

    module := { func }
    func   := "func" symbol params "->" "(" [types] ")" [attrs] body
    params := "(" [value ":" type {"," value ":" type}] ")"
    body   := "{" { op } "}"
    op     := [values "="] name [values] [attrs] { params body } [":" types] ["loc" string]
    attrs  := "{" [name "=" attr {"," name "=" attr}] "}"
    attr   := "true" | "false" | "none" | string | number | size | type | complex | attrs | list | tuple | "@sha256:" hex
    type   := ["&"] dtype "[" sizes [";" sizes] "]" ["@" space]
    size   := names and integers with + - * // %, min(a, b), max(a, b) and parentheses

`//` begins a comment at the start of a line and after white space; without white space before it, it divides sizes.
Likewise `%` begins a value's name unless it stands right behind a name, a number or `)`.  A value whose name is a
number has no name of its own.  A block's operands stand on the line of the operation's name.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tcc.ir import dims
from tcc.ir import ops as _ops  # noqa: F401  (fills the table)
from tcc.ir.arrays import Array, digest, read_safetensors
from tcc.ir.core import Attrs, Block, Func, Module, Op, Value
from tcc.ir.dims import Size
from tcc.ir.optable import GENERAL_ATTRS, TABLE, OpDef, complete_attrs
from tcc.ir.printer import WORDS, element_dtype
from tcc.ir.tokens import ParseError, Token, Tokens, error_at, nearest
from tcc.ir.types import COMPLEX, DTYPES, FLOATS, INTEGERS, Place, Type, numpy_dtype

LONGEST_NUMBER = 40  # digits; the widest integer has 20


def parse(
    text: str | bytes,
    path: str = "<text>",
    constants: Mapping[str, Array] | None = None,
    positions: dict[Op, tuple[int, int]] | None = None,
    beside: bool = True,
) -> Module:
    """The functions of `text`.  Large constants come from `constants`, else, if `beside`, from safetensors files beside `path`.

    `positions` is filled with the line and column (from 1) of every operation.  Raises ParseError, and nothing else, for
    whatever is not the text of a module.
    """
    try:
        source = text if isinstance(text, str) else text.decode()
    except UnicodeDecodeError as e:
        before = e.object[: e.start].decode()
        raise error_at(path, before, len(before), "not UTF-8") from None
    parser = Parser(source, path, constants or {}, beside)
    module = parser.module()
    if positions is not None:
        lines = [m.start() for m in re.finditer(r"^", source, re.M)]
        for op, at in parser.begins.items():
            line = bisect.bisect_right(lines, at)
            positions[op] = line, at - lines[line - 1] + 1
    return module


def parse_func(text: str | bytes, constants: Mapping[str, Array] | None = None) -> Func:
    """The only function of `text`."""
    module = parse(text, constants=constants)
    if len(module) != 1:
        raise ParseError("<text>", 1, 1, f"expected one function, found {len(module)}", "")
    return next(iter(module.values()))


class Parser(Tokens):
    """Recursive descent; `scope` maps what is visible, and a block takes its names back when it ends."""

    def __init__(self, text: str, path: str, constants: Mapping[str, Array], beside: bool) -> None:
        super().__init__(text, path)
        self.constants, self.beside = constants, beside
        self.scope: dict[str, Value] = {}
        self.visible: list[str] = []  # the names in `scope`, oldest first
        self.begins: dict[Op, int] = {}  # where in the text each operation stands

    # -- functions, blocks, operations ---------------------------------------------------------------------------

    def module(self) -> Module:
        out: Module = {}
        while self.token.kind != "end":
            self.expect("func")
            token = self.take("symbol")
            name = self.unquoted(token, 1)
            if name in out:
                raise self.fail(f"@{name} is defined twice", token)
            out[name] = self.func(name)
        return out

    def func(self, name: str) -> Func:
        self.scope, self.visible = {}, []
        body = self.params()
        self.expect("->")
        token = self.expect("(")
        types = self.listed(self.read_type, ")")
        has_attrs = (
            self.peek("{") and self.tokens[self.pos + 1].kind in ("name", "string") and self.peek("=", 2)
        )
        attrs = self.attrs() if has_attrs else {}
        self.body(body)
        if body.last is not None and body.last.name == "yield":
            got = [v.type for v in body.yields]
            if got != types:
                raise self.fail(f"@{name} yields other types, ({', '.join(map(str, got))})", token)
        return Func(name, body, attrs)

    def params(self) -> Block:
        """A block's parameters, which become visible."""
        block = Block()
        self.expect("(")

        def param() -> None:
            token = self.take("value")
            self.expect(":")
            self.define(token, block.add_param(self.read_type()))

        self.listed(param, ")")
        return block

    def body(self, block: Block) -> None:
        self.expect("{")
        while self.token.kind != "end" and not self.peek("}"):
            block.append(self.deeper(self.op))
        self.expect("}")

    def define(self, token: Token, value: Value) -> None:
        if token.text in self.scope:
            raise self.fail(f"{token.text} is already defined", token)
        self.scope[token.text] = value
        self.visible.append(token.text)
        value.name = "" if token.text[1:].isdigit() else self.unquoted(token, 1)

    def op(self) -> Op:
        begin = self.token.at
        names = self.values() if self.token.kind == "value" else []
        if names:
            self.expect("=")
        token = self.take("name")
        defn = TABLE.get(token.text)
        if defn is None:
            raise self.fail(f"no op named {token.text}{nearest(token.text, TABLE)}", token)
        operands = [self.use(t) for t in (self.values() if not self.token.fresh else [])]
        attrs = self.attrs(defn) if self.peek("{") else {}
        blocks: list[Block] = []
        while self.peek("("):
            outside = len(self.visible)
            block = self.params()
            self.body(block)
            blocks.append(block)
            while len(self.visible) > outside:
                del self.scope[self.visible.pop()]
        types_at = self.token
        types = self.types() if self.accept(":") else []
        loc = self.unquoted(self.take("string")) if self.accept("loc") else ""
        if len(types) != len(names):
            raise self.fail(f"{token.text} has {len(names)} results here, but {len(types)} types", types_at)
        try:
            attrs = complete_attrs(defn, attrs)
        except TypeError as e:
            raise self.fail(str(e), token) from None
        op = Op(defn, operands, types, attrs=attrs, blocks=blocks, loc=loc)
        self.begins[op] = begin
        for name, result in zip(names, op.results):
            self.define(name, result)
        return op

    def values(self) -> list[Token]:
        out: list[Token] = []
        while self.token.kind == "value":
            out.append(self.take("value"))
            if not self.accept(","):
                break
            if self.token.kind != "value":
                self.take("value")
        return out

    def use(self, token: Token) -> Value:
        value = self.scope.get(token.text)
        if value is None:
            raise self.fail(f"{token.text} is not defined here{nearest(token.text, self.scope)}", token)
        return value

    # -- attributes ----------------------------------------------------------------------------------------------

    def attrs(self, defn: OpDef | None = None) -> Attrs:
        """`{key = value, ...}`; with a row, only what it knows."""
        out: Attrs = {}
        at = self.expect("{")

        def item() -> None:
            token = self.token
            if token.kind not in ("name", "string", "number"):
                raise self.fail(f"expected an attribute's name, found {token.text or 'the end of the text'}")
            self.pos += 1
            key: Any = self.integer(token) if token.kind == "number" else self.unquoted(token)
            if key in out:
                raise self.fail(f"{key} is given twice", token)
            if defn is not None and key not in defn.attrs and key not in GENERAL_ATTRS:
                near = nearest(str(key), [*defn.attrs, *GENERAL_ATTRS])
                raise self.fail(f"{defn.name} has no attribute {key}{near}", token)
            self.expect("=")
            out[key] = self.deeper(self.attr)

        self.listed(item, "}")
        return self.constant(out, at) if element_dtype(out) else out

    def attr(self) -> Any:
        token = self.token
        if token.kind == "string":
            return self.unquoted(self.take("string"))
        if token.kind == "symbol":
            return self.reference(self.take("symbol"))
        if self.peek("["):
            self.pos += 1
            return self.listed(lambda: self.deeper(self.attr), "]")
        if self.peek("{"):
            return self.attrs()
        if self.peek("("):
            return self.tuple_or_size()
        if self.peek("&") or (token.kind == "name" and self.peek("[", 1)):
            return self.read_type()
        if token.text in WORDS and (token.text != "complex" or self.peek("(", 1)):
            return self.word()
        return self.number_or_size()

    def word(self) -> Any:
        text = self.take("name").text
        if text != "complex":
            return {"true": True, "false": False, "none": None, "inf": float("inf"), "nan": float("nan")}[
                text
            ]
        self.expect("(")
        parts = self.listed(self.number_or_size, ")")
        if len(parts) != 2 or not all(isinstance(p, float | int) for p in parts):
            raise self.fail("complex takes two numbers")
        return complex(*parts)

    def number_or_size(self) -> Any:
        negative = self.peek("-")
        token = self.tokens[min(self.pos + negative, len(self.tokens) - 1)]
        if token.kind == "number" and not token.text.isdigit():
            self.pos += 1 + negative
            return -float(token.text) if negative else float(token.text)
        if token.text in ("inf", "nan") and token.kind == "name":
            self.pos += 1 + negative
            return float("-" + token.text if negative else token.text)
        return self.size()

    def tuple_or_size(self) -> Any:
        """`()`, `(a,)`, `(a, b)`; a size in parentheses, which arithmetic may follow."""
        start = self.pos
        self.expect("(")
        if self.accept(")"):
            return ()
        first = self.deeper(self.attr)
        if self.accept(","):
            return (first, *self.listed(lambda: self.deeper(self.attr), ")"))
        self.pos = start
        return self.size()

    def reference(self, token: Token) -> Array:
        scheme, _, name = token.text.partition(":")
        if scheme != "@sha256":
            raise self.fail("expected an attribute's value", token)
        if name in self.constants:
            return self.constants[name]
        if not self.beside:
            raise self.fail(f"there is no constant {name} here", token)
        path = Path(self.path).parent / f"{name}.safetensors"
        try:
            array = read_safetensors(path)["value"]
        except KeyError:
            raise self.fail(f"{path} has no tensor named value", token) from None
        except (OSError, ValueError) as e:
            raise self.fail(f"cannot read the constant: {e}", token) from None
        if digest(array) != name:
            raise self.fail(f"{path} holds other content than its name says", token)
        return array

    def constant(self, attrs: Attrs, at: Token) -> Attrs:
        """A constant's value in the precision of its type: lists become arrays, floats are rounded."""
        type, value = attrs["type"], attrs["value"]
        dtype = numpy_dtype(type.dtype)
        if isinstance(value, list):
            attrs["value"] = self.dense(value, type, at)
        elif isinstance(value, np.ndarray) and (value.dtype != dtype or value.shape != type.shape):
            raise self.fail(
                f"the constant is {value.dtype} of shape {list(value.shape)}, its type is {type}", at
            )
        elif isinstance(value, float) and type.dtype in FLOATS:
            with np.errstate(over="ignore"):
                attrs["value"] = float(dtype.type(value))
        return attrs

    def dense(self, value: list[Any], type: Type, at: Token) -> Array:
        kinds: tuple[Any, ...] = (bool,)
        if type.dtype in INTEGERS:
            kinds = (int,)
        elif type.dtype in FLOATS:
            kinds = (int, float)
        elif type.dtype in COMPLEX:
            kinds = (int, float, complex)
        if not all(isinstance(v, kinds) for v in _flat(value)):
            raise self.fail(f"the constant has elements that are not {type.dtype}", at)
        try:
            with np.errstate(over="ignore"):
                array = np.array(value, numpy_dtype(type.dtype))
        except (ValueError, OverflowError, TypeError) as e:
            raise self.fail(f"cannot read the constant: {e}", at) from None
        if array.size == 0 and 0 in type.shape and all(isinstance(s, int) for s in type.shape):
            array = np.empty(tuple(map(int, map(str, type.shape))), array.dtype)
        if array.shape != type.shape:
            raise self.fail(f"the constant has shape {list(array.shape)}, its type is {type}", at)
        return array

    # -- types and sizes -----------------------------------------------------------------------------------------

    def types(self) -> list[Type]:
        out = [self.read_type()]
        while self.accept(","):
            out.append(self.read_type())
        return out

    def read_type(self) -> Type:
        placed = self.accept("&")
        token = self.take("name")
        if token.text not in DTYPES:
            raise self.fail(f"no dtype named {token.text}{nearest(token.text, DTYPES)}", token)
        self.expect("[")
        shape, strides = self.sizes(), None
        if self.accept(";"):
            strides = self.sizes()
        self.expect("]")
        if not placed:
            if strides is not None:
                raise self.fail(f"only a place, written &{token.text}[...], has strides", token)
            return Type(token.text, shape)
        if strides is not None and len(strides) != len(shape):
            raise self.fail(f"{len(shape)} sizes but {len(strides)} strides", token)
        space = self.unquoted(self.take("symbol"), 1) if self.token.kind == "symbol" else "arena"
        return Type(token.text, shape, Place(strides, space))

    def sizes(self) -> tuple[Size, ...]:
        if self.peek("]") or self.peek(";"):
            return ()
        out = [self.size()]
        while self.accept(","):
            out.append(self.size())
        return tuple(out)

    def size(self) -> Size:
        left = self.term()
        while self.peek("+") or self.peek("-"):
            combine = dims.add if self.accept("+") else dims.sub
            if combine is dims.sub:
                self.expect("-")
            left = combine(left, self.term())
        return left

    def term(self) -> Size:
        left = self.deeper(self.factor)
        while self.peek("*") or self.peek("//") or self.peek("%"):
            token = self.token
            self.pos += 1
            right = self.deeper(self.factor)
            if token.text != "*":
                left = dims.FUNCTIONS[token.text](left, right)
            elif dims.term_count(left) * dims.term_count(right) > dims.MOST_TERMS:
                raise self.fail("this size has too many terms", token)
            else:
                left = dims.mul(left, right)
        return left

    def factor(self) -> Size:
        token = self.token
        if self.accept("-"):
            return dims.mul(-1, self.deeper(self.factor))
        if self.accept("("):
            inner = self.deeper(self.size)
            self.expect(")")
            return inner
        if token.kind == "number":
            self.pos += 1
            return self.integer(token)
        if token.kind != "name":
            raise self.fail(f"expected a size, found {token.text or 'the end of the text'}")
        self.pos += 1
        if token.text not in ("min", "max") or not self.accept("("):
            return dims.name(token.text)
        args = self.listed(lambda: self.deeper(self.size), ")")
        if len(args) != 2:
            raise self.fail(f"{token.text} takes two sizes", token)
        return dims.FUNCTIONS[token.text](*args)

    def integer(self, token: Token) -> int:
        if not token.text.isdigit():
            raise self.fail(f"expected a whole number, found {token.text}", token)
        if len(token.text) > LONGEST_NUMBER:
            raise self.fail("this number has too many digits", token)
        return int(token.text)


def _flat(value: list[Any]) -> Iterable[Any]:
    for v in value:
        if isinstance(v, list):
            yield from _flat(v)
        else:
            yield v
