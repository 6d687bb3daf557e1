"""A kernel for a GPU: text over `@tcc.*` ops that both the device and the emulator can take, and how it is launched.

It is `void @name(ptr %args)`, `args` being eight-byte slots as a CPU kernel has them; on the device they are its parameters.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import llvmlite

from tcc.codegen.emit import Emit, VecType, is_number
from tcc.codegen.gpu.chips import TRIPLE, Chip
from tcc.codegen.gpu.ops import least_sm, used
from tcc.codegen.index import at_least, times
from tcc.codegen.kernel import PLACEHOLDER, Operand, Scratch, Slot
from tcc.ir import dims
from tcc.ir.dims import Size
from tcc.runtime import cache
from tcc.runtime.device_program import MAP_WORDS, DeviceKernel, Walk

BLOCK = 128  # threads of a block, unless a kernel says otherwise
MOST_BLOCKS = 1 << 16
BAND = 8  # rows of tiles that are taken together, for what they share to be in the second-level cache


@dataclass(frozen=True, slots=True)
class Status:
    """Slot: the address of four i64, of which the first says that the op failed."""


@dataclass(frozen=True, slots=True)
class TileMap:
    """Slot of 16 words: a `launch.TensorMap` of what has elements of some bytes."""

    array: Operand | Scratch
    sizes: tuple[Size, ...]
    strides: tuple[Size, ...]
    box: tuple[int, int]
    itemsize: int
    walk: Walk | None = None


GpuSlot = Slot | Status | TileMap
FIRST_MAP = "FIRST_MAP"  # stands for the word of the first map while the text is being written


@dataclass(frozen=True)
class GpuKernel:
    name: str
    text: str
    slots: tuple[GpuSlot, ...]
    grid: tuple[Size, Size, Size]
    block: int = BLOCK
    shared: int = 0
    resident: int = 1  # blocks that a multiprocessor must have registers for
    unless: tuple[
        GpuKernel, ...
    ] = ()  # what is launched instead where an operand has no map, or what it needs is not there
    needs: tuple[tuple[Size, int], ...] = ()  # sizes, and what they must be at least

    @property
    def words(self) -> int:
        """Of its arguments; maps come last, from a multiple of 64 bytes on."""
        maps = sum(isinstance(s, TileMap) for s in self.slots)
        plain = len(self.slots) - maps
        return -(-plain // 8) * 8 + MAP_WORDS * maps if maps else plain


def ceil_div(a: Size, b: int) -> Size:
    return dims.floordiv(dims.add(a, b - 1), b)


def blocks_for(threads: Size, block: int = BLOCK) -> tuple[Size, Size, Size]:
    """A grid of at least `threads` threads, unless that is more than a grid may have."""
    return dims.minimum(ceil_div(threads, block), MOST_BLOCKS), 1, 1


def finish(
    e: Emit,
    kind: str,
    slots: Sequence[GpuSlot],
    grid: tuple[Size, Size, Size],
    block: int = BLOCK,
    shared: int = 0,
    more: Sequence[str] = (),
    resident: int = 1,
) -> GpuKernel:
    """The kernel whose text, with PLACEHOLDER for its name, is in `e`; `more` are lines to put before it."""
    body = "\n".join([*sorted(e.declared), *more, e.text()])
    plain = sum(not isinstance(s, TileMap) for s in slots)
    body = body.replace(FIRST_MAP, str(-(-plain // 8) * 8))
    name = f"tcc_{kind}_{hashlib.sha256(f'{body}{block},{shared},{resident}'.encode()).hexdigest()[:20]}"
    return GpuKernel(name, body.replace(PLACEHOLDER, name), tuple(slots), grid, block, shared, resident)


# -- the vocabulary of threads ---------------------------------------------------------------------------------------


def thread(e: Emit) -> str:
    """Of the block, i64."""
    return e.value(f"zext i32 {e.call('i32', 'tcc.thread')} to i64")


def block_index(e: Emit, axis: str = "x") -> str:
    return e.value(f"zext i32 {e.call('i32', f'tcc.block.{axis}')} to i64")


def grid_size(e: Emit, axis: str = "x") -> str:
    return e.value(f"zext i32 {e.call('i32', f'tcc.grid.{axis}')} to i64")


def barrier(e: Emit) -> None:
    e.call("void", "tcc.barrier")


def tile_at(e: Emit, number: str, down: str, along: str) -> tuple[str, str]:
    """The row and the column of tile `number` of `down` by `along`, which are taken band by band.  The numbers are less than 2^31."""

    def short(value: str) -> str:
        return value if is_number(value) else e.value(f"trunc i64 {value} to i32")

    of_band = short(times(e, along, str(BAND)))
    t, rows = short(number), short(down)
    band, rest = e.value(f"udiv i32 {t}, {of_band}"), e.value(f"urem i32 {t}, {of_band}")
    first = e.value(f"mul i32 {band}, {BAND}")
    height = e.call("i32", "llvm.umin.i32", ("i32", e.value(f"sub i32 {rows}, {first}")), ("i32", str(BAND)))
    row = e.value(f"add i32 {first}, {e.value(f'urem i32 {rest}, {height}')}")
    column = e.value(f"udiv i32 {rest}, {height}")
    return e.value(f"zext i32 {row} to i64"), e.value(f"zext i32 {column} to i64")


def global_thread(e: Emit, block: int) -> tuple[str, str]:
    """The number of this thread in the grid's x axis, and how many there are."""
    first = e.value(f"add i64 {e.value(f'mul i64 {block_index(e)}, {block}')}, {thread(e)}")
    return first, e.value(f"mul i64 {grid_size(e)}, {block}")


