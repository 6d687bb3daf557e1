"""GPU kernels that are written in Python, as ops."""

from __future__ import annotations

import ast
import functools
import inspect
import linecache
import math
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tcc import gpu
from tcc.ir import dims
from tcc.ir.arrays import as_numbers, in_memory
from tcc.ir.ops.rules import want_size
from tcc.ir.types import FROM_NUMPY, Type, memory_dtype
from tcc.locations import place
from tcc.types import TensorType
from tcc.user_op import Apply, Op
from tcc.variable import as_variable

if TYPE_CHECKING:
    from tcc.codegen.gpu.python_numbers import Source

Array = np.ndarray[Any, Any]
MOST_THREADS = 1024
_SIZES: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.FloorDiv: lambda a, b: a // b,
    ast.Mod: lambda a, b: a % b,
}
_WORDS = (
    "index thread threads block blocks shared barrier warp_barrier shuffle shuffle_xor atomic_add".split()
)
_MATH = "exp log sqrt sin cos tan tanh sinh cosh floor ceil trunc copysign log1p expm1 log2 log10 exp2 erf".split()


class _Vocabulary(dict[Any, str]):
    """Names of primitives and words by the objects that mean them."""

    def source_of(self, function: Any) -> Source | None:
        """Of another function in Python, whose body is put in its place."""
        return source_of(function) if isinstance(function, types.FunctionType) else None


@functools.cache
def vocabulary() -> _Vocabulary:
    from tcc.codegen.primitives import PRIMITIVES

    found = _Vocabulary({getattr(gpu, name): name for name in _WORDS})
    found.update({int: "int", float: "float", bool: "bool", len: "len", abs: "abs", min: "min", max: "max"})
    found.update({math.fabs: "abs", np.abs: "abs", np.minimum: "min", np.maximum: "max", pow: "pow"})
    for module in (math, np):
        for name in _MATH:
            if name in PRIMITIVES and hasattr(module, name):
                found[getattr(module, name)] = name
    found.update({f: n for f, n in {np.isnan: "isnan", math.isnan: "isnan", np.sign: "sign"}.items()})
    return found


@functools.lru_cache(1024)
def source_of(function: types.FunctionType) -> Source:
    """A function's syntax tree, with the lines of its file; OSError if its text is not to be had."""
    from tcc.codegen.gpu.python_numbers import Source, scope_of

    code = function.__code__
    lines = linecache.getlines(code.co_filename)
    if not lines:
        raise OSError(f"the text of {function.__qualname__} is not to be had: write it in a file")
    first = code.co_firstlineno - 1
    text = "".join(inspect.getblock(lines[first:]))
    (tree,) = ast.parse(inspect.cleandoc("\n" + text) if text[:1].isspace() else text).body
    assert isinstance(tree, ast.FunctionDef)
    ast.increment_lineno(tree, first)
    return Source(tree, scope_of(function), place((code.co_filename, 0)).rpartition(":")[0], lines)


@dataclass(frozen=True)
class Parameter:
    """`float32[n, 3]` of a signature.  A dtype or size that is a name stands for what a call brings."""

    name: str
    dtype: str
    sizes: tuple[ast.expr, ...]


def parameters(source: Source, signature: str) -> tuple[list[Parameter], list[Parameter]]:
    """The inputs and the results of `float32[n], float32 -> float32[n]`, with the names that the function gives them."""
    sides = [_arrays(source, side, signature) for side in signature.split("->")]
    names = [a.arg for a in source.tree.args.args]
    if len(sides) != 2 or not sides[1]:
        source.refuse(source.tree, f"{signature!r} is no signature like 'float32[n], float32 -> float32[n]'")
    if len(names) != sum(map(len, sides)):
        told = f"{len(names)} parameters, and {signature!r} has {sum(map(len, sides))} arrays"
        source.refuse(source.tree, f"{source.tree.name} has {told}")
    given = iter(names)
    inputs, outputs = ([Parameter(next(given), *array) for array in side] for side in sides)
    return inputs, outputs


def _arrays(source: Source, side: str, signature: str) -> list[tuple[str, tuple[ast.expr, ...]]]:
    try:
        listed = ast.parse(f"[{side}]", mode="eval").body
    except SyntaxError:
        source.refuse(source.tree, f"{signature!r} cannot be read")
    assert isinstance(listed, ast.List)
    found: list[tuple[str, tuple[ast.expr, ...]]] = []
    for node in listed.elts:
        match node:
            case ast.Name(id=dtype):
                found.append((dtype, ()))
            case ast.Subscript(value=ast.Name(id=dtype), slice=ast.Tuple(elts=sizes)):
                found.append((dtype, tuple(sizes)))
            case ast.Subscript(value=ast.Name(id=dtype), slice=size):
                found.append((dtype, (size,)))
            case _:
                source.refuse(source.tree, f"{ast.unparse(node)} is no dtype with sizes, as float32[n, 3] is")
    return found


