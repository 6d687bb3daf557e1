"""Expressions of a kernel in Python, and the words that it has for threads and shared memory."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tcc.codegen.emit import VecType
from tcc.codegen.gpu.chips import LANE
from tcc.codegen.gpu.kernel import barrier, shuffle
from tcc.codegen.gpu.python_numbers import (
    Array,
    Dtype,
    Number,
    Numbers,
    Outside,
    Slot,
    Source,
    Value,
    kind_of,
    named,
)
from tcc.codegen.lanes import Lanes, elem, memory_elem
from tcc.codegen.lanes import load as load_element
from tcc.codegen.primitives import PRIMITIVES
from tcc.ir.types import DTYPES, FROM_NUMPY, INTEGERS

MOST_SHARED = 227 << 10  # bytes of a block
ATOMIC = ("i32", "u32", "i64", "u64", "f32", "f64")


@dataclass
class Frame:
    """One function being written: its names, and where `return` and the loops' exits lead."""

    names: dict[str, Any]
    end: str
    result: Any = None  # Slot, once a value has been returned
    loops: list[tuple[str, str]] = field(
        default_factory=list
    )  # labels of the next turn and of what is behind
    inner: bool = False


class Expressions(Numbers):
    """A method `call_NAME` is a word of the vocabulary: its arguments are expressions."""

    def __init__(self, source: Source, block: tuple[int, ...], vocabulary: Mapping[Any, str]) -> None:
        super().__init__(source)
        self.block, self.vocabulary = block, vocabulary
        self.shared = 0  # bytes
        self.sites: list[str] = []  # what the host says of an index that is not within
        self.frame = Frame({}, "")
        self.calling = [source]

    def body(self, statements: Sequence[ast.stmt]) -> None:
        raise NotImplementedError

    def assign(self, target: ast.expr, value: Value) -> None:
        raise NotImplementedError

    def evaluate(self, node: ast.expr) -> Value:
        match node:
            case ast.Constant(value=bool() | int() | float() as number):
                return number
            case ast.Name(id=name):
                return self.lookup(node, name)
            case ast.Attribute(value=base, attr=attr):
                return self.attribute(node, self.evaluate(base), attr)
            case ast.Subscript(value=base, slice=index):
                return self.subscript(node, self.evaluate(base), index)
            case ast.Tuple(elts=elements):
                return tuple(map(self.evaluate, elements))
            case ast.UnaryOp(op=ast.Not(), operand=a):
                known = self.evaluate(a)
                if isinstance(known, bool | int | float):
                    return not known
                return self.apply(node, "not", Number("bool", self.truth(a, known)))
            case ast.UnaryOp(op=ast.UAdd(), operand=a):
                return self.evaluate(a)
            case ast.UnaryOp(op=op, operand=a):
                return self.operate(node, op, self.evaluate(a))
            case ast.BinOp(left=a, op=op, right=b):
                return self.operate(node, op, self.evaluate(a), self.evaluate(b))
            case ast.Compare(left=first, ops=ops, comparators=rest):
                return self.compare(node, first, ops, rest)
            case ast.BoolOp(op=op, values=values):
                return self.logic(node, isinstance(op, ast.And), values)
            case ast.IfExp(test=test, body=a, orelse=b):
                return self.either(node, test, a, b)
            case ast.Call():
                return self.call(node)
        self.refuse(
            node, f"a kernel cannot hold this expression ({type(node).__name__.lower()})", SyntaxError
        )

    def lookup(self, node: ast.AST, name: str) -> Value:
        found = self.frame.names.get(name)
        if isinstance(found, Slot):
            return self.get(found)
        if isinstance(found, Array) and not found.sizes and not found.written:
            return Number(found.dtype, load_element(self.e, LANE, found.dtype, 1, found.base))
        if found is not None:
            return found
        try:
            return self.outside(self.source.scope(name))
        except KeyError:
            self.refuse(node, f"{name} is not known here", NameError)

    def outside(self, value: Any) -> Value:
        if isinstance(value, np.generic) and value.dtype.name in FROM_NUMPY:
            dtype = FROM_NUMPY[value.dtype.name]
            return Number(dtype, Lanes(self.e, LANE, dtype, 1).const(value.item()))
        return value if isinstance(value, bool | int | float) else Outside(value)

    def attribute(self, node: ast.AST, base: Value, attr: str) -> Value:
        if isinstance(base, Outside):
            if not hasattr(base.value, attr):
                self.refuse(node, f"{base.value!r} has no {attr}", AttributeError)
            return self.outside(getattr(base.value, attr))
        if isinstance(base, Array):
            if attr == "shape":
                return tuple(Number("i64", s) for s in base.sizes)
            if attr == "ndim":
                return len(base.sizes)
            if attr == "size":
                total: Value = 1
                for s in base.sizes:
                    total = self.operate(node, ast.Mult(), total, Number("i64", s))
                return total
        if isinstance(base, Array | Number) and attr == "dtype":
            return Outside(Dtype(base.dtype))
        self.refuse(node, f"{kind_of(base)} has no {attr} in a kernel", AttributeError)

    def subscript(self, node: ast.AST, base: Value, index: ast.expr) -> Value:
        if isinstance(base, tuple):
            at = self.evaluate(index)
            if not isinstance(at, int) or not -len(base) <= at < len(base):
                self.refuse(node, f"a shape of {len(base)} sizes takes a known number")
            return base[at]
        if isinstance(base, Outside):
            self.refuse(node, "elements of what is outside cannot be read: give it to the kernel as an input")
        if not isinstance(base, Array):
            self.refuse(node, f"{kind_of(base)} has no elements")
        pointer = self.element(node, base, index)
        return Number(base.dtype, load_element(self.e, LANE, base.dtype, 1, pointer))

    def element(self, node: ast.AST, array: Array, index: ast.expr) -> str:
        """The address of an element; on the host its indices are looked at."""
        given = self.evaluate(index)
        at = given if isinstance(given, tuple) else (given,)
        if len(at) != len(array.sizes):
            self.refuse(node, f"{array.name} has {len(array.sizes)} axes, and {len(at)} indices are given")
        e, offset = self.e, "0"
        for axis, (i, size) in enumerate(zip(at, array.sizes)):
            if isinstance(i, int) and not isinstance(i, bool) and i < 0:
                i = Number("i64", e.value(f"add i64 {size}, {i}"))
            number = self.index(node, i)
            site = len(self.sites)
            self.sites.append(f"{self.where(node)}: index # of axis {axis} of {array.name}")
            inside = e.call("i64", "tcc.inside", ("i64", number), ("i64", size), ("i32", str(site)))
            offset = e.value(f"mul i64 {offset}, {size}") if axis else offset
            offset = e.value(f"add i64 {offset}, {inside}") if axis else inside
        return e.gep(array.base, offset, VecType(memory_elem(array.dtype)).elem)

    def index(self, node: ast.AST, value: Value) -> str:
        if isinstance(value, Number) and value.dtype in INTEGERS:
            return Lanes(self.e, LANE, value.dtype, 1).cast(value.text, "i64")
        return self.as_dtype(node, value, "i64", "an index").text

    def where(self, node: ast.AST) -> str:
        return f"{self.source.file}:{getattr(node, 'lineno', 0)}"

    # -- arithmetic --------------------------------------------------------------------------------------------------

    def condition(self, test: ast.expr) -> str:
        return self.truth(test, self.evaluate(test))

    def compare(
        self, node: ast.expr, first: ast.expr, ops: Sequence[ast.cmpop], rest: Sequence[ast.expr]
    ) -> Value:
        values = [self.evaluate(n) for n in (first, *rest)]
        found = [self.operate(node, op, a, b) for op, a, b in zip(ops, values, values[1:])]
        if all(isinstance(v, bool) for v in found):
            return all(found)
        whole = found[0]
        for one in found[1:]:
            whole = self.apply(node, "and", whole, one)
        return whole

    def logic(self, node: ast.AST, both: bool, values: Sequence[ast.expr]) -> Value:
        """`and`, `or`: what follows is only looked at where it matters."""
        e, slot, after = self.e, self.variable("bool"), self.e.label()
        for i, one in enumerate(values):
            truth = self.condition(one)
            e.line(f"store i1 {truth}, ptr {slot.pointer}")
            if i + 1 < len(values):
                more = e.label()
                e.branch_if(truth, *((more, after) if both else (after, more)))
                e.at(more)
        e.branch(after)
        e.at(after)
        return self.get(slot)

    def either(self, node: ast.AST, test: ast.expr, a: ast.expr, b: ast.expr) -> Value:
        e, then, other, after = self.e, self.e.label(), self.e.label(), self.e.label()
        e.branch_if(self.condition(test), then, other)
        e.at(then)
        first, first_end = self.evaluate(a), e.current
        e.branch(after)
        e.at(other)
        second, second_end = self.evaluate(b), e.current
        e.branch(after)
        e.at(after)
        dtype = next((v.dtype for v in (first, second) if isinstance(v, Number)), None)
        if dtype is None:
            dtype = "f64" if isinstance(second, float) else self.number(node, first).dtype
        one, two = (self.as_dtype(node, v, dtype, "the other value") for v in (first, second))
        text = e.value(f"phi {elem(dtype)} [{one.text}, %{first_end}], [{two.text}, %{second_end}]")
        return Number(dtype, text)

    # -- calls -------------------------------------------------------------------------------------------------------

    def call(self, node: ast.Call) -> Value:
        what = self.evaluate(node.func)
        if not isinstance(what, Outside):
            self.refuse(node, f"{kind_of(what)} cannot be called")
        if node.keywords or any(isinstance(a, ast.Starred) for a in node.args):
            self.refuse(node, "a kernel gives arguments by their places", SyntaxError)
        function = what.value
        if isinstance(function, Dtype) or (isinstance(function, type) and issubclass(function, np.generic)):
            return self.cast(node, self.evaluate(_only(self, node)), self.dtype_of(node, function))
        name = self.vocabulary.get(function) if _hashable(function) else None
        if name in PRIMITIVES:
            args = [self.evaluate(a) for a in node.args]
            if name in ("min", "max") and len(args) > 2:
                first = args[0]
                for other in args[1:]:
                    first = self.apply(node, name, first, other)
                return first
            return self.apply(node, name, *args)
        if name is not None:
            method = getattr(self, f"call_{name}")
            wanted = method.__code__.co_argcount - 2, len(method.__defaults__ or ())
            if not wanted[0] - wanted[1] <= len(node.args) <= wanted[0]:
                self.refuse(node, f"{name} takes {wanted[0]} arguments, got {len(node.args)}")
            return method(node, *node.args)
        written = getattr(self.vocabulary, "source_of", lambda f: None)(function)
        if written is None:
            self.refuse(node, f"{getattr(function, '__name__', function)} cannot be called in a kernel")
        return self.inline(node, written)

    def inline(self, node: ast.Call, source: Source) -> Value:
        if source in self.calling:
            self.refuse(node, f"{source.tree.name} calls itself", SyntaxError)
        names = source.tree.args.args
        if len(names) != len(node.args):
            self.refuse(node, f"{source.tree.name} takes {len(names)} arguments, got {len(node.args)}")
        given = [self.evaluate(a) for a in node.args]
        outer = self.frame, self.source
        self.frame, self.source = Frame({}, self.e.label(), inner=True), source
        self.calling.append(source)
        for name, value in zip(names, given):
            self.assign(ast.copy_location(ast.Name(name.arg), name), value)
        self.body(source.tree.body)
        self.e.branch(self.frame.end)
        self.e.at(self.frame.end)
        result = self.frame.result
        self.frame, self.source = outer
        self.calling.pop()
        return self.get(result) if result is not None else None

    def call_int(self, node: ast.AST, x: ast.expr) -> Value:
        return self.cast(node, self.evaluate(x), "i64")

    def call_float(self, node: ast.AST, x: ast.expr) -> Value:
        return self.cast(node, self.evaluate(x), "f64")

    def call_bool(self, node: ast.AST, x: ast.expr) -> Value:
        return self.cast(node, self.evaluate(x), "bool")

    def call_len(self, node: ast.AST, x: ast.expr) -> Value:
        array = self.evaluate(x)
        if not isinstance(array, Array) or not array.sizes:
            self.refuse(node, f"{kind_of(array)} has no length")
        return Number("i64", array.sizes[0])

    def axis(self, node: ast.AST, axis: ast.expr | None) -> int:
        found = 0 if axis is None else self.evaluate(axis)
        if not isinstance(found, int) or not 0 <= found < 3:
            self.refuse(node, "an axis of threads is 0, 1 or 2")
        return found

    def call_threads(self, node: ast.AST, axis: ast.expr | None = None) -> Value:
        number = self.axis(node, axis)
        return self.number(node, self.block[number] if number < len(self.block) else 1)

    def call_thread(self, node: ast.AST, axis: ast.expr | None = None) -> Value:
        number, e = self.axis(node, axis), self.e
        text = e.value(f"zext i32 {e.call('i32', 'tcc.thread')} to i64")
        before = math.prod(self.block[:number])
        if number >= len(self.block):
            return self.number(node, 0)
        if before > 1:
            text = e.value(f"udiv i64 {text}, {before}")
        if number < len(self.block) - 1:
            text = e.value(f"urem i64 {text}, {self.block[number]}")
        return Number("i64", text)

    def call_block(self, node: ast.AST, axis: ast.expr | None = None) -> Value:
        name = f"tcc.block.{'xyz'[self.axis(node, axis)]}"
        return Number("i64", self.e.value(f"zext i32 {self.e.call('i32', name)} to i64"))

    def call_blocks(self, node: ast.AST, axis: ast.expr | None = None) -> Value:
        name = f"tcc.grid.{'xyz'[self.axis(node, axis)]}"
        return Number("i64", self.e.value(f"zext i32 {self.e.call('i32', name)} to i64"))

    def call_index(self, node: ast.AST, axis: ast.expr | None = None) -> Value:
        first = self.operate(node, ast.Mult(), self.call_block(node, axis), self.call_threads(node, axis))
        return self.operate(node, ast.Add(), first, self.call_thread(node, axis))

    def call_barrier(self, node: ast.AST) -> Value:
        barrier(self.e)

    def call_warp_barrier(self, node: ast.AST) -> Value:
        self.e.call("void", "tcc.warp_barrier")

    def call_shuffle_xor(self, node: ast.AST, value: ast.expr, lanes: ast.expr) -> Value:
        return self.shuffled(node, value, lanes, "shuffle_xor")

    def call_shuffle(self, node: ast.AST, value: ast.expr, lane: ast.expr) -> Value:
        return self.shuffled(node, value, lane, "shuffle_from")

    def shuffled(self, node: ast.AST, value: ast.expr, by: ast.expr, op: str) -> Value:
        given = self.number(value, self.evaluate(value))
        lane = self.index(by, self.evaluate(by))
        text = self.e.value(f"trunc i64 {lane} to i32")
        return Number(given.dtype, shuffle(self.e, VecType(elem(given.dtype)), given.text, op, text))

    def call_shared(self, node: ast.AST, shape: ast.expr, dtype: ast.expr) -> Value:
        """Memory of the block, after what was asked for before."""
        given, kind = self.evaluate(shape), self.evaluate(dtype)
        sizes = given if isinstance(given, tuple) else (given,)
        if not all(isinstance(s, int) and s > 0 for s in sizes):
            self.refuse(node, "shared memory has known sizes, as in gpu.shared((32, 33), np.float32)")
        name = self.dtype_of(node, kind.value if isinstance(kind, Outside) else kind)
        at = -(-self.shared // 16) * 16
        self.shared = at + math.prod(sizes) * DTYPES[name][1]
        if self.shared > MOST_SHARED:
            self.refuse(
                node, f"{self.shared} bytes of shared memory are wanted, and a block has {MOST_SHARED}"
            )
        base = self.e.gep(self.e.call("ptr", "tcc.shared"), at)
        return Array("shared memory", name, base, tuple(map(str, sizes)))

    def call_atomic_add(self, node: ast.AST, array: ast.expr, index: ast.expr, value: ast.expr) -> Value:
        target = self.evaluate(array)
        if not isinstance(target, Array) or not target.written:
            self.refuse(node, "atomic_add adds to an element of a result or of shared memory")
        if target.dtype not in ATOMIC:
            told = ", ".join(map(named, ATOMIC))
            self.refuse(node, f"atomic_add has {told}, got {named(target.dtype)}")
        given = self.as_dtype(node, self.evaluate(value), target.dtype, target.name)
        pointer, t = self.element(node, target, index), elem(target.dtype)
        name = f"tcc.atomic_add.{target.dtype.replace('u', 'i')}"
        return Number(target.dtype, self.e.call(t, name, ("ptr", pointer), (t, given.text)))


def _only(writer: Expressions, node: ast.Call) -> ast.expr:
    if len(node.args) != 1:
        writer.refuse(node, f"a cast takes one number, got {len(node.args)}")
    return node.args[0]


def _hashable(value: Any) -> bool:
    return getattr(type(value), "__hash__", None) is not None
