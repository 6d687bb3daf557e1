"""Vectors of one of the language's dtypes: their LLVM types, conversions, and loads and stores."""

from __future__ import annotations

from dataclasses import dataclass

from tcc.codegen import halves
from tcc.codegen.emit import Emit, VecType, constant_prefix
from tcc.codegen.halves import HALVES
from tcc.codegen.math.core import Math
from tcc.codegen.target import Target
from tcc.codegen.vectors import store_first
from tcc.ir.types import COMPLEX, FLOATS, REAL_OF, itemsize, numpy_dtype

# a complex number is the bits of its two parts: what computes takes them apart (primitives.py)
ELEMS = {"bool": "i1", "f16": "float", "bf16": "float", "f32": "float", "f64": "double"} | {
    f"{s}{n}": f"i{n}" for s in "iu" for n in (8, 16, 32, 64)
} | {"c64": "i64", "c128": "i128"}  # fmt: skip

# where they differ
MEMORY = {"bool": "i8", "f16": "i16", "bf16": "i16"}


def elem(dtype: str) -> str:
    """LLVM's name of an element in a register; TypeError if kernels do not compute with the dtype."""
    if dtype not in ELEMS:
        raise TypeError(f"no vectors of {dtype}: kernels compute with {', '.join(sorted(ELEMS))}")
    return ELEMS[dtype]


def memory_elem(dtype: str) -> str:
    """LLVM's name of an element in memory."""
    return MEMORY.get(dtype) or elem(dtype)


def alignment(dtype: str) -> int:
    """Of an element in memory, in bytes: that of a complex number's parts, as in C."""
    return itemsize(REAL_OF.get(dtype, dtype))


def register_bytes(dtype: str) -> int:
    """Of an element in a vector register; masks count as bytes."""
    return VecType(elem(dtype)).bytes


def const(dtype: str, lanes: int, value: complex | float | int | bool) -> str:
    """A number of the dtype in every lane."""
    if dtype in COMPLEX:
        value = int.from_bytes(numpy_dtype(dtype).type(value).tobytes(), "little")
    assert not isinstance(value, complex)
    return VecType(elem(dtype), lanes).const(halves.nearest(dtype, value) if dtype in HALVES else value)


@dataclass(frozen=True, slots=True)
class Lanes:
    """Where an operation on vectors of one dtype is written."""

    e: Emit
    target: Target
    dtype: str
    lanes: int

    @property
    def type(self) -> VecType:
        return VecType(elem(self.dtype), self.lanes)

    @property
    def is_float(self) -> bool:
        return self.dtype in FLOATS

    @property
    def is_bool(self) -> bool:
        return self.dtype == "bool"

    @property
    def signed(self) -> bool:
        return self.dtype[0] == "i"

    @property
    def width(self) -> int:
        """Bits of an integer."""
        return int(self.dtype[1:])

    @property
    def math(self) -> Math:
        return Math(self.e, self.type, self.target)

    def like(self, dtype: str) -> Lanes:
        """The same number of lanes of another dtype."""
        return Lanes(self.e, self.target, dtype, self.lanes)

    def const(self, value: float | int | bool) -> str:
        return self.type.const(value)

    def binary(self, op: str, a: str, b: str) -> str:
        return self.e.value(f"{op} {self.type} {a}, {b}")

    def icmp(self, predicate: str, a: str, b: str) -> str:
        return self.e.value(f"icmp {predicate} {self.type} {a}, {b}")

    def select(self, cond: str, a: str, b: str) -> str:
        return self.e.value(f"select {self.type.of('i1')} {cond}, {self.type} {a}, {self.type} {b}")

    def intrinsic(self, name: str, *args: str) -> str:
        return self.e.call(self.type, f"llvm.{name}.{self.type.suffix}", *((self.type, a) for a in args))

    def convert(self, op: str, value: str, to: VecType) -> str:
        return self.e.value(f"{op} {self.type} {value} to {to}")

    def cast(self, value: str, dtype: str) -> str:
        """`value` as another dtype: floats become integers towards zero, integers wrap, nonzero is true.

        Floats become integers of 8 and 16 bits by way of 32, as in NumPy and C, and unsigned ones by way of signed ones:
        instructions for vectors saturate, those for single numbers wrap, and what is beyond the dtype must not hang on where in
        a row it stands.
        """
        to = self.like(dtype)
        if dtype in HALVES and dtype != self.dtype:
            if self.dtype == "f64":
                wide = halves.to_odd(self.e, self.lanes, value)
            else:
                wide = self.cast(value, "f32")
            return halves.rounded(self.e, self.target, dtype, self.lanes, wide)
        if elem(self.dtype) == elem(dtype):
            return value
        if to.is_bool:
            if self.is_float:
                return self.e.value(f"fcmp une {self.type} {value}, {self.const(0)}")
            return self.icmp("ne", value, self.const(0))
        if self.is_float and to.is_float:
            return self.convert("fpext" if dtype == "f64" else "fptrunc", value, to.type)
        if self.is_float and to.width < 32:
            return self.like("i32").cast(self.cast(value, "i32"), dtype)
        if self.is_float and not to.signed:
            return self._unsigned(value, to)
        if self.is_float:
            return self.convert("fptosi", value, to.type)
        if to.is_float:
            return self.convert("sitofp" if self.signed else "uitofp", value, to.type)
        if not self.is_bool and self.width > to.width:
            return self.convert("trunc", value, to.type)
        return self.convert("sext" if self.signed else "zext", value, to.type)

    def _unsigned(self, value: str, to: Lanes) -> str:
        """A float as an integer: what is negative wraps, and half the range is taken from large ones, and given back."""
        half = 2 ** (to.width - 1)
        large = self.e.value(f"fcmp oge {self.type} {value}, {self.const(half)}")
        near = self.select(large, self.binary("fsub", value, self.const(half)), value)
        return to.binary(
            "xor", self.convert("fptosi", near, to.type), to.select(large, to.const(half), to.const(0))
        )


