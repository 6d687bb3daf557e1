"""Products of narrow numbers into wide sums: bytes into int32, bfloat16 into float32, by the instructions for them.

Such an instruction multiplies the 32 bits of a row of A, four bytes or two bfloat16, by as many of each column of B, and adds
all products to the column's sum.  There is one for vectors of columns (x86's VNNI and AVX-512 BF16), and one for 16 rows by 16
columns by 64 bytes of k (AMX); widening_tiles.py has the tiles of both.  Older CPUs have one for two int16, which bytes become
in the copies.  B is copied so that a step's numbers of a column lie beside each other; A is copied where it does not lie as a
tile reads it.
"""

from __future__ import annotations

from collections.abc import Sequence

from tcc.codegen.gather import Places
from tcc.codegen.index import at_least, at_most, plus, times
from tcc.codegen.kernel import Kernel, finish
from tcc.codegen.products.integer import ceil_div, integer_product_kernel, pieces
from tcc.codegen.products.widening_copies import (
    columns_by_rows,
    copy_a,
    copy_b,
    copy_rows_of_b,
    negative_sums,
)
from tcc.codegen.products.widening_tiles import Form, form_of, matrix_tile, set_tiles, vector_tile
from tcc.codegen.target import Target
from tcc.codegen.vectors import store
from tcc.ir.core import Op
from tcc.runtime import layout as at

_FEW_ROWS = 4  # do not pay for a copy of B
_SAME_SETS = (
    2048  # rows so many bytes apart lie on so few sets that a block of them does not stay in the cache
)


def widening_product_kernel(op: Op, target: Target) -> Kernel:
    """A placed `matmul_widening a, b, result`; a unit of work is a block of rows by some panels of columns."""
    a, c = op.operands[0].type, op.operands[-1].type
    # the order of int32's terms does not change a bit, so that there a known size may choose another way
    few = c.dtype == "i32" and isinstance(c.shape[-2], int) and c.shape[-2] <= _FEW_ROWS
    form = form_of(target, a.dtype)
    if few or form is None or c.strides[-1] != 1:
        return integer_product_kernel(op, target)
    product = _Product(op, target, form)
    product.write()
    return finish(product.e, tuple(product.w.slots.slots), "matmul_widening", product.scratch)


