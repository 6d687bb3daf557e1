"""A function as a program for a device: its kernels, its memory, and the steps that a host takes with them.

Code generation makes a `DeviceProgram`; `execute` runs it on any `Device`: a driver, or the emulator of the tests.  Every
address is a buffer's base plus a size expression in bytes, every argument of a kernel eight bytes.  Steps that are `Launch`,
`Copy`, `DeviceCall` and `Loop` of such never look at a result on their way, so they can be captured as a graph, `Allocate` being done
before: a program of these alone as one, a program with `CheckStatus` between as several (`segments`).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from tcc.ir import dims
from tcc.ir.dims import Size, evaluate
from tcc.ir.types import memory_dtype
from tcc.runtime.host import HostCall, perform
from tcc.runtime.signature import Signature

Array = np.ndarray[Any, Any]
STATUS_WORDS = 5
MOST_STRIDE = 1 << 40  # bytes, of a tensor map
MULTIPROCESSORS = dims.name("device.multiprocessors")  # a size that each device says when it runs


class DeviceKernel(NamedTuple):
    """`text` is what the device loads: PTX, or LLVM for the emulator.  The kernel is `name(struct args)` with `slots` i64."""

    name: str
    text: str
    block: int  # threads
    slots: int
    shared: int = 0  # bytes of dynamic shared memory
    what: str = ""  # the op that it is for, as profiles and messages show it


class Buffer(NamedTuple):
    """Memory of the device.  Of "input", "shared" and "output" it is the caller's `number` of that kind; "constant" is
    the program's own; "scratch" belongs to a call; "late" is made by `Allocate`, an output if `number` is not negative."""

    space: str
    number: int = -1
    bytes: Size = 0


class Address(NamedTuple):
    buffer: int
    offset: Size = 0  # bytes


MAP_WORDS = 16
# what the driver is asked for: numbers of 16 bits, swizzled, with 0 where there are none
UINTS = {1: 0, 2: 1}  # by their bytes
NOT_INTERLEAVED, SWIZZLE_128, PROMOTE_256, ZEROS = 0, 3, 3, 0


class Walk(NamedTuple):
    """How a tile takes pixels of images, as a convolution does (the driver's im2col mode): along the width `steps` apart from its
    place `lower` to before its end moved by `upper`, then so along the height, then image by image.  Each pair is of width and height.
    """

    lower: tuple[int, int]
    upper: tuple[int, int]
    steps: tuple[int, int]


class TensorMap(NamedTuple):
    """An argument of 16 words: how the tile copies of sm_90 see an array, whose first axis is dense, of bytes or halves.

    `strides` are those of the outer axes, in bytes; a tile is `box` elements along the first two of three axes, in rows of 128 bytes
    that are swizzled.  With a `walk` the axes are channels, width, height and images, and `box` is of channels and of pixels.
    What lies outside of the array is zero in a tile.
    """

    address: Address
    sizes: tuple[Size, ...]
    strides: tuple[Size, ...]
    box: tuple[int, int]
    itemsize: int
    walk: Walk | None = None


class Launch(NamedTuple):
    """`otherwise` is launched instead where one of the sizes in `needs` is less than its number, or an array has no tensor map.
    `layers` ops like `op` are done at once, along the y axis."""

    kernel: str
    grid: tuple[Size, Size, Size]
    arguments: tuple[Address | Size | TensorMap, ...]
    op: int = 0  # its number in `DeviceProgram.ops`
    otherwise: tuple[Launch, ...] = ()
    needs: tuple[tuple[Size, int], ...] = ()
    layers: int = 1


class Copy(NamedTuple):
    """Inside the device."""

    target: Address
    source: Address
    bytes: Size


class Allocate(NamedTuple):
    """A late buffer of bytes that are known by now."""

    buffer: int


class ReadSize(NamedTuple):
    """The i64 at an address becomes a size; a negative one fails as operation `op`."""

    name: str
    source: Address
    op: int


Tree = int | tuple[Any, ...]  # a number, ("input", its number), or (an op's name, operands...)
HOST_OPS: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "neg": operator.neg,
    "minimum": min,
    "maximum": max,
    "where": lambda c, a, b: a if c else b,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "eq": operator.eq,
    "ne": operator.ne,
}


