"""The scalar primitives that bodies of the op table are made of, for every dtype they have a meaning for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from tcc.codegen.emit import VecType
from tcc.codegen.lanes import Lanes
from tcc.codegen.math import functions as vector_math
from tcc.codegen.philox import philox
from tcc.ir.types import COMPLEX_OF, REAL_OF

Write = Callable[..., str]  # (Lanes, *operands) -> text


class Primitive(NamedTuple):
    """`arity` operands of one dtype.  `result` is "same", "bool", "part" (of a complex number) or "whole" (of which they are
    parts); `write` maps a kind of dtype to what writes it.

    Kinds are "f" (floats), "i" (signed), "u" (unsigned integers), "b" (bool) and "c" (complex numbers).
    """

    arity: int
    write: Mapping[str, Write]
    result: str = "same"

    def result_dtype(self, dtype: str) -> str:
        return {"same": dtype, "part": REAL_OF.get(dtype, ""), "whole": COMPLEX_OF.get(dtype, "")}.get(
            self.result, self.result
        )

    def emit(self, name: str, lanes: Lanes, *operands: str) -> str:
        """Its text; TypeError where it has no meaning for the dtype."""
        kind = "f" if lanes.is_float else lanes.dtype[0]
        if kind not in self.write:
            raise TypeError(f"{name} has no meaning for {lanes.dtype}")
        return self.write[kind](lanes, *operands)


def op(name: str) -> Write:
    """An LLVM instruction of two operands."""
    return lambda v, a, b: v.binary(name, a, b)


def intrinsic(name: str) -> Write:
    return lambda v, *args: v.intrinsic(name, *args)


def comparison(floats: str, signed: str, unsigned: str) -> Primitive:
    def write(v: Lanes, a: str, b: str) -> str:
        if v.is_float:
            return v.e.value(f"fcmp {floats} {v.type} {a}, {b}")
        return v.icmp(signed if v.signed else unsigned, a, b)

    return Primitive(2, dict.fromkeys("fiub", write), "bool")


def of_floats(name: str) -> Write:
    return lambda v, *args: vector_math.FUNCTIONS[name][1](v.math, *args)


def same(v: Lanes, a: str) -> str:
    return a


# -- integers --------------------------------------------------------------------------------------------------------


def negate(v: Lanes, a: str) -> str:
    return v.binary("sub", v.const(0), a)


def absolute(v: Lanes, a: str) -> str:
    """|a|; the lowest number, which has no opposite, stays."""
    return v.e.call(v.type, f"llvm.abs.{v.type.suffix}", (v.type, a), ("i1", "false"))


def sign(v: Lanes, a: str) -> str:
    negative = v.icmp("slt", a, v.const(0)) if v.signed else v.like("bool").const(False)
    positive_or_zero = v.e.value(f"zext {v.type.of('i1')} {v.icmp('ne', a, v.const(0))} to {v.type}")
    return v.select(negative, v.const(-1), positive_or_zero)


def floor_quotient(v: Lanes, a: str, b: str) -> str:
    """floor(a / b); 0 for b = 0, and the lowest number by -1 wraps around, as in NumPy."""
    zero = v.icmp("eq", b, v.const(0))
    divisor = v.select(zero, v.const(1), b)
    if not v.signed:
        return v.select(zero, v.const(0), _divide(v, "udiv", a, divisor))
    minus = v.icmp("eq", b, v.const(-1))
    quotient = _divide(v, "sdiv", a, v.select(minus, v.const(1), divisor))
    rest = v.binary("sub", a, v.binary("mul", quotient, divisor))
    # truncated towards zero: one too many if the signs differ and something is left
    differ = v.icmp("slt", v.binary("xor", a, b), v.const(0))
    crosses = v.like("bool").binary("and", differ, v.icmp("ne", rest, v.const(0)))
    floored = v.binary("add", quotient, v.e.value(f"sext {v.type.of('i1')} {crosses} to {v.type}"))
    return v.select(zero, v.const(0), v.select(minus, negate(v, a), floored))


def _divide(v: Lanes, instruction: str, a: str, b: str) -> str:
    """Towards zero, for b != 0.  Up to 32 bits through floats wide enough that the truncated quotient is exact."""
    if v.width == 64:
        return v.binary(instruction, a, b)
    wide = "f32" if v.width < 32 else "f64"
    floats = v.like(wide)
    quotient = floats.binary("fdiv", v.cast(a, wide), v.cast(b, wide))
    return floats.cast(quotient, v.dtype)


def floor_rest(v: Lanes, a: str, b: str) -> str:
    """a - b floor(a / b), with the sign of b; 0 for b = 0."""
    rest = v.binary("sub", a, v.binary("mul", floor_quotient(v, a, b), b))
    return v.select(v.icmp("eq", b, v.const(0)), v.const(0), rest)


def power(v: Lanes, a: str, b: str) -> str:
    """a ** b modulo 2^width by squaring; 1 / a ** -b towards zero for negative b."""
    one, zero = v.const(1), v.const(0)

    def step(_: str, state: list[str]) -> list[str]:
        base, left, product = state
        odd = v.icmp("ne", v.binary("and", left, one), zero)
        product = v.select(odd, v.binary("mul", product, base), product)
        return [v.binary("mul", base, base), v.binary("lshr", left, one), product]

    _, _, whole = v.e.loop(0, v.width, 1, step, [(v.type, a), (v.type, b), (v.type, one)])
    if not v.signed:
        return whole
    is_unit = v.icmp("eq", absolute(v, a), one)
    unit_power = v.select(v.icmp("ne", v.binary("and", b, one), zero), a, one)
    return v.select(v.icmp("slt", b, zero), v.select(is_unit, unit_power, zero), whole)


def shift_left(v: Lanes, a: str, b: str) -> str:
    """0 where b is not within the width."""
    inside = v.icmp("ult", b, v.const(v.width))
    return v.select(inside, v.binary("shl", a, v.select(inside, b, v.const(0))), v.const(0))


def shift_right(v: Lanes, a: str, b: str) -> str:
    """All sign (0 for unsigned dtypes) where b is not within the width."""
    inside = v.icmp("ult", b, v.const(v.width))
    if v.signed:
        return v.binary("ashr", a, v.select(inside, b, v.const(v.width - 1)))
    return v.select(inside, v.binary("lshr", a, v.select(inside, b, v.const(0))), v.const(0))


# -- floats ----------------------------------------------------------------------------------------------------------


def is_nan(v: Lanes, a: str) -> str:
    return v.e.value(f"fcmp uno {v.type} {a}, {a}")


def is_inf(v: Lanes, a: str) -> str:
    return v.math.compare("oeq", v.math.abs(a), float("inf"))


def never(v: Lanes, a: str) -> str:
    return v.like("bool").const(False)


# -- complex numbers: the bits of the real part, then those of the imaginary part ---------------------------------------


def part(which: int) -> Write:
    """What stands in each second word of a vector; of one number (and of a GPU's few), its low or high bits."""

    def write(v: Lanes, a: str) -> str:
        made, bits = v.like(REAL_OF[v.dtype]).type, v.type.bytes * 4
        if v.lanes > 1 and not v.target.is_gpu:
            words = VecType(made.elem, 2 * v.lanes)
            each = ", ".join(f"i32 {2 * i + which}" for i in range(v.lanes))
            a = v.convert("bitcast", a, words)
            return v.e.value(f"shufflevector {words} {a}, {words} poison, <{v.lanes} x i32> <{each}>")
        a = v.binary("lshr", a, v.const(bits)) if which else a
        word = v.type.of(f"i{bits}")
        return v.e.value(f"bitcast {word} {v.convert('trunc', a, word)} to {made}")

    return write


def joined(v: Lanes, a: str, b: str) -> str:
    whole = v.like(COMPLEX_OF[v.dtype])
    if v.lanes > 1 and not v.target.is_gpu:
        words = VecType(v.type.elem, 2 * v.lanes)
        each = ", ".join(f"i32 {i // 2 + i % 2 * v.lanes}" for i in range(2 * v.lanes))
        mixed = v.e.value(f"shufflevector {v.type} {a}, {v.type} {b}, <{2 * v.lanes} x i32> <{each}>")
        return v.e.value(f"bitcast {words} {mixed} to {whole.type}")
    bits = 8 * v.type.bytes
    word = v.type.of(f"i{bits}")
    low, high = (v.e.value(f"zext {word} {v.convert('bitcast', x, word)} to {whole.type}") for x in (a, b))
    return whole.binary("or", low, whole.binary("shl", high, whole.const(bits)))


PRIMITIVES: dict[str, Primitive] = {
    "add": Primitive(2, {"f": op("fadd"), "i": op("add"), "u": op("add"), "b": op("or")}),
    "sub": Primitive(2, {"f": op("fsub"), "i": op("sub"), "u": op("sub")}),
    "mul": Primitive(2, {"f": op("fmul"), "i": op("mul"), "u": op("mul"), "b": op("and")}),
    "div": Primitive(2, {"f": op("fdiv")}),
    "floordiv": Primitive(2, {"f": of_floats("floordiv"), "i": floor_quotient, "u": floor_quotient}),
    "mod": Primitive(2, {"f": of_floats("mod"), "i": floor_rest, "u": floor_rest}),
    "pow": Primitive(2, {"f": of_floats("pow"), "i": power, "u": power}),
    "neg": Primitive(1, {"f": lambda v, a: v.math.neg(a), "i": negate, "u": negate}),
    "and": Primitive(2, dict.fromkeys("iub", op("and"))),
    "or": Primitive(2, dict.fromkeys("iub", op("or"))),
    "xor": Primitive(2, dict.fromkeys("iub", op("xor"))),
    "not": Primitive(
        1, dict.fromkeys("iub", lambda v, a: v.binary("xor", a, v.const(True if v.is_bool else -1)))
    ),
    "shl": Primitive(2, dict.fromkeys("iu", shift_left)),
    "shr": Primitive(2, dict.fromkeys("iu", shift_right)),
    "eq": comparison("oeq", "eq", "eq"),
    "ne": comparison("une", "ne", "ne"),
    "lt": comparison("olt", "slt", "ult"),
    "le": comparison("ole", "sle", "ule"),
    "gt": comparison("ogt", "sgt", "ugt"),
    "ge": comparison("oge", "sge", "uge"),
    "min": Primitive(
        2, {"f": of_floats("min"), "i": intrinsic("smin"), "u": intrinsic("umin"), "b": op("and")}
    ),
    "max": Primitive(
        2, {"f": of_floats("max"), "i": intrinsic("smax"), "u": intrinsic("umax"), "b": op("or")}
    ),
    "abs": Primitive(1, {"f": of_floats("abs"), "i": absolute, "u": same, "b": same}),
    "sign": Primitive(1, {"f": of_floats("sign"), "i": sign, "u": sign}),
    "isnan": Primitive(1, {"f": is_nan} | dict.fromkeys("iub", never), "bool"),
    "isinf": Primitive(1, {"f": is_inf} | dict.fromkeys("iub", never), "bool"),
    "philox": Primitive(3, {"u": philox}),
    "real": Primitive(1, {"c": part(0)}, "part"),
    "imag": Primitive(1, {"c": part(1)}, "part"),
    "complex": Primitive(2, {"f": joined}, "whole"),
}
for _name, (_arity, _) in vector_math.FUNCTIONS.items():
    PRIMITIVES.setdefault(_name, Primitive(_arity, {"f": of_floats(_name)}))
