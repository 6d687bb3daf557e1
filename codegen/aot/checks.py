"""LLVM text of what a model's library checks, and of how it says what is wrong.  Needs no libc.

A refused call has one of STATUS, and a message in a buffer of the thread's own, which NAME_last_error gives.
"""

from __future__ import annotations

from tcc.codegen.aot.layout import MESSAGE, MOST, SPEC, STATUS, TENSOR

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

# What a message says; its arguments are strings (%s), words of a list with commas (%w), and numbers (%d).
MESSAGES = {
    "null": "%s: %s is a null pointer",
    "shape": "%s: %s has no shape",
    "data": "%s: %s has no data",
    "kind": "%s: %s is %s%d with %d lanes, wanted %s",
    "device": "%s: %s is on a device of type %d, wanted memory of the CPU",
    "rank": "%s: %s has %d axes, wanted %d, [%s]",
    "size": "%s: %s has size %d in axis %d, wanted %d",
    "range": "%s: %s has size %d in axis %d, wanted %d to %d",
    "equal": "%s: %s has size %d in axis %d, wanted %d, which is %s",
    "overflow": "%s: %s is too large, [%s]",
    "stride": "%s: %s has stride %d in axis %d, wanted %d: it is to be dense, the last axis first",
    "align": "%s: %s lies at an address that is no multiple of %d",
    "alias": "%s: the memory of %s is also that of %s",
    "memory": "%s: no memory for %d bytes",
    "state": "%s: the state has no values yet: load the weights",
    "cpu": "%s: this CPU lacks %w, which the code needs",
    "file": "%s: cannot read %s as the %d bytes of the weights",
    "saved": "%s: %d bytes given, and the state has %d",
    "header": "%s: these are not the weights of this model, or not written by tcc",
    "name": "%s: there is no state %s",
    "room": "%s: %s has room for %d elements, and the result has %d",
}


def checks_text(checks: bool = True, gpu: bool = False) -> str:
    """The functions, without what they declare; `#0` is left for the caller to define.  Without `checks` they look at nothing;
    with `gpu` tensors may lie on a GPU."""
    looks = (_tensor_text(gpu), _size_text(), _overlap_text()) if checks else (UNCHECKED,)
    return "".join((_globals(), _say_text(), *looks, _tensors_text()))


def string(name: str, text: str) -> str:
    """A C string as a global."""
    data = text.encode() + b"\0"
    return f"@{name} = internal unnamed_addr constant [{len(data)} x i8] {c_bytes(data)}, align 1\n"


def c_bytes(data: bytes) -> str:
    return 'c"' + "".join(map(_ESCAPED.__getitem__, data)) + '"'


# what is written as it is means nothing in LLVM's text, where attributes and names are replaced
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
_ESCAPED = [chr(b) if b in _PLAIN else f"\\{b:02X}" for b in range(256)]


def refuse(status: str, message: str, *arguments: str) -> str:
    """A call that says `message` of MESSAGES; its value is the status.  Strings are given as `ptr ...`."""
    given = list(arguments) + ["i64 poison"] * (6 - len(arguments))
    return f"call i32 @tcc_refuse(i32 {STATUS[status]}, ptr @tcc_says_{message}, {', '.join(given)})"


def _globals() -> str:
    kinds = b"".join(k.encode().ljust(8, b"\0") for k in KINDS)
    return (
        f"{TENSOR}\n{SPEC}\n"
        f"@tcc_error = internal thread_local global [{MESSAGE} x i8] zeroinitializer\n"
        + "".join(string(f"tcc_says_{k}", v) for k, v in MESSAGES.items())
        + f"@tcc_kinds = internal constant [{len(kinds)} x i8] {c_bytes(kinds)}\n"
    )


