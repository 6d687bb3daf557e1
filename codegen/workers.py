"""LLVM text of the pool's workers: how they start, where they run, how they wait for work, take pieces of it, and end."""

from __future__ import annotations

from tcc.codegen.slots import field, worker
from tcc.codegen.target import Target
from tcc.runtime import layout as at

# architecture -> futex's system call number, the call that tells the CPU of a spin loop
MACHINES = {
    "x86_64": (202, "@llvm.x86.sse2.pause()"),
    "aarch64": (98, "@llvm.aarch64.hint(i32 1)"),
    "riscv64": (98, "@llvm.donothing()"),
}
PART = 4  # of the pieces that are left of a run, one in so many is taken at a time
FUTEX_WAIT_PRIVATE, FUTEX_WAKE_PRIVATE = 128, 129
SIG_SETMASK = 2
CLOCK_MONOTONIC, CLOCK_MONOTONIC_COARSE = 1, 6


def clock_text(name: str, clock: int) -> str:
    """`i64 @name()`: nanoseconds on a clock that needs no system call."""
    return f"""
define internal i64 @{name}() #0 {{
  %time = alloca [2 x i64]
  %failed = call i32 @clock_gettime(i32 {clock}, ptr %time)
  %seconds = load i64, ptr %time
{field("rest", "%time", 1)}
  %whole = mul i64 %seconds, 1000000000
  %ns = add i64 %whole, %rest
  ret i64 %ns
}}
"""


def workers_text(target: Target) -> str:
    """All but `stop_text`; `#0` is left for the caller to define.  ValueError for an unknown architecture."""
    machine = target.triple.split("-")[0]
    if machine not in MACHINES:
        raise ValueError(f"the thread pool knows {', '.join(MACHINES)}, not {machine}")
    futex, pause = MACHINES[machine]
    return "".join(
        (
            DECLARATIONS,
            clock_text("tcc_pool_clock", CLOCK_MONOTONIC),
            _wait_text(futex, pause),
            _worker_text(),
            _placement_text(),
            _start_text(),
        )
    )


DECLARATIONS = """
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_sigmask(i32, ptr, ptr)
declare i32 @pthread_setaffinity_np(ptr, i64, ptr)
declare i32 @sched_getcpu()
declare i32 @clock_gettime(i32, ptr)
declare i64 @syscall(i64, ...)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
declare i64 @llvm.umin.i64(i64, i64)
declare i64 @llvm.smax.i64(i64, i64)
"""


def _wait_text(futex: int, pause: str) -> str:
    """`wait(pool, word, old, asleep)`: returns the word once it differs from `old`; `asleep` is 1 while it sleeps."""
    declaration = pause.replace("i32 1", "i32")
    return f"""
declare void {declaration}
define internal i32 @tcc_pool_wait(ptr %pool, ptr %word, i32 %old, ptr %asleep) #0 {{
entry:
{field("limit", "%pool", at.POOL_SPIN_NS)}
  br label %burst
burst:                                            ; the clock is read once in 64 looks
  %start = phi i64 [0, %entry], [%start2, %look]
  br label %spin
spin:
  %k = phi i64 [0, %burst], [%k1, %relax]
  %now = load atomic i32, ptr %word acquire, align 4
  %same = icmp eq i32 %now, %old
  br i1 %same, label %relax, label %done
relax:
  call void {pause}
  %k1 = add i64 %k, 1
  %more = icmp ult i64 %k1, 64
  br i1 %more, label %spin, label %look
look:
  %ns = call i64 @tcc_pool_clock()
  %first = icmp eq i64 %start, 0
  %start2 = select i1 %first, i64 %ns, i64 %start
  %spent = sub i64 %ns, %start2
  %tired = icmp ugt i64 %spent, %limit
  br i1 %tired, label %doze, label %burst
doze:
  store atomic i32 1, ptr %asleep seq_cst, align 4
  br label %sleep
sleep:                                            ; the kernel returns at once when the word has changed already
  %r = call i64 (i64, ...) @syscall(i64 {futex}, ptr %word, i32 {FUTEX_WAIT_PRIVATE}, i32 %old, ptr null, ptr null, i32 0)
  %woken = load atomic i32, ptr %word seq_cst, align 4
  %again = icmp eq i32 %woken, %old
  br i1 %again, label %sleep, label %awake
awake:
  store atomic i32 0, ptr %asleep seq_cst, align 4
  ret i32 %woken
done:
  ret i32 %now
}}

define internal void @tcc_pool_wake(ptr %word) #0 {{
  %r = call i64 (i64, ...) @syscall(i64 {futex}, ptr %word, i32 {FUTEX_WAKE_PRIVATE}, i32 1, ptr null, ptr null, i32 0)
  ret void
}}
"""


