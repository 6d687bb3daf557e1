"""LLVM text of a model's context: `create`, `destroy`, and its state in the caller's hands.

A context is one block of memory: a header (aot/layout.py), then the state's tensors.  Saved state is a safetensors file.
"""

from __future__ import annotations

from tcc.codegen.aot.features import features_text
from tcc.codegen.aot.layout import (
    ALIGN,
    CTX_HEADER,
    CTX_MODEL,
    CTX_POOL,
    CTX_THREADS,
)
from tcc.codegen.aot.messages import refuse
from tcc.codegen.aot.state import State
from tcc.codegen.aot.state_functions import state_text
from tcc.codegen.aot.threads import alone_text, setup_text
from tcc.codegen.pool import pool_text
from tcc.codegen.target import Target
from tcc.codegen.workers import stop_text


def context_text(
    prefix: str,
    who: str,
    state: State,
    specs: str,
    listed: str,
    target: Target,
    threads: int,
    gpu: bool,
) -> str:
    """The functions; `specs` is the table of the state's specs, `listed` what the CPU must have; with a `gpu` a
    context has a device record too (gpu/library.py)."""
    many = threads > 1
    parts = [alone_text(), features_text(target, listed)]
    if many:
        parts[0] = pool_text(target) + stop_text() + setup_text(threads)
    parts += [_create_text(prefix, who, state, many, threads, gpu), _destroy_text(prefix, many, gpu)]
    parts.append(state_text(prefix, who, state, specs, gpu))
    if state.tensors:
        parts.append(_file_text(prefix, who, state))
    return "".join(parts)


def _create_text(prefix: str, who: str, state: State, many: bool, threads: int, gpu: bool) -> str:
    """`create(options)`: options are {i32 threads, i32 device, ptr weights}, the last a file's name."""
    total = state.context_bytes
    load = """  %status = call i32 @tcc_read(ptr %ctx, ptr %file)
  %wrong = icmp ne i32 %status, 0
  br i1 %wrong, label %drop, label %ready"""
    if not state.tensors:
        load = "  br label %ready"
    pool = "  br label %weigh"
    if many:
        pool = f"""  %several = icmp ugt i64 %threads, 1
  br i1 %several, label %workers, label %weigh
workers:
  %pool = call ptr @tcc_pool_make(i64 %threads)
  %pool.at = getelementptr i64, ptr %ctx, i64 {CTX_POOL}
  store ptr %pool, ptr %pool.at
  %poolless = icmp eq ptr %pool, null
  br i1 %poolless, label %drop, label %weigh"""
    if gpu:
        pool = f"""  %opened = call i32 @tcc_cu_open(ptr %ctx, i32 %number, ptr {who})
  %closed = icmp ne i32 %opened, 0
  br i1 %closed, label %drop, label %weigh"""
    embedded = "  br label %ready"
    if state.tensors and state.values is not None:
        embedded = """  call void @tcc_begin(ptr %ctx)
  br label %ready"""
    return f"""
define ptr @{prefix}_create(ptr %options) #1 {{
entry:
  %unfit = call i32 @tcc_unfit(ptr {who})
  %bad = icmp ne i32 %unfit, 0
  br i1 %bad, label %none, label %fit
none:
  ret ptr null
fit:
  %default = icmp eq ptr %options, null
  br i1 %default, label %make, label %read
read:
  %asked = load i32, ptr %options
  %number.at = getelementptr i32, ptr %options, i64 1
  %chosen = load i32, ptr %number.at
  %file.at = getelementptr i64, ptr %options, i64 1
  %named = load ptr, ptr %file.at
  br label %make
make:
  %wanted = phi i32 [0, %fit], [%asked, %read]
  %number = phi i32 [0, %fit], [%chosen, %read]
  %file = phi ptr [null, %fit], [%named, %read]
  %few = icmp slt i32 %wanted, 1
  %wide = sext i32 %wanted to i64
  %positive = select i1 %few, i64 {threads}, i64 %wide
  %threads = call i64 @llvm.umin.i64(i64 %positive, i64 {threads})
  %ctx = call ptr @aligned_alloc(i64 {ALIGN}, i64 {total})
  %lost = icmp eq ptr %ctx, null
  br i1 %lost, label %poor, label %fill
poor:
  %who.i = ptrtoint ptr {who} to i64
  %r = {refuse("memory", "memory", "i64 %who.i", f"i64 {total}")}
  ret ptr null
fill:
  call void @llvm.memset.p0.i64(ptr %ctx, i8 0, i64 {CTX_HEADER}, i1 false)
  %model.at = getelementptr i64, ptr %ctx, i64 {CTX_MODEL}
  store ptr @tcc_model, ptr %model.at
  %threads.at = getelementptr i64, ptr %ctx, i64 {CTX_THREADS}
  store i64 %threads, ptr %threads.at
{pool}
weigh:
  %own = icmp eq ptr %file, null
  br i1 %own, label %embedded, label %load
load:
{load}
embedded:
{embedded}
drop:
  call void @{prefix}_destroy(ptr %ctx)
  ret ptr null
ready:
  ret ptr %ctx
}}
"""


