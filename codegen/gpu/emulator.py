"""Runs kernels on the host, with no GPU: what the tests check kernels by.

Every thread of a block takes its turn in one host thread.  A kernel with collectives is made a coroutine (LLVM's switched-resume
lowering): a thread is suspended where it waits, a warp goes on when all its live threads wait for the warp, a block when all
wait for its barrier, and anything else is a divergent barrier, which is reported.  Threads may be taken in descending
order, which brings other results where a barrier is missing.  Every load and store is checked to lie in memory that the
device has given out; shared memory begins as NaN.
"""

from __future__ import annotations

import bisect
import ctypes
import functools
import re
from collections.abc import Callable, Sequence

import numpy as np

from tcc.codegen import jit
from tcc.codegen.emit import Emit, VecType
from tcc.codegen.gpu.ops import SLOTS, THREADS, used
from tcc.codegen.target import Target, host
from tcc.runtime.launch import Array, DeviceKernel

WARP_WAIT, DONE, BLOCK_WAIT = 1, 2, 16
SHARED_BYTES = 228 << 10
FINE, DIVERGENT = 0, 1

_STATE = f"""
@emu.thread = internal global i32 0
@emu.block = internal global [3 x i32] zeroinitializer
@emu.grid = internal global [3 x i32] zeroinitializer
@emu.shared = internal global [{SHARED_BYTES} x i8] zeroinitializer, align 128
@emu.trash = internal global [4096 x i8] zeroinitializer, align 128
@emu.ranges = internal global ptr null
@emu.range_count = internal global i64 0
@emu.low = internal global i64 0
@emu.high = internal global i64 0
@emu.fault = internal global [3 x i64] zeroinitializer
define internal ptr @emu.check(ptr %p, i64 %bytes) noinline {{
entry:
  %at = ptrtoint ptr %p to i64
  %end = add i64 %at, %bytes
  %low = load i64, ptr @emu.low
  %high = load i64, ptr @emu.high
  %above = icmp uge i64 %at, %low
  %below = icmp ule i64 %end, %high
  %in = and i1 %above, %below
  br i1 %in, label %good, label %shared
shared:
  %s = ptrtoint ptr @emu.shared to i64
  %past = add i64 %s, {SHARED_BYTES}
  %s_above = icmp uge i64 %at, %s
  %s_below = icmp ule i64 %end, %past
  %s_in = and i1 %s_above, %s_below
  br i1 %s_in, label %good, label %search
search:
  %table = load ptr, ptr @emu.ranges
  %count = load i64, ptr @emu.range_count
  br label %head
head:
  %i = phi i64 [0, %search], [%next, %step]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %look, label %bad
look:
  %pair = getelementptr [2 x i64], ptr %table, i64 %i
  %second = getelementptr i64, ptr %pair, i64 1
  %lo = load i64, ptr %pair
  %hi = load i64, ptr %second
  %l_above = icmp uge i64 %at, %lo
  %l_below = icmp ule i64 %end, %hi
  %l_in = and i1 %l_above, %l_below
  br i1 %l_in, label %found, label %step
step:
  %next = add i64 %i, 1
  br label %head
found:
  store i64 %lo, ptr @emu.low
  store i64 %hi, ptr @emu.high
  br label %good
good:
  ret ptr %p
bad:
  %fault = load i64, ptr @emu.fault
  %first = icmp eq i64 %fault, 0
  %kept = select i1 %first, i64 %at, i64 %fault
  store i64 %kept, ptr @emu.fault
  ret ptr @emu.trash
}}
"""

