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

AT_ONCE = 4  # elements that are looked at in a round


def positions_kernel(op: Op, target: Target) -> Kernel:
    """One thread walks the elements and packs the indices of those that hold."""
    w = Places(op, target)
    w.begin_kernel()
    dense = all(t.strides[0] == 1 for t in w.types)
    found, start = "0", "0"
    if target.avx512 and dense:
        found, start = _compressed(w)
    _one_by_one(w, start, found)
    w.e.end("i32 0")
    return w.finish("positions")


def _one_by_one(w: Places, start: str, found: str) -> None:
    """Writes each index where the next one found belongs, which those that do not hold do not move on.  No branch hangs on an
    element; the walk ends where all are found, as the next place is beyond the result's end."""
    e = w.e
    ends = [w.size(t.shape[0]) for t in w.types]
    for step in (AT_ONCE, 1):
        before, head, more, inside, after = e.current, *(e.label() for _ in range(4))
        i, place, next_i = e.fresh("i"), e.fresh("n"), e.fresh("i")
        last = [e.value(f"sub i64 {end}, {step}") for end in ends]
        e.branch(head)
        e.at(head)
        slot = len(e.lines)
        e.line("")
        e.branch_if(e.value(f"icmp sle i64 {i}, {last[0]}"), more, after)
        e.at(more)
        e.branch_if(e.value(f"icmp sle i64 {place}, {last[1]}"), inside, after)
        e.at(inside)
        at = place
        for k in range(step):
            index = plus(e, i, str(k))
            w.store(1, [at], index)
            at = e.value(f"add i64 {at}, {e.value(f'zext i1 {w.load(0, [index])} to i64')}")
        e.line(f"{next_i} = add i64 {i}, {step}")
        e.branch(head)
        e.lines[slot] = (
            f"  {i} = phi i64 [{start}, %{before}], [{next_i}, %{inside}]\n"
            f"  {place} = phi i64 [{found}, %{before}], [{at}, %{inside}]"
        )
        e.at(after)
        start, found = i, place


def _compressed(w: Places) -> tuple[str, str]:
    """A vector of indices at a time, by an instruction that stores some lanes; how many were found, and where the rest begins."""
    e, target = w.e, w.target
    lanes = target.vector("i64").lanes
    vector, mask_type, bits = VecType("i64", lanes), VecType("i1", lanes), f"i{lanes}"

    def several(i: str, found: list[str]) -> list[str]:
        mask = scalar.load(e, target, "bool", lanes, w.address(0, [i]), None)
        index = e.value(f"add {vector} {splat(e, vector, i)}, {iota(lanes)}")
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

    whole = e.value(f"and i64 {w.size(w.types[0].shape[0])}, {-lanes}")
    (found,) = e.loop(0, whole, lanes, several, [("i64", "0")])
    return found, whole


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
