"""The working memory of functions: arenas, whose size is known when a call begins, and blocks for sizes found later."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import threading
from typing import NamedTuple

from tcc.ir.dims import Size
from tcc.runtime import layout as at
from tcc.runtime.machine import available_memory
from tcc.runtime.native import provided

HUGE_PAGE = 2 << 20
PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS  # a forked child gets a copy, and huge pages are to be had
LATE_SLACK = 8  # a late block is a part in so many larger than asked for: the next call's size is often near


class Claim(NamedTuple):
    """Memory that a function takes: for which op's result (and where that was written), and how many bytes.

    None when only running tells; then code names it by its number in the function's list of claims.
    """

    purpose: str
    bytes: Size | None


def require_memory(wanted: int, held: int, who: str, what: str) -> None:
    """MemoryError if `wanted` bytes, of which `held` are there already, are more than can be had."""
    available = available_memory()
    if wanted - held > available:
        at_least = "at least " if wanted == at.MOST_BYTES else ""
        raise MemoryError(f"{who} needs {at_least}{wanted:,} bytes{what}, and {available:,} are available")


class Blocks:
    """Blocks of memory that native code takes from a free list in the function's record, and gives back to it.

    It does so with the GIL held; here they are made.  They live as long as this object.
    """

    def __init__(self, record: int, slot: int) -> None:
        self._list = record + 8 * slot
        self._blocks: dict[int, mmap.mmap] = {}
        self._mutex = threading.Lock()

    @property
    def bytes(self) -> int:
        """Held by all blocks, in use or not."""
        return sum(map(len, tuple(self._blocks.values())))  # a copy: other threads add blocks

    def _make(self, wanted: int) -> int:
        address, block = _map(wanted + at.BLOCK_HEADER)
        _header(address)[at.BLOCK_CAPACITY] = wanted
        self._blocks[address] = block
        return address

    def _push(self, address: int) -> None:
        """One step for all threads: the GIL is held during the call."""
        ctypes.PYFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(provided("tcc_list_push"))(
            self._list, address
        )

    def _take(self) -> int:
        """The first of the list, which is empty afterwards."""
        take = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(provided("tcc_list_take"))
        return int(take(self._list) or 0)


class Arenas(Blocks):
    """One block for each call that runs at the same time."""

    def __init__(self, record: int) -> None:
        super().__init__(record, at.RECORD_ARENA)

    def provide(self, wanted: int) -> bool:
        """Sees to a free block of at least `wanted` bytes; whether it made one.  Smaller free ones are given back."""
        with self._mutex:
            if self._drop_free(smaller_than=wanted) or wanted == 0:
                return False
            self._push(self._make(wanted))
            return True

    def trim(self) -> None:
        """Gives all free blocks back to the system."""
        with self._mutex:
            self._drop_free(smaller_than=1 << 63)

    def _drop_free(self, smaller_than: int) -> int:
        """The number of free blocks that stay."""
        address, stayed = self._take(), 0
        while address:
            header = _header(address)
            following, capacity = header[at.BLOCK_NEXT], header[at.BLOCK_CAPACITY]
            if capacity < smaller_than:
                del self._blocks[address]
            else:
                self._push(address)
                stayed += 1
            address = following
        return stayed


class LateBlocks(Blocks):
    """Bags of blocks, one for each call that runs at the same time: at most as many blocks as such a call needs at once."""

    def __init__(self, record: int) -> None:
        super().__init__(record, at.RECORD_LATE)

    def drop(self, address: int) -> None:
        """Gives back a block that is not in use; 0 is none."""
        with self._mutex:
            self._blocks.pop(address, None)

    def make(self, wanted: int) -> int:
        """The address of a new block of at least `wanted` bytes."""
        with self._mutex:
            pages = -(-(wanted + wanted // LATE_SLACK + at.BLOCK_HEADER) // mmap.PAGESIZE)
            return self._make(pages * mmap.PAGESIZE - at.BLOCK_HEADER)

    def trim(self) -> None:
        """Gives the blocks that no call has back to the system."""
        with self._mutex:
            bag = self._take()
            while bag:
                block, bag = bag, _header(bag)[at.BLOCK_BAG]
                while block:
                    following = _header(block)[at.BLOCK_NEXT]
                    del self._blocks[block]
                    block = following


def _header(address: int) -> ctypes.Array[ctypes.c_int64]:
    return (ctypes.c_int64 * (at.BLOCK_HEADER // 8)).from_address(address)


def _map(size: int) -> tuple[int, mmap.mmap]:
    """Fresh zeroed pages; large ones begin at a huge page's boundary and ask for huge pages, the last of which may be used in
    part."""
    large = size >= HUGE_PAGE // 8
    try:
        block = mmap.mmap(-1, max(size, HUGE_PAGE) + HUGE_PAGE if large else size, PRIVATE)
    except (OSError, OverflowError) as e:
        raise MemoryError(f"the system refuses {size:,} bytes of working memory") from e
    address = ctypes.addressof(ctypes.c_char.from_buffer(block))
    if not large:
        return address, block
    with contextlib.suppress(OSError):  # a kernel without them
        block.madvise(mmap.MADV_HUGEPAGE)
    return address + -address % HUGE_PAGE, block
