"""LLVM text of what a model's library checks of the tensors it is given.  Needs no libc; what is wrong is said by messages.py."""

from __future__ import annotations

from tcc.codegen.aot.layout import MOST, SPEC, TENSOR
from tcc.codegen.aot.messages import c_bytes, messages_text, refuse

CPU, GPU, PINNED = 1, 2, 3  # DLPack's device types, the first and the last being memory that the CPU reads
KINDS = (
    "int",
    "uint",
    "float",
    "handle",
    "bfloat",
    "complex",
    "bool",
    "unknown",
)  # DLPack's type codes, and others


def checks_text(checks: bool = True, gpu: bool = False) -> str:
    """The functions, without what they declare; `#0` is left for the caller to define.  Without `checks` they look at nothing;
    with `gpu` tensors may lie on a GPU."""
    looks = (_tensor_text(gpu), _size_text(), _overlap_text()) if checks else (UNCHECKED,)
    return "".join((f"{TENSOR}\n{SPEC}\n", messages_text(), _kinds_text(), *looks, _tensors_text()))


def _kinds_text() -> str:
    names = b"".join(k.encode().ljust(8, b"\0") for k in KINDS)
    return f"@tcc_kinds = internal constant [{len(names)} x i8] {c_bytes(names)}\n"


def field(name: str, pointer: str, struct: str, index: int, type: str) -> str:
    return (
        f"  %{name}.at = getelementptr %{struct}, ptr {pointer}, i32 0, i32 {index}\n"
        f"  %{name} = load {type}, ptr %{name}.at\n"
    )


def _says(label: str, status: str, message: str, *arguments: str) -> str:
    """A block that refuses; the first two arguments, who is called and the tensor's name, go without saying."""
    call = refuse(status, message, "i64 %who.i", "i64 %name.i", *arguments)
    return f"{label}:\n  %{label}.r = {call}\n  ret i32 %{label}.r\n"


def _tensor_text(gpu: bool) -> str:
    """`tensor(t, spec, who, full, data, end)`: what its spec says of a tensor alone; where its memory begins and ends.

    Unless `full`, only what `shape` says is looked at, and not the memory.
    """
    parts = (_kind_part(), _device_part(gpu), _shape_part(), _strides_part(), _memory_part())
    return "\n" + "".join(parts)


def _kind_part() -> str:
    """What its spec says, that there is one, and its dtype."""
    return f"""define internal i32 @tcc_tensor(ptr %t, ptr %spec, ptr %who, i1 %full, ptr %data.to, ptr %end.to) #0 {{
entry:
  %who.i = ptrtoint ptr %who to i64
{field("name", "%spec", "tcc_spec", 0, "ptr")}{field("text", "%spec", "tcc_spec", 1, "ptr")}
{field("least", "%spec", "tcc_spec", 2, "ptr")}{field("most", "%spec", "tcc_spec", 3, "ptr")}
{field("dtype", "%spec", "tcc_spec", 4, "ptr")}{field("rank", "%spec", "tcc_spec", 5, "i32")}
{field("kind", "%spec", "tcc_spec", 6, "i32")}{field("align", "%spec", "tcc_spec", 7, "i32")}
  %name.i = ptrtoint ptr %name to i64
  %text.i = ptrtoint ptr %text to i64
  %align.i = zext i32 %align to i64
  %rank.i = sext i32 %rank to i64
  %bits = lshr i32 %kind, 8
  %bits8 = and i32 %bits, 255
  %bits.i = zext i32 %bits8 to i64
  %item = lshr i64 %bits.i, 3
  %none = icmp eq ptr %t, null
  br i1 %none, label %null, label %some
{_says("null", "null", "null")}
some:
{field("given", "%t", "tcc_tensor", 4, "i32")}
  %same = icmp eq i32 %given, %kind
  br i1 %same, label %where, label %other
other:
  %code = and i32 %given, 255
  %code.i = zext i32 %code to i64
  %kind.i = call i64 @llvm.umin.i64(i64 %code.i, i64 {len(KINDS) - 1})
  %word.offset = shl i64 %kind.i, 3
  %word = getelementptr i8, ptr @tcc_kinds, i64 %word.offset
  %word.i = ptrtoint ptr %word to i64
  %gb = lshr i32 %given, 8
  %gb8 = and i32 %gb, 255
  %gb.i = zext i32 %gb8 to i64
  %lanes = lshr i32 %given, 16
  %lanes.i = zext i32 %lanes to i64
  %dtype.i = ptrtoint ptr %dtype to i64
  br label %kinds
{_says("kinds", "dtype", "kind", "i64 %word.i", "i64 %gb.i", "i64 %lanes.i", "i64 %dtype.i")}
"""