def halved(t: VecType) -> VecType:
    """The vector of the same bits whose elements are 64-bit words, where the instructions for vectors have no such elements."""
    return VecType("i64", 2 * t.lanes) if t.elem == "i128" and t.lanes > 1 else t


def twice(e: Emit, mask: str, lanes: int) -> str:
    """A mask in which each lane stands twice."""
    each = ", ".join(f"i32 {i // 2}" for i in range(2 * lanes))
    t = VecType("i1", lanes)
    return e.value(f"shufflevector {t} {mask}, {t} poison, <{2 * lanes} x i32> <{each}>")


def from_memory(e: Emit, target: Target, dtype: str, lanes: int, value: str) -> str:
    """A vector as it was loaded, as registers hold it."""
    if dtype in HALVES:
        return halves.widened(e, target, dtype, lanes, value)
    if dtype != "bool":
        return value
    return e.value(f"icmp ne {VecType('i8', lanes)} {value}, {VecType('i8', lanes).const(0)}")


def to_memory(e: Emit, target: Target, dtype: str, lanes: int, value: str) -> str:
    """A vector as it is to be stored."""
    if dtype in HALVES:
        return halves.narrowed(e, target, dtype, lanes, value)
    if dtype != "bool":
        return value
    return e.value(f"zext {VecType('i1', lanes)} {value} to {VecType('i8', lanes)}")


def load(e: Emit, target: Target, dtype: str, lanes: int, pointer: str, mask: str | None = None) -> str:
    """`lanes` neighbours at `pointer`, aligned to one element; lanes outside `mask` (of i1) are 0 and not read."""
    whole, align = VecType(memory_elem(dtype), lanes), alignment(dtype)
    t = halved(whole)
    if mask is not None and t is not whole:
        mask = twice(e, mask, lanes)
    if mask is None:
        got = e.value(f"load {t}, ptr {pointer}, align {align}")
    elif lanes == 1:
        before, inside, after = e.current, e.label(), e.label()
        e.branch_if(mask, inside, after)
        e.at(inside)
        one = e.value(f"load {t}, ptr {pointer}, align {align}")
        e.branch(after)
        e.at(after)
        got = e.value(f"phi {t} [{t.const(0)}, %{before}], [{one}, %{inside}]")
    else:
        got = e.call(
            t,
            f"llvm.masked.load.{t.suffix}.p0",
            (f"ptr align {align}", pointer),
            (t.of("i1"), mask),
            (t, "zeroinitializer"),
        )
    if t is not whole:
        got = e.value(f"bitcast {t} {got} to {whole}")
    return from_memory(e, target, dtype, lanes, got)


def store(
    e: Emit, target: Target, dtype: str, lanes: int, value: str, pointer: str, mask: str | None = None
) -> None:
    """Stores `lanes` neighbours at `pointer`, aligned to one element; lanes outside `mask` (of i1) are not written."""
    whole, align = VecType(memory_elem(dtype), lanes), alignment(dtype)
    t = halved(whole)
    stored = to_memory(e, target, dtype, lanes, value)
    if t is not whole:
        stored = e.value(f"bitcast {whole} {stored} to {t}")
        mask = mask and twice(e, mask, lanes)
    plain = f"store {t} {stored}, ptr {pointer}, align {align}"
    if mask is None:
        e.line(plain)
        return
    if lanes == 1:
        e.when(mask, lambda: e.line(plain))
        return
    first = constant_prefix(mask)
    if first is not None and t is whole and not target.avx512:
        store_first(e, t, [stored], [pointer], first)
        return
    e.call(
        "void",
        f"llvm.masked.store.{t.suffix}.p0",
        (t, stored),
        (f"ptr align {align}", pointer),
        (t.of("i1"), mask),
    )
