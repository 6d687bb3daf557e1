"""Copies of A and B for widening products (widening.py): a step's numbers of a column of B lie beside each other."""

from __future__ import annotations

import functools

from tcc.codegen.emit import Emit, VecType
from tcc.codegen.gather import Places
from tcc.codegen.kernel import plus, times
from tcc.codegen.products.microkernel import lane_mask, load, store
from tcc.codegen.products.pack import transposed
from tcc.codegen.products.widening_tiles import Form, multiply_add
from tcc.codegen.target import Target


def copy_b(w: Places, target: Target, f: Form, source: str, to: str, kc: str, count: str) -> None:
    """A vector of B's columns, of which there are `count`: for each step the numbers of its rows beside each other."""
    e, lanes, b = w.e, f.wide.lanes, w.types[1]
    down, across = (w.size(s) for s in b.strides[-2:])
    words = VecType("i32", lanes)
    whole = e.value(f"and i64 {kc}, {-f.step}")

    def one_by_one(first: str, last: str) -> None:
        def column(j: str, _: list[str]) -> None:
            def number(k: str, _: list[str]) -> None:
                place = e.gep(source, plus(e, times(e, k, down), times(e, j, across)), f.narrow)
                one = e.value(f"load {f.narrow}, ptr {place}")
                step, inside = e.value(f"sdiv i64 {k}, {f.step}"), e.value(f"srem i64 {k}, {f.step}")
                line = e.gep(to, times(e, step, str(f.row)))
                e.line(
                    f"store {f.narrow} {one}, ptr {e.gep(line, plus(e, times(e, j, str(f.step)), inside), f.narrow)}"
                )

            e.loop(first, last, 1, number)

        e.loop(0, count, 1, column)

    def by_words(first: str) -> None:
        def column(j: str, _: list[str]) -> None:
            start = e.gep(to, times(e, e.value(f"sdiv i64 {first}, {f.step}"), str(f.row)))
            start = e.gep(start, times(e, j, "4"))

            def word(k: str, v: list[str]) -> list[str]:
                place = e.gep(e.gep(source, times(e, j, across), f.narrow), k, f.narrow)
                one = e.value(f"load i32, ptr {place}, align {4 // f.step}")
                e.line(f"store i32 {one}, ptr {v[0]}")
                return [e.gep(v[0], f.row)]

            e.loop(first, whole, f.step, word, [("ptr", start)])

        e.loop(0, count, 1, column)

    def by_squares() -> None:
        """Whole vectors along k of all columns, turned in registers."""
        side = lanes * f.step
        squares = e.value(f"and i64 {kc}, {-side}")
        full = e.value(f"icmp eq i64 {count}, {lanes}")
        done = e.value(f"select i1 {full}, i64 {squares}, i64 0")
        columns = [e.gep(source, times(e, str(j), across), f.narrow) for j in range(lanes)]

        def square(k: str, v: list[str]) -> list[str]:
            there = v[0]
            for vector in transposed(e, words, [load(e, words, e.gep(c, k, f.narrow)) for c in columns]):
                store(e, words, vector, there)
                there = e.gep(there, f.row)
            return [there]

        e.loop(0, done, side, square, [("ptr", to)])
        by_words(done)

    def by_rows() -> None:
        some = VecType(f.narrow, lanes)
        mask = lane_mask(e, some, count) if target.avx512 else None

        def step(k: str, v: list[str]) -> list[str]:
            lines = [e.gep(source, times(e, plus(e, k, str(r)), down), f.narrow) for r in range(f.step)]
            rows, t = [load(e, some, line, mask) for line in lines], some
            while len(rows) > 1:
                pairs = [_interleave(e, t, *two) for two in zip(rows[::2], rows[1::2], strict=True)]
                whole = VecType(t.elem, 2 * lanes)
                t = VecType(f"i{16 * t.bytes}", lanes)
                rows = [e.value(f"bitcast {whole} {p} to {t}") for p in pairs]
            store(e, words, rows[0], v[0])
            return [e.gep(v[0], f.row)]

        e.loop(0, whole, f.step, step, [("ptr", to)])

    if b.strides[-1] == 1 and target.avx512:
        by_rows()
    elif b.strides[-1] == 1:
        full = e.value(f"icmp eq i64 {count}, {lanes}")
        e.when(full, by_rows)
        e.when(e.value(f"xor i1 {full}, true"), functools.partial(one_by_one, "0", whole))
    elif b.strides[-2] == 1 and target.avx512:
        by_squares()
    elif b.strides[-2] == 1:
        by_words("0")
    else:
        one_by_one("0", whole)
    padded = e.value(f"and i64 {plus(e, kc, str(f.padding - 1))}, {-f.padding}")

    def rest() -> None:
        def zeros(k: str, _: list[str]) -> None:
            line = e.gep(to, times(e, e.value(f"sdiv i64 {k}, {f.step}"), str(f.row)))
            store(e, words, words.const(0), line)

        e.loop(whole, padded, f.step, zeros)
        one_by_one(whole, kc)

    e.when(e.value(f"icmp slt i64 {whole}, {padded}"), rest)


def negative_sums(e: Emit, f: Form, panel: str, steps: str) -> str:
    """-128 times the sum of each column of the copy."""
    t = f.wide

    def step(_: str, v: list[str]) -> list[str]:
        ones = t.const(-(1 << 31) | 0x808080)
        return [e.gep(v[0], f.row), multiply_add(e, f, v[1], ones, load(e, t, v[0]))]

    total = e.loop(0, steps, 1, step, [("ptr", panel), (t, t.const(0))])[1]
    return e.value(f"sub {t} zeroinitializer, {total}")


def copy_a(w: Places, target: Target, f: Form, source: str, to: str, kc: str) -> None:
    """A row of A, whose signed bytes become unsigned if the form wants it; up to the padding, zeros follow its end or meet those of B."""
    e, a = w.e, w.types[0]
    along = w.size(a.strides[-1])

    def put(t: VecType, k: str, mask: str | None) -> str:
        value = load(e, t, e.gep(source, times(e, k, along), t.elem), mask)
        return e.value(f"xor {t} {value}, {t.const(-128)}") if f.signed else value

    t, one, first = target.vector(f.narrow), VecType(f.narrow), "0"
    if a.strides[-1] == 1 and target.avx512:

        def some(k: str, _: list[str]) -> None:
            value = put(t, k, lane_mask(e, t, e.value(f"sub i64 {kc}, {k}")))
            store(e, t, value, e.gep(to, k, t.elem))

        e.loop(0, kc, t.lanes, some)
        return
    if a.strides[-1] == 1:
        first = e.value(f"and i64 {kc}, {-t.lanes}")
        e.loop(0, first, t.lanes, lambda k, _: store(e, t, put(t, k, None), e.gep(to, k, t.elem)))
    elif target.avx512:
        store(e, t, t.const(0), e.gep(to, e.value(f"and i64 {kc}, {-t.lanes}"), t.elem))
    e.loop(first, kc, 1, lambda k, _: store(e, one, put(one, k, None), e.gep(to, k, one.elem)))


def _interleave(e: Emit, t: VecType, a: str, b: str) -> str:
    """The lanes of both in turn."""
    order = ", ".join(f"i32 {i + side * t.lanes}" for i in range(t.lanes) for side in (0, 1))
    return e.value(f"shufflevector {t} {a}, {t} {b}, <{2 * t.lanes} x i32> <{order}>")
