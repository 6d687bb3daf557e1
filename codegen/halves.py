"""float16 and bfloat16: two bytes in memory, float32 in registers, where every value is one that the two bytes can hold.

Arithmetic is float32's, and each op's result is rounded to the nearest (halves to even), so that a fused kernel gives the bits
of its ops one by one: a float32 has enough digits that rounding twice is harmless for +, -, *, / and the square root.
Denormal numbers and NaN are kept.  x86's own conversion serves float16 (F16C); its conversion to bfloat16 takes denormal
numbers for 0, so bfloat16 is rounded by integer arithmetic everywhere.
"""

from __future__ import annotations

from tcc.codegen.emit import Emit, VecType
from tcc.codegen.target import Target
from tcc.ir.types import HALVES

__all__ = ["HALVES", "narrowed", "nearest", "rounded", "to_odd", "widened"]

_SIGN, _REST = 0x8000_0000, 0x7FFF_FFFF
_INF = 0x7F80_0000


def widened(e: Emit, target: Target, dtype: str, lanes: int, bits: str) -> str:
    """The float32 vector of the numbers whose 16 bits are in `bits`."""
    if dtype == "f16" and target.f16c:
        half = e.value(f"bitcast {VecType('i16', lanes)} {bits} to {VecType('half', lanes)}")
        return e.value(f"fpext {VecType('half', lanes)} {half} to {VecType('float', lanes)}")
    b = _Bits(e, lanes)
    wide = e.value(f"zext {VecType('i16', lanes)} {bits} to {b.t}")
    if dtype == "bf16":
        return b.as_float(b.op("shl", wide, 16))
    sign = b.op("shl", b.op("and", wide, 0x8000), 16)
    rest = b.op("shl", b.op("and", wide, 0x7FFF), 13)
    # a power of two moves the exponent's bias, for denormal numbers too
    scaled = b.as_int(e.value(f"fmul {b.f} {b.as_float(rest)}, {b.f.const(2.0**112)}"))
    odd = b.compare("uge", rest, 0x7C00 << 13)
    return b.as_float(b.op("or", sign, b.select(odd, b.op("or", rest, _INF), scaled)))


def narrowed(e: Emit, target: Target, dtype: str, lanes: int, value: str) -> str:
    """The 16 bits of a float32 vector of numbers that the dtype holds, as `rounded` gives them."""
    bits = VecType("i16", lanes)
    if dtype == "f16" and target.f16c:
        t = VecType("half", lanes)
        half = e.value(f"fptrunc {VecType('float', lanes)} {value} to {t}")
        return e.value(f"bitcast {t} {half} to {bits}")
    b = _Bits(e, lanes)
    wide = b.as_int(value)
    wide = b.op("lshr", wide, 16) if dtype == "bf16" else _half_bits(b, wide)
    return e.value(f"trunc {b.t} {wide} to {bits}")


def rounded(e: Emit, target: Target, dtype: str, lanes: int, value: str) -> str:
    """A float32 vector as the nearest numbers of the dtype, halves to even; NaN stays NaN."""
    if dtype == "f16":
        return widened(e, target, dtype, lanes, narrowed(e, target, dtype, lanes, value))
    b = _Bits(e, lanes)
    bits = b.as_int(value)
    odd = b.op("and", b.op("lshr", bits, 16), 1)
    near = b.op("add", b.op("add", bits, 0x7FFF), odd)
    nan = e.value(f"fcmp uno {b.f} {value}, {value}")
    kept = b.select(nan, b.op("or", bits, 0x0040_0000), near)
    return b.as_float(b.op("and", kept, 0xFFFF_0000))


def to_odd(e: Emit, lanes: int, value: str) -> str:
    """A float64 vector as float32, cut off, with the last bit set where that lost something.

    Rounding this to fewer digits gives what rounding the float64 would (Boldo and Melquiond, 2008).
    """
    d, b = VecType("double", lanes), _Bits(e, lanes)
    near = e.value(f"fptrunc {d} {value} to {b.f}")
    back = e.value(f"fpext {b.f} {near} to {d}")
    size, size_back = (e.call(d, f"llvm.fabs.{d.suffix}", (d, x)) for x in (value, back))
    over = e.value(f"fcmp ogt {d} {size_back}, {size}")
    lost = e.value(f"fcmp one {d} {value}, {back}")
    i1 = VecType("i1", lanes)
    cut = b.op("add", b.as_int(near), e.value(f"sext {i1} {over} to {b.t}"))
    return b.as_float(b.op("or", cut, e.value(f"zext {i1} {lost} to {b.t}")))


def nearest(dtype: str, value: float) -> float:
    """A number as the dtype holds it."""
    import numpy as np

    if dtype == "f16":
        with np.errstate(over="ignore"):
            return float(np.float16(value))
    if dtype != "bf16" or value != value:
        return value
    with np.errstate(over="ignore"):
        bits = int(np.float32(value).view(np.uint32))
    kept = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF_0000
    return float(np.uint32(kept).view(np.float32))


class _Bits:
    """Integer arithmetic on the bits of float32 vectors."""

    def __init__(self, e: Emit, lanes: int) -> None:
        self.e, self.t, self.f, self.i1 = (
            e,
            VecType("i32", lanes),
            VecType("float", lanes),
            VecType("i1", lanes),
        )

    def operand(self, x: str | int) -> str:
        return x if isinstance(x, str) else self.t.const(x - (x >> 31 << 32))

    def op(self, name: str, a: str, b: str | int) -> str:
        return self.e.value(f"{name} {self.t} {a}, {self.operand(b)}")

    def compare(self, predicate: str, a: str, b: int) -> str:
        return self.e.value(f"icmp {predicate} {self.t} {a}, {self.operand(b)}")

    def select(self, cond: str, a: str, b: str) -> str:
        return self.e.value(f"select {self.i1} {cond}, {self.t} {a}, {self.t} {b}")

    def as_int(self, value: str) -> str:
        return self.e.value(f"bitcast {self.f} {value} to {self.t}")

    def as_float(self, value: str) -> str:
        return self.e.value(f"bitcast {self.t} {value} to {self.f}")


def _half_bits(b: _Bits, bits: str) -> str:
    """The bits of a float32 rounded to float16, in 32."""
    sign = b.op("lshr", b.op("and", bits, _SIGN), 16)
    size = b.op("and", bits, _REST)
    # too small for a normal number: adding 1/2 leaves steps of 2^-24, and the sum is rounded as it should be
    half = b.f.const(0.5)
    small = b.as_int(b.e.value(f"fadd {b.f} {b.as_float(size)}, {half}"))
    small = b.op("sub", small, 0x3F00_0000)
    odd = b.op("and", b.op("lshr", size, 13), 1)
    normal = b.op("lshr", b.op("sub", b.op("add", b.op("add", size, 0xFFF), odd), 112 << 23), 13)
    got = b.select(b.compare("ult", size, 113 << 23), small, normal)
    got = b.select(b.compare("ugt", size, 0x477F_FFFF), b.t.const(0x7C00), got)
    payload = b.op("or", b.op("and", b.op("lshr", size, 13), 0x3FF), 0x7E00)
    got = b.select(b.compare("ugt", size, _INF), payload, got)
    return b.op("or", got, sign)
