"""A kernel that is written in Python, translated from its syntax tree to the text that all kernels are.

What may stand in one: arithmetic on numbers of one dtype (a plain number takes the dtype of what it meets, and nothing else is converted
unless a cast says so), arrays by their indices, `if`, `for ... in range`, `while`, `break`, `continue`, `return`, names of numbers and
functions outside, among these the vocabulary of threads and other Python functions, which are put in place.  A name is a number
of one dtype throughout.  Whatever else is written is refused with its line.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tcc.codegen.emit import Emit, VecType
from tcc.codegen.gpu.chips import LANE
from tcc.codegen.gpu.kernel import GpuKernel, blocks_for, finish, global_thread
from tcc.codegen.gpu.python_expressions import Expressions
from tcc.codegen.gpu.python_numbers import Array, Number, Outside, Slot, Source, Value, named
from tcc.codegen.kernel import Operand, Slots
from tcc.codegen.lanes import Lanes, memory_elem
from tcc.codegen.lanes import store as store_element
from tcc.ir.dims import Size
from tcc.ir.types import Type


def kernel_text(
    source: Source,
    reads: Sequence[Type],
    writes: Sequence[Type],
    block: tuple[int, ...],
    grid: tuple[Size, Size, Size],
    vocabulary: Mapping[Any, str],
) -> GpuKernel:
    """The kernel of a function over these arrays, whose parameters are the operands, then the results.

    `vocabulary` names the primitive, or the method of `_Writer`, that an object outside means.  TypeError and SyntaxError tell of the line.
    """
    return _Writer(source, reads, writes, block, grid, vocabulary).kernel()


def fill_kernel(number: int, type: Type, value: float) -> GpuKernel:
    """Sets all elements of operand `number`."""
    e, slots = Emit(), Slots()
    e.function("void @KERNEL_NAME(ptr %args)")
    base, size = slots.pointer(e, Operand(number)), slots.size(e, type.size)
    first, step = global_thread(e, 128)
    t = VecType(memory_elem(type.dtype))
    lanes = Lanes(e, LANE, type.dtype, 1)

    def one(i: str, _: list[str]) -> None:
        store_element(e, LANE, type.dtype, 1, lanes.const(value), e.gep(base, i, t.elem))

    e.loop(first, size, step, one)
    e.end()
    return finish(e, "fill", slots.slots, blocks_for(type.size))


class _Writer(Expressions):
    def __init__(
        self,
        source: Source,
        reads: Sequence[Type],
        writes: Sequence[Type],
        block: tuple[int, ...],
        grid: tuple[Size, Size, Size],
        vocabulary: Mapping[Any, str],
    ) -> None:
        super().__init__(source, block, vocabulary)
        self.grid = grid
        self.slots = Slots()
        self.types = [*reads, *writes]
        self.count = len(reads)

    def kernel(self) -> GpuKernel:
        e, arguments = self.e, self.source.tree.args
        e.function("void @KERNEL_NAME(ptr %args)")
        head = len(e.lines)
        for number, (given, type) in enumerate(zip(arguments.args, self.types, strict=True)):
            base = self.slots.pointer(e, Operand(number))
            sizes = tuple(self.slots.size(e, s) for s in type.shape)
            self.frame.names[given.arg] = Array(given.arg, type.dtype, base, sizes, number >= self.count)
        self.frame.end = e.label()
        self.body(self.source.tree.body)
        e.branch(self.frame.end)
        e.at(self.frame.end)
        e.end()
        e.lines[head:head] = self.variables
        notes = "".join(f"; site {n}: {text}\n" for n, text in enumerate(self.sites))
        threads = math.prod(self.block)
        name = f"user_{self.source.tree.name}"
        made = finish(e, name, self.slots.slots, self.grid, threads, self.shared)
        return replace(made, text=notes + made.text)  # which are not in its name: they hold paths

    # -- statements --------------------------------------------------------------------------------------------------

    def body(self, statements: Sequence[ast.stmt]) -> None:
        for s in statements:
            self.statement(s)

    def statement(self, s: ast.stmt) -> None:
        match s:
            case ast.Expr(value=ast.Constant()) | ast.Pass():
                return
            case ast.Expr(value=ast.Call() as call):
                self.evaluate(call)
            case ast.Assign(targets=[target], value=value):
                self.assign(target, self.evaluate(value))
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                self.assign(target, self.evaluate(value))
            case ast.AugAssign(target=target, op=op, value=value):
                loaded = ast.copy_location(_loading(target), target)
                self.assign(target, self.operate(s, op, self.evaluate(loaded), self.evaluate(value)))
            case ast.If(test=test, body=body, orelse=otherwise):
                self.choose(test, body, otherwise)
            case ast.While(test=test, body=body, orelse=[]):
                self.repeat(lambda: self.condition(test), lambda: None, body, lambda: None)
            case ast.For(target=ast.Name() as name, iter=ast.Call() as counted, body=body, orelse=[]):
                self.count_up(name, counted, body)
            case ast.Break() | ast.Continue():
                if not self.frame.loops:
                    self.refuse(s, "stands outside of a loop", SyntaxError)
                self.leave(self.frame.loops[-1][isinstance(s, ast.Break)])
            case ast.Return(value=value):
                self.give(s, value)
            case _:
                self.refuse(
                    s, f"a kernel cannot hold this statement ({type(s).__name__.lower()})", SyntaxError
                )

    def leave(self, label: str) -> None:
        """What follows in the text is not reached."""
        self.e.branch(label)
        self.e.at(self.e.label())

    def give(self, s: ast.AST, value: ast.expr | None) -> None:
        if not self.frame.inner:
            if value is not None:
                self.refuse(s, "a kernel returns nothing: it writes into its results", SyntaxError)
        elif value is not None:
            given = self.number(value, self.evaluate(value))
            if self.frame.result is None:
                self.frame.result = self.variable(given.dtype)
            if self.frame.result.dtype != given.dtype:
                self.refuse(
                    s, f"returns {named(given.dtype)} here and {named(self.frame.result.dtype)} elsewhere"
                )
            self.put(self.frame.result, given)
        self.leave(self.frame.end)

    def assign(self, target: ast.expr, value: Value) -> None:
        names = self.frame.names
        match target:
            case ast.Name(id=name):
                known = names.get(name)
                if isinstance(known, Array) or (known is not None and not isinstance(known, Slot)):
                    self.refuse(target, f"{name} is an array, and cannot be set as a whole")
                if not isinstance(value, Number | bool | int | float):
                    if known is not None:
                        self.refuse(target, f"{name} is a number elsewhere")
                    names[name] = value
                    return
                given = (
                    self.number(target, value)
                    if known is None
                    else self.as_dtype(target, value, known.dtype, name)
                )
                if known is None:
                    names[name] = known = self.variable(given.dtype)
                self.put(known, given)
            case ast.Subscript(value=base, slice=index):
                array = self.evaluate(base)
                if not isinstance(array, Array):
                    self.refuse(target, "only an array's elements can be set")
                if not array.written:
                    self.refuse(target, f"{array.name} is an input: what is written stands behind the ->")
                given = self.as_dtype(target, value, array.dtype, array.name)
                pointer = self.element(target, array, index)
                store_element(self.e, LANE, array.dtype, 1, given.text, pointer)
            case ast.Tuple(elts=targets) if isinstance(value, tuple) and len(targets) == len(value):
                for t, v in zip(targets, value):
                    self.assign(t, v)
            case _:
                self.refuse(target, "this cannot be set", SyntaxError)

    def choose(self, test: ast.expr, body: Sequence[ast.stmt], otherwise: Sequence[ast.stmt]) -> None:
        value = self.evaluate(test)
        if isinstance(value, bool | int | float):  # known: the other branch is left out
            self.body(body if value else otherwise)
            return
        then, other, after = self.e.label(), self.e.label(), self.e.label()
        self.e.branch_if(self.truth(test, value), then, other)
        for label, statements in ((then, body), (other, otherwise)):
            self.e.at(label)
            self.body(statements)
            self.e.branch(after)
        self.e.at(after)

    def repeat(
        self,
        going: Callable[[], str],
        begin: Callable[[], None],
        body: Sequence[ast.stmt],
        step: Callable[[], None],
    ) -> None:
        head, inside, following, after = (self.e.label() for _ in range(4))
        self.e.branch(head)
        self.e.at(head)
        self.e.branch_if(going(), inside, after)
        self.e.at(inside)
        begin()
        self.frame.loops.append((following, after))
        self.body(body)
        self.frame.loops.pop()
        self.e.branch(following)
        self.e.at(following)
        step()
        self.e.branch(head)
        self.e.at(after)

    def count_up(self, name: ast.Name, counted: ast.Call, body: Sequence[ast.stmt]) -> None:
        if self.evaluate(counted.func) != Outside(range) or not 1 <= len(counted.args) <= 3:
            self.refuse(counted, "a kernel counts with range(...)", SyntaxError)
        given = [self.evaluate(a) for a in counted.args]
        start, stop = given[:2] if len(given) > 1 else (0, given[0])
        step = given[2] if len(given) > 2 else 1
        if not isinstance(step, int) or not step:
            self.refuse(counted, "range steps by a known number other than 0")
        e, counter, end = self.e, self.variable("i64"), self.as_dtype(counted, stop, "i64", "range")
        self.put(counter, self.as_dtype(counted, start, "i64", "range"))
        comparison = "slt" if step > 0 else "sgt"

        def onwards() -> None:
            self.put(counter, Number("i64", e.value(f"add i64 {self.get(counter).text}, {step}")))

        self.repeat(
            lambda: e.value(f"icmp {comparison} i64 {self.get(counter).text}, {end.text}"),
            lambda: self.assign(name, self.get(counter)),
            body,
            onwards,
        )


def _loading(target: ast.expr) -> ast.expr:
    match target:
        case ast.Name(id=name):
            return ast.Name(name, ast.Load())
        case ast.Subscript(value=base, slice=index):
            return ast.Subscript(base, index, ast.Load())
    return target
