"""The vocabulary that the vector functions are written in: one floating type's arithmetic, bits and reductions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tcc.codegen.emit import Emit, VecType
from tcc.codegen.target import Target

Operand = str | float | int  # an emitted value, or a number that stands for a constant


class Math:
    """Writes operations on vectors of one type, float or double; a plain number stands for a constant vector.

    `native` says that AVX-512's own instructions serve the type; both forms of a function then give equal bits.
    """

    def __init__(self, e: Emit, t: VecType, target: Target) -> None:
        if t.elem not in ("float", "double"):
            raise TypeError(f"math functions need float or double, got {t}")
        self.e, self.t, self.target = e, t, target
        self.single = t.elem == "float"
        self.integer = t.of("i32" if self.single else "i64")
        self.bits = 32 if self.single else 64
        self.mantissa = 23 if self.single else 52
        self.bias = 127 if self.single else 1023
        pieces = t.lanes * self.bits // 512
        self.native = target.avx512 and pieces in (1, 2, 4, 8)

    def pick(self, single: Sequence[float], double: Sequence[float]) -> Sequence[float]:
        """The coefficients for this type."""
        return single if self.single else double

    # floating arithmetic

    def operand(self, x: Operand) -> str:
        return x if isinstance(x, str) else self.t.const(x)

    def _binary(self, op: str, a: Operand, b: Operand) -> str:
        return self.e.value(f"{op} {self.t} {self.operand(a)}, {self.operand(b)}")

    def add(self, a: Operand, b: Operand) -> str:
        return self._binary("fadd", a, b)

    def sub(self, a: Operand, b: Operand) -> str:
        return self._binary("fsub", a, b)

    def mul(self, a: Operand, b: Operand) -> str:
        return self._binary("fmul", a, b)

    def div(self, a: Operand, b: Operand) -> str:
        return self._binary("fdiv", a, b)

    def neg(self, a: str) -> str:
        return self.e.value(f"fneg {self.t} {a}")

    def fma(self, a: Operand, b: Operand, c: Operand) -> str:
        """a * b + c, rounded once; on a machine without fma, made of operations that hardly ever round twice."""
        if self.target.fma:
            return self.mul_add(a, b, c)
        if self.single:
            w = self._wide()
            return self._narrow(w.add(w.mul(self._widened(a), self._widened(b)), self._widened(c)))
        p, low = self.two_product(a, b)
        s, lost = self.two_sum(p, self.operand(c))
        rest = self.add(lost, low)
        # none where halves overflow, and none that would take a zero's sign away
        some = self.both(self.compare("one", rest, 0.0), self.compare("olt", self.abs(rest), math.inf))
        return self.select(some, self.add(s, rest), s)

    def mul_add(self, a: Operand, b: Operand, c: Operand) -> str:
        """a * b + c as the machine does it best, rounded once or twice."""
        return self.intrinsic("fma", a, b, c)

    def _wide(self) -> Math:
        return Math(self.e, self.t.of("double"), self.target)

    def _widened(self, x: Operand) -> str:
        return self.e.value(f"fpext {self.t} {self.operand(x)} to {self.t.of('double')}")

    def _narrow(self, x: str) -> str:
        return self.e.value(f"fptrunc {self.t.of('double')} {x} to {self.t}")

    def two_sum(self, a: str, b: str) -> tuple[str, str]:
        """(s, e): s = a + b rounded, and s + e = a + b exactly (Knuth)."""
        s = self.add(a, b)
        shift = self.sub(s, a)
        return s, self.add(self.sub(a, self.sub(s, shift)), self.sub(b, shift))

    def quick_two_sum(self, a: str, b: str) -> tuple[str, str]:
        """As `two_sum`, for |a| >= |b|."""
        s = self.add(a, b)
        return s, self.sub(b, self.sub(s, a))

    def two_product(self, a: Operand, b: Operand) -> tuple[str, str]:
        """(p, e): p = a * b rounded, and p + e = a * b exactly; without fma, in halves (Dekker) or in double."""
        p = self.mul(a, b)
        if self.target.fma:
            return p, self.mul_add(a, b, self.neg(p))
        if self.single:
            w = self._wide()
            return p, self._narrow(w.sub(w.mul(self._widened(a), self._widened(b)), self._widened(p)))
        a_high, a_low = self._halves(a)
        b_high, b_low = self._halves(b)
        rest = self.add(self.sub(self.mul(a_high, b_high), p), self.mul(a_high, b_low))
        return p, self.add(self.add(rest, self.mul(a_low, b_high)), self.mul(a_low, b_low))

    def _halves(self, x: Operand) -> tuple[str, str]:
        """x as a sum of two numbers of half as many bits (Veltkamp)."""
        scaled = self.mul(x, 2.0 ** ((self.mantissa + 2) // 2) + 1.0)
        high = self.sub(scaled, self.sub(scaled, x))
        return high, self.sub(x, high)

    def intrinsic(self, name: str, *args: Operand) -> str:
        """LLVM's intrinsic of that name, of this type in every place."""
        return self.e.call(self.t, f"llvm.{name}.{self.t.suffix}", *((self.t, self.operand(a)) for a in args))

    def abs(self, x: str) -> str:
        return self.intrinsic("fabs", x)

    def copysign(self, x: Operand, sign: str) -> str:
        return self.intrinsic("copysign", x, sign)

    def sqrt(self, x: Operand) -> str:
        return self.intrinsic("sqrt", x)

    def compare(self, predicate: str, a: Operand, b: Operand) -> str:
        """i1 lanes; the predicate is one of LLVM's, such as olt (false for NaN) or ult (true for NaN)."""
        return self.e.value(f"fcmp {predicate} {self.t} {self.operand(a)}, {self.operand(b)}")

    def select(self, cond: str, a: Operand, b: Operand) -> str:
        t, i1 = self.t, self.t.of("i1")
        return self.e.value(f"select {i1} {cond}, {t} {self.operand(a)}, {t} {self.operand(b)}")

    def either(self, a: str, b: str) -> str:
        return self.e.value(f"or {self.t.of('i1')} {a}, {b}")

    def both(self, a: str, b: str) -> str:
        return self.e.value(f"and {self.t.of('i1')} {a}, {b}")

    def any(self, cond: str) -> str:
        """An i1: whether some lane holds."""
        if self.t.lanes == 1:
            return cond
        i1 = self.t.of("i1")
        return self.e.call("i1", f"llvm.vector.reduce.or.{i1.suffix}", (i1, cond))

    def rarely(
        self, cond: str, then: Callable[[], Sequence[str]], otherwise: Sequence[str], types: Sequence[VecType]
    ) -> list[str]:
        """`then()` if `cond`, an i1, holds; a branch, so `then` costs nothing while it does not."""
        e = self.e
        before, inside, after = e.current, e.label(), e.label()
        e.branch_if(cond, inside, after)
        e.at(inside)
        values, latch = then(), e.current
        e.branch(after)
        e.at(after)
        return [
            e.value(f"phi {t} [{old}, %{before}], [{new}, %{latch}]")
            for t, old, new in zip(types, otherwise, values)
        ]

    def at_most(self, limit: Operand, x: str) -> str:
        """min(limit, x) in one instruction; a NaN in x stays."""
        return self.select(self.compare("olt", limit, x), limit, x)

    def at_least(self, limit: Operand, x: str) -> str:
        """max(limit, x) in one instruction; a NaN in x stays."""
        return self.select(self.compare("ogt", limit, x), limit, x)

    def clamp(self, low: float, x: str, high: float) -> str:
        return self.at_least(low, self.at_most(high, x))

    def horner(self, x: str, coefficients: Sequence[float]) -> str:
        """The polynomial with these coefficients, highest power first."""
        p: Operand
        p, *rest = coefficients
        for left, c in enumerate(rest, 1 - len(rest)):
            p = self.mul_add(p, x, c) if left < -1 else self.fma(p, x, c)
        return self.operand(p)

    # bits

    def to_bits(self, x: str) -> str:
        return self.e.value(f"bitcast {self.t} {x} to {self.integer}")

    def from_bits(self, x: str) -> str:
        return self.e.value(f"bitcast {self.integer} {x} to {self.t}")

    def int_op(self, op: str, a: str | int, b: str | int) -> str:
        """add, sub, mul, shl, lshr, ashr, and, or, xor on the integers of the same width."""
        x, y = (v if isinstance(v, str) else self.integer.const(v) for v in (a, b))
        return self.e.value(f"{op} {self.integer} {x}, {y}")

    def int_compare(self, predicate: str, a: str, b: str | int) -> str:
        y = b if isinstance(b, str) else self.integer.const(b)
        return self.e.value(f"icmp {predicate} {self.integer} {a}, {y}")

    def int_select(self, cond: str, a: str, b: str) -> str:
        i = self.integer
        return self.e.value(f"select {i.of('i1')} {cond}, {i} {a}, {i} {b}")

    def flip_sign(self, x: str, bit: str) -> str:
        """x with its sign flipped where the integer `bit` is odd."""
        return self.from_bits(self.int_op("xor", self.to_bits(x), self.int_op("shl", bit, self.bits - 1)))

    # powers of two

    @property
    def magic(self) -> float:
        """Added to a small number it leaves the nearest integer in the low bits."""
        return 1.5 * 2.0**self.mantissa

    def nearest(self, x: Operand, factor: Operand) -> tuple[str, str]:
        """(z, n): n is x * factor rounded to an integer (|n| < 2^21), the low bits of z hold it as an integer."""
        z = self.fma(x, factor, self.magic)
        return z, self.sub(z, self.magic)

    def pow2(self, z: str, n: str, shift: int = 0) -> str:
        """2^(n + shift), a normal number, from what `nearest` returned."""
        if self.native:
            return self.scalef(2.0**shift, n)
        biased = self.int_op("add", self.to_bits(z), self.bias + shift)
        return self.from_bits(self.int_op("shl", biased, self.mantissa))

    def power(self, n: str) -> str:
        """2^n, a normal number, for an integer n held as a float."""
        if self.native:
            return self.scalef(1.0, n)
        biased = self.to_bits(self.add(n, self.magic + self.bias))
        return self.from_bits(self.int_op("shl", biased, self.mantissa))

    def split_fraction(self, x: str) -> tuple[str, Callable[[str], str]]:
        """x - floor(x), and a function that multiplies by 2^floor(x), or by more than 2^60 where x > 64; for x >= 0."""
        if self.native:
            fraction = self.avx512("reduce", x, immediate=1)
            return fraction, lambda p: self.scalef(p, x)
        x = self.at_most(65.0, x)
        whole = self.intrinsic("floor", x)
        return self.sub(x, whole), lambda p: self.mul(p, self.power(whole))

    def inverse_pow2(self, z: str, n: str) -> str:
        """2^-n for n >= -bias; 0 instead of a denormal number."""
        if self.native:
            return self.scalef(1.0, self.neg(n))
        biased = self.int_op("sub", self._magic_bits + self.bias, self.to_bits(z))
        biased = self._int_max(biased, 0)
        return self.from_bits(self.int_op("shl", biased, self.mantissa))

    def scale(self, x: str, z: str, n: str, shift: int = 0, lost: bool = True) -> str:
        """x * 2^(n + shift), rounded once if it is denormal, for |x| near 1 and n within twice the exponent range.

        Intel's CPUs take a hundred cycles for a result that is lost below the denormal numbers, as a mask's exp(-1e9) is: where
        n tells so, 0 is not computed.  `lost` says whether there may be such.
        """
        least = float(1 - self.bias - self.mantissa - 2)  # beyond the least denormal number, since |x| < 4
        kept = self.compare("uge", n, least - shift) if lost else None
        if self.native:
            return self.scalef(x, self.add(n, float(shift)) if shift else n, kept)
        # twice biased, so that the halves are the exponents of two factors (and none is negative)
        whole = self.int_op("sub", self.to_bits(z), self._magic_bits - shift - 2 * self.bias)
        half = self.int_op("lshr", whole, 1)
        for biased in (half, self.int_op("sub", whole, half)):
            factor = self.from_bits(self.int_op("shl", biased, self.mantissa))
            x = self.mul(x, factor if kept is None or biased is half else self.select(kept, factor, 0.0))
        return x

    @property
    def _magic_bits(self) -> int:
        return 0x4B400000 if self.single else 0x4338000000000000

    def _int_max(self, a: str, b: int) -> str:
        i = self.integer
        return self.e.call(i, f"llvm.smax.{i.suffix}", (i, a), (i, i.const(b)))

    def split_exponent(self, x: str) -> tuple[str, str]:
        """(m, k): x = m * 2^k with m in [0.75, 1.5), k a float.  For positive finite x.

        The native form gives (1, -inf) for 0, (1, inf) for inf, and NaN for negative numbers; see `log_edges`.
        """
        if self.native:
            normalized = 3 | 3 << 2  # [0.75, 1.5); NaN for negative numbers
            m = self.avx512("getmant", x, immediate=normalized)
            return m, self.sub(self.avx512("getexp", x), self.avx512("getexp", m))
        tiny = self.compare("olt", x, 2.0 ** (1 - self.bias))
        x = self.select(tiny, self.mul(x, 2.0**self.mantissa), x)
        three_quarters = 0x3F400000 if self.single else 0x3FE8000000000000
        one = self.bias << self.mantissa
        # the exponent, biased, over the mantissa's distance from 0.75
        bits = self.int_op("add", self.to_bits(x), one - three_quarters)
        distance = self.int_op("and", bits, (1 << self.mantissa) - 1)
        m = self.from_bits(self.int_op("add", distance, three_quarters))
        # as the low bits of a large number, since integers of 64 bits have no conversion before AVX-512
        k = self.from_bits(self.int_op("or", self.int_op("lshr", bits, self.mantissa), self._magic_bits))
        bias = self.magic + self.bias
        return m, self.sub(k, self.select(tiny, bias + self.mantissa, bias))

    def log_edges(self, x: str, y: str) -> str:
        """A logarithm's value y put right at 0, inf, NaN and negative x, where `split_exponent` did not."""
        if self.native:
            return y
        inf = float("inf")
        y = self.select(self.compare("olt", x, inf), y, x)
        y = self.select(self.compare("oeq", x, 0.0), -inf, y)
        return self.select(self.compare("olt", x, 0.0), float("nan"), y)

    # AVX-512

    def scalef(self, x: Operand, n: str, kept: str | None = None) -> str:
        """x * 2^floor(n); 0 where `kept` is false."""
        return self.avx512("scalef", x, n, kept=kept)

    def avx512(self, name: str, *args: Operand, immediate: int | None = None, kept: str | None = None) -> str:
        """`llvm.x86.avx512.mask.<name>` on each 512 bits of the operands; lanes where `kept` is false are 0, at no cost."""
        lanes = 512 // self.bits
        piece = VecType(self.t.elem, lanes)
        kind = "ps" if self.single else "pd"
        whole = f"i{lanes}"
        parts: list[str] = []
        for start in range(0, self.t.lanes, lanes):
            inputs: list[tuple[VecType | str, str]] = []
            for a in args:
                inputs.append((piece, self._lanes(a, start, lanes)))
            passthrough, mask = inputs[0], (whole, "-1")
            if kept is not None:
                some = self._lanes(kept, start, lanes, "i1")
                passthrough = (piece, piece.const(0.0))
                mask = (whole, self.e.value(f"bitcast {VecType('i1', lanes)} {some} to {whole}"))
            if immediate is not None:
                inputs.append(("i32", str(immediate)))
            current_rounding = ("i32", "4")
            operands = [*inputs, passthrough, mask, current_rounding]
            parts.append(self.e.call(piece, f"llvm.x86.avx512.mask.{name}.{kind}.512", *operands))
        return self._join(parts, lanes)

    def _lanes(self, x: Operand, start: int, count: int, elem: str | None = None) -> str:
        t = self.t.of(elem or self.t.elem)
        if not isinstance(x, str):
            return VecType(t.elem, count).const(x)
        if count == t.lanes:
            return x
        index = ", ".join(f"i32 {start + i}" for i in range(count))
        return self.e.value(f"shufflevector {t} {x}, {t} poison, <{count} x i32> <{index}>")

    def _join(self, parts: list[str], lanes: int) -> str:
        while len(parts) > 1:
            piece = VecType(self.t.elem, lanes)
            index = ", ".join(f"i32 {i}" for i in range(2 * lanes))
            form = f"shufflevector {piece} {{}}, {piece} {{}}, <{2 * lanes} x i32> <{index}>"
            parts = [self.e.value(form.format(a, b)) for a, b in zip(parts[::2], parts[1::2])]
            lanes *= 2
        return parts[0]