class Divider:
    """Division of i64 numbers that are not negative by sizes, of which those of run time are asked about at the kernel's head.

    By a known size LLVM multiplies, in 32 bits if the number is `small`.  By one of run time d the upper half of the product with
    ceil(2^64 / d) is the quotient, as long as number times d is less than 2^64 (Granlund and Montgomery, 1994).
    """

    def __init__(self, e: Emit, sizes: dict[Size, str]) -> None:
        self.e = e
        self.factors = {text: self._factor(text) for size, text in sizes.items() if not isinstance(size, int)}

    def _factor(self, by: str) -> str:
        e, divisor = self.e, at_least(self.e, by, "1")
        return e.value(f"add i64 {e.value(f'udiv i64 -1, {divisor}')}, 1")

    def split(self, number: str, by: str, small: bool) -> tuple[str, str]:
        """Quotient and remainder."""
        e = self.e
        if by in self.factors:
            wide = e.value(f"zext i64 {number} to i128")
            product = e.value(f"mul i128 {wide}, {e.value(f'zext i64 {self.factors[by]} to i128')}")
            high = e.value(f"trunc i128 {e.value(f'lshr i128 {product}, 64')} to i64")
            quotient = e.value(f"select i1 {e.value(f'icmp eq i64 {by}, 1')}, i64 {number}, i64 {high}")
            return quotient, e.value(f"sub i64 {number}, {e.value(f'mul i64 {quotient}, {by}')}")
        if not small:
            return e.value(f"udiv i64 {number}, {by}"), e.value(f"urem i64 {number}, {by}")
        short = e.value(f"trunc i64 {number} to i32")
        q, r = e.value(f"udiv i32 {short}, {by}"), e.value(f"urem i32 {short}, {by}")
        return e.value(f"zext i32 {q} to i64"), e.value(f"zext i32 {r} to i64")


