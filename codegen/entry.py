"""LLVM text of a compiled function's CPython entry.

`ptr @NAME(ptr self, ptr record, ptr args, ptr objects)` is called by `tcc_call` (support.py), the vectorcall of all functions,
with the record of this code, whatever calls of `self` enter by now: it checks the arguments against the signature, locks the
containers, takes an arena, makes the outputs, runs the body and undoes all that.  When something is not as the fast path wants
it (another dtype, a list, other sizes, a container in use, too small an arena) it touches nothing and gives NotImplemented;
`tcc_call` then calls the Python slow path, which mends it and calls `@NAME` again.  Between the first check and the taking of the last lock no Python code can run, so with the GIL held all checks and
locks are one step.  See runtime/layout.py for what the body gets.
"""

from __future__ import annotations

from collections.abc import Sequence

from tcc.codegen import containers
from tcc.codegen.emit import Emit
from tcc.codegen.kernel import bytes_text, size_text
from tcc.codegen.support import DECLARATIONS
from tcc.ir import dims
from tcc.ir.dims import Size
from tcc.ir.types import COMPLEX, HALVES, INTEGERS, itemsize
from tcc.runtime import layout as at
from tcc.runtime.signature import InputSpec, Signature

# Byte offsets in CPython's and NumPy's objects, the same in all supported versions on 64-bit systems.
OB_TYPE, OB_VALUE = 8, 16  # a Python float's and a NumPy scalar's value
ARRAY_DATA, ARRAY_NDIM, ARRAY_DIMS, ARRAY_DESCR, ARRAY_FLAGS = 16, 24, 32, 56, 64
C_CONTIGUOUS_ALIGNED = 0x0001 | 0x0100
TYPENUMS = dict(
    zip(("bool", "i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64", "f32", "f64"), (*range(9), 11, 12))
) | {"f16": 23, "bf16": 4, "c64": 14, "c128": 15}
ALIGN = 64

PYTHON = {
    "Py_IncRef": "declare void @Py_IncRef(ptr)",
    "Py_DecRef": "declare void @Py_DecRef(ptr)",
    "PyList_New": "declare ptr @PyList_New(i64)",
    "PyList_SetItem": "declare i32 @PyList_SetItem(ptr, i64, ptr)",
    "PyLong_AsLongLongAndOverflow": "declare i64 @PyLong_AsLongLongAndOverflow(ptr, ptr)",
}


def entry_text(name: str, signature: Signature, body: str) -> str:
    """The function `name`, which calls `i32 @body(ptr frame)`; `body` is declared, not defined."""
    return _Entry(name, signature, body).text()


def words_text(name: str, words: Sequence[int]) -> str:
    """A table of i64."""
    return f"@{name} = internal constant [{len(words)} x i64] [{', '.join(f'i64 {word}' for word in words)}]"