def _worker_text() -> str:
    return f"""
define internal void @tcc_pool_work(ptr %pool, i64 %self, i64 %job) #0 {{
entry:
{field("team", "%pool", at.POOL_TEAM)}
  %pending = getelementptr i64, ptr %pool, i64 {at.POOL_PENDING}
  br label %next
next:                                             ; whose pieces: first one's own, then those of the threads behind
  %k = phi i64 [0, %entry], [%k1, %through]
  %more = icmp ult i64 %k, %team
  br i1 %more, label %whose, label %out
whose:
  %around = add i64 %self, %k
  %owner = urem i64 %around, %team
  %offset = mul i64 %owner, {at.WORKER_SLOTS}
  %slot = add i64 %offset, {at.POOL_WORKERS + at.WORKER_CLAIM}
  %claim = getelementptr i64, ptr %pool, i64 %slot
  br label %look
look:
  %word = load atomic i64, ptr %claim acquire, align 8
  %of = lshr i64 %word, 32
  %current = icmp eq i64 %of, %job
  %high = lshr i64 %word, 16
  %pieces = and i64 %high, 65535
  %piece = and i64 %word, 65535
  %some = icmp ult i64 %piece, %pieces
  %open = and i1 %current, %some
  br i1 %open, label %take, label %through
take:
  %left = sub i64 %pieces, %piece
  %rounded = add i64 %left, {PART - 1}
  %count = udiv i64 %rounded, {PART}
  %after = add i64 %word, %count
  %swap = cmpxchg ptr %claim, i64 %word, i64 %after acq_rel monotonic, align 8
  %mine = extractvalue {{ i64, i1 }} %swap, 1
  br i1 %mine, label %do, label %look
do:
  %body.at = getelementptr i64, ptr %pool, i64 {at.POOL_BODY}
  %ctx.at = getelementptr i64, ptr %pool, i64 {at.POOL_CTX}
  %args.at = getelementptr i64, ptr %pool, i64 {at.POOL_ARGS}
  %units.at = getelementptr i64, ptr %pool, i64 {at.POOL_UNITS}
  %body = load ptr, ptr %body.at
  %ctx = load ptr, ptr %ctx.at
  %args = load ptr, ptr %args.at
  %units = load i64, ptr %units.at
  %first = mul i64 %owner, %pieces
  %index = add i64 %first, %piece
  %all = mul i64 %team, %pieces
  %following = add i64 %index, %count
  %before = mul i64 %units, %index
  %upto = mul i64 %units, %following
  %begin = udiv i64 %before, %all
  %end = udiv i64 %upto, %all
  call void %body(ptr %ctx, ptr %args, i64 %begin, i64 %end, i64 %self)
  %done = trunc i64 %count to i32
  %undone = atomicrmw sub ptr %pending, i32 %done seq_cst
  %last = icmp eq i32 %undone, %done
  br i1 %last, label %tell, label %look
tell:
  %waiter = getelementptr i64, ptr %pool, i64 {at.POOL_WAITER}
  %sleeper = load atomic i32, ptr %waiter seq_cst, align 4
  %asked = icmp ne i32 %sleeper, 0
  br i1 %asked, label %wake, label %out
wake:
  call void @tcc_pool_wake(ptr %pending)
  br label %out
through:
  %k1 = add i64 %k, 1
  br label %next
out:
  ret void
}}

define internal ptr @tcc_pool_worker(ptr %me) #0 {{
entry:
  %asleep = getelementptr i64, ptr %me, i64 {at.WORKER_ASLEEP}
  %pool.at = getelementptr i64, ptr %me, i64 {at.WORKER_POOL}
  %index.at = getelementptr i64, ptr %me, i64 {at.WORKER_INDEX}
  %pool = load ptr, ptr %pool.at
  %index = load i64, ptr %index.at
  %claim = getelementptr i64, ptr %me, i64 {at.WORKER_CLAIM}
  br label %idle
idle:
  %seen = phi i32 [0, %entry], [%turn, %go]
  %turn = call i32 @tcc_pool_wait(ptr %pool, ptr %me, i32 %seen, ptr %asleep)
  %stop.at = getelementptr i64, ptr %pool, i64 {at.POOL_STOP}
  %stop = load atomic i64, ptr %stop.at acquire, align 8
  %over = icmp ne i64 %stop, 0
  br i1 %over, label %end, label %go
go:
  %word = load atomic i64, ptr %claim acquire, align 8
  %job = lshr i64 %word, 32
  call void @tcc_pool_work(ptr %pool, i64 %index, i64 %job)
  br label %idle
end:
  ret ptr null
}}
"""


