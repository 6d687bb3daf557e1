"""Vectors of a run of memory: loads, stores, masks, loops over them, and what is fetched ahead."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tcc.codegen.emit import Emit, VecType, constant_mask
from tcc.codegen.index import Index, Size, at_most, known
from tcc.codegen.target import Target

LINE = 64  # bytes of a cache line


def splat(e: Emit, t: VecType, scalar: str) -> str:
    if t.lanes == 1:
        return scalar
    one = e.value(f"insertelement {t} poison, {t.elem} {scalar}, i64 0")
    return e.value(f"shufflevector {t} {one}, {t} poison, {t.of('i32')} zeroinitializer")


def lane_mask(e: Emit, t: VecType, count: str) -> str:
    """The lanes below `count`, an i64 that is not negative."""
    if isinstance(known(count), int):
        return constant_mask([i < int(count) for i in range(t.lanes)])
    wide = t.of(f"i{8 * t.bytes}")
    few = at_most(e, count, str(t.lanes))
    if wide.elem != "i64":
        few = e.value(f"trunc i64 {few} to {wide.elem}")
    lanes = ", ".join(f"{wide.elem} {i}" for i in range(t.lanes))
    each = f"<{lanes}>" if t.lanes > 1 else "0"
    return e.value(f"icmp slt {wide} {each}, {splat(e, wide, few)}")


def each_vector(
    e: Emit,
    t: VecType,
    target: Target,
    count: str,
    body: Callable[[str, str | None, list[str]], list[str]],
    carried: Sequence[tuple[VecType | str, str]] = (),
) -> list[str]:
    """`body(index, mask, values)` for each vector of `count` elements; the mask is None where all lanes exist.

    With AVX-512 masks cost nothing, and one masked loop is less to compile than a loop and its ragged end.
    """
    x, total = Index(e), known(count)
    if target.avx512 and not (isinstance(total, int) and total % t.lanes == 0):

        def masked(i: str, v: list[str]) -> list[str]:
            return body(i, lane_mask(e, t, e.value(f"sub i64 {count}, {i}")), v)

        return e.loop(0, count, t.lanes, masked, carried)
    full = x.round_down(total, t.lanes)
    whole = e.loop(0, full, t.lanes, lambda i, v: body(i, None, v), carried)
    rest = x.sub(total, full)
    if rest == 0:
        return whole

    def ragged() -> list[str]:
        return body(str(full), lane_mask(e, t, str(rest)), whole)

    if isinstance(rest, int):
        return ragged()
    last = [(kind, value) for (kind, _), value in zip(carried, whole, strict=True)]
    return e.when(e.value(f"icmp ne i64 {rest}, 0"), ragged, last)


def load(e: Emit, t: VecType, pointer: str, mask: str | None = None) -> str:
    """A vector at an address aligned to its elements; lanes outside `mask` are 0 and their memory is not touched."""
    if mask is None:
        return e.value(f"load {t}, ptr {pointer}, align {t.bytes}")
    name, mt = f"llvm.masked.load.{t.suffix}.p0", t.of("i1")
    e.declare(f"declare {t} @{name}(ptr, {mt}, {t})")
    return e.value(f"call {t} @{name}(ptr align {t.bytes} {pointer}, {mt} {mask}, {t} zeroinitializer)")


def gather(e: Emit, t: VecType, base: str, offsets: str, mask: str | None = None, *, align: int) -> str:
    """The elements `offsets`, a vector of i64, behind `base`; lanes outside `mask` are 0 and their memory is not touched."""
    places = e.value(f"getelementptr {t.elem}, ptr {base}, <{t.lanes} x i64> {offsets}")
    return e.call(
        t,
        f"llvm.masked.gather.{t.suffix}.v{t.lanes}p0",
        (f"<{t.lanes} x ptr> align {align}", places),
        (t.of("i1"), mask or constant_mask([True] * t.lanes)),
        (t, "zeroinitializer"),
    )


def spread(e: Emit, t: VecType, base: str, first: str, stride: int, align: int) -> str:
    """As many elements as `t` has lanes, `stride` apart, the one at `base` + `first` * `stride` in front: out of whole vectors,
    none of which reaches beyond the outermost of them."""
    step, lanes = abs(stride), t.lanes
    at = e.gep(base, e.value(f"mul i64 {first}, {stride}"), t.elem)
    span = (lanes - 1) * step + 1  # from the outermost to the outermost
    low = e.gep(at, 1 - span, t.elem) if stride < 0 else at
    starts = [min(k * lanes, span - lanes) for k in range(step)]
    places = [(lanes - 1 - i if stride < 0 else i) * step for i in range(lanes)]
    got = "poison"
    for k, start in enumerate(starts):
        # lanes that are in this vector come from it, others from what was there before
        here = [start <= p < start + lanes and p >= k * lanes for p in places]
        if not any(here):
            continue
        part = e.value(f"load {t}, ptr {e.gep(low, start, t.elem)}, align {align}")
        order = [lanes + p - start if h else i for i, (p, h) in enumerate(zip(places, here, strict=True))]
        text = ", ".join(f"i32 {o}" for o in order)
        got = e.value(f"shufflevector {t} {got}, {t} {part}, <{lanes} x i32> <{text}>")
    return got


def quick(t: VecType, step: int) -> bool:
    """Whether loads and shuffles (`spread`) are quicker than to gather: a few of words that an instruction gathers, more of others."""
    return t.bytes <= 8 and 0 < step <= (4 if t.bytes >= 4 else 8)


def store(e: Emit, t: VecType, value: str, pointer: str, mask: str | None = None) -> None:
    """The counterpart of `load`."""
    if mask is None:
        return e.line(f"store {t} {value}, ptr {pointer}, align {t.bytes}")
    name, mt = f"llvm.masked.store.{t.suffix}.p0", t.of("i1")
    e.declare(f"declare void @{name}({t}, ptr, {mt})")
    e.line(f"call void @{name}({t} {value}, ptr align {t.bytes} {pointer}, {mt} {mask})")


def pieces(t: VecType, count: int) -> list[tuple[int, int]]:
    """(first, lanes) of whole vectors, then of powers of two, that together are `count` elements."""
    found, lanes, first = [], t.lanes, 0
    while first < count:
        while first + lanes > count:
            lanes //= 2
        found.append((first, lanes))
        first += lanes
    return found


def store_first(e: Emit, t: VecType, values: Sequence[str], places: Sequence[str], count: Size) -> None:
    """The first `count` lanes of each of the values, without a mask: a half, a quarter, and so on, of those that `count`, which is
    less than all where it is not known, is made of.

    Without AVX-512 a store through a mask takes as long as the steps of some k, or is a branch a lane.
    """
    count = known(count)
    if isinstance(count, int):
        for value, place in zip(values, places, strict=True):
            for first, lanes in pieces(t, count):
                some = VecType(t.elem, lanes)
                store(e, some, _lanes(e, t, value, first, lanes), e.gep(place, first, t.elem))
        return
    offset = "0"
    while t.lanes > 1:
        whole, t = t, VecType(t.elem, t.lanes // 2)
        low, high = ([_lanes(e, whole, value, start, t.lanes) for value in values] for start in (0, t.lanes))
        there = e.value(f"icmp ne i64 {e.value(f'and i64 {count}, {t.lanes}')}, 0")
        inside, after, before = e.label(), e.label(), e.current
        e.branch_if(there, inside, after)
        e.at(inside)
        for value, place in zip(low, places, strict=True):
            store(e, t, value, e.gep(place, offset))
        beyond = e.value(f"add i64 {offset}, {t.lanes * t.bytes}")
        e.branch(after)
        e.at(after)
        values = [
            e.value(f"phi {t} [{above}, %{inside}], [{below}, %{before}]")
            for below, above in zip(low, high, strict=True)
        ]
        offset = e.value(f"phi i64 [{beyond}, %{inside}], [{offset}, %{before}]")


def _lanes(e: Emit, t: VecType, vector: str, start: int, count: int) -> str:
    """`count` lanes of a vector, from `start` on."""
    if count == t.lanes:
        return vector
    if count == 1:
        return e.value(f"extractelement {t} {vector}, i64 {start}")
    lanes = ", ".join(f"i32 {start + i}" for i in range(count))
    return e.value(f"shufflevector {t} {vector}, {t} poison, <{count} x i32> <{lanes}>")


def fetch(e: Emit, place: str, write: int) -> None:
    """Has a line of memory come to the first-level cache, to be read or written."""
    e.declare("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
    e.line(f"call void @llvm.prefetch.p0(ptr {place}, i32 {write}, i32 3, i32 1)")
