"""LLVM text of what a model's callers do with its state: its size, saving, loading, and one tensor of it."""

from __future__ import annotations

from tcc.codegen.aot.layout import ALIGN, CTX_HANDED, CTX_HEADER, CTX_LOADED, STATE_ROW
from tcc.codegen.aot.messages import c_bytes, refuse
from tcc.codegen.aot.state import State

LOADED = f"""  %loaded.at = getelementptr i64, ptr %ctx, i64 {CTX_LOADED}
  store i64 1, ptr %loaded.at
"""


def state_text(prefix: str, who: str, state: State, specs: str, gpu: bool) -> str:
    """The functions, whose names begin with `prefix`.  The tensors' places stand in a table (aot/state.py), their shapes in
    the table `specs`; messages begin with the text at `who`; with a `gpu` what is newer there comes home first."""
    return _Functions(prefix, who, state, specs, gpu).text()


class _Functions:
    def __init__(self, prefix: str, who: str, state: State, specs: str, gpu: bool) -> None:
        self.prefix, self.who, self.state, self.specs, self.gpu = prefix, who, state, specs, gpu
        self.speaker = f"i64 ptrtoint (ptr {who} to i64)"
        self.panels = "  call void @tcc_panels(ptr %ctx)\n" if state.panels else ""
        self.stale = "  call void @tcc_cu_state_stale(ptr %ctx)\n" if gpu else ""

    def text(self) -> str:
        return "".join(
            (self._constants(), self._copies(), self._begin(), self._save(), self._load(), self._get())
        )

    def _constants(self) -> str:
        state = self.state
        header, data = state.header or b"\0", state.data or b"\0"
        return f"""
{state.table()}@tcc_weights_header = internal constant [{len(header)} x i8] {c_bytes(header)}, align 1
@tcc_weights = internal constant [{len(data)} x i8] {c_bytes(data)}{f", align {ALIGN}" if state.data else ", align 1"}
{state.panels_text()}"""

    # -- copies of all tensors -------------------------------------------------------------------------------------

    def _copies(self) -> str:
        """`tcc_take(ctx, data)` of a file's data, `tcc_give(ctx, data)` into it, `tcc_lay(ctx, null)` of what is embedded."""
        copy = "  call void @llvm.memcpy.p0.p0.i64(ptr {to}, ptr {source}, i64 %bytes, i1 false)\n"
        take = copy.format(to="%here", source="%there") + "  store ptr %here, ptr %slot\n  br label %next"
        give = "  %now = load ptr, ptr %slot\n" + self._unpanelled("%there", "copy", "next")
        give += copy.format(to="%there", source="%now") + "  br label %next"
        lay = f"""  %home.at = getelementptr i64, ptr %row, i64 3
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
        return (
            self._each("tcc_take(ptr %ctx, ptr %data)", take)
            + self._each("tcc_give(ptr %ctx, ptr %data)", give)
            + self._each("tcc_lay(ptr %ctx, ptr %data)", lay)
        )

    def _each(self, head: str, body: str) -> str:
        """A function that does `body` for each tensor: %here is its place in the context, %there that in a file's data."""
        return f"""
define internal void @{head} #1 {{
entry:
  br label %head
head:
  %i = phi i64 [0, %entry], [%i1, %next]
  %more = icmp ult i64 %i, {len(self.state.tensors)}
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

    def _unpanelled(self, to: str, otherwise: str, then: str) -> str:
        """A tensor that the context has as panels alone (%now is null) is put in its own order `to`."""
        if not self.state.panels:
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

    def _begin(self) -> str:
        found = "  call void @tcc_panels_begin(ptr %ctx)\n" if self.state.panels else ""
        return f"""
define internal void @tcc_begin(ptr %ctx) #1 {{
  call void @tcc_lay(ptr %ctx, ptr null)
{found}{self.panels}{LOADED}  ret void
}}
"""

    # -- what callers call -------------------------------------------------------------------------------------------

    def _save(self) -> str:
        return f"""define i64 @{self.prefix}_state_size(ptr %ctx) #1 {{
  ret i64 {self.state.file_bytes}
}}

define i32 @{self.prefix}_state_save(ptr %ctx, ptr %to, i64 %bytes) #1 {{
entry:
{self._null("filled", "ctx", "@tcc_the_context")}
filled:
{self._unloaded("there")}
there:
{self._null("sized", "to", "@tcc_the_buffer")}
sized:
  %short = icmp ult i64 %bytes, {self.state.file_bytes}
  br i1 %short, label %bad, label %copy
bad:
  %r = {refuse("size", "saved", self.speaker, "i64 %bytes", f"i64 {self.state.file_bytes}")}
  ret i32 %r
copy:
{self._fetched("give")}
give:
  call void @llvm.memcpy.p0.p0.i64(ptr %to, ptr @tcc_weights_header, i64 {len(self.state.header)}, i1 false)
  %data = getelementptr i8, ptr %to, i64 {len(self.state.header)}
  call void @tcc_give(ptr %ctx, ptr %data)
  ret i32 0
}}
"""

    def _load(self) -> str:
        return f"""