def _placement_text() -> str:
    """`move(pool, cpu)`: the caller runs on `cpu` now, so the workers make room for it."""
    return f"""
define internal void @tcc_pool_pin(ptr %pool, ptr %worker) #0 {{
entry:
  %mask = alloca [{at.POOL_MASK_SLOTS} x i64], align 8
{field("strict", "%pool", at.POOL_STRICT)}
  %alone = icmp eq i64 %strict, 1
  br i1 %alone, label %one, label %others
one:
  call void @llvm.memset.p0.i64(ptr align 8 %mask, i8 0, i64 {8 * at.POOL_MASK_SLOTS}, i1 false)
  %cpu.at = getelementptr i64, ptr %worker, i64 {at.WORKER_CPU}
  br label %flip
others:
  %allowed = getelementptr i64, ptr %pool, i64 {at.POOL_MASK}
  call void @llvm.memcpy.p0.p0.i64(ptr align 8 %mask, ptr align 8 %allowed, i64 {8 * at.POOL_MASK_SLOTS}, i1 false)
  %home.at = getelementptr i64, ptr %pool, i64 {at.POOL_HOME}
  br label %flip
flip:                                             ; adds the one CPU to nothing, or takes the caller's away from all
  %which = phi ptr [%cpu.at, %one], [%home.at, %others]
  %keep = phi i64 [0, %one], [-1, %others]
  %cpu = load i64, ptr %which
  %slot = lshr i64 %cpu, 6
  %low = and i64 %cpu, 63
  %bit = shl i64 1, %low
  %word.at = getelementptr i64, ptr %mask, i64 %slot
  %word = load i64, ptr %word.at
  %without = xor i64 %bit, -1
  %cleared = and i64 %word, %without
  %added = or i64 %word, %bit
  %all = icmp eq i64 %keep, -1
  %new = select i1 %all, i64 %cleared, i64 %added
  store i64 %new, ptr %word.at
{field("thread", "%worker", at.WORKER_THREAD, "ptr")}
  %failed = call i32 @pthread_setaffinity_np(ptr %thread, i64 {8 * at.POOL_MASK_SLOTS}, ptr %mask)
  ret void
}}

define internal void @tcc_pool_move(ptr %pool, i64 %cpu) #0 {{
entry:
{field("home", "%pool", at.POOL_HOME)}
  store i64 %cpu, ptr %home.at
{field("strict", "%pool", at.POOL_STRICT)}
{field("threads", "%pool", at.POOL_THREADS)}
  %unpinned = icmp slt i64 %strict, 0
  %outside = icmp ugt i64 %cpu, {64 * at.POOL_MASK_SLOTS - 1}
  %nothing = or i1 %unpinned, %outside
  br i1 %nothing, label %out, label %head
head:
  %i = phi i64 [1, %entry], [%i1, %next]
  %more = icmp ult i64 %i, %threads
  br i1 %more, label %look, label %out
look:
{worker("%i")}
  %cpu.at = getelementptr i64, ptr %worker, i64 {at.WORKER_CPU}
  %theirs = load i64, ptr %cpu.at
  %clash = icmp eq i64 %theirs, %cpu
  %floats = icmp eq i64 %strict, 0
  %repin = or i1 %clash, %floats
  br i1 %repin, label %pin, label %next
pin:
  store i64 %home, ptr %cpu.at
  call void @tcc_pool_pin(ptr %pool, ptr %worker)
  br label %next
next:
  %i1 = add i64 %i, 1
  br label %head
out:
  ret void
}}
"""


