"""What a function's body calls: its kernels, with their arguments and scratch, and functions in Python."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from tcc.codegen.body import Body, purpose_of
from tcc.codegen.kernel import Kernel, Operand, OpId, Runtime, Scratch
from tcc.codegen.loops import KERNELS
from tcc.codegen.placed import is_kernel, kernel_key, late_sizes, reference
from tcc.codegen.support import DECLARATIONS
from tcc.codegen.target import Target
from tcc.ir import dims
from tcc.ir.core import Block, Func, Op
from tcc.ir.dims import Size
from tcc.passes.writes import on_host
from tcc.runtime.arenas import Claim
from tcc.runtime.host import HostArray, HostCall
from tcc.runtime.layout import CTX_SCRATCH, CTX_SCRATCH_BYTES, CTX_THREADS

ALIGN = 64


class Calls(Body):
    """Each kernel is given to `begin` as soon as it is written; `clock`, if not 0, is the address of the records of timed calls."""

    entry_names: frozenset[str]  # the sizes that the arguments tell

    def __init__(self, func: Func, target: Target, clock: int, begin: Callable[[Kernel], None]) -> None:
        super().__init__(func)
        self.target, self.clock, self.begin = target, clock, begin
        self.timed: list[Op] = []
        self.kernels: dict[str, Kernel] = {}
        self.kernel_of: dict[Op, Kernel] = {}
        self.ops: dict[int, Op] = {}
        self.host_calls: list[HostCall] = []
        self.scratch: Size = 0
        self.thread_scratch: Size = 0
        self.max_slots = 8  # the sizes of an output
        self.slots: dict[int, str] = {}

    def slot(self, index: int) -> str:
        """Where calls find an argument: worked out once for all of them, which are most of the text."""
        return self.slots.setdefault(index, f"%arg{index}") if index else "%args"

    def collect_kernels(self, body: Block) -> None:
        written: dict[Hashable, Kernel] = {}  # layers of one shape are written once
        for op in body.walk():
            if op.name not in KERNELS or on_host(op) or not is_kernel(op):
                continue
            key = kernel_key(op), op.parent  # slots may name the index of the loop around
            if key not in written:
                written[key] = KERNELS[op.name](op, self.target)
            kernel = self.kernel_of[op] = written[key]
            if kernel.name not in self.kernels:
                self.kernels[kernel.name] = kernel
                self.begin(kernel)
            self.max_slots = max(self.max_slots, len(kernel.slots))
            scratch: Size = 0
            for slot in kernel.slots:
                if isinstance(slot, Scratch) and self.at_entry(slot.bytes):
                    scratch = dims.add(scratch, _aligned(slot.bytes))
                    self.entry_claims.append(Claim(purpose_of(op, op.places), slot.bytes))
            self.scratch = dims.maximum(self.scratch, scratch)
            if self.at_entry(kernel.thread_scratch):
                self.thread_scratch = dims.maximum(self.thread_scratch, kernel.thread_scratch)
        for op in body.walk():
            if on_host(op):
                slots = len(op.operands) + sum(v.type.rank for v in op.operands) + 2 * len(late_sizes(op))
                self.max_slots = max(self.max_slots, slots)

    def kernel_call(self, op: Op) -> None:
        e, kernel = self.e, self.kernel_of[op]
        at: Size = self.func.attrs.get("arena", 0)
        for i, slot in enumerate(kernel.slots):
            place = self.slot(i)
            if isinstance(slot, Operand):
                e.line(f"store ptr {self.pointers[op.operands[slot.index]]}, ptr {place}")
            elif isinstance(slot, Runtime):
                e.line(f"store i64 {self.size(slot.size)}, ptr {place}")
            elif isinstance(slot, OpId):
                e.line(f"store i64 {self.op_id(op)}, ptr {place}")
            elif self.at_entry(slot.bytes):
                e.line(f"store ptr {e.gep(self.arena, self.size(at))}, ptr {place}")
                at = dims.add(at, _aligned(slot.bytes))
            else:
                e.line(f"store ptr {self.late_alloc(slot.bytes, [purpose_of(op, op.places)])}, ptr {place}")
        if self.at_entry(kernel.thread_scratch):
            status = e.value(f"call i32 @{kernel.name}(ptr {self.ctx}, ptr %args)")
        else:
            status = self.call_with_scratch(op, kernel)
        if op.defn.fails:
            self.leave_unless_ok(status)

    def timed_call(self, op: Op) -> None:
        """A call between two looks at the processor's clock."""
        e, (least, count) = self.e, self.record(op)
        before = e.call("i64", "llvm.readcyclecounter")
        self.kernel_call(op)
        spent = e.value(f"sub i64 {e.call('i64', 'llvm.readcyclecounter')}, {before}")
        before = e.value(f"load i64, ptr {least}")
        e.line(f"store i64 {e.call('i64', 'llvm.umin.i64', ('i64', before), ('i64', spent))}, ptr {least}")
        calls = e.value(f"load i64, ptr {count}")
        e.line(f"store i64 {e.value(f'add i64 {calls}, 1')}, ptr {count}")

    def record(self, op: Op) -> tuple[str, str]:
        """The addresses of an op's pair behind the clock."""
        pair = self.clock + 16 * len(self.timed)
        self.timed.append(op)
        first, second = (self.e.value(f"inttoptr i64 {address} to ptr") for address in (pair, pair + 8))
        return first, second

    def at_entry(self, size: Size) -> bool:
        """Whether the arguments alone tell it."""
        return dims.names_of(size) <= self.entry_names

    def call_with_scratch(self, op: Op, kernel: Kernel) -> str:
        """A call whose threads need scratch of a size that is known only now."""
        e = self.e
        each = self.bytes(_aligned(kernel.thread_scratch))
        threads = e.value(f"load i64, ptr {e.gep(self.ctx, CTX_THREADS, 'i64')}")
        base_at, each_at = e.gep(self.ctx, CTX_SCRATCH, "i64"), e.gep(self.ctx, CTX_SCRATCH_BYTES, "i64")
        base, before = e.value(f"load ptr, ptr {base_at}"), e.value(f"load i64, ptr {each_at}")
        e.line(
            f"store ptr {self.late_bytes(e.value(f'mul i64 {threads}, {each}'), [purpose_of(op, op.places)])}, ptr {base_at}"
        )
        e.line(f"store i64 {each}, ptr {each_at}")
        status = e.value(f"call i32 @{kernel.name}(ptr {self.ctx}, ptr %args)")
        e.line(f"store ptr {base}, ptr {base_at}")
        e.line(f"store i64 {before}, ptr {each_at}")
        return status

    def op_id(self, op: Op) -> int:
        for number, known in self.ops.items():
            if known is op:
                return number
        number = len(self.ops) + 1
        self.ops[number] = op
        return number

    def host_call(self, op: Op) -> None:
        """Sizes among the attributes are handed over as further operands, which lie behind all other slots."""
        e = self.e
        late = late_sizes(op)
        at = len(op.operands) + len(late)
        behind = at + sum(v.type.rank for v in op.operands)
        for i, name in enumerate(late):
            e.line(f"store i64 {self.size(op.attrs[name])}, ptr {self.slot(behind + i)}")
        held = [self.slot(behind + i) for i in range(len(late))]
        addresses = [*(self.pointers[v] for v in op.reads), *held, *(self.pointers[v] for v in op.places)]
        for i, address in enumerate(addresses):
            e.line(f"store ptr {address}, ptr {self.slot(i)}")
        for v in op.operands:
            for s in v.type.shape:
                e.line(f"store i64 {self.size(s)}, ptr {self.slot(at)}")
                at += 1
        where = f" ({op.loc})" if op.loc else ""
        self.host_calls.append(
            HostCall(
                f"{op.attrs.get('name', op.name)}{where}",
                op.attrs["function"] if op.name == "call" else reference(op),
                (
                    *(HostArray(v.type.dtype, v.type.rank) for v in op.reads),
                    *(HostArray("i64", 0) for _ in late),
                ),
                tuple(HostArray(v.type.dtype, v.type.rank) for v in op.places),
            )
        )
        e.declare(DECLARATIONS["tcc_host_call"])
        index = len(self.host_calls) - 1
        self.leave_unless_ok(e.value(f"call i32 @tcc_host_call(ptr {self.ctx}, ptr %args, i64 {index})"))


def _aligned(bytes: Size) -> Size:
    return (bytes + (ALIGN - 1)) // ALIGN * ALIGN