def _say_text() -> str:
    """`refuse(status, format, six arguments)`.  Every argument is an i64; a string is its address."""
    names = ["v0", "v1", "v2", "v3", "v4", "v5"]
    params = ", ".join(f"i64 %{n}" for n in names)
    stores = "".join(
        f"  %{n}.at = getelementptr i64, ptr %args, i64 {i}\n  store i64 %{n}, ptr %{n}.at\n"
        for i, n in enumerate(names)
    )
    return f"""
define internal void @tcc_put(ptr %at, i32 %c) #0 {{
entry:
  %to = load ptr, ptr %at
  %buffer = call ptr @llvm.threadlocal.address.p0(ptr @tcc_error)
  %end = getelementptr i8, ptr %buffer, i64 {MESSAGE - 1}
  %room = icmp ult ptr %to, %end
  br i1 %room, label %put, label %out
put:
  %byte = trunc i32 %c to i8
  store i8 %byte, ptr %to
  %next = getelementptr i8, ptr %to, i64 1
  store ptr %next, ptr %at
  br label %out
out:
  ret void
}}

define internal void @tcc_put_number(ptr %at, i64 %n) #0 {{
entry:
  %digits = alloca [24 x i8]
  %end = getelementptr i8, ptr %digits, i64 24
  %negative = icmp slt i64 %n, 0
  br i1 %negative, label %minus, label %split
minus:
  call void @tcc_put(ptr %at, i32 45)
  %abs = sub i64 0, %n
  br label %split
split:
  %u = phi i64 [%n, %entry], [%abs, %minus], [%rest, %split]
  %p = phi ptr [%end, %entry], [%end, %minus], [%p1, %split]
  %rest = udiv i64 %u, 10
  %tens = mul i64 %rest, 10
  %digit = sub i64 %u, %tens
  %short = trunc i64 %digit to i8
  %char = add i8 %short, 48
  %p1 = getelementptr i8, ptr %p, i64 -1
  store i8 %char, ptr %p1
  %more = icmp ne i64 %rest, 0
  br i1 %more, label %split, label %write
write:
  %q = phi ptr [%p1, %split], [%q1, %write]
  %byte = load i8, ptr %q
  %wide = zext i8 %byte to i32
  call void @tcc_put(ptr %at, i32 %wide)
  %q1 = getelementptr i8, ptr %q, i64 1
  %left = icmp ult ptr %q1, %end
  br i1 %left, label %write, label %out
out:
  ret void
}}

define internal i32 @tcc_refuse(i32 %status, ptr %format, {params}) #0 noinline cold {{
entry:
  %args = alloca [{len(names)} x i64]
  %at = alloca ptr
{stores}  %buffer = call ptr @llvm.threadlocal.address.p0(ptr @tcc_error)
  store ptr %buffer, ptr %at
  br label %next
next:
  %f = phi ptr [%format, %entry], [%f1, %plain], [%f2, %sign], [%f2, %number], [%f2, %string]
  %k = phi i64 [0, %entry], [%k, %plain], [%k, %sign], [%k1, %number], [%k1, %string]
  %byte = load i8, ptr %f
  %c = zext i8 %byte to i32
  %f1 = getelementptr i8, ptr %f, i64 1
  switch i8 %byte, label %plain [ i8 0, label %out
                                  i8 37, label %convert ]
plain:
  call void @tcc_put(ptr %at, i32 %c)
  br label %next
convert:
  %kind = load i8, ptr %f1
  %f2 = getelementptr i8, ptr %f, i64 2
  %arg.at = getelementptr i64, ptr %args, i64 %k
  %arg = load i64, ptr %arg.at
  %k1 = add i64 %k, 1
  switch i8 %kind, label %number [ i8 115, label %begin
                                   i8 119, label %begin
                                   i8 37, label %sign ]
sign:
  call void @tcc_put(ptr %at, i32 37)
  br label %next
number:
  call void @tcc_put_number(ptr %at, i64 %arg)
  br label %next
begin:
  %first = inttoptr i64 %arg to ptr
  br label %string
string:
  %s = phi ptr [%first, %begin], [%s1, %more]
  %sb = load i8, ptr %s
  %sc = zext i8 %sb to i32
  %ends = icmp eq i8 %sb, 0
  %word = icmp eq i8 %kind, 119
  %comma = icmp eq i8 %sb, 44
  %listed = and i1 %word, %comma
  %over = or i1 %ends, %listed
  br i1 %over, label %next, label %more
more:
  call void @tcc_put(ptr %at, i32 %sc)
  %s1 = getelementptr i8, ptr %s, i64 1
  br label %string
out:
  %end = load ptr, ptr %at
  store i8 0, ptr %end
  ret i32 %status
}}
"""


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
    return f"""
define internal i32 @tcc_tensor(ptr %t, ptr %spec, ptr %who, i1 %full, ptr %data.to, ptr %end.to) #0 {{
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
where:
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
axes:
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
measured:
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
memory:
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