_COLLECTIVE = f"""
@emu.kind = internal global [{THREADS} x i32] zeroinitializer
@emu.parity = internal global [{THREADS} x i32] zeroinitializer
@emu.handle = internal global [{THREADS} x ptr] zeroinitializer
@emu.slots = internal global [{2 * THREADS * SLOTS} x i32] zeroinitializer
declare token @llvm.coro.id(i32, ptr, ptr, ptr)
declare i64 @llvm.coro.size.i64()
declare ptr @llvm.coro.begin(token, ptr)
declare i8 @llvm.coro.suspend(token, i1)
declare ptr @llvm.coro.free(token, ptr)
declare void @llvm.coro.end(ptr, i1, token)
declare void @llvm.coro.resume(ptr)
declare void @llvm.coro.destroy(ptr)
declare ptr @aligned_alloc(i64, i64)
declare void @free(ptr)
define internal void @emu.wait(i32 %kind) alwaysinline {{
  %c = load i32, ptr @emu.thread
  %p = getelementptr i32, ptr @emu.kind, i32 %c
  store i32 %kind, ptr %p
  ret void
}}
define internal void @emu.flip() alwaysinline {{
  %c = load i32, ptr @emu.thread
  %p = getelementptr i32, ptr @emu.parity, i32 %c
  %old = load i32, ptr %p
  %new = xor i32 %old, 1
  store i32 %new, ptr %p
  ret void
}}
define internal ptr @emu.slot_at(i32 %t, i32 %word) alwaysinline {{
  %c = load i32, ptr @emu.thread
  %p = getelementptr i32, ptr @emu.parity, i32 %c
  %half = load i32, ptr %p
  %first = mul i32 %half, {THREADS}
  %row = add i32 %first, %t
  %scaled = mul i32 %row, {SLOTS}
  %index = add i32 %scaled, %word
  %at = getelementptr i32, ptr @emu.slots, i32 %index
  ret ptr %at
}}
define internal void @emu.give(i32 %word, i32 %value) alwaysinline {{
  %c = load i32, ptr @emu.thread
  %at = call ptr @emu.slot_at(i32 %c, i32 %word)
  store i32 %value, ptr %at
  ret void
}}
define internal i32 @emu.slot(i32 %t, i32 %word) alwaysinline {{
  %at = call ptr @emu.slot_at(i32 %t, i32 %word)
  %value = load i32, ptr %at
  ret i32 %value
}}
"""


_POINTER = """
define internal ptr @emu.pointer(i32 %t) alwaysinline {
  %low = call i32 @emu.slot(i32 %t, i32 0)
  %high = call i32 @emu.slot(i32 %t, i32 1)
  %a = zext i32 %low to i64
  %b = zext i32 %high to i64
  %c = shl i64 %b, 32
  %d = or i64 %c, %a
  %p = inttoptr i64 %d to ptr
  ret ptr %p
}
"""


def _mma_text(kind: str, per_word: int) -> str:
    """One element of a warp's product, from the words that the lanes gave: C + sum over k of A[row, k] * B[k, column].

    Words of A hold rows 0-7 and 8-15 in turn, for the lower and then the upper half of k; those of B the two halves.
    """
    e = Emit()
    e.function(f"internal float @emu.mma.{kind}(i32 %row, i32 %col, float %start)")
    mine = e.value("load i32, ptr @emu.thread")
    warp = e.value(f"and i32 {mine}, -32")

    def number(word: str, half: str) -> str:
        if kind == "tf32":
            return e.value(f"bitcast i32 {e.value(f'and i32 {word}, {-0x2000}')} to float")
        moved = e.value(f"lshr i32 {word}, {e.value(f'shl i32 {half}, 4')}")
        if kind == "bf16":
            return e.value(f"bitcast i32 {e.value(f'shl i32 {moved}, 16')} to float")
        short = e.value(f"bitcast i16 {e.value(f'trunc i32 {moved} to i16')} to half")
        return e.value(f"fpext half {short} to float")

    def step(i: str, total: list[str]) -> list[str]:
        k = e.value(f"trunc i64 {i} to i32")
        half = e.value(f"and i32 {k}, {per_word - 1}")
        quad = e.value(f"and i32 {e.value(f'udiv i32 {k}, {per_word}')}, 3")
        upper = e.value(f"udiv i32 {k}, {4 * per_word}")

        def give(line: str, word: str) -> str:
            lane = e.value(f"or i32 {e.value(f'shl i32 {line}, 2')}, {quad}")
            return e.value(f"call i32 @emu.slot(i32 {e.value(f'or i32 {warp}, {lane}')}, i32 {word})")

        word = e.value(f"add i32 {e.value(f'shl i32 {upper}, 1')}, {e.value('lshr i32 %row, 3')}")
        a = number(give(e.value("and i32 %row, 7"), word), half)
        b = number(give("%col", e.value(f"add i32 {upper}, 4")), half)
        return [e.value(f"fadd float {total[0]}, {e.value(f'fmul float {a}, {b}')}")]

    (total,) = e.loop(0, 8 * per_word, 1, step, [("float", "%start")])
    e.end(f"float {total}")
    return e.text()


