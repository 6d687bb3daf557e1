"""Runs kernels on the host, with no GPU: what the tests check kernels by.

Every thread of a block takes its turn in one host thread, those of a kernel with collectives as coroutines
(tcc.codegen.gpu.coroutines).  They, and blocks, may be taken in descending order, which brings other results where a barrier is missing
or a block relies on another one.
Every load and store is checked to lie in memory that the device has given out; shared memory begins as NaN.
"""

from __future__ import annotations

import bisect
import ctypes
import functools
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tcc.codegen import jit
from tcc.codegen.emit import VecType
from tcc.codegen.gpu.coroutines import (
    COLLECTIVE,
    DIVERGENT,
    PHASE_WAITS,
    coroutine,
    launch_text,
    plain_block,
    scheduler,
)
from tcc.codegen.gpu.emulated import (
    COPIES,
    PHASES,
    POINTER,
    TOTALS,
    UNDER_WAY_PRODUCTS,
    mma64_text,
    mma_text,
    wgmma_text,
)
from tcc.codegen.gpu.emulated_tiles import pixel_copy_text, tile_copy_text
from tcc.codegen.gpu.ops import THREADS, used
from tcc.codegen.keys import cache_key
from tcc.codegen.target import Target, host
from tcc.ir.dims import evaluate
from tcc.runtime import cache
from tcc.runtime.device_program import Array, DeviceKernel, TensorMap

SHARED_BYTES = 228 << 10
MOST_GRID = (1 << 31) - 1, 65535, 65535

_STATE = f"""
@emu.thread = internal global i32 0
@emu.block = internal global [3 x i32] zeroinitializer
@emu.grid = internal global [3 x i32] zeroinitializer
@emu.shared = internal global [{SHARED_BYTES} x i8] zeroinitializer, align 1024
@emu.trash = internal global [4096 x i8] zeroinitializer, align 128
@emu.ranges = internal global ptr null
@emu.range_count = internal global i64 0
@emu.low = internal global i64 0
@emu.high = internal global i64 0
@emu.fault = internal global [3 x i64] zeroinitializer
define internal ptr @emu.check(ptr %p, i64 %bytes, i64 %odd) noinline {{
entry:
  %at = ptrtoint ptr %p to i64
  %rest = and i64 %at, %odd
  %even = icmp eq i64 %rest, 0
  br i1 %even, label %where, label %bad
where:
  %end = add i64 %at, %bytes
  %low = load i64, ptr @emu.low
  %high = load i64, ptr @emu.high
  %above = icmp uge i64 %at, %low
  %below = icmp ule i64 %end, %high
  %in = and i1 %above, %below
  br i1 %in, label %good, label %shared
shared:
  %s = ptrtoint ptr @emu.shared to i64
  %past = add i64 %s, {SHARED_BYTES}
  %s_above = icmp uge i64 %at, %s
  %s_below = icmp ule i64 %end, %past
  %s_in = and i1 %s_above, %s_below
  br i1 %s_in, label %good, label %search
search:
  %table = load ptr, ptr @emu.ranges
  %count = load i64, ptr @emu.range_count
  br label %head
head:
  %i = phi i64 [0, %search], [%next, %step]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %look, label %bad
look:
  %pair = getelementptr [2 x i64], ptr %table, i64 %i
  %second = getelementptr i64, ptr %pair, i64 1
  %lo = load i64, ptr %pair
  %hi = load i64, ptr %second
  %l_above = icmp uge i64 %at, %lo
  %l_below = icmp ule i64 %end, %hi
  %l_in = and i1 %l_above, %l_below
  br i1 %l_in, label %found, label %step
step:
  %next = add i64 %i, 1
  br label %head
found:
  store i64 %lo, ptr @emu.low
  store i64 %hi, ptr @emu.high
  br label %good
good:
  ret ptr %p
bad:
  %fault = load i64, ptr @emu.fault
  %first = icmp eq i64 %fault, 0
  %kept = select i1 %first, i64 %at, i64 %fault
  store i64 %kept, ptr @emu.fault
  ret ptr @emu.trash
}}
"""

_FUNCTION = re.compile(r"^define [^\n]*(?:}\n|{\n.*?^}\n)", re.M | re.S)  # some stand in one line
_LOAD = re.compile(r"^(\s+%\S+ = load )(.+?), ptr (%[\w.]+)(.*)$")
_STORE = re.compile(r"^(\s+store )(<[^>]*>|\S+) (.+), ptr (%[\w.]+)(.*)$")
_DERIVED = re.compile(r"^\s+(%[\w.]+) = (?:getelementptr|select|phi|alloca)")
_ELEMENT = re.compile(r"^<(\d+) x (\w+)>$")


