"""How a kernel's warps meet memory: the 32-byte sectors that each access of a warp touches, beside the fewest that could hold what it
asks for.  Counted on the emulator, whose loads and stores are noted with the thread and the line that they come from."""

from __future__ import annotations

import ctypes
import functools
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tcc.codegen import jit
from tcc.codegen.gpu import emulator
from tcc.codegen.gpu.emulator import Emulator
from tcc.codegen.target import host
from tcc.runtime.launch import DeviceKernel

SECTOR, WARP = 32, 32
Access = tuple[int, int, int, int, int]  # line, block, thread, address, bytes
_CHECKED = re.compile(r"call ptr @emu\.check\(ptr (%\S+), (i64 \d+), i64 \d+\)")
_BEFORE = """
declare void @tests_note(i64, i64, i64, ptr, i64)
define internal void @tests.note(i64 %line, ptr %at, i64 %bytes) {
  %x = load i32, ptr @emu.block
  %y = load i32, ptr getelementptr (i32, ptr @emu.block, i64 1)
  %z = load i32, ptr getelementptr (i32, ptr @emu.block, i64 2)
  %gx = load i32, ptr @emu.grid
  %gy = load i32, ptr getelementptr (i32, ptr @emu.grid, i64 1)
  %a = mul i32 %z, %gy
  %b = add i32 %a, %y
  %c = mul i32 %b, %gx
  %d = add i32 %c, %x
  %block = zext i32 %d to i64
  %t = load i32, ptr @emu.thread
  %thread = zext i32 %t to i64
  call void @tests_note(i64 %line, i64 %block, i64 %thread, ptr %at, i64 %bytes)
  ret void
}
"""
_noted: list[Access] = []


@ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 5)
def _note(line: int, block: int, thread: int, address: int, bytes: int) -> None:
    _noted.append((line, block, thread, address, bytes))


def _noting(text: str) -> str:
    """The kernel's module, with a note before each access that is looked at."""
    out = []
    for number, line in enumerate(text.splitlines()):
        found = _CHECKED.search(line)
        if found:
            out.append(f"  call void @tests.note(i64 {number}, ptr {found[1]}, {found[2]})")
        out.append(line)
    return "\n".join(out) + _BEFORE


@functools.lru_cache(64)
def _loaded(kernel: DeviceKernel) -> tuple[jit.Image, Callable[..., int]]:
    text, waits = emulator.host_text(kernel)
    code = emulator._compile(_noting(text), host(), waits)
    note = ctypes.cast(_note, ctypes.c_void_p).value or 0
    image = jit.Image.load([code], {**emulator._symbols(), "tests_note": note})
    kinds = [ctypes.c_void_p] * 2 + [ctypes.c_int64] * 2 + [ctypes.c_void_p] + [ctypes.c_int64] * 2
    return image, jit.function(image.address("emu_launch"), ctypes.c_int32, *kinds, ctypes.c_void_p)


class Traffic(NamedTuple):
    """Of one kernel: the sectors that its warps' accesses touch, and the fewest that would do."""

    touched: int
    least: int

    @property
    def waste(self) -> float:
        return self.touched / max(self.least, 1)


class Counting(Emulator):
    """An emulator that counts; `traffic` is by the kernels' names."""

    def __init__(self) -> None:
        super().__init__()
        self.traffic: dict[str, Traffic] = {}

    def launch(self, kernel: DeviceKernel, grid: tuple[int, int, int], arguments: Sequence[int]) -> None:
        _noted.clear()
        plain, emulator._loaded = emulator._loaded, _loaded  # type: ignore[assignment]
        try:
            super().launch(kernel, grid, arguments)
        finally:
            emulator._loaded = plain
        spans = [(a, a + b.nbytes) for a, b in self.blocks.items()]
        before = self.traffic.get(kernel.name, Traffic(0, 0))
        here = counted([n for n in _noted if any(low <= n[3] < high for low, high in spans)])
        self.traffic[kernel.name] = Traffic(before.touched + here.touched, before.least + here.least)


def counted(accesses: Sequence[Access]) -> Traffic:
    """The n-th time that threads of a warp come to a line is one access of the warp."""
    times: dict[tuple[int, int, int], int] = defaultdict(int)
    warps: dict[Any, list[tuple[int, int]]] = defaultdict(list)
    for line, block, thread, address, bytes in accesses:
        turn = times[line, block, thread]
        times[line, block, thread] = turn + 1
        warps[line, block, thread // WARP, turn].append((address, bytes))
    touched = least = 0
    for asked in warps.values():
        sectors = {s for a, n in asked for s in range(a // SECTOR, (a + n - 1) // SECTOR + 1)}
        touched += len(sectors)
        least += -(-len({b for a, n in asked for b in range(a, a + n)}) // SECTOR)
    return Traffic(touched, least)