_MMA64 = """
define internal void @emu.give_double(i32 %word, double %x) alwaysinline {
  %w = bitcast double %x to i64
  %low = trunc i64 %w to i32
  %up = lshr i64 %w, 32
  %high = trunc i64 %up to i32
  %next = add i32 %word, 1
  call void @emu.give(i32 %word, i32 %low)
  call void @emu.give(i32 %next, i32 %high)
  ret void
}
define internal double @emu.double(i32 %t, i32 %word) {
  %next = add i32 %word, 1
  %low = call i32 @emu.slot(i32 %t, i32 %word)
  %high = call i32 @emu.slot(i32 %t, i32 %next)
  %a = zext i32 %low to i64
  %b = zext i32 %high to i64
  %c = shl i64 %b, 32
  %d = or i64 %c, %a
  %x = bitcast i64 %d to double
  ret double %x
}
"""


def _mma64_text() -> str:
    """The same of doubles, four along k, which each lane gave one of for A and one for B."""
    e = Emit()
    e.function("internal double @emu.mma.f64(i32 %row, i32 %col, double %start)")
    warp = e.value(f"and i32 {e.value('load i32, ptr @emu.thread')}, -32")

    def give(line: str, k: int, word: int) -> str:
        lane = e.value(f"or i32 {e.value(f'shl i32 {line}, 2')}, {k}")
        return e.value(f"call double @emu.double(i32 {e.value(f'or i32 {warp}, {lane}')}, i32 {word})")

    total = "%start"
    for k in range(4):
        a, b = give("%row", k, 0), give("%col", k, 2)
        total = e.call("double", "llvm.fma.f64", ("double", a), ("double", b), ("double", total))
    e.end(f"double {total}")
    return "\n".join([*e.declared, _MMA64, e.text()])


_FUNCTION = re.compile(r"^define [^\n]*(?:}\n|{\n.*?^}\n)", re.M | re.S)  # some stand in one line
_LOAD = re.compile(r"^(\s+%\S+ = load )(.+?), ptr (%[\w.]+)(.*)$")
_STORE = re.compile(r"^(\s+store )(<[^>]*>|\S+) (.+), ptr (%[\w.]+)(.*)$")
_DERIVED = re.compile(r"^\s+(%[\w.]+) = (?:getelementptr|select|phi|alloca)")
_ELEMENT = re.compile(r"^<(\d+) x (\w+)>$")


def _bytes(t: str) -> int:
    """Of a type in memory."""
    vector = _ELEMENT.match(t)
    if vector:
        return int(vector[1]) * _bytes(vector[2])
    return {"ptr": 8, "i128": 16}.get(t) or VecType(t).bytes


def checked(function: str) -> str:
    """A function whose loads and stores ask whether the address is one that it may use.  Its own stack is left out."""
    local = {"%args", "%ctx"}
    for line in function.splitlines():
        found = _DERIVED.match(line)
        if found and (
            "alloca" in line or any(re.search(re.escape(n) + r"\b", line.split("=", 1)[1]) for n in local)
        ):
            local.add(found[1])
    out: list[str] = []
    for count, line in enumerate(function.splitlines()):
        load, store = _LOAD.match(line), _STORE.match(line)
        pointer = load[3] if load else store[4] if store else ""
        if pointer and pointer not in local:
            t = load[2] if load else store[2]  # type: ignore[index]
            out.append(f"  %emu.p{count} = call ptr @emu.check(ptr {pointer}, i64 {_bytes(t)})")
            line = line.replace(f"ptr {pointer}", f"ptr %emu.p{count}", 1)
        out.append(line)
    return "\n".join(out) + "\n"


_CALL = re.compile(r"^\s+(?:%\S+ = )?call .*?@tcc\.([\w.]+)\((.*)\)\s*$")
_LABEL = re.compile(r"^([\w.]+):")
_PHI_FROM = re.compile(r", %([\w.]+)\]")


