"""Copies of A and B for widening products (widening.py): a step's numbers of a column of B lie beside each other."""

from __future__ import annotations

import functools

from tcc.codegen.emit import Emit, VecType
from tcc.codegen.gather import Places
from tcc.codegen.index import plus, times
from tcc.codegen.products.pack import transposed
from tcc.codegen.products.widening_tiles import Form, multiply_add
from tcc.codegen.target import Target
from tcc.codegen.vectors import fetch, lane_mask, load, splat, store

_AHEAD = 8  # steps whose rows are fetched ahead


def columns_by_rows(target: Target, f: Form) -> int:
    """How many columns `copy_rows_of_b` copies at a time."""
    return target.vector(f.narrow).lanes


def copy_rows_of_b(w: Places, target: Target, f: Form, source: str, panels: str, kc: str, count: str) -> None:
    """`count` columns of B, contiguous in its rows, as panels: rows by whole vectors, which AVX-512 masks at the end; without
    it, only whole ones are copied."""
    e, t = w.e, VecType(f.stored, columns_by_rows(target, f))
    down, words = w.size(w.types[1].strides[-2]), VecType("i32", f.wide.lanes)
    whole = e.value(f"and i64 {kc}, {-f.step}")

    if not target.avx512:
        count = e.value(f"and i64 {count}, {-t.lanes}")

    def strips(k: str, exist: list[str] | None) -> None:
        """A step of all columns; `exist` tells which of its rows there are."""
        lines = [e.gep(source, times(e, plus(e, k, str(r)), down), f.stored) for r in range(f.step)]
        ahead = e.value(f"mul i64 {down}, {_AHEAD * f.step}")
        step = times(e, e.value(f"sdiv i64 {k}, {f.step}"), str(f.row))

        def strip(j: str, _: list[str]) -> None:
            mask, rows = None, []
            if target.avx512:
                mask = lane_mask(e, t, e.value(f"sub i64 {count}, {j}"))
            for r, line in enumerate(lines):
                place = e.gep(line, j, f.stored)
                if exist is None:
                    fetch(e, e.gep(place, ahead, f.stored), 0)
                    rows.append(load(e, t, place, mask))
                elif mask is not None:
                    there = e.value(f"and {t.of('i1')} {mask}, {splat(e, t.of('i1'), exist[r])}")
                    rows.append(load(e, t, place, there))
                else:  # the first row is there
                    first = e.gep(lines[0], j, f.stored)
                    row = load(e, t, e.value(f"select i1 {exist[r]}, ptr {place}, ptr {first}"))
                    rows.append(e.value(f"select i1 {exist[r]}, {t} {row}, {t} zeroinitializer"))
            turned = _beside(e, f, rows, t.lanes)
            panel = times(e, e.value(f"sdiv i64 {j}, {f.width}"), str(f.panel_bytes))
            to = e.gep(panels, plus(e, panel, step))
            for v in range(f.step):  # of the vector's columns; a panel is two vectors wide
                lanes = ", ".join(f"i32 {v * words.lanes + i}" for i in range(words.lanes))
                both = VecType("i32", t.lanes)
                part = e.value(
                    f"shufflevector {both} {turned}, {both} poison, <{words.lanes} x i32> <{lanes}>"
                )
                store(e, words, part, e.gep(to, v // 2 * f.panel_bytes + v % 2 * words.lanes * 4))

        e.loop(0, count, t.lanes, strip)

    e.loop(0, whole, f.step, lambda k, _: strips(k, None))
    padded = e.value(f"and i64 {plus(e, kc, str(f.padding - 1))}, {-f.padding}")

    def rest(k: str, _: list[str]) -> None:
        there = [e.value(f"icmp slt i64 {plus(e, k, str(r))}, {kc}") for r in range(f.step)]
        strips(k, there)

    e.loop(whole, padded, f.step, rest)


def copy_b(w: Places, target: Target, f: Form, source: str, to: str, kc: str, count: str) -> None:
    """A vector of B's columns, of which there are `count`: for each step the numbers of its rows beside each other."""
    e, lanes, b = w.e, f.wide.lanes, w.types[1]
    down, across = (w.size(s) for s in b.strides[-2:])
    words = VecType("i32", lanes)
    whole = e.value(f"and i64 {kc}, {-f.step}")

    def one_by_one(first: str, last: str) -> None:
        def column(j: str, _: list[str]) -> None:
            def number(k: str, _: list[str]) -> None:
                place = e.gep(source, plus(e, times(e, k, down), times(e, j, across)), f.stored)
                one = f.narrowed(e, VecType(f.stored), e.value(f"load {f.stored}, ptr {place}"))
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
                place = e.gep(e.gep(source, times(e, j, across), f.stored), k, f.stored)
                few = VecType(f.stored, f.step)
                store(e, few.of(f.narrow), f.narrowed(e, few, load(e, few, place)), v[0])
                return [e.gep(v[0], f.row)]

            e.loop(first, whole, f.step, word, [("ptr", start)])

        e.loop(0, count, 1, column)

    def by_squares() -> None:
        """Whole vectors along k of all columns, turned in registers."""
        side = lanes * f.step
        squares = e.value(f"and i64 {kc}, {-side}")
        full = e.value(f"icmp eq i64 {count}, {lanes}")
        done = e.value(f"select i1 {full}, i64 {squares}, i64 0")
        columns = [e.gep(source, times(e, str(j), across), f.stored) for j in range(lanes)]
        some = VecType(f.stored, side)

        def square(k: str, v: list[str]) -> list[str]:
            there, rows = v[0], []
            for c in columns:
                numbers = f.narrowed(e, some, load(e, some, e.gep(c, k, f.stored)))
                rows.append(e.value(f"bitcast {some.of(f.narrow)} {numbers} to {words}"))
            for vector in transposed(e, words, rows):
                store(e, words, vector, there)
                there = e.gep(there, f.row)
            return [there]

        e.loop(0, done, side, square, [("ptr", to)])
        by_words(done)

    def by_rows() -> None:
        some = VecType(f.stored, lanes)

        def step(k: str, v: list[str]) -> list[str]:
            lines = [e.gep(source, times(e, plus(e, k, str(r)), down), f.stored) for r in range(f.step)]
            store(e, words, _beside(e, f, [load(e, some, line) for line in lines], lanes), v[0])
            return [e.gep(v[0], f.row)]

        e.loop(0, whole, f.step, step, [("ptr", to)])

    if b.strides[-1] == 1:
        full = e.value(f"icmp eq i64 {count}, {lanes}")
        e.when(full, by_rows)
        e.when(e.value(f"xor i1 {full}, true"), functools.partial(one_by_one, "0", whole))
    elif b.strides[-2] == 1:
        by_squares()
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
        some = t.of(f.stored)
        value = load(e, some, e.gep(source, times(e, k, along), f.stored), mask)
        value = f.narrowed(e, some, value, of_a=True)
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


def _beside(e: Emit, f: Form, rows: list[str], lanes: int) -> str:
    """The numbers of each column beside each other: of `step` rows of so many columns, a vector with 32 bits for a column."""
    t = VecType(f.stored, lanes)
    while len(rows) > 1:
        pairs = [_interleave(e, t, *two) for two in zip(rows[::2], rows[1::2], strict=True)]
        whole = VecType(t.elem, 2 * lanes)
        t = VecType(f"i{16 * t.bytes}", lanes)
        rows = [e.value(f"bitcast {whole} {p} to {t}") for p in pairs]
    if not f.pairs:
        return rows[0]
    some, words = VecType(f.stored, f.step * lanes), VecType("i32", lanes)
    numbers = f.narrowed(e, some, e.value(f"bitcast {t} {rows[0]} to {some}"))
    return e.value(f"bitcast {some.of(f.narrow)} {numbers} to {words}")


def _interleave(e: Emit, t: VecType, a: str, b: str) -> str:
    """The lanes of both in turn."""
    order = ", ".join(f"i32 {i + side * t.lanes}" for i in range(t.lanes) for side in (0, 1))
    return e.value(f"shufflevector {t} {a}, {t} {b}, <{2 * t.lanes} x i32> <{order}>")
