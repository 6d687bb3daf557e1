"""A model's library for a GPU: the bodies of its entries, which launch kernels instead of running them.

A body is what `codegen/driver.py` makes for the CPU, `i32 @run(ptr frame)`, over the steps of a `DeviceProgram`.  Tensors in the host's
memory are copied to the device and back, those of the device taken as they lie.

A call like one of the last few has its kernels captured, and later ones launch the graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tcc.codegen.aot.layout import CALL_CONTEXT, CALL_INPUTS, CTX_DEVICE
from tcc.codegen.emit import Emit
from tcc.codegen.gpu.library_layout import (
    CAPTURED,
    COUNT,
    HERE,
    LAUNCHED,
    LOST,
    NEWER,
    DeviceLibrary,
    captured_steps,
    early_buffers,
    key_count,
)
from tcc.codegen.kernel import Kernel, size_text
from tcc.ir import dims
from tcc.ir.core import Op
from tcc.ir.dims import Size
from tcc.ir.types import itemsize
from tcc.runtime import layout as at
from tcc.runtime.device_program import (
    MAP_WORDS,
    MOST_STRIDE,
    MULTIPROCESSORS,
    STATUS_WORDS,
    UINTS,
    Address,
    Allocate,
    CheckSize,
    CheckStatus,
    Copy,
    DeviceProgram,
    IfElse,
    Launch,
    Loop,
    ReadSize,
    Step,
    TensorMap,
)
from tcc.runtime.signature import Signature


@dataclass
class DeviceLowered:
    """An entry's body, with what `codegen/aot/library.py` asks of one."""

    entry: str
    library: DeviceLibrary
    constants: list[np.ndarray[Any, Any]] = field(
        default_factory=list
    )  # those of the device are in the body's text
    engines: dict[str, str] = field(default_factory=dict)
    kernels: dict[str, Kernel] = field(default_factory=dict)  # none of the CPU's

    @property
    def program(self) -> DeviceProgram:
        return self.library.programs[self.entry]

    @property
    def name(self) -> str:
        return f"tcc_cuda_{self.entry}"

    @property
    def signature(self) -> Signature:
        """Its memory is the device's, so it wants no workspace."""
        return replace(self.program.signature, arena=0)

    @property
    def ops(self) -> Mapping[int, Op]:
        return self.program.ops

    @property
    def failing(self) -> Iterator[tuple[int, Op]]:
        """The ops that can fail, by number."""
        kinds = ReadSize | CheckSize | Launch
        found = {s.op: self.ops[s.op] for s in self.program.walk() if isinstance(s, kinds)}
        return ((n, op) for n, op in found.items() if op.defn.fails or op.name == "bind")

    def control_text(self) -> str:
        return _Body(self).text()