def shuffle(e: Emit, t: VecType, value: str, op: str, by: int | str) -> str:
    """`value` of another lane of the warp, of a type of up to eight bytes."""
    bits = 8 * t.bytes if t.elem != "i1" else 1
    plain = value if t.elem.startswith("i") else e.value(f"bitcast {t} {value} to i{bits}")
    if bits < 32:
        plain, kept = e.value(f"zext i{bits} {plain} to i32"), bits
    else:
        kept = 32
    if bits <= 32:
        got = e.call("i32", f"tcc.{op}", ("i32", plain), ("i32", str(by)))
        if kept < 32:
            got = e.value(f"trunc i32 {got} to i{bits}")
    else:
        low = e.value(f"trunc i64 {plain} to i32")
        high = e.value(f"trunc i64 {e.value(f'lshr i64 {plain}, 32')} to i32")
        a = e.call("i32", f"tcc.{op}", ("i32", low), ("i32", str(by)))
        b = e.call("i32", f"tcc.{op}", ("i32", high), ("i32", str(by)))
        upper = e.value(f"shl i64 {e.value(f'zext i32 {b} to i64')}, 32")
        got = e.value(f"or i64 {upper}, {e.value(f'zext i32 {a} to i64')}")
    return got if t.elem.startswith("i") else e.value(f"bitcast i{bits} {got} to {t}")


# -- PTX ---------------------------------------------------------------------------------------------------------------

_SHARED = "@tcc_shared = external addrspace(3) global [0 x i8], align 1024\n"


def module_text(kernel: GpuKernel) -> str:
    """The LLVM module of a kernel for the device."""
    ops = used(kernel.text)
    head = f"define void @{kernel.name}(ptr %args) #0"
    assert head in kernel.text
    size = max(1, kernel.words)
    align = 64 if size > len(kernel.slots) else 8
    device = f'define ptx_kernel void @{kernel.name}(ptr byval([{size} x i64]) align {align} "nvvm.grid_constant" %args) #1'
    text = re.sub(r"^declare [^\n]*@tcc\.[^\n]*$", "", kernel.text, flags=re.M).replace(head, device)
    bounds = f'"nvvm.reqntid"="{kernel.block}" "nvvm.minctasm"="{kernel.resident}"'
    attributes = f"attributes #0 = {{ nounwind }}\nattributes #1 = {{ nounwind {bounds} }}\n"
    shared = _SHARED if any(op.name == "shared" for op in ops) else ""
    return "".join([shared, *(op.device_text for op in ops), text, attributes])


def ptx(kernel: GpuKernel, chip: Chip) -> str:
    """The kernel as PTX, from the cache or made now; ValueError if it uses what the chip lacks, RuntimeError with LLVM's words if its text is wrong.

    Intrinsics are not declared in the text, so LLVM says which it does not know.
    """
    ops = used(kernel.text)
    needs = least_sm(ops)
    if needs > chip.sm:
        raise ValueError(f"{kernel.name} needs sm_{needs}, and {chip.name} is older")
    if any(op.specific for op in ops) and not chip.specific:
        raise ValueError(f"{kernel.name} needs sm_90a, not {chip.name}")
    text = f'target triple = "{TRIPLE}"\n{module_text(kernel)}'
    key = cache.key("ptx", str(llvmlite.__version__), chip.name, chip.features, text)
    data = cache.get(key)
    if data is None:
        data = _assembled(text, chip).encode()
        cache.put(key, data)
    return data.decode()


def one_file(kernels: Iterable[DeviceKernel]) -> str:
    """The PTX of kernels for one chip as a module that ptxas takes: what each of theirs begins with stands there once."""
    begins: dict[str, None] = {}
    entries: list[str] = []
    for k in kernels:
        head, entry, body = k.text.partition(".visible .entry")
        begins |= dict.fromkeys(line for line in head.splitlines() if line.startswith("."))
        entries.append(f"\n// {k.name}: {k.what}\n{entry}{body.rstrip()}\n")
    return "\n".join(begins) + "\n" + "".join(entries)


def _assembled(text: str, chip: Chip) -> str:
    from llvmlite import binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple(TRIPLE).create_target_machine(
        cpu=chip.name, features=chip.features, opt=3
    )
    with llvm.parse_assembly(text, llvm.create_context()) as module:
        module.data_layout = str(machine.target_data)
        module.verify()
        builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
        builder.getModulePassManager().run(module, builder)
        return str(machine.emit_assembly(module))
