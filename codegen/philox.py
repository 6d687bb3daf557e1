"""The rounds of Philox, as a primitive of scalar bodies."""

from __future__ import annotations

from tcc.codegen.lanes import Lanes
from tcc.ir.ops.random import INCREMENTS, MULTIPLIERS, ROUNDS

HALF = 0xFFFFFFFF


def philox(v: Lanes, a: str, b: str, key: str) -> str:
    """`ir.ops.random.philox` in lanes of u64, each of which holds a word of 32 bits; upper halves may hold anything
    where only the lower one is read."""
    if v.width != 64:
        raise TypeError(f"philox is of u64, not {v.dtype}")
    half, low = v.const(32), v.const(HALF)

    def upper(x: str) -> str:
        return v.binary("lshr", x, half)

    def product(x: str, multiplier: int) -> str:
        return v.binary("mul", v.binary("and", x, low), v.const(multiplier))

    x0, x1, x2, x3, k0, k1 = a, upper(a), b, upper(b), v.binary("and", key, low), upper(key)
    for number in range(ROUNDS):
        if number:
            k0, k1 = (
                v.binary("and", v.binary("add", k, v.const(i)), low) for k, i in zip((k0, k1), INCREMENTS)
            )
        p0, p1 = product(x0, MULTIPLIERS[0]), product(x2, MULTIPLIERS[1])
        x0 = v.binary("xor", v.binary("xor", upper(p1), x1), k0)
        x2 = v.binary("xor", v.binary("xor", upper(p0), x3), k1)
        x1, x3 = p1, p0
    return v.binary("or", v.binary("and", x0, low), v.binary("shl", x1, half))
