"""Kernels that look for elements: the positions of those that hold, and binary search."""

from __future__ import annotations

from tcc.codegen import scalar
from tcc.codegen.emit import VecType
from tcc.codegen.gather import Places
from tcc.codegen.kernel import Kernel, times
from tcc.codegen.nest import iota
from tcc.codegen.target import Target
from tcc.ir.core import Op


def positions_kernel(op: Op, target: Target) -> Kernel:
    """One thread walks the elements and packs the indices of those that hold."""
    w = Places(op, target)
    e = w.e
    c, out = w.types
    lanes = target.vector("i64").lanes
    vector, mask_type, bits = VecType("i64", lanes), VecType("i1", lanes), f"i{lanes}"
    w.begin_kernel()
    n = w.size(c.shape[0])

    def one(i: str, found: list[str]) -> list[str]:
        holds = w.load(0, [i])
        e.when(holds, lambda: w.store(1, found, i))
        return [e.value(f"add i64 {found[0]}, {e.value(f'zext i1 {holds} to i64')}")]

    def several(i: str, found: list[str]) -> list[str]:
        mask = scalar.load(e, target, "bool", lanes, w.address(0, [i]), None)
        start = e.value(f"insertelement {vector} poison, i64 {i}, i64 0")
        splat = e.value(f"shufflevector {vector} {start}, {vector} poison, <{lanes} x i32> zeroinitializer")
        index = e.value(f"add {vector} {splat}, {iota(lanes)}")
        e.call(
            "void",
            f"llvm.masked.compressstore.{vector.suffix}",
            (vector, index),
            ("ptr", w.address(1, found)),
            (mask_type, mask),
        )
        packed = e.value(f"bitcast {mask_type} {mask} to {bits}")
        many = e.call(bits, f"llvm.ctpop.{bits}", (bits, packed))
        return [e.value(f"add i64 {found[0]}, {e.value(f'zext {bits} {many} to i64')}")]

    found, whole = ["0"], "0"
    if c.strides[0] == 1 and out.strides[0] == 1 and lanes > 1:
        whole = e.value(f"and i64 {n}, {-lanes}")
        found = e.loop(0, whole, lanes, several, [("i64", "0")])
    e.loop(whole, n, 1, one, [("i64", found[0])])
    e.end("i32 0")
    return w.finish("positions")


def searchsorted_kernel(op: Op, target: Target) -> Kernel:
    """A unit is one element of v.  NaN counts as larger than all numbers, as in NumPy."""
    w = Places(op, target)
    e = w.e
    x, v, _ = w.types
    floats = x.dtype in ("f32", "f64")
    if op.attrs["side"] == "left":
        further = "a < b" if not floats else "(a < b) | ((a == a) & (b != b))"
    else:
        further = "a <= b" if not floats else "(a <= b) | (b != b)"
    w.begin_body()
    n = w.size(x.shape[0])
    last = e.value(f"sub i64 {n}, 1")
    zeros = e.call("i64", "llvm.ctlz.i64", ("i64", n), ("i1", "false"))
    rounds = e.value(f"sub i64 64, {zeros}")

    def unit(u: str, _: list[str]) -> None:
        at = w.unravel(u, v.shape)
        wanted = w.load(1, at)

        def halve(_: str, state: list[str]) -> list[str]:
            low, left = state
            half = e.value(f"lshr i64 {left}, 1")
            middle = e.value(f"add i64 {low}, {half}")
            # nothing may be left before the last round
            here = e.call("i64", "llvm.smin.i64", ("i64", middle), ("i64", last))
            operands = {"a": (x.dtype, w.load(0, [here])), "b": (x.dtype, wanted)}
            before = scalar.emit_scalar(e, target, further, operands, lanes=1, result="bool")
            before = e.value(f"and i1 {before}, {e.value(f'icmp sgt i64 {left}, 0')}")
            behind = e.value(f"add i64 {middle}, 1")
            rest = e.value(f"sub i64 {left}, {e.value(f'add i64 {half}, 1')}")
            return [
                e.value(f"select i1 {before}, i64 {behind}, i64 {low}"),
                e.value(f"select i1 {before}, i64 {rest}, i64 {half}"),
            ]

        low, _left = e.loop(0, rounds, 1, halve, [("i64", "0"), ("i64", n)])
        w.store(2, at, low)

    e.loop("%begin", "%end", 1, unit)
    e.end()
    w.begin_kernel()
    w.parallel(w.count(v.shape), times(e, "1", "100"))
    e.end("i32 0")
    return w.finish("searchsorted")