def _device_part(gpu: bool) -> str:
    """Where its memory is."""
    return f"""where:
{field("device", "%t", "tcc_tensor", 1, "i32")}
  %plain = icmp eq i32 %device, {CPU}
  %pinned = icmp eq i32 %device, {PINNED}
  %near = or i1 %plain, %pinned
  %far = icmp eq i32 %device, {GPU if gpu else CPU}
  %here = or i1 %near, %far
  br i1 %here, label %axes, label %away
away:
  %device.i = sext i32 %device to i64
  br label %devices
{_says("devices", "device", "device", "i64 %device.i")}
"""


def _shape_part() -> str:
    """Its sizes, and that its bytes can be counted."""
    return f"""axes:
{field("axis.count", "%t", "tcc_tensor", 3, "i32")}
  %even = icmp eq i32 %axis.count, %rank
  br i1 %even, label %shaped, label %uneven
uneven:
  %count.i = sext i32 %axis.count to i64
  br label %ranks
{_says("ranks", "rank", "rank", "i64 %count.i", "i64 %rank.i", "i64 %text.i")}
shaped:
{field("shape", "%t", "tcc_tensor", 5, "ptr")}
  %bare = icmp eq ptr %shape, null
  %scalar = icmp eq i32 %rank, 0
  %fine = xor i1 %scalar, true
  %unshaped = and i1 %bare, %fine
  br i1 %unshaped, label %shapeless, label %sizes
{_says("shapeless", "null", "shape")}
sizes:
  %i = phi i64 [0, %shaped], [%i1, %grown]
  %bytes = phi i64 [%item, %shaped], [%product, %grown]
  %more = icmp slt i64 %i, %rank.i
  br i1 %more, label %axis, label %measured
axis:
  %size.at = getelementptr i64, ptr %shape, i64 %i
  %size = load i64, ptr %size.at
  %least.i.at = getelementptr i64, ptr %least, i64 %i
  %most.i.at = getelementptr i64, ptr %most, i64 %i
  %low = load i64, ptr %least.i.at
  %high = load i64, ptr %most.i.at
  %above = icmp sge i64 %size, %low
  %below = icmp sle i64 %size, %high
  %within = and i1 %above, %below
  br i1 %within, label %grow, label %outside
outside:
  %fixed = icmp eq i64 %low, %high
  br i1 %fixed, label %wrong, label %ranges
{_says("wrong", "size", "size", "i64 %size", "i64 %i", "i64 %low")}
{_says("ranges", "range", "range", "i64 %size", "i64 %i", "i64 %low", "i64 %high")}
grow:
  %grew = call {{ i64, i1 }} @llvm.umul.with.overflow.i64(i64 %bytes, i64 %size)
  %product = extractvalue {{ i64, i1 }} %grew, 0
  %wrapped = extractvalue {{ i64, i1 }} %grew, 1
  %vast = icmp ugt i64 %product, {MOST}
  %huge = or i1 %wrapped, %vast
  br i1 %huge, label %overflow, label %grown
{_says("overflow", "overflow", "overflow", "i64 %text.i")}
grown:
  %i1 = add i64 %i, 1
  br label %sizes
"""


