"""Stores past the caches, for maps whose results do not fit them.

An ordinary store of a line that is not in the cache reads it first; a streaming store does not.  Three kinds of results
are better stored as usual: those that a cache still holds when they are read, those that lie where an operand lies, and
outputs, whose pages the system clears, in the nearest cache, at the first store.
"""

from __future__ import annotations

from collections.abc import Sequence

from tcc.codegen import scalar
from tcc.codegen.emit import Emit, VecType
from tcc.codegen.program import Access, Program
from tcc.codegen.target import Target
from tcc.ir.types import itemsize

BEYOND = 16  # second-level caches: what a program can count on of the last level, at most
MARK = "!9000"  # the metadata's number: a module has no others that high


def streamable(program: Program, target: Target, lanes: int) -> bool:
    """Whether a map along one axis may be worth the text of a second loop: its results are whole registers wide, and it
    is long, or of unknown length and soon computed."""
    n, writes = program.sizes[-1], program.writes
    if program.fresh or "x86" not in target.triple or target.vector_bits < 256 or lanes == 1:
        return False
    sizes = {itemsize(w.dtype) for w in writes}
    if any(w.strides[-1] != 1 or w.reduce for w in writes) or len(sizes) != 1:
        return False
    (bytes,) = sizes
    if 8 * bytes * lanes != target.vector_bits:
        return False
    return n * bytes >= limit(target) if isinstance(n, int) else program.flops <= 12


def limit(target: Target) -> int:
    """Bytes of a result from which on it streams."""
    return BEYOND * target.l2_bytes


def lead(e: Emit, pointers: Sequence[str], elements: int, lanes: int) -> str:
    """How many elements of the places lie in front of the first whole register of the first of them."""
    at = e.value(f"ptrtoint ptr {pointers[0]} to i64")
    left = e.value(f"and i64 {e.value(f'sub i64 0, {at}')}, {elements * lanes - 1}")
    return e.value(f"udiv i64 {left}, {elements}")


def pays(
    e: Emit,
    n: str,
    lead: str,
    bytes: int,
    lanes: int,
    target: Target,
    reads: Sequence[str],
    writes: Sequence[str],
) -> str:
    """An i1: results of `n` elements of `bytes` exceed the caches, behind `lead` elements all are aligned to registers,
    and none lies where an operand begins."""
    large = e.value(f"icmp sge i64 {n}, {-(-limit(target) // bytes)}")
    for write in writes:
        first = e.value(f"ptrtoint ptr {e.gep(write, lead, f'i{8 * bytes}')} to i64")
        aligned = e.value(f"icmp eq i64 {e.value(f'and i64 {first}, {bytes * lanes - 1}')}, 0")
        large = e.value(f"and i1 {large}, {aligned}")
        for read in reads:
            large = e.value(f"and i1 {large}, {e.value(f'icmp ne ptr {read}, {write}')}")
    return large


def stream(e: Emit, target: Target, access: Access, value: str, base: str, at: str, lanes: int) -> None:
    """Stores whole registers of neighbours from element `at` on, which is aligned to registers."""
    t = VecType(scalar.memory_elem(access.dtype), lanes)
    stored = scalar.to_memory(e, target, access.dtype, lanes, value)
    e.declare(f"{MARK} = !{{i32 1}}")
    pointer = e.gep(base, at, t.elem)
    e.line(
        f"store {t} {stored}, ptr {pointer}, align {min(t.bytes * lanes, target.vector_bits // 8)}, !nontemporal {MARK}"
    )


def fence(e: Emit) -> None:
    """Streaming stores are in order before whatever another thread is told."""
    e.line("fence seq_cst")
