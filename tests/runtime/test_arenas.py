"""Working memory: arenas, late blocks, and what is said when there is too little."""

from __future__ import annotations

import ctypes
import gc
import os
import threading
import weakref

import numpy as np
import pytest
from tiny import Build, body, build, function, slot

from tcc.codegen import support
from tcc.ir import dims
from tcc.runtime import layout as at
from tcc.runtime.arenas import Arenas, Claim
from tcc.runtime.callable import Function
from tcc.runtime.signature import InputSpec, OutputSpec, Signature

n = dims.name("n")


@pytest.fixture
def guard_pages() -> None:
    """The blocks as they are: these tests count their bytes."""


def test_arenas_are_reused_and_given_back() -> None:
    support.load()
    record = (ctypes.c_int64 * at.RECORD_SHARED)()
    arenas = Arenas(ctypes.addressof(record))
    assert arenas.provide(1000) and not arenas.provide(1000) and not arenas.provide(0)
    first = record[at.RECORD_ARENA]
    assert (first + at.BLOCK_HEADER) % 64 == 0
    assert arenas.provide(5 << 20) and record[at.RECORD_ARENA] % (2 << 20) == 0
    assert 5 << 20 < arenas.bytes < 8 << 20  # the small one is gone
    record[at.RECORD_ARENA] = 0  # in use
    assert arenas.provide(1000) and not arenas.provide(500)
    arenas.trim()
    assert record[at.RECORD_ARENA] == 0 and arenas.bytes > 5 << 20
    with pytest.raises(MemoryError, match="refuses 1,152,921,504,606,847,040 bytes"):
        arenas.provide(1 << 60)


def test_a_forked_child_has_memory_of_its_own() -> None:
    support.load()
    record = (ctypes.c_int64 * at.RECORD_SHARED)()
    arenas = Arenas(ctypes.addressof(record))
    arenas.provide(1000)
    word = ctypes.c_int64.from_address(record[at.RECORD_ARENA] + at.BLOCK_HEADER)
    child = os.fork()
    if child == 0:
        word.value = 42
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0 and word.value == 0


def test_a_call_takes_nothing_new_after_the_first(make: Build) -> None:
    f = make(
        Signature((InputSpec("f32", (n,)),), (), (), "none", arena=4 * n, scratch=100), body("  ret i32 0")
    )
    for size in (10, 100_000, 10, 100_000):
        f(np.zeros(size, "f4"))
        held = f.variants[0].arenas.bytes
    assert held == f.variants[0].arenas.bytes and len(f.variants[0].arenas._blocks) == 1
    f.free()
    assert f.variants[0].arenas.bytes == 0
    f(np.zeros(10, "f4"))


# z = the addresses of late blocks of x[0] and x[1] bytes, both filled
TWO = body(
    slot("ctx", 0)
    + slot("x", 2)
    + slot("z", 3)
    + """
  br label %head
head:
  %i = phi i64 [0, %0], [%i1, %fine]
  %from = getelementptr i64, ptr %x, i64 %i
  %to = getelementptr ptr, ptr %z, i64 %i
  %bytes = load i64, ptr %from
  %memory = call ptr @tcc_late_alloc(ptr %ctx, i64 %i, i64 %bytes)
  %failed = icmp eq ptr %memory, null
  br i1 %failed, label %bad, label %fine
fine:
  call void @llvm.memset.p0.i64(ptr %memory, i8 1, i64 %bytes, i1 false)
  store ptr %memory, ptr %to
  %i1 = add i64 %i, 1
  %more = icmp ult i64 %i1, 2
  br i1 %more, label %head, label %out
out:
  ret i32 0
bad:
  ret i32 2"""
    + "\n}\ndeclare void @llvm.memset.p0.i64(ptr, i8, i64, i1)\ndefine void @unused() #0 {\n  ret void"
)
LATE = Signature((InputSpec("i64", (2,)),), (), (OutputSpec("i64", (2,)),), "array", late=True)


@pytest.fixture
def two() -> Function:
    return function(
        build(LATE, TWO, claims=[Claim("a", None), Claim("exp of f64[s1], written at m.py:3", None)])
    )


def at_sizes(f: Function, *sizes: int) -> list[int]:
    return list(map(int, f(np.array(sizes))))


