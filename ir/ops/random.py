"""Rows that make random numbers.  All of them are functions: equal states give equal numbers.

`philox` is counter-based: an element's bits hang on its index, the number of the draw and the key alone.  `mrg` and
`legacy_draw` reproduce the streams of Theano's MRG_RandomStreams and of NumPy's RandomState.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tcc.ir.core import Attrs, Block
from tcc.ir.dims import mul
from tcc.ir.ops import legacy
from tcc.ir.ops.rules import elementwise, per_element, want_dtype, want_rank, want_size
from tcc.ir.optable import REQUIRED, OpDef, Sample, define
from tcc.ir.types import Type, numpy_dtype

LOW = np.uint64(0xFFFFFFFF)
ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
INCREMENTS = (0x9E3779B9, 0xBB67AE85)  # of the key, from round to round


def philox(a: Any, b: Any, key: Any) -> Any:
    """The first 64 of the 128 bits of Philox 4x32-10 for the counter (a, b), low words first (Salmon et al. 2011)."""
    a, b, key = (np.asarray(v, np.uint64) for v in (a, b, key))
    half = np.uint64(32)
    x0, x1, x2, x3 = a & LOW, a >> half, b & LOW, b >> half
    k0, k1 = key & LOW, key >> half
    for _ in range(ROUNDS):
        p0, p1 = x0 * np.uint64(MULTIPLIERS[0]), x2 * np.uint64(MULTIPLIERS[1])
        x0, x1, x2, x3 = (p1 >> half) ^ x1 ^ k0, p1 & LOW, (p0 >> half) ^ x3 ^ k1, p0 & LOW
        k0, k1 = ((k + np.uint64(i)) & LOW for k, i in zip((k0, k1), INCREMENTS))
    return x0 | (x1 << half)


define(
    OpDef(
        "philox",
        "a, b, key",
        elementwise("philox", "a, b, key", frozenset({"u64"})),
        philox,
        doc="64 random bits for the counter (a, b): Philox 4x32-10 (Salmon et al., Parallel random numbers, 2011).",
        scalar="philox(a, b, key)",
        reuse=(0, 1, 2),
        flops=per_element(80),
        samples=(Sample(("u64[3,4]",) * 3, low=0), Sample(("u64[]",) * 3, low=0)),
    )
)

# -- MRG31k3p --------------------------------------------------------------------------------------------------------

M1, M2 = 2**31 - 1, 2**31 - 21069
# to (0, 1): in float32 the largest number whose product with M1 is below 1
NORM = {"f32": 4.6566126e-10, "f64": 4.656612873077392578125e-10}


def mrg_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    (state,) = types
    want_dtype("mrg", "state", state, frozenset({"i32"}))
    want_rank("mrg", "state", state, 2)
    want_size("mrg", "the numbers of a stream's state", state.shape[1], 6)
    if attrs["dtype"] not in NORM:
        raise TypeError(f"mrg: draws f32 or f64, not {attrs['dtype']}")
    return [state, Type(attrs["dtype"], (attrs["count"],))]


def mrg_ref(state: Any, count: int, dtype: str) -> tuple[Any, Any]:
    streams = len(state)
    out = np.empty(count, numpy_dtype(dtype))
    x = list(np.array(state, np.int64).T)
    norm = numpy_dtype(dtype).type(NORM[dtype])
    for start in range(0, count if streams else 0, max(1, streams)):
        n = min(streams, count - start)
        _, b, c, d, e, f = (v[:n] for v in x)
        first = (b % 512 * 2**22 + b // 512 + c % 2**24 * 128 + c // 2**24) % M1
        first = (first + c) % M1
        second = (f % 65536 * 32768 + f // 65536 * 21069) % M2
        second = (second + f + (d % 65536 * 32768 + d // 65536 * 21069) % M2) % M2
        for old, new in zip(x, [first, x[0][:n].copy(), b.copy(), second, d.copy(), e.copy()]):
            old[:n] = new
        difference = np.where(first <= second, first - second + M1, first - second)
        out[start : start + n] = difference.astype(out.dtype) * norm
    return np.stack(x, axis=1).astype(np.int32) if streams else np.array(state), out


define(
    OpDef(
        "mrg",
        "state",
        mrg_type,
        mrg_ref,
        {"count": REQUIRED, "dtype": "f64"},
        doc="`count` numbers in (0, 1), and the states after them: element i is drawn by stream i modulo their number "
        "with MRG31k3p (L'Ecuyer and Touzin, Fast combined multiple recursive generators, 2000).",
        kernel=True,
        reuse=(0,),
        flops=lambda op: mul(24, op.attrs["count"]),
        samples=(
            Sample(("i32[5,6]",), {"count": 13, "dtype": "f32"}, low=1, high=2**31 - 21070),
            Sample(("i32[4,6]",), {"count": 3, "dtype": "f64"}, low=1, high=9),
        ),
    )
)

# -- NumPy's RandomState ---------------------------------------------------------------------------------------------


def legacy_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    state, sizes, *_ = types
    method, shape = attrs["method"], tuple(attrs["shape"])
    if state.value != Type("u32", (legacy.WORDS,)):
        raise TypeError(f"legacy_draw: operand state must be u32[{legacy.WORDS}], got {state}")
    if method not in legacy.METHODS:
        raise TypeError(f"legacy_draw: no method {method!r} (there are {', '.join(legacy.METHODS)})")
    if sizes.dtype != "i64" or sizes.rank != 1:
        raise TypeError(f"legacy_draw: operand sizes must be a vector of i64, got {sizes}")
    return [state.value, Type(attrs["dtype"], shape)]


define(
    OpDef(
        "legacy_draw",
        "state, sizes, *args",
        legacy_type,
        lambda state, sizes, *args, method, shape, dtype: legacy.draw(method, state, sizes, args, dtype),
        {"method": REQUIRED, "shape": REQUIRED, "dtype": REQUIRED},
        doc="The state after, and the numbers that `method` of a NumPy RandomState draws for `sizes` and `args`.",
        kernel=True,
        host=True,
        fails=True,
        samples=(),
    )
)
