"""Kernels that look for elements: the positions of those that hold, and binary search."""

from __future__ import annotations

from tcc.codegen import scalar
from tcc.codegen.emit import VecType
from tcc.codegen.gather import Places
from tcc.codegen.index import plus, times
from tcc.codegen.kernel import Kernel
from tcc.codegen.nest import iota
from tcc.codegen.target import Target
from tcc.codegen.vectors import gather, lane_mask, splat, store
from tcc.ir.core import Op
from tcc.ir.types import FLOATS


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
    """A unit is one element of v, or two vectors of them, whose steps do not wait for each other.  NaN counts as larger than all
    numbers, as in NumPy."""
    w = Places(op, target)
    e = w.e
    x, v, _ = w.types
    floats = x.dtype in FLOATS
    if op.attrs["side"] == "left":
        further = "a < b" if not floats else "(a < b) | ((a == a) & (b != b))"
    else:
        further = "a <= b" if not floats else "(a <= b) | (b != b)"
    elem = VecType(scalar.memory_elem(x.dtype))
    lanes = target.vector("i64").lanes
    lanes = 2 * lanes if lanes > 1 and elem.bytes in (4, 8) and w.is_dense(1) and w.is_dense(2) else 1
    found_type = VecType("i64", lanes)
    w.begin_body()
    n = w.size(x.shape[0])
    zeros = e.call("i64", "llvm.ctlz.i64", ("i64", n), ("i1", "false"))
    rounds = e.value(f"sub i64 64, {zeros}")

    def search(wanted: str) -> str:
        """Of `left` elements half are looked past, where the last of them lies before; those left are as many in all lanes."""

        def halve(_: str, state: list[str]) -> list[str]:
            low, left = state
            half = e.value(f"lshr i64 {e.value(f'add i64 {left}, 1')}, 1")
            middle = e.value(f"add {found_type} {low}, {splat(e, found_type, e.value(f'sub i64 {half}, 1'))}")
            place = e.value(f"mul {found_type} {middle}, {splat(e, found_type, w.size(x.strides[0]))}")
            if lanes == 1:
                got = scalar.load(e, target, x.dtype, 1, e.gep(w.pointers[0], place, elem.elem))
            else:
                got = gather(e, VecType(elem.elem, lanes), w.pointers[0], place, align=elem.bytes)
            operands = {"a": (x.dtype, got), "b": (x.dtype, wanted)}
            before = scalar.emit_scalar(e, target, further, operands, lanes=lanes, result="bool")
            behind = e.value(f"add {found_type} {low}, {splat(e, found_type, half)}")
            low = e.value(f"select {found_type.of('i1')} {before}, {found_type} {behind}, {found_type} {low}")
            return [low, e.value(f"sub i64 {left}, {half}")]

        return e.loop(0, rounds, 1, halve, [(found_type, found_type.const(0)), ("i64", n)])[0]

    def one(u: str, _: list[str]) -> None:
        at = w.unravel(u, v.shape)
        w.store(2, at, search(w.load(1, at)))

    def several(u: str, _: list[str]) -> None:
        start = times(e, u, str(lanes))
        mask = lane_mask(e, found_type, e.value(f"sub i64 {w.count(v.shape)}, {start}"))
        wanted = scalar.load(e, target, x.dtype, lanes, e.gep(w.pointers[1], start, elem.elem), mask)
        store(e, found_type, search(wanted), e.gep(w.pointers[2], start, "i64"), mask)

    e.loop("%begin", "%end", 1, one if lanes == 1 else several)
    e.end()
    w.begin_kernel()
    units = w.count(v.shape)
    if lanes > 1:
        units = e.value(f"sdiv i64 {plus(e, units, str(lanes - 1))}, {lanes}")
    w.parallel(units, times(e, str(lanes), "100"))
    e.end("i32 0")
    return w.finish("searchsorted")