def test_late_blocks_are_kept_for_the_next_call(two: Function) -> None:
    first = at_sizes(two, 1000, 100_000)
    late = two.variants[0].late
    held = dict(late._blocks)
    assert len(held) == 2 and all(a % 64 == 0 for a in first)
    assert at_sizes(two, 1000, 100_000) == first
    assert sorted(at_sizes(two, 100_000, 1000)) == sorted(first)  # the first that fits
    assert at_sizes(two, 5, 0)
    assert dict(late._blocks) == held


def test_a_block_that_is_too_small_goes_for_a_larger_one(two: Function) -> None:
    for bytes in (10, 10_000, 100_000, 5 << 20):
        at_sizes(two, bytes, bytes)
        blocks = two.variants[0].late
        assert len(blocks._blocks) == 2
    assert 10 << 20 < blocks.bytes < 20 << 20
    assert all(a % (2 << 20) == at.BLOCK_HEADER for a in at_sizes(two, 5 << 20, 5 << 20))


def test_growing_a_little_takes_nothing_new(two: Function) -> None:
    first = at_sizes(two, 80_000, 80_000)
    assert at_sizes(two, 85_000, 85_000) == first


def test_late_memory_is_given_back() -> None:
    f = function(build(LATE, TWO))
    at_sizes(f, 100, 100)
    variant = f.variants[0]
    f.free()
    assert variant.late.bytes == 0 and variant._words[at.RECORD_LATE] == 0
    at_sizes(f, 100, 100)
    blocks = [weakref.ref(block) for block in variant.late._blocks.values()]
    del f, variant
    gc.collect()
    assert [block() for block in blocks] == [None, None]


def test_calls_at_once_have_late_blocks_of_their_own() -> None:
    """As many bags as calls, however often they overlap."""
    signature = Signature(LATE.inputs, (), LATE.outputs, "array", work=10 * at.RELEASE_NS, late=True)
    f = function(build(signature, TWO))
    f(np.array([64 << 10, 64 << 10]))

    def caller() -> None:
        for _ in range(200):
            f(np.array([64 << 10, 64 << 10]))

    threads = [threading.Thread(target=caller) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    blocks = f.variants[0].late
    assert 2 <= len(blocks._blocks) <= 6
    f.free()
    assert blocks.bytes == 0


# Too little memory.


def test_more_memory_than_there_is() -> None:
    signature = Signature(
        (InputSpec("f32", (n,)),), (), (OutputSpec("f32", (n, n, n)),), "array", arena=8 * n
    )
    claims = [
        Claim("tanh of f32[n]", 4 * n),
        Claim("outer of f32[n,n,n], written at model.py:3", 4 * n * n * n),
    ]
    f = function(build(signature, body("  ret i32 0"), claims=claims), "huge")
    assert f(np.zeros(2, "f4")).shape == (2, 2, 2)
    with pytest.raises(
        MemoryError,
        match=r"huge needs 4,000,000,080,000 bytes, of which 4,000,000,000,000 for outer of f32\[n,n,n\], "
        r"written at model.py:3, and \d+,\d",
    ):
        f(np.zeros(10_000, "f4"))


@pytest.mark.parametrize("size", [1 << 16, 1 << 32, (1 << 62) + 1])
def test_sizes_that_wrap_around(size: int) -> None:
    """n ** 4 * 4 bytes is 0 or 4 in 64 bits."""
    cube = dims.mul(n, n, n, n)
    signature = Signature(
        (InputSpec("i8", (n, 0)),), (), (OutputSpec("f32", (n, n, n, n)),), "array", arena=4 * cube
    )
    f = function(build(signature, body("  ret i32 0"), claims=[Claim("outer", 4 * cube)]), "huge")
    with pytest.raises(
        MemoryError, match=f"huge needs {8 * size**4:,} bytes, of which {4 * size**4:,} for outer"
    ):
        f(np.zeros((size, 0), "i1"))


def test_late_memory_that_is_not_there(two: Function) -> None:
    at_sizes(two, 10, 10)
    held = two.variants[0].late.bytes
    with pytest.raises(
        MemoryError, match=r"f needs 10,995,116,277,760 bytes for exp of f64\[s1\], written at m.py:3, and"
    ):
        at_sizes(two, 10, 10 << 40)
    with pytest.raises(MemoryError, match="needs at least 281,474,976,710,656 bytes for a, and"):
        at_sizes(two, at.MOST_BYTES, 10)
    assert at_sizes(two, 10, 10) and two.variants[0].late.bytes == held