def coroutine(function: str, name: str) -> str:
    """A kernel that is suspended at its collectives."""
    out: list[str] = []
    block, last, number = "entry", {}, 0
    for line in function.splitlines():
        label = _LABEL.match(line)
        if line.startswith("define "):
            out.append(f"define internal ptr @{name}(ptr %args) presplitcoroutine #0 {{")
            continue
        if label:
            block = label[1]
            out.append(line)
            if block == "entry":
                out += [
                    "  %emu.id = call token @llvm.coro.id(i32 0, ptr null, ptr null, ptr null)",
                    "  %emu.size = call i64 @llvm.coro.size.i64()",
                    "  %emu.more = add i64 %emu.size, 63",  # frames may hold vectors that must be aligned
                    "  %emu.whole = and i64 %emu.more, -64",
                    "  %emu.memory = call ptr @aligned_alloc(i64 64, i64 %emu.whole)",
                    "  %emu.h = call ptr @llvm.coro.begin(token %emu.id, ptr %emu.memory)",
                ]
            continue
        call = _CALL.match(line)
        op = next((o for o in used(line) if o.wait), None) if call else None
        if call and op:
            number += 1
            if op.stage:
                out.append(f"  call void @tcc.{op.name}.stage({call[2]})")
            kind = WARP_WAIT if op.wait == "warp" else BLOCK_WAIT
            out += [
                f"  call void @emu.wait(i32 {kind})",
                f"  %emu.s{number} = call i8 @llvm.coro.suspend(token none, i1 false)",
                f"  switch i8 %emu.s{number}, label %emu.out [i8 0, label %emu.c{number} i8 1, label %emu.cleanup]",
                f"emu.c{number}:",
                line,
            ]
            last[block] = f"emu.c{number}"
        elif re.match(r"\s+ret void", line):
            out.append("  br label %emu.final")
        elif line.startswith("}"):
            out += [
                "emu.final:",
                f"  call void @emu.wait(i32 {DONE})",
                "  %emu.last = call i8 @llvm.coro.suspend(token none, i1 true)",
                "  switch i8 %emu.last, label %emu.out [i8 0, label %emu.never i8 1, label %emu.cleanup]",
                "emu.never:",
                "  unreachable",
                "emu.cleanup:",
                "  %emu.used = call ptr @llvm.coro.free(token %emu.id, ptr %emu.h)",
                "  call void @free(ptr %emu.used)",
                "  br label %emu.out",
                "emu.out:",
                "  call void @llvm.coro.end(ptr %emu.h, i1 false, token none)",
                "  ret ptr %emu.h",
                "}",
            ]
        else:
            out.append(line)
    return "\n".join(
        _PHI_FROM.sub(lambda m: f", %{last.get(m[1], m[1])}]", line) if " = phi " in line else line
        for line in out
    )


def _at(e: Emit, table: str, index: str, elem: str = "i32") -> str:
    return e.value(f"getelementptr {elem}, ptr @emu.{table}, i64 {index}")


