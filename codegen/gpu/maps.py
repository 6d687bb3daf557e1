"""Maps on a GPU: each thread makes some neighbours of the inner axis, with 16-byte accesses where all are aligned.

The program is the CPU's (tcc.codegen.program): axes that all accesses walk alike are merged, and the inner one is that along
which most memory is dense.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tcc.codegen import scalar
from tcc.codegen.emit import VecType
from tcc.codegen.gpu.chips import LANE
from tcc.codegen.gpu.kernel import BLOCK, GpuKernel, blocks_for, ceil_div, finish, global_thread
from tcc.codegen.index import plus, times
from tcc.codegen.lanes import from_memory, to_memory
from tcc.codegen.nest import Nest, Position
from tcc.codegen.program import Program
from tcc.ir import dims
from tcc.ir.dims import Size
from tcc.ir.types import itemsize

WIDE = 16  # bytes that a thread takes at once


class Runs(Nest):
    """Vectors are a thread's few neighbours, and lie at multiples of their size while `aligned`."""

    aligned = True

    def load(self, dtype: str, base: str, stride: Size, pos: Position) -> str:
        if pos.lanes == 1:
            return super().load(dtype, base, stride, pos)
        e, t = self.e, VecType(scalar.memory_elem(dtype), pos.lanes)
        if stride == 1:
            at = e.gep(base, pos.offset, t.elem)
            got = e.value(f"load {t}, ptr {at}, align {self.alignment(t)}")
            return from_memory(e, LANE, dtype, pos.lanes, got)
        whole = "poison"
        for lane in range(pos.lanes):
            at = e.gep(base, times(e, plus(e, pos.offset, str(lane)), self.size(stride)), t.elem)
            one = e.value(f"load {t.elem}, ptr {at}, align {t.bytes}")
            whole = e.value(f"insertelement {t} {whole}, {t.elem} {one}, i64 {lane}")
        return from_memory(e, LANE, dtype, pos.lanes, whole)

    def store(self, dtype: str, value: str, base: str, stride: Size, pos: Position) -> None:
        if pos.lanes == 1:
            super().store(dtype, value, base, stride, pos)
            return
        e, t = self.e, VecType(scalar.memory_elem(dtype), pos.lanes)
        stored = to_memory(e, LANE, dtype, pos.lanes, value)
        if stride == 1:
            e.line(f"store {t} {stored}, ptr {e.gep(base, pos.offset, t.elem)}, align {self.alignment(t)}")
            return
        for lane in range(pos.lanes):
            at = e.gep(base, times(e, plus(e, pos.offset, str(lane)), self.size(stride)), t.elem)
            one = e.value(f"extractelement {t} {stored}, i64 {lane}")
            e.line(f"store {t.elem} {one}, ptr {at}, align {t.bytes}")

    def alignment(self, t: VecType) -> int:
        return t.bytes * (t.lanes if self.aligned else 1)


class Threads(Runs):
    """A kernel being written over a program: the CPU's vocabulary, a thread for some neighbours."""

    def __init__(self, program: Program) -> None:
        super().__init__(program, LANE)
        self.lanes = 1

    def begin(self) -> None:
        self.e.function("void @KERNEL_NAME(ptr %args)")
        self.load_arguments()
        for node in self.program.nodes:  # used in branches that do not dominate each other
            if node.kind == "size":
                self.size(node.value)

    def map_at(self, outer: Sequence[str], pos: Position) -> None:
        """Every result of a map at a position.  It may lie where an operand lies: all is read before anything is written."""
        self.at_point(outer)
        memo: dict[object, str] = {}
        values = [self.vector(node, pos, memo) for node in self.program.results]  # type: ignore[arg-type]
        for access, value in zip(self.program.writes, values):
            stride = access.strides[self.inner]
            if pos.lanes > 1 and stride == 0:
                value = self.e.value(
                    f"extractelement {VecType(scalar.elem(access.dtype), pos.lanes)} {value}, i64 0"
                )
                self.store(access.dtype, value, self.bases[access.slot], 1, Position("0", 1))
                continue
            self.store(access.dtype, value, self.bases[access.slot], stride, pos)


