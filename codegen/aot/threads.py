"""LLVM text of the threads of a library's contexts: none, or the pool of codegen/pool.py in memory of the context's own."""

from __future__ import annotations

from tcc.runtime import layout as at

SPIN_NS = 100_000


def alone_text() -> str:
    """`parallel` for libraries of one thread."""
    return """
define internal void @tcc_parallel(ptr %ctx, ptr %body, ptr %args, i64 %units, i64 %grain) #0 {
entry:
  %some = icmp sgt i64 %units, 0
  br i1 %some, label %call, label %out
call:
  call void %body(ptr %ctx, ptr %args, i64 0, i64 %units, i64 0)
  br label %out
out:
  ret void
}
"""


def setup_text(threads: int) -> str:
    """`pool_make(threads)`: the memory of a pool, filled as runtime/threads.py does; null if there is none.

    More threads than CPUs are not pinned, as many are pinned to one CPU each, fewer keep off the caller's.
    """
    bits = 64 * at.POOL_MASK_SLOTS
    return f"""
declare i32 @sched_getaffinity(i32, i64, ptr)

define internal ptr @tcc_pool_make(i64 %threads) #0 {{
entry:
  %pool = call ptr @aligned_alloc(i64 128, i64 {-(-at.POOL_BYTES // 128) * 128})
  %none = icmp eq ptr %pool, null
  br i1 %none, label %lost, label %fill
lost:
  ret ptr null
fill:
  call void @llvm.memset.p0.i64(ptr %pool, i8 0, i64 {at.POOL_BYTES}, i1 false)
  %mask = getelementptr i64, ptr %pool, i64 {at.POOL_MASK}
  %failed = call i32 @sched_getaffinity(i32 0, i64 {bits // 8}, ptr %mask)
  %threads.at = getelementptr i64, ptr %pool, i64 {at.POOL_THREADS}
  %limit.at = getelementptr i64, ptr %pool, i64 {at.POOL_LIMIT}
  %home.at = getelementptr i64, ptr %pool, i64 {at.POOL_HOME}
  %strict.at = getelementptr i64, ptr %pool, i64 {at.POOL_STRICT}
  %spin.at = getelementptr i64, ptr %pool, i64 {at.POOL_SPIN_NS}
  store i64 %threads, ptr %threads.at
  store i64 %threads, ptr %limit.at
  br label %bit
bit:                                              ; worker w gets the w-th CPU that may be used
  %cpu = phi i64 [0, %fill], [%cpu1, %next]
  %found = phi i64 [0, %fill], [%found1, %next]
  %slot = lshr i64 %cpu, 6
  %low = and i64 %cpu, 63
  %word.at = getelementptr i64, ptr %mask, i64 %slot
  %word = load i64, ptr %word.at
  %shifted = lshr i64 %word, %low
  %set = trunc i64 %shifted to i1
  br i1 %set, label %give, label %next
give:
  %wanted = icmp ult i64 %found, %threads
  br i1 %wanted, label %keep, label %count
keep:
  %offset = mul i64 %found, {at.WORKER_SLOTS}
  %cpu.slot = add i64 %offset, {at.POOL_WORKERS + at.WORKER_CPU}
  %cpu.at = getelementptr i64, ptr %pool, i64 %cpu.slot
  store i64 %cpu, ptr %cpu.at
  %first = icmp eq i64 %found, 0
  br i1 %first, label %home, label %count
home:
  store i64 %cpu, ptr %home.at
  br label %count
count:
  %more = add i64 %found, 1
  br label %next
next:
  %found1 = phi i64 [%found, %bit], [%more, %count]
  %cpu1 = add i64 %cpu, 1
  %left = icmp ult i64 %cpu1, {bits}
  br i1 %left, label %bit, label %done
done:
  %over = icmp ugt i64 %threads, %found1
  %all = icmp eq i64 %threads, %found1
  %some = zext i1 %all to i64
  %strict = select i1 %over, i64 -1, i64 %some
  %spin = select i1 %over, i64 0, i64 {SPIN_NS}
  store i64 %strict, ptr %strict.at
  store i64 %spin, ptr %spin.at
  ret ptr %pool
}}
"""
