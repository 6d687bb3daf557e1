"""LLVM text of what a model's library asks of the driver: libcuda by dlopen, a device record for each context, memory, copies, launches.

A function that a body calls gives true, or the address 0, when it has refused: then the call's status is kept where the body
of a CPU's library keeps it.
"""

from __future__ import annotations

from collections.abc import Callable

from tcc.codegen.aot_checks import c_bytes, refuse, string
from tcc.codegen.aot_layout import ALIGN, CTX_DEVICE, CTX_HEADER
from tcc.codegen.emit import Emit
from tcc.codegen.gpu.library import CONTEXT, FIRST, HERE, NEWER, NUMBER, STREAM, DeviceLibrary
from tcc.runtime import layout as at
from tcc.runtime.dlpack import CUDA

DRIVER = (
    "cuInit cuDriverGetVersion cuGetErrorString cuDeviceGetCount cuDeviceGet cuDeviceGetAttribute "
    "cuDevicePrimaryCtxRetain cuDevicePrimaryCtxRelease_v2 cuCtxPushCurrent_v2 cuCtxPopCurrent_v2 cuStreamCreate "
    "cuStreamSynchronize cuStreamDestroy_v2 cuModuleLoadDataEx cuModuleUnload cuModuleGetFunction cuFuncSetAttribute "
    "cuMemAlloc_v2 cuMemFree_v2 cuMemcpyHtoDAsync_v2 cuMemcpyDtoHAsync_v2 cuMemcpyDtoDAsync_v2 cuLaunchKernel"
).split()
NO_DEVICE, NO_MEMORY = 100, 2
MAJOR, MINOR = 75, 76  # attributes: of the compute capability
SHARED_BYTES = 8  # a function's attribute: dynamic shared memory
LOG, LOG_BYTES = 5, 6  # options of the assembler
LARGE = 48 << 10  # bytes of shared memory that must be asked for
LOG_ROOM = 256

MESSAGES = {
    "nodriver": "%s: there is no NVIDIA driver (libcuda.so.1 is not found)",
    "oldlibrary": "%s: the NVIDIA driver lacks %s: update it",
    "olddriver": "%s: the NVIDIA driver is for CUDA %d.%d, and %d.%d is the least: update it",
    "nodevice": "%s: the NVIDIA driver finds no GPU",
    "nonumber": "%s: there is no GPU %d; their number is %d",
    "oldgpu": "%s: GPU %d has compute capability %d.%d, and the code is for %d.%d{newer}",
    "driver": "%s: the GPU failed in %s: %s",
    "kernel": "%s: the NVIDIA driver does not take the kernel %s: %s",
    "gpumemory": "%s: the GPU has no memory for %d bytes",
    "busy": "%s: the context is in use by another thread; a context for GPUs takes one call at a time",
    "othergpu": "%s: a tensor lies on GPU %d, and the context is on GPU %d",
}
DECLARES = """
declare ptr @dlopen(ptr, i32)
declare ptr @dlsym(ptr, ptr)
"""


def runtime_text(library: DeviceLibrary) -> str:
    """The functions, the kernels as PTX, and the constants."""
    return _Runtime(library).text()