def _destroy_text(prefix: str, many: bool, gpu: bool) -> str:
    stop = ("  call void @tcc_cu_close(ptr %ctx)\n" if gpu else "") + "  br label %free"
    if many:
        stop = f"""  %pool.at = getelementptr i64, ptr %ctx, i64 {CTX_POOL}
  %pool = load ptr, ptr %pool.at
  %alone = icmp eq ptr %pool, null
  br i1 %alone, label %free, label %end
end:
  call void @tcc_pool_stop(ptr %pool)
  call void @free(ptr %pool)
  br label %free"""
    return f"""
define void @{prefix}_destroy(ptr %ctx) #1 {{
entry:
  %none = icmp eq ptr %ctx, null
  br i1 %none, label %out, label %stop
stop:
{stop}
free:
  call void @free(ptr %ctx)
  br label %out
out:
  ret void
}}
"""


def _file_text(prefix: str, who: str, state: State) -> str:
    """`read(ctx, file)`: the state from a file."""
    whole = state.file_bytes
    return f"""
declare ptr @fopen(ptr, ptr) nonlazybind
declare i64 @fread(ptr, i64, i64, ptr) nonlazybind
declare i32 @fclose(ptr) nonlazybind
@tcc_read_mode = internal constant [3 x i8] c"rb\\00"

define internal i32 @tcc_read(ptr %ctx, ptr %file) #1 {{
entry:
  %buffer = call ptr @aligned_alloc(i64 64, i64 {-(-(whole + 1) // 64) * 64})
  %none = icmp eq ptr %buffer, null
  br i1 %none, label %poor, label %open
poor:
  %p = {refuse("memory", "memory", f"i64 ptrtoint (ptr {who} to i64)", f"i64 {whole}")}
  ret i32 %p
open:
  %stream = call ptr @fopen(ptr %file, ptr @tcc_read_mode)
  %closed = icmp eq ptr %stream, null
  br i1 %closed, label %bad, label %read
read:
  %got = call i64 @fread(ptr %buffer, i64 1, i64 {whole + 1}, ptr %stream)
  %r0 = call i32 @fclose(ptr %stream)
  %whole = icmp eq i64 %got, {whole}
  br i1 %whole, label %take, label %bad
bad:
  call void @free(ptr %buffer)
  %file.i = ptrtoint ptr %file to i64
  %r = {refuse("file", "file", f"i64 ptrtoint (ptr {who} to i64)", "i64 %file.i", f"i64 {whole}")}
  ret i32 %r
take:
  %status = call i32 @{prefix}_state_load(ptr %ctx, ptr %buffer, i64 {whole})
  call void @free(ptr %buffer)
  ret i32 %status
}}
"""
