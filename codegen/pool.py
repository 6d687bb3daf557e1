"""LLVM text of the thread pool: `tcc_parallel`, before the workers (codegen/workers.py).

Needs libc alone (no Python, no C compiler), so the same text serves ahead-of-time binaries.  The caller is thread 0.
Each worker has a mailbox of its own, so a job for few threads neither wakes nor waits for the others.  Each thread has a
run of neighbouring pieces of the work, which keeps what it touches in its cache from one job to the next; a thread that is
through with its own pieces takes those that others have not begun.  What is taken at a time is a part of what is left of a run,
a single piece in the end: one thread that is slower than another, or that the system keeps off its CPU for a while, holds the
others up for little, and most of the work is taken in few steps.  Waiting is spinning for a bounded time, then a futex.

A claim word says which pieces of a thread's run are left: the job's number (32 bits), how many pieces there are (16), and
the next one (16).  All of it changes in one step, so a thread that is late by a job or more finds nothing to claim, and one
that has claimed pieces can rely on the job's fields until it says that they are done.
"""

from __future__ import annotations

from tcc.codegen.slots import field, worker
from tcc.codegen.target import Target
from tcc.codegen.workers import workers_text
from tcc.runtime import layout as at

PIECES = 64  # of each thread's share, where there is work enough for them


def pool_text(target: Target) -> str:
    """The pool's functions; `#0` is left for the caller to define.  ValueError for an unknown architecture."""
    return workers_text(target) + _parallel_text()


def _parallel_text() -> str:
    return f"""
define void @tcc_parallel(ptr %ctx, ptr %body, ptr %args, i64 %units, i64 %grain) #0 {{
entry:
  %empty = icmp slt i64 %units, 1
  br i1 %empty, label %out, label %some
some:
  %pool = load ptr, ptr %ctx
{field("asked", "%ctx", at.CTX_THREADS)}
  %unit = call i64 @llvm.smax.i64(i64 %grain, i64 1)
  %most = udiv i64 %units, %unit
  %wanted = call i64 @llvm.umin.i64(i64 %asked, i64 %most)
  %several = icmp ugt i64 %wanted, 1
  br i1 %several, label %claim, label %alone
alone:                                            ; also when another thread, or an outer job, has the pool
  call void %body(ptr %ctx, ptr %args, i64 0, i64 %units, i64 0)
  br label %out
claim:
  %swap = cmpxchg ptr %pool, i32 0, i32 1 acquire monotonic, align 4
  %mine = extractvalue {{ i32, i1 }} %swap, 1
  br i1 %mine, label %ready, label %alone
ready:
{field("started", "%pool", at.POOL_STARTED)}
  %running = icmp ne i64 %started, 0
  br i1 %running, label %where, label %start
start:
  call void @tcc_pool_start(ptr %pool)
  br label %where
where:
  %cpu32 = call i32 @sched_getcpu()
  %cpu = zext i32 %cpu32 to i64
{field("home", "%pool", at.POOL_HOME)}
  %still = icmp eq i64 %cpu, %home
  br i1 %still, label %count, label %move
move:
  call void @tcc_pool_move(ptr %pool, i64 %cpu)
  br label %count
count:
{field("threads", "%pool", at.POOL_THREADS)}
  %team = call i64 @llvm.umin.i64(i64 %wanted, i64 %threads)
  %each = udiv i64 %most, %team
  %pieces = call i64 @llvm.umin.i64(i64 %each, i64 {PIECES})
  %body.at = getelementptr i64, ptr %pool, i64 {at.POOL_BODY}
  %ctx.at = getelementptr i64, ptr %pool, i64 {at.POOL_CTX}
  %args.at = getelementptr i64, ptr %pool, i64 {at.POOL_ARGS}
  %units.at = getelementptr i64, ptr %pool, i64 {at.POOL_UNITS}
  %team.at = getelementptr i64, ptr %pool, i64 {at.POOL_TEAM}
  %job.at = getelementptr i64, ptr %pool, i64 {at.POOL_JOB}
  store ptr %body, ptr %body.at
  store ptr %ctx, ptr %ctx.at
  store ptr %args, ptr %args.at
  store i64 %units, ptr %units.at
  store i64 %team, ptr %team.at
  %job.before = load i64, ptr %job.at
  %job.after = add i64 %job.before, 1
  %job = and i64 %job.after, 4294967295
  store i64 %job, ptr %job.at
  %all = mul i64 %team, %pieces
  %all32 = trunc i64 %all to i32
  %pending = getelementptr i64, ptr %pool, i64 {at.POOL_PENDING}
  store atomic i32 %all32, ptr %pending monotonic, align 4
  %job.high = shl i64 %job, 32
  %pieces.high = shl i64 %pieces, 16
  %word = or i64 %job.high, %pieces.high
  br label %offer
offer:
  %t = phi i64 [0, %count], [%t1, %offer]
  %their.offset = mul i64 %t, {at.WORKER_SLOTS}
  %their.slot = add i64 %their.offset, {at.POOL_WORKERS + at.WORKER_CLAIM}
  %their.claim = getelementptr i64, ptr %pool, i64 %their.slot
  store atomic i64 %word, ptr %their.claim release, align 8
  %t1 = add i64 %t, 1
  %offered = icmp uge i64 %t1, %team
  br i1 %offered, label %head, label %offer
head:
  %i = phi i64 [1, %offer], [%i1, %next]
  %more = icmp ult i64 %i, %team
  br i1 %more, label %call, label %work
call:
{worker("%i")}
  %turn = atomicrmw add ptr %worker, i32 1 seq_cst
  %asleep.at = getelementptr i64, ptr %worker, i64 {at.WORKER_ASLEEP}
  %asleep = load atomic i32, ptr %asleep.at seq_cst, align 4
  %sleeps = icmp ne i32 %asleep, 0
  br i1 %sleeps, label %wake, label %next
wake:
  call void @tcc_pool_wake(ptr %worker)
  br label %next
next:
  %i1 = add i64 %i, 1
  br label %head
work:
  call void @tcc_pool_work(ptr %pool, i64 0, i64 %job)
  %waiter = getelementptr i64, ptr %pool, i64 {at.POOL_WAITER}
  br label %join
join:
  %left = load atomic i32, ptr %pending acquire, align 4
  %finished = icmp eq i32 %left, 0
  br i1 %finished, label %release, label %wait
wait:
  %changed = call i32 @tcc_pool_wait(ptr %pool, ptr %pending, i32 %left, ptr %waiter)
  br label %join
release:
  store atomic i32 0, ptr %pool release, align 4
  br label %out
out:
  ret void
}}
"""
