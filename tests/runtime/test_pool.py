"""The thread pool: every unit is done once, whoever does it."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest
from tiny import body, build, function, slot

from tcc.codegen import support
from tcc.codegen.jit import Image, compile_object
from tcc.codegen.jit import function as c_function
from tcc.codegen.pool import PIECES
from tcc.codegen.target import host
from tcc.codegen.workers import PART
from tcc.runtime import layout as at
from tcc.runtime.signature import OutputSpec, Signature
from tcc.runtime.threads import Pool, pool, thread_count

UNITS = 1003

# body: for each of its units, times += 1 and range = where its range begins.
# linger: the first range waits (not for ever) until all others are done; where a range begins, range = thread + 1.
# outer: the same by a job of its own.  meet: waits (not for ever) until all ranges have begun, then range = thread.
TEXT = """
declare void @tcc_parallel(ptr, ptr, ptr, i64, i64)
define void @body(ptr %ctx, ptr %args, i64 %begin, i64 %end, i64 %thread) #0 {
entry:
  br label %head
head:
  %i = phi i64 [%begin, %entry], [%i1, %one]
  %more = icmp slt i64 %i, %end
  br i1 %more, label %one, label %out
one:
  %mark.at = getelementptr [2 x i64], ptr %args, i64 %i
  %owner.at = getelementptr i64, ptr %mark.at, i64 1
  %old = load i64, ptr %mark.at
  %new = add i64 %old, 1
  store i64 %new, ptr %mark.at
  store i64 %begin, ptr %owner.at
  %i1 = add i64 %i, 1
  br label %head
out:
  ret void
}
define void @outer(ptr %ctx, ptr %args, i64 %begin, i64 %end, i64 %thread) #0 {
  %part = getelementptr [2 x i64], ptr %args, i64 %begin
  %units = sub i64 %end, %begin
  call void @tcc_parallel(ptr %ctx, ptr @body, ptr %part, i64 %units, i64 1)
  ret void
}
define void @meet(ptr %ctx, ptr %args, i64 %begin, i64 %end, i64 %thread) #0 {
entry:
  %want.at = getelementptr i64, ptr %ctx, i64 1
  %want = load i64, ptr %want.at
  %here = atomicrmw add ptr %args, i64 1 seq_cst
  br label %wait
wait:
  %k = phi i64 [0, %entry], [%k1, %wait]
  %k1 = add i64 %k, 1
  %now = load atomic i64, ptr %args seq_cst, align 8
  %all = icmp sge i64 %now, %want
  %late = icmp ugt i64 %k, 3000000000
  %go = or i1 %all, %late
  br i1 %go, label %mark, label %wait
mark:
  %unit = getelementptr [2 x i64], ptr %args, i64 %begin
  %owner.at = getelementptr i64, ptr %unit, i64 1
  store i64 %thread, ptr %owner.at
  ret void
}
define void @linger(ptr %ctx, ptr %args, i64 %begin, i64 %end, i64 %thread) #0 {
entry:
  %unit = getelementptr [2 x i64], ptr %args, i64 %begin
  %owner.at = getelementptr i64, ptr %unit, i64 1
  %mark = add i64 %thread, 1
  store i64 %mark, ptr %owner.at
  %size = sub i64 %end, %begin
  %others = sub i64 UNITS, %size
  %first = icmp eq i64 %begin, 0
  br i1 %first, label %wait, label %count
wait:
  %k = phi i64 [0, %entry], [%k1, %wait]
  %k1 = add i64 %k, 1
  %now = load atomic i64, ptr %args seq_cst, align 8
  %all = icmp sge i64 %now, %others
  %late = icmp ugt i64 %k, 3000000000
  %go = or i1 %all, %late
  br i1 %go, label %out, label %wait
count:
  %before = atomicrmw add ptr %args, i64 %size seq_cst
  br label %out
out:
  ret void
}
define void @rounds(ptr %ctx, ptr %inner, ptr %args, i64 %units, i64 %grain, i64 %rounds) #0 {
entry:
  br label %head
head:
  %k = phi i64 [0, %entry], [%k1, %one]
  %more = icmp slt i64 %k, %rounds
  br i1 %more, label %one, label %out
one:
  call void @tcc_parallel(ptr %ctx, ptr %inner, ptr %args, i64 %units, i64 %grain)
  %k1 = add i64 %k, 1
  br label %head