def _scheduler(name: str) -> str:
    """`i32 @emu.run_block(ptr args, i64 threads, i1 descending)` of coroutines."""
    e = Emit()
    e.function("internal i32 @emu.run_block(ptr %args, i64 %threads, i1 %descending)")
    flag = e.value("alloca i32")
    lowest, highest = e.value("alloca i32"), e.value("alloca i32")

    def ordered(i: str, first: str, last: str) -> str:
        """The i-th of [first, last) in the order of this run."""
        back = e.value(f"sub i64 {e.value(f'sub i64 {last}, 1')}, {i}")
        return e.value(f"select i1 %descending, i64 {back}, i64 {e.value(f'add i64 {first}, {i}')}")

    def kind_of(t: str) -> str:
        return e.value(f"load i32, ptr {_at(e, 'kind', t)}")

    def resume(first: str, last: str) -> None:
        def one(i: str, _: list[str]) -> None:
            t = ordered(i, first, last)
            live = e.value(f"icmp ne i32 {kind_of(t)}, {DONE}")

            def go() -> None:
                e.line(f"store i32 {e.value(f'trunc i64 {t} to i32')}, ptr @emu.thread")
                handle = e.value(f"load ptr, ptr {_at(e, 'handle', t, 'ptr')}")
                e.line(f"call void @llvm.coro.resume(ptr {handle})")

            e.when(live, go)

        e.loop(0, e.value(f"sub i64 {last}, {first}"), 1, one)

    def extremes(first: str, last: str) -> tuple[str, str]:
        """The least and the greatest of what live threads wait for; 1000 and 0 if there are none."""
        e.line(f"store i32 1000, ptr {lowest}")
        e.line(f"store i32 0, ptr {highest}")

        def one(t: str, _: list[str]) -> None:
            kind = kind_of(t)

            def take() -> None:
                for cell, how in ((lowest, "umin"), (highest, "umax")):
                    old = e.value(f"load i32, ptr {cell}")
                    e.line(
                        f"store i32 {e.call('i32', f'llvm.{how}.i32', ('i32', old), ('i32', kind))}, ptr {cell}"
                    )

            e.when(e.value(f"icmp ne i32 {kind}, {DONE}"), take)

        e.loop(first, last, 1, one)
        return e.value(f"load i32, ptr {lowest}"), e.value(f"load i32, ptr {highest}")

    def spawn(i: str, _: list[str]) -> None:
        t = ordered(i, "0", "%threads")
        e.line(f"store i32 {e.value(f'trunc i64 {t} to i32')}, ptr @emu.thread")
        e.line(f"store ptr {e.value(f'call ptr @{name}(ptr %args)')}, ptr {_at(e, 'handle', t, 'ptr')}")

    e.loop(0, "%threads", 1, spawn)
    again, finished, stuck, blocks = e.label(), e.label(), e.label(), e.label()
    e.branch(again)
    e.at(again)
    e.line(f"store i32 0, ptr {flag}")

    def warp(first: str, _: list[str]) -> None:
        end = e.value(f"add i64 {first}, 32")
        last = e.call("i64", "llvm.smin.i64", ("i64", end), ("i64", "%threads"))
        low, high = extremes(first, last)
        waits = e.value(f"icmp eq i32 {low}, {WARP_WAIT}")
        same = e.value(f"icmp eq i32 {low}, {high}")

        def go() -> None:
            e.line(f"store i32 1, ptr {flag}")
            resume(first, last)

        e.when(e.value(f"and i1 {waits}, {same}"), go)

    e.loop(0, "%threads", 32, warp)
    moved = e.value(f"icmp ne i32 {e.value(f'load i32, ptr {flag}')}, 0")
    e.branch_if(moved, again, blocks)
    e.at(blocks)
    low, high = extremes("0", "%threads")
    release, some = e.label(), e.label()
    e.branch_if(e.value(f"icmp eq i32 {high}, 0"), finished, some)
    e.at(some)
    ready = e.value(f"icmp eq i32 {low}, {BLOCK_WAIT}")
    e.branch_if(e.value(f"and i1 {ready}, {e.value(f'icmp eq i32 {low}, {high}')}"), release, stuck)
    e.at(release)
    resume("0", "%threads")
    e.branch(again)
    e.at(stuck)
    e.line(f"ret i32 {DIVERGENT}")
    e.at(finished)

    def destroy(t: str, _: list[str]) -> None:
        handle = e.value(f"load ptr, ptr {_at(e, 'handle', t, 'ptr')}")
        e.line(f"call void @llvm.coro.destroy(ptr {handle})")

    e.loop(0, "%threads", 1, destroy)
    e.end("i32 0")
    return "\n".join([*e.declared, e.text()])


def _plain_block(name: str) -> str:
    """The same for a kernel whose threads wait for nobody."""
    e = Emit()
    e.function("internal i32 @emu.run_block(ptr %args, i64 %threads, i1 %descending)")

    def one(i: str, _: list[str]) -> None:
        back = e.value(f"sub i64 {e.value('sub i64 %threads, 1')}, {i}")
        t = e.value(f"select i1 %descending, i64 {back}, i64 {i}")
        e.line(f"store i32 {e.value(f'trunc i64 {t} to i32')}, ptr @emu.thread")
        e.line(f"call void @{name}(ptr %args)")

    e.loop(0, "%threads", 1, one)
    e.end("i32 0")
    return e.text()