class _Entry:
    """One entry being written.  Control leaves the checks for the label `no`; past them, failures go through `failed`."""

    def __init__(self, name: str, signature: Signature, body: str) -> None:
        self.name, self.signature, self.body = name, signature, body
        self.frame, self.table = signature.frame, containers.table(signature.shared)
        self.e = Emit()
        self.env: dict[str, str] = {}
        self.later: list[tuple[Size, str]] = []  # sizes to check when all names are bound

    def text(self) -> str:
        e = self.e
        self._attempt()
        text = e.text()
        known = {**DECLARATIONS, **PYTHON, self.body: f"declare i32 @{self.body}(ptr)"}
        declares = [declaration for name, declaration in known.items() if f"@{name}(" in text]
        tables = {"shared": self.table, "kept": [spec.source for spec in self.signature.kept]}
        lines = [words_text(f"{self.name}.{what}", words) for what, words in tables.items() if words]
        return "\n".join([*declares, *e.declared, *lines, text])

    # The address or value at a fixed place.

    def load(self, base: str, slot: int, t: str = "ptr") -> str:
        return self.e.value(f"load {t}, ptr {self.e.gep(base, slot, 'i64')}")

    def store(self, base: str, slot: int, value: str, t: str = "ptr") -> None:
        self.e.line(f"store {t} {value}, ptr {self.e.gep(base, slot, 'i64')}")

    def field(self, base: str, offset: int, t: str = "ptr") -> str:
        return self.e.value(f"load {t}, ptr {self.e.gep(base, offset)}")

    def require(self, condition: str) -> None:
        """Goes on if `condition`, an i1, holds, else to the slow path."""
        following = self.e.label()
        self.e.branch_if(condition, following, "no")
        self.e.at(following)

    def size(self, size: Size) -> str:
        return size_text(self.e, size, self.env)

    def _attempt(self) -> None:
        e, outputs = self.e, self.signature.outputs
        e.function(f"ptr @{self.name}(ptr %self, ptr %record, ptr %args, ptr %objects)")
        e.quick()  # half the time, linear in the arguments, and as fast: it waits for memory
        self._allocas()
        e.line("%api = load ptr, ptr %record")
        for index, spec in enumerate(self.signature.inputs):
            self._input(index, spec)
        self._shared()
        for size, got in self.later:
            self.require(e.value(f"icmp eq i64 {got}, {self.size(size)}"))
        self._pool()
        block = self._arena()
        self._kept()
        for name, value in self.env.items():
            self.store("%frame", self.frame.size(name), value, "i64")
        self._lock()
        for index in range(len(outputs)):
            self.store("%outputs", index, "null")
        for index in range(len(outputs)):
            self._output(index)
        self._context()
        status = self._run()
        self._adopt(status)
        self._unlock(block)
        self._result()
        self._failed(block)
        e.at("no")
        self._singleton(at.API_NOT_IMPLEMENTED)

    def _allocas(self) -> None:
        s = self.signature
        rank = max([len(o.shape) for o in s.outputs], default=0)
        for what, slots in (
            ("ctx", at.CTX_SLOTS),
            ("frame", self.frame.slots),
            ("outputs", len(s.outputs)),
            ("dims", rank),
            ("numbers", len(s.inputs)),
            ("overflow", 1),
        ):
            self.e.line(f"%{what} = alloca [{max(slots, 1)} x i64], align 16")

    def _input(self, index: int, spec: InputSpec) -> None:
        e = self.e
        item = self.load("%args", index)
        kind = self.field(item, OB_TYPE)
        is_array = e.value(f"icmp eq ptr {kind}, {self.load('%api', at.API_NDARRAY)}")
        frame_slot = self.frame.input(index)
        if spec.rank:
            self.require(is_array)
            self._array(item, spec)
            self.store("%frame", frame_slot, self.field(item, ARRAY_DATA))
            self._sizes(spec.shape, self.field(item, ARRAY_DIMS))
            return
        array, scalar, after = e.label(), e.label(), e.label()
        e.branch_if(is_array, array, scalar)
        e.at(array)
        self._array(item, spec)
        self.store("%frame", frame_slot, self.field(item, ARRAY_DATA))
        e.branch(after)
        e.at(scalar)
        self._scalar(item, kind, index, spec, after)
        e.at(after)

    def _array(self, array: str, spec: InputSpec) -> None:
        """The built-in descriptors are singletons: comparing the pointer compares dtype and byte order."""
        e = self.e
        wanted = self.load("%api", at.API_DTYPES + 2 * at.DTYPES.index(spec.dtype))
        descr = e.value(f"icmp eq ptr {self.field(array, ARRAY_DESCR)}, {wanted}")
        rank = e.value(f"icmp eq i32 {self.field(array, ARRAY_NDIM, 'i32')}, {spec.rank}")
        flags = e.value(f"and i32 {self.field(array, ARRAY_FLAGS, 'i32')}, {C_CONTIGUOUS_ALIGNED}")
        dense = e.value(f"icmp eq i32 {flags}, {C_CONTIGUOUS_ALIGNED}")
        both = e.value(f"and i1 {descr}, {rank}")
        self.require(e.value(f"and i1 {both}, {dense}"))

    def _scalar(self, item: str, kind: str, index: int, spec: InputSpec, after: str) -> None:
        e = self.e
        slot = self.frame.input(index)
        same, other = e.label(), e.label()
        scalar_type = self.load("%api", at.API_DTYPES + 2 * at.DTYPES.index(spec.dtype) + 1)
        e.branch_if(e.value(f"icmp eq ptr {kind}, {scalar_type}"), same, other)
        e.at(same)
        self.store("%frame", slot, e.gep(item, OB_VALUE))
        e.branch(after)
        e.at(other)
        place = e.gep("%numbers", index, "i64")
        if not spec.numbers or spec.dtype in ("bool", "u64", *HALVES, *COMPLEX):
            e.branch("no")
            return
        if spec.dtype in INTEGERS:
            self.require(e.value(f"icmp eq ptr {kind}, {self.load('%api', at.API_LONG)}"))
            number = e.value(f"call i64 @PyLong_AsLongLongAndOverflow(ptr {item}, ptr %overflow)")
            overflow = e.value("load i32, ptr %overflow")
            self.require(e.value(f"icmp eq i32 {overflow}, 0"))
            self._in_range(number, spec.dtype)
            e.line(f"store i64 {number}, ptr {place}")
        else:
            self.require(e.value(f"icmp eq ptr {kind}, {self.load('%api', at.API_FLOAT)}"))
            value = self.field(item, OB_VALUE, "double")
            if spec.dtype == "f32":
                narrow = e.value(f"fptrunc double {value} to float")
                if not spec.rounding:
                    wide = e.value(f"fpext float {narrow} to double")
                    self.require(e.value(f"fcmp ueq double {wide}, {value}"))
                e.line(f"store float {narrow}, ptr {place}")
            else:
                e.line(f"store double {value}, ptr {place}")
        self.store("%frame", slot, place)
        e.branch(after)

    def _in_range(self, number: str, dtype: str) -> None:
        bits = 8 * itemsize(dtype)
        if bits == 64:
            return
        narrow = self.e.value(f"trunc i64 {number} to i{bits}")
        extend = "sext" if dtype.startswith("i") else "zext"
        wide = self.e.value(f"{extend} i{bits} {narrow} to i64")
        self.require(self.e.value(f"icmp eq i64 {wide}, {number}"))

    def _sizes(self, shape: tuple[Size, ...], dims: str) -> None:
        for axis, size in enumerate(shape):
            got = self.load(dims, axis, "i64")
            name = None if isinstance(size, int) else size.plain
            if name and name not in self.env:
                self.env[name] = got
            else:
                self.later.append((size, got))

    def _shared(self) -> None:
        """Finds the containers; goes to the slow path if one is in use in a way that excludes ours, or has other sizes."""
        e, specs = self.e, self.signature.shared
        if not specs:
            return
        self.require(e.value(f"call i1 @tcc_shared_ready({self.containers()}, ptr {self.data(0)})"))
        for index, spec in enumerate(specs):
            if all(isinstance(size, int) for size in spec.shape):
                continue
            dims = e.gep(self.load("%record", at.RECORD_SHARED + index), at.SHARED_DIMS, "i64")
            self._sizes(spec.shape, dims)

    def containers(self) -> str:
        """The arguments of functions of codegen/containers.py: records, and what we want of them."""
        end = f"getelementptr inbounds (i64, ptr @{self.name}.shared, i64 {len(self.table)})"
        return f"ptr {self.record(0)}, ptr @{self.name}.shared, ptr {end}"

    def record(self, container: int) -> str:
        """Where the record of the call has a container's."""
        return self.e.gep("%record", at.RECORD_SHARED + container, "i64")

    def data(self, container: int) -> str:
        """Where the frame has a container's address."""
        return self.e.gep("%frame", self.frame.container(container), "i64")

    def _kept(self) -> None:
        """Panels of containers while they are of their values; goes to the slow path when they are to be made."""
        e, count = self.e, len(self.signature.shared)
        if self.signature.kept:
            sources = f"ptr @{self.name}.kept, i64 {len(self.signature.kept)}"
            panels = f"ptr {self.record(count)}, ptr {self.data(count)}"
            self.require(e.value(f"call i1 @tcc_kept(ptr {self.record(0)}, {sources}, {panels})"))

    def _pool(self) -> None:
        e = self.e
        pool = self.load("%record", at.RECORD_POOL)
        self.store("%ctx", at.CTX_POOL, pool)
        e.line(f"%threads.at = getelementptr inbounds i64, ptr {pool}, i64 {at.POOL_LIMIT}")
        e.line("%threads = load i64, ptr %threads.at")
        self.store("%ctx", at.CTX_THREADS, "%threads", "i64")

    def _arena(self) -> str:
        """The block to be taken, or "" when the function needs none.  Fills the frame's arena and the context's scratch."""
        e, s = self.e, self.signature
        arena, scratch = self._aligned(s.arena), self._aligned(s.scratch)
        threads = e.value(f"mul i64 %threads, {scratch}") if scratch != "0" else "0"
        block = e.value(f"add i64 {arena}, {threads}")
        total = block
        for output in s.outputs:
            if not output.late:
                total = e.value(f"add i64 {total}, {self._bytes(output.dtype, output.shape)}")
        if not self._always_small():
            self.store("%record", at.RECORD_WANTED_ARENA, block, "i64")
            self.store("%record", at.RECORD_WANTED_TOTAL, total, "i64")
            checked = self.load("%record", at.RECORD_CHECKED, "i64")
            self.require(e.value(f"icmp ule i64 {total}, {checked}"))
        if not self.needs_arena:
            for slot in (at.CTX_SCRATCH, at.CTX_SCRATCH_BYTES):
                self.store("%ctx", slot, "0", "i64")
            self.store("%frame", at.FRAME_ARENA, "null")
            return ""
        head = self.load("%record", at.RECORD_ARENA)
        self.require(e.value(f"icmp ne ptr {head}, null"))
        capacity = self.load(head, at.BLOCK_CAPACITY, "i64")
        self.require(e.value(f"icmp ule i64 {block}, {capacity}"))
        base = e.gep(head, at.BLOCK_HEADER)
        self.store("%frame", at.FRAME_ARENA, base)
        self.store("%ctx", at.CTX_SCRATCH, e.gep(base, arena))
        self.store("%ctx", at.CTX_SCRATCH_BYTES, scratch, "i64")
        return head

    def _always_small(self) -> bool:
        s = self.signature
        if not isinstance(s.arena, int) or s.arena or s.scratch != 0:
            return False
        total = 0
        for output in s.outputs:
            bytes = itemsize(output.dtype)
            for size in output.shape:
                if not isinstance(size, int):
                    return False
                bytes *= size
            total += bytes
        return total < at.UNCHECKED_BYTES

    def _aligned(self, size: Size) -> str:
        if isinstance(size, int):
            return str(-(-size // ALIGN) * ALIGN)
        padded = self.e.value(f"add i64 {bytes_text(self.e, size, self.env)}, {ALIGN - 1}")
        return self.e.value(f"and i64 {padded}, {-ALIGN}")

    def _bytes(self, dtype: str, shape: tuple[Size, ...]) -> str:
        return bytes_text(self.e, dims.mul(itemsize(dtype), *shape), self.env)

    def _lock(self) -> None:
        if self.signature.shared:
            self.e.line(f"call void @tcc_shared_lock({self.containers()})")
        if self.needs_arena:
            head = self.load("%record", at.RECORD_ARENA)
            self.store("%record", at.RECORD_ARENA, self.load(head, at.BLOCK_NEXT))

    @property
    def needs_arena(self) -> bool:
        return self.signature.arena != 0 or self.signature.scratch != 0

    def _unlock(self, block: str) -> None:
        if self.signature.shared:
            self.e.line(f"call void @tcc_shared_unlock({self.containers()})")
        if block:
            self.store(block, at.BLOCK_NEXT, self.load("%record", at.RECORD_ARENA))
            self.store("%record", at.RECORD_ARENA, block)

    def _output(self, index: int) -> None:
        e, spec = self.e, self.signature.outputs[index]
        if spec.late:
            self.store("%frame", self.frame.output(index), "null")
            return
        for axis, size in enumerate(spec.shape):
            self.store("%dims", axis, self.size(size), "i64")
        kind, new = self.load("%api", at.API_NDARRAY), self.load("%api", at.API_ARRAY_NEW)
        array = e.value(
            f"call ptr {new}(ptr {kind}, i32 {len(spec.shape)}, ptr %dims, i32 {TYPENUMS[spec.dtype]}, "
            "ptr null, ptr null, i32 0, i32 0, ptr null)"
        )
        self.store("%outputs", index, array)
        made = e.label()
        e.branch_if(e.value(f"icmp eq ptr {array}, null"), "failed", made)
        e.at(made)
        self.store("%frame", self.frame.output(index), self.field(array, ARRAY_DATA))

    def _context(self) -> None:
        self.store("%frame", at.FRAME_CTX, "%ctx")
        for slot, value in (
            (at.CTX_ERROR, "null"),
            (at.CTX_THREAD_STATE, "null"),
            (at.CTX_NEXT_POLL, "null"),
            (at.CTX_RECORD, "%record"),
            (at.CTX_OBJECTS, "%objects"),
            (at.CTX_OUTPUTS, "%outputs"),
            (at.CTX_FUNCTION, "%self"),
        ):
            self.store("%ctx", slot, value)
        if self.signature.late:
            self.e.line("call void @tcc_late_enter(ptr %ctx)")

    def _run(self) -> str:
        """The status of the body, which runs without the GIL when there is much to do."""
        e = self.e
        work = self.size(self.signature.work)
        long = e.value(f"icmp sgt i64 {work}, {at.RELEASE_NS}")
        e.when(long, lambda: e.line("call void @tcc_gil_release(ptr %ctx)"))
        status = e.value(f"call i32 @{self.body}(ptr %frame)")
        e.line("call void @tcc_gil_acquire(ptr %ctx)")
        if self.signature.late:
            e.line("call void @tcc_late_leave(ptr %ctx)")
        return status

    def _adopt(self, status: str) -> None:
        e = self.e
        fine, wrong, said = e.label(), e.label(), e.label()
        e.branch_if(e.value(f"icmp eq i32 {status}, {at.STATUS_OK}"), fine, wrong)
        e.at(wrong)
        e.branch_if(e.value(f"icmp eq i32 {status}, {at.STATUS_PYTHON}"), "failed", said)
        e.at(said)
        e.line("call void @tcc_raise(ptr %ctx)")
        e.branch("failed")
        e.at(fine)
        for index, spec in enumerate(self.signature.outputs):
            if spec.adopt is None:
                continue
            array = self.load("%outputs", index)
            done = e.value(f"call i1 @tcc_adopt(ptr %ctx, i64 {spec.adopt}, ptr {array})")
            following = e.label()
            e.branch_if(done, following, "failed")
            e.at(following)

    def _result(self) -> None:
        e, s = self.e, self.signature
        kept = [i for i, o in enumerate(s.outputs) if o.adopt is None]
        adopted = len(s.outputs) - len(kept)
        if adopted:
            e.line(f"call void @tcc_drop(ptr {e.gep('%outputs', len(kept), 'i64')}, i64 {adopted})")
        if s.returns == "array":
            e.line(f"ret ptr {self.load('%outputs', 0)}")
            return
        if s.returns == "none":
            self._singleton(at.API_NONE, close=False)
            return
        items = e.value(f"call ptr @PyList_New(i64 {len(kept)})")
        lost, made = e.label(), e.label()
        e.branch_if(e.value(f"icmp eq ptr {items}, null"), lost, made)
        e.at(lost)
        e.line(f"call void @tcc_drop(ptr %outputs, i64 {len(kept)})")
        e.line("ret ptr null")
        e.at(made)
        for index in kept:
            e.value(f"call i32 @PyList_SetItem(ptr {items}, i64 {index}, ptr {self.load('%outputs', index)})")
        e.line(f"ret ptr {items}")

    def _failed(self, block: str) -> None:
        """With a Python exception set."""
        e = self.e
        e.at("failed")
        self._unlock(block)
        e.line(f"call void @tcc_drop(ptr %outputs, i64 {len(self.signature.outputs)})")
        e.line("ret ptr null")

    def _singleton(self, slot: int, close: bool = True) -> None:
        thing = self.load("%api", slot)
        self.e.line(f"call void @Py_IncRef(ptr {thing})")
        if close:
            self.e.end(f"ptr {thing}")
        else:
            self.e.line(f"ret ptr {thing}")
