"""From a placed function to a program for a device: the kernels of its ops, and the steps that launch them."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import numpy as np

from tcc.codegen.gpu.chips import Chip
from tcc.codegen.gpu.hostsizes import HostSizes
from tcc.codegen.gpu.kernel import GpuKernel, Status, TileMap, ptx
from tcc.codegen.gpu.layers import MOST_WORDS, Region, independent, layered, may_be_layered, regions
from tcc.codegen.gpu.loops import kernels_of
from tcc.codegen.kernel import Operand as OperandSlot
from tcc.codegen.kernel import OpId, Runtime, Scratch
from tcc.codegen.placed import (
    is_kernel,
    kernel_key,
    late_sizes,
    output_specs,
    reference,
    space_of,
    written_places,
)
from tcc.ir import dims
from tcc.ir.arrays import in_memory
from tcc.ir.core import Block, Func, Op, Value
from tcc.ir.dims import Size
from tcc.ir.ops.control import called
from tcc.ir.types import itemsize
from tcc.passes.checks import guarded
from tcc.passes.transfer import stays_on_host
from tcc.passes.writes import on_host
from tcc.runtime.device_program import (
    MAP_WORDS,
    STATUS_WORDS,
    Address,
    Allocate,
    Buffer,
    CheckSize,
    CheckStatus,
    Copy,
    DeviceCall,
    DeviceKernel,
    DeviceProgram,
    HostSize,
    HostStep,
    IfElse,
    Launch,
    Loop,
    Operand,
    ReadSize,
    Step,
    TensorMap,
    ToDevice,
    ToHost,
    walk,
)
from tcc.runtime.host import HostArray, HostCall
from tcc.runtime.signature import InputSpec, Returns, SharedSpec, Signature

STATUS_BYTES = 8 * STATUS_WORDS
CLAMPED = (
    "gather",
    "scatter",
)  # they keep to the array, alone (gpu/indexing.py) and in a row's kernel (gpu/rows.py)
NEWEST = 90  # the emulator's


def lower(
    func: Func,
    chip: Chip | None,
    returns: Returns = "list",
    *,
    tile_maps: bool = False,
    host_sizes: bool = False,
) -> DeviceProgram:
    """A placed and planned function as a program.  Its kernels are PTX for `chip`, or LLVM text for the emulator (None).

    With `tile_maps` who launches them can make tensor maps, which products on sm_90a ask for; with `host_sizes` sizes that
    follow from integer inputs.
    """
    specific = tile_maps and (chip is None or chip.specific)
    return _Driver(func, chip, returns, specific, HostSizes(func) if host_sizes else None).lower()


def user_kernels(op: Op) -> Callable[..., list[GpuKernel]] | None:
    """Of a call of a kernel that is written in Python, what makes its kernels for types of operands and results."""
    return called(op.attrs.get("function")).kernels


def unclamped(op: Op) -> bool:
    """Whether a kernel follows its indices wherever they lead, as those of gather and scatter do not."""
    if op.name in ("for", "ifelse"):
        return False
    return any(guarded(o, ()) for o in (op.block.ops if op.name == "fuse" else [op]) if o.name not in CLAMPED)


def _alike(a: Step | None, b: Launch) -> bool:
    """Whether it launches the same kernel in as many blocks: one of run-time sizes is the same for all lengths."""
    return isinstance(a, Launch) and (a.kernel, a.grid) == (b.kernel, b.grid)


class _Driver:
    def __init__(
        self, func: Func, chip: Chip | None, returns: Returns, specific: bool, early: HostSizes | None
    ) -> None:
        self.func, self.chip, self.returns, self.specific = func, chip, returns, specific
        self.early = early
        self.host_sizes: list[HostSize] = []
        self.buffers: list[Buffer] = []
        self.places: dict[Value, Address] = {}
        self.kernels: dict[str, tuple[Op, GpuKernel]] = {}
        self.written: dict[Hashable, list[GpuKernel]] = {}
        self.ops: dict[int, Op] = {}
        self.constants: list[np.ndarray[Any, Any]] = []
        self.late_arenas: dict[int, int] = {}
        self.arena = self.status = -1
        self.pending = False  # whether checks have been made that nobody has looked at
        self.lengths: dict[str, Size] = {}  # of loops, by their indices
        self.scratch: list[int] = []  # buffers that ops take turns with
        self.hosts: dict[Value, int] = {}  # the host's arrays

    def lower(self) -> DeviceProgram:
        func = self.func
        by_space: dict[str, list[Value]] = {"input": [], "shared": [], "output": []}
        for p in func.body.params:
            by_space[space_of(p)].append(p)
        written = written_places(func)
        inputs = tuple(InputSpec(p.type.dtype, p.type.shape, name=p.name) for p in by_space["input"])
        shared = tuple(
            SharedSpec(p.type.dtype, p.type.shape, p in written, p.name) for p in by_space["shared"]
        )
        outputs = output_specs(func, [p.name for p in by_space["shared"]])
        early = [i for i, spec in enumerate(outputs) if not spec.late]
        numbers = {"input": range(len(inputs)), "shared": range(len(shared)), "output": early}
        for space, values in by_space.items():
            for number, value in zip(numbers[space], values, strict=True):
                self.places[value] = Address(self.buffer(space, number, value.type.bytes))
        for op in func.body.walk():
            if op.name == "const" and op.result.type.place is not None:
                array = in_memory(op.attrs["value"], op.result.type.dtype)
                self.places[op.result] = Address(self.buffer("constant", len(self.constants), array.nbytes))
                self.constants.append(array)
        self.arena = self.buffer("scratch", bytes=func.attrs.get("arena", 0))
        steps = [*self.block(func.body), *self.looked()]
        if self.status >= 0:
            zeros = self.buffer("constant", len(self.constants), STATUS_BYTES)
            self.constants.append(np.zeros(STATUS_WORDS, np.int64))
            steps.insert(0, Copy(Address(self.status), Address(zeros), STATUS_BYTES))
        signature = Signature(inputs, shared, outputs, self.returns, func.attrs.get("arena", 0))
        return DeviceProgram(
            self.assembled(steps),
            tuple(self.buffers),
            tuple(steps),
            signature,
            tuple(self.constants),
            self.ops,
            tuple(self.host_sizes),
        )

    def assembled(self, steps: list[Step]) -> dict[str, DeviceKernel]:
        """The kernels that are launched."""
        launches = [s for s in walk(steps) if isinstance(s, Launch)]
        names = {s.kernel for one in launches for s in (one, *one.otherwise)}
        made = dict[str, DeviceKernel]()
        for name, (op, kernel) in self.kernels.items():
            if name in names:
                text = kernel.text if self.chip is None else ptx(kernel, self.chip)
                what = str(op.attrs.get("name", op.name)) + (f" ({op.loc})" if op.loc else "")
                made[name] = DeviceKernel(name, text, kernel.block, kernel.words, kernel.shared, what)
        return made

    def buffer(self, space: str, number: int = -1, bytes: Size = 0) -> int:
        self.buffers.append(Buffer(space, number, bytes))
        return len(self.buffers) - 1

    def op_id(self, op: Op) -> int:
        for number, known in self.ops.items():
            if known is op:
                return number
        self.ops[len(self.ops) + 1] = op
        return len(self.ops)

    # -- steps -----------------------------------------------------------------------------------------------------

    def block(self, block: Block) -> list[Step]:
        steps: list[Step] = []
        handlers: dict[str, Callable[[Op], list[Step]]] = {
            "alloc": self.alloc,
            "view": self.view,
            "for": self.loop,
            "ifelse": self.branches,
            "bind": lambda op: [ReadSize(str(op.attrs["size"]), self.places[op.operands[0]], self.op_id(op))],
            "check_size": lambda op: [CheckSize(op.attrs["left"], op.attrs["right"], self.op_id(op))],
            "const": lambda op: [],
            "yield": lambda op: [],
        }
        for op in block.ops:
            if self.early is not None and op in self.early.trees:
                self.host_sizes.append(self.early.found(op, self.op_id))
                continue
            if self.early is not None and self.early.needless(op):
                continue
            if self.waits(op) or self.strays(op) or any(space_of(v) == "shared" for v in op.places):
                steps += self.looked()
            if user_kernels(op) is not None:
                steps += self.user_launches(op)
                continue
            handler = self.host_step if on_host(op) else handlers.get(op.name, self.launches)
            if op.name == "copy" and any(v in self.hosts for v in op.operands):
                handler = self.transfer
            steps += handler(op)
        return self.together(steps)

    def together(self, steps: list[Step]) -> list[Step]:
        """Launches of one kernel and grid that may be layers of one (layers.py) are one."""
        made: list[Step] = []
        layers: list[Launch] = []
        touched: list[Region] = []
        for step in [*steps, None]:
            own = self.layer(step)
            joins = False
            if own is not None and layers and _alike(step, layers[0]):
                many = (len(layers) + 1) * len(layers[0].arguments) > MOST_WORDS
                joins = not many and independent(touched, own, self.lengths)
            if not joins:
                made += [self.one_of(layers)] if layers else []
                layers, touched = [], []
            if own is not None:
                layers.append(step)  # type: ignore[arg-type]
                touched += own
            elif step is not None:
                made.append(step)
        return made

    def layer(self, step: Step | None) -> list[Region] | None:
        """What a launch that may be a layer touches."""
        if not isinstance(step, Launch):
            return None
        op = self.ops[step.op]
        known = self.written[kernel_key(op)]
        return regions(op, self.places) if len(known) == 1 and may_be_layered(known[0]) else None

    def one_of(self, layers: list[Launch]) -> Launch:
        if len(layers) == 1:
            return layers[0]
        op = self.ops[layers[0].op]
        (kernel,) = self.written[kernel_key(op)]
        made = layered(kernel, len(layers))
        self.kernels.setdefault(made.name, (op, made))
        arguments = tuple(a for one in layers for a in one.arguments)
        return Launch(made.name, made.grid, arguments, layers[0].op, layers=len(layers))

    def looked(self) -> list[Step]:
        """Looks at the checks that have been made: before shared memory is written, where the host waits anyway, and at the end.

        What runs meanwhile on an index that is wrong keeps to its memory.
        """
        pending, self.pending = self.pending, False
        return [CheckStatus(Address(self.status))] if pending else []

    def strays(self, op: Op) -> bool:
        """Whether an index or a size that is wrong would lead its kernels out of memory: such as one that follows indices,
        or takes a view that begins at a known place of what has a run-time size."""
        if unclamped(op):
            return True
        for v in () if op.name == "view" else op.operands:
            while v.op is not None and v.op.name == "view":
                offset, v = v.op.attrs["offset"], v.op.operands[0]
                known = isinstance(offset, int) and isinstance(v.type.size, int)
                if offset != 0 and not known and not dims.names_of(offset) & self.lengths.keys():
                    return True
        return False

    def waits(self, op: Op) -> bool:
        """Whether the host looks at a result for it, or may fail by itself."""
        if op.name == "for":
            return bool(op.operands) or any(map(self.waits, op.block.ops))
        host = on_host(op) and user_kernels(op) is None
        return host or op.name in ("bind", "check_size", "ifelse")

    def alloc(self, op: Op) -> list[Step]:
        space, offset = space_of(op.result), op.attrs["offset"]
        if space == "host":
            self.hosts[op.result] = len(self.hosts)
            return []
        if space == "arena":
            self.places[op.result] = Address(self.arena, offset)
            return []
        bytes = op.result.type.bytes
        if space == "output" or offset is None:
            buffer = self.buffer("late", int(offset) if space == "output" else -1, bytes)
            self.places[op.result] = Address(buffer)
            return [Allocate(buffer)]
        number, steps = int(op.attrs["arena"]), list[Step]()
        if number not in self.late_arenas:
            self.late_arenas[number] = self.buffer("late", bytes=self.func.attrs["late"][number])
            steps.append(Allocate(self.late_arenas[number]))
        self.places[op.result] = Address(self.late_arenas[number], offset)
        return steps

    def view(self, op: Op) -> list[Step]:
        base = self.places[op.operands[0]]
        moved = dims.mul(op.attrs["offset"], itemsize(op.result.type.dtype))
        self.places[op.result] = Address(base.buffer, dims.add(base.offset, moved))
        return []

    def loop(self, op: Op) -> list[Step]:
        self.lengths[str(op.attrs["index"])] = op.attrs["length"]
        body = self.block(op.block)
        if self.waits(op):
            body += self.looked()
        stop = self.places[op.operands[0]] if op.operands else None
        return [Loop(str(op.attrs["index"]), op.attrs["length"], tuple(body), stop)]

    def branches(self, op: Op) -> list[Step]:
        then, otherwise = ((*self.block(b), *self.looked()) for b in op.blocks)
        return [IfElse(self.places[op.operands[0]], then, otherwise)]

    def host_step(self, op: Op) -> list[Step]:
        late = late_sizes(op)
        call = HostCall(
            f"{op.attrs.get('name', op.name)}" + (f" ({op.loc})" if op.loc else ""),
            op.attrs["function"] if op.name == "call" else reference(op),
            (
                *(HostArray(v.type.dtype, v.type.rank) for v in op.reads),
                *(HostArray("i64", 0) for _ in late),
            ),
            tuple(HostArray(v.type.dtype, v.type.rank) for v in op.places),
        )
        if not stays_on_host(op):
            operands, results = (tuple(map(self.operand, vs)) for vs in (op.reads, op.places))
            return [DeviceCall(call, operands, results)]
        made = tuple((self.hosts[v], v.type.dtype, v.type.shape) for v in op.places)
        sizes = tuple(op.attrs[n] for n in late)
        return [HostStep(call, tuple(self.hosts[v] for v in op.reads), sizes, made)]

    def transfer(self, op: Op) -> list[Step]:
        """A copy between the host's memory and the device's."""
        source, target = op.operands
        if target in self.hosts:
            return [ToHost(self.hosts[target], self.operand(source))]
        return [ToDevice(self.operand(target), self.hosts[source])]

    def operand(self, value: Value) -> Operand:
        return Operand(self.places[value], value.type.dtype, value.type.shape)

    # -- kernels ---------------------------------------------------------------------------------------------------

    def launches(self, op: Op) -> list[Step]:
        assert is_kernel(op)
        key = kernel_key(op)
        if key not in self.written:
            sm, tf32 = self.chip.sm if self.chip else NEWEST, bool(self.func.attrs.get("tf32"))
            self.written[key] = kernels_of(op, sm, self.specific, tf32)
        steps: list[Step] = []
        scratch: dict[Scratch, Address] = {}
        for kernel in self.written[key]:
            steps.append(self.launch(op, kernel, scratch))
        self.pending = self.pending or op.defn.fails
        late = [
            b for b in dict.fromkeys(a.buffer for a in scratch.values()) if self.buffers[b].space == "late"
        ]
        return [*(Allocate(b) for b in late), *steps]

    def user_launches(self, op: Op) -> list[Step]:
        """Of a call whose function is a kernel: it is launched where it lies."""
        key, make = kernel_key(op), user_kernels(op)
        assert make is not None
        if key not in self.written:
            self.written[key] = make(*([v.type.value for v in vs] for vs in (op.reads, op.places)))
        return [self.launch(op, kernel, {}) for kernel in self.written[key]]

    def launch(self, op: Op, kernel: GpuKernel, scratch: dict[Scratch, Address]) -> Launch:
        self.kernels.setdefault(kernel.name, (op, kernel))
        maps = sum(isinstance(s, TileMap) for s in kernel.slots)
        gap = kernel.words - MAP_WORDS * maps - (len(kernel.slots) - maps)
        arguments: list[Address | Size | TensorMap] = []
        for number, slot in enumerate(kernel.slots):
            if maps and number == len(kernel.slots) - maps:
                arguments += [0] * gap
            if isinstance(slot, Runtime):
                arguments.append(slot.size)
            elif isinstance(slot, OpId):
                arguments.append(self.op_id(op))
            elif isinstance(slot, Status):
                arguments.append(self.status_address())
            elif isinstance(slot, TileMap):
                at = self.address(op, slot.array, scratch)
                how = (slot.sizes, slot.strides, slot.box, slot.itemsize, slot.walk)
                arguments.append(TensorMap(at, *how))
            else:
                arguments.append(self.address(op, slot, scratch))
        otherwise = tuple(self.launch(op, other, scratch) for other in kernel.unless)
        return Launch(kernel.name, kernel.grid, tuple(arguments), self.op_id(op), otherwise, kernel.needs)

    def address(self, op: Op, slot: OperandSlot | Scratch, scratch: dict[Scratch, Address]) -> Address:
        if isinstance(slot, Scratch):
            return self.scratch_address(slot, scratch)
        return self.places[op.operands[slot.index]]

    def status_address(self) -> Address:
        if self.status < 0:
            self.status = self.buffer("scratch", bytes=STATUS_BYTES)
        return Address(self.status)

    def scratch_address(self, slot: Scratch, scratch: dict[Scratch, Address]) -> Address:
        """Memory of one op.  Ops follow each other, so what is known at the entry lies in the same buffers, one for each slot of an op."""
        if slot in scratch:
            return scratch[slot]
        entry = frozenset().union(*(dims.names_of(s) for p in self.func.body.params for s in p.type.shape))
        if dims.names_of(slot.bytes) <= entry:
            number = sum(a.buffer in self.scratch for a in scratch.values())
            if number == len(self.scratch):
                self.scratch.append(self.buffer("scratch"))
            buffer = self.buffers[self.scratch[number]]
            bytes = dims.maximum(buffer.bytes, slot.bytes)
            self.buffers[self.scratch[number]] = buffer._replace(bytes=bytes)
            scratch[slot] = Address(self.scratch[number])
        else:
            scratch[slot] = Address(self.buffer("late", bytes=slot.bytes))
        return scratch[slot]
