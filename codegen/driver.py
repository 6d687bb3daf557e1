"""The body of a compiled function: calls its kernels in order, with addresses and sizes worked out on the way.

`i32 @run(ptr %frame)` is made from a placed function.  Every address is a place's base plus a size expression, every loop
a native loop; `tcc_poll` lets Ctrl-C in between kernels until the first shared variable is written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tcc.codegen import scalar
from tcc.codegen.body import Body, purpose_of
from tcc.codegen.kernel import Kernel, Operand, OpId, Runtime, Scratch, quick_heads, wraps_text
from tcc.codegen.loops import KERNELS
from tcc.codegen.placed import (
    PRODUCTS,
    is_kernel,
    kernel_key,
    late_sizes,
    op_work,
    output_specs,
    reference,
    space_of,
    work,
    written_places,
)
from tcc.codegen.support import DECLARATIONS
from tcc.codegen.target import Target
from tcc.ir import dims
from tcc.ir.arrays import in_memory
from tcc.ir.core import Block, Func, Op, Value
from tcc.ir.dims import Size
from tcc.passes.panels import layouts
from tcc.passes.writes import on_host
from tcc.runtime.arenas import Claim
from tcc.runtime.buffers import aligned
from tcc.runtime.host import HostArray, HostCall
from tcc.runtime.layout import (
    CTX_LATE_USED,
    CTX_SCRATCH,
    CTX_SCRATCH_BYTES,
    CTX_THREADS,
    FRAME_ARENA,
    FRAME_CTX,
    STATUS_ERROR,
)
from tcc.runtime.panels import KeptSpec
from tcc.runtime.signature import InputSpec, Returns, SharedSpec, Signature

POLL_FLOPS = 1 << 22  # a kernel with more work than this is worth a look for Ctrl-C before it
ALIGN = 64


@dataclass
class Lowered:
    """A function as LLVM text, with all that is needed to run it."""

    name: str  # of its `run`
    text: str
    kernels: dict[str, Kernel]
    signature: Signature
    constants: list[np.ndarray[Any, Any]]  # read-only containers behind the function's own shared ones
    ops: dict[int, Op]  # op id -> the op that can fail with it
    host_calls: list[HostCall]
    claims: list[Claim]
    timed: list[Op]  # the ops that have records of a clock, in the order of these
    declares: dict[str, None] = field(default_factory=dict)

    @property
    def engines(self) -> dict[str, str]:
        """What its kernels share with those of other functions: names and dtypes."""
        return {name: dtype for k in self.kernels.values() for name, dtype in k.engines.items()}

    def forms(self) -> dict[str, frozenset[int]]:
        """Of its products, by the dtypes of their engines."""
        found: dict[str, frozenset[int]] = {}
        for kernel in self.kernels.values():
            for dtype in kernel.engines.values():
                assert kernel.reach is not None
                found[dtype] = found.get(dtype, frozenset()) | kernel.reach().forms
        return found

    def control_text(self) -> str:
        """`run`, with what it calls declared."""
        return "\n".join([*self.declares, self.text])


def is_kept(op: Op) -> bool:
    """Whether it makes panels only if those that are kept are not there."""
    return op.name == "panels" and len(op.reads) > 1


def kernels_text(kernels: Iterable[Kernel]) -> str:
    """Kernels and their helpers, with what they call declared."""
    kernels = list(kernels)
    declares = dict.fromkeys(d for k in kernels for d in sorted(k.declares))
    helpers = dict.fromkeys(text for k in kernels for text in k.helpers.values())
    return "\n".join([*declares, *(k.text for k in kernels), *helpers])


def lower(
    func: Func,
    target: Target,
    returns: Returns = "list",
    clock: int = 0,
    begin: Callable[[Kernel], None] = lambda kernel: None,
) -> Lowered:
    """A placed and planned function as text; each kernel is given to `begin` as soon as it is written.

    With a `clock`, the address of pairs of i64, each kernel call of the text keeps its least cycles and counts itself there,
    and each `bind` leaves its size.
    """
    return _Driver(func, target, returns, clock, begin).lower()


class _Driver(Body):
    def __init__(
        self, func: Func, target: Target, returns: Returns, clock: int, begin: Callable[[Kernel], None]
    ) -> None:
        super().__init__(func)
        self.target, self.returns, self.clock, self.begin = target, returns, clock, begin
        self.timed: list[Op] = []
        self.kernels: dict[str, Kernel] = {}
        self.ops: dict[int, Op] = {}
        self.constants: list[np.ndarray[Any, Any]] = []
        self.const_places: list[Value] = []
        self.host_calls: list[HostCall] = []
        self.scratch: Size = 0
        self.thread_scratch: Size = 0
        self.max_slots = 8  # the sizes of an output
        self.slots: dict[int, str] = {}
        self.written = False

    def lower(self) -> Lowered:
        by_space: dict[str, list[Value]] = {"input": [], "shared": [], "output": []}
        for p in self.func.body.params:
            assert p.type.place is not None
            by_space[p.type.place.space].append(p)
        for op in self.func.body.walk():
            if op.name == "const" and op.result.type.place is not None:
                self.const_places.append(op.result)
                self.constants.append(aligned(in_memory(op.attrs["value"], op.result.type.dtype)))
        own, kept, specs = self._kept(by_space["shared"])
        signature = self._signature(by_space["input"], own, specs)
        self.entry_names = frozenset(signature.frame.sizes)
        self.collect_kernels(self.func.body)
        text = self._body(signature, by_space["input"], [*own, *self.const_places, *kept], by_space["output"])
        name = "tcc_run_" + hashlib.sha256((text + ",".join(self.kernels)).encode()).hexdigest()[:20]
        arena = dims.add(self.func.attrs.get("arena", 0), self.scratch)
        if not isinstance(arena, int):
            arena = dims.add(arena, ALIGN)  # a function takes a block of its arena only if it has some bytes
        signature = replace(
            signature,
            arena=arena,
            scratch=self.thread_scratch,
            work=work(self.func),
            late=DECLARATIONS["tcc_late_alloc"] in self.e.declared,
        )
        for call in self.kernels:
            self.e.declare(f"declare i32 @{call}(ptr, ptr)")
        self.claims += self.known_claims()
        return Lowered(
            name,
            quick_heads(text).replace("RUN_NAME", name),
            self.kernels,
            signature,
            self.constants,
            self.ops,
            self.host_calls,
            self.claims,
            self.timed,
            self.e.declared,
        )

    def _kept(self, shared: list[Value]) -> tuple[list[Value], list[Value], list[KeptSpec]]:
        """The shared variables, those of them that are panels of others, and what these are."""
        if not any(op.attrs.get("kept") or is_kept(op) for op in self.func.body.walk()):
            return shared, [], []
        described = {layout.name: layout for layout in layouts(self.func)}
        own = [p for p in shared if p.name not in described]
        kept = [p for p in shared if p.name in described]
        names, specs = [p.name for p in own], list[KeptSpec]()
        for p in kept:
            layout, width = described[p.name], p.type.shape[-1]
            assert isinstance(width, int)
            specs.append(KeptSpec(names.index(layout.source), layout, width))
        return own, kept, specs

    def _signature(self, given: list[Value], own: list[Value], kept: list[KeptSpec]) -> Signature:
        """What callers see, without what only the text tells: memory and work."""
        written = written_places(self.func)
        shared = [SharedSpec(p.type.dtype, p.type.shape, p in written, p.name) for p in own]
        shared += [
            SharedSpec(v.type.dtype, v.type.shape, name="a constant", constant=True)
            for v in self.const_places
        ]
        inputs = tuple(InputSpec(p.type.dtype, p.type.shape, name=p.name) for p in given)
        outputs = output_specs(self.func, [p.name for p in own])
        return Signature(inputs, tuple(shared), outputs, self.returns, kept=tuple(kept))

    def _body(
        self, signature: Signature, given: list[Value], containers: list[Value], results: list[Value]
    ) -> str:
        """The text of `run`, which finds in its frame what the signature says."""
        e, frame = self.e, signature.frame
        e.function("i32 @RUN_NAME(ptr %frame)")
        e.line(f"%args = alloca [{self.max_slots} x i64], align 16")
        first = len(e.lines)
        self.ctx = self.load(FRAME_CTX)
        self.arena = self.load(FRAME_ARENA)
        for i, p in enumerate(given):
            self.pointers[p] = self.load(frame.input(i))
        for i, p in enumerate(containers):
            self.pointers[p] = self.load(frame.container(i))
        early = [i for i, spec in enumerate(signature.outputs) if not spec.late]
        for i, p in zip(early, results, strict=True):
            self.pointers[p] = self.load(frame.output(i))
        for name in frame.sizes:
            self.names[name] = self.load(frame.size(name), "i64")
        self.block(self.func.body)
        e.lines[first:first] = [
            f"  {name} = getelementptr inbounds i64, ptr %args, i64 {index}"
            for index, name in sorted(self.slots.items())
        ]
        e.end("i32 0")
        return e.text()

    def slot(self, index: int) -> str:
        """Where calls find an argument: worked out once for all of them, which are most of the text."""
        return self.slots.setdefault(index, f"%arg{index}") if index else "%args"

    def load(self, slot: int, t: str = "ptr") -> str:
        return self.e.value(f"load {t}, ptr {self.e.gep('%frame', slot, 'i64')}")

    # -- kernels --------------------------------------------------------------------------------------------------

    def collect_kernels(self, body: Block) -> None:
        self.kernel_of: dict[Op, Kernel] = {}
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

    # -- ops ------------------------------------------------------------------------------------------------------

    def block(self, block: Block) -> None:
        for op in block.ops:
            handler: Callable[[Op], None] | None = {
                "alloc": self.alloc,
                "view": self.view,
                "for": self.loop,
                "ifelse": self.branches,
                "bind": self.name_size,
                "check_size": self.check_size,
                "const": lambda op: None,
                "yield": lambda op: None,
            }.get(op.name)
            if on_host(op):
                handler = self.host_call
            if handler is None:
                if op not in self.kernel_of:
                    raise AssertionError(f"op {op.name} has no kernel for the CPU")
                self.poll(op)
                self.written = self.written or any(space_of(v) == "shared" for v in op.places)
                handler = self.timed_call if self.clock else self.kernel_call
            handler(op)
            if is_kept(op):
                self.read_instead(op.operands[1], op.places[0])

    def read_instead(self, kept: Value, place: Value) -> None:
        """What `panels` would have made is where it is kept, if it is: those that read the place read that."""
        there = self.e.value(f"icmp ne ptr {self.pointers[kept]}, null")
        pointers = f"ptr {self.pointers[kept]}, ptr {self.pointers[place]}"
        self.pointers[place] = self.e.value(f"select i1 {there}, {pointers}")

    def poll(self, op: Op) -> None:
        """Lets Ctrl-C in before a long kernel, as long as no shared variable has been written."""
        cost = op_work(op)
        if (
            self.written
            or (isinstance(cost, int) and cost < POLL_FLOPS // 16)
            or not self.depth
            and op.name not in PRODUCTS
        ):
            return
        self.call_poll()

    def call_poll(self) -> None:
        self.e.declare(DECLARATIONS["tcc_poll"])
        self.leave_unless_ok(self.e.value(f"call i32 @tcc_poll(ptr {self.ctx})"))

    def view(self, op: Op) -> None:
        offset = self.size(op.attrs["offset"])
        elem = scalar.memory_elem(op.result.type.dtype)
        self.pointers[op.result] = self.e.gep(self.pointers[op.operands[0]], offset, elem)

    def loop(self, op: Op) -> None:
        e = self.e

        def body(index: str, _: list[str]) -> None:
            self.names[str(op.attrs["index"])] = index
            self.depth += 1
            if not self.written and not any(
                space_of(v) == "shared" for o in op.block.walk() for v in o.places
            ):
                self.call_poll()
            self.turn(op.block)
            self.depth -= 1
            if op.operands:
                stop = e.value(f"load i8, ptr {self.pointers[op.operands[0]]}")
                more = e.label()
                e.branch_if(e.value(f"icmp ne i8 {stop}, 0"), after, more)
                e.at(more)

        after = e.label()
        e.loop(0, self.size(op.attrs["length"]), 1, body)
        e.branch(after)
        e.at(after)

    def branches(self, op: Op) -> None:
        """One of two blocks; what is worked out in it is known in it alone."""
        e = self.e
        flag = e.value(f"load i8, ptr {self.pointers[op.operands[0]]}")
        then, otherwise, after = e.label(), e.label(), e.label()
        e.branch_if(e.value(f"icmp ne i8 {flag}, 0"), then, otherwise)
        self.depth += 1
        for label, block in zip((then, otherwise), op.blocks):
            e.at(label)
            self.turn(block)
            e.branch(after)
        self.depth -= 1
        e.at(after)

    def turn(self, block: Block) -> None:
        """One turn of a loop, which leaves no late memory in use."""
        e, first, claims = self.e, len(self.e.lines), len(self.claims)
        self.block(block)
        if len(self.claims) == claims:
            return
        mark, mark_at = e.fresh(), e.fresh()
        e.lines[first:first] = [
            f"  {mark_at} = getelementptr i64, ptr {self.ctx}, i64 {CTX_LATE_USED}",
            f"  {mark} = load ptr, ptr {mark_at}",
        ]
        e.declare(DECLARATIONS["tcc_late_release"])
        e.line(f"call void @tcc_late_release(ptr {self.ctx}, ptr {mark})")

    def name_size(self, op: Op) -> None:
        """A run-time i64 becomes a size; a negative one is an error."""
        e = self.e
        value = e.value(f"load i64, ptr {self.pointers[op.operands[0]]}")
        negative = e.value(f"icmp slt i64 {value}, 0")
        self.fail_if(negative, op, value, "0")
        self.names[str(op.attrs["size"])] = value
        if self.clock:
            e.line(f"store i64 {value}, ptr {self.record(op)[0]}")

    def check_size(self, op: Op) -> None:
        """Sizes that are too large for 64 bits may be equal in these, and are wrong."""
        sides = op.attrs["left"], op.attrs["right"]
        left, right = map(self.size, sides)
        wrong = self.e.value(f"icmp ne i64 {left}, {right}")
        for side in sides:
            wraps = wraps_text(self.e, side, self.names)
            if wraps is not None:
                wrong = self.e.value(f"or i1 {wrong}, {wraps}")
        self.fail_if(wrong, op, left, right)

    def fail_if(self, condition: str, op: Op, a: str, b: str) -> None:
        e = self.e
        fail, fine = e.label(), e.label()
        e.branch_if(condition, fail, fine)
        e.at(fail)
        e.declare(DECLARATIONS["tcc_fail"])
        e.line(f"call void @tcc_fail(ptr {self.ctx}, i64 {self.op_id(op)}, i64 {a}, i64 {b}, i64 0, i64 0)")
        e.line(f"ret i32 {STATUS_ERROR}")
        e.at(fine)

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
