"""The general form of a kernel: the CPU's, with vectors of one lane, whose units of parallel work are dealt to threads.

Unit u goes to thread u of the grid, then to the next round, so neighbouring threads take neighbouring units: columns, lines and points
that lie beside each other in memory are read together.  A kernel without parallel work is one thread's.
"""

from __future__ import annotations

import re

from tcc.codegen.emit import Emit
from tcc.codegen.gpu.kernel import GpuKernel, GpuSlot, blocks_for, finish, global_thread
from tcc.codegen.kernel import Kernel, Runtime, Scratch
from tcc.ir import dims
from tcc.ir.dims import Size

BLOCK = 64
MOST_LINES = 1 << 13  # threads that have scratch memory of their own
SCRATCH, SCRATCH_BYTES, FIRST, STEP = 2, 3, 6, 7  # words of what a CPU kernel calls its context

_PARALLEL = re.compile(r"call void @tcc_parallel\(ptr %ctx, ptr @([\w.]+), ptr (%\w+), i64 (\S+), i64 \S+\)")


def general_kernel(kernel: Kernel, units: Size) -> GpuKernel:
    """A CPU kernel that calls `tcc_parallel` at most once, last, for at most `units` units; `units` = 0 of a serial one."""
    bodies = _PARALLEL.findall(kernel.text)
    assert len(bodies) <= 1, f"{kernel.name} has several phases"
    text = kernel.text.replace(" noinline optnone", "")
    text = _PARALLEL.sub(lambda m: f"call void @KERNEL_NAME.deal(ptr %ctx, ptr {m[2]}, i64 {m[3]})", text)
    text = text.replace(f"define i32 @{kernel.name}(", "define internal i32 @KERNEL_NAME.head(")
    text = text.replace(f"@{kernel.name}", "@KERNEL_NAME")
    slots: list[GpuSlot] = list(kernel.slots)
    e = Emit()
    if bodies:
        _deal(e, bodies[0][0].replace(kernel.name, "KERNEL_NAME"))
    grid = blocks_for(units, BLOCK) if bodies else (1, 1, 1)
    threads = dims.minimum(units, MOST_LINES)
    if kernel.thread_scratch != 0:
        grid = blocks_for(threads, BLOCK)
    e.function("void @KERNEL_NAME(ptr %args)")
    context = e.value("alloca [8 x i64], align 16")

    def keep(word: int, value: str, t: str = "i64") -> None:
        e.line(f"store {t} {value}, ptr {e.gep(context, word, 'i64')}")

    first, step = global_thread(e, BLOCK)
    if kernel.thread_scratch != 0:
        each = dims.mul(dims.floordiv(dims.add(kernel.thread_scratch, 63), 64), 64)
        at = len(slots)
        slots += [Scratch(dims.mul(threads, each)), Runtime(each)]
        keep(SCRATCH, e.value(f"load ptr, ptr {e.gep('%args', at, 'i64')}"), "ptr")
        keep(SCRATCH_BYTES, e.value(f"load i64, ptr {e.gep('%args', at + 1, 'i64')}"))
    keep(FIRST, first)
    keep(STEP, step)

    def run() -> None:
        e.value(f"call i32 @KERNEL_NAME.head(ptr {context}, ptr %args)")

    if bodies:
        run()
    else:
        e.when(e.value(f"icmp eq i64 {first}, 0"), run)
    e.end()
    declares = [d for d in sorted(kernel.declares) if not (d.startswith("declare ") and "@tcc_" in d)]
    return finish(e, kernel.name.split("_")[1], slots, grid, BLOCK, more=[*declares, text])


def _deal(e: Emit, body: str) -> None:
    e.function("internal void @KERNEL_NAME.deal(ptr %ctx, ptr %args, i64 %units)")
    first = e.value(f"load i64, ptr {e.gep('%ctx', FIRST, 'i64')}")
    step = e.value(f"load i64, ptr {e.gep('%ctx', STEP, 'i64')}")

    def one(unit: str, _: list[str]) -> None:
        after = e.value(f"add i64 {unit}, 1")
        e.line(f"call void @{body}(ptr %ctx, ptr %args, i64 {unit}, i64 {after}, i64 {first})")

    e.loop(first, "%units", step, one)
    e.end()