def size_of(source: Source, node: ast.expr, known: Mapping[str, Any]) -> Any:
    """A size's value, of whatever kind the names' values are."""
    match node:
        case ast.Constant(value=int() as number):
            return number
        case ast.Name(id=name) if name in known:
            return known[name]
        case ast.BinOp(left=a, op=op, right=b) if type(op) in _SIZES:
            return _SIZES[type(op)](size_of(source, a, known), size_of(source, b, known))
    names = ", ".join(known) or "none"
    source.refuse(
        source.tree, f"{ast.unparse(node)!r} is no size: numbers, + - * // %, and the inputs' names ({names})"
    )


class Kernel(Op):
    """A kernel as an op.  On a GPU it is launched where its operands lie; elsewhere the emulator runs it, thread by thread."""

    def __init__(
        self,
        function: Any,
        signature: str,
        grid: str | None,
        block: int | tuple[int, ...],
        fill: float | None,
    ) -> None:
        functools.update_wrapper(self, function)
        self.function, self.fill = function, fill
        self.block = (block,) if isinstance(block, int) else tuple(block)
        self.source = source_of(function)
        arguments = self.source.tree.args
        if (
            arguments.vararg
            or arguments.kwarg
            or arguments.posonlyargs
            or arguments.defaults
            or arguments.kwonlyargs
        ):
            self.source.refuse(self.source.tree, "a kernel has plain parameters, without defaults")
        self.inputs, self.outputs = parameters(self.source, signature)
        threads = math.prod(self.block)
        if not 1 <= threads <= MOST_THREADS or threads % 32:
            self.source.refuse(
                self.source.tree, f"a block has 32, 64, ... {MOST_THREADS} threads, got {threads}"
            )
        if grid is None and len(self.block) > 1:
            self.source.refuse(
                self.source.tree, 'a block of several axes needs a grid, as in grid="n // 16, m // 16"'
            )
        parsed = ast.parse(grid, mode="eval").body if grid is not None else None
        self.axes = list(parsed.elts) if isinstance(parsed, ast.Tuple) else [parsed] if parsed else []

    # -- as an op ----------------------------------------------------------------------------------------------------

    def make_node(self, *inputs: Any) -> Apply:
        """TypeError for operands that are not as annotated."""
        if len(inputs) != len(self.inputs):
            raise TypeError(f"{self} takes {len(self.inputs)} arrays, got {len(inputs)}")
        dtypes: dict[str, str] = {}
        values = []
        for p, given in zip(self.inputs, inputs):
            if isinstance(given, int | float) and p.dtype in FROM_NUMPY:
                given = np.asarray(given, p.dtype)
            v = as_variable(given)
            dtype = p.dtype if p.dtype in FROM_NUMPY else dtypes.setdefault(p.dtype, v.type.dtype)
            if v.type.dtype != dtype or v.type.ndim != len(p.sizes):
                raise TypeError(
                    f"{self}: {p.name} must be {dtype} with {len(p.sizes)} axes, got {v.type.dtype} with {v.type.ndim}"
                )
            values.append(v)
        flags = [[isinstance(s, ast.Constant) and s.value == 1 for s in p.sizes] for p in self.outputs]
        made = [TensorType(self._dtype(p, dtypes), f)() for p, f in zip(self.outputs, flags)]
        node = Apply(self, values, made)
        self.kernels(*self._symbolic(node))  # what cannot be translated is said here
        return node

    def _dtype(self, p: Parameter, known: Mapping[str, str]) -> str:
        if p.dtype in FROM_NUMPY:
            return p.dtype
        if p.dtype not in known:
            self.source.refuse(self.source.tree, f"{p.dtype} is neither a dtype nor the name of an input's")
        return known[p.dtype]

    def infer_shape(self, node: Any, shapes: Sequence[Any]) -> list[Any]:
        known = self._bound(shapes)
        return [tuple(size_of(self.source, s, known) for s in p.sizes) for p in self.outputs]

    def _bound(self, shapes: Sequence[Sequence[Any]]) -> dict[str, Any]:
        """The names of sizes, each as its first operand has it."""
        known: dict[str, Any] = {}
        for p, shape in zip(self.inputs, shapes):
            for s, size in zip(p.sizes, shape):
                if isinstance(s, ast.Name):
                    known.setdefault(s.id, size)
        return known

    def want(self, reads: Sequence[Type]) -> None:
        """The rule of its operands' sizes; SizeMismatch."""
        known = self._bound([t.shape for t in reads])
        for p, t in zip(self.inputs, reads):
            for axis, (s, size) in enumerate(zip(p.sizes, t.shape)):
                want_size(str(self), f"axis {axis} of {p.name}", size, size_of(self.source, s, known))

    def _symbolic(self, node: Any) -> tuple[list[Type], list[Type]]:
        reads = [
            Type(v.type.ir, tuple(dims.name(f"{p.name}{axis}") for axis in range(v.type.ndim)))
            for p, v in zip(self.inputs, node.operands)
        ]
        known = self._bound([t.shape for t in reads])
        return reads, [
            Type(v.type.ir, tuple(size_of(self.source, s, known) for s in p.sizes))
            for p, v in zip(self.outputs, node.results)
        ]

    def gradient(self, rule: Callable[..., Sequence[Any]]) -> Callable[..., Sequence[Any]]:
        """Decorates `rule(inputs, output_grads)`, which gives the gradient by each input."""
        self.grad = rule
        return rule

    # -- as code -----------------------------------------------------------------------------------------------------

    def kernels(self, reads: Sequence[Type], writes: Sequence[Type]) -> list[Any]:
        """The GPU's kernels for operands and results of these types."""
        from tcc.codegen.gpu.kernel import ceil_div
        from tcc.codegen.gpu.python import fill_kernel, kernel_text

        known = self._bound([t.shape for t in reads])
        axes = [size_of(self.source, a, known) for a in self.axes]
        if not axes:
            axes = [ceil_div(writes[0].size, self.block[0])]
        x, y, z = (*axes, 1, 1)[:3]
        filled = []
        if self.fill is not None:
            filled = [fill_kernel(len(reads) + i, t, self.fill) for i, t in enumerate(writes)]
        return [*filled, kernel_text(self.source, reads, writes, self.block, (x, y, z), vocabulary())]

    def perform(self, node: Any, inputs: list[Array], output_storage: list[list[Any]]) -> None:
        from tcc.codegen.kernel import Operand
        from tcc.devices import emulator
        from tcc.runtime.device_program import DeviceKernel

        dtypes = [v.type.ir for v in (*node.operands, *node.results)]
        known = self._bound([x.shape for x in inputs])
        sizes = [[size_of(self.source, s, known) for s in p.sizes] for p in self.outputs]
        types = [Type(d, tuple(shape)) for d, shape in zip(dtypes, [*(x.shape for x in inputs), *sizes])]
        reads, writes = types[: len(inputs)], types[len(inputs) :]
        self.want(reads)
        arrays = [in_memory(x, t.dtype) for x, t in zip(inputs, reads)]
        made = [np.empty([int(str(n)) for n in t.shape], memory_dtype(t.dtype)) for t in writes]
        with emulator() as device:
            places = [device.alloc(max(1, a.nbytes)) for a in (*arrays, *made)]
            try:
                for address, array in zip(places, arrays):
                    device.to_device(address, array)
                for k in self.kernels(reads, writes):
                    given = [places[s.index] if isinstance(s, Operand) else s for s in k.slots]
                    if all(k.grid):
                        one = DeviceKernel(k.name, k.text, k.block, len(given), k.shared, str(self))
                        device.launch(one, k.grid, given)
                for address, array in zip(places[len(arrays) :], made):
                    device.to_host(array, address)
            finally:
                for address in places:
                    device.free(address)
        for storage, array, t in zip(output_storage, made, writes):
            storage[0] = as_numbers(array, t.dtype)

    def __reduce__(self) -> str:
        return str(self.function.__qualname__)

    def __str__(self) -> str:
        return str(self.function.__name__)


def kernel(
    signature: str, *, grid: str | None = None, block: int | tuple[int, ...] = 128, fill: float | None = None
) -> Callable[[Any], Kernel]:
    """Decorates a function that each thread of a GPU runs, and makes it an op.

    `signature` gives dtype and sizes of the function's parameters: inputs, which it reads, then results, which it writes, as in
    `float32[n, m], float32 -> float32[m]`.  A dtype or size that is a name stands for what a call brings, and is one wherever it stands;
    sizes of results are made of the inputs' with + - * // %.  `block` is the number of threads in a block, along up to three axes; `grid`
    the number of blocks, as sizes with commas: by default as many as give each element of the first result a thread.  Results
    begin as `fill`, or else as anything.
    """
    return lambda function: Kernel(function, signature, grid, block, fill)
