"""LLVM text of a model's context: `create`, `destroy`, and its state in the caller's hands.

A context is one block of memory: a header (aot/layout.py), then the state's tensors.  Saved state is a safetensors file.
"""

from __future__ import annotations

from tcc.codegen.aot.checks import c_bytes, refuse
from tcc.codegen.aot.features import features_text
from tcc.codegen.aot.layout import (
    ALIGN,
    CTX_HANDED,
    CTX_HEADER,
    CTX_LOADED,
    CTX_MODEL,
    CTX_POOL,
    CTX_THREADS,
    STATE_ROW,
)
from tcc.codegen.aot.state import State
from tcc.codegen.aot.threads import alone_text, setup_text
from tcc.codegen.pool import pool_text, stop_text
from tcc.codegen.target import Target


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


def _null(who: str, label: str, name: str, what: str) -> str:
    """Refuses a null pointer `name`, called `what`, and goes on at `label` otherwise."""
    return f"""  %{name}.null = icmp eq ptr %{name}, null
  br i1 %{name}.null, label %{name}.bad, label %{label}
{name}.bad:
  %{name}.r = {refuse("null", "null", f"i64 ptrtoint (ptr {who} to i64)", f"i64 ptrtoint (ptr {what} to i64)")}
  ret i32 %{name}.r
"""


def _state_text(prefix: str, who: str, state: State, specs: str, gpu: bool) -> str:
    """The tensors' places stand in a table (aot/state.py)."""
    count = len(state.tensors)
    head, whole = len(state.header), state.file_bytes
    header, data = state.header or b"\0", state.data or b"\0"

    def unpanelled(to: str, otherwise: str, then: str) -> str:
        """A tensor that the context has as panels alone (%now is null) is put in its own order `to`."""
        if not state.panels:
            return f"  br label %{otherwise}\n{otherwise}:\n"
        return f"""  %alone = icmp eq ptr %now, null
  br i1 %alone, label %unpanel, label %{otherwise}
unpanel:
  %number.at = getelementptr i64, ptr %row, i64 5
  %number = load i64, ptr %number.at
  call void @tcc_unpanel(ptr %ctx, i64 %number, ptr {to})
  br label %{then}
{otherwise}:
"""

    def each(head: str, body: str) -> str:
        """A function that does `body` for each tensor: %here is its place in the context, %there that in a file's data."""
        return f"""
define internal void @{head} #1 {{
entry:
  br label %head
head:
  %i = phi i64 [0, %entry], [%i1, %next]
  %more = icmp ult i64 %i, {count}
  br i1 %more, label %one, label %out
one:
  %row = getelementptr {STATE_ROW}, ptr @tcc_state_places, i64 %i
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
    give = "  %now = load ptr, ptr %slot\n"
    give += (
        unpanelled("%there", "copy", "next") + copy.format(to="%there", source="%now") + "  br label %next"
    )
    begin = f"""  %home.at = getelementptr i64, ptr %row, i64 3
  %home = load i64, ptr %home.at
  %lies = getelementptr i8, ptr @tcc_weights, i64 %home
  %flag.at = getelementptr i64, ptr %row, i64 4
  %flag = load i64, ptr %flag.at
  %written = icmp ne i64 %flag, 0
  br i1 %written, label %own.copy, label %shared
shared:
  %panels = icmp slt i64 %home, 0
  %known = select i1 %panels, ptr null, ptr %lies
  store ptr %known, ptr %slot
  br label %next
own.copy:
{copy.format(to="%here", source="%lies")}  store ptr %here, ptr %slot
  br label %next"""
    panelled = bool(state.panels)
    loaded = f"""  %loaded.at = getelementptr i64, ptr %ctx, i64 {CTX_LOADED}
  store i64 1, ptr %loaded.at
"""
    copies = each("tcc_take(ptr %ctx, ptr %data)", take) + each("tcc_give(ptr %ctx, ptr %data)", give)
    copies += each("tcc_lay(ptr %ctx, ptr %data)", begin)
    panels = "  call void @tcc_panels(ptr %ctx)\n" if panelled else ""
    panels_begin = "  call void @tcc_panels_begin(ptr %ctx)\n" + panels if panelled else ""

    def fetched(label: str) -> str:
        """What is newer on the device comes home first."""
        if not gpu:
            return f"  br label %{label}"
        return f"""  %home = call i32 @tcc_cu_state_home(ptr %ctx, ptr {who})
  %away = icmp ne i32 %home, 0
  br i1 %away, label %lost, label %{label}
lost:
  ret i32 %home"""

    handed = ""
    if panelled:  # whoever has the address may write there at any time
        handed = f"""  %panels.at = getelementptr i64, ptr %row, i64 5
  %panels = load i64, ptr %panels.at
  %handed.at = getelementptr i64, ptr %ctx, i64 {CTX_HANDED}
  %handed = load i64, ptr %handed.at
  %any = or i64 %handed, %panels
  store i64 %any, ptr %handed.at
"""
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
{state.table()}@tcc_weights_header = internal constant [{len(header)} x i8] {c_bytes(header)}, align 1
@tcc_weights = internal constant [{len(data)} x i8] {c_bytes(data)}{f", align {ALIGN}" if state.data else ", align 1"}
{state.panels_text()}{copies}
define internal void @tcc_begin(ptr %ctx) #1 {{
  call void @tcc_lay(ptr %ctx, ptr null)
{panels_begin}{loaded}  ret void
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
  call void @llvm.memcpy.p0.p0.i64(ptr %to, ptr @tcc_weights_header, i64 {head}, i1 false)
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
  %b.at = getelementptr i8, ptr @tcc_weights_header, i64 %i
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
{panels}{stale}{loaded}  ret i32 0
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
{stale}  %row = getelementptr {STATE_ROW}, ptr @tcc_state_places, i64 %i
  %own.at = getelementptr i64, ptr %row, i64 1
  %own = load i64, ptr %own.at
  %data = getelementptr i8, ptr %ctx, i64 %own
  %slot.offset = shl i64 %i, 3
  %slot.from = add i64 %slot.offset, {CTX_HEADER}
  %slot = getelementptr i8, ptr %ctx, i64 %slot.from
  %now = load ptr, ptr %slot
{handed}  %mine = icmp eq ptr %now, %data
  br i1 %mine, label %tell, label %move
move:
{unpanelled("%data", "shift", "moved")}  %bytes = load i64, ptr %row
  call void @llvm.memcpy.p0.p0.i64(ptr %data, ptr %now, i64 %bytes, i1 false)
  br label %moved
moved:
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
