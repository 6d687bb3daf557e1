"""Products of bytes into int32: register tiles of the instruction that adds four products of bytes to each int32.

It multiplies unsigned by signed bytes and wraps, so that the sums are exact.  Signed rows of A become unsigned by 128 more,
and each column's sum starts from -128 times the sum of B's column.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from tcc.codegen.emit import Emit, VecType
from tcc.codegen.gather import Places
from tcc.codegen.kernel import Kernel, finish, plus, times
from tcc.codegen.products.integer import ceil_div, integer_product_kernel, pieces
from tcc.codegen.products.microkernel import lane_mask, load, splat, store
from tcc.codegen.target import Target
from tcc.ir.core import Op
from tcc.runtime import layout as at

_KC = 1024  # of k in a block: a panel of B, two vectors wide, stays in the first-level cache
_VECTORS = 2
_PANELS = 4  # that are copied at a time, so that a copy of A's rows serves them all
_TILES = 20  # rows of tiles of a unit of work: they pay for its copy of B
_STEP = 4  # products that the instruction adds up
_FEW_ROWS = 4  # do not pay for a copy of B
_A_ROW = _KC + 64  # bytes of a copied row, which do not fall on the cache sets of the next


def byte_product_kernel(op: Op, target: Target) -> Kernel:
    """A placed `matmul_bytes a, b, result`; a unit of work is a block of rows by `_PANELS` panels of columns."""
    c = op.operands[-1].type
    few = isinstance(c.shape[-2], int) and c.shape[-2] <= _FEW_ROWS
    if few or not target.byte_products or c.strides[-1] != 1:
        return integer_product_kernel(op, target)
    product = _Product(op, target)
    product.write()
    return finish(product.e, tuple(product.w.slots.slots), "matmul_bytes", product.scratch)


class _Product:
    def __init__(self, op: Op, target: Target) -> None:
        self.w = Places(op, target)
        self.e, self.target = self.w.e, target
        self.a, self.b, self.c = self.w.types[0], self.w.types[1], self.w.types[-1]
        self.t = target.vector("i32")
        self.signed = self.a.dtype == "i8"
        self.width = _VECTORS * self.t.lanes
        self.row = self.width * _STEP  # bytes of a panel for each step of k
        self.panel = self.row * _KC // _STEP
        self.heights = (12, 4, 1) if target.avx512 else (4, 1)
        self.high, self.wide = self.heights[0] * _TILES, self.width * _PANELS
        self.sums = (
            _PANELS * self.panel
        )  # where in the scratch what the columns start from lies, and A's rows
        self.rows = self.sums + self.wide * self.t.bytes
        self.scratch = self.rows + self.heights[0] * _A_ROW

    def write(self) -> None:
        w, e = self.w, self.e
        *batch, m, n = self.c.shape
        for height in self.heights:
            self._tile(height)
        w.begin_body()
        base = e.value(f"load ptr, ptr {e.gep('%ctx', at.CTX_SCRATCH, 'i64')}")
        each = e.value(f"load i64, ptr {e.gep('%ctx', at.CTX_SCRATCH_BYTES, 'i64')}")
        scratch = e.gep(base, times(e, "%thread", each))
        across, down = ceil_div(e, w.size(n), self.wide), ceil_div(e, w.size(m), self.high)

        def unit(u: str, _: list[str]) -> None:
            left = times(e, e.value(f"urem i64 {u}, {across}"), str(self.wide))
            v = e.value(f"udiv i64 {u}, {across}")
            top = times(e, e.value(f"urem i64 {v}, {down}"), str(self.high))
            self._unit(w.unravel(e.value(f"udiv i64 {v}, {down}"), batch), top, left, scratch)

        e.loop("%begin", "%end", 1, unit)
        e.end()
        w.begin_kernel()
        across, down = ceil_div(e, w.size(n), self.wide), ceil_div(e, w.size(m), self.high)
        points = times(e, self._least(w.size(m), self.high), self._least(w.size(n), self.wide))
        steps = times(e, ceil_div(e, w.size(self.a.shape[-1]), _STEP), str(8))
        cost = e.value(f"sdiv i64 {times(e, points, steps)}, {self.t.lanes}")
        w.parallel(times(e, w.count(batch), times(e, across, down)), cost)
        e.end("i32 0")

    def _least(self, a: str, b: int | str) -> str:
        return self.e.call("i64", "llvm.smin.i64", ("i64", a), ("i64", str(b)))

    def _unit(self, batch: Sequence[str], top: str, left: str, scratch: str) -> None:
        w, e = self.w, self.e
        m, n, k = (w.size(s) for s in (*self.c.shape[-2:], self.a.shape[-1]))
        end = self._least(plus(e, top, str(self.high)), m)
        cols = self._least(e.value(f"sub i64 {n}, {left}"), self.wide)
        sums, rows = e.gep(scratch, self.sums), e.gep(scratch, self.rows)

        def depth(k0: str, _: list[str]) -> None:
            kc = self._least(e.value(f"sub i64 {k}, {k0}"), _KC)
            steps = ceil_div(e, kc, _STEP)

            def copy(j: str, _: list[str]) -> None:
                inside = e.value(f"srem i64 {j}, {self.width}")
                panel = times(e, e.value(f"sdiv i64 {j}, {self.width}"), str(self.panel))
                to = e.gep(e.gep(scratch, panel), times(e, inside, str(_STEP)))
                source = w.address(1, [*batch, k0, plus(e, left, j)])
                count = self._least(e.value(f"sub i64 {cols}, {j}"), self.t.lanes)
                self._copy_b(source, to, kc, count)
                start = self._column_sums(to, steps) if self.signed else self.t.const(0)
                store(e, self.t, start, e.gep(sums, j, "i32"))

            e.loop(0, cols, self.t.lanes, copy)

            def tiles(i: str, height: int) -> None:
                for r in range(height):
                    line = w.address(0, [*batch, plus(e, i, str(r)), k0])
                    self._copy_a(line, e.gep(rows, r * _A_ROW), kc)

                def tile(j: str, _: list[str]) -> None:
                    panel = times(e, e.value(f"sdiv i64 {j}, {self.width}"), str(self.panel))
                    args = (
                        f"ptr {rows}, ptr {e.gep(scratch, panel)}, ptr {e.gep(sums, j, 'i32')}, "
                        f"ptr {w.address(len(w.types) - 1, [*batch, i, plus(e, left, j)])}, "
                        f"i64 {times(e, w.size(self.c.strides[-2]), str(self.t.bytes))}, i64 {steps}, "
                        f"i64 {e.value(f'sub i64 {cols}, {j}')}, i64 {k0}"
                    )
                    e.line(f"call void @KERNEL_NAME.tile{height}({args})")

                e.loop(0, cols, self.width, tile)

            pieces(e, top, end, self.heights, tiles)

        # k = 0 still writes zeros: at least one round
        e.loop(0, e.call("i64", "llvm.smax.i64", ("i64", k), ("i64", "1")), _KC, depth)

    def _copy_b(self, source: str, to: str, kc: str, count: str) -> None:
        """A vector of B's columns, of which there are `count`: for each step the bytes of its rows beside each other."""
        w, e, lanes = self.w, self.e, self.t.lanes
        down, across = (w.size(s) for s in self.b.strides[-2:])
        whole = e.value(f"and i64 {kc}, {-_STEP}")

        def one_by_one(first: str, last: str) -> None:
            def column(j: str, _: list[str]) -> None:
                def byte(k: str, _: list[str]) -> None:
                    one = e.value(
                        f"load i8, ptr {e.gep(source, plus(e, times(e, k, down), times(e, j, across)))}"
                    )
                    step, inside = e.value(f"sdiv i64 {k}, {_STEP}"), e.value(f"srem i64 {k}, {_STEP}")
                    place = plus(e, times(e, step, str(self.row)), plus(e, times(e, j, str(_STEP)), inside))
                    e.line(f"store i8 {one}, ptr {e.gep(to, place)}")

                e.loop(first, last, 1, byte)

            e.loop(0, count, 1, column)

        def by_words() -> None:
            def column(j: str, _: list[str]) -> None:
                def word(k: str, v: list[str]) -> list[str]:
                    one = e.value(f"load i32, ptr {e.gep(e.gep(source, times(e, j, across)), k)}, align 1")
                    e.line(f"store i32 {one}, ptr {v[0]}")
                    return [e.gep(v[0], self.row)]

                e.loop(0, whole, _STEP, word, [("ptr", e.gep(to, times(e, j, str(_STEP))))])

            e.loop(0, count, 1, column)

        def by_rows() -> None:
            some = VecType("i8", lanes)
            mask = lane_mask(e, some, count) if self.target.avx512 else None

            def step(k: str, v: list[str]) -> list[str]:
                lines = [e.gep(source, times(e, plus(e, k, str(r)), down)) for r in range(_STEP)]
                a, b, c, d = (load(e, some, line, mask) for line in lines)
                pairs = [_interleave(e, some, *two) for two in ((a, b), (c, d))]
                wide, paired = VecType("i8", 2 * lanes), VecType("i16", lanes)
                halves = [e.value(f"bitcast {wide} {p} to {paired}") for p in pairs]
                store(e, VecType("i16", 2 * lanes), _interleave(e, paired, *halves), v[0])
                return [e.gep(v[0], self.row)]

            e.loop(0, whole, _STEP, step, [("ptr", to)])

        if self.b.strides[-1] == 1 and self.target.avx512:
            by_rows()
        elif self.b.strides[-1] == 1:
            full = e.value(f"icmp eq i64 {count}, {lanes}")
            e.when(full, by_rows)
            e.when(e.value(f"xor i1 {full}, true"), functools.partial(one_by_one, "0", whole))
        elif self.b.strides[-2] == 1:
            by_words()
        else:
            one_by_one("0", whole)

        def rest() -> None:
            store(
                e,
                self.t,
                self.t.const(0),
                e.gep(to, times(e, e.value(f"sdiv i64 {whole}, {_STEP}"), str(self.row))),
            )
            one_by_one(whole, kc)

        e.when(e.value(f"icmp slt i64 {whole}, {kc}"), rest)

    def _column_sums(self, panel: str, steps: str) -> str:
        """-128 times the sum of each column of the copy."""
        e, t = self.e, self.t

        def step(_: str, v: list[str]) -> list[str]:
            return [e.gep(v[0], self.row), self._add(v[1], t.const(-(1 << 31) | 0x808080), load(e, t, v[0]))]

        total = e.loop(0, steps, 1, step, [("ptr", panel), (t, t.const(0))])[1]
        return e.value(f"sub {t} zeroinitializer, {total}")

    def _copy_a(self, source: str, to: str, kc: str) -> None:
        """A row of A as unsigned bytes; what follows its end meets zeros of B."""
        w, e = self.w, self.e
        along = w.size(self.a.strides[-1])

        def put(t: VecType, k: str, mask: str | None) -> None:
            value = load(e, t, e.gep(source, times(e, k, along)), mask)
            if self.signed:
                value = e.value(f"xor {t} {value}, {t.const(-128)}")
            store(e, t, value, e.gep(to, k), mask)

        first = "0"
        if self.a.strides[-1] == 1:
            t = self.target.vector("i8")
            if self.target.avx512:
                e.loop(0, kc, t.lanes, lambda k, _: put(t, k, lane_mask(e, t, e.value(f"sub i64 {kc}, {k}"))))
                return
            first = e.value(f"and i64 {kc}, {-t.lanes}")
            e.loop(0, first, t.lanes, lambda k, _: put(t, k, None))
        e.loop(first, kc, 1, lambda k, _: put(VecType("i8", 1), k, None))

    def _tile(self, height: int) -> None:
        """`void tile(a, b, sums, c, crs, steps, cols, resume)`: C[height, cols] from copies of A and B."""
        e, t = self.e, self.t
        e.function(
            f"internal void @KERNEL_NAME.tile{height}(ptr noalias readonly %a, ptr noalias readonly %b, "
            "ptr noalias readonly %sums, ptr noalias %c, i64 %crs, i64 %steps, i64 %cols, i64 %resume)"
        )
        lines = ["%c"]
        for _ in range(1, height):
            lines.append(e.gep(lines[-1], "%crs"))
        masks = []
        for v in range(_VECTORS):
            left = e.value(f"sub i64 %cols, {v * t.lanes}")
            masks.append(lane_mask(e, t, e.call("i64", "llvm.smax.i64", ("i64", left), ("i64", "0"))))
        places = [(e.gep(line, v * t.lanes, "i32"), masks[v]) for line in lines for v in range(_VECTORS)]
        resumes = e.value("icmp ne i64 %resume, 0")
        old, start, entry = e.label(), e.label(), e.current
        e.branch_if(resumes, old, start)
        e.at(old)
        values = [load(e, t, p, m) for p, m in places]
        e.branch(start)
        e.at(start)
        first = [e.value(f"phi {t} [zeroinitializer, %{entry}], [{x}, %{old}]") for x in values]
        sums = [load(e, t, e.gep("%sums", v * t.lanes, "i32"), masks[v]) for v in range(_VECTORS)]
        first = [e.value(f"add {t} {x}, {sums[i % _VECTORS]}") for i, x in enumerate(first)]

        def step(_: str, v: list[str]) -> list[str]:
            a, b, *acc = v
            columns = [load(e, t, e.gep(b, j * t.lanes, "i32")) for j in range(_VECTORS)]
            for r in range(height):
                four = splat(e, t, e.value(f"load i32, ptr {e.gep(a, r * _A_ROW)}, align 4"))
                for j, column in enumerate(columns):
                    acc[r * _VECTORS + j] = self._add(acc[r * _VECTORS + j], four, column)
            return [e.gep(a, _STEP), e.gep(b, self.row), *acc]

        carried: list[tuple[VecType | str, str]] = [("ptr", "%a"), ("ptr", "%b"), *((t, x) for x in first)]
        done = e.loop(0, "%steps", 1, step, carried)[2:]
        for (place, mask), value in zip(places, done, strict=True):
            store(e, t, value, place, mask)
        e.end()

    def _add(self, acc: str, a: str, b: str) -> str:
        """acc + the products of the unsigned bytes of a and the signed ones of b, four to a lane."""
        t = self.t
        return self.e.call(t, f"llvm.x86.avx512.vpdpbusd.{32 * t.lanes}", (t, acc), (t, a), (t, b))


def _interleave(e: Emit, t: VecType, a: str, b: str) -> str:
    """The lanes of both in turn."""
    order = ", ".join(f"i32 {i + side * t.lanes}" for i in range(t.lanes) for side in (0, 1))
    return e.value(f"shufflevector {t} {a}, {t} {b}, <{2 * t.lanes} x i32> <{order}>")
