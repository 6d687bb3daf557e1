"""Kernels that do nothing but multiply and add, on registers: what a GPU can do at best."""

from __future__ import annotations

from tcc.codegen.emit import Emit, VecType
from tcc.codegen.gpu import hopper, hopper_ops
from tcc.codegen.gpu.kernel import GpuKernel, finish, global_thread
from tcc.codegen.gpu.ops import mma_result
from tcc.codegen.kernel import Operand, Slots
from tcc.codegen.scalar import elem
from tcc.ir import dims
from tcc.ir.types import HALVES

BLOCK = 256
CHAINS = 8  # of a thread, independent of each other
ROUNDS = dims.name("rounds")


def peak_kernel(dtype: str, specific: bool = False) -> tuple[GpuKernel, int]:
    """A kernel over (memory of eight bytes a thread, rounds), and the operations of a thread in one round.

    float32 and float64 go through FMA; products of halves through the warp's matrix instruction or, on sm_90a (`specific`), the
    warpgroup's, whose operands are whatever lies in shared memory.
    """
    e, slots = Emit(), Slots()
    e.function("void @KERNEL_NAME(ptr %args)")
    memory, rounds = slots.pointer(e, Operand(0)), slots.size(e, ROUNDS)
    here, _ = global_thread(e, BLOCK)
    halves = dtype in HALVES
    make = _warpgroup if halves and specific else _matrix if halves else _single
    t, total, operations = make(e, dtype, here, rounds)
    e.line(f"store {t} {total}, ptr {e.gep(memory, here, 'i64')}")
    e.end()
    shared = hopper.LINE * (64 + hopper.WIDE.columns) if make is _warpgroup else 0
    return finish(e, "peak", slots.slots, (1, 1, 1), BLOCK, shared), operations


def _single(e: Emit, dtype: str, here: str, rounds: str) -> tuple[VecType, str, int]:
    t = VecType(elem(dtype))
    start = e.value(f"sitofp i64 {here} to {t}")
    factor = t.const(0.999)

    def one(_: str, sums: list[str]) -> list[str]:
        return [e.call(t, f"llvm.fma.{t.suffix}", (t, s), (t, factor), (t, start)) for s in sums]

    sums = e.loop(0, rounds, 1, one, [(t, t.const(i)) for i in range(CHAINS)])
    total = sums[0]
    for s in sums[1:]:
        total = e.value(f"fadd {t} {total}, {s}")
    return t, total, 2 * CHAINS


def _warpgroup(e: Emit, dtype: str, here: str, rounds: str) -> tuple[VecType, str, int]:
    t, width, chain = VecType("float"), hopper.WIDE.columns, 4
    made_type = hopper_ops.totals(width, "float")
    shared = e.call("ptr", "tcc.shared")
    a, b = (hopper.descriptor(e, e.gep(shared, start)) for start in (0, 64 * hopper.LINE))

    def taken(made: str) -> list[str]:
        return [e.value(f"extractvalue {made_type} {made}, {i}") for i in range(width // 2)]

    def one(_: str, sums: list[str]) -> list[str]:
        e.call("void", "tcc.products_fence")
        for _link in range(chain):
            given = [("float", s) for s in sums]
            sums = taken(e.call(made_type, f"tcc.wgmma.{dtype}.{width}.00", *given, ("i64", a), ("i64", b)))
        e.call("void", "tcc.products_begun")
        e.call("void", "tcc.products_left_1")
        return sums

    sums = e.loop(0, rounds, 1, one, [(t, t.const(0))] * (width // 2))
    e.call("void", "tcc.products_left_0")
    total, *rest = taken(e.call(made_type, f"tcc.settled.float.{width}", *(("float", s) for s in sums)))
    for s in rest:
        total = e.value(f"fadd float {total}, {s}")
    return t, total, chain * 2 * 64 * width * 16 // hopper.GROUP


def _matrix(e: Emit, dtype: str, here: str, rounds: str) -> tuple[VecType, str, int]:
    t, name, result = VecType("float"), f"tcc.mma.{dtype}", mma_result("float")
    word = e.value(f"trunc i64 {here} to i32")

    def one(_: str, sums: list[str]) -> list[str]:
        found: list[str] = []
        for i in range(CHAINS):
            c = [("float", s) for s in sums[4 * i : 4 * i + 4]]
            made = e.call(result, name, *[("i32", word)] * 6, *c)
            found += [e.value(f"extractvalue {result} {made}, {n}") for n in range(4)]
        return found

    sums = e.loop(0, rounds, 1, one, [(t, t.const(i)) for i in range(4 * CHAINS)])
    total = sums[0]
    for s in sums[1:]:
        total = e.value(f"fadd float {total}, {s}")
    return t, total, CHAINS * 2 * 16 * 8 * 16 // 32
