"""A function as a program for a device: its kernels, its memory, and the steps that a host takes with them.

Code generation makes a `DeviceProgram`; `launch.execute` runs it.  Every address is a buffer's base plus a size expression in bytes,
every argument of a kernel eight bytes.  Steps that are `Launch`, `Copy`, `DeviceCall` and `Loop` of such never look at a result on
their way, so they can be captured as a graph, `Allocate` being done before: a program of these alone as one, a program with
`CheckStatus` between as several (`segments`).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from tcc.ir import dims
from tcc.ir.dims import Size, evaluate
from tcc.runtime.host import HostCall
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