define i32 @{self.prefix}_state_load(ptr %ctx, ptr %from, i64 %bytes) #1 {{
entry:
{self._null("there", "ctx", "@tcc_the_context")}
there:
{self._null("sized", "from", "@tcc_the_buffer")}
sized:
  %same = icmp eq i64 %bytes, {self.state.file_bytes}
  br i1 %same, label %compare, label %bad
bad:
  %r = {refuse("size", "saved", self.speaker, "i64 %bytes", f"i64 {self.state.file_bytes}")}
  ret i32 %r
compare:
  %i = phi i64 [0, %sized], [%i1, %fits]
  %more = icmp ult i64 %i, {len(self.state.header)}
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
  %f = {refuse("file", "header", self.speaker)}
  ret i32 %f
copy:
  %data = getelementptr i8, ptr %from, i64 {len(self.state.header)}
  call void @tcc_take(ptr %ctx, ptr %data)
{self.panels}{self.stale}{LOADED}  ret i32 0
}}
"""

    def _get(self) -> str:
        """`state_get(ctx, name, out)`: the tensor of that name, in its own order in the context."""
        return f"""
define i32 @{self.prefix}_state_get(ptr %ctx, ptr %name, ptr %out) #1 {{
entry:
{self._null("named", "ctx", "@tcc_the_context")}
named:
{self._null("given", "name", "@tcc_the_name")}
given:
{self._null("filled", "out", "@tcc_the_tensor")}
filled:
{self._unloaded("next")}
next:
  %i = phi i64 [0, %filled], [%i1, %other]
  %more = icmp ult i64 %i, {len(self.state.tensors)}
  br i1 %more, label %one, label %missing
one:
  %known.at = getelementptr %tcc_spec, ptr {self.specs}, i64 %i
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
  %r = {refuse("null", "name", self.speaker, "i64 %name.i")}
  ret i32 %r
found:
{self._fetched("show")}
show:
{self.stale}  %row = getelementptr {STATE_ROW}, ptr @tcc_state_places, i64 %i
  %own.at = getelementptr i64, ptr %row, i64 1
  %own = load i64, ptr %own.at
  %data = getelementptr i8, ptr %ctx, i64 %own
  %slot.offset = shl i64 %i, 3
  %slot.from = add i64 %slot.offset, {CTX_HEADER}
  %slot = getelementptr i8, ptr %ctx, i64 %slot.from
  %now = load ptr, ptr %slot
{self._handed()}  %mine = icmp eq ptr %now, %data
  br i1 %mine, label %tell, label %move
move:
{self._unpanelled("%data", "shift", "moved")}  %bytes = load i64, ptr %row
  call void @llvm.memcpy.p0.p0.i64(ptr %data, ptr %now, i64 %bytes, i1 false)
  br label %moved
moved:
  store ptr %data, ptr %slot
  br label %tell
{self._tell()}"""

    def _tell(self) -> str:
        """Of tensor %i, whose numbers lie at %data, to %out."""
        return f"""tell:
  %spec = getelementptr %tcc_spec, ptr {self.specs}, i64 %i
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

    # -- parts -------------------------------------------------------------------------------------------------------

    def _null(self, label: str, name: str, what: str) -> str:
        """Goes on at `label`, unless the pointer `name`, called `what`, is null."""
        return f"""  %{name}.null = icmp eq ptr %{name}, null
  br i1 %{name}.null, label %{name}.bad, label %{label}
{name}.bad:
  %{name}.r = {refuse("null", "null", self.speaker, f"i64 ptrtoint (ptr {what} to i64)")}
  ret i32 %{name}.r
"""

    def _fetched(self, label: str) -> str:
        """What is newer on the device comes home first."""
        if not self.gpu:
            return f"  br label %{label}"
        return f"""  %home = call i32 @tcc_cu_state_home(ptr %ctx, ptr {self.who})
  %away = icmp ne i32 %home, 0
  br i1 %away, label %lost, label %{label}
lost:
  ret i32 %home"""

    def _unloaded(self, label: str) -> str:
        """Goes on at `label`, unless the context has no values yet."""
        return f"""  %loaded.at = getelementptr i64, ptr %ctx, i64 {CTX_LOADED}
  %loaded = load i64, ptr %loaded.at
  %empty = icmp eq i64 %loaded, 0
  br i1 %empty, label %unloaded, label %{label}
unloaded:
  %u = {refuse("state", "state", self.speaker)}
  ret i32 %u
"""

    def _handed(self) -> str:
        """Whoever has the address of a tensor that has panels may write there at any time: they are made again."""
        if not self.state.panels:
            return ""
        return f"""  %panels.at = getelementptr i64, ptr %row, i64 5
  %panels = load i64, ptr %panels.at
  %handed.at = getelementptr i64, ptr %ctx, i64 {CTX_HANDED}
  %handed = load i64, ptr %handed.at
  %any = or i64 %handed, %panels
  store i64 %any, ptr %handed.at
"""
