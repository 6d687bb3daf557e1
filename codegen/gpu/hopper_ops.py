"""Device ops of sm_90a: mbarriers, copies of tiles by the tensor memory accelerator, products of warpgroups, register quotas.

On the host an mbarrier is one word: arrivals that are missing (16 bits), those of a phase (16), bytes that are under way (31), and
the phase's parity.  Copies and products are done when they are called.  But products that nobody has waited for count as under way:
a tile that is copied over what they read becomes NaN (bytes: -1), and so do their totals (a number without meaning) if they are taken.
"""

from __future__ import annotations

from functools import partial

from tcc.codegen.gpu import ops
from tcc.codegen.gpu.ops import param

define = partial(ops.define, sm=90, specific=True)
WIDTHS = (128, 256)  # columns of a product


def _shared(name: str, pointer: str) -> str:
    return f"%{name} = addrspacecast ptr %{pointer} to ptr addrspace(3)\n"


define(
    "mbarrier_init",
    "void",
    ("ptr", "i32"),
    _shared("s", "a") + "call void @llvm.nvvm.mbarrier.init.shared(ptr addrspace(3) %s, i32 %b)",
    """%n = zext i32 %b to i64
    %up = shl i64 %n, 16
    %w = or i64 %up, %n
    store i64 %w, ptr %a""",
)
define("mbarriers_made", "void", (), "call void @llvm.nvvm.fence.mbarrier_init.release.cluster()", "")
define(
    "mbarrier_arrive",
    "void",
    ("ptr",),
    _shared("s", "a") + "%t = call i64 @llvm.nvvm.mbarrier.arrive.shared(ptr addrspace(3) %s)",
    "call void @emu.phase_move(ptr %a, i64 1, i64 0)",
)
define(
    "mbarrier_expect",
    "void",
    ("ptr", "i32"),
    _shared("s", "a")
    + "%t = call i64 @llvm.nvvm.mbarrier.arrive.expect.tx.scope.cta.space.cta(ptr addrspace(3) %s, i32 %b)",
    "%n = zext i32 %b to i64\ncall void @emu.phase_move(ptr %a, i64 1, i64 %n)",
)
define(
    "mbarrier_wait",
    "void",
    ("ptr", "i32"),
    _shared("s", "a")
    + """br label %look
    look:
    %over = call i1 @llvm.nvvm.mbarrier.try.wait.parity.scope.cta.space.cta(ptr addrspace(3) %s, i32 %b)
    br i1 %over, label %done, label %look
    done:""",
    "",
    "phase",
    """%me = load i32, ptr @emu.thread
    %p = getelementptr ptr, ptr @emu.phase_at, i32 %me
    %q = getelementptr i32, ptr @emu.phase_parity, i32 %me
    store ptr %a, ptr %p
    store i32 %b, ptr %q""",
)
# A tile of a tensor map's box at (x, y, z) to shared memory, which tells an mbarrier of its bytes.
define(
    "tile_copy",
    "void",
    ("ptr", "ptr", "ptr", "i32", "i32", "i32"),
    _shared("s", "a")
    + _shared("t", "b")
    + """%to = ptrtoint ptr addrspace(3) %s to i32
    %bar = ptrtoint ptr addrspace(3) %t to i32
    %map = ptrtoint ptr %c to i64
    call void asm sideeffect "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [$0], [$1, {$3, $4, $5}], [$2];", "r,l,r,r,r,r,~{memory}"(i32 %to, i64 %map, i32 %bar, i32 %d, i32 %e, i32 %f)""",
    """%moved = call i64 @emu.tile_copy(ptr %a, ptr %c, i32 %d, i32 %e, i32 %f)
    %less = sub i64 0, %moved
    call void @emu.phase_move(ptr %b, i64 0, i64 %less)""",
)
# A tile of pixels of images at (channel, column, row, image), where a filter's first tap lies, for the tap so far right and down from it.
define(
    "pixel_copy",
    "void",
    ("ptr", "ptr", "ptr", "i32", "i32", "i32", "i32", "i32", "i32"),
    _shared("s", "a")
    + _shared("t", "b")
    + """%to = ptrtoint ptr addrspace(3) %s to i32
    %bar = ptrtoint ptr addrspace(3) %t to i32
    %map = ptrtoint ptr %c to i64
    %right = trunc i32 %h to i16
    %down = trunc i32 %i to i16
    call void asm sideeffect "cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes [$0], [$1, {$3, $4, $5, $6}], [$2], {$7, $8};", "r,l,r,r,r,r,r,h,h,~{memory}"(i32 %to, i64 %map, i32 %bar, i32 %d, i32 %e, i32 %f, i32 %g, i16 %right, i16 %down)""",
    """%moved = call i64 @emu.pixel_copy(ptr %a, ptr %c, i32 %d, i32 %e, i32 %f, i32 %g, i32 %h, i32 %i)
    %less = sub i64 0, %moved
    call void @emu.phase_move(ptr %b, i64 0, i64 %less)""",
)
define(
    "matrix_place",  # of a product's descriptor: an address in shared memory, in units of 16 bytes
    "i64",
    ("ptr",),
    _shared("s", "a")
    + """%i = ptrtoint ptr addrspace(3) %s to i32
    %m = and i32 %i, 262143
    %h = lshr i32 %m, 4
    %r = zext i32 %h to i64""",
    """%i = ptrtoint ptr %a to i64
    %s = ptrtoint ptr @emu.shared to i64
    %o = sub i64 %i, %s
    %r = lshr i64 %o, 4""",
)
define("products_fence", "void", (), "call void @llvm.nvvm.wgmma.fence.sync.aligned()", "")
define(
    "products_begun",
    "void",
    (),
    "call void @llvm.nvvm.wgmma.commit_group.sync.aligned()",
    "call void @emu.products_begun()",
)
for _n in range(2):
    define(
        f"products_left_{_n}",
        "void",
        (),
        f"call void @llvm.nvvm.wgmma.wait_group.sync.aligned(i64 {_n})",
        f"call void @emu.products_left(i64 {_n})",
    )
