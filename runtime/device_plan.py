"""A program for a device as text: its memory, its steps, and every copy between the host and the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tcc.ir.dims import Size
from tcc.ir.types import itemsize
from tcc.runtime.device_program import (
    STATUS_WORDS,
    Address,
    Allocate,
    CheckSize,
    CheckStatus,
    Copy,
    DeviceCall,
    DeviceProgram,
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
)


def plan_text(program: DeviceProgram) -> str:
    """What a call does, step by step.  `to device` and `to host` are copies; a shared variable is copied only if its newest
    value is elsewhere."""
    return (
        "\n".join([*_memory(program), "", *_entry(program), *_steps(program, program.steps), *_exit(program)])
        + "\n"
    )


def _memory(program: DeviceProgram) -> Iterator[str]:
    graphs = sum(not isinstance(s, CheckStatus) for s in program.segments)
    kind = f"{graphs} graph{'s' * (graphs > 1)}, once captured" if graphs else "launched step by step"
    yield f"{len(program.kernels)} kernels, {sum(isinstance(s, Launch) for s in program.walk())} launches, {kind}"
    for number, buffer in enumerate(program.buffers):
        if buffer.bytes != 0 and buffer.space in ("scratch", "late", "constant"):
            yield f"  #{number}: {buffer.space}, {buffer.bytes} bytes"


def _entry(program: DeviceProgram) -> Iterator[str]:
    s = program.signature
    for i in s.inputs:
        yield f"to device  {_typed(i.dtype, i.shape)} {i.name}"
    for size in program.host_sizes:
        yield f"on host    the size {size.name}"
    for c in s.shared:
        yield f"on device  {_typed(c.dtype, c.shape)} {c.name}{', which is written' if c.written else ''}"


def _exit(program: DeviceProgram) -> Iterator[str]:
    for number, o in enumerate(program.signature.outputs):
        if o.adopt is None:
            yield f"to host    {_typed(o.dtype, o.shape)} output {number}"
        else:
            yield f"on device  {_typed(o.dtype, o.shape)} {program.signature.shared[o.adopt].name}, which is written"


def _typed(dtype: str, shape: Sequence[object]) -> str:
    return f"{dtype}[{','.join(map(str, shape))}]"


def _steps(program: DeviceProgram, steps: Sequence[Step], depth: int = 0) -> Iterator[str]:
    pad = "  " * depth

    def at(address: Address) -> str:
        buffer = program.buffers[address.buffer]
        names = {
            "input": [i.name for i in program.signature.inputs],
            "shared": [s.name for s in program.signature.shared],
        }
        named = names[buffer.space][buffer.number] if buffer.space in names else ""
        base = named or (f"output {buffer.number}" if buffer.space == "output" else f"#{address.buffer}")
        return base if address.offset == 0 else f"{base} + {address.offset}"

    def argument(a: Address | Size | TensorMap) -> str:
        if isinstance(a, TensorMap):
            return f"tiles of {' x '.join(map(str, a.box))} of {at(a.address)}"
        return at(a) if isinstance(a, Address) else str(a)

    def array(o: Operand) -> str:
        size = " * ".join(map(str, (itemsize(o.dtype), *o.shape)))
        return f"{_typed(o.dtype, o.shape)} {at(o.address)} ({size} bytes)"

    for step in steps:
        match step:
            case Launch():
                kernel = program.kernels[step.kernel]
                grid = ", ".join(map(str, step.grid))
                shared = f", {kernel.shared} bytes shared" if kernel.shared else ""
                given = ", ".join(map(argument, step.arguments))
                several = f", {step.layers} at once" if step.layers > 1 else ""
                yield f"{pad}launch     {kernel.name} ({grid}) x {kernel.block}{shared}: {kernel.what}{several}"
                yield f"{pad}             {given}"
            case Copy():
                yield f"{pad}copy       {at(step.source)} -> {at(step.target)}, {step.bytes} bytes"
            case Allocate():
                yield f"{pad}allocate   #{step.buffer}, {program.buffers[step.buffer].bytes} bytes"
            case ReadSize():
                yield f"{pad}to host    the size {step.name} from {at(step.source)} (8 bytes)"
            case CheckSize():
                yield f"{pad}check      {step.left} == {step.right}"
            case CheckStatus():
                yield f"{pad}to host    the checks' status from {at(step.source)} ({8 * STATUS_WORDS} bytes)"
            case ToHost():
                yield f"{pad}to host    {array(step.source)}"
            case ToDevice():
                yield f"{pad}to device  {array(step.target)}"
            case HostStep():
                yield f"{pad}on host    {step.call.name}"
            case DeviceCall():
                yield f"{pad}launch     {step.call.name}: code of the user's, on the host if the device takes none"
            case Loop():
                stop = f", until {at(step.stop)} holds (1 byte to host each turn)" if step.stop else ""
                yield f"{pad}for {step.index} < {step.length}{stop}"
                yield from _steps(program, step.body, depth + 1)
            case IfElse():
                yield f"{pad}if {at(step.flag)} (1 byte to host)"
                yield from _steps(program, step.then, depth + 1)
                yield f"{pad}else"
                yield from _steps(program, step.otherwise, depth + 1)
