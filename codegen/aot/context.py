"""LLVM text of a model's context: `create`, `destroy`, and its state in the caller's hands.

A context is one block of memory: a header (aot/layout.py), then the state's tensors.  Saved state is a safetensors file.
"""

from __future__ import annotations

from dataclasses import dataclass

from tcc.codegen.aot.checks import c_bytes, refuse
from tcc.codegen.aot.features import features_text
from tcc.codegen.aot.layout import (
    ALIGN,
    CTX_HEADER,
    CTX_LOADED,
    CTX_MODEL,
    CTX_POOL,
    CTX_THREADS,
)
from tcc.codegen.aot.threads import alone_text, setup_text
from tcc.codegen.pool import pool_text, stop_text
from tcc.codegen.target import Target
from tcc.runtime.manifest import Tensor


@dataclass(frozen=True)
class State:
    """The state's tensors, the header of its file, if they are embedded the file's data, and the names of those that entries update."""

    tensors: tuple[Tensor, ...]
    header: bytes
    data: bytes | None
    written: frozenset[str] = frozenset()

    @property
    def slots(self) -> dict[str, int]:
        """Where in a context the address of each stands: of its place there, or, of values that never changed, in the library."""
        return {t.name: CTX_HEADER + 8 * i for i, t in enumerate(self.tensors)}

    @property
    def offsets(self) -> dict[str, int]:
        """Where each has its place in a context."""
        made, at = {}, CTX_HEADER + -(-8 * len(self.tensors) // ALIGN) * ALIGN
        for t in self.tensors:
            made[t.name] = at
            at += -(-t.bytes // ALIGN) * ALIGN
        return made

    @property
    def context_bytes(self) -> int:
        slots = -(-8 * len(self.tensors) // ALIGN) * ALIGN
        return CTX_HEADER + slots + sum(-(-t.bytes // ALIGN) * ALIGN for t in self.tensors)

    @property
    def file_bytes(self) -> int:
        return len(self.header) + sum(t.bytes for t in self.tensors)


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
    parts.append(_state_text(prefix, who, state, specs, gpu))
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
    if state.tensors and state.data is not None:
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


def _null(who: str, label: str, name: str, what: str) -> str:
    """Refuses a null pointer `name`, called `what`, and goes on at `label` otherwise."""
    return f"""  %{name}.null = icmp eq ptr %{name}, null
  br i1 %{name}.null, label %{name}.bad, label %{label}
{name}.bad:
  %{name}.r = {refuse("null", "null", f"i64 ptrtoint (ptr {who} to i64)", f"i64 ptrtoint (ptr {what} to i64)")}
  ret i32 %{name}.r
"""


def _state_text(prefix: str, who: str, state: State, specs: str, gpu: bool) -> str:
    """The tensors' places stand in a table: bytes, the offset in a context, the offset in the file's data, whether it is updated."""
    offsets, count = state.offsets, len(state.tensors)
    rows = ", ".join(
        f"[4 x i64] [i64 {t.bytes}, i64 {offsets[t.name]}, i64 {t.offset}, i64 {int(t.name in state.written)}]"
        for t in state.tensors
    )
    table = f"[{count} x [4 x i64]] [{rows}]" if count else "[1 x [4 x i64]] zeroinitializer"
    head, whole = len(state.header), state.file_bytes
    data = (state.header if state.data is None else state.header + state.data) or b"\0"

    def each(head: str, body: str) -> str:
        """A function that does `body` for each tensor: %here is its place in the context, %file that in a file's data."""
        return f"""
define internal void @{head} #1 {{
entry:
  br label %head
head:
  %i = phi i64 [0, %entry], [%i1, %next]
  %more = icmp ult i64 %i, {count}
  br i1 %more, label %one, label %out
one:
  %row = getelementptr [4 x i64], ptr @tcc_state_places, i64 %i
  %own.at = getelementptr i64, ptr %row, i64 1
  %file.at = getelementptr i64, ptr %row, i64 2
  %bytes = load i64, ptr %row
  %own = load i64, ptr %own.at
  %file = load i64, ptr %file.at
  %here = getelementptr i8, ptr %ctx, i64 %own
  %there = getelementptr i8, ptr %data, i64 %file
  %slot.offset = shl i64 %i, 3
  %slot.from = add i64 %slot.offset, {CTX_HEADER}
  %slot = getelementptr i8, ptr %ctx, i64 %slot.from
{body}
next:
  %i1 = add i64 %i, 1
  br label %head
out:
  ret void
}}
"""

    copy = "  call void @llvm.memcpy.p0.p0.i64(ptr {to}, ptr {source}, i64 %bytes, i1 false)\n"
    take = copy.format(to="%here", source="%there") + "  store ptr %here, ptr %slot\n  br label %next"
    give = "  %now = load ptr, ptr %slot\n" + copy.format(to="%there", source="%now") + "  br label %next"
    begin = f"""  %flag.at = getelementptr i64, ptr %row, i64 3
  %flag = load i64, ptr %flag.at
  %written = icmp ne i64 %flag, 0
  br i1 %written, label %own.copy, label %shared
shared:
  store ptr %there, ptr %slot
  br label %next
own.copy:
{take}"""
    loaded = f"""  %loaded.at = getelementptr i64, ptr %ctx, i64 {CTX_LOADED}
  store i64 1, ptr %loaded.at
"""
    copies = each("tcc_take(ptr %ctx, ptr %data)", take) + each("tcc_give(ptr %ctx, ptr %data)", give)
    copies += each("tcc_lay(ptr %ctx, ptr %data)", begin)

    def fetched(label: str) -> str:
        """What is newer on the device comes home first."""
        if not gpu:
            return f"  br label %{label}"
        return f"""  %home = call i32 @tcc_cu_state_home(ptr %ctx, ptr {who})
  %away = icmp ne i32 %home, 0
  br i1 %away, label %lost, label %{label}
lost:
  ret i32 %home"""

    stale = "  call void @tcc_cu_state_stale(ptr %ctx)\n" if gpu else ""

    def unloaded(label: str) -> str:
        return f"""  %loaded.at = getelementptr i64, ptr %ctx, i64 {CTX_LOADED}
  %loaded = load i64, ptr %loaded.at
  %empty = icmp eq i64 %loaded, 0
  br i1 %empty, label %unloaded, label %{label}
unloaded:
  %u = {refuse("state", "state", f"i64 ptrtoint (ptr {who} to i64)")}
  ret i32 %u
"""

    return f"""
@tcc_state_places = internal constant {table}, align 8
@tcc_weights = internal constant [{len(data)} x i8] {c_bytes(data)}{", align 64" if state.data is not None else ", align 1"}
{copies}
define internal void @tcc_begin(ptr %ctx) #1 {{
  %data = getelementptr i8, ptr @tcc_weights, i64 {head}
  call void @tcc_lay(ptr %ctx, ptr %data)
{loaded}  ret void
}}
define i64 @{prefix}_state_size(ptr %ctx) #1 {{
  ret i64 {whole}
}}

define i32 @{prefix}_state_save(ptr %ctx, ptr %to, i64 %bytes) #1 {{
entry:
{_null(who, "filled", "ctx", "@tcc_the_context")}
filled:
{unloaded("there")}
there:
{_null(who, "sized", "to", "@tcc_the_buffer")}
sized:
  %short = icmp ult i64 %bytes, {whole}
  br i1 %short, label %bad, label %copy
bad:
  %r = {refuse("size", "saved", f"i64 ptrtoint (ptr {who} to i64)", "i64 %bytes", f"i64 {whole}")}
  ret i32 %r
copy:
{fetched("give")}
give:
  call void @llvm.memcpy.p0.p0.i64(ptr %to, ptr @tcc_weights, i64 {head}, i1 false)
  %data = getelementptr i8, ptr %to, i64 {head}
  call void @tcc_give(ptr %ctx, ptr %data)
  ret i32 0
}}

define i32 @{prefix}_state_load(ptr %ctx, ptr %from, i64 %bytes) #1 {{
entry:
{_null(who, "there", "ctx", "@tcc_the_context")}
there:
{_null(who, "sized", "from", "@tcc_the_buffer")}
sized:
  %same = icmp eq i64 %bytes, {whole}
  br i1 %same, label %compare, label %bad
bad:
  %r = {refuse("size", "saved", f"i64 ptrtoint (ptr {who} to i64)", "i64 %bytes", f"i64 {whole}")}
  ret i32 %r
compare:
  %i = phi i64 [0, %sized], [%i1, %fits]
  %more = icmp ult i64 %i, {head}
  br i1 %more, label %look, label %copy
look:
  %a.at = getelementptr i8, ptr %from, i64 %i
  %b.at = getelementptr i8, ptr @tcc_weights, i64 %i
  %a = load i8, ptr %a.at
  %b = load i8, ptr %b.at
  %equal = icmp eq i8 %a, %b
  br i1 %equal, label %fits, label %foreign
fits:
  %i1 = add i64 %i, 1
  br label %compare
foreign:
  %f = {refuse("file", "header", f"i64 ptrtoint (ptr {who} to i64)")}
  ret i32 %f
copy:
  %data = getelementptr i8, ptr %from, i64 {head}
  call void @tcc_take(ptr %ctx, ptr %data)
{stale}{loaded}  ret i32 0
}}

define i32 @{prefix}_state_get(ptr %ctx, ptr %name, ptr %out) #1 {{
entry:
{_null(who, "named", "ctx", "@tcc_the_context")}
named:
{_null(who, "given", "name", "@tcc_the_name")}
given:
{_null(who, "filled", "out", "@tcc_the_tensor")}
filled:
{unloaded("next")}
next:
  %i = phi i64 [0, %filled], [%i1, %other]
  %more = icmp ult i64 %i, {count}
  br i1 %more, label %one, label %missing
one:
  %known.at = getelementptr %tcc_spec, ptr {specs}, i64 %i
  %known = load ptr, ptr %known.at
  br label %char
char:
  %j = phi i64 [0, %one], [%j1, %same]
  %p = getelementptr i8, ptr %known, i64 %j
  %q = getelementptr i8, ptr %name, i64 %j
  %a = load i8, ptr %p
  %b = load i8, ptr %q
  %equal = icmp eq i8 %a, %b
  %last = icmp eq i8 %a, 0
  br i1 %equal, label %same, label %other
same:
  %j1 = add i64 %j, 1
  br i1 %last, label %found, label %char
other:
  %i1 = add i64 %i, 1
  br label %next
missing:
  %name.i = ptrtoint ptr %name to i64
  %r = {refuse("null", "name", f"i64 ptrtoint (ptr {who} to i64)", "i64 %name.i")}
  ret i32 %r
found:
{fetched("show")}
show:
{stale}  %row = getelementptr [4 x i64], ptr @tcc_state_places, i64 %i
  %own.at = getelementptr i64, ptr %row, i64 1
  %own = load i64, ptr %own.at
  %data = getelementptr i8, ptr %ctx, i64 %own
  %slot.offset = shl i64 %i, 3
  %slot.from = add i64 %slot.offset, {CTX_HEADER}
  %slot = getelementptr i8, ptr %ctx, i64 %slot.from
  %now = load ptr, ptr %slot
  %mine = icmp eq ptr %now, %data
  br i1 %mine, label %tell, label %move
move:
  %bytes = load i64, ptr %row
  call void @llvm.memcpy.p0.p0.i64(ptr %data, ptr %now, i64 %bytes, i1 false)
  store ptr %data, ptr %slot
  br label %tell
tell:
  %spec = getelementptr %tcc_spec, ptr {specs}, i64 %i
  %least.at = getelementptr %tcc_spec, ptr %spec, i32 0, i32 2
  %rank.at = getelementptr %tcc_spec, ptr %spec, i32 0, i32 5
  %kind.at = getelementptr %tcc_spec, ptr %spec, i32 0, i32 6
  %shape = load ptr, ptr %least.at
  %rank = load i32, ptr %rank.at
  %kind = load i32, ptr %kind.at
  call void @llvm.memset.p0.i64(ptr %out, i8 0, i64 ptrtoint (ptr getelementptr (%tcc_tensor, ptr null, i32 1) to i64), i1 false)
  %device.to = getelementptr %tcc_tensor, ptr %out, i32 0, i32 1
  %rank.to = getelementptr %tcc_tensor, ptr %out, i32 0, i32 3
  %kind.to = getelementptr %tcc_tensor, ptr %out, i32 0, i32 4
  %shape.to = getelementptr %tcc_tensor, ptr %out, i32 0, i32 5
  store ptr %data, ptr %out
  store i32 1, ptr %device.to
  store i32 %rank, ptr %rank.to
  store i32 %kind, ptr %kind.to
  store ptr %shape, ptr %shape.to
  ret i32 0
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
