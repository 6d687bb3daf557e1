"""The pool that devices' memory comes from, against a model of what is handed out."""

from __future__ import annotations

import random

import pytest

from tcc.runtime.devices import GRAIN, SEGMENT, Pool


class Host:
    """Addresses without memory behind them; at most `limit` bytes."""

    def __init__(self, limit: int = 1 << 40) -> None:
        self.limit, self.next, self.live = limit, 1 << 20, dict[int, int]()

    def reserve(self, bytes: int) -> int:
        if sum(self.live.values()) + bytes > self.limit:
            raise MemoryError(bytes)
        address, self.next = self.next, self.next + bytes  # segments touch each other
        self.live[address] = bytes
        return address

    def release(self, address: int) -> None:
        del self.live[address]


def test_blocks_never_overlap_and_everything_goes_back() -> None:
    host, rng = Host(), random.Random(5)
    pool = Pool(host.reserve, host.release)
    live: dict[int, int] = {}
    for _ in range(3000):
        if live and rng.random() < 0.5:
            address = rng.choice(list(live))
            pool.free(address)
            del live[address]
        else:
            bytes = rng.choice([1, 255, 256, 257, 5000, 1 << 20, 3 << 20])
            address = pool.alloc(bytes)
            assert address % GRAIN == 0
            assert all(a + n <= address or address + bytes <= a for a, n in live.items())
            assert any(a <= address and address + bytes <= a + n for a, n in host.live.items())
            live[address] = bytes
    for address in live:
        pool.free(address)
    assert pool.used == 0
    pool.trim()
    assert not host.live and pool.held == 0


def test_what_was_freed_is_used_again() -> None:
    host = Host()
    pool = Pool(host.reserve, host.release)
    first = pool.alloc(1000)
    pool.free(first)
    assert pool.alloc(900) == first and pool.held == SEGMENT


def test_kept_segments_go_back_before_memory_runs_out() -> None:
    host = Host(8 << 20)
    pool = Pool(host.reserve, host.release)
    pool.free(pool.alloc(6 << 20))
    pool.alloc(7 << 20)
    with pytest.raises(MemoryError):
        pool.alloc(2 << 20)
    pool.alloc(100)  # less than a segment is left, and it is enough


def test_memory_taken_beforehand_is_cut_up() -> None:
    host = Host()
    pool = Pool(host.reserve, host.release)
    pool.preallocate(10_000_000)
    for _ in range(9):
        pool.alloc(1_000_000)
    assert len(host.live) == 1


def test_small_blocks_wait_for_their_size_and_join_when_there_is_no_room_else() -> None:
    host = Host(limit=2 * SEGMENT)
    pool = Pool(host.reserve, host.release)
    blocks = [pool.alloc(SEGMENT // 4) for _ in range(8)]
    for b in blocks:
        pool.free(b)
    assert pool.alloc(SEGMENT // 4) == blocks[-1]
    pool.free(blocks[-1])
    whole = pool.alloc(SEGMENT)  # none of them is as large, and the host has no more
    assert pool.used == SEGMENT and pool.held == 2 * SEGMENT
    pool.free(whole)
