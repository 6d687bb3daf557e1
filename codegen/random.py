"""The kernel of MRG31k3p."""

from __future__ import annotations

from tcc.codegen import scalar
from tcc.codegen.emit import VecType
from tcc.codegen.gather import Places
from tcc.codegen.index import at_least, at_most, plus, times
from tcc.codegen.kernel import Kernel
from tcc.codegen.lanes import Lanes
from tcc.codegen.nest import iota
from tcc.codegen.target import Target
from tcc.codegen.vectors import splat
from tcc.ir.core import Op
from tcc.ir.ops.random import M1, M2, NORM

WORDS = 6  # of a stream's state


class Streams:
    """Writes MRG31k3p on a vector of streams."""

    def __init__(self, w: Places, lanes: int) -> None:
        self.w, self.v = w, Lanes(w.e, w.target, "i32", lanes)

    def below(self, x: str, modulus: int) -> str:
        """x modulo `modulus`, for x of 32 bits without sign that is less than twice the modulus."""
        v = self.v
        return v.select(v.icmp("uge", x, v.const(modulus)), v.binary("sub", x, v.const(modulus)), x)

    def low(self, x: str, bits: int) -> str:
        return self.v.binary("and", x, self.v.const(2**bits - 1))

    def shifted(self, x: str, left: int) -> str:
        name = "shl" if left > 0 else "lshr"
        return self.v.binary(name, x, self.v.const(abs(left)))

    def sum(self, *terms: str) -> str:
        total, *rest = terms
        for t in rest:
            total = self.v.binary("add", total, t)
        return total

    def twisted(self, x: str) -> str:
        """2^15 x modulo M2."""
        high = self.v.binary("mul", self.shifted(x, -16), self.v.const(21069))
        return self.below(self.sum(self.shifted(self.low(x, 16), 15), high), M2)

    def step(self, x: list[str]) -> tuple[list[str], str]:
        """The next state, and the difference of its components in 1..M1."""
        v = self.v
        a, b, c, d, e, f = x
        first = self.sum(
            self.shifted(self.low(b, 9), 22),
            self.shifted(b, -9),
            self.shifted(self.low(c, 24), 7),
            self.shifted(c, -24),
        )
        first = self.below(self.sum(self.below(first, M1), c), M1)
        second = self.below(self.sum(self.twisted(f), f), M2)
        second = self.below(self.sum(second, self.twisted(d)), M2)
        difference = v.binary("sub", first, second)
        wrapped = v.binary("add", difference, v.const(M1))
        drawn = v.select(v.icmp("sle", first, second), wrapped, difference)
        return [first, a, b, second, d, e], drawn

    def number(self, drawn: str, dtype: str) -> str:
        """Between 0 and 1."""
        t = self.v.like(dtype)
        return t.binary("fmul", self.v.cast(drawn, dtype), t.const(NORM[dtype]))


def keep_idle(w: Places, lanes: int, first: str, streams: str) -> None:
    """Copies the states of the streams from `first` on, which draw nothing, unless they stay where they are."""
    e, words = w.e, VecType("i32", lanes)
    source, to = (e.gep(p, times(e, first, str(WORDS)), "i32") for p in w.pointers[:2])
    count = times(e, e.value(f"sub i64 {streams}, {first}"), str(WORDS))

    def piece(t: VecType, k: str) -> None:
        value = e.value(f"load {t}, ptr {e.gep(source, k, 'i32')}, align 4")
        e.line(f"store {t} {value}, ptr {e.gep(to, k, 'i32')}, align 4")

    def copy() -> None:
        whole = e.value(f"and i64 {count}, {-lanes}")
        e.loop(0, whole, lanes, lambda k, _: piece(words, k))
        e.loop(whole, count, 1, lambda k, _: piece(VecType("i32"), k))

    e.when(e.value(f"icmp ne ptr {source}, {to}"), copy)


def mrg_kernel(op: Op, target: Target) -> Kernel:
    """A unit is a vector of streams, which draws every element that is theirs.  Few numbers are drawn of many streams, where
    a program does not say how many it will want: then most stay as they are.
    """
    w = Places(op, target)
    e = w.e
    state, after, out = w.types
    lanes = target.vector("i32").lanes
    w.begin_body()
    draws = _Draws(w, lanes)
    e.loop("%begin", "%end", 1, draws.unit)
    e.end()
    w.begin_kernel()
    streams, count = w.size(state.shape[0]), w.size(out.shape[0])
    busy = streams
    if state.strides == after.strides == (WORDS, 1):
        busy = at_most(e, streams, count)
    units = e.value(f"sdiv i64 {plus(e, busy, str(lanes - 1))}, {lanes}")
    if busy != streams:
        taken = times(e, units, str(lanes))
        keep_idle(w, lanes, at_most(e, taken, streams), streams)
    some = at_least(e, streams, "1")
    each = e.value(f"add i64 {e.value(f'sdiv i64 {count}, {some}')}, 8")
    w.parallel(units, times(e, each, str(4 * lanes)))
    e.end("i32 0")
    return w.finish("mrg")