def _start_text() -> str:
    """`start(pool)`: all workers, with every signal blocked so that the program's own threads get them.

    When the system refuses a thread, the pool goes on with those it has.
    """
    return f"""
define internal void @tcc_pool_start(ptr %pool) #0 {{
entry:
  %every = alloca [16 x i64], align 8
  %old = alloca [16 x i64], align 8
  call void @llvm.memset.p0.i64(ptr align 8 %every, i8 -1, i64 128, i1 false)
  %r0 = call i32 @pthread_sigmask(i32 {SIG_SETMASK}, ptr %every, ptr %old)
  %started.at = getelementptr i64, ptr %pool, i64 {at.POOL_STARTED}
  store i64 1, ptr %started.at
{field("strict", "%pool", at.POOL_STRICT)}
  %pinned = icmp sge i64 %strict, 0
{field("threads", "%pool", at.POOL_THREADS)}
  br label %head
head:
  %i = phi i64 [1, %entry], [%i1, %next]
  %more = icmp ult i64 %i, %threads
  br i1 %more, label %one, label %out
one:
{worker("%i")}
  %pool.at = getelementptr i64, ptr %worker, i64 {at.WORKER_POOL}
  store ptr %pool, ptr %pool.at
  %index.at = getelementptr i64, ptr %worker, i64 {at.WORKER_INDEX}
  store i64 %i, ptr %index.at
  %thread.at = getelementptr i64, ptr %worker, i64 {at.WORKER_THREAD}
  %failed = call i32 @pthread_create(ptr %thread.at, ptr null, ptr @tcc_pool_worker, ptr %worker)
  %ok = icmp eq i32 %failed, 0
  br i1 %ok, label %place, label %short
place:
  br i1 %pinned, label %pin, label %next
pin:
  call void @tcc_pool_pin(ptr %pool, ptr %worker)
  br label %next
next:
  %i1 = add i64 %i, 1
  br label %head
short:
  store i64 %i, ptr %threads.at
  br label %out
out:
  %r2 = call i32 @pthread_sigmask(i32 {SIG_SETMASK}, ptr %old, ptr null)
  ret void
}}
"""


def stop_text() -> str:
    """`stop(pool)`: ends the workers of a pool that nobody uses.  A process's own pool lives as long as the process."""
    return f"""
declare i32 @pthread_join(ptr, ptr)

define internal void @tcc_pool_stop(ptr %pool) #0 {{
entry:
{field("started", "%pool", at.POOL_STARTED)}
  %running = icmp ne i64 %started, 0
{field("threads", "%pool", at.POOL_THREADS)}
  %stop.at = getelementptr i64, ptr %pool, i64 {at.POOL_STOP}
  store atomic i64 1, ptr %stop.at release, align 8
  br i1 %running, label %head, label %out
head:
  %i = phi i64 [1, %entry], [%i1, %one]
  %more = icmp ult i64 %i, %threads
  br i1 %more, label %one, label %out
one:
{worker("%i")}
  %turn = atomicrmw add ptr %worker, i32 1 seq_cst
  call void @tcc_pool_wake(ptr %worker)
{field("thread", "%worker", at.WORKER_THREAD, "ptr")}
  %failed = call i32 @pthread_join(ptr %thread, ptr null)
  %i1 = add i64 %i, 1
  br label %head
out:
  ret void
}}
"""