class _Product:
    def __init__(self, op: Op, target: Target, form: Form) -> None:
        self.w, self.f = Places(op, target), form
        self.e, self.target = self.w.e, target
        self.a, self.b, self.c = self.w.types[0], self.w.types[1], self.w.types[-1]
        self.high, self.wide = form.block_rows, form.width * form.panels
        # what lies behind the panels in the scratch: where the columns' sums start, A's rows, a tile of sums
        self.sums = form.panels * form.panel_bytes
        self.rows = self.sums + self.wide * form.wide.bytes
        self.buffer = self.rows + form.heights[0] * form.a_row
        self.scratch = self.buffer + (form.heights[0] * form.width * form.wide.bytes if form.matrices else 0)

    def write(self) -> None:
        w, e, f = self.w, self.e, self.f
        *batch, m, n = self.c.shape
        for height in f.heights:
            if f.matrices:
                matrix_tile(e, f, height)
            else:
                vector_tile(e, f, height, self.target)
        w.begin_body()
        if f.matrices:
            set_tiles(e)
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
        if f.matrices:
            e.call("void", "llvm.x86.tilerelease")
        e.end()
        w.begin_kernel()
        across, down = ceil_div(e, w.size(n), self.wide), ceil_div(e, w.size(m), self.high)
        points = times(e, at_most(e, w.size(m), str(self.high)), at_most(e, w.size(n), str(self.wide)))
        steps = times(e, ceil_div(e, w.size(self.a.shape[-1]), f.step), "8")
        cost = e.value(f"sdiv i64 {times(e, points, steps)}, {f.products_at_once}")
        w.parallel(times(e, w.count(batch), times(e, across, down)), cost)
        e.end("i32 0")

    def _unit(self, batch: Sequence[str], top: str, left: str, scratch: str) -> None:
        w, e, f = self.w, self.e, self.f
        m, n, k = (w.size(s) for s in (*self.c.shape[-2:], self.a.shape[-1]))
        end = at_most(e, plus(e, top, str(self.high)), m)
        cols = at_most(e, e.value(f"sub i64 {n}, {left}"), str(self.wide))
        sums = e.gep(scratch, self.sums)

        def depth(k0: str, _: list[str]) -> None:
            kc = at_most(e, e.value(f"sub i64 {k}, {k0}"), str(f.depth))
            steps = ceil_div(e, kc, f.step)

            by_rows, apart = "0", columns_by_rows(self.target, f)  # columns that are copied along B's rows
            if self.b.strides[-1] == 1:
                place = w.address(1, [*batch, k0, left])
                copy_rows_of_b(w, self.target, f, place, scratch, kc, cols)
                by_rows = cols if self.target.avx512 else e.value(f"and i64 {cols}, {-apart}")

            def panel_of(j: str) -> str:
                inside = e.value(f"srem i64 {j}, {f.width}")
                panel = times(e, e.value(f"sdiv i64 {j}, {f.width}"), str(f.panel_bytes))
                return e.gep(e.gep(scratch, panel), times(e, inside, "4"))

            def copy(j: str, _: list[str]) -> None:
                to = panel_of(j)
                count = at_most(e, e.value(f"sub i64 {cols}, {j}"), str(f.wide.lanes))
                copy_b(w, self.target, f, w.address(1, [*batch, k0, plus(e, left, j)]), to, kc, count)

            def start(j: str, _: list[str]) -> None:
                store(e, f.wide, negative_sums(e, f, panel_of(j), steps), e.gep(sums, j, "i32"))

            if by_rows != cols:
                e.loop(by_rows, cols, f.wide.lanes, copy)
            if f.signed:
                e.loop(0, cols, f.wide.lanes, start)

            def tiles(i: str, height: int, there: str) -> None:
                lines, stride = self._lines(batch, i, k0, kc, height, there, e.gep(scratch, self.rows))

                def tile(j: str, _: list[str]) -> None:
                    panel = times(e, e.value(f"sdiv i64 {j}, {f.width}"), str(f.panel_bytes))
                    args = (
                        f"ptr {lines}, i64 {stride}, ptr {e.gep(scratch, panel)}, ptr {e.gep(sums, j, 'i32')}, "
                        f"ptr {w.address(len(w.types) - 1, [*batch, i, plus(e, left, j)])}, "
                        f"i64 {times(e, w.size(self.c.strides[-2]), str(f.wide.bytes))}, i64 {steps}, "
                        f"i64 {there}, i64 {e.value(f'sub i64 {cols}, {j}')}, i64 {k0}, ptr {e.gep(scratch, self.buffer)}"
                    )
                    e.line(f"call void @KERNEL_NAME.tile{height}({args})")

                e.loop(0, cols, f.width, tile)

            if not f.matrices:
                pieces(e, top, end, f.heights, lambda i, height: tiles(i, height, str(height)))
                return
            whole, half = f.heights

            def block(i: str, _: list[str]) -> None:
                there = at_most(e, e.value(f"sub i64 {end}, {i}"), str(whole))
                many = e.value(f"icmp sgt i64 {there}, {half}")
                e.when(many, lambda: tiles(i, whole, there))
                e.when(e.value(f"xor i1 {many}, true"), lambda: tiles(i, half, there))

            e.loop(top, end, whole, block)

        # k = 0 still writes zeros: at least one round
        e.loop(0, at_least(e, k, "1"), f.depth, depth)

    def _lines(
        self, batch: Sequence[str], i: str, k0: str, kc: str, height: int, there: str, rows: str
    ) -> tuple[str, str]:
        """Where a tile finds its rows of A, and the bytes from one to the next: in A itself, or in a copy."""
        w, e, f = self.w, self.e, self.f
        place = w.address(0, [*batch, i, k0])

        def copies(r: str, _: list[str]) -> None:
            line = w.address(0, [*batch, plus(e, i, r), k0])
            copy_a(w, self.target, f, line, e.gep(rows, times(e, r, str(f.a_row))), kc)

        if not f.matrices or self.a.strides[-1] != 1:
            e.loop(0, there, 1, copies)
            return rows, str(f.a_row)
        # whole rows of registers may be read in place, if they do not share a few sets of the first-level cache
        whole = e.value(f"icmp eq i64 {there}, {height}")
        deep = e.value(f"icmp eq i64 {e.value(f'and i64 {kc}, {f.row_numbers - 1}')}, 0")
        own = times(e, w.size(self.a.strides[-2]), str(4 // f.step))
        apart = e.value(f"icmp ne i64 {e.value(f'and i64 {own}, {_SAME_SETS - 1}')}, 0")
        fits = e.value(f"and i1 {apart}, {e.value(f'and i1 {whole}, {deep}')}")
        rest = e.value(f"select i1 {fits}, i64 0, i64 {there}")
        e.loop(0, rest, 1, copies)
        return (
            e.value(f"select i1 {fits}, ptr {place}, ptr {rows}"),
            e.value(f"select i1 {fits}, i64 {own}, i64 {f.a_row}"),
        )
