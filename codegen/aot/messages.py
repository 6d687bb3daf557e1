"""LLVM text of how a model's library says what is wrong.  Needs no libc.

A refused call has one of STATUS, and a message in a buffer of the thread's own, which NAME_last_error gives.
"""

from __future__ import annotations

from tcc.codegen.aot.layout import MESSAGE, STATUS

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


def messages_text() -> str:
    """The messages, and `tcc_refuse`; `#0` is left for the caller to define."""
    texts = "".join(string(f"tcc_says_{k}", v) for k, v in MESSAGES.items())
    buffer = f"@tcc_error = internal thread_local global [{MESSAGE} x i8] zeroinitializer\n"
    return "".join((buffer, texts, _put_text(), _number_text(), _refuse_text()))


def _put_text() -> str:
    """`put(at, c)`: a character at the end of what is written, if there is room."""
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
"""


def _number_text() -> str:
    return """
define internal void @tcc_put_number(ptr %at, i64 %n) #0 {
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
}
"""


def _refuse_text() -> str:
    """`refuse(status, format, six arguments)`.  Every argument is an i64; a string is its address."""
    names = ["v0", "v1", "v2", "v3", "v4", "v5"]
    params = ", ".join(f"i64 %{n}" for n in names)
    stores = "".join(
        f"  %{n}.at = getelementptr i64, ptr %args, i64 {i}\n  store i64 %{n}, ptr %{n}.at\n"
        for i, n in enumerate(names)
    )
    return f"""
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