def _strides_part() -> str:
    """That it is dense."""
    return f"""measured:
  br i1 %full, label %strided, label %ok
strided:
{field("strides", "%t", "tcc_tensor", 6, "ptr")}
  %dense = icmp eq ptr %strides, null
  %empty = icmp eq i64 %bytes, 0
  %simple = or i1 %dense, %empty
  br i1 %simple, label %memory, label %walk
walk:
  %j = phi i64 [%rank.i, %strided], [%j1, %stepped]
  %wanted = phi i64 [1, %strided], [%wider, %stepped]
  %again = icmp sgt i64 %j, 0
  br i1 %again, label %step, label %memory
step:
  %j1 = sub i64 %j, 1
  %stride.at = getelementptr i64, ptr %strides, i64 %j1
  %length.at = getelementptr i64, ptr %shape, i64 %j1
  %stride = load i64, ptr %stride.at
  %length = load i64, ptr %length.at
  %right = icmp eq i64 %stride, %wanted
  %single = icmp eq i64 %length, 1
  %good = or i1 %right, %single
  br i1 %good, label %stepped, label %spread
{_says("spread", "stride", "stride", "i64 %stride", "i64 %j1", "i64 %wanted")}
stepped:
  %wider = mul i64 %wanted, %length
  br label %walk
"""


def _memory_part() -> str:
    """Where it lies."""
    return f"""memory:
{field("base", "%t", "tcc_tensor", 0, "ptr")}{field("offset", "%t", "tcc_tensor", 7, "i64")}
  %missing = icmp eq ptr %base, null
  %any = icmp ne i64 %bytes, 0
  %lost = and i1 %missing, %any
  br i1 %lost, label %dataless, label %placed
{_says("dataless", "null", "data")}
placed:
  %start = getelementptr i8, ptr %base, i64 %offset
  %end = getelementptr i8, ptr %start, i64 %bytes
  %start.i = ptrtoint ptr %start to i64
  %end.i = ptrtoint ptr %end to i64
  %mask = sub i64 %align.i, 1
  %odd.bits = and i64 %start.i, %mask
  %odd = icmp ne i64 %odd.bits, 0
  %unfit = and i1 %odd, %any
  br i1 %unfit, label %crooked, label %lies
{_says("crooked", "align", "align", "i64 %align.i")}
lies:
  %turned = icmp ult i64 %end.i, %start.i
  br i1 %turned, label %beyond, label %kept
{_says("beyond", "overflow", "overflow", "i64 %text.i")}
kept:
  store ptr %start, ptr %data.to
  store ptr %end, ptr %end.to
  br label %ok
ok:
  ret i32 0
}}
"""


def _tensors_text() -> str:
    """`tensor` for each of an array of tensors."""
    return """
define internal i32 @tcc_tensors(ptr %list, ptr %specs, i64 %count, ptr %who, i1 %full, ptr %data, ptr %ends) #0 {
entry:
  br label %head
head:
  %i = phi i64 [0, %entry], [%i1, %next]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %one, label %ok
one:
  %none = icmp eq ptr %list, null
  br i1 %none, label %take, label %read
read:
  %t.at = getelementptr ptr, ptr %list, i64 %i
  %given = load ptr, ptr %t.at
  br label %take
take:
  %t = phi ptr [null, %one], [%given, %read]
  %spec = getelementptr %tcc_spec, ptr %specs, i64 %i
  %data.at = getelementptr i64, ptr %data, i64 %i
  %end.at = getelementptr i64, ptr %ends, i64 %i
  %status = call i32 @tcc_tensor(ptr %t, ptr %spec, ptr %who, i1 %full, ptr %data.at, ptr %end.at)
  %bad = icmp ne i32 %status, 0
  br i1 %bad, label %out, label %next
next:
  %i1 = add i64 %i, 1
  br label %head
out:
  ret i32 %status
ok:
  ret i32 0
}
"""


