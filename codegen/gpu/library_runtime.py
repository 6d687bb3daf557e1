"""LLVM text of what a model's library for a GPU has besides its entries: libcuda by dlopen, a device record for each context with
the kernels and the state, and tables."""

from __future__ import annotations

from tcc.codegen.aot.layout import ALIGN, CTX_DEVICE, CTX_HEADER, STATE_ROW
from tcc.codegen.aot.messages import c_bytes, string
from tcc.codegen.gpu.library_calls import DRIVER, NAMES, NON_BLOCKING, DriverCalls
from tcc.codegen.gpu.library_layout import (
    ASIDE,
    CONTEXT,
    COUNT,
    FIRST,
    HERE,
    KEYS,
    NEWER,
    NUMBER,
    STREAM,
    WAYS,
    DeviceLibrary,
    key_count,
)

NO_DEVICE = 100
MULTIPROCESSORS, MAJOR, MINOR = 16, 75, 76  # attributes: their count, and the compute capability
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
    "othergpu": "%s: %s lies on GPU %d, and the context is on GPU %d",
    "nogpu": "%s: %s is said to lie on the GPU, and its memory does not",
}
DECLARES = """
declare ptr @dlopen(ptr, i32)
declare ptr @dlsym(ptr, ptr)
"""


def runtime_text(library: DeviceLibrary) -> str:
    """The functions, the kernels as PTX, and the constants."""
    return _Runtime(library).text()


class _Runtime(DriverCalls):
    def __init__(self, library: DeviceLibrary) -> None:
        super().__init__()
        self.library = library

    def text(self) -> str:
        for make in (
            self.open, self.close, self.enter, self.leave, self.bad, self.room, self.here, self.input, self.result,
            self.value, self.copy, self.read, self.wait, self.home, self.launch, self.tile_map, self.pixel_map, self.replay, self.captured, self.state_home, self.state_stale,
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
        names = [f"i64 ptrtoint (ptr @tcc_name_{n} to i64)" for n in NAMES]
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
                *(string(f"tcc_name_{n}", n) for n in NAMES),
                string("tcc_libcuda", "libcuda.so.1"),
                string("tcc_no_words", "an unknown error"),
                f"@tcc_cu = internal global [{len(NAMES)} x ptr] zeroinitializer\n",
                f"@tcc_cu_names = internal constant [{len(NAMES)} x i64] [{', '.join(names)}]\n",
                f"@tcc_cu_kernels = internal constant [{count} x [3 x i64]] "
                + (f"[{', '.join(rows)}]\n" if rows else "zeroinitializer\n"),
                *texts,
            ]
        )

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
        count = f"ptr {e.gep(record, COUNT, 'i64')}"  # four bytes of zeros
        self.driver("cuDeviceGetAttribute", count, f"i32 {MULTIPROCESSORS}", f"i32 {device}")
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
            needed = e.value(f"icmp ult i64 {i}, {len(DRIVER)}")
            lacks = e.value(f"and i1 {needed}, {e.value(f'icmp eq ptr {got}, null')}")
            self.leave_if(lacks, lambda: f"i32 {self.said('oldlibrary', name)}")
            e.line(f"store ptr {got}, ptr {e.gep('@tcc_cu', i, 'ptr')}")

        e.loop(0, len(NAMES), 1, one)

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
        for slot, kind in ((STREAM, 0), (ASIDE, NON_BLOCKING)):
            made = self.driver("cuStreamCreate", f"ptr {e.gep('%record', slot, 'i64')}", f"i32 {kind}")
            self._refuse_code(made, "cuStreamCreate")
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
        for slot in (STREAM, ASIDE):
            stream = self.load(record, slot)

            def settle(stream: str = stream) -> None:
                self.driver("cuStreamSynchronize", f"ptr {stream}")
                self.driver("cuStreamDestroy_v2", f"ptr {stream}")

            e.when(e.value(f"icmp ne ptr {stream}, null"), settle)
        for entry, slot in library.graphs.items():
            first, each = e.gep(record, slot + 1, "i64"), KEYS + key_count(library.programs[entry])

            def drop(number: str, _: list[str], first: str = first, each: int = each) -> None:
                self.drop_graph(e.gep(first, e.value(f"mul i64 {number}, {each}"), "i64"))

            e.loop(0, WAYS, 1, drop)
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
                    e.value(f"getelementptr {STATE_ROW}, ptr @tcc_state_places, i64 {i}"), 0, "i64"
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
