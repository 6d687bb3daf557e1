"""The body of a compiled function: its ops in order, with addresses and sizes worked out on the way.

`i32 @run(ptr %frame)` is made from a placed function.  Every address is a place's base plus a size expression, every loop
a native loop; `tcc_poll` lets Ctrl-C in between kernels until the first shared variable is written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tcc.codegen import scalar
from tcc.codegen.calls import ALIGN, Calls
from tcc.codegen.kernel import Kernel, quick_heads, wraps_text
from tcc.codegen.placed import PRODUCTS, op_work, output_specs, space_of, work, written_places
from tcc.codegen.support import DECLARATIONS
from tcc.codegen.target import Target
from tcc.ir import dims
from tcc.ir.arrays import in_memory
from tcc.ir.core import Block, Func, Op, Value
from tcc.passes.panels import layouts
from tcc.passes.writes import on_host
from tcc.runtime.arenas import Claim
from tcc.runtime.buffers import aligned
from tcc.runtime.host import HostCall
from tcc.runtime.layout import CTX_LATE_USED, FRAME_ARENA, FRAME_CTX, STATUS_ERROR
from tcc.runtime.panels import KeptSpec
from tcc.runtime.signature import InputSpec, Returns, SharedSpec, Signature

POLL_FLOPS = 1 << 22  # a kernel with more work than this is worth a look for Ctrl-C before it


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


class _Driver(Calls):
    def __init__(
        self, func: Func, target: Target, returns: Returns, clock: int, begin: Callable[[Kernel], None]
    ) -> None:
        super().__init__(func, target, clock, begin)
        self.returns = returns
        self.constants: list[np.ndarray[Any, Any]] = []
        self.const_places: list[Value] = []
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

    def load(self, slot: int, t: str = "ptr") -> str:
        return self.e.value(f"load {t}, ptr {self.e.gep('%frame', slot, 'i64')}")

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
