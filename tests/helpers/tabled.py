"""Functions made of rows of the op table, with their arguments, for tests of what runs them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tcc.ir import dims
from tcc.ir.arrays import rounded
from tcc.ir.builder import Builder
from tcc.ir.core import Block, Func, Value
from tcc.ir.interpret import run as interpret
from tcc.ir.optable import TABLE, OpDef, Sample, Undefined
from tcc.ir.samples import draw, draw_array, sample_types
from tcc.ir.types import COMPILED, FLOATS, INTEGERS, Type, numpy_dtype, parse_type
from tcc.passes.sizes import op_names
from tcc.tools.compare import kind

OWN_SIZES = {
    "mrg": "a state has six numbers",
    "rfft_adjoint": "pairs",
    "irfft": "pairs",
    "of_pairs": "pairs",
}  # whose sizes cannot all be names
PLACED = ("alloc", "place", "view", "copy", "for")
ELEMENTWISE = [d for d in TABLE.values() if d.scalar]


def in_float64(sample: Sample) -> Sample:
    """The same instance with every float type widened to f64, for differences."""
    types = tuple(str(_wide(parse_type(t))) for t in sample.types)
    return replace(sample, types=types, attrs={k: _wide(v) for k, v in sample.attrs.items()})


def _wide(value: Any) -> Any:
    if isinstance(value, Type):
        return value.with_dtype("f64") if value.dtype in FLOATS else value
    return "f64" if isinstance(value, str) and value in FLOATS else value


# -- elementwise rows, on every dtype that they take -----------------------------------------------------------------


def instances(row: OpDef) -> Iterator[tuple[list[str], dict[str, Any]]]:
    """Operand dtypes and attributes."""
    for dtype in sorted(COMPILED):
        if row.name == "cast":
            yield from (([dtype], {"dtype": to}) for to in sorted(COMPILED))
            continue
        first = {"where": "bool"}.get(row.name, dtype)
        dtypes = [first, *[dtype] * (len(row.operand_names) - 1)]
        try:
            row.infer([Type(d, (2,)) for d in dtypes], {}, [])
        except TypeError:
            continue
        yield dtypes, {}


def column(row: OpDef, name: str, dtype: str, to: str, n: int) -> np.ndarray[Any, Any]:
    """Numbers where the row is meant to be used, among them what is odd; `to` is the dtype that they are cast to."""
    rng = np.random.default_rng([n, zlib.crc32(f"{row.name} {name} {dtype} {to}".encode())])
    kind = numpy_dtype(dtype)
    if dtype == "bool":
        return rng.integers(0, 2, n).astype(bool)
    low, high = row.samples[0].low, row.samples[0].high
    if dtype in FLOATS:
        odd = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 0.5, -2.5]
        if to in INTEGERS:  # others have no integer
            low, odd = (0.0 if to[0] == "u" else -100.0), [0.0, -0.0, 1.0, 0.5, 99.9]
            high = 100.0
        values = np.where(rng.random(n) < 0.25, rng.choice(odd, n), rng.uniform(low, high, n)).astype(kind)
        return rounded(values) if dtype == "bf16" else values
    info = np.iinfo(kind)
    if row.name == "pow":
        return rng.integers(0 if dtype[0] == "u" else -3, 4, n).astype(kind)
    some = rng.integers(max(-9, int(info.min)), 10, n).astype(kind)
    odd = np.array([info.min, info.max, 0, 1, info.max - 1], kind)
    return np.where(rng.random(n) < 0.2, rng.choice(odd, n), some)


def elementwise(rows: Sequence[OpDef]) -> tuple[Func, list[tuple[OpDef, str, str]]]:
    """A function of many columns, one result for each instance of each row."""
    block = Block()
    b = Builder(block)
    results: list[Value] = []
    columns: list[tuple[OpDef, str, str]] = []
    for row in rows:
        params: dict[tuple[str, str, str], Value] = {}
        for dtypes, attrs in instances(row):
            operands = []
            for name, dtype in zip(row.operand_names, dtypes):
                key = name, dtype, attrs.get("dtype", dtype)
                if key not in params:
                    params[key] = block.add_param(Type(dtype, (dims.name("n"),)), f"x{len(columns)}")
                    columns.append((row, *key[:2], key[2]))  # type: ignore[arg-type]
                operands.append(params[key])
            results.append(b.op(row.name, *operands, attrs=attrs).result)
    b.op("yield", *results)
    return Func("rows", block), columns


def what(func: Func, i: int) -> str:
    v = func.body.yields[i]
    assert v.op is not None
    return f"{v.op.name}({', '.join(o.type.dtype for o in v.op.operands)}) as {v.type.dtype}"


def mistakes(func: Func, args: Sequence[Any], got: Sequence[Any]) -> Iterator[str]:
    for i, (g, want) in enumerate(zip(got, interpret(func, *args), strict=True)):
        want = np.asarray(want)
        assert g.dtype == want.dtype and g.shape == want.shape
        wrong = (g != want) & ~(np.isnan(g) & np.isnan(want)) if want.dtype.kind == "c" else g != want
        if want.dtype.kind == "f":
            eps = 2.0**-7 if func.body.yields[i].type.dtype == "bf16" else np.finfo(want.dtype).eps
            close = np.isclose(g, want, rtol=32 * eps, atol=np.finfo(want.dtype).tiny)
            with np.errstate(invalid="ignore"):
                near = np.abs(g - want) < 8 * eps  # zeros of gammaln and psi
            close |= near & (func.body.yields[i].op.name in ("gammaln", "psi"))  # type: ignore[union-attr]
            # of zeros of both signs NumPy takes the second, but the first in float16
            tied = want.dtype == "float16" and func.body.yields[i].op.name in ("minimum", "maximum", "clip")  # type: ignore[union-attr]
            zeros = (g == 0) & (want == 0) & (not tied)
            wrong = ~close & ~(np.isnan(g) & np.isnan(want)) | zeros & (np.signbit(g) != np.signbit(want))
            wrong |= kind(g) != kind(want)
        if np.any(wrong):
            op = func.body.yields[i].op
            assert op is not None
            inputs = [args[v.index][wrong][:4] for v in op.operands]
            yield f"{what(func, i)} of {inputs} is {g[wrong][:4]}, wanted {want[wrong][:4]}"


CHUNK = 9
CHUNKS = [ELEMENTWISE[i : i + CHUNK] for i in range(0, len(ELEMENTWISE), CHUNK)]


# -- all others, on their samples


def named(size: Any) -> Any:
    """A name for a number of 2 and more, which is what the sample's size then is."""
    if isinstance(size, Type):
        return size.with_shape(*map(named, size.shape))
    if isinstance(size, list | tuple):
        return type(size)(map(named, size))
    return dims.name(f"n{size}") if isinstance(size, int) and size > 1 else size


