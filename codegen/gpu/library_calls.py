"""LLVM text of what the body of an entry for a GPU calls: memory, copies and launches by the driver.

A function gives true, or the address 0, when it has refused: then the call's status is kept where the body of a CPU's library keeps it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tcc.codegen.aot.messages import refuse
from tcc.codegen.emit import Emit
from tcc.codegen.gpu.library_layout import (
    ASIDE,
    CAPTURED,
    CAPTURING,
    CONTEXT,
    GRAPH,
    HERE,
    KEYS,
    KNOWN,
    LAUNCHED,
    LOST,
    NUMBER,
    PLAIN,
    STREAM,
    WAYS,
)
from tcc.runtime import layout as at
from tcc.runtime.device_program import NOT_INTERLEAVED, PROMOTE_256, SWIZZLE_128, ZEROS
from tcc.runtime.dlpack import CUDA

DRIVER = (
    "cuInit cuDriverGetVersion cuGetErrorString cuDeviceGetCount cuDeviceGet cuDeviceGetAttribute "
    "cuDevicePrimaryCtxRetain cuDevicePrimaryCtxRelease_v2 cuCtxPushCurrent_v2 cuCtxPopCurrent_v2 cuStreamCreate "
    "cuStreamSynchronize cuStreamDestroy_v2 cuModuleLoadDataEx cuModuleUnload cuModuleGetFunction cuFuncSetAttribute "
    "cuMemAlloc_v2 cuMemFree_v2 cuMemcpyHtoDAsync_v2 cuMemcpyDtoHAsync_v2 cuMemcpyDtoDAsync_v2 cuLaunchKernel "
    "cuPointerGetAttribute"
).split()
GRAPHS = (  # which drivers before CUDA 11.4 lack, whose calls are launched kernel by kernel
    "cuStreamBeginCapture_v2 cuStreamEndCapture cuGraphInstantiateWithFlags cuGraphLaunch cuGraphDestroy cuGraphExecDestroy"
).split()
# of CUDA 12.0, which drivers for sm_90a have
TILE_MAP, PIXEL_MAP = "cuTensorMapEncodeTiled", "cuTensorMapEncodeIm2col"
NAMES = [*DRIVER, *GRAPHS, TILE_MAP, PIXEL_MAP]
NON_BLOCKING = 1  # of a stream: it does not wait for the default one
RELAXED = 2  # other threads and allocations are not in a capture's way
NO_MEMORY = 2
MEMORY_TYPE, DEVICE_MEMORY = 2, 2  # an attribute of pointers, and what it is of the device's


class DriverCalls:
    """Text that calls the driver, and the functions for calls; `%call` is the call's context."""

    def __init__(self) -> None:
        self.e = Emit()

    def driver(self, name: str, *args: str) -> str:
        """Calls the driver; the code that it gives."""
        f = self.e.value(f"load ptr, ptr {self.e.gep('@tcc_cu', NAMES.index(name), 'ptr')}")
        return self.e.value(f"call i32 {f}({', '.join(args)})")

    def load(self, base: str, slot: int | str, t: str = "ptr") -> str:
        return self.e.value(f"load {t}, ptr {self.e.gep(base, slot, 'i64')}")

    def word(self, pointer: str, t: str = "i64") -> str:
        return self.e.value(f"load {t}, ptr {pointer}")

    def wide(self, value: str) -> str:
        return self.e.value(f"sext i32 {value} to i64")

    def leave_if(self, condition: str, then: Callable[[], str]) -> None:
        """Returns, if the i1 holds, what `then` gives when it has written its text."""
        bad, stay = self.e.label(), self.e.label()
        self.e.branch_if(condition, bad, stay)
        self.e.at(bad)
        self.e.line(f"ret {then()}")
        self.e.at(stay)

    def failing(self, code: str, name: str, result: str = "i1 true") -> None:
        """Refuses what the driver did not do, within a call."""
        wrong = self.e.value(f"call i1 @tcc_cu_bad(ptr %call, i32 {code}, ptr @tcc_name_{name})")
        self.leave_if(wrong, lambda: result)

    def said(self, message: str, *arguments: str, status: str = "gpu") -> str:
        return self.e.value(refuse(status, message, "i64 %who.i", *(f"i64 {a}" for a in arguments)))

    def told(self, message: str, *arguments: str, status: str = "gpu") -> None:
        """Refuses within a call, which keeps the status."""
        e = self.e
        who = self.load("%call", at.CTX_FUNCTION, "i64")
        r = e.value(refuse(status, message, f"i64 {who}", *(f"i64 {a}" for a in arguments)))
        e.line(f"store i64 {self.wide(r)}, ptr {e.gep('%call', at.CTX_OBJECTS, 'i64')}")

    def words_of(self, code: str) -> str:
        """What the driver says of a code."""
        e = self.e
        text = e.value("alloca ptr")
        e.line(f"store ptr @tcc_no_words, ptr {text}")
        self.driver("cuGetErrorString", f"i32 {code}", f"ptr {text}")
        found = self.word(text, "ptr")
        none = e.value(f"icmp eq ptr {found}, null")
        return e.value(f"ptrtoint ptr {e.value(f'select i1 {none}, ptr @tcc_no_words, ptr {found}')} to i64")

    def enter(self) -> None:
        """`enter(call, record)`: false if another call runs, or the device's context cannot be taken."""
        e = self.e
        e.function("internal i1 @tcc_cu_enter(ptr %call, ptr %record)")
        swap = e.value("cmpxchg ptr %record, i64 0, i64 1 acq_rel monotonic, align 8")
        free, busy = e.value(f"extractvalue {{ i64, i1 }} {swap}, 1"), e.label()
        inside = e.label()
        e.branch_if(free, inside, busy)
        e.at(busy)
        self.told("busy")
        e.line("ret i1 false")
        e.at(inside)
        code = self.driver("cuCtxPushCurrent_v2", f"ptr {self.load('%record', CONTEXT)}")
        e.when(
            e.value(f"icmp ne i32 {code}, 0"),
            lambda: e.line("store atomic i64 0, ptr %record release, align 8"),
        )
        self.failing(code, "cuCtxPushCurrent_v2", "i1 false")
        e.end("i1 true")

    def leave(self) -> None:
        e = self.e
        e.function("internal void @tcc_cu_leave(ptr %record)")
        open = self.load("%record", CAPTURING, "i64")

        def drop() -> None:
            graph = e.value("alloca ptr")
            e.line(f"store ptr null, ptr {graph}")
            self.end_capture(graph)
            made = self.word(graph, "ptr")
            e.when(e.value(f"icmp ne ptr {made}, null"), lambda: self.call("cuGraphDestroy", f"ptr {made}"))

        e.when(e.value(f"icmp ne i64 {open}, 0"), drop)  # a step of it failed
        self.driver("cuCtxPopCurrent_v2", f"ptr {e.value('alloca ptr')}")
        e.line("store atomic i64 0, ptr %record release, align 8")
        e.end()

    def bad(self) -> None:
        """`bad(call, code, name)`: whether the driver's code says that it failed, which is refused then."""
        e = self.e
        e.function("internal i1 @tcc_cu_bad(ptr %call, i32 %code, ptr %name)")
        self.leave_if(e.value("icmp eq i32 %code, 0"), lambda: "i1 false")
        self.told("driver", e.value("ptrtoint ptr %name to i64"), self.words_of("%code"))
        e.end("i1 true")

    # -- memory --------------------------------------------------------------------------------------------------------

    def room(self) -> None:
        """`room(call, slot, bytes)`: a buffer's address, grown if it is too small."""
        e = self.e
        e.function("internal i64 @tcc_cu_room(ptr %call, ptr %slot, i64 %bytes)")
        now, has = self.load("%slot", 0, "i64"), self.load("%slot", 1, "i64")
        wanted = e.call("i64", "llvm.umax.i64", ("i64", "%bytes"), ("i64", "1"))
        self.leave_if(e.value(f"icmp uge i64 {has}, {wanted}"), lambda: f"i64 {now}")

        def drop() -> None:
            self.driver("cuMemFree_v2", f"i64 {now}")
            e.line("store i64 0, ptr %slot")
            e.line(f"store i64 0, ptr {e.gep('%slot', 1, 'i64')}")

        e.when(e.value(f"icmp ne i64 {now}, 0"), drop)
        self.allocate(wanted)
        e.line(f"store i64 {wanted}, ptr {e.gep('%slot', 1, 'i64')}")
        e.end(f"i64 {self.load('%slot', 0, 'i64')}")

    def allocate(self, bytes: str) -> None:
        """Puts new memory of the device into `%slot`; the function gives 0 where there is none."""

        def short() -> str:
            self.told("gpumemory", bytes, status="memory")
            return "i64 0"

        code = self.driver("cuMemAlloc_v2", "ptr %slot", f"i64 {bytes}")
        self.leave_if(self.e.value(f"icmp eq i32 {code}, {NO_MEMORY}"), short)
        self.failing(code, "cuMemAlloc_v2", "i64 0")

    def here(self) -> None:
        """`here(call, record, tensor, name)`: 1 if a tensor is on this device, 0 if on the host; 2 if it was refused."""
        e = self.e
        e.function("internal i32 @tcc_cu_here(ptr %call, ptr %record, ptr %tensor, ptr %name)")
        fields = [e.value(f"getelementptr %tcc_tensor, ptr %tensor, i32 0, i32 {i}") for i in (0, 1, 2, 7)]
        kind, number = (self.word(f, "i32") for f in fields[1:3])
        self.leave_if(e.value(f"icmp ne i32 {kind}, {CUDA}"), lambda: "i32 0")
        own, name = self.load("%record", NUMBER, "i32"), e.value("ptrtoint ptr %name to i64")

        def other() -> str:
            self.told("othergpu", name, self.wide(number), self.wide(own), status="device")
            return "i32 2"

        self.leave_if(e.value(f"icmp ne i32 {number}, {own}"), other)
        data = self.word(fields[0], "ptr")
        self.leave_if(e.value(f"icmp eq ptr {data}, null"), lambda: "i32 1")
        at = e.value(f"ptrtoint ptr {e.gep(data, self.word(fields[3]))} to i64")
        found = e.value("alloca i32")
        e.line(f"store i32 0, ptr {found}")
        self.driver("cuPointerGetAttribute", f"ptr {found}", f"i32 {MEMORY_TYPE}", f"i64 {at}")

        def elsewhere() -> str:
            self.told("nogpu", name, status="device")
            return "i32 2"

        self.leave_if(e.value(f"icmp ne i32 {self.word(found, 'i32')}, {DEVICE_MEMORY}"), elsewhere)
        e.end("i32 1")

    def _placed(self, name: str) -> str:
        """Begins a function that returns a tensor's own address if it is the device's; otherwise goes on with a buffer's."""
        e = self.e
        e.function(
            f"internal i64 @{name}(ptr %call, ptr %record, ptr %tensor, ptr %name, i64 %host, ptr %slot, i64 %bytes)"
        )
        here = e.value("call i32 @tcc_cu_here(ptr %call, ptr %record, ptr %tensor, ptr %name)")
        self.leave_if(e.value(f"icmp eq i32 {here}, 2"), lambda: "i64 0")
        inside = e.value(f"icmp eq i32 {here}, 1")
        some = e.value("icmp ne i64 %host, 0")
        self.leave_if(e.value(f"and i1 {inside}, {some}"), lambda: "i64 %host")
        base = e.value("call i64 @tcc_cu_room(ptr %call, ptr %slot, i64 %bytes)")
        self.leave_if(e.value(f"icmp eq i64 {base}, 0"), lambda: "i64 0")
        self.leave_if(inside, lambda: f"i64 {base}")  # an empty tensor without an address
        return base

    def input(self) -> None:
        base = self._placed("tcc_cu_input")
        self._upload(base, "%host")
        self.e.end(f"i64 {base}")

    def _upload(self, base: str, host: str) -> None:
        e = self.e

        def copy() -> None:
            source = e.value(f"inttoptr i64 {host} to ptr")
            stream = self.load("%record", STREAM)
            code = self.driver(
                "cuMemcpyHtoDAsync_v2", f"i64 {base}", f"ptr {source}", "i64 %bytes", f"ptr {stream}"
            )
            self.failing(code, "cuMemcpyHtoDAsync_v2", "i64 0")

        e.when(e.value("icmp ne i64 %bytes, 0"), copy)

    def result(self) -> None:
        self.e.end(f"i64 {self._placed('tcc_cu_result')}")

    def value(self) -> None:
        """`value(call, record, slot, host, bytes)`: the address of a tensor that stays there; brought if the host's is newer."""
        e = self.e
        e.function("internal i64 @tcc_cu_value(ptr %call, ptr %record, ptr %slot, i64 %host, i64 %bytes)")
        now, flag = self.load("%slot", 0, "i64"), self.load("%slot", 1, "i64")
        self.leave_if(e.value(f"icmp ne i64 {e.value(f'and i64 {flag}, {HERE}')}, 0"), lambda: f"i64 {now}")

        def make() -> None:
            self.allocate(e.call("i64", "llvm.umax.i64", ("i64", "%bytes"), ("i64", "1")))

        e.when(e.value(f"icmp eq i64 {now}, 0"), make)
        base = self.load("%slot", 0, "i64")
        self._upload(base, "%host")
        e.line(f"store i64 {HERE}, ptr {e.gep('%slot', 1, 'i64')}")
        e.end(f"i64 {base}")

    # -- graphs --------------------------------------------------------------------------------------------------------

    def call(self, name: str, *args: str) -> None:
        """Calls the driver, whatever it says."""
        self.driver(name, *args)

    def end_capture(self, graph: str) -> str:
        """The driver's code; what was captured goes to `graph`."""
        self.e.line(f"store i64 0, ptr {self.e.gep('%record', CAPTURING, 'i64')}")
        code = self.driver("cuStreamEndCapture", f"ptr {self.load('%record', STREAM)}", f"ptr {graph}")
        self.swap_streams()
        return code

    def swap_streams(self) -> None:
        """While STREAM is captured, who uses the default stream, for which it waits, would fail: the other one takes its place."""
        streams = [(slot, self.load("%record", slot)) for slot in (STREAM, ASIDE)]
        for (slot, _), (_, other) in zip(streams, reversed(streams)):
            self.e.line(f"store ptr {other}, ptr {self.e.gep('%record', slot, 'i64')}")

    def drop_graph(self, way: str) -> None:
        e, run = self.e, self.load(way, GRAPH)
        e.when(e.value(f"icmp ne ptr {run}, null"), lambda: self.call("cuGraphExecDestroy", f"ptr {run}"))
        e.line(f"store ptr null, ptr {e.gep(way, GRAPH, 'i64')}")

    def replay(self) -> None:
        """`replay(call, record, graphs, keys, count)`: LAUNCHED if there was a graph of a call like this one, CAPTURED if one has
        been begun because a call before was like it, else PLAIN; LOST if it was refused."""
        e = self.e
        e.function("internal i32 @tcc_cu_replay(ptr %call, ptr %record, ptr %graphs, ptr %keys, i64 %count)")
        there = self.word(e.gep("@tcc_cu", NAMES.index("cuGraphInstantiateWithFlags"), "ptr"), "ptr")
        self.leave_if(e.value(f"icmp eq ptr {there}, null"), lambda: f"i32 {PLAIN}")
        each = e.value(f"add i64 %count, {KEYS}")

        def way(number: str) -> str:
            return e.gep(e.gep("%graphs", 1, "i64"), e.value(f"mul i64 {number}, {each}"), "i64")

        def look(number: str, found: list[str]) -> list[str]:
            place = way(number)
            kept = e.gep(place, KEYS, "i64")

            def compare(i: str, differ: list[str]) -> list[str]:
                other = e.value(f"xor i64 {self.load('%keys', i, 'i64')}, {self.load(kept, i, 'i64')}")
                return [e.value(f"or i64 {differ[0]}, {other}")]

            (differ,) = e.loop(0, "%count", 1, compare, [("i64", "0")])
            known = e.value(f"icmp ne i64 {self.load(place, KNOWN, 'i64')}, 0")
            same = e.value(f"and i1 {known}, {e.value(f'icmp eq i64 {differ}, 0')}")
            return [e.value(f"select i1 {same}, ptr {place}, ptr {found[0]}")]

        (found,) = e.loop(0, WAYS, 1, look, [("ptr", "null")])

        def note() -> str:
            number = self.word("%graphs")
            following = e.value(f"add i64 {number}, 1")
            e.line(f"store i64 {e.value(f'urem i64 {following}, {WAYS}')}, ptr %graphs")
            place = way(number)
            self.drop_graph(place)
            e.line(f"store i64 1, ptr {e.gep(place, KNOWN, 'i64')}")
            kept = e.gep(place, KEYS, "i64")

            def keep(i: str, _: list[str]) -> None:
                e.line(f"store i64 {self.load('%keys', i, 'i64')}, ptr {e.gep(kept, i, 'i64')}")

            e.loop(0, "%count", 1, keep)
            return f"i32 {PLAIN}"

        self.leave_if(e.value(f"icmp eq ptr {found}, null"), note)
        run, stream = self.load(found, GRAPH), self.load("%record", STREAM)

        def begin() -> str:
            aside = self.load("%record", ASIDE)
            code = self.driver("cuStreamBeginCapture_v2", f"ptr {aside}", f"i32 {RELAXED}")
            self.failing(code, "cuStreamBeginCapture_v2", f"i32 {LOST}")
            self.swap_streams()
            e.line(f"store ptr {found}, ptr {e.gep('%record', CAPTURING, 'i64')}")
            return f"i32 {CAPTURED}"

        self.leave_if(e.value(f"icmp eq ptr {run}, null"), begin)
        code = self.driver("cuGraphLaunch", f"ptr {run}", f"ptr {stream}")
        self.failing(code, "cuGraphLaunch", f"i32 {LOST}")
        e.end(f"i32 {LAUNCHED}")

    def captured(self) -> None:
        """`captured(call, record)`: what was captured becomes the graph of its way, and is launched."""
        e = self.e
        e.function("internal i1 @tcc_cu_captured(ptr %call, ptr %record)")
        way = self.load("%record", CAPTURING)
        graph = e.value("alloca ptr")
        e.line(f"store ptr null, ptr {graph}")
        self.failing(self.end_capture(graph), "cuStreamEndCapture")
        made = self.word(graph, "ptr")
        run = e.gep(way, GRAPH, "i64")
        code = self.driver("cuGraphInstantiateWithFlags", f"ptr {run}", f"ptr {made}", "i64 0")
        bad = e.value(f"icmp ne i32 {code}, 0")
        e.when(bad, lambda: e.line(f"store ptr null, ptr {run}"))
        self.call("cuGraphDestroy", f"ptr {made}")
        self.failing(code, "cuGraphInstantiateWithFlags")
        stream = self.load("%record", STREAM)
        code = self.driver("cuGraphLaunch", f"ptr {self.word(run, 'ptr')}", f"ptr {stream}")
        e.end(f"i1 {e.value(f'call i1 @tcc_cu_bad(ptr %call, i32 {code}, ptr @tcc_name_cuGraphLaunch)')}")

    # -- work ----------------------------------------------------------------------------------------------------------

    def copy(self) -> None:
        e = self.e
        e.function("internal i1 @tcc_cu_copy(ptr %call, ptr %record, i64 %target, i64 %source, i64 %bytes)")
        self.leave_if(e.value("icmp eq i64 %bytes, 0"), lambda: "i1 false")
        stream = self.load("%record", STREAM)
        code = self.driver(
            "cuMemcpyDtoDAsync_v2", "i64 %target", "i64 %source", "i64 %bytes", f"ptr {stream}"
        )
        e.end(
            f"i1 {e.value(f'call i1 @tcc_cu_bad(ptr %call, i32 {code}, ptr @tcc_name_cuMemcpyDtoDAsync_v2)')}"
        )

    def _download(self, target: str, source: str, bytes: str) -> None:
        stream = self.load("%record", STREAM)
        code = self.driver(
            "cuMemcpyDtoHAsync_v2", f"ptr {target}", f"i64 {source}", f"i64 {bytes}", f"ptr {stream}"
        )
        self.failing(code, "cuMemcpyDtoHAsync_v2")

    def read(self) -> None:
        """`read(call, record, to, source, bytes)`: a few bytes, for which the host waits."""
        self.e.function("internal i1 @tcc_cu_read(ptr %call, ptr %record, ptr %to, i64 %source, i64 %bytes)")
        self._download("%to", "%source", "%bytes")
        self.e.end(f"i1 {self.e.value('call i1 @tcc_cu_wait(ptr %call, ptr %record)')}")

    def wait(self) -> None:
        e = self.e
        e.function("internal i1 @tcc_cu_wait(ptr %call, ptr %record)")
        code = self.driver("cuStreamSynchronize", f"ptr {self.load('%record', STREAM)}")
        e.end(
            f"i1 {e.value(f'call i1 @tcc_cu_bad(ptr %call, i32 {code}, ptr @tcc_name_cuStreamSynchronize)')}"
        )

    def home(self) -> None:
        """`home(call, record, tensor, name, base, bytes)`: a result, to where its tensor lies."""
        e = self.e
        e.function(
            "internal i1 @tcc_cu_home(ptr %call, ptr %record, ptr %tensor, ptr %name, i64 %base, i64 %bytes)"
        )
        here = e.value("call i32 @tcc_cu_here(ptr %call, ptr %record, ptr %tensor, ptr %name)")
        self.leave_if(e.value(f"icmp ne i32 {here}, 0"), lambda: f"i1 {e.value(f'icmp eq i32 {here}, 2')}")
        self.leave_if(e.value("icmp eq i64 %bytes, 0"), lambda: "i1 false")
        data = self.word("%tensor", "ptr")
        offset = self.word(e.value("getelementptr %tcc_tensor, ptr %tensor, i32 0, i32 7"))
        self._download(e.gep(data, offset), "%base", "%bytes")
        e.end("i1 false")

    def tile_map(self) -> None:
        """`tile_map(call, place, address, three sizes, two strides in bytes, two of the box, the dtype)`: a tensor map."""
        e = self.e
        numbers = ", ".join(f"i64 %n{i}" for i in range(8))
        e.function(f"internal i1 @tcc_cu_tile_map(ptr %call, ptr %place, {numbers}, i32 %kind)")
        box = self.short(["%n6", "%n7"])
        self._map(
            TILE_MAP, 3, [f"ptr {self.array('i32', [*box, '1'])}", f"ptr {self.array('i32', ['1'] * 3)}"]
        )

    def pixel_map(self) -> None:
        """`pixel_map(call, place, address, four sizes, three strides in bytes, channels and pixels, a walk, the dtype)`: one of images."""
        e = self.e
        numbers = ", ".join([*(f"i64 %n{i}" for i in range(10)), *(f"i32 %w{i}" for i in range(6))])
        e.function(f"internal i1 @tcc_cu_pixel_map(ptr %call, ptr %place, {numbers}, i32 %kind)")
        lower, upper = (self.array("i32", [f"%w{i}", f"%w{i + 1}"]) for i in (0, 2))
        box = [f"i32 {n}" for n in self.short(["%n8", "%n9"])]
        steps = self.array("i32", ["1", "%w4", "%w5", "1"])
        self._map(PIXEL_MAP, 4, [f"ptr {lower}", f"ptr {upper}", *box, f"ptr {steps}"])

    def short(self, numbers: Sequence[str]) -> list[str]:
        return [self.e.value(f"trunc i64 {n} to i32") for n in numbers]

    def array(self, t: str, values: Sequence[str]) -> str:
        """Where the values lie one after another."""
        place = self.e.value(f"alloca [{len(values)} x {t}]")
        for i, value in enumerate(values):
            self.e.line(f"store {t} {value}, ptr {self.e.gep(place, i, t)}")
        return place

    def _map(self, name: str, rank: int, own: Sequence[str]) -> None:
        """The end of a function whose numbers are an address, `rank` sizes and the strides of all but the first; `own` follow them."""
        e = self.e
        shape = self.array("i64", [f"%n{1 + i}" for i in range(rank)])
        strides = self.array("i64", [f"%n{1 + rank + i}" for i in range(rank - 1)])
        how = (f"i32 {x}" for x in (NOT_INTERLEAVED, SWIZZLE_128, PROMOTE_256, ZEROS))
        code = self.driver(
            name, "ptr %place", "i32 %kind", f"i32 {rank}", "i64 %n0", f"ptr {shape}", f"ptr {strides}", *own, *how
        )  # fmt: skip
        e.end(f"i1 {e.value(f'call i1 @tcc_cu_bad(ptr %call, i32 {code}, ptr @tcc_name_{name})')}")

    def launch(self) -> None:
        e = self.e
        e.function(
            "internal i1 @tcc_cu_launch(ptr %call, ptr %record, ptr %function, i64 %x, i64 %y, i64 %z, i32 %threads, "
            "i32 %shared, ptr %arguments, i64 %bytes)"
        )
        size, extra = e.value("alloca i64"), e.value("alloca [5 x ptr]")
        empty = e.value("icmp eq i64 %x, 0")
        for axis in ("%y", "%z"):
            empty = e.value(f"or i1 {empty}, {e.value(f'icmp eq i64 {axis}, 0')}")
        self.leave_if(empty, lambda: "i1 false")
        e.line(f"store i64 %bytes, ptr {size}")
        for i, value in enumerate(
            ("inttoptr (i64 1 to ptr)", "%arguments", "inttoptr (i64 2 to ptr)", size, "null")
        ):
            e.line(f"store ptr {value}, ptr {e.gep(extra, i, 'ptr')}")
        grid = [e.value(f"trunc i64 {axis} to i32") for axis in ("%x", "%y", "%z")]
        stream = self.load("%record", STREAM)
        code = self.driver(
            "cuLaunchKernel", "ptr %function", *(f"i32 {g}" for g in grid), "i32 %threads", "i32 1", "i32 1", "i32 %shared",
            f"ptr {stream}", "ptr null", f"ptr {extra}",
        )  # fmt: skip
        e.end(f"i1 {e.value(f'call i1 @tcc_cu_bad(ptr %call, i32 {code}, ptr @tcc_name_cuLaunchKernel)')}")