class HostSize(NamedTuple):
    """A size that the host makes of integer scalars among the inputs; a negative one fails as operation `op`, or as the first of
    `checks` that does not hold: trees of indices, their bounds and operations, which come before it."""

    name: str
    tree: Tree
    op: int
    checks: tuple[tuple[Tree, Size, int], ...] = ()

    @property
    def inputs(self) -> set[int]:
        """The numbers of those that it is made of."""

        def within(tree: Tree) -> set[int]:
            if isinstance(tree, int):
                return set()
            return {tree[1]} if tree[0] == "input" else set().union(*map(within, tree[1:]))

        return within(self.tree)

    def of(self, inputs: Sequence[Any]) -> int:
        return self.value(self.tree, inputs)

    def failed(self, size: int, inputs: Sequence[Any], sizes: Mapping[str, int]) -> tuple[int, int, int]:
        """The operation that a negative size fails as, and the first two of its numbers."""
        for tree, bound, op in self.checks:
            index, most = self.value(tree, inputs), evaluate(bound, sizes)
            if not -most <= index < most:
                return op, index, most
        return self.op, size, 0

    @staticmethod
    def value(tree: Tree, inputs: Sequence[Any]) -> int:
        def value(tree: Tree) -> Any:
            if isinstance(tree, int):
                return tree
            if tree[0] == "input":
                return int(inputs[tree[1]])
            made = HOST_OPS[tree[0]](*map(value, tree[1:]))
            return made if isinstance(made, bool) else (made + (1 << 63)) % (1 << 64) - (1 << 63)

        return int(value(tree))


class CheckSize(NamedTuple):
    left: Size
    right: Size
    op: int


class CheckStatus(NamedTuple):
    """Looks at what the checks before it have left at an address, STATUS_WORDS i64: fails if the first is not zero, as the operation
    that the last one numbers, with the three between.  Checks after one that failed leave it as it is.
    """

    source: Address


class Operand(NamedTuple):
    """A dense array of the device that a copy or the user's code is about."""

    address: Address
    dtype: str
    shape: tuple[Size, ...]


class ToHost(NamedTuple):
    """Makes the host's array `number` of one of the device's; the host waits."""

    number: int
    source: Operand


class ToDevice(NamedTuple):
    target: Operand
    number: int


class HostStep(NamedTuple):
    """Python runs it, on the host's arrays by their numbers.  `sizes` follow the operands as i64 scalars; `results` are the
    numbers of those that it makes, with their dtypes and shapes.
    """

    call: HostCall
    operands: tuple[int, ...]
    sizes: tuple[Size, ...]
    results: tuple[tuple[int, str, tuple[Size, ...]], ...]


class DeviceCall(NamedTuple):
    """Code of the user's: the function's `on_device` gets the device, and addresses and arrays of operands and results.  It launches
    kernels, the same ones for the same arrays, which its first call loads; a device that takes none of it, and so captures
    nothing, has Python run the function instead.
    """

    call: HostCall
    operands: tuple[Operand, ...]
    results: tuple[Operand, ...]


@dataclass(frozen=True)
class Loop:
    """`index` goes from 0 to `length` - 1, or until the bool at `stop` holds after a turn."""

    index: str
    length: Size
    body: tuple[Step, ...]
    stop: Address | None = None


@dataclass(frozen=True)
class IfElse:
    flag: Address
    then: tuple[Step, ...]
    otherwise: tuple[Step, ...]


Step = (
    Launch
    | Copy
    | Allocate
    | ReadSize
    | CheckSize
    | CheckStatus
    | ToHost
    | ToDevice
    | HostStep
    | DeviceCall
    | Loop
    | IfElse
)


@dataclass(frozen=True)
class DeviceProgram:
    """`buffers` are numbered by their place; `constants` are the contents of the buffers of that space, by number."""

    kernels: Mapping[str, DeviceKernel]
    buffers: tuple[Buffer, ...]
    steps: tuple[Step, ...]
    signature: Signature
    constants: tuple[Array, ...] = ()
    ops: Mapping[int, Any] = field(default_factory=dict)  # what failures are explained by
    host_sizes: tuple[HostSize, ...] = ()  # to be known before it runs

    @property
    def segments(self) -> list[tuple[Step, ...] | CheckStatus]:
        """The steps in stretches that can be captured, and the checks between them; none if some step cannot be."""
        found: list[list[Step] | CheckStatus] = []
        for step in self.steps:
            if isinstance(step, CheckStatus):
                found.append(step)
                continue
            own = isinstance(step, Allocate) and self.buffers[step.buffer].number < 0  # no output
            if not own and not all(is_captured(s) for s in walk([step])):
                return []
            if not found or isinstance(found[-1], CheckStatus):
                found.append([])
            found[-1].append(step)  # type: ignore[union-attr]
        return [s if isinstance(s, CheckStatus) else tuple(s) for s in found]

    def walk(self) -> Iterator[Step]:
        """Every step, outer before inner."""
        return walk(self.steps)