class _Draws:
    """The body of `mrg_kernel`, for vectors of streams."""

    def __init__(self, w: Places, lanes: int) -> None:
        self.w, self.e, self.lanes = w, w.e, lanes
        state, _, out = w.types
        self.dtype = out.dtype
        self.s = Streams(w, lanes)
        self.vector, self.mask_type = self.s.v.type, VecType("i1", lanes)
        self.streams, self.count = w.size(state.shape[0]), w.size(out.shape[0])
        self.stride = w.size(out.strides[0])
        self.wide, self.pointers_type = VecType("i64", lanes), f"<{lanes} x ptr>"

    def unit(self, u: str, _: list[str]) -> None:
        e, lanes, vector, streams = self.e, self.lanes, self.vector, self.streams
        first = times(e, u, str(lanes))
        left = splat(e, self.wide, e.value(f"sub i64 {streams}, {first}"))
        own = e.value(f"icmp slt {self.wide} {iota(lanes)}, {left}")
        x = [self._get(self._pointers(0, first, k), own) for k in range(WORDS)]
        # steps that every lane takes, then those that only some do
        end = plus(e, first, str(lanes))
        rest = e.value(f"sub i64 {plus(e, self.count, streams)}, {end}")
        whole = e.value(f"sdiv i64 {at_least(e, rest, '0')}, {streams}")
        ragged = e.value(f"icmp sgt i64 {end}, {streams}")
        whole = e.value(f"select i1 {ragged}, i64 0, i64 {whole}")
        up = e.value(f"sub i64 {plus(e, self.count, streams)}, {plus(e, first, '1')}")
        steps = e.value(f"sdiv i64 {at_least(e, up, '0')}, {streams}")
        x = e.loop(0, whole, 1, lambda k, x: self._draw(first, k, x, None), [(vector, t) for t in x])
        if lanes > 1:
            x = e.loop(whole, steps, 1, lambda k, x: self._draw(first, k, x, own), [(vector, t) for t in x])
        for k, t in enumerate(x):
            self._put(vector, t, self._pointers(1, first, k), own)

    def _draw(self, first: str, k: str, x: list[str], own: str | None) -> list[str]:
        """The k-th number of each stream, and the states after it; of those that are `own` and still have one, if given."""
        e, w, lanes, dtype = self.e, self.w, self.lanes, self.dtype
        at = plus(e, times(e, k, self.streams), first)
        following, drawn = self.s.step(x)
        value = self.s.number(drawn, dtype)
        here = e.gep(w.pointers[2], times(e, at, self.stride), scalar.memory_elem(dtype))
        mask = None
        if own is not None:
            left = splat(e, self.wide, e.value(f"sub i64 {self.count}, {at}"))
            there = e.value(f"icmp slt {self.wide} {iota(lanes)}, {left}")
            mask = e.value(f"and {self.mask_type} {own}, {there}")
        if self.stride == "1" or lanes == 1:
            scalar.store(e, w.target, dtype, lanes, value, here, mask)
        else:
            spread = e.value(f"mul {self.wide} {iota(lanes)}, {splat(e, self.wide, self.stride)}")
            to = e.value(f"getelementptr {scalar.memory_elem(dtype)}, ptr {here}, {self.wide} {spread}")
            self._put(self.s.v.like(dtype).type, value, to, mask or self.mask_type.const(True))
        if mask is None:
            return following
        return [
            e.value(f"select {self.mask_type} {mask}, {self.vector} {new}, {self.vector} {old}")
            for new, old in zip(following, x)
        ]

    def _pointers(self, i: int, first: str, word: int) -> str:
        """Of word `word` of the streams from `first` on."""
        e, w, t = self.e, self.w, self.w.types[i]
        base = e.gep(w.pointers[i], times(e, str(word), w.size(t.strides[1])), "i32")
        numbers = e.value(f"add {self.wide} {splat(e, self.wide, first)}, {iota(self.lanes)}")
        at = e.value(f"mul {self.wide} {numbers}, {splat(e, self.wide, w.size(t.strides[0]))}")
        return e.value(f"getelementptr i32, ptr {base}, {self.wide} {at}")

    def _get(self, at: str, mask: str) -> str:
        if self.lanes == 1:  # a unit is one stream, which is there
            return self.e.value(f"load i32, ptr {at}")
        name = f"llvm.masked.gather.{self.vector.suffix}.v{self.lanes}p0"
        masked = (self.mask_type, mask), (self.vector, "zeroinitializer")
        return self.e.call(self.vector, name, (self.pointers_type, at), ("i32", "4"), *masked)

    def _put(self, t: VecType, value: str, to: str, mask: str) -> None:
        if self.lanes == 1:
            self.e.line(f"store {t} {value}, ptr {to}")
            return
        name = f"llvm.masked.scatter.{t.suffix}.v{self.lanes}p0"
        places = (self.pointers_type, to), ("i32", str(t.bytes)), (self.mask_type, mask)
        self.e.call("void", name, (t, value), *places)
