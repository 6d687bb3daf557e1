"""What kernels may ask of a GPU: each op with its PTX body, its body on the host, and the least chip that has it.

A kernel calls `@tcc.NAME`.  Nothing else of LLVM's NVPTX intrinsics may be used: LLVM ends the process on one that it cannot
select, so each of these is compiled in a process of its own by the tests.

A collective (`wait`) makes its threads wait for the others of their warp or block.  On the host each thread is a coroutine
that is suspended there: before, `stage` puts what the thread gives into its slots; after, `host` reads the others'.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

SLOTS = 8  # 32-bit words that a thread may give to a collective
THREADS = 1024  # most of a block


@dataclass(frozen=True)
class DeviceOp:
    """Bodies are LLVM text over %a, %b, ... that gives %r; `result` may be void."""

    name: str
    result: str
    params: tuple[str, ...]
    ptx: str
    host: str
    wait: str = ""  # for warp or block, or for the phase of an mbarrier
    stage: str = ""
    sm: int = 70
    specific: bool = False  # of sm_90a alone

    def _define(self, name: str, result: str, body: str, attributes: str) -> str:
        params = ", ".join(f"{t} %{param(i)}" for i, t in enumerate(self.params))
        end = "ret void" if result == "void" else f"ret {result} %r"
        lines = "".join(
            f"  {line.strip()}\n" for line in [*filter(None, body.split("\n")), end] if line.strip()
        )
        return f"define internal {result} @{name}({params}) {attributes} {{\n{lines}}}\n"

    @property
    def device_text(self) -> str:
        convergent = " convergent" if self.wait else ""
        return self._define(f"tcc.{self.name}", self.result, self.ptx, f"alwaysinline nounwind{convergent}")

    @property
    def host_text(self) -> str:
        text = self._define(f"tcc.{self.name}", self.result, self.host, "alwaysinline nounwind")
        if self.wait:
            text += self._define(f"tcc.{self.name}.stage", "void", self.stage, "alwaysinline nounwind")
        return text


def param(i: int) -> str:
    """The name of a parameter in a body: a, b, ..., j, p10, ..."""
    return chr(ord("a") + i) if i < 10 else f"p{i}"


OPS: dict[str, DeviceOp] = {}


def define(*args: object, **more: object) -> None:
    """Puts an op into the table: the fields of `DeviceOp`."""
    op = DeviceOp(*args, **more)  # type: ignore[arg-type]
    OPS[op.name] = op


def _read(register: str) -> str:
    return f"%r = call i32 @llvm.nvvm.read.ptx.sreg.{register}()"


define("thread", "i32", (), _read("tid.x"), "%r = load i32, ptr @emu.thread")
for _i, _axis in enumerate("xyz"):
    _at = f"ptr getelementptr (i32, ptr @emu.block, i32 {_i})"
    define(f"block.{_axis}", "i32", (), _read(f"ctaid.{_axis}"), f"%r = load i32, {_at}")
    _at = f"ptr getelementptr (i32, ptr @emu.grid, i32 {_i})"
    define(f"grid.{_axis}", "i32", (), _read(f"nctaid.{_axis}"), f"%r = load i32, {_at}")
define(
    "shared",
    "ptr",
    (),
    "%r = addrspacecast ptr addrspace(3) @tcc_shared to ptr",
    "%r = getelementptr i8, ptr @emu.shared, i64 0",
)
define("barrier", "void", (), "call void @llvm.nvvm.barrier.cta.sync.aligned.all(i32 0)", "", "block")
define("warp_barrier", "void", (), "call void @llvm.nvvm.bar.warp.sync(i32 -1)", "", "warp")

_MINE = """%me = load i32, ptr @emu.thread
%w = and i32 %me, -32
%l = and i32 %me, 31
"""
define(
    "shuffle_xor",
    "i32",
    ("i32", "i32"),
    "%r = call i32 @llvm.nvvm.shfl.sync.bfly.i32(i32 -1, i32 %a, i32 %b, i32 31)",
    _MINE + "%j = xor i32 %l, %b\n%t = or i32 %w, %j\n%r = call i32 @emu.slot(i32 %t, i32 0)",
    "warp",
    "call void @emu.flip()\ncall void @emu.give(i32 0, i32 %a)",
)
define(
    "shuffle_from",
    "i32",
    ("i32", "i32"),
    "%r = call i32 @llvm.nvvm.shfl.sync.idx.i32(i32 -1, i32 %a, i32 %b, i32 31)",
    _MINE + "%j = and i32 %b, 31\n%t = or i32 %w, %j\n%r = call i32 @emu.slot(i32 %t, i32 0)",
    "warp",
    "call void @emu.flip()\ncall void @emu.give(i32 0, i32 %a)",
)
define(
    "ballot",
    "i32",
    ("i1",),
    "%r = call i32 @llvm.nvvm.vote.ballot.sync(i32 -1, i1 %a)",
    _MINE
    + "\n".join(
        f"%t{n} = or i32 %w, {n}\n%s{n} = call i32 @emu.slot(i32 %t{n}, i32 0)\n%m{n} = shl i32 %s{n}, {n}\n"
        + (f"%o{n} = or i32 {'%m0' if n == 1 else f'%o{n - 1}'}, %m{n}" if n else "")
        for n in range(32)
    )
    + "\n%r = add i32 %o31, 0",
    "warp",
    "call void @emu.flip()\n%v = zext i1 %a to i32\ncall void @emu.give(i32 0, i32 %v)",
)
define(
    "atomic_max",
    "i64",
    ("ptr", "i64"),
    "%r = atomicrmw umax ptr %a, i64 %b monotonic",
    "%r = load i64, ptr %a\n%low = icmp ult i64 %r, %b\n%m = select i1 %low, i64 %b, i64 %r\nstore i64 %m, ptr %a",
)

for _kind, _t in (("i32", "i32"), ("i64", "i64"), ("f32", "float"), ("f64", "double")):
    _add = "fadd" if _kind[0] == "f" else "add"
    define(
        f"atomic_add.{_kind}",
        _t,
        ("ptr", _t),
        f"%r = atomicrmw {_add} ptr %a, {_t} %b monotonic",
        f"%r = load {_t}, ptr %a\n%m = {_add} {_t} %r, %b\nstore {_t} %m, ptr %a",
    )
define(  # an index and the size of its axis; on the host it is 0 where it is not within, which is noted as a fault of site %c
    "inside",
    "i64",
    ("i64", "i64", "i32"),
    "%r = add i64 %a, 0",
    """%out = icmp uge i64 %a, %b
    %old = load i64, ptr @emu.fault
    %first = icmp eq i64 %old, 0
    %note = and i1 %out, %first
    %p = select i1 %note, ptr @emu.fault, ptr @emu.trash
    %site = zext i32 %c to i64
    %code = sub i64 -1, %site
    store i64 %code, ptr %p
    %q = getelementptr i64, ptr %p, i64 1
    store i64 %a, ptr %q
    %s = getelementptr i64, ptr %p, i64 2
    store i64 %b, ptr %s
    %r = select i1 %out, i64 0, i64 %a""",
)


def mma_result(total: str) -> str:
    """A lane's four of the 16 x 8 totals of a warp's product."""
    return "{ " + ", ".join([total] * 4) + " }"


def _mma(kind: str, intrinsic: str, total: str = "float") -> None:
    """D = A @ B + C of a warp: A is 16 x k and B k x 8 with 32-bit words of neighbours along k, C and D are 16 x 8 totals."""
    result = mma_result(total)
    a, b = [f"%{c}" for c in "abcd"], ["%e", "%f"]
    c = ["%g", "%h", "%i", "%j"]
    words = [f"i32 {x}" for x in [*a, *b]]
    pairs = ""
    if kind == "f16":
        words = [f"<2 x half> %w{x[1:]}" for x in [*a, *b]]
        pairs = "".join(f"%w{x[1:]} = bitcast i32 {x} to <2 x half>\n" for x in [*a, *b])
    sums = ", ".join(f"{total} {x}" for x in c)
    call = f"{pairs}%r = call {result} @llvm.nvvm.{intrinsic}({', '.join(words)}, {sums})"
    stage = ["call void @emu.flip()"] + [
        f"call void @emu.give(i32 {i}, i32 {x})" for i, x in enumerate([*a, *b])
    ]
    host = [
        _MINE,
        "%row = lshr i32 %l, 2",
        "%low = add i32 %row, 8",
        "%q = and i32 %l, 3",
        "%col = shl i32 %q, 1",
    ]
    host.append("%next = add i32 %col, 1")
    at = [("%row", "%col"), ("%row", "%next"), ("%low", "%col"), ("%low", "%next")]
    previous = "poison"
    for n, (row, col) in enumerate(at):
        host.append(f"%d{n} = call {total} @emu.mma.{kind}(i32 {row}, i32 {col}, {total} {c[n]})")
        name = "%r" if n == 3 else f"%v{n}"
        host.append(f"{name} = insertvalue {result} {previous}, {total} %d{n}, {n}")
        previous = name
    params = ("i32",) * 6 + (total,) * 4
    define(f"mma.{kind}", result, params, call, "\n".join(host), "warp", "\n".join(stage), 80)


_mma("bf16", "mma.m16n8k16.row.col.bf16")
_mma("f16", "mma.m16n8k16.row.col.f32.f32")
_mma("tf32", "mma.m16n8k8.row.col.tf32")
_mma("s8.s8", "mma.m16n8k32.row.col.s8", "i32")
_mma("u8.s8", "mma.m16n8k32.row.col.u8.s8", "i32")

MMA64 = "{ double, double }"
define(
    "mma.f64",
    MMA64,
    ("double",) * 4,
    f"%r = call {MMA64} @llvm.nvvm.mma.m8n8k4.row.col.f64(double %a, double %b, double %c, double %d)",
    _MINE
    + f"""%row = lshr i32 %l, 2
    %q = and i32 %l, 3
    %col = shl i32 %q, 1
    %next = add i32 %col, 1
    %x = call double @emu.mma.f64(i32 %row, i32 %col, double %c)
    %y = call double @emu.mma.f64(i32 %row, i32 %next, double %d)
    %v = insertvalue {MMA64} poison, double %x, 0
    %r = insertvalue {MMA64} %v, double %y, 1""",
    "warp",
    """call void @emu.flip()
    call void @emu.give_double(i32 0, double %a)
    call void @emu.give_double(i32 2, double %b)""",
    80,
)
define(
    "to_tf32",
    "i32",
    ("float",),
    "%r = call i32 @llvm.nvvm.f2tf32.rna(float %a)",
    """%w = bitcast float %a to i32
    %odd = fcmp uno float %a, 0.0
    %up = add i32 %w, 4096
    %cut = and i32 %up, -8192
    %r = select i1 %odd, i32 %w, i32 %cut""",
    sm=80,
)

WORDS = "{ i32, i32, i32, i32 }"


def _ldmatrix(name: str, suffix: str, word: str) -> None:
    """Four matrices of 8 x 8 halves from shared memory, of whose rows each lane gives the address of one."""
    intrinsic = f"llvm.nvvm.ldmatrix.sync.aligned.m8n8.x4{suffix}.b16.p3"
    host = [_MINE, "%row = lshr i32 %l, 2", "%q = and i32 %l, 3"]
    previous = "poison"
    for n in range(4):
        host.append(word.replace("@#@", str(8 * n)).replace("#", str(n)))
        made = "%r" if n == 3 else f"%v{n}"
        host.append(f"{made} = insertvalue {WORDS} {previous}, i32 %x{n}, {n}")
        previous = made
    stage = """call void @emu.flip()
        %at = ptrtoint ptr %a to i64
        %low = trunc i64 %at to i32
        %up = lshr i64 %at, 32
        %high = trunc i64 %up to i32
        call void @emu.give(i32 0, i32 %low)
        call void @emu.give(i32 1, i32 %high)"""
    body = f"""%s = addrspacecast ptr %a to ptr addrspace(3)
        %r = call {WORDS} @{intrinsic}(ptr addrspace(3) %s)"""
    define(name, WORDS, ("ptr",), body, "\n".join(host), "warp", stage, 75)


_ldmatrix(
    "ldmatrix",
    "",
    """%n# = add i32 %row, @#@
    %t# = or i32 %w, %n#
    %p# = call ptr @emu.pointer(i32 %t#)
    %g# = getelementptr i32, ptr %p#, i32 %q
    %x# = load i32, ptr %g#, align 4""",
)
_ldmatrix(
    "ldmatrix_trans",
    ".trans",
    """%k# = shl i32 %q, 1
    %n# = add i32 %k#, @#@
    %t# = or i32 %w, %n#
    %u# = add i32 %t#, 1
    %p# = call ptr @emu.pointer(i32 %t#)
    %o# = call ptr @emu.pointer(i32 %u#)
    %g# = getelementptr i16, ptr %p#, i32 %row
    %h# = getelementptr i16, ptr %o#, i32 %row
    %y# = load i16, ptr %g#, align 2
    %z# = load i16, ptr %h#, align 2
    %c# = zext i16 %y# to i32
    %d# = zext i16 %z# to i32
    %e# = shl i32 %d#, 16
    %x# = or i32 %e#, %c#""",
)
define(
    "copy_async",
    "void",
    ("ptr", "ptr"),
    """%s = addrspacecast ptr %a to ptr addrspace(3)
    %g = addrspacecast ptr %b to ptr addrspace(1)
    call void @llvm.nvvm.cp.async.cg.shared.global.16(ptr addrspace(3) %s, ptr addrspace(1) %g)""",
    "call void @emu.copy_later(ptr %a, ptr %b)",  # it lands when it is waited for
    sm=80,
)
define(
    "copies_begun",
    "void",
    (),
    "call void @llvm.nvvm.cp.async.commit.group()",
    "call void @emu.copies_begun()",
    sm=80,
)
for _n in range(3):
    define(
        f"copies_left_{_n}",
        "void",
        (),
        f"call void @llvm.nvvm.cp.async.wait.group(i32 {_n})",
        f"call void @emu.copies_left(i64 {_n})",
        sm=80,
    )

_CALLED = re.compile(r"@tcc\.([a-z_0-9.]+)\(")


def used(text: str) -> list[DeviceOp]:
    """The ops that a kernel calls; KeyError for one that the table lacks."""
    return [OPS[name] for name in dict.fromkeys(_CALLED.findall(text))]


def least_sm(ops: Iterable[DeviceOp]) -> int:
    return max((op.sm for op in ops), default=70)