def _bytes(t: str) -> int:
    """Of a type in memory."""
    vector = _ELEMENT.match(t)
    if vector:
        return int(vector[1]) * _bytes(vector[2])
    return {"ptr": 8, "i128": 16}.get(t) or VecType(t).bytes


def _alignment(t: str, line: str) -> int:
    """What an access promises of its address; of one element nothing but its size is asked."""
    said = re.search(r", align (\d+)", line)
    return int(said[1]) if said else _bytes(t) if _bytes(t) in (1, 2, 4, 8) else 1


def checked(function: str) -> str:
    """A function whose loads and stores ask whether the address is one that it may use, and as aligned as they say.  Its own
    stack is left out."""
    local = {"%args", "%ctx"}
    for line in function.splitlines():
        found = _DERIVED.match(line)
        if found and (
            "alloca" in line or any(re.search(re.escape(n) + r"\b", line.split("=", 1)[1]) for n in local)
        ):
            local.add(found[1])
    out: list[str] = []
    for count, line in enumerate(function.splitlines()):
        load, store = _LOAD.match(line), _STORE.match(line)
        pointer = load[3] if load else store[4] if store else ""
        if pointer and pointer not in local:
            t = load[2] if load else store[2]  # type: ignore[index]
            given = f"ptr {pointer}, i64 {_bytes(t)}, i64 {_alignment(t, line) - 1}"
            out.append(f"  %emu.p{count} = call ptr @emu.check({given})")
            line = line.replace(f"ptr {pointer}", f"ptr %emu.p{count}", 1)
        out.append(line)
    return "\n".join(out) + "\n"


def host_text(kernel: DeviceKernel) -> tuple[str, bool]:
    """The module that runs a kernel, from its text for the device; and whether it has coroutines."""
    ops = used(kernel.text)
    waits = any(op.wait for op in ops)
    unchecked = re.search(r"@llvm\.(?:masked|mem)\w*\.[\w.]+", kernel.text)
    if unchecked:
        raise KernelError(f"{kernel.name}: accesses by {unchecked[0]} cannot be checked")
    kept = [
        line for line in kernel.text.splitlines() if not line.startswith("declare ") or "@tcc." not in line
    ]
    declares = "\n".join(line for line in kept if line.startswith("declare "))
    body = "\n".join(line for line in kept if not line.startswith("declare ")) + "\n"
    functions = [checked(f) for f in _FUNCTION.findall(body)]
    rest = _FUNCTION.sub("", body)
    head = re.compile(rf"define [^\n]*@{kernel.name}\(")
    if waits:
        functions = [coroutine(f, kernel.name) if head.match(f) else f for f in functions]
    parts = [rest, declares, _STATE, *(op.host_text for op in ops), *functions]
    if waits:
        parts += [COLLECTIVE, POINTER]
    for op in ops:
        if op.name.startswith("mma."):
            kind = op.name[4:]
            parts.append(mma64_text() if kind == "f64" else mma_text(kind))
    if any(op.name.startswith("cop") for op in ops):
        parts.append(COPIES)
    phases = any(op.wait == "phase" for op in ops)
    if phases:
        kinds = dict.fromkeys(op.name.split(".")[1] for op in ops if op.name.startswith("wgmma."))
        parts += [PHASES, PHASE_WAITS, TOTALS, UNDER_WAY_PRODUCTS]
        parts += [tile_copy_text(), *map(wgmma_text, kinds)]
    if any(op.name == "pixel_copy" for op in ops):
        parts.append(pixel_copy_text())
    parts += [scheduler(kernel.name, phases) if waits else plain_block(kernel.name), launch_text()]
    lines: dict[str, None] = {}
    text: list[str] = []
    for line in "\n".join(parts).splitlines():
        if not line.startswith("declare "):
            text.append(line)
        else:
            lines[line] = None
    needs_umin = "declare i64 @llvm.umin.i64(i64, i64)"
    if "@llvm.umin.i64(" in "\n".join(text):
        lines[needs_umin] = None
    return "\n".join([*lines, *text]) + "\n", waits


@functools.cache
def _symbols() -> dict[str, int]:
    library = ctypes.CDLL(None)
    names = ("malloc", "free", "memset", "memcpy", "memmove")
    return {n: int(ctypes.cast(getattr(library, n), ctypes.c_void_p).value or 0) for n in names}


def _compile(text: str, target: Target, passes: bool) -> bytes:
    """Code that is made at once, rather than code that is fast: a kernel runs a few times.  `passes` splits coroutines."""
    from llvmlite import binding as llvm

    if not passes:
        return jit.compile_object(text, target, level=0)
    with jit.parsed(text, target) as module, jit.machine_of(target, 0) as machine:
        options = llvm.create_pipeline_tuning_options(speed_level=0)
        module.data_layout = str(machine.target_data)
        builder = llvm.create_pass_builder(machine, options)
        builder.getModulePassManager().run(module, builder)
        return bytes(machine.emit_object(module))