for _n in (40, 232):
    _how = "dec" if _n == 40 else "inc"
    define(
        f"registers_{_n}",
        "void",
        (),
        f"call void @llvm.nvvm.setmaxnreg.{_how}.sync.aligned.u32(i32 {_n})",
        "",
    )


def totals(width: int, total: str) -> str:
    """The type of a thread's share of 64 rows by `width` columns of float or i32."""
    return "{ " + ", ".join([total] * (width // 2)) + " }"


def _given(width: int, total: str) -> str:
    return ", ".join(f"{total} %{param(i)}" for i in range(width // 2))


def _tied(width: int, total: str, *more: str) -> str:
    count = width // 2
    return ",".join(["=f" if total == "float" else "=r"] * count + [str(i) for i in range(count)] + [*more])


def _product(
    name: str, shape: str, kind: str, width: int, more: str, turned: tuple[int, int] = (0, 0)
) -> None:
    """D[64, width] = A[64, k] B[k, width] + D of a warpgroup for 32 bytes of k, operands by descriptor; a turned one is dense along lines.

    `shape` is the instruction's with its types, of which the first is D's; `more` follows its operands.
    """
    count, total = width // 2, "i32" if shape.endswith("s32") else "float"
    registers = ", ".join(f"${i}" for i in range(count))
    text = (
        f"wgmma.mma_async.sync.aligned.m64n{width}{shape}.{kind} {{{registers}}}, "
        f"${2 * count}, ${2 * count + 1}, 1{more};"
    )
    made_type, tied = totals(width, total), _tied(width, total, "l", "l")
    a, b = param(count), param(count + 1)
    body = (
        f'%r = call {made_type} asm sideeffect "{text}", "{tied}"({_given(width, total)}, i64 %{a}, i64 %{b})'
    )
    host = [
        f"%s{i} = getelementptr {total}, ptr @emu.totals, i32 {i}\nstore {total} %{param(i)}, ptr %s{i}"
        for i in range(count)
    ]
    dtype, (a_turned, b_turned) = name.split(".")[1], turned
    host.append(
        f"call void @emu.wgmma.{dtype}(i64 %{a}, i64 %{b}, i64 {width // 8}, i1 {a_turned}, i1 {b_turned})"
    )
    previous = "poison"
    for i in range(count):
        made = "%r" if i == count - 1 else f"%v{i}"
        host.append(f"%l{i} = load {total}, ptr %s{i}")
        host.append(f"{made} = insertvalue {made_type} {previous}, {total} %l{i}, {i}")
        previous = made
    define(name, made_type, (total,) * count + ("i64", "i64"), body, "\n".join(host))


def _settled(width: int, total: str) -> None:
    """The totals, for the compiler not to take them before products are waited for."""
    count, made_type = width // 2, totals(width, total)
    body = f'%r = call {made_type} asm sideeffect "", "{_tied(width, total)}"({_given(width, total)})'
    wrong = "0x7FF8000000000000" if total == "float" else "-1515870811"
    host, previous = ["%open = call i1 @emu.products_open()"], "poison"
    for i in range(count):
        made = "%r" if i == count - 1 else f"%v{i}"
        host.append(f"%n{i} = select i1 %open, {total} {wrong}, {total} %{param(i)}")
        host.append(f"{made} = insertvalue {made_type} {previous}, {total} %n{i}, {i}")
        previous = made
    define(f"settled.{total}.{width}", made_type, (total,) * count, body, "\n".join(host))


for _width in WIDTHS:
    for _total in ("float", "i32"):
        _settled(_width, _total)
    for _kind in ("bf16", "f16"):
        for _a in (0, 1):
            for _b in (0, 1):
                _name, _more = f"wgmma.{_kind}.{_width}.{_a}{_b}", f", 1, 1, {_a}, {_b}"
                _product(_name, "k16.f32", f"{_kind}.{_kind}", _width, _more, (_a, _b))
    _product(f"wgmma.i8.{_width}", "k32.s32", "s8.s8", _width, "")