out:
  ret void
}
""".replace("UNITS", str(2 * PIECES))


@pytest.fixture(scope="module")
def image() -> Image:
    return Image.load([compile_object(TEXT, host())], support.load())


class Job:
    """One pool, and what each unit of the last job saw."""

    def __init__(self, image: Image, pool: Pool) -> None:
        self.image, self.pool = image, pool
        self.ctx = (ctypes.c_int64 * at.CTX_SLOTS)()
        self.ctx[at.CTX_POOL], self.ctx[at.CTX_THREADS] = pool.address, pool.threads
        self.run: Callable[..., Any] = c_function(
            image.address("rounds"), None, *[ctypes.c_void_p] * 3, *[ctypes.c_int64] * 3
        )

    def __call__(
        self, units: int, grain: int = 1, rounds: int = 1, body: str = "body"
    ) -> list[tuple[int, int]]:
        """(times, range) of each unit."""
        seen = (ctypes.c_int64 * (2 * max(1, units)))()
        self.run(self.ctx, self.image.address(body), seen, units, grain, rounds)
        return list(zip(seen[0 : 2 * units : 2], seen[1 : 2 * units : 2]))


@pytest.fixture(scope="module")
def job(image: Image) -> Callable[[int], Job]:
    """Pools stay for the process, so the tests share them."""
    made: dict[int, Job] = {}
    return lambda threads: made.setdefault(threads, Job(image, Pool(threads)))


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 9])
def test_each_unit_is_done_once_a_round(job: Callable[[int], Job], threads: int) -> None:
    seen = job(threads)(UNITS, rounds=50)
    assert [times for times, _ in seen] == [50] * UNITS


@pytest.mark.parametrize("threads", [2, 4])
def test_ranges_are_a_part_of_what_is_left_of_a_run(job: Callable[[int], Job], threads: int) -> None:
    """Whoever takes them: the last ones are a piece each, so that nobody waits for long."""
    run = 2 * PIECES
    seen = [begin for _, begin in job(threads)(run * threads)]
    begins, piece = [], 0
    while piece < PIECES:
        begins.append(2 * piece)
        piece += -(-(PIECES - piece) // PART)
    assert begins[-PART:] == [run - 2 * k for k in range(PART, 0, -1)]
    assert sorted({*seen}) == [run * thread + begin for thread in range(threads) for begin in begins]
    assert seen == sorted(seen)


def test_ranges_have_at_least_grain_units(job: Callable[[int], Job]) -> None:
    ranges = [begin for _, begin in job(4)(100, grain=40)]
    assert ranges == [0] * 50 + [50] * 50
    assert {begin for _, begin in job(4)(100, grain=51)} == {0}
    assert {begin for _, begin in job(2)(100, grain=12)} == {0, 12, 25, 37, 50, 62, 75, 87}


def threads_that_met(the_job: Job) -> set[int]:
    """The threads of a job whose ranges all run at once."""
    return {thread for _, thread in the_job(the_job.pool.threads, body="meet")}


@pytest.mark.parametrize("threads", [2, 4])
def test_ranges_run_at_once(job: Callable[[int], Job], threads: int) -> None:
    assert threads_that_met(job(threads)) == set(range(threads))


def test_a_worker_that_does_not_come_is_not_waited_for(image: Image) -> None:
    """Its pieces are the caller's when that is through: here the worker never starts, and its turn is announced."""
    the_job = Job(image, Pool(2))
    words = (ctypes.c_int64 * (at.POOL_BYTES // 8)).from_address(the_job.pool.address)
    words[at.POOL_STARTED], words[at.POOL_STRICT] = 1, -1  # there is no thread to pin either
    assert [times for times, _ in the_job(UNITS, rounds=3)] == [3] * UNITS


def test_a_worker_that_is_held_up_costs_what_it_has_taken(job: Callable[[int], Job]) -> None:
    """A thread that lingers over what it took first finds the rest of its pieces done by the others."""
    the_job = job(2)
    done = [mark for _, mark in the_job(2 * PIECES, body="linger") if mark]
    slow = done[0]
    assert done.count(slow) == 1 and set(done) == {1, 2}


def test_the_pools_slots_are_distinct() -> None:
    slots = {name: getattr(at, name) for name in vars(at) if name.startswith("POOL_")}
    places = [slot for name, slot in slots.items() if name not in ("POOL_MASK_SLOTS", "POOL_BYTES")]
    assert len(set(places)) == len(places)


def test_nothing_to_do(job: Callable[[int], Job]) -> None:
    assert job(2)(0) == []


def test_a_job_within_a_job_runs_alone(job: Callable[[int], Job]) -> None:
    seen = job(2)(UNITS, body="outer")
    assert [times for times, _ in seen] == [1] * UNITS
    assert {begin for _, begin in seen} == {0}  # the inner jobs, whose units count from 0, were not cut


def test_sleeping_workers_are_woken(job: Callable[[int], Job]) -> None:
    the_job = job(3)
    threads_that_met(the_job)
    words = (ctypes.c_int64 * (at.POOL_BYTES // 8)).from_address(the_job.pool.address)
    asleep = [at.POOL_WORKERS + w * at.WORKER_SLOTS + at.WORKER_ASLEEP for w in (1, 2)]
    stop = threading.Event()
    for _ in range(1000):
        if all(words[a] for a in asleep):
            break
        stop.wait(0.001)
    assert all(words[a] for a in asleep), "idle workers keep spinning"
    assert threads_that_met(the_job) == {0, 1, 2}


def test_callers_at_once_share_the_pool(job: Callable[[int], Job]) -> None:
    """The one that comes late runs alone, and its units are done all the same."""
    the_job, bad = job(2), []

    def call() -> None:
        for _ in range(30):
            if {times for times, _ in the_job(UNITS, rounds=20)} != {20}:
                bad.append(1)

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not bad


def test_a_forked_child_starts_its_own_workers(job: Callable[[int], Job]) -> None:
    the_job = job(2)
    assert threads_that_met(the_job) == {0, 1}
    child = os.fork()
    if child == 0:
        os._exit(0 if threads_that_met(the_job) == {0, 1} else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert threads_that_met(the_job) == {0, 1}


def _allowed(pool: Pool) -> list[set[int]]:
    """The CPUs that each other thread of this process may use."""
    me = threading.get_native_id()
    return [os.sched_getaffinity(int(t)) for t in os.listdir("/proc/self/task") if int(t) != me]


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one CPU")
def test_workers_leave_the_callers_cpu(image: Image) -> None:
    """In a child, which has no other threads; the caller moves to each CPU in turn, and the workers make room."""
    child = os.fork()
    if child == 0:
        cpus = sorted(os.sched_getaffinity(0))
        the_job = Job(image, Pool(len(cpus), cpus))
        good = True
        for cpu in cpus:
            os.sched_setaffinity(0, {cpu})
            the_job(UNITS)
            taken = _allowed(the_job.pool)
            good &= sorted(c for mask in taken for c in mask) == [c for c in cpus if c != cpu]
        os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_tcc_threads_says_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCC_THREADS", "7")
    assert thread_count() == 7
    monkeypatch.setenv("TCC_THREADS", "two")
    with pytest.raises(ValueError, match="TCC_THREADS"):
        thread_count()


def test_calls_may_be_limited_to_fewer_threads() -> None:
    signature = Signature((), (), (OutputSpec("i64"),), "array")
    text = body(
        slot("ctx", 0)
        + slot("z", 2)
        + f"""
  %threads.at = getelementptr i64, ptr %ctx, i64 {at.CTX_THREADS}
  %threads = load i64, ptr %threads.at
  store i64 %threads, ptr %z
  ret i32 0"""
    )
    f = function(build(signature, text))
    the_pool = pool()
    assert f() == the_pool.threads == the_pool.limit
    with pytest.raises(ValueError, match="cannot use"):
        the_pool.limit = the_pool.threads + 1
    the_pool.limit = 1
    try:
        assert f() == 1
    finally:
        the_pool.limit = the_pool.threads


def test_signals_are_left_to_the_program(job: Callable[[int], Job]) -> None:
    """Workers block all signals, so that Ctrl-C interrupts the main thread's system calls."""
    the_job = job(4)
    the_job(UNITS)
    me = str(os.getpid())
    blocked = [
        int(line.split()[1], 16)
        for task in os.listdir("/proc/self/task")
        if task != me
        for line in open(f"/proc/self/task/{task}/status")
        if line.startswith("SigBlk")
    ]
    sigint = 1 << (2 - 1)
    assert sum(bool(mask & sigint) for mask in blocked) >= 3
