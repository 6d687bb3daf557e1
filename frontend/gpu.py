"""What a kernel (`tcc.kernel`) asks of the GPU: where its thread stands, shared memory, and how threads wait for each other.

These are words of kernels: elsewhere they raise RuntimeError.  An axis is 0, 1 or 2; indices are int64.
"""

from __future__ import annotations

from typing import Any, NoReturn


def _elsewhere(name: str) -> NoReturn:
    raise RuntimeError(f"tcc.gpu.{name} is a word of kernels: call it in a function under @tcc.kernel")


def index(axis: int = 0) -> int:
    """The number of this thread in the whole grid: `block(axis) * threads(axis) + thread(axis)`."""
    _elsewhere("index")


def thread(axis: int = 0) -> int:
    """The number of this thread in its block."""
    _elsewhere("thread")


def threads(axis: int = 0) -> int:
    """How many threads a block has."""
    _elsewhere("threads")


def block(axis: int = 0) -> int:
    """The number of this block in the grid."""
    _elsewhere("block")


def blocks(axis: int = 0) -> int:
    """How many blocks the grid has."""
    _elsewhere("blocks")


def shared(shape: int | tuple[int, ...], dtype: Any) -> Any:
    """An array that the threads of a block share; its sizes are known numbers, what it holds at first is not."""
    _elsewhere("shared")


def barrier() -> None:
    """Waits for all threads of the block, which all have to come here; what they wrote is seen by all."""
    _elsewhere("barrier")


def warp_barrier() -> None:
    """The same for the 32 threads of a warp."""
    _elsewhere("warp_barrier")


def shuffle(value: Any, lane: int) -> Any:
    """The value that thread `lane` of the warp gives; all threads of the warp have to come here."""
    _elsewhere("shuffle")


def shuffle_xor(value: Any, lanes: int) -> Any:
    """The value of the thread of the warp whose number differs from this one's by the bits in `lanes`."""
    _elsewhere("shuffle_xor")


def atomic_add(array: Any, index: int | tuple[int, ...], value: Any) -> Any:
    """Adds to an element, however many threads do so at once, and gives what it was; in no fixed order, so floats may
    round otherwise from one run to the next."""
    _elsewhere("atomic_add")