SIZES = ("shape", "bound", "value", "left", "right", "type")
# Their sizes depend on each other, or on an array.
FIXED = "const reshape slice insert conv conv_input conv_filter unpool max_pool_grad max_pool_pick windows".split()


def other(samples: Sequence[tuple[OpDef, Sample]]) -> tuple[Func, list[Any], dict[str, int]]:
    """A function of the samples with names for sizes, its arguments, and the sizes."""
    block = Block()
    b = Builder(block)
    rng = np.random.default_rng(0)
    results: list[Value] = []
    args: list[Any] = []
    for row, sample in samples:
        change = (lambda x: x) if row.name in FIXED else named
        operands = [
            block.add_param(change(t), f"x{len(args) + i}") for i, t in enumerate(sample_types(sample))
        ]
        args += draw(sample, rng)
        attrs = {k: change(v) if k in SIZES else v for k, v in sample.attrs.items()}
        op = b.op(row.name, *operands, attrs=attrs)
        results += op.results
    b.op("yield", *results)
    sizes = {n: int(n[1:]) for op in block.ops for n in op_names(op)}
    for name in sizes:
        block.add_param(Type("bool", (dims.name(name),)), f"of_{name}")
        args.append(np.zeros(sizes[name], bool))
    return Func("samples", block), args, sizes


def compiled_sample(sample: Sample) -> bool:
    texts = " ".join((*sample.types, *map(str, sample.attrs.values())))
    return not any(f"{d}[" in texts for d in ("f16", "bf16"))


OTHERS = [(d, s) for d in TABLE.values() if not d.scalar and d.name not in OWN_SIZES for s in d.samples]
OTHERS = [(d, s) for d, s in OTHERS if compiled_sample(s) and d.name not in PLACED]

# -- gradients, and other sizes


def resized(size: Any, to: int) -> Any:
    """A size of 2 and more replaced by `to`, in whatever holds sizes."""
    if isinstance(size, Type):
        return size.with_shape(*(resized(s, to) for s in size.shape))
    if isinstance(size, list | tuple):
        return type(size)(resized(s, to) for s in size)
    return to if isinstance(size, int) and size > 1 else size


def with_gradients(
    samples: Sequence[tuple[OpDef, Sample]], named: bool
) -> tuple[Func, Callable[[int], list[Any]]]:
    """A function of the samples and of their gradients, and what gives its arguments for a size.

    With `named` all sizes of 2 and more are one name, `n`; otherwise they are what they are.
    """
    block = Block()
    b = Builder(block)
    n = dims.name("n")
    drawn: list[tuple[Type, float, float]] = []
    results: list[Value] = []

    def change(x: Any) -> Any:
        return resized(x, n) if named else x

    def param(t: Type, low: float, high: float) -> Value:
        drawn.append((t, low, high))
        return block.add_param(t, f"x{len(drawn)}")

    param(Type("bool", (n,)), 0, 1)
    for row, sample in samples:
        operands = [param(change(t), sample.low, sample.high) for t in sample_types(sample)]
        op = b.op(
            row.name, *operands, attrs={k: change(v) if k in SIZES else v for k, v in sample.attrs.items()}
        )
        results += op.results
        floats = any(v.type.dtype in FLOATS for v in operands)
        if row.grad is None or not floats or not op.results or op.results[0].type.dtype not in FLOATS:
            continue
        gradients = row.grad(b, op, [param(r.type, 0.5, 1.5) for r in op.results])
        results += [g for g in gradients if g is not None and not isinstance(g, Undefined)]
    b.op("yield", *results)

    def arguments(size: int) -> list[Any]:
        rng = np.random.default_rng(size)
        made = []
        for t, low, high in drawn:
            t = t.with_shape(*(dims.evaluate(s, {"n": size}) for s in t.shape))
            if t.dtype in INTEGERS and named:
                high = min(high, max(0, size - 1))  # indices of what there is
                low = min(max(low, -high if t.dtype[0] != "u" else 0), high)
            made.append(draw_array(t, rng, low, high))
        return made

    return Func("gradients", block), arguments


def resizable(row: OpDef, sample: Sample) -> bool:
    """Whether all its sizes can be one name."""
    try:
        func, arguments = with_gradients([(row, sample)], named=True)
        for size in (0, 1, 7):
            interpret(func, *arguments(size))
    except (ValueError, IndexError, TypeError, AssertionError):
        return False
    return True