UNCHECKED = """
define internal i32 @tcc_tensor(ptr %t, ptr %spec, ptr %who, i1 %full, ptr %data.to, ptr %end.to) #0 {
  %offset.at = getelementptr %tcc_tensor, ptr %t, i32 0, i32 7
  %base = load ptr, ptr %t
  %offset = load i64, ptr %offset.at
  %start = getelementptr i8, ptr %base, i64 %offset
  store ptr %start, ptr %data.to
  ret i32 0
}

define internal i32 @tcc_equal(i64 %got, i64 %want, ptr %spec, ptr %who, i64 %axis, ptr %text) #0 {
  ret i32 0
}

define internal i32 @tcc_apart(ptr %who, ptr %specs, ptr %starts, ptr %ends, i64 %first, i64 %last, i64 %count) #0 {
  ret i32 0
}
"""


def _size_text() -> str:
    return f"""
define internal i32 @tcc_equal(i64 %got, i64 %want, ptr %spec, ptr %who, i64 %axis, ptr %text) #0 {{
entry:
  %same = icmp eq i64 %got, %want
  br i1 %same, label %ok, label %bad
ok:
  ret i32 0
bad:
  %who.i = ptrtoint ptr %who to i64
{field("name", "%spec", "tcc_spec", 0, "ptr")}
  %name.i = ptrtoint ptr %name to i64
  %text.i = ptrtoint ptr %text to i64
  br label %says
{_says("says", "size", "equal", "i64 %got", "i64 %axis", "i64 %want", "i64 %text.i")}
}}
"""


def _overlap_text() -> str:
    """`apart(who, specs, starts, ends, first, last, count)`: nothing from `first` to `last` shares a byte with another."""
    return f"""
define internal i64 @tcc_name(ptr %specs, i64 %i, i64 %count) #0 {{
  %tensors = sub i64 %count, 2
  %is.tensor = icmp ult i64 %i, %tensors
  %is.workspace = icmp eq i64 %i, %tensors
  %other = select i1 %is.workspace, ptr @tcc_the_workspace, ptr @tcc_the_context
  %spec = getelementptr %tcc_spec, ptr %specs, i64 %i
  br i1 %is.tensor, label %read, label %out
read:
  %name = load i64, ptr %spec
  ret i64 %name
out:
  %other.i = ptrtoint ptr %other to i64
  ret i64 %other.i
}}

define internal i32 @tcc_apart(ptr %who, ptr %specs, ptr %starts, ptr %ends, i64 %first, i64 %last, i64 %count) #0 {{
entry:
  br label %outer
outer:
  %i = phi i64 [%first, %entry], [%i1, %through]
  %more = icmp slt i64 %i, %last
  br i1 %more, label %one, label %ok
one:
  %a.at = getelementptr i64, ptr %starts, i64 %i
  %b.at = getelementptr i64, ptr %ends, i64 %i
  %a = load i64, ptr %a.at
  %b = load i64, ptr %b.at
  br label %inner
inner:
  %j = phi i64 [0, %one], [%j1, %next]
  %left = icmp slt i64 %j, %count
  br i1 %left, label %two, label %through
two:
  %c.at = getelementptr i64, ptr %starts, i64 %j
  %d.at = getelementptr i64, ptr %ends, i64 %j
  %c = load i64, ptr %c.at
  %d = load i64, ptr %d.at
  %before = icmp ult i64 %a, %d
  %behind = icmp ult i64 %c, %b
  %self = icmp ne i64 %i, %j
  %some = icmp ult i64 %a, %b
  %theirs = icmp ult i64 %c, %d
  %both = and i1 %before, %behind
  %full = and i1 %some, %theirs
  %shared = and i1 %both, %full
  %clash = and i1 %shared, %self
  br i1 %clash, label %bad, label %next
bad:
  %who.i = ptrtoint ptr %who to i64
  %name.i = call i64 @tcc_name(ptr %specs, i64 %i, i64 %count)
  %m = call i64 @tcc_name(ptr %specs, i64 %j, i64 %count)
  br label %says
{_says("says", "alias", "alias", "i64 %m")}
next:
  %j1 = add i64 %j, 1
  br label %inner
through:
  %i1 = add i64 %i, 1
  br label %outer
ok:
  ret i32 0
}}
"""