def walk(steps: Sequence[Step]) -> Iterator[Step]:
    """Every step, outer before inner."""
    for step in steps:
        yield step
        if isinstance(step, Loop):
            yield from walk(step.body)
        elif isinstance(step, IfElse):
            yield from walk(step.then)
            yield from walk(step.otherwise)


def is_captured(step: Step) -> bool:
    return isinstance(step, Launch | Copy | DeviceCall) or (isinstance(step, Loop) and step.stop is None)


class Device(Protocol):
    """What runs a program.  Calls are taken in order; only `to_host` and `synchronise` wait.

    Inside `with device:` it is one thread's.  `dlpack` is its kind and number in DLPack's terms; a grid may hang on how many
    `multiprocessors` it has.
    """

    name: str
    dlpack: tuple[int, int]
    multiprocessors: int

    def __enter__(self) -> Any: ...
    def __exit__(self, *error: Any) -> None: ...
    def alloc(self, bytes: int) -> int: ...
    def free(self, address: int) -> None: ...
    def to_device(self, address: int, source: Array) -> None: ...
    def to_host(self, target: Array, address: int) -> None: ...
    def copy(self, target: int, source: int, bytes: int) -> None: ...
    def tensor_map(self, address: int, map: TensorMap, sizes: Mapping[str, int]) -> Sequence[int]: ...
    def launch(self, kernel: DeviceKernel, grid: tuple[int, int, int], arguments: Sequence[int]) -> None: ...
    def synchronise(self) -> None: ...


class StepFailed(Exception):
    """An operation that can fail did: its number in the program's `ops`, and what it says."""

    def __init__(self, op: int, values: tuple[int, int, int]) -> None:
        super().__init__(f"operation {op} failed with {values}")
        self.op, self.values = op, values


def execute(
    program: DeviceProgram,
    device: Device,
    bound: Mapping[int, int],
    sizes: dict[str, int],
    poll: Callable[[], None] = lambda: None,
) -> dict[int, int]:
    """Runs a program whose inputs, shared variables, constants and early outputs lie at the addresses `bound`, by buffer.

    `sizes` has the program's `host_sizes` already, and gets those that are found on the way.  Scratch that is bound is not allocated.  Returns the addresses of late
    buffers that are outputs, which are the caller's.  What else was allocated goes back.
    """
    run = Run(program, device, dict(bound), sizes, poll)
    try:
        for number, buffer in enumerate(program.buffers):
            if buffer.space == "scratch" and number not in bound:
                run.allocate(number)
        run.steps(program.steps)
    except BaseException:
        run.release(keep=False)
        raise
    return run.release(keep=True)


