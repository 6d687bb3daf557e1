"""How a kernel's warps meet memory: the 32-byte sectors that each access of a warp touches, beside the fewest that could hold what it
asks for, and of shared memory the waves in which its banks, each of which gives one word at a time, serve it.  Counted on the
emulator, whose loads and stores are noted with the thread and the line that they come from."""

from __future__ import annotations

import ctypes
import functools
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tcc.codegen import jit
from tcc.codegen.gpu import emulator
from tcc.codegen.gpu.emulator import Emulator
from tcc.codegen.target import host
from tcc.runtime.device_program import DeviceKernel

SECTOR, WARP = 32, 32
BANKS, WORD = 32, 4
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
  %address = ptrtoint ptr %at to i64
  %shared = ptrtoint ptr @emu.shared to i64
  %offset = sub i64 %address, %shared
  %near = icmp ult i64 %offset, SHARED_BYTES
  %negative = sub i64 0, %bytes
  %given = select i1 %near, i64 %negative, i64 %bytes
  call void @tests_note(i64 %line, i64 %block, i64 %thread, ptr %at, i64 %given)
  ret void
}
""".replace(
    "SHARED_BYTES", str(emulator.SHARED_BYTES)
)  # whose accesses have their bytes noted as a negative number
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
    """Of one kernel: the sectors that its warps' accesses touch, or the waves that they take, and the fewest that would do."""

    touched: int
    least: int

    @property
    def waste(self) -> float:
        return self.touched / max(self.least, 1)


class Counting(Emulator):
    """An emulator that counts; `traffic` of the device's memory and `waves` of shared memory are by the kernels' names."""

    def __init__(self) -> None:
        super().__init__()
        self.traffic: dict[str, Traffic] = {}
        self.waves: dict[str, Traffic] = {}

    def launch(self, kernel: DeviceKernel, grid: tuple[int, int, int], arguments: Sequence[int]) -> None:
        _noted.clear()
        plain, emulator._loaded = emulator._loaded, _loaded  # type: ignore[assignment]
        try:
            super().launch(kernel, grid, arguments)
        finally:
            emulator._loaded = plain
        spans = [(a, a + b.nbytes) for a, b in self.blocks.items()]
        far = [n for n in _noted if any(low <= n[3] < high for low, high in spans)]
        near = [(*where, -bytes) for *where, bytes in _noted if bytes < 0]
        for totals, here in ((self.traffic, counted(far)), (self.waves, served(near))):  # type: ignore[arg-type]
            before = totals.get(kernel.name, Traffic(0, 0))
            totals[kernel.name] = Traffic(before.touched + here.touched, before.least + here.least)


def by_warp(accesses: Sequence[Access]) -> list[list[tuple[int, int]]]:
    """Addresses and bytes: the n-th time that threads of a warp come to a line is one access of the warp."""
    times: dict[tuple[int, int, int], int] = defaultdict(int)
    warps: dict[Any, list[tuple[int, int]]] = defaultdict(list)
    for line, block, thread, address, bytes in sorted(accesses, key=lambda a: a[2]):
        turn = times[line, block, thread]
        times[line, block, thread] = turn + 1
        warps[line, block, thread // WARP, turn].append((address, bytes))
    return list(warps.values())


def served(accesses: Sequence[Access]) -> Traffic:
    """Waves of shared memory's banks: as many lanes as ask for 128 bytes come at once, and wait for the bank that has to give
    most words."""
    waves = least = 0
    for asked in by_warp(accesses):
        bytes = max(WORD, *(n for _, n in asked))
        each = BANKS * WORD // bytes
        for start in range(0, len(asked), each):
            words = {
                w for a, n in asked[start : start + each] for w in range(a // WORD, (a + n - 1) // WORD + 1)
            }
            waves += max(Counter(w % BANKS for w in words).values())
            least += -(-len(words) // BANKS)
    return Traffic(waves, least)


def counted(accesses: Sequence[Access]) -> Traffic:
    """Sectors of the device's memory."""
    touched = least = 0
    for asked in by_warp(accesses):
        sectors = {s for a, n in asked for s in range(a // SECTOR, (a + n - 1) // SECTOR + 1)}
        touched += len(sectors)
        least += -(-len({b for a, n in asked for b in range(a, a + n)}) // SECTOR)
    return Traffic(touched, least)