@functools.lru_cache(512)
def _loaded(kernel: DeviceKernel) -> tuple[jit.Image, Callable[..., int]]:
    text, waits = host_text(kernel)
    key = cache_key("emulated", f"{waits}\n{text}", host())
    code = cache.get(key)
    if code is None:
        code = _compile(text, host(), waits)
        cache.put(key, code)
    image = jit.Image.load([code], _symbols())
    pointer, word = ctypes.c_void_p, ctypes.c_int64
    run = jit.function(
        image.address("emu_launch"),
        ctypes.c_int32,
        pointer,
        pointer,
        word,
        word,
        pointer,
        word,
        word,
        pointer,
    )
    return image, run


def _site(text: str, code: int, index: int, size: int) -> str:
    """What the kernel's text says of the site that noted a fault."""
    found = re.search(rf"^; site {-1 - code}: (.*)", text, re.M)
    return f"{(found[1] if found else 'index #').replace('#', str(index))} is outside of 0..{size - 1}"


class KernelError(RuntimeError):
    """A kernel did what a GPU would not have allowed, or what would have had no one result."""


class Emulator:
    """A `Device` (tcc.runtime.launch) whose memory and threads are the host's; calls are done when they return."""

    multiprocessors = 2  # few, so that blocks that stay take several tiles

    def __init__(self, *, descending: bool = False) -> None:
        self.descending = descending
        self.blocks: dict[int, Array] = {}
        self.launched: list[str] = []

    def alloc(self, bytes: int) -> int:
        block = np.full(bytes + 256, 0xFF, np.uint8)
        address = -(-int(block.ctypes.data) // 128) * 128
        self.blocks[address] = block[address - int(block.ctypes.data) :][: max(1, bytes)]
        return address

    def free(self, address: int) -> None:
        del self.blocks[address]

    def to_device(self, address: int, source: Array) -> None:
        ctypes.memmove(address, np.ascontiguousarray(source).ctypes.data, source.nbytes)

    def to_host(self, target: Array, address: int) -> None:
        ctypes.memmove(target.ctypes.data, address, target.nbytes)

    def copy(self, target: int, source: int, bytes: int) -> None:
        ctypes.memmove(target, source, bytes)

    def synchronise(self) -> None: ...

    def tensor_map(self, address: int, map: TensorMap, sizes: Mapping[str, int]) -> list[int]:
        """As `@emu.tile_copy` and `@emu.pixel_copy` read it."""
        numbers = [evaluate(s, sizes) for s in (*map.sizes, *map.strides)]
        if map.walk is None:
            return [address, *numbers, *map.box, map.itemsize, *[0] * 7]
        channels, pixels = map.box
        corners = [n for pair in map.walk for n in pair]
        return [address, *numbers, *corners, pixels << 32 | channels, map.itemsize]

    def launch(self, kernel: DeviceKernel, grid: tuple[int, int, int], arguments: Sequence[int]) -> None:
        """KernelError for a divergent barrier, an address that is nobody's, and a grid that no device takes."""
        _, run = _loaded(kernel._replace(what=""))
        self.launched.append(kernel.name)
        if kernel.block % 32 or kernel.block > THREADS or kernel.shared > SHARED_BYTES:
            raise KernelError(
                f"{kernel.name}: blocks of {kernel.block} threads, {kernel.shared} bytes of shared memory"
            )
        if any(size > most for size, most in zip(grid, MOST_GRID)):
            raise KernelError(f"{kernel.name}: a grid of {grid} blocks")
        args = np.array(arguments or [0], np.int64)
        starts = sorted(self.blocks)
        given = sorted({starts[i] for a in args.tolist() if (i := bisect.bisect_right(starts, a) - 1) >= 0})
        ranges = np.array([(a, a + self.blocks[a].nbytes) for a in given], np.int64).reshape(-1, 2)
        sizes, fault = np.array(grid, np.int64), np.zeros(3, np.int64)
        tables = (args.ctypes.data, sizes.ctypes.data, kernel.block, int(self.descending), ranges.ctypes.data)
        status = run(*tables, len(ranges), kernel.shared, fault.ctypes.data)
        if fault[0] < 0:
            raise KernelError(_site(kernel.text, *map(int, fault)))
        if fault[0]:
            near = ", ".join(f"{a:#x} to {b:#x}" for a, b in ranges.tolist())
            inside = any(a <= fault[0] < b for a, b in ranges.tolist())
            wrong = "is not aligned, or near the end" if inside else f"is outside of {near}"
            raise KernelError(f"{kernel.name} ({kernel.what}): address {int(fault[0]):#x} {wrong}")
        if status == DIVERGENT:
            raise KernelError(f"{kernel.name} ({kernel.what}): threads of a block wait for different things")