def map_kernel(program: Program) -> GpuKernel:
    """A program without reductions."""
    return _Map(program).kernel()


class _Map(Threads):
    """Where every row of every operand is aligned, runs of `each` elements first, a run to a thread; then what is left of the
    rows, or else all of them, an element to a thread, so that a warp's accesses are neighbours either way."""

    def __init__(self, program: Program) -> None:
        super().__init__(program)
        moved = [a for a in [*program.reads, *program.writes] if a.varies(self.inner)]
        self.dense = [a for a in moved if a.strides[self.inner] == 1]
        self.length = program.sizes[self.inner]
        widest = max((itemsize(a.dtype) for a in moved), default=WIDE)
        self.each = max(1, WIDE // widest) if len(self.dense) == len(moved) else 1
        if isinstance(self.length, int) and self.length < self.each or self.never_aligned():
            self.each = 1

    def never_aligned(self) -> bool:
        """Whether the known sizes say that some rows begin off the runs."""
        return any(
            isinstance(stride, int) and stride % self.each and self.program.sizes[axis] != 1
            for a in self.dense
            for axis, stride in enumerate(a.strides[: self.inner])
        )

    def kernel(self) -> GpuKernel:
        e, each = self.e, self.each
        self.begin()
        axes = list(range(self.inner))
        n, rows = self.size(self.length), self.count(axes)
        first, step = global_thread(e, BLOCK)
        runs = "0"
        if each > 1:
            whole = e.value(f"sdiv i64 {n}, {each}")
            runs = e.value(f"select i1 {self.aligned_rows()}, i64 {whole}, i64 0")
            self.lanes = each
            self.over(
                axes,
                times(e, rows, runs),
                runs,
                first,
                step,
                lambda k: Position(times(e, k, str(each)), each),
            )
            self.lanes = 1
        done = times(e, runs, str(each))
        rest = n if done == "0" else e.value(f"sub i64 {n}, {done}")
        self.over(axes, times(e, rows, rest), rest, first, step, lambda k: Position(plus(e, done, k), 1))
        e.end()
        threads = dims.mul(*(self.program.sizes[a] for a in axes), ceil_div(self.length, each))
        return finish(e, "map", self.slots.slots, blocks_for(threads))

    def over(
        self,
        axes: list[int],
        count: str,
        each_row: str,
        first: str,
        step: str,
        position: Callable[[str], Position],
    ) -> None:
        """The map at `count` positions, of which a row has `each_row`, dealt to the threads."""
        e = self.e

        def unit(u: str, _: list[str]) -> None:
            outer: list[str] = []
            k = u
            if axes:
                k = e.value(f"urem i64 {u}, {each_row}")
                outer = self.unravel(e.value(f"udiv i64 {u}, {each_row}"), axes)
            self.map_at(outer, position(k))

        e.loop(first, count, step, unit)

    def aligned_rows(self) -> str:
        """Whether the rows of all that is read and written begin at multiples of the runs' bytes."""
        e, good = self.e, "true"
        for a in self.dense:
            elem = scalar.memory_elem(a.dtype)
            bytes = VecType(elem).bytes
            joined = e.value(f"ptrtoint ptr {self.pointers[a.slot]} to i64")
            for axis, stride in enumerate(a.strides[: self.inner]):
                if self.program.sizes[axis] != 1 and not isinstance(stride, int):
                    joined = e.value(f"or i64 {joined}, {times(e, self.size(stride), str(bytes))}")
            odd = e.value(f"and i64 {joined}, {self.each * bytes - 1}")
            even = e.value(f"icmp eq i64 {odd}, 0")
            good = even if good == "true" else e.value(f"and i1 {good}, {even}")
        return good
