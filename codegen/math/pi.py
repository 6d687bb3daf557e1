"""Exact reduction of huge arguments modulo pi/2 (Payne and Hanek), one lane at a time, in functions called on demand."""

from __future__ import annotations

from tcc.codegen.emit import Emit
from tcc.codegen.math.core import Math

# 2/pi after the point, 64 bits a word, with a word of zeros before
TWO_OVER_PI = (
    0x0000000000000000, 0xA2F9836E4E441529, 0xFC2757D1F534DDC0, 0xDB6295993C439041, 0xFE5163ABDEBBC561,
    0xB7246E3A424DD2E0, 0x06492EEA09D1921C, 0xFE1DEB1CB129A73E, 0xE88235F52EBB4484, 0xE99C7026B45F7E41,
    0x3991D639835339F4, 0x9C845F8BBDF9283B, 0x1FF897FFDE05980F, 0xEF2F118B5A0A6D1F, 0x6D367ECF27CB09B7,
    0x4F463F669E5FEA2D, 0x7527BAC7EBE5F17B, 0x3D0739F78A5292EA, 0x6BFB5FB11F8D5D08, 0x56033046FC7B6BAB,
)  # fmt: skip
TABLE = (
    f"@tcc_two_over_pi = internal unnamed_addr constant [{len(TWO_OVER_PI)} x i64] "
    f"[{', '.join(f'i64 {w}' for w in TWO_OVER_PI)}]"
)

# x = M 2^E with a 53-bit M.  Bits of 2/pi of weight 2^(2-E) and more contribute multiples of 4 and are left out; 192 bits
# from there on give the quotient modulo 4 and more than 128 bits of the fraction.  Lanes that are not huge pass through
# here with the others; what comes out for them is not used.
REDUCE_ONE = """define internal { double, double, i64 } @tcc_reduce_pi(double %x) #0 {
  %bits = bitcast double %x to i64
  %shifted = lshr i64 %bits, 52
  %exponent = and i64 %shifted, 2047
  %mantissa = and i64 %bits, 4503599627370495
  %m = or i64 %mantissa, 4503599627370496
  %at0 = sub i64 %exponent, 1013
  %finite = icmp ne i64 %exponent, 2047
  %inside = icmp ult i64 %at0, 1035
  %at = select i1 %inside, i64 %at0, i64 0
  %word = lshr i64 %at, 6
  %p0 = getelementptr i64, ptr @tcc_two_over_pi, i64 %word
  %p1 = getelementptr i64, ptr %p0, i64 1
  %p2 = getelementptr i64, ptr %p0, i64 2
  %p3 = getelementptr i64, ptr %p0, i64 3
  %w0 = load i64, ptr %p0
  %w1 = load i64, ptr %p1
  %w2 = load i64, ptr %p2
  %w3 = load i64, ptr %p3
  %e0 = zext i64 %w0 to i256
  %e1 = zext i64 %w1 to i256
  %e2 = zext i64 %w2 to i256
  %e3 = zext i64 %w3 to i256
  %s0 = shl i256 %e0, 192
  %s1 = shl i256 %e1, 128
  %s2 = shl i256 %e2, 64
  %o1 = or i256 %s0, %s1
  %o2 = or i256 %s2, %e3
  %words = or i256 %o1, %o2
  %skip = and i64 %at, 63
  %skip256 = zext i64 %skip to i256
  %aligned = shl i256 %words, %skip256
  %chunk = lshr i256 %aligned, 64
  %m256 = zext i64 %m to i256
  %product = mul i256 %chunk, %m256
  %value = trunc i256 %product to i192
  %top = lshr i192 %value, 189
  %rounded = add i192 %top, 1
  %quotient = lshr i192 %rounded, 1
  %q = trunc i192 %quotient to i64
  %fraction = shl i192 %value, 2
  %below = icmp slt i192 %fraction, 0
  %opposite = sub i192 0, %fraction
  %size = select i1 %below, i192 %opposite, i192 %fraction
  %zeros = call i192 @llvm.ctlz.i192(i192 %size, i1 false)
  %normal = shl i192 %size, %zeros
  %first192 = lshr i192 %normal, 139
  %rest192 = shl i192 %normal, 53
  %second192 = lshr i192 %rest192, 139
  %first = trunc i192 %first192 to i64
  %second = trunc i192 %second192 to i64
  %a0 = uitofp i64 %first to double
  %b0 = uitofp i64 %second to double
  %zeros64 = trunc i192 %zeros to i64
  %scale_exponent = sub i64 970, %zeros64
  %scale_bits = shl i64 %scale_exponent, 52
  %scale = bitcast i64 %scale_bits to double
  %a = fmul double %a0, %scale
  %b1 = fmul double %b0, %scale
  %b = fmul double %b1, 0x3CA0000000000000
  %r0 = fmul double %a, 0x3FF921FB54442D18
  %nr0 = fneg double %r0
  %c0 = call double @llvm.fma.f64(double %a, double 0x3FF921FB54442D18, double %nr0)
  %c1 = call double @llvm.fma.f64(double %a, double 0x3C91A62633145C07, double %c0)
  %c2 = call double @llvm.fma.f64(double %b, double 0x3FF921FB54442D18, double %c1)
  %r = fadd double %r0, %c2
  %gained = fsub double %r, %r0
  %low = fsub double %c2, %gained
  %negative = icmp slt i64 %bits, 0
  %turned = xor i1 %negative, %below
  %nr = fneg double %r
  %nlow = fneg double %low
  %nq = sub i64 0, %q
  %signed = select i1 %turned, double %nr, double %r
  %signed_low = select i1 %turned, double %nlow, double %low
  %signed_q = select i1 %negative, i64 %nq, i64 %q
  %nan = fsub double %x, %x
  %answer = select i1 %finite, double %signed, double %nan
  %one = insertvalue { double, double, i64 } poison, double %answer, 0
  %two = insertvalue { double, double, i64 } %one, double %signed_low, 1
  %three = insertvalue { double, double, i64 } %two, i64 %signed_q, 2
  ret { double, double, i64 } %three
}"""


