"""sort, argsort and argtopk along one axis: radix sorts, and quicksorts of vectors where the CPU has instructions for them."""

from __future__ import annotations

from tcc.codegen.index import Index, at_most, known
from tcc.codegen.kernel import Kernel
from tcc.codegen.quicklines import HalvedLines, QuickLines
from tcc.codegen.radix import FEW, GROUP, Areas, Lines
from tcc.codegen.target import Target
from tcc.ir.core import Op


def sort_kernel(op: Op, target: Target) -> Kernel:
    """`sort` and `argsort`."""
    w = Lines(op, target, positions=op.name == "argsort")
    if target.avx2 and w.bits in (32, 64):
        lines = HalvedLines if w.width > 64 else QuickLines
        return lines(op, target, positions=w.positions).quick_kernel()

    def line(places: list[str], areas: Areas) -> None:
        n = w.size(w.length)
        w.build(places, areas.first, n)
        w.write(places, w.sorted(areas, areas.first, areas.second, n), n)

    return w.kernel(line)


def topk_kernel(op: Op, target: Target) -> Kernel:
    """`argtopk`: the positions of the k largest (or smallest), the first of them first."""
    w = Lines(op, target, positions=True, largest=bool(op.attrs["largest"]))
    e, k = w.e, w.types[1].shape[w.axis]

    def bounded(places: list[str], areas: Areas) -> None:
        n, found = w.size(w.length), w.below(places, areas, k)
        w.write(places, w.sorted(areas, areas.first, areas.second, found), at_most(e, n, w.size(k)))

    def selected(places: list[str], areas: Areas) -> None:
        n = w.size(w.length)
        count = at_most(e, n, w.size(k))
        w.build(places, areas.first, n)
        e.line(
            f"call void @KERNEL_NAME.select(ptr {areas.first}, ptr {areas.second}, ptr {areas.counts}, "
            f"i64 {n}, i64 {count})"
        )
        # what was selected is in the second area, and the first is free
        w.write(places, w.sorted(areas, areas.second, areas.first, count), count)

    def either(places: list[str], areas: Areas) -> None:
        index, n, wanted = Index(e), w.size(w.length), w.size(k)
        few = known(
            index.both(index.less(0, wanted), index.less(index.mul(2 * GROUP, wanted), index.add(n, 1)))
        )
        if isinstance(few, int):
            (bounded if few else selected)(places, areas)
            return
        e.when(e.value(f"icmp ne i64 {few}, 0"), lambda: bounded(places, areas))
        e.when(e.value(f"icmp eq i64 {few}, 0"), lambda: selected(places, areas))

    if isinstance(k, int) and 0 < k <= FEW:
        return w.kernel(bounded)
    w.selects = True
    return w.kernel(either, [k])
