"""LLVM text of one entry of a model's library: `infer_shapes`, `workspace_size` and `run`, around the body that `driver.py` makes.

All take the context and an array of tensors.  Tensors are checked one by one by what their specs say (aot/checks.py); what
sizes must have in common, and what results need, is worked out here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tcc.codegen.aot.layout import (
    ALIGN,
    CALL_CONTEXT,
    CALL_INPUTS,
    CTX_HANDED,
    CTX_LOADED,
    CTX_POOL,
    CTX_THREADS,
    STATUS,
    dlpack,
)
from tcc.codegen.aot.messages import refuse
from tcc.codegen.aot.specs import LARGEST_SIZE, spec_rows
from tcc.codegen.driver import Lowered
from tcc.codegen.emit import Emit
from tcc.codegen.gpu.library import DeviceLowered
from tcc.codegen.kernel import bytes_text, size_text
from tcc.ir import dims
from tcc.ir.dims import Size
from tcc.ir.types import itemsize
from tcc.runtime import layout as at
from tcc.runtime.manifest import Entry, Range


@dataclass(frozen=True)
class Piece:
    """An entry with its code.  `failures` says for each op that can fail what a message says: a format of its four numbers."""

    entry: Entry
    lowered: Lowered | DeviceLowered
    failures: Mapping[int, str]


class EntryText:
    """The functions of one entry of the model `prefix`; `context_bytes` is the size of a context."""

    def __init__(
        self,
        prefix: str,
        piece: Piece,
        strings: Callable[[str], str],
        context_bytes: int,
        state: Mapping[str, int],
        bytes: Mapping[str, int],
    ) -> None:
        self.piece, self.entry, self.lowered = piece, piece.entry, piece.lowered
        self.signature = piece.lowered.signature
        self.name = f"{prefix}_{piece.entry.name}"
        self.strings, self.context_bytes = strings, context_bytes
        self.state, self.bytes = state, bytes  # where a context has the address of a tensor, and its size
        self.who = strings(self.name)
        self.specs = f"@tcc_specs_{piece.entry.name}"
        self.ins, self.outs = len(self.signature.inputs), len(self.signature.outputs)
        self.e = Emit()
        self.env: dict[str, str] = {}

    def text(self) -> str:
        self._bind()
        self._infer()
        if self.needs_space:
            self._space()
        self._workspace()
        self._run()
        return self._tables() + self.e.text()

    @property
    def kept(self) -> list[str]:
        """What of the context the body reads: tensors of the state, then panels of such."""
        return [s.name for s in self.signature.shared if not s.constant]

    @property
    def panels(self) -> bool:
        return len(self.kept) > len(self.entry.reads)

    @property
    def ranges(self) -> Mapping[str, Range]:
        return self.entry.sizes

    def _tables(self) -> str:
        rows = [*self.entry.arguments, *self.entry.results]
        says = [
            self.strings("%s: " + self.piece.failures.get(i + 1, "an op failed"))
            for i in range(len(self.lowered.ops))
        ]
        return (
            f"{self.specs} = internal constant [{len(rows)} x %tcc_spec] [{spec_rows(rows, self.ranges, self.strings)}]\n"
            f"@tcc_failures_{self.entry.name} = internal constant [{len(says) + 1} x ptr] "
            f"[{', '.join(f'ptr {s}' for s in [*says, self.strings('%s: an op failed')])}]\n"
        )

    # -- small things ---------------------------------------------------------------------------------------------

    def leave_unless_ok(self, status: str, otherwise: str = "") -> None:
        e = self.e
        bad, stay = e.label(), e.label()
        e.branch_if(e.value(f"icmp ne i32 {status}, 0"), bad, stay)
        e.at(bad)
        e.line(otherwise or f"ret i32 {status}")
        e.at(stay)

    def refuse_if(
        self, condition: str, status: str, message: str, *arguments: str, otherwise: str = ""
    ) -> None:
        e = self.e
        bad, stay = e.label(), e.label()
        e.branch_if(condition, bad, stay)
        e.at(bad)
        given = [self._i64(a) if a.startswith("@") else f"i64 {a}" for a in arguments]
        status = e.value(refuse(status, message, *given))
        e.line(otherwise or f"ret i32 {status}")
        e.at(stay)

    def _i64(self, pointer: str) -> str:
        return f"i64 ptrtoint (ptr {pointer} to i64)"

    def size(self, size: Size) -> str:
        return size_text(self.e, size, self.env)

    def spec(self, row: int) -> str:
        return self.e.value(f"getelementptr %tcc_spec, ptr {self.specs}, i64 {row}")

    def sizes_of(self, list: str, index: int) -> str:
        """The address of a tensor's sizes."""
        t = self.e.value(f"load ptr, ptr {self.e.gep(list, index, 'ptr')}")
        return self.e.value(
            f"load ptr, ptr {self.e.value(f'getelementptr %tcc_tensor, ptr {t}, i32 0, i32 5')}"
        )

    def _field_of(self, tensor: str) -> Callable[[int], str]:
        return lambda k: self.e.value(f"getelementptr %tcc_tensor, ptr {tensor}, i32 0, i32 {k}")

    def slot(self, base: str, index: int) -> str:
        return self.e.value(f"load i64, ptr {self.e.gep(base, index, 'i64')}")

    # -- the functions --------------------------------------------------------------------------------------------

    def _bind(self) -> None:
        """`bind(ctx, in, sizes, full, starts, ends)`: checks the inputs, and keeps the sizes that have names."""
        e = self.e
        e.function(
            f"internal i32 @tcc_bind_{self.entry.name}(ptr %ctx, ptr %in, ptr %sizes, i1 %full, ptr %starts, ptr %ends)"
        )
        none = e.value("icmp eq ptr %ctx, null")
        self.refuse_if(none, "null", "null", self.who, self.strings("the context"))
        self.leave_unless_ok(
            e.value(
                f"call i32 @tcc_tensors(ptr %in, ptr {self.specs}, i64 {self.ins}, ptr {self.who}, i1 %full, "
                "ptr %starts, ptr %ends)"
            )
        )
        self.env = {}
        later: list[tuple[int, int, Size, str]] = []
        for i, spec in enumerate(self.signature.inputs):
            given = self.sizes_of("%in", i) if any(not isinstance(s, int) for s in spec.shape) else ""
            for axis, size in enumerate(spec.shape):
                if isinstance(size, int):
                    continue
                got = self.slot(given, axis)
                if size.plain and size.plain not in self.env:
                    self.env[size.plain] = got
                else:
                    later.append((i, axis, size, got))
        for i, axis, size, got in later:
            self.leave_unless_ok(
                e.value(
                    f"call i32 @tcc_equal(i64 {got}, i64 {self.size(size)}, ptr {self.spec(i)}, ptr {self.who}, "
                    f"i64 {axis}, ptr {self.strings(str(size))})"
                )
            )
        for i, output in enumerate(self.signature.outputs):
            if not output.late and any(not isinstance(s, int) for s in output.shape):
                bytes = bytes_text(e, dims.mul(itemsize(output.dtype), *output.shape), self.env)
                large = e.value(f"icmp ugt i64 {bytes}, {LARGEST_SIZE}")
                shape = self.strings(",".join(map(str, output.shape)))
                self.refuse_if(
                    large, "overflow", "overflow", self.who, self.strings(self.entry.results[i].name), shape
                )
        for k, name in enumerate(self.signature.frame.sizes):
            e.line(f"store i64 {self.env[name]}, ptr {e.gep('%sizes', k, 'i64')}")
        e.end("i32 0")

    def _begin(self, function: str, full: str, otherwise: str = "") -> None:
        """Binds the inputs of a function that has just begun, and loads the sizes."""
        e, frame = self.e, self.signature.frame
        e.line(f"%sizes = alloca [{max(1, len(frame.sizes))} x i64], align 8")
        count = self.ins + self.outs + 2
        e.line(f"%starts = alloca [{count} x i64], align 8")
        e.line(f"%ends = alloca [{count} x i64], align 8")
        self.leave_unless_ok(
            e.value(
                f"call i32 @tcc_bind_{self.entry.name}(ptr %ctx, ptr %in, ptr %sizes, i1 {full}, ptr %starts, ptr %ends)"
            ),
            otherwise,
        )
        self.env = {name: self.slot("%sizes", k) for k, name in enumerate(frame.sizes)}

    def _infer(self) -> None:
        """Each result's dtype, rank and sizes; of sizes that only running tells, the most that they can be, or -1."""
        e = self.e
        e.function(f"i32 @{self.name}_infer_shapes(ptr %ctx, ptr %in, ptr %out)")
        self._begin("infer_shapes", "false")
        for i, (spec, result) in enumerate(zip(self.signature.outputs, self.entry.results)):
            none = e.value("icmp eq ptr %out, null")
            self.refuse_if(none, "null", "null", self.who, self.strings("the array of results"))
            t = e.value(f"load ptr, ptr {e.gep('%out', i, 'ptr')}")
            self.refuse_if(
                e.value(f"icmp eq ptr {t}, null"), "null", "null", self.who, self.strings(result.name)
            )
            field = self._field_of(t)
            for k, value in ((1, 1), (2, 0), (3, len(spec.shape)), (4, dlpack(spec.dtype))):
                e.line(f"store i32 {value}, ptr {field(k)}")
            e.line(f"store ptr null, ptr {field(6)}")
            e.line(f"store i64 0, ptr {field(7)}")
            if not spec.shape:
                continue
            shape = e.value(f"load ptr, ptr {field(5)}")
            self.refuse_if(
                e.value(f"icmp eq ptr {shape}, null"), "null", "shape", self.who, self.strings(result.name)
            )
            for axis, size in enumerate(spec.shape):
                e.line(f"store i64 {self._bound(size)}, ptr {e.gep(shape, axis, 'i64')}")
        e.end("i32 0")

    def _bound(self, size: Size) -> str:
        if dims.names_of(size) <= self.env.keys():
            return self.size(size)
        known = self.ranges.get(size.plain or "") if not isinstance(size, int) else None
        return str(-1 if known is None or known.most is None else known.most)

    def _scratch(self) -> tuple[str, str]:
        """The bytes of one thread's scratch, and of all."""
        scratch = self._aligned(self.signature.scratch)
        if scratch == "0":
            return scratch, scratch
        return scratch, self.e.value(f"mul i64 {self.slot('%ctx', CTX_THREADS)}, {scratch}")

    @property
    def needs_space(self) -> bool:
        """Whether a call works in memory: the threads' scratch, then the arena."""
        return self.signature.scratch != 0 or self.signature.arena != 0

    def _space(self) -> None:
        """`space(ctx, sizes)`: the bytes of a workspace for inputs that are bound, or -1 and what is refused."""
        e = self.e
        e.function(f"internal i64 @tcc_space_{self.entry.name}(ptr %ctx, ptr %sizes)")
        self.env = {name: self.slot("%sizes", k) for k, name in enumerate(self.signature.frame.sizes)}
        arena = self._aligned(self.signature.arena)
        total = e.value(f"add i64 {arena}, {self._scratch()[1]}")
        large = e.value(f"icmp ugt i64 {total}, {LARGEST_SIZE}")
        name = self.strings("workspace")
        self.refuse_if(large, "overflow", "overflow", self.who, name, name, otherwise="ret i64 -1")
        e.end(f"i64 {total}")

    def _total(self) -> str:
        if not self.needs_space:
            return "0"
        return self.e.value(f"call i64 @tcc_space_{self.entry.name}(ptr %ctx, ptr %sizes)")

    def _aligned(self, size: Size) -> str:
        if isinstance(size, int):
            return str(-(-size // ALIGN) * ALIGN)
        padded = self.e.value(f"add i64 {bytes_text(self.e, size, self.env)}, {ALIGN - 1}")
        return self.e.value(f"and i64 {padded}, {-ALIGN}")

    def _workspace(self) -> None:
        e = self.e
        e.function(f"i64 @{self.name}_workspace_size(ptr %ctx, ptr %in)")
        self._begin("workspace_size", "false", "ret i64 -1")
        e.end(f"i64 {self._total()}")

    def _run(self) -> None:
        e, s, frame = self.e, self.signature, self.signature.frame
        e.function(f"i32 @{self.name}_run(ptr %ctx, ptr %in, ptr %out, ptr %workspace)")
        e.line(f"%frame = alloca [{frame.slots} x i64], align 16")
        e.line(f"%call = alloca [{at.CTX_SLOTS} x i64], align 16")
        e.line("%block.at = alloca ptr")
        self._begin("run", "true")
        if self.entry.reads:
            empty = e.value(f"icmp eq i64 {self.slot('%ctx', CTX_LOADED)}, 0")
            self.refuse_if(empty, "state", "state", self.who)
        if self.panels:
            handed = e.value(f"icmp ne i64 {self.slot('%ctx', CTX_HANDED)}, 0")
            e.when(handed, lambda: e.line("call void @tcc_panels(ptr %ctx)"))
        outs = e.gep("%starts", self.ins, "i64"), e.gep("%ends", self.ins, "i64")
        self.leave_unless_ok(
            e.value(
                f"call i32 @tcc_tensors(ptr %out, ptr {self.spec(self.ins)}, i64 {self.outs}, ptr {self.who}, i1 true, "
                f"ptr {outs[0]}, ptr {outs[1]})"
            )
        )
        self._result_sizes()
        total = self._total()
        if self.needs_space:
            huge = e.value(f"icmp slt i64 {total}, 0")
            self.leave_unless_ok(e.value(f"select i1 {huge}, i32 {STATUS['overflow']}, i32 0"))
        block = self._claim(total)
        self._apart(block, total)
        self._fill(block)
        kept = self._keep(total)
        status = e.value(f"call i32 @{self.lowered.name}(ptr %frame)")
        self._give_back(kept, status)
        if s.late:
            e.line("call void @tcc_late_release(ptr %call, ptr null)")
        if total != "0":
            own = e.value("load ptr, ptr %block.at")
            e.line(f"call void @free(ptr {own})")
        self._finish(status)

    def _keep(self, total: str) -> str:
        """A copy of the state that is updated, where the body may find out too late that there is no room for a result.

        Its ops that fail stand before all that write state, but memory is asked for where it is needed.
        """
        e, s = self.e, self.signature
        if not self.entry.updates or not (s.late or any(o.late for o in s.outputs)):
            return ""
        bytes = sum(map(self._padded, self.entry.updates))
        kept = e.value(f"call ptr @aligned_alloc(i64 {ALIGN}, i64 {max(bytes, ALIGN)})")
        lost, have = e.label(), e.label()
        e.branch_if(e.value(f"icmp eq ptr {kept}, null"), lost, have)
        e.at(lost)
        if total != "0":
            e.line(f"call void @free(ptr {e.value('load ptr, ptr %block.at')})")
        self.refuse_if("true", "memory", "memory", self.who, str(bytes))
        e.branch(have)
        e.at(have)
        self._copy_state(kept, back=False)
        return kept

    def _give_back(self, kept: str, status: str) -> None:
        e = self.e
        if not kept:
            return
        e.when(e.value(f"icmp ne i32 {status}, 0"), lambda: self._copy_state(kept, back=True))
        e.line(f"call void @free(ptr {kept})")

    def _copy_state(self, kept: str, back: bool) -> None:
        e, at = self.e, 0
        for name in self.entry.updates:
            copy, own = e.gep(kept, at), e.value(f"load ptr, ptr {e.gep('%ctx', self.state[name])}")
            to, source = (own, copy) if back else (copy, own)
            e.line(
                f"call void @llvm.memcpy.p0.p0.i64(ptr {to}, ptr {source}, i64 {self.bytes[name]}, i1 false)"
            )
            at += self._padded(name)

    def _padded(self, name: str) -> int:
        return -(-self.bytes[name] // ALIGN) * ALIGN

    def _result_sizes(self) -> None:
        e = self.e
        for i, spec in enumerate(self.signature.outputs):
            if spec.late or all(isinstance(size, int) for size in spec.shape):
                continue
            given = self.sizes_of("%out", i)
            for axis, size in enumerate(spec.shape):
                if isinstance(size, int):
                    continue
                self.leave_unless_ok(
                    e.value(
                        f"call i32 @tcc_equal(i64 {self.slot(given, axis)}, i64 {self.size(size)}, "
                        f"ptr {self.spec(self.ins + i)}, ptr {self.who}, i64 {axis}, ptr {self.strings(str(size))})"
                    )
                )

    def _claim(self, total: str) -> str:
        """The workspace: the caller's, or memory of this call's own where it gave none."""
        e = self.e
        if total == "0":
            return "null"
        e.line("store ptr null, ptr %block.at")
        given = e.value("icmp ne ptr %workspace, null")
        theirs, ours, have = e.label(), e.label(), e.label()
        e.branch_if(given, theirs, ours)
        e.at(theirs)
        address = e.value("ptrtoint ptr %workspace to i64")
        odd = e.value(f"icmp ne i64 {e.value(f'and i64 {address}, {ALIGN - 1}')}, 0")
        self.refuse_if(odd, "align", "align", self.who, self.strings("workspace"), str(ALIGN))
        e.branch(have)
        theirs = e.current
        e.at(ours)
        bytes = e.value(f"call i64 @llvm.umax.i64(i64 {total}, i64 {ALIGN})")
        made = e.value(f"call ptr @aligned_alloc(i64 {ALIGN}, i64 {bytes})")
        self.refuse_if(e.value(f"icmp eq ptr {made}, null"), "memory", "memory", self.who, bytes)
        e.line(f"store ptr {made}, ptr %block.at")
        e.branch(have)
        ours = e.current
        e.at(have)
        return e.value(f"phi ptr [%workspace, %{theirs}], [{made}, %{ours}]")

    def _apart(self, block: str, total: str) -> None:
        e, count = self.e, self.ins + self.outs
        for k, start, bytes in ((count, block, total), (count + 1, "%ctx", str(self.context_bytes))):
            e.line(f"store ptr {start}, ptr {e.gep('%starts', k, 'i64')}")
            e.line(f"store ptr {e.gep(start, bytes)}, ptr {e.gep('%ends', k, 'i64')}")
        status = e.value(
            f"call i32 @tcc_apart(ptr {self.who}, ptr {self.specs}, ptr %starts, ptr %ends, "
            f"i64 {self.ins}, i64 {count + 1}, i64 {count + 2})"
        )
        bad, stay = e.label(), e.label()
        e.branch_if(e.value(f"icmp ne i32 {status}, 0"), bad, stay)
        e.at(bad)
        if total != "0":
            e.line(f"call void @free(ptr {e.value('load ptr, ptr %block.at')})")
        e.line(f"ret i32 {status}")
        e.at(stay)

    def _fill(self, block: str) -> None:
        """The frame, and the call's context."""
        e, frame = self.e, self.signature.frame

        def store(base: str, slot: int, value: str, t: str = "ptr") -> None:
            e.line(f"store {t} {value}, ptr {e.gep(base, slot, 'i64')}")

        store("%frame", at.FRAME_CTX, "%call")
        scratch, all_scratch = self._scratch()
        arena = block if scratch == "0" else e.gep(block, all_scratch)
        store("%frame", at.FRAME_ARENA, arena)
        for i in range(self.ins):
            store("%frame", frame.input(i), self.slot("%starts", i), "i64")
        kept = self.kept
        for i, name in enumerate(kept):
            store(
                "%frame",
                frame.container(i),
                e.value(f"load i64, ptr {e.gep('%ctx', self.state[name])}"),
                "i64",
            )
        for i in range(len(self.signature.shared) - len(kept)):
            store("%frame", frame.container(len(kept) + i), f"@tcc_const_{self.entry.name}_{i}")
        for i, spec in enumerate(self.signature.outputs):
            value = "0" if spec.late else self.slot("%starts", self.ins + i)
            store("%frame", frame.output(i), value, "i64")
        for name, value in self.env.items():
            store("%frame", frame.size(name), value, "i64")
        store("%call", at.CTX_POOL, self.slot("%ctx", CTX_POOL), "i64")
        store("%call", at.CTX_THREADS, self.slot("%ctx", CTX_THREADS), "i64")
        store("%call", at.CTX_SCRATCH, block)
        store("%call", at.CTX_SCRATCH_BYTES, scratch, "i64")
        for slot in (at.CTX_ERROR, at.CTX_LATE_USED):
            store("%call", slot, "0", "i64")
        store("%call", at.CTX_RECORD, self.spec(self.ins))
        store("%call", at.CTX_OUTPUTS, "%out")
        store("%call", CALL_INPUTS, "%in")
        store("%call", CALL_CONTEXT, "%ctx")
        store("%call", at.CTX_FUNCTION, self.who)

    def _finish(self, status: str) -> None:
        e = self.e
        fine, wrong, failed, said = e.label(), e.label(), e.label(), e.label()
        e.branch_if(e.value(f"icmp eq i32 {status}, {at.STATUS_OK}"), fine, wrong)
        e.at(wrong)
        e.branch_if(e.value(f"icmp eq i32 {status}, {at.STATUS_ERROR}"), failed, said)
        e.at(failed)
        op = self.slot("%call", at.CTX_ERROR)
        row = e.value(
            f"getelementptr ptr, ptr @tcc_failures_{self.entry.name}, i64 {e.value(f'sub i64 {op}, 1')}"
        )
        numbers = ", ".join(f"i64 {self.slot('%call', at.CTX_ERROR + 1 + k)}" for k in range(4))
        message = e.value(f"load ptr, ptr {row}")
        said_status = e.value(
            f"call i32 @tcc_refuse(i32 {STATUS['index']}, ptr {message}, {self._i64(self.who)}, {numbers}, i64 0)"
        )
        e.line(f"ret i32 {said_status}")
        e.at(said)
        told = e.gep("%call", at.CTX_OBJECTS, "i64")
        e.line(f"ret i32 {e.value(f'load i32, ptr {told}')}")
        e.at(fine)
        e.end("i32 0")