def reduce_huge(m: Math, x: str) -> tuple[str, str, str]:
    """(r, low, q) as `math_trig.reduce` for the lanes with |x| > 2^17."""
    name = f"tcc_reduce_pi_{m.t.suffix}"
    m.e.declare("declare i192 @llvm.ctlz.i192(i192, i1)")
    m.e.declare("declare double @llvm.fma.f64(double, double, double)")
    for text in (TABLE, REDUCE_ONE, _lanes_function(m, name)):
        m.e.declare(
            " ".join(text.split())
        )  # a line each, as declarations are, so that modules keep one of each
    parts = _unpack(m.e, _parts(m), m.e.value(f"call {_parts(m)} @{name}({m.t} {x})"))
    return parts[0], parts[1], parts[2]


def _parts(m: Math) -> str:
    return f"{{ {m.t}, {m.t}, {m.integer} }}"


def _unpack(e: Emit, struct: str, value: str) -> list[str]:
    return [e.value(f"extractvalue {struct} {value}, {k}") for k in range(3)]


def _lanes_function(m: Math, name: str) -> str:
    """The text of a function that reduces each lane of a vector."""
    e, types = Emit(), (m.t, m.t, m.integer)
    e.function(f"internal {_parts(m)} @{name}({m.t} %x)")

    def one(lane: str, values: list[str]) -> list[str]:
        x = e.value(f"extractelement {m.t} %x, i64 {lane}") if m.t.lanes > 1 else "%x"
        wide = e.value(f"fpext float {x} to double") if m.single else x
        one = "{ double, double, i64 }"
        r, low, q = _unpack(e, one, e.value(f"call {one} @tcc_reduce_pi(double {wide})"))
        if m.single:
            narrow = e.value(f"fptrunc double {r} to float")
            rounded = e.value(f"fpext float {narrow} to double")
            low = e.value(f"fptrunc double {e.value(f'fsub double {r}, {rounded}')} to float")
            r, q = narrow, e.value(f"trunc i64 {q} to i32")
        if m.t.lanes == 1:
            return [r, low, q]
        return [
            e.value(f"insertelement {t} {old}, {t.elem} {new}, i64 {lane}")
            for t, old, new in zip(types, values, (r, low, q))
        ]

    value = "poison"
    for k, part in enumerate(e.loop(0, m.t.lanes, 1, one, [(t, t.const(0)) for t in types])):
        value = e.value(f"insertvalue {_parts(m)} {value}, {types[k]} {part}, {k}")
    e.end(f"{_parts(m)} {value}")
    return e.text()