def _launch() -> str:
    """`i32 @emu_launch(args, grid, threads, descending, ranges, count, shared bytes, fault)`: all blocks, one after another."""
    e = Emit()
    e.function(
        "i32 @emu_launch(ptr %args, ptr %grid, i64 %threads, i64 %descending, ptr %ranges, i64 %count, i64 %shared, ptr %fault)"
    )
    down = e.value("icmp ne i64 %descending, 0")
    e.line("store ptr %ranges, ptr @emu.ranges")
    e.line("store i64 %count, ptr @emu.range_count")
    e.line("store i64 0, ptr @emu.low")
    e.line("store i64 0, ptr @emu.high")
    e.line("store i64 0, ptr @emu.fault")
    ends = [e.value(f"load i64, ptr {e.gep('%grid', i, 'i64')}") for i in range(3)]
    for i, end in enumerate(ends):
        e.line(f"store i32 {e.value(f'trunc i64 {end} to i32')}, ptr {_at(e, 'grid', str(i))}")

    def nest(axis: int) -> Callable[[str, list[str]], None]:
        def body(i: str, _: list[str]) -> None:
            e.line(f"store i32 {e.value(f'trunc i64 {i} to i32')}, ptr {_at(e, 'block', str(axis))}")
            if axis:
                e.loop(0, ends[axis - 1], 1, nest(axis - 1))
                return
            wipe = ("ptr", "@emu.shared"), ("i8", "-1"), ("i64", "%shared"), ("i1", "false")
            e.call("void", "llvm.memset.p0.i64", *wipe)
            status = e.value(f"call i32 @emu.run_block(ptr %args, i64 %threads, i1 {down})")
            address = e.value("load i64, ptr @emu.fault")
            for n in range(3):
                word = e.value(f"load i64, ptr {e.gep('@emu.fault', n, 'i64')}")
                e.line(f"store i64 {word}, ptr {e.gep('%fault', n, 'i64')}")
            wrong = e.value(
                f"or i1 {e.value(f'icmp ne i64 {address}, 0')}, {e.value(f'icmp ne i32 {status}, 0')}"
            )
            leave, stay = e.label(), e.label()
            e.branch_if(wrong, leave, stay)
            e.at(leave)
            e.line(f"ret i32 {status}")
            e.at(stay)

        return body

    e.loop(0, ends[2], 1, nest(2))
    e.end("i32 0")
    return "\n".join([*e.declared, e.text()])


def host_text(kernel: DeviceKernel) -> tuple[str, bool]:
    """The module that runs a kernel, from its text for the device; and whether it has coroutines."""
    ops = used(kernel.text)
    waits = any(op.wait for op in ops)
    kept = [
        line for line in kernel.text.splitlines() if not line.startswith("declare ") or "@tcc." not in line
    ]
    declares = "\n".join(line for line in kept if line.startswith("declare "))
    body = "\n".join(line for line in kept if not line.startswith("declare ")) + "\n"
    functions = [checked(f) for f in _FUNCTION.findall(body)]
    rest = _FUNCTION.sub("", body)
    head = re.compile(rf"define [^\n]*@{kernel.name}\(")
    if waits:
        functions = [coroutine(f, kernel.name) if head.match(f) else f for f in functions]
    parts = [rest, declares, _STATE, *(op.host_text for op in ops), *functions]
    if waits:
        parts += [_COLLECTIVE, _POINTER]
    for op in ops:
        if op.name.startswith("mma."):
            kind = op.name[4:]
            parts.append(_mma64_text() if kind == "f64" else _mma_text(kind, 1 if kind == "tf32" else 2))
    parts += [_scheduler(kernel.name) if waits else _plain_block(kernel.name), _launch()]
    lines: dict[str, None] = {}
    text: list[str] = []
    for line in "\n".join(parts).splitlines():
        if not line.startswith("declare "):
            text.append(line)
        else:
            lines[line] = None
    needs_umin = "declare i64 @llvm.umin.i64(i64, i64)"
    if "@llvm.umin.i64(" in "\n".join(text):
        lines[needs_umin] = None
    return "\n".join([*lines, *text]) + "\n", waits


@functools.cache
def _symbols() -> dict[str, int]:
    library = ctypes.CDLL(None)
    names = ("malloc", "free", "memset", "memcpy", "memmove")
    return {n: int(ctypes.cast(getattr(library, n), ctypes.c_void_p).value or 0) for n in names}


