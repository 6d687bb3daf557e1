"""Maps on a GPU: each thread makes some neighbours of the inner axis, with 16-byte accesses where all are aligned.

The program is the CPU's (tcc.codegen.program): axes that all accesses walk alike are merged, and the inner one is that along
which most memory is dense.
"""

from __future__ import annotations

from collections.abc import Sequence

from tcc.codegen import scalar
from tcc.codegen.emit import VecType
from tcc.codegen.gpu.chips import LANE
from tcc.codegen.gpu.kernel import BLOCK, GpuKernel, blocks_for, ceil_div, finish, global_thread
from tcc.codegen.kernel import plus, times
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
    def __init__(self, program: Program) -> None:
        super().__init__(program)
        moved = [a for a in [*program.reads, *program.writes] if a.varies(self.inner)]
        self.dense = [a for a in moved if a.strides[self.inner] == 1]
        self.length = program.sizes[self.inner]
        widest = max((itemsize(a.dtype) for a in moved), default=WIDE)
        self.each = max(1, WIDE // widest) if self.dense else 1
        if isinstance(self.length, int) and self.length < self.each:
            self.each = 1

    def kernel(self) -> GpuKernel:
        e, each = self.e, self.each
        self.begin()
        axes = list(range(self.inner))
        n = self.size(self.length)
        pieces = e.value(f"sdiv i64 {plus(e, n, str(each - 1))}, {each}") if each > 1 else n
        count = times(e, self.count(axes), pieces)
        first, step = global_thread(e, BLOCK)

        def unit(u: str, _: list[str]) -> None:
            outer: list[str] = []
            piece = u
            if axes:
                piece = e.value(f"urem i64 {u}, {pieces}")
                outer = self.unravel(e.value(f"udiv i64 {u}, {pieces}"), axes)
            self.piece(outer, times(e, piece, str(each)), n)

        e.loop(first, count, step, unit)
        e.end()
        threads = dims.mul(*(self.program.sizes[a] for a in axes), ceil_div(self.length, each))
        return finish(e, "map", self.slots.slots, blocks_for(threads))

    def piece(self, outer: Sequence[str], start: str, n: str) -> None:
        """The elements of one thread: all at once if they are there and aligned, else one by one."""
        e, each = self.e, self.each
        if each == 1:
            self.map_at(outer, Position(start, 1))
            return
        end = plus(e, start, str(each))
        whole = e.value(f"icmp sle i64 {end}, {n}")
        self.at_point(outer)
        for bytes, slots in self.alignments().items():
            joined = "0"
            for slot, elem in slots:
                address = e.value(f"ptrtoint ptr {e.gep(self.bases[slot], start, elem)} to i64")
                joined = address if joined == "0" else e.value(f"or i64 {joined}, {address}")
            odd = e.value(f"and i64 {joined}, {bytes - 1}")
            whole = e.value(f"and i1 {whole}, {e.value(f'icmp eq i64 {odd}, 0')}")
        inside, single, after = e.label(), e.label(), e.label()
        e.branch_if(whole, inside, single)
        e.at(inside)
        self.lanes = each
        self.map_at(outer, Position(start, each))
        self.lanes = 1
        e.branch(after)
        e.at(single)
        stop = e.call("i64", "llvm.smin.i64", ("i64", end), ("i64", n))
        e.loop(start, stop, 1, lambda i, _: self.map_at(outer, Position(i, 1)))
        e.branch(after)
        e.at(after)

    def alignments(self) -> dict[int, list[tuple[int, str]]]:
        """The slots whose rows must lie at multiples of some bytes, and their elements."""
        found: dict[int, list[tuple[int, str]]] = {}
        for a in self.dense:
            t = VecType(scalar.memory_elem(a.dtype))
            if self.each * t.bytes > 1:
                found.setdefault(self.each * t.bytes, []).append((a.slot, t.elem))
        return found