@dataclass
class Run:
    """A program under way: where its buffers lie, and what its sizes are."""

    program: DeviceProgram
    device: Device
    bases: dict[int, int]
    sizes: dict[str, int]
    poll: Callable[[], None] = lambda: None
    owned: list[tuple[int, int]] = field(default_factory=list)  # buffer, address
    hosts: dict[int, Array] = field(default_factory=dict)  # the host's arrays

    def __post_init__(self) -> None:
        (name,) = MULTIPROCESSORS.names
        self.sizes[name] = self.device.multiprocessors

    def number(self, size: Size) -> int:
        return evaluate(size, self.sizes)

    def at(self, address: Address) -> int:
        return self.bases[address.buffer] + self.number(address.offset)

    def allocate(self, number: int) -> None:
        address = self.device.alloc(max(1, self.number(self.program.buffers[number].bytes)))
        self.bases[number] = address
        self.owned.append((number, address))

    def release(self, keep: bool) -> dict[int, int]:
        kept: dict[int, int] = {}
        for number, address in self.owned:
            buffer = self.program.buffers[number]
            if keep and buffer.space == "late" and buffer.number >= 0:
                kept[number] = address
            else:
                self.device.free(address)
        self.owned = []
        return kept

    def steps(self, steps: Sequence[Step]) -> None:
        for step in steps:
            self.step(step)

    def step(self, step: Step) -> None:
        if isinstance(step, Launch):
            self.launch(step)
        elif isinstance(step, Copy):
            self.device.copy(self.at(step.target), self.at(step.source), self.number(step.bytes))
        elif isinstance(step, Allocate):
            self.allocate(step.buffer)
        elif isinstance(step, ReadSize):
            (value,) = self.read(step.source, "i64", 1)
            if value < 0:
                raise StepFailed(step.op, (int(value), 0, 0))
            self.sizes[step.name] = int(value)
        elif isinstance(step, CheckSize):
            left, right = self.number(step.left), self.number(step.right)
            if left != right:
                raise StepFailed(step.op, (left, right, 0))
        elif isinstance(step, CheckStatus):
            self.check(step)
        elif isinstance(step, ToHost):
            self.hosts[step.number] = self.fetch(step.source)
        elif isinstance(step, ToDevice):
            self.send(step.target, self.hosts[step.number])
        elif isinstance(step, HostStep):
            self.host(step)
        elif isinstance(step, DeviceCall):
            self.device_call(step)
        elif isinstance(step, Loop):
            self.loop(step)
        else:
            (flag,) = self.read(step.flag, "bool", 1)
            self.steps(step.then if flag else step.otherwise)

    def check(self, step: CheckStatus) -> None:
        failed, *values, op = self.read(step.source, "i64", STATUS_WORDS).tolist()
        if failed:
            raise StepFailed(op, (values[0], values[1], values[2]))

    def launch(self, step: Launch) -> None:
        if step.otherwise and not self.fits(step):
            for other in step.otherwise:
                self.launch(other)
            return
        grid = self.grid(step)
        if all(grid):
            self.device.launch(self.program.kernels[step.kernel], grid, self.arguments(step))

    def grid(self, step: Launch) -> tuple[int, int, int]:
        x, y, z = (self.number(g) for g in step.grid)
        return x, y, z

    def arguments(self, step: Launch) -> list[int]:
        given: list[int] = []
        for a in step.arguments:
            if isinstance(a, TensorMap):
                given += self.device.tensor_map(self.at(a.address), a, self.sizes)
            else:
                given.append(self.at(a) if isinstance(a, Address) else self.number(a))
        return given

    def fits(self, step: Launch) -> bool:
        maps = (a for a in step.arguments if isinstance(a, TensorMap))
        return all(self.number(size) >= least for size, least in step.needs) and all(map(self.has_map, maps))

    def has_map(self, map: TensorMap) -> bool:
        """Whether the axes of an array lie as a tensor map wants: at multiples of 16 bytes, apart, and not too far."""
        sizes, strides = [self.number(s) for s in map.sizes], [self.number(s) for s in map.strides]
        aligned = not any(n % 16 for n in (self.at(map.address), *strides))
        apart = all(n * step <= beyond for n, step, beyond in zip(sizes, (map.itemsize, *strides), strides))
        return aligned and apart and strides[-1] < MOST_STRIDE and min(sizes) > 0

    def read(self, source: Address, dtype: str, count: int) -> Array:
        found = np.empty(count, memory_dtype(dtype))
        self.device.to_host(found, self.at(source))
        return found

    def loop(self, step: Loop) -> None:
        for i in range(self.number(step.length)):
            self.poll()
            self.sizes[step.index] = i
            mark = len(self.owned)
            self.steps(step.body)
            for _, address in self.owned[mark:]:  # late memory of one turn
                self.device.free(address)
            del self.owned[mark:]
            if step.stop is not None and self.read(step.stop, "bool", 1)[0]:
                break

    def fetch(self, source: Operand) -> Array:
        array = np.empty([self.number(s) for s in source.shape], memory_dtype(source.dtype))
        if array.size:
            self.device.to_host(array, self.at(source.address))
        return array

    def send(self, target: Operand, array: Array) -> None:
        if array.size:
            self.device.to_device(self.at(target.address), array)

    def host(self, step: HostStep) -> None:
        given = [self.hosts[n].copy() for n in step.operands]  # which the function may keep
        given += [np.array(self.number(s), np.int64) for s in step.sizes]
        made = [np.empty([self.number(s) for s in shape], memory_dtype(d)) for _, d, shape in step.results]
        perform(step.call, given, made)
        self.hosts |= {number: array for (number, _, _), array in zip(step.results, made)}

    def device_call(self, step: DeviceCall) -> None:
        arrays = [
            [(self.at(o.address), o._replace(shape=tuple(map(self.number, o.shape)))) for o in operands]
            for operands in (step.operands, step.results)
        ]
        if step.call.function.on_device(self.device, *arrays):  # type: ignore[attr-defined]
            return
        made = [np.empty([self.number(s) for s in r.shape], memory_dtype(r.dtype)) for r in step.results]
        perform(step.call, [self.fetch(o) for o in step.operands], made)
        for result, array in zip(step.results, made):
            self.send(result, array)
