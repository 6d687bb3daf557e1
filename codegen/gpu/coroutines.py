"""A kernel's threads on the host, as coroutines of one host thread, and the loop that lets them go on.

A thread is suspended at each collective (LLVM's switched-resume lowering).  A warp goes on when all its live threads wait for the
warp, a block when all wait for its barrier, a thread that waits for a phase of an mbarrier when that is over; if nobody
can go on, threads wait for different things.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from tcc.codegen.emit import Emit
from tcc.codegen.gpu.ops import SLOTS, THREADS, used
from tcc.codegen.index import at_most

WARP_WAIT, DONE, PHASE_WAIT, BLOCK_WAIT = 1, 2, 4, 16
WAITS = {"warp": WARP_WAIT, "block": BLOCK_WAIT, "phase": PHASE_WAIT}
DIVERGENT = 1  # what a block ends with whose threads wait for different things; else 0

COLLECTIVE = f"""
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


_CALL = re.compile(r"^\s+(?:%\S+ = )?call .*?@tcc\.([\w.]+)\((.*)\)\s*$")
_LABEL = re.compile(r"^([\w.]+):")
_PHI_FROM = re.compile(r", %([\w.]+)\]")


PHASE_WAITS = f"""
@emu.phase_at = internal global [{THREADS} x ptr] zeroinitializer
@emu.phase_parity = internal global [{THREADS} x i32] zeroinitializer
define internal i1 @emu.phase_over(i64 %t) {{
  %p = getelementptr ptr, ptr @emu.phase_at, i64 %t
  %q = getelementptr i32, ptr @emu.phase_parity, i64 %t
  %at = load ptr, ptr %p
  %parity = load i32, ptr %q
  %state = load i64, ptr %at
  %high = lshr i64 %state, 63
  %now = trunc i64 %high to i32
  %over = icmp ne i32 %now, %parity
  ret i1 %over
}}
"""


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
            out += [
                f"  call void @emu.wait(i32 {WAITS[op.wait]})",
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


def scheduler(name: str, phases: bool) -> str:
    """`i32 @emu.run_block(ptr args, i64 threads, i1 descending)` of coroutines, which may wait for `phases`."""
    return _Scheduler(name).text(phases)


class _Scheduler:
    def __init__(self, name: str) -> None:
        self.e, self.name = Emit(), name
        self.e.function("internal i32 @emu.run_block(ptr %args, i64 %threads, i1 %descending)")
        self.moved = self.e.value("alloca i32")  # whether a thread has gone on in this round
        self.lowest, self.highest = self.e.value("alloca i32"), self.e.value("alloca i32")

    def text(self, phases: bool) -> str:
        """Warps and waiters for phases go on until none can; then the block's barrier opens, or all are done, or they are stuck."""
        e = self.e
        e.loop(0, "%threads", 1, self.spawn)
        again, finished, stuck, blocks = e.label(), e.label(), e.label(), e.label()
        e.branch(again)
        e.at(again)
        e.line(f"store i32 0, ptr {self.moved}")
        e.loop(0, "%threads", 32, self.warp)
        if phases:
            e.loop(0, "%threads", 1, self.poll)
        e.branch_if(e.value(f"icmp ne i32 {e.value(f'load i32, ptr {self.moved}')}, 0"), again, blocks)
        e.at(blocks)
        low, high = self.extremes("0", "%threads")
        release, some = e.label(), e.label()
        e.branch_if(e.value(f"icmp eq i32 {high}, 0"), finished, some)
        e.at(some)
        ready = e.value(f"icmp eq i32 {low}, {BLOCK_WAIT}")
        e.branch_if(e.value(f"and i1 {ready}, {e.value(f'icmp eq i32 {low}, {high}')}"), release, stuck)
        e.at(release)
        self.resume("0", "%threads")
        e.branch(again)
        e.at(stuck)
        e.line(f"ret i32 {DIVERGENT}")
        e.at(finished)
        e.loop(0, "%threads", 1, self.destroy)
        e.end("i32 0")
        return "\n".join([*e.declared, e.text()])

    # -- one thread --------------------------------------------------------------------------------------------------

    def ordered(self, i: str, first: str, last: str) -> str:
        """The i-th of [first, last) in the order of this run."""
        e = self.e
        back = e.value(f"sub i64 {e.value(f'sub i64 {last}, 1')}, {i}")
        return e.value(f"select i1 %descending, i64 {back}, i64 {e.value(f'add i64 {first}, {i}')}")

    def kind_of(self, t: str) -> str:
        return self.e.value(f"load i32, ptr {_at(self.e, 'kind', t)}")

    def handle(self, t: str) -> str:
        return self.e.value(f"load ptr, ptr {_at(self.e, 'handle', t, 'ptr')}")

    def spawn(self, i: str, _: list[str]) -> None:
        e = self.e
        t = self.ordered(i, "0", "%threads")
        e.line(f"store i32 {e.value(f'trunc i64 {t} to i32')}, ptr @emu.thread")
        made = e.value(f"call ptr @{self.name}(ptr %args)")
        e.line(f"store ptr {made}, ptr {_at(e, 'handle', t, 'ptr')}")

    def destroy(self, t: str, _: list[str]) -> None:
        self.e.line(f"call void @llvm.coro.destroy(ptr {self.handle(t)})")

    def poll(self, i: str, _: list[str]) -> None:
        """A thread whose phase is over goes on."""
        e = self.e
        t = self.ordered(i, "0", "%threads")

        def look() -> None:
            over = e.value(f"call i1 @emu.phase_over(i64 {t})")
            e.when(over, lambda: self.go_on(t, e.value(f"add i64 {t}, 1")))

        e.when(e.value(f"icmp eq i32 {self.kind_of(t)}, {PHASE_WAIT}"), look)

    # -- neighbours --------------------------------------------------------------------------------------------------

    def warp(self, first: str, _: list[str]) -> None:
        """A warp goes on if all its live threads wait for it."""
        e = self.e
        end = e.value(f"add i64 {first}, 32")
        last = at_most(e, end, "%threads")
        low, high = self.extremes(first, last)
        waits = e.value(f"icmp eq i32 {low}, {WARP_WAIT}")
        same = e.value(f"icmp eq i32 {low}, {high}")
        e.when(e.value(f"and i1 {waits}, {same}"), lambda: self.go_on(first, last))

    def go_on(self, first: str, last: str) -> None:
        self.e.line(f"store i32 1, ptr {self.moved}")
        self.resume(first, last)

    def resume(self, first: str, last: str) -> None:
        e = self.e

        def one(i: str, _: list[str]) -> None:
            t = self.ordered(i, first, last)

            def go() -> None:
                e.line(f"store i32 {e.value(f'trunc i64 {t} to i32')}, ptr @emu.thread")
                e.line(f"call void @llvm.coro.resume(ptr {self.handle(t)})")

            e.when(e.value(f"icmp ne i32 {self.kind_of(t)}, {DONE}"), go)

        e.loop(0, e.value(f"sub i64 {last}, {first}"), 1, one)

    def extremes(self, first: str, last: str) -> tuple[str, str]:
        """The least and the greatest of what live threads wait for; 1000 and 0 if there are none."""
        e, cells = self.e, (self.lowest, self.highest)
        e.line(f"store i32 1000, ptr {self.lowest}")
        e.line(f"store i32 0, ptr {self.highest}")

        def one(t: str, _: list[str]) -> None:
            kind = self.kind_of(t)

            def take() -> None:
                for cell, how in zip(cells, ("umin", "umax")):
                    old = e.value(f"load i32, ptr {cell}")
                    new = e.call("i32", f"llvm.{how}.i32", ("i32", old), ("i32", kind))
                    e.line(f"store i32 {new}, ptr {cell}")

            e.when(e.value(f"icmp ne i32 {kind}, {DONE}"), take)

        e.loop(first, last, 1, one)
        low, high = (e.value(f"load i32, ptr {cell}") for cell in cells)
        return low, high


def plain_block(name: str) -> str:
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


def launch_text() -> str:
    """`i32 @emu_launch(args, grid, threads, descending, ranges, count, shared bytes, fault)`: all blocks, one after another, in
    the order of the threads."""
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
            last = e.value(f"sub i64 {ends[axis]}, 1")
            at = e.value(f"select i1 {down}, i64 {e.value(f'sub i64 {last}, {i}')}, i64 {i}")
            e.line(f"store i32 {e.value(f'trunc i64 {at} to i32')}, ptr {_at(e, 'block', str(axis))}")
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
