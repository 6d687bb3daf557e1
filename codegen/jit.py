"""LLVM text to object bytes, and object bytes to callable addresses.

Objects are position independent code of the small model; JITLink gives every call out of an image a stub and every
outside datum a GOT slot, so an external symbol may lie anywhere in the address space.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import heapq
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tcc.codegen.target import Target, host
from tcc.runtime.threads import thread_count

IMAGES = 32  # of one linker, which keeps 9 KB of each for as long as it lives, also of those that are gone

_image_numbers = itertools.count()
_machines: dict[tuple[Target, int], list[Any]] = {}  # those that no thread uses


def compile_object(text: str, target: Target, level: int = 2) -> bytes:
    """The relocatable object of a module; RuntimeError with LLVM's words if the text is wrong.

    The target's triple and its attribute group #0 are added to the text.  No IR pass runs: kernels are explicit vectors.
    `level` is the code generator's: 0 is quick, for what runs a few times a call (one function can have it too: `optnone`).
    """
    with parsed(text, target) as module, machine_of(target, level) as machine:
        return _emitted(machine, module)


def assembly(text: str, target: Target) -> str:
    """The assembly that `compile_object` would encode."""
    with parsed(text, target) as module, machine_of(target) as machine:
        return str(machine.emit_assembly(module))


def function(address: int, restype: Any, *argtypes: Any) -> Callable[..., Any]:
    """The C function at `address` as a ctypes callable, which releases the GIL; it does not keep its Image alive."""
    return ctypes.CFUNCTYPE(restype, *argtypes)(address)


class Image:
    """Object files linked together in memory, which is given back when the Image dies."""

    def __init__(self, jit: Any, name: str, tracker: Any) -> None:
        self._jit, self._name, self._tracker = jit, name, tracker
        self._found: dict[str, Any] = {}

    @classmethod
    def load(cls, objects: Sequence[bytes], symbols: Mapping[str, int] | None = None) -> Image:
        """Links `objects` with each other and with the addresses in `symbols`, and with nothing else."""
        from llvmlite import binding as llvm

        builder = llvm.JITLibraryBuilder()
        for data in objects:
            builder.add_object_img(data)
        for symbol, address in (symbols or {}).items():
            builder.import_symbol(symbol, address)
        number = next(_image_numbers)
        jit, name = _linker(number // IMAGES), f"image{number}"
        return cls(jit, name, builder.link(jit, name))

    def address(self, name: str) -> int:
        """Of the function or datum `name`; RuntimeError if no object defines it or a symbol it needs is not there."""
        if name not in self._found:
            try:
                self._found[name] = self._jit.lookup(self._name, name)
            except RuntimeError as e:
                e.add_note(
                    f"looking up {name!r}; symbols that nothing defines are passed to Image.load by address"
                )
                raise
        return int(self._found[name][name])


def parsed(text: str, target: Target) -> Any:
    from llvmlite import binding as llvm

    if not target.fma:
        text = text.replace("@llvm.fma.", "@llvm.fmuladd.")
    whole = f'target triple = "{target.triple}"\n{text}\n{target.attributes}'
    module = llvm.parse_assembly(whole, llvm.create_context())
    module.verify()
    return module


class Jobs:
    """Objects that are made side by side, by as many threads as calls may use; of those that wait, the longest goes first."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, int, Callable[[], bytes]]] = []  # a heap: length, number, job
        self._made: dict[int, bytes] = {}
        self._failed: list[BaseException] = []
        self._helpers: list[threading.Thread] = []
        self._count = 0

    def add(self, length: int, job: Callable[[], bytes]) -> None:
        heapq.heappush(self._waiting, (-length, self._count, job))
        self._count += 1

    def begin(self) -> None:
        """Others may begin now, beside what the caller does until it asks for the `results`: LLVM runs without the GIL."""
        if not self._waiting:
            return
        helpers = [h for h in self._helpers if h.is_alive()]
        for _ in range(min(len(self._waiting), thread_count() - 1 - len(helpers))):
            helpers.append(threading.Thread(target=self._work, name="tcc compiler"))
            helpers[-1].start()
        self._helpers = helpers

    def results(self) -> list[bytes]:
        """In the order of the jobs.  An error ends all: those that run are waited for."""
        if len(self._waiting) > 1:  # how many threads there may be takes longer to find than to leave out
            self.begin()
        try:
            self._work()
            for helper in self._helpers:
                helper.join()
        finally:
            self.give_up()
        if self._failed:
            raise self._failed[0]
        return [self._made[number] for number in range(self._count)]

    def give_up(self) -> None:
        """No other job is begun."""
        self._waiting.clear()

    def _work(self) -> None:
        try:
            while not self._failed:
                try:
                    _, number, job = heapq.heappop(self._waiting)
                except IndexError:
                    return
                self._made[number] = job()
        except BaseException as e:
            self._failed.append(e)


def _emitted(machine: Any, module: Any) -> bytes:
    """The object of a module, made without llvmlite's lock around all of LLVM: threads share no context and no machine."""
    from llvmlite.binding import ffi

    emit = ffi.lib.LLVMPY_TargetMachineEmitToMemory
    with ffi.OutputString() as error:
        buffer = getattr(emit, "_cfn", emit)(machine, module, 1, error)
        if not buffer:
            raise RuntimeError(str(error))
    try:
        return ctypes.string_at(ffi.lib.LLVMPY_GetBufferStart(buffer), ffi.lib.LLVMPY_GetBufferSize(buffer))
    finally:
        ffi.lib.LLVMPY_DisposeMemoryBuffer(buffer)


@contextlib.contextmanager
def machine_of(target: Target, level: int = 2) -> Iterator[Any]:
    """One that no other thread uses meanwhile."""
    free = _machines.setdefault((target, level), [])
    try:
        machine = free.pop()
    except IndexError:
        machine = _new_machine(target, level)
    yield machine
    free.append(machine)


def _new_machine(target: Target, level: int = 2) -> Any:
    from llvmlite import binding as llvm

    if target.triple == llvm.get_process_triple():
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
    else:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
    llvm.initialize_native_asmparser()  # for what is written as instructions (codegen/assembly.py, aot/features.py)
    described = llvm.Target.from_triple(target.triple)
    return described.create_target_machine(
        cpu=target.cpu, features=target.features, opt=level, reloc="pic", codemodel="small"
    )


@functools.lru_cache(1)
def _linker(_: int) -> Any:
    """One for each number; it dies with the last of its images."""
    from llvmlite import binding as llvm

    # the linker takes the machine over, so it gets one of its own
    machine = _new_machine(host())
    return llvm.create_lljit_compiler(machine, use_jit_link=True, suppress_errors=True)