class _Body:
    def __init__(self, lowered: DeviceLowered) -> None:
        self.entry, self.library, self.program = lowered.entry, lowered.library, lowered.program
        self.signature, self.name = lowered.signature, lowered.name
        self.e = Emit()
        self.env: dict[str, str] = {}
        self.cells: list[str] = []  # for the head of the text: loops would take memory again and again
        self.late = any(o.late for o in self.signature.outputs)
        self.saved = [s.name for s in self.signature.shared if s.written] if self.late else []

    def text(self) -> str:
        e, program, frame = self.e, self.program, self.signature.frame
        e.function(f"i32 @{self.name}(ptr %frame)")
        head = len(e.lines)
        self.call = e.value(f"load ptr, ptr {e.gep('%frame', at.FRAME_CTX, 'i64')}")
        context = e.value(f"load ptr, ptr {e.gep(self.call, CALL_CONTEXT, 'i64')}")
        self.record = e.value(f"load ptr, ptr {e.gep(context, CTX_DEVICE, 'i64')}")
        self.inputs = e.value(f"load ptr, ptr {e.gep(self.call, CALL_INPUTS, 'i64')}")
        self.outputs = e.value(f"load ptr, ptr {e.gep(self.call, at.CTX_OUTPUTS, 'i64')}")
        most = max((k.slots for k in program.kernels.values()), default=0)
        self.arguments = e.value(f"alloca [{max(1, most)} x i64], align 64")
        self.words = e.value(f"alloca [{STATUS_WORDS} x i64], align 16")
        self.dims = e.value(f"alloca [{max([1, *(len(o.shape) for o in self.signature.outputs)])} x i64]")
        self.bases = [e.value("alloca i64") for _ in program.buffers]
        self.begun, self.failed, self.lost = e.value("alloca i1"), e.label(), e.label()
        e.line(f"store i1 false, ptr {self.begun}")
        self.env = {n: e.value(f"load i64, ptr {e.gep('%frame', frame.size(n), 'i64')}") for n in frame.sizes}
        (count,) = MULTIPROCESSORS.names
        self.env[count] = e.value(f"load i64, ptr {self.slot(COUNT)}")
        entered = e.value(f"call i1 @tcc_cu_enter(ptr {self.call}, ptr {self.record})")
        out, inside = e.label(), e.label()
        e.branch_if(entered, inside, out)
        e.at(out)
        e.line(f"ret i32 {at.STATUS_PYTHON}")
        e.at(inside)
        self.bring()
        first = captured_steps(program) if self.entry in self.library.graphs else ()
        if first:
            self.by_graph(first)
        self.steps(program.steps[len(first) :])
        self.take_home()
        for s in self.signature.shared:
            if s.written:
                flag = self.slot(self.library.value(s.name) + 1)
                e.line(f"store i64 {HERE | NEWER}, ptr {flag}")
        e.line(f"call void @tcc_cu_leave(ptr {self.record})")
        e.line(f"ret i32 {at.STATUS_OK}")
        for label, status in ((self.failed, at.STATUS_ERROR), (self.lost, at.STATUS_PYTHON)):
            e.at(label)
            self.undo()
            e.line(f"call void @tcc_cu_leave(ptr {self.record})")
            e.line(f"ret i32 {status}")
        e.lines.append("}\n")
        e.lines[head:head] = self.cells
        return e.text()

    # -- small things --------------------------------------------------------------------------------------------------

    def size(self, size: Size) -> str:
        return size_text(self.e, size, self.env)

    def slot(self, number: int) -> str:
        return self.e.gep(self.record, number, "i64")

    def at(self, address: Address) -> str:
        base = self.e.value(f"load i64, ptr {self.bases[address.buffer]}")
        offset = self.size(address.offset)
        return base if offset == "0" else self.e.value(f"add i64 {base}, {offset}")

    def unless(self, wrong: str, label: str) -> None:
        """Goes on, but to `label` if an i1 holds."""
        stay = self.e.label()
        self.e.branch_if(wrong, label, stay)
        self.e.at(stay)

    def found(self, address: str) -> str:
        """An address that a function gave, 0 having been refused."""
        self.unless(self.e.value(f"icmp eq i64 {address}, 0"), self.lost)
        return address

    def room(self, number: int, bytes: str) -> str:
        slot = self.slot(self.library.buffer(self.entry, number))
        return self.found(self.e.value(f"call i64 @tcc_cu_room(ptr {self.call}, ptr {slot}, i64 {bytes})"))

    def tensor(self, of: str, number: int) -> str:
        return self.e.value(f"load ptr, ptr {self.e.gep(of, number, 'ptr')}")

    def named(self, number: int) -> str:
        """The name of an argument, or behind these of a result."""
        spec = self.e.value(f"getelementptr %tcc_spec, ptr @tcc_specs_{self.entry}, i64 {number}")
        return self.e.value(f"load ptr, ptr {spec}")

    def named_result(self, number: int) -> str:
        return self.named(len(self.signature.inputs) + number)

    def given(self, slot: int) -> str:
        return self.e.value(f"load i64, ptr {self.e.gep('%frame', slot, 'i64')}")

    # -- what a call brings and takes ----------------------------------------------------------------------------------

    def bring(self) -> None:
        e, frame = self.e, self.signature.frame
        for number, buffer in enumerate(self.program.buffers):
            bytes, n = buffer.bytes, buffer.number
            slot = self.slot(self.library.buffer(self.entry, number))
            if buffer.space == "input":
                tensor, host = self.tensor(self.inputs, n), self.given(frame.input(n))
                base = e.value(
                    f"call i64 @tcc_cu_input(ptr {self.call}, ptr {self.record}, ptr {tensor}, ptr {self.named(n)}, "
                    f"i64 {host}, ptr {slot}, i64 {self.size(bytes)})"
                )
            elif buffer.space == "output":
                base = self.result(n, self.given(frame.output(n)), slot, self.size(bytes))
            elif buffer.space in ("shared", "constant"):
                known = buffer.space == "shared"
                key = self.signature.shared[n].name if known else (self.entry, n)
                host = (
                    self.given(frame.container(n))
                    if known
                    else f"ptrtoint (ptr @tcc_device_{self.entry}_{n} to i64)"
                )
                base = e.value(
                    f"call i64 @tcc_cu_value(ptr {self.call}, ptr {self.record}, ptr {self.slot(self.library.value(key))}, "
                    f"i64 {host}, i64 {self.size(bytes)})"
                )
            elif buffer.space == "scratch":
                base = e.value(f"call i64 @tcc_cu_room(ptr {self.call}, ptr {slot}, i64 {self.size(bytes)})")
            else:
                continue
            e.line(f"store i64 {self.found(base)}, ptr {self.bases[number]}")
        for name in self.saved:
            self.save(name)
        e.line(f"store i1 true, ptr {self.begun}")

    def result(self, number: int, host: str, slot: str, bytes: str) -> str:
        """Where a result is made: in its tensor if that is the device's, else in a buffer."""
        given = self.call, self.record, self.tensor(self.outputs, number), self.named_result(number)
        pointers = ", ".join(f"ptr {p}" for p in given)
        return self.e.value(f"call i64 @tcc_cu_result({pointers}, i64 {host}, ptr {slot}, i64 {bytes})")

    def take_home(self) -> None:
        e = self.e
        for number, buffer in enumerate(self.program.buffers):
            if buffer.space == "output" or (buffer.space == "late" and buffer.number >= 0):
                spec = self.signature.outputs[buffer.number]
                bytes = self.size(dims.mul(itemsize(spec.dtype), *spec.shape))
                base = e.value(f"load i64, ptr {self.bases[number]}")
                tensor = self.tensor(self.outputs, buffer.number)
                given = (self.call, self.record, tensor, self.named_result(buffer.number))
                self.unless(
                    e.value(
                        f"call i1 @tcc_cu_home({', '.join(f'ptr {p}' for p in given)}, i64 {base}, i64 {bytes})"
                    ),
                    self.lost,
                )
        self.unless(e.value(f"call i1 @tcc_cu_wait(ptr {self.call}, ptr {self.record})"), self.lost)

    def save(self, name: str) -> None:
        """A copy of a tensor of the state that is updated: the body may find late that a result has no room."""
        index, bytes = self.position(name)
        copy = self.room(len(self.program.buffers) + index, str(bytes))
        own = self.e.value(f"load i64, ptr {self.slot(self.library.value(name))}")
        self.copy(copy, own, str(bytes), self.lost)

    def undo(self) -> None:
        e = self.e
        if not self.saved:
            return
        back, out = e.label(), e.label()
        e.branch_if(e.value(f"load i1, ptr {self.begun}"), back, out)
        e.at(back)
        for name in self.saved:
            index, bytes = self.position(name)
            slot = self.slot(self.library.buffer(self.entry, len(self.program.buffers) + index))
            copy = e.value(f"load i64, ptr {slot}")
            own = e.value(f"load i64, ptr {self.slot(self.library.value(name))}")
            self.copy(own, copy, str(bytes), out)
        e.branch(out)
        e.at(out)

    def position(self, name: str) -> tuple[int, int]:
        index = [s.name for s in self.signature.shared].index(name)
        return index, self.library.state[name]

    def copy(self, target: str, source: str, bytes: str, otherwise: str) -> None:
        given = f"ptr {self.call}, ptr {self.record}, i64 {target}, i64 {source}, i64 {bytes}"
        self.unless(self.e.value(f"call i1 @tcc_cu_copy({given})"), otherwise)

    # -- steps ---------------------------------------------------------------------------------------------------------

    def steps(self, steps: Sequence[Step]) -> None:
        for step in steps:
            self.step(step)

    def by_graph(self, steps: Sequence[Step]) -> None:
        """The steps one by one, or as the graph of a call with these sizes and addresses."""
        e, count = self.e, key_count(self.program)
        graphs, keys = self.slot(self.library.graphs[self.entry]), e.fresh()
        self.cells.append(f"  {keys} = alloca [{count} x i64]")
        bases = [self.at(Address(n)) for n in early_buffers(self.program)]
        for i, key in enumerate([*(self.env[n] for n in self.signature.frame.sizes), *bases]):
            e.line(f"store i64 {key}, ptr {e.gep(keys, i, 'i64')}")
        pointers = ", ".join(f"ptr {p}" for p in (self.call, self.record, graphs, keys))
        how = e.value(f"call i32 @tcc_cu_replay({pointers}, i64 {count})")
        self.unless(e.value(f"icmp eq i32 {how}, {LOST}"), self.lost)
        each, done, finish = e.label(), e.label(), e.label()
        e.branch_if(e.value(f"icmp eq i32 {how}, {LAUNCHED}"), done, each)
        e.at(each)
        self.steps(steps)
        e.branch_if(e.value(f"icmp eq i32 {how}, {CAPTURED}"), finish, done)
        e.at(finish)
        wrong = e.value(f"call i1 @tcc_cu_captured(ptr {self.call}, ptr {self.record})")
        self.unless(wrong, self.lost)
        e.branch(done)
        e.at(done)

    def step(self, step: Step) -> None:
        e = self.e
        match step:
            case Launch():
                self.start(step)
            case Copy():
                self.copy(self.at(step.target), self.at(step.source), self.size(step.bytes), self.lost)
            case Allocate():
                self.allocate(step.buffer)
            case ReadSize():
                self.read(step.source, 8)
                value = e.value(f"load i64, ptr {self.words}")
                self.fail_if(e.value(f"icmp slt i64 {value}, 0"), step.op, value)
                self.env[step.name] = value
            case CheckSize():
                left, right = self.size(step.left), self.size(step.right)
                self.fail_if(e.value(f"icmp ne i64 {left}, {right}"), step.op, left, right)
            case CheckStatus():
                self.read(step.source, 8 * STATUS_WORDS)
                words = range(STATUS_WORDS)
                failed, *found, op = [e.value(f"load i64, ptr {e.gep(self.words, i, 'i64')}") for i in words]
                self.fail_if(e.value(f"icmp ne i64 {failed}, 0"), op, *found)
            case Loop():
                self.loop(step)
            case IfElse():
                self.branches(step)
            case _:
                raise AssertionError(f"{step} is the host's")

    def start(self, step: Launch) -> None:
        """What a launch says, or what it says instead."""
        if not step.otherwise:
            self.start_one(step)
            return
        e, fits, other, after = self.e, self.e.label(), self.e.label(), self.e.label()
        e.branch_if(self.fits(step), fits, other)
        e.at(fits)
        self.start_one(step)
        e.branch(after)
        e.at(other)
        for instead in step.otherwise:
            self.start(instead)
        e.branch(after)
        e.at(after)

    def fits(self, step: Launch) -> str:
        """Whether sizes and places are as the kernel needs them; the rules are those of `runtime/launch.py`."""
        e, holds = self.e, "true"

        def also(condition: str) -> None:
            nonlocal holds
            holds = e.value(f"and i1 {holds}, {e.value(f'icmp {condition}')}")

        for size, least in step.needs:
            also(f"sge i64 {self.size(size)}, {least}")
        for map in (a for a in step.arguments if isinstance(a, TensorMap)):
            sizes, strides = [self.size(s) for s in map.sizes], [self.size(s) for s in map.strides]
            joined = self.at(map.address)
            for pitch in strides:
                joined = e.value(f"or i64 {joined}, {pitch}")
            also(f"eq i64 {e.value(f'and i64 {joined}, 15')}, 0")
            for count, each, beyond in zip(sizes, (str(map.itemsize), *strides), strides):
                also(f"sle i64 {e.value(f'mul i64 {count}, {each}')}, {beyond}")
            also(f"slt i64 {strides[-1]}, {MOST_STRIDE}")
            for count in sizes:
                also(f"sgt i64 {count}, 0")
        return holds

    def start_one(self, step: Launch) -> None:
        e, kernel = self.e, self.library.kernels[step.kernel]
        word = 0
        for a in step.arguments:
            place = e.gep(self.arguments, word, "i64")
            if isinstance(a, TensorMap):
                sizes = [self.at(a.address), *map(self.size, (*a.sizes, *a.strides))]
                words = [f"i64 {s}" for s in (*sizes, *a.box)]
                if a.walk is not None:
                    words += [f"i32 {n}" for pair in a.walk for n in pair]
                words.append(f"i32 {UINTS[a.itemsize]}")
                name = "tile_map" if a.walk is None else "pixel_map"
                made = f"call i1 @tcc_cu_{name}(ptr {self.call}, ptr {place}, {', '.join(words)})"
                self.unless(e.value(made), self.lost)
                word += MAP_WORDS
                continue
            value = self.at(a) if isinstance(a, Address) else self.size(a)
            e.line(f"store i64 {value}, ptr {place}")
            word += 1
        grid = ", ".join(f"i64 {self.size(g)}" for g in step.grid)
        function = e.value(f"load ptr, ptr {self.slot(self.library.function(step.kernel))}")
        given = f"ptr {self.call}, ptr {self.record}, ptr {function}, {grid}, i32 {kernel.block}, i32 {kernel.shared}"
        wrong = e.value(f"call i1 @tcc_cu_launch({given}, ptr {self.arguments}, i64 {8 * word})")
        self.unless(wrong, self.lost)

    def allocate(self, number: int) -> None:
        e, buffer = self.e, self.program.buffers[number]
        bytes = self.size(buffer.bytes)
        if buffer.number < 0:
            base = self.room(number, bytes)
        else:
            spec = self.signature.outputs[buffer.number]
            for axis, s in enumerate(spec.shape):
                e.line(f"store i64 {self.size(s)}, ptr {e.gep(self.dims, axis, 'i64')}")
            host = e.value(
                f"call ptr @tcc_output(ptr {self.call}, i64 {buffer.number}, i64 0, i64 {len(spec.shape)}, ptr {self.dims})"
            )
            self.unless(e.value(f"icmp eq ptr {host}, null"), self.lost)
            slot = self.slot(self.library.buffer(self.entry, number))
            base = self.found(self.result(buffer.number, e.value(f"ptrtoint ptr {host} to i64"), slot, bytes))
        e.line(f"store i64 {base}, ptr {self.bases[number]}")

    def read(self, source: Address, bytes: int) -> None:
        given = f"ptr {self.call}, ptr {self.record}, ptr {self.words}, i64 {self.at(source)}, i64 {bytes}"
        self.unless(self.e.value(f"call i1 @tcc_cu_read({given})"), self.lost)

    def fail_if(self, condition: str, op: int | str, *values: str) -> None:
        e, bad, stay = self.e, self.e.label(), self.e.label()
        e.branch_if(condition, bad, stay)
        e.at(bad)
        given = ", ".join(f"i64 {v}" for v in [*values, *["0"] * (4 - len(values))])
        e.line(f"call void @tcc_fail(ptr {self.call}, i64 {op}, {given})")
        e.branch(self.failed)
        e.at(stay)

    def flag(self, address: Address) -> str:
        self.read(address, 1)
        byte = self.e.value(f"load i8, ptr {self.words}")
        return self.e.value(f"icmp ne i8 {byte}, 0")

    def loop(self, step: Loop) -> None:
        e, end = self.e, self.size(step.length)
        index, head, inside, after = e.fresh(), e.label(), e.label(), e.label()
        self.cells.append(f"  {index} = alloca i64")
        e.line(f"store i64 0, ptr {index}")
        e.branch(head)
        e.at(head)
        now = e.value(f"load i64, ptr {index}")
        e.branch_if(e.value(f"icmp slt i64 {now}, {end}"), inside, after)
        e.at(inside)
        self.env[step.index] = now
        self.steps(step.body)
        e.line(f"store i64 {e.value(f'add i64 {now}, 1')}, ptr {index}")
        if step.stop is not None:
            e.branch_if(self.flag(step.stop), after, head)
        else:
            e.branch(head)
        e.at(after)

    def branches(self, step: IfElse) -> None:
        e, then, otherwise, after = self.e, self.e.label(), self.e.label(), self.e.label()
        e.branch_if(self.flag(step.flag), then, otherwise)
        for label, steps in ((then, step.then), (otherwise, step.otherwise)):
            e.at(label)
            self.steps(steps)
            e.branch(after)
        e.at(after)
