"""How a product leaves the registers: through the op's block to the result, or, where k is cut into parts, as the total of a part.

Neighbours of a row that a thread has go out in one access where the result lies dense and aligned, so that a warp fills whole sectors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tcc.codegen import scalar
from tcc.codegen.emit import VecType
from tcc.codegen.epilogue import emit_block
from tcc.codegen.gather import Places
from tcc.codegen.gpu.chips import LANE
from tcc.codegen.gpu.kernel import ceil_div
from tcc.codegen.gpu.maps import WIDE
from tcc.codegen.index import plus, times
from tcc.codegen.kernel import Scratch
from tcc.ir import dims
from tcc.ir.core import Op, Value
from tcc.ir.dims import Size
from tcc.ir.types import HALVES, TOTALS, Type

LEAST_STRETCH = 512  # of k, where it is cut
ENOUGH_TILES = 128  # that keep a device busy


class Results(Places):
    """C[z, i, j] of a kernel that has its totals, or of one part of k."""

    m: Size
    n: Size
    k: Size
    batch: Size
    part: str  # number batch * stretches + stretch, while a kernel makes one
    partial_area: str

    def __init__(self, op: Op) -> None:
        super().__init__(op, LANE)
        self.dtype = op.block.params[0].type.dtype if op.blocks else self.types[-1].dtype  # of the product
        # halves are added up in float32
        self.sum_dtype = TOTALS[self.dtype] if self.dtype in HALVES else self.dtype
        self.t = VecType(scalar.elem(self.sum_dtype))
        self.cell = VecType(scalar.memory_elem(self.sum_dtype))  # in shared memory, and of a part's total
        self.out = len(self.types) - 1
        self.aligned_results: dict[int, str] = {}  # by the neighbours of an access, whether they lie aligned

    def place(self, i: str, j: str) -> list[str]:
        """The result's indices of C[i, j]."""
        raise NotImplementedError

    def result_steps(self) -> list[Size] | None:
        """Elements from the beginnings of rows of C to those of others, in the result; None if rows do not lie dense."""
        raise NotImplementedError

    def in_columns(self, j: str) -> str:
        """Whether the result has column j of C, which has more if some are padding (an i1)."""
        return self.e.value(f"icmp slt i64 {j}, {self.size(self.n)}")

    # -- parts of k --------------------------------------------------------------------------------------------------

    @property
    def stretches(self) -> Size:
        """Into how many parts k is cut, by sizes alone: some where there are few tiles, so that all of a device has work."""
        if isinstance(self.k, int) and self.k < 2 * LEAST_STRETCH:
            return 1
        tiles = dims.mul(ceil_div(self.m, 64), ceil_div(self.n, 64), self.batch)
        share = dims.floordiv(ENOUGH_TILES, dims.maximum(tiles, 1))
        return dims.maximum(dims.minimum(dims.floordiv(self.k, LEAST_STRETCH), share), 1)

    @property
    def stretch(self) -> Size:
        """The length of a part."""
        return dims.mul(
            dims.floordiv(dims.add(self.k, dims.mul(self.stretches, 32), -1), dims.mul(self.stretches, 32)),
            32,
        )

    @property
    def partials(self) -> Scratch:
        """The parts' totals: batch, stretch, row, column."""
        several = dims.minimum(dims.add(self.stretches, -1), 1)
        return Scratch(dims.mul(several, self.stretches, self.batch, self.m, self.n, self.cell.bytes))

    def partial_at(self, part: str, i: str, j: str) -> str:
        row = plus(self.e, times(self.e, part, self.size(self.m)), i)
        return self.e.gep(
            self.partial_area, plus(self.e, times(self.e, row, self.size(self.n)), j), self.cell.elem
        )

    # -- elements ----------------------------------------------------------------------------------------------------

    def begin_results(self, run: int) -> None:
        """Finds out, ahead of loops and branches, whether `run` neighbours may be written at once."""
        t = self.types[self.out]
        steps = self.result_steps() if self.stretches == 1 or not isinstance(self.stretches, int) else None
        each = self.together(run, scalar.memory_elem(t.dtype))
        if each > 1 and steps is not None and not any(isinstance(s, int) and s % each for s in steps):
            self.aligned_results[each] = self.lie_aligned(self.pointers[self.out], t.dtype, steps, each)

    def together(self, run: int, elem: str) -> int:
        """How many of `run` neighbours one access takes."""
        return min(run, max(1, WIDE // VecType(elem).bytes))

    def lie_aligned(self, base: str, dtype: str, steps: Sequence[Size], each: int) -> str:
        e, bytes = self.e, VecType(scalar.memory_elem(dtype)).bytes
        joined = e.value(f"ptrtoint ptr {base} to i64")
        for step in steps:
            if not isinstance(step, int):
                joined = e.value(f"or i64 {joined}, {times(e, self.size(step), str(bytes))}")
        return e.value(f"icmp eq i64 {e.value(f'and i64 {joined}, {each * bytes - 1}')}, 0")

    def finish_run(self, i: str, j: str, totals: Sequence[str]) -> None:
        """Writes C[i, j] and those right of it, as far as they are there, or their parts; j is a multiple of their number."""
        e, elem = self.e, scalar.memory_elem(self.types[self.out].dtype)
        each = self.together(len(totals), elem)
        if each not in self.aligned_results:
            for c, total in enumerate(totals):
                self.finish_inside(i, plus(e, j, str(c)), total)
            return

        def whole() -> None:
            last = plus(e, j, str(len(totals) - 1))
            quick = e.value(
                f"and i1 {e.value(f'icmp slt i64 {last}, {self.size(self.n)}')}, {self.aligned_results[each]}"
            )
            together, apart, after = e.label(), e.label(), e.label()
            e.branch_if(quick, together, apart)
            e.at(together)
            made = [self.made(self.place(i, plus(e, j, str(c))), total) for c, total in enumerate(totals)]
            for start in range(0, len(made), each):
                self.store_run(self.place(i, plus(e, j, str(start))), made[start : start + each])
            e.branch(after)
            e.at(apart)
            for c, total in enumerate(totals):
                self.finish_column(i, plus(e, j, str(c)), total)
            e.branch(after)
            e.at(after)

        self.in_row(i, whole, lambda: self.finish_parts(i, j, totals))

    def store_run(self, at: Sequence[str], values: Sequence[str]) -> None:
        """Neighbours from a place on by one access."""
        e, dtype = self.e, self.types[self.out].dtype
        t = VecType(scalar.memory_elem(dtype), len(values))
        packed = "poison"
        for lane, value in enumerate(values):
            one = scalar.to_memory(e, LANE, dtype, 1, value)
            packed = e.value(f"insertelement {t} {packed}, {t.elem} {one}, i64 {lane}")
        e.line(f"store {t} {packed}, ptr {self.address(self.out, at)}, align {t.bytes * t.lanes}")

    def in_row(self, i: str, whole: Callable[[], None], parts: Callable[[], None]) -> None:
        """What is done in a row that there is, if k is not cut, and if it is."""
        e = self.e

        def row() -> None:
            if self.stretches == 1:
                whole()
                return
            several = e.value(f"icmp sgt i64 {self.size(self.stretches)}, 1")
            e.when(several, parts)
            if not isinstance(self.stretches, int):
                e.when(e.value(f"xor i1 {several}, true"), whole)

        e.when(e.value(f"icmp slt i64 {i}, {self.size(self.m)}"), row)

    def finish_inside(self, i: str, j: str, total: str) -> None:
        """Writes C[i, j], if there is one, or its part."""
        self.in_row(i, lambda: self.finish_column(i, j, total), lambda: self.finish_parts(i, j, [total]))

    def finish_column(self, i: str, j: str, total: str) -> None:
        """Writes C[i, j] of a row that there is, if there is one."""
        e = self.e

        def finish() -> None:
            at = self.place(i, j)
            self.store(self.out, at, self.made(at, total))

        e.when(self.in_columns(j), finish)

    def finish_parts(self, i: str, j: str, totals: Sequence[str]) -> None:
        e = self.e
        for c, total in enumerate(totals):
            at = plus(e, j, str(c))
            place = self.partial_at(self.part, i, at)
            e.when(
                e.value(f"icmp slt i64 {at}, {self.size(self.n)}"),
                lambda place=place, total=total: scalar.store(e, LANE, self.sum_dtype, 1, total, place, None),  # type: ignore[misc]
            )

    def made(self, at: Sequence[str], total: str) -> str:
        """What the op's block makes of a total."""
        e, op = self.e, self.op
        if self.dtype in HALVES:
            total = scalar.emit_scalar(e, LANE, "cast(a)", {"a": ("f32", total)}, lanes=1, result=self.dtype)
        if op.attrs.get("accumulate"):
            operands = {"a": (self.dtype, self.load(self.out, at)), "b": (self.dtype, total)}
            body = "a | b" if self.dtype == "bool" else "a + b"
            total = scalar.emit_scalar(e, LANE, body, operands, lanes=1, result=self.dtype)
        if op.blocks:
            env: dict[Value, str] = {op.block.params[0]: total}
            for x, p in enumerate(op.block.params[1:]):
                where = [at[ord(letter) - ord("a")] for letter in op.attrs["maps"][x]]
                shape = self.types[2 + x].shape
                env[p] = self.load(2 + x, ["0" if s == 1 else w for w, s in zip(where, shape, strict=True)])
            total = emit_block(e, LANE, op.block, env, 1)
        return total


def dense_axes(t: Type, axes: Sequence[int]) -> bool:
    """Whether elements of neighbouring numbers, in row-major order along these axes, are neighbours."""
    step: Size = 1
    for a in reversed(axes):
        if t.shape[a] != 1 and t.strides[a] != step:
            return False
        step = dims.mul(step, t.shape[a])
    return True
