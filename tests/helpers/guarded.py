"""Working memory that ends at a page which nobody may touch: code that writes or reads behind its arena ends the process."""

from __future__ import annotations

import ctypes
import mmap

LINE = 64  # blocks begin at multiples of it
PROT_NONE = 0


def guarded(size: int) -> tuple[int, mmap.mmap]:
    """In place of `tcc.runtime.arenas._map`."""
    pages = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    block = mmap.mmap(-1, pages + mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    end = ctypes.addressof(ctypes.c_char.from_buffer(block)) + pages
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    if protect(ctypes.c_void_p(end), ctypes.c_size_t(mmap.PAGESIZE), PROT_NONE):
        raise OSError(ctypes.get_errno(), "mprotect")
    return end - -(-size // LINE) * LINE, block