def _compile(text: str, target: Target, passes: bool) -> bytes:
    from llvmlite import binding as llvm

    if not passes:
        return jit.compile_object(text, target, 1)
    machine = jit._machine(target, 1)
    with jit._parse(text, target) as module:
        options = llvm.create_pipeline_tuning_options(speed_level=1)
        module.data_layout = str(machine.target_data)
        llvm.create_pass_builder(machine, options).getModulePassManager().run(
            module, llvm.create_pass_builder(machine, options)
        )
        return bytes(machine.emit_object(module))


@functools.lru_cache(512)
def _loaded(kernel: DeviceKernel) -> tuple[jit.Image, Callable[..., int]]:
    text, waits = host_text(kernel)
    image = jit.Image.load([_compile(text, host(), waits)], _symbols())
    pointer, word = ctypes.c_void_p, ctypes.c_int64
    run = jit.function(
        image.address("emu_launch"),
        ctypes.c_int32,
        pointer,
        pointer,
        word,
        word,
        pointer,
        word,
        word,
        pointer,
    )
    return image, run


def _site(text: str, code: int, index: int, size: int) -> str:
    """What the kernel's text says of the site that noted a fault."""
    found = re.search(rf"^; site {-1 - code}: (.*)", text, re.M)
    return f"{(found[1] if found else 'index #').replace('#', str(index))} is outside of 0..{size - 1}"


class KernelError(RuntimeError):
    """A kernel did what a GPU would not have allowed, or what would have had no one result."""


class Emulator:
    """A `Device` (tcc.runtime.launch) whose memory and threads are the host's; calls are done when they return."""

    def __init__(self, *, descending: bool = False) -> None:
        self.descending = descending
        self.blocks: dict[int, Array] = {}
        self.launched: list[str] = []

    def alloc(self, bytes: int) -> int:
        block = np.full(bytes + 256, 0xFF, np.uint8)
        address = -(-int(block.ctypes.data) // 128) * 128
        self.blocks[address] = block[address - int(block.ctypes.data) :][: max(1, bytes)]
        return address

    def free(self, address: int) -> None:
        del self.blocks[address]

    def to_device(self, address: int, source: Array) -> None:
        ctypes.memmove(address, np.ascontiguousarray(source).ctypes.data, source.nbytes)

    def to_host(self, target: Array, address: int) -> None:
        ctypes.memmove(target.ctypes.data, address, target.nbytes)

    def copy(self, target: int, source: int, bytes: int) -> None:
        ctypes.memmove(target, source, bytes)

    def synchronise(self) -> None: ...

    def launch(self, kernel: DeviceKernel, grid: tuple[int, int, int], arguments: Sequence[int]) -> None:
        """KernelError for a divergent barrier, and for an address that is nobody's."""
        _, run = _loaded(kernel)
        self.launched.append(kernel.name)
        if kernel.block % 32 or kernel.block > THREADS or kernel.shared > SHARED_BYTES:
            raise KernelError(
                f"{kernel.name}: blocks of {kernel.block} threads, {kernel.shared} bytes of shared memory"
            )
        args = np.array(arguments or [0], np.int64)
        starts = sorted(self.blocks)
        given = sorted({starts[i] for a in args.tolist() if (i := bisect.bisect_right(starts, a) - 1) >= 0})
        ranges = np.array([(a, a + self.blocks[a].nbytes) for a in given], np.int64).reshape(-1, 2)
        sizes, fault = np.array(grid, np.int64), np.zeros(3, np.int64)
        tables = (args.ctypes.data, sizes.ctypes.data, kernel.block, int(self.descending), ranges.ctypes.data)
        status = run(*tables, len(ranges), kernel.shared, fault.ctypes.data)
        if fault[0] < 0:
            raise KernelError(_site(kernel.text, *map(int, fault)))
        if fault[0]:
            near = ", ".join(f"{a:#x} to {b:#x}" for a, b in ranges.tolist())
            raise KernelError(
                f"{kernel.name} ({kernel.what}): address {int(fault[0]):#x} is outside of {near}"
            )
        if status == DIVERGENT:
            raise KernelError(f"{kernel.name} ({kernel.what}): threads of a block wait for different things")