class _Runtime:
    def __init__(self, library: DeviceLibrary) -> None:
        self.library = library
        self.e = Emit()

    def text(self) -> str:
        for make in (
            self.open, self.close, self.enter, self.leave, self.bad, self.room, self.here, self.input, self.result,
            self.value, self.copy, self.read, self.wait, self.home, self.launch, self.state_home, self.state_stale,
        ):  # fmt: skip
            make()
        return DECLARES + self.tables() + self.e.text()

    def tables(self) -> str:
        newer = "" if self.library.chip.name[-1].isalpha() else " and newer"
        rows, texts = [], []
        for i, k in enumerate(self.library.kernels.values()):
            rows.append(
                f"[3 x i64] [i64 ptrtoint (ptr @tcc_ptx_{i} to i64), i64 ptrtoint (ptr @tcc_kernel_{i} to i64), i64 {k.shared}]"
            )
            texts += [string(f"tcc_ptx_{i}", k.text), string(f"tcc_kernel_{i}", k.name)]
        names = [f"i64 ptrtoint (ptr @tcc_name_{n} to i64)" for n in DRIVER]
        for entry, p in self.library.programs.items():
            for n, c in enumerate(p.constants):
                data = c_bytes(c.tobytes() or b"\0")
                texts.append(
                    f"@tcc_device_{entry}_{n} = internal constant [{max(1, c.nbytes)} x i8] {data}, align 64\n"
                )
        count = max(1, len(rows))
        return "".join(
            [
                *(string(f"tcc_says_{k}", v.format(newer=newer)) for k, v in MESSAGES.items()),
                *(string(f"tcc_name_{n}", n) for n in DRIVER),
                string("tcc_libcuda", "libcuda.so.1"),
                string("tcc_no_words", "an unknown error"),
                f"@tcc_cu = internal global [{len(DRIVER)} x ptr] zeroinitializer\n",
                f"@tcc_cu_names = internal constant [{len(DRIVER)} x i64] [{', '.join(names)}]\n",
                f"@tcc_cu_kernels = internal constant [{count} x [3 x i64]] "
                + (f"[{', '.join(rows)}]\n" if rows else "zeroinitializer\n"),
                *texts,
            ]
        )

    # -- small things --------------------------------------------------------------------------------------------------

    def driver(self, name: str, *args: str) -> str:
        """Calls the driver; the code that it gives."""
        f = self.e.value(f"load ptr, ptr {self.e.gep('@tcc_cu', DRIVER.index(name), 'ptr')}")
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

    # -- a context's device --------------------------------------------------------------------------------------------

    def open(self) -> None:
        """`open(ctx, number, who)`: the device record of a context that is being made; the status of what was refused."""
        e, library = self.e, self.library
        e.function("internal i32 @tcc_cu_open(ptr %ctx, i32 %number, ptr %who)")
        e.line("%who.i = ptrtoint ptr %who to i64")
        e.line("%number.i = sext i32 %number to i64")
        cell, other = e.value("alloca i64"), e.value("alloca i64")
        e.line(f"store i64 0, ptr {cell}")
        e.line(f"store i64 0, ptr {other}")
        self._find_driver()
        begun = self.driver("cuInit", "i32 0")
        none = e.value(f"icmp eq i32 {begun}, {NO_DEVICE}")
        self.leave_if(none, lambda: f"i32 {self.said('nodevice')}")
        self._refuse_code(begun, "cuInit")
        self._check_version(cell)
        self._refuse_code(self.driver("cuDeviceGetCount", f"ptr {cell}"), "cuDeviceGetCount")
        count = self.word(cell, "i32")
        self.leave_if(
            e.value(f"icmp uge i32 %number, {count}"),
            lambda: f"i32 {self.said('nonumber', '%number.i', self.wide(count))}",
        )
        self._refuse_code(self.driver("cuDeviceGet", f"ptr {cell}", "i32 %number"), "cuDeviceGet")
        device = self.word(cell, "i32")
        self._check_chip(device, cell, other)
        bytes = -(-8 * library.slots // ALIGN) * ALIGN
        record = e.value(f"call ptr @aligned_alloc(i64 {ALIGN}, i64 {bytes})")
        no_memory = e.value(f"icmp eq ptr {record}, null")
        self.leave_if(no_memory, lambda: f"i32 {self.said('memory', str(bytes), status='memory')}")
        e.line(f"call void @llvm.memset.p0.i64(ptr {record}, i8 0, i64 {bytes}, i1 false)")
        e.line(f"store i64 {self.wide(device)}, ptr {e.gep(record, NUMBER, 'i64')}")
        retained = self.driver(
            "cuDevicePrimaryCtxRetain", f"ptr {e.gep(record, CONTEXT, 'i64')}", f"i32 {device}"
        )
        bad = e.value(f"icmp ne i32 {retained}, 0")
        e.when(bad, lambda: e.line(f"call void @free(ptr {record})"))
        self._refuse_code(retained, "cuDevicePrimaryCtxRetain")
        e.line(f"store ptr {record}, ptr {e.gep('%ctx', CTX_DEVICE, 'i64')}")
        self._refuse_code(
            self.driver("cuCtxPushCurrent_v2", f"ptr {self.load(record, CONTEXT)}"), "cuCtxPushCurrent_v2"
        )
        status = e.value(f"call i32 @tcc_cu_load(ptr {record}, ptr %who)")
        self.driver("cuCtxPopCurrent_v2", f"ptr {cell}")
        e.end(f"i32 {status}")
        self._load()

    def _find_driver(self) -> None:
        e = self.e
        found = e.value("call ptr @dlopen(ptr @tcc_libcuda, i32 2)")
        self.leave_if(e.value(f"icmp eq ptr {found}, null"), lambda: f"i32 {self.said('nodriver')}")

        def one(i: str, _: list[str]) -> None:
            name = self.word(e.gep("@tcc_cu_names", i, "i64"), "i64")
            got = e.value(f"call ptr @dlsym(ptr {found}, ptr {e.value(f'inttoptr i64 {name} to ptr')})")
            self.leave_if(e.value(f"icmp eq ptr {got}, null"), lambda: f"i32 {self.said('oldlibrary', name)}")
            e.line(f"store ptr {got}, ptr {e.gep('@tcc_cu', i, 'ptr')}")

        e.loop(0, len(DRIVER), 1, one)

    def _refuse_code(self, code: str, name: str) -> None:
        bad = self.e.value(f"icmp ne i32 {code}, 0")
        where = f"ptrtoint (ptr @tcc_name_{name} to i64)"
        self.leave_if(bad, lambda: f"i32 {self.said('driver', where, self.words_of(code))}")

    def _check_version(self, cell: str) -> None:
        e, least = self.e, self.library.chip.driver
        self._refuse_code(self.driver("cuDriverGetVersion", f"ptr {cell}"), "cuDriverGetVersion")
        version = self.word(cell, "i32")

        def old() -> str:
            major = self.wide(e.value(f"udiv i32 {version}, 1000"))
            minor = self.wide(e.value(f"udiv i32 {e.value(f'urem i32 {version}, 1000')}, 10"))
            return f"i32 {self.said('olddriver', major, minor, str(least // 1000), str(least % 1000 // 10))}"

        self.leave_if(e.value(f"icmp slt i32 {version}, {least}"), old)

    def _check_chip(self, device: str, cell: str, other: str) -> None:
        e, chip = self.e, self.library.chip
        for to, which in ((cell, MAJOR), (other, MINOR)):
            code = self.driver("cuDeviceGetAttribute", f"ptr {to}", f"i32 {which}", f"i32 {device}")
            self._refuse_code(code, "cuDeviceGetAttribute")
        major, minor = self.word(cell, "i32"), self.word(other, "i32")
        sm = e.value(f"add i32 {e.value(f'mul i32 {major}, 10')}, {minor}")
        kind = "ne" if chip.name[-1].isalpha() else "slt"  # sm_90a is for nothing else
        self.leave_if(
            e.value(f"icmp {kind} i32 {sm}, {chip.sm}"),
            lambda: (
                "i32 "
                + self.said(
                    "oldgpu",
                    "%number.i",
                    self.wide(major),
                    self.wide(minor),
                    str(chip.sm // 10),
                    str(chip.sm % 10),
                )
            ),
        )

    def _load(self) -> None:
        """`load(record, who)`: the stream and the kernels."""
        e, library = self.e, self.library
        e.function("internal i32 @tcc_cu_load(ptr %record, ptr %who)")
        e.line("%who.i = ptrtoint ptr %who to i64")
        log, options, values = (
            e.value(f"alloca [{LOG_ROOM} x i8]"),
            e.value("alloca [2 x i32]"),
            e.value("alloca [2 x ptr]"),
        )
        self._refuse_code(
            self.driver("cuStreamCreate", f"ptr {e.gep('%record', STREAM, 'i64')}", "i32 0"), "cuStreamCreate"
        )
        first, count = FIRST, len(library.kernels)

        def one(i: str, _: list[str]) -> None:
            row = e.value(f"getelementptr [3 x i64], ptr @tcc_cu_kernels, i64 {i}")
            ptx, name, shared = (self.load(row, k, "i64") for k in range(3))
            function = e.value(f"getelementptr i64, ptr %record, i64 {e.value(f'add i64 {i}, {first}')}")
            module = e.gep(function, count, "i64")
            e.line(f"store i8 0, ptr {log}")
            for k, (option, value) in enumerate(
                ((LOG, f"ptr {log}"), (LOG_BYTES, f"ptr inttoptr (i64 {LOG_ROOM} to ptr)"))
            ):
                e.line(f"store i32 {option}, ptr {e.gep(options, k, 'i32')}")
                e.line(f"store {value}, ptr {e.gep(values, k, 'ptr')}")
            text = e.value(f"inttoptr i64 {ptx} to ptr")
            loaded = self.driver(
                "cuModuleLoadDataEx",
                f"ptr {module}",
                f"ptr {text}",
                "i32 2",
                f"ptr {options}",
                f"ptr {values}",
            )

            def refused() -> str:
                silent = e.value(f"icmp eq i8 {self.word(log, 'i8')}, 0")
                words = e.value(
                    f"select i1 {silent}, i64 {self.words_of(loaded)}, i64 {e.value(f'ptrtoint ptr {log} to i64')}"
                )
                return f"i32 {self.said('kernel', name, words)}"

            self.leave_if(e.value(f"icmp ne i32 {loaded}, 0"), refused)
            named = e.value(f"inttoptr i64 {name} to ptr")
            got = self.driver(
                "cuModuleGetFunction", f"ptr {function}", f"ptr {self.word(module, 'ptr')}", f"ptr {named}"
            )
            self._refuse_code(got, "cuModuleGetFunction")

            def ask() -> None:
                bytes = e.value(f"trunc i64 {shared} to i32")
                code = self.driver(
                    "cuFuncSetAttribute",
                    f"ptr {self.word(function, 'ptr')}",
                    f"i32 {SHARED_BYTES}",
                    f"i32 {bytes}",
                )
                self._refuse_code(code, "cuFuncSetAttribute")

            e.when(e.value(f"icmp ugt i64 {shared}, {LARGE}"), ask)

        e.loop(0, count, 1, one)
        e.end("i32 0")

    def close(self) -> None:
        """`close(ctx)`: all that a context has on the device."""
        e, library = self.e, self.library
        e.function("internal void @tcc_cu_close(ptr %ctx)")
        record = self.load("%ctx", CTX_DEVICE)
        self.leave_if(e.value(f"icmp eq ptr {record}, null"), lambda: "void")
        cell = e.value("alloca ptr")
        self.driver("cuCtxPushCurrent_v2", f"ptr {self.load(record, CONTEXT)}")
        stream = self.load(record, STREAM)

        def settle() -> None:
            self.driver("cuStreamSynchronize", f"ptr {stream}")
            self.driver("cuStreamDestroy_v2", f"ptr {stream}")

        e.when(e.value(f"icmp ne ptr {stream}, null"), settle)
        memories = library.memories

        def free(i: str, _: list[str]) -> None:
            address = self.word(e.gep(record, i, "i64"))
            e.when(
                e.value(f"icmp ne i64 {address}, 0"),
                lambda: void(self.driver("cuMemFree_v2", f"i64 {address}")),
            )

        e.loop(memories.start, memories.stop, 2, free)

        def unload(i: str, _: list[str]) -> None:
            module = self.word(e.gep(record, i, "i64"), "ptr")
            e.when(
                e.value(f"icmp ne ptr {module}, null"),
                lambda: void(self.driver("cuModuleUnload", f"ptr {module}")),
            )

        count = len(library.kernels)
        e.loop(memories.start - count, memories.start, 1, unload)
        self.driver("cuCtxPopCurrent_v2", f"ptr {cell}")
        self.driver("cuDevicePrimaryCtxRelease_v2", f"i32 {self.load(record, NUMBER, 'i32')}")
        e.line(f"call void @free(ptr {record})")
        e.end()

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
        code = self.driver("cuMemAlloc_v2", "ptr %slot", f"i64 {wanted}")

        def short() -> str:
            self.told("gpumemory", wanted, status="memory")
            return "i64 0"

        self.leave_if(e.value(f"icmp eq i32 {code}, {NO_MEMORY}"), short)
        self.failing(code, "cuMemAlloc_v2", "i64 0")
        e.line(f"store i64 {wanted}, ptr {e.gep('%slot', 1, 'i64')}")
        e.end(f"i64 {self.load('%slot', 0, 'i64')}")

    def here(self) -> None:
        """`here(call, record, tensor)`: 1 if a tensor is on this device, 0 if on the host; 2 if it was refused."""
        e = self.e
        e.function("internal i32 @tcc_cu_here(ptr %call, ptr %record, ptr %tensor)")
        kind, number = (
            self.word(e.value(f"getelementptr %tcc_tensor, ptr %tensor, i32 0, i32 {i}"), "i32")
            for i in (1, 2)
        )
        self.leave_if(e.value(f"icmp ne i32 {kind}, {CUDA}"), lambda: "i32 0")
        own = self.load("%record", NUMBER, "i32")

        def other() -> str:
            self.told("othergpu", self.wide(number), self.wide(own), status="device")
            return "i32 2"

        self.leave_if(e.value(f"icmp ne i32 {number}, {own}"), other)
        e.end("i32 1")

    def _placed(self, name: str) -> str:
        """Begins a function that returns a tensor's own address if it is the device's; otherwise goes on with a buffer's."""
        e = self.e
        e.function(
            f"internal i64 @{name}(ptr %call, ptr %record, ptr %tensor, i64 %host, ptr %slot, i64 %bytes)"
        )
        here = e.value("call i32 @tcc_cu_here(ptr %call, ptr %record, ptr %tensor)")
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
            wanted = e.call("i64", "llvm.umax.i64", ("i64", "%bytes"), ("i64", "1"))
            code = self.driver("cuMemAlloc_v2", "ptr %slot", f"i64 {wanted}")

            def short() -> str:
                self.told("gpumemory", wanted, status="memory")
                return "i64 0"

            self.leave_if(e.value(f"icmp eq i32 {code}, {NO_MEMORY}"), short)
            self.failing(code, "cuMemAlloc_v2", "i64 0")

        e.when(e.value(f"icmp eq i64 {now}, 0"), make)
        base = self.load("%slot", 0, "i64")
        self._upload(base, "%host")
        e.line(f"store i64 {HERE}, ptr {e.gep('%slot', 1, 'i64')}")
        e.end(f"i64 {base}")

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
        """`home(call, record, tensor, base, bytes)`: a result, to where its tensor lies."""
        e = self.e
        e.function("internal i1 @tcc_cu_home(ptr %call, ptr %record, ptr %tensor, i64 %base, i64 %bytes)")
        here = e.value("call i32 @tcc_cu_here(ptr %call, ptr %record, ptr %tensor)")
        self.leave_if(e.value(f"icmp ne i32 {here}, 0"), lambda: f"i1 {e.value(f'icmp eq i32 {here}, 2')}")
        self.leave_if(e.value("icmp eq i64 %bytes, 0"), lambda: "i1 false")
        data = self.word("%tensor", "ptr")
        offset = self.word(e.value("getelementptr %tcc_tensor, ptr %tensor, i32 0, i32 7"))
        self._download(e.gep(data, offset), "%base", "%bytes")
        e.end("i1 false")

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

    # -- the state -----------------------------------------------------------------------------------------------------

    def state_home(self) -> None:
        """`state_home(ctx, who)`: brings to the host what is newer on the device; a status."""
        e, library = self.e, self.library
        e.function("internal i32 @tcc_cu_state_home(ptr %ctx, ptr %who)")
        e.line("%who.i = ptrtoint ptr %who to i64")
        record = self.load("%ctx", CTX_DEVICE)
        cell = e.value("alloca ptr")
        self._refuse_code(
            self.driver("cuCtxPushCurrent_v2", f"ptr {self.load(record, CONTEXT)}"), "cuCtxPushCurrent_v2"
        )
        stream = self.load(record, STREAM)
        failed = e.value("alloca i32")
        e.line(f"store i32 0, ptr {failed}")

        def note(code: str) -> None:
            e.when(e.value(f"icmp ne i32 {code}, 0"), lambda: e.line(f"store i32 {code}, ptr {failed}"))

        def one(i: str, _: list[str]) -> None:
            slot = e.gep(record, e.value(f"add i64 {e.value(f'shl i64 {i}, 1')}, {self._first_value}"), "i64")
            flag = self.load(slot, 1, "i64")

            def fetch() -> None:
                bytes = self.load(
                    e.value(f"getelementptr [4 x i64], ptr @tcc_state_places, i64 {i}"), 0, "i64"
                )
                place = self.load("%ctx", e.value(f"add i64 {i}, {CTX_HEADER // 8}"))
                source = self.load(slot, 0, "i64")
                note(
                    self.driver(
                        "cuMemcpyDtoHAsync_v2",
                        f"ptr {place}",
                        f"i64 {source}",
                        f"i64 {bytes}",
                        f"ptr {stream}",
                    )
                )
                e.line(f"store i64 {HERE}, ptr {e.gep(slot, 1, 'i64')}")

            e.when(e.value(f"icmp ne i64 {e.value(f'and i64 {flag}, {NEWER}')}, 0"), fetch)

        e.loop(0, len(library.state), 1, one)
        note(self.driver("cuStreamSynchronize", f"ptr {stream}"))
        self.driver("cuCtxPopCurrent_v2", f"ptr {cell}")
        self._refuse_code(self.word(failed, "i32"), "cuMemcpyDtoHAsync_v2")
        e.end("i32 0")

    @property
    def _first_value(self) -> int:
        return self.library.memories.start

    def state_stale(self) -> None:
        """`state_stale(ctx)`: the host's values are the newest."""
        e, library = self.e, self.library
        e.function("internal void @tcc_cu_state_stale(ptr %ctx)")
        record = self.load("%ctx", CTX_DEVICE)
        self.leave_if(e.value(f"icmp eq ptr {record}, null"), lambda: "void")

        def one(i: str, _: list[str]) -> None:
            e.line(f"store i64 0, ptr {e.gep(record, i, 'i64')}")

        first = self._first_value + 1
        e.loop(first, first + 2 * len(library.state), 2, one)
        e.end()


def void(_: str) -> None:
    """For what gives a code that nobody needs."""
